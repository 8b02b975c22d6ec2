//! WordPiece with offsets, without allocation, driven by tables in the model file.
//!
//! The reference is Hugging Face's `tokenizers` crate with its `BertNormalizer`, `BertPreTokenizer`,
//! `WordPiece` and `BertProcessing`, which follow `tokenization.py` of <https://github.com/google-research/bert>
//! (`BasicTokenizer`, then `WordpieceTokenizer`) and add offsets. Ids and offsets are equal to the
//! reference's, quirks included: places of combining marks that NFD sorted, `[CLS]` and its like
//! matched literally in the text before it is normalised, words of more than 100 characters unknown.
//!
//! No table of Unicode is compiled in. The writer asks the reference what becomes of each code point
//! under the settings of the checkpoint, and stores the answers; the reader looks them up.
//!
//! # The section
//!
//! One run of bytes, all numbers little-endian, offsets from the first byte of the section. It starts
//! at a multiple of 64 in the model file, but nothing relies on that. The header is 256 bytes; the
//! constants of [`layout`] name its fields ([`layout::field`]). Tables follow in any order.
//!
//! | offset | field |
//! |---|---|
//! | 0 | `"WPC\0"`, then version (1), length of the section |
//! | 12 | flags: 1 lower case, 2 spaces around Chinese characters, 4 clean text, 8 `strip_accents` was given, 16 its value |
//! | 16 | characters in the longest word; length of the vocabulary; ids of `[UNK]` `[CLS]` `[SEP]` `[PAD]` `[MASK]` (all ones: absent) |
//! | 44 | bits of an id in a slot, capacity of the hash table, longest search in slots |
//! | 56 | longest token in bytes at the start of a word, inside a word (without prefix), length of the prefix, number of added tokens |
//! | 72 | offsets of the tables (and lengths where they do not follow), see below |
//! | 160 | the continuation prefix (`##`), 16 bytes, zero-padded |
//! | 176 | 256 bits: the bytes some added token starts with |
//!
//! **Vocabulary.** `text` holds all tokens one after another in the order of their ids. Token `i` is
//! `text[offset(i)..offset(i + 1)]` with `offset(i) = bases[i / 32] + relative[i]` (`u32` and `u16`).
//! An empty token is a gap. Of equal tokens the last is found, as in the reference.
//!
//! **Hash table.** `capacity + longest search` slots of `u32`. The hash of a token is 32-bit FNV-1a
//! over its bytes (for continuations: prefix, then piece), finished like MurmurHash3. The search
//! starts at slot `hash * capacity >> 32` and goes up one by one, until a free slot (all ones) or
//! the longest search. A slot is `hash << bits | id`, cut to 32 bits: nothing is built at load, a
//! pass over a word gives the hashes of all its prefixes, and few texts are compared in vain.
//!
//! **Added tokens**: `id`, offset and length in `added text` (`u32` each), longest first. They may
//! lie beyond the vocabulary.
//!
//! **Normaliser.** Code point `c` has the entry `blocks[index[c >> 7] * 128 + c % 128]` (`index`: one
//! byte a block, `blocks`: `u16`). Its low three bits say what becomes of the character, the others
//! are an argument `a`:
//!
//! | | |
//! |---|---|
//! | 0 word, 2 white space, 3 isolated | itself, part of a word / between words / a word of its own (punctuation, Chinese characters) |
//! | 1 drop | removed by cleaning |
//! | 4 mark | removed as an accent; `a` ranks its canonical combining class (0: class 0) |
//! | 5 single | the item `singles[a]` |
//! | 6 expand | the record at `expansions[a]` |
//! | 7 Hangul | two or three jamo, by the arithmetic of the Unicode standard |
//!
//! An item is `code point | class << 21 | rank << 24` (class: 0 word, 1 white space, 2 isolated, 3
//! dropped). A record is a head, `starters | total << 8 | flags << 16`, and `total` items: first the
//! characters of combining class 0 that remain, then the marks of the decomposition. Flags: 1 the
//! decomposition holds a character of class 0 (even if it is dropped), 2 one of its marks remains.
//! Where marks remain (rare), the run of marks around them is sorted by rank, stably, and the k-th
//! character that is first in its decomposition is given the place of the k-th source character.
//!
//! **ASCII table**, 128 bytes: 0 look in the normaliser, 32 white space, otherwise the character to
//! use, plus 128 if it is a word of its own. No byte that starts an added token is in it.

mod encode;
pub mod layout;
mod offsets;
mod read;
mod scan;
mod windows;
mod wordpiece;
#[cfg(feature = "writer")]
pub mod writer;

pub use encode::{
    Encoded, Limits, NO_WORD, Source, Span, Token, TokenBuffer, Tokens, Truncation, Windows,
};
pub use layout::MAX_WORD_CHARS;
pub use offsets::{Offset, OffsetCounter, OffsetUnit, convert_offsets};
pub use windows::{WindowPlan, default_overlap};

use core::fmt;
use layout::flag;

/// The switches of `BertNormalizer`, and the longest word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Lower case (`do_lower_case`).
    pub lowercase: bool,
    /// Remove accents; unset follows `lowercase`.
    pub strip_accents: Option<bool>,
    /// Put spaces around Chinese characters (`tokenize_chinese_chars`).
    pub handle_chinese_chars: bool,
    /// Remove control characters, make all white space equal.
    pub clean_text: bool,
    /// Words of more characters become `[UNK]`: 100 in Hugging Face's code, 200 in Google's.
    pub max_word_chars: usize,
}

impl Settings {
    /// `bert-base-uncased`.
    pub const UNCASED: Self = Self {
        lowercase: true,
        strip_accents: None,
        handle_chinese_chars: true,
        clean_text: true,
        max_word_chars: 100,
    };
    /// `bert-base-cased` and `bert-base-chinese`.
    pub const CASED: Self = Self { lowercase: false, ..Self::UNCASED };

    /// Whether accents are removed.
    pub const fn strips_accents(&self) -> bool {
        match self.strip_accents {
            Some(strip) => strip,
            None => self.lowercase,
        }
    }
}

/// Why a section cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SectionError {
    /// It ends before its own length.
    TooShort,
    /// It does not start with the right four bytes.
    BadMagic,
    /// It was written by a newer writer.
    UnsupportedVersion(u32),
    /// This table does not lie inside of the section.
    OutOfBounds(&'static str),
    /// This field has a value that cannot be.
    BadField(&'static str),
}

impl fmt::Display for SectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort => f.write_str("tokenizer section is cut short"),
            Self::BadMagic => f.write_str("not a tokenizer section"),
            Self::UnsupportedVersion(version) => {
                write!(f, "tokenizer section has version {version}, known is {}", layout::VERSION)
            }
            Self::OutOfBounds(table) => write!(f, "tokenizer section: {table} out of bounds"),
            Self::BadField(name) => write!(f, "tokenizer section: impossible {name}"),
        }
    }
}

impl core::error::Error for SectionError {}

/// Why a text could not be tokenized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenizeError {
    /// The text is no UTF-8; the character at byte `at` is broken.
    InvalidUtf8 {
        /// Byte position in the text.
        at: usize,
    },
    /// The text has more bytes than offsets can tell (4 GiB).
    TextTooLong,
    /// A buffer of the caller has not enough room.
    BufferTooSmall {
        /// Tokens it must hold.
        needed: usize,
    },
    /// `max_length` does not even hold the special tokens.
    LimitTooSmall {
        /// Special tokens of such an input.
        needed: usize,
    },
    /// The input is too long, and nothing may be cut.
    TooLong {
        /// Tokens there was room for, besides the special ones.
        max_length: usize,
    },
    /// Only the second text may be cut, and there is none.
    NoSecondText,
    /// The text that may be cut is too short for that.
    CannotTruncate,
    /// Windows cannot share as many tokens as they hold.
    OverlapTooLarge {
        /// Tokens of the text in a window.
        window: usize,
    },
}

impl fmt::Display for TokenizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidUtf8 { at } => write!(f, "invalid UTF-8 at byte {at}"),
            Self::TextTooLong => f.write_str("text is longer than 4 GiB"),
            Self::BufferTooSmall { needed } => write!(f, "buffer holds less than {needed} tokens"),
            Self::LimitTooSmall { needed } => {
                write!(f, "limit is below the {needed} special tokens of the input")
            }
            Self::TooLong { max_length } => {
                write!(f, "input has more than {max_length} tokens and must not be cut")
            }
            Self::NoSecondText => f.write_str("only the second text may be cut, but there is none"),
            Self::CannotTruncate => {
                f.write_str("the text that may be cut is too short to reach the limit")
            }
            Self::OverlapTooLarge { window } => {
                write!(f, "the overlap must be below the {window} tokens of a window")
            }
        }
    }
}

impl core::error::Error for TokenizeError {}

/// A tokenizer that reads its tables where they are.
#[derive(Clone, Copy)]
pub struct Tokenizer<'a> {
    tables: read::Tables<'a>,
}

impl fmt::Debug for Tokenizer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("settings", &self.settings())
            .field("vocab_len", &self.vocab_len())
            .finish_non_exhaustive()
    }
}

impl<'a> Tokenizer<'a> {
    /// Opens a section. Bytes behind its own length are ignored.
    ///
    /// Checks the header and the bounds of the tables, and reads nothing else. Whatever the tables
    /// hold, all functions end in bounded time with an answer or an error; a section that was
    /// tampered with gives wrong tokens, so compare checksums where that matters.
    ///
    /// # Errors
    /// Any [`SectionError`].
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, SectionError> {
        Ok(Self { tables: read::Tables::parse(bytes)? })
    }

    /// The settings the section was written for.
    pub fn settings(&self) -> Settings {
        let is = |bit: u32| self.tables.flags & bit != 0;
        Settings {
            lowercase: is(flag::LOWERCASE),
            strip_accents: is(flag::STRIP_GIVEN).then_some(is(flag::STRIP)),
            handle_chinese_chars: is(flag::CHINESE),
            clean_text: is(flag::CLEAN),
            max_word_chars: self.tables.max_word_chars as usize,
        }
    }

    /// Number of ids of the vocabulary, gaps included, added tokens beyond it not.
    pub fn vocab_len(&self) -> usize {
        self.tables.vocabulary.len as usize
    }

    /// The text of a token, with its `##`. `None` for gaps and ids that do not exist.
    pub fn token(&self, id: u32) -> Option<&'a str> {
        let in_vocabulary = self.tables.vocabulary.bytes(id).filter(|text| !text.is_empty());
        let bytes = in_vocabulary.or_else(|| {
            self.tables.added.iter().find(|(other, _)| *other == id).map(|(_, text)| text)
        })?;
        core::str::from_utf8(bytes).ok()
    }

    /// The id of a token (continuations with their `##`).
    pub fn id(&self, token: &str) -> Option<u32> {
        let bytes = token.as_bytes();
        let added = self.tables.added.iter().find(|(_, text)| *text == bytes);
        added.map(|(id, _)| id).or_else(|| {
            let hash = |state, &byte: &u8| layout::hash_byte(state, byte);
            let state = bytes.iter().fold(layout::HASH_SEED, hash);
            if bytes.is_empty() { None } else { self.tables.vocabulary.find(state, false, bytes) }
        })
    }

    /// Id of the unknown token.
    pub fn unk_id(&self) -> u32 {
        self.tables.unk
    }

    /// Id of the token put in front of every input.
    pub fn cls_id(&self) -> u32 {
        self.tables.cls
    }

    /// Id of the token put behind every text.
    pub fn sep_id(&self) -> u32 {
        self.tables.sep
    }

    /// Id of the padding token.
    pub fn pad_id(&self) -> Option<u32> {
        Some(self.tables.pad).filter(|id| *id != layout::NO_ID)
    }

    /// Id of the token for masked words.
    pub fn mask_id(&self) -> Option<u32> {
        Some(self.tables.mask).filter(|id| *id != layout::NO_ID)
    }
}
