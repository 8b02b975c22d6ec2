//! Entities in texts: long ones, odd ones, in words.

use std::sync::LazyLock;

use bertlet::heads::argmax;
use bertlet::tasks::{
    Aggregation, Entity, EntityOptions, EntityRecognizer, Label, TaskError, Text,
};
use bertlet::tokenizer::{Source, TokenizeError};
use bertlet::{Input, RunError, TooSmall};
use proptest::prelude::*;

use crate::Loaded;
use crate::common::{Weights, checkpoint, writer_extras};

/// What a run finds, and what it says of itself.
pub struct Found<'m> {
    pub entities: Vec<Entity<'m>>,
    pub truncated: bool,
    windows: usize,
    logits: Vec<f32>,
}

pub fn find<'m>(
    loaded: &'m Loaded,
    text: Text<'_>,
    limit: usize,
    overlap: Option<usize>,
    options: EntityOptions,
) -> Result<Found<'m>, TaskError> {
    let model = loaded.model();
    let mut labels = vec![Label::default(); model.labels().len()];
    let recognizer = EntityRecognizer::new(&model, &mut labels)?;
    let tokens = match text {
        Text::Str(text) => model.tokenizer()?.count(text)?,
        Text::Words(words) => model.tokenizer()?.count(Source::from(words))?,
        Text::Ids(input) => input.input_ids.len(),
        Text::Pair(..) => 0,
    };
    let mut scratch = vec![0; recognizer.scratch_len(limit, tokens)];
    loaded.run(limit, overlap, |runner| {
        let tagged = recognizer.tag(runner, text, &mut scratch)?;
        let (truncated, windows) = (tagged.run.truncated, tagged.run.windows);
        let logits = tagged.logits().to_vec();
        let mut entities = Vec::new();
        recognizer.entities(tagged, &options, |entity| entities.push(entity));
        Ok(Found { entities, truncated, windows, logits })
    })
}

fn texts<'t>(text: &'t str, found: &Found<'_>) -> Vec<(String, &'t str)> {
    let slice = |e: &Entity<'_>| &text[e.start.byte as usize..e.end.byte as usize];
    found.entities.iter().map(|e| (e.label.to_owned(), slice(e))).collect()
}

fn by(aggregation: Aggregation) -> EntityOptions {
    EntityOptions { aggregation, constrained: false }
}

#[test]
fn the_shipped_model_finds_names() {
    let loaded = Loaded::new("tiny-ner", Weights::F32);
    let text = "Angela Merkel met Emmanuel Macron in Berlin on Tuesday.";
    for constrained in [false, true] {
        let options = EntityOptions { aggregation: Aggregation::First, constrained };
        let found = find(&loaded, Text::Str(text), 64, None, options).unwrap();
        let expected = [("PER", "Angela Merkel"), ("PER", "Emmanuel Macron"), ("LOC", "Berlin")];
        let expected: Vec<_> = expected.iter().map(|(l, t)| (l.to_string(), *t)).collect();
        assert_eq!(texts(text, &found), expected, "{options:?}");
    }
}

/// A model to which `john` is `B-PER`, `mary` `I-PER`, and everything else `O`: its layers do nothing, each
/// word's vector points to its label.
fn planted() -> Loaded {
    let path = checkpoint("micro-token-classification");
    let source = bertlet_convert::source::open(&path, Default::default()).unwrap();
    let (mut bert, _) = bertlet_convert::load::bert(&source, false).unwrap();
    let hidden = bert.config.hidden_size;
    let plain = |norm: &mut bertlet_convert::bert::LayerNorm| {
        norm.weight.fill(1.0);
        norm.bias.fill(0.0);
    };
    let nothing = |linear: &mut bertlet_convert::bert::Linear| {
        linear.weight.data.fill(0.0);
        linear.bias.fill(0.0);
    };
    bert.embeddings.position.data.fill(0.0);
    bert.embeddings.token_type.data.fill(0.0);
    plain(&mut bert.embeddings.norm);
    for layer in &mut bert.layers {
        nothing(&mut layer.attention_output);
        nothing(&mut layer.output);
        plain(&mut layer.attention_norm);
        plain(&mut layer.output_norm);
    }
    let id = |word: &str| source.vocabulary.iter().position(|token| token == word).unwrap();
    let labels = [id("john"), id("mary")];
    for (id, row) in bert.embeddings.word.data.chunks_exact_mut(hidden).enumerate() {
        row.fill(0.0);
        row[labels.iter().position(|label| *label == id).map_or(0, |label| label + 1)] = 1.0;
    }
    let head = bert.heads.token_classifier.as_mut().unwrap();
    nothing(head);
    for (label, row) in head.weight.data.chunks_exact_mut(hidden).enumerate().take(3) {
        row[label] = 1.0;
    }
    let mut extras = writer_extras("micro-token-classification");
    extras.labels = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"].map(String::from).to_vec();
    Loaded::of(&bertlet_convert::pack::float(&bert, bertlet::format::Encoding::F32, &extras))
}

#[test]
fn windows_find_each_planted_name_once() {
    let loaded = planted();
    let mut text = String::new();
    let mut names = Vec::new();
    for i in 0..1000 {
        text.push_str(["the river 😀 ", "good news, ", "is it? 你好 "][i % 3]);
        if i * i % 7 == 1 {
            let start = text.len();
            text.push_str("John Mary Mary");
            names.push((start as u32, text.len() as u32));
            text.push(' ');
        }
    }
    let tokens = loaded.model().tokenizer().unwrap().count(&text[..]).unwrap();
    assert!(tokens > 4000, "{tokens}");
    for (limit, overlap) in [(64, 16), (64, 0), (30, 25), (13, 5)] {
        for aggregation in [Aggregation::Simple, Aggregation::Average] {
            for constrained in [false, true] {
                let options = EntityOptions { aggregation, constrained };
                let found = find(&loaded, Text::Str(&text), limit, Some(overlap), options).unwrap();
                assert!(!found.truncated && found.windows > tokens / limit);
                let places: Vec<_> =
                    found.entities.iter().map(|e| (e.start.byte, e.end.byte)).collect();
                assert_eq!(places, names, "windows of {limit} with {overlap}");
                assert!(texts(&text, &found).iter().all(|(label, _)| label == "PER"));
            }
        }
    }
    // Without windows the answer says what it lacks.
    let found = find(&loaded, Text::Str(&text), 64, None, by(Aggregation::First)).unwrap();
    assert!(found.truncated && found.windows == 1);
    assert_eq!(found.logits.len(), 64 * loaded.model().labels().len());
}

#[test]
fn one_window_is_the_whole_text() {
    let loaded = Loaded::new("tiny-ner", Weights::F32);
    let text = Text::Str("Shares of Siemens AG rose in Frankfurt, Reuters reported.");
    let whole = find(&loaded, text, 64, None, EntityOptions::default()).unwrap();
    let windows = find(&loaded, text, 64, Some(16), EntityOptions::default()).unwrap();
    assert_eq!((whole.logits, whole.entities), (windows.logits, windows.entities));
    assert_eq!(windows.windows, 1);
}

#[test]
fn ids_give_the_logits_and_labels_of_their_text() {
    let loaded = Loaded::new("tiny-ner", Weights::F32);
    let text = "Shares of Siemens AG rose in Frankfurt.";
    let tokenizer = loaded.model().tokenizer().unwrap();
    let mut ids = vec![tokenizer.cls_id()];
    ids.extend(tokenizer.tokens(text).map(|token| token.unwrap().id));
    ids.push(tokenizer.sep_id());
    for (_, aggregation) in Aggregation::NAMES {
        let of_text = find(&loaded, Text::Str(text), 64, None, by(aggregation)).unwrap();
        let input = Text::Ids(Input::new(&ids));
        let of_ids = find(&loaded, input, 64, None, by(aggregation)).unwrap();
        assert_eq!(of_text.logits, of_ids.logits);
        let plain = |found: &Found<'_>| -> Vec<_> {
            found.entities.iter().map(|e| (e.label.to_owned(), e.score, e.first, e.last)).collect()
        };
        assert_eq!(plain(&of_text), plain(&of_ids));
    }
    let bad = find(&loaded, Text::Ids(Input::new(&[u32::MAX])), 64, None, by(Aggregation::Max));
    assert!(matches!(bad.err(), Some(TaskError::Run(RunError::UnknownToken { .. }))));
    let none = find(&loaded, Text::Ids(Input::new(&[])), 64, None, by(Aggregation::Max));
    assert_eq!(none.err(), Some(TaskError::Run(RunError::NoTokens)));
}

#[test]
fn words_have_the_label_of_their_first_token() {
    let loaded = Loaded::new("tiny-ner", Weights::F32);
    let model = loaded.model();
    let words = ["Angela", "Merkel", "", "met", "Emmanuel", "Macron", "\u{200b}", "in", "Berlin"];
    let mut labels = vec![Label::default(); model.labels().len()];
    let recognizer = EntityRecognizer::new(&model, &mut labels).unwrap();
    let mut scratch = vec![0; recognizer.scratch_len(64, 64)];
    let tokenizer = model.tokenizer().unwrap();
    let tokens: Vec<_> = tokenizer.tokens(&words[..]).map(Result::unwrap).collect();
    loaded.run(64, None, |runner| {
        let tagged = recognizer.tag(runner, &words[..], &mut scratch).unwrap();
        let count = recognizer.labels().len();
        let expected: Vec<(usize, usize)> = tokens
            .iter()
            .enumerate()
            .filter(|(i, token)| *i == 0 || tokens[i - 1].word != token.word)
            .map(|(i, token)| {
                let row = &tagged.logits()[(i + 1) * count..][..count];
                (token.word as usize, argmax(row).unwrap())
            })
            .collect();
        let mut found = Vec::new();
        recognizer.word_labels(tagged, false, |word, label, score| {
            assert!((0.0..=1.0).contains(&score));
            found.push((word, label));
        });
        assert_eq!(found, expected);
        let label = |word| {
            let (_, label) = found.iter().find(|(w, _)| *w == word).unwrap();
            recognizer.labels().get(*label).unwrap().name
        };
        assert_eq!([label(0), label(1), label(8)], ["B-PER", "I-PER", "B-LOC"]);
        assert!(found.iter().all(|(word, _)| *word != 2 && *word != 6), "words without a token");
    });
}

#[test]
fn scratch_is_counted_to_the_byte() {
    let loaded = Loaded::new("tiny-ner", Weights::F32);
    let model = loaded.model();
    let mut labels = vec![Label::default(); model.labels().len()];
    let recognizer = EntityRecognizer::new(&model, &mut labels).unwrap();
    let text = "Shares of Siemens AG rose in Frankfurt.";
    let tokens = model.tokenizer().unwrap().count(text).unwrap();
    let need = recognizer.scratch_len(64, tokens);
    loaded.run(64, None, |runner| {
        for shift in [0, 1, 63] {
            let mut scratch = vec![0; need + shift];
            let scratch = &mut scratch[shift..];
            assert!(recognizer.tag(runner, text, scratch).is_ok());
        }
        for have in [need - 1, need / 2, 64, 0] {
            let error = recognizer.tag(runner, text, &mut vec![0; have]).err();
            let size = TooSmall { what: "scratch bytes", need, have };
            assert_eq!(error, Some(TaskError::TooSmall(size)));
        }
        let error = recognizer.tag(runner, ("a", "b"), &mut vec![0; need]).err();
        assert_eq!(error, Some(TaskError::OneText));
    });
    let mut few = [Label::default(); 2];
    assert!(matches!(
        EntityRecognizer::new(&model, &mut few).err(),
        Some(TaskError::TooSmall(TooSmall { what: "labels", need: 9, have: 2 }))
    ));
}

#[test]
fn an_encoder_too_short_for_any_text_is_an_error() {
    let loaded = Loaded::new("tiny-ner", Weights::F32);
    for limit in [1, 2] {
        let error = find(&loaded, Text::Str("a"), limit, Some(0), EntityOptions::default()).err();
        assert_eq!(error, Some(TaskError::EncoderTooShort { need: 3, have: limit }));
    }
    let found = find(&loaded, Text::Str("a b c"), 3, Some(0), EntityOptions::default()).unwrap();
    assert_eq!(found.windows, 3);
    let error = find(&loaded, Text::Str("a b c"), 3, Some(1), EntityOptions::default()).err();
    assert_eq!(error, Some(TaskError::Tokenize(TokenizeError::OverlapTooLarge { window: 1 })));
}

/// Label sets, first of each scheme, then some that make no sense, for the five outputs of a checkpoint.
const ODD: &[[&str; 5]] = &[
    ["O", "B-A", "I-A", "B-B", "I-B"],
    ["O", "B-A", "I-A", "E-A", "S-A"],
    ["O", "B-A", "M-A", "E-A", "S-A"],
    ["O", "O", "O", "O", "O"],
    ["B-A", "B-A", "E-A", "E-A", "B-B"],
    ["", "-", "B-", "I--", "é"],
];

/// A model for each of them.
static ODD_MODELS: LazyLock<Vec<Loaded>> = LazyLock::new(|| {
    let of = |labels: &[&str; 5]| {
        Loaded::with_labels("micro-token-classification", Weights::F32, labels)
    };
    ODD.iter().map(of).collect()
});

#[test]
fn odd_labels_do_not_panic() {
    for loaded in ODD_MODELS.iter() {
        for constrained in [false, true] {
            for (_, aggregation) in Aggregation::NAMES {
                let options = EntityOptions { aggregation, constrained };
                for text in ["", "hello world", "我在中国 hello 你好", "\0\u{301}\u{301}"] {
                    find(loaded, Text::Str(text), 64, None, options).unwrap();
                }
            }
        }
    }
}

/// Whether a sequence of tokens' full labels breaks the scheme's rules.
fn legal(labels: &[&str], bio: bool) -> bool {
    let mut open: Option<&str> = None;
    for label in labels.iter().chain(&["O"]) {
        let (place, entity) = label.split_once('-').unwrap_or(("O", ""));
        let continues = matches!(place, "I" | "M" | "E");
        if continues && open != Some(entity) || !continues && open.is_some() && !bio {
            return false;
        }
        open = matches!(place, "B" | "I" | "M").then_some(entity);
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever the text: slices in all units are the same, labels are legal, entities in order.
    #[test]
    fn any_text_gives_legal_entities_with_true_offsets(
        text in "(\\PC|[a-z ]|[一-龥]|😀|é|e\u{301}|[\\x00-\\x20]){0,80}",
        set in 0..3usize,
        window in proptest::bool::ANY,
    ) {
        let (labels, loaded) = (&ODD[set], &ODD_MODELS[set]);
        let overlap = window.then_some(4);
        let options = EntityOptions { aggregation: Aggregation::None, constrained: true };
        let limit = if window { 12 } else { 64 };
        let found = find(loaded, Text::Str(&text), limit, overlap, options).unwrap();
        let rows = found.logits.len() / labels.len();
        let mut tags = vec!["O"; rows];
        for e in &found.entities {
            tags[e.first] = e.label;
        }
        prop_assert!(legal(&tags[1..rows - 1], set == 0), "{tags:?}");
        for (_, aggregation) in Aggregation::NAMES {
            let options = EntityOptions { aggregation, constrained: aggregation == Aggregation::Max };
            let found = find(loaded, Text::Str(&text), limit, overlap, options).unwrap();
            let utf16: Vec<u16> = text.encode_utf16().collect();
            for e in &found.entities {
                let bytes = &text[e.start.byte as usize..e.end.byte as usize];
                let (from, to) = (e.start.char as usize, e.end.char as usize);
                let chars: String = text.chars().skip(from).take(to - from).collect();
                prop_assert_eq!(bytes, &chars);
                let units = &utf16[e.start.utf16 as usize..e.end.utf16 as usize];
                prop_assert_eq!(bytes, &String::from_utf16(units).unwrap());
            }
            for pair in found.entities.windows(2) {
                prop_assert!(pair[0].last < pair[1].first);
            }
        }
    }
}
