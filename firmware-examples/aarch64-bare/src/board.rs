//! QEMU's `virt` machine: start-up, console and exit by semihosting, counter.

use core::arch::{asm, global_asm};
use core::fmt::{self, Write};

use bertlet_firmware::{Board, paint_stack};

// Vectors of 16 bytes lie at any address, which only normal memory allows, and memory is normal only where the
// MMU says so: two blocks of 1 GiB at their own addresses, devices below 0x40000000 and RAM above.
global_asm!(
    ".section .text.boot",
    ".global _start",
    "_start:",
    "mov x0, #3 << 20",
    "msr cpacr_el1, x0", // Floating point and NEON.
    "adrp x0, {table}",
    "add x0, x0, :lo12:{table}",
    "msr ttbr0_el1, x0",
    "mov x0, #0xff00", // Attributes 0: device; 1: normal, write-back.
    "msr mair_el1, x0",
    "ldr x0, =0x803520", // 32 bits of address, tables in cached memory, no second table.
    "msr tcr_el1, x0",
    "isb",
    "mrs x0, sctlr_el1",
    "mov x1, #0x1005", // MMU, data cache, instruction cache.
    "orr x0, x0, x1",
    "msr sctlr_el1, x0",
    "isb",
    "ldr x0, =_stack_start",
    "mov sp, x0",
    "ldr x0, =__bss",
    "ldr x1, =__ebss",
    "1: cmp x0, x1",
    "b.hs 2f",
    "str xzr, [x0], #8",
    "b 1b",
    "2: b main",
    table = sym TABLE,
);

/// Blocks of 1 GiB that were accessed already: 0x40000000 is inner shareable and has attributes 1.
#[repr(align(4096))]
struct Table([u64; 512]);

static TABLE: Table = {
    let mut table = Table([0; 512]);
    table.0[0] = 1 << 10 | 1;
    table.0[1] = 0x4000_0000 | 1 << 10 | 3 << 8 | 1 << 2 | 1;
    table
};

fn semihosting(operation: u64, argument: *const u64) {
    // SAFETY: a call to the emulator, which reads the argument.
    unsafe { asm!("hlt #0xf000", inout("x0") operation => _, in("x1") argument) }
}

pub struct Virt;

impl Write for Virt {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        const WRITE_CHARACTER: u64 = 3;
        text.bytes().for_each(|byte| semihosting(WRITE_CHARACTER, &raw const byte as *const u64));
        Ok(())
    }
}

fn exit(status: u64) -> ! {
    const EXIT: u64 = 0x18;
    const APPLICATION_EXIT: u64 = 0x2_0026;
    semihosting(EXIT, [APPLICATION_EXIT, status].as_ptr());
    loop {}
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = writeln!(Virt, "{info}");
    exit(1)
}

impl Board for Virt {
    /// To the sixteen instructions of a tick of 62.5 MHz: with `-icount shift=0` each takes a nanosecond.
    fn instructions(&mut self) -> u32 {
        let ticks: u64;
        // SAFETY: reads a counter.
        unsafe { asm!("isb", "mrs {}, cntvct_el0", out(reg) ticks) }
        (16 * ticks) as u32
    }
}

/// Runs a task, and stops the emulator.
pub fn run(task: fn(&mut Virt) -> fmt::Result) -> ! {
    paint_stack();
    exit(task(&mut Virt).is_err().into())
}
