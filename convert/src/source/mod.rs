//! Checkpoints on disk: TensorFlow, PyTorch, safetensors.
//!
//! [`open`] finds the weights in a folder, reads the configuration and the tokenizer, and lists the tensors.
//! The elements are read later, one tensor at a time. Nothing in a checkpoint is executed or trusted: every size is
//! checked against the file before memory is allocated for it.

mod checksum;
mod config;
mod dtype;
mod files;
mod map;
mod pickle;
mod safetensors;
mod sstable;
mod storage;
mod tensorflow;
mod tensors;
mod tokenizer;
mod torch;
mod weights;

use std::path::{Path, PathBuf};

use bertlet::Pooling;
use serde_json::Value;

pub use config::ModelConfig;
pub(crate) use config::check_distinct;
pub use dtype::DType;
pub use files::FileRecord;
pub use tensors::TensorInfo;
pub use tokenizer::{AddedTokenConfig, TokenizerConfig};
pub use weights::CheckpointFormat;

use crate::error::{Error, Result};
use files::Files;
use tensors::Tensors;

/// How to open a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// Accept a checkpoint without `vocab.txt` and `tokenizer.json`.
    pub allow_missing_vocabulary: bool,
}

/// An opened checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    /// The folder of the weights.
    pub folder: PathBuf,
    /// The weights file, or the index of several.
    pub weights: PathBuf,
    /// Format of the weights.
    pub format: CheckpointFormat,
    /// The configuration.
    pub config: ModelConfig,
    /// Tokens in the order of their ids. Empty without a vocabulary.
    pub vocabulary: Vec<String>,
    /// Configuration of the tokenizer. `None` without a vocabulary.
    pub tokenizer: Option<TokenizerConfig>,
    /// Pooling in `1_Pooling/config.json` of sentence-transformers.
    pub pooling: Option<Pooling>,
    /// Whether `modules.json` of sentence-transformers normalises the pooled vector.
    pub normalize: bool,
    /// Remarks for the user: what the converter ignores.
    pub notes: Vec<String>,
    /// Every file that was read.
    pub files: Vec<FileRecord>,
    tensors: Tensors,
}

impl Checkpoint {
    /// Every tensor of the checkpoint.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.infos()
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// The elements of a tensor in f32, row-major.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        self.tensors.read_f32(name, &self.weights)
    }
}

/// Opens a checkpoint folder, or a weights file with its configuration in the same folder.
///
/// If a folder has weights in several formats, safetensors come first, then PyTorch's, then TensorFlow's: the
/// least ambiguous format first.
pub fn open(path: &Path, options: OpenOptions) -> Result<Checkpoint> {
    let mut files = Files::default();
    let modules = read_modules(path, &mut files)?;
    let found = match weights::find(path, &mut files) {
        // Old sentence-transformers models have the encoder in a subfolder.
        Err(missing) => match &modules.encoder {
            Some(encoder) if path.is_dir() => weights::find(encoder, &mut files)?,
            _ => return Err(missing),
        },
        Ok(found) => found,
    };
    let folder = found.folder();

    // With TensorFlow's weights Google's file comes first: the folder may also hold converted weights.
    let mut names = ["config.json", "bert_config.json"];
    if found.format() == CheckpointFormat::TensorFlow {
        names.reverse();
    }
    let config_file =
        names.iter().map(|name| folder.join(name)).find(|file| file.exists()).ok_or_else(|| {
            Error::new(folder.join("config.json"), "", "is missing")
                .hint("put it into the folder of the weights (Google's name is bert_config.json)")
        })?;
    let config = config::parse(&config_file, &files.json(&config_file)?)?;

    let (vocabulary, tokenizer) = match tokenizer::read(&folder, &mut files)? {
        Some((vocabulary, tokenizer)) => (vocabulary, Some(tokenizer)),
        None if options.allow_missing_vocabulary => (Vec::new(), None),
        None => {
            return Err(Error::new(folder.join("vocab.txt"), "", "is missing")
                .hint("put it, or tokenizer.json, into the folder of the weights"));
        }
    };
    let tensors = found.read(&mut files)?;
    Ok(Checkpoint {
        folder,
        weights: found.path().to_owned(),
        format: found.format(),
        config,
        vocabulary,
        tokenizer,
        pooling: modules.pooling,
        normalize: modules.normalize,
        notes: modules.notes,
        files: files.into_records(),
        tensors,
    })
}

/// What sentence-transformers' `modules.json` lists.
#[derive(Default)]
struct Modules {
    encoder: Option<PathBuf>,
    pooling: Option<Pooling>,
    normalize: bool,
    notes: Vec<String>,
}

fn read_modules(path: &Path, files: &mut Files) -> Result<Modules> {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
    let mut modules = Modules::default();
    let file = folder.join("modules.json");
    let Some(json) = files.json_if_there(&file)? else {
        // Some checkpoints have the pooling without modules.json.
        modules.read_pooling(&folder.join("1_Pooling/config.json"), files)?;
        return Ok(modules);
    };
    for module in json.as_array().map_or(&[][..], Vec::as_slice) {
        let kind = module["type"].as_str().unwrap_or_default();
        let kind = kind.rsplit('.').next().unwrap_or_default();
        let inner = match module["path"].as_str().unwrap_or_default() {
            "" => folder.to_owned(),
            name => files::inside(folder, name, &file, "path")?,
        };
        match kind {
            "Transformer" => modules.encoder = (inner != folder).then_some(inner),
            "Pooling" => modules.read_pooling(&inner.join("config.json"), files)?,
            "Normalize" => modules.normalize = true,
            other => {
                modules.notes.push(format!("modules.json: {other} is not supported and ignored"))
            }
        }
    }
    Ok(modules)
}

impl Modules {
    fn read_pooling(&mut self, file: &Path, files: &mut Files) -> Result<()> {
        let Some(json) = files.json_if_there(file)? else {
            return Ok(());
        };
        let on: Vec<_> = json
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, value)| key.starts_with("pooling_mode_") && **value == Value::Bool(true))
            .map(|(key, _)| key.as_str())
            .collect();
        self.pooling = match on.as_slice() {
            ["pooling_mode_cls_token"] => Some(Pooling::Cls),
            ["pooling_mode_mean_tokens"] => Some(Pooling::Mean),
            ["pooling_mode_max_tokens"] => Some(Pooling::Max),
            ["pooling_mode_mean_sqrt_len_tokens"] => Some(Pooling::MeanSqrt),
            [] => None,
            several => {
                let modes = several.join(" with ");
                self.notes.push(format!("1_Pooling: {modes} is not supported and ignored"));
                None
            }
        };
        Ok(())
    }
}
