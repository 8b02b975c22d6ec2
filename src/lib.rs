//! BERT inference without allocation: for phones, single-board computers, microcontrollers, and
//! single cores of servers.
//!
//! A model is one file that `bertlet-convert` makes from a TensorFlow, PyTorch or safetensors
//! checkpoint, in int8, f16 or f32. The runtime maps it (or finds it in flash), checks its header, and
//! runs it where it lies.
//!
//! ```no_run
//! use bertlet::Session;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut session = Session::open("minilm.bertlet")?;
//! let vector = session.embed("A quiet house.")?;
//! assert_eq!(vector.len(), 384);
//! # Ok(())
//! # }
//! ```
//!
//! [`tasks::TextRunner`] does the same in memory of the caller, without an allocator or `std`.
//!
//! # What is promised
//! * **Nothing is copied.** Opening a file reads its header and section table, no weight.
//! * **Nothing is allocated**, with or without `std`: the caller hands over one buffer, whose size
//!   [`Config::scratch_len`] tells and which grows with the number of tokens, not with its square.
//! * **One model, one answer**: the same bits on every instruction set, for any number of threads, any
//!   order of inputs, with or without padding. [`numerics`] says what is computed, to the bit.
//! * **Hostile input gets an error**: whatever the bytes of a file, the text or the ids, a call returns
//!   an answer, a [`FormatError`], a [`RunError`] or another typed error. It does not panic, hang, or
//!   read what is not its own. [`Model::verify`] tells a damaged file from a whole one.
//!
//! # Features
//! | feature | default | what it adds |
//! |---|---|---|
//! | `std` | yes | detection of instruction sets at run time, mapped files |
//! | `cli` | yes | the `bertlet` command |
//! | `ffi` | no | the C API: `include/bertlet.h` |
//! | `writer` | no | [`format`](mod@format)'s and [`tokenizer`]'s writers, for converters and tests |
//!
//! # Without `std`
//! `default-features = false` leaves a `no_std` crate that needs neither an allocator nor an operating
//! system. For a shape known at build time the scratch can be a `static`; the model's bytes must
//! start at a multiple of 64.
//!
//! ```
//! use bertlet::format::{Activation, Attention};
//! use bertlet::Config;
//!
//! const CONFIG: Config = Config {
//!     hidden_size: 128,
//!     num_hidden_layers: 2,
//!     num_attention_heads: 2,
//!     intermediate_size: 512,
//!     vocab_size: 30522,
//!     max_position_embeddings: 512,
//!     type_vocab_size: 2,
//!     layer_norm_eps: 1e-12,
//!     hidden_act: Activation::Gelu,
//!     attention: Attention::Integer,
//! };
//! static mut SCRATCH: [u8; CONFIG.scratch_len(32)] = [0; CONFIG.scratch_len(32)];
//! assert!(CONFIG.scratch_len(32) < 192 << 10);
//! ```
//!
//! # Instruction sets
//! [`Isa::detect`] picks the fastest that the CPU has; [`Isa::named`] takes another by its name.
//!
//! | target | names, slowest first |
//! |---|---|
//! | all | `portable` |
//! | x86-64 | `avx2`, `avxvnni`, `avx512vnni` |
//! | AArch64 | `neon` |
//!
//! Without `std` there is no detection: what the build may assume (`-C target-feature`) is used.
//!
//! # Where to read on
//! * [`Encoder`] runs models; [`Input`], [`Output`], [`Layers`] and [`Pooling`] say on what, and what
//!   is wanted of it.
//! * [`tokenizer`] turns text into ids, with offsets.
//! * [`format`](mod@format) specifies the file, [`numerics`] the arithmetic;
//!   `tests/second_implementation.rs` is written from these two pages alone.
//! * [`performance`] says how fast it is, what bounds it, and what was tried.
//! * `src/kernels/lib.rs` says how to add an instruction set.
//! * [`Executor`] is how threads come in.
#![cfg_attr(not(feature = "std"), no_std)]

#[cfg(not(feature = "std"))]
extern crate no_std_compat as std;

// A library for C has no Rust program around it that would bring one.
#[cfg(all(feature = "ffi", not(feature = "std")))]
#[panic_handler]
#[allow(unsafe_code)]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        safe fn abort() -> !;
    }
    abort()
}

#[cfg(target_endian = "big")]
compile_error!("model files are little-endian and are used as they lie: no big-endian target");

pub mod encoder;
mod error;
pub mod features;
#[cfg(feature = "ffi")]
pub mod ffi;
pub mod format;
pub mod heads;
pub mod numerics;
#[cfg(feature = "std")]
mod owned;
pub mod performance;
pub mod selftest;
pub mod tasks;
mod threads;

#[doc(hidden)]
pub use bertlet_kernels as kernels;
pub use encoder::{Encoder, Input, Output, features_len};
pub use error::{RunError, TooSmall};
pub use features::{Combine, Layers, Pooling, SelectionError};
pub use format::{Config, FormatError, Model, SectionKind};
pub use heads::{MaskedLm, NextSentence, QuestionAnswering, SequenceClassifier, TokenClassifier};
#[doc(inline)]
pub use kernels::{Isa, IsaError};
#[cfg(feature = "std")]
pub use owned::{
    AtomicFile, Classification, Embedding, Entities, FilledMask, FoundAnswer, ModelFile,
    NamedEntity, OpenError, Session, ThreadPool, WordVectors, with_scratch,
};
pub use threads::{Executor, Serial};
pub mod tokenizer;
