//! The safetensors format.

use std::collections::HashSet;
use std::sync::Arc;

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::dtype::DType;
use super::map::Map;
use super::storage::Storage;
use super::tensors::{Tensor, TensorInfo, Tensors};
use crate::error::{Error, Result};

/// Limit of the format for the header in bytes.
const MAX_HEADER: u64 = 100_000_000;

/// Adds the tensors of one file.
///
/// This function checks the header against the size of the file. `SafeTensors::deserialize` would add the two,
/// and the sum may overflow.
pub(super) fn read(map: &Arc<Map>, tensors: &mut Tensors) -> Result<()> {
    let failed =
        |problem: String| Error::new(map.path(), "header", problem).hint("download the file again");
    let Some((size, rest)) = map.split_first_chunk::<8>() else {
        return Err(failed("the file ends inside it".into()));
    };
    let header_len = u64::from_le_bytes(*size);
    if header_len > MAX_HEADER || header_len > rest.len() as u64 {
        return Err(failed(format!(
            "its size of {header_len} bytes does not fit a file of {} bytes",
            map.len()
        )));
    }
    let (header, data) = rest.split_at(header_len as usize);
    let _: UniqueNames =
        serde_json::from_slice(header).map_err(|e| failed(format!("is not valid: {e}")))?;
    let metadata: Metadata =
        serde_json::from_slice(header).map_err(|e| failed(format!("is not valid: {e}")))?;
    if metadata.data_len() != data.len() {
        return Err(failed(format!(
            "describes {} bytes of tensors, but the file holds {}",
            metadata.data_len(),
            data.len()
        )));
    }
    for name in metadata.offset_keys() {
        let Some(found) = metadata.info(&name) else {
            continue;
        };
        let info = TensorInfo {
            name,
            dtype: dtype(found.dtype),
            shape: found.shape.clone(),
            file: map.path().to_owned(),
        };
        let (start, end) = found.data_offsets;
        let storage = start
            .checked_add(8 + header.len())
            .and_then(|at| Storage::mapped(map, at as u64, end.checked_sub(start)? as u64))
            .ok_or_else(|| info.error("lies outside the file"))?;
        tensors.push(Tensor::whole(info, storage)?)?;
    }
    Ok(())
}

/// A header in which no name occurs twice. The parser of the metadata would take the last one silently.
struct UniqueNames;

impl<'de> Deserialize<'de> for UniqueNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(Self)
    }
}

impl<'de> Visitor<'de> for UniqueNames {
    type Value = Self;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object with the names of tensors")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> std::result::Result<Self, M::Error> {
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            map.next_value::<IgnoredAny>()?;
            if let Some(name) = names.replace(name) {
                return Err(M::Error::custom(format!("the tensor {name:?} is there twice")));
            }
        }
        Ok(self)
    }
}

fn dtype(dtype: Dtype) -> DType {
    match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::I16 => DType::I16,
        Dtype::I8 => DType::I8,
        Dtype::U8 => DType::U8,
        Dtype::BOOL => DType::Bool,
        other => DType::Other(format!("{other:?}").to_lowercase()),
    }
}
