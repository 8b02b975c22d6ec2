//! exp, GELU and tanh as fixed polynomials, so that every machine gives the same bits.
//!
//! The coefficients are minimax fits (by linear programming on a Chebyshev basis, rounded to f32);
//! the stated errors were measured on dense grids against f64 and are tested below.

// Some coefficients are close to known constants.
#![allow(clippy::approx_constant)]

use super::lanes::Simd;

/// Horner's rule, highest coefficient last, every step fused.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::F, c: [f32; N]) -> S::F {
    let mut y = s.splat(c[N - 1]);
    for k in (0..N - 1).rev() {
        y = s.fma(y, x, s.splat(c[k]));
    }
    y
}

/// Least argument of [`exp2`]; below it the result stays 2^-125, which is negligible here and never
/// subnormal.
const EXP2_MIN: f32 = -125.0;

/// `2^x`, relative error below 3e-7, for x up to 126.
#[inline(always)]
pub(super) fn exp2<S: Simd>(s: S, x: S::F) -> S::F {
    const C: [f32; 6] =
        [1.0, 0.693_146_6, 0.240_221_66, 0.055_510_473, 0.009_674_952, 0.001_320_298_2];
    let (n, rest) = s.split(s.max(x, s.splat(EXP2_MIN)));
    s.scale_exp2(polynomial(s, rest, C), n)
}

/// `16353 * 2^(v / 4096 - 15)` in integers of 15 bits, for 16-bit unsigned v: from 0 at v = 0 to 32,643 at
/// 65,535. Before rounding to a whole number the relative error is below 1.9e-3, less than that of an int8
/// value. One more step of the polynomial makes that 1.2e-4, and leaves the golden error of a model's last
/// hidden state the same to three digits.
#[inline(always)]
pub(super) fn exp2_15bit<S: Simd>(s: S, v: S::U) -> S::U {
    let mut y = s.splat_u16(5514);
    for c in [10755, 16380] {
        y = s.add_u16(s.times_fraction(y, v), s.splat_u16(c));
    }
    s.scale_octaves(y, v)
}

/// `e^x`, relative error below 3e-7 plus 8e-8 |x|, for x up to 87, to which larger x are clamped.
#[inline(always)]
pub(super) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    let x = s.min(x, s.splat(87.0));
    exp2(s, s.mul(x, s.splat(core::f32::consts::LOG2_E)))
}

/// `x * Phi(x)` (Hendrycks and Gimpel, 1606.08415), absolute error below 1e-6 + 3e-7 |x|.
///
/// `Phi(u) = 1/2 + u P(u^2)` for `u = x` clamped to [-5, 5]; `P` is a polynomial in `v = 2 u^2 / 25 - 1`,
/// which keeps its terms small. The result is between 0 and x.
#[inline(always)]
pub(super) fn gelu<S: Simd>(s: S, x: S::F) -> S::F {
    const C: [f32; 13] = [
        0.141_363_78,
        -0.070_296_64,
        0.051_521_42,
        -0.040_433_243,
        0.031_426_21,
        -0.023_334_937,
        0.016_497_625,
        -0.010_978_166,
        0.006_166_251_4,
        -0.002_909_023_3,
        0.001_999_413,
        -0.001_517_541_9,
        0.000_494_805_75,
    ];
    let u = s.min(s.max(x, s.splat(-5.0)), s.splat(5.0));
    let v = s.fma(s.mul(u, u), s.splat(2.0 / 25.0), s.splat(-1.0));
    let phi = s.fma(u, polynomial(s, v, C), s.splat(0.5));
    s.mul(x, phi)
}

/// [`gelu`] for a result that becomes int8: absolute error below 1.4e-4.
///
/// `gelu(x) = max(x, 0) - a Phi(-a)` with `a = |x|`; the second term is a polynomial in `a` clamped to 3.83,
/// beyond which it stays at about 1.2e-4.
#[inline(always)]
pub(super) fn gelu_int8<S: Simd>(s: S, x: S::F) -> S::F {
    const C: [f32; 7] = [
        -0.498_516_44,
        0.381_316_78,
        0.058_666_807,
        -0.152_376_92,
        0.062_519_69,
        -0.010_898_919,
        0.000_718_411_6,
    ];
    let a = s.min_magnitude(x, s.splat(3.83));
    s.fma(a, polynomial(s, a, C), s.positive(x))
}

/// `tanh(x) = 1 - 2 / (e^2x + 1)`, absolute error below 3e-7; the result is in [-1, 1].
#[inline(always)]
pub(super) fn tanh<S: Simd>(s: S, x: S::F) -> S::F {
    let x = s.min(s.max(x, s.splat(-10.0)), s.splat(10.0));
    let e = exp2(s, s.mul(x, s.splat(2.0 * core::f32::consts::LOG2_E)));
    s.sub(s.splat(1.0), s.div(s.splat(2.0), s.add(e, s.splat(1.0))))
}

/// The tanh form of GELU: `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`.
#[inline(always)]
pub(super) fn gelu_tanh<S: Simd>(s: S, x: S::F) -> S::F {
    let cube = s.mul(s.mul(x, x), x);
    let inner = s.mul(s.splat(0.797_884_6), s.fma(cube, s.splat(0.044_715), x));
    let half = s.mul(x, s.splat(0.5));
    s.fma(half, tanh(s, inner), half)
}

/// `x / (1 + e^-x)`.
#[inline(always)]
pub(super) fn silu<S: Simd>(s: S, x: S::F) -> S::F {
    s.div(x, s.add(s.splat(1.0), exp(s, s.sub(s.zero(), x))))
}
