//! The command line.

use std::path::PathBuf;

use bertlet_convert::{ConvertOptions, WeightType};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Converts BERT checkpoints (safetensors, PyTorch, TensorFlow) into bertlet's model files, and
/// measures what the conversion cost.
#[derive(Parser)]
#[command(
    name = "bertlet-convert",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Example:\n  bertlet-convert all-MiniLM-L6-v2 -o minilm.bertlet --report minilm.html\n\n\
                  Exit status: 0 done, 1 failed (one line on stderr says why), 2 wrong usage."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub convert: Convert,
}

#[derive(Subcommand)]
pub enum Command {
    /// Converts the checkpoints that ship with bertlet and shows what they can do
    #[command(after_help = "Example:\n  bertlet-convert demo")]
    Demo,
    /// Scores a model file on labelled data
    #[command(
        after_help = "Examples:\n  bertlet-convert evaluate ner.bertlet --task ner --data dev.iob2.tsv\n  \
                      bertlet-convert evaluate sst2.bertlet --task classify --data dev.tsv --reference models/tiny-sst2"
    )]
    Evaluate(Evaluate),
    /// Shows which layers' features tell entities apart, by linear probes
    #[command(
        after_help = "Example:\n  bertlet-convert probe minilm.bertlet --train train.iob2.tsv --dev dev.iob2.tsv"
    )]
    Probe(Probe),
}

#[derive(Args)]
pub struct Convert {
    /// Checkpoint folder, or a weights file with its config beside it
    #[arg(value_name = "SOURCE", required = true)]
    pub source: Option<PathBuf>,
    /// File to write [default: NAME.bertlet in the current folder]
    #[arg(short, long, value_name = "FILE.bertlet")]
    pub output: Option<PathBuf>,
    /// How matrices are stored
    #[arg(long, value_enum, default_value = "int8")]
    pub weights: WeightsArg,
    /// Text to calibrate int8 on, one a line [default: a built-in text of many scripts]
    #[arg(long, value_name = "FILE.txt")]
    pub calibration: Option<PathBuf>,
    /// Keep the fewest linear layers in f16 that bring the mean pooled cosine on held-out text to X
    #[arg(long, value_name = "X", value_parser = cosine)]
    pub min_cosine: Option<f64>,
    /// Names of the classifier's outputs [default: the checkpoint's]
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    pub labels: Option<Vec<String>>,
    /// Default pooling of the model [default: the checkpoint's, if it states one]
    #[arg(long, value_enum)]
    pub pooling: Option<PoolingArg>,
    /// L2-normalise pooled vectors by default
    #[arg(long)]
    pub normalize: bool,
    /// Write a page with every tensor and the error layer by layer, drawn
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// Print the report as JSON on stdout
    #[arg(long)]
    pub json: bool,
    /// Drop tensors whose names are unknown instead of stopping
    #[arg(long)]
    pub allow_unknown: bool,
    /// Threads [default: as many as the machine has]; the result does not depend on it
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub threads: usize,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum WeightsArg {
    Int8,
    F16,
    F32,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum PoolingArg {
    Cls,
    Mean,
    Max,
    Pooler,
}

#[derive(Args)]
pub struct Evaluate {
    /// Model file
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// What to score: entities (F1) or labels of texts (accuracy)
    #[arg(long, value_enum)]
    pub task: TaskArg,
    /// ner: a word and its IOB2 tag a line, empty lines between sentences; classify: a heading, then
    /// label TAB text
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Also score this checkpoint in f32
    #[arg(long, value_name = "SOURCE")]
    pub reference: Option<PathBuf>,
    /// Print the scores as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Probe {
    /// Model file; its weights stay as they are
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// What to train on: a word and its IOB2 tag a line, empty lines between sentences
    #[arg(long, value_name = "FILE")]
    pub train: PathBuf,
    /// What to score, in the same form
    #[arg(long, value_name = "FILE")]
    pub dev: PathBuf,
    /// Times that a probe sees every word
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    pub epochs: u32,
    /// Probes a row, whose mean is shown
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub seeds: u32,
    /// Print the table as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum TaskArg {
    Ner,
    Classify,
}

/// A cosine that one may ask for.
fn cosine(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x > 0.0 && x <= 1.0 => Ok(x),
        _ => Err("a cosine is a number above 0 and at most 1".into()),
    }
}

impl Convert {
    /// What the library wants to know.
    pub fn options(&self) -> ConvertOptions {
        ConvertOptions {
            weights: match self.weights {
                WeightsArg::Int8 => WeightType::Int8,
                WeightsArg::F16 => WeightType::F16,
                WeightsArg::F32 => WeightType::F32,
            },
            calibration: self.calibration.clone(),
            min_cosine: self.min_cosine,
            labels: self.labels.clone(),
            pooling: self.pooling.map(|pooling| match pooling {
                PoolingArg::Cls => bertlet::Pooling::Cls,
                PoolingArg::Mean => bertlet::Pooling::Mean,
                PoolingArg::Max => bertlet::Pooling::Max,
                PoolingArg::Pooler => bertlet::Pooling::Pooler,
            }),
            normalize: self.normalize,
            allow_unknown: self.allow_unknown,
            threads: self.threads,
        }
    }
}
