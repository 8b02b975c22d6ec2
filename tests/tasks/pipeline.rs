//! Entities against a run of transformers' `TokenClassificationPipeline`, which `golden/pipeline.py` wrote
//! down: spans, labels and scores of each strategy.
//!
//! One difference is wanted. Transformers takes a token for a part of the word before it if it has another number
//! of characters than its stretch of text, which is wrong where normalising changes that number. Here words are
//! those of the tokenizer. Strategies by words are compared with transformers where the two agree, and
//! everywhere with the entities of the ids, which are found by the `##` of the tokens alone.

use std::io::Write;
use std::path::{Path, PathBuf};

use bertlet::Input;
use bertlet::tasks::{Aggregation, Entity, EntityOptions, Text};
use serde_json::Value;

use crate::Loaded;
use crate::common::{Weights, writer_of};
use crate::entities::find;

/// What the pipeline found, by the name of the model.
fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tasks/golden/pipeline.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Label, first character, one past the last character, text.
type Span = (String, u64, u64, String);

/// What a slice of a text has in common with the pipeline's word for it, which is made of tokens: spaces
/// stand elsewhere there, and signs are missing that normalising takes away.
fn letters(text: &str) -> String {
    text.replace("##", "").chars().filter(|c| c.is_alphanumeric()).collect()
}

/// Whether transformers would find the same words in a text.
fn words_agree(loaded: &Loaded, text: &str) -> bool {
    let tokenizer = loaded.model().tokenizer().unwrap();
    let tokens: Vec<_> = tokenizer.tokens(text).map(Result::unwrap).collect();
    (0..tokens.len()).all(|i| {
        let token = tokens[i];
        let stretch = &text[token.start as usize..token.end as usize];
        let name = tokenizer.token(token.id).unwrap();
        let theirs =
            token.id != tokenizer.unk_id() && name.chars().count() != stretch.chars().count();
        theirs == (i > 0 && tokens[i - 1].word == token.word)
    })
}

/// The entities of the ids of a text: label, score, first and last token.
type Tokens = Vec<(String, f32, usize, usize)>;

fn of_tokens(entities: &[Entity<'_>]) -> Tokens {
    entities.iter().map(|e| (e.label.to_owned(), e.score, e.first, e.last)).collect()
}

fn by_ids(loaded: &Loaded, text: &str, limit: usize, options: EntityOptions) -> Tokens {
    let tokenizer = loaded.model().tokenizer().unwrap();
    let tokens = tokenizer.tokens(text).map(|token| token.unwrap().id);
    let ids: Vec<u32> =
        [tokenizer.cls_id()].into_iter().chain(tokens).chain([tokenizer.sep_id()]).collect();
    of_tokens(&find(loaded, Text::Ids(Input::new(&ids)), limit, None, options).unwrap().entities)
}

fn check(loaded: &Loaded, cases: &Value, tolerance: f64) {
    let limit = loaded.model().config().max_position_embeddings;
    let lowercase = loaded.model().tokenizer().unwrap().settings().lowercase;
    let cases = cases.as_array().unwrap();
    assert!(!cases.is_empty());
    let mut differ = 0;
    for case in cases {
        let text = case["text"].as_str().unwrap();
        for (name, aggregation) in Aggregation::NAMES {
            let options = EntityOptions { aggregation, constrained: false };
            let found = find(loaded, Text::Str(text), limit, None, options).unwrap();
            assert!(!found.truncated, "{text:?}");
            // Special tokens in a text are words, and not among ids.
            if !text.contains("[SEP]") {
                let by_ids = by_ids(loaded, text, limit, options);
                assert_eq!(of_tokens(&found.entities), by_ids, "{name}: {text:?}");
            }
            let by_words = !matches!(aggregation, Aggregation::None | Aggregation::Simple);
            if by_words && !words_agree(loaded, text) {
                differ += 1;
                continue;
            }
            let ours: Vec<Span> = found
                .entities
                .iter()
                .map(|e| {
                    let slice = &text[e.start.byte as usize..e.end.byte as usize];
                    (e.label.into(), e.start.char.into(), e.end.char.into(), slice.into())
                })
                .collect();
            let expected = case[name].as_array().unwrap();
            let theirs: Vec<Span> = expected
                .iter()
                .map(|e| {
                    let (start, end) = (e[1].as_u64().unwrap(), e[2].as_u64().unwrap());
                    let (skip, take) = (start as usize, (end - start) as usize);
                    let slice = text.chars().skip(skip).take(take).collect();
                    (e[0].as_str().unwrap().into(), start, end, slice)
                })
                .collect();
            assert_eq!(ours, theirs, "{name}: {text:?}");
            for (ours, theirs) in found.entities.iter().zip(expected) {
                let off = (f64::from(ours.score) - theirs[3].as_f64().unwrap()).abs();
                assert!(off < tolerance, "{name}: {text:?}: {ours:?} is off by {off}");
            }
            for (ours, theirs) in ours.iter().zip(expected).filter(|_| !lowercase) {
                assert_eq!(letters(&ours.3), letters(theirs[4].as_str().unwrap()), "{text:?}");
            }
        }
    }
    assert!(differ <= 3 * cases.len() / 4, "{differ}: most texts are compared");
}

#[test]
fn models_of_the_repository_find_what_transformers_finds() {
    let golden = golden();
    check(&Loaded::new("tiny-ner", Weights::F32), &golden["tiny-ner"], 1e-4);
    let micro = "micro-token-classification";
    for (scheme, labels) in [
        ("bio", ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]),
        ("names", ["O", "PER", "LOC", "ORG", "MISC"]),
        ("hyphens", ["O", "B-place-name", "I-place-name", "B-a", "I-a"]),
        ("loose", ["O", "PER", "I-PER", "B-PER", "LOC"]),
    ] {
        let loaded = Loaded::with_labels(micro, Weights::F32, &labels);
        check(&loaded, &golden[format!("{micro} {scheme}")], 1e-5);
    }
}

#[test]
fn a_larger_model_finds_what_transformers_finds() {
    let folder =
        std::env::var_os("BERTLET_DATA").map(|data| PathBuf::from(data).join("models/minilm-ner"));
    let Some(folder) = folder.filter(|folder| folder.is_dir()) else {
        // Past the test harness, which would swallow it.
        writeln!(std::io::stderr(), "skipped: minilm-ner is not in BERTLET_DATA").unwrap();
        return;
    };
    let writer = writer_of(&folder, Weights::F32, |_| ());
    check(&Loaded::of(&writer), &golden()["minilm-ner"], 1e-4);
}
