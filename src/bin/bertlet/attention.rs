//! `bertlet attention`: which token looks at which, as a page for a browser.

use std::io::Write;
use std::path::{Path, PathBuf};

use bertlet::{Input, Output};
use lexopt::Parser;

use crate::Command;
use crate::failure::{Failure, zeros};
use crate::json;
use crate::options::{Options, Takes};
use crate::output;
use crate::samples::Samples;

pub const COMMAND: Command = Command {
    name: "attention",
    about: "draws which token looks at which, as an HTML page",
    help: &["\
Usage: bertlet attention MODEL TEXT --html FILE [--threads N] [--isa NAME] [--read]

Writes one page that needs nothing else: choose a layer, see all its heads side by side, point at a
square to read how much the token of its row attends to the token of its column, click to see its head
alone. Layers and heads are counted from 1. A tab in TEXT separates the two texts of a pair. TEXT is cut to
128 tokens (or --max-tokens N), so that the page stays usable, and the page says so.

Example:
  bertlet attention model.bertlet \"The cat sat because it was tired.\" --html attention.html
"],
    run,
};

/// The most tokens on a page: more cannot be read.
const MAX_TOKENS: usize = 128;

fn run(parser: Parser) -> Result<(), Failure> {
    let mut page = None;
    let options = Options::parse(parser, Takes::ModelAndText, &mut |name, parser| {
        match name {
            "--html" => page = Some(PathBuf::from(parser.value()?)),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let page = page.ok_or_else(|| Failure::usage("no page named; say where with --html FILE"))?;
    output::check(&page, &options)?;
    let file = options.open()?;
    let config = *file.model().config();
    let mut session = options.session(&file)?;
    let mut samples = Samples::open(&options, &file)?;
    let tokenizer = options.tokenizer(&file)?;
    let Some(sample) = samples.first()? else { return Ok(()) };

    let usual = file.model().max_tokens().min(MAX_TOKENS);
    let limit = options.max_tokens(&file.model())?.unwrap_or(usual);
    let mut runner = session
        .runner(limit)
        .map_err(|error| Failure::work(options.model.display(), error))?
        .with_max_tokens(limit);
    let (mut ids, mut types) = (Vec::new(), None);
    let run = runner
        .each_window(sample.text(), |_, window| {
            ids = window.input.input_ids.to_vec();
            types = window.input.token_type_ids.map(<[u8]>::to_vec);
            Ok(())
        })
        .map_err(|error| sample.refused(error))?;
    let input = Input { input_ids: &ids, token_type_ids: types.as_deref(), attention_mask: None };
    let tokens = ids.len();
    let len = tokens * config.num_attention_heads * tokens;
    let mut maps: Vec<f32> = zeros(len.saturating_mul(config.num_hidden_layers))?;
    let mut outputs: Vec<_> = maps
        .chunks_exact_mut(len)
        .enumerate()
        .map(|(layer, out)| Output::Attention { layer, out })
        .collect();
    runner.encoder().encode(&input, &mut outputs).map_err(|error| sample.failed(error))?;

    let names: Vec<_> = ids.iter().map(|id| tokenizer.token(*id).unwrap_or("?")).collect();
    let cut = run.truncated;
    let data = data(&names, config.num_hidden_layers, config.num_attention_heads, &maps, cut);
    write_page(&page, &data)?;
    if cut {
        eprintln!(
            "bertlet: the text was cut to {tokens} tokens; give a shorter one to see all of it"
        );
    }
    Ok(())
}

/// The page around the numbers.
const PAGE: &str = include_str!("attention.html");

/// What the page draws, as JSON that may stand in a script.
fn data(tokens: &[&str], layers: usize, heads: usize, maps: &[f32], cut: bool) -> String {
    let mut data = Vec::new();
    let mut object = json::Object::new(&mut data);
    object
        .list("tokens", tokens, |out, token| json::string(out, token))
        .plain("layers", layers)
        .plain("heads", heads)
        .plain("cut", cut)
        .list("maps", maps.chunks_exact(maps.len() / layers), |out, map| {
            out.push(b'"');
            base64(out, map.iter().flat_map(|p| sixteen_bits(*p).to_le_bytes()));
            out.push(b'"');
        });
    object.end();
    // No token may look like the end of the script.
    String::from_utf8_lossy(&data).replace('<', "\\u003c")
}

fn write_page(path: &Path, data: &str) -> Result<(), Failure> {
    let (head, tail) = PAGE.split_once("%DATA%").expect("the page has a place for the data");
    let failed = |error: &_| Failure::write(output::name(path), error);
    let mut out = output::create(path)?;
    [head, data, tail]
        .into_iter()
        .try_for_each(|part| out.write_all(part.as_bytes()))
        .map_err(|error| failed(&error))?;
    out.finish().map_err(|error| failed(&error))
}

/// A probability in sixteen bits.
fn sixteen_bits(probability: f32) -> u16 {
    (probability * 65535.0).round() as u16
}

/// Appends bytes in base64 (RFC 4648).
fn base64(out: &mut Vec<u8>, bytes: impl Iterator<Item = u8>) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = bytes.peekable();
    while bytes.peek().is_some() {
        let three = [bytes.next(), bytes.next(), bytes.next()];
        let bits = three.iter().fold(0, |bits, byte| bits << 8 | u32::from(byte.unwrap_or(0)));
        let given = three.iter().flatten().count();
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= given { digit } else { b'=' });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foobar", "Zm9vYmFy")] {
            let mut out = Vec::new();
            base64(&mut out, bytes.bytes());
            assert_eq!(out, text.as_bytes());
        }
    }
}
