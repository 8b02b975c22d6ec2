//! Sentiment of a text on a RISC-V core without an operating system, heap or floating-point unit.

#![no_std]
#![no_main]

mod board;

use core::fmt::Write;

use bertlet::format::{Activation, Attention};
use bertlet::tasks::TextRunner;
use bertlet::tokenizer::TokenBuffer;
use bertlet::{Config, Encoder, Isa, Model, SequenceClassifier};
use board::Uart;

const TEXT: &str = "a warm , funny , engaging film that never quite loses its way .";
const MAX_TOKENS: usize = 32;

/// The shape of the model, known when this is built, so that its memory is a `static`.
const CONFIG: Config = Config {
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
const SCRATCH: usize = CONFIG.scratch_len(MAX_TOKENS);
static mut SCRATCH_BYTES: [u8; SCRATCH] = [0; SCRATCH];

#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

/// The model is used where it lies. Its first byte must be at a multiple of 64.
#[unsafe(link_section = ".model")]
static MODEL: Aligned<[u8; include_bytes!(env!("BERTLET_MODEL")).len()]> =
    Aligned(*include_bytes!(env!("BERTLET_MODEL")));

#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    board::paint_stack();
    let model = Model::from_bytes(&MODEL.0).unwrap();
    let classifier = SequenceClassifier::new(&model).unwrap();
    // SAFETY: `main` runs once, and nothing else uses it.
    let scratch = unsafe { &mut *(&raw mut SCRATCH_BYTES) };
    let encoder = Encoder::new(model, Isa::detect(), scratch, MAX_TOKENS).unwrap();
    let mut ids = [0; MAX_TOKENS];
    let buffer = TokenBuffer { input_ids: &mut ids, ..Default::default() };
    let mut runner = TextRunner::new(encoder, buffer);

    let (mut logits, mut window) = ([0.0; 2], [0.0; 2]);
    let start = board::instructions();
    runner.classify(TEXT, &mut logits, &mut window).unwrap();
    let instructions = board::instructions().wrapping_sub(start);

    let mut scores = logits;
    classifier.scores(&mut scores);
    let best = usize::from(scores[1] > scores[0]);
    let _ = writeln!(Uart, "{TEXT}");
    let _ = writeln!(Uart, "label {} {:.4}", classifier.labels().get(best).unwrap_or("?"), scores[best]);
    let _ = writeln!(Uart, "logits {:08x},{:08x}", logits[0].to_bits(), logits[1].to_bits());
    let _ = writeln!(Uart, "stack {}", board::stack_used());
    let _ = writeln!(Uart, "instructions {instructions}");
    board::exit(0)
}
