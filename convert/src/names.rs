//! The names of BERT's parameters in every spelling, as a table.

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
}
