//! Trains one linear layer with softmax cross-entropy and Adam.

use pulp::{Arch, Simd, WithSimd};

use crate::reference::matmul::{LANES, ROWS, tile};

/// Words per step.
const BATCH: usize = 2048;
/// Words per chunk of a step: few enough for their features to stay in the cache.
const CHUNK: usize = 64;
/// Initial learning rate. It decreases linearly to 0.
const RATE: f32 = 0.002;
/// Adam's decay of the mean gradient and of the mean square.
const BETAS: [f32; 2] = [0.9, 0.999];
/// Adam's guard against division by zero.
const EPSILON: f32 = 1e-8;

/// The features that a probe is trained on or applied to.
pub(super) trait Rows: Sync {
    /// Number of rows.
    fn count(&self) -> usize;
    /// Features per row.
    fn width(&self) -> usize;
    /// Writes a row to `out`, `width` values.
    fn read(&self, row: usize, out: &mut [f32]);
}

/// What a probe learns.
#[derive(Clone, Copy)]
pub(super) struct Training<'a> {
    pub rows: &'a dyn Rows,
    /// The label of each row.
    pub gold: &'a [usize],
    /// Number of labels.
    pub labels: usize,
    /// Times that the probe sees each row.
    pub epochs: usize,
}

/// A value for each of sixteen labels.
type Lanes = [f32; LANES];

/// One linear layer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Probe {
    labels: usize,
    /// Number of features, plus one for the bias.
    width: usize,
    /// `[labels / 16][width][16]`, padded with zeros.
    weights: Vec<Lanes>,
}

/// A chunk of rows: their features, and the logits or the gradient of the logits.
struct Chunk {
    /// `[CHUNK / 4][width][4]`.
    x: Vec<[f32; ROWS]>,
    /// `[labels / 16][CHUNK]`.
    y: Vec<Lanes>,
}

impl Probe {
    /// Initial weights: uniform between plus and minus one over the root of the number of features.
    fn new(features: usize, labels: usize, random: &mut Random) -> Self {
        let width = features + 1;
        let mut weights = vec![[0f32; LANES]; labels.div_ceil(LANES) * width];
        let bound = 1.0 / libm::sqrtf(features as f32);
        for label in 0..labels {
            for i in 0..width {
                let unit = (random.next() >> 40) as f32 / (1u32 << 24) as f32;
                weights[label / LANES * width + i][label % LANES] = bound * (2.0 * unit - 1.0);
            }
        }
        Self { labels, width, weights }
    }

    /// Trains a probe. `epoch` is called after each epoch.
    pub(super) fn train(task: &Training<'_>, seed: u64, epoch: &(dyn Fn() + Sync)) -> Self {
        let Training { rows, gold, labels, epochs } = *task;
        let mut random = Random(seed);
        let mut probe = Self::new(rows.width(), labels, &mut random);
        let mut adam = Adam::new(probe.weights.len());
        let mut chunk = probe.chunk();
        let mut gradient = vec![[0f32; LANES]; probe.weights.len()];
        let mut order: Vec<u32> = (0..rows.count() as u32).collect();
        let steps = epochs * order.len().div_ceil(BATCH);
        let mut step = 0;
        for _ in 0..epochs {
            random.shuffle(&mut order);
            for batch in order.chunks(BATCH) {
                probe.gradient(rows, gold, batch, &mut chunk, &mut gradient);
                let rate = RATE * (1.0 - step as f32 / steps as f32);
                adam.step(&mut probe.weights, &gradient, rate);
                step += 1;
            }
            epoch();
        }
        probe
    }

    /// The label of every row.
    pub(super) fn predict(&self, rows: &dyn Rows) -> Vec<usize> {
        let mut chunk = self.chunk();
        let all: Vec<u32> = (0..rows.count() as u32).collect();
        let mut found = Vec::with_capacity(all.len());
        for part in all.chunks(CHUNK) {
            self.logits(rows, part, &mut chunk);
            found.extend((0..part.len()).map(|row| {
                let logit = |label: usize| chunk.y[label / LANES * CHUNK + row][label % LANES];
                let better = |best, label| if logit(label) > logit(best) { label } else { best };
                (0..self.labels).fold(0, better)
            }));
        }
        found
    }

    fn chunk(&self) -> Chunk {
        let panels = self.weights.len() / self.width;
        Chunk {
            x: vec![[0.0; ROWS]; CHUNK / ROWS * self.width],
            y: vec![[0.0; LANES]; CHUNK * panels],
        }
    }

    /// Reads rows, at most [`CHUNK`], and finds their logits.
    fn logits(&self, rows: &dyn Rows, part: &[u32], chunk: &mut Chunk) {
        let width = self.width;
        chunk.x.fill([0.0; ROWS]);
        let mut features = vec![1f32; width];
        for (i, &row) in part.iter().enumerate() {
            rows.read(row as usize, &mut features[..width - 1]);
            let x = &mut chunk.x[i / ROWS * width..][..width];
            x.iter_mut().zip(&features).for_each(|(x, &feature)| x[i % ROWS] = feature);
        }
        let Chunk { x, y } = chunk;
        Arch::new().dispatch(Forward { weights: &self.weights, width, x, y });
    }

    /// The gradient of the mean cross-entropy of a batch.
    fn gradient(
        &self,
        rows: &dyn Rows,
        gold: &[usize],
        batch: &[u32],
        chunk: &mut Chunk,
        gradient: &mut [Lanes],
    ) {
        gradient.fill([0.0; LANES]);
        for part in batch.chunks(CHUNK) {
            self.logits(rows, part, chunk);
            let Chunk { x, y } = &mut *chunk;
            let mut outputs = vec![0f32; self.labels];
            for row in 0..CHUNK {
                for (label, output) in outputs.iter_mut().enumerate() {
                    *output = y[label / LANES * CHUNK + row][label % LANES];
                }
                y.iter_mut().skip(row).step_by(CHUNK).for_each(|y| *y = [0.0; LANES]);
                // Rows past the end of the part have no gradient.
                let Some(&index) = part.get(row) else { continue };
                softmax(&mut outputs);
                outputs[gold[index as usize]] -= 1.0;
                for (label, output) in outputs.iter().enumerate() {
                    let share = output / batch.len() as f32;
                    y[label / LANES * CHUNK + row][label % LANES] = share;
                }
            }
            Arch::new().dispatch(Backward { gradient, width: self.width, x, y });
        }
    }
}

/// `y = weights * x` for a chunk.
struct Forward<'a> {
    weights: &'a [Lanes],
    width: usize,
    x: &'a [[f32; ROWS]],
    y: &'a mut [Lanes],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { weights, width, x, y } = self;
        for (panel, y) in weights.chunks_exact(width).zip(y.chunks_exact_mut(CHUNK)) {
            for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(ROWS)) {
                y.copy_from_slice(&tile(x, panel));
            }
        }
    }
}

/// Adds the gradient of the weights for a chunk. `y` holds the gradient of the logits.
struct Backward<'a> {
    gradient: &'a mut [Lanes],
    width: usize,
    x: &'a [[f32; ROWS]],
    y: &'a [Lanes],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    // Counted loops, for the reason that `tile` gives.
    #[allow(clippy::needless_range_loop)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { gradient, width, x, y } = self;
        for (panel, y) in gradient.chunks_exact_mut(width).zip(y.chunks_exact(CHUNK)) {
            for (x, y) in x.chunks_exact(width).zip(y.chunks_exact(ROWS)) {
                let y: [Lanes; ROWS] = std::array::from_fn(|r| y[r]);
                for (sums, x) in panel.iter_mut().zip(x) {
                    for row in 0..ROWS {
                        for lane in 0..LANES {
                            sums[lane] += x[row] * y[row][lane];
                        }
                    }
                }
            }
        }
    }
}

fn softmax(values: &mut [f32]) {
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    values.iter_mut().for_each(|x| *x = libm::expf(*x - largest));
    let sum: f32 = values.iter().sum();
    values.iter_mut().for_each(|x| *x /= sum);
}

/// Adam (arXiv 1412.6980).
struct Adam {
    /// Means of the gradient and of its square, per weight.
    moments: Vec<[Lanes; 2]>,
    /// The betas to the power of the number of steps.
    powers: [f32; 2],
}

impl Adam {
    fn new(count: usize) -> Self {
        Self { moments: vec![[[0.0; LANES]; 2]; count], powers: [1.0; 2] }
    }

    fn step(&mut self, weights: &mut [Lanes], gradient: &[Lanes], rate: f32) {
        self.powers = std::array::from_fn(|i| self.powers[i] * BETAS[i]);
        let [mean_bias, square_bias] = self.powers.map(|power| 1.0 - power);
        let moments = self.moments.iter_mut();
        for ((weights, gradient), [mean, square]) in weights.iter_mut().zip(gradient).zip(moments) {
            for i in 0..LANES {
                let g = gradient[i];
                mean[i] = BETAS[0] * mean[i] + (1.0 - BETAS[0]) * g;
                square[i] = BETAS[1] * square[i] + (1.0 - BETAS[1]) * g * g;
                let root = (square[i] / square_bias).sqrt();
                weights[i] -= rate * (mean[i] / mean_bias) / (root + EPSILON);
            }
        }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn shuffle(&mut self, order: &mut [u32]) {
        for i in (1..order.len()).rev() {
            order.swap(i, (self.next() % (i as u64 + 1)) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bert::Matrix;

    impl Rows for Matrix {
        fn count(&self) -> usize {
            self.rows
        }
        fn width(&self) -> usize {
            self.cols
        }
        fn read(&self, row: usize, out: &mut [f32]) {
            out.copy_from_slice(self.row(row));
        }
    }

    #[test]
    fn a_gradient_is_that_worked_out_by_hand() {
        let x = Matrix { rows: 2, cols: 2, data: vec![1.0, 2.0, -1.0, 0.5] };
        let mut probe = Probe::new(2, 2, &mut Random(0));
        // Label 0: weights 1, 0, bias 0. Label 1: weights 0, 1, bias -1.
        probe.weights = vec![[0.0; LANES]; 3];
        (probe.weights[0][0], probe.weights[1][1], probe.weights[2][1]) = (1.0, 1.0, -1.0);
        let mut gradient = vec![[9.0; LANES]; 3];
        probe.gradient(&x, &[0, 1], &[0, 1], &mut probe.chunk(), &mut gradient);
        // Row 0: logits 1, 1; halves; gradient of the outputs (-1/2, 1/2) / 2.
        // Row 1: logits -1, -1/2; label 0 has p = 1 / (1 + sqrt e); gradient (p, -p) / 2.
        let p = 1.0 / (1.0 + 0.5f64.exp());
        let (a, b) = (-0.25, p / 2.0);
        for (i, want) in [a - b, 2.0 * a + 0.5 * b, a + b].into_iter().enumerate() {
            assert!((f64::from(gradient[i][0]) - want).abs() < 1e-7, "{i}: {:?}", gradient[i]);
            assert!((f64::from(gradient[i][1]) + want).abs() < 1e-7, "{i}: {:?}", gradient[i]);
            assert_eq!(gradient[i][2..], [0.0; LANES - 2]);
        }
        // Adam's first step is as long as its rate, whatever the gradient.
        let before = probe.weights.clone();
        Adam::new(3).step(&mut probe.weights, &gradient, 0.01);
        for (i, gradient) in gradient.iter().enumerate() {
            let moved = probe.weights[i][0] - before[i][0];
            assert!((moved + 0.01 * gradient[0].signum()).abs() < 1e-6, "{moved}");
            assert_eq!(probe.weights[i][2..], [0.0; LANES - 2]);
        }
    }

    #[test]
    fn what_a_line_separates_is_learned() {
        // More labels than lanes; each has a feature that stands out.
        const LABELS: usize = 20;
        const WIDTH: usize = 24;
        let mut random = Random(7);
        let gold: Vec<usize> = (0..3000).map(|i| i % LABELS).collect();
        let mut rows = Matrix { rows: gold.len(), cols: WIDTH, data: Vec::new() };
        for &label in &gold {
            for i in 0..WIDTH {
                let noise = (random.next() >> 40) as f32 / (1u32 << 24) as f32 - 0.5;
                rows.data.push(noise + if i == label { 3.0 } else { 0.0 });
            }
        }
        let task = Training { rows: &rows, gold: &gold, labels: LABELS, epochs: 200 };
        let train = |seed| Probe::train(&task, seed, &|| {});
        let probe = train(1);
        assert!(probe.predict(&rows) == gold);
        assert_eq!(train(1), probe, "a seed, a probe");
        assert_ne!(train(2), probe);
    }
}
