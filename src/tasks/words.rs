//! Vectors of words from vectors of their tokens.

use super::TaskError;
use super::rows::{Arena, Rows, ScratchLen, TokenTable, part, scratch_size};
use super::runner::{Features, RunInfo, Text, TextRunner};

use crate::error::TooSmall;
use crate::outputs::{Layers, Pooling, l2_normalize};

/// Which of a word's tokens represent it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WordPooling {
    /// The first (BERT, 1810.04805, section 5.3).
    #[default]
    First,
    /// All, by their mean.
    Mean,
    /// The last.
    Last,
}

impl WordPooling {
    /// All choices with the names that the command uses.
    pub const NAMES: [(&'static str, Self); 3] =
        [("first", Self::First), ("mean", Self::Mean), ("last", Self::Last)];

    /// The choice with this name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(n, _)| *n == name).map(|(_, pooling)| *pooling)
    }
}

/// A choice of word vectors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WordFeatures {
    /// Which hidden states, and how they are combined.
    pub layers: Layers,
    /// Which of a word's tokens represent it.
    pub pooling: WordPooling,
    /// Whether each word's vector is divided by its Euclidean length.
    pub normalize: bool,
}

/// The scratch of word vectors for this many values per token, and windows of this many tokens.
struct Layout {
    width: usize,
    window: usize,
}

impl ScratchLen for Layout {
    fn bytes(&self, rows: usize) -> usize {
        [
            part(rows).saturating_mul(TokenTable::COLUMNS),
            part(rows.saturating_mul(self.width)),
            part(self.window.saturating_mul(self.width)),
            // Up to the first multiple of 64.
            64,
        ]
        .into_iter()
        .fold(0, usize::saturating_add)
    }
}

impl TextRunner<'_, '_> {
    /// Writes the vectors of words to `out`, `[words][width]`, and the tokens of each to `counts`,
    /// `[words]`. Words without a token (invisible characters, or cut off) have 0 there and zeros for
    /// a vector. With an overlap nothing is cut.
    ///
    /// # Errors
    /// Any [`TaskError`]. [`TaskError::TooSmall`] says how many bytes of scratch the text needs: 20 per
    /// token and 4 per value of its vector, and the same values for a window.
    pub fn word_vectors(
        &mut self,
        words: &[&str],
        features: &WordFeatures,
        scratch: &mut [u8],
        (counts, out): (&mut [u32], &mut [f32]),
    ) -> Result<RunInfo, TaskError> {
        let (tokenizer, limit) = (self.tokenizer()?, self.row_limit()?);
        let WordFeatures { layers, pooling, normalize } = *features;
        let each = Features { layers, pooling: Pooling::None, normalize: false };
        let width = crate::features_len(self.model().config(), 1, &layers, Pooling::None)?;
        let text = Text::Words(words);
        let layout = Layout { width, window: self.max_tokens };
        let bytes = scratch.len();
        let capacity = layout.rows(bytes, limit);
        if layout.bytes(capacity) > bytes {
            let rows = TokenTable::default().read(&tokenizer, text, limit)?.rows;
            return Err(scratch_size(layout.bytes(rows), bytes).into());
        }
        let mut arena = Arena::new(scratch, layout.bytes(capacity))?;
        let mut tokens = TokenTable::new(&mut arena, capacity)?;
        let (all, window) = (arena.take(capacity * width)?, arena.take(layout.window * width)?);
        let read = tokens.read(&tokenizer, text, limit)?;
        if read.rows > capacity {
            return Err(scratch_size(layout.bytes(read.rows), bytes).into());
        }
        let mut rows = Rows { all: &mut all[..read.rows * width], window, width };
        let ran = self.run_rows(&tokens, &mut rows, &mut |encoder, input, out| {
            encoder.encode(input, &mut [each.output(out)])
        })?;
        pool_words((rows.all, tokens.words), pooling, counts, out)?;
        if normalize {
            out.chunks_exact_mut(width).for_each(l2_normalize);
        }
        Ok(RunInfo { truncated: read.truncated, ..ran })
    }
}

/// Pools `[tokens][width]` vectors, given with the word of each token, to `[words][width]`. Tokens of
/// words beyond `counts`, such as [`NO_WORD`](crate::tokenizer::NO_WORD), are left out.
fn pool_words(
    (features, words): (&[f32], &[u32]),
    pooling: WordPooling,
    counts: &mut [u32],
    out: &mut [f32],
) -> Result<(), TaskError> {
    let width = features.len().checked_div(words.len()).unwrap_or(0);
    for (what, need, have) in [
        ("token vectors", width * words.len(), features.len()),
        ("word vectors", width * counts.len(), out.len()),
    ] {
        if need != have {
            return Err(TooSmall { what, need, have }.into());
        }
    }
    counts.fill(0);
    out.fill(0.0);
    for (token, word) in words.iter().enumerate() {
        let word = *word as usize;
        let Some(count) = counts.get_mut(word) else { continue };
        let vector = &features[token * width..][..width];
        let out = &mut out[word * width..][..width];
        match pooling {
            WordPooling::First if *count > 0 => {}
            WordPooling::First | WordPooling::Last => out.copy_from_slice(vector),
            WordPooling::Mean => out.iter_mut().zip(vector).for_each(|(out, x)| *out += x),
        }
        *count += 1;
    }
    if pooling == WordPooling::Mean && width > 0 {
        for (out, count) in out.chunks_exact_mut(width).zip(&*counts) {
            let count = (*count).max(1) as f32;
            out.iter_mut().for_each(|x| *x /= count);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::NO_WORD;

    #[test]
    fn first_mean_and_last() {
        let words = [NO_WORD, 0, 2, 2, 2, NO_WORD];
        let features: Vec<f32> = (0..12).map(|x| x as f32).collect();
        for (pooling, expected) in [
            (WordPooling::First, [2.0, 3.0, 0.0, 0.0, 4.0, 5.0]),
            (WordPooling::Mean, [2.0, 3.0, 0.0, 0.0, 6.0, 7.0]),
            (WordPooling::Last, [2.0, 3.0, 0.0, 0.0, 8.0, 9.0]),
        ] {
            let (mut counts, mut out) = ([9; 3], [9.0; 6]);
            pool_words((&features, &words), pooling, &mut counts, &mut out).unwrap();
            assert_eq!((counts, out), ([1, 0, 3], expected));
        }
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let mut counts = [0; 2];
        assert!(
            pool_words((&[0.0; 5], &[0, 1]), WordPooling::Mean, &mut counts, &mut [0.0; 4])
                .is_err()
        );
        assert!(
            pool_words((&[0.0; 4], &[0, 1]), WordPooling::Mean, &mut counts, &mut [0.0; 3])
                .is_err()
        );
        assert!(pool_words((&[], &[]), WordPooling::Mean, &mut [], &mut []).is_ok());
    }
}
