//! What is done to one row at a time: rotation and quantisation, layer norm, activation, table rows.

use super::lanes::{F16x16, F32x16, I8x16, I8x64, Simd};
use super::{math, scalar};

/// Walsh-Hadamard blocks along a row: element `(b * block + j) * stride + i` is member `j` of a
/// block, for every `b` and every `i < stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Members of a block, a power of two; 1 for no rotation.
    pub block: usize,
    /// Distance between members: 1 or a multiple of 16.
    pub stride: usize,
}

impl Rotation {
    /// No rotation.
    pub const NONE: Self = Self { block: 1, stride: 1 };
}

/// One row of an embedding table.
#[derive(Clone, Copy, Debug)]
pub enum TableRow<'a> {
    /// int8 with an f16 scale (its bits) for every [`TABLE_GROUP`] columns.
    Int8(&'a [I8x16], &'a [u16]),
    /// Half precision.
    F16(&'a [F16x16]),
    /// Single precision.
    F32(&'a [F32x16]),
}

/// Columns of an int8 table that share a scale.
pub const TABLE_GROUP: usize = 64;

/// Gamma and beta of a layer norm, zero beyond the hidden size.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// Gamma.
    pub weight: &'a [F32x16],
    /// Beta.
    pub bias: &'a [F32x16],
}

/// Element-wise functions of [`super::Kernels::activate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Activation {
    /// `x * Phi(x)` with the error function.
    Gelu = 0,
    /// GELU by tanh (1606.08415, section 2): "gelu_new".
    GeluTanh = 1,
    /// `max(x, 0)`.
    Relu = 2,
    /// `x * sigmoid(x)`.
    Silu = 3,
    /// `tanh(x)`.
    Tanh = 4,
}

impl Activation {
    /// All of them, in the order of their numbers, by their names in `config.json`.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("gelu", Self::Gelu),
        ("gelu_new", Self::GeluTanh),
        ("relu", Self::Relu),
        ("silu", Self::Silu),
        ("tanh", Self::Tanh),
    ];

    /// The activation with this number in a model file.
    pub const fn from_number(number: u32) -> Option<Self> {
        if number < Self::NAMES.len() as u32 { Some(Self::NAMES[number as usize].1) } else { None }
    }

    /// Its name in `config.json`.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize].0
    }
}

/// Values smaller than this share its scale, which is far from being subnormal.
const LEAST_MAGNITUDE: f32 = 1e-30;

/// For each lane, the int8 scale of values of magnitude up to `largest`, and its inverse:
/// `m / 127` (as a product) and `127 / m`, with `m = max(largest, 1e-30)`.
#[inline(always)]
pub(super) fn int8_scale<S: Simd>(s: S, largest: S::F) -> (S::F, S::F) {
    let m = s.max(largest, s.splat(LEAST_MAGNITUDE));
    (s.mul(m, s.splat(1.0 / 127.0)), s.div(s.splat(127.0), m))
}

/// [`int8_scale`] of one value: a division of sixteen lanes takes longer.
#[inline(always)]
fn int8_scale_of_row(largest: f32) -> (f32, f32) {
    let m = if largest > LEAST_MAGNITUDE { largest } else { LEAST_MAGNITUDE };
    (m * (1.0 / 127.0), 127.0 / m)
}

/// Rows that [`super::Kernels::quantize`] works on at once, so that none waits for its largest magnitude alone.
pub const QUANTIZE_ROWS: usize = 4;

/// Rotates each row of `x`, or with `gelu` its GELU, unnormalised, then quantises it: with `m` the
/// largest magnitude, `scale = m / 127` and `q = round(x * (127 / m))`, see [`int8_scale`].
///
/// `x` is `[rows][width]` vectors, `values` likewise, `buffer` up to
/// [`QUANTIZE_ROWS`] rows. `ahead` are weights that will be wanted next: as many are asked for.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
pub(super) fn quantize<S: Simd>(
    s: S,
    x: &[F32x16],
    gelu: bool,
    rotation: Rotation,
    buffer: &mut [F32x16],
    values: &mut [I8x16],
    scale: &mut [f32],
    ahead: &[I8x64],
) {
    let mut ahead = ahead.as_ptr();
    let width = x.len() / scale.len().max(1);
    assert!(x.len() == width * scale.len() && values.len() >= x.len());
    assert!(buffer.len() >= width * scale.len().min(QUANTIZE_ROWS));
    if width == 0 {
        return;
    }
    let groups = x.chunks(QUANTIZE_ROWS * width).zip(values.chunks_mut(QUANTIZE_ROWS * width));
    for ((x, values), scale) in groups.zip(scale.chunks_mut(QUANTIZE_ROWS)) {
        let mut largest = [s.zero(); QUANTIZE_ROWS];
        let rows = x.chunks_exact(width).zip(buffer.chunks_exact_mut(width));
        for ((x, row), largest) in rows.zip(&mut largest) {
            // Twice, each with loops of its own, unless small code is wanted.
            *largest = match gelu {
                gelu if S::ROWS == 1 => rotate(s, x, gelu, row, rotation, ahead),
                true => rotate(s, x, true, row, rotation, ahead),
                false => rotate(s, x, false, row, rotation, ahead),
            };
            ahead = ahead.wrapping_add(width);
        }
        let mut inverse = [0.0; QUANTIZE_ROWS];
        for r in 0..QUANTIZE_ROWS {
            let step;
            (step, inverse[r]) = int8_scale_of_row(s.largest(largest[r]));
            if let Some(scale) = scale.get_mut(r) {
                *scale = step;
            }
        }
        let rows = buffer.chunks_exact(width).zip(values.chunks_exact_mut(width));
        for ((row, values), inverse) in rows.zip(inverse) {
            round(s, row, s.splat(inverse), values);
        }
    }
}

/// `values[i] = round(x[i] * inverse)`.
#[inline(always)]
fn round<S: Simd>(s: S, x: &[F32x16], inverse: S::F, values: &mut [I8x16]) {
    let (x4, x) = x.as_chunks::<4>();
    let (q4, q) = values.as_chunks_mut::<4>();
    for (x, q) in x4.iter().zip(q4) {
        let mut v = [s.splat_i32(0); 4];
        for i in 0..4 {
            v[i] = s.to_i32(s.mul(s.load(&x[i]), inverse));
        }
        s.store_activations(q, v);
    }
    for (x, q) in x.iter().zip(q) {
        s.store_activation(q, s.to_i32(s.mul(s.load(x), inverse)));
    }
}

/// `row = ` the rotated `x`, or with `gelu` its rotated GELU; returns the largest magnitude of each lane.
///
/// The stages run from members next to each other to those farthest apart. A vector of `x` asks for one
/// of `ahead`.
#[inline(always)]
fn rotate<S: Simd>(
    s: S,
    x: &[F32x16],
    gelu: bool,
    row: &mut [F32x16],
    rotation: Rotation,
    mut ahead: *const I8x64,
) -> S::F {
    macro_rules! first {
        ($lanes:expr, $n:literal, $last:literal, $apart:expr) => {{
            let (apart, mut largest) = ($apart, [s.zero(); $n]);
            for (x, row) in x.chunks_exact($n * apart).zip(row.chunks_exact_mut($n * apart)) {
                for i in 0..apart {
                    let mut v = [s.zero(); $n];
                    for j in 0..$n {
                        v[j] = s.load(&x[i + j * apart]);
                        s.prefetch_far(ahead.wrapping_add(i + j * apart));
                        if gelu {
                            v[j] = math::gelu_int8(s, v[j]);
                        }
                    }
                    stages::<S, $n, $last>(s, v, $lanes, row, i, apart, &mut largest);
                }
                ahead = ahead.wrapping_add($n * apart);
            }
            most(s, largest)
        }};
    }
    macro_rules! then {
        ($n:literal, $last:literal, $apart:expr) => {{
            let (apart, mut largest) = ($apart, [s.zero(); $n]);
            for row in row.chunks_exact_mut($n * apart) {
                for i in 0..apart {
                    let mut v = [s.zero(); $n];
                    for j in 0..$n {
                        v[j] = s.load(&row[i + j * apart]);
                    }
                    stages::<S, $n, $last>(s, v, 1, row, i, apart, &mut largest);
                }
            }
            most(s, largest)
        }};
    }
    match (rotation.block, rotation.stride) {
        // What the converter chooses for large models, in as many registers as there are.
        (128, 1) if S::WIDE && !gelu => first!(16, 8, true, 1),
        (4, 32) if S::WIDE && !gelu => first!(1, 4, true, 2),
        (4, 64) if S::WIDE && !gelu => first!(1, 4, true, 4),
        (32, 16) if S::WIDE => {
            first!(1, 8, false, 1);
            then!(4, true, 8)
        }
        // All others: one register at a time, then four, then two.
        (block, stride) => {
            let (lanes, mut left, mut apart) = match stride {
                1 => (block.min(16), block.div_ceil(16), 1),
                _ => (1, block, stride / 16),
            };
            let mut largest = match lanes {
                // Where tiles have one row, small code is wanted: one loop for all.
                lanes if S::ROWS == 1 => first!(lanes, 1, true, 1),
                2 => first!(2, 1, true, 1),
                4 => first!(4, 1, true, 1),
                8 => first!(8, 1, true, 1),
                16 => first!(16, 1, true, 1),
                _ => first!(1, 1, true, 1),
            };
            while left >= 4 {
                largest = then!(4, true, apart);
                (left, apart) = (left / 4, apart * 4);
            }
            if left == 2 { then!(2, true, apart) } else { largest }
        }
    }
}

/// The stages within the lanes of `v` up to blocks of `lanes`, then those between its registers, which
/// are stored `apart` in `row` from `i` on. Raises `largest` if these are the `LAST`.
#[inline(always)]
fn stages<S: Simd, const N: usize, const LAST: bool>(
    s: S,
    mut v: [S::F; N],
    lanes: usize,
    row: &mut [F32x16],
    i: usize,
    apart: usize,
    largest: &mut [S::F; N],
) {
    for j in 0..N {
        if lanes > 1 {
            v[j] = s.butterfly::<1>(v[j]);
        }
        if lanes > 2 {
            v[j] = s.butterfly::<2>(v[j]);
        }
        if lanes > 4 {
            v[j] = s.butterfly::<4>(v[j]);
        }
        if lanes > 8 {
            v[j] = s.butterfly::<8>(v[j]);
        }
    }
    let v = butterflies(s, v);
    for j in 0..N {
        if LAST {
            // One for each register, for a shorter chain.
            largest[j] = s.max_magnitude(largest[j], v[j]);
        }
        s.store(&mut row[i + j * apart], v[j]);
    }
}

/// The largest lanes of all.
#[inline(always)]
fn most<S: Simd, const N: usize>(s: S, mut v: [S::F; N]) -> S::F {
    let mut left = N;
    while left > 1 {
        left /= 2;
        for j in 0..left {
            v[j] = s.max(v[j], v[j + left]);
        }
    }
    v[0]
}

/// Sums and differences of registers 1, 2, 4, ... apart.
#[inline(always)]
fn butterflies<S: Simd, const N: usize>(s: S, mut v: [S::F; N]) -> [S::F; N] {
    let mut apart = 1;
    while apart < N {
        for j in 0..N {
            if j & apart == 0 {
                let (a, b) = (v[j], v[j + apart]);
                v[j] = s.add(a, b);
                v[j + apart] = s.sub(a, b);
            }
        }
        apart *= 2;
    }
    v
}

/// `x = norm(x + y)` for each row, or `x = norm(x)` where `y` is empty: sum, mean, squared
/// distances from the mean, then `(x - mean) * (1 / sqrt(variance + eps)) * gamma + beta`.
///
/// `hidden` counts the elements of a row; the rest of its last vector becomes zero.
#[inline(always)]
pub(super) fn add_norm<S: Simd>(
    s: S,
    x: &mut [F32x16],
    y: &[F32x16],
    norm: Norm<'_>,
    hidden: usize,
    eps: f32,
) {
    const ROWS: usize = 4;
    let (mut x, mut y) = (x, y);
    let width = norm.weight.len();
    assert!(norm.bias.len() == width && hidden <= width * 16 && hidden + 16 > width * 16);
    assert!(width > 0 && x.len().is_multiple_of(width) && (y.is_empty() || y.len() == x.len()));
    while !x.is_empty() {
        // Where tiles have one row, small code is wanted.
        let several = S::ROWS > 1 && x.len() >= ROWS * width;
        let size = if several { ROWS * width } else { width };
        let (own, rest) = x.split_at_mut(size);
        let (other, others) = y.split_at(size.min(y.len()));
        if several {
            norm_rows::<S, ROWS>(s, own, other, norm, hidden, eps);
        } else {
            norm_rows::<S, 1>(s, own, other, norm, hidden, eps);
        }
        (x, y) = (rest, others);
    }
}

/// [`add_norm`] of `R` rows that take each step together: none waits for its sum alone.
#[inline(always)]
fn norm_rows<S: Simd, const R: usize>(
    s: S,
    x: &mut [F32x16],
    y: &[F32x16],
    norm: Norm<'_>,
    hidden: usize,
    eps: f32,
) {
    let width = norm.weight.len();
    let n = hidden as f32;
    let tail = hidden - (width - 1) * 16;
    let mut rows = x.chunks_exact_mut(width);
    let x: [&mut [F32x16]; R] = std::array::from_fn(|_| &mut rows.next().expect("R rows")[..width]);
    let mut lanes = [s.zero(); R];
    if y.is_empty() {
        for i in 0..width {
            for r in 0..R {
                lanes[r] = s.add(lanes[r], s.load(&x[r][i]));
            }
        }
    } else {
        let y = &y[..R * width];
        for i in 0..width {
            for r in 0..R {
                let v = s.add(s.load(&x[r][i]), s.load(&y[r * width + i]));
                lanes[r] = s.add(lanes[r], v);
                s.store(&mut x[r][i], v);
            }
        }
    }
    let (mut mean, mut scale) = ([s.zero(); R], [s.zero(); R]);
    for r in 0..R {
        mean[r] = s.splat(s.sum(lanes[r]) / n);
    }
    let mut squares = [s.zero(); R];
    for i in 0..width - 1 {
        for r in 0..R {
            let d = s.sub(s.load(&x[r][i]), mean[r]);
            squares[r] = s.fma(d, d, squares[r]);
            // The rows after these, some here and some below.
            s.prefetch(y.as_ptr().wrapping_add((R + r) * width + i));
        }
    }
    for r in 0..R {
        let d = s.keep_first(s.sub(s.load(&x[r][width - 1]), mean[r]), tail, 0.0);
        let squares = s.sum(s.fma(d, d, squares[r]));
        scale[r] = s.splat(1.0 / scalar::sqrt(squares / n + eps));
    }
    for i in 0..width {
        let (weight, bias) = (s.load(&norm.weight[i]), s.load(&norm.bias[i]));
        for r in 0..R {
            let d = s.sub(s.load(&x[r][i]), mean[r]);
            s.store(&mut x[r][i], s.fma(s.mul(d, scale[r]), weight, bias));
            s.prefetch(x[r].as_ptr().wrapping_add(R * width + i));
        }
    }
}

/// Applies `activation` to every element.
#[inline(always)]
pub(super) fn activate<S: Simd>(s: S, x: &mut [F32x16], activation: Activation) {
    macro_rules! each {
        (|$v:ident| $y:expr) => {
            for x in x {
                let $v = s.load(x);
                s.store(x, $y);
            }
        };
    }
    match activation {
        Activation::Gelu => each!(|v| math::gelu(s, v)),
        Activation::GeluTanh => each!(|v| math::gelu_tanh(s, v)),
        Activation::Relu => each!(|v| s.max(v, s.zero())),
        Activation::Silu => each!(|v| math::silu(s, v)),
        Activation::Tanh => each!(|v| math::tanh(s, v)),
    }
}

/// Up to sixteen f16 scales, from their bits.
#[inline(always)]
fn widen<S: Simd>(s: S, scales: &[u16]) -> [f32; 16] {
    let (mut bits, mut wide) = (F16x16([0; 16]), F32x16::ZERO);
    bits.0[..scales.len()].copy_from_slice(scales);
    s.store(&mut wide, s.load_f16(&bits));
    wide.0
}

/// `x = row`, or `x += row`.
#[inline(always)]
pub(super) fn add_row<S: Simd>(s: S, x: &mut [F32x16], row: TableRow<'_>, first: bool) {
    macro_rules! each {
        ($x:expr, $row:expr, |$w:ident| $y:expr) => {{
            assert_eq!($row.len(), $x.len());
            for (x, $w) in $x.iter_mut().zip($row) {
                let y = $y;
                s.store(x, if first { y } else { s.add(s.load(x), y) });
            }
        }};
    }
    match row {
        TableRow::Int8(row, scales) => {
            const VECTORS: usize = TABLE_GROUP / 16;
            assert!(row.len() == x.len() && scales.len() * VECTORS >= row.len());
            let groups = x.chunks_mut(16 * VECTORS).zip(row.chunks(16 * VECTORS));
            for ((x, row), scales) in groups.zip(scales.chunks(16)) {
                let scales = widen(s, scales);
                for ((x, row), scale) in x.chunks_mut(VECTORS).zip(row.chunks(VECTORS)).zip(scales)
                {
                    let scale = s.splat(scale);
                    each!(x, row, |w| s.mul(s.to_f32(s.load_i8(w)), scale))
                }
            }
        }
        TableRow::F16(row) => each!(x, row, |w| s.load_f16(w)),
        TableRow::F32(row) => each!(x, row, |w| s.load(w)),
    }
}

/// `sum over i of x[i] * row[i]`: sixteen partial sums, then their tree.
#[inline(always)]
pub(super) fn dot_row<S: Simd>(s: S, x: &[F32x16], row: TableRow<'_>) -> f32 {
    let mut sum = s.zero();
    macro_rules! each {
        ($x:expr, $row:expr, |$w:ident| $y:expr) => {{
            assert_eq!($row.len(), $x.len());
            for (x, $w) in $x.iter().zip($row) {
                sum = s.fma(s.load(x), $y, sum);
            }
        }};
    }
    match row {
        TableRow::Int8(row, scales) => {
            const VECTORS: usize = TABLE_GROUP / 16;
            assert!(row.len() == x.len() && scales.len() * VECTORS >= row.len());
            let groups = x.chunks(16 * VECTORS).zip(row.chunks(16 * VECTORS));
            for ((x, row), scales) in groups.zip(scales.chunks(16)) {
                let scales = widen(s, scales);
                for ((x, row), scale) in x.chunks(VECTORS).zip(row.chunks(VECTORS)).zip(scales) {
                    let scale = s.splat(scale);
                    each!(x, row, |w| s.mul(s.to_f32(s.load_i8(w)), scale))
                }
            }
        }
        TableRow::F16(row) => each!(x, row, |w| s.load_f16(w)),
        TableRow::F32(row) => each!(x, row, |w| s.load(w)),
    }
    s.sum(sum)
}

/// `out = x * weight` (`set`) or `out += x * weight`, each step rounded; left to the compiler, as `out` may
/// start anywhere.
#[inline(always)]
pub(super) fn accumulate<S: Simd>(_: S, out: &mut [f32], x: &[f32], weight: f32, set: bool) {
    if set {
        out.iter_mut().zip(x).for_each(|(out, x)| *out = x * weight);
    } else {
        out.iter_mut().zip(x).for_each(|(out, x)| *out += x * weight);
    }
}
