//! What an operating system adds: mapped files, files written atomically, memory that grows, threads.

mod atomic;
mod file;
mod pool;
mod printable;
mod session;
mod temporary;

pub use atomic::AtomicFile;
pub use file::{ModelFile, OpenError};
pub use pool::ThreadPool;
pub use printable::Printable;
pub use session::{
    Classification, Embedding, Entities, FilledMask, FilledMasks, FoundAnswer, FoundAnswers,
    NamedEntity, NextSentenceScore, Session, WordVectors, with_scratch,
};
