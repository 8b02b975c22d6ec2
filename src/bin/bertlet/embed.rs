//! `bertlet embed`: hidden states as features.

use std::io::Write;
use std::path::Path;

use bertlet::tasks::{Features, WordFeatures, WordPooling, default_overlap};
use bertlet::{Layers, Pooling, features_len, with_scratch};
use lexopt::Parser;

use crate::Command;
use crate::export::{Format, Ragged, Rows};
use crate::failure::{Failure, zeros};
use crate::json::{self, Object};
use crate::options::{OPTIONS_HELP, Options, PAIRS_HELP, Takes, set_windows, text_value, value};
use crate::output::{Answers, STDOUT};
use crate::samples::{Samples, Sink};

pub const COMMAND: Command = Command {
    name: "embed",
    about: "turns texts into vectors",
    help: &[
        "\
Usage: bertlet embed MODEL [FILE|-] [options]

Writes {\"embedding\":[..]} for each text, with \"truncated\":true if the text was cut to the model's limit.
Without --layers and --pooling: the last layer, pooled and normalised as the model file says.

      --layers L     embeddings, first, last, second-to-last, a number as in hidden_states (0, -1),
                     sum:last4, mean:last4, concat:last4, sum:all, sum:1,2, concat:3,-1, weighted:0=0.1,5=0.4
      --pooling P    none (one vector per token), cls, pooler, mean, max, mean-max, mean-sqrt, sep
      --words P      one vector per word: lines are words with spaces (or tabs) between them; of a word's tokens the first,
                     the mean or the last (null for words that were cut or have no token)
      --normalize    divide vectors by their length
      --prompt NAME  the model's prompt of this name before each text (inspect lists them; the model's default,
                     if it has one; \"\" for none)
      --window       read all of a long text, in overlapping windows: the mean of their vectors; for a word,
                     those of the window with the most context around it
      --format F     jsonl; npy: one array [texts, width]; safetensors: the same array, named embeddings, or
                     with --pooling none one array [tokens, width] per text, named 0, 1, 2 ... (with --words
                     [words, width], zeros for null). npy and safetensors need -o (-o - is stdout)

",
        PAIRS_HELP,
        OPTIONS_HELP,
        "
Example:
  bertlet embed model.bertlet --text \"A quiet house.\" --pooling mean --normalize
"
    ],
    run,
};

fn run(parser: Parser) -> Result<(), Failure> {
    let (mut layers, mut pooling, mut normalize, mut window) = (None, None, false, false);
    let (mut words, mut format) = (None::<WordPooling>, Format::Jsonl);
    let mut prompt = None;
    let mut options = Options::parse(parser, Takes::Pairs, &mut |name, parser| {
        match name {
            "--layers" => layers = Some(value(parser, name)?),
            "--pooling" => pooling = Some(value(parser, name)?),
            "--words" => words = Some(value(parser, name)?),
            "--normalize" => normalize = true,
            "--prompt" => prompt = Some(text_value(parser, name)?),
            "--window" => window = true,
            "--format" => format = value(parser, name)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if words.is_some() && pooling.is_some() {
        return Err(Failure::usage(
            "--words pools the tokens of each word, --pooling those of the text; give one of them",
        ));
    }
    if words.is_some() && prompt.is_some() {
        return Err(Failure::usage("--prompt: lines of separate words have no prompt"));
    }
    if words.is_some() && options.ids {
        return Err(Failure::usage("--words: lines of ids are used as they are; give texts"));
    }
    // With words, a tab is a space.
    options.pairs = words.is_none();
    let file = options.open()?;
    let model = file.model();
    let prompt = options.prompt(&model, prompt.as_deref())?;
    let as_model_says = layers.is_none() && pooling.is_none() && words.is_none();
    let default_pooling = if words.is_some() { Pooling::None } else { model.default_pooling() };
    let features = Features {
        layers: layers.unwrap_or(Layers::LAST),
        pooling: pooling.unwrap_or(default_pooling),
        normalize: normalize || as_model_says && model.default_normalize(),
    };
    // Asked once before any text is read; the same call for a sample cannot fail then.
    let config = *model.config();
    let Features { layers, pooling, normalize } = features;
    let width = features_len(&config, 1, &layers, pooling).map_err(|error| {
        Failure::work(options.model.display(), format_args!("--layers: {error}"))
    })?;
    if window && words.is_none() && pooling == Pooling::None {
        return Err(Failure::usage(
            "--window averages pooled vectors; choose another --pooling than none",
        ));
    }
    if window && options.ids {
        return Err(Failure::usage("--window: lines of ids are used as they are; give texts"));
    }
    let sink = Vectors::open(&options, format, pooling, words, width)?;
    let is_json = sink.is_json();
    let samples = Samples::open(&options, &file)?;
    let mut session = options.session(&file)?;
    // Here the prompt is joined with the text, whatever its last character.
    let mut runner = options.runner(&mut session)?.with_prompt("");
    let mut joined = String::new();
    let (mut vectors, mut scratch, mut counts) = (zeros(width)?, Vec::new(), Vec::new());
    let mut of_window = zeros(width)?;
    // Texts that were cut, and the first of them.
    let mut cut: Option<(u64, String)> = None;
    samples.each(sink, &mut |sample, sink| {
        let text = sample.text().with_prompt(prompt, &mut joined);
        set_windows(&mut runner, window, &text);
        let run = if let Some(pooling) = words {
            let words = sample.words();
            runner.set_overlap(window.then(|| default_overlap(runner.max_tokens(), false)));
            counts.resize(words.len(), 0);
            vectors.resize(words.len() * width, 0.0);
            let features = WordFeatures { layers, pooling, normalize };
            with_scratch(&mut scratch, |scratch| {
                runner.word_vectors(&words, &features, scratch, (&mut counts, &mut vectors))
            })
        } else if pooling == Pooling::None {
            runner.each_window(text, |encoder, window| {
                // More tokens than positions are refused by the encoder.
                let tokens = window.input.input_ids.len().min(config.max_position_embeddings);
                vectors.resize(features_len(&config, tokens, &layers, pooling)?, 0.0);
                Ok(encoder.encode(&window.input, &mut [features.output(&mut vectors)])?)
            })
        } else {
            runner.embed(text, &features, &mut vectors, &mut of_window)
        };
        let run = run.map_err(|error| sample.refused(error))?;
        if run.truncated {
            cut.get_or_insert_with(|| (0, sample.place().to_string())).0 += 1;
        }
        let counts = words.map(|_| &counts[..]);
        sink.write((&vectors, counts), width, run.truncated)
    })?;
    if let Some((count, first)) = cut.filter(|_| !is_json) {
        eprintln!(
            "bertlet: {first}: cut to {} tokens ({count} in all); --window reads all of a \
             text",
            runner.max_tokens()
        );
    }
    Ok(())
}

/// Where vectors go.
enum Vectors {
    Lines(Answers, Pooling),
    Rows(Rows),
    Ragged(Ragged),
}

impl Vectors {
    fn open(
        options: &Options,
        format: Format,
        pooling: Pooling,
        words: Option<WordPooling>,
        width: usize,
    ) -> Result<Self, Failure> {
        let path = match (format, &options.output) {
            (Format::Jsonl, _) => return Ok(Self::Lines(Answers::open(options)?, pooling)),
            _ if options.keep_going => {
                return Err(Failure::usage(
                    "--keep-going: this --format has no place for errors; choose --format jsonl",
                ));
            }
            (_, Some(path)) => path,
            (_, None) if options.to_stdout => Path::new(STDOUT),
            (_, None) => {
                return Err(Failure::usage(
                    "this --format is completed at its end; name a file with -o, or stdout with -o -",
                ));
            }
        };
        match (pooling, format) {
            (Pooling::None, Format::Npy) => Err(Failure::usage(match words {
                Some(_) => {
                    "--format npy holds one array, and with --words texts differ in words; choose \
                     --format safetensors, or --pooling in place of --words"
                }
                None => {
                    "--format npy holds one array, and texts differ in tokens; choose --pooling, or \
                     --format safetensors"
                }
            })),
            (Pooling::None, _) => Ok(Self::Ragged(Ragged::create(path, width)?)),
            _ => Ok(Self::Rows(Rows::create(path, format, width)?)),
        }
    }

    fn is_json(&self) -> bool {
        matches!(self, Self::Lines(answers, _) if answers.json)
    }

    /// Writes the answer to a text: its vectors, and for vectors of words the number of tokens of each.
    fn write(
        &mut self,
        (vectors, tokens): (&[f32], Option<&[u32]>),
        width: usize,
        truncated: bool,
    ) -> Result<(), Failure> {
        match self {
            Self::Rows(rows) => rows.push(vectors),
            Self::Ragged(arrays) => arrays.push(vectors),
            Self::Lines(answers, pooling) => {
                let rows = *pooling == Pooling::None;
                if answers.json {
                    let mut object = Object::new(answers.line());
                    if let Some(tokens) = tokens {
                        let words = vectors.chunks_exact(width).zip(tokens);
                        object.list("embedding", words, |out, (vector, tokens)| match tokens {
                            0 => json::plain(out, "null"),
                            _ => json::floats(out, vector),
                        });
                    } else if rows {
                        object.list("embedding", vectors.chunks_exact(width), json::floats);
                    } else {
                        object.floats("embedding", vectors);
                    }
                    if truncated {
                        object.plain("truncated", true);
                    }
                    object.end();
                } else {
                    write_plain(answers.line(), vectors, width);
                    answers.keep_as_it_is();
                }
                Ok(())
            }
        }
    }
}

impl Sink for Vectors {
    fn failed(&mut self, message: &str) {
        if let Self::Lines(answers, _) = self {
            answers.failed(message);
        }
    }

    fn end(&mut self, id: Option<&str>, now: bool) -> Result<(), Failure> {
        match self {
            Self::Lines(answers, _) => Sink::end(answers, id, now),
            _ => Ok(()),
        }
    }

    fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Lines(answers, _) => answers.finish(),
            Self::Rows(rows) => rows.finish(),
            Self::Ragged(arrays) => arrays.finish(),
        }
    }
}

/// The first values of each vector: enough to see that they differ.
fn write_plain(line: &mut Vec<u8>, vectors: &[f32], width: usize) {
    for (i, vector) in vectors.chunks_exact(width).enumerate() {
        let new_line = if i == 0 { "" } else { "\n" };
        write!(line, "{new_line}{width} values:").expect("memory takes everything");
        for value in vector.iter().take(8) {
            write!(line, " {value:.4}").expect("memory takes everything");
        }
        if width > 8 {
            line.extend(b" ... (--json for all)");
        }
    }
}
