//! The texts of a conversion as token ids: held-out, self-test and calibration.

use std::path::Path;

use bertlet::tokenizer::Tokenizer;
use sha2::{Digest, Sha256};

use crate::bert::Config;
use crate::error::{Error, Result};
use crate::quantize::text;
use crate::reference::Sequence;
use crate::report::Calibration;
use crate::source::Checkpoint;

/// Makes inputs for one model: texts, or random ids if it has no vocabulary.
pub(crate) struct Texts<'a> {
    source: &'a Checkpoint,
    tokenizer: Option<Tokenizer<'a>>,
    vocab: usize,
    positions: usize,
    token_types: usize,
}

impl<'a> Texts<'a> {
    pub(crate) fn new(source: &'a Checkpoint, c: &Config, section: &'a [u8]) -> Result<Self> {
        let tokenizer = match section {
            [] => None,
            section => Some(Tokenizer::from_bytes(section).map_err(|e| {
                Error::new(&source.folder, "tokenizer", format!("cannot be read back: {e}"))
            })?),
        };
        let (vocab, positions, token_types) =
            (c.vocab_size, c.max_position_embeddings, c.type_vocab_size);
        Ok(Self { source, tokenizer, vocab, positions, token_types })
    }

    /// Clamps token types to those of the model: a model with one type has no second text.
    fn clamp(&self, mut batch: Vec<Sequence>) -> Vec<Sequence> {
        let last = self.token_types as u32 - 1;
        batch.iter_mut().flat_map(|s| &mut s.types).for_each(|kind| *kind = (*kind).min(last));
        batch
    }

    /// The tokenizer. `None` without a vocabulary.
    pub(crate) fn tokenizer(&self) -> Option<&Tokenizer<'a>> {
        self.tokenizer.as_ref()
    }

    fn failed(&self, e: impl std::fmt::Display) -> Error {
        Error::new(&self.source.config.file, "max_position_embeddings", e)
    }

    fn lines(&self, lines: &str, length: usize) -> Result<Vec<Sequence>> {
        let length = length.min(self.positions);
        let batch = match &self.tokenizer {
            Some(tokenizer) => {
                text::sequences(tokenizer, lines, length).map_err(|e| self.failed(e))?
            }
            None => random(lines.lines().map(|line| 2 + line.len() / 5), length, self.vocab),
        };
        Ok(self.clamp(batch))
    }

    /// The inputs that errors are measured on.
    pub(crate) fn held_out(&self) -> Result<Vec<Sequence>> {
        self.lines(text::HELD_OUT, self.positions)
    }

    /// The inputs of the self-test: a text, a pair, and a text that is longer than a block of tokens.
    pub(crate) fn self_test(&self) -> Result<Vec<Sequence>> {
        let lines: Vec<&str> = text::HELD_OUT.lines().collect();
        let pair = format!("{}\t{}", lines[0], lines[1]);
        self.lines(&format!("{}\n{pair}\n{}", lines[3], lines.join(" ")), 40)
    }

    pub(crate) fn calibration(&self, file: Option<&Path>) -> Result<(Vec<Sequence>, Calibration)> {
        let user = file.map(read_lines).transpose()?;
        let (name, lines, sha256) = match &user {
            Some((name, lines, sha256)) => (name.as_str(), lines.as_str(), Some(sha256.clone())),
            None => ("built-in", text::CALIBRATION, None),
        };
        let (name, batch) = match &self.tokenizer {
            Some(tokenizer) => {
                let batch = text::calibration(tokenizer, lines, self.positions, &text::JOINED)
                    .map_err(|e| self.failed(e))?;
                (name, batch)
            }
            None => {
                let lengths = lines.lines().map(|line| 2 + line.len() / 5).chain(text::JOINED);
                ("random ids", random(lengths, self.positions, self.vocab))
            }
        };
        let about = Calibration {
            text: name.to_owned(),
            sha256,
            sequences: batch.len(),
            tokens: batch.iter().map(|sequence| sequence.ids.len()).sum(),
        };
        Ok((self.clamp(batch), about))
    }
}

/// Name, text and SHA-256 of a file of texts.
pub(crate) fn read_lines(path: &Path) -> Result<(String, String, String)> {
    let failed = |e: &dyn std::fmt::Display| {
        Error::new(path, "", format!("cannot be read: {e}"))
            .hint("give a UTF-8 file with one text per line")
    };
    let bytes = std::fs::read(path).map_err(|e| failed(&e))?;
    let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let lines = String::from_utf8(bytes).map_err(|e| failed(&e))?;
    if lines.lines().all(|line| line.trim().is_empty()) {
        return Err(Error::new(path, "", "has no text").hint("give one text per line"));
    }
    Ok((file_name(path), lines, sha256))
}

/// Inputs of random ids for a model without a vocabulary, with these lengths, `limit` at most. Always the same.
fn random(lengths: impl Iterator<Item = usize>, limit: usize, vocab: usize) -> Vec<Sequence> {
    let mut state = 1u64;
    let mut id = || {
        // Knuth's MMIX generator; the high bits are the random ones.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % vocab as u64) as u32
    };
    lengths.map(|n| Sequence::single((0..n.min(limit)).map(|_| id()).collect())).collect()
}

/// The last part of a path.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
