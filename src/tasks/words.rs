//! Vectors of words from vectors of their tokens.

use super::TaskError;

/// Which of a word's tokens stand for it.
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
    /// All of them, by the names that the command line uses.
    pub const NAMES: [(&'static str, Self); 3] =
        [("first", Self::First), ("mean", Self::Mean), ("last", Self::Last)];

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(n, _)| *n == name).map(|(_, pooling)| *pooling)
    }
}

/// Makes `[words][width]` vectors of `[tokens][width]` vectors.
///
/// `words` is `[tokens]`: the word of each token, as the tokenizer tells ([`crate::tokenizer::NO_WORD`]
/// and anything else beyond `counts` belongs to none). `counts` is `[words]`, and gets the tokens of each
/// word. Words without a token (invisible characters, or cut off) have 0 there and zeros for a vector.
///
/// # Errors
/// [`TaskError::Buffer`] where lengths do not agree.
pub fn pool_words(
    features: &[f32],
    words: &[u32],
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
            return Err(TaskError::Buffer { what, need, have });
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
            pool_words(&features, &words, pooling, &mut counts, &mut out).unwrap();
            assert_eq!((counts, out), ([1, 0, 3], expected));
        }
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let mut counts = [0; 2];
        assert!(
            pool_words(&[0.0; 5], &[0, 1], WordPooling::Mean, &mut counts, &mut [0.0; 4]).is_err()
        );
        assert!(
            pool_words(&[0.0; 4], &[0, 1], WordPooling::Mean, &mut counts, &mut [0.0; 3]).is_err()
        );
        assert!(pool_words(&[], &[], WordPooling::Mean, &mut [], &mut []).is_ok());
    }
}
