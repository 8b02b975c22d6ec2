//! Fast matrix products, whose last bits depend on the machine.
//!
//! `gemm` blocks its sums by the sizes of the caches, and uses fused multiply-add where the processor has it. So
//! two machines, or two numbers of threads, may round differently. That is good enough for scores that are
//! printed. It is not for a file: one bit of an activation may change how the quantiser rounds a weight, and the
//! same checkpoint would not give the same bytes everywhere. So everything that is stored in a file comes from
//! [`matmul`](super::matmul).

use gemm::Parallelism;

use crate::bert::Matrix;

/// `x * weight^T + bias`, spread over the threads.
///
/// # Panics
/// If the sizes do not fit together.
pub fn linear(x: &Matrix, weight: &Matrix, bias: &[f32]) -> Matrix {
    let (m, n, k) = (x.rows, weight.rows, weight.cols);
    assert_eq!(x.cols, k, "inner sizes of a product");
    assert_eq!(bias.len(), n, "a bias for every output");
    let mut y = Matrix { rows: m, cols: n, data: bias.repeat(m) };
    // `gemm` takes signed strides. The length of a slice always fits.
    let stride = |width: usize| isize::try_from(width).expect("a row fits into memory");
    assert_eq!(x.data.len(), m * k, "x is [m, k]");
    assert_eq!(weight.data.len(), n * k, "the weight is [n, k]");
    assert_eq!(y.data.len(), m * n, "y is [m, n]");
    #[allow(unsafe_code)]
    // SAFETY: by the assertions on `x.data.len()`, `weight.data.len()` and `y.data.len()` the three
    // buffers hold `m * k`, `n * k` and `m * n` values. Element (i, j) of the left side is at `i * k + j`,
    // of the right side (the weight, transposed) at `j * k + i`, of the result at `i * n + j`: all inside
    // for indices below the sizes, which are the only ones used. `y` is borrowed mutably, alone.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            y.data.as_mut_ptr(),
            1,
            stride(n),
            true,
            x.data.as_ptr(),
            1,
            stride(k),
            weight.data.as_ptr(),
            stride(k),
            1,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::Rayon(0),
        );
    }
    y
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::reference::{self, LinearFn, Sequence, matmul};
    use crate::{load, source};

    fn values(seed: u32, count: usize) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn largest(a: &Matrix, b: &Matrix) -> f32 {
        assert_eq!((a.rows, a.cols, a.data.len()), (b.rows, b.cols, b.data.len()));
        a.data.iter().zip(&b.data).fold(0.0, |most, (a, b)| most.max((a - b).abs()))
    }

    #[test]
    fn products_of_any_size_agree_with_the_written_order() {
        for (m, n, k) in [(1, 1, 1), (3, 17, 5), (64, 33, 129), (130, 2, 300), (0, 4, 4)] {
            let x = Matrix { rows: m, cols: k, data: values(1, m * k) };
            let weight = Matrix { rows: n, cols: k, data: values(2, n * k) };
            let bias = values(3, n);
            let (ours, theirs) = (linear(&x, &weight, &bias), matmul::linear(&x, &weight, &bias));
            assert!(largest(&ours, &theirs) < 1e-4, "{m} {n} {k}");
        }
    }

    #[test]
    fn a_whole_model_agrees_with_the_written_order() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        for name in ["micro", "micro-token-classification", "micro-sequence-classification"] {
            let source =
                source::open(&fixtures.join(name), source::OpenOptions::default()).unwrap();
            let (bert, _) = load::bert(&source, false).unwrap();
            let batch: Vec<_> = (1..6)
                .map(|n| Sequence::single((0..n * 7).map(|i| (i * n * 31 + 5) % 256).collect()))
                .collect();
            let run = |linear: LinearFn| {
                let mut states = reference::hidden_states_by(linear, &bert, &batch);
                let logits = reference::logits_by(linear, &bert, &states[states.len() - 1], &batch);
                states.extend(logits.token_classifier);
                states.extend(logits.sequence_classifier);
                states
            };
            let (ours, theirs) = (run(linear), run(matmul::linear));
            assert_eq!(ours.len(), theirs.len());
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert!(largest(ours, theirs) < 1e-4, "{name}");
            }
            assert_eq!(theirs[..=bert.layers.len()], reference::hidden_states(&bert, &batch));
        }
    }
}
