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

/// Inserts an item into a list that is sorted by score, best first; among equals, the earlier one comes
/// first. Of a full list the last item falls out. `count` is the number of items in the list.
#[inline]
pub(crate) fn keep_best<T>(best: &mut [T], count: &mut usize, item: T, score: impl Fn(&T) -> f32) {
    let new = score(&item);
    // Almost every item stops here: its score does not exceed the lowest of the best.
    if *count == best.len() && best.last().is_none_or(|last| new <= score(last)) {
        return;
    }
    let at = best[..*count].partition_point(|item| score(item) >= new);
    *count = (*count + 1).min(best.len());
    if at < *count {
        best[at..*count].rotate_right(1);
        best[at] = item;
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
            keep_best(best, &mut count, Fill { id: id as u32, score }, |fill| fill.score);
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

    /// Turns logits into probabilities, in place: those of starts and those of ends, each over the
    /// context and the first token. That is `[CLS]`, which checkpoints point to where the context has
    /// no answer. Returns the probability of no answer: that of a start times that of an end at
    /// `[CLS]`; 0 where the context holds the first token. The other rows are left as they are.
    pub fn probabilities(&self, logits: &mut [f32], context: Range<usize>) -> f32 {
        let rows = logits.as_chunks_mut::<2>().0;
        let context = context.start..context.end.min(rows.len());
        let cls = (context.start > 0 && !rows.is_empty()).then_some(0);
        let candidates = || cls.into_iter().chain(context.clone());
        for which in [0, 1] {
            let largest = candidates().fold(f32::MIN, |most, t| most.max(rows[t][which]));
            let mut sum = 0f64;
            for t in candidates() {
                rows[t][which] = exp(rows[t][which] - largest);
                sum += f64::from(rows[t][which]);
            }
            candidates().for_each(|t| rows[t][which] /= sum as f32);
        }
        cls.map_or(0.0, |cls| rows[cls][0] * rows[cls][1])
    }

    /// All spans of at most `longest` tokens within `context`, with their probabilities. `probabilities`
    /// are those of [`QuestionAnswering::probabilities`].
    pub fn spans<'p>(
        &self,
        probabilities: &'p [f32],
        context: Range<usize>,
        longest: usize,
    ) -> impl Iterator<Item = AnswerSpan> + use<'p> {
        let rows = probabilities.as_chunks::<2>().0;
        let end = context.end.min(rows.len());
        (context.start..end).flat_map(move |first| {
            let lasts = first..end.min(first.saturating_add(longest));
            lasts.map(move |last| AnswerSpan { first, last, score: rows[first][0] * rows[last][1] })
        })
    }

    /// The best span of at most `longest` tokens within `context`; `None` if there is no span. Turns
    /// `logits` into probabilities. Among equal spans the first one wins.
    pub fn best(
        &self,
        logits: &mut [f32],
        context: Range<usize>,
        longest: usize,
    ) -> Option<AnswerSpan> {
        self.probabilities(logits, context.clone());
        let (mut best, mut count) = ([AnswerSpan::default()], 0);
        for span in self.spans(logits, context, longest) {
            keep_best(&mut best, &mut count, span, |span| span.score);
        }
        best.first().copied().filter(|_| count > 0)
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
            let mut logits = logits;
            head.best(logits.as_flattened_mut(), context, longest).map(|a| (a.first, a.last))
        };
        assert_eq!(best(2..6, 15), Some((2, 5)));
        assert_eq!(best(2..6, 3), Some((3, 5)));
        assert_eq!(best(2..6, 1), Some((5, 5)));
        assert_eq!(best(2..7, 15), Some((2, 5)), "an end before its start is not an answer");
        assert_eq!(best(2..6, 0), None);
        assert_eq!(best(6..6, 15), None);
        assert_eq!(best(3..99, usize::MAX), Some((6, 6)));
        let answer = head.best(logits.clone().as_flattened_mut(), 2..6, 15).unwrap();
        let e = |x: f32| x.exp();
        let start = e(5.0) / (e(0.0) + e(5.0) + e(1.0) + e(0.0) + e(0.0));
        let end = e(6.0) / (e(0.0) + e(0.0) + e(1.0) + e(1.0) + e(6.0));
        assert!((answer.score - start * end).abs() < 1e-6);

        let mut probabilities = logits;
        let none = head.probabilities(probabilities.as_flattened_mut(), 2..6);
        let expected = e(0.0) / (e(0.0) + e(5.0) + e(1.0) + e(0.0) + e(0.0)) * end / e(6.0);
        assert!((none - expected).abs() < 1e-6);
        assert_eq!(head.spans(probabilities.as_flattened(), 2..6, 2).count(), 4 + 3);
        assert_eq!(head.probabilities(&mut [], 0..0), 0.0);
        assert_eq!(head.probabilities(&mut [1.0, 1.0], 1..1), 1.0, "no context, no answer");
        assert_eq!(head.probabilities(&mut [1.0, 1.0], 0..1), 0.0, "the context is all there is");
    }
}
