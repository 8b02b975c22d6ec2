//! Overlapping windows over a long text, and which window decides about which token.

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
    /// them: what is asked beyond that is cut.
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

    /// The tokens that window `i` decides about: those that lie farther from its cut ends than from
    /// those of any other window. The ends of the text cut nothing. Every token is owned once.
    pub fn owned(&self, i: usize) -> Range<usize> {
        // Halfway between the start of one window and the end of the one before it.
        let border = |i: usize| (self.window(i).start + self.window(i - 1).end).div_ceil(2);
        let start = if i == 0 { 0 } else { border(i) };
        start..if i + 1 >= self.count() { self.tokens } else { border(i + 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_belongs_to_the_window_that_sees_most_around_it() {
        for tokens in 0..40 {
            for size in 1..12 {
                for overlap in 0..size {
                    let plan = WindowPlan::new(tokens, size, overlap);
                    let count = plan.count();
                    assert_eq!(plan.window(count - 1).end, tokens);
                    assert!(count == 1 || plan.window(count - 2).end < tokens);
                    let margin = |i: usize, t: usize| {
                        let Range { start, end } = plan.window(i);
                        let left = if start == 0 { usize::MAX } else { t - start };
                        let right = if end == tokens { usize::MAX } else { end - 1 - t };
                        left.min(right)
                    };
                    let mut next = 0;
                    for i in 0..count {
                        for t in plan.owned(i) {
                            assert_eq!(t, next);
                            next += 1;
                            assert!(plan.window(i).contains(&t));
                            for other in (0..count).filter(|w| plan.window(*w).contains(&t)) {
                                assert!(margin(i, t) >= margin(other, t), "{plan:?} {i} {t}");
                            }
                        }
                    }
                    assert_eq!(next, tokens);
                }
            }
        }
    }

    #[test]
    fn odd_sizes_are_cut() {
        assert_eq!(WindowPlan::new(3, 0, 9).count(), 3);
        assert_eq!(WindowPlan::new(0, 5, 2).owned(0), 0..0);
    }
}
