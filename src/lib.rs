//! BERT inference without allocation: for phones, single-board computers, microcontrollers, and
//! single cores of servers.
//!
//! A model is one file that `bertlet-convert` makes from a TensorFlow, PyTorch or safetensors
//! checkpoint, in int8, f16 or f32. The runtime maps it (or finds it in flash), checks its header, and
//! runs it in place.
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
//! * **Nothing is copied.** Opening a file reads its header and section table, but no weights.
//! * **The encoder allocates nothing**, with or without `std`: the caller passes one buffer. Its size is
//!   [`Config::scratch_len`], which grows linearly with the number of tokens.
//! * **One model, one answer**: the same bits on every instruction set, for any number of threads, any
//!   order of inputs, with or without padding. [`numerics`] specifies the arithmetic to the bit.
//! * **Hostile input gives an error**: whatever the bytes of a file, the text or the ids, a call returns
//!   a result, a [`FormatError`], a [`RunError`] or another typed error. It does not panic, hang, or
//!   read memory that it was not given. [`Model::verify`] detects damaged files.
//!
//! # Features
//! | feature | default | what it adds |
//! |---|---|---|
//! | `std` | yes | detection of instruction sets at run time, mapped files |
//! | `cli` | yes | the `bertlet` command |
//! | `ffi` | no | the C API: `include/bertlet.h` |
//! | `panic-handler` | no | without `std`: a panic handler, for a static library that is the only Rust in its program |
//! | `writer` | no | the writers of [`format`](mod@format) and [`tokenizer`], for converters and tests |
//!
//! # Without `std`
//! `default-features = false` leaves a `no_std` crate that needs neither an allocator nor an operating
//! system. If the shape is known at build time, the scratch can be a `static`. The model's bytes must
//! start at an address that is a multiple of 64.
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
//! [`Isa::detect`] picks the fastest that the CPU has; [`Isa::named`] selects one by name.
//!
//! | target | names, slowest first |
//! |---|---|
//! | all | `portable` |
//! | x86-64 | `avx2`, `avxvnni`, `avx512vnni` |
//! | AArch64 | `neon`, `dotprod`, `i8mm` |
//! | 32-bit ARM with the DSP extension and a float unit | `dsp` |
//! | Cortex-M with MVE and its floats | `mve` |
//!
//! Without `std` there is no detection: [`Isa::detect`] uses what the build enables with
//! `-C target-feature` or `-C target-cpu`.
//!
//! # Where to read on
//! * [`Encoder`] runs models. [`Input`] is what it runs on; [`Output`], with [`Layers`], [`Pooling`] and
//!   [`Head`], is what it returns. `src/encoder/forward.rs` is the forward pass.
//! * [`tokenizer`] turns text into ids, with offsets.
//! * [`format`](mod@format) specifies the file, [`numerics`] the arithmetic.
//!   `tests/second_implementation.rs` is written from these two pages alone.
//! * `benches/PERFORMANCE.md` says how fast it is, what bounds it, and what was tried.
//! * `src/kernels/lib.rs` describes how to add an instruction set.
//! * [`Executor`] is the interface to threads.
#![cfg_attr(not(feature = "std"), no_std)]

#[cfg(not(feature = "std"))]
extern crate no_std_compat as std;

// For a C program, which has no Rust around the library that would provide it.
#[cfg(all(feature = "panic-handler", not(feature = "std")))]
#[panic_handler]
#[allow(unsafe_code)]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // WebAssembly has no C library, but an instruction.
    #[cfg(target_family = "wasm")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_family = "wasm"))]
    {
        unsafe extern "C" {
            safe fn abort() -> !;
        }
        abort()
    }
}

#[cfg(target_endian = "big")]
compile_error!(
    "big-endian targets are not supported: model files are little-endian and used in place"
);

mod encode;
mod encoder;
mod error;
// Rust has better ways in; the header is the page for C.
#[cfg(feature = "ffi")]
#[doc(hidden)]
pub mod ffi;
pub mod format;
pub mod heads;
mod linear;
pub mod numerics;
mod observer;
mod outputs;
#[cfg(feature = "std")]
mod owned;
pub mod selftest;
pub mod tasks;
mod threads;
pub mod tokenizer;

#[doc(hidden)]
pub use bertlet_kernels as kernels;
pub use encoder::{Encoder, Input};
pub use error::{NotFinite, RunError, TooSmall};
pub use format::{Config, FormatError, Model, Prompt, Prompts, SectionKind};
pub use heads::{MaskedLm, NextSentence, QuestionAnswering, SequenceClassifier, TokenClassifier};
#[doc(inline)]
pub use kernels::{Isa, IsaError};
pub use outputs::{
    Combine, Head, HiddenState, Layers, Output, Pooling, SelectionError, features_len,
};
#[cfg(feature = "std")]
pub use owned::{
    Classification, Embedding, Entities, FilledMask, FilledMasks, FoundAnswer, FoundAnswers,
    ModelFile, NamedEntity, NextSentenceScore, OpenError, Session, ThreadPool, WordVectors,
};
// What the commands share.
#[cfg(feature = "std")]
#[doc(hidden)]
pub use owned::{AtomicFile, Printable, with_scratch};
pub use threads::{Executor, Serial};
