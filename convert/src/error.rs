//! The converter's error: the file, the field, what is wrong, and what the user can do about it.

use std::fmt;
use std::path::{Path, PathBuf};

use bertlet::Printable;

/// Shorthand for results of the converter.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a checkpoint could not be read, converted or written.
///
/// Displays as one line: `file: field: problem; hint`.
#[derive(Debug)]
pub struct Error {
    file: PathBuf,
    field: String,
    problem: String,
    hint: String,
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
            hint: String::new(),
        }
    }

    /// An error for a model file that cannot be opened.
    pub fn opening(error: bertlet::OpenError) -> Self {
        // Both texts begin with the file's name.
        let text = error.to_string();
        let name = format!("{}: ", error.path().display());
        Self::new(error.path(), "", text.strip_prefix(&name).unwrap_or(&text))
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = hint.to_string();
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Printable(self.file.display()))?;
        if !self.field.is_empty() {
            write!(f, ": {}", OneLine(&self.field))?;
        }
        write!(f, ": {}", OneLine(&self.problem))?;
        if !self.hint.is_empty() {
            write!(f, "; {}", OneLine(&self.hint))?;
        }
        Ok(())
    }
}

/// A text that may quote names from a hostile file, escaped. A text that is too long to read is cut.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 1000;
        for c in self.0.chars().take(LONGEST) {
            write!(f, "{}", Printable(c))?;
        }
        match self.0.chars().nth(LONGEST) {
            Some(_) => f.write_str("..."),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_hostile_files_stay_on_one_line() {
        let e = Error::new("f\x07", "a\nb\x1b[2J", "x".repeat(2000)).hint("hint");
        let line = e.to_string();
        assert!(line.starts_with("f\\u{7}: a\\nb\\u{1b}[2J: xxx"), "{line}");
        assert!(line.ends_with("x...; hint") && line.len() < 1100);
    }
}
