//! Why a call is refused.

use std::fmt;

use crate::format::SectionKind;

/// Why an input was not encoded. Nothing was written to any output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunError {
    /// The input has no token.
    NoTokens,
    /// More tokens than the encoder was made for, or than the model has positions.
    TooManyTokens {
        /// Tokens given.
        have: usize,
        /// Tokens at most.
        limit: usize,
    },
    /// A token id beyond the vocabulary.
    UnknownToken {
        /// Which token.
        position: usize,
        /// Its id.
        id: u32,
        /// Words in the vocabulary.
        vocab: usize,
    },
    /// A token type that the model does not have.
    UnknownTokenType {
        /// Which token.
        position: usize,
        /// Its type.
        token_type: u8,
        /// Types that the model has.
        types: usize,
    },
    /// `token_type_ids` or `attention_mask` differ in length from `input_ids`.
    Lengths {
        /// Which.
        what: &'static str,
        /// How many there are.
        have: usize,
        /// How many there should be.
        need: usize,
    },
    /// Every token is masked.
    AllMasked,
    /// The scratch buffer is too small.
    Scratch {
        /// Bytes needed.
        need: usize,
        /// Bytes given.
        have: usize,
    },
    /// An output does not have the length that the answer has.
    Output {
        /// Values needed.
        need: usize,
        /// Values given.
        have: usize,
    },
    /// The model has no such layer.
    NoSuchLayer {
        /// As asked for.
        layer: i16,
        /// Layers that the model has.
        layers: usize,
    },
    /// The checkpoint did not have this head.
    MissingHead(SectionKind),
    /// Logits were asked of a section that is no head with logits.
    NotAHead(SectionKind),
    /// More than one output takes a maximum over a combination of layers; ask for them one by one.
    TwoCombinedMaxima,
    /// A position beyond the input.
    NoSuchPosition(usize),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoTokens => f.write_str("the input has no token; give at least one"),
            Self::TooManyTokens { have, limit } => {
                write!(
                    f,
                    "the input has {have} tokens, the limit is {limit}; cut it, or use windows"
                )
            }
            Self::UnknownToken { position, id, vocab } => write!(
                f,
                "token {position} has id {id}, the vocabulary has {vocab}; use the model's own \
                 tokenizer"
            ),
            Self::UnknownTokenType { position, token_type, types } => {
                write!(f, "token {position} has type {token_type}, the model knows {types}")
            }
            Self::Lengths { what, have, need } => {
                write!(f, "{have} {what} for {need} ids; give one each")
            }
            Self::AllMasked => f.write_str("every token is masked; leave at least one"),
            Self::Scratch { need, have } => write!(
                f,
                "the scratch buffer has {have} bytes and {need} are needed; ask scratch_len"
            ),
            Self::Output { need, have } => {
                write!(f, "the output has room for {have} values and the answer has {need}")
            }
            Self::NoSuchLayer { layer, layers } => write!(
                f,
                "there is no hidden state {layer}: the model has {layers} layers, so 0 to {layers} \
                 and -1 to -{}",
                layers + 1
            ),
            Self::MissingHead(kind) => write!(
                f,
                "the checkpoint has no {kind:?}; convert one that has it, or ask for something else"
            ),
            Self::NotAHead(kind) => write!(
                f,
                "{kind:?} gives no logits; ask a classifier, next sentence or question answering"
            ),
            Self::TwoCombinedMaxima => f.write_str(
                "two outputs take a maximum over combined layers; ask for them one by one",
            ),
            Self::NoSuchPosition(position) => {
                write!(f, "there is no token {position} in the input")
            }
        }
    }
}

impl core::error::Error for RunError {}

/// A buffer of the caller is too small.
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
