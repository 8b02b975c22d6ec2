//! `bertlet tokenize`: what the model reads of a text.

use std::io::Write;

use lexopt::Parser;

use crate::Command;
use crate::answers::Answers;
use crate::failure::Failure;
use crate::json::{self, Object};
use crate::options::{Options, Takes, texts_help};
use crate::samples::{Sample, Samples};

pub const COMMAND: Command = Command {
    name: "tokenize",
    about: "shows the tokens of texts, with their ids and offsets",
    help: concat!(
        "\
Usage: bertlet tokenize MODEL [FILE|-] [options]

Writes {\"input_ids\":[..],\"token_type_ids\":[..],\"offsets\":[[start,end],..],\"tokens\":[..]} for each text; offsets are
bytes, [0,0] for [CLS] and [SEP]. Texts are not cut, however many positions the model has.

",
        texts_help!(),
        "
Example:
  bertlet tokenize model.bertlet --text \"unaffable\"
"
    ),
    run,
};

fn run(parser: Parser) -> Result<(), Failure> {
    let options = Options::parse(parser, Takes::Texts, &mut |_, _| Ok(false))?;
    if options.ids {
        return Err(Failure::usage("--ids: these are token ids already; give texts"));
    }
    let file = options.open()?;
    let tokenizer = options.tokenizer(&file)?;
    let mut samples = Samples::with_limit(&options, &file, usize::MAX)?;
    let mut answers = Answers::open(&options)?;
    while let Some(sample) = samples.next()? {
        let token = |id: &u32| tokenizer.token(*id).unwrap_or("");
        if answers.json {
            write_json(answers.line(), &sample, token);
        } else {
            write_plain(answers.line(), &sample, token);
        }
        answers.end(samples.drained())?;
    }
    answers.finish()
}

fn write_json<'t>(line: &mut Vec<u8>, sample: &Sample<'_>, token: impl Fn(&u32) -> &'t str) {
    let mut object = Object::new(line);
    object
        .list("input_ids", sample.ids, json::plain)
        .list("token_type_ids", sample.type_ids, json::plain)
        .list("offsets", sample.offsets.iter().copied(), json::pair)
        .list("tokens", sample.ids, |out, id| json::string(out, token(id)));
    object.end();
}

fn write_plain<'t>(line: &mut Vec<u8>, sample: &Sample<'_>, token: impl Fn(&u32) -> &'t str) {
    for (i, id) in sample.ids.iter().enumerate() {
        let space = if i == 0 { "" } else { "  " };
        write!(line, "{space}{} {id}", token(id)).expect("memory takes everything");
    }
}
