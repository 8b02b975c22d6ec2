//! Sentiment of a text, on a Cortex-M.

#![no_std]
#![no_main]

#[path = "../board.rs"]
mod board;

#[cortex_m_rt::entry]
fn main() -> ! {
    board::run(bertlet_firmware::sentiment)
}
