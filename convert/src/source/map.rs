//! Read-only memory maps of checkpoint files: the only `unsafe` code of the checkpoint readers.

#![allow(unsafe_code)]

use std::fs::File;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::{Error, Result};

/// The bytes of a file, mapped. Only the pages in use take memory.
#[derive(Debug)]
pub(super) struct Map {
    path: PathBuf,
    /// `None` for an empty file, which some systems cannot map.
    map: Option<Mmap>,
}

impl Map {
    /// Maps `path`, which must be a regular file: a pipe would block.
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
            // prevent another process from changing the file. As with every program that maps
            // checkpoints, the user must not change a file while it is converted.
            Some(unsafe { Mmap::map(&file) }.map_err(failed)?)
        };
        Ok(Self { path: path.to_owned(), map })
    }

    /// Returns the memory of `range` to the system, which reads it from the file again if needed. Otherwise the
    /// whole file would stay in memory next to the model.
    pub(super) fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Some(map) = &self.map
            && !range.is_empty()
            && range.end <= map.len()
        {
            let advice = memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: the map is read-only, so the dropped pages equal those of the file and are read
            // again with the same bytes. An error only costs memory.
            let _ = unsafe { map.unchecked_advise_range(advice, range.start, range.len()) };
        }
        #[cfg(not(unix))]
        let _ = range;
    }

    /// Path of the file.
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
