//! Arrays of sixteen in memory. With plain Rust on them this is the reference, to whose bits all other
//! implementations are held; cores without vector registers compute in the same way, in blocks of their own.

use super::lanes::{F16x16, F32x16, I8x16, I8x64, I16x32, I32x16, Simd, U16x32};
use super::matmul::{self, Quads, Tile};
use super::scalar;

/// Sixteen f32.
pub type Floats = [f32; 16];
/// Sixteen i32.
pub type Words = [i32; 16];

/// How an instruction set computes on arrays: the operations that take most of the time. By default they are plain
/// Rust.
pub trait Blocks: Copy {
    /// [`Simd::ROWS`].
    const ROWS: usize;

    /// # Safety
    /// The running CPU has every instruction that this type uses.
    unsafe fn assume() -> Self;
    /// [`Simd::add`].
    #[inline(always)]
    fn add(self, a: &Floats, b: &Floats) -> Floats {
        both(a, b, |a, b| a + b)
    }
    /// [`Simd::sub`].
    #[inline(always)]
    fn sub(self, a: &Floats, b: &Floats) -> Floats {
        both(a, b, |a, b| a - b)
    }
    /// [`Simd::mul`].
    #[inline(always)]
    fn mul(self, a: &Floats, b: &Floats) -> Floats {
        both(a, b, |a, b| a * b)
    }
    /// [`Simd::fma`].
    #[inline(always)]
    fn fma(self, a: &Floats, b: &Floats, c: &Floats) -> Floats {
        fma(a, b, c)
    }
    /// [`Simd::max`].
    #[inline(always)]
    fn max(self, a: &Floats, b: &Floats) -> Floats {
        both(a, b, larger)
    }
    /// [`Simd::max_magnitude`].
    #[inline(always)]
    fn max_magnitude(self, a: &Floats, b: &Floats) -> Floats {
        both(a, b, |a, b| larger(a, magnitude(b)))
    }
    /// [`Simd::min_magnitude`].
    #[inline(always)]
    fn min_magnitude(self, a: &Floats, b: &Floats) -> Floats {
        both(a, b, |a, b| smaller(magnitude(a), b))
    }
    /// [`Simd::positive`].
    #[inline(always)]
    fn positive(self, a: &Floats) -> Floats {
        each(a, |a| larger(a, 0.0))
    }
    /// [`Simd::load_f16`].
    #[inline(always)]
    fn load_f16(self, bits: &[u16; 16]) -> Floats {
        each(bits, |bits| half::f16::from_bits(bits).to_f32())
    }
    /// [`Simd::butterfly`].
    #[inline(always)]
    fn butterfly<const H: usize>(self, v: &Floats) -> Floats {
        butterfly::<H>(v)
    }
    /// [`Simd::to_i32`].
    #[inline(always)]
    fn to_i32(self, a: &Floats) -> Words {
        each(a, scalar::round_to_i32)
    }
    /// [`Simd::to_f32`].
    #[inline(always)]
    fn to_f32(self, a: &Words) -> Floats {
        each(a, |a| a as f32)
    }
    /// [`Simd::store_i8`].
    #[inline(always)]
    fn to_i8(self, v: &Words) -> [i8; 16] {
        each(v, |v| v as i8)
    }
    /// [`Simd::dot_pair`].
    #[inline(always)]
    fn dot_pair(self, acc: &mut Words, a: [i16; 2], w: &I16x32) {
        for (acc, w) in acc.iter_mut().zip(w.0.as_chunks::<2>().0) {
            for i in 0..2 {
                *acc = acc.wrapping_add(i32::from(a[i]) * i32::from(w[i]));
            }
        }
    }
    /// [`Simd::multiply_quads`].
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn multiply_quads<const MR: usize, const NP: usize, const A: usize>(
        self,
        acc: [[Words; NP]; MR],
        tile: Tile<[i8; 4], I8x64, A>,
    ) -> [[Words; NP]; MR] {
        // SAFETY: as the caller guarantees.
        unsafe { matmul::multiply::<_, Quads, MR, NP, A>(Arrays(self), acc, tile) }
    }
}

/// Arrays of sixteen, with the operations of `B`.
#[derive(Clone, Copy)]
pub struct Arrays<B>(B);

#[cfg(bertlet_portable)]
pub type Portable = Arrays<Plain>;

/// Plain Rust.
#[cfg(bertlet_portable)]
#[derive(Clone, Copy)]
pub struct Plain(());

#[cfg(bertlet_portable)]
impl Blocks for Plain {
    const ROWS: usize = 1;

    #[inline(always)]
    unsafe fn assume() -> Self {
        Self(())
    }
}

// Sixteen steps are long code, so these are not inlined where they are used.
#[inline(never)]
fn each<T: Copy, R: Copy + Default>(a: &[T; 16], f: impl Fn(T) -> R) -> [R; 16] {
    let mut out = [R::default(); 16];
    for i in 0..16 {
        out[i] = f(a[i]);
    }
    out
}

#[inline(never)]
fn both(a: &Floats, b: &Floats, f: impl Fn(f32, f32) -> f32) -> Floats {
    let mut out = [0.0; 16];
    for i in 0..16 {
        out[i] = f(a[i], b[i]);
    }
    out
}

// Inlined where it is one instruction per lane.
#[cfg_attr(target_feature = "fma", inline(always))]
#[cfg_attr(not(target_feature = "fma"), inline(never))]
fn fma(a: &Floats, b: &Floats, c: &Floats) -> Floats {
    let mut out = *c;
    for i in 0..16 {
        out[i] = scalar::fma(a[i], b[i], c[i]);
    }
    out
}

#[inline(never)]
fn both_u16(a: &[u16; 32], b: &[u16; 32], f: impl Fn(u32, u32) -> u32) -> [u16; 32] {
    let mut out = [0; 32];
    for i in 0..32 {
        out[i] = f(a[i].into(), b[i].into()) as u16;
    }
    out
}

#[inline(never)]
fn butterfly<const H: usize>(v: &Floats) -> Floats {
    let mut out = *v;
    for i in 0..16 {
        out[i] = if i & H == 0 { v[i] + v[i ^ H] } else { v[i ^ H] - v[i] };
    }
    out
}

/// `b` where `a` is NaN.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// `b` where `a` is NaN.
#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

#[inline(always)]
fn magnitude(a: f32) -> f32 {
    f32::from_bits(a.to_bits() & 0x7fff_ffff)
}

impl<B: Blocks> Simd for Arrays<B> {
    type F = Floats;
    type I = Words;
    type U = [u16; 32];
    type Quad = [i8; 4];
    type Pair = [i16; 2];
    type Quads = I8x64;
    type Pairs = I16x32;
    const OFFSET: i32 = 0;
    const ROWS: usize = B::ROWS;
    const SMALL: bool = true;
    const WIDE: bool = false;

    #[inline(always)]
    unsafe fn assume() -> Self {
        // SAFETY: as the caller guarantees.
        Self(unsafe { B::assume() })
    }
    #[inline(always)]
    fn load(self, p: &F32x16) -> Floats {
        p.0
    }
    #[inline(always)]
    fn store(self, p: &mut F32x16, v: Floats) {
        p.0 = v;
    }
    #[inline(always)]
    fn splat(self, v: f32) -> Floats {
        [v; 16]
    }
    #[inline(always)]
    fn add(self, a: Floats, b: Floats) -> Floats {
        self.0.add(&a, &b)
    }
    #[inline(always)]
    fn sub(self, a: Floats, b: Floats) -> Floats {
        self.0.sub(&a, &b)
    }
    #[inline(always)]
    fn mul(self, a: Floats, b: Floats) -> Floats {
        self.0.mul(&a, &b)
    }
    #[inline(always)]
    fn div(self, a: Floats, b: Floats) -> Floats {
        both(&a, &b, |a, b| a / b)
    }
    #[inline(always)]
    fn fma(self, a: Floats, b: Floats, c: Floats) -> Floats {
        self.0.fma(&a, &b, &c)
    }
    #[inline(always)]
    fn max(self, a: Floats, b: Floats) -> Floats {
        self.0.max(&a, &b)
    }
    #[inline(always)]
    fn min(self, a: Floats, b: Floats) -> Floats {
        both(&a, &b, smaller)
    }
    #[inline(always)]
    fn abs(self, a: Floats) -> Floats {
        each(&a, magnitude)
    }
    #[inline(always)]
    fn max_magnitude(self, a: Floats, b: Floats) -> Floats {
        self.0.max_magnitude(&a, &b)
    }
    #[inline(always)]
    fn min_magnitude(self, a: Floats, b: Floats) -> Floats {
        self.0.min_magnitude(&a, &b)
    }
    #[inline(always)]
    fn positive(self, a: Floats) -> Floats {
        self.0.positive(&a)
    }
    #[inline(always)]
    fn load_f16(self, p: &F16x16) -> Floats {
        self.0.load_f16(&p.0)
    }
    #[inline(always)]
    fn butterfly<const H: usize>(self, v: Floats) -> Floats {
        self.0.butterfly::<H>(&v)
    }
    #[inline(never)]
    fn sum(self, mut v: Floats) -> f32 {
        for step in [8, 4, 2, 1] {
            for i in 0..step {
                v[i] += v[i + step];
            }
        }
        v[0]
    }
    #[inline(never)]
    fn largest(self, v: Floats) -> f32 {
        v.into_iter().fold(v[0], larger)
    }
    #[inline(always)]
    fn largest_of_each(self, v: [Floats; 16]) -> Floats {
        each(&v, |v| self.largest(v))
    }
    #[inline(always)]
    fn split(self, a: Floats) -> (Floats, Floats) {
        let n = each(&a, |a| (a + scalar::ROUNDING) - scalar::ROUNDING);
        (n, self.sub(a, n))
    }
    #[inline(always)]
    fn scale_exp2(self, v: Floats, n: Floats) -> Floats {
        both(&v, &n, |v, n| f32::from_bits(v.to_bits().wrapping_add((n as i32 as u32) << 23)))
    }
    #[inline(always)]
    fn to_i32(self, a: Floats) -> Words {
        self.0.to_i32(&a)
    }
    #[inline(always)]
    fn to_f32(self, a: Words) -> Floats {
        self.0.to_f32(&a)
    }
    #[inline(always)]
    fn load_i32(self, p: &I32x16) -> Words {
        p.0
    }
    #[inline(always)]
    fn store_i32(self, p: &mut I32x16, v: Words) {
        p.0 = v;
    }
    #[inline(always)]
    fn splat_i32(self, v: i32) -> Words {
        [v; 16]
    }
    #[inline(always)]
    fn load_i8(self, p: &I8x16) -> Words {
        each(&p.0, i32::from)
    }
    #[inline(always)]
    fn store_i8(self, p: &mut I8x16, v: Words) {
        p.0 = self.0.to_i8(&v);
    }
    #[inline(always)]
    fn store_activation(self, p: &mut I8x16, v: Words) {
        self.store_i8(p, v);
    }
    #[inline(never)]
    fn interleave(self, low: Words, high: Words) -> Words {
        let mut out = low;
        for i in 0..16 {
            out[i] = (low[i] & 0xffff) | (high[i] << 16);
        }
        out
    }
    #[inline(never)]
    fn sum_of_each(self, v: [Words; 16]) -> Words {
        each(&v, |v| v.into_iter().fold(0, i32::wrapping_add))
    }
    #[inline(always)]
    fn load_u16(self, p: &U16x32) -> [u16; 32] {
        p.0
    }
    #[inline(always)]
    fn store_u16(self, p: &mut U16x32, v: [u16; 32]) {
        p.0 = v;
    }
    #[inline(always)]
    fn splat_u16(self, v: u16) -> [u16; 32] {
        [v; 32]
    }
    #[inline(always)]
    fn add_u16(self, a: [u16; 32], b: [u16; 32]) -> [u16; 32] {
        both_u16(&a, &b, |a, b| a + b)
    }
    #[inline(never)]
    fn to_u16(self, a: Floats, b: Floats) -> [u16; 32] {
        let mut out = [0; 32];
        for (i, out) in out.iter_mut().enumerate() {
            let x = [a, b][i / 4 % 2][i / 8 * 4 + i % 4];
            // A comparison that NaN fails.
            let x = if x > 0.0 { x } else { 0.0 };
            *out = scalar::round_to_i32(if x < 65535.0 { x } else { 65535.0 }) as u16;
        }
        out
    }
    #[inline(always)]
    fn times_fraction(self, c: [u16; 32], v: [u16; 32]) -> [u16; 32] {
        both_u16(&c, &v, |c, v| c * (v % 4096) / 4096)
    }
    #[inline(always)]
    fn scale_octaves(self, a: [u16; 32], v: [u16; 32]) -> [u16; 32] {
        both_u16(&a, &v, |a, v| ((a << (v / 4096)) + 0x4000) >> 15)
    }
    #[inline(always)]
    fn mul_u15(self, a: [u16; 32], b: [u16; 32]) -> [u16; 32] {
        both_u16(&a, &b, |a, b| (a * b + 0x4000) >> 15)
    }
    #[inline(always)]
    fn add_neighbours(self, mut acc: Words, v: [u16; 32]) -> Words {
        for (acc, [a, b]) in acc.iter_mut().zip(v.as_chunks().0) {
            *acc = acc.wrapping_add(i32::from(*a) + i32::from(*b));
        }
        acc
    }
    #[inline(always)]
    fn quad(self, bytes: [i8; 4]) -> [i8; 4] {
        bytes
    }
    #[inline(always)]
    fn opaque(self, a: [i8; 4]) -> [i8; 4] {
        core::hint::black_box(a)
    }
    #[inline(always)]
    fn load_quads(self, w: &I8x64) -> I8x64 {
        *w
    }
    #[inline(always)]
    fn dot_quad(self, mut acc: Words, a: [i8; 4], w: I8x64) -> Words {
        for (acc, w) in acc.iter_mut().zip(w.0.as_chunks::<4>().0) {
            for i in 0..4 {
                *acc = acc.wrapping_add(i32::from(a[i]) * i32::from(w[i]));
            }
        }
        acc
    }
    #[inline(always)]
    fn compensation(self, _: Words) -> Words {
        [0; 16]
    }
    #[inline(always)]
    fn pair(self, values: [i16; 2]) -> [i16; 2] {
        values
    }
    #[inline(always)]
    fn load_pairs(self, w: &I16x32) -> I16x32 {
        *w
    }
    #[inline(always)]
    fn dot_pair(self, mut acc: Words, a: [i16; 2], w: I16x32) -> Words {
        self.0.dot_pair(&mut acc, a, &w);
        acc
    }
    #[inline(always)]
    unsafe fn multiply_quads<const MR: usize, const NP: usize, const A: usize>(
        self,
        acc: [[Words; NP]; MR],
        tile: Tile<[i8; 4], I8x64, A>,
    ) -> [[Words; NP]; MR] {
        // SAFETY: as the caller guarantees.
        unsafe { self.0.multiply_quads(acc, tile) }
    }
}
