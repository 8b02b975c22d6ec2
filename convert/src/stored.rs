//! A model as a file stores it: linear layers in int8 or floating point, everything else in floating point.
//!
//! An int8 file comes from [`quantize`](crate::quantize::quantize), an f16 or f32 file from
//! [`StoredBert::float`].

use crate::bert::{Bert, Config, Layer, LayerNorm, Linear, Matrix, TaskHeads};
use crate::quantize::{HadamardRotation, QuantizedWeight};

/// An int8 linear layer: `y = s_x * s_w * (q_x . q_w) + bias`, where `q_x` and `s_x` are the rotated input row
/// and its scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Int8Linear {
    /// `[outputs, inputs]`, in the rotated basis.
    pub weight: QuantizedWeight,
    /// `[outputs]`.
    pub bias: Vec<f32>,
    /// Rotation that the runtime applies to an input row before it quantises it.
    pub rotation: HadamardRotation,
}

/// A linear layer of an encoder layer.
#[derive(Clone, Debug, PartialEq)]
pub enum StoredLinear {
    /// In int8.
    Int8(Int8Linear),
    /// In floating point. In an int8 file the values are rounded to f16, and the rotation of the heads is
    /// folded in as in the int8 layers.
    Float(Linear),
}

/// The word embeddings, `[vocab, hidden]`.
#[derive(Clone, Debug, PartialEq)]
pub enum WordTable {
    /// In floating point.
    Float(Matrix),
    /// In int8, with one scale per `group` neighbouring columns of a row.
    Int8 {
        /// Columns of the table.
        cols: usize,
        /// Columns that share a scale. `cols` means one scale per row.
        group: usize,
        /// `[rows, cols]`.
        values: Vec<i8>,
        /// `[rows, ceil(cols / group)]`. Representable in f16, unless there is one scale per row.
        scales: Vec<f32>,
    },
}

impl WordTable {
    /// Writes row `id` to `out`, `cols` values.
    pub fn row(&self, id: usize, out: &mut [f32]) {
        match self {
            Self::Float(table) => out.copy_from_slice(table.row(id)),
            Self::Int8 { values, group, scales, cols } => {
                let row = values[id * cols..][..*cols].chunks(*group);
                let scales = &scales[id * cols.div_ceil(*group)..];
                for ((out, row), scale) in out.chunks_mut(*group).zip(row).zip(scales) {
                    out.iter_mut().zip(row).for_each(|(x, &q)| *x = f32::from(q) * scale);
                }
            }
        }
    }
}

/// One encoder layer.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredLayer {
    /// `[3 * hidden, hidden]`: queries of all heads, keys of all heads, values of all heads.
    pub qkv: StoredLinear,
    /// Output projection of the attention. In an int8 model its input is already rotated (see
    /// [`fold_heads`](crate::quantize::fold_heads)).
    pub attention_output: StoredLinear,
    /// Norm after the attention.
    pub attention_norm: LayerNorm,
    /// First feed-forward matrix.
    pub intermediate: StoredLinear,
    /// Second feed-forward matrix.
    pub output: StoredLinear,
    /// Norm after the feed-forward network.
    pub output_norm: LayerNorm,
}

/// A whole model. In an int8 model every floating-point matrix is rounded to f16.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredBert {
    /// Shape of the model, and the arithmetic of its attention.
    pub config: Config,
    /// Word embeddings.
    pub words: WordTable,
    /// Position embeddings.
    pub positions: Matrix,
    /// Token type embeddings.
    pub token_types: Matrix,
    /// Norm of the sum of the embeddings.
    pub embedding_norm: LayerNorm,
    /// Encoder layers.
    pub layers: Vec<StoredLayer>,
    /// The pooler.
    pub pooler: Option<Linear>,
    /// Task heads.
    pub heads: TaskHeads,
}

impl StoredBert {
    /// The model of an f16 or f32 file: the values of the checkpoint, and attention in f32.
    pub fn float(bert: &Bert) -> Self {
        Self {
            config: bert.config,
            words: WordTable::Float(bert.embeddings.word.clone()),
            positions: bert.embeddings.position.clone(),
            token_types: bert.embeddings.token_type.clone(),
            embedding_norm: bert.embeddings.norm.clone(),
            layers: bert.layers.iter().map(StoredLayer::float).collect(),
            pooler: bert.pooler.clone(),
            heads: bert.heads.clone(),
        }
    }
}

impl StoredLayer {
    fn float(layer: &Layer) -> Self {
        Self {
            qkv: StoredLinear::Float(layer.fused_qkv()),
            attention_output: StoredLinear::Float(layer.attention_output.clone()),
            attention_norm: layer.attention_norm.clone(),
            intermediate: StoredLinear::Float(layer.intermediate.clone()),
            output: StoredLinear::Float(layer.output.clone()),
            output_norm: layer.output_norm.clone(),
        }
    }
}
