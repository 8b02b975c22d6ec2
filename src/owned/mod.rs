//! What an operating system adds: mapped files, memory that grows, threads. Nothing else depends on
//! it.

mod file;
mod pool;
mod session;

pub use file::{ModelFile, OpenError};
pub use pool::ThreadPool;
pub use session::Session;
