//! Softmax attention of every head of every sequence: one function for the f32 reference and for the
//! simulated int8 model. What they round differently is an [`AttentionArithmetic`].

use std::ops::Range;

use rayon::prelude::*;

use super::matmul::{Left, Right, multiply};
use crate::bert::Matrix;

/// Queries, keys and values of a batch, `[tokens, hidden]` each.
#[derive(Clone, Copy, Debug)]
pub struct Qkv<'a> {
    /// Each starts at the first value of the first token.
    parts: [&'a [f32]; 3],
    /// Values from one token to the next.
    stride: usize,
    tokens: usize,
    hidden: usize,
}

impl<'a> Qkv<'a> {
    /// Three matrices `[tokens, hidden]`.
    pub fn separate(query: &'a Matrix, key: &'a Matrix, value: &'a Matrix) -> Self {
        let parts = [&query.data[..], &key.data, &value.data];
        Self { parts, stride: query.cols, tokens: query.rows, hidden: query.cols }
    }

    /// One matrix `[tokens, 3 * hidden]`.
    pub fn fused(qkv: &'a Matrix) -> Self {
        let hidden = qkv.cols / 3;
        let part = |i: usize| qkv.data.get(i * hidden..).unwrap_or_default();
        Self { parts: [0, 1, 2].map(part), stride: qkv.cols, tokens: qkv.rows, hidden }
    }
}

/// The arithmetic of attention: how queries, keys, values and probabilities are rounded.
pub trait AttentionArithmetic {
    /// Rounds the query, key or value of one token and one head, in place.
    ///
    /// Returns the scale of the rounded values.
    fn round(row: &mut [f32]) -> f32;

    /// Turns the scores of one query into the weights of the values, in place.
    ///
    /// `value_scales` holds the scale of each value. Returns the factor for the weighted sum of the rounded
    /// values.
    fn weigh(scores: &mut [f32], value_scales: &[f32]) -> f32;
}

/// Attention in f32, without rounding.
#[derive(Clone, Copy, Debug)]
pub struct FloatAttention;

impl AttentionArithmetic for FloatAttention {
    fn round(_: &mut [f32]) -> f32 {
        1.0
    }

    fn weigh(scores: &mut [f32], _: &[f32]) -> f32 {
        softmax(scores);
        1.0
    }
}

/// The context of every token, `[tokens, hidden]`. `spans` are the rows of each sequence.
pub fn attention<A: AttentionArithmetic>(
    qkv: Qkv<'_>,
    spans: &[Range<usize>],
    heads: usize,
) -> Matrix {
    let Qkv { parts, stride, tokens, hidden } = qkv;
    let size = hidden / heads;
    let scale = 1.0 / libm::sqrtf(size as f32);
    let contexts: Vec<Vec<f32>> = spans
        .par_iter()
        .map(|span| {
            let count = span.len();
            let mut context = vec![0f32; count * hidden];
            let mut scores = vec![0f32; count * count];
            let mut factors = vec![0f32; count];
            for head in 0..heads {
                // The rounded rows of one head and their scales.
                let part = |part: &[f32]| {
                    let mut rows = Vec::with_capacity(count * size);
                    for t in span.clone() {
                        rows.extend(&part[t * stride + head * size..][..size]);
                    }
                    let scales: Vec<f32> = rows.chunks_exact_mut(size).map(A::round).collect();
                    (rows, scales)
                };
                let [(q, q_scales), (k, k_scales), (v, v_scales)] = parts.map(part);

                let queries = Left::rows(&q, count, size, size);
                let keys = Right::rows(&k, count, size, size);
                multiply(&queries, &keys, &mut scores, count, 0);
                let rows = scores.chunks_exact_mut(count.max(1));
                for ((row, factor), q_scale) in rows.zip(&mut factors).zip(&q_scales) {
                    for (score, k_scale) in row.iter_mut().zip(&k_scales) {
                        *score *= q_scale * k_scale * scale;
                    }
                    *factor = A::weigh(row, &v_scales);
                }

                let weights = Left::rows(&scores, count, count, count);
                let values = Right::columns(&v, size, count, size);
                multiply(&weights, &values, &mut context[head * size..], hidden, 0);
                for (row, factor) in context.chunks_exact_mut(hidden).zip(&factors) {
                    row[head * size..][..size].iter_mut().for_each(|x| *x *= factor);
                }
            }
            context
        })
        .collect();
    Matrix { rows: tokens, cols: hidden, data: contexts.concat() }
}

/// Turns scores into probabilities, in place.
pub fn softmax(row: &mut [f32]) {
    let max = row.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x));
    let mut sum = 0f64;
    for x in row.iter_mut() {
        *x = libm::expf(*x - max);
        sum += f64::from(*x);
    }
    let inverse = (1.0 / sum) as f32;
    row.iter_mut().for_each(|x| *x *= inverse);
}
