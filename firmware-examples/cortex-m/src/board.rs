//! A Cortex-M in an emulator: console and exit by semihosting, SysTick as the counter.

use core::fmt::{self, Write};

use bertlet_firmware::{Board, paint_stack};
use cortex_m::peripheral::{SYST, syst::SystClkSource};
use cortex_m_semihosting::{debug, hio};

/// Hertz of SysTick. With `-icount shift=0` an emulated instruction takes a nanosecond.
const CLOCK: u64 = match env!("BOARD").as_bytes() {
    b"mps3-an547" => 32_000_000,
    b"mps2-an505" => 20_000_000,
    b"mps2-an386" | b"mps2-an500" => 25_000_000,
    _ => panic!("add the clock of this board"),
};

pub struct CortexM {
    console: hio::HostStream,
}

impl Write for CortexM {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.console.write_str(text)
    }
}

impl Board for CortexM {
    /// To the 25 to 50 instructions of a tick, and before the timer is at its end: 500 million or more.
    fn instructions(&mut self) -> u32 {
        let ticks = 0xff_ffff - SYST::get_current();
        (u64::from(ticks) * 1_000_000_000 / CLOCK) as u32
    }
}

/// Runs a task, and stops the emulator.
pub fn run(task: fn(&mut CortexM) -> fmt::Result) -> ! {
    paint_stack();
    let mut timer = cortex_m::Peripherals::take().expect("called once").SYST;
    timer.set_clock_source(SystClkSource::Core);
    timer.set_reload(0xff_ffff);
    timer.clear_current();
    timer.enable_counter();
    let console = hio::hstdout().expect("semihosting is on");
    task(&mut CortexM { console }).expect("the console takes everything");
    debug::exit(debug::EXIT_SUCCESS);
    loop {}
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    if let Ok(mut console) = hio::hstdout() {
        let _ = writeln!(console, "{info}");
    }
    debug::exit(debug::EXIT_FAILURE);
    loop {}
}
