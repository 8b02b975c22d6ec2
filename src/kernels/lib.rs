//! The arithmetic, once for all instruction sets.
//!
//! `lanes.rs` says what an instruction set is (`lanes::Simd`), `matmul.rs`, `attention.rs`,
//! `rows.rs` and `math.rs` hold the loops, written once over it; `portable.rs`, `x86/` and
//! `aarch64/` hold what each instruction set does differently. Nothing here knows of BERT.
//!
//! **Adding an instruction set**: one file with the leaf operations of `lanes::Simd`; one line in
//! `kernels!` below with its name and target features; one line in [`Isa::all`] with its detection.
//! The tests in `tests.rs` then compare it with the portable one, bit by bit.
//!
//! Each kernel does at least microseconds of work, so that the call through the table does not show.

#![cfg_attr(not(feature = "std"), no_std)]
#![allow(unsafe_code)]
// Tiles are index arithmetic over several arrays at once; iterators would hide it.
#![allow(clippy::needless_range_loop)]

#[cfg(not(feature = "std"))]
extern crate no_std_compat as std;

mod attention;
mod lanes;
mod math;
mod matmul;
mod portable;
mod rows;
mod scalar;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests;

use std::fmt;

pub use attention::{
    BLOCK, F32Blocks, HeadShape, Int8Blocks, Int8BlocksMut, Int8BlocksRef, KEYS_EXACT, Keys,
    Workspace,
};
use lanes::Simd;
pub use lanes::{
    F16x16, F32x16, I8x16, I8x64, I16x32, I32x16, Plain, U16x32, flat, flat_mut, take, view,
};
pub use matmul::{FloatMatrix, Int8Matrix, Int8Rows};
pub use rows::{Activation, Norm, QUANTIZE_ROWS, Rotation, TABLE_GROUP, TableRow};
pub use scalar::sqrt;

/// Calls `$then!` with a list of kernels: name, arguments, and the generic function behind it. These
/// are the ones that multiply integers or hold what is multiplied.
macro_rules! for_integer_kernels {
    ($then:ident $($with:tt)*) => { $then! { [$($with)*]
        /// Rotates and quantises the rows of `x`, or with `gelu` of its GELU; see [`Rotation`]. `x` and
        /// `values` are `[rows][width]` vectors, `buffer` up to [`QUANTIZE_ROWS`] rows, `scale`
        /// `[rows]`; `ahead`, which may be empty, are weights that will be wanted next.
        quantize(x: &[F32x16], gelu: bool, rotation: Rotation,
            buffer: &mut [F32x16], values: &mut [I8x16], scale: &mut [f32], ahead: &[I8x64])
            -> () = rows::quantize;
        /// `out = x W^T + b` in int8; `out` is `[rows][out_width]` vectors.
        linear_int8(x: Int8Rows<'_>, w: Int8Matrix<'_>, out: &mut [F32x16], out_width: usize) -> ()
            = matmul::linear_int8;
        /// Quantises `[rows][3 * heads * width]` vectors of queries, keys and values into blocks.
        /// `buffer` holds `[16][heads * width]`.
        pack_int8(qkv: &[F32x16], heads: HeadShape, blocks: Int8BlocksMut<'_>,
            buffer: &mut [I8x16]) -> () = attention::pack_int8;
        /// Integer attention of `rows` queries from block `b` on; `context` is
        /// `[rows][heads * width]` vectors, `maps` (if wanted) `[rows][heads][keys]`.
        attend_int8(heads: HeadShape, blocks: Int8BlocksRef<'_>, b: usize, rows: usize, keys: Keys<'_>,
            work: Workspace<'_>, context: &mut [F32x16], maps: Option<&mut [f32]>) -> ()
            = attention::attend_int8;
        /// int8 products of registers and nothing else: returns the multiply-adds done.
        peak_int8(rounds: usize) -> u64 = matmul::peak_int8;
    } };
}

/// [`for_integer_kernels`] with all kernels.
macro_rules! for_all_kernels {
    ($then:ident $($with:tt)*) => { for_integer_kernels!(and_float_kernels $then [$($with)*]); };
}

macro_rules! and_float_kernels {
    ([$then:ident [$($with:tt)*]] $($integer:tt)*) => { $then! { [$($with)*] $($integer)*
        /// `out = x W^T + b` in f32; `x` is `[rows][x_width]` vectors, `out` `[rows][out_width]`.
        linear_f32(x: &[F32x16], x_width: usize, w: FloatMatrix<'_, F32x16>, out: &mut [F32x16],
            out_width: usize) -> () = matmul::linear_float::<_, matmul::Singles>;
        /// [`Kernels::linear_f32`] with weights in f16.
        linear_f16(x: &[F32x16], x_width: usize, w: FloatMatrix<'_, F16x16>, out: &mut [F32x16],
            out_width: usize) -> () = matmul::linear_float::<_, matmul::Halves>;
        /// `x = norm(x + y)` row by row; `norm(x)` where `y` is empty.
        add_norm(x: &mut [F32x16], y: &[F32x16], norm: Norm<'_>, hidden: usize, eps: f32) -> ()
            = rows::add_norm;
        /// Applies a function to every element.
        activate(x: &mut [F32x16], activation: Activation) -> () = rows::activate;
        /// `x = row` (`first`) or `x += row`.
        add_row(x: &mut [F32x16], row: TableRow<'_>, first: bool) -> () = rows::add_row;
        /// `out = x * weight` (`set`) or `out += x * weight`.
        accumulate(out: &mut [f32], x: &[f32], weight: f32, set: bool) -> () = rows::accumulate;
        /// Dot product of `x` with a row of a table.
        dot_row(x: &[F32x16], row: TableRow<'_>) -> f32 = rows::dot_row;
        /// Lays queries, keys and values out in blocks, in f32.
        pack_f32(qkv: &[F32x16], heads: HeadShape, blocks: F32Blocks<&mut [F32x16]>) -> ()
            = attention::pack_f32;
        /// [`Kernels::attend_int8`] in f32.
        attend_f32(heads: HeadShape, blocks: F32Blocks<&[F32x16]>, b: usize, rows: usize,
            keys: Keys<'_>, work: Workspace<'_>, context: &mut [F32x16], maps: Option<&mut [f32]>)
            -> () = attention::attend_f32;
        /// Fused f32 multiply-adds of registers and nothing else, likewise.
        peak_f32(rounds: usize) -> u64 = matmul::peak_f32;
    } };
}

macro_rules! table {
    ([] $($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $f:expr;)*) => {
        /// The kernels of one instruction set.
        pub struct Kernels {
            isa: &'static str,
            $($name: unsafe fn($($ty),*) -> $ret,)*
        }

        impl Kernels {
            $(
                $(#[$doc])*
                #[allow(clippy::too_many_arguments)]
                #[inline]
                pub fn $name(&self, $($arg: $ty),*) -> $ret {
                    // SAFETY: an `Isa` hands out only tables whose instructions the CPU has.
                    unsafe { (self.$name)($($arg),*) }
                }
            )*
        }
    };
}
for_all_kernels!(table);

// After the list of kernels, which it uses.
#[cfg(feature = "std")]
mod profile;
#[cfg(feature = "std")]
pub use profile::take_times;

/// Compiles kernels for one instruction set; those that are not listed are those of `$base`.
macro_rules! kernels {
    ([$table:ident $isa:literal $simd:ty, $features:meta $(, ..$base:ident)?]
        $($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $f:expr;)*) => {
        static $table: Kernels = {
            $(
                #[allow(clippy::too_many_arguments)]
                #[$features]
                fn $name($($arg: $ty),*) -> $ret {
                    // SAFETY: this function has the target features of the type, and is reached only
                    // through a table for which they were detected.
                    $f(unsafe { <$simd>::assume() }, $($arg),*)
                }
            )*
            Kernels { isa: $isa, $($name,)* $(..$base)? }
        };
    };
}
for_all_kernels!(kernels PORTABLE "portable" portable::Portable, inline(never));
#[cfg(target_arch = "x86_64")]
for_all_kernels!(kernels AVX2 "avx2" x86::avx2::Avx2,
    target_feature(enable = "avx2,fma,f16c"));
#[cfg(target_arch = "x86_64")]
for_integer_kernels!(kernels AVXVNNI "avxvnni" x86::avxvnni::AvxVnni,
    target_feature(enable = "avx2,fma,f16c,avxvnni"), ..AVX2);
#[cfg(target_arch = "x86_64")]
for_all_kernels!(kernels AVX512VNNI "avx512vnni" x86::avx512vnni::Avx512Vnni,
    target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"));
#[cfg(target_arch = "aarch64")]
for_all_kernels!(kernels NEON "neon" aarch64::neon::Neon, target_feature(enable = "neon"));

/// An instruction set that the running CPU has, with its kernels.
///
/// All of them give the same bits; they differ in speed.
#[derive(Clone, Copy)]
pub struct Isa(&'static Kernels);

/// Why an instruction set cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IsaError {
    /// No instruction set has this name in this build.
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

/// Whether the CPU has the named features: asked at run time with `std`, else known at build time.
#[allow(unused_macros)]
macro_rules! has {
    ($detect:ident: $($feature:tt)*) => {{
        #[cfg(feature = "std")]
        { true $(&& std::arch::$detect!($feature))* }
        #[cfg(not(feature = "std"))]
        { true $(&& cfg!(target_feature = $feature))* }
    }};
}

impl Isa {
    /// The plain implementation, there on every machine.
    pub fn portable() -> Self {
        Self(&PORTABLE)
    }

    /// The fastest instruction set that the CPU has (without `std`: that the build may assume).
    ///
    /// ```
    /// # use bertlet_kernels::Isa;
    /// println!("running on {}", Isa::detect().name());
    /// ```
    pub fn detect() -> Self {
        let mut best = &PORTABLE;
        for (kernels, available) in Self::tables() {
            if available {
                best = kernels;
            }
        }
        Self(best)
    }

    /// The instruction set of that name.
    ///
    /// # Errors
    /// [`IsaError::Unknown`] and [`IsaError::Unavailable`].
    pub fn named(name: &str) -> Result<Self, IsaError> {
        match Self::tables().find(|(kernels, _)| kernels.isa == name) {
            None => Err(IsaError::Unknown),
            Some((kernels, false)) => Err(IsaError::Unavailable(kernels.isa)),
            Some((kernels, true)) => Ok(Self(kernels)),
        }
    }

    /// Name and availability of each instruction set in this build, slowest first.
    pub fn all() -> impl Iterator<Item = (&'static str, bool)> {
        Self::tables().map(|(kernels, available)| (kernels.isa, available))
    }

    fn tables() -> impl Iterator<Item = (&'static Kernels, bool)> {
        [
            (&PORTABLE, true),
            #[cfg(target_arch = "x86_64")]
            (&AVX2, has!(is_x86_feature_detected: "avx2" "fma" "f16c")),
            #[cfg(target_arch = "x86_64")]
            (&AVXVNNI, has!(is_x86_feature_detected: "avx2" "fma" "f16c" "avxvnni")),
            #[cfg(target_arch = "x86_64")]
            (
                &AVX512VNNI,
                has!(is_x86_feature_detected: "avx2" "fma" "f16c" "avx512f" "avx512bw" "avx512dq"
                    "avx512vl" "avx512vnni"),
            ),
            #[cfg(target_arch = "aarch64")]
            (&NEON, has!(is_aarch64_feature_detected: "neon")),
        ]
        .into_iter()
    }

    /// Its name, as `--isa` and `BERTLET_ISA` take it.
    pub fn name(self) -> &'static str {
        self.0.isa
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
