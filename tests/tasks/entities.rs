//! Entities in texts: long ones, odd ones, in words.

use std::sync::LazyLock;

use bertlet::heads::argmax;
use bertlet::tasks::{
    Aggregation, Entity, EntityOptions, EntityRecognizer, Label, LabelRules, TagPosition,
    TaskError, Text,
};
use bertlet::tokenizer::{Settings, Source, TokenizeError};
use bertlet::{Input, RunError, Session, TooSmall};
use bertlet_convert::tokenizer::{SpecialTokens, build};
use proptest::prelude::*;

use crate::Loaded;
use crate::common::{Weights, checkpoint, writer_extras};

/// What a run finds, and what it says of itself.
#[derive(Debug)]
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

/// A model to which `john` is `B-PER`, `mary` `I-PER`, and everything else `O`.
fn planted() -> Loaded {
    planted_with(&["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], true, &[], &[("john", 1), ("mary", 2)])
}

/// A model whose labels are known: its layers do nothing, each token's vector points to its label, which is
/// the first one for all but the `planted`. `pieces` replace tokens of the vocabulary.
fn planted_with(
    labels: &[&str],
    lowercase: bool,
    pieces: &[&str],
    planted: &[(&str, usize)],
) -> Loaded {
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
    let mut vocabulary = source.vocabulary.clone();
    let count = vocabulary.len();
    for (to, piece) in vocabulary[count - pieces.len()..].iter_mut().zip(pieces) {
        *to = (*piece).to_owned();
    }
    let id = |piece: &str| vocabulary.iter().position(|token| token == piece).unwrap();
    let planted: Vec<_> = planted.iter().map(|(piece, label)| (id(piece), *label)).collect();
    for (id, row) in bert.embeddings.word.data.chunks_exact_mut(hidden).enumerate() {
        row.fill(0.0);
        row[planted.iter().find(|(planted, _)| *planted == id).map_or(0, |(_, label)| *label)] =
            1.0;
    }
    let head = bert.heads.token_classifier.as_mut().unwrap();
    nothing(head);
    for (label, row) in head.weight.data.chunks_exact_mut(hidden).enumerate().take(labels.len()) {
        row[label] = 1.0;
    }
    let mut extras = writer_extras("micro-token-classification");
    assert!(labels.len() <= extras.labels.len());
    // The others have no chance.
    head.bias[labels.len()..].fill(-100.0);
    for (to, label) in extras.labels.iter_mut().zip(labels) {
        *to = (*label).to_owned();
    }
    let settings = Settings { lowercase, ..Settings::UNCASED };
    extras.tokenizer = build(&vocabulary, &settings, &SpecialTokens::default()).unwrap();
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

/// Whether a sequence of tokens' full labels keeps the scheme's rules. Labels of BIO keep those of IOB1, or an
/// inside may begin an entity, but not directly after another one.
fn legal(labels: &[&str], bio: bool, set: &[&str]) -> bool {
    let mut open: Option<&str> = None;
    let (mut legal, mut iob1) = (true, bio);
    for label in labels.iter().chain(&["O"]) {
        let (place, entity) = label.split_once('-').unwrap_or(("O", ""));
        let continues = matches!(place, "I" | "M" | "E");
        if bio {
            legal &= !continues || open.is_none_or(|open| open == entity);
            let inside = set.iter().any(|label| label.strip_prefix("I-") == Some(entity));
            iob1 &= place != "B" || open == Some(entity) || !inside;
        } else {
            legal &= if continues { open == Some(entity) } else { open.is_none() };
        }
        open = matches!(place, "B" | "I" | "M").then_some(entity);
    }
    legal || iob1
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
        prop_assert!(legal(&tags[1..rows - 1], set == 0, labels), "{tags:?}");
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

/// Words of which each is one name, however it is typed: a piece that begins a `PER`, then one that looks
/// like an `ORG` by itself.
const NAMES: &[(&str, [&str; 2], &[&str])] = &[
    (
        "Müller",
        ["mul", "##ler"],
        &["Müller", "Mu\u{308}ller", "M\u{ad}üll\u{200d}er", "mu\u{200b}ller"],
    ),
    ("José", ["jo", "##se"], &["José", "Jose\u{301}", "J\u{200c}ose\u{301}\u{feff}"]),
    ("Việt", ["vi", "##et"], &["Việt", "Vie\u{323}\u{302}t", "Vie\u{302}\u{323}t"]),
    ("हिन्दी", ["हिन", "##दी"], &["हिन्दी", "हि\u{200d}न्दी"]),
    ("محمد", ["مح", "##مد"], &["محمد", "مُحَمَّد", "مُحَمَّدٌ", "مح\u{200f}مد"]),
    ("שלום", ["של", "##ום"], &["שלום", "שָׁלוֹם"]),
    (
        "한국",
        ["\u{1112}\u{1161}\u{11ab}", "##\u{1100}\u{116e}\u{11a8}"],
        &["한국", "\u{1112}\u{1161}\u{11ab}국"],
    ),
];

#[test]
fn names_keep_their_words_however_they_are_typed() {
    let labels = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"];
    let (mut pieces, mut planted) = (Vec::new(), Vec::new());
    for (_, name, _) in NAMES {
        pieces.extend(name);
        planted.extend([(name[0], 1), (name[1], 4)]);
    }
    let loaded = planted_with(&labels, true, &pieces, &planted);
    for (name, _, spellings) in NAMES {
        for spelling in *spellings {
            let text = format!("the {spelling} in {spelling}, {spelling} the city.");
            for constrained in [false, true] {
                let options = EntityOptions { aggregation: Aggregation::First, constrained };
                let found = find(&loaded, Text::Str(&text), 64, None, options).unwrap();
                assert_eq!(found.entities.len(), 3, "{name} as {spelling:?}: {found:?}");
                for ((label, slice), entity) in texts(&text, &found).iter().zip(&found.entities) {
                    assert_eq!((&label[..], entity.last - entity.first), ("PER", 1));
                    assert!(spelling.starts_with(slice), "{slice:?} of {spelling:?}");
                }
                let redacted = redact(&loaded, &text, 64, None, options).unwrap();
                assert_eq!(redacted, "the [PER] in [PER], [PER] the city.");
            }
            // Neighbouring tokens: two entities within each word, of which nothing is left either.
            let simple = by(Aggregation::Simple);
            assert_eq!(
                find(&loaded, Text::Str(&text), 64, None, simple).unwrap().entities.len(),
                6
            );
            for aggregation in [Aggregation::None, Aggregation::Simple, Aggregation::Average] {
                let redacted = redact(&loaded, &text, 64, None, by(aggregation)).unwrap();
                assert_eq!(redacted, "the [PER] in [PER], [PER] the city.");
            }
        }
    }
}

#[test]
fn a_cased_tokenizer_keeps_marks_in_their_words() {
    let labels = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"];
    let pieces = ["Mu", "##\u{308}l", "##ler", "Lon", "##don", "हि", "##न्दी"];
    let planted = [("Mu", 1), ("##ler", 4), ("Lon", 3), ("हि", 3), ("##न्दी", 2)];
    let loaded = planted_with(&labels, false, &pieces, &planted);
    let text = "the Mu\u{308}ller in Lon\u{ad}don, Lon\u{200b}don in हिन्दी.";
    let found = find(&loaded, Text::Str(text), 64, None, by(Aggregation::First)).unwrap();
    let expected = ["Mu\u{308}ller", "Lon\u{ad}don", "Lon\u{200b}don", "हिन्दी"];
    let labels = ["PER", "LOC", "LOC", "LOC"];
    let expected: Vec<_> = labels.map(String::from).into_iter().zip(expected).collect();
    assert_eq!(texts(text, &found), expected);
    let redacted = redact(&loaded, text, 64, None, by(Aggregation::First)).unwrap();
    assert_eq!(redacted, "the [PER] in [LOC], [LOC] in [LOC].");
}

fn redact(
    loaded: &Loaded,
    text: &str,
    limit: usize,
    overlap: Option<usize>,
    options: EntityOptions,
) -> Result<String, TaskError> {
    let model = loaded.model();
    let mut labels = vec![Label::default(); model.labels().len()];
    let recognizer = EntityRecognizer::new(&model, &mut labels)?;
    let tokens = model.tokenizer()?.count(text)?;
    let mut scratch = vec![0; recognizer.scratch_len(limit, tokens)];
    loaded.run(limit, overlap, |runner| {
        let tagged = recognizer.tag(runner, text, &mut scratch)?;
        let redacted = recognizer.redact(tagged, &options)?;
        assert_eq!(redacted.to_string(), redacted.to_string(), "as often as it is asked to");
        Ok(redacted.to_string())
    })
}

#[test]
fn a_redacted_text_keeps_all_but_its_entities() {
    let loaded = planted();
    let redacted = |text: &str| redact(&loaded, text, 64, None, EntityOptions::default()).unwrap();
    for (text, expected) in [
        ("", ""),
        ("the river", "the river"),
        ("  John mary,\tJOHN\u{a0}John-mary! 😀", "  [PER],\t[PER]\u{a0}[PER]-[PER]! 😀"),
        ("\u{301}john\u{301} \u{301}the", "[PER] \u{301}the"),
        ("(john)", "([PER])"),
    ] {
        assert_eq!(redacted(text), expected, "{text:?}");
    }
    let long = "the river 😀 John Mary, ".repeat(100);
    let error = redact(&loaded, &long, 64, None, EntityOptions::default());
    assert_eq!(error, Err(TaskError::Truncated));
    let expected = "the river 😀 [PER], ".repeat(100);
    for (limit, overlap) in [(64, 16), (13, 5), (7, 0)] {
        let found = redact(&loaded, &long, limit, Some(overlap), EntityOptions::default());
        assert_eq!(found.as_ref(), Ok(&expected));
    }
    let mut session = Session::new(loaded.model());
    assert_eq!(session.redact(&long).unwrap(), expected);
    assert!(session.entities(&long).unwrap().truncated, "windows are the redaction's own");

    let model = loaded.model();
    let mut labels = vec![Label::default(); 5];
    let recognizer = EntityRecognizer::new(&model, &mut labels).unwrap();
    loaded.run(64, None, |runner| {
        let mut scratch = vec![0; recognizer.scratch_len(64, 64)];
        let tagged = recognizer.tag(runner, &["john"][..], &mut scratch).unwrap();
        let error = recognizer.redact(tagged, &EntityOptions::default()).err();
        assert_eq!(error, Some(TaskError::NotAText));
    });
}

/// Labels of IOB1, in which an inside begins an entity.
#[test]
fn labels_of_iob1_lose_no_entity() {
    let labels = ["O", "I-PER", "B-PER", "I-LOC", "B-LOC"];
    let planted = [("john", 1), ("mary", 2), ("london", 3), ("paris", 4)];
    let loaded = planted_with(&labels, true, &[], &planted);
    for (text, expected) in [
        ("John, mary the", &[("PER", "John"), ("PER", "mary")][..]),
        ("john mary the john", &[("PER", "john"), ("PER", "mary"), ("PER", "john")]),
        ("john london paris the", &[("PER", "john"), ("LOC", "london"), ("LOC", "paris")]),
        ("the london john", &[("LOC", "london"), ("PER", "john")]),
        ("paris the john", &[("LOC", "paris"), ("PER", "john")]),
    ] {
        let expected: Vec<_> = expected.iter().map(|(l, t)| (l.to_string(), *t)).collect();
        for (_, aggregation) in &Aggregation::NAMES[1..] {
            for constrained in [false, true] {
                let options = EntityOptions { aggregation: *aggregation, constrained };
                let found = find(&loaded, Text::Str(text), 64, None, options).unwrap();
                assert_eq!(texts(text, &found), expected, "{options:?}");
            }
        }
    }
}

#[test]
fn entities_do_not_depend_on_how_labels_are_spelled() {
    let planted = [("john", 1), ("mary", 2), ("london", 3)];
    for (labels, [per, loc]) in [
        (["O", "B_PER", "I_PER", "B_LOC"], ["PER", "LOC"]),
        (["O", "PER-B", "PER-I", "LOC-B"], ["PER", "LOC"]),
        (["o", "b-per", "i-per", "b-loc"], ["per", "loc"]),
        (["OTHER", "B-PER", "I-PER", "B-LOC"], ["PER", "LOC"]),
    ] {
        let loaded = planted_with(&[&labels[..], &["[PAD]"]].concat(), true, &[], &planted);
        let text = "the john mary in london";
        let found = find(&loaded, Text::Str(text), 64, None, EntityOptions::default()).unwrap();
        let expected = [(per.to_owned(), "john mary"), (loc.to_owned(), "london")];
        assert_eq!(texts(text, &found), expected, "{labels:?}");
    }
    // Nothing but B, I and O, and outside labels that look like others.
    let loaded = planted_with(&["O", "B", "I", "[PAD]", "[CLS]"], true, &[], &planted);
    let text = "the john mary in london";
    let found = find(&loaded, Text::Str(text), 64, None, EntityOptions::default()).unwrap();
    assert_eq!(texts(text, &found), [("ENTITY".to_owned(), "john mary")]);
    let loaded = planted_with(&["B-O", "B-PER", "I-PER", "I-O", "I-LOC"], true, &[], &planted);
    for (_, aggregation) in Aggregation::NAMES {
        let found = find(&loaded, Text::Str(text), 64, None, by(aggregation)).unwrap();
        assert!(found.entities.iter().all(|entity| entity.label.ends_with("PER")), "{found:?}");
    }
    let loaded = planted_with(&["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"], true, &[], &planted);
    let model = loaded.model();
    let mut labels = vec![Label::default(); 5];
    let rules = LabelRules { outside: &["LABEL_0"], ..LabelRules::default() };
    let recognizer = EntityRecognizer::with_rules(&model, &mut labels, &rules).unwrap();
    assert_eq!(recognizer.labels().get(0).unwrap().position, TagPosition::Outside);
    let rules = LabelRules { outside: &["LABEL_0", "O"], ..LabelRules::default() };
    let error = EntityRecognizer::with_rules(&model, &mut labels, &rules).err();
    assert_eq!(error, Some(TaskError::NoSuchLabel));
}
