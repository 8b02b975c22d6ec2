//! The parameters of a BERT: names in every spelling, shapes, and the part each belongs to.

/// A size that the configuration states.
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
    /// The number of labels: as stated, or else the number of rows of the classifier.
    Labels,
    /// 2: start and end, or "is next" and "is not next".
    Two,
}

/// The part that a parameter belongs to. A checkpoint has all parameters of a part, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Embeddings and layers. Every checkpoint has them.
    Encoder,
    /// The tanh layer over `[CLS]`.
    Pooler,
    /// A classifier of tokens or of sequences.
    Classifier,
    /// Start and end of an answer.
    QuestionAnswering,
    /// The masked LM head, without the parameters that may be tied.
    MaskedLm,
    /// Parameters that a checkpoint with tied weights leaves out.
    Tied,
    /// Next sentence prediction.
    NextSentence,
}

/// One parameter, or with `{n}` one parameter per layer: its names and its shape.
#[derive(Debug)]
pub struct Parameter {
    /// The name in reports and errors. PyTorch's name is the same, after [`PREFIXES`] and [`SYNONYMS`].
    pub canonical: &'static str,
    /// TensorFlow's names. A name that ends in `/kernel` is a matrix `[inputs, outputs]`.
    pub tensorflow: &'static [&'static str],
    /// `[outputs, inputs]` of a matrix, `[outputs]` of a vector.
    pub shape: &'static [Dim],
    /// The part it belongs to.
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

/// Prefixes of a PyTorch name: of wrappers for training, and of the base model in a model with a head.
pub const PREFIXES: &[&str] =
    &["module.", "_orig_mod.", "model.", "auto_model.", "0.auto_model.", "bert."];

/// Suffixes from before 2019, and those of today.
pub const SYNONYMS: &[(&str, &str)] =
    &[("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")];

/// Keras' name of TensorFlow's `LayerNorm`. From the second on it is followed by `_1`, `_2`, ...
const KERAS_NORM: &str = "layer_normalization";

/// Tensors that are not weights, by name or (with a leading `/`) by the end of the name, and what they are.
pub const IGNORED: &[(&str, &str)] = &[
    ("embeddings.position_ids", "buffer with the numbers 0, 1, 2, ..."),
    ("embeddings.token_type_ids", "buffer of zeros"),
    ("global_step", "step counter of training"),
    ("good_steps", "counter of loss scaling in training"),
    ("bad_steps", "counter of loss scaling in training"),
    ("loss_scale", "state of loss scaling in training"),
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

/// The meaning of a tensor's name.
#[derive(Clone, Debug)]
pub enum Meaning {
    /// A parameter of the model.
    Parameter {
        /// Its row of [`PARAMETERS`].
        parameter: &'static Parameter,
        /// The layer, if the row stands for one parameter per layer.
        layer: Option<usize>,
        /// Whether the matrix is `[inputs, outputs]`.
        transposed: bool,
    },
    /// Not a weight, and what it is.
    Ignored(&'static str),
    /// No known name.
    Unknown,
}

/// Looks up a name.
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

/// A PyTorch name without prefixes and old suffixes.
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

/// A TensorFlow name with `LayerNorm` in place of Keras' numbered names.
fn tensorflow(name: &str) -> String {
    let part = |part| match str::strip_prefix(part, KERAS_NORM) {
        Some("") => "LayerNorm",
        Some(n) if n.starts_with('_') && n[1..].bytes().all(|b| b.is_ascii_digit()) => "LayerNorm",
        _ => part,
    };
    name.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// Matches a name with a pattern. The inner value is the layer, if the pattern has one.
fn matches(pattern: &str, name: &str) -> Option<Option<usize>> {
    let Some((before, after)) = pattern.split_once("{n}") else {
        return (pattern == name).then_some(None);
    };
    let number = name.strip_prefix(before)?.strip_suffix(after)?;
    let layer: usize = number.parse().ok()?;
    // "+1" and "01" parse, but are other names.
    (layer.to_string() == number).then_some(Some(layer))
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
    fn tensors_that_are_not_weights_are_ignored_with_a_reason() {
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
}
