//! Scalar arithmetic that `core` lacks, correctly rounded, so that it agrees with the hardware.

/// Adding and subtracting this rounds |x| < 2^22 to the nearest whole number, ties to even.
pub const ROUNDING: f32 = 12_582_912.0;

/// Nearest i32, ties to even, for |x| < 2^22; unspecified beyond.
#[inline(always)]
pub fn round_to_i32(x: f32) -> i32 {
    ((x + ROUNDING).to_bits() as i32).wrapping_sub(ROUNDING.to_bits() as i32)
}

/// `a * b + c`, rounded once.
///
/// The product is exact in f64; the sum is rounded there to odd (Boldo and Melquiond, "Emulation of
/// FMA and correctly rounded sums", 2008), after which rounding to f32 cannot err twice.
#[inline(always)]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    #[cfg(all(feature = "std", target_feature = "fma"))]
    return a.mul_add(b, c);
    #[cfg(not(all(feature = "std", target_feature = "fma")))]
    {
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

    #[test]
    fn fma_rounds_once() {
        let values: Vec<f32> = samples().filter(|x| x.is_finite()).collect();
        for w in values.windows(3) {
            let (a, b) = (w[0], w[1]);
            for c in [w[2], -(a * b), f32::from_bits((-(a * b)).to_bits() ^ 1), 1.0, 0.0] {
                let (ours, exact) = (fma(a, b, c), a.mul_add(b, c));
                assert!(ours == exact || ours.is_nan() && exact.is_nan(), "{a:e} {b:e} {c:e}");
            }
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
