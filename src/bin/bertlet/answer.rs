//! `bertlet answer`: the part of a passage that answers a question.

use std::io::Write;

use bertlet::Input;
use bertlet::heads::{AnswerSpan, QuestionAnswering};
use bertlet::tasks::{Answer, Offset, Question, TaskError, TextRunner};
use lexopt::Parser;

use crate::Command;
use crate::failure::{Failure, zeros};
use crate::json::{self, Object};
use crate::options::{OPTIONS_HELP, Options, TEXTS_HELP, Takes, count, text_value};
use crate::output::{Answers, join, write_range};
use crate::samples::{Sample, Samples};

pub const COMMAND: Command = Command {
    name: "answer",
    about: "finds the answer to a question in passages",
    help: &[
        "\
Usage: bertlet answer MODEL --question Q [FILE|-] [options]

Each line is a passage. Writes {\"text\":..,\"start\":..,\"end\":..,\"score\":..,\"no_answer\":..} for it: the part
that answers the question, and its range in bytes of the passage (also start_char, end_char, start_utf16,
end_utf16), with \"truncated\":true if the passage was cut to what the model takes. no_answer is the probability that
the passage has no answer. Models for SQuAD 2 know it: their answer holds where score is higher.

      --question Q     the question
      --max-answer N   tokens of the longest answer (15)
      --no-answer      where no_answer is higher than score, the answer is an empty text with that score
      --top N          adds \"answers\":[..], the N likeliest parts, best first, no two with the same text
      --window         read all of a long passage, in overlapping windows

With --ids the ids hold the question, tokens of type 1 are the passage, and start and end count tokens.

",
        TEXTS_HELP,
        OPTIONS_HELP,
        "
Example:
  bertlet answer model.bertlet --question \"Who came?\" --text \"Mary came late.\"
"
    ],
    run,
};

/// The most answers to a passage.
const MOST: usize = 1000;

fn run(parser: Parser) -> Result<(), Failure> {
    let (mut question, mut window, mut top, mut may_be_none) = (None, false, None, false);
    let mut longest = QuestionAnswering::MAX_ANSWER;
    let options = Options::parse(parser, Takes::Texts, &mut |name, parser| {
        match name {
            "--question" => question = Some(text_value(parser, name)?),
            "--max-answer" => longest = count(parser, name, usize::MAX)?,
            "--top" => top = Some(count(parser, name, MOST)?),
            "--no-answer" => may_be_none = true,
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
            return Err(Failure::usage("--question: with --ids the ids hold it already"));
        }
    };
    let question = Question { text: &question, max_answer: longest };
    let file = options.open()?;
    let head =
        QuestionAnswering::new(&file.model()).map_err(|error| options.refused(&file, error))?;
    let samples = Samples::open(&options, &file)?;
    let mut session = options.session(&file)?;
    let mut runner = options.runner(&mut session)?;
    if !options.ids {
        let overlap = runner.answer_overlap(question).map_err(|error| match error {
            TaskError::EncoderTooShort { need, have } => Failure::usage(format!(
                "--question: its {} tokens leave no room among the model's {have}; ask a shorter one",
                need.saturating_sub(4)
            )),
            error => Failure::usage(format!("--question: {error}")),
        })?;
        runner.set_overlap(window.then_some(overlap));
    }
    let tokenizer = runner.tokenizer().ok();
    let answers = Answers::open(&options)?;
    let mut logits = zeros(head.logits_len(runner.max_tokens()))?;
    let wanted = top.unwrap_or(1);
    samples.each(answers, &mut |sample, answers| {
        let mut found = Vec::new();
        let (no_answer, truncated) = if let Some(input) = &sample.ids {
            let no_answer = of_ids(&mut runner, &head, sample, longest, &mut |span| {
                let ids = &input.input_ids[span.first..=span.last];
                let text = join(tokenizer.as_ref(), ids);
                if found.iter().all(|other: &Found| other.text != text) {
                    let place = Place::Tokens(span.first, span.last + 1);
                    found.push(Found { text, place, score: span.score });
                }
                found.len() < wanted
            })?;
            (no_answer, false)
        } else {
            let mut best = vec![Answer::default(); wanted];
            let answered = runner.answers(question, sample.line, &mut logits, &mut best);
            let answered = answered.map_err(|error| match error {
                TaskError::EncoderTooShort { .. } => sample.failed(format_args!(
                    "--max-answer {longest}: the passage needs windows, and each has room for fewer \
                     tokens of it; give a smaller number"
                )),
                error => sample.refused(error),
            })?;
            found.extend(best[..answered.count].iter().map(|answer| Found {
                text: answer.text.into(),
                place: Place::Text(answer.start, answer.end),
                score: answer.score,
            }));
            (answered.no_answer, answered.run.truncated)
        };
        let none = Found {
            text: String::new(),
            place: match options.ids {
                true => Place::Tokens(0, 0),
                false => Place::Text(Offset::default(), Offset::default()),
            },
            score: if may_be_none || !found.is_empty() { no_answer } else { 0.0 },
        };
        let best = match found.first() {
            Some(best) if !(may_be_none && no_answer > best.score) => best,
            _ => &none,
        };
        write(answers, best, top.map(|_| &found[..]), (no_answer, truncated));
        Ok(())
    })
}

/// An answer, in a text or in ids.
struct Found {
    text: String,
    place: Place,
    score: f32,
}

#[derive(Clone, Copy)]
enum Place {
    Text(Offset, Offset),
    Tokens(usize, usize),
}

impl Found {
    fn fields(&self, object: &mut Object<'_>) {
        object.string("text", &self.text);
        match self.place {
            Place::Text(start, end) => write_range(object, start, end),
            Place::Tokens(start, end) => {
                object.plain("start", start).plain("end", end);
            }
        }
        object.float("score", self.score);
    }
}

fn write(
    answers: &mut Answers,
    best: &Found,
    list: Option<&[Found]>,
    (no_answer, truncated): (f32, bool),
) {
    if answers.json {
        let mut object = Object::new(answers.line());
        best.fields(&mut object);
        object.float("no_answer", no_answer);
        if let Some(list) = list {
            object.list("answers", list, |out, answer| {
                json::object(out, |object| answer.fields(object));
            });
        }
        if truncated {
            object.plain("truncated", true);
        }
        object.end();
        return;
    }
    let shown: Vec<_> = list
        .unwrap_or(std::slice::from_ref(best))
        .iter()
        .map(|answer| format!("{} {:.4}", answer.text, answer.score))
        .collect();
    let cut = if truncated { " (passage cut; --window reads all of it)" } else { "" };
    write!(answers.line(), "{} (no answer {no_answer:.4}){cut}", shown.join(", "))
        .expect("memory takes everything");
}

/// Calls `each` with the answers in ids, best first, until it returns false. Returns the probability of no
/// answer.
fn of_ids(
    runner: &mut TextRunner<'_, '_>,
    head: &QuestionAnswering,
    sample: &Sample<'_>,
    longest: usize,
    each: &mut dyn FnMut(&AnswerSpan) -> bool,
) -> Result<f32, Failure> {
    let input = sample.ids.unwrap_or(Input::new(&[]));
    let is_passage = |kind: &u8| *kind == 1;
    let types = input.token_type_ids.unwrap_or(&[]);
    let Some(start) = types.iter().position(is_passage) else {
        return Err(sample.failed("token_type_ids: none is 1; mark the passage by them"));
    };
    let mut end = types.iter().rposition(is_passage).map_or(start, |end| end + 1);
    let sep = runner.tokenizer().map(|tokenizer| tokenizer.sep_id());
    if end > 0 && sep.is_ok_and(|sep| input.input_ids.get(end - 1) == Some(&sep)) {
        end -= 1;
    }
    let mut logits = zeros(head.logits_len(input.input_ids.len()))?;
    head.logits(runner.encoder(), &input, &mut logits).map_err(|error| sample.failed(error))?;
    let no_answer = head.probabilities(&mut logits, start..end);
    let mut spans: Vec<_> = head.spans(&logits, start..end, longest).collect();
    // Only a few of many are wanted: searching for each takes less code than sorting.
    while let Some(best) = (0..spans.len()).reduce(|a, b| match spans[b].score > spans[a].score {
        true => b,
        false => a,
    }) {
        let span = spans.remove(best);
        if !each(&span) {
            break;
        }
    }
    Ok(no_answer)
}
