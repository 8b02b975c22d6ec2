//! Baseline NEON (every ARMv8-A).
//!
//! The int8 product widens to i16 (`smull`), where two products of values in [-127, 127] fit (at most
//! 32,258). So each register of products takes those of two steps (`smlal`) before neighbours are added into
//! i32 (`sadalp`). A sum is then in two lanes until the end of the tile.

use core::arch::aarch64::*;
use core::arch::asm;

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
        let rounds = tile.steps / 4;
        let row = |r: usize| tile.rows.wrapping_add(r * tile.row_stride).cast::<i8>();
        for p in 0..if rounds > 0 { NP } else { 0 } {
            let panel = tile.panels.wrapping_add(p * tile.panel_stride).cast::<i8>();
            // More rows at once have no registers.
            for r in (0..MR / 2 * 2).step_by(2) {
                // SAFETY: as the caller guarantees.
                let [first, second] = unsafe { two_rows([row(r), row(r + 1)], panel, rounds) };
                add_halves(self, &mut acc[r][p], first);
                add_halves(self, &mut acc[r + 1][p], second);
            }
            if MR % 2 == 1 {
                // SAFETY: as the caller guarantees.
                let halves = unsafe { one_row(row(MR - 1), panel, rounds) };
                add_halves(self, &mut acc[MR - 1][p], halves);
            }
        }
        // SAFETY: as the caller guarantees.
        unsafe { multiply_rest(self, acc, tile) }
    }
}

/// The weights of four channels in two steps by two rows: products of the first step, then of the second, then
/// the sums of neighbours. The sums of row `r` are in registers from `8 r` on, its four activations of the
/// first step in register `18 + 2 r`, those of the second in `19 + 2 r`.
#[rustfmt::skip]
macro_rules! quarter {
    ($w0:literal, $w1:literal, $a0:literal, $a1:literal, $b0:literal, $b1:literal) => {
        concat!(
            "smull v26.8h, v18.8b, v", $w0, ".8b\n",
            "smull2 v27.8h, v18.16b, v", $w0, ".16b\n",
            "smull v28.8h, v20.8b, v", $w0, ".8b\n",
            "smull2 v29.8h, v20.16b, v", $w0, ".16b\n",
            "smlal v26.8h, v19.8b, v", $w1, ".8b\n",
            "smlal2 v27.8h, v19.16b, v", $w1, ".16b\n",
            "smlal v28.8h, v21.8b, v", $w1, ".8b\n",
            "smlal2 v29.8h, v21.16b, v", $w1, ".16b\n",
            "sadalp v", $a0, ".4s, v26.8h\n",
            "sadalp v", $a1, ".4s, v27.8h\n",
            "sadalp v", $b0, ".4s, v28.8h\n",
            "sadalp v", $b1, ".4s, v29.8h\n",
        )
    };
}

/// Two steps of sixteen channels: quads `$first` and `$second` of both rows by the weights at `$at` and the
/// following offsets.
#[rustfmt::skip]
macro_rules! two_steps {
    ($first:literal, $second:literal, $at:literal, $at1:literal, $at2:literal, $at3:literal) => {
        concat!(
            "dup v18.4s, v16.s[", $first, "]\n",
            "dup v20.4s, v17.s[", $first, "]\n",
            "dup v19.4s, v16.s[", $second, "]\n",
            "dup v21.4s, v17.s[", $second, "]\n",
            "ldp q22, q23, [{w}, #", $at, "]\n",
            "ldp q24, q25, [{w}, #", $at1, "]\n",
            quarter!("22", "24", "0", "1", "8", "9"),
            quarter!("23", "25", "2", "3", "10", "11"),
            "ldp q22, q23, [{w}, #", $at2, "]\n",
            "ldp q24, q25, [{w}, #", $at3, "]\n",
            quarter!("22", "24", "4", "5", "12", "13"),
            quarter!("23", "25", "6", "7", "14", "15"),
        )
    };
}

/// The products of two rows and a panel, over `rounds` of four steps: [`one_row`] of both. The compiler would
/// spill registers.
///
/// # Safety
/// The CPU has NEON. The rows and the panel have at least `rounds` of four steps; `rounds` is not zero.
#[inline(always)]
unsafe fn two_rows(rows: [*const i8; 2], panel: *const i8, rounds: usize) -> [Halves; 2] {
    // SAFETY: as the caller guarantees.
    unsafe {
        let mut acc = [[vdupq_n_s32(0); 8]; 2];
        asm!(
            "2:",
            "ldr q16, [{r0}, {k}]",
            "ldr q17, [{r1}, {k}]",
            two_steps!("0", "1", "0", "64", "32", "96"),
            two_steps!("2", "3", "128", "192", "160", "224"),
            "add {w}, {w}, #256",
            "adds {k}, {k}, #16",
            "b.ne 2b",
            w = inout(reg) panel => _,
            // From the end of the rows to zero.
            k = inout(reg) -16 * rounds as isize => _,
            r0 = in(reg) rows[0].wrapping_add(16 * rounds),
            r1 = in(reg) rows[1].wrapping_add(16 * rounds),
            inout("v0") acc[0][0],
            inout("v1") acc[0][1],
            inout("v2") acc[0][2],
            inout("v3") acc[0][3],
            inout("v4") acc[0][4],
            inout("v5") acc[0][5],
            inout("v6") acc[0][6],
            inout("v7") acc[0][7],
            inout("v8") acc[1][0],
            inout("v9") acc[1][1],
            inout("v10") acc[1][2],
            inout("v11") acc[1][3],
            inout("v12") acc[1][4],
            inout("v13") acc[1][5],
            inout("v14") acc[1][6],
            inout("v15") acc[1][7],
            out("v16") _,
            out("v17") _,
            out("v18") _,
            out("v19") _,
            out("v20") _,
            out("v21") _,
            out("v22") _,
            out("v23") _,
            out("v24") _,
            out("v25") _,
            out("v26") _,
            out("v27") _,
            out("v28") _,
            out("v29") _,
            options(pure, readonly, nostack),
        );
        acc
    }
}

/// The sums of a row: each channel's in two neighbouring lanes.
type Halves = [int32x4_t; 8];

/// The products of a row and a panel, over `rounds` of four steps.
///
/// # Safety
/// The CPU has NEON. The row and the panel have at least `rounds` of four steps.
#[inline(always)]
unsafe fn one_row(row: *const i8, panel: *const i8, rounds: usize) -> Halves {
    // SAFETY: as the caller guarantees.
    unsafe {
        let mut acc = [vdupq_n_s32(0); 8];
        for round in 0..rounds {
            let x = vreinterpretq_s32_s8(vld1q_s8(row.add(16 * round)));
            macro_rules! two_steps {
                ($first:literal, $second:literal) => {
                    let x0 = vreinterpretq_s8_s32(vdupq_laneq_s32::<$first>(x));
                    let x1 = vreinterpretq_s8_s32(vdupq_laneq_s32::<$second>(x));
                    for i in 0..4 {
                        let w = panel.add(256 * round + 64 * $first + 16 * i);
                        let (w0, w1) = (vld1q_s8(w), vld1q_s8(w.add(64)));
                        let low = vmull_s8(vget_low_s8(x0), vget_low_s8(w0));
                        let low = vmlal_s8(low, vget_low_s8(x1), vget_low_s8(w1));
                        acc[2 * i] = vpadalq_s16(acc[2 * i], low);
                        let high = vmlal_high_s8(vmull_high_s8(x0, w0), x1, w1);
                        acc[2 * i + 1] = vpadalq_s16(acc[2 * i + 1], high);
                    }
                };
            }
            two_steps!(0, 1);
            two_steps!(2, 3);
        }
        acc
    }
}

/// Adds the sums of a row to `acc`.
#[inline(always)]
fn add_halves(_: Smull, acc: &mut Words, halves: Halves) {
    for i in 0..4 {
        // SAFETY: the first argument proves NEON.
        acc[i] = unsafe { vaddq_s32(acc[i], vpaddq_s32(halves[2 * i], halves[2 * i + 1])) };
    }
}
