//! Chinese, from a checkpoint of bert-base-chinese's vocabulary (21,128 words) to entities and pairs.
//!
//! Weights are random (of a seed), but for a few characters that are planted: the labels they get are
//! known. The vocabulary is made up; with `BERTLET_DATA` the real one is used as well.

#[path = "common/checkpoints.rs"]
mod common;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use bertlet::tasks::{Aggregation, Entity, EntityOptions, EntityRecognizer, Label, Text};
use bertlet::tokenizer::{Limits, Settings, TokenBuffer, Tokenizer};
use bertlet::{Input, Kind, Layers, Model, ModelFile, Output, Pooling, Session};
use bertlet_convert::convert::{Options, Weights, convert};
use bertlet_convert::report::Report;
use bertlet_convert::tokenizer::{read_vocab, reference_normalizer};
use common::Folder;
use serde_json::{Value, json};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, ModelWrapper};

const VOCAB: usize = 21_128;
const HIDDEN: usize = 32;
const LAYERS: usize = 2;
const INTERMEDIATE: usize = 64;
const POSITIONS: usize = 128;

/// A vocabulary in the order of the real one: special tokens, ASCII, then Chinese characters with their
/// continuations, as many as there is room for.
fn made_up_vocabulary() -> Vec<String> {
    let mut vocab = vec!["[PAD]".to_owned()];
    vocab.extend((1..100).map(|i| format!("[unused{i}]")));
    vocab.extend(["[UNK]", "[CLS]", "[SEP]", "[MASK]", "<S>", "<T>"].map(String::from));
    vocab.extend(('!'..='~').map(String::from));
    vocab.extend(('0'..='9').chain('a'..='z').map(|c| format!("##{c}")));
    vocab.extend("，。！？、：；《》（）“”…—".chars().map(String::from));
    vocab.extend(["in", "the", "app", "##le", "##ing", "2024", "##24", "iphone"].map(String::from));
    let han = ('\u{4e00}'..).flat_map(|c| [c.to_string(), format!("##{c}")]);
    let room = VOCAB - vocab.len();
    vocab.extend(han.take(room));
    vocab
}

/// The vocabularies to test with, by name.
fn vocabularies() -> Vec<(&'static str, Vec<String>)> {
    let mut all = vec![("made-up", made_up_vocabulary())];
    match std::env::var_os("BERTLET_DATA").map(PathBuf::from) {
        Some(data) => {
            let path = data.join("vocabs/bert-base-chinese.vocab.txt");
            all.push(("real", read_vocab(&std::fs::read_to_string(path).unwrap())));
        }
        // Not with `eprintln!`, which the test harness keeps to itself.
        None => {
            let note = "SKIPPED: BERTLET_DATA is not set, bert-base-chinese's words not tested\n";
            std::io::stderr().write_all(note.as_bytes()).unwrap();
        }
    }
    for (name, vocab) in &all {
        assert_eq!(vocab.len(), VOCAB, "{name}");
    }
    all
}

/// Tensors of a checkpoint, of a seed.
struct Tensors {
    state: u64,
    all: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Tensors {
    /// About as BERT starts: small values around 0.
    fn random(&mut self, name: &str, shape: &[usize]) -> &mut Vec<f32> {
        let mut next = || {
            self.state = self
                .state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963);
            0.04 * ((self.state >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
        };
        let values = (0..shape.iter().product()).map(|_| next()).collect();
        &mut self.all.entry(name.to_owned()).or_insert((shape.to_vec(), values)).1
    }

    fn linear(&mut self, name: &str, outputs: usize, inputs: usize) {
        self.random(&format!("{name}.weight"), &[outputs, inputs]);
        self.random(&format!("{name}.bias"), &[outputs]);
    }

    fn norm(&mut self, name: &str) {
        let weight = self.random(&format!("{name}.weight"), &[HIDDEN]);
        weight.iter_mut().for_each(|x| *x += 1.0);
        self.random(&format!("{name}.bias"), &[HIDDEN]);
    }

    fn save(&self, path: &Path) {
        let (mut table, mut data) = (serde_json::Map::new(), Vec::new());
        for (name, (shape, values)) in &self.all {
            let start = data.len();
            data.extend(values.iter().flat_map(|x| x.to_le_bytes()));
            let place =
                json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
            table.insert(name.clone(), place);
        }
        let mut header = Value::Object(table).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        let length = (header.len() as u64).to_le_bytes();
        std::fs::write(path, [&length[..], &header, &data].concat()).unwrap();
    }
}

/// Writes a checkpoint in which each planted character has the label of that name; everything else has
/// the first one.
fn checkpoint(
    folder: &Path,
    vocab: &[String],
    architecture: &str,
    labels: &[&str],
    planted: &[(char, &str)],
) {
    let mut tensors = Tensors { state: 21_128, all: BTreeMap::new() };
    let label = |name: &str| labels.iter().position(|label| *label == name).unwrap();
    let words = tensors.random("bert.embeddings.word_embeddings.weight", &[VOCAB, HIDDEN]);
    for (character, name) in planted {
        let id = vocab.iter().position(|token| *token == character.to_string()).unwrap();
        words[id * HIDDEN + label(name)] = 1.0;
    }
    tensors.random("bert.embeddings.position_embeddings.weight", &[POSITIONS, HIDDEN]);
    tensors.random("bert.embeddings.token_type_embeddings.weight", &[2, HIDDEN]);
    tensors.norm("bert.embeddings.LayerNorm");
    for n in 0..LAYERS {
        let layer = format!("bert.encoder.layer.{n}");
        for part in ["query", "key", "value"] {
            tensors.linear(&format!("{layer}.attention.self.{part}"), HIDDEN, HIDDEN);
        }
        tensors.linear(&format!("{layer}.attention.output.dense"), HIDDEN, HIDDEN);
        tensors.norm(&format!("{layer}.attention.output.LayerNorm"));
        tensors.linear(&format!("{layer}.intermediate.dense"), INTERMEDIATE, HIDDEN);
        tensors.linear(&format!("{layer}.output.dense"), HIDDEN, INTERMEDIATE);
        tensors.norm(&format!("{layer}.output.LayerNorm"));
    }
    tensors.linear("bert.pooler.dense", HIDDEN, HIDDEN);
    tensors.linear("classifier", labels.len(), HIDDEN);
    if !planted.is_empty() {
        // Normalised, a planted vector's largest value is near the root of 32.
        let head = tensors.random("classifier.weight", &[]);
        (1..labels.len()).for_each(|label| head[label * HIDDEN + label] = 1.0);
        tensors.random("classifier.bias", &[])[0] = 4.2;
    }
    tensors.save(&folder.join("model.safetensors"));
    let numbered = |(i, label): (usize, &&str)| (i.to_string(), json!(label));
    let id2label: serde_json::Map<_, _> = labels.iter().enumerate().map(numbered).collect();
    let config = json!({
        "architectures": [architecture], "model_type": "bert", "hidden_act": "gelu",
        "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
        "intermediate_size": INTERMEDIATE, "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2, "vocab_size": VOCAB, "layer_norm_eps": 1e-12, "pad_token_id": 0,
        "id2label": id2label,
    });
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
    write("config.json", config.to_string());
    write("tokenizer_config.json", json!({"do_lower_case": false}).to_string());
    write("vocab.txt", vocab.join("\n") + "\n");
}

/// Makes a checkpoint and converts it to int8.
fn converted(
    folder: &Folder,
    vocab: &[String],
    architecture: &str,
    labels: &[&str],
    planted: &[(char, &str)],
) -> (PathBuf, Report) {
    checkpoint(&folder.0, vocab, architecture, labels, planted);
    let out = folder.0.join("model.bertlet");
    let options = Options { weights: Weights::Int8, ..Options::default() };
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

/// Ids, token types and offsets in bytes.
type Tokens = (Vec<u32>, Vec<u8>, Vec<(u32, u32)>);

fn tokens(tokenizer: &Tokenizer<'_>, text: &str, pair: Option<&str>) -> Tokens {
    let (mut ids, mut type_ids, mut offsets) = (vec![0; 1000], vec![9; 1000], vec![(0, 0); 1000]);
    let mut out = TokenBuffer {
        ids: &mut ids,
        type_ids: &mut type_ids,
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

/// What an entity's offsets cut out of the text, which must be the same in all three units.
fn slice<'t>(text: &'t str, entity: &Entity<'_>) -> &'t str {
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
    let mut labels = vec![Label::default(); model.section(Kind::TokenClassifier).unwrap().rows];
    let recognizer = EntityRecognizer::new(&model, &mut labels).unwrap();
    let mut session = Session::new(model);
    let mut scratch = vec![0; recognizer.scratch_len(POSITIONS, POSITIONS)];
    let mut encoder = session.encoder(POSITIONS).unwrap();
    let tagged = recognizer.tag(&mut encoder, Text::Str(text), None, &mut scratch).unwrap();
    let mut found = Vec::new();
    recognizer.entities(tagged, options, |e| found.push((e.label.to_owned(), slice(text, &e))));
    found
}

/// The command's answer to one line.
fn answer(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_bertlet")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Label schemes, and what they call the characters of 王小明, 北京大学 and 沪.
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
        for (scheme, labels, of) in SCHEMES {
            let folder = Folder::new(&format!("chinese-{name}-{scheme}"));
            let planted: Vec<_> = "王小明北京大学沪".chars().zip(of).collect();
            let architecture = "BertForTokenClassification";
            let (path, report) = converted(&folder, &vocab, architecture, labels, &planted);
            let counted = parameters(VOCAB, POSITIONS, HIDDEN, LAYERS, INTERMEDIATE);
            assert_eq!(report.summary.parameters.encoder, counted);
            let file = ModelFile::open(&path).unwrap();
            let model = file.model();
            assert_eq!(model.config().vocab, VOCAB);

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
            // Of ids there is no text to slice, but the tokenizer has put the spaces there, not the writer.
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
        // A token a character: [CLS] first [SEP] | second [SEP].
        let (left, right) = (first.chars().count() + 2, second.chars().count() + 1);
        assert_eq!(*types, [vec![0; left], vec![1; right]].concat());

        let mut session = Session::new(file.model());
        let mut pooled = |type_ids: Option<&[u8]>| {
            let mut out = vec![0.0; HIDDEN];
            let (layers, pooling) = (Layers::LAST, Pooling::Pooler);
            let wanted = Output::Features { layers, pooling, normalize: false, out: &mut out };
            session.encode(&Input { ids, type_ids, mask: None }, &mut [wanted]).unwrap();
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

/// Parameters of a BERT of that shape: three tables and their norm, layers, pooler.
fn parameters(
    vocab: usize,
    positions: usize,
    hidden: usize,
    layers: usize,
    intermediate: usize,
) -> usize {
    let linear = |outputs: usize, inputs: usize| outputs * inputs + outputs;
    let norm = 2 * hidden;
    let attention = 4 * linear(hidden, hidden) + norm;
    let forward = linear(intermediate, hidden) + linear(hidden, intermediate) + norm;
    let tables = (vocab + positions + 2) * hidden + norm;
    tables + layers * (attention + forward) + linear(hidden, hidden)
}

/// The formula is held against the converter's count of the models above.
#[test]
fn bert_base_chinese_has_its_size() {
    assert_eq!(parameters(VOCAB, 512, 768, 12, 3072), 102_267_648);
}
