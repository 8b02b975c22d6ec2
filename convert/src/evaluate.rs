//! Scores of a model file on labelled data: F1 of entities, accuracy of text classes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bertlet::tasks::{Label, LabelSet, TagPosition};
use bertlet::tokenizer::{Limits, NO_WORD, TokenBuffer, Tokenizer};
use bertlet::{Head, ModelFile};
use serde::Serialize;

use crate::bert::{Bert, Matrix};
use crate::error::{Error, Result};
use crate::load::{self, HeadChoice, LoadOptions, Loaded};
use crate::measure;
use crate::reference::{self, Sequence, fast, spans};
use crate::source;

/// The task to score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Named entities in words tagged with IOB2: F1 over whole entities.
    Ner,
    /// Classes of texts: accuracy.
    Classify,
}

/// The score of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Score {
    /// F1 of the entities, or accuracy.
    pub score: f64,
    /// Share of the found entities that are correct.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<f64>,
    /// Share of the labelled entities that were found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall: Option<f64>,
}

/// The scores of a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// "entity F1" or "accuracy".
    pub measure: &'static str,
    /// Number of sentences or texts.
    pub count: usize,
    /// How many of them were cut to the model's limit.
    pub cut: usize,
    /// The first line of the data, where it is a heading.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heading: Option<String>,
    /// Score of the model file.
    pub model: Score,
    /// Score of the checkpoint in f32.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<Score>,
}

impl Scores {
    /// The scores as text.
    pub fn text(&self) -> String {
        let line = |name: &str, score: &Score| {
            let details = match (score.precision, score.recall) {
                (Some(p), Some(r)) => format!("  (precision {p:.5}, recall {r:.5})"),
                _ => String::new(),
            };
            format!("{name:10} {} {:.5}{details}\n", self.measure, score.score)
        };
        let mut out = line("model", &self.model);
        if let Some(reference) = &self.reference {
            out += &line("f32", reference);
            let points = 100.0 * (self.model.score - reference.score);
            out += &format!("difference {points:+.3} points\n");
        }
        out += &format!("{} texts", self.count);
        if self.cut > 0 {
            out += &format!(", {} of them cut to the model's limit", self.cut);
        }
        if let Some(heading) = &self.heading {
            out += &format!("; line 1 is a heading: {heading:?}");
        }
        out + "\n"
    }
}

/// Scores the model file `model` on `data`, and the checkpoint `reference` in f32.
///
/// # Errors
/// If a file cannot be read, or the model has no head for the task.
pub fn evaluate(model: &Path, task: Task, data: &Path, reference: Option<&Path>) -> Result<Scores> {
    let file = ModelFile::open(model).map_err(Error::opening)?;
    let loaded = file.model();
    let head = match task {
        Task::Ner => Head::TokenClassifier,
        Task::Classify => Head::SequenceClassifier,
    };
    let has = |head: Head| loaded.section(head.section()).is_some();
    if !has(head) {
        return Err(missing(model, head, &|head| has(head)));
    }
    let section = loaded.tokenizer_bytes().ok_or_else(|| {
        Error::new(model, "tokenizer", "is not in the model")
            .hint("convert the checkpoint with its vocab.txt or tokenizer.json")
    })?;
    let tokenizer = Tokenizer::from_bytes(section).map_err(|e| Error::new(model, "", e))?;
    let labels: Vec<String> = loaded.labels().iter().map(str::to_owned).collect();
    let text = std::fs::read_to_string(data)
        .map_err(|e| Error::new(data, "", format!("cannot be read: {e}")))?;
    let (examples, heading) = match task {
        Task::Ner => Examples::ner(&text).map(|examples| (examples, None)),
        Task::Classify => Examples::classify(&text, &labels),
    }
    .map_err(|(line, problem)| Error::new(data, format!("line {line}"), problem))?;
    examples.check(data, &labels)?;
    let inputs =
        examples.tokenize(&tokenizer, loaded.max_tokens()).map_err(|e| Error::new(data, "", e))?;

    let logits = measure::logits(loaded, head, &inputs.batch)
        .map_err(|e| Error::new(model, "", format!("cannot run: {e}")))?;
    let reference = reference.map(|path| {
        let source = source::open(
            path,
            source::OpenOptions { allow_missing_vocabulary: true, allow_unknown: true },
        )?;
        let kind = match task {
            Task::Ner => HeadChoice::Token,
            Task::Classify => HeadChoice::Sequence,
        };
        let kind = source.config.architecture.is_none().then_some(kind);
        let options = LoadOptions { allow_unknown: true, head: kind, weights: None };
        let Loaded { bert, .. } = load::load(&source, &options)?;
        if bert.config.vocab_size != loaded.config().vocab_size {
            return Err(Error::new(path, "vocab_size", "differs from that of the model")
                .hint("give the checkpoint that the model was converted from"));
        }
        let logits = reference_logits(&bert, head, &inputs.batch)
            .ok_or_else(|| Error::new(path, format!("{head:?}"), "is not in the checkpoint"))?;
        Ok(examples.score(&inputs, &logits, &labels))
    });
    Ok(Scores {
        measure: match task {
            Task::Ner => "entity F1",
            Task::Classify => "accuracy",
        },
        count: inputs.batch.len(),
        cut: inputs.cut,
        heading: heading.map(str::to_owned),
        model: examples.score(&inputs, &logits, &labels),
        reference: reference.transpose()?,
    })
}

/// The error for a model without the head of the task.
fn missing(model: &Path, head: Head, has: &dyn Fn(Head) -> bool) -> Error {
    const TASKS: [(Head, &str, &str); 2] = [
        (Head::TokenClassifier, "token classifier", "ner"),
        (Head::SequenceClassifier, "sequence classifier", "classify"),
    ];
    let named = |head| TASKS.iter().find(|(other, ..)| *other == head).map_or("head", |t| t.1);
    let problem = format!("the model has no {}", named(head));
    let hint = match TASKS.iter().find(|(other, ..)| has(*other)) {
        Some((_, what, task)) => format!("it has a {what}: --task {task}"),
        None => match Head::ALL.into_iter().find(|head| has(*head)) {
            Some(head) => format!("it has {}, which is not scored here", head.name()),
            None => "convert a checkpoint that was fine-tuned for the task".to_owned(),
        },
    };
    Error::new(model, "", problem).hint(hint)
}

/// Names in quotes, for messages.
fn quoted<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    names.into_iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

/// Logits in f32, one matrix per input. `None` without the head. Nothing of them is stored, so the fast product
/// suffices.
fn reference_logits(bert: &Bert, head: Head, batch: &[Sequence]) -> Option<Vec<Matrix>> {
    // Inputs per batch: enough for a fast product, few enough for little memory.
    const AT_ONCE: usize = 64;
    let mut all = Vec::new();
    for batch in batch.chunks(AT_ONCE) {
        let last = reference::hidden_states_by(fast::linear, bert, batch).pop()?;
        let logits = reference::logits_by(fast::linear, bert, &last, batch);
        let (logits, ranges) = match head {
            Head::TokenClassifier => (logits.token_classifier?, spans(batch)),
            _ => (logits.sequence_classifier?, (0..batch.len()).map(|i| i..i + 1).collect()),
        };
        all.extend(ranges.into_iter().map(|range| Matrix {
            rows: range.len(),
            cols: logits.cols,
            data: logits.data[range.start * logits.cols..range.end * logits.cols].to_vec(),
        }));
    }
    Some(all)
}

/// The words of a sentence and their tags.
pub(crate) type TaggedWords<'t> = (Vec<&'t str>, Vec<&'t str>);

/// Labelled data.
pub(crate) enum Examples<'t> {
    /// Sentences.
    Ner(Vec<TaggedWords<'t>>),
    /// Text and index of its label.
    Classify(Vec<(&'t str, usize)>),
}

/// Examples as token ids.
pub(crate) struct Inputs {
    pub batch: Vec<Sequence>,
    /// The word of every token, or [`NO_WORD`].
    pub words: Vec<Vec<u32>>,
    /// Number of inputs that were cut to the limit.
    pub cut: usize,
}

/// The number of a line that is not valid, and the problem.
pub(crate) type Wrong = (usize, String);

impl<'t> Examples<'t> {
    /// Reads one word and its tag per line (columns between them are ignored), and an empty line between
    /// sentences. Lines with `-DOCSTART-` are left out.
    pub fn ner(text: &'t str) -> std::result::Result<Self, Wrong> {
        let mut sentences = Vec::new();
        let (mut words, mut tags) = (Vec::new(), Vec::new());
        for (i, line) in without_mark(text).lines().chain([""]).enumerate() {
            let mut columns = line.split_whitespace();
            match (columns.next(), columns.next_back()) {
                (Some("-DOCSTART-"), _) => {}
                (Some(word), Some(tag)) => {
                    words.push(word);
                    tags.push(tag);
                }
                (None, _) if words.is_empty() => {}
                (None, _) => {
                    sentences.push((std::mem::take(&mut words), std::mem::take(&mut tags)));
                }
                (Some(word), None) => {
                    let problem = format!("{word:?} has no tag; put one after each word");
                    return Err((i + 1, problem));
                }
            }
        }
        Ok(Self::Ner(sentences))
    }

    /// Reads one label (its number or its name) TAB text per line. The first line may be a heading: one
    /// that does not start with a label or a number. Returns it, too.
    fn classify(
        text: &'t str,
        labels: &[String],
    ) -> std::result::Result<(Self, Option<&'t str>), Wrong> {
        let label = |name: &str| {
            let named = labels.iter().position(|label| label == name);
            named.or(name.parse().ok().filter(|n| *n < labels.len()))
        };
        let mut lines =
            without_mark(text).lines().enumerate().filter(|(_, l)| !l.trim().is_empty()).peekable();
        let heading = lines.next_if(|(i, line)| {
            let name = line.split('\t').next().unwrap_or("").trim();
            *i == 0 && label(name).is_none() && name.parse::<f64>().is_err()
        });
        let example = |(i, line): (usize, &'t str)| {
            let (name, text) = line.split_once('\t').ok_or_else(|| {
                (i + 1, "has no tab; write a label, a tab, and the text".to_owned())
            })?;
            let label = label(name.trim()).ok_or_else(|| {
                let labels = quoted(labels.iter().map(String::as_str));
                let problem = format!(
                    "{:?} is not a label of the model, which has {labels}; write a label (or its \
                     number from 0), a tab, and the text",
                    name.trim()
                );
                (i + 1, problem)
            })?;
            Ok((text.trim(), label))
        };
        let texts = lines.map(example).collect::<std::result::Result<_, _>>()?;
        Ok((Self::Classify(texts), heading.map(|(_, line)| line)))
    }

    /// Checks that there is something to score, with entities that the model can find.
    fn check(&self, data: &Path, labels: &[String]) -> Result<()> {
        let sentences = match self {
            Self::Classify(texts) if texts.is_empty() => {
                return Err(Error::new(data, "", "has no texts to score")
                    .hint("write one label, a tab, and the text per line"));
            }
            Self::Classify(_) => return Ok(()),
            Self::Ner(sentences) => sentences,
        };
        if sentences.is_empty() {
            return Err(Error::new(data, "", "has no words to score")
                .hint("write one word and its tag per line, and an empty line between sentences"));
        }
        let model = Tags::new(labels.iter().map(String::as_str));
        let gold = Tags::of_data(sentences, &model);
        let (ours, theirs) = (gold.entities(), model.entities());
        let unknown: Vec<_> = ours.difference(&theirs).copied().collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let problem = format!(
            "the model does not know {}: the data has {}, the model has {}",
            quoted(unknown),
            quoted(ours.iter().copied()),
            quoted(theirs.iter().copied())
        );
        Err(Error::new(data, "", problem)
            .hint("rename the tags, or convert the model again with --labels"))
    }

    pub fn tokenize(
        &self,
        tokenizer: &Tokenizer<'_>,
        positions: usize,
    ) -> std::result::Result<Inputs, bertlet::tokenizer::TokenizeError> {
        let mut inputs = Inputs { batch: Vec::new(), words: Vec::new(), cut: 0 };
        let (mut ids, mut words) = (vec![0; positions], vec![0; positions]);
        let limits = Limits::new(positions);
        let mut add = |source: bertlet::tokenizer::Source<'_>| {
            let mut buffer =
                TokenBuffer { input_ids: &mut ids, words: &mut words, ..TokenBuffer::default() };
            let encoded = tokenizer.encode(source, None, &limits, &mut buffer)?;
            inputs.batch.push(Sequence::single(ids[..encoded.len].to_vec()));
            inputs.words.push(words[..encoded.len].to_vec());
            inputs.cut += usize::from(encoded.truncated);
            Ok(())
        };
        match self {
            Self::Ner(sentences) => {
                sentences.iter().try_for_each(|(words, _)| add(words.as_slice().into()))
            }
            Self::Classify(texts) => texts.iter().try_for_each(|(text, _)| add((*text).into())),
        }?;
        Ok(inputs)
    }

    fn score(&self, inputs: &Inputs, logits: &[Matrix], labels: &[String]) -> Score {
        match self {
            Self::Ner(sentences) => {
                let all = sentences.iter().zip(&inputs.words).zip(logits);
                let tagged = all.map(|(((words, tags), tokens), logits)| {
                    (tags.clone(), word_tags(words.len(), tokens, logits, labels))
                });
                let model = Tags::new(labels.iter().map(String::as_str));
                entity_f1(tagged, &Tags::of_data(sentences, &model), &model)
            }
            Self::Classify(texts) => {
                let right = texts
                    .iter()
                    .zip(logits)
                    .filter(|((_, label), logits)| largest(&logits.data) == *label);
                let score = right.count() as f64 / texts.len().max(1) as f64;
                Score { score, precision: None, recall: None }
            }
        }
    }
}

/// The tag of every word: that of its first token, or `O` if it has no token or was cut off.
fn word_tags<'l>(
    count: usize,
    tokens: &[u32],
    logits: &Matrix,
    labels: &'l [String],
) -> Vec<&'l str> {
    let mut tags = vec!["O"; count];
    let mut last = NO_WORD;
    for (t, &word) in tokens.iter().enumerate() {
        if word != NO_WORD && word != last {
            tags[word as usize] = &labels[largest(logits.row(t))];
        }
        last = word;
    }
    tags
}

/// The index of the largest value, the first of equals.
fn largest(values: &[f32]) -> usize {
    let better = |best: usize, i: usize| if values[i] > values[best] { i } else { best };
    (0..values.len()).fold(0, better)
}

/// An entity: index of the first word, one past the last word, type.
pub type Entity<'t> = (usize, usize, &'t str);

/// A text without the byte order mark that some editors put at its start.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// What tags mean, by the scheme that their set follows; see [`LabelSet`].
pub struct Tags<'t>(BTreeMap<&'t str, Label<'t>>);

impl<'t> Tags<'t> {
    /// A set of tags, in any order.
    pub fn new(names: impl IntoIterator<Item = &'t str>) -> Self {
        let names: BTreeSet<_> = names.into_iter().collect();
        let mut buffer = vec![Label::default(); names.len()];
        let set = LabelSet::new(names, &mut buffer);
        Self(set.iter().map(|label| (label.name, *label)).collect())
    }

    /// The tags of labelled data. Where the model knows them all, they mean what they mean there: few
    /// sentences need not show which scheme they follow.
    fn of_data(sentences: &[TaggedWords<'t>], model: &Tags<'t>) -> Self {
        let all: BTreeSet<_> = sentences.iter().flat_map(|(_, tags)| tags).copied().collect();
        match all.iter().all(|tag| model.0.contains_key(tag)) {
            true => Self(model.0.clone()),
            false => Self::new(all),
        }
    }

    /// The meaning of a tag. One that is not in the set stands for words that were cut off: outside.
    fn get(&self, tag: &'t str) -> (TagPosition, &'t str) {
        self.0.get(tag).map_or((TagPosition::Outside, tag), |label| (label.position, label.entity))
    }

    /// Names of the entities.
    fn entities(&self) -> BTreeSet<&'t str> {
        let inside = self.0.values().filter(|label| label.position != TagPosition::Outside);
        inside.map(|label| label.entity).collect()
    }
}

/// The entities of a sentence, read as conlleval and seqeval (by default) do: an entity ends at another type,
/// at a tag that begins one, and after one that ends it; an `I-` without an entity before it begins one.
pub fn entities<'t>(tags: &[&'t str], meaning: &Tags<'t>) -> Vec<Entity<'t>> {
    let mut found: Vec<Entity<'t>> = Vec::new();
    let mut open = false;
    for (i, tag) in tags.iter().enumerate() {
        let (position, entity) = meaning.get(tag);
        if position == TagPosition::Outside {
            open = false;
            continue;
        }
        let begins = matches!(position, TagPosition::Begin | TagPosition::Single);
        match found.last_mut() {
            Some((_, end, current)) if open && !begins && *current == entity => *end = i + 1,
            _ => found.push((i, i + 1, entity)),
        }
        open = !matches!(position, TagPosition::End | TagPosition::Single);
    }
    found
}

/// Micro-averaged F1 over the entities of all sentences. Each sentence is a pair: gold tags, predicted tags;
/// `gold` and `predicted` say what these mean.
pub fn entity_f1<'t>(
    sentences: impl IntoIterator<Item = (Vec<&'t str>, Vec<&'t str>)>,
    gold: &Tags<'t>,
    predicted: &Tags<'t>,
) -> Score {
    let (mut right, mut found, mut there) = (0, 0, 0);
    for (gold_tags, predicted_tags) in sentences {
        let gold: BTreeSet<_> = entities(&gold_tags, gold).into_iter().collect();
        let predicted: BTreeSet<_> = entities(&predicted_tags, predicted).into_iter().collect();
        right += gold.intersection(&predicted).count();
        found += predicted.len();
        there += gold.len();
    }
    let share = |of: usize| if of == 0 { 0.0 } else { right as f64 / of as f64 };
    let score = if found + there == 0 { 0.0 } else { 2.0 * right as f64 / (found + there) as f64 };
    Score { score, precision: Some(share(found)), recall: Some(share(there)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f1(gold: &str, predicted: &str) -> Score {
        let split = |tags: &'static str| tags.split(' ').collect::<Vec<_>>();
        let leak = |tags: &str| split(Box::leak(tags.to_owned().into_boxed_str()));
        let (gold, predicted) = (leak(gold), leak(predicted));
        let meaning = Tags::new(gold.iter().chain(&predicted).copied());
        entity_f1([(gold, predicted)], &meaning, &meaning)
    }

    #[test]
    fn entities_are_those_of_the_reference_scorer() {
        for (tags, expected) in [
            ("O O", vec![]),
            ("B-PER I-PER O", vec![(0, 2, "PER")]),
            // Two neighbours of one type.
            ("B-PER B-PER", vec![(0, 1, "PER"), (1, 2, "PER")]),
            // An I- without a beginning begins.
            ("O I-LOC I-LOC", vec![(1, 3, "LOC")]),
            // The type changes.
            ("B-PER I-ORG I-ORG", vec![(0, 1, "PER"), (1, 3, "ORG")]),
            ("I-LOC B-LOC I-LOC", vec![(0, 1, "LOC"), (1, 3, "LOC")]),
            // A gap ends.
            ("B-LOC O I-LOC", vec![(0, 1, "LOC"), (2, 3, "LOC")]),
            // Ends and single words.
            ("B-PER I-PER E-PER O", vec![(0, 3, "PER")]),
            (
                "S-LOC S-LOC B-PER E-PER I-PER",
                vec![(0, 1, "LOC"), (1, 2, "LOC"), (2, 4, "PER"), (4, 5, "PER")],
            ),
            ("U-LOC U-LOC B-PER L-PER", vec![(0, 1, "LOC"), (1, 2, "LOC"), (2, 4, "PER")]),
            ("B-PER M-PER E-PER S-LOC S-LOC", vec![(0, 3, "PER"), (3, 4, "LOC"), (4, 5, "LOC")]),
            // Names alone.
            ("PER PER O LOC", vec![(0, 2, "PER"), (3, 4, "LOC")]),
            // Types with a dash of their own.
            ("B-NON-FICTION I-NON-FICTION", vec![(0, 2, "NON-FICTION")]),
        ] {
            let tags: Vec<_> = tags.split(' ').collect();
            let meaning = Tags::new(tags.iter().copied());
            assert_eq!(entities(&tags, &meaning), expected, "{tags:?}");
        }
    }

    #[test]
    fn scores_are_those_worked_out_by_hand() {
        let all = f1("B-PER I-PER O B-LOC", "B-PER I-PER O B-LOC");
        assert_eq!((all.score, all.precision, all.recall), (1.0, Some(1.0), Some(1.0)));
        // One of two found is right, one of three there is found.
        let some = f1("B-PER O B-LOC O B-ORG", "B-PER O B-ORG O O");
        assert_eq!((some.precision, some.recall), (Some(0.5), Some(1.0 / 3.0)));
        assert!((some.score - 0.4).abs() < 1e-12);
        // A wrong end is wrong, however near.
        assert_eq!(f1("B-PER I-PER", "B-PER O").score, 0.0);
        assert_eq!(f1("O O", "O O").score, 0.0);
        // seqeval's own example: 0.5 for one of two.
        let gold = "O O O B-MISC I-MISC I-MISC O";
        let found = "O O B-MISC I-MISC I-MISC I-MISC O";
        let meaning = Tags::new(["O", "B-MISC", "I-MISC", "B-PER", "I-PER"]);
        let both = entity_f1(
            [
                (gold.split(' ').collect(), found.split(' ').collect()),
                (vec!["B-PER", "I-PER", "O"], vec!["B-PER", "I-PER", "O"]),
            ],
            &meaning,
            &meaning,
        );
        assert_eq!(both.score, 0.5);
    }

    #[test]
    fn a_word_is_tagged_by_its_first_token() {
        let labels: Vec<String> = ["O", "B-PER"].map(String::from).to_vec();
        let logits = |rows: &[usize]| {
            let data = rows.iter().flat_map(|&r| [(r == 0) as u8 as f32, (r == 1) as u8 as f32]);
            Matrix { rows: rows.len(), cols: 2, data: data.collect() }
        };
        // [CLS] a ##b c [SEP]; word 2 was cut off.
        let tokens = [NO_WORD, 0, 0, 1, NO_WORD];
        let tags = word_tags(3, &tokens, &logits(&[1, 1, 0, 0, 1]), &labels);
        assert_eq!(tags, ["B-PER", "O", "O"]);
    }

    #[test]
    fn data_is_read_and_wrong_lines_are_named() {
        let Ok(Examples::Ner(sentences)) = Examples::ner("a B-X\nb x y O\n\n\nc O") else {
            panic!("readable");
        };
        assert_eq!(sentences, [(vec!["a", "b"], vec!["B-X", "O"]), (vec!["c"], vec!["O"])]);
        assert_eq!(Examples::ner("a O\nb\n").err().map(|e| e.0), Some(2));
        let Ok(Examples::Ner(sentences)) = Examples::ner("\u{feff}-DOCSTART- -X- O\n\nc O\r\n")
        else {
            panic!("readable");
        };
        assert_eq!(sentences, [(vec!["c"], vec!["O"])]);

        let labels: Vec<String> = ["no", "yes"].map(String::from).to_vec();
        for (text, heading, expected) in [
            ("h\tt\n1\tgood \nno\tbad\n", Some("h\tt"), &[("good", 1), ("bad", 0)][..]),
            ("\u{feff}label\ttext\r\n1\tgood\tfilm\r\n", Some("label\ttext"), &[("good\tfilm", 1)]),
            // Without a heading.
            ("1\tgood\n0\tbad", None, &[("good", 1), ("bad", 0)]),
            ("\u{feff}yes\tgood", None, &[("good", 1)]),
            ("", None, &[]),
            ("label\ttext\n", Some("label\ttext"), &[]),
        ] {
            let Ok((Examples::Classify(texts), found)) = Examples::classify(text, &labels) else {
                panic!("readable");
            };
            assert_eq!((&texts[..], found), (expected, heading));
        }
        let wrong = |text| Examples::classify(text, &labels).err().unwrap();
        assert_eq!(wrong("h\n1\tx\n2\ty").0, 3);
        assert_eq!(wrong("h\nx").0, 2);
        assert_eq!(wrong("2\tx\n1\ty").0, 1, "a number is not a heading");
        let problem = wrong("text\tlabel\ngood film\t1").1;
        assert!(
            problem.starts_with(
                "\"good film\" is not a label of the model, which has \"no\", \"yes\";"
            )
        );
    }

    #[test]
    fn data_must_fit_the_model() {
        let refused = |text: &str, labels: &[&str]| {
            let labels: Vec<_> = labels.iter().map(|label| label.to_string()).collect();
            let examples = Examples::ner(text).ok().unwrap();
            examples.check(Path::new("dev.tsv"), &labels).err().map(|e| e.to_string())
        };
        let bio = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"];
        assert_eq!(refused("a B-PER\nb O", &bio), None);
        assert_eq!(refused("a S-PER\nb B-LOC\nc E-LOC", &bio), None, "another scheme");
        assert_eq!(refused("a PER\nb O", &bio), None, "no scheme");
        assert_eq!(refused("a S-PER", &["O", "B-PER", "I-PER", "E-PER", "S-PER"]), None);
        let expected = "dev.tsv: the model does not know \"PERSON\": the data has \"LOC\", \"PERSON\", the \
                        model has \"LOC\", \"PER\"; rename the tags, or convert the model again with --labels";
        let found = refused("a B-PERSON\nb I-PERSON\nc B-LOC", &bio);
        assert_eq!(found.as_deref(), Some(expected));
        assert!(refused("\n \n", &bio).unwrap().contains("has no words to score"));
        let none = Examples::Classify(Vec::new()).check(Path::new("d"), &[]);
        assert!(none.unwrap_err().to_string().contains("has no texts to score"));
    }
}
