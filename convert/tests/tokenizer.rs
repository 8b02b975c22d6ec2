//! The runtime's tokenizer against the `tokenizers` crate: ids, offsets, words.

use bertlet::tokenizer::{
    Encoded, Limits, Settings, Token, TokenBuffer, TokenizeError, Tokenizer, Truncation,
};
use bertlet_convert::tokenizer::{
    AddedToken as Added, SpecialTokens, build, build_with, read_vocab, reference_normalizer,
};
use proptest::prelude::*;
use std::sync::OnceLock;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::utils::truncation::{
    TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings,
};
use tokenizers::{AddedToken, EncodeInput, Encoding, ModelWrapper, PostProcessor};

type Reference = tokenizers::Tokenizer;

fn reference(vocab: &[String], settings: &Settings) -> Reference {
    let map = WordPiece::read_bytes(vocab.join("\n").as_bytes()).unwrap();
    let model = WordPiece::builder()
        .vocab(map.clone())
        .max_input_chars_per_word(settings.max_word_chars)
        .build()
        .unwrap();
    let mut tokenizer = Reference::new(ModelWrapper::WordPiece(model));
    tokenizer.with_normalizer(Some(reference_normalizer(settings))).unwrap();
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    let special = |name: &str| (name.to_owned(), map[name]);
    tokenizer.with_post_processor(Some(BertProcessing::new(special("[SEP]"), special("[CLS]"))));
    let names = ["[UNK]", "[SEP]", "[CLS]", "[PAD]", "[MASK]"];
    let known = names.into_iter().filter(|name| map.contains_key(*name));
    tokenizer.add_special_tokens(known.map(|name| AddedToken::from(name, true))).unwrap();
    tokenizer
}

/// A vocabulary in which most words of the generated texts come out as something.
fn small_vocab() -> Vec<String> {
    let mut vocab: Vec<String> = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        .into_iter()
        .map(str::to_owned)
        .collect();
    let mut add = |token: String| {
        if !vocab.contains(&token) {
            vocab.push(token);
        }
    };
    let letters = "abcdefghijklmnopqrstuvwxyzABCDEFG0123456789éÉöÖßñçåøìíżЖжабвгαβγδςσΣ\
        İıſ中文国字豈𠀀하ᄒ\u{1161}\u{11ab}한국ㄱあいアカ\u{3099}אבا\u{64b}กา\u{301}\u{308}\u{323}\
        \u{302e}\u{1d165}\u{1d158}\u{1d157}\u{16ff0}\u{1b44}😀👍\u{200d}ﬁΩÅk";
    for c in letters.chars() {
        add(c.to_string());
        add(format!("##{c}"));
    }
    for c in "!\"#$%&'()*+,-./:;<=>?@[]\\^_`{|}~。，、«»—…¡¿".chars() {
        add(c.to_string());
    }
    for token in [
        "the",
        "##ing",
        "##ab",
        "abc",
        "ab",
        "##bc",
        "un",
        "##aff",
        "##able",
        "naive",
        "cafe",
        "##fe",
        "##é\u{301}",
        "中国",
        "[",
        "##abcde",
        "e\u{301}",
        "##\u{301}\u{308}",
        "i\u{307}",
        "##",
    ] {
        add(token.to_owned());
    }
    vocab
}

/// All combinations of the switches.
fn all_settings() -> Vec<Settings> {
    let mut all = Vec::new();
    for bits in 0..8 {
        for strip_accents in [None, Some(false), Some(true)] {
            all.push(Settings {
                lowercase: bits & 1 != 0,
                handle_chinese_chars: bits & 2 == 0,
                clean_text: bits & 4 == 0,
                strip_accents,
                max_word_chars: 100,
            });
        }
    }
    all
}

struct Both {
    section: Vec<u8>,
    reference: Reference,
    settings: Settings,
}

impl Both {
    fn new(vocab: &[String], settings: Settings) -> Self {
        let section = build(vocab, &settings, &SpecialTokens::default()).unwrap();
        Self { section, reference: reference(vocab, &settings), settings }
    }

    fn ours(&self) -> Tokenizer<'_> {
        Tokenizer::from_bytes(&self.section).unwrap()
    }

    fn compare(&self, text: &str) {
        let theirs = self.reference.encode(text, false).unwrap();
        let ours: Vec<Token> = self.ours().tokens(text).collect::<Result<_, _>>().unwrap();
        assert_same(&ours, &theirs, || format!("{text:?} under {:?}", self.settings));
    }
}

fn assert_same(ours: &[Token], theirs: &Encoding, what: impl Fn() -> String) {
    let ids: Vec<u32> = ours.iter().map(|token| token.id).collect();
    assert_eq!(ids, theirs.get_ids(), "ids of {}", what());
    let offsets: Vec<(usize, usize)> =
        ours.iter().map(|token| (token.start as usize, token.end as usize)).collect();
    assert_eq!(offsets, theirs.get_offsets(), "offsets of {}", what());
    let words: Vec<Option<u32>> = ours.iter().map(|token| Some(token.word)).collect();
    assert_eq!(words, theirs.get_word_ids(), "words of {}", what());
}

fn all_both() -> &'static [Both] {
    static ALL: OnceLock<Vec<Both>> = OnceLock::new();
    ALL.get_or_init(|| {
        all_settings().into_iter().map(|settings| Both::new(&small_vocab(), settings)).collect()
    })
}

/// Characters on which the steps of the normaliser trip over one another.
const TRICKY: &str = "aA bB\t\n\r\u{a0}\u{3000}\u{2028}\u{85}\u{0}\u{1}\u{7f}\u{ad}\u{200b}\u{200d}\u{feff}\
    \u{fffd}éÉöÖßẞñçåÅ\u{212b}İıſΣςσﬁǅ中文国字豈\u{2f800}𠀀하한국각갂ㄱ\u{1112}\u{1161}\u{11ab}あがカ\u{3099}パ\
    אבא\u{5b0}\u{5bc}ا\u{64b}\u{651}กำ\u{e33}\u{301}\u{300}\u{308}\u{323}\u{334}\u{345}\u{344}\u{f73}\u{f81}\
    \u{302e}\u{302f}\u{1d165}\u{1d16d}\u{1d15e}\u{1d160}\u{1d1bb}\u{16ff0}\u{1b44}\u{9be}\u{9cb}\u{ddd}\u{cca}\
    \u{1134d}\u{11366}\u{1939}\u{a953}\u{1bf2}\u{1e2ae}\u{1e944}\u{1e94a}\u{10efd}\u{1df5}\u{1ab0}\u{8d3}\
    ≠≮\u{338}\u{37e}\u{1fef}\u{387}。，«»—…¡¿'-_$+<[]#ẛ\u{1e9b}\u{2126}\u{340}😀👍🏽\u{e0041}\u{f0000}\u{e000}";

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn text() -> impl Strategy<Value = String> {
    let tricky: Vec<char> = TRICKY.chars().collect();
    let marks: Vec<char> = ('\u{300}'..='\u{36f}')
        .chain("\u{302e}\u{1d165}\u{1d16d}\u{1d172}\u{16ff0}\u{1b44}\u{a953}\u{344}\u{1d15f}\u{5b0}\u{0}\u{1e2ae}\u{8d3}\u{8ca}\u{1dfa}".chars())
        .collect();
    let part = prop_oneof![
        4 => "[a-zA-Z0-9]{1,12}",
        3 => "[ .,'!#\\[\\]-]{1,3}",
        6 => prop::collection::vec(prop::sample::select(tricky), 1..8)
            .prop_map(|chars| chars.into_iter().collect()),
        3 => prop::collection::vec(prop::sample::select(marks), 1..10)
            .prop_map(|chars| chars.into_iter().collect()),
        3 => prop::collection::vec(any::<char>(), 1..6)
            .prop_map(|chars| chars.into_iter().collect()),
        1 => prop::sample::select(vec![
            "[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "[mask]", "[[MASK]]", "[MASK", "naïve", "café",
            "unaffable", "ΣΑΣ", "한국어", "中国字",
        ]).prop_map(str::to_owned),
        1 => (95usize..103, prop::sample::select(vec!["a", "é", "e\u{301}", "字", "\u{200d}a", "한"]))
            .prop_map(|(n, c)| c.repeat(n)),
        1 => (198usize..204).prop_map(|n| format!("{}é", "a".repeat(n))),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(config(3000))]

    #[test]
    fn random_texts(text in text()) {
        for both in all_both() {
            both.compare(&text);
        }
    }
}

proptest! {
    #![proptest_config(config(1500))]

    #[test]
    fn random_words(words in prop::collection::vec(text(), 0..6)) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        for both in &all_both()[..4] {
            let theirs = both.reference.encode(&words[..], false).unwrap();
            let tokenizer = both.ours();
            let ours: Vec<Token> = tokenizer.tokens(&words[..]).collect::<Result<_, _>>().unwrap();
            assert_same(&ours, &theirs, || format!("{words:?}"));
        }
    }

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..40), text in text()) {
        let both = &all_both()[0];
        let mut bytes = [text.as_bytes(), &bytes].concat();
        let tokenizer = both.ours();
        let ours: Result<Vec<Token>, _> = tokenizer.tokens(&bytes[..]).collect();
        match std::str::from_utf8(&bytes) {
            Ok(text) => both.compare(text),
            Err(error) => {
                let at = error.valid_up_to();
                assert_eq!(ours, Err(TokenizeError::InvalidUtf8 { at }));
                bytes.truncate(at);
                both.compare(std::str::from_utf8(&bytes).unwrap());
            }
        }
    }

    #[test]
    fn random_pairs(
        first in text(), second in prop::option::of(text()), room in 0usize..40, stride in 0usize..6,
        strategy in 0..3,
    ) {
        let both = &all_both()[1];
        compare_pair(both, &first, second.as_deref(), room, stride, strategy);
    }
}

/// Truncation and windows against the reference's.
fn compare_pair(
    both: &Both,
    first: &str,
    second: Option<&str>,
    room: usize,
    stride: usize,
    strategy: i32,
) {
    let tokenizer = both.ours();
    let max_length = room + if second.is_some() { 3 } else { 2 };
    let (truncation, theirs) = match strategy {
        0 => (Truncation::LongestFirst, TruncationStrategy::LongestFirst),
        1 => (Truncation::OnlyFirst, TruncationStrategy::OnlyFirst),
        _ => (Truncation::OnlySecond, TruncationStrategy::OnlySecond),
    };
    let limits = Limits { max_length, truncation };

    // One input: with the truncation of the tokenizer itself.
    let mut reference = both.reference.clone();
    let params = TruncationParams {
        max_length,
        strategy: theirs,
        stride: 0,
        direction: TruncationDirection::Right,
    };
    reference.with_truncation(Some(params)).unwrap();
    let input: EncodeInput = match second {
        Some(second) => (first, second).into(),
        None => first.into(),
    };
    let expected = reference.encode(input, true);
    let mut buffers = Buffers::new(max_length);
    let ours = tokenizer.encode(first, second, &limits, &mut buffers.view());
    let what = || format!("{first:?} {second:?} {limits:?}");
    match (&expected, ours) {
        (Ok(expected), Ok(ours)) => {
            buffers.assert_same(&ours, expected, what);
            let all =
                tokenizer.count(first).unwrap() + second.map_or(0, |t| tokenizer.count(t).unwrap());
            assert_eq!(ours.truncated, ours.first.len() + ours.second.len() < all, "{}", what());
        }
        (Err(_), Err(TokenizeError::CannotTruncate | TokenizeError::NoSecondText)) => {}
        (expected, ours) => panic!("{}: {ours:?}, expected {expected:?}", what()),
    }

    // Windows: the reference cuts its list of windows where it stops tokenizing, so truncate the
    // whole by hand.
    let encode = |text: &str, kind| {
        let mut encoding = both.reference.encode(text, false).unwrap();
        encoding.set_type_ids(vec![kind; encoding.len()]);
        encoding
    };
    let (a, b) = (encode(first, 0), second.map(|text| encode(text, 1)));
    let (n1, n2) = (a.len(), b.as_ref().map_or(0, Encoding::len));
    let windows = tokenizer.windows(first, second, &limits, stride);
    let Ok(mut windows) = windows else {
        assert!(n1 + n2 > room, "{}", what());
        return;
    };
    let params = TruncationParams {
        max_length: room,
        strategy: theirs,
        stride,
        direction: TruncationDirection::Right,
    };
    if room == 0 {
        return;
    }
    let (a, b) = truncate_encodings(a, b, &params).unwrap();
    let processor = both.reference.get_post_processor().unwrap();
    let expected = processor.process(a, b, true).unwrap();
    assert_eq!(windows.count(), 1 + expected.get_overflowing().len(), "{}", what());
    for expected in std::iter::once(&expected).chain(expected.get_overflowing()) {
        let ours = windows.next_into(&mut buffers.view()).unwrap().expect("too few windows");
        buffers.assert_same(&ours, expected, what);
    }
    assert_eq!(windows.next_into(&mut buffers.view()), Ok(None));
}

struct Buffers {
    ids: Vec<u32>,
    type_ids: Vec<u8>,
    offsets: Vec<(u32, u32)>,
    words: Vec<u32>,
}

impl Buffers {
    fn new(len: usize) -> Self {
        Self {
            ids: vec![7; len],
            type_ids: vec![7; len],
            offsets: vec![(7, 7); len],
            words: vec![7; len],
        }
    }

    fn view(&mut self) -> TokenBuffer<'_> {
        TokenBuffer {
            ids: &mut self.ids,
            type_ids: &mut self.type_ids,
            offsets: &mut self.offsets,
            words: &mut self.words,
        }
    }

    fn assert_same(&self, ours: &Encoded, theirs: &Encoding, what: impl Fn() -> String) {
        let n = ours.len;
        assert_eq!(&self.ids[..n], theirs.get_ids(), "ids of {}", what());
        let types: Vec<u32> = self.type_ids[..n].iter().map(|&t| t.into()).collect();
        assert_eq!(types, theirs.get_type_ids(), "types of {}", what());
        let offsets: Vec<(usize, usize)> =
            self.offsets[..n].iter().map(|&(a, b)| (a as usize, b as usize)).collect();
        assert_eq!(offsets, theirs.get_offsets(), "offsets of {}", what());
        let words: Vec<u32> =
            theirs.get_word_ids().iter().map(|word| word.unwrap_or(u32::MAX)).collect();
        assert_eq!(&self.words[..n], words, "words of {}", what());
    }
}

/// Every code point alone, inside of a word, and between marks.
#[test]
fn every_code_point() {
    for both in all_both() {
        let all: Vec<char> = ('\0'..=char::MAX).collect();
        // Many of them in one text: the offsets tell them apart.
        for chars in all.chunks(512) {
            let mut text = String::new();
            for c in chars {
                text.extend([' ', *c, ' ', 'a', *c, 'b', ' ', 'e', '\u{1d165}', *c, '\u{301}']);
            }
            both.compare(&text);
        }
    }
}
