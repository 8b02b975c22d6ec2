//! Scalar arithmetic that `core` lacks, correctly rounded, so that it agrees with the hardware.

/// Adding and subtracting this rounds |x| < 2^22 to the nearest whole number, ties to even.
pub const ROUNDING: f32 = 12_582_912.0;

/// Nearest i32, ties to even, for |x| < 2^22; unspecified beyond.
#[inline(always)]
pub fn round_to_i32(x: f32) -> i32 {
    ((x + ROUNDING).to_bits() as i32).wrapping_sub(ROUNDING.to_bits() as i32)
}

/// `a * b + c`, rounded once.
#[inline(always)]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    #[cfg(all(feature = "std", target_feature = "fma"))]
    return a.mul_add(b, c);
    #[cfg(all(not(all(feature = "std", target_feature = "fma")), bertlet_soft_f64))]
    return fma_in_integers(a, b, c);
    #[cfg(all(not(all(feature = "std", target_feature = "fma")), not(bertlet_soft_f64)))]
    fma_in_f64(a, b, c)
}

/// [`fma`] for targets with f64 in hardware.
///
/// The product is exact in f64; the sum is rounded there to odd (Boldo and Melquiond, "Emulation of
/// FMA and correctly rounded sums", 2008), after which rounding to f32 cannot err twice.
#[cfg(any(test, not(bertlet_soft_f64)))]
#[allow(dead_code)] // A target with an instruction for it takes that.
#[inline(always)]
fn fma_in_f64(a: f32, b: f32, c: f32) -> f32 {
    let p = f64::from(a) * f64::from(b);
    let c = f64::from(c);
    let sum = p + c;
    // Knuth's two-sum: sum + error is exactly p + c.
    let t = sum - p;
    let error = (p - (sum - t)) + (c - t);
    let bits = sum.to_bits();
    let odd = if error == 0.0 || bits & 1 == 1 || !sum.is_finite() {
        sum
    } else if (error > 0.0) == (sum > 0.0) {
        f64::from_bits(bits + 1)
    } else {
        f64::from_bits(bits - 1)
    };
    odd as f32
}

/// [`fma`] for targets that emulate f64: the exact product and the addend meet in 64 bits.
#[cfg(any(test, bertlet_soft_f64))]
#[inline(never)] // Some hundred instructions, at many places.
fn fma_in_integers(a: f32, b: f32, c: f32) -> f32 {
    let finite = |x: f32| x.to_bits() << 1 < 0xff << 24;
    if !finite(a) || !finite(b) || a == 0.0 || b == 0.0 {
        return a * b + c; // The product is exact, infinite or NaN.
    }
    if !finite(c) {
        return c; // Here `a * b` alone could overflow, and give NaN.
    }
    let negative = |x: f32| x.to_bits() >> 31 != 0;
    let ((a_bits, a_exponent), (b_bits, b_exponent)) = (significand(a), significand(b));
    let (c_bits, c_exponent) = significand(c);

    // The leading bit of each is bit 60 or 61, its lowest one bit 14 or higher.
    let product = (u64::from(a_bits) * u64::from(b_bits)) << 14;
    let addend = u64::from(c_bits) << 38;
    let (product_exponent, addend_exponent) = (a_exponent + b_exponent - 14, c_exponent - 38);
    let ahead = product_exponent - addend_exponent;
    let exponent =
        if c_bits == 0 { product_exponent } else { product_exponent.max(addend_exponent) };
    let (product, addend) = if ahead >= 0 || c_bits == 0 {
        (product, shift_right_sticky(addend, ahead as u32))
    } else {
        (shift_right_sticky(product, ahead.unsigned_abs()), addend)
    };

    // Where bits were lost above, the two differ so much that the difference keeps its leading bits.
    let product_negative = negative(a) != negative(b);
    let (sum, sign) = if product_negative == negative(c) {
        (product + addend, product_negative)
    } else if product >= addend {
        (product - addend, product_negative)
    } else {
        (addend - product, negative(c))
    };
    if sum == 0 {
        return 0.0; // The difference of equal numbers is positive.
    }
    let magnitude = rounded(sum, exponent);
    f32::from_bits(magnitude | u32::from(sign) << 31)
}

/// `(m, e)` with the magnitude of `x` = m * 2^e, where m has 24 bits, or is 0. For a finite `x`.
#[cfg(any(test, bertlet_soft_f64))]
#[inline(always)]
fn significand(x: f32) -> (u32, i32) {
    let fraction = x.to_bits() & 0x7f_ffff;
    match x.to_bits() >> 23 & 0xff {
        0 if fraction == 0 => (0, -149),
        0 => {
            let shift = fraction.leading_zeros() - 8;
            (fraction << shift, -149 - shift as i32)
        }
        exponent => (fraction | 0x80_0000, exponent as i32 - 150),
    }
}

/// `x >> n`; its lowest bit tells as well whether a one was shifted out.
#[cfg(any(test, bertlet_soft_f64))]
#[inline(always)]
fn shift_right_sticky(x: u64, n: u32) -> u64 {
    if n < 64 { x >> n | u64::from(x & ((1 << n) - 1) != 0) } else { u64::from(x != 0) }
}

/// Bits of the f32 nearest to `x` * 2^`exponent`, ties to even, for `x` > 0.
#[cfg(any(test, bertlet_soft_f64))]
#[inline(always)]
fn rounded(x: u64, exponent: i32) -> u32 {
    // The leading bit becomes bit 63; in an f32 it is bit 23 and not stored. It mostly is within four bits
    // of its place, and 32-bit cores seldom count zeros.
    let (mut x, mut biased) = (x, exponent + 63 + 127);
    if x >> 32 == 0 {
        (x, biased) = (x << 32, biased - 32);
    }
    while x >> 63 == 0 {
        (x, biased) = (x << 1, biased - 1);
    }
    if biased >= 255 {
        return f32::INFINITY.to_bits();
    }
    if biased < 1 {
        x = shift_right_sticky(x, (1 - biased) as u32);
        biased = 1;
    }
    let kept = (x >> 40) as u32;
    let half = 1u64 << 39;
    let rest = x & (2 * half - 1);
    let up = rest > half || rest == half && kept & 1 == 1;
    // The leading bit and a carry count the exponent up.
    ((biased as u32 - 1) << 23) + kept + u32::from(up)
}

/// Correctly rounded square root; NaN below zero.
#[inline]
pub fn sqrt(x: f32) -> f32 {
    #[cfg(feature = "std")]
    return x.sqrt();
    #[cfg(not(feature = "std"))]
    sqrt_by_digits(x)
}

/// [`sqrt`] digit by digit, for targets without an instruction for it.
#[cfg(any(test, not(feature = "std")))]
fn sqrt_by_digits(x: f32) -> f32 {
    if x.is_nan() || x < 0.0 {
        return f32::NAN;
    }
    if x == 0.0 || x.is_infinite() {
        return x;
    }
    // x = m * 2^e with m of 48 or 49 bits and e even, so that the root has 25 bits: 24, and one for
    // rounding.
    let bits = x.to_bits();
    let (mut m, mut e) = match bits >> 23 {
        0 => (u64::from(bits & 0x7f_ffff), -149),
        e => (u64::from(bits & 0x7f_ffff | 0x80_0000), e as i32 - 150),
    };
    let shift = m.leading_zeros() as i32 - 15;
    m <<= shift;
    e -= shift;
    if e & 1 != 0 {
        m <<= 1;
        e -= 1;
    }
    let (mut root, mut bit) = (0u64, 1u64 << 24);
    while bit != 0 {
        if (root | bit) * (root | bit) <= m {
            root |= bit;
        }
        bit >>= 1;
    }
    // A square never falls on a tie: m would need an odd multiple of 1/4 as its root's remainder.
    let rounded = (root >> 1) + (root & 1);
    let exponent = e / 2 + 1;
    (rounded as f32) * f32::from_bits(((exponent + 127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> impl Iterator<Item = f32> {
        let mut state = 1u32;
        (0..200_000).map(move |_| {
            state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
            let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
            f32::from_bits((word >> 22) ^ word)
        })
    }

    /// All ways to an fma against the standard library's: same bits, or both NaN.
    fn check_fma(a: f32, b: f32, c: f32) {
        let exact = a.mul_add(b, c);
        for (way, ours) in [
            ("fma", fma(a, b, c)),
            ("in f64", fma_in_f64(a, b, c)),
            ("in integers", fma_in_integers(a, b, c)),
        ] {
            assert!(
                ours.to_bits() == exact.to_bits() || ours.is_nan() && exact.is_nan(),
                "{way}: {a:e} * {b:e} + {c:e} is {exact:e}, not {ours:e}"
            );
        }
    }

    #[test]
    fn fma_rounds_once() {
        let values: Vec<f32> = samples().collect();
        for w in values.windows(3) {
            let (a, b) = (w[0], w[1]);
            let less = f32::from_bits((-(a * b)).to_bits() ^ 1);
            for c in [w[2], a * b, -(a * b), less, less / 16_777_216.0, 1.0, 0.0, -0.0] {
                check_fma(a, b, c);
            }
        }
    }

    /// Random bits seldom have exponents near each other: here they have, at both ends of the range too.
    #[test]
    fn fma_rounds_once_where_product_and_addend_overlap() {
        let values: Vec<f32> = samples().collect();
        let with_exponent = |x: f32, exponent: i32| {
            f32::from_bits(x.to_bits() & 0x807f_ffff | (exponent.clamp(0, 254) as u32) << 23)
        };
        for (i, w) in values.windows(3).enumerate() {
            let near = i as i32 % 61 - 30;
            for (a, b) in [(127, 127), (64, 64), (1, 126), (30, 90), (250, 130), (0, 140), (0, 0)] {
                let c = with_exponent(w[2], a + b - 127 + near);
                check_fma(with_exponent(w[0], a), with_exponent(w[1], b), c);
            }
        }
    }

    #[test]
    fn fma_of_special_values() {
        let positive = [
            0.0,
            f32::from_bits(1),
            f32::from_bits(0x7f_ffff),
            f32::MIN_POSITIVE,
            f32::EPSILON,
            1.0 - f32::EPSILON / 2.0,
            1.0,
            1.0 + f32::EPSILON,
            3.0,
            16_777_215.0,
            f32::MAX,
            f32::INFINITY,
            f32::NAN,
        ];
        let all: Vec<f32> = positive.iter().flat_map(|&x| [x, -x]).collect();
        for &a in &all {
            for &b in &all {
                for &c in &all {
                    check_fma(a, b, c);
                }
            }
        }
    }

    /// `cargo test --release -p bertlet-kernels -- --ignored fma`
    #[test]
    #[ignore = "takes a minute"]
    fn fma_rounds_once_for_half_a_billion_triples() {
        let mut state = 0u64;
        let mut next = || {
            // SplitMix64 (Steele, Lea and Flood, 2014).
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31
        };
        for _ in 0..500_000_000u32 {
            let (x, y) = (next(), next());
            let (a, b) = (f32::from_bits(x as u32), f32::from_bits((x >> 32) as u32));
            let exponent = (a.to_bits() >> 23 & 0xff) + (b.to_bits() >> 23 & 0xff);
            // Half of the addends are near the product.
            let near = exponent.wrapping_sub(127 + 32).wrapping_add((y >> 33) as u32 % 64).min(254);
            let c = y as u32;
            let c = if y >> 63 == 0 { c } else { c & 0x807f_ffff | near << 23 };
            let (c, ours) = (f32::from_bits(c), fma_in_integers(a, b, f32::from_bits(c)));
            let exact = a.mul_add(b, c);
            assert!(
                ours.to_bits() == exact.to_bits() || ours.is_nan() && exact.is_nan(),
                "{a:e} * {b:e} + {c:e} is {exact:e}, not {ours:e}"
            );
        }
    }

    #[test]
    fn sqrt_is_correctly_rounded() {
        for x in samples().chain([0.0, 1.0, 2.0, 4.0, f32::MIN_POSITIVE, f32::MAX, 1e-45]) {
            let (ours, exact) = (sqrt_by_digits(x), x.sqrt());
            assert!(ours == exact || ours.is_nan() && exact.is_nan(), "{x:e}: {ours:e} {exact:e}");
        }
    }

    #[test]
    fn rounding_ties_to_even() {
        for (x, n) in [(0.5, 0), (1.5, 2), (-0.5, 0), (-1.5, -2), (2.500_001, 3), (-126.7, -127)] {
            assert_eq!(round_to_i32(x), n);
        }
    }
}
