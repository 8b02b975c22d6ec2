//! What the header says of a model.

use super::sections::round16;
#[doc(inline)]
pub use crate::kernels::Activation;
use crate::kernels::HeadShape;

/// The shape of a model, by the names of `config.json`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Values per token of a hidden state, at most 2^16.
    pub hidden_size: usize,
    /// Encoder layers, at most 1024.
    pub num_hidden_layers: usize,
    /// Attention heads per layer, at most 1024; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Inner size of the feed-forward network, at most 2^16.
    pub intermediate_size: usize,
    /// Rows of the word embeddings, at most 2^24; token ids are below it.
    pub vocab_size: usize,
    /// Tokens of the longest input, at most 2^20.
    pub max_position_embeddings: usize,
    /// Token types (segments), at most 256.
    pub type_vocab_size: usize,
    /// Epsilon of the layer norms, between 0 and 1.
    pub layer_norm_eps: f32,
    /// Activation of the feed-forward network.
    pub hidden_act: Activation,
    /// Arithmetic of attention.
    pub attention: Attention,
}

impl Config {
    /// Values per token and head of a query, a key or a value.
    pub const fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }
    /// Number of heads times [`Config::head_size`], padded to a multiple of 16.
    #[doc(hidden)]
    pub const fn padded_heads(&self) -> usize {
        self.num_attention_heads * round16(self.head_size())
    }
    pub(crate) const fn head_shape(&self) -> HeadShape {
        HeadShape { count: self.num_attention_heads, size: self.head_size() }
    }
    /// Multiply-adds of the encoder layers for one input: linear layers and attention.
    pub const fn multiply_adds(&self, tokens: usize) -> u64 {
        let (t, h, i) = (tokens as u64, self.hidden_size as u64, self.intermediate_size as u64);
        self.num_hidden_layers as u64 * (t * h * (4 * h + 2 * i) + 2 * t * t * h)
    }
}

numbered! {
    /// Arithmetic of attention.
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
        /// One of the labels: softmax; one sigmoid where there is one label.
        SingleLabel = 0,
        /// Any of the labels: one sigmoid per label.
        MultiLabel = 1,
        /// Numbers: the logits themselves.
        Regression = 2,
    }
}

numbered! {
    /// How the sequence classifier's logits become scores: the `activation_fn` of a cross-encoder.
    ScoreActivation {
        /// As [`ProblemType`] says.
        OfProblem = 0,
        /// The logits themselves.
        Identity = 1,
        /// One sigmoid per label.
        Sigmoid = 2,
    }
}
