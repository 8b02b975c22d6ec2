//! What an operating system adds: mapped files, files written atomically, memory that grows, threads.

mod atomic;
mod file;
mod pool;
mod session;

pub use atomic::AtomicFile;
pub use file::{ModelFile, OpenError};
pub use pool::ThreadPool;
pub use session::{
    Classification, Embedding, Entities, FilledMask, FoundAnswer, FoundAnswers, NamedEntity,
    Session, WordVectors, with_scratch,
};
