//! Model files for tests, converted from the small checkpoints in the repository.

// Each test uses a part of it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use bertlet::Pooling;
use bertlet::format::Encoding;
use bertlet::format::writer::Writer;
use bertlet::tokenizer::Settings;
use bertlet_convert::pack::{self, Extras};
use bertlet_convert::reference::Sequence;
use bertlet_convert::tokenizer::{SpecialTokens, build};
use bertlet_convert::{load, quantize, source};

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    Int8,
    F16,
    F32,
}

/// A checkpoint of the repository: `micro`, `micro-qa`, ..., `tiny-ner`, `tiny-sst2`.
pub fn checkpoint(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = if name.starts_with("tiny") { "models" } else { "convert/tests/fixtures" };
    root.join(folder).join(name)
}

/// Converts a checkpoint to a model file in memory. `change` may change what the file holds besides weights.
pub fn writer(name: &str, weights: Weights, change: impl FnOnce(&mut Extras)) -> Writer {
    writer_of(&checkpoint(name), weights, change)
}

/// [`writer`] for a checkpoint anywhere.
pub fn writer_of(path: &Path, weights: Weights, change: impl FnOnce(&mut Extras)) -> Writer {
    let source = source::open(path, source::OpenOptions::default()).unwrap();
    let (bert, _) = load::bert(&source, false).unwrap();
    let tokenizer = source.tokenizer.as_ref().unwrap();
    let settings = Settings {
        lowercase: tokenizer.lowercase,
        strip_accents: tokenizer.strip_accents,
        handle_chinese_chars: tokenizer.handle_chinese_chars,
        clean_text: tokenizer.clean_text,
        max_word_chars: tokenizer.max_input_chars_per_word,
    };
    let heads = &bert.heads;
    let classifier = heads.sequence_classifier.as_ref().map(|(head, _)| head);
    let outputs = heads.token_classifier.as_ref().or(classifier).map_or(0, |head| head.bias.len());
    let mut extras = Extras {
        pooling: Pooling::Mean,
        labels: source.config.labels(outputs),
        tokenizer: build(&source.vocabulary, &settings, &SpecialTokens::default()).unwrap(),
        ..Extras::default()
    };
    change(&mut extras);
    match weights {
        Weights::F32 => pack::float(&bert, Encoding::F32, &extras),
        Weights::F16 => pack::float(&bert, Encoding::F16, &extras),
        Weights::Int8 => {
            let batch: Vec<_> = (1..9)
                .map(|n| {
                    let tokens = 6 * n.min(bert.config.max_position_embeddings / 6);
                    Sequence { ids: ids(tokens, bert.config.vocab_size), types: vec![0; tokens] }
                })
                .collect();
            let options = quantize::QuantizeOptions::default();
            pack::int8(&quantize::quantize(&bert, &batch, &options, &mut |_, _| ()), &extras)
        }
    }
}

/// What the model file of a checkpoint holds besides weights.
pub fn writer_extras(name: &str) -> Extras {
    let mut found = Extras::default();
    writer(name, Weights::F32, |extras| found = extras.clone());
    found
}

/// `tokens` ids without a pattern, the same in every run.
pub fn ids(tokens: usize, vocab: usize) -> Vec<u32> {
    let mut state = tokens as u32 + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % vocab as u32
    };
    (0..tokens).map(|_| next()).collect()
}

/// A test's own folder, removed with its contents when dropped.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(test: &str) -> Self {
        let name = format!("{test}-{}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Converts a checkpoint to a model file in this folder.
    pub fn model(&self, name: &str, weights: Weights) -> PathBuf {
        self.model_with(name, weights, |_| ())
    }

    /// [`Folder::model`] with a `change` as of [`writer`].
    pub fn model_with(
        &self,
        name: &str,
        weights: Weights,
        change: impl FnOnce(&mut Extras),
    ) -> PathBuf {
        let path = self.0.join(format!("{name}-{weights:?}.bertlet"));
        writer(name, weights, change).save(&path).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
