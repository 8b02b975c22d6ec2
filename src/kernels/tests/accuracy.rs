//! The fixed polynomials against f64: the bounds that `math.rs` states, on dense grids.

use super::{Activation, F32x16, Isa, floats_of_all_sizes};
use crate::lanes::Simd;
use crate::portable::Portable;
use crate::{math, scalar};

/// `erfc(x)` for x >= 0: the series of erf near zero (Abramowitz and Stegun 7.1.6), Lentz's form of
/// the continued fraction beyond (7.1.14).
fn erfc(x: f64) -> f64 {
    let density = (-x * x).exp() / std::f64::consts::PI.sqrt();
    if x < 2.5 {
        let (mut term, mut sum, mut n) = (2.0 * x, 2.0 * x, 1.0);
        while term > sum * 1e-17 {
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
            n += 1.0;
        }
        return 1.0 - density * sum;
    }
    let mut fraction = x;
    for n in (1..120).rev() {
        fraction = x + f64::from(n) * 0.5 / fraction;
    }
    density / fraction
}

/// The standard normal distribution.
fn phi(x: f64) -> f64 {
    let tail = erfc(x.abs() / std::f64::consts::SQRT_2) / 2.0;
    if x < 0.0 { tail } else { 1.0 - tail }
}

#[test]
fn the_oracle_knows_known_values() {
    for (x, y) in [
        (0.0, 1.0),
        (0.5, 0.479_500_122_186_953_5),
        (1.0, 0.157_299_207_050_285_13),
        (2.0, 0.004_677_734_981_047_266),
        (2.5, 0.000_406_952_017_444_958_9),
        (3.0, 2.209_049_699_858_544e-5),
        (5.0, 1.537_459_794_428_035e-12),
    ] {
        assert!((erfc(x) - y).abs() < 1e-14 + 1e-10 * y, "{x}: {:e}", erfc(x));
    }
}

/// `count` floats from `from` to `to`, evenly.
fn grid(from: f32, to: f32, count: usize) -> Vec<F32x16> {
    let step = (f64::from(to) - f64::from(from)) / (count - 1) as f64;
    let at = |i: usize| (f64::from(from) + step * i.min(count - 1) as f64) as f32;
    (0..count.div_ceil(16)).map(|i| F32x16(std::array::from_fn(|j| at(16 * i + j)))).collect()
}

/// Calls `check` with every x of the grid and the activation's answer on the fastest instruction
/// set: the others give the same bits.
fn each(x: &[F32x16], activation: Activation, mut check: impl FnMut(f32, f32)) {
    let mut y = x.to_vec();
    Isa::detect().kernels().activate(&mut y, activation);
    for (x, y) in x.iter().flat_map(|v| v.0).zip(y.iter().flat_map(|v| v.0)) {
        check(x, y);
    }
}

#[test]
fn gelu_is_as_accurate_as_stated() {
    for x in [grid(-12.0, 12.0, 200_000), grid(-0.01, 0.01, 10_000), grid(-1e6, 1e6, 1000)] {
        each(&x, Activation::Gelu, |x, y| {
            let exact = f64::from(x) * phi(f64::from(x));
            let error = (f64::from(y) - exact).abs();
            assert!(error < 1e-6 + 3e-7 * f64::from(x.abs()), "gelu({x}) = {y}, not {exact}");
        });
    }
}

#[test]
fn short_gelu_is_as_accurate_as_stated() {
    // SAFETY: the portable instruction set is there on every machine.
    let s = unsafe { Portable::assume() };
    for x in [grid(-12.0, 12.0, 200_000), grid(-1e6, 1e6, 1000)].concat() {
        for (x, y) in x.0.into_iter().zip(math::gelu_int8(s, x.0)) {
            let exact = f64::from(x) * phi(f64::from(x));
            let error = (f64::from(y) - exact).abs();
            assert!(error < 1.4e-4 + 1e-7 * f64::from(x.abs()), "gelu({x}) = {y}, not {exact}");
        }
    }
}

#[test]
fn tanh_is_as_accurate_as_stated() {
    for x in [grid(-12.0, 12.0, 200_000), grid(-0.01, 0.01, 10_000)] {
        each(&x, Activation::Tanh, |x, y| {
            let exact = f64::from(x).tanh();
            assert!((f64::from(y) - exact).abs() < 3e-7, "tanh({x}) = {y}, not {exact}");
        });
    }
}

#[test]
fn silu_and_tanh_gelu_are_accurate() {
    let x = grid(-30.0, 30.0, 200_000);
    each(&x, Activation::Silu, |x, y| {
        let wide = f64::from(x);
        let exact = wide / (1.0 + (-wide).exp());
        // The error of exp, 3e-7 + 8e-8 |x|, one addition and one division.
        let bound = exact.abs() * (5e-7 + 8e-8 * wide.abs());
        assert!((f64::from(y) - exact).abs() <= bound, "silu({x}) = {y}, not {exact}");
    });
    each(&x, Activation::GeluTanh, |x, y| {
        let wide = f64::from(x);
        let inner = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044715 * wide.powi(3));
        let exact = wide / 2.0 * (1.0 + inner.tanh());
        let error = (f64::from(y) - exact).abs();
        assert!(error < 3e-7 * (1.0 + wide.abs()), "gelu_tanh({x}) = {y}, not {exact}");
    });
    each(&x, Activation::Relu, |x, y| assert_eq!(y.to_bits(), (x.max(0.0) + 0.0).to_bits()));
}

fn invariants(x: &[F32x16]) {
    each(x, Activation::Gelu, |x, y| {
        assert!(y >= x.min(0.0) && y <= x.max(0.0), "gelu({x:e}) = {y:e}");
    });
    each(x, Activation::Tanh, |x, y| assert!((-1.0..=1.0).contains(&y), "tanh({x:e}) = {y:e}"));
    each(x, Activation::GeluTanh, |x, y| {
        assert!(y >= x.min(0.0) && y <= x.max(0.0), "gelu_tanh({x:e}) = {y:e}");
    });
    each(x, Activation::Silu, |x, y| {
        assert!(y >= x.min(0.0) && y <= x.max(0.0), "silu({x:e}) = {y:e}");
    });
}

#[test]
fn activations_stay_in_their_ranges() {
    let mut x = floats_of_all_sizes();
    x.retain(|v| v.0.iter().all(|x| x.is_finite()));
    invariants(&x);
}

/// Every finite float; a minute or so.
#[test]
#[ignore = "four billion floats"]
fn activations_stay_in_their_ranges_for_every_float() {
    for first in (0..=u32::MAX).step_by(1 << 20) {
        let x: Vec<_> = (0..1 << 16)
            .map(|i| F32x16(std::array::from_fn(|j| f32::from_bits(first + 16 * i + j as u32))))
            .filter(|v| v.0.iter().all(|x| x.is_finite()))
            .collect();
        invariants(&x);
    }
}

#[test]
fn exp2_is_as_accurate_as_stated() {
    // SAFETY: the portable instruction set is there on every machine.
    let s = unsafe { Portable::assume() };
    let mut x = grid(-125.0, 126.0, 100_000);
    x.extend(grid(-1.0, 1.0, 100_000));
    for x in x {
        let v = s.load(&x);
        for (x, y) in x.0.into_iter().zip(math::exp2(s, v)) {
            let error = (f64::from(y) / f64::from(x).exp2() - 1.0).abs();
            assert!(error < 3e-7, "2^{x}: {error:e}");
        }
    }
    for x in grid(-86.0, 87.0, 100_000) {
        for (x, y) in x.0.into_iter().zip(math::exp(s, s.load(&x))) {
            let error = (f64::from(y) / f64::from(x).exp() - 1.0).abs();
            assert!(error < 3e-7 + 8e-8 * f64::from(x.abs()), "e^{x}: {error:e}");
        }
    }
    // Below its range it stays at a value that is as good as nothing, and never subnormal.
    for x in [-126.0, -1e30, f32::MIN, f32::NEG_INFINITY, f32::NAN] {
        assert_eq!(math::exp2(s, s.splat(x)), [2f32.powi(-125); 16]);
    }
    assert_eq!(math::exp2(s, s.zero()), [1.0; 16]);
}

#[test]
fn exp2_of_15_bits_is_as_accurate_as_stated() {
    // SAFETY: the portable instruction set is there on every machine.
    let s = unsafe { Portable::assume() };
    let mut last = 0;
    for first in (0..=u16::MAX).step_by(32) {
        let v: [u16; 32] = std::array::from_fn(|i| first + i as u16);
        for (v, y) in v.into_iter().zip(math::exp2_15bit(s, v)) {
            let exact = 16353.3 * (f64::from(v) / 4096.0 - 15.0).exp2();
            let error = (f64::from(y) - exact).abs();
            assert!(error < 0.5 + 1.9e-3 * exact, "{v}: {y}, not {exact}");
            assert!(y >= last, "falls at {v}");
            last = y;
        }
    }
    assert_eq!(last, 32643);
    assert_eq!(math::exp2_15bit(s, [0; 32]), [0; 32]);
}

#[test]
fn rounding_to_integers_never_overflows() {
    for v in floats_of_all_sizes() {
        for x in v.0 {
            let rounded = scalar::round_to_i32(x);
            if x.abs() < 4_194_304.0 {
                assert_eq!(rounded, x.round_ties_even() as i32);
            }
        }
    }
}
