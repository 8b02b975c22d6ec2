//! The tensors of a checkpoint: views of mapped files, converted to f32 one at a time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::checksum;
use super::dtype::DType;
use super::storage::{InflateCache, Storage, reserved};
use crate::error::{Error, Result};

/// Limit for the bytes of all tensors in f32, per byte of their files. An f16 takes two, and tied weights are
/// two views of a storage; compression is worth little for weights.
const MOST_PER_BYTE: u64 = 16;
/// Bytes of tensors that are allowed in any case.
const FREE: u64 = 1 << 20;
/// Limit for the dimensions of a tensor. Those of a BERT have at most two.
pub(super) const MAX_RANK: usize = 8;

/// The description of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name in the checkpoint.
    pub name: String,
    /// Type of the elements in the file.
    pub dtype: DType,
    /// Sizes of the dimensions, outermost first.
    pub shape: Vec<usize>,
    /// The file with the description: the weights file, the shard, or the index.
    pub file: PathBuf,
}

impl TensorInfo {
    /// An error about this tensor, naming its file.
    pub fn error(&self, problem: impl std::fmt::Display) -> Error {
        Error::new(&self.file, &self.name, problem)
    }
}

/// A tensor: a view of a storage.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    info: TensorInfo,
    storage: Storage,
    /// Index of the first element in the storage.
    offset: usize,
    /// Elements from one index to the next, per dimension; `None` for row-major.
    strides: Option<Vec<usize>>,
    /// TensorFlow's masked CRC-32C of the bytes.
    checksum: Option<u32>,
}

impl Tensor {
    /// A row-major tensor that fills its storage.
    pub(super) fn whole(info: TensorInfo, storage: Storage) -> Result<Self> {
        let elements = elements(&info)?;
        if let Some(size) = info.dtype.size()
            && elements.checked_mul(size) != Some(storage.len())
        {
            return Err(info.error(format!(
                "shape {:?} of {} does not fill the {} bytes that the file gives it",
                info.shape,
                info.dtype,
                storage.len()
            )));
        }
        Ok(Self { info, storage, offset: 0, strides: None, checksum: None })
    }

    /// A view of a storage. Every element must lie inside the storage, and the view must not repeat elements:
    /// otherwise a few bytes could become any amount of memory.
    pub(super) fn view(
        info: TensorInfo,
        storage: Storage,
        offset: usize,
        strides: Vec<usize>,
    ) -> Result<Self> {
        let elements = elements(&info)?;
        let available = storage.len() / info.dtype.size().unwrap_or(1);
        if strides.len() != info.shape.len() {
            return Err(info.error("has not as many strides as dimensions"));
        }
        let last = info.shape.iter().zip(&strides).try_fold(offset, |last, (&n, &stride)| {
            last.checked_add(n.saturating_sub(1).checked_mul(stride)?)
        });
        let inside = elements == 0 || last.is_some_and(|last| last < available);
        if !inside || elements > available {
            return Err(info.error(format!(
                "shape {:?} with strides {strides:?} at {offset} reaches outside its storage of {available} elements",
                info.shape
            )));
        }
        let contiguous = strides == row_major(&info.shape);
        Ok(Self {
            info,
            storage,
            offset,
            strides: (!contiguous).then_some(strides),
            checksum: None,
        })
    }

    /// The same with a checksum to verify when it is read.
    pub(super) fn with_checksum(self, checksum: u32) -> Self {
        Self { checksum: Some(checksum), ..self }
    }

    fn decode(&self, bytes: &[u8]) -> Result<Vec<f32>> {
        let (Some(size), Some(decode)) = (self.info.dtype.size(), self.info.dtype.decoder()) else {
            return Err(self
                .info
                .error(format!("elements of type {} are not supported", self.info.dtype)));
        };
        let outside = || self.info.error("reaches outside its storage");
        let elements = elements(&self.info)?;
        let mut out = reserved(elements).map_err(|problem| self.info.error(problem))?;
        let Some(strides) = &self.strides else {
            let start = self.offset.checked_mul(size).ok_or_else(outside)?;
            let bytes = bytes.get(start..).and_then(|b| b.get(..elements * size));
            let bytes = bytes.ok_or_else(outside)?;
            out.extend(bytes.chunks_exact(size).map(decode));
            return Ok(out);
        };
        let mut index = vec![0; self.info.shape.len()];
        for _ in 0..elements {
            let at: usize = index.iter().zip(strides).map(|(i, s)| i * s).sum();
            let start = (self.offset + at) * size;
            out.push(decode(bytes.get(start..start + size).ok_or_else(outside)?));
            for (i, &n) in index.iter_mut().zip(&self.info.shape).rev() {
                *i += 1;
                if *i < n {
                    break;
                }
                *i = 0;
            }
        }
        Ok(out)
    }
}

/// The number of elements. A shape with too many dimensions or elements is an error.
fn elements(info: &TensorInfo) -> Result<usize> {
    let product = info.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    match product {
        Some(n) if info.shape.len() <= MAX_RANK && n < isize::MAX as usize / 8 => Ok(n),
        _ => Err(info.error(format!("impossible shape {:?}", info.shape))),
    }
}

/// Strides of a row-major tensor.
fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    strides
}

/// All tensors of a checkpoint, by name.
#[derive(Debug, Default)]
pub(super) struct Tensors {
    list: Vec<Tensor>,
    by_name: HashMap<String, usize>,
    inflated: InflateCache,
}

impl Tensors {
    /// Adds one; two of a name are refused, for it would be a guess which is meant.
    pub(super) fn push(&mut self, tensor: Tensor) -> Result<()> {
        let name = tensor.info.name.clone();
        if self.by_name.insert(name, self.list.len()).is_some() {
            return Err(tensor.info.error("is there twice"));
        }
        self.list.push(tensor);
        Ok(())
    }

    /// Checks that the tensors together, in f32, are no more than a small multiple of their files of `bytes`
    /// bytes. Many tensors may be views of one storage, and a storage may be compressed: otherwise a small file
    /// could become any amount of memory.
    pub(super) fn check_total(&self, file: &Path, bytes: u64) -> Result<()> {
        let total = self.list.iter().try_fold(0u64, |total, tensor| {
            let bytes = 4 * elements(&tensor.info)? as u64;
            Ok(total.saturating_add(bytes))
        })?;
        if total <= bytes.saturating_mul(MOST_PER_BYTE).saturating_add(FREE) {
            return Ok(());
        }
        Err(Error::new(
            file,
            "tensors",
            format!("take {total} bytes in f32, too much for {bytes} bytes of files"),
        )
        .hint("save each tensor with its own data, uncompressed"))
    }

    /// Every tensor, in the order of the files.
    pub(super) fn infos(&self) -> impl Iterator<Item = &TensorInfo> {
        self.list.iter().map(|t| &t.info)
    }

    /// The tensor of that name.
    pub(super) fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|&i| &self.list[i].info)
    }

    /// The elements of a tensor, row-major. Without such a tensor, the error names `file`.
    pub(super) fn read_f32(&self, name: &str, file: &Path) -> Result<Vec<f32>> {
        let Some(&i) = self.by_name.get(name) else {
            return Err(Error::new(file, name, "no such tensor"));
        };
        let tensor = &self.list[i];
        match &tensor.storage {
            Storage::Mapped(map, range) => {
                let bytes = &map[range.clone()];
                if let Some(expected) = tensor.checksum {
                    checksum::verify(bytes, expected)
                        .map_err(|problem| tensor.info.error(problem))?;
                }
                let values = tensor.decode(bytes);
                map.release(range.clone());
                values
            }
            Storage::Deflated(deflated) => {
                let bytes = self.inflated.get(deflated).map_err(|p| tensor.info.error(p))?;
                tensor.decode(&bytes)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::map::Map;
    use super::*;

    fn storage(elements: usize) -> (tempfile::NamedTempFile, Storage) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..elements).flat_map(|i| (i as f32).to_le_bytes()).collect();
        std::fs::write(file.path(), &bytes).unwrap();
        let map = Arc::new(Map::open(file.path()).unwrap());
        let storage = Storage::mapped(&map, 0, bytes.len() as u64).unwrap();
        (file, storage)
    }

    fn info(shape: &[usize]) -> TensorInfo {
        TensorInfo { name: "t".into(), dtype: DType::F32, shape: shape.to_vec(), file: "f".into() }
    }

    fn read(tensor: Tensor) -> Vec<f32> {
        let mut all = Tensors::default();
        all.push(tensor).unwrap();
        all.read_f32("t", Path::new("f")).unwrap()
    }

    #[test]
    fn views_are_read_in_row_major_order() {
        let (_file, s) = storage(12);
        let t = Tensor::view(info(&[2, 3]), s.clone(), 1, vec![3, 1]).unwrap();
        assert_eq!(read(t), [1., 2., 3., 4., 5., 6.]);
        let t = Tensor::view(info(&[3, 2]), s.clone(), 0, vec![1, 3]).unwrap();
        assert_eq!(read(t), [0., 3., 1., 4., 2., 5.]);
        let t = Tensor::view(info(&[]), s.clone(), 11, vec![]).unwrap();
        assert_eq!(read(t), [11.]);
        let t = Tensor::view(info(&[0, 7]), s, 12, vec![7, 1]).unwrap();
        assert!(read(t).is_empty());
    }

    #[test]
    fn views_outside_the_storage_are_refused() {
        let (_file, s) = storage(12);
        for (shape, offset, strides) in [
            (&[2, 3][..], 7, vec![3, 1]),
            (&[13], 0, vec![1]),
            (&[13], 0, vec![0]),
            (&[2], usize::MAX, vec![1]),
            (&[2], 0, vec![usize::MAX]),
            (&[usize::MAX, 2], 0, vec![1, 1]),
            (&[2, 2], 0, vec![1]),
            (&[1; 9], 0, vec![1; 9]),
        ] {
            let e = Tensor::view(info(shape), s.clone(), offset, strides).unwrap_err();
            assert!(e.to_string().starts_with("f: t: "), "{e}");
        }
        assert!(Tensor::whole(info(&[11]), s).is_err());
    }

    #[test]
    fn a_name_is_there_once() {
        let (_file, s) = storage(2);
        let mut all = Tensors::default();
        let t = Tensor::whole(info(&[2]), s).unwrap();
        all.push(t.clone()).unwrap();
        assert!(all.push(t).is_err());
    }
}
