//! Lines of input, one at a time, however many there are.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::time::{Duration, Instant};

use bertlet::Printable;

use crate::failure::Failure;
use crate::options::Source;

/// Longest line, in bytes. It bounds memory; nobody writes longer texts on purpose.
const LONGEST: usize = 256 << 20;

/// The place of a line, for messages.
#[derive(Clone, Copy, Debug)]
pub struct Place<'l> {
    name: &'l str,
    /// From 1; 0 where the input is a single text.
    pub number: u64,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if self.number > 0 { write!(f, ": line {}", self.number) } else { Ok(()) }
    }
}

/// The lines of a file or of stdin, or a single text.
pub struct Lines {
    name: String,
    /// `None` for a single text.
    reader: Option<BufReader<Box<dyn Read>>>,
    line: Vec<u8>,
    number: u64,
    ended: bool,
    /// Whether the line is longer than a line may be; then `line` holds only its start.
    too_long: bool,
    /// Whether such a line is read to its end.
    keep_going: bool,
    progress: Progress,
}

impl Lines {
    /// With `keep_going` the lines after one that is too long can be read.
    pub fn open(source: &Source, keep_going: bool) -> Result<Self, Failure> {
        let mut length = None;
        let (name, reader, line): (_, Option<Box<dyn Read>>, _) = match source {
            Source::Stdin => {
                let stdin = io::stdin();
                if stdin.is_terminal() && io::stderr().is_terminal() {
                    eprintln!(
                        "bertlet: reading from the terminal, one text per line; Ctrl-D ends it"
                    );
                }
                ("stdin".into(), Some(Box::new(stdin)), Vec::new())
            }
            Source::File(path) => {
                let name = Printable(path.display()).to_string();
                let file = File::open(path).map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => Failure::work(
                        &name,
                        format_args!("no such file; to give a text itself, write --text {name:?}"),
                    ),
                    _ => Failure::work(&name, error),
                })?;
                length = file.metadata().ok().filter(fs_is_file).map(|about| about.len());
                (name, Some(Box::new(file)), Vec::new())
            }
            Source::Text(text) => ("--text".into(), None, text.as_encoded_bytes().to_vec()),
        };
        let reader = reader.map(|reader| BufReader::with_capacity(1 << 16, reader));
        let progress = Progress::new(length);
        let (number, ended, too_long) = (0, false, false);
        Ok(Self { name, reader, line, number, ended, too_long, keep_going, progress })
    }

    /// Reads the next line; false at the end. A file's last line may lack its line feed.
    pub fn advance(&mut self) -> Result<bool, Failure> {
        if self.ended {
            return Ok(false);
        }
        let Some(reader) = &mut self.reader else {
            self.ended = true;
            return Ok(true);
        };
        self.line.clear();
        self.too_long = false;
        self.number += 1;
        let place = Place { name: &self.name, number: self.number };
        let mut any = false;
        loop {
            let buffer = match reader.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::work(place, error)),
            };
            if buffer.is_empty() {
                self.ended = true;
                break;
            }
            any = true;
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let part = &buffer[..end.unwrap_or(buffer.len())];
            self.too_long |= self.line.len() + part.len() > LONGEST;
            if !self.too_long {
                self.line.extend_from_slice(part);
            } else if !self.keep_going {
                // Its end may be far away.
                break;
            }
            let used = part.len() + usize::from(end.is_some());
            reader.consume(used);
            self.progress.bytes += used as u64;
            if end.is_some() {
                break;
            }
        }
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        self.progress.show(self.number, !any);
        Ok(any)
    }

    /// The line, without its end.
    pub fn line(&self) -> Result<&[u8], Failure> {
        if self.too_long {
            return Err(Failure::line(
                self.place(),
                format_args!("longer than {} MiB; break it into lines", LONGEST >> 20),
            ));
        }
        Ok(&self.line)
    }

    /// Where the lines come from.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn place(&self) -> Place<'_> {
        Place { name: &self.name, number: self.number }
    }

    /// Whether the next line may have to be waited for.
    pub fn drained(&self) -> bool {
        self.reader.as_ref().is_none_or(|reader| reader.buffer().is_empty())
    }
}

fn fs_is_file(about: &std::fs::Metadata) -> bool {
    about.is_file()
}

/// A progress line on a terminal's stderr, for long work.
struct Progress {
    /// Of the whole input, where that is known.
    length: Option<u64>,
    bytes: u64,
    start: Instant,
    last: Instant,
    /// Whether to show progress: stderr is a terminal, and stdout, where answers would scroll, is not.
    wanted: bool,
    shown: bool,
}

impl Progress {
    fn new(length: Option<u64>) -> Self {
        let now = Instant::now();
        let wanted = io::stderr().is_terminal() && !io::stdout().is_terminal();
        Self { length, bytes: 0, start: now, last: now, wanted, shown: false }
    }

    fn show(&mut self, line: u64, ended: bool) {
        if !self.wanted {
            return;
        }
        let mut stderr = io::stderr();
        if ended {
            if self.shown {
                let _ = write!(stderr, "\r\x1b[K");
            }
            return;
        }
        let now = Instant::now();
        if now - self.start < Duration::from_secs(1) || now - self.last < Duration::from_millis(200)
        {
            return;
        }
        self.last = now;
        self.shown = true;
        let a_second = line as f64 / (now - self.start).as_secs_f64();
        let share = match self.length {
            Some(length) if length > 0 => format!(", {} %", self.bytes * 100 / length),
            _ => String::new(),
        };
        let _ = write!(stderr, "\r\x1b[Kline {line}{share}, {a_second:.0} per second");
    }
}
