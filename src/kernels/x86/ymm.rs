//! Pairs of 256-bit registers: the vectors of AVX2 and AVX-VNNI, which differ by their [`Product`].

use core::arch::x86_64::*;

use crate::lanes::{F16x16, F32x16, I8x16, I8x64, I16x32, I32x16, Simd, U16x32};

/// How an instruction set multiplies integers in one 256-bit register: eight channels.
///
/// Each value proves AVX2, FMA and F16C, and what the products need besides. As in [`Simd`], all methods
/// must be inlined.
pub trait Product: Copy {
    /// [`Simd::OFFSET`].
    const OFFSET: i32;
    /// [`Simd::Quad`].
    type Quad: Copy;

    /// # Safety
    /// The running CPU has AVX2, FMA and F16C, and the instructions of the products.
    unsafe fn assume() -> Self;
    /// [`Simd::quad`].
    fn quad(self, bytes: [i8; 4]) -> Self::Quad;
    /// [`Simd::opaque`].
    #[inline(always)]
    fn opaque(self, a: Self::Quad) -> Self::Quad {
        a
    }
    /// [`Simd::dot_quad`].
    fn dot(self, acc: __m256i, a: Self::Quad, w: __m256i) -> __m256i;
    /// [`Simd::dot_pair`].
    fn dot_pair(self, acc: __m256i, a: __m256i, w: __m256i) -> __m256i;
}

/// Vectors of two 256-bit registers, with the products of `P`.
#[derive(Clone, Copy)]
pub struct Ymm<P>(P);

/// One operation on both registers, touching no memory.
macro_rules! halves {
    ($f:ident, $a:expr) => {{
        let a = $a;
        // SAFETY: every value of the type proves AVX2.
        unsafe { ($f(a.0), $f(a.1)) }
    }};
    ($f:ident, $a:expr, $b:expr) => {{
        let (a, b) = ($a, $b);
        // SAFETY: every value of the type proves AVX2.
        unsafe { ($f(a.0, b.0), $f(a.1, b.1)) }
    }};
}

impl<P: Product> Simd for Ymm<P> {
    type F = (__m256, __m256);
    type I = (__m256i, __m256i);
    type U = (__m256i, __m256i);
    type Quad = P::Quad;
    type Pair = __m256i;
    type Quads = (__m256i, __m256i);
    type Pairs = (__m256i, __m256i);
    const OFFSET: i32 = P::OFFSET;
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
        // SAFETY: sixteen floats are at `p`; `self` proves AVX.
        unsafe { (_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))) }
    }
    #[inline(always)]
    fn store(self, p: &mut F32x16, v: Self::F) {
        let p = p.0.as_mut_ptr();
        // SAFETY: sixteen floats are at `p`; `self` proves AVX.
        unsafe {
            _mm256_storeu_ps(p, v.0);
            _mm256_storeu_ps(p.add(8), v.1);
        }
    }
    #[inline(always)]
    fn splat(self, v: f32) -> Self::F {
        // SAFETY: `self` proves AVX.
        let v = unsafe { _mm256_set1_ps(v) };
        (v, v)
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_add_ps, a, b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_sub_ps, a, b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_mul_ps, a, b)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_div_ps, a, b)
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // SAFETY: `self` proves FMA.
        unsafe { (_mm256_fmadd_ps(a.0, b.0, c.0), _mm256_fmadd_ps(a.1, b.1, c.1)) }
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_max_ps, a, b)
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_min_ps, a, b)
    }
    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        halves!(_mm256_andnot_ps, self.splat(-0.0), a)
    }
    #[inline(always)]
    fn load_f16(self, p: &F16x16) -> Self::F {
        let p = p.0.as_ptr().cast::<__m128i>();
        // SAFETY: sixteen f16 are at `p`; `self` proves F16C.
        unsafe { (_mm256_cvtph_ps(_mm_loadu_si128(p)), _mm256_cvtph_ps(_mm_loadu_si128(p.add(1)))) }
    }
    #[inline(always)]
    fn butterfly<const H: usize>(self, v: Self::F) -> Self::F {
        if H == 8 {
            // SAFETY: `self` proves AVX.
            return unsafe { (_mm256_add_ps(v.0, v.1), _mm256_sub_ps(v.0, v.1)) };
        }
        // SAFETY: `self` proves AVX2. Multiplying by 1 or -1 below is exact.
        let (swapped, sign) = unsafe {
            match H {
                1 => (
                    (_mm256_permute_ps(v.0, 0b10_11_00_01), _mm256_permute_ps(v.1, 0b10_11_00_01)),
                    _mm256_setr_ps(1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0),
                ),
                2 => (
                    (_mm256_permute_ps(v.0, 0b01_00_11_10), _mm256_permute_ps(v.1, 0b01_00_11_10)),
                    _mm256_setr_ps(1.0, 1.0, -1.0, -1.0, 1.0, 1.0, -1.0, -1.0),
                ),
                _ => (
                    (_mm256_permute2f128_ps(v.0, v.0, 1), _mm256_permute2f128_ps(v.1, v.1, 1)),
                    _mm256_setr_ps(1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0),
                ),
            }
        };
        self.fma(v, (sign, sign), swapped)
    }
    #[inline(always)]
    fn sum(self, v: Self::F) -> f32 {
        // SAFETY: `self` proves AVX.
        unsafe {
            let v = _mm256_add_ps(v.0, v.1);
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        }
    }
    #[inline(always)]
    fn largest(self, v: Self::F) -> f32 {
        // SAFETY: `self` proves AVX.
        unsafe {
            let v = _mm256_max_ps(v.0, v.1);
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        }
    }
    #[inline(always)]
    fn split(self, a: Self::F) -> (Self::F, Self::F) {
        // SAFETY: `self` proves AVX.
        let n = unsafe {
            (
                _mm256_round_ps(a.0, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
                _mm256_round_ps(a.1, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
            )
        };
        (n, self.sub(a, n))
    }
    #[inline(always)]
    fn scale_exp2(self, v: Self::F, n: Self::F) -> Self::F {
        let n = self.to_i32(n);
        // SAFETY: `self` proves AVX2.
        unsafe {
            let f = |v, n| {
                _mm256_castsi256_ps(_mm256_add_epi32(
                    _mm256_castps_si256(v),
                    _mm256_slli_epi32(n, 23),
                ))
            };
            (f(v.0, n.0), f(v.1, n.1))
        }
    }
    #[inline(always)]
    fn to_i32(self, a: Self::F) -> Self::I {
        halves!(_mm256_cvtps_epi32, a)
    }
    #[inline(always)]
    fn to_f32(self, a: Self::I) -> Self::F {
        halves!(_mm256_cvtepi32_ps, a)
    }
    #[inline(always)]
    fn load_i32(self, p: &I32x16) -> Self::I {
        let p = p.0.as_ptr().cast::<__m256i>();
        // SAFETY: sixteen words are at `p`; `self` proves AVX.
        unsafe { (_mm256_loadu_si256(p), _mm256_loadu_si256(p.add(1))) }
    }
    #[inline(always)]
    fn store_i32(self, p: &mut I32x16, v: Self::I) {
        let p = p.0.as_mut_ptr().cast::<__m256i>();
        // SAFETY: sixteen words are at `p`; `self` proves AVX.
        unsafe {
            _mm256_storeu_si256(p, v.0);
            _mm256_storeu_si256(p.add(1), v.1);
        }
    }
    #[inline(always)]
    fn splat_i32(self, v: i32) -> Self::I {
        // SAFETY: `self` proves AVX.
        let v = unsafe { _mm256_set1_epi32(v) };
        (v, v)
    }
    #[inline(always)]
    fn load_i8(self, p: &I8x16) -> Self::I {
        // SAFETY: sixteen bytes are at `p`; `self` proves AVX2.
        unsafe {
            let v = _mm_loadu_si128(p.0.as_ptr().cast());
            (_mm256_cvtepi8_epi32(v), _mm256_cvtepi8_epi32(_mm_srli_si128(v, 8)))
        }
    }
    #[inline(always)]
    fn store_i8(self, p: &mut I8x16, v: Self::I) {
        // SAFETY: sixteen bytes are at `p`; `self` proves AVX2. The shuffle takes the low
        // byte of each word to the front of its 128-bit half.
        unsafe {
            let low = _mm256_setr_epi8(
                0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, //
                0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
            );
            let order = _mm256_setr_epi32(0, 4, 1, 1, 1, 1, 1, 1);
            let eight = |v| {
                _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(
                    _mm256_shuffle_epi8(v, low),
                    order,
                ))
            };
            let bytes = _mm_unpacklo_epi64(eight(v.0), eight(v.1));
            _mm_storeu_si128(p.0.as_mut_ptr().cast(), bytes);
        }
    }
    #[inline(always)]
    fn store_activation(self, p: &mut I8x16, v: Self::I) {
        self.store_i8(p, halves!(_mm256_add_epi32, v, self.splat_i32(Self::OFFSET)));
    }
    #[inline(always)]
    fn interleave(self, low: Self::I, high: Self::I) -> Self::I {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let f = |low, high| _mm256_blend_epi16(low, _mm256_slli_epi32(high, 16), 0xaa);
            (f(low.0, high.0), f(low.1, high.1))
        }
    }
    #[inline(always)]
    fn load_u16(self, p: &U16x32) -> Self::U {
        let p = p.0.as_ptr().cast::<__m256i>();
        // SAFETY: 64 bytes are at `p`; `self` proves AVX.
        unsafe { (_mm256_loadu_si256(p), _mm256_loadu_si256(p.add(1))) }
    }
    #[inline(always)]
    fn store_u16(self, p: &mut U16x32, v: Self::U) {
        let p = p.0.as_mut_ptr().cast::<__m256i>();
        // SAFETY: 64 bytes are at `p`; `self` proves AVX.
        unsafe {
            _mm256_storeu_si256(p, v.0);
            _mm256_storeu_si256(p.add(1), v.1);
        }
    }
    #[inline(always)]
    fn splat_u16(self, v: u16) -> Self::U {
        // SAFETY: `self` proves AVX.
        let v = unsafe { _mm256_set1_epi16(v as i16) };
        (v, v)
    }
    #[inline(always)]
    fn add_u16(self, a: Self::U, b: Self::U) -> Self::U {
        halves!(_mm256_add_epi16, a, b)
    }
    #[inline(always)]
    fn to_u16(self, a: Self::F, b: Self::F) -> Self::U {
        // SAFETY: `self` proves AVX2. What i32 cannot represent becomes its least value.
        unsafe {
            let f = |a, b| _mm256_packus_epi32(_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b));
            (f(a.0, b.0), f(a.1, b.1))
        }
    }
    #[inline(always)]
    fn times_fraction(self, c: Self::U, v: Self::U) -> Self::U {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let f = |c, v| _mm256_mulhi_epu16(_mm256_slli_epi16(v, 4), c);
            (f(c.0, v.0), f(c.1, v.1))
        }
    }
    #[inline(always)]
    fn scale_octaves(self, a: Self::U, v: Self::U) -> Self::U {
        // SAFETY: `self` proves AVX2. Both factors are negative, since i16 represents -2^15 but not 2^15.
        // The bytes of -2^n are looked up where the index has its top bit clear, else they are zero.
        unsafe {
            let low = _mm256_broadcastsi128_si256(_mm_setr_epi8(
                -1, -2, -4, -8, -16, -32, -64, -128, 0, 0, 0, 0, 0, 0, 0, 0,
            ));
            let high = _mm256_broadcastsi128_si256(_mm_setr_epi8(
                -1, -1, -1, -1, -1, -1, -1, -1, -1, -2, -4, -8, -16, -32, -64, -128,
            ));
            // No closure: the compiler would leave one this long outside the kernel.
            let mut halves = [a.0, a.1];
            for (a, v) in halves.iter_mut().zip([v.0, v.1]) {
                let n = _mm256_srli_epi16(v, 12);
                let low_index = _mm256_or_si256(n, _mm256_set1_epi16(-0x8000));
                let high_index = _mm256_or_si256(_mm256_slli_epi16(n, 8), _mm256_set1_epi16(0x80));
                let power = _mm256_or_si256(
                    _mm256_shuffle_epi8(low, low_index),
                    _mm256_shuffle_epi8(high, high_index),
                );
                let negative = _mm256_sub_epi16(_mm256_setzero_si256(), *a);
                *a = _mm256_mulhrs_epi16(negative, power);
            }
            (halves[0], halves[1])
        }
    }
    #[inline(always)]
    fn mul_u15(self, a: Self::U, b: Self::U) -> Self::U {
        halves!(_mm256_mulhrs_epi16, a, b)
    }
    #[inline(always)]
    fn add_neighbours(self, acc: Self::I, v: Self::U) -> Self::I {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let f = |acc, v| _mm256_add_epi32(acc, _mm256_madd_epi16(v, _mm256_set1_epi16(1)));
            (f(acc.0, v.0), f(acc.1, v.1))
        }
    }
    #[inline(always)]
    fn quad(self, bytes: [i8; 4]) -> Self::Quad {
        self.0.quad(bytes)
    }
    #[inline(always)]
    fn opaque(self, a: Self::Quad) -> Self::Quad {
        self.0.opaque(a)
    }
    #[inline(always)]
    fn load_quads(self, w: &I8x64) -> Self::Quads {
        let p = w.0.as_ptr().cast::<__m256i>();
        // SAFETY: 64 bytes are at `p`; `self` proves AVX.
        unsafe { (_mm256_loadu_si256(p), _mm256_loadu_si256(p.add(1))) }
    }
    #[inline(always)]
    fn dot_quad(self, acc: Self::I, a: Self::Quad, w: Self::Quads) -> Self::I {
        (self.0.dot(acc.0, a, w.0), self.0.dot(acc.1, a, w.1))
    }
    #[inline(always)]
    fn compensation(self, sums: Self::I) -> Self::I {
        let zero = self.splat_i32(0);
        if Self::OFFSET == 0 {
            return zero;
        }
        // SAFETY: `self` proves AVX2. The offset is 2^7.
        unsafe {
            let f = |zero, sums| _mm256_sub_epi32(zero, _mm256_slli_epi32(sums, 7));
            (f(zero.0, sums.0), f(zero.1, sums.1))
        }
    }
    #[inline(always)]
    fn pair(self, values: [i16; 2]) -> Self::Pair {
        let word = i32::from(values[0] as u16) | i32::from(values[1]) << 16;
        // SAFETY: `self` proves AVX.
        unsafe { _mm256_set1_epi32(word) }
    }
    #[inline(always)]
    fn load_pairs(self, w: &I16x32) -> Self::Pairs {
        let p = w.0.as_ptr().cast::<__m256i>();
        // SAFETY: 64 bytes are at `p`; `self` proves AVX.
        unsafe { (_mm256_loadu_si256(p), _mm256_loadu_si256(p.add(1))) }
    }
    #[inline(always)]
    fn dot_pair(self, acc: Self::I, a: Self::Pair, w: Self::Pairs) -> Self::I {
        (self.0.dot_pair(acc.0, a, w.0), self.0.dot_pair(acc.1, a, w.1))
    }
}
