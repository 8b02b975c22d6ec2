//! GPTQ: rounding with error feedback (Frantar et al., arXiv 2210.17323).
//!
//! For a row `w` of a weight and the second moments `H = X^T X` of its inputs, GPTQ finds integers `q` that make
//! `(w - sq) H (w - sq)^T` small. With the Cholesky factor `H = L L^T` this is `|(w - sq) L|^2`. Its terms are
//! minimised one by one, from the last column to the first: column `k` is rounded after adding the errors made
//! so far, `sum over i > k of (w_i - s q_i) L[i][k] / L[k][k]`. The decisions are those of the paper, which uses
//! the Cholesky factor of the inverse. No inverse is needed here.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::bert::Matrix;

/// A matrix in int8: `value * scale[row]`, values in `-127..=127`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuantizedWeight {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// `[rows, cols]`, row-major.
    pub values: Vec<i8>,
    /// One per row. 0 for a row of zeros.
    pub scales: Vec<f32>,
}

impl QuantizedWeight {
    /// Rounds every weight to the nearest multiple of its row's scale.
    pub fn nearest(weight: &Matrix) -> Self {
        let mut quantized = Self { rows: weight.rows, cols: weight.cols, ..Self::default() };
        for row in weight.data.chunks_exact(weight.cols.max(1)) {
            let scale = largest(row) / 127.0;
            quantized.scales.push(scale);
            quantized.values.extend(row.iter().map(|&w| round(w, inverse(scale)) as i8));
        }
        quantized
    }

    /// The values that the integers stand for.
    pub fn dequantize(&self) -> Matrix {
        let rows = self.values.chunks_exact(self.cols.max(1)).zip(&self.scales);
        let data = rows.flat_map(|(row, &s)| row.iter().map(move |&q| f32::from(q) * s)).collect();
        Matrix { rows: self.rows, cols: self.cols, data }
    }
}

fn largest(row: &[f32]) -> f32 {
    row.iter().fold(0f32, |max, x| max.max(x.abs()))
}

/// 0 where the inverse overflows: such a row is below 1e-36 throughout, and becomes zero.
pub(super) fn inverse(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if inverse.is_finite() { inverse } else { 0.0 }
}

#[inline(always)]
fn round(w: f32, inverse: f32) -> f32 {
    (w * inverse).round_ties_even().clamp(-127.0, 127.0)
}

/// The Cholesky factor of the second moments of a layer's inputs.
pub struct Factor {
    n: usize,
    /// The column of the weight for each row of the factor.
    order: Vec<usize>,
    /// Lower triangle, row-major.
    lower: Vec<f64>,
}

impl Factor {
    /// Factors `moments + damping * mean(diagonal) * I`, where `moments` is `[n, n]`.
    ///
    /// With `by_activation`, the columns with the largest moments are rounded first, while most other columns
    /// can still compensate for them.
    pub fn new(moments: &[f64], n: usize, damping: f64, by_activation: bool) -> Self {
        let mean = (0..n).map(|i| moments[i * n + i]).sum::<f64>() / n as f64;
        // If all inputs are zero, all errors count the same.
        let damping = if mean > 0.0 { mean * damping } else { 1.0 };
        let mut order: Vec<usize> = (0..n).collect();
        if by_activation {
            order.sort_by(|&a, &b| moments[a * n + a].total_cmp(&moments[b * n + b]));
        }
        let mut lower = vec![0f64; n * n];
        for (i, &a) in order.iter().enumerate() {
            for (j, &b) in order[..=i].iter().enumerate() {
                lower[i * n + j] = moments[a * n + b];
            }
            lower[i * n + i] += damping;
        }
        cholesky(&mut lower, n);
        Self { n, order, lower }
    }

    /// Rounds the rows of `weight`. Each of `clips` is tried as the range of a row, as a share of its largest
    /// magnitude, and the one with the smallest error is kept.
    pub fn round(&self, weight: &Matrix, clips: &[f32]) -> QuantizedWeight {
        let n = self.n;
        assert_eq!(weight.cols, n, "the moments have the size of the layer's inputs");
        let diagonal: Vec<f32> = (0..n).map(|k| self.lower[k * n + k] as f32).collect();
        let mut feedback = vec![0f32; n * n];
        feedback.par_chunks_mut(n.max(1)).enumerate().for_each(|(k, row)| {
            let pivot = 1.0 / self.lower[k * n + k];
            for (i, share) in row.iter_mut().enumerate().skip(k + 1) {
                *share = (self.lower[i * n + k] * pivot) as f32;
            }
        });
        let chunks: Vec<(Vec<i8>, Vec<f32>)> = weight
            .data
            .par_chunks((GROUP * n).max(1))
            .map(|rows| self.round_group(rows, clips, &feedback, &diagonal))
            .collect();
        let mut quantized = QuantizedWeight { rows: weight.rows, cols: n, ..Default::default() };
        for (values, scales) in chunks {
            quantized.values.extend(values);
            quantized.scales.extend(scales);
        }
        quantized
    }

    fn round_group(
        &self,
        rows: &[f32],
        clips: &[f32],
        feedback: &[f32],
        diagonal: &[f32],
    ) -> (Vec<i8>, Vec<f32>) {
        let n = self.n;
        let count = rows.len() / n;
        let mut weights = vec![[0f32; GROUP]; n];
        for (lane, row) in rows.chunks_exact(n).enumerate() {
            for (slot, &at) in weights.iter_mut().zip(&self.order) {
                slot[lane] = row[at];
            }
        }
        let mut values = vec![0i8; rows.len()];
        let mut scales = vec![0f32; count];
        let mut best = [f32::INFINITY; GROUP];
        let mut errors = vec![[0f32; GROUP]; n];
        let mut codes = vec![[0f32; GROUP]; n];
        for (tried, &clip) in clips.iter().enumerate() {
            let mut steps = [0f32; GROUP];
            for (step, row) in steps.iter_mut().zip(rows.chunks_exact(n)) {
                *step = largest(row) * clip / 127.0;
            }
            let losses = Arch::new().dispatch(Round {
                weights: &weights,
                steps: &steps,
                feedback,
                diagonal,
                errors: &mut errors,
                codes: &mut codes,
            });
            for lane in 0..count {
                // The loss of very large weights may overflow; they are rounded all the same.
                if losses[lane] < best[lane] || tried == 0 {
                    best[lane] = losses[lane];
                    scales[lane] = steps[lane];
                    for (code, &at) in codes.iter().zip(&self.order) {
                        values[lane * n + at] = code[lane] as i8;
                    }
                }
            }
        }
        (values, scales)
    }
}

/// Rows rounded at the same time, one per lane.
const GROUP: usize = 64;

struct Round<'a> {
    weights: &'a [[f32; GROUP]],
    steps: &'a [f32; GROUP],
    feedback: &'a [f32],
    diagonal: &'a [f32],
    errors: &'a mut [[f32; GROUP]],
    codes: &'a mut [[f32; GROUP]],
}

impl WithSimd for Round<'_> {
    type Output = [f32; GROUP];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Self::Output {
        let Round { weights, steps, feedback, diagonal, errors, codes } = self;
        let n = weights.len();
        let inverse = steps.map(inverse);
        let mut losses = [0f32; GROUP];
        for k in (0..n).rev() {
            let mut wanted = weights[k];
            for (error, &share) in
                errors[k + 1..n].iter().zip(&feedback[k * n + k + 1..][..n - k - 1])
            {
                for (wanted, error) in wanted.iter_mut().zip(error) {
                    *wanted += error * share;
                }
            }
            for lane in 0..GROUP {
                let code = round(wanted[lane], inverse[lane]);
                let value = code * steps[lane];
                let miss = (wanted[lane] - value) * diagonal[k];
                codes[k][lane] = code;
                errors[k][lane] = weights[k][lane] - value;
                losses[lane] += miss * miss;
            }
        }
        losses
    }
}

/// Replaces the lower triangle of a positive definite matrix by its Cholesky factor.
fn cholesky(a: &mut [f64], n: usize) {
    const BLOCK: usize = 64;
    for start in (0..n).step_by(BLOCK) {
        let end = (start + BLOCK).min(n);
        // The block on the diagonal.
        for k in start..end {
            let pivot = libm::sqrt(a[k * n + k].max(f64::MIN_POSITIVE));
            a[k * n + k] = pivot;
            for i in k + 1..end {
                a[i * n + k] /= pivot;
            }
            for i in k + 1..end {
                let factor = a[i * n + k];
                for j in k + 1..=i {
                    a[i * n + j] -= factor * a[j * n + k];
                }
            }
        }
        // The rows below the block, then the update of the columns that follow.
        let (head, tail) = a.split_at_mut(end * n);
        let block = &head[start * n..];
        tail.par_chunks_mut(n).for_each(|row| {
            for k in start..end {
                let mut x = row[k];
                for j in start..k {
                    x -= row[j] * block[(k - start) * n + j];
                }
                row[k] = x / block[(k - start) * n + k];
            }
        });
        let width = n - end;
        let mut columns = vec![0f64; (end - start) * width];
        for (i, row) in tail.chunks_exact(n.max(1)).enumerate() {
            for k in start..end {
                columns[(k - start) * width + i] = row[k];
            }
        }
        tail.par_chunks_mut(n).enumerate().for_each(|(i, row)| {
            let (done, rest) = row.split_at_mut(end);
            Arch::new().dispatch(Update {
                factors: &done[start..],
                columns: &columns,
                width,
                row: &mut rest[..=i],
            });
        });
    }
}

struct Update<'a> {
    factors: &'a [f64],
    columns: &'a [f64],
    width: usize,
    row: &'a mut [f64],
}

impl WithSimd for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Update { factors, columns, width, row } = self;
        for (factor, column) in factors.iter().zip(columns.chunks_exact(width)) {
            for (x, c) in row.iter_mut().zip(column) {
                *x -= factor * c;
            }
        }
    }
}
