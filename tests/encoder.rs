//! What holds for every model and input: the bits do not depend on how the work is divided, and outputs
//! are what their names say.

#[path = "common/models.rs"]
mod common;

use bertlet::format::Encoding;
use bertlet::{
    Config, Encoder, Head, Input, Isa, Layers, Model, Output, Pooling, RunError, SectionKind,
    features_len,
};

use common::{Aligned, Random, SMALL, Spec, Threads, bits, ids, instruction_sets, run};

const ENCODINGS: [Encoding; 3] = [Encoding::Int8, Encoding::F16, Encoding::F32];

fn files() -> Vec<(Spec, Aligned)> {
    let known = ENCODINGS.map(|encoding| Spec::new(SMALL, encoding));
    let random = (100..112).map(|seed| {
        let mut spec = Spec::random(seed);
        spec.heads = true;
        spec.config.max_position_embeddings = 70;
        spec
    });
    known.into_iter().chain(random).map(|spec| (spec, spec.file())).collect()
}

fn features<'o>(layers: &str, pooling: Pooling, out: &'o mut [f32]) -> Output<'o> {
    Output::Features { layers: layers.parse().unwrap(), pooling, normalize: false, out }
}

/// All outputs of a pass, as bits, one list per output.
fn everything(
    input: &Input<'_>,
    config: &Config,
    labels: usize,
    mut encode: impl FnMut(&mut [Output<'_>]) -> Result<(), RunError>,
) -> Vec<Vec<u32>> {
    let tokens = input.input_ids.len();
    let layers = Layers::LAST;
    let mut out = Vec::new();
    for (_, pooling) in Pooling::NAMES {
        out.push(vec![f32::NAN; features_len(config, tokens, &layers, pooling).unwrap()]);
    }
    let heads = [
        (Head::TokenClassifier, tokens * labels),
        (Head::SequenceClassifier, labels),
        (Head::NextSentence, 2),
        (Head::QuestionAnswering, 2 * tokens),
    ];
    out.extend(heads.iter().map(|(_, length)| vec![f32::NAN; *length]));
    let positions = [tokens / 2];
    out.push(vec![f32::NAN; config.vocab_size]);
    let layers_from = out.len();
    for _ in 0..config.num_hidden_layers {
        out.push(vec![f32::NAN; tokens * tokens * config.num_attention_heads]);
    }
    let mut outputs = Vec::new();
    for (i, out) in out.iter_mut().enumerate() {
        outputs.push(match i {
            0..8 => Output::Features { layers, pooling: Pooling::NAMES[i].1, normalize: true, out },
            8..12 => Output::Logits { head: heads[i - 8].0, out },
            12 => Output::MaskedLm { positions: &positions, out },
            _ => Output::Attention { layer: i - layers_from, out },
        });
    }
    encode(&mut outputs).unwrap();
    drop(outputs);
    assert!(out.iter().flatten().all(|v| v.is_finite()));
    out.iter().map(|out| bits(out)).collect()
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    let sets = instruction_sets();
    for (spec, file) in files() {
        let model = Model::from_bytes(&file).unwrap();
        for tokens in [1, 5, 16, 33, 70] {
            let ids = ids(&spec.config, tokens, 1);
            let mut mask = vec![1; tokens];
            mask[tokens / 3] = u8::from(tokens < 3);
            for mask in [None, Some(&mask[..])] {
                let input = Input { input_ids: &ids, token_type_ids: None, attention_mask: mask };
                let on = |isa| {
                    everything(&input, &spec.config, spec.labels, |outputs| {
                        run(model, isa, 1, &input, outputs)
                    })
                };
                let portable = on(Isa::portable());
                for isa in &sets {
                    assert!(on(*isa) == portable, "{} {spec:?} {tokens}", isa.name());
                }
            }
        }
    }
}

#[test]
fn threads_do_not_change_bits() {
    for (spec, file) in files() {
        let model = Model::from_bytes(&file).unwrap();
        for tokens in [1, 17, 40, 70] {
            let ids = ids(&spec.config, tokens, 2);
            let input = Input::new(&ids);
            let on = |threads| {
                everything(&input, &spec.config, spec.labels, |outputs| {
                    run(model, Isa::detect(), threads, &input, outputs)
                })
            };
            let one = on(1);
            for threads in [2, 3, 5] {
                assert!(on(threads) == one, "{threads} threads, {tokens} tokens, {spec:?}");
            }
        }
    }
}

#[test]
fn earlier_inputs_do_not_change_bits() {
    for (spec, file) in files() {
        let model = Model::from_bytes(&file).unwrap();
        let inputs: Vec<Vec<u32>> =
            [33, 1, 70, 16, 2, 69].iter().map(|n| ids(&spec.config, *n, *n as u64)).collect();
        let alone: Vec<_> = inputs
            .iter()
            .map(|ids| {
                let input = Input::new(ids);
                everything(&input, &spec.config, spec.labels, |outputs| {
                    run(model, Isa::detect(), 1, &input, outputs)
                })
            })
            .collect();
        for threads in [1, 3] {
            let executor = Threads(threads);
            let mut scratch = vec![0x5a; spec.config.scratch_len_threads(70, threads)];
            let mut encoder =
                Encoder::with_executor(model, Isa::detect(), &mut scratch, 70, &executor).unwrap();
            let mut random = Random::new(spec.seed);
            for _ in 0..12 {
                let i = random.below(inputs.len());
                let input = Input::new(&inputs[i]);
                let again = everything(&input, &spec.config, spec.labels, |outputs| {
                    encoder.encode(&input, outputs)
                });
                assert!(again == alone[i], "{spec:?}");
            }
        }
    }
}

#[test]
fn padding_does_not_change_bits() {
    for (spec, file) in files() {
        let model = Model::from_bytes(&file).unwrap();
        let hidden = spec.config.hidden_size;
        for tokens in [1, 7, 16, 31] {
            let real = ids(&spec.config, tokens, 3);
            let states = |input: &Input<'_>| {
                let mut all = vec![f32::NAN; input.input_ids.len() * hidden];
                let mut pooled = vec![vec![f32::NAN; 2 * hidden]; 8];
                let mut outputs = vec![features("last", Pooling::None, &mut all)];
                for ((_, pooling), out) in Pooling::NAMES.iter().zip(&mut pooled).skip(1) {
                    let length = if *pooling == Pooling::MeanMax { 2 * hidden } else { hidden };
                    outputs.push(features("sum:0,-1", *pooling, &mut out[..length]));
                }
                // A pass takes one maximum of a combination at a time.
                let lone = outputs.remove(Pooling::MeanMax as usize);
                run(model, Isa::detect(), 1, input, &mut outputs).unwrap();
                run(model, Isa::detect(), 1, input, &mut [lone]).unwrap();
                (bits(&all[..tokens * hidden]), bits(&pooled[1..].concat()))
            };
            let alone = states(&Input::new(&real));
            for padding in [1, 9, 16, 39] {
                let mut padded = real.clone();
                padded.resize(tokens + padding, 1);
                let mut mask = vec![1; tokens];
                mask.resize(tokens + padding, 0);
                let input =
                    Input { input_ids: &padded, token_type_ids: None, attention_mask: Some(&mask) };
                assert!(states(&input) == alone, "{tokens} + {padding}, {spec:?}");
            }
            // A mask that is nowhere zero changes nothing.
            let mask = vec![255; tokens];
            let input =
                Input { input_ids: &real, token_type_ids: None, attention_mask: Some(&mask) };
            assert!(states(&input) == alone);
        }
    }
}

#[test]
fn stopping_early_gives_the_same_states() {
    for (spec, file) in files() {
        let model = Model::from_bytes(&file).unwrap();
        let ids = ids(&spec.config, 20, 4);
        let length = 20 * spec.config.hidden_size;
        let states = spec.config.num_hidden_layers + 1;
        let mut together = vec![vec![f32::NAN; length]; states];
        let mut outputs: Vec<_> = together
            .iter_mut()
            .enumerate()
            .map(|(state, out)| features(&state.to_string(), Pooling::None, out))
            .collect();
        run(model, Isa::detect(), 1, &Input::new(&ids), &mut outputs).unwrap();
        for (state, expected) in together.iter().enumerate() {
            for text in [state.to_string(), (state as i64 - states as i64).to_string()] {
                let mut alone = vec![f32::NAN; length];
                let mut output = [features(&text, Pooling::None, &mut alone)];
                run(model, Isa::detect(), 1, &Input::new(&ids), &mut output).unwrap();
                assert_eq!(bits(&alone), bits(expected), "{text}");
            }
        }
    }
}

#[test]
fn outputs_of_one_pass_equal_outputs_of_separate_passes() {
    let (spec, file) = files().remove(0);
    let model = Model::from_bytes(&file).unwrap();
    let ids = ids(&spec.config, 40, 5);
    let input = Input::new(&ids);
    let run = |outputs: &mut [Output<'_>]| run(model, Isa::detect(), 1, &input, outputs);
    let together = everything(&input, &spec.config, spec.labels, run);
    let apart = everything(&input, &spec.config, spec.labels, |outputs| {
        outputs.chunks_mut(1).try_for_each(run)
    });
    let backwards = everything(&input, &spec.config, spec.labels, |outputs| {
        outputs.reverse();
        run(outputs)
    });
    assert!(together == apart && together == backwards);
    // The same output, asked for twice.
    let length = 40 * 40 * spec.config.num_attention_heads;
    let (mut a, mut b) = (vec![f32::NAN; length], vec![f32::NAN; length]);
    let mut outputs =
        [Output::Attention { layer: 1, out: &mut a }, Output::Attention { layer: 1, out: &mut b }];
    run(&mut outputs).unwrap();
    assert_eq!(bits(&a), bits(&b));
    assert_eq!(bits(&a), *together.last().unwrap());
}

/// The formula of a selection: from the hidden states, in f64, and a token's index to its features.
type Formula = fn(&[Vec<Vec<f64>>], usize) -> Vec<f64>;

fn scaled(x: &[f64], by: f64) -> Vec<f64> {
    x.iter().map(|x| x * by).collect()
}

fn added(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

#[test]
fn selections_and_poolings_are_their_formulas() {
    let selections: [(&str, Formula); 14] = [
        ("embeddings", |s, t| s[0][t].clone()),
        ("first", |s, t| s[1][t].clone()),
        ("last", |s, t| s[5][t].clone()),
        ("second-to-last", |s, t| s[4][t].clone()),
        ("3", |s, t| s[3][t].clone()),
        ("-6", |s, t| s[0][t].clone()),
        ("sum:last4", |s, t| s[2..].iter().fold(vec![0.0; 48], |a, s| added(&a, &s[t]))),
        ("mean:last4", |s, t| {
            scaled(&s[2..].iter().fold(vec![0.0; 48], |a, s| added(&a, &s[t])), 0.25)
        }),
        ("concat:last4", |s, t| s[2..].iter().flat_map(|s| s[t].clone()).collect()),
        ("sum:all", |s, t| s[1..].iter().fold(vec![0.0; 48], |a, s| added(&a, &s[t]))),
        ("concat:all", |s, t| s[1..].iter().flat_map(|s| s[t].clone()).collect()),
        ("concat:3,-1,0", |s, t| [3, 5, 0].iter().flat_map(|i| s[*i][t].clone()).collect()),
        ("sum:1,2", |s, t| added(&s[1][t], &s[2][t])),
        ("weighted:0=0.1,5=0.4,-2=-1.5", |s, t| {
            let first = added(&scaled(&s[0][t], 0.1), &scaled(&s[5][t], 0.4));
            added(&first, &scaled(&s[4][t], -1.5))
        }),
    ];
    let mut spec = Spec::new(Config { num_hidden_layers: 5, ..SMALL }, Encoding::F32);
    spec.seed = 9;
    let file = spec.file();
    let model = Model::from_bytes(&file).unwrap();
    let tokens = 23;
    let ids = ids(&spec.config, tokens, 6);
    let mut random = Random::new(6);
    let mask: Vec<u8> = (0..tokens).map(|t| u8::from(t == 0 || random.below(4) > 0)).collect();
    for mask in [None, Some(&mask[..])] {
        let input = Input { input_ids: &ids, token_type_ids: None, attention_mask: mask };
        let ask = |text: &str, pooling, normalize| {
            let layers: Layers = text.parse().unwrap();
            let length = features_len(&spec.config, tokens, &layers, pooling).unwrap();
            let mut out = vec![f32::NAN; length];
            let output = Output::Features { layers, pooling, normalize, out: &mut out };
            run(model, Isa::detect(), 1, &input, &mut [output]).unwrap();
            out.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>()
        };
        let states: Vec<Vec<Vec<f64>>> = (0..6)
            .map(|state| {
                let all = ask(&state.to_string(), Pooling::None, false);
                all.chunks(48).map(<[f64]>::to_vec).collect()
            })
            .collect();
        let live: Vec<usize> =
            (0..tokens).filter(|t| mask.is_none_or(|mask| mask[*t] != 0)).collect();
        for (text, formula) in &selections {
            let token = |t: usize| formula(&states, t);
            let sum = live.iter().map(|t| token(*t)).reduce(|a, b| added(&a, &b)).unwrap();
            let mean = scaled(&sum, 1.0 / live.len() as f64);
            let max = |a: Vec<f64>, b: Vec<f64>| a.iter().zip(b).map(|(a, b)| a.max(b)).collect();
            let largest: Vec<f64> = live.iter().map(|t| token(*t)).reduce(max).unwrap();
            for (name, pooling) in Pooling::NAMES {
                let expected: Vec<f64> = match pooling {
                    Pooling::None => (0..tokens).flat_map(token).collect(),
                    Pooling::Cls => token(0),
                    Pooling::Pooler => {
                        token(0).chunks(48).flat_map(|x| pooler(&model, x)).collect()
                    }
                    Pooling::Mean => mean.clone(),
                    Pooling::Max => largest.clone(),
                    Pooling::MeanMax => [mean.clone(), largest.clone()].concat(),
                    Pooling::MeanSqrt => scaled(&sum, 1.0 / (live.len() as f64).sqrt()),
                    _ => token(*live.last().unwrap()),
                };
                let found = ask(text, pooling, false);
                assert_close(&format!("{text} {name}"), &found, &expected);

                let found = ask(text, pooling, true);
                let vectors = if pooling == Pooling::None { tokens } else { 1 };
                let width = expected.len() / vectors;
                for (found, expected) in found.chunks(width).zip(expected.chunks(width)) {
                    let length = expected.iter().map(|x| x * x).sum::<f64>().sqrt();
                    let expected = scaled(expected, 1.0 / length);
                    assert_close(&format!("{text} {name}, normalised"), found, &expected);
                    let length = found.iter().map(|x| x * x).sum::<f64>().sqrt();
                    assert!((length - 1.0).abs() < 1e-5, "{length}");
                }
            }
        }
    }
}

#[track_caller]
fn assert_close(what: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{what}: value {i} is {a}, not {b}");
    }
}

/// Weight `[n][k]` of an f32 matrix, and the bias.
fn weights(
    model: &Model<'_>,
    kind: SectionKind,
    layer: usize,
) -> (impl Fn(usize, usize) -> f64, Vec<f64>) {
    let mut sections = model.sections();
    let section = sections.find(|s| s.kind == kind && s.layer as usize == layer).unwrap();
    assert_eq!(section.encoding, Encoding::F32);
    let bytes = model.section_bytes(section).as_chunks::<4>().0;
    let values: Vec<f64> = bytes.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect();
    let (rows, cols) = (section.rows.next_multiple_of(16), section.cols);
    let bias = values[rows * cols..].to_vec();
    (move |n: usize, k: usize| values[(n / 16 * cols + k) * 16 + n % 16], bias)
}

fn pooler(model: &Model<'_>, x: &[f64]) -> Vec<f64> {
    let (weight, bias) = weights(model, SectionKind::Pooler, 0);
    let sum = |n: usize| x.iter().enumerate().fold(bias[n], |s, (k, x)| s + weight(n, k) * x);
    (0..x.len()).map(|n| sum(n).tanh()).collect()
}

#[test]
fn normalising_a_vector_of_zeros_gives_zeros() {
    // Gamma and beta of the embeddings' norm are zero, so hidden state 0 is zero.
    let (spec, mut file) = files().remove(2);
    let norm = Model::from_bytes(&file).unwrap().sections().nth(3).unwrap();
    file[norm.offset..norm.offset + norm.length].fill(0);
    let model = Model::from_bytes(&file).unwrap();
    let ids = ids(&spec.config, 3, 1);
    let mut out = [f32::NAN; 48];
    let output = Output::Features {
        layers: Layers::one(0),
        pooling: Pooling::Mean,
        normalize: true,
        out: &mut out,
    };
    run(model, Isa::detect(), 1, &Input::new(&ids), &mut [output]).unwrap();
    assert_eq!(out, [0.0; 48]);
}

#[test]
fn attention_is_a_softmax() {
    for (spec, file) in files() {
        let model = Model::from_bytes(&file).unwrap();
        let config = &spec.config;
        let (tokens, heads, size) = (50, config.num_attention_heads, config.head_size());
        let padded = size.next_multiple_of(16);
        let ids = ids(config, tokens, 7);
        let mut random = Random::new(7);
        let mask: Vec<u8> = (0..tokens).map(|t| u8::from(t == 0 || random.below(3) > 0)).collect();
        for mask in [None, Some(&mask[..])] {
            let live = |t: usize| mask.is_none_or(|mask| mask[t] != 0);
            let input = Input { input_ids: &ids, token_type_ids: None, attention_mask: mask };
            for layer in 0..config.num_hidden_layers {
                let mut states = vec![f32::NAN; tokens * config.hidden_size];
                let mut map = vec![f32::NAN; tokens * heads * tokens];
                let mut outputs = [
                    features(&layer.to_string(), Pooling::None, &mut states),
                    Output::Attention { layer, out: &mut map },
                ];
                run(model, Isa::detect(), 2, &input, &mut outputs).unwrap();
                for row in map.chunks(tokens) {
                    let sum: f64 = row.iter().map(|p| f64::from(*p)).sum();
                    assert!((sum - 1.0).abs() < 1e-5, "{sum} {spec:?}");
                    for (t, p) in row.iter().enumerate() {
                        assert!(if live(t) { *p >= 0.0 && *p <= 1.000_001 } else { *p == 0.0 });
                    }
                }
                if spec.matrices != Encoding::F32 {
                    continue;
                }
                let (weight, bias) = weights(&model, SectionKind::QueryKeyValue, layer);
                let rows = 3 * heads * padded;
                let qkv: Vec<Vec<f64>> = states
                    .chunks(config.hidden_size)
                    .map(|x| {
                        let sum = |n: usize| {
                            let x = x.iter().enumerate();
                            x.fold(bias[n], |s, (k, x)| s + weight(n, k) * f64::from(*x))
                        };
                        (0..rows).map(sum).collect()
                    })
                    .collect();
                // Integer attention quantises queries and keys.
                let float = config.attention == bertlet::format::Attention::Float;
                let tolerance = if float { 1e-5 } else { 0.1 };
                for h in 0..heads {
                    for i in 0..tokens {
                        let exp = |j: usize| {
                            let q = &qkv[i][h * padded..][..size];
                            let k = &qkv[j][(heads + h) * padded..][..size];
                            let dot: f64 = q.iter().zip(k).map(|(q, k)| q * k).sum();
                            if live(j) { (dot / (size as f64).sqrt()).exp() } else { 0.0 }
                        };
                        let e: Vec<f64> = (0..tokens).map(exp).collect();
                        let sum: f64 = e.iter().sum();
                        for (j, e) in e.iter().enumerate() {
                            let p = f64::from(map[(i * heads + h) * tokens + j]);
                            assert!((p - e / sum).abs() < tolerance, "{p} {} {spec:?}", e / sum);
                        }
                    }
                }
            }
        }
    }
}
