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

/// What `f` writes, which must be all of it.
#[inline(always)]
unsafe fn written<T>(f: impl FnOnce(*mut T)) -> T {
    let mut out = MaybeUninit::uninit();
    f(out.as_mut_ptr());
    // SAFETY: as the caller guarantees.
    unsafe { out.assume_init() }
}
