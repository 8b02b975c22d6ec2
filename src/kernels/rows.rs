//! Kernels that work on rows: rotation and quantisation, layer norm, activation, table rows.

use super::lanes::{F16x16, F32x16, I8x16, I8x64, Simd};
use super::{Kernel, math, scalar};

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

/// Rows whose largest magnitude is smaller get the scale of this one, which is far from subnormal.
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

/// Rows that [`super::Kernels::quantize`] works on together, so that the searches for their largest
/// magnitudes overlap.
pub const QUANTIZE_ROWS: usize = 4;

/// What is applied to the rows before they are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prologue {
    /// Nothing.
    None,
    /// GELU, with an absolute error below 1.4e-4.
    Gelu,
}

/// The arguments of [`super::Kernels::quantize`].
///
/// Each row of `x` goes through the prologue and the rotation, which is not normalised, and is then
/// quantised: with `m` the largest magnitude, `scale = m / 127` and `q = round(x * (127 / m))`.
pub struct Quantize<'a> {
    /// `[rows][width]`.
    pub x: &'a [F32x16],
    /// What is applied before the rotation.
    pub prologue: Prologue,
    /// How the rows are rotated.
    pub rotation: Rotation,
    /// Up to [`QUANTIZE_ROWS`] rows of `[width]`: the rotated rows.
    pub buffer: &'a mut [F32x16],
    /// `[rows][width]`: the result.
    pub values: &'a mut [I8x16],
    /// `[rows]`: the scale of each row of the result.
    pub scale: &'a mut [f32],
    /// The weights that are multiplied next, or nothing: as many vectors as `x` has are prefetched.
    pub prefetch: &'a [I8x64],
}

impl Kernel for Quantize<'_> {
    const NAME: &'static str = "quantize";
    const INTEGER: bool = true;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { x, prologue, rotation, buffer, values, scale, prefetch } = self;
        let mut prefetch = prefetch.as_ptr();
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
                // A copy of the loops for each prologue, except where code is to be small.
                *largest = match prologue {
                    prologue if S::SMALL => rotate(s, x, prologue, row, rotation, prefetch),
                    Prologue::Gelu => rotate(s, x, Prologue::Gelu, row, rotation, prefetch),
                    Prologue::None => rotate(s, x, Prologue::None, row, rotation, prefetch),
                };
                prefetch = prefetch.wrapping_add(width);
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

/// `row = ` the rotated `x` after its prologue; returns the largest magnitude of each lane. Prefetches one
/// vector of weights for each vector of `x`.
///
/// The stages run from members next to each other to those farthest apart: [`first_pass`] takes those
/// within a vector, and as many between vectors as it has registers for; each [`next_pass`] takes more.
#[inline(always)]
fn rotate<S: Simd>(
    s: S,
    x: &[F32x16],
    prologue: Prologue,
    row: &mut [F32x16],
    rotation: Rotation,
    prefetch: *const I8x64,
) -> S::F {
    let plain = prologue == Prologue::None;
    let input = Input { x, prologue, prefetch };
    match (rotation.block, rotation.stride) {
        // The converter's choices for large models, in as many registers as there are.
        (128, 1) if S::WIDE && plain => first_pass::<S, 8>(s, input, row, 16, 1, true),
        (4, 32) if S::WIDE && plain => first_pass::<S, 4>(s, input, row, 1, 2, true),
        (4, 64) if S::WIDE && plain => first_pass::<S, 4>(s, input, row, 1, 4, true),
        (32, 16) if S::WIDE => {
            first_pass::<S, 8>(s, input, row, 1, 1, false);
            next_pass::<S, 4>(s, row, 8, true)
        }
        // All others: one register at a time, then four, then two.
        (block, stride) => {
            let (lanes, mut left, mut apart) = match stride {
                1 => (block.min(16), block.div_ceil(16), 1),
                _ => (1, block, stride / 16),
            };
            let last = left == 1;
            let mut largest = match lanes {
                // One loop for all.
                lanes if S::SMALL => first_pass::<S, 1>(s, input, row, lanes, 1, last),
                2 => first_pass::<S, 1>(s, input, row, 2, 1, last),
                4 => first_pass::<S, 1>(s, input, row, 4, 1, last),
                8 => first_pass::<S, 1>(s, input, row, 8, 1, last),
                16 => first_pass::<S, 1>(s, input, row, 16, 1, last),
                _ => first_pass::<S, 1>(s, input, row, 1, 1, last),
            };
            while left >= 4 {
                left /= 4;
                largest = next_pass::<S, 4>(s, row, apart, left == 1);
                apart *= 4;
            }
            if left == 2 { next_pass::<S, 2>(s, row, apart, true) } else { largest }
        }
    }
}

/// A row to be rotated.
#[derive(Clone, Copy)]
struct Input<'a> {
    x: &'a [F32x16],
    prologue: Prologue,
    /// Weights to prefetch, one vector for each of `x`.
    prefetch: *const I8x64,
}

/// The first pass over a row, from `input` to `row`: the stages within blocks of `lanes` lanes of a vector,
/// then those between `N` vectors that are `apart`. Returns the largest magnitudes if it is the
/// `last`.
#[inline(always)]
fn first_pass<S: Simd, const N: usize>(
    s: S,
    input: Input<'_>,
    row: &mut [F32x16],
    lanes: usize,
    apart: usize,
    last: bool,
) -> S::F {
    let Input { x, prologue, mut prefetch } = input;
    let mut largest = [s.zero(); N];
    for (x, row) in x.chunks_exact(N * apart).zip(row.chunks_exact_mut(N * apart)) {
        for i in 0..apart {
            let mut v = [s.zero(); N];
            for j in 0..N {
                v[j] = s.load(&x[i + j * apart]);
                s.prefetch_far(prefetch.wrapping_add(i + j * apart));
                if prologue == Prologue::Gelu {
                    v[j] = math::gelu_int8(s, v[j]);
                }
            }
            stages(s, v, lanes, row, i, apart, last.then_some(&mut largest));
        }
        prefetch = prefetch.wrapping_add(N * apart);
    }
    most(s, largest)
}

/// A further pass over `row`: the stages between `N` vectors that are `apart`. Returns the largest
/// magnitudes if it is the `last`.
#[inline(always)]
fn next_pass<S: Simd, const N: usize>(s: S, row: &mut [F32x16], apart: usize, last: bool) -> S::F {
    let mut largest = [s.zero(); N];
    for row in row.chunks_exact_mut(N * apart) {
        for i in 0..apart {
            let mut v = [s.zero(); N];
            for j in 0..N {
                v[j] = s.load(&row[i + j * apart]);
            }
            stages(s, v, 1, row, i, apart, last.then_some(&mut largest));
        }
    }
    most(s, largest)
}

/// The stages within blocks of `lanes` lanes of `v`, then those between its vectors. Stores these at `i`
/// and then every `apart` vectors of `row`. Raises `largest`, which is there if these are the last
/// stages.
#[inline(always)]
fn stages<S: Simd, const N: usize>(
    s: S,
    mut v: [S::F; N],
    lanes: usize,
    row: &mut [F32x16],
    i: usize,
    apart: usize,
    mut largest: Option<&mut [S::F; N]>,
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
        if let Some(largest) = &mut largest {
            // One for each register, for a shorter chain.
            largest[j] = s.max_magnitude(largest[j], v[j]);
        }
        s.store(&mut row[i + j * apart], v[j]);
    }
}

/// The largest of each lane.
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

/// Sums and differences of vectors 1, 2, 4, ... apart.
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
pub(super) struct AddNorm<'a> {
    pub x: &'a mut [F32x16],
    pub y: &'a [F32x16],
    pub norm: Norm<'a>,
    /// Elements per row; the rest of its last vector becomes zero.
    pub hidden: usize,
    pub eps: f32,
}

impl Kernel for AddNorm<'_> {
    const NAME: &'static str = "add_norm";
    const INTEGER: bool = false;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const ROWS: usize = 4;
        let Self { mut x, mut y, norm, hidden, eps } = self;
        let width = norm.weight.len();
        assert!(norm.bias.len() == width && hidden <= width * 16 && hidden + 16 > width * 16);
        assert!(width > 0 && x.len().is_multiple_of(width) && (y.is_empty() || y.len() == x.len()));
        while !x.is_empty() {
            let several = !S::SMALL && x.len() >= ROWS * width;
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
}

/// [`AddNorm`] of `R` rows that take each step together, so that their sums overlap.
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
    let x: [&mut [F32x16]; R] =
        core::array::from_fn(|_| &mut rows.next().expect("R rows")[..width]);
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
            // The following rows: those of `y` here, those of `x` below.
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

/// Applies a function to every element.
pub(super) struct Activate<'a> {
    pub x: &'a mut [F32x16],
    pub activation: Activation,
}

impl Kernel for Activate<'_> {
    const NAME: &'static str = "activate";
    const INTEGER: bool = false;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        macro_rules! each {
            (|$v:ident| $y:expr) => {
                for x in self.x {
                    let $v = s.load(x);
                    s.store(x, $y);
                }
            };
        }
        match self.activation {
            Activation::Gelu => each!(|v| math::gelu(s, v)),
            Activation::GeluTanh => each!(|v| math::gelu_tanh(s, v)),
            Activation::Relu => each!(|v| s.positive(v)),
            Activation::Silu => each!(|v| math::silu(s, v)),
            Activation::Tanh => each!(|v| math::tanh(s, v)),
        }
    }
}

/// Converts up to sixteen f16 scales, given as bits.
#[inline(always)]
fn widen<S: Simd>(s: S, scales: &[u16]) -> [f32; 16] {
    let (mut bits, mut wide) = (F16x16([0; 16]), F32x16::ZERO);
    bits.0[..scales.len()].copy_from_slice(scales);
    s.store(&mut wide, s.load_f16(&bits));
    wide.0
}

/// Whether a kernel replaces what is in its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// `out = result`.
    Set,
    /// `out += result`.
    Add,
}

/// Calls `$each!` with equally long parts of `$x` and of the values of `$row`, and how a vector of the
/// latter becomes f32.
macro_rules! each_of_table_row {
    ($s:ident, $row:expr, $x:ident.$chunks:ident, $each:ident) => {
        match $row {
            TableRow::Int8(row, scales) => {
                const VECTORS: usize = TABLE_GROUP / 16;
                assert!(row.len() == $x.len() && scales.len() * VECTORS >= row.len());
                let groups = $x.$chunks(16 * VECTORS).zip(row.chunks(16 * VECTORS));
                for ((x, row), scales) in groups.zip(scales.chunks(16)) {
                    let scales = widen($s, scales);
                    let groups = x.$chunks(VECTORS).zip(row.chunks(VECTORS));
                    for ((x, row), scale) in groups.zip(scales) {
                        let scale = $s.splat(scale);
                        $each!(x, row, |w| $s.mul($s.to_f32($s.load_i8(w)), scale))
                    }
                }
            }
            TableRow::F16(row) => $each!($x, row, |w| $s.load_f16(w)),
            TableRow::F32(row) => $each!($x, row, |w| $s.load(w)),
        }
    };
}

/// Writes a row of an embedding table to `x`.
pub(super) struct AddRow<'a> {
    pub x: &'a mut [F32x16],
    pub row: TableRow<'a>,
    pub write: Write,
}

impl Kernel for AddRow<'_> {
    const NAME: &'static str = "add_row";
    const INTEGER: bool = false;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { x, row, write } = self;
        macro_rules! each {
            ($x:expr, $row:expr, |$w:ident| $y:expr) => {{
                assert_eq!($row.len(), $x.len());
                for (x, $w) in $x.iter_mut().zip($row) {
                    let y = $y;
                    s.store(x, if write == Write::Set { y } else { s.add(s.load(x), y) });
                }
            }};
        }
        each_of_table_row!(s, row, x.chunks_mut, each)
    }
}

/// `sum over i of x[i] * row[i]`: sixteen partial sums, then their tree.
pub(super) struct DotRow<'a> {
    pub x: &'a [F32x16],
    pub row: TableRow<'a>,
}

impl Kernel for DotRow<'_> {
    const NAME: &'static str = "dot_row";
    const INTEGER: bool = false;
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let Self { x, row } = self;
        let mut sum = s.zero();
        macro_rules! each {
            ($x:expr, $row:expr, |$w:ident| $y:expr) => {{
                assert_eq!($row.len(), $x.len());
                for (x, $w) in $x.iter().zip($row) {
                    sum = s.fma(s.load(x), $y, sum);
                }
            }};
        }
        each_of_table_row!(s, row, x.chunks, each);
        s.sum(sum)
    }
}

/// Writes `x * weight` to `out`, each step rounded. The compiler chooses the vectors, since `out` may
/// start anywhere.
pub(super) struct Accumulate<'a> {
    pub out: &'a mut [f32],
    pub x: &'a [f32],
    pub weight: f32,
    pub write: Write,
}

impl Kernel for Accumulate<'_> {
    const NAME: &'static str = "accumulate";
    const INTEGER: bool = false;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { out, x, weight, write } = self;
        match write {
            Write::Set => out.iter_mut().zip(x).for_each(|(out, x)| *out = x * weight),
            Write::Add => out.iter_mut().zip(x).for_each(|(out, x)| *out += x * weight),
        }
    }
}
