//! x86-64: pairs of 256-bit registers (AVX2, AVX-VNNI) and 512-bit registers (AVX-512 VNNI).

pub mod avx2;
pub mod avx512vnni;
pub mod avxvnni;
mod ymm;
