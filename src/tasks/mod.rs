//! Text in, answers out: vectors, labels, entities, masked words, answers.
//!
//! [`TextRunner`] is the one reader of texts. Nothing here allocates: the caller owns all memory. Where
//! the size of a buffer depends on the text, a function or [`TaskError::TooSmall`] tells it.

mod answer;
mod entities;
mod rows;
mod runner;
mod tags;
mod units;
mod viterbi;
mod words;

pub use answer::{Answer, Answered, Question, mask_positions};
#[cfg(feature = "ffi")]
pub(crate) use entities::scratch_len as entities_scratch_len;
pub use entities::{Aggregation, Entity, EntityOptions, EntityRecognizer, Redacted, Tagged};
pub use runner::{Features, RunInfo, Text, TextRunner, Window};
pub use tags::{Label, LabelRules, Scheme, label_name};
#[doc(hidden)]
pub use tags::{LabelSet, TagPosition};
pub use words::{WordFeatures, WordPooling};

#[doc(hidden)]
pub use crate::tokenizer::WindowPlan;
pub use crate::tokenizer::{Offset, default_overlap};

use std::fmt;
use std::str::FromStr;

use crate::error::{RunError, TooSmall};
use crate::format::Model;
use crate::tokenizer::{SectionError, TokenizeError, Tokenizer};

/// Why a task failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskError {
    /// The encoder refused the input.
    Run(RunError),
    /// The text could not be tokenised.
    Tokenize(TokenizeError),
    /// The model's tokenizer cannot be used.
    Tokenizer(SectionError),
    /// The model has no tokenizer.
    NoTokenizer,
    /// A buffer is too small.
    TooSmall(TooSmall),
    /// The model has more labels than entities are found with.
    TooManyLabels {
        /// Labels of the model.
        have: usize,
        /// Upper bound.
        limit: usize,
    },
    /// The encoder was made for fewer tokens than a window needs.
    EncoderTooShort {
        /// Tokens needed.
        need: usize,
        /// Tokens that it was made for.
        have: usize,
    },
    /// Windows were asked for without pooling.
    NotPooled,
    /// The task reads one text and got a pair.
    OneText,
    /// The task reads a pair and got one text.
    NotAPair,
    /// The task reads running text and got words or ids.
    NotAText,
    /// The text was cut, and its rest would not be redacted.
    Truncated,
    /// The model has no label of that name.
    NoSuchLabel,
    /// The prompt ends, and the text starts, inside a word.
    PromptInWord,
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
            Self::TooSmall(error) => error.fmt(f),
            Self::TooManyLabels { have, limit } => write!(
                f,
                "the model has {have} labels and entities are found with up to {limit}; use the \
                 logits themselves"
            ),
            Self::EncoderTooShort { need, have } => write!(
                f,
                "the encoder was made for {have} tokens and {need} are needed; make it for more"
            ),
            Self::NotPooled => f.write_str("windows need pooled vectors; choose a pooling"),
            Self::OneText => f.write_str("this task reads one text; give no second text"),
            Self::PromptInWord => f.write_str(
                "the prompt and the text meet inside a word; join them first, or end the prompt with a space",
            ),
            Self::NotAPair => f.write_str("this task reads a pair; give a second text"),
            Self::NotAText => f.write_str("this task reads running text; give no words or ids"),
            Self::Truncated => f.write_str(
                "the text is longer than the encoder takes, and its rest would not be redacted; read \
                 it in windows",
            ),
            Self::NoSuchLabel => f.write_str("the model has no label of that name"),
        }
    }
}

impl core::error::Error for TaskError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Run(error) => Some(error),
            Self::Tokenize(error) => Some(error),
            Self::Tokenizer(error) => Some(error),
            Self::TooSmall(error) => Some(error),
            _ => None,
        }
    }
}

/// A name is not one of the choices; displays them.
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

impl FromStr for Scheme {
    type Err = UnknownName;
    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let choices = "plain, bio, iob1, iob2, bioes, bilou or bmes";
        Self::from_name(name).ok_or(UnknownName { choices })
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
        match error {
            RunError::TooSmall(size) => Self::TooSmall(size),
            error => Self::Run(error),
        }
    }
}

impl From<TooSmall> for TaskError {
    fn from(error: TooSmall) -> Self {
        Self::TooSmall(error)
    }
}

impl From<TokenizeError> for TaskError {
    fn from(error: TokenizeError) -> Self {
        match error {
            TokenizeError::TooSmall(size) => Self::TooSmall(size),
            error => Self::Tokenize(error),
        }
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
