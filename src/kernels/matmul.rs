//! Matrix products: `out[t][n] = sum over k of x[t][k] * w[n][k]`, with scales and biases.
//!
//! One register tile serves all of them: a few rows of `x` by a few panels of sixteen outputs. Every
//! lane is one output, and `k` ascends. What one step multiplies is a [`Step`]: four int8, two int16,
//! one f32, or one f16.

use core::hint::black_box;

use super::Kernel;
use super::lanes::{F16x16, F32x16, I8x16, I8x64, I16x32, I32x16, Simd};

/// An int8 matrix `[outputs, inputs]` in panels, quantised with one scale per output.
#[derive(Clone, Copy, Debug)]
pub struct Int8Matrix<'a> {
    /// `[outputs / 16][inputs / 4]`, both rounded up (inputs to a multiple of 16).
    pub panels: &'a [I8x64],
    /// `[outputs / 16]`: the scale of each output.
    pub scale: &'a [F32x16],
    /// `[outputs / 16]`: what is added to each output.
    pub bias: &'a [F32x16],
    /// `[outputs / 16]`: the sum over the inputs of each output's weights.
    pub sums: &'a [I32x16],
    /// Steps per panel, of four inputs each.
    pub steps: usize,
}

/// A matrix `[outputs, inputs]` of f32 ([`F32x16`]) or f16 ([`F16x16`]) in panels.
#[derive(Debug)]
pub struct FloatMatrix<'a, W> {
    /// `[outputs / 16][inputs]`, outputs rounded up.
    pub panels: &'a [W],
    /// `[outputs / 16]`: what is added to each output.
    pub bias: &'a [F32x16],
    /// Steps per panel, of one input each.
    pub steps: usize,
}

impl<W> Clone for FloatMatrix<'_, W> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<W> Copy for FloatMatrix<'_, W> {}

/// Quantised rows: what [`super::Kernels::quantize`] writes.
#[derive(Clone, Copy, Debug)]
pub struct Int8Rows<'a> {
    /// `[rows][width]`.
    pub values: &'a [I8x16],
    /// `[rows]`: `x = scale * q`.
    pub scale: &'a [f32],
    /// Vectors of sixteen per row.
    pub width: usize,
}

/// What one step of a tile multiplies: `Factor` of one row by a vector of weights.
pub(super) trait Step<S: Simd>: Copy {
    /// One step's factors of one row, as they are stored.
    type Factor: Copy;
    /// One step's weights of sixteen outputs.
    type Weights;
    type Broadcast: Copy;
    type Acc: Copy;
    /// Decoded weights, shared by the rows of a tile.
    type Loaded: Copy;
    /// The index of the factor of step `k` among those of its row.
    #[inline(always)]
    fn place(k: usize) -> usize {
        k
    }
    /// Whether decoding weights costs so much that a tile should have more rows and fewer panels.
    const TALL: bool = false;
    fn broadcast(s: S, a: Self::Factor) -> Self::Broadcast;
    fn load(s: S, w: &Self::Weights) -> Self::Loaded;
    fn step(s: S, acc: Self::Acc, a: Self::Broadcast, w: Self::Loaded) -> Self::Acc;
}

/// Four int8 inputs.
#[derive(Clone, Copy)]
pub(super) struct Quads;
impl<S: Simd> Step<S> for Quads {
    type Factor = [i8; 4];
    type Weights = I8x64;
    type Broadcast = S::Quad;
    type Acc = S::I;
    type Loaded = S::Quads;
    #[inline(always)]
    fn broadcast(s: S, a: [i8; 4]) -> S::Quad {
        s.quad(a)
    }
    #[inline(always)]
    fn load(s: S, w: &I8x64) -> S::Quads {
        s.load_quads(w)
    }
    #[inline(always)]
    fn step(s: S, acc: S::I, a: S::Quad, w: S::Quads) -> S::I {
        s.dot_quad(acc, a, w)
    }
}

/// Two int16 inputs, in the order of [`Simd::to_u16`]: two factors, then two of another panel.
#[derive(Clone, Copy)]
pub(super) struct Pairs;
impl<S: Simd> Step<S> for Pairs {
    type Factor = [i16; 2];
    type Weights = I16x32;
    type Broadcast = S::Pair;
    type Acc = S::I;
    type Loaded = S::Pairs;
    #[inline(always)]
    fn place(k: usize) -> usize {
        k / 2 * 4 + k % 2
    }
    #[inline(always)]
    fn broadcast(s: S, a: [i16; 2]) -> S::Pair {
        s.pair(a)
    }
    #[inline(always)]
    fn load(s: S, w: &I16x32) -> S::Pairs {
        s.load_pairs(w)
    }
    #[inline(always)]
    fn step(s: S, acc: S::I, a: S::Pair, w: S::Pairs) -> S::I {
        s.dot_pair(acc, a, w)
    }
}

/// One f32 input.
#[derive(Clone, Copy)]
pub(super) struct Singles;
impl<S: Simd> Step<S> for Singles {
    type Factor = f32;
    type Weights = F32x16;
    type Broadcast = S::F;
    type Acc = S::F;
    type Loaded = S::F;
    #[inline(always)]
    fn broadcast(s: S, a: f32) -> S::F {
        s.splat(a)
    }
    #[inline(always)]
    fn load(s: S, w: &F32x16) -> S::F {
        s.load(w)
    }
    #[inline(always)]
    fn step(s: S, acc: S::F, a: S::F, w: S::F) -> S::F {
        s.fma(a, w, acc)
    }
}

/// One f32 input by f16 weights.
#[derive(Clone, Copy)]
pub(super) struct Halves;
impl<S: Simd> Step<S> for Halves {
    type Factor = f32;
    type Weights = F16x16;
    type Broadcast = S::F;
    type Acc = S::F;
    type Loaded = S::F;
    const TALL: bool = S::WIDE;
    #[inline(always)]
    fn broadcast(s: S, a: f32) -> S::F {
        s.splat(a)
    }
    #[inline(always)]
    fn load(s: S, w: &F16x16) -> S::F {
        s.load_f16(w)
    }
    #[inline(always)]
    fn step(s: S, acc: S::F, a: S::F, w: S::F) -> S::F {
        s.fma(a, w, acc)
    }
}

/// Weights that a tile prefetches while it multiplies, so that they arrive from the outer caches
/// during the products: at step `k` the cache line at `start + k * stride` bytes.
pub(super) struct Prefetch<W> {
    start: *const W,
    stride: usize,
}

impl<W> Prefetch<W> {
    /// The share of tile `tile` of `tiles` in the weights that start at `next`: `steps * lines` vectors for all
    /// tiles together. With fewer tiles than `lines` it would skip cache lines.
    fn share(next: *const W, lines: usize, steps: usize, tile: usize, tiles: usize) -> Self {
        let stride = (lines * size_of::<W>()).div_ceil(tiles);
        Self { start: next.wrapping_byte_add(tile * steps * stride), stride }
    }

    /// The tile's share in each of the panels that follow its own `NP`. A tile without others prefetches its
    /// own weights, some steps ahead.
    fn shares<const NP: usize>(
        own: *const W,
        steps: usize,
        tile: usize,
        tiles: usize,
    ) -> [Self; NP] {
        let next = own.wrapping_add(if tiles == 1 { 24 } else { NP * steps });
        core::array::from_fn(|p| Self::share(next.wrapping_add(p * steps), 1, steps, tile, tiles))
    }
}

/// What a tile multiplies: rows of factors of type `F` by panels of weights of type `W`.
pub(super) struct Tile<F, W, const A: usize> {
    /// The first row, of any alignment, with factors at the [`Step::place`]s of all steps.
    pub rows: *const F,
    /// Distance between rows, in factors.
    pub row_stride: usize,
    /// The first panel, of one vector of weights per step.
    pub panels: *const W,
    /// Distance between panels, in vectors.
    pub panel_stride: usize,
    pub steps: usize,
    /// Whether [`Simd::arrange`] wrote the panel, the only one.
    pub arranged: bool,
    /// What to prefetch meanwhile; the addresses need not be valid.
    pub prefetch: [Prefetch<W>; A],
}

/// Adds the products of a tile to `acc`, `MR` rows by `NP` panels.
///
/// # Safety
/// `tile` describes `MR` rows and `NP` panels that exist, with all of their steps.
#[inline(always)]
pub(super) unsafe fn multiply<S, T, const MR: usize, const NP: usize, const A: usize>(
    s: S,
    mut acc: [[T::Acc; NP]; MR],
    tile: Tile<T::Factor, T::Weights, A>,
) -> [[T::Acc; NP]; MR]
where
    S: Simd,
    T: Step<S>,
{
    let Tile { rows, row_stride, panels, panel_stride, steps, arranged, prefetch } = tile;
    debug_assert!(!arranged, "the instruction set that arranges panels multiplies them itself");
    for k in 0..steps {
        for prefetch in &prefetch {
            s.prefetch(prefetch.start.wrapping_byte_add(k * prefetch.stride));
        }
        // SAFETY: `k < steps`, and panel `p < NP` and row `r < MR` exist as the caller guarantees.
        unsafe {
            let mut loaded = [T::load(s, &*panels.add(k)); NP];
            for p in 1..NP {
                loaded[p] = T::load(s, &*panels.add(p * panel_stride + k));
            }
            for r in 0..MR {
                let factor = rows.add(r * row_stride + T::place(k)).read_unaligned();
                let factor = T::broadcast(s, factor);
                for p in 0..NP {
                    acc[r][p] = T::step(s, acc[r][p], factor, loaded[p]);
                }
            }
        }
    }
    acc
}

/// Runs `$body` with the constants `$mr`, `$np` for a tile of `rows` by `panels`. The numbers are those that
/// [`rows_at_once`] and [`panels_at_once`] give; with `few`, [`few_rows_at_once`] and
/// [`few_panels_at_once`]; with `tall`, up to twelve rows by two panels.
///
/// Every shape of tile is compiled separately. int8 products have all useful shapes, others fewer.
macro_rules! with_tile {
    ($s:ty, $rows:expr, $panels:expr, |$mr:ident, $np:ident| $body:expr) => {
        if <$s>::WIDE {
            match $panels {
                6 => with_tile!(6: 1 2 3 4; $rows, $mr, $np, $body),
                3 => with_tile!(3: 1 2 3 4 5 6 7 8; $rows, $mr, $np, $body),
                2 => with_tile!(2: 1 2 3 4 5 6 7 8; $rows, $mr, $np, $body),
                _ => with_tile!(1: 1 2 4 8; $rows, $mr, $np, $body),
            }
        } else if $panels == 3 {
            with_tile!(3: 1 2; $rows, $mr, $np, $body)
        } else {
            with_tile!(few $s, $rows, $panels, |$mr, $np| $body)
        }
    };
    (tall $rows:expr, $panels:expr, |$mr:ident, $np:ident| $body:expr) => {
        match $panels {
            2 => with_tile!(2: 1 2 4 8 12; $rows, $mr, $np, $body),
            _ => with_tile!(1: 1 2 4 8 12; $rows, $mr, $np, $body),
        }
    };
    (few $s:ty, $rows:expr, $panels:expr, |$mr:ident, $np:ident| $body:expr) => {
        if <$s>::WIDE {
            match $panels {
                3 => with_tile!(3: 1 2 4 8; $rows, $mr, $np, $body),
                2 => with_tile!(2: 1 2 4 8; $rows, $mr, $np, $body),
                _ => with_tile!(1: 1 2 4 8; $rows, $mr, $np, $body),
            }
        } else if <$s>::SMALL && <$s>::ROWS == 1 {
            with_tile!(1: 1; $rows, $mr, $np, $body)
        } else if <$s>::SMALL && <$s>::ROWS == 2 {
            with_tile!(1: 1 2; $rows, $mr, $np, $body)
        } else if <$s>::SMALL {
            with_tile!(1: 1 2 4; $rows, $mr, $np, $body)
        } else {
            with_tile!(1: 1 2 4 6; $rows, $mr, $np, $body)
        }
    };
    ($n:literal: $($m:literal)*; $rows:expr, $mr:ident, $np:ident, $body:expr) => {{
        const $np: usize = $n;
        match $rows {
            $($m => { const $mr: usize = $m; $body })*
            _ => unreachable!("tiles have at most Simd::ROWS rows"),
        }
    }};
}
pub(super) use with_tile;

/// The first `NP` vectors of `MR` rows of `out`, which are `stride` apart: where a tile is written. One
/// check serves all rows, since a check for each would be more code than the row.
#[inline(always)]
pub(super) fn rows_of<const MR: usize, const NP: usize>(
    out: &mut [F32x16],
    stride: usize,
) -> [&mut [F32x16; NP]; MR] {
    const { assert!(MR <= 8) };
    assert!(NP <= stride && stride < usize::MAX / 8 && (MR - 1) * stride + NP <= out.len());
    let first = out.as_mut_ptr();
    // SAFETY: row `r` ends at `r * stride + NP`, which is in `out` and not past the start of the next row.
    core::array::from_fn(|r| unsafe { &mut *first.add(r * stride).cast() })
}

/// How many of `left` panels to multiply at once, in tiles of at most `rows` rows: as many as there are
/// registers for.
#[inline(always)]
pub(super) fn panels_at_once<S: Simd>(rows: usize, left: usize) -> usize {
    match left {
        _ if S::WIDE && rows <= 4 && left >= 6 => 6,
        _ if !S::WIDE && !S::SMALL && rows <= 2 && left >= 3 => 3,
        _ if !S::WIDE => 1,
        4 => 2,
        3.. => 3,
        _ => left,
    }
}

/// How many of `left` rows the next tile of `np` panels has: the fewest tiles, as equal as possible.
#[inline(always)]
fn rows_at_once<S: Simd>(left: usize, np: usize) -> usize {
    if S::WIDE && np > 1 {
        left.div_ceil(left.div_ceil(S::ROWS))
    } else {
        few_rows_at_once(left, S::ROWS)
    }
}

/// [`panels_at_once`] for eight rows, or one panel.
#[inline(always)]
pub(super) fn few_panels_at_once<S: Simd>(left: usize) -> usize {
    if S::WIDE { panels_at_once::<S>(S::ROWS, left) } else { 1 }
}

/// Runs of tiles of eight rows that cover `count` panels: how many panels a tile has, and how many such
/// tiles follow each other.
#[inline(always)]
pub(super) fn panels_in_runs<S: Simd>(count: usize) -> impl Iterator<Item = (usize, usize)> {
    // Four panels are two tiles of two, not of three and one.
    let threes = count / 3 - usize::from(count % 3 == 1 && count > 1);
    let left = count - 3 * threes;
    let runs = match S::WIDE {
        true => [(3, threes), (2, left / 2), (1, left % 2)],
        false => [(1, count), (0, 0), (0, 0)],
    };
    runs.into_iter().take(if S::WIDE { 3 } else { 1 })
}

/// How many of `left` rows the next tile has: a power of two, or six where `most` is six.
#[inline(always)]
pub(super) fn few_rows_at_once(left: usize, most: usize) -> usize {
    match left {
        6 | 10.. if most == 6 => 6,
        4.. if most == 6 => 4,
        _ => most.min(1 << left.ilog2()),
    }
}

impl<'a> Int8Matrix<'a> {
    /// Panels `from..to` only.
    pub fn slice(&self, from: usize, to: usize) -> Self {
        Self {
            panels: &self.panels[from * self.steps..to * self.steps],
            scale: &self.scale[from..to],
            bias: &self.bias[from..to],
            sums: &self.sums[from..to],
            steps: self.steps,
        }
    }
}

impl<'a, W> FloatMatrix<'a, W> {
    /// Panels `from..to` only.
    pub fn slice(&self, from: usize, to: usize) -> Self {
        Self {
            panels: &self.panels[from * self.steps..to * self.steps],
            bias: &self.bias[from..to],
            steps: self.steps,
        }
    }
}

/// The arguments of a matrix product: `out = x W^T + b`.
pub(super) struct Linear<'a, X, W> {
    pub x: X,
    pub w: W,
    /// Working memory, which may be missing.
    pub buffer: &'a mut [F32x16],
    /// `[rows][out_width]`, of which the first `panels` vectors of each row are written.
    pub out: &'a mut [F32x16],
    pub out_width: usize,
}

/// Rows of f32.
#[derive(Clone, Copy)]
pub(super) struct FloatRows<'a> {
    /// `[rows][width]`.
    pub values: &'a [F32x16],
    /// Vectors of sixteen per row.
    pub width: usize,
}

/// The first row and the first panel of a tile.
#[derive(Clone, Copy)]
struct Corner {
    row: usize,
    panel: usize,
    /// [`Tile::arranged`].
    arranged: bool,
}

/// `out[t][n] = (sum over k of q[t][k] * w[n][k]) * x.scale[t] * w.scale[n] + w.bias[n]`: the sum an
/// exact i32, then converted to f32, one product, one fused multiply-add.
impl Kernel for Linear<'_, Int8Rows<'_>, Int8Matrix<'_>> {
    const NAME: &'static str = "linear_int8";
    const INTEGER: bool = true;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { x, w, buffer, out, out_width } = self;
        linear_int8(s, x, w, I8x64::slice_of_mut(buffer), out, out_width);
    }
}

#[inline(always)]
fn linear_int8<S: Simd>(
    s: S,
    x: Int8Rows<'_>,
    w: Int8Matrix<'_>,
    buffer: &mut [I8x64],
    out: &mut [F32x16],
    out_width: usize,
) {
    let (rows, panels) = (x.scale.len(), w.scale.len());
    assert!(x.values.len() >= rows * x.width && x.width * 4 >= w.steps);
    assert!(w.panels.len() == panels * w.steps && w.bias.len() == panels && w.sums.len() == panels);
    assert!(out.len() >= rows * out_width && out_width >= panels);
    let mut p = 0;
    while p < panels {
        let np = panels_at_once::<S>(rows, panels - p);
        let own = &raw const w.panels[p * w.steps];
        let arranged = match buffer.get_mut(..w.steps) {
            Some(buffer) if S::ARRANGE_FROM < usize::MAX && rows >= S::ARRANGE_FROM => {
                s.arrange(&w.panels[p * w.steps..][..w.steps], buffer);
                Some(&*buffer)
            }
            _ => None,
        };
        let mut t = 0;
        while t < rows {
            let mr = rows_at_once::<S>(rows - t, np);
            let (tile, tiles) = (t / S::ROWS, rows.div_ceil(S::ROWS));
            let corner = Corner { row: t, panel: p, arranged: false };
            with_tile!(S, mr, np, |MR, NP| {
                if let (true, Some(panels)) = (MR > 1, arranged) {
                    let w = Int8Matrix { panels, ..w.slice(p, p + 1) };
                    let (corner, prefetch) = (Corner { row: t, panel: 0, arranged: true }, []);
                    int8_tile::<S, MR, NP, 0>(s, x, w, corner, prefetch, &mut out[p..], out_width);
                } else if NP == 3 && MR == S::ROWS && tiles >= NP {
                    let next = own.wrapping_add(NP * w.steps);
                    let prefetch = [Prefetch::share(next, NP, w.steps, tile, tiles)];
                    int8_tile::<S, MR, NP, 1>(s, x, w, corner, prefetch, out, out_width);
                } else {
                    let prefetch = Prefetch::shares(own, w.steps, tile, tiles);
                    int8_tile::<S, MR, NP, NP>(s, x, w, corner, prefetch, out, out_width);
                }
            });
            t += mr;
        }
        p += np;
    }
}

#[inline(always)]
fn int8_tile<S: Simd, const MR: usize, const NP: usize, const A: usize>(
    s: S,
    x: Int8Rows<'_>,
    w: Int8Matrix<'_>,
    corner: Corner,
    prefetch: [Prefetch<I8x64>; A],
    out: &mut [F32x16],
    out_width: usize,
) {
    let Corner { row: t, panel: p, arranged } = corner;
    let mut start = [s.splat_i32(0); NP];
    for (start, sums) in start.iter_mut().zip(&w.sums[p..][..NP]) {
        *start = s.compensation(s.load_i32(sums));
    }
    // SAFETY: `linear_int8` asserted that rows `t..t + MR` have whole vectors of four quads for `steps`
    // quads, and that panels `p..p + NP` have `steps` vectors.
    let acc = unsafe {
        let tile = Tile {
            rows: x.values.as_ptr().add(t * x.width).cast(),
            row_stride: x.width * 4,
            panels: w.panels.as_ptr().add(p * w.steps),
            panel_stride: w.steps,
            steps: w.steps,
            arranged,
            prefetch,
        };
        s.multiply_quads::<MR, NP, A>([start; MR], tile)
    };
    let out = rows_of::<MR, NP>(&mut out[t * out_width + p..], out_width);
    let (x_scale, scale, bias) = (&x.scale[t..][..MR], &w.scale[p..][..NP], &w.bias[p..][..NP]);
    for (r, out) in out.into_iter().enumerate() {
        let x_scale = s.splat(x_scale[r]);
        for i in 0..NP {
            let sum = s.mul(s.to_f32(acc[r][i]), x_scale);
            s.store(&mut out[i], s.fma(sum, s.load(&scale[i]), s.load(&bias[i])));
        }
    }
}

impl Kernel for Linear<'_, FloatRows<'_>, FloatMatrix<'_, F32x16>> {
    const NAME: &'static str = "linear_f32";
    const INTEGER: bool = false;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { x, w, out, out_width, .. } = self;
        linear_float::<S, Singles>(s, x, w, out, out_width);
    }
}

impl Kernel for Linear<'_, FloatRows<'_>, FloatMatrix<'_, F16x16>> {
    const NAME: &'static str = "linear_f16";
    const INTEGER: bool = false;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { x, w, out, out_width, .. } = self;
        linear_float::<S, Halves>(s, x, w, out, out_width);
    }
}

/// `out[t][n] = w.bias[n] + sum over k of x[t][k] * w[n][k]`, `k` ascending, each step fused.
#[inline(always)]
fn linear_float<S: Simd, T>(
    s: S,
    x: FloatRows<'_>,
    w: FloatMatrix<'_, T::Weights>,
    out: &mut [F32x16],
    out_width: usize,
) where
    T: Step<S, Factor = f32, Acc = S::F>,
{
    let (rows, panels) = (x.values.len() / x.width.max(1), w.bias.len());
    assert!(x.values.len() == rows * x.width && x.width * 16 >= w.steps);
    assert!(w.panels.len() == panels * w.steps);
    assert!(out.len() >= rows * out_width && out_width >= panels);
    let most = if T::TALL { 12 } else { S::ROWS };
    let mut p = 0;
    while p < panels {
        let left = panels - p;
        let np = if T::TALL { left.min(2) } else { few_panels_at_once::<S>(left) };
        let own = &raw const w.panels[p * w.steps];
        let mut t = 0;
        while t < rows {
            let left = rows - t;
            let mr = if T::TALL && left >= most { most } else { few_rows_at_once(left, S::ROWS) };
            let (tile, tiles) = (t / most, rows.div_ceil(most));
            let corner = Corner { row: t, panel: p, arranged: false };
            if T::TALL {
                with_tile!(tall mr, np, |MR, NP| {
                    let prefetch = Prefetch::shares(own, w.steps, tile, tiles);
                    float_tile::<S, T, MR, NP>(s, x, w, corner, prefetch, out, out_width);
                });
            } else {
                with_tile!(few S, mr, np, |MR, NP| {
                    let prefetch = Prefetch::shares(own, w.steps, tile, tiles);
                    float_tile::<S, T, MR, NP>(s, x, w, corner, prefetch, out, out_width);
                });
            }
            t += mr;
        }
        p += np;
    }
}

#[inline(always)]
fn float_tile<S: Simd, T, const MR: usize, const NP: usize>(
    s: S,
    x: FloatRows<'_>,
    w: FloatMatrix<'_, T::Weights>,
    corner: Corner,
    prefetch: [Prefetch<T::Weights>; NP],
    out: &mut [F32x16],
    out_width: usize,
) where
    T: Step<S, Factor = f32, Acc = S::F>,
{
    let Corner { row: t, panel: p, .. } = corner;
    let mut start = [s.zero(); NP];
    for i in 0..NP {
        start[i] = s.load(&w.bias[p + i]);
    }
    // SAFETY: `linear_float` asserted that rows `t..t + MR` have `steps` floats and that panels
    // `p..p + NP` have `steps` vectors.
    let acc = unsafe {
        let tile = Tile {
            rows: x.values.as_ptr().add(t * x.width).cast(),
            row_stride: x.width * 16,
            panels: w.panels.as_ptr().add(p * w.steps),
            panel_stride: w.steps,
            steps: w.steps,
            arranged: false,
            prefetch,
        };
        multiply::<S, T, MR, NP, NP>(s, [start; MR], tile)
    };
    for r in 0..MR {
        for i in 0..NP {
            s.store(&mut out[(t + r) * out_width + p + i], acc[r][i]);
        }
    }
}

/// int8 products of registers alone, to measure the best that the machine can do.
pub(super) struct PeakInt8 {
    pub rounds: usize,
}

impl Kernel for PeakInt8 {
    const NAME: &'static str = "peak_int8";
    const INTEGER: bool = true;
    type Output = u64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> u64 {
        if S::WIDE { peak_int8::<S, 24>(s, self.rounds) } else { peak_int8::<S, 6>(s, self.rounds) }
    }
}

#[inline(always)]
fn peak_int8<S: Simd, const N: usize>(s: S, rounds: usize) -> u64 {
    let a = s.quad(black_box([1, 2, 3, 4]));
    let w = s.load_quads(&black_box(I8x64([5; 64])));
    let mut acc = [s.splat_i32(0); N];
    for _ in 0..rounds {
        for acc in &mut acc {
            *acc = s.dot_quad(*acc, s.opaque(a), w);
        }
    }
    for acc in acc {
        let mut out = I32x16([0; 16]);
        s.store_i32(&mut out, acc);
        black_box(out);
    }
    (rounds * N * 64) as u64
}

/// Fused f32 multiply-adds of registers alone.
pub(super) struct PeakF32 {
    pub rounds: usize,
}

impl Kernel for PeakF32 {
    const NAME: &'static str = "peak_f32";
    const INTEGER: bool = false;
    type Output = u64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> u64 {
        if S::WIDE { peak_f32::<S, 24>(s, self.rounds) } else { peak_f32::<S, 6>(s, self.rounds) }
    }
}

#[inline(always)]
fn peak_f32<S: Simd, const N: usize>(s: S, rounds: usize) -> u64 {
    let a = s.splat(black_box(1.0));
    let w = s.load(&black_box(F32x16([0.5; 16])));
    let mut acc = [s.zero(); N];
    for _ in 0..rounds {
        for acc in &mut acc {
            *acc = s.fma(a, w, *acc);
        }
    }
    for acc in acc {
        let mut out = F32x16::ZERO;
        s.store(&mut out, acc);
        black_box(out);
    }
    (rounds * N * 16) as u64
}
