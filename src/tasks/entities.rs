//! Named entities: labels for tokens, then tokens to entities; and texts without them.
//!
//! The rules are those of `TokenClassificationPipeline` in transformers, so that spans and scores are
//! the same (`tests/tasks/pipeline.rs` compares them), except where those lose entities:
//!
//! - Words are the tokenizer's. Transformers compares the number of a token's characters with that of its stretch of
//!   text. Where normalising changes that number (accents as characters of their own, soft hyphens, joiners,
//!   Hangul, vowel signs), it takes words for parts of the word before them.
//! - BIOES and BMES are understood.
//! - A label without a prefix of its scheme is the name of an entity (transformers takes what follows its first
//!   hyphen), and outside labels have more names than `O`: see [`Scheme`](super::Scheme) and
//!   [`LabelRules`].
//!
//! As in transformers, a word is what BERT's basic tokenizer makes one: it ends at white space and at
//! punctuation, so that `Rolls-Royce` has three, and each Chinese character is one. An entity's range is that of
//! its tokens, as the tokenizer reports it: it leaves out characters after the last letter that normalising
//! takes away. [`Redacted`] leaves out nothing.

use std::fmt;

use super::rows::{
    Arena, CONTINUES_WORD, Rows, SPECIAL, ScratchLen, TokenTable, WORD, part, scratch_size,
};
use super::runner::{RunInfo, Text, TextRunner};
use super::tags::{Label, LabelRules, LabelSet};
use super::units::{UnitSpace, Units};
use super::{TaskError, label_name};
use crate::encoder::Input;
use crate::error::TooSmall;
use crate::format::Model;
use crate::heads::TokenClassifier;
use crate::tokenizer::{NO_WORD, Offset, OffsetCounter};

/// How tokens become entities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Aggregation {
    /// Not at all: each token whose label is not an outside one is an entity, with its full label.
    None,
    /// Neighbouring tokens of the same entity are joined. Entities may end within a word.
    Simple,
    /// Words have the label of their first token; neighbouring words are joined.
    #[default]
    First,
    /// Words have the label of the largest mean probability.
    Average,
    /// Words have the label of their most confident token.
    Max,
}

impl Aggregation {
    /// All strategies with the names that the command and transformers use.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("none", Self::None),
        ("simple", Self::Simple),
        ("first", Self::First),
        ("average", Self::Average),
        ("max", Self::Max),
    ];

    /// The strategy with this name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(n, _)| *n == name).map(|(_, aggregation)| *aggregation)
    }
}

/// How entities are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntityOptions {
    /// How tokens become entities.
    pub aggregation: Aggregation,
    /// Whether to choose the likeliest sequence of labels that the scheme allows, instead of the
    /// likeliest label of each token or word.
    pub constrained: bool,
}

/// A named entity.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Entity<'a> {
    /// `PER`; with [`Aggregation::None`] the whole label, `B-PER`.
    pub label: &'a str,
    /// Mean probability of the labels of its tokens or words, in [0, 1].
    pub score: f32,
    /// Index of its first token in [`Tagged::ids`].
    pub first: usize,
    /// Index of its last token.
    pub last: usize,
    /// Where its text starts; all zero for [`Text::Words`] and [`Text::Ids`], which have no running text.
    pub start: Offset,
    /// Where its text ends.
    pub end: Offset,
}

/// Upper bound on labels. Viterbi decoding is quadratic in them, and a hostile file could claim a million.
const MAX_LABELS: usize = 4096;

/// The tokens of a text with their logits: what [`EntityRecognizer::tag`] returns.
pub struct Tagged<'t, 's> {
    text: Text<'t>,
    /// How the text was run.
    pub run: RunInfo,
    tokens: TokenTable<'s>,
    /// `[tokens][labels]`.
    logits: &'s mut [f32],
    space: UnitSpace<'s>,
}

impl Tagged<'_, '_> {
    /// The ids, `[CLS]` and `[SEP]` included.
    pub fn ids(&self) -> &[u32] {
        self.tokens.ids
    }

    /// `[tokens][labels]`: the logits. Those of a token in several windows come from the window that
    /// owns it.
    pub fn logits(&self) -> &[f32] {
        self.logits
    }
}

impl Tagged<'_, '_> {
    /// [`EntityRecognizer::entities`].
    fn entities<'a>(
        self,
        labels: &LabelSet<'a, '_>,
        options: &EntityOptions,
        mut sink: impl FnMut(Entity<'a>),
    ) {
        let Self { text, tokens, logits, space, .. } = self;
        let EntityOptions { aggregation, constrained } = *options;
        let single = aggregation == Aggregation::None;
        let units = Units::new(&tokens, logits, space, labels, (aggregation, constrained));
        let mut counter = OffsetCounter::new(match text {
            Text::Str(text) => text,
            _ => "",
        });
        units.groups(labels, single, |group| {
            let Some(label) = labels.get(units.label(group.start)) else { return };
            let (first, last) = (units.first(group.start), units.last(group.end - 1));
            let sum: f32 = group.clone().map(|unit| units.score(unit)).sum();
            sink(Entity {
                label: if single { label.name } else { label.entity },
                score: sum / group.len() as f32,
                first,
                last,
                start: counter.at(tokens.starts[first]),
                end: counter.at(tokens.ends[last]),
            });
        });
    }
}

/// The scratch of entities for this many labels, and windows of this many tokens.
struct Layout {
    labels: usize,
    window: usize,
}

impl ScratchLen for Layout {
    fn bytes(&self, rows: usize) -> usize {
        let values = |rows: usize, width: usize| part(rows.saturating_mul(width));
        [
            part(rows).saturating_mul(TokenTable::COLUMNS + 3),
            values(rows, self.labels),
            values(rows, self.labels + 1),
            part(2 * (self.labels + 1)),
            values(self.window, self.labels),
            // Up to the first multiple of 64.
            64,
        ]
        .into_iter()
        .fold(0, usize::saturating_add)
    }
}

impl Layout {
    /// Divides the scratch for `rows` rows: all parts of [`Tagged`], and the logits of a window.
    fn divide<'t, 's>(
        &self,
        text: Text<'t>,
        rows: usize,
        scratch: &'s mut [u8],
    ) -> Result<(Tagged<'t, 's>, &'s mut [f32]), TaskError> {
        let (labels, run) = (self.labels, RunInfo { truncated: false, windows: 1 });
        let mut arena = Arena::new(scratch, self.bytes(rows))?;
        let tagged = Tagged {
            text,
            run,
            tokens: TokenTable::new(&mut arena, rows)?,
            logits: arena.take(rows * labels)?,
            space: UnitSpace {
                first: arena.take(rows)?,
                last: arena.take(rows)?,
                label: arena.take(rows)?,
                back: arena.take(rows * (labels + 1))?,
                row: arena.take(2 * (labels + 1))?,
            },
        };
        Ok((tagged, arena.take(self.window * labels)?))
    }
}

/// Bytes of scratch for `rows` tokens with the special ones.
pub(crate) fn scratch_len(labels: usize, window: usize, rows: usize) -> usize {
    Layout { labels, window }.bytes(rows)
}

/// Finds named entities with a model's token classifier.
#[derive(Clone, Copy, Debug)]
pub struct EntityRecognizer<'a, 'b> {
    head: TokenClassifier<'a>,
    labels: LabelSet<'a, 'b>,
}

impl<'a, 'b> EntityRecognizer<'a, 'b> {
    /// The entity recogniser of a model. `labels` needs one element per label of the model.
    ///
    /// # Errors
    /// [`crate::RunError::MissingHead`], [`TaskError::TooManyLabels`], [`TaskError::TooSmall`].
    pub fn new(model: &Model<'a>, labels: &'b mut [Label<'a>]) -> Result<Self, TaskError> {
        Self::with_rules(model, labels, &LabelRules::default())
    }

    /// [`EntityRecognizer::new`] with what the names of the labels do not say.
    ///
    /// # Errors
    /// Those of [`EntityRecognizer::new`], and [`TaskError::NoSuchLabel`] if an outside label is not the model's.
    pub fn with_rules(
        model: &Model<'a>,
        labels: &'b mut [Label<'a>],
        rules: &LabelRules<'_>,
    ) -> Result<Self, TaskError> {
        let head = TokenClassifier::new(model)?;
        let (need, have) = (head.logits_len(1), labels.len());
        if need > MAX_LABELS {
            return Err(TaskError::TooManyLabels { have: need, limit: MAX_LABELS });
        }
        if have < need {
            return Err(TooSmall { what: "labels", need, have }.into());
        }
        let names = head.labels();
        let names = (0..need).map(move |i| label_name(names, i));
        if !rules.outside.iter().all(|name| names.clone().any(|other| other == *name)) {
            return Err(TaskError::NoSuchLabel);
        }
        Ok(Self { head, labels: LabelSet::with_rules(names, labels, rules) })
    }

    /// The labels.
    pub fn labels(&self) -> LabelSet<'a, 'b> {
        self.labels
    }

    /// Bytes of scratch that [`EntityRecognizer::tag`] needs for `tokens` tokens of a text, without the
    /// special ones ([`Tokenizer::count`](crate::tokenizer::Tokenizer::count)), and an encoder for
    /// `window` tokens. Without windows a text counts as `window` tokens at most.
    ///
    /// The formula, for L labels and T = tokens + 2: eight parts of 4 T bytes, 4 T L for logits,
    /// 4 T (L + 1) and 8 (L + 1) for constrained decoding, 4 window L; each part rounded up to 64
    /// bytes; and 64.
    pub fn scratch_len(&self, window: usize, tokens: usize) -> usize {
        scratch_len(self.labels.len(), window, tokens.saturating_add(2))
    }

    /// Runs the model over a text, in windows if the runner has an overlap. The text is tokenised once.
    /// Of a text that is cut the result says so; too many ids are an error.
    ///
    /// # Errors
    /// Any [`TaskError`]; [`TaskError::OneText`] for a pair.
    pub fn tag<'t, 's>(
        &self,
        runner: &mut TextRunner<'_, '_>,
        text: impl Into<Text<'t>>,
        scratch: &'s mut [u8],
    ) -> Result<Tagged<'t, 's>, TaskError> {
        let text = text.into();
        if let Text::Ids(input) = text {
            return self.tag_ids(runner, input, scratch);
        }
        let (tokenizer, limit) = (runner.tokenizer()?, runner.row_limit()?);
        let layout = Layout { labels: self.labels.len(), window: runner.max_tokens };
        // The parts are divided for as many tokens as there is room for, and shortened afterwards.
        let bytes = scratch.len();
        let capacity = layout.rows(bytes, limit);
        if layout.bytes(capacity) > bytes {
            let rows = TokenTable::default().read(&tokenizer, text, limit)?.rows;
            return Err(scratch_size(layout.bytes(rows), bytes).into());
        }
        let (mut tagged, window) = layout.divide(text, capacity, scratch)?;
        let read = tagged.tokens.read(&tokenizer, text, limit)?;
        if read.rows > capacity {
            return Err(scratch_size(layout.bytes(read.rows), bytes).into());
        }
        let all = &mut std::mem::take(&mut tagged.logits)[..read.rows * layout.labels];
        let mut rows = Rows { all, window, width: layout.labels };
        let ran = runner.run_rows(&tagged.tokens, &mut rows, &mut |encoder, input, out| {
            self.head.logits(encoder, input, out)
        })?;
        tagged.logits = rows.all;
        tagged.run = RunInfo { truncated: read.truncated, ..ran };
        Ok(tagged)
    }

    /// Tokens as given. Special ones are known by their ids, continued words by their `##`.
    fn tag_ids<'t, 's>(
        &self,
        runner: &mut TextRunner<'_, '_>,
        input: Input<'t>,
        scratch: &'s mut [u8],
    ) -> Result<Tagged<'t, 's>, TaskError> {
        let rows = input.input_ids.len();
        let layout = Layout { labels: self.labels.len(), window: 0 };
        let (tagged, _) = layout.divide(Text::Ids(input), rows, scratch)?;
        self.head.logits(&mut runner.encoder, &input, tagged.logits)?;
        let tokenizer = runner.tokenizer().ok();
        let TokenTable { ids, starts, ends, words, kinds } = tagged.tokens;
        let mut word = 0;
        for (i, id) in input.input_ids.iter().copied().enumerate() {
            let special = tokenizer
                .is_some_and(|t| id == t.cls_id() || id == t.sep_id() || Some(id) == t.pad_id());
            let masked = input.attention_mask.is_some_and(|mask| mask[i] == 0);
            let token = tokenizer.and_then(|t| t.token(id)).unwrap_or("");
            kinds[i] = match token.starts_with("##") {
                _ if special || masked => SPECIAL,
                true => CONTINUES_WORD,
                false => WORD,
            };
            word += u32::from(kinds[i] == WORD);
            (ids[i], words[i]) = (id, if kinds[i] == SPECIAL { NO_WORD } else { word });
            (starts[i], ends[i]) = (0, 0);
        }
        let tokens = TokenTable { ids, starts, ends, words, kinds };
        Ok(Tagged { tokens, ..tagged })
    }

    /// Passes the entities to `sink`, in order.
    pub fn entities(
        &self,
        tagged: Tagged<'_, '_>,
        options: &EntityOptions,
        sink: impl FnMut(Entity<'a>),
    ) {
        tagged.entities(&self.labels, options, sink);
    }

    /// The text with every entity replaced by its label in brackets: `[PER] lives in [LOC].`
    ///
    /// # Errors
    /// [`TaskError::Truncated`] if the text was cut, [`TaskError::NotAText`] for words and ids.
    pub fn redact<'t, 's>(
        &self,
        tagged: Tagged<'t, 's>,
        options: &EntityOptions,
    ) -> Result<Redacted<'a, 'b, 't, 's>, TaskError> {
        let Tagged { text: Text::Str(text), run, tokens, logits, space } = tagged else {
            return Err(TaskError::NotAText);
        };
        if run.truncated {
            return Err(TaskError::Truncated);
        }
        let choice = (options.aggregation, options.constrained);
        let units = Units::new(&tokens, logits, space, &self.labels, choice);
        let single = options.aggregation == Aggregation::None;
        Ok(Redacted { text, tokens, units, labels: self.labels, single })
    }

    /// Passes the label of each word of [`Text::Words`] to `sink`, which is that of its first token:
    /// index of the word, index of the label, probability. Words without a token, and words that were
    /// cut off, are left out. `O` is left out if the model has no such label.
    pub fn word_labels(
        &self,
        tagged: Tagged<'_, '_>,
        constrained: bool,
        mut sink: impl FnMut(usize, usize, f32),
    ) {
        let Tagged { tokens, logits, space, .. } = tagged;
        let choice = (Aggregation::First, constrained);
        let units = Units::new(&tokens, logits, space, &self.labels, choice);
        for unit in 0..units.len() {
            let (word, label) = (tokens.words[units.first(unit)], units.label(unit));
            if label < self.labels.len() {
                sink(word as usize, label, units.score(unit));
            }
        }
    }
}

/// A text whose entities are replaced by their labels: what [`EntityRecognizer::redact`] returns. Displays
/// the text, as often as it is asked to.
///
/// Whole words are replaced, also where an entity ends within one, together with all characters next to
/// them that are neither white space nor part of another word, such as accents that normalising takes away. A
/// word with parts of two entities gets the label of the first.
pub struct Redacted<'a, 'b, 't, 's> {
    text: &'t str,
    tokens: TokenTable<'s>,
    units: Units<'s>,
    labels: LabelSet<'a, 'b>,
    /// Every unit is an entity of its own.
    single: bool,
}

impl Redacted<'_, '_, '_, '_> {
    /// Rows of the words that these rows are part of.
    fn words(&self, (mut first, mut last): (usize, usize)) -> (usize, usize) {
        let words = &self.tokens.words;
        while words[first - 1] == words[first] {
            first -= 1;
        }
        while words[last + 1] == words[last] {
            last += 1;
        }
        (first, last)
    }

    /// The bytes of these rows, which are whole words, and of what belongs to no other word.
    fn bytes(&self, first: usize, last: usize) -> (usize, usize) {
        let TokenTable { starts, ends, .. } = &self.tokens;
        let (before, after) = (first - 1, last + 1);
        // Marks that normalising reorders give tokens out of order.
        let start = starts[first..=last].iter().fold(u32::MAX, |a, b| a.min(*b)) as usize;
        let end = ends[first..=last].iter().fold(0, |a, b| a.max(*b)) as usize;
        // The special tokens around the text are at no byte of it.
        let from = if before == 0 { 0 } else { ends[before] as usize }.min(start);
        let to = if after + 1 == starts.len() { self.text.len() } else { starts[after] as usize };
        let gap = |from: usize, to: usize| self.text.get(from..to).unwrap_or("");
        let solid = |c: char| !c.is_whitespace();
        let to = to.max(end);
        (
            from + gap(from, start).trim_end_matches(solid).len(),
            to - gap(end, to).trim_start_matches(solid).len(),
        )
    }
}

impl fmt::Display for Redacted<'_, '_, '_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The row and the byte up to which the text is written.
        let (mut row, mut byte) = (1, 0);
        let mut result = Ok(());
        self.units.groups(&self.labels, self.single, |group| {
            let Some(label) = self.labels.get(self.units.label(group.start)) else { return };
            let rows = (self.units.first(group.start), self.units.last(group.end - 1));
            let (first, last) = self.words(rows);
            let first = first.max(row);
            if first > last || result.is_err() {
                return;
            }
            let (start, end) = self.bytes(first, last);
            let between = self.text.get(byte..start).unwrap_or("");
            result = write!(f, "{between}[{}]", label.entity);
            (row, byte) = (last + 1, end);
        });
        result?;
        f.write_str(self.text.get(byte..).unwrap_or(""))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::tasks::Scheme;
    use proptest::prelude::*;

    /// First byte, one past the last byte, whether it continues a word, and likely labels.
    type Tag = (u32, u32, bool, Vec<(&'static str, f32)>);

    /// Tokens with their probabilities, as the encoder would have given them.
    struct Case<'t> {
        text: &'t str,
        tokens: Vec<Tag>,
    }

    /// Label, score, first byte, one past the last byte.
    type Found = (String, f32, u32, u32);

    impl Case<'_> {
        fn run(&self, names: &[&'static str], options: EntityOptions) -> Vec<Found> {
            self.run_as(names, &LabelRules::default(), options)
        }

        fn run_as(
            &self,
            names: &[&'static str],
            rules: &LabelRules<'_>,
            options: EntityOptions,
        ) -> Vec<Found> {
            let mut buffer = vec![Label::default(); names.len()];
            let labels = LabelSet::with_rules(names.iter().copied(), &mut buffer, rules);
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
                run: RunInfo::default(),
                tokens: TokenTable {
                    ids: &mut vec![0; n],
                    starts: &mut column(&|t| t.0),
                    ends: &mut column(&|t| t.1),
                    words: &mut vec![0; n],
                    kinds: &mut column(&|t| if t.2 { CONTINUES_WORD } else { WORD }),
                },
                logits: &mut logits,
                space: UnitSpace {
                    first: &mut vec![0; n],
                    last: &mut vec![0; n],
                    label: &mut vec![0; n],
                    back: &mut vec![0; n * (count + 1)],
                    row: &mut vec![0.0; 2 * (count + 1)],
                },
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
        // I-PER I-PER O B-PER B-ORG I-ORG; where only a B- begins an entity, B-ORG I-ORG O and so on.
        let rest = [("PER", 0.5, 14, 16), ("ORG", 0.6, 16, 23)];
        check(run(Simple, true), &[("PER", 0.5, 0, 9), rest[0], rest[1]]);
        let rules = LabelRules { scheme: Some(Scheme::Iob2), ..LabelRules::default() };
        let options = EntityOptions { aggregation: Simple, constrained: true };
        check(case.run_as(&BIO, &rules, options), &[("ORG", 0.4, 0, 9), rest[0], rest[1]]);
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
