//! AVX2 with FMA and F16C.
//!
//! The int8 product is `vpmaddubsw`, which adds two products into an i16 that saturates. Its first
//! factor is unsigned: it gets |a|, and the sign of `a` moves to the weight. With both in
//! [-127, 127] a pair is at most 32,258 and never saturates.

use core::arch::x86_64::*;

use super::ymm::{Product, Ymm};

pub type Avx2 = Ymm<MaddUbs>;

/// The products of AVX2. Proves AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub struct MaddUbs(());

impl Product for MaddUbs {
    const OFFSET: i32 = 0;
    /// The magnitudes of the activations, and the activations.
    type Quad = (__m256i, __m256i);

    #[inline(always)]
    unsafe fn assume() -> Self {
        Self(())
    }
    #[inline(always)]
    fn quad(self, bytes: [i8; 4]) -> (__m256i, __m256i) {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let a = _mm256_set1_epi32(i32::from_le_bytes(bytes.map(|b| b as u8)));
            (_mm256_abs_epi8(a), a)
        }
    }
    #[inline(always)]
    fn opaque(self, (magnitude, a): (__m256i, __m256i)) -> (__m256i, __m256i) {
        #[inline]
        #[target_feature(enable = "avx")]
        fn opaque(mut a: __m256i) -> __m256i {
            // SAFETY: there is no instruction.
            unsafe { core::arch::asm!("/* {} */", inout(ymm_reg) a, options(nomem, nostack)) };
            a
        }
        // SAFETY: `self` proves AVX.
        unsafe { (opaque(magnitude), opaque(a)) }
    }
    #[inline(always)]
    fn dot(self, acc: __m256i, (magnitude, a): (__m256i, __m256i), w: __m256i) -> __m256i {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(w, a));
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
    #[inline(always)]
    fn dot_pair(self, acc: __m256i, a: __m256i, w: __m256i) -> __m256i {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(a, w)) }
    }
}
