//! Bytes of a checkpoint's files: mapped, or in a compressed entry of a zip file.

use std::io::{Cursor, Read};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use zip::read::ZipArchive;

use super::map::Map;

/// Bytes that one or several tensors are views of.
#[derive(Clone, Debug)]
pub(super) enum Storage {
    /// Bytes of a mapped file.
    Mapped(Arc<Map>, Range<usize>),
    /// A compressed entry of a mapped zip file.
    Deflated(Deflated),
}

/// A compressed entry of a zip file.
#[derive(Clone, Debug)]
pub(super) struct Deflated {
    /// The zip file.
    pub map: Arc<Map>,
    /// Index of the entry.
    pub entry: usize,
    /// Size of the decompressed entry in bytes, as the zip file states it.
    pub len: usize,
}

impl Storage {
    /// `len` bytes of a mapped file from `start` on; `None` unless all of them lie inside the file.
    pub(super) fn mapped(map: &Arc<Map>, start: u64, len: u64) -> Option<Self> {
        let start = usize::try_from(start).ok()?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        (end <= map.len()).then(|| Self::Mapped(map.clone(), start..end))
    }

    /// Size in bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Mapped(_, range) => range.len(),
            Self::Deflated(deflated) => deflated.len,
        }
    }

    /// A copy of the bytes.
    pub(super) fn to_vec(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::Mapped(map, range) => {
                let mut bytes = reserved(range.len())?;
                bytes.extend_from_slice(&map[range.clone()]);
                Ok(bytes)
            }
            Self::Deflated(deflated) => deflated.inflate(),
        }
    }
}

impl Deflated {
    /// Decompresses the entry. Anything but the stated size is an error.
    fn inflate(&self) -> Result<Vec<u8>, String> {
        let mut zip = open_zip(&self.map)?;
        let file = zip.by_index(self.entry).map_err(|e| e.to_string())?;
        let mut bytes = reserved(self.len)?;
        let read = file.take(self.len as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|e| format!("cannot be decompressed: {e}"))?;
        if bytes.len() != self.len {
            return Err(format!("does not decompress to {} bytes", self.len));
        }
        Ok(bytes)
    }
}

/// An empty vector with room for `count` values, or an error instead of an abort.
pub(super) fn reserved<T>(count: usize) -> Result<Vec<T>, String> {
    let mut values = Vec::new();
    match values.try_reserve_exact(count) {
        Ok(()) => Ok(values),
        Err(_) => Err(format!("not enough memory for {count} values")),
    }
}

/// Opens a mapped zip file.
pub(super) fn open_zip(map: &Map) -> Result<ZipArchive<Cursor<&[u8]>>, String> {
    ZipArchive::new(Cursor::new(&map[..])).map_err(|e| format!("{e}: is the download complete?"))
}

/// Keeps the entry that was decompressed last: many tensors may be views of one.
#[derive(Debug, Default)]
pub(super) struct InflateCache(Mutex<Option<Inflated>>);

/// A decompressed entry.
#[derive(Debug)]
struct Inflated {
    file: PathBuf,
    entry: usize,
    bytes: Arc<Vec<u8>>,
}

impl InflateCache {
    /// The bytes of a compressed entry.
    pub(super) fn get(&self, deflated: &Deflated) -> Result<Arc<Vec<u8>>, String> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(inflated) = &*last
            && inflated.entry == deflated.entry
            && inflated.file == deflated.map.path()
        {
            return Ok(inflated.bytes.clone());
        }
        // Free the old entry first, so that only one is in memory at a time.
        *last = None;
        let bytes = Arc::new(deflated.inflate()?);
        let file = deflated.map.path().to_owned();
        *last = Some(Inflated { file, entry: deflated.entry, bytes: bytes.clone() });
        Ok(bytes)
    }
}
