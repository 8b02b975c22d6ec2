//! A BERT in f32, as read from a checkpoint.
//!
//! Every matrix is row-major `[outputs, inputs]`, whatever orientation the checkpoint has.

pub use bertlet::format::{Activation, Attention, Config, ProblemType};

/// A row-major matrix.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix {
    /// Outputs, or entries of an embedding table.
    pub rows: usize,
    /// Inputs, or the hidden size.
    pub cols: usize,
    /// `[rows, cols]`.
    pub data: Vec<f32>,
}

impl Matrix {
    /// Row `i`, `cols` values.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.cols..][..self.cols]
    }
}

/// `y = W x + b`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Linear {
    /// `[outputs, inputs]`.
    pub weight: Matrix,
    /// `[outputs]`.
    pub bias: Vec<f32>,
}

/// Layer normalisation, `y = (x - mean) / sqrt(variance + eps) * weight + bias`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerNorm {
    /// Gamma, `[hidden]`.
    pub weight: Vec<f32>,
    /// Beta, `[hidden]`.
    pub bias: Vec<f32>,
}

/// The three embedding tables and their norm.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embeddings {
    /// `[vocab, hidden]`.
    pub word: Matrix,
    /// `[positions, hidden]`.
    pub position: Matrix,
    /// `[token types, hidden]`.
    pub token_type: Matrix,
    /// Norm of the sum.
    pub norm: LayerNorm,
}

/// One encoder layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layer {
    /// `[hidden, hidden]`, rows grouped by head.
    pub query: Linear,
    /// `[hidden, hidden]`, rows grouped by head.
    pub key: Linear,
    /// `[hidden, hidden]`, rows grouped by head.
    pub value: Linear,
    /// Output projection of the attention, `[hidden, hidden]`.
    pub attention_output: Linear,
    /// Norm after the attention.
    pub attention_norm: LayerNorm,
    /// First feed-forward matrix, `[intermediate, hidden]`.
    pub intermediate: Linear,
    /// Second feed-forward matrix, `[hidden, intermediate]`.
    pub output: Linear,
    /// Norm after the feed-forward network.
    pub output_norm: LayerNorm,
}

impl Layer {
    /// Query, key and value as one linear layer, `[3 * hidden, hidden]`.
    pub fn fused_qkv(&self) -> Linear {
        let parts = [&self.query, &self.key, &self.value];
        Linear {
            weight: Matrix {
                rows: parts.iter().map(|part| part.weight.rows).sum(),
                cols: self.query.weight.cols,
                data: parts.iter().flat_map(|part| &part.weight.data).copied().collect(),
            },
            bias: parts.iter().flat_map(|part| &part.bias).copied().collect(),
        }
    }
}

/// The masked LM head: `decoder(norm(activation(transform(h)))) + bias`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MaskedLm {
    /// `[hidden, hidden]`.
    pub transform: Linear,
    /// Norm of the transformed state.
    pub norm: LayerNorm,
    /// `[vocab, hidden]`. `None` if the decoder is tied to the word embeddings.
    pub decoder: Option<Matrix>,
    /// `[vocab]`.
    pub bias: Vec<f32>,
}

/// The task heads of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskHeads {
    /// `[labels, hidden]`, on every token of the last layer.
    pub token_classifier: Option<Linear>,
    /// `[labels, hidden]`, on the pooler's output.
    pub sequence_classifier: Option<(Linear, ProblemType)>,
    /// Masked LM, on every token.
    pub masked_lm: Option<MaskedLm>,
    /// `[2, hidden]`, on the pooler's output. Logit 0 is "is next".
    pub next_sentence: Option<Linear>,
    /// `[2, hidden]`, on every token: start and end logits.
    pub question_answering: Option<Linear>,
}

/// A whole model.
#[derive(Clone, Debug, PartialEq)]
pub struct Bert {
    /// Shape of the model. The attention of a checkpoint is in f32.
    pub config: Config,
    /// Token, position and segment embeddings.
    pub embeddings: Embeddings,
    /// `config.num_hidden_layers` layers.
    pub layers: Vec<Layer>,
    /// `tanh(W h[CLS] + b)`, `[hidden, hidden]`.
    pub pooler: Option<Linear>,
    /// Task heads.
    pub heads: TaskHeads,
}
