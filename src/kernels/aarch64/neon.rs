//! Four 128-bit registers per vector, so that 24 of the 32 registers hold six accumulators, as on AVX2.
//!
//! The instruction sets that share these vectors differ by their [`Product`].

use core::arch::aarch64::*;

use crate::lanes::{F16x16, F32x16, I8x16, I8x64, I16x32, I32x16, Simd, U16x32};
use crate::matmul::Tile;

/// A tile of int8.
pub type QuadTile<const A: usize> = Tile<[i8; 4], I8x64, A>;

/// The accumulators of a vector.
pub type Words = [int32x4_t; 4];

/// How an instruction set multiplies integers in one 128-bit register: four channels.
///
/// Each value proves NEON, and what the products need besides. As in [`Simd`], all methods must be inlined.
pub trait Product: Copy {
    /// # Safety
    /// The running CPU has NEON, and the instructions of the products.
    unsafe fn assume() -> Self;
    /// [`Simd::dot_quad`].
    fn dot(self, acc: int32x4_t, a: int8x16_t, w: int8x16_t) -> int32x4_t;
    /// [`Simd::multiply_quads`].
    ///
    /// # Safety
    /// As there.
    unsafe fn multiply_quads<const MR: usize, const NP: usize, const A: usize>(
        self,
        acc: [[Words; NP]; MR],
        tile: QuadTile<A>,
    ) -> [[Words; NP]; MR];
    /// [`Simd::ARRANGE_FROM`].
    const ARRANGE_FROM: usize = usize::MAX;
    /// [`Simd::arrange`].
    #[inline(always)]
    fn arrange(self, panel: &[I8x64], arranged: &mut [I8x64]) {
        arranged.copy_from_slice(panel);
    }
}

/// Vectors of four NEON registers, with the products of `P`.
#[derive(Clone, Copy)]
pub struct Neon<P>(P);

/// Intrinsics that touch no memory.
macro_rules! op {
    ($e:expr) => {
        // SAFETY: every value of the type proves NEON.
        unsafe { $e }
    };
}

/// One operation, touching no memory, on each of the four registers.
macro_rules! quarters {
    (|$($v:ident),+| $e:expr) => {
        [quarters!(0, ($($v)+), $e), quarters!(1, ($($v)+), $e), quarters!(2, ($($v)+), $e),
            quarters!(3, ($($v)+), $e)]
    };
    ($i:literal, ($($v:ident)+), $e:expr) => {{
        $(let $v = $v[$i];)+
        op!($e)
    }};
}

impl<P: Product> Simd for Neon<P> {
    type F = [float32x4_t; 4];
    type I = [int32x4_t; 4];
    type U = [uint16x8_t; 4];
    type Quad = int8x16_t;
    type Pair = int16x4_t;
    /// First factors of eight channels, second factors of the same; then those of the other eight.
    type Quads = [int8x16_t; 4];
    type Pairs = [int16x8_t; 4];
    const OFFSET: i32 = 0;
    const ROWS: usize = 6;
    const WIDE: bool = false;

    #[inline(always)]
    unsafe fn assume() -> Self {
        // SAFETY: as the caller guarantees.
        Self(unsafe { P::assume() })
    }
    #[inline(always)]
    fn load(self, p: &F32x16) -> Self::F {
        let p = p.0.as_ptr();
        // SAFETY: sixteen floats are at `p`.
        unsafe { [vld1q_f32(p), vld1q_f32(p.add(4)), vld1q_f32(p.add(8)), vld1q_f32(p.add(12))] }
    }
    #[inline(always)]
    fn store(self, p: &mut F32x16, v: Self::F) {
        let p = p.0.as_mut_ptr();
        // SAFETY: sixteen floats are at `p`.
        unsafe {
            vst1q_f32(p, v[0]);
            vst1q_f32(p.add(4), v[1]);
            vst1q_f32(p.add(8), v[2]);
            vst1q_f32(p.add(12), v[3]);
        }
    }
    #[inline(always)]
    fn splat(self, v: f32) -> Self::F {
        [op!(vdupq_n_f32(v)); 4]
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(|a, b| vaddq_f32(a, b))
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(|a, b| vsubq_f32(a, b))
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(|a, b| vmulq_f32(a, b))
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(|a, b| vdivq_f32(a, b))
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        quarters!(|a, b, c| vfmaq_f32(c, a, b))
    }
    // `fmax` and `fmaxnm` treat NaN and zeros of both signs differently from x86; a comparison and a
    // selection give the portable results.
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(|a, b| vbslq_f32(vcgtq_f32(a, b), a, b))
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(|a, b| vbslq_f32(vcltq_f32(a, b), a, b))
    }
    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        quarters!(|a| vabsq_f32(a))
    }
    // No zero is negative in the following three, and of a NaN and a number `fmaxnm` gives the number.
    #[inline(always)]
    fn max_magnitude(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(|a, b| vmaxnmq_f32(a, vabsq_f32(b)))
    }
    #[inline(always)]
    fn min_magnitude(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(|a, b| vminnmq_f32(vabsq_f32(a), b))
    }
    #[inline(always)]
    fn positive(self, a: Self::F) -> Self::F {
        quarters!(|a| vmaxnmq_f32(a, vdupq_n_f32(0.0)))
    }
    #[inline(always)]
    fn load_f16(self, p: &F16x16) -> Self::F {
        let p = p.0.as_ptr();
        // SAFETY: sixteen f16 are at `p`.
        let halves =
            unsafe { [vld1_u16(p), vld1_u16(p.add(4)), vld1_u16(p.add(8)), vld1_u16(p.add(12))] };
        quarters!(|halves| vcvt_f32_f16(vreinterpret_f16_u16(halves)))
    }
    #[inline(always)]
    fn butterfly<const H: usize>(self, v: Self::F) -> Self::F {
        // Multiplying by 1 or -1 is exact, so the fused form rounds like a sum.
        match H {
            1 => {
                let sign = self.alternate([1.0, -1.0, 1.0, -1.0]);
                quarters!(|v| vfmaq_f32(vrev64q_f32(v), v, sign))
            }
            2 => {
                let sign = self.alternate([1.0, 1.0, -1.0, -1.0]);
                quarters!(|v| vfmaq_f32(vextq_f32::<2>(v, v), v, sign))
            }
            4 => op!([
                vaddq_f32(v[0], v[1]),
                vsubq_f32(v[0], v[1]),
                vaddq_f32(v[2], v[3]),
                vsubq_f32(v[2], v[3]),
            ]),
            _ => op!([
                vaddq_f32(v[0], v[2]),
                vaddq_f32(v[1], v[3]),
                vsubq_f32(v[0], v[2]),
                vsubq_f32(v[1], v[3]),
            ]),
        }
    }
    #[inline(always)]
    fn sum(self, v: Self::F) -> f32 {
        op!({
            let v = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
            let v = vadd_f32(vget_low_f32(v), vget_high_f32(v));
            vget_lane_f32::<0>(vpadd_f32(v, v))
        })
    }
    #[inline(always)]
    fn largest(self, v: Self::F) -> f32 {
        op!({
            let v = vmaxnmq_f32(vmaxnmq_f32(v[0], v[2]), vmaxnmq_f32(v[1], v[3]));
            vmaxnmvq_f32(v)
        })
    }
    #[inline(always)]
    fn largest_of_each(self, v: [Self::F; 16]) -> Self::F {
        let largest_of_four = |v: &[Self::F]| {
            let quarter =
                |v: Self::F| op!(vmaxnmq_f32(vmaxnmq_f32(v[0], v[2]), vmaxnmq_f32(v[1], v[3])));
            op!(vpmaxnmq_f32(
                vpmaxnmq_f32(quarter(v[0]), quarter(v[1])),
                vpmaxnmq_f32(quarter(v[2]), quarter(v[3])),
            ))
        };
        [
            largest_of_four(&v[..4]),
            largest_of_four(&v[4..8]),
            largest_of_four(&v[8..12]),
            largest_of_four(&v[12..]),
        ]
    }
    #[inline(always)]
    fn split(self, a: Self::F) -> (Self::F, Self::F) {
        let n = quarters!(|a| vrndnq_f32(a));
        (n, self.sub(a, n))
    }
    #[inline(always)]
    fn scale_exp2(self, v: Self::F, n: Self::F) -> Self::F {
        let n = self.to_i32(n);
        quarters!(|v, n| vreinterpretq_f32_s32(vaddq_s32(
            vreinterpretq_s32_f32(v),
            vshlq_n_s32::<23>(n)
        )))
    }
    #[inline(always)]
    fn to_i32(self, a: Self::F) -> Self::I {
        quarters!(|a| vcvtnq_s32_f32(a))
    }
    #[inline(always)]
    fn to_f32(self, a: Self::I) -> Self::F {
        quarters!(|a| vcvtq_f32_s32(a))
    }
    #[inline(always)]
    fn load_i32(self, p: &I32x16) -> Self::I {
        let p = p.0.as_ptr();
        // SAFETY: sixteen words are at `p`.
        unsafe { [vld1q_s32(p), vld1q_s32(p.add(4)), vld1q_s32(p.add(8)), vld1q_s32(p.add(12))] }
    }
    #[inline(always)]
    fn store_i32(self, p: &mut I32x16, v: Self::I) {
        let p = p.0.as_mut_ptr();
        // SAFETY: sixteen words are at `p`.
        unsafe {
            vst1q_s32(p, v[0]);
            vst1q_s32(p.add(4), v[1]);
            vst1q_s32(p.add(8), v[2]);
            vst1q_s32(p.add(12), v[3]);
        }
    }
    #[inline(always)]
    fn splat_i32(self, v: i32) -> Self::I {
        [op!(vdupq_n_s32(v)); 4]
    }
    #[inline(always)]
    fn load_i8(self, p: &I8x16) -> Self::I {
        // SAFETY: sixteen bytes are there.
        let bytes = unsafe { vld1q_s8(p.0.as_ptr()) };
        op!({
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            [
                vmovl_s16(vget_low_s16(low)),
                vmovl_high_s16(low),
                vmovl_s16(vget_low_s16(high)),
                vmovl_high_s16(high),
            ]
        })
    }
    #[inline(always)]
    fn store_i8(self, p: &mut I8x16, v: Self::I) {
        // The even bytes of the even halves are the low bytes of the words.
        let bytes = op!({
            let even = |a, b| vuzp1q_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b));
            let (low, high) = (even(v[0], v[1]), even(v[2], v[3]));
            vuzp1q_s8(vreinterpretq_s8_s16(low), vreinterpretq_s8_s16(high))
        });
        // SAFETY: sixteen bytes are there.
        unsafe { vst1q_s8(p.0.as_mut_ptr(), bytes) }
    }
    #[inline(always)]
    fn store_activation(self, p: &mut I8x16, v: Self::I) {
        self.store_i8(p, v);
    }
    #[inline(always)]
    fn interleave(self, low: Self::I, high: Self::I) -> Self::I {
        quarters!(|low, high| vsliq_n_s32::<16>(low, high))
    }
    #[inline(always)]
    fn transpose(self, rows: &[F32x16; 16], columns: &mut [F32x16; 16]) {
        // SAFETY: sixteen vectors of sixteen words are at both.
        unsafe { self.transpose_words(rows.as_ptr().cast(), 16, columns.as_mut_ptr().cast()) }
    }
    #[inline(always)]
    fn transpose_quads(self, rows: &[I8x16], stride: usize, columns: &mut [I8x64; 16]) {
        let words = rows[..15 * stride + 4].as_ptr().cast();
        // SAFETY: sixteen rows of sixteen quads are at `words`, sixteen steps of a panel at `columns`.
        unsafe { self.transpose_words(words, stride * 4, columns.as_mut_ptr().cast()) }
    }
    #[inline(always)]
    fn sum_of_each(self, v: [Self::I; 16]) -> Self::I {
        let sum_of_four = |v: &[Self::I]| {
            let quarter = |v: Self::I| op!(vaddq_s32(vaddq_s32(v[0], v[2]), vaddq_s32(v[1], v[3])));
            op!(vpaddq_s32(
                vpaddq_s32(quarter(v[0]), quarter(v[1])),
                vpaddq_s32(quarter(v[2]), quarter(v[3])),
            ))
        };
        [sum_of_four(&v[..4]), sum_of_four(&v[4..8]), sum_of_four(&v[8..12]), sum_of_four(&v[12..])]
    }
    #[inline(always)]
    fn load_u16(self, p: &U16x32) -> Self::U {
        let p = p.0.as_ptr();
        // SAFETY: 32 numbers are at `p`.
        unsafe { [vld1q_u16(p), vld1q_u16(p.add(8)), vld1q_u16(p.add(16)), vld1q_u16(p.add(24))] }
    }
    #[inline(always)]
    fn store_u16(self, p: &mut U16x32, v: Self::U) {
        let p = p.0.as_mut_ptr();
        // SAFETY: 32 numbers are at `p`.
        unsafe {
            vst1q_u16(p, v[0]);
            vst1q_u16(p.add(8), v[1]);
            vst1q_u16(p.add(16), v[2]);
            vst1q_u16(p.add(24), v[3]);
        }
    }
    #[inline(always)]
    fn splat_u16(self, v: u16) -> Self::U {
        [op!(vdupq_n_u16(v)); 4]
    }
    #[inline(always)]
    fn add_u16(self, a: Self::U, b: Self::U) -> Self::U {
        quarters!(|a, b| vaddq_u16(a, b))
    }
    #[inline(always)]
    fn to_u16(self, a: Self::F, b: Self::F) -> Self::U {
        let (a, b) = (quarters!(|a| vcvtnq_u32_f32(a)), quarters!(|b| vcvtnq_u32_f32(b)));
        op!([
            vqmovn_high_u32(vqmovn_u32(a[0]), b[0]),
            vqmovn_high_u32(vqmovn_u32(a[1]), b[1]),
            vqmovn_high_u32(vqmovn_u32(a[2]), b[2]),
            vqmovn_high_u32(vqmovn_u32(a[3]), b[3]),
        ])
    }
    #[inline(always)]
    fn times_fraction(self, c: Self::U, v: Self::U) -> Self::U {
        // The product's upper half, doubled.
        quarters!(|c, v| {
            let fraction = vshlq_n_u16::<3>(vandq_u16(v, vdupq_n_u16(4095)));
            let c = vreinterpretq_s16_u16(c);
            vreinterpretq_u16_s16(vqdmulhq_s16(vreinterpretq_s16_u16(fraction), c))
        })
    }
    #[inline(always)]
    fn scale_octaves(self, a: Self::U, v: Self::U) -> Self::U {
        quarters!(|a, v| {
            let octave = vreinterpretq_s16_u16(vshrq_n_u16::<12>(v));
            vrshlq_u16(a, vsubq_s16(octave, vdupq_n_s16(15)))
        })
    }
    #[inline(always)]
    fn mul_u15(self, a: Self::U, b: Self::U) -> Self::U {
        quarters!(|a, b| vreinterpretq_u16_s16(vqrdmulhq_s16(
            vreinterpretq_s16_u16(a),
            vreinterpretq_s16_u16(b)
        )))
    }
    #[inline(always)]
    fn add_neighbours(self, acc: Self::I, v: Self::U) -> Self::I {
        quarters!(|acc, v| vpadalq_s16(acc, vreinterpretq_s16_u16(v)))
    }
    #[inline(always)]
    fn quad(self, bytes: [i8; 4]) -> int8x16_t {
        let word = i32::from_le_bytes(bytes.map(|b| b as u8));
        op!(vreinterpretq_s8_s32(vdupq_n_s32(word)))
    }
    #[inline(always)]
    fn opaque(self, mut a: int8x16_t) -> int8x16_t {
        // SAFETY: there is no instruction.
        unsafe { core::arch::asm!("/* {0:v} */", inout(vreg) a, options(nomem, nostack)) };
        a
    }
    #[inline(always)]
    fn load_quads(self, w: &I8x64) -> Self::Quads {
        let p = w.0.as_ptr();
        // SAFETY: 64 bytes are at `p`.
        unsafe { [vld1q_s8(p), vld1q_s8(p.add(16)), vld1q_s8(p.add(32)), vld1q_s8(p.add(48))] }
    }
    #[inline(always)]
    fn dot_quad(self, acc: Self::I, a: int8x16_t, w: Self::Quads) -> Self::I {
        [
            self.0.dot(acc[0], a, w[0]),
            self.0.dot(acc[1], a, w[1]),
            self.0.dot(acc[2], a, w[2]),
            self.0.dot(acc[3], a, w[3]),
        ]
    }
    #[inline(always)]
    fn pair(self, values: [i16; 2]) -> int16x4_t {
        let word = i32::from(values[0] as u16) | i32::from(values[1]) << 16;
        op!(vreinterpret_s16_s32(vdup_n_s32(word)))
    }
    #[inline(always)]
    fn load_pairs(self, w: &I16x32) -> Self::Pairs {
        let p = w.0.as_ptr();
        // SAFETY: 32 numbers are at `p`.
        let w = unsafe {
            [vld1q_s16(p), vld1q_s16(p.add(8)), vld1q_s16(p.add(16)), vld1q_s16(p.add(24))]
        };
        op!([
            vuzp1q_s16(w[0], w[1]),
            vuzp2q_s16(w[0], w[1]),
            vuzp1q_s16(w[2], w[3]),
            vuzp2q_s16(w[2], w[3]),
        ])
    }
    #[inline(always)]
    fn dot_pair(self, mut acc: Self::I, a: int16x4_t, w: Self::Pairs) -> Self::I {
        // The compiler would make a product, a product and a sum of two intrinsics.
        macro_rules! smlal {
            ($i:literal, $form:literal, $type:literal) => {
                // SAFETY: registers only; `self` proves NEON.
                unsafe {
                    core::arch::asm!(
                        concat!($form, " {acc:v}.4s, {first:v}.", $type, ", {a:v}.h[0]"),
                        concat!($form, " {acc:v}.4s, {second:v}.", $type, ", {a:v}.h[1]"),
                        acc = inout(vreg) acc[$i],
                        first = in(vreg) w[$i / 2 * 2],
                        second = in(vreg) w[$i / 2 * 2 + 1],
                        a = in(vreg_low16) a,
                        options(pure, nomem, nostack, preserves_flags),
                    );
                }
            };
        }
        smlal!(0, "smlal", "4h");
        smlal!(1, "smlal2", "8h");
        smlal!(2, "smlal", "4h");
        smlal!(3, "smlal2", "8h");
        acc
    }
    #[inline(always)]
    unsafe fn multiply_quads<const MR: usize, const NP: usize, const A: usize>(
        self,
        acc: [[Words; NP]; MR],
        tile: QuadTile<A>,
    ) -> [[Words; NP]; MR] {
        // SAFETY: as the caller guarantees.
        unsafe { self.0.multiply_quads(acc, tile) }
    }
    const ARRANGE_FROM: usize = P::ARRANGE_FROM;
    #[inline(always)]
    fn arrange(self, panel: &[I8x64], arranged: &mut [I8x64]) {
        self.0.arrange(panel, arranged);
    }
    #[inline(always)]
    fn compensation(self, _: Self::I) -> Self::I {
        self.splat_i32(0)
    }
}

/// The steps of a tile that its loops over four steps leave: up to three, at its end.
///
/// # Safety
/// As that of [`Simd::multiply_quads`].
#[inline(always)]
pub unsafe fn multiply_rest<P: Product, const MR: usize, const NP: usize, const A: usize>(
    product: P,
    mut acc: [[Words; NP]; MR],
    tile: QuadTile<A>,
) -> [[Words; NP]; MR] {
    for k in tile.steps / 4 * 4..tile.steps {
        for p in 0..NP {
            // SAFETY: as the caller guarantees.
            let w = unsafe { &*tile.panels.add(p * tile.panel_stride + k) };
            let w = Neon(product).load_quads(w);
            for r in 0..MR {
                // SAFETY: as the caller guarantees.
                let a = unsafe { tile.rows.add(r * tile.row_stride + k).read_unaligned() };
                acc[r][p] = Neon(product).dot_quad(acc[r][p], Neon(product).quad(a), w);
            }
        }
    }
    acc
}

impl<P: Product> Neon<P> {
    #[inline(always)]
    fn alternate(self, signs: [f32; 4]) -> float32x4_t {
        // SAFETY: four floats are there.
        unsafe { vld1q_f32(signs.as_ptr()) }
    }
    /// `columns[16 j + t] = rows[stride t + j]` for `j` and `t` below sixteen, four by four.
    ///
    /// # Safety
    /// These words exist and do not overlap.
    #[inline(always)]
    unsafe fn transpose_words(self, rows: *const i32, stride: usize, columns: *mut i32) {
        for t in (0..16).step_by(4) {
            for j in (0..16).step_by(4) {
                // SAFETY: as the caller guarantees; `self` proves NEON.
                unsafe {
                    let row = |i: usize| vld1q_s32(rows.add((t + i) * stride + j));
                    let (a, b) = (vtrnq_s32(row(0), row(1)), vtrnq_s32(row(2), row(3)));
                    let wide = [a.0, a.1, b.0, b.1].map(|v| vreinterpretq_s64_s32(v));
                    let store = |i: usize, v| {
                        vst1q_s32(columns.add((j + i) * 16 + t), vreinterpretq_s32_s64(v));
                    };
                    store(0, vtrn1q_s64(wide[0], wide[2]));
                    store(1, vtrn1q_s64(wide[1], wide[3]));
                    store(2, vtrn2q_s64(wide[0], wide[2]));
                    store(3, vtrn2q_s64(wide[1], wide[3]));
                }
            }
        }
    }
}
