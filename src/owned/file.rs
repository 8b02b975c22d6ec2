//! Model files in memory: mapped, or read.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use memmap2::{Mmap, MmapMut};

use crate::format::{FormatError, Model};

/// A model file in memory. [`ModelFile::open`] maps it: its pages are read when they are first used, and
/// shared with every other process that maps the same file. [`ModelFile::read`] makes a private copy.
///
/// ```no_run
/// let file = bertlet::ModelFile::open("minilm.bertlet")?;
/// println!("{} layers", file.model().config().num_hidden_layers);
/// # Ok::<(), bertlet::OpenError>(())
/// ```
#[derive(Debug)]
pub struct ModelFile {
    path: PathBuf,
    map: Mmap,
    /// Validated once; its bytes are `map`'s.
    model: Model<'static>,
}

/// Why a file could not be opened as a model. Displays the file's name first.
#[derive(Debug)]
pub struct OpenError {
    path: PathBuf,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    System(io::Error),
    NotRegular,
    Format(FormatError),
}

impl OpenError {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// What is wrong with its contents, if that was the reason.
    pub fn format(&self) -> Option<&FormatError> {
        match &self.cause {
            Cause::Format(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        match &self.cause {
            Cause::System(error) if error.kind() == io::ErrorKind::NotFound => {
                f.write_str("no such file; make one with bertlet-convert")
            }
            Cause::System(error) => error.fmt(f),
            Cause::NotRegular => {
                f.write_str("not a regular file; give the path of a file that can be mapped")
            }
            Cause::Format(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::System(error) => Some(error),
            Cause::NotRegular => None,
            Cause::Format(error) => Some(error),
        }
    }
}

impl ModelFile {
    /// Maps a file and validates it as [`Model::from_bytes`] does: header and section table are
    /// read, no weight is.
    ///
    /// While it is mapped, nobody may shorten or overwrite the file in place: the operating system
    /// would stop the process, or the answers would change. Replace it by renaming another file to
    /// its name, as the converter does, or use [`ModelFile::read`].
    ///
    /// # Errors
    /// [`OpenError`], which names the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::with(path.as_ref(), read_only)
    }

    /// Reads a file into memory of this process, and validates it as [`Model::from_bytes`] does. What
    /// happens to the file afterwards changes nothing. For files that others may shorten or overwrite; it
    /// takes time and memory for the whole file.
    ///
    /// # Errors
    /// [`OpenError`], which names the file.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::with(path.as_ref(), copy)
    }

    fn with(path: &Path, load: fn(&File) -> io::Result<Mmap>) -> Result<Self, OpenError> {
        let load = || {
            // Asked before opening, which would wait for the other end of a pipe.
            if !std::fs::metadata(path).map_err(Cause::System)?.is_file() {
                return Err(Cause::NotRegular);
            }
            let map = File::open(path).and_then(|file| load(&file)).map_err(Cause::System)?;
            let model = Model::from_bytes(&map).map_err(Cause::Format)?.over(&[]);
            Ok((map, model))
        };
        let path = path.to_owned();
        match load() {
            Ok((map, model)) => Ok(Self { path, map, model }),
            Err(cause) => Err(OpenError { path, cause }),
        }
    }

    /// The model.
    pub fn model(&self) -> Model<'_> {
        self.model.over(&self.map)
    }

    /// The file's path, as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The contents of a file, in anonymous pages.
fn copy(mut file: &File) -> io::Result<Mmap> {
    let length = usize::try_from(file.metadata()?.len());
    let mut map = MmapMut::map_anon(length.map_err(|_| io::ErrorKind::OutOfMemory)?)?;
    file.read_exact(&mut map)?;
    map.make_read_only()
}

#[allow(unsafe_code)]
fn read_only(file: &File) -> io::Result<Mmap> {
    // SAFETY: the map is private and read-only, so this process cannot change it. Another one can,
    // by writing to the file; `ModelFile::open` asks for that not to be done. All bytes are plain
    // numbers, of which any value is valid, so even then the worst is a wrong answer.
    unsafe { Mmap::map(file) }
}
