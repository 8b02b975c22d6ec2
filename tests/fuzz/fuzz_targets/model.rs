//! Bytes as they come, or changes to a small valid file.
#![no_main]

#[path = "../../common/models.rs"]
mod common;
mod support;

use std::sync::OnceLock;

use bertlet::{
    Encoder, Head, Input, Isa, Layers, Model, Output, Pooling, RunError, SectionKind, features_len,
};
use common::{Aligned, Spec, field, fix_checksum};

/// Scratch that a run may take.
const MOST_SCRATCH: usize = 16 << 20;
/// Multiply-adds that a run may take.
const MOST_WORK: u64 = 4_000_000;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else { return };
    if mode % 8 == 7 {
        try_file(&Aligned::new(data), Isa::detect());
        return;
    }
    let files = files();
    let mut bytes = files[usize::from(mode / 8) % files.len()].clone();
    let (changes, text) = data.split_at(data.len() / 8 * 8);
    support::change(&mut bytes, changes);
    if mode % 2 == 0 && bytes.len() > 128 {
        let length = bytes.len() as u64;
        bytes[field::FILE_LENGTH..][..8].copy_from_slice(&length.to_le_bytes());
        fix_checksum(&mut bytes);
    }
    let file = Aligned::new(&bytes);
    // The portable kernels are slow.
    try_file(&file, if mode % 16 == 1 { Isa::portable() } else { Isa::detect() });
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
                spec.config.intermediate_size = spec.config.intermediate_size.min(40);
                spec.config.num_hidden_layers = spec.config.num_hidden_layers.min(2);
                let head_size = spec.config.head_size().min(20);
                spec.config.hidden_size = spec.config.num_attention_heads * head_size;
                spec.tokenizer = support::section();
                let mut writer = spec.writer();
                if seed == 0 {
                    writer.bytes(SectionKind::SelfTest, vec![1, 2, 3]);
                }
                writer.to_vec()
            })
            .collect()
    })
}

fn try_file(bytes: &[u8], isa: Isa) {
    let model = match Model::from_bytes(bytes) {
        Ok(model) => model,
        Err(error) => {
            let _ = error.to_string();
            return;
        }
    };
    let _ = model.verify();
    let _ = (model.prompts().iter().count(), model.prompts().default_prompt());
    let _ = (model.labels().iter().map(str::len).sum::<usize>(), model.labels().get(usize::MAX));
    let _ = (model.provenance(), model.tokenizer_bytes(), format!("{model:?}"));
    let config = *model.config();
    let tokens = config.max_position_embeddings.min(19);
    if config.multiply_adds(tokens) > MOST_WORK || config.scratch_len(tokens) > MOST_SCRATCH {
        return;
    }
    let mut scratch = vec![0; config.scratch_len(tokens)];
    let ids: Vec<u32> = (0..tokens).map(|t| (t * 7 % config.vocab_size) as u32).collect();
    let types: Vec<u8> = (0..tokens).map(|t| (t % config.type_vocab_size) as u8).collect();
    let mask: Vec<u8> = (0..tokens).map(|t| u8::from(t % 3 != 1)).collect();
    let input =
        Input { input_ids: &ids, token_type_ids: Some(&types), attention_mask: Some(&mask) };
    let mut encoder =
        Encoder::new(model, isa, &mut scratch, tokens).expect("scratch_len says how much");

    // Everything that the model has, in one pass.
    let layers: Layers = "concat:-1,0".parse().expect("a selection");
    let mut wanted: Vec<(Option<Head>, Pooling, usize)> = Vec::new();
    for (_, pooling) in Pooling::NAMES {
        if pooling != Pooling::Pooler || model.section(SectionKind::Pooler).is_some() {
            let length = features_len(&config, tokens, &layers, pooling).expect("they exist");
            wanted.push((None, pooling, length));
        }
    }
    for head in Head::ALL {
        if let Some(length) = head.logits_len(&model, tokens) {
            wanted.push((Some(head), Pooling::None, length));
        }
    }
    let mut out: Vec<Vec<f32>> = wanted.iter().map(|(_, _, length)| vec![0.0; *length]).collect();
    let mut outputs: Vec<Output<'_>> = Vec::new();
    for ((head, pooling, _), out) in wanted.iter().zip(&mut out) {
        outputs.push(match head {
            Some(head) => Output::Logits { head: *head, out },
            None => Output::Features { layers, pooling: *pooling, normalize: true, out },
        });
    }
    let mut map = vec![0.0; tokens * tokens * config.num_attention_heads];
    outputs.push(Output::Attention { layer: 0, out: &mut map });
    let (mut words, positions) = (vec![0.0; config.vocab_size], [tokens - 1]);
    if model.section(SectionKind::MaskedLmTransform).is_some() {
        outputs.push(Output::MaskedLm { positions: &positions, out: &mut words });
    }
    // Nothing is asked that is not there.
    let answer = encoder.encode(&input, &mut outputs);
    assert!(matches!(answer, Ok(()) | Err(RunError::NotFinite(_))), "{answer:?}");
}
