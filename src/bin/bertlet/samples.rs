//! Input lines as what tasks read: texts, pairs, words or token ids.

use std::fmt::Display;

use bertlet::tasks::{TaskError, Text};
use bertlet::tokenizer::TokenizeError;
use bertlet::{Input, ModelFile};

use crate::failure::Failure;
use crate::json::{self, Value};
use crate::lines::{Lines, Place};
use crate::options::Options;

/// The lines of the input, one by one.
pub struct Samples {
    lines: Lines,
    /// Lines are JSON with ids.
    are_ids: bool,
    ids: Ids,
}

/// One line of input.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'s> {
    /// The line.
    pub line: &'s str,
    /// Its ids, if it has ids in place of text.
    pub ids: Option<Input<'s>>,
    place: Place<'s>,
}

impl<'s> Sample<'s> {
    /// What a task reads: ids, a text, or a pair with a tab between its texts.
    pub fn text(&self) -> Text<'s> {
        match (self.ids, self.line.split_once('\t')) {
            (Some(ids), _) => ids.into(),
            (None, Some(pair)) => pair.into(),
            (None, None) => self.line.into(),
        }
    }

    /// The words of a line with spaces between them. Other white space, such as no-break spaces, is part of
    /// a word, as in tagged corpora.
    pub fn words(&self) -> Vec<&'s str> {
        self.line.split(' ').filter(|word| !word.is_empty()).collect()
    }

    /// The file and the line.
    pub fn place(&self) -> Place<'s> {
        self.place
    }

    /// Why this sample could not be used.
    pub fn failed(&self, problem: impl Display) -> Failure {
        Failure::work(self.place, problem)
    }

    /// Why a task could not be done, and what helps.
    pub fn refused(&self, error: TaskError) -> Failure {
        let hint = match error {
            TaskError::Tokenize(TokenizeError::TextTooLong) => "; break it into lines",
            TaskError::Tokenize(TokenizeError::LimitTooSmall { .. }) => {
                "; use a model with more positions"
            }
            _ => "",
        };
        self.failed(format_args!("{error}{hint}"))
    }
}

/// The ids of a line; reused for the next.
#[derive(Default)]
struct Ids {
    ids: Vec<u32>,
    types: Vec<u8>,
    mask: Vec<u8>,
}

impl Samples {
    /// The input that the options name.
    pub fn open(options: &Options, file: &ModelFile) -> Result<Self, Failure> {
        if !options.ids {
            // A model without a tokenizer is refused before any text is read.
            options.tokenizer(file)?;
        }
        let lines = Lines::open(&options.source)?;
        Ok(Self { lines, are_ids: options.ids, ids: Ids::default() })
    }

    /// Whether the next sample may have to be waited for, so that answers should be written now.
    pub fn drained(&self) -> bool {
        self.lines.drained()
    }

    /// The next line; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Sample<'_>>, Failure> {
        if !self.lines.advance()? {
            return Ok(None);
        }
        let (place, line) = (self.lines.place(), self.lines.line());
        if self.are_ids {
            let ids = Some(self.ids.read(line, place)?);
            return Ok(Some(Sample { line: "", ids, place }));
        }
        let line = std::str::from_utf8(line).map_err(|error| {
            let at = error.valid_up_to();
            Failure::work(
                place,
                format_args!("invalid UTF-8 at byte {at}; save the texts as UTF-8"),
            )
        })?;
        Ok(Some(Sample { line, ids: None, place }))
    }
}

impl Ids {
    /// Reads a line of JSON, with the names that `bertlet tokenize` writes or has written.
    fn read(&mut self, line: &[u8], place: Place<'_>) -> Result<Input<'_>, Failure> {
        const SHAPE: &str = "write {\"input_ids\":[101,102]}, with token_type_ids and \
                             attention_mask if needed";
        let failed =
            |why: &dyn Display| Failure::work(place, format_args!("not JSON: {why}; {SHAPE}"));
        let json = std::str::from_utf8(line).map_err(|error| failed(&error))?;
        let json = json::parse(json).map_err(|error| failed(&error))?;
        let field = |names: [&str; 2], max: u64, out: &mut dyn FnMut(u32)| {
            let [name, other] = names;
            let (name, value) = match json.get(name) {
                None => (other, json.get(other)),
                value => (name, value),
            };
            let values = match value {
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
                let number = value.as_u64().filter(|n| *n <= max).ok_or_else(|| {
                    Failure::work(
                        place,
                        format_args!("{name}[{i}]: {value} is not a whole number from 0 to {max}"),
                    )
                })?;
                out(number as u32);
            }
            Ok(true)
        };
        self.ids.clear();
        self.types.clear();
        self.mask.clear();
        if !field(["input_ids", "ids"], u32::MAX.into(), &mut |id| self.ids.push(id))? {
            return Err(Failure::work(place, format_args!("input_ids: missing; {SHAPE}")));
        }
        let names = ["token_type_ids", "type_ids"];
        if !field(names, 255, &mut |id| self.types.push(id as u8))? {
            self.types.resize(self.ids.len(), 0);
        }
        let names = ["attention_mask", "mask"];
        let masked = field(names, 1, &mut |live| self.mask.push(live as u8))?;
        Ok(Input {
            input_ids: &self.ids,
            token_type_ids: Some(&self.types),
            attention_mask: masked.then_some(&self.mask[..]),
        })
    }
}
