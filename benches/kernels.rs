//! Each kernel on each instruction set of the machine. Criterion's elements per second are multiply-adds for
//! products, and elements for the rest.
//!
//! `cargo bench --bench kernels -- avx2` runs the benchmarks whose names contain that. Names give the types
//! (q: int8), the kernel, the shape and the instruction set; `gemm` is the crate of that name.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bertlet::Isa;
use bertlet::kernels::{
    Activation, Attend, BLOCK, F16x16, F32Blocks, F32x16, FloatMatrix, HeadShape, I8x16, I8x64,
    I16x32, I32x16, Int8Blocks, Int8Matrix, Int8Rows, Kernels, Keys, Norm, Prologue, QUANTIZE_ROWS,
    Quantize, Rotation, TABLE_GROUP, TableRow, U16x32, Workspace, Write, flat, flat_mut,
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

/// What is counted per run.
#[derive(Clone, Copy)]
enum Work {
    Elements(usize),
    /// Multiply-adds, and their peak, which is measured in turns with the kernel.
    MultiplyAdds(usize, Peak),
}

/// Multiply-adds of registers and nothing else: the best that the machine can do.
type Peak = fn(&Kernels, rounds: usize) -> u64;

const PEAK_ROUNDS: usize = 20_000;

/// Times `run`, and prints the fraction of the peak that it reaches. The peak is measured after each sample,
/// for as long (up to a limit), so that other load on the machine slows both.
fn time(
    c: &mut Criterion,
    group: &str,
    name: &str,
    kernels: &Kernels,
    work: Work,
    mut run: impl FnMut(),
) {
    let (count, peak) = match work {
        Work::Elements(count) => (count as u64, None),
        Work::MultiplyAdds(count, peak) => (count as u64, Some(peak)),
    };
    let mut reached = Speed::default();
    let mut possible = Speed::default();
    let mut group = c.benchmark_group(group);
    group.throughput(Throughput::Elements(count));
    group.bench_function(name, |b| {
        b.iter_custom(|iterations| {
            let begin = Instant::now();
            (0..iterations).for_each(|_| run());
            let time = begin.elapsed();
            if let Some(peak) = peak {
                reached.add(count * iterations, time);
                let begin = Instant::now();
                while begin.elapsed() < time.min(Duration::from_millis(10)) {
                    let begin = Instant::now();
                    possible.add(peak(kernels, black_box(PEAK_ROUNDS)), begin.elapsed());
                }
            }
            time
        });
    });
    group.finish();
    if reached.count > 0 {
        let fraction = reached.per_second() / possible.per_second();
        println!("{:24}peak:   {:.1} %", "", 100.0 * fraction);
    }
}

#[derive(Default)]
struct Speed {
    count: u64,
    time: Duration,
}

impl Speed {
    fn add(&mut self, count: u64, time: Duration) {
        self.count += count;
        self.time += time;
    }
    fn per_second(&self) -> f64 {
        self.count as f64 / self.time.as_secs_f64()
    }
}

/// One row of the report for each instruction set. `prepare` returns what is timed, which writes its result
/// to the vectors that it gets. That result must be the portable one's before anything is timed.
fn each<R: FnMut(&mut [F32x16])>(
    c: &mut Criterion,
    name: &str,
    work: Work,
    out: usize,
    mut prepare: impl FnMut(&'static Kernels) -> R,
) {
    let mut expected = None;
    for isa in instruction_sets() {
        let mut run = prepare(isa.kernels());
        let mut result = vec![F32x16::ZERO; out];
        run(&mut result);
        let expected = expected.get_or_insert_with(|| result.clone());
        assert!(result == *expected, "{name} on {} differs from the portable one", isa.name());
        time(c, name, isa.name(), isa.kernels(), work, || run(black_box(&mut result)));
    }
}

/// The instruction sets that the machine has, the portable one first.
fn instruction_sets() -> impl Iterator<Item = Isa> {
    Isa::all().filter_map(|(name, _)| Isa::named(name).ok())
}

fn peaks(c: &mut Criterion) {
    let peaks: [(_, Peak); 2] = [("peak_q8", Kernels::peak_int8), ("peak_f32", Kernels::peak_f32)];
    for isa in instruction_sets() {
        for (name, peak) in peaks {
            let count = peak(isa.kernels(), PEAK_ROUNDS) as usize;
            time(c, name, isa.name(), isa.kernels(), Work::Elements(count), || {
                peak(isa.kernels(), black_box(PEAK_ROUNDS));
            });
        }
    }
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

/// `rows` of `inputs`, quantised as the instruction set stores them.
fn quantized(kernels: &Kernels, rows: usize, inputs: usize) -> (Vec<I8x16>, Vec<f32>) {
    let x = Random(2).vectors(rows * inputs / 16);
    let mut buffer = vec![F32x16::ZERO; QUANTIZE_ROWS * inputs / 16];
    let (mut values, mut scale) = (vec![I8x16([0; 16]); x.len()], vec![0.0; rows]);
    kernels.quantize(Quantize {
        x: &x,
        prologue: Prologue::None,
        rotation: Rotation::NONE,
        buffer: &mut buffer,
        values: &mut values,
        scale: &mut scale,
        prefetch: &[],
    });
    (values, scale)
}

fn linear_int8(c: &mut Criterion) {
    // One panel fits L1 in all shapes. "l1": all weights fit L1; "l2": the layers of a MiniLM; "dram": few
    // tokens by more weights than caches hold.
    for (rows, inputs, outputs, copies, place) in [
        (16, 128, 128, 1, "l1"),
        (8, 384, 1536, 1, "l2"),
        (128, 384, 384, 1, "l2"),
        (128, 384, 1536, 1, "l2"),
        (128, 1536, 384, 1, "l2"),
        (1, 384, 1536, 1, "l2"),
        (1, 1024, 4096, 128, "dram"),
        (8, 1024, 4096, 128, "dram"),
    ] {
        // Copies of one matrix, each read once per pass: 512 MiB for "dram".
        let one = Int8::new(inputs, outputs);
        let w = one.w.repeat(copies);
        let (one, w) = (&one, &w);
        let name = format!("linear_q8_q8_f32_{rows}x{inputs}x{outputs}_{place}");
        let work = Work::MultiplyAdds(rows * inputs * outputs, Kernels::peak_int8);
        each(c, &name, work, rows * outputs / 16, |kernels| {
            let (values, scale) = quantized(kernels, rows, inputs);
            let mut matrices = w.chunks(one.w.len()).cycle();
            let mut buffer = vec![F32x16::ZERO; inputs / 4];
            move |out| {
                let x = Int8Rows { values: &values, scale: &scale, width: inputs / 16 };
                let panels = matrices.next().expect("the cycle has no end");
                let w = Int8Matrix { panels, ..one.matrix() };
                kernels.linear_int8(x, w, &mut buffer, out, outputs / 16);
            }
        });
    }
}

fn linear_floats(c: &mut Criterion) {
    for (rows, inputs, outputs) in [(8, 384, 384), (128, 384, 1536), (1, 384, 1536)] {
        let mut random = Random(3);
        let x = random.vectors(rows * inputs / 16);
        let (w, bias) = (random.vectors(inputs * outputs / 16), random.vectors(outputs / 16));
        let halves: Vec<_> =
            w.iter().map(|w| F16x16(w.0.map(|w| half::f16::from_f32(w).to_bits()))).collect();
        let (x, w, halves, bias) = (&*x, &*w, &*halves, &*bias);
        let panels = outputs / 16;
        let work = Work::MultiplyAdds(rows * inputs * outputs, Kernels::peak_f32);
        let name = format!("linear_f32_f16_f32_{rows}x{inputs}x{outputs}");
        each(c, &name, work, rows * panels, |kernels| {
            let w = FloatMatrix { panels: halves, bias, steps: inputs };
            move |out| kernels.linear_f16(x, inputs / 16, w, out, panels)
        });
        let name = format!("linear_f32_f32_f32_{rows}x{inputs}x{outputs}");
        each(c, &name, work, rows * panels, |kernels| {
            let w = FloatMatrix { panels: w, bias, steps: inputs };
            move |out| kernels.linear_f32(x, inputs / 16, w, out, panels)
        });

        // The same product by the crate `gemm`, from rows of weights as in a checkpoint.
        let kernels = Isa::detect().kernels();
        let mut expected = vec![F32x16::ZERO; rows * panels];
        let matrix = FloatMatrix { panels: w, bias, steps: inputs };
        kernels.linear_f32(x, inputs / 16, matrix, &mut expected, panels);
        let w: Vec<f32> = (0..outputs * inputs)
            .map(|i| (i / inputs, i % inputs))
            .map(|(output, k)| w[output / 16 * inputs + k].0[output % 16])
            .collect();
        let mut out = vec![F32x16::ZERO; rows * panels];
        let mut run = || {
            out.chunks_mut(panels).for_each(|row| row.copy_from_slice(bias));
            gemm(rows, inputs, outputs, flat(x), &w, flat_mut(&mut out));
        };
        run();
        time(c, &name, "gemm", kernels, work, &mut run);
        for (a, b) in flat(&out).iter().zip(flat(&expected)) {
            assert!((a - b).abs() < 1e-3, "{a} instead of {b}");
        }
    }
}

/// `out += x W^T` on one thread.
fn gemm(rows: usize, inputs: usize, outputs: usize, x: &[f32], w: &[f32], out: &mut [f32]) {
    assert!(x.len() == rows * inputs && w.len() == outputs * inputs && out.len() == rows * outputs);
    let (x_stride, stride) = (inputs as isize, outputs as isize);
    let (x, w, out) = (x.as_ptr(), w.as_ptr(), out.as_mut_ptr());
    let one_thread = gemm::Parallelism::None;
    #[allow(unsafe_code)]
    // SAFETY: by the assertion above, with these strides every element (i, j) of the three matrices is
    // inside the slices.
    unsafe {
        gemm::gemm(
            rows, outputs, inputs, out, 1, stride, true, x, 1, x_stride, w, x_stride, 1, 1.0, 1.0,
            false, false, false, one_thread,
        );
    }
}

fn rows(c: &mut Criterion) {
    const ROWS: usize = 16;
    let near = |block| Rotation { block, stride: 1 };
    let far = Rotation { block: 32, stride: 16 };
    for (width, rotation, kind) in [
        (384, Rotation::NONE, "plain"),
        (384, near(128), "block128"),
        (1536, Rotation::NONE, "plain"),
        (1536, near(128), "block128"),
        (1536, far, "block32_stride16"),
    ] {
        let x = &Random(4).vectors(ROWS * width / 16);
        let name = format!("quantize_f32_q8_{ROWS}x{width}_{kind}");
        each(c, &name, Work::Elements(ROWS * width), QUANTIZE_ROWS * width / 16, |kernels| {
            let (mut values, mut scale) = (vec![I8x16([0; 16]); x.len()], [0.0; ROWS]);
            let weights = vec![I8x64([0; 64]); x.len()];
            move |buffer| {
                kernels.quantize(Quantize {
                    x,
                    prologue: Prologue::None,
                    rotation,
                    buffer,
                    values: &mut values,
                    scale: &mut scale,
                    prefetch: &weights,
                });
            }
        });
    }
    for (name, activation) in [
        ("gelu", Activation::Gelu),
        ("gelu_tanh", Activation::GeluTanh),
        ("relu", Activation::Relu),
        ("silu", Activation::Silu),
        ("tanh", Activation::Tanh),
    ] {
        let x = &Random(5).vectors(1536 / 16);
        each(c, &format!("{name}_f32_1536"), Work::Elements(1536), x.len(), |kernels| {
            move |out| {
                out.copy_from_slice(x);
                kernels.activate(out, activation);
            }
        });
    }
    const HIDDEN: usize = 384;
    const WIDTH: usize = HIDDEN / 16;
    let mut random = Random(6);
    let (x, y) = (&random.vectors(ROWS * WIDTH), &random.vectors(ROWS * WIDTH));
    let (weight, bias) = (&random.vectors(WIDTH), &random.vectors(WIDTH));
    let name = format!("add_norm_f32_{ROWS}x{HIDDEN}");
    each(c, &name, Work::Elements(ROWS * HIDDEN), x.len(), |kernels| {
        move |out| {
            out.copy_from_slice(x);
            kernels.add_norm(out, y, Norm { weight, bias }, HIDDEN, 1e-12);
        }
    });

    // Rows of embedding tables: added for the embeddings, multiplied for the masked-language-model head.
    let int8: Vec<_> = (0..WIDTH).map(|_| I8x16(std::array::from_fn(|_| random.int8()))).collect();
    let half = half::f16::from_f32(0.01).to_bits();
    let (scales, halves) = ([half; HIDDEN / TABLE_GROUP], [F16x16([half; 16]); WIDTH]);
    for (kind, row) in [
        ("q8", TableRow::Int8(&int8, &scales)),
        ("f16", TableRow::F16(&halves)),
        ("f32", TableRow::F32(weight)),
    ] {
        each(c, &format!("add_row_{kind}_{HIDDEN}"), Work::Elements(HIDDEN), WIDTH, |kernels| {
            // With `Write::Add` the sums would grow from call to call.
            move |out| kernels.add_row(out, row, Write::Set)
        });
        each(c, &format!("dot_row_{kind}_{HIDDEN}"), Work::Elements(HIDDEN), 1, |kernels| {
            move |out| out[0].0[0] = kernels.dot_row(&x[..WIDTH], row)
        });
    }
}

/// Queries, keys and values of one input.
struct Packed {
    q: Vec<I8x16>,
    k: Vec<I8x64>,
    v: Vec<I16x32>,
    scales: [Vec<F32x16>; 3],
    k_compensation: Vec<I32x16>,
}

impl Packed {
    fn new(heads: HeadShape, blocks: usize) -> Self {
        let (n, width) = (blocks * heads.slots(), heads.width());
        Self {
            q: vec![I8x16([0; 16]); blocks * BLOCK * heads.count * width],
            k: vec![I8x64([0; 64]); n * width * 4],
            v: vec![I16x32([0; 32]); n * width * 8],
            scales: [(); 3].map(|()| vec![F32x16::ZERO; n]),
            k_compensation: vec![I32x16([0; 16]); n],
        }
    }
    fn blocks(&mut self) -> Int8Blocks<'_> {
        let Self { q, k, v, scales: [q_scale, k_scale, v_scale], k_compensation } = self;
        Int8Blocks { q, q_scale, k, k_scale, k_compensation, v, v_scale }
    }
}

/// Attention of the queries of block `b`.
fn attend<'a, B>(
    heads: HeadShape,
    blocks: &'a B,
    keys: Keys<'a>,
    b: usize,
    work: Workspace<'a>,
    context: &'a mut [F32x16],
) -> Attend<'a, B> {
    Attend { heads, blocks, keys, rows: b * BLOCK..(b + 1) * BLOCK, work, context, maps: None }
}

/// Packing and attention of all queries of a MiniLM layer.
fn attention(c: &mut Criterion) {
    let heads = HeadShape { count: 12, size: 32 };
    let width = heads.width();
    for tokens in [16, 128, 512] {
        let blocks = tokens / BLOCK;
        let n = blocks * heads.slots();
        let qkv = &Random(7).vectors(tokens * 3 * heads.count * width);
        let limit = &vec![F32x16([f32::MAX; 16]); blocks];
        let keys = Keys { count: tokens, limit };
        let shape = format!("{tokens}x{}x{}", heads.count, heads.size);
        let elements = Work::Elements(3 * tokens * heads.count * heads.size);
        let macs = 2 * tokens * tokens * heads.count * heads.size;
        let (out, block) = (tokens * heads.count * width, BLOCK * heads.count * width);
        let workspace = || {
            let (pairs, none) = (blocks.div_ceil(2), U16x32([0; 32]));
            let scores = vec![F32x16::ZERO; BLOCK * 2 * pairs];
            (scores, vec![none; pairs])
        };

        each(c, &format!("pack_f32_q8_{shape}"), elements, 0, |kernels| {
            let mut packed = Packed::new(heads, blocks);
            let mut buffer = vec![I8x16([0; 16]); block];
            move |_| kernels.pack_int8(qkv, heads, &mut packed.blocks(), &mut buffer)
        });
        let work = Work::MultiplyAdds(macs, Kernels::peak_int8);
        each(c, &format!("attend_q8_{shape}"), work, out, |kernels| {
            let mut packed = Packed::new(heads, blocks);
            let mut buffer = vec![I8x16([0; 16]); block];
            kernels.pack_int8(qkv, heads, &mut packed.blocks(), &mut buffer);
            let (mut scores, mut factors) = workspace();
            move |context| {
                let packed = packed.blocks();
                for (b, out) in context.chunks_mut(block).enumerate() {
                    let work = Workspace { scores: &mut scores, factors: &mut factors };
                    kernels.attend_int8(attend(heads, &packed, keys, b, work, out));
                }
            }
        });

        let floats =
            || [BLOCK * width, heads.size, width * BLOCK].map(|slot| vec![F32x16::ZERO; n * slot]);
        each(c, &format!("pack_f32_f32_{shape}"), elements, 0, |kernels| {
            let [mut q, mut k, mut v] = floats();
            move |_| {
                let mut blocks = F32Blocks { q: &mut q, k: &mut k, v: &mut v };
                kernels.pack_f32(qkv, heads, &mut blocks);
            }
        });
        let work = Work::MultiplyAdds(macs, Kernels::peak_f32);
        each(c, &format!("attend_f32_{shape}"), work, out, |kernels| {
            let [mut q, mut k, mut v] = floats();
            kernels.pack_f32(qkv, heads, &mut F32Blocks { q: &mut q, k: &mut k, v: &mut v });
            let (mut scores, mut factors) = workspace();
            move |context| {
                let packed = F32Blocks { q: &mut q, k: &mut k, v: &mut v };
                for (b, out) in context.chunks_mut(block).enumerate() {
                    let work = Workspace { scores: &mut scores, factors: &mut factors };
                    kernels.attend_f32(attend(heads, &packed, keys, b, work, out));
                }
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
