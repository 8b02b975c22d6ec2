//! The reference: plain arrays, no instruction set. Every other implementation gives the same bits.

use super::lanes::{F16x16, F32x16, I8x16, I8x64, I16x32, I32x16, Simd, U16x32};
use super::scalar;

/// Arrays of sixteen.
#[derive(Clone, Copy)]
pub struct Portable(());

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
fn both(a: &[f32; 16], b: &[f32; 16], f: impl Fn(f32, f32) -> f32) -> [f32; 16] {
    let mut out = [0.0; 16];
    for i in 0..16 {
        out[i] = f(a[i], b[i]);
    }
    out
}

// Inlined where it is one instruction per lane.
#[cfg_attr(target_feature = "fma", inline(always))]
#[cfg_attr(not(target_feature = "fma"), inline(never))]
fn fma(a: &[f32; 16], b: &[f32; 16], c: &[f32; 16]) -> [f32; 16] {
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

impl Simd for Portable {
    type F = [f32; 16];
    type I = [i32; 16];
    type U = [u16; 32];
    type Quad = [i8; 4];
    type Pair = [i16; 2];
    type Quads = I8x64;
    type Pairs = I16x32;
    const OFFSET: i32 = 0;
    const ROWS: usize = 1;
    const SMALL: bool = true;
    const WIDE: bool = false;

    #[inline(always)]
    unsafe fn assume() -> Self {
        Self(())
    }
    #[inline(always)]
    fn load(self, p: &F32x16) -> [f32; 16] {
        p.0
    }
    #[inline(always)]
    fn store(self, p: &mut F32x16, v: [f32; 16]) {
        p.0 = v;
    }
    #[inline(always)]
    fn splat(self, v: f32) -> [f32; 16] {
        [v; 16]
    }
    #[inline(always)]
    fn add(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        both(&a, &b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        both(&a, &b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        both(&a, &b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        both(&a, &b, |a, b| a / b)
    }
    #[inline(always)]
    fn fma(self, a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        fma(&a, &b, &c)
    }
    #[inline(always)]
    fn max(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        both(&a, &b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        both(&a, &b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn abs(self, a: [f32; 16]) -> [f32; 16] {
        each(&a, |a| f32::from_bits(a.to_bits() & 0x7fff_ffff))
    }
    #[inline(always)]
    fn load_f16(self, p: &F16x16) -> [f32; 16] {
        each(&p.0, |bits| half::f16::from_bits(bits).to_f32())
    }
    #[inline(never)]
    fn butterfly<const H: usize>(self, v: [f32; 16]) -> [f32; 16] {
        let mut out = v;
        for i in 0..16 {
            out[i] = if i & H == 0 { v[i] + v[i ^ H] } else { v[i ^ H] - v[i] };
        }
        out
    }
    #[inline(never)]
    fn sum(self, mut v: [f32; 16]) -> f32 {
        for step in [8, 4, 2, 1] {
            for i in 0..step {
                v[i] += v[i + step];
            }
        }
        v[0]
    }
    #[inline(never)]
    fn largest(self, v: [f32; 16]) -> f32 {
        v.into_iter().fold(v[0], |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn largest_of_each(self, v: [[f32; 16]; 16]) -> [f32; 16] {
        each(&v, |v| self.largest(v))
    }
    #[inline(always)]
    fn split(self, a: [f32; 16]) -> ([f32; 16], [f32; 16]) {
        let n = each(&a, |a| (a + scalar::ROUNDING) - scalar::ROUNDING);
        (n, self.sub(a, n))
    }
    #[inline(always)]
    fn scale_exp2(self, v: [f32; 16], n: [f32; 16]) -> [f32; 16] {
        both(&v, &n, |v, n| f32::from_bits(v.to_bits().wrapping_add((n as i32 as u32) << 23)))
    }
    #[inline(always)]
    fn to_i32(self, a: [f32; 16]) -> [i32; 16] {
        each(&a, scalar::round_to_i32)
    }
    #[inline(always)]
    fn to_f32(self, a: [i32; 16]) -> [f32; 16] {
        each(&a, |a| a as f32)
    }
    #[inline(always)]
    fn load_i32(self, p: &I32x16) -> [i32; 16] {
        p.0
    }
    #[inline(always)]
    fn store_i32(self, p: &mut I32x16, v: [i32; 16]) {
        p.0 = v;
    }
    #[inline(always)]
    fn splat_i32(self, v: i32) -> [i32; 16] {
        [v; 16]
    }
    #[inline(always)]
    fn load_i8(self, p: &I8x16) -> [i32; 16] {
        each(&p.0, i32::from)
    }
    #[inline(always)]
    fn store_i8(self, p: &mut I8x16, v: [i32; 16]) {
        p.0 = each(&v, |v| v as i8);
    }
    #[inline(always)]
    fn store_activation(self, p: &mut I8x16, v: [i32; 16]) {
        self.store_i8(p, v);
    }
    #[inline(never)]
    fn interleave(self, low: [i32; 16], high: [i32; 16]) -> [i32; 16] {
        let mut out = low;
        for i in 0..16 {
            out[i] = (low[i] & 0xffff) | (high[i] << 16);
        }
        out
    }
    #[inline(never)]
    fn sum_of_each(self, v: [[i32; 16]; 16]) -> [i32; 16] {
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
    fn to_u16(self, a: [f32; 16], b: [f32; 16]) -> [u16; 32] {
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
    fn add_neighbours(self, mut acc: [i32; 16], v: [u16; 32]) -> [i32; 16] {
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
    fn dot_quad(self, mut acc: [i32; 16], a: [i8; 4], w: I8x64) -> [i32; 16] {
        for (acc, w) in acc.iter_mut().zip(w.0.as_chunks::<4>().0) {
            for i in 0..4 {
                *acc = acc.wrapping_add(i32::from(a[i]) * i32::from(w[i]));
            }
        }
        acc
    }
    #[inline(always)]
    fn compensation(self, _: [i32; 16]) -> [i32; 16] {
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
    fn dot_pair(self, mut acc: [i32; 16], a: [i16; 2], w: I16x32) -> [i32; 16] {
        for (acc, w) in acc.iter_mut().zip(w.0.as_chunks::<2>().0) {
            for i in 0..2 {
                *acc = acc.wrapping_add(i32::from(a[i]) * i32::from(w[i]));
            }
        }
        acc
    }
}
