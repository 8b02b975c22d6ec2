//! Any number of threads gives the same bits as one thread.

#[path = "common/checkpoints.rs"]
mod common;

use bertlet::{Input, Layers, Model, ModelFile, Output, Pooling, Session};
use common::{Folder, Weights, ids};

/// The last hidden state and the attention of the first layer, as bits.
fn bits(model: Model<'_>, threads: usize, input: &Input<'_>) -> Vec<u32> {
    let config = model.config();
    let tokens = input.input_ids.len();
    let mut states = vec![0.0; tokens * config.hidden_size];
    let mut map = vec![0.0; tokens * tokens * config.num_attention_heads];
    let features = Output::Features {
        layers: Layers::LAST,
        pooling: Pooling::None,
        normalize: false,
        out: &mut states,
    };
    let attention = Output::Attention { layer: 0, out: &mut map };
    let mut session = Session::new(model).with_threads(threads).unwrap();
    session.encode(input, &mut [features, attention]).unwrap();
    states.iter().chain(&map).map(|x| x.to_bits()).collect()
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let folder = Folder::new("threads");
    for (name, weights) in [
        ("micro", Weights::F32),
        ("micro-odd", Weights::F32),
        ("micro", Weights::Int8),
        ("tiny-sst2", Weights::Int8),
    ] {
        let file = ModelFile::open(folder.model(name, weights)).unwrap();
        let model = file.model();
        let limit = model.config().max_position_embeddings;
        for tokens in [1, 2, 16, 17, 33, 48, 63, 64, 100, 128] {
            if tokens > limit {
                continue;
            }
            let ids = ids(tokens, model.config().vocab_size);
            let mask: Vec<u8> = (0..tokens).map(|t| u8::from(t % 5 != 3)).collect();
            for mask in [None, Some(&mask[..])] {
                let input = Input { input_ids: &ids, token_type_ids: None, attention_mask: mask };
                let one = bits(model, 1, &input);
                for threads in [2, 3, 4, 7] {
                    let equal = bits(model, threads, &input) == one;
                    assert!(equal, "{name} {weights:?}, {tokens} tokens, {threads} threads");
                }
            }
        }
    }
}
