//! Instruction sets of 32-bit ARM. A build for these cores states its CPU, and `build.rs` what follows from that.

#[cfg(bertlet_dsp)]
pub mod dsp;
