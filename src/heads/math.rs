//! exp, ln, softmax and sigmoid, for scores.
//!
//! `core` has neither exp nor ln, and C libraries differ from machine to machine. Here every step is
//! one addition, multiplication or division of IEEE 754, in a fixed order and not fused, so that
//! every machine gives the same scores.

use std::f32::consts::{LN_2, LOG2_E};

/// Adding and subtracting this rounds |x| < 2^22 to the nearest whole number.
const ROUNDING: f32 = 12_582_912.0;

/// [`ln`] of 0, of subnormal and of negative numbers.
const LN_OF_NOTHING: f32 = -88.0;

/// `e^x`, with a relative error below 3e-7; 0 for x below -87, `e^88` for x above 88.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`, ln 2 in two parts (Cody and Waite, "Software Manual for
/// the Elementary Functions", 1980), then the Taylor series of `e^r` up to `r^7`.
pub(crate) fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const TAYLOR: [f32; 8] =
        [1.0, 1.0, 1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0];
    if x.is_nan() {
        return x;
    }
    if x < -87.0 {
        return 0.0;
    }
    let x = if x > 88.0 { 88.0 } else { x };
    let n = (x * LOG2_E + ROUNDING) - ROUNDING;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let power = TAYLOR.iter().rev().fold(0.0, |y, c| y * r + c);
    power * f32::from_bits(((n as i32 + 127) as u32) << 23)
}

/// `ln x`, with an absolute error below 1e-6 + 1e-7 |ln x|; -88 for zero, and for subnormal and
/// negative numbers.
///
/// `x = 2^e m` with m near 1, and `ln m = 2 artanh((m - 1) / (m + 1))` as a series.
pub(crate) fn ln(x: f32) -> f32 {
    if x.is_nan() || x < f32::MIN_POSITIVE {
        return LN_OF_NOTHING;
    }
    let bits = x.to_bits();
    let mut exponent = (bits >> 23) as i32 - 127;
    let mut m = f32::from_bits(bits & 0x7f_ffff | 0x3f80_0000);
    if m > std::f32::consts::SQRT_2 {
        m *= 0.5;
        exponent += 1;
    }
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let series = [1.0f32 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0]
        .iter()
        .fold(0.0, |y: f32, c| y * square + c);
    exponent as f32 * LN_2 + 2.0 * s * series
}

/// `1 / (1 + e^-x)`.
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Turns logits into probabilities: `e^x / sum of e^x`, after subtracting the maximum.
///
/// ```
/// let mut x = [1.0, 1.0];
/// bertlet::heads::softmax(&mut x);
/// assert_eq!(x, [0.5, 0.5]);
/// ```
pub fn softmax(x: &mut [f32]) {
    let Some(largest) = argmax(x).map(|i| x[i]) else { return };
    let mut sum = 0f64;
    for x in x.iter_mut() {
        *x = exp(*x - largest);
        sum += f64::from(*x);
    }
    let sum = sum as f32;
    x.iter_mut().for_each(|x| *x /= sum);
}

/// Index of the first maximum; `None` if `x` is empty. NaN counts as smaller than any number.
pub fn argmax(x: &[f32]) -> Option<usize> {
    let mut best = None;
    for (i, value) in x.iter().enumerate() {
        if best.is_none_or(|best: usize| *value > x[best] || x[best].is_nan() && !value.is_nan()) {
            best = Some(i);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_ln_are_close() {
        for i in -8800..=8800 {
            let x = i as f32 / 100.0;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(x < -87.0 && exp(x) == 0.0 || error < 3e-7, "{x}: {error:e}");
            let y = f64::from(x).exp() as f32;
            if y >= f32::MIN_POSITIVE {
                let error = (f64::from(ln(y)) - f64::from(y).ln()).abs();
                assert!(error < 1e-6 + 1e-7 * f64::from(x.abs()), "{y:e}: {error:e}");
            }
        }
        assert_eq!((exp(0.0), exp(f32::NEG_INFINITY), ln(1.0)), (1.0, 0.0, 0.0));
        assert!(exp(f32::INFINITY).is_finite() && exp(f32::NAN).is_nan());
        assert_eq!([ln(0.0), ln(f32::NAN), ln(-1.0)], [LN_OF_NOTHING; 3]);
    }

    #[test]
    fn softmax_of_anything_does_not_panic() {
        softmax(&mut []);
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            softmax(&mut [odd, 1.0, odd]);
        }
        let mut x = [1000.0, 0.0, 999.0];
        softmax(&mut x);
        assert!((x[0] - 0.731_058_6).abs() < 1e-6 && x[1] == 0.0);
    }

    #[test]
    fn argmax_takes_the_first() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), Some(1));
        assert_eq!(argmax(&[f32::NAN, -1.0, f32::NAN]), Some(1));
        assert_eq!(argmax(&[]), None);
    }
}
