//! QEMU's `virt` machine: start-up, serial port, counter of instructions.

use core::arch::{asm, global_asm};
use core::fmt::{self, Write};

use bertlet_firmware::{Board, paint_stack};

global_asm!(
    ".section .text.boot",
    ".global _start",
    "_start:",
    "la sp, _stack_start",
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

/// The board; its console is the serial port, a 16550.
pub struct Virt;

impl Write for Virt {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: the transmit register of the machine's UART.
            unsafe { (0x1000_0000 as *mut u8).write_volatile(byte) }
        }
        Ok(())
    }
}

/// Stops the emulator, with this exit status.
fn exit(status: u16) -> ! {
    let value = if status == 0 { 0x5555 } else { 0x3333 | u32::from(status) << 16 };
    // SAFETY: the machine's test device.
    unsafe { (0x10_0000 as *mut u32).write_volatile(value) }
    loop {}
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = writeln!(Virt, "{info}");
    exit(1)
}

impl Board for Virt {
    /// The emulator counts exactly with `-icount shift=0`.
    fn instructions(&mut self) -> u32 {
        let count;
        // SAFETY: reads a counter.
        unsafe { asm!("csrr {}, minstret", out(reg) count) }
        count
    }
}

/// Runs a task, and stops the emulator.
pub fn run(task: fn(&mut Virt) -> fmt::Result) -> ! {
    paint_stack();
    exit(u16::from(task(&mut Virt).is_err()))
}
