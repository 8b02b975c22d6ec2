//! Input lines as what a model reads: token ids.

use std::fmt::Display;

use bertlet::tokenizer::{Encoded, Limits, Source, TokenBuffer, TokenizeError, Tokenizer, Windows};
use bertlet::{Input, ModelFile};

use crate::failure::{Failure, zeros};
use crate::json::{self, Value};
use crate::lines::{Lines, Place};
use crate::options::Options;

/// The lines of the input, tokenized one by one.
pub struct Samples<'m> {
    lines: Lines,
    /// `None` where lines are ids.
    tokenizer: Option<Tokenizer<'m>>,
    /// Lines are words with spaces between them.
    words: bool,
    /// Tokens of a sample at most.
    limit: usize,
    buffers: Buffers,
    /// Samples cut so far, and where the first stood.
    cut: Option<(u64, String)>,
}

/// One line of input, as token ids.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'s> {
    /// The second text of a pair.
    pub pair: Option<&'s [u8]>,
    pub ids: &'s [u32],
    pub type_ids: &'s [u8],
    pub mask: Option<&'s [u8]>,
    /// Bytes of each token in its text; (0, 0) for special tokens. Empty where ids were given.
    pub offsets: &'s [(u32, u32)],
    /// Word of each token; counted in all of a text, or in the given words of [`Samples::of_words`].
    pub words: &'s [u32],
    /// Words of the line, where it consists of words.
    pub word_count: usize,
    /// What the tokenizer says of the text and its cut; all zero where ids were given.
    pub encoded: Encoded,
    place: Place<'s>,
}

impl<'s> Sample<'s> {
    /// What the encoder takes.
    pub fn input(&self) -> Input<'s> {
        Input {
            input_ids: self.ids,
            token_type_ids: Some(self.type_ids),
            attention_mask: self.mask,
        }
    }

    /// Why this sample could not be used.
    pub fn failed(&self, problem: impl Display) -> Failure {
        Failure::work(self.place, problem)
    }
}

/// What a sample is written into; reused for the next.
#[derive(Default)]
struct Buffers {
    ids: Vec<u32>,
    type_ids: Vec<u8>,
    mask: Vec<u8>,
    has_mask: bool,
    offsets: Vec<(u32, u32)>,
    words: Vec<u32>,
}

impl Buffers {
    fn resize(&mut self, tokens: usize) -> Result<(), Failure> {
        self.ids = zeros(tokens)?;
        self.type_ids = zeros(tokens)?;
        self.offsets = zeros(tokens)?;
        self.words = zeros(tokens)?;
        Ok(())
    }

    fn as_tokens(&mut self) -> TokenBuffer<'_> {
        TokenBuffer {
            input_ids: &mut self.ids,
            token_type_ids: &mut self.type_ids,
            offsets: &mut self.offsets,
            words: &mut self.words,
        }
    }

    fn sample<'s>(
        &'s self,
        pair: Option<&'s [u8]>,
        encoded: Encoded,
        place: Place<'s>,
    ) -> Sample<'s> {
        let n = encoded.len;
        Sample {
            pair,
            ids: &self.ids[..n],
            type_ids: &self.type_ids[..n],
            mask: None,
            offsets: &self.offsets[..n],
            words: &self.words[..n],
            word_count: 0,
            encoded,
            place,
        }
    }
}

/// The text of a line, and the second one where there is a tab.
fn split(line: &[u8]) -> (&[u8], Option<&[u8]>) {
    match line.iter().position(|byte| *byte == b'\t') {
        Some(tab) => (&line[..tab], Some(&line[tab + 1..])),
        None => (line, None),
    }
}

/// The words of a line with spaces between them.
fn split_words<'l>(line: &'l [u8], place: Place<'_>) -> Result<Vec<&'l str>, Failure> {
    let line = std::str::from_utf8(line)
        .map_err(|error| refused(place, TokenizeError::InvalidUtf8 { at: error.valid_up_to() }))?;
    Ok(line.split_whitespace().collect())
}

/// What to tokenize: the words, or the text of a line and the second one.
fn sources<'w, 'l: 'w>(
    line: &'l [u8],
    words: Option<&'w [&'w str]>,
) -> (Source<'w>, Option<&'l [u8]>) {
    match (words, split(line)) {
        (Some(words), _) => (words.into(), None),
        (None, (first, second)) => (first.into(), second),
    }
}

fn refused(place: Place<'_>, error: TokenizeError) -> Failure {
    let mend = match error {
        TokenizeError::InvalidUtf8 { .. } => "; save the texts as UTF-8",
        TokenizeError::TextTooLong => "; break it into lines",
        TokenizeError::LimitTooSmall { .. } => "; use a model with more positions",
        _ => "",
    };
    Failure::work(place, format_args!("{error}{mend}"))
}

impl<'m> Samples<'m> {
    /// The input that the options name, cut to the longest that the model takes.
    pub fn open(options: &Options, file: &'m ModelFile) -> Result<Self, Failure> {
        Self::with_limit(options, file, file.model().config().max_position_embeddings)
    }

    /// The input that the options name, cut to so many tokens.
    pub fn with_limit(
        options: &Options,
        file: &'m ModelFile,
        limit: usize,
    ) -> Result<Self, Failure> {
        let tokenizer = if options.ids { None } else { Some(options.tokenizer(file)?) };
        let mut buffers = Buffers::default();
        if tokenizer.is_some() {
            buffers.resize(limit.min(512))?;
        }
        let lines = Lines::open(&options.source)?;
        Ok(Self { lines, tokenizer, words: false, limit, buffers, cut: None })
    }

    /// Takes lines as words with spaces between them, not as text; see [`Sample::words`].
    pub fn of_words(self) -> Self {
        Self { words: true, ..self }
    }

    /// Whether the next sample may have to be waited for, so that answers should go out now.
    pub fn drained(&self) -> bool {
        self.lines.drained()
    }

    /// The next line; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Sample<'_>>, Failure> {
        if !self.lines.advance()? {
            return Ok(None);
        }
        let place = self.lines.place();
        let line = self.lines.line();
        let Some(tokenizer) = &self.tokenizer else {
            return self.buffers.read_ids(line, place).map(Some);
        };
        let words = self.words.then(|| split_words(line, place)).transpose()?;
        let (first, second) = sources(line, words.as_deref());
        let limits = Limits::new(self.limit);
        let encoded = loop {
            let mut out = self.buffers.as_tokens();
            match tokenizer.encode(first, second.map(Source::from), &limits, &mut out) {
                Err(TokenizeError::BufferTooSmall { needed }) => self.buffers.resize(needed)?,
                Err(error) => return Err(refused(place, error)),
                Ok(encoded) => break encoded,
            }
        };
        if encoded.truncated {
            let (count, _) = self.cut.get_or_insert_with(|| (0, place.to_string()));
            *count += 1;
        }
        let sample = self.buffers.sample(second, encoded, place);
        Ok(Some(Sample { word_count: words.map_or(0, |words| words.len()), ..sample }))
    }

    /// The next line in overlapping windows, of which neighbours share a quarter: calls `each` with
    /// each window and what is known of all; false at the end. Lines must be texts, or words.
    pub fn next_windows(
        &mut self,
        mut each: impl FnMut(Sample<'_>, &Windows<'_, '_>) -> Result<(), Failure>,
    ) -> Result<bool, Failure> {
        if !self.lines.advance()? {
            return Ok(false);
        }
        let place = self.lines.place();
        let Some(tokenizer) = &self.tokenizer else {
            return Err(Failure::usage("--window: lines of ids are used as they are; give texts"));
        };
        let line = self.lines.line();
        let words = self.words.then(|| split_words(line, place)).transpose()?;
        let (first, second) = sources(line, words.as_deref());
        let word_count = words.as_ref().map_or(0, Vec::len);
        if self.buffers.ids.len() < self.limit {
            self.buffers.resize(self.limit)?;
        }
        let limits = Limits::new(self.limit);
        // Of a pair, a window holds less of each text; what they share must be less still.
        let stride = self.limit / if second.is_some() { 8 } else { 4 };
        let failed = |error| refused(place, error);
        let mut windows =
            tokenizer.windows(first, second.map(Source::from), &limits, stride).map_err(failed)?;
        loop {
            let mut out = self.buffers.as_tokens();
            let Some(encoded) = windows.next_into(&mut out).map_err(failed)? else {
                return Ok(true);
            };
            let sample = self.buffers.sample(second, encoded, place);
            each(Sample { word_count, ..sample }, &windows)?;
        }
    }

    /// Says on stderr which texts were cut, for answers that have no place to say so.
    pub fn tell_cuts(&self) {
        if let Some((count, first)) = &self.cut {
            eprintln!(
                "bertlet: {first}: cut to the model's {} tokens ({count} in all); --window reads \
                 all of a text",
                self.limit
            );
        }
    }
}

impl Buffers {
    /// Reads a line of JSON with ids.
    fn read_ids<'s>(&'s mut self, line: &'s [u8], place: Place<'s>) -> Result<Sample<'s>, Failure> {
        const SHAPE: &str = "write {\"input_ids\":[101,102]}, with token_type_ids and \
                             attention_mask if needed";
        let failed =
            |why: &dyn Display| Failure::work(place, format_args!("no JSON: {why}; {SHAPE}"));
        let json = std::str::from_utf8(line).map_err(|error| failed(&error))?;
        let json = json::parse(json).map_err(|error| failed(&error))?;
        let field = |name: &str, most: u64, out: &mut dyn FnMut(u32)| {
            let values = match json.get(name) {
                None => return Ok(false),
                Some(Value::Array(values)) => values,
                Some(_) => {
                    return Err(Failure::work(
                        place,
                        format_args!("{name}: not a list of numbers; {SHAPE}"),
                    ));
                }
            };
            for (i, value) in values.iter().enumerate() {
                let number = value.as_u64().filter(|n| *n <= most).ok_or_else(|| {
                    Failure::work(
                        place,
                        format_args!("{name}[{i}]: {value} is not a whole number from 0 to {most}"),
                    )
                })?;
                out(number as u32);
            }
            Ok(true)
        };
        self.ids.clear();
        self.type_ids.clear();
        self.mask.clear();
        if !field("input_ids", u32::MAX.into(), &mut |id| self.ids.push(id))? {
            return Err(Failure::work(place, format_args!("input_ids: missing; {SHAPE}")));
        }
        if !field("token_type_ids", 255, &mut |id| self.type_ids.push(id as u8))? {
            self.type_ids.resize(self.ids.len(), 0);
        }
        self.has_mask = field("attention_mask", 1, &mut |live| self.mask.push(live as u8))?;
        Ok(Sample {
            pair: None,
            ids: &self.ids,
            type_ids: &self.type_ids,
            mask: self.has_mask.then_some(&self.mask[..]),
            offsets: &[],
            words: &[],
            word_count: 0,
            encoded: Encoded::default(),
            place,
        })
    }
}
