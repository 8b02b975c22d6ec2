//! Answers out: to stdout, or to a file that appears only when it is whole.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::options::Options;

/// Where answers go, a line each.
pub struct Answers {
    name: String,
    out: BufWriter<Target>,
    /// The line in the making.
    line: Vec<u8>,
    /// Whether answers are JSON; else they are for a human.
    pub json: bool,
}

enum Target {
    Stdout(io::Stdout),
    File(Beside),
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
            Some(path) => (path.display().to_string(), Target::File(Beside::create(path)?)),
            None => ("stdout".into(), Target::Stdout(io::stdout())),
        };
        let out = BufWriter::with_capacity(1 << 16, target);
        Ok(Self { name, out, line: Vec::new(), json: options.json() })
    }

    /// The line in the making.
    pub fn line(&mut self) -> &mut Vec<u8> {
        &mut self.line
    }

    /// Ends the line. `now` sends it off, too; a file gets it when there is enough to write.
    pub fn end(&mut self, now: bool) -> Result<(), Failure> {
        if !self.json {
            // A name in a file may hold what a terminal takes for a command.
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

    /// Sends off what is left; a file gets its name.
    pub fn finish(self) -> Result<(), Failure> {
        let Self { name, mut out, .. } = self;
        out.flush().map_err(|error| Failure::write(&name, &error))?;
        match out.into_inner() {
            Ok(Target::File(file)) => file.finish(),
            Ok(Target::Stdout(_)) => Ok(()),
            Err(error) => Err(Failure::write(&name, error.error())),
        }
    }
}

/// A file written beside the one that it becomes, and removed unless it does: what stands under
/// the name is whole, always.
pub struct Beside {
    pub file: File,
    path: PathBuf,
    /// `None` for what cannot be replaced, such as a device; then it is written in place.
    beside: Option<PathBuf>,
}

impl Beside {
    pub fn create(path: &Path) -> Result<Self, Failure> {
        let special = std::fs::metadata(path).is_ok_and(|about| !about.is_file());
        let beside = (!special).then(|| {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{}.tmp", std::process::id()));
            PathBuf::from(name)
        });
        // Readable, as what waits in a file is read again; a device need not be.
        let mut how = OpenOptions::new();
        how.read(!special).write(true).create(true).truncate(true);
        let file = how
            .open(beside.as_deref().unwrap_or(path))
            .map_err(|error| Failure::write(path.display(), &error))?;
        Ok(Self { file, path: path.to_owned(), beside })
    }

    /// Gives the file its name.
    pub fn finish(mut self) -> Result<(), Failure> {
        if let Some(beside) = &self.beside {
            std::fs::rename(beside, &self.path)
                .map_err(|error| Failure::write(self.path.display(), &error))?;
            self.beside = None;
        }
        Ok(())
    }
}

impl Write for Beside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside {
            // A failure is being told already.
            let _ = std::fs::remove_file(beside);
        }
    }
}
