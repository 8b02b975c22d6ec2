//! Tasks on a whole text or a pair: labels, vectors, masked words, answers.

use std::ops::Range;

use super::TaskError;
use super::offsets::{Offset, OffsetCounter};
use crate::encoder::{Encoder, Input};
use crate::error::RunError;
use crate::heads::{QuestionAnswering, SequenceClassifier};
use crate::tokenizer::{Encoded, Limits, TokenBuffer, TokenizeError, Tokenizer, Truncation};

/// A text, or a pair of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair<'t> {
    /// The first text.
    pub first: &'t str,
    /// The second; `None` for a single text.
    pub second: Option<&'t str>,
}

impl<'t> From<&'t str> for Pair<'t> {
    fn from(first: &'t str) -> Self {
        Self { first, second: None }
    }
}

/// How a text was run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunInfo {
    /// Whether a part of the text was left out, since it was longer than the encoder's limit.
    pub truncated: bool,
    /// Windows that were run.
    pub windows: usize,
}

/// Calls `each` with the tokens of a text: once, with a text cut to the encoder's limit, or (with
/// `overlap`) once for each window, of which neighbours share `overlap` tokens. Along go what the tokenizer
/// says of the window, and the windows before it. `buffer` needs room for as many tokens as the encoder was
/// made for.
fn each_window(
    tokenizer: &Tokenizer<'_>,
    text: Pair<'_>,
    limits: &Limits,
    overlap: Option<usize>,
    buffer: &mut TokenBuffer<'_>,
    mut each: impl FnMut(&TokenBuffer<'_>, &Encoded, usize) -> Result<(), TaskError>,
) -> Result<RunInfo, TaskError> {
    let Some(overlap) = overlap else {
        let encoded = tokenizer.encode(text.first, text.second, limits, buffer)?;
        each(buffer, &encoded, 0)?;
        return Ok(RunInfo { truncated: encoded.truncated, windows: 1 });
    };
    let mut windows = tokenizer.windows(text.first, text.second, limits, overlap)?;
    let mut count = 0;
    while let Some(encoded) = windows.next_into(buffer)? {
        each(buffer, &encoded, count)?;
        count += 1;
    }
    Ok(RunInfo { truncated: false, windows: count })
}

/// The tokens in a buffer; type ids are left out where there is no room for them.
fn input<'b>(buffer: &'b TokenBuffer<'_>, encoded: &Encoded) -> Input<'b> {
    let token_type_ids = buffer.token_type_ids.get(..encoded.len);
    Input { input_ids: &buffer.input_ids[..encoded.len], token_type_ids, attention_mask: None }
}

fn room(buffer: &TokenBuffer<'_>, text: Pair<'_>) -> Result<(), TaskError> {
    // Without token types a pair would be read as one text.
    if text.second.is_some() && buffer.token_type_ids.len() < buffer.input_ids.len() {
        let (need, have) = (buffer.input_ids.len(), buffer.token_type_ids.len());
        return Err(TaskError::Buffer { what: "type ids", need, have });
    }
    Ok(())
}

/// Averages what `run` writes for each window of a text, windows weighing alike: logits of a classifier,
/// pooled vectors. Without `overlap` there is one window, cut to the encoder's limit.
///
/// `out` and `window` are as long as one answer of `run`; `window` is scratch.
///
/// ```no_run
/// # use bertlet::{Encoder, Layers, Output, Pooling, tasks::{self, TaskError}, tokenizer::*};
/// # fn embed(tokenizer: &Tokenizer, encoder: &mut Encoder, text: &str) -> Result<(), TaskError> {
/// let (mut ids, mut mean, mut vector) = ([0; 128], [0.0; 384], [0.0; 384]);
/// let mut buffer = TokenBuffer { ids: &mut ids, ..Default::default() };
/// tasks::average(tokenizer, encoder, text.into(), Some(32), &mut buffer, &mut mean, &mut vector,
///     |encoder, input, out| {
///         let (layers, pooling) = (Layers::LAST, Pooling::Mean);
///         encoder.encode(input, &mut [Output::Features { layers, pooling, normalize: true, out }])
///     })?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Any [`TaskError`].
#[allow(clippy::too_many_arguments)]
pub fn average<'a, 's>(
    tokenizer: &Tokenizer<'_>,
    encoder: &mut Encoder<'a, 's>,
    text: Pair<'_>,
    overlap: Option<usize>,
    buffer: &mut TokenBuffer<'_>,
    out: &mut [f32],
    window: &mut [f32],
    mut run: impl FnMut(&mut Encoder<'a, 's>, &Input<'_>, &mut [f32]) -> Result<(), RunError>,
) -> Result<RunInfo, TaskError> {
    room(buffer, text)?;
    if window.len() != out.len() {
        let (need, have) = (out.len(), window.len());
        return Err(TaskError::Buffer { what: "a window", need, have });
    }
    let limits = Limits::new(encoder.max_tokens());
    let ran = each_window(tokenizer, text, &limits, overlap, buffer, |buffer, encoded, before| {
        run(encoder, &input(buffer, encoded), window)?;
        if before == 0 {
            out.copy_from_slice(window);
        } else {
            out.iter_mut().zip(&*window).for_each(|(out, x)| *out += x);
        }
        Ok(())
    })?;
    if ran.windows > 1 {
        out.iter_mut().for_each(|x| *x /= ran.windows as f32);
    }
    Ok(ran)
}

impl SequenceClassifier<'_> {
    /// The logits of a text or a pair; with `overlap` the mean over its windows. `logits` and `window`
    /// are `[labels]`; see [`average`].
    ///
    /// # Errors
    /// Any [`TaskError`].
    #[allow(clippy::too_many_arguments)]
    pub fn classify(
        &self,
        tokenizer: &Tokenizer<'_>,
        encoder: &mut Encoder<'_, '_>,
        text: Pair<'_>,
        overlap: Option<usize>,
        buffer: &mut TokenBuffer<'_>,
        logits: &mut [f32],
        window: &mut [f32],
    ) -> Result<RunInfo, TaskError> {
        average(tokenizer, encoder, text, overlap, buffer, logits, window, |encoder, input, out| {
            self.logits(encoder, input, out)
        })
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

/// Finds the answer to a question in a passage; `None` in an empty one. With `overlap` the passage may be
/// of any length: the surest answer of all windows counts. An answer is at most `longest` tokens long, and
/// then widened to whole words, as transformers does.
///
/// `buffer` needs room for as many tokens as the encoder was made for, in all its parts; `logits` for two a
/// token.
///
/// # Errors
/// Any [`TaskError`].
#[allow(clippy::too_many_arguments)]
pub fn answer<'t>(
    head: &QuestionAnswering,
    tokenizer: &Tokenizer<'_>,
    encoder: &mut Encoder<'_, '_>,
    question: &str,
    passage: &'t str,
    longest: usize,
    overlap: Option<usize>,
    buffer: &mut TokenBuffer<'_>,
    logits: &mut [f32],
) -> Result<(Option<Answer<'t>>, RunInfo), TaskError> {
    let need = encoder.max_tokens();
    for (what, have) in [
        ("ids", buffer.input_ids.len()),
        ("type ids", buffer.token_type_ids.len()),
        ("offsets", buffer.offsets.len()),
        ("words", buffer.words.len()),
        ("logits", logits.len() / 2),
    ] {
        if have < need {
            return Err(TaskError::Buffer { what, need, have });
        }
    }
    let text = Pair { first: question, second: Some(passage) };
    // The question must stay whole.
    let limits = Limits { max_length: need, truncation: Truncation::OnlySecond };
    let mut best: Option<(f32, Range<u32>)> = None;
    let ran = each_window(tokenizer, text, &limits, overlap, buffer, |buffer, encoded, _| {
        let logits = &mut logits[..2 * encoded.len];
        head.logits(encoder, &input(buffer, encoded), logits)?;
        let start = encoded.first.len() + 2;
        let context = start..start + encoded.second.len();
        if let Some(span) = head.best(logits, context.clone(), longest)
            && best.as_ref().is_none_or(|(score, _)| span.score > *score)
        {
            let (words, offsets) = (&buffer.words[context.clone()], &buffer.offsets[context]);
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
        // A question that fills the model: say so instead of blaming the passage.
        Err(TaskError::Tokenize(TokenizeError::CannotTruncate)) => {
            let have = need;
            return Err(TaskError::EncoderTooShort { need: tokenizer.count(question)? + 4, have });
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

/// The positions of `[MASK]` in `ids`, into `positions`; returns how many there are, which may be more than
/// there was room for. None where the vocabulary has no `[MASK]`.
pub fn masks(tokenizer: &Tokenizer<'_>, ids: &[u32], positions: &mut [usize]) -> usize {
    let mask = tokenizer.mask_id();
    let found = ids.iter().enumerate().filter(|(_, id)| Some(**id) == mask);
    let mut count = 0;
    for (position, _) in found {
        if let Some(to) = positions.get_mut(count) {
            *to = position;
        }
        count += 1;
    }
    count
}
