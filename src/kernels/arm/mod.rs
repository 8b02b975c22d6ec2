//! Instruction sets of 32-bit ARM. A build for these cores states its CPU, and `build.rs` what follows from that.
//!
//! The functions are naked. Not every target of these cores lets `asm!` name a register of their extensions, and
//! the products need more registers than `asm!` may have.

use core::mem::MaybeUninit;

#[cfg(bertlet_dsp)]
pub mod dsp;
#[cfg(bertlet_mve)]
pub mod mve;

/// Tells the assembler of the extensions: with link-time optimisation it knows the name of the target alone.
macro_rules! extensions {
    () => {
        env!("BERTLET_ASSEMBLER")
    };
}
use extensions;

/// What `f` writes.
///
/// # Safety
/// It writes all of it.
#[inline(always)]
unsafe fn written<T>(f: impl FnOnce(*mut T)) -> T {
    let mut out = MaybeUninit::uninit();
    f(out.as_mut_ptr());
    // SAFETY: as the caller guarantees.
    unsafe { out.assume_init() }
}

/// The operations of [`Blocks`](crate::portable::Blocks) that are a function of the same name in the file of an
/// instruction set.
macro_rules! calls {
    () => {
        // SAFETY of all: `self` proves the instructions, and the functions write all of `out`.
        #[inline(always)]
        fn add(self, a: &Floats, b: &Floats) -> Floats {
            unsafe { written(|out| add(out, a, b)) }
        }
        #[inline(always)]
        fn sub(self, a: &Floats, b: &Floats) -> Floats {
            unsafe { written(|out| sub(out, a, b)) }
        }
        #[inline(always)]
        fn mul(self, a: &Floats, b: &Floats) -> Floats {
            unsafe { written(|out| mul(out, a, b)) }
        }
        #[inline(always)]
        fn fma(self, a: &Floats, b: &Floats, c: &Floats) -> Floats {
            unsafe { written(|out| fma(out, a, b, c)) }
        }
        #[inline(always)]
        fn max(self, a: &Floats, b: &Floats) -> Floats {
            unsafe { written(|out| max(out, a, b)) }
        }
        #[inline(always)]
        fn max_magnitude(self, a: &Floats, b: &Floats) -> Floats {
            unsafe { written(|out| larger_magnitude(out, a, b)) }
        }
        #[inline(always)]
        fn min_magnitude(self, a: &Floats, b: &Floats) -> Floats {
            unsafe { written(|out| smaller_magnitude(out, b, a)) }
        }
        #[inline(always)]
        fn positive(self, a: &Floats) -> Floats {
            unsafe { written(|out| positive(out, a)) }
        }
        #[inline(always)]
        fn load_f16(self, bits: &[u16; 16]) -> Floats {
            unsafe { written(|out| from_f16(out, bits)) }
        }
        #[inline(always)]
        fn butterfly<const H: usize>(self, v: &Floats) -> Floats {
            let stage = match H {
                1 => butterfly1,
                2 => butterfly2,
                4 => butterfly4,
                _ => butterfly8,
            };
            unsafe { written(|out| stage(out, v)) }
        }
        #[inline(always)]
        fn to_i32(self, a: &Floats) -> Words {
            unsafe { written(|out| to_i32(out, a)) }
        }
        #[inline(always)]
        fn to_f32(self, a: &Words) -> Floats {
            unsafe { written(|out| to_f32(out, a)) }
        }
        #[inline(always)]
        fn to_i8(self, v: &Words) -> [i8; 16] {
            unsafe { written(|out| to_i8(out, v)) }
        }
    };
}
use calls;

/// Two factors of 16 bits as one word.
#[inline(always)]
fn word([low, high]: [i16; 2]) -> i32 {
    i32::from(low) & 0xffff | i32::from(high) << 16
}
