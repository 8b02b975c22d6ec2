//! The dot products of ARMv8.2 (`sdot`): four products of int8 added into each i32.
//!
//! `sdot` by element takes its four activations from one lane of a register, so that one load serves four
//! steps. Its intrinsics are not stable; hence inline assembly.

use core::arch::aarch64::*;
use core::arch::asm;

use super::neon::{Neon, Product, QuadTile, Words, multiply_rest};
use crate::lanes::I8x64;

pub type DotProd = Neon<Sdot>;

/// The products of FEAT_DotProd. Proves it, and NEON.
#[derive(Clone, Copy)]
pub struct Sdot(());

/// `sdot` of all of `$w` by lane `$lane` of `$a`.
macro_rules! sdot_by_lane {
    ($acc:expr, $w:expr, $a:expr, $lane:literal) => {
        asm!(
            ".arch_extension dotprod",
            concat!("sdot {acc:v}.4s, {w:v}.16b, {a:v}.4b[", $lane, "]"),
            acc = inout(vreg) $acc,
            w = in(vreg) $w,
            a = in(vreg) $a,
            options(pure, nomem, nostack, preserves_flags),
        )
    };
}

impl Product for Sdot {
    #[inline(always)]
    unsafe fn assume() -> Self {
        Self(())
    }
    #[inline(always)]
    fn dot(self, mut acc: int32x4_t, a: int8x16_t, w: int8x16_t) -> int32x4_t {
        // SAFETY: `self` proves the instruction.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {acc:v}.4s, {w:v}.16b, {a:v}.16b",
                acc = inout(vreg) acc,
                w = in(vreg) w,
                a = in(vreg) a,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        acc
    }
    #[inline(always)]
    unsafe fn multiply_quads<const MR: usize, const NP: usize, const A: usize>(
        self,
        mut acc: [[Words; NP]; MR],
        tile: QuadTile<A>,
    ) -> [[Words; NP]; MR] {
        let rounds = tile.steps / 4;
        if MR == 6 && NP == 1 {
            if rounds > 0 {
                let rows = core::array::from_fn(|r| {
                    tile.rows.wrapping_add((r % MR) * tile.row_stride).cast()
                });
                let own: [Words; 6] = core::array::from_fn(|r| acc[r % MR][0]);
                // SAFETY: as the caller guarantees.
                let own = unsafe { six_rows(own, rows, tile.panels, rounds) };
                for r in 0..MR {
                    acc[r][0] = own[r % 6];
                }
            }
        } else {
            for round in 0..rounds {
                // SAFETY: as the caller guarantees; `self` proves the instructions.
                unsafe {
                    let mut x = [vdupq_n_s8(0); MR];
                    for r in 0..MR {
                        x[r] = vld1q_s8(tile.rows.add(r * tile.row_stride + 4 * round).cast());
                    }
                    macro_rules! step {
                        ($lane:literal) => {
                            for p in 0..NP {
                                let w = tile.panels.add(p * tile.panel_stride + 4 * round + $lane);
                                for i in 0..4 {
                                    let w = vld1q_s8(w.cast::<i8>().add(16 * i));
                                    for r in 0..MR {
                                        sdot_by_lane!(acc[r][p][i], w, x[r], $lane);
                                    }
                                }
                            }
                        };
                    }
                    step!(0);
                    step!(1);
                    step!(2);
                    step!(3);
                }
            }
        }
        // SAFETY: as the caller guarantees.
        unsafe { multiply_rest(self, acc, tile) }
    }
}

/// A quarter of one step: the weights of four channels by all six rows. The products of row `r` and quarter
/// `i` are in register `4 r + i`, the row is in `24 + r`. `$load` comes after the first instruction.
#[rustfmt::skip]
macro_rules! quarter {
    (0, $w:literal, $lane:literal, $load:expr) => {
        quarter!(@ $w, $lane, $load, "0" "24", "4" "25", "8" "26", "12" "27", "16" "28", "20" "29")
    };
    (1, $w:literal, $lane:literal, $load:expr) => {
        quarter!(@ $w, $lane, $load, "1" "24", "5" "25", "9" "26", "13" "27", "17" "28", "21" "29")
    };
    (2, $w:literal, $lane:literal, $load:expr) => {
        quarter!(@ $w, $lane, $load, "2" "24", "6" "25", "10" "26", "14" "27", "18" "28", "22" "29")
    };
    (3, $w:literal, $lane:literal, $load:expr) => {
        quarter!(@ $w, $lane, $load, "3" "24", "7" "25", "11" "26", "15" "27", "19" "28", "23" "29")
    };
    (@ $w:literal, $lane:literal, $load:expr, $acc:literal $row:literal $(, $accs:literal $rows:literal)*) => {
        concat!(
            "sdot v", $acc, ".4s, v", $w, ".16b, v", $row, ".4b[", $lane, "]\n",
            $load, "\n",
            $("sdot v", $accs, ".4s, v", $w, ".16b, v", $rows, ".4b[", $lane, "]\n",)*
        )
    };
}

/// The first fifteen quarters of four steps. Each loads the next one's weights.
macro_rules! quarters {
    () => {
        concat!(
            quarter!(0, "30", "0", "ldur q31, [{w}, #-112]"),
            quarter!(1, "31", "0", "ldur q30, [{w}, #-96]"),
            quarter!(2, "30", "0", "ldur q31, [{w}, #-80]"),
            quarter!(3, "31", "0", "ldur q30, [{w}, #-64]"),
            quarter!(0, "30", "1", "ldur q31, [{w}, #-48]"),
            quarter!(1, "31", "1", "ldur q30, [{w}, #-32]"),
            quarter!(2, "30", "1", "ldur q31, [{w}, #-16]"),
            quarter!(3, "31", "1", "ldur q30, [{w}, #0]"),
            quarter!(0, "30", "2", "ldur q31, [{w}, #16]"),
            quarter!(1, "31", "2", "ldur q30, [{w}, #32]"),
            quarter!(2, "30", "2", "ldur q31, [{w}, #48]"),
            quarter!(3, "31", "2", "ldur q30, [{w}, #64]"),
            quarter!(0, "30", "3", "ldur q31, [{w}, #80]"),
            quarter!(1, "31", "3", "ldur q30, [{w}, #96]"),
            quarter!(2, "30", "3", "ldur q31, [{w}, #112]"),
        )
    };
}

/// Adds the products of six rows and a panel to `acc`, over `rounds` of four steps.
///
/// The order is for cores that issue in order (Cortex-A55): weights are loaded a quarter ahead into one of two
/// registers, and each row for the next round as soon as this round has used it. That takes all 32
/// registers, and the compiler would not keep the order. `ldur` takes fewer micro-operations than
/// `ldr` on Neoverse N1.
///
/// # Safety
/// The CPU has FEAT_DotProd. The rows and the panel have at least `rounds` of four steps; `rounds` is not
/// zero.
#[inline(always)]
unsafe fn six_rows(
    mut acc: [Words; 6],
    rows: [*const i8; 6],
    panel: *const I8x64,
    rounds: usize,
) -> [Words; 6] {
    // SAFETY: as the caller guarantees. The last round, past the loop, loads nothing for another one.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "ldur q30, [{w}, #-128]",
            "ldr q24, [{r0}, {k}]",
            "ldr q25, [{r1}, {k}]",
            "ldr q26, [{r2}, {k}]",
            "ldr q27, [{r3}, {k}]",
            "ldr q28, [{r4}, {k}]",
            "ldr q29, [{r5}, {k}]",
            "adds {k}, {k}, #16",
            "b.eq 3f",
            "2:",
            quarters!(),
            "sdot v3.4s, v31.16b, v24.4b[3]",
            "ldur q30, [{w}, #128]",
            "ldr q24, [{r0}, {k}]",
            "sdot v7.4s, v31.16b, v25.4b[3]",
            "ldr q25, [{r1}, {k}]",
            "sdot v11.4s, v31.16b, v26.4b[3]",
            "ldr q26, [{r2}, {k}]",
            "sdot v15.4s, v31.16b, v27.4b[3]",
            "add {w}, {w}, #256",
            "ldr q27, [{r3}, {k}]",
            "sdot v19.4s, v31.16b, v28.4b[3]",
            "ldr q28, [{r4}, {k}]",
            "sdot v23.4s, v31.16b, v29.4b[3]",
            "ldr q29, [{r5}, {k}]",
            "adds {k}, {k}, #16",
            "b.ne 2b",
            "3:",
            quarters!(),
            quarter!(3, "31", "3", ""),
            // From the middle of a round's weights, since `ldur` reaches 256 bytes to either side.
            w = inout(reg) panel.cast::<i8>().wrapping_add(128) => _,
            // From the end of the rows to zero.
            k = inout(reg) -16 * rounds as isize => _,
            r0 = in(reg) rows[0].wrapping_add(16 * rounds),
            r1 = in(reg) rows[1].wrapping_add(16 * rounds),
            r2 = in(reg) rows[2].wrapping_add(16 * rounds),
            r3 = in(reg) rows[3].wrapping_add(16 * rounds),
            r4 = in(reg) rows[4].wrapping_add(16 * rounds),
            r5 = in(reg) rows[5].wrapping_add(16 * rounds),
            inout("v0") acc[0][0],
            inout("v1") acc[0][1],
            inout("v2") acc[0][2],
            inout("v3") acc[0][3],
            inout("v4") acc[1][0],
            inout("v5") acc[1][1],
            inout("v6") acc[1][2],
            inout("v7") acc[1][3],
            inout("v8") acc[2][0],
            inout("v9") acc[2][1],
            inout("v10") acc[2][2],
            inout("v11") acc[2][3],
            inout("v12") acc[3][0],
            inout("v13") acc[3][1],
            inout("v14") acc[3][2],
            inout("v15") acc[3][3],
            inout("v16") acc[4][0],
            inout("v17") acc[4][1],
            inout("v18") acc[4][2],
            inout("v19") acc[4][3],
            inout("v20") acc[5][0],
            inout("v21") acc[5][1],
            inout("v22") acc[5][2],
            inout("v23") acc[5][3],
            out("v24") _,
            out("v25") _,
            out("v26") _,
            out("v27") _,
            out("v28") _,
            out("v29") _,
            out("v30") _,
            out("v31") _,
            options(pure, readonly, nostack),
        );
    }
    acc
}
