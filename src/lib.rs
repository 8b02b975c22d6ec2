//! BERT inference without allocation.
#![cfg_attr(not(feature = "std"), no_std)]

#[cfg(not(feature = "std"))]
extern crate no_std_compat as std;

#[cfg(target_endian = "big")]
compile_error!("model files are little-endian and are used as they lie: no big-endian target");

pub mod encoder;
mod error;
pub mod features;
pub mod format;
#[doc(hidden)]
pub mod kernels;
pub mod numerics;
mod threads;

pub use encoder::{Encoder, Input, Output, features_len};
pub use error::RunError;
pub use features::{Combine, Layers, Pooling, SelectionError};
pub use format::{Config, FormatError, Kind, Model};
pub use kernels::{Isa, IsaError};
pub use threads::{Executor, Serial};
pub mod tokenizer;
