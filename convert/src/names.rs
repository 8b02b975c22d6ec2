//! The names of BERT's parameters, in every spelling, and the way from a checkpoint to a [`Bert`].

use std::collections::HashMap;
use std::fmt;

use crate::bert::{
    Bert, Config, Embeddings, Heads, Layer, LayerNorm, Linear, MaskedLm, Matrix, ProblemType,
};
use crate::error::{Error, Result};
use crate::source::{DType, ModelConfig, Source, TensorInfo};

/// A size that the configuration knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dim {
    /// `hidden_size`.
    Hidden,
    /// `intermediate_size`.
    Intermediate,
    /// `vocab_size`.
    Vocab,
    /// `max_position_embeddings`.
    Positions,
    /// `type_vocab_size`.
    TokenTypes,
    /// The number of labels: stated, or as many as the classifier has rows.
    Labels,
    /// Two: start and end, or "is next" and "is not".
    Two,
}

/// What a parameter belongs to. Of a part, a checkpoint has all parameters or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Embeddings and layers: never missing.
    Encoder,
    /// The tanh layer over `[CLS]`.
    Pooler,
    /// A classifier of tokens or of sequences.
    Classifier,
    /// Start and end of an answer.
    QuestionAnswering,
    /// The masked-word head, without what may be tied.
    MaskedLm,
    /// Copies that are left out where weights are tied.
    Tied,
    /// Next sentence prediction.
    NextSentence,
}

/// One parameter (or, with `{n}`, one a layer): its names and its shape.
#[derive(Debug)]
pub struct Parameter {
    /// The name used in reports and errors. It is also PyTorch's, once [`PREFIXES`] and
    /// [`SYNONYMS`] are dealt with.
    pub canonical: &'static str,
    /// TensorFlow's names; a name that ends in `/kernel` is a matrix `[inputs, outputs]`.
    pub tensorflow: &'static [&'static str],
    /// `[outputs, inputs]` of a matrix, `[outputs]` of a vector.
    pub shape: &'static [Dim],
    /// What it belongs to.
    pub part: Part,
}

const fn row(
    part: Part,
    canonical: &'static str,
    shape: &'static [Dim],
    tensorflow: &'static [&'static str],
) -> Parameter {
    Parameter { canonical, tensorflow, shape, part }
}

use Dim::{Hidden, Intermediate, Labels, Positions, TokenTypes, Two, Vocab};
use Part::{Classifier, Encoder, NextSentence, Pooler, QuestionAnswering, Tied};

/// Every parameter that a BERT may have.
#[rustfmt::skip]
pub const PARAMETERS: &[Parameter] = &[
    row(Encoder, "embeddings.word_embeddings.weight", &[Vocab, Hidden], &["bert/embeddings/word_embeddings"]),
    row(Encoder, "embeddings.position_embeddings.weight", &[Positions, Hidden], &["bert/embeddings/position_embeddings"]),
    row(Encoder, "embeddings.token_type_embeddings.weight", &[TokenTypes, Hidden], &["bert/embeddings/token_type_embeddings"]),
    row(Encoder, "embeddings.LayerNorm.weight", &[Hidden], &["bert/embeddings/LayerNorm/gamma"]),
    row(Encoder, "embeddings.LayerNorm.bias", &[Hidden], &["bert/embeddings/LayerNorm/beta"]),

    row(Encoder, "encoder.layer.{n}.attention.self.query.weight", &[Hidden, Hidden], &["bert/encoder/layer_{n}/attention/self/query/kernel"]),
    row(Encoder, "encoder.layer.{n}.attention.self.query.bias", &[Hidden], &["bert/encoder/layer_{n}/attention/self/query/bias"]),
    row(Encoder, "encoder.layer.{n}.attention.self.key.weight", &[Hidden, Hidden], &["bert/encoder/layer_{n}/attention/self/key/kernel"]),
    row(Encoder, "encoder.layer.{n}.attention.self.key.bias", &[Hidden], &["bert/encoder/layer_{n}/attention/self/key/bias"]),
    row(Encoder, "encoder.layer.{n}.attention.self.value.weight", &[Hidden, Hidden], &["bert/encoder/layer_{n}/attention/self/value/kernel"]),
    row(Encoder, "encoder.layer.{n}.attention.self.value.bias", &[Hidden], &["bert/encoder/layer_{n}/attention/self/value/bias"]),
    row(Encoder, "encoder.layer.{n}.attention.output.dense.weight", &[Hidden, Hidden], &["bert/encoder/layer_{n}/attention/output/dense/kernel"]),
    row(Encoder, "encoder.layer.{n}.attention.output.dense.bias", &[Hidden], &["bert/encoder/layer_{n}/attention/output/dense/bias"]),
    row(Encoder, "encoder.layer.{n}.attention.output.LayerNorm.weight", &[Hidden], &["bert/encoder/layer_{n}/attention/output/LayerNorm/gamma"]),
    row(Encoder, "encoder.layer.{n}.attention.output.LayerNorm.bias", &[Hidden], &["bert/encoder/layer_{n}/attention/output/LayerNorm/beta"]),
    row(Encoder, "encoder.layer.{n}.intermediate.dense.weight", &[Intermediate, Hidden], &["bert/encoder/layer_{n}/intermediate/dense/kernel"]),
    row(Encoder, "encoder.layer.{n}.intermediate.dense.bias", &[Intermediate], &["bert/encoder/layer_{n}/intermediate/dense/bias"]),
    row(Encoder, "encoder.layer.{n}.output.dense.weight", &[Hidden, Intermediate], &["bert/encoder/layer_{n}/output/dense/kernel"]),
    row(Encoder, "encoder.layer.{n}.output.dense.bias", &[Hidden], &["bert/encoder/layer_{n}/output/dense/bias"]),
    row(Encoder, "encoder.layer.{n}.output.LayerNorm.weight", &[Hidden], &["bert/encoder/layer_{n}/output/LayerNorm/gamma"]),
    row(Encoder, "encoder.layer.{n}.output.LayerNorm.bias", &[Hidden], &["bert/encoder/layer_{n}/output/LayerNorm/beta"]),

    row(Pooler, "pooler.dense.weight", &[Hidden, Hidden], &["bert/pooler/dense/kernel"]),
    row(Pooler, "pooler.dense.bias", &[Hidden], &["bert/pooler/dense/bias"]),

    // Google's run_classifier.py names its matrix "output_weights", [labels, hidden].
    row(Classifier, "classifier.weight", &[Labels, Hidden], &["output_weights"]),
    row(Classifier, "classifier.bias", &[Labels], &["output_bias"]),
    row(QuestionAnswering, "qa_outputs.weight", &[Two, Hidden], &["cls/squad/output_weights"]),
    row(QuestionAnswering, "qa_outputs.bias", &[Two], &["cls/squad/output_bias"]),

    row(Part::MaskedLm, "cls.predictions.transform.dense.weight", &[Hidden, Hidden], &["cls/predictions/transform/dense/kernel"]),
    row(Part::MaskedLm, "cls.predictions.transform.dense.bias", &[Hidden], &["cls/predictions/transform/dense/bias"]),
    row(Part::MaskedLm, "cls.predictions.transform.LayerNorm.weight", &[Hidden], &["cls/predictions/transform/LayerNorm/gamma"]),
    row(Part::MaskedLm, "cls.predictions.transform.LayerNorm.bias", &[Hidden], &["cls/predictions/transform/LayerNorm/beta"]),
    row(Part::MaskedLm, "cls.predictions.bias", &[Vocab], &["cls/predictions/output_bias"]),
    row(Tied, "cls.predictions.decoder.weight", &[Vocab, Hidden], &[]),
    row(Tied, "cls.predictions.decoder.bias", &[Vocab], &[]),
    row(NextSentence, "cls.seq_relationship.weight", &[Two, Hidden], &["cls/seq_relationship/output_weights"]),
    row(NextSentence, "cls.seq_relationship.bias", &[Two], &["cls/seq_relationship/output_bias"]),
];

/// What may stand before a PyTorch name: wrappers of training, and the name of the base model in
/// the models with a head.
pub const PREFIXES: &[&str] =
    &["module.", "_orig_mod.", "model.", "auto_model.", "0.auto_model.", "bert."];

/// Endings of before 2019, and what they are now.
pub const SYNONYMS: &[(&str, &str)] =
    &[("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")];

/// What Keras calls TensorFlow's `LayerNorm`, with `_1`, `_2`, ... behind it from the second on.
const KERAS_NORM: &str = "layer_normalization";

/// Tensors that are no weights, by their whole name or by its end, and why.
pub const IGNORED: &[(&str, &str)] = &[
    ("embeddings.position_ids", "buffer of the numbers 0, 1, 2, ..."),
    ("embeddings.token_type_ids", "buffer of zeros"),
    ("global_step", "step counter of the training"),
    ("good_steps", "counter of the training's loss scaling"),
    ("bad_steps", "counter of the training's loss scaling"),
    ("loss_scale", "state of the training's loss scaling"),
    ("beta1_power", "state of the optimiser"),
    ("beta2_power", "state of the optimiser"),
    ("/adam_m", "first moment of the optimiser"),
    ("/adam_v", "second moment of the optimiser"),
    ("/Adam", "first moment of the optimiser"),
    ("/Adam_1", "second moment of the optimiser"),
    ("/AdamWeightDecayOptimizer", "first moment of the optimiser"),
    ("/AdamWeightDecayOptimizer_1", "second moment of the optimiser"),
    ("/LAMBOptimizer", "first moment of the optimiser"),
    ("/LAMBOptimizer_1", "second moment of the optimiser"),
];

/// What a tensor's name means.
#[derive(Clone, Debug)]
pub enum Meaning {
    /// A parameter.
    Parameter {
        /// Its row of [`PARAMETERS`].
        parameter: &'static Parameter,
        /// Which layer, where the row is for every layer.
        layer: Option<usize>,
        /// Whether the matrix is `[inputs, outputs]`.
        transposed: bool,
    },
    /// Not a weight, and why.
    Ignored(&'static str),
    /// Neither.
    Unknown,
}

/// Looks a name up.
pub fn meaning(name: &str) -> Meaning {
    let plain = plain(name);
    let tensorflow = tensorflow(name);
    for parameter in PARAMETERS {
        let mut spellings = parameter
            .tensorflow
            .iter()
            .map(|pattern| (tensorflow.as_str(), *pattern))
            .chain([(plain.as_str(), parameter.canonical)]);
        let found = spellings.find_map(|(name, p)| Some((p, matches(p, name)?)));
        if let Some((pattern, layer)) = found {
            return Meaning::Parameter {
                parameter,
                layer,
                transposed: pattern.ends_with("/kernel"),
            };
        }
    }
    let ignored = IGNORED.iter().find(|(ignored, _)| {
        plain == *ignored || (ignored.starts_with('/') && name.ends_with(ignored))
    });
    match ignored {
        Some((_, reason)) => Meaning::Ignored(reason),
        None => Meaning::Unknown,
    }
}

/// A PyTorch name without prefixes and old endings.
fn plain(name: &str) -> String {
    let mut rest = name;
    while let Some(shorter) = PREFIXES.iter().find_map(|p| rest.strip_prefix(p)) {
        rest = shorter;
    }
    for (old, new) in SYNONYMS {
        if let Some(stem) = rest.strip_suffix(old) {
            return format!("{stem}{new}");
        }
    }
    rest.to_owned()
}

/// A TensorFlow name with `LayerNorm` wherever Keras counted its norms.
fn tensorflow(name: &str) -> String {
    let part = |part| match str::strip_prefix(part, KERAS_NORM) {
        Some("") => "LayerNorm",
        Some(n) if n.starts_with('_') && n[1..].bytes().all(|b| b.is_ascii_digit()) => "LayerNorm",
        _ => part,
    };
    name.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// Whether a name is an instance of a pattern, and of which layer.
fn matches(pattern: &str, name: &str) -> Option<Option<usize>> {
    let Some((before, after)) = pattern.split_once("{n}") else {
        return (pattern == name).then_some(None);
    };
    let number = name.strip_prefix(before)?.strip_suffix(after)?;
    let layer: usize = number.parse().ok()?;
    // "+1" and "01" parse, but are other names.
    (layer.to_string() == number).then_some(Some(layer))
}

/// What became of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is this parameter.
    Mapped(String),
    /// It is left out, for this reason.
    Dropped(String),
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mapped(canonical) => write!(f, "{canonical}"),
            Self::Dropped(reason) => write!(f, "dropped: {reason}"),
        }
    }
}

/// One tensor of the checkpoint and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorReport {
    /// Name as the checkpoint spells it.
    pub name: String,
    /// Type of the elements in the file.
    pub dtype: DType,
    /// Shape in the file.
    pub shape: Vec<usize>,
    /// What became of it.
    pub fate: Fate,
}

/// Fills a model from a checkpoint, and says what became of every tensor.
///
/// - Every shape must be what the configuration says, and every weight finite.
/// - A tensor of unknown name is an error, unless `allow_unknown`: then it is dropped.
/// - The encoder must be complete. The pooler and each head may be missing as a whole, except for
///   the head that an architecture `...Classification` or `...QuestionAnswering` is named after.
/// - `classifier.*` is a classifier of tokens or of sequences as the architecture says; without an
///   architecture, of sequences if there is a pooler or a `problem_type`, else of tokens.
/// - A decoder equal to the word embeddings is tied: it is dropped.
pub fn load(source: &Source, allow_unknown: bool) -> Result<(Bert, Vec<TensorReport>)> {
    let mut loader = Loader::new(source, allow_unknown)?;
    loader.check_vocabulary()?;
    loader.check_complete()?;
    loader.check_shapes()?;
    let bert = loader.bert()?;
    Ok((bert, loader.reports))
}

/// A parameter found in the checkpoint.
struct Found<'a> {
    info: &'a TensorInfo,
    parameter: &'static Parameter,
    transposed: bool,
    /// Its line of the report.
    report: usize,
}

struct Loader<'a> {
    source: &'a Source,
    config: &'a ModelConfig,
    found: HashMap<String, Found<'a>>,
    reports: Vec<TensorReport>,
}

/// How many names a message lists.
const LISTED: usize = 5;

fn list(names: &[String]) -> String {
    let first = names[..names.len().min(LISTED)].join(", ");
    match names.len().checked_sub(LISTED) {
        None | Some(0) => first,
        Some(more) => format!("{first} and {more} more"),
    }
}

impl<'a> Loader<'a> {
    /// Gives every tensor its meaning.
    fn new(source: &'a Source, allow_unknown: bool) -> Result<Self> {
        let mut loader =
            Self { source, config: &source.config, found: HashMap::new(), reports: Vec::new() };
        let mut unknown = Vec::new();
        for info in source.tensors() {
            let fate = match meaning(&info.name) {
                Meaning::Ignored(reason) => Fate::Dropped(reason.into()),
                Meaning::Parameter { layer: Some(n), .. }
                    if n >= loader.config.bert.num_hidden_layers =>
                {
                    unknown.push(info.name.clone());
                    Fate::Dropped("beyond the last layer of the configuration".into())
                }
                Meaning::Parameter { parameter, layer, transposed } => {
                    loader.map(info, parameter, layer, transposed)?
                }
                Meaning::Unknown => {
                    unknown.push(info.name.clone());
                    Fate::Dropped("unknown name".into())
                }
            };
            loader.reports.push(TensorReport {
                name: info.name.clone(),
                dtype: info.dtype.clone(),
                shape: info.shape.clone(),
                fate,
            });
        }
        if !unknown.is_empty() && !allow_unknown {
            return Err(Error::new(
                &source.weights,
                list(&unknown),
                "not a parameter of a BERT of this configuration",
            )
            .mend("leave it out of the checkpoint, or allow unknown tensors to be dropped"));
        }
        Ok(loader)
    }

    fn map(
        &mut self,
        info: &'a TensorInfo,
        parameter: &'static Parameter,
        layer: Option<usize>,
        transposed: bool,
    ) -> Result<Fate> {
        let canonical = match layer {
            Some(n) => parameter.canonical.replace("{n}", &n.to_string()),
            None => parameter.canonical.to_owned(),
        };
        let found = Found { info, parameter, transposed, report: self.reports.len() };
        if let Some(other) = self.found.insert(canonical.clone(), found) {
            return Err(info.error(format!("means the same as {}", other.info.name)));
        }
        Ok(Fate::Mapped(canonical))
    }

    fn has(&self, part: Part) -> bool {
        self.found.values().any(|f| f.parameter.part == part)
    }

    /// The embeddings may have more rows than the vocabulary, as padding, but not fewer.
    fn check_vocabulary(&self) -> Result<()> {
        let (tokens, rows) = (self.source.vocabulary.len(), self.config.bert.vocab_size);
        if tokens <= rows {
            return Ok(());
        }
        Err(Error::new(
            &self.config.file,
            "vocab_size",
            format!("{rows} is fewer than the {tokens} tokens of the vocabulary"),
        )
        .mend("use the vocabulary that the checkpoint was trained with"))
    }

    /// The parts that must be there, with all that belongs to them.
    fn check_complete(&self) -> Result<()> {
        let architecture = self.config.architecture.as_deref().unwrap_or_default();
        let mut wanted = vec![Encoder];
        if architecture.ends_with("Classification") {
            wanted.push(Classifier);
        }
        if architecture.ends_with("QuestionAnswering") {
            wanted.push(QuestionAnswering);
        }
        for part in [Pooler, Classifier, QuestionAnswering, Part::MaskedLm, NextSentence] {
            if self.has(part) && !wanted.contains(&part) {
                wanted.push(part);
            }
        }
        // A decoder alone is no head.
        if self.has(Tied) && !wanted.contains(&Part::MaskedLm) {
            wanted.push(Part::MaskedLm);
        }
        // These two read the pooler's output.
        let sequence = wanted.contains(&Classifier) && self.classifies_sequences();
        if (sequence || wanted.contains(&NextSentence)) && !wanted.contains(&Pooler) {
            wanted.push(Pooler);
        }

        let mut missing = Vec::new();
        for parameter in PARAMETERS.iter().filter(|p| wanted.contains(&p.part)) {
            let layers = match parameter.canonical.contains("{n}") {
                true => self.config.bert.num_hidden_layers,
                false => 1,
            };
            for n in 0..layers {
                let name = parameter.canonical.replace("{n}", &n.to_string());
                // The decoder's bias will do: it is the same parameter.
                let tied = name == "cls.predictions.bias"
                    && self.found.contains_key("cls.predictions.decoder.bias");
                if !self.found.contains_key(&name) && !tied {
                    missing.push(name);
                }
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::new(&self.source.weights, list(&missing), "missing from the checkpoint")
            .mend("check that the configuration belongs to these weights"))
    }

    /// Before anything is read, so that no memory is taken for what will not fit.
    fn check_shapes(&self) -> Result<()> {
        let mut all: Vec<_> = self.found.values().collect();
        all.sort_by_key(|f| f.report);
        for found in all {
            let shape = found.parameter.shape;
            let mut expected: Vec<_> = shape.iter().map(|&dim| self.size(dim)).collect();
            if found.transposed {
                expected.reverse();
            }
            if found.info.shape != expected {
                return Err(found
                    .info
                    .error(format!(
                        "has the shape {:?}, but {expected:?} is expected",
                        found.info.shape
                    ))
                    .mend(format!("compare with {}", self.config.file.display())));
            }
        }
        Ok(())
    }

    fn size(&self, dim: Dim) -> usize {
        let Config {
            hidden_size: hidden,
            intermediate_size: intermediate,
            vocab_size: vocab,
            max_position_embeddings: positions,
            type_vocab_size: token_types,
            ..
        } = self.config.bert;
        match dim {
            Hidden => hidden,
            Intermediate => intermediate,
            Vocab => vocab,
            Positions => positions,
            TokenTypes => token_types,
            Labels if !self.config.labels.is_empty() => self.config.labels.len(),
            // Nothing is stated, so the classifier says itself; its bias must agree.
            Labels => self
                .found
                .get("classifier.weight")
                .and_then(|f| f.info.shape.first().copied())
                .unwrap_or(0)
                .max(1),
            Two => 2,
        }
    }

    fn classifies_sequences(&self) -> bool {
        match self.config.architecture.as_deref() {
            Some(a) if a.ends_with("TokenClassification") => false,
            Some(a) if a.ends_with("SequenceClassification") => true,
            _ => self.has(Pooler) || self.config.problem.is_some(),
        }
    }

    /// The values of a parameter; `[outputs, inputs]` whatever the checkpoint has.
    fn read(&self, canonical: &str) -> Result<Vec<f32>> {
        let Some(found) = self.found.get(canonical) else {
            return Err(Error::new(&self.source.weights, canonical, "is missing"));
        };
        let info = found.info;
        let values = self.source.read_f32(&info.name)?;
        if let Some(i) = values.iter().position(|v| !v.is_finite()) {
            return Err(info
                .error(format!("element {i} is {}, which is not finite", values[i]))
                .mend("the checkpoint is damaged, or its training diverged"));
        }
        match info.shape.as_slice() {
            &[rows, cols] if found.transposed => Ok(transpose(&values, rows, cols)),
            _ => Ok(values),
        }
    }

    fn matrix(&self, canonical: &str) -> Result<Matrix> {
        let data = self.read(canonical)?;
        let found = &self.found[canonical];
        let [rows, cols] = found.parameter.shape else {
            return Err(found.info.error("is no matrix"));
        };
        Ok(Matrix { rows: self.size(*rows), cols: self.size(*cols), data })
    }

    fn linear(&self, stem: &str) -> Result<Linear> {
        Ok(Linear {
            weight: self.matrix(&format!("{stem}.weight"))?,
            bias: self.read(&format!("{stem}.bias"))?,
        })
    }

    fn norm(&self, stem: &str) -> Result<LayerNorm> {
        Ok(LayerNorm {
            weight: self.read(&format!("{stem}.weight"))?,
            bias: self.read(&format!("{stem}.bias"))?,
        })
    }

    fn linear_of(&self, part: Part, stem: &str) -> Result<Option<Linear>> {
        self.has(part).then(|| self.linear(stem)).transpose()
    }

    fn bert(&mut self) -> Result<Bert> {
        let config = self.config.bert;
        let embeddings = Embeddings {
            word: self.matrix("embeddings.word_embeddings.weight")?,
            position: self.matrix("embeddings.position_embeddings.weight")?,
            token_type: self.matrix("embeddings.token_type_embeddings.weight")?,
            norm: self.norm("embeddings.LayerNorm")?,
        };
        let layers = (0..config.num_hidden_layers).map(|n| self.layer(n)).collect::<Result<_>>()?;
        let pooler = self.linear_of(Pooler, "pooler.dense")?;
        let heads = self.heads(&embeddings.word)?;
        Ok(Bert { config, embeddings, layers, pooler, heads })
    }

    fn layer(&self, n: usize) -> Result<Layer> {
        let at = |rest: &str| format!("encoder.layer.{n}.{rest}");
        Ok(Layer {
            query: self.linear(&at("attention.self.query"))?,
            key: self.linear(&at("attention.self.key"))?,
            value: self.linear(&at("attention.self.value"))?,
            attention_output: self.linear(&at("attention.output.dense"))?,
            attention_norm: self.norm(&at("attention.output.LayerNorm"))?,
            intermediate: self.linear(&at("intermediate.dense"))?,
            output: self.linear(&at("output.dense"))?,
            output_norm: self.norm(&at("output.LayerNorm"))?,
        })
    }

    fn heads(&mut self, word: &Matrix) -> Result<Heads> {
        let mut heads = Heads {
            question_answering: self.linear_of(QuestionAnswering, "qa_outputs")?,
            next_sentence: self.linear_of(NextSentence, "cls.seq_relationship")?,
            ..Heads::default()
        };
        if let Some(classifier) = self.linear_of(Classifier, "classifier")? {
            if self.classifies_sequences() {
                // As the reference does: one output is a number.
                let default = match classifier.bias.len() {
                    1 => ProblemType::Regression,
                    _ => ProblemType::SingleLabel,
                };
                let problem = self.config.problem.unwrap_or(default);
                heads.sequence_classifier = Some((classifier, problem));
            } else {
                heads.token_classifier = Some(classifier);
            }
        }
        if self.has(Part::MaskedLm) {
            heads.masked_lm = Some(MaskedLm {
                transform: self.linear("cls.predictions.transform.dense")?,
                norm: self.norm("cls.predictions.transform.LayerNorm")?,
                decoder: self.decoder(word)?,
                bias: self.decoder_bias()?,
            });
        }
        Ok(heads)
    }

    /// The decoder, unless it is the table of word embeddings.
    fn decoder(&mut self, word: &Matrix) -> Result<Option<Matrix>> {
        let name = "cls.predictions.decoder.weight";
        if !self.found.contains_key(name) {
            return Ok(None);
        }
        let decoder = self.matrix(name)?;
        if !same_bits(&decoder.data, &word.data) {
            return Ok(Some(decoder));
        }
        self.drop(name, "tied: equal to the word embeddings, stored once");
        Ok(None)
    }

    /// `cls.predictions.bias`, of which PyTorch may store a second copy with the decoder.
    fn decoder_bias(&mut self) -> Result<Vec<f32>> {
        let (name, copy) = ("cls.predictions.bias", "cls.predictions.decoder.bias");
        if !self.found.contains_key(copy) {
            return self.read(name);
        }
        let bias = self.read(copy)?;
        if self.found.contains_key(name) {
            if !same_bits(&self.read(name)?, &bias) {
                return Err(self.found[copy].info.error(format!("differs from {name}")));
            }
            self.drop(copy, "tied: equal to cls.predictions.bias, stored once");
        }
        Ok(bias)
    }

    fn drop(&mut self, canonical: &str, reason: &str) {
        if let Some(found) = self.found.get(canonical) {
            self.reports[found.report].fate = Fate::Dropped(reason.into());
        }
    }
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

fn transpose(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for c in 0..cols {
        out.extend((0..rows).map(|r| values[r * cols + c]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Canonical name with the layer filled in, and whether it is transposed.
    fn known(name: &str) -> Option<(String, bool)> {
        match meaning(name) {
            Meaning::Parameter { parameter, layer, transposed } => {
                let n = layer.map_or(String::new(), |n| n.to_string());
                Some((parameter.canonical.replace("{n}", &n), transposed))
            }
            _ => None,
        }
    }

    #[test]
    fn every_spelling_is_known() {
        let query = "encoder.layer.11.attention.self.query.weight";
        for (name, canonical, transposed) in [
            (query, query, false),
            ("bert.encoder.layer.11.attention.self.query.weight", query, false),
            ("module.bert.encoder.layer.11.attention.self.query.weight", query, false),
            ("0.auto_model.encoder.layer.11.attention.self.query.weight", query, false),
            ("bert/encoder/layer_11/attention/self/query/kernel", query, true),
            ("bert.embeddings.LayerNorm.gamma", "embeddings.LayerNorm.weight", false),
            ("embeddings.LayerNorm.beta", "embeddings.LayerNorm.bias", false),
            ("bert/embeddings/LayerNorm/beta", "embeddings.LayerNorm.bias", false),
            ("bert/embeddings/layer_normalization/beta", "embeddings.LayerNorm.bias", false),
            (
                "bert/encoder/layer_3/output/layer_normalization_8/gamma",
                "encoder.layer.3.output.LayerNorm.weight",
                false,
            ),
            ("bert/embeddings/word_embeddings", "embeddings.word_embeddings.weight", false),
            ("bert/pooler/dense/kernel", "pooler.dense.weight", true),
            ("cls/predictions/output_bias", "cls.predictions.bias", false),
            (
                "cls.predictions.transform.LayerNorm.gamma",
                "cls.predictions.transform.LayerNorm.weight",
                false,
            ),
            ("cls/seq_relationship/output_weights", "cls.seq_relationship.weight", false),
            ("output_weights", "classifier.weight", false),
            ("output_bias", "classifier.bias", false),
            ("cls/squad/output_weights", "qa_outputs.weight", false),
            ("module.classifier.bias", "classifier.bias", false),
        ] {
            assert_eq!(known(name), Some((canonical.into(), transposed)), "{name}");
        }
    }

    #[test]
    fn every_row_knows_its_own_names() {
        for parameter in PARAMETERS {
            let names = parameter.tensorflow.iter().chain([&parameter.canonical]);
            for name in names {
                let name = name.replace("{n}", "3");
                let Meaning::Parameter { parameter: found, .. } = meaning(&name) else {
                    panic!("{name}");
                };
                assert_eq!(found.canonical, parameter.canonical, "{name}");
            }
        }
    }

    #[test]
    fn names_that_only_look_alike_are_unknown() {
        for name in [
            "",
            "bert",
            "bert.",
            "encoder.layer..attention.self.query.weight",
            "encoder.layer.01.attention.self.query.weight",
            "encoder.layer.+1.attention.self.query.weight",
            "encoder.layer.-1.attention.self.query.weight",
            "encoder.layer.99999999999999999999.attention.self.query.weight",
            "encoder.layer.1.crossattention.self.query.weight",
            "encoder.layer.1.attention.self.distance_embedding.weight",
            "bert/encoder/layer_0/attention/self/query/kernel/part_0",
            "roberta.embeddings.word_embeddings.weight",
            "word_embeddings.weight",
            "/adam_m.weight",
        ] {
            assert!(matches!(meaning(name), Meaning::Unknown), "{name}");
        }
    }

    #[test]
    fn what_is_no_weight_is_ignored_with_a_reason() {
        for name in [
            "bert.embeddings.position_ids",
            "embeddings.position_ids",
            "global_step",
            "bert/encoder/layer_0/output/dense/kernel/adam_m",
            "bert/encoder/layer_0/output/dense/kernel/adam_v",
            "output_weights/adam_v",
        ] {
            assert!(matches!(meaning(name), Meaning::Ignored(_)), "{name}");
        }
    }

    #[test]
    fn transposing_swaps_rows_and_columns() {
        assert_eq!(transpose(&[1., 2., 3., 4., 5., 6.], 2, 3), [1., 4., 2., 5., 3., 6.]);
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<_> = (0..7).map(|i| i.to_string()).collect();
        assert_eq!(list(&names[..5]), "0, 1, 2, 3, 4");
        assert_eq!(list(&names), "0, 1, 2, 3, 4 and 2 more");
    }
}
