//! Scratch.
use bertlet::format::Encoding;
use bertlet::*;
use bertlet_convert::*;
use std::path::Path;
fn main() {
    let dir = std::env::args().nth(1).unwrap();
    let golden = std::env::args().nth(2).unwrap();
    let what = std::env::args().nth(3).unwrap();
    let s =
        source::open(Path::new(&dir), source::Options { allow_missing_vocabulary: true }).unwrap();
    let (bert, _) = names::load(&s, true).unwrap();
    let n = bert
        .heads
        .token_classifier
        .as_ref()
        .or(bert.heads.sequence_classifier.as_ref().map(|x| &x.0))
        .map_or(0, |l| l.bias.len());
    let extras = pack::Extras { labels: s.config.labels(n), ..Default::default() };
    let w = match what.as_str() {
        "f32" => pack::float(&bert, Encoding::F32, &extras),
        "f16" => pack::float(&bert, Encoding::F16, &extras),
        _ => {
            let tk = s.tokenizer.as_ref().unwrap();
            let _ = tk;
            let mut o =
                quantize::Options { words: quantize::WordFormat::Int8(64), ..Default::default() };
            let h = bert.config.hidden / bert.config.heads;
            if h % 16 == 0 && bert.config.heads % 4 == 0 {
                o.rotations[1] = Some(quantize::Rotation { block: 4, stride: h });
            }
            if bert.config.intermediate % 512 == 0 {
                o.rotations[3] = Some(quantize::Rotation { block: 32, stride: 16 });
            }
            let batch: Vec<_> = (0..40u32)
                .map(|i| {
                    reference::Sequence::single(
                        (0..60u32)
                            .map(|j| (i * 7919 + j * j * 31) % bert.config.vocab as u32)
                            .collect(),
                    )
                })
                .collect();
            let t = std::time::Instant::now();
            let q = quantize::quantize(&bert, &batch, &o, &mut |_, _| {});
            eprintln!("quantize {:?}", t.elapsed());
            pack::int8(&q, &extras)
        }
    };
    let out = std::path::PathBuf::from(std::env::args().nth(4).unwrap());
    w.save(&out).unwrap();
    let bytes = w.to_vec();
    let mut words = vec![kernels::F32x16::ZERO; bytes.len() / 64];
    for (f, b) in kernels::flat_mut(&mut words).iter_mut().zip(bytes.chunks(4)) {
        *f = f32::from_bits(u32::from_le_bytes(b.try_into().unwrap()));
    }
    #[allow(unsafe_code, clippy::undocumented_unsafe_blocks)]
    let aligned = unsafe { std::slice::from_raw_parts(words.as_ptr() as *const u8, bytes.len()) };
    let m = Model::from_bytes(aligned).unwrap();
    m.verify().unwrap();
    let g = std::fs::read(golden).unwrap();
    let st = safetensors::SafeTensors::deserialize(&g).unwrap();
    let i32s = |n: &str| -> Option<(Vec<usize>, Vec<i32>)> {
        st.tensor(n).ok().map(|t| {
            (
                t.shape().to_vec(),
                t.data().chunks(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect(),
            )
        })
    };
    let f32s = |n: &str| -> Option<Vec<f32>> {
        st.tensor(n).ok().map(|t| {
            t.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        })
    };
    for (isa, ok) in Isa::all() {
        if !ok {
            continue;
        }
        let isa = Isa::named(isa).unwrap();
        let mut scratch = vec![0u8; m.config().scratch_len(m.config().positions)];
        let mut worst = 0f32;
        let (mut num, mut den) = (0f64, 0f64);
        let mut hash = 0u64;
        let mut cosmin = 1f64;
        let t0 = std::time::Instant::now();
        for name in st.names().iter().filter(|n| n.ends_with(".input_ids")) {
            let p = name.strip_suffix(".input_ids").unwrap();
            let (shape, ids) = i32s(name).unwrap();
            let types = i32s(&format!("{p}.token_type_ids"));
            let mask = i32s(&format!("{p}.attention_mask"));
            for b in 0..shape[0] {
                let len = mask.as_ref().map_or(shape[1], |(_, m)| {
                    m[b * shape[1]..][..shape[1]].iter().sum::<i32>() as usize
                });
                let row: Vec<u32> = ids[b * shape[1]..][..len].iter().map(|x| *x as u32).collect();
                let ty: Option<Vec<u8>> = types
                    .as_ref()
                    .map(|(_, t)| t[b * shape[1]..][..len].iter().map(|x| *x as u8).collect());
                for layer in 0..=m.config().layers {
                    let Some(h) = f32s(&format!("{p}.hidden_states.{layer}")) else { continue };
                    let hd = m.config().hidden;
                    let mut out = vec![0f32; len * hd];
                    let mut e = Encoder::new(m, isa, &mut scratch, len).unwrap();
                    e.encode(
                        &Input { ids: &row, type_ids: ty.as_deref(), mask: None },
                        &mut [Output::Features {
                            layers: Layers::one(layer as i16),
                            pooling: Pooling::None,
                            normalize: false,
                            out: &mut out,
                        }],
                    )
                    .unwrap();
                    let h = &h[b * shape[1] * hd..][..len * hd];
                    for (x, y) in out.iter().zip(h) {
                        worst = worst.max((x - y).abs());
                        hash = hash.wrapping_mul(31).wrapping_add(x.to_bits() as u64);
                        if layer == m.config().layers {
                            num += ((x - y) as f64).powi(2);
                            den += (*y as f64).powi(2);
                        }
                    }
                    if layer == m.config().layers {
                        let mean = |v: &[f32]| -> Vec<f64> {
                            (0..hd)
                                .map(|i| v.chunks(hd).map(|r| r[i] as f64).sum::<f64>())
                                .collect()
                        };
                        let (a, b) = (mean(&out), mean(h));
                        let dot =
                            |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
                        cosmin = cosmin.min(dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt());
                    }
                }
            }
        }
        println!(
            "{} worst {worst:e} rel {:.5} cosmin {cosmin:.5} hash {hash:x} {:?}",
            isa.name(),
            (num / den).sqrt(),
            t0.elapsed()
        );
    }
}
