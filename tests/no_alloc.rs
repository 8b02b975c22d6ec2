//! After their construction, neither the encoder, on any number of threads, nor the tokenizer allocates.

#[path = "common/allocations.rs"]
mod allocations;
#[path = "common/checkpoints.rs"]
mod common;

use std::sync::atomic::{AtomicUsize, Ordering};

use allocations::counted;
use bertlet::tokenizer::{Limits, TokenBuffer, Tokenizer};
use bertlet::{Encoder, Executor, Input, Isa, Layers, ModelFile, Output, Pooling, Session};
use common::{Folder, Weights};

const TEXTS: [&str; 6] = [
    "",
    "Rain.",
    "A quiet house on the hill.",
    "Élan, naïveté and 北京 in one line; unaffable tokens, too.",
    "the quick brown fox jumps over the lazy dog, and the dog does not mind at all",
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen",
];

/// Turns a thousand texts of several lengths into vectors. Returns the number of allocations.
fn thousand(tokenizer: &Tokenizer<'_>, session: &mut Session<'_>, vector: &mut [f32]) -> usize {
    let (mut ids, mut type_ids) = ([0; 32], [0; 32]);
    let mut sum = 0.0;
    let allocations = counted(|| {
        for i in 0..1000 {
            let mut buffer = TokenBuffer {
                input_ids: &mut ids,
                token_type_ids: &mut type_ids,
                ..TokenBuffer::default()
            };
            let pair = (i % 5 == 0).then_some(TEXTS[1]);
            let text = TEXTS[i % TEXTS.len()];
            let encoded = tokenizer.encode(text, pair, &Limits::new(32), &mut buffer).unwrap();
            let input = Input {
                input_ids: &ids[..encoded.len],
                token_type_ids: Some(&type_ids[..encoded.len]),
                attention_mask: None,
            };
            let output = Output::Features {
                layers: Layers::LAST,
                pooling: Pooling::Mean,
                normalize: true,
                out: vector,
            };
            session.encode(&input, &mut [output]).unwrap();
            sum += vector[0];
        }
    });
    assert!(sum.is_finite());
    allocations
}

// A single test, because the counter counts the allocations of tests that run at the same time.
#[test]
fn a_thousand_encodes_allocate_nothing() {
    assert!(counted(|| drop(std::hint::black_box(Box::new(1)))) > 0, "the counter counts");
    let folder = Folder::new("no-alloc");
    for weights in [Weights::Int8, Weights::F32] {
        let file = ModelFile::open(folder.model("micro", weights)).unwrap();
        let model = file.model();
        let tokenizer = Tokenizer::from_bytes(model.tokenizer_bytes().unwrap()).unwrap();
        let mut vector = vec![0.0; model.config().hidden_size];
        for threads in [1, 3] {
            let mut session = Session::new(model).with_threads(threads).unwrap();
            session.reserve(32).unwrap();
            // The system allocates its own data for a thread when the thread first runs.
            while session.executor().threads() > 1 && !all_have_run(session.executor()) {}
            let allocations = thousand(&tokenizer, &mut session, &mut vector);
            assert_eq!(allocations, 0, "{weights:?} on {threads} threads");
        }
        // The encoder alone, in the caller's buffer.
        let mut scratch = vec![0; model.config().scratch_len(16)];
        let allocations = counted(|| {
            let mut encoder = Encoder::new(model, Isa::detect(), &mut scratch, 16).unwrap();
            let features = Output::Features {
                layers: Layers::LAST,
                pooling: Pooling::Mean,
                normalize: false,
                out: &mut vector,
            };
            encoder.encode(&Input::new(&[2, 5, 7, 3]), &mut [features]).unwrap();
        });
        assert_eq!(allocations, 0, "{weights:?}");
    }
}

/// Whether three threads ran three closures, each of which waits for the others.
fn all_have_run(executor: &dyn Executor) -> bool {
    let arrived = AtomicUsize::new(0);
    let arrive = || {
        arrived.fetch_add(1, Ordering::SeqCst);
        let start = std::time::Instant::now();
        while arrived.load(Ordering::SeqCst) < 3 && start.elapsed().as_millis() < 100 {
            std::thread::yield_now();
        }
    };
    let mut both = || executor.join(&mut || arrive(), &mut || arrive());
    executor.join(&mut || arrive(), &mut both);
    arrived.load(Ordering::SeqCst) == 3
}
