//! Matrix products with defined bits.
//!
//! An element of a product is `sum over k of a[k] * b[k]`, summed in f32 with `k` ascending. Each product is
//! rounded before it is added, never fused. Vector lanes and threads hold different elements, so neither the
//! instruction set nor the number of threads changes a result.
//!
//! The inner loop is plain Rust. [`pulp`] compiles it for the baseline, AVX2 and AVX-512, and chooses at run time.
//! The compiler vectorises it over the sixteen lanes of a panel.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::bert::Matrix;

/// Rows of the product per tile.
pub(crate) const ROWS: usize = 4;
/// Columns of the product per tile.
pub(crate) const LANES: usize = 16;
/// Rows per task of a thread. They pass one panel of the right operand before the next.
const CHUNK: usize = 64;

/// An operand of a product, in panels `[n / WIDTH][k][WIDTH]`, zero padded.
#[derive(Clone, Debug)]
pub struct Packed<const WIDTH: usize> {
    n: usize,
    k: usize,
    panels: Vec<[f32; WIDTH]>,
}

/// The left operand, by rows of the product.
pub type Left = Packed<ROWS>;
/// The right operand, by columns of the product.
pub type Right = Packed<LANES>;

impl<const WIDTH: usize> Packed<WIDTH> {
    /// Packs `n` rows of `k` values; row `i` starts at `i * stride`.
    pub fn rows(data: &[f32], n: usize, k: usize, stride: usize) -> Self {
        let mut panels = vec![[0.0; WIDTH]; n.div_ceil(WIDTH) * k];
        for (p, panel) in panels.chunks_exact_mut(k.max(1)).enumerate() {
            for lane in 0..WIDTH.min(n - p * WIDTH) {
                let row = &data[(p * WIDTH + lane) * stride..][..k];
                for (slot, &value) in panel.iter_mut().zip(row) {
                    slot[lane] = value;
                }
            }
        }
        Self { n, k, panels }
    }

    /// Packs `n` columns of `k` values; value `i` of each is in the row that starts at `i * stride`.
    pub fn columns(data: &[f32], n: usize, k: usize, stride: usize) -> Self {
        let mut panels = vec![[0.0; WIDTH]; n.div_ceil(WIDTH) * k];
        for (p, panel) in panels.chunks_exact_mut(k.max(1)).enumerate() {
            let lanes = WIDTH.min(n - p * WIDTH);
            for (i, slot) in panel.iter_mut().enumerate() {
                let row = &data[i * stride + p * WIDTH..];
                match row.first_chunk() {
                    // The compiler knows the length and does not call a function.
                    Some(full) if lanes == WIDTH => *slot = *full,
                    _ => slot[..lanes].copy_from_slice(&row[..lanes]),
                }
            }
        }
        Self { n, k, panels }
    }
}

impl Right {
    /// Packs the weight of a linear layer.
    pub fn weight(weight: &Matrix) -> Self {
        Self::rows(&weight.data, weight.rows, weight.cols, weight.cols)
    }
}

/// The product of two operands, on this thread: `out` holds rows of `right.n` values `stride` apart. Columns
/// before `first` may be left as they are.
///
/// # Panics
/// If the inner sizes differ.
pub fn multiply(left: &Left, right: &Right, out: &mut [f32], stride: usize, first: usize) {
    assert_eq!(left.k, right.k, "inner sizes of a product");
    Arch::new().dispatch(Product { left, right, out, stride, first });
}

struct Product<'a> {
    left: &'a Left,
    right: &'a Right,
    out: &'a mut [f32],
    stride: usize,
    first: usize,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Product { left, right, out, stride, first } = self;
        let k = left.k.max(1);
        for (c, chunk) in left.panels.chunks(CHUNK / ROWS * k).enumerate() {
            for (p, panel) in right.panels.chunks_exact(k).enumerate().skip(first / LANES) {
                let lanes = LANES.min(right.n - p * LANES);
                for (r, rows) in chunk.chunks_exact(k).enumerate() {
                    let row = c * CHUNK + r * ROWS;
                    for (r, sums) in tile(rows, panel).iter().enumerate().take(left.n - row) {
                        out[(row + r) * stride + p * LANES..][..lanes]
                            .copy_from_slice(&sums[..lanes]);
                    }
                }
            }
        }
    }
}

/// `4 x 16` dot products; the lanes are outputs, the sums run over `k` in order.
///
/// The loops inside count up to constants and nothing in them can fail: only so does the compiler unroll them
/// and keep the sums in vector registers. With iterators over the rows, or with an index that it must check, the
/// sums go through memory one by one, and all is ten times slower.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
pub(crate) fn tile(rows: &[[f32; ROWS]], panel: &[[f32; LANES]]) -> [[f32; LANES]; ROWS] {
    let mut sums = [[0f32; LANES]; ROWS];
    for (a, b) in rows.iter().zip(panel) {
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
    let mut y = product(x, &Right::weight(weight));
    y.data.par_chunks_mut(y.cols.max(1)).for_each(|row| {
        for (y, b) in row.iter_mut().zip(bias) {
            *y += b;
        }
    });
    y
}

/// `x * b`, rows spread over the threads.
pub fn product(x: &Matrix, b: &Right) -> Matrix {
    assert_eq!(x.cols, b.k, "inner sizes of a product");
    let mut y = Matrix { rows: x.rows, cols: b.n, data: vec![0.0; x.rows * b.n] };
    y.data
        .par_chunks_mut((CHUNK * b.n).max(1))
        .zip(x.data.par_chunks((CHUNK * b.k).max(1)))
        .for_each(|(y, x)| multiply(&Left::rows(x, y.len() / b.n, b.k, b.k), b, y, b.n, 0));
    y
}

/// Tokens summed in f32 before the sum is added to an f64 total.
const SPAN: usize = 256;

/// `x^T x`, `[x.cols, x.cols]`: sums of 256 rows in f32, those sums added in f64, in order.
pub fn gram(x: &Matrix) -> Vec<f64> {
    let n = x.cols;
    let mut total = vec![0f64; n * n];
    for start in (0..x.rows).step_by(SPAN) {
        let rows = SPAN.min(x.rows - start);
        let x = &x.data[start * n..];
        let right = Right::columns(x, n, rows, n);
        total.par_chunks_mut((CHUNK * n).max(1)).enumerate().for_each(|(c, total)| {
            let first = c * CHUNK;
            let left = Left::columns(&x[first..], total.len() / n, rows, n);
            let mut sums = vec![0f32; total.len()];
            multiply(&left, &right, &mut sums, n, first);
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
        let (left, right) = (Left::rows(&a, m, k, k), Right::rows(&b, n, k, k));
        let mut fast = vec![0f32; m * n];
        multiply(&left, &right, &mut fast, n, 0);
        let mut plain = vec![0f32; m * n];
        Product { left: &left, right: &right, out: &mut plain, stride: n, first: 0 }
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
