//! What tests/c/misuse.c cannot see: numbers that the header repeats, and masked words, for which the
//! repository has no model.
#![allow(unsafe_code)]

#[path = "common/models.rs"]
mod common;

use std::ptr;

use bertlet::ffi::{self, Fill, Status};
use bertlet::format::Encoding;
use bertlet::heads::MaskedLm;
use bertlet::tasks::Aggregation;
use bertlet::tokenizer::Settings;
use bertlet::tokenizer::writer::{self, Class, Rule, SpecialTokens};
use bertlet::{Encoder, Input, Isa, Model, NotFinite, Pooling, RunError};
use common::{SMALL, Spec};

#[test]
fn the_header_has_the_numbers_of_the_library() {
    use ffi::Pooling as P;
    let poolings = [P::None, P::Cls, P::Pooler, P::Mean, P::Max, P::MeanMax, P::MeanSqrt, P::Sep];
    assert_eq!(poolings.len(), Pooling::NAMES.len());
    for (number, (_, pooling)) in poolings.iter().zip(Pooling::NAMES) {
        assert_eq!(*number as u32, pooling as u32);
        assert_eq!(format!("{number:?}"), format!("{pooling:?}"));
    }
    use ffi::Aggregation as A;
    let aggregations = [A::None, A::Simple, A::First, A::Average, A::Max];
    assert_eq!(aggregations.len(), Aggregation::NAMES.len());
    for (i, (_, aggregation)) in Aggregation::NAMES.iter().enumerate() {
        assert_eq!(aggregations[i] as usize, i);
        assert_eq!(format!("{:?}", aggregations[i]), format!("{aggregation:?}"));
    }
}

#[test]
fn the_header_has_the_version_of_the_library() {
    let header = include_str!("../include/bertlet.h");
    let defined = |name: &str| {
        let line = header.lines().find_map(|line| line.strip_prefix(&format!("#define {name} ")));
        line.unwrap_or_else(|| panic!("the header defines no {name}"))
    };
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(defined("BERTLET_VERSION"), format!("\"{version}\""));
    for (name, number) in ["MAJOR", "MINOR", "PATCH"].iter().zip(version.split('.')) {
        assert_eq!(defined(&format!("BERTLET_VERSION_{name}")), number);
    }
}

/// Words of letters, taken as they are.
fn tokenizer(words: usize) -> &'static [u8] {
    let mut vocab: Vec<String> =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"].map(Into::into).into();
    vocab.extend((vocab.len()..words).map(|i| format!("w{i}")));
    let space = |code| Rule::Keep(if code == 32 { Class::Space } else { Class::Word });
    let rules: Vec<Rule> = (0..0x11_0000).map(space).collect();
    let specials = SpecialTokens::default();
    let section = writer::write(&writer::Spec {
        settings: Settings::CASED,
        vocab: &vocab,
        continuation_prefix: "##",
        specials: &specials,
        added: &[],
        rules: &rules,
    });
    section.unwrap().leak()
}

#[test]
fn masked_words_are_those_of_the_library() {
    let file =
        Spec { tokenizer: tokenizer(SMALL.vocab_size), ..Spec::new(SMALL, Encoding::Int8) }.file();
    let model = Model::from_bytes(&file).unwrap();
    let mut scratch = vec![0; model.config().scratch_len(8)];
    let mut encoder = Encoder::new(model, Isa::detect(), &mut scratch, 8).unwrap();
    let head = MaskedLm::new(&model).unwrap();
    let mut expected = vec![0.0; SMALL.vocab_size];
    head.logits(&mut encoder, &Input::new(&[2, 5, 4, 6, 4, 3]), &[4], &mut expected).unwrap();
    let mut best = [Default::default(); 3];
    head.top(&mut expected, &mut best);

    let mut handle = [0_u8; ffi::BERTLET_MODEL_SIZE];
    let (mut model, mut encoder, mut size) = (ptr::null_mut(), ptr::null_mut(), 0);
    let (mut values, mut fills, mut count) =
        (vec![0.0; SMALL.vocab_size + 1], [Fill::default(); 3], 3);
    let text = "a [MASK] b [MASK]";
    // SAFETY: all pointers are to values that live on, with their lengths.
    unsafe {
        let status = ffi::bertlet_model_from_memory(
            file.as_ptr().cast(),
            file.len(),
            handle.as_mut_ptr().cast(),
            handle.len(),
            &mut model,
        );
        assert_eq!(status, Status::Ok);
        assert_eq!(ffi::bertlet_encoder_size(model, 8, &mut size), Status::Ok);
        let mut memory = vec![0_u8; size];
        let status = ffi::bertlet_encoder_new(
            model,
            8,
            ptr::null(),
            memory.as_mut_ptr().cast(),
            size,
            &mut encoder,
        );
        assert_eq!(status, Status::Ok);
        let cut = std::cell::Cell::new(true);
        let mut fill = |text: &str, mask, words| {
            ffi::bertlet_fill_mask(
                encoder,
                text.as_ptr().cast(),
                text.len(),
                mask,
                values.as_mut_ptr(),
                words,
                fills.as_mut_ptr(),
                &mut count,
                cut.as_ptr(),
            )
        };
        let words = SMALL.vocab_size;
        assert_eq!(fill(text, 2, words), Status::NoSuchIndex);
        assert_eq!(fill("a b", 0, words), Status::NoSuchIndex);
        assert_eq!(fill(text, 1, words - 1), Status::BufferTooSmall);
        // The encoder takes 8 tokens, six of them the text's.
        let long = "a a a [MASK] b b [MASK] a";
        assert_eq!(fill(long, 1, words), Status::TextTooLong, "there is one, in what is cut off");
        assert_eq!(fill(long, 2, words), Status::NoSuchIndex);
        assert!(cut.get(), "written on success only");
        assert_eq!(fill(text, 1, words + 1), Status::Ok);
        assert!(!cut.get());
    }
    assert_eq!(count, 3);
    for (fill, best) in fills.iter().zip(best) {
        assert_eq!((fill.id, fill.score.to_bits()), (best.id, best.score.to_bits()));
    }
}

#[test]
fn an_answer_that_is_not_finite_has_a_status() {
    let status = Status::from(RunError::NotFinite(NotFinite::HiddenState(2)));
    assert_eq!((status, status as u32), (Status::NotFinite, 23));
}
