//! Errors of a forward pass.

use std::fmt;

/// Why an input was not encoded. No output has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunError {
    /// The input has no token.
    NoTokens,
    /// More tokens than the encoder was made for, or than the model has positions.
    TooManyTokens {
        /// Tokens of the input.
        have: usize,
        /// Upper bound on tokens.
        limit: usize,
    },
    /// A token id outside the vocabulary.
    UnknownToken {
        /// Position of the token, from 0.
        position: usize,
        /// Its id.
        id: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// A token type that the model does not have.
    UnknownTokenType {
        /// Position of the token, from 0.
        position: usize,
        /// Its type.
        token_type: u8,
        /// Number of types that the model has.
        types: usize,
    },
    /// `token_type_ids` or `attention_mask` differ in length from `input_ids`.
    Lengths {
        /// `token_type_ids` or `attention_mask`.
        what: &'static str,
        /// Its length.
        have: usize,
        /// Length of `input_ids`.
        need: usize,
    },
    /// Every token is masked.
    AllMasked,
    /// A buffer is too small: the scratch, or that of an output.
    TooSmall(TooSmall),
    /// The buffer of an output is longer than the result.
    OutputTooLong {
        /// Values of the result.
        need: usize,
        /// Values given.
        have: usize,
    },
    /// The model has no such layer.
    NoSuchLayer {
        /// The layer, as given.
        layer: i16,
        /// Number of layers that the model has.
        layers: usize,
    },
    /// The model does not have this head: a [`Head::name`](crate::Head::name), `masked_lm` or `pooler`.
    MissingHead(&'static str),
    /// More than one output takes a maximum of combined layers. Each would need a buffer of its own.
    TwoCombinedMaxima,
    /// A position past the end of the input.
    NoSuchPosition(usize),
    /// A value of the answer, or of a state on the way to it, is NaN or infinite. What the outputs hold is
    /// of no use.
    NotFinite(NotFinite),
}

/// Where the first value that is not finite appears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotFinite {
    /// A hidden state: 0 is the embeddings' output, `n` that of layer `n`, counted from 1.
    HiddenState(usize),
    /// The attention probabilities of a layer, counted from 0.
    Attention(usize),
    /// The logits of a head: a [`Head::name`](crate::Head::name), or `masked_lm`.
    Head(&'static str),
    /// Features, in the combination or the pooling of finite states.
    Features,
}

impl fmt::Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::HiddenState(0) => f.write_str("the output of the embeddings"),
            Self::HiddenState(n) => write!(f, "the output of layer {n}"),
            Self::Attention(layer) => write!(f, "the attention of layer {}", layer + 1),
            Self::Head(name) => write!(f, "the output of the {name} head"),
            Self::Features => f.write_str("the combination of layers or tokens"),
        }
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoTokens => f.write_str("the input has no token; give at least one"),
            Self::TooManyTokens { have, limit } => {
                write!(
                    f,
                    "the input has {have} tokens, the limit is {limit}; truncate it, or use windows"
                )
            }
            Self::UnknownToken { position, id, vocab } => write!(
                f,
                "token {position} has id {id}, the vocabulary has {vocab} words; use the tokenizer of \
                 the model"
            ),
            Self::UnknownTokenType { position, token_type, types } => {
                write!(
                    f,
                    "token {position} has type {token_type}, the model has {types} token types"
                )
            }
            Self::Lengths { what, have, need } => {
                write!(f, "{have} {what} for {need} input_ids; give one per id")
            }
            Self::AllMasked => f.write_str("every token is masked; leave at least one unmasked"),
            Self::TooSmall(error) => error.fmt(f),
            Self::OutputTooLong { need, have } => write!(
                f,
                "the output buffer has {have} values and the result has {need}; pass that many"
            ),
            Self::NoSuchLayer { layer, layers } => write!(
                f,
                "there is no hidden state {layer}: the model has {layers} layers, so 0 to {layers} \
                 and -1 to -{}",
                layers + 1
            ),
            Self::MissingHead(name) => write!(
                f,
                "the model has no {name} head; convert a checkpoint that has one; \
                 `bertlet inspect` lists the heads of a model"
            ),
            Self::TwoCombinedMaxima => f.write_str(
                "two outputs take a maximum of combined layers; request them in separate calls",
            ),
            Self::NoSuchPosition(position) => {
                write!(f, "there is no token {position} in the input; positions count from 0")
            }
            Self::NotFinite(place) => write!(
                f,
                "{place} is not finite: weights of the model overflow; check the file with `bertlet \
                 verify`, or convert the checkpoint again"
            ),
        }
    }
}

impl core::error::Error for RunError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::TooSmall(error) => Some(error),
            _ => None,
        }
    }
}

impl From<TooSmall> for RunError {
    fn from(error: TooSmall) -> Self {
        Self::TooSmall(error)
    }
}

/// A buffer of the caller is too small. All errors say it in this shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSmall {
    /// What the buffer holds.
    pub what: &'static str,
    /// Elements needed.
    pub need: usize,
    /// Elements given.
    pub have: usize,
}

impl fmt::Display for TooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, need, have } = self;
        write!(f, "the buffer for {what} has {have} elements and {need} are needed")
    }
}

impl core::error::Error for TooSmall {}
