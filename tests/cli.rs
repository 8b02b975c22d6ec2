//! The `bertlet` command, run as users run it.

#[path = "common/checkpoints.rs"]
mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use bertlet::Isa;
use bertlet::tasks::WindowPlan;
use common::{Folder, Weights};
use serde_json::Value;

/// Models that the tests share, in a folder that stays: nothing of it changes.
static MODELS: LazyLock<Models> = LazyLock::new(|| {
    let folder = Folder(Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli"));
    std::fs::create_dir_all(&folder.0).unwrap();
    let models = Models {
        float: folder.model("micro", Weights::F32),
        int8: folder.model("micro", Weights::Int8),
    };
    std::mem::forget(folder);
    models
});

struct Models {
    float: PathBuf,
    int8: PathBuf,
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bertlet"));
    command.args(arguments).env_remove("BERTLET_ISA").env_remove("THREADS");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the command with `input` on stdin.
fn run(arguments: &[&str], input: impl AsRef<[u8]>) -> Output {
    let mut child = command(arguments).spawn().unwrap();
    // It may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input.as_ref());
    child.wait_with_output().unwrap()
}

/// What it writes to stdout, where all goes well.
fn text(arguments: &[&str], input: impl AsRef<[u8]>) -> String {
    let output = run(arguments, input);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    assert_eq!(stderr, "", "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Its answers, one per line.
fn answers(arguments: &[&str], input: impl AsRef<[u8]>) -> Vec<Value> {
    text(arguments, input).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Its one line on stderr and its status, where it fails.
fn error(arguments: &[&str], input: impl AsRef<[u8]>) -> (String, i32) {
    let output = run(arguments, input);
    let stderr = String::from_utf8(output.stderr).unwrap();
    let status = output.status.code().unwrap_or_else(|| panic!("{arguments:?}: a signal"));
    assert_ne!(status, 0, "{arguments:?}");
    assert!(stderr.starts_with("bertlet: "), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    (stderr.trim_end().to_owned(), status)
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn name(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Names of what is in a folder.
fn files(folder: &Folder) -> Vec<String> {
    let entries = std::fs::read_dir(&folder.0).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn help_has_examples() {
    let overview = text(&["--help"], "");
    for command in ["inspect", "verify", "embed", "tokenize", "attention", "bench"] {
        assert!(overview.contains(command), "{overview}");
        let help = text(&[command, "--help"], "");
        assert!(help.contains("\nExample:\n  bertlet "), "{help}");
        assert!(help.contains("--isa") || command == "inspect", "{help}");
    }
    assert!(text(&["--version"], "").starts_with("bertlet 0."));
}

#[test]
fn wrong_usage_is_status_2() {
    let model = name(&MODELS.float);
    for (arguments, message) in [
        (&[][..], "bertlet: no command given; see bertlet --help"),
        (&["dance"], "bertlet: no command \"dance\"; see bertlet --help"),
        (&["embed"], "bertlet: no model given; make a file with bertlet-convert and name it here"),
        (&["embed", model, "--fast"], "bertlet: unknown option --fast; --help lists the options"),
        (
            &["embed", model, "--pooling", "median"],
            "bertlet: --pooling \"median\": no such pooling; try none, cls, pooler, mean, max, \
             mean-max, mean-sqrt or sep",
        ),
        (&["embed", model, "a.txt", "--text", "b"], "bertlet: give a file or --text, not both"),
        (
            &["embed", model, "--threads", "0"],
            "bertlet: --threads \"0\": give a whole number from 1 to 256",
        ),
        (
            &["fill-mask", model, "--top", "x"],
            "bertlet: --top \"x\": give a whole number from 1 to 18446744073709551615",
        ),
        (
            &["answer", model, "--top", "0"],
            "bertlet: --top \"0\": give a whole number from 1 to 1000",
        ),
        (&["nre"], "bertlet: no command \"nre\"; did you mean ner? see bertlet --help"),
        (
            &["fill_mask"],
            "bertlet: no command \"fill_mask\"; did you mean fill-mask? see bertlet --help",
        ),
        (
            &[model, "ner"],
            &format!(
                "bertlet: no command {model:?}; the command comes before the model; see bertlet --help"
            ),
        ),
        (
            &["ner", model, "--agregation", "first"],
            "bertlet: unknown option --agregation; did you mean --aggregation? --help lists the options",
        ),
        (
            &["embed", model, "--normalise"],
            "bertlet: unknown option --normalise; did you mean --normalize? --help lists the options",
        ),
        (
            &["classify", model, "--question", "who"],
            "bertlet: unknown option --question: bertlet answer has it, classify has not; --help lists \
             the options",
        ),
        (
            &["ner", model, "hello", "world"],
            "bertlet: \"world\" is one argument too many; give a text with --text, and quote a text with \
             spaces",
        ),
        (
            &["embed", model, "--window", "--pooling", "none"],
            "bertlet: --window averages pooled vectors; choose another --pooling than none",
        ),
        (
            &["embed", model, "--words", "middle"],
            "bertlet: --words \"middle\": no such choice; try first, mean or last",
        ),
        (
            &["embed", model, "--words", "first", "--pooling", "cls"],
            "bertlet: --words pools the tokens of each word, --pooling those of the text; give one \
             of them",
        ),
        (
            &["embed", model, "--words", "first", "--format", "npy", "-o", "words.npy"],
            "bertlet: --format npy holds one array, and with --words texts differ in words; choose \
             --format safetensors, or --pooling in place of --words",
        ),
        (
            &["embed", model, "--words", "first", "--ids"],
            "bertlet: --words: lines of ids are used as they are; give texts",
        ),
        (
            &["embed", model, "--format", "npy"],
            "bertlet: this --format is completed at its end; name a file with -o, or stdout with -o -",
        ),
        (&["attention", model], "bertlet: no text given; put it after the model, in quotes"),
        (&["attention", model, "a text"], "bertlet: no page named; say where with --html FILE"),
        (
            &["bench", model, "--lengths", "65"],
            "bertlet: 65 tokens: the model takes 64 at most; choose a shorter length",
        ),
        (
            &["inspect", model, "--max-tokens", "65"],
            "bertlet: --max-tokens 65: the model takes 1 to 64 tokens",
        ),
    ] {
        assert_eq!(error(arguments, ""), (message.into(), 2), "{arguments:?}");
    }
}

#[test]
fn files_that_are_not_models_are_status_1() {
    let folder = Folder::new("cli-no-models");
    let path = |name: &str| folder.0.join(name);
    let model = std::fs::read(&MODELS.float).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(path(name), bytes).unwrap();
        path(name)
    };
    for (file, message) in [
        (path("nowhere"), "no such file; make one with bertlet-convert"),
        (folder.0.clone(), "not a regular file; give the path of a file that can be mapped"),
        (
            write("empty", b""),
            "the file has 0 bytes and needs 128; it was cut off: copy or convert it again",
        ),
        (
            write("text", &b"A quiet house.\n".repeat(20)),
            "not a bertlet file; make one with bertlet-convert",
        ),
        (
            write("cut", &model[..model.len() / 2]),
            &format!(
                "the file has {} bytes and needs {}; it was cut off: copy or convert it again",
                model.len() / 2,
                model.len()
            ),
        ),
    ] {
        for command in ["inspect", "verify", "embed", "tokenize", "bench"] {
            let expected = format!("bertlet: {}: {message}", file.display());
            assert_eq!(error(&[command, name(&file)], ""), (expected, 1));
        }
    }
    // Damage that only the checksums show.
    let mut damaged = model.clone();
    let at = damaged.len() - 200;
    damaged[at] ^= 4;
    let file = write("damaged", &damaged);
    let (message, status) = error(&["verify", name(&file)], "");
    assert_eq!(status, 1);
    assert!(message.contains("does not match its checksum"), "{message}");
    let whole = text(&["verify", name(&MODELS.float)], "");
    assert!(whole.ends_with("sections have their checksums; no self-test vectors\n"), "{whole}");
}

#[test]
fn verify_runs_the_self_test() {
    let folder = Folder::new("cli-self-test");
    let ids = [2, 17, 33, 81, 5, 3];
    let self_test = {
        let file = bertlet::ModelFile::open(&MODELS.int8).unwrap();
        let mut session = bertlet::Session::new(file.model());
        let mut encoder = session.encoder(ids.len()).unwrap();
        bertlet::selftest::write(&mut encoder, &[(&ids, &[0; 6])]).unwrap()
    };
    let mut other = self_test.clone();
    *other.last_mut().unwrap() ^= 1;
    let model = |self_test: Vec<u8>| {
        folder.model_with("micro", Weights::Int8, |extras| extras.self_test = self_test)
    };
    let right = text(&["verify", name(&model(self_test)), "--threads", "2"], "");
    assert!(right.contains("; 1 self-test inputs give the same bits on "), "{right}");
    let (message, status) = error(&["verify", name(&model(other))], "");
    assert_eq!(status, 1);
    assert!(message.contains("self-test 0: value "), "{message}");
}

#[test]
fn damaged_models_get_an_answer_or_an_error() {
    let folder = Folder::new("cli-damaged");
    let whole = std::fs::read(&MODELS.int8).unwrap();
    let file = folder.0.join("damaged");
    let mut state = 7u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    for i in 0..60 {
        let mut bytes = whole.clone();
        match i % 4 {
            0 => bytes.truncate(random(whole.len())),
            1 => bytes[random(4096)] ^= 1 << random(8),
            2 => {
                let at = random(2000) * 4;
                let field = [[255; 8], [0; 8], (1u64 << 62).to_le_bytes()][random(3)];
                bytes[at..at + 8].copy_from_slice(&field);
            }
            _ => (0..50).for_each(|_| bytes[random(whole.len())] = random(256) as u8),
        }
        std::fs::write(&file, &bytes).unwrap();
        for command in ["inspect", "verify", "embed", "tokenize"] {
            let output = run(&[command, name(&file)], "hello world\n");
            let status = output.status.code();
            assert!(matches!(status, Some(0 | 1)), "{command}, case {i}: {status:?}");
        }
    }
}

#[test]
fn instruction_sets_give_the_same_bits() {
    let line = "{\"input_ids\":[2,17,33,81,5,3],\"token_type_ids\":[0,0,0,1,1,1]}\n";
    let model = name(&MODELS.int8);
    let embed = |isa: &str, threads: &str| {
        text(&["embed", model, "--ids", "--isa", isa, "--threads", threads], line)
    };
    let expected = embed("portable", "1");
    for (isa, available) in Isa::all() {
        if available {
            assert_eq!(embed(isa, "1"), expected, "{isa}");
            assert_eq!(embed(isa, "3"), expected, "{isa}");
        } else {
            let (message, status) = error(&["embed", model, "--isa", isa], "");
            assert_eq!(status, 2);
            assert!(message.contains("this CPU lacks"), "{message}");
        }
    }
    let (message, status) = error(&["embed", model, "--isa", "abacus"], "");
    assert_eq!(status, 2);
    assert!(message.contains("--isa abacus: no such instruction set"), "{message}");
    assert!(message.contains("portable"), "{message}");
    let forced = command(&["embed", model]).env("BERTLET_ISA", "abacus").output().unwrap();
    assert_eq!(forced.status.code(), Some(2));
}

#[test]
fn inspect_shows_everything() {
    let folder = Folder::new("cli-inspect");
    let model = folder.model_with("micro-token-classification", Weights::F32, |extras| {
        extras.normalize = true;
        extras.tokenizer = Vec::new();
        extras.provenance = r#"{"source": "micro",
            "conversion": {"weights": "f32", "pooled_cosine": 1.0, "dropped": []}}"#
            .into();
    });
    let json = &answers(&["inspect", name(&model), "--json"], "")[0];
    assert_eq!(json["file"], name(&model));
    assert_eq!(json["parameters"]["total"], 27_621);
    assert_eq!(json["config"]["max_position_embeddings"], 64);
    assert_eq!(json["tokens"], 64);
    assert_eq!(json["labels"][1], "B-PER");
    assert_eq!(json["provenance"]["conversion"]["weights"], "f32");
    assert_eq!(json["sections"].as_array().unwrap().len(), 4 + 12 + 3);

    let plain = on_terminal(&["inspect", name(&model), "--max-tokens", "16"]);
    let Some(plain) = plain else { return };
    let plain = plain.replace(name(&model), "MODEL");
    assert_eq!(plain, include_str!("inspect.txt"));
}

#[test]
fn limits_and_prompts_of_a_file_are_shown_and_used() {
    let folder = Folder::new("cli-limits");
    let path = folder.0.join("limited.bertlet");
    let mut writer = common::writer("micro", Weights::F32, |extras| extras.max_tokens = 12);
    let prompts = [("query", "hello: "), ("part", "hel")];
    let prompts = prompts.map(|(name, text)| (name.to_owned(), text.to_owned()));
    writer.prompts(&prompts, Some(0));
    writer.save(&path).unwrap();
    let (model, plain) = (name(&path), name(&MODELS.float));

    let shown = &answers(&["inspect", model], "")[0];
    assert_eq!(shown["max_tokens"], 12);
    assert_eq!(shown["prompts"], serde_json::json!({"query": "hello: ", "part": "hel"}));
    assert_eq!(shown["default_prompt_name"], "query");
    if let Some(text) = on_terminal(&["inspect", model]) {
        assert!(text.contains("\ntext limit      12 tokens, unless --max-tokens"), "{text}");
        assert!(
            text.contains("\nprompt          \"query\": \"hello: \" (the default)\n"),
            "{text}"
        );
    }

    // The default prompt, a named one, none; on a model without prompts the same texts.
    let embed = |arguments: &[&str], text: &str| {
        answers(&[&["embed", model, "--text", text], arguments].concat(), "").remove(0)
    };
    let expected = |text: &str| answers(&["embed", plain, "--text", text], "").remove(0);
    assert_eq!(embed(&[], "world"), expected("hello: world"));
    assert_eq!(embed(&["--prompt", "query"], "world"), expected("hello: world"));
    assert_eq!(embed(&["--prompt", "part"], "lo world"), expected("hello world"));
    assert_eq!(embed(&["--prompt", ""], "world"), expected("world"));
    assert_eq!(embed(&[], "world\tpeace"), expected("hello: world\tpeace"));
    let rows = embed(&["--pooling", "none"], "world");
    let tokens = &answers(&["tokenize", plain, "--text", "hello: world"], "")[0]["input_ids"];
    assert_eq!(rows["embedding"].as_array().unwrap().len(), tokens.as_array().unwrap().len());
    let (message, status) = error(&["embed", model, "--text", "a", "--prompt", "Query"], "");
    assert_eq!(status, 2);
    assert!(message.contains("the model's prompts are: \"query\", \"part\""), "{message}");
    for more in ["--ids", "--words=first"] {
        let (message, status) = error(&["embed", model, "--prompt", "query", more], "");
        assert!(status == 2 && message.contains("--prompt"), "{message}");
    }

    // The limit, another limit, and ids, which have none but the positions.
    let long = &*"hello world ".repeat(40);
    let none = ["--prompt", ""];
    let cut = embed(&none, long);
    assert_eq!(cut["truncated"], true);
    let whole = embed(&["--prompt", "", "--max-tokens", "64"], long);
    assert_eq!(whole, expected(long));
    assert_ne!(cut["embedding"], whole["embedding"]);
    for limit in ["12", "64"] {
        let tokens = answers(&["tokenize", model, "--text", long, "--max-tokens", limit], "");
        assert_eq!(tokens[0]["input_ids"].as_array().unwrap().len().to_string(), limit);
        assert_eq!(tokens[0]["truncated"], true);
        let of_ids = &answers(&["embed", model, "--ids"], tokens[0].to_string())[0];
        assert_eq!(of_ids["truncated"], Value::Null);
        let of_text = if limit == "12" { &cut } else { &whole };
        assert_eq!(of_ids["embedding"], of_text["embedding"]);
    }
    let uncut = &answers(&["tokenize", model, "--text", long], "")[0];
    assert!(uncut["input_ids"].as_array().unwrap().len() > 64 && uncut["truncated"].is_null());
    let (message, status) = error(&["embed", model, "--text", "a", "--max-tokens", "65"], "");
    assert!(status == 2 && message.contains("the model takes 1 to 64 tokens"), "{message}");
    let fills = answers(&["fill-mask", model, "--text", &format!("[MASK] {long}")], "");
    assert_eq!(fills[0]["truncated"], true);
    let cut = format!("{long} [MASK]");
    let (message, status) = error(&["fill-mask", model, "--text", &cut], "");
    assert!(status == 1 && message.contains("[MASK] comes after the part"), "{message}");
}

/// What the command shows on a terminal; `None` if there is no `script` to make one.
fn on_terminal(arguments: &[&str]) -> Option<String> {
    let quoted: Vec<_> = arguments.iter().map(|a| format!("'{a}'")).collect();
    let line = format!("'{}' {}", env!("CARGO_BIN_EXE_bertlet"), quoted.join(" "));
    let output = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n"))
}

#[test]
fn embed_answers_in_order() {
    let model = name(&MODELS.float);
    let lines = "hello world\n\n\u{5317}\u{4eac} 1\tsecond text\nlast, without a line feed";
    let all = answers(&["embed", model], lines);
    assert_eq!(all.len(), 4);
    for (line, answer) in lines.lines().zip(&all) {
        assert_eq!(floats(&answer["embedding"]).len(), 32);
        assert_eq!(answer["truncated"], Value::Null);
        let only = std::slice::from_ref(answer);
        assert_eq!(answers(&["embed", model, "--text", line], ""), only);
        assert_eq!(answers(&["embed", model, "-"], format!("{line}\r\n")), only);
    }
    // One vector per token.
    let rows = &answers(&["embed", model, "--pooling", "none"], "hello")[0]["embedding"];
    let tokens = answers(&["tokenize", model], "hello")[0]["input_ids"].as_array().unwrap().len();
    assert_eq!(rows.as_array().unwrap().len(), tokens);
    assert_eq!(floats(&rows[0]).len(), 32);
    // Its mean is the default pooling of this file.
    let mean: Vec<f32> = (0..32)
        .map(|i| (0..tokens).map(|t| floats(&rows[t])[i]).sum::<f32>() / tokens as f32)
        .collect();
    let pooled = floats(&answers(&["embed", model], "hello")[0]["embedding"]);
    assert!(mean.iter().zip(&pooled).all(|(a, b)| (a - b).abs() < 1e-5));
    // Layers and lengths.
    let wide = answers(&["embed", model, "--layers", "concat:0,-1", "--normalize"], "hello");
    let wide = floats(&wide[0]["embedding"]);
    assert_eq!(wide.len(), 64);
    assert!((wide.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
    let (message, status) = error(&["embed", model, "--layers", "7"], "hello");
    assert_eq!(status, 1);
    assert!(message.contains("--layers: there is no hidden state 7"), "{message}");
}

#[test]
fn ids_are_used_as_they_are() {
    let model = name(&MODELS.float);
    let from_text = &answers(&["tokenize", model], "hello world")[0];
    let line = format!("{{\"input_ids\":{}}}", from_text["input_ids"]);
    let expected = answers(&["embed", model], "hello world");
    assert_eq!(answers(&["embed", model, "--ids"], &line), expected);
    // What `tokenize` writes can be piped into --ids, also with the names that it had before.
    let whole = text(&["tokenize", model], "hello\tworld");
    let expected_pair = answers(&["embed", model], "hello\tworld");
    assert_eq!(answers(&["embed", model, "--ids"], &whole), expected_pair);
    let old = whole.replace("input_ids", "ids").replace("token_type_ids", "type_ids");
    assert_eq!(answers(&["embed", model, "--ids"], old), expected_pair);
    // Masked tokens after the text change nothing.
    let ids = from_text["input_ids"].as_array().unwrap();
    let mut padded = ids.clone();
    padded.resize(ids.len() + 5, 0.into());
    let mut mask = vec![1; ids.len()];
    mask.resize(padded.len(), 0);
    let line = serde_json::json!({ "input_ids": padded, "attention_mask": mask }).to_string();
    assert_eq!(answers(&["embed", model, "--ids"], &line), expected);

    let most = format!("{{\"input_ids\":[{}1]}}", "1,".repeat(64));
    for (line, problem) in [
        ("", "not JSON: byte 0: expected a value"),
        ("{\"input_ids\":[2,3}", "not JSON: "),
        ("{\"input_ids\":[2,3],\"note\":\"\\ud800\"}", "not JSON: "),
        ("[2,3]", "input_ids: missing"),
        ("{\"input_ids\":7}", "input_ids: not a list of numbers"),
        ("{\"input_ids\":[[2,3]]}", "input_ids[0]: [2,3] is not a whole number"),
        ("{\"input_ids\":[2,-1]}", "input_ids[1]: -1 is not a whole number"),
        ("{\"input_ids\":[2,1e99]}", "input_ids[1]: 1e99 is not a whole number"),
        ("{\"input_ids\":[2],\"attention_mask\":[2]}", "attention_mask[0]: 2 is not"),
        ("{\"input_ids\":[2],\"attention_mask\":[0]}", "every token is masked"),
        ("{\"input_ids\":[2],\"token_type_ids\":[0,0]}", "2 token_type_ids for 1 input_ids"),
        ("{\"input_ids\":[2],\"token_type_ids\":[9]}", "token 0 has type 9"),
        ("{\"input_ids\":[2,999]}", "token 1 has id 999, the vocabulary has 256"),
        ("{\"input_ids\":[]}", "the input has no token"),
        (&most, "the input has 65 tokens, the limit is 64"),
    ] {
        let input = format!("{{\"input_ids\":[2,3]}}\n{line}\n");
        let (message, status) = error(&["embed", model, "--ids"], input);
        assert_eq!(status, 1);
        let expected = format!("bertlet: stdin: line 2: {problem}");
        assert!(message.starts_with(&expected), "{message} instead of {expected}");
    }
}

#[test]
fn texts_of_any_kind_get_an_answer_or_an_error() {
    let model = name(&MODELS.float);
    let (message, status) = error(&["embed", model], b"fine\nbroken \xff text\n");
    assert_eq!(status, 1);
    assert_eq!(message, "bertlet: stdin: line 2: invalid UTF-8 at byte 7; save the texts as UTF-8");
    assert_eq!(
        answers(&["tokenize", model], "a\0b")[0]["tokens"],
        answers(&["tokenize", model], "ab")[0]["tokens"]
    );
    // Text that is cut says so, whatever its length.
    let long = "hello world ".repeat(900_000);
    let cut = &answers(&["embed", model], &long)[0];
    assert_eq!(cut["truncated"], true);
    let pair = format!("{}\thello", "hello ".repeat(200));
    assert_eq!(answers(&["embed", model], pair)[0]["truncated"], true);
    // But tokenize shows all of it.
    let ids = &answers(&["tokenize", model], "hello ".repeat(500))[0]["input_ids"];
    assert!(ids.as_array().unwrap().len() >= 502);
    // No vocabulary, no text.
    let folder = Folder::new("cli-no-vocabulary");
    let bare = folder.model_with("micro", Weights::F32, |extras| extras.tokenizer = Vec::new());
    let (message, status) = error(&["embed", name(&bare)], "hello");
    assert_eq!(status, 1);
    assert!(message.contains("tokenizer: the model has none"), "{message}");
    assert_eq!(answers(&["embed", name(&bare), "--ids"], "{\"input_ids\":[2,3]}").len(), 1);
}

#[test]
fn a_text_in_the_place_of_a_file_is_a_hint() {
    let model = name(&MODELS.float);
    for command in ["embed", "tokenize"] {
        assert_eq!(
            error(&[command, model, "hello"], ""),
            (
                "bertlet: hello: no such file; to give a text itself, write --text \"hello\""
                    .into(),
                1
            )
        );
    }
}

/// A line that is longer than any text ends the run, or is answered with an error.
#[test]
#[ignore = "reads 257 MiB of text; .ci/full runs it"]
fn lines_without_end_are_refused() {
    let model = name(&MODELS.float);
    let long = [&b"hello\n"[..], &b"a".repeat(257 << 20), b"\nhello\n"].concat();
    let (message, status) = error(&["tokenize", model], &long);
    assert_eq!(status, 1);
    let problem = "stdin: line 2: longer than 256 MiB; break it into lines";
    assert_eq!(message, format!("bertlet: {problem}"));
    let output = run(&["tokenize", model, "--keep-going"], &long);
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]), (3, &lines[2]));
    assert_eq!(lines[1], serde_json::json!({ "error": problem }));
}

#[test]
fn windows_read_all_of_a_text() {
    let model = name(&MODELS.float);
    let short = "hello world";
    assert_eq!(answers(&["embed", model, "--window"], short), answers(&["embed", model], short));
    let long = format!("{} world", "hello ".repeat(300));
    let all = &answers(&["embed", model, "--window"], &long)[0];
    assert_eq!(all["truncated"], Value::Null);
    assert_ne!(all["embedding"], answers(&["embed", model], &long)[0]["embedding"]);
    let pair = format!("{long}\t{long}");
    let normalized = &answers(&["embed", model, "--window", "--normalize"], pair)[0];
    let length: f32 = floats(&normalized["embedding"]).iter().map(|x| x * x).sum();
    assert!((length - 1.0).abs() < 1e-5);
}

#[test]
fn words_get_a_vector_each() {
    let model = name(&MODELS.float);
    // Of one token, of several, invisible, of punctuation; spaces of any kind between them.
    let line = "hello  helloworld9\t\u{200b} it's \u{5317}\u{4eac} ";
    let of = |more: &[&str], line: &str| -> Vec<Option<Vec<f32>>> {
        let answer = &answers(&[&["embed", model], more].concat(), line)[0];
        assert_eq!(answer["truncated"], Value::Null);
        let rows = answer["embedding"].as_array().unwrap().iter();
        rows.map(|row| (!row.is_null()).then(|| floats(row))).collect()
    };
    // The model sees the same tokens as in the running text, the spaces being where they are.
    let layers = ["--layers", "concat:0,-1"];
    let tokens = of(&[&layers[..], &["--pooling", "none"]].concat(), &line.replace('\t', " "));
    let words: Vec<&str> = line.split_whitespace().collect();
    let count = |word: &&str| {
        let ids = &answers(&["tokenize", model, "--text", word], "")[0]["input_ids"];
        ids.as_array().unwrap().len() - 2
    };
    let counts: Vec<usize> = words.iter().map(count).collect();
    assert_eq!((counts[0], counts[2], counts.iter().sum::<usize>()), (1, 0, tokens.len() - 2));
    assert!(counts[1] > 1 && counts[3] > 1 && counts[4] > 1, "{counts:?}");
    for pooling in ["first", "mean", "last"] {
        let vectors = of(&[&layers[..], &["--words", pooling]].concat(), line);
        let units = of(&[&layers[..], &["--normalize", "--words", pooling]].concat(), line);
        assert_eq!((vectors.len(), units.len()), (words.len(), words.len()));
        let mut at = 1;
        for ((vector, unit), count) in vectors.iter().zip(&units).zip(&counts) {
            let own = &tokens[at..at + count];
            at += count;
            let Some(vector) = vector else {
                assert_eq!(*count, 0);
                continue;
            };
            let own: Vec<&Vec<f32>> = own.iter().flatten().collect();
            assert_eq!(vector.len(), 64);
            for (i, x) in vector.iter().enumerate() {
                let expected = match pooling {
                    "first" => own[0][i],
                    "last" => own[count - 1][i],
                    _ => own.iter().map(|token| token[i]).sum::<f32>() / *count as f32,
                };
                assert!((x - expected).abs() < 1e-6, "{pooling}");
            }
            let length = unit.as_ref().unwrap().iter().map(|x| x * x).sum::<f32>();
            assert!((length - 1.0).abs() < 1e-5);
        }
    }
    // Words beyond what the model takes have no vector, and the answer says so.
    let long = "hello ".repeat(70);
    let cut = &answers(&["embed", model, "--words", "first"], &long)[0];
    assert_eq!(cut["truncated"], true);
    let rows = cut["embedding"].as_array().unwrap();
    assert_eq!((rows.len(), rows.iter().filter(|row| row.is_null()).count()), (70, 8));
    // Without words, without tokens, without sense.
    assert_eq!(
        answers(&["embed", model, "--words", "last"], "\n")[0]["embedding"],
        Value::Array(vec![])
    );
    let (message, status) = error(&["embed", model, "--words", "mean"], b"a b \xff c");
    assert_eq!(status, 1);
    assert!(message.ends_with("invalid UTF-8 at byte 4; save the texts as UTF-8"), "{message}");
    // As one array per text.
    let folder = Folder::new("cli-words");
    let out = folder.0.join("words.safetensors");
    let arguments =
        ["embed", model, "--words", "first", "--format", "safetensors", "-o", name(&out)];
    assert_eq!(text(&arguments, format!("{line}\nhello")), "");
    let (header, data) = safetensors(&std::fs::read(&out).unwrap());
    assert_eq!(header["0"]["shape"], serde_json::json!([5, 32]));
    assert_eq!(header["1"]["shape"], serde_json::json!([1, 32]));
    assert_eq!(data.len(), 6 * 32 * 4);
}

/// Each word's vector is that of the window that has most tokens around the word, whichever way it is
/// looked for: here by running every window and comparing them all.
#[test]
fn words_of_a_long_line_are_read_in_windows() {
    let model = name(&MODELS.float);
    let limit = 64;
    // Of all lengths, invisible ones, and two that no window holds.
    let long = "a-b.".repeat(25);
    let mut words: Vec<String> = (0..90).map(|i| "helloworld"[..1 + i * 7 % 10].into()).collect();
    words[20] = "\u{200b}".into();
    words[40] = long.clone();
    words[71] = long;
    let line = words.join(" ");

    // Tokens of all words, and the words they are of.
    let (mut ids, mut of) = (Vec::new(), Vec::new());
    for (i, word) in words.iter().enumerate() {
        let answer = &answers(&["tokenize", model, "--text", word], "")[0]["input_ids"];
        let answer: Vec<u64> = serde_json::from_value(answer.clone()).unwrap();
        of.resize(of.len() + answer.len() - 2, i);
        ids.extend_from_slice(&answer[1..answer.len() - 1]);
    }
    let plan = WindowPlan::new(ids.len(), limit - 2, limit / 4);
    let windows: Vec<_> = (0..plan.count()).map(|i| plan.window(i)).collect();
    assert!(windows.len() > 5);
    let lines: String = windows
        .iter()
        .map(|window| {
            let ids = [&[2], &ids[window.clone()], &[3]].concat();
            serde_json::json!({ "input_ids": ids }).to_string() + "\n"
        })
        .collect();
    let runs = answers(&["embed", model, "--ids", "--pooling", "none"], lines);
    let rows = |i: usize, token: usize| floats(&runs[i]["embedding"][token - windows[i].start + 1]);

    // Tokens around a stretch on its shorter side, in the window that has most.
    let best = |from: usize, to: usize| {
        let around = |window: &std::ops::Range<usize>| {
            let left = if window.start == 0 { usize::MAX } else { from - window.start };
            let right = if window.end == ids.len() { usize::MAX } else { window.end - to };
            left.min(right)
        };
        let holds = |i: &usize| windows[*i].start <= from && to <= windows[*i].end;
        let all: Vec<_> = (0..windows.len()).filter(holds).collect();
        // Of equals the first.
        all.iter()
            .copied()
            .rev()
            .max_by_key(|i| around(&windows[*i]))
            .map(|i| (i, around(&windows[i])))
    };
    for pooling in ["first", "mean", "last"] {
        let answer = &answers(&["embed", model, "--window", "--words", pooling], &line[..])[0];
        assert_eq!(answer["truncated"], Value::Null);
        let found = answer["embedding"].as_array().unwrap();
        assert_eq!(found.len(), words.len());
        for (i, found) in found.iter().enumerate() {
            let from = of.partition_point(|word| *word < i);
            let to = of.partition_point(|word| *word <= i);
            assert_eq!(found.is_null(), i == 20, "{i}");
            if from == to {
                continue;
            }
            let whole = best(from, to).filter(|(_, around)| *around > 0).map(|(window, _)| window);
            assert_eq!(whole.is_none(), to - from > 62, "{i}");
            let row =
                |token| rows(whole.unwrap_or_else(|| best(token, token + 1).unwrap().0), token);
            let tokens = match pooling {
                "first" => from..from + 1,
                "last" => to - 1..to,
                _ => from..to,
            };
            let mut expected = vec![0.0; 32];
            for token in tokens.clone() {
                let share = tokens.len() as f32;
                expected.iter_mut().zip(row(token)).for_each(|(sum, x)| *sum += x / share);
            }
            for (x, y) in floats(found).iter().zip(&expected) {
                assert!((x - y).abs() < 1e-5, "{pooling} {i}");
            }
        }
    }

    // A line that one window holds is as without windows; lines without words or tokens work.
    for line in ["hello helloworld it's", "", "\u{200b} \u{200b}"] {
        let of =
            |more: &[&str]| answers(&[&["embed", model, "--words", "mean"], more].concat(), line);
        assert_eq!(of(&["--window", "--normalize"]), of(&["--normalize"]), "{line:?}");
    }
}

#[test]
fn tokenize_writes_offsets_and_tokens() {
    let model = name(&MODELS.float);
    let line = text(&["tokenize", model, "--text", "h\u{e9}llo\tworld"], "");
    let answer: Value = serde_json::from_str(&line).unwrap();
    let ids = answer["input_ids"].as_array().unwrap();
    assert_eq!(answer["tokens"][0], "[CLS]");
    assert_eq!(answer["offsets"][0], serde_json::json!([0, 0]));
    assert_eq!(answer["token_type_ids"][ids.len() - 1], 1);
    // Bytes, not characters: the accent takes two.
    let ends = answer["offsets"]
        .as_array()
        .unwrap()
        .iter()
        .zip(answer["token_type_ids"].as_array().unwrap());
    let first = ends.filter(|(_, t)| **t == 0).map(|(o, _)| o[1].as_u64().unwrap()).max();
    assert_eq!(first, Some(6));
    assert!(line.starts_with("{\"input_ids\":[2,") && line.ends_with("]}\n"), "{line}");
}

#[test]
fn answers_come_while_the_input_goes_on() {
    let mut child = command(&["embed", name(&MODELS.float)]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for _ in 0..3 {
        stdin.write_all(b"hello\n").unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert!(line.starts_with("{\"embedding\":["), "{line}");
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_reader_may_go_away() {
    let mut child = command(&["embed", name(&MODELS.float)]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let feed = std::thread::spawn(move || while stdin.write_all(b"hello\n").is_ok() {});
    stdout.read_exact(&mut [0; 10]).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    feed.join().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn exports_hold_the_same_numbers() {
    let folder = Folder::new("cli-exports");
    let model = name(&MODELS.float);
    let lines = "hello\nhello world, again\n";
    let expected: Vec<f32> =
        answers(&["embed", model], lines).iter().flat_map(|a| floats(&a["embedding"])).collect();
    let path = |name: &str| folder.0.join(name);
    let read = |name: &str| std::fs::read(path(name)).unwrap();
    let values = |bytes: &[u8]| -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let embed = |out: &str, more: &[&str]| {
        let out = path(out);
        let arguments = [&["embed", model, "-o", name(&out)], more].concat();
        assert_eq!(text(&arguments, lines), "");
    };

    embed("v.jsonl", &[]);
    assert_eq!(String::from_utf8(read("v.jsonl")).unwrap(), text(&["embed", model], lines));

    embed("v.npy", &["--format", "npy"]);
    let npy = read("v.npy");
    assert!(npy.starts_with(b"\x93NUMPY\x01\x00\x76\x00"));
    let header = std::str::from_utf8(&npy[10..128]).unwrap();
    let shape = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 32), }";
    assert_eq!(header.trim_end(), shape);
    assert!(header.ends_with('\n'));
    assert_eq!(values(&npy[128..]), expected);

    embed("v.safetensors", &["--format", "safetensors"]);
    let (header, data) = safetensors(&read("v.safetensors"));
    assert_eq!(header["embeddings"]["shape"], serde_json::json!([2, 32]));
    assert_eq!(header["embeddings"]["data_offsets"], serde_json::json!([0, data.len()]));
    assert_eq!(values(&data), expected);

    embed("t.safetensors", &["--format", "safetensors", "--pooling", "none"]);
    let (header, data) = safetensors(&read("t.safetensors"));
    let rows = answers(&["embed", model, "--pooling", "none"], lines);
    for (i, rows) in rows.iter().enumerate() {
        let rows = rows["embedding"].as_array().unwrap();
        let tensor = &header[i.to_string()];
        assert_eq!(tensor["shape"], serde_json::json!([rows.len(), 32]));
        let range = |i: usize| tensor["data_offsets"][i].as_u64().unwrap() as usize;
        let flat: Vec<f32> = rows.iter().flat_map(floats).collect();
        assert_eq!(values(&data[range(0)..range(1)]), flat);
    }
    let (message, status) = error(
        &["embed", model, "-o", name(&path("n.npy")), "--format", "npy", "--pooling", "none"],
        lines,
    );
    assert_eq!(status, 2);
    assert!(message.contains("--format npy holds one array"), "{message}");

    // If the answer has no field for it, stderr reports a cut.
    let out = path("cut.npy");
    let long = "hello ".repeat(200);
    let cut = run(&["embed", model, "-o", name(&out), "--format", "npy"], long);
    assert!(cut.status.success());
    assert!(String::from_utf8_lossy(&cut.stderr).contains("cut to 64 tokens"));
    let mut names = files(&folder);
    names.sort();
    assert_eq!(names, ["cut.npy", "t.safetensors", "v.jsonl", "v.npy", "v.safetensors"]);
}

fn safetensors(bytes: &[u8]) -> (Value, Vec<u8>) {
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    assert_eq!(end % 8, 0);
    (serde_json::from_slice(&bytes[8..end]).unwrap(), bytes[end..].to_vec())
}

#[test]
fn a_failure_leaves_no_part_of_a_file() {
    let folder = Folder::new("cli-partial");
    let model = name(&MODELS.float);
    let kept = folder.0.join("kept");
    std::fs::write(&kept, "as it was").unwrap();
    for format in ["jsonl", "npy", "safetensors"] {
        for pooling in ["mean", "none"] {
            let arguments =
                ["embed", model, "-o", name(&kept), "--format", format, "--pooling", pooling];
            error(&arguments, b"fine\nbroken \xff\n");
            assert_eq!(files(&folder), ["kept"]);
            assert_eq!(std::fs::read_to_string(&kept).unwrap(), "as it was");
        }
    }
    let nowhere = folder.0.join("no/where");
    let (message, status) = error(&["embed", model, "-o", name(&nowhere)], "fine");
    assert_eq!(status, 1);
    assert!(message.contains("cannot be written"), "{message}");
    // A device is written in place, not replaced.
    #[cfg(unix)]
    assert_eq!(text(&["embed", model, "-o", "/dev/null"], "fine"), "");
}

#[test]
fn attention_is_drawn_on_a_page() {
    let folder = Folder::new("cli-attention");
    let page = folder.0.join("page.html");
    let model = name(&MODELS.float);
    assert_eq!(text(&["attention", model, "hello <b> world", "--html", name(&page)], ""), "");
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.starts_with("<!DOCTYPE html>") && html.trim_end().ends_with("</html>"));
    assert!(!html.contains("http") && !html.contains("%DATA%"));
    let data = html.split_once("const data = ").unwrap().1.split_once(";\n").unwrap().0;
    assert!(!data.contains('<'));
    let data: Value = serde_json::from_str(data).unwrap();
    let tokens = data["tokens"].as_array().unwrap().len();
    assert_eq!((data["layers"].as_u64(), data["heads"].as_u64()), (Some(2), Some(4)));
    // Sixteen bits per probability, four characters for three bytes.
    let bytes = tokens * 4 * tokens * 2;
    assert_eq!(data["maps"][1].as_str().unwrap().len(), bytes.div_ceil(3) * 4);
    assert_eq!(files(&folder), ["page.html"]);
}

#[test]
fn bench_measures_and_answers_a_protocol() {
    let folder = Folder::new("cli-bench");
    let model = name(&MODELS.int8);
    let rows = answers(&["bench", model, "--lengths", "8", "--threads", "2", "--json"], "");
    let row = &rows[0];
    assert_eq!((row["tokens"].as_u64(), row["threads"].as_u64()), (Some(8), Some(2)));
    assert!(row["isa"].is_string());
    assert!(row["min_us"].as_f64() <= row["median_us"].as_f64());
    // The fraction is a median of its own; on a busy machine it may lie far from that of the medians.
    let fraction = row["gmac_per_s"].as_f64().unwrap() / row["peak_gmac_per_s"].as_f64().unwrap();
    let ratio = row["peak_fraction"].as_f64().unwrap() / fraction;
    assert!((0.2..5.0).contains(&ratio), "{row}");

    let profile = answers(&["bench", model, "--lengths", "8", "--profile"], "");
    let stages = profile[0].as_object().unwrap();
    let total = stages["total_us"].as_f64().unwrap();
    let parts = stages.iter().filter(|(name, _)| name.ends_with("_us") && *name != "total_us");
    let sum: f64 = parts.map(|(_, time)| time.as_f64().unwrap()).sum();
    assert!((sum / total - 1.0).abs() < 1e-3, "{stages:?}");
    assert!(stages.contains_key("linear_int8_us") && stages.contains_key("between_us"));
    let (message, status) = error(&["bench", model, "--profile", "--protocol"], "");
    assert!(status == 2 && message.contains("--profile"), "{message}");

    let ids = folder.0.join("ids");
    let states = folder.0.join("states");
    std::fs::write(&ids, "2 17 3\n2 3\n").unwrap();
    let requests = format!("8 5\n\n16 3 2\nQ {} {}\n", ids.display(), states.display());
    let answer = text(&["bench", model, "--protocol"], requests);
    let lines: Vec<_> = answer.lines().collect();
    assert_eq!(lines.len(), 3);
    for (line, count) in lines.iter().zip([5, 3]) {
        let times: Vec<f64> = line.split(' ').map(|time| time.parse().unwrap()).collect();
        assert!(times.len() == count && times.iter().all(|time| *time > 0.0), "{line}");
    }
    assert_eq!(lines[2], "ok");
    let expected: Vec<u8> = answers(
        &["embed", model, "--ids", "--pooling", "none"],
        "{\"input_ids\":[2,17,3]}\n{\"input_ids\":[2,3]}\n",
    )
    .iter()
    .flat_map(|answer| answer["embedding"].as_array().unwrap().clone())
    .flat_map(|row| floats(&row))
    .flat_map(f32::to_le_bytes)
    .collect();
    assert_eq!(std::fs::read(&states).unwrap(), expected);
    for request in ["8", "8 x", "Q nowhere", "0 1"] {
        let (message, status) = error(&["bench", model, "--protocol"], format!("{request}\n"));
        assert_eq!(status, 1);
        assert!(message.starts_with("bertlet: stdin: "), "{message}");
    }
    let threads = command(&["bench", model, "--protocol"]).env("THREADS", "none").output();
    assert_eq!(threads.unwrap().status.code(), Some(2));
}
