//! Sentiment of a text, on AArch64 without an operating system.

#![no_std]
#![no_main]

#[path = "../board.rs"]
mod board;

#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    board::run(bertlet_firmware::sentiment)
}
