//! What a folder of sentence-transformers states besides BERT itself: `modules.json` and the modules' files,
//! `sentence_bert_config.json`, `config_sentence_transformers.json`, and the activation of cross-encoders.
//!
//! What a model file cannot hold is an error. With `--allow-unknown` it is a note, and is left out.

use std::path::{Path, PathBuf};

use bertlet::Pooling;
use bertlet::format::ScoreActivation;
use serde_json::Value;

use super::files::{self, Files};
use super::tokenizer::TokenizerConfig;
use crate::error::{Error, Result};

/// Names of the file next to the encoder, in the order in which sentence-transformers looks for them.
const ENCODER_CONFIGS: [&str; 3] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
];
/// Keys of `1_Pooling/config.json` before sentence-transformers 5.4, in the order in which it concatenates.
const POOLING_KEYS: [(&str, &str); 6] = [
    ("pooling_mode_cls_token", "cls"),
    ("pooling_mode_max_tokens", "max"),
    ("pooling_mode_mean_tokens", "mean"),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
    ("pooling_mode_weightedmean_tokens", "weightedmean"),
    ("pooling_mode_lasttoken", "lasttoken"),
];

/// What the files of sentence-transformers state.
#[derive(Debug)]
pub(super) struct Modules {
    root: PathBuf,
    allow_unknown: bool,
    /// Folder of the encoder, if it is not the root.
    pub encoder: Option<PathBuf>,
    pub pooling: Option<Pooling>,
    pub normalize: bool,
    /// Tokens that texts are cut to.
    pub max_seq_length: Option<usize>,
    /// Texts are lower-cased before the tokenizer.
    lower_case: bool,
    /// Names and texts.
    pub prompts: Vec<(String, String)>,
    pub default_prompt: Option<usize>,
    /// The file that excludes prompts from pooling.
    without_prompt: Option<PathBuf>,
    pub cross_encoder: bool,
    pub score_activation: Option<ScoreActivation>,
    pub notes: Vec<String>,
}

/// What a module of this kind does, where the file has no place for it.
fn purpose(kind: &str) -> &'static str {
    match kind {
        "Dense" => "its linear layer and activation change every vector",
        "LayerNorm" => "its norm changes every vector",
        "WeightedLayerPooling" => "its weights combine the hidden states of all layers",
        "Router" | "Asym" => "it sends queries and documents through different modules",
        "CLIPModel" => "it reads images and texts",
        "SpladePooling" | "MLMTransformer" => "it makes sparse vectors",
        "WordEmbeddings" | "WordWeights" | "BoW" | "StaticEmbedding" | "LSTM" | "CNN" => {
            "it is not part of a BERT encoder"
        }
        _ => "what it does is unknown",
    }
}

impl Modules {
    /// Reads the files around the encoder of the checkpoint at `path`.
    pub fn read(path: &Path, allow_unknown: bool, files: &mut Files) -> Result<Self> {
        let root = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
        let mut modules = Self {
            root: root.to_owned(),
            allow_unknown,
            encoder: None,
            pooling: None,
            normalize: false,
            max_seq_length: None,
            lower_case: false,
            prompts: Vec::new(),
            default_prompt: None,
            without_prompt: None,
            cross_encoder: false,
            score_activation: None,
            notes: Vec::new(),
        };
        let list = root.join("modules.json");
        if let Some(json) = files.json_if_there(&list)? {
            modules.read_list(&list, &json, files)?;
        } else {
            // Some checkpoints have the pooling without modules.json.
            modules.read_pooling(&root.join("1_Pooling/config.json"), files)?;
            if root.parent().is_some_and(|above| above.join("modules.json").exists()) {
                modules.notes.push(
                    "modules.json of the folder above is not read; give that folder to convert \
                     pooling and prompts too"
                        .into(),
                );
            }
        }
        let encoder = modules.encoder.clone().unwrap_or(root.to_owned());
        for name in ENCODER_CONFIGS {
            let file = encoder.join(name);
            if let Some(json) = files.json_if_there(&file)? {
                modules.read_encoder_config(&file, &json)?;
                break;
            }
        }
        let file = root.join("config_sentence_transformers.json");
        if let Some(json) = files.json_if_there(&file)? {
            modules.read_model_config(&file, &json)?;
        }
        if let Some(file) = modules.without_prompt.take()
            && modules.prompts.iter().any(|(_, text)| !text.is_empty())
        {
            let problem = "false is not supported: the tokens of a prompt count in the vector";
            modules.unsupported(&file, "include_prompt", problem)?;
        }
        Ok(modules)
    }

    /// An error, or a note if the user allows what is unknown.
    fn unsupported(&mut self, file: &Path, field: &str, problem: impl Into<String>) -> Result<()> {
        let problem = problem.into();
        if !self.allow_unknown {
            return Err(Error::new(file, field, problem)
                .hint("--allow-unknown converts the model without it, which gives other answers"));
        }
        // Notes are stored: they do not depend on where the folder lies.
        let name = file.strip_prefix(&self.root).unwrap_or(file).display();
        self.notes.push(format!("{name}: {field}: {problem}; ignored"));
        Ok(())
    }

    /// `modules.json`.
    fn read_list(&mut self, file: &Path, json: &Value, files: &mut Files) -> Result<()> {
        let list =
            json.as_array().ok_or_else(|| Error::new(file, "", "is not a list of modules"))?;
        let mut pooled = false;
        for (i, module) in list.iter().enumerate() {
            let class = module["type"].as_str().ok_or_else(|| {
                Error::new(file, format!("[{i}].type"), "is missing or not a string")
            })?;
            // Code of the checkpoint's own may have a known name and do something else.
            let (package, kind) = class.rsplit_once('.').unwrap_or(("", class));
            let known = package.split('.').next() == Some("sentence_transformers");
            let path = module["path"].as_str().unwrap_or_default();
            let inner = match path {
                "" => self.root.clone(),
                name => files::inside(&self.root, name, file, "path")?,
            };
            match kind {
                "Transformer" | "BERT" if known && i == 0 => {
                    self.encoder = (inner != self.root).then_some(inner);
                }
                "Pooling" if known && i > 0 && !pooled => {
                    pooled = true;
                    let config = inner.join("config.json");
                    if !config.exists() {
                        return Err(Error::new(config, "", "is missing")
                            .hint("modules.json names it; copy the whole folder of the model"));
                    }
                    self.read_pooling(&config, files)?;
                }
                "Normalize" if known && pooled => {
                    let config = inner.join("config.json");
                    let json = files.json_if_there(&config)?.unwrap_or_default();
                    match json["module_input_name"].as_str() {
                        None | Some("sentence_embedding") => self.normalize = true,
                        Some(other) => {
                            let problem = format!("{other:?} cannot be normalised");
                            self.unsupported(&config, "module_input_name", problem)?;
                        }
                    }
                }
                // It does nothing after training.
                "Dropout" if known => {}
                _ => {
                    let name = if known { kind } else { class };
                    let place = if path.is_empty() { format!("[{i}]") } else { path.to_owned() };
                    let known = if known { kind } else { "" };
                    let problem =
                        format!("module {name} is not supported here: {}", purpose(known));
                    self.unsupported(file, &place, problem)?;
                }
            }
        }
        Ok(())
    }

    /// `1_Pooling/config.json`: one or several modes, whose vectors are concatenated.
    fn read_pooling(&mut self, file: &Path, files: &mut Files) -> Result<()> {
        let Some(json) = files.json_if_there(file)? else {
            return Ok(());
        };
        if json["include_prompt"] == Value::Bool(false) {
            self.without_prompt = Some(file.to_owned());
        }
        let mut field = "pooling_mode";
        let mut modes: Vec<String> = Vec::new();
        match &json[field] {
            Value::String(mode) => modes.push(mode.clone()),
            Value::Array(list) if !list.is_empty() && list.iter().all(Value::is_string) => {
                modes.extend(list.iter().filter_map(Value::as_str).map(str::to_owned));
            }
            Value::Null => {
                field = "pooling_mode_*";
                let keys = json.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
                let known = POOLING_KEYS.iter().map(|(key, _)| *key);
                let unknown = keys.filter(|key| {
                    key.starts_with("pooling_mode_") && !known.clone().any(|known| known == *key)
                });
                for (key, name) in POOLING_KEYS.into_iter().chain(unknown.map(|key| (key, key))) {
                    match &json[key] {
                        Value::Bool(true) => modes.push(name.to_owned()),
                        Value::Bool(false) | Value::Null => {}
                        other => {
                            let problem = format!("{other} is not true or false");
                            return Err(Error::new(file, key, problem));
                        }
                    }
                }
                if modes.is_empty() {
                    modes.push("mean".to_owned());
                }
            }
            other => {
                let problem = format!("{other} is not a mode or a list of modes");
                return Err(Error::new(file, field, problem));
            }
        }
        let names: Vec<_> = modes.iter().map(String::as_str).collect();
        self.pooling = match names.as_slice() {
            ["cls"] => Some(Pooling::Cls),
            ["mean"] => Some(Pooling::Mean),
            ["max"] => Some(Pooling::Max),
            ["mean_sqrt_len_tokens"] => Some(Pooling::MeanSqrt),
            ["lasttoken"] => Some(Pooling::Sep),
            ["mean", "max"] => Some(Pooling::MeanMax),
            [one] => {
                let problem = format!(
                    "{one:?} is not supported; supported are cls, mean, max, mean_sqrt_len_tokens, \
                     lasttoken, and mean followed by max"
                );
                self.unsupported(file, field, problem)?;
                None
            }
            several => {
                let problem = format!(
                    "{} concatenated in this order are not supported; only mean followed by max is",
                    several.join(", ")
                );
                self.unsupported(file, field, problem)?;
                None
            }
        };
        Ok(())
    }

    /// `sentence_bert_config.json`.
    fn read_encoder_config(&mut self, file: &Path, json: &Value) -> Result<()> {
        // The first that is given counts, as in sentence-transformers.
        for (field, value) in [
            ("processing_kwargs.text.max_length", &json["processing_kwargs"]["text"]["max_length"]),
            (
                "processing_kwargs.common.max_length",
                &json["processing_kwargs"]["common"]["max_length"],
            ),
            ("processor_kwargs.model_max_length", &json["processor_kwargs"]["model_max_length"]),
            ("tokenizer_args.model_max_length", &json["tokenizer_args"]["model_max_length"]),
            ("max_seq_length", &json["max_seq_length"]),
        ] {
            if value.is_null() {
                continue;
            }
            let length = value.as_f64().filter(|n| *n >= 1.0 && n.fract() == 0.0);
            let length = length.ok_or_else(|| {
                Error::new(file, field, format!("{value} is not a number of tokens"))
                    .hint("give a whole number, or null for no limit")
            })?;
            self.max_seq_length = Some(length as usize);
            break;
        }
        self.lower_case = match &json["do_lower_case"] {
            Value::Null => false,
            Value::Bool(lower) => *lower,
            other => {
                let problem = format!("{other} is not true or false");
                return Err(Error::new(file, "do_lower_case", problem));
            }
        };
        Ok(())
    }

    /// `config_sentence_transformers.json`.
    fn read_model_config(&mut self, file: &Path, json: &Value) -> Result<()> {
        for (name, text) in json["prompts"].as_object().into_iter().flatten() {
            let text = match text {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                other => {
                    let field = format!("prompts.{name}");
                    return Err(Error::new(file, field, format!("{other} is not a string")));
                }
            };
            self.prompts.push((name.clone(), text));
        }
        let field = "default_prompt_name";
        match &json[field] {
            Value::Null => {}
            Value::String(name) => {
                let index = self.prompts.iter().position(|(other, _)| other == name);
                self.default_prompt = Some(index.ok_or_else(|| {
                    Error::new(file, field, format!("{name:?} is not one of the prompts"))
                        .hint("add it to prompts, or set default_prompt_name to null")
                })?);
            }
            other => return Err(Error::new(file, field, format!("{other} is not a string"))),
        }
        self.cross_encoder = json["model_type"] == "CrossEncoder";
        self.read_activation(file, "activation_fn", &json["activation_fn"])
    }

    /// What `config.json` states of a cross-encoder, and what the file cannot hold.
    pub fn read_config(&mut self, file: &Path, json: &Value) -> Result<()> {
        let (nested, old) =
            (&json["sentence_transformers"], "sbert_ce_default_activation_function");
        self.cross_encoder |= nested.is_object() || json[old].is_string();
        if self.score_activation.is_none() {
            match &nested["activation_fn"] {
                Value::Null => self.read_activation(file, old, &json[old])?,
                value => {
                    self.read_activation(file, "sentence_transformers.activation_fn", value)?
                }
            }
        }
        let code = json["auto_map"].as_object().into_iter().flatten();
        for (class, name) in code {
            if class.starts_with("AutoModel") {
                let problem = format!("{name} is code of the checkpoint's own, which is not run");
                self.unsupported(file, &format!("auto_map.{class}"), problem)?;
            } else {
                self.notes.push(format!("config.json: auto_map.{class} is not used"));
            }
        }
        Ok(())
    }

    fn read_activation(&mut self, file: &Path, field: &str, value: &Value) -> Result<()> {
        let path = match value {
            Value::Null => return Ok(()),
            Value::String(path) => path.as_str(),
            other => return Err(Error::new(file, field, format!("{other} is not a string"))),
        };
        let (package, name) = path.rsplit_once('.').unwrap_or(("", path));
        let known = package.is_empty() || package.split('.').take(2).eq(["torch", "nn"]);
        self.score_activation = match name {
            "Identity" if known => Some(ScoreActivation::Identity),
            "Sigmoid" if known => Some(ScoreActivation::Sigmoid),
            _ => {
                let problem =
                    format!("{path:?} is not supported; supported are Identity and Sigmoid");
                self.unsupported(file, field, problem)?;
                None
            }
        };
        Ok(())
    }

    /// Lower-cases texts if the files say so, also where the tokenizer is cased.
    pub fn lower_case(&mut self, tokenizer: &mut TokenizerConfig) {
        if self.lower_case && !tokenizer.lowercase {
            tokenizer.strip_accents.get_or_insert(false);
            (tokenizer.lowercase, tokenizer.lowercase_stated) = (true, true);
            self.notes.push(
                "sentence_bert_config.json: do_lower_case: texts are lower-cased, although the \
                 tokenizer is cased"
                    .into(),
            );
        }
    }
}
