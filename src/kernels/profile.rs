//! Where the time of a forward pass goes: the kernels once more, each with a clock around it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::attention::{F32Blocks, HeadShape, Int8BlocksMut, Int8BlocksRef, Keys, Workspace};
use super::lanes::{F16x16, F32x16, I8x16, I8x64};
use super::matmul::{FloatMatrix, Int8Matrix, Int8Rows};
use super::rows::{Activation, Norm, Rotation, TableRow};
use super::{Isa, Kernels};

/// What the clocked kernels call.
static INNER: OnceLock<Isa> = OnceLock::new();

macro_rules! clocked {
    ([] $($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $f:expr;)*) => {
        struct Times {
            $($name: AtomicU64,)*
        }

        static TIMES: Times = Times { $($name: AtomicU64::new(0),)* };

        static CLOCKED: Kernels = {
            $(
                #[allow(clippy::too_many_arguments)]
                fn $name($($arg: $ty),*) -> $ret {
                    let kernels = INNER.get().expect("set before the table is given out").kernels();
                    let begin = Instant::now();
                    let result = kernels.$name($($arg),*);
                    TIMES.$name.fetch_add(begin.elapsed().as_nanos() as u64, Ordering::Relaxed);
                    result
                }
            )*
            Kernels { isa: "clocked", $($name,)* }
        };

        /// The time that each kernel of [`Isa::clocked`] took since the last call, on all threads
        /// together.
        pub fn take_times() -> impl Iterator<Item = (&'static str, Duration)> {
            let take = |time: &AtomicU64| Duration::from_nanos(time.swap(0, Ordering::Relaxed));
            [$((stringify!($name), take(&TIMES.$name)),)*].into_iter()
        }
    };
}
for_all_kernels!(clocked);

impl Isa {
    /// The same kernels with a clock around each, read with [`take_times`]. There is one set of
    /// clocks: `None` where another instruction set has them.
    pub fn clocked(self) -> Option<Self> {
        let inner = INNER.get_or_init(|| self);
        (inner.name() == self.name()).then_some(Self(&CLOCKED))
    }
}
