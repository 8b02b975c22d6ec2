//! AArch64: four 128-bit registers per vector.

pub mod baseline;
pub mod dotprod;
pub mod i8mm;
mod neon;
