//! AVX-VNNI: AVX2's vectors with `vpdpbusd`, which multiplies unsigned activations (`q + 128`).

use core::arch::x86_64::*;

use crate::lanes::{F16x16, F32x16, I8x16, I8x64, I16x32, I32x16, Simd, U16x32};

/// Proof of AVX-VNNI, AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub struct AvxVnni(());

/// `vpdpwssd` as it stands: LLVM takes the intrinsic apart into a product and a sum, to shorten chains
/// that are not the bottleneck here.
#[inline]
#[target_feature(enable = "avxvnni")]
fn dpwssd(mut acc: __m256i, a: __m256i, w: __m256i) -> __m256i {
    // SAFETY: registers only.
    unsafe {
        core::arch::asm!(
            "{{vex}} vpdpwssd {acc}, {a}, {w}",
            acc = inout(ymm_reg) acc,
            a = in(ymm_reg) a,
            w = in(ymm_reg) w,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

super::ymm!(AvxVnni, offset: 128, quad: __m256i);

impl AvxVnni {
    #[inline(always)]
    fn broadcast_quad(self, bytes: [i8; 4]) -> __m256i {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_set1_epi32(i32::from_le_bytes(bytes.map(|b| b as u8))) }
    }
    #[inline(always)]
    fn opaque_quad(self, a: __m256i) -> __m256i {
        a
    }
    #[inline(always)]
    fn dot_half(self, acc: __m256i, a: __m256i, w: __m256i) -> __m256i {
        // SAFETY: `self` proves AVX-VNNI.
        unsafe { _mm256_dpbusd_avx_epi32(acc, a, w) }
    }
    #[inline(always)]
    fn dot_pair_half(self, acc: __m256i, a: __m256i, w: __m256i) -> __m256i {
        // SAFETY: `self` proves AVX-VNNI.
        unsafe { dpwssd(acc, a, w) }
    }
}
