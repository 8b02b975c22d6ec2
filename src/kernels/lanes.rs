//! The vector that all kernels use: sixteen lanes of 32 bits, whatever the registers are.
//!
//! An instruction set implements [`Simd`] with one 512-bit register, two of 256 bits, four of 128 bits, or
//! an array. Because the vector has sixteen lanes everywhere, a loop over it adds in the same order
//! everywhere, and so gives the same bits.

use super::matmul::{self, Quads, Tile};

/// Sixteen f32, one cache line.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub struct F32x16(pub [f32; 16]);

/// Sixteen i32, one cache line.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub struct I32x16(pub [i32; 16]);

/// Four i8 of each of sixteen channels, channel by channel: one step of an int8 panel.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub struct I8x64(pub [i8; 64]);

/// Two i16 of each of sixteen channels, channel by channel: one step of a 16-bit panel.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub struct I16x32(pub [i16; 32]);

/// Thirty-two numbers below 2^15, one cache line.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub struct U16x32(pub [u16; 32]);

/// The bits of sixteen half-precision floats.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(32))]
pub struct F16x16(pub [u16; 16]);

/// Sixteen int8 values of one row: weights of a table, or quantised activations. Activations are stored
/// as the instruction set multiplies them: `q + Simd::OFFSET` in eight bits.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(16))]
pub struct I8x16(pub [i8; 16]);

impl F32x16 {
    /// Zeros.
    pub const ZERO: Self = Self([0.0; 16]);
}

impl U16x32 {
    /// The memory of sixteen f32, reused for thirty-two u16.
    #[inline(always)]
    pub fn of_mut(floats: &mut F32x16) -> &mut Self {
        // SAFETY: both are 64 plain bytes aligned to 64.
        unsafe { &mut *core::ptr::from_mut(floats).cast() }
    }
    /// Undoes the order of [`Simd::to_u16`]: the lanes of its first vector, then those of its second.
    pub(crate) fn in_turn(&self) -> [u16; 32] {
        core::array::from_fn(|i| self.0[i % 16 / 4 * 8 + i / 16 * 4 + i % 4])
    }
}

impl I8x64 {
    /// The memory of vectors of floats, reused for steps of an int8 panel.
    #[inline(always)]
    pub(crate) fn slice_of_mut(floats: &mut [F32x16]) -> &mut [Self] {
        // SAFETY: both are 64 plain bytes aligned to 64.
        unsafe { core::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), floats.len()) }
    }
}

impl I32x16 {
    /// Sixteen pairs of i16 as sixteen words, the first of each pair in the low half.
    #[inline(always)]
    pub fn of_pairs_mut(pairs: &mut I16x32) -> &mut Self {
        // SAFETY: both are 64 plain bytes aligned to 64.
        unsafe { &mut *core::ptr::from_mut(pairs).cast() }
    }
}

/// Sixteen lanes of f32 and i32 on one instruction set.
///
/// Each value of an implementing type proves that the machine has the instructions: only [`Simd::assume`]
/// makes one, and its caller is responsible. All methods are `inline(always)` and have no
/// `target_feature`; they must be inlined into a function that has it (see `isa.rs`).
///
/// `max(a, b)` and `min(a, b)` give `b` where `a` is NaN; other results from NaN are unspecified.
pub trait Simd: Copy {
    /// Sixteen f32.
    type F: Copy;
    /// Sixteen i32.
    type I: Copy;
    /// Thirty-two u16.
    type U: Copy;
    /// Four consecutive activations of one row, broadcast to sixteen channels.
    type Quad: Copy;
    /// Two consecutive 16-bit factors of one row, broadcast to sixteen channels.
    type Pair: Copy;
    /// The weights that a [`Simd::Quad`] multiplies, in registers.
    type Quads: Copy;
    /// The weights that a [`Simd::Pair`] multiplies, in registers.
    type Pairs: Copy;

    /// What is added to a quantised activation before it is stored: 128 where the product takes an
    /// unsigned factor, else 0.
    const OFFSET: i32;
    /// The most rows of activations that a register tile has.
    const ROWS: usize;
    /// Whether small code matters more than speed: one copy of each loop, and tiles of few rows.
    const SMALL: bool = false;
    /// Whether there are registers for 24 accumulators of sixteen lanes (else for 6).
    const WIDE: bool;

    /// # Safety
    /// The running CPU has every instruction that this type uses.
    unsafe fn assume() -> Self;

    fn load(self, p: &F32x16) -> Self::F;
    fn store(self, p: &mut F32x16, v: Self::F);
    fn splat(self, v: f32) -> Self::F;
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// Correctly rounded quotient.
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    fn abs(self, a: Self::F) -> Self::F;
    /// The larger of `a`, which is not negative, and the magnitude of `b`.
    #[inline(always)]
    fn max_magnitude(self, a: Self::F, b: Self::F) -> Self::F {
        self.max(a, self.abs(b))
    }
    /// The smaller of the magnitude of `a` and `b`, which is not negative.
    #[inline(always)]
    fn min_magnitude(self, a: Self::F, b: Self::F) -> Self::F {
        self.min(self.abs(a), b)
    }
    /// The larger of `a` and zero.
    #[inline(always)]
    fn positive(self, a: Self::F) -> Self::F {
        self.max(a, self.zero())
    }
    /// Converts half precision to f32, exactly.
    fn load_f16(self, p: &F16x16) -> Self::F;
    /// Lane `i` gets `v[i ^ H] + v[i]` where bit `H` of `i` is clear, `v[i ^ H] - v[i]` where it is
    /// set: one stage of a Walsh-Hadamard transform. `H` is 1, 2, 4 or 8.
    fn butterfly<const H: usize>(self, v: Self::F) -> Self::F;
    /// Sum of the lanes: `i` and `i + 8`, then 4, 2, 1 apart.
    fn sum(self, v: Self::F) -> f32;
    /// Largest lane.
    fn largest(self, v: Self::F) -> f32;
    /// [`Simd::largest`] of each of sixteen vectors.
    #[inline(always)]
    fn largest_of_each(self, v: [Self::F; 16]) -> Self::F {
        let mut each = F32x16::ZERO;
        for i in 0..16 {
            each.0[i] = self.largest(v[i]);
        }
        self.load(&each)
    }
    /// The nearest whole number, ties to even, and `a` minus that number; exact for |a| < 2^22.
    fn split(self, a: Self::F) -> (Self::F, Self::F);
    /// `v * 2^n` for `v` in [0.5, 2) and `n` a whole number in [-125, 126]: the last step of `exp2`.
    fn scale_exp2(self, v: Self::F, n: Self::F) -> Self::F;

    /// Nearest i32, ties to even.
    fn to_i32(self, a: Self::F) -> Self::I;
    /// Nearest f32.
    fn to_f32(self, a: Self::I) -> Self::F;
    fn load_i32(self, p: &I32x16) -> Self::I;
    fn store_i32(self, p: &mut I32x16, v: Self::I);
    fn splat_i32(self, v: i32) -> Self::I;
    fn load_i8(self, p: &I8x16) -> Self::I;
    /// Low eight bits of each lane.
    fn store_i8(self, p: &mut I8x16, v: Self::I);
    /// [`Simd::store_i8`] of four vectors whose lanes are in [-127, 127].
    #[inline(always)]
    fn store_i8s(self, p: &mut [I8x16; 4], v: [Self::I; 4]) {
        for (p, v) in p.iter_mut().zip(v) {
            self.store_i8(p, v);
        }
    }
    /// Low eight bits of each lane plus [`Simd::OFFSET`].
    fn store_activation(self, p: &mut I8x16, v: Self::I);
    /// [`Simd::store_activation`] of four vectors whose lanes are in [-127, 127].
    #[inline(always)]
    fn store_activations(self, p: &mut [I8x16; 4], v: [Self::I; 4]) {
        for (p, v) in p.iter_mut().zip(v) {
            self.store_activation(p, v);
        }
    }
    /// `columns[j]` gets lane `j` of each of sixteen rows.
    #[inline(always)]
    fn transpose(self, rows: &[F32x16; 16], columns: &mut [F32x16; 16]) {
        for (t, row) in rows.iter().enumerate() {
            for (lane, column) in row.0.into_iter().zip(columns.iter_mut()) {
                column.0[t] = lane;
            }
        }
    }
    /// `columns[j]` gets quad `j` of each of sixteen rows, `stride` vectors apart: rows of int8 become
    /// steps of a panel.
    #[inline(always)]
    fn transpose_quads(self, rows: &[I8x16], stride: usize, columns: &mut [I8x64; 16]) {
        for t in 0..16 {
            let row = rows[t * stride..][..4].iter().flat_map(|v| v.0.as_chunks::<4>().0);
            for (quad, column) in row.zip(columns.iter_mut()) {
                column.0.as_chunks_mut::<4>().0[t] = *quad;
            }
        }
    }
    /// Each lane gets the low half of `low`'s lane, and above it the low half of `high`'s.
    fn interleave(self, low: Self::I, high: Self::I) -> Self::I;

    /// The sum of the lanes of each of sixteen vectors.
    #[inline(always)]
    fn sum_of_each(self, v: [Self::I; 16]) -> Self::I {
        let mut each = I32x16([0; 16]);
        for i in 0..16 {
            let mut lanes = each;
            self.store_i32(&mut lanes, v[i]);
            each.0[i] = lanes.0.into_iter().fold(0, i32::wrapping_add);
        }
        self.load_i32(&each)
    }

    fn load_u16(self, p: &U16x32) -> Self::U;
    fn store_u16(self, p: &mut U16x32, v: Self::U);
    fn splat_u16(self, v: u16) -> Self::U;
    fn add_u16(self, a: Self::U, b: Self::U) -> Self::U;
    /// The nearest whole numbers of the lanes of `a` and `b`, ties to even, clamped to the range of u16; for
    /// lanes below 2^31, minus infinity included. Four lanes of `a` alternate with four of `b`.
    fn to_u16(self, a: Self::F, b: Self::F) -> Self::U;
    /// `c * (v % 4096) / 4096`, rounded down, for `c` below 2^15.
    fn times_fraction(self, c: Self::U, v: Self::U) -> Self::U;
    /// `a / 2^(15 - v / 4096)` with `v / 4096` rounded down, and then rounded to nearest, halves up,
    /// for `a` below 2^15.
    fn scale_octaves(self, a: Self::U, v: Self::U) -> Self::U;
    /// `a * b / 2^15`, rounded to nearest, halves up, for both below 2^15.
    fn mul_u15(self, a: Self::U, b: Self::U) -> Self::U;
    /// Lane `i` gets lanes `2 i` and `2 i + 1` of `v`, which are below 2^15, added.
    fn add_neighbours(self, acc: Self::I, v: Self::U) -> Self::I;

    fn quad(self, bytes: [i8; 4]) -> Self::Quad;
    /// An optimisation barrier (like `black_box`): returns `a`. It keeps the compiler from computing equal
    /// products once.
    fn opaque(self, a: Self::Quad) -> Self::Quad {
        a
    }
    fn load_quads(self, w: &I8x64) -> Self::Quads;
    /// `acc[c] + sum over i of a[i] * w[4 c + i]` for each channel `c`; exact for weights in [-127, 127]
    /// and stored activations of values in [-127, 127].
    fn dot_quad(self, acc: Self::I, a: Self::Quad, w: Self::Quads) -> Self::I;
    fn pair(self, values: [i16; 2]) -> Self::Pair;
    fn load_pairs(self, w: &I16x32) -> Self::Pairs;
    /// `acc[c] + a[0] * w[2 c] + a[1] * w[2 c + 1]`; exact while the result fits.
    fn dot_pair(self, acc: Self::I, a: Self::Pair, w: Self::Pairs) -> Self::I;

    /// Adds the products of a tile of int8 to `acc`, `MR` rows by `NP` panels. An instruction set may have a
    /// loop of its own.
    ///
    /// # Safety
    /// `tile` describes `MR` rows and `NP` panels that exist, with all of their steps. Each row has four
    /// quads for every four steps or fewer.
    #[inline(always)]
    unsafe fn multiply_quads<const MR: usize, const NP: usize, const A: usize>(
        self,
        acc: [[Self::I; NP]; MR],
        tile: Tile<[i8; 4], I8x64, A>,
    ) -> [[Self::I; NP]; MR] {
        // SAFETY: as the caller guarantees.
        unsafe { matmul::multiply::<Self, Quads, MR, NP, A>(self, acc, tile) }
    }
    /// From how many rows on [`Simd::arrange`] saves more than it costs: rows whose tiles have one panel.
    const ARRANGE_FROM: usize = usize::MAX;
    /// Writes a panel in the order in which [`Simd::multiply_quads`] reads it for two rows or more.
    #[inline(always)]
    fn arrange(self, panel: &[I8x64], arranged: &mut [I8x64]) {
        arranged.copy_from_slice(panel);
    }

    /// Zero-point compensation: the initial accumulator of a sum over quads, `-OFFSET * sums`, where
    /// `sums` are the sums of each channel's weights.
    fn compensation(self, sums: Self::I) -> Self::I;

    /// Prefetches the cache line at `p`, which need not be readable.
    #[inline(always)]
    fn prefetch<T>(self, p: *const T) {
        let _ = p;
    }
    /// [`Simd::prefetch`] into an outer cache only.
    #[inline(always)]
    fn prefetch_far<T>(self, p: *const T) {
        let _ = p;
    }
    #[inline(always)]
    fn zero(self) -> Self::F {
        self.splat(0.0)
    }
    /// The first `n` lanes of `v`, and `fill` in the others.
    #[inline(always)]
    fn keep_first(self, v: Self::F, n: usize, fill: f32) -> Self::F {
        let mut lanes = F32x16::ZERO;
        self.store(&mut lanes, v);
        for (i, lane) in lanes.0.iter_mut().enumerate() {
            if i >= n {
                *lane = fill;
            }
        }
        self.load(&lanes)
    }
}

/// Types for which any bytes are a valid value.
///
/// # Safety
/// The type has no padding, no invalid bit patterns and no pointers.
pub unsafe trait Plain: Copy {}
// SAFETY: arrays of integers and floats, whose size equals their alignment's multiple.
unsafe impl Plain for F32x16 {}
// SAFETY: as above.
unsafe impl Plain for I32x16 {}
// SAFETY: as above.
unsafe impl Plain for I8x64 {}
// SAFETY: as above.
unsafe impl Plain for I16x32 {}
// SAFETY: as above.
unsafe impl Plain for U16x32 {}
// SAFETY: as above.
unsafe impl Plain for F16x16 {}
// SAFETY: as above.
unsafe impl Plain for I8x16 {}
// SAFETY: as above.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}

/// `bytes` as values of `T`; `None` where they are not aligned or not a whole number of values.
pub fn view<T: Plain>(bytes: &[u8]) -> Option<&[T]> {
    // SAFETY: any bytes are a valid `T`, and `align_to` gives only whole, aligned values.
    match unsafe { bytes.align_to::<T>() } {
        ([], values, []) => Some(values),
        _ => None,
    }
}

/// Vectors as floats.
pub fn flat(vectors: &[F32x16]) -> &[f32] {
    // SAFETY: sixteen floats each, without padding.
    unsafe { core::slice::from_raw_parts(vectors.as_ptr().cast(), vectors.len() * 16) }
}

/// Vectors as floats.
pub fn flat_mut(vectors: &mut [F32x16]) -> &mut [f32] {
    // SAFETY: sixteen floats each, without padding.
    unsafe { core::slice::from_raw_parts_mut(vectors.as_mut_ptr().cast(), vectors.len() * 16) }
}

/// Takes `count` values of `T` from the front of `rest`, at the next 64-byte boundary; `None` where
/// they do not fit.
pub fn take<'s, T: Plain>(rest: &mut &'s mut [u8], count: usize) -> Option<&'s mut [T]> {
    let bytes = core::mem::take(rest);
    let skip = bytes.as_ptr().align_offset(64);
    let length = count.checked_mul(size_of::<T>())?;
    let end = skip.checked_add(length)?;
    if end > bytes.len() {
        return None;
    }
    let (taken, tail) = bytes.split_at_mut(end);
    *rest = tail;
    // SAFETY: any bytes are a valid `T`; the start is 64-byte aligned and the length a multiple of its size.
    match unsafe { taken[skip..].align_to_mut::<T>() } {
        ([], values, []) => Some(values),
        _ => None,
    }
}
