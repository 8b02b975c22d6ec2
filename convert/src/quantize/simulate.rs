//! The int8 forward pass simulated in f32, with the roundings of the runtime at the same places. The quantiser
//! takes its calibration inputs from it.
//!
//! It is not bit-identical to the runtime, whose exponential and norms round differently in the last place. It is
//! as reproducible as the [reference pass](crate::reference).

use std::ops::Range;

use pulp::Arch;
use rayon::prelude::*;

use super::HadamardRotation;
use crate::bert::Matrix;
use crate::reference::matmul::{Right, linear, product};
use crate::reference::{
    self, AttentionArithmetic, LinearKind, Qkv, Sequence, attention, layer_norm, spans,
};
use crate::stored::{StoredBert, StoredLinear};

/// Rows in int8: integers, held as f32, and one scale per row.
#[derive(Clone, Debug)]
pub struct QuantizedRows {
    /// `[rows, cols]`, integers in `-127..=127`.
    pub values: Matrix,
    /// One per row.
    pub scales: Vec<f32>,
}

impl QuantizedRows {
    /// Rotates and rounds every row.
    pub fn new(x: &Matrix, rotation: HadamardRotation) -> Self {
        let mut values = x.clone();
        let scales = values
            .data
            .par_chunks_mut(x.cols)
            .map(|row| {
                rotation.apply(row);
                round_row(row)
            })
            .collect();
        Self { values, scales }
    }

    /// The values that the integers stand for, still rotated.
    pub fn dequantize(mut self) -> Matrix {
        for (row, &scale) in self.values.data.chunks_exact_mut(self.values.cols).zip(&self.scales) {
            row.iter_mut().for_each(|x| *x *= scale);
        }
        self.values
    }
}

/// Rounds to integers in `-127..=127`, in place. Returns the scale.
fn round_row(row: &mut [f32]) -> f32 {
    let largest = row.iter().fold(0f32, |max, x| max.max(x.abs()));
    let inverse = 127.0 / largest;
    let inverse = if inverse.is_finite() { inverse } else { 0.0 };
    scale_and_round(row, inverse);
    largest / 127.0
}

/// Vectorised with [`pulp`]: baseline x86-64 has no rounding instruction and calls a function per value.
fn scale_and_round(row: &mut [f32], factor: f32) {
    Arch::new().dispatch(
        #[inline(always)]
        || row.iter_mut().for_each(|x| *x = (*x * factor).round_ties_even()),
    );
}

/// A linear layer as the runtime computes it.
pub fn project(x: &Matrix, projection: &StoredLinear) -> Matrix {
    match projection {
        StoredLinear::Float(layer) => linear(x, &layer.weight, &layer.bias),
        StoredLinear::Int8(layer) => {
            let QuantizedRows { values, scales } = QuantizedRows::new(x, layer.rotation);
            let weight = &layer.weight;
            let integers = weight.values.iter().map(|&q| f32::from(q)).collect();
            let integers = Matrix { rows: weight.rows, cols: weight.cols, data: integers };
            let mut y = product(&values, &Right::weight(&integers));
            y.data.par_chunks_mut(y.cols).zip(&scales).for_each(|(row, scale)| {
                for ((y, s), b) in row.iter_mut().zip(&weight.scales).zip(&layer.bias) {
                    *y = *y * (scale * s) + b;
                }
            });
            y
        }
    }
}

/// The attention of the runtime: int8 scores, then 15-bit probabilities times int8 values.
#[derive(Clone, Copy, Debug)]
pub struct Int8Attention;

impl AttentionArithmetic for Int8Attention {
    fn round(row: &mut [f32]) -> f32 {
        round_row(row)
    }

    /// The weights include the scales of the values, relative to the largest of them.
    fn weigh(scores: &mut [f32], value_scales: &[f32]) -> f32 {
        let top = value_scales.iter().fold(0f32, |max, &s| max.max(s));
        let share = if top > 0.0 { 32_767.0 / top } else { 0.0 };
        let max = scores.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x));
        let mut sum = 0f32;
        for (score, scale) in scores.iter_mut().zip(value_scales) {
            let e = libm::expf(*score - max);
            sum += e;
            *score = e * scale;
        }
        scale_and_round(scores, share);
        top / 32_767.0 / sum
    }
}

/// Hidden state 0, from the quantised tables.
pub fn embed(bert: &StoredBert, batch: &[Sequence]) -> Matrix {
    let hidden = bert.config.hidden_size;
    let mut data = Vec::new();
    let mut word = vec![0f32; hidden];
    for sequence in batch {
        for (position, (&id, &kind)) in sequence.ids.iter().zip(&sequence.types).enumerate() {
            bert.words.row(id as usize, &mut word);
            let place = bert.positions.row(position);
            let kind = bert.token_types.row(kind as usize);
            data.extend(word.iter().zip(kind).zip(place).map(|((w, k), p)| w + k + p));
        }
    }
    let mut x = Matrix { rows: data.len() / hidden, cols: hidden, data };
    layer_norm(&mut x, &bert.embedding_norm, bert.config.layer_norm_eps);
    x
}

/// One encoder layer.
fn layer(bert: &StoredBert, index: usize, x: &Matrix, spans: &[Range<usize>]) -> Matrix {
    let layer = &bert.layers[index];
    let heads = bert.config.num_attention_heads;
    reference::layer(
        &bert.config,
        [&layer.attention_norm, &layer.output_norm],
        x,
        |x| attention::<Int8Attention>(Qkv::fused(&project(x, &layer.qkv)), spans, heads),
        |kind, x| match kind {
            LinearKind::Qkv => project(x, &layer.qkv),
            LinearKind::AttentionOutput => project(x, &layer.attention_output),
            LinearKind::Intermediate => project(x, &layer.intermediate),
            LinearKind::Output => project(x, &layer.output),
        },
    )
}

/// All hidden states, embeddings first.
pub fn hidden_states(bert: &StoredBert, batch: &[Sequence]) -> Vec<Matrix> {
    let spans = spans(batch);
    let mut states = vec![embed(bert, batch)];
    for index in 0..bert.layers.len() {
        let next = layer(bert, index, &states[index], &spans);
        states.push(next);
    }
    states
}
