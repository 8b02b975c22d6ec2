//! Which hidden states tell entities apart: a linear probe on frozen features, one for each selection
//! of layers, in the spirit of table 7 of the BERT paper (arXiv 1810.04805).
//!
//! The feature of a word is that of its first token. Selections are formed from the hidden states, then
//! every feature is brought to mean 0 and deviation 1 over the words to train on. The probe is one linear
//! layer to the labels, trained with softmax cross-entropy and Adam, and scored by whole entities.
//!
//! A probe's bits depend on its seed and the data alone: one thread trains it, and sums have one order.

use std::path::Path;
use std::sync::Mutex;

use bertlet::tokenizer::{NO_WORD, Tokenizer};
use bertlet::{Combine, Input, Layers, Model, ModelFile, Output, Pooling, RunError, Session};
use half::f16;
use half::slice::HalfFloatSliceExt;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::evaluate::{Examples, Inputs, entity_f1};
use crate::reference::matmul::{LANES, ROWS, tile};

/// Words a step.
const BATCH: usize = 2048;
/// Words at a time within a step: few enough for their features to stay in the cache.
const CHUNK: usize = 64;
/// Step size at the start; falls linearly to 0.
const RATE: f32 = 0.002;
/// Adam's decay of the mean gradient and of the mean square.
const BETAS: [f32; 2] = [0.9, 0.999];
/// Adam's guard against division by zero.
const EPSILON: f32 = 1e-8;

/// How long and how often to train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Times that a probe sees every word.
    pub epochs: usize,
    /// Probes trained on each selection; they differ in their first weights and the order of words.
    pub seeds: usize,
}

/// The probes of one selection.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What it is called.
    pub features: String,
    /// As `bertlet embed --layers` takes it.
    pub layers: String,
    /// Mean entity F1.
    pub score: f64,
    /// Entity F1 of each seed.
    pub seeds: Vec<f64>,
}

/// What the probes of all selections found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Table {
    /// "entity F1".
    pub measure: &'static str,
    /// Words trained on.
    pub train_words: usize,
    /// Words scored.
    pub dev_words: usize,
    /// Sentences of both that were longer than the model's limit and were cut.
    pub cut: usize,
    /// Times that a probe saw every word.
    pub epochs: usize,
    /// One a selection.
    pub rows: Vec<Row>,
}

impl Table {
    /// For people.
    pub fn text(&self) -> String {
        let title = format!("{} by seed", self.measure);
        let mut out = format!("{:<28} {:<14} {:>6}   {title}\n", "features", "layers", "mean");
        for row in &self.rows {
            let seeds: Vec<_> = row.seeds.iter().map(|score| format!("{score:.4}")).collect();
            let seeds = seeds.join(" ");
            out += &format!("{:<28} {:<14} {:.4}   {seeds}\n", row.features, row.layers, row.score);
        }
        out += &format!(
            "{} words to train on, {} to score, {} epochs",
            self.train_words, self.dev_words, self.epochs
        );
        if self.cut > 0 {
            out += &format!(", {} sentences cut to the model's limit", self.cut);
        }
        out + "\n"
    }
}

/// Probes the model file `model`: trains on the tagged words of `train`, scores on those of `dev`.
/// `progress` is told what is done, how much of it, and of how much.
///
/// # Errors
/// If a file cannot be read, or there is nothing in it.
pub fn probe(
    model: &Path,
    train: &Path,
    dev: &Path,
    options: &Options,
    progress: &mut (dyn FnMut(&'static str, usize, usize) + Send),
) -> Result<Table> {
    let file = ModelFile::open(model).map_err(Error::opening)?;
    let loaded = file.model();
    let section = loaded.tokenizer_bytes().ok_or_else(|| {
        Error::new(model, "tokenizer", "is not in the model")
            .mend("convert the checkpoint with its vocab.txt or tokenizer.json")
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
            .tokenize(&tokenizer, loaded.config().max_position_embeddings)
            .map_err(|e| Error::new(path, "", e))?;
        match examples {
            Examples::Ner(sentences) => Ok((sentences, inputs)),
            Examples::Classify(_) => unreachable!("read as entities"),
        }
    };
    let (train_tags, train_inputs) = prepare(train, &texts.0)?;
    let (dev_tags, dev_inputs) = prepare(dev, &texts.1)?;
    let mut features = |inputs: &Inputs| {
        Words::new(loaded, inputs, &mut |done| progress("features", done, inputs.batch.len()))
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
    let number = |tag| labels.binary_search(&tag).expect("one of them");
    let gold: Vec<usize> = train_words.places.iter().map(gold).map(number).collect();

    let selections = selections(loaded.config().num_hidden_layers);
    let scaled: Vec<_> =
        selections.iter().map(|(_, _, selection)| Scaled::new(&train_words, *selection)).collect();
    let on_dev: Vec<_> = scaled.iter().map(|s| Scaled { words: &dev_words, ..s.clone() }).collect();
    // The longest first, so that no thread is left with one at the end.
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
        let probe =
            Probe::train(&scaled[row], &gold, labels.len(), options.epochs, seed as u64, &epoch);
        let found = probe.predict(&on_dev[row]);
        let mut tags: Vec<_> = dev_tags.iter().map(|(words, _)| vec!["O"; words.len()]).collect();
        for (&(sentence, word), label) in dev_words.places.iter().zip(found) {
            tags[sentence][word] = labels[label];
        }
        let gold = dev_tags.iter().map(|(_, tags)| tags.clone());
        ((row, seed), entity_f1(gold.zip(tags)).score)
    };
    let mut scores: Vec<_> = jobs.par_iter().with_max_len(1).map(run).collect();
    scores.sort_by_key(|&(job, _)| job);
    let rows = selections.into_iter().enumerate().map(|(row, (features, layers, _))| {
        let seeds: Vec<_> =
            scores.iter().filter(|((r, _), _)| *r == row).map(|(_, score)| *score).collect();
        let score = seeds.iter().sum::<f64>() / seeds.len() as f64;
        Row { features, layers, score, seeds }
    });
    Ok(Table {
        measure: "entity F1",
        train_words: train_words.places.len(),
        dev_words: dev_words.places.len(),
        cut: train_inputs.cut + dev_inputs.cut,
        epochs: options.epochs,
        rows: rows.collect(),
    })
}

/// The rows of the table for a model of so many layers: name, spelling, selection. What a shallow model
/// has no layers for is left out.
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

/// All hidden states of the first tokens of words.
struct Words {
    hidden: usize,
    /// Embeddings first, each `[words, hidden]`. Half precision halves what is by far the most memory
    /// here, and its error is far below that of int8 weights.
    states: Vec<Vec<f16>>,
    /// Sentence and word within it. Words without a token, and those cut off, are not there.
    places: Vec<(usize, usize)>,
}

impl Words {
    fn new(
        model: Model<'_>,
        inputs: &Inputs,
        progress: &mut dyn FnMut(usize),
    ) -> std::result::Result<Self, RunError> {
        // Sentences that are in memory with the states of all tokens, or between progress and progress.
        const AT_ONCE: usize = 256;
        let (hidden, count) = (model.config().hidden_size, model.config().num_hidden_layers + 1);
        let firsts: Vec<Vec<usize>> =
            inputs.words.iter().map(|words| first_tokens(words)).collect();
        let total: usize = firsts.iter().map(Vec::len).sum();
        let mut states: Vec<Vec<f16>> =
            (0..count).map(|_| Vec::with_capacity(total * hidden)).collect();
        let mut places = Vec::with_capacity(total);
        for (i, (words, firsts)) in inputs.words.iter().zip(&firsts).enumerate() {
            places.extend(firsts.iter().map(|&token| (i, words[token] as usize)));
        }
        for start in (0..inputs.batch.len()).step_by(AT_ONCE) {
            let range = start..inputs.batch.len().min(start + AT_ONCE);
            let group = range
                .clone()
                .into_par_iter()
                .map_init(
                    || (Session::new(model), Vec::new()),
                    |(session, room), i| {
                        let ids = &inputs.batch[i].ids;
                        room.resize(count * ids.len() * hidden, 0f32);
                        let feature = |(i, out)| Output::Features {
                            layers: Layers::one(i as i16),
                            pooling: Pooling::None,
                            normalize: false,
                            out,
                        };
                        let parts = room.chunks_exact_mut(ids.len() * hidden);
                        let mut outputs: Vec<_> = parts.enumerate().map(feature).collect();
                        session.encode(&Input::new(ids), &mut outputs)?;
                        let first = |state: &[f32]| -> Vec<f16> {
                            let mut kept = vec![f16::ZERO; firsts[i].len() * hidden];
                            for (kept, t) in kept.chunks_exact_mut(hidden).zip(&firsts[i]) {
                                kept.convert_from_f32_slice(&state[t * hidden..][..hidden]);
                            }
                            kept
                        };
                        Ok(room.chunks_exact(ids.len() * hidden).map(first).collect::<Vec<_>>())
                    },
                )
                .collect::<std::result::Result<Vec<_>, RunError>>()?;
            for sentence in group {
                for (all, part) in states.iter_mut().zip(sentence) {
                    all.extend_from_slice(&part);
                }
            }
            progress(range.end);
        }
        Ok(Self { hidden, states, places })
    }

    /// Features of a word, not scaled.
    fn read(&self, selection: &Layers, word: usize, out: &mut [f32]) {
        const PIECE: usize = 128;
        let row = |state: usize| &self.states[state][word * self.hidden..][..self.hidden];
        let states = selection.states(self.states.len() - 1);
        if selection.combine() == Combine::Concat {
            for (out, state) in out.chunks_exact_mut(self.hidden).zip(states) {
                row(state.index).convert_to_f32_slice(out);
            }
            return;
        }
        for (i, state) in states.enumerate() {
            if i == 0 {
                row(state.index).convert_to_f32_slice(out);
                continue;
            }
            let mut room = [0f32; PIECE];
            for (out, state) in out.chunks_mut(PIECE).zip(row(state.index).chunks(PIECE)) {
                let piece = &mut room[..state.len()];
                state.convert_to_f32_slice(piece);
                out.iter_mut().zip(piece).for_each(|(out, x)| *out += *x);
            }
        }
    }
}

/// The first token of every word.
fn first_tokens(words: &[u32]) -> Vec<usize> {
    let begins = |&t: &usize| words[t] != NO_WORD && (t == 0 || words[t - 1] != words[t]);
    (0..words.len()).filter(begins).collect()
}

/// What a probe sees: rows of features.
trait Rows: Sync {
    /// Rows.
    fn count(&self) -> usize;
    /// Features a row.
    fn width(&self) -> usize;
    /// Writes a row to `out`, `width` long.
    fn read(&self, row: usize, out: &mut [f32]);
}

/// A selection of features, each with mean 0 and deviation 1 over the words that this was made from.
#[derive(Clone)]
struct Scaled<'w> {
    words: &'w Words,
    selection: Layers,
    mean: Vec<f32>,
    scale: Vec<f32>,
}

impl<'w> Scaled<'w> {
    fn new(words: &'w Words, selection: Layers) -> Self {
        // The parts are fixed, so that the number of threads cannot change a sum.
        const PART: usize = 4096;
        let width = match selection.combine() {
            Combine::Concat => words.hidden * selection.states(words.states.len() - 1).count(),
            _ => words.hidden,
        };
        let count = words.places.len();
        let sums = |part: usize| {
            let (mut row, mut sums) = (vec![0f32; width], vec![[0f64; 2]; width]);
            for word in part * PART..count.min((part + 1) * PART) {
                words.read(&selection, word, &mut row);
                for ([sum, square], &x) in sums.iter_mut().zip(&row) {
                    *sum += f64::from(x);
                    *square += f64::from(x) * f64::from(x);
                }
            }
            sums
        };
        let parts: Vec<_> = (0..count.div_ceil(PART)).into_par_iter().map(sums).collect();
        let moments = (0..width).map(|i| {
            let total = |k: usize| parts.iter().map(|part| part[i][k]).sum::<f64>() / count as f64;
            let mean = total(0);
            let deviation = libm::sqrt((total(1) - mean * mean).max(0.0));
            // A feature that never changes says nothing.
            let scale = if deviation > 1e-6 { 1.0 / deviation } else { 0.0 };
            (mean as f32, scale as f32)
        });
        let (mean, scale) = moments.unzip();
        Self { words, selection, mean, scale }
    }
}

impl Rows for Scaled<'_> {
    fn count(&self) -> usize {
        self.words.places.len()
    }

    fn width(&self) -> usize {
        self.mean.len()
    }

    fn read(&self, row: usize, out: &mut [f32]) {
        self.words.read(&self.selection, row, out);
        for ((x, mean), scale) in out.iter_mut().zip(&self.mean).zip(&self.scale) {
            *x = (*x - mean) * scale;
        }
    }
}

/// A value for each of sixteen labels.
type Lanes = [f32; LANES];

/// One linear layer.
#[derive(Clone, Debug, PartialEq)]
struct Probe {
    labels: usize,
    /// Features and a 1 for the bias.
    width: usize,
    /// `[labels / 16][width][16]`, zero where there is no label.
    weights: Vec<Lanes>,
}

/// Rows of features at work, and what the labels get or give.
struct Chunk {
    /// `[CHUNK / 4][width][4]`.
    x: Vec<[f32; ROWS]>,
    /// `[labels / 16][CHUNK]`.
    y: Vec<Lanes>,
}

impl Probe {
    /// First weights as is usual for a linear layer: uniform within one over the root of the width.
    fn new(features: usize, labels: usize, random: &mut Random) -> Self {
        let width = features + 1;
        let mut weights = vec![[0f32; LANES]; labels.div_ceil(LANES) * width];
        let bound = 1.0 / libm::sqrtf(features as f32);
        for label in 0..labels {
            for i in 0..width {
                let unit = (random.next() >> 40) as f32 / (1u32 << 24) as f32;
                weights[label / LANES * width + i][label % LANES] = bound * (2.0 * unit - 1.0);
            }
        }
        Self { labels, width, weights }
    }

    /// Trains on `rows`, whose labels are `gold`. `epoch` is called after each.
    fn train(
        rows: &dyn Rows,
        gold: &[usize],
        labels: usize,
        epochs: usize,
        seed: u64,
        epoch: &(dyn Fn() + Sync),
    ) -> Self {
        let mut random = Random(seed);
        let mut probe = Self::new(rows.width(), labels, &mut random);
        let mut adam = Adam::new(probe.weights.len());
        let mut chunk = probe.chunk();
        let mut gradient = vec![[0f32; LANES]; probe.weights.len()];
        let mut order: Vec<u32> = (0..rows.count() as u32).collect();
        let steps = epochs * order.len().div_ceil(BATCH);
        let mut step = 0;
        for _ in 0..epochs {
            random.shuffle(&mut order);
            for batch in order.chunks(BATCH) {
                probe.gradient(rows, gold, batch, &mut chunk, &mut gradient);
                let rate = RATE * (1.0 - step as f32 / steps as f32);
                adam.step(&mut probe.weights, &gradient, rate);
                step += 1;
            }
            epoch();
        }
        probe
    }

    /// The label of every row.
    fn predict(&self, rows: &dyn Rows) -> Vec<usize> {
        let mut chunk = self.chunk();
        let all: Vec<u32> = (0..rows.count() as u32).collect();
        let mut found = Vec::with_capacity(all.len());
        for part in all.chunks(CHUNK) {
            self.logits(rows, part, &mut chunk);
            found.extend((0..part.len()).map(|row| {
                let logit = |label: usize| chunk.y[label / LANES * CHUNK + row][label % LANES];
                let better = |best, label| if logit(label) > logit(best) { label } else { best };
                (0..self.labels).fold(0, better)
            }));
        }
        found
    }

    fn chunk(&self) -> Chunk {
        let panels = self.weights.len() / self.width;
        Chunk {
            x: vec![[0.0; ROWS]; CHUNK / ROWS * self.width],
            y: vec![[0.0; LANES]; CHUNK * panels],
        }
    }

    /// Reads rows, at most [`CHUNK`], and finds their logits.
    fn logits(&self, rows: &dyn Rows, part: &[u32], chunk: &mut Chunk) {
        let width = self.width;
        chunk.x.fill([0.0; ROWS]);
        let mut features = vec![1f32; width];
        for (i, &row) in part.iter().enumerate() {
            rows.read(row as usize, &mut features[..width - 1]);
            let x = &mut chunk.x[i / ROWS * width..][..width];
            x.iter_mut().zip(&features).for_each(|(x, &feature)| x[i % ROWS] = feature);
        }
        let Chunk { x, y } = chunk;
        Arch::new().dispatch(Forward { weights: &self.weights, width, x, y });
    }

    /// The gradient of the mean cross-entropy of a batch.
    fn gradient(
        &self,
        rows: &dyn Rows,
        gold: &[usize],
        batch: &[u32],
        chunk: &mut Chunk,
        gradient: &mut [Lanes],
    ) {
        gradient.fill([0.0; LANES]);
        for part in batch.chunks(CHUNK) {
            self.logits(rows, part, chunk);
            let Chunk { x, y } = &mut *chunk;
            let mut outputs = vec![0f32; self.labels];
            for row in 0..CHUNK {
                for (label, output) in outputs.iter_mut().enumerate() {
                    *output = y[label / LANES * CHUNK + row][label % LANES];
                }
                y.iter_mut().skip(row).step_by(CHUNK).for_each(|y| *y = [0.0; LANES]);
                // The rows behind the last have no part in it.
                let Some(&index) = part.get(row) else { continue };
                softmax(&mut outputs);
                outputs[gold[index as usize]] -= 1.0;
                for (label, output) in outputs.iter().enumerate() {
                    let share = output / batch.len() as f32;
                    y[label / LANES * CHUNK + row][label % LANES] = share;
                }
            }
            Arch::new().dispatch(Backward { gradient, width: self.width, x, y });
        }
    }
}

/// `y = weights * x` for a chunk.
struct Forward<'a> {
    weights: &'a [Lanes],
    width: usize,
    x: &'a [[f32; ROWS]],
    y: &'a mut [Lanes],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { weights, width, x, y } = self;
        for (panel, y) in weights.chunks_exact(width).zip(y.chunks_exact_mut(CHUNK)) {
            for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(ROWS)) {
                y.copy_from_slice(&tile(x, panel));
            }
        }
    }
}

/// Adds the gradient of the weights for a chunk, where `y` holds the gradient of the outputs.
struct Backward<'a> {
    gradient: &'a mut [Lanes],
    width: usize,
    x: &'a [[f32; ROWS]],
    y: &'a [Lanes],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    // Counted loops, for the reason that `tile` gives.
    #[allow(clippy::needless_range_loop)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { gradient, width, x, y } = self;
        for (panel, y) in gradient.chunks_exact_mut(width).zip(y.chunks_exact(CHUNK)) {
            for (x, y) in x.chunks_exact(width).zip(y.chunks_exact(ROWS)) {
                let y: [Lanes; ROWS] = std::array::from_fn(|r| y[r]);
                for (sums, x) in panel.iter_mut().zip(x) {
                    for row in 0..ROWS {
                        for lane in 0..LANES {
                            sums[lane] += x[row] * y[row][lane];
                        }
                    }
                }
            }
        }
    }
}

fn softmax(values: &mut [f32]) {
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    values.iter_mut().for_each(|x| *x = libm::expf(*x - largest));
    let sum: f32 = values.iter().sum();
    values.iter_mut().for_each(|x| *x /= sum);
}

/// Adam (arXiv 1412.6980).
struct Adam {
    /// Mean gradient and mean square of each weight.
    moments: Vec<[Lanes; 2]>,
    /// The betas to the power of the steps taken.
    powers: [f32; 2],
}

impl Adam {
    fn new(count: usize) -> Self {
        Self { moments: vec![[[0.0; LANES]; 2]; count], powers: [1.0; 2] }
    }

    fn step(&mut self, weights: &mut [Lanes], gradient: &[Lanes], rate: f32) {
        self.powers = std::array::from_fn(|i| self.powers[i] * BETAS[i]);
        let [mean_bias, square_bias] = self.powers.map(|power| 1.0 - power);
        let moments = self.moments.iter_mut();
        for ((weights, gradient), [mean, square]) in weights.iter_mut().zip(gradient).zip(moments) {
            for i in 0..LANES {
                let g = gradient[i];
                mean[i] = BETAS[0] * mean[i] + (1.0 - BETAS[0]) * g;
                square[i] = BETAS[1] * square[i] + (1.0 - BETAS[1]) * g * g;
                let root = (square[i] / square_bias).sqrt();
                weights[i] -= rate * (mean[i] / mean_bias) / (root + EPSILON);
            }
        }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn shuffle(&mut self, order: &mut [u32]) {
        for i in (1..order.len()).rev() {
            order.swap(i, (self.next() % (i as u64 + 1)) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bert::Matrix;

    impl Rows for Matrix {
        fn count(&self) -> usize {
            self.rows
        }
        fn width(&self) -> usize {
            self.cols
        }
        fn read(&self, row: usize, out: &mut [f32]) {
            out.copy_from_slice(self.row(row));
        }
    }

    #[test]
    fn a_gradient_is_that_worked_out_by_hand() {
        let x = Matrix { rows: 2, cols: 2, data: vec![1.0, 2.0, -1.0, 0.5] };
        let mut probe = Probe::new(2, 2, &mut Random(0));
        // Label 0: weights 1, 0, bias 0. Label 1: weights 0, 1, bias -1.
        probe.weights = vec![[0.0; LANES]; 3];
        (probe.weights[0][0], probe.weights[1][1], probe.weights[2][1]) = (1.0, 1.0, -1.0);
        let mut gradient = vec![[9.0; LANES]; 3];
        probe.gradient(&x, &[0, 1], &[0, 1], &mut probe.chunk(), &mut gradient);
        // Row 0: logits 1, 1; halves; gradient of the outputs (-1/2, 1/2) / 2.
        // Row 1: logits -1, -1/2; label 0 has p = 1 / (1 + sqrt e); gradient (p, -p) / 2.
        let p = 1.0 / (1.0 + 0.5f64.exp());
        let (a, b) = (-0.25, p / 2.0);
        for (i, want) in [a - b, 2.0 * a + 0.5 * b, a + b].into_iter().enumerate() {
            assert!((f64::from(gradient[i][0]) - want).abs() < 1e-7, "{i}: {:?}", gradient[i]);
            assert!((f64::from(gradient[i][1]) + want).abs() < 1e-7, "{i}: {:?}", gradient[i]);
            assert_eq!(gradient[i][2..], [0.0; LANES - 2]);
        }
        // Adam's first step is as long as its rate, whatever the gradient.
        let before = probe.weights.clone();
        Adam::new(3).step(&mut probe.weights, &gradient, 0.01);
        for (i, gradient) in gradient.iter().enumerate() {
            let moved = probe.weights[i][0] - before[i][0];
            assert!((moved + 0.01 * gradient[0].signum()).abs() < 1e-6, "{moved}");
            assert_eq!(probe.weights[i][2..], [0.0; LANES - 2]);
        }
    }

    #[test]
    fn what_a_line_separates_is_learned() {
        // More labels than lanes; each has a feature that stands out.
        const LABELS: usize = 20;
        const WIDTH: usize = 24;
        let mut random = Random(7);
        let gold: Vec<usize> = (0..3000).map(|i| i % LABELS).collect();
        let mut rows = Matrix { rows: gold.len(), cols: WIDTH, data: Vec::new() };
        for &label in &gold {
            for i in 0..WIDTH {
                let noise = (random.next() >> 40) as f32 / (1u32 << 24) as f32 - 0.5;
                rows.data.push(noise + if i == label { 3.0 } else { 0.0 });
            }
        }
        let train = |seed| Probe::train(&rows, &gold, LABELS, 200, seed, &|| {});
        let probe = train(1);
        assert!(probe.predict(&rows) == gold);
        assert_eq!(train(1), probe, "a seed, a probe");
        assert_ne!(train(2), probe);
    }

    #[test]
    fn features_are_scaled_after_they_are_combined() {
        let state = |values: [f32; 6]| values.map(f16::from_f32).to_vec();
        let words = Words {
            hidden: 2,
            states: vec![
                state([0.0; 6]),
                state([1.0, 5.0, 2.0, 5.0, 3.0, 5.0]),
                state([1.0, 1.0, 3.0, 0.0, 5.0, 2.0]),
            ],
            places: vec![(0, 0), (0, 1), (1, 0)],
        };
        let read = |spelling: &str| {
            let selection = spelling.parse::<Layers>().unwrap();
            let scaled = Scaled::new(&words, selection);
            let mut out = vec![0.0; scaled.width()];
            scaled.read(2, &mut out);
            out
        };
        let unit = 1.5f32.sqrt();
        let close = |found: Vec<f32>, want: &[f32]| {
            let near = found.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6);
            assert!(near && found.len() == want.len(), "{found:?} {want:?}");
        };
        // 2, 5, 8 and 6, 5, 7.
        close(read("sum:all"), &[unit, unit]);
        // What is constant stays out.
        close(read("concat:1,2"), &[unit, 0.0, unit, unit]);
        close(read("0"), &[0.0, 0.0]);
    }

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
        assert_eq!(first_tokens(&[NO_WORD, 0, 0, 1, 3, 3, NO_WORD]), [1, 3, 4]);
    }
}
