//! The vocabulary and the configuration of the WordPiece tokenizer.
//!
//! They come from `tokenizer.json` if there is one. Otherwise they come from `vocab.txt`, `tokenizer_config.json`
//! and the defaults of BertTokenizer, in that order. The longest input always comes from `tokenizer_config.json`:
//! truncation in `tokenizer.json` is only the argument of some past call.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use super::files::Files;
use crate::error::{Error, Result};

/// Limit for the entries of a vocabulary.
const MAX_VOCABULARY: usize = 1 << 24;
/// Lengths above this mean no limit: BertTokenizer writes 10^30 then.
const NO_LIMIT: f64 = 1e9;
/// Values of `tokenizer_class` that mean BERT's WordPiece in a folder with only `vocab.txt`.
const CLASSES: &[&str] = &[
    "BertTokenizer",
    "BertTokenizerFast",
    "DistilBertTokenizer",
    "DistilBertTokenizerFast",
    "ElectraTokenizer",
    "ElectraTokenizerFast",
    // Names for the same tokenizer.
    "DPRContextEncoderTokenizer",
    "DPRContextEncoderTokenizerFast",
    "DPRQuestionEncoderTokenizer",
    "DPRQuestionEncoderTokenizerFast",
    "DPRReaderTokenizer",
    "DPRReaderTokenizerFast",
    "LayoutLMTokenizer",
    "LayoutLMTokenizerFast",
    "LxmertTokenizer",
    "LxmertTokenizerFast",
    "MobileBertTokenizer",
    "MobileBertTokenizerFast",
    "RetriBertTokenizer",
    "RetriBertTokenizerFast",
    "SqueezeBertTokenizer",
    "SqueezeBertTokenizerFast",
    "PreTrainedTokenizer",
    "PreTrainedTokenizerFast",
    "TokenizersBackend",
];

/// The configuration of a tokenizer.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenizerConfig {
    /// Lowercase the text.
    pub lowercase: bool,
    /// Whether a file states `lowercase`. Otherwise it is the default of BertTokenizer, true, which is wrong
    /// for Google's cased checkpoints.
    pub lowercase_stated: bool,
    /// Strip accents. `None` for the same as `lowercase`.
    pub strip_accents: Option<bool>,
    /// Put spaces around CJK ideographs.
    pub handle_chinese_chars: bool,
    /// Drop control characters, and turn all white space into spaces.
    pub clean_text: bool,
    /// A longer word becomes the unknown token.
    pub max_input_chars_per_word: usize,
    /// Id of `[UNK]`.
    pub unk: u32,
    /// Id of `[CLS]`.
    pub cls: u32,
    /// Id of `[SEP]`.
    pub sep: u32,
    /// Id of `[PAD]`.
    pub pad: Option<u32>,
    /// Id of `[MASK]`.
    pub mask: Option<u32>,
    /// The longest input in tokens.
    pub model_max_length: Option<usize>,
    /// Tokens that are matched in the text before WordPiece, special or not.
    pub added_tokens: Vec<AddedTokenConfig>,
}

/// A token that is matched exactly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedTokenConfig {
    /// Id of the token.
    pub id: u32,
    /// Text of the token.
    pub content: String,
    /// Whether it is a token such as `[CLS]`, which decoding leaves out.
    pub special: bool,
    /// Match whole words only.
    pub single_word: bool,
    /// Include the white space before the token.
    pub lstrip: bool,
    /// Include the white space after the token.
    pub rstrip: bool,
    /// Match in the normalised text instead of the original.
    pub normalized: bool,
}

/// Reads the tokenizer of a folder. `None` if it has no vocabulary.
pub(super) fn read(
    folder: &Path,
    files: &mut Files,
) -> Result<Option<(Vec<String>, TokenizerConfig)>> {
    let config_file = folder.join("tokenizer_config.json");
    let config = files.json_if_there(&config_file)?.unwrap_or_default();
    let map_file = folder.join("special_tokens_map.json");
    let map = files.json_if_there(&map_file)?.unwrap_or_default();
    let special = |key: &str, default: &str| {
        let named = [&config[key], &map[key]].into_iter().find_map(|v| {
            let text = v.as_str().or_else(|| v["content"].as_str())?;
            Some(text.to_owned())
        });
        named.unwrap_or_else(|| default.to_owned())
    };
    let tokenizer_file = folder.join("tokenizer.json");
    let vocabulary_file = folder.join("vocab.txt");
    let mut read = if tokenizer_file.exists() {
        let json = files.json(&tokenizer_file)?;
        let file = &tokenizer_file;
        FromJson { file, json }.read()?
    } else if vocabulary_file.exists() {
        let text = files.text(&vocabulary_file)?;
        let mut vocabulary = Vocabulary::from_lines(&vocabulary_file, &text)?;
        let added = files.json_if_there(&folder.join("added_tokens.json"))?;
        vocabulary.add(added.as_ref(), &config)?;
        let settings = from_config(&config_file, &config)?;
        let tokenizer = TokenizerConfig {
            unk: vocabulary.need(&special("unk_token", "[UNK]"))?,
            cls: vocabulary.need(&special("cls_token", "[CLS]"))?,
            sep: vocabulary.need(&special("sep_token", "[SEP]"))?,
            ..settings
        };
        (vocabulary, tokenizer)
    } else {
        return Ok(None);
    };
    let (vocabulary, tokenizer) = &mut read;
    tokenizer.pad = vocabulary.id(&special("pad_token", "[PAD]"));
    tokenizer.mask = vocabulary.id(&special("mask_token", "[MASK]"));
    tokenizer.model_max_length = max_length(&config["model_max_length"]);
    if tokenizer.added_tokens.is_empty() {
        let ids = [
            Some(tokenizer.unk),
            Some(tokenizer.cls),
            Some(tokenizer.sep),
            tokenizer.pad,
            tokenizer.mask,
        ];
        let token = |id: u32| AddedTokenConfig {
            id,
            content: vocabulary.tokens[id as usize].clone(),
            special: true,
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: false,
        };
        tokenizer.added_tokens = ids.into_iter().flatten().map(token).collect();
        tokenizer.added_tokens.sort_by_key(|t| t.id);
        tokenizer.added_tokens.dedup_by_key(|t| t.id);
    }
    let (vocabulary, tokenizer) = read;
    Ok(Some((vocabulary.tokens, tokenizer)))
}

fn max_length(value: &Value) -> Option<usize> {
    let length = value.as_f64()?;
    (1.0..=NO_LIMIT).contains(&length).then_some(length as usize)
}

/// Tokens in the order of their ids, without gaps and without repetitions.
struct Vocabulary<'a> {
    file: &'a Path,
    tokens: Vec<String>,
    ids: HashMap<String, u32>,
}

impl<'a> Vocabulary<'a> {
    fn new(file: &'a Path) -> Self {
        Self { file, tokens: Vec::new(), ids: HashMap::new() }
    }

    /// Reads one token per line. Only the line end is removed.
    fn from_lines(file: &'a Path, text: &str) -> Result<Self> {
        let mut vocabulary = Self::new(file);
        for (number, line) in text.split_terminator('\n').enumerate() {
            let token = line.strip_suffix('\r').unwrap_or(line);
            vocabulary.push(token.to_owned()).map_err(|e| {
                e.hint(format!(
                    "the tokenizer can never produce line {}: give it another text",
                    number + 1
                ))
            })?;
        }
        Ok(vocabulary)
    }

    fn push(&mut self, token: String) -> Result<()> {
        let id = self.tokens.len();
        if id == MAX_VOCABULARY {
            return Err(Error::new(self.file, "", "has too many tokens"));
        }
        if let Some(first) = self.ids.insert(token.clone(), id as u32) {
            return Err(Error::new(
                self.file,
                format!("{token:?}"),
                format!("occurs twice, with the ids {first} and {id}"),
            ));
        }
        self.tokens.push(token);
        Ok(())
    }

    /// Appends a token, or checks that the token at `id` is the same.
    fn push_at(&mut self, id: u64, token: &str) -> Result<()> {
        match usize::try_from(id).ok().map(|id| self.tokens.get(id)) {
            Some(Some(there)) if there == token => Ok(()),
            Some(None) if id == self.tokens.len() as u64 => self.push(token.to_owned()),
            Some(Some(there)) => Err(Error::new(
                self.file,
                format!("{token:?}"),
                format!("has the id {id}, which is the id of {there:?}"),
            )),
            _ => Err(Error::new(
                self.file,
                format!("{token:?}"),
                format!("has the id {id}, but the next id is {}", self.tokens.len()),
            )),
        }
    }

    /// Tokens that were added to a `vocab.txt`: `added_tokens.json` (text to id) and
    /// `added_tokens_decoder` of the configuration (id to token).
    fn add(&mut self, added: Option<&Value>, config: &Value) -> Result<()> {
        let mut tokens = Vec::new();
        if let Some(map) = added.and_then(Value::as_object) {
            tokens.extend(map.iter().filter_map(|(t, id)| Some((id.as_u64()?, t.as_str()))));
        }
        if let Some(map) = config["added_tokens_decoder"].as_object() {
            let token = |(id, t): (&'_ String, _)| {
                let t: &Value = t;
                Some((id.parse().ok()?, t["content"].as_str()?))
            };
            tokens.extend(map.iter().filter_map(token));
        }
        tokens.sort_unstable();
        tokens.into_iter().try_for_each(|(id, token)| self.push_at(id, token))
    }

    fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    fn need(&self, token: &str) -> Result<u32> {
        self.id(token).ok_or_else(|| {
            Error::new(self.file, token, "is not in the vocabulary")
                .hint("name the token that the vocabulary has for it in tokenizer_config.json")
        })
    }
}

/// The configuration from a folder without `tokenizer.json`.
fn from_config(file: &Path, config: &Value) -> Result<TokenizerConfig> {
    let flag = |key: &str| match &config[key] {
        Value::Null => Ok(None),
        Value::Bool(b) => Ok(Some(*b)),
        other => Err(Error::new(file, key, format!("{other} is not true or false"))),
    };
    if let Some(class) = config["tokenizer_class"].as_str()
        && !CLASSES.contains(&class)
    {
        return Err(Error::new(file, "tokenizer_class", format!("{class:?} is not supported"))
            .hint("save the tokenizer as a tokenizer.json"));
    }
    if flag("do_basic_tokenize")? == Some(false) {
        return Err(Error::new(file, "do_basic_tokenize", "false is not supported"));
    }
    let lowercase = flag("do_lower_case")?;
    Ok(TokenizerConfig {
        lowercase: lowercase.unwrap_or(true),
        lowercase_stated: lowercase.is_some(),
        strip_accents: flag("strip_accents")?,
        handle_chinese_chars: flag("tokenize_chinese_chars")?.unwrap_or(true),
        clean_text: flag("clean_text")?.unwrap_or(true),
        max_input_chars_per_word: 100,
        unk: 0,
        cls: 0,
        sep: 0,
        pad: None,
        mask: None,
        model_max_length: None,
        added_tokens: Vec::new(),
    })
}

/// A reader of `tokenizer.json`.
struct FromJson<'a> {
    file: &'a Path,
    json: Value,
}

impl<'a> FromJson<'a> {
    fn error(&self, field: &str, problem: impl std::fmt::Display) -> Error {
        Error::new(self.file, field, problem)
    }

    /// Checks that the `type` of a component is BERT's.
    fn must_be(&self, component: &str, wanted: &str) -> Result<()> {
        let value = &self.json[component];
        match value["type"].as_str() {
            Some(found) if found == wanted => Ok(()),
            // Old files have no `type`.
            None if component == "model" && value["max_input_chars_per_word"].is_number() => Ok(()),
            found => Err(self
                .error(component, format!("{} is not supported", found.unwrap_or("nothing")))
                .hint(format!("only {wanted} is supported"))),
        }
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        match &self.json["normalizer"][key] {
            Value::Null => Ok(None),
            Value::Bool(b) => Ok(Some(*b)),
            other => {
                Err(self
                    .error(&format!("normalizer.{key}"), format!("{other} is not true or false")))
            }
        }
    }

    fn read(&self) -> Result<(Vocabulary<'a>, TokenizerConfig)> {
        self.must_be("model", "WordPiece")?;
        self.must_be("normalizer", "BertNormalizer")?;
        self.must_be("pre_tokenizer", "BertPreTokenizer")?;
        let model = &self.json["model"];
        let text = |key: &str, default| model[key].as_str().unwrap_or(default);
        let prefix = text("continuing_subword_prefix", "##");
        if prefix != "##" {
            return Err(self
                .error("model.continuing_subword_prefix", format!("{prefix:?} is not supported")));
        }
        let vocabulary = self.vocabulary()?;
        let unk = vocabulary.need(text("unk_token", "[UNK]"))?;
        let (cls, sep) = self.frame(&vocabulary)?;
        let lowercase = self.flag("lowercase")?;
        let tokenizer = TokenizerConfig {
            lowercase: lowercase.unwrap_or(true),
            lowercase_stated: lowercase.is_some(),
            strip_accents: self.flag("strip_accents")?,
            handle_chinese_chars: self.flag("handle_chinese_chars")?.unwrap_or(true),
            clean_text: self.flag("clean_text")?.unwrap_or(true),
            max_input_chars_per_word: match &model["max_input_chars_per_word"] {
                Value::Null => 100,
                n => n.as_u64().filter(|n| (1..=1 << 16).contains(n)).ok_or_else(|| {
                    self.error("model.max_input_chars_per_word", format!("{n} is not a length"))
                })? as usize,
            },
            unk,
            cls: vocabulary.need(&cls)?,
            sep: vocabulary.need(&sep)?,
            pad: None,
            mask: None,
            model_max_length: None,
            added_tokens: self.added_tokens()?,
        };
        Ok((vocabulary, tokenizer))
    }

    fn vocabulary(&self) -> Result<Vocabulary<'a>> {
        let map = self.json["model"]["vocab"]
            .as_object()
            .ok_or_else(|| self.error("model.vocab", "is missing"))?;
        let mut tokens = Vec::with_capacity(map.len());
        for (token, id) in map {
            let id = id
                .as_u64()
                .ok_or_else(|| self.error(&format!("model.vocab {token:?}"), "has no id"))?;
            tokens.push((id, token.as_str()));
        }
        // Added tokens may follow the others or fill gaps.
        let added = self.added_tokens()?;
        let new = added.iter().filter(|t| !map.contains_key(&t.content));
        tokens.extend(new.map(|t| (t.id.into(), t.content.as_str())));
        tokens.sort_unstable();
        let mut vocabulary = Vocabulary::new(self.file);
        for (id, token) in tokens {
            vocabulary.push_at(id, token)?;
        }
        // The others must agree with the vocabulary.
        for token in &added {
            vocabulary.push_at(token.id.into(), &token.content)?;
        }
        Ok(vocabulary)
    }

    fn added_tokens(&self) -> Result<Vec<AddedTokenConfig>> {
        let Some(list) = self.json["added_tokens"].as_array() else {
            return Ok(Vec::new());
        };
        let token = |t: &Value| {
            let flag = |key: &str| t[key].as_bool().unwrap_or(false);
            Some(AddedTokenConfig {
                id: t["id"].as_u64()?.try_into().ok()?,
                content: t["content"].as_str().filter(|c| !c.is_empty())?.to_owned(),
                special: flag("special"),
                single_word: flag("single_word"),
                lstrip: flag("lstrip"),
                rstrip: flag("rstrip"),
                normalized: flag("normalized"),
            })
        };
        list.iter()
            .map(|t| {
                token(t).ok_or_else(|| self.error("added_tokens", format!("{t} is not a token")))
            })
            .collect()
    }

    /// The tokens before and after a text. Any other frame than `[CLS] A [SEP] B [SEP]` is refused.
    fn frame(&self, vocabulary: &Vocabulary<'_>) -> Result<(String, String)> {
        let processor = &self.json["post_processor"];
        let other = || {
            self.error("post_processor", "is not BERT's")
                .hint("it must make [CLS] A [SEP] and [CLS] A [SEP] B [SEP], B with type 1")
        };
        match processor["type"].as_str() {
            None if processor.is_null() => Ok(("[CLS]".into(), "[SEP]".into())),
            Some("BertProcessing") => {
                let token = |key: &str| {
                    let text = processor[key][0].as_str()?;
                    let id = processor[key][1].as_u64()?;
                    (vocabulary.id(text).map(u64::from) == Some(id)).then(|| text.to_owned())
                };
                token("cls").zip(token("sep")).ok_or_else(other)
            }
            Some("TemplateProcessing") => {
                let single = template(&processor["single"]);
                let Some([(cls, 0), (a, 0), (sep, 0)]) = single.as_deref() else {
                    return Err(other());
                };
                let pair = [
                    (cls.clone(), 0),
                    ("$A".to_owned(), 0),
                    (sep.clone(), 0),
                    ("$B".to_owned(), 1),
                    (sep.clone(), 1),
                ];
                if a != "$A" || template(&processor["pair"]).as_deref() != Some(&pair) {
                    return Err(other());
                }
                let token = |name: &str| {
                    let special = &processor["special_tokens"][name];
                    let text = special["tokens"][0].as_str()?;
                    let id = special["ids"][0].as_u64()?;
                    let one = special["ids"][1].is_null() && special["tokens"][1].is_null();
                    let right = vocabulary.id(text).map(u64::from) == Some(id);
                    (one && right).then(|| text.to_owned())
                };
                token(cls).zip(token(sep)).ok_or_else(other)
            }
            _ => Err(other()),
        }
    }
}

/// The pieces of a template and their type ids. `$A` and `$B` are the texts.
fn template(value: &Value) -> Option<Vec<(String, u64)>> {
    let piece = |v: &Value| {
        let special = &v["SpecialToken"];
        if let Some(id) = special["id"].as_str() {
            return Some((id.to_owned(), special["type_id"].as_u64()?));
        }
        let sequence = &v["Sequence"];
        Some((format!("${}", sequence["id"].as_str()?), sequence["type_id"].as_u64()?))
    };
    value.as_array()?.iter().map(piece).collect()
}
