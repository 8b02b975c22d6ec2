//! One number for all outputs of some models, which is the same on every machine. `.ci/aarch64` compares
//! those that it prints on the host and in an emulator.

#[path = "common/models.rs"]
mod common;

use bertlet::format::writer::xxh64;
use bertlet::format::{Activation, Attention, Encoding};
use bertlet::{Config, Head, Input, Isa, Layers, Model, Output, Pooling, features_len};

use common::{Spec, ids, run};

/// The shape of all-MiniLM-L6-v2, with fewer words and positions.
const MINILM: Config = Config {
    hidden_size: 384,
    num_hidden_layers: 6,
    num_attention_heads: 12,
    intermediate_size: 1536,
    vocab_size: 100,
    max_position_embeddings: 64,
    type_vocab_size: 2,
    layer_norm_eps: 1e-12,
    hidden_act: Activation::Gelu,
    attention: Attention::Integer,
};

fn minilm() -> Spec {
    Spec { heads: false, ..Spec::new(MINILM, Encoding::Int8) }
}

/// The hidden states, the attention maps of layer 0, and where there are heads, logits for each token.
fn outputs(spec: &Spec, model: Model<'_>, isa: Isa, tokens: usize) -> Vec<u8> {
    let ids = ids(&spec.config, tokens, tokens as u64);
    let mut mask = vec![1; tokens];
    mask[tokens / 3] = u8::from(tokens < 3);
    let input = Input { input_ids: &ids, token_type_ids: None, attention_mask: Some(&mask) };
    let layers: Layers = format!("concat:last{}", spec.config.num_hidden_layers).parse().unwrap();
    let length = features_len(&spec.config, tokens, &layers, Pooling::None).unwrap();
    let mut states = vec![f32::NAN; length];
    let mut maps = vec![f32::NAN; spec.config.num_attention_heads * tokens * tokens];
    let mut logits = vec![f32::NAN; if spec.heads { tokens * spec.labels } else { 0 }];
    let features =
        Output::Features { layers, pooling: Pooling::None, normalize: false, out: &mut states };
    let mut wanted = vec![features, Output::Attention { layer: 0, out: &mut maps }];
    if spec.heads {
        wanted.push(Output::Logits { head: Head::TokenClassifier, out: &mut logits });
    }
    run(model, isa, 1, &input, &mut wanted).unwrap();
    drop(wanted);
    let all = [states, maps, logits].concat();
    all.into_iter().flat_map(f32::to_le_bytes).collect()
}

#[test]
fn one_digest_on_every_instruction_set() {
    let encodings = [Encoding::Int8, Encoding::F16, Encoding::F32];
    let small = encodings.map(|encoding| Spec::new(common::SMALL, encoding));
    let random = (0..20).map(|seed| {
        let mut spec = Spec::random(seed);
        spec.config.max_position_embeddings = 64;
        spec
    });
    let sets: Vec<_> = Isa::all().filter_map(|(name, _)| Isa::named(name).ok()).collect();
    let mut all = vec![vec![]; sets.len()];
    for spec in small.into_iter().chain(random).chain([minilm()]) {
        let file = spec.file();
        let model = Model::from_bytes(&file).unwrap();
        for tokens in [1, 9, 16, 40] {
            for (isa, all) in sets.iter().zip(&mut all) {
                all.extend(outputs(&spec, model, *isa, tokens));
            }
        }
    }
    for (isa, all) in sets.iter().zip(&all) {
        println!("digest of {}: {:016x}", isa.name(), xxh64(all));
    }
    assert!(all.iter().all(|other| *other == all[0]), "instruction sets differ");
}

/// Writes the large model to the file that the environment names, for other programs to run.
#[test]
fn the_large_model_is_a_file() {
    let file = minilm().file();
    assert!(Model::from_bytes(&file).is_ok());
    if let Some(path) = std::env::var_os("BERTLET_MODEL_OUT") {
        std::fs::write(path, &*file).unwrap();
    }
}
