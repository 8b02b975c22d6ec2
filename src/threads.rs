//! How the encoder uses threads.

/// Runs pairs of closures, possibly in parallel. The encoder divides its work in two, recursively, into
/// [`Executor::threads`] parts. The results do not depend on the division.
///
/// ```
/// struct Sequential;
/// impl bertlet::Executor for Sequential {
///     fn threads(&self) -> usize {
///         1
///     }
///     fn join(&self, a: &mut (dyn FnMut() + Send), b: &mut (dyn FnMut() + Send)) {
///         a();
///         b();
///     }
/// }
/// ```
pub trait Executor: Sync {
    /// How many closures can run in parallel.
    fn threads(&self) -> usize;
    /// Runs each closure exactly once and returns when both have finished. Calls nest.
    fn join(&self, a: &mut (dyn FnMut() + Send), b: &mut (dyn FnMut() + Send));
}

/// Runs everything on the calling thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Serial;

impl Executor for Serial {
    fn threads(&self) -> usize {
        1
    }
    fn join(&self, a: &mut (dyn FnMut() + Send), b: &mut (dyn FnMut() + Send)) {
        a();
        b();
    }
}
