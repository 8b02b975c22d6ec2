//! Each kernel on each instruction set of the machine; the elements a second are multiply-adds for
//! products and elements for the rest.
//!
//! `cargo bench --bench kernels -- avx2` runs those whose name has that in it. Names tell the types
//! (q: int8), the kernel, the shape and the instruction set.

use std::hint::black_box;
use std::time::Duration;

use bertlet::Isa;
use bertlet::kernels::{
    Activation, BLOCK, F16x16, F32Blocks, F32x16, FloatMatrix, Heads, I8x16, I8x64, I16x32, I32x16,
    Int8Blocks, Int8Matrix, Int8Rows, Keys, Norm, QUANTIZE_ROWS, Rotation, Workspace,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Numbers in [-1, 1), the same in every run.
struct Random(u64);

impl Random {
    fn float(&mut self) -> f32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 32) as i32) as f32 / (1u64 << 31) as f32
    }
    fn int8(&mut self) -> i8 {
        (self.float() * 127.0) as i8
    }
    fn vectors(&mut self, count: usize) -> Vec<F32x16> {
        (0..count).map(|_| F32x16(std::array::from_fn(|_| self.float()))).collect()
    }
}

/// One row of the report for each instruction set; `run` leaves its result in the vectors it gets,
/// which must be the portable one's before anything is timed.
fn each(
    c: &mut Criterion,
    name: &str,
    elements: usize,
    out: usize,
    mut run: impl FnMut(Isa, &mut [F32x16]),
) {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(elements as u64));
    let mut expected = vec![F32x16::ZERO; out];
    run(Isa::portable(), &mut expected);
    for (isa, available) in Isa::all() {
        if !available {
            continue;
        }
        let isa = Isa::named(isa).expect("available");
        let mut result = vec![F32x16::ZERO; out];
        run(isa, &mut result);
        assert!(result == expected, "{name} on {} differs from the portable one", isa.name());
        group.bench_function(isa.name(), |b| b.iter(|| run(isa, black_box(&mut result))));
    }
    group.finish();
}

struct Int8 {
    w: Vec<I8x64>,
    scale: Vec<F32x16>,
    bias: Vec<F32x16>,
    sums: Vec<I32x16>,
    steps: usize,
}

impl Int8 {
    fn new(inputs: usize, outputs: usize) -> Self {
        let (mut random, steps, panels) = (Random(1), inputs / 4, outputs / 16);
        let w: Vec<_> =
            (0..panels * steps).map(|_| I8x64(std::array::from_fn(|_| random.int8()))).collect();
        let sum = |panel: &[I8x64], c: usize| {
            panel.iter().flat_map(|w| &w.0[4 * c..][..4]).map(|w| i32::from(*w)).sum()
        };
        let sums =
            w.chunks(steps).map(|panel| I32x16(std::array::from_fn(|c| sum(panel, c)))).collect();
        Self { w, scale: random.vectors(panels), bias: random.vectors(panels), sums, steps }
    }
    fn matrix(&self) -> Int8Matrix<'_> {
        let Self { w, scale, bias, sums, steps } = self;
        Int8Matrix { panels: w, scale, bias, sums, steps: *steps }
    }
}

/// `rows` of `inputs` as the instruction set wants them.
fn quantized(isa: Isa, rows: usize, inputs: usize) -> (Vec<I8x16>, Vec<f32>) {
    let x = Random(2).vectors(rows * inputs / 16);
    let mut buffer = vec![F32x16::ZERO; inputs / 16];
    let (mut values, mut scale) = (vec![I8x16([0; 16]); x.len()], vec![0.0; rows]);
    isa.kernels().quantize(&x, None, Rotation::NONE, &mut buffer, &mut values, &mut scale);
    (values, scale)
}

/// What the machine can do at best: products of registers and nothing else.
fn peaks(c: &mut Criterion) {
    const ROUNDS: usize = 1000;
    for (isa, available) in Isa::all() {
        if !available {
            continue;
        }
        let kernels = Isa::named(isa).expect("available").kernels();
        for (name, peak) in [("peak_q8", true), ("peak_f32", false)] {
            if peak && !isa.ends_with("vnni") {
                // Where a product takes several instructions the compiler moves all but the last
                // addition out of the loop, and what is measured is no peak.
                continue;
            }
            let run =
                |rounds| if peak { kernels.peak_int8(rounds) } else { kernels.peak_f32(rounds) };
            let mut group = c.benchmark_group(name);
            group.throughput(Throughput::Elements(run(ROUNDS)));
            group.bench_function(isa, |b| b.iter(|| run(black_box(ROUNDS))));
            group.finish();
        }
    }
}

fn linear_int8(c: &mut Criterion) {
    // One panel stays in L1 whatever the shape; these are weights that stay there as a whole, the
    // layers of a MiniLM, and one token against more weights than caches hold.
    for (rows, inputs, outputs, repeat, place) in [
        (16, 128, 128, 1, "l1"),
        (8, 384, 1536, 1, "l2"),
        (128, 384, 384, 1, "l2"),
        (128, 384, 1536, 1, "l2"),
        (128, 1536, 384, 1, "l2"),
        (1, 384, 1536, 1, "l2"),
        (1, 1024, 4096, 128, "dram"),
        (8, 1024, 4096, 128, "dram"),
    ] {
        // Copies of one matrix, each read once a pass: 512 MiB in "dram".
        let one = Int8::new(inputs, outputs);
        let w: Vec<I8x64> = (0..repeat).flat_map(|_| one.w.iter().copied()).collect();
        let inputs_of: Vec<_> = Isa::all()
            .filter(|isa| isa.1)
            .map(|isa| (isa.0, quantized(Isa::named(isa.0).expect("available"), rows, inputs)))
            .collect();
        let mut copy = 0;
        let name = format!("linear_q8_q8_f32_{rows}x{inputs}x{outputs}_{place}");
        each(c, &name, rows * inputs * outputs, rows * outputs / 16, |isa, out| {
            let (values, scale) =
                &inputs_of.iter().find(|x| x.0 == isa.name()).expect("available").1;
            copy = (copy + 1) % repeat;
            let panels = &w[copy * one.w.len()..][..one.w.len()];
            let x = Int8Rows { values, scale, width: inputs / 16 };
            let w = Int8Matrix { panels, ..one.matrix() };
            isa.kernels().linear_int8(x, w, out, outputs / 16);
        });
    }
}

fn linear_floats(c: &mut Criterion) {
    for (rows, inputs, outputs) in [(8, 384, 384), (64, 384, 1536), (1, 384, 1536)] {
        let mut random = Random(3);
        let x = random.vectors(rows * inputs / 16);
        let (w, bias) = (random.vectors(inputs * outputs / 16), random.vectors(outputs / 16));
        let halves: Vec<_> = w.iter().map(|w| F16x16(w.0.map(f16_bits))).collect();
        let (macs, panels) = (rows * inputs * outputs, outputs / 16);
        let name = format!("linear_f32_f32_f32_{rows}x{inputs}x{outputs}");
        each(c, &name, macs, rows * panels, |isa, out| {
            let w = FloatMatrix { panels: &w, bias: &bias, steps: inputs };
            isa.kernels().linear_f32(&x, inputs / 16, w, out, panels);
        });
        let name = format!("linear_f32_f16_f32_{rows}x{inputs}x{outputs}");
        each(c, &name, macs, rows * panels, |isa, out| {
            let w = FloatMatrix { panels: &halves, bias: &bias, steps: inputs };
            isa.kernels().linear_f16(&x, inputs / 16, w, out, panels);
        });
    }
}

fn f16_bits(x: f32) -> u16 {
    half::f16::from_f32(x).to_bits()
}

fn rows(c: &mut Criterion) {
    let near = |block| Rotation { block, stride: 1 };
    let far = Rotation { block: 32, stride: 16 };
    for (width, rotation, kind) in [
        (384, Rotation::NONE, "plain"),
        (384, near(128), "block128"),
        (1536, Rotation::NONE, "plain"),
        (1536, near(128), "block128"),
        (1536, far, "block32_stride16"),
    ] {
        const ROWS: usize = 16;
        let x = Random(4).vectors(ROWS * width / 16);
        let mut values = vec![I8x16([0; 16]); x.len()];
        let mut scale = [0.0; ROWS];
        let name = format!("quantize_f32_q8_{ROWS}x{width}_{kind}");
        each(c, &name, ROWS * width, QUANTIZE_ROWS * width / 16, |isa, buffer| {
            isa.kernels().quantize(&x, None, rotation, buffer, &mut values, &mut scale);
        });
    }
    for (name, activation) in [
        ("gelu", Activation::Gelu),
        ("gelu_tanh", Activation::GeluTanh),
        ("relu", Activation::Relu),
        ("silu", Activation::Silu),
        ("tanh", Activation::Tanh),
    ] {
        let x = Random(5).vectors(1536 / 16);
        each(c, &format!("{name}_f32_1536"), 1536, x.len(), |isa, out| {
            out.copy_from_slice(&x);
            isa.kernels().activate(out, activation);
        });
    }
    let mut random = Random(6);
    let (x, y) = (random.vectors(16 * 24), random.vectors(16 * 24));
    let (weight, bias) = (random.vectors(24), random.vectors(24));
    each(c, "add_norm_f32_16x384", 16 * 384, x.len(), |isa, out| {
        out.copy_from_slice(&x);
        let norm = Norm { weight: &weight, bias: &bias };
        isa.kernels().add_norm(out, &y, norm, 384, 1e-12);
    });
}

/// Packing and attention of all queries of a MiniLM layer.
fn attention(c: &mut Criterion) {
    let heads = Heads { count: 12, size: 32 };
    let width = heads.width();
    for tokens in [16, 128, 512] {
        let blocks = tokens / BLOCK;
        let n = blocks * heads.slots();
        let qkv = Random(7).vectors(tokens * 3 * heads.count * width);
        let limit = vec![F32x16([f32::MAX; 16]); blocks];
        let keys = Keys { count: tokens, limit: &limit, masked: false };
        let mut scores = vec![F32x16::ZERO; BLOCK * blocks];
        let mut probabilities = vec![[0; 16]; BLOCK * blocks];
        let mut factors = vec![F32x16::ZERO; blocks];
        let macs = 2 * tokens * tokens * heads.count * heads.size;
        let out = tokens * heads.count * width;
        let block = BLOCK * heads.count * width;
        let mut q = vec![I8x16([0; 16]); blocks * block];
        let mut buffer = vec![I8x16([0; 16]); block];
        let mut k = vec![I8x64([0; 64]); n * width * 4];
        let mut v = vec![I16x32([0; 32]); n * width * 8];
        let [mut q_scale, mut k_scale, mut v_scale] = [(); 3].map(|()| vec![F32x16::ZERO; n]);
        let mut k_sums = vec![I32x16([0; 16]); n];
        each(c, &format!("attention_q8_{tokens}x12x32"), macs, out, |isa, context| {
            let mut packed = Int8Blocks {
                q: &mut *q,
                q_scale: &mut *q_scale,
                k: &mut *k,
                k_scale: &mut *k_scale,
                k_sums: &mut *k_sums,
                v: &mut *v,
                v_scale: &mut *v_scale,
            };
            isa.kernels().pack_int8(&qkv, heads, packed.reborrow(), &mut buffer);
            for (b, out) in context.chunks_mut(block).enumerate() {
                let work = Workspace {
                    scores: &mut scores,
                    probabilities: &mut probabilities,
                    factors: &mut factors,
                };
                isa.kernels().attend_int8(heads, packed.as_ref(), b, BLOCK, keys, work, out, None);
            }
        });
        let mut q = vec![F32x16::ZERO; n * BLOCK * width];
        let mut k = vec![F32x16::ZERO; n * heads.size];
        let mut v = vec![F32x16::ZERO; n * width * BLOCK];
        each(c, &format!("attention_f32_{tokens}x12x32"), macs, out, |isa, context| {
            let mut packed = F32Blocks { q: &mut *q, k: &mut *k, v: &mut *v };
            isa.kernels().pack_f32(&qkv, heads, packed.reborrow());
            for (b, out) in context.chunks_mut(block).enumerate() {
                let work = Workspace {
                    scores: &mut scores,
                    probabilities: &mut probabilities,
                    factors: &mut factors,
                };
                isa.kernels().attend_f32(heads, packed.as_ref(), b, BLOCK, keys, work, out, None);
            }
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .sample_size(20)
        .without_plots();
    targets = peaks, linear_int8, linear_floats, rows, attention
}
criterion_main!(benches);
