//! `config.json` and Google's `bert_config.json`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::bert::{Activation, Attention, Config, ProblemType};
use crate::error::{Error, Result};

/// Most labels of a classifier.
const MAX_LABELS: usize = 1 << 16;

/// The configuration of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The file it was read from.
    pub file: PathBuf,
    /// The shape of the encoder.
    pub bert: Config,
    /// The first entry of `architectures`, such as `BertForTokenClassification`.
    pub architecture: Option<String>,
    /// Labels in the order of their ids. Empty if the file has none.
    pub labels: Vec<String>,
    /// `problem_type`, if the file has it.
    pub problem: Option<ProblemType>,
    /// `tie_word_embeddings`, true by default: the decoder of the masked LM is the word embeddings.
    pub tied: bool,
}

impl ModelConfig {
    /// Labels for a classifier with `n` outputs. Labels that the file does not have are `LABEL_i`.
    pub fn labels(&self, n: usize) -> Vec<String> {
        let name = |i| self.labels.get(i).cloned().unwrap_or_else(|| format!("LABEL_{i}"));
        (0..n).map(name).collect()
    }
}

/// Checks that no two labels have the same name: answers are told apart by it. `field` is where the names
/// are from.
pub(crate) fn check_distinct(file: &Path, field: &str, labels: &[String]) -> Result<()> {
    let mut seen = HashMap::new();
    for (i, label) in labels.iter().enumerate() {
        if let Some(first) = seen.insert(label, i) {
            return Err(Error::new(file, field, format!("{first} and {i} are both {label:?}"))
                .hint("give each label a name of its own, here or with --labels A,B,C"));
        }
    }
    Ok(())
}

/// Checks and reads a configuration.
pub(super) fn parse(file: &Path, json: &Value) -> Result<ModelConfig> {
    let fields = Fields { file, json };
    if !json.is_object() {
        return Err(Error::new(file, "", "is not a JSON object"));
    }
    fields.refuse_other_models()?;
    let bert = Config {
        hidden_size: fields.size("hidden_size", 1 << 16, None)?,
        num_hidden_layers: fields.size("num_hidden_layers", 1 << 10, None)?,
        num_attention_heads: fields.size("num_attention_heads", 1 << 10, None)?,
        intermediate_size: fields.size("intermediate_size", 1 << 20, None)?,
        vocab_size: fields.size("vocab_size", 1 << 24, None)?,
        max_position_embeddings: fields.size("max_position_embeddings", 1 << 20, None)?,
        type_vocab_size: fields.size("type_vocab_size", 1 << 16, Some(2))?,
        layer_norm_eps: fields.eps()?,
        hidden_act: fields.activation()?,
        attention: Attention::Float,
    };
    if !bert.hidden_size.is_multiple_of(bert.num_attention_heads) {
        return Err(fields.error(
            "num_attention_heads",
            format!(
                "{} does not divide hidden_size {}",
                bert.num_attention_heads, bert.hidden_size
            ),
        ));
    }
    Ok(ModelConfig {
        file: file.to_owned(),
        bert,
        architecture: json["architectures"][0].as_str().map(str::to_owned),
        labels: fields.labels()?,
        problem: fields.problem()?,
        tied: fields.flag("tie_word_embeddings")?.unwrap_or(true),
    })
}

struct Fields<'a> {
    file: &'a Path,
    json: &'a Value,
}

impl Fields<'_> {
    fn error(&self, field: &str, problem: impl std::fmt::Display) -> Error {
        Error::new(self.file, field, problem)
    }

    /// The string at `key`. `None` if it is absent or null.
    fn text(&self, key: &str) -> Result<Option<&str>> {
        match &self.json[key] {
            Value::Null => Ok(None),
            Value::String(s) => Ok(Some(s)),
            other => Err(self.error(key, format!("{other} is not a string"))),
        }
    }

    /// The truth value at `key`. `None` if it is absent or null.
    fn flag(&self, key: &str) -> Result<Option<bool>> {
        match &self.json[key] {
            Value::Null => Ok(None),
            Value::Bool(b) => Ok(Some(*b)),
            other => Err(self.error(key, format!("{other} is not true or false"))),
        }
    }

    /// Refuses models that are not plain BERT encoders: they would load and give wrong numbers.
    fn refuse_other_models(&self) -> Result<()> {
        let only = |key, allowed: &str| match self.text(key)? {
            Some(other) if other != allowed => Err(self
                .error(key, format!("{other:?} is not supported"))
                .hint(format!("only {allowed:?} is supported"))),
            _ => Ok(()),
        };
        only("model_type", "bert")?;
        only("position_embedding_type", "absolute")?;
        for key in ["is_decoder", "add_cross_attention", "is_encoder_decoder"] {
            if self.json[key] == Value::Bool(true) {
                return Err(self
                    .error(key, "true is not supported")
                    .hint("only encoders are supported"));
            }
        }
        if !self.json["quantization_config"].is_null() {
            let method = self.json["quantization_config"]["quant_method"].as_str();
            let problem =
                format!("the weights are quantised ({})", method.unwrap_or("unnamed method"));
            return Err(self
                .error("quantization_config", problem)
                .hint("convert the checkpoint that it was made from"));
        }
        Ok(())
    }

    fn size(&self, key: &str, max: usize, default: Option<usize>) -> Result<usize> {
        let value = match (&self.json[key], default) {
            (Value::Null, Some(default)) => return Ok(default),
            (Value::Null, None) => return Err(self.error(key, "is missing")),
            (value, _) => value,
        };
        value
            .as_u64()
            .and_then(|v| usize::try_from(v).ok())
            .filter(|v| (1..=max).contains(v))
            .ok_or_else(|| self.error(key, format!("{value} is not between 1 and {max}")))
    }

    fn eps(&self) -> Result<f32> {
        let value = match &self.json["layer_norm_eps"] {
            // Google's configurations do not have the key. This is the constant of Google's code.
            Value::Null => return Ok(1e-12),
            value => value,
        };
        value
            .as_f64()
            .map(|eps| eps as f32)
            .filter(|eps| *eps > 0.0 && *eps < 1.0)
            .ok_or_else(|| self.error("layer_norm_eps", format!("{value} is not between 0 and 1")))
    }

    fn activation(&self) -> Result<Activation> {
        let name = match self.text("hidden_act")?.unwrap_or("gelu") {
            // Other spellings of the same formulas, in transformers' ACT2FN.
            "gelu_python" => Activation::Gelu.name(),
            "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_fast" | "gelu_accurate" => {
                Activation::GeluTanh.name()
            }
            "swish" => Activation::Silu.name(),
            name => name,
        };
        let found = Activation::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, activation)| *activation).ok_or_else(|| {
            self.error("hidden_act", format!("{name:?} is not supported")).hint(
                "supported are gelu, gelu_python, gelu_new, gelu_pytorch_tanh, gelu_python_tanh, gelu_fast, \
                 gelu_accurate, relu, silu, swish and tanh",
            )
        })
    }

    fn problem(&self) -> Result<Option<ProblemType>> {
        Ok(match self.text("problem_type")? {
            None => None,
            Some("single_label_classification") => Some(ProblemType::SingleLabel),
            Some("multi_label_classification") => Some(ProblemType::MultiLabel),
            Some("regression") => Some(ProblemType::Regression),
            Some(other) => {
                return Err(self
                    .error("problem_type", format!("{other:?} is unknown"))
                    .hint("it may be single_label_classification, multi_label_classification or regression"));
            }
        })
    }

    /// `id2label` (an object with ids as keys, or a list), else `label2id`, else `num_labels`.
    fn labels(&self) -> Result<Vec<String>> {
        let mut named = Vec::new();
        let bad = |key: &str, what: &dyn std::fmt::Display| {
            self.error(key, format!("{what} is not an id with a label"))
        };
        let text = |v: &Value| match v {
            Value::String(s) => Some(s.clone()),
            Value::Number(n) => Some(n.to_string()),
            _ => None,
        };
        for (key, list) in [("id2label", true), ("label2id", false)] {
            let value = &self.json[key];
            if !(value.is_null() || value.is_object() || list && value.is_array()) {
                return Err(self.error(key, format!("{value} is not an object of labels")));
            }
        }
        if let Some(map) = self.json["id2label"].as_object() {
            for (id, label) in map {
                let entry = id.parse::<usize>().ok().zip(text(label));
                named.push(entry.ok_or_else(|| bad("id2label", id))?);
            }
        } else if let Some(list) = self.json["id2label"].as_array() {
            for (id, label) in list.iter().enumerate() {
                named.push((id, text(label).ok_or_else(|| bad("id2label", label))?));
            }
        } else if let Some(map) = self.json["label2id"].as_object() {
            for (label, id) in map {
                let id = id.as_u64().and_then(|id| usize::try_from(id).ok());
                named.push((id.ok_or_else(|| bad("label2id", label))?, label.clone()));
            }
        }
        if !named.is_empty() && named.iter().all(|(id, _)| *id > 0) {
            let key = if self.json["id2label"].is_null() { "label2id" } else { "id2label" };
            return Err(self
                .error(key, "no label has the id 0, but the outputs of a classifier count from 0")
                .hint("number the labels from 0"));
        }
        let stated = match &self.json["num_labels"] {
            Value::Null => 0,
            _ => self.size("num_labels", MAX_LABELS, None)?,
        };
        let highest = named.iter().map(|(id, _)| *id).max();
        let count = highest.map_or(0, |id| id.saturating_add(1)).max(stated);
        if count > MAX_LABELS {
            return Err(self.error("id2label", format!("more than {MAX_LABELS} labels")));
        }
        let mut labels: Vec<_> = (0..count).map(|i| format!("LABEL_{i}")).collect();
        for (id, label) in named {
            labels[id] = label;
        }
        Ok(labels)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn base() -> Value {
        json!({
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 64, "vocab_size": 256, "max_position_embeddings": 64,
        })
    }

    fn with(key: &str, value: Value) -> Result<ModelConfig> {
        let mut json = base();
        json[key] = value;
        parse(Path::new("config.json"), &json)
    }

    #[test]
    fn googles_few_keys_are_enough() {
        let config = parse(Path::new("bert_config.json"), &base()).unwrap();
        assert_eq!(config.bert.layer_norm_eps, 1e-12);
        assert_eq!(config.bert.type_vocab_size, 2);
        assert_eq!(config.bert.hidden_act, Activation::Gelu);
        assert_eq!((config.architecture.clone(), config.problem), (None, None));
        assert_eq!(config.labels(2), ["LABEL_0", "LABEL_1"]);
    }

    #[test]
    fn impossible_values_are_refused_by_name() {
        for (key, value) in [
            ("hidden_size", json!(0)),
            ("hidden_size", json!(-32)),
            ("hidden_size", json!(32.5)),
            ("hidden_size", json!("32")),
            ("hidden_size", Value::Null),
            ("hidden_size", json!(u64::MAX)),
            ("num_attention_heads", json!(5)),
            ("vocab_size", json!(1u64 << 40)),
            ("num_hidden_layers", json!(100_000)),
            ("layer_norm_eps", json!(0)),
            ("layer_norm_eps", json!(-1e-12)),
            ("layer_norm_eps", json!("1e-12")),
            ("layer_norm_eps", json!(1e-80)),
            ("hidden_act", json!("quick_gelu")),
            ("hidden_act", json!(3)),
            ("model_type", json!("roberta")),
            ("position_embedding_type", json!("relative_key")),
            ("is_decoder", json!(true)),
            ("add_cross_attention", json!(true)),
            ("problem_type", json!("ranking")),
            ("id2label", json!({"x": "a"})),
            ("id2label", json!({"-1": "a"})),
            ("id2label", json!({"99999999999": "a"})),
            ("id2label", json!({"18446744073709551615": "a"})),
            ("id2label", json!({"0": ["a"]})),
            ("label2id", json!({"a": -1})),
            ("num_labels", json!(1e9)),
            ("id2label", json!("POSITIVE")),
            ("id2label", json!(2)),
            ("id2label", json!({"1": "a", "2": "b"})),
            ("label2id", json!(["a", "b"])),
            ("label2id", json!({"a": 1})),
            ("tie_word_embeddings", json!("yes")),
            ("quantization_config", json!({"quant_method": "bitsandbytes"})),
        ] {
            let e = with(key, value.clone()).unwrap_err().to_string();
            assert!(e.starts_with(&format!("config.json: {key}: ")), "{value}: {e}");
        }
        assert!(parse(Path::new("c"), &json!([1])).is_err());
    }

    #[test]
    fn every_activation_is_known() {
        let others = [
            ("gelu_python", Activation::Gelu),
            ("gelu_pytorch_tanh", Activation::GeluTanh),
            ("gelu_python_tanh", Activation::GeluTanh),
            ("gelu_fast", Activation::GeluTanh),
            ("gelu_accurate", Activation::GeluTanh),
            ("swish", Activation::Silu),
        ];
        for (name, activation) in Activation::NAMES.into_iter().chain(others) {
            let config = with("hidden_act", json!(name)).unwrap();
            assert_eq!(config.bert.hidden_act, activation);
        }
    }

    #[test]
    fn names_given_twice_are_refused() {
        let check = |labels: &[&str]| {
            let labels: Vec<_> = labels.iter().map(|label| label.to_string()).collect();
            check_distinct(Path::new("config.json"), "id2label", &labels)
        };
        check(&[]).unwrap();
        check(&["a", "A", "", "b"]).unwrap();
        assert_eq!(
            check(&["x", "y", "x"]).unwrap_err().to_string(),
            "config.json: id2label: 0 and 2 are both \"x\"; give each label a name of its own, here or \
             with --labels A,B,C"
        );
        // A name that looks like that of an output without one.
        let config = with("id2label", json!({"0": "LABEL_2", "1": "b"})).unwrap();
        assert!(check_distinct(Path::new("c"), "id2label", &config.labels(3)).is_err());
    }

    #[test]
    fn labels_come_in_the_order_of_their_ids() {
        let labels = |key, value| with(key, value).unwrap().labels;
        // As text, 10 sorts before 2.
        let many: Value = (0..11).rev().map(|i| (i.to_string(), json!(format!("L{i}")))).collect();
        assert_eq!(labels("id2label", many)[10], "L10");
        assert_eq!(labels("id2label", json!({"2": "c", "0": "a"})), ["a", "LABEL_1", "c"]);
        assert_eq!(labels("id2label", json!(["a", "b"])), ["a", "b"]);
        assert_eq!(labels("id2label", json!({"0": 0, "1": 1})), ["0", "1"]);
        assert_eq!(labels("label2id", json!({"b": 1, "a": 0})), ["a", "b"]);
        assert_eq!(labels("num_labels", json!(3)).len(), 3);
    }
}
