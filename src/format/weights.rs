//! The weights as the kernels take them: views of the sections, without a copy.

use super::Encoding;
use super::model::Model;
use super::sections::{Layout, Parts, Section, SectionKind, layer_start, parts, round16};
use crate::kernels::{
    F16x16, F32x16, FloatMatrix, I8x16, I8x64, I32x16, Int8Matrix, Norm, Plain, Rotation,
    TABLE_GROUP, TableRow, view,
};

/// A matrix with bias, in the encoding that the file has it in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Linear<'a> {
    /// int8: the input is rotated and quantised.
    Int8(Int8Matrix<'a>, Rotation),
    /// Half-precision weights.
    F16(FloatMatrix<'a, F16x16>),
    /// Single-precision weights.
    F32(FloatMatrix<'a, F32x16>),
}

/// A table, in the encoding that the file has it in. `width` below is the vectors of sixteen per row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Table<'a> {
    /// int8 rows; f16 scales (their bits) and their number per row.
    Int8(&'a [I8x16], &'a [u16], usize),
    /// f16 rows.
    F16(&'a [F16x16]),
    /// f32 rows.
    F32(&'a [F32x16]),
}

impl<'a> Table<'a> {
    /// Row `i` of rows of `width` vectors.
    pub(crate) fn row(&self, i: usize, width: usize) -> TableRow<'a> {
        match *self {
            Self::Int8(values, scales, per_row) => {
                TableRow::Int8(&values[i * width..][..width], &scales[i * per_row..][..per_row])
            }
            Self::F16(values) => TableRow::F16(&values[i * width..][..width]),
            Self::F32(values) => TableRow::F32(&values[i * width..][..width]),
        }
    }
}

/// The embedding tables and their norm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Embeddings<'a> {
    /// `[vocab_size, hidden_size]`.
    pub(crate) word: Table<'a>,
    /// `[max_position_embeddings, hidden_size]`.
    pub(crate) position: Table<'a>,
    /// `[type_vocab_size, hidden_size]`.
    pub(crate) token_type: Table<'a>,
    /// Norm of the sum.
    pub(crate) norm: Norm<'a>,
}

/// The weights of one layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layer<'a> {
    /// `[3 * padded heads, hidden_size]`.
    pub(crate) query_key_value: Linear<'a>,
    /// `[hidden_size, padded heads]`.
    pub(crate) attention_output: Linear<'a>,
    /// Norm after attention.
    pub(crate) attention_norm: Norm<'a>,
    /// `[intermediate_size, hidden_size]`.
    pub(crate) intermediate: Linear<'a>,
    /// `[hidden_size, intermediate_size]`.
    pub(crate) output: Linear<'a>,
    /// Norm after the feed-forward network.
    pub(crate) output_norm: Norm<'a>,
}

/// The weights of the masked LM head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MaskedLmWeights<'a> {
    /// `[hidden_size, hidden_size]`.
    pub(crate) transform: Linear<'a>,
    /// Norm of the transformed state.
    pub(crate) norm: Norm<'a>,
    /// `[vocab_size, hidden_size]`: the word embeddings where they are tied.
    pub(crate) decoder: Table<'a>,
    /// `[vocab_size]`.
    pub(crate) bias: &'a [f32],
}

impl<'a> Model<'a> {
    /// Embedding section `i`: word, position, token type, norm.
    fn embedding(&self, i: usize) -> Section {
        self.section_at(i, (SectionKind::OF_EMBEDDINGS[i], 0))
    }

    /// The values of a section and what follows them.
    fn halves(&self, section: Section) -> (&'a [u8], &'a [u8]) {
        let Section { kind, encoding, rows, cols, .. } = section;
        let Parts { values, rest, .. } =
            parts(kind.layout(), encoding, (rows, cols)).expect("not a section of bytes");
        let bytes = self.section_bytes(section);
        (&bytes[..values as usize], &bytes[rest as usize..])
    }

    fn linear(&self, section: Section) -> Linear<'a> {
        let (values, rest) = self.halves(section);
        let steps = section.cols;
        match section.encoding {
            Encoding::Int8 => {
                let third = rest.len() / 3;
                Linear::Int8(
                    Int8Matrix {
                        panels: of::<I8x64>(values),
                        scale: of(&rest[..third]),
                        bias: of(&rest[third..2 * third]),
                        sums: of::<I32x16>(&rest[2 * third..]),
                        steps: round16(steps) / 4,
                    },
                    section.rotation,
                )
            }
            Encoding::F16 => Linear::F16(FloatMatrix { panels: of(values), bias: of(rest), steps }),
            _ => Linear::F32(FloatMatrix { panels: of(values), bias: of(rest), steps }),
        }
    }

    fn table(&self, section: Section) -> Table<'a> {
        let (values, rest) = self.halves(section);
        match section.encoding {
            Encoding::Int8 => Table::Int8(of(values), of(rest), section.cols.div_ceil(TABLE_GROUP)),
            Encoding::F16 => Table::F16(of(values)),
            _ => Table::F32(of(values)),
        }
    }

    fn norm(&self, section: Section) -> Norm<'a> {
        let values = of::<F32x16>(self.section_bytes(section));
        let (weight, bias) = values.split_at(values.len() / 2);
        Norm { weight, bias }
    }

    /// The embedding tables.
    pub(crate) fn embeddings(&self) -> Embeddings<'a> {
        Embeddings {
            word: self.table(self.embedding(0)),
            position: self.table(self.embedding(1)),
            token_type: self.table(self.embedding(2)),
            norm: self.norm(self.embedding(3)),
        }
    }

    /// Layer `i`, from 0.
    ///
    /// # Panics
    /// If there is no such layer.
    pub(crate) fn layer(&self, i: usize) -> Layer<'a> {
        let layers = self.config().num_hidden_layers;
        assert!(i < layers, "layer {i} of {layers}");
        let section = |k| self.section_at(layer_start(i) + k, (SectionKind::OF_LAYER[k], i));
        Layer {
            query_key_value: self.linear(section(0)),
            attention_output: self.linear(section(1)),
            attention_norm: self.norm(section(2)),
            intermediate: self.linear(section(3)),
            output: self.linear(section(4)),
            output_norm: self.norm(section(5)),
        }
    }

    /// A head's matrix: pooler, classifiers, next sentence, question answering; `None` where the
    /// model does not have it.
    pub(crate) fn head(&self, kind: SectionKind) -> Option<Linear<'a>> {
        self.section(kind).filter(|s| s.kind.layout() == Layout::Matrix).map(|s| self.linear(s))
    }

    /// The masked LM head; `None` where the model does not have it.
    pub(crate) fn masked_lm(&self) -> Option<MaskedLmWeights<'a>> {
        Some(MaskedLmWeights {
            transform: self.head(SectionKind::MaskedLmTransform)?,
            norm: self.norm(self.section(SectionKind::MaskedLmNorm)?),
            decoder: self
                .table(self.section(SectionKind::MaskedLmDecoder).unwrap_or(self.embedding(0))),
            bias: of(self.section_bytes(self.section(SectionKind::MaskedLmBias)?)),
        })
    }
}

/// Views bytes of a section, or of its parts, which start at multiples of 64 bytes.
fn of<T: Plain>(bytes: &[u8]) -> &[T] {
    view(bytes).expect("sections and their parts are aligned")
}
