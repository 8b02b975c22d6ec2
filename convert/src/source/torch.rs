//! `torch.save` files: a pickle that describes tensors, and the bytes of their storages. Since PyTorch 1.6 they are
//! entries of a zip file. Before, they follow each other in the file.

use std::collections::HashMap;
use std::sync::Arc;

use zip::CompressionMethod;

use super::dtype::DType;
use super::map::Map;
use super::pickle::{self, Object, Pickle, StorageRef, Value};
use super::storage::{Deflated, Storage, open_zip};
use super::tensors::{Tensor, TensorInfo, Tensors};
use crate::error::{Error, Result};

/// What every zip file starts with.
const ZIP_MAGIC: &[u8] = b"PK";
/// The first bytes of the legacy format: 0x1950a86a20f9469cfc6c, little endian.
const LEGACY_MAGIC: &[u8] = &[0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// Version of the legacy format.
const LEGACY_PROTOCOL: i64 = 1001;
/// Keys under which training scripts store the weights.
const WRAPPERS: &[&str] = &["state_dict", "model_state_dict", "model"];
/// Limit for nested wrappers.
const MAX_WRAPPERS: usize = 4;
/// Limit for the entries of a zip file. BERT-large has about 400.
const MAX_ENTRIES: usize = 1 << 17;
/// Limit for the expansion of a compressed entry of more than [`INFLATE_FREE`] bytes. PyTorch does not compress,
/// and weights hardly shrink: more than this is a zip bomb.
const MAX_INFLATE: u64 = 64;
/// Decompressed size up to which any expansion is allowed, as for biases of zeros.
const INFLATE_FREE: u64 = 1 << 16;

/// Adds the tensors of one file.
pub(super) fn read(map: &Arc<Map>, tensors: &mut Tensors) -> Result<()> {
    if map.starts_with(ZIP_MAGIC) { read_zip(map, tensors) } else { read_legacy(map, tensors) }
}

fn read_zip(map: &Arc<Map>, tensors: &mut Tensors) -> Result<()> {
    let failed = |field: &str, problem: String| Error::new(map.path(), field, problem);
    let entries = entries(map).map_err(|p| failed("zip", p))?;
    let mut pickles = entries
        .keys()
        .filter_map(|name| name.strip_suffix("data.pkl"))
        .filter(|prefix| prefix.is_empty() || prefix.ends_with('/'));
    let Some(prefix) = pickles.next() else {
        return Err(failed("zip", "has no data.pkl, so PyTorch did not write it".into()));
    };
    if pickles.next().is_some() {
        return Err(failed("zip", "has more than one data.pkl".into()));
    }
    let bytes_of = |name: &str| {
        let entry = entries.get(&format!("{prefix}{name}"))?;
        Some(entry.to_vec().map_err(|p| failed(name, p)))
    };
    if let Some(order) = bytes_of("byteorder").transpose()?
        && order != b"little"
    {
        return Err(failed("byteorder", "is not little endian".into()));
    }
    let bytes = bytes_of("data.pkl").transpose()?.unwrap_or_default();
    let pickle = pickle::load(&bytes).map_err(|p| refused(map, p))?;
    for (name, storage, tensor) in state_dict(map, &pickle)? {
        let info = info(map, name, &tensor.storage.dtype, &tensor.shape);
        let entry = entries
            .get(&format!("{prefix}data/{}", storage.key))
            .ok_or_else(|| info.error(format!("its storage {:?} is missing", storage.key)))?;
        check_storage(&info, storage, entry.len() as u64)?;
        tensors.push(Tensor::view(info, entry.clone(), tensor.offset, tensor.strides.clone())?)?;
    }
    Ok(())
}

/// The entries of a zip file by name. Each lies inside the file, and none overlap.
fn entries(map: &Arc<Map>) -> std::result::Result<HashMap<String, Storage>, String> {
    let mut zip = open_zip(map)?;
    if zip.len() > MAX_ENTRIES || zip.has_duplicate_names() {
        return Err("has too many entries, or two with the same name".into());
    }
    if zip.has_overlapping_files().map_err(|e| e.to_string())? {
        return Err("its entries overlap".into());
    }
    let mut entries = HashMap::new();
    for i in 0..zip.len() {
        let file = zip.by_index_raw(i).map_err(|e| e.to_string())?;
        let name = file.name().map_err(|e| e.to_string())?.into_owned();
        let (packed, len) = (file.compressed_size(), file.size());
        let outside = || format!("{name} lies outside the file");
        let start = file.data_start().ok_or_else(outside)?;
        let stored = Storage::mapped(map, start, packed).ok_or_else(outside)?;
        let entry = match file.compression() {
            _ if file.encrypted() => return Err(format!("{name} is encrypted")),
            CompressionMethod::Stored if packed == len => stored,
            CompressionMethod::Stored => return Err(format!("{name} has two sizes")),
            method if method != CompressionMethod::Deflated => {
                return Err(format!(
                    "{name} is compressed with {method}, but only deflate is supported: save the weights again"
                ));
            }
            _ if len > INFLATE_FREE.max(packed.saturating_mul(MAX_INFLATE)) => {
                return Err(format!("{name} claims to expand from {packed} to {len} bytes"));
            }
            _ => Storage::Deflated(Deflated { map: map.clone(), entry: i, len: len as usize }),
        };
        entries.insert(name, entry);
    }
    Ok(entries)
}

fn read_legacy(map: &Arc<Map>, tensors: &mut Tensors) -> Result<()> {
    let failed = |field: &str, problem: String| Error::new(map.path(), field, problem);
    let mut at = 0;
    let mut next = || {
        let pickle = pickle::load(&map[at..]).map_err(|p| refused(map, p))?;
        at += pickle.len;
        Ok((pickle, at))
    };
    let is_magic = |p: &Pickle<'_>| p.root == Value::Long(LEGACY_MAGIC);
    match next() {
        Ok((pickle, _)) if is_magic(&pickle) => {}
        _ => {
            return Err(failed("", "is not a PyTorch file".into())
                .hint("if it is one, save it again with PyTorch 1.6 or newer"));
        }
    }
    if next()?.0.root != Value::Int(LEGACY_PROTOCOL) {
        return Err(failed("protocol", "is unknown".into()));
    }
    let (system, _) = next()?;
    if system.get(system.root, "little_endian") != Some(Value::Bool(true)) {
        return Err(failed("little_endian", "is not true".into()));
    }
    let (pickle, _) = next()?;
    let (keys, data) = next()?;
    let Some(Object::List(keys)) = keys.object(keys.root) else {
        return Err(failed("storages", "have no list of keys".into()));
    };
    let state = state_dict(map, &pickle)?;

    // The storages follow in the order of the keys, each after its number of elements. The size of an
    // element is known from the pickle only.
    let dtypes: HashMap<&str, &DType> = pickle.storages().map(|s| (s.key, &s.dtype)).collect();
    let mut storages = HashMap::new();
    let mut at = data as u64;
    for key in keys {
        let Value::Str(key) = *key else {
            return Err(failed("storages", "have a key that is not a string".into()));
        };
        let field = format!("storage {key}");
        let size = dtypes
            .get(key)
            .and_then(|dtype| dtype.size())
            .ok_or_else(|| failed(&field, "belongs to no tensor".into()))?;
        let storage = map
            .get(at as usize..)
            .and_then(|rest| rest.first_chunk::<8>())
            .and_then(|count| u64::from_le_bytes(*count).checked_mul(size as u64))
            .and_then(|len| Storage::mapped(map, at + 8, len))
            .ok_or_else(|| failed(&field, "reaches past the end of the file".into()))?;
        at += 8 + storage.len() as u64;
        if storages.insert(key, storage).is_some() {
            return Err(failed(&field, "occurs twice".into()));
        }
    }

    for (name, storage, tensor) in state {
        let info = info(map, name, &storage.dtype, &tensor.shape);
        let bytes = storages
            .get(storage.key)
            .ok_or_else(|| info.error(format!("its storage {:?} is missing", storage.key)))?;
        check_storage(&info, storage, bytes.len() as u64)?;
        let offset = storage
            .offset
            .checked_add(tensor.offset)
            .ok_or_else(|| info.error("impossible offset"))?;
        tensors.push(Tensor::view(info, bytes.clone(), offset, tensor.strides.clone())?)?;
    }
    Ok(())
}

/// Checks that a storage is as long as the pickle states. Otherwise the file is truncated or hostile.
fn check_storage(info: &TensorInfo, storage: &StorageRef<'_>, bytes: u64) -> Result<()> {
    let size = info.dtype.size().unwrap_or(1);
    let wanted = storage.offset.checked_add(storage.elements).and_then(|n| n.checked_mul(size));
    match wanted {
        Some(wanted) if wanted as u64 <= bytes => Ok(()),
        _ => Err(info.error(format!(
            "its storage {:?} should have {} elements of {}, but has {bytes} bytes",
            storage.key, storage.elements, info.dtype
        ))),
    }
}

fn info(map: &Map, name: &str, dtype: &DType, shape: &[usize]) -> TensorInfo {
    TensorInfo {
        name: name.to_owned(),
        dtype: dtype.clone(),
        shape: shape.to_vec(),
        file: map.path().to_owned(),
    }
}

fn refused(map: &Map, problem: String) -> Error {
    Error::new(map.path(), "", problem)
        .hint("save only the weights, with torch.save(model.state_dict(), ...), or as safetensors")
}

type Named<'p, 'a> = (&'a str, &'p StorageRef<'a>, &'p pickle::TensorRef<'a>);

/// The named tensors of a file: those of its dictionary, or of the dictionary inside the usual wrappers. Other
/// values (step counts, arguments, the optimiser) are ignored.
fn state_dict<'p, 'a>(map: &Map, pickle: &'p Pickle<'a>) -> Result<Vec<Named<'p, 'a>>> {
    let mut dict = pickle.root;
    for _ in 0..MAX_WRAPPERS {
        let inner = WRAPPERS.iter().find_map(|key| {
            let value = pickle.get(dict, key)?;
            matches!(pickle.object(value), Some(Object::Dict(_))).then_some(value)
        });
        match inner {
            Some(inner) => dict = inner,
            None => break,
        }
    }
    let items = match pickle.object(dict) {
        Some(Object::Dict(items)) => items.as_slice(),
        _ => &[],
    };
    let named: Vec<_> = items
        .iter()
        .filter_map(|&(key, value)| match (key, pickle.object(value)) {
            (Value::Str(name), Some(Object::Tensor(t))) => Some((name, &t.storage, t)),
            _ => None,
        })
        .collect();
    if named.is_empty() {
        return Err(refused(map, "it has no dictionary of named tensors".into()));
    }
    Ok(named)
}
