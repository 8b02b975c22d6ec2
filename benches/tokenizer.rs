//! The tokenizer and the `tokenizers` crate, on one thread.
//!
//! `cargo bench --bench tokenizer` uses the vocabulary of `models/tiny-sst2` and one built-in text. With
//! `BERTLET_DATA` it uses the full vocabularies and the golden texts. Both must give the same ids before
//! anything is timed.

use bertlet::tokenizer::{Limits, Settings, TokenBuffer, Tokenizer};
use bertlet_convert::tokenizer::{SpecialTokens, build, read_vocab, reference_normalizer};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, ModelWrapper};

fn reference(vocab: &[String], settings: &Settings) -> tokenizers::Tokenizer {
    let map = WordPiece::read_bytes(vocab.join("\n").as_bytes()).unwrap();
    let model = WordPiece::builder().vocab(map.clone()).build().unwrap();
    let mut tokenizer = tokenizers::Tokenizer::new(ModelWrapper::WordPiece(model));
    tokenizer.with_normalizer(Some(reference_normalizer(settings))).unwrap();
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    let special = |name: &str| (name.to_owned(), map[name]);
    tokenizer.with_post_processor(Some(BertProcessing::new(special("[SEP]"), special("[CLS]"))));
    let names = ["[UNK]", "[SEP]", "[CLS]", "[PAD]", "[MASK]"];
    let known = names.into_iter().filter(|name| map.contains_key(*name));
    tokenizer.add_special_tokens(known.map(|name| AddedToken::from(name, true))).unwrap();
    tokenizer
}

/// The texts of the golden file: those in ASCII, and the others.
fn golden_texts(data: &Path) -> (Vec<String>, Vec<String>) {
    let file = std::fs::read_to_string(data.join("golden/tokenizer/uncased.jsonl")).unwrap();
    let texts = file.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["text"].as_str().unwrap().to_owned()
    });
    texts.partition(|text| text.is_ascii())
}

fn compare(c: &mut Criterion, name: &str, vocab: &Path, settings: &Settings, texts: &[String]) {
    let vocab = read_vocab(&std::fs::read_to_string(vocab).unwrap());
    let section = build(&vocab, settings, &SpecialTokens::default()).unwrap();
    let ours = Tokenizer::from_bytes(&section).unwrap();
    let theirs = reference(&vocab, settings);
    let (mut ids, mut types) = (vec![0; 4096], vec![0; 4096]);
    let (mut offsets, mut words) = (vec![(0, 0); 4096], vec![0; 4096]);
    let mut out = TokenBuffer {
        input_ids: &mut ids,
        token_type_ids: &mut types,
        offsets: &mut offsets,
        words: &mut words,
    };
    let limits = Limits::new(4096);
    for text in texts {
        let expected = theirs.encode(text.as_str(), true).unwrap();
        let encoded = ours.encode(text.as_str(), None, &limits, &mut out).unwrap();
        assert_eq!(&out.input_ids[..encoded.len], expected.get_ids(), "{text}");
    }
    let bytes: usize = texts.iter().map(String::len).sum();
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Bytes(bytes as u64)).sample_size(20);
    group.bench_function("bertlet", |b| {
        b.iter(|| {
            for text in texts {
                black_box(ours.encode(text.as_str(), None, &limits, &mut out).unwrap());
            }
        });
    });
    group.bench_function("tokenizers", |b| {
        b.iter(|| {
            for text in texts {
                black_box(theirs.encode(text.as_str(), true).unwrap());
            }
        });
    });
    group.finish();
}

fn bench(c: &mut Criterion) {
    let Some(data) = std::env::var_os("BERTLET_DATA").map(PathBuf::from) else {
        eprintln!("BERTLET_DATA is not set: only the tiny vocabulary is measured");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let vocab = root.join("models/tiny-sst2/vocab.txt");
        let texts =
            ["It's a lovely film with lovely performances, well worth seeing twice.".into()];
        return compare(c, "tiny", &vocab, &Settings::UNCASED, &texts);
    };
    let (ascii, other) = golden_texts(&data);
    let uncased = data.join("vocabs/bert-base-uncased.vocab.txt");
    compare(c, "uncased, ASCII", &uncased, &Settings::UNCASED, &ascii);
    compare(c, "uncased, other scripts", &uncased, &Settings::UNCASED, &other);
    let chinese = data.join("vocabs/bert-base-chinese.vocab.txt");
    compare(c, "chinese, other scripts", &chinese, &Settings::CASED, &other);
}

criterion_group!(benches, bench);
criterion_main!(benches);
