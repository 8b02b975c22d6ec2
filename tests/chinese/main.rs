//! Chinese, from a checkpoint with a vocabulary of bert-base-chinese's size (21,128) to entities and pairs.
//!
//! The weights are pseudorandom, except those of a few planted characters, whose labels are known. The
//! vocabulary is made up; with `BERTLET_DATA` the tests use the real one as well.

#[path = "../common/checkpoints.rs"]
mod common;

mod base;
mod checkpoint;

use std::path::PathBuf;
use std::process::Command;

use bertlet::tasks::{Aggregation, EntityOptions};
use bertlet::tokenizer::{Limits, Settings, TokenBuffer, Tokenizer};
use bertlet::{Input, Layers, Model, ModelFile, NamedEntity, Output, Pooling, Session};
use bertlet_convert::report::ConversionReport;
use bertlet_convert::tokenizer::reference_normalizer;
use bertlet_convert::{ConvertOptions, WeightType, convert};
use checkpoint::{Shape, VOCAB, vocabularies, write};
use common::Folder;
use serde_json::{Value, json};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, ModelWrapper};

const SMALL: Shape = Shape {
    hidden: 32,
    layers: 2,
    heads: 4,
    intermediate: 64,
    positions: 128,
    spread: 0.04,
    outside: 4.2,
};

/// Writes a checkpoint and converts it to int8.
fn converted(
    folder: &Folder,
    vocab: &[String],
    architecture: &str,
    labels: &[&str],
    planted: &[(char, &str)],
) -> (PathBuf, ConversionReport) {
    write(&folder.0, &SMALL, vocab, architecture, labels, planted);
    convert_with(folder, ConvertOptions { weights: WeightType::Int8, ..ConvertOptions::default() })
}

/// Converts the checkpoint in a folder.
fn convert_with(folder: &Folder, options: ConvertOptions) -> (PathBuf, ConversionReport) {
    let out = folder.0.join("model.bertlet");
    let report = convert(&folder.0, &out, &options, &mut |_, _, _| ());
    (out, report.unwrap_or_else(|error| panic!("{error}")))
}

fn reference(vocab: &[String], settings: &Settings) -> tokenizers::Tokenizer {
    let map = WordPiece::read_bytes(vocab.join("\n").as_bytes()).unwrap();
    let special = |name: &str| (name.to_owned(), map[name]);
    let post = BertProcessing::new(special("[SEP]"), special("[CLS]"));
    let model = WordPiece::builder().vocab(map).max_input_chars_per_word(100).build().unwrap();
    let mut tokenizer = tokenizers::Tokenizer::new(ModelWrapper::WordPiece(model));
    tokenizer.with_normalizer(Some(reference_normalizer(settings))).unwrap();
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_post_processor(Some(post));
    let names = ["[UNK]", "[SEP]", "[CLS]", "[PAD]", "[MASK]"];
    tokenizer.add_special_tokens(names.map(|name| AddedToken::from(name, true))).unwrap();
    tokenizer
}

/// Ids, token types and byte offsets.
type Tokens = (Vec<u32>, Vec<u8>, Vec<(u32, u32)>);

fn tokens(tokenizer: &Tokenizer<'_>, text: &str, pair: Option<&str>) -> Tokens {
    let (mut ids, mut type_ids, mut offsets) = (vec![0; 1000], vec![9; 1000], vec![(0, 0); 1000]);
    let mut out = TokenBuffer {
        input_ids: &mut ids,
        token_type_ids: &mut type_ids,
        offsets: &mut offsets,
        words: &mut [],
    };
    let encoded = tokenizer.encode(text, pair, &Limits::new(1000), &mut out).unwrap();
    ids.truncate(encoded.len);
    type_ids.truncate(encoded.len);
    offsets.truncate(encoded.len);
    (ids, type_ids, offsets)
}

fn reference_tokens(encoding: &tokenizers::Encoding) -> Tokens {
    let types = encoding.get_type_ids().iter().map(|t| *t as u8).collect();
    let offsets = encoding.get_offsets().iter().map(|(a, b)| (*a as u32, *b as u32)).collect();
    (encoding.get_ids().to_vec(), types, offsets)
}

const TEXTS: [&str; 9] = [
    "王小明在北京大学读书。",
    "😀王小明 (Wang) 在 北京大学，2024年。沪、沪！",
    "iPhone15在沪apple店in北京 the王小明ing",
    "王明𠀀王小明　北京\u{200b}大学\u{3000}沪",
    "ＡＢＣ１２３，「你好」……龘靐齉㐀豈",
    "café 東京タワー 한국 沪 [MASK] 王明",
    "\t 王\r\n明 ",
    "",
    "中文abc中文ABC123中文。English中文mixed",
];

/// The slice of the text at an entity's offsets, which must be the same in all three units.
fn slice<'t>(text: &'t str, entity: &NamedEntity) -> &'t str {
    let bytes = &text[entity.start.byte as usize..entity.end.byte as usize];
    let range = entity.start.char as usize..entity.end.char as usize;
    let chars: String = text.chars().skip(range.start).take(range.len()).collect();
    let units: Vec<u16> = text.encode_utf16().collect();
    let utf16 = String::from_utf16(&units[entity.start.utf16 as usize..entity.end.utf16 as usize]);
    assert_eq!((bytes, bytes), (&chars[..], &utf16.unwrap()[..]), "{text:?}");
    bytes
}

fn entities<'t>(
    model: Model<'_>,
    text: &'t str,
    options: &EntityOptions,
) -> Vec<(String, &'t str)> {
    let mut session = Session::new(model);
    let found = session.entities_with(text, options).unwrap();
    found.iter().map(|e| (e.label.clone(), slice(text, e))).collect()
}

/// The command's answer to one line of input.
fn answer(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_bertlet")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A label scheme: its name, its labels, and the labels of the characters of 王小明, 北京大学 and 沪.
type Scheme = (&'static str, &'static [&'static str], [&'static str; 8]);

const SCHEMES: [Scheme; 2] = [
    (
        "bmes",
        &["O", "B-PER", "M-PER", "E-PER", "B-ORG", "M-ORG", "E-ORG", "S-LOC"],
        ["B-PER", "M-PER", "E-PER", "B-ORG", "M-ORG", "M-ORG", "E-ORG", "S-LOC"],
    ),
    (
        "bio",
        &["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC"],
        ["B-PER", "I-PER", "I-PER", "B-ORG", "I-ORG", "I-ORG", "I-ORG", "B-LOC"],
    ),
];

#[test]
fn entities_are_slices_of_the_text() {
    for (name, vocab) in vocabularies() {
        for (scheme, labels, tags) in SCHEMES {
            let folder = Folder::new(&format!("chinese-{name}-{scheme}"));
            let planted: Vec<_> = "王小明北京大学沪".chars().zip(tags).collect();
            let architecture = "BertForTokenClassification";
            let (path, report) = converted(&folder, &vocab, architecture, labels, &planted);
            assert_eq!(report.summary.parameters.encoder, SMALL.parameters());
            let file = ModelFile::open(&path).unwrap();
            let model = file.model();
            assert_eq!(model.config().vocab_size, VOCAB);

            let tokenizer = model.tokenizer().unwrap();
            assert_eq!(tokenizer.settings(), Settings::CASED);
            let reference = reference(&vocab, &tokenizer.settings());
            for text in TEXTS {
                let theirs = reference_tokens(&reference.encode(text, true).unwrap());
                assert_eq!(tokens(&tokenizer, text, None), theirs, "{name}: {text:?}");
            }

            let person = ("PER".to_owned(), "王小明");
            let place = ("LOC".to_owned(), "沪");
            let school = ("ORG".to_owned(), "北京大学");
            for constrained in [false, true] {
                let options = EntityOptions { aggregation: Aggregation::Simple, constrained };
                let find = |text| entities(model, text, &options);
                let what = format!("{name} {scheme} {constrained}");
                assert_eq!(find(TEXTS[0]), [person.clone(), school.clone()], "{what}");
                let mixed = [&person, &school, &place, &place].map(Clone::clone);
                assert_eq!(find(TEXTS[1]), mixed, "{what}");
                for (_, aggregation) in Aggregation::NAMES {
                    for text in TEXTS {
                        let found =
                            entities(model, text, &EntityOptions { aggregation, constrained });
                        for (_, found) in found {
                            let space = text.contains(' ') || text.contains('\u{3000}');
                            assert!(space || !found.contains(' '), "{what}: {found:?}");
                        }
                    }
                }
            }

            let path = path.to_str().unwrap();
            let said = &answer(&["ner", path, "--json", "--text", TEXTS[1]])["entities"];
            assert_eq!(said[0]["text"], "王小明");
            assert_eq!(
                ["start", "end", "start_char", "end_char", "start_utf16", "end_utf16"]
                    .map(|field| said[0][field].as_u64().unwrap()),
                [4, 13, 1, 4, 2, 5]
            );
            // Ids come without a text to slice. The words are joined without the spaces that BERT's
            // tokenizer puts around Chinese characters.
            let ids = tokens(&tokenizer, TEXTS[0], None).0;
            let line = folder.0.join("ids.jsonl");
            std::fs::write(&line, json!({"input_ids": ids}).to_string()).unwrap();
            let said =
                &answer(&["ner", path, "--json", "--ids", line.to_str().unwrap()])["entities"];
            assert_eq!(
                (&said[0]["text"], &said[1]["text"]),
                (&json!("王小明"), &json!("北京大学"))
            );
        }
    }
}

#[test]
fn pairs_have_token_types() {
    let (first, second) = ("北京大学在哪里？", "哪里有北京的大学");
    for (name, vocab) in vocabularies() {
        let folder = Folder::new(&format!("chinese-{name}-pairs"));
        let architecture = "BertForSequenceClassification";
        let (path, _) = converted(&folder, &vocab, architecture, &["不同", "相同"], &[]);
        let file = ModelFile::open(&path).unwrap();
        let tokenizer = file.model().tokenizer().unwrap();
        let ours = tokens(&tokenizer, first, Some(second));
        let reference = reference(&vocab, &tokenizer.settings());
        assert_eq!(ours, reference_tokens(&reference.encode((first, second), true).unwrap()));
        let (ids, types, _) = &ours;
        // One token per character: [CLS] first [SEP] | second [SEP].
        let (left, right) = (first.chars().count() + 2, second.chars().count() + 1);
        assert_eq!(*types, [vec![0; left], vec![1; right]].concat());

        let mut session = Session::new(file.model());
        let mut pooled = |type_ids: Option<&[u8]>| {
            let mut out = vec![0.0; SMALL.hidden];
            let (layers, pooling) = (Layers::LAST, Pooling::Pooler);
            let wanted = Output::Features { layers, pooling, normalize: false, out: &mut out };
            session
                .encode(
                    &Input { input_ids: ids, token_type_ids: type_ids, attention_mask: None },
                    &mut [wanted],
                )
                .unwrap();
            out
        };
        assert_ne!(pooled(Some(types)), pooled(None), "the model sees the types");

        let classify =
            |text: &str| answer(&["classify", path.to_str().unwrap(), "--json", "--text", text]);
        let said = classify(&format!("{first}\t{second}"));
        assert_eq!(said["scores"].as_object().unwrap().len(), 2);
        assert!(["不同", "相同"].contains(&said["label"].as_str().unwrap()));
        assert_ne!(said["logits"], classify(&format!("{second}\t{first}"))["logits"]);
        assert_ne!(said["logits"], classify(&format!("{first}{second}"))["logits"]);
    }
}
