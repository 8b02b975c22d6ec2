//! Fills a [`Bert`] with the tensors of a checkpoint.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::bert::{
    Bert, Config, Embeddings, Layer, LayerNorm, Linear, MaskedLm, Matrix, ProblemType, TaskHeads,
};
use crate::error::{Error, Result};
use crate::names::Dim::{Hidden, Intermediate, Labels, Positions, TokenTypes, Two, Vocab};
use crate::names::Part::{Classifier, Encoder, NextSentence, Pooler, QuestionAnswering, Tied};
use crate::names::{Dim, Meaning, PARAMETERS, Parameter, Part, meaning};
use crate::pipeline::WeightType;
use crate::source::{Checkpoint, DType, ModelConfig, TensorInfo};

/// What the converter did with a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is the parameter of this name.
    Mapped(String),
    /// It was left out, for this reason.
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

/// One tensor of the checkpoint and its fate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorReport {
    /// Name in the checkpoint.
    pub name: String,
    /// Type of the elements in the file.
    pub dtype: DType,
    /// Shape in the file.
    pub shape: Vec<usize>,
    /// What the converter did with it.
    pub fate: Fate,
}

/// A head that a checkpoint may have: the value of `--head`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadChoice {
    /// `classifier.*` classifies tokens.
    Token,
    /// `classifier.*` classifies texts.
    Sequence,
    /// Masked LM.
    MaskedLm,
    /// Next sentence prediction.
    NextSentence,
    /// Question answering.
    QuestionAnswering,
}

impl HeadChoice {
    /// The part that holds its parameters.
    const fn part(self) -> Part {
        match self {
            Self::Token | Self::Sequence => Classifier,
            Self::MaskedLm => Part::MaskedLm,
            Self::NextSentence => NextSentence,
            Self::QuestionAnswering => QuestionAnswering,
        }
    }

    /// The head that an architecture names.
    fn of_architecture(name: &str) -> Option<Self> {
        [
            ("TokenClassification", Self::Token),
            ("SequenceClassification", Self::Sequence),
            // One logit per choice, from the pooler.
            ("MultipleChoice", Self::Sequence),
            ("QuestionAnswering", Self::QuestionAnswering),
        ]
        .into_iter()
        .find_map(|(end, head)| name.ends_with(end).then_some(head))
    }
}

/// How to load a checkpoint.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// Drop tensors with unknown names instead of failing.
    pub allow_unknown: bool,
    /// The head that the checkpoint has, whatever its architecture says.
    pub head: Option<HeadChoice>,
    /// The type that the weights will be stored in. Weights that it cannot hold are refused.
    pub weights: Option<WeightType>,
}

/// A loaded checkpoint.
#[derive(Debug)]
pub struct Loaded {
    /// The model.
    pub bert: Bert,
    /// The fate of every tensor.
    pub tensors: Vec<TensorReport>,
    /// Remarks for the user.
    pub notes: Vec<String>,
}

/// [`load`] with the default options but for `allow_unknown`; the model and the fate of every tensor.
pub fn bert(source: &Checkpoint, allow_unknown: bool) -> Result<(Bert, Vec<TensorReport>)> {
    let loaded = load(source, &LoadOptions { allow_unknown, ..LoadOptions::default() })?;
    Ok((loaded.bert, loaded.tensors))
}

/// Builds a model from a checkpoint, and reports the fate of every tensor.
///
/// - Every shape must match the configuration, and every weight must be finite.
/// - A tensor with an unknown name is an error. With `allow_unknown` it is dropped.
/// - The encoder must be complete. The pooler and each head may be missing as a whole, except the head
///   after which an architecture `...Classification` or `...QuestionAnswering` is named.
/// - The option or the architecture says whether `classifier.*` classifies tokens or sequences. Without either
///   it classifies tokens if there is no pooler, and sequences if there is a `problem_type` or Google's name for
///   it. Otherwise nothing tells, and it is an error.
/// - With `tie_word_embeddings`, the default, the decoder is the word embeddings, as in transformers. A stored
///   decoder is dropped, with a note if it differs.
pub fn load(source: &Checkpoint, options: &LoadOptions) -> Result<Loaded> {
    let mut loader = Loader::new(source, *options)?;
    loader.check_vocabulary()?;
    loader.choose_head()?;
    loader.check_complete()?;
    loader.check_shapes()?;
    let bert = loader.bert()?;
    Ok(Loaded { bert, tensors: loader.reports, notes: loader.notes.into_inner() })
}

/// A parameter found in the checkpoint.
struct FoundTensor<'a> {
    info: &'a TensorInfo,
    parameter: &'static Parameter,
    transposed: bool,
    /// Index of its report.
    report: usize,
}

struct Loader<'a> {
    source: &'a Checkpoint,
    config: &'a ModelConfig,
    options: LoadOptions,
    found: HashMap<String, FoundTensor<'a>>,
    reports: Vec<TensorReport>,
    notes: RefCell<Vec<String>>,
    /// What `classifier.*` classifies.
    sequences: bool,
}

/// The largest f16.
const F16_LARGEST: f32 = 65504.0;
/// The smallest f16 of full precision.
const F16_SMALLEST: f32 = 1.0 / 16384.0;
/// No weight is larger: its square would overflow, and with it the norm of a row.
const LARGEST: f32 = 1e18;

/// Number of names that a message lists at most.
const LISTED: usize = 5;

fn list(names: &[String]) -> String {
    let first = names[..names.len().min(LISTED)].join(", ");
    match names.len().checked_sub(LISTED) {
        None | Some(0) => first,
        Some(more) => format!("{first} and {more} more"),
    }
}

impl<'a> Loader<'a> {
    /// Looks up the meaning of every tensor.
    fn new(source: &'a Checkpoint, options: LoadOptions) -> Result<Self> {
        let mut loader = Self {
            source,
            config: &source.config,
            options,
            found: HashMap::new(),
            reports: Vec::new(),
            notes: RefCell::default(),
            sequences: false,
        };
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
        if unknown.is_empty() || options.allow_unknown && !loader.found.is_empty() {
            return Ok(loader);
        }
        let problem = "not a parameter of a BERT with this configuration";
        let error = Error::new(&source.weights, list(&unknown), problem);
        Err(match prefix_of(&unknown) {
            Some((prefix, count)) => error.hint(format!(
                "{count} of {} names are those of a BERT after {prefix:?}: save the weights without it, as \
                 {{k.removeprefix({prefix:?}): v for k, v in weights.items()}}",
                unknown.len()
            )),
            None => error.hint("remove it from the checkpoint, or drop it with --allow-unknown"),
        })
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
        let found = FoundTensor { info, parameter, transposed, report: self.reports.len() };
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
        .hint("use the vocabulary that the checkpoint was trained with"))
    }

    /// Decides what `classifier.*` classifies. What the head of the options leaves no use for is dropped.
    fn choose_head(&mut self) -> Result<()> {
        let architecture = self.config.architecture.as_deref().unwrap_or_default();
        let stated = HeadChoice::of_architecture(architecture);
        if let (Some(head), Some(stated)) = (self.options.head, stated)
            && head != stated
        {
            let note = format!("config.json: architectures is {architecture}; --head overrides it");
            self.notes.borrow_mut().push(note);
        }
        let head = self.options.head.or(stated);
        self.sequences = match head {
            Some(HeadChoice::Token) => false,
            Some(HeadChoice::Sequence) => true,
            Some(other) if self.options.head.is_some() => {
                for name in ["classifier.weight", "classifier.bias"] {
                    self.drop(name, &format!("--head names another head: {other:?}"));
                    self.found.remove(name);
                }
                false
            }
            _ if !self.has(Classifier) => false,
            _ if !self.has(Pooler) => false,
            _ if self.config.problem.is_some() => true,
            // The name in Google's run_classifier.py.
            _ if self.found["classifier.weight"].info.name == "output_weights" => true,
            _ => {
                let problem = match architecture {
                    "" => "says nothing of classifier.weight: tokens or texts?".to_owned(),
                    other => format!("{other:?} does not say what classifier.weight classifies"),
                };
                return Err(Error::new(&self.config.file, "architectures", problem).hint(
                    "give --head token if it labels each token, or --head sequence if it labels the text",
                ));
            }
        };
        Ok(())
    }

    /// The parts that must be there, with all that belongs to them.
    fn check_complete(&self) -> Result<()> {
        let architecture = self.config.architecture.as_deref().unwrap_or_default();
        let architecture = if self.options.head.is_some() { "" } else { architecture };
        let mut wanted = vec![Encoder];
        wanted.extend(self.options.head.map(HeadChoice::part));
        if architecture.ends_with("Classification") {
            wanted.push(Classifier);
        }
        if architecture.ends_with("QuestionAnswering") {
            wanted.push(QuestionAnswering);
        }
        let decoder = "cls.predictions.decoder.weight";
        for part in [Pooler, Classifier, QuestionAnswering, Part::MaskedLm, NextSentence] {
            if self.has(part) && !wanted.contains(&part) {
                wanted.push(part);
            }
        }
        // A decoder alone is not a head.
        if self.has(Tied) && !wanted.contains(&Part::MaskedLm) {
            wanted.push(Part::MaskedLm);
        }
        // These two read the pooler's output.
        let sequence = wanted.contains(&Classifier) && self.sequences;
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
                // The decoder's bias is the same parameter.
                let tied = name == "cls.predictions.bias"
                    && self.found.contains_key("cls.predictions.decoder.bias");
                if !self.found.contains_key(&name) && !tied {
                    missing.push(name);
                }
            }
        }
        let untied = !self.config.tied && wanted.contains(&Part::MaskedLm);
        if untied && !self.found.contains_key(decoder) {
            missing.push(decoder.to_owned());
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::new(&self.source.weights, list(&missing), "missing from the checkpoint")
            .hint("check that the configuration and the weights belong together"))
    }

    /// Checks all shapes before any element is read, so that a wrong shape costs no memory.
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
                    .hint(format!("compare with {}", self.config.file.display())));
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
            // Not stated: the number of rows of the classifier. Its bias must agree.
            Labels => self
                .found
                .get("classifier.weight")
                .and_then(|f| f.info.shape.first().copied())
                .unwrap_or(0)
                .max(1),
            Two => 2,
        }
    }

    /// The values of a parameter, `[outputs, inputs]` even where the checkpoint has `[inputs, outputs]`.
    fn read(&self, canonical: &str) -> Result<Vec<f32>> {
        let Some(found) = self.found.get(canonical) else {
            return Err(Error::new(&self.source.weights, canonical, "is missing"));
        };
        let info = found.info;
        let values = self.source.read_f32(&info.name)?;
        if let Some(i) = values.iter().position(|v| !v.is_finite()) {
            return Err(info
                .error(format!("element {i} is {}, which is not finite", values[i]))
                .hint("the checkpoint is damaged, or its training diverged"));
        }
        self.check_range(canonical, found, &values)?;
        match info.shape.as_slice() {
            &[rows, cols] if found.transposed => transpose(&values, rows, cols).ok_or_else(|| {
                info.error(format!("not enough memory for {} values", values.len()))
            }),
            _ => Ok(values),
        }
    }

    /// Refuses values that overflow: in the type that they will be stored in, or in sums of f32.
    fn check_range(&self, canonical: &str, found: &FoundTensor<'_>, values: &[f32]) -> Result<()> {
        let matrix = found.parameter.shape.len() == 2;
        // Logits may be anything, but no other value can be so large.
        let logit =
            matches!(found.parameter.part, Classifier | QuestionAnswering | NextSentence | Tied)
                || canonical == "cls.predictions.bias";
        let words = canonical == "embeddings.word_embeddings.weight";
        let in_layer = found.parameter.canonical.contains("{n}");
        let (largest, smallest, why) = match self.options.weights {
            // One f16 scale per group of an int8 table.
            Some(WeightType::Int8) if words => (
                127.0 * F16_LARGEST,
                0.125 * F16_SMALLEST * 127.0,
                "the f16 scales of its int8 table",
            ),
            Some(WeightType::Int8) if matrix && !in_layer => (F16_LARGEST, F16_SMALLEST, "f16"),
            Some(WeightType::F16) if matrix => (F16_LARGEST, F16_SMALLEST, "f16"),
            _ if logit && !matrix => (f32::MAX, 0.0, "f32"),
            _ => (LARGEST, 0.0, "sums of f32"),
        };
        if let Some(i) = values.iter().position(|v| v.abs() > largest) {
            let (largest, why, hint) = match values[i].abs() > LARGEST {
                true => {
                    (LARGEST, "sums of f32", "the checkpoint is damaged, or its training diverged")
                }
                false => (largest, why, "convert with --weights f32"),
            };
            let problem = format!(
                "element {i} is {:e}, too large for {why}: the limit is {largest:e}",
                values[i]
            );
            return Err(found.info.error(problem).hint(hint));
        }
        let most = values.iter().fold(0f32, |most, v| most.max(v.abs()));
        if most > 0.0 && most < smallest {
            self.notes.borrow_mut().push(format!(
                "{}: its largest value is {most:e}, too small for the full precision of {why}; --weights f32 \
                 keeps it",
                found.info.name
            ));
        }
        Ok(())
    }

    fn matrix(&self, canonical: &str) -> Result<Matrix> {
        let data = self.read(canonical)?;
        let found = &self.found[canonical];
        let [rows, cols] = found.parameter.shape else {
            return Err(found.info.error("is not a matrix"));
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

    fn heads(&mut self, word: &Matrix) -> Result<TaskHeads> {
        let mut heads = TaskHeads {
            question_answering: self.linear_of(QuestionAnswering, "qa_outputs")?,
            next_sentence: self.linear_of(NextSentence, "cls.seq_relationship")?,
            ..TaskHeads::default()
        };
        if let Some(classifier) = self.linear_of(Classifier, "classifier")? {
            if self.sequences {
                // One output is a regression, as in transformers.
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

    /// The decoder; `None` if it is tied to the word embeddings.
    fn decoder(&mut self, word: &Matrix) -> Result<Option<Matrix>> {
        let name = "cls.predictions.decoder.weight";
        if !self.found.contains_key(name) {
            return Ok(None);
        }
        let decoder = self.matrix(name)?;
        if same_bits(&decoder.data, &word.data) {
            self.drop(name, "tied: equal to the word embeddings, stored once");
            return Ok(None);
        }
        if !self.config.tied {
            return Ok(Some(decoder));
        }
        self.drop(name, "tied: tie_word_embeddings replaces it by the word embeddings");
        self.notes.borrow_mut().push(format!(
            "{}: differs from the word embeddings and is not used, as in transformers: tie_word_embeddings is \
             true, which is the default; set it to false in config.json to use it",
            self.found[name].info.name
        ));
        Ok(None)
    }

    /// `cls.predictions.bias`. PyTorch may store a copy with the decoder.
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

/// `None` without enough memory.
fn transpose(values: &[f32], rows: usize, cols: usize) -> Option<Vec<f32>> {
    let mut out = Vec::new();
    out.try_reserve_exact(values.len()).ok()?;
    for c in 0..cols {
        out.extend((0..rows).map(|r| values[r * cols + c]));
    }
    Some(out)
}

/// What most of `names` have before the name of a parameter, and how many.
fn prefix_of(names: &[String]) -> Option<(&str, usize)> {
    let mut prefixes = BTreeMap::new();
    for name in names {
        let ends = name.match_indices(['.', '/']).map(|(at, _)| at + 1);
        let known = |at: &usize| matches!(meaning(&name[*at..]), Meaning::Parameter { .. });
        if let Some(at) = { ends }.find(known) {
            *prefixes.entry(&name[..at]).or_insert(0) += 1;
        }
    }
    let most = prefixes.into_iter().max_by_key(|(_, count)| *count);
    most.filter(|(_, count)| *count > 1 && 2 * count > names.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_swaps_rows_and_columns() {
        let turned = transpose(&[1., 2., 3., 4., 5., 6.], 2, 3).unwrap();
        assert_eq!(turned, [1., 4., 2., 5., 3., 6.]);
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<_> = (0..7).map(|i| i.to_string()).collect();
        assert_eq!(list(&names[..5]), "0, 1, 2, 3, 4");
        assert_eq!(list(&names), "0, 1, 2, 3, 4 and 2 more");
    }
}
