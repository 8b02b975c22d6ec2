//! The commands, as `INTERFACE.md` promises them.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::common::{Folder, Weights};

/// Runs `bertlet` on some input.
fn run(arguments: &[&str], input: impl AsRef<[u8]>) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_bertlet"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that refuses its arguments does not read; that is not a failure of this test.
    let _ = child.stdin.take().unwrap().write_all(input.as_ref());
    child.wait_with_output().unwrap()
}

/// Runs `bertlet` on some input: its JSON lines, or what it says on stderr and its status.
pub fn bertlet(arguments: &[&str], input: &str) -> Result<Vec<Value>, (String, i32)> {
    let output = run(arguments, input);
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
    let output = run(arguments, input);
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
    let input = "the [MASK] of [MASK]\n";
    let answers = bertlet(&["fill-mask", model, "--top", "3"], input).unwrap();
    let fills = answers[0]["fills"].as_array().unwrap();
    assert_eq!(fills.len(), 2);
    assert_eq!((&fills[0]["position"], &fills[1]["position"]), (&json!(2), &json!(4)));
    let tokens = fills[0]["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), 3);
    assert!(tokens[0]["score"].as_f64() >= tokens[1]["score"].as_f64());
    assert!(tokens[0]["id"].is_u64() && tokens[0]["token"].is_string());

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

/// The answers of a run, and its one line on stderr and its status.
fn output(arguments: &[&str], input: impl AsRef<[u8]>) -> (Vec<Value>, String, i32) {
    let output = run(arguments, input);
    let answers = String::from_utf8(output.stdout).unwrap();
    let answers = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (answers, String::from_utf8(output.stderr).unwrap(), output.status.code().unwrap())
}

#[test]
fn a_text_without_a_mask_is_an_error() {
    let folder = Folder::new("no-mask");
    let path = folder.model("micro", Weights::F32);
    let model = path.to_str().unwrap();
    let nothing = "the text has no [MASK]; write [MASK] ";
    for (text, problem) in [
        ("paris is nice", &format!("{nothing}where a word is missing")[..]),
        ("", &format!("{nothing}where a word is missing")),
        ("paris is <mask>", &format!("{nothing}in place of <mask>")),
        ("paris is [mask]", &format!("{nothing}in place of [mask]")),
        ("paris is [Mask]", &format!("{nothing}in place of [mask]")),
        ("paris is ___ .", &format!("{nothing}in place of ___")),
        ("paris is ______", &format!("{nothing}in place of ___")),
        ("paris is MASK", &format!("{nothing}in place of mask")),
        (
            &format!("{} [MASK]", "hello ".repeat(90)),
            "[MASK] comes after the part of the text that the model takes; cut the text",
        ),
    ] {
        let (message, status) = bertlet(&["fill-mask", model, "--text", text], "").unwrap_err();
        assert_eq!((message, status), (format!("bertlet: --text: {problem}\n"), 1));
    }
    let ids = "{\"input_ids\":[2,50,3]}";
    let (message, _) = bertlet(&["fill-mask", model, "--ids"], ids).unwrap_err();
    assert!(message.contains("input_ids: none is 4, the id of [MASK]"), "{message}");
    let (answers, message, status) =
        output(&["fill-mask", model, "--keep-going"], "a ___\na [MASK]\n");
    assert_eq!(answers[0], json!({"error": format!("stdin: line 1: {nothing}in place of ___")}));
    assert_eq!(answers[1]["fills"][0]["position"], 2);
    assert_eq!(status, 1);
    assert_eq!(message, "bertlet: stdin: 1 of 2 lines failed; their answers say why\n");
}

#[test]
fn a_missing_head_is_named_with_those_that_are_there() {
    let folder = Folder::new("heads");
    let sequence = folder.model("tiny-sst2", Weights::F32);
    let pretrained = folder.model("micro", Weights::F32);
    let base = folder.model("micro-base", Weights::F32);
    let has = |path: &std::path::Path| match path {
        _ if path == sequence => "it has a sequence classifier (bertlet classify)",
        _ if path == base => "it has no head, only vectors (bertlet embed)",
        _ => {
            "it has a masked-word head (bertlet fill-mask) and a next-sentence head (bertlet \
             next-sentence)"
        }
    };
    for (arguments, what) in [
        (&["ner"][..], "token classifier"),
        (&["classify"], "sequence classifier"),
        (&["fill-mask"], "masked-word head"),
        (&["next-sentence"], "next-sentence head"),
        (&["answer", "--question", "who"], "question-answering head"),
    ] {
        for path in [&sequence, &pretrained, &base] {
            if has(path).contains(what) {
                continue;
            }
            let model = path.to_str().unwrap();
            let (message, status) = bertlet(&[arguments, &[model]].concat(), "a").unwrap_err();
            let expected = format!(
                "bertlet: {model}: the model has no {what}, which {} needs; {}\n",
                arguments[0],
                has(path)
            );
            assert_eq!((message, status), (expected, 1));
        }
    }
}

/// Every command that reads texts, with a model for it, and whether it takes pairs.
fn commands(folder: &Folder) -> Vec<(Vec<String>, bool)> {
    let [ner, classify, micro, qa] = ["tiny-ner", "tiny-sst2", "micro", "micro-qa"]
        .map(|name| folder.model(name, Weights::F32).to_str().unwrap().to_owned());
    let all = [
        (vec!["ner", &ner], false),
        (vec!["ner", &ner, "--words"], false),
        (vec!["answer", &qa, "--question", "who", "--top", "2"], false),
        (vec!["fill-mask", &micro], false),
        (vec!["classify", &classify], true),
        (vec!["embed", &micro], true),
        (vec!["next-sentence", &micro], true),
        (vec!["tokenize", &micro], true),
    ];
    let owned = |arguments: Vec<&str>| arguments.into_iter().map(str::to_owned).collect();
    all.map(|(arguments, pairs)| (owned(arguments), pairs)).into()
}

#[test]
fn tabs_make_pairs_where_the_task_takes_pairs() {
    let folder = Folder::new("tabs");
    for (arguments, pairs) in commands(&folder) {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let help = String::from_utf8(
            Command::new(env!("CARGO_BIN_EXE_bertlet"))
                .args([arguments[0], "--help"])
                .output()
                .unwrap()
                .stdout,
        );
        let help = help.unwrap();
        assert_eq!(help.contains("A tab makes a pair"), pairs, "{arguments:?}");
        assert_eq!(help.contains("A tab is a space"), !pairs, "{arguments:?}");
        let of_line = |line: &str| {
            let piped = bertlet(&arguments, line).unwrap();
            assert_eq!(bertlet(&[&arguments[..], &["--text", line]].concat(), "").unwrap(), piped);
            piped[0].clone()
        };
        let of_json = |line: Value| {
            let jsonl = [&arguments[..], &["--jsonl"]].concat();
            bertlet(&jsonl, &line.to_string()).map(|answers| answers[0].clone())
        };
        let (first, second) = ("the [MASK] in london", "mary said hello [MASK]");
        let tabbed = of_line(&format!("{first}\t{second}"));
        let pair = of_json(json!({"text": first, "text_pair": second}));
        if pairs {
            assert_eq!(pair.unwrap(), tabbed);
            // What stands after the first tab is the second text, also where it is empty.
            let empty = of_json(json!({"text": first, "text_pair": ""})).unwrap();
            assert_eq!(of_line(&format!("{first}\t")), empty);
            let tabs = of_json(json!({"text": first, "text_pair": "a\tb"})).unwrap();
            assert_eq!(of_line(&format!("{first}\ta\tb")), tabs);
            if arguments[0] != "next-sentence" {
                // A pair is another thing than one text with a tab.
                let text = of_json(json!({"text": format!("{first}\t{second}")})).unwrap();
                assert_ne!(text, tabbed);
                let null = of_json(json!({"text": first, "text_pair": null})).unwrap();
                assert_eq!(null, of_line(first));
            }
        } else {
            let (message, status) = pair.unwrap_err();
            assert_eq!(status, 1);
            assert!(
                message.contains("line 1: text_pair: this command reads one text"),
                "{message}"
            );
            let text = of_json(json!({"text": format!("{first}\t{second}")})).unwrap();
            assert_eq!(text, tabbed);
            let spaced = tabbed.to_string().replace("\\t", " ");
            assert_eq!(of_line(&format!("{first} {second}")).to_string(), spaced);
        }
    }
}

#[test]
fn lines_of_json_hold_any_text_and_give_back_ids() {
    let folder = Folder::new("jsonl");
    for (arguments, pairs) in commands(&folder) {
        let mut arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let pair = if pairs { ",\"text_pair\":\"b\"" } else { "" };
        let line = |id: &str| format!("{{\"text\":\"a [MASK]\\nline \\\" \u{e9}\"{pair}{id}}}\n");
        let ids = ["7", "-1.50e+3", "18446744073709551616", "\"a \\\"b\\u0001\"", "true", "null"];
        let with: String = ids.iter().map(|id| line(&format!(",\"id\":{id}"))).collect();
        arguments.push("--jsonl");
        let (_, plain, _) = output(&arguments, "");
        assert_eq!(plain, "");
        let input = format!("\u{feff}{with}{}", line(""));
        let mut child = Command::new(env!("CARGO_BIN_EXE_bertlet"))
            .args(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let out = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let lines: Vec<_> = out.lines().collect();
        let last = lines[ids.len()].strip_suffix('}').unwrap();
        for (line, id) in lines.iter().zip(ids) {
            // To the letter: numbers, too, come back as they were written.
            assert_eq!(*line, format!("{last},\"id\":{id}}}"), "{arguments:?}");
        }
        for (bad, problem) in [
            ("", "not JSON: byte 0: expected a value; write {\"text\":\"..\"}"),
            ("[1]", "text: missing; write {\"text\":\"..\"}"),
            ("{\"sentence\":\"a\"}", "text: missing; write {\"text\":\"..\"}"),
            ("{\"text\":null}", "text: missing"),
            ("{\"text\":7}", "text: not a string"),
            ("{\"text\":\"a\",\"text_pair\":[]}", "text_pair: not a string"),
            ("{\"text\":\"a\"", "not JSON: "),
        ] {
            let (answers, message, status) = output(&arguments, format!("{bad}\n"));
            assert_eq!((answers.len(), status), (0, 1), "{bad}");
            assert!(
                message.starts_with(&format!("bertlet: stdin: line 1: {problem}")),
                "{message}"
            );
        }
    }
}

#[test]
fn bad_lines_are_answered_and_the_run_goes_on() {
    let folder = Folder::new("keep-going");
    for (arguments, pairs) in commands(&folder) {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let tab = if arguments[0] == "next-sentence" { "\tb" } else { "" };
        let good = format!("a [MASK]{tab}");
        let fine = bertlet(&arguments, &good).unwrap();
        // Plain lines.
        let input = [good.as_bytes(), b"\na \xff [MASK]\n", good.as_bytes(), b"\n"].concat();
        let (answers, message, status) =
            output(&[&arguments[..], &["--keep-going"]].concat(), &input);
        assert_eq!((answers.len(), status), (3, 1), "{arguments:?} {message}");
        assert_eq!((&answers[0], &answers[2]), (&fine[0], &fine[0]));
        let error = "stdin: line 2: invalid UTF-8 at byte 2; save the texts as UTF-8";
        assert_eq!(answers[1], json!({ "error": error }));
        assert_eq!(message, "bertlet: stdin: 1 of 3 lines failed; their answers say why\n");
        let (answers, message, status) = output(&arguments, &input);
        assert!(answers.len() <= 1 && status == 1 && message.contains(error), "{message}");
        // Without a bad line all is well, and an answer file is there either way.
        let out = folder.0.join("out.jsonl");
        let file = ["--keep-going", "-o", out.to_str().unwrap()];
        let (_, message, status) = output(&[&arguments[..], &file].concat(), &good);
        assert_eq!((&message[..], status), ("", 0));
        assert_eq!(output(&[&arguments[..], &file].concat(), &input).2, 1);
        assert_eq!(std::fs::read_to_string(&out).unwrap().lines().count(), 3);

        // Lines of JSON, with their ids.
        let pair = if pairs { ",\"text_pair\":\"b\"" } else { "" };
        let input = format!(
            "{{\"text\":7,\"id\":\"x\"}}\nno JSON\n{{\"text\":\"a [MASK]\"{pair},\"id\":3}}\n"
        );
        let (answers, _, status) =
            output(&[&arguments[..], &["--jsonl", "--keep-going"]].concat(), &input);
        assert_eq!((answers.len(), status), (3, 1), "{arguments:?}");
        assert!(answers[0]["error"].is_string() && answers[0]["id"] == "x");
        assert!(answers[1]["error"].is_string() && answers[1].get("id").is_none());
        assert!(answers[2].get("error").is_none() && answers[2]["id"] == 3);

        // Lines of ids, with a byte order mark.
        if arguments.iter().any(|argument| ["tokenize", "--words", "--question"].contains(argument))
        {
            continue;
        }
        let input = "\u{feff}{\"input_ids\":[2,4,3],\"id\":1}\n{\"input_ids\":[2,99999999],\"id\":[2]}\n\
                     {\"input_ids\":7,\"id\":\"c\"}\n\n{\"input_ids\":[2,4,3],\"id\":5}\n";
        let (answers, message, status) =
            output(&[&arguments[..], &["--ids", "--keep-going"]].concat(), input);
        assert_eq!((answers.len(), status), (5, 1), "{arguments:?} {message}");
        assert_eq!(message, "bertlet: stdin: 3 of 5 lines failed; their answers say why\n");
        for (answer, (id, good)) in answers.iter().zip([
            (json!(1), true),
            (json!([2]), false),
            (json!("c"), false),
            (Value::Null, false),
            (json!(5), true),
        ]) {
            assert_eq!((&answer["id"], answer.get("error").is_none()), (&id, good), "{answer}");
        }
    }
}

#[test]
fn bad_lines_have_no_place_in_arrays() {
    let folder = Folder::new("keep-arrays");
    let path = folder.model("micro", Weights::F32);
    let arguments = ["embed", path.to_str().unwrap(), "--keep-going", "-o", "x", "--format", "npy"];
    let (message, status) = bertlet(&arguments, "a").unwrap_err();
    assert!(status == 2 && message.contains("--format jsonl"), "{message}");
    let (message, status) =
        bertlet(&["embed", path.to_str().unwrap(), "--ids", "--jsonl"], "a").unwrap_err();
    assert!(status == 2 && message.contains("--ids and --jsonl"), "{message}");
}
