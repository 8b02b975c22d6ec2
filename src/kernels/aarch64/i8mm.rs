//! The matrix products of ARMv8.6 (`smmla`): two rows of eight int8 by two channels.
//!
//! A row of `smmla` is eight consecutive inputs of one channel, in a panel two steps of four. Where a product
//! has enough rows, each panel is copied in that order first, once for all rows. Otherwise, and in
//! attention, the products are those of `dotprod`. The intrinsics are not stable; hence inline assembly.

use core::arch::aarch64::*;
use core::arch::asm;

use super::dotprod::Sdot;
use super::neon::{Neon, Product, QuadTile, Words, multiply_rest};
use crate::lanes::I8x64;

pub type I8mm = Neon<Smmla>;

/// The products of FEAT_I8MM. Proves it, FEAT_DotProd, and NEON.
#[derive(Clone, Copy)]
pub struct Smmla(Sdot);

/// Zips a pair of steps, at offsets `$first` and `$second`; their second halves are at the others.
#[rustfmt::skip]
macro_rules! zip_pair {
    ($first:literal, $second:literal, $first1:literal, $second1:literal) => {
        concat!(
            "ldp q0, q2, [{w}, #", $first, "]\n",
            "ldp q1, q3, [{w}, #", $second, "]\n",
            "ldp q4, q6, [{w}, #", $first1, "]\n",
            "ldp q5, q7, [{w}, #", $second1, "]\n",
            "st2 {{v0.4s, v1.4s}}, [{out}], #32\n",
            "st2 {{v2.4s, v3.4s}}, [{out}], #32\n",
            "st2 {{v4.4s, v5.4s}}, [{out}], #32\n",
            "st2 {{v6.4s, v7.4s}}, [{out}], #32\n",
        )
    };
}

impl Product for Smmla {
    #[inline(always)]
    unsafe fn assume() -> Self {
        // SAFETY: as the caller guarantees.
        Self(unsafe { Sdot::assume() })
    }
    #[inline(always)]
    fn dot(self, acc: int32x4_t, a: int8x16_t, w: int8x16_t) -> int32x4_t {
        self.0.dot(acc, a, w)
    }

    const ARRANGE_FROM: usize = 8;
    /// Pairs of steps: their registers zipped word by word, so that each half of a register is one channel. Up
    /// to three steps at the end stay as they are.
    #[inline(always)]
    fn arrange(self, panel: &[I8x64], arranged: &mut [I8x64]) {
        let (fours, rest) = panel.as_chunks::<4>();
        let (arranged4, arranged) = arranged.as_chunks_mut::<4>();
        assert_eq!(fours.len(), arranged4.len());
        if !fours.is_empty() {
            // SAFETY: as many fours of steps are read as written, and more than none; `self` proves NEON.
            // `st2` zips. The compiler would compute an address for each of its stores.
            unsafe {
                asm!(
                    "2:",
                    zip_pair!("0", "64", "32", "96"),
                    zip_pair!("128", "192", "160", "224"),
                    "add {w}, {w}, #256",
                    "subs {left}, {left}, #1",
                    "b.ne 2b",
                    w = inout(reg) fours.as_ptr() => _,
                    out = inout(reg) arranged4.as_mut_ptr() => _,
                    left = inout(reg) fours.len() => _,
                    out("v0") _,
                    out("v1") _,
                    out("v2") _,
                    out("v3") _,
                    out("v4") _,
                    out("v5") _,
                    out("v6") _,
                    out("v7") _,
                    options(nostack),
                );
            }
        }
        arranged.copy_from_slice(rest);
    }

    #[inline(always)]
    unsafe fn multiply_quads<const MR: usize, const NP: usize, const A: usize>(
        self,
        mut acc: [[Words; NP]; MR],
        tile: QuadTile<A>,
    ) -> [[Words; NP]; MR] {
        if !tile.arranged {
            // SAFETY: as the caller guarantees.
            return unsafe { self.0.multiply_quads(acc, tile) };
        }
        assert!(NP == 1 && MR % 2 == 0, "arranged panels are for single panels and pairs of rows");
        let (panel, rounds) = (tile.panels.cast::<i8>(), tile.steps / 4);
        if rounds > 0 {
            let row = |r: usize| tile.rows.wrapping_add(r % MR * tile.row_stride).cast::<i8>();
            if MR == 6 {
                let rows = core::array::from_fn(row);
                // SAFETY: as the caller guarantees.
                let pairs = unsafe { three_pairs(rows, panel, rounds) };
                add_pairs(self, &mut acc, pairs);
            } else if MR == 4 {
                // SAFETY: as the caller guarantees.
                let pairs =
                    unsafe { few_pairs([[row(0), row(1)], [row(2), row(3)]], panel, rounds) };
                add_pairs(self, &mut acc, pairs);
            } else {
                // SAFETY: as the caller guarantees.
                let pairs = unsafe { few_pairs([[row(0), row(1)]], panel, rounds) };
                add_pairs(self, &mut acc, pairs);
            }
        }
        // SAFETY: as the caller guarantees.
        unsafe { multiply_rest(self, acc, tile) }
    }
}

/// The products of a pair of rows with a panel: two rows by two channels in each register.
type Pair = [int32x4_t; 8];

/// Adds the products of pairs of rows to their accumulators.
#[inline(always)]
fn add_pairs<const P: usize, const MR: usize, const NP: usize>(
    _: Smmla,
    acc: &mut [[Words; NP]; MR],
    pairs: [Pair; P],
) {
    for p in 0..P {
        for i in 0..4 {
            // SAFETY: the first argument proves NEON.
            unsafe {
                let low = vreinterpretq_s64_s32(pairs[p][2 * i]);
                let high = vreinterpretq_s64_s32(pairs[p][2 * i + 1]);
                let first = vreinterpretq_s32_s64(vtrn1q_s64(low, high));
                let second = vreinterpretq_s32_s64(vtrn2q_s64(low, high));
                let (r, s) = (2 * p % MR, (2 * p + 1) % MR);
                acc[r][0][i] = vaddq_s32(acc[r][0][i], first);
                acc[s][0][i] = vaddq_s32(acc[s][0][i], second);
            }
        }
    }
}

/// The products of `P` pairs of rows, at most two, and an arranged panel, over `rounds` of four steps.
///
/// # Safety
/// The CPU has FEAT_I8MM. The rows and the panel have at least `rounds` of four steps.
#[inline(always)]
unsafe fn few_pairs<const P: usize>(
    rows: [[*const i8; 2]; P],
    panel: *const i8,
    rounds: usize,
) -> [Pair; P] {
    // SAFETY: as the caller guarantees.
    unsafe {
        let mut acc = [[vdupq_n_s32(0); 8]; P];
        for round in 0..rounds {
            let mut x = [[vdupq_n_s8(0); 2]; P];
            for p in 0..P {
                let first = vreinterpretq_s64_s8(vld1q_s8(rows[p][0].add(16 * round)));
                let second = vreinterpretq_s64_s8(vld1q_s8(rows[p][1].add(16 * round)));
                x[p][0] = vreinterpretq_s8_s64(vtrn1q_s64(first, second));
                x[p][1] = vreinterpretq_s8_s64(vtrn2q_s64(first, second));
            }
            for half in 0..2 {
                for i in 0..8 {
                    let w = vld1q_s8(panel.add(256 * round + 128 * half + 16 * i));
                    for p in 0..P {
                        asm!(
                            ".arch_extension i8mm",
                            "smmla {acc:v}.4s, {x:v}.16b, {w:v}.16b",
                            acc = inout(vreg) acc[p][i],
                            x = in(vreg) x[p][half],
                            w = in(vreg) w,
                            options(pure, nomem, nostack, preserves_flags),
                        );
                    }
                }
            }
        }
        acc
    }
}

/// The weights of four channels, in two registers, by three pairs of rows. The products of pair `p` are in
/// registers from `8 p` on.
#[rustfmt::skip]
macro_rules! four_channels {
    (0, $offset:literal, $a:literal, $b:literal, $c:literal) => {
        four_channels!(@ $offset, $a, $b, $c, "0", "1", "8", "9", "16", "17")
    };
    (1, $offset:literal, $a:literal, $b:literal, $c:literal) => {
        four_channels!(@ $offset, $a, $b, $c, "2", "3", "10", "11", "18", "19")
    };
    (2, $offset:literal, $a:literal, $b:literal, $c:literal) => {
        four_channels!(@ $offset, $a, $b, $c, "4", "5", "12", "13", "20", "21")
    };
    (3, $offset:literal, $a:literal, $b:literal, $c:literal) => {
        four_channels!(@ $offset, $a, $b, $c, "6", "7", "14", "15", "22", "23")
    };
    (@ $offset:literal, $a:literal, $b:literal, $c:literal,
        $a0:literal, $a1:literal, $b0:literal, $b1:literal, $c0:literal, $c1:literal) => {
        concat!(
            "ldp q30, q31, [{w}, #", $offset, "]\n",
            "smmla v", $a0, ".4s, v", $a, ".16b, v30.16b\n",
            "smmla v", $b0, ".4s, v", $b, ".16b, v30.16b\n",
            "smmla v", $c0, ".4s, v", $c, ".16b, v30.16b\n",
            "smmla v", $a1, ".4s, v", $a, ".16b, v31.16b\n",
            "smmla v", $b1, ".4s, v", $b, ".16b, v31.16b\n",
            "smmla v", $c1, ".4s, v", $c, ".16b, v31.16b\n",
        )
    };
}

/// The products of three pairs of rows and an arranged panel, over `rounds` of four steps. They take all 32
/// registers, which the compiler would not manage.
///
/// # Safety
/// The CPU has FEAT_I8MM. The rows and the panel have at least `rounds` of four steps; `rounds` is not zero.
#[inline(always)]
unsafe fn three_pairs(rows: [*const i8; 6], panel: *const i8, rounds: usize) -> [Pair; 3] {
    // SAFETY: as the caller guarantees.
    unsafe {
        let mut acc = [[vdupq_n_s32(0); 8]; 3];
        asm!(
            ".arch_extension i8mm",
            "2:",
            "ldr q30, [{r0}, {k}]",
            "ldr q25, [{r1}, {k}]",
            "ldr q31, [{r2}, {k}]",
            "ldr q27, [{r3}, {k}]",
            "trn1 v24.2d, v30.2d, v25.2d",
            "trn2 v25.2d, v30.2d, v25.2d",
            "ldr q30, [{r4}, {k}]",
            "ldr q29, [{r5}, {k}]",
            "trn1 v26.2d, v31.2d, v27.2d",
            "trn2 v27.2d, v31.2d, v27.2d",
            "trn1 v28.2d, v30.2d, v29.2d",
            "trn2 v29.2d, v30.2d, v29.2d",
            four_channels!(0, "0", "24", "26", "28"),
            four_channels!(1, "32", "24", "26", "28"),
            four_channels!(2, "64", "24", "26", "28"),
            four_channels!(3, "96", "24", "26", "28"),
            four_channels!(0, "128", "25", "27", "29"),
            four_channels!(1, "160", "25", "27", "29"),
            four_channels!(2, "192", "25", "27", "29"),
            four_channels!(3, "224", "25", "27", "29"),
            "add {w}, {w}, #256",
            "adds {k}, {k}, #16",
            "b.ne 2b",
            w = inout(reg) panel => _,
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
            inout("v16") acc[2][0],
            inout("v17") acc[2][1],
            inout("v18") acc[2][2],
            inout("v19") acc[2][3],
            inout("v20") acc[2][4],
            inout("v21") acc[2][5],
            inout("v22") acc[2][6],
            inout("v23") acc[2][7],
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
        acc
    }
}
