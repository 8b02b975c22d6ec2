//! From text to normalised words: Hugging Face's `BertNormalizer` and `BertPreTokenizer` (the
//! "basic tokenizer" of the BERT repository) in one pass, driven by the table of the section.

use super::layout::{self, action, added, ascii, item, record};
use super::read::{AddedToken, Normalizer, Tables};
use super::{MAX_WORD_CHARS, TokenizeError};

/// A word after normalisation, with the offsets of every character in the original text.
///
/// A plain word, of ASCII whose bytes each became one byte, stores no offsets: character `i` stands at
/// `start + i`.
pub(super) struct Word {
    pub bytes: [u8; MAX_WORD_CHARS * 4],
    /// Number of characters. Characters beyond `MAX_WORD_CHARS` are counted and not stored.
    pub chars: usize,
    pub plain: bool,
    /// Start of the first and end of the last character in the original text.
    pub start: u32,
    pub end: u32,
    /// End of each character in `bytes`.
    ends: [u16; MAX_WORD_CHARS],
    starts: [u32; MAX_WORD_CHARS],
    lens: [u8; MAX_WORD_CHARS],
}

impl Word {
    pub const fn new() -> Self {
        Self {
            bytes: [0; MAX_WORD_CHARS * 4],
            chars: 0,
            plain: true,
            start: 0,
            end: 0,
            ends: [0; MAX_WORD_CHARS],
            starts: [0; MAX_WORD_CHARS],
            lens: [0; MAX_WORD_CHARS],
        }
    }

    #[inline(always)]
    fn clear(&mut self) {
        self.chars = 0;
        self.plain = true;
    }

    /// End of character `i` in `bytes`.
    #[inline(always)]
    pub fn char_end<const PLAIN: bool>(&self, i: usize) -> usize {
        if PLAIN { i + 1 } else { usize::from(self.ends[i]) }
    }

    /// Offsets of the characters `from..to` (not empty) in the original text.
    #[inline(always)]
    pub fn offsets(&self, from: usize, to: usize) -> (u32, u32) {
        if self.plain {
            (self.start + from as u32, self.start + to as u32)
        } else {
            (self.starts[from], self.starts[to - 1] + u32::from(self.lens[to - 1]))
        }
    }

    /// Appends a character that came from the original bytes `start..start + len`.
    fn push(&mut self, code: u32, start: usize, len: usize) {
        if self.chars == 0 {
            self.start = start as u32;
            self.plain = false;
        } else if self.plain {
            self.plain = false;
            for i in 0..self.chars.min(MAX_WORD_CHARS) {
                self.ends[i] = i as u16 + 1;
                self.starts[i] = self.start + i as u32;
                self.lens[i] = 1;
            }
        }
        self.end = (start + len) as u32;
        if self.chars < MAX_WORD_CHARS {
            let i = self.chars;
            let from = if i == 0 { 0 } else { usize::from(self.ends[i - 1]) };
            let to = from + to_char(code).encode_utf8(&mut self.bytes[from..from + 4]).len();
            self.ends[i] = to as u16;
            self.starts[i] = start as u32;
            self.lens[i] = len as u8;
        }
        self.chars += 1;
    }
}

/// A damaged table may hold a number that is not a character.
fn to_char(code: u32) -> char {
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// What the scanner found.
pub(super) enum Found {
    /// A word, now in the caller's `Word`.
    Word,
    /// An added token: id, start and end.
    Added(u32, u32, u32),
    /// The end of the text.
    End,
}

/// A normalised character and the source character that it came from.
#[derive(Clone, Copy)]
struct NormalizedChar {
    item: u32,
    start: usize,
    len: usize,
}

/// A run of combining marks of which some remain, yielded in canonical order.
///
/// `BertNormalizer` decomposes to NFD, which sorts each run of marks by combining class, and then
/// drops the nonspacing ones. It assigns offsets by position in the *sorted* run: the k-th first character
/// of a decomposition gets the offsets of the k-th source character. Marks that remain (musical stems, a
/// few viramas, marks newer than the reference's Unicode tables) are rare. The run is therefore not
/// stored but read again, once per class in it, and needs no buffer whatever its length.
#[derive(Clone, Copy)]
struct MarkRun {
    active: bool,
    /// First source character of the run (its starter, if there is one), and one past its last byte.
    start: usize,
    end: usize,
    /// Class that this pass yields, and the next larger one seen in this pass.
    rank: u8,
    next_rank: u8,
    /// Current source character and item of its decomposition.
    at: usize,
    item: usize,
    /// Source character whose offsets are in use, and where to look for the next one.
    source: usize,
    source_len: usize,
    next_source: usize,
}

/// An added token that was found: id, start and end.
type Added = (u32, u32, u32);

/// What follows the piece that is being read.
#[derive(Clone, Copy)]
enum Next {
    /// Not known: it must be searched for.
    Search,
    /// An added token: id, start and end.
    Added(u32, usize, usize),
    /// The end of the text.
    End,
}

/// The search for normalised tokens within a piece. Places count the normalised characters of the piece.
#[derive(Clone, Copy)]
struct Progress {
    /// Characters read.
    index: usize,
    /// No token starts before this place: the end of the last match, even of one that is not a single word.
    quiet: usize,
    /// End of the last token, with the white space that it took in.
    taken: usize,
    /// Place and byte at which the white space starts that ends at `index` and no token took in.
    spaces: Option<(usize, u32)>,
    /// Place and byte at which the last white space ends that a token took in.
    spaces_end: (usize, u32),
    /// The last character read.
    previous: Option<u32>,
}

const START: Progress =
    Progress { index: 0, quiet: 0, taken: 0, spaces: None, spaces_end: (0, 0), previous: None };

/// Reads a text, word by word.
///
/// Literal added tokens cut the text into pieces, and each piece is normalised on its own. If the section has
/// normalised tokens, they are then searched for in the normalised piece.
#[derive(Clone, Copy)]
pub(super) struct Scanner<'t> {
    /// The whole text.
    full: &'t [u8],
    /// The text up to the end of the current piece.
    text: &'t [u8],
    pos: usize,
    /// Start of the piece: marks are not reordered across it.
    segment: usize,
    next: Next,
    /// Where the search for literal tokens goes on, and the end of the white space that the last one took in.
    searched: usize,
    spaces_end: usize,
    /// A character that was read and starts the next word.
    held: Option<NormalizedChar>,
    /// A normalised token that was read, for after the current word.
    ready: Option<Added>,
    progress: Progress,
    /// Normalised characters of the last source character that are still to be yielded.
    queue: [u32; record::MAX_STARTERS],
    queue_at: usize,
    queue_len: usize,
    queue_start: usize,
    queue_char_len: usize,
    run: MarkRun,
}

impl<'t> Scanner<'t> {
    pub const fn new(text: &'t [u8]) -> Self {
        Self {
            full: text,
            text: &[],
            pos: 0,
            segment: 0,
            next: Next::Search,
            searched: 0,
            spaces_end: 0,
            held: None,
            ready: None,
            progress: START,
            queue: [0; record::MAX_STARTERS],
            queue_at: 0,
            queue_len: 0,
            queue_start: 0,
            queue_char_len: 0,
            run: MarkRun {
                active: false,
                start: 0,
                end: 0,
                rank: 0,
                next_rank: 0,
                at: 0,
                item: 0,
                source: 0,
                source_len: 0,
                next_source: 0,
            },
        }
    }

    #[inline(always)]
    fn in_character(&self) -> bool {
        self.held.is_some() || self.queue_at < self.queue_len || self.run.active
    }

    /// Reads the next word into `word`.
    #[inline(always)]
    pub fn next_word(
        &mut self,
        tables: &Tables<'_>,
        word: &mut Word,
    ) -> Result<Found, TokenizeError> {
        word.clear();
        loop {
            let found = if tables.normalized.is_empty() {
                self.word_of_piece(tables, word)?
            } else {
                self.normalized_word_of_piece(tables, word)?
            };
            if !matches!(found, Found::End) {
                return Ok(found);
            }
            if let Some(found) = self.next_piece(tables) {
                return Ok(found);
            }
        }
    }

    /// Continues after the piece that was read: to an added token, to the end, or to the next piece (`None`).
    #[inline(never)]
    fn next_piece(&mut self, tables: &Tables<'_>) -> Option<Found> {
        match self.next {
            Next::End => Some(Found::End),
            Next::Added(id, start, end) => {
                self.next = Next::Search;
                self.segment = end;
                // Nothing is left of a token whose white space the one before has taken in.
                (start < end).then_some(Found::Added(id, start as u32, end as u32))
            }
            Next::Search => {
                let end = match self.find_literal(tables) {
                    Some((id, start, end)) => {
                        self.next = Next::Added(id, start, end);
                        start
                    }
                    None => {
                        self.next = Next::End;
                        self.full.len()
                    }
                };
                self.text = &self.full[..end];
                self.pos = self.segment;
                self.progress = START;
                None
            }
        }
    }

    /// The next added token in the original text: id, start and end, with the white space that it takes in.
    fn find_literal(&mut self, tables: &Tables<'_>) -> Option<(u32, usize, usize)> {
        let text = self.full;
        loop {
            let (token, mut start, mut end) = tables.literal.find(text, self.searched)?;
            self.searched = end;
            let is_word = |c: Option<(u32, usize)>| c.is_some_and(|c| tables.words.contains(c.0));
            if token.flags & added::SINGLE_WORD != 0
                && (is_word(char_before(text, start)) || is_word(decode(text, end).ok()))
            {
                continue;
            }
            if token.flags & added::LSTRIP != 0 {
                while start > self.segment
                    && let Some((_, len)) = char_before(text, start).filter(|c| is_space(c.0))
                {
                    start -= len;
                }
                start = start.max(self.segment);
            }
            if token.flags & added::RSTRIP != 0 {
                // White space between tokens is read once.
                end = end.max(self.spaces_end);
                while let Some((_, len)) = decode(text, end).ok().filter(|c| is_space(c.0)) {
                    end += len;
                }
                self.spaces_end = end;
            }
            return Some((token.id, start, end));
        }
    }

    /// Adds a normalised character to the word, unless it is white space. Returns whether the word is whole: a
    /// character that is a word of its own ends the word before it, and is held for the next one.
    #[inline(always)]
    fn ends_word(&mut self, step: NormalizedChar, word: &mut Word) -> bool {
        let class = item::class(step.item);
        if word.chars > 0 && class == item::ISOLATED {
            self.held = Some(step);
            return true;
        }
        if class == item::SPACE {
            return word.chars > 0;
        }
        word.push(step.item & item::CODE_MASK, step.start, step.len);
        class == item::ISOLATED
    }

    /// Reads the next word of the piece.
    #[inline(always)]
    fn word_of_piece(
        &mut self,
        tables: &Tables<'_>,
        word: &mut Word,
    ) -> Result<Found, TokenizeError> {
        loop {
            if !self.in_character() {
                if self.ascii_word(tables.normalizer.ascii, word) {
                    return Ok(Found::Word);
                }
                if self.pos >= self.text.len() {
                    return Ok(if word.chars > 0 { Found::Word } else { Found::End });
                }
            }
            let Some(step) = self.next_char(tables)? else { continue };
            if self.ends_word(step, word) {
                return Ok(Found::Word);
            }
        }
    }

    /// Reads the next word or added token of the normalised piece.
    #[inline(never)]
    fn normalized_word_of_piece(
        &mut self,
        tables: &Tables<'_>,
        word: &mut Word,
    ) -> Result<Found, TokenizeError> {
        if let Some(step) = self.held.take() {
            word.push(step.item & item::CODE_MASK, step.start, step.len);
            return Ok(Found::Word);
        }
        loop {
            if let Some((id, start, end)) = self.ready {
                if word.chars > 0 {
                    return Ok(Found::Word);
                }
                self.ready = None;
                return Ok(Found::Added(id, start, end));
            }
            let Some(step) = self.next_normalized(tables)? else {
                return Ok(if word.chars > 0 { Found::Word } else { Found::End });
            };
            let code = step.item & item::CODE_MASK;
            if self.progress.index >= self.progress.quiet && self.find_normalized(tables, step)? {
                if word.chars > 0 {
                    return Ok(Found::Word);
                }
                continue;
            }
            let progress = &mut self.progress;
            let space = item::class(step.item) == item::SPACE;
            if !space {
                progress.spaces = None;
            } else if progress.index >= progress.taken && progress.spaces.is_none() {
                progress.spaces = Some((progress.index, step.start as u32));
            }
            progress.index += 1;
            progress.previous = Some(code);
            if self.ends_word(step, word) {
                return Ok(Found::Word);
            }
        }
    }

    /// The next character of the normalised piece, with the white space around Chinese characters; `None` at
    /// the end.
    fn next_normalized(
        &mut self,
        tables: &Tables<'_>,
    ) -> Result<Option<NormalizedChar>, TokenizeError> {
        loop {
            let queued = self.queue_at < self.queue_len;
            if !queued && !self.run.active && self.pos >= self.text.len() {
                return Ok(None);
            }
            let Some(step) = self.next_char(tables)? else { continue };
            if !queued
                && item::class(step.item) == item::ISOLATED
                && tables.spaced.contains(decode(self.text, step.start)?.0)
            {
                let space = item::pack(' '.into(), item::SPACE, 0);
                self.queue[..2].copy_from_slice(&[step.item, space]);
                self.set_queue(2, step.start, step.len);
                return Ok(Some(NormalizedChar { item: space, ..step }));
            }
            return Ok(Some(step));
        }
    }

    /// Searches for a normalised token that starts with the character `first`, which was just read. If there is
    /// one, goes to its end, puts it into `ready` and returns true.
    fn find_normalized(
        &mut self,
        tables: &Tables<'_>,
        first: NormalizedChar,
    ) -> Result<bool, TokenizeError> {
        let progress = self.progress;
        let mut bytes = [0; 4];
        to_char(first.item & item::CODE_MASK).encode_utf8(&mut bytes);
        if !tables.normalized.may_start(bytes[0]) {
            return Ok(false);
        }
        let mut ahead = *self;
        let mut candidates = tables.normalized.candidates();
        let (mut last, mut end) = (first, progress.index);
        // Where the token starts if the white space before it belongs to another one.
        let mut rest_start = first.start;
        let mut found: Option<(AddedToken<'_>, Self, usize, NormalizedChar)> = None;
        'search: loop {
            for &byte in to_char(last.item & item::CODE_MASK).encode_utf8(&mut bytes).as_bytes() {
                if !tables.normalized.narrow(&mut candidates, byte) {
                    break 'search;
                }
            }
            if end == progress.taken {
                rest_start = last.start;
            }
            end += 1;
            if let Some(token) = tables.normalized.complete(&candidates) {
                found = Some((token, ahead, end, last));
            }
            match ahead.next_normalized(tables)? {
                Some(next) => last = next,
                None => break,
            }
        }
        let Some((token, mut after, end, last)) = found else { return Ok(false) };
        after.progress.quiet = end;
        if token.flags & added::SINGLE_WORD != 0 {
            let mut peek = after;
            let next = peek.next_normalized(tables)?.map(|next| next.item & item::CODE_MASK);
            let is_word = |c: Option<u32>| c.is_some_and(|c| tables.words.contains(c));
            if is_word(progress.previous) || is_word(next) {
                self.progress.quiet = end;
                return Ok(false);
            }
        }
        let mut from = (progress.index, first.start as u32);
        if token.flags & added::LSTRIP != 0 {
            if progress.taken > progress.index {
                from = (progress.taken, rest_start as u32);
            } else if let Some(spaces) = progress.spaces {
                from = spaces;
            }
        }
        let mut to = (end, (last.start + last.len) as u32);
        if token.flags & added::RSTRIP != 0 {
            // White space between tokens is read once.
            if progress.spaces_end.0 > end {
                to = progress.spaces_end;
            } else {
                let mut peek = after;
                while let Some(next) = peek.next_normalized(tables)?
                    && item::class(next.item) == item::SPACE
                {
                    to = (to.0 + 1, (next.start + next.len) as u32);
                }
            }
            after.progress.spaces_end = to;
        }
        after.progress.index = end;
        after.progress.taken = to.0;
        after.progress.spaces = None;
        after.progress.previous = Some(last.item & item::CODE_MASK);
        // Nothing is left of a token whose white space the one before has taken in.
        after.ready = (from.0 < to.0).then_some((token.id, from.1, to.1.max(from.1)));
        *self = after;
        Ok(true)
    }

    /// The fast path: reads on while single bytes become single bytes. Returns true at the end of a word.
    #[inline(always)]
    fn ascii_word(&mut self, table: &[u8; 128], word: &mut Word) -> bool {
        let text = self.text;
        let mut pos = self.pos;
        while let Some(&byte) = text.get(pos) {
            if byte >= 128 {
                break;
            }
            let class = table[usize::from(byte)];
            if class == ascii::SPACE {
                pos += 1;
                if word.chars > 0 {
                    self.pos = pos;
                    return true;
                }
            } else if class == ascii::SLOW {
                break;
            } else if class & ascii::ISOLATED != 0 {
                if word.chars == 0 {
                    word.start = pos as u32;
                    word.end = pos as u32 + 1;
                    word.bytes[0] = class & 127;
                    word.chars = 1;
                    pos += 1;
                }
                self.pos = pos;
                return true;
            } else if word.plain && (word.chars == 0 || word.end as usize == pos) {
                // The body of a word, in a loop of its own. (Where a character was dropped within a
                // word, offsets are no longer consecutive.)
                let mut chars = word.chars;
                if chars == 0 {
                    word.start = pos as u32;
                }
                let mut class = class;
                loop {
                    if let Some(to) = word.bytes.get_mut(chars) {
                        *to = class;
                    }
                    chars += 1;
                    pos += 1;
                    match text.get(pos) {
                        Some(&byte) if byte < 128 => class = table[usize::from(byte)],
                        _ => break,
                    }
                    if class <= ascii::SPACE || class & ascii::ISOLATED != 0 {
                        break;
                    }
                }
                word.chars = chars;
                word.end = pos as u32;
            } else {
                word.push(u32::from(class), pos, 1);
                pos += 1;
            }
        }
        self.pos = pos;
        false
    }

    /// The next normalised character, or `None` if the next source character becomes nothing.
    fn next_char(&mut self, tables: &Tables<'_>) -> Result<Option<NormalizedChar>, TokenizeError> {
        if let Some(step) = self.held.take() {
            return Ok(Some(step));
        }
        if self.queue_at < self.queue_len {
            let item = self.queue[self.queue_at];
            self.queue_at += 1;
            return Ok(Some(NormalizedChar {
                item,
                start: self.queue_start,
                len: self.queue_char_len,
            }));
        }
        let normalizer = &tables.normalizer;
        if self.run.active {
            return self.next_of_run(normalizer);
        }
        let start = self.pos;
        let (code, len) = decode(self.text, start)?;
        let (kind, argument) = normalizer.entry(code);
        self.pos += len;
        let one = |item| Ok(Some(NormalizedChar { item, start, len }));
        match kind {
            action::WORD => one(item::pack(code, item::WORD, 0)),
            action::SPACE => one(item::pack(code, item::SPACE, 0)),
            action::ISOLATED => one(item::pack(code, item::ISOLATED, 0)),
            action::SINGLE => one(normalizer.single(argument)),
            action::HANGUL => {
                let jamo = layout::decompose_hangul(code);
                self.queue[..3].copy_from_slice(&jamo);
                self.set_queue(if jamo[2] == 0 { 2 } else { 3 }, start, len);
                Ok(None)
            }
            action::EXPAND => {
                let head = normalizer.expansion(argument);
                let starters = (head & record::STARTERS_MASK) as usize;
                let starters = starters.min(record::MAX_STARTERS);
                for (i, slot) in self.queue.iter_mut().enumerate().take(starters) {
                    *slot = normalizer.expansion(argument + 1 + i);
                }
                self.set_queue(starters, start, len);
                if head & record::REMAINS != 0 {
                    self.start_run(tables, start)?;
                }
                Ok(None)
            }
            // DROP and MARK.
            _ => Ok(None),
        }
    }

    fn set_queue(&mut self, len: usize, start: usize, char_len: usize) {
        self.queue_at = 0;
        self.queue_len = len;
        self.queue_start = start;
        self.queue_char_len = char_len;
    }

    /// Finds the bounds of the run of marks around the remaining mark at `at`.
    #[cold]
    fn start_run(&mut self, tables: &Tables<'_>, at: usize) -> Result<(), TokenizeError> {
        let normalizer = &tables.normalizer;
        let mut start = at;
        let mut anchored = false;
        loop {
            let (code, _) = decode(self.text, start)?;
            if has_starter(normalizer, code) {
                anchored = true;
                break;
            }
            if start <= self.segment {
                break;
            }
            start -= 1;
            while start > self.segment && self.text[start] & 0xC0 == 0x80 {
                start -= 1;
            }
        }
        let mut end = self.pos;
        while end < self.text.len() {
            let (code, len) = decode(self.text, end)?;
            if has_starter(normalizer, code) {
                break;
            }
            end += len;
        }
        // The starter has already taken its own offsets.
        let (source_len, next_source) =
            if anchored { (decode(self.text, start)?.1, start) } else { (0, start) };
        self.run = MarkRun {
            active: true,
            start,
            end,
            rank: 0,
            next_rank: u8::MAX,
            at: start,
            item: 0,
            source: start,
            source_len,
            next_source: next_source + source_len,
        };
        Ok(())
    }

    fn next_of_run(
        &mut self,
        normalizer: &Normalizer<'_>,
    ) -> Result<Option<NormalizedChar>, TokenizeError> {
        let run = &mut self.run;
        loop {
            while run.at < run.end {
                let (code, len) = decode(self.text, run.at)?;
                while let Some((mark, first)) = mark_of(normalizer, code, run.item) {
                    run.item += 1;
                    let rank = item::rank(mark);
                    if rank != run.rank {
                        if rank > run.rank && rank < run.next_rank {
                            run.next_rank = rank;
                        }
                        continue;
                    }
                    if first {
                        // Dropped characters do not count as source characters.
                        while run.next_source < run.end {
                            let (code, len) = decode(self.text, run.next_source)?;
                            run.source = run.next_source;
                            run.source_len = len;
                            run.next_source += len;
                            if normalizer.entry(code).0 != action::DROP {
                                break;
                            }
                        }
                    }
                    if item::class(mark) != item::DROPPED {
                        let (start, len) = (run.source, run.source_len);
                        return Ok(Some(NormalizedChar { item: mark, start, len }));
                    }
                }
                run.at += len;
                run.item = 0;
            }
            if run.next_rank == u8::MAX {
                run.active = false;
                self.pos = run.end;
                return Ok(None);
            }
            run.rank = run.next_rank;
            run.next_rank = u8::MAX;
            run.at = run.start;
            run.item = 0;
        }
    }
}

/// Whether a source character ends a run of marks.
fn has_starter(normalizer: &Normalizer<'_>, code: u32) -> bool {
    match normalizer.entry(code) {
        (action::DROP, _) => false,
        (action::MARK, rank) => rank == 0,
        (action::EXPAND, at) => normalizer.expansion(at) & record::ANCHOR != 0,
        _ => true,
    }
}

/// The `i`-th mark a source character decomposes to, and whether it is the first character of the
/// decomposition.
fn mark_of(normalizer: &Normalizer<'_>, code: u32, i: usize) -> Option<(u32, bool)> {
    match normalizer.entry(code) {
        (action::MARK, rank) if i == 0 && rank > 0 => {
            Some((item::pack(0, item::DROPPED, rank as u32), true))
        }
        (action::EXPAND, at) => {
            let head = normalizer.expansion(at);
            let starters = (head & record::STARTERS_MASK) as usize;
            let total = (head >> record::TOTAL_SHIFT & 0xff) as usize;
            (starters + i < total).then(|| {
                let first = i == 0 && head & record::ANCHOR == 0;
                (normalizer.expansion(at + 1 + starters + i), first)
            })
        }
        _ => None,
    }
}

/// White space, as added tokens take it in: the property `White_Space`.
fn is_space(code: u32) -> bool {
    char::from_u32(code).is_some_and(char::is_whitespace)
}

/// The character that ends before `at`: its code point and length. `None` if there is none.
fn char_before(text: &[u8], at: usize) -> Option<(u32, usize)> {
    (1..=at.min(4)).find_map(|len| decode(text, at - len).ok().filter(|c| c.1 == len))
}

/// Decodes the character at `at`: its code point and length.
#[inline(always)]
fn decode(text: &[u8], at: usize) -> Result<(u32, usize), TokenizeError> {
    let error = TokenizeError::InvalidUtf8 { at };
    let rest = text.get(at..).ok_or(error)?;
    let &first = rest.first().ok_or(error)?;
    if first < 0x80 {
        return Ok((u32::from(first), 1));
    }
    let tail = |i: usize| match rest.get(i) {
        Some(&byte) if byte & 0xC0 == 0x80 => Ok(u32::from(byte & 0x3F)),
        _ => Err(error),
    };
    let first = u32::from(first);
    let (code, len, smallest) = match first {
        0xC2..=0xDF => ((first & 0x1F) << 6 | tail(1)?, 2, 0x80),
        0xE0..=0xEF => ((first & 0x0F) << 12 | tail(1)? << 6 | tail(2)?, 3, 0x800),
        0xF0..=0xF4 => {
            ((first & 0x07) << 18 | tail(1)? << 12 | tail(2)? << 6 | tail(3)?, 4, 0x1_0000)
        }
        _ => return Err(error),
    };
    if code < smallest || code > 0x10_FFFF || (0xD800..0xE000).contains(&code) {
        return Err(error);
    }
    Ok((code, len))
}
