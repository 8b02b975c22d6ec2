//! Reads BERT checkpoints, quantises them, writes bertlet's files.

pub mod bert;
pub mod error;
pub mod evaluate;
pub mod html;
pub mod load;
pub mod measure;
pub mod names;
pub mod pack;
pub mod pipeline;
pub mod probe;
pub mod quantize;
pub mod reference;
pub mod report;
pub mod source;
pub mod stored;
mod texts;
pub mod tokenizer;
mod vocabulary;

pub use pipeline::{ConvertOptions, WeightType, convert, convert_in_memory};
