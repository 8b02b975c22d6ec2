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
pub mod heads;
#[doc(hidden)]
pub mod kernels;
#[cfg(feature = "std")]
mod owned;
pub mod selftest;
pub mod tasks;
mod threads;

pub use encoder::{Encoder, Input, Output, features_len};
pub use error::RunError;
pub use features::{Combine, Layers, Pooling, SelectionError};
pub use format::{Config, FormatError, Kind, Model};
pub use heads::{MaskedLm, NextSentence, QuestionAnswering, SequenceClassifier, TokenClassifier};
pub use kernels::{Isa, IsaError};
#[cfg(feature = "std")]
pub use owned::{ModelFile, OpenError, Session, ThreadPool};
pub use threads::{Executor, Serial};
pub mod tokenizer;
