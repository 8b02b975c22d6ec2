//! How deep the stack went: its unused part is painted at the start, and looked at in the end.

/// What unused stack is filled with.
const PAINT: u32 = 0xdead_beef;
/// Bytes below a variable of [`paint`] that are left alone: the rest of its frame.
const SPARED: usize = 256;

// The linker script reserves what lies between them; the stack grows down from `_stack_start`. The names are those
// of cortex-m-rt.
unsafe extern "C" {
    static mut _stack_end: u32;
    static mut _stack_start: u32;
}

/// Fills what is not in use yet. A board calls this first.
#[inline(never)]
pub fn paint() {
    let mut word = &raw mut _stack_end;
    let here = (&raw mut word).addr() - SPARED;
    while word.addr() < here {
        // SAFETY: inside the stack, below the frames in use.
        unsafe { word.write_volatile(PAINT) }
        word = word.wrapping_add(1);
    }
}

/// Bytes that were used since the stack was painted.
pub(crate) fn used() -> usize {
    let start = &raw const _stack_start;
    let mut word = &raw const _stack_end;
    // SAFETY: inside the stack.
    while word < start && unsafe { word.read_volatile() } == PAINT {
        word = word.wrapping_add(1);
    }
    start.addr() - word.addr()
}
