//! Files that appear only when they are whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::temporary::{self, Temporary, folder};

/// A file written under a temporary name in the folder of its path, and renamed to the path by
/// [`AtomicFile::finish`]. Until then the path keeps what it had. Dropping the file before removes it.
///
/// * A symbolic link stays, and the file that it names is replaced. A replaced file's mode stays too.
/// * Devices, pipes and `/dev/stdout` are written in place, never replaced.
/// * The temporary name cannot be guessed, and nothing that exists is opened under it. What a killed process
///   left is removed by the next one that writes to the same path (on Unix).
///
/// ```no_run
/// use std::io::Write;
///
/// let mut file = bertlet::AtomicFile::create("answers.jsonl".as_ref())?;
/// file.write_all(b"{}\n")?;
/// file.finish()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct AtomicFile {
    file: File,
    /// `None` for what is written in place.
    replaces: Option<Replaces>,
}

#[derive(Debug)]
struct Replaces {
    temporary: Temporary,
    /// The path, through symbolic links.
    target: PathBuf,
}

/// What a path leads to.
enum Place {
    /// A regular file, or none yet.
    File(PathBuf),
    /// A stream of this process, by its number.
    Stream(u8),
    /// A device, a pipe, or an open file that only the system names.
    Other,
}

impl Place {
    fn of(path: &Path) -> io::Result<Self> {
        let text = path.as_os_str().as_encoded_bytes();
        match fs::metadata(path) {
            Ok(about) if about.is_dir() => return Err(ErrorKind::IsADirectory.into()),
            _ if text.ends_with(b"/") || path.file_name().is_none() => {
                return Err(ErrorKind::IsADirectory.into());
            }
            Ok(about) if !about.is_file() => {
                return Ok(stream(path).map_or(Self::Other, Self::Stream));
            }
            _ => {}
        }
        let mut target = path.to_owned();
        // As many links as Linux follows.
        for _ in 0..40 {
            if let Some(number) = stream(&target) {
                return Ok(Self::Stream(number));
            }
            // The links there name what is open. Its own name may lead elsewhere by now.
            if target.starts_with("/proc") || target.starts_with("/dev/fd") {
                return Ok(Self::Other);
            }
            match fs::read_link(&target) {
                Ok(link) => target = folder(&target).join(link),
                Err(_) => return Ok(Self::File(target)),
            }
        }
        Err(io::Error::other("too many symbolic links"))
    }
}

/// 1 for a name of stdout, 2 for one of stderr.
fn stream(path: &Path) -> Option<u8> {
    const NAMES: [(u8, [&str; 3]); 2] = [
        (1, ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"]),
        (2, ["/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"]),
    ];
    let named = |(_, names): &&(u8, [&str; 3])| names.iter().any(|name| Path::new(name) == path);
    NAMES.iter().find(named).map(|(number, _)| *number)
}

impl AtomicFile {
    /// Starts a file.
    ///
    /// # Errors
    /// Those of the file system. A folder that is missing, and a path that names a folder, are errors.
    pub fn create(path: &Path) -> io::Result<Self> {
        let target = match Place::of(path)? {
            Place::File(target) => target,
            Place::Stream(1) => return Self::stdout(),
            Place::Stream(_) => {
                return Ok(Self { file: own(&io::stderr())?, replaces: None });
            }
            Place::Other => {
                let file = OpenOptions::new().write(true).truncate(true).open(path)?;
                return Ok(Self { file, replaces: None });
            }
        };
        if !folder(&target).is_dir() {
            let problem = format!("the folder {} does not exist", folder(&target).display());
            return Err(io::Error::new(ErrorKind::NotFound, problem));
        }
        let replaced = fs::metadata(&target).ok();
        let (file, temporary) = Temporary::create(&target, replaced.is_some())?;
        if let Some(about) = replaced {
            keep(&about, &file);
        }
        Ok(Self { file, replaces: Some(Replaces { temporary, target }) })
    }

    /// Writes to stdout, without a buffer.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn stdout() -> io::Result<Self> {
        Ok(Self { file: own(&io::stdout())?, replaces: None })
    }

    /// Whether [`AtomicFile::create`] would work, before work that takes long. It leaves no file.
    ///
    /// # Errors
    /// Those of [`AtomicFile::create`].
    pub fn check(path: &Path) -> io::Result<()> {
        match Place::of(path)? {
            Place::File(_) => Self::create(path).map(drop),
            // Opening a pipe would be seen at its other end.
            Place::Stream(_) | Place::Other => Ok(()),
        }
    }

    /// Whether writing to `path` would replace or overwrite the file `read`, under any of its names.
    pub fn would_replace(path: &Path, read: &Path) -> bool {
        let file = |path| fs::metadata(path).ok().filter(fs::Metadata::is_file);
        match (file(path), file(read)) {
            #[cfg(unix)]
            (Some(a), Some(b)) => {
                use std::os::unix::fs::MetadataExt;
                (a.dev(), a.ino()) == (b.dev(), b.ino())
            }
            #[cfg(not(unix))]
            (Some(_), Some(_)) => {
                matches!((path.canonicalize(), read.canonicalize()), (Ok(a), Ok(b)) if a == b)
            }
            _ => false,
        }
    }

    /// Removes the temporary files of this process when SIGINT, SIGTERM or SIGHUP ends it. A signal that
    /// is ignored stays ignored. For programs, at their start: threads that run already are not covered.
    /// Writing beyond a limit of file sizes is an error from then on, not a signal. Does nothing outside
    /// Unix.
    pub fn remove_on_signals() {
        temporary::remove_on_signals();
    }

    /// The file, to read or to seek in.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Where the bytes are before [`AtomicFile::finish`]; `None` for what is written in place, where nothing
    /// can be read again.
    pub fn temporary_path(&self) -> Option<&Path> {
        self.replaces.as_ref().map(|replaces| replaces.temporary.path())
    }

    /// A file without a name for what must wait: in the same folder, or in the system's for temporary files
    /// where this file is written in place.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn spool(&self) -> io::Result<File> {
        let (file, temporary) = match &self.replaces {
            Some(replaces) => Temporary::create(&replaces.target, true)?,
            None => Temporary::create(&std::env::temp_dir().join("spool"), true)?,
        };
        drop(temporary);
        Ok(file)
    }

    /// Gives the file its name, once its bytes and then the name are on the disk.
    ///
    /// # Errors
    /// Those of the file system; then the path has what it had.
    pub fn finish(self) -> io::Result<()> {
        let Some(Replaces { temporary, target }) = self.replaces else { return Ok(()) };
        self.file.sync_all()?;
        temporary.rename(&target)?;
        // Some file systems cannot synchronise a folder; the file is whole all the same.
        #[cfg(unix)]
        let _ = File::open(folder(&target)).and_then(|folder| folder.sync_all());
        Ok(())
    }
}

/// Gives a file the owner and the mode of the one that it replaces, as far as the system allows it.
#[cfg(unix)]
fn keep(replaced: &fs::Metadata, file: &File) {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    if file.metadata().is_ok_and(|own| (own.uid(), own.gid()) != (replaced.uid(), replaced.gid())) {
        let _ = fchown(file, Some(replaced.uid()), Some(replaced.gid()));
    }
    let _ = file.set_permissions(fs::Permissions::from_mode(replaced.mode() & 0o777));
}

#[cfg(not(unix))]
fn keep(_: &fs::Metadata, _: &File) {}

/// A file of its own for a stream.
#[cfg(unix)]
fn own(stream: &impl std::os::fd::AsFd) -> io::Result<File> {
    Ok(stream.as_fd().try_clone_to_owned()?.into())
}

#[cfg(windows)]
fn own(stream: &impl std::os::windows::io::AsHandle) -> io::Result<File> {
    Ok(stream.as_handle().try_clone_to_owned()?.into())
}

#[cfg(not(any(unix, windows)))]
fn own<T>(_: &T) -> io::Result<File> {
    Err(ErrorKind::Unsupported.into())
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
