//! From text to entities, labels and answers, nothing is allocated.

#[path = "common/allocations.rs"]
mod allocations;
#[path = "common/checkpoints.rs"]
mod common;

use allocations::counted;
use bertlet::heads::{Fill, MaskedLm, SequenceClassifier};
use bertlet::tasks::{Aggregation, EntityOptions, EntityRecognizer, Label, Text, masks};
use bertlet::tokenizer::TokenBuffer;
use bertlet::{Encoder, Input, Isa, ModelFile};
use common::{Folder, Weights};

// One test, as the counter counts whatever runs at the same time.
#[test]
fn tasks_allocate_nothing() {
    let folder = Folder::new("tasks-no-alloc");
    let text = "Angela Merkel met Emmanuel Macron in Berlin, 北京 and 😀 elsewhere. ".repeat(12);

    let file = ModelFile::open(folder.model("tiny-ner", Weights::F32)).unwrap();
    let model = file.model();
    let mut scratch = vec![0; model.config().scratch_len(64)];
    let mut encoder = Encoder::new(model, Isa::detect(), &mut scratch, 64).unwrap();
    let mut labels = vec![Label::default(); model.labels().len()];
    let tokens = model.tokenizer().unwrap().count(&text[..]).unwrap();
    let mut memory = vec![0; 1 << 20];
    let mut found = 0;
    let allocations = counted(|| {
        let recognizer = EntityRecognizer::new(&model, &mut labels).unwrap();
        assert!(recognizer.scratch_len(64, tokens) <= memory.len());
        for (_, aggregation) in Aggregation::NAMES {
            for overlap in [None, Some(16)] {
                let constrained = overlap.is_some();
                let text = Text::Str(&text);
                let tagged = recognizer.tag(&mut encoder, text, overlap, &mut memory).unwrap();
                let options = EntityOptions { aggregation, constrained };
                recognizer.entities(tagged, &options, |_| found += 1);
            }
        }
    });
    assert_eq!(allocations, 0);
    assert!(found > 0);

    let file = ModelFile::open(folder.model("tiny-sst2", Weights::F32)).unwrap();
    let model = file.model();
    let mut scratch = vec![0; model.config().scratch_len(64)];
    let mut encoder = Encoder::new(model, Isa::detect(), &mut scratch, 64).unwrap();
    let (mut ids, mut logits, mut window) = ([0; 64], [0.0; 2], [0.0; 2]);
    let allocations = counted(|| {
        let head = SequenceClassifier::new(&model).unwrap();
        let tokenizer = model.tokenizer().unwrap();
        let mut buffer = TokenBuffer { input_ids: &mut ids, ..TokenBuffer::default() };
        let text = text[..].into();
        let (logits, window) = (&mut logits, &mut window);
        head.classify(&tokenizer, &mut encoder, text, Some(16), &mut buffer, logits, window)
            .unwrap();
        head.scores(logits);
    });
    assert_eq!(allocations, 0);

    let file = ModelFile::open(folder.model("micro", Weights::F32)).unwrap();
    let model = file.model();
    let mut scratch = vec![0; model.config().scratch_len(64)];
    let mut encoder = Encoder::new(model, Isa::detect(), &mut scratch, 64).unwrap();
    let mut logits = vec![0.0; model.config().vocab_size];
    let allocations = counted(|| {
        let head = MaskedLm::new(&model).unwrap();
        let tokenizer = model.tokenizer().unwrap();
        let ids = [tokenizer.cls_id(), tokenizer.mask_id().unwrap(), tokenizer.sep_id()];
        let mut positions = [0; 1];
        assert_eq!(masks(&tokenizer, &ids, &mut positions), 1);
        head.logits(&mut encoder, &Input::new(&ids), &positions, &mut logits).unwrap();
        assert_eq!(head.top(&mut logits, &mut [Fill::default(); 5]), 5);
    });
    assert_eq!(allocations, 0);
}
