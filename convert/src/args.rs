//! The command line.

use std::path::PathBuf;

use bertlet_convert::load::HeadChoice;
use bertlet_convert::{ConvertOptions, WeightType};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Converts BERT checkpoints (safetensors, PyTorch, TensorFlow) to bertlet's model files, and
/// measures the error that this causes.
#[derive(Parser)]
#[command(
    name = "bertlet-convert",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Example:\n  bertlet-convert all-MiniLM-L6-v2 -o minilm.bertlet --report minilm.html\n\n\
                  Exit status: 0 success, 1 failure (one line on stderr says why), 2 wrong usage."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub convert: Convert,
}

#[derive(Subcommand)]
pub enum Command {
    /// Converts the checkpoints that come with bertlet and runs them on a few texts
    #[command(after_help = "Example:\n  bertlet-convert demo")]
    Demo,
    /// Scores a model file on labelled data
    #[command(
        after_help = "Examples:\n  bertlet-convert evaluate ner.bertlet --task ner --data dev.iob2.tsv\n  \
                      bertlet-convert evaluate sst2.bertlet --task classify --data dev.tsv --reference models/tiny-sst2"
    )]
    Evaluate(Evaluate),
    /// Compares the features of the layers for entity recognition, with linear probes
    #[command(
        after_help = "Example:\n  bertlet-convert probe minilm.bertlet --train train.iob2.tsv --dev dev.iob2.tsv"
    )]
    Probe(Probe),
}

#[derive(Args)]
pub struct Convert {
    /// Checkpoint folder, or a weights file with its config.json in the same folder
    #[arg(value_name = "SOURCE", required = true)]
    pub source: Option<PathBuf>,
    /// File to write, - for stdout [default: NAME.bertlet in the current folder]
    #[arg(short, long, value_name = "FILE.bertlet")]
    pub output: Option<PathBuf>,
    /// Type of the stored weights
    #[arg(long, value_enum, default_value = "int8")]
    pub weights: WeightsArg,
    /// Texts to calibrate int8 on, one per line [default: built-in texts in many scripts]
    #[arg(long, value_name = "FILE.txt")]
    pub calibration: Option<PathBuf>,
    /// Keep only the pieces of the vocabulary that these texts and the prompts need, one text per line, and all
    /// single characters; a line may also be a piece, such as ##ing
    #[arg(long, value_name = "FILE.txt")]
    pub keep_vocabulary: Option<PathBuf>,
    /// Keep as few linear layers in f16 as needed for a mean pooled cosine of X on held-out text
    #[arg(long, value_name = "X", value_parser = cosine)]
    pub min_cosine: Option<f64>,
    /// Labels of the classifier, in the order of its outputs [default: the checkpoint's]
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    pub labels: Option<Vec<String>>,
    /// Default pooling of the model [default: the checkpoint's, if it has one]
    #[arg(long, value_enum)]
    pub pooling: Option<PoolingArg>,
    /// L2-normalise pooled vectors by default
    #[arg(long)]
    pub normalize: bool,
    /// Write a report as a web page: every tensor, and the error of every layer as a chart
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// Print the report as JSON on stdout
    #[arg(long)]
    pub json: bool,
    /// Head of a checkpoint whose config.json names no known architecture
    #[arg(long, value_enum)]
    pub head: Option<HeadArg>,
    /// Drop what a model file cannot hold instead of failing: tensors with unknown names, modules of
    /// sentence-transformers
    #[arg(long)]
    pub allow_unknown: bool,
    /// Number of threads [default: one per core]; the result does not depend on it
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
pub enum HeadArg {
    /// A classifier of tokens
    Token,
    /// A classifier of texts
    Sequence,
    MaskedLm,
    NextSentence,
    QuestionAnswering,
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
    /// What to score: entities (F1) or classes of texts (accuracy)
    #[arg(long, value_enum)]
    pub task: TaskArg,
    /// ner: one word and its tag per line, an empty line between sentences; classify: one label TAB text per
    /// line, the first line may be a heading
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
    /// Model file; its weights are not changed
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Training data: one word and its IOB2 tag per line, an empty line between sentences
    #[arg(long, value_name = "FILE")]
    pub train: PathBuf,
    /// Data to score on, in the same format
    #[arg(long, value_name = "FILE")]
    pub dev: PathBuf,
    /// Number of training epochs
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    pub epochs: u32,
    /// Number of probes per row; the table shows their mean
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

/// Parses the value of `--min-cosine`.
fn cosine(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x > 0.0 && x <= 1.0 => Ok(x),
        _ => Err("the cosine must be greater than 0 and at most 1".into()),
    }
}

impl Convert {
    /// The options of the library.
    pub fn options(&self) -> ConvertOptions {
        ConvertOptions {
            weights: match self.weights {
                WeightsArg::Int8 => WeightType::Int8,
                WeightsArg::F16 => WeightType::F16,
                WeightsArg::F32 => WeightType::F32,
            },
            calibration: self.calibration.clone(),
            keep_vocabulary: self.keep_vocabulary.clone(),
            min_cosine: self.min_cosine,
            labels: self.labels.clone(),
            pooling: self.pooling.map(|pooling| match pooling {
                PoolingArg::Cls => bertlet::Pooling::Cls,
                PoolingArg::Mean => bertlet::Pooling::Mean,
                PoolingArg::Max => bertlet::Pooling::Max,
                PoolingArg::Pooler => bertlet::Pooling::Pooler,
            }),
            normalize: self.normalize,
            head: self.head.map(|head| match head {
                HeadArg::Token => HeadChoice::Token,
                HeadArg::Sequence => HeadChoice::Sequence,
                HeadArg::MaskedLm => HeadChoice::MaskedLm,
                HeadArg::NextSentence => HeadChoice::NextSentence,
                HeadArg::QuestionAnswering => HeadChoice::QuestionAnswering,
            }),
            allow_unknown: self.allow_unknown,
            threads: self.threads,
        }
    }
}
