//! Heads of fine-tuned checkpoints: their logits, and the scores that follow from these.
//!
//! Each head requests logits from the encoder ([`Output::Logits`], [`Output::MaskedLm`]) and turns them
//! into scores. The caller owns every buffer. The constructors return [`RunError::MissingHead`] if the
//! model does not have the head.

mod math;

pub(crate) use math::ln;
pub use math::{argmax, sigmoid, softmax};

use std::ops::Range;

use crate::encoder::{Encoder, Input};
use crate::error::RunError;
use crate::format::{Labels, Model, ProblemType, ScoreActivation};
use crate::outputs::{Head, Output, require_masked_lm};
use math::exp;

fn logits(
    encoder: &mut Encoder<'_, '_>,
    input: &Input<'_>,
    head: Head,
    out: &mut [f32],
) -> Result<(), RunError> {
    encoder.encode(input, &mut [Output::Logits { head, out }])
}

/// One label per token (`BertForTokenClassification`).
#[derive(Clone, Copy, Debug)]
pub struct TokenClassifier<'a> {
    labels: Labels<'a>,
    count: usize,
}

impl<'a> TokenClassifier<'a> {
    /// The token classifier of a model.
    ///
    /// # Errors
    /// [`RunError::MissingHead`].
    pub fn new(model: &Model<'a>) -> Result<Self, RunError> {
        Ok(Self { labels: model.labels(), count: Head::TokenClassifier.require(model, 1)? })
    }

    /// Names of the labels.
    pub fn labels(&self) -> Labels<'a> {
        self.labels
    }

    /// Number of values that [`TokenClassifier::logits`] writes: tokens times labels.
    pub fn logits_len(&self, tokens: usize) -> usize {
        tokens * self.count
    }

    /// Writes `[tokens][labels]` logits.
    ///
    /// # Errors
    /// Those of [`Encoder::encode`].
    pub fn logits(
        &self,
        encoder: &mut Encoder<'_, '_>,
        input: &Input<'_>,
        out: &mut [f32],
    ) -> Result<(), RunError> {
        logits(encoder, input, Head::TokenClassifier, out)
    }
}

/// What turns the logits of a text into scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreFunction {
    /// Nothing: scores are the logits.
    Identity,
    /// One sigmoid per label.
    Sigmoid,
    /// A softmax over the labels.
    Softmax,
}

impl ScoreFunction {
    /// Its name: `identity`, `sigmoid` or `softmax`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Sigmoid => "sigmoid",
            Self::Softmax => "softmax",
        }
    }
}

/// Labels of an input, a text or a pair of texts (`BertForSequenceClassification`).
#[derive(Clone, Copy, Debug)]
pub struct SequenceClassifier<'a> {
    labels: Labels<'a>,
    count: usize,
    problem: ProblemType,
    activation: ScoreActivation,
}

impl<'a> SequenceClassifier<'a> {
    /// The sequence classifier of a model.
    ///
    /// # Errors
    /// [`RunError::MissingHead`].
    pub fn new(model: &Model<'a>) -> Result<Self, RunError> {
        let count = Head::SequenceClassifier.require(model, 1)?;
        let (problem, activation) = (model.problem_type(), model.score_activation());
        Ok(Self { labels: model.labels(), count, problem, activation })
    }

    /// Names of the labels.
    pub fn labels(&self) -> Labels<'a> {
        self.labels
    }

    /// What logits mean.
    pub fn problem(&self) -> ProblemType {
        self.problem
    }

    /// Number of values that [`SequenceClassifier::logits`] writes: one per label.
    pub fn logits_len(&self) -> usize {
        self.count
    }

    /// Writes `[labels]` logits.
    ///
    /// # Errors
    /// Those of [`Encoder::encode`].
    pub fn logits(
        &self,
        encoder: &mut Encoder<'_, '_>,
        input: &Input<'_>,
        out: &mut [f32],
    ) -> Result<(), RunError> {
        logits(encoder, input, Head::SequenceClassifier, out)
    }

    /// The function that turns logits into scores: the activation that the checkpoint states, as
    /// cross-encoders do, else what its problem type means.
    pub fn score_function(&self) -> ScoreFunction {
        match (self.activation, self.problem) {
            (ScoreActivation::Identity, _)
            | (ScoreActivation::OfProblem, ProblemType::Regression) => ScoreFunction::Identity,
            // The softmax of one logit is 1, whatever the text.
            (ScoreActivation::OfProblem, ProblemType::SingleLabel) if self.count > 1 => {
                ScoreFunction::Softmax
            }
            _ => ScoreFunction::Sigmoid,
        }
    }

    /// Turns logits into scores, in place; see [`SequenceClassifier::score_function`].
    pub fn scores(&self, logits: &mut [f32]) {
        match self.score_function() {
            ScoreFunction::Softmax => softmax(logits),
            ScoreFunction::Sigmoid => logits.iter_mut().for_each(|x| *x = sigmoid(*x)),
            ScoreFunction::Identity => {}
        }
    }
}

/// A candidate for a `[MASK]`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fill {
    /// Token id.
    pub id: u32,
    /// Probability among all words of the vocabulary.
    pub score: f32,
}

/// Words for masked tokens (`BertForMaskedLM`).
#[derive(Clone, Copy, Debug)]
pub struct MaskedLm {
    vocab: usize,
}

impl MaskedLm {
    /// The masked-word head of a model.
    ///
    /// # Errors
    /// [`RunError::MissingHead`].
    pub fn new(model: &Model<'_>) -> Result<Self, RunError> {
        require_masked_lm(model)?;
        Ok(Self { vocab: model.config().vocab_size })
    }

    /// Number of values that [`MaskedLm::logits`] writes: positions times vocabulary.
    pub fn logits_len(&self, positions: usize) -> usize {
        positions * self.vocab
    }

    /// Writes `[positions][vocabulary]` logits.
    ///
    /// # Errors
    /// Those of [`Encoder::encode`].
    pub fn logits(
        &self,
        encoder: &mut Encoder<'_, '_>,
        input: &Input<'_>,
        positions: &[usize],
        out: &mut [f32],
    ) -> Result<(), RunError> {
        encoder.encode(input, &mut [Output::MaskedLm { positions, out }])
    }

    /// Writes the most probable words of one position to `best`, in descending order; among equals,
    /// the lower id comes first. Turns `logits`, `[vocabulary]`, into probabilities. Returns how many
    /// entries were written: all, unless the vocabulary is smaller.
    pub fn top(&self, logits: &mut [f32], best: &mut [Fill]) -> usize {
        softmax(logits);
        let mut count = 0;
        for (id, score) in logits.iter().copied().enumerate() {
            // Almost every word stops here: its score does not exceed the lowest of the best.
            if count == best.len() && best.last().is_none_or(|last| score <= last.score) {
                continue;
            }
            let at = best[..count].partition_point(|fill| fill.score >= score);
            count = (count + 1).min(best.len());
            if at < count {
                best[at..count].rotate_right(1);
                best[at] = Fill { id: id as u32, score };
            }
        }
        count
    }
}

/// Whether the second text of a pair continues the first (`BertForNextSentencePrediction`).
#[derive(Clone, Copy, Debug)]
pub struct NextSentence(());

impl NextSentence {
    /// The next-sentence head of a model.
    ///
    /// # Errors
    /// [`RunError::MissingHead`].
    pub fn new(model: &Model<'_>) -> Result<Self, RunError> {
        Head::NextSentence.require(model, 1)?;
        Ok(Self(()))
    }

    /// The two logits: "is next", "is not".
    ///
    /// # Errors
    /// Those of [`Encoder::encode`].
    pub fn logits(
        &self,
        encoder: &mut Encoder<'_, '_>,
        input: &Input<'_>,
    ) -> Result<[f32; 2], RunError> {
        let mut out = [0.0; 2];
        logits(encoder, input, Head::NextSentence, &mut out)?;
        Ok(out)
    }

    /// The probability of "is next".
    pub fn score(&self, mut logits: [f32; 2]) -> f32 {
        softmax(&mut logits);
        logits[0]
    }
}

/// A span of tokens that answers a question.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AnswerSpan {
    /// Index of the first token.
    pub first: usize,
    /// Index of the last token.
    pub last: usize,
    /// Probability of the start times that of the end.
    pub score: f32,
}

/// Answers in a passage (`BertForQuestionAnswering`).
#[derive(Clone, Copy, Debug)]
pub struct QuestionAnswering(());

impl QuestionAnswering {
    /// Default length limit of an answer in tokens, the same as in transformers.
    pub const MAX_ANSWER: usize = 15;

    /// The question-answering head of a model.
    ///
    /// # Errors
    /// [`RunError::MissingHead`].
    pub fn new(model: &Model<'_>) -> Result<Self, RunError> {
        Head::QuestionAnswering.require(model, 1)?;
        Ok(Self(()))
    }

    /// Number of values that [`QuestionAnswering::logits`] writes: two per token.
    pub fn logits_len(&self, tokens: usize) -> usize {
        2 * tokens
    }

    /// Writes `[tokens][2]` logits: start and end of the answer.
    ///
    /// # Errors
    /// Those of [`Encoder::encode`].
    pub fn logits(
        &self,
        encoder: &mut Encoder<'_, '_>,
        input: &Input<'_>,
        out: &mut [f32],
    ) -> Result<(), RunError> {
        logits(encoder, input, Head::QuestionAnswering, out)
    }

    /// The best span of at most `longest` tokens within `context`; `None` if there is no span.
    ///
    /// As in transformers, probabilities are taken over the context and the first token: `[CLS]`,
    /// which some checkpoints point to if there is no answer. Among equal spans the first one wins.
    pub fn best(
        &self,
        logits: &[f32],
        context: Range<usize>,
        longest: usize,
    ) -> Option<AnswerSpan> {
        let rows = logits.as_chunks::<2>().0;
        let context = context.start..context.end.min(rows.len());
        let mut best: Option<(usize, usize, f32)> = None;
        for first in context.clone() {
            for last in first..context.end.min(first.saturating_add(longest)) {
                let sum = rows[first][0] + rows[last][1];
                if best.is_none_or(|(.., most)| sum > most) {
                    best = Some((first, last, sum));
                }
            }
        }
        let (first, last, _) = best?;
        let probability = |which: usize, at: usize| {
            let cls = (context.start > 0).then_some(0);
            let candidates = || cls.into_iter().chain(context.clone()).map(|t| rows[t][which]);
            let largest = candidates().fold(f32::MIN, f32::max);
            let sum: f64 = candidates().map(|x| f64::from(exp(x - largest))).sum();
            exp(rows[at][which] - largest) / sum as f32
        };
        Some(AnswerSpan { first, last, score: probability(0, first) * probability(1, last) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_is_what_sorting_gives() {
        let head = MaskedLm { vocab: 0 };
        let mut state = 7u32;
        for n in [0, 1, 2, 5, 40, 60] {
            let logits: Vec<f32> = (0..50)
                .map(|_| {
                    state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
                    // Few different values, so that there are ties.
                    (state >> 28) as f32
                })
                .collect();
            let mut probabilities = logits.clone();
            let mut best = vec![Fill::default(); n];
            let count = head.top(&mut probabilities, &mut best);
            assert_eq!(count, n.min(50));
            let mut order: Vec<usize> = (0..50).collect();
            order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
            let ids: Vec<usize> = best[..count].iter().map(|fill| fill.id as usize).collect();
            assert_eq!(ids, order[..count]);
        }
    }

    #[test]
    fn answers_lie_in_the_context_and_are_not_too_long() {
        let head = QuestionAnswering(());
        // Token 1 (the question) has the best start, 5 the best end, but too far from start 2.
        let logits =
            [[0.0, 0.0], [9.0, 9.0], [5.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 6.0], [8.0, 0.0]];
        let best = |context, longest| {
            head.best(logits.as_flattened(), context, longest).map(|a| (a.first, a.last))
        };
        assert_eq!(best(2..6, 15), Some((2, 5)));
        assert_eq!(best(2..6, 3), Some((3, 5)));
        assert_eq!(best(2..6, 1), Some((5, 5)));
        assert_eq!(best(2..7, 15), Some((2, 5)), "an end before its start is no answer");
        assert_eq!(best(2..6, 0), None);
        assert_eq!(best(6..6, 15), None);
        assert_eq!(best(3..99, usize::MAX), Some((6, 6)));
        let answer = head.best(logits.as_flattened(), 2..6, 15).unwrap();
        let e = |x: f32| x.exp();
        let start = e(5.0) / (e(0.0) + e(5.0) + e(1.0) + e(0.0) + e(0.0));
        let end = e(6.0) / (e(0.0) + e(0.0) + e(1.0) + e(1.0) + e(6.0));
        assert!((answer.score - start * end).abs() < 1e-6);
    }
}
