//! The int8 forward pass in f32, with the roundings of the runtime at the same places: what the error
//! report is made from, and where the quantiser takes its calibration inputs.
//!
//! Not bit for bit the runtime (its exponential and its norms round differently in the last place), but as
//! reproducible as the [reference](crate::reference).

use std::ops::Range;

use pulp::Arch;
use rayon::prelude::*;

use super::{Projection, QuantizedBert, Rotation, Words};
use crate::bert::Matrix;
use crate::reference::matmul::{Left, Right, linear, multiply, product};
use crate::reference::{Sequence, Site, activate, add, layer_norm, spans};

/// Rows in eight bits: integers (held as f32) and a scale a row.
#[derive(Clone, Debug)]
pub struct QuantizedRows {
    /// Integers in `-127..=127`.
    pub values: Matrix,
    /// One a row.
    pub scales: Vec<f32>,
}

impl QuantizedRows {
    /// Rotates and rounds every row.
    pub fn new(x: &Matrix, rotation: Rotation) -> Self {
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

    /// What the integers stand for, still rotated.
    pub fn dequantize(mut self) -> Matrix {
        for (row, &scale) in self.values.data.chunks_exact_mut(self.values.cols).zip(&self.scales) {
            row.iter_mut().for_each(|x| *x *= scale);
        }
        self.values
    }
}

/// Rounds to integers in `-127..=127` in place; the scale that gives the values back.
fn round_row(row: &mut [f32]) -> f32 {
    let largest = row.iter().fold(0f32, |max, x| max.max(x.abs()));
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    scale_and_round(row, inverse);
    largest / 127.0
}

/// Without vectors of its own, x86-64 rounds by a call for every value.
fn scale_and_round(row: &mut [f32], factor: f32) {
    Arch::new().dispatch(
        #[inline(always)]
        || row.iter_mut().for_each(|x| *x = (*x * factor).round_ties_even()),
    );
}

/// A linear layer as the runtime computes it.
pub fn project(x: &Matrix, projection: &Projection) -> Matrix {
    match projection {
        Projection::Full(layer) => linear(x, &layer.weight, &layer.bias),
        Projection::Int8(layer) => {
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

/// Attention on fused `[tokens, 3 * hidden]` queries, keys and values: int8 scores, 15-bit probabilities
/// times int8 values.
pub fn attention(qkv: &Matrix, spans: &[Range<usize>], heads: usize) -> Matrix {
    let hidden = qkv.cols / 3;
    let size = hidden / heads;
    let scale = 1.0 / libm::sqrtf(size as f32);
    let contexts: Vec<Vec<f32>> = spans
        .par_iter()
        .map(|span| {
            let count = span.len();
            let mut context = vec![0f32; count * hidden];
            let mut scores = vec![0f32; count * count];
            let mut sums = vec![0f32; count];
            for head in 0..heads {
                let part = |which: usize| {
                    let mut rows = Vec::with_capacity(count * size);
                    for t in span.clone() {
                        rows.extend(&qkv.row(t)[which * hidden + head * size..][..size]);
                    }
                    let scales: Vec<f32> = rows.chunks_exact_mut(size).map(round_row).collect();
                    (rows, scales)
                };
                let ((q, q_scales), (k, k_scales), (v, v_scales)) = (part(0), part(1), part(2));
                let queries = Left::rows(&q, count, size, size);
                let keys = Right::rows(&k, count, size, size);
                multiply(&queries, &keys, &mut scores, count, 0);
                let top = v_scales.iter().fold(0f32, |max, &s| max.max(s));
                let share = if top > 0.0 { 32_767.0 / top } else { 0.0 };
                for ((row, sum), q_scale) in
                    scores.chunks_exact_mut(count).zip(&mut sums).zip(&q_scales)
                {
                    for (score, k_scale) in row.iter_mut().zip(&k_scales) {
                        *score *= q_scale * k_scale * scale;
                    }
                    let max = row.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x));
                    *sum = 0.0;
                    for (score, v_scale) in row.iter_mut().zip(&v_scales) {
                        let e = libm::expf(*score - max);
                        *sum += e;
                        *score = e * v_scale;
                    }
                    scale_and_round(row, share);
                }
                let shares = Left::rows(&scores, count, count, count);
                let values = Right::columns(&v, size, count, size);
                multiply(&shares, &values, &mut context[head * size..], hidden, 0);
                for (row, sum) in context.chunks_exact_mut(hidden).zip(&sums) {
                    row[head * size..][..size].iter_mut().for_each(|x| *x *= top / 32_767.0 / sum);
                }
            }
            context
        })
        .collect();
    Matrix { rows: qkv.rows, cols: hidden, data: contexts.concat() }
}

/// Hidden state 0 from the quantised tables.
pub fn embed(bert: &QuantizedBert, batch: &[Sequence]) -> Matrix {
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

/// One encoder layer; `tap` sees the input of each linear layer.
pub fn layer(
    bert: &QuantizedBert,
    index: usize,
    x: &Matrix,
    spans: &[Range<usize>],
    tap: &mut dyn FnMut(Site, &Matrix),
) -> Matrix {
    let layer = &bert.layers[index];
    tap(Site::Qkv, x);
    let context = attention(&project(x, &layer.qkv), spans, bert.config.num_attention_heads);
    tap(Site::AttentionOutput, &context);
    let mut attended = project(&context, &layer.attention_output);
    add(&mut attended, x);
    layer_norm(&mut attended, &layer.attention_norm, bert.config.layer_norm_eps);
    tap(Site::Intermediate, &attended);
    let mut inner = project(&attended, &layer.intermediate);
    activate(&mut inner, bert.config.hidden_act);
    tap(Site::Output, &inner);
    let mut out = project(&inner, &layer.output);
    add(&mut out, &attended);
    layer_norm(&mut out, &layer.output_norm, bert.config.layer_norm_eps);
    out
}

/// All hidden states, embeddings first.
pub fn hidden_states(bert: &QuantizedBert, batch: &[Sequence]) -> Vec<Matrix> {
    let spans = spans(batch);
    let mut states = vec![embed(bert, batch)];
    for index in 0..bert.layers.len() {
        let next = layer(bert, index, &states[index], &spans, &mut |_, _| ());
        states.push(next);
    }
    states
}

impl Words {
    /// Writes row `id` into `out`.
    pub fn row(&self, id: usize, out: &mut [f32]) {
        match self {
            Self::Half(table) => out.copy_from_slice(table.row(id)),
            Self::Int8 { values, group, scales, cols, .. } => {
                let row = values[id * cols..][..*cols].chunks(*group);
                let scales = &scales[id * cols.div_ceil(*group)..];
                for ((out, row), scale) in out.chunks_mut(*group).zip(row).zip(scales) {
                    out.iter_mut().zip(row).for_each(|(x, &q)| *x = f32::from(q) * scale);
                }
            }
        }
    }
}
