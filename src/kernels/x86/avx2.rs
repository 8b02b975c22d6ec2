//! AVX2 with FMA and F16C: two 256-bit registers a vector.
//!
//! The int8 product is `vpmaddubsw`, which adds two products into an i16 that saturates. Its first
//! factor is unsigned: it gets |a|, and the sign of `a` moves to the weight. With both in
//! [-127, 127] a pair is at most 32,258 and never saturates.

use core::arch::x86_64::*;

use crate::lanes::{F16x16, F32x16, I8x16, I8x64, I16x32, I32x16, Simd, U16x32};

/// Proof of AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub struct Avx2(());

super::ymm!(Avx2, offset: 0, quad: (__m256i, __m256i));

impl Avx2 {
    #[inline(always)]
    fn broadcast_quad(self, bytes: [i8; 4]) -> (__m256i, __m256i) {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let a = _mm256_set1_epi32(i32::from_le_bytes(bytes.map(|b| b as u8)));
            (_mm256_abs_epi8(a), a)
        }
    }
    #[inline(always)]
    fn opaque_quad(self, (magnitude, a): (__m256i, __m256i)) -> (__m256i, __m256i) {
        #[inline]
        #[target_feature(enable = "avx")]
        fn opaque(mut a: __m256i) -> __m256i {
            // SAFETY: no instruction at all.
            unsafe { core::arch::asm!("/* {} */", inout(ymm_reg) a, options(nomem, nostack)) };
            a
        }
        // SAFETY: `self` proves AVX.
        unsafe { (opaque(magnitude), opaque(a)) }
    }
    #[inline(always)]
    fn dot_half(self, acc: __m256i, (magnitude, a): (__m256i, __m256i), w: __m256i) -> __m256i {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(w, a));
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
    #[inline(always)]
    fn dot_pair_half(self, acc: __m256i, a: __m256i, w: __m256i) -> __m256i {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(a, w)) }
    }
}
