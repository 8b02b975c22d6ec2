//! From text to entities, labels and answers, nothing is allocated.

#[path = "common/allocations.rs"]
mod allocations;
#[path = "common/checkpoints.rs"]
mod common;

use std::io::Write;

use allocations::counted;
use bertlet::heads::{Fill, MaskedLm, SequenceClassifier};
use bertlet::tasks::{
    Aggregation, EntityOptions, EntityRecognizer, Features, Label, TextRunner, WordFeatures,
    WordPooling,
};
use bertlet::tokenizer::TokenBuffer;
use bertlet::{Encoder, Isa, Layers, Model, ModelFile};
use common::{Folder, Weights};

// One test, as the counter counts whatever runs at the same time.
#[test]
fn tasks_allocate_nothing() {
    let folder = Folder::new("tasks-no-alloc");
    let text = "Angela Merkel met Emmanuel Macron in Berlin, 北京 and 😀 elsewhere. ".repeat(12);

    let file = ModelFile::open(folder.model("tiny-ner", Weights::F32)).unwrap();
    let model = file.model();
    let mut memory = Memory::new(model);
    let mut labels = vec![Label::default(); model.labels().len()];
    let tokens = model.tokenizer().unwrap().count(&text[..]).unwrap();
    let mut scratch = vec![0; 1 << 20];
    let words: Vec<&str> = text.split(' ').collect();
    let width = model.config().hidden_size;
    let (mut counts, mut vectors) = (vec![0; words.len()], vec![0.0; words.len() * width]);
    let mut found = 0;
    let mut page = vec![0; 2 * text.len()];
    let allocations = counted(|| {
        let mut runner = memory.runner(model);
        let recognizer = EntityRecognizer::new(&model, &mut labels).unwrap();
        assert!(recognizer.scratch_len(64, tokens) <= scratch.len());
        for (_, aggregation) in Aggregation::NAMES {
            for overlap in [None, Some(16)] {
                runner.set_overlap(overlap);
                let constrained = overlap.is_some();
                let tagged = recognizer.tag(&mut runner, &text[..], &mut scratch).unwrap();
                let options = EntityOptions { aggregation, constrained };
                recognizer.entities(tagged, &options, |_| found += 1);
                if overlap.is_some() {
                    let tagged = recognizer.tag(&mut runner, &text[..], &mut scratch).unwrap();
                    let redacted = recognizer.redact(tagged, &options).unwrap();
                    write!(&mut page[..], "{redacted}").unwrap();
                }
            }
        }
        for (_, pooling) in WordPooling::NAMES {
            let features = WordFeatures { layers: Layers::LAST, pooling, normalize: true };
            let out = (&mut counts[..], &mut vectors[..]);
            runner.word_vectors(&words, &features, &mut scratch, out).unwrap();
        }
    });
    assert_eq!(allocations, 0);
    assert!(found > 0);

    let file = ModelFile::open(folder.model("tiny-sst2", Weights::F32)).unwrap();
    let model = file.model();
    let mut memory = Memory::new(model);
    let (mut logits, mut window) = ([0.0; 2], [0.0; 2]);
    let (mut vector, mut other) = (vec![0.0; width], vec![0.0; width]);
    let allocations = counted(|| {
        let head = SequenceClassifier::new(&model).unwrap();
        let mut runner = memory.runner(model).with_overlap(Some(16));
        runner.classify(&text[..], &mut logits, &mut window).unwrap();
        head.scores(&mut logits);
        runner.embed(&text[..], &Features::of(&model), &mut vector, &mut other).unwrap();
    });
    assert_eq!(allocations, 0);

    let file = ModelFile::open(folder.model("micro", Weights::F32)).unwrap();
    let model = file.model();
    let mut memory = Memory::new(model);
    let mut logits = vec![0.0; 2 * model.config().vocab_size];
    let allocations = counted(|| {
        let head = MaskedLm::new(&model).unwrap();
        let mut runner = memory.runner(model);
        let mut positions = [0; 2];
        let (masks, _) =
            runner.fill_mask("hello [MASK] [MASK]", &mut positions, &mut logits).unwrap();
        assert_eq!((masks, positions[1]), (2, positions[0] + 1));
        let vocab = head.logits_len(1);
        assert_eq!(head.top(&mut logits[..vocab], &mut [Fill::default(); 5]), 5);
        runner.next_sentence(("hello", "world")).unwrap();
    });
    assert_eq!(allocations, 0);

    let file = ModelFile::open(folder.model("micro-qa", Weights::F32)).unwrap();
    let model = file.model();
    let mut memory = Memory::new(model);
    let allocations = counted(|| {
        let mut runner = memory.runner(model).with_overlap(Some(8));
        assert!(runner.answer("where", &text, &mut [0.0; 128]).unwrap().0.is_some());
    });
    assert_eq!(allocations, 0);
}

/// What a runner for 64 tokens works in.
struct Memory {
    scratch: Vec<u8>,
    ids: [u32; 64],
    types: [u8; 64],
    offsets: [(u32, u32); 64],
    words: [u32; 64],
}

impl Memory {
    fn new(model: Model<'_>) -> Self {
        let scratch = vec![0; model.config().scratch_len(64)];
        Self { scratch, ids: [0; 64], types: [0; 64], offsets: [(0, 0); 64], words: [0; 64] }
    }

    fn runner<'a, 's>(&'s mut self, model: Model<'a>) -> TextRunner<'a, 's> {
        let encoder = Encoder::new(model, Isa::detect(), &mut self.scratch, 64).unwrap();
        let buffer = TokenBuffer {
            input_ids: &mut self.ids,
            token_type_ids: &mut self.types,
            offsets: &mut self.offsets,
            words: &mut self.words,
        };
        TextRunner::new(encoder, buffer)
    }
}
