//! Matrix products whose every bit is defined.
//!
//! One element of a product is `sum over k of a[k] * b[k]`, added up in f32 with `k` ascending, each
//! product rounded before it is added (never fused). Vector lanes and threads only ever hold *different*
//! elements, so neither the instruction set nor the number of threads can change a result.
//! The inner loop is plain Rust, compiled once for the baseline and once for AVX2 by [`pulp`], which
//! picks at run time; the compiler vectorises it over the sixteen lanes of a panel.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::bert::Matrix;

/// Columns of a product computed side by side.
pub(crate) const LANES: usize = 16;
/// Rows of a product computed side by side.
pub(crate) const ROWS: usize = 4;
/// Rows handed to a thread at a time.
const CHUNK: usize = 64;

/// The right-hand operand of a product, laid out for [`Packed::product`]: panels `[n / 16][k][16]`,
/// zero padded.
#[derive(Clone, Debug)]
pub struct Packed {
    n: usize,
    k: usize,
    panels: Vec<[f32; LANES]>,
}

impl Packed {
    /// Packs `n` rows of `k` values; row `i` starts at `i * stride`. The product is `A * rows^T`.
    pub fn rows(data: &[f32], n: usize, k: usize, stride: usize) -> Self {
        let mut panels = vec![[0.0; LANES]; n.div_ceil(LANES) * k];
        for (p, panel) in panels.chunks_exact_mut(k.max(1)).enumerate() {
            for lane in 0..LANES.min(n - p * LANES) {
                let row = &data[(p * LANES + lane) * stride..][..k];
                for (slot, &value) in panel.iter_mut().zip(row) {
                    slot[lane] = value;
                }
            }
        }
        Self { n, k, panels }
    }

    /// Packs `k` rows of `n` values; row `i` starts at `i * stride`. The product is `A * rows`.
    pub fn columns(data: &[f32], n: usize, k: usize, stride: usize) -> Self {
        let mut panels = vec![[0.0; LANES]; n.div_ceil(LANES) * k];
        for (p, panel) in panels.chunks_exact_mut(k.max(1)).enumerate() {
            let lanes = LANES.min(n - p * LANES);
            for (i, slot) in panel.iter_mut().enumerate() {
                slot[..lanes].copy_from_slice(&data[i * stride + p * LANES..][..lanes]);
            }
        }
        Self { n, k, panels }
    }

    /// Packs the weight of a linear layer.
    pub fn weight(weight: &Matrix) -> Self {
        Self::rows(&weight.data, weight.rows, weight.cols, weight.cols)
    }

    /// `out = a * self`, on this thread: `a` holds rows of `k` values `a_stride` apart, `out` rows of `n`
    /// values `out_stride` apart. Columns before `first` may be left as they are.
    pub fn product(
        &self,
        a: &[f32],
        a_stride: usize,
        out: &mut [f32],
        out_stride: usize,
        first: usize,
    ) {
        Arch::new().dispatch(Product { b: self, a, a_stride, out, out_stride, first });
    }
}

struct Product<'a> {
    b: &'a Packed,
    a: &'a [f32],
    a_stride: usize,
    out: &'a mut [f32],
    out_stride: usize,
    first: usize,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Product { b, a, a_stride, out, out_stride, first } = self;
        let mut block = vec![[0f32; ROWS]; CHUNK / ROWS * b.k];
        for (c, out) in out.chunks_mut((CHUNK * out_stride).max(1)).enumerate() {
            let count = out.len().div_ceil(out_stride.max(1));
            let rows = (0..count).map(|row| &a[(c * CHUNK + row) * a_stride..][..b.k]);
            interleave(rows, &mut block);
            for (p, panel) in b.panels.chunks_exact(b.k.max(1)).enumerate().skip(first / LANES) {
                let lanes = LANES.min(b.n - p * LANES);
                for row in (0..count).step_by(ROWS) {
                    let sums = tile(&block[row / ROWS * b.k..], panel);
                    for (r, sums) in sums.iter().enumerate().take(count - row) {
                        out[(row + r) * out_stride + p * LANES..][..lanes]
                            .copy_from_slice(&sums[..lanes]);
                    }
                }
            }
        }
    }
}

/// Lays rows of `k` values out as [`tile`] wants them: `[rows / 4][k][4]`.
fn interleave<'a>(rows: impl Iterator<Item = &'a [f32]>, block: &mut [[f32; ROWS]]) {
    for (r, row) in rows.enumerate() {
        let part = &mut block[r / ROWS * row.len()..][..row.len()];
        part.iter_mut().zip(row).for_each(|(slot, &value)| slot[r % ROWS] = value);
    }
}

/// `4 x 16` dot products; the lanes are outputs, the sums run over `k` in order.
///
/// The loops inside count up to constants and nothing in them can fail: only so does the compiler unroll them
/// and keep the sums in vector registers. With iterators over the rows, or with an index that it must check, the
/// sums go through memory one by one, and all is ten times slower.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
pub(crate) fn tile(a: &[[f32; ROWS]], panel: &[[f32; LANES]]) -> [[f32; LANES]; ROWS] {
    let mut sums = [[0f32; LANES]; ROWS];
    for (a, b) in a.iter().zip(panel) {
        for row in 0..ROWS {
            for lane in 0..LANES {
                sums[row][lane] += a[row] * b[lane];
            }
        }
    }
    sums
}

/// `x * weight^T + bias`, rows spread over the threads.
pub fn linear(x: &Matrix, weight: &Matrix, bias: &[f32]) -> Matrix {
    let mut y = product(x, &Packed::weight(weight));
    y.data.par_chunks_mut(y.cols.max(1)).for_each(|row| {
        for (y, b) in row.iter_mut().zip(bias) {
            *y += b;
        }
    });
    y
}

/// `x * b`, rows spread over the threads.
pub fn product(x: &Matrix, b: &Packed) -> Matrix {
    assert_eq!(x.cols, b.k, "inner sizes of a product");
    let mut y = Matrix { rows: x.rows, cols: b.n, data: vec![0.0; x.rows * b.n] };
    y.data
        .par_chunks_mut((CHUNK * b.n).max(1))
        .zip(x.data.par_chunks((CHUNK * b.k).max(1)))
        .for_each(|(y, x)| b.product(x, b.k, y, b.n, 0));
    y
}

/// Tokens summed in f32 before they are added to an f64 total.
const SPAN: usize = 256;

/// `x^T x`, `[x.cols, x.cols]`: sums of 256 rows in f32, those sums added in f64, in order.
pub fn gram(x: &Matrix) -> Vec<f64> {
    let n = x.cols;
    let mut total = vec![0f64; n * n];
    for start in (0..x.rows).step_by(SPAN) {
        let rows = SPAN.min(x.rows - start);
        let b = Packed::columns(&x.data[start * n..], n, rows, n);
        total.par_chunks_mut((CHUNK * n).max(1)).enumerate().for_each(|(c, total)| {
            let first = c * CHUNK;
            let count = total.len() / n;
            let mut a = vec![0f32; count * rows];
            for t in 0..rows {
                for (i, &value) in x.row(start + t)[first..first + count].iter().enumerate() {
                    a[i * rows + t] = value;
                }
            }
            let mut sums = vec![0f32; count * n];
            b.product(&a, rows, &mut sums, n, first);
            for (total, sum) in total.iter_mut().zip(sums) {
                *total += f64::from(sum);
            }
        });
    }
    // Only columns right of each chunk's first were computed; the others mirror them.
    for i in 0..n {
        for j in 0..i {
            total[i * n + j] = total[j * n + i];
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_bits_with_and_without_vectors() {
        let (m, n, k) = (CHUNK + 7, 37, 129);
        let values = |seed: u32, count: usize| -> Vec<f32> {
            let mut state = seed;
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 8_388_608.0 - 1.0
            };
            (0..count).map(|_| next()).collect()
        };
        let (a, b) = (values(1, m * k), values(2, n * k));
        let packed = Packed::rows(&b, n, k, k);
        let mut fast = vec![0f32; m * n];
        packed.product(&a, k, &mut fast, n, 0);
        let mut plain = vec![0f32; m * n];
        Product { b: &packed, a: &a, a_stride: k, out: &mut plain, out_stride: n, first: 0 }
            .with_simd(pulp::Scalar::new());
        assert_eq!(fast, plain);
        for (i, row) in a.chunks_exact(k).enumerate() {
            for (j, column) in b.chunks_exact(k).enumerate() {
                let mut sum = 0f32;
                row.iter().zip(column).for_each(|(x, y)| sum += x * y);
                assert_eq!(sum.to_bits(), fast[i * n + j].to_bits(), "the written order");
            }
        }
    }

    #[test]
    fn gram_is_symmetric_and_right() {
        let x = Matrix {
            rows: 300,
            cols: 70,
            data: (0..300 * 70).map(|i| ((i * 37) % 11) as f32 - 5.0).collect(),
        };
        let h = gram(&x);
        for i in 0..70 {
            for j in 0..70 {
                let want: f64 = (0..300).map(|t| f64::from(x.row(t)[i] * x.row(t)[j])).sum();
                assert_eq!(h[i * 70 + j], want, "integers are exact");
            }
        }
    }
}
