//! The encoder's buffer, and how it is divided into arrays.

use std::ops::Range;

use super::forward::ForwardPass;
use super::parallel::CHUNK;
use crate::format::{Attention, Config, round16};
use crate::kernels::{
    Attend, BLOCK, F32Blocks, F32x16, HeadShape, I8x16, Int8Blocks, Kernels, QUANTIZE_ROWS, U16x32,
    Workspace, take,
};
use crate::linear::LinearScratch;
use crate::observer::HeadScratch;

/// Dimensions of the encoder's arrays; those of rows in vectors of sixteen values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) tokens: usize,
    /// Blocks of sixteen tokens.
    blocks: usize,
    /// Pairs of blocks, rounded up.
    pairs: usize,
    pub(super) hidden: usize,
    /// All attention heads, each padded.
    pub(super) heads: usize,
    pub(super) intermediate: usize,
    /// The widest row of a worker.
    widest: usize,
    /// Rows of a chunk.
    chunk: usize,
    pub(super) shape: HeadShape,
    attention: Attention,
}

/// Bytes of `count` values of `size` bytes, rounded up to 64; `usize::MAX` on overflow.
const fn bytes(count: usize, size: usize) -> usize {
    match count.saturating_mul(size).checked_next_multiple_of(64) {
        Some(bytes) => bytes,
        None => usize::MAX,
    }
}

/// The sum of `parts`; `usize::MAX` on overflow.
const fn sum(parts: &[usize]) -> usize {
    let (mut sum, mut i) = (0usize, 0);
    while i < parts.len() {
        sum = sum.saturating_add(parts[i]);
        i += 1;
    }
    sum
}

const fn larger(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

impl Sizes {
    pub(super) const fn new(config: &Config, tokens: usize) -> Self {
        let hidden = round16(config.hidden_size) / 16;
        let heads = config.padded_heads() / 16;
        let intermediate = round16(config.intermediate_size) / 16;
        let blocks = tokens.div_ceil(BLOCK);
        Self {
            tokens,
            blocks,
            pairs: blocks.div_ceil(2),
            hidden,
            heads,
            intermediate,
            widest: larger(larger(3 * heads, intermediate), hidden),
            chunk: if blocks < CHUNK / BLOCK { blocks * BLOCK } else { CHUNK },
            shape: config.head_shape(),
            attention: config.attention,
        }
    }

    /// Bytes of the queries, keys and values.
    const fn qkv_len(&self) -> usize {
        let slots = self.blocks.saturating_mul(self.shape.slots());
        let width = self.shape.width();
        match self.attention {
            Attention::Integer => {
                let (q, k, v) = (BLOCK * self.heads * 16, width * 4 * 64, width * 8 * 64);
                let scales = 4 * 64;
                sum(&[
                    bytes(self.blocks, q),
                    bytes(slots, k),
                    bytes(slots, v),
                    bytes(slots, scales),
                ])
            }
            Attention::Float => {
                let (q, k, v) = (BLOCK * width * 64, self.shape.size * 64, width * BLOCK * 64);
                sum(&[bytes(slots, q), bytes(slots, k), bytes(slots, v)])
            }
        }
    }

    /// Bytes of a worker's part.
    pub(super) const fn worker_len(&self) -> usize {
        let chunk = self.chunk;
        sum(&[
            bytes(chunk * self.widest, 64),
            bytes(chunk * self.heads, 64),
            bytes(chunk * self.hidden, 64),
            bytes(chunk * self.widest, 16),
            bytes(chunk, 4),
            bytes(QUANTIZE_ROWS * self.widest, 64),
            bytes(self.pairs, BLOCK * 2 * 64),
            bytes(self.pairs, 64),
        ])
    }

    /// Bytes of the whole buffer: 64 more than its arrays have, so that it may start anywhere.
    pub(super) const fn scratch_len(&self, threads: usize) -> usize {
        let states = bytes(self.tokens, self.hidden * 64);
        let limits = bytes(self.blocks, 64);
        sum(&[
            64,
            states,
            states,
            limits,
            self.qkv_len(),
            self.worker_len().saturating_mul(threads),
        ])
    }
}

/// Queries, keys and values of a layer, by blocks of tokens, in the arithmetic of the attention.
pub(super) enum Qkv<'s> {
    Int8(Int8Blocks<'s>),
    F32(F32Blocks<'s>),
}

impl Qkv<'_> {
    /// The same arrays for a shorter time.
    pub(super) fn reborrow(&mut self) -> Qkv<'_> {
        match self {
            Self::Int8(blocks) => Qkv::Int8(blocks.reborrow()),
            Self::F32(blocks) => Qkv::F32(blocks.reborrow()),
        }
    }

    /// Lays out `qkv`, `[rows][3][heads]`, in these blocks.
    pub(super) fn pack(
        &mut self,
        kernels: &Kernels,
        shape: HeadShape,
        qkv: &[F32x16],
        quantized: &mut [I8x16],
    ) {
        match self {
            Self::Int8(blocks) => kernels.pack_int8(qkv, shape, blocks, quantized),
            Self::F32(blocks) => kernels.pack_f32(qkv, shape, blocks),
        }
    }

    /// Attention of the queries of the tokens `rows`, which start with a block. Writes to the worker's
    /// `context` and, if wanted, the probabilities to `maps`.
    pub(super) fn attend(
        &self,
        pass: &ForwardPass<'_>,
        rows: Range<usize>,
        worker: &mut Worker<'_>,
        maps: Option<&mut [f32]>,
    ) {
        let Worker { context, scores, factors, .. } = worker;
        let work = Workspace { scores, factors };
        let (kernels, heads, keys) = (pass.kernels, pass.threads.sizes.shape, pass.keys);
        match self {
            Self::Int8(blocks) => {
                kernels.attend_int8(Attend { heads, blocks, keys, rows, work, context, maps });
            }
            Self::F32(blocks) => {
                kernels.attend_f32(Attend { heads, blocks, keys, rows, work, context, maps });
            }
        }
    }
}

/// The arrays of a forward pass.
pub(super) struct Scratch<'s> {
    /// `[tokens][hidden]`: the hidden state.
    pub(super) x: &'s mut [F32x16],
    /// `[tokens][hidden]`: lent to the observer.
    pub(super) sum: &'s mut [F32x16],
    /// `[blocks]`: see [`crate::kernels::Keys::limit`].
    pub(super) limit: &'s mut [F32x16],
    pub(super) qkv: Qkv<'s>,
    /// `[threads][Sizes::worker_len]`.
    pub(super) workers: &'s mut [u8],
}

impl<'s> Scratch<'s> {
    /// Divides `buffer`; `None` if it is shorter than [`Sizes::scratch_len`].
    pub(super) fn new(sizes: &Sizes, threads: usize, mut buffer: &'s mut [u8]) -> Option<Self> {
        let rest = &mut buffer;
        let (slots, width) = (sizes.blocks * sizes.shape.slots(), sizes.shape.width());
        Some(Self {
            x: take(rest, sizes.tokens * sizes.hidden)?,
            sum: take(rest, sizes.tokens * sizes.hidden)?,
            limit: take(rest, sizes.blocks)?,
            qkv: match sizes.attention {
                Attention::Integer => Qkv::Int8(Int8Blocks {
                    q: take(rest, sizes.blocks * BLOCK * sizes.heads)?,
                    k: take(rest, slots * width * 4)?,
                    v: take(rest, slots * width * 8)?,
                    q_scale: take(rest, slots)?,
                    k_scale: take(rest, slots)?,
                    v_scale: take(rest, slots)?,
                    k_compensation: take(rest, slots)?,
                }),
                Attention::Float => Qkv::F32(F32Blocks {
                    q: take(rest, slots * BLOCK * width)?,
                    k: take(rest, slots * sizes.shape.size)?,
                    v: take(rest, slots * width * BLOCK)?,
                }),
            },
            workers: {
                // The first part starts at a multiple of 64, and so do the others: a part's length
                // is a multiple of 64.
                let aligned = take::<F32x16>(rest, 0).map(|_| rest)?;
                std::mem::take(aligned).get_mut(..threads * sizes.worker_len())?
            },
        })
    }
}

/// The arrays of one thread.
pub(super) struct Worker<'s> {
    /// `[chunk][widest]`: queries, keys and values; inner activations of the feed-forward network.
    pub(super) wide: &'s mut [F32x16],
    /// `[chunk][heads]`: output of the attention.
    pub(super) context: &'s mut [F32x16],
    /// `[chunk][hidden]`: output of a sublayer.
    pub(super) output: &'s mut [F32x16],
    pub(super) linear: LinearScratch<'s>,
    scores: &'s mut [F32x16],
    factors: &'s mut [U16x32],
}

impl<'s> Worker<'s> {
    /// Divides one part of [`Scratch::workers`].
    pub(super) fn new(sizes: &Sizes, mut part: &'s mut [u8]) -> Self {
        let rest = &mut part;
        let mut divide = || {
            Some(Self {
                wide: take(rest, sizes.chunk * sizes.widest)?,
                context: take(rest, sizes.chunk * sizes.heads)?,
                output: take(rest, sizes.chunk * sizes.hidden)?,
                linear: LinearScratch {
                    quantized: take(rest, sizes.chunk * sizes.widest)?,
                    scale: take(rest, sizes.chunk)?,
                    rotated: take(rest, QUANTIZE_ROWS * sizes.widest)?,
                },
                scores: take(rest, BLOCK * 2 * sizes.pairs)?,
                factors: take(rest, sizes.pairs)?,
            })
        };
        divide().expect("Sizes::worker_len counts what is taken here")
    }

    /// The arrays that heads need.
    pub(super) fn into_heads(self, sizes: &Sizes) -> HeadScratch<'s> {
        let Self { context, output, linear, .. } = self;
        HeadScratch { row: &mut context[..sizes.hidden], out: output, linear }
    }
}
