//! TensorFlow's checkpoints (`PREFIX.index`, `PREFIX.data-NNNNN-of-NNNNN`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;

use super::dtype::DType;
use super::files::Files;
use super::map::Map;
use super::sstable;
use super::storage::Storage;
use super::tensors::{MAX_RANK, Tensor, TensorInfo, Tensors};
use crate::error::{Error, Result};

/// Limit for the data files of a checkpoint.
const MAX_SHARDS: i32 = 10_000;

/// The value of the empty key.
#[derive(Clone, PartialEq, Message)]
struct BundleHeader {
    #[prost(int32, tag = "1")]
    num_shards: i32,
    /// 0: little, 1: big.
    #[prost(int32, tag = "2")]
    endianness: i32,
}

/// The value of a tensor's name: where the tensor is.
#[derive(Clone, PartialEq, Message)]
struct BundleEntry {
    #[prost(int32, tag = "1")]
    dtype: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<TensorShape>,
    #[prost(int32, tag = "3")]
    shard_id: i32,
    #[prost(int64, tag = "4")]
    offset: i64,
    #[prost(int64, tag = "5")]
    size: i64,
    #[prost(fixed32, tag = "6")]
    crc32c: u32,
    /// The parts of a tensor that is stored in slices.
    #[prost(message, repeated, tag = "7")]
    slices: Vec<TensorSlice>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorShape {
    #[prost(message, repeated, tag = "2")]
    dim: Vec<TensorDim>,
    #[prost(bool, tag = "3")]
    unknown_rank: bool,
}

#[derive(Clone, PartialEq, Message)]
struct TensorDim {
    #[prost(int64, tag = "1")]
    size: i64,
}

#[derive(Clone, PartialEq, Message)]
struct TensorSlice {}

/// Adds the tensors of the checkpoint whose index is `index`.
pub(super) fn read(index: &Path, files: &mut Files, tensors: &mut Tensors) -> Result<()> {
    let map = files.map(index)?;
    let failed = |field: &str, problem: String| Error::new(index, field, problem);
    let entries = sstable::read(&map).map_err(|p| failed("", p))?;
    let Some(((key, header), entries)) = entries.split_first() else {
        return Err(failed("header", "is missing".into()));
    };
    let header = BundleHeader::decode(header.as_slice())
        .ok()
        .filter(|h| key.is_empty() && (1..=MAX_SHARDS).contains(&h.num_shards))
        .ok_or_else(|| failed("header", "is not valid".into()))?;
    if header.endianness != 0 {
        return Err(failed("header", "the tensors are not little endian".into()));
    }

    let mut shards = Shards { index, count: header.num_shards, open: BTreeMap::new() };
    // (shard, start, end) of every tensor: they may not overlap.
    let mut ranges = Vec::new();
    for (key, value) in entries {
        // Keys of slices are binary. The entry of the whole tensor comes first and is refused.
        let name = String::from_utf8_lossy(key);
        let entry = BundleEntry::decode(value.as_slice())
            .map_err(|e| failed(&name, format!("its entry is not valid: {e}")))?;
        let info = TensorInfo {
            name: name.to_string(),
            dtype: dtype(entry.dtype),
            shape: shape(&entry).map_err(|p| failed(&name, p))?,
            file: index.to_owned(),
        };
        if !entry.slices.is_empty() || key.starts_with(&[0]) {
            return Err(info
                .error("is stored in slices")
                .hint("save the checkpoint without a partitioner"));
        }
        let shard = shards.get(entry.shard_id, files)?;
        let range = u64::try_from(entry.offset).ok().zip(u64::try_from(entry.size).ok());
        let storage = range
            .and_then(|(offset, size)| Storage::mapped(&shard, offset, size))
            .ok_or_else(|| {
                info.error(format!(
                    "its {} bytes at {} lie outside {}",
                    entry.size,
                    entry.offset,
                    shard.path().display()
                ))
            })?;
        if storage.len() > 0 {
            ranges.push((entry.shard_id, entry.offset, entry.offset + entry.size));
        }
        tensors.push(Tensor::whole(info, storage)?.with_checksum(entry.crc32c))?;
    }
    ranges.sort_unstable();
    if ranges.windows(2).any(|w| w[0].0 == w[1].0 && w[0].2 > w[1].1) {
        return Err(failed("", "its tensors overlap".into()));
    }
    Ok(())
}

/// The data files, mapped at their first use.
struct Shards<'a> {
    index: &'a Path,
    count: i32,
    open: BTreeMap<i32, Arc<Map>>,
}

impl Shards<'_> {
    fn get(&mut self, id: i32, files: &mut Files) -> Result<Arc<Map>> {
        if let Some(map) = self.open.get(&id) {
            return Ok(map.clone());
        }
        if !(0..self.count).contains(&id) {
            return Err(Error::new(
                self.index,
                "shard_id",
                format!("{id} is not below {}", self.count),
            ));
        }
        let map = files.map(&data_file(self.index, id, self.count))?;
        self.open.insert(id, map.clone());
        Ok(map)
    }
}

/// `PREFIX.data-00000-of-00001` for `PREFIX.index`.
fn data_file(index: &Path, id: i32, count: i32) -> PathBuf {
    index.with_extension(format!("data-{id:05}-of-{count:05}"))
}

fn shape(entry: &BundleEntry) -> std::result::Result<Vec<usize>, String> {
    let Some(shape) = &entry.shape else {
        return Ok(Vec::new());
    };
    if shape.unknown_rank || shape.dim.len() > MAX_RANK {
        return Err("has an impossible shape".into());
    }
    let size =
        |d: &TensorDim| usize::try_from(d.size).map_err(|_| format!("has a size of {}", d.size));
    shape.dim.iter().map(size).collect()
}

/// TensorFlow's `DataType`.
fn dtype(code: i32) -> DType {
    match code {
        1 => DType::F32,
        2 => DType::F64,
        3 => DType::I32,
        4 => DType::U8,
        5 => DType::I16,
        6 => DType::I8,
        7 => DType::Other("string".into()),
        9 => DType::I64,
        10 => DType::Bool,
        14 => DType::BF16,
        19 => DType::F16,
        other => DType::Other(format!("DataType {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::checksum;
    use super::*;

    /// A table of one plain block.
    fn table(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
        fn block(entries: &[(&[u8], &[u8])]) -> Vec<u8> {
            let mut block = Vec::new();
            for (key, value) in entries {
                for n in [0, key.len(), value.len()] {
                    prost::encoding::encode_varint(n as u64, &mut block);
                }
                block.extend_from_slice(key);
                block.extend_from_slice(value);
            }
            block.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0, 0]);
            let masked = checksum::masked(&block);
            block.extend_from_slice(&masked.to_le_bytes());
            block
        }
        fn handle(offset: usize, end: usize) -> Vec<u8> {
            let mut handle = Vec::new();
            prost::encoding::encode_varint(offset as u64, &mut handle);
            prost::encoding::encode_varint((end - offset - 5) as u64, &mut handle);
            handle
        }
        let entries: Vec<_> = entries.iter().map(|(k, v)| (k.as_bytes(), &v[..])).collect();
        let mut file = block(&entries);
        let data = handle(0, file.len());
        let start = file.len();
        file.extend(block(&[(b"~", &data)]));
        let mut footer = [data, handle(start, file.len())].concat();
        footer.resize(40, 0);
        file.extend(footer);
        file.extend(0xdb47_7524_8b80_fb57_u64.to_le_bytes());
        file
    }

    fn header() -> BundleHeader {
        BundleHeader { num_shards: 2, endianness: 0 }
    }

    /// Two floats of shard 0.
    fn entry() -> BundleEntry {
        BundleEntry {
            dtype: 1,
            shape: Some(TensorShape { dim: vec![TensorDim { size: 2 }], unknown_rank: false }),
            shard_id: 0,
            offset: 0,
            size: 8,
            crc32c: checksum::masked(&DATA[..8]),
            slices: Vec::new(),
        }
    }

    const DATA: [u8; 12] = [0, 0, 128, 63, 0, 0, 0, 64, 0, 0, 64, 64];

    /// Reads a checkpoint of two shards, each [`DATA`].
    fn read_table(header: BundleHeader, entries: &[(&str, BundleEntry)]) -> Result<Tensors> {
        let dir = tempfile::tempdir().unwrap();
        for shard in 0..2 {
            let file = format!("m.ckpt.data-{shard:05}-of-00002");
            std::fs::write(dir.path().join(file), DATA).unwrap();
        }
        let mut all = vec![("", header.encode_to_vec())];
        all.extend(entries.iter().map(|(name, e)| (*name, e.encode_to_vec())));
        let index = dir.path().join("m.ckpt.index");
        std::fs::write(&index, table(&all)).unwrap();
        let mut tensors = Tensors::default();
        read(&index, &mut Files::default(), &mut tensors)?;
        Ok(tensors)
    }

    #[test]
    fn tensors_are_found_in_their_shards() {
        let other = BundleEntry { shard_id: 1, ..entry() };
        let scalar = BundleEntry {
            shape: None,
            offset: 8,
            size: 4,
            crc32c: checksum::masked(&DATA[8..]),
            ..entry()
        };
        let entries = [("a", entry()), ("b", other), ("c", scalar)];
        let tensors = read_table(header(), &entries).unwrap();
        let read = |name| tensors.read_f32(name, Path::new("")).unwrap();
        assert_eq!(read("a"), [1.0, 2.0]);
        assert_eq!(read("b"), [1.0, 2.0]);
        assert_eq!(read("c"), [3.0]);
    }

    #[test]
    fn entries_are_not_believed() {
        type Change = fn(&mut BundleEntry);
        let changes: &[(&str, Change)] = &[
            ("a: is stored in slices", |e| e.slices.push(TensorSlice {})),
            ("a: its 8 bytes at 8 lie outside", |e| e.offset = 8),
            ("lie outside", |e| e.offset = -1),
            ("lie outside", |e| e.size = -1),
            ("lie outside", |e| (e.offset, e.size) = (i64::MAX, i64::MAX)),
            ("does not fill", |e| e.size = 4),
            ("does not fill", |e| e.dtype = 2),
            ("a: has a size of -1", |e| e.shape.as_mut().unwrap().dim[0].size = -1),
            ("impossible shape", |e| e.shape.as_mut().unwrap().unknown_rank = true),
            ("impossible shape", |e| {
                e.shape.as_mut().unwrap().dim = vec![TensorDim { size: 1 }; MAX_RANK + 1];
            }),
            ("a: impossible shape", |e| {
                e.shape.as_mut().unwrap().dim = vec![TensorDim { size: i64::MAX }; 4];
            }),
            ("shard_id: 2 is not below 2", |e| e.shard_id = 2),
            ("shard_id: -1 is not", |e| e.shard_id = -1),
        ];
        for (part, change) in changes {
            let mut e = entry();
            change(&mut e);
            let message = read_table(header(), &[("a", e)]).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
        let twice = [("a", entry()), ("b", entry())];
        let message = read_table(header(), &twice).unwrap_err().to_string();
        assert!(message.contains("its tensors overlap"), "{message}");
        let backwards = [("b", entry()), ("a", entry())];
        assert!(read_table(header(), &backwards).is_err());
        // A string is listed (it may be dropped), but cannot be read.
        let string = BundleEntry { dtype: 7, ..entry() };
        let tensors = read_table(header(), &[("a", string)]).unwrap();
        assert!(tensors.read_f32("a", Path::new("")).is_err());
    }

    #[test]
    fn headers_are_checked() {
        for (num_shards, endianness) in [(0, 0), (-1, 0), (i32::MAX, 0), (2, 1)] {
            let header = BundleHeader { num_shards, endianness };
            let message = read_table(header, &[("a", entry())]).unwrap_err().to_string();
            assert!(message.contains("m.ckpt.index: header: "), "{message}");
        }
        // Fewer files than the header says.
        let missing = BundleHeader { num_shards: 3, endianness: 0 };
        let message = read_table(missing, &[("a", entry())]).unwrap_err().to_string();
        assert!(message.contains("data-00000-of-00003: cannot be read"), "{message}");
    }

    #[test]
    fn data_files_are_named_after_the_index() {
        assert_eq!(
            data_file(Path::new("d/model.ckpt-7.index"), 1, 3),
            Path::new("d/model.ckpt-7.data-00001-of-00003")
        );
    }
}
