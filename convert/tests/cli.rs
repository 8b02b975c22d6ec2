//! The command: exit status, what goes to which stream, the demo, scores.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn run(folder: &Path, args: &[&str]) -> Output {
    // Nothing of the machine is needed, Python least of all.
    Command::new(env!("CARGO_BIN_EXE_bertlet-convert"))
        .args(args)
        .current_dir(folder)
        .env("PATH", "/nonexistent")
        .output()
        .unwrap()
}

fn manifest(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_answer_goes_to_stdout_and_all_else_to_stderr() {
    let folder = tempfile::tempdir().unwrap();
    let source = manifest("tests/fixtures/micro");
    let source = source.to_str().unwrap();
    let out = run(folder.path(), &[source, "--weights", "f32", "--report", "page.html"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(out.stdout.is_empty());
    let summary = text(&out.stderr);
    assert!(
        summary.starts_with("micro.bertlet: ") && summary.contains("pooled cosine"),
        "{summary}"
    );
    assert!(!summary.contains('\x1b'), "no progress bar without a terminal");
    let mut names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["micro.bertlet", "page.html"]);

    let json = run(folder.path(), &[source, "--weights", "f16", "--json", "-o", "x.bertlet"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["options"]["weights"], "f16");
}

#[test]
fn the_exit_status_tells_usage_from_failure() {
    let folder = tempfile::tempdir().unwrap();
    for usage in [
        &[][..],
        &["x", "--weights", "int7"],
        &["x", "--min-cosine", "1.5"],
        &["x", "--pooling", "none"],
        &["x", "--head", "classifier"],
        &["x", "--unknown"],
        &["demo", "x"],
        &["evaluate", "x"],
        &["probe", "x", "--train", "x", "--dev", "x", "--epochs", "0"],
    ] {
        let out = run(folder.path(), usage);
        assert_eq!(out.status.code(), Some(2), "{usage:?}");
        assert!(out.stdout.is_empty());
    }
    for failure in
        [&["no-such-folder"][..], &["evaluate", "no-such-file", "--task", "ner", "--data", "x"]]
    {
        let out = run(folder.path(), failure);
        let error = text(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{error}");
        assert!(error.starts_with("bertlet-convert: no-such-"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    // What cannot be written is refused before the work.
    let source = manifest("tests/fixtures/micro");
    let out = run(folder.path(), &[source.to_str().unwrap(), "--report", "missing/page.html"]);
    let error = text(&out.stderr);
    assert!(error.contains("missing: is not a folder; create it first"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    for help in
        [&["--help"][..], &["demo", "--help"], &["evaluate", "--help"], &["probe", "--help"]]
    {
        let out = run(folder.path(), help);
        assert!(out.status.success() && text(&out.stdout).contains("Example"), "{help:?}");
    }
}

#[test]
fn the_demo_shows_entities_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = run(folder.path(), &["demo"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let shown = text(&out.stdout);
    for part in
        ["PER   Angela Merkel", "LOC   Berlin", "ORG   Siemens", "0.99 positive", "0.99 negative"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn models_are_scored() {
    let folder = tempfile::tempdir().unwrap();
    let tagged = "Angela B-PER\nMerkel I-PER\nmet O\nreporters O\nin O\nBerlin B-LOC\n. O\n\n\
                  Shares O\nof O\nSiemens B-ORG\nfell O\nin O\nFrankfurt B-LOC\n. O\n";
    fs::write(folder.path().join("ner.tsv"), tagged).unwrap();
    fs::write(
        folder.path().join("texts.tsv"),
        "label\ttext\n1\ta wonderful film\n0\tsimply awful\n0\ta joy\n",
    )
    .unwrap();
    for (model, task, data, expected) in
        [("tiny-ner", "ner", "ner.tsv", 1.0), ("tiny-sst2", "classify", "texts.tsv", 2.0 / 3.0)]
    {
        let source = manifest("../models").join(model);
        let source = source.to_str().unwrap();
        let out = run(folder.path(), &[source, "--weights", "f16"]);
        assert!(out.status.success(), "{}", text(&out.stderr));
        let file = format!("{model}.bertlet");
        let args =
            ["evaluate", &file, "--task", task, "--data", data, "--json", "--reference", source];
        let out = run(folder.path(), &args);
        assert!(out.status.success(), "{}", text(&out.stderr));
        let scores: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(scores["model"]["score"], expected, "{scores}");
        assert_eq!(scores["reference"]["score"], expected, "{scores}");
    }
    let out = run(
        folder.path(),
        &["evaluate", "tiny-ner.bertlet", "--task", "classify", "--data", "ner.tsv"],
    );
    let error = text(&out.stderr);
    let expected = "tiny-ner.bertlet: the model has no sequence classifier; it has a token classifier: --task ner";
    assert!(error.contains(expected), "{error}");

    // Data that does not fit the model, and data without a heading.
    for (model, task, data, expected) in [
        ("tiny-ner", "ner", "", "has no words to score"),
        (
            "tiny-ner",
            "ner",
            "Angela B-PERSON\n",
            "the data has \"PERSON\", the model has \"LOC\", ",
        ),
        ("tiny-sst2", "classify", "", "has no texts to score"),
        ("tiny-sst2", "classify", "label\ttext\n", "has no texts to score"),
        ("tiny-sst2", "classify", "label\ttext\nbest\ta joy\n", "line 2: \"best\" is not a label"),
    ] {
        fs::write(folder.path().join("data.tsv"), data).unwrap();
        let file = format!("{model}.bertlet");
        let out = run(folder.path(), &["evaluate", &file, "--task", task, "--data", "data.tsv"]);
        let error = text(&out.stderr);
        assert_eq!((out.status.code(), text(&out.stdout)), (Some(1), String::new()), "{error}");
        assert!(error.contains(expected), "{error}");
    }
    for (data, count) in [("1\ta joy\n0\tsimply awful\n", 2), ("label\ttext\n1\ta joy\n", 1)] {
        fs::write(folder.path().join("data.tsv"), data).unwrap();
        let args =
            ["evaluate", "tiny-sst2.bertlet", "--task", "classify", "--data", "data.tsv", "--json"];
        let scores: Value = serde_json::from_slice(&run(folder.path(), &args).stdout).unwrap();
        assert_eq!((&scores["count"], &scores["model"]["score"]), (&count.into(), &1.0.into()));
        assert_eq!(scores["heading"].is_string(), count == 1, "{scores}");
    }
}

#[test]
fn layers_are_probed() {
    let folder = tempfile::tempdir().unwrap();
    let tagged = "Angela B-PER\nMerkel I-PER\nmet O\nreporters O\nin O\nBerlin B-LOC\n. O\n\n\
                  Shares O\nof O\nSiemens B-ORG\nfell O\nin O\nFrankfurt B-LOC\n. O\n";
    fs::write(folder.path().join("ner.tsv"), tagged).unwrap();
    let source = manifest("../models").join("tiny-ner");
    let out = run(folder.path(), &[source.to_str().unwrap(), "--weights", "f16"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let args = ["probe", "tiny-ner.bertlet", "--train", "ner.tsv", "--dev", "ner.tsv"];
    let json = |more: &[&str]| -> Value {
        let out = run(folder.path(), &[&args, more].concat());
        assert!(out.status.success(), "{}", text(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap()
    };
    let table = json(&["--epochs", "200", "--seeds", "2", "--json"]);
    assert_eq!(table["train_words"], 14, "{table}");
    let rows = table["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 7, "embeddings, three layers, two sums, a concatenation");
    for row in rows {
        assert_eq!(row["seeds"].as_array().unwrap().len(), 2);
        assert_eq!(row["score"], 1.0, "what was trained on is known: {row}");
    }
    assert_eq!(json(&["--epochs", "2", "--json"]), json(&["--epochs", "2", "--json"]));
    let out = run(folder.path(), &args);
    assert!(text(&out.stdout).contains("concatenation of last four"), "{}", text(&out.stdout));
    fs::write(folder.path().join("empty.tsv"), "\n").unwrap();
    let args = ["probe", "tiny-ner.bertlet", "--train", "empty.tsv", "--dev", "ner.tsv"];
    let out = run(folder.path(), &args);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("empty.tsv: has no words"), "{}", text(&out.stderr));
}
