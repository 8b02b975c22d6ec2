//! Sentiment of a text on a RISC-V core without an operating system, heap or floating-point unit.

#![no_std]
#![no_main]

#[path = "../board.rs"]
mod board;

#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    board::run(bertlet_firmware::sentiment)
}
