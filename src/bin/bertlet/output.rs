//! Answers out: to stdout, or to a file that appears only when it is whole.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use bertlet::tasks::Offset;
use bertlet::tokenizer::Tokenizer;
use bertlet::{AtomicFile, Printable};

use crate::failure::Failure;
use crate::json::Object;
use crate::options::{Options, Source};

/// Where answers go, one per line.
pub struct Answers {
    name: String,
    out: BufWriter<Target>,
    /// The current line.
    line: Vec<u8>,
    /// Whether the current answer is written as it is.
    as_it_is: bool,
    /// Whether answers are JSON; otherwise they are for people to read.
    pub json: bool,
}

enum Target {
    Stdout(io::Stdout),
    File(AtomicFile),
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(out) => out.write(bytes),
            Self::File(out) => out.write(bytes),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.flush(),
            Self::File(out) => out.flush(),
        }
    }
}

impl Answers {
    pub fn open(options: &Options) -> Result<Self, Failure> {
        let (name, target) = match &options.output {
            Some(path) => (name(path), Target::File(create(path)?)),
            None => (name(Path::new(STDOUT)), Target::Stdout(io::stdout())),
        };
        let out = BufWriter::with_capacity(1 << 16, target);
        Ok(Self { name, out, line: Vec::new(), as_it_is: false, json: options.json() })
    }

    /// The current line.
    pub fn line(&mut self) -> &mut Vec<u8> {
        &mut self.line
    }

    /// Has the current answer written as it is: it is printable and may have several lines, or it is the
    /// caller's own text.
    pub fn keep_as_it_is(&mut self) {
        self.as_it_is = true;
    }

    /// Ends the answer. `now` flushes stdout; a file is written when there is enough.
    pub fn end(&mut self, now: bool) -> Result<(), Failure> {
        if !std::mem::take(&mut self.as_it_is) {
            escape(&mut self.line, self.json);
        }
        self.line.push(b'\n');
        let written = self.out.write_all(&self.line);
        self.line.clear();
        let flushed = match self.out.get_ref() {
            Target::Stdout(_) if now && written.is_ok() => self.out.flush(),
            _ => written,
        };
        flushed.map_err(|error| Failure::write(&self.name, &error))
    }

    /// Writes what is left, and gives a file its name.
    pub fn finish(self) -> Result<(), Failure> {
        let Self { name, mut out, .. } = self;
        out.flush().map_err(|error| Failure::write(&name, &error))?;
        match out.into_inner() {
            Ok(Target::File(file)) => file.finish().map_err(|error| Failure::write(&name, &error)),
            Ok(Target::Stdout(_)) => Ok(()),
            Err(error) => Err(Failure::write(&name, error.error())),
        }
    }
}

/// Escapes what could drive a terminal, in a text or in a line of JSON: names in a model file may hold it.
fn escape(line: &mut Vec<u8>, json: bool) {
    // JSON escapes all that is below, and most texts hold nothing else.
    if line.iter().all(|byte| (b' '..0x7f).contains(byte)) {
        return;
    }
    let Ok(text) = str::from_utf8(line) else { return };
    if text.chars().all(|c| Printable(c).is_plain()) {
        return;
    }
    let escaped = if json { Printable(text).json() } else { Printable(text).to_string() };
    *line = escaped.into_bytes();
}

/// The path that means stdout.
pub const STDOUT: &str = "-";

/// The name of an output in messages.
pub fn name(path: &Path) -> String {
    if path == Path::new(STDOUT) { "stdout".into() } else { path.display().to_string() }
}

/// Refuses an output that is the model or the texts, and one that cannot be written, before anything is
/// read.
pub fn check(path: &Path, options: &Options) -> Result<(), Failure> {
    let path = if path == Path::new(STDOUT) { Path::new("/dev/stdout") } else { path };
    let input = match &options.source {
        Source::File(path) => Some(path.as_path()),
        Source::Stdin => Some(Path::new("/dev/stdin")),
        Source::Text(_) => None,
    };
    let read = [Some(options.model.as_path()), input];
    read.into_iter().flatten().try_for_each(|read| differ(path, read))?;
    AtomicFile::check(path).map_err(|error| Failure::write(path.display(), &error))
}

/// Refuses to write a file that is read.
pub fn differ(path: &Path, read: &Path) -> Result<(), Failure> {
    match AtomicFile::would_replace(path, read) {
        false => Ok(()),
        true => Err(Failure::work(
            path.display(),
            format_args!(
                "would replace {}, which this command reads; name another file to write",
                read.display()
            ),
        )),
    }
}

/// Starts a file that appears at `path` when it is finished.
pub fn create(path: &Path) -> Result<AtomicFile, Failure> {
    let out =
        if path == Path::new(STDOUT) { AtomicFile::stdout() } else { AtomicFile::create(path) };
    out.map_err(|error| Failure::write(name(path), &error))
}

/// Adds the start and the end of a range in all units.
pub fn write_range(object: &mut Object<'_>, start: Offset, end: Offset) {
    object
        .plain("start", start.byte)
        .plain("end", end.byte)
        .plain("start_char", start.char)
        .plain("end_char", end.char)
        .plain("start_utf16", start.utf16)
        .plain("end_utf16", end.utf16);
}

/// Tokens as text: the parts of a word joined, words separated by a space. Chinese characters, which the
/// tokenizer separated, get no space between them.
pub fn join(tokenizer: Option<&Tokenizer<'_>>, ids: &[u32]) -> String {
    let mut text = String::new();
    let splits_chinese =
        tokenizer.is_some_and(|tokenizer| tokenizer.settings().handle_chinese_chars);
    for id in ids {
        let token = tokenizer.and_then(|tokenizer| tokenizer.token(*id)).unwrap_or("");
        match token.strip_prefix("##") {
            Some(part) => text.push_str(part),
            None => {
                let neighbours = [text.chars().next_back(), token.chars().next()];
                let within = splits_chinese && neighbours.iter().all(|c| c.is_some_and(is_chinese));
                if !text.is_empty() && !within {
                    text.push(' ');
                }
                text.push_str(token);
            }
        }
    }
    text
}

/// Characters that the tokenizer makes words of their own: the ideographs of BERT's `_is_chinese_char`.
fn is_chinese(c: char) -> bool {
    matches!(u32::from(c),
        0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xF900..=0xFAFF | 0x2_0000..=0x2_A6DF
        | 0x2_A700..=0x2_CEAF | 0x2_F800..=0x2_FA1F)
}
