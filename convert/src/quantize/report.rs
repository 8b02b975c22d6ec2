//! What quantisation cost: the quantised model against the f32 one on text that it was not calibrated on.

use std::collections::BTreeSet;

use super::{fold_heads, half_linear, simulate};
use crate::bert::{Bert, Matrix};
use crate::reference::{self, LinearKind, Sequence, spans};
use crate::stored::{StoredBert, StoredLinear};

/// The error of one hidden state over all tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct StateError {
    /// Root mean square of the error over that of the state.
    pub relative_rms: f64,
    /// Cosine between a token's vectors, mean over the tokens.
    pub cosine: f64,
    /// Signal to quantisation noise, in decibels.
    pub sqnr: f64,
    /// Root mean square error of every channel.
    pub channels: Vec<f64>,
    /// The channel with the largest of them.
    pub worst_channel: usize,
}

/// The errors of a whole model.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Hidden states, embeddings first.
    pub states: Vec<StateError>,
    /// Cosine of the mean-pooled last state, mean over the texts.
    pub pooled_cosine: f64,
    /// The lowest of them.
    pub lowest_pooled_cosine: f64,
    /// Tokens measured on.
    pub tokens: usize,
}

impl Report {
    /// Compares hidden states, embeddings first, of the same batch.
    pub fn compare(reference: &[Matrix], actual: &[Matrix], batch: &[Sequence]) -> Self {
        let states = reference.iter().zip(actual).map(|(r, a)| StateError::new(r, a)).collect();
        let mut cosines = Vec::new();
        if let (Some(reference), Some(actual)) = (reference.last(), actual.last()) {
            cosines.extend(spans(batch).into_iter().map(|span| {
                let pool = |x: &Matrix| {
                    let mut sum = vec![0f64; x.cols];
                    for t in span.clone() {
                        sum.iter_mut().zip(x.row(t)).for_each(|(s, &x)| *s += f64::from(x));
                    }
                    sum
                };
                cosine(&pool(reference), &pool(actual))
            }));
        }
        Self {
            states,
            pooled_cosine: cosines.iter().sum::<f64>() / cosines.len() as f64,
            lowest_pooled_cosine: cosines.iter().copied().fold(1.0, f64::min),
            tokens: batch.iter().map(|sequence| sequence.ids.len()).sum(),
        }
    }
}

impl StateError {
    /// Compares two `[tokens, hidden]` states.
    pub fn new(reference: &Matrix, actual: &Matrix) -> Self {
        let mut channels = vec![0f64; reference.cols];
        let (mut signal, mut cosines) = (0f64, 0f64);
        for t in 0..reference.rows {
            let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            let (r, a) = (wide(reference.row(t)), wide(actual.row(t)));
            for ((channel, r), a) in channels.iter_mut().zip(&r).zip(&a) {
                *channel += (r - a) * (r - a);
            }
            signal += dot(&r, &r);
            cosines += cosine(&r, &a);
        }
        let noise: f64 = channels.iter().sum();
        let tokens = reference.rows as f64;
        channels.iter_mut().for_each(|x| *x = libm::sqrt(*x / tokens));
        let worst = |best: usize, i: usize| if channels[i] > channels[best] { i } else { best };
        Self {
            relative_rms: libm::sqrt(noise / signal),
            cosine: cosines / tokens,
            sqnr: 10.0 * libm::log10(signal / noise),
            worst_channel: (0..channels.len()).fold(0, worst),
            channels,
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let norms = dot(a, a) * dot(b, b);
    if norms > 0.0 { dot(a, b) / libm::sqrt(norms) } else { 1.0 }
}

/// Measures a quantised model on `held_out`.
pub fn report(bert: &Bert, quantized: &StoredBert, held_out: &[Sequence]) -> Report {
    let reference = reference::hidden_states(bert, held_out);
    Report::compare(&reference, &simulate::hidden_states(quantized, held_out), held_out)
}

/// The fewest linear layers to keep in f16 so that `measure` (a mean pooled cosine) gives at least `wanted`,
/// taking them in the order of what each alone improves; `Err` has what is reached with all of them where that
/// is too little.
pub fn keep_for_cosine<E>(
    bert: &Bert,
    quantized: &StoredBert,
    wanted: f64,
    measure: &mut dyn FnMut(&StoredBert) -> Result<f64, E>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Result<BTreeSet<(usize, LinearKind)>, f64>, E> {
    let mut cosine = |keep: &[(usize, LinearKind)]| {
        let mut model = quantized.clone();
        keep.iter().for_each(|&(layer, kind)| keep_float(bert, &mut model, layer, kind));
        measure(&model)
    };
    if cosine(&[])? >= wanted {
        return Ok(Ok(BTreeSet::new()));
    }
    let all: Vec<_> =
        (0..bert.layers.len()).flat_map(|l| LinearKind::ALL.map(|kind| (l, kind))).collect();
    let best = cosine(&all)?;
    if best < wanted {
        return Ok(Err(best));
    }
    let mut ranked = Vec::new();
    for (done, &candidate) in all.iter().enumerate() {
        progress(done, all.len());
        ranked.push((cosine(&[candidate])?, candidate));
    }
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let ranked: Vec<_> = ranked.into_iter().map(|(_, candidate)| candidate).collect();
    // `low` are too few, `high` are enough.
    let (mut low, mut high) = (0, ranked.len());
    while high - low > 1 {
        let middle = low.midpoint(high);
        if cosine(&ranked[..middle])? >= wanted { high = middle } else { low = middle }
    }
    progress(all.len(), all.len());
    Ok(Ok(ranked.into_iter().take(high).collect()))
}

/// Puts one linear layer back to f16.
pub fn keep_float(bert: &Bert, model: &mut StoredBert, index: usize, kind: LinearKind) {
    let source = &bert.layers[index];
    let layer = &mut model.layers[index];
    let (place, linear) = match kind {
        LinearKind::Qkv => (&mut layer.qkv, &fold_heads(bert, index).qkv),
        LinearKind::AttentionOutput => {
            (&mut layer.attention_output, &fold_heads(bert, index).attention_output)
        }
        LinearKind::Intermediate => (&mut layer.intermediate, &source.intermediate),
        LinearKind::Output => (&mut layer.output, &source.output),
    };
    *place = StoredLinear::Float(half_linear(linear));
}
