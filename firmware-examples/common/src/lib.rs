//! What the examples for boards share: the model, the tasks, and what they print.
//!
//! The model is the file that `BERTLET_MODEL` names when this is built. It is used where it lies, in the section
//! `.model`. All memory is `static`.

#![no_std]

use core::fmt::{self, Write};

use bertlet::format::{Activation, Attention};
use bertlet::tasks::{EntityOptions, EntityRecognizer, Features, TextRunner};
use bertlet::tokenizer::TokenBuffer;
use bertlet::{Config, Encoder, Isa, Layers, Model, Pooling, SequenceClassifier};

mod stack;

pub use stack::paint as paint_stack;

/// What a board gives: a console, to which it writes, and a counter.
pub trait Board: Write {
    /// Instructions that ran so far, modulo 2^32.
    fn instructions(&mut self) -> u32;
}

/// Texts of up to as many tokens.
const MAX_TOKENS: usize = 32;

/// The shape of `models/tiny-sst2` and, but for its vocabulary, of `models/tiny-ner`. It is known when this is
/// built, so that the memory is a `static`.
const TINY: Config = Config {
    hidden_size: 128,
    num_hidden_layers: 3,
    num_attention_heads: 4,
    intermediate_size: 512,
    vocab_size: 8000,
    max_position_embeddings: 256,
    type_vocab_size: 2,
    layer_norm_eps: 1e-12,
    hidden_act: Activation::Gelu,
    attention: Attention::Integer,
};

const SCRATCH: usize = TINY.scratch_len(MAX_TOKENS);

#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

/// The model's first byte must be at a multiple of 64.
#[unsafe(link_section = ".model")]
static MODEL: Aligned<[u8; include_bytes!(env!("BERTLET_MODEL")).len()]> =
    Aligned(*include_bytes!(env!("BERTLET_MODEL")));

const SENTENCE: &str = "a warm , funny , engaging film that never quite loses its way .";

/// Gives a `static` array. A task calls this once, and each task has its own.
macro_rules! memory {
    ([$type:ty; $len:expr]) => {{
        static mut MEMORY: Aligned<[$type; $len]> = Aligned([0 as $type; $len]);
        // SAFETY: a program runs one task, once.
        unsafe { &mut (*(&raw mut MEMORY)).0 }
    }};
}

/// Runs the model on texts of up to [`MAX_TOKENS`] tokens.
fn runner<'s>(scratch: &'s mut [u8], ids: &'s mut [u32; MAX_TOKENS]) -> TextRunner<'static, 's> {
    let model = Model::from_bytes(&MODEL.0).unwrap();
    let encoder = Encoder::new(model, Isa::detect(), scratch, MAX_TOKENS).unwrap();
    TextRunner::new(encoder, TokenBuffer { input_ids: ids, ..Default::default() })
}

/// Prints the sentiment of a text, for a model such as `models/tiny-sst2`.
pub fn sentiment(board: &mut impl Board) -> fmt::Result {
    let mut ids = [0; MAX_TOKENS];
    let mut runner = runner(memory!([u8; SCRATCH]), &mut ids);
    let classifier = SequenceClassifier::new(&runner.model()).unwrap();
    let (mut logits, mut window) = ([0.0; 2], [0.0; 2]);

    let start = board.instructions();
    runner.classify(SENTENCE, &mut logits, &mut window).unwrap();
    let end = board.instructions();

    let mut scores = logits;
    classifier.scores(&mut scores);
    let best = usize::from(scores[1] > scores[0]);
    writeln!(board, "text {SENTENCE}")?;
    writeln!(board, "label {} {:.4}", classifier.labels().get(best).unwrap_or("?"), scores[best])?;
    report(board, &logits, end.wrapping_sub(start))
}

/// Prints the names in a text, for a model such as `models/tiny-ner`.
pub fn names(board: &mut impl Board) -> fmt::Result {
    const TEXT: &str = "Ada Lovelace met Charles Babbage in London .";
    let mut ids = [0; MAX_TOKENS];
    let mut runner = runner(memory!([u8; SCRATCH]), &mut ids);
    let mut labels = [Default::default(); 9];
    let recognizer = EntityRecognizer::new(&runner.model(), &mut labels).unwrap();

    let start = board.instructions();
    let tagged = recognizer.tag(&mut runner, TEXT, memory!([u8; 8 << 10])).unwrap();
    let end = board.instructions();

    writeln!(board, "text {TEXT}")?;
    report(board, tagged.logits(), end.wrapping_sub(start))?;
    recognizer.entities(tagged, &EntityOptions::default(), |entity| {
        let (start, end) = (entity.start.byte as usize, entity.end.byte as usize);
        let _ = writeln!(board, "name {} {}", entity.label, &TEXT[start..end]);
    });
    Ok(())
}

/// Computes features of a text, for a model such as `models/tiny-sst2`: the mean over its tokens of the last four
/// hidden states, concatenated.
pub fn features(board: &mut impl Board) -> fmt::Result {
    let mut ids = [0; MAX_TOKENS];
    let runner = runner(memory!([u8; SCRATCH]), &mut ids);
    let layers: Layers = "concat:last4".parse().unwrap();
    let features = Features { layers, pooling: Pooling::Mean, normalize: false };
    embed(board, runner, &features, memory!([f32; 4 * TINY.hidden_size]))
}

/// Computes the vector of a text, as the checkpoint of all-MiniLM-L6-v2 states: the mean of the last hidden state,
/// of length 1.
pub fn embedding(board: &mut impl Board) -> fmt::Result {
    const MINILM: Config = Config {
        hidden_size: 384,
        num_hidden_layers: 6,
        num_attention_heads: 12,
        intermediate_size: 1536,
        vocab_size: 30522,
        max_position_embeddings: 512,
        ..TINY
    };
    let mut ids = [0; MAX_TOKENS];
    let runner = runner(memory!([u8; MINILM.scratch_len(MAX_TOKENS)]), &mut ids);
    let features = Features::of(&runner.model());
    embed(board, runner, &features, memory!([f32; MINILM.hidden_size]))
}

fn embed(
    board: &mut impl Board,
    mut runner: TextRunner<'_, '_>,
    features: &Features,
    vector: &mut [f32],
) -> fmt::Result {
    let start = board.instructions();
    runner.embed(SENTENCE, features, vector, &mut []).unwrap();
    let end = board.instructions();

    writeln!(board, "text {SENTENCE}")?;
    report(board, vector, end.wrapping_sub(start))
}

/// The lines that `run-all` reads. Of more than four values it compares a digest, FNV-1a of their bytes.
fn report(board: &mut impl Board, values: &[f32], instructions: u32) -> fmt::Result {
    write!(board, "logits ")?;
    if values.len() <= 4 {
        for (i, value) in values.iter().enumerate() {
            write!(board, "{}{:08x}", if i == 0 { "" } else { "," }, value.to_bits())?;
        }
    } else {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        let digest = bytes.fold(0xcbf2_9ce4_8422_2325, |digest: u64, byte| {
            (digest ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        write!(board, "{digest:016x}")?;
    }
    writeln!(board, "\nstack {}\ninstructions {instructions}", stack::used())
}
