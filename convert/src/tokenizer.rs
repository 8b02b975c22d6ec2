//! Builds the tokenizer section of a model. Its rules come from the `tokenizers` crate, the reference.
//!
//! The rules of a code point are queried step by step: cleaning, Chinese characters, NFD, accents, lower case,
//! splitting into words. The runtime needs the steps, not only their result. Then the result of all steps
//! together is compared with the reference for every code point.

use crate::error::{Error, Result};
use crate::source::{Checkpoint, TokenizerConfig};
use bertlet::tokenizer::Settings;
pub use bertlet::tokenizer::writer::SpecialTokens;
use bertlet::tokenizer::writer::{
    self, BuildError, CharacterSets, Class, HANGUL, Mark, Rule, Spec, decompose_hangul,
};
use rayon::prelude::*;
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::{BertNormalizer, NFD};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

/// The reference's normaliser for these settings.
pub fn reference_normalizer(settings: &Settings) -> BertNormalizer {
    BertNormalizer::new(
        settings.clean_text,
        settings.handle_chinese_chars,
        settings.strip_accents,
        settings.lowercase,
    )
}

/// Reads a `vocab.txt` as the reference does: one token per line, without trailing white space.
///
/// Of equal lines the last one counts. An empty line leaves its id unused.
pub fn read_vocab(text: &str) -> Vec<String> {
    text.lines().map(|line| line.trim_end().to_owned()).collect()
}

/// A token that is matched in the text, with the options of the reference's `AddedToken`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddedToken {
    /// Its text.
    pub text: String,
    /// Its id, which may lie beyond the vocabulary.
    pub id: u32,
    /// Match its normalised text in the normalised text.
    pub normalized: bool,
    /// Match whole words only.
    pub single_word: bool,
    /// Take in the white space before it.
    pub lstrip: bool,
    /// Take in the white space after it.
    pub rstrip: bool,
    /// A token such as `[CLS]`, which decoding leaves out.
    pub special: bool,
}

/// Builds the section for a vocabulary, with the prefix `##` and no added tokens but the special ones.
pub fn build(
    vocab: &[String],
    settings: &Settings,
    specials: &SpecialTokens,
) -> std::result::Result<Vec<u8>, BuildError> {
    build_with(vocab, settings, specials, "##", &[])
}

/// Builds the section for a vocabulary, with any continuation prefix and added tokens.
pub fn build_with(
    vocab: &[String],
    settings: &Settings,
    specials: &SpecialTokens,
    continuation_prefix: &str,
    added: &[AddedToken],
) -> std::result::Result<Vec<u8>, BuildError> {
    // Querying every code point takes long, and many checkpoints have the same settings.
    static LAST: Mutex<Option<(Settings, Arc<Vec<Rule>>)>> = Mutex::new(None);
    let known = LAST.lock().ok().and_then(|last| last.clone()).filter(|(of, _)| of == settings);
    let rules = match known {
        Some((_, rules)) => rules,
        None => {
            let rules = Arc::new(rules(settings)?);
            if let Ok(mut last) = LAST.lock() {
                *last = Some((*settings, Arc::clone(&rules)));
            }
            rules
        }
    };
    static WORDS: OnceLock<Vec<u32>> = OnceLock::new();
    static SPACED: OnceLock<Vec<u32>> = OnceLock::new();
    let mut sets = CharacterSets::default();
    if added.iter().any(|token| token.single_word) {
        sets.words = WORDS.get_or_init(|| limits(&word_characters()));
    }
    let normalized = added.iter().any(|token| token.normalized);
    if normalized && settings.handle_chinese_chars {
        // Queried outside of the cell, as in `rules`.
        if SPACED.get().is_none() {
            let spaced = limits(&changes(&chinese_step()).into_keys().collect::<HashSet<_>>());
            let _ = SPACED.set(spaced);
        }
        sets.spaced = SPACED.get().map_or(&[], Vec::as_slice);
    }
    let normalizer = reference_normalizer(settings);
    let added: Vec<writer::AddedToken> = added
        .iter()
        .map(|token| writer::AddedToken {
            text: token.text.clone(),
            id: token.id,
            normalized: token.normalized.then(|| normalize(&normalizer, &token.text)),
            single_word: token.single_word,
            lstrip: token.lstrip,
            rstrip: token.rstrip,
            special: token.special,
        })
        .collect();
    let (settings, added) = (*settings, &added);
    let spec = Spec { settings, vocab, continuation_prefix, specials, added, rules: &rules };
    writer::write_with(&spec, &sets)
}

/// The tokenizer of a checkpoint.
#[derive(Clone, Debug)]
pub struct TokenizerSection {
    /// The section's bytes.
    pub bytes: Vec<u8>,
    /// Remarks for the user: what differs from the checkpoint's tokenizer, and what is assumed.
    pub notes: Vec<String>,
}

/// Builds the section for a checkpoint's tokenizer. `None` if it has no vocabulary.
pub fn section(source: &Checkpoint) -> Result<Option<TokenizerSection>> {
    let Some(tokenizer) = &source.tokenizer else { return Ok(None) };
    section_of(&source.vocabulary, tokenizer, &source.folder).map(Some)
}

/// Builds the section for a vocabulary, tokens in the order of their ids, whose files are in `folder`.
pub(crate) fn section_of(
    vocabulary: &[String],
    tokenizer: &TokenizerConfig,
    folder: &Path,
) -> Result<TokenizerSection> {
    let settings = Settings {
        lowercase: tokenizer.lowercase,
        strip_accents: tokenizer.strip_accents,
        handle_chinese_chars: tokenizer.handle_chinese_chars,
        clean_text: tokenizer.clean_text,
        max_word_chars: tokenizer.max_input_chars_per_word,
    };
    let text = |id: u32| vocabulary.get(id as usize).cloned().unwrap_or_default();
    let specials = SpecialTokens {
        unk: text(tokenizer.unk),
        cls: text(tokenizer.cls),
        sep: text(tokenizer.sep),
        pad: tokenizer.pad.map(text).unwrap_or_default(),
        mask: tokenizer.mask.map(text).unwrap_or_default(),
    };
    let mut notes = tokenizer.notes.clone();
    if !tokenizer.lowercase_stated {
        let assumed =
            "no file states whether to lowercase text; assumed: yes, the default of BertTokenizer";
        notes.push(assumed.to_owned());
    }
    // WordPiece does not know the tokens that are only added.
    let mut vocabulary = vocabulary.to_vec();
    let mut added = Vec::new();
    for token in &tokenizer.added_tokens {
        if let Some(text) = vocabulary.get_mut(token.id as usize).filter(|_| token.only_added) {
            text.clear();
        }
        added.push(AddedToken {
            text: token.content.clone(),
            id: token.id,
            normalized: token.normalized,
            single_word: token.single_word,
            lstrip: token.lstrip,
            rstrip: token.rstrip,
            special: token.special,
        });
    }
    let normalizer = reference_normalizer(&settings);
    let mut patterns: HashMap<String, &str> = HashMap::new();
    for token in added.iter().filter(|token| token.normalized) {
        let pattern = normalize(&normalizer, &token.text);
        if pattern.is_empty() {
            notes.push(format!(
                "added token {:?}: nothing is left of it after normalisation, so no text contains it",
                token.text
            ));
        } else if let Some(other) = patterns.insert(pattern, &token.text) {
            notes.push(format!(
                "added tokens {other:?} and {:?} are the same after normalisation; the text gives the one that \
                 is special, or else the lower id",
                token.text
            ));
        }
    }
    match build_with(&vocabulary, &settings, &specials, "##", &added) {
        Ok(bytes) => Ok(TokenizerSection { bytes, notes }),
        Err(problem) => Err(Error::new(folder, "tokenizer", problem)
            .hint("compare vocab.txt or tokenizer.json with that of a BERT")),
    }
}

const CODES: u32 = 0x11_0000;
/// Code points per query.
const CHUNK: usize = 2048;
/// Separates the texts of a query. No other character becomes this one or combines with it.
const SEPARATOR: char = 'q';

fn normalize(normalizer: &impl Normalizer, text: &str) -> String {
    let mut text = NormalizedString::from(text);
    // The normalisers of the reference never fail.
    normalizer.normalize(&mut text).expect("normaliser failed");
    text.get().to_owned()
}

/// Normalises each text on its own. They are joined for speed. If the separator gets lost or occurs in a
/// text, they are normalised one by one.
fn ask(normalizer: &impl Normalizer, texts: &[String]) -> Vec<String> {
    let mut joined = String::new();
    for text in texts {
        joined.push(SEPARATOR);
        joined.push_str(text);
    }
    joined.push(SEPARATOR);
    let answer = normalize(normalizer, &joined);
    let answers: Vec<String> = answer.split(SEPARATOR).map(str::to_owned).collect();
    if answers.len() == texts.len() + 2 {
        return answers[1..=texts.len()].to_vec();
    }
    texts.iter().map(|text| normalize(normalizer, text)).collect()
}

/// Normalises every character on its own, on all threads, and collects the results of `f` in order.
fn ask_all<T: Send>(
    normalizer: &impl Normalizer,
    f: impl Fn(char, &str) -> Option<T> + Sync,
) -> Vec<T> {
    let all: Vec<char> = (0..CODES).filter_map(char::from_u32).collect();
    let answers = all.par_chunks(CHUNK).flat_map_iter(|chars| {
        let texts: Vec<String> = chars.iter().map(|c| c.to_string()).collect();
        let answers = ask(normalizer, &texts);
        chars.iter().zip(answers).filter_map(|(&c, answer)| f(c, &answer)).collect::<Vec<_>>()
    });
    answers.collect()
}

/// The characters that the normaliser changes, and their results.
fn changes(normalizer: &impl Normalizer) -> HashMap<char, String> {
    let change = |c, answer: &str| (!answer.chars().eq([c])).then(|| (c, answer.to_owned()));
    ask_all(normalizer, change).into_iter().collect()
}

/// The class of each character for the pre-tokenizer.
fn classes() -> Vec<Class> {
    let mut classes = vec![Class::Word; CODES as usize];
    let all: Vec<char> = (0..CODES).filter_map(char::from_u32).collect();
    for chars in all.chunks(CHUNK) {
        let mut text = String::new();
        let mut places = Vec::new();
        for &c in chars {
            text.push(SEPARATOR);
            places.push((text.len(), c));
            text.push(c);
        }
        text.push(SEPARATOR);
        let mut split = PreTokenizedString::from(text.as_str());
        BertPreTokenizer.pre_tokenize(&mut split).expect("pre-tokenizer failed");
        let splits = split.get_splits(OffsetReferential::Original, OffsetType::Byte);
        let mut splits = splits.into_iter().map(|(_, place, _)| place).peekable();
        for (start, c) in places {
            while splits.next_if(|(_, end)| *end <= start).is_some() {}
            classes[c as usize] = match splits.peek() {
                Some(&(from, to)) if from == start && to == start + c.len_utf8() => Class::Isolated,
                Some(&(from, _)) if from <= start => Class::Word,
                _ => Class::Space,
            };
        }
    }
    classes
}

/// The code points at which a set starts or ends.
fn limits(set: &HashSet<char>) -> Vec<u32> {
    let is_in = |code: u32| char::from_u32(code).is_some_and(|c| set.contains(&c));
    (0..=CODES).filter(|&code| is_in(code) != (code > 0 && is_in(code - 1))).collect()
}

/// The characters of words: those next to which the reference does not find a token that must be a single word.
fn word_characters() -> HashSet<char> {
    const TOKEN: &str = "|";
    let mut reference = tokenizers::Tokenizer::new(WordPiece::default());
    let token = tokenizers::AddedToken::from(TOKEN, true).single_word(true);
    reference.add_special_tokens([token]).expect("a token can be added");
    let mut words = HashSet::new();
    let all: Vec<char> = (0..CODES).filter_map(char::from_u32).collect();
    for chars in all.chunks(CHUNK) {
        let text: String = chars.iter().flat_map(|&c| [c, '|', ' ']).collect();
        // Without a vocabulary the other text fails, so only the added vocabulary is asked.
        let split =
            reference.get_added_vocabulary().extract_and_normalize(None::<&BertNormalizer>, &text);
        let splits = split.get_splits(OffsetReferential::Original, OffsetType::Byte);
        let found: HashSet<usize> = splits
            .into_iter()
            .filter(|(_, _, tokens)| tokens.is_some())
            .map(|(_, (start, _), _)| start)
            .collect();
        let mut place = 0;
        for &c in chars {
            place += c.len_utf8();
            if !found.contains(&place) {
                words.insert(c);
            }
            place += TOKEN.len() + 1;
        }
    }
    words
}

/// The step of the normaliser that puts spaces around Chinese characters.
fn chinese_step() -> BertNormalizer {
    BertNormalizer::new(false, true, Some(false), false)
}

/// The rank of the canonical combining class of every character whose class is not 0.
///
/// NFD does not reveal the classes, but their order: it swaps two neighbours if the class of the second is
/// smaller and not 0.
fn ranks() -> HashMap<char, u8> {
    // Marks of the lowest and of the highest class. NFD moves every other mark past one of them.
    const LOWEST: char = '\u{334}';
    const HIGHEST: char = '\u{345}';
    let mut marks: Vec<char> = Vec::new();
    let all: Vec<char> = (0..CODES).filter_map(char::from_u32).collect();
    for chars in all.chunks(CHUNK) {
        let texts: Vec<String> =
            chars.iter().flat_map(|c| [format!("{HIGHEST}{c}"), format!("{c}{LOWEST}")]).collect();
        let answers = ask(&NFD, &texts);
        for (&c, answers) in chars.iter().zip(answers.chunks(2)) {
            let passes = answers[0].chars().eq([c, HIGHEST]) && c != HIGHEST;
            if passes || answers[1].chars().eq([LOWEST, c]) && c != LOWEST {
                marks.push(c);
            }
        }
    }
    let passes = |first: char, second: char| {
        normalize(&NFD, &format!("{first}{second}")).chars().eq([second, first])
    };
    let compare = |a: char, b: char| {
        if a == b {
            Ordering::Equal
        } else if passes(b, a) {
            Ordering::Less
        } else if passes(a, b) {
            Ordering::Greater
        } else {
            Ordering::Equal
        }
    };
    marks.sort_by(|a, b| compare(*a, *b));
    let mut rank = 0u8;
    let mut ranks = HashMap::new();
    let mut last = None;
    for &c in &marks {
        if last.is_none_or(|last| compare(last, c) == Ordering::Less) {
            rank += 1;
        }
        last = Some(c);
        ranks.insert(c, rank);
    }
    ranks
}

/// The rule of each code point with these settings.
fn rules(settings: &Settings) -> std::result::Result<Vec<Rule>, BuildError> {
    let strip = settings.strips_accents();
    // The result of a single step is the same for all settings, so it is queried once.
    type Changes = OnceLock<HashMap<char, String>>;
    static NONE: Changes = OnceLock::new();
    let ask_once = |on: bool, answers: &'static Changes, normalizer: &dyn Fn() -> _| {
        match answers.get() {
            _ if !on => NONE.get_or_init(HashMap::new),
            Some(known) => known,
            // Query before locking the cell: while it waits, rayon may run another job on this thread, and
            // that job must not find the cell locked by its own thread.
            None => {
                let found = normalizer();
                answers.get_or_init(|| found)
            }
        }
    };
    // A normaliser with a single step: cleaning, Chinese characters, accents, or lower case.
    let step = |clean, chinese, strip, lower| {
        changes(&BertNormalizer::new(clean, chinese, Some(strip), lower))
    };
    static CLEAN: Changes = OnceLock::new();
    let clean = ask_once(settings.clean_text, &CLEAN, &|| step(true, false, false, false));
    static CHINESE: Changes = OnceLock::new();
    let spaced = settings.handle_chinese_chars;
    let chinese = ask_once(spaced, &CHINESE, &|| changes(&chinese_step()));
    static STRIPPED: Changes = OnceLock::new();
    let stripped = ask_once(strip, &STRIPPED, &|| step(false, false, true, false));
    static LOWER: Changes = OnceLock::new();
    let lower = ask_once(settings.lowercase, &LOWER, &|| step(false, false, false, true));
    static DECOMPOSED: Changes = OnceLock::new();
    let nfd = ask_once(strip, &DECOMPOSED, &|| changes(&NFD));
    static RANKS: OnceLock<HashMap<char, u8>> = OnceLock::new();
    let no_ranks = HashMap::new();
    let ranks = if strip { RANKS.get_or_init(ranks) } else { &no_ranks };
    static CLASSES: OnceLock<Vec<Class>> = OnceLock::new();
    let classes = CLASSES.get_or_init(classes);

    let mut rules = Vec::with_capacity(CODES as usize);
    for code in 0..CODES {
        let error = |problem| BuildError::Rule(code, problem);
        let Some(c) = char::from_u32(code) else {
            // Surrogates do not occur in text.
            rules.push(Rule::Keep(Class::Word));
            continue;
        };
        let c = match clean.get(&c).map(String::as_str) {
            None => c,
            Some("") => {
                rules.push(Rule::Drop);
                continue;
            }
            Some(answer) => {
                one(answer).ok_or_else(|| error("cleaning gives several characters"))?
            }
        };
        let isolated = match chinese.get(&c) {
            None => false,
            Some(answer) if answer.chars().eq([' ', c, ' ']) => true,
            Some(_) => return Err(error("unknown treatment of a Chinese character")),
        };
        let decomposed = nfd.get(&c).cloned().unwrap_or_else(|| c.to_string());
        let (mut starters, mut marks, mut anchor) = (Vec::new(), Vec::<Mark>::new(), false);
        for d in decomposed.chars() {
            let remains = stripped.get(&d).is_none_or(|answer| !answer.is_empty());
            let lowered = lower.get(&d).cloned().unwrap_or_else(|| d.to_string());
            let lowered = lowered.chars().map(|c| (c, classes[c as usize]));
            let lowered: Vec<(char, Class)> = lowered.filter(|_| remains).collect();
            match ranks.get(&d) {
                Some(&rank) => {
                    if lowered.len() > 1 {
                        return Err(error("a mark becomes several characters"));
                    }
                    marks.push(Mark { rank, remains: lowered.first().copied() });
                }
                None => {
                    if !marks.is_empty() {
                        return Err(error("a mark precedes its base"));
                    }
                    anchor = true;
                    starters.extend(lowered);
                }
            }
        }
        if isolated {
            let ([(_, class)], []) = (&mut starters[..], &marks[..]) else {
                return Err(error("a Chinese character becomes several"));
            };
            *class = Class::Isolated;
        }
        rules.push(match starters[..] {
            [(to, class)] if to as u32 == code && marks.is_empty() => Rule::Keep(class),
            _ if is_hangul(code, &starters, &marks) => Rule::Hangul,
            _ => Rule::Expand { starters, marks, anchor },
        });
    }
    check(settings, &rules)?;
    Ok(rules)
}

fn one(text: &str) -> Option<char> {
    let mut chars = text.chars();
    chars.next().filter(|_| chars.next().is_none())
}

fn is_hangul(code: u32, starters: &[(char, Class)], marks: &[Mark]) -> bool {
    let jamo = decompose_hangul(code).map(|jamo| (jamo, Class::Word));
    let jamo = if jamo[2].0 == 0 { &jamo[..2] } else { &jamo[..] };
    HANGUL.contains(&code)
        && marks.is_empty()
        && starters.iter().map(|&(c, class)| (c as u32, class)).eq(jamo.iter().copied())
}

/// Compares the rules with the reference, all steps together. Spaces around a character are ignored: they
/// have the same effect as isolating it.
fn check(settings: &Settings, rules: &[Rule]) -> std::result::Result<(), BuildError> {
    let wrong = ask_all(&reference_normalizer(settings), |c, answer| {
        let mut ours = String::new();
        let mut put = |c: char| ours.write_char(c).expect("strings take characters");
        match &rules[c as usize] {
            Rule::Keep(_) => put(c),
            Rule::Drop => {}
            Rule::Hangul => decompose_hangul(c as u32)
                .into_iter()
                .filter(|jamo| *jamo != 0)
                .filter_map(char::from_u32)
                .for_each(put),
            Rule::Expand { starters, marks, .. } => {
                starters.iter().for_each(|(c, _)| put(*c));
                marks.iter().filter_map(|mark| mark.remains).for_each(|(c, _)| put(c));
            }
        }
        let spaced = answer.strip_prefix(' ').and_then(|rest| rest.strip_suffix(' '));
        (ours != answer && spaced != Some(&ours)).then_some(c as u32)
    });
    match wrong.first() {
        Some(&code) => Err(BuildError::Rule(code, "differs from the reference")),
        None => Ok(()),
    }
}
