//! Bytes as they come, or changes to a small valid file.
#![no_main]

#[path = "../../common/mod.rs"]
mod common;
mod support;

use std::sync::OnceLock;

use bertlet::format::field;
use bertlet::{Encoder, Input, Isa, Kind, Layers, Model, Output, Pooling, features_len};
use common::{Aligned, Spec, mend_checksum};

/// Scratch that a run may take.
const MOST_SCRATCH: usize = 16 << 20;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else { return };
    if mode % 8 == 7 {
        try_file(&Aligned::new(data));
        return;
    }
    let files = files();
    let mut bytes = files[usize::from(mode / 8) % files.len()].clone();
    let (changes, text) = data.split_at(data.len() / 8 * 8);
    support::change(&mut bytes, changes);
    if mode % 2 == 0 && bytes.len() > 128 {
        let length = bytes.len() as u64;
        bytes[field::FILE_LENGTH..][..8].copy_from_slice(&length.to_le_bytes());
        mend_checksum(&mut bytes);
    }
    let file = Aligned::new(&bytes);
    try_file(&file);
    if let Ok(model) = Model::from_bytes(&file)
        && let Some(section) = model.tokenizer_bytes()
    {
        support::tokenize(section, text);
    }
});

/// Small files of all sorts, each with a tokenizer.
fn files() -> &'static [Vec<u8>] {
    static FILES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    FILES.get_or_init(|| {
        (0..16)
            .map(|seed| {
                let mut spec = Spec::random(seed);
                spec.config.intermediate = spec.config.intermediate.min(40);
                spec.config.layers = spec.config.layers.min(2);
                spec.tokenizer = support::section();
                let mut writer = spec.writer();
                if seed == 0 {
                    writer.bytes(Kind::SelfTest, vec![1, 2, 3]);
                }
                writer.to_vec()
            })
            .collect()
    })
}

fn try_file(bytes: &[u8]) {
    let model = match Model::from_bytes(bytes) {
        Ok(model) => model,
        Err(error) => {
            let _ = error.to_string();
            return;
        }
    };
    let _ = model.verify();
    let _ = (model.labels().iter().map(str::len).sum::<usize>(), model.labels().get(usize::MAX));
    let _ = (model.provenance(), model.tokenizer_bytes(), format!("{model:?}"));
    let config = *model.config();
    let tokens = config.positions.min(19);
    if config.multiply_adds(tokens) > 100_000_000 || config.scratch_len(tokens) > MOST_SCRATCH {
        return;
    }
    let mut scratch = vec![0; config.scratch_len(tokens)];
    let ids: Vec<u32> = (0..tokens).map(|t| (t * 7 % config.vocab) as u32).collect();
    let types: Vec<u8> = (0..tokens).map(|t| (t % config.token_types) as u8).collect();
    let mask: Vec<u8> = (0..tokens).map(|t| u8::from(t % 3 != 1)).collect();
    let input = Input { ids: &ids, type_ids: Some(&types), mask: Some(&mask) };
    for isa in [Isa::portable(), Isa::detect()] {
        let mut encoder =
            Encoder::new(model, isa, &mut scratch, tokens).expect("scratch_len says how much");
        for text in ["last", "mean:-1,0", "concat:-1,0"] {
            let layers: Layers = text.parse().expect("a selection");
            for (_, pooling) in Pooling::NAMES {
                let length = features_len(&config, tokens, &layers, pooling).expect("they exist");
                let mut out = vec![0.0; length];
                let output = Output::Features { layers, pooling, normalize: true, out: &mut out };
                let _ = encoder.encode(&input, &mut [output]);
            }
        }
        for section in model.sections() {
            for rows in [1, tokens] {
                let mut out = vec![0.0; rows * section.rows.min(1 << 16)];
                let output = Output::Logits { head: section.kind, out: &mut out };
                let _ = encoder.encode(&input, &mut [output]);
            }
        }
        let mut out = vec![0.0; config.vocab.min(1 << 16)];
        let output = Output::MaskedLm { positions: &[tokens - 1], out: &mut out };
        let _ = encoder.encode(&input, &mut [output]);
        let mut out = vec![0.0; tokens * tokens * config.heads];
        let output = Output::Attention { layer: 0, out: &mut out };
        let _ = encoder.encode(&input, &mut [output]);
    }
}
