//! `bertlet classify`: labels for texts and pairs.

use std::io::Write;

use bertlet::heads::{SequenceClassifier, argmax};
use bertlet::{Session, format::ProblemType};
use lexopt::Parser;

use crate::Command;
use crate::answers::Answers;
use crate::failure::{Failure, zeros};
use crate::json::{self, Object};
use crate::options::{Options, Takes, texts_help};
use crate::samples::{Sample, Samples};

pub const COMMAND: Command = Command {
    name: "classify",
    about: "labels texts, or pairs of texts",
    help: concat!(
        "\
Usage: bertlet classify MODEL [FILE|-] [options]

Writes {\"label\":..,\"score\":..,\"scores\":{..},\"logits\":[..]} for each text, with \"truncated\":true where the
text was cut to what the model takes. Scores are probabilities over the labels, or one for each label, or the
logits themselves (regression), as the checkpoint says.

      --window       read all of a long text, in overlapping windows, and average their logits

",
        texts_help!(),
        "
Example:
  bertlet classify model.bertlet --text \"A quiet triumph.\"
"
    ),
    run,
};

fn run(parser: Parser) -> Result<(), Failure> {
    let mut window = false;
    let options = Options::parse(parser, Takes::Texts, &mut |name, _| {
        window |= name == "--window";
        Ok(name == "--window")
    })?;
    if window && options.ids {
        return Err(Failure::usage("--window: lines of ids are used as they are; give texts"));
    }
    let file = options.open()?;
    let head = SequenceClassifier::new(&file.model())
        .map_err(|error| Failure::work(options.model.display(), error))?;
    let mut samples = Samples::open(&options, &file)?;
    let mut session = options.session(&file)?;
    let mut answers = Answers::open(&options)?;
    let mut logits = zeros(head.logits_len())?;
    let mut sum = zeros(head.logits_len())?;
    loop {
        let mut truncated = false;
        if window {
            sum.fill(0.0);
            let any = samples.next_windows(|sample, windows| {
                run_head(&head, &mut session, &sample, &mut logits)?;
                let share = windows.count() as f32;
                sum.iter_mut().zip(&logits).for_each(|(sum, x)| *sum += x / share);
                Ok(())
            })?;
            if !any {
                break;
            }
            logits.copy_from_slice(&sum);
        } else {
            let Some(sample) = samples.next()? else { break };
            run_head(&head, &mut session, &sample, &mut logits)?;
            truncated = sample.encoded.truncated;
        }
        write(&mut answers, &head, &logits, truncated);
        answers.end(samples.drained())?;
    }
    answers.finish()
}

fn run_head(
    head: &SequenceClassifier<'_>,
    session: &mut Session<'_>,
    sample: &Sample<'_>,
    logits: &mut [f32],
) -> Result<(), Failure> {
    let encoder = session.encoder(sample.ids.len());
    encoder
        .and_then(|mut encoder| head.logits(&mut encoder, &sample.input(), logits))
        .map_err(|error| sample.failed(error))
}

fn write(answers: &mut Answers, head: &SequenceClassifier<'_>, logits: &[f32], truncated: bool) {
    let mut scores = logits.to_vec();
    head.scores(&mut scores);
    let name = |i: usize| match head.labels().get(i) {
        Some(name) => name.to_owned(),
        None => format!("LABEL_{i}"),
    };
    let best = argmax(&scores).unwrap_or(0);
    if answers.json {
        let mut object = Object::new(answers.line());
        object
            .string("label", &name(best))
            .float("score", scores[best])
            .object("scores", |object| {
                for (i, score) in scores.iter().enumerate() {
                    object.float(&name(i), *score);
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
