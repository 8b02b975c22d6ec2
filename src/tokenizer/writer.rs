//! Writes the tokenizer section. The caller says what each code point becomes; the converter asks the
//! reference.

use super::layout::{self, action, ascii, field, flag, item, record};
pub use super::layout::{HANGUL, decompose_hangul};
use super::{SectionError, Settings, Tokenizer};
use std::collections::HashMap;
use std::fmt;

/// How a normalised character takes part in the splitting into words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Part of a word.
    Word,
    /// White space.
    Space,
    /// A word of its own.
    Isolated,
}

/// A mark in the decomposition of a character: combining class not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    /// Rank of its canonical combining class among those that exist, from 1.
    pub rank: u8,
    /// The character that remains of it, if accents are not stripped.
    pub remains: Option<(char, Class)>,
}

/// What a code point becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It stays as it is.
    Keep(Class),
    /// Cleaning removes it.
    Drop,
    /// A Hangul syllable that becomes its jamo.
    Hangul,
    /// Anything else: characters of combining class 0 that remain, then the marks of the
    /// decomposition.
    Expand {
        /// Characters that remain.
        starters: Vec<(char, Class)>,
        /// Marks of the decomposition.
        marks: Vec<Mark>,
        /// The decomposition holds a character of class 0, which need not remain.
        anchor: bool,
    },
}

/// Ids and texts of the special tokens.
#[derive(Clone, Debug)]
pub struct SpecialTokens {
    /// For unknown words.
    pub unk: String,
    /// The first token of every input.
    pub cls: String,
    /// Follows every text.
    pub sep: String,
    /// For padding; need not exist.
    pub pad: String,
    /// For masked words; need not exist.
    pub mask: String,
}

impl Default for SpecialTokens {
    fn default() -> Self {
        Self {
            unk: "[UNK]".into(),
            cls: "[CLS]".into(),
            sep: "[SEP]".into(),
            pad: "[PAD]".into(),
            mask: "[MASK]".into(),
        }
    }
}

/// A token that is matched in the text, before it is split into words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddedToken {
    /// Its text.
    pub text: String,
    /// Its id, which may lie beyond the vocabulary.
    pub id: u32,
    /// Its normalised text, if it is matched in the normalised text; `None`: in the original text. A token whose
    /// normalised text is empty is never found.
    pub normalized: Option<String>,
    /// Not found next to a character of [`CharacterSets::words`].
    pub single_word: bool,
    /// Takes in the white space before it.
    pub lstrip: bool,
    /// Takes in the white space after it.
    pub rstrip: bool,
    /// Decoding leaves it out. Of tokens with equal patterns, special ones are found first.
    pub special: bool,
}

/// What [`write_with`] must know of characters for added tokens with options. A set is the code points at which it
/// starts or ends, ascending.
#[derive(Clone, Copy, Debug, Default)]
pub struct CharacterSets<'s> {
    /// The characters of words, for `single_word`.
    pub words: &'s [u32],
    /// The characters that the normaliser puts between spaces, for normalised tokens.
    pub spaced: &'s [u32],
}

/// The contents of a section.
#[derive(Clone, Copy, Debug)]
pub struct Spec<'s> {
    /// Settings of the normaliser, which are stored for information. The rules must agree with them.
    pub settings: Settings,
    /// Tokens by id. An empty string is a gap. If tokens are equal, the last one is found.
    pub vocab: &'s [String],
    /// The prefix of tokens inside a word.
    pub continuation_prefix: &'s str,
    /// The special tokens. Those in the vocabulary are also added tokens.
    pub specials: &'s SpecialTokens,
    /// More tokens that are matched in the text.
    pub added: &'s [AddedToken],
    /// A rule for each code point up to U+10FFFF.
    pub rules: &'s [Rule],
}

/// Why no section could be written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// The vocabulary has no token.
    EmptyVocabulary,
    /// The vocabulary does not have this token, which is required.
    MissingToken(String),
    /// More tokens than ids.
    TooManyTokens(usize),
    /// This token is too long.
    TokenTooLong {
        /// Its id.
        id: usize,
        /// Its length in bytes.
        len: usize,
    },
    /// An added token without text.
    EmptyAddedToken,
    /// More added tokens than a section holds.
    TooManyAddedTokens(usize),
    /// The longest word must lie in `1..=MAX_WORD_CHARS`.
    MaxWordChars(usize),
    /// The continuation prefix is too long.
    PrefixTooLong(usize),
    /// There is not one rule per code point, or the rule of this one cannot be stored.
    Rule(u32, &'static str),
    /// The section would reach 4 GiB.
    TooLarge,
    /// The reader refuses the written section.
    Unreadable(SectionError),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyVocabulary => f.write_str("the vocabulary is empty"),
            Self::MissingToken(token) => write!(f, "the vocabulary lacks {token}"),
            Self::TooManyTokens(n) => write!(f, "{n} tokens are more than a section holds"),
            Self::TokenTooLong { id, len } => write!(
                f,
                "token {id} has {len} bytes, more than the {} a section holds",
                layout::MAX_TOKEN_BYTES
            ),
            Self::EmptyAddedToken => f.write_str("an added token is empty"),
            Self::TooManyAddedTokens(n) => write!(
                f,
                "{n} added tokens are more than the {} a section holds",
                layout::MAX_ADDED
            ),
            Self::MaxWordChars(n) => {
                write!(f, "longest word of {n} characters, not in 1..={}", layout::MAX_WORD_CHARS)
            }
            Self::PrefixTooLong(n) => write!(f, "continuation prefix of {n} bytes is too long"),
            Self::Rule(code, problem) => write!(f, "rule of U+{code:04X}: {problem}"),
            Self::TooLarge => f.write_str("the tokenizer section would reach 4 GiB"),
            Self::Unreadable(error) => write!(f, "written section cannot be read: {error}"),
        }
    }
}

impl std::error::Error for BuildError {}

/// The section so far.
struct SectionBuffer(Vec<u8>);

impl SectionBuffer {
    fn set(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Appends a table, aligned to 64 bytes, and stores its offset in the field `at`.
    fn table(&mut self, at: usize, bytes: impl IntoIterator<Item = u8>) -> Result<(), BuildError> {
        self.0.resize(self.0.len().next_multiple_of(64), 0);
        let offset = u32::try_from(self.0.len()).map_err(|_| BuildError::TooLarge)?;
        self.set(at, offset);
        self.0.extend(bytes);
        Ok(())
    }

    fn words(&mut self, at: usize, words: &[u32]) -> Result<(), BuildError> {
        self.table(at, words.iter().flat_map(|word| word.to_le_bytes()))
    }
}

/// Writes the section.
///
/// # Errors
/// Any [`BuildError`]: what is wrong with `spec`.
pub fn write(spec: &Spec<'_>) -> Result<Vec<u8>, BuildError> {
    write_with(spec, &CharacterSets::default())
}

/// Writes the section. Added tokens with options need the sets of characters.
///
/// # Errors
/// Any [`BuildError`]: what is wrong with `spec`.
pub fn write_with(spec: &Spec<'_>, sets: &CharacterSets<'_>) -> Result<Vec<u8>, BuildError> {
    let vocab = spec.vocab;
    if vocab.iter().all(String::is_empty) {
        return Err(BuildError::EmptyVocabulary);
    }
    if vocab.len() >= (1 << layout::MAX_ID_BITS) - 1 {
        return Err(BuildError::TooManyTokens(vocab.len()));
    }
    if !(1..=layout::MAX_WORD_CHARS).contains(&spec.settings.max_word_chars) {
        return Err(BuildError::MaxWordChars(spec.settings.max_word_chars));
    }
    if let Some((id, token)) =
        vocab.iter().enumerate().find(|(_, token)| token.len() > layout::MAX_TOKEN_BYTES)
    {
        return Err(BuildError::TokenTooLong { id, len: token.len() });
    }
    // The last of equal tokens wins, as in the reference.
    let ids: HashMap<&str, u32> =
        vocab.iter().enumerate().map(|(id, token)| (token.as_str(), id as u32)).collect();
    let mut added: Vec<AddedToken> = spec.added.to_vec();
    let specials = spec.specials;
    let mut special = |token: &String| {
        let known = spec.added.iter().find(|other| other.text == *token).map(|other| other.id);
        let id = known.or_else(|| ids.get(token.as_str()).copied()).filter(|_| !token.is_empty());
        if let (Some(id), None) = (id, known) {
            added.push(AddedToken {
                text: token.clone(),
                id,
                special: true,
                ..AddedToken::default()
            });
        }
        id
    };
    let mut required =
        |token: &String| special(token).ok_or_else(|| BuildError::MissingToken(token.clone()));
    let unk = required(&specials.unk)?;
    let cls = required(&specials.cls)?;
    let sep = required(&specials.sep)?;
    let pad = special(&specials.pad).unwrap_or(layout::NO_ID);
    let mask = special(&specials.mask).unwrap_or(layout::NO_ID);

    let mut out = SectionBuffer(vec![0; layout::HEADER_LEN]);
    out.0[..4].copy_from_slice(&layout::MAGIC);
    out.set(field::VERSION, layout::VERSION);
    out.set(field::FLAGS, flags(&spec.settings));
    out.set(field::MAX_WORD_CHARS, spec.settings.max_word_chars as u32);
    for (at, id) in [
        (field::UNK, unk),
        (field::CLS, cls),
        (field::SEP, sep),
        (field::PAD, pad),
        (field::MASK, mask),
    ] {
        out.set(at, id);
    }
    write_added(&mut out, added)?;
    out.set(field::WORDS_LEN, sets.words.len() as u32);
    out.set(field::SPACED_LEN, sets.spaced.len() as u32);
    out.words(field::WORDS, sets.words)?;
    out.words(field::SPACED, sets.spaced)?;
    write_rules(&mut out, spec.rules)?;
    write_vocabulary(&mut out, vocab, &ids, spec.continuation_prefix)?;

    let len = u32::try_from(out.0.len()).map_err(|_| BuildError::TooLarge)?;
    out.set(field::SECTION_LEN, len);
    Tokenizer::from_bytes(&out.0).map_err(BuildError::Unreadable)?;
    Ok(out.0)
}

fn flags(settings: &Settings) -> u32 {
    let bit = |on: bool, bit: u32| if on { bit } else { 0 };
    bit(settings.lowercase, flag::LOWERCASE)
        | bit(settings.handle_chinese_chars, flag::CHINESE)
        | bit(settings.clean_text, flag::CLEAN)
        | bit(settings.strip_accents.is_some(), flag::STRIP_GIVEN)
        | bit(settings.strip_accents == Some(true), flag::STRIP)
}

fn write_added(out: &mut SectionBuffer, added: Vec<AddedToken>) -> Result<(), BuildError> {
    if added.len() > layout::MAX_ADDED as usize {
        return Err(BuildError::TooManyAddedTokens(added.len()));
    }
    if added.iter().any(|token| token.text.is_empty()) {
        return Err(BuildError::EmptyAddedToken);
    }
    // Literal tokens first, then by the bytes of their patterns, which is what the reader searches.
    let mut tokens: Vec<_> = added
        .iter()
        .map(|token| (token.normalized.is_some(), token.normalized.as_ref().unwrap_or(&token.text)))
        .zip(&added)
        .collect();
    tokens.sort_by_key(|(pattern, token)| (*pattern, !token.special, token.id));
    // Of equal patterns the first counts. The others are kept without pattern, at the front.
    for i in (1..tokens.len()).rev() {
        if tokens[i].0 == tokens[i - 1].0 {
            tokens[i].0.1 = const { &String::new() };
        }
    }
    tokens.sort_by_key(|(pattern, token)| (*pattern, token.id));
    let mut first_bytes = [[0u8; 32]; 2];
    let (mut entries, mut text) = (Vec::new(), Vec::new());
    for ((normalized, pattern), token) in &tokens {
        if let Some(&first) = pattern.as_bytes().first() {
            first_bytes[usize::from(*normalized)][usize::from(first / 8)] |= 1 << (first % 8);
        }
        let mut put = |bytes: &str| {
            let at = text.len() as u32;
            text.extend_from_slice(bytes.as_bytes());
            [at, bytes.len() as u32]
        };
        let at = put(&token.text);
        let pattern = if **pattern == token.text { at } else { put(pattern) };
        let bit = |on: bool, bit: u32| if on { bit } else { 0 };
        let flags = bit(token.single_word, layout::added::SINGLE_WORD)
            | bit(token.lstrip, layout::added::LSTRIP)
            | bit(token.rstrip, layout::added::RSTRIP)
            | bit(token.special, layout::added::SPECIAL);
        entries.extend([token.id, at[0], at[1], pattern[0], pattern[1], flags]);
    }
    let literal = tokens.iter().filter(|((normalized, _), _)| !normalized).count();
    out.0[field::LITERAL_FIRST..][..32].copy_from_slice(&first_bytes[0]);
    out.0[field::NORMALIZED_FIRST..][..32].copy_from_slice(&first_bytes[1]);
    out.set(field::ADDED_COUNT, tokens.len() as u32);
    out.set(field::LITERAL_COUNT, literal as u32);
    out.set(field::ADDED_TEXT_LEN, u32::try_from(text.len()).map_err(|_| BuildError::TooLarge)?);
    out.words(field::ADDED, &entries)?;
    out.table(field::ADDED_TEXT, text)
}

/// Stores each sequence of words once.
#[derive(Default)]
struct Interner {
    words: Vec<u32>,
    known: HashMap<Vec<u32>, usize>,
}

impl Interner {
    /// The offset of `words`.
    fn put(&mut self, words: Vec<u32>) -> usize {
        *self.known.entry(words).or_insert_with_key(|words| {
            self.words.extend_from_slice(words);
            self.words.len() - words.len()
        })
    }
}

const fn class_of(class: Class) -> u32 {
    match class {
        Class::Word => item::WORD,
        Class::Space => item::SPACE,
        Class::Isolated => item::ISOLATED,
    }
}

fn entry(
    code: u32,
    rule: &Rule,
    singles: &mut Interner,
    expansions: &mut Interner,
) -> Result<u16, BuildError> {
    let error = |problem| BuildError::Rule(code, problem);
    let with = |kind: u16, argument: usize| {
        if argument > action::MAX_ARGUMENT {
            return Err(error("the tables are full"));
        }
        Ok(kind | (argument as u16) << action::BITS)
    };
    match rule {
        Rule::Keep(Class::Word) => Ok(action::WORD),
        Rule::Keep(Class::Space) => Ok(action::SPACE),
        Rule::Keep(Class::Isolated) => Ok(action::ISOLATED),
        Rule::Drop => Ok(action::DROP),
        Rule::Hangul => Ok(action::HANGUL),
        Rule::Expand { starters, marks, anchor } => match (&starters[..], &marks[..]) {
            (&[], &[]) => with(action::MARK, 0),
            (&[], &[Mark { rank, remains: None }]) if !anchor => {
                with(action::MARK, usize::from(rank))
            }
            (&[(c, class)], &[]) => {
                let item = item::pack(c.into(), class_of(class), 0);
                with(action::SINGLE, singles.put(vec![item]))
            }
            _ => {
                if starters.len() > record::MAX_STARTERS || marks.len() > 16 {
                    return Err(error("the expansion is too long"));
                }
                let remains = marks.iter().any(|mark| mark.remains.is_some());
                let total = (starters.len() + marks.len()) as u32;
                let head = starters.len() as u32
                    | total << record::TOTAL_SHIFT
                    | if *anchor { record::ANCHOR } else { 0 }
                    | if remains { record::REMAINS } else { 0 };
                let starters = starters.iter().map(|&(c, class)| (c, class_of(class), 0));
                let marks = marks.iter().map(|mark| match mark.remains {
                    Some((c, class)) => (c, class_of(class), u32::from(mark.rank)),
                    None => ('\0', item::DROPPED, u32::from(mark.rank)),
                });
                let items = starters.chain(marks);
                let words = std::iter::once(head)
                    .chain(items.map(|(c, class, rank)| item::pack(c.into(), class, rank)));
                with(action::EXPAND, expansions.put(words.collect()))
            }
        },
    }
}

fn write_rules(out: &mut SectionBuffer, rules: &[Rule]) -> Result<(), BuildError> {
    if rules.len() != 0x11_0000 {
        return Err(BuildError::Rule(rules.len() as u32, "there must be one per code point"));
    }
    let (mut singles, mut expansions) = (Interner::default(), Interner::default());
    let mut blocks: Vec<u8> = Vec::new();
    let mut known: HashMap<Vec<u8>, u8> = HashMap::new();
    let mut index = Vec::new();
    for (block, rules) in rules.chunks(1 << layout::BLOCK_SHIFT).enumerate() {
        let mut bytes = Vec::with_capacity(2 << layout::BLOCK_SHIFT);
        for (i, rule) in rules.iter().enumerate() {
            let code = (block << layout::BLOCK_SHIFT) + i;
            bytes.extend(entry(code as u32, rule, &mut singles, &mut expansions)?.to_le_bytes());
        }
        let next = known.len();
        let number = match known.get(&bytes) {
            Some(&number) => number,
            None => {
                let number = u8::try_from(next).map_err(|_| {
                    BuildError::Rule((block << layout::BLOCK_SHIFT) as u32, "too many blocks")
                })?;
                blocks.extend_from_slice(&bytes);
                known.insert(bytes, number);
                number
            }
        };
        index.push(number);
    }
    let table: Vec<u8> = (0..128u8)
        .map(|byte| {
            let (c, class) = match &rules[usize::from(byte)] {
                Rule::Keep(class) => (char::from(byte), *class),
                Rule::Expand { starters, marks, .. } if marks.is_empty() => match starters[..] {
                    [one] => one,
                    _ => return ascii::SLOW,
                },
                _ => return ascii::SLOW,
            };
            match class {
                Class::Space => ascii::SPACE,
                // What is below would be taken for one of the special values.
                _ if !c.is_ascii() || c <= ' ' => ascii::SLOW,
                Class::Word => c as u8,
                Class::Isolated => c as u8 | ascii::ISOLATED,
            }
        })
        .collect();
    out.set(field::INDEX_LEN, index.len() as u32);
    out.set(field::BLOCK_COUNT, known.len() as u32);
    out.set(field::SINGLES_LEN, singles.words.len() as u32);
    out.set(field::EXPANSIONS_LEN, expansions.words.len() as u32);
    out.table(field::ASCII, table)?;
    out.table(field::INDEX, index)?;
    out.table(field::BLOCKS, blocks)?;
    out.words(field::SINGLES, &singles.words)?;
    out.words(field::EXPANSIONS, &expansions.words)
}

fn write_vocabulary(
    out: &mut SectionBuffer,
    vocab: &[String],
    ids: &HashMap<&str, u32>,
    prefix: &str,
) -> Result<(), BuildError> {
    if prefix.len() > layout::MAX_PREFIX {
        return Err(BuildError::PrefixTooLong(prefix.len()));
    }
    let id_bits = (usize::BITS - vocab.len().leading_zeros()).max(1);
    // The hashes of the tokens that can be found, in the order of their ids: the same file on
    // every host.
    let findable: Vec<(u32, u32)> = vocab
        .iter()
        .enumerate()
        .map(|(id, token)| (id as u32, token))
        .filter(|(id, token)| !token.is_empty() && ids.get(token.as_str()) == Some(id))
        .map(|(id, token)| {
            let state = token.bytes().fold(layout::HASH_SEED, layout::hash_byte);
            (id, layout::hash_finish(state))
        })
        .collect();
    // Two thirds full; fuller would be smaller, but most searches end at a free slot.
    let mut capacity = (findable.len() as u32 * 3 / 2).max(4);
    let (slots, max_probes) = loop {
        if let Some(table) = fill(&findable, capacity, id_bits) {
            break table;
        }
        capacity += capacity / 8;
    };
    let longest = |of: &dyn Fn(&str) -> Option<usize>| {
        vocab.iter().filter_map(|token| of(token)).max().unwrap_or(0) as u32
    };
    let continuation = |token: &str| token.strip_prefix(prefix).map(str::len);
    // A token that starts with the prefix can also be found at the start of a word.
    out.set(field::LONGEST_FIRST, longest(&|token| Some(token.len())));
    out.set(field::LONGEST_CONTINUATION, longest(&continuation));
    out.set(field::VOCAB_SIZE, vocab.len() as u32);
    out.set(field::ID_BITS, id_bits);
    out.set(field::CAPACITY, capacity);
    out.set(field::MAX_PROBES, max_probes);
    out.set(field::PREFIX_LEN, prefix.len() as u32);
    out.0[field::PREFIX..][..prefix.len()].copy_from_slice(prefix.as_bytes());

    let (mut bases, mut relative, mut text) = (Vec::new(), Vec::new(), Vec::new());
    for id in 0..=vocab.len() {
        if id % layout::TOKENS_PER_BASE == 0 {
            bases.push(u32::try_from(text.len()).map_err(|_| BuildError::TooLarge)?);
        }
        let within = text.len() - bases.last().map_or(0, |base| *base as usize);
        relative.extend((within as u16).to_le_bytes());
        if let Some(token) = vocab.get(id) {
            text.extend_from_slice(token.as_bytes());
        }
    }
    out.set(field::TEXT_LEN, u32::try_from(text.len()).map_err(|_| BuildError::TooLarge)?);
    out.words(field::SLOTS, &slots)?;
    out.words(field::BASES, &bases)?;
    out.table(field::RELATIVE, relative)?;
    out.table(field::TEXT, text)
}

/// Fills a hash table of this capacity. Returns the slots and the longest search; `None` if a search
/// would be too long.
fn fill(findable: &[(u32, u32)], capacity: u32, id_bits: u32) -> Option<(Vec<u32>, u32)> {
    let len = capacity as usize + layout::MAX_PROBES as usize;
    let mut slots = vec![layout::EMPTY_SLOT; len];
    let mut max_probes = 1;
    for &(id, hash) in findable {
        let home = layout::home_slot(hash, capacity);
        let probes = slots[home..].iter().position(|slot| *slot == layout::EMPTY_SLOT)?;
        if probes >= layout::MAX_PROBES as usize {
            return None;
        }
        slots[home + probes] = hash << id_bits | id;
        max_probes = max_probes.max(probes as u32 + 1);
    }
    slots.truncate(capacity as usize + max_probes as usize);
    Some((slots, max_probes))
}

const _: () = assert!(layout::TOKENS_PER_BASE * layout::MAX_TOKEN_BYTES <= u16::MAX as usize);
