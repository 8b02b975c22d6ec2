//! Overlapping windows over a long text, and which window's result counts for which token.

use std::ops::Range;

/// Windows of `size` tokens, each starting `size - overlap` tokens after the one before it; the last
/// is the first that reaches the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowPlan {
    tokens: usize,
    size: usize,
    step: usize,
}

impl WindowPlan {
    /// Windows over `tokens` tokens. A window holds at least one token and shares less than all of
    /// them: larger overlaps are reduced.
    pub fn new(tokens: usize, size: usize, overlap: usize) -> Self {
        let size = size.max(1);
        Self { tokens, size, step: size - overlap.min(size - 1) }
    }

    /// Number of windows; 1 even for no tokens.
    pub fn count(&self) -> usize {
        1 + self.tokens.saturating_sub(self.size).div_ceil(self.step)
    }

    /// The tokens of window `i`.
    pub fn window(&self, i: usize) -> Range<usize> {
        let start = i.saturating_mul(self.step).min(self.tokens);
        start..start.saturating_add(self.size).min(self.tokens)
    }

    /// The window whose result counts for a token, where `word` is the range of its word's tokens.
    ///
    /// All tokens of a word come from the window that has the most tokens on the word's shorter side,
    /// so from the one with the most context. The ends of the text are not cut, so they count as any
    /// amount of context. Of equal windows the first counts. A word that no window holds with context
    /// on both sides is divided: each of its tokens then follows the rule as if it were a word.
    pub fn owner(&self, token: usize, word: Range<usize>) -> usize {
        let i = self.nearest(&word);
        let Range { start, end } = self.window(i);
        let whole = (i == 0 || word.start > start) && (i + 1 == self.count() || word.end < end);
        if whole { i } else { self.nearest(&(token..token + 1)) }
    }

    /// The first of the windows with the most tokens on the shorter side of `range`.
    fn nearest(&self, range: &Range<usize>) -> usize {
        // Window i is better than i - 1 where its start is farther away than the other's end:
        // range.start - i step > (i - 1) step + size - range.end.
        let Some(beyond) = (range.start + range.end).checked_sub(self.size + 1) else { return 0 };
        (beyond / self.step).div_ceil(2).min(self.count() - 1)
    }
}

/// Tokens that neighbouring windows share unless the caller says otherwise: a quarter of the
/// encoder's limit, or an eighth for a pair, as a window then holds less of each text.
pub const fn default_overlap(max_tokens: usize, pair: bool) -> usize {
    max_tokens / if pair { 8 } else { 4 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_belongs_to_the_window_with_the_most_context() {
        for tokens in 0..26 {
            for size in 1..9 {
                for overlap in 0..size {
                    let plan = WindowPlan::new(tokens, size, overlap);
                    let count = plan.count();
                    assert_eq!(plan.window(count - 1).end, tokens);
                    assert!(count == 1 || plan.window(count - 2).end < tokens);
                    // Tokens on the shorter side of a word in window `i`; `None` if it is cut.
                    let context = |i: usize, word: &Range<usize>| {
                        let Range { start, end } = plan.window(i);
                        let left = word.start.checked_sub(start)?;
                        let right = end.checked_sub(word.end)?;
                        let left = if start == 0 { usize::MAX } else { left };
                        Some(left.min(if end == tokens { usize::MAX } else { right }))
                    };
                    let best = |word: &Range<usize>| {
                        let windows = (0..count).rev();
                        windows.filter_map(|i| Some((context(i, word)?, i))).max_by_key(|(n, _)| *n)
                    };
                    for start in 0..tokens {
                        for end in start + 1..=tokens.min(start + size + 2) {
                            let word = start..end;
                            let whole = best(&word).filter(|(context, _)| *context > 0);
                            for t in word.clone() {
                                let expected = whole.or_else(|| best(&(t..t + 1))).unwrap().1;
                                assert_eq!(plan.owner(t, word.clone()), expected, "{plan:?} {t}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn odd_sizes_are_cut() {
        assert_eq!(WindowPlan::new(3, 0, 9).count(), 3);
        assert_eq!(WindowPlan::new(0, 5, 2).window(0), 0..0);
    }
}
