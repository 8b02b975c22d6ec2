//! The commands, as `INTERFACE.md` promises them.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::common::{Folder, Weights};

/// Runs `bertlet` on some input: its JSON lines, or what it says on stderr and its status.
pub fn bertlet(arguments: &[&str], input: &str) -> Result<Vec<Value>, (String, i32)> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_bertlet"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that refuses its arguments does not read; that is not a failure of this test.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    if !output.status.success() {
        let message = String::from_utf8(output.stderr).unwrap();
        return Err((message, output.status.code().unwrap()));
    }
    let text = String::from_utf8(output.stdout).unwrap();
    Ok(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn near(value: &Value, expected: f64) -> bool {
    (value.as_f64().unwrap() - expected).abs() < 1e-3
}

#[test]
fn classify() {
    let folder = Folder::new("classify");
    let path = folder.model("tiny-sst2", Weights::F32);
    let model = path.to_str().unwrap();
    let long = "A quiet triumph. ".repeat(200);
    let input = format!("The film is a quiet triumph, funny and humane.\n\n{long}\n");
    let answers = bertlet(&["classify", model], &input).unwrap();
    assert_eq!(answers.len(), 3);
    let first = &answers[0];
    assert_eq!(first["label"], "positive");
    assert_eq!(first["logits"].as_array().unwrap().len(), 2);
    assert_eq!(first["scores"]["positive"], first["score"]);
    let sum = ["positive", "negative"].map(|l| first["scores"][l].as_f64().unwrap());
    assert!((sum[0] + sum[1] - 1.0).abs() < 1e-5);
    assert!(first.get("truncated").is_none());
    assert_eq!(answers[2]["truncated"], true);
    let answers = bertlet(&["classify", model, "--window"], &input).unwrap();
    assert!(answers[2].get("truncated").is_none());
    assert_eq!(answers[0], *first);
    let ids = json!({"input_ids": [2, 50, 3]}).to_string();
    let answers = bertlet(&["classify", model, "--ids"], &ids).unwrap();
    assert_eq!(answers[0]["logits"].as_array().unwrap().len(), 2);

    let (message, status) = bertlet(&["ner", model], "a").unwrap_err();
    assert!(status == 1 && message.contains("token_classifier"), "{message}");
    for bad in [&["classify", model, "--ids", "--window"][..], &["classify", model, "--top", "1"]] {
        assert_eq!(bertlet(bad, "a").unwrap_err().1, 2);
    }
}

#[test]
fn ner() {
    let folder = Folder::new("ner");
    let path = folder.model("tiny-ner", Weights::F32);
    let model = path.to_str().unwrap();
    let text = "😀 Angela Merkel met Emmanuel Macron in Berlin.";
    let answers = bertlet(&["ner", model, "--text", text, "--aggregation", "first"], "").unwrap();
    let berlin = answers[0]["entities"].as_array().unwrap().last().unwrap();
    assert_eq!(berlin["label"], "LOC");
    assert_eq!(berlin["text"], "Berlin");
    let start = text.find("Berlin").unwrap();
    assert_eq!(berlin["start"], start);
    assert_eq!(berlin["end"], start + 6);
    assert_eq!(berlin["start_char"], start - 3);
    assert_eq!(berlin["end_char"], start + 3);
    assert_eq!(berlin["start_utf16"], start - 2);
    assert_eq!(berlin["end_utf16"], start + 4);
    assert!(answers[0].get("logits").is_none() && answers[0].get("truncated").is_none());

    // Ids: one row of logits per token, entities by tokens.
    let tokens = bertlet(&["tokenize", model, "--text", text], "").unwrap();
    let line = json!({"input_ids": tokens[0]["input_ids"]}).to_string();
    let by_ids =
        bertlet(&["ner", model, "--ids", "--logits", "--aggregation", "first"], &line).unwrap();
    let by_text = bertlet(
        &["ner", model, "--text", text, "--logits", "--aggregation", "first", "--constrained"],
        "",
    )
    .unwrap();
    assert_eq!(by_ids[0]["logits"], by_text[0]["logits"]);
    let rows = by_ids[0]["logits"].as_array().unwrap();
    assert_eq!(rows.len(), tokens[0]["input_ids"].as_array().unwrap().len());
    assert_eq!(rows[0].as_array().unwrap().len(), 9);
    let berlin = by_ids[0]["entities"].as_array().unwrap().last().unwrap();
    assert_eq!(berlin["text"], "Berlin");
    let (start, end) = (berlin["start"].as_u64().unwrap(), berlin["end"].as_u64().unwrap());
    assert!(start < end && (end as usize) < rows.len());

    // Words.
    let words = bertlet(&["ner", model, "--words", "--text", "Berlin  is \u{200b} big ."], "");
    let words = &words.unwrap()[0];
    assert_eq!(words["tags"][0], "B-LOC");
    assert_eq!(words["tags"].as_array().unwrap().len(), 5);
    assert_eq!(words["tags"][2], Value::Null);
    assert!(near(&words["scores"][0], 1.0) || words["scores"][0].as_f64().unwrap() > 0.5);

    // Long texts.
    let long = "Angela Merkel came to the office early in the morning . ".repeat(120);
    let cut = bertlet(&["ner", model], &long).unwrap();
    assert_eq!(cut[0]["truncated"], true);
    let whole = bertlet(&["ner", model, "--window", "--aggregation", "first"], &long).unwrap();
    assert!(whole[0].get("truncated").is_none());
    // The small model misses many of them; those that it finds lie all over the text.
    let places = |answer: &Value| -> Vec<u64> {
        let entities = answer["entities"].as_array().unwrap();
        entities.iter().map(|entity| entity["start"].as_u64().unwrap()).collect()
    };
    let (cut, whole) = (places(&cut[0]), places(&whole[0]));
    assert!(whole.is_sorted() && whole.last() > cut.last());

    let (message, status) = bertlet(&["ner", model, "--aggregation", "best"], "a").unwrap_err();
    assert!(status == 2 && message.contains("simple"), "{message}");
    let (message, status) =
        bertlet(&["ner", model, "--ids"], "{\"input_ids\":[70000]}").unwrap_err();
    assert!(status == 1 && message.contains("70000"), "{message}");
}

/// What `bertlet` writes to stdout, stderr, and its status.
fn plain(arguments: &[&str], input: &str) -> (String, String, i32) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_bertlet"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code().unwrap())
}

#[test]
fn ner_labels_whole_words_unless_told_otherwise() {
    let folder = Folder::new("ner-words");
    let path = folder.model("tiny-ner", Weights::F32);
    let model = path.to_str().unwrap();
    let text = "Angela Merkel met Emmanuel Macron in Berlin.";
    let answers = bertlet(&["ner", model, "--text", text], "").unwrap();
    let found = |answers: &[Value]| -> Vec<String> {
        let entities = answers[0]["entities"].as_array().unwrap();
        entities.iter().map(|e| e["text"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(found(&answers), ["Angela Merkel", "Emmanuel Macron", "Berlin"]);
    assert_eq!(
        answers,
        bertlet(&["ner", model, "--text", text, "--aggregation", "first"], "").unwrap()
    );
    // A soft hyphen, a joiner, and a space of no width within a word.
    let text = "Paris to Lon\u{ad}don and Ber\u{200d}lin, Frank\u{200b}furt";
    for aggregation in ["first", "average", "max"] {
        let answers =
            bertlet(&["ner", model, "--text", text, "--aggregation", aggregation], "").unwrap();
        let expected = ["Paris", "Lon\u{ad}don", "Ber\u{200d}lin", "Frank\u{200b}furt"];
        assert_eq!(found(&answers), expected, "{aggregation}");
    }

    // Words end at spaces, and at nothing else.
    let line = "10\u{a0}000  euros in\u{3000}Paris\u{85}or Berlin";
    let answers = bertlet(&["ner", model, "--words", "--text", line], "").unwrap();
    let tags = answers[0]["tags"].as_array().unwrap();
    assert_eq!((tags.len(), &tags[3]), (4, &json!("B-LOC")));
}

#[test]
fn ner_redacts_texts() {
    let folder = Folder::new("ner-redact");
    let path = folder.model("tiny-ner", Weights::F32);
    let model = path.to_str().unwrap();
    let text = "Angela Merkel met Emmanuel Macron in Berlin.";
    let long = "He left London. ".repeat(400);
    let input = format!("{text}\n\n😀 \"no\" name\n{long}\n");
    let (stdout, stderr, status) = plain(&["ner", model, "--redact"], &input);
    assert_eq!((&stderr[..], status), ("", 0));
    let lines: Vec<&str> = stdout.split('\n').collect();
    let redacted = "[PER] met [PER] in [LOC].";
    assert_eq!(lines[..3], [redacted, "", "😀 \"no\" name"]);
    // A long text as the entities of its windows say; those that the small model finds lie all over it.
    let whole = bertlet(&["ner", model, "--window"], &long).unwrap();
    let mut expected = long.clone();
    for entity in whole[0]["entities"].as_array().unwrap().iter().rev() {
        let [start, end] = ["start", "end"].map(|name| entity[name].as_u64().unwrap() as usize);
        expected.replace_range(start..end, &format!("[{}]", entity["label"].as_str().unwrap()));
    }
    assert!(lines[3] == expected && expected[expected.len() - 2000..].contains("[ORG]"));
    assert_eq!(lines[4..], [""]);
    // Nothing is left of a word of which the model found a part.
    for aggregation in ["none", "simple"] {
        let arguments = ["ner", model, "--redact", "--text", text, "--aggregation", aggregation];
        let (stdout, ..) = plain(&arguments, "");
        for rest in ["ela", "kel", "uel", "ron", "lin"] {
            assert!(!stdout.contains(rest), "{aggregation}: {stdout}");
        }
    }
    let answers = bertlet(&["ner", model, "--redact", "--json"], &input).unwrap();
    assert_eq!(answers[0], json!({"redacted": redacted}));
    assert_eq!(answers[2], json!({"redacted": "😀 \"no\" name"}));

    for bad in ["--ids", "--words", "--logits"] {
        let (message, status) = bertlet(&["ner", model, "--redact", bad], "a").unwrap_err();
        assert!(status == 2 && message.contains(bad), "{message}");
    }
}

#[test]
fn ner_reads_labels_as_told() {
    let folder = Folder::new("ner-labels");
    let labels = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| name.to_string()).collect();
        let path = folder.model_with("tiny-ner", Weights::F32, |extras| extras.labels = names);
        path.to_str().unwrap().to_owned()
    };
    let text = "Angela Merkel met Emmanuel Macron in Berlin.";
    // The order of the checkpoint: O, then B- and I- of PER, ORG, LOC and MISC.
    let nameless: Vec<_> = (0..9).map(|i| format!("LABEL_{i}")).collect();
    let model = labels(&nameless.iter().map(String::as_str).collect::<Vec<_>>());
    let redact = |model: &str, more: &[&str]| {
        plain(&[&["ner", model, "--redact", "--text", text][..], more].concat(), "")
    };
    let (stdout, stderr, status) = redact(&model, &[]);
    assert!(stdout.starts_with("[LABEL_1]") && status == 0, "{stdout}");
    assert!(stderr.contains("labels") && stderr.contains("--outside LABEL_0"), "{stderr}");
    let (stdout, stderr, _) = redact(&model, &["--outside", "LABEL_0"]);
    assert!(stdout.contains(" met [LABEL_") && stdout.ends_with(".\n") && stderr.is_empty());
    let (_, stderr, status) = redact(&model, &["--outside", "O"]);
    assert!(status == 1 && stderr.contains("\"O\"") && stderr.contains("LABEL_0, LABEL_1"));

    let model =
        labels(&["none", "B_PER", "I_PER", "B_ORG", "I_ORG", "B_LOC", "I_LOC", "B_M", "I_M"]);
    let expected = "[PER] met [PER] in [LOC].\n".to_owned();
    for scheme in ["auto", "bio", "iob1", "iob2"] {
        let options = ["--constrained", "--scheme", scheme];
        let (stdout, stderr, status) = redact(&model, &options);
        assert_eq!(status, 0, "{stderr}");
        if scheme != "iob1" {
            assert_eq!(stdout, expected, "{scheme}");
        }
    }
    let (stdout, ..) = redact(&model, &["--scheme", "plain"]);
    assert_eq!(stdout, "[B_PER] [I_PER] met [B_PER] [I_PER] in [B_LOC].\n");
    let (_, stderr, status) = redact(&model, &["--scheme", "bioe"]);
    assert!(status == 2 && stderr.contains("iob2"), "{stderr}");
}

#[test]
fn fill_mask_and_next_sentence() {
    let folder = Folder::new("fill");
    let path = folder.model("micro", Weights::F32);
    let model = path.to_str().unwrap();
    let input = "the [MASK] of [MASK]\nnothing here\n";
    let answers = bertlet(&["fill-mask", model, "--top", "3"], input).unwrap();
    let fills = answers[0]["fills"].as_array().unwrap();
    assert_eq!(fills.len(), 2);
    assert_eq!((&fills[0]["position"], &fills[1]["position"]), (&json!(2), &json!(4)));
    let tokens = fills[0]["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), 3);
    assert!(tokens[0]["score"].as_f64() >= tokens[1]["score"].as_f64());
    assert!(tokens[0]["id"].is_u64() && tokens[0]["token"].is_string());
    assert_eq!(answers[1], json!({"fills": []}));

    let answers = bertlet(&["next-sentence", model], "hello\tworld\n").unwrap();
    let logits = answers[0]["logits"].as_array().unwrap();
    let difference = logits[1].as_f64().unwrap() - logits[0].as_f64().unwrap();
    assert!(near(&answers[0]["is_next"], 1.0 / (1.0 + difference.exp())));
    let (message, status) = bertlet(&["next-sentence", model], "hello\n").unwrap_err();
    assert!(status == 1 && message.contains("tab"), "{message}");
}

#[test]
fn answer() {
    let folder = Folder::new("answer");
    let path = folder.model("micro-qa", Weights::F32);
    let model = path.to_str().unwrap();
    let passage = "the market in berlin was good";
    let answers =
        bertlet(&["answer", model, "--question", "where", "--text", passage], "").unwrap();
    let answer = &answers[0];
    let [start, end] = ["start", "end"].map(|name| answer[name].as_u64().unwrap() as usize);
    assert_eq!(answer["text"], &passage[start..end]);
    assert!(answer["score"].as_f64().unwrap() > 0.0);

    let ids = json!({"input_ids": [2, 50, 3, 51, 52, 3], "token_type_ids": [0, 0, 0, 1, 1, 1]});
    let answers = bertlet(&["answer", model, "--ids"], &ids.to_string()).unwrap();
    let [start, end] = ["start", "end"].map(|name| answers[0][name].as_u64().unwrap());
    assert!(3 <= start && start < end && end <= 5);
    assert_eq!(bertlet(&["answer", model], "a").unwrap_err().1, 2);
    let one_text = json!({"input_ids": [2, 50, 3]}).to_string();
    assert_eq!(bertlet(&["answer", model, "--ids"], &one_text).unwrap_err().1, 1);
}
