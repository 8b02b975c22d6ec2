//! The instruction sets: one list, from which the code of each is compiled and its availability asked.

use core::fmt;

use super::lanes::Simd;
use super::{Kernel, Kernels};

// `detected!("feature")`: whether the running CPU has the feature; where that cannot be asked, whether
// the build assumes it.
#[cfg(all(feature = "std", target_arch = "aarch64"))]
use std::arch::is_aarch64_feature_detected as detected;
#[cfg(all(feature = "std", target_arch = "x86_64"))]
use std::arch::is_x86_feature_detected as detected;
#[cfg(not(all(feature = "std", any(target_arch = "aarch64", target_arch = "x86_64"))))]
#[allow(unused_macros)]
macro_rules! detected {
    ($feature:tt) => {
        cfg!(target_feature = $feature)
    };
}

/// Turns the list below into an enum with a name, a detection and a way to run kernels.
///
/// The list names the features of an instruction set once. They are enabled for its code, and it is
/// available where all of them are detected.
macro_rules! instruction_sets {
    ($(
        $(#[$cfg:meta])*
        $set:ident = $name:literal, $simd:ty, [$($feature:tt),*]
            $(, other kernels from $base:ident)?;
    )*) => {
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub(super) enum InstructionSet {
            $($(#[$cfg])* $set,)*
        }

        /// The kernels of every instruction set of this build, slowest first.
        static ALL: &[Kernels] = &[$($(#[$cfg])* Kernels::of(InstructionSet::$set),)*];

        impl InstructionSet {
            pub(super) const fn name(self) -> &'static str {
                match self {
                    $($(#[$cfg])* Self::$set => $name,)*
                }
            }

            fn is_available(self) -> bool {
                match self {
                    $(
                        $(#[$cfg])*
                        Self::$set => true $(&& detected!($feature))* $(&& Self::$base.is_available())?,
                    )*
                }
            }

            /// Runs `kernel` on this instruction set.
            ///
            /// # Safety
            /// The instruction set is available.
            #[inline(always)]
            pub(super) unsafe fn run<K: Kernel>(self, kernel: K) -> K::Output {
                match self {
                    $(
                        $(#[$cfg])*
                        Self::$set => {
                            // Without detection a set is known to be missing when this is compiled, and
                            // its kernels need not be in the program.
                            if cfg!(not(feature = "std")) && !Self::$set.is_available() {
                                // SAFETY: the set is available.
                                unsafe { core::hint::unreachable_unchecked() }
                            }
                            $(
                                if !K::INTEGER {
                                    // SAFETY: it is available where this one is.
                                    return unsafe { Self::$base.run(kernel) };
                                }
                            )?
                            $(#[target_feature(enable = $feature)])*
                            #[inline(never)]
                            fn enter<K: Kernel>(kernel: K) -> K::Output {
                                // SAFETY: the list gives all features that the type uses. They are
                                // enabled here, and the CPU has them, since the set is available.
                                kernel.run(unsafe { <$simd>::assume() })
                            }
                            // SAFETY: the set is available, so that the CPU has its features.
                            #[allow(unused_unsafe)]
                            unsafe { enter(kernel) }
                        }
                    )*
                }
            }
        }
    };
}

// Name, type, and target features, slowest first. A set that only multiplies integers in its own way
// says so: it takes `other kernels from` a set whose features are a part of its own.
instruction_sets! {
    #[cfg(bertlet_portable)]
    Portable = "portable", super::portable::Portable, [];

    #[cfg(target_arch = "x86_64")]
    Avx2 = "avx2", super::x86::avx2::Avx2, ["avx2", "fma", "f16c"];

    #[cfg(target_arch = "x86_64")]
    AvxVnni = "avxvnni", super::x86::avxvnni::AvxVnni, ["avx2", "fma", "f16c", "avxvnni"],
        other kernels from Avx2;

    #[cfg(target_arch = "x86_64")]
    Avx512Vnni = "avx512vnni", super::x86::avx512vnni::Avx512Vnni,
        ["avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni"];

    #[cfg(bertlet_dsp)]
    Dsp = "dsp", super::arm::dsp::Dsp, [];

    #[cfg(bertlet_mve)]
    Mve = "mve", super::arm::mve::Mve, [];

    #[cfg(target_arch = "aarch64")]
    Neon = "neon", super::aarch64::baseline::Baseline, ["neon"];

    #[cfg(target_arch = "aarch64")]
    DotProd = "dotprod", super::aarch64::dotprod::DotProd, ["neon", "dotprod"],
        other kernels from Neon;

    #[cfg(target_arch = "aarch64")]
    I8mm = "i8mm", super::aarch64::i8mm::I8mm, ["neon", "dotprod", "i8mm"],
        other kernels from Neon;
}

/// An instruction set that the running CPU has, with its kernels.
///
/// All of them give the same bits; they differ in speed.
#[derive(Clone, Copy)]
pub struct Isa(pub(super) &'static Kernels);

/// Why an instruction set cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IsaError {
    /// This build has no instruction set of that name.
    Unknown,
    /// The CPU does not have it.
    Unavailable(&'static str),
}

impl fmt::Display for IsaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => write!(f, "no such instruction set in this build; try one of")?,
            Self::Unavailable(name) => write!(f, "this CPU lacks {name}; it has")?,
        }
        for (i, (isa, available)) in Isa::all().enumerate() {
            if available || *self == Self::Unknown {
                write!(f, "{} {}", if i == 0 { "" } else { "," }, isa)?;
            }
        }
        Ok(())
    }
}

impl core::error::Error for IsaError {}

impl Isa {
    /// The portable implementation, available on every machine. A build without `std` for a core with the DSP
    /// extension or MVE has that alone, and this gives it.
    pub fn portable() -> Self {
        Self(&ALL[0])
    }

    /// The fastest instruction set that the CPU has (without `std`: that the build may assume).
    ///
    /// ```
    /// # use bertlet_kernels::Isa;
    /// println!("running on {}", Isa::detect().name());
    /// ```
    pub fn detect() -> Self {
        let mut best = Self::portable();
        for kernels in ALL {
            if kernels.set.is_available() {
                best = Self(kernels);
            }
        }
        best
    }

    /// The instruction set of that name.
    ///
    /// # Errors
    /// [`IsaError::Unknown`] and [`IsaError::Unavailable`].
    pub fn named(name: &str) -> Result<Self, IsaError> {
        match ALL.iter().find(|kernels| kernels.set.name() == name) {
            None => Err(IsaError::Unknown),
            Some(kernels) if kernels.set.is_available() => Ok(Self(kernels)),
            Some(kernels) => Err(IsaError::Unavailable(kernels.set.name())),
        }
    }

    /// Name and availability of each instruction set in this build, slowest first.
    pub fn all() -> impl Iterator<Item = (&'static str, bool)> {
        ALL.iter().map(|kernels| (kernels.set.name(), kernels.set.is_available()))
    }

    /// Its name, as `--isa` and `BERTLET_ISA` take it.
    pub fn name(self) -> &'static str {
        self.0.set.name()
    }

    /// Its kernels.
    pub fn kernels(self) -> &'static Kernels {
        self.0
    }
}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Isa({})", self.name())
    }
}
