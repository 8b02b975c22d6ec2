//! The shape of bert-base-chinese, 102 million parameters: in f16 with all its layers, in int8 with two
//! layers, because GPTQ is slow. Both are compared with the converter's f32 pass.

use bertlet::format::Encoding;
use bertlet::tasks::{Aggregation, EntityOptions};
use bertlet::{Head, Model, ModelFile, SectionKind};
use bertlet_convert::reference::{Sequence, hidden_states, logits};
use bertlet_convert::{ConvertOptions, WeightType};
use bertlet_convert::{load, measure, source};

use crate::checkpoint::{Shape, VOCAB, vocabularies, write};
use crate::common::Folder;
use crate::{SCHEMES, TEXTS, convert_with, entities, tokens};

const BASE: Shape = Shape {
    hidden: 768,
    layers: 12,
    heads: 12,
    intermediate: 3072,
    positions: 512,
    spread: 0.02,
    outside: 12.0,
};

#[test]
fn models_of_its_shape_run() {
    assert_eq!(BASE.parameters(), 102_267_648, "as bert-base-chinese");
    run(&BASE, WeightType::F16, 5e-4);
    run(&Shape { layers: 2, ..BASE }, WeightType::Int8, 0.02);
}

/// Runs a checkpoint from conversion to entities. `tolerance` bounds the relative root mean square error of
/// every hidden state and of the logits.
fn run(shape: &Shape, weights: WeightType, tolerance: f64) {
    let (name, vocab) = vocabularies().pop().unwrap();
    let (_, labels, tags) = SCHEMES[0];
    let planted: Vec<_> = "王小明北京大学沪".chars().zip(tags).collect();
    let folder = Folder::new(&format!("chinese-base-{weights:?}"));
    write(&folder.0, shape, &vocab, "BertForTokenClassification", labels, &planted);
    // A short text, because GPTQ takes time in proportion to it.
    let calibration = folder.0.join("calibration.txt");
    std::fs::write(&calibration, TEXTS.join("\n")).unwrap();
    let options =
        ConvertOptions { weights, calibration: Some(calibration), ..ConvertOptions::default() };
    let (path, report) = convert_with(&folder, options);
    assert_eq!(report.summary.parameters.encoder, shape.parameters());
    assert!(report.summary.dropped.is_empty(), "{:?}", report.summary.dropped);

    let file = ModelFile::open(&path).unwrap();
    let model = file.model();
    sections(model, shape, weights);

    // 660 tokens; the model takes the first 510.
    let long = TEXTS[0].repeat(60);
    let person = ("PER".to_owned(), "王小明");
    let school = ("ORG".to_owned(), "北京大学");
    let place = ("LOC".to_owned(), "沪");
    for (_, aggregation) in Aggregation::NAMES.into_iter().skip(1) {
        let options = EntityOptions { aggregation, ..EntityOptions::default() };
        assert_eq!(entities(model, TEXTS[0], &options), [person.clone(), school.clone()]);
        let mixed = [&person, &school, &place, &place].map(Clone::clone);
        assert_eq!(entities(model, TEXTS[1], &options), mixed);
    }
    let of_long: Vec<_> = [person, school].into_iter().cycle().take(93).collect();
    assert_eq!(entities(model, &long, &EntityOptions::default()), of_long);

    let tokenizer = model.tokenizer().unwrap();
    let ids = |text: &str| Sequence::single(tokens(&tokenizer, text, None).0);
    let mut batch: Vec<_> = TEXTS.map(ids).into();
    let cut = long.chars().take(510).collect::<String>();
    batch.push(ids(&cut));
    assert_eq!(batch[TEXTS.len()].ids.len(), shape.positions);
    let source = source::open(&folder.0, source::OpenOptions::default()).unwrap();
    let (bert, _) = load::bert(&source, false).unwrap();
    let theirs = hidden_states(&bert, &batch);
    let head = logits(&bert, &theirs[shape.layers], &batch).token_classifier.unwrap();
    let ours = measure::hidden_states(model, &batch).unwrap();
    assert_eq!(ours.len(), shape.layers + 1);
    for (i, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        let error = relative_rms(&ours.data, &theirs.data);
        println!("{weights:?} hidden state {i} ({name}): {error:.2e}");
        assert!(error < tolerance, "{weights:?}: hidden state {i} is off by {error}");
    }
    let ours = measure::logits(model, Head::TokenClassifier, &batch).unwrap();
    let ours: Vec<f32> = ours.into_iter().flat_map(|rows| rows.data).collect();
    assert!(ours.iter().all(|x| x.is_finite()));
    let error = relative_rms(&ours, &head.data);
    println!("{weights:?} logits ({name}): {error:.2e}");
    assert!(error < tolerance, "{weights:?}: logits are off by {error}");
}

/// Checks number, shape and encoding of the sections of each kind.
fn sections(model: Model<'_>, shape: &Shape, weights: WeightType) {
    let Shape { hidden, layers, intermediate, positions, .. } = *shape;
    let config = model.config();
    assert_eq!(
        (config.hidden_size, config.num_hidden_layers, config.num_attention_heads),
        (hidden, layers, shape.heads)
    );
    assert_eq!(
        (config.vocab_size, config.max_position_embeddings, config.type_vocab_size),
        (VOCAB, positions, 2)
    );
    let matrices = match weights {
        WeightType::Int8 => Encoding::Int8,
        _ => Encoding::F16,
    };
    for (kind, count, rows, cols, encoding) in [
        (SectionKind::WordEmbeddings, 1, VOCAB, hidden, Some(matrices)),
        (SectionKind::PositionEmbeddings, 1, positions, hidden, None),
        (SectionKind::TokenTypeEmbeddings, 1, 2, hidden, None),
        (SectionKind::EmbeddingsNorm, 1, 2, hidden, Some(Encoding::F32)),
        (SectionKind::QueryKeyValue, layers, 3 * hidden, hidden, Some(matrices)),
        (SectionKind::AttentionOutput, layers, hidden, hidden, Some(matrices)),
        (SectionKind::AttentionNorm, layers, 2, hidden, Some(Encoding::F32)),
        (SectionKind::Intermediate, layers, intermediate, hidden, Some(matrices)),
        (SectionKind::Output, layers, hidden, intermediate, Some(matrices)),
        (SectionKind::OutputNorm, layers, 2, hidden, Some(Encoding::F32)),
        (SectionKind::Pooler, 1, hidden, hidden, None),
        (SectionKind::TokenClassifier, 1, 8, hidden, None),
    ] {
        let found: Vec<_> = model.sections().filter(|section| section.kind == kind).collect();
        assert_eq!(found.len(), count, "{kind:?}");
        for section in found {
            assert_eq!((section.rows, section.cols), (rows, cols), "{kind:?}");
            assert!(encoding.is_none_or(|e| e == section.encoding), "{:?}", section.encoding);
        }
    }
}

fn relative_rms(ours: &[f32], theirs: &[f32]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let noise: f64 = ours.iter().zip(theirs).map(|(a, b)| square(a - b)).sum();
    (noise / theirs.iter().map(|x| square(*x)).sum::<f64>()).sqrt()
}
