//! Answers out: to stdout, or to a file that appears only when it is whole.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use bertlet::AtomicFile;
use bertlet::tasks::Offset;
use bertlet::tokenizer::Tokenizer;

use crate::failure::Failure;
use crate::json::Object;
use crate::options::Options;

/// Where answers go, one per line.
pub struct Answers {
    name: String,
    out: BufWriter<Target>,
    /// The current line.
    line: Vec<u8>,
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
            Some(path) => (path.display().to_string(), Target::File(create(path)?)),
            None => ("stdout".into(), Target::Stdout(io::stdout())),
        };
        let out = BufWriter::with_capacity(1 << 16, target);
        Ok(Self { name, out, line: Vec::new(), json: options.json() })
    }

    /// The current line.
    pub fn line(&mut self) -> &mut Vec<u8> {
        &mut self.line
    }

    /// Ends the line. `now` flushes stdout; a file is written when there is enough.
    pub fn end(&mut self, now: bool) -> Result<(), Failure> {
        if !self.json {
            // Names in a model file may hold control sequences for the terminal.
            let control = |byte: &&mut u8| byte.is_ascii_control() && **byte != b'\n';
            self.line.iter_mut().filter(control).for_each(|byte| *byte = b'?');
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

/// Starts a file that appears at `path` when it is finished.
pub fn create(path: &Path) -> Result<AtomicFile, Failure> {
    AtomicFile::create(path).map_err(|error| Failure::write(path.display(), &error))
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
