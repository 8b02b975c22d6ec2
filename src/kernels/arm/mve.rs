//! The vector extension MVE (Helium) with floats: Cortex-M52, M55 and M85. A register has four lanes of 32 bits.
//!
//! Its floats follow IEEE 754 with subnormals unless the program asks for flush-to-zero, and round to nearest.

use core::arch::naked_asm;

use super::{calls, extensions, word, written};
use crate::lanes::{I8x64, I16x32};
use crate::matmul::Tile;
use crate::portable::{Arrays, Blocks, Floats, Words};

pub type Mve = Arrays<Helium>;

/// Proves MVE with floats.
#[derive(Clone, Copy)]
pub struct Helium(());

/// `out = steps(a)`, four lanes at a time: `steps` turn `q0` into what is stored.
macro_rules! unary {
    (
        $name:ident($from:ty) -> $to:ty,
        $load:literal, $bytes:literal, $($step:literal),*; $store:literal, $stored:literal
    ) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(out: *mut $to, a: *const $from) {
            naked_asm!(
                extensions!(),
                ".rept 4",
                concat!($load, " q0, [r1], #", $bytes),
                $($step,)*
                concat!($store, " q0, [r0], #", $stored),
                ".endr",
                "bx lr",
            )
        }
    };
}

unary!(to_f32(Words) -> Floats, "vldrw.u32", "16", "vcvt.f32.s32 q0, q0"; "vstrw.32", "16");
// To nearest, ties to even.
unary!(to_i32(Floats) -> Words, "vldrw.u32", "16", "vcvtn.s32.f32 q0, q0"; "vstrw.32", "16");
// The low byte of each word.
unary!(to_i8(Words) -> [i8; 16], "vldrw.u32", "16",; "vstrb.32", "4");
unary!(from_f16([u16; 16]) -> Floats, "vldrh.u32", "8", "vcvtb.f32.f16 q0, q0"; "vstrw.32", "16");
// A comparison that NaN fails.
unary!(positive(Floats) -> Floats, "vldrw.u32", "16", "vmov.i32 q1, #0", "vcmp.f32 gt, q0, q1", "vpsel q0, q0, q1";
    "vstrw.32", "16");

/// `out = steps(a, b)`, four lanes at a time: `steps` turn `q0` and `q1` into what is stored, in `q0`.
macro_rules! binary {
    ($name:ident, $($step:literal),*) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(out: *mut Floats, a: *const Floats, b: *const Floats) {
            naked_asm!(
                extensions!(),
                ".rept 4",
                "vldrw.u32 q0, [r1], #16",
                "vldrw.u32 q1, [r2], #16",
                $($step,)*
                "vstrw.32 q0, [r0], #16",
                ".endr",
                "bx lr",
            )
        }
    };
}

binary!(add, "vadd.f32 q0, q0, q1");
binary!(sub, "vsub.f32 q0, q0, q1");
binary!(mul, "vmul.f32 q0, q0, q1");
// `b` where `a` is not larger, or NaN.
binary!(max, "vcmp.f32 gt, q0, q1", "vpsel q0, q0, q1");
// The bits of floats without a sign are in the order of the floats.
binary!(larger_magnitude, "vabs.f32 q1, q1", "vmax.u32 q0, q0, q1");
binary!(smaller_magnitude, "vabs.f32 q1, q1", "vmin.u32 q0, q0, q1");

#[unsafe(naked)]
unsafe extern "C" fn fma(out: *mut Floats, a: *const Floats, b: *const Floats, c: *const Floats) {
    naked_asm!(
        extensions!(),
        ".rept 4",
        "vldrw.u32 q0, [r1], #16",
        "vldrw.u32 q1, [r2], #16",
        "vldrw.u32 q2, [r3], #16",
        "vfma.f32 q2, q0, q1",
        "vstrw.32 q2, [r0], #16",
        ".endr",
        "bx lr",
    )
}

/// Neighbouring lanes: loads and stores divide the lanes in even and odd.
#[unsafe(naked)]
unsafe extern "C" fn butterfly1(out: *mut Floats, v: *const Floats) {
    naked_asm!(
        extensions!(),
        ".rept 2",
        "vld20.32 {{q0, q1}}, [r1]",
        "vld21.32 {{q0, q1}}, [r1]!",
        "vadd.f32 q2, q0, q1",
        "vsub.f32 q3, q0, q1",
        "vst20.32 {{q2, q3}}, [r0]",
        "vst21.32 {{q2, q3}}, [r0]!",
        ".endr",
        "bx lr",
    )
}

/// Lanes two apart: loads and stores divide the lanes by four.
#[unsafe(naked)]
unsafe extern "C" fn butterfly2(out: *mut Floats, v: *const Floats) {
    naked_asm!(
        extensions!(),
        "vpush {{d8-d15}}",
        "vld40.32 {{q0, q1, q2, q3}}, [r1]",
        "vld41.32 {{q0, q1, q2, q3}}, [r1]",
        "vld42.32 {{q0, q1, q2, q3}}, [r1]",
        "vld43.32 {{q0, q1, q2, q3}}, [r1]",
        "vadd.f32 q4, q0, q2",
        "vadd.f32 q5, q1, q3",
        "vsub.f32 q6, q0, q2",
        "vsub.f32 q7, q1, q3",
        "vst40.32 {{q4, q5, q6, q7}}, [r0]",
        "vst41.32 {{q4, q5, q6, q7}}, [r0]",
        "vst42.32 {{q4, q5, q6, q7}}, [r0]",
        "vst43.32 {{q4, q5, q6, q7}}, [r0]",
        "vpop {{d8-d15}}",
        "bx lr",
    )
}

/// Lanes of registers `distance` bytes apart: two times two, or one time all four.
macro_rules! butterfly {
    ($name:ident, $times:literal, $distance:literal, $next:literal) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(out: *mut Floats, v: *const Floats) {
            naked_asm!(
                extensions!(),
                concat!(".rept ", $times),
                concat!("vldrw.u32 q1, [r1, #", $distance, "]"),
                concat!("vldrw.u32 q0, [r1], #", $next),
                "vadd.f32 q2, q0, q1",
                "vsub.f32 q3, q0, q1",
                concat!("vstrw.32 q3, [r0, #", $distance, "]"),
                concat!("vstrw.32 q2, [r0], #", $next),
                ".endr",
                "bx lr",
            )
        }
    };
}

butterfly!(butterfly4, "2", "16", "32");
butterfly!(butterfly8, "2", "32", "16");

/// `acc[c] += a[0] * w[2 c] + a[1] * w[2 c + 1]`, with both of `a` in one word.
#[unsafe(naked)]
unsafe extern "C" fn dot_pair(acc: *mut Words, a: i32, w: *const I16x32) {
    naked_asm!(
        extensions!(),
        "vdup.32 q3, r1",
        ".rept 4",
        "vldrw.u32 q0, [r2], #16",
        "vldrw.u32 q1, [r0]",
        "vmullb.s16 q2, q0, q3",
        "vmullt.s16 q0, q0, q3",
        "vadd.i32 q1, q1, q2",
        "vadd.i32 q1, q1, q0",
        "vstrw.32 q1, [r0], #16",
        ".endr",
        "bx lr",
    )
}

/// Adds the products of rows, `stride` bytes apart, and the sixteen channels of a panel to `acc[row][channel]`.
///
/// A round multiplies sixteen bytes of each row by four quads of one channel, which are 64 bytes apart; bytes of the
/// last round beyond `bytes` are neither read nor counted. The address of a row, its sum, and the place of that:
macro_rules! multiply {
    (
        $name:ident, $first:literal $first_sum:literal
        $(, $row:literal from $before:literal, $sum:literal $place:literal)*
    ) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(
            row: *const [i8; 4],
            stride: usize,
            panel: *const [i8; 4],
            bytes: usize,
            acc: *mut Words,
        ) {
            naked_asm!(
                extensions!(),
                "push {{r4-r11, lr}}",
                "ldr r9, [sp, #36]",
                "mov r11, r3",
                "mov r12, #0",
                "vidup.u32 q3, r12, #8",
                "vshl.i32 q3, q3, #3",
                $(concat!("add ", $row, ", ", $before, ", r1"),)*
                "mov r12, #16",
                "2:",
                concat!("ldr ", $first_sum, ", [r9]"),
                $(concat!("ldr ", $sum, ", [r9, #", $place, "]"),)*
                "mov r1, r2",
                "dlstp.8 lr, r11",
                "3:",
                "vldrw.u32 q0, [r1, q3]",
                "add r1, r1, #256",
                concat!("vldrb.u8 q1, [", $first, "], #16"),
                concat!("vmladava.s8 ", $first_sum, ", q0, q1"),
                $(
                    concat!("vldrb.u8 q1, [", $row, "], #16"),
                    concat!("vmladava.s8 ", $sum, ", q0, q1"),
                )*
                "letp lr, 3b",
                // Back to the first bytes, and on to the next channel.
                "subs r1, r1, r2",
                "add r2, r2, #4",
                concat!("sub ", $first, ", ", $first, ", r1, lsr #4"),
                $(concat!("sub ", $row, ", ", $row, ", r1, lsr #4"),)*
                $(concat!("str ", $sum, ", [r9, #", $place, "]"),)*
                concat!("str ", $first_sum, ", [r9], #4"),
                "subs r12, r12, #1",
                "bne 2b",
                "pop {{r4-r11, pc}}",
            )
        }
    };
}

multiply!(multiply_row, "r0" "r4");
multiply!(multiply_two_rows, "r0" "r4", "r3" from "r0", "r6" "64");
multiply!(multiply_four_rows, "r0" "r4", "r3" from "r0", "r6" "64", "r5" from "r3", "r8" "128",
    "r7" from "r5", "r10" "192");

impl Blocks for Helium {
    const ROWS: usize = 4;

    #[inline(always)]
    unsafe fn assume() -> Self {
        Self(())
    }
    calls!();
    #[inline(always)]
    fn dot_pair(self, acc: &mut Words, a: [i16; 2], w: &I16x32) {
        // SAFETY: `self` proves the instructions.
        unsafe { dot_pair(acc, word(a), w) }
    }
    #[inline(always)]
    unsafe fn multiply_quads<const MR: usize, const NP: usize, const A: usize>(
        self,
        mut acc: [[Words; NP]; MR],
        tile: Tile<[i8; 4], I8x64, A>,
    ) -> [[Words; NP]; MR] {
        // The sums of rows then follow each other.
        assert!(NP == 1);
        let multiply = match MR {
            1 => multiply_row,
            2 => multiply_two_rows,
            _ => multiply_four_rows,
        };
        let (stride, bytes) = (tile.row_stride * 4, tile.steps * 4);
        // SAFETY: as the caller guarantees; `acc` has sixteen sums for each row.
        unsafe { multiply(tile.rows, stride, tile.panels.cast(), bytes, acc.as_mut_ptr().cast()) };
        acc
    }
}
