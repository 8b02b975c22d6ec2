//! TensorFlow's checkpoints (`PREFIX.index`, `PREFIX.data-NNNNN-of-NNNNN`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;

use super::dtype::DType;
use super::files::Files;
use super::map::Map;
use super::sstable;
use super::tensors::{MAX_RANK, Storage, Tensor, TensorInfo, Tensors};
use crate::error::{Error, Result};

/// Most data files of a checkpoint.
const MAX_SHARDS: i32 = 10_000;

/// The entry of the empty key.
#[derive(Clone, PartialEq, Message)]
struct BundleHeader {
    #[prost(int32, tag = "1")]
    num_shards: i32,
    /// 0: little, 1: big.
    #[prost(int32, tag = "2")]
    endianness: i32,
}

/// Where one tensor is.
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
    /// Where the tensor is stored in parts, what they cover.
    #[prost(message, repeated, tag = "7")]
    slices: Vec<TensorSlice>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorShape {
    #[prost(message, repeated, tag = "2")]
    dim: Vec<Dim>,
    #[prost(bool, tag = "3")]
    unknown_rank: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Dim {
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
        // Keys of slices are binary; the entry of the whole tensor is refused before them.
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
                .mend("save the checkpoint without a partitioner"));
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

/// The data files, mapped when first needed.
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
    let size = |d: &Dim| usize::try_from(d.size).map_err(|_| format!("has a size of {}", d.size));
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

/// Compares bytes with their masked CRC-32C.
pub(super) fn verify(bytes: &[u8], masked: u32) -> std::result::Result<(), String> {
    let expected = masked.wrapping_sub(0xa282_ead8).rotate_left(15);
    if crc32c(bytes) == expected {
        Ok(())
    } else {
        Err("its checksum is wrong: the file is damaged".into())
    }
}

/// CRC-32 with Castagnoli's polynomial.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut crc = i as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, &b| (crc >> 8) ^ TABLE[(crc as u8 ^ b) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(b""), 0);
        // Masked as LevelDB does: rotated right by 15, plus a constant.
        let masked = 0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8);
        assert!(verify(b"123456789", masked).is_ok());
        assert!(verify(b"123456780", masked).is_err());
    }

    #[test]
    fn data_files_are_named_after_the_index() {
        assert_eq!(
            data_file(Path::new("d/model.ckpt-7.index"), 1, 3),
            Path::new("d/model.ckpt-7.data-00001-of-00003")
        );
    }
}
