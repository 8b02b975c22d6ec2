//! Sections: their kinds, their order in the table, their shapes and lengths.

use super::records::Entry;
use super::{ALIGNMENT, Config, FormatError};
use crate::kernels::{Rotation, TABLE_GROUP};

numbered! {
    /// What a section holds. The discriminant is the kind's number in the file.
    SectionKind {
        /// Word embeddings: table `[vocab_size, H]`.
        WordEmbeddings = 1,
        /// Position embeddings: table `[max_position_embeddings, H]`.
        PositionEmbeddings = 2,
        /// Token type (segment) embeddings: table `[type_vocab_size, H]`.
        TokenTypeEmbeddings = 3,
        /// Norm of the sum of the embeddings.
        EmbeddingsNorm = 4,
        /// Queries, keys and values in one matrix `[3 A D16, H]`: for each of the three, for each
        /// head, its `D16` outputs.
        QueryKeyValue = 16,
        /// Output projection of attention: matrix `[H, A D16]`.
        AttentionOutput = 17,
        /// Norm after attention.
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
        /// Masked LM: table `[vocab_size, H]`, where it is not the word embeddings.
        MaskedLmDecoder = 37,
        /// Masked LM: vector `[vocab_size]`.
        MaskedLmBias = 38,
        /// Next sentence, on the pooler: matrix `[2, H]`; output 0 means "is next".
        NextSentence = 39,
        /// Question answering: matrix `[2, H]`: start and end logits per token.
        QuestionAnswering = 40,
        /// Tokenizer: bytes, see [`crate::tokenizer`].
        Tokenizer = 64,
        /// Labels: bytes: u32 count, u32 offsets `[count + 1]` into the UTF-8 text that follows.
        Labels = 65,
        /// Where the model came from and what the conversion did: JSON in UTF-8.
        Provenance = 66,
        /// Inputs with their expected outputs: bytes, see [the specification](crate::format#self-test).
        SelfTest = 67,
        /// Prompts that may stand before a text: bytes: u32 count `n`, u32 index of the default one (all
        /// ones: none), u32 offsets `[2 n + 1]` into the UTF-8 text that follows: name, prompt, name, ...
        Prompts = 68,
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

/// How a kind of section is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
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

    pub(super) const fn layout(self) -> Layout {
        match self {
            Self::WordEmbeddings
            | Self::PositionEmbeddings
            | Self::TokenTypeEmbeddings
            | Self::MaskedLmDecoder => Layout::Table,
            Self::EmbeddingsNorm | Self::AttentionNorm | Self::OutputNorm | Self::MaskedLmNorm => {
                Layout::Norm
            }
            Self::MaskedLmBias => Layout::Vector,
            Self::Tokenizer | Self::Labels | Self::Provenance | Self::SelfTest | Self::Prompts => {
                Layout::Bytes
            }
            _ => Layout::Matrix,
        }
    }

    /// Rows and columns of a section of this kind in a model of this shape; bytes have none.
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
            Self::Tokenizer | Self::Labels | Self::Provenance | Self::SelfTest | Self::Prompts => {
                (0, 0)
            }
        }
    }
}

/// The sections after the layers that a model has. Bit `n` stands for kind number `FIRST + n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OptionalSections(u64);

impl OptionalSections {
    const FIRST: u32 = SectionKind::Pooler as u32;

    /// Those of `kinds`, numbers as in the file, that exist.
    pub fn new(kinds: impl Iterator<Item = u32>) -> Self {
        let known = kinds.filter(|kind| SectionKind::from_number(*kind).is_some());
        Self(known.filter_map(|kind| kind.checked_sub(Self::FIRST)).fold(0, |set, n| set | 1 << n))
    }

    fn iter(self) -> impl Iterator<Item = SectionKind> + Clone {
        (0..u64::BITS)
            .filter(move |n| self.0 >> n & 1 != 0)
            .filter_map(|n| SectionKind::from_number(Self::FIRST + n))
    }

    /// How many stand before `kind`; `None` where the model does not have it.
    pub fn position(self, kind: SectionKind) -> Option<usize> {
        let bit = 1u64 << (kind as u32).checked_sub(Self::FIRST)?;
        (self.0 & bit != 0).then(|| (self.0 & (bit - 1)).count_ones() as usize)
    }
}

/// The order of the section table: kind and layer of each entry. Writer and reader share it.
pub(super) fn layout(
    layers: usize,
    optional: OptionalSections,
) -> impl Iterator<Item = (SectionKind, usize)> + Clone {
    (0..).map_while(move |index| entry_kind(layers, optional, index))
}

/// Kind and layer of entry `index`. One function, for the code of chained iterators is ten times larger.
fn entry_kind(
    layers: usize,
    optional: OptionalSections,
    index: usize,
) -> Option<(SectionKind, usize)> {
    if let Some(kind) = SectionKind::OF_EMBEDDINGS.get(index) {
        return Some((*kind, 0));
    }
    match index.checked_sub(layer_start(layers)) {
        Some(index) => optional.iter().nth(index).map(|kind| (kind, 0)),
        None => {
            let (index, kinds) = (index - layer_start(0), SectionKind::OF_LAYER);
            Some((kinds[index % kinds.len()], index / kinds.len()))
        }
    }
}

/// Index of the first entry of a layer. One past the last layer, the optional sections start.
pub(super) const fn layer_start(layer: usize) -> usize {
    SectionKind::OF_EMBEDDINGS.len() + SectionKind::OF_LAYER.len() * layer
}

/// `n` rounded up to a multiple of sixteen.
#[doc(hidden)]
pub const fn round16(n: usize) -> usize {
    n.next_multiple_of(16)
}

/// The parts of a section, each at a multiple of 64 bytes: values, then what the layout adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// Bytes of weights or table rows.
    pub values: u64,
    /// Offset of what follows them: scales and biases.
    pub rest: u64,
    /// Bytes of the whole section.
    pub length: u64,
}

/// `None` where this layout does not exist in this encoding. Rows and columns are at most 2^24, so
/// nothing overflows.
pub(super) const fn parts(
    layout: Layout,
    encoding: Encoding,
    (rows, cols): (usize, usize),
) -> Option<Parts> {
    let (rows, rows16) = (rows as u64, round16(rows) as u64);
    let (cols, cols16) = (cols as u64, round16(cols) as u64);
    let (values, rest) = match (layout, encoding) {
        (Layout::Matrix, Encoding::F32) => (rows16 * cols * 4, rows16 * 4),
        (Layout::Matrix, Encoding::F16) => (rows16 * cols * 2, rows16 * 4),
        (Layout::Matrix, Encoding::Int8) => (rows16 * cols16, rows16 * 12),
        (Layout::Table, Encoding::F32) => (rows * cols16 * 4, 0),
        (Layout::Table, Encoding::F16) => (rows * cols16 * 2, 0),
        (Layout::Table, Encoding::Int8) => {
            (rows * cols16, rows * cols.div_ceil(TABLE_GROUP as u64) * 2)
        }
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

/// A section of a model: an entry of its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it holds.
    pub kind: SectionKind,
    /// The layer it belongs to, from 0; 0 too for kinds outside the layers.
    pub layer: u32,
    /// How its values are stored.
    pub encoding: Encoding,
    /// Outputs of a matrix, or entries of a table.
    pub rows: usize,
    /// Inputs of a matrix, or values per entry.
    pub cols: usize,
    /// Rotation of an int8 matrix's inputs.
    #[doc(hidden)]
    pub rotation: Rotation,
    /// First byte in the file.
    pub offset: usize,
    /// Length in bytes.
    pub length: usize,
    /// XXH64 of the bytes.
    pub checksum: u64,
}

impl Section {
    /// The section of entry `index`, which must be of this kind, layer and shape and lie at a multiple
    /// of [`ALIGNMENT`] in a file of `file_length` bytes. With `start`, it must start there.
    pub(super) fn new(
        index: usize,
        entry: &Entry,
        (kind, layer): (SectionKind, usize),
        (rows, cols): (usize, usize),
        start: Option<u64>,
        file_length: u64,
    ) -> Result<Self, FormatError> {
        let fault = |field, value: u64, expected: u64| {
            Err(FormatError::Entry { index, field, value, expected })
        };
        if entry.kind != kind as u32 {
            return fault("kind", entry.kind.into(), kind as u64);
        }
        let encoding = Encoding::from_number(entry.encoding);
        let (encoding, length) = match (kind.layout(), encoding) {
            (Layout::Bytes, Some(Encoding::Bytes)) => (Encoding::Bytes, entry.length),
            (Layout::Bytes, _) => return fault("encoding", entry.encoding.into(), 0),
            (layout, encoding) => {
                let length = |e| parts(layout, e, (rows, cols)).map(|parts| (e, parts.length));
                match encoding.and_then(length) {
                    Some(known) => known,
                    None => return fault("encoding", entry.encoding.into(), Encoding::F32 as u64),
                }
            }
        };
        let (block, stride) = (entry.rotation_block as usize, entry.rotation_stride as usize);
        let rotation = match (kind.layout(), encoding) {
            (Layout::Matrix, Encoding::Int8) => Rotation { block, stride },
            _ => Rotation::NONE,
        };
        if rotation != Rotation::NONE && !rotation_fits(rotation, cols) {
            return fault("rotation", block as u64, 1);
        }
        let start = start.unwrap_or(entry.offset - entry.offset % ALIGNMENT as u64);
        for (field, value, expected) in [
            ("layer", entry.layer.into(), layer as u64),
            ("rows", entry.rows.into(), rows as u64),
            ("columns", entry.columns.into(), cols as u64),
            ("rotation block", block as u64, rotation.block as u64),
            ("rotation stride", stride as u64, rotation.stride as u64),
            ("reserved", u64::from(entry.reserved) | entry.reserved_end, 0),
            ("offset", entry.offset, start),
            ("length", entry.length, length),
        ] {
            if value != expected {
                return fault(field, value, expected);
            }
        }
        let need = start.saturating_add(length);
        if need > file_length {
            return Err(FormatError::Truncated { need, have: file_length });
        }
        let (layer, offset, length) = (layer as u32, start as usize, length as usize);
        let checksum = entry.checksum;
        Ok(Self { kind, layer, encoding, rows, cols, rotation, offset, length, checksum })
    }

    /// Stands in for a section whose entry has changed since it was checked, because somebody
    /// overwrote a mapped file: the first bytes of the file, in an encoding that they suffice for. There is
    /// one, since the section that was checked fitted the file. The weights are wrong, and nothing else is.
    pub(super) fn stand_in(
        (kind, layer): (SectionKind, usize),
        (rows, cols): (usize, usize),
        file_length: usize,
    ) -> Self {
        let length = |encoding| {
            let parts = parts(kind.layout(), encoding, (rows, cols))?;
            usize::try_from(parts.length).ok().filter(|length| *length <= file_length)
        };
        let (encoding, length) = [Encoding::Int8, Encoding::F16, Encoding::F32]
            .into_iter()
            .find_map(|encoding| Some((encoding, length(encoding)?)))
            .unwrap_or((Encoding::Bytes, 0));
        let (layer, rotation) = (layer as u32, Rotation::NONE);
        Self { kind, layer, encoding, rows, cols, rotation, offset: 0, length, checksum: 0 }
    }
}
