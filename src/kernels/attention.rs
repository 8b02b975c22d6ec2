//! Scaled dot-product attention ("Attention Is All You Need", 1706.03762, section 3.2), without a
//! `[tokens, tokens]` matrix: a few queries at a time are multiplied with all keys.
//!
//! Tokens are stored in blocks of sixteen, all heads of a block together, so that blocks can be written
//! independently. A head's inputs are padded to a multiple of sixteen (`width` vectors).
//!
//! **Integers** (`attend_int8`): queries, keys and values are int8 with one scale per token and head.
//! Scores are exact in i32. Their exponentials have 15 bits, and are summed exactly. Probabilities are the
//! exponentials times the scale of the key's value, in 15 bits again. Their products with the values are
//! summed exactly in i32 over at most [`KEYS_EXACT`] keys, and such sums are added in f32.
//!
//! **Floats** (`attend_f32`): the same steps in f32, every sum in ascending order of its index.

use core::ops::Range;

use super::lanes::{F32x16, I8x16, I8x64, I16x32, I32x16, Simd, U16x32};
use super::matmul::{
    Pairs, Singles, Tile, few_panels_at_once, few_rows_at_once, multiply, panels_in_runs, rows_of,
    with_tile,
};
use super::rows::int8_scale;
use super::{Kernel, math};

/// Tokens per block.
pub const BLOCK: usize = 16;

/// The most keys whose 15-bit probabilities times int8 values are summed in one i32: 32,767 * 127 * 512
/// is below 2^31.
pub const KEYS_EXACT: usize = 512;

/// The largest factor of 15 bits.
const FACTOR_MAX: f32 = 32767.0;

/// Upper bound on the magnitude of a query's largest exponent, in 4096ths.
const PEAK_MAX: f32 = (1u64 << 36) as f32;

/// The shape of a layer's heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// Heads per layer.
    pub count: usize,
    /// Inputs per head.
    pub size: usize,
}

impl HeadShape {
    /// Vectors of sixteen per head, which is padded to them.
    pub const fn width(self) -> usize {
        self.size.div_ceil(16)
    }
    /// Slots per block: one per head, rounded up to an odd number so that a head's slots in all blocks do
    /// not map to the same few cache sets.
    pub const fn slots(self) -> usize {
        self.count | 1
    }
    /// `log2(e) / sqrt(size)`: turns a dot product into an exponent of two.
    fn temperature(self) -> f32 {
        core::f32::consts::LOG2_E / super::scalar::sqrt(self.size as f32)
    }
}

/// Which keys take part.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a> {
    /// Number of keys, masked ones included.
    pub count: usize,
    /// `[blocks]`: the largest f32 where a key takes part, the least where it is masked or past the
    /// end.
    pub limit: &'a [F32x16],
}

/// Queries, keys and values of whole blocks in int8. Each field has one part per block, of the shape that
/// it states.
pub struct Int8Blocks<'a> {
    /// `[16][heads][width]`, activations.
    pub q: &'a mut [I8x16],
    /// `[slots]`, one lane per token.
    pub q_scale: &'a mut [F32x16],
    /// `[slots][width * 4]`: int8 panels whose channels are keys.
    pub k: &'a mut [I8x64],
    /// `[slots]`, one lane per token.
    pub k_scale: &'a mut [F32x16],
    /// `[slots]`: the zero-point compensation of each key's scores.
    pub k_compensation: &'a mut [I32x16],
    /// `[slots][width][8]`: 16-bit panels whose steps are pairs of tokens.
    pub v: &'a mut [I16x32],
    /// `[slots]`, one lane per token.
    pub v_scale: &'a mut [F32x16],
}

/// Queries, keys and values of whole blocks in f32. Each field has one part per block, of the shape that
/// it states.
pub struct F32Blocks<'a> {
    /// `[slots][16][width]`.
    pub q: &'a mut [F32x16],
    /// `[slots][size]`: panels whose channels are keys.
    pub k: &'a mut [F32x16],
    /// `[slots][width][16]`: panels whose steps are tokens.
    pub v: &'a mut [F32x16],
}

impl Int8Blocks<'_> {
    /// The same blocks for a shorter time.
    pub fn reborrow(&mut self) -> Int8Blocks<'_> {
        Int8Blocks {
            q: self.q,
            q_scale: self.q_scale,
            k: self.k,
            k_scale: self.k_scale,
            k_compensation: self.k_compensation,
            v: self.v,
            v_scale: self.v_scale,
        }
    }

    /// The first `blocks` blocks, and the others.
    pub fn split_at(self, heads: HeadShape, blocks: usize) -> (Self, Self) {
        let (n, width) = (blocks * heads.slots(), heads.width());
        let q = self.q.split_at_mut(blocks * BLOCK * heads.count * width);
        let q_scale = self.q_scale.split_at_mut(n);
        let k = self.k.split_at_mut(n * width * 4);
        let k_scale = self.k_scale.split_at_mut(n);
        let k_compensation = self.k_compensation.split_at_mut(n);
        let v = self.v.split_at_mut(n * width * (BLOCK / 2));
        let v_scale = self.v_scale.split_at_mut(n);
        macro_rules! half {
            ($i:tt) => {
                Self {
                    q: q.$i,
                    q_scale: q_scale.$i,
                    k: k.$i,
                    k_scale: k_scale.$i,
                    k_compensation: k_compensation.$i,
                    v: v.$i,
                    v_scale: v_scale.$i,
                }
            };
        }
        (half!(0), half!(1))
    }
}

impl F32Blocks<'_> {
    /// The same blocks for a shorter time.
    pub fn reborrow(&mut self) -> F32Blocks<'_> {
        F32Blocks { q: self.q, k: self.k, v: self.v }
    }

    /// The first `blocks` blocks, and the others.
    pub fn split_at(self, heads: HeadShape, blocks: usize) -> (Self, Self) {
        let (n, width) = (blocks * heads.slots(), heads.width());
        let q = self.q.split_at_mut(n * BLOCK * width);
        let k = self.k.split_at_mut(n * heads.size);
        let v = self.v.split_at_mut(n * width * BLOCK);
        (Self { q: q.0, k: k.0, v: v.0 }, Self { q: q.1, k: k.1, v: v.1 })
    }
}

/// The arguments of [`super::Kernels::attend_int8`] and [`super::Kernels::attend_f32`]: attention of some
/// queries over all keys.
pub struct Attend<'a, B> {
    /// The shape of the layer's heads.
    pub heads: HeadShape,
    /// All blocks of the input.
    pub blocks: &'a B,
    /// Which keys take part.
    pub keys: Keys<'a>,
    /// The tokens whose queries take part, the first of which starts a block.
    pub rows: Range<usize>,
    /// Working memory.
    pub work: Workspace<'a>,
    /// `[rows][heads * width]`: the result.
    pub context: &'a mut [F32x16],
    /// If wanted, `[rows][heads][keys]`: the attention probabilities.
    pub maps: Option<&'a mut [f32]>,
}

/// The working memory of attention, for `keys.count` rounded up to pairs of blocks.
pub struct Workspace<'a> {
    /// `[16][pairs][2]`: scores of some queries, then their exponentials or probabilities.
    pub scores: &'a mut [F32x16],
    /// `[pairs]`: what a key's exponential is multiplied by, in 15 bits.
    pub factors: &'a mut [U16x32],
}

/// Quantises queries, keys and values into blocks.
pub(super) struct PackInt8<'a, 'b> {
    /// `[rows][3 * heads * width]`.
    pub qkv: &'a [F32x16],
    pub heads: HeadShape,
    pub blocks: &'a mut Int8Blocks<'b>,
    /// `[16][heads * width]`.
    pub buffer: &'a mut [I8x16],
}

impl Kernel for PackInt8<'_, '_> {
    const NAME: &'static str = "pack_int8";
    const INTEGER: bool = true;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { qkv, heads, blocks, buffer } = self;
        let (width, part) = (heads.width(), heads.count * heads.width());
        assert!(part > 0 && qkv.len().is_multiple_of(3 * part));
        let buffer = &mut buffer[..BLOCK * part];
        for (b, rows) in qkv.chunks(BLOCK * 3 * part).enumerate() {
            // Heads of 32 have loops of known lengths.
            match width {
                2 if S::WIDE => quantise_block(s, rows, heads, 2, b, blocks, buffer),
                _ => quantise_block(s, rows, heads, width, b, blocks, buffer),
            }
            let first = b * heads.slots();
            let k = &mut blocks.k[first * width * 4..][..part * 4];
            pack_keys(s, buffer, part, k, &mut blocks.k_compensation[first..][..heads.count]);
        }
    }
}

/// [`PackInt8`] of block `b`, except that its keys are written to `buffer`.
#[inline(always)]
fn quantise_block<S: Simd>(
    s: S,
    rows: &[F32x16],
    heads: HeadShape,
    width: usize,
    b: usize,
    blocks: &mut Int8Blocks<'_>,
    buffer: &mut [I8x16],
) {
    let part = heads.count * width;
    let Int8Blocks { q, q_scale, k_scale, v, v_scale, .. } = blocks;
    let slots = b * heads.slots()..b * heads.slots() + heads.count;
    let mut scale = [q_scale, k_scale, v_scale].map(|s| &mut s[slots.clone()]);
    // Sixteen heads at a time, so that their scales are one vector.
    for first in (0..heads.count).step_by(16) {
        let group = first..heads.count.min(first + 16);
        let range = group.start * width..group.end * width;
        // Values past the last token are multiplied by zero, and must be neither NaN nor stale.
        let (mut step, mut inverse) = ([[F32x16::ZERO; BLOCK]; 3], [[F32x16::ZERO; BLOCK]; 3]);
        for (few, rows) in rows.chunks(4 * 3 * part).enumerate() {
            // All scales first, so that their computations overlap.
            let tokens = || (4 * few..).zip(rows.chunks_exact(3 * part));
            for (t, row) in tokens() {
                for (i, x) in row.chunks_exact(part).enumerate() {
                    let scales = int8_scale(s, largest_of_heads(s, &x[range.clone()], width));
                    s.store(&mut step[i][t], scales.0);
                    s.store(&mut inverse[i][t], scales.1);
                }
            }
            for (t, row) in tokens() {
                let (queries, keys) = row.split_at(part);
                let q = &mut q[(b * BLOCK + t) * part..][range.clone()];
                round_heads::<S, true>(s, &queries[range.clone()], width, &inverse[0][t], q);
                let k = &mut buffer[t * part..][range.clone()];
                round_heads::<S, false>(s, &keys[range.clone()], width, &inverse[1][t], k);
            }
        }
        for (step, scale) in step.iter().zip(&mut scale) {
            let mut lanes = [F32x16::ZERO; 16];
            s.transpose(step, &mut lanes);
            scale[group.clone()].copy_from_slice(&lanes[..group.len()]);
        }
        let panels = &mut v[(slots.start + first) * width * (BLOCK / 2)..];
        for (pair, rows) in rows.chunks(2 * 3 * part).enumerate() {
            let low = &rows[2 * part..][range.clone()];
            // The last token may have no neighbour.
            let high = rows.get(5 * part..).map_or(&[][..], |values| &values[range.clone()]);
            let inverse = [inverse[2][2 * pair], inverse[2][2 * pair + 1]];
            pack_values(s, [low, high], inverse, width, pair, panels);
        }
    }
}

/// Copies the values of two tokens, the second of which may be missing, to pair `pair` of each panel.
#[inline(always)]
fn pack_values<S: Simd>(
    s: S,
    [low, high]: [&[F32x16]; 2],
    inverse: [F32x16; 2],
    width: usize,
    pair: usize,
    panels: &mut [I16x32],
) {
    for (i, low) in low.chunks_exact(width).enumerate() {
        let inverse = [s.splat(inverse[0].0[i]), s.splat(inverse[1].0[i])];
        for (j, low) in low.iter().enumerate() {
            let low = s.to_i32(s.mul(s.load(low), inverse[0]));
            let high = match high.get(i * width + j) {
                Some(high) => s.to_i32(s.mul(s.load(high), inverse[1])),
                None => s.splat_i32(0),
            };
            let panel = &mut panels[(i * width + j) * (BLOCK / 2) + pair];
            s.store_i32(I32x16::of_pairs_mut(panel), s.interleave(low, high));
        }
    }
}

/// The largest magnitudes of up to sixteen heads, one lane per head.
#[inline(always)]
fn largest_of_heads<S: Simd>(s: S, x: &[F32x16], width: usize) -> S::F {
    let mut largest = [s.zero(); 16];
    for (i, largest) in largest.iter_mut().enumerate() {
        if let Some(x) = x.get(i * width..(i + 1) * width) {
            for x in x {
                *largest = s.max_magnitude(*largest, s.load(x));
            }
        }
    }
    s.largest_of_each(largest)
}

/// `out[i] = round(x[i] * inverse of its head)`, as activations or as weights.
#[inline(always)]
fn round_heads<S: Simd, const ACTIVATIONS: bool>(
    s: S,
    x: &[F32x16],
    width: usize,
    inverse: &F32x16,
    out: &mut [I8x16],
) {
    let (x4, x) = x.as_chunks::<4>();
    let (out4, out) = out.as_chunks_mut::<4>();
    let (mut head, mut left) = (0, width);
    macro_rules! quantised {
        ($x:expr) => {{
            let v = s.to_i32(s.mul(s.load($x), s.splat(inverse.0[head])));
            left -= 1;
            if left == 0 {
                (head, left) = (head + 1, width);
            }
            v
        }};
    }
    for (x, out) in x4.iter().zip(out4) {
        let v = [quantised!(&x[0]), quantised!(&x[1]), quantised!(&x[2]), quantised!(&x[3])];
        if ACTIVATIONS { s.store_activations(out, v) } else { s.store_i8s(out, v) }
    }
    for (x, out) in x.iter().zip(out) {
        let v = quantised!(x);
        if ACTIVATIONS { s.store_activation(out, v) } else { s.store_i8(out, v) }
    }
}

/// Copies `[16][part]` vectors of keys into panels, and computes their zero-point compensation, head by
/// head.
#[inline(always)]
fn pack_keys<S: Simd>(
    s: S,
    rows: &[I8x16],
    part: usize,
    panels: &mut [I8x64],
    compensation: &mut [I32x16],
) {
    let (panels16, rest) = panels.as_chunks_mut::<16>();
    for (i, panels) in panels16.iter_mut().enumerate() {
        s.transpose_quads(&rows[4 * i..], part, panels);
    }
    let done = panels16.len() * 4;
    for (t, row) in rows.chunks_exact(part).enumerate() {
        for (i, panel) in rest.iter_mut().enumerate() {
            panel.0.as_chunks_mut::<4>().0[t] = row[done + i / 4].0.as_chunks().0[i % 4];
        }
    }
    let steps = panels.len() / compensation.len();
    for (panel, compensation) in panels.chunks_exact(steps).zip(compensation) {
        let mut sum = s.splat_i32(0);
        if S::OFFSET != 0 {
            for step in panel {
                sum = s.dot_quad(sum, s.quad([1; 4]), s.load_quads(step));
            }
        }
        s.store_i32(compensation, s.compensation(sum));
    }
}

impl Kernel for Attend<'_, Int8Blocks<'_>> {
    const NAME: &'static str = "attend_int8";
    const INTEGER: bool = true;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.check(self.blocks.k_scale.len());
        let Self { heads, blocks, keys, rows, work, context, mut maps } = self;
        let (width, count) = (heads.width(), keys.count.div_ceil(BLOCK));
        let part = heads.count * width;
        assert!(blocks.q.len() >= rows.end * part);
        assert!(blocks.k.len() >= count * heads.slots() * width * 4);
        assert!(blocks.v.len() >= count * heads.slots() * width * 8);
        let room = count.next_multiple_of(2);
        let Workspace { scores, factors } = work;
        let factors = &mut factors[..room / 2];
        let temperature = s.splat(4096.0 * heads.temperature());
        for h in 0..heads.count {
            let head = Int8Head { heads, h, blocks, keys };
            let scale = head.value_factors(s, factors);
            for first in rows.clone().step_by(BLOCK) {
                let done = first - rows.start;
                let rows = BLOCK.min(rows.end - first);
                let mut largest = [s.splat(f32::MIN); BLOCK];
                let mut t = 0;
                while t < rows {
                    let mr = few_rows_at_once(rows - t, S::ROWS);
                    let q = &blocks.q[(first + t) * part + h * width..];
                    let scores = &mut scores[t * room..][..mr * room];
                    head.scores(s, q, mr, scores, &mut largest[t..][..mr]);
                    t += mr;
                }
                // One lane per query: the line that gives a score's exponent in 4096ths, 65,535 for the
                // largest score.
                let (mut rates, mut starts) = (F32x16::ZERO, F32x16::ZERO);
                let peak = s.largest_of_each(largest);
                let q_scale = s.load(&blocks.q_scale[first / BLOCK * heads.slots() + h]);
                // Beyond the bound the peak's own exponent would be lost in rounding.
                let bound = s.div(s.splat(PEAK_MAX), s.abs(peak));
                let rate = s.min(s.mul(q_scale, temperature), bound);
                s.store(&mut rates, rate);
                s.store(&mut starts, s.fma(s.sub(s.zero(), peak), rate, s.splat(65535.0)));

                let mut sums = [s.splat_i32(1); BLOCK];
                for (r, scores) in scores.chunks_exact_mut(room).take(rows).enumerate() {
                    let line = [s.splat(rates.0[r]), s.splat(starts.0[r])];
                    sums[r] = exponentials_15bit(s, scores, line, factors);
                }
                let sums = s.to_f32(s.sum_of_each(sums));
                if let Some(maps) = maps.as_deref_mut() {
                    let mut divisors = F32x16::ZERO;
                    s.store(&mut divisors, sums);
                    for (r, scores) in scores.chunks_exact_mut(room).take(rows).enumerate() {
                        let at = ((done + r) * heads.count + h) * keys.count;
                        let pairs = scores.as_chunks_mut().0.iter_mut();
                        let e = pairs.flat_map(|[_, e]| U16x32::of_mut(e).in_turn()).map(f32::from);
                        normalise(e, divisors.0[r], &mut maps[at..][..keys.count]);
                    }
                }
                let mut norms = F32x16::ZERO;
                s.store(&mut norms, s.div(s.splat(scale), sums));

                let mut t = 0;
                while t < rows {
                    let mr = few_rows_at_once(rows - t, S::ROWS);
                    let probabilities = &scores[t * room..][..mr * room];
                    let context = &mut context[(done + t) * part..];
                    head.context(s, mr, &norms.0[t..], probabilities, context);
                    t += mr;
                }
            }
        }
    }
}

impl<B> Attend<'_, B> {
    /// Asserts what the unchecked tiles of both arithmetics rely on; `slots` are those of all blocks.
    fn check(&self, slots: usize) {
        let Self { heads, keys, rows, work, context, .. } = self;
        let count = keys.count.div_ceil(BLOCK);
        assert!(!rows.is_empty() && rows.start.is_multiple_of(BLOCK));
        assert!(keys.count > 0 && keys.limit.len() >= count);
        assert!(slots >= count * heads.slots());
        let pairs = count.div_ceil(2);
        assert!(work.scores.len() >= BLOCK * 2 * pairs && work.factors.len() >= pairs);
        assert!(context.len() >= rows.len() * heads.count * heads.width());
    }
}

/// One head of an input in int8.
#[derive(Clone, Copy)]
struct Int8Head<'a> {
    heads: HeadShape,
    /// Its index.
    h: usize,
    blocks: &'a Int8Blocks<'a>,
    keys: Keys<'a>,
}

impl Int8Head<'_> {
    /// `factors[j] = 32767 * scale of value j / largest scale` in whole numbers; returns what their
    /// products with 15-bit exponentials, divided by 2^15, are to be multiplied by.
    #[inline(always)]
    fn value_factors<S: Simd>(self, s: S, factors: &mut [U16x32]) -> f32 {
        let Self { heads, h, blocks, keys } = self;
        let count = keys.count.div_ceil(BLOCK);
        let mut largest = s.zero();
        for (j, limit) in keys.limit[..count].iter().enumerate() {
            let scale = s.load(&blocks.v_scale[j * heads.slots() + h]);
            largest = s.max(largest, s.min(scale, s.max(s.load(limit), s.zero())));
        }
        let largest = s.largest(largest);
        let inverse = s.splat(if largest > 0.0 { FACTOR_MAX / largest } else { 0.0 });
        // Those of masked keys are clamped, and multiplied by zero.
        let most = s.splat(FACTOR_MAX);
        for (pair, factor) in factors.iter_mut().enumerate() {
            let mut scale = [s.zero(); 2];
            for (i, scale) in scale.iter_mut().enumerate() {
                if 2 * pair + i < count {
                    let own = s.load(&blocks.v_scale[(2 * pair + i) * heads.slots() + h]);
                    *scale = s.min(s.mul(own, inverse), most);
                }
            }
            s.store_u16(factor, s.to_u16(scale[0], scale[1]));
        }
        largest * (32768.0 / FACTOR_MAX)
    }

    /// `scores[r][j] = (q[r] . k[j]) * scale of key j` for `mr` queries, the least f32 for keys that take
    /// no part; raises `largest` to the largest of each lane. Row `r` of `q` starts at its vector
    /// `r * heads * width`.
    #[inline(always)]
    fn scores<S: Simd>(
        self,
        s: S,
        q: &[I8x16],
        mr: usize,
        scores: &mut [F32x16],
        largest: &mut [S::F],
    ) {
        let Self { heads, h, blocks, keys } = self;
        let (width, count) = (heads.width(), keys.count.div_ceil(BLOCK));
        let (stride, room) = (heads.count * width, count.next_multiple_of(2));
        assert!(q.len() >= (mr - 1) * stride + width);
        if count < room {
            for row in scores.chunks_exact_mut(room) {
                s.store(&mut row[count], s.splat(f32::MIN));
            }
        }
        let (steps, slots) = (width * 4, heads.slots());
        let mut j = 0;
        for (np, tiles) in panels_in_runs::<S>(count) {
            if tiles == 0 {
                continue;
            }
            with_tile!(few S, mr, np, |MR, NP| {
                let mut most = [s.zero(); MR];
                most.copy_from_slice(&largest[..MR]);
                for _ in 0..tiles {
                    let (mut start, mut scale) = ([s.splat_i32(0); NP], [s.zero(); NP]);
                    let (mut bias, limit) = ([s.zero(); NP], &keys.limit[j..][..NP]);
                    for p in 0..NP {
                        let slot = (j + p) * slots + h;
                        start[p] = s.load_i32(&blocks.k_compensation[slot]);
                        scale[p] = s.load(&blocks.k_scale[slot]);
                        // The least f32 absorbs whatever is added to it.
                        bias[p] = s.min(s.load(&limit[p]), s.zero());
                    }
                    // SAFETY: `q` holds `MR` rows of `steps` quads, `stride` vectors apart; `run`
                    // asserted that `k` holds `count` blocks of `slots` panels of `steps` vectors.
                    let acc = unsafe {
                        let tile = Tile {
                            rows: q.as_ptr().cast(),
                            row_stride: stride * 4,
                            panels: blocks.k.as_ptr().add((j * slots + h) * steps),
                            panel_stride: slots * steps,
                            steps,
                            arranged: false,
                            prefetch: [],
                        };
                        s.multiply_quads::<MR, NP, 0>([start; MR], tile)
                    };
                    let scores = rows_of::<MR, NP>(&mut scores[j..], room);
                    for (r, scores) in scores.into_iter().enumerate() {
                        for p in 0..NP {
                            let y = s.fma(s.to_f32(acc[r][p]), scale[p], bias[p]);
                            most[r] = s.max(most[r], y);
                            s.store(&mut scores[p], y);
                        }
                    }
                    j += NP;
                }
                largest[..MR].copy_from_slice(&most);
            });
        }
    }

    /// `context[r] = (sum over j of probabilities[r][j] * v[j]) * norms[r]` for `mr` queries.
    #[inline(always)]
    fn context<S: Simd>(
        self,
        s: S,
        mr: usize,
        norms: &[f32],
        probabilities: &[F32x16],
        context: &mut [F32x16],
    ) {
        let Self { heads, h, blocks, keys } = self;
        let (width, count) = (heads.width(), keys.count.div_ceil(BLOCK));
        let room = count.next_multiple_of(2);
        assert!(probabilities.len() >= mr * room);
        // Opaque, so that the tile's loop stays a loop: unrolled it would not fit the instruction cache.
        let steps = core::hint::black_box(BLOCK / 2);
        let mut i = 0;
        while i < width {
            let np = few_panels_at_once::<S>(width - i);
            with_tile!(few S, mr, np, |MR, NP| {
                let mut total = [[s.zero(); NP]; MR];
                for first in (0..count).step_by(KEYS_EXACT / BLOCK) {
                    let mut acc = [[s.splat_i32(0); NP]; MR];
                    for j in first..count.min(first + KEYS_EXACT / BLOCK) {
                        let pairs = j / 2 * 2 * BLOCK + j % 2 * 2;
                        // SAFETY: `probabilities` holds `MR` rows of `room` vectors, every other of
                        // them the eight pairs of each of two blocks; `run` asserted that `v` holds
                        // `count` blocks of `heads.slots()` heads of `width` panels of eight vectors.
                        acc = unsafe {
                            let panel = (j * heads.slots() + h) * width + i;
                            let tile = Tile {
                                rows: probabilities.as_ptr().cast::<[i16; 2]>().add(pairs),
                                row_stride: room * BLOCK,
                                panels: blocks.v.as_ptr().add(panel * steps),
                                panel_stride: steps,
                                steps,
                                arranged: false,
                                prefetch: [],
                            };
                            multiply::<S, Pairs, MR, NP, 0>(s, acc, tile)
                        };
                    }
                    for r in 0..MR {
                        for p in 0..NP {
                            total[r][p] = s.add(total[r][p], s.to_f32(acc[r][p]));
                        }
                    }
                }
                let out = rows_of::<MR, NP>(&mut context[h * width + i..], heads.count * width);
                let norms = &norms[..MR];
                for (r, out) in out.into_iter().enumerate() {
                    let norm = s.splat(norms[r]);
                    for p in 0..NP {
                        s.store(&mut out[p], s.mul(total[r][p], norm));
                    }
                }
            });
            i += np;
        }
    }
}

/// Exponentials of one query's scores: each pair of vectors becomes `exponentials * factors`, and the
/// exponentials. Returns sums of the exponentials, which are exact. A score's exponent in 4096ths is
/// `score * line[0] + line[1]`.
#[inline(always)]
fn exponentials_15bit<S: Simd>(
    s: S,
    scores: &mut [F32x16],
    line: [S::F; 2],
    factors: &[U16x32],
) -> S::I {
    let mut sum = s.splat_i32(0);
    for ([a, b], factor) in scores.as_chunks_mut().0.iter_mut().zip(factors) {
        let [x, y] = [s.fma(s.load(a), line[0], line[1]), s.fma(s.load(b), line[0], line[1])];
        let e = math::exp2_15bit(s, s.to_u16(x, y));
        sum = s.add_neighbours(sum, e);
        s.store_u16(U16x32::of_mut(a), s.mul_u15(e, s.load_u16(factor)));
        s.store_u16(U16x32::of_mut(b), e);
    }
    sum
}

/// Copies queries, keys and values into blocks.
pub(super) struct PackF32<'a, 'b> {
    /// `[rows][3 * heads * width]`.
    pub qkv: &'a [F32x16],
    pub heads: HeadShape,
    pub blocks: &'a mut F32Blocks<'b>,
}

impl Kernel for PackF32<'_, '_> {
    const NAME: &'static str = "pack_f32";
    const INTEGER: bool = false;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { qkv, heads, blocks } = self;
        let (width, part) = (heads.width(), heads.count * heads.width());
        assert!(part > 0 && qkv.len().is_multiple_of(3 * part));
        for (t, row) in qkv.chunks_exact(3 * part).enumerate() {
            let (b, lane) = (t / BLOCK, t % BLOCK);
            for h in 0..heads.count {
                let (slot, at) = (b * heads.slots() + h, h * width);
                let query = &row[at..][..width];
                blocks.q[(slot * BLOCK + lane) * width..][..width].copy_from_slice(query);
                let key = row[part + at..][..width].iter().flat_map(|v| &v.0);
                for (x, panel) in key.zip(&mut blocks.k[slot * heads.size..][..heads.size]) {
                    panel.0[lane] = *x;
                }
                let value = &row[2 * part + at..][..width];
                let panels = &mut blocks.v[slot * width * BLOCK..][..width * BLOCK];
                for (x, panel) in value.iter().zip(panels.as_chunks_mut::<BLOCK>().0) {
                    s.store(&mut panel[lane], s.load(x));
                }
            }
        }
    }
}

impl Kernel for Attend<'_, F32Blocks<'_>> {
    const NAME: &'static str = "attend_f32";
    const INTEGER: bool = false;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.check(self.blocks.k.len() / self.heads.size.max(1));
        let Self { heads, blocks, keys, rows, work, context, mut maps } = self;
        let (width, count) = (heads.width(), keys.count.div_ceil(BLOCK));
        assert!(blocks.q.len() >= rows.end.div_ceil(BLOCK) * heads.slots() * BLOCK * width);
        assert!(blocks.v.len() >= count * heads.slots() * width * BLOCK);
        let (scores, mut inverse) = (work.scores, F32x16::ZERO);
        for h in 0..heads.count {
            let head = F32Head { heads, h, blocks, keys };
            let mut t = rows.start;
            while t < rows.end {
                let (block, at, done) = (t / BLOCK, t % BLOCK, t - rows.start);
                let mr = few_rows_at_once((rows.end - t).min(BLOCK - at), S::ROWS);
                let first = ((block * heads.slots() + h) * BLOCK + at) * width;
                head.scores(s, &blocks.q[first..][..mr * width], mr, scores);
                for r in 0..mr {
                    let row = &mut scores[r * count..][..count];
                    let sum = exponentials(s, row, heads.temperature(), keys);
                    if let Some(maps) = maps.as_deref_mut() {
                        let at = ((done + r) * heads.count + h) * keys.count;
                        normalise(row.iter().flat_map(|v| v.0), sum, &mut maps[at..][..keys.count]);
                    }
                    inverse.0[r] = 1.0 / sum;
                }
                let context = &mut context[done * heads.count * width..];
                head.context(s, mr, scores, inverse, context);
                t += mr;
            }
        }
    }
}

/// One head of an input in f32.
#[derive(Clone, Copy)]
struct F32Head<'a> {
    heads: HeadShape,
    /// Its index.
    h: usize,
    blocks: &'a F32Blocks<'a>,
    keys: Keys<'a>,
}

impl F32Head<'_> {
    /// `scores[r][j] = q[r] . k[j]` for `mr` queries.
    #[inline(always)]
    fn scores<S: Simd>(self, s: S, q: &[F32x16], mr: usize, scores: &mut [F32x16]) {
        let Self { heads, h, blocks, keys } = self;
        let count = keys.count.div_ceil(BLOCK);
        let mut j = 0;
        while j < count {
            let np = few_panels_at_once::<S>(count - j);
            with_tile!(few S, mr, np, |MR, NP| {
                // SAFETY: `q` holds `MR` rows of at least `size` floats; `run` asserted that `k` holds
                // `count` blocks of `heads.slots()` panels of `size` vectors.
                let acc = unsafe {
                    let tile = Tile {
                        rows: q.as_ptr().cast(),
                        row_stride: heads.width() * 16,
                        panels: blocks.k.as_ptr().add((j * heads.slots() + h) * heads.size),
                        panel_stride: heads.slots() * heads.size,
                        steps: heads.size,
                        arranged: false,
                        prefetch: [],
                    };
                    multiply::<S, Singles, MR, NP, 0>(s, [[s.zero(); NP]; MR], tile)
                };
                for r in 0..MR {
                    for p in 0..NP {
                        s.store(&mut scores[r * count + j + p], acc[r][p]);
                    }
                }
            });
            j += np;
        }
    }

    /// `context[r] = (sum over j of e[r][j] * v[j]) * inverse[r]` for `mr` queries.
    #[inline(always)]
    fn context<S: Simd>(
        self,
        s: S,
        mr: usize,
        e: &[F32x16],
        inverse: F32x16,
        context: &mut [F32x16],
    ) {
        let Self { heads, h, blocks, keys: Keys { count: keys, .. } } = self;
        let (width, count) = (heads.width(), keys.div_ceil(BLOCK));
        let mut i = 0;
        while i < width {
            let np = few_panels_at_once::<S>(width - i);
            with_tile!(few S, mr, np, |MR, NP| {
                let mut acc = [[s.zero(); NP]; MR];
                for j in 0..count {
                    // SAFETY: `e` holds `MR` rows of `count` blocks of sixteen floats; `run` asserted
                    // that `v` holds `count` blocks of `heads.slots()` heads of `width` panels of
                    // sixteen vectors.
                    acc = unsafe {
                        let panel = (j * heads.slots() + h) * width + i;
                        let tile = Tile {
                            rows: e.as_ptr().add(j).cast(),
                            row_stride: count * BLOCK,
                            panels: blocks.v.as_ptr().add(panel * BLOCK),
                            panel_stride: BLOCK,
                            steps: BLOCK.min(keys - j * BLOCK),
                            arranged: false,
                            prefetch: [],
                        };
                        multiply::<S, Singles, MR, NP, 0>(s, acc, tile)
                    };
                }
                for r in 0..MR {
                    let scale = s.splat(inverse.0[r]);
                    let out = &mut context[(r * heads.count + h) * width + i..][..NP];
                    for p in 0..NP {
                        s.store(&mut out[p], s.mul(acc[r][p], scale));
                    }
                }
            });
            i += np;
        }
    }
}

/// `scores[j]` becomes `2^(c * (scores[j] - max))`, or 0 for masked keys; returns the sum.
///
/// The difference is multiplied, not `-c * max` added: rounding that product of huge scores would
/// leave exponents far above zero.
#[inline(always)]
fn exponentials<S: Simd>(s: S, scores: &mut [F32x16], c: f32, keys: Keys<'_>) -> f32 {
    let mut largest = s.splat(f32::MIN);
    for (x, limit) in scores.iter().zip(keys.limit) {
        largest = s.max(largest, s.min(s.load(x), s.load(limit)));
    }
    let (largest, c, mut sum) = (s.splat(s.largest(largest)), s.splat(c), s.zero());
    for (x, limit) in scores.iter_mut().zip(keys.limit) {
        let limit = s.load(limit);
        let e = math::exp2(s, s.mul(s.sub(s.min(s.load(x), limit), largest), c));
        let e = s.min(e, s.max(limit, s.zero()));
        sum = s.add(sum, e);
        s.store(x, e);
    }
    s.sum(sum)
}

/// `map[j] = e[j] / sum`.
fn normalise(e: impl Iterator<Item = f32>, sum: f32, map: &mut [f32]) {
    for (map, e) in map.iter_mut().zip(e) {
        *map = e / sum;
    }
}
