//! One error type for the whole converter: which file, which field, what is wrong, how to mend it.

use std::fmt;
use std::path::{Path, PathBuf};

/// Shorthand for results of the converter.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a checkpoint could not be read, converted or written.
///
/// Displays as one line: `file: field: problem; mend`.
#[derive(Debug)]
pub struct Error {
    file: PathBuf,
    field: String,
    problem: String,
    mend: String,
}

impl Error {
    /// An error at `field` (a tensor, a key, a byte range; may be empty) of `file`.
    pub fn new(
        file: impl AsRef<Path>,
        field: impl Into<String>,
        problem: impl fmt::Display,
    ) -> Self {
        Self {
            file: file.as_ref().to_owned(),
            field: field.into(),
            problem: problem.to_string(),
            mend: String::new(),
        }
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn mend(mut self, mend: impl fmt::Display) -> Self {
        self.mend = mend.to_string();
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.problem)?;
        if !self.mend.is_empty() {
            write!(f, "; {}", self.mend)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
