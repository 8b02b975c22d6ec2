//! Reading checkpoints: every spelling gives the same model; hostile files give errors.

use std::fs;
use std::path::{Path, PathBuf};

use bertlet::Pooling;
use bertlet_convert::WeightType;
use bertlet_convert::bert::{Bert, ProblemType};
use bertlet_convert::error::Result;
use bertlet_convert::load::{self, Fate, HeadChoice, LoadOptions, Loaded, TensorReport};
use bertlet_convert::source::{self, Checkpoint, CheckpointFormat, OpenOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn open(path: impl AsRef<Path>) -> Result<Checkpoint> {
    source::open(path.as_ref(), OpenOptions::default())
}

fn load(path: impl AsRef<Path>) -> Result<(Bert, Vec<TensorReport>)> {
    load::bert(&open(path)?, false)
}

fn bert(name: &str) -> Bert {
    load(fixture(name)).unwrap_or_else(|e| panic!("{e}")).0
}

fn error(path: impl AsRef<Path>) -> String {
    match load(&path) {
        Ok(_) => panic!("{} must be refused", path.as_ref().display()),
        Err(e) => e.to_string(),
    }
}

/// A copy of a fixture that a test may spoil.
fn copy(name: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

/// Changes a JSON file of a copy.
fn edit(dir: &TempDir, file: &str, change: impl FnOnce(&mut Value)) {
    let path = dir.path().join(file);
    let mut json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

/// Every value of a model, in one order.
fn values(bert: &Bert) -> Vec<f32> {
    let e = &bert.embeddings;
    let mut all = vec![&e.word.data, &e.position.data, &e.token_type.data];
    all.extend([&e.norm.weight, &e.norm.bias]);
    for l in &bert.layers {
        for linear in [&l.query, &l.key, &l.value, &l.attention_output, &l.intermediate, &l.output]
        {
            all.extend([&linear.weight.data, &linear.bias]);
        }
        for norm in [&l.attention_norm, &l.output_norm] {
            all.extend([&norm.weight, &norm.bias]);
        }
    }
    let h = &bert.heads;
    let sequence = h.sequence_classifier.as_ref().map(|(linear, _)| linear);
    for linear in [
        &bert.pooler.as_ref(),
        &h.token_classifier.as_ref(),
        &sequence,
        &h.next_sentence.as_ref(),
        &h.question_answering.as_ref(),
    ]
    .into_iter()
    .flatten()
    {
        all.extend([&linear.weight.data, &linear.bias]);
    }
    if let Some(m) = &h.masked_lm {
        all.extend([&m.transform.weight.data, &m.transform.bias]);
        all.extend([&m.norm.weight, &m.norm.bias, &m.bias]);
        all.extend(m.decoder.as_ref().map(|d| &d.data));
    }
    all.into_iter().flatten().copied().collect()
}

/// The same shapes, and every value within a relative `tolerance` (0: the same bits).
fn assert_same(name: &str, got: &Bert, expected: &Bert, tolerance: f32) {
    assert_eq!(got.config, expected.config, "{name}");
    let (got, expected) = (values(got), values(expected));
    assert_eq!(got.len(), expected.len(), "{name}");
    for (i, (g, e)) in got.iter().zip(&expected).enumerate() {
        let same = g.to_bits() == e.to_bits();
        // Below its smallest normal number, f16 rounds absolutely.
        let near = (g - e).abs() <= (tolerance * e.abs()).max(tolerance * 6.2e-5);
        assert!(same || (tolerance > 0.0 && near), "{name}: value {i}: {g} for {e}");
    }
}

#[test]
fn every_spelling_of_micro_is_the_same_model() {
    let micro = bert("micro");
    assert!(micro.pooler.is_some());
    assert!(micro.heads.masked_lm.as_ref().is_some_and(|m| m.decoder.is_none()));
    assert!(micro.heads.next_sentence.is_some());
    let mut seen = 0;
    for entry in fs::read_dir(fixture("formats")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let (got, reports) = load(fixture("formats").join(&name)).unwrap_or_else(|e| panic!("{e}"));
        let mut expected = micro.clone();
        if name == "safetensors-base-no-pooler" {
            expected.pooler = None;
            expected.heads = Default::default();
        }
        // Half a unit in the last place of eleven and of eight bits.
        let tolerance = match name.as_str() {
            n if n.starts_with("f16-") => 1.0 / 2048.0,
            n if n.starts_with("bf16-") => 1.0 / 256.0,
            _ => 0.0,
        };
        assert_same(&name, &got, &expected, tolerance);
        let source = open(fixture("formats").join(&name)).unwrap();
        assert_eq!(reports.len(), source.tensors().count(), "{name}");
        seen += 1;
    }
    assert_eq!(seen, 17);
}

#[test]
fn the_formats_are_told_apart() {
    for (name, format) in [
        ("micro", CheckpointFormat::Safetensors),
        ("formats/sharded-safetensors", CheckpointFormat::Safetensors),
        ("formats/pt-zip", CheckpointFormat::PyTorch),
        ("formats/pt-legacy", CheckpointFormat::PyTorch),
        ("formats/sharded-bin", CheckpointFormat::PyTorch),
        ("formats/tf1", CheckpointFormat::TensorFlow),
    ] {
        assert_eq!(open(fixture(name)).unwrap().format, format, "{name}");
    }
}

#[test]
fn a_weights_file_may_be_named_itself() {
    let micro = bert("micro");
    for file in [
        "micro/model.safetensors",
        "formats/pt-zip/pytorch_model.bin",
        "formats/pt-legacy/pytorch_model.bin",
        "formats/sharded-bin/pytorch_model.bin.index.json",
        "formats/sharded-safetensors/model.safetensors.index.json",
        "formats/tf1/bert_model.ckpt.index",
        "formats/tf1/bert_model.ckpt.data-00000-of-00001",
        "formats/tf1/bert_model.ckpt",
    ] {
        assert_same(file, &bert(file), &micro, 0.0);
    }
}

#[test]
fn heads_are_found() {
    let b = bert("micro-base");
    assert!(b.pooler.is_some() && b.heads == Default::default());
    let b = bert("micro-qa");
    assert!(b.pooler.is_none());
    assert_eq!(b.heads.question_answering.unwrap().weight.rows, 2);
    let b = bert("micro-token-classification");
    assert_eq!(b.heads.token_classifier.unwrap().bias.len(), 5);
    let (classifier, problem) =
        bert("micro-sequence-classification").heads.sequence_classifier.unwrap();
    assert_eq!((classifier.weight.rows, problem), (3, ProblemType::SingleLabel));
    assert!(bert("micro-mlm").heads.masked_lm.is_some());
    assert_eq!(bert("micro-odd").config.intermediate_size, 100);

    let source = open(fixture("micro-token-classification")).unwrap();
    assert_eq!(source.config.labels, ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]);
    assert_eq!(source.config.architecture.as_deref(), Some("BertForTokenClassification"));
}

#[test]
fn every_tensor_is_reported() {
    let (_, reports) = load(fixture("formats/tf1-with-adam-slots")).unwrap();
    let dropped = |end: &str| {
        let ends = |r: &&TensorReport| r.name.ends_with(end) && matches!(r.fate, Fate::Dropped(_));
        reports.iter().filter(ends).count()
    };
    let mapped = reports.iter().filter(|r| matches!(r.fate, Fate::Mapped(_))).count();
    assert_eq!(mapped, 46);
    assert!(dropped("adam_m") > 0 && dropped("adam_m") == dropped("adam_v"));
    assert_eq!(dropped("global_step"), 1);
    assert_eq!(mapped + dropped("adam_m") * 2 + 1, reports.len());

    let (_, reports) = load(fixture("formats/pt-old-names")).unwrap();
    let ids = reports.iter().find(|r| r.name.ends_with("position_ids")).unwrap();
    assert!(ids.fate.to_string().starts_with("dropped: buffer"));
}

#[test]
fn files_are_recorded_with_their_hashes() {
    let source = open(fixture("micro")).unwrap();
    let names: Vec<_> = source.files.iter().map(|f| f.path.file_name().unwrap()).collect();
    assert_eq!(
        names,
        [
            "config.json",
            "tokenizer_config.json",
            "tokenizer.json",
            "vocab.txt",
            "model.safetensors"
        ]
    );
    for f in &source.files {
        assert_eq!(f.size, fs::metadata(&f.path).unwrap().len());
        assert_eq!(f.sha256_hex().len(), 64);
    }
}

// ---- Tied weights, unknown and missing tensors ----

/// A safetensors file of f32 tensors.
fn write_safetensors(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)]) {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|t| t.2.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
        (name.clone(), view.unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// A copy of a fixture whose tensors went through `change`.
fn changed(name: &str, change: impl FnOnce(&mut Vec<(String, Vec<usize>, Vec<f32>)>)) -> TempDir {
    let dir = copy(name);
    let source = open(fixture(name)).unwrap();
    let mut tensors = source
        .tensors()
        .map(|t| (t.name.clone(), t.shape.clone(), source.read_f32(&t.name).unwrap()))
        .collect();
    change(&mut tensors);
    write_safetensors(&dir.path().join("model.safetensors"), &tensors);
    dir
}

#[test]
fn a_tied_decoder_is_stored_once() {
    let decoder = |spoil: f32| {
        changed("micro", |tensors| {
            let word = tensors.iter().find(|t| t.0.contains("word_emb")).unwrap().2.clone();
            let bias = tensors.iter().find(|t| t.0 == "cls.predictions.bias").unwrap().2.clone();
            let mut decoder = word;
            decoder[0] += spoil;
            tensors.push(("cls.predictions.decoder.weight".into(), vec![256, 32], decoder));
            tensors.push(("cls.predictions.decoder.bias".into(), vec![256], bias));
        })
    };
    let (tied, reports) = load(decoder(0.0)).unwrap();
    assert_same("tied", &tied, &bert("micro"), 0.0);
    let dropped = reports.iter().filter(|r| r.fate.to_string().starts_with("dropped: tied"));
    assert_eq!(dropped.count(), 2);

    // One that differs is not used, unless the configuration says that nothing is tied.
    let dir = decoder(1.0);
    let Loaded { bert: tied, tensors, notes } =
        load::load(&open(&dir).unwrap(), &LoadOptions::default()).unwrap();
    assert_same("tied", &tied, &bert("micro"), 0.0);
    assert!(notes.iter().any(|n| n.contains("decoder.weight: differs")), "{notes:?}");
    let fate = tensors.iter().find(|t| t.name == "cls.predictions.decoder.weight").unwrap();
    assert!(fate.fate.to_string().contains("tie_word_embeddings"), "{}", fate.fate);
    edit(&dir, "config.json", |c| c["tie_word_embeddings"] = json!(false));
    let (own, _) = load(&dir).unwrap();
    assert_eq!(own.heads.masked_lm.unwrap().decoder.unwrap().rows, 256);
    let dir = copy("micro");
    edit(&dir, "config.json", |c| c["tie_word_embeddings"] = json!(false));
    assert!(error(&dir).contains("cls.predictions.decoder.weight: missing"));
}

#[test]
fn the_decoders_bias_stands_for_the_heads() {
    let dir = changed("micro", |tensors| {
        for t in tensors.iter_mut().filter(|t| t.0 == "cls.predictions.bias") {
            t.0 = "cls.predictions.decoder.bias".into();
        }
    });
    assert_same("bias", &load(&dir).unwrap().0, &bert("micro"), 0.0);
    let dir = changed("micro", |tensors| {
        tensors.push(("cls.predictions.decoder.bias".into(), vec![256], vec![7.0; 256]));
    });
    assert!(error(&dir).contains("cls.predictions.decoder.bias: differs"));
}

#[test]
fn unknown_tensors_are_refused_or_dropped() {
    let dir = changed("micro", |tensors| {
        tensors.push(("adapter.weight".into(), vec![1], vec![0.0]));
        let layer = |t: &(String, _, _)| t.0.contains("layer.1.output.dense.bias");
        let mut extra = tensors.iter().find(|t| layer(t)).unwrap().clone();
        extra.0 = extra.0.replace("layer.1", "layer.2");
        tensors.push(extra);
    });
    let message = error(&dir);
    assert!(message.contains("adapter.weight") && message.contains("layer.2."), "{message}");
    let (b, reports) = load::bert(&open(&dir).unwrap(), true).unwrap();
    assert_same("unknown", &b, &bert("micro"), 0.0);
    let fate = &reports.iter().find(|r| r.name == "adapter.weight").unwrap().fate;
    assert_eq!(*fate, Fate::Dropped("unknown name".into()));
}

#[test]
fn missing_tensors_are_listed() {
    let without = |part: &str| changed("micro", |t| t.retain(|t| !t.0.contains(part)));
    let message = error(without("attention.self"));
    assert!(message.contains("encoder.layer.0.attention.self.query.weight"), "{message}");
    assert!(message.contains("and 7 more: missing"), "{message}");
    assert!(error(without("pooler.dense.bias")).contains("pooler.dense.bias: missing"));
    // Next sentence prediction needs the pooler; the masked-word head does not.
    assert!(error(without("pooler")).contains("pooler.dense.weight"));
    assert!(load(without("seq_relationship")).is_ok());
    assert!(
        error(without("transform.dense.bias")).contains("cls.predictions.transform.dense.bias")
    );

    let dir = changed("micro-token-classification", |t| t.retain(|t| !t.0.contains("classifier")));
    assert!(error(&dir).contains("classifier.weight"));
    let dir = changed("micro-qa", |t| t.retain(|t| !t.0.contains("qa_outputs")));
    assert!(error(&dir).contains("qa_outputs.weight"));
}

#[test]
fn shapes_must_be_the_configurations() {
    let dir = changed("micro", |tensors| {
        let t = tensors.iter_mut().find(|t| t.0.contains("layer.1.intermediate.dense.weight"));
        t.unwrap().1 = vec![32, 64];
    });
    let message = error(&dir);
    for part in
        ["model.safetensors: ", "layer.1.intermediate.dense.weight: ", "[32, 64]", "[64, 32]"]
    {
        assert!(message.contains(part), "{message}");
    }
    let dir = copy("micro-token-classification");
    edit(&dir, "config.json", |c| c["id2label"] = json!({"0": "a", "1": "b"}));
    assert!(error(&dir).contains("classifier.bias: has the shape [5], but [2] is expected"));
    let dir = copy("formats/tf1");
    edit(&dir, "bert_config.json", |c| c["intermediate_size"] = json!(32));
    assert!(error(&dir).contains("layer_0/intermediate/dense/bias: has the shape [64], but [32]"));
}

#[test]
fn weights_must_be_finite() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let dir = changed("micro", |tensors| {
            let t = tensors.iter_mut().find(|t| t.0 == "bert.pooler.dense.weight");
            t.unwrap().2[37] = bad;
        });
        let message = error(&dir);
        assert!(message.contains("bert.pooler.dense.weight: element 37 is"), "{message}");
    }
}

#[test]
fn two_names_of_one_parameter_are_refused() {
    let dir = changed("micro", |tensors| {
        let mut twin = tensors.iter().find(|t| t.0 == "bert.pooler.dense.bias").unwrap().clone();
        twin.0 = "pooler.dense.bias".into();
        tensors.push(twin);
    });
    assert!(error(&dir).contains("means the same as"));
}

#[test]
fn classifiers_are_told_apart() {
    let kind = |architecture: Value, problem: Value| {
        let dir = copy("micro-sequence-classification");
        edit(&dir, "config.json", |c| {
            c["architectures"] = architecture;
            c["problem_type"] = problem;
        });
        let heads = load(&dir).unwrap().0.heads;
        (heads.token_classifier.is_some(), heads.sequence_classifier.map(|(_, p)| p))
    };
    let none = Value::Null;
    let single = Some(ProblemType::SingleLabel);
    let stated = json!(["BertForSequenceClassification"]);
    assert_eq!(kind(stated, none.clone()), (false, single));
    assert_eq!(kind(json!(["BertForTokenClassification"]), none.clone()), (true, None));
    let multi = json!("multi_label_classification");
    assert_eq!(kind(none.clone(), multi), (false, Some(ProblemType::MultiLabel)));
    assert_eq!(kind(none, json!("regression")), (false, Some(ProblemType::Regression)));

    // Nothing says how many labels: the classifier does. One is a number.
    let dir = changed("micro-sequence-classification", |tensors| {
        for t in tensors.iter_mut().filter(|t| t.0.starts_with("classifier")) {
            t.1[0] = 1;
            t.2.truncate(t.1.iter().product());
        }
    });
    edit(&dir, "config.json", |c| {
        c.as_object_mut().unwrap().retain(|key, _| !key.contains("label"));
    });
    let (classifier, problem) = load(&dir).unwrap().0.heads.sequence_classifier.unwrap();
    assert_eq!((classifier.bias.len(), problem), (1, ProblemType::Regression));
}

#[test]
fn googles_fine_tuned_classifiers_are_read() {
    let dir = changed("formats/tf1", |tensors| {
        tensors.push(("output_weights".into(), vec![4, 32], (0..128).map(|i| i as f32).collect()));
        tensors.push(("output_bias".into(), vec![4], vec![0.5; 4]));
    });
    let source = open(&dir).unwrap();
    let (bert, _) = load::bert(&source, false).unwrap();
    let (classifier, problem) = bert.heads.sequence_classifier.unwrap();
    // Unlike TensorFlow's kernels, this matrix is [labels, hidden].
    assert_eq!((classifier.weight.row(1)[0], problem), (32.0, ProblemType::SingleLabel));
    assert_eq!(source.config.labels(4)[3], "LABEL_3");
}

#[test]
fn the_vocabulary_may_be_shorter_than_the_table_but_not_longer() {
    let dir = copy("micro-base");
    let vocabulary = fs::read_to_string(dir.path().join("vocab.txt")).unwrap();
    fs::write(dir.path().join("vocab.txt"), format!("{vocabulary}surplus\n")).unwrap();
    assert!(error(&dir).contains("vocab_size: 256 is fewer than the 257 tokens"));
    let shorter: String = vocabulary.lines().take(200).map(|l| format!("{l}\n")).collect();
    fs::write(dir.path().join("vocab.txt"), shorter).unwrap();
    assert!(load(&dir).is_ok());
    assert_eq!(open(&dir).unwrap().vocabulary.len(), 200);
}

// ---- Where the weights are ----

#[test]
fn safetensors_come_before_pytorch_before_tensorflow() {
    let dir = copy("formats/tf1");
    for (file, format) in [
        ("formats/pt-zip/pytorch_model.bin", CheckpointFormat::PyTorch),
        ("micro/model.safetensors", CheckpointFormat::Safetensors),
    ] {
        fs::copy(fixture(file), dir.path().join(Path::new(file).file_name().unwrap())).unwrap();
        assert_eq!(open(&dir).unwrap().format, format);
        assert!(load(&dir).is_ok());
    }
}

#[test]
fn the_checkpoint_file_names_the_prefix_inside_the_folder() {
    let dir = copy("formats/tf1");
    for extension in ["index", "data-00000-of-00001"] {
        let file = |stem: &str| dir.path().join(format!("{stem}.{extension}"));
        fs::copy(file("bert_model.ckpt"), file("model.ckpt-9")).unwrap();
    }
    let checkpoint = dir.path().join("checkpoint");
    // The path is that of the machine that trained.
    fs::write(&checkpoint, "model_checkpoint_path: \"/home/me/out/model.ckpt-9\"\n").unwrap();
    let source = open(&dir).unwrap();
    assert!(source.files.iter().any(|f| f.path.ends_with("model.ckpt-9.index")));
    fs::write(&checkpoint, "model_checkpoint_path: \"gone\"\n").unwrap();
    // Then a name that is usual wins over others, and of several others none does.
    let used = open(&dir).unwrap().files;
    assert!(used.iter().any(|f| f.path.ends_with("bert_model.ckpt.index")));
    fs::rename(dir.path().join("bert_model.ckpt.index"), dir.path().join("x.index")).unwrap();
    assert!(error(&dir).contains("2 files *.index"));
    fs::write(&checkpoint, "model_checkpoint_path: \"/\"\n").unwrap();
    assert!(error(&dir).contains("2 files *.index"));
}

#[test]
fn what_is_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    assert!(error(&dir).contains("no weights"));
    assert!(error(dir.path().join("nothing")).contains("nothing"));
    let dir = copy("micro-base");
    fs::remove_file(dir.path().join("config.json")).unwrap();
    assert!(error(&dir).contains("config.json: is missing"));
    let dir = copy("micro-base");
    fs::remove_file(dir.path().join("vocab.txt")).unwrap();
    assert!(error(&dir).contains("vocab.txt: is missing"));
    let options = OpenOptions { allow_missing_vocabulary: true, ..OpenOptions::default() };
    let source = source::open(dir.path(), options).unwrap();
    assert!(source.vocabulary.is_empty() && source.tokenizer.is_none());
    fs::write(dir.path().join("tf_model.h5"), "").unwrap();
    assert!(error(dir.path().join("tf_model.h5")).contains("no weights of a known format"));
}

/// Writes a JSON file into a copy, with its folder.
fn write(dir: &TempDir, file: &str, json: Value) {
    let path = dir.path().join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, json.to_string()).unwrap();
}

fn module(path: &str, kind: &str) -> Value {
    json!({"path": path, "type": format!("sentence_transformers.models.{kind}")})
}

/// Opens a checkpoint, with a note for what a model file cannot hold.
fn open_allowing(path: impl AsRef<Path>) -> Checkpoint {
    let options = OpenOptions { allow_unknown: true, ..OpenOptions::default() };
    source::open(path.as_ref(), options).unwrap()
}

#[test]
fn sentence_transformers_modules_are_read() {
    let dir = copy("micro-base");
    let modules = |encoder: &str| {
        json!([
            module(encoder, "Transformer"),
            module("1_Pooling", "Pooling"),
            module("2_Dropout", "Dropout"),
            // The packages of version 6.
            {"path": "3_Normalize", "type": "sentence_transformers.base.modules.normalize.Normalize"},
        ])
    };
    write(&dir, "modules.json", modules(""));
    write(&dir, "1_Pooling/config.json", json!({"pooling_mode_mean_tokens": true}));
    let source = open(&dir).unwrap();
    assert_eq!((source.pooling, source.normalize), (Some(Pooling::Mean), true));
    assert!(source.notes.is_empty());

    // The encoder in a folder of its own, by the names of several versions.
    for (folder, kind) in [("0_Transformer", "Transformer"), ("0_BERT", "BERT")] {
        let dir = copy("micro-base");
        write(&dir, "modules.json", json!([module(folder, kind), module("1_Pooling", "Pooling")]));
        write(&dir, "1_Pooling/config.json", json!({"pooling_mode_max_tokens": true}));
        // The version of sentence-transformers stood in the root's config.json.
        write(&dir, &format!("{folder}/sentence_bert_config.json"), json!({"max_seq_length": 20}));
        for file in ["config.json", "vocab.txt", "model.safetensors"] {
            fs::rename(dir.path().join(file), dir.path().join(folder).join(file)).unwrap();
        }
        write(&dir, "config.json", json!({"__version__": "0.3.9"}));
        assert_same(folder, &load(&dir).unwrap().0, &bert("micro-base"), 0.0);
        let source = open(&dir).unwrap();
        assert_eq!((source.pooling, source.max_seq_length), (Some(Pooling::Max), Some(20)));
        // The folder inside lacks the pooling, and a note says where it is.
        let inside = open(dir.path().join(folder)).unwrap();
        assert!(inside.notes[0].contains("give that folder"), "{:?}", inside.notes);
    }

    write(&dir, "modules.json", modules("../elsewhere"));
    assert!(error(&dir).contains("not the name of a file in the same folder"));
    write(&dir, "modules.json", json!({"0": "Transformer"}));
    assert!(error(&dir).contains("modules.json: is not a list of modules"));
    write(&dir, "modules.json", json!([module("", "Transformer"), module("4_Pooling", "Pooling")]));
    assert!(error(&dir).contains("4_Pooling/config.json: is missing"));
}

#[test]
fn modules_that_a_file_cannot_hold_are_refused_by_name() {
    let dir = copy("micro-base");
    write(&dir, "1_Pooling/config.json", json!({"pooling_mode": "mean"}));
    for kind in ["Dense", "LayerNorm", "WeightedLayerPooling", "Router", "Asym", "CNN", "NewKind"] {
        let list =
            [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_X", kind), ("3_N", "Normalize")];
        write(
            &dir,
            "modules.json",
            list.map(|(path, kind)| module(path, kind)).into_iter().collect(),
        );
        let message = error(&dir);
        let expected = format!("modules.json: 2_X: module {kind} is not supported here: ");
        assert!(message.contains(&expected) && message.contains("--allow-unknown"), "{message}");
        let source = open_allowing(&dir);
        assert_eq!((source.pooling, source.normalize), (Some(Pooling::Mean), true));
        assert!(source.notes[0].contains(kind) && source.notes[0].ends_with("; ignored"));
    }
    // Modules of the checkpoint's own, whatever their names, and modules in another order.
    let own =
        json!([module("", "Transformer"), {"path": "1_Pooling", "type": "custom_st.Pooling"}]);
    write(&dir, "modules.json", own);
    assert!(error(&dir).contains("module custom_st.Pooling is not supported"));
    write(&dir, "modules.json", json!([module("", "Transformer"), module("3_N", "Normalize")]));
    assert!(error(&dir).contains("module Normalize is not supported"));
    write(&dir, "modules.json", json!([module("", "CLIPModel")]));
    assert!(error(&dir).contains("[0]: module CLIPModel is not supported here: it reads images"));
    let list = [("", "Transformer"), ("1_Pooling", "Pooling"), ("3_N", "Normalize")];
    write(&dir, "modules.json", list.map(|(path, kind)| module(path, kind)).into_iter().collect());
    write(&dir, "3_N/config.json", json!({"module_input_name": "token_embeddings"}));
    assert!(error(&dir).contains("module_input_name: \"token_embeddings\" cannot be normalised"));
}

#[test]
fn the_pooling_of_old_and_new_files_is_read_or_refused() {
    let dir = copy("micro-base");
    let modules = json!([module("", "Transformer"), module("1_Pooling", "Pooling")]);
    write(&dir, "modules.json", modules);
    let old = |keys: &[&str]| -> Value {
        let all = ["cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens"];
        let off = all.iter().map(|key| (format!("pooling_mode_{key}"), json!(false)));
        off.chain(keys.iter().map(|key| (format!("pooling_mode_{key}"), json!(true)))).collect()
    };
    for (config, pooling) in [
        (json!({"pooling_mode": "mean", "embedding_dimension": 32}), Pooling::Mean),
        (json!({"pooling_mode": "cls"}), Pooling::Cls),
        (json!({"pooling_mode": "max"}), Pooling::Max),
        (json!({"pooling_mode": "mean_sqrt_len_tokens"}), Pooling::MeanSqrt),
        (json!({"pooling_mode": "lasttoken"}), Pooling::Sep),
        (json!({"pooling_mode": ["max"]}), Pooling::Max),
        (json!({"pooling_mode": ["mean", "max"]}), Pooling::MeanMax),
        // The new key counts.
        (json!({"pooling_mode": "max", "pooling_mode_mean_tokens": true}), Pooling::Max),
        (old(&["cls_token"]), Pooling::Cls),
        (old(&["max_tokens"]), Pooling::Max),
        (old(&["mean_tokens"]), Pooling::Mean),
        (old(&["mean_sqrt_len_tokens"]), Pooling::MeanSqrt),
        (old(&["lasttoken"]), Pooling::Sep),
        // The default of sentence-transformers.
        (json!({"word_embedding_dimension": 32}), Pooling::Mean),
    ] {
        write(&dir, "1_Pooling/config.json", config.clone());
        assert_eq!(open(&dir).unwrap().pooling, Some(pooling), "{config}");
    }
    for (config, problem) in [
        (
            json!({"pooling_mode": "weightedmean"}),
            "pooling_mode: \"weightedmean\" is not supported",
        ),
        (json!({"pooling_mode": "attention"}), "pooling_mode: \"attention\" is not supported"),
        (json!({"pooling_mode": ["max", "mean"]}), "max, mean concatenated in this order"),
        (old(&["weightedmean_tokens"]), "\"weightedmean\" is not supported"),
        // sentence-transformers has the maximum first here.
        (old(&["mean_tokens", "max_tokens"]), "max, mean concatenated in this order"),
        (old(&["mean_tokens", "cls_token"]), "cls, mean concatenated in this order"),
        (old(&["new_tokens"]), "\"pooling_mode_new_tokens\" is not supported"),
    ] {
        write(&dir, "1_Pooling/config.json", config.clone());
        let message = error(&dir);
        assert!(message.contains("1_Pooling/config.json: pooling_mode"), "{message}");
        assert!(message.contains(problem) && message.contains("--allow-unknown"), "{message}");
        let source = open_allowing(&dir);
        assert_eq!((source.pooling, source.notes.len()), (None, 1), "{config}");
        assert!(source.notes[0].starts_with("1_Pooling/config.json: "), "{:?}", source.notes);
    }
    for config in [
        json!({"pooling_mode": 3}),
        json!({"pooling_mode": []}),
        json!({"pooling_mode_cls_token": 1}),
    ] {
        write(&dir, "1_Pooling/config.json", config);
        assert!(error(&dir).contains("1_Pooling/config.json: pooling_mode"));
    }
}

#[test]
fn limits_and_prompts_of_sentence_transformers_are_read() {
    let dir = copy("micro-base");
    for (config, limit) in [
        (json!({"max_seq_length": 20, "do_lower_case": false}), Some(20)),
        (json!({"max_seq_length": 20.0}), Some(20)),
        (json!({"max_seq_length": null}), None),
        (json!({"processing_kwargs": {"text": {"max_length": 9}}, "max_seq_length": 20}), Some(9)),
        (json!({"tokenizer_args": {"model_max_length": 11}, "max_seq_length": 20}), Some(11)),
    ] {
        write(&dir, "sentence_bert_config.json", config.clone());
        assert_eq!(open(&dir).unwrap().max_seq_length, limit, "{config}");
    }
    for value in [json!(0), json!(-1), json!("256"), json!(1.5), json!([256])] {
        write(&dir, "sentence_bert_config.json", json!({"max_seq_length": value}));
        assert!(error(&dir).contains("sentence_bert_config.json: max_seq_length: "), "{value}");
    }
    write(&dir, "sentence_bert_config.json", json!({"do_lower_case": "yes"}));
    assert!(error(&dir).contains("sentence_bert_config.json: do_lower_case: "));

    // Lower case before a cased tokenizer, which keeps its accents.
    write(&dir, "sentence_bert_config.json", json!({"do_lower_case": true}));
    write(&dir, "tokenizer_config.json", json!({"do_lower_case": false}));
    let source = open(&dir).unwrap();
    let tokenizer = source.tokenizer.unwrap();
    assert_eq!((tokenizer.lowercase, tokenizer.strip_accents), (true, Some(false)));
    assert!(source.notes[0].contains("do_lower_case"), "{:?}", source.notes);
    write(&dir, "tokenizer_config.json", json!({"do_lower_case": true}));
    assert!(open(&dir).unwrap().notes.is_empty());

    let prompts = |config: Value| write(&dir, "config_sentence_transformers.json", config);
    prompts(json!({"prompts": {"query": "query: ", "none": null}, "default_prompt_name": "query"}));
    let source = open(&dir).unwrap();
    let default = &source.prompts[source.default_prompt.unwrap()];
    assert_eq!(default, &("query".to_owned(), "query: ".to_owned()));
    assert!(source.prompts.contains(&("none".to_owned(), String::new())));
    // Prompts that are left out of the pooling.
    write(&dir, "1_Pooling/config.json", json!({"pooling_mode": "mean", "include_prompt": false}));
    assert!(error(&dir).contains("1_Pooling/config.json: include_prompt: false is not supported"));
    assert_eq!(open_allowing(&dir).notes.len(), 1);
    prompts(json!({"prompts": {"query": "", "document": ""}, "default_prompt_name": null}));
    let source = open(&dir).unwrap();
    assert_eq!((source.prompts.len(), source.default_prompt), (2, None));
    prompts(json!({"prompts": {"query": ""}, "default_prompt_name": "passage"}));
    assert!(error(&dir).contains("default_prompt_name: \"passage\" is not one of the prompts"));
    prompts(json!({"prompts": {"query": 3}}));
    assert!(error(&dir).contains("prompts.query: 3 is not a string"));
}

#[test]
fn activations_of_cross_encoders_are_read_or_refused() {
    use bertlet::format::ScoreActivation::{Identity, Sigmoid};
    let dir = copy("micro-sequence-classification");
    let old = "sbert_ce_default_activation_function";
    let identity = "torch.nn.modules.linear.Identity";
    let sigmoid = "torch.nn.modules.activation.Sigmoid";
    for (key, value, activation) in [
        (
            "sentence_transformers",
            json!({"activation_fn": identity, "version": "4.1.0"}),
            Some(Identity),
        ),
        ("sentence_transformers", json!({"activation_fn": sigmoid}), Some(Sigmoid)),
        ("sentence_transformers", json!({"version": "4.1.0"}), None),
        (old, json!(identity), Some(Identity)),
        (old, json!(sigmoid), Some(Sigmoid)),
        (old, json!("torch.nn.Sigmoid"), Some(Sigmoid)),
    ] {
        let dir = copy("micro-sequence-classification");
        edit(&dir, "config.json", |config| config[key] = value.clone());
        let source = open(&dir).unwrap();
        assert_eq!((source.score_activation, source.cross_encoder), (activation, true), "{value}");
    }
    let source = open(&dir).unwrap();
    assert_eq!((source.score_activation, source.cross_encoder), (None, false));
    // The file of version 5.4 and later counts more than config.json.
    edit(&dir, "config.json", |config| config[old] = json!(identity));
    let config = json!({"model_type": "CrossEncoder", "activation_fn": sigmoid});
    write(&dir, "config_sentence_transformers.json", config);
    assert_eq!(open(&dir).unwrap().score_activation, Some(Sigmoid));

    for unknown in ["torch.nn.modules.activation.Tanh", "my_code.Sigmoid", ""] {
        let dir = copy("micro-sequence-classification");
        edit(&dir, "config.json", |config| config[old] = json!(unknown));
        let message = error(&dir);
        assert!(
            message.contains(&format!("config.json: {old}: {unknown:?} is not supported")),
            "{message}"
        );
        assert_eq!(open_allowing(&dir).score_activation, None);
    }
}

#[test]
fn packed_weights_and_own_code_are_refused() {
    let dir = copy("micro-base");
    let quantized = json!({"quant_method": "bitsandbytes"});
    edit(&dir, "config.json", |config| config["quantization_config"] = quantized);
    let message = error(&dir);
    assert!(message.contains("config.json: quantization_config: "), "{message}");

    let dir = copy("micro-base");
    edit(&dir, "config.json", |config| config["auto_map"] = json!({"AutoModel": "modeling.Model"}));
    let message = error(&dir);
    assert!(message.contains("config.json: auto_map.AutoModel: "), "{message}");
    assert_eq!(open_allowing(&dir).notes.len(), 1);
    edit(&dir, "config.json", |config| config["auto_map"] = json!(null));
    assert!(open(&dir).unwrap().notes.is_empty());
    let dir = copy("micro-base");
    edit(&dir, "config.json", |config| config["auto_map"] = json!({"AutoConfig": "x.Config"}));
    assert_eq!(open(&dir).unwrap().notes, ["config.json: auto_map.AutoConfig is not used"]);
}

// ---- Tokenizer settings ----

fn vocabulary_folder(vocabulary: &str, config: Value) -> TempDir {
    let dir = copy("micro-base");
    fs::write(dir.path().join("vocab.txt"), vocabulary).unwrap();
    fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    dir
}

const WORDS: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\n";

#[test]
fn settings_default_to_bert_tokenizers() {
    let source = open(vocabulary_folder(WORDS, json!({}))).unwrap();
    let t = source.tokenizer.unwrap();
    assert!(t.lowercase && !t.lowercase_stated && t.handle_chinese_chars && t.clean_text);
    assert_eq!(
        (t.strip_accents, t.model_max_length, t.max_input_chars_per_word),
        (None, None, 100)
    );
    assert_eq!((t.pad, t.unk, t.cls, t.sep, t.mask), (Some(0), 1, 2, 3, Some(4)));
    assert_eq!(t.added_tokens.len(), 5);
    assert_eq!(t.added_tokens[4].content, "[MASK]");
}

#[test]
fn tokenizer_config_is_followed() {
    let config = json!({
        "do_lower_case": false, "strip_accents": false, "tokenize_chinese_chars": false,
        "clean_text": false, "model_max_length": 512, "tokenizer_class": "BertTokenizer",
        "unk_token": {"content": "<unk>", "special": true}, "cls_token": "<s>",
        "added_tokens_decoder": {"0": {"content": "[PAD]"}, "5": {"content": "<extra>"}},
    });
    let source = open(vocabulary_folder("[PAD]\n<unk>\n<s>\n[SEP]\nthe\n", config)).unwrap();
    assert_eq!(source.vocabulary[5..], ["<extra>", "[MASK]"]);
    let t = source.tokenizer.unwrap();
    assert!(!t.lowercase && t.lowercase_stated && !t.handle_chinese_chars && !t.clean_text);
    assert_eq!((t.strip_accents, t.model_max_length), (Some(false), Some(512)));
    assert_eq!((t.unk, t.cls, t.mask), (1, 2, Some(6)));
    // BertTokenizer writes this for "no limit".
    let config: Value =
        serde_json::from_str(r#"{"model_max_length": 1000000000000000019884624838656}"#).unwrap();
    let source = open(vocabulary_folder(WORDS, config)).unwrap();
    assert_eq!(source.tokenizer.unwrap().model_max_length, None);
}

#[test]
fn vocabulary_lines_are_kept_as_they_are() {
    let source =
        open(vocabulary_folder(&format!("{WORDS} x \n\u{2028}\n##ing\r\nlast"), json!({})))
            .unwrap();
    assert_eq!(source.vocabulary[6..], [" x ", "\u{2028}", "##ing", "last"]);
}

#[test]
fn bad_vocabularies_and_settings_are_refused() {
    let refused = |vocabulary: &str, config: Value, part: &str| {
        let message = error(vocabulary_folder(vocabulary, config));
        assert!(message.contains(part), "{message}");
    };
    refused("[CLS]\n[SEP]\n", json!({}), "[UNK]: is not in the vocabulary");
    refused("[UNK]\n", json!({}), "[CLS]: is not in the vocabulary");
    refused(
        "[unk]\n[CLS]\n",
        json!({}),
        "write \"unk_token\": \"[unk]\" into tokenizer_config.json",
    );
    refused(&format!("\u{feff}{WORDS}"), json!({}), "byte order mark");
    refused(WORDS, json!({"tokenizer_class": "BertJapaneseTokenizer"}), "tokenizer_class");
    refused(WORDS, json!({"do_basic_tokenize": false}), "do_basic_tokenize");
    refused(WORDS, json!({"do_lower_case": "yes"}), "do_lower_case");
    refused(
        WORDS,
        json!({"added_tokens_decoder": {"900": {"content": "x"}}}),
        "has the id 900, but the embeddings have 256 rows",
    );
    refused(WORDS, json!({"added_tokens_decoder": {"1": {"content": "x"}}}), "which is the id of");
    let dir = vocabulary_folder(WORDS, json!({}));
    fs::write(dir.path().join("vocab.txt"), b"\xff\xfe").unwrap();
    assert!(error(&dir).contains("save it as UTF-8"));
}

/// A `tokenizer.json` in the style of the tokenizers library.
fn tokenizer_json() -> Value {
    json!({
        "version": "1.0",
        "truncation": {"max_length": 128, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 128}, "pad_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [{"id": 0, "content": "[PAD]", "special": true}, {"id": 5, "content": "<x>", "lstrip": true}],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": false, "strip_accents": true, "lowercase": false},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}},
            ],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]}, "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}},
        },
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
            "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "the": 4, "##s": 6},
        },
    })
}

fn with_tokenizer(change: impl FnOnce(&mut Value)) -> TempDir {
    // With this class, what stands in the other files does not count, except for the longest input.
    let config = json!({
        "do_lower_case": true, "model_max_length": 64, "tokenizer_class": "PreTrainedTokenizerFast",
    });
    let dir = vocabulary_folder("other\n", config);
    let mut json = tokenizer_json();
    change(&mut json);
    fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    dir
}

#[test]
fn tokenizer_json_wins() {
    let source = open(with_tokenizer(|_| ())).unwrap();
    let notes = &source.tokenizer.as_ref().unwrap().notes;
    assert!(notes[0].contains("the latter counts, as in transformers for PreTrainedTokenizer"));
    assert_eq!(source.vocabulary, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "<x>", "##s"]);
    let t = source.tokenizer.unwrap();
    assert!(!t.lowercase && t.lowercase_stated && !t.handle_chinese_chars && t.clean_text);
    assert_eq!((t.strip_accents, t.model_max_length), (Some(true), Some(64)));
    assert_eq!((t.pad, t.unk, t.cls, t.sep, t.mask), (Some(0), 1, 2, 3, None));
    let added = t.added_tokens.iter().find(|token| token.content == "<x>").unwrap();
    assert!(added.lstrip && !added.special && added.only_added);
}

fn config_beside_json(config: Value, change: impl FnOnce(&mut Value)) -> TempDir {
    let dir = with_tokenizer(change);
    fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    dir
}

#[test]
fn tokenizer_config_wins_for_bert_tokenizers() {
    for class in
        ["BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "ElectraTokenizerFast"]
    {
        let config = json!({
            "tokenizer_class": class, "do_lower_case": false, "strip_accents": false,
            "tokenize_chinese_chars": true, "cls_token": "the", "unk_token": "[PAD]",
        });
        let t = open(config_beside_json(config, |j| {
            j["normalizer"]["lowercase"] = json!(true);
        }))
        .unwrap()
        .tokenizer
        .unwrap();
        assert!(!t.lowercase && t.lowercase_stated && t.handle_chinese_chars);
        assert_eq!((t.strip_accents, t.cls, t.sep, t.unk), (Some(false), 4, 3, 0));
        for part in [
            "do_lower_case is false, but tokenizer.json has true",
            "strip_accents is false, but tokenizer.json has true",
            "tokenize_chinese_chars is true, but tokenizer.json has false",
            "cls_token is \"the\", but tokenizer.json has \"[CLS]\"",
            "unk_token is \"[PAD]\", but tokenizer.json has \"[UNK]\"",
            "vocab.txt has other tokens",
        ] {
            assert!(t.notes.iter().any(|note| note.contains(part)), "{part}: {:?}", t.notes);
        }
    }
    // Without a value: BertTokenizer's default.
    let t = open(config_beside_json(json!({}), |_| ())).unwrap().tokenizer.unwrap();
    assert!(t.lowercase && t.handle_chinese_chars && t.strip_accents.is_none());
    assert!(t.notes.iter().any(|note| note.contains("does not state do_lower_case")));
    // Files that agree need no note.
    let t = open(fixture("micro")).unwrap().tokenizer.unwrap();
    assert_eq!(t.notes, [""; 0]);
}

#[test]
fn added_tokens_beside_the_vocabulary() {
    // As older transformers write them: normalised unless special.
    let config = json!({"additional_special_tokens": ["<s>"], "tokenizer_class": "BertTokenizer"});
    let dir = vocabulary_folder(WORDS, config);
    let added = dir.path().join("added_tokens.json");
    fs::write(&added, r#"{"<s>": 7, "Custom": 6, "far": 100}"#).unwrap();
    let source = open(&dir).unwrap();
    assert_eq!(source.vocabulary[6..8], ["Custom", "<s>"]);
    assert_eq!((source.vocabulary.len(), source.vocabulary[8].as_str()), (101, ""));
    let t = source.tokenizer.unwrap();
    let found: Vec<_> = t.added_tokens[5..]
        .iter()
        .map(|t| (t.id, t.content.as_str(), t.normalized, t.special, t.only_added))
        .collect();
    assert_eq!(
        found,
        [
            (6, "Custom", true, false, true),
            (7, "<s>", false, true, true),
            (100, "far", true, false, true),
        ]
    );
    assert!(!t.added_tokens[0].only_added && !t.added_tokens[0].normalized);
    fs::write(&added, r#"{"Custom": "6"}"#).unwrap();
    assert!(error(&dir).contains("is not a token with an id"));
    fs::write(&added, r#"{"Custom": 5}"#).unwrap();
    assert!(error(&dir).contains("which is the id of \"the\""));

    // `added_tokens_decoder` replaces `added_tokens.json`, and adds to `tokenizer.json`.
    let decoder = json!({"added_tokens_decoder": {
        "6": {"content": "Custom", "normalized": true, "single_word": true},
        "5": {"content": "the", "rstrip": true, "normalized": false},
    }});
    let dir = vocabulary_folder(WORDS, decoder);
    fs::write(dir.path().join("added_tokens.json"), r#"{"other": 7}"#).unwrap();
    let t = open(&dir).unwrap().tokenizer.unwrap();
    let last = &t.added_tokens[5..];
    assert!(last[0].rstrip && !last[0].only_added && last[1].single_word && last[1].normalized);
    assert!(last.len() == 2 && t.notes[0].contains("\"other\" of added_tokens.json is ignored"));
    let config = json!({"added_tokens_decoder": {
        "5": {"content": "<x>", "normalized": true},
        "7": {"content": "<y>", "special": true},
    }});
    let t = open(config_beside_json(config, |_| ())).unwrap().tokenizer.unwrap();
    let find = |text: &str| t.added_tokens.iter().find(|t| t.content == text).unwrap();
    assert!(find("<x>").normalized && !find("<x>").lstrip && find("<y>").id == 7);
    assert!(find("<y>").special && !find("<y>").normalized);
}

#[test]
fn vocabularies_are_read_as_python_reads_them() {
    let open = |text: &str| open(vocabulary_folder(text, json!({}))).unwrap();
    let plain = open(WORDS);
    for text in
        [WORDS.replace('\n', "\r\n"), WORDS.replace('\n', "\r"), WORDS.trim_end().to_owned()]
    {
        assert_eq!(open(&text).vocabulary, plain.vocabulary);
    }
    // The last of equal lines counts.
    let source = open(&format!("{WORDS}the\n[PAD]\n"));
    let t = source.tokenizer.unwrap();
    assert_eq!((t.pad, t.notes.len()), (Some(7), 2));
    assert!(t.notes[0].contains("\"the\" occurs twice, with the ids 5 and 6; the last one counts"));
    // Empty lines are gaps; beyond the embeddings they are nothing.
    let source = open(&WORDS.replace("the", "\nthe\n\n"));
    assert_eq!(source.vocabulary[5..], ["", "the", "", ""]);
    assert!(source.tokenizer.unwrap().notes[0].contains("3 empty lines"));
    let source = open(&format!("{WORDS}{}", "\n".repeat(1000)));
    assert_eq!(source.vocabulary.len(), 256);
    // A special token that is missing gets the next id if the embeddings have a row for it.
    let source = open(&WORDS.replace("[MASK]\n", ""));
    let t = source.tokenizer.unwrap();
    assert_eq!((t.mask, source.vocabulary.len()), (Some(5), 6));
    assert!(t.notes[0].contains("\"[MASK]\" is not in the vocabulary; it gets the id 5"));
    let many: String = (0..251).map(|i| format!("w{i}\n")).collect();
    let source = open(&format!("{}{many}", WORDS.replace("[MASK]\n", "")));
    let t = source.tokenizer.unwrap();
    assert_eq!((t.mask, source.vocabulary.len()), (None, 256));
    assert!(
        t.notes[0].contains("\"[MASK]\" is not in the vocabulary and the embeddings have no row")
    );
}

#[test]
fn micros_tokenizer_and_vocabulary_agree() {
    let source = open(fixture("micro")).unwrap();
    let dir = copy("micro");
    fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    let plain = open(&dir).unwrap();
    assert_eq!(source.vocabulary, plain.vocabulary);
    assert_eq!(source.tokenizer, plain.tokenizer);
}

#[test]
fn other_tokenizers_are_refused() {
    type Change = fn(&mut Value);
    let changes: &[(&str, Change)] = &[
        ("model", |j| j["model"]["type"] = json!("BPE")),
        ("model", |j| j["model"] = json!({"type": "Unigram", "vocab": [["a", 0.5]]})),
        ("model.vocab", |j| j["model"]["vocab"] = json!([])),
        ("has no id", |j| j["model"]["vocab"]["the"] = json!(-1)),
        ("but the embeddings have 256 rows", |j| j["model"]["vocab"]["the"] = json!(400)),
        ("which is the id of", |j| j["model"]["vocab"]["the"] = json!(3)),
        ("but the embeddings have", |j| j["model"]["vocab"]["a"] = json!(u64::MAX)),
        ("<unk>: is not", |j| j["model"]["unk_token"] = json!("<unk>")),
        ("continuing_subword_prefix", |j| j["model"]["continuing_subword_prefix"] = json!("@@")),
        ("max_input_chars", |j| j["model"]["max_input_chars_per_word"] = json!(-1)),
        ("normalizer", |j| j["normalizer"] = json!({"type": "NFC"})),
        ("normalizer", |j| j["normalizer"] = Value::Null),
        ("normalizer.lowercase", |j| j["normalizer"]["lowercase"] = json!(1)),
        ("pre_tokenizer", |j| j["pre_tokenizer"] = json!({"type": "Whitespace"})),
        ("post_processor", |j| j["post_processor"]["type"] = json!("ByteLevel")),
        ("post_processor", |j| j["post_processor"]["pair"][3]["Sequence"]["type_id"] = json!(0)),
        ("post_processor", |j| j["post_processor"]["special_tokens"]["[CLS]"]["ids"] = json!([1])),
        ("added_tokens", |j| j["added_tokens"] = json!([{"id": -1, "content": "x"}])),
        ("which is the id of", |j| j["added_tokens"][0]["id"] = json!(1)),
    ];
    for (part, change) in changes {
        let message = error(with_tokenizer(change));
        assert!(
            message.contains("tokenizer.json: ") && message.contains(part),
            "{part}: {message}"
        );
    }
    let without = with_tokenizer(|j| j["post_processor"] = Value::Null);
    let notes = open(&without).unwrap().tokenizer.unwrap().notes;
    assert!(notes[0].contains("post_processor is null; every text gets [CLS] and"), "{notes:?}");
    let wrong_id = json!({"type": "BertProcessing", "cls": ["[CLS]", 3], "sep": ["[SEP]", 3]});
    assert!(error(with_tokenizer(|j| j["post_processor"] = wrong_id)).contains("post_processor"));
}

// ---- Hostile files ----

/// Fixtures of every format, and the files that hold their weights.
const FORMATS: &[(&str, &[&str])] = &[
    ("micro-base", &["model.safetensors"]),
    (
        "formats/sharded-safetensors",
        &["model-00002-of-00004.safetensors", "model.safetensors.index.json"],
    ),
    ("formats/pt-zip", &["pytorch_model.bin"]),
    ("formats/pt-legacy", &["pytorch_model.bin"]),
    ("formats/pt-zip-one-storage", &["pytorch_model.bin"]),
    ("formats/sharded-bin", &["pytorch_model-00003-of-00003.bin", "pytorch_model.bin.index.json"]),
    ("formats/tf1", &["bert_model.ckpt.index", "bert_model.ckpt.data-00000-of-00001"]),
    ("micro", &["config.json", "tokenizer.json", "tokenizer_config.json"]),
];

/// Numbers that look random and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

#[test]
fn every_truncation_is_an_error() {
    for (name, files) in FORMATS {
        for file in *files {
            let dir = copy(name);
            let path = dir.path().join(file);
            let bytes = fs::read(&path).unwrap();
            // JSON is complete without its last newline.
            let bytes = bytes.trim_ascii_end();
            let last = bytes.len() - 1;
            let mut lengths: Vec<usize> = (0..64).map(|i| i * bytes.len() / 64).collect();
            lengths.extend([
                1,
                4,
                7,
                8,
                9,
                63,
                last.saturating_sub(47),
                last.saturating_sub(3),
                last,
            ]);
            let mut numbers = Numbers(1);
            lengths.extend((0..20).map(|_| numbers.below(bytes.len())));
            for n in lengths {
                fs::write(&path, &bytes[..n]).unwrap();
                let result = load(&dir);
                let message = result.err().map(|e| e.to_string());
                let message = message.unwrap_or_else(|| panic!("{name}/{file} cut at {n}"));
                assert!(!message.contains('\n'), "{message}");
            }
        }
    }
}

#[test]
fn damaged_bytes_never_panic() {
    for (name, files) in FORMATS {
        for file in *files {
            let dir = copy(name);
            let path = dir.path().join(file);
            let bytes = fs::read(&path).unwrap();
            let mut numbers = Numbers(2);
            for round in 0..400 {
                let mut damaged = bytes.clone();
                // Structure is at the ends of all these formats.
                let near = bytes.len().min(9000);
                let at = match round % 3 {
                    0 => numbers.below(near),
                    1 => bytes.len() - 1 - numbers.below(near),
                    _ => numbers.below(bytes.len()),
                };
                match round % 4 {
                    0 => damaged[at] ^= 1 << numbers.below(8),
                    1 => damaged[at] = 0xff,
                    2 => damaged[at] = numbers.below(256) as u8,
                    _ => {
                        let end = (at + 8).min(damaged.len());
                        damaged[at..end].fill(0xff);
                    }
                }
                fs::write(&path, &damaged).unwrap();
                let _ = load(&dir);
            }
        }
    }
}

#[test]
fn tensorflows_checksums_are_checked() {
    let dir = copy("formats/tf1");
    let path = dir.path().join("bert_model.ckpt.data-00000-of-00001");
    let mut bytes = fs::read(&path).unwrap();
    bytes[1000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let message = error(&dir);
    assert!(message.contains("embeddings") && message.contains("checksum"), "{message}");
}

#[test]
fn shard_names_stay_in_the_folder() {
    for evil in ["../x.safetensors", "/etc/passwd", "a/b", "..", "", "a\\b"] {
        for (name, file) in [
            ("formats/sharded-safetensors", "model.safetensors.index.json"),
            ("formats/sharded-bin", "pytorch_model.bin.index.json"),
        ] {
            let dir = copy(name);
            edit(&dir, file, |json| json["weight_map"]["bert.pooler.dense.bias"] = json!(evil));
            let message = error(&dir);
            assert!(message.contains("bert.pooler.dense.bias: "), "{message}");
            assert!(message.contains("not the name of a file in the same folder"), "{message}");
        }
    }
    let dir = copy("formats/sharded-bin");
    edit(&dir, "pytorch_model.bin.index.json", |json| {
        json["weight_map"]["bert.pooler.dense.bias"] = json!("pytorch_model-00001-of-00003.bin");
    });
    assert!(error(&dir).contains("bert.pooler.dense.bias: is not in this file"));
    edit(&dir, "pytorch_model.bin.index.json", |json| json["weight_map"] = json!({}));
    assert!(error(&dir).contains("weight_map"));
}

fn safetensors_file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn safetensors_headers_are_not_believed() {
    let dir = copy("micro-base");
    let path = dir.path().join("model.safetensors");
    let eighth = u64::MAX / 8 + 1;
    // Nine tensors whose sizes are possible, and whose sum is not.
    let many: Vec<_> = (0u64..9)
        .map(|i| {
            let (start, end) = (i.wrapping_mul(eighth), (i + 1).wrapping_mul(eighth));
            format!(r#""t{i}":{{"dtype":"U8","shape":[{eighth}],"data_offsets":[{start},{end}]}}"#)
        })
        .collect();
    let one = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"t":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    for (header, data) in [
        (one("F32", "[2]", "[0,8]"), 4),
        (one("F32", "[2]", "[4,12]"), 12),
        (one("F32", "[3]", "[0,8]"), 8),
        (one("F32", "[4611686018427387904,4]", "[0,8]"), 8),
        (one("F32", "[18446744073709551615]", "[0,18446744073709551615]"), 8),
        (one("F99", "[2]", "[0,8]"), 8),
        (one("F32", "[-2]", "[0,8]"), 8),
        (format!("{{{}}}", many.join(",")), 8),
        (format!("{{{}}}", many[..7].join(",")), 8),
        ("[".repeat(100_000), 0),
        ("{}".into(), 0),
        ("null".into(), 0),
    ] {
        fs::write(&path, safetensors_file(&header, data)).unwrap();
        error(&dir);
    }
    let mut huge = u64::MAX.to_le_bytes().to_vec();
    huge.extend(b"{}");
    fs::write(&path, huge).unwrap();
    assert!(error(&dir).contains("header"));
}

#[test]
fn types_that_are_no_weights_are_refused() {
    let dir = copy("micro-base");
    let header = r#"{"pooler.dense.bias":{"dtype":"F8_E4M3","shape":[32],"data_offsets":[0,32]}}"#;
    fs::write(dir.path().join("model.safetensors"), safetensors_file(header, 32)).unwrap();
    let source = open(&dir).unwrap();
    let message = source.read_f32("pooler.dense.bias").unwrap_err().to_string();
    assert!(message.contains("pooler.dense.bias: elements of type f8_e4m3"), "{message}");
    assert!(source.read_f32("nothing").is_err());
}

/// A zip file as PyTorch writes it: stored entries below one folder.
fn torch_zip(pickle: &[u8], storages: &[(&str, &[u8])], deflate: bool) -> Vec<u8> {
    use std::io::Write;
    let method =
        if deflate { zip::CompressionMethod::Deflated } else { zip::CompressionMethod::Stored };
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("archive/data.pkl", options).unwrap();
    zip.write_all(pickle).unwrap();
    for (key, bytes) in storages {
        zip.start_file(format!("archive/data/{key}"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// The pickle of `{name: tensor}`, storage "0".
fn torch_pickle(
    name: &str,
    class: &str,
    elements: u32,
    offset: u32,
    shape: &[u32],
    strides: &[u32],
) -> Vec<u8> {
    let text = |s: &str| [b"X", &(s.len() as u32).to_le_bytes()[..], s.as_bytes()].concat();
    let int = |i: &u32| [b"J", &i.to_le_bytes()[..]].concat();
    let ints =
        |list: &[u32]| [b"(", &list.iter().flat_map(int).collect::<Vec<_>>()[..], b"t"].concat();
    let mut p = b"\x80\x02}".to_vec();
    p.extend(text(name));
    p.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    p.extend(text("storage"));
    p.extend(format!("ctorch\n{class}\n").bytes());
    p.extend([text("0"), text("cpu"), int(&elements)].concat());
    p.extend(b"tQ");
    p.extend([int(&offset), ints(shape), ints(strides)].concat());
    p.extend(b"\x89ccollections\nOrderedDict\n)RtRs.");
    p
}

/// Opens a folder whose `pytorch_model.bin` is `bytes`.
fn open_torch(bytes: &[u8]) -> (TempDir, Result<Checkpoint>) {
    let dir = copy("micro-base");
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    fs::write(dir.path().join("pytorch_model.bin"), bytes).unwrap();
    let source = open(&dir);
    (dir, source)
}

#[test]
fn pickles_call_nothing() {
    let marker = std::env::temp_dir().join("bertlet-was-here");
    let command = format!("touch {}", marker.display());
    let mut evil = b"\x80\x02cposix\nsystem\nX".to_vec();
    evil.extend((command.len() as u32).to_le_bytes());
    evil.extend(command.bytes());
    evil.extend(b"\x85R.");
    let (_dir, source) = open_torch(&torch_zip(&evil, &[], false));
    let message = source.unwrap_err().to_string();
    assert!(
        message.contains("pytorch_model.bin: ") && message.contains("posix.system"),
        "{message}"
    );
    assert!(!marker.exists());
}

#[test]
fn views_stay_inside_their_storage() {
    let bytes: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let read = |pickle: &[u8]| {
        let (_dir, source) = open_torch(&torch_zip(pickle, &[("0", &bytes)], false));
        source.and_then(|s| s.read_f32("w"))
    };
    let good = torch_pickle("w", "FloatStorage", 6, 0, &[3, 2], &[1, 3]);
    assert_eq!(read(&good).unwrap(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    let big = 0x7fff_ffff;
    for pickle in [
        torch_pickle("w", "FloatStorage", 6, 1, &[3, 2], &[1, 3]),
        torch_pickle("w", "FloatStorage", 6, big, &[1], &[1]),
        torch_pickle("w", "FloatStorage", 6, 0, &[7], &[1]),
        torch_pickle("w", "FloatStorage", 6, 0, &[big, big, big], &[1, 1, 1]),
        torch_pickle("w", "FloatStorage", 6, 0, &[big], &[0]),
        torch_pickle("w", "FloatStorage", 6, 0, &[2, 2], &[big, big]),
        torch_pickle("w", "FloatStorage", 6, 0, &[2, 2], &[1]),
        torch_pickle("w", "FloatStorage", 7, 0, &[6], &[1]),
        torch_pickle("w", "DoubleStorage", 6, 0, &[3], &[1]),
        torch_pickle("w", "FloatStorage", big, 0, &[big], &[1]),
        torch_pickle("w", "FloatStorage", u32::MAX, 0, &[6], &[1]),
    ] {
        let message = read(&pickle).unwrap_err().to_string();
        assert!(message.contains("pytorch_model.bin"), "{message}");
    }
    let missing = torch_zip(&good, &[("1", &bytes)], false);
    assert!(
        open_torch(&missing).1.unwrap_err().to_string().contains("w: its storage \"0\" is missing")
    );
}

#[test]
fn compressed_entries_are_read_and_bombs_are_not() {
    let bytes: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let pickle = torch_pickle("w", "FloatStorage", 6, 1, &[5], &[1]);
    let (_dir, source) = open_torch(&torch_zip(&pickle, &[("0", &bytes)], true));
    let source = source.unwrap();
    for _ in 0..2 {
        assert_eq!(source.read_f32("w").unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0]);
    }
    let zeros = vec![0; 8 << 20];
    let pickle = torch_pickle("w", "FloatStorage", 2 << 20, 0, &[2 << 20], &[1]);
    let (_dir, source) = open_torch(&torch_zip(&pickle, &[("0", &zeros)], true));
    let message = source.unwrap_err().to_string();
    assert!(message.contains("claims to expand"), "{message}");
}

#[test]
fn zip_entries_may_not_overlap() {
    let pickle = torch_pickle("w", "FloatStorage", 2, 0, &[2], &[1]);
    let bytes = torch_zip(&pickle, &[("0", &[0; 8])], false);
    let mut zip = zip::ZipWriter::new_append(std::io::Cursor::new(bytes)).unwrap();
    zip.shallow_copy_file("archive/data/0", "archive/data/1").unwrap();
    let (_dir, source) = open_torch(&zip.finish().unwrap().into_inner());
    assert!(source.unwrap_err().to_string().contains("overlap"));
}

/// A legacy file: `storages` are the keys, their declared lengths, and their bytes.
fn torch_legacy(pickle: &[u8], storages: &[(&str, u64, &[u8])]) -> Vec<u8> {
    let mut file = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.".to_vec();
    file.extend(b"\x80\x02}X\x0d\0\0\0little_endian\x88s.");
    file.extend(pickle);
    file.extend(b"\x80\x02](");
    for (key, ..) in storages {
        file.extend([b"X", &(key.len() as u32).to_le_bytes()[..], key.as_bytes()].concat());
    }
    file.extend(b"e.");
    for (_, length, bytes) in storages {
        file.extend(length.to_le_bytes());
        file.extend(*bytes);
    }
    file
}

#[test]
fn legacy_storages_are_not_believed() {
    let bytes: Vec<u8> = (0..4).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let read = |file: Vec<u8>| open_torch(&file).1.and_then(|s| s.read_f32("w"));
    let pickle = torch_pickle("w", "FloatStorage", 4, 1, &[3], &[1]);
    assert_eq!(read(torch_legacy(&pickle, &[("0", 4, &bytes)])).unwrap(), [1.0, 2.0, 3.0]);

    // PyTorch before 0.4 stored views of storages: (key, offset, elements).
    let at = pickle.windows(2).position(|w| w == b"tQ").unwrap();
    let view = b"(X\x01\0\0\0vK\x01K\x03t";
    let mut viewed = [&pickle[..at], view, &pickle[at..]].concat();
    let message = read(torch_legacy(&viewed, &[("0", 4, &bytes)])).unwrap_err().to_string();
    assert!(message.contains("outside its storage"), "{message}");
    let offset = viewed.windows(7).position(|w| w == b"tQJ\x01\0\0\0").unwrap();
    viewed[offset + 3] = 0;
    assert_eq!(read(torch_legacy(&viewed, &[("0", 4, &bytes)])).unwrap(), [1.0, 2.0, 3.0]);

    for (part, storages) in [
        ("past the end", &[("0", u64::MAX, &bytes[..])][..]),
        ("past the end", &[("0", 1 << 61, &bytes)]),
        ("past the end", &[("0", 5, &bytes)]),
        ("should have 4 elements", &[("0", 3, &bytes)]),
        ("occurs twice", &[("0", 4, &bytes), ("0", 4, &bytes)]),
        ("belongs to no tensor", &[("1", 4, &bytes)]),
        ("is missing", &[]),
    ] {
        let message = read(torch_legacy(&pickle, storages)).unwrap_err().to_string();
        assert!(message.contains("pytorch_model.bin: ") && message.contains(part), "{message}");
    }
}

#[test]
fn zip_files_of_other_programs_are_refused() {
    for (pickle, part) in [
        (&b"\x80\x02}."[..], "no dictionary of named tensors"),
        // d["state_dict"] = d
        (b"}q\x00X\x0a\0\0\0state_dicth\x00s.", "no dictionary of named tensors"),
        (b"N.", "no dictionary of named tensors"),
        (b"", "ends inside"),
    ] {
        let message = open_torch(&torch_zip(pickle, &[], false)).1.unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
    assert!(open_torch(b"PK\x05\x06").1.is_err());
    assert!(open_torch(b"\x80\x02}.").1.unwrap_err().to_string().contains("not a PyTorch file"));
    assert!(open_torch(b"").1.is_err());
}

#[cfg(unix)]
#[test]
fn only_regular_files_are_opened() {
    let dir = copy("micro-base");
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", dir.path().join("x.safetensors")).unwrap();
    assert!(error(&dir).contains("is not a regular file"));
}

/// Loads a fixture's copy with a head named on the command line.
fn with_head(dir: &TempDir, head: HeadChoice) -> Result<Loaded> {
    load::load(&open(dir)?, &LoadOptions { head: Some(head), ..LoadOptions::default() })
}

#[test]
fn a_classifier_that_nothing_describes_is_asked_for() {
    for architecture in [Value::Null, json!(["BertModel"]), json!(["MyModel"])] {
        let dir = copy("micro-sequence-classification");
        edit(&dir, "config.json", |c| {
            c["architectures"] = architecture;
            c["problem_type"] = Value::Null;
        });
        let message = error(&dir);
        assert!(message.contains("architectures: "), "{message}");
        assert!(message.contains("--head token") && message.contains("--head sequence"));
        let heads = with_head(&dir, HeadChoice::Token).unwrap().bert.heads;
        assert!(heads.token_classifier.is_some() && heads.sequence_classifier.is_none());
        let heads = with_head(&dir, HeadChoice::Sequence).unwrap().bert.heads;
        assert!(heads.token_classifier.is_none() && heads.sequence_classifier.is_some());
        let message = with_head(&dir, HeadChoice::QuestionAnswering).unwrap_err().to_string();
        assert!(message.contains("qa_outputs.weight"), "{message}");
    }
    // Without a pooler it can only classify tokens.
    let dir = changed("micro-token-classification", |tensors| {
        tensors.retain(|t| !t.0.contains("pooler"));
    });
    edit(&dir, "config.json", |c| c["architectures"] = Value::Null);
    assert!(load(&dir).unwrap().0.heads.token_classifier.is_some());
    // The option overrides the file, with a note.
    let dir = copy("micro-sequence-classification");
    let loaded = with_head(&dir, HeadChoice::Token).unwrap();
    assert!(loaded.bert.heads.token_classifier.is_some());
    assert!(loaded.notes[0].contains("--head overrides it"), "{:?}", loaded.notes);
}

#[test]
fn weights_fit_the_type_that_they_are_stored_in() {
    let with = |name: &str, value: f32, weights: WeightType| {
        let dir = changed("micro", |tensors| {
            tensors.iter_mut().find(|t| t.0.ends_with(name)).unwrap().2[5] = value;
        });
        let options = LoadOptions { weights: Some(weights), ..LoadOptions::default() };
        load::load(&open(&dir).unwrap(), &options)
    };
    let (int8, f16, f32) = (WeightType::Int8, WeightType::F16, WeightType::F32);
    let (word, place) = ("word_embeddings.weight", "position_embeddings.weight");
    let inner = "layer.1.output.dense.weight";
    for (name, value, weights) in [
        (word, 3e38, int8),
        (word, 3e38, f16),
        (word, 3e38, f32),
        (word, 9e6, int8),
        (word, -65_505.0, f16),
        (place, 70_000.0, int8),
        (place, 70_000.0, f16),
        (inner, -70_000.0, f16),
        (inner, 2e20, int8),
        (inner, 2e20, f32),
        ("pooler.dense.weight", 70_000.0, int8),
        ("seq_relationship.weight", 70_000.0, int8),
        ("transform.dense.weight", -1e6, int8),
        ("layer.0.output.LayerNorm.weight", 1e19, int8),
        ("layer.0.output.dense.bias", 1e19, f32),
    ] {
        let message = with(name, value, weights).unwrap_err().to_string();
        assert!(message.contains(&format!("{name}: element 5 is ")), "{message}");
        assert!(message.contains("too large"), "{message}");
        let fits = value.abs() < 1e18 && weights != f32;
        assert_eq!(message.contains("--weights f32"), fits, "{message}");
    }
    for (name, value, weights) in [
        (word, 70_000.0, int8),
        (word, 65_504.0, f16),
        (word, 9e6, f32),
        (inner, 70_000.0, int8),
        (inner, 70_000.0, f32),
        // A logit that is to be impossible.
        ("predictions.bias", f32::MIN, int8),
        ("layer.0.output.dense.bias", 70_000.0, f16),
    ] {
        assert_eq!(with(name, value, weights).unwrap().notes, [""; 0], "{name} {value}");
    }
    let dir = changed("micro", |tensors| {
        let place = tensors.iter_mut().find(|t| t.0.ends_with(place)).unwrap();
        place.2.iter_mut().for_each(|x| *x *= 1e-7);
    });
    let options = LoadOptions { weights: Some(int8), ..LoadOptions::default() };
    let notes = load::load(&open(&dir).unwrap(), &options).unwrap().notes;
    assert!(notes[0].contains("position_embeddings.weight: its largest value is "), "{notes:?}");
}

#[test]
fn a_name_twice_in_a_header_is_refused() {
    let dir = copy("micro-base");
    let entry = |at: usize| {
        format!(r#""w":{{"dtype":"F32","shape":[1],"data_offsets":[{},{}]}}"#, at, at + 4)
    };
    let header = format!("{{{},{}}}", entry(0), entry(0));
    fs::write(dir.path().join("model.safetensors"), safetensors_file(&header, 4)).unwrap();
    let message = error(&dir);
    assert!(message.contains("header: ") && message.contains("\"w\" is there twice"), "{message}");
}

#[test]
fn tensors_together_are_no_larger_than_their_file_allows() {
    let zeros = vec![0; 1 << 18];
    let pickle = |count: usize| {
        let mut pickle = b"\x80\x02}".to_vec();
        for i in 0..count {
            let one = torch_pickle(&format!("w{i}"), "FloatStorage", 1 << 16, 0, &[1 << 16], &[1]);
            pickle.extend(&one[3..one.len() - 1]);
        }
        pickle.push(b'.');
        pickle
    };
    let open = |count| open_torch(&torch_zip(&pickle(count), &[("0", &zeros)], false)).1;
    // As of tied weights.
    assert_eq!(open(2).unwrap().tensors().count(), 2);
    let message = open(60).unwrap_err().to_string();
    assert!(message.contains("tensors: take 15728640 bytes"), "{message}");
}

#[test]
fn compression_that_is_not_read_is_named() {
    let pickle = torch_pickle("w", "FloatStorage", 2, 0, &[2], &[1]);
    for (method, name) in [(12, "Bzip2"), (14, "Lzma"), (93, "Zstd")] {
        let mut bytes = torch_zip(&pickle, &[("0", &[7; 8])], true);
        for (magic, at) in [(b"PK\x03\x04", 8), (b"PK\x01\x02", 10)] {
            let starts: Vec<_> =
                (0..bytes.len() - 4).filter(|&i| bytes[i..i + 4] == magic[..]).collect();
            starts.into_iter().for_each(|start| bytes[start + at] = method);
        }
        let message = open_torch(&bytes).1.unwrap_err().to_string();
        assert!(message.contains(&format!("is compressed with {name}")), "{message}");
    }
}

#[test]
fn what_is_no_checkpoint_is_named_with_the_next_step() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    for name in ["model.safetensors", "vocab.txt", "config.json"] {
        let dir = copy("micro-base");
        fs::write(dir.path().join(name), pointer).unwrap();
        let message = error(&dir);
        assert!(message.contains(&format!("{name}: is a pointer of Git LFS")), "{message}");
        assert!(message.contains("git lfs pull"), "{message}");
        fs::write(dir.path().join(name), "\n<!DOCTYPE HTML><html>404</html>").unwrap();
        assert!(error(&dir).contains(&format!("{name}: is a web page")));
    }
    let only = |files: &[(&str, &str)]| {
        let dir = copy("micro-base");
        fs::remove_file(dir.path().join("model.safetensors")).unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        error(&dir)
    };
    let base = r#"{"base_model_name_or_path":"org/base","peft_type":"LORA"}"#;
    for (files, parts) in [
        (
            &[("adapter_config.json", base), ("adapter_model.safetensors", "")][..],
            ["is an adapter (LORA) for org/base", "merge_and_unload"],
        ),
        (
            &[("model-00001-of-00002.safetensors", ""), ("model-00002-of-00002.safetensors", "")],
            ["model-00001-of-00002.safetensors is one of several", "model.safetensors.index.json"],
        ),
        (
            &[("pytorch_model-00001-of-00002.bin", "")],
            ["pytorch_model-00001-of-00002.bin is one of", "pytorch_model.bin.index.json"],
        ),
        (&[("model.pt", "")], ["but model.pt", "give its path"]),
        (&[("tf_model.h5", "")], ["Keras weights", "save_pretrained"]),
        (&[("model.onnx", "")], ["an ONNX graph", "save_pretrained"]),
        (&[("flax_model.msgpack", "")], ["Flax weights", "save_pretrained"]),
        (&[("bert.Q4_K.gguf", "")], ["GGUF weights", "save_pretrained"]),
        (
            &[("checkpoint-500/model.safetensors", ""), ("trainer_state.json", "{}")],
            ["the folder checkpoint-500 has some", "convert "],
        ),
    ] {
        let message = only(files);
        for part in parts {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
    let dir = copy("formats/sharded-safetensors");
    let shard = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path());
    let shard = { shard }.find(|p| p.to_string_lossy().contains("-00002-of-")).unwrap();
    fs::remove_file(&shard).unwrap();
    let message = error(&dir);
    assert!(
        message.contains("is missing; ") && message.contains("index.json names it"),
        "{message}"
    );
}

#[test]
fn a_prefix_before_all_names_is_named() {
    let dir = changed("micro-base", |tensors| {
        tensors.iter_mut().for_each(|t| t.0 = format!("student.net.{}", t.0));
    });
    let message = error(&dir);
    assert!(message.contains("names are those of a BERT after \"student.net.\""), "{message}");
    assert!(message.contains("removeprefix") && message.contains(" more: "), "{message}");
}

#[test]
fn a_vocabulary_beyond_the_model_is_refused_before_it_is_kept() {
    let dir = copy("micro-base");
    let lines: String = (0..300_000).map(|i| format!("w{i}\n")).collect();
    fs::write(dir.path().join("vocab.txt"), lines).unwrap();
    let message = error(&dir);
    let expected = "vocab_size: 256 is fewer than the 300000 tokens of the vocabulary";
    assert!(message.contains(expected), "{message}");
}
