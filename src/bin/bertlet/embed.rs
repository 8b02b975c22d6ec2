//! `bertlet embed`: hidden states as features.

use std::io::Write;

use bertlet::tasks::{WordPooling, pool_words};
use bertlet::tokenizer::{NO_WORD, Span};
use bertlet::{Layers, Model, Output, Pooling, Session, features_len};
use lexopt::Parser;

use crate::Command;
use crate::answers::Answers;
use crate::export::{Format, Ragged, Rows};
use crate::failure::{Failure, zeros};
use crate::json::{self, Object};
use crate::options::{Options, Takes, texts_help, value};
use crate::samples::{Sample, Samples};

pub const COMMAND: Command = Command {
    name: "embed",
    about: "turns texts into vectors",
    help: concat!(
        "\
Usage: bertlet embed MODEL [FILE|-] [options]

Writes {\"embedding\":[..]} for each text, with \"truncated\":true where the text was cut to what the model
takes. Without --layers and --pooling: the last layer, pooled and normalised as the model file says.

      --layers L     embeddings, first, last, second-to-last, a number as in hidden_states (0, -1),
                     sum:last4, mean:last4, concat:last4, sum:all, sum:1,2, concat:3,-1, weighted:0=0.1,5=0.4
      --pooling P    none (a vector a token), cls, pooler, mean, max, mean-max, mean-sqrt, sep
      --words P      a vector a word instead: lines are words with spaces between them; of a word's tokens the
                     first, the mean or the last (null for words that were cut or have no token)
      --normalize    divide vectors by their length
      --window       read all of a long text, in overlapping windows, and average their vectors; a word's is
                     that of the window that sees most around it
      --format F     jsonl; npy: one array [texts, width]; safetensors: the same array, named embeddings, or
                     with --pooling none an array [tokens, width] a text, named 0, 1, 2 ... (with --words
                     [words, width], zeros for null). The last two need -o

",
        texts_help!(),
        "
Example:
  bertlet embed model.bertlet --text \"A quiet house.\" --pooling mean --normalize
"
    ),
    run,
};

/// Which vectors are asked for.
#[derive(Clone, Copy)]
struct Wanted {
    layers: Layers,
    pooling: Pooling,
    normalize: bool,
}

fn run(parser: Parser) -> Result<(), Failure> {
    let (mut layers, mut pooling, mut normalize, mut window) = (None, None, false, false);
    let (mut words, mut format) = (None::<WordPooling>, Format::Jsonl);
    let options = Options::parse(parser, Takes::Texts, &mut |name, parser| {
        match name {
            "--layers" => layers = Some(value(parser, name)?),
            "--pooling" => pooling = Some(value(parser, name)?),
            "--words" => words = Some(value(parser, name)?),
            "--normalize" => normalize = true,
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
    if words.is_some() && options.ids {
        return Err(Failure::usage("--words: lines of ids are used as they are; give texts"));
    }
    let file = options.open()?;
    let model = file.model();
    let as_model_says = layers.is_none() && pooling.is_none() && words.is_none();
    let default_pooling = if words.is_some() { Pooling::None } else { model.default_pooling() };
    let wanted = Wanted {
        layers: layers.unwrap_or(Layers::LAST),
        pooling: pooling.unwrap_or(default_pooling),
        normalize: normalize || as_model_says && model.default_normalize(),
    };
    // Asked once before any text is read; the same call for a sample cannot fail then.
    let width = wanted.len(&model, 1).map_err(|error| {
        Failure::work(options.model.display(), format_args!("--layers: {error}"))
    })?;
    if window && words.is_none() && wanted.pooling == Pooling::None {
        return Err(Failure::usage(
            "--window averages pooled vectors; choose another --pooling than none",
        ));
    }
    if window && options.ids {
        return Err(Failure::usage("--window: lines of ids are used as they are; give texts"));
    }
    let mut sink = Sink::open(&options, format, wanted.pooling, words, width)?;
    let mut samples = Samples::open(&options, &file)?;
    if words.is_some() {
        samples = samples.of_words();
    }
    let mut session = options.session(&file)?;
    if let Some(pooling) = words {
        // Vectors of words are normalised, not those they are made of.
        let tokens = Wanted { normalize: false, ..wanted };
        let (mut line, mut of_words, mut counts) = (Line::default(), Vec::new(), Vec::new());
        while tokens.line(&mut session, &mut samples, window, width, &mut line)? {
            counts.resize(line.word_count, 0);
            of_words.resize(line.word_count * width, 0.0);
            pool_words(&line.vectors, &line.words, pooling, &mut counts, &mut of_words)
                .expect("a vector a token, a place a word");
            if wanted.normalize {
                of_words.chunks_exact_mut(width).for_each(to_unit_length);
            }
            sink.write(&of_words, Some(&counts), width, line.truncated, samples.drained())?;
        }
    } else if window {
        while let Some(vector) = wanted.windows(&mut session, &mut samples, width)? {
            sink.write(&vector, None, width, false, samples.drained())?;
        }
    } else {
        let mut vectors = Vec::new();
        while let Some(sample) = samples.next()? {
            let truncated = sample.encoded.truncated;
            wanted.encode(&mut session, &sample, &mut vectors)?;
            sink.write(&vectors, None, width, truncated, samples.drained())?;
        }
    }
    if !sink.is_json() {
        samples.tell_cuts();
    }
    sink.finish()
}

/// A line of words.
#[derive(Default)]
struct Line {
    /// `[tokens][width]`, `[CLS]` and `[SEP]` included.
    vectors: Vec<f32>,
    /// The word of each token.
    words: Vec<u32>,
    word_count: usize,
    truncated: bool,
}

impl Wanted {
    fn len(&self, model: &Model<'_>, tokens: usize) -> Result<usize, bertlet::RunError> {
        features_len(model.config(), tokens, &self.layers, self.pooling)
    }

    /// The vectors of a sample, into `vectors`.
    fn encode(
        &self,
        session: &mut Session<'_>,
        sample: &Sample<'_>,
        vectors: &mut Vec<f32>,
    ) -> Result<(), Failure> {
        let Self { layers, pooling, normalize, .. } = *self;
        // More tokens than positions are refused by the encoder, before anything is written.
        let tokens = sample.ids.len().min(session.model().config().max_position_embeddings);
        let len = self.len(&session.model(), tokens).map_err(|error| sample.failed(error))?;
        if vectors.len() != len {
            *vectors = zeros(len)?;
        }
        let out = &mut vectors[..];
        session
            .encode(&sample.input(), &mut [Output::Features { layers, pooling, normalize, out }])
            .map_err(|error| sample.failed(error))
    }

    /// The mean of the vectors of the next line's windows; `None` at the end.
    fn windows(
        &self,
        session: &mut Session<'_>,
        samples: &mut Samples<'_>,
        width: usize,
    ) -> Result<Option<Vec<f32>>, Failure> {
        let mut mean = zeros::<f32>(width)?;
        let mut vector = Vec::new();
        // Windows weigh alike whatever their length, so they are normalised only together.
        let each = Self { normalize: false, ..*self };
        let any = samples.next_windows(|sample, windows| {
            each.encode(session, &sample, &mut vector)?;
            let count = windows.count();
            for (mean, value) in mean.iter_mut().zip(&vector) {
                *mean += value / count as f32;
            }
            Ok(())
        })?;
        if self.normalize {
            to_unit_length(&mut mean);
        }
        Ok(any.then_some(mean))
    }

    /// The vectors of the tokens of the next line's words; false at the end.
    fn line(
        &self,
        session: &mut Session<'_>,
        samples: &mut Samples<'_>,
        window: bool,
        width: usize,
        line: &mut Line,
    ) -> Result<bool, Failure> {
        if window {
            return self.line_of_windows(session, samples, width, line);
        }
        let Some(sample) = samples.next()? else { return Ok(false) };
        self.encode(session, &sample, &mut line.vectors)?;
        line.words = sample.words.to_vec();
        (line.word_count, line.truncated) = (sample.word_count, sample.encoded.truncated);
        Ok(true)
    }

    /// [`Wanted::line`] in windows. All tokens of a word come from the window that sees most around it;
    /// only those of a word that no window holds come from several.
    fn line_of_windows(
        &self,
        session: &mut Session<'_>,
        samples: &mut Samples<'_>,
        width: usize,
        line: &mut Line,
    ) -> Result<bool, Failure> {
        *line = Line::default();
        let mut vectors = Vec::new();
        // Of each token, whether its vector is from a window that holds all of its word, and how many
        // tokens that window has on the shorter side.
        let mut seen: Vec<Option<(bool, usize)>> = Vec::new();
        samples.next_windows(|sample, windows| {
            let Span { start, end } = sample.encoded.first;
            if line.words.is_empty() {
                line.vectors = zeros((windows.tokens() + 2).saturating_mul(width))?;
                line.words = vec![NO_WORD; windows.tokens() + 2];
                line.word_count = sample.word_count;
                seen.resize(windows.tokens(), None);
            }
            self.encode(session, &sample, &mut vectors)?;
            let mut last = 0;
            for word in sample.words[1..=end - start].chunk_by(|a, b| a == b) {
                let first = last;
                last += word.len();
                // What ends with the text is not cut.
                let left = if start == 0 { usize::MAX } else { first };
                let right = if end == windows.tokens() { usize::MAX } else { end - start - last };
                let whole = left > 0 && right > 0;
                for token in first..last {
                    let context = match whole {
                        true => left.min(right),
                        false => left
                            .saturating_add(token - first)
                            .min(right.saturating_add(last - 1 - token)),
                    };
                    let best = &mut seen[start + token];
                    if *best < Some((whole, context)) {
                        *best = Some((whole, context));
                        let to = start + token + 1;
                        line.words[to] = word[0];
                        line.vectors[to * width..][..width]
                            .copy_from_slice(&vectors[(token + 1) * width..][..width]);
                    }
                }
            }
            Ok(())
        })
    }
}

/// Divides a vector by its length.
fn to_unit_length(vector: &mut [f32]) {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
    vector.iter_mut().for_each(|x| *x /= length);
}

/// Where vectors go.
enum Sink {
    Lines(Answers, Pooling),
    Rows(Rows),
    Ragged(Ragged),
}

impl Sink {
    fn open(
        options: &Options,
        format: Format,
        pooling: Pooling,
        words: Option<WordPooling>,
        width: usize,
    ) -> Result<Self, Failure> {
        let path = match (format, &options.output) {
            (Format::Jsonl, _) => return Ok(Self::Lines(Answers::open(options)?, pooling)),
            (_, Some(path)) => path,
            (_, None) => {
                return Err(Failure::usage(
                    "this --format is completed at its end; name a file with -o",
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

    /// Writes the answer to a text; `tokens`, where vectors are those of words, says how many tokens each has.
    fn write(
        &mut self,
        vectors: &[f32],
        tokens: Option<&[u32]>,
        width: usize,
        truncated: bool,
        now: bool,
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
                }
                answers.end(now)
            }
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
