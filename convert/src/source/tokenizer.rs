//! The vocabulary and the configuration of the WordPiece tokenizer, as transformers reads them.
//!
//! The vocabulary comes from `tokenizer.json` if there is one, otherwise from `vocab.txt`. For the classes of
//! BertTokenizer, `tokenizer_config.json` and its defaults decide about lower case, accents, Chinese characters and
//! special tokens, even if `tokenizer.json` says something else; a note tells where they differ. For other classes
//! `tokenizer.json` decides. Added tokens come from `tokenizer.json`, `added_tokens_decoder` of
//! `tokenizer_config.json` or, without that, `added_tokens.json`, and from the lists of special tokens. The longest
//! input always comes from `tokenizer_config.json`: truncation in `tokenizer.json` is only the argument of some past
//! call.
//!
//! Where versions of transformers differ (4.57 and 5.24 were compared), special tokens and options of added tokens
//! follow the later one. Ids of added tokens are those that the files state; fast tokenizers renumber them if there
//! are gaps. A `[CLS]`, `[SEP]` or `[UNK]` that the vocabulary lacks is an error, where transformers makes up an id.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_json::Value;

use super::files::Files;
use crate::error::{Error, Result};

/// Limit for the entries of a vocabulary.
const MAX_VOCABULARY: usize = 1 << 24;
/// Lengths above this mean no limit: BertTokenizer writes 10^30 then.
const NO_LIMIT: f64 = 1e9;
/// Values of `tokenizer_class`, without `Fast`, that mean BertTokenizer.
const BERT_CLASSES: &[&str] = &[
    "BertTokenizer",
    "DistilBertTokenizer",
    "ElectraTokenizer",
    "LxmertTokenizer",
    "MobileBertTokenizer",
    "SqueezeBertTokenizer",
    "RetriBertTokenizer",
    "LayoutLMTokenizer",
    "DPRContextEncoderTokenizer",
    "DPRQuestionEncoderTokenizer",
    "DPRReaderTokenizer",
];
/// Values that mean "as `tokenizer.json` says", or BERT's WordPiece in a folder with only `vocab.txt`.
const PLAIN_CLASSES: &[&str] = &["PreTrainedTokenizer", "TokenizersBackend"];
/// Keys of special tokens in the order in which transformers adds them, and BertTokenizer's defaults.
const SPECIAL_TOKENS: &[(&str, Option<&str>)] = &[
    ("bos_token", None),
    ("eos_token", None),
    ("unk_token", Some("[UNK]")),
    ("sep_token", Some("[SEP]")),
    ("pad_token", Some("[PAD]")),
    ("cls_token", Some("[CLS]")),
    ("mask_token", Some("[MASK]")),
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
    /// Tokens that are matched in the text before WordPiece, special or not, by id.
    pub added_tokens: Vec<AddedTokenConfig>,
    /// Remarks for the user: where files disagree, and what is assumed.
    pub notes: Vec<String>,
}

/// A token that is matched in the text.
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
    /// Whether WordPiece does not know it.
    pub only_added: bool,
}

impl AddedTokenConfig {
    /// A token from a JSON object with its options; a missing option is `false`, a missing `normalized` as given.
    fn from_json(value: &Value, id: u64, normalized: impl Fn(bool) -> bool) -> Option<Self> {
        let flag = |key: &str| value[key].as_bool().unwrap_or(false);
        let special = flag("special");
        Some(Self {
            id: id.try_into().ok()?,
            content: value["content"].as_str().filter(|c| !c.is_empty())?.to_owned(),
            special,
            single_word: flag("single_word"),
            lstrip: flag("lstrip"),
            rstrip: flag("rstrip"),
            normalized: value["normalized"].as_bool().unwrap_or_else(|| normalized(special)),
            only_added: false,
        })
    }

    /// A token without options: special ones are matched in the original text, others in the normalised one.
    fn plain(id: u32, content: &str, special: bool) -> Self {
        Self {
            id,
            content: content.to_owned(),
            special,
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: !special,
            only_added: false,
        }
    }

    fn same_options(&self, other: &Self) -> bool {
        let of = |t: &Self| (t.special, t.single_word, t.lstrip, t.rstrip, t.normalized);
        of(self) == of(other)
    }
}

/// The files beside the vocabulary.
struct Settings<'a> {
    file: &'a Path,
    config: Value,
    /// `special_tokens_map.json`.
    map: Value,
    /// `added_tokens.json`.
    added_file: &'a Path,
    added: Option<Value>,
}

impl Settings<'_> {
    fn flag(&self, key: &str) -> Result<Option<bool>> {
        match &self.config[key] {
            Value::Null => Ok(None),
            Value::Bool(b) => Ok(Some(*b)),
            other => Err(Error::new(self.file, key, format!("{other} is not true or false"))),
        }
    }

    /// `tokenizer_class` without `Fast`. Without one transformers goes by the type of the model: BERT.
    fn class(&self) -> &str {
        let class = self.config["tokenizer_class"].as_str().unwrap_or("BertTokenizer");
        class.strip_suffix("Fast").unwrap_or(class)
    }

    fn is_bert(&self) -> bool {
        BERT_CLASSES.contains(&self.class())
    }

    /// The special token that a file states under `key`: a text, or an object with options.
    fn stated(&self, key: &str) -> Option<(&str, &Value)> {
        [&self.config[key], &self.map[key]].into_iter().find_map(|value| token_of(value))
    }

    fn special(&self, key: &str, default: &'static str) -> &str {
        self.stated(key).map_or(default, |(text, _)| text)
    }

    /// Special tokens beyond those with a key of their own.
    fn more_special_tokens(&self) -> Vec<(&str, &Value)> {
        let keys = ["additional_special_tokens", "extra_special_tokens"];
        let list = |key: &str| {
            let values = [&self.config[key], &self.map[key]].into_iter().find(|v| !v.is_null());
            match values {
                Some(Value::Array(list)) => list.iter().filter_map(token_of).collect(),
                Some(Value::Object(map)) => map.values().filter_map(token_of).collect(),
                _ => Vec::new(),
            }
        };
        keys.into_iter().flat_map(list).collect()
    }

    /// Tokens that were added to the vocabulary, by id: `added_tokens_decoder` or, without that,
    /// `added_tokens.json`.
    fn added_tokens(&self, notes: &mut Vec<String>) -> Result<Vec<AddedTokenConfig>> {
        let mut tokens = Vec::new();
        let file = self.added_file;
        let bad = |file: &Path, field: &str, value: &Value| {
            Error::new(file, field, format!("{value} is not a token with an id"))
        };
        let listed = match &self.added {
            None => None,
            Some(Value::Object(map)) => Some(map),
            Some(other) => return Err(bad(file, "", other)),
        };
        if let Some(map) = self.config["added_tokens_decoder"].as_object() {
            for (id, value) in map {
                // As in Python, a special token is by default not normalised.
                let token = id
                    .parse()
                    .ok()
                    .and_then(|id| AddedTokenConfig::from_json(value, id, |special| !special));
                tokens.push(
                    token.ok_or_else(|| {
                        bad(self.file, &format!("added_tokens_decoder.{id}"), value)
                    })?,
                );
            }
            let ignored = listed.into_iter().flatten().map(|(text, _)| text);
            for text in ignored.filter(|text| tokens.iter().all(|t| t.content != **text)) {
                notes.push(format!(
                    "{text:?} of added_tokens.json is ignored, as in transformers: it is not in \
                     added_tokens_decoder of tokenizer_config.json"
                ));
            }
        } else {
            let keys = SPECIAL_TOKENS.iter().map(|(key, _)| *key);
            let mut special: HashSet<&str> =
                keys.filter_map(|key| self.stated(key)).map(|(text, _)| text).collect();
            special.extend(self.more_special_tokens().iter().map(|(text, _)| *text));
            for (text, id) in listed.into_iter().flatten() {
                let known = id.as_u64().and_then(|id| u32::try_from(id).ok());
                let known = known.filter(|_| !text.is_empty());
                let id = known.ok_or_else(|| bad(file, &format!("{text:?}"), id))?;
                tokens.push(AddedTokenConfig::plain(id, text, special.contains(&text[..])));
            }
        }
        tokens.sort_by_key(|token| token.id);
        Ok(tokens)
    }
}

/// The text of a special token, and the value it comes from.
fn token_of(value: &Value) -> Option<(&str, &Value)> {
    let text = value.as_str().or_else(|| value["content"].as_str())?;
    (!text.is_empty()).then_some((text, value))
}

/// Reads the tokenizer of a folder for embeddings of `rows` rows. `None` if it has no vocabulary.
pub(super) fn read(
    folder: &Path,
    files: &mut Files,
    rows: usize,
) -> Result<Option<(Vec<String>, TokenizerConfig)>> {
    let config_file = folder.join("tokenizer_config.json");
    let added_file = folder.join("added_tokens.json");
    let settings = Settings {
        file: &config_file,
        config: files.json_if_there(&config_file)?.unwrap_or_default(),
        map: files.json_if_there(&folder.join("special_tokens_map.json"))?.unwrap_or_default(),
        added_file: &added_file,
        added: files.json_if_there(&added_file)?,
    };
    let tokenizer_file = folder.join("tokenizer.json");
    let vocabulary_file = folder.join("vocab.txt");
    let (mut vocabulary, mut tokenizer) = if tokenizer_file.exists() {
        let json = files.json(&tokenizer_file)?;
        let from_json = FromJson { file: &tokenizer_file, json, rows };
        let (vocabulary, mut tokenizer) = from_json.read()?;
        from_json.resolve(&settings, &vocabulary, &mut tokenizer)?;
        if vocabulary_file.exists()
            && let Ok(text) = files.text(&vocabulary_file)
            && !lines(&text).all(|line| line.is_empty() || vocabulary.id(line).is_some())
        {
            tokenizer
                .notes
                .push("vocab.txt has other tokens than tokenizer.json, which counts".into());
        }
        (vocabulary, tokenizer)
    } else if vocabulary_file.exists() {
        let text = files.text(&vocabulary_file)?;
        let mut notes = Vec::new();
        let vocabulary = Vocabulary::from_lines(&vocabulary_file, &text, rows, &mut notes)?;
        let tokenizer = TokenizerConfig {
            unk: vocabulary.need("unk_token", settings.special("unk_token", "[UNK]"))?,
            cls: vocabulary.need("cls_token", settings.special("cls_token", "[CLS]"))?,
            sep: vocabulary.need("sep_token", settings.special("sep_token", "[SEP]"))?,
            notes,
            ..from_config(&settings)?
        };
        (vocabulary, tokenizer)
    } else {
        return Ok(None);
    };
    add_tokens(&settings, &mut vocabulary, &mut tokenizer)?;
    tokenizer.pad = vocabulary.id(settings.special("pad_token", "[PAD]"));
    tokenizer.mask = vocabulary.id(settings.special("mask_token", "[MASK]"));
    tokenizer.model_max_length = max_length(&settings.config["model_max_length"]);
    tokenizer.added_tokens.sort_by_key(|token| token.id);
    for token in &mut tokenizer.added_tokens {
        token.only_added = vocabulary.added.contains(&token.id);
    }
    Ok(Some((vocabulary.tokens, tokenizer)))
}

/// Adds the tokens of the files beside the vocabulary to the added tokens of `tokenizer.json`.
fn add_tokens(
    settings: &Settings<'_>,
    vocabulary: &mut Vocabulary<'_>,
    tokenizer: &mut TokenizerConfig,
) -> Result<()> {
    let TokenizerConfig { added_tokens, notes, .. } = tokenizer;
    for token in settings.added_tokens(notes)? {
        vocabulary.push_at(token.id.into(), &token.content)?;
        match added_tokens.iter_mut().find(|known| known.content == token.content) {
            Some(known) => {
                if !known.same_options(&token) {
                    notes.push(format!(
                        "added token {:?}: the options in tokenizer_config.json and tokenizer.json differ; the \
                         former count, as in transformers",
                        token.content
                    ));
                }
                *known = token;
            }
            None => added_tokens.push(token),
        }
    }
    let defaults = settings.is_bert();
    let named = SPECIAL_TOKENS.iter().filter_map(|(key, default)| {
        let default = default.filter(|text| defaults || vocabulary.id(text).is_some());
        settings.stated(key).or(default.map(|text| (text, &Value::Null)))
    });
    let all: Vec<_> = named.chain(settings.more_special_tokens()).collect();
    for (text, value) in all {
        if added_tokens.iter().any(|token| token.content == text) {
            continue;
        }
        let id = match vocabulary.id(text) {
            Some(id) => id,
            None => {
                // As in transformers: the tokens of the vocabulary are counted, and added ones come after.
                let next = added_tokens.iter().map(|token| token.id as usize + 1).max();
                let next = next.unwrap_or(0).max(vocabulary.distinct);
                let free = vocabulary.tokens.get(next).is_none_or(String::is_empty);
                if next >= vocabulary.rows || !free {
                    notes.push(format!(
                        "the special token {text:?} is not in the vocabulary and the embeddings have no row for it; \
                         texts with it are read as ordinary text"
                    ));
                    continue;
                }
                notes.push(format!(
                    "the special token {text:?} is not in the vocabulary; it gets the id {next}, as in transformers"
                ));
                vocabulary.push_at(next as u64, text)?;
                next as u32
            }
        };
        let token = AddedTokenConfig::from_json(value, id.into(), |_| false);
        let mut token = token.unwrap_or_else(|| AddedTokenConfig::plain(id, text, true));
        token.special = true;
        added_tokens.push(token);
    }
    Ok(())
}

fn max_length(value: &Value) -> Option<usize> {
    let length = value.as_f64()?;
    (1.0..=NO_LIMIT).contains(&length).then_some(length as usize)
}

/// The lines of a vocabulary, as Python reads them: a line ends with `\n`, `\r` or `\r\n`.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.split_inclusive(['\n', '\r']);
    // The \n of \r\n is a piece of its own, after a piece that ends with \r.
    let mut after_return = false;
    lines.filter_map(move |line| {
        let rest = after_return && line == "\n";
        after_return = line.ends_with('\r');
        (!rest).then(|| line.trim_end_matches(['\n', '\r']))
    })
}

/// Tokens in the order of their ids. An empty one is a gap.
struct Vocabulary<'a> {
    file: &'a Path,
    /// Rows of the embeddings.
    rows: usize,
    tokens: Vec<String>,
    ids: HashMap<String, u32>,
    /// Number of different tokens without those that were added.
    distinct: usize,
    /// Ids that only added tokens have.
    added: HashSet<u32>,
}

impl<'a> Vocabulary<'a> {
    fn new(file: &'a Path, rows: usize) -> Self {
        Self {
            file,
            rows,
            tokens: Vec::new(),
            ids: HashMap::new(),
            distinct: 0,
            added: HashSet::new(),
        }
    }

    /// Reads one token per line, as transformers' `load_vocab`: only the line end is removed, and of equal lines
    /// the last one counts.
    fn from_lines(
        file: &'a Path,
        text: &str,
        rows: usize,
        notes: &mut Vec<String>,
    ) -> Result<Self> {
        if text.starts_with('\u{feff}') {
            return Err(Error::new(file, "line 1", "starts with a byte order mark (U+FEFF)").hint(
                "save the file as UTF-8 without it; it would become a part of the first token",
            ));
        }
        let mut vocabulary = Self::new(file, rows);
        let mut blank = 0;
        for (number, line) in lines(text).enumerate() {
            if number == MAX_VOCABULARY {
                return Err(Error::new(file, "", "has too many tokens"));
            }
            if let Some(first) = vocabulary.ids.insert(line.to_owned(), number as u32) {
                if line.is_empty() {
                    blank += 1;
                } else if notes.len() < 8 {
                    notes.push(format!(
                        "vocab.txt: {line:?} occurs twice, with the ids {first} and {number}; the last one counts, \
                         as in transformers"
                    ));
                }
            } else if line.is_empty() {
                blank += 1;
            }
            vocabulary.tokens.push(line.to_owned());
        }
        vocabulary.distinct = vocabulary.ids.len();
        vocabulary.ids.remove("");
        while vocabulary.tokens.len() > rows
            && vocabulary.tokens.last().is_some_and(String::is_empty)
        {
            vocabulary.tokens.pop();
            blank -= 1;
        }
        if blank > 0 {
            notes.push(format!("vocab.txt has {blank} empty lines; no text gives their ids"));
        }
        Ok(vocabulary)
    }

    /// Adds a token, or checks that the token at `id` is the same.
    fn push_at(&mut self, id: u64, token: &str) -> Result<()> {
        let error = |problem: String| Err(Error::new(self.file, format!("{token:?}"), problem));
        let len = self.tokens.len() as u64;
        if id >= MAX_VOCABULARY as u64 || id > len && id >= self.rows as u64 {
            return error(format!("has the id {id}, but the embeddings have {} rows", self.rows));
        }
        let at = id as usize;
        if let Some(there) = self.tokens.get(at).filter(|there| !there.is_empty()) {
            return match there == token {
                true => Ok(()),
                false => error(format!("has the id {id}, which is the id of {there:?}")),
            };
        }
        if let Some(first) = self.ids.insert(token.to_owned(), id as u32) {
            return error(format!("occurs twice, with the ids {first} and {id}"));
        }
        if at >= self.tokens.len() {
            self.tokens.resize(at + 1, String::new());
        }
        self.tokens[at] = token.to_owned();
        self.added.insert(id as u32);
        Ok(())
    }

    fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    /// The id of a special token, which the files name under `key`.
    fn need(&self, key: &str, token: &str) -> Result<u32> {
        self.id(token).ok_or_else(|| {
            let other = self.ids.keys().find(|other| other.eq_ignore_ascii_case(token));
            let hint = match other {
                Some(other) => format!(
                    "the vocabulary has {other:?}: write \"{key}\": {other:?} into tokenizer_config.json"
                ),
                None => "name the token that the vocabulary has for it in tokenizer_config.json, \
                         or use the vocabulary that the checkpoint was trained with"
                    .to_owned(),
            };
            Error::new(self.file, token, "is not in the vocabulary").hint(hint)
        })
    }
}

/// The configuration from a folder without `tokenizer.json`.
fn from_config(settings: &Settings<'_>) -> Result<TokenizerConfig> {
    let class = settings.class();
    if !settings.is_bert() && !PLAIN_CLASSES.contains(&class) {
        return Err(Error::new(
            settings.file,
            "tokenizer_class",
            format!("{class:?} is not supported"),
        )
        .hint("save the tokenizer as a tokenizer.json"));
    }
    if settings.flag("do_basic_tokenize")? == Some(false) {
        return Err(Error::new(settings.file, "do_basic_tokenize", "false is not supported"));
    }
    let lowercase = settings.flag("do_lower_case")?;
    Ok(TokenizerConfig {
        lowercase: lowercase.unwrap_or(true),
        lowercase_stated: lowercase.is_some(),
        strip_accents: settings.flag("strip_accents")?,
        handle_chinese_chars: settings.flag("tokenize_chinese_chars")?.unwrap_or(true),
        clean_text: settings.flag("clean_text")?.unwrap_or(true),
        max_input_chars_per_word: 100,
        unk: 0,
        cls: 0,
        sep: 0,
        pad: None,
        mask: None,
        model_max_length: None,
        added_tokens: Vec::new(),
        notes: Vec::new(),
    })
}

/// A reader of `tokenizer.json`.
struct FromJson<'a> {
    file: &'a Path,
    json: Value,
    rows: usize,
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
        let unk = vocabulary.need("unk_token", text("unk_token", "[UNK]"))?;
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
            cls: vocabulary.need("cls_token", &cls)?,
            sep: vocabulary.need("sep_token", &sep)?,
            pad: None,
            mask: None,
            model_max_length: None,
            added_tokens: self.added_tokens()?,
            notes: self.json["post_processor"]
                .is_null()
                .then(|| {
                    format!(
                        "tokenizer.json: post_processor is null; every text gets {cls} and {sep} around it, as BERT \
                         was trained"
                    )
                })
                .into_iter()
                .collect(),
        };
        Ok((vocabulary, tokenizer))
    }

    /// Lets `tokenizer_config.json` decide where transformers lets it.
    fn resolve(
        &self,
        settings: &Settings<'_>,
        vocabulary: &Vocabulary<'_>,
        tokenizer: &mut TokenizerConfig,
    ) -> Result<()> {
        let class = settings.class();
        let bert = settings.is_bert();
        let mut notes = Vec::new();
        let mut differ = |key: &str, stated: Option<String>, default: &str, json: String| {
            let here = stated.as_deref().unwrap_or(default);
            notes.push(match (bert, &stated) {
                (true, Some(_)) => format!(
                    "tokenizer_config.json: {key} is {here}, but tokenizer.json has {json}; the former counts, as in \
                     transformers"
                ),
                (true, None) => format!(
                    "tokenizer_config.json does not state {key}, but tokenizer.json has {json}; transformers takes its \
                     default {here}, and so does this file; if that is wrong, write \"{key}\": {json} into \
                     tokenizer_config.json"
                ),
                (false, _) => format!(
                    "tokenizer_config.json: {key} is {here}, but tokenizer.json has {json}; the latter counts, as in \
                     transformers for {class}"
                ),
            });
        };
        let show = |flag: Option<bool>| flag.map_or("null".to_owned(), |flag| flag.to_string());

        let lowercase = settings.flag("do_lower_case")?;
        let wanted = lowercase.unwrap_or(true);
        let json_lowercase = tokenizer.lowercase;
        if wanted != json_lowercase && (bert || lowercase.is_some()) {
            differ(
                "do_lower_case",
                lowercase.map(|flag| flag.to_string()),
                "true",
                json_lowercase.to_string(),
            );
        }
        let strip = settings.flag("strip_accents")?;
        let strips = |strip: Option<bool>, lowercase: bool| strip.unwrap_or(lowercase);
        let strip_differs = strips(strip, wanted) != strips(tokenizer.strip_accents, wanted)
            && tokenizer.strip_accents != strip;
        if strip_differs && (bert || strip.is_some()) {
            differ(
                "strip_accents",
                strip.map(|flag| flag.to_string()),
                "null",
                show(tokenizer.strip_accents),
            );
        }
        let chinese = settings.flag("tokenize_chinese_chars")?;
        if chinese.unwrap_or(true) != tokenizer.handle_chinese_chars && (bert || chinese.is_some())
        {
            differ(
                "tokenize_chinese_chars",
                chinese.map(|flag| flag.to_string()),
                "true",
                tokenizer.handle_chinese_chars.to_string(),
            );
        }
        if let Some(clean) = settings.flag("clean_text")?
            && clean != tokenizer.clean_text
        {
            notes.push(format!(
                "tokenizer_config.json: clean_text is {clean}, but tokenizer.json has {}; the latter counts, as in \
                 transformers 4",
                tokenizer.clean_text
            ));
        }
        if bert {
            tokenizer.lowercase = wanted;
            tokenizer.lowercase_stated |= lowercase.is_some();
            tokenizer.strip_accents = strip;
            tokenizer.handle_chinese_chars = chinese.unwrap_or(true);
            let ids = [
                ("unk_token", &mut tokenizer.unk),
                ("cls_token", &mut tokenizer.cls),
                ("sep_token", &mut tokenizer.sep),
            ];
            for (key, id) in ids {
                let Some((text, _)) = settings.stated(key) else { continue };
                let stated = vocabulary.need(key, text)?;
                if stated != *id {
                    notes.push(format!(
                        "tokenizer_config.json: {key} is {text:?}, but tokenizer.json has {:?}; the former counts, as \
                         in transformers 5",
                        vocabulary.tokens[*id as usize]
                    ));
                    *id = stated;
                }
            }
        }
        tokenizer.notes.append(&mut notes);
        Ok(())
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
        tokens.sort_unstable();
        let mut vocabulary = Vocabulary::new(self.file, self.rows);
        for (id, token) in tokens {
            vocabulary.push_at(id, token)?;
        }
        vocabulary.distinct = vocabulary.ids.len();
        vocabulary.added.clear();
        // Added tokens may follow the others or fill gaps.
        let mut added = self.added_tokens()?;
        added.sort_by_key(|token| token.id);
        for token in &added {
            vocabulary.push_at(token.id.into(), &token.content)?;
        }
        Ok(vocabulary)
    }

    fn added_tokens(&self) -> Result<Vec<AddedTokenConfig>> {
        let Some(list) = self.json["added_tokens"].as_array() else {
            return Ok(Vec::new());
        };
        let token = |t: &Value| AddedTokenConfig::from_json(t, t["id"].as_u64()?, |_| false);
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
