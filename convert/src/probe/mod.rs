//! Linear probes: which hidden states are good features for entity recognition? One probe is trained on the
//! frozen features of each selection of layers, as in table 7 of the BERT paper (arXiv 1810.04805).
//!
//! The features of a word are those of its first token. The hidden states of a selection are combined, and then
//! every feature is standardised to mean 0 and deviation 1 over the training words. A probe is one linear layer
//! to the labels, trained with softmax cross-entropy and Adam, and scored by whole entities.
//!
//! The bits of a probe depend only on its seed and the data: one thread trains it, and sums have a fixed order.

mod features;
mod train;

use std::path::Path;
use std::sync::Mutex;

use bertlet::tokenizer::Tokenizer;
use bertlet::{Layers, ModelFile};
use rayon::prelude::*;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::evaluate::{Examples, Inputs, Tags, entity_f1};
use features::{Scaled, WordFeatures};
use train::{Probe, Rows, Training};

/// Options of the training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeOptions {
    /// Number of epochs.
    pub epochs: usize,
    /// Number of probes per selection. They differ in their initial weights and the order of words.
    pub seeds: usize,
}

/// The scores of one selection.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProbeRow {
    /// Name of the selection.
    pub features: String,
    /// The selection, as `bertlet embed --layers` takes it.
    pub layers: String,
    /// Entity F1, mean over the seeds.
    pub score: f64,
    /// Entity F1 of each seed.
    pub seeds: Vec<f64>,
}

/// The scores of all selections.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProbeTable {
    /// "entity F1".
    pub measure: &'static str,
    /// Number of training words.
    pub train_words: usize,
    /// Number of scored words.
    pub dev_words: usize,
    /// Number of sentences, of both files, that were cut to the model's limit.
    pub cut: usize,
    /// Number of epochs.
    pub epochs: usize,
    /// One per selection.
    pub rows: Vec<ProbeRow>,
}

impl ProbeTable {
    /// The table as text.
    pub fn text(&self) -> String {
        let title = format!("{} by seed", self.measure);
        let mut out = format!("{:<28} {:<14} {:>6}   {title}\n", "features", "layers", "mean");
        for row in &self.rows {
            let seeds: Vec<_> = row.seeds.iter().map(|score| format!("{score:.4}")).collect();
            let seeds = seeds.join(" ");
            out += &format!("{:<28} {:<14} {:.4}   {seeds}\n", row.features, row.layers, row.score);
        }
        out += &format!(
            "{} training words, {} scored words, {} epochs",
            self.train_words, self.dev_words, self.epochs
        );
        if self.cut > 0 {
            out += &format!(", {} sentences cut to the model's limit", self.cut);
        }
        out + "\n"
    }
}

/// Probes the model file `model`: trains on the tagged words of `train`, scores on those of `dev`.
/// `progress` is called with the name of the stage, the parts done, and their total.
///
/// # Errors
/// If a file cannot be read, or has no words.
pub fn probe(
    model: &Path,
    train: &Path,
    dev: &Path,
    options: &ProbeOptions,
    progress: &mut (dyn FnMut(&'static str, usize, usize) + Send),
) -> Result<ProbeTable> {
    let file = ModelFile::open(model).map_err(Error::opening)?;
    let loaded = file.model();
    let section = loaded.tokenizer_bytes().ok_or_else(|| {
        Error::new(model, "tokenizer", "is not in the model")
            .hint("convert the checkpoint with its vocab.txt or tokenizer.json")
    })?;
    let tokenizer = Tokenizer::from_bytes(section).map_err(|e| Error::new(model, "", e))?;
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .map_err(|e| Error::new(path, "", format!("cannot be read: {e}")))
    };
    let texts = (read(train)?, read(dev)?);
    let prepare = |path: &Path, text| {
        let examples = Examples::ner(text)
            .map_err(|(line, problem)| Error::new(path, format!("line {line}"), problem))?;
        let inputs = examples
            .tokenize(&tokenizer, loaded.max_tokens())
            .map_err(|e| Error::new(path, "", e))?;
        match examples {
            Examples::Ner(sentences) => Ok((sentences, inputs)),
            Examples::Classify(_) => unreachable!("read as entities"),
        }
    };
    let (train_tags, train_inputs) = prepare(train, &texts.0)?;
    let (dev_tags, dev_inputs) = prepare(dev, &texts.1)?;
    let mut features = |inputs: &Inputs| {
        WordFeatures::new(loaded, inputs, &mut |done| {
            progress("features", done, inputs.batch.len())
        })
        .map_err(|e| Error::new(model, "", format!("cannot run: {e}")))
    };
    let train_words = features(&train_inputs)?;
    let dev_words = features(&dev_inputs)?;
    if train_words.places.is_empty() {
        return Err(Error::new(train, "", "has no words to train on"));
    }

    let gold = |&(sentence, word): &(usize, usize)| train_tags[sentence].1[word];
    let mut labels: Vec<&str> = train_words.places.iter().map(gold).collect();
    labels.sort_unstable();
    labels.dedup();
    let of_dev = dev_tags.iter().flat_map(|(_, tags)| tags.iter().copied());
    let meaning = Tags::new(labels.iter().copied().chain(of_dev));
    let number = |tag| labels.binary_search(&tag).expect("one of them");
    let gold: Vec<usize> = train_words.places.iter().map(gold).map(number).collect();

    let selections = selections(loaded.config().num_hidden_layers);
    let scaled: Vec<_> =
        selections.iter().map(|(_, _, selection)| Scaled::new(&train_words, *selection)).collect();
    let on_dev: Vec<_> = scaled.iter().map(|s| s.on(&dev_words)).collect();
    // The longest jobs first, so that the threads finish at about the same time.
    let mut jobs: Vec<_> =
        (0..selections.len()).flat_map(|row| (0..options.seeds).map(move |s| (row, s))).collect();
    jobs.sort_by_key(|&(row, _)| std::cmp::Reverse(scaled[row].width()));
    let total = jobs.len() * options.epochs;
    let progress = Mutex::new((0, progress));
    let epoch = || {
        if let Ok(mut guard) = progress.lock() {
            let (done, progress) = &mut *guard;
            *done += 1;
            progress("training", *done, total);
        }
    };
    let run = |&(row, seed): &(usize, usize)| {
        let task = Training {
            rows: &scaled[row],
            gold: &gold,
            labels: labels.len(),
            epochs: options.epochs,
        };
        let probe = Probe::train(&task, seed as u64, &epoch);
        let found = probe.predict(&on_dev[row]);
        let mut tags: Vec<_> = dev_tags.iter().map(|(words, _)| vec!["O"; words.len()]).collect();
        for (&(sentence, word), label) in dev_words.places.iter().zip(found) {
            tags[sentence][word] = labels[label];
        }
        let gold = dev_tags.iter().map(|(_, tags)| tags.clone());
        ((row, seed), entity_f1(gold.zip(tags), &meaning, &meaning).score)
    };
    let mut scores: Vec<_> = jobs.par_iter().with_max_len(1).map(run).collect();
    scores.sort_by_key(|&(job, _)| job);
    let rows = selections.into_iter().enumerate().map(|(row, (features, layers, _))| {
        let seeds: Vec<_> =
            scores.iter().filter(|((r, _), _)| *r == row).map(|(_, score)| *score).collect();
        let score = seeds.iter().sum::<f64>() / seeds.len() as f64;
        ProbeRow { features, layers, score, seeds }
    });
    Ok(ProbeTable {
        measure: "entity F1",
        train_words: train_words.places.len(),
        dev_words: dev_words.places.len(),
        cut: train_inputs.cut + dev_inputs.cut,
        epochs: options.epochs,
        rows: rows.collect(),
    })
}

/// The rows of the table: name, spelling, selection. Rows that need more layers than the model has are left out.
fn selections(layers: usize) -> Vec<(String, String, Layers)> {
    let states = (0..=layers).map(|i| {
        let name = match i {
            0 => "embeddings".into(),
            i if i == layers => "last layer".into(),
            i if i + 1 == layers => "second-to-last layer".into(),
            1 => "first layer".into(),
            i => format!("layer {i}"),
        };
        (name, i.to_string())
    });
    let combined = [
        ("sum of all layers", "sum:all"),
        ("sum of last four", "sum:last4"),
        ("concatenation of last four", "concat:last4"),
    ];
    states
        .chain(combined.map(|(name, spelling)| (name.into(), spelling.into())))
        .filter_map(|(name, spelling)| {
            let selection = spelling.parse::<Layers>().ok()?;
            selection.check(layers).ok().map(|()| (name, spelling, selection))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_that_the_model_has_layers_for() {
        let names = |layers| {
            selections(layers).into_iter().map(|(name, spelling, _)| (name, spelling)).collect()
        };
        let six: Vec<(String, String)> = names(6);
        let six: Vec<_> = six.iter().map(|(n, s)| (n.as_str(), s.as_str())).collect();
        assert_eq!(six.len(), 10);
        assert_eq!(six[1], ("first layer", "1"));
        assert_eq!(six[5], ("second-to-last layer", "5"));
        assert_eq!(six[6], ("last layer", "6"));
        assert_eq!(six[9], ("concatenation of last four", "concat:last4"));
        let two: Vec<(String, String)> = names(2);
        assert_eq!(two.len(), 4);
    }
}
