//! `bertlet classify`: labels for texts and pairs.

use std::io::Write;

use bertlet::format::ProblemType;
use bertlet::heads::{SequenceClassifier, argmax};
use bertlet::tasks::label_name;
use lexopt::Parser;

use crate::Command;
use crate::failure::{Failure, zeros};
use crate::json::{self, Object};
use crate::options::{OPTIONS_HELP, Options, PAIRS_HELP, Takes, set_windows, text_value};
use crate::output::Answers;
use crate::samples::Samples;

pub const COMMAND: Command = Command {
    name: "classify",
    about: "labels texts, or pairs of texts",
    help: &[
        "\
Usage: bertlet classify MODEL [FILE|-] [options]

Writes {\"label\":..,\"score\":..,\"scores\":{..},\"logits\":[..]} for each text, with \"truncated\":true where the
text was cut to the model's limit. The checkpoint says what scores are (inspect shows it): probabilities over
the labels (softmax), one probability per label (sigmoid, also for a single label), or the logits themselves
(identity).

      --window       read all of a long text, in overlapping windows, and average their logits
      --prompt NAME  the model's prompt of this name before each text, or the first text of a pair (inspect
                     lists them; none)

",
        PAIRS_HELP,
        OPTIONS_HELP,
        "
Example:
  bertlet classify model.bertlet --text \"A quiet triumph.\"
"
    ],
    run,
};

fn run(parser: Parser) -> Result<(), Failure> {
    let (mut window, mut prompt) = (false, String::new());
    let options = Options::parse(parser, Takes::Pairs, &mut |name, parser| {
        match name {
            "--window" => window = true,
            "--prompt" => prompt = text_value(parser, name)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if window && options.ids {
        return Err(Failure::usage("--window: lines of ids are used as they are; give texts"));
    }
    let file = options.open()?;
    let model = file.model();
    let prompt = if prompt.is_empty() { "" } else { options.prompt(&model, Some(&prompt))? };
    let mut joined = String::new();
    let head = SequenceClassifier::new(&model).map_err(|error| options.refused(&file, error))?;
    let samples = Samples::open(&options, &file)?;
    let mut session = options.session(&file)?;
    let mut runner = options.runner(&mut session)?;
    let answers = Answers::open(&options)?;
    let mut logits = zeros(head.logits_len())?;
    let mut scores = zeros(head.logits_len())?;
    samples.each(answers, &mut |sample, answers| {
        let text = sample.text().with_prompt(prompt, &mut joined);
        set_windows(&mut runner, window, &text);
        let run = runner
            .classify(text, &mut logits, &mut scores)
            .map_err(|error| sample.refused(error))?;
        scores.copy_from_slice(&logits);
        head.scores(&mut scores);
        write(answers, &head, (&logits, &scores), run.truncated);
        Ok(())
    })
}

fn write(
    answers: &mut Answers,
    head: &SequenceClassifier<'_>,
    (logits, scores): (&[f32], &[f32]),
    truncated: bool,
) {
    let name = |i: usize| label_name(head.labels(), i);
    let best = argmax(scores).unwrap_or(0);
    if answers.json {
        let mut object = Object::new(answers.line());
        object
            .string("label", name(best))
            .float("score", scores[best])
            .object("scores", |object| {
                for (i, score) in scores.iter().enumerate() {
                    object.float(name(i), *score);
                }
            })
            .list("logits", logits, |out, x| json::float(out, *x));
        if truncated {
            object.plain("truncated", true);
        }
        object.end();
        return;
    }
    let line = answers.line();
    let chosen = |i: usize| match head.problem() {
        ProblemType::SingleLabel => i == best,
        ProblemType::MultiLabel => scores[i] > 0.5,
        _ => true,
    };
    let chosen: Vec<String> = (0..scores.len())
        .filter(|i| chosen(*i))
        .map(|i| format!("{} {:.4}", name(i), scores[i]))
        .collect();
    let cut = if truncated { " (text cut; --window reads all of it)" } else { "" };
    write!(line, "{}{cut}", chosen.join(", ")).expect("memory takes everything");
}
