//! QEMU's `virt` machine: start-up, serial port, counter of instructions, stack.

use core::arch::{asm, global_asm};
use core::fmt::{self, Write};

global_asm!(
    ".section .text.boot",
    ".global _start",
    "_start:",
    "la sp, __stack",
    "la t0, __bss",
    "la t1, __ebss",
    "1: bgeu t0, t1, 2f",
    "sw zero, 0(t0)",
    "addi t0, t0, 4",
    "j 1b",
    "2: call main",
    "3: wfi",
    "j 3b",
);

/// The serial port, a 16550.
pub struct Uart;

impl Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: the transmit register of the machine's UART.
            unsafe { (0x1000_0000 as *mut u8).write_volatile(byte) }
        }
        Ok(())
    }
}

/// Stops the emulator, with this exit status.
pub fn exit(status: u16) -> ! {
    let value = if status == 0 { 0x5555 } else { 0x3333 | u32::from(status) << 16 };
    // SAFETY: the machine's test device.
    unsafe { (0x10_0000 as *mut u32).write_volatile(value) }
    loop {}
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = writeln!(Uart, "{info}");
    exit(1)
}

/// Instructions that ran so far, modulo 2^32. The emulator counts exactly with `-icount shift=0`.
pub fn instructions() -> u32 {
    let count;
    // SAFETY: reads a counter.
    unsafe { asm!("csrr {}, minstret", out(reg) count) }
    count
}

const PAINT: u32 = 0xdead_beef;

fn stack() -> (*mut u32, usize) {
    unsafe extern "C" {
        static mut __stack_end: u32;
    }
    let here: usize;
    // SAFETY: reads a register.
    unsafe { asm!("mv {}, sp", out(reg) here) }
    let end = &raw mut __stack_end;
    (end, (here - end as usize) / 4)
}

/// Fills the unused stack, so that [`stack_used`] can tell how deep it went.
#[inline(never)]
pub fn paint_stack() {
    let (end, words) = stack();
    for i in 0..words - 64 {
        // SAFETY: below the stack pointer, with room for this function, and above the stack's end.
        unsafe { end.add(i).write_volatile(PAINT) }
    }
}

/// Bytes of stack that were used since the start, of 64 KiB.
#[inline(never)]
pub fn stack_used() -> usize {
    let (end, words) = stack();
    // SAFETY: inside the stack.
    let free = (0..words).take_while(|&i| unsafe { end.add(i).read_volatile() } == PAINT).count();
    (64 << 10) - 4 * free
}
