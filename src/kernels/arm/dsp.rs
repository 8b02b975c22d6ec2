//! The DSP extension with a floating-point unit: Cortex-M4F, M7 and M33.
//!
//! `smlad` adds two products of 16 bits to a sum, and `sxtb16` widens two of four bytes to 16 bits. Floats are
//! computed in blocks of eight, since registers are loaded and stored in blocks.

use core::arch::naked_asm;

use super::{calls, extensions, word, written};
use crate::lanes::{I8x64, I16x32};
use crate::matmul::Tile;
use crate::portable::{Arrays, Blocks, Floats, Words};

pub type Dsp = Arrays<Smlad>;

/// Proves the DSP extension and `vfma.f32`.
#[derive(Clone, Copy)]
pub struct Smlad(());

/// An operation on each of eight floats: `s0`, `s8` and so on.
macro_rules! eight {
    ($operation:literal, $($operands:literal)*) => {
        concat!($($operation, " ", $operands, "\n",)*)
    };
}

/// `out = operation(a, b)`.
macro_rules! binary {
    ($name:ident, $operation:literal) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(out: *mut Floats, a: *const Floats, b: *const Floats) {
            naked_asm!(
                extensions!(),
                ".rept 2",
                "vldmia r1!, {{s0-s7}}",
                "vldmia r2!, {{s8-s15}}",
                eight!($operation, "s0, s0, s8" "s1, s1, s9" "s2, s2, s10" "s3, s3, s11"
                    "s4, s4, s12" "s5, s5, s13" "s6, s6, s14" "s7, s7, s15"),
                "vstmia r0!, {{s0-s7}}",
                ".endr",
                "bx lr",
            )
        }
    };
}

binary!(add, "vadd.f32");
binary!(sub, "vsub.f32");
binary!(mul, "vmul.f32");

/// `out = operation(a)`.
macro_rules! unary {
    ($name:ident, $from:ty, $to:ty, $operation:literal) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(out: *mut $to, a: *const $from) {
            naked_asm!(
                extensions!(),
                ".rept 2",
                "vldmia r1!, {{s0-s7}}",
                eight!($operation, "s0, s0" "s1, s1" "s2, s2" "s3, s3" "s4, s4" "s5, s5" "s6, s6" "s7, s7"),
                "vstmia r0!, {{s0-s7}}",
                ".endr",
                "bx lr",
            )
        }
    };
}

unary!(to_f32, Words, Floats, "vcvt.f32.s32");
// To nearest, ties to even: the mode in which all is computed.
unary!(to_i32, Floats, Words, "vcvtr.s32.f32");

#[unsafe(naked)]
unsafe extern "C" fn fma(out: *mut Floats, a: *const Floats, b: *const Floats, c: *const Floats) {
    naked_asm!(
        extensions!(),
        "vpush {{d8-d11}}",
        ".rept 2",
        "vldmia r1!, {{s0-s7}}",
        "vldmia r2!, {{s8-s15}}",
        "vldmia r3!, {{s16-s23}}",
        eight!("vfma.f32", "s16, s0, s8" "s17, s1, s9" "s18, s2, s10" "s19, s3, s11"
            "s20, s4, s12" "s21, s5, s13" "s22, s6, s14" "s23, s7, s15"),
        "vstmia r0!, {{s16-s23}}",
        ".endr",
        "vpop {{d8-d11}}",
        "bx lr",
    )
}

/// `b` where `a` is not larger, or NaN.
#[unsafe(naked)]
unsafe extern "C" fn max(out: *mut Floats, a: *const Floats, b: *const Floats) {
    macro_rules! larger {
        ($($a:literal $b:literal),*) => {
            concat!($(
                "vcmp.f32 ", $a, ", ", $b, "\n",
                "vmrs apsr_nzcv, fpscr\n",
                "it le\n",
                "vmovle.f32 ", $a, ", ", $b, "\n",
            )*)
        };
    }
    naked_asm!(
        extensions!(),
        ".rept 2",
        "vldmia r1!, {{s0-s7}}",
        "vldmia r2!, {{s8-s15}}",
        larger!("s0" "s8", "s1" "s9", "s2" "s10", "s3" "s11", "s4" "s12", "s5" "s13", "s6" "s14", "s7" "s15"),
        "vstmia r0!, {{s0-s7}}",
        ".endr",
        "bx lr",
    )
}

/// `out[i] = the magnitude of b[i] if that is $better than a[i], else a[i]`, for `a` without signs: the bits of
/// such floats are in the order of the floats.
macro_rules! of_magnitudes {
    ($name:ident, $better:literal) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(out: *mut Floats, a: *const Floats, b: *const Floats) {
            naked_asm!(
                "push {{r4-r8, lr}}",
                ".rept 4",
                "ldmia r1!, {{r3-r6}}",
                "ldmia r2!, {{r7, r8, r12, lr}}",
                of_magnitudes!($better, "r3" "r7", "r4" "r8", "r5" "r12", "r6" "lr"),
                "stmia r0!, {{r3-r6}}",
                ".endr",
                "pop {{r4-r8, pc}}",
            )
        }
    };
    ($better:literal, $($a:literal $b:literal),*) => {
        concat!($(
            "bic ", $b, ", #0x80000000\n",
            "cmp ", $b, ", ", $a, "\n",
            "it ", $better, "\n",
            "mov", $better, " ", $a, ", ", $b, "\n",
        )*)
    };
}

of_magnitudes!(larger_magnitude, "hi");
of_magnitudes!(smaller_magnitude, "lo");

/// What compares as larger than infinity, without a sign, is negative or NaN.
#[unsafe(naked)]
unsafe extern "C" fn positive(out: *mut Floats, a: *const Floats) {
    macro_rules! positive {
        ($($a:literal)*) => {
            concat!($("cmp ", $a, ", lr\n", "it hi\n", "movhi ", $a, ", #0\n",)*)
        };
    }
    naked_asm!(
        "push {{r4, lr}}",
        "mov lr, #0",
        "movt lr, #0x7f80",
        ".rept 4",
        "ldmia r1!, {{r2-r4, r12}}",
        positive!("r2" "r3" "r4" "r12"),
        "stmia r0!, {{r2-r4, r12}}",
        ".endr",
        "pop {{r4, pc}}",
    )
}

/// The low bytes of sixteen words.
#[unsafe(naked)]
unsafe extern "C" fn to_i8(out: *mut [i8; 16], v: *const Words) {
    naked_asm!(
        "push {{r4, lr}}",
        ".rept 4",
        "ldmia r1!, {{r2-r4, r12}}",
        "bfi r2, r3, #8, #8",
        "bfi r2, r4, #16, #8",
        "bfi r2, r12, #24, #8",
        "str r2, [r0], #4",
        ".endr",
        "pop {{r4, pc}}",
    )
}

/// Half precision to floats: the low and the high half of each word.
#[unsafe(naked)]
unsafe extern "C" fn from_f16(out: *mut Floats, bits: *const [u16; 16]) {
    macro_rules! widen {
        ($($word:literal $low:literal $high:literal),*) => {
            concat!($(
                "vcvtb.f32.f16 ", $low, ", ", $word, "\n",
                "vcvtt.f32.f16 ", $high, ", ", $word, "\n",
            )*)
        };
    }
    naked_asm!(
        extensions!(),
        ".rept 2",
        "vldmia r1!, {{s0-s3}}",
        widen!("s0" "s8" "s9", "s1" "s10" "s11", "s2" "s12" "s13", "s3" "s14" "s15"),
        "vstmia r0!, {{s8-s15}}",
        ".endr",
        "bx lr",
    )
}

/// A stage of a Walsh-Hadamard transform within eight lanes.
macro_rules! butterfly {
    ($name:ident, $($a:literal $b:literal $sum:literal $difference:literal),*) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(out: *mut Floats, v: *const Floats) {
            naked_asm!(
                extensions!(),
                ".rept 2",
                "vldmia r1!, {{s0-s7}}",
                concat!($(
                    "vadd.f32 ", $sum, ", ", $a, ", ", $b, "\n",
                    "vsub.f32 ", $difference, ", ", $a, ", ", $b, "\n",
                )*),
                "vstmia r0!, {{s8-s15}}",
                ".endr",
                "bx lr",
            )
        }
    };
}

butterfly!(butterfly1, "s0" "s1" "s8" "s9", "s2" "s3" "s10" "s11", "s4" "s5" "s12" "s13", "s6" "s7" "s14" "s15");
butterfly!(butterfly2, "s0" "s2" "s8" "s10", "s1" "s3" "s9" "s11", "s4" "s6" "s12" "s14", "s5" "s7" "s13" "s15");
butterfly!(butterfly4, "s0" "s4" "s8" "s12", "s1" "s5" "s9" "s13", "s2" "s6" "s10" "s14", "s3" "s7" "s11" "s15");

/// The stage between the two halves.
#[unsafe(naked)]
unsafe extern "C" fn butterfly8(out: *mut Floats, v: *const Floats) {
    naked_asm!(
        extensions!(),
        "add r2, r1, #32",
        "add r3, r0, #32",
        ".rept 2",
        "vldmia r1!, {{s0-s3}}",
        "vldmia r2!, {{s4-s7}}",
        eight!("vadd.f32", "s8, s0, s4" "s9, s1, s5" "s10, s2, s6" "s11, s3, s7"),
        eight!("vsub.f32", "s12, s0, s4" "s13, s1, s5" "s14, s2, s6" "s15, s3, s7"),
        "vstmia r0!, {{s8-s11}}",
        "vstmia r3!, {{s12-s15}}",
        ".endr",
        "bx lr",
    )
}

/// One step of two rows and two neighbouring channels. The channels are eight bytes of a step of 64.
macro_rules! step {
    () => {
        concat!(
            "ldr r4, [r0], #4\n",
            "ldr r5, [r1], #4\n",
            "ldr r6, [r2, #4]\n",
            "sxtb16 r7, r4\n",
            "sxtb16 r4, r4, ror #8\n",
            "sxtb16 r12, r5\n",
            "sxtb16 r5, r5, ror #8\n",
            "sxtb16 lr, r6\n",
            "sxtb16 r6, r6, ror #8\n",
            "smlad r9, r7, lr, r9\n",
            "smlad r11, r12, lr, r11\n",
            "smlad r9, r4, r6, r9\n",
            "smlad r11, r5, r6, r11\n",
            "ldr r6, [r2], #64\n",
            "sxtb16 lr, r6\n",
            "sxtb16 r6, r6, ror #8\n",
            "smlad r8, r7, lr, r8\n",
            "smlad r10, r12, lr, r10\n",
            "smlad r8, r4, r6, r8\n",
            "smlad r10, r5, r6, r10\n",
        )
    };
}

/// Adds the products of two rows and two neighbouring channels of a panel to `acc[row][channel]`.
#[unsafe(naked)]
unsafe extern "C" fn multiply_two_by_two(
    row: *const [i8; 4],
    next_row: *const [i8; 4],
    panel: *const [i8; 4],
    steps: usize,
    acc: *mut i32,
) {
    naked_asm!(
        extensions!(),
        "push {{r4-r11, lr}}",
        "ldr r12, [sp, #36]",
        "ldrd r8, r9, [r12]",
        "ldrd r10, r11, [r12, #64]",
        "subs r3, #4",
        "blo 3f",
        "2:",
        step!(),
        step!(),
        step!(),
        step!(),
        "subs r3, #4",
        "bhs 2b",
        "3:",
        "adds r3, #4",
        "beq 5f",
        "4:",
        step!(),
        "subs r3, #1",
        "bne 4b",
        "5:",
        "ldr r12, [sp, #36]",
        "strd r8, r9, [r12]",
        "strd r10, r11, [r12, #64]",
        "pop {{r4-r11, pc}}",
    )
}

impl Blocks for Smlad {
    const ROWS: usize = 2;

    #[inline(always)]
    unsafe fn assume() -> Self {
        Self(())
    }
    calls!();
    #[inline(always)]
    fn dot_pair(self, acc: &mut Words, a: [i16; 2], w: &I16x32) {
        let a = word(a);
        for (acc, w) in acc.iter_mut().zip(w.0.as_chunks().0) {
            // SAFETY: `self` proves the instruction; it only computes.
            unsafe {
                core::arch::asm!(
                    "smlad {sum}, {a}, {w}, {acc}",
                    sum = lateout(reg) *acc,
                    acc = in(reg) *acc,
                    a = in(reg) a,
                    w = in(reg) word(*w),
                    options(pure, nomem, nostack),
                );
            }
        }
    }
    #[inline(always)]
    unsafe fn multiply_quads<const MR: usize, const NP: usize, const A: usize>(
        self,
        mut acc: [[Words; NP]; MR],
        tile: Tile<[i8; 4], I8x64, A>,
    ) -> [[Words; NP]; MR] {
        for p in 0..NP {
            let panel = tile.panels.wrapping_add(p * tile.panel_stride).cast::<[i8; 4]>();
            for r in (0..MR).step_by(2) {
                // A last row alone is multiplied twice.
                let next = (r + 1).min(MR - 1);
                let [row, next_row] =
                    [r, next].map(|r| tile.rows.wrapping_add(r * tile.row_stride));
                let mut sums = [acc[r][p], acc[next][p]];
                for channel in (0..16).step_by(2) {
                    // SAFETY: as the caller guarantees; both rows have sixteen sums.
                    unsafe {
                        let sums = sums.as_mut_ptr().cast::<i32>().add(channel);
                        multiply_two_by_two(row, next_row, panel.add(channel), tile.steps, sums);
                    }
                }
                (acc[r][p], acc[next][p]) = (sums[0], sums[next - r]);
            }
        }
        acc
    }
}
