//! The runtime's tokenizer against the `tokenizers` crate: ids, offsets, words.

use bertlet::TooSmall;
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
use tokenizers::{AddedToken, Encoding, ModelWrapper, NormalizedString, Normalizer, PostProcessor};

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

    // The reference stops tokenizing early where it is told of the truncation, which costs it some
    // windows; so truncate the whole by hand, with its own function.
    let what = || format!("{first:?} {second:?} {limits:?}");
    let encode = |text: &str, kind| {
        let mut encoding = both.reference.encode(text, false).unwrap();
        encoding.set_type_ids(vec![kind; encoding.len()]);
        encoding
    };
    let (a, b) = (encode(first, 0), second.map(|text| encode(text, 1)));
    let (n1, n2) = (a.len(), b.as_ref().map_or(0, Encoding::len));
    let processor = both.reference.get_post_processor().unwrap();
    let mut params = TruncationParams {
        max_length: room,
        strategy: theirs,
        stride: 0,
        direction: TruncationDirection::Right,
    };
    let expected = truncate_encodings(a.clone(), b.clone(), &params)
        .map(|(a, b)| processor.process(a, b, true).unwrap());
    let mut buffers = Buffers::new(max_length);
    let ours = tokenizer.encode(first, second, &limits, &mut buffers.view());
    match (&expected, ours) {
        (Ok(expected), Ok(ours)) => {
            buffers.assert_same(&ours, expected, what);
            let missing = ours.first.len() + ours.second.len() < n1 + n2;
            assert_eq!(ours.truncated, missing, "{}", what());
        }
        (Err(_), Err(TokenizeError::CannotTruncate | TokenizeError::NoSecondText)) => {}
        (expected, ours) => panic!("{}: {ours:?}, expected {expected:?}", what()),
    }

    let Ok(mut windows) = tokenizer.windows(first, second, &limits, stride) else {
        // Windows that share all their tokens are refused, however short the text.
        assert!(n1 + n2 > room || stride >= room.max(1), "{}", what());
        return;
    };
    params.stride = stride;
    if room == 0 {
        return;
    }
    let (a, b) = truncate_encodings(a, b, &params).unwrap();
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
            input_ids: &mut self.ids,
            token_type_ids: &mut self.type_ids,
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

fn every_code_point_of(both: &Both) {
    let all: Vec<char> = ('\0'..=char::MAX).collect();
    // Many of them in one text: the offsets tell them apart.
    for chars in all.chunks(512) {
        let mut text = String::new();
        for c in chars {
            text.extend([' ', *c, ' ', 'a', *c, '\u{1d165}']);
        }
        both.compare(&text);
    }
}

/// Every code point alone, inside of a word, and before a mark that remains.
#[test]
fn every_code_point() {
    for settings in [Settings::UNCASED, Settings::CASED] {
        every_code_point_of(&Both::new(&small_vocab(), settings));
    }
}

#[test]
#[ignore = "takes minutes"]
fn every_code_point_under_all_settings() {
    all_both().iter().for_each(every_code_point_of);
}

fn strings<const N: usize>(tokens: [&str; N]) -> Vec<String> {
    tokens.map(str::to_owned).to_vec()
}

#[test]
fn odd_vocabularies() {
    let specials = SpecialTokens::default();
    let fails = |vocab: &[String]| {
        build(vocab, &Settings::UNCASED, &specials).expect_err("must fail").to_string()
    };
    assert_eq!(fails(&[]), "the vocabulary is empty");
    assert_eq!(fails(&strings(["", ""])), "the vocabulary is empty");
    assert_eq!(fails(&strings(["[CLS]", "[SEP]", "a"])), "the vocabulary lacks [UNK]");
    assert_eq!(fails(&strings(["[UNK]", "[SEP]", "a"])), "the vocabulary lacks [CLS]");
    let mut long = strings(["[UNK]", "[CLS]", "[SEP]"]);
    long.push("x".repeat(2001));
    assert!(fails(&long).starts_with("token 3 has 2001 bytes"));

    // Duplicates: the last wins. Gaps stay empty. No [PAD], no [MASK].
    let vocab = read_vocab("[UNK]\n[CLS]\na\n\n[SEP]\r\na \nb\n##b\n[MASK\n");
    assert_eq!(vocab.len(), 9);
    let both = Both::new(&vocab, Settings::UNCASED);
    let tokenizer = both.ours();
    assert_eq!(tokenizer.vocab_size(), 9);
    assert_eq!(tokenizer.id("a"), Some(5));
    assert_eq!(tokenizer.token(2), Some("a"));
    assert_eq!(tokenizer.token(3), None);
    assert_eq!(tokenizer.token(9), None);
    assert_eq!(tokenizer.token(u32::MAX), None);
    assert_eq!((tokenizer.id("##b"), tokenizer.id(""), tokenizer.id("zz")), (Some(7), None, None));
    assert_eq!((tokenizer.pad_id(), tokenizer.mask_id()), (None, None));
    assert_eq!((tokenizer.unk_id(), tokenizer.cls_id(), tokenizer.sep_id()), (0, 1, 4));
    assert_eq!(tokenizer.settings(), Settings::UNCASED);
    for text in ["a ab b [MASK] [MASK [CLS]a[SEP]", "", "abbbc", "[PAD]"] {
        both.compare(text);
    }
}

#[test]
fn added_tokens() {
    let vocab = small_vocab();
    let texts = ["abc", "é", "<e1>", "\u{301}", "[SEP]x"];
    for settings in [Settings::UNCASED, Settings::CASED] {
        let mut reference = reference(&vocab, &settings);
        reference.add_special_tokens(texts.map(|text| AddedToken::from(text, true))).unwrap();
        // New tokens got ids beyond the vocabulary, known ones kept theirs.
        let added = texts.map(|text| Added {
            text: text.to_owned(),
            id: reference.token_to_id(text).unwrap(),
            special: true,
            ..Added::default()
        });
        let specials = SpecialTokens::default();
        let section = build_with(&vocab, &settings, &specials, "##", &added).unwrap();
        let tokenizer = Tokenizer::from_bytes(&section).unwrap();
        for text in [
            "abcabc abcd xabcx <e1> <e1 <e1>e1> [SEP]x [SEP][SEP]xx",
            "É é e\u{301} \u{1d165}\u{323}\u{301}\u{1d165} Abc ABC abc",
        ] {
            let theirs = reference.encode(text, false).unwrap();
            let ours: Vec<Token> = tokenizer.tokens(text).collect::<Result<_, _>>().unwrap();
            assert_same(&ours, &theirs, || format!("{text:?} with added tokens"));
        }
        for token in added {
            assert_eq!(tokenizer.token(token.id), Some(token.text.as_str()));
            assert_eq!(tokenizer.id(&token.text), Some(token.id));
        }
    }
}

/// A vocabulary with added tokens, ours and the reference's.
struct WithAdded {
    section: Vec<u8>,
    reference: Reference,
    what: String,
}

impl WithAdded {
    /// `None` if the reference refuses the tokens, or finds one that normalises to nothing everywhere, and
    /// never ends.
    fn new(settings: &Settings, tokens: &[AddedToken]) -> Option<Self> {
        let vocab = small_vocab();
        let mut reference = reference(&vocab, settings);
        let empty = |token: &AddedToken| {
            let mut text = NormalizedString::from(token.content.as_str());
            let normalizer = reference.get_normalizer().expect("BertNormalizer");
            normalizer.normalize(&mut text).unwrap();
            token.normalized && text.is_empty()
        };
        if tokens.iter().any(empty) {
            return None;
        }
        // It may panic, too.
        let add = std::panic::AssertUnwindSafe(|| reference.add_tokens(tokens.iter().cloned()));
        std::panic::catch_unwind(add).ok()?.ok()?;
        // Of equal texts the last one counts.
        let known = reference.get_added_tokens_decoder();
        let added: Vec<Added> = known
            .iter()
            .map(|(id, token)| Added {
                text: token.content.clone(),
                id: *id,
                normalized: token.normalized,
                single_word: token.single_word,
                lstrip: token.lstrip,
                rstrip: token.rstrip,
                special: token.special,
            })
            .collect();
        let specials = SpecialTokens::default();
        let section = build_with(&vocab, settings, &specials, "##", &added).unwrap();
        for token in &added {
            let tokenizer = Tokenizer::from_bytes(&section).unwrap();
            assert_eq!(tokenizer.id(&token.text), Some(token.id));
        }
        Some(Self { section, reference, what: format!("{settings:?} {tokens:#?}") })
    }

    /// False if the reference panics.
    fn compare(&self, text: &str) -> bool {
        let encode = std::panic::AssertUnwindSafe(|| self.reference.encode(text, false).unwrap());
        let theirs = std::panic::catch_unwind(encode);
        let tokenizer = Tokenizer::from_bytes(&self.section).unwrap();
        let ours: Vec<Token> = tokenizer.tokens(text).collect::<Result<_, _>>().unwrap();
        let Ok(theirs) = theirs else { return false };
        assert_same(&ours, &theirs, || format!("{text:?} with {}", self.what));
        true
    }
}

fn added(text: &str, options: &str) -> AddedToken {
    AddedToken::from(text, options.contains('x'))
        .normalized(options.contains('n'))
        .single_word(options.contains('w'))
        .lstrip(options.contains('l'))
        .rstrip(options.contains('r'))
}

#[test]
fn options_of_added_tokens() {
    let sets: [&[AddedToken]; 9] = [
        &[added("AcmeCorp", "n")],
        &[added("<e>", "wlr"), added("ab", "w"), added("b", "")],
        &[added("Ab", "nw"), added("b", "n"), added("abc", "nlr"), added("É", "nw")],
        &[added(" ", "r"), added("  ", "n"), added("a ", "nl"), added("[MASK]", "lx")],
        &[added("中国", "n"), added("中", "nw"), added("中", ""), added(" x", "nl")],
        &[added(" 中", "n"), added("a 中 ", "nr"), added("中  国", "n")],
        &[added("e\u{301}", "n"), added("\u{1d165}", "nw"), added("\u{200b}a", "n")],
        &[added("aaab", "n"), added("aa", "nw"), added("AAA", "w"), added("a_b", "w")],
        &[added("[MASK]", "nlrx"), added("한국", "n"), added("İ", "n"), added("<e>", "lr")],
    ];
    let texts = [
        "acmecorp ACMECORP AcmeCorp xAcmeCorpx Acme Corp AcmeCorp.",
        "x <e> y<e>y  <e>  <e> <e>\u{a0}\u{b}y ab xab ab, ab_ ab\u{301} b ab",
        "ab Ab abc  ABC  x abcd É é e\u{301} éa aÉ \u{ad}É\u{ad} ab\u{200b} bab",
        "a   b    c [MASK]  [MASK] \t[MASK][MASK] a  [mask] a a",
        "中国 x中国x 中 国 中x x a 中 b中中国国  x \u{f900}中\u{301}x",
        "中  国 a中a 中 a 中  国\u{3000}中国",
        "e\u{301} é É x\u{1d165}\u{323}\u{301}\u{1d165} \u{1d165} a\u{200b}a \u{200b}a",
        "aaaab aaaaab aaab AAAA AAA aa aaa a_b a_bc xa_b a-b a\u{200d}b a_b\u{200d}",
        "[MASK] [mask] x[Mask]x 한국 한국어 İ i\u{307} ı I  <e>  [MASK] <e> [MASK]",
        "",
        " ",
    ];
    for settings in [
        Settings::UNCASED,
        Settings::CASED,
        Settings { clean_text: false, handle_chinese_chars: false, ..Settings::UNCASED },
    ] {
        for set in sets {
            let with = WithAdded::new(&settings, set).unwrap();
            for text in texts {
                assert!(with.compare(text), "the reference panics on {text:?}");
            }
        }
    }
    // The example of the README's promise.
    let with = WithAdded::new(&Settings::UNCASED, &[added("AcmeCorp", "n")]).unwrap();
    let tokenizer = Tokenizer::from_bytes(&with.section).unwrap();
    let id = tokenizer.id("AcmeCorp").unwrap();
    let ids: Vec<u32> =
        tokenizer.tokens("acmecorp ACMECORP").map(|token| token.unwrap().id).collect();
    assert_eq!(ids, [id, id]);
}

/// Tokens with random options in random texts.
#[test]
fn random_added_tokens() {
    compare_random_added_tokens(3);
}

#[test]
#[ignore = "takes minutes"]
fn many_random_added_tokens() {
    compare_random_added_tokens(12);
}

fn compare_random_added_tokens(sets: usize) {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // The reference's own panics are expected.
        if info.location().is_some_and(|at| at.file().starts_with("convert")) {
            quiet(info);
        }
    }));
    let tricky: Vec<char> = TRICKY.chars().collect();
    let token = prop_oneof![
        3 => "[a-cA-C]{1,3}",
        2 => "[aB _]{1,4}",
        2 => prop::collection::vec(prop::sample::select(tricky), 1..4)
            .prop_map(|chars| chars.into_iter().collect::<String>()),
        1 => prop::collection::vec(any::<char>(), 1..3)
            .prop_map(|chars| chars.into_iter().collect::<String>()),
        2 => prop::sample::select(vec![
            "[MASK]", "<e>", " ", "  ", "中", "中国", " 中", "中 ", "é", "e\u{301}", "한국", "##a", "the", "a b",
            "\u{301}", "\u{1d165}", "\u{200b}", "\u{a0}", "\n", "ß", "İ", "AcmeCorp", "!", "a!",
        ]).prop_map(str::to_owned),
    ];
    let options = prop::sample::subsequence(vec!['n', 'w', 'l', 'r', 'x'], 0..=5);
    let tokens = prop::collection::vec((token, options), 1..8);
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config(1), rng);
    let (mut compared, mut refused) = (0, 0);
    for settings in all_settings().iter().step_by(5) {
        for _ in 0..sets {
            let set = tokens.new_tree(&mut runner).unwrap().current();
            let set: Vec<AddedToken> = set
                .iter()
                .map(|(text, options)| added(text, &options.iter().collect::<String>()))
                .collect();
            let Some(with) = WithAdded::new(settings, &set) else {
                refused += 1;
                continue;
            };
            let names: Vec<String> = set
                .iter()
                .flat_map(|token| {
                    let text = &token.content;
                    [text.clone(), text.to_uppercase(), text.to_lowercase(), format!(" {text}  ")]
                })
                .collect();
            let part = prop_oneof![
                4 => prop::sample::select(names),
                2 => text(),
                2 => "[ aAbB_.]{1,4}",
            ];
            let texts = prop::collection::vec(part, 0..10).prop_map(|parts| parts.concat());
            for _ in 0..60 {
                let text = texts.new_tree(&mut runner).unwrap().current();
                compared += usize::from(with.compare(&text));
            }
        }
    }
    eprintln!("{compared} texts compared, {refused} sets of tokens refused by the reference");
    assert!(compared > 100 * sets, "{compared} texts compared");
}

/// White space, runs of marks and beginnings of tokens, 2 MB of each: the time is linear.
#[test]
fn long_lines_with_added_tokens() {
    let set = [
        added(" ", "lr"),
        added("\u{1d165}\u{1d165}x", "n"),
        added("aaaaaaab", "n"),
        added("<<<<<<<<>", "w"),
        added("\t", "nlr"),
        added("  y", "nw"),
    ];
    for settings in [Settings::UNCASED, Settings { clean_text: false, ..Settings::CASED }] {
        let with = WithAdded::new(&settings, &set).unwrap();
        let tokenizer = Tokenizer::from_bytes(&with.section).unwrap();
        for part in [
            " ",
            "\u{1d165}\u{301}\u{323}\u{334}",
            "a",
            "<",
            "\t",
            "\u{ad}a",
            "\u{a0}",
            "aaaaaaab ",
        ] {
            let text = part.repeat(2_000_000 / part.len());
            assert!(tokenizer.count(text.as_str()).unwrap() <= text.len());
        }
    }
}

#[test]
fn limits() {
    let both = &all_both()[0];
    let tokenizer = both.ours();
    let mut buffers = Buffers::new(8);
    let mut encode = |text: &str, pair: Option<&str>, limits: Limits| {
        tokenizer.encode(text, pair, &limits, &mut buffers.view())
    };
    let never = |max_length| Limits { max_length, truncation: Truncation::Never };
    assert_eq!(
        encode("a b", None, Limits::new(1)),
        Err(TokenizeError::LimitTooSmall { needed: 2 })
    );
    assert_eq!(
        encode("a", Some("b"), Limits::new(2)),
        Err(TokenizeError::LimitTooSmall { needed: 3 })
    );
    assert_eq!(encode("a b c", None, never(4)), Err(TokenizeError::TooLong { max_length: 2 }));
    assert_eq!(
        encode("a b c a b c a", None, Limits::new(512)),
        Err(TokenizeError::TooSmall(TooSmall { what: "tokens", need: 9, have: 8 }))
    );
    assert!(!encode("a b c a b c", None, never(8)).unwrap().truncated);
    let cut = encode("a b c a b c a", None, Limits::new(8)).unwrap();
    assert_eq!((cut.len, cut.truncated, cut.first.len()), (8, true, 6));
    // Only ids wanted.
    let mut ids = [0; 4];
    let mut only_ids = TokenBuffer { input_ids: &mut ids, ..TokenBuffer::default() };
    assert_eq!(tokenizer.encode("a", Some("b"), &Limits::new(4), &mut only_ids).unwrap().len, 4);
    // Bytes that are no text, and where.
    let mut buffers = Buffers::new(8);
    for (bytes, at) in [
        (&b"a \xff"[..], 2),
        (b"\xc3", 0),
        (b"a\xed\xa0\x80", 1),
        (b"ab\xf0\x9f\x98", 2),
        (b"\xc0\x80", 0),
        (b"\xf4\x90\x80\x80", 0),
    ] {
        let result = tokenizer.encode(bytes, None, &Limits::new(8), &mut buffers.view());
        assert_eq!(result, Err(TokenizeError::InvalidUtf8 { at }));
        let mut tokens = tokenizer.tokens(bytes);
        assert_eq!(tokens.by_ref().filter(Result::is_err).count(), 1);
        assert!(tokens.next().is_none());
    }
}

/// A line of 10 MB, of what is slow: no end of marks, words that match nowhere.
#[test]
fn long_lines() {
    let both = &all_both()[0];
    let tokenizer = both.ours();
    for part in
        ["\u{1d165}\u{301}\u{323}\u{334}", "the ab ", "abab", "[MAS", "中", "x\u{302e}\u{f73}"]
    {
        let text = part.repeat(10_000_000 / part.len());
        let mut buffers = Buffers::new(64);
        let encoded =
            tokenizer.encode(text.as_str(), None, &Limits::new(64), &mut buffers.view()).unwrap();
        assert!(encoded.len == 64 && encoded.truncated || encoded.len == 3, "{part}");
        assert!(tokenizer.count(text.as_str()).unwrap() > 0);
    }
}

fn mutations() -> impl Strategy<Value = Vec<(usize, u32)>> {
    let value = prop_oneof![
        any::<u32>(),
        0u32..300,
        Just(u32::MAX),
        Just(0),
        (0u32..32).prop_map(|bit| 1 << bit)
    ];
    // Mostly in the header, where it hurts.
    let place = prop_oneof![(0usize..64).prop_map(|word| word * 4), 0usize..100_000];
    prop::collection::vec((place, value), 1..12)
}

proptest! {
    #![proptest_config(config(3000))]

    /// Whatever the section holds: an error or an answer, and texts end.
    #[test]
    fn mutated_sections(
        changes in mutations(), cut in prop::option::of(0usize..100_000), text in text(),
        noise in prop::collection::vec(any::<u8>(), 0..400), noise_at in 256usize..60_000,
    ) {
        let mut section = all_both()[0].section.clone();
        for (place, value) in changes {
            if let Some(bytes) = section.get_mut(place..place + 4) {
                bytes.copy_from_slice(&value.to_le_bytes());
            }
        }
        if let Some(bytes) = section.get_mut(noise_at..noise_at + noise.len()) {
            bytes.copy_from_slice(&noise);
        }
        if let Some(cut) = cut {
            section.truncate(cut);
        }
        let Ok(tokenizer) = Tokenizer::from_bytes(&section) else { return Ok(()) };
        let _ = tokenizer.settings();
        for id in [0, 1, 100, 250, u32::MAX, tokenizer.vocab_size() as u32] {
            let _ = tokenizer.token(id);
        }
        let _ = tokenizer.id("the");
        // A broken table must not give more tokens than eight times the characters.
        let tokens = tokenizer.tokens(text.as_str()).take_while(Result::is_ok).count();
        prop_assert!(tokens <= text.len() * 8 + 1);
        let mut buffers = Buffers::new(64);
        let limits = Limits::new(64);
        let _ = tokenizer.encode(text.as_str(), Some("the é"), &limits, &mut buffers.view());
        if let Ok(mut windows) = tokenizer.windows(text.as_str(), None, &Limits::new(12), 3) {
            for _ in 0..10 {
                let _ = windows.next_into(&mut buffers.view());
            }
        }
    }

    #[test]
    fn random_sections(mut bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = Tokenizer::from_bytes(&bytes).is_ok();
        // With the right start.
        for (to, from) in bytes.iter_mut().zip(&all_both()[0].section[..64]) {
            *to = *from;
        }
        if let Ok(tokenizer) = Tokenizer::from_bytes(&bytes) {
            let _ = tokenizer.tokens("the é").count();
        }
    }
}

// The golden files, outside of the repository.

fn data() -> Option<std::path::PathBuf> {
    let data = std::env::var_os("BERTLET_DATA");
    if data.is_none() {
        eprintln!("SKIPPED: BERTLET_DATA is not set, golden files not compared");
    }
    data.map(Into::into)
}

fn json_lines(path: &std::path::Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn numbers(value: &serde_json::Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as u32).collect()
}

fn golden_tokenizer(data: &std::path::Path, config: &str) -> (Vec<String>, Vec<u8>, Settings) {
    let meta = std::fs::read_to_string(data.join("golden/tokenizer/meta.json")).unwrap();
    let meta: serde_json::Value = serde_json::from_str(&meta).unwrap();
    let config = &meta["configs"][config];
    let settings = Settings {
        lowercase: config["lowercase"].as_bool().unwrap(),
        strip_accents: config["strip_accents"].as_bool(),
        handle_chinese_chars: config["handle_chinese_chars"].as_bool().unwrap(),
        clean_text: config["clean_text"].as_bool().unwrap(),
        max_word_chars: 100,
    };
    let path = data.join("vocabs").join(config["vocab"].as_str().unwrap());
    let vocab = read_vocab(&std::fs::read_to_string(path).unwrap());
    let section = build(&vocab, &settings, &SpecialTokens::default()).unwrap();
    (vocab, section, settings)
}

/// Offsets of the golden files are code points, one after another; specials are (0, 0).
fn golden_offsets(text: &str, pair: &str, buffers: &Buffers, encoded: &Encoded) -> Vec<u32> {
    use bertlet::tokenizer::{OffsetUnit, convert_offsets};
    let mut offsets = buffers.offsets[..encoded.len].to_vec();
    let (first, second) = offsets.split_at_mut(encoded.first.len() + 2);
    convert_offsets(text.as_bytes(), first, OffsetUnit::Char);
    convert_offsets(pair.as_bytes(), second, OffsetUnit::Char);
    offsets.into_iter().flat_map(|(start, end)| [start, end]).collect()
}

#[test]
fn golden_texts() {
    let Some(data) = data() else { return };
    let mut n = 0;
    for config in [
        "uncased",
        "cased",
        "chinese",
        "uncased_keep_accents",
        "cased_strip_accents",
        "uncased_no_chinese",
        "uncased_no_clean",
    ] {
        let (vocab, section, _) = golden_tokenizer(&data, config);
        let tokenizer = Tokenizer::from_bytes(&section).unwrap();
        eprintln!("{config}: section of {} bytes", section.len());
        for (id, token) in vocab.iter().enumerate().filter(|(_, token)| !token.is_empty()) {
            assert_eq!(tokenizer.token(id as u32), Some(token.as_str()));
            assert_eq!(tokenizer.id(token), Some(id as u32));
        }
        let mut buffers = Buffers::new(20_000);
        for line in json_lines(&data.join(format!("golden/tokenizer/{config}.jsonl"))) {
            let text = line["text"].as_str().unwrap();
            let limits = Limits::new(20_000);
            let encoded = tokenizer.encode(text, None, &limits, &mut buffers.view()).unwrap();
            assert_eq!(&buffers.ids[..encoded.len], numbers(&line["ids"]), "{config}: {text:?}");
            let offsets = golden_offsets(text, "", &buffers, &encoded);
            assert_eq!(offsets, numbers(&line["offsets"]), "{config}: {text:?}");
            n += 1;
        }
    }
    eprintln!("{n} golden texts equal");
    assert!(n > 0);
}

#[test]
fn golden_pairs() {
    let Some(data) = data() else { return };
    let (_, section, _) = golden_tokenizer(&data, "uncased");
    let tokenizer = Tokenizer::from_bytes(&section).unwrap();
    let (mut n, mut overflows) = (0, 0);
    for line in json_lines(&data.join("golden/tokenizer/pairs.jsonl")) {
        let text = line["text"].as_str().unwrap();
        let pair = line["pair"].as_str();
        let max_length = line["max_length"].as_u64().unwrap() as usize;
        let stride = line["stride"].as_u64().unwrap() as usize;
        let truncation = match line["strategy"].as_str().unwrap() {
            "longest_first" => Truncation::LongestFirst,
            "only_first" => Truncation::OnlyFirst,
            _ => Truncation::OnlySecond,
        };
        let limits = Limits { max_length, truncation };
        let mut buffers = Buffers::new(max_length);
        let ours = tokenizer.encode(text, pair, &limits, &mut buffers.view());
        n += 1;
        if !line["error"].is_null() {
            assert!(ours.is_err(), "{line}");
            continue;
        }
        let check = |buffers: &Buffers, encoded: &Encoded, golden: &serde_json::Value| {
            assert_eq!(&buffers.ids[..encoded.len], numbers(&golden["ids"]), "{line}");
            let types: Vec<u32> =
                buffers.type_ids[..encoded.len].iter().map(|t| u32::from(*t)).collect();
            assert_eq!(types, numbers(&golden["type_ids"]), "{line}");
            let offsets = golden_offsets(text, pair.unwrap_or(""), buffers, encoded);
            assert_eq!(offsets, numbers(&golden["offsets"]), "{line}");
        };
        let encoded = ours.unwrap();
        check(&buffers, &encoded, &line);
        let golden = line["overflowing"].as_array().unwrap();
        assert_eq!(encoded.truncated, !golden.is_empty(), "{line}");

        let mut windows = match tokenizer.windows(text, pair, &limits, stride) {
            Ok(windows) => windows,
            Err(error) => panic!("{error}: {line}"),
        };
        assert_eq!(windows.count(), 1 + golden.len(), "{line}");
        for golden in std::iter::once(&line).chain(golden) {
            let encoded = windows.next_into(&mut buffers.view()).unwrap().unwrap();
            check(&buffers, &encoded, golden);
            overflows += 1;
        }
    }
    eprintln!("{n} golden pairs equal, {overflows} windows");
    assert!(n > 0);
}
