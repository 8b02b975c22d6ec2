//! The tables of a section, read in place.

use super::SectionError;
use super::layout::{self, action, field};

/// A little-endian `u32` at byte `at`.
#[inline(always)]
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A little-endian `u16` at byte `at`.
#[inline(always)]
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The vocabulary: token texts and the hash table that finds them.
#[derive(Clone, Copy)]
pub(super) struct Vocabulary<'a> {
    pub len: u32,
    slots: &'a [u8],
    capacity: u32,
    max_probes: u32,
    id_bits: u32,
    bases: &'a [u8],
    relative: &'a [u8],
    text: &'a [u8],
    prefix: &'a [u8],
    /// Hash state after the continuation prefix.
    pub prefix_state: u32,
    /// Longest token, in bytes, at the start of a word.
    pub longest_first: usize,
    /// Longest token, in bytes without prefix, inside a word.
    pub longest_continuation: usize,
}

impl<'a> Vocabulary<'a> {
    /// The bytes of token `id`, empty for a gap.
    #[inline]
    pub fn bytes(&self, id: u32) -> Option<&'a [u8]> {
        if id >= self.len {
            return None;
        }
        self.text.get(self.offset(id as usize)?..self.offset(id as usize + 1)?)
    }

    #[inline(always)]
    fn offset(&self, id: usize) -> Option<usize> {
        let base = u32_at(self.bases, id / layout::TOKENS_PER_BASE * 4)?;
        Some(base as usize + u16_at(self.relative, id * 2)? as usize)
    }

    /// Finds the token `prefix + piece` (the prefix only for continuations) by its hash state.
    #[inline(always)]
    pub fn find(&self, state: u32, continuation: bool, piece: &[u8]) -> Option<u32> {
        let hash = layout::hash_finish(state);
        let home = layout::home_slot(hash, self.capacity);
        let fingerprint = hash << self.id_bits;
        let first = home * 4;
        let window = self.slots.get(first..first + self.max_probes as usize * 4)?;
        for slot in window.as_chunks::<4>().0 {
            let slot = u32::from_le_bytes(*slot);
            if slot == layout::EMPTY_SLOT {
                return None;
            }
            // Equal fingerprints cancel, and the id is left.
            let id = slot ^ fingerprint;
            if id >> self.id_bits == 0 && self.is_token(id, continuation, piece) {
                return Some(id);
            }
        }
        None
    }

    #[inline(always)]
    fn is_token(&self, id: u32, continuation: bool, piece: &[u8]) -> bool {
        let Some(text) = self.bytes(id) else { return false };
        if continuation {
            text.len() == self.prefix.len() + piece.len()
                && text.starts_with(self.prefix)
                && text.ends_with(piece)
        } else {
            text == piece
        }
    }
}

/// An added token.
#[derive(Clone, Copy)]
pub(super) struct AddedToken<'a> {
    pub id: u32,
    pub text: &'a [u8],
    /// What is searched for. Empty: the token is never found.
    pub pattern: &'a [u8],
    /// Bits of [`layout::added`].
    pub flags: u32,
}

/// Added tokens, in the order of their patterns' bytes.
#[derive(Clone, Copy)]
pub(super) struct Patterns<'a> {
    first_bytes: &'a [u8; 32],
    /// The byte that all patterns start with, if there is only one.
    only_first: Option<u8>,
    entries: &'a [u8],
    text: &'a [u8],
}

/// The patterns that start with the bytes read so far.
#[derive(Clone, Copy)]
pub(super) struct Candidates {
    from: usize,
    to: usize,
    depth: usize,
}

impl<'a> Patterns<'a> {
    fn new(first_bytes: &'a [u8; 32], entries: &'a [u8], text: &'a [u8]) -> Self {
        let mut firsts = (0..=u8::MAX).filter(|byte| has_bit(first_bytes, *byte));
        let only_first = firsts.next().filter(|_| firsts.next().is_none());
        Self { first_bytes, only_first, entries, text }
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn get(&self, i: usize) -> Option<AddedToken<'a>> {
        let entry = self.entries.get(i * layout::ADDED_ENTRY..(i + 1) * layout::ADDED_ENTRY)?;
        let slice = |at: usize| {
            let start = u32_at(entry, at)? as usize;
            self.text.get(start..start.checked_add(u32_at(entry, at + 4)? as usize)?)
        };
        let (id, flags) = (u32_at(entry, 0)?, u32_at(entry, 20)?);
        Some(AddedToken { id, text: slice(4)?, pattern: slice(12)?, flags })
    }

    pub fn iter(self) -> impl Iterator<Item = AddedToken<'a>> {
        (0..self.entries.len() / layout::ADDED_ENTRY).filter_map(move |i| self.get(i))
    }

    /// Whether a pattern starts with this byte.
    #[inline(always)]
    pub fn may_start(&self, byte: u8) -> bool {
        has_bit(self.first_bytes, byte)
    }

    /// All patterns.
    pub fn candidates(&self) -> Candidates {
        Candidates { from: 0, to: self.entries.len() / layout::ADDED_ENTRY, depth: 0 }
    }

    /// Keeps the candidates that go on with `byte`. False if there are none.
    pub fn narrow(&self, candidates: &mut Candidates, byte: u8) -> bool {
        let Candidates { from, to, depth } = *candidates;
        // The first candidate whose next byte is not below `wanted`.
        let bound = |mut from: usize, wanted: u16| {
            let mut to = to;
            while from < to {
                let middle = from.midpoint(to);
                let pattern = self.get(middle).map_or(&[][..], |token| token.pattern);
                if pattern.get(depth).is_some_and(|next| u16::from(*next) >= wanted) {
                    to = middle;
                } else {
                    from = middle + 1;
                }
            }
            from
        };
        let from = bound(from, byte.into());
        *candidates = Candidates { from, to: bound(from, u16::from(byte) + 1), depth: depth + 1 };
        candidates.from < candidates.to
    }

    /// The candidate of which all bytes were read.
    pub fn complete(&self, candidates: &Candidates) -> Option<AddedToken<'a>> {
        self.get(candidates.from).filter(|token| token.pattern.len() == candidates.depth)
    }

    /// The leftmost occurrence of a pattern at or after byte `from`, and the longest pattern there: the token,
    /// start and end.
    pub fn find(&self, text: &[u8], from: usize) -> Option<(AddedToken<'a>, usize, usize)> {
        if self.is_empty() {
            return None;
        }
        let mut at = from;
        loop {
            at = self.next_start(text, at)?;
            let mut candidates = self.candidates();
            let mut found = None;
            for (i, &byte) in text[at..].iter().enumerate() {
                if !self.narrow(&mut candidates, byte) {
                    break;
                }
                if let Some(token) = self.complete(&candidates) {
                    found = Some((token, at, at + i + 1));
                }
            }
            if found.is_some() {
                return found;
            }
            at += 1;
        }
    }

    /// The next byte at which a pattern may start.
    fn next_start(&self, text: &[u8], mut at: usize) -> Option<usize> {
        if let Some(first) = self.only_first {
            // Nearly all models have only [CLS] and its like.
            while text.get(at..at + 64).is_some_and(|chunk| !chunk.contains(&first)) {
                at += 64;
            }
        }
        text.get(at..)?.iter().position(|byte| self.may_start(*byte)).map(|i| at + i)
    }
}

#[inline(always)]
fn has_bit(set: &[u8; 32], byte: u8) -> bool {
    set[usize::from(byte / 8)] & (1 << (byte % 8)) != 0
}

/// A set of code points: those at which it starts or ends, ascending.
#[derive(Clone, Copy)]
pub(super) struct CodeSet<'a>(&'a [u8]);

impl CodeSet<'_> {
    pub fn contains(&self, code: u32) -> bool {
        self.0.as_chunks::<4>().0.partition_point(|at| u32::from_le_bytes(*at) <= code) % 2 == 1
    }
}

/// The normaliser: what each code point becomes.
#[derive(Clone, Copy)]
pub(super) struct Normalizer<'a> {
    pub ascii: &'a [u8; 128],
    index: &'a [u8],
    blocks: &'a [u8],
    singles: &'a [u8],
    expansions: &'a [u8],
}

impl Normalizer<'_> {
    /// Action and argument of a code point. A code point that a damaged table does not cover stays as it
    /// is.
    #[inline(always)]
    pub fn entry(&self, code: u32) -> (u16, usize) {
        let block = self.index.get((code >> layout::BLOCK_SHIFT) as usize).copied().unwrap_or(0);
        let within = code & ((1 << layout::BLOCK_SHIFT) - 1);
        let entry = (usize::from(block) << layout::BLOCK_SHIFT) + within as usize;
        let entry = u16_at(self.blocks, entry * 2).unwrap_or(action::WORD);
        (entry & action::MASK, usize::from(entry >> action::BITS))
    }

    /// The item of a `SINGLE` entry.
    #[inline(always)]
    pub fn single(&self, argument: usize) -> u32 {
        u32_at(self.singles, argument * 4).unwrap_or(0)
    }

    /// A word of the expansion table.
    #[inline(always)]
    pub fn expansion(&self, at: usize) -> u32 {
        u32_at(self.expansions, at * 4).unwrap_or(0)
    }
}

/// All tables of a section.
#[derive(Clone, Copy)]
pub(super) struct Tables<'a> {
    pub flags: u32,
    pub max_word_chars: u32,
    pub unk: u32,
    pub cls: u32,
    pub sep: u32,
    pub pad: u32,
    pub mask: u32,
    pub vocabulary: Vocabulary<'a>,
    /// Added tokens that are matched in the original text.
    pub literal: Patterns<'a>,
    /// Added tokens that are matched in the normalised text.
    pub normalized: Patterns<'a>,
    /// The characters of words, for tokens that must be single words. Empty without such tokens.
    pub words: CodeSet<'a>,
    /// The characters that the normaliser puts between spaces. Empty if no token is matched in its text.
    pub spaced: CodeSet<'a>,
    pub normalizer: Normalizer<'a>,
}

impl<'a> Tables<'a> {
    /// Reads the header and checks that every table lies within the section. Reads no table.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, SectionError> {
        let header: &[u8; layout::HEADER_LEN] =
            bytes.first_chunk().ok_or(SectionError::TooShort)?;
        if header[..4] != layout::MAGIC {
            return Err(SectionError::BadMagic);
        }
        let get = |at: usize| u32_at(header, at).unwrap_or(0);
        if get(field::VERSION) != layout::VERSION {
            return Err(SectionError::UnsupportedVersion(get(field::VERSION)));
        }
        let bytes = bytes.get(..get(field::SECTION_LEN) as usize).ok_or(SectionError::TooShort)?;
        let table = |name: &'static str, at: usize, count: usize, size: usize| {
            let start = get(at) as usize;
            let len = count.checked_mul(size).ok_or(SectionError::OutOfBounds(name))?;
            let end = start.checked_add(len).ok_or(SectionError::OutOfBounds(name))?;
            bytes.get(start..end).ok_or(SectionError::OutOfBounds(name))
        };
        let check = |ok: bool, name| if ok { Ok(()) } else { Err(SectionError::BadField(name)) };

        let len = get(field::VOCAB_SIZE);
        let id_bits = get(field::ID_BITS);
        check((1..=layout::MAX_ID_BITS).contains(&id_bits), "id bits")?;
        check(len > 0 && len < 1 << id_bits, "vocabulary length")?;
        let max_word_chars = get(field::MAX_WORD_CHARS);
        check((1..=layout::MAX_WORD_CHARS).contains(&(max_word_chars as usize)), "longest word")?;
        let capacity = get(field::CAPACITY);
        let max_probes = get(field::MAX_PROBES);
        check(capacity > 0, "hash capacity")?;
        check((1..=layout::MAX_PROBES).contains(&max_probes), "hash probes")?;
        let longest_first = get(field::LONGEST_FIRST) as usize;
        let longest_continuation = get(field::LONGEST_CONTINUATION) as usize;
        check(longest_first.max(longest_continuation) <= layout::MAX_TOKEN_BYTES, "longest token")?;
        let prefix_len = get(field::PREFIX_LEN) as usize;
        check(prefix_len <= layout::MAX_PREFIX, "continuation prefix")?;
        let prefix = &header[field::PREFIX..field::PREFIX + prefix_len];
        let added_count = get(field::ADDED_COUNT);
        check(added_count <= layout::MAX_ADDED, "number of added tokens")?;
        let index_len = get(field::INDEX_LEN) as usize;
        check(index_len == layout::INDEX_BLOCKS, "normaliser index")?;

        let ids = len as usize;
        let slot_count = (capacity as usize).checked_add(max_probes as usize);
        let slot_count = slot_count.ok_or(SectionError::OutOfBounds("hash table"))?;
        let vocabulary = Vocabulary {
            len,
            slots: table("hash table", field::SLOTS, slot_count, 4)?,
            capacity,
            max_probes,
            id_bits,
            bases: table("token bases", field::BASES, ids / layout::TOKENS_PER_BASE + 1, 4)?,
            relative: table("token offsets", field::RELATIVE, ids + 1, 2)?,
            text: table("token text", field::TEXT, get(field::TEXT_LEN) as usize, 1)?,
            prefix,
            prefix_state: prefix
                .iter()
                .fold(layout::HASH_SEED, |state, &byte| layout::hash_byte(state, byte)),
            longest_first,
            longest_continuation,
        };
        let literal_count = get(field::LITERAL_COUNT) as usize;
        let entries =
            table("added tokens", field::ADDED, added_count as usize, layout::ADDED_ENTRY)?;
        let (literal, normalized) = entries
            .split_at_checked(literal_count.saturating_mul(layout::ADDED_ENTRY))
            .ok_or(SectionError::BadField("number of literal tokens"))?;
        let added_text =
            table("added text", field::ADDED_TEXT, get(field::ADDED_TEXT_LEN) as usize, 1)?;
        let first_bytes =
            |at: usize| header[at..].first_chunk::<32>().ok_or(SectionError::TooShort);
        let set = |name, at, len| table(name, at, get(len) as usize, 4).map(CodeSet);
        let block_bytes = 2usize << layout::BLOCK_SHIFT;
        let normalizer = Normalizer {
            ascii: table("ASCII table", field::ASCII, 128, 1)?
                .first_chunk()
                .ok_or(SectionError::TooShort)?,
            index: table("normaliser index", field::INDEX, index_len, 1)?,
            blocks: table(
                "normaliser blocks",
                field::BLOCKS,
                get(field::BLOCK_COUNT) as usize,
                block_bytes,
            )?,
            singles: table(
                "normaliser singles",
                field::SINGLES,
                get(field::SINGLES_LEN) as usize,
                4,
            )?,
            expansions: table(
                "normaliser expansions",
                field::EXPANSIONS,
                get(field::EXPANSIONS_LEN) as usize,
                4,
            )?,
        };
        for (name, id) in [("[UNK] id", field::UNK), ("[CLS] id", field::CLS)] {
            check(get(id) != layout::NO_ID, name)?;
        }
        check(get(field::SEP) != layout::NO_ID, "[SEP] id")?;
        Ok(Self {
            flags: get(field::FLAGS),
            max_word_chars,
            unk: get(field::UNK),
            cls: get(field::CLS),
            sep: get(field::SEP),
            pad: get(field::PAD),
            mask: get(field::MASK),
            vocabulary,
            literal: Patterns::new(first_bytes(field::LITERAL_FIRST)?, literal, added_text),
            normalized: Patterns::new(
                first_bytes(field::NORMALIZED_FIRST)?,
                normalized,
                added_text,
            ),
            words: set("word characters", field::WORDS, field::WORDS_LEN)?,
            spaced: set("spaced characters", field::SPACED, field::SPACED_LEN)?,
            normalizer,
        })
    }
}
