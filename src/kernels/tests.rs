//! Compares every kernel of every instruction set that the machine has with the portable one, to the bit,
//! and the portable one with naive sums.
//!
//! With `BERTLET_REQUIRE_ISA=avx2,avxvnni` the tests fail where one of those cannot run, so that a machine
//! without it does not count as a pass.

mod accuracy;
mod guarded;

use std::io::Write as _;

use guarded::Guarded;
use half::f16;

use super::attention::{
    Attend, BLOCK, F32Blocks, HeadShape, Int8Blocks, KEYS_EXACT, Keys, Workspace,
};
use super::lanes::{F16x16, F32x16, I8x16, I8x64, I16x32, I32x16, Plain, U16x32};
use super::matmul::{FloatMatrix, Int8Matrix, Int8Rows};
use super::rows::{
    Activation, Norm, Prologue, QUANTIZE_ROWS, Quantize, Rotation, TABLE_GROUP, TableRow, Write,
};
use super::{Isa, IsaError};

/// The instruction sets to test, the portable one first.
fn instruction_sets() -> Vec<Isa> {
    static REPORT: std::sync::Once = std::sync::Once::new();
    let names = |available: bool| {
        let names: Vec<_> = Isa::all().filter(|isa| isa.1 == available).map(|isa| isa.0).collect();
        if names.is_empty() { "none".to_string() } else { names.join(", ") }
    };
    REPORT.call_once(|| {
        let report = format!("kernels tested on: {}; not on: {}", names(true), names(false));
        println!("{report}");
        // Past the harness, which shows the output of failed tests only.
        let _ = writeln!(std::io::stderr(), "{report}");
    });
    for required in std::env::var("BERTLET_REQUIRE_ISA").unwrap_or_default().split(',') {
        let required = required.trim();
        if !required.is_empty() && Isa::named(required).is_err() {
            panic!("BERTLET_REQUIRE_ISA asks for {required}, this machine has {}", names(true));
        }
    }
    let sets: Vec<_> =
        Isa::all().filter(|isa| isa.1).map(|isa| Isa::named(isa.0).expect("available")).collect();
    assert_eq!(sets[0].name(), Isa::portable().name());
    sets
}

/// Runs `f` on every instruction set and asserts that all results are the portable one's, to the
/// bit; returns that.
#[track_caller]
fn same_on_all(what: impl std::fmt::Debug, mut f: impl FnMut(Isa) -> Vec<u32>) -> Vec<u32> {
    let mut first: Option<Vec<u32>> = None;
    for isa in instruction_sets() {
        let bits = f(isa);
        match &first {
            None => first = Some(bits),
            Some(first) => {
                assert_eq!(first.len(), bits.len());
                if let Some(i) = (0..bits.len()).find(|i| bits[*i] != first[*i]) {
                    let [a, b] = [first[i], bits[i]].map(f32::from_bits);
                    panic!("{} differs at {i}: {b:e}, not {a:e}; {what:?}", isa.name());
                }
            }
        }
    }
    first.expect("the portable one is always there")
}

fn bits(x: &[F32x16]) -> impl Iterator<Item = u32> {
    x.iter().flat_map(|v| v.0).map(f32::to_bits)
}

fn floats(bits: &[u32]) -> Vec<f32> {
    bits.iter().map(|b| f32::from_bits(*b)).collect()
}

/// Numbers that are the same in every run (xorshift64*).
struct Random(u64);

impl Random {
    fn new(seed: usize) -> Self {
        Self((seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    fn word(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }
    /// In [-1, 1).
    fn float(&mut self) -> f32 {
        (self.word() as i32) as f32 / (1u64 << 31) as f32
    }
    /// In [-127, 127].
    fn int8(&mut self) -> i8 {
        (self.word() % 255) as i32 as i8
    }
    fn vectors(&mut self, count: usize) -> Vec<F32x16> {
        (0..count).map(|_| F32x16(std::array::from_fn(|_| self.float()))).collect()
    }
}

/// The values of int8 operands.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fill {
    Random,
    Largest,
    Least,
    Alternating,
    Zero,
}

impl Fill {
    const ALL: [Self; 5] =
        [Self::Random, Self::Largest, Self::Least, Self::Alternating, Self::Zero];
    fn value(self, random: &mut Random, i: usize) -> i8 {
        match self {
            Self::Random => match random.int8() {
                -128 => -127,
                v => v,
            },
            Self::Largest => 127,
            Self::Least => -127,
            Self::Alternating => [127, -127][i % 2],
            Self::Zero => 0,
        }
    }
}

/// What the instruction set adds to the activations that it stores: the stored form of zero.
fn offset(isa: Isa) -> u8 {
    let (mut values, mut scale) = ([I8x16([1; 16])], [1.0]);
    let x = [F32x16::ZERO];
    isa.kernels().quantize(Quantize {
        x: &x,
        prologue: Prologue::None,
        rotation: Rotation::NONE,
        buffer: &mut [F32x16::ZERO],
        values: &mut values,
        scale: &mut scale,
        prefetch: &[],
    });
    assert_eq!(values[0].0, [values[0].0[0]; 16]);
    values[0].0[0] as u8
}

fn decode(isa: Isa, values: &[I8x16]) -> Vec<i8> {
    let offset = offset(isa);
    values.iter().flat_map(|v| v.0).map(|q| (q as u8).wrapping_sub(offset) as i8).collect()
}

fn encode(isa: Isa, values: &[i8]) -> Guarded<I8x16> {
    let offset = offset(isa);
    let (vectors, rest) = values.as_chunks::<16>();
    assert!(rest.is_empty());
    let vectors: Vec<_> =
        vectors.iter().map(|v| I8x16(v.map(|q| (q as u8).wrapping_add(offset) as i8))).collect();
    Guarded::new(&vectors)
}

#[test]
fn instruction_sets_are_found_by_name() {
    for (name, available) in Isa::all() {
        match Isa::named(name) {
            Ok(isa) => assert!(available && isa.name() == name),
            Err(error) => assert!(!available && error == IsaError::Unavailable(name)),
        }
    }
    assert_eq!(Isa::named("abacus").unwrap_err(), IsaError::Unknown);
    assert_eq!(Isa::detect().name(), instruction_sets().last().expect("portable").name());
}

#[test]
fn offsets_are_none_or_the_top_bit() {
    for isa in instruction_sets() {
        assert!([0, 128].contains(&offset(isa)), "{}", isa.name());
    }
}

// Rotation and quantisation.

/// The rotation by its definition.
fn rotate_naively(x: &[f32], rotation: Rotation) -> Vec<f64> {
    let Rotation { block, stride } = rotation;
    let mut out = vec![0.0; x.len()];
    for first in (0..x.len()).filter(|i| (i / stride).is_multiple_of(block)) {
        for j in 0..block {
            for k in 0..block {
                let sign = if (j & k).count_ones() % 2 == 0 { 1.0 } else { -1.0 };
                out[first + j * stride] += sign * f64::from(x[first + k * stride]);
            }
        }
    }
    out
}

fn rotations() -> Vec<(Rotation, usize)> {
    let mut all = Vec::new();
    for block in [1, 2, 4, 8, 16, 32, 64, 128] {
        let least = usize::div_ceil(block, 16);
        all.extend([1, 3].map(|n| (Rotation { block, stride: 1 }, n * least)));
    }
    for (block, stride) in [(4, 16), (32, 16), (4, 32), (32, 32), (2, 48), (128, 16)] {
        all.extend([1, 3].map(|n| (Rotation { block, stride }, n * block * stride / 16)));
    }
    all.push((Rotation { block: 8, stride: 1 }, 20));
    all.push((Rotation { block: 128, stride: 1 }, 24));
    all
}

#[test]
fn quantize_rotates_and_rounds() {
    for (rotation, width) in rotations() {
        for rows in [1, 2, 5] {
            let what = (rotation, width, rows);
            let mut random = Random::new(width * 8 + rows);
            let mut x = random.vectors(rows * width);
            if rows == 5 {
                // A zero row, one too small for a scale, a large one, one element alone.
                x[width..2 * width].fill(F32x16::ZERO);
                x[2 * width..3 * width].fill(F32x16([1e-34; 16]));
                x[3 * width..4 * width].fill(F32x16([-3e30; 16]));
                x[4 * width..].fill(F32x16::ZERO);
                x[5 * width - 1].0[15] = -2.5;
            }
            let x = Guarded::new(&x);
            let all = same_on_all(what, |isa| {
                let held = rows.min(QUANTIZE_ROWS) * width;
                let mut buffer = Guarded::filled(F32x16([f32::NAN; 16]), held);
                let mut values = Guarded::filled(I8x16([99; 16]), rows * width);
                let mut scale = Guarded::filled(f32::NAN, rows);
                isa.kernels().quantize(Quantize {
                    x: &x,
                    prologue: Prologue::None,
                    rotation,
                    buffer: &mut buffer,
                    values: &mut values,
                    scale: &mut scale,
                    prefetch: &[],
                });
                let values = decode(isa, &values).into_iter().map(|q| f32::from(q).to_bits());
                let scale = scale.iter().map(|s| s.to_bits());
                let last = &buffer[(rows - 1) % QUANTIZE_ROWS * width..][..width];
                bits(last).chain(scale).chain(values).collect()
            });
            let all = floats(&all);
            let (last, rest) = all.split_at(width * 16);
            let (scales, values) = rest.split_at(rows);
            for r in 0..rows {
                let row: Vec<_> = x[r * width..][..width].iter().flat_map(|v| v.0).collect();
                let rotated = rotate_naively(&row, rotation);
                let largest = rotated.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
                let scale = f64::from(scales[r]);
                let expected = largest.max(1e-30) / 127.0;
                assert!((scale / expected - 1.0).abs() < 1e-5, "{what:?} row {r}");
                for (i, y) in rotated.iter().enumerate() {
                    let q = f64::from(values[r * width * 16 + i]);
                    assert!(q.abs() <= 127.0);
                    let error = (q * scale - y).abs();
                    assert!(error <= scale * 0.5001, "{what:?} {r} {i} {y} {q}");
                    if r == rows - 1 {
                        let error = (f64::from(last[i]) - y).abs();
                        assert!(error <= 1e-6 * rotation.block as f64, "{what:?} {r} {i}");
                    }
                }
            }
        }
    }
}

/// GELU before the rotation, with a polynomial that is off by 1.4e-4 at most.
#[test]
fn quantize_takes_gelu_first() {
    for (rotation, width) in rotations() {
        let rows = 5;
        let mut x = floats_of_all_sizes();
        x.retain(|v| v.0.iter().all(|x| x.abs() < 1e4));
        x.resize(rows * width, F32x16([0.7; 16]));
        let run = |isa: Isa, x: &[F32x16], prologue| {
            let mut buffer = vec![F32x16::ZERO; QUANTIZE_ROWS * width];
            let (mut values, mut scale) = (vec![I8x16([0; 16]); rows * width], vec![0.0; rows]);
            isa.kernels().quantize(Quantize {
                x,
                prologue,
                rotation,
                buffer: &mut buffer,
                values: &mut values,
                scale: &mut scale,
                prefetch: &[],
            });
            (decode(isa, &values), scale)
        };
        let expected = run(Isa::portable(), &x, Prologue::Gelu);
        let mut y = x.clone();
        Isa::portable().kernels().activate(&mut y, Activation::Gelu);
        for (scale, exact) in expected.1.iter().zip(run(Isa::portable(), &y, Prologue::None).1) {
            let bound = rotation.block as f32 * 1.4e-4 / 127.0 + 1e-6 * exact;
            assert!((scale - exact).abs() <= bound, "{rotation:?}: {scale} {exact}");
        }
        for isa in instruction_sets() {
            assert!(run(isa, &x, Prologue::Gelu) == expected, "{rotation:?} on {}", isa.name());
        }
    }
}

#[test]
fn rotation_is_its_own_inverse() {
    for (rotation, width) in rotations() {
        let x = Random::new(width).vectors(width);
        for isa in instruction_sets() {
            let mut once = vec![F32x16::ZERO; width];
            let mut twice = once.clone();
            let rotate = |x: &[F32x16], buffer: &mut [F32x16]| {
                isa.kernels().quantize(Quantize {
                    x,
                    prologue: Prologue::None,
                    rotation,
                    buffer,
                    values: &mut vec![I8x16([0; 16]); width],
                    scale: &mut [0.0],
                    prefetch: &[],
                });
            };
            rotate(&x, &mut once);
            rotate(&once, &mut twice);
            let (mut before, mut after) = (0.0, 0.0);
            for i in 0..width * 16 {
                let [x, y, z] = [&x, &once, &twice].map(|v| f64::from(v[i / 16].0[i % 16]));
                assert!((z / rotation.block as f64 - x).abs() < 1e-6, "{rotation:?} {i}");
                before += x * x;
                after += y * y / rotation.block as f64;
            }
            assert!((after / before - 1.0).abs() < 1e-5, "{rotation:?}");
        }
    }
}

// Matrix products.

fn assert_only_written(out: &[F32x16], out_width: usize, panels: usize) {
    for (i, v) in out.iter().enumerate() {
        assert!(i % out_width < panels || v.0 == [77.0; 16], "vector {i} was written");
    }
}

fn check_linear_int8(rows: usize, panels: usize, steps: usize, fill: [Fill; 2]) {
    let what = (rows, panels, steps, fill);
    let mut random = Random::new(rows + 31 * panels + 997 * steps);
    let width = steps.div_ceil(4) + usize::from(rows == 3);
    // Inputs past the last step have values too, which must not be multiplied.
    let x: Vec<i8> = (0..rows * width * 16).map(|i| fill[0].value(&mut random, i)).collect();
    let w: Vec<_> = (0..panels * steps)
        .map(|_| I8x64(std::array::from_fn(|i| fill[1].value(&mut random, i))))
        .collect();
    let x_scale: Vec<f32> = (0..rows).map(|_| random.float().abs() + 0.01).collect();
    let (scale, bias) = (random.vectors(panels), random.vectors(panels));
    let mut exact = vec![0i64; rows * panels * 16];
    let mut sums = vec![I32x16([0; 16]); panels];
    for p in 0..panels {
        for k in 0..steps {
            for (i, w) in w[p * steps + k].0.iter().enumerate() {
                sums[p].0[i / 4] += i32::from(*w);
                for t in 0..rows {
                    exact[(t * panels + p) * 16 + i / 4] +=
                        i64::from(x[t * width * 16 + k * 4 + i % 4]) * i64::from(*w);
                }
            }
        }
    }
    let (x_scale, w) = (Guarded::new(&x_scale), Guarded::new(&w));
    let (scale, bias, sums) = (Guarded::new(&scale), Guarded::new(&bias), Guarded::new(&sums));
    let out_width = panels + usize::from(rows == 2);
    let all = same_on_all(what, |isa| {
        let values = encode(isa, &x);
        let mut out = Guarded::filled(F32x16([77.0; 16]), rows * out_width);
        isa.kernels().linear_int8(
            Int8Rows { values: &values, scale: &x_scale, width },
            Int8Matrix { panels: &w, scale: &scale, bias: &bias, sums: &sums, steps },
            &mut Guarded::filled(F32x16([f32::NAN; 16]), steps),
            &mut out,
            out_width,
        );
        assert_only_written(&out, out_width, panels);
        out.chunks(out_width).flat_map(|row| bits(&row[..panels])).collect()
    });
    for (i, y) in floats(&all).into_iter().enumerate() {
        let (t, n) = (i / (panels * 16), i % (panels * 16));
        let sum = exact[i] as f32 * x_scale[t];
        assert_eq!(y, sum.mul_add(scale[n / 16].0[n % 16], bias[n / 16].0[n % 16]), "{what:?}");
    }
}

#[test]
fn linear_int8_is_exact_at_tile_edges() {
    for rows in 1..=17 {
        for panels in 1..=8 {
            for steps in [1, 3, 8] {
                check_linear_int8(rows, panels, steps, [Fill::Random; 2]);
            }
        }
    }
}

#[test]
fn linear_int8_is_exact_for_extreme_values() {
    for a in Fill::ALL {
        for b in Fill::ALL {
            for (rows, panels, steps) in [(1, 6, 5), (3, 3, 7), (6, 1, 2), (8, 3, 96)] {
                check_linear_int8(rows, panels, steps, [a, b]);
            }
        }
    }
    for [a, b] in [[Fill::Largest; 2], [Fill::Least; 2], [Fill::Largest, Fill::Least]] {
        check_linear_int8(2, 4, 1024, [a, b]);
    }
}

#[test]
fn one_row_gives_the_bits_of_many() {
    let (rows, panels, steps) = (17, 7, 12);
    let mut random = Random::new(5);
    let x: Vec<i8> = (0..rows * 48).map(|i| Fill::Random.value(&mut random, i)).collect();
    let w: Vec<_> = (0..panels * steps)
        .map(|_| I8x64(std::array::from_fn(|i| Fill::Random.value(&mut random, i))))
        .collect();
    let sums: Vec<_> = w
        .chunks(steps)
        .map(|panel| {
            I32x16(std::array::from_fn(|c| {
                panel.iter().flat_map(|w| &w.0[4 * c..][..4]).map(|w| i32::from(*w)).sum()
            }))
        })
        .collect();
    let (scale, bias) = (random.vectors(panels), random.vectors(panels));
    let x_scale: Vec<f32> = (0..rows).map(|_| random.float()).collect();
    let matrix = Int8Matrix { panels: &w, scale: &scale, bias: &bias, sums: &sums, steps };
    for isa in instruction_sets() {
        let values = encode(isa, &x);
        let x = Int8Rows { values: &values, scale: &x_scale, width: 3 };
        let mut many = vec![F32x16::ZERO; rows * panels];
        isa.kernels().linear_int8(x, matrix, &mut [F32x16::ZERO; 12], &mut many, panels);
        for t in 0..rows {
            let x = Int8Rows { values: &values[3 * t..], scale: &x_scale[t..][..1], width: 3 };
            let mut one = vec![F32x16::ZERO; panels];
            // Without working memory.
            isa.kernels().linear_int8(x, matrix, &mut [], &mut one, panels);
            assert_eq!(one, many[t * panels..][..panels], "{} {t}", isa.name());
            // Neither does it matter how the panels are divided.
            let mut part = vec![F32x16::ZERO; 3];
            isa.kernels().linear_int8(x, matrix.slice(2, 5), &mut [], &mut part, 3);
            assert_eq!(part, many[t * panels + 2..][..3], "{} {t}", isa.name());
        }
    }
}

fn check_linear_float(rows: usize, panels: usize, steps: usize) {
    let what = (rows, panels, steps);
    let mut random = Random::new(rows + 31 * panels + 997 * steps);
    let x_width = steps.div_ceil(16) + usize::from(rows == 3);
    let x = Guarded::new(&random.vectors(rows * x_width));
    let halves: Vec<_> = (0..panels * steps)
        .map(|_| F16x16(std::array::from_fn(|_| f16::from_f32(random.float()).to_bits())))
        .collect();
    let singles = random.vectors(panels * steps);
    let bias = Guarded::new(&random.vectors(panels));
    let (halves, singles) = (Guarded::new(&halves), Guarded::new(&singles));
    let out_width = panels + usize::from(rows == 2);
    for half in [false, true] {
        let all = same_on_all((what, half), |isa| {
            let mut out = Guarded::filled(F32x16([77.0; 16]), rows * out_width);
            if half {
                let w = FloatMatrix { panels: &halves, bias: &bias, steps };
                isa.kernels().linear_f16(&x, x_width, w, &mut out, out_width);
            } else {
                let w = FloatMatrix { panels: &singles, bias: &bias, steps };
                isa.kernels().linear_f32(&x, x_width, w, &mut out, out_width);
            }
            assert_only_written(&out, out_width, panels);
            out.chunks(out_width).flat_map(|row| bits(&row[..panels])).collect()
        });
        for (i, y) in floats(&all).into_iter().enumerate() {
            let (t, p, c) = (i / (panels * 16), i / 16 % panels, i % 16);
            let mut sum = bias[p].0[c];
            for k in 0..steps {
                let w = match half {
                    true => f16::from_bits(halves[p * steps + k].0[c]).to_f32(),
                    false => singles[p * steps + k].0[c],
                };
                sum = x[t * x_width + k / 16].0[k % 16].mul_add(w, sum);
            }
            assert_eq!(y, sum, "{what:?} {half}");
        }
    }
}

#[test]
fn linear_floats_add_in_order_and_fused() {
    for rows in 1..=17 {
        for panels in 1..=8 {
            check_linear_float(rows, panels, [1, 5, 16][(rows + panels) % 3]);
        }
    }
    check_linear_float(5, 3, 211);
}

#[test]
fn peaks_count_their_work() {
    for isa in instruction_sets() {
        assert!(isa.kernels().peak_int8(10) >= 10 * 64);
        assert!(isa.kernels().peak_f32(10) >= 10 * 16);
    }
}

// Rows.

#[test]
fn add_norm_normalises() {
    for hidden in [1, 15, 16, 17, 31, 128, 300, 312, 384] {
        let width = usize::div_ceil(hidden, 16);
        for rows in [1, 3] {
            for with_y in [false, true] {
                let what = (hidden, rows, with_y);
                let mut random = Random::new(hidden);
                let mut padded = |rows: usize| {
                    let mut x = random.vectors(rows * width);
                    for (i, x) in x.iter_mut().flat_map(|v| &mut v.0).enumerate() {
                        if i % (width * 16) >= hidden {
                            *x = 0.0;
                        }
                    }
                    x
                };
                let (x, y) = (padded(rows), padded(if with_y { rows } else { 0 }));
                let (weight, bias) = (Guarded::new(&padded(1)), Guarded::new(&padded(1)));
                let y = Guarded::new(&y);
                let eps = 1e-12;
                let all = same_on_all(what, |isa| {
                    let mut x = Guarded::new(&x);
                    let norm = Norm { weight: &weight, bias: &bias };
                    isa.kernels().add_norm(&mut x, &y, norm, hidden, eps);
                    bits(&x).collect()
                });
                for (r, out) in floats(&all).chunks(width * 16).enumerate() {
                    let at = |v: &[F32x16], i: usize| f64::from(v[i / 16].0[i % 16]);
                    let row: Vec<f64> = (0..hidden)
                        .map(|i| {
                            let i = r * width * 16 + i;
                            at(&x, i) + if with_y { at(&y, i) } else { 0.0 }
                        })
                        .collect();
                    let n = hidden as f64;
                    let mean = row.iter().sum::<f64>() / n;
                    let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
                    for (i, out) in out.iter().enumerate() {
                        if i >= hidden {
                            assert_eq!(*out, 0.0, "{what:?}");
                            continue;
                        }
                        let unit = (row[i] - mean) / (variance + f64::from(eps)).sqrt();
                        let exact = unit * at(&weight, i) + at(&bias, i);
                        assert!((f64::from(*out) - exact).abs() < 2e-6, "{what:?} {out} {exact}");
                    }
                }
            }
        }
    }
}

const ACTIVATIONS: [Activation; 5] =
    [Activation::Gelu, Activation::GeluTanh, Activation::Relu, Activation::Silu, Activation::Tanh];

/// Every sign and exponent, infinities included, with mantissas all over.
fn floats_of_all_sizes() -> Vec<F32x16> {
    let words: Vec<f32> = (0..=u32::MAX).step_by(60_013).map(f32::from_bits).collect();
    let special = [0.0, f32::MIN_POSITIVE, 1e-45, 1.0, 5.0, 10.0, 87.0, f32::MAX, f32::INFINITY];
    let all: Vec<f32> = words
        .into_iter()
        .filter(|x| !x.is_nan())
        .chain(special)
        .chain(special.map(|x| -x))
        .collect();
    let (vectors, rest) = all.as_chunks::<16>();
    let mut last = [0.0; 16];
    last[..rest.len()].copy_from_slice(rest);
    vectors.iter().chain([&last]).map(|v| F32x16(*v)).collect()
}

#[test]
fn activations_are_the_same_for_floats_of_all_sizes() {
    let x = floats_of_all_sizes();
    for activation in ACTIVATIONS {
        same_on_all(activation, |isa| {
            let mut x = Guarded::new(&x);
            isa.kernels().activate(&mut x, activation);
            // Which NaN the infinities give depends on the machine.
            let one = |x: f32| if x.is_nan() { f32::NAN } else { x }.to_bits();
            x.iter().flat_map(|v| v.0).map(one).collect()
        });
    }
}

#[test]
fn halves_are_converted_exactly() {
    let words: Vec<u16> = (0..=u16::MAX).collect();
    let row: Vec<_> = words.as_chunks::<16>().0.iter().map(|v| F16x16(*v)).collect();
    for isa in instruction_sets() {
        let mut x = vec![F32x16::ZERO; row.len()];
        isa.kernels().add_row(&mut x, TableRow::F16(&row), Write::Set);
        for (word, x) in words.iter().zip(x.iter().flat_map(|v| v.0)) {
            let exact = f16::from_bits(*word).to_f32();
            let same = exact.to_bits() == x.to_bits() || exact.is_nan() && x.is_nan();
            assert!(same, "{} {word:#x}: {x:e}, not {exact:e}", isa.name());
        }
    }
}

#[test]
fn table_rows_are_added_and_multiplied() {
    for width in [1, 3, 4, 5, 8, 20, 24] {
        let mut random = Random::new(width);
        let x = random.vectors(width);
        let int8: Vec<_> = (0..width)
            .map(|_| I8x16(std::array::from_fn(|i| Fill::Random.value(&mut random, i))))
            .collect();
        let scales: Vec<u16> = (0..(width * 16).div_ceil(TABLE_GROUP))
            .map(|_| f16::from_f32(random.float()).to_bits())
            .collect();
        let halves: Vec<_> = (0..width)
            .map(|_| F16x16(std::array::from_fn(|_| f16::from_f32(random.float()).to_bits())))
            .collect();
        let (int8, scales) = (Guarded::new(&int8), Guarded::new(&scales));
        let (halves, singles) = (Guarded::new(&halves), Guarded::new(&random.vectors(width)));
        let rows =
            [TableRow::Int8(&int8, &scales), TableRow::F16(&halves), TableRow::F32(&singles)];
        for row in rows {
            let value = |i: usize| match row {
                TableRow::Int8(row, scales) => {
                    f32::from(row[i / 16].0[i % 16]) * f16::from_bits(scales[i / 64]).to_f32()
                }
                TableRow::F16(row) => f16::from_bits(row[i / 16].0[i % 16]).to_f32(),
                TableRow::F32(row) => row[i / 16].0[i % 16],
            };
            for write in [Write::Add, Write::Set] {
                let all = same_on_all((width, write), |isa| {
                    let mut x = Guarded::new(&x);
                    isa.kernels().add_row(&mut x, row, write);
                    bits(&x).collect()
                });
                for (i, y) in floats(&all).into_iter().enumerate() {
                    let x = x[i / 16].0[i % 16];
                    assert_eq!(y, if write == Write::Set { value(i) } else { x + value(i) });
                }
            }
            let x = Guarded::new(&x);
            let all = same_on_all(width, |isa| vec![isa.kernels().dot_row(&x, row).to_bits()]);
            let exact: f64 =
                (0..width * 16).map(|i| f64::from(x[i / 16].0[i % 16]) * f64::from(value(i))).sum();
            assert!((f64::from(floats(&all)[0]) - exact).abs() < 1e-4 * width as f64);
        }
    }
}

#[test]
fn sums_follow_the_written_tree() {
    // Lanes of very different sizes: any other order gives other bits.
    let mut random = Random::new(3);
    for _ in 0..200 {
        let x = [F32x16(std::array::from_fn(|_| {
            random.float() * 10f32.powi((random.word() % 7) as i32)
        }))];
        let one = [F32x16([1.0; 16])];
        let all = same_on_all("sum", |isa| {
            vec![isa.kernels().dot_row(&x, TableRow::F32(&one)).to_bits()]
        });
        let mut v = x[0].0.to_vec();
        while v.len() > 1 {
            let (low, high) = v.split_at(v.len() / 2);
            v = low.iter().zip(high).map(|(a, b)| a + b).collect();
        }
        assert_eq!(all, [v[0].to_bits()]);
    }
}

// Attention.

/// Queries, keys and values of some tokens, and which of them are not masked.
struct Tokens {
    heads: HeadShape,
    /// `[count][3][heads][width]`, zero past the size of a head.
    qkv: Vec<F32x16>,
    count: usize,
    live: Vec<bool>,
}

impl Tokens {
    fn new(heads: HeadShape, live: Vec<bool>, mut value: impl FnMut(usize, usize) -> f32) -> Self {
        let row = 3 * heads.count * heads.width();
        let mut qkv = vec![F32x16::ZERO; live.len() * row];
        for (i, x) in qkv.iter_mut().flat_map(|v| &mut v.0).enumerate() {
            let (t, i) = (i / (row * 16), i % (row * 16));
            if i % (heads.width() * 16) < heads.size {
                *x = value(t, i / (heads.count * heads.width() * 16));
            }
        }
        Self { heads, qkv, count: live.len(), live }
    }
    fn random(heads: HeadShape, live: Vec<bool>) -> Self {
        let mut random = Random::new(live.len() + heads.size);
        Self::new(heads, live, |_, part| random.float() * [3.0, 2.0, 1.0][part])
    }
    /// Query, key or value of token `t`, head `h`.
    fn part(&self, part: usize, t: usize, h: usize) -> Vec<f64> {
        let (width, count) = (self.heads.width(), self.heads.count);
        let at = ((t * 3 + part) * count + h) * width;
        let all = self.qkv[at..][..width].iter().flat_map(|v| v.0).map(f64::from);
        all.take(self.heads.size).collect()
    }
    fn blocks(&self) -> usize {
        self.count.div_ceil(BLOCK)
    }
    fn limit(&self) -> Guarded<F32x16> {
        let lane = |i: usize| if self.live.get(i) == Some(&true) { f32::MAX } else { f32::MIN };
        let limit: Vec<_> = (0..self.blocks())
            .map(|b| F32x16(std::array::from_fn(|i| lane(b * BLOCK + i))))
            .collect();
        Guarded::new(&limit)
    }

    /// Contexts of block `b`, its first `rows` tokens, and the probabilities, as f32 or int8.
    fn attend(&self, isa: Isa, int8: bool, b: usize, rows: usize, maps: bool) -> [Vec<f32>; 2] {
        let (heads, blocks) = (self.heads, self.blocks());
        let (n, width) = (blocks * heads.slots(), heads.width());
        let qkv = Guarded::new(&self.qkv);
        // Memory that was not written must not influence the result.
        let stale = F32x16([f32::NAN; 16]);
        let limit = self.limit();

        let keys = Keys { count: self.count, limit: &limit };
        let pairs = blocks.div_ceil(2);
        let mut scores = Guarded::filled(stale, BLOCK * 2 * pairs);
        let mut factors = Guarded::filled(U16x32([0x8005; 32]), pairs);
        let work = Workspace { scores: &mut scores, factors: &mut factors };
        let mut context = Guarded::filled(stale, rows * heads.count * width);
        let mut map =
            Guarded::filled(f32::NAN, if maps { heads.count * rows * self.count } else { 0 });
        let map_out = maps.then_some(&mut *map);
        let rows = b * BLOCK..b * BLOCK + rows;
        if int8 {
            let part = heads.count * width;
            let mut q = Guarded::filled(I8x16([-99; 16]), blocks * BLOCK * part);
            let mut buffer = Guarded::filled(I8x16([-99; 16]), BLOCK * part);
            let mut k = Guarded::filled(I8x64([-99; 64]), n * width * 4);
            let mut v = Guarded::filled(I16x32([-99; 32]), n * width * 8);
            let [mut q_scale, mut k_scale, mut v_scale] =
                [(); 3].map(|()| Guarded::filled(stale, n));
            let mut k_compensation = Guarded::filled(I32x16([99; 16]), n);
            let mut packed = Int8Blocks {
                q: &mut q,
                q_scale: &mut q_scale,
                k: &mut k,
                k_scale: &mut k_scale,
                k_compensation: &mut k_compensation,
                v: &mut v,
                v_scale: &mut v_scale,
            };
            isa.kernels().pack_int8(&qkv, heads, &mut packed, &mut buffer);
            let (blocks, context) = (&packed, &mut *context);
            let attend = Attend { heads, blocks, keys, rows, work, context, maps: map_out };
            isa.kernels().attend_int8(attend);
        } else {
            let mut q = Guarded::filled(stale, n * BLOCK * width);
            let mut k = Guarded::filled(stale, n * heads.size);
            let mut v = Guarded::filled(stale, n * width * BLOCK);
            let mut packed = F32Blocks { q: &mut q, k: &mut k, v: &mut v };
            isa.kernels().pack_f32(&qkv, heads, &mut packed);
            let (blocks, context) = (&packed, &mut *context);
            let attend = Attend { heads, blocks, keys, rows, work, context, maps: map_out };
            isa.kernels().attend_f32(attend);
        }
        [context.iter().flat_map(|v| v.0).collect(), map.to_vec()]
    }

    /// Compares block `b` on all instruction sets, and with attention in f64.
    fn check(&self, int8: bool, b: usize) {
        let (heads, rows) = (self.heads, BLOCK.min(self.count - b * BLOCK));
        let what = (heads, self.count, int8, b);
        let width = heads.width() * 16;
        let all = same_on_all(what, |isa| {
            let [context, map] = self.attend(isa, int8, b, rows, true);
            let [again, _] = self.attend(isa, int8, b, rows, false);
            assert_eq!(context, again, "{what:?}: maps change the context");
            context.into_iter().chain(map).map(f32::to_bits).collect()
        });
        let all = floats(&all);
        let (context, map) = all.split_at(rows * heads.count * width);
        // int8 only loses by rounding its inputs; everything else is computed exactly below.
        let rounded = |v: Vec<f64>| -> Vec<f64> {
            if !int8 {
                return v;
            }
            // In f32, so that near ties are rounded the same way.
            let largest = v.iter().fold(1e-30, |a: f64, b| a.max(b.abs())) as f32;
            let round = |x: f64| {
                (x as f32 * (127.0 / largest)).round_ties_even() * (largest * (1.0 / 127.0))
            };
            v.into_iter().map(|x| f64::from(round(x))).collect()
        };
        // Exponents err by 1/8192 and powers of two by 1.9e-3, which matters most where two keys share all.
        let tolerance = if int8 { 9.5e-4 } else { 2e-5 };
        for h in 0..heads.count {
            let part = |part, t| rounded(self.part(part, t, h));
            let keys: Vec<_> = (0..self.count).map(|j| part(1, j)).collect();
            let values: Vec<_> = (0..self.count).map(|j| part(2, j)).collect();
            let live: Vec<_> = (0..self.count).filter(|j| self.live[*j]).collect();
            let largest =
                live.iter().flat_map(|j| &values[*j]).fold(0.0, |a: f64, b| a.max(b.abs()));
            for r in 0..rows {
                let q = part(0, b * BLOCK + r);
                let score = |j: &usize| -> f64 {
                    let dot: f64 = q.iter().zip(&keys[*j]).map(|(q, k)| q * k).sum();
                    dot / (heads.size as f64).sqrt()
                };
                let scores: Vec<_> = live.iter().map(score).collect();
                let top = scores.iter().fold(f64::MIN, |a, b| a.max(*b));
                let e: Vec<_> = scores.iter().map(|s| (s - top).exp()).collect();
                let sum: f64 = e.iter().sum();
                let map = &map[(r * heads.count + h) * self.count..][..self.count];
                let mut probability = vec![0.0; self.count];
                for (j, e) in live.iter().zip(&e) {
                    probability[*j] = e / sum;
                }
                // Every exponential is a whole number of 32,767.
                let half = if int8 { 0.5 / 32767.0 } else { 0.0 };
                let rounding = half * live.len() as f64 / sum;
                for j in 0..self.count {
                    let error = (f64::from(map[j]) - probability[j]).abs();
                    assert!(error < tolerance + rounding, "{what:?} map {h} {r} {j}: {error:e}");
                    assert!(self.live[j] || map[j] == 0.0, "{what:?}: masked");
                }
                let bound = largest * (2.0 * rounding + 2.0 * tolerance);
                for i in 0..width {
                    let out = context[(r * heads.count + h) * width + i];
                    if i >= heads.size {
                        assert_eq!(out, 0.0, "{what:?}: padding");
                        continue;
                    }
                    let exact: f64 = live.iter().map(|j| probability[*j] * values[*j][i]).sum();
                    let error = (f64::from(out) - exact).abs();
                    assert!(error <= bound, "{what:?} {h} {r} {i}: {out} {exact}");
                }
            }
        }
    }
}

const HEADS: [HeadShape; 4] = [
    HeadShape { count: 2, size: 32 },
    HeadShape { count: 1, size: 64 },
    HeadShape { count: 3, size: 16 },
    HeadShape { count: 2, size: 20 },
];

#[test]
fn attention_over_few_keys() {
    for count in 1..=40 {
        let tokens = Tokens::random(HEADS[count % 4], vec![true; count]);
        for int8 in [false, true] {
            for b in 0..tokens.blocks() {
                tokens.check(int8, b);
            }
        }
    }
}

#[test]
fn attention_over_masked_keys() {
    for count in [2, 7, 16, 17, 33, 40] {
        for (i, heads) in HEADS.into_iter().enumerate() {
            let mut random = Random::new(count + i);
            let mut live: Vec<_> = (0..count).map(|_| !random.word().is_multiple_of(3)).collect();
            live[random.word() as usize % count] = true;
            if i == 0 {
                // One key alone: every context is its value.
                live.fill(false);
                live[count - 1] = true;
            }
            let tokens = Tokens::random(heads, live);
            for int8 in [false, true] {
                tokens.check(int8, tokens.blocks() - 1);
            }
        }
    }
}

#[test]
fn attention_over_tile_edges() {
    for blocks in 4..=9 {
        let tokens = Tokens::random(HEADS[blocks % 4], vec![true; blocks * BLOCK - blocks % 2]);
        for int8 in [false, true] {
            tokens.check(int8, 1);
        }
    }
    // Wide heads.
    let tokens = Tokens::random(HeadShape { count: 1, size: 128 }, vec![true; 20]);
    tokens.check(false, 0);
    tokens.check(true, 0);
}

#[test]
fn attention_of_a_query_does_not_depend_on_the_others() {
    let tokens = Tokens::random(HEADS[0], vec![true; 35]);
    let row = HEADS[0].count * HEADS[0].width() * 16;
    for isa in instruction_sets() {
        for int8 in [false, true] {
            let [full, _] = tokens.attend(isa, int8, 1, BLOCK, false);
            for rows in 1..BLOCK {
                let [some, _] = tokens.attend(isa, int8, 1, rows, false);
                assert_eq!(some, full[..rows * row], "{} {int8} {rows}", isa.name());
            }
        }
    }
}

#[test]
fn blocks_of_queries_together_are_those_alone() {
    for (heads, count) in [(HEADS[0], 47), (HEADS[3], 64)] {
        let tokens = Tokens::random(heads, vec![true; count]);
        for isa in instruction_sets() {
            for int8 in [false, true] {
                for b in 0..2 {
                    let together = tokens.attend(isa, int8, b, count - b * BLOCK, true);
                    let mut alone = [vec![], vec![]];
                    for b in b..tokens.blocks() {
                        let rows = BLOCK.min(count - b * BLOCK);
                        let one = tokens.attend(isa, int8, b, rows, true);
                        alone.iter_mut().zip(one).for_each(|(all, one)| all.extend(one));
                    }
                    assert_eq!(together, alone, "{} {int8} {count} {b}", isa.name());
                }
            }
        }
    }
}

#[test]
fn masked_tokens_at_the_end_change_nothing() {
    for count in [5, 16, 20] {
        let alone = Tokens::random(HEADS[1], vec![true; count]);
        for extra in [1, 13, 40] {
            let mut padded = Tokens::random(HEADS[1], vec![true; count + extra]);
            padded.live[count..].fill(false);
            padded.qkv[..alone.qkv.len()].copy_from_slice(&alone.qkv);
            for isa in instruction_sets() {
                for int8 in [false, true] {
                    let [a, _] = alone.attend(isa, int8, 0, count.min(BLOCK), false);
                    let [b, _] = padded.attend(isa, int8, 0, count.min(BLOCK), false);
                    assert_eq!(a, b, "{} {int8} {count} {extra}", isa.name());
                }
            }
        }
    }
}

#[test]
fn attention_over_as_many_keys_as_an_accumulator_holds() {
    let heads = HeadShape { count: 1, size: 16 };
    for count in [KEYS_EXACT - 1, KEYS_EXACT, KEYS_EXACT + 1, 2 * KEYS_EXACT + 17] {
        // Equal scores and values of the largest magnitude make every sum as large as possible.
        for value in [1.0, -1.0] {
            let tokens = Tokens::new(
                heads,
                vec![true; count],
                |_, part| {
                    if part == 2 { value } else { 0.5 }
                },
            );
            let all = same_on_all((count, value), |isa| {
                let [context, _] = tokens.attend(isa, true, tokens.blocks() - 1, 1, false);
                context.into_iter().map(f32::to_bits).collect()
            });
            for x in floats(&all) {
                assert!((x - value).abs() < 1e-4, "{count} keys give {x}");
            }
        }
        let tokens = Tokens::random(heads, vec![true; count]);
        tokens.check(true, tokens.blocks() - 1);
        tokens.check(false, tokens.blocks() - 1);
    }
}

#[test]
fn attention_over_zero_and_huge_values() {
    let heads = HeadShape { count: 2, size: 16 };
    for (scale, count) in [(0.0, 18), (1e-34, 18), (1e6, 18), (1e12, 33), (1e18, 50)] {
        for zero in 0..3 {
            let mut random = Random::new(count);
            let tokens = Tokens::new(heads, vec![true; count], |t, part| {
                if part == zero && t % 2 == 0 { 0.0 } else { random.float() * scale }
            });
            for int8 in [false, true] {
                same_on_all((scale, zero, int8), |isa| {
                    let [context, map] = tokens.attend(isa, int8, 1, 2, true);
                    assert!(context.iter().chain(&map).all(|x| !x.is_nan()), "{}", isa.name());
                    context.into_iter().chain(map).map(f32::to_bits).collect()
                });
            }
        }
    }
}

/// [`Guarded`] must be aligned and of the exact length, or the tests would prove nothing.
#[test]
fn guarded_operands_hold_their_values() {
    fn check<T: Plain + PartialEq + std::fmt::Debug>(value: T) {
        for length in [0, 1, 2, 1023, 5000] {
            let guarded = Guarded::filled(value, length);
            assert_eq!(*guarded, *vec![value; length]);
            assert!(guarded.as_ptr().is_aligned());
        }
    }
    check(1.5f32);
    check(F32x16([2.5; 16]));
    check(I8x16([3; 16]));
    check(7u16);
}
