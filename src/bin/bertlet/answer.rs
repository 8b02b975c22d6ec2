//! `bertlet answer`: the part of a passage that answers a question.

use std::io::Write;

use bertlet::heads::QuestionAnswering;
use bertlet::tasks::{self, Answer, Offset};
use bertlet::tokenizer::{TokenBuffer, Tokenizer};
use bertlet::{ModelFile, Session};
use lexopt::Parser;

use crate::Command;
use crate::answers::Answers;
use crate::failure::{Failure, zeros};
use crate::json::Object;
use crate::lines::Lines;
use crate::options::{Options, Takes, text_value, texts_help, value};
use crate::samples::Samples;

pub const COMMAND: Command = Command {
    name: "answer",
    about: "finds the answer to a question in passages",
    help: concat!(
        "\
Usage: bertlet answer MODEL --question Q [FILE|-] [options]

Each line is a passage. Writes {\"text\":..,\"start\":..,\"end\":..,\"score\":..} for it: the part that answers the
question, as bytes of the passage (also start_char, end_char, start_utf16, end_utf16), with \"truncated\":true
where the passage was cut to what the model takes.

      --question Q     the question
      --max-answer N   tokens of the longest answer (15)
      --window         read all of a long passage, in overlapping windows

With --ids the question stands in the ids, tokens of type 1 are the passage, and start and end count tokens.

",
        texts_help!(),
        "
Example:
  bertlet answer model.bertlet --question \"Who came?\" --text \"Mary came late.\"
"
    ),
    run,
};

fn run(parser: Parser) -> Result<(), Failure> {
    let (mut question, mut window) = (None, false);
    let mut longest = QuestionAnswering::MAX_ANSWER;
    let options = Options::parse(parser, Takes::Texts, &mut |name, parser| {
        match name {
            "--question" => question = Some(text_value(parser, name)?),
            "--max-answer" => longest = value(parser, name)?,
            "--window" => window = true,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if window && options.ids {
        return Err(Failure::usage("--window: lines of ids are used as they are; give texts"));
    }
    let question = match (question, options.ids) {
        (Some(question), false) => question,
        (None, true) => String::new(),
        (None, false) => return Err(Failure::usage("no question given; ask it with --question")),
        (Some(_), true) => {
            return Err(Failure::usage("--question: with --ids it stands in the ids already"));
        }
    };
    let file = options.open()?;
    let head = QuestionAnswering::new(&file.model())
        .map_err(|error| Failure::work(options.model.display(), error))?;
    let mut session = options.session(&file)?;
    let mut answers = Answers::open(&options)?;
    if options.ids {
        of_ids(&options, &file, &head, longest, &mut session, &mut answers)?;
    } else {
        let tokenizer = options.tokenizer(&file)?;
        let mut lines = Lines::open(&options.source)?;
        let mut asked = Asked::new(&file, head, tokenizer, question, longest, window)?;
        while lines.advance()? {
            let failed = |error: &dyn std::fmt::Display| Failure::work(lines.place(), error);
            let passage = std::str::from_utf8(lines.line()).map_err(|error| {
                failed(&format_args!(
                    "invalid UTF-8 at byte {}; save it as UTF-8",
                    error.valid_up_to()
                ))
            })?;
            let (answer, truncated) =
                asked.answer(&mut session, passage).map_err(|error| failed(&error))?;
            write(&mut answers, &answer, truncated);
            answers.end(lines.drained())?;
        }
    }
    answers.finish()
}

/// A question, and memory to answer it in.
struct Asked<'m> {
    head: QuestionAnswering,
    tokenizer: Tokenizer<'m>,
    question: String,
    longest: usize,
    overlap: Option<usize>,
    limit: usize,
    ids: Vec<u32>,
    type_ids: Vec<u8>,
    offsets: Vec<(u32, u32)>,
    words: Vec<u32>,
    logits: Vec<f32>,
}

impl<'m> Asked<'m> {
    fn new(
        file: &ModelFile,
        head: QuestionAnswering,
        tokenizer: Tokenizer<'m>,
        question: String,
        longest: usize,
        window: bool,
    ) -> Result<Self, Failure> {
        let limit = file.model().config().max_position_embeddings;
        let asked = tokenizer
            .count(question.as_str())
            .map_err(|error| Failure::usage(format!("--question: {error}")))?;
        // What a window holds of the passage; neighbours share a quarter of it.
        let room = limit.saturating_sub(asked + 3);
        if room == 0 {
            return Err(Failure::usage(format!(
                "--question: its {asked} tokens leave no room among the model's {limit}; ask shorter"
            )));
        }
        Ok(Self {
            head,
            tokenizer,
            question,
            longest,
            overlap: window.then_some(room / 4),
            limit,
            ids: zeros(limit)?,
            type_ids: zeros(limit)?,
            offsets: zeros(limit)?,
            words: zeros(limit)?,
            logits: zeros(2 * limit)?,
        })
    }

    fn answer<'t>(
        &mut self,
        session: &mut Session<'_>,
        passage: &'t str,
    ) -> Result<(Option<Answer<'t>>, bool), tasks::TaskError> {
        let mut buffer = TokenBuffer {
            input_ids: &mut self.ids,
            token_type_ids: &mut self.type_ids,
            offsets: &mut self.offsets,
            words: &mut self.words,
        };
        let (answer, run) = tasks::answer(
            &self.head,
            &self.tokenizer,
            &mut session.encoder(self.limit)?,
            &self.question,
            passage,
            self.longest,
            self.overlap,
            &mut buffer,
            &mut self.logits,
        )?;
        Ok((answer, run.truncated))
    }
}

fn write(answers: &mut Answers, answer: &Option<Answer<'_>>, truncated: bool) {
    let Answer { text, start, end, score } = answer.unwrap_or_default();
    if !answers.json {
        let cut = if truncated { " (passage cut; --window reads all of it)" } else { "" };
        write!(answers.line(), "{text} {score:.4}{cut}").expect("memory takes everything");
        return;
    }
    let mut object = Object::new(answers.line());
    object.string("text", text);
    write_place(&mut object, start, end);
    object.float("score", score);
    if truncated {
        object.plain("truncated", true);
    }
    object.end();
}

/// Start and end in all units.
pub fn write_place(object: &mut Object<'_>, start: Offset, end: Offset) {
    object
        .plain("start", start.byte)
        .plain("end", end.byte)
        .plain("start_char", start.char)
        .plain("end_char", end.char)
        .plain("start_utf16", start.utf16)
        .plain("end_utf16", end.utf16);
}

fn of_ids(
    options: &Options,
    file: &ModelFile,
    head: &QuestionAnswering,
    longest: usize,
    session: &mut Session<'_>,
    answers: &mut Answers,
) -> Result<(), Failure> {
    let tokenizer = file.model().tokenizer().ok();
    let mut samples = Samples::open(options, file)?;
    let mut logits = Vec::new();
    while let Some(sample) = samples.next()? {
        let is_passage = |kind: &u8| *kind == 1;
        let Some(start) = sample.type_ids.iter().position(is_passage) else {
            return Err(sample.failed("token_type_ids: none is 1; mark the passage by them"));
        };
        let mut end = sample.type_ids.iter().rposition(is_passage).map_or(start, |end| end + 1);
        if tokenizer.is_some_and(|tokenizer| sample.ids[end - 1] == tokenizer.sep_id()) {
            end -= 1;
        }
        logits.resize(head.logits_len(sample.ids.len()), 0.0);
        session
            .encoder(sample.ids.len())
            .and_then(|mut encoder| head.logits(&mut encoder, &sample.input(), &mut logits))
            .map_err(|error| sample.failed(error))?;
        let span = head.best(&logits, start..end, longest);
        let (from, to) = span.map_or((0, 0), |span| (span.first, span.last + 1));
        let text = join(tokenizer.as_ref(), &sample.ids[from..to]);
        let score = span.map_or(0.0, |span| span.score);
        if answers.json {
            let mut object = Object::new(answers.line());
            object.string("text", &text).plain("start", from).plain("end", to);
            object.float("score", score);
            object.end();
        } else {
            write!(answers.line(), "{text} {score:.4}").expect("memory takes everything");
        }
        answers.end(samples.drained())?;
    }
    Ok(())
}

/// Tokens as text: the parts of words joined, a space between words, but none between Chinese characters,
/// which the tokenizer set apart.
pub fn join(tokenizer: Option<&Tokenizer<'_>>, ids: &[u32]) -> String {
    let mut text = String::new();
    let splits_chinese =
        tokenizer.is_some_and(|tokenizer| tokenizer.settings().handle_chinese_chars);
    for id in ids {
        let token = tokenizer.and_then(|tokenizer| tokenizer.token(*id)).unwrap_or("");
        match token.strip_prefix("##") {
            Some(part) => text.push_str(part),
            None => {
                let neighbours = [text.chars().next_back(), token.chars().next()];
                let within = splits_chinese && neighbours.iter().all(|c| c.is_some_and(is_chinese));
                if !text.is_empty() && !within {
                    text.push(' ');
                }
                text.push_str(token);
            }
        }
    }
    text
}

/// What the tokenizer makes a word of its own: the ideographs of BERT's `_is_chinese_char`.
fn is_chinese(c: char) -> bool {
    matches!(u32::from(c),
        0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xF900..=0xFAFF | 0x2_0000..=0x2_A6DF
        | 0x2_A700..=0x2_CEAF | 0x2_F800..=0x2_FA1F)
}
