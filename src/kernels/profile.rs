//! Where the time of a forward pass goes: the kernels with a clock around each.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Isa, Kernels};

/// All values of [`super::Kernel::NAME`].
const NAMES: [&str; 15] = [
    "quantize",
    "linear_int8",
    "pack_int8",
    "attend_int8",
    "peak_int8",
    "linear_f32",
    "linear_f16",
    "add_norm",
    "activate",
    "add_row",
    "accumulate",
    "dot_row",
    "pack_f32",
    "attend_f32",
    "peak_f32",
];

/// Nanoseconds that each kernel took, on all threads together.
static TIMES: [AtomicU64; NAMES.len()] = [const { AtomicU64::new(0) }; NAMES.len()];

/// The kernels whose time is taken.
static CLOCKED: OnceLock<Kernels> = OnceLock::new();

/// The index in [`NAMES`] of the kernel `name`.
pub(super) const fn index(name: &str) -> usize {
    let mut i = 0;
    while !equal(NAMES[i].as_bytes(), name.as_bytes()) {
        i += 1;
    }
    i
}

const fn equal(mut a: &[u8], mut b: &[u8]) -> bool {
    while let ([x, a_rest @ ..], [y, b_rest @ ..]) = (a, b) {
        if *x != *y {
            return false;
        }
        (a, b) = (a_rest, b_rest);
    }
    a.is_empty() && b.is_empty()
}

/// Adds the time since `begin` to that of kernel `index`.
pub(super) fn record(index: usize, begin: Instant) {
    TIMES[index].fetch_add(begin.elapsed().as_nanos() as u64, Ordering::Relaxed);
}

/// The time that each kernel of [`Isa::clocked`] took since the last call, on all threads together.
pub fn take_times() -> impl Iterator<Item = (&'static str, Duration)> {
    let take = |time: &AtomicU64| Duration::from_nanos(time.swap(0, Ordering::Relaxed));
    NAMES.into_iter().zip(TIMES.iter().map(take))
}

impl Isa {
    /// The same kernels with a clock around each, read with [`take_times`]. There is one set of
    /// clocks: `None` where another instruction set has them.
    pub fn clocked(self) -> Option<Self> {
        let set = self.0.set;
        let kernels = CLOCKED.get_or_init(|| Kernels { set, clocked: true });
        (kernels.set == set).then_some(Self(kernels))
    }
}
