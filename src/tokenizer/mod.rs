//! WordPiece with offsets, without allocation, driven by tables in the model file.
//!
//! The reference is Hugging Face's `tokenizers` crate with its `BertNormalizer`, `BertPreTokenizer`,
//! `WordPiece` and `BertProcessing`, which follow `tokenization.py` of <https://github.com/google-research/bert>
//! (`BasicTokenizer`, then `WordpieceTokenizer`) and add offsets. Ids and offsets are equal to the
//! reference's, including its quirks: the offsets of combining marks that NFD reorders, added tokens such as
//! `[CLS]` in the text itself, words of more than 100 characters unknown.
//!
//! No Unicode table is compiled in. The converter asks the reference what each code point becomes under
//! the settings of the checkpoint and stores the answers; the reader looks them up.
//!
//! # The section
//!
//! All numbers are little-endian, and all offsets count from the first byte of the section. The section
//! starts at a multiple of 64 in the model file, but nothing relies on that. The header has 256 bytes, in
//! fields of u32 except for the last two. Tables follow in any order.
//!
//! | offset | field |
//! |---|---|
//! | 0 | `"WPC\0"`, version (1), length of the section |
//! | 12 | flags: 1 lower case, 2 spaces around Chinese characters, 4 clean text, 8 `strip_accents` was given, 16 its value |
//! | 16 | characters of the longest word; `vocab_size`; ids of `[UNK]` `[CLS]` `[SEP]` `[PAD]` `[MASK]` (all ones: absent) |
//! | 44 | bits of an id in a slot, capacity of the hash table, slots of the longest search |
//! | 56 | longest token in bytes at the start of a word, inside a word (without prefix), length of the prefix, number of added tokens |
//! | 72 | offsets of hash table, `bases`, `relative`, `text`; bytes of `text` |
//! | 92 | offsets of added tokens and added text; bytes of added text |
//! | 104 | offsets and lengths (in bytes, blocks, u32, u32) of `index`, `blocks`, `singles`, `expansions`; offset of the ASCII table |
//! | 140 | number of literal added tokens; offset and length (in u32) of `words`, of `spaced` |
//! | 160 | the continuation prefix (`##`), 16 bytes, zero-padded |
//! | 176 | 256 bits: bit `b % 8` of byte `b / 8` is set if the pattern of a literal added token starts with the byte `b` |
//! | 208 | the same for normalised added tokens |
//!
//! **Vocabulary.** `text` holds all tokens one after another in the order of their ids. Token `i` is
//! `text[offset(i)..offset(i + 1)]` with `offset(i) = bases[i / 32] + relative[i]` (`u32` and `u16`).
//! An empty token is a gap. If tokens are equal, the last one is found, as in the reference.
//!
//! **Hash table.** `capacity + longest search` slots of `u32`. The hash of a token is 32-bit FNV-1a
//! over its bytes (for continuations: prefix, then piece), with the finaliser of MurmurHash3. The
//! search starts at slot `hash * capacity >> 32` and goes up one slot at a time, up to a free slot (all
//! ones) or the longest search. A slot is `hash << bits | id`, truncated to 32 bits. Nothing is built at
//! load, one pass over a word gives the hashes of all its prefixes, and few comparisons of texts fail.
//!
//! **Added tokens**: `id`, offset and length of the text, offset and length of the pattern (both in `added
//! text`), flags (`u32` each). Flags: 1 single word, 2 takes in the white space before it, 4 after it, 8 special
//! (decoding leaves it out). The literal tokens come first; their pattern is their text. The others are normalised
//! tokens; their pattern is their normalised text. Each of the two lists is in the order of the bytes of the
//! patterns, which differ. A token with an empty pattern is never found. Ids may lie beyond the vocabulary.
//!
//! The text is searched for literal tokens, from left to right; where several match, the longest counts. They cut
//! the text into pieces, and each piece is normalised on its own. The normalised piece, with the spaces that the
//! normaliser puts around characters of `spaced`, is searched for normalised tokens in the same way, and what lies
//! between the tokens is split into words. For each match `m..e` of a search, in this order:
//!
//! - The next match starts at `e` or later, whatever becomes of this one.
//! - A single word counts only if the characters before `m` and at `e` are not in `words`. Otherwise it is text.
//! - White space before `m` is taken in as far as the end of the token before, with its white space. If that end
//!   lies beyond `m`, the token starts there. White space at `e` is taken in to its end. White space is the property
//!   `White_Space`.
//! - If nothing is left of the token, there is no token.
//!
//! The offsets of a token are the start of its first and the end of its last character in the original text.
//!
//! `words` and `spaced` are sets of code points: those (`u32`) at which the set starts or ends, ascending. A code
//! point is in the set if an odd number of them is not above it. `words` has the characters of words (`\w`) and is
//! empty without single words; `spaced` is empty without normalised tokens.
//!
//! **Normaliser.** Code point `c` has the entry `blocks[index[c >> 7] * 128 + c % 128]` (`index`: one
//! byte per block, `blocks`: `u16`). Its low three bits say what the character becomes; the other bits
//! are an argument `a`:
//!
//! | | |
//! |---|---|
//! | 0 word, 2 white space, 3 isolated | itself: part of a word / between words / a word of its own (punctuation, Chinese characters) |
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
//! Where marks remain (rare), the run of marks around them is sorted by rank, stably. The k-th character
//! that is first in its decomposition then gets the offsets of the k-th source character.
//!
//! **ASCII table**, 128 bytes: 0 for "use the normaliser", 32 for white space, otherwise the character to
//! use, plus 128 if it is a word of its own.

mod encode;
mod layout;
mod offsets;
mod read;
mod scan;
mod windows;
mod wordpiece;
#[cfg(feature = "writer")]
#[doc(hidden)]
pub mod writer;

pub use encode::{
    Encoded, Limits, NO_WORD, Source, Span, Token, TokenBuffer, Tokens, Truncation, Windows,
};
pub(crate) use layout::MAX_WORD_CHARS;
pub use offsets::Offset;
pub(crate) use offsets::OffsetCounter;
#[doc(hidden)]
pub use offsets::{OffsetUnit, convert_offsets};
#[doc(hidden)]
pub use windows::WindowPlan;
pub use windows::default_overlap;

use crate::error::TooSmall;
use core::fmt;
use layout::flag;

/// The settings of `BertNormalizer`, and the longest word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Lower case (`do_lower_case`).
    pub lowercase: bool,
    /// Remove accents; `None` follows `lowercase`.
    pub strip_accents: Option<bool>,
    /// Put spaces around Chinese characters (`tokenize_chinese_chars`).
    pub handle_chinese_chars: bool,
    /// Remove control characters, replace all white space by spaces.
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
    /// It does not start with the four bytes of a tokenizer section.
    BadMagic,
    /// A version that this library does not read.
    UnsupportedVersion(u32),
    /// This table does not lie within the section.
    OutOfBounds(&'static str),
    /// This field has a value outside of its range.
    BadField(&'static str),
}

impl fmt::Display for SectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort => f.write_str("tokenizer section is cut short"),
            Self::BadMagic => f.write_str("not a tokenizer section"),
            Self::UnsupportedVersion(version) => {
                write!(
                    f,
                    "tokenizer section of version {version}, this library reads {}",
                    layout::VERSION
                )
            }
            Self::OutOfBounds(table) => write!(f, "tokenizer section: {table} out of bounds"),
            Self::BadField(name) => write!(f, "tokenizer section: {name} is out of range"),
        }
    }
}

impl core::error::Error for SectionError {}

/// Why a text could not be tokenized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenizeError {
    /// The text is not UTF-8; the character at byte `at` is invalid.
    InvalidUtf8 {
        /// Byte position in the text.
        at: usize,
    },
    /// The text has more bytes than offsets can count (4 GiB).
    TextTooLong,
    /// A buffer of the caller is too small.
    TooSmall(TooSmall),
    /// `max_length` is below the number of special tokens.
    LimitTooSmall {
        /// Special tokens of this input.
        needed: usize,
    },
    /// The input is too long, and truncation is off.
    TooLong {
        /// Tokens that fit, without the special ones.
        max_length: usize,
    },
    /// Only the second text may be truncated, and there is none.
    NoSecondText,
    /// The text that may be truncated is too short.
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
            Self::TooSmall(error) => error.fmt(f),
            Self::LimitTooSmall { needed } => {
                write!(f, "limit is below the {needed} special tokens of the input")
            }
            Self::TooLong { max_length } => {
                write!(f, "input has more than {max_length} tokens and must not be truncated")
            }
            Self::NoSecondText => {
                f.write_str("only the second text may be truncated, but there is none")
            }
            Self::CannotTruncate => {
                f.write_str("the text that may be truncated is too short to reach the limit")
            }
            Self::OverlapTooLarge { window } => {
                write!(f, "the overlap must be below the {window} tokens of a window")
            }
        }
    }
}

impl core::error::Error for TokenizeError {}

/// A tokenizer that reads its tables in place.
#[derive(Clone, Copy)]
pub struct Tokenizer<'a> {
    tables: read::Tables<'a>,
}

impl fmt::Debug for Tokenizer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("settings", &self.settings())
            .field("vocab_size", &self.vocab_size())
            .finish_non_exhaustive()
    }
}

impl<'a> Tokenizer<'a> {
    /// Opens a section. Bytes after its own length are ignored.
    ///
    /// Checks the header and the bounds of the tables, and reads nothing else. Whatever the tables
    /// hold, all functions end in bounded time with an answer or an error. A section that was
    /// tampered with gives wrong tokens; [`crate::Model::verify`] notices it.
    ///
    /// # Errors
    /// Any [`SectionError`].
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, SectionError> {
        Ok(Self { tables: read::Tables::parse(bytes)? })
    }

    /// The settings that the section was written for.
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

    /// Number of ids of the vocabulary, with gaps, without added tokens beyond it.
    pub fn vocab_size(&self) -> usize {
        self.tables.vocabulary.len as usize
    }

    /// The text of a token, with its `##`; `None` for gaps and ids that do not exist.
    pub fn token(&self, id: u32) -> Option<&'a str> {
        let in_vocabulary = self.tables.vocabulary.bytes(id).filter(|text| !text.is_empty());
        let bytes = in_vocabulary
            .or_else(|| self.added().find(|token| token.id == id).map(|token| token.text))?;
        core::str::from_utf8(bytes).ok()
    }

    /// The id of a token; a continuation has its `##`.
    pub fn id(&self, token: &str) -> Option<u32> {
        let bytes = token.as_bytes();
        let added = self.added().find(|token| token.text == bytes);
        added.map(|token| token.id).or_else(|| {
            let hash = |state, &byte: &u8| layout::hash_byte(state, byte);
            let state = bytes.iter().fold(layout::HASH_SEED, hash);
            if bytes.is_empty() { None } else { self.tables.vocabulary.find(state, false, bytes) }
        })
    }

    fn added(&self) -> impl Iterator<Item = read::AddedToken<'a>> {
        self.tables.literal.iter().chain(self.tables.normalized.iter())
    }

    /// Id of `[UNK]`, for unknown words.
    pub fn unk_id(&self) -> u32 {
        self.tables.unk
    }

    /// Id of `[CLS]`, the first token of every input.
    pub fn cls_id(&self) -> u32 {
        self.tables.cls
    }

    /// Id of `[SEP]`, which follows every text.
    pub fn sep_id(&self) -> u32 {
        self.tables.sep
    }

    /// Id of `[PAD]`, if the vocabulary has it.
    pub fn pad_id(&self) -> Option<u32> {
        Some(self.tables.pad).filter(|id| *id != layout::NO_ID)
    }

    /// Id of `[MASK]`, if the vocabulary has it.
    pub fn mask_id(&self) -> Option<u32> {
        Some(self.tables.mask).filter(|id| *id != layout::NO_ID)
    }
}
