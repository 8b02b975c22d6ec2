//! Files that appear only when they are whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A file written under a temporary name in the folder of its path, and renamed to the path by
/// [`AtomicFile::finish`]. Until then the path keeps what it had. Dropping the file before removes it.
///
/// A path that cannot be replaced, such as a device, is written in place.
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
    path: PathBuf,
    /// `None` once the file has its name, and for what is written in place.
    temporary: Option<PathBuf>,
}

/// Makes names of this process unique.
static COUNT: AtomicU32 = AtomicU32::new(0);

impl AtomicFile {
    /// Starts a file.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(path: &Path) -> io::Result<Self> {
        if std::fs::metadata(path).is_ok_and(|about| !about.is_file()) {
            let file = OpenOptions::new().write(true).open(path)?;
            return Ok(Self { file, path: path.to_owned(), temporary: None });
        }
        let mut how = OpenOptions::new();
        // Nobody else's file or link is opened, whatever its name. Readable, as parts may be read again.
        how.read(true).write(true).create_new(true);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{}-{count}.tmp", std::process::id()));
            let name = PathBuf::from(name);
            match how.open(&name) {
                Ok(file) => {
                    return Ok(Self { file, path: path.to_owned(), temporary: Some(name) });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The file, to read or to seek in.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Gives the file its name, once its bytes and then the name are on the disk.
    ///
    /// # Errors
    /// Those of the file system; then the path has what it had.
    pub fn finish(mut self) -> io::Result<()> {
        let Some(temporary) = &self.temporary else { return Ok(()) };
        self.file.sync_all()?;
        std::fs::rename(temporary, &self.path)?;
        self.temporary = None;
        #[cfg(unix)]
        {
            let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
            // Some file systems cannot synchronise a folder; the file is whole all the same.
            let _ = File::open(folder.unwrap_or(Path::new("."))).and_then(|f| f.sync_all());
        }
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // Whoever dropped the file has an error of their own to report.
            let _ = std::fs::remove_file(temporary);
        }
    }
}
