//! Named entities: labels for tokens, then tokens to entities.
//!
//! The rules are those of `TokenClassificationPipeline` in transformers, so that spans and scores are
//! the same (`tests/tasks/pipeline.rs` compares them): `gather_pre_entities`, `aggregate`,
//! `aggregate_words`, `group_entities`. Two things differ on purpose: BIOES and BMES are understood, and
//! a label without a prefix of its scheme is an entity's name itself (there, what stands behind its
//! first hyphen is).

use std::ops::Range;

use super::offsets::{Offset, OffsetCounter};
use super::tags::{Label, LabelSet, TagPosition};
use super::windows::WindowPlan;
use super::{TaskError, viterbi};
use crate::encoder::{Encoder, Input};
use crate::format::Model;
use crate::heads::{TokenClassifier, argmax, softmax};
use crate::kernels::{Plain, take};
use crate::tokenizer::{NO_WORD, Source, Token, Tokenizer};

/// How tokens become entities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Aggregation {
    /// Not at all: each token outside of `O` is an answer, with its full label.
    None,
    /// Neighbouring tokens of the same entity are joined.
    #[default]
    Simple,
    /// Words have the label of their first token; neighbouring words are joined.
    First,
    /// Words have the label of the largest mean probability.
    Average,
    /// Words have the label of their surest token.
    Max,
}

impl Aggregation {
    /// All of them, by the names that the command line and transformers use.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("none", Self::None),
        ("simple", Self::Simple),
        ("first", Self::First),
        ("average", Self::Average),
        ("max", Self::Max),
    ];

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(n, _)| *n == name).map(|(_, aggregation)| *aggregation)
    }
}

/// How entities are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntityOptions {
    /// How tokens become entities.
    pub aggregation: Aggregation,
    /// Choose the likeliest sequence of labels that the scheme allows, instead of the likeliest
    /// label of each token (or word).
    pub constrained: bool,
}

/// A named entity.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Entity<'a> {
    /// `PER`; with [`Aggregation::None`] the whole label, `B-PER`.
    pub label: &'a str,
    /// Mean probability of the labels of its tokens (or words).
    pub score: f32,
    /// Its first token, counted in [`Tagged::ids`].
    pub first: usize,
    /// Its last token.
    pub last: usize,
    /// Where its text starts; all zero where there is no running text ([`Text::Words`], [`Text::Ids`]).
    pub start: Offset,
    /// Where its text ends.
    pub end: Offset,
}

/// What to find entities in.
#[derive(Clone, Copy, Debug)]
pub enum Text<'t> {
    /// Running text.
    Str(&'t str),
    /// Words that are already separate, as in tagged corpora.
    Words(&'t [&'t str]),
    /// Tokens as they are; see [`Input`].
    Ids(Input<'t>),
}

/// Labels at most: pairs of them are compared, which for a made-up file of a million would not end.
const MOST_LABELS: usize = 4096;

/// What a token is to the word it belongs to.
const WORD: u32 = 0;
const CONTINUES_WORD: u32 = 1;
const SPECIAL: u32 = 2;

/// Tokens with their logits: what [`EntityRecognizer::tag`] makes.
pub struct Tagged<'t, 's> {
    text: Text<'t>,
    /// Whether tokens were left out because the text was longer than the model allows.
    pub truncated: bool,
    /// Windows that were run.
    pub windows: usize,
    /// `[tokens]`: ids, `[CLS]` and `[SEP]` included.
    ids: &'s mut [u32],
    /// `[tokens]`: first byte, byte behind the last; counted within the word for [`Text::Words`].
    starts: &'s mut [u32],
    ends: &'s mut [u32],
    /// `[tokens]`: index of the word; [`NO_WORD`] for special tokens.
    words: &'s mut [u32],
    /// `[tokens]`: [`WORD`], [`CONTINUES_WORD`] or [`SPECIAL`].
    kinds: &'s mut [u32],
    /// `[tokens][labels]`.
    logits: &'s mut [f32],
    /// `[units]`: first and last token of each unit, see [`Tagged::join`].
    first: &'s mut [u32],
    last: &'s mut [u32],
    /// `[units]`: the label of each.
    path: &'s mut [u32],
    /// `[units][labels + 1]`, `[2][labels + 1]`: for [`viterbi::decode`].
    back: &'s mut [u32],
    row: &'s mut [f32],
}

impl Tagged<'_, '_> {
    /// `[tokens]`: the ids, `[CLS]` and `[SEP]` included.
    pub fn ids(&self) -> &[u32] {
        self.ids
    }

    /// `[tokens][labels]`: of a token in several windows those of the one that sees most around it.
    pub fn logits(&self) -> &[f32] {
        self.logits
    }

    /// Notes the tokens of a text, with `[CLS]` and `[SEP]` around them.
    fn fill(&mut self, tokenizer: &Tokenizer<'_>, source: Source<'_>) -> Result<(), TaskError> {
        let end = self.ids.len() - 1;
        for (row, id) in [(0, tokenizer.cls_id()), (end, tokenizer.sep_id())] {
            self.ids[row] = id;
            (self.starts[row], self.ends[row]) = (0, 0);
            (self.words[row], self.kinds[row]) = (NO_WORD, SPECIAL);
        }
        for (row, token) in (1..end).zip(tokenizer.tokens(source)) {
            let Token { id, start, end, word } = token?;
            self.ids[row] = id;
            (self.starts[row], self.ends[row], self.words[row]) = (start, end, word);
            let continues = match self.text {
                Text::Str(text) => is_subword(tokenizer, text, &Token { id, start, end, word }),
                _ => self.words[row - 1] == word,
            };
            self.kinds[row] = if continues { CONTINUES_WORD } else { WORD };
        }
        Ok(())
    }

    /// Turns logits into probabilities and tokens into units, which are labelled as one: tokens, or
    /// words. Unit `u` has row `u` of the logits from now on. Returns how many units there are.
    fn join(&mut self, aggregation: Aggregation, labels: usize) -> usize {
        let of_words = !matches!(aggregation, Aggregation::None | Aggregation::Simple);
        let mut units = 0;
        let mut tokens = 0;
        for i in (0..self.ids.len()).filter(|i| self.kinds[*i] != SPECIAL) {
            let row = i * labels..(i + 1) * labels;
            softmax(&mut self.logits[row.clone()]);
            let follows = units > 0 && self.last[units - 1] as usize + 1 == i;
            if !(of_words && follows && self.kinds[i] == CONTINUES_WORD) {
                self.logits.copy_within(row, units * labels);
                self.first[units] = i as u32;
                units += 1;
                tokens = 0;
            } else {
                let (unit, token) = self.logits.split_at_mut(i * labels);
                let (unit, token) = (&mut unit[(units - 1) * labels..][..labels], &token[..labels]);
                match aggregation {
                    Aggregation::Average => {
                        // A running mean would round differently: sum now, divide below.
                        unit.iter_mut().zip(token).for_each(|(unit, token)| *unit += token);
                    }
                    Aggregation::Max if largest(token) > largest(unit) => {
                        unit.copy_from_slice(token);
                    }
                    _ => {}
                }
            }
            self.last[units - 1] = i as u32;
            tokens += 1;
            let ends = self.kinds.get(i + 1).is_none_or(|kind| *kind != CONTINUES_WORD);
            if aggregation == Aggregation::Average && ends && tokens > 1 {
                let unit = &mut self.logits[(units - 1) * labels..][..labels];
                unit.iter_mut().for_each(|x| *x /= tokens as f32);
            }
        }
        units
    }

    /// Chooses a label for each unit.
    fn decode(&mut self, labels: &LabelSet<'_, '_>, units: usize, constrained: bool) {
        let count = labels.len();
        let (rows, path) = (&self.logits[..units * count], &mut self.path[..units]);
        if constrained {
            viterbi::decode(labels, rows, self.back, self.row, path);
        } else {
            for (label, row) in path.iter_mut().zip(rows.chunks_exact(count.max(1))) {
                *label = argmax(row).unwrap_or(count) as u32;
            }
        }
    }

    /// The probability of a unit's label.
    fn score(&self, unit: usize, labels: usize) -> f32 {
        self.logits[unit * labels + self.path[unit] as usize]
    }

    /// [`EntityRecognizer::entities`].
    fn entities<'a>(
        mut self,
        labels: &LabelSet<'a, '_>,
        options: &EntityOptions,
        mut sink: impl FnMut(Entity<'a>),
    ) {
        let single = options.aggregation == Aggregation::None;
        let units = self.join(options.aggregation, labels.len());
        self.decode(labels, units, options.constrained);
        let mut counter = OffsetCounter::new(match self.text {
            Text::Str(text) => text,
            _ => "",
        });
        let mut entity = |units: Range<usize>| {
            let label = labels.get(self.path[units.start] as usize);
            let Some(label) = label.filter(|label| label.position != TagPosition::Outside) else {
                return;
            };
            let sum: f32 = units.clone().map(|unit| self.score(unit, labels.len())).sum();
            let first = self.first[units.start] as usize;
            let last = self.last[units.end - 1] as usize;
            sink(Entity {
                label: if single { label.name } else { label.entity },
                score: sum / units.len() as f32,
                first,
                last,
                start: counter.at(self.starts[first]),
                end: counter.at(self.ends[last]),
            });
        };
        let mut start = 0;
        for unit in 1..=units {
            let splits = unit == units || single || {
                let pair = [unit - 1, unit].map(|unit| self.path[unit] as usize);
                // Nothing is joined over a special token.
                self.last[unit - 1] + 1 != self.first[unit] || labels.splits(pair)
            };
            if splits {
                entity(start..unit);
                start = unit;
            }
        }
    }

    /// [`EntityRecognizer::word_labels`].
    fn word_labels(
        mut self,
        labels: &LabelSet<'_, '_>,
        constrained: bool,
        mut sink: impl FnMut(usize, usize, f32),
    ) {
        let units = self.join(Aggregation::First, labels.len());
        self.decode(labels, units, constrained);
        for unit in 0..units {
            let (word, label) = (self.words[self.first[unit] as usize], self.path[unit] as usize);
            if label < labels.len() {
                sink(word as usize, label, self.score(unit, labels.len()));
            }
        }
    }
}

fn largest(x: &[f32]) -> f32 {
    argmax(x).map_or(f32::NAN, |i| x[i])
}

/// The rule of transformers: a token goes on with a word if it has not as many characters as its
/// stretch of the text, so because of its `##`. It errs where normalising changed their number.
fn is_subword(tokenizer: &Tokenizer<'_>, text: &str, token: &Token) -> bool {
    let bytes = text.as_bytes().get(token.start as usize..token.end as usize);
    let chars = bytes.unwrap_or(&[]).iter().filter(|b| **b & 0xC0 != 0x80).count();
    let known = tokenizer.token(token.id).filter(|_| token.id != tokenizer.unk_id());
    known.is_some_and(|token| token.chars().count() != chars)
}

/// Divides scratch memory; every part starts at a multiple of 64 bytes.
struct Arena<'s> {
    rest: &'s mut [u8],
    need: usize,
    have: usize,
}

impl<'s> Arena<'s> {
    fn take<T: Plain>(&mut self, count: usize) -> Result<&'s mut [T], TaskError> {
        let (need, have) = (self.need, self.have);
        take(&mut self.rest, count).ok_or(TaskError::Scratch { need, have })
    }
}

/// Finds named entities with a model's token classifier.
#[derive(Clone, Copy, Debug)]
pub struct EntityRecognizer<'a, 'b> {
    head: TokenClassifier<'a>,
    labels: LabelSet<'a, 'b>,
    /// `None` where the model has none: then only [`Text::Ids`] works.
    tokenizer: Option<Tokenizer<'a>>,
}

impl<'a, 'b> EntityRecognizer<'a, 'b> {
    /// The entity recogniser of a model. `labels` needs a place for each of the model's labels.
    ///
    /// # Errors
    /// [`crate::RunError::MissingHead`], [`TaskError::TooManyLabels`], [`TaskError::Buffer`],
    /// [`TaskError::Tokenizer`].
    pub fn new(model: &Model<'a>, labels: &'b mut [Label<'a>]) -> Result<Self, TaskError> {
        let head = TokenClassifier::new(model)?;
        let (need, have) = (head.logits_len(1), labels.len());
        if need > MOST_LABELS {
            return Err(TaskError::TooManyLabels { have: need, limit: MOST_LABELS });
        }
        if have < need {
            return Err(TaskError::Buffer { what: "labels", need, have });
        }
        let tokenizer = match model.tokenizer() {
            Ok(tokenizer) => Some(tokenizer),
            Err(TaskError::NoTokenizer) => None,
            Err(error) => return Err(error),
        };
        // A file may lack names; outputs without one are still counted.
        let names = head.labels();
        let names = (0..need).map(move |i| names.get(i).unwrap_or("?"));
        Ok(Self { head, labels: LabelSet::new(names, labels), tokenizer })
    }

    /// The labels.
    pub fn labels(&self) -> LabelSet<'a, 'b> {
        self.labels
    }

    /// Bytes of scratch that [`EntityRecognizer::tag`] needs for so many tokens of a text (those of
    /// [`Tokenizer::count`]; special tokens come on top), with an encoder for `window` tokens. Without
    /// windows no more than `window` tokens of the text are looked at.
    ///
    /// The formula, for L labels and T = tokens + 2: eight parts of 4 T bytes, 4 T L for logits,
    /// 4 T (L + 1) and 8 (L + 1) for constrained decoding, 4 window and 4 window L; each part rounded
    /// up to 64 bytes; and 64.
    pub fn scratch_len(&self, window: usize, tokens: usize) -> usize {
        Self::rows_len(self.labels.len(), window, tokens.saturating_add(2))
    }

    /// [`EntityRecognizer::scratch_len`] for so many labels, and tokens with the special ones.
    pub(crate) fn rows_len(labels: usize, window: usize, rows: usize) -> usize {
        let part = |count: usize, each: usize| {
            count.saturating_mul(each).saturating_mul(4).saturating_add(63) & !63
        };
        [
            part(rows, 1).saturating_mul(8),
            part(rows, labels),
            part(rows, labels + 1),
            part(labels + 1, 2),
            part(window, 1),
            part(window, labels),
            // Up to the first multiple of 64.
            64,
        ]
        .into_iter()
        .fold(0, usize::saturating_add)
    }

    /// Divides the scratch: tokens, and ids and logits of a window.
    #[allow(clippy::type_complexity)]
    fn divide<'t, 's>(
        &self,
        text: Text<'t>,
        rows: usize,
        window: usize,
        scratch: &'s mut [u8],
    ) -> Result<(Tagged<'t, 's>, &'s mut [u32], &'s mut [f32]), TaskError> {
        let labels = self.labels.len();
        let (need, have) = (Self::rows_len(self.labels.len(), window, rows), scratch.len());
        if have < need {
            return Err(TaskError::Scratch { need, have });
        }
        let mut arena = Arena { rest: scratch, need, have };
        let tagged = Tagged {
            text,
            truncated: false,
            windows: 1,
            ids: arena.take(rows)?,
            starts: arena.take(rows)?,
            ends: arena.take(rows)?,
            words: arena.take(rows)?,
            kinds: arena.take(rows)?,
            first: arena.take(rows)?,
            last: arena.take(rows)?,
            path: arena.take(rows)?,
            logits: arena.take(rows * labels)?,
            back: arena.take(rows * (labels + 1))?,
            row: arena.take(2 * (labels + 1))?,
        };
        Ok((tagged, arena.take(window)?, arena.take(window * labels)?))
    }

    /// Runs the model over a text: in one go, or (with `overlap`) in windows of as many tokens as the
    /// encoder was made for, which share `overlap` tokens (at most all but one). Without windows a
    /// longer text is cut, and [`Tagged::truncated`] says so; ids that are too many are an error.
    ///
    /// # Errors
    /// Any [`TaskError`].
    pub fn tag<'t, 's>(
        &self,
        encoder: &mut Encoder<'_, '_>,
        text: Text<'t>,
        overlap: Option<usize>,
        scratch: &'s mut [u8],
    ) -> Result<Tagged<'t, 's>, TaskError> {
        let source = match text {
            Text::Str(text) => Source::from(text),
            Text::Words(words) => Source::from(words),
            Text::Ids(input) => return self.tag_ids(encoder, input, scratch),
        };
        let tokenizer = self.tokenizer.as_ref().ok_or(TaskError::NoTokenizer)?;
        let size = encoder.max_tokens();
        if size < 3 {
            return Err(TaskError::EncoderTooShort { need: 3, have: size });
        }
        let all = match overlap {
            Some(_) => tokenizer.count(source)?,
            // One more than fit, to know whether there are more.
            None => count_up_to(tokenizer, source, size - 1)?,
        };
        let count = if overlap.is_some() { all } else { all.min(size - 2) };
        let (mut tagged, window, logits) = self.divide(text, count + 2, size, scratch)?;
        tagged.truncated = count < all;
        tagged.fill(tokenizer, source)?;

        let plan = WindowPlan::new(count, size - 2, overlap.unwrap_or(0));
        tagged.windows = plan.count();
        let labels = self.labels.len();
        for i in 0..plan.count() {
            let (inside, mut owned) = (plan.window(i), plan.owned(i));
            let ids = &mut window[..inside.len() + 2];
            // Token `t` of the text is row `t + 1`; the window's first row comes before its tokens.
            ids.copy_from_slice(&tagged.ids[inside.start..inside.end + 2]);
            ids[0] = tokenizer.cls_id();
            ids[inside.len() + 1] = tokenizer.sep_id();
            let logits = &mut logits[..ids.len() * labels];
            self.head.logits(encoder, &Input::new(ids), logits)?;
            // Rows: the first window has the text's [CLS], the last its [SEP].
            owned = owned.start + usize::from(i > 0)..owned.end + 1;
            owned.end += usize::from(i + 1 == plan.count());
            let from = owned.start - inside.start;
            tagged.logits[owned.start * labels..owned.end * labels]
                .copy_from_slice(&logits[from * labels..][..owned.len() * labels]);
        }
        Ok(tagged)
    }

    /// Tokens as given. Special ones are told by their ids, parts of words by their `##`.
    fn tag_ids<'t, 's>(
        &self,
        encoder: &mut Encoder<'_, '_>,
        input: Input<'t>,
        scratch: &'s mut [u8],
    ) -> Result<Tagged<'t, 's>, TaskError> {
        let count = input.input_ids.len();
        let text = Text::Ids(input);
        let (tagged, ..) = self.divide(text, count, 0, scratch)?;
        self.head.logits(encoder, &input, tagged.logits)?;
        tagged.ids.copy_from_slice(input.input_ids);
        let mut word = 0;
        for (i, id) in input.input_ids.iter().enumerate() {
            let tokenizer = self.tokenizer.as_ref();
            let special = tokenizer
                .is_some_and(|t| *id == t.cls_id() || *id == t.sep_id() || Some(*id) == t.pad_id());
            let masked = input.attention_mask.is_some_and(|mask| mask[i] == 0);
            let token = tokenizer.and_then(|t| t.token(*id)).unwrap_or("");
            tagged.kinds[i] = match token.starts_with("##") {
                _ if special || masked => SPECIAL,
                true => CONTINUES_WORD,
                false => WORD,
            };
            word += u32::from(tagged.kinds[i] == WORD);
            tagged.words[i] = word;
            (tagged.starts[i], tagged.ends[i]) = (0, 0);
        }
        Ok(tagged)
    }

    /// The entities, in order, each handed to `sink`. Turns the logits into probabilities.
    pub fn entities(
        &self,
        tagged: Tagged<'_, '_>,
        options: &EntityOptions,
        sink: impl FnMut(Entity<'a>),
    ) {
        tagged.entities(&self.labels, options, sink);
    }

    /// The label of each word of [`Text::Words`], that of its first token: index of the word, index of
    /// the label, probability. Words that have no token, or were cut off, are left out; `O` is left
    /// out where the model has no such label. Turns the logits into probabilities.
    pub fn word_labels(
        &self,
        tagged: Tagged<'_, '_>,
        constrained: bool,
        sink: impl FnMut(usize, usize, f32),
    ) {
        tagged.word_labels(&self.labels, constrained, sink);
    }
}

/// The number of tokens, or `limit` if there are more.
fn count_up_to(
    tokenizer: &Tokenizer<'_>,
    source: Source<'_>,
    limit: usize,
) -> Result<usize, TaskError> {
    let mut count = 0;
    for token in tokenizer.tokens(source).take(limit) {
        token?;
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// First byte, byte behind the last, whether it goes on with a word, and likely labels.
    type Tag = (u32, u32, bool, Vec<(&'static str, f32)>);

    /// Tokens with their probabilities, as the encoder would have given them.
    struct Case<'t> {
        text: &'t str,
        tokens: Vec<Tag>,
    }

    /// Label, score, first byte, byte behind the last.
    type Found = (String, f32, u32, u32);

    impl Case<'_> {
        fn run(&self, names: &[&'static str], options: EntityOptions) -> Vec<Found> {
            let mut buffer = vec![Label::default(); names.len()];
            let labels = LabelSet::new(names.iter().copied(), &mut buffer);
            let (n, count) = (self.tokens.len(), names.len());
            let column = |f: &dyn Fn(&Tag) -> u32| self.tokens.iter().map(f).collect::<Vec<_>>();
            let mut logits = vec![f32::MIN; n * count];
            for (row, (.., likely)) in logits.chunks_exact_mut(count.max(1)).zip(&self.tokens) {
                for (name, p) in likely {
                    row[names.iter().position(|n| n == name).unwrap()] = p.ln();
                }
            }
            let tagged = Tagged {
                text: Text::Str(self.text),
                truncated: false,
                windows: 1,
                ids: &mut vec![0; n],
                starts: &mut column(&|t| t.0),
                ends: &mut column(&|t| t.1),
                words: &mut vec![0; n],
                kinds: &mut column(&|t| if t.2 { CONTINUES_WORD } else { WORD }),
                logits: &mut logits,
                first: &mut vec![0; n],
                last: &mut vec![0; n],
                path: &mut vec![0; n],
                back: &mut vec![0; n * (count + 1)],
                row: &mut vec![0.0; 2 * (count + 1)],
            };
            let mut found = Vec::new();
            tagged.entities(&labels, &options, |e| {
                // Every unit tells the same slice.
                let Range { start, end } = e.start.char as usize..e.end.char as usize;
                let chars: String = self.text.chars().skip(start).take(end - start).collect();
                let units: Vec<u16> = self.text.encode_utf16().collect();
                let utf16 = &units[e.start.utf16 as usize..e.end.utf16 as usize];
                let bytes = &self.text[e.start.byte as usize..e.end.byte as usize];
                assert_eq!((bytes, bytes), (&chars[..], &String::from_utf16(utf16).unwrap()[..]));
                found.push((e.label.to_owned(), e.score, e.start.byte, e.end.byte));
            });
            found
        }
    }

    fn check(found: Vec<Found>, expected: &[(&str, f32, u32, u32)]) {
        let places =
            |all: &[Found]| all.iter().map(|f| (f.0.clone(), f.2, f.3)).collect::<Vec<_>>();
        let wanted: Vec<Found> = expected.iter().map(|e| (e.0.to_owned(), e.1, e.2, e.3)).collect();
        assert_eq!(places(&found), places(&wanted));
        for (found, wanted) in found.iter().zip(&wanted) {
            assert!((found.1 - wanted.1).abs() < 1e-5, "{found:?} {wanted:?}");
        }
    }

    const BIO: [&str; 5] = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG"];

    /// What transformers' rules make of these tokens, by hand.
    #[test]
    fn each_strategy_gives_the_spans_and_scores_of_transformers() {
        let case = Case {
            text: "Microsoft and Anna Bell",
            tokens: vec![
                (0, 5, false, vec![("B-ORG", 0.6), ("I-PER", 0.3), ("O", 0.1)]),
                (5, 9, true, vec![("I-PER", 0.7), ("I-ORG", 0.2), ("O", 0.1)]),
                (10, 13, false, vec![("O", 0.9), ("B-PER", 0.1)]),
                (14, 16, false, vec![("B-PER", 0.5), ("B-ORG", 0.3), ("O", 0.2)]),
                (16, 18, true, vec![("B-ORG", 0.8), ("B-PER", 0.1), ("O", 0.1)]),
                (19, 23, false, vec![("I-PER", 0.6), ("I-ORG", 0.4)]),
            ],
        };
        let run =
            |aggregation, constrained| case.run(&BIO, EntityOptions { aggregation, constrained });
        use Aggregation::*;
        check(
            run(None, false),
            &[
                ("B-ORG", 0.6, 0, 5),
                ("I-PER", 0.7, 5, 9),
                ("B-PER", 0.5, 14, 16),
                ("B-ORG", 0.8, 16, 18),
                ("I-PER", 0.6, 19, 23),
            ],
        );
        check(
            run(Simple, false),
            &[
                ("ORG", 0.6, 0, 5),
                ("PER", 0.7, 5, 9),
                ("PER", 0.5, 14, 16),
                ("ORG", 0.8, 16, 18),
                ("PER", 0.6, 19, 23),
            ],
        );
        check(run(First, false), &[("ORG", 0.6, 0, 9), ("PER", 0.55, 14, 23)]);
        check(
            run(Average, false),
            &[("PER", 0.5, 0, 9), ("ORG", 0.55, 14, 18), ("PER", 0.6, 19, 23)],
        );
        check(run(Max, false), &[("PER", 0.7, 0, 9), ("ORG", 0.8, 14, 18), ("PER", 0.6, 19, 23)]);
        // B-ORG I-ORG O B-PER B-ORG I-ORG.
        check(run(Simple, true), &[("ORG", 0.4, 0, 9), ("PER", 0.5, 14, 16), ("ORG", 0.6, 16, 23)]);
        // Words: B-ORG O B-PER I-PER.
        check(run(First, true), &[("ORG", 0.6, 0, 9), ("PER", 0.55, 14, 23)]);
    }

    #[test]
    fn neighbours_join_unless_one_begins() {
        let tag = |start, label| (start, start + 1, false, vec![(label, 1.0)]);
        let case = Case {
            text: "abcdefgh",
            tokens: vec![
                tag(0, "I-PER"),
                tag(1, "I-PER"),
                tag(2, "B-PER"),
                tag(3, "I-PER"),
                tag(4, "I-ORG"),
                tag(5, "O"),
                tag(6, "I-ORG"),
                tag(7, "B-ORG"),
            ],
        };
        check(
            case.run(&BIO, EntityOptions::default()),
            &[
                ("PER", 1.0, 0, 2),
                ("PER", 1.0, 2, 4),
                ("ORG", 1.0, 4, 5),
                ("ORG", 1.0, 6, 7),
                ("ORG", 1.0, 7, 8),
            ],
        );
    }

    #[test]
    fn chinese_entities_have_no_spaces_and_their_borders_are_marked() {
        let text = "我在北京上海😀大学";
        let tags = ["O", "O", "B-LOC", "E-LOC", "B-LOC", "E-LOC", "S-LOC", "B-LOC", "E-LOC"];
        let tokens = |bmes: bool| {
            text.char_indices()
                .zip(tags)
                .map(|((at, c), tag)| {
                    let tag = if bmes || tag != "S-LOC" { tag } else { "O" };
                    (at as u32, (at + c.len_utf8()) as u32, false, vec![(tag, 0.9), ("M-LOC", 0.1)])
                })
                .collect()
        };
        let names = ["O", "B-LOC", "M-LOC", "E-LOC", "S-LOC"];
        let expected =
            [("LOC", 0.9, 6, 12), ("LOC", 0.9, 12, 18), ("LOC", 0.9, 18, 22), ("LOC", 0.9, 22, 28)];
        for constrained in [false, true] {
            let options = EntityOptions { aggregation: Aggregation::Simple, constrained };
            check(Case { text, tokens: tokens(true) }.run(&names, options), &expected);
        }
        assert_eq!(&text[6..12], "北京");
    }

    /// Label sets that make no sense.
    const ODD: &[&[&str]] = &[
        &["O", "O", "B-X", "B-X", "I-X"],
        &["", "-", "B-", "I-", "E-"],
        &["B-X", "E-X"],
        &["LABEL_0", "LABEL_1"],
        &["I-X"],
        &["?", "?", "?"],
        &["O"],
        &["B-X", "M-X", "E-X", "S-X", "X"],
    ];

    proptest! {
        #[test]
        fn nothing_panics_and_constrained_entities_are_whole(
            odd in 0..ODD.len(),
            tokens in proptest::collection::vec((any::<bool>(), 0..6usize, 0.01f32..1.0), 0..12),
            strategy in 0..5usize,
            constrained: bool,
        ) {
            let names = ODD[odd];
            let text = "😀é中a ".repeat(12);
            let mut at = 0;
            let tokens = tokens
                .into_iter()
                .map(|(goes_on, label, p)| {
                    let start = at;
                    at += text[at..].chars().next().unwrap().len_utf8();
                    let label = names[label % names.len()];
                    (start as u32, at as u32, goes_on, vec![(label, p), (names[0], 0.5)])
                })
                .collect();
            let aggregation = Aggregation::NAMES[strategy].1;
            let found = Case { text: &text, tokens }
                .run(names, EntityOptions { aggregation, constrained });
            for pair in found.windows(2) {
                prop_assert!(pair[0].3 <= pair[1].2);
            }
        }
    }

    #[test]
    fn no_tokens_no_entities() {
        for aggregation in Aggregation::NAMES {
            let options = EntityOptions { aggregation: aggregation.1, constrained: true };
            assert!(Case { text: "", tokens: vec![] }.run(&BIO, options).is_empty());
        }
    }
}
