//! Whole conversions: every checkpoint in every encoding, measured, reproducible, or refused without a trace.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bertlet::selftest::{SelfTest, SelfTestError};
use bertlet::tasks::TextRunner;
use bertlet::tokenizer::TokenBuffer;
use bertlet::{
    Head, Input, Layers, Model, ModelFile, Output, Pooling, SectionKind, Session, TooSmall,
};
use bertlet_convert::error::Result;
use bertlet_convert::html;
use bertlet_convert::report::ConversionReport;
use bertlet_convert::{ConvertOptions, WeightType, convert};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn as_weights(weights: WeightType) -> ConvertOptions {
    ConvertOptions { weights, ..ConvertOptions::default() }
}

/// Converts quietly.
fn quiet(source: &Path, out: &Path, options: &ConvertOptions) -> Result<ConversionReport> {
    convert(source, out, options, &mut |_, _, _| ())
}

/// A conversion into a folder of its own.
fn converted(source: &Path, options: &ConvertOptions) -> (TempDir, PathBuf, ConversionReport) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.bertlet");
    let report = quiet(source, &out, options).unwrap_or_else(|e| panic!("{e}"));
    (folder, out, report)
}

/// The message of a conversion that must fail, and leave nothing.
fn refused(source: &Path, options: &ConvertOptions) -> String {
    let folder = tempfile::tempdir().unwrap();
    let error = quiet(source, &folder.path().join("out.bertlet"), options).unwrap_err().to_string();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{error}");
    assert!(!error.contains('\n'), "{error}");
    error
}

/// A copy of a fixture that a test may change.
fn copy(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

fn edit(folder: &TempDir, file: &str, change: impl FnOnce(&mut Value)) {
    let path = folder.path().join(file);
    let mut json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

/// One input of the reference, without padding, and what the reference makes of it.
struct Case {
    name: String,
    ids: Vec<u32>,
    types: Vec<u8>,
    /// By name: shape without the batch, values.
    outputs: BTreeMap<String, Vec<f32>>,
}

fn golden(file: &Path) -> Vec<Case> {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let ints = |name: &str| -> Option<Vec<u32>> {
        let data = tensors
            .tensor(name)
            .ok()?
            .data()
            .chunks_exact(4)
            .map(|b| i32::from_le_bytes(b.try_into().unwrap()) as u32);
        Some(data.collect())
    };
    let mut cases = Vec::new();
    for name in tensors.names() {
        let Some(case) = name.strip_suffix(".input_ids") else { continue };
        let shape = tensors.tensor(name).unwrap().shape().to_vec();
        let (rows, cols) = (shape[0], shape[1]);
        let ids = ints(name).unwrap();
        let types = ints(&format!("{case}.token_type_ids")).unwrap_or(vec![0; ids.len()]);
        let mask = ints(&format!("{case}.attention_mask")).unwrap_or(vec![1; ids.len()]);
        for row in 0..rows {
            let at = row * cols;
            let tokens = mask[at..at + cols].iter().sum::<u32>() as usize;
            let mut outputs = BTreeMap::new();
            for (output, tensor) in tensors.iter() {
                let Some(output) = output.strip_prefix(&format!("{case}.")) else { continue };
                if tensor.dtype() != safetensors::Dtype::F32 {
                    continue;
                }
                let floats = tensor.data().chunks_exact(4);
                let all: Vec<f32> =
                    floats.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
                let each = all.len() / rows;
                let mut values = all[row * each..(row + 1) * each].to_vec();
                // What has a row per token has rows for padding, too.
                if tensor.shape().get(1) == Some(&cols) {
                    values.truncate(each / cols * tokens);
                }
                outputs.insert(output.to_owned(), values);
            }
            cases.push(Case {
                name: format!("{case}.{row}"),
                ids: ids[at..at + tokens].to_vec(),
                types: types[at..at + tokens].iter().map(|&t| t as u8).collect(),
                outputs,
            });
        }
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

/// What the runtime makes of a case, for one of the reference's outputs; `None` for those that it does
/// not have in this form.
fn ours(session: &mut Session<'_>, case: &Case, output: &str, len: usize) -> Option<Vec<f32>> {
    let mut out = vec![0f32; len];
    let input =
        Input { input_ids: &case.ids, token_type_ids: Some(&case.types), attention_mask: None };
    let feature =
        |layers, pooling, normalize, out| Output::Features { layers, pooling, normalize, out };
    let logits = |head, out| Output::Logits { head, out };
    let model = session.model();
    let asked = match output.rsplit_once('.') {
        Some(("hidden_states", layer)) => {
            feature(Layers::one(layer.parse().ok()?), Pooling::None, false, &mut out)
        }
        _ => match output {
            "pooler_output" => feature(Layers::LAST, Pooling::Pooler, false, &mut out),
            "sentence_embedding" => feature(Layers::LAST, Pooling::Mean, true, &mut out),
            "seq_relationship_logits" => logits(Head::NextSentence, &mut out),
            "logits" if model.section(SectionKind::TokenClassifier).is_some() => {
                logits(Head::TokenClassifier, &mut out)
            }
            "logits" => logits(Head::SequenceClassifier, &mut out),
            "start_logits" | "end_logits" => {
                out.resize(2 * len, 0.0);
                session
                    .encode(&input, &mut [logits(Head::QuestionAnswering, &mut out)])
                    .unwrap_or_else(|e| panic!("{}: {e}", case.name));
                let which = usize::from(output == "end_logits");
                return Some(out.chunks_exact(2).map(|pair| pair[which]).collect());
            }
            _ => return None,
        },
    };
    session.encode(&input, &mut [asked]).unwrap_or_else(|e| panic!("{} {output}: {e}", case.name));
    Some(out)
}

/// Largest absolute error, relative RMS of the last hidden states, and outputs compared.
fn against_golden(model: Model<'_>, cases: &[Case]) -> (f32, f64, usize) {
    let mut session = Session::new(model);
    let last = format!("hidden_states.{}", model.config().num_hidden_layers);
    let (mut largest, mut noise, mut signal, mut count) = (0f32, 0f64, 0f64, 0);
    for case in cases {
        for (output, expected) in &case.outputs {
            let Some(out) = ours(&mut session, case, output, expected.len()) else { continue };
            count += 1;
            for (a, b) in out.iter().zip(expected) {
                largest = largest.max((a - b).abs());
                if *output == last {
                    noise += f64::from(a - b).powi(2);
                    signal += f64::from(*b).powi(2);
                }
            }
        }
    }
    (largest, (noise / signal).sqrt(), count)
}

#[test]
fn every_micro_model_gives_the_reference_outputs() {
    for (name, outputs) in [
        ("micro", 40),
        ("micro-odd", 50),
        ("micro-gelu_new", 40),
        ("micro-relu", 40),
        ("micro-silu", 40),
        ("micro-qa", 10),
        ("micro-token-classification", 10),
        ("micro-sequence-classification", 10),
    ] {
        let cases = golden(&fixture(name).join("golden.safetensors"));
        for (weights, most) in
            [(WeightType::F32, 2e-4), (WeightType::F16, 2e-2), (WeightType::Int8, 0.7)]
        {
            let (_folder, out, report) = converted(&fixture(name), &as_weights(weights));
            let file = ModelFile::open(&out).unwrap();
            let (largest, _, count) = against_golden(file.model(), &cases);
            assert!(count >= outputs, "{name}: {count} outputs");
            assert!(largest <= most, "{name} {weights:?}: {largest:e}");
            let last = report.summary.error.states.last().unwrap();
            let bound = [0.06, 2e-3, 1e-5][weights as usize];
            assert!(last.relative_rms < bound, "{name} {weights:?}: {}", last.relative_rms);
        }
    }
}

#[test]
fn every_format_gives_the_same_model() {
    let reference = converted(&fixture("micro"), &as_weights(WeightType::F32));
    let cases = golden(&fixture("micro/golden.safetensors"));
    let mut count = 0;
    for entry in fs::read_dir(fixture("formats")).unwrap() {
        let source = entry.unwrap().path();
        let name = source.file_name().unwrap().to_string_lossy().into_owned();
        let (_folder, out, report) = converted(&source, &as_weights(WeightType::F32));
        let file = ModelFile::open(&out).unwrap();
        let hidden: Vec<Case> = cases
            .iter()
            .map(|case| Case {
                name: case.name.clone(),
                ids: case.ids.clone(),
                types: case.types.clone(),
                outputs: case
                    .outputs
                    .iter()
                    .filter(|(name, _)| name.starts_with("hidden_states"))
                    .map(|(name, values)| (name.clone(), values.clone()))
                    .collect(),
            })
            .collect();
        let (largest, ..) = against_golden(file.model(), &hidden);
        // The others were rounded before we had them.
        let most = match name.split('-').next() {
            Some("f16") => 2e-2,
            Some("bf16") => 2e-1,
            _ => 2e-4,
        };
        assert!(largest <= most, "{name}: {largest:e}");
        let (totals, parameters) = (report.summary.tensors, &report.summary.parameters);
        assert_eq!(totals.read, totals.mapped + totals.dropped, "{name}");
        assert_eq!(totals.read, report.tensors.len(), "{name}");
        let embeddings = reference.2.summary.parameters.embeddings;
        assert_eq!(parameters.embeddings, embeddings, "{name}");
        count += 1;
    }
    assert_eq!(count, 17);
}

#[test]
fn the_same_checkpoint_gives_the_same_bytes() {
    let bytes = |source: &Path, threads| {
        let (_folder, out, _) =
            converted(source, &ConvertOptions { threads, ..ConvertOptions::default() });
        fs::read(out).unwrap()
    };
    let first = bytes(&fixture("micro"), 1);
    assert!(first == bytes(&fixture("micro"), 2), "threads change the file");
    // Nor does it matter where the checkpoint lies.
    assert!(first == bytes(copy("micro").path(), 2), "the path changes the file");
}

#[test]
fn files_verify_and_damage_is_found() {
    let (_folder, out, report) = converted(&fixture("micro"), &ConvertOptions::default());
    let file = ModelFile::open(&out).unwrap();
    let model = file.model();
    model.verify().unwrap();
    let test = SelfTest::of(&model).unwrap();
    let run = |model: Model<'_>, values: usize| {
        let mut out = vec![0.0; values];
        test.run(&mut Session::new(model).encoder(test.tokens()).unwrap(), &mut out)
    };
    let passed = run(model, test.values()).unwrap();
    assert_eq!(passed.cases, 3);
    assert_eq!(passed.outputs, 9, "mean, pooler and next sentence");
    assert_eq!(passed.values, report.file.self_test_values);
    let have = test.values() - 1;
    assert_eq!(
        run(model, have),
        Err(SelfTestError::TooSmall(TooSmall { what: "an output", need: have + 1, have }))
    );

    // Another model does not give these outputs.
    let (_other_folder, other, _) = converted(&fixture("micro"), &as_weights(WeightType::F16));
    let other = ModelFile::open(&other).unwrap();
    let differs = run(other.model(), test.values());
    assert!(matches!(differs, Err(SelfTestError::Differs { case: 0, .. })), "{differs:?}");

    // Every cut and every changed byte of the section is an error, never a panic.
    let section = model.section(SectionKind::SelfTest).unwrap();
    for at in section.offset..section.offset + 60 {
        let mut bytes = fs::read(&out).unwrap();
        bytes[at] ^= 0x55;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("damaged");
        fs::write(&path, bytes).unwrap();
        let file = ModelFile::open(&path).unwrap();
        assert!(file.model().verify().is_err());
        if let Ok(test) = SelfTest::of(&file.model()) {
            let mut out = vec![0.0; test.values()];
            let mut session = Session::new(file.model());
            if let Ok(mut encoder) = session.encoder(test.tokens()) {
                let _ = test.run(&mut encoder, &mut out);
            }
        }
    }
}

#[test]
fn the_report_counts_what_is_there() {
    let (_folder, out, report) = converted(&fixture("micro"), &ConvertOptions::default());
    let json = serde_json::to_value(&report).unwrap();
    // hidden 32, intermediate 64, 256 words, 64 positions, 2 types, 2 layers.
    let embeddings = (256 + 64 + 2) * 32 + 2 * 32;
    let layer = 4 * (32 * 32 + 32) + 2 * 32 * 64 + 64 + 32 + 4 * 32;
    let pooler = 32 * 32 + 32;
    assert_eq!(json["parameters"]["embeddings"], embeddings);
    assert_eq!(json["parameters"]["layers"], 2 * layer);
    assert_eq!(json["parameters"]["encoder"], embeddings + 2 * layer + pooler);
    assert_eq!(json["parameters"]["heads"]["next sentence"], 2 * 32 + 2);
    let read = json["tensors"]["read"].as_u64().unwrap();
    assert_eq!(json["all_tensors"].as_array().unwrap().len() as u64, read);
    assert_eq!(json["error"]["states"].as_array().unwrap().len(), 3);
    assert_eq!(json["file"]["bytes"], fs::metadata(&out).unwrap().len());
    let state = &json["error"]["states"][2];
    for key in ["relative_rms", "cosine", "sqnr_db", "worst_channel", "worst_channel_rms"] {
        assert!(state[key].is_number(), "{key}: {state}");
    }
    // The file tells the same, but neither when nor where it was made.
    let file = ModelFile::open(&out).unwrap();
    let text = file.model().provenance().unwrap().to_owned();
    let provenance: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(provenance["error"], json["error"]);
    assert_eq!(provenance["source_files"], json["source_files"]);
    let names: Vec<_> =
        provenance["source_files"].as_array().unwrap().iter().map(|f| &f["name"]).collect();
    assert!(names.contains(&&json!("model.safetensors")), "{names:?}");
    assert!(!text.contains("fixtures") && !text.contains(env!("CARGO_MANIFEST_DIR")), "{text}");

    let page = html::page(&report);
    assert_eq!(page.matches("class=\"bar\"").count(), 3, "a bar a hidden state");
    assert_eq!(page.matches("class=\"spikes\"").count(), 3);
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("<script"));
    for tensor in &report.tensors {
        assert!(page.contains(&tensor.name));
    }
    assert!(report.text().contains("pooled cosine"));
}

#[test]
fn the_size_of_bert_base_chinese_is_the_known_one() {
    use bertlet_convert::bert::*;
    let matrix = |rows, cols| Matrix { rows, cols, data: vec![0.0; rows * cols] };
    let linear = |rows, cols| Linear { weight: matrix(rows, cols), bias: vec![0.0; rows] };
    let norm = || LayerNorm { weight: vec![0.0; 768], bias: vec![0.0; 768] };
    let layer = || Layer {
        query: linear(768, 768),
        key: linear(768, 768),
        value: linear(768, 768),
        attention_output: linear(768, 768),
        attention_norm: norm(),
        intermediate: linear(3072, 768),
        output: linear(768, 3072),
        output_norm: norm(),
    };
    let bert = Bert {
        config: Config {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            vocab_size: 21128,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            hidden_act: Activation::Gelu,
            attention: Attention::Float,
        },
        embeddings: Embeddings {
            word: matrix(21128, 768),
            position: matrix(512, 768),
            token_type: matrix(2, 768),
            norm: norm(),
        },
        layers: (0..12).map(|_| layer()).collect(),
        pooler: Some(linear(768, 768)),
        heads: TaskHeads::default(),
    };
    let parameters = bertlet_convert::report::Parameters::of(&bert);
    assert_eq!(parameters.encoder, 102_267_648);
}

/// The pieces of a model, and their logits for a masked word.
fn masked_word(session: &mut Session<'_>) -> (Vec<String>, Vec<f32>) {
    let (mut ids, mut positions) = ([0; 16], [0; 16]);
    let mut logits = vec![0.0; session.model().config().vocab_size];
    let buffer = TokenBuffer { input_ids: &mut ids, ..TokenBuffer::default() };
    let mut runner = TextRunner::new(session.encoder(16).unwrap(), buffer);
    let tokenizer = runner.tokenizer().unwrap();
    let (count, _) = runner.fill_mask("the [MASK] movie", &mut positions, &mut logits).unwrap();
    assert_eq!(count, 1);
    let pieces = 0..logits.len() as u32;
    (pieces.map(|id| tokenizer.token(id).unwrap().to_owned()).collect(), logits)
}

#[test]
fn a_kept_vocabulary_has_the_pieces_of_texts_after_their_prompts() {
    let folder = copy("micro");
    fs::write(
        folder.path().join("config_sentence_transformers.json"),
        json!({"prompts": {"query": "bank "}, "default_prompt_name": "query"}).to_string(),
    )
    .unwrap();
    let texts = folder.path().join("texts.txt");
    fs::write(&texts, "the movie\n").unwrap();
    let options = ConvertOptions { keep_vocabulary: Some(texts), ..ConvertOptions::default() };
    let (_whole_folder, whole, _) = converted(folder.path(), &ConvertOptions::default());
    let (_folder, kept, _) = converted(folder.path(), &options);
    let [mut whole, mut kept] = [whole, kept].map(|path| Session::open(&path).unwrap());
    assert_eq!(whole.embed("the movie").unwrap(), kept.embed("the movie").unwrap());
}

#[test]
fn a_kept_vocabulary_gives_covered_texts_the_same_bits() {
    let texts = tempfile::NamedTempFile::new().unwrap();
    fs::write(texts.path(), "the good movie\ngreat\tbank un\nparis\n").unwrap();
    for name in ["micro", "micro-mlm"] {
        for weights in [WeightType::Int8, WeightType::F32] {
            let options = ConvertOptions {
                keep_vocabulary: Some(texts.path().to_owned()),
                ..as_weights(weights)
            };
            let (_whole_folder, whole, _) = converted(&fixture(name), &as_weights(weights));
            let (_folder, kept, report) = converted(&fixture(name), &options);
            let about = report.summary.options.vocabulary.unwrap();
            assert!(about.pieces < about.of, "{about:?}");
            let [mut whole, mut kept] = [whole, kept].map(|path| Session::open(&path).unwrap());
            assert_eq!(kept.model().config().vocab_size, about.pieces);
            let features = bertlet::tasks::Features {
                layers: Layers::LAST,
                pooling: Pooling::None,
                normalize: false,
            };
            for text in ["the good movie", "great bank paris un", ""] {
                let [whole, kept] = [&mut whole, &mut kept]
                    .map(|session| session.embed_with(text, &features).unwrap());
                assert_eq!(whole, kept, "{name}: {text}");
            }
            if name == "micro-mlm" {
                let [(_, whole), (pieces, kept)] = [&mut whole, &mut kept].map(masked_word);
                assert_eq!(pieces.len(), kept.len());
                let all = fs::read_to_string(fixture(name).join("vocab.txt")).unwrap();
                let all: Vec<&str> = all.lines().collect();
                for (piece, logit) in pieces.iter().zip(kept) {
                    let id = all.iter().position(|other| other == piece).unwrap();
                    assert_eq!(logit.to_bits(), whole[id].to_bits(), "{piece}");
                }
            }
            // A word that no text has is split into characters, and is known still.
            let tokenizer = kept.model().tokenizer().unwrap();
            assert_eq!((tokenizer.id("river"), tokenizer.id("movie").is_some()), (None, true));
            let ids: Vec<u32> = tokenizer.tokens("ab").map(|token| token.unwrap().id).collect();
            assert_eq!(ids.len(), 2);
            assert!(!ids.contains(&tokenizer.unk_id()));
        }
    }
    let missing = ConvertOptions {
        keep_vocabulary: Some("no-such-file".into()),
        ..ConvertOptions::default()
    };
    assert!(refused(&fixture("micro"), &missing).starts_with("no-such-file: cannot be read"));
    let options = ConvertOptions { keep_vocabulary: Some(texts.path().into()), ..missing };
    let bare = copy("micro-base");
    fs::remove_file(bare.path().join("vocab.txt")).unwrap();
    let error = refused(bare.path(), &options);
    assert!(error.contains("--keep-vocabulary: the checkpoint has no vocabulary"), "{error}");
}

#[test]
fn layers_are_kept_in_f16_until_the_cosine_is_reached() {
    let plain = converted(&fixture("micro"), &ConvertOptions::default()).2;
    let reached = plain.summary.error.pooled_cosine;
    let wanted = 1.0 - (1.0 - reached) * 0.8;
    let options = ConvertOptions { min_cosine: Some(wanted), ..ConvertOptions::default() };
    let (_folder, out, report) = converted(&fixture("micro"), &options);
    let kept = report.summary.options.kept_in_f16.len();
    assert!((1..8).contains(&kept), "{kept}");
    assert!(report.summary.error.pooled_cosine >= wanted);
    let file = ModelFile::open(&out).unwrap();
    let layers = file.model().sections().filter(|section| {
        [
            SectionKind::QueryKeyValue,
            SectionKind::AttentionOutput,
            SectionKind::Intermediate,
            SectionKind::Output,
        ]
        .contains(&section.kind)
    });
    let halves = layers.filter(|s| s.encoding == bertlet::format::Encoding::F16).count();
    assert_eq!(halves, kept);
    // What is reached anyway keeps nothing.
    let options = ConvertOptions { min_cosine: Some(0.9), ..ConvertOptions::default() };
    let report = converted(&fixture("micro"), &options).2;
    assert_eq!(report.summary.options.kept_in_f16.len(), 0);

    let options = ConvertOptions { min_cosine: Some(1.0), ..ConvertOptions::default() };
    let error = refused(&fixture("micro"), &options);
    assert!(error.starts_with("--min-cosine: 1 cannot be reached: the best is 0.99"), "{error}");
}

#[test]
fn what_is_wrong_with_a_checkpoint_is_said_and_nothing_is_left() {
    // A tensor that no BERT has.
    let odd = copy("micro");
    let path = odd.path().join("model.safetensors");
    let text = fs::read(&path).unwrap();
    let mut bytes = text.clone();
    let name = b"cls.seq_relationship.bias";
    let at = bytes.windows(name.len()).position(|w| w == name).unwrap();
    bytes[at + 4..at + 7].copy_from_slice(b"new");
    fs::write(&path, &bytes).unwrap();
    let error = refused(odd.path(), &ConvertOptions::default());
    assert!(error.contains("model.safetensors: cls.new_relationship.bias: "), "{error}");
    // Allowed, it is dropped; but then the head lacks its bias.
    let allow = ConvertOptions { allow_unknown: true, ..ConvertOptions::default() };
    let error = refused(odd.path(), &allow);
    assert!(error.contains("cls.seq_relationship.bias: missing"), "{error}");

    // A pooler of another name is dropped whole.
    let odd = copy("micro-sequence-classification");
    let error = {
        edit(&odd, "config.json", |config| config["hidden_act"] = json!("quick_gelu"));
        refused(odd.path(), &ConvertOptions::default())
    };
    assert!(error.contains("config.json: hidden_act: \"quick_gelu\" is not supported"), "{error}");

    let odd = copy("micro");
    edit(&odd, "config.json", |config| config["num_hidden_layers"] = json!(3));
    let error = refused(odd.path(), &ConvertOptions::default());
    assert!(error.contains("encoder.layer.2.") && error.contains("missing"), "{error}");

    // Cut anywhere, it is refused.
    let odd = copy("micro");
    let whole = fs::read(fixture("micro/model.safetensors")).unwrap();
    for length in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(odd.path().join("model.safetensors"), &whole[..length]).unwrap();
        let error = refused(odd.path(), &ConvertOptions::default());
        assert!(error.contains("model.safetensors"), "{error}");
    }

    let error = refused(Path::new("no-such-folder"), &ConvertOptions::default());
    assert!(error.starts_with("no-such-folder: "), "{error}");
}

#[test]
fn an_unknown_tensor_can_be_dropped() {
    // No pooler by its name, and nothing that needs it.
    let odd = copy("micro-base");
    let path = odd.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    for name in [&b"pooler.dense.bias"[..], b"pooler.dense.weight"] {
        let at = bytes.windows(name.len()).position(|w| w == name).unwrap();
        bytes[at] = b'q';
    }
    fs::write(&path, &bytes).unwrap();
    assert!(refused(odd.path(), &ConvertOptions::default()).contains("qooler.dense.bias"));
    let allow = ConvertOptions {
        allow_unknown: true,
        weights: WeightType::F32,
        ..ConvertOptions::default()
    };
    let (_folder, out, report) = converted(odd.path(), &allow);
    assert_eq!(report.summary.tensors.dropped, 2);
    assert!(report.summary.dropped.iter().all(|d| d.why == "unknown name"));
    assert!(ModelFile::open(&out).unwrap().model().section(SectionKind::Pooler).is_none());
    let options = ConvertOptions { pooling: Some(Pooling::Pooler), ..allow };
    assert!(refused(odd.path(), &options).contains("--pooling: the checkpoint has no pooler"));
}

#[test]
fn what_sentence_transformers_states_is_in_the_file() {
    let folder = copy("micro-base");
    let write = |file: &str, json: Value| {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, json.to_string()).unwrap();
    };
    let options = as_weights(WeightType::F32);
    // The tokenizer's limit, if nothing else is stated; 10^30 is none.
    for (stated, limit) in [(json!(24), 24), (json!(1e30), 64), (json!(512), 64)] {
        write("tokenizer_config.json", json!({"model_max_length": stated}));
        let (_folder, out, report) = converted(folder.path(), &options);
        assert_eq!(ModelFile::open(&out).unwrap().model().max_tokens(), limit);
        let notes = &report.summary.notes;
        let said = notes.iter().any(|note| note.contains("model_max_length: 512 is more than"));
        assert_eq!(said, stated == 512, "{notes:?}");
    }
    let class = "sentence_transformers.models";
    write(
        "modules.json",
        json!([
            {"path": "", "type": format!("{class}.Transformer")},
            {"path": "1_Pooling", "type": format!("{class}.Pooling")},
            {"path": "2_Normalize", "type": format!("{class}.Normalize")},
        ]),
    );
    write("1_Pooling/config.json", json!({"pooling_mode": "mean"}));
    write("sentence_bert_config.json", json!({"max_seq_length": 16}));
    write(
        "config_sentence_transformers.json",
        json!({"prompts": {"query": "the query: ", "document": ""}, "default_prompt_name": "query"}),
    );
    let (_folder, out, report) = converted(folder.path(), &options);
    assert_eq!(report.summary.options.max_tokens, 16);
    let mut session = Session::open(&out).unwrap();
    let model = session.model();
    assert_eq!((model.default_pooling(), model.default_normalize()), (Pooling::Mean, true));
    assert_eq!(model.max_tokens(), 16);
    assert_eq!(model.prompts().len(), 2);
    assert_eq!(model.prompts().default_prompt().unwrap().text, "the query: ");
    model.verify().unwrap();
    let prompted = session.embed("house").unwrap();
    assert!(!prompted.truncated && session.embed(&*"house ".repeat(40)).unwrap().truncated);
    let mut bare = Session::open(&out).unwrap().with_prompt("");
    assert_eq!(bare.embed("the query: house").unwrap(), prompted);

    write("sentence_bert_config.json", json!({"max_seq_length": 2}));
    let error = refused(folder.path(), &options);
    assert!(error.contains("max_seq_length: 2 leaves no room for a text"), "{error}");
}

#[test]
fn scores_of_cross_encoders_follow_their_activation() {
    use bertlet::heads::ScoreFunction;
    let function = |change: &dyn Fn(&mut Value)| {
        let folder = copy("micro-sequence-classification");
        edit(&folder, "config.json", change);
        let (_folder, out, _) = converted(folder.path(), &as_weights(WeightType::F32));
        let file = ModelFile::open(&out).unwrap();
        let head = bertlet::SequenceClassifier::new(&file.model()).unwrap();
        assert!(head.logits_len() > 1);
        head.score_function()
    };
    assert_eq!(function(&|_| ()), ScoreFunction::Softmax);
    let identity = "torch.nn.modules.linear.Identity";
    let nested = |c: &mut Value| c["sentence_transformers"] = json!({"activation_fn": identity});
    assert_eq!(function(&nested), ScoreFunction::Identity);
    let sigmoid = "torch.nn.modules.activation.Sigmoid";
    let old = |c: &mut Value| c["sbert_ce_default_activation_function"] = json!(sigmoid);
    assert_eq!(function(&old), ScoreFunction::Sigmoid);
}

#[test]
fn wrong_options_are_refused() {
    let labels = |names: &[&str]| ConvertOptions {
        labels: Some(names.iter().map(|n| n.to_string()).collect()),
        ..as_weights(WeightType::F32)
    };
    let source = fixture("micro-token-classification");
    let error = refused(&source, &labels(&["a", "b"]));
    assert!(error.contains("--labels: 2 labels for the 5 outputs"), "{error}");
    let (_folder, out, _) = converted(&source, &labels(&["a", "b", "c", "d", "e"]));
    let file = ModelFile::open(&out).unwrap();
    assert_eq!(file.model().labels().iter().collect::<Vec<_>>(), ["a", "b", "c", "d", "e"]);

    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    let calibrate = ConvertOptions { calibration: Some(text.clone()), ..ConvertOptions::default() };
    assert!(refused(&source, &calibrate).contains("text: cannot be read"));
    for bytes in [&b""[..], b" \n\n", b"\xff\xfe"] {
        fs::write(&text, bytes).unwrap();
        assert!(refused(&source, &calibrate).contains("text: "));
    }
    fs::write(&text, "the city of london\n\nthe river\n").unwrap();
    let report = converted(&source, &calibrate).2;
    let calibration = report.summary.options.calibration.unwrap();
    assert_eq!(
        (calibration.text.as_str(), calibration.sha256.map(|s| s.len())),
        ("text", Some(64))
    );

    let out = folder.path().join("none/out.bertlet");
    let error = quiet(&source, &out, &ConvertOptions::default()).unwrap_err().to_string();
    assert!(error.ends_with("none: is not a folder; create it first"), "{error}");
    let error = quiet(&source, folder.path(), &ConvertOptions::default()).unwrap_err().to_string();
    assert!(error.contains("is a folder"), "{error}");
}

#[test]
fn a_checkpoint_without_vocabulary_is_converted_all_the_same() {
    let bare = copy("micro");
    for file in ["vocab.txt", "tokenizer.json", "tokenizer_config.json"] {
        fs::remove_file(bare.path().join(file)).unwrap();
    }
    let cases = golden(&fixture("micro/golden.safetensors"));
    let (_folder, out, report) = converted(bare.path(), &ConvertOptions::default());
    assert!(report.summary.notes.iter().any(|note| note.contains("no vocabulary")));
    assert_eq!(report.summary.options.calibration.unwrap().text, "random ids");
    let file = ModelFile::open(&out).unwrap();
    assert!(file.model().tokenizer_bytes().is_none());
    let (_, relative, _) = against_golden(file.model(), &cases);
    assert!(relative < 0.08, "{relative}");
}

#[test]
fn an_output_that_is_there_stays_until_another_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.bertlet");
    fs::write(&out, "old").unwrap();
    quiet(
        &fixture("micro"),
        &out,
        &ConvertOptions { min_cosine: Some(1.0), ..ConvertOptions::default() },
    )
    .unwrap_err();
    assert_eq!(fs::read(&out).unwrap(), b"old");
    quiet(&fixture("micro"), &out, &ConvertOptions::default()).unwrap();
    ModelFile::open(&out).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// The shared data folder and the MiniLM checkpoint, for those who have them.
fn minilm() -> Option<(PathBuf, PathBuf)> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from);
    let found = folder("BERTLET_DATA").zip(folder("BERTLET_MINILM"));
    if found.is_none() {
        eprintln!(
            "SKIPPED: set BERTLET_DATA and BERTLET_MINILM (all-MiniLM-L6-v2) to run this test"
        );
    }
    found
}

#[test]
fn minilm_gives_the_reference_outputs() {
    let Some((data, source)) = minilm() else { return };
    let cases = golden(&data.join("golden/minilm/outputs.safetensors"));
    for (weights, most) in
        [(WeightType::F32, 2e-4), (WeightType::F16, 6e-3), (WeightType::Int8, 1.0)]
    {
        let (_folder, out, _) = converted(&source, &as_weights(weights));
        let file = ModelFile::open(&out).unwrap();
        assert_eq!(file.model().default_pooling(), Pooling::Mean);
        let (largest, relative, count) = against_golden(file.model(), &cases);
        eprintln!(
            "{weights:?}: largest error {largest:e}, relative RMS {relative:.5}, {count} outputs"
        );
        assert!(largest <= most && relative <= 0.027 && count > 100);
    }
}

/// A copy of micro with the elements of some tensors changed.
fn with_weights(change: impl Fn(&str, usize, &mut f32)) -> TempDir {
    let folder = copy("micro");
    let path = folder.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    for (name, tensor) in json.as_object().unwrap() {
        let Some(start) = tensor["data_offsets"][0].as_u64() else { continue };
        let end = tensor["data_offsets"][1].as_u64().unwrap();
        let data = &mut bytes[8 + header + start as usize..8 + header + end as usize];
        for (i, element) in data.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let mut value = f32::from_le_bytes(*element);
            change(name, i, &mut value);
            *element = value.to_le_bytes();
        }
    }
    fs::write(&path, bytes).unwrap();
    folder
}

#[test]
fn weights_that_overflow_are_refused_and_leave_no_file() {
    // One weight, in a matrix that an int8 file stores in f16 or f32.
    let one = with_weights(|name, i, x| {
        if name.contains("position_embeddings") && i == 5 {
            *x = 70_000.0;
        }
    });
    for weights in [WeightType::Int8, WeightType::F16] {
        let options = ConvertOptions { min_cosine: Some(0.9), ..as_weights(weights) };
        let error = refused(one.path(), &options);
        assert!(error.contains("position_embeddings.weight: element 5 is 7e4"), "{error}");
    }
    let (_folder, _, report) = converted(one.path(), &as_weights(WeightType::F32));
    assert!(report.summary.error.pooled_cosine > 0.99999);

    // Each is possible, but together they overflow.
    let products = with_weights(|name, _, x| {
        let parts = ["attention.output.LayerNorm", "intermediate.dense", "output.dense"];
        if parts.iter().any(|part| name.ends_with(&format!("layer.1.{part}.weight"))) {
            *x = 1e17 * x.signum();
        }
    });
    for weights in [WeightType::Int8, WeightType::F32] {
        let error = refused(products.path(), &as_weights(weights));
        assert!(error.contains("the output of layer 2 is not finite"), "{error}");
    }
}

#[test]
fn large_and_tiny_rows_of_int8_layers_convert() {
    let odd = with_weights(|name, i, x| {
        if name.contains("layer.0.output.dense.weight") && i == 5 {
            *x = 70_000.0;
        }
        // Rows of subnormal weights, as weight decay leaves them.
        if name.contains("layer.1.intermediate.dense.weight") && i < 64 {
            *x *= 1e-40;
        }
        if name.contains("word_embeddings") && i < 32 {
            *x *= 1e-42;
        }
    });
    let options = ConvertOptions { min_cosine: Some(0.5), ..ConvertOptions::default() };
    let (_folder, out, report) = converted(odd.path(), &options);
    let file = ModelFile::open(&out).unwrap();
    file.model().verify().unwrap();
    assert!(report.summary.error.pooled_cosine.is_finite());
}
