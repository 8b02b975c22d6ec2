//! `bertlet tokenize`: what the model reads of a text.

use std::io::Write;

use bertlet::tasks::{TaskError, Text};
use bertlet::tokenizer::{Limits, TokenBuffer, Tokenizer};
use lexopt::Parser;

use crate::Command;
use crate::failure::Failure;
use crate::json::{self, Object};
use crate::options::{OPTIONS_HELP, Options, PAIRS_HELP, Takes};
use crate::output::Answers;
use crate::samples::Samples;

pub const COMMAND: Command = Command {
    name: "tokenize",
    about: "shows the tokens of texts, with their ids and offsets",
    help: &[
        "\
Usage: bertlet tokenize MODEL [FILE|-] [options]

Writes {\"input_ids\":[..],\"token_type_ids\":[..],\"offsets\":[[start,end],..],\"tokens\":[..]} for each text, which
can be piped into --ids. Offsets are bytes, [0,0] for [CLS] and [SEP]. Texts are cut only where --max-tokens says
so, whatever the model takes; then \"truncated\":true says that a text was.

",
        PAIRS_HELP,
        OPTIONS_HELP,
        "
Example:
  bertlet tokenize model.bertlet --text \"unaffable\"
"
    ],
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
    let limit = options.max_tokens(&file.model())?;
    let answers = Answers::open(&options)?;
    samples.each(answers, &mut |sample, answers| {
        let read = tokens.read(&tokenizer, sample.text(), limit);
        let truncated = read.map_err(|error| sample.refused(error))?;
        let token = |id: &u32| tokenizer.token(*id).unwrap_or("");
        if answers.json {
            write_json(answers.line(), &tokens, truncated, token);
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
    /// Returns whether the text was cut to `limit` tokens.
    fn read(
        &mut self,
        tokenizer: &Tokenizer<'_>,
        text: Text<'_>,
        limit: Option<usize>,
    ) -> Result<bool, TaskError> {
        *self = Self::default();
        let texts = match text {
            Text::Pair(first, second) => [Some(first), Some(second)],
            Text::Str(text) => [Some(text), None],
            _ => [None, None],
        };
        if let (Some(limit), [Some(first), second]) = (limit, texts) {
            self.ids.resize(limit, 0);
            self.types.resize(limit, 0);
            self.offsets.resize(limit, (0, 0));
            let mut buffer = TokenBuffer {
                input_ids: &mut self.ids,
                token_type_ids: &mut self.types,
                offsets: &mut self.offsets,
                words: &mut [],
            };
            let read = tokenizer.encode(first, second, &Limits::new(limit), &mut buffer)?;
            self.ids.truncate(read.len);
            self.types.truncate(read.len);
            self.offsets.truncate(read.len);
            return Ok(read.truncated);
        }
        self.push(tokenizer.cls_id(), 0, (0, 0));
        for (text, kind) in texts.into_iter().flatten().zip(0..) {
            for token in tokenizer.tokens(text) {
                let token = token?;
                self.push(token.id, kind, (token.start, token.end));
            }
            self.push(tokenizer.sep_id(), kind, (0, 0));
        }
        Ok(false)
    }

    fn push(&mut self, id: u32, kind: u8, offset: (u32, u32)) {
        self.ids.push(id);
        self.types.push(kind);
        self.offsets.push(offset);
    }
}

fn write_json<'t>(
    line: &mut Vec<u8>,
    tokens: &Tokens,
    truncated: bool,
    token: impl Fn(&u32) -> &'t str,
) {
    let mut object = Object::new(line);
    object
        .list("input_ids", &tokens.ids, json::plain)
        .list("token_type_ids", &tokens.types, json::plain)
        .list("offsets", tokens.offsets.iter().copied(), json::pair)
        .list("tokens", &tokens.ids, |out, id| json::string(out, token(id)));
    if truncated {
        object.plain("truncated", true);
    }
    object.end();
}

fn write_plain<'t>(line: &mut Vec<u8>, tokens: &Tokens, token: impl Fn(&u32) -> &'t str) {
    for (i, id) in tokens.ids.iter().enumerate() {
        let space = if i == 0 { "" } else { "  " };
        write!(line, "{space}{} {id}", token(id)).expect("memory takes everything");
    }
}
