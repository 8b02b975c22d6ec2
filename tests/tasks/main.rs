//! Heads and tasks on whole models: against the reference's outputs, on long texts, through the command.

#[path = "../common/checkpoints.rs"]
mod common;

mod answers;
mod command;
mod entities;
mod golden;
mod limits;
mod pipeline;
mod same_bits;
mod texts;

use bertlet::tasks::TextRunner;
use bertlet::tokenizer::TokenBuffer;
use bertlet::{Encoder, Isa, Model};

/// A model file in memory, at a multiple of 64 bytes.
pub struct Loaded {
    bytes: Vec<u8>,
    start: usize,
}

impl Loaded {
    /// A checkpoint of the repository.
    pub fn new(name: &str, weights: common::Weights) -> Self {
        Self::of(&common::writer(name, weights, |_| ()))
    }

    /// With other labels than the checkpoint's.
    pub fn with_labels(name: &str, weights: common::Weights, labels: &[&str]) -> Self {
        Self::of(&common::writer(name, weights, |extras| {
            extras.labels = labels.iter().map(|label| label.to_string()).collect();
        }))
    }

    /// What a writer holds.
    pub fn of(writer: &bertlet::format::writer::Writer) -> Self {
        let file = writer.to_vec();
        let mut bytes = vec![0; file.len() + 64];
        let start = bytes.as_ptr().align_offset(64);
        bytes[start..start + file.len()].copy_from_slice(&file);
        bytes.truncate(start + file.len());
        Self { bytes, start }
    }

    /// The model.
    pub fn model(&self) -> Model<'_> {
        Model::from_bytes(&self.bytes[self.start..]).unwrap()
    }

    /// Calls `f` with a runner for `tokens` tokens.
    pub fn run<R>(
        &self,
        tokens: usize,
        overlap: Option<usize>,
        f: impl FnOnce(&mut TextRunner<'_, '_>) -> R,
    ) -> R {
        let (mut ids, mut types) = (vec![0; tokens], vec![0; tokens]);
        let (mut offsets, mut words) = (vec![(0, 0); tokens], vec![0; tokens]);
        let mut scratch = vec![0; self.model().config().scratch_len(tokens)];
        let encoder = Encoder::new(self.model(), Isa::detect(), &mut scratch, tokens).unwrap();
        let buffer = TokenBuffer {
            input_ids: &mut ids,
            token_type_ids: &mut types,
            offsets: &mut offsets,
            words: &mut words,
        };
        f(&mut TextRunner::new(encoder, buffer).with_overlap(overlap))
    }

    /// Calls `f` with an encoder for `tokens` tokens.
    pub fn encode<R>(&self, tokens: usize, f: impl FnOnce(&mut Encoder<'_, '_>) -> R) -> R {
        let model = self.model();
        let mut scratch = vec![0; model.config().scratch_len(tokens)];
        f(&mut Encoder::new(model, Isa::detect(), &mut scratch, tokens).unwrap())
    }
}
