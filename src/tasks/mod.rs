//! Text in, answers out: entities, labels, masked words, answers, with offsets into the text.
//!
//! Nothing here allocates. Entities need scratch memory whose size [`EntityRecognizer::scratch_len`]
//! tells; the other tasks work in the token buffers and logits that the caller hands them.
//!
//! Text longer than the model is cut only where no window is asked for, and then the answer says
//! `truncated`. With windows, entities are stitched ([`WindowPlan`]), labels and vectors averaged.

mod entities;
mod offsets;
mod tags;
mod texts;
mod viterbi;
mod windows;
mod words;

pub use entities::{Aggregation, Entity, EntityOptions, EntityRecognizer, Tagged, Text};
pub use offsets::{Offset, OffsetCounter};
pub use tags::{Label, LabelSet, Scheme, TagPosition};
pub use texts::{Answer, Pair, RunInfo, answer, average, masks};
pub use windows::WindowPlan;
pub use words::{WordPooling, pool_words};

use std::fmt;
use std::str::FromStr;

use crate::error::RunError;
use crate::format::Model;
use crate::tokenizer::{SectionError, TokenizeError, Tokenizer};

/// Why a task failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskError {
    /// The encoder refused.
    Run(RunError),
    /// The text could not be tokenized.
    Tokenize(TokenizeError),
    /// The model's tokenizer cannot be used.
    Tokenizer(SectionError),
    /// The model has no tokenizer.
    NoTokenizer,
    /// The scratch buffer is too small.
    Scratch {
        /// Bytes needed.
        need: usize,
        /// Bytes given.
        have: usize,
    },
    /// A buffer is too small.
    Buffer {
        /// Which.
        what: &'static str,
        /// Values needed.
        need: usize,
        /// Values given.
        have: usize,
    },
    /// More labels than entities are found with.
    TooManyLabels {
        /// Labels of the model.
        have: usize,
        /// Labels at most.
        limit: usize,
    },
    /// The encoder was made for fewer tokens than a window needs.
    EncoderTooShort {
        /// Tokens needed.
        need: usize,
        /// Tokens that it was made for.
        have: usize,
    },
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(error) => error.fmt(f),
            Self::Tokenize(error) => error.fmt(f),
            Self::Tokenizer(error) => error.fmt(f),
            Self::NoTokenizer => {
                f.write_str("the model has no vocabulary; give token ids instead of text")
            }
            Self::Scratch { need, have } => write!(
                f,
                "the scratch buffer has {have} bytes and {need} are needed; ask scratch_len"
            ),
            Self::Buffer { what, need, have } => {
                write!(f, "the buffer for {what} has {have} places and {need} are needed")
            }
            Self::TooManyLabels { have, limit } => write!(
                f,
                "the model has {have} labels and entities are found with up to {limit}; use the \
                 logits themselves"
            ),
            Self::EncoderTooShort { need, have } => write!(
                f,
                "the encoder was made for {have} tokens and {need} are needed; make it for more"
            ),
        }
    }
}

impl core::error::Error for TaskError {}

/// A name that is none of the choices; displays them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownName {
    choices: &'static str,
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no such choice; try {}", self.choices)
    }
}

impl core::error::Error for UnknownName {}

impl FromStr for Aggregation {
    type Err = UnknownName;
    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::from_name(name).ok_or(UnknownName { choices: "none, simple, first, average or max" })
    }
}

impl FromStr for WordPooling {
    type Err = UnknownName;
    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::from_name(name).ok_or(UnknownName { choices: "first, mean or last" })
    }
}

impl From<RunError> for TaskError {
    fn from(error: RunError) -> Self {
        Self::Run(error)
    }
}

impl From<TokenizeError> for TaskError {
    fn from(error: TokenizeError) -> Self {
        Self::Tokenize(error)
    }
}

impl<'a> Model<'a> {
    /// The tokenizer in the file.
    ///
    /// # Errors
    /// [`TaskError::NoTokenizer`] and [`TaskError::Tokenizer`].
    pub fn tokenizer(&self) -> Result<Tokenizer<'a>, TaskError> {
        let bytes = self.tokenizer_bytes().ok_or(TaskError::NoTokenizer)?;
        Tokenizer::from_bytes(bytes).map_err(TaskError::Tokenizer)
    }
}
