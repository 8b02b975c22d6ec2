//! From the library's errors to the numbers that C sees.

use core::ffi::CStr;

use super::Status;
use crate::error::RunError;
use crate::format::FormatError;
use crate::kernels::IsaError;
use crate::tasks::TaskError;
use crate::tokenizer::TokenizeError;

/// `MESSAGES[status]`.
const MESSAGES: [&CStr; 24] = [
    c"success",
    c"a required pointer is NULL",
    c"a pointer is misaligned: an array's to its elements, a model's bytes to a multiple of 64",
    c"a text, path or name is not UTF-8",
    c"a buffer is too small; its count tells what is needed, or ask the function for its size",
    c"no array can have that many elements",
    c"the file cannot be opened or mapped; the message of bertlet_model_open says why",
    c"not a bertlet file; make one with bertlet-convert",
    c"the file has a format version that this library does not read; convert again",
    c"the file has fewer or more bytes than its header says; copy or convert it again",
    c"the file is damaged: its contents do not match their checksum, or contradict each other",
    c"this library has no instruction set of that name",
    c"the CPU (or, without std, the build) lacks this instruction set",
    c"the input has no token, or all are masked",
    c"more tokens than the encoder was made for or the model takes",
    c"a token's id or type is not in the model; use its own tokenizer",
    c"the model has no such layer",
    c"the number or spelling is not that of any layers, pooling or aggregation",
    c"the checkpoint has no such head; convert one that has it",
    c"the model has no vocabulary; give ids instead of text",
    c"no label, token or [MASK] has this number",
    c"the text is too long: over 4 GiB, or what is asked for does not fit into the encoder's limit",
    c"windows cannot share this many tokens; choose a smaller overlap",
    c"the answer is not finite: weights overflow; verify the model, or convert the checkpoint again",
];
const _: () = assert!(MESSAGES.len() == Status::NotFinite as usize + 1);

impl Status {
    /// The status of a function's work.
    pub(super) fn of(work: impl FnOnce() -> Result<(), Self>) -> Self {
        work().err().unwrap_or(Self::Ok)
    }

    pub(super) fn message(status: u32) -> &'static CStr {
        MESSAGES.get(status as usize).copied().unwrap_or(c"no such status")
    }
}

impl From<FormatError> for Status {
    fn from(error: FormatError) -> Self {
        match error {
            FormatError::Misaligned(_) => Self::Misaligned,
            FormatError::Truncated { .. } | FormatError::TrailingBytes { .. } => Self::FileLength,
            FormatError::NotAModel => Self::NotAModel,
            FormatError::Version(_) => Self::Version,
            _ => Self::Damaged,
        }
    }
}

impl From<RunError> for Status {
    fn from(error: RunError) -> Self {
        match error {
            RunError::NoTokens | RunError::AllMasked => Self::NoTokens,
            RunError::TooManyTokens { .. } => Self::TooManyTokens,
            RunError::TooSmall(_) => Self::BufferTooSmall,
            RunError::UnknownToken { .. } | RunError::UnknownTokenType { .. } => Self::UnknownToken,
            // The functions of this folder give arrays of the right lengths.
            RunError::Lengths { .. } | RunError::OutputTooLong { .. } => Self::WrongCount,
            RunError::NoSuchLayer { .. } => Self::NoSuchLayer,
            RunError::MissingHead(_) => Self::MissingHead,
            RunError::TwoCombinedMaxima => Self::NoSuchChoice,
            RunError::NoSuchPosition(_) => Self::NoSuchIndex,
            RunError::NotFinite(_) => Self::NotFinite,
        }
    }
}

impl From<TokenizeError> for Status {
    fn from(error: TokenizeError) -> Self {
        match error {
            TokenizeError::InvalidUtf8 { .. } => Self::InvalidUtf8,
            TokenizeError::TooSmall(_) => Self::BufferTooSmall,
            TokenizeError::LimitTooSmall { .. } => Self::TooManyTokens,
            TokenizeError::OverlapTooLarge { .. } => Self::OverlapTooLarge,
            _ => Self::TextTooLong,
        }
    }
}

impl From<TaskError> for Status {
    fn from(error: TaskError) -> Self {
        match error {
            TaskError::Run(error) => error.into(),
            TaskError::Tokenize(error) => error.into(),
            TaskError::Tokenizer(_) => Self::Damaged,
            TaskError::NoTokenizer => Self::MissingTokenizer,
            TaskError::TooSmall(_) => Self::BufferTooSmall,
            TaskError::TooManyLabels { .. } => Self::Damaged,
            TaskError::EncoderTooShort { .. } | TaskError::Truncated => Self::TooManyTokens,
            TaskError::NotPooled
            | TaskError::OneText
            | TaskError::NotAPair
            | TaskError::NotAText
            | TaskError::PromptInWord => Self::NoSuchChoice,
            TaskError::NoSuchLabel => Self::NoSuchIndex,
        }
    }
}

impl From<IsaError> for Status {
    fn from(error: IsaError) -> Self {
        match error {
            IsaError::Unavailable(_) => Self::UnavailableIsa,
            _ => Self::UnknownIsa,
        }
    }
}
