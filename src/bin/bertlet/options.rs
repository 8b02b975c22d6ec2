//! Arguments that several commands take.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::str::FromStr;

use bertlet::tasks::{Text, TextRunner, default_overlap};
use bertlet::tokenizer::Tokenizer;
use bertlet::{Isa, Model, ModelFile, Session};
use lexopt::{Arg, Parser};

use crate::failure::Failure;
use crate::output::{self, STDOUT};

/// The help on input for commands that take pairs of texts.
pub const PAIRS_HELP: &str = "\
Input: FILE, or - for stdin: one text per line. A tab makes a pair of what is before the first tab and what is
after it, also in --text; a tab at the end makes an empty second text.
";
/// The help on input for commands that take single texts.
pub const TEXTS_HELP: &str = "\
Input: FILE, or - for stdin: one text per line. A tab is a space like any other.
";
/// The help on the options that all text commands share.
pub const OPTIONS_HELP: &str = "\
      --text TEXT    one text, from the command line
      --jsonl        lines of JSON: {\"text\":..,\"text_pair\":..,\"id\":..}, the last two optional, so that a text
                     may hold any character; the answer repeats the id
      --ids          lines of JSON with tokens: {\"input_ids\":[..],\"token_type_ids\":[..],\"attention_mask\":[..]},
                     the last two optional
      --max-tokens N cut texts to N tokens, not to the limit that the model file states (see inspect)
      --keep-going   a line that cannot be used gives {\"error\":..}, and the run goes on (status 1 at its end)
  -o, --output OUT   write there instead of stdout
      --json         one JSON object per line, also on a terminal
      --read         read MODEL into memory instead of mapping it
      --threads N    threads (1)
      --isa NAME     instruction set (the fastest that the CPU has; also BERTLET_ISA)
";

/// More threads than any machine for these models has.
const MAX_THREADS: usize = 256;

/// What a command takes besides its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// `MODEL`.
    Model,
    /// `MODEL TEXT`.
    ModelAndText,
    /// `MODEL [FILE|-]`, and the options for texts. A tab is a space.
    Texts,
    /// The same, and a tab makes a pair of texts.
    Pairs,
}

/// Where texts come from.
#[derive(Clone, Debug)]
pub enum Source {
    Stdin,
    File(PathBuf),
    Text(OsString),
}

/// The arguments that several commands take.
#[derive(Debug)]
pub struct Options {
    pub model: PathBuf,
    pub source: Source,
    /// Lines are JSON with ids.
    pub ids: bool,
    /// Lines are JSON with texts.
    pub jsonl: bool,
    /// Whether the task takes pairs of texts.
    pub pairs: bool,
    /// Lines that cannot be used are answered with an error.
    pub keep_going: bool,
    /// JSON was asked for.
    json: bool,
    /// Where answers go; stdout where `None`.
    pub output: Option<PathBuf>,
    /// `-o -` names stdout.
    pub to_stdout: bool,
    /// The model is read, not mapped.
    read: bool,
    pub isa: Isa,
    pub threads: usize,
    /// Tokens that texts are cut to, where the model's own limit is not wanted.
    pub max_tokens: Option<usize>,
}

/// The value of an option, as what it must be.
pub fn value<T: FromStr>(parser: &mut Parser, option: &str) -> Result<T, Failure>
where
    T::Err: std::fmt::Display,
{
    let text = text_value(parser, option)?;
    text.parse().map_err(|error| Failure::usage(format!("{option} {text:?}: {error}")))
}

/// The value of an option that counts something.
pub fn count(parser: &mut Parser, option: &str, most: usize) -> Result<usize, Failure> {
    let text = text_value(parser, option)?;
    let number = text.parse().ok().filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| {
        Failure::usage(format!("{option} {text:?}: give a whole number from 1 to {most}"))
    })
}

/// The value of an option, as text.
pub fn text_value(parser: &mut Parser, option: &str) -> Result<String, Failure> {
    let text = parser.value()?;
    text.into_string().map_err(|_| Failure::usage(format!("{option}: give it in UTF-8")))
}

impl Options {
    /// Reads all arguments. `own` gets the options that are not shared, with their dashes. It takes
    /// their values from the parser, and returns false for options that it does not know.
    pub fn parse(
        mut parser: Parser,
        takes: Takes,
        own: &mut dyn FnMut(&str, &mut Parser) -> Result<bool, Failure>,
    ) -> Result<Self, Failure> {
        let mut model = None;
        let mut source = None;
        let (mut ids, mut jsonl, mut keep_going) = (false, false, false);
        let (mut json, mut read, mut output) = (false, false, None);
        let mut isa = std::env::var("BERTLET_ISA").ok().filter(|name| !name.is_empty());
        let (mut threads, mut max_tokens) = (1, None);
        let texts = matches!(takes, Takes::Texts | Takes::Pairs);
        while let Some(argument) = parser.next()? {
            let name = match argument {
                Arg::Value(path) if model.is_none() => {
                    model = Some(PathBuf::from(path));
                    continue;
                }
                Arg::Value(given) if takes != Takes::Model && source.is_none() => {
                    source = Some(match takes {
                        Takes::ModelAndText => Source::Text(given),
                        _ if given == "-" => Source::Stdin,
                        _ => Source::File(given.into()),
                    });
                    continue;
                }
                Arg::Value(other) => {
                    let hint = if texts { "give a text with --text, and " } else { "" };
                    return Err(Failure::usage(format!(
                        "{other:?} is one argument too many; {hint}quote a text with spaces"
                    )));
                }
                Arg::Long(name) => format!("--{name}"),
                Arg::Short(name) => format!("-{name}"),
            };
            match name.as_str() {
                "-h" | "--help" => return Err(Failure::Help),
                "--json" => json = true,
                "--read" => read = true,
                "--isa" => isa = Some(text_value(&mut parser, "--isa")?),
                "--threads" => threads = count(&mut parser, "--threads", MAX_THREADS)?,
                "--ids" if texts => ids = true,
                "--max-tokens" if takes != Takes::Model => {
                    max_tokens = Some(value(&mut parser, "--max-tokens")?);
                }
                "--jsonl" if texts => jsonl = true,
                "--keep-going" if texts => keep_going = true,
                "--text" if texts && source.is_none() => {
                    source = Some(Source::Text(parser.value()?));
                }
                "--text" if texts => {
                    return Err(Failure::usage("give a file or --text, not both"));
                }
                "-o" | "--output" if texts => output = Some(parser.value()?.into()),
                _ if own(&name, &mut parser)? => {}
                _ => return Err(Failure::UnknownOption(name)),
            }
        }
        let model = model.ok_or_else(|| {
            Failure::usage("no model given; make a file with bertlet-convert and name it here")
        })?;
        if takes == Takes::ModelAndText && source.is_none() {
            return Err(Failure::usage("no text given; put it after the model, in quotes"));
        }
        if ids && jsonl {
            return Err(Failure::usage("--ids and --jsonl: give one of them"));
        }
        let isa = match isa {
            None => Isa::detect(),
            Some(name) => Isa::named(&name)
                .map_err(|error| Failure::usage(format!("--isa {name}: {error}")))?,
        };
        let to_stdout = output.as_ref().is_some_and(|path: &PathBuf| path.as_os_str() == STDOUT);
        let output = output.filter(|_| !to_stdout);
        let source = source.unwrap_or(Source::Stdin);
        let options = Self {
            model,
            source,
            ids,
            jsonl,
            pairs: matches!(takes, Takes::Pairs | Takes::ModelAndText),
            keep_going,
            json,
            output,
            to_stdout,
            read,
            isa,
            threads,
            max_tokens,
        };
        output::check(options.output.as_deref().unwrap_or(STDOUT.as_ref()), &options)?;
        Ok(options)
    }

    /// Whether answers are JSON: asked for, or not written to a terminal.
    pub fn json(&self) -> bool {
        self.json || self.output.is_some() || !std::io::stdout().is_terminal()
    }

    /// Whether JSON was asked for.
    pub fn asked_for_json(&self) -> bool {
        self.json
    }

    /// Opens the model.
    pub fn open(&self) -> Result<ModelFile, Failure> {
        Ok(if self.read { ModelFile::read(&self.model) } else { ModelFile::open(&self.model) }?)
    }

    /// What runs the model.
    pub fn session<'m>(&self, file: &'m ModelFile) -> Result<Session<'m>, Failure> {
        let session = Session::new(file.model()).with_isa(self.isa);
        session.with_threads(self.threads).map_err(|error| {
            Failure::work(
                format_args!("--threads {}", self.threads),
                format_args!("{error}; ask for fewer"),
            )
        })
    }

    /// `--max-tokens`, as far as the model takes it.
    pub fn max_tokens(&self, model: &Model<'_>) -> Result<Option<usize>, Failure> {
        let positions = model.config().max_position_embeddings;
        match self.max_tokens {
            Some(tokens) if !(1..=positions).contains(&tokens) => Err(Failure::usage(format!(
                "--max-tokens {tokens}: the model takes 1 to {positions} tokens"
            ))),
            tokens => Ok(tokens),
        }
    }

    /// A runner for ids of as many tokens as the model takes, and texts up to their limit.
    pub fn runner<'s>(&self, session: &'s mut Session<'_>) -> Result<TextRunner<'s, 's>, Failure> {
        let (model, positions) =
            (session.model(), session.model().config().max_position_embeddings);
        let limit = self.max_tokens(&model)?.unwrap_or(model.max_tokens());
        let runner = session.runner(positions);
        let runner = runner.map_err(|error| Failure::work(self.model.display(), error))?;
        Ok(runner.with_max_tokens(limit))
    }

    /// The text of the prompt with this name; without a name that of the model's default prompt, and for
    /// an empty name none.
    pub fn prompt<'m>(&self, model: &Model<'m>, name: Option<&str>) -> Result<&'m str, Failure> {
        let prompts = model.prompts();
        let Some(name) = name else {
            return Ok(prompts.default_prompt().unwrap_or_default().text);
        };
        if self.ids {
            return Err(Failure::usage("--prompt: lines of ids are used as they are; give texts"));
        }
        if name.is_empty() {
            return Ok("");
        }
        prompts.named(name).map(|prompt| prompt.text).ok_or_else(|| {
            let names: Vec<_> = prompts.iter().map(|prompt| format!("{:?}", prompt.name)).collect();
            let names = if names.is_empty() { "none".into() } else { names.join(", ") };
            Failure::usage(format!("--prompt {name:?}: the model's prompts are: {names}"))
        })
    }

    /// The model's tokenizer.
    pub fn tokenizer<'m>(&self, file: &'m ModelFile) -> Result<Tokenizer<'m>, Failure> {
        let model = self.model.display();
        let bytes = file.model().tokenizer_bytes().ok_or_else(|| {
            Failure::work(
                &model,
                "tokenizer: the model has none; convert it with its vocab.txt, or give --ids",
            )
        })?;
        Tokenizer::from_bytes(bytes).map_err(|error| {
            Failure::work(&model, format_args!("tokenizer: {error}; convert the model again"))
        })
    }
}

/// Sets the windows of a runner for a text: the usual ones, or none.
pub fn set_windows(runner: &mut TextRunner<'_, '_>, window: bool, text: &Text<'_>) {
    let pair = matches!(text, Text::Pair(..));
    runner.set_overlap(window.then(|| default_overlap(runner.max_tokens(), pair)));
}
