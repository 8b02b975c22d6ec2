//! BERT inference without allocation.
#![cfg_attr(not(feature = "std"), no_std)]

#[cfg(not(feature = "std"))]
extern crate no_std_compat as std;

pub mod format;
pub mod tokenizer;
