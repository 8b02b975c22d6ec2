//! Scaled dot-product attention ("Attention Is All You Need", 1706.03762, section 3.2), without ever
//! holding a `[tokens, tokens]` matrix: a few queries at a time meet all keys.
//!
//! Tokens are held in blocks of sixteen, all heads of a block together, so that blocks can be written
//! independently. A head's inputs are padded to a multiple of sixteen (`width` vectors).
//!
//! **Integers** ([`attend_int8`]): queries, keys and values are int8 with a scale a token and head.
//! Scores are exact i32, their exponentials and the sum of these integers of 15 bits. Probabilities
//! are the exponentials times the key's value scale, 15 bits again; their products with the values are
//! summed exactly in i32 over at most [`KEYS_EXACT`] keys, and such sums are added in f32.
//!
//! **Floats** ([`attend_f32`]): the same path in f32, every sum in ascending order of its index.

use super::lanes::{F32x16, I8x16, I8x64, I16x32, I32x16, Simd, U16x32};
use super::math;
use super::matmul::{
    Pairs, Singles, few_panels_at_once, few_rows_at_once, panels_in_runs, rows_of, tile, with_tile,
};
use super::rows::int8_scale;

/// Tokens of a block.
pub const BLOCK: usize = 16;

/// Keys whose 15-bit probabilities times int8 values are summed in one i32: 32,767 * 127 * 512 is
/// below 2^31.
pub const KEYS_EXACT: usize = 512;

/// The largest factor of 15 bits.
const FACTOR_MAX: f32 = 32767.0;

/// The largest magnitude that a query's largest exponent may have, in 4096ths.
const PEAK_MAX: f32 = (1u64 << 36) as f32;

/// The shape of a layer's heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// Number of heads.
    pub count: usize,
    /// Inputs of a head.
    pub size: usize,
}

impl HeadShape {
    /// Vectors of sixteen that a head is padded to.
    pub const fn width(self) -> usize {
        self.size.div_ceil(16)
    }
    /// Places that a block has, one a head. They are odd in number, lest the same head's places of all
    /// blocks fall on a few sets of the first-level cache.
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

/// Queries, keys and values of whole blocks in int8. Lengths are a block's.
pub struct Int8Blocks<Q, K, V, F, I> {
    /// `[16][heads][width]`, activations.
    pub q: Q,
    /// `[heads]`, a lane a token.
    pub q_scale: F,
    /// `[heads][width * 4]`: int8 panels whose channels are keys.
    pub k: K,
    /// `[heads]`, a lane a token.
    pub k_scale: F,
    /// `[heads]`, what each key's scores start from, so that the activations' offset cancels.
    pub k_start: I,
    /// `[heads][width][8]`: 16-bit panels whose steps are pairs of tokens.
    pub v: V,
    /// `[heads]`, a lane a token.
    pub v_scale: F,
}

/// [`Int8Blocks`] to write.
pub type Int8BlocksMut<'a> = Int8Blocks<
    &'a mut [I8x16],
    &'a mut [I8x64],
    &'a mut [I16x32],
    &'a mut [F32x16],
    &'a mut [I32x16],
>;
/// [`Int8Blocks`] to read.
pub type Int8BlocksRef<'a> =
    Int8Blocks<&'a [I8x16], &'a [I8x64], &'a [I16x32], &'a [F32x16], &'a [I32x16]>;

/// Queries, keys and values of whole blocks in f32. Lengths are a block's.
pub struct F32Blocks<F> {
    /// `[heads][16][width]`.
    pub q: F,
    /// `[heads][size]`: panels whose channels are keys.
    pub k: F,
    /// `[heads][width][16]`: panels whose steps are tokens.
    pub v: F,
}

impl<'a> Int8BlocksMut<'a> {
    /// The first `blocks` blocks, and the others.
    pub fn split_at(self, heads: HeadShape, blocks: usize) -> (Self, Self) {
        let (n, w) = (blocks * heads.slots(), heads.width());
        let (q, q2) = self.q.split_at_mut(blocks * BLOCK * heads.count * w);
        let (k, k2) = self.k.split_at_mut(n * w * 4);
        let (v, v2) = self.v.split_at_mut(n * w * 8);
        let (q_scale, q_scale2) = self.q_scale.split_at_mut(n);
        let (k_scale, k_scale2) = self.k_scale.split_at_mut(n);
        let (v_scale, v_scale2) = self.v_scale.split_at_mut(n);
        let (k_start, k_start2) = self.k_start.split_at_mut(n);
        (
            Self { q, q_scale, k, k_scale, k_start, v, v_scale },
            Self {
                q: q2,
                q_scale: q_scale2,
                k: k2,
                k_scale: k_scale2,
                k_start: k_start2,
                v: v2,
                v_scale: v_scale2,
            },
        )
    }
    /// The same blocks, borrowed again.
    pub fn reborrow(&mut self) -> Int8BlocksMut<'_> {
        Int8Blocks {
            q: self.q,
            q_scale: self.q_scale,
            k: self.k,
            k_scale: self.k_scale,
            k_start: self.k_start,
            v: self.v,
            v_scale: self.v_scale,
        }
    }
    /// The same blocks, to read.
    pub fn as_ref(&self) -> Int8BlocksRef<'_> {
        Int8Blocks {
            q: self.q,
            q_scale: self.q_scale,
            k: self.k,
            k_scale: self.k_scale,
            k_start: self.k_start,
            v: self.v,
            v_scale: self.v_scale,
        }
    }
}

impl F32Blocks<&mut [F32x16]> {
    /// The first `blocks` blocks, and the others.
    pub fn split_at(self, heads: HeadShape, blocks: usize) -> (Self, Self) {
        let (n, w) = (blocks * heads.slots(), heads.width());
        let (q, q2) = self.q.split_at_mut(n * BLOCK * w);
        let (k, k2) = self.k.split_at_mut(n * heads.size);
        let (v, v2) = self.v.split_at_mut(n * w * BLOCK);
        (Self { q, k, v }, Self { q: q2, k: k2, v: v2 })
    }
    /// The same blocks, borrowed again.
    pub fn reborrow(&mut self) -> F32Blocks<&mut [F32x16]> {
        F32Blocks { q: self.q, k: self.k, v: self.v }
    }
    /// The same blocks, to read.
    pub fn as_ref(&self) -> F32Blocks<&[F32x16]> {
        F32Blocks { q: self.q, k: self.k, v: self.v }
    }
}

/// What `attend_int8` and `attend_f32` work in: for `keys.count` rounded up to pairs of blocks.
pub struct Workspace<'a> {
    /// `[16][pairs][2]`: scores of some queries, then their exponentials or probabilities.
    pub scores: &'a mut [F32x16],
    /// `[pairs]`: what a key's exponential is multiplied by, in 15 bits.
    pub factors: &'a mut [U16x32],
}

/// Quantises the rows of `qkv`, `[rows][3 * heads * width]` vectors, into `blocks`. `buffer` holds
/// `[16][heads * width]`.
#[inline(always)]
pub(super) fn pack_int8<S: Simd>(
    s: S,
    qkv: &[F32x16],
    heads: HeadShape,
    blocks: Int8BlocksMut<'_>,
    buffer: &mut [I8x16],
) {
    let (width, part) = (heads.width(), heads.count * heads.width());
    assert!(part > 0 && qkv.len().is_multiple_of(3 * part));
    let (mut blocks, buffer) = (blocks, &mut buffer[..BLOCK * part]);
    for (b, rows) in qkv.chunks(BLOCK * 3 * part).enumerate() {
        // HeadShape of 32 with loops of known lengths.
        match width {
            2 if S::WIDE => quantise_block(s, rows, heads, 2, b, blocks.reborrow(), buffer),
            _ => quantise_block(s, rows, heads, width, b, blocks.reborrow(), buffer),
        }
        let first = b * heads.slots();
        let k = &mut blocks.k[first * width * 4..][..part * 4];
        pack_keys(s, buffer, part, k, &mut blocks.k_start[first..][..heads.count]);
    }
}

/// [`pack_int8`] of block `b`, but its keys go to `buffer`.
#[inline(always)]
fn quantise_block<S: Simd>(
    s: S,
    rows: &[F32x16],
    heads: HeadShape,
    width: usize,
    b: usize,
    blocks: Int8BlocksMut<'_>,
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
        // What stands past the last token must be neither a NaN nor stale: it is multiplied by zero.
        let (mut step, mut inverse) = ([[F32x16::ZERO; BLOCK]; 3], [[F32x16::ZERO; BLOCK]; 3]);
        for (few, rows) in rows.chunks(4 * 3 * part).enumerate() {
            // All scales first, so that none is waited for alone.
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

/// Lays the values of two tokens, one of which may be missing, out as pair `pair` of each panel.
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

/// The largest magnitudes of up to sixteen heads, a lane each.
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

/// Lays `[16][part]` vectors of keys out in panels, and notes what their scores start from, head by head.
#[inline(always)]
fn pack_keys<S: Simd>(
    s: S,
    rows: &[I8x16],
    part: usize,
    panels: &mut [I8x64],
    start: &mut [I32x16],
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
    let steps = panels.len() / start.len();
    for (panel, start) in panels.chunks_exact(steps).zip(start) {
        let mut sum = s.splat_i32(0);
        if S::OFFSET != 0 {
            for step in panel {
                sum = s.dot_quad(sum, s.quad([1; 4]), s.load_quads(step));
            }
        }
        s.store_i32(start, s.start(sum));
    }
}

/// Attention of `rows` tokens, the first of which starts block `b`, over all keys: `context` gets
/// `[rows][heads * width]` vectors. With `maps`, `[rows][heads][keys]` probabilities are written too.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
pub(super) fn attend_int8<S: Simd>(
    s: S,
    heads: HeadShape,
    blocks: Int8BlocksRef<'_>,
    b: usize,
    rows: usize,
    keys: Keys<'_>,
    work: Workspace<'_>,
    context: &mut [F32x16],
    mut maps: Option<&mut [f32]>,
) {
    let (width, count) = (heads.width(), keys.count.div_ceil(BLOCK));
    let part = heads.count * width;
    check(heads, rows, keys, &work, context, blocks.k_scale.len());
    assert!(blocks.q.len() >= (b * BLOCK + rows) * part);
    assert!(blocks.k.len() >= count * heads.slots() * width * 4);
    assert!(blocks.v.len() >= count * heads.slots() * width * 8);
    let room = count.next_multiple_of(2);
    let Workspace { scores, factors } = work;
    let factors = &mut factors[..room / 2];
    let temperature = s.splat(4096.0 * heads.temperature());
    for h in 0..heads.count {
        let scale = value_factors(s, heads, &blocks, h, keys, factors);
        for first in (0..rows).step_by(BLOCK) {
            let rows = BLOCK.min(rows - first);
            let mut largest = [s.splat(f32::MIN); BLOCK];
            let mut t = 0;
            while t < rows {
                let mr = few_rows_at_once(rows - t, S::ROWS);
                let q = &blocks.q[(b * BLOCK + first + t) * part + h * width..];
                let scores = &mut scores[t * room..][..mr * room];
                int8_scores(s, heads, q, &blocks, h, mr, keys, scores, &mut largest[t..][..mr]);
                t += mr;
            }
            // A lane a query: what turns a score into an exponent in 4096ths, the largest into 65,535.
            let (mut rates, mut starts) = (F32x16::ZERO, F32x16::ZERO);
            let peak = s.largest_of_each(largest);
            let q_scale = s.load(&blocks.q_scale[(b + first / BLOCK) * heads.slots() + h]);
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
                    let at = ((first + r) * heads.count + h) * keys.count;
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
                let context = &mut context[(first + t) * part..];
                int8_context(
                    s,
                    heads,
                    &blocks,
                    h,
                    mr,
                    count,
                    &norms.0[t..],
                    probabilities,
                    context,
                );
                t += mr;
            }
        }
    }
}

/// The promises that the unchecked tiles rest on, for both arithmetics.
fn check(
    heads: HeadShape,
    rows: usize,
    keys: Keys<'_>,
    work: &Workspace<'_>,
    context: &[F32x16],
    slots: usize,
) {
    let count = keys.count.div_ceil(BLOCK);
    assert!(rows > 0 && keys.count > 0 && keys.limit.len() >= count);
    assert!(slots >= count * heads.slots());
    let pairs = count.div_ceil(2);
    assert!(work.scores.len() >= BLOCK * 2 * pairs && work.factors.len() >= pairs);
    assert!(context.len() >= rows * heads.count * heads.width());
}

/// `factors[j] = 32767 * scale of value j / largest scale` in whole numbers; returns what their products
/// with 15-bit exponentials, divided by 2^15, are to be multiplied by.
#[inline(always)]
fn value_factors<S: Simd>(
    s: S,
    heads: HeadShape,
    blocks: &Int8BlocksRef<'_>,
    h: usize,
    keys: Keys<'_>,
    factors: &mut [U16x32],
) -> f32 {
    let count = keys.count.div_ceil(BLOCK);
    let mut largest = s.zero();
    for (j, limit) in keys.limit[..count].iter().enumerate() {
        let scale = s.load(&blocks.v_scale[j * heads.slots() + h]);
        largest = s.max(largest, s.min(scale, s.max(s.load(limit), s.zero())));
    }
    let largest = s.largest(largest);
    let inverse = s.splat(if largest > 0.0 { FACTOR_MAX / largest } else { 0.0 });
    // Those of masked keys are cut, and multiplied by zero.
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

/// `scores[r][j] = (q[r] . k[j]) * scale of key j`, the least f32 for keys that take no part; raises
/// `largest` to the largest of each lane. Row `r` of `q` starts at its vector `r * heads * width`.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn int8_scores<S: Simd>(
    s: S,
    heads: HeadShape,
    q: &[I8x16],
    blocks: &Int8BlocksRef<'_>,
    h: usize,
    mr: usize,
    keys: Keys<'_>,
    scores: &mut [F32x16],
    largest: &mut [S::F],
) {
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
                    start[p] = s.load_i32(&blocks.k_start[slot]);
                    scale[p] = s.load(&blocks.k_scale[slot]);
                    // The least f32 absorbs whatever is added to it.
                    bias[p] = s.min(s.load(&limit[p]), s.zero());
                }
                // SAFETY: `q` holds `MR` rows of `steps` quads, `stride` vectors apart; `attend_int8`
                // asserted that `k` holds `count` blocks of `slots` panels of `steps` vectors.
                let acc = unsafe {
                    let k = blocks.k.as_ptr().add((j * slots + h) * steps);
                    tile::<S, super::matmul::Quads, MR, NP, 0>(
                        s,
                        [start; MR],
                        q.as_ptr().cast(),
                        stride * 4,
                        k,
                        slots * steps,
                        steps,
                        [],
                    )
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

/// Exponentials of one query's scores: pairs of vectors become `exponentials * factors`, and the
/// exponentials. Returns sums of the exponentials, which are exact. `line` is what a score is multiplied
/// by, and what is then added, to give an exponent in 4096ths.
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

/// `context[r] = (sum over j of probabilities[r][j] * v[j]) * norms[r]`, one head.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn int8_context<S: Simd>(
    s: S,
    heads: HeadShape,
    blocks: &Int8BlocksRef<'_>,
    h: usize,
    mr: usize,
    count: usize,
    norms: &[f32],
    probabilities: &[F32x16],
    context: &mut [F32x16],
) {
    let (width, room) = (heads.width(), count.next_multiple_of(2));
    assert!(probabilities.len() >= mr * room);
    // Opaque, so that the tile's loop stays a loop: unrolled it would not fit the instruction cache.
    let steps = std::hint::black_box(BLOCK / 2);
    let mut i = 0;
    while i < width {
        let np = few_panels_at_once::<S>(width - i);
        with_tile!(few S, mr, np, |MR, NP| {
            let mut total = [[s.zero(); NP]; MR];
            for first in (0..count).step_by(KEYS_EXACT / BLOCK) {
                let mut acc = [[s.splat_i32(0); NP]; MR];
                for j in first..count.min(first + KEYS_EXACT / BLOCK) {
                    let pairs = j / 2 * 2 * BLOCK + j % 2 * 2;
                    // SAFETY: `probabilities` holds `MR` rows of `room` vectors, every other of them the
                    // eight pairs of each of two blocks; `attend_int8` asserted that `v` holds `count`
                    // blocks of `heads.slots()` heads of `width` panels of eight vectors.
                    acc = unsafe {
                        let v =
                            blocks.v.as_ptr().add(((j * heads.slots() + h) * width + i) * steps);
                        tile::<S, Pairs, MR, NP, 0>(
                            s,
                            acc,
                            probabilities.as_ptr().cast::<[i16; 2]>().add(pairs),
                            room * BLOCK,
                            v,
                            steps,
                            steps,
                            [],
                        )
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

/// Lays the rows of `qkv`, `[rows][3 * heads * width]` vectors, out in `blocks`.
#[inline(always)]
pub(super) fn pack_f32<S: Simd>(
    s: S,
    qkv: &[F32x16],
    heads: HeadShape,
    blocks: F32Blocks<&mut [F32x16]>,
) {
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

/// [`attend_int8`] in f32.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
pub(super) fn attend_f32<S: Simd>(
    s: S,
    heads: HeadShape,
    blocks: F32Blocks<&[F32x16]>,
    b: usize,
    rows: usize,
    keys: Keys<'_>,
    work: Workspace<'_>,
    context: &mut [F32x16],
    mut maps: Option<&mut [f32]>,
) {
    let (width, count) = (heads.width(), keys.count.div_ceil(BLOCK));
    check(heads, rows, keys, &work, context, blocks.k.len() / heads.size.max(1));
    assert!(blocks.q.len() >= (b + rows.div_ceil(BLOCK)) * heads.slots() * BLOCK * width);
    assert!(blocks.v.len() >= count * heads.slots() * width * BLOCK);
    let (scores, mut inverse) = (work.scores, F32x16::ZERO);
    for h in 0..heads.count {
        let mut t = 0;
        while t < rows {
            let (block, at) = (b + t / BLOCK, t % BLOCK);
            let mr = few_rows_at_once((rows - t).min(BLOCK - at), S::ROWS);
            let first = ((block * heads.slots() + h) * BLOCK + at) * width;
            let q = &blocks.q[first..][..mr * width];
            f32_scores(s, heads, q, blocks.k, h, mr, count, scores);
            for r in 0..mr {
                let row = &mut scores[r * count..][..count];
                let sum = exponentials(s, row, heads.temperature(), keys);
                if let Some(maps) = maps.as_deref_mut() {
                    let map = &mut maps[((t + r) * heads.count + h) * keys.count..][..keys.count];
                    normalise(row.iter().flat_map(|v| v.0), sum, map);
                }
                inverse.0[r] = 1.0 / sum;
            }
            f32_context(s, heads, blocks.v, h, mr, keys.count, scores, inverse, t, context);
            t += mr;
        }
    }
}

/// `scores[r][j] = q[r] . k[j]`.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn f32_scores<S: Simd>(
    s: S,
    heads: HeadShape,
    q: &[F32x16],
    k: &[F32x16],
    h: usize,
    mr: usize,
    count: usize,
    scores: &mut [F32x16],
) {
    let mut j = 0;
    while j < count {
        let np = few_panels_at_once::<S>(count - j);
        with_tile!(few S, mr, np, |MR, NP| {
            // SAFETY: `q` holds `MR` rows of at least `size` floats; `attend_f32` asserted that `k`
            // holds `count` blocks of `heads.slots()` panels of `size` vectors.
            let acc = unsafe {
                let k = k.as_ptr().add((j * heads.slots() + h) * heads.size);
                tile::<S, Singles, MR, NP, 0>(
                    s,
                    [[s.zero(); NP]; MR],
                    q.as_ptr().cast(),
                    heads.width() * 16,
                    k,
                    heads.slots() * heads.size,
                    heads.size,
                    [],
                )
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

/// `scores[j]` becomes `2^(c * (scores[j] - max))`, masked ones 0; returns the sum.
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

/// `context[t + r] = (sum over j of e[r][j] * v[j]) * inverse[r]`, one head.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn f32_context<S: Simd>(
    s: S,
    heads: HeadShape,
    v: &[F32x16],
    h: usize,
    mr: usize,
    keys: usize,
    e: &[F32x16],
    inverse: F32x16,
    t: usize,
    context: &mut [F32x16],
) {
    let (width, count) = (heads.width(), keys.div_ceil(BLOCK));
    let mut i = 0;
    while i < width {
        let np = few_panels_at_once::<S>(width - i);
        with_tile!(few S, mr, np, |MR, NP| {
            let mut acc = [[s.zero(); NP]; MR];
            for j in 0..count {
                // SAFETY: `e` holds `MR` rows of `count` blocks of sixteen floats; `attend_f32`
                // asserted that `v` holds `count` blocks of `heads.slots()` heads of `width` panels of
                // sixteen vectors.
                acc = unsafe {
                    let v = v.as_ptr().add(((j * heads.slots() + h) * width + i) * BLOCK);
                    tile::<S, Singles, MR, NP, 0>(
                        s,
                        acc,
                        e.as_ptr().add(j).cast(),
                        count * BLOCK,
                        v,
                        BLOCK,
                        BLOCK.min(keys - j * BLOCK),
                        [],
                    )
                };
            }
            for r in 0..MR {
                let scale = s.splat(inverse.0[r]);
                let out = &mut context[((t + r) * heads.count + h) * width + i..][..NP];
                for p in 0..NP {
                    s.store(&mut out[p], s.mul(acc[r][p], scale));
                }
            }
        });
        i += np;
    }
}
