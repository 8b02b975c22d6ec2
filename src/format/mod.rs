//! The model file.
pub use crate::kernels::Activation;
