//! Running two things at once, or one after the other.

/// Runs pairs of closures, perhaps at the same time. The encoder halves its work until there are as
/// many parts as [`Executor::threads`]; the results do not depend on the halving.
///
/// ```
/// struct OneAfterTheOther;
/// impl bertlet::Executor for OneAfterTheOther {
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
    /// How many closures can run at the same time.
    fn threads(&self) -> usize;
    /// Runs both, each exactly once, and returns when both are done. Calls nest.
    fn join(&self, a: &mut (dyn FnMut() + Send), b: &mut (dyn FnMut() + Send));
}

/// The calling thread alone.
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
