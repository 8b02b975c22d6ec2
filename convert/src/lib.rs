//! Reads BERT checkpoints, quantises them, writes bertlet's files.

pub mod bert;
pub mod error;
pub mod names;
pub mod pack;
pub mod quantize;
pub mod reference;
pub mod source;
pub mod tokenizer;
