//! Checkpoints on disk: TensorFlow, PyTorch, safetensors.
//!
//! [`open`] finds the weights in a folder, reads the configuration and the tokenizer, and lists the tensors.
//! The elements are read later, one tensor at a time. Nothing in a checkpoint is executed or trusted: every size is
//! checked against the file before memory is allocated for it.

mod checksum;
mod config;
mod dtype;
mod files;
mod hints;
mod map;
mod modules;
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
use bertlet::format::ScoreActivation;

pub use config::ModelConfig;
pub(crate) use config::check_distinct;
pub use dtype::DType;
pub use files::FileRecord;
pub use tensors::TensorInfo;
pub use tokenizer::{AddedTokenConfig, TokenizerConfig};
pub use weights::CheckpointFormat;

use crate::error::{Error, Result};
use files::Files;
use modules::Modules;
use tensors::Tensors;

/// How to open a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// Accept a checkpoint without `vocab.txt` and `tokenizer.json`.
    pub allow_missing_vocabulary: bool,
    /// Accept what a model file cannot hold, with a note, and leave it out.
    pub allow_unknown: bool,
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
    /// Tokens that texts are cut to, as the files of sentence-transformers state it.
    pub max_seq_length: Option<usize>,
    /// Prompts: names and texts.
    pub prompts: Vec<(String, String)>,
    /// Index of the prompt that stands before every text.
    pub default_prompt: Option<usize>,
    /// Whether the checkpoint says that it is a cross-encoder.
    pub cross_encoder: bool,
    /// Activation of a cross-encoder, if the files state it.
    pub score_activation: Option<ScoreActivation>,
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
    let mut modules = Modules::read(path, options.allow_unknown, &mut files)?;
    // Old sentence-transformers models have the encoder in a subfolder.
    let found = match &modules.encoder {
        Some(encoder) if path.is_dir() => weights::find(encoder, &mut files)?,
        _ => weights::find(path, &mut files)?,
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
    let json = files.json(&config_file)?;
    let config = config::parse(&config_file, &json)?;
    modules.read_config(&config_file, &json)?;

    check_vocabulary(&folder, &config)?;
    let (vocabulary, tokenizer) =
        match tokenizer::read(&folder, &mut files, config.bert.vocab_size)? {
            Some((vocabulary, mut tokenizer)) => {
                modules.lower_case(&mut tokenizer);
                (vocabulary, Some(tokenizer))
            }
            None if options.allow_missing_vocabulary => (Vec::new(), None),
            None => {
                return Err(Error::new(folder.join("vocab.txt"), "", "is missing")
                    .hint("put it, or tokenizer.json, into the folder of the weights"));
            }
        };
    let tensors = found.read(&mut files)?;
    let mut notes = modules.notes;
    if folder.join("adapter_config.json").exists() {
        notes.push(
            "adapter_config.json: the adapter is not applied; the weights are used as they are"
                .into(),
        );
    }
    Ok(Checkpoint {
        folder,
        weights: found.path().to_owned(),
        format: found.format(),
        config,
        vocabulary,
        tokenizer,
        pooling: modules.pooling,
        normalize: modules.normalize,
        max_seq_length: modules.max_seq_length,
        prompts: modules.prompts,
        default_prompt: modules.default_prompt,
        cross_encoder: modules.cross_encoder,
        score_activation: modules.score_activation,
        notes,
        files: files.into_records(),
        tensors,
    })
}

/// Refuses a vocabulary that cannot be the model's before any of it is kept: by its lines, or as JSON by its size.
fn check_vocabulary(folder: &Path, config: &ModelConfig) -> Result<()> {
    /// Bytes of a `tokenizer.json` apart from the vocabulary, and per token.
    const JSON: usize = 4 << 20;
    const JSON_TOKEN: usize = 512;
    let rows = config.bert.vocab_size;
    let json = folder.join("tokenizer.json");
    let lines = folder.join("vocab.txt");
    let problem = if json.exists() {
        let bytes = map::Map::open(&json)?.len();
        let most = JSON + rows.saturating_mul(JSON_TOKEN);
        (bytes > most).then(|| format!("{rows} is too few for the {bytes} bytes of tokenizer.json"))
    } else if lines.exists() {
        // Empty lines at the end are another question.
        let text = map::Map::open(&lines)?;
        let tokens = text.trim_ascii_end().split(|b| *b == b'\n').count();
        let problem = || format!("{rows} is fewer than the {tokens} tokens of the vocabulary");
        (tokens > rows).then(problem)
    } else {
        None
    };
    match problem {
        Some(problem) => Err(Error::new(&config.file, "vocab_size", problem)
            .hint("use the vocabulary that the checkpoint was trained with")),
        None => Ok(()),
    }
}
