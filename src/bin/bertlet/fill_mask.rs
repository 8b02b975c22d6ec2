//! `bertlet fill-mask`: words for each `[MASK]`.

use std::io::Write;

use bertlet::TooSmall;
use bertlet::heads::{Fill, MaskedLm};
use bertlet::tasks::TaskError;
use bertlet::tokenizer::Tokenizer;
use lexopt::Parser;

use crate::Command;
use crate::failure::{Failure, zeros};
use crate::json::{self, Object};
use crate::options::{OPTIONS_HELP, Options, TEXTS_HELP, Takes, count};
use crate::output::Answers;
use crate::samples::{Sample, Samples};

pub const COMMAND: Command = Command {
    name: "fill-mask",
    about: "suggests words for each [MASK]",
    help: &[
        "\
Usage: bertlet fill-mask MODEL [FILE|-] [options]

Writes {\"fills\":[{\"position\":..,\"tokens\":[{\"id\":..,\"token\":..,\"score\":..}]}]} for each text: the likeliest
words of each [MASK], with their probabilities. Positions count tokens, from [CLS] at 0. \"truncated\":true where
the text was cut to what the model takes. A text without a [MASK] is an error.

      --top N        words for each [MASK] (5)

",
        TEXTS_HELP,
        OPTIONS_HELP,
        "
Example:
  bertlet fill-mask model.bertlet --text \"Paris is the [MASK] of France.\"
"
    ],
    run,
};

fn run(parser: Parser) -> Result<(), Failure> {
    let mut top = 5usize;
    let options = Options::parse(parser, Takes::Texts, &mut |name, parser| {
        if name == "--top" {
            top = count(parser, name, usize::MAX)?;
        }
        Ok(name == "--top")
    })?;
    let file = options.open()?;
    let model = options.model.display();
    let head = MaskedLm::new(&file.model()).map_err(|error| options.refused(&file, error))?;
    let tokenizer = options.tokenizer(&file)?;
    let mask = tokenizer.mask_id().and_then(|id| Some((id, tokenizer.token(id)?)));
    let mask = mask.ok_or_else(|| {
        Failure::work(
            &model,
            "tokenizer: its vocabulary has no [MASK]; convert a checkpoint that has one",
        )
    })?;
    let samples = Samples::open(&options, &file)?;
    let mut session = options.session(&file)?;
    let mut runner = options.runner(&mut session)?;
    let answers = Answers::open(&options)?;
    let mut logits = zeros::<f32>(head.logits_len(1))?;
    let mut positions = zeros(runner.encoder().max_tokens())?;
    let mut best = vec![Fill::default(); top.min(logits.len())];
    samples.each(answers, &mut |sample, answers| {
        let (count, run) = loop {
            match runner.fill_mask(sample.text(), &mut positions, &mut logits) {
                Err(TaskError::TooSmall(TooSmall { what: "logits", need, .. })) => {
                    logits = zeros(need)?;
                }
                result => break result.map_err(|error| sample.refused(error))?,
            }
        };
        if count == 0 {
            return Err(sample.failed(no_mask(sample, mask, run.truncated)));
        }
        let fills = positions[..count].iter().zip(logits.chunks_exact_mut(head.logits_len(1)));
        let truncated = run.truncated;
        if answers.json {
            let mut object = Object::new(answers.line());
            object.list("fills", fills, |out, (position, logits)| {
                let count = head.top(logits, &mut best);
                json::object(out, |object| {
                    object.plain("position", position).list(
                        "tokens",
                        &best[..count],
                        |out, fill| write(out, &tokenizer, fill),
                    );
                });
            });
            if truncated {
                object.plain("truncated", true);
            }
            object.end();
        } else {
            let line = answers.line();
            for (position, logits) in fills {
                let count = head.top(logits, &mut best);
                write!(line, "token {position}:").expect("memory takes everything");
                for Fill { id, score } in &best[..count] {
                    let token = tokenizer.token(*id).unwrap_or("");
                    write!(line, " {token} {score:.4}").expect("memory takes everything");
                }
                line.extend(b"  ");
            }
            if truncated {
                line.extend(b"(text cut)");
            }
        }
        Ok(())
    })
}

/// Why there is nothing to fill, and what to write.
fn no_mask(sample: &Sample<'_>, (id, name): (u32, &str), truncated: bool) -> String {
    if sample.ids.is_some() {
        return format!(
            "input_ids: none is {id}, the id of {name}; put it where a word is missing"
        );
    }
    if truncated && sample.line.contains(name) {
        return format!(
            "{name} comes after the part of the text that the model takes; cut the text"
        );
    }
    // How other models and people write it.
    let others = ["<mask>", "[mask]", "<mask_token>", "{mask}", "mask", "___", "...", "\u{2026}"];
    let text = sample.line.to_ascii_lowercase();
    match others.into_iter().find(|other| text.contains(other)) {
        Some(other) => format!("the text has no {name}; write {name} in place of {other}"),
        None => format!("the text has no {name}; write {name} where a word is missing"),
    }
}

fn write(out: &mut Vec<u8>, tokenizer: &Tokenizer<'_>, fill: &Fill) {
    json::object(out, |object| {
        object
            .plain("id", fill.id)
            .string("token", tokenizer.token(fill.id).unwrap_or(""))
            .float("score", fill.score);
    });
}
