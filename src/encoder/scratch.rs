//! The one buffer that the encoder works in, and how it is divided.

use crate::format::{Attention, Config, round16};
use crate::kernels::{
    BLOCK, F32Blocks, F32x16, HeadShape, I8x16, Int8Blocks, QUANTIZE_ROWS, U16x32, Workspace, take,
};

/// Rows that go through a layer together: few enough that what they leave between two matrices
/// stays in the second-level cache, many enough that the weights are read seldom.
pub(super) const CHUNK: usize = 48;

/// Sizes of what the encoder keeps, in vectors of sixteen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub tokens: usize,
    /// Blocks of sixteen tokens.
    pub blocks: usize,
    /// Pairs of blocks, the last of which may lack one.
    pairs: usize,
    /// Vectors of a hidden state.
    pub hidden: usize,
    /// Vectors of all heads' inputs.
    pub heads: usize,
    /// Vectors of an intermediate state.
    pub intermediate: usize,
    /// The widest row of a worker.
    pub widest: usize,
    /// Rows of a chunk.
    pub chunk: usize,
    shape: HeadShape,
    attention: Attention,
}

/// Bytes of `count` values of `size` bytes, rounded up to 64; the largest number if that is more
/// than an address space.
const fn bytes(count: usize, size: usize) -> usize {
    match count.saturating_mul(size).checked_next_multiple_of(64) {
        Some(bytes) => bytes,
        None => usize::MAX,
    }
}

/// The sum of `parts`, or the largest number.
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
    pub const fn new(config: &Config, tokens: usize) -> Self {
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

    const fn blocks_len(&self) -> usize {
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

    /// Bytes of what one worker needs.
    pub const fn worker_len(&self) -> usize {
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

    /// Bytes of the whole buffer; 64 more than needed, so that it may start anywhere.
    pub const fn scratch_len(&self, threads: usize) -> usize {
        let states = bytes(self.tokens, self.hidden * 64);
        let blocks = sum(&[bytes(self.blocks, 64), self.blocks_len()]);
        sum(&[64, states, states, blocks, self.worker_len().saturating_mul(threads)])
    }
}

/// Queries, keys and values of a layer, in the arithmetic that the model uses.
pub(super) enum Blocks<'s> {
    Int8(Int8Blocks<'s>),
    F32(F32Blocks<'s>),
}

impl Blocks<'_> {
    /// The first `blocks` blocks, and the others.
    pub fn split_at(&mut self, heads: HeadShape, blocks: usize) -> (Blocks<'_>, Blocks<'_>) {
        match self {
            Self::Int8(all) => {
                let (a, b) = all.split_at(heads, blocks);
                (Blocks::Int8(a), Blocks::Int8(b))
            }
            Self::F32(all) => {
                let (a, b) = all.split_at(heads, blocks);
                (Blocks::F32(a), Blocks::F32(b))
            }
        }
    }
}

/// What stays from layer to layer.
pub(super) struct Scratch<'s> {
    /// `[tokens][hidden]`: the hidden state.
    pub hidden: &'s mut [F32x16],
    /// `[tokens][hidden]`: a combination of hidden states in the making.
    pub combined: &'s mut [F32x16],
    /// `[blocks]`: which keys take part.
    pub limit: &'s mut [F32x16],
    pub blocks: Blocks<'s>,
    /// What the workers work in.
    pub workers: &'s mut [u8],
}

impl<'s> Scratch<'s> {
    /// Divides `buffer`; `None` if it is shorter than [`Sizes::scratch_len`].
    pub fn new(sizes: &Sizes, threads: usize, mut buffer: &'s mut [u8]) -> Option<Self> {
        let rest = &mut buffer;
        let (slots, width) = (sizes.blocks * sizes.shape.slots(), sizes.shape.width());
        Some(Self {
            hidden: take(rest, sizes.tokens * sizes.hidden)?,
            combined: take(rest, sizes.tokens * sizes.hidden)?,
            limit: take(rest, sizes.blocks)?,
            blocks: match sizes.attention {
                Attention::Integer => Blocks::Int8(Int8Blocks {
                    q: take(rest, sizes.blocks * BLOCK * sizes.heads)?,
                    k: take(rest, slots * width * 4)?,
                    v: take(rest, slots * width * 8)?,
                    q_scale: take(rest, slots)?,
                    k_scale: take(rest, slots)?,
                    v_scale: take(rest, slots)?,
                    k_compensation: take(rest, slots)?,
                }),
                Attention::Float => Blocks::F32(F32Blocks {
                    q: take(rest, slots * BLOCK * width)?,
                    k: take(rest, slots * sizes.shape.size)?,
                    v: take(rest, slots * width * BLOCK)?,
                }),
            },
            workers: {
                // A worker's part starts at a multiple of 64 as its length is one.
                let aligned = take::<F32x16>(rest, 0).map(|_| rest)?;
                std::mem::take(aligned).get_mut(..threads * sizes.worker_len())?
            },
        })
    }
}

/// What one worker works in.
pub(super) struct Worker<'s> {
    /// `[chunk][widest]`: queries, keys and values; intermediate states.
    pub wide: &'s mut [F32x16],
    /// `[chunk][heads]`: what the attention gives.
    pub context: &'s mut [F32x16],
    /// `[chunk][hidden]`: what a sublayer gives.
    pub output: &'s mut [F32x16],
    pub quantised: Quantised<'s>,
    scores: &'s mut [F32x16],
    factors: &'s mut [U16x32],
}

/// Where an input is rotated and quantised.
pub(super) struct Quantised<'s> {
    /// `[chunk][widest]`.
    pub values: &'s mut [I8x16],
    /// `[chunk]`.
    pub scale: &'s mut [f32],
    /// `[QUANTIZE_ROWS][widest]`: rows in the making.
    pub rows: &'s mut [F32x16],
}

impl<'s> Worker<'s> {
    /// Divides a worker's part of [`Scratch::workers`].
    pub fn new(sizes: &Sizes, mut part: &'s mut [u8]) -> Self {
        let rest = &mut part;
        let mut divide = || {
            Some(Self {
                wide: take(rest, sizes.chunk * sizes.widest)?,
                context: take(rest, sizes.chunk * sizes.heads)?,
                output: take(rest, sizes.chunk * sizes.hidden)?,
                quantised: Quantised {
                    values: take(rest, sizes.chunk * sizes.widest)?,
                    scale: take(rest, sizes.chunk)?,
                    rows: take(rest, QUANTIZE_ROWS * sizes.widest)?,
                },
                scores: take(rest, BLOCK * 2 * sizes.pairs)?,
                factors: take(rest, sizes.pairs)?,
            })
        };
        divide().expect("Sizes::worker_len counts what is taken here")
    }

    /// Where attention works, and where it writes.
    pub fn attention(&mut self) -> (Workspace<'_>, &mut [F32x16]) {
        let work = Workspace { scores: self.scores, factors: self.factors };
        (work, self.context)
    }
}
