//! Input lines as what tasks read: texts, pairs, words or token ids.

use std::fmt::Display;

use bertlet::Printable;
use bertlet::tasks::{TaskError, Text};
use bertlet::tokenizer::TokenizeError;
use bertlet::{Input, ModelFile};

use crate::failure::Failure;
use crate::json::{self, Value};
use crate::lines::{Lines, Place};
use crate::options::Options;
use crate::output::Answers;

/// The lines of the input, one by one.
pub struct Samples {
    lines: Lines,
    holds: Holds,
    /// Whether the task takes pairs of texts.
    pairs: bool,
    keep_going: bool,
    /// What the current line holds, if it is JSON.
    ids: Ids,
    texts: Texts,
    /// The `id` of the current line, as JSON.
    id: Option<String>,
}

/// What lines hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    /// A text, or two with a tab between them.
    Text,
    /// JSON with texts.
    Json,
    /// JSON with ids.
    Ids,
}

/// What takes the answers, one per sample.
pub trait Sink {
    /// Puts an error in the place of the current answer.
    fn failed(&mut self, message: &str);

    /// Ends the current answer. `id` is that of the sample, as JSON; `now` says that the next sample may
    /// have to be waited for, so that answers should be written now.
    fn end(&mut self, id: Option<&str>, now: bool) -> Result<(), Failure>;

    /// Ends all of them.
    fn finish(self) -> Result<(), Failure>;
}

impl Sink for Answers {
    fn failed(&mut self, message: &str) {
        let json = self.json;
        let line = self.line();
        line.clear();
        if json {
            json::object(line, |object| {
                object.string("error", message);
            });
        } else {
            line.extend(b"error: ");
            line.extend(message.bytes());
        }
    }

    fn end(&mut self, id: Option<&str>, now: bool) -> Result<(), Failure> {
        if let Some(id) = id {
            let json = self.json;
            let line = self.line();
            if json {
                // Every answer is an object with a field.
                line.pop();
                line.extend([b",\"id\":", id.as_bytes(), b"}"].concat());
            } else {
                drop(line.splice(0..0, format!("{id}: ").into_bytes()));
            }
        }
        Self::end(self, now)
    }

    fn finish(self) -> Result<(), Failure> {
        Self::finish(self)
    }
}

/// One line of input.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'s> {
    /// The line, or its text, where it is JSON.
    pub line: &'s str,
    /// The second text of a pair.
    pair: Option<&'s str>,
    /// Its ids, if it has ids in place of text.
    pub ids: Option<Input<'s>>,
    place: Place<'s>,
}

impl<'s> Sample<'s> {
    /// What a task reads: ids, a text, or a pair.
    pub fn text(&self) -> Text<'s> {
        match (self.ids, self.pair) {
            (Some(ids), _) => ids.into(),
            (None, Some(pair)) => (self.line, pair).into(),
            (None, None) => self.line.into(),
        }
    }

    /// The words of a line with spaces or tabs between them. Other white space, such as no-break spaces, is
    /// part of a word, as in tagged corpora.
    pub fn words(&self) -> Vec<&'s str> {
        self.line.split([' ', '\t']).filter(|word| !word.is_empty()).collect()
    }

    /// The file and the line.
    pub fn place(&self) -> Place<'s> {
        self.place
    }

    /// Why this sample could not be used.
    pub fn failed(&self, problem: impl Display) -> Failure {
        Failure::line(self.place, problem)
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

/// The texts of a line of JSON.
#[derive(Default)]
struct Texts {
    text: String,
    pair: Option<String>,
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
        let lines = Lines::open(&options.source, options.keep_going)?;
        let holds = match (options.ids, options.jsonl) {
            (true, _) => Holds::Ids,
            (_, true) => Holds::Json,
            _ => Holds::Text,
        };
        Ok(Self {
            lines,
            holds,
            pairs: options.pairs,
            keep_going: options.keep_going,
            ids: Ids::default(),
            texts: Texts::default(),
            id: None,
        })
    }

    /// Answers every line: `answer` puts the answer into `sink`. With `--keep-going` a line that cannot be
    /// used gets an error as its answer, and the run fails at its end.
    pub fn each<S: Sink>(
        mut self,
        mut sink: S,
        answer: &mut dyn FnMut(&Sample<'_>, &mut S) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let (mut failed, mut count) = (0u64, 0u64);
        while self.lines.advance()? {
            count += 1;
            self.id = None;
            match self.read().and_then(|sample| answer(&sample, &mut sink)) {
                Err(Failure::Line(message)) if self.keep_going => {
                    failed += 1;
                    sink.failed(&Printable(message).to_string());
                }
                answered => answered?,
            }
            sink.end(self.id.as_deref(), self.lines.drained())?;
        }
        sink.finish()?;
        match failed {
            0 => Ok(()),
            _ => Err(Failure::work(
                self.lines.name(),
                format_args!("{failed} of {count} lines failed; their answers say why"),
            )),
        }
    }

    /// The first line; `None` in an empty input.
    pub fn first(&mut self) -> Result<Option<Sample<'_>>, Failure> {
        if self.lines.advance()? { self.read().map(Some) } else { Ok(None) }
    }

    /// What the current line holds.
    fn read(&mut self) -> Result<Sample<'_>, Failure> {
        let (place, line) = (self.lines.place(), self.lines.line()?);
        if self.holds == Holds::Text {
            let line = std::str::from_utf8(line).map_err(|error| {
                let at = error.valid_up_to();
                let problem = format!("invalid UTF-8 at byte {at}; save the texts as UTF-8");
                Failure::line(place, problem)
            })?;
            let (line, pair) = match line.split_once('\t').filter(|_| self.pairs) {
                Some((first, second)) => (first, Some(second)),
                None => (line, None),
            };
            return Ok(Sample { line, pair, ids: None, place });
        }
        let shape = if self.holds == Holds::Ids { Ids::SHAPE } else { Texts::SHAPE };
        let failed =
            |why: &dyn Display| Failure::line(place, format_args!("not JSON: {why}; {shape}"));
        let json = std::str::from_utf8(line).map_err(|error| failed(&error))?;
        // Some editors write a byte order mark at the start of a file.
        let marked = if place.number <= 1 { json.strip_prefix('\u{feff}') } else { None };
        let json = json::parse(marked.unwrap_or(json)).map_err(|error| failed(&error))?;
        if let Value::Object(fields) = &json {
            let id = fields.iter().rfind(|(name, _)| name == "id");
            self.id = id.map(|(_, id)| id.to_string());
        }
        if self.holds == Holds::Ids {
            let ids = Some(self.ids.read(&json, place)?);
            return Ok(Sample { line: "", pair: None, ids, place });
        }
        self.texts.read(&json, place, self.pairs)?;
        let Texts { text, pair } = &self.texts;
        Ok(Sample { line: text, pair: pair.as_deref(), ids: None, place })
    }
}

impl Texts {
    const SHAPE: &str = "write {\"text\":\"..\"}, with text_pair and id if needed";

    /// Reads a line of JSON, with the names that data sets have.
    fn read(&mut self, json: &Value<'_>, place: Place<'_>, pairs: bool) -> Result<(), Failure> {
        let shape = Self::SHAPE;
        let field = |name| match json.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(Failure::line(place, format_args!("{name}: not a string; {shape}"))),
        };
        let missing = || Failure::line(place, format_args!("text: missing; {shape}"));
        self.text = field("text")?.ok_or_else(missing)?;
        self.pair = field("text_pair")?;
        if self.pair.is_some() && !pairs {
            return Err(Failure::line(
                place,
                "text_pair: this command reads one text; leave it out",
            ));
        }
        Ok(())
    }
}

impl Ids {
    const SHAPE: &str =
        "write {\"input_ids\":[101,102]}, with token_type_ids and attention_mask if needed";

    /// Reads a line of JSON, with the names that `bertlet tokenize` writes or has written.
    fn read(&mut self, json: &Value<'_>, place: Place<'_>) -> Result<Input<'_>, Failure> {
        let shape = Self::SHAPE;
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
                    return Err(Failure::line(
                        place,
                        format_args!("{name}: not a list of numbers; {shape}"),
                    ));
                }
            };
            for (i, value) in values.iter().enumerate() {
                let number = value.as_u64().filter(|n| *n <= max).ok_or_else(|| {
                    Failure::line(
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
            return Err(Failure::line(place, format_args!("input_ids: missing; {shape}")));
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
