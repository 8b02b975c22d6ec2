//! `bertlet tokenize`: what the model reads of a text.

use std::io::Write;

use bertlet::tasks::{TaskError, Text};
use bertlet::tokenizer::Tokenizer;
use lexopt::Parser;

use crate::Command;
use crate::failure::Failure;
use crate::json::{self, Object};
use crate::options::{Options, Takes, texts_help};
use crate::output::Answers;
use crate::samples::Samples;

pub const COMMAND: Command = Command {
    name: "tokenize",
    about: "shows the tokens of texts, with their ids and offsets",
    help: concat!(
        "\
Usage: bertlet tokenize MODEL [FILE|-] [options]

Writes {\"input_ids\":[..],\"token_type_ids\":[..],\"offsets\":[[start,end],..],\"tokens\":[..]} for each text, which
can be piped into --ids. Offsets are bytes, [0,0] for [CLS] and [SEP]. Texts are not cut, however many positions
the model has.

",
        texts_help!(pairs),
        "
Example:
  bertlet tokenize model.bertlet --text \"unaffable\"
"
    ),
    run,
};

fn run(parser: Parser) -> Result<(), Failure> {
    let options = Options::parse(parser, Takes::Pairs, &mut |_, _| Ok(false))?;
    if options.ids {
        return Err(Failure::usage("--ids: these are token ids already; give texts"));
    }
    let file = options.open()?;
    let tokenizer = options.tokenizer(&file)?;
    let samples = Samples::open(&options, &file)?;
    let mut tokens = Tokens::default();
    let answers = Answers::open(&options)?;
    samples.each(answers, &mut |sample, answers| {
        tokens.read(&tokenizer, sample.text()).map_err(|error| sample.refused(error))?;
        let token = |id: &u32| tokenizer.token(*id).unwrap_or("");
        if answers.json {
            write_json(answers.line(), &tokens, token);
        } else {
            write_plain(answers.line(), &tokens, token);
        }
        Ok(())
    })
}

/// The tokens of a text or a pair, special ones included.
#[derive(Default)]
struct Tokens {
    ids: Vec<u32>,
    types: Vec<u8>,
    offsets: Vec<(u32, u32)>,
}

impl Tokens {
    fn read(&mut self, tokenizer: &Tokenizer<'_>, text: Text<'_>) -> Result<(), TaskError> {
        *self = Self::default();
        self.push(tokenizer.cls_id(), 0, (0, 0));
        let texts = match text {
            Text::Pair(first, second) => [Some(first), Some(second)],
            Text::Str(text) => [Some(text), None],
            _ => [None, None],
        };
        for (text, kind) in texts.into_iter().flatten().zip(0..) {
            for token in tokenizer.tokens(text) {
                let token = token?;
                self.push(token.id, kind, (token.start, token.end));
            }
            self.push(tokenizer.sep_id(), kind, (0, 0));
        }
        Ok(())
    }

    fn push(&mut self, id: u32, kind: u8, offset: (u32, u32)) {
        self.ids.push(id);
        self.types.push(kind);
        self.offsets.push(offset);
    }
}

fn write_json<'t>(line: &mut Vec<u8>, tokens: &Tokens, token: impl Fn(&u32) -> &'t str) {
    let mut object = Object::new(line);
    object
        .list("input_ids", &tokens.ids, json::plain)
        .list("token_type_ids", &tokens.types, json::plain)
        .list("offsets", tokens.offsets.iter().copied(), json::pair)
        .list("tokens", &tokens.ids, |out, id| json::string(out, token(id)));
    object.end();
}

fn write_plain<'t>(line: &mut Vec<u8>, tokens: &Tokens, token: impl Fn(&u32) -> &'t str) {
    for (i, id) in tokens.ids.iter().enumerate() {
        let space = if i == 0 { "" } else { "  " };
        write!(line, "{space}{} {id}", token(id)).expect("memory takes everything");
    }
}
