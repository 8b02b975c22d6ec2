//! `bertlet next-sentence`: whether the second text of a pair follows the first.

use std::io::Write;

use bertlet::NextSentence;
use bertlet::tasks::TaskError;
use lexopt::Parser;

use crate::Command;
use crate::failure::Failure;
use crate::json::Object;
use crate::options::{OPTIONS_HELP, Options, PAIRS_HELP, Takes};
use crate::output::Answers;
use crate::samples::Samples;

pub const COMMAND: Command = Command {
    name: "next-sentence",
    about: "says how likely the second text of a pair follows the first",
    help: &[
        "\
Usage: bertlet next-sentence MODEL [FILE|-] [options]

Writes {\"is_next\":0.98,\"logits\":[..,..]} for each pair, with \"truncated\":true where it was cut to what the
model takes. The logits are those of \"is next\" and \"is not\".

",
        PAIRS_HELP,
        OPTIONS_HELP,
        "
Example:
  printf 'It was raining.\\tHe took an umbrella.\\n' | bertlet next-sentence model.bertlet
"
    ],
    run,
};

fn run(parser: Parser) -> Result<(), Failure> {
    let options = Options::parse(parser, Takes::Pairs, &mut |_, _| Ok(false))?;
    let file = options.open()?;
    let head = NextSentence::new(&file.model()).map_err(|error| options.refused(&file, error))?;
    let samples = Samples::open(&options, &file)?;
    let mut session = options.session(&file)?;
    let mut runner = options.runner(&mut session)?;
    let answers = Answers::open(&options)?;
    samples.each(answers, &mut |sample, answers| {
        let (logits, run) = runner.next_sentence(sample.text()).map_err(|error| match error {
            TaskError::NotAPair => sample.failed(match options.jsonl {
                true => "text_pair: missing; give the second text of the pair",
                false => "one text only; put a tab between the two texts of a pair",
            }),
            error => sample.refused(error),
        })?;
        let truncated = run.truncated;
        if answers.json {
            let mut object = Object::new(answers.line());
            object.float("is_next", head.score(logits)).floats("logits", &logits);
            if truncated {
                object.plain("truncated", true);
            }
            object.end();
        } else {
            let cut = if truncated { " (pair cut)" } else { "" };
            write!(answers.line(), "{:.4}{cut}", head.score(logits))
                .expect("memory takes everything");
        }
        Ok(())
    })
}
