//! `bertlet inspect`: what is in a model file.

use std::fmt::Display;
use std::io::Write;

use bertlet::format::{Attention, Encoding, ProblemType, SectionKind, VERSION};
use bertlet::tokenizer::Tokenizer;
use bertlet::{Config, Head, Model, Printable, SequenceClassifier};
use lexopt::Parser;

use crate::Command;
use crate::failure::Failure;
use crate::json::{self, Object, Value};
use crate::options::{Options, Takes, value};
use crate::output::Answers;

pub const COMMAND: Command = Command {
    name: "inspect",
    about: "shows what is in a model file",
    help: &["\
Usage: bertlet inspect MODEL [--max-tokens N] [--json] [--read]

Shows the configuration, the parameters of each part, the work and the memory for an input, the sections
of the file, the labels, and where the model came from.

      --max-tokens N   count multiply-adds and scratch memory for inputs of N tokens (128)
      --threads N      and scratch memory for N threads (1)
      --json           JSON, also on a terminal

Example:
  bertlet inspect model.bertlet
"],
    run,
};

fn run(parser: Parser) -> Result<(), Failure> {
    let mut tokens = None;
    let options = Options::parse(parser, Takes::Model, &mut |name, parser| {
        match name {
            "--max-tokens" => tokens = Some(value(parser, name)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let file = options.open()?;
    let model = file.model();
    let positions = model.config().max_position_embeddings;
    let tokens = tokens.unwrap_or(positions.min(128));
    if !(1..=positions).contains(&tokens) {
        return Err(Failure::usage(format!(
            "--max-tokens {tokens}: the model takes 1 to {positions} tokens"
        )));
    }
    let facts = Facts {
        name: options.model.display().to_string(),
        model,
        parameters: Parameters::of(&model),
        tokens,
        threads: options.threads,
    };
    let mut answers = Answers::open(&options)?;
    if answers.json {
        facts.write_json(answers.line());
    } else {
        facts.write_plain(answers.line());
        answers.line().pop();
        answers.keep_as_it_is();
        answers.end(true)?;
        return answers.finish();
    }
    answers.end(true)?;
    answers.finish()
}

/// Numbers that the checkpoint has, without what the file's layout adds.
#[derive(Clone, Copy, Debug, Default)]
struct Parameters {
    embeddings: u64,
    layers: u64,
    pooler: u64,
    heads: u64,
}

impl Parameters {
    fn of(model: &Model<'_>) -> Self {
        let mut parameters = Self::default();
        for section in model.sections() {
            let count = count(model.config(), section.kind, (section.rows, section.cols));
            *match section.kind {
                kind if SectionKind::OF_EMBEDDINGS.contains(&kind) => &mut parameters.embeddings,
                kind if SectionKind::OF_LAYER.contains(&kind) => &mut parameters.layers,
                SectionKind::Pooler => &mut parameters.pooler,
                _ => &mut parameters.heads,
            } += count;
        }
        parameters
    }

    fn total(&self) -> u64 {
        self.embeddings + self.layers + self.pooler + self.heads
    }
}

/// Parameters of a section of this shape.
fn count(config: &Config, kind: SectionKind, (rows, cols): (usize, usize)) -> u64 {
    let (rows, cols, hidden) = (rows as u64, cols as u64, config.hidden_size as u64);
    match kind {
        SectionKind::WordEmbeddings
        | SectionKind::PositionEmbeddings
        | SectionKind::TokenTypeEmbeddings
        | SectionKind::MaskedLmDecoder
        | SectionKind::EmbeddingsNorm
        | SectionKind::AttentionNorm
        | SectionKind::OutputNorm
        | SectionKind::MaskedLmNorm
        | SectionKind::MaskedLmBias => rows * cols,
        // The file pads heads.
        SectionKind::QueryKeyValue => 3 * hidden * (hidden + 1),
        SectionKind::AttentionOutput => hidden * (hidden + 1),
        SectionKind::Tokenizer
        | SectionKind::Labels
        | SectionKind::Provenance
        | SectionKind::SelfTest
        | SectionKind::Prompts => 0,
        _ => rows * (cols + 1),
    }
}

struct Facts<'m> {
    name: String,
    model: Model<'m>,
    parameters: Parameters,
    tokens: usize,
    threads: usize,
}

fn encoding(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Bytes => "bytes",
        Encoding::F32 => "f32",
        Encoding::F16 => "f16",
        Encoding::Int8 => "int8",
        _ => "unknown",
    }
}

fn attention(attention: Attention) -> &'static str {
    match attention {
        Attention::Float => "f32",
        Attention::Integer => "integer",
        _ => "unknown",
    }
}

fn problem(problem: ProblemType) -> &'static str {
    match problem {
        ProblemType::SingleLabel => "single_label",
        ProblemType::MultiLabel => "multi_label",
        ProblemType::Regression => "regression",
        _ => "unknown",
    }
}

/// A name as files and people write it: `WordEmbeddings` becomes `word_embeddings`.
fn snake_case(kind: SectionKind) -> String {
    let mut name = String::new();
    for c in format!("{kind:?}").chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

/// `1234567` as `1,234,567`.
fn grouped(number: impl Display) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Facts<'_> {
    fn scratch(&self) -> usize {
        self.model.config().scratch_len_threads(self.tokens, self.threads)
    }

    fn tokenizer(&self) -> Option<Tokenizer<'_>> {
        self.model.tokenizer_bytes().and_then(|bytes| Tokenizer::from_bytes(bytes).ok())
    }

    fn heads(&self) -> Vec<&'static str> {
        let name = |kind| match kind {
            SectionKind::MaskedLmTransform => Some("masked_lm"),
            kind => Head::from_section(kind).map(Head::name),
        };
        self.model.sections().filter_map(|section| name(section.kind)).collect()
    }

    fn write_json(&self, line: &mut Vec<u8>) {
        let (model, config) = (&self.model, self.model.config());
        let mut all = Object::new(line);
        all.string("file", &self.name)
            .plain("format_version", VERSION)
            .plain("bytes", model.bytes().len())
            .object("config", |object| {
                object
                    .plain("hidden_size", config.hidden_size)
                    .plain("num_hidden_layers", config.num_hidden_layers)
                    .plain("num_attention_heads", config.num_attention_heads)
                    .plain("intermediate_size", config.intermediate_size)
                    .plain("vocab_size", config.vocab_size)
                    .plain("max_position_embeddings", config.max_position_embeddings)
                    .plain("type_vocab_size", config.type_vocab_size)
                    .float("layer_norm_eps", config.layer_norm_eps)
                    .string("hidden_act", config.hidden_act.name())
                    .string("attention", attention(config.attention));
            })
            .object("parameters", |object| {
                object
                    .plain("embeddings", self.parameters.embeddings)
                    .plain("layers", self.parameters.layers)
                    .plain("pooler", self.parameters.pooler)
                    .plain("heads", self.parameters.heads)
                    .plain("total", self.parameters.total());
            })
            .plain("tokens", self.tokens)
            .plain("multiply_adds", config.multiply_adds(self.tokens))
            .plain("scratch_bytes", self.scratch())
            .plain("threads", self.threads)
            .string("pooling", model.default_pooling().name())
            .plain("normalize", model.default_normalize())
            .plain("max_tokens", model.max_tokens())
            .list("heads", self.heads(), json::string)
            .list("labels", model.labels().iter(), json::string)
            .string("problem", problem(model.problem_type()));
        if let Ok(head) = SequenceClassifier::new(model) {
            all.string("scores", head.score_function().name());
        }
        all.object("prompts", |object| {
            model.prompts().iter().for_each(|prompt| {
                object.string(prompt.name, prompt.text);
            });
        });
        if let Some(prompt) = model.prompts().default_prompt() {
            all.string("default_prompt_name", prompt.name);
        }
        if let Some(tokenizer) = self.tokenizer() {
            let settings = tokenizer.settings();
            all.object("tokenizer", |object| {
                object
                    .plain("vocab_size", tokenizer.vocab_size())
                    .plain("lowercase", settings.lowercase)
                    .plain("strip_accents", settings.strips_accents())
                    .plain("handle_chinese_chars", settings.handle_chinese_chars)
                    .plain("clean_text", settings.clean_text)
                    .plain("max_word_chars", settings.max_word_chars);
            });
        }
        all.list("sections", model.sections(), |out, section| {
            json::object(out, |object| {
                object
                    .string("kind", &snake_case(section.kind))
                    .plain("layer", section.layer)
                    .string("encoding", encoding(section.encoding))
                    .plain("rows", section.rows)
                    .plain("columns", section.cols)
                    .plain("rotation_block", section.rotation.block)
                    .plain("rotation_stride", section.rotation.stride)
                    .plain("offset", section.offset)
                    .plain("bytes", section.length);
            });
        });
        if let Some(text) = model.provenance() {
            let out = all.field("provenance");
            match json::parse(text) {
                // Unchanged, but on one line: strings of JSON contain no line feed.
                Ok(_) => out.extend(text.bytes().map(|b| if b < b' ' { b' ' } else { b })),
                Err(_) => json::string(out, text),
            }
        }
        all.end();
    }

    fn write_plain(&self, out: &mut Vec<u8>) {
        let (model, config) = (&self.model, self.model.config());
        let size = grouped(model.bytes().len());
        row(out, "file", format_args!("{}: {size} bytes, format version {VERSION}", self.name));
        row(
            out,
            "encoder",
            format_args!(
                "{} layers, hidden size {}, {} heads of {}, intermediate size {}, {}",
                config.num_hidden_layers,
                config.hidden_size,
                config.num_attention_heads,
                config.head_size(),
                config.intermediate_size,
                config.hidden_act.name(),
            ),
        );
        let (positions, types) = (config.max_position_embeddings, config.type_vocab_size);
        let words = grouped(config.vocab_size);
        row(out, "input", format_args!("up to {positions} tokens of {types} types, {words} words"));
        let limit = format!("{} tokens, unless --max-tokens says otherwise", model.max_tokens());
        row(out, "text limit", limit);
        for prompt in model.prompts().iter() {
            let default = Some(prompt) == model.prompts().default_prompt();
            let default = if default { " (the default)" } else { "" };
            row(out, "prompt", format_args!("{:?}: {:?}{default}", prompt.name, prompt.text));
        }
        row(out, "attention", attention(config.attention));
        let normalized = if model.default_normalize() { ", normalised" } else { "" };
        row(out, "pooling", format_args!("{}{normalized}", model.default_pooling().name()));
        let heads = self.heads();
        row(out, "heads", if heads.is_empty() { "none".into() } else { heads.join(", ") });
        let labels: Vec<_> = model.labels().iter().collect();
        if !labels.is_empty() {
            row(out, "labels", labels.join(", "));
        }
        if let Ok(head) = SequenceClassifier::new(model) {
            row(out, "scores", head.score_function().name());
        }
        let tokenizer = self.tokenizer().map(|tokenizer| {
            let settings = tokenizer.settings();
            let case = if settings.lowercase { "lower case" } else { "cased" };
            let accents = if settings.strips_accents() { ", without accents" } else { "" };
            format!("{} tokens, {case}{accents}", grouped(tokenizer.vocab_size()))
        });
        row(out, "tokenizer", tokenizer.as_deref().unwrap_or("none: give --ids"));
        for (i, (part, count)) in [
            ("embeddings", self.parameters.embeddings),
            ("layers", self.parameters.layers),
            ("pooler", self.parameters.pooler),
            ("heads", self.parameters.heads),
            ("total", self.parameters.total()),
        ]
        .into_iter()
        .enumerate()
        {
            let name = if i == 0 { "parameters" } else { "" };
            row(out, name, format_args!("{part:<10} {:>13}", grouped(count)));
        }
        let Self { tokens, threads, .. } = *self;
        let work = grouped(config.multiply_adds(tokens));
        row(out, "work", format_args!("{work} multiply-adds for {tokens} tokens"));
        let scratch = grouped(self.scratch());
        row(
            out,
            "scratch",
            format_args!(
                "{scratch} bytes for {tokens} tokens on {threads} {}",
                if threads == 1 { "thread" } else { "threads" }
            ),
        );
        self.write_sections(out);
        if let Some(text) = model.provenance() {
            out.extend(b"\nprovenance\n");
            outline(out, &json::parse(text).unwrap_or_else(|_| Value::String(text.into())), 1);
        }
    }

    fn write_sections(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
        let mut line = |cells: [&dyn Display; 6]| {
            let [kind, layer, encoding, shape, rotation, bytes] = cells;
            writeln!(
                out,
                "{kind:<24}{layer:>5}  {encoding:<8}{shape:>16}{rotation:>10}{bytes:>14}"
            )
            .expect("memory takes everything");
        };
        line([&"section", &"layer", &"encoding", &"rows x columns", &"rotation", &"bytes"]);
        for section in self.model.sections() {
            let of_layer = SectionKind::OF_LAYER.contains(&section.kind);
            let layer = if of_layer { section.layer.to_string() } else { String::new() };
            let shape = match section.rows {
                0 => String::new(),
                rows => format!("{rows} x {}", section.cols),
            };
            let rotation = match section.rotation {
                rotation if rotation.block == 1 => String::new(),
                rotation => format!("{} x {}", rotation.block, rotation.stride),
            };
            line([
                &snake_case(section.kind),
                &layer,
                &encoding(section.encoding),
                &shape,
                &rotation,
                &grouped(section.length),
            ]);
        }
    }
}

fn row(out: &mut Vec<u8>, name: &str, text: impl Display) {
    writeln!(out, "{name:<16}{}", Printable(text)).expect("memory takes everything");
}

/// Objects as indented lines, everything else as JSON.
fn outline(out: &mut Vec<u8>, value: &Value<'_>, depth: usize) {
    let indent = "  ".repeat(depth);
    let Value::Object(fields) = value else {
        return writeln!(out, "{indent}{}", Printable(value)).expect("memory takes everything");
    };
    for (name, value) in fields {
        let written = match value {
            Value::Object(_) => {
                let written = writeln!(out, "{indent}{}", Printable(name));
                outline(out, value, depth + 1);
                written
            }
            Value::String(text) => {
                writeln!(out, "{indent}{}: {}", Printable(name), Printable(text))
            }
            _ => writeln!(out, "{indent}{}: {}", Printable(name), Printable(value)),
        };
        written.expect("memory takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bertlet::format::Activation;

    #[test]
    fn parameters_of_bert_base_chinese() {
        let config = Config {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            vocab_size: 21128,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            hidden_act: Activation::Gelu,
            attention: Attention::Integer,
        };
        let sum = |kinds: &[SectionKind]| -> u64 {
            kinds.iter().map(|kind| count(&config, *kind, kind.shape(&config, 0))).sum()
        };
        let layers = 12 * sum(&SectionKind::OF_LAYER);
        assert_eq!(sum(&SectionKind::OF_EMBEDDINGS), 16_622_592);
        assert_eq!(layers, 85_054_464);
        assert_eq!(
            sum(&SectionKind::OF_EMBEDDINGS) + layers + sum(&[SectionKind::Pooler]),
            102_267_648
        );
    }

    #[test]
    fn padding_of_heads_is_not_counted() {
        // Heads of 5, which the file pads to 16.
        let config = Config {
            hidden_size: 10,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 7,
            vocab_size: 5,
            max_position_embeddings: 4,
            type_vocab_size: 1,
            layer_norm_eps: 1e-12,
            hidden_act: Activation::Gelu,
            attention: Attention::Integer,
        };
        let count = |kind: SectionKind| count(&config, kind, kind.shape(&config, 3));
        assert_eq!(count(SectionKind::QueryKeyValue), 3 * (10 * 10 + 10));
        assert_eq!(count(SectionKind::AttentionOutput), 10 * 10 + 10);
        assert_eq!(count(SectionKind::Intermediate), 7 * 10 + 7);
        assert_eq!(count(SectionKind::TokenClassifier), 3 * 10 + 3);
        assert_eq!(count(SectionKind::OutputNorm), 20);
        assert_eq!(count(SectionKind::Tokenizer), 0);
    }

    #[test]
    fn digits_stand_in_groups() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(123), "123");
        assert_eq!(grouped(102_267_648), "102,267,648");
    }
}
