//! Scores of a model file on labelled data: F1 of entities, accuracy of text classes.

use std::collections::BTreeSet;
use std::path::Path;

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
    if loaded.section(head.section()).is_none() {
        return Err(Error::new(model, format!("{head:?}"), "is not in the model")
            .hint("choose the other --task, or convert a checkpoint that has it"));
    }
    let section = loaded.tokenizer_bytes().ok_or_else(|| {
        Error::new(model, "tokenizer", "is not in the model")
            .hint("convert the checkpoint with its vocab.txt or tokenizer.json")
    })?;
    let tokenizer = Tokenizer::from_bytes(section).map_err(|e| Error::new(model, "", e))?;
    let labels: Vec<String> = loaded.labels().iter().map(str::to_owned).collect();
    let text = std::fs::read_to_string(data)
        .map_err(|e| Error::new(data, "", format!("cannot be read: {e}")))?;
    let examples = match task {
        Task::Ner => Examples::ner(&text),
        Task::Classify => Examples::classify(&text, &labels),
    }
    .map_err(|(line, problem)| Error::new(data, format!("line {line}"), problem))?;
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
        model: examples.score(&inputs, &logits, &labels),
        reference: reference.transpose()?,
    })
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
    /// sentences.
    pub fn ner(text: &'t str) -> std::result::Result<Self, Wrong> {
        let mut sentences = Vec::new();
        let (mut words, mut tags) = (Vec::new(), Vec::new());
        for (i, line) in text.lines().chain([""]).enumerate() {
            let mut columns = line.split_whitespace();
            match (columns.next(), columns.next_back()) {
                (Some(word), Some(tag)) => {
                    words.push(word);
                    tags.push(tag);
                }
                (None, _) if words.is_empty() => {}
                (None, _) => {
                    sentences.push((std::mem::take(&mut words), std::mem::take(&mut tags)));
                }
                (Some(word), None) => return Err((i + 1, format!("{word:?} has no tag"))),
            }
        }
        Ok(Self::Ner(sentences))
    }

    /// Reads a header line, then one label (its number or its name) TAB text per line.
    fn classify(text: &'t str, labels: &[String]) -> std::result::Result<Self, Wrong> {
        let example = |(i, line): (usize, &'t str)| {
            let (label, text) =
                line.split_once('\t').ok_or_else(|| (i + 1, "has no tab".to_owned()))?;
            let named = labels.iter().position(|name| name == label);
            let numbered = label.parse().ok().filter(|n| *n < labels.len());
            let label = named
                .or(numbered)
                .ok_or_else(|| (i + 1, format!("{label:?} is not a label of the model")))?;
            Ok((text.trim(), label))
        };
        let lines = text.lines().enumerate().skip(1).filter(|(_, line)| !line.trim().is_empty());
        lines.map(example).collect::<std::result::Result<_, _>>().map(Self::Classify)
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
                entity_f1(tagged)
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

/// The entities of IOB2 tags, read as conlleval and seqeval (by default) do: an entity ends at another type or
/// at a `B-`, and an `I-` without an entity before it begins one.
pub fn entities<'t>(tags: &[&'t str]) -> Vec<Entity<'t>> {
    let mut found: Vec<Entity<'t>> = Vec::new();
    let mut open = false;
    for (i, tag) in tags.iter().enumerate() {
        let (prefix, kind) = tag.split_once('-').unwrap_or(("", tag));
        if *tag == "O" {
            open = false;
            continue;
        }
        match found.last_mut() {
            Some((_, end, current)) if open && prefix != "B" && *current == kind => *end = i + 1,
            _ => found.push((i, i + 1, kind)),
        }
        open = true;
    }
    found
}

/// Micro-averaged F1 over the entities of all sentences. Each sentence is a pair: gold tags, predicted tags.
pub fn entity_f1<'t>(sentences: impl IntoIterator<Item = (Vec<&'t str>, Vec<&'t str>)>) -> Score {
    let (mut right, mut found, mut there) = (0, 0, 0);
    for (gold, predicted) in sentences {
        let gold: BTreeSet<_> = entities(&gold).into_iter().collect();
        let predicted: BTreeSet<_> = entities(&predicted).into_iter().collect();
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
        entity_f1([(leak(gold), leak(predicted))])
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
            // Types with a dash of their own.
            ("B-NON-FICTION I-NON-FICTION", vec![(0, 2, "NON-FICTION")]),
        ] {
            let tags: Vec<_> = tags.split(' ').collect();
            assert_eq!(entities(&tags), expected, "{tags:?}");
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
        let both = entity_f1([
            (gold.split(' ').collect(), found.split(' ').collect()),
            (vec!["B-PER", "I-PER", "O"], vec!["B-PER", "I-PER", "O"]),
        ]);
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
        let labels: Vec<String> = ["no", "yes"].map(String::from).to_vec();
        let Ok(Examples::Classify(texts)) =
            Examples::classify("h\tt\n1\tgood \nno\tbad\n", &labels)
        else {
            panic!("readable");
        };
        assert_eq!(texts, [("good", 1), ("bad", 0)]);
        assert_eq!(Examples::classify("h\n1\tx\n2\ty", &labels).err().map(|e| e.0), Some(3));
        assert_eq!(Examples::classify("h\nx", &labels).err().map(|e| e.0), Some(2));
    }
}
