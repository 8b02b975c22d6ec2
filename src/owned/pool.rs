//! Threads that wait for work.

// A closure that borrows is handed to a thread that was there before it: no safe code can do that.
#![allow(unsafe_code)]

use std::any::Any;
use std::fmt;
use std::hint::spin_loop;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::threads::Executor;

/// How long a thread looks for work before it sleeps. The gaps between the parts of one forward
/// pass are shorter, those between two passes may be long, and a phone has a battery. With 5 us two
/// threads were 1.75 times as fast as one at 128 tokens, with 50 us 1.88 times, with 200 us no more.
const SPIN: Duration = Duration::from_micros(50);

/// An [`Executor`] with threads of its own, made once; idle ones sleep.
///
/// [`Executor::join`] allocates nothing, may be called from within a closure that it runs, and by
/// several threads at once. A closure that no thread is free for runs on the caller's. Dropping the
/// pool ends its threads.
///
/// ```
/// use bertlet::{Executor, ThreadPool};
///
/// let pool = ThreadPool::new(2)?;
/// let (mut a, mut b) = (0, 0);
/// pool.join(&mut || a = 1, &mut || b = 2);
/// assert_eq!((a, b), (1, 2));
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPool").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

struct Shared {
    state: Mutex<State>,
    /// Number of jobs in the queue, to read without the lock.
    queued: AtomicUsize,
    /// Signalled when a job is queued, and at shutdown.
    work: Condvar,
    /// Signalled when a job is done that a caller sleeps for.
    done: Condvar,
}

struct State {
    /// Never longer than its first capacity.
    queue: Vec<Queued>,
    /// Threads that sleep until there is work.
    idle: usize,
    /// Callers that sleep until their job is done.
    waiting: usize,
    shutdown: bool,
}

/// The second closure of a join, on its caller's stack.
struct Job {
    closure: *mut (dyn FnMut() + Send),
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    done: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Queued(*const Job);

// SAFETY: the closure is `Send`, the rest of a job is `Sync`, and `join` lets the job live until
// it is done.
unsafe impl Send for Queued {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No closure runs under a lock, so what it guards is whole even after a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether `ready` comes true within [`SPIN`].
fn spin(ready: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    loop {
        for _ in 0..16 {
            if ready() {
                return true;
            }
            spin_loop();
        }
        if start.elapsed() > SPIN {
            return false;
        }
    }
}

impl ThreadPool {
    /// A pool that runs `threads` closures at a time: the caller's thread and `threads - 1` others.
    ///
    /// # Errors
    /// If the operating system has no more threads.
    pub fn new(threads: usize) -> io::Result<Self> {
        let queue = Vec::with_capacity(4 * threads);
        let state = State { queue, idle: 0, waiting: 0, shutdown: false };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            queued: AtomicUsize::new(0),
            work: Condvar::new(),
            done: Condvar::new(),
        });
        // If one cannot be started, dropping the pool ends the others.
        let mut pool = Self { shared, workers: Vec::with_capacity(threads.saturating_sub(1)) };
        for i in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let builder = Builder::new().name(format!("bertlet-{i}"));
            pool.workers.push(builder.spawn(move || shared.work())?);
        }
        Ok(pool)
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        lock(&self.shared.state).shutdown = true;
        self.shared.work.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches every panic of a closure.
            let _ = worker.join();
        }
    }
}

impl Executor for ThreadPool {
    fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    fn join(&self, a: &mut (dyn FnMut() + Send), b: &mut (dyn FnMut() + Send)) {
        // SAFETY: only the lifetime changes. `b` outlives its last use: this function does not
        // return or unwind before the job is done, or has been taken back unstarted.
        let closure = unsafe {
            std::mem::transmute::<*mut (dyn FnMut() + Send + '_), *mut (dyn FnMut() + Send + 'static)>(
                b,
            )
        };
        let job = Job { closure, panic: Mutex::new(None), done: AtomicBool::new(false) };
        let queued = !self.workers.is_empty() && self.shared.push(Queued(&job));
        let first = catch_unwind(AssertUnwindSafe(a));
        if !queued || self.shared.take_back(Queued(&job)) {
            if first.is_ok() {
                job.run();
            }
        } else {
            self.shared.wait(&job);
        }
        if let Err(panic) = first {
            resume_unwind(panic);
        }
        if let Some(panic) = lock(&job.panic).take() {
            resume_unwind(panic);
        }
    }
}

impl Job {
    /// Runs the closure. Called once a job, by whoever took it.
    fn run(&self) {
        // SAFETY: the closure lives (see `join`), and nobody else runs it: a job leaves the queue
        // once, under the lock.
        let closure = unsafe { &mut *self.closure };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(closure)) {
            *lock(&self.panic) = Some(panic);
        }
    }
}

impl Shared {
    /// Queues a job; false if the queue is full.
    fn push(&self, job: Queued) -> bool {
        let mut state = lock(&self.state);
        if state.queue.len() == state.queue.capacity() {
            return false;
        }
        state.queue.push(job);
        self.queued.store(state.queue.len(), Ordering::Release);
        let wake = state.idle > 0;
        drop(state);
        if wake {
            self.work.notify_one();
        }
        true
    }

    /// Takes a job back if no worker has started it.
    fn take_back(&self, job: Queued) -> bool {
        let mut state = lock(&self.state);
        let Some(at) = state.queue.iter().rposition(|other| *other == job) else { return false };
        state.queue.remove(at);
        self.queued.store(state.queue.len(), Ordering::Release);
        true
    }

    /// Returns once `job`, which a worker has begun, is done.
    fn wait(&self, job: &Job) {
        let is_done = || job.done.load(Ordering::Acquire);
        if spin(is_done) {
            return;
        }
        let mut state = lock(&self.state);
        state.waiting += 1;
        while !is_done() {
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
    }

    /// The loop of a worker.
    fn work(&self) {
        loop {
            spin(|| self.queued.load(Ordering::Acquire) > 0);
            let Some(Queued(job)) = self.next() else { return };
            // SAFETY: `join` keeps the job until it is done.
            unsafe { &*job }.run();
            // SAFETY: as above. This is the last use: its caller may go on at once.
            unsafe { &*job }.done.store(true, Ordering::Release);
            // Under the lock, so that a caller has either seen `done` or sleeps already.
            if lock(&self.state).waiting > 0 {
                self.done.notify_all();
            }
        }
    }

    /// The oldest job, which is the largest of a forward pass; `None` at shutdown.
    fn next(&self) -> Option<Queued> {
        let mut state = lock(&self.state);
        loop {
            if !state.queue.is_empty() {
                let job = state.queue.remove(0);
                self.queued.store(state.queue.len(), Ordering::Release);
                return Some(job);
            }
            if state.shutdown {
                return None;
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums by halving, to see that nested joins all run.
    fn sum(pool: &dyn Executor, from: u64, to: u64) -> u64 {
        if to - from < 4 {
            return (from..to).sum();
        }
        let (mut a, mut b) = (0, 0);
        let half = from + (to - from) / 2;
        pool.join(&mut || a = sum(pool, from, half), &mut || b = sum(pool, half, to));
        a + b
    }

    #[test]
    fn nested_joins_run_each_closure_once() {
        for threads in [0, 1, 2, 3, 7] {
            let pool = ThreadPool::new(threads).unwrap();
            assert_eq!(pool.threads(), threads.max(1));
            for n in [0, 1, 5, 1000, 20_000] {
                assert_eq!(sum(&pool, 0, n), (0..n).sum::<u64>(), "{threads} threads");
            }
        }
    }

    #[test]
    fn several_callers_share_a_pool() {
        let pool = ThreadPool::new(3).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|_| assert_eq!(sum(&pool, 0, 300), 44_850)));
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = ThreadPool::new(2).unwrap();
        let sleep = || std::thread::sleep(Duration::from_millis(2));
        let message = |mut a: &mut (dyn FnMut() + Send), mut b: &mut (dyn FnMut() + Send)| {
            let (a, b) = (&mut a, &mut b);
            let panic = catch_unwind(AssertUnwindSafe(|| pool.join(a, b))).unwrap_err();
            *panic.downcast::<&str>().unwrap()
        };
        assert_eq!(message(&mut || panic!("first"), &mut sleep.clone()), "first");
        assert_eq!(message(&mut sleep.clone(), &mut || panic!("second")), "second");
        assert_eq!(message(&mut || panic!("first"), &mut || panic!("second")), "first");
        assert_eq!(sum(&pool, 0, 100), 4950);
    }
}
