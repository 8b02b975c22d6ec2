//! AVX-512 with VNNI (Ice Lake and Zen 4 onwards): one register per vector.

use core::arch::x86_64::*;

use crate::lanes::{F16x16, F32x16, I8x16, I8x64, I16x32, I32x16, Simd, U16x32};

/// Proof of AVX-512 F, BW, DQ, VL and VNNI.
#[derive(Clone, Copy)]
pub struct Avx512Vnni(());

/// Intrinsics that touch no memory.
macro_rules! op {
    ($e:expr) => {
        // SAFETY: every value of the type proves the instruction sets.
        unsafe { $e }
    };
}

/// `vpdpwssd` as one instruction: LLVM would replace the intrinsic by a product and a sum, to shorten
/// dependency chains that are not the bottleneck here.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dpwssd(mut acc: __m512i, a: __m512i, w: __m512i) -> __m512i {
    // SAFETY: registers only.
    unsafe {
        core::arch::asm!(
            "vpdpwssd {acc}, {a}, {w}",
            acc = inout(zmm_reg) acc,
            a = in(zmm_reg) a,
            w = in(zmm_reg) w,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

/// Folds the lanes of each of sixteen vectors with `$f`. Halves, quarters and so on of two vectors share a
/// register, so that every operation folds both. Blends replace shuffles where possible, since shuffles have
/// one port only.
macro_rules! fold_each {
    ($v:expr, $f:ident) => {{
        let v = $v;
        let mut h = [_mm512_setzero_ps(); 8];
        for i in 0..8 {
            let (a, b) = (v[i], v[i + 8]);
            h[i] = $f(_mm512_mask_blend_ps(0xff00, a, b), _mm512_shuffle_f32x4::<0x4e>(a, b));
        }
        let mut q = [_mm512_setzero_ps(); 4];
        for i in 0..4 {
            let (a, b) = (h[i], h[i + 4]);
            q[i] = $f(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
        }
        let mut p = [_mm512_setzero_ps(); 2];
        for i in 0..2 {
            let (a, b) = (q[i], q[i + 2]);
            p[i] = $f(_mm512_mask_blend_ps(0xcccc, a, b), _mm512_shuffle_ps::<0x4e>(a, b));
        }
        let [a, b] = p;
        let mixed = $f(_mm512_shuffle_ps::<0x88>(a, b), _mm512_shuffle_ps::<0xdd>(a, b));
        // Quarters hold vectors 0, 8, 4, 12 and the next three of each; lanes 0, 2, 1, 3 of these.
        let order = _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15);
        _mm512_permutexvar_ps(order, mixed)
    }};
}

impl Simd for Avx512Vnni {
    type F = __m512;
    type I = __m512i;
    type U = __m512i;
    type Quad = __m512i;
    type Pair = __m512i;
    type Quads = __m512i;
    type Pairs = __m512i;
    const OFFSET: i32 = 128;
    const ROWS: usize = 8;
    const WIDE: bool = true;

    #[inline(always)]
    unsafe fn assume() -> Self {
        Self(())
    }
    #[inline(always)]
    fn load(self, p: &F32x16) -> __m512 {
        // SAFETY: sixteen floats are there.
        unsafe { _mm512_loadu_ps(p.0.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, p: &mut F32x16, v: __m512) {
        // SAFETY: sixteen floats are there.
        unsafe { _mm512_storeu_ps(p.0.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn splat(self, v: f32) -> __m512 {
        op!(_mm512_set1_ps(v))
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        op!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        op!(_mm512_abs_ps(a))
    }
    #[inline(always)]
    fn load_f16(self, p: &F16x16) -> __m512 {
        // SAFETY: sixteen f16 are there.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.0.as_ptr().cast())) }
    }
    #[inline(always)]
    fn butterfly<const H: usize>(self, v: __m512) -> __m512 {
        // Multiplying by 1 or -1 is exact, so the fused form rounds like a sum.
        op!(match H {
            1 => {
                let sign = _mm512_set4_ps(-1.0, 1.0, -1.0, 1.0);
                _mm512_fmadd_ps(v, sign, _mm512_permute_ps(v, 0b10_11_00_01))
            }
            2 => {
                let sign = _mm512_set4_ps(-1.0, -1.0, 1.0, 1.0);
                _mm512_fmadd_ps(v, sign, _mm512_permute_ps(v, 0b01_00_11_10))
            }
            4 => {
                let sign = _mm512_mask_blend_ps(0xf0f0, _mm512_set1_ps(1.0), _mm512_set1_ps(-1.0));
                _mm512_fmadd_ps(v, sign, _mm512_shuffle_f32x4(v, v, 0b10_11_00_01))
            }
            _ => {
                let sign = _mm512_mask_blend_ps(0xff00, _mm512_set1_ps(1.0), _mm512_set1_ps(-1.0));
                _mm512_fmadd_ps(v, sign, _mm512_shuffle_f32x4(v, v, 0b01_00_11_10))
            }
        })
    }
    #[inline(always)]
    fn sum(self, v: __m512) -> f32 {
        op!({
            let v = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        })
    }
    #[inline(always)]
    fn largest(self, v: __m512) -> f32 {
        op!({
            let v = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        })
    }
    #[inline(always)]
    fn max_magnitude(self, a: __m512, b: __m512) -> __m512 {
        // Selects by magnitude (3), sign cleared (2 << 2).
        op!(_mm512_range_ps::<0b10_11>(a, b))
    }
    #[inline(always)]
    fn min_magnitude(self, a: __m512, b: __m512) -> __m512 {
        // The smaller magnitude (2), sign cleared.
        op!(_mm512_range_ps::<0b10_10>(a, b))
    }
    #[inline(always)]
    fn largest_of_each(self, v: [__m512; 16]) -> __m512 {
        op!(fold_each!(v, _mm512_max_ps))
    }
    #[inline(always)]
    fn split(self, a: __m512) -> (__m512, __m512) {
        // One instruction less than rounding and subtracting.
        op!({
            let rest = _mm512_reduce_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
            (_mm512_sub_ps(a, rest), rest)
        })
    }
    #[inline(always)]
    fn scale_exp2(self, v: __m512, n: __m512) -> __m512 {
        op!(_mm512_scalef_ps(v, n))
    }
    #[inline(always)]
    fn to_i32(self, a: __m512) -> __m512i {
        op!(_mm512_cvtps_epi32(a))
    }
    #[inline(always)]
    fn to_f32(self, a: __m512i) -> __m512 {
        op!(_mm512_cvtepi32_ps(a))
    }
    #[inline(always)]
    fn load_i32(self, p: &I32x16) -> __m512i {
        // SAFETY: sixteen words are there.
        unsafe { _mm512_loadu_si512(p.0.as_ptr().cast()) }
    }
    #[inline(always)]
    fn store_i32(self, p: &mut I32x16, v: __m512i) {
        // SAFETY: sixteen words are there.
        unsafe { _mm512_storeu_si512(p.0.as_mut_ptr().cast(), v) }
    }
    #[inline(always)]
    fn splat_i32(self, v: i32) -> __m512i {
        op!(_mm512_set1_epi32(v))
    }
    #[inline(always)]
    fn load_i8(self, p: &I8x16) -> __m512i {
        // SAFETY: sixteen bytes are there.
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(p.0.as_ptr().cast())) }
    }
    #[inline(always)]
    fn store_i8(self, p: &mut I8x16, v: __m512i) {
        // SAFETY: sixteen bytes are there.
        unsafe { _mm_storeu_si128(p.0.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(v)) }
    }
    #[inline(always)]
    fn store_activation(self, p: &mut I8x16, v: __m512i) {
        // SAFETY: sixteen bytes are there. Flipping the top bit adds 128.
        unsafe {
            let bytes = _mm_xor_si128(_mm512_cvtepi32_epi8(v), _mm_set1_epi8(-128));
            _mm_storeu_si128(p.0.as_mut_ptr().cast(), bytes);
        }
    }
    #[inline(always)]
    fn store_i8s(self, p: &mut [I8x16; 4], v: [__m512i; 4]) {
        // SAFETY: 64 bytes are there.
        unsafe { _mm512_storeu_si512(p.as_mut_ptr().cast(), self.narrow(v)) }
    }
    #[inline(always)]
    fn store_activations(self, p: &mut [I8x16; 4], v: [__m512i; 4]) {
        // SAFETY: 64 bytes are there. Flipping the top bit adds 128.
        unsafe {
            let bytes = _mm512_xor_si512(self.narrow(v), _mm512_set1_epi8(-128));
            _mm512_storeu_si512(p.as_mut_ptr().cast(), bytes);
        }
    }
    #[inline(always)]
    fn transpose_quads(self, rows: &[I8x16], stride: usize, columns: &mut [I8x64; 16]) {
        let mut v = [self.splat_i32(0); 16];
        for t in 0..16 {
            // SAFETY: 64 bytes are there.
            v[t] = unsafe { _mm512_loadu_si512(rows[t * stride..][..4].as_ptr().cast()) };
        }
        let v = self.transpose_words(v);
        for t in 0..16 {
            // SAFETY: 64 bytes are there.
            unsafe { _mm512_storeu_si512(columns[t].0.as_mut_ptr().cast(), v[t]) }
        }
    }
    #[inline(always)]
    fn transpose(self, rows: &[F32x16; 16], columns: &mut [F32x16; 16]) {
        let mut v = [self.splat_i32(0); 16];
        for t in 0..16 {
            v[t] = op!(_mm512_castps_si512(self.load(&rows[t])));
        }
        let v = self.transpose_words(v);
        for t in 0..16 {
            self.store(&mut columns[t], op!(_mm512_castsi512_ps(v[t])));
        }
    }
    #[inline(always)]
    fn interleave(self, low: __m512i, high: __m512i) -> __m512i {
        op!(_mm512_mask_blend_epi16(0xaaaa_aaaa, low, _mm512_slli_epi32(high, 16)))
    }
    #[inline(always)]
    fn sum_of_each(self, v: [__m512i; 16]) -> __m512i {
        /// Adds integers, given as the bits of floats.
        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512) -> __m512 {
            // SAFETY: the caller is a method of a value that proves the instruction sets.
            unsafe {
                let sum = _mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b));
                _mm512_castsi512_ps(sum)
            }
        }
        op!({
            let mut floats = [_mm512_setzero_ps(); 16];
            for i in 0..16 {
                floats[i] = _mm512_castsi512_ps(v[i]);
            }
            _mm512_castps_si512(fold_each!(floats, add))
        })
    }
    #[inline(always)]
    fn load_u16(self, p: &U16x32) -> __m512i {
        // SAFETY: 64 bytes are there.
        unsafe { _mm512_loadu_si512(p.0.as_ptr().cast()) }
    }
    #[inline(always)]
    fn store_u16(self, p: &mut U16x32, v: __m512i) {
        // SAFETY: 64 bytes are there.
        unsafe { _mm512_storeu_si512(p.0.as_mut_ptr().cast(), v) }
    }
    #[inline(always)]
    fn splat_u16(self, v: u16) -> __m512i {
        op!(_mm512_set1_epi16(v as i16))
    }
    #[inline(always)]
    fn add_u16(self, a: __m512i, b: __m512i) -> __m512i {
        op!(_mm512_add_epi16(a, b))
    }
    #[inline(always)]
    fn to_u16(self, a: __m512, b: __m512) -> __m512i {
        // What i32 cannot represent becomes its least value.
        op!(_mm512_packus_epi32(_mm512_cvtps_epi32(a), _mm512_cvtps_epi32(b)))
    }
    #[inline(always)]
    fn times_fraction(self, c: __m512i, v: __m512i) -> __m512i {
        op!(_mm512_mulhi_epu16(_mm512_slli_epi16(v, 4), c))
    }
    #[inline(always)]
    fn scale_octaves(self, a: __m512i, v: __m512i) -> __m512i {
        // Both factors are negative, since i16 represents -2^15 but not 2^15.
        op!({
            let power = _mm512_sllv_epi16(_mm512_set1_epi16(-1), _mm512_srli_epi16(v, 12));
            _mm512_mulhrs_epi16(_mm512_sub_epi16(_mm512_setzero_si512(), a), power)
        })
    }
    #[inline(always)]
    fn mul_u15(self, a: __m512i, b: __m512i) -> __m512i {
        op!(_mm512_mulhrs_epi16(a, b))
    }
    #[inline(always)]
    fn add_neighbours(self, acc: __m512i, v: __m512i) -> __m512i {
        op!(dpwssd(acc, v, _mm512_set1_epi16(1)))
    }
    #[inline(always)]
    fn quad(self, bytes: [i8; 4]) -> __m512i {
        op!(_mm512_set1_epi32(i32::from_le_bytes(bytes.map(|b| b as u8))))
    }
    #[inline(always)]
    fn load_quads(self, w: &I8x64) -> __m512i {
        // SAFETY: 64 bytes are there.
        unsafe { _mm512_loadu_si512(w.0.as_ptr().cast()) }
    }
    #[inline(always)]
    fn dot_quad(self, acc: __m512i, a: __m512i, w: __m512i) -> __m512i {
        op!(_mm512_dpbusd_epi32(acc, a, w))
    }
    #[inline(always)]
    fn compensation(self, sums: __m512i) -> __m512i {
        // The offset is 2^7.
        op!(_mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(sums, 7)))
    }
    #[inline(always)]
    fn pair(self, values: [i16; 2]) -> __m512i {
        op!(_mm512_set1_epi32(i32::from(values[0] as u16) | i32::from(values[1]) << 16))
    }
    #[inline(always)]
    fn load_pairs(self, w: &I16x32) -> __m512i {
        // SAFETY: 64 bytes are there.
        unsafe { _mm512_loadu_si512(w.0.as_ptr().cast()) }
    }
    #[inline(always)]
    fn dot_pair(self, acc: __m512i, a: __m512i, w: __m512i) -> __m512i {
        op!(dpwssd(acc, a, w))
    }
    #[inline(always)]
    fn prefetch<T>(self, p: *const T) {
        op!(_mm_prefetch::<_MM_HINT_T0>(p.cast()))
    }
    #[inline(always)]
    fn prefetch_far<T>(self, p: *const T) {
        op!(_mm_prefetch::<_MM_HINT_T1>(p.cast()))
    }
    #[inline(always)]
    fn keep_first(self, v: __m512, n: usize, fill: f32) -> __m512 {
        let mask = ((1u32 << n.min(16)) - 1) as u16;
        op!(_mm512_mask_blend_ps(mask, _mm512_set1_ps(fill), v))
    }
}

impl Avx512Vnni {
    /// Register `j` gets word `j` of each of sixteen registers: words, then pairs of words, then quarters
    /// are exchanged.
    #[inline(always)]
    fn transpose_words(self, mut v: [__m512i; 16]) -> [__m512i; 16] {
        op!({
            for i in (0..16).step_by(4) {
                let [a, b, c, d] = [v[i], v[i + 1], v[i + 2], v[i + 3]];
                let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
                v[i] = _mm512_unpacklo_epi64(ab, cd);
                v[i + 1] = _mm512_unpackhi_epi64(ab, cd);
                let (ab, cd) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
                v[i + 2] = _mm512_unpacklo_epi64(ab, cd);
                v[i + 3] = _mm512_unpackhi_epi64(ab, cd);
            }
            for i in 0..4 {
                let [a, b, c, d] = [v[i], v[i + 4], v[i + 8], v[i + 12]];
                let even = _mm512_shuffle_i32x4::<0x88>(a, b);
                let even2 = _mm512_shuffle_i32x4::<0x88>(c, d);
                let odd = _mm512_shuffle_i32x4::<0xdd>(a, b);
                let odd2 = _mm512_shuffle_i32x4::<0xdd>(c, d);
                v[i] = _mm512_shuffle_i32x4::<0x88>(even, even2);
                v[i + 8] = _mm512_shuffle_i32x4::<0xdd>(even, even2);
                v[i + 4] = _mm512_shuffle_i32x4::<0x88>(odd, odd2);
                v[i + 12] = _mm512_shuffle_i32x4::<0xdd>(odd, odd2);
            }
            v
        })
    }
    /// The low bytes of four vectors of lanes in [-127, 127], one vector after the other.
    #[inline(always)]
    fn narrow(self, [a, b, c, d]: [__m512i; 4]) -> __m512i {
        // The packed quarters of the four vectors alternate.
        op!({
            let packed = _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            _mm512_permutexvar_epi32(order, packed)
        })
    }
}
