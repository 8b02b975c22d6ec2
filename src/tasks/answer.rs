//! Answers in a passage, and masked words.

use std::ops::Range;

use super::TaskError;
use super::runner::{RunInfo, Text, TextRunner, Window};
use crate::error::TooSmall;
use crate::heads::{AnswerSpan, QuestionAnswering, keep_best};
use crate::tokenizer::{Offset, OffsetCounter, TokenizeError, Tokenizer, Truncation};

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<'q> {
    /// Its text.
    pub text: &'q str,
    /// Tokens of the longest answer, before it is widened to whole words.
    pub max_answer: usize,
}

impl<'q> From<&'q str> for Question<'q> {
    fn from(text: &'q str) -> Self {
        Self { text, max_answer: QuestionAnswering::MAX_ANSWER }
    }
}

/// An answer found in a passage.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Answer<'t> {
    /// Its text, a slice of the passage.
    pub text: &'t str,
    /// Where it starts in the passage.
    pub start: Offset,
    /// Where it ends.
    pub end: Offset,
    /// Probability of the start times probability of the end.
    pub score: f32,
}

/// What [`TextRunner::answers`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Answered {
    /// Number of answers written.
    pub count: usize,
    /// Probability that the passage has no answer: that both start and end point to `[CLS]`; of several
    /// windows the lowest. Only checkpoints that were trained with such questions (SQuAD 2) know it well.
    pub no_answer: f32,
    /// How the passage was run.
    pub run: RunInfo,
}

impl Answered {
    /// Whether no answer is more probable than the best of the answers. Then transformers returns an empty
    /// text, if it is asked to with `handle_impossible_answer`.
    pub fn is_none(&self, answers: &[Answer<'_>]) -> bool {
        let best = answers[..self.count].first();
        best.is_none_or(|best| self.no_answer > best.score)
    }
}

impl TextRunner<'_, '_> {
    /// The overlap that windows over a passage usually have: a quarter of the tokens that a window
    /// holds of it, and at least one less than the longest answer has, so that each is in a window.
    ///
    /// # Errors
    /// [`TaskError::EncoderTooShort`] if the question leaves no room.
    pub fn answer_overlap<'q>(
        &self,
        question: impl Into<Question<'q>>,
    ) -> Result<usize, TaskError> {
        let (question, have) = (question.into(), self.max_tokens);
        let asked = self.tokenizer()?.count(question.text)?;
        match have.saturating_sub(asked + 3) {
            0 => Err(TaskError::EncoderTooShort { need: asked + 4, have }),
            room => Ok((room / 4).max(question.shared()).min(room - 1)),
        }
    }

    /// Finds the answer to a question in a passage: the first of [`TextRunner::answers`]; `None` in an
    /// empty one.
    ///
    /// # Errors
    /// Any [`TaskError`].
    pub fn answer<'q, 't>(
        &mut self,
        question: impl Into<Question<'q>>,
        passage: &'t str,
        logits: &mut [f32],
    ) -> Result<(Option<Answer<'t>>, RunInfo), TaskError> {
        let mut best = [Answer::default()];
        let found = self.answers(question, passage, logits, &mut best)?;
        Ok((best[..found.count].first().copied(), found.run))
    }

    /// Finds the most probable answers to a question in a passage, best first: as many as `best` has
    /// room for, no two with the same text. The question stays whole. With an overlap the passage may be
    /// of any length, and the answers are the most probable ones of all windows; windows share at least
    /// one token less than the longest answer has, so that no answer is lost where a window ends. An
    /// answer is widened to whole words, as transformers does.
    ///
    /// The token buffer needs all its parts; `logits` needs two values per token of the encoder.
    ///
    /// # Errors
    /// Any [`TaskError`]. [`TaskError::EncoderTooShort`] if the question leaves no room, or less room in
    /// a window than the longest answer needs.
    pub fn answers<'q, 't>(
        &mut self,
        question: impl Into<Question<'q>>,
        passage: &'t str,
        logits: &mut [f32],
        best: &mut [Answer<'t>],
    ) -> Result<Answered, TaskError> {
        let (head, question) = (QuestionAnswering::new(&self.model())?, question.into());
        let (buffer, need) = (&self.buffer, self.max_tokens);
        for (what, have) in [
            ("ids", buffer.input_ids.len()),
            ("token types", buffer.token_type_ids.len()),
            ("offsets", buffer.offsets.len()),
            ("words", buffer.words.len()),
            ("logits", logits.len() / 2),
        ] {
            if have < need {
                return Err(TooSmall { what, need, have }.into());
            }
        }
        let (tokenizer, overlap) = (self.tokenizer()?, self.overlap);
        let (mut count, mut no_answer) = (0, 1f32);
        let text = Text::Pair(question.text, passage);
        if let Some(overlap) = overlap {
            // Windows that are too small for the longest answer are refused where there is a second one.
            let most = need.saturating_sub(tokenizer.count(question.text)? + 4);
            self.overlap = Some(overlap.max(question.shared().min(most)));
        }
        let ran = self.windows("", text, Truncation::OnlySecond, &mut |encoder, window| {
            let asked = window.encoded.first.len();
            if window.index > 0 && question.max_answer > need - asked - 3 {
                let need = question.max_answer.saturating_add(asked + 3);
                return Err(TaskError::EncoderTooShort { need, have: encoder.max_tokens() });
            }
            let logits = &mut logits[..2 * window.encoded.len];
            head.logits(encoder, &window.input, logits)?;
            let start = asked + 2;
            let context = start..start + window.encoded.second.len();
            no_answer = no_answer.min(head.probabilities(logits, context.clone()));
            for span in head.spans(logits, context.clone(), question.max_answer) {
                if count < best.len() || best.last().is_some_and(|last| span.score > last.score) {
                    let bytes = widen(&tokenizer, passage, window, context.clone(), span)?;
                    insert(best, &mut count, passage, bytes, span.score);
                }
            }
            Ok(())
        });
        self.overlap = overlap;
        let run = match ran {
            // The question alone fills the model.
            Err(TaskError::Tokenize(TokenizeError::CannotTruncate)) => {
                let asked = tokenizer.count(question.text)?;
                return Err(TaskError::EncoderTooShort { need: asked + 4, have: need });
            }
            ran => ran?,
        };
        for answer in &mut best[..count] {
            let mut counter = OffsetCounter::new(passage);
            answer.start = counter.at(answer.start.byte);
            answer.end = counter.at(answer.end.byte);
        }
        Ok(Answered { count, no_answer, run })
    }
}

impl Question<'_> {
    /// The tokens that windows share at least.
    fn shared(&self) -> usize {
        self.max_answer.saturating_sub(1)
    }
}

/// The bytes of a span of tokens, widened to whole words.
fn widen(
    tokenizer: &Tokenizer<'_>,
    passage: &str,
    window: &Window<'_>,
    context: Range<usize>,
    span: AnswerSpan,
) -> Result<Range<u32>, TokenizeError> {
    let (words, offsets) = (&window.words[context.clone()], &window.offsets[context.clone()]);
    let (mut first, mut last) = (span.first - context.start, span.last - context.start);
    while first > 0 && words[first - 1] == words[first] {
        first -= 1;
    }
    while last + 1 < words.len() && words[last + 1] == words[last] {
        last += 1;
    }
    let mut bytes = offsets[first].0..offsets[last].1;
    // A word at the border may go on in the neighbouring window.
    let (first_word, last_word) = (words[first], words[last]);
    let [before, after] = [first == 0 && window.index > 0, last + 1 == words.len()];
    if before || after {
        for token in tokenizer.tokens(passage) {
            let token = token?;
            if token.word == first_word {
                bytes.start = bytes.start.min(token.start);
            }
            if token.word == last_word {
                bytes.end = bytes.end.max(token.end);
            }
            if token.word > last_word {
                break;
            }
        }
    }
    Ok(bytes)
}

/// Puts an answer in its place among the best. Of two with the same text the more probable one stays.
fn insert<'t>(
    best: &mut [Answer<'t>],
    count: &mut usize,
    passage: &'t str,
    bytes: Range<u32>,
    score: f32,
) {
    let text = passage.get(bytes.start as usize..bytes.end as usize).unwrap_or("");
    if let Some(same) = best[..*count].iter().position(|answer| answer.text == text) {
        if best[same].score >= score {
            return;
        }
        best[same..*count].rotate_left(1);
        *count -= 1;
    }
    let [start, end] = [bytes.start, bytes.end].map(|byte| Offset { byte, ..Offset::default() });
    keep_best(best, count, Answer { text, start, end, score }, |answer| answer.score);
}

/// The positions of `[MASK]`; none if the vocabulary has no `[MASK]`.
pub fn mask_positions(tokenizer: &Tokenizer<'_>, ids: &[u32]) -> impl Iterator<Item = usize> {
    let mask = tokenizer.mask_id();
    ids.iter().enumerate().filter(move |(_, id)| Some(**id) == mask).map(|(position, _)| position)
}
