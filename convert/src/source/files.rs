//! The files of a checkpoint, recorded with size and hash.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::hints;
use super::map::Map;
use crate::error::{Error, Result};

/// Limit for text and JSON files in bytes. The largest vocabulary of a BERT takes some megabytes.
const MAX_TEXT: usize = 64 << 20;

/// A file that was read, for the provenance of the model file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRecord {
    /// Path of the file.
    pub path: PathBuf,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the contents.
    pub sha256: [u8; 32],
}

impl FileRecord {
    /// The hash in hexadecimal, as `sha256sum` prints it.
    pub fn sha256_hex(&self) -> String {
        self.sha256.iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// SHA-256 of a file, without keeping it in memory.
fn hash(map: &Map) -> [u8; 32] {
    const CHUNK: usize = 4 << 20;
    let mut hasher = Sha256::new();
    for (i, chunk) in map.chunks(CHUNK).enumerate() {
        hasher.update(chunk);
        map.release(i * CHUNK..i * CHUNK + chunk.len());
    }
    hasher.finalize().into()
}

/// Opens files and records them.
#[derive(Debug, Default)]
pub(super) struct Files {
    records: Vec<FileRecord>,
}

impl Files {
    /// Maps a file.
    pub(super) fn map(&mut self, path: &Path) -> Result<Arc<Map>> {
        let map = Map::open(path)?;
        if let Some((what, hint)) = hints::about_bytes(&map[..map.len().min(512)]) {
            return Err(Error::new(path, "", what).hint(hint));
        }
        if self.records.iter().all(|r| r.path != path) {
            self.records.push(FileRecord {
                path: path.to_owned(),
                size: map.len() as u64,
                sha256: hash(&map),
            });
        }
        Ok(Arc::new(map))
    }

    /// A text file.
    pub(super) fn text(&mut self, path: &Path) -> Result<String> {
        let map = self.map(path)?;
        if map.len() > MAX_TEXT {
            return Err(Error::new(path, "", "is too large for a file of this name"));
        }
        String::from_utf8(map.to_vec()).map_err(|e| {
            Error::new(path, "", format!("is not UTF-8: {e}")).hint("save it as UTF-8")
        })
    }

    /// A JSON file.
    pub(super) fn json(&mut self, path: &Path) -> Result<Value> {
        serde_json::from_str(&self.text(path)?)
            .map_err(|e| Error::new(path, "", format!("is not valid JSON: {e}")))
    }

    /// A JSON file. `None` if it does not exist.
    pub(super) fn json_if_there(&mut self, path: &Path) -> Result<Option<Value>> {
        if path.exists() { self.json(path).map(Some) } else { Ok(None) }
    }

    /// Bytes of all files that were read.
    pub(super) fn bytes(&self) -> u64 {
        self.records.iter().map(|record| record.size).sum()
    }

    /// The files that were read.
    pub(super) fn into_records(self) -> Vec<FileRecord> {
        self.records
    }
}

/// `folder/name`, where `name` comes from a file and must not lead out of the folder.
pub(super) fn inside(folder: &Path, name: &str, said_by: &Path, field: &str) -> Result<PathBuf> {
    let mut components = Path::new(name).components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(only)), None) if only == name && !name.contains('\\') => {
            Ok(folder.join(name))
        }
        _ => Err(Error::new(
            said_by,
            field,
            format!("{name:?} is not the name of a file in the same folder"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_the_folder() {
        let ok = |name: &str| inside(Path::new("d"), name, Path::new("i"), "f").is_ok();
        assert!(ok("model-00001-of-00002.safetensors"));
        for bad in
            ["", ".", "..", "../x", "/etc/passwd", "a/b", "./a", "a/", "a\\b", "..\\x", "a/.."]
        {
            assert!(!ok(bad), "{bad}");
        }
    }

    #[test]
    fn records_hold_the_hash() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        let mut files = Files::default();
        assert_eq!(files.text(file.path()).unwrap(), "abc");
        files.map(file.path()).unwrap();
        let records = files.into_records();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].size, 3);
        assert!(records[0].sha256_hex().starts_with("ba7816bf8f01cfea"));
    }

    #[test]
    fn long_files_are_hashed_in_pieces_and_stay_readable() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..9_000_001_u32).map(|i| (i >> 8) as u8).collect();
        std::fs::write(file.path(), &bytes).unwrap();
        let map = Map::open(file.path()).unwrap();
        let expected: [u8; 32] = Sha256::digest(&bytes).into();
        assert_eq!(hash(&map), expected);
        assert!(map[..] == bytes[..]);
        map.release(5000..20_000);
        map.release(0..usize::MAX);
        assert!(map[..] == bytes[..]);
    }
}
