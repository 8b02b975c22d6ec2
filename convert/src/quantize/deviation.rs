//! What quantisation costs: the quantised model against the f32 model, on text that it was not calibrated on.

use super::simulate;
use crate::bert::{Bert, Matrix};
use crate::reference::{self, Sequence, spans};
use crate::stored::StoredBert;

/// The error of one hidden state over all tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct StateDeviation {
    /// Root mean square of the error, divided by that of the state.
    pub relative_rms: f64,
    /// Cosine of the vectors of a token: mean over the tokens.
    pub cosine: f64,
    /// Signal to quantisation noise ratio in decibels.
    pub sqnr: f64,
    /// Root mean square error of every channel.
    pub channels: Vec<f64>,
    /// The channel with the largest error.
    pub worst_channel: usize,
}

/// The errors of a whole model.
#[derive(Clone, Debug, PartialEq)]
pub struct Deviation {
    /// Hidden states, embeddings first.
    pub states: Vec<StateDeviation>,
    /// Cosine of the mean-pooled last state: mean over the texts.
    pub pooled_cosine: f64,
    /// The same: minimum over the texts.
    pub lowest_pooled_cosine: f64,
    /// Number of tokens.
    pub tokens: usize,
}

impl Deviation {
    /// Compares the hidden states of a batch, embeddings first.
    pub fn compare(reference: &[Matrix], actual: &[Matrix], batch: &[Sequence]) -> Self {
        let states = reference.iter().zip(actual).map(|(r, a)| StateDeviation::new(r, a)).collect();
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
            // `f64::min` would skip NaN.
            lowest_pooled_cosine: cosines
                .iter()
                .fold(1.0, |low, &c| if c.is_nan() || c < low { c } else { low }),
            tokens: batch.iter().map(|sequence| sequence.ids.len()).sum(),
        }
    }
}

impl StateDeviation {
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

/// NaN if a vector is not finite: that is never agreement. Two vectors of zeros agree, one does not.
fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let (a2, b2) = (dot(a, a), dot(b, b));
    match a2 * b2 {
        0.0 if a2 == b2 => 1.0,
        0.0 => 0.0,
        norms => dot(a, b) / libm::sqrt(norms),
    }
}

/// Measures a quantised model on `held_out`.
pub fn deviation(bert: &Bert, quantized: &StoredBert, held_out: &[Sequence]) -> Deviation {
    let reference = reference::hidden_states(bert, held_out);
    Deviation::compare(&reference, &simulate::hidden_states(quantized, held_out), held_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_never_agrees() {
        assert_eq!(cosine(&[0.0, 0.0], &[0.0, 0.0]), 1.0);
        assert_eq!(cosine(&[0.0, 0.0], &[0.0, 3.0]), 0.0);
        assert_eq!(cosine(&[2.0, 0.0], &[3.0, 0.0]), 1.0);
        for bad in [f64::NAN, f64::INFINITY] {
            assert!(cosine(&[bad, 1.0], &[1.0, 1.0]).is_nan());
            assert!(cosine(&[1.0, 1.0], &[bad, 1.0]).is_nan());
            assert!(cosine(&[bad, 1.0], &[bad, 1.0]).is_nan());
        }
        let state = |x: f32| Matrix { rows: 2, cols: 2, data: vec![1.0, 2.0, x, 4.0] };
        let batch = [Sequence::single(vec![1]), Sequence::single(vec![2])];
        let found = Deviation::compare(&[state(3.0)], &[state(f32::NAN)], &batch);
        assert!(found.pooled_cosine.is_nan() && found.lowest_pooled_cosine.is_nan());
        assert!(found.states[0].cosine.is_nan());
    }
}
