//! Logits against the reference implementation's, which `golden/` and `BERTLET_DATA` hold.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use bertlet::heads::{Fill, argmax};
use bertlet::tasks;
use bertlet::{
    Input, MaskedLm, NextSentence, QuestionAnswering, RunError, SequenceClassifier, TokenClassifier,
};
use serde_json::Value;

use crate::Loaded;
use crate::common::Weights;

/// The arrays of a safetensors file, as f32: shape and values.
pub struct Arrays(BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Arrays {
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let (head, data) = bytes[8..].split_at(length);
        let head: BTreeMap<String, Value> = serde_json::from_slice(head).unwrap();
        let read = |about: &Value| {
            let number = |value: &Value| value.as_u64().unwrap() as usize;
            let shape = about["shape"].as_array().unwrap().iter().map(number).collect();
            let ends = &about["data_offsets"];
            let (words, []) = data[number(&ends[0])..number(&ends[1])].as_chunks::<4>() else {
                panic!("not of 4 bytes each")
            };
            let integers = about["dtype"] == "I32";
            let value = |bytes: &[u8; 4]| match integers {
                true => i32::from_le_bytes(*bytes) as f32,
                false => f32::from_le_bytes(*bytes),
            };
            (shape, words.iter().map(value).collect())
        };
        let arrays = head.into_iter().filter(|(name, _)| name != "__metadata__");
        Self(arrays.map(|(name, about)| (name, read(&about))).collect())
    }

    /// Row `row` of a batch.
    fn row(&self, name: &str, row: usize) -> Option<&[f32]> {
        let (shape, values) = self.0.get(name)?;
        let length = values.len() / shape[0];
        Some(&values[row * length..][..length])
    }

    /// Every case, one row of a batch at a time.
    fn cases(&self) -> Vec<Case<'_>> {
        let ids = self.0.iter().filter_map(|(name, (shape, _))| {
            name.strip_suffix(".input_ids").map(|case| (case, shape[0]))
        });
        ids.flat_map(|(name, rows)| {
            (0..rows).map(move |row| {
                let whole = |suffix: &str| {
                    let values = self.row(&format!("{name}.{suffix}"), row);
                    values.map(|v| v.iter().map(|x| *x as u32).collect::<Vec<_>>())
                };
                let bytes = |suffix| whole(suffix).map(|v| v.iter().map(|x| *x as u8).collect());
                Case {
                    arrays: self,
                    name,
                    row,
                    ids: whole("input_ids").unwrap(),
                    types: bytes("token_type_ids"),
                    mask: bytes("attention_mask"),
                }
            })
        })
        .collect()
    }
}

struct Case<'g> {
    arrays: &'g Arrays,
    name: &'g str,
    row: usize,
    ids: Vec<u32>,
    types: Option<Vec<u8>>,
    mask: Option<Vec<u8>>,
}

impl Case<'_> {
    fn input(&self) -> Input<'_> {
        Input {
            input_ids: &self.ids,
            token_type_ids: self.types.as_deref(),
            attention_mask: self.mask.as_deref(),
        }
    }

    fn expected(&self, name: &str) -> &[f32] {
        self.arrays.row(&format!("{}.{name}", self.name), self.row).unwrap()
    }

    /// Compares; rows of masked tokens, which nobody uses, are left out.
    fn check(&self, got: &[f32], name: &str, tolerance: f32) {
        let expected = self.expected(name);
        assert_eq!(got.len(), expected.len(), "{}", self.name);
        let width = got.len() / self.ids.len().min(got.len());
        let per_token = got.len() == width * self.ids.len();
        for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
            let masked = per_token && self.mask.as_ref().is_some_and(|m| m[i / width] == 0);
            assert!(
                masked || (got - expected).abs() <= tolerance,
                "{} {name}[{i}]: {got} for {expected}",
                self.name
            );
        }
    }
}

pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tasks/golden").join(name)
}

fn arrays(name: &str) -> Arrays {
    Arrays::read(&golden(&format!("{name}.safetensors")))
}

#[test]
fn token_classification_agrees() {
    let loaded = Loaded::new("micro-token-classification", Weights::F32);
    let head = TokenClassifier::new(&loaded.model()).unwrap();
    for case in arrays("micro-token-classification").cases() {
        let mut logits = vec![0.0; head.logits_len(case.ids.len())];
        loaded.encode(64, |encoder| head.logits(encoder, &case.input(), &mut logits).unwrap());
        case.check(&logits, "logits", 1e-4);
    }
}

#[test]
fn sequence_classification_agrees() {
    let loaded = Loaded::new("micro-sequence-classification", Weights::F32);
    let head = SequenceClassifier::new(&loaded.model()).unwrap();
    for case in arrays("micro-sequence-classification").cases() {
        let mut logits = vec![0.0; head.logits_len()];
        loaded.encode(64, |encoder| head.logits(encoder, &case.input(), &mut logits).unwrap());
        case.check(&logits, "logits", 1e-4);
    }
}

#[test]
fn next_sentence_agrees() {
    let loaded = Loaded::new("micro", Weights::F32);
    let head = NextSentence::new(&loaded.model()).unwrap();
    for case in arrays("micro-next-sentence").cases() {
        let logits = loaded.encode(64, |encoder| head.logits(encoder, &case.input()).unwrap());
        case.check(&logits, "seq_relationship_logits", 1e-4);
        let expected = 1.0 / (1.0 + (logits[1] - logits[0]).exp());
        assert!((head.score(logits) - expected).abs() < 1e-5);
    }
}

#[test]
fn question_answering_agrees() {
    let loaded = Loaded::new("micro-qa", Weights::F32);
    let head = QuestionAnswering::new(&loaded.model()).unwrap();
    for case in arrays("micro-qa").cases() {
        let mut logits = vec![0.0; head.logits_len(case.ids.len())];
        loaded.encode(64, |encoder| head.logits(encoder, &case.input(), &mut logits).unwrap());
        let column = |i| logits.as_chunks::<2>().0.iter().map(|row| row[i]).collect::<Vec<_>>();
        case.check(&column(0), "start_logits", 1e-4);
        case.check(&column(1), "end_logits", 1e-4);
        // The best span by trying them all, in the reference's numbers.
        let (starts, ends) = (case.expected("start_logits"), case.expected("end_logits"));
        let live =
            case.mask.as_ref().map_or(case.ids.len(), |m| m.iter().map(|x| *x as usize).sum());
        let context = 1..live - 1;
        let mut best = None;
        for first in context.clone() {
            let ends = ends.iter().enumerate().take(context.end.min(first + 4)).skip(first);
            for (last, end) in ends {
                let sum = starts[first] + end;
                if best.is_none_or(|(_, _, most)| sum > most) {
                    best = Some((first, last, sum));
                }
            }
        }
        let got = head.best(&mut logits, context, 4).map(|span| (span.first, span.last));
        assert_eq!(got, best.map(|(first, last, _)| (first, last)), "{}", case.name);
    }
}

#[test]
fn masked_words_agree() {
    let loaded = Loaded::new("micro-mlm", Weights::F32);
    let (model, head) = (loaded.model(), MaskedLm::new(&loaded.model()).unwrap());
    let vocab = head.logits_len(1);
    for case in arrays("micro-mlm").cases() {
        let positions: Vec<usize> = (0..case.ids.len()).collect();
        let mut logits = vec![0.0; head.logits_len(positions.len())];
        loaded.encode(64, |encoder| {
            head.logits(encoder, &case.input(), &positions, &mut logits).unwrap();
        });
        case.check(&logits, "logits", 1e-4);

        // Only the positions of [MASK], and the likeliest words there.
        let tokenizer = model.tokenizer().unwrap();
        let masks: Vec<usize> = tasks::mask_positions(&tokenizer, &case.ids).collect();
        let count = masks.len();
        assert_eq!(count, usize::from(case.name == "mask"));
        let mut logits = vec![0.0; head.logits_len(count)];
        loaded.encode(64, |encoder| {
            head.logits(encoder, &case.input(), &masks[..count], &mut logits).unwrap();
        });
        for (position, logits) in masks.iter().zip(logits.chunks_exact_mut(vocab)) {
            let expected = &case.expected("logits")[position * vocab..][..vocab];
            let mut best = [Fill::default(); 3];
            assert_eq!(head.top(logits, &mut best), 3);
            let first = argmax(expected).unwrap();
            let sum: f64 = expected.iter().map(|x| f64::from(*x - expected[first]).exp()).sum();
            assert_eq!(best[0].id as usize, first);
            assert!((f64::from(best[0].score) - 1.0 / sum).abs() < 1e-4);
            assert!(best[0].score >= best[1].score && best[1].score >= best[2].score);
        }
    }
}

/// Logits and predicted labels of the cases of a fine-tuned checkpoint.
fn check_labels(loaded: &Loaded, folder: &Path, tokens: bool, tolerance: f32) {
    let name = |extension: &str| folder.with_extension(extension);
    let (logits, cases) = if name("safetensors").exists() {
        (name("safetensors"), name("json"))
    } else {
        (folder.join("logits.safetensors"), folder.join("cases.json"))
    };
    let arrays = Arrays::read(&logits);
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(cases).unwrap()).unwrap();
    let model = loaded.model();
    let limit = model.config().max_position_embeddings;
    for case in arrays.cases() {
        let mut got = vec![0.0; case.expected("logits").len()];
        loaded
            .encode(limit, |encoder| match tokens {
                true => {
                    TokenClassifier::new(&model).unwrap().logits(encoder, &case.input(), &mut got)
                }
                false => SequenceClassifier::new(&model).unwrap().logits(
                    encoder,
                    &case.input(),
                    &mut got,
                ),
            })
            .unwrap();
        case.check(&got, "logits", tolerance);
        let about =
            cases.iter().find(|c| case.name.parse() == Ok(c["i"].as_u64().unwrap())).unwrap();
        let labels = got.chunks_exact(model.labels().len()).map(|row| argmax(row).unwrap());
        let labels: Vec<&str> = labels.map(|i| model.labels().get(i).unwrap()).collect();
        let expected: Vec<&str> =
            about["pred"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
        assert_eq!(labels, expected, "{}", about["text"]);

        // From the text itself the same tokens come.
        let text = about["text"].as_str().unwrap();
        let mut ids = vec![0; limit];
        let mut buffer =
            bertlet::tokenizer::TokenBuffer { input_ids: &mut ids, ..Default::default() };
        let limits = bertlet::tokenizer::Limits::new(limit);
        let encoded = model.tokenizer().unwrap().encode(text, None, &limits, &mut buffer).unwrap();
        assert_eq!(ids[..encoded.len], case.ids);
    }
}

#[test]
fn shipped_models_agree() {
    for (name, tokens) in [("tiny-ner", true), ("tiny-sst2", false)] {
        check_labels(&Loaded::new(name, Weights::F32), &golden(name), tokens, 1e-4);
    }
}

#[test]
fn larger_models_agree() {
    // Past the test harness, which would swallow it.
    let skipped = |why: &str| writeln!(std::io::stderr(), "skipped: {why}").unwrap();
    let Some(data) = std::env::var_os("BERTLET_DATA").map(PathBuf::from) else {
        skipped("BERTLET_DATA is not set, so minilm-ner and minilm-sst2 were not compared");
        return;
    };
    for (name, tokens) in [("minilm-ner", true), ("minilm-sst2", false)] {
        let (checkpoint, golden) = (data.join("models").join(name), data.join("golden").join(name));
        if !checkpoint.is_dir() || !golden.is_dir() {
            skipped(&format!("{name} is not in BERTLET_DATA"));
            continue;
        }
        let writer = crate::common::writer_of(&checkpoint, Weights::F32, |_| ());
        check_labels(&Loaded::of(&writer), &golden, tokens, 1e-4);
    }
}

#[test]
fn a_missing_head_is_an_error() {
    let loaded = Loaded::new("micro-qa", Weights::F32);
    let model = loaded.model();
    assert!(QuestionAnswering::new(&model).is_ok());
    let missing = [
        TokenClassifier::new(&model).err(),
        SequenceClassifier::new(&model).err(),
        MaskedLm::new(&model).err(),
        NextSentence::new(&model).err(),
    ];
    for error in missing {
        assert!(matches!(error, Some(RunError::MissingHead(_))), "{error:?}");
    }
    let loaded = Loaded::new("micro", Weights::F32);
    assert!(QuestionAnswering::new(&loaded.model()).is_err());
}

#[test]
fn scores_follow_the_problem() {
    use bertlet::format::ProblemType;
    for problem in [ProblemType::SingleLabel, ProblemType::MultiLabel, ProblemType::Regression] {
        let source = bertlet_convert::source::open(
            &crate::common::checkpoint("micro-sequence-classification"),
            Default::default(),
        )
        .unwrap();
        let (mut bert, _) = bertlet_convert::load::bert(&source, false).unwrap();
        bert.heads.sequence_classifier.as_mut().unwrap().1 = problem;
        let extras =
            bertlet_convert::pack::Extras { labels: source.config.labels(3), ..Default::default() };
        let writer = bertlet_convert::pack::float(&bert, bertlet::format::Encoding::F32, &extras);
        let loaded = Loaded::of(&writer);
        let head = SequenceClassifier::new(&loaded.model()).unwrap();
        let logits = [1.0f32, -2.0, 0.5];
        let mut scores = logits;
        head.scores(&mut scores);
        let sum: f32 = logits.iter().map(|x| x.exp()).sum();
        for (score, x) in scores.iter().zip(logits) {
            let expected = match problem {
                ProblemType::SingleLabel => x.exp() / sum,
                ProblemType::MultiLabel => 1.0 / (1.0 + (-x).exp()),
                _ => x,
            };
            assert!((score - expected).abs() < 1e-6, "{problem:?}");
        }
    }
}
