//! AArch64: four 128-bit registers per vector.

pub mod baseline;
pub mod dotprod;
mod neon;
