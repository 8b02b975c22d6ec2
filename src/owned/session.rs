//! Text in, answers out, in memory and on threads of the session's own.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::path::Path;

use super::{ModelFile, OpenError, ThreadPool};
use crate::encoder::{Encoder, Input, SCRATCH};
use crate::error::{RunError, TooSmall};
use crate::format::Model;
use crate::heads::{Fill, MaskedLm, NextSentence, SequenceClassifier, argmax};
use crate::kernels::Isa;
use crate::outputs::{Output, Pooling, features_len};
use crate::tasks::{
    Answer, EntityOptions, EntityRecognizer, Features, Label, Offset, Question, TaskError, Text,
    TextRunner, WordFeatures, default_overlap, label_name,
};
use crate::threads::{Executor, Serial};
use crate::tokenizer::TokenBuffer;

/// Runs a model on texts and ids. Its memory grows to what the inputs need, and is then used again.
///
/// ```no_run
/// use bertlet::Session;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut session = Session::open("minilm.bertlet")?.with_threads(2)?;
/// let vector = session.embed("A quiet house.")?;
/// assert_eq!(vector.len(), 384);
/// # Ok(())
/// # }
/// ```
///
/// A text longer than the limit that the model file states ([`Model::max_tokens`]) is cut, and the answer
/// says so; [`Session::with_windows`] reads all of it, [`Session::with_max_tokens`] sets another limit. [`TextRunner`] does the same work without an allocator.
pub struct Session<'m> {
    model: Held<'m>,
    isa: Isa,
    pool: Option<ThreadPool>,
    windows: bool,
    /// Instead of the model's limit.
    max_tokens: Option<usize>,
    /// Instead of the model's default prompt.
    prompt: Option<String>,
    /// The encoder uses it from the first multiple of 64.
    scratch: Vec<u8>,
    tokens: Tokens,
}

enum Held<'m> {
    View(Model<'m>),
    File(ModelFile),
}

impl Held<'_> {
    fn view(&self) -> Model<'_> {
        match self {
            Self::View(model) => *model,
            Self::File(file) => file.model(),
        }
    }
}

/// A token buffer.
#[derive(Default)]
struct Tokens {
    ids: Vec<u32>,
    types: Vec<u8>,
    offsets: Vec<(u32, u32)>,
    words: Vec<u32>,
}

/// A vector, or one vector per token where the model does not pool. Dereferences to its values.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// `[width]`, or `[tokens][width]` without pooling.
    pub values: Vec<f32>,
    /// Whether the text was cut.
    pub truncated: bool,
}

impl Deref for Embedding {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.values
    }
}

/// Vectors of words.
#[derive(Clone, Debug, PartialEq)]
pub struct WordVectors {
    /// `[words]`: the vector of each word; `None` for words that have no token or were cut off.
    pub vectors: Vec<Option<Vec<f32>>>,
    /// Whether the text was cut.
    pub truncated: bool,
}

/// The label of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Classification {
    /// The label with the highest score.
    pub label: String,
    /// Its score.
    pub score: f32,
    /// `[labels]`: probabilities, or the logits themselves for regression.
    pub scores: Vec<f32>,
    /// `[labels]`.
    pub logits: Vec<f32>,
    /// Whether the text was cut.
    pub truncated: bool,
}

/// A named entity in a text.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedEntity {
    /// `PER`; without aggregation the whole label, `B-PER`.
    pub label: String,
    /// Its text.
    pub text: String,
    /// Mean probability of the labels of its tokens or words, in [0, 1].
    pub score: f32,
    /// Where it starts.
    pub start: Offset,
    /// Where it ends.
    pub end: Offset,
}

/// The entities of a text, in order. Dereferences to them.
#[derive(Clone, Debug, PartialEq)]
pub struct Entities {
    /// The entities.
    pub entities: Vec<NamedEntity>,
    /// Whether the text was cut.
    pub truncated: bool,
}

impl Deref for Entities {
    type Target = [NamedEntity];
    fn deref(&self) -> &[NamedEntity] {
        &self.entities
    }
}

/// The likeliest words for one `[MASK]`.
#[derive(Clone, Debug, PartialEq)]
pub struct FilledMask {
    /// Index of its token; `[CLS]` is 0.
    pub position: usize,
    /// The words, best first: ids, probabilities and texts.
    pub words: Vec<(Fill, String)>,
}

/// The masked words of a text, in order. Dereferences to them.
#[derive(Clone, Debug, PartialEq)]
pub struct FilledMasks {
    /// One for each `[MASK]`.
    pub masks: Vec<FilledMask>,
    /// Whether the text was cut. Masks in what was cut off are missing.
    pub truncated: bool,
}

impl Deref for FilledMasks {
    type Target = [FilledMask];
    fn deref(&self) -> &[FilledMask] {
        &self.masks
    }
}

/// Whether a text follows another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NextSentenceScore {
    /// Probability that it does, in [0, 1].
    pub is_next: f32,
    /// Whether the texts were cut.
    pub truncated: bool,
}

/// An answer to a question.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundAnswer {
    /// Its text in the passage.
    pub text: String,
    /// Where it starts in the passage.
    pub start: Offset,
    /// Where it ends.
    pub end: Offset,
    /// Probability of the start times probability of the end.
    pub score: f32,
}

/// The answers to a question, best first, no two with the same text.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundAnswers {
    /// The answers.
    pub answers: Vec<FoundAnswer>,
    /// Probability that the passage has no answer; see [`Answered`](crate::tasks::Answered).
    pub no_answer: f32,
    /// Whether the passage was cut.
    pub truncated: bool,
}

impl fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("model", &self.model())
            .field("isa", &self.isa)
            .field("threads", &self.executor().threads())
            .field("scratch", &self.scratch.len())
            .finish_non_exhaustive()
    }
}

impl Session<'static> {
    /// Opens a model file and keeps it open; see [`ModelFile::open`].
    ///
    /// # Errors
    /// [`OpenError`], which names the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Ok(Self::of(Held::File(ModelFile::open(path)?)))
    }
}

impl<'m> Session<'m> {
    /// A session on the calling thread, with the fastest instruction set of the CPU.
    pub fn new(model: Model<'m>) -> Self {
        Self::of(Held::View(model))
    }

    fn of(model: Held<'m>) -> Self {
        Self {
            model,
            isa: Isa::detect(),
            pool: None,
            windows: false,
            max_tokens: None,
            prompt: None,
            scratch: Vec::new(),
            tokens: Tokens::default(),
        }
    }

    /// The same with another instruction set.
    pub fn with_isa(mut self, isa: Isa) -> Self {
        self.isa = isa;
        self
    }

    /// The same on this many threads, the calling one included.
    ///
    /// # Errors
    /// If the operating system has no more threads.
    pub fn with_threads(mut self, threads: usize) -> io::Result<Self> {
        self.pool = if threads > 1 { Some(ThreadPool::new(threads)?) } else { None };
        Ok(self)
    }

    /// The same, reading all of a long text in windows, or cutting it. Windows share
    /// [`default_overlap`] tokens, those over a passage [`TextRunner::answer_overlap`].
    pub fn with_windows(mut self, windows: bool) -> Self {
        self.windows = windows;
        self
    }

    /// The same with texts of up to `tokens` tokens, whatever the model file states.
    ///
    /// # Errors
    /// [`RunError::TooManyTokens`] if the model has fewer positions.
    pub fn with_max_tokens(mut self, tokens: usize) -> Result<Self, RunError> {
        let limit = self.model().config().max_position_embeddings;
        if tokens > limit {
            return Err(RunError::TooManyTokens { have: tokens, limit });
        }
        self.max_tokens = Some(tokens);
        Ok(self)
    }

    /// The same with this text before every text that is embedded, instead of the model's default prompt;
    /// "" for none. [`Model::prompts`] has the texts that the checkpoint names.
    pub fn with_prompt(mut self, prompt: impl Into<String>) -> Self {
        self.prompt = Some(prompt.into());
        self
    }

    /// The model.
    pub fn model(&self) -> Model<'_> {
        self.model.view()
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// What the work runs on.
    pub fn executor(&self) -> &dyn Executor {
        executor(&self.pool)
    }

    /// Makes room for inputs of up to `tokens` tokens, so that [`Session::encode`] need not.
    ///
    /// # Errors
    /// [`RunError::TooManyTokens`] if the model has fewer positions, [`RunError::TooSmall`] if there
    /// is not enough memory.
    pub fn reserve(&mut self, tokens: usize) -> Result<(), RunError> {
        let config = *self.model().config();
        let limit = config.max_position_embeddings;
        if tokens > limit {
            return Err(RunError::TooManyTokens { have: tokens, limit });
        }
        let need = config.scratch_len_threads(tokens, self.executor().threads());
        if self.scratch.len() < need {
            // Nothing in it is needed any more.
            self.scratch = Vec::new();
            self.scratch = zeroed(need).ok_or(TooSmall { what: SCRATCH, need, have: 0 })?;
        }
        Ok(())
    }

    /// An encoder for inputs of up to `tokens` tokens, in this session's memory.
    ///
    /// # Errors
    /// As [`Session::reserve`].
    pub fn encoder(&mut self, tokens: usize) -> Result<Encoder<'_, '_>, RunError> {
        self.reserve(tokens)?;
        let (model, executor) = (self.model.view(), executor(&self.pool));
        Encoder::with_executor(model, self.isa, &mut self.scratch, tokens, executor)
    }

    /// Runs the model on one input; see [`Encoder::encode`].
    ///
    /// # Errors
    /// Any [`RunError`]; then no output has been written.
    pub fn encode(
        &mut self,
        input: &Input<'_>,
        outputs: &mut [Output<'_>],
    ) -> Result<(), RunError> {
        self.encoder(input.input_ids.len())?.encode(input, outputs)
    }

    /// A runner for ids of up to `tokens` tokens, and texts of as many or the session's limit, without
    /// windows, in this session's memory.
    ///
    /// # Errors
    /// As [`Session::reserve`].
    pub fn runner(&mut self, tokens: usize) -> Result<TextRunner<'_, '_>, RunError> {
        self.reserve(tokens)?;
        let Tokens { ids, types, offsets, words } = &mut self.tokens;
        if ids.len() < tokens {
            ids.resize(tokens, 0);
            types.resize(tokens, 0);
            offsets.resize(tokens, (0, 0));
            words.resize(tokens, 0);
        }
        let (model, executor) = (self.model.view(), executor(&self.pool));
        let encoder = Encoder::with_executor(model, self.isa, &mut self.scratch, tokens, executor)?;
        let buffer = TokenBuffer {
            input_ids: &mut ids[..tokens],
            token_type_ids: &mut types[..tokens],
            offsets: &mut offsets[..tokens],
            words: &mut words[..tokens],
        };
        let runner = TextRunner::new(encoder, buffer);
        let limit = self.max_tokens.unwrap_or(runner.max_tokens());
        Ok(runner.with_max_tokens(limit))
    }

    /// A runner for as many tokens as the model takes, with windows if the session has them.
    fn task(&mut self, text: Text<'_>) -> Result<TextRunner<'_, '_>, RunError> {
        let (windows, pair) = (self.windows, matches!(text, Text::Pair(..)));
        let positions = self.model().config().max_position_embeddings;
        let runner = self.runner(positions)?;
        let overlap = default_overlap(runner.max_tokens(), pair);
        Ok(runner.with_overlap(windows.then_some(overlap)))
    }

    /// The vector of a text, pooled and normalised as the model file says.
    ///
    /// # Errors
    /// Any [`TaskError`].
    pub fn embed<'t>(&mut self, text: impl Into<Text<'t>>) -> Result<Embedding, TaskError> {
        let features = Features::of(&self.model());
        self.embed_with(text, &features)
    }

    /// The vector of a text, or one vector per token without pooling.
    ///
    /// # Errors
    /// Any [`TaskError`].
    pub fn embed_with<'t>(
        &mut self,
        text: impl Into<Text<'t>>,
        features: &Features,
    ) -> Result<Embedding, TaskError> {
        let Features { layers, pooling, .. } = *features;
        let (mut joined, model) = (String::new(), self.model());
        let prompt = self.prompt.as_deref();
        let prompt = prompt.unwrap_or(model.prompts().default_prompt().unwrap_or_default().text);
        let text = text.into().with_prompt(prompt, &mut joined);
        let mut runner = self.task(text)?.with_prompt("");
        let config = *runner.model().config();
        let mut values = Vec::new();
        let run = if pooling == Pooling::None && runner.overlap().is_none() {
            runner.each_window(text, |encoder, window| {
                let tokens = window.input.input_ids.len();
                values.resize(features_len(&config, tokens, &layers, pooling)?, 0.0);
                Ok(encoder.encode(&window.input, &mut [features.output(&mut values)])?)
            })?
        } else {
            values.resize(features_len(&config, 1, &layers, pooling)?, 0.0);
            let mut window = values.clone();
            runner.embed(text, features, &mut values, &mut window)?
        };
        Ok(Embedding { values, truncated: run.truncated })
    }

    /// The vectors of words.
    ///
    /// # Errors
    /// Any [`TaskError`].
    pub fn word_vectors(
        &mut self,
        words: &[&str],
        features: &WordFeatures,
    ) -> Result<WordVectors, TaskError> {
        let mut runner = self.task(Text::Words(words))?;
        let width = features_len(runner.model().config(), 1, &features.layers, Pooling::None)?;
        let (mut counts, mut out) = (vec![0; words.len()], vec![0.0; words.len() * width]);
        let mut scratch = Vec::new();
        let run = with_scratch(&mut scratch, |scratch| {
            runner.word_vectors(words, features, scratch, (&mut counts, &mut out))
        })?;
        let vector =
            |(i, count): (usize, &u32)| (*count > 0).then(|| out[i * width..][..width].to_vec());
        let vectors = counts.iter().enumerate().map(vector).collect();
        Ok(WordVectors { vectors, truncated: run.truncated })
    }

    /// The label of a text or a pair.
    ///
    /// # Errors
    /// Any [`TaskError`].
    pub fn classify<'t>(&mut self, text: impl Into<Text<'t>>) -> Result<Classification, TaskError> {
        let text = text.into();
        let mut runner = self.task(text)?;
        let model = runner.model();
        let head = SequenceClassifier::new(&model)?;
        let (mut logits, mut scores) = (vec![0.0; head.logits_len()], vec![0.0; head.logits_len()]);
        let run = runner.classify(text, &mut logits, &mut scores)?;
        scores.copy_from_slice(&logits);
        head.scores(&mut scores);
        let best = argmax(&scores).unwrap_or(0);
        let label = label_name(head.labels(), best).to_owned();
        let score = scores.get(best).copied().unwrap_or(0.0);
        Ok(Classification { label, score, scores, logits, truncated: run.truncated })
    }

    /// The named entities of a text: words have the label of their first token, and neighbouring words of
    /// the same entity are joined.
    ///
    /// # Errors
    /// Any [`TaskError`].
    pub fn entities(&mut self, text: &str) -> Result<Entities, TaskError> {
        self.entities_with(text, &EntityOptions::default())
    }

    /// The named entities of a text.
    ///
    /// # Errors
    /// Any [`TaskError`].
    pub fn entities_with(
        &mut self,
        text: &str,
        options: &EntityOptions,
    ) -> Result<Entities, TaskError> {
        let mut runner = self.task(Text::Str(text))?;
        let model = runner.model();
        let mut labels = vec![Label::default(); label_count(&model)];
        let recognizer = EntityRecognizer::new(&model, &mut labels)?;
        let (mut entities, mut truncated, mut scratch) = (Vec::new(), false, Vec::new());
        with_scratch(&mut scratch, |scratch| {
            let tagged = recognizer.tag(&mut runner, text, scratch)?;
            truncated = tagged.run.truncated;
            recognizer.entities(tagged, options, |entity| {
                let (start, end) = (entity.start, entity.end);
                let slice = text.get(start.byte as usize..end.byte as usize).unwrap_or("");
                let (label, text) = (entity.label.to_owned(), slice.to_owned());
                entities.push(NamedEntity { label, text, score: entity.score, start, end });
            });
            Ok(())
        })?;
        Ok(Entities { entities, truncated })
    }

    /// A text with every entity replaced by its label in brackets: `[PER] lives in [LOC].` A long text is
    /// read in windows, also if the session has none, so that nothing of it is left out.
    ///
    /// # Errors
    /// Any [`TaskError`].
    pub fn redact(&mut self, text: &str) -> Result<String, TaskError> {
        self.redact_with(text, &EntityOptions::default())
    }

    /// [`Session::redact`] with a choice of how entities are found.
    ///
    /// # Errors
    /// Any [`TaskError`].
    pub fn redact_with(
        &mut self,
        text: &str,
        options: &EntityOptions,
    ) -> Result<String, TaskError> {
        let windows = std::mem::replace(&mut self.windows, true);
        let redacted = self.redact_in_windows(text, options);
        self.windows = windows;
        redacted
    }

    fn redact_in_windows(
        &mut self,
        text: &str,
        options: &EntityOptions,
    ) -> Result<String, TaskError> {
        let mut runner = self.task(Text::Str(text))?;
        let model = runner.model();
        let mut labels = vec![Label::default(); label_count(&model)];
        let recognizer = EntityRecognizer::new(&model, &mut labels)?;
        with_scratch(&mut Vec::new(), |scratch| {
            let tagged = recognizer.tag(&mut runner, text, scratch)?;
            Ok(recognizer.redact(tagged, options)?.to_string())
        })
    }

    /// The `top` likeliest words for each `[MASK]` of a text.
    ///
    /// # Errors
    /// Any [`TaskError`].
    pub fn fill_mask(&mut self, text: &str, top: usize) -> Result<FilledMasks, TaskError> {
        let mut runner = self.task(Text::Str(text))?;
        let (head, tokenizer) = (MaskedLm::new(&runner.model())?, runner.tokenizer()?);
        let vocab = head.logits_len(1);
        let mut positions = vec![0; runner.max_tokens()];
        let mut logits = vec![0.0; vocab];
        let (count, run) = loop {
            match runner.fill_mask(text, &mut positions, &mut logits) {
                Ok(filled) => break filled,
                Err(TaskError::TooSmall(TooSmall { what: "logits", need, have }))
                    if need > have =>
                {
                    logits = vec![0.0; need];
                }
                Err(error) => return Err(error),
            }
        };
        let mut best = vec![Fill::default(); top.min(vocab)];
        let masks = positions[..count].iter().zip(logits.chunks_exact_mut(vocab));
        let filled = masks.map(|(position, logits)| {
            let count = head.top(logits, &mut best);
            let word = |fill: &Fill| (*fill, tokenizer.token(fill.id).unwrap_or("").to_owned());
            FilledMask { position: *position, words: best[..count].iter().map(word).collect() }
        });
        Ok(FilledMasks { masks: filled.collect(), truncated: run.truncated })
    }

    /// The probability that the second text follows the first.
    ///
    /// # Errors
    /// Any [`TaskError`].
    pub fn next_sentence(
        &mut self,
        first: &str,
        second: &str,
    ) -> Result<NextSentenceScore, TaskError> {
        let text = Text::Pair(first, second);
        let mut runner = self.task(text)?;
        let head = NextSentence::new(&runner.model())?;
        let (logits, run) = runner.next_sentence(text)?;
        Ok(NextSentenceScore { is_next: head.score(logits), truncated: run.truncated })
    }

    /// The answer to a question in a passage; `None` in an empty one.
    ///
    /// # Errors
    /// Any [`TaskError`].
    pub fn answer<'q>(
        &mut self,
        question: impl Into<Question<'q>>,
        passage: &str,
    ) -> Result<Option<FoundAnswer>, TaskError> {
        Ok(self.answers(question, passage, 1)?.answers.pop())
    }

    /// The `top` most probable answers to a question in a passage.
    ///
    /// # Errors
    /// Any [`TaskError`].
    pub fn answers<'q>(
        &mut self,
        question: impl Into<Question<'q>>,
        passage: &str,
        top: usize,
    ) -> Result<FoundAnswers, TaskError> {
        let (question, windows) = (question.into(), self.windows);
        let limit = self.model().config().max_position_embeddings;
        let mut runner = self.runner(limit)?;
        let limit = runner.max_tokens();
        if windows {
            let overlap = runner.answer_overlap(question)?;
            runner.set_overlap(Some(overlap));
        }
        // A passage has no more spans than this.
        let top = top.min(passage.len().saturating_mul(question.max_answer));
        let (mut logits, mut best) = (vec![0.0; 2 * limit], vec![Answer::default(); top.max(1)]);
        let found = runner.answers(question, passage, &mut logits, &mut best)?;
        let owned = |&Answer { text, start, end, score }: &Answer<'_>| FoundAnswer {
            text: text.to_owned(),
            start,
            end,
            score,
        };
        Ok(FoundAnswers {
            answers: best[..found.count.min(top)].iter().map(owned).collect(),
            no_answer: found.no_answer,
            truncated: found.run.truncated,
        })
    }
}

fn executor(pool: &Option<ThreadPool>) -> &dyn Executor {
    match pool {
        Some(pool) => pool,
        None => &Serial,
    }
}

/// Outputs of the token classifier.
fn label_count(model: &Model<'_>) -> usize {
    crate::TokenClassifier::new(model).map_or(0, |head| head.logits_len(1))
}

/// Runs a task with scratch bytes, and again with more memory if it asks for more
/// ([`TaskError::TooSmall`]).
///
/// # Errors
/// Those of the task, and its [`TaskError::TooSmall`] if there is not enough memory.
pub fn with_scratch<T>(
    scratch: &mut Vec<u8>,
    mut task: impl FnMut(&mut [u8]) -> Result<T, TaskError>,
) -> Result<T, TaskError> {
    loop {
        match task(scratch) {
            Err(TaskError::TooSmall(size))
                if size.have == scratch.len() && size.need > size.have =>
            {
                *scratch = zeroed(size.need).ok_or(size)?;
            }
            result => return result,
        }
    }
}

/// `length` zero bytes; `None` if there is not enough memory. Pages are not touched before they are
/// used: an encoder for long inputs costs short ones nothing.
#[allow(unsafe_code)]
fn zeroed(length: usize) -> Option<Vec<u8>> {
    let layout = std::alloc::Layout::array::<u8>(length).ok().filter(|_| length > 0)?;
    // SAFETY: the layout has a length. On success the allocation has `length` bytes of the global
    // allocator, aligned for bytes and all zero, so it is a vector of that length and capacity.
    unsafe {
        let bytes = std::alloc::alloc_zeroed(layout);
        if bytes.is_null() { None } else { Some(Vec::from_raw_parts(bytes, length, length)) }
    }
}
