//! Files: the reader reads what the writer writes and refuses what is damaged. Requests that a model
//! cannot answer are errors.

#[path = "common/models.rs"]
mod common;

use bertlet::format::writer::xxh64;
use bertlet::format::{BadNumber, Encoding, ProblemType};
use bertlet::{
    Config, Encoder, FormatError, Head, Input, Isa, Layers, Model, NotFinite, Output, Pooling,
    RunError, SectionKind, TooSmall,
};

use half::f16;

use common::{Aligned, SMALL, Spec, field, fix_checksum, ids, run};

const HEADER_LENGTH: usize = 128;
const ENTRY_LENGTH: usize = 64;

#[track_caller]
fn refused(bytes: &[u8]) -> FormatError {
    let error = Model::from_bytes(bytes).expect_err("damaged");
    let text = error.to_string();
    assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
    error
}

fn file() -> Aligned {
    Spec::new(SMALL, Encoding::Int8).file()
}

/// Writes a number at an offset of the file.
fn put(file: &mut Aligned, at: usize, value: u32) {
    file[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put_long(file: &mut Aligned, at: usize, value: u64) {
    file[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Offset of entry `index` of the table.
fn entry(index: usize) -> usize {
    HEADER_LENGTH + index * ENTRY_LENGTH
}

/// Index of the first entry of a kind.
fn index_of(file: &[u8], kind: SectionKind) -> usize {
    Model::from_bytes(file).unwrap().sections().position(|s| s.kind == kind).unwrap()
}

/// A small file with a number of its table changed and the checksum fixed.
#[track_caller]
fn with_entry(kind: SectionKind, at: usize, value: u32) -> FormatError {
    let mut file = file();
    let index = index_of(&file, kind);
    put(&mut file, entry(index) + at, value);
    fix_checksum(&mut file);
    refused(&file)
}

/// A small file with a header field changed and the checksum fixed.
#[track_caller]
fn with_header(at: usize, value: u32) -> FormatError {
    let mut file = file();
    put(&mut file, at, value);
    fix_checksum(&mut file);
    refused(&file)
}

#[test]
fn what_is_written_is_read() {
    for seed in 0..200 {
        let spec = Spec::random(seed);
        let file = spec.file();
        let model = Model::from_bytes(&file).unwrap_or_else(|e| panic!("{e}: {spec:?}"));
        assert_eq!(*model.config(), spec.config);
        assert_eq!(model.verify(), Ok(()));
        assert_eq!(model.default_pooling(), Pooling::Mean);
        assert_eq!(model.problem_type(), ProblemType::SingleLabel);
        assert!(model.default_normalize());
        assert_eq!(model.labels().len(), spec.labels);
        for (i, label) in model.labels().iter().enumerate() {
            assert_eq!(label, format!("label-{i}"));
        }
        assert_eq!(model.provenance(), Some(r#"{"source":"random"}"#));
        assert_eq!(model.tokenizer_bytes(), None);
        for kind in
            [SectionKind::Pooler, SectionKind::TokenClassifier, SectionKind::QuestionAnswering]
        {
            assert_eq!(model.section(kind).is_some(), spec.heads);
        }
        assert_eq!(model.section(SectionKind::MaskedLmTransform).is_some(), spec.heads);
        let mut end = entry(model.sections().count());
        for section in model.sections() {
            assert_eq!(section.offset, end.next_multiple_of(64));
            assert_eq!(model.section_bytes(section).len(), section.length);
            let shape = section.kind.shape(&spec.config, spec.labels);
            assert_eq!((section.rows, section.cols), shape);
            end = section.offset + section.length;
        }
        assert_eq!(file.len(), end.next_multiple_of(64));
    }
}

#[test]
fn a_saved_file_is_the_bytes() {
    let path = std::env::temp_dir().join(format!("bertlet-format-{}", std::process::id()));
    let spec = Spec::random(5);
    spec.writer().save(&path).unwrap();
    let saved = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(saved == spec.file()[..]);
    let nowhere = path.join("missing").join("model.bertlet");
    assert!(spec.writer().save(&nowhere).is_err());
}

#[test]
fn truncated_at_every_byte_of_the_head_and_every_section() {
    let file = file();
    let model = Model::from_bytes(&file).unwrap();
    let table_end = entry(model.sections().count());
    let mut lengths: Vec<usize> = (0..=table_end).collect();
    for section in model.sections() {
        lengths.extend([section.offset, section.offset + 1, section.offset + section.length]);
    }
    lengths.extend([file.len() - 64, file.len() - 1]);
    for length in lengths.into_iter().filter(|l| *l < file.len()) {
        // With the header as it was, and with the new length in the header.
        let mut cut = Aligned::new(&file[..length]);
        let error = refused(&cut);
        assert!(
            matches!(error, FormatError::Truncated { have, .. } if have == length as u64)
                || length < 8 && error == FormatError::NotAModel,
            "{length}: {error:?}"
        );
        if length >= HEADER_LENGTH {
            put_long(&mut cut, field::FILE_LENGTH, length as u64);
            let error = refused(&cut);
            assert!(matches!(error, FormatError::Truncated { .. }), "{length}: {error:?}");
        }
    }
    assert_eq!(refused(&Aligned::new(&[])), FormatError::Truncated { need: 128, have: 0 });
}

#[test]
fn other_files_are_not_models() {
    for bytes in [&b"PK\x03\x04"[..], &[0; 4096], b"{\"model_type\":\"bert\"}", &[0xff; 127]] {
        assert_eq!(refused(&Aligned::new(bytes)), FormatError::NotAModel);
    }
    let mut file = file();
    file[..8].reverse();
    assert_eq!(refused(&file), FormatError::NotAModel);
}

#[test]
fn other_versions_are_refused() {
    for version in [0, 2, 0x0100_0000, u32::MAX] {
        assert_eq!(with_header(field::VERSION, version), FormatError::Version(version));
    }
}

#[test]
fn misaligned_bytes_are_refused() {
    let file = file();
    for past in [1, 2, 4, 8, 16, 32, 63] {
        let mut moved = Aligned::new(&vec![0; file.len() + 64]);
        moved[past..past + file.len()].copy_from_slice(&file);
        let error = refused(&moved[past..past + file.len()]);
        assert_eq!(error, FormatError::Misaligned(past));
    }
}

#[test]
fn trailing_bytes_are_refused() {
    let file = file();
    let length = file.len() as u64;
    for more in [1, 63, 64, 4096] {
        let mut longer = file.to_vec();
        longer.resize(file.len() + more, 0);
        let mut longer = Aligned::new(&longer);
        let expected = FormatError::TrailingBytes { need: length, have: length + more as u64 };
        assert_eq!(refused(&longer), expected);
        // With a header that counts them, no section holds them.
        put_long(&mut longer, field::FILE_LENGTH, length + more as u64);
        assert_eq!(refused(&longer), expected);
    }
}

#[test]
fn sections_lie_one_after_another() {
    let file = file();
    let model = Model::from_bytes(&file).unwrap();
    let sections: Vec<_> = model.sections().collect();
    for (index, section) in sections.iter().enumerate() {
        let offset = section.offset as u64;
        let before = sections[index.saturating_sub(1)].offset as u64;
        let moved = [offset - 64, offset + 64, offset + 1, before, 0, u64::MAX, 1 << 63];
        for to in moved.into_iter().filter(|to| *to != offset) {
            let mut file = file.copy();
            put_long(&mut file, entry(index) + 32, to);
            fix_checksum(&mut file);
            let expected =
                FormatError::Entry { index, field: "offset", value: to, expected: offset };
            assert_eq!(refused(&file), expected);
        }
        let length = section.length as u64;
        for to in [0, length - 1, length + 1, length + 64, 1 << 40, u64::MAX - 63, u64::MAX] {
            let mut file = file.copy();
            put_long(&mut file, entry(index) + 40, to);
            fix_checksum(&mut file);
            if section.encoding == Encoding::Bytes {
                // Bytes may have any length, but the checksum and the next section must agree.
                let error = Model::from_bytes(&file).and_then(|model| model.verify());
                assert!(error.is_err(), "{:?} of {to} bytes", section.kind);
            } else {
                let expected =
                    FormatError::Entry { index, field: "length", value: to, expected: length };
                assert_eq!(refused(&file), expected);
            }
        }
    }
}

#[test]
fn rotations_fit_their_matrix() {
    // 48 inputs.
    for (block, stride) in [(0, 1), (3, 1), (32, 1), (256, 1), (1, 0), (2, 8), (2, 32), (1, 64)] {
        let mut file = file();
        let at = entry(index_of(&file, SectionKind::QueryKeyValue)) + 20;
        put(&mut file, at, block);
        put(&mut file, at + 4, stride);
        fix_checksum(&mut file);
        let error = refused(&file);
        assert!(
            matches!(error, FormatError::Entry { field: "rotation", .. }),
            "{block} {stride}: {error:?}"
        );
    }
    for value in [0, 2, u32::MAX] {
        for (at, name) in [(20, "rotation block"), (24, "rotation stride")] {
            for kind in [SectionKind::WordEmbeddings, SectionKind::OutputNorm, SectionKind::Labels]
            {
                let error = with_entry(kind, at, value);
                assert!(
                    matches!(error, FormatError::Entry { field, .. } if field == name),
                    "{error:?}"
                );
            }
        }
    }
}

#[test]
fn encodings_suit_the_kind() {
    let cases = [
        (SectionKind::WordEmbeddings, 0),
        (SectionKind::WordEmbeddings, 4),
        (SectionKind::EmbeddingsNorm, 0),
        (SectionKind::EmbeddingsNorm, 2),
        (SectionKind::EmbeddingsNorm, 3),
        (SectionKind::QueryKeyValue, 0),
        (SectionKind::QueryKeyValue, u32::MAX),
        (SectionKind::MaskedLmBias, 2),
        (SectionKind::Labels, 1),
        (SectionKind::Labels, 3),
        (SectionKind::Provenance, 2),
    ];
    for (kind, encoding) in cases {
        let mut file = file();
        let at = entry(index_of(&file, kind));
        put(&mut file, at + 8, encoding);
        put(&mut file, at + 20, 1);
        put(&mut file, at + 24, 1);
        fix_checksum(&mut file);
        let error = refused(&file);
        let found = matches!(error, FormatError::Entry { field: "encoding", value, .. }
            if value == u64::from(encoding));
        assert!(found, "{kind:?} {encoding}: {error:?}");
    }
    // The kind may have this encoding too, but then another length.
    let error = with_entry(SectionKind::WordEmbeddings, 8, 1);
    assert!(matches!(error, FormatError::Entry { field: "length", .. }), "{error:?}");
}

#[test]
fn shapes_are_those_of_the_configuration() {
    for kind in [
        SectionKind::WordEmbeddings,
        SectionKind::OutputNorm,
        SectionKind::Output,
        SectionKind::Pooler,
    ] {
        for value in [0, 1, 49, u32::MAX] {
            for (at, name) in [(12, "rows"), (16, "columns")] {
                let error = with_entry(kind, at, value);
                assert!(
                    matches!(error, FormatError::Entry { field, .. } if field == name),
                    "{kind:?} {name} {value}: {error:?}"
                );
            }
        }
    }
    for (at, value) in [(28, 1), (56, 1), (60, 1), (28, u32::MAX)] {
        let error = with_entry(SectionKind::Pooler, at, value);
        assert!(matches!(error, FormatError::Entry { field: "reserved", .. }), "{error:?}");
    }
}

#[test]
fn kinds_stand_in_order() {
    for (kind, value) in [
        (SectionKind::WordEmbeddings, 2),
        (SectionKind::QueryKeyValue, 17),
        (SectionKind::QueryKeyValue, 0),
        (SectionKind::TokenClassifier, SectionKind::Pooler as u32),
        (SectionKind::TokenClassifier, 31),
        (SectionKind::TokenClassifier, 16),
        (SectionKind::Provenance, 63),
        (SectionKind::Provenance, 1 << 31),
        (SectionKind::Provenance, u32::MAX),
    ] {
        let error = with_entry(kind, 0, value);
        let found = matches!(error, FormatError::Entry { field: "kind", value: v, .. }
            if v == u64::from(value));
        assert!(found, "{kind:?} {value}: {error:?}");
    }
    for value in [1, 2, u32::MAX] {
        let error = with_entry(SectionKind::QueryKeyValue, 4, value);
        assert!(matches!(error, FormatError::Entry { field: "layer", .. }), "{error:?}");
    }
}

#[test]
fn header_fields_have_limits() {
    let cases: [(usize, &str, &[u32]); 16] = [
        (field::HIDDEN_SIZE, "hidden_size", &[0, (1 << 16) + 1, u32::MAX]),
        (field::LAYERS, "num_hidden_layers", &[0, 1025, u32::MAX]),
        (field::HEADS, "num_attention_heads", &[0, 5, 1025, u32::MAX]),
        (field::INTERMEDIATE_SIZE, "intermediate_size", &[0, (1 << 16) + 1, u32::MAX]),
        (field::VOCAB_SIZE, "vocab_size", &[0, (1 << 24) + 1, u32::MAX]),
        (field::POSITIONS, "max_position_embeddings", &[0, (1 << 20) + 1, u32::MAX]),
        (field::TOKEN_TYPES, "type_vocab_size", &[0, 257, u32::MAX]),
        (field::EPS, "layer_norm_eps", &[0, 0x8000_0001, 0x3f80_0000, 0x7f80_0000, 0x7fc0_0000]),
        (field::ACTIVATION, "hidden_act", &[5, u32::MAX]),
        (field::ATTENTION, "attention", &[2, u32::MAX]),
        (field::POOLING, "pooling", &[8, u32::MAX]),
        (field::NORMALIZE, "normalize", &[2, u32::MAX]),
        (field::PROBLEM_TYPE, "problem_type", &[3, u32::MAX]),
        (field::LABELS, "labels", &[(1 << 20) + 1, u32::MAX]),
        (field::MAX_TOKENS, "max_tokens", &[71, u32::MAX]),
        (field::SCORE_ACTIVATION, "score_activation", &[3, u32::MAX]),
    ];
    for (at, name, values) in cases {
        for value in values {
            let error = with_header(at, *value);
            let expected = FormatError::Field { name, value: u64::from(*value) };
            assert_eq!(error, expected);
        }
    }
    // Values in range that do not agree with the sections.
    for (at, value) in [
        (field::HIDDEN_SIZE, 96),
        (field::LAYERS, 1),
        (field::LAYERS, 3),
        (field::LAYERS, 1024),
        (field::HEADS, 2),
        (field::VOCAB_SIZE, 1 << 24),
        (field::POSITIONS, 1 << 20),
        (field::LABELS, 6),
        (field::LABELS, 1 << 20),
    ] {
        let error = with_header(at, value);
        assert!(matches!(error, FormatError::Entry { .. }), "{at} {value}: {error:?}");
    }
    // Classifiers of no labels.
    assert_eq!(with_header(field::LABELS, 0), FormatError::Field { name: "labels", value: 0 });
    for at in field::RESERVED..HEADER_LENGTH {
        let mut file = file();
        file[at] = 1;
        fix_checksum(&mut file);
        assert_eq!(refused(&file), FormatError::Field { name: "reserved", value: 1 });
    }
}

#[test]
fn huge_sizes_are_no_trouble() {
    for sections in [0, 1, 4, 17, 1 << 16, (1 << 16) + 1, 1 << 31, u32::MAX] {
        let mut file = file();
        put(&mut file, field::SECTIONS, sections);
        fix_checksum(&mut file);
        let error = refused(&file);
        match sections {
            0 => assert_eq!(error, FormatError::Field { name: "sections", value: 0 }),
            1 | 4 | 17 => {}
            65_536 => assert!(matches!(error, FormatError::Truncated { .. }), "{error:?}"),
            _ => assert!(matches!(error, FormatError::Field { name: "sections", .. }), "{error:?}"),
        }
    }
    for length in [0, 127, 1 << 40, u64::MAX] {
        let mut file = file();
        put_long(&mut file, field::FILE_LENGTH, length);
        refused(&file);
    }
}

/// A file without the sections of the kinds `drop`.
fn without(spec: &Spec, drop: &[SectionKind]) -> Aligned {
    let whole = spec.file();
    let model = Model::from_bytes(&whole).unwrap();
    let kept: Vec<_> = model.sections().filter(|s| !drop.contains(&s.kind)).collect();
    let mut head = whole[..HEADER_LENGTH].to_vec();
    let mut end = entry(kept.len());
    let mut body = Vec::new();
    for section in &kept {
        let index = model.sections().position(|s| s == *section).unwrap();
        let offset = end.next_multiple_of(64);
        let mut bytes = whole[entry(index)..][..ENTRY_LENGTH].to_vec();
        bytes[32..40].copy_from_slice(&(offset as u64).to_le_bytes());
        head.extend(bytes);
        body.resize(body.len() + offset - end, 0);
        body.extend(model.section_bytes(*section));
        end = offset + section.length;
    }
    head.extend(body);
    head.resize(end.next_multiple_of(64), 0);
    let mut file = Aligned::new(&head);
    put(&mut file, field::SECTIONS, kept.len() as u32);
    let length = file.len() as u64;
    put_long(&mut file, field::FILE_LENGTH, length);
    fix_checksum(&mut file);
    file
}

#[test]
fn heads_need_their_parts() {
    let mut spec = Spec::new(SMALL, Encoding::Int8);
    spec.decoder = true;
    use SectionKind::{
        MaskedLmBias, MaskedLmDecoder, MaskedLmNorm, MaskedLmTransform, NextSentence, Pooler,
        SequenceClassifier,
    };
    for (drop, missing) in [
        (&[Pooler][..], Pooler),
        (&[Pooler, SequenceClassifier], Pooler),
        (&[MaskedLmNorm], MaskedLmNorm),
        (&[MaskedLmBias], MaskedLmBias),
        (&[MaskedLmTransform], MaskedLmTransform),
        (&[MaskedLmTransform, MaskedLmNorm], MaskedLmTransform),
        (&[MaskedLmTransform, MaskedLmNorm, MaskedLmBias], MaskedLmTransform),
    ] {
        assert_eq!(refused(&without(&spec, drop)), FormatError::Missing(missing), "{drop:?}");
    }
    let masked_lm = [MaskedLmTransform, MaskedLmNorm, MaskedLmBias, MaskedLmDecoder];
    for drop in [
        &[][..],
        &[Pooler, SequenceClassifier, NextSentence],
        &masked_lm,
        &[MaskedLmDecoder],
        &[SectionKind::Labels],
    ] {
        let file = without(&spec, drop);
        let model = Model::from_bytes(&file).unwrap();
        assert_eq!(model.verify(), Ok(()));
        assert_eq!(model.section(SectionKind::MaskedLmTransform).is_some(), drop != masked_lm);
    }
    // No section of the embeddings or of a layer may be missing.
    for kind in SectionKind::OF_EMBEDDINGS.into_iter().chain(SectionKind::OF_LAYER) {
        refused(&without(&spec, &[kind]));
    }
    let tail: Vec<SectionKind> = Model::from_bytes(&spec.file())
        .unwrap()
        .sections()
        .map(|s| s.kind)
        .filter(|k| *k >= SectionKind::Pooler || *k == SectionKind::OutputNorm)
        .collect();
    assert!(matches!(refused(&without(&spec, &tail)), FormatError::Entry { .. }));
}

#[test]
fn labels_agree_with_the_header() {
    let file = file();
    let section = Model::from_bytes(&file).unwrap().section(SectionKind::Labels).unwrap();
    let at = section.offset;
    for count in [0, 4, 6, u32::MAX] {
        let mut file = file.copy();
        put(&mut file, at, count);
        assert_eq!(refused(&file), FormatError::Contents(SectionKind::Labels, 0));
    }
    // Wrong offsets, and bytes that are not text: no label, and no panic.
    for (i, offset) in [(0, 1000), (1, u32::MAX), (2, 0), (5, 1 << 31), (3, 7)] {
        let mut file = file.copy();
        put(&mut file, at + 4 + 4 * i, offset);
        let labels = Model::from_bytes(&file).unwrap().labels();
        assert_eq!(labels.iter().count(), 5);
        (0..7).for_each(|i| assert!(labels.get(i).is_none_or(|l| l.len() < 100)));
    }
    let mut broken = file.copy();
    broken[at + 4 * 7..][..7].fill(0xff);
    let labels = Model::from_bytes(&broken).unwrap().labels();
    assert_eq!((labels.get(0), labels.get(1)), (None, Some("label-1")));
    assert_eq!(
        (labels.get(4), labels.get(5), labels.get(usize::MAX)),
        (Some("label-4"), None, None)
    );
    assert_eq!(labels.iter().next(), Some("?"));
}

#[test]
fn every_flipped_byte_is_noticed() {
    let mut spec = Spec::random(3);
    spec.config.vocab_size = 8;
    let mut file = spec.file();
    let table_end = entry(Model::from_bytes(&file).unwrap().sections().count());
    for at in 0..file.len() {
        for flip in [1, 0x80, 0xff] {
            if at > table_end && flip != 1 << (at % 8) && flip != 0xff {
                continue;
            }
            file[at] ^= flip;
            match Model::from_bytes(&file) {
                Err(_) => {}
                Ok(model) => {
                    assert!(at >= table_end, "byte {at} of the head");
                    if at % 7 == 0 || at < table_end + 2000 {
                        assert!(model.verify().is_err(), "byte {at}");
                    }
                }
            }
            file[at] ^= flip;
        }
    }
    assert_eq!(Model::from_bytes(&file).unwrap().verify(), Ok(()));
}

/// Arbitrary weights give a worthless answer, but no panic.
#[test]
fn damaged_weights_do_no_harm() {
    for (seed, encoding) in [Encoding::Int8, Encoding::F16, Encoding::F32].into_iter().enumerate() {
        let spec = Spec::new(SMALL, encoding);
        let whole = spec.file();
        let table_end = entry(Model::from_bytes(&whole).unwrap().sections().count());
        let mut random = common::Random::new(seed as u64);
        let ids = ids(&spec.config, 18, 1);
        for round in 0..60 {
            let mut file = whole.copy();
            let body = &mut file[table_end..];
            match round {
                0 => body.fill(0xff),
                1 => body.fill(0x80),
                2 => body.fill(0x7f),
                3 => body.fill(0),
                _ => (0..1 << (round % 12)).for_each(|_| {
                    let at = random.below(body.len());
                    body[at] = random.next() as u8;
                }),
            }
            let Ok(model) = Model::from_bytes(&file) else { continue };
            assert!(model.verify().is_err());
            for isa in [Isa::portable(), Isa::detect()] {
                let (mut a, mut b) = ([0.0; 96], vec![0.0; 18 * 18 * 3]);
                let (mut c, mut d) = ([0.0; 5], vec![0.0; 90]);
                let mut outputs = [
                    Output::Features {
                        layers: Layers::LAST,
                        pooling: Pooling::MeanMax,
                        normalize: true,
                        out: &mut a,
                    },
                    Output::Attention { layer: 1, out: &mut b },
                    Output::Logits { head: Head::SequenceClassifier, out: &mut c },
                    Output::MaskedLm { positions: &[3], out: &mut d },
                ];
                let answer = run(model, isa, 1, &Input::new(&ids), &mut outputs);
                assert!(matches!(answer, Ok(()) | Err(RunError::NotFinite(_))), "{answer:?}");
            }
        }
    }
}

/// Scratch as firmware has it: a static of constant size.
mod firmware {
    use super::*;

    const TOKENS: usize = 40;
    const SCRATCH: usize = SMALL.scratch_len(TOKENS);
    static ROOM: std::sync::Mutex<[u8; SCRATCH]> = std::sync::Mutex::new([0; SCRATCH]);

    #[test]
    fn a_constant_is_enough_scratch() {
        let file = file();
        let model = Model::from_bytes(&file).unwrap();
        assert_eq!(*model.config(), SMALL);
        let mut room = ROOM.lock().unwrap();
        let mut encoder = Encoder::new(model, Isa::detect(), &mut room[..], TOKENS).unwrap();
        assert_eq!(encoder.max_tokens(), TOKENS);
        let ids = ids(&SMALL, TOKENS, 1);
        for tokens in 1..=TOKENS {
            let mut out = [0.0; 48];
            let output = Output::Features {
                layers: Layers::LAST,
                pooling: Pooling::Cls,
                normalize: false,
                out: &mut out,
            };
            encoder.encode(&Input::new(&ids[..tokens]), &mut [output]).unwrap();
        }
    }
}

#[test]
fn scratch_one_byte_short_is_refused() {
    for seed in 0..40 {
        let spec = Spec::random(seed);
        let file = spec.file();
        let model = Model::from_bytes(&file).unwrap();
        let tokens = spec.config.max_position_embeddings;
        for threads in [1, 3] {
            let executor = common::Threads(threads);
            let need = spec.config.scratch_len_threads(tokens, threads);
            let mut scratch = vec![0; need];
            let mut make = |length| {
                let scratch = &mut scratch[..length];
                Encoder::with_executor(model, Isa::portable(), scratch, tokens, &executor).map(drop)
            };
            for too_few in [need - 1, 0] {
                let Err(RunError::TooSmall(size)) = make(too_few) else { panic!() };
                assert_eq!((size.need, size.have), (need, too_few));
            }
            assert_eq!(make(need), Ok(()));
        }
        // At any alignment of the buffer.
        let need = spec.config.scratch_len(tokens);
        let mut buffer = vec![0; need + 64];
        let ids = ids(&spec.config, tokens, 1);
        for start in [0, 1, 31, 63, 64] {
            let scratch = &mut buffer[start..start + need];
            let mut encoder = Encoder::new(model, Isa::detect(), scratch, tokens).unwrap();
            encoder.encode(&Input::new(&ids), &mut []).unwrap();
            let mut out = vec![0.0; spec.config.hidden_size];
            let output = Output::Features {
                layers: Layers::LAST,
                pooling: Pooling::Mean,
                normalize: true,
                out: &mut out,
            };
            encoder.encode(&Input::new(&ids), &mut [output]).unwrap();
        }
    }
    // Sizes beyond the address space saturate.
    assert_eq!(SMALL.scratch_len(usize::MAX), usize::MAX);
    assert_eq!(SMALL.scratch_len_threads(16, usize::MAX), usize::MAX);
}

/// The shape of a known model, in int8.
const fn known(hidden: usize, layers: usize, heads: usize) -> Config {
    Config {
        hidden_size: hidden,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        intermediate_size: 4 * hidden,
        vocab_size: 30522,
        max_position_embeddings: 512,
        type_vocab_size: 2,
        ..SMALL
    }
}

/// Memory is a promise: these numbers change only with a reason.
#[test]
fn scratch_lengths() {
    let minilm = known(384, 6, 12);
    let base = known(768, 12, 12);
    let float = |config| Spec::new(config, Encoding::F32).config;
    let lengths = |config: Config| [1, 16, 128, 512].map(|tokens| config.scratch_len(tokens));
    assert_eq!(lengths(minilm), [231_424, 277_504, 1_178_624, 3_091_712]);
    assert_eq!(lengths(base), [457_216, 549_376, 2_321_408, 6_040_832]);
    assert_eq!(lengths(float(minilm)), [281_856, 327_936, 1_582_080, 4_705_536]);
    assert_eq!(lengths(float(base)), [561_408, 653_568, 3_154_944, 9_374_976]);
    assert!(minilm.scratch_len(128) <= 1_200_000);
}

#[test]
fn inputs_that_cannot_be() {
    let file = file();
    let model = Model::from_bytes(&file).unwrap();
    let mut scratch = vec![0; SMALL.scratch_len(20)];
    let error = Encoder::new(model, Isa::detect(), &mut scratch, 71).err();
    assert_eq!(error, Some(RunError::TooManyTokens { have: 71, limit: 70 }));
    let mut encoder = Encoder::new(model, Isa::detect(), &mut scratch, 20).unwrap();
    let ids = [1; 21];
    let mut case = |ids, type_ids, mask, expected| {
        let mut out = [7.0; 48];
        let output = Output::Features {
            layers: Layers::LAST,
            pooling: Pooling::Cls,
            normalize: false,
            out: &mut out,
        };
        let error = encoder
            .encode(
                &Input { input_ids: ids, token_type_ids: type_ids, attention_mask: mask },
                &mut [output],
            )
            .unwrap_err();
        assert_eq!(error, expected);
        assert!(!error.to_string().contains('\n'));
        assert_eq!(out, [7.0; 48], "nothing is written");
    };
    case(&[], None, None, RunError::NoTokens);
    case(&ids, None, None, RunError::TooManyTokens { have: 21, limit: 20 });
    let unknown = |position, id| RunError::UnknownToken { position, id, vocab: 90 };
    case(&[90], None, None, unknown(0, 90));
    case(&[1, 2, u32::MAX], None, None, unknown(2, u32::MAX));
    let token_type =
        |position, token_type| RunError::UnknownTokenType { position, token_type, types: 2 };
    case(&[1, 2], Some(&[1, 2]), None, token_type(1, 2));
    case(&[1, 2], Some(&[255, 0]), None, token_type(0, 255));
    let lengths = |what, have| RunError::Lengths { what, have, need: 2 };
    case(&[1, 2], Some(&[1]), None, lengths("token_type_ids", 1));
    case(&[1, 2], Some(&[]), None, lengths("token_type_ids", 0));
    case(&[1, 2], None, Some(&[1, 1, 1]), lengths("attention_mask", 3));
    case(&[1, 2], None, Some(&[0, 0]), RunError::AllMasked);
}

fn features<'o>(layers: &str, pooling: Pooling, out: &'o mut [f32]) -> Output<'o> {
    Output::Features { layers: layers.parse().unwrap(), pooling, normalize: false, out }
}

#[test]
fn outputs_that_cannot_be() {
    let mut spec = Spec::new(SMALL, Encoding::Int8);
    spec.heads = false;
    let without = spec.file();
    let with = file();
    let ids = [1, 2, 3];
    let ask = |file: &Aligned, output: Output<'_>| {
        let model = Model::from_bytes(file).unwrap();
        run(model, Isa::detect(), 1, &Input::new(&ids), &mut [output])
    };
    let out = &mut vec![0.0; 1000][..];

    let error = ask(&without, features("last", Pooling::Pooler, &mut out[..48]));
    assert_eq!(error, Err(RunError::MissingHead("pooler")));
    for head in Head::ALL {
        assert_eq!(head.logits_len(&Model::from_bytes(&without).unwrap(), 3), None);
        for length in [0, 2, 5, 15] {
            let error = ask(&without, Output::Logits { head, out: &mut out[..length] });
            assert_eq!(error, Err(RunError::MissingHead(head.name())));
        }
    }
    let error = ask(&without, Output::MaskedLm { positions: &[0], out: &mut out[..90] });
    assert_eq!(error, Err(RunError::MissingHead("masked_lm")));

    // Sections that are not heads.
    let model = Model::from_bytes(&with).unwrap();
    for section in model.sections() {
        let head = Head::from_section(section.kind);
        assert!(head.is_none_or(|head| head.section() == section.kind));
    }

    for layer in [3, -4, i16::MAX, i16::MIN] {
        let error = ask(&with, features(&layer.to_string(), Pooling::Cls, &mut out[..48]));
        assert_eq!(error, Err(RunError::NoSuchLayer { layer, layers: 2 }));
    }
    for layer in [2, 3, usize::MAX] {
        let error = ask(&with, Output::Attention { layer, out: &mut out[..27] });
        assert!(matches!(error, Err(RunError::NoSuchLayer { .. })));
    }
    let error = ask(&with, Output::MaskedLm { positions: &[0, 3], out: &mut out[..180] });
    assert_eq!(error, Err(RunError::NoSuchPosition(3)));

    let wrong = |need: usize| {
        move |have: usize| {
            let what = "an output";
            Err(match have < need {
                true => RunError::TooSmall(TooSmall { what, need, have }),
                false => RunError::OutputTooLong { need, have },
            })
        }
    };
    for have in [0, 47, 49, 144] {
        let error = ask(&with, features("last", Pooling::Mean, &mut out[..have]));
        assert_eq!(error, wrong(48)(have));
    }
    for (layers, pooling, need) in [
        ("last", Pooling::None, 144),
        ("concat:0,1", Pooling::None, 288),
        ("concat:all", Pooling::MeanMax, 192),
        ("sum:all", Pooling::MeanMax, 96),
    ] {
        for have in [need - 1, need + 1] {
            let error = ask(&with, features(layers, pooling, &mut out[..have]));
            assert_eq!(error, wrong(need)(have));
        }
        assert_eq!(ask(&with, features(layers, pooling, &mut out[..need])), Ok(()));
    }
    for (head, need) in Head::ALL.into_iter().zip([15, 5, 2, 6]) {
        assert_eq!(head.logits_len(&model, 3), Some(need));
        let error = ask(&with, Output::Logits { head, out: &mut out[..need + 1] });
        assert_eq!(error, wrong(need)(need + 1));
        assert_eq!(ask(&with, Output::Logits { head, out: &mut out[..need] }), Ok(()));
    }
    let error = ask(&with, Output::Attention { layer: 0, out: &mut out[..26] });
    assert_eq!(error, wrong(27)(26));
    let error = ask(&with, Output::MaskedLm { positions: &[0, 1], out: &mut out[..90] });
    assert_eq!(error, wrong(180)(90));
    assert_eq!(ask(&with, Output::MaskedLm { positions: &[], out: &mut [] }), Ok(()));

    let (a, b) = out.split_at_mut(48);
    let mut both = [
        features("sum:all", Pooling::Max, a),
        features("mean:all", Pooling::MeanMax, &mut b[..96]),
    ];
    let error = run(model, Isa::detect(), 1, &Input::new(&ids), &mut both);
    assert_eq!(error, Err(RunError::TwoCombinedMaxima));
}

/// An executor is foreign code; what it says of itself must do no harm.
#[test]
fn executors_that_lie() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    struct Liar(AtomicUsize);
    impl bertlet::Executor for Liar {
        fn threads(&self) -> usize {
            self.0.fetch_add(3, Ordering::Relaxed)
        }
        fn join(&self, a: &mut (dyn FnMut() + Send), b: &mut (dyn FnMut() + Send)) {
            b();
            a();
        }
    }
    let file = file();
    let model = Model::from_bytes(&file).unwrap();
    let ids = ids(&SMALL, 64, 1);
    let liar = Liar(AtomicUsize::new(0));
    let mut scratch = vec![0; SMALL.scratch_len(64)];
    let mut encoder =
        Encoder::with_executor(model, Isa::detect(), &mut scratch, 64, &liar).unwrap();
    let mut out = [0.0; 48];
    let output = Output::Features {
        layers: Layers::LAST,
        pooling: Pooling::Mean,
        normalize: true,
        out: &mut out,
    };
    encoder.encode(&Input::new(&ids), &mut [output]).unwrap();
}

/// A file that somebody overwrites while it is mapped: wrong answers, and nothing worse.
#[test]
#[cfg(unix)]
fn overwriting_a_mapped_file_does_no_harm() {
    use std::os::unix::fs::FileExt;

    let path = std::env::temp_dir().join(format!("bertlet-overwritten-{}", std::process::id()));
    let mut random = common::Random::new(11);
    for encoding in [Encoding::Int8, Encoding::F16, Encoding::F32] {
        let mut spec = Spec::new(SMALL, encoding);
        spec.decoder = true;
        let whole = spec.file();
        let table_end = entry(Model::from_bytes(&whole).unwrap().sections().count());
        for round in 0..80 {
            std::fs::write(&path, &whole[..]).unwrap();
            let file = bertlet::ModelFile::open(&path).unwrap();
            let model = file.model();
            let (start, length) = match round {
                0..4 => (0, whole.len()),
                4..8 => (0, table_end),
                _ => (random.below(table_end), 1 + random.below(64)),
            };
            let fill = [0xff, 0, 0x7f, random.next() as u8][round % 4];
            let mut patch = vec![fill; length];
            if round >= 40 {
                patch.iter_mut().for_each(|byte| *byte = random.next() as u8);
            }
            let over = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            over.write_all_at(&patch, start as u64).unwrap();

            assert!(model.verify().is_err(), "round {round}");
            assert_eq!(*model.config(), spec.config);
            let bytes: usize = model.sections().map(|s| model.section_bytes(s).len()).sum();
            assert!(bytes <= model.sections().count() * whole.len());
            assert_eq!(model.labels().iter().count(), spec.labels);
            let _ = (model.provenance(), model.tokenizer_bytes());
            let ids = ids(&spec.config, 18, 1);
            let (mut a, mut b) = ([0.0; 96], vec![0.0; 18 * 5]);
            let (mut c, mut d) = ([0.0; 5], vec![0.0; 90]);
            let mut outputs = [
                features("sum:all", Pooling::MeanMax, &mut a),
                Output::Logits { head: Head::TokenClassifier, out: &mut b },
                Output::Logits { head: Head::SequenceClassifier, out: &mut c },
                Output::MaskedLm { positions: &[3], out: &mut d },
            ];
            let answer = run(model, Isa::detect(), 1, &Input::new(&ids), &mut outputs);
            assert!(matches!(answer, Ok(()) | Err(RunError::NotFinite(_))), "{answer:?}");
        }
    }
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn prompts_are_read_or_refused() {
    let with = |bytes: &[u8]| {
        let mut writer = Spec::new(SMALL, Encoding::Int8).writer();
        writer.bytes(SectionKind::Prompts, bytes.to_vec());
        Aligned::new(&writer.to_vec())
    };
    let section = |numbers: &[u32], text: &str| {
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        bytes.extend(text.bytes());
        bytes
    };
    let none = u32::MAX;
    let good = section(&[2, 1, 0, 1, 4, 4, 7], "aA: b: ");
    let file = with(&good);
    let prompts = Model::from_bytes(&file).unwrap().prompts();
    let all: Vec<_> = prompts.iter().map(|prompt| (prompt.name, prompt.text)).collect();
    assert_eq!(all, [("a", "A: "), ("", "b: ")]);
    assert_eq!(prompts.default_prompt().map(|prompt| prompt.text), Some("b: "));
    assert_eq!(prompts.named("a").map(|prompt| prompt.text), Some("A: "));

    for bytes in [
        &section(&[2, 2, 0, 1, 4, 4, 7], "aA: b: ")[..],
        &section(&[2, none - 1, 0, 1, 4, 4, 7], "aA: b: "),
        &section(&[none, none, 0], ""),
        &good[..24],
        &section(&[0, none], ""),
        &[1, 0, 0],
        &[],
    ] {
        assert_eq!(refused(&with(bytes)), FormatError::Contents(SectionKind::Prompts, 0));
    }
    // Offsets that lead nowhere, and bytes that are not text, are no prompts.
    for bytes in [
        section(&[1, 0, 3, 1, 9], "abc"),
        section(&[1, 0, 0, none, none], "abc"),
        section(&[1, 0, 0, 1, 2], "\u{e9}"),
    ] {
        let file = with(&bytes);
        let prompts = Model::from_bytes(&file).unwrap().prompts();
        assert_eq!((prompts.iter().count(), prompts.default_prompt()), (0, None));
    }
    let file = with(&section(&[0, none, 0], ""));
    assert!(Model::from_bytes(&file).unwrap().prompts().is_empty());
    assert!(Model::from_bytes(&self::file()).unwrap().prompts().default_prompt().is_none());
}

/// The order of the table belongs to the specification, so the writer keeps to it.
#[test]
#[should_panic(expected = "not in its place")]
fn sections_out_of_order_are_not_written() {
    let mut writer = Spec::new(SMALL, Encoding::Int8).writer();
    writer.bytes(SectionKind::Tokenizer, vec![1]);
    writer.bytes(SectionKind::Tokenizer, vec![1]);
    writer.to_vec();
}

/// Rewrites the checksums of all sections and of the head.
fn fix_all(file: &mut Aligned) {
    let sums: Vec<u64> = {
        let model = Model::from_bytes(file).unwrap();
        model.sections().map(|s| xxh64(model.section_bytes(s))).collect()
    };
    for (index, sum) in sums.into_iter().enumerate() {
        put_long(file, entry(index) + 48, sum);
    }
    fix_checksum(file);
}

/// What `verify` says of a file with these bytes of a section changed and all checksums right.
fn changed_section(file: &Aligned, kind: SectionKind, at: usize, bytes: &[u8]) -> FormatError {
    let mut file = file.copy();
    let section = Model::from_bytes(&file).unwrap().section(kind);
    let section =
        section.or(Model::from_bytes(&file).unwrap().sections().find(|s| s.kind == kind)).unwrap();
    file[section.offset + at..][..bytes.len()].copy_from_slice(bytes);
    fix_all(&mut file);
    Model::from_bytes(&file).unwrap().verify().expect_err("a rule is broken")
}

#[test]
fn numbers_that_instruction_sets_read_differently_are_refused() {
    use BadNumber::{Bias, OutOfRange, Padding, Scale, Sum, Value};
    use SectionKind as K;
    // Heads of 10 places, padded to 16; no size is a multiple of 16.
    let config = Config { hidden_size: 30, num_attention_heads: 3, intermediate_size: 21, ..SMALL };
    let nan = f32::NAN.to_le_bytes();
    let (int8, f32s) = (Spec::new(config, Encoding::Int8), Spec::new(config, Encoding::F32));
    let f16s = Spec::new(config, Encoding::F16);
    let infinite = f16::INFINITY.to_le_bytes();
    // A matrix of int8: `[N16 / 16][K16 / 4][16][4]`, scales, biases, sums.
    let weights = 32 * 32;
    for (spec, kind, at, bytes, expected) in [
        (int8, K::Intermediate, 64 + 5, &[0x80][..], OutOfRange(64 + 5)),
        (int8, K::Intermediate, weights + 4 * 32 * 2 + 8, &[1, 2, 3, 4], Sum(2)),
        (int8, K::Intermediate, weights + 4 * 3, &nan, Scale(3)),
        (int8, K::Intermediate, weights + 4 * 3 + 3, &[0xc0], Scale(3)),
        (int8, K::Intermediate, weights + 4 * 32 + 4 * 20, &nan, Bias(20)),
        // Inputs past 30, outputs past 21.
        (int8, K::Intermediate, 7 * 64 + 2, &[1], Padding(7 * 64 + 2)),
        (int8, K::Intermediate, 512 + 5 * 4, &[1], Padding(512 + 5 * 4)),
        (int8, K::Intermediate, weights + 4 * 21, &[1], Padding(weights + 4 * 21)),
        (int8, K::Intermediate, weights + 4 * 53, &[1], Padding(weights + 4 * 53)),
        (int8, K::Intermediate, weights + 4 * 85, &[1], Sum(21)),
        // Places past 10 of a head: outputs of the queries, inputs of the output projection.
        (int8, K::QueryKeyValue, 10 * 4, &[1], Padding(10 * 4)),
        (int8, K::AttentionOutput, 2 * 64 + 2, &[1], Padding(2 * 64 + 2)),
        (int8, K::WordEmbeddings, 3, &[0x80], OutOfRange(3)),
        (int8, K::WordEmbeddings, 32 + 30, &[1], Padding(32 + 30)),
        (int8, K::WordEmbeddings, 90 * 32 + 1, &[0x7c], Scale(0)),
        (int8, K::WordEmbeddings, 90 * 32 + 3, &[0x80], Scale(1)),
        (int8, K::EmbeddingsNorm, 4 * 7, &nan, Value(7)),
        (int8, K::EmbeddingsNorm, 4 * 30, &[1], Padding(4 * 30)),
        (int8, K::OutputNorm, 4 * 33, &nan, Value(33)),
        (int8, K::MaskedLmBias, 4 * 9, &nan, Value(9)),
        (int8, K::MaskedLmBias, 4 * 90, &[1], Padding(4 * 90)),
        (f32s, K::Output, 4 * 17, &nan, Value(17)),
        (f32s, K::Output, 4 * (21 * 16 + 14), &[1], Padding(4 * (21 * 16 + 14))),
        (f32s, K::Output, 4 * 2 * 21 * 16 + 4 * 5, &nan, Bias(5)),
        (f32s, K::QueryKeyValue, 4 * 10, &[1], Padding(4 * 10)),
        (f32s, K::QueryKeyValue, 4 * 9 * 30 * 16 + 4 * 11, &[1], Padding(4 * 9 * 30 * 16 + 4 * 11)),
        (f32s, K::PositionEmbeddings, 4 * 5, &nan, Value(5)),
        (f16s, K::Output, 2 * 17, &infinite, Value(17)),
        (f16s, K::WordEmbeddings, 2 * 17, &infinite, Value(17)),
        (f16s, K::WordEmbeddings, 2 * 30, &[1], Padding(2 * 30)),
        (f16s, K::Pooler, 2 * 2 * 30 * 16 + 4, &nan, Bias(1)),
    ] {
        let file = spec.file();
        assert_eq!(Model::from_bytes(&file).unwrap().verify(), Ok(()));
        let found = changed_section(&file, kind, at, bytes);
        assert_eq!(found, FormatError::Number(kind, 0, expected), "{:?}", spec.matrices);
        assert!(found.to_string().contains(&format!("section {kind:?} (layer 0): ")), "{found}");
    }
}

#[test]
fn answers_that_are_not_finite_are_errors_that_name_the_layer() {
    use SectionKind as K;
    // A gamma so large that only the last state, or one before it, overflows.
    for (encoding, kind, layer, at, place) in [
        (Encoding::F32, K::EmbeddingsNorm, 0, 4 * 20, NotFinite::HiddenState(0)),
        (Encoding::F32, K::OutputNorm, 0, 4 * 20, NotFinite::HiddenState(1)),
        (Encoding::Int8, K::OutputNorm, 0, 4 * 20, NotFinite::HiddenState(1)),
        (Encoding::Int8, K::OutputNorm, 1, 0, NotFinite::HiddenState(2)),
        (Encoding::F32, K::OutputNorm, 1, 4 * 47, NotFinite::HiddenState(2)),
        (Encoding::F32, K::TokenClassifier, 0, 4 * 16 * 48, NotFinite::Head("token_classifier")),
        (Encoding::F32, K::MaskedLmBias, 0, 4 * 5, NotFinite::Head("masked_lm")),
    ] {
        let spec = Spec::new(SMALL, encoding);
        let mut file = spec.file();
        let section = Model::from_bytes(&file).unwrap().sections();
        let section = { section }.find(|s| s.kind == kind && s.layer == layer).unwrap();
        let bad = if kind == K::TokenClassifier { f32::NAN } else { f32::INFINITY };
        file[section.offset + at..][..4].copy_from_slice(&bad.to_le_bytes());
        fix_all(&mut file);
        let model = Model::from_bytes(&file).unwrap();
        let input_ids = ids(&spec.config, 9, 3);
        let input = Input::new(&input_ids);
        let len = |head: Head| head.logits_len(&model, 9).unwrap();
        let mut outputs: [Vec<f32>; 4] = [
            vec![0.0; 48],
            vec![0.0; len(Head::TokenClassifier)],
            vec![0.0; 90],
            vec![0.0; len(Head::SequenceClassifier)],
        ];
        let [mean, tokens, words, sequence] = &mut outputs;
        let head = matches!(place, NotFinite::Head(_));
        for (output, by_head) in [
            (features("last", Pooling::Mean, mean), false),
            (
                Output::Logits { head: Head::TokenClassifier, out: tokens },
                kind == K::TokenClassifier,
            ),
            (Output::MaskedLm { positions: &[2], out: words }, kind == K::MaskedLmBias),
            (Output::Logits { head: Head::SequenceClassifier, out: sequence }, false),
        ] {
            // The pooler's tanh hides an overflow of the last layer, but not from this.
            let found = run(model, Isa::detect(), 1, &input, &mut [output]);
            let expected = if head && !by_head { Ok(()) } else { Err(RunError::NotFinite(place)) };
            let last_only = layer == 1 && at == 4 * 47;
            if last_only && found.is_err() {
                assert!(matches!(found, Err(RunError::NotFinite(_))), "{found:?}");
                continue;
            }
            assert_eq!(found, expected, "{encoding:?} {kind:?}");
        }
    }
}
