//! `bertlet ner`: named entities.

use std::io::Write;

use bertlet::tasks::{Entity, EntityOptions, EntityRecognizer, Label, Tagged, TaskError, Text};
use bertlet::tokenizer::Tokenizer;
use bertlet::{ModelFile, SectionKind, Session};
use lexopt::Parser;

use crate::Command;
use crate::answer::{join, write_place};
use crate::answers::Answers;
use crate::failure::{Failure, zeros};
use crate::json::{self, Object};
use crate::lines::Lines;
use crate::options::{Options, Takes, texts_help, value};
use crate::samples::Samples;

pub const COMMAND: Command = Command {
    name: "ner",
    about: "finds names of persons, places and the like",
    help: concat!(
        "\
Usage: bertlet ner MODEL [FILE|-] [options]

Writes {\"entities\":[{\"label\":\"PER\",\"score\":..,\"text\":\"..\",\"start\":..,\"end\":..}]} for each text; start and end
are bytes (also start_char, end_char, start_utf16, end_utf16). \"truncated\":true where the text was cut to what
the model takes.

      --aggregation A   none (each token), simple (neighbouring tokens; the default), or by words, labelled by
                        their first token, the average or the max of their tokens: first, average, max
      --constrained     only sequences of labels that their scheme allows (BIO, BIOES, BMES), the likeliest one
      --window          read all of a long text, in overlapping windows
      --words           lines are words with spaces between them; writes {\"tags\":[..],\"scores\":[..]}, a label
                        a word, that of its first token (null for words that were cut or have no token)
      --logits          adds \"logits\", a row a token, [CLS] and [SEP] included

With --ids start and end count tokens, and the text is made of the vocabulary's tokens.

",
        texts_help!(),
        "
Example:
  bertlet ner model.bertlet --text \"Angela Merkel met Emmanuel Macron in Berlin.\"
"
    ),
    run,
};

struct Wanted {
    entities: EntityOptions,
    window: bool,
    words: bool,
    logits: bool,
}

fn run(parser: Parser) -> Result<(), Failure> {
    let mut wanted =
        Wanted { entities: EntityOptions::default(), window: false, words: false, logits: false };
    let options = Options::parse(parser, Takes::Texts, &mut |name, parser| {
        match name {
            "--aggregation" => wanted.entities.aggregation = value(parser, name)?,
            "--constrained" => wanted.entities.constrained = true,
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
    let file = options.open()?;
    let model = file.model();
    let mut labels =
        vec![Label::default(); model.section(SectionKind::TokenClassifier).map_or(0, |s| s.rows)];
    let recognizer = EntityRecognizer::new(&model, &mut labels)
        .map_err(|error| Failure::work(options.model.display(), error))?;
    let session = options.session(&file)?;
    let mut reader = Reader { wanted, recognizer, session, scratch: Vec::new() };
    let mut answers = Answers::open(&options)?;
    if options.ids {
        let mut samples = Samples::open(&options, &file)?;
        let tokenizer = model.tokenizer().ok();
        while let Some(sample) = samples.next()? {
            reader
                .ids(sample.input(), tokenizer.as_ref(), &mut answers)
                .map_err(|error| sample.failed(error))?;
            answers.end(samples.drained())?;
        }
    } else {
        let tokenizer = options.tokenizer(&file)?;
        let mut lines = Lines::open(&options.source)?;
        while lines.advance()? {
            let text = std::str::from_utf8(lines.line()).map_err(|error| {
                let at = error.valid_up_to();
                Failure::work(
                    lines.place(),
                    format_args!("invalid UTF-8 at byte {at}; save the texts as UTF-8"),
                )
            })?;
            reader
                .text(text, &tokenizer, &file, &mut answers)
                .map_err(|error| Failure::work(lines.place(), error))?;
            answers.end(lines.drained())?;
        }
    }
    answers.finish()
}

/// Finds entities in one line after the other.
struct Reader<'m, 'b> {
    wanted: Wanted,
    recognizer: EntityRecognizer<'m, 'b>,
    session: Session<'m>,
    scratch: Vec<u8>,
}

impl Reader<'_, '_> {
    fn reserve(&mut self, need: usize) -> Result<(), TaskError> {
        if self.scratch.len() < need {
            self.scratch = Vec::new();
            self.scratch = zeros(need).map_err(|_| TaskError::Scratch { need, have: 0 })?;
        }
        Ok(())
    }

    fn text(
        &mut self,
        text: &str,
        tokenizer: &Tokenizer<'_>,
        file: &ModelFile,
        answers: &mut Answers,
    ) -> Result<(), TaskError> {
        let limit = file.model().config().max_position_embeddings;
        let words: Vec<&str> =
            if self.wanted.words { text.split_whitespace().collect() } else { Vec::new() };
        let source = if self.wanted.words { Text::Words(&words) } else { Text::Str(text) };
        let tokens = match source {
            _ if !self.wanted.window => limit,
            Text::Words(words) => tokenizer.count(words)?,
            _ => tokenizer.count(text)?,
        };
        self.reserve(self.recognizer.scratch_len(limit, tokens))?;
        let overlap = self.wanted.window.then_some(limit / 4);
        let mut encoder = self.session.encoder(limit)?;
        let tagged = self.recognizer.tag(&mut encoder, source, overlap, &mut self.scratch)?;
        let (truncated, recognizer) = (tagged.truncated, &self.recognizer);
        let logits = self.wanted.logits.then(|| tagged.logits().to_vec());
        if self.wanted.words {
            let mut tags = vec![None; words.len()];
            recognizer.word_labels(
                tagged,
                self.wanted.entities.constrained,
                |word, label, score| {
                    tags[word] =
                        Some((recognizer.labels().get(label).map_or("?", |l| l.name), score));
                },
            );
            write_tags(answers, &words, &tags);
        } else {
            let entities = find(recognizer, tagged, &self.wanted.entities);
            write_entities(answers, &entities, |object, entity| {
                object.string("text", slice(text, entity));
                write_place(object, entity.start, entity.end);
                slice(text, entity).to_owned()
            });
        }
        end(answers, recognizer.labels().len(), logits, truncated);
        Ok(())
    }

    fn ids(
        &mut self,
        input: bertlet::Input<'_>,
        tokenizer: Option<&Tokenizer<'_>>,
        answers: &mut Answers,
    ) -> Result<(), TaskError> {
        let mut encoder = self.session.encoder(input.input_ids.len())?;
        let need = self.recognizer.scratch_len(0, input.input_ids.len());
        if self.scratch.len() < need {
            self.scratch = zeros(need).map_err(|_| TaskError::Scratch { need, have: 0 })?;
        }
        let tagged =
            self.recognizer.tag(&mut encoder, Text::Ids(input), None, &mut self.scratch)?;
        let logits = self.wanted.logits.then(|| tagged.logits().to_vec());
        let entities = find(&self.recognizer, tagged, &self.wanted.entities);
        write_entities(answers, &entities, |object, entity| {
            let text = join(tokenizer, &input.input_ids[entity.first..=entity.last]);
            object.string("text", &text);
            object.plain("start", entity.first).plain("end", entity.last + 1);
            text
        });
        end(answers, self.recognizer.labels().len(), logits, false);
        Ok(())
    }
}

fn find<'m>(
    recognizer: &EntityRecognizer<'m, '_>,
    tagged: Tagged<'_, '_>,
    options: &EntityOptions,
) -> Vec<Entity<'m>> {
    let mut entities = Vec::new();
    recognizer.entities(tagged, options, |entity| entities.push(entity));
    entities
}

fn slice<'t>(text: &'t str, entity: &Entity<'_>) -> &'t str {
    text.get(entity.start.byte as usize..entity.end.byte as usize).unwrap_or("")
}

/// Writes all of an answer but its end; `place` writes text and place of an entity and returns the text.
fn write_entities(
    answers: &mut Answers,
    entities: &[Entity<'_>],
    place: impl Fn(&mut Object<'_>, &Entity<'_>) -> String,
) {
    let json = answers.json;
    let line = answers.line();
    if json {
        let mut object = Object::new(line);
        object.list("entities", entities, |out, entity| {
            json::object(out, |object| {
                object.string("label", entity.label).float("score", entity.score);
                place(object, entity);
            });
        });
        return;
    }
    for (i, entity) in entities.iter().enumerate() {
        let text = place(&mut Object::new(&mut Vec::new()), entity);
        let comma = if i == 0 { "" } else { ", " };
        write!(line, "{comma}{text} ({} {:.4})", entity.label, entity.score)
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

/// Ends an answer.
fn end(answers: &mut Answers, labels: usize, logits: Option<Vec<f32>>, truncated: bool) {
    let json = answers.json;
    let line = answers.line();
    if !json {
        if truncated {
            line.extend(b" (text cut; --window reads all of it)");
        }
        return;
    }
    if let Some(logits) = logits {
        line.extend(b",\"logits\":");
        json::list(line, logits.chunks_exact(labels), json::floats);
    }
    if truncated {
        line.extend(b",\"truncated\":true");
    }
    line.push(b'}');
}
