//! The layout of the tokenizer section, which the writer and the reader share. The documentation of
//! [`crate::tokenizer`] describes it.

use std::ops::RangeInclusive;
/// First four bytes of the section.
pub const MAGIC: [u8; 4] = *b"WPC\0";
/// Layout version.
pub const VERSION: u32 = 1;
/// Length of the fixed header.
pub const HEADER_LEN: usize = 256;

/// Header fields: byte offsets of little-endian `u32` values.
pub mod field {
    pub const VERSION: usize = 4;
    pub const SECTION_LEN: usize = 8;
    pub const FLAGS: usize = 12;
    pub const MAX_WORD_CHARS: usize = 16;
    pub const VOCAB_SIZE: usize = 20;
    pub const UNK: usize = 24;
    pub const CLS: usize = 28;
    pub const SEP: usize = 32;
    pub const PAD: usize = 36;
    pub const MASK: usize = 40;
    pub const ID_BITS: usize = 44;
    pub const CAPACITY: usize = 48;
    pub const MAX_PROBES: usize = 52;
    pub const LONGEST_FIRST: usize = 56;
    pub const LONGEST_CONTINUATION: usize = 60;
    pub const PREFIX_LEN: usize = 64;
    pub const ADDED_COUNT: usize = 68;
    pub const SLOTS: usize = 72;
    pub const BASES: usize = 76;
    pub const RELATIVE: usize = 80;
    pub const TEXT: usize = 84;
    pub const TEXT_LEN: usize = 88;
    pub const ADDED: usize = 92;
    pub const ADDED_TEXT: usize = 96;
    pub const ADDED_TEXT_LEN: usize = 100;
    pub const INDEX: usize = 104;
    pub const INDEX_LEN: usize = 108;
    pub const BLOCKS: usize = 112;
    pub const BLOCK_COUNT: usize = 116;
    pub const SINGLES: usize = 120;
    pub const SINGLES_LEN: usize = 124;
    pub const EXPANSIONS: usize = 128;
    pub const EXPANSIONS_LEN: usize = 132;
    pub const ASCII: usize = 136;
    /// Added tokens that are matched in the original text; they come first.
    pub const LITERAL_COUNT: usize = 140;
    pub const WORDS: usize = 144;
    pub const WORDS_LEN: usize = 148;
    pub const SPACED: usize = 152;
    pub const SPACED_LEN: usize = 156;
    /// 16 bytes, zero-padded.
    pub const PREFIX: usize = 160;
    /// 32 bytes: bit `b % 8` of byte `b / 8` is set if the pattern of a literal token starts with the byte `b`.
    pub const LITERAL_FIRST: usize = 176;
    /// The same for the patterns of normalised tokens.
    pub const NORMALIZED_FIRST: usize = 208;
}

/// Bits of the `FLAGS` field.
pub mod flag {
    pub const LOWERCASE: u32 = 1;
    pub const CHINESE: u32 = 1 << 1;
    pub const CLEAN: u32 = 1 << 2;
    /// `strip_accents` was given explicitly.
    pub const STRIP_GIVEN: u32 = 1 << 3;
    /// The value of `strip_accents`.
    pub const STRIP: u32 = 1 << 4;
}

/// Stands for an absent id.
pub const NO_ID: u32 = u32::MAX;
/// A free slot of the hash table.
pub const EMPTY_SLOT: u32 = u32::MAX;
/// Most bits of a slot that hold the token id.
pub const MAX_ID_BITS: u32 = 24;
/// Longest token of the vocabulary, in bytes: 32 tokens must fit the 16-bit relative offsets.
pub const MAX_TOKEN_BYTES: usize = 2000;
/// Tokens per `u32` base of the token offsets.
pub const TOKENS_PER_BASE: usize = 32;
/// Upper limit of `max_word_chars` (Google's code uses 200, Hugging Face 100).
pub const MAX_WORD_CHARS: usize = 200;
/// Longest continuation prefix, in bytes.
pub const MAX_PREFIX: usize = 16;
/// Most slots that a search visits.
pub const MAX_PROBES: u32 = 64;
/// Most added tokens a section may hold.
pub const MAX_ADDED: u32 = 1 << 20;
/// Bytes of one added-token entry: id, offset and length of its text, offset and length of its pattern, flags.
pub const ADDED_ENTRY: usize = 24;

/// Flags of an added token.
pub mod added {
    pub const SINGLE_WORD: u32 = 1;
    pub const LSTRIP: u32 = 1 << 1;
    pub const RSTRIP: u32 = 1 << 2;
    /// Decoding leaves the token out. The runtime does not decode.
    #[cfg(feature = "writer")]
    pub const SPECIAL: u32 = 1 << 3;
}

/// Code points in a block of the normaliser table: `1 << BLOCK_SHIFT`.
pub const BLOCK_SHIFT: u32 = 7;
/// Blocks that cover all code points.
pub const INDEX_BLOCKS: usize = 0x11_0000 >> BLOCK_SHIFT;

/// What a code point becomes: the low three bits of a normaliser entry. The other bits are its argument.
pub mod action {
    pub const WORD: u16 = 0;
    pub const DROP: u16 = 1;
    pub const SPACE: u16 = 2;
    pub const ISOLATED: u16 = 3;
    pub const MARK: u16 = 4;
    pub const SINGLE: u16 = 5;
    pub const EXPAND: u16 = 6;
    pub const HANGUL: u16 = 7;
    pub const BITS: u32 = 3;
    pub const MASK: u16 = 7;
    #[cfg(feature = "writer")]
    pub const MAX_ARGUMENT: usize = (1 << 13) - 1;
}

/// Items of `SINGLES` and of expansion records: a code point (21 bits), a class (2 bits), a rank.
pub mod item {
    pub const WORD: u32 = 0;
    pub const SPACE: u32 = 1;
    pub const ISOLATED: u32 = 2;
    pub const DROPPED: u32 = 3;
    pub const CODE_MASK: u32 = (1 << 21) - 1;
    pub const CLASS_SHIFT: u32 = 21;
    pub const CLASS_MASK: u32 = 3;
    pub const RANK_SHIFT: u32 = 24;

    /// Packs an item.
    pub const fn pack(code: u32, class: u32, rank: u32) -> u32 {
        (code & CODE_MASK) | ((class & CLASS_MASK) << CLASS_SHIFT) | (rank << RANK_SHIFT)
    }
    /// The class of an item.
    pub const fn class(item: u32) -> u32 {
        (item >> CLASS_SHIFT) & CLASS_MASK
    }
    /// The rank of an item's canonical combining class.
    pub const fn rank(item: u32) -> u8 {
        (item >> RANK_SHIFT) as u8
    }
}

/// Header word of an expansion record.
pub mod record {
    /// Most starters of a record.
    pub const MAX_STARTERS: usize = 8;
    pub const STARTERS_MASK: u32 = 0xff;
    pub const TOTAL_SHIFT: u32 = 8;
    /// The decomposition holds a starter (combining class 0), which ends a run of marks.
    pub const ANCHOR: u32 = 1 << 16;
    /// A mark of this record remains when accents are stripped.
    pub const REMAINS: u32 = 1 << 17;
}

/// Entries of the ASCII table: 0 for the slow path, [`ascii::SPACE`] for white space, otherwise the
/// normalised character, with the high bit set if it is a word of its own.
pub mod ascii {
    pub const SLOW: u8 = 0;
    pub const SPACE: u8 = b' ';
    pub const ISOLATED: u8 = 0x80;
}

/// The precomposed Hangul syllables.
pub const HANGUL: RangeInclusive<u32> = 0xAC00..=0xD7A3;

/// The two or three jamo of a Hangul syllable (Unicode standard, section 3.12); the third is 0 for
/// two jamo.
pub const fn decompose_hangul(code: u32) -> [u32; 3] {
    let s = code.wrapping_sub(*HANGUL.start());
    let t = s % 28;
    [0x1100 + s / 588, 0x1161 + (s % 588) / 28, if t == 0 { 0 } else { 0x11A7 + t }]
}

/// State of the token hash before the first byte (FNV-1a).
pub const HASH_SEED: u32 = 0x811c_9dc5;

/// Adds a byte to the hash. FNV-1a works byte by byte, so one pass over a word gives the hashes of all
/// its prefixes.
#[inline(always)]
pub const fn hash_byte(state: u32, byte: u8) -> u32 {
    (state ^ byte as u32).wrapping_mul(0x0100_0193)
}

/// Mixes a finished state (the finaliser of MurmurHash3): FNV-1a mixes its high bits poorly.
#[inline(always)]
pub const fn hash_finish(state: u32) -> u32 {
    let mut h = state;
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

/// The slot at which the search for a finished hash starts.
#[inline(always)]
pub const fn home_slot(hash: u32, capacity: u32) -> usize {
    ((hash as u64 * capacity as u64) >> 32) as usize
}
