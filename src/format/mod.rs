//! The model file: one flat little-endian file that is used where it lies.
//!
//! This page and [`SectionKind`] specify it, so that a stranger can write a reader or a writer; the
//! converter writes it with [`writer`], the runtime reads it with [`Model`].
//!
//! # Layout
//! A header of 128 bytes, a table of 64-byte entries, then the sections in the order of the table.
//! Every section starts at the next multiple of 64 bytes after the end of the one before it (the
//! first after the table), gaps are zero, and the file ends at the next multiple of 64 after the
//! last. The address that the file is mapped to must be a multiple of 64. All integers are unsigned
//! unless said otherwise.
//!
//! | offset | type | header field |
//! |---|---|---|
//! | 0 | 8 bytes | magic, `"bertlet\0"` |
//! | 8 | u32 | version of the format, 1 |
//! | 12 | u32 | number of sections |
//! | 16 | u64 | length of the file in bytes |
//! | 24 | u64 | XXH64 (seed 0) of the bytes from 32 to the end of the table |
//! | 32 | 7 x u32 | hidden size H, layers, heads A, intermediate size I, vocabulary V, positions, token types |
//! | 60 | f32 | epsilon of the layer norms |
//! | 64 | u32 | activation: 0 gelu, 1 gelu (tanh), 2 relu, 3 silu, 4 tanh |
//! | 68 | u32 | attention: 0 f32, 1 integer |
//! | 72 | u32 | default pooling: 0 none, 1 cls, 2 pooler, 3 mean, 4 max, 5 mean-max, 6 mean-sqrt, 7 sep |
//! | 76 | u32 | 1 if pooled vectors are L2-normalised by default |
//! | 80 | u32 | the sequence classifier's problem: 0 single label, 1 multi label, 2 regression |
//! | 84 | u32 | number of labels |
//! | 88 | 40 bytes | zero |
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
//! The table holds [`SectionKind`]s 1 to 4, then 16 to 21 for each layer, then any of the others in ascending
//! order, each at most once.
//!
//! # Sections
//! `n16` is `n` rounded up to a multiple of 16; what is added is zero. A head's inputs are padded
//! to `D16`, with `D = H / A`, wherever they stand.
//!
//! * **Matrix** `[N, K]` with bias: `y[n] = sum over k of x[k] w[n][k] + bias[n]`. Sixteen outputs
//!   make a panel.
//!   * f32, f16: weights `[N16 / 16][K][16]`, then (at a multiple of 64) f32 bias `[N16]`.
//!   * int8: weights `[N16 / 16][K16 / 4][16][4]` in [-127, 127], then f32 scale `[N16]`, f32 bias
//!     `[N16]`, i32 sum of each output's weights `[N16]`. The input is rotated, then quantised:
//!     see [`crate::numerics`]. Rotation (block B, stride S): element `(b B + j) S + s` is member `j`
//!     of a block for every `b` and every `s < S`; each block is multiplied by the unnormalised
//!     Walsh-Hadamard matrix of order B, whose normalisation the scales contain. B is a power of two
//!     up to 128; S is 1, or a multiple of 16; S B divides K.
//! * **Table** `[R, H]`: f32 or f16 `[R][H16]`; int8: values `[R][H16]`, then (at a multiple of 64)
//!   f16 scales `[R][ceil(H / 64)]`, one for each 64 columns.
//! * **Norm**: f32 gamma `[H16]`, beta `[H16]`.
//! * **Vector**: f32 `[R16]`.
//! * **Bytes**: what its kind says.
//!
//! # Versions
//! A reader refuses any version but those it knows. Numbers of kinds, encodings and fields are never
//! used again for something else.

pub mod checksum;
mod error;
mod model;
#[cfg(feature = "writer")]
pub mod writer;

pub use error::FormatError;
pub use model::{Config, Labels, Model, Section, Sections};
pub(crate) use model::{Layer, Linear};

#[doc(inline)]
pub use crate::kernels::Activation;
use crate::kernels::Rotation;

/// First bytes of every file.
pub const MAGIC: [u8; 8] = *b"bertlet\0";
/// The version that this library writes and reads.
pub const VERSION: u32 = 1;
/// Alignment of sections, of the file's length and of the address it is read at, in bytes.
pub const ALIGNMENT: usize = 64;
/// Bytes of the header.
pub const HEADER_LENGTH: usize = 128;
/// Bytes of an entry of the table.
pub const ENTRY_LENGTH: usize = 64;

/// Offsets of the header's fields, in bytes.
pub mod field {
    /// Version of the format.
    pub const VERSION: usize = 8;
    /// Number of sections.
    pub const SECTIONS: usize = 12;
    /// Length of the file.
    pub const FILE_LENGTH: usize = 16;
    /// Checksum of header and table.
    pub const CHECKSUM: usize = 24;
    /// The first of the seven sizes.
    pub const HIDDEN: usize = 32;
    /// Number of layers.
    pub const LAYERS: usize = 36;
    /// HeadShape a layer.
    pub const HEADS: usize = 40;
    /// Intermediate size.
    pub const INTERMEDIATE: usize = 44;
    /// Words.
    pub const VOCAB: usize = 48;
    /// Longest input.
    pub const POSITIONS: usize = 52;
    /// Token types.
    pub const TOKEN_TYPES: usize = 56;
    /// Epsilon.
    pub const EPS: usize = 60;
    /// Activation.
    pub const ACTIVATION: usize = 64;
    /// Arithmetic of the attention.
    pub const ATTENTION: usize = 68;
    /// Default pooling.
    pub const POOLING: usize = 72;
    /// Default L2 normalisation.
    pub const NORMALIZE: usize = 76;
    /// ProblemType of the sequence classifier.
    pub const PROBLEM: usize = 80;
    /// Number of labels.
    pub const LABELS: usize = 84;
    /// From here to the end of the header: zero.
    pub const RESERVED: usize = 88;
}

/// `enum`s that stand in the file as u32.
macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $number:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u32)]
        #[non_exhaustive]
        pub enum $name { $($(#[$item_doc])* $item = $number,)* }

        impl $name {
            /// The one with this number in the file.
            pub const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$item),)*
                    _ => None,
                }
            }
        }
    };
}

numbered! {
    /// What a section is.
    SectionKind {
        /// Word embeddings: table `[V, H]`.
        WordEmbeddings = 1,
        /// Position embeddings: table `[positions, H]`.
        PositionEmbeddings = 2,
        /// Token type (segment) embeddings: table `[token types, H]`.
        TokenTypeEmbeddings = 3,
        /// Norm of the embeddings' sum.
        EmbeddingsNorm = 4,
        /// Queries, keys and values in one matrix `[3 A D16, H]`: for each of the three, for each
        /// head, its `D16` outputs.
        QueryKeyValue = 16,
        /// Output projection of the attention: matrix `[H, A D16]`.
        AttentionOutput = 17,
        /// Norm after the attention.
        AttentionNorm = 18,
        /// First feed-forward matrix `[I, H]`.
        Intermediate = 19,
        /// Second feed-forward matrix `[H, I]`.
        Output = 20,
        /// Norm after the feed-forward network.
        OutputNorm = 21,
        /// Pooler: matrix `[H, H]`; `tanh` follows.
        Pooler = 32,
        /// Token classifier: matrix `[labels, H]`.
        TokenClassifier = 33,
        /// Sequence classifier on the pooler: matrix `[labels, H]`.
        SequenceClassifier = 34,
        /// Masked LM: matrix `[H, H]`; the activation and the norm follow.
        MaskedLmTransform = 35,
        /// Masked LM: norm.
        MaskedLmNorm = 36,
        /// Masked LM: table `[V, H]`, where it is not the word embeddings.
        MaskedLmDecoder = 37,
        /// Masked LM: vector `[V]`.
        MaskedLmBias = 38,
        /// Next sentence, on the pooler: matrix `[2, H]`; output 0 means "is next".
        NextSentence = 39,
        /// Question answering: matrix `[2, H]`: start and end logits of a token.
        QuestionAnswering = 40,
        /// Tokenizer: bytes, see [`crate::tokenizer`].
        Tokenizer = 64,
        /// Labels: bytes: u32 count, u32 offsets `[count + 1]` into the UTF-8 text that follows.
        Labels = 65,
        /// Where the model came from and what the conversion did: JSON in UTF-8.
        Provenance = 66,
        /// Inputs with their expected outputs: bytes, see `crate::selftest`.
        SelfTest = 67,
    }
}

numbered! {
    /// How a section's values are stored.
    Encoding {
        /// As the kind says.
        Bytes = 0,
        /// IEEE 754 binary32.
        F32 = 1,
        /// IEEE 754 binary16.
        F16 = 2,
        /// int8 with scales.
        Int8 = 3,
    }
}

numbered! {
    /// Arithmetic of the attention.
    Attention {
        /// f32 throughout.
        Float = 0,
        /// int8 scores, 15-bit probabilities; see [`crate::numerics`].
        Integer = 1,
    }
}

numbered! {
    /// What the sequence classifier's logits mean.
    ProblemType {
        /// One of the labels: softmax.
        SingleLabel = 0,
        /// Any of the labels: a sigmoid each.
        MultiLabel = 1,
        /// Numbers: the logits themselves.
        Regression = 2,
    }
}

/// How a kind of section is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Matrix,
    Table,
    Norm,
    Vector,
    Bytes,
}

impl SectionKind {
    /// The kinds of a layer, in order.
    pub const OF_LAYER: [Self; 6] = [
        Self::QueryKeyValue,
        Self::AttentionOutput,
        Self::AttentionNorm,
        Self::Intermediate,
        Self::Output,
        Self::OutputNorm,
    ];
    /// The kinds before the layers, in order.
    pub const OF_EMBEDDINGS: [Self; 4] = [
        Self::WordEmbeddings,
        Self::PositionEmbeddings,
        Self::TokenTypeEmbeddings,
        Self::EmbeddingsNorm,
    ];

    const fn layout(self) -> Layout {
        match self {
            Self::WordEmbeddings
            | Self::PositionEmbeddings
            | Self::TokenTypeEmbeddings
            | Self::MaskedLmDecoder => Layout::Table,
            Self::EmbeddingsNorm | Self::AttentionNorm | Self::OutputNorm | Self::MaskedLmNorm => {
                Layout::Norm
            }
            Self::MaskedLmBias => Layout::Vector,
            Self::Tokenizer | Self::Labels | Self::Provenance | Self::SelfTest => Layout::Bytes,
            _ => Layout::Matrix,
        }
    }

    /// Rows and columns that a section of this kind has in a model of this shape; bytes have none.
    pub const fn shape(self, config: &Config, labels: usize) -> (usize, usize) {
        let Config { hidden_size: hidden, vocab_size: vocab, .. } = *config;
        match self {
            Self::WordEmbeddings | Self::MaskedLmDecoder => (vocab, hidden),
            Self::PositionEmbeddings => (config.max_position_embeddings, hidden),
            Self::TokenTypeEmbeddings => (config.type_vocab_size, hidden),
            Self::EmbeddingsNorm | Self::AttentionNorm | Self::OutputNorm | Self::MaskedLmNorm => {
                (2, hidden)
            }
            Self::QueryKeyValue => (3 * config.padded_heads(), hidden),
            Self::AttentionOutput => (hidden, config.padded_heads()),
            Self::Intermediate => (config.intermediate_size, hidden),
            Self::Output => (hidden, config.intermediate_size),
            Self::Pooler | Self::MaskedLmTransform => (hidden, hidden),
            Self::TokenClassifier | Self::SequenceClassifier => (labels, hidden),
            Self::NextSentence | Self::QuestionAnswering => (2, hidden),
            Self::MaskedLmBias => (vocab, 1),
            Self::Tokenizer | Self::Labels | Self::Provenance | Self::SelfTest => (0, 0),
        }
    }
}

/// `n` rounded up to a multiple of sixteen.
pub const fn round16(n: usize) -> usize {
    n.next_multiple_of(16)
}

/// The parts of a section, each at a multiple of 64 bytes: values, then what the layout adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts {
    /// Bytes of weights or table rows.
    values: u64,
    /// Offset of what follows them: scales and biases.
    rest: u64,
    /// Bytes of the whole section.
    length: u64,
}

/// `None` where this layout does not exist in this encoding. Sizes are below 2^24 each, so nothing
/// overflows.
const fn parts(layout: Layout, encoding: Encoding, rows: usize, cols: usize) -> Option<Parts> {
    let (rows, rows16) = (rows as u64, round16(rows) as u64);
    let (cols, cols16) = (cols as u64, round16(cols) as u64);
    let (values, rest) = match (layout, encoding) {
        (Layout::Matrix, Encoding::F32) => (rows16 * cols * 4, rows16 * 4),
        (Layout::Matrix, Encoding::F16) => (rows16 * cols * 2, rows16 * 4),
        (Layout::Matrix, Encoding::Int8) => (rows16 * cols16, rows16 * 12),
        (Layout::Table, Encoding::F32) => (rows * cols16 * 4, 0),
        (Layout::Table, Encoding::F16) => (rows * cols16 * 2, 0),
        (Layout::Table, Encoding::Int8) => (rows * cols16, rows * cols.div_ceil(64) * 2),
        (Layout::Norm, Encoding::F32) => (2 * cols16 * 4, 0),
        (Layout::Vector, Encoding::F32) => (rows16 * 4, 0),
        _ => return None,
    };
    let start = if rest == 0 { values } else { values.next_multiple_of(ALIGNMENT as u64) };
    Some(Parts { values, rest: start, length: start + rest })
}

/// Whether a rotation may stand with `cols` inputs.
const fn rotation_fits(rotation: Rotation, cols: usize) -> bool {
    let Rotation { block, stride } = rotation;
    block.is_power_of_two()
        && block <= 128
        && (stride == 1 || stride.is_multiple_of(16))
        && stride > 0
        && stride <= cols
        && cols.is_multiple_of(block * stride)
}
