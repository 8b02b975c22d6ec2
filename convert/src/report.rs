//! The report of a conversion: as text, as JSON, and as the provenance section of the file.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bertlet::format::Encoding;
use bertlet::{Model, Printable};
use serde::Serialize;

use crate::bert::{Bert, LayerNorm, Linear, Matrix};
use crate::load::{Fate, TensorReport};
use crate::measure::{OutputError, Quality};
use crate::quantize::StateDeviation;

/// The part of the report that the file stores as its provenance: source, options, errors.
///
/// It has no time and no path, so that the same checkpoint gives the same bytes everywhere.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Name and version of the converter.
    pub tool: String,
    /// Format of the checkpoint.
    pub source_format: String,
    /// Files of the checkpoint.
    pub source_files: Vec<SourceFile>,
    /// `architectures` of the configuration.
    pub architecture: Option<String>,
    /// Shape of the model.
    pub model: ModelShape,
    /// Options of the conversion.
    pub options: ChosenOptions,
    /// Parameters by part.
    pub parameters: Parameters,
    /// Number of tensors.
    pub tensors: TensorCounts,
    /// Tensors that were dropped.
    pub dropped: Vec<DroppedTensor>,
    /// Remarks for the user.
    pub notes: Vec<String>,
    /// Error of the converted model against f32, on held-out text.
    pub error: ErrorSummary,
}

/// A file of the checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceFile {
    /// Name relative to the checkpoint's folder.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// The shape of a model, in the words of `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct ModelShape {
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
    pub type_vocab_size: usize,
    pub layer_norm_eps: f32,
    pub hidden_act: &'static str,
    /// Tokens of the tokenizer: 0 without a tokenizer. Less than `vocab_size` where the embedding table is
    /// padded.
    pub tokenizer_tokens: usize,
    /// The longest input in tokens, as `tokenizer_config.json` states it.
    pub model_max_length: Option<usize>,
}

/// The options of a conversion.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChosenOptions {
    /// Encoding of the matrices.
    pub weights: &'static str,
    /// Calibration of an int8 model.
    pub calibration: Option<Calibration>,
    /// The vocabulary, if pieces were dropped.
    pub vocabulary: Option<KeptVocabulary>,
    /// Value of `--min-cosine`.
    pub min_cosine: Option<f64>,
    /// Linear layers of an int8 model that stayed in f16.
    pub kept_in_f16: Vec<String>,
    /// Default pooling.
    pub pooling: &'static str,
    /// Whether pooled vectors are L2-normalised by default.
    pub normalize: bool,
    /// Labels of the classifier.
    pub labels: Vec<String>,
    /// Tokens that texts are cut to.
    pub max_tokens: usize,
}

/// The inputs that an int8 model was calibrated on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// "built-in", "random ids", or the name of the user's file.
    pub text: String,
    /// SHA-256 of the user's file.
    pub sha256: Option<String>,
    /// Number of inputs.
    pub sequences: usize,
    /// Number of tokens in all inputs.
    pub tokens: usize,
}

/// The vocabulary of a file that does not have all pieces of its checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeptVocabulary {
    /// Name of the file of texts that decided.
    pub text: String,
    /// SHA-256 of that file.
    pub sha256: String,
    /// Pieces in the file.
    pub pieces: usize,
    /// Pieces in the checkpoint.
    pub of: usize,
}

/// Number of parameters by part. Tied weights count once.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Parameters {
    /// The three tables and their norm.
    pub embeddings: usize,
    /// All encoder layers.
    pub layers: usize,
    /// The pooler.
    pub pooler: usize,
    /// Embeddings, layers and pooler: the usual size of a BERT.
    pub encoder: usize,
    /// By head.
    pub heads: BTreeMap<&'static str, usize>,
    /// Encoder and heads.
    pub total: usize,
}

impl Parameters {
    /// Counts the parameters of a model.
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
            ("masked LM", masked),
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

/// Number of tensors of a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct TensorCounts {
    /// Tensors in the checkpoint.
    pub read: usize,
    /// Tensors that are parameters of the model.
    pub mapped: usize,
    /// Tensors that were dropped.
    pub dropped: usize,
}

/// A tensor that was dropped.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DroppedTensor {
    /// Name in the checkpoint.
    pub name: String,
    /// The reason.
    pub why: String,
}

/// The error of a converted model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ErrorSummary {
    /// Number of held-out texts.
    pub texts: usize,
    /// Number of tokens in all texts.
    pub tokens: usize,
    /// Cosine of the mean-pooled last hidden state: mean over the texts.
    pub pooled_cosine: f64,
    /// The same: minimum over the texts.
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
    /// Root mean square of the error, divided by that of the hidden state.
    pub relative_rms: f64,
    /// Cosine of the vectors of a token: mean over the tokens.
    pub cosine: f64,
    /// Signal to quantisation noise ratio in decibels. Infinite without noise; JSON has `null` for that.
    pub sqnr_db: f64,
    /// The channel with the largest error.
    pub worst_channel: usize,
    /// Root mean square error of that channel.
    pub worst_channel_rms: f64,
    /// Median of the root mean square errors of the channels.
    pub median_channel_rms: f64,
    /// Root mean square error of every channel.
    #[serde(skip)]
    pub channels: Vec<f64>,
}

/// Rounds to seven digits: more are noise.
fn round(x: f64) -> f64 {
    format!("{x:.6e}").parse().unwrap_or(x)
}

impl ErrorSummary {
    /// The summary of a measurement on `texts` texts.
    pub fn new(quality: Quality, texts: usize) -> Self {
        let Quality { states, outputs } = quality;
        let state = |(i, state): (usize, StateDeviation)| {
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

/// The whole report of a conversion.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConversionReport {
    /// The file that was written.
    pub file: FileSummary,
    /// The part that the file stores as its provenance.
    #[serde(flatten)]
    pub summary: Summary,
    /// Every tensor of the checkpoint and its fate.
    #[serde(rename = "all_tensors")]
    pub tensors: Vec<TensorRow>,
}

/// A model file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FileSummary {
    /// File name.
    pub name: String,
    /// Size in bytes.
    pub bytes: usize,
    /// Size of the checkpoint's weights in bytes.
    pub source_bytes: u64,
    /// Bytes of the sections in each encoding.
    pub bytes_by_encoding: BTreeMap<&'static str, usize>,
    /// Number of values in the self-test vectors.
    pub self_test_values: usize,
}

impl FileSummary {
    /// Sums the lengths of the sections by encoding.
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

/// A tensor of the checkpoint and its fate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorRow {
    /// Name in the checkpoint.
    pub name: String,
    /// Type of the elements.
    pub dtype: String,
    /// Shape in the file.
    pub shape: Vec<usize>,
    /// Name of the parameter that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mapped: Option<String>,
    /// Why it was dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped: Option<String>,
}

impl From<TensorReport> for TensorRow {
    fn from(report: TensorReport) -> Self {
        let (mapped, dropped) = match report.fate {
            Fate::Mapped(canonical) => (Some(canonical), None),
            Fate::Dropped(why) => (None, Some(why)),
        };
        let dtype = report.dtype.to_string();
        Self { name: report.name, dtype, shape: report.shape, mapped, dropped }
    }
}

/// A number with commas as thousands separators.
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

/// A size in bytes, in kB or MB.
pub fn size(bytes: u64) -> String {
    match bytes as f64 {
        b if b >= 1e8 => format!("{:.0} MB", b / 1e6),
        b if b >= 1e6 => format!("{:.1} MB", b / 1e6),
        b => format!("{:.1} kB", b / 1e3),
    }
}

impl ConversionReport {
    /// The report as text.
    pub fn text(&self) -> String {
        let Self { file, summary, .. } = self;
        let Summary { model, options, parameters, tensors, error, .. } = summary;
        let mut out = format!(
            "{}: {} in {} from {} of {}\n",
            Printable(&file.name),
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
            "shape       {} layers, hidden size {}, {} heads, intermediate size {}, vocabulary of {}, {} positions, {}",
            model.num_hidden_layers,
            model.hidden_size,
            model.num_attention_heads,
            model.intermediate_size,
            thousands(model.vocab_size),
            model.max_position_embeddings,
            model.hidden_act,
        ));
        if let Some(kept) = &options.vocabulary {
            line(format!(
                "            {} of {} pieces: those that {} needs, and all single characters; errors are of all",
                thousands(kept.pieces),
                thousands(kept.of),
                Printable(&kept.text),
            ));
        }
        line(format!(
            "parameters  {} = embeddings {} + layers {} + pooler {}",
            thousands(parameters.encoder),
            thousands(parameters.embeddings),
            thousands(parameters.layers),
            thousands(parameters.pooler),
        ));
        for (name, count) in &parameters.heads {
            line(format!("            and {} in the {name} head", thousands(*count)));
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
            "error against f32, on {} held-out texts with {} tokens:",
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
            "pooled cosine {:.7} on average, {:.7} at least",
            error.pooled_cosine, error.lowest_pooled_cosine
        ));
        for note in &summary.notes {
            line(format!("note: {}", Printable(note)));
        }
        out
    }
}

/// A small number with few digits, at any magnitude.
pub(crate) fn short(x: f64) -> String {
    if x == 0.0 || x >= 0.001 { format!("{x:.4}") } else { format!("{x:.1e}") }
}
