//! Baseline NEON (every ARMv8-A).
//!
//! The int8 product widens to i16 (`smull`, `smull2`), where two products of values in [-127, 127]
//! fit (at most 32,258), and adds neighbours twice: in i16 (`addp`), then into i32 (`sadalp`).

use core::arch::aarch64::*;

use super::neon::{Neon, Product};

pub type Baseline = Neon<Smull>;

/// The products of baseline NEON. Proves NEON.
#[derive(Clone, Copy)]
pub struct Smull(());

impl Product for Smull {
    #[inline(always)]
    unsafe fn assume() -> Self {
        Self(())
    }
    #[inline(always)]
    fn dot(self, acc: int32x4_t, a: int8x16_t, w: int8x16_t) -> int32x4_t {
        // SAFETY: `self` proves NEON.
        unsafe {
            let low = vmull_s8(vget_low_s8(a), vget_low_s8(w));
            let high = vmull_high_s8(a, w);
            vpadalq_s16(acc, vpaddq_s16(low, high))
        }
    }
}
