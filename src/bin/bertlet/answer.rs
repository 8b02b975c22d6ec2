//! `bertlet answer`: the part of a passage that answers a question.

use std::io::Write;
use std::ops::Range;

use bertlet::Input;
use bertlet::heads::QuestionAnswering;
use bertlet::tasks::{Answer, Question, TaskError, TextRunner};
use lexopt::Parser;

use crate::Command;
use crate::failure::{Failure, zeros};
use crate::json::Object;
use crate::options::{Options, Takes, text_value, texts_help, value};
use crate::output::{Answers, join, write_range};
use crate::samples::{Sample, Samples};

pub const COMMAND: Command = Command {
    name: "answer",
    about: "finds the answer to a question in passages",
    help: concat!(
        "\
Usage: bertlet answer MODEL --question Q [FILE|-] [options]

Each line is a passage. Writes {\"text\":..,\"start\":..,\"end\":..,\"score\":..} for it: the part that answers the
question, and its range in bytes of the passage (also start_char, end_char, start_utf16, end_utf16), with
\"truncated\":true if the passage was cut to what the model takes.

      --question Q     the question
      --max-answer N   tokens of the longest answer (15)
      --window         read all of a long passage, in overlapping windows

With --ids the ids hold the question, tokens of type 1 are the passage, and start and end count tokens.

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
            return Err(Failure::usage("--question: with --ids the ids hold it already"));
        }
    };
    let file = options.open()?;
    let head = QuestionAnswering::new(&file.model())
        .map_err(|error| Failure::work(options.model.display(), error))?;
    let mut samples = Samples::open(&options, &file)?;
    let mut session = options.session(&file)?;
    let mut runner = options.runner(&mut session)?;
    if !options.ids {
        let overlap = runner.answer_overlap(&question).map_err(|error| match error {
            TaskError::EncoderTooShort { need, have } => Failure::usage(format!(
                "--question: its {} tokens leave no room among the model's {have}; ask a shorter one",
                need.saturating_sub(4)
            )),
            error => Failure::usage(format!("--question: {error}")),
        })?;
        runner.set_overlap(window.then_some(overlap));
    }
    let tokenizer = runner.tokenizer().ok();
    let mut answers = Answers::open(&options)?;
    let mut logits = zeros(head.logits_len(runner.max_tokens()))?;
    while let Some(sample) = samples.next()? {
        if options.ids {
            let (tokens, score) = of_ids(&mut runner, &head, &sample, longest)?;
            let ids = sample.ids.map_or(&[][..], |input| input.input_ids);
            let text = join(tokenizer.as_ref(), &ids[tokens.clone()]);
            write_ids(&mut answers, &text, tokens, score);
        } else {
            let question = Question { text: &question, max_answer: longest };
            let (answer, run) = runner
                .answer(question, sample.line, &mut logits)
                .map_err(|error| sample.refused(error))?;
            write(&mut answers, &answer, run.truncated);
        }
        answers.end(samples.drained())?;
    }
    answers.finish()
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
    write_range(&mut object, start, end);
    object.float("score", score);
    if truncated {
        object.plain("truncated", true);
    }
    object.end();
}

/// The answer in ids: the range of its tokens, and its probability.
fn of_ids(
    runner: &mut TextRunner<'_, '_>,
    head: &QuestionAnswering,
    sample: &Sample<'_>,
    longest: usize,
) -> Result<(Range<usize>, f32), Failure> {
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
    let span = head.best(&logits, start..end, longest);
    Ok(span.map_or((0..0, 0.0), |span| (span.first..span.last + 1, span.score)))
}

fn write_ids(answers: &mut Answers, text: &str, tokens: Range<usize>, score: f32) {
    if !answers.json {
        write!(answers.line(), "{text} {score:.4}").expect("memory takes everything");
        return;
    }
    let mut object = Object::new(answers.line());
    object.string("text", text).plain("start", tokens.start).plain("end", tokens.end);
    object.float("score", score);
    object.end();
}
