//! What a conversion did and what it cost, for people, for programs, and for the file itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bertlet::Model;
use bertlet::format::Encoding;
use serde::Serialize;

use crate::bert::{Bert, LayerNorm, Linear, Matrix};
use crate::measure::{OutputError, Quality};
use crate::names::{Fate, TensorReport};

/// The part of a report that travels in the file: where it came from, how it was made, how good it is.
///
/// It holds no clock and no path, so that the same checkpoint gives the same bytes everywhere.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Name and version of the converter.
    pub tool: String,
    /// What the weights were written in.
    pub source_format: String,
    /// The checkpoint's files.
    pub source_files: Vec<SourceFile>,
    /// `architectures` of the configuration.
    pub architecture: Option<String>,
    /// The model's shape.
    pub model: Shape,
    /// How it was converted.
    pub options: Choices,
    /// Parameters by part.
    pub parameters: Parameters,
    /// Tensors of the checkpoint.
    pub tensors: Totals,
    /// Tensors that were left out.
    pub dropped: Vec<Dropped>,
    /// What the user should know.
    pub notes: Vec<String>,
    /// Error of the written weights against f32, on text that was not calibrated on.
    pub error: Errors,
}

/// A file of the checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceFile {
    /// Name inside of the checkpoint's folder.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// The shape of a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Shape {
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub intermediate: usize,
    pub vocab: usize,
    pub positions: usize,
    pub token_types: usize,
    pub eps: f32,
    pub activation: &'static str,
    /// Tokens in the vocabulary: fewer than `vocab` where rows are padding; 0 without a vocabulary.
    pub vocabulary: usize,
    /// The longest input that the tokenizer's author had in mind.
    pub model_max_length: Option<usize>,
}

/// The options of a conversion.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choices {
    /// Encoding of the matrices.
    pub weights: &'static str,
    /// What an int8 model was calibrated on.
    pub calibration: Option<Calibration>,
    /// Pooled cosine asked for.
    pub min_cosine: Option<f64>,
    /// Linear layers of an int8 model that are kept in f16.
    pub kept_in_f16: Vec<String>,
    /// Default pooling.
    pub pooling: &'static str,
    /// Whether pooled vectors are divided by their length by default.
    pub normalize: bool,
    /// Names of a classifier's outputs.
    pub labels: Vec<String>,
}

/// What an int8 model was calibrated on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// "built-in", "random ids", or the name of the user's file.
    pub text: String,
    /// SHA-256 of the user's file.
    pub sha256: Option<String>,
    /// Inputs.
    pub sequences: usize,
    /// Tokens of all inputs.
    pub tokens: usize,
}

/// Parameters by part, as the checkpoint counts them (tied weights once).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Parameters {
    /// The three tables and their norm.
    pub embeddings: usize,
    /// All layers.
    pub layers: usize,
    /// The pooler.
    pub pooler: usize,
    /// Embeddings, layers and pooler: what is called the size of a BERT.
    pub encoder: usize,
    /// Each head.
    pub heads: BTreeMap<&'static str, usize>,
    /// Encoder and heads.
    pub total: usize,
}

impl Parameters {
    /// Counts a model's.
    pub fn of(bert: &Bert) -> Self {
        let matrix = |m: &Matrix| m.data.len();
        let linear = |l: &Linear| l.weight.data.len() + l.bias.len();
        let norm = |n: &LayerNorm| n.weight.len() + n.bias.len();
        let tables = &bert.embeddings;
        let embeddings = matrix(&tables.word)
            + matrix(&tables.position)
            + matrix(&tables.token_type)
            + norm(&tables.norm);
        let layers = bert.layers.iter().map(|l| {
            [&l.query, &l.key, &l.value, &l.attention_output, &l.intermediate, &l.output]
                .map(linear)
                .iter()
                .sum::<usize>()
                + norm(&l.attention_norm)
                + norm(&l.output_norm)
        });
        let layers = layers.sum();
        let pooler = bert.pooler.as_ref().map_or(0, linear);
        let heads = &bert.heads;
        let masked = heads.masked_lm.as_ref().map(|lm| {
            let decoder = lm.decoder.as_ref().map_or(0, matrix);
            linear(&lm.transform) + norm(&lm.norm) + decoder + lm.bias.len()
        });
        let heads: BTreeMap<_, _> = [
            ("token classifier", heads.token_classifier.as_ref().map(linear)),
            ("sequence classifier", heads.sequence_classifier.as_ref().map(|(l, _)| linear(l))),
            ("masked words", masked),
            ("next sentence", heads.next_sentence.as_ref().map(linear)),
            ("question answering", heads.question_answering.as_ref().map(linear)),
        ]
        .into_iter()
        .filter_map(|(name, count)| Some((name, count?)))
        .collect();
        let encoder = embeddings + layers + pooler;
        let total = encoder + heads.values().sum::<usize>();
        Self { embeddings, layers, pooler, encoder, heads, total }
    }
}

/// Tensors of a checkpoint, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// In the checkpoint.
    pub read: usize,
    /// That are parameters of the model.
    pub mapped: usize,
    /// That were left out.
    pub dropped: usize,
}

/// A tensor that was left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Dropped {
    /// As the checkpoint spells it.
    pub name: String,
    /// Why.
    pub why: String,
}

/// The error of a written model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Errors {
    /// Texts measured on.
    pub texts: usize,
    /// Tokens of all texts.
    pub tokens: usize,
    /// Cosine of the mean-pooled last state, mean over the texts.
    pub pooled_cosine: f64,
    /// The lowest of them.
    pub lowest_pooled_cosine: f64,
    /// Hidden states, embeddings first.
    pub states: Vec<StateError>,
    /// Pooler and heads.
    pub outputs: Vec<OutputError>,
}

/// The error of a hidden state over all tokens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StateError {
    /// "embeddings", "layer 1", ...
    pub name: String,
    /// Root mean square of the error over that of the state.
    pub relative_rms: f64,
    /// Cosine between a token's vectors, mean over the tokens.
    pub cosine: f64,
    /// Signal to quantisation noise, in decibels; none where there is no noise.
    pub sqnr_db: f64,
    /// The channel with the largest error.
    pub worst_channel: usize,
    /// Root mean square of its error.
    pub worst_channel_rms: f64,
    /// Root mean square error of the channel in the middle.
    pub median_channel_rms: f64,
    /// Root mean square error of every channel.
    #[serde(skip)]
    pub channels: Vec<f64>,
}

/// Six digits: more are noise.
fn round(x: f64) -> f64 {
    format!("{x:.6e}").parse().unwrap_or(x)
}

impl Errors {
    /// Of what was measured on so many texts.
    pub fn new(quality: Quality, texts: usize) -> Self {
        let Quality { states, outputs } = quality;
        let state = |(i, state): (usize, crate::quantize::report::StateError)| {
            let mut sorted = state.channels.clone();
            sorted.sort_by(f64::total_cmp);
            StateError {
                name: if i == 0 { "embeddings".into() } else { format!("layer {i}") },
                relative_rms: round(state.relative_rms),
                cosine: round(state.cosine),
                sqnr_db: round(state.sqnr),
                worst_channel: state.worst_channel,
                worst_channel_rms: round(sorted[sorted.len() - 1]),
                median_channel_rms: round(sorted[sorted.len() / 2]),
                channels: state.channels,
            }
        };
        Self {
            texts,
            tokens: states.tokens,
            pooled_cosine: round(states.pooled_cosine),
            lowest_pooled_cosine: round(states.lowest_pooled_cosine),
            states: states.states.into_iter().enumerate().map(state).collect(),
            outputs: outputs
                .into_iter()
                .map(|o| OutputError { relative_rms: round(o.relative_rms), ..o })
                .collect(),
        }
    }
}

/// Everything about a conversion.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The file that was written.
    pub file: Written,
    /// What travels in the file.
    #[serde(flatten)]
    pub summary: Summary,
    /// Every tensor of the checkpoint.
    #[serde(rename = "all_tensors")]
    pub tensors: Vec<Tensor>,
}

/// A written file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Written {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub bytes: usize,
    /// Size of the checkpoint's weights in bytes.
    pub source_bytes: u64,
    /// Bytes of the sections in each encoding.
    pub bytes_by_encoding: BTreeMap<&'static str, usize>,
    /// Values that the self-test vectors hold.
    pub self_test_values: usize,
}

impl Written {
    /// Adds up a model's sections.
    pub fn bytes_by_encoding(model: &Model<'_>) -> BTreeMap<&'static str, usize> {
        let mut bytes = BTreeMap::new();
        for section in model.sections() {
            let name = match section.encoding {
                Encoding::F32 => "f32",
                Encoding::F16 => "f16",
                Encoding::Int8 => "int8",
                _ => "other",
            };
            *bytes.entry(name).or_default() += section.length;
        }
        bytes
    }
}

/// What became of a tensor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tensor {
    /// As the checkpoint spells it.
    pub name: String,
    /// Type of its elements.
    pub dtype: String,
    /// Shape in the file.
    pub shape: Vec<usize>,
    /// The parameter that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mapped: Option<String>,
    /// Why it was left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped: Option<String>,
}

impl From<TensorReport> for Tensor {
    fn from(report: TensorReport) -> Self {
        let (mapped, dropped) = match report.fate {
            Fate::Mapped(canonical) => (Some(canonical), None),
            Fate::Dropped(why) => (None, Some(why)),
        };
        let dtype = report.dtype.to_string();
        Self { name: report.name, dtype, shape: report.shape, mapped, dropped }
    }
}

/// A number with commas between its thousands.
pub fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A size in bytes, for people.
pub fn size(bytes: u64) -> String {
    match bytes as f64 {
        b if b >= 1e8 => format!("{:.0} MB", b / 1e6),
        b if b >= 1e6 => format!("{:.1} MB", b / 1e6),
        b => format!("{:.1} kB", b / 1e3),
    }
}

impl Report {
    /// A screenful for people.
    pub fn text(&self) -> String {
        let Self { file, summary, .. } = self;
        let Summary { model, options, parameters, tensors, error, .. } = summary;
        let mut out = format!(
            "{}: {} in {} from {} of {}\n",
            file.name,
            size(file.bytes as u64),
            options.weights,
            size(file.source_bytes),
            summary.source_format,
        );
        let mut line = |text: String| {
            out.push_str("  ");
            out.push_str(&text);
            out.push('\n');
        };
        line(format!(
            "shape       {} layers, hidden {}, {} heads, intermediate {}, {} words, {} positions, {}",
            model.layers,
            model.hidden,
            model.heads,
            model.intermediate,
            thousands(model.vocab),
            model.positions,
            model.activation,
        ));
        line(format!(
            "parameters  {} = embeddings {} + layers {} + pooler {}",
            thousands(parameters.encoder),
            thousands(parameters.embeddings),
            thousands(parameters.layers),
            thousands(parameters.pooler),
        ));
        for (name, count) in &parameters.heads {
            line(format!("            and {} of the head for {name}", thousands(*count)));
        }
        let totals = format!(
            "tensors     {} read, {} mapped, {} dropped",
            tensors.read, tensors.mapped, tensors.dropped
        );
        line(totals);
        if !options.kept_in_f16.is_empty() {
            line(format!("in f16      {}", options.kept_in_f16.join(", ")));
        }
        line(format!(
            "error against f32 on {} held-out texts, {} tokens:",
            error.texts, error.tokens
        ));
        line(format!(
            "{:12}  {:>12}  {:>10}  {:>8}  worst channel",
            "", "relative RMS", "cosine", "SQNR"
        ));
        for state in &error.states {
            let times = state.worst_channel_rms / state.median_channel_rms;
            let mut worst = format!("{}", state.worst_channel);
            if times.is_finite() {
                let _ = write!(worst, " ({times:.1} x median)");
            }
            line(format!(
                "{:12}  {:>12}  {:>10.7}  {:>5.1} dB  {worst}",
                state.name,
                short(state.relative_rms),
                state.cosine,
                state.sqnr_db,
            ));
        }
        for output in &error.outputs {
            line(format!("{:20} {:>5}", output.name, short(output.relative_rms)));
        }
        line(format!(
            "pooled cosine {:.7} on average, {:.7} at worst",
            error.pooled_cosine, error.lowest_pooled_cosine
        ));
        for note in &summary.notes {
            line(format!("note: {note}"));
        }
        out
    }
}

/// A small number, readable at any magnitude.
pub(crate) fn short(x: f64) -> String {
    if x == 0.0 || x >= 0.001 { format!("{x:.4}") } else { format!("{x:.1e}") }
}
