//! Scaled dot-product attention ("Attention Is All You Need", 1706.03762, section 3.2), without ever
//! holding a `[tokens, tokens]` matrix: a few queries at a time meet all keys.
//!
//! Tokens are held in blocks of sixteen, all heads of a block together, so that blocks can be written
//! independently. A head's inputs are padded to a multiple of sixteen (`width` vectors).
//!
//! **Integers** ([`attend_int8`]): queries, keys and values are int8 with a scale a token and head.
//! Scores are exact i32. Probabilities are `e = 2^x` cut to 15 bits after the key's value scale has
//! been multiplied in; their products with the values are summed exactly in i32 over at most
//! [`KEYS_EXACT`] keys, and such sums are added in f32.
//!
//! **Floats** ([`attend_f32`]): the same path in f32, every sum in ascending order of its index.

use super::lanes::{F32x16, I8x16, I8x64, I16x32, I32x16, Simd};
use super::math;
use super::matmul::{Pairs, Singles, panels_at_once, rows_at_once, tile, with_tile};
use super::rows::int8_scale;

/// Tokens of a block.
pub const BLOCK: usize = 16;

/// Keys whose 15-bit probabilities times int8 values are summed in one i32: 32,767 * 127 * 512 is
/// below 2^31.
pub const KEYS_EXACT: usize = 512;

/// The largest 15-bit probability.
const PROBABILITY_MAX: f32 = 32767.0;

/// The shape of a layer's heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Number of heads.
    pub count: usize,
    /// Inputs of a head.
    pub size: usize,
}

impl Heads {
    /// Vectors of sixteen that a head is padded to.
    pub const fn width(self) -> usize {
        self.size.div_ceil(16)
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
    /// Whether any key before the end is masked.
    pub masked: bool,
}

impl Keys<'_> {
    /// Blocks at the front of which every key takes part.
    fn whole_blocks(&self) -> usize {
        if self.masked { 0 } else { self.count / BLOCK }
    }
}

/// Queries, keys and values of whole blocks in int8. Lengths are a block's.
pub struct Int8Blocks<Q, K, V, F, I> {
    /// `[heads][16][width]`, activations.
    pub q: Q,
    /// `[heads]`, a lane a token.
    pub q_scale: F,
    /// `[heads][width * 4]`: int8 panels whose channels are keys.
    pub k: K,
    /// `[heads]`, a lane a token.
    pub k_scale: F,
    /// `[heads]`, the sum of each key's values.
    pub k_sums: I,
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
    pub fn split_at(self, heads: Heads, blocks: usize) -> (Self, Self) {
        let (n, w) = (blocks * heads.count, heads.width());
        let (q, q2) = self.q.split_at_mut(n * BLOCK * w);
        let (k, k2) = self.k.split_at_mut(n * w * 4);
        let (v, v2) = self.v.split_at_mut(n * w * 8);
        let (q_scale, q_scale2) = self.q_scale.split_at_mut(n);
        let (k_scale, k_scale2) = self.k_scale.split_at_mut(n);
        let (v_scale, v_scale2) = self.v_scale.split_at_mut(n);
        let (k_sums, k_sums2) = self.k_sums.split_at_mut(n);
        (
            Self { q, q_scale, k, k_scale, k_sums, v, v_scale },
            Self {
                q: q2,
                q_scale: q_scale2,
                k: k2,
                k_scale: k_scale2,
                k_sums: k_sums2,
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
            k_sums: self.k_sums,
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
            k_sums: self.k_sums,
            v: self.v,
            v_scale: self.v_scale,
        }
    }
}

impl F32Blocks<&mut [F32x16]> {
    /// The first `blocks` blocks, and the others.
    pub fn split_at(self, heads: Heads, blocks: usize) -> (Self, Self) {
        let (n, w) = (blocks * heads.count, heads.width());
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

/// What `attend_int8` and `attend_f32` work in: for `keys.count` rounded up to blocks.
pub struct Workspace<'a> {
    /// `[16][blocks]`: scores, then exponentials, of some queries.
    pub scores: &'a mut [F32x16],
    /// `[16][blocks]`: 15-bit probabilities of some queries.
    pub probabilities: &'a mut [[i16; 16]],
    /// `[blocks]`: what a key's exponential is multiplied by.
    pub factors: &'a mut [F32x16],
}

/// Quantises the rows of `qkv`, `[rows][3 * heads * width]` vectors, into `blocks`.
#[inline(always)]
pub(super) fn pack_int8<S: Simd>(s: S, qkv: &[F32x16], heads: Heads, blocks: Int8BlocksMut<'_>) {
    let (width, part) = (heads.width(), heads.count * heads.width());
    assert!(part > 0 && qkv.len().is_multiple_of(3 * part));
    for (t, row) in qkv.chunks_exact(3 * part).enumerate() {
        let (b, lane) = (t / BLOCK, t % BLOCK);
        let (queries, rest) = row.split_at(part);
        let (keys, values) = rest.split_at(part);
        // Sixteen heads at a time, so that their scales are one vector.
        for first in (0..heads.count).step_by(16) {
            let count = (heads.count - first).min(16);
            let slots = b * heads.count + first..b * heads.count + first + count;
            let from = first * width..(first + count) * width;
            let q_inverse =
                scales(s, &queries[from.clone()], width, &mut blocks.q_scale[slots.clone()], lane);
            let k_inverse =
                scales(s, &keys[from.clone()], width, &mut blocks.k_scale[slots.clone()], lane);
            let v_inverse =
                scales(s, &values[from.clone()], width, &mut blocks.v_scale[slots.clone()], lane);
            for (i, slot) in slots.enumerate() {
                let at = (first + i) * width;
                let inverse = s.splat(q_inverse.0[i]);
                let q = &mut blocks.q[(slot * BLOCK + lane) * width..][..width];
                for (x, q) in queries[at..][..width].iter().zip(q) {
                    s.store_activation(q, s.to_i32(s.mul(s.load(x), inverse)));
                }

                let inverse = s.splat(k_inverse.0[i]);
                let panel = &mut blocks.k[slot * width * 4..][..width * 4];
                let mut sum = s.zero();
                for (x, panel) in keys[at..][..width].iter().zip(panel.as_chunks_mut::<4>().0) {
                    let v = s.round(s.mul(s.load(x), inverse));
                    sum = s.add(sum, v);
                    let mut bytes = I8x16([0; 16]);
                    s.store_i8(&mut bytes, s.to_i32(v));
                    for (step, bytes) in panel.iter_mut().zip(bytes.0.as_chunks::<4>().0) {
                        step.0.as_chunks_mut::<4>().0[lane] = *bytes;
                    }
                }
                if S::OFFSET != 0 {
                    // Exact: whole numbers far below 2^24.
                    blocks.k_sums[slot].0[lane] = s.sum(sum) as i32;
                }

                let inverse = s.splat(v_inverse.0[i]);
                let panels = &mut blocks.v[slot * width * 8..][..width * 8];
                for (x, panel) in values[at..][..width].iter().zip(panels.as_chunks_mut::<8>().0) {
                    let v = s.to_i32(s.mul(s.load(x), inverse));
                    let pair = I32x16::of_pairs_mut(&mut panel[lane / 2]);
                    let both = if lane.is_multiple_of(2) {
                        s.interleave(v, s.splat_i32(0))
                    } else {
                        s.interleave(s.load_i32(pair), v)
                    };
                    s.store_i32(pair, both);
                }
            }
        }
    }
    // What stands past the last token must not be a NaN or stale: it is multiplied by zero.
    let rows = qkv.len() / (3 * part);
    if !rows.is_multiple_of(BLOCK) {
        let last = rows / BLOCK * heads.count..(rows / BLOCK + 1) * heads.count;
        for scale in [&mut blocks.k_scale[last.clone()], &mut blocks.v_scale[last]] {
            for lanes in scale {
                lanes.0[rows % BLOCK..].fill(0.0);
            }
        }
    }
}

/// Writes the int8 scales of up to sixteen heads into their lanes, and returns the inverses.
#[inline(always)]
fn scales<S: Simd>(s: S, x: &[F32x16], width: usize, scale: &mut [F32x16], lane: usize) -> F32x16 {
    let mut largest = F32x16::ZERO;
    for (x, out) in x.chunks_exact(width).zip(&mut largest.0) {
        let mut most = s.zero();
        for x in x {
            most = s.max(most, s.abs(s.load(x)));
        }
        *out = s.largest(most);
    }
    let (mut step, mut inverse) = (F32x16::ZERO, F32x16::ZERO);
    let (a, b) = int8_scale(s, s.load(&largest));
    s.store(&mut step, a);
    s.store(&mut inverse, b);
    for (scale, step) in scale.iter_mut().zip(step.0) {
        scale.0[lane] = step;
    }
    inverse
}

/// Attention of the queries of block `b` (its first `rows` tokens) over all keys: `context` gets
/// `[rows][heads * width]` vectors. With `maps`, `[rows][heads][keys]` probabilities are written too.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
pub(super) fn attend_int8<S: Simd>(
    s: S,
    heads: Heads,
    blocks: Int8BlocksRef<'_>,
    b: usize,
    rows: usize,
    keys: Keys<'_>,
    work: Workspace<'_>,
    context: &mut [F32x16],
    mut maps: Option<&mut [f32]>,
) {
    let (width, count) = (heads.width(), keys.count.div_ceil(BLOCK));
    check(heads, rows, keys, &work, context, blocks.k_scale.len());
    assert!(blocks.q.len() >= (b + 1) * heads.count * BLOCK * width);
    assert!(blocks.k.len() >= count * heads.count * width * 4);
    assert!(blocks.v.len() >= count * heads.count * width * 8);
    let Workspace { scores, probabilities, factors } = work;
    let factors = &mut factors[..count];
    let temperature = heads.temperature();
    for h in 0..heads.count {
        let slot = b * heads.count + h;
        let scale = value_factors(s, heads, &blocks, h, keys, factors);
        let mut t = 0;
        while t < rows {
            let mr = rows_at_once(rows, t, S::ROWS);
            let q = &blocks.q[(slot * BLOCK + t) * width..][..mr * width];
            int8_scores(s, heads, q, &blocks, h, mr, count, scores);
            for r in 0..mr {
                let c = blocks.q_scale[slot].0[t + r] * temperature;
                let row = &mut scores[r * count..][..count];
                let out = &mut probabilities[r * count..][..count];
                let sum = exponentials_15bit(s, row, c, keys, factors, out, maps.is_some());
                if let Some(maps) = maps.as_deref_mut() {
                    let map = &mut maps[((t + r) * heads.count + h) * keys.count..][..keys.count];
                    normalise(row, sum, map);
                }
                scores[r * count].0[0] = scale / sum;
            }
            int8_context(s, heads, &blocks, h, mr, count, scores, probabilities, t, context);
            t += mr;
        }
    }
}

/// The promises that the unchecked tiles rest on, for both arithmetics.
fn check(
    heads: Heads,
    rows: usize,
    keys: Keys<'_>,
    work: &Workspace<'_>,
    context: &[F32x16],
    slots: usize,
) {
    let count = keys.count.div_ceil(BLOCK);
    assert!(0 < rows && rows <= BLOCK && keys.count > 0 && keys.limit.len() >= count);
    assert!(slots >= count * heads.count);
    assert!(work.scores.len() >= BLOCK * count && work.probabilities.len() >= BLOCK * count);
    assert!(work.factors.len() >= count && context.len() >= rows * heads.count * heads.width());
}

/// `factors[j] = 32767 * scale of value j / largest scale`, and the largest scale divided by 32767.
#[inline(always)]
fn value_factors<S: Simd>(
    s: S,
    heads: Heads,
    blocks: &Int8BlocksRef<'_>,
    h: usize,
    keys: Keys<'_>,
    factors: &mut [F32x16],
) -> f32 {
    let mut largest = s.zero();
    for (j, limit) in (0..factors.len()).zip(keys.limit) {
        let scale = s.load(&blocks.v_scale[j * heads.count + h]);
        let scale = s.min(scale, s.max(s.load(limit), s.zero()));
        largest = s.max(largest, scale);
        s.store(&mut factors[j], scale);
    }
    let largest = s.largest(largest);
    let inverse = if largest > 0.0 { PROBABILITY_MAX / largest } else { 0.0 };
    for factor in factors {
        s.store(factor, s.mul(s.load(factor), s.splat(inverse)));
    }
    largest / PROBABILITY_MAX
}

/// `scores[r][j] = (q[r] . k[j]) * scale of key j`.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn int8_scores<S: Simd>(
    s: S,
    heads: Heads,
    q: &[I8x16],
    blocks: &Int8BlocksRef<'_>,
    h: usize,
    mr: usize,
    count: usize,
    scores: &mut [F32x16],
) {
    let mut j = 0;
    while j < count {
        let np = panels_at_once::<S>(mr, count - j);
        with_tile!(S, mr, np, |MR, NP| {
            let slot = |p: usize| (j + p) * heads.count + h;
            let steps = heads.width() * 4;
            let mut start = [s.splat_i32(0); NP];
            for p in 0..NP {
                start[p] = s.start(&blocks.k_sums[slot(p)]);
            }
            // SAFETY: `q` holds `MR` rows of `steps` quads; `attend_int8` asserted that `k` holds
            // `count` blocks of `heads.count` panels of `steps` vectors.
            let acc = unsafe {
                tile::<S, super::matmul::Quads, MR, NP>(
                    s,
                    [start; MR],
                    q.as_ptr().cast(),
                    steps,
                    blocks.k.as_ptr().add(slot(0) * steps),
                    heads.count * steps,
                    steps,
                )
            };
            for r in 0..MR {
                for p in 0..NP {
                    let y = s.mul(s.to_f32(acc[r][p]), s.load(&blocks.k_scale[slot(p)]));
                    s.store(&mut scores[r * count + j + p], y);
                }
            }
        });
        j += np;
    }
}

/// For `e[j] = 2^(c * (scores[j] - max))`: writes `round(e[j] * factors[j])`, clamped to i16, and
/// returns the sum of `e`. Masked keys have `e = 0`. With `keep`, `scores` becomes `e`.
#[inline(always)]
fn exponentials_15bit<S: Simd>(
    s: S,
    scores: &mut [F32x16],
    c: f32,
    keys: Keys<'_>,
    factors: &[F32x16],
    out: &mut [[i16; 16]],
    keep: bool,
) -> f32 {
    let (c, largest) = exponent(s, scores, c, keys);
    let mut sum = s.zero();
    // Whole pairs of blocks first, which need no limits.
    let pairs = if keep { 0 } else { keys.whole_blocks() / 2 };
    let (x2, x) = scores.split_at_mut(2 * pairs);
    let (factors2, factors) = factors.split_at(2 * pairs);
    let (out2, out) = out.split_at_mut(2 * pairs);
    let twos = out2.as_chunks_mut::<2>().0.iter_mut();
    for ((x, factor), out) in
        x2.as_chunks::<2>().0.iter().zip(factors2.as_chunks::<2>().0).zip(twos)
    {
        let a = math::exp2_15bit(s, s.mul(s.sub(s.load(&x[0]), largest), c));
        let b = math::exp2_15bit(s, s.mul(s.sub(s.load(&x[1]), largest), c));
        sum = s.add(s.add(sum, a), b);
        let a = s.to_i32(s.mul(a, s.load(&factor[0])));
        let b = s.to_i32(s.mul(b, s.load(&factor[1])));
        s.store_i16_twice(out, a, b);
    }
    for (((x, factor), out), limit) in
        x.iter_mut().zip(factors).zip(out).zip(&keys.limit[2 * pairs..])
    {
        let mut e = math::exp2_15bit(s, s.mul(s.sub(s.load(x), largest), c));
        e = s.min(e, s.max(s.load(limit), s.zero()));
        sum = s.add(sum, e);
        s.store_i16(out, s.to_i32(s.mul(e, s.load(factor))));
        if keep {
            s.store(x, e);
        }
    }
    s.sum(sum)
}

/// `c` and the largest score of the keys that take part, in every lane; masked scores become the
/// least f32.
///
/// The difference is multiplied, not `-c * max` added: rounding that product of huge scores would
/// leave exponents far above zero.
#[inline(always)]
fn exponent<S: Simd>(s: S, scores: &mut [F32x16], c: f32, keys: Keys<'_>) -> (S::F, S::F) {
    let mut largest = s.splat(f32::MIN);
    let (whole, rest) = scores.split_at_mut(keys.whole_blocks());
    for x in whole.iter() {
        largest = s.max(largest, s.load(x));
    }
    for (x, limit) in rest.iter_mut().zip(&keys.limit[whole.len()..]) {
        let v = s.min(s.load(x), s.load(limit));
        s.store(x, v);
        largest = s.max(largest, v);
    }
    (s.splat(c), s.splat(s.largest(largest)))
}

/// `map[j] = e[j] / sum`.
fn normalise(e: &[F32x16], sum: f32, map: &mut [f32]) {
    for (map, e) in map.iter_mut().zip(e.iter().flat_map(|v| &v.0)) {
        *map = e / sum;
    }
}

/// `context[t + r] = (sum over j of probabilities[r][j] * v[j]) * scores[r][0]`, one head.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn int8_context<S: Simd>(
    s: S,
    heads: Heads,
    blocks: &Int8BlocksRef<'_>,
    h: usize,
    mr: usize,
    count: usize,
    scores: &[F32x16],
    probabilities: &[[i16; 16]],
    t: usize,
    context: &mut [F32x16],
) {
    let width = heads.width();
    // Opaque, so that the tile's loop stays a loop: unrolled it would not fit the instruction cache.
    let steps = std::hint::black_box(BLOCK / 2);
    let mut i = 0;
    while i < width {
        let np = panels_at_once::<S>(mr, width - i);
        with_tile!(S, mr, np, |MR, NP| {
            let mut total = [[s.zero(); NP]; MR];
            for first in (0..count).step_by(KEYS_EXACT / BLOCK) {
                let mut acc = [[s.splat_i32(0); NP]; MR];
                for j in first..count.min(first + KEYS_EXACT / BLOCK) {
                    // SAFETY: `probabilities` holds `MR` rows of `count` blocks of eight pairs;
                    // `attend_int8` asserted that `v` holds `count` blocks of `heads.count` heads of
                    // `width` panels of eight vectors.
                    acc = unsafe {
                        tile::<S, Pairs, MR, NP>(
                            s,
                            acc,
                            probabilities.as_ptr().add(j).cast(),
                            count * BLOCK / 2,
                            blocks.v.as_ptr().add(((j * heads.count + h) * width + i) * steps),
                            steps,
                            steps,
                        )
                    };
                }
                for r in 0..MR {
                    for p in 0..NP {
                        total[r][p] = s.add(total[r][p], s.to_f32(acc[r][p]));
                    }
                }
            }
            for r in 0..MR {
                let scale = s.splat(scores[r * count].0[0]);
                let out = &mut context[((t + r) * heads.count + h) * width + i..][..NP];
                for p in 0..NP {
                    s.store(&mut out[p], s.mul(total[r][p], scale));
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
    heads: Heads,
    blocks: F32Blocks<&mut [F32x16]>,
) {
    let (width, part) = (heads.width(), heads.count * heads.width());
    assert!(part > 0 && qkv.len().is_multiple_of(3 * part));
    for (t, row) in qkv.chunks_exact(3 * part).enumerate() {
        let (b, lane) = (t / BLOCK, t % BLOCK);
        for h in 0..heads.count {
            let (slot, at) = (b * heads.count + h, h * width);
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
    heads: Heads,
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
    assert!(blocks.q.len() >= (b + 1) * heads.count * BLOCK * width);
    assert!(blocks.v.len() >= count * heads.count * width * BLOCK);
    let (scores, sums) = (work.scores, work.factors);
    for h in 0..heads.count {
        let mut t = 0;
        while t < rows {
            let mr = rows_at_once(rows, t, S::ROWS);
            let first = ((b * heads.count + h) * BLOCK + t) * width;
            let q = &blocks.q[first..][..mr * width];
            f32_scores(s, heads, q, blocks.k, h, mr, count, scores);
            for r in 0..mr {
                let row = &mut scores[r * count..][..count];
                let sum = exponentials(s, row, heads.temperature(), keys);
                if let Some(maps) = maps.as_deref_mut() {
                    let map = &mut maps[((t + r) * heads.count + h) * keys.count..][..keys.count];
                    normalise(row, sum, map);
                }
                sums[0].0[r] = 1.0 / sum;
            }
            f32_context(s, heads, blocks.v, h, mr, keys.count, scores, sums[0], t, context);
            t += mr;
        }
    }
}

/// `scores[r][j] = q[r] . k[j]`.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn f32_scores<S: Simd>(
    s: S,
    heads: Heads,
    q: &[F32x16],
    k: &[F32x16],
    h: usize,
    mr: usize,
    count: usize,
    scores: &mut [F32x16],
) {
    let mut j = 0;
    while j < count {
        let np = panels_at_once::<S>(mr, count - j);
        with_tile!(S, mr, np, |MR, NP| {
            // SAFETY: `q` holds `MR` rows of at least `size` floats; `attend_f32` asserted that `k`
            // holds `count` blocks of `heads.count` panels of `size` vectors.
            let acc = unsafe {
                tile::<S, Singles, MR, NP>(
                    s,
                    [[s.zero(); NP]; MR],
                    q.as_ptr().cast(),
                    heads.width() * 16,
                    k.as_ptr().add((j * heads.count + h) * heads.size),
                    heads.count * heads.size,
                    heads.size,
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
#[inline(always)]
fn exponentials<S: Simd>(s: S, scores: &mut [F32x16], c: f32, keys: Keys<'_>) -> f32 {
    let (c, largest) = exponent(s, scores, c, keys);
    let mut sum = s.zero();
    for (x, limit) in scores.iter_mut().zip(keys.limit) {
        let e = math::exp2(s, s.mul(s.sub(s.load(x), largest), c));
        let e = s.min(e, s.max(s.load(limit), s.zero()));
        sum = s.add(sum, e);
        s.store(x, e);
    }
    s.sum(sum)
}

/// `context[t + r] = (sum over j of e[r][j] * v[j]) * inverse[r]`, one head.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn f32_context<S: Simd>(
    s: S,
    heads: Heads,
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
        let np = panels_at_once::<S>(mr, width - i);
        with_tile!(S, mr, np, |MR, NP| {
            let mut acc = [[s.zero(); NP]; MR];
            for j in 0..count {
                // SAFETY: `e` holds `MR` rows of `count` blocks of sixteen floats; `attend_f32`
                // asserted that `v` holds `count` blocks of `heads.count` heads of `width` panels of
                // sixteen vectors.
                acc = unsafe {
                    tile::<S, Singles, MR, NP>(
                        s,
                        acc,
                        e.as_ptr().add(j).cast(),
                        count * BLOCK,
                        v.as_ptr().add(((j * heads.count + h) * width + i) * BLOCK),
                        BLOCK,
                        BLOCK.min(keys - j * BLOCK),
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
