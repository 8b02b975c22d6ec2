//! Read-only memory maps of checkpoint files: the only `unsafe` of the converter's readers.

#![allow(unsafe_code)]

use std::fs::File;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::{Error, Result};

/// The bytes of one file, mapped rather than read: only what is touched takes memory.
#[derive(Debug)]
pub(super) struct Map {
    path: PathBuf,
    /// `None` for an empty file, which cannot be mapped everywhere.
    map: Option<Mmap>,
}

impl Map {
    /// Maps `path`, which must be a regular file (a pipe would block for ever).
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |e: std::io::Error| Error::new(path, "", format!("cannot be read: {e}"));
        let metadata = std::fs::metadata(path).map_err(failed)?;
        if !metadata.is_file() {
            return Err(Error::new(path, "", "is not a regular file"));
        }
        let file = File::open(path).map_err(failed)?;
        let map = if metadata.len() == 0 {
            None
        } else {
            // SAFETY: the map is private and read-only, and lives as long as `self`. Rust cannot
            // rule out that another process rewrites the file meanwhile; as everywhere else where
            // checkpoints are mapped, the user must not change a file while it is converted.
            Some(unsafe { Mmap::map(&file) }.map_err(failed)?)
        };
        Ok(Self { path: path.to_owned(), map })
    }

    /// Gives the memory of `range` back to the system; it is read from the file again if needed.
    /// Else a converter that has read the whole file would hold it a second time.
    pub(super) fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Some(map) = &self.map
            && !range.is_empty()
            && range.end <= map.len()
        {
            let advice = memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: nobody writes to the map, so the pages that are dropped are those of the
            // file, and come back with the same bytes. A refusal only costs memory.
            let _ = unsafe { map.unchecked_advise_range(advice, range.start, range.len()) };
        }
        #[cfg(not(unix))]
        let _ = range;
    }

    /// Where the bytes came from.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }
}
