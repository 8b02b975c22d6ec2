//! Walsh-Hadamard rotations (QuaRot, arXiv 2404.00456). They spread outliers over a block, so that one scale per
//! row is enough. As `x . w = (Hx) . (Hw)`, a product does not change when both sides are rotated.

use pulp::Arch;

use crate::bert::Linear;

/// A block-diagonal Walsh-Hadamard matrix.
///
/// Block `b` mixes the elements `(b * block + j) * stride + s` for `j` in `0..block`. There is one such block for
/// every `s` in `0..stride`. `block` is a power of two, and 1 means no rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HadamardRotation {
    /// Number of elements that are mixed.
    pub block: usize,
    /// Distance between the elements of a block.
    pub stride: usize,
}

impl HadamardRotation {
    /// No rotation.
    pub const NONE: Self = Self { block: 1, stride: 1 };

    /// Contiguous blocks of the largest power of two that divides `len` and is at most `limit`.
    pub fn largest(len: usize, limit: usize) -> Self {
        let power = 1 << len.trailing_zeros().min(limit.ilog2());
        Self { block: power, stride: 1 }
    }

    /// Rotates a row in place. The matrix is orthonormal and its own inverse.
    ///
    /// # Panics
    /// If `block * stride` does not divide the length of the row.
    pub fn apply(self, row: &mut [f32]) {
        if self.block == 1 {
            return;
        }
        let group = self.block * self.stride;
        assert_eq!(row.len() % group, 0, "a row is a whole number of rotation blocks");
        let scale = 1.0 / libm::sqrtf(self.block as f32);
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for group in row.chunks_exact_mut(group) {
                    let mut half = self.stride;
                    while half < group.len() {
                        for pair in group.chunks_exact_mut(2 * half) {
                            let (low, high) = pair.split_at_mut(half);
                            for (a, b) in low.iter_mut().zip(high) {
                                (*a, *b) = (*a + *b, *a - *b);
                            }
                        }
                        half *= 2;
                    }
                    group.iter_mut().for_each(|x| *x *= scale);
                }
            },
        );
    }

    /// Rotates the inputs of a linear layer: every row of its weight.
    pub fn fold_inputs(self, linear: &mut Linear) {
        linear.weight.data.chunks_exact_mut(linear.weight.cols).for_each(|row| self.apply(row));
    }

    /// Rotates the outputs of a linear layer: the columns of its weight, and its bias.
    pub fn fold_outputs(self, linear: &mut Linear) {
        self.apply(&mut linear.bias);
        let (rows, cols) = (linear.weight.rows, linear.weight.cols);
        let mut column = vec![0f32; rows];
        for c in 0..cols {
            for (r, x) in column.iter_mut().enumerate() {
                *x = linear.weight.data[r * cols + c];
            }
            self.apply(&mut column);
            for (r, &x) in column.iter().enumerate() {
                linear.weight.data[r * cols + c] = x;
            }
        }
    }
}
