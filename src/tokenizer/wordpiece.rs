//! Greedy longest-match-first splitting of one word (`WordpieceTokenizer` of the BERT repository).

use super::MAX_WORD_CHARS;
use super::layout;
use super::read::Tables;
use super::scan::Word;

/// The pieces of a word.
pub(super) struct Pieces {
    pub len: usize,
    ids: [u32; MAX_WORD_CHARS],
    /// Index of the character at which each piece ends.
    ends: [u8; MAX_WORD_CHARS],
    /// The word is one token, with the offsets of the whole word.
    whole: bool,
    /// Hash states of the prefixes of the rest of the word.
    hashes: [u32; MAX_WORD_CHARS],
}

const _: () = assert!(MAX_WORD_CHARS <= u8::MAX as usize);

impl Pieces {
    pub const fn new() -> Self {
        Self {
            len: 0,
            ids: [0; MAX_WORD_CHARS],
            ends: [0; MAX_WORD_CHARS],
            whole: false,
            hashes: [0; MAX_WORD_CHARS],
        }
    }

    /// Id, start and end in the original text of piece `i < len`.
    #[inline(always)]
    pub fn get(&self, i: usize, word: &Word) -> (u32, u32, u32) {
        let id = self.ids[i];
        if self.whole {
            return (id, word.start, word.end);
        }
        let from = if i == 0 { 0 } else { usize::from(self.ends[i - 1]) };
        let (start, end) = word.offsets(from, usize::from(self.ends[i]));
        (id, start, end)
    }

    fn set_whole(&mut self, id: u32) {
        self.len = 1;
        self.ids[0] = id;
        self.whole = true;
    }

    /// Splits a word. A word that is too long, or that no tokens cover, becomes one `[UNK]`.
    #[inline(always)]
    pub fn split(&mut self, word: &Word, tables: &Tables<'_>) {
        let done = word.chars <= tables.max_word_chars as usize
            && if word.plain {
                self.cover::<true>(word, tables)
            } else {
                self.cover::<false>(word, tables)
            };
        if !done {
            self.set_whole(tables.unk);
        }
    }

    fn cover<const PLAIN: bool>(&mut self, word: &Word, tables: &Tables<'_>) -> bool {
        let vocabulary = &tables.vocabulary;
        self.len = 0;
        self.whole = false;
        let chars = word.chars.min(MAX_WORD_CHARS);
        let mut from = 0;
        let mut from_byte = 0;
        while from < chars {
            let continuation = from > 0;
            let (mut state, longest) = if continuation {
                (vocabulary.prefix_state, vocabulary.longest_continuation)
            } else {
                (layout::HASH_SEED, vocabulary.longest_first)
            };
            let mut to = from;
            let mut byte = from_byte;
            while to < chars {
                let end = word.char_end::<PLAIN>(to);
                if end - from_byte > longest {
                    break;
                }
                while byte < end {
                    state = layout::hash_byte(state, word.bytes[byte]);
                    byte += 1;
                }
                self.hashes[to] = state;
                to += 1;
            }
            let found = loop {
                if to == from {
                    return false;
                }
                let end = word.char_end::<PLAIN>(to - 1);
                let piece = &word.bytes[from_byte..end];
                if let Some(id) = vocabulary.find(self.hashes[to - 1], continuation, piece) {
                    from_byte = end;
                    break id;
                }
                to -= 1;
            };
            self.ids[self.len] = found;
            self.ends[self.len] = to as u8;
            self.len += 1;
            from = to;
        }
        true
    }
}
