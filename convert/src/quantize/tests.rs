use super::*;
use crate::bert::{Activation, Embeddings, Layer, LayerNorm};
use crate::reference::matmul::{Right, product};

/// A small generator, so that the tests need no data.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn vector(&mut self, len: usize, size: f32) -> Vec<f32> {
        (0..len).map(|_| self.uniform() * size).collect()
    }

    fn matrix(&mut self, rows: usize, cols: usize, size: f32) -> Matrix {
        Matrix { rows, cols, data: self.vector(rows * cols, size) }
    }

    fn linear(&mut self, rows: usize, cols: usize) -> Linear {
        Linear { weight: self.matrix(rows, cols, 0.3), bias: self.vector(rows, 0.2) }
    }

    fn norm(&mut self, size: usize) -> LayerNorm {
        let weight = self.vector(size, 0.3).iter().map(|x| 1.0 + x).collect();
        LayerNorm { weight, bias: self.vector(size, 0.1) }
    }
}

fn micro(hidden: usize, heads: usize, intermediate: usize) -> Bert {
    let mut random = Random(7);
    let r = &mut random;
    let layer = |r: &mut Random| Layer {
        query: r.linear(hidden, hidden),
        key: r.linear(hidden, hidden),
        value: r.linear(hidden, hidden),
        attention_output: r.linear(hidden, hidden),
        attention_norm: r.norm(hidden),
        intermediate: r.linear(intermediate, hidden),
        output: r.linear(hidden, intermediate),
        output_norm: r.norm(hidden),
    };
    Bert {
        config: Config {
            hidden_size: hidden,
            num_hidden_layers: 2,
            num_attention_heads: heads,
            intermediate_size: intermediate,
            vocab_size: 50,
            max_position_embeddings: 32,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            hidden_act: Activation::Gelu,
            attention: Attention::Float,
        },
        embeddings: Embeddings {
            word: r.matrix(50, hidden, 1.0),
            position: r.matrix(32, hidden, 0.3),
            token_type: r.matrix(2, hidden, 0.3),
            norm: r.norm(hidden),
        },
        layers: vec![layer(r), layer(r)],
        pooler: Some(r.linear(hidden, hidden)),
        heads: TaskHeads::default(),
    }
}

fn batch(count: usize, seed: u64) -> Vec<Sequence> {
    let mut random = Random(seed);
    let mut below = |n: usize| ((random.uniform() + 1.0) / 2.0 * n as f32) as u32 % n as u32;
    (0..count)
        .map(|_| {
            let length = 1 + below(31) as usize;
            Sequence::single((0..length).map(|_| below(50)).collect())
        })
        .collect()
}

fn rotated(m: &Matrix, rotation: HadamardRotation) -> Matrix {
    let mut m = m.clone();
    m.data.chunks_exact_mut(m.cols).for_each(|row| rotation.apply(row));
    m
}

fn close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= tolerance, "{a} against {b}");
    }
}

const ROTATIONS: [HadamardRotation; 5] = [
    HadamardRotation::NONE,
    HadamardRotation { block: 2, stride: 1 },
    HadamardRotation { block: 128, stride: 1 },
    HadamardRotation { block: 32, stride: 16 },
    HadamardRotation { block: 4, stride: 32 },
];

#[test]
fn rotation_is_orthonormal_and_its_own_inverse() {
    let x = Random(1).vector(1024, 1.0);
    let energy = |x: &[f32]| x.iter().map(|x| f64::from(x * x)).sum::<f64>();
    for rotation in ROTATIONS {
        let mut y = x.clone();
        rotation.apply(&mut y);
        assert!((energy(&x) - energy(&y)).abs() < 1e-4 * energy(&x));
        rotation.apply(&mut y);
        close(&x, &y, 1e-6);
    }
    assert_eq!(HadamardRotation::largest(384, 128).block, 128);
    assert_eq!(HadamardRotation::largest(100, 128).block, 4);
    assert_eq!(HadamardRotation::largest(33, 128).block, 1);
}

#[test]
fn rotation_mixes_the_members_that_it_names() {
    let rotation = HadamardRotation { block: 4, stride: 3 };
    let mut x = vec![0f32; 24];
    x[12 + 3 + 2] = 1.0; // block 1, member 1, s = 2
    rotation.apply(&mut x);
    let touched: Vec<usize> = (0..24).filter(|&i| x[i] != 0.0).collect();
    assert_eq!(touched, [14, 17, 20, 23]);
}

#[test]
fn rotated_product_is_the_plain_one() {
    let mut random = Random(2);
    let (x, w) = (random.matrix(5, 512, 1.0), random.matrix(9, 512, 1.0));
    let plain = product(&x, &Right::weight(&w));
    for rotation in ROTATIONS {
        let y = product(&rotated(&x, rotation), &Right::weight(&rotated(&w, rotation)));
        close(&plain.data, &y.data, 1e-4);
    }
}

#[test]
fn folding_leaves_attention_unchanged() {
    for (hidden, heads) in [(64, 2), (48, 3), (36, 3)] {
        let bert = micro(hidden, heads, 100);
        let batch = batch(6, 3);
        let spans = reference::spans(&batch);
        let x = reference::embed(&bert, &batch);
        let layer = &bert.layers[0];
        let apply = |x: &Matrix, l: &Linear| linear(x, &l.weight, &l.bias);
        let (q, k, v) = (apply(&x, &layer.query), apply(&x, &layer.key), apply(&x, &layer.value));
        let context = attention::<FloatAttention>(Qkv::separate(&q, &k, &v), &spans, heads);
        let plain = apply(&context, &layer.attention_output);

        let folded = fold_heads(&bert, 0);
        let qkv = apply(&x, &folded.qkv);
        let context = attention::<FloatAttention>(Qkv::fused(&qkv), &spans, heads);
        close(&plain.data, &apply(&context, &folded.attention_output).data, 1e-4);
    }
}

/// Inputs whose columns share a few causes.
fn correlated(rows: usize, cols: usize) -> Matrix {
    let mut random = Random(4);
    let causes = random.matrix(rows, 8, 1.0);
    let mut x = product(&causes, &Right::weight(&random.matrix(cols, 8, 1.0)));
    let noise = random.vector(rows * cols, 0.1);
    x.data.iter_mut().zip(noise).for_each(|(x, n)| *x += n);
    x
}

fn output_error(x: &Matrix, weight: &Matrix, quantized: &QuantizedWeight) -> f64 {
    let mut difference = quantized.dequantize();
    subtract(&mut difference, weight);
    let y = product(x, &Right::weight(&difference));
    y.data.iter().map(|&y| f64::from(y * y)).sum()
}

#[test]
fn gptq_beats_rounding_to_nearest() {
    let x = correlated(500, 100);
    let weight = Random(5).matrix(70, 100, 1.0);
    let nearest = output_error(&x, &weight, &QuantizedWeight::nearest(&weight));
    let moments = gram(&x);
    for by_activation in [false, true] {
        let factor = Factor::new(&moments, 100, 0.01, by_activation);
        let plain = factor.round(&weight, &[1.0]);
        assert!(plain.values.iter().all(|&q| q != i8::MIN));
        let error = output_error(&x, &weight, &plain);
        assert!(error < 0.5 * nearest, "{error} against {nearest}");
        let searched = factor.round(&weight, &[1.0, 0.95, 0.9]);
        assert!(output_error(&x, &weight, &searched) < 1.05 * error);
    }
}

#[test]
fn rows_of_zeros_have_scale_zero() {
    let mut weight = Random(6).matrix(3, 20, 1.0);
    weight.data[20..40].fill(0.0);
    let moments = gram(&correlated(50, 20));
    for quantized in [
        QuantizedWeight::nearest(&weight),
        Factor::new(&moments, 20, 0.01, false).round(&weight, &[1.0]),
        Factor::new(&vec![0.0; 400], 20, 0.01, false).round(&weight, &[1.0]),
    ] {
        assert_eq!(quantized.scales[1], 0.0);
        assert!(quantized.values[20..40].iter().all(|&q| q == 0));
        assert!(quantized.scales[0] > 0.0);
        assert!(quantized.values.iter().all(|&q| (-127..=127).contains(&q)));
    }
}

#[test]
fn words_come_back() {
    let mut table = Random(8).matrix(5, 100, 1.0);
    table.data[..100].fill(0.0);
    for (format, tolerance) in
        [(WordFormat::F16, 0.0005), (WordFormat::Int8(0), 0.004), (WordFormat::Int8(32), 0.0045)]
    {
        let words = quantize_words(&table, format);
        let mut row = vec![1f32; 100];
        for id in 0..5 {
            words.row(id, &mut row);
            close(table.row(id), &row, tolerance);
        }
        if let WordTable::Int8 { scales, group, .. } = &words {
            assert_eq!(scales.len(), 5 * 100usize.div_ceil(*group));
        }
    }
}

#[test]
fn same_result_for_any_number_of_threads() {
    let bert = micro(64, 4, 96);
    let batch = batch(40, 9);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let quantized = quantize(&bert, &batch, &QuantizeOptions::default(), &mut |_, _| ());
            let deviation = deviation(&bert, &quantized, &batch);
            (quantized, deviation)
        })
    };
    assert_eq!(run(1), run(2));
}

/// Everything that a file would hold, as one number. Runs on other instruction sets must find the same.
#[test]
fn same_bits_on_every_machine() {
    let bert = micro(64, 4, 96);
    let options = QuantizeOptions { clips: vec![1.0, 0.9], ..QuantizeOptions::default() };
    let quantized = quantize(&bert, &batch(40, 9), &options, &mut |_, _| ());
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut eat = |bytes: &[u8]| {
        for &byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    };
    for layer in &quantized.layers {
        for p in [&layer.qkv, &layer.attention_output, &layer.intermediate, &layer.output] {
            let StoredLinear::Int8(linear) = p else { panic!("nothing was to be kept") };
            linear.weight.values.iter().for_each(|q| eat(&q.to_le_bytes()));
            linear.weight.scales.iter().for_each(|s| eat(&s.to_le_bytes()));
            linear.bias.iter().for_each(|b| eat(&b.to_le_bytes()));
        }
    }
    let states = simulate::hidden_states(&quantized, &batch(3, 12));
    states.iter().flat_map(|s| &s.data).for_each(|x| eat(&x.to_le_bytes()));
    assert_eq!(hash, 0xfb04_f938_32e8_5444, "{hash:#x}");
}

#[test]
fn quantised_model_stays_near() {
    for (hidden, heads, intermediate) in [(64, 4, 96), (48, 3, 100), (32, 4, 512)] {
        let bert = micro(hidden, heads, intermediate);
        let held_out = batch(20, 11);
        let mut steps = Vec::new();
        let quantized =
            quantize(&bert, &batch(60, 10), &QuantizeOptions::default(), &mut |done, total| {
                steps.push((done, total));
            });
        assert_eq!(steps, (1..=8).map(|i| (i, 8)).collect::<Vec<_>>());
        let measured = deviation(&bert, &quantized, &held_out);
        assert_eq!(measured.states.len(), 3);
        let last = measured.states.last().unwrap();
        assert!(last.relative_rms < 0.03, "{}", last.relative_rms);
        assert!(last.sqnr > 30.0 && last.cosine > 0.999);
        assert!(measured.pooled_cosine > 0.999);

        let search = |wanted| {
            let mut measure = |model: &StoredBert| {
                Ok::<_, std::convert::Infallible>(deviation(&bert, model, &held_out).pooled_cosine)
            };
            keep_for_cosine(&bert, &quantized, wanted, &mut measure, &mut |_, _| ()).unwrap()
        };
        assert_eq!(search(0.9), Ok(BTreeSet::new()));
        let wanted = 1.0 - (1.0 - measured.pooled_cosine) * 0.6;
        let keep = search(wanted).unwrap();
        assert!(!keep.is_empty() && keep.len() < 8, "{keep:?}");
        let options = QuantizeOptions { keep: keep.clone(), ..QuantizeOptions::default() };
        let mixed = quantize(&bert, &batch(60, 10), &options, &mut |_, _| ());
        let full = mixed
            .layers
            .iter()
            .flat_map(|l| [&l.qkv, &l.attention_output, &l.intermediate, &l.output]);
        assert_eq!(full.filter(|p| matches!(p, StoredLinear::Float(_))).count(), keep.len());
        assert!(search(1.1).unwrap_err() > 0.999);
    }
}

#[test]
fn built_in_texts_do_not_overlap() {
    let calibration: BTreeSet<&str> = text::CALIBRATION.lines().collect();
    assert!(calibration.len() > 250);
    for line in text::HELD_OUT.lines() {
        assert!(!calibration.contains(line), "{line}");
    }
}
