//! Features of words: hidden states of their first tokens, combined and standardised.

use bertlet::tokenizer::NO_WORD;
use bertlet::{Combine, Input, Layers, Model, Output, Pooling, RunError, Session};
use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::train::Rows;
use crate::evaluate::Inputs;

/// All hidden states of the first token of each word.
pub(super) struct WordFeatures {
    hidden: usize,
    /// Embeddings first, each `[words, hidden]`. They take most of the memory, and f16 halves it. Its error is far
    /// below that of int8 weights.
    states: Vec<Vec<f16>>,
    /// Sentence, and word in the sentence. Words without tokens and words that were cut off are left out.
    pub(super) places: Vec<(usize, usize)>,
}

impl WordFeatures {
    pub(super) fn new(
        model: Model<'_>,
        inputs: &Inputs,
        progress: &mut dyn FnMut(usize),
    ) -> std::result::Result<Self, RunError> {
        // Sentences per call of `progress`. The states of all their tokens are in memory.
        const AT_ONCE: usize = 256;
        let (hidden, count) = (model.config().hidden_size, model.config().num_hidden_layers + 1);
        let firsts: Vec<Vec<usize>> =
            inputs.words.iter().map(|words| first_tokens(words)).collect();
        let total: usize = firsts.iter().map(Vec::len).sum();
        let mut states: Vec<Vec<f16>> =
            (0..count).map(|_| Vec::with_capacity(total * hidden)).collect();
        let mut places = Vec::with_capacity(total);
        for (i, (words, firsts)) in inputs.words.iter().zip(&firsts).enumerate() {
            places.extend(firsts.iter().map(|&token| (i, words[token] as usize)));
        }
        for start in (0..inputs.batch.len()).step_by(AT_ONCE) {
            let range = start..inputs.batch.len().min(start + AT_ONCE);
            let group = range
                .clone()
                .into_par_iter()
                .map_init(
                    || (Session::new(model), Vec::new()),
                    |(session, room), i| {
                        let ids = &inputs.batch[i].ids;
                        room.resize(count * ids.len() * hidden, 0f32);
                        let feature = |(i, out)| Output::Features {
                            layers: Layers::one(i as i16),
                            pooling: Pooling::None,
                            normalize: false,
                            out,
                        };
                        let parts = room.chunks_exact_mut(ids.len() * hidden);
                        let mut outputs: Vec<_> = parts.enumerate().map(feature).collect();
                        session.encode(&Input::new(ids), &mut outputs)?;
                        let first = |state: &[f32]| -> Vec<f16> {
                            let mut kept = vec![f16::ZERO; firsts[i].len() * hidden];
                            for (kept, t) in kept.chunks_exact_mut(hidden).zip(&firsts[i]) {
                                kept.convert_from_f32_slice(&state[t * hidden..][..hidden]);
                            }
                            kept
                        };
                        Ok(room.chunks_exact(ids.len() * hidden).map(first).collect::<Vec<_>>())
                    },
                )
                .collect::<std::result::Result<Vec<_>, RunError>>()?;
            for sentence in group {
                for (all, part) in states.iter_mut().zip(sentence) {
                    all.extend_from_slice(&part);
                }
            }
            progress(range.end);
        }
        Ok(Self { hidden, states, places })
    }

    /// Writes the features of a word to `out`, not scaled.
    fn read(&self, selection: &Layers, word: usize, out: &mut [f32]) {
        const PIECE: usize = 128;
        let row = |state: usize| &self.states[state][word * self.hidden..][..self.hidden];
        let states = selection.states(self.states.len() - 1);
        if selection.combine() == Combine::Concat {
            for (out, state) in out.chunks_exact_mut(self.hidden).zip(states) {
                row(state.index).convert_to_f32_slice(out);
            }
            return;
        }
        for (i, state) in states.enumerate() {
            if i == 0 {
                row(state.index).convert_to_f32_slice(out);
                continue;
            }
            let mut room = [0f32; PIECE];
            for (out, state) in out.chunks_mut(PIECE).zip(row(state.index).chunks(PIECE)) {
                let piece = &mut room[..state.len()];
                state.convert_to_f32_slice(piece);
                out.iter_mut().zip(piece).for_each(|(out, x)| *out += *x);
            }
        }
    }
}

/// The first token of every word.
fn first_tokens(words: &[u32]) -> Vec<usize> {
    let begins = |&t: &usize| words[t] != NO_WORD && (t == 0 || words[t - 1] != words[t]);
    (0..words.len()).filter(begins).collect()
}

/// The features of a selection, standardised to mean 0 and deviation 1 over the words it was made from.
#[derive(Clone)]
pub(super) struct Scaled<'w> {
    words: &'w WordFeatures,
    selection: Layers,
    mean: Vec<f32>,
    scale: Vec<f32>,
}

impl<'w> Scaled<'w> {
    pub(super) fn new(words: &'w WordFeatures, selection: Layers) -> Self {
        // The parts have a fixed size, so that the number of threads does not change a sum.
        const PART: usize = 4096;
        let width = match selection.combine() {
            Combine::Concat => words.hidden * selection.states(words.states.len() - 1).count(),
            _ => words.hidden,
        };
        let count = words.places.len();
        let sums = |part: usize| {
            let (mut row, mut sums) = (vec![0f32; width], vec![[0f64; 2]; width]);
            for word in part * PART..count.min((part + 1) * PART) {
                words.read(&selection, word, &mut row);
                for ([sum, square], &x) in sums.iter_mut().zip(&row) {
                    *sum += f64::from(x);
                    *square += f64::from(x) * f64::from(x);
                }
            }
            sums
        };
        let parts: Vec<_> = (0..count.div_ceil(PART)).into_par_iter().map(sums).collect();
        let moments = (0..width).map(|i| {
            let total = |k: usize| parts.iter().map(|part| part[i][k]).sum::<f64>() / count as f64;
            let mean = total(0);
            let deviation = libm::sqrt((total(1) - mean * mean).max(0.0));
            // A constant feature is dropped.
            let scale = if deviation > 1e-6 { 1.0 / deviation } else { 0.0 };
            (mean as f32, scale as f32)
        });
        let (mean, scale) = moments.unzip();
        Self { words, selection, mean, scale }
    }

    /// The same features of other words, scaled as these are.
    pub(super) fn on<'o>(&self, words: &'o WordFeatures) -> Scaled<'o> {
        let Self { selection, mean, scale, .. } = self.clone();
        Scaled { words, selection, mean, scale }
    }
}

impl Rows for Scaled<'_> {
    fn count(&self) -> usize {
        self.words.places.len()
    }

    fn width(&self) -> usize {
        self.mean.len()
    }

    fn read(&self, row: usize, out: &mut [f32]) {
        self.words.read(&self.selection, row, out);
        for ((x, mean), scale) in out.iter_mut().zip(&self.mean).zip(&self.scale) {
            *x = (*x - mean) * scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_scaled_after_they_are_combined() {
        let state = |values: [f32; 6]| values.map(f16::from_f32).to_vec();
        let words = WordFeatures {
            hidden: 2,
            states: vec![
                state([0.0; 6]),
                state([1.0, 5.0, 2.0, 5.0, 3.0, 5.0]),
                state([1.0, 1.0, 3.0, 0.0, 5.0, 2.0]),
            ],
            places: vec![(0, 0), (0, 1), (1, 0)],
        };
        let read = |spelling: &str| {
            let selection = spelling.parse::<Layers>().unwrap();
            let scaled = Scaled::new(&words, selection);
            let mut out = vec![0.0; scaled.width()];
            scaled.read(2, &mut out);
            out
        };
        let unit = 1.5f32.sqrt();
        let close = |found: Vec<f32>, want: &[f32]| {
            let near = found.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6);
            assert!(near && found.len() == want.len(), "{found:?} {want:?}");
        };
        // 2, 5, 8 and 6, 5, 7.
        close(read("sum:all"), &[unit, unit]);
        // What is constant stays out.
        close(read("concat:1,2"), &[unit, 0.0, unit, unit]);
        close(read("0"), &[0.0, 0.0]);
    }

    #[test]
    fn a_word_begins_at_its_first_token() {
        assert_eq!(first_tokens(&[NO_WORD, 0, 0, 1, 3, 3, NO_WORD]), [1, 3, 4]);
    }
}
