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
    /// An option that the command does not have: status 2.
    UnknownOption(String),
    /// The work failed: status 1.
    Work(String),
    /// The work failed for one line of input, and can go on with the next: status 1.
    Line(String),
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

    /// `place: problem`, where `place` is a line of input.
    pub fn line(place: impl Display, problem: impl Display) -> Self {
        Self::Line(format!("{place}: {problem}"))
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
            Self::UnknownOption(name) => Some(
                Printable(format_args!("unknown option {name}; --help lists the options"))
                    .to_string(),
            ),
            Self::Usage(message) | Self::Work(message) | Self::Line(message) => {
                Some(Printable(message).to_string())
            }
        }
    }

    pub fn status(&self) -> u8 {
        match self {
            Self::Help | Self::Closed => 0,
            Self::Work(_) | Self::Line(_) => 1,
            Self::Usage(_) | Self::UnknownOption(_) => 2,
        }
    }
}

/// The candidate that a name was probably meant to be: one that differs in a few letters, or that one of
/// the two begins with.
pub fn nearest<'c>(name: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let name = name.to_ascii_lowercase().replace('_', "-");
    let letters = name.trim_start_matches('-').len();
    let most = if letters <= 3 { 1 } else { 2 + usize::from(letters > 7) };
    let distance = |other: &str| {
        let begins = letters >= 3 && (other.starts_with(&name) || name.starts_with(other));
        if begins { 1 } else { edits(name.as_bytes(), other.as_bytes()) }
    };
    let best = candidates.map(|other| (distance(other), other)).min_by_key(|(edits, _)| *edits)?;
    (best.0 <= most).then_some(best.1)
}

/// Letters to insert, delete, replace or swap with a neighbour, to make one name of the other.
fn edits(a: &[u8], b: &[u8]) -> usize {
    // Rows of the table for the last two letters of `a`, and for the current one.
    let (mut before, mut last) = (Vec::new(), (0..=b.len()).collect::<Vec<_>>());
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let replaced = last[j] + usize::from(a[i] != b[j]);
            let mut least = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_were_probably_meant() {
        let names = ["inspect", "ner", "embed", "fill-mask", "bench", "--aggregation", "--text"];
        for (name, expected) in [
            ("nre", Some("ner")),
            ("embbed", Some("embed")),
            ("embedding", Some("embed")),
            ("fill_mask", Some("fill-mask")),
            ("fillmask", Some("fill-mask")),
            ("NER", Some("ner")),
            ("dance", None),
            ("x", None),
            ("", None),
            ("--agregation", Some("--aggregation")),
            ("--agg", Some("--aggregation")),
            ("--txet", Some("--text")),
            ("--fast", None),
        ] {
            assert_eq!(nearest(name, names.into_iter()), expected, "{name:?}");
        }
        assert_eq!(edits(b"abcd", b"acbde"), 2);
        assert_eq!(edits(b"", b"ab"), 2);
    }
}
