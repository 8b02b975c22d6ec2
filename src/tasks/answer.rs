//! Answers in a passage, and masked words.

use std::ops::Range;

use super::TaskError;
use super::runner::{RunInfo, Text, TextRunner};
use crate::error::TooSmall;
use crate::heads::QuestionAnswering;
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

impl TextRunner<'_, '_> {
    /// The overlap that windows over a passage usually have: a quarter of the tokens that a window
    /// holds of it.
    ///
    /// # Errors
    /// [`TaskError::EncoderTooShort`] if the question leaves no room.
    pub fn answer_overlap(&self, question: &str) -> Result<usize, TaskError> {
        let (asked, have) = (self.tokenizer()?.count(question)?, self.max_tokens);
        match have.saturating_sub(asked + 3) {
            0 => Err(TaskError::EncoderTooShort { need: asked + 4, have }),
            room => Ok(room / 4),
        }
    }

    /// Finds the answer to a question in a passage; `None` in an empty one. The question stays whole.
    /// With an overlap the passage may be of any length, and the answer is the most probable one of all
    /// windows. An answer is widened to whole words, as transformers does.
    ///
    /// The token buffer needs all its parts; `logits` needs two values per token of the limit.
    ///
    /// # Errors
    /// Any [`TaskError`].
    pub fn answer<'q, 't>(
        &mut self,
        question: impl Into<Question<'q>>,
        passage: &'t str,
        logits: &mut [f32],
    ) -> Result<(Option<Answer<'t>>, RunInfo), TaskError> {
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
        let mut best: Option<(f32, Range<u32>)> = None;
        let text = Text::Pair(question.text, passage);
        let ran = self.windows("", text, Truncation::OnlySecond, &mut |encoder, window| {
            let logits = &mut logits[..2 * window.encoded.len];
            head.logits(encoder, &window.input, logits)?;
            let start = window.encoded.first.len() + 2;
            let context = start..start + window.encoded.second.len();
            if let Some(span) = head.best(logits, context.clone(), question.max_answer)
                && best.as_ref().is_none_or(|(score, _)| span.score > *score)
            {
                let (words, offsets) = (&window.words[context.clone()], &window.offsets[context]);
                let (mut first, mut last) = (span.first - start, span.last - start);
                while first > 0 && words[first - 1] == words[first] {
                    first -= 1;
                }
                while last + 1 < words.len() && words[last + 1] == words[last] {
                    last += 1;
                }
                best = Some((span.score, offsets[first].0..offsets[last].1));
            }
            Ok(())
        });
        let ran = match ran {
            // The question alone fills the model.
            Err(TaskError::Tokenize(TokenizeError::CannotTruncate)) => {
                let asked = self.tokenizer()?.count(question.text)?;
                return Err(TaskError::EncoderTooShort { need: asked + 4, have: need });
            }
            ran => ran?,
        };
        let mut counter = OffsetCounter::new(passage);
        let answer = best.map(|(score, span)| Answer {
            text: passage.get(span.start as usize..span.end as usize).unwrap_or(""),
            start: counter.at(span.start),
            end: counter.at(span.end),
            score,
        });
        Ok((answer, ran))
    }
}

/// The positions of `[MASK]`; none if the vocabulary has no `[MASK]`.
pub fn mask_positions(tokenizer: &Tokenizer<'_>, ids: &[u32]) -> impl Iterator<Item = usize> {
    let mask = tokenizer.mask_id();
    ids.iter().enumerate().filter(move |(_, id)| Some(**id) == mask).map(|(position, _)| position)
}
