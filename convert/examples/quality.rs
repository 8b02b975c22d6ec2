//! Measures int8 quality on a MiniLM checkpoint: `quality MODEL_DIR GOLDEN_DIR OTHER_LINES [name=value ...]`.
//!
//! The golden outputs are for measuring only; nothing is calibrated on them.

use std::collections::BTreeMap;
use std::time::Instant;

use bertlet::tokenizer::Tokenizer;
use bertlet_convert::bert::*;
use bertlet_convert::quantize::{
    self, HadamardRotation, QuantizeOptions, WordFormat, simulate, text,
};
use bertlet_convert::reference::{self, LinearKind, Sequence};
use bertlet_convert::{load, source, tokenizer};
use safetensors::{Dtype, SafeTensors};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (bert, section) = load(&args[0]);
    let tokenizer = Tokenizer::from_bytes(&section).unwrap();
    let golden = golden(&args[1]);
    let held = text::sequences(&tokenizer, text::HELD_OUT, 512).unwrap();
    let held_states = reference::hidden_states(&bert, &held);

    let lines = std::fs::read_to_string(&args[2]).unwrap();
    let other = text::sequences(&tokenizer, &lines, 512).unwrap();
    let other_states = reference::hidden_states(&bert, &other);

    if args.get(3).is_some_and(|a| a == "base") {
        return time_base(&tokenizer);
    }

    // Every group of options, separated by `--`, is one line of the table.
    for group in args[3..].split(|a| a == "--") {
        let mut options = QuantizeOptions::default();
        let mut joined: Vec<usize> = text::JOINED.to_vec();
        let mut quiet = true;
        for arg in group {
            let (name, value) = arg.split_once('=').unwrap();
            let number = || value.parse::<f64>().unwrap();
            match name {
                "gptq" => options.gptq = value == "1",
                "damp" => options.damping = number(),
                "act" => options.by_activation = value == "1",
                "clips" => options.clips = value.split(',').map(|x| x.parse().unwrap()).collect(),
                "bias" => options.correct_bias = value == "1",
                "words" => {
                    options.words = match value {
                        "f16" => WordFormat::F16,
                        group => WordFormat::Int8(group.parse().unwrap()),
                    }
                }
                "rot" => {
                    let parts: Vec<usize> = value.split(',').map(|x| x.parse().unwrap()).collect();
                    options.rotations[parts[0]] =
                        Some(HadamardRotation { block: parts[1], stride: parts[2] });
                }
                "joined" => {
                    joined = value.split(',').filter_map(|x| x.parse().ok()).collect();
                }
                "keep" => {
                    for part in value.split(',') {
                        let (layer, site) = part.split_once(':').unwrap();
                        for l in 0..bert.layers.len() {
                            for s in LinearKind::ALL {
                                if (layer == "*" || layer == l.to_string())
                                    && (site == "*" || site == (s as usize).to_string())
                                {
                                    options.keep.insert((l, s));
                                }
                            }
                        }
                    }
                }
                "cases" => quiet = value != "1",
                _ => panic!("{name}"),
            }
        }
        let batch = text::calibration(&tokenizer, text::CALIBRATION, 512, &joined).unwrap();
        let tokens: usize = batch.iter().map(|s| s.ids.len()).sum();
        let start = Instant::now();
        let quantized = quantize::quantize(&bert, &batch, &options, &mut |_, _| ());
        let time = start.elapsed().as_secs_f64();
        let (mut num, mut den, mut cosines) = (0f64, 0f64, Vec::new());
        let sequences: Vec<Sequence> = golden.iter().map(|c| c.1.clone()).collect();
        let states = simulate::hidden_states(&quantized, &sequences);
        let last = states.last().unwrap();
        for ((name, _, want), span) in golden.iter().zip(reference::spans(&sequences)) {
            let got = &last.data[span.start * last.cols..span.end * last.cols];
            let (n, d) = errors(got, want);
            num += n;
            den += d;
            let cosine = pooled_cosine(got, want, last.cols);
            cosines.push(cosine);
            if !quiet {
                println!("  {name:20} {:4} tokens  {:.4}  {cosine:.5}", span.len(), (n / d).sqrt());
            }
        }
        let last = simulate::hidden_states(&quantized, &other).pop().unwrap();
        let (n, d) = errors(&last.data, &other_states.last().unwrap().data);
        let other = (n / d).sqrt();
        let held_now = simulate::hidden_states(&quantized, &held);
        let layers: Vec<String> = held_states
            .iter()
            .zip(&held_now)
            .map(|(w, g)| {
                let (n, d) = errors(&g.data, &w.data);
                format!("{:.4}", (n / d).sqrt())
            })
            .collect();
        println!(
            "golden {:.5} cos {:.6}/{:.6} other {other:.5} held-out {} tokens {tokens} {time:.1}s | {}",
            (num / den).sqrt(),
            cosines.iter().sum::<f64>() / cosines.len() as f64,
            cosines.iter().fold(1f64, |a, &b| a.min(b)),
            layers.join(" "),
            group.join(" ")
        );
    }
}

/// Time and memory of a model of the shape of BERT-base, with random weights.
fn time_base(tokenizer: &Tokenizer<'_>) {
    let mut state = 1u32;
    let mut matrix = |rows: usize, cols: usize| {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / 8_388_608.0 - 1.0) * 0.035
        };
        Matrix { rows, cols, data: (0..rows * cols).map(|_| next()).collect() }
    };
    let config = Config {
        hidden_size: 768,
        num_hidden_layers: 12,
        num_attention_heads: 12,
        intermediate_size: 3072,
        vocab_size: 30522,
        max_position_embeddings: 512,
        type_vocab_size: 2,
        layer_norm_eps: 1e-12,
        hidden_act: Activation::Gelu,
        attention: Attention::Float,
    };
    let norm = || LayerNorm { weight: vec![1.0; 768], bias: vec![0.0; 768] };
    let mut linear = |rows, cols| Linear { weight: matrix(rows, cols), bias: vec![0.0; rows] };
    let layers = (0..12)
        .map(|_| Layer {
            query: linear(768, 768),
            key: linear(768, 768),
            value: linear(768, 768),
            attention_output: linear(768, 768),
            attention_norm: norm(),
            intermediate: linear(3072, 768),
            output: linear(768, 3072),
            output_norm: norm(),
        })
        .collect();
    let embeddings = Embeddings {
        word: matrix(30522, 768),
        position: matrix(512, 768),
        token_type: matrix(2, 768),
        norm: norm(),
    };
    let bert = Bert { config, embeddings, layers, pooler: None, heads: TaskHeads::default() };
    let batch = text::calibration(tokenizer, text::CALIBRATION, 512, &text::JOINED).unwrap();
    let start = Instant::now();
    quantize::quantize(&bert, &batch, &QuantizeOptions::default(), &mut |done, total| {
        println!("{done}/{total} {:.1} s", start.elapsed().as_secs_f64());
    });
}

fn errors(got: &[f32], want: &[f32]) -> (f64, f64) {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let num = got.iter().zip(want).map(|(g, w)| square(g - w)).sum();
    (num, want.iter().map(|&w| square(w)).sum())
}

fn pooled_cosine(a: &[f32], b: &[f32], cols: usize) -> f64 {
    let pool = |x: &[f32]| {
        let mut sum = vec![0f64; cols];
        for row in x.chunks_exact(cols) {
            sum.iter_mut().zip(row).for_each(|(s, &x)| *s += f64::from(x));
        }
        sum
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let (a, b) = (pool(a), pool(b));
    dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
}

fn floats(tensors: &SafeTensors, name: &str) -> (Vec<usize>, Vec<f32>) {
    let tensor = tensors.tensor(name).unwrap();
    assert_eq!(tensor.dtype(), Dtype::F32);
    let read = |b: &[u8]| f32::from_le_bytes(b.try_into().unwrap());
    (tensor.shape().to_vec(), tensor.data().chunks_exact(4).map(read).collect())
}

fn golden(dir: &str) -> Vec<(String, Sequence, Vec<f32>)> {
    let bytes = std::fs::read(format!("{dir}/outputs.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let ints = |name: &str| {
        tensors.tensor(name).ok().map(|t| {
            let read = |b: &[u8]| i32::from_le_bytes(b.try_into().unwrap()) as u32;
            t.data().chunks_exact(4).map(read).collect::<Vec<u32>>()
        })
    };
    let mut cases = BTreeMap::new();
    for name in tensors.names() {
        let Some(case) = name.strip_suffix(".input_ids") else { continue };
        let shape = tensors.tensor(name).unwrap().shape().to_vec();
        let ids = ints(name).unwrap();
        let types = ints(&format!("{case}.token_type_ids")).unwrap_or(vec![0; ids.len()]);
        let mask = ints(&format!("{case}.attention_mask")).unwrap_or(vec![1; ids.len()]);
        let (_, hidden) = floats(&tensors, &format!("{case}.hidden_states.6"));
        for b in 0..shape[0] {
            let at = b * shape[1];
            let length = mask[at..at + shape[1]].iter().sum::<u32>() as usize;
            let sequence = Sequence {
                ids: ids[at..at + length].to_vec(),
                types: types[at..at + length].to_vec(),
            };
            let hidden = hidden[at * 384..(at + length) * 384].to_vec();
            cases.insert(format!("{case}.{b}"), (sequence, hidden));
        }
    }
    cases.into_iter().map(|(name, (sequence, hidden))| (name, sequence, hidden)).collect()
}

/// The model and the section of its tokenizer.
fn load(dir: &str) -> (Bert, Vec<u8>) {
    let source = source::open(dir.as_ref(), source::OpenOptions::default()).unwrap();
    let (bert, _) = load::bert(&source, false).unwrap();
    (bert, tokenizer::section(&source).unwrap().unwrap().bytes)
}
