//! The model file: one flat little-endian file that is used in place.
//!
//! This page, [`SectionKind`] and [`crate::tokenizer`] specify it completely: they are enough to write a
//! reader or a writer. The converter writes it; [`Model`] reads it.
//!
//! # Layout
//! A header of 128 bytes, a table of 64-byte entries, then the sections in the order of the table.
//! Every section starts at the next multiple of 64 bytes after the end of the one before it (the
//! first one after the table). Gaps are zero, and the file ends at the next multiple of 64 after the
//! last section. The address that the file is mapped to must be a multiple of 64. All integers are
//! unsigned unless stated otherwise. Names of fields are those of [`Config`].
//!
//! | offset | type | header field |
//! |---|---|---|
//! | 0 | 8 bytes | magic, `"bertlet\0"` |
//! | 8 | u32 | version of the format, 1 |
//! | 12 | u32 | number of sections |
//! | 16 | u64 | length of the file in bytes |
//! | 24 | u64 | XXH64 (seed 0) of the bytes from 32 to the end of the table |
//! | 32 | 7 x u32 | `hidden_size` H, `num_hidden_layers`, `num_attention_heads` A, `intermediate_size` I, `vocab_size` V, `max_position_embeddings`, `type_vocab_size` |
//! | 60 | f32 | `layer_norm_eps` |
//! | 64 | u32 | `hidden_act`: 0 gelu, 1 gelu (tanh), 2 relu, 3 silu, 4 tanh |
//! | 68 | u32 | `attention`: 0 f32, 1 integer |
//! | 72 | u32 | default pooling: 0 none, 1 cls, 2 pooler, 3 mean, 4 max, 5 mean-max, 6 mean-sqrt, 7 sep |
//! | 76 | u32 | 1 if pooled vectors are L2-normalised by default |
//! | 80 | u32 | `problem_type` of the sequence classifier: 0 single label, 1 multi label, 2 regression |
//! | 84 | u32 | number of labels |
//! | 88 | u32 | `max_tokens`, at which texts are cut: at most `max_position_embeddings`, or 0 for that |
//! | 92 | u32 | activation of the sequence classifier's scores: 0 as `problem_type` says, 1 identity, 2 sigmoid |
//! | 96 | 32 bytes | zero |
//!
//! | offset | type | table entry field |
//! |---|---|---|
//! | 0 | u32 | kind, see [`SectionKind`] |
//! | 4 | u32 | layer (kinds 16 to 21), else 0 |
//! | 8 | u32 | encoding: 0 bytes, 1 f32, 2 f16, 3 int8 |
//! | 12 | u32, u32 | rows (outputs, entries), columns (inputs); 0 for bytes |
//! | 20 | u32, u32 | rotation of an int8 matrix: block, stride; else 1, 1 |
//! | 28 | u32 | zero |
//! | 32 | u64, u64 | offset from the start of the file, length in bytes |
//! | 48 | u64 | XXH64 (seed 0) of the section |
//! | 56 | u64 | zero |
//!
//! The table holds the [`SectionKind`]s 1 to 4, then 16 to 21 for each layer, then any of the others in
//! ascending order, each at most once.
//!
//! # Sections
//! `n16` is `n` rounded up to a multiple of 16; the padding is zero. With `D = H / A`, each head's
//! queries, keys, values and context have `D16` places everywhere.
//!
//! * **Matrix** `[N, K]` with bias: `y[n] = sum over k of x[k] w[n][k] + bias[n]`. A panel holds
//!   sixteen outputs.
//!   * f32, f16: weights `[N16 / 16][K][16]`, then (at a multiple of 64) f32 bias `[N16]`.
//!   * int8: weights `[N16 / 16][K16 / 4][16][4]` in [-127, 127], then f32 scale `[N16]`, f32 bias
//!     `[N16]`, i32 sum of each output's weights `[N16]`. The input is rotated, then quantised;
//!     see [`crate::numerics`]. Rotation (block B, stride S): element `(b B + j) S + s` is member `j`
//!     of a block for every `b` and every `s < S`; each block is multiplied by the unnormalised
//!     Walsh-Hadamard matrix of order B, and the scales contain its normalisation. B is a power of two
//!     up to 128; S is 1, or a multiple of 16; S B divides K.
//! * **Table** `[R, H]`: f32 or f16 `[R][H16]`; int8: values `[R][H16]`, then (at a multiple of 64)
//!   f16 scales `[R][ceil(H / 64)]`, one per 64 columns.
//! * **Norm**: f32 gamma `[H16]`, beta `[H16]`.
//! * **Vector**: f32 `[R16]`.
//! * **Bytes**: as the kind says.
//!
//! # Numbers
//! The same bits everywhere need these rules. A reader may rely on them; [`Model::verify`] checks them.
//! * int8 values are never -128. The stored sum of an output's int8 weights is their sum.
//! * Scales are finite and not negative: neither NaN nor infinite, and the sign bit is 0. All other f32 and
//!   f16 values are finite.
//! * Padding is zero, all bits: inputs, outputs and columns past those of the section, bytes up to the next
//!   part, and the weights and biases of the places past D of each head (outputs of `QueryKeyValue`, inputs of
//!   `AttentionOutput`). The scales of these outputs may be any.
//!
//! # Self-test
//! A few inputs with the outputs that the writer of the file got; [`crate::selftest`] compares them.
//! Little-endian u32, f32 and bytes:
//!
//! | offset | type | field |
//! |---|---|---|
//! | 0 | u32 | version, 1 |
//! | 4 | u32 | number of cases |
//! | 8 | u32 | tokens of the longest case |
//! | 12 | u32 | values of the largest output |
//!
//! The cases follow one after another: u32 number of tokens T, u32 number of outputs, u32 `input_ids[T]`,
//! u8 `token_type_ids[T]`, zeros up to a multiple of four bytes, then each output: u32 source, u32
//! number of values N, f32 `[N]`. The source is 0 for the mean of the last hidden state over all tokens,
//! or the number of a [`SectionKind`]: [`SectionKind::Pooler`] for the pooler's output, a head's for
//! its logits as [`crate::Output::Logits`] gives them. Masked LM logits are left out: there are
//! `vocab_size` per token.
//!
//! # Versions
//! A reader refuses every version that it does not know. Numbers of kinds, encodings and fields are never
//! reused.

/// `enum`s that stand in the file as u32.
macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $number:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u32)]
        #[non_exhaustive]
        pub enum $name { $($(#[$item_doc])* $item = $number,)* }

        impl $name {
            /// The item with this number in the file.
            pub(crate) const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$item),)*
                    _ => None,
                }
            }
        }
    };
}

mod checksum;
mod config;
mod error;
mod labels;
mod model;
mod prompts;
mod records;
mod sections;
pub(crate) mod selftest;
mod verify;
mod weights;
#[cfg(feature = "writer")]
#[doc(hidden)]
pub mod writer;

pub use config::{Activation, Attention, Config, ProblemType, ScoreActivation};
pub use error::FormatError;
pub use labels::Labels;
pub use model::Model;
pub use prompts::{Prompt, Prompts};
#[doc(hidden)]
pub use sections::round16;
pub use sections::{Encoding, Section, SectionKind};
pub use verify::BadNumber;
pub(crate) use weights::{Layer, Linear};

/// First bytes of every file.
pub const MAGIC: [u8; 8] = *b"bertlet\0";
/// The version of the format that this library writes and reads.
pub const VERSION: u32 = 1;
/// Alignment of sections, of the file's length and of the address that it is read at, in bytes.
pub const ALIGNMENT: usize = 64;
