//! The tokens of a whole text, and one row of values per token from the windows that own them.

use super::TaskError;
use super::runner::{RunInfo, Text, TextRunner};
use crate::encoder::{Encoder, Input};
use crate::error::{RunError, TooSmall};
use crate::kernels::{Plain, take};
use crate::tokenizer::{NO_WORD, Source, Token, TokenizeError, Tokenizer, WindowPlan};

/// How a token relates to its word.
pub(super) const WORD: u32 = 0;
pub(super) const CONTINUES_WORD: u32 = 1;
pub(super) const SPECIAL: u32 = 2;

/// Divides scratch memory. Every part starts at a multiple of 64 bytes.
pub(super) struct Arena<'s> {
    rest: &'s mut [u8],
    size: TooSmall,
}

impl<'s> Arena<'s> {
    /// # Errors
    /// If there are fewer bytes than `need`.
    pub fn new(rest: &'s mut [u8], need: usize) -> Result<Self, TaskError> {
        let size = scratch_size(need, rest.len());
        if size.have < need { Err(size.into()) } else { Ok(Self { rest, size }) }
    }

    pub fn take<T: Plain>(&mut self, count: usize) -> Result<&'s mut [T], TaskError> {
        take(&mut self.rest, count).ok_or(self.size.into())
    }
}

pub(super) fn scratch_size(need: usize, have: usize) -> TooSmall {
    TooSmall { what: "scratch bytes", need, have }
}

/// Bytes of a part of `count` values of 4 bytes.
pub(super) fn part(count: usize) -> usize {
    count.saturating_mul(4).saturating_add(63) & !63
}

/// A scratch layout: bytes as a function of the rows, which are tokens with the special ones.
pub(super) trait ScratchLen {
    /// Bytes of scratch for `rows` rows.
    fn bytes(&self, rows: usize) -> usize;

    /// The most rows that `bytes` bytes of scratch hold, up to `limit`.
    fn rows(&self, bytes: usize, limit: usize) -> usize {
        if self.bytes(limit) <= bytes {
            return limit;
        }
        // Bisection.
        let (mut fits, mut too_many) = (0, limit);
        while too_many - fits > 1 {
            let middle = fits + (too_many - fits) / 2;
            if self.bytes(middle) <= bytes { fits = middle } else { too_many = middle }
        }
        fits
    }
}

/// The tokens of a text in columns of one value per token, `[CLS]` and `[SEP]` included.
#[derive(Default)]
pub(super) struct TokenTable<'s> {
    pub ids: &'s mut [u32],
    /// First byte of the text, and one past the last; counted within the word for [`Text::Words`].
    pub starts: &'s mut [u32],
    pub ends: &'s mut [u32],
    /// Index of the word; [`NO_WORD`] for special tokens.
    pub words: &'s mut [u32],
    /// [`WORD`], [`CONTINUES_WORD`] or [`SPECIAL`].
    pub kinds: &'s mut [u32],
}

/// A text as tokens.
pub(super) struct Read {
    /// Tokens with the special ones.
    pub rows: usize,
    /// Whether more tokens follow.
    pub truncated: bool,
}

impl<'s> TokenTable<'s> {
    pub const COLUMNS: usize = 5;

    pub fn new(arena: &mut Arena<'s>, rows: usize) -> Result<Self, TaskError> {
        Ok(Self {
            ids: arena.take(rows)?,
            starts: arena.take(rows)?,
            ends: arena.take(rows)?,
            words: arena.take(rows)?,
            kinds: arena.take(rows)?,
        })
    }

    /// Reads a text, which is cut to `limit` rows, and shortens the columns to its length. If it has
    /// more rows than the table, they are only counted.
    pub fn read(
        &mut self,
        tokenizer: &Tokenizer<'_>,
        text: Text<'_>,
        limit: usize,
    ) -> Result<Read, TaskError> {
        let source = match text {
            Text::Str(text) => Source::from(text),
            Text::Words(words) => words.into(),
            Text::Pair(..) | Text::Ids(_) => return Err(TaskError::OneText),
        };
        let room = self.ids.len().saturating_sub(1);
        let mut rows = 1;
        let mut truncated = false;
        for token in tokenizer.tokens(source) {
            let token = token?;
            if rows + 1 >= limit {
                truncated = true;
                break;
            }
            if rows < room {
                self.put(rows, token, self.kind(rows, &token));
            }
            rows += 1;
        }
        rows += 1;
        if rows > self.ids.len() {
            return Ok(Read { rows, truncated });
        }
        for (row, id) in [(0, tokenizer.cls_id()), (rows - 1, tokenizer.sep_id())] {
            self.put(row, Token { id, start: 0, end: 0, word: NO_WORD }, SPECIAL);
        }
        for column in
            [&mut self.ids, &mut self.starts, &mut self.ends, &mut self.words, &mut self.kinds]
        {
            *column = &mut std::mem::take(column)[..rows];
        }
        Ok(Read { rows, truncated })
    }

    /// A token continues a word if the token before it has the same word: the tokenizer knows its words,
    /// whatever normalising does to their letters.
    fn kind(&self, row: usize, token: &Token) -> u32 {
        let continues = row > 1 && self.words[row - 1] == token.word;
        if continues { CONTINUES_WORD } else { WORD }
    }

    fn put(&mut self, row: usize, token: Token, kind: u32) {
        self.ids[row] = token.id;
        (self.starts[row], self.ends[row]) = (token.start, token.end);
        (self.words[row], self.kinds[row]) = (token.word, kind);
    }

    /// The word of a token as a range of the text's tokens. Ranges longer than `most` are cut.
    fn word(&self, token: usize, most: usize) -> std::ops::Range<usize> {
        // Token t is row t + 1.
        let words = &self.words[1..self.words.len() - 1];
        let same = |other: &&u32| **other == words[token];
        let before = words[..token].iter().rev().take(most).take_while(same).count();
        let after = words[token..].iter().take(most).take_while(same).count();
        token - before..token + after
    }
}

/// Rows of `width` values, one per token.
pub(super) struct Rows<'s> {
    /// `[tokens][width]`.
    pub all: &'s mut [f32],
    /// `[max_tokens][width]`: those of one window.
    pub window: &'s mut [f32],
    pub width: usize,
}

/// Writes `[tokens][width]` values for an input.
pub(super) type RowsOf<'f, 'a, 's> =
    &'f mut dyn FnMut(&mut Encoder<'a, 's>, &Input<'_>, &mut [f32]) -> Result<(), RunError>;

impl<'a, 's> TextRunner<'a, 's> {
    /// The most rows that a text gets: without windows, the runner's limit.
    pub(super) fn row_limit(&self) -> Result<usize, TaskError> {
        match self.max_tokens {
            have @ 0..3 => Err(TaskError::EncoderTooShort { need: 3, have }),
            size if self.overlap.is_none() => Ok(size),
            _ => Ok(usize::MAX),
        }
    }

    /// Runs the windows of a table, and takes each token's row from the window that owns it.
    pub(super) fn run_rows(
        &mut self,
        table: &TokenTable<'_>,
        rows: &mut Rows<'_>,
        run: RowsOf<'_, 'a, 's>,
    ) -> Result<RunInfo, TaskError> {
        let (tokens, width) = (table.ids.len() - 2, rows.width);
        let size = self.max_tokens - 2;
        let overlap = self.overlap.unwrap_or(0);
        if overlap >= size {
            return Err(TokenizeError::OverlapTooLarge { window: size }.into());
        }
        let plan = WindowPlan::new(tokens, size, overlap);
        let count = plan.count();
        if count == 1 {
            run(&mut self.encoder, &Input::new(table.ids), rows.all)?;
            return Ok(RunInfo { truncated: false, windows: 1 });
        }
        let (need, have) = (size + 2, self.buffer.input_ids.len());
        if have < need {
            return Err(TooSmall { what: "ids", need, have }.into());
        }
        for i in 0..count {
            let inside = plan.window(i);
            let ids = &mut self.buffer.input_ids[..inside.len() + 2];
            // Token t of the text is row t + 1, so the row before a window's tokens is its [CLS].
            ids.copy_from_slice(&table.ids[inside.start..inside.end + 2]);
            ids[0] = table.ids[0];
            ids[inside.len() + 1] = table.ids[tokens + 1];
            let window = &mut rows.window[..ids.len() * width];
            run(&mut self.encoder, &Input::new(ids), window)?;
            let mut copy = |row: usize| {
                let from = row - inside.start;
                rows.all[row * width..][..width].copy_from_slice(&window[from * width..][..width]);
            };
            // The first window has the text's [CLS], the last one its [SEP].
            if i == 0 {
                copy(0);
            }
            if i + 1 == count {
                copy(tokens + 1);
            }
            let mut word = 0..0;
            for token in inside.clone() {
                if !word.contains(&token) {
                    word = table.word(token, size + 1);
                }
                if plan.owner(token, word.clone()) == i {
                    copy(token + 1);
                }
            }
        }
        Ok(RunInfo { truncated: false, windows: count })
    }
}
