//! `bertlet ner`: named entities.

use std::io::Write;
use std::str::FromStr;

use bertlet::tasks::{
    Entity, EntityOptions, EntityRecognizer, Label, LabelRules, LabelSet, Scheme, TagPosition,
    TaskError, Text, TextRunner, UnknownName, label_name,
};
use bertlet::tokenizer::Tokenizer;
use bertlet::{TokenClassifier, with_scratch};
use lexopt::Parser;

use crate::Command;
use crate::failure::Failure;
use crate::json::{self, Object};
use crate::options::{OPTIONS_HELP, Options, TEXTS_HELP, Takes, set_windows, text_value, value};
use crate::output::{Answers, join, write_range};
use crate::samples::{Sample, Samples};

pub const COMMAND: Command = Command {
    name: "ner",
    about: "finds the names of persons, places and other entities",
    help: &[
        "\
Usage: bertlet ner MODEL [FILE|-] [options]

Writes {\"entities\":[{\"label\":\"PER\",\"score\":..,\"text\":\"..\",\"start\":..,\"end\":..}]} for each text; start and end
are bytes (also start_char, end_char, start_utf16, end_utf16). \"truncated\":true if the text was cut to what
the model takes.

      --aggregation A   by words, labelled by their first token (first, the default), or by the average or the
                        max of their tokens; simple (neighbouring tokens, which may leave out parts of words);
                        none (each token)
      --redact          writes the text with every entity replaced by [LABEL], one line per text; with --json
                        {\"redacted\":\"..\"}. Whole words are replaced, and long texts are read in windows
      --constrained     the likeliest sequence of labels that their scheme allows
      --scheme S        the scheme of the labels: bioes (bilou), bmes, iob1 (I- may begin an entity), iob2 (only
                        B- does), bio (iob1 or iob2, whichever is likelier), plain (no scheme); auto, the default,
                        goes by the names of the labels
      --outside LABEL   a label outside of all entities, like O; may be given several times
      --window          read all of a long text, in overlapping windows
      --words           lines are words with spaces (or tabs) between them; writes {\"tags\":[..],\"scores\":[..]}, one label
                        per word, that of its first token (null for words that were cut or have no token)
      --logits          adds \"logits\", one row per token, [CLS] and [SEP] included

With --ids start and end count tokens, and the text is made of the vocabulary's tokens.

",
        TEXTS_HELP,
        OPTIONS_HELP,
        "
Example:
  bertlet ner model.bertlet --text \"Angela Merkel met Emmanuel Macron in Berlin.\"
  bertlet ner model.bertlet --redact letters.txt
"
    ],
    run,
};

#[derive(Default)]
struct Wanted {
    entities: EntityOptions,
    scheme: Option<Scheme>,
    outside: Vec<String>,
    redact: bool,
    window: bool,
    words: bool,
    logits: bool,
}

fn run(parser: Parser) -> Result<(), Failure> {
    let mut wanted = Wanted::default();
    let options = Options::parse(parser, Takes::Texts, &mut |name, parser| {
        match name {
            "--aggregation" => wanted.entities.aggregation = value(parser, name)?,
            "--constrained" => wanted.entities.constrained = true,
            "--scheme" => {
                let given: Auto = value(parser, name)?;
                wanted.scheme = given.0;
            }
            "--outside" => wanted.outside.push(text_value(parser, name)?),
            "--redact" => wanted.redact = true,
            "--window" => wanted.window = true,
            "--words" => wanted.words = true,
            "--logits" => wanted.logits = true,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if (wanted.window || wanted.words) && options.ids {
        return Err(Failure::usage(
            "--window, --words: lines of ids are used as they are; give texts",
        ));
    }
    if wanted.redact && (options.ids || wanted.words || wanted.logits) {
        return Err(Failure::usage(
            "--redact replaces entities in texts; leave out --ids, --words and --logits",
        ));
    }
    let file = options.open()?;
    let model = file.model();
    let failed = |error: TaskError| Failure::work(options.model.display(), error);
    let head = TokenClassifier::new(&model).map_err(|error| options.refused(&file, error))?;
    let mut labels = vec![Label::default(); head.logits_len(1)];
    let outside: Vec<&str> = wanted.outside.iter().map(String::as_str).collect();
    let rules = LabelRules { scheme: wanted.scheme, outside: &outside };
    let recognizer = EntityRecognizer::with_rules(&model, &mut labels, &rules);
    let recognizer = recognizer.map_err(|error| match error {
        TaskError::NoSuchLabel => unknown_label(&options, &head, &outside),
        error => failed(error),
    })?;
    warn_of_nameless(&options, recognizer.labels());
    let samples = Samples::open(&options, &file)?;
    let mut session = options.session(&file)?;
    let mut runner = options.runner(&mut session)?;
    let tokenizer = runner.tokenizer().ok();
    let mut answers = Answers::open(&options)?;
    if wanted.redact {
        answers.json = options.asked_for_json() || options.jsonl;
    }
    let mut scratch = Vec::new();
    samples.each(answers, &mut |sample, answers| {
        let words = if wanted.words { sample.words() } else { Vec::new() };
        let text = match (sample.ids, wanted.words) {
            (Some(ids), _) => Text::Ids(ids),
            (None, true) => Text::Words(&words),
            (None, false) => Text::Str(sample.line),
        };
        set_windows(&mut runner, wanted.window || wanted.redact, &text);
        let found = with_scratch(&mut scratch, |scratch| {
            Found::new(&recognizer, &mut runner, &wanted, text, scratch)
        });
        let found = found.map_err(|error| sample.refused(error))?;
        if let Some(text) = &found.redacted {
            write_redacted(answers, text);
            return Ok(());
        }
        if wanted.words {
            write_tags(answers, &words, &found.tags);
        } else {
            write_entities(answers, &found.entities, |entity| {
                Place::new(sample, tokenizer.as_ref(), entity)
            });
        }
        end(answers, recognizer.labels().len(), &found);
        Ok(())
    })
}

/// A scheme; `None` for the one that the labels suggest.
struct Auto(Option<Scheme>);

impl FromStr for Auto {
    type Err = UnknownName;
    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Ok(Self(if name == "auto" { None } else { Some(name.parse()?) }))
    }
}

/// What is wrong with `--outside`.
fn unknown_label(options: &Options, head: &TokenClassifier<'_>, outside: &[&str]) -> Failure {
    let names = || (0..head.logits_len(1)).map(|i| label_name(head.labels(), i));
    let unknown = outside.iter().find(|name| !names().any(|other| other == **name));
    let some: Vec<&str> = names().take(20).collect();
    let more = if names().count() > some.len() { ", .." } else { "" };
    Failure::work(
        options.model.display(),
        format_args!(
            "labels: none is {:?}, which --outside names; there are {}{more}",
            unknown.unwrap_or(&""),
            some.join(", ")
        ),
    )
}

/// A checkpoint without names for its labels does not say which of them is outside of entities.
fn warn_of_nameless(options: &Options, labels: LabelSet<'_, '_>) {
    let nameless = |label: &Label<'_>| {
        let number = label.name.strip_prefix("LABEL_").unwrap_or(label.name);
        label.position != TagPosition::Outside && number.bytes().all(|b| b.is_ascii_digit())
    };
    if let Some(first) = labels.get(0).filter(|_| labels.iter().all(nameless)) {
        eprintln!(
            "bertlet: {}: labels: they have no names, so each word is an entity; say which label is \
             outside of entities, for example --outside {}, or convert again with --labels",
            options.model.display(),
            first.name
        );
    }
}

/// What was found in a text.
#[derive(Default)]
struct Found<'m> {
    entities: Vec<Entity<'m>>,
    /// `[words]`: label and probability.
    tags: Vec<Option<(&'m str, f32)>>,
    logits: Option<Vec<f32>>,
    /// The text without them, if it was asked for.
    redacted: Option<String>,
    truncated: bool,
}

impl<'m> Found<'m> {
    fn new(
        recognizer: &EntityRecognizer<'m, '_>,
        runner: &mut TextRunner<'_, '_>,
        wanted: &Wanted,
        text: Text<'_>,
        scratch: &mut [u8],
    ) -> Result<Self, TaskError> {
        let tagged = recognizer.tag(runner, text, scratch)?;
        let logits = wanted.logits.then(|| tagged.logits().to_vec());
        let mut found = Self { logits, truncated: tagged.run.truncated, ..Self::default() };
        let labels = recognizer.labels();
        if wanted.redact {
            found.redacted = Some(recognizer.redact(tagged, &wanted.entities)?.to_string());
        } else if let Text::Words(words) = text {
            found.tags.resize(words.len(), None);
            let constrained = wanted.entities.constrained;
            recognizer.word_labels(tagged, constrained, |word, label, score| {
                found.tags[word] = labels.get(label).map(|label| (label.name, score));
            });
        } else {
            recognizer.entities(tagged, &wanted.entities, |entity| found.entities.push(entity));
        }
        Ok(found)
    }
}

/// The text of an entity, and whether its range counts bytes or tokens.
enum Place<'t> {
    Bytes(&'t str),
    Tokens(String),
}

impl<'t> Place<'t> {
    fn new(sample: &Sample<'t>, tokenizer: Option<&Tokenizer<'_>>, entity: &Entity<'_>) -> Self {
        match sample.ids {
            Some(input) => {
                Self::Tokens(join(tokenizer, &input.input_ids[entity.first..=entity.last]))
            }
            None => {
                let bytes = entity.start.byte as usize..entity.end.byte as usize;
                Self::Bytes(sample.line.get(bytes).unwrap_or(""))
            }
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Bytes(text) => text,
            Self::Tokens(text) => text,
        }
    }
}

/// Writes all of an answer but its end.
fn write_entities<'t>(
    answers: &mut Answers,
    entities: &[Entity<'_>],
    place: impl Fn(&Entity<'_>) -> Place<'t>,
) {
    let json = answers.json;
    let line = answers.line();
    if json {
        let mut object = Object::new(line);
        object.list("entities", entities, |out, entity| {
            json::object(out, |object| {
                let place = place(entity);
                object.string("label", entity.label).float("score", entity.score);
                object.string("text", place.text());
                match place {
                    Place::Bytes(_) => write_range(object, entity.start, entity.end),
                    Place::Tokens(_) => {
                        object.plain("start", entity.first).plain("end", entity.last + 1);
                    }
                }
            });
        });
        return;
    }
    for (i, entity) in entities.iter().enumerate() {
        let comma = if i == 0 { "" } else { ", " };
        let (place, label) = (place(entity), entity.label);
        write!(line, "{comma}{} ({label} {:.4})", place.text(), entity.score)
            .expect("memory takes everything");
    }
}

fn write_tags(answers: &mut Answers, words: &[&str], tags: &[Option<(&str, f32)>]) {
    let json = answers.json;
    let line = answers.line();
    if json {
        let mut object = Object::new(line);
        object.list("tags", tags, |out, tag| match tag {
            Some((label, _)) => json::string(out, label),
            None => json::plain(out, "null"),
        });
        object.list("scores", tags, |out, tag| match tag {
            Some((_, score)) => json::float(out, *score),
            None => json::plain(out, "null"),
        });
        return;
    }
    for (i, (word, tag)) in words.iter().zip(tags).enumerate() {
        let space = if i == 0 { "" } else { " " };
        write!(line, "{space}{word}/{}", tag.map_or("?", |(label, _)| label))
            .expect("memory takes everything");
    }
}

fn write_redacted(answers: &mut Answers, text: &str) {
    let json = answers.json;
    let line = answers.line();
    if json {
        Object::new(line).string("redacted", text);
        line.push(b'}');
    } else {
        line.extend(text.as_bytes());
        answers.keep_as_it_is();
    }
}

/// Ends an answer.
fn end(answers: &mut Answers, labels: usize, found: &Found<'_>) {
    let json = answers.json;
    let line = answers.line();
    if !json {
        if found.truncated {
            line.extend(b" (text cut; --window reads all of it)");
        }
        return;
    }
    if let Some(logits) = &found.logits {
        line.extend(b",\"logits\":");
        json::list(line, logits.chunks_exact(labels), json::floats);
    }
    if found.truncated {
        line.extend(b",\"truncated\":true");
    }
    line.push(b'}');
}
