//! Baseline NEON (every ARMv8-A).
//!
//! The int8 product widens to i16 (`smull`), where two products of values in [-127, 127] fit (at most
//! 32,258). So each register of products takes those of two steps (`smlal`) before neighbours are added into
//! i32 (`sadalp`). A sum is then in two lanes until the end of the tile.

use core::arch::aarch64::*;

use super::neon::{Neon, Product, QuadTile, Words, multiply_rest};

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
    #[inline(always)]
    unsafe fn multiply_quads<const MR: usize, const NP: usize, const A: usize>(
        self,
        mut acc: [[Words; NP]; MR],
        tile: QuadTile<A>,
    ) -> [[Words; NP]; MR] {
        for p in 0..NP {
            let mut r = 0;
            // SAFETY: as the caller guarantees.
            unsafe {
                let panel = tile.panels.add(p * tile.panel_stride).cast();
                // More rows at once have no registers.
                while r + 2 <= MR {
                    let rows = tile.rows.add(r * tile.row_stride).cast();
                    let sums = rows_by_panel::<2>(rows, tile.row_stride * 4, panel, tile.steps / 4);
                    for i in 0..4 {
                        acc[r][p][i] = vaddq_s32(acc[r][p][i], sums[0][i]);
                        acc[r + 1][p][i] = vaddq_s32(acc[r + 1][p][i], sums[1][i]);
                    }
                    r += 2;
                }
                if r < MR {
                    let rows = tile.rows.add(r * tile.row_stride).cast();
                    let sums = rows_by_panel::<1>(rows, tile.row_stride * 4, panel, tile.steps / 4);
                    for i in 0..4 {
                        acc[r][p][i] = vaddq_s32(acc[r][p][i], sums[0][i]);
                    }
                }
            }
        }
        // SAFETY: as the caller guarantees.
        unsafe { multiply_rest(self, acc, tile) }
    }
}

/// The products of `R` rows, `stride` bytes apart, and a panel, over `rounds` of four steps.
///
/// # Safety
/// The CPU has NEON, and the rows and the panel exist.
#[inline(always)]
unsafe fn rows_by_panel<const R: usize>(
    rows: *const i8,
    stride: usize,
    panel: *const i8,
    rounds: usize,
) -> [Words; R] {
    // SAFETY: as the caller guarantees.
    unsafe {
        let mut acc = [[vdupq_n_s32(0); 8]; R];
        for round in 0..rounds {
            let mut x = [vdupq_n_s32(0); R];
            for r in 0..R {
                x[r] = vreinterpretq_s32_s8(vld1q_s8(rows.add(r * stride + 16 * round)));
            }
            macro_rules! two_steps {
                ($first:literal, $second:literal) => {
                    let (mut x0, mut x1) = ([vdupq_n_s8(0); R], [vdupq_n_s8(0); R]);
                    for r in 0..R {
                        x0[r] = vreinterpretq_s8_s32(vdupq_laneq_s32::<$first>(x[r]));
                        x1[r] = vreinterpretq_s8_s32(vdupq_laneq_s32::<$second>(x[r]));
                    }
                    for i in 0..4 {
                        let w = panel.add(256 * round + 64 * $first + 16 * i);
                        let (w0, w1) = (vld1q_s8(w), vld1q_s8(w.add(64)));
                        for r in 0..R {
                            let low = vmull_s8(vget_low_s8(x0[r]), vget_low_s8(w0));
                            let low = vmlal_s8(low, vget_low_s8(x1[r]), vget_low_s8(w1));
                            acc[r][2 * i] = vpadalq_s16(acc[r][2 * i], low);
                            let high = vmlal_high_s8(vmull_high_s8(x0[r], w0), x1[r], w1);
                            acc[r][2 * i + 1] = vpadalq_s16(acc[r][2 * i + 1], high);
                        }
                    }
                };
            }
            two_steps!(0, 1);
            two_steps!(2, 3);
        }
        let mut sums = [[vdupq_n_s32(0); 4]; R];
        for r in 0..R {
            for i in 0..4 {
                sums[r][i] = vpaddq_s32(acc[r][2 * i], acc[r][2 * i + 1]);
            }
        }
        sums
    }
}
