//! The one reader of texts: tokenises, divides long texts into windows, runs the model, and joins what
//! the windows give. The command, the C API and [`crate::Session`] all go through it.

use super::TaskError;
use super::answer::mask_positions;
use crate::encoder::{Encoder, Input};
use crate::error::{RunError, TooSmall};
use crate::format::Model;
use crate::heads::{MaskedLm, NextSentence, SequenceClassifier};
use crate::outputs::{Layers, Output, Pooling, l2_normalize};
use crate::tokenizer::{Encoded, Limits, Source, TokenBuffer, Tokenizer, Truncation};

/// What a task reads.
#[derive(Clone, Copy, Debug)]
pub enum Text<'t> {
    /// A text.
    Str(&'t str),
    /// A pair of texts.
    Pair(&'t str, &'t str),
    /// Words that are already separate, as in tagged corpora.
    Words(&'t [&'t str]),
    /// Token ids, used as they are, up to the encoder's limit: neither cut nor divided into windows.
    Ids(Input<'t>),
}

#[cfg(feature = "std")]
impl<'t> Text<'t> {
    /// This text, or the first of a pair, with a prompt before it; `joined` holds the result. Words and ids
    /// have no prompt.
    pub fn with_prompt<'j>(self, prompt: &str, joined: &'j mut String) -> Text<'j>
    where
        't: 'j,
    {
        let (Self::Str(first) | Self::Pair(first, _)) = self else { return self };
        if prompt.is_empty() {
            return self;
        }
        joined.clear();
        joined.push_str(prompt);
        joined.push_str(first);
        match self {
            Self::Pair(_, second) => Text::Pair(joined, second),
            _ => Text::Str(joined),
        }
    }
}

impl<'t> From<&'t str> for Text<'t> {
    fn from(text: &'t str) -> Self {
        Self::Str(text)
    }
}

impl<'t> From<(&'t str, &'t str)> for Text<'t> {
    fn from((first, second): (&'t str, &'t str)) -> Self {
        Self::Pair(first, second)
    }
}

impl<'t> From<&'t [&'t str]> for Text<'t> {
    fn from(words: &'t [&'t str]) -> Self {
        Self::Words(words)
    }
}

impl<'t> From<Input<'t>> for Text<'t> {
    fn from(input: Input<'t>) -> Self {
        Self::Ids(input)
    }
}

/// How a text was run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunInfo {
    /// Whether a part of the text was left out because it was longer than the runner's limit.
    pub truncated: bool,
    /// Number of windows.
    pub windows: usize,
}

/// One window of a text, as the encoder takes it.
#[derive(Clone, Copy, Debug)]
pub struct Window<'w> {
    /// The tokens, special ones included.
    pub input: Input<'w>,
    /// `[tokens]`: bytes of each token in its text. Empty for ids and for buffers without offsets.
    pub offsets: &'w [(u32, u32)],
    /// `[tokens]`: word of each token. Empty for ids and for buffers without words.
    pub words: &'w [u32],
    /// What the tokenizer reports; all zero for ids.
    pub encoded: Encoded,
    /// Index of the window.
    pub index: usize,
}

/// A choice of features: which hidden states, how pooled, whether of length 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Features {
    /// Which hidden states, and how they are combined.
    pub layers: Layers,
    /// How the vectors of the tokens become one.
    pub pooling: Pooling,
    /// Whether each vector is divided by its Euclidean length.
    pub normalize: bool,
}

impl Features {
    /// The features that the checkpoint was made for: the last layer, pooled and normalised as the
    /// file says.
    pub fn of(model: &Model<'_>) -> Self {
        Self {
            layers: Layers::LAST,
            pooling: model.default_pooling(),
            normalize: model.default_normalize(),
        }
    }

    /// The request for these features.
    pub fn output<'o>(&self, out: &'o mut [f32]) -> Output<'o> {
        let Self { layers, pooling, normalize } = *self;
        Output::Features { layers, pooling, normalize, out }
    }
}

/// Runs tasks on texts, in memory of the caller. Allocates nothing.
///
/// Texts have at most [`TextRunner::max_tokens`] tokens: what the model file states, up to the encoder's
/// limit. A longer text is cut, and the result says so; or, with an overlap, it is read in windows of as
/// many tokens, of which neighbours share `overlap`. Ids are limited by the encoder alone.
///
/// [`TextRunner::embed`] puts the model's default prompt before the text, as sentence-transformers does.
///
/// Logits and pooled vectors of a text are then the mean over its windows: their sum, in order,
/// divided once by their number, and normalised once at the end. Entities and vectors of words are
/// stitched as [`WindowPlan::owner`](super::WindowPlan::owner) says.
///
/// ```no_run
/// use bertlet::tasks::{TaskError, TextRunner};
/// use bertlet::tokenizer::TokenBuffer;
/// use bertlet::{Encoder, Isa, Model};
///
/// # fn scores(model: Model<'_>, scratch: &mut [u8]) -> Result<(), TaskError> {
/// let (mut ids, mut types) = ([0; 128], [0; 128]);
/// let buffer =
///     TokenBuffer { input_ids: &mut ids, token_type_ids: &mut types, ..Default::default() };
/// let encoder = Encoder::new(model, Isa::detect(), scratch, 128)?;
/// let mut runner = TextRunner::new(encoder, buffer).with_overlap(Some(32));
/// let (mut logits, mut window) = ([0.0; 2], [0.0; 2]);
/// runner.classify("A warm, funny film.", &mut logits, &mut window)?;
/// # Ok(())
/// # }
/// ```
pub struct TextRunner<'a, 's> {
    pub(super) encoder: Encoder<'a, 's>,
    tokenizer: Result<Tokenizer<'a>, TaskError>,
    pub(super) buffer: TokenBuffer<'s>,
    pub(super) overlap: Option<usize>,
    pub(super) max_tokens: usize,
    prompt: &'a str,
}

impl<'a, 's> TextRunner<'a, 's> {
    /// A runner without windows, with the limit and the default prompt of the model file. `buffer` needs
    /// room for as many tokens as the runner's limit: ids, for pairs also token types, for answers also
    /// offsets and words.
    pub fn new(encoder: Encoder<'a, 's>, buffer: TokenBuffer<'s>) -> Self {
        let (model, limit) = (encoder.model(), encoder.max_tokens());
        Self {
            encoder,
            tokenizer: model.tokenizer(),
            buffer,
            overlap: None,
            max_tokens: model.max_tokens().min(limit),
            prompt: model.prompts().default_prompt().unwrap_or_default().text,
        }
    }

    /// The same with texts of up to `tokens` tokens, whatever the model file states, and at most as many
    /// as the encoder takes.
    pub fn with_max_tokens(mut self, tokens: usize) -> Self {
        self.max_tokens = tokens.min(self.encoder.max_tokens());
        self
    }

    /// The same with another text before those that [`TextRunner::embed`] reads; "" for none. Names are in
    /// [`Model::prompts`].
    pub fn with_prompt(mut self, prompt: &'a str) -> Self {
        self.prompt = prompt;
        self
    }

    /// The same with windows that share `overlap` tokens, or without windows.
    pub fn with_overlap(mut self, overlap: Option<usize>) -> Self {
        self.set_overlap(overlap);
        self
    }

    /// Sets the tokens that neighbouring windows share; `None` for no windows.
    pub fn set_overlap(&mut self, overlap: Option<usize>) {
        self.overlap = overlap;
    }

    /// The tokens that neighbouring windows share; `None` for no windows.
    pub fn overlap(&self) -> Option<usize> {
        self.overlap
    }

    /// The encoder.
    pub fn encoder(&mut self) -> &mut Encoder<'a, 's> {
        &mut self.encoder
    }

    /// The most tokens of a text or a window.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// The model.
    pub fn model(&self) -> Model<'a> {
        self.encoder.model()
    }

    /// The model's tokenizer.
    ///
    /// # Errors
    /// [`TaskError::NoTokenizer`] and [`TaskError::Tokenizer`].
    pub fn tokenizer(&self) -> Result<Tokenizer<'a>, TaskError> {
        self.tokenizer
    }

    /// Calls `each` with every window of a text, in order.
    ///
    /// # Errors
    /// Any [`TaskError`]; those of `each` end the run.
    pub fn each_window<'t>(
        &mut self,
        text: impl Into<Text<'t>>,
        mut each: impl FnMut(&mut Encoder<'a, 's>, &Window<'_>) -> Result<(), TaskError>,
    ) -> Result<RunInfo, TaskError> {
        self.windows("", text.into(), Truncation::LongestFirst, &mut each)
    }

    /// Runs the windows of a text with `prompt` before it.
    pub(super) fn windows(
        &mut self,
        prompt: &str,
        text: Text<'_>,
        truncation: Truncation,
        each: &mut dyn FnMut(&mut Encoder<'a, 's>, &Window<'_>) -> Result<(), TaskError>,
    ) -> Result<RunInfo, TaskError> {
        let Self { encoder, buffer, max_tokens, .. } = self;
        let prompted;
        let (first, second) = match text {
            Text::Str(first) | Text::Pair(first, _) if !prompt.is_empty() => {
                if !(prompt.ends_with(is_between_words) || first.starts_with(is_between_words)) {
                    return Err(TaskError::PromptInWord);
                }
                // What meets between words gives the same tokens as in one text.
                prompted = [prompt, first];
                let second = if let Text::Pair(_, second) = text { Some(second) } else { None };
                (Source::Words(&prompted), second.map(Source::from))
            }
            Text::Str(text) => (Source::from(text), None),
            Text::Pair(first, second) => (first.into(), Some(second.into())),
            Text::Words(words) => (words.into(), None),
            Text::Ids(input) => {
                let (encoded, offsets, words) = (Encoded::default(), &[][..], &[][..]);
                each(encoder, &Window { input, offsets, words, encoded, index: 0 })?;
                return Ok(RunInfo { truncated: false, windows: 1 });
            }
        };
        let tokenizer = self.tokenizer?;
        if second.is_some() && buffer.token_type_ids.len() < buffer.input_ids.len() {
            // Without token types the model would read a pair as one text.
            let (need, have) = (buffer.input_ids.len(), buffer.token_type_ids.len());
            return Err(TooSmall { what: "token types", need, have }.into());
        }
        let limits = Limits { max_length: *max_tokens, truncation };
        let mut run = |buffer: &TokenBuffer<'_>, encoded: Encoded, index| {
            let n = encoded.len;
            let input = Input {
                input_ids: &buffer.input_ids[..n],
                token_type_ids: buffer.token_type_ids.get(..n),
                attention_mask: None,
            };
            let offsets = buffer.offsets.get(..n).unwrap_or(&[]);
            let words = buffer.words.get(..n).unwrap_or(&[]);
            each(encoder, &Window { input, offsets, words, encoded, index })
        };
        let Some(overlap) = self.overlap else {
            let encoded = tokenizer.encode(first, second, &limits, buffer)?;
            run(buffer, encoded, 0)?;
            return Ok(RunInfo { truncated: encoded.truncated, windows: 1 });
        };
        let mut windows = tokenizer.windows(first, second, &limits, overlap)?;
        let mut count = 0;
        while let Some(encoded) = windows.next_into(buffer)? {
            run(buffer, encoded, count)?;
            count += 1;
        }
        Ok(RunInfo { truncated: false, windows: count })
    }

    /// Writes to `out` the mean of what `run` writes for each window: the sum in order of the windows,
    /// divided once by their number. `window` is scratch as long as `out`; without an overlap it may be
    /// empty.
    ///
    /// # Errors
    /// Any [`TaskError`].
    pub fn mean<'t>(
        &mut self,
        text: impl Into<Text<'t>>,
        out: &mut [f32],
        window: &mut [f32],
        mut run: impl FnMut(&mut Encoder<'a, 's>, &Input<'_>, &mut [f32]) -> Result<(), RunError>,
    ) -> Result<RunInfo, TaskError> {
        self.mean_of("", text.into(), out, window, &mut run)
    }

    #[allow(clippy::type_complexity)]
    fn mean_of(
        &mut self,
        prompt: &str,
        text: Text<'_>,
        out: &mut [f32],
        window: &mut [f32],
        run: &mut dyn FnMut(&mut Encoder<'a, 's>, &Input<'_>, &mut [f32]) -> Result<(), RunError>,
    ) -> Result<RunInfo, TaskError> {
        let (need, have) = (out.len(), window.len());
        if self.overlap.is_some() && have < need {
            return Err(TooSmall { what: "the values of a window", need, have }.into());
        }
        let ran = self.windows(prompt, text, Truncation::LongestFirst, &mut |encoder, part| {
            if part.index == 0 {
                return Ok(run(encoder, &part.input, out)?);
            }
            let window = &mut window[..need];
            run(encoder, &part.input, window)?;
            out.iter_mut().zip(window).for_each(|(sum, x)| *sum += *x);
            Ok(())
        })?;
        if ran.windows > 1 {
            out.iter_mut().for_each(|x| *x /= ran.windows as f32);
        }
        Ok(ran)
    }

    /// Writes the features of a text, with the runner's prompt before it, to `out`, which has as many values as
    /// [`features_len`](crate::features_len) says; `window` is scratch, see [`TextRunner::mean`].
    ///
    /// # Errors
    /// Any [`TaskError`]; [`TaskError::NotPooled`] for windows without pooling,
    /// [`TaskError::PromptInWord`] for a prompt that does not end with a space or punctuation.
    pub fn embed<'t>(
        &mut self,
        text: impl Into<Text<'t>>,
        features: &Features,
        out: &mut [f32],
        window: &mut [f32],
    ) -> Result<RunInfo, TaskError> {
        let text = text.into();
        let windows = self.overlap.is_some() && !matches!(text, Text::Ids(_));
        if windows && features.pooling == Pooling::None {
            return Err(TaskError::NotPooled);
        }
        // The mean is normalised, not what it is made of: windows count alike whatever their length.
        let each = Features { normalize: features.normalize && !windows, ..*features };
        let ran = self.mean_of(self.prompt, text, out, window, &mut |encoder, input, out| {
            encoder.encode(input, &mut [each.output(out)])
        })?;
        if features.normalize && windows {
            l2_normalize(out);
        }
        Ok(ran)
    }

    /// Writes the logits of a text to `logits`, one per label; [`SequenceClassifier::scores`] turns
    /// them into scores. `window` is scratch, see [`TextRunner::mean`].
    ///
    /// # Errors
    /// Any [`TaskError`].
    pub fn classify<'t>(
        &mut self,
        text: impl Into<Text<'t>>,
        logits: &mut [f32],
        window: &mut [f32],
    ) -> Result<RunInfo, TaskError> {
        let head = SequenceClassifier::new(&self.model())?;
        self.mean_of("", text.into(), logits, window, &mut |encoder, input, out| {
            head.logits(encoder, input, out)
        })
    }

    /// The logits of "is next" and "is not" for a pair; [`NextSentence::score`] turns them into a
    /// probability.
    ///
    /// # Errors
    /// Any [`TaskError`]; [`TaskError::NotAPair`] for one text.
    pub fn next_sentence<'t>(
        &mut self,
        text: impl Into<Text<'t>>,
    ) -> Result<([f32; 2], RunInfo), TaskError> {
        let (head, text) = (NextSentence::new(&self.model())?, text.into());
        if matches!(text, Text::Str(_) | Text::Words(_)) {
            return Err(TaskError::NotAPair);
        }
        let (mut logits, mut window) = ([0.0; 2], [0.0; 2]);
        let ran =
            self.mean_of("", text, &mut logits, &mut window, &mut |encoder, input, out| {
                out.copy_from_slice(&head.logits(encoder, input)?);
                Ok(())
            })?;
        Ok((logits, ran))
    }

    /// Finds every `[MASK]` of a text, cut to the runner's limit, and writes the logits of the words
    /// for each: positions (indices of tokens) to `positions`, `[masks][vocabulary]` to `logits`.
    /// Returns the number of masks. [`MaskedLm::top`] finds the likeliest words.
    ///
    /// # Errors
    /// Any [`TaskError`]. [`TaskError::TooSmall`] says how much room the text needs.
    pub fn fill_mask<'t>(
        &mut self,
        text: impl Into<Text<'t>>,
        positions: &mut [usize],
        logits: &mut [f32],
    ) -> Result<(usize, RunInfo), TaskError> {
        let (head, tokenizer) = (MaskedLm::new(&self.model())?, self.tokenizer?);
        // A mask has one place: windows would only repeat it.
        let overlap = self.overlap.take();
        let mut count = 0;
        let ran =
            self.windows("", text.into(), Truncation::LongestFirst, &mut |encoder, window| {
                count = 0;
                for position in mask_positions(&tokenizer, window.input.input_ids) {
                    if let Some(to) = positions.get_mut(count) {
                        *to = position;
                    }
                    count += 1;
                }
                let need = head.logits_len(count);
                for (what, need, have) in
                    [("masks", count, positions.len()), ("logits", need, logits.len())]
                {
                    if have < need {
                        return Err(TooSmall { what, need, have }.into());
                    }
                }
                // A text without a mask is still checked.
                let (positions, logits) = (&positions[..count], &mut logits[..need]);
                Ok(head.logits(encoder, &window.input, positions, logits)?)
            });
        self.overlap = overlap;
        Ok((count, ran?))
    }
}

/// Whether a character never belongs to a word with its neighbours: a space, or common punctuation.
fn is_between_words(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{A0}' | '\u{2010}'..='\u{2027}' | '\u{3000}'..='\u{3003}')
        || matches!(c, '\u{3008}'..='\u{3011}' | '\u{FF01}' | '\u{FF08}' | '\u{FF09}' | '\u{FF0C}')
        || matches!(c, '\u{FF1A}' | '\u{FF1B}' | '\u{FF1F}' | ' ')
        || c.is_ascii_punctuation()
}
