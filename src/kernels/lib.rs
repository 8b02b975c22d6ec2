//! The arithmetic, once for all instruction sets.
//!
//! * `lanes.rs` defines what an instruction set provides: `lanes::Simd`, vectors of sixteen lanes.
//! * `matmul.rs`, `attention.rs`, `rows.rs` and `math.rs` hold the kernels, each written once over it.
//! * `portable.rs`, `x86/`, `aarch64/` and `arm/` implement `lanes::Simd`. Instruction sets with the same
//!   registers share a generic type and differ by how they multiply integers: `x86::ymm::Product`,
//!   `aarch64::neon::Product`. Those that compute on arrays in memory share `portable::Arrays`. A set may replace one loop, the int8 tile: `Simd::multiply_quads`.
//! * `isa.rs` holds the list of instruction sets, and compiles every kernel for each of them.
//!
//! Nothing here knows of BERT.
//!
//! **Adding an instruction set**: one file with an implementation of `lanes::Simd` or of a `Product`,
//! and one entry in the list of `isa.rs`. The tests in `tests.rs` then compare it with the portable one,
//! bit by bit.
//!
//! **Adding a kernel**: a struct of its arguments that implements `Kernel`, and a method of [`Kernels`].
//!
//! Each kernel does at least microseconds of work, so that choosing the instruction set at each call costs
//! nothing that shows.

#![cfg_attr(not(feature = "std"), no_std)]
#![allow(unsafe_code)]
// Tiles are index arithmetic over several arrays at once; iterators would hide it.
#![allow(clippy::needless_range_loop)]

mod attention;
mod isa;
mod lanes;
mod math;
mod matmul;
mod portable;
#[cfg(feature = "std")]
mod profile;
mod rows;
mod scalar;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "arm")]
mod arm;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests;

pub use attention::{Attend, BLOCK, F32Blocks, HeadShape, Int8Blocks, KEYS_EXACT, Keys, Workspace};
use isa::InstructionSet;
pub use isa::{Isa, IsaError};
use lanes::Simd;
pub use lanes::{
    F16x16, F32x16, I8x16, I8x64, I16x32, I32x16, Plain, U16x32, flat, flat_mut, take, view,
};
pub use matmul::{FloatMatrix, Int8Matrix, Int8Rows};
use matmul::{FloatRows, Linear};
#[cfg(feature = "std")]
pub use profile::take_times;
pub use rows::{
    Activation, Norm, Prologue, QUANTIZE_ROWS, Quantize, Rotation, TABLE_GROUP, TableRow, Write,
};
pub use scalar::sqrt;

/// The arguments of a kernel, and what it does with them on any instruction set.
trait Kernel {
    /// The name of its method of [`Kernels`], for `take_times`.
    #[cfg_attr(not(feature = "std"), allow(dead_code))]
    const NAME: &'static str;
    /// Whether it multiplies integers or stores what is multiplied. An instruction set may have its own
    /// form of these kernels alone; not every target has such a one.
    #[allow(dead_code)]
    const INTEGER: bool;
    type Output;

    /// Must be `inline(always)`, as must everything that it calls with `s`: it has the instructions of
    /// the function into which it is inlined.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

/// The kernels of one instruction set.
pub struct Kernels {
    set: InstructionSet,
    /// Whether the time of each kernel is recorded.
    #[cfg(feature = "std")]
    clocked: bool,
}

// The methods are neither generic nor `inline`: this package compiles them, at its own optimisation level.
impl Kernels {
    const fn of(set: InstructionSet) -> Self {
        Self {
            set,
            #[cfg(feature = "std")]
            clocked: false,
        }
    }

    #[inline(always)]
    fn run<K: Kernel>(&self, kernel: K) -> K::Output {
        #[cfg(feature = "std")]
        let begin = self.clocked.then(std::time::Instant::now);
        // SAFETY: an `Isa` gives out only the kernels of available instruction sets.
        let output = unsafe { self.set.run(kernel) };
        #[cfg(feature = "std")]
        if let Some(begin) = begin {
            profile::record(const { profile::index(K::NAME) }, begin);
        }
        output
    }

    /// Rotates and quantises rows.
    pub fn quantize(&self, arguments: Quantize<'_>) {
        self.run(arguments);
    }

    /// `out = x W^T + b` in int8; `out` is `[rows][out_width]` vectors. `buffer` holds `[w.steps]` vectors
    /// of working memory, or nothing, which is slower on some instruction sets.
    pub fn linear_int8(
        &self,
        x: Int8Rows<'_>,
        w: Int8Matrix<'_>,
        buffer: &mut [F32x16],
        out: &mut [F32x16],
        out_width: usize,
    ) {
        self.run(Linear { x, w, buffer, out, out_width });
    }

    /// Quantises `[rows][3 * heads * width]` vectors of queries, keys and values into blocks.
    /// `buffer` holds `[16][heads * width]`.
    pub fn pack_int8(
        &self,
        qkv: &[F32x16],
        heads: HeadShape,
        blocks: &mut Int8Blocks<'_>,
        buffer: &mut [I8x16],
    ) {
        self.run(attention::PackInt8 { qkv, heads, blocks, buffer });
    }

    /// Attention in integers.
    pub fn attend_int8(&self, arguments: Attend<'_, Int8Blocks<'_>>) {
        self.run(arguments);
    }

    /// int8 products of registers and nothing else: returns the multiply-adds done.
    pub fn peak_int8(&self, rounds: usize) -> u64 {
        self.run(matmul::PeakInt8 { rounds })
    }

    /// `out = x W^T + b` in f32; `x` is `[rows][x_width]` vectors, `out` `[rows][out_width]`.
    pub fn linear_f32(
        &self,
        x: &[F32x16],
        x_width: usize,
        w: FloatMatrix<'_, F32x16>,
        out: &mut [F32x16],
        out_width: usize,
    ) {
        let x = FloatRows { values: x, width: x_width };
        self.run(Linear { x, w, buffer: &mut [], out, out_width });
    }

    /// [`Kernels::linear_f32`] with weights in f16.
    pub fn linear_f16(
        &self,
        x: &[F32x16],
        x_width: usize,
        w: FloatMatrix<'_, F16x16>,
        out: &mut [F32x16],
        out_width: usize,
    ) {
        let x = FloatRows { values: x, width: x_width };
        self.run(Linear { x, w, buffer: &mut [], out, out_width });
    }

    /// `x = norm(x + y)` row by row; `norm(x)` where `y` is empty.
    pub fn add_norm(
        &self,
        x: &mut [F32x16],
        y: &[F32x16],
        norm: Norm<'_>,
        hidden: usize,
        eps: f32,
    ) {
        self.run(rows::AddNorm { x, y, norm, hidden, eps });
    }

    /// Applies a function to every element.
    pub fn activate(&self, x: &mut [F32x16], activation: Activation) {
        self.run(rows::Activate { x, activation });
    }

    /// Writes a row of an embedding table to `x`.
    pub fn add_row(&self, x: &mut [F32x16], row: TableRow<'_>, write: Write) {
        self.run(rows::AddRow { x, row, write });
    }

    /// Writes `x * weight` to `out`.
    pub fn accumulate(&self, out: &mut [f32], x: &[f32], weight: f32, write: Write) {
        self.run(rows::Accumulate { out, x, weight, write });
    }

    /// Dot product of `x` with a row of an embedding table.
    pub fn dot_row(&self, x: &[F32x16], row: TableRow<'_>) -> f32 {
        self.run(rows::DotRow { x, row })
    }

    /// Copies `[rows][3 * heads * width]` vectors of queries, keys and values into blocks.
    pub fn pack_f32(&self, qkv: &[F32x16], heads: HeadShape, blocks: &mut F32Blocks<'_>) {
        self.run(attention::PackF32 { qkv, heads, blocks });
    }

    /// Attention in f32.
    pub fn attend_f32(&self, arguments: Attend<'_, F32Blocks<'_>>) {
        self.run(arguments);
    }

    /// Fused f32 multiply-adds of registers and nothing else: returns the multiply-adds done.
    pub fn peak_f32(&self, rounds: usize) -> u64 {
        self.run(matmul::PeakF32 { rounds })
    }
}
