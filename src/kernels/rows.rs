//! What is done to one row at a time: rotation and quantisation, layer norm, activation, table rows.

use super::lanes::{F16x16, F32x16, I8x16, Simd};
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
    /// `x * Phi(x)` with the error function ("gelu").
    Gelu = 0,
    /// The tanh approximation ("gelu_new", "gelu_pytorch_tanh").
    GeluTanh = 1,
    /// `max(x, 0)`.
    Relu = 2,
    /// `x * sigmoid(x)` ("silu", "swish").
    Silu = 3,
    /// `tanh(x)`.
    Tanh = 4,
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

/// Rotates each row of `x` (unnormalised), then quantises it: with `m` the largest magnitude,
/// `scale = m / 127` and `q = round(x * (127 / m))`, see [`int8_scale`].
///
/// `x` is `[rows][width]` vectors, `values` likewise, `buffer` one row.
#[inline(always)]
pub(super) fn quantize<S: Simd>(
    s: S,
    x: &[F32x16],
    rotation: Rotation,
    buffer: &mut [F32x16],
    values: &mut [I8x16],
    scale: &mut [f32],
) {
    let width = x.len() / scale.len().max(1);
    assert!(x.len() == width * scale.len() && values.len() >= x.len() && buffer.len() >= width);
    if width == 0 {
        return;
    }
    let buffer = &mut buffer[..width];
    for ((x, values), scale) in x.chunks_exact(width).zip(values.chunks_exact_mut(width)).zip(scale)
    {
        let largest = s.largest(rotate(s, x, rotation, buffer));
        let (step, inverse) = int8_scale(s, s.splat(largest));
        *scale = s.largest(step);
        let (x4, x) = buffer.as_chunks::<4>();
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
}

/// `out = ` the rotated `x`; returns the largest magnitude of each lane.
///
/// The stages run from members next to each other to those farthest apart.
#[inline(always)]
fn rotate<S: Simd>(s: S, x: &[F32x16], rotation: Rotation, out: &mut [F32x16]) -> S::F {
    match (rotation.block, rotation.stride) {
        (1, _) => first_pass::<S, 1, 1, true>(s, x, out, 1),
        (2, 1) => first_pass::<S, 2, 1, true>(s, x, out, 1),
        (4, 1) => first_pass::<S, 4, 1, true>(s, x, out, 1),
        (8, 1) => first_pass::<S, 8, 1, true>(s, x, out, 1),
        (16, 1) => first_pass::<S, 16, 1, true>(s, x, out, 1),
        (32, 1) => first_pass::<S, 16, 2, true>(s, x, out, 1),
        (64, 1) => first_pass::<S, 16, 4, true>(s, x, out, 1),
        (128, 1) => first_pass::<S, 16, 8, true>(s, x, out, 1),
        (2, stride) => first_pass::<S, 1, 2, true>(s, x, out, stride / 16),
        (4, stride) => first_pass::<S, 1, 4, true>(s, x, out, stride / 16),
        (block, stride) => {
            // More registers than there are: eight at a time, then what is left.
            let apart = stride / 16;
            if block == 8 {
                return first_pass::<S, 1, 8, true>(s, x, out, apart);
            }
            first_pass::<S, 1, 8, false>(s, x, out, apart);
            match block {
                16 => second_pass::<S, 2>(s, out, apart * 8),
                32 => second_pass::<S, 4>(s, out, apart * 8),
                64 => second_pass::<S, 8>(s, out, apart * 8),
                _ => {
                    second_pass::<S, 8>(s, out, apart * 8);
                    second_pass::<S, 2>(s, out, apart * 64)
                }
            }
        }
    }
}

/// The stages within lanes up to blocks of `LANES`, then those between `N` registers `apart`. Returns
/// the largest magnitudes if this is the `LAST` pass.
#[inline(always)]
fn first_pass<S: Simd, const LANES: usize, const N: usize, const LAST: bool>(
    s: S,
    x: &[F32x16],
    out: &mut [F32x16],
    apart: usize,
) -> S::F {
    let mut largest = s.zero();
    for (x, out) in x.chunks_exact(N * apart).zip(out.chunks_exact_mut(N * apart)) {
        for i in 0..apart {
            let mut v = [s.zero(); N];
            for j in 0..N {
                v[j] = s.load(&x[i + j * apart]);
                if LANES > 1 {
                    v[j] = s.butterfly::<1>(v[j]);
                }
                if LANES > 2 {
                    v[j] = s.butterfly::<2>(v[j]);
                }
                if LANES > 4 {
                    v[j] = s.butterfly::<4>(v[j]);
                }
                if LANES > 8 {
                    v[j] = s.butterfly::<8>(v[j]);
                }
            }
            let v = butterflies(s, v);
            for j in 0..N {
                if LAST {
                    largest = s.max(largest, s.abs(v[j]));
                }
                s.store(&mut out[i + j * apart], v[j]);
            }
        }
    }
    largest
}

/// The stages between `N` registers `apart`, in place.
#[inline(always)]
fn second_pass<S: Simd, const N: usize>(s: S, buffer: &mut [F32x16], apart: usize) -> S::F {
    let mut largest = s.zero();
    for block in buffer.chunks_exact_mut(N * apart) {
        for i in 0..apart {
            let mut v = [s.zero(); N];
            for j in 0..N {
                v[j] = s.load(&block[i + j * apart]);
            }
            let v = butterflies(s, v);
            for j in 0..N {
                largest = s.max(largest, s.abs(v[j]));
                s.store(&mut block[i + j * apart], v[j]);
            }
        }
    }
    largest
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
    let width = norm.weight.len();
    assert!(norm.bias.len() == width && hidden <= width * 16 && hidden + 16 > width * 16);
    assert!(width > 0 && x.len().is_multiple_of(width) && (y.is_empty() || y.len() == x.len()));
    let n = hidden as f32;
    let tail = hidden - (width - 1) * 16;
    for (row, x) in x.chunks_exact_mut(width).enumerate() {
        let mut sum = s.zero();
        if y.is_empty() {
            for x in x.iter() {
                sum = s.add(sum, s.load(x));
            }
        } else {
            for (x, y) in x.iter_mut().zip(&y[row * width..][..width]) {
                let v = s.add(s.load(x), s.load(y));
                sum = s.add(sum, v);
                s.store(x, v);
            }
        }
        let mean = s.splat(s.sum(sum) / n);
        let mut squares = s.zero();
        let (last, body) = x.split_last_mut().expect("width > 0");
        for x in body.iter_mut() {
            let d = s.sub(s.load(x), mean);
            squares = s.fma(d, d, squares);
            s.store(x, d);
        }
        let d = s.keep_first(s.sub(s.load(last), mean), tail, 0.0);
        squares = s.fma(d, d, squares);
        s.store(last, d);
        let scale = s.splat(1.0 / scalar::sqrt(s.sum(squares) / n + eps));
        for ((x, weight), bias) in x.iter_mut().zip(norm.weight).zip(norm.bias) {
            s.store(x, s.fma(s.mul(s.load(x), scale), s.load(weight), s.load(bias)));
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
            for ((x, row), scale) in x.chunks_mut(VECTORS).zip(row.chunks(VECTORS)).zip(scales) {
                let scale = s.splat(half::f16::from_bits(*scale).to_f32());
                each!(x, row, |w| s.mul(s.to_f32(s.load_i8(w)), scale))
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
            for ((x, row), scale) in x.chunks(VECTORS).zip(row.chunks(VECTORS)).zip(scales) {
                let scale = s.splat(half::f16::from_bits(*scale).to_f32());
                each!(x, row, |w| s.mul(s.to_f32(s.load_i8(w)), scale))
            }
        }
        TableRow::F16(row) => each!(x, row, |w| s.load_f16(w)),
        TableRow::F32(row) => each!(x, row, |w| s.load(w)),
    }
    s.sum(sum)
}
