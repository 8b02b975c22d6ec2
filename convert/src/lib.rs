//! Reads BERT checkpoints, quantises them, writes bertlet's files.

pub mod bert;
pub mod error;
pub mod tokenizer;
