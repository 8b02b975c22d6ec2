//! Tokens as an iterator, and whole model inputs in buffers of the caller.

use super::scan::{Found, Scanner, Word};
use super::windows::WindowPlan;
use super::wordpiece::Pieces;
use super::{TokenizeError, Tokenizer};
use crate::error::TooSmall;

/// Word index of a special token.
pub const NO_WORD: u32 = u32::MAX;

/// One token of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Row of the vocabulary.
    pub id: u32,
    /// First byte in the original text.
    pub start: u32,
    /// One past the last byte in the original text.
    pub end: u32,
    /// Index of the word the token belongs to: counted by the tokenizer, or the index in a list of
    /// words (then `start` and `end` count from the start of that word).
    pub word: u32,
}

/// What to tokenize: running text, or words that are already separate.
#[derive(Clone, Copy, Debug)]
pub enum Source<'t> {
    /// UTF-8 text.
    Text(&'t [u8]),
    /// Words, as in corpora of tagged words. Each is normalised and split on its own.
    Words(&'t [&'t str]),
}

impl<'t> From<&'t str> for Source<'t> {
    fn from(text: &'t str) -> Self {
        Self::Text(text.as_bytes())
    }
}

impl<'t> From<&'t [u8]> for Source<'t> {
    fn from(text: &'t [u8]) -> Self {
        Self::Text(text)
    }
}

impl<'t> From<&'t [&'t str]> for Source<'t> {
    fn from(words: &'t [&'t str]) -> Self {
        Self::Words(words)
    }
}

impl Source<'_> {
    /// Offsets are `u32`.
    fn check(&self) -> Result<(), TokenizeError> {
        let fits = |text: &[u8]| u32::try_from(text.len()).is_ok();
        let ok = match self {
            Self::Text(text) => fits(text),
            Self::Words(words) => {
                u32::try_from(words.len()).is_ok() && words.iter().all(|word| fits(word.as_bytes()))
            }
        };
        if ok { Ok(()) } else { Err(TokenizeError::TextTooLong) }
    }
}

/// Where the next word starts, so that reading can go on from there later.
#[derive(Clone, Copy)]
struct Cursor<'t> {
    scanner: Scanner<'t>,
    /// Words still to be read (empty for running text).
    words: &'t [&'t str],
    /// Index of the next word.
    word: u32,
    pretokenized: bool,
}

impl<'t> Cursor<'t> {
    fn new(source: Source<'t>) -> Self {
        let (text, words, pretokenized) = match source {
            Source::Text(text) => (text, &[][..], false),
            Source::Words([]) => (&[][..], &[][..], true),
            Source::Words([first, rest @ ..]) => (first.as_bytes(), rest, true),
        };
        Self { scanner: Scanner::new(text), words, word: 0, pretokenized }
    }
}

/// The tokens of a text, one by one, without special tokens around them.
///
/// Takes a few kilobytes, whatever the length of the text. Ends at the first error.
pub struct Tokens<'k, 't> {
    tokenizer: &'k Tokenizer<'k>,
    cursor: Cursor<'t>,
    word: Word,
    pieces: Pieces,
    /// The added token that is the current word, if it is one.
    added: Option<(u32, u32, u32)>,
    /// Next piece of the current word, number of its pieces, index of the word.
    next: usize,
    len: usize,
    index: u32,
}

impl<'k, 't> Tokens<'k, 't> {
    pub(super) fn new(tokenizer: &'k Tokenizer<'k>, source: Source<'t>) -> Self {
        Self::at(tokenizer, Cursor::new(source))
    }

    fn at(tokenizer: &'k Tokenizer<'k>, cursor: Cursor<'t>) -> Self {
        Self {
            tokenizer,
            cursor,
            word: Word::new(),
            pieces: Pieces::new(),
            added: None,
            next: 0,
            len: 0,
            index: 0,
        }
    }

    /// Reads the next word and splits it; false at the end.
    #[inline(always)]
    fn next_word(&mut self) -> Result<bool, TokenizeError> {
        let tables = &self.tokenizer.tables;
        let cursor = &mut self.cursor;
        loop {
            match cursor.scanner.next_word(tables, &mut self.word)? {
                Found::Word => {
                    self.added = None;
                    self.pieces.split(&self.word, tables);
                    self.len = self.pieces.len;
                }
                Found::Added(id, start, end) => {
                    self.added = Some((id, start, end));
                    self.len = 1;
                }
                Found::End => {
                    let Some((first, rest)) = cursor.words.split_first() else { return Ok(false) };
                    cursor.scanner = Scanner::new(first.as_bytes());
                    cursor.words = rest;
                    cursor.word = cursor.word.wrapping_add(1);
                    continue;
                }
            }
            self.next = 0;
            self.index = cursor.word;
            if !cursor.pretokenized {
                cursor.word = cursor.word.wrapping_add(1);
            }
            return Ok(true);
        }
    }

    #[inline(always)]
    fn token(&self, piece: usize) -> Token {
        let (id, start, end) = match self.added {
            Some(token) => token,
            None => self.pieces.get(piece, &self.word),
        };
        Token { id, start, end, word: self.index }
    }

    /// The next token, as a `Result<Option<..>>`.
    ///
    /// # Errors
    /// [`TokenizeError::InvalidUtf8`].
    #[inline(always)]
    pub(super) fn next_token(&mut self) -> Result<Option<Token>, TokenizeError> {
        if self.next >= self.len && !self.next_word()? {
            return Ok(None);
        }
        self.next += 1;
        Ok(Some(self.token(self.next - 1)))
    }

    /// Counts the tokens that are left.
    fn count_rest(&mut self) -> Result<usize, TokenizeError> {
        let mut count = self.len - self.next;
        while self.next_word()? {
            count += self.len;
        }
        Ok(count)
    }
}

impl Iterator for Tokens<'_, '_> {
    type Item = Result<Token, TokenizeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let result = self.next_token();
        if result.is_err() {
            // Nothing comes after an error.
            self.cursor = Cursor::new(Source::Text(&[]));
            self.len = 0;
        }
        result.transpose()
    }
}

/// Buffers for one model input. Every slice except `input_ids` may be empty; it is then not written.
#[derive(Debug, Default)]
pub struct TokenBuffer<'b> {
    /// Token ids.
    pub input_ids: &'b mut [u32],
    /// 0 for the first text and its special tokens, 1 for the second.
    pub token_type_ids: &'b mut [u8],
    /// Byte offsets into the original text; `(0, 0)` for the special tokens put around it.
    pub offsets: &'b mut [(u32, u32)],
    /// Word of each token; [`NO_WORD`] for the special tokens put around the texts.
    pub words: &'b mut [u32],
}

impl TokenBuffer<'_> {
    fn room(&self) -> usize {
        let other = |len: usize| if len == 0 { usize::MAX } else { len };
        self.input_ids
            .len()
            .min(other(self.token_type_ids.len()))
            .min(other(self.offsets.len()))
            .min(other(self.words.len()))
    }

    /// Callers have checked that there is room.
    #[inline(always)]
    fn put(&mut self, at: usize, token: Token, type_id: u8) {
        self.input_ids[at] = token.id;
        if let Some(to) = self.token_type_ids.get_mut(at) {
            *to = type_id;
        }
        if let Some(to) = self.offsets.get_mut(at) {
            *to = (token.start, token.end);
        }
        if let Some(to) = self.words.get_mut(at) {
            *to = token.word;
        }
    }

    fn put_special(&mut self, at: usize, id: u32, type_id: u8) {
        self.put(at, Token { id, start: 0, end: 0, word: NO_WORD }, type_id);
    }
}

/// Which text is truncated when an input is too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Truncation {
    /// The longer text first. If both are long, they share the tokens equally.
    #[default]
    LongestFirst,
    /// Only the first; an error if that is not enough.
    OnlyFirst,
    /// Only the second; an error if there is none or that is not enough.
    OnlySecond,
    /// Neither: an input that is too long is an error.
    Never,
}

/// The length limit of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most tokens, special tokens included.
    pub max_length: usize,
    /// Which text is truncated.
    pub truncation: Truncation,
}

impl Limits {
    /// At most `max_length` tokens; the longer text is truncated first.
    pub const fn new(max_length: usize) -> Self {
        Self { max_length, truncation: Truncation::LongestFirst }
    }
}

/// A range of a text's tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Index of the first token.
    pub start: usize,
    /// One past the last token.
    pub end: usize,
}

impl Span {
    /// Number of tokens.
    pub const fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.end == self.start
    }
}

/// What was written into a [`TokenBuffer`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Tokens written, special tokens included.
    pub len: usize,
    /// Whether tokens of a text were left out.
    pub truncated: bool,
    /// The tokens of the first text that were written, at `1..1 + first.len()`.
    pub first: Span,
    /// The tokens of the second text, after those of the first and one `[SEP]`.
    pub second: Span,
}

/// How many tokens of each text stay, by the rules of Hugging Face's `truncate_encodings`.
fn share(
    first: usize,
    second: Option<usize>,
    room: usize,
    truncation: Truncation,
) -> Result<(usize, usize), TokenizeError> {
    let total = first + second.unwrap_or(0);
    if total <= room {
        return Ok((first, second.unwrap_or(0)));
    }
    let excess = total - room;
    match (truncation, second) {
        (Truncation::Never, _) => Err(TokenizeError::TooLong { max_length: room }),
        _ if room == 0 => Ok((0, 0)),
        (Truncation::LongestFirst, None) => Ok((room, 0)),
        (Truncation::LongestFirst, Some(second)) => {
            let short = first.min(second);
            let (short, long) =
                if 2 * short > room { (room / 2, room - room / 2) } else { (short, room - short) };
            Ok(if first > second { (long, short) } else { (short, long) })
        }
        (Truncation::OnlyFirst, _) if first > excess => Ok((first - excess, second.unwrap_or(0))),
        (Truncation::OnlySecond, None) => Err(TokenizeError::NoSecondText),
        (Truncation::OnlySecond, Some(second)) if second > excess => Ok((first, second - excess)),
        _ => Err(TokenizeError::CannotTruncate),
    }
}

impl<'a> Tokenizer<'a> {
    /// The tokens of a text or of separate words, one by one, without `[CLS]` and `[SEP]`.
    ///
    /// Texts of more than 4 GiB end in offsets that wrap; the other functions refuse them.
    pub fn tokens<'k, 't>(&'k self, source: impl Into<Source<'t>>) -> Tokens<'k, 't> {
        Tokens::new(self, source.into())
    }

    /// Number of tokens of a text, without `[CLS]` and `[SEP]`.
    ///
    /// # Errors
    /// [`TokenizeError::InvalidUtf8`].
    pub fn count<'t>(&self, source: impl Into<Source<'t>>) -> Result<usize, TokenizeError> {
        self.tokens(source).count_rest()
    }

    /// Writes `[CLS] text [SEP]`, or `[CLS] text [SEP] pair [SEP]`, into `out`.
    ///
    /// Works on `&str`, on `&[u8]` (invalid UTF-8 is an error that tells where) and on lists of
    /// words. A text longer than the limit is truncated as `limits` says, and the result says so. A single
    /// text is not read far beyond the limit, so invalid UTF-8 there goes unnoticed.
    ///
    /// # Errors
    /// Any [`TokenizeError`] except [`TokenizeError::OverlapTooLarge`].
    pub fn encode<'t, T: Into<Source<'t>>>(
        &self,
        text: T,
        pair: Option<T>,
        limits: &Limits,
        out: &mut TokenBuffer<'_>,
    ) -> Result<Encoded, TokenizeError> {
        self.encode_source(text.into(), pair.map(Into::into), limits, out)
    }

    fn encode_source(
        &self,
        text: Source<'_>,
        pair: Option<Source<'_>>,
        limits: &Limits,
        out: &mut TokenBuffer<'_>,
    ) -> Result<Encoded, TokenizeError> {
        let room = self.check(text, pair, limits)?;
        let buffer = out.room();
        // The first text goes to its final position, as far as it can stay.
        let mut tokens = Tokens::new(self, text);
        let mut first = 0;
        while first <= room
            && let Some(token) = tokens.next_token()?
        {
            if first < room && first + 1 < buffer {
                out.put(first + 1, token, 0);
            }
            first += 1;
        }
        let mut second = 0;
        if let Some(pair) = pair {
            // Most pairs fit, so the second text goes directly after the first. If it does not fit, only
            // its length is needed (unless the first text stays whole).
            let mut tokens = Tokens::new(self, pair);
            while first + second <= room
                && let Some(token) = tokens.next_token()?
            {
                if first + second < room && first + second + 3 < buffer {
                    out.put(first + 2 + second, token, 1);
                }
                second += 1;
            }
            if first + second > room {
                // Which text is longer decides who gets the odd token, so both are counted to
                // their ends.
                second += tokens.count_rest()?;
                if first > room {
                    first = Tokens::new(self, text).count_rest()?;
                }
            }
        }
        let (first_kept, second_kept) =
            share(first, pair.map(|_| second), room, limits.truncation)?;
        let encoded = Encoded {
            len: first_kept + 2 + if pair.is_some() { second_kept + 1 } else { 0 },
            truncated: first_kept < first || second_kept < second,
            first: Span { start: 0, end: first_kept },
            second: Span { start: 0, end: second_kept },
        };
        if encoded.len > buffer {
            let size = TooSmall { what: "tokens", need: encoded.len, have: buffer };
            return Err(TokenizeError::TooSmall(size));
        }
        out.put_special(0, self.tables.cls, 0);
        out.put_special(first_kept + 1, self.tables.sep, 0);
        if let Some(pair) = pair {
            if first_kept < first {
                let mut tokens = Tokens::new(self, pair);
                for i in 0..second_kept {
                    let Some(token) = tokens.next_token()? else { break };
                    out.put(first_kept + 2 + i, token, 1);
                }
            }
            out.put_special(encoded.len - 1, self.tables.sep, 1);
        }
        Ok(encoded)
    }

    /// Tokens that fit, without the special ones.
    fn check(
        &self,
        text: Source<'_>,
        pair: Option<Source<'_>>,
        limits: &Limits,
    ) -> Result<usize, TokenizeError> {
        text.check()?;
        let mut specials = 2;
        if let Some(pair) = pair {
            pair.check()?;
            specials = 3;
        }
        limits
            .max_length
            .checked_sub(specials)
            .ok_or(TokenizeError::LimitTooSmall { needed: specials })
    }

    /// Overlapping windows over a text, or over a pair of which one text is too long.
    ///
    /// Neighbouring windows share `overlap` tokens of the text. Where both texts are cut, every
    /// window of one meets every window of the other, in the reference's order.
    ///
    /// # Errors
    /// Any [`TokenizeError`] but [`TokenizeError::TooSmall`].
    pub fn windows<'k, 't, T: Into<Source<'t>>>(
        &'k self,
        text: T,
        pair: Option<T>,
        limits: &Limits,
        overlap: usize,
    ) -> Result<Windows<'k, 't>, TokenizeError> {
        let text = text.into();
        let pair: Option<Source<'t>> = pair.map(Into::into);
        let room = self.check(text, pair, limits)?;
        // Whether an overlap is allowed does not depend on the length of the text.
        if overlap >= room.max(1) {
            return Err(TokenizeError::OverlapTooLarge { window: room });
        }
        let first = Tokens::new(self, text).count_rest()?;
        let second = match pair {
            Some(pair) => Some(Tokens::new(self, pair).count_rest()?),
            None => None,
        };
        let (first_kept, second_kept) = share(first, second, room, limits.truncation)?;
        Ok(Windows {
            tokenizer: self,
            first: Part::new(text, first, first_kept, overlap)?,
            second: match pair {
                Some(pair) => Some(Part::new(pair, second.unwrap_or(0), second_kept, overlap)?),
                None => None,
            },
            done: false,
        })
    }
}

/// The windows over one text.
#[derive(Clone, Copy)]
struct Part<'t> {
    source: Source<'t>,
    plan: WindowPlan,
    /// Index of the current window, and where its first token's word starts.
    index: usize,
    cursor: Cursor<'t>,
    /// Pieces of the word at the cursor that belong to earlier windows.
    skip: usize,
}

impl<'t> Part<'t> {
    /// The windows of `size` tokens over a text of `len`.
    fn new(
        source: Source<'t>,
        len: usize,
        size: usize,
        overlap: usize,
    ) -> Result<Self, TokenizeError> {
        if size < len && overlap >= size {
            return Err(TokenizeError::OverlapTooLarge { window: size });
        }
        let plan = WindowPlan::new(len, size, overlap);
        Ok(Self { source, plan, index: 0, cursor: Cursor::new(source), skip: 0 })
    }

    fn is_last(&self) -> bool {
        self.index + 1 >= self.plan.count()
    }

    fn windows(&self) -> usize {
        self.plan.count()
    }

    /// The tokens of the current window.
    fn span(&self) -> Span {
        let window = self.plan.window(self.index);
        Span { start: window.start, end: window.end }
    }

    fn rewind(&mut self) {
        *self = Self { index: 0, cursor: Cursor::new(self.source), skip: 0, ..*self };
    }

    /// Moves to the next window: reads on to its first token.
    fn advance(&mut self, tokenizer: &Tokenizer<'_>) -> Result<(), TokenizeError> {
        let mut tokens = Tokens::at(tokenizer, self.cursor);
        let start = self.span().start;
        self.index += 1;
        let mut skip = self.skip + self.span().start - start;
        loop {
            let before = tokens.cursor;
            if !tokens.next_word()? || skip < tokens.len {
                self.cursor = before;
                self.skip = skip;
                return Ok(());
            }
            skip -= tokens.len;
        }
    }

    fn write(
        &self,
        tokenizer: &Tokenizer<'_>,
        out: &mut TokenBuffer<'_>,
        at: usize,
        type_id: u8,
    ) -> Result<Span, TokenizeError> {
        let span = self.span();
        let mut tokens = Tokens::at(tokenizer, self.cursor);
        for _ in 0..self.skip {
            tokens.next_token()?;
        }
        for i in 0..span.len() {
            let Some(token) = tokens.next_token()? else { break };
            out.put(at + i, token, type_id);
        }
        Ok(span)
    }
}

/// Overlapping windows over a long input; see [`Tokenizer::windows`].
pub struct Windows<'k, 't> {
    tokenizer: &'k Tokenizer<'k>,
    first: Part<'t>,
    second: Option<Part<'t>>,
    done: bool,
}

impl Windows<'_, '_> {
    /// Number of windows in all.
    pub fn count(&self) -> usize {
        self.first.windows().saturating_mul(self.second.map_or(1, |part| part.windows()))
    }

    /// Writes the next window into `out`; `None` past the last one. `truncated` of the result is
    /// always false: the windows together hold everything.
    ///
    /// # Errors
    /// [`TokenizeError::TooSmall`]; then the window can be asked for again.
    pub fn next_into(
        &mut self,
        out: &mut TokenBuffer<'_>,
    ) -> Result<Option<Encoded>, TokenizeError> {
        if self.done {
            return Ok(None);
        }
        let second_len = self.second.as_ref().map(|part| part.span().len());
        let len = self.first.span().len() + 2 + second_len.map_or(0, |len| len + 1);
        let have = out.room();
        if have < len {
            let size = TooSmall { what: "tokens", need: len, have };
            return Err(TokenizeError::TooSmall(size));
        }
        let tables = &self.tokenizer.tables;
        out.put_special(0, tables.cls, 0);
        let first = self.first.write(self.tokenizer, out, 1, 0)?;
        out.put_special(first.len() + 1, tables.sep, 0);
        let mut second = Span::default();
        if let Some(part) = &self.second {
            second = part.write(self.tokenizer, out, first.len() + 2, 1)?;
            out.put_special(len - 1, tables.sep, 1);
        }
        self.advance()?;
        Ok(Some(Encoded { len, truncated: false, first, second }))
    }

    /// The second text runs fastest. The reference puts the first window of the first text with
    /// the later ones of the second last; that order is kept where both are cut.
    fn advance(&mut self) -> Result<(), TokenizeError> {
        let tokenizer = self.tokenizer;
        let both = self.first.windows() > 1
            && self.second.as_ref().is_some_and(|second| second.windows() > 1);
        if !both {
            if !self.first.is_last() {
                return self.first.advance(tokenizer);
            }
            return match &mut self.second {
                Some(second) if !second.is_last() => second.advance(tokenizer),
                _ => {
                    self.done = true;
                    Ok(())
                }
            };
        }
        let Some(second) = &mut self.second else { return Ok(()) };
        let in_last_row = self.first.index == 0 && second.index > 0;
        match (self.first.index == 0 && second.index == 0, second.is_last()) {
            // (0, 0) is followed by (1, 0).
            (true, _) => self.first.advance(tokenizer),
            (false, false) => second.advance(tokenizer),
            (false, true) if in_last_row => {
                self.done = true;
                Ok(())
            }
            (false, true) => {
                second.rewind();
                if self.first.is_last() {
                    self.first.rewind();
                    second.advance(tokenizer)
                } else {
                    self.first.advance(tokenizer)
                }
            }
        }
    }
}
