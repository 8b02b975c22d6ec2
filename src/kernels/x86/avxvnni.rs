//! AVX-VNNI: AVX2's vectors with `vpdpbusd`, which multiplies unsigned activations (`q + 128`).

use core::arch::x86_64::*;

use super::ymm::{Product, Ymm};

pub type AvxVnni = Ymm<DpBusd>;

/// The products of AVX-VNNI. Proves AVX-VNNI, AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub struct DpBusd(());

/// `vpdpwssd` as one instruction: LLVM would replace the intrinsic by a product and a sum, to shorten
/// dependency chains that are not the bottleneck here.
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

impl Product for DpBusd {
    const OFFSET: i32 = 128;
    type Quad = __m256i;

    #[inline(always)]
    unsafe fn assume() -> Self {
        Self(())
    }
    #[inline(always)]
    fn quad(self, bytes: [i8; 4]) -> __m256i {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_set1_epi32(i32::from_le_bytes(bytes.map(|b| b as u8))) }
    }
    #[inline(always)]
    fn dot(self, acc: __m256i, a: __m256i, w: __m256i) -> __m256i {
        // SAFETY: `self` proves AVX-VNNI.
        unsafe { _mm256_dpbusd_avx_epi32(acc, a, w) }
    }
    #[inline(always)]
    fn dot_pair(self, acc: __m256i, a: __m256i, w: __m256i) -> __m256i {
        // SAFETY: `self` proves AVX-VNNI.
        unsafe { dpwssd(acc, a, w) }
    }
}
