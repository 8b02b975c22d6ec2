//! Baseline NEON: four 128-bit registers a vector.
