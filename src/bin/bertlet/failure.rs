//! Failures and their messages: `FILE: FIELD: problem; hint`, on one line.

use std::fmt::Display;
use std::io::{self, Write};

use bertlet::{OpenError, Printable};

/// Why a command ends without having done its work.
#[derive(Debug)]
pub enum Failure {
    /// The command shows its help instead.
    Help,
    /// Wrong usage: status 2.
    Usage(String),
    /// The work failed: status 1.
    Work(String),
    /// The reader of the answers is gone and needs no more: status 0, as with `head`.
    Closed,
}

impl Failure {
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// `file: problem`, where `problem` may start with a field.
    pub fn work(file: impl Display, problem: impl Display) -> Self {
        Self::Work(format!("{file}: {problem}"))
    }

    /// A failed write to `file`.
    pub fn write(file: impl Display, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::work(
                file,
                format!("cannot be written: {error}; make room, or choose another place"),
            ),
        }
    }

    /// The message on one line, whatever names a file contains.
    pub fn message(&self) -> Option<String> {
        match self {
            Self::Help | Self::Closed => None,
            Self::Usage(message) | Self::Work(message) => Some(Printable(message).to_string()),
        }
    }

    pub fn status(&self) -> u8 {
        match self {
            Self::Help | Self::Closed => 0,
            Self::Work(_) => 1,
            Self::Usage(_) => 2,
        }
    }
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(format!("{error}; --help lists the options"))
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::Work(error.to_string())
    }
}

/// Writes to stdout.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::write("stdout", &error))
}

/// `count` zeros, or a message instead of an abort if there is not enough memory.
pub fn zeros<T: Clone + Default>(count: usize) -> Result<Vec<T>, Failure> {
    let mut values = Vec::new();
    match values.try_reserve_exact(count) {
        Ok(()) => {
            values.resize(count, T::default());
            Ok(values)
        }
        Err(_) => Err(Failure::Work(format!(
            "not enough memory for {count} values; ask for less at a time"
        ))),
    }
}
