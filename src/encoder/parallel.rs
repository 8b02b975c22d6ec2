//! How the rows of a hidden state are divided: into one part per thread, and each part into chunks.
//! The only place that divides work. Divisions fall between blocks of sixteen tokens.

use super::scratch::{Qkv, Sizes, Worker};
use crate::kernels::{BLOCK, F32x16};
use crate::threads::Executor;

/// Rows that go through a layer together: few enough that what they leave between two matrices stays
/// in the second-level cache, many enough that the weights are read seldom.
pub(super) const CHUNK: usize = 48;

/// Data that exists per block of tokens and is divided along with the rows.
pub(super) trait PerBlock: Send + Sized {
    /// The data of the first `blocks` blocks, and the rest.
    fn split_at(self, sizes: &Sizes, blocks: usize) -> (Self, Self);
}

impl PerBlock for () {
    fn split_at(self, _: &Sizes, _: usize) -> (Self, Self) {
        ((), ())
    }
}

impl PerBlock for Qkv<'_> {
    fn split_at(self, sizes: &Sizes, blocks: usize) -> (Self, Self) {
        match self {
            Self::Int8(all) => {
                let (a, b) = all.split_at(sizes.shape, blocks);
                (Self::Int8(a), Self::Int8(b))
            }
            Self::F32(all) => {
                let (a, b) = all.split_at(sizes.shape, blocks);
                (Self::F32(a), Self::F32(b))
            }
        }
    }
}

/// Attention probabilities, `[rows][heads][tokens]`.
impl PerBlock for Option<&mut [f32]> {
    fn split_at(self, sizes: &Sizes, blocks: usize) -> (Self, Self) {
        let middle = blocks * BLOCK * sizes.shape.count * sizes.tokens;
        self.map(|map| map.split_at_mut(middle.min(map.len()))).unzip()
    }
}

/// Consecutive rows of a hidden state.
pub(super) struct Part<'p, D> {
    /// `[rows][hidden]`.
    pub(super) x: &'p mut [F32x16],
    /// Index of the rows' first block of tokens.
    pub(super) first_block: usize,
    pub(super) data: D,
}

impl<D: PerBlock> Part<'_, D> {
    pub(super) fn rows(&self, sizes: &Sizes) -> usize {
        self.x.len() / sizes.hidden
    }

    fn split_at(self, sizes: &Sizes, blocks: usize) -> (Self, Self) {
        let Self { x, first_block, data } = self;
        let middle = (blocks * BLOCK * sizes.hidden).min(x.len());
        let (x_a, x_b) = x.split_at_mut(middle);
        let (data_a, data_b) = data.split_at(sizes, blocks);
        let b = Self { x: x_b, first_block: first_block + blocks, data: data_b };
        (Self { x: x_a, first_block, data: data_a }, b)
    }

    /// Runs `work` on the rows in the fewest chunks, as even as whole blocks allow: weights are read
    /// once per chunk.
    pub(super) fn each_chunk(self, sizes: &Sizes, mut work: impl FnMut(Self)) {
        let blocks = self.rows(sizes).div_ceil(BLOCK);
        let count = blocks.div_ceil(CHUNK / BLOCK);
        let start = |i: usize| i * blocks / count;
        let mut rest = self;
        for i in 0..count {
            let (chunk, others) = rest.split_at(sizes, start(i + 1) - start(i));
            work(chunk);
            rest = others;
        }
    }
}

/// The threads of a forward pass.
#[derive(Clone, Copy)]
pub(super) struct Threads<'t> {
    pub(super) executor: &'t dyn Executor,
    /// How many parts to make, at least one.
    pub(super) count: usize,
    pub(super) sizes: &'t Sizes,
}

impl Threads<'_> {
    /// Runs `work` on all rows of `part`, one part per thread. `workers` is the memory of as many
    /// workers as there are threads.
    pub(super) fn run<D: PerBlock>(
        self,
        part: Part<'_, D>,
        workers: &mut [u8],
        work: &(impl Fn(Part<'_, D>, &mut Worker<'_>) + Sync),
    ) {
        let blocks = part.rows(self.sizes).div_ceil(BLOCK);
        if self.count == 1 || blocks == 1 {
            return work(part, &mut Worker::new(self.sizes, workers));
        }
        let left = self.count / 2;
        let half = (blocks * left).div_ceil(self.count).clamp(1, blocks - 1);
        let (a, b) = part.split_at(self.sizes, half);
        let (workers_a, workers_b) = workers.split_at_mut(left * self.sizes.worker_len());
        // `take` makes it harmless if an executor runs a closure twice, which it must not.
        let (mut a, mut b) = (Some(a), Some(b));
        self.executor.join(
            &mut || {
                let threads = Self { count: left, ..self };
                a.take().into_iter().for_each(|a| threads.run(a, workers_a, work));
            },
            &mut || {
                let threads = Self { count: self.count - left, ..self };
                b.take().into_iter().for_each(|b| threads.run(b, workers_b, work));
            },
        );
    }
}
