//! A second implementation, slow and scalar, written from the pages `bertlet::format` and
//! `bertlet::numerics` alone. It shares no arithmetic with the library; the bits are the same.

#![allow(clippy::approx_constant)] // A coefficient may come near to a known constant.

#[path = "common/models.rs"]
mod common;

use bertlet::format::writer::Defaults;
use bertlet::format::{Activation, Attention, Encoding, ProblemType, ScoreActivation};
use bertlet::{
    Config, Head, Input, Isa, Layers, Model, Output, Pooling, SectionKind, features_len,
};

use common::{ACTIVATIONS, Aligned, Random, SMALL, Spec, bits, ids, run};

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// IEEE 754 binary16.
fn half(bits: u16) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    let magnitude = match exponent {
        0 => fraction * 2f32.powi(-24),
        31 => panic!("no infinities here"),
        _ => (1024.0 + fraction) * 2f32.powi(exponent - 25),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

fn halves(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(2).map(|b| half(u16::from_le_bytes([b[0], b[1]]))).collect()
}

fn fma(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}

/// The tree over the partial sums of sixteen lanes.
fn tree(mut p: [f32; 16]) -> f32 {
    for half in [8, 4, 2, 1] {
        for l in 0..half {
            p[l] += p[l + half];
        }
    }
    p[0]
}

fn sum_by_lanes(x: &[f32]) -> f32 {
    let mut p = [0.0; 16];
    for (i, x) in x.iter().enumerate() {
        p[i % 16] += x;
    }
    tree(p)
}

fn dot_by_lanes(x: &[f32], y: &[f32]) -> f32 {
    let mut p = [0.0; 16];
    for (i, (x, y)) in x.iter().zip(y).enumerate() {
        p[i % 16] = fma(*x, *y, p[i % 16]);
    }
    tree(p)
}

fn poly(x: f32, c: &[f32]) -> f32 {
    let (last, rest) = c.split_last().unwrap();
    rest.iter().rev().fold(*last, |y, c| fma(y, x, *c))
}

fn exp2_with(x: f32, c: &[f32]) -> f32 {
    let x = x.max(-125.0);
    let n = x.round_ties_even();
    poly(x - n, c) * 2f32.powi(n as i32)
}

fn exp2(x: f32) -> f32 {
    let c = [1.0, 0.6931466, 0.24022166, 0.055510473, 0.009674952, 0.0013202982];
    exp2_with(x, &c)
}

fn exp2_15(w: u32) -> u32 {
    let times = |c: u32| c * (w % 4096) / 4096;
    let y = 16380 + times(10755 + times(5514));
    ((y << (w / 4096)) + 16384) >> 15
}

const LOG2_E: f32 = f32::from_bits(0x3fb8_aa3b);

fn tanh(x: f32) -> f32 {
    let x = x.clamp(-10.0, 10.0);
    1.0 - 2.0 / (exp2(x * f32::from_bits(0x4038_aa3b)) + 1.0)
}

fn activate(x: f32, activation: Activation) -> f32 {
    match activation {
        Activation::Gelu => {
            let u = x.clamp(-5.0, 5.0);
            let v = fma(u * u, 0.08, -1.0);
            let c = [
                0.14136378,
                -0.07029664,
                0.05152142,
                -0.040433243,
                0.03142621,
                -0.023334937,
                0.016497625,
                -0.010978166,
                0.0061662514,
                -0.0029090233,
                0.001999413,
                -0.0015175419,
                0.00049480575,
            ];
            x * fma(u, poly(v, &c), 0.5)
        }
        Activation::GeluTanh => {
            let h = x * 0.5;
            fma(h, tanh(0.7978846 * fma(x * x * x, 0.044715, x)), h)
        }
        Activation::Silu => x / (1.0 + exp2((0.0 - x).min(87.0) * LOG2_E)),
        Activation::Relu => {
            if x > 0.0 {
                x
            } else {
                0.0
            }
        }
        Activation::Tanh => tanh(x),
    }
}

fn gelu_int8(x: f32) -> f32 {
    let a = x.abs().min(3.83);
    let c =
        [-0.49851644, 0.38131678, 0.058666807, -0.15237692, 0.06251969, -0.010898919, 0.0007184116];
    fma(a, poly(a, &c), x.max(0.0))
}

/// `x` as int8, and its scale.
fn quantise(x: &[f32]) -> (Vec<i32>, f32) {
    let m = x.iter().fold(1e-30f32, |m, x| m.max(x.abs()));
    let inverse = 127.0 / m;
    (x.iter().map(|x| (x * inverse).round_ties_even() as i32).collect(), m * (1.0 / 127.0))
}

enum Weights {
    Int8 { w: Vec<Vec<i32>>, scale: Vec<f32>, block: usize, stride: usize },
    Float(Vec<Vec<f32>>),
}

/// A matrix `[rows][cols]` with bias.
struct Matrix {
    weights: Weights,
    bias: Vec<f32>,
}

impl Matrix {
    fn apply(&self, x: &[f32]) -> Vec<f32> {
        match &self.weights {
            Weights::Float(w) => {
                let row = |(w, b): (&Vec<f32>, &f32)| {
                    w.iter().zip(x).fold(*b, |y, (w, x)| fma(*x, *w, y))
                };
                w.iter().zip(&self.bias).map(row).collect()
            }
            Weights::Int8 { w, scale, block, stride } => {
                let (q, x_scale) = quantise(&rotate(x, *block, *stride));
                let row = |n: usize| {
                    let sum: i64 = w[n].iter().zip(&q).map(|(w, q)| i64::from(w * q)).sum();
                    fma(sum as f32 * x_scale, scale[n], self.bias[n])
                };
                (0..w.len()).map(row).collect()
            }
        }
    }
}

fn rotate(x: &[f32], block: usize, stride: usize) -> Vec<f32> {
    let mut x = x.to_vec();
    let mut m = 1;
    while m < block {
        for i in 0..x.len() {
            // The member's number, and its partner's place.
            let j = i / stride % block;
            if j & m == 0 {
                let (a, b) = (x[i], x[i + m * stride]);
                x[i] = a + b;
                x[i + m * stride] = a - b;
            }
        }
        m *= 2;
    }
    x
}

/// Hidden states, `[state][token][H]`, and probabilities, `[layer][token][head][token]`.
struct Pass {
    states: Vec<Vec<Vec<f32>>>,
    maps: Vec<Vec<f32>>,
}

struct Net<'a> {
    model: Model<'a>,
    config: Config,
}

impl<'a> Net<'a> {
    fn new(model: Model<'a>) -> Self {
        Self { model, config: *model.config() }
    }

    fn bytes(&self, kind: SectionKind, layer: usize) -> (bertlet::format::Section, &'a [u8]) {
        let section = self
            .model
            .sections()
            .find(|s| s.kind == kind && s.layer as usize == layer)
            .unwrap_or_else(|| panic!("{kind:?}"));
        (section, self.model.section_bytes(section))
    }

    fn has(&self, kind: SectionKind) -> bool {
        self.model.sections().any(|s| s.kind == kind)
    }

    fn matrix(&self, kind: SectionKind, layer: usize) -> Matrix {
        let (s, bytes) = self.bytes(kind, layer);
        let (rows16, cols16) = (s.rows.next_multiple_of(16), s.cols.next_multiple_of(16));
        let first = |values: Vec<f32>| values[..s.rows].to_vec();
        if s.encoding == Encoding::Int8 {
            let (w, rest) = bytes.split_at(rows16 * cols16);
            let weight = |n: usize, k: usize| {
                i32::from(w[n / 16 * cols16 * 16 + k / 4 * 64 + n % 16 * 4 + k % 4] as i8)
            };
            let w = (0..s.rows).map(|n| (0..s.cols).map(|k| weight(n, k)).collect()).collect();
            let scale = first(f32s(&rest[..rows16 * 4]));
            let (block, stride) = (s.rotation.block, s.rotation.stride);
            return Matrix {
                weights: Weights::Int8 { w, scale, block, stride },
                bias: first(f32s(&rest[rows16 * 4..rows16 * 8])),
            };
        }
        let count = rows16 * s.cols;
        let (w, size) = match s.encoding {
            Encoding::F16 => (halves(&bytes[..count * 2]), 2),
            _ => (f32s(&bytes[..count * 4]), 4),
        };
        let weight = |n: usize, k: usize| w[(n / 16 * s.cols + k) * 16 + n % 16];
        let rows = (0..s.rows).map(|n| (0..s.cols).map(|k| weight(n, k)).collect()).collect();
        let bias = f32s(&bytes[(count * size).next_multiple_of(64)..]);
        Matrix { weights: Weights::Float(rows), bias: first(bias) }
    }

    fn row(&self, kind: SectionKind, i: usize) -> Vec<f32> {
        let (s, bytes) = self.bytes(kind, 0);
        let (width, h) = (s.cols.next_multiple_of(16), s.cols);
        match s.encoding {
            Encoding::Int8 => {
                let scales = halves(&bytes[(s.rows * width).next_multiple_of(64)..]);
                let scales = &scales[i * h.div_ceil(64)..];
                let values = bytes[i * width..][..h].iter().enumerate();
                values.map(|(k, w)| f32::from(*w as i8) * scales[k / 64]).collect()
            }
            Encoding::F16 => halves(&bytes[i * width * 2..][..h * 2]),
            _ => f32s(&bytes[i * width * 4..][..h * 4]),
        }
    }

    fn norm(&self, kind: SectionKind, layer: usize, x: &[f32]) -> Vec<f32> {
        let values = f32s(self.bytes(kind, layer).1);
        let (gamma, beta) = values.split_at(values.len() / 2);
        let n = x.len() as f32;
        let mean = sum_by_lanes(x) / n;
        let d: Vec<f32> = x.iter().map(|x| x - mean).collect();
        let r = 1.0 / (dot_by_lanes(&d, &d) / n + self.config.layer_norm_eps).sqrt();
        (0..d.len()).map(|i| fma(d[i] * r, gamma[i], beta[i])).collect()
    }

    fn forward(&self, input: &Input<'_>) -> Pass {
        let tokens = input.input_ids.len();
        let live = |t: usize| input.attention_mask.is_none_or(|mask| mask[t] != 0);
        let mut x: Vec<Vec<f32>> = (0..tokens)
            .map(|t| {
                let token_type = input.token_type_ids.map_or(0, |types| types[t].into());
                let word = self.row(SectionKind::WordEmbeddings, input.input_ids[t] as usize);
                let kind = self.row(SectionKind::TokenTypeEmbeddings, token_type);
                let position = self.row(SectionKind::PositionEmbeddings, t);
                let sum: Vec<f32> =
                    (0..word.len()).map(|i| word[i] + kind[i] + position[i]).collect();
                self.norm(SectionKind::EmbeddingsNorm, 0, &sum)
            })
            .collect();
        let mut pass = Pass { states: vec![x.clone()], maps: Vec::new() };
        for layer in 0..self.config.num_hidden_layers {
            let project = self.matrix(SectionKind::QueryKeyValue, layer);
            let output = self.matrix(SectionKind::AttentionOutput, layer);
            let first = self.matrix(SectionKind::Intermediate, layer);
            let second = self.matrix(SectionKind::Output, layer);
            let qkv: Vec<Vec<f32>> = x.iter().map(|x| project.apply(x)).collect();
            let (context, maps) = self.attention(&qkv, live);
            pass.maps.push(maps);
            for (x, context) in x.iter_mut().zip(context) {
                let y: Vec<f32> = add(x, &output.apply(&context));
                *x = self.norm(SectionKind::AttentionNorm, layer, &y);
                let inner = first.apply(x);
                let activate = |x: &f32| match (&second.weights, self.config.hidden_act) {
                    (Weights::Int8 { .. }, Activation::Gelu) => gelu_int8(*x),
                    (_, activation) => activate(*x, activation),
                };
                let inner: Vec<f32> = inner.iter().map(activate).collect();
                *x = self.norm(SectionKind::OutputNorm, layer, &add(x, &second.apply(&inner)));
            }
            pass.states.push(x.clone());
        }
        pass
    }

    fn attention(
        &self,
        qkv: &[Vec<f32>],
        live: impl Fn(usize) -> bool,
    ) -> (Vec<Vec<f32>>, Vec<f32>) {
        let (heads, size) = (
            self.config.num_attention_heads,
            self.config.hidden_size / self.config.num_attention_heads,
        );
        let padded = size.next_multiple_of(16);
        let tokens = qkv.len();
        let temperature = LOG2_E / (size as f32).sqrt();
        let mut context = vec![vec![0.0; heads * padded]; tokens];
        let mut maps = vec![0.0; tokens * heads * tokens];
        for h in 0..heads {
            let part = |t: usize, which: usize| &qkv[t][(which * heads + h) * padded..][..size];
            let max = |s: &[f32]| {
                let live = s.iter().enumerate().filter(|(j, _)| live(*j));
                live.fold(f32::MIN, |m, (_, s)| m.max(*s))
            };
            let int8 = |which| (0..tokens).map(|t| quantise(part(t, which))).collect::<Vec<_>>();
            let (q8, k8, v8) = (int8(0), int8(1), int8(2));
            for t in 0..tokens {
                let out = &mut context[t][h * padded..][..size];
                let (e, sum): (Vec<f32>, f32);
                if self.config.attention == Attention::Float {
                    let dot =
                        |j| part(t, 0).iter().zip(part(j, 1)).fold(0.0, |s, (q, k)| fma(*q, *k, s));
                    let s: Vec<f32> = (0..tokens).map(dot).collect();
                    let m = max(&s);
                    let exponential =
                        |j| if live(j) { exp2((s[j] - m) * temperature) } else { 0.0 };
                    e = (0..tokens).map(exponential).collect();
                    sum = sum_by_lanes(&e);
                    let inverse = 1.0 / sum;
                    for (d, out) in out.iter_mut().enumerate() {
                        let weighted = (0..tokens).fold(0.0, |s, j| fma(e[j], part(j, 2)[d], s));
                        *out = weighted * inverse;
                    }
                } else {
                    let dot = |j: usize| {
                        let sum: i32 = q8[t].0.iter().zip(&k8[j].0).map(|(q, k)| q * k).sum();
                        sum as f32 * k8[j].1
                    };
                    let s: Vec<f32> = (0..tokens).map(dot).collect();
                    let m = max(&s);
                    let c = (q8[t].1 * (4096.0 * temperature)).min((1u64 << 36) as f32 / m.abs());
                    let start = fma(-m, c, 65535.0);
                    let exponential = |j: usize| {
                        let w = fma(s[j], c, start).clamp(0.0, 65535.0).round_ties_even();
                        if live(j) { exp2_15(w as u32) } else { 0 }
                    };
                    let e15: Vec<u32> = (0..tokens).map(exponential).collect();
                    let scales = (0..tokens).filter(|j| live(*j)).map(|j| v8[j].1);
                    let largest = scales.fold(0.0, f32::max);
                    let factor = if largest > 0.0 { 32767.0 / largest } else { 0.0 };
                    let probability = |j: usize| {
                        let f = (v8[j].1 * factor).min(32767.0).round_ties_even() as u32;
                        i64::from((e15[j] * f + 16384) >> 15)
                    };
                    let p: Vec<i64> = (0..tokens).map(probability).collect();
                    sum = e15.iter().sum::<u32>() as f32;
                    e = e15.into_iter().map(|e| e as f32).collect();
                    let scale = largest * (32768.0 / 32767.0) / sum;
                    for (d, out) in out.iter_mut().enumerate() {
                        let products: Vec<i64> =
                            (0..tokens).map(|j| p[j] * i64::from(v8[j].0[d])).collect();
                        let part = |keys: &[i64]| keys.iter().sum::<i64>() as f32;
                        *out = products.chunks(512).fold(0.0, |s, keys| s + part(keys)) * scale;
                    }
                }
                for (j, e) in e.iter().enumerate() {
                    maps[(t * heads + h) * tokens + j] = e / sum;
                }
            }
        }
        (context, maps)
    }

    fn pooler(&self, x: &[f32]) -> Vec<f32> {
        self.matrix(SectionKind::Pooler, 0).apply(x).into_iter().map(tanh).collect()
    }

    fn masked_lm(&self, x: &[f32]) -> Vec<f32> {
        let y = self.matrix(SectionKind::MaskedLmTransform, 0).apply(x);
        let y: Vec<f32> = y.iter().map(|x| activate(*x, self.config.hidden_act)).collect();
        let y = self.norm(SectionKind::MaskedLmNorm, 0, &y);
        let bias = f32s(self.bytes(SectionKind::MaskedLmBias, 0).1);
        let table = match self.has(SectionKind::MaskedLmDecoder) {
            true => SectionKind::MaskedLmDecoder,
            false => SectionKind::WordEmbeddings,
        };
        let logit = |id| dot_by_lanes(&y, &self.row(table, id)) + bias[id];
        (0..self.config.vocab_size).map(logit).collect()
    }
}

fn add(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// States to be added, with their weights.
type Part = Vec<(usize, f32)>;

/// How states are combined.
#[derive(Clone, Copy, PartialEq)]
enum Combine {
    Sum,
    Mean,
    Concat,
}

/// Features as the page's section "Outputs" has them.
fn features(
    net: &Net<'_>,
    pass: &Pass,
    live: &dyn Fn(usize) -> bool,
    combine: Combine,
    picks: &[(usize, f32)],
    pooling: Pooling,
    normalize: bool,
) -> Vec<f32> {
    let tokens = pass.states[0].len();
    let unmasked: Vec<usize> = (0..tokens).filter(|t| live(*t)).collect();
    let count = unmasked.len() as f32;
    let weighted = |(state, w): (usize, f32), t: usize| -> Vec<f32> {
        pass.states[state][t].iter().map(|x| x * w).collect()
    };
    let mut ordered = picks.to_vec();
    ordered.sort_by_key(|p| p.0);
    // The states that are added to each other, one list for each part of the result.
    let parts: Vec<Part> = match combine {
        Combine::Concat => picks.iter().map(|p| vec![*p]).collect(),
        _ => vec![ordered],
    };
    let sum = |rows: Vec<Vec<f32>>| rows.into_iter().reduce(|a, b| add(&a, &b)).unwrap();
    let token = |part: &Part, t: usize| sum(part.iter().map(|p| weighted(*p, t)).collect());
    let running = |part: &Part| {
        sum(part.iter().flat_map(|p| unmasked.iter().map(|t| weighted(*p, *t))).collect())
    };
    let largest = |part: &Part| {
        let rows = unmasked.iter().map(|t| token(part, *t));
        let max = |a: Vec<f32>, b: Vec<f32>| {
            a.iter().zip(b).map(|(a, b)| if b > *a { b } else { *a }).collect()
        };
        rows.reduce(max).unwrap()
    };
    let each = |f: &dyn Fn(&Part) -> Vec<f32>| -> Vec<f32> { parts.iter().flat_map(f).collect() };
    let mut vectors: Vec<Vec<f32>> = match pooling {
        Pooling::None => (0..tokens).map(|t| each(&|p| token(p, t))).collect(),
        Pooling::Cls | Pooling::Pooler => vec![each(&|p| token(p, 0))],
        Pooling::Sep => vec![each(&|p| token(p, *unmasked.last().unwrap()))],
        Pooling::Mean | Pooling::MeanSqrt => vec![each(&running)],
        Pooling::Max => vec![each(&largest)],
        _ => {
            let tokens_first = |p: &Part| sum(unmasked.iter().map(|t| token(p, *t)).collect());
            let mut both = match combine {
                Combine::Concat => each(&running),
                _ => each(&tokens_first),
            };
            both.extend(each(&largest));
            vec![both]
        }
    };
    for vector in &mut vectors {
        if combine == Combine::Mean {
            vector.iter_mut().for_each(|x| *x /= picks.len() as f32);
        }
        let half = vector.len() / 2;
        match pooling {
            Pooling::Mean => vector.iter_mut().for_each(|x| *x /= count),
            Pooling::MeanSqrt => vector.iter_mut().for_each(|x| *x /= count.sqrt()),
            Pooling::MeanMax => vector[..half].iter_mut().for_each(|x| *x /= count),
            Pooling::Pooler => {
                let hidden = net.config.hidden_size;
                *vector = vector.chunks(hidden).flat_map(|x| net.pooler(x)).collect();
            }
            _ => {}
        }
        if normalize {
            let squares = vector.iter().fold(0.0, |s, x| s + x * x);
            let length = f32::sqrt(squares).max(1e-12);
            vector.iter_mut().for_each(|x| *x /= length);
        }
    }
    vectors.concat()
}

#[track_caller]
fn assert_bits(what: &str, ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!(a.is_finite(), "{what}: value {i} is {a}");
        assert_eq!(a.to_bits(), b.to_bits(), "{what}: value {i} is {a:e} here, {b:e} there");
    }
}

/// An input that has everything: `tokens` ids, types, and perhaps a mask.
fn compare(spec: &Spec, tokens: usize, mask: Option<&[u8]>) {
    let file = spec.file();
    let model = Model::from_bytes(&file).unwrap();
    let config = &spec.config;
    let ids = ids(config, tokens, spec.seed);
    let mut random = Random::new(spec.seed + 7);
    let types: Vec<u8> = (0..tokens).map(|_| random.below(config.type_vocab_size) as u8).collect();
    let input = Input { input_ids: &ids, token_type_ids: Some(&types), attention_mask: mask };
    let live = |t: usize| mask.is_none_or(|mask| mask[t] != 0);

    let net = Net::new(model);
    let pass = net.forward(&input);

    // All hidden states at once, the attention of each layer, all heads.
    let states = config.num_hidden_layers + 1;
    let mut out: Vec<Vec<f32>> = vec![vec![0.0; tokens * config.hidden_size]; states];
    let mut maps =
        vec![vec![0.0; tokens * tokens * config.num_attention_heads]; config.num_hidden_layers];
    let mut outputs: Vec<Output<'_>> = Vec::new();
    for (state, out) in out.iter_mut().enumerate() {
        outputs.push(Output::Features {
            layers: Layers::one(state as i16),
            pooling: Pooling::None,
            normalize: false,
            out,
        });
    }
    for (layer, out) in maps.iter_mut().enumerate() {
        outputs.push(Output::Attention { layer, out });
    }
    run(model, Isa::detect(), 1, &input, &mut outputs).unwrap();
    for (state, (ours, theirs)) in pass.states.iter().zip(&out).enumerate() {
        assert_bits(&format!("state {state}, {spec:?}"), &ours.concat(), theirs);
    }
    for (layer, (ours, theirs)) in pass.maps.iter().zip(&maps).enumerate() {
        assert_bits(&format!("map {layer}, {spec:?}"), ours, theirs);
    }

    let last = pass.states.last().unwrap();
    if spec.heads {
        for head in [Head::TokenClassifier, Head::QuestionAnswering] {
            let matrix = net.matrix(head.section(), 0);
            let ours: Vec<f32> = last.iter().flat_map(|x| matrix.apply(x)).collect();
            compare_head(&model, &input, head, &ours);
        }
        for head in [Head::SequenceClassifier, Head::NextSentence] {
            let ours = net.matrix(head.section(), 0).apply(&net.pooler(&last[0]));
            compare_head(&model, &input, head, &ours);
        }
        let positions = [tokens - 1, 0];
        let ours: Vec<f32> = positions.iter().flat_map(|p| net.masked_lm(&last[*p])).collect();
        let mut theirs = vec![0.0; ours.len()];
        let mut output = [Output::MaskedLm { positions: &positions, out: &mut theirs }];
        run(model, Isa::detect(), 1, &input, &mut output).unwrap();
        assert_bits("masked LM", &ours, &theirs);
    }

    let top = config.num_hidden_layers;
    let selections: [(&str, Combine, Part); 5] = [
        ("last", Combine::Concat, vec![(top, 1.0)]),
        ("concat:-1,0", Combine::Concat, vec![(top, 1.0), (0, 1.0)]),
        ("sum:all", Combine::Sum, (1..=top).map(|s| (s, 1.0)).collect()),
        ("mean:-1,1,0", Combine::Mean, vec![(top, 1.0), (1, 1.0), (0, 1.0)]),
        ("weighted:1=0.3,0=-1.7,1=0.1", Combine::Sum, vec![(1, 0.3), (0, -1.7), (1, 0.1)]),
    ];
    for (text, combine, picks) in &selections {
        for (name, pooling) in Pooling::NAMES {
            if pooling == Pooling::Pooler && !spec.heads {
                continue;
            }
            for normalize in [false, true] {
                let layers: Layers = text.parse().unwrap();
                let ours = features(&net, &pass, &live, *combine, picks, pooling, normalize);
                let length = features_len(config, tokens, &layers, pooling).unwrap();
                let mut theirs = vec![f32::NAN; length];
                let output = Output::Features { layers, pooling, normalize, out: &mut theirs };
                run(model, Isa::detect(), 1, &input, &mut [output]).unwrap();
                assert_bits(&format!("{text} {name} {normalize} {spec:?}"), &ours, &theirs);
            }
        }
    }
}

fn compare_head(model: &Model<'_>, input: &Input<'_>, head: Head, ours: &[f32]) {
    let mut theirs = vec![0.0; ours.len()];
    let mut output = [Output::Logits { head, out: &mut theirs }];
    run(*model, Isa::detect(), 1, input, &mut output).unwrap();
    assert_bits(&format!("{head:?}"), ours, &theirs);
}

fn small(encoding: Encoding, activation: Activation) -> Spec {
    let mut spec = Spec::new(SMALL, encoding);
    spec.config.hidden_act = activation;
    spec
}

const ENCODINGS: [Encoding; 3] = [Encoding::Int8, Encoding::F16, Encoding::F32];

#[test]
fn every_activation_in_every_encoding() {
    for encoding in ENCODINGS {
        for activation in ACTIVATIONS {
            compare(&small(encoding, activation), 21, None);
        }
    }
}

#[test]
fn masks() {
    for encoding in ENCODINGS {
        let mut random = Random::new(3);
        let mut mask: Vec<u8> = (0..37).map(|_| random.below(3).min(1) as u8).collect();
        compare(&small(encoding, Activation::Gelu), 37, Some(&mask));
        mask.fill(0);
        mask[36] = 1;
        compare(&small(encoding, Activation::Gelu), 37, Some(&mask));
    }
}

#[test]
fn odd_shapes() {
    for encoding in ENCODINGS {
        let mut spec = small(encoding, Activation::Gelu);
        spec.decoder = true;
        spec.config.hidden_size = 20;
        spec.config.num_attention_heads = 2;
        spec.config.intermediate_size = 33;
        spec.config.type_vocab_size = 3;
        for tokens in [1, 2, 16, 17, 33] {
            compare(&spec, tokens, None);
        }
    }
}

#[test]
fn long_inputs() {
    for encoding in ENCODINGS {
        let mut spec = small(encoding, Activation::Gelu);
        spec.heads = false;
        spec.config.hidden_size = 20;
        spec.config.num_attention_heads = 2;
        spec.config.max_position_embeddings = 1100;
        let mut mask = vec![1; 1100];
        mask[500..540].fill(0);
        compare(&spec, 1100, None);
        compare(&spec, 530, Some(&mask[..530]));
    }
}

#[test]
fn random_shapes() {
    for seed in 0..25 {
        let spec = Spec::random(seed);
        let tokens = 1 + seed as usize * 7 % spec.config.max_position_embeddings;
        compare(&spec, tokens, None);
    }
}

/// Rows of zeros: a scale of zero, and a softmax over equal scores.
#[test]
fn rows_of_zeros() {
    for encoding in ENCODINGS {
        let spec = small(encoding, Activation::Gelu);
        let mut file = spec.file();
        let zero: Vec<_> = Model::from_bytes(&file)
            .unwrap()
            .sections()
            .filter(|s| matches!(s.kind, SectionKind::EmbeddingsNorm | SectionKind::QueryKeyValue))
            .map(|s| s.offset..s.offset + s.length)
            .collect();
        zero.into_iter().for_each(|range| file[range].fill(0));
        let model = Model::from_bytes(&file).unwrap();
        let ids = ids(&spec.config, 20, 1);
        let input = Input::new(&ids);
        let ours = Net::new(model).forward(&input).states.pop().unwrap().concat();
        let mut theirs = vec![0.0; ours.len()];
        let output = Output::Features {
            layers: Layers::LAST,
            pooling: Pooling::None,
            normalize: false,
            out: &mut theirs,
        };
        run(model, Isa::detect(), 1, &input, &mut [output]).unwrap();
        assert_eq!(bits(&ours), bits(&theirs));
    }
}

/// The fields that do not change the arithmetic: the limit of texts, the activation, the prompts.
#[test]
fn what_a_file_states_of_texts_stands_where_the_page_says() {
    let spec = small(Encoding::F32, Activation::Gelu);
    let defaults = Defaults {
        pooling: Pooling::Mean,
        normalize: false,
        problem_type: ProblemType::SingleLabel,
        labels: spec.labels,
        max_tokens: 31,
        score_activation: ScoreActivation::Sigmoid,
    };
    let prompts = [("query", "search: "), ("\u{e9}", "")];
    let prompts = prompts.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let mut writer = spec.writer_with(defaults);
    writer.prompts(&prompts, Some(1));
    let file = writer.to_vec();
    let number = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!((number(88), number(92)), (31, 2));
    assert!(file[96..128].iter().all(|byte| *byte == 0));
    let entry = (0..number(12)).map(|i| 128 + 64 * i).find(|entry| number(*entry) == 68).unwrap();
    let (start, length) = (number(entry + 32), number(entry + 40));
    let count = number(start);
    assert_eq!((count, number(start + 4)), (2, 1));
    let text = start + 8 + 4 * (2 * count + 1);
    let part = |i: usize| {
        let offset = |i: usize| text + number(start + 8 + 4 * i);
        assert!(offset(i + 1) <= start + length);
        std::str::from_utf8(&file[offset(i)..offset(i + 1)]).unwrap()
    };
    assert_eq!([part(0), part(1), part(2), part(3)], ["query", "search: ", "\u{e9}", ""]);
    let file = Aligned::new(&file);
    let model = Model::from_bytes(&file).unwrap();
    assert_eq!(model.max_tokens(), 31);
    assert_eq!(model.score_activation(), ScoreActivation::Sigmoid);
    assert_eq!(model.prompts().default_prompt().unwrap().name, "\u{e9}");
}

/// The constants of the page are those of the code: a few known answers of the functions.
#[test]
fn the_page_names_the_constants() {
    assert_eq!(LOG2_E, std::f32::consts::LOG2_E);
    assert_eq!(2.0 * LOG2_E, f32::from_bits(0x4038_aa3b));
    assert_eq!(0.08f32, 2.0 / 25.0);
    let aligned = Aligned::new(&[1, 2, 3]);
    assert_eq!(aligned.as_ptr().align_offset(64), 0);
}
