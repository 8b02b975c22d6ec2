//! Features of a text: the last four hidden states, on a Cortex-M.

#![no_std]
#![no_main]

#[path = "../board.rs"]
mod board;

#[cortex_m_rt::entry]
fn main() -> ! {
    board::run(bertlet_firmware::features)
}
