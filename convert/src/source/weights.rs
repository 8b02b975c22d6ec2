//! Finds the files with the weights of a checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::files::{self, Files};
use super::tensors::Tensors;
use super::{hints, safetensors, tensorflow, torch};
use crate::error::{Error, Result};

/// Limit for the shards of a checkpoint.
const MAX_SHARDS: usize = 10_000;

/// The file format of the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointFormat {
    /// safetensors.
    Safetensors,
    /// `torch.save`, of any version.
    PyTorch,
    /// TensorFlow's Saver.
    TensorFlow,
}

/// Weights that were found.
#[derive(Debug)]
pub(super) enum WeightFiles {
    /// One file.
    Single(CheckpointFormat, PathBuf),
    /// The index of several.
    Sharded(CheckpointFormat, PathBuf),
    /// `PREFIX.index`.
    TensorFlow(PathBuf),
}

impl WeightFiles {
    pub(super) fn format(&self) -> CheckpointFormat {
        match self {
            Self::Single(format, _) | Self::Sharded(format, _) => *format,
            Self::TensorFlow(_) => CheckpointFormat::TensorFlow,
        }
    }

    /// The file, or the index.
    pub(super) fn path(&self) -> &Path {
        let (Self::Single(_, path) | Self::Sharded(_, path) | Self::TensorFlow(path)) = self;
        path
    }

    /// The folder of the weights.
    pub(super) fn folder(&self) -> PathBuf {
        self.path().parent().unwrap_or(Path::new("")).to_owned()
    }

    /// Lists the tensors.
    pub(super) fn read(&self, files: &mut Files) -> Result<Tensors> {
        let mut tensors = Tensors::default();
        let before = files.bytes();
        match self {
            Self::Single(format, path) => read_file(*format, path, files, &mut tensors)?,
            Self::Sharded(format, index) => read_shards(*format, index, files, &mut tensors)?,
            Self::TensorFlow(index) => tensorflow::read(index, files, &mut tensors)?,
        }
        // A file of an unknown name was recorded when its format was found out.
        let alone = match self {
            Self::Single(_, path) => files.map(path)?.len() as u64,
            _ => 0,
        };
        tensors.check_total(self.path(), alone.max(files.bytes() - before))?;
        Ok(tensors)
    }
}

fn read_file(
    format: CheckpointFormat,
    path: &Path,
    files: &mut Files,
    tensors: &mut Tensors,
) -> Result<()> {
    let map = files.map(path)?;
    match format {
        CheckpointFormat::Safetensors => safetensors::read(&map, tensors),
        _ => torch::read(&map, tensors),
    }
}

/// Reads `{"weight_map": {tensor: file}}`. Every tensor must be in the file that the index names.
fn read_shards(
    format: CheckpointFormat,
    index: &Path,
    files: &mut Files,
    tensors: &mut Tensors,
) -> Result<()> {
    let json = files.json(index)?;
    let folder = index.parent().unwrap_or(Path::new(""));
    let map = json["weight_map"]
        .as_object()
        .ok_or_else(|| Error::new(index, "weight_map", "is missing"))?;
    let mut places = BTreeMap::new();
    for (tensor, shard) in map {
        let shard = shard.as_str().ok_or_else(|| {
            Error::new(index, tensor, format!("{shard} is not the name of a file"))
        })?;
        places.insert(tensor, files::inside(folder, shard, index, tensor)?);
    }
    let shards: BTreeSet<_> = places.values().collect();
    if shards.is_empty() || shards.len() > MAX_SHARDS {
        return Err(Error::new(index, "weight_map", format!("names {} files", shards.len())));
    }
    for shard in shards {
        if !shard.exists() {
            return Err(Error::new(shard, "", "is missing")
                .hint(format!("{} names it: download all files that it names", index.display())));
        }
        read_file(format, shard, files, tensors)?;
    }
    for (tensor, shard) in &places {
        match tensors.get(tensor) {
            Some(info) if info.file == **shard => {}
            _ => {
                return Err(Error::new(shard, tensor.as_str(), "is not in this file")
                    .hint(format!("{} states that it is", index.display())));
            }
        }
    }
    Ok(())
}

/// Finds the weights at `path`: a folder, a file, or a TensorFlow prefix.
pub(super) fn find(path: &Path, files: &mut Files) -> Result<WeightFiles> {
    if path.is_dir() {
        return find_in_folder(path, files);
    }
    let prefix_index = with_suffix(path, ".index");
    if !path.exists() && prefix_index.is_file() {
        return Ok(WeightFiles::TensorFlow(prefix_index));
    }
    if !path.exists() {
        return Err(hints::missing(path));
    }
    let path = path.to_owned();
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    if name.ends_with(".safetensors.index.json") {
        return Ok(WeightFiles::Sharded(CheckpointFormat::Safetensors, path));
    }
    if name.ends_with(".bin.index.json") {
        return Ok(WeightFiles::Sharded(CheckpointFormat::PyTorch, path));
    }
    if name.ends_with(".index") {
        return Ok(WeightFiles::TensorFlow(path));
    }
    if name.contains(".data-") && path.with_extension("index").is_file() {
        return Ok(WeightFiles::TensorFlow(path.with_extension("index")));
    }
    if name.ends_with(".safetensors") {
        return Ok(WeightFiles::Single(CheckpointFormat::Safetensors, path));
    }
    // Any other name: a zip file, or a pickle of a protocol with a header.
    let map = files.map(&path)?;
    if map.starts_with(b"PK") || map.first() == Some(&0x80) {
        return Ok(WeightFiles::Single(CheckpointFormat::PyTorch, path));
    }
    Err(hints::file(&path, &map))
}

fn find_in_folder(folder: &Path, files: &mut Files) -> Result<WeightFiles> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .map_err(|e| Error::new(folder, "", format!("cannot be read: {e}")))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    for (suffix, format) in [
        ("model.safetensors", CheckpointFormat::Safetensors),
        ("pytorch_model.bin", CheckpointFormat::PyTorch),
    ] {
        let single = folder.join(suffix);
        if single.is_file() {
            return Ok(WeightFiles::Single(format, single));
        }
        let index = folder.join(format!("{suffix}.index.json"));
        if index.is_file() {
            return Ok(WeightFiles::Sharded(format, index));
        }
    }
    if let Some(index) = named_by_checkpoint(folder, files)? {
        return Ok(WeightFiles::TensorFlow(index));
    }
    let adapter = files.json_if_there(&folder.join("adapter_config.json"))?;
    if let Some(error) = hints::adapter(folder, &names, adapter.as_ref()) {
        return Err(error);
    }
    if hints::shard(&names).is_some() {
        return Err(hints::folder(folder, &names));
    }
    // A single file may have any name.
    for suffix in [".safetensors", ".ckpt.index", ".index"] {
        let found: Vec<_> = names.iter().filter(|n| n.ends_with(suffix)).collect();
        let path = match found.as_slice() {
            [] => continue,
            [one] => folder.join(one),
            _ => {
                return Err(Error::new(folder, "", format!("has {} files *{suffix}", found.len()))
                    .hint("give the path of the file to convert"));
            }
        };
        return Ok(if suffix == ".safetensors" {
            WeightFiles::Single(CheckpointFormat::Safetensors, path)
        } else {
            WeightFiles::TensorFlow(path)
        });
    }
    Err(hints::folder(folder, &names))
}

/// The index that the text file `checkpoint` names. Only the last part of its path is used: the path is often that
/// of another machine, and must not lead out of the folder.
fn named_by_checkpoint(folder: &Path, files: &mut Files) -> Result<Option<PathBuf>> {
    let file = folder.join("checkpoint");
    if !file.is_file() {
        return Ok(None);
    }
    let text = files.text(&file)?;
    let field = "model_checkpoint_path";
    let named = text.lines().find_map(|line| {
        let value = line.trim().strip_prefix(field)?.trim_start();
        let value: Value = serde_json::from_str(value.strip_prefix(':')?.trim()).ok()?;
        value.as_str().map(str::to_owned)
    });
    let Some(named) = named else {
        return Ok(None);
    };
    let last = named.rsplit(['/', '\\']).next().unwrap_or_default();
    let index = files::inside(folder, &format!("{last}.index"), &file, field)?;
    Ok(index.is_file().then_some(index))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
