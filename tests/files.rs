//! What the command writes to, and what it leaves where it fails or is ended. Models that are read instead
//! of mapped. Names that could drive a terminal.
#![cfg(target_os = "linux")]

#[path = "common/checkpoints.rs"]
mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use bertlet::{AtomicFile, ModelFile};
use common::{Folder, Weights};

const TEXTS: &str = "hello\nhello world, again\n";

fn name(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn command(folder: &Folder, arguments: &[&str]) -> Command {
    // A job in the background of a script ignores SIGINT, and its children inherit that.
    let mut command = Command::new("env");
    command.args(["--default-signal=INT,TERM,HUP", env!("CARGO_BIN_EXE_bertlet")]);
    command.args(arguments).current_dir(&folder.0).env_remove("BERTLET_ISA");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(folder: &Folder, arguments: &[&str], input: &str) -> Output {
    let mut child = command(folder, arguments).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// What it writes to stdout, where all goes well.
fn right(folder: &Folder, arguments: &[&str], input: &str) -> Vec<u8> {
    let output = run(folder, arguments, input);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
    assert!(output.status.success(), "{arguments:?}");
    output.stdout
}

/// Its message, where it fails.
fn wrong(output: Output) -> String {
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.starts_with("bertlet: ") && message.lines().count() == 1, "{message}");
    message
}

/// A shell with the command in `$0`, its arguments, and what more they take.
fn shell(folder: &Folder, script: &str, arguments: &[&str]) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_bertlet")]).args(arguments);
    shell.current_dir(&folder.0).output().unwrap()
}

/// Names of what is in a folder, in order.
fn files(folder: &Folder) -> Vec<String> {
    let entries = fs::read_dir(&folder.0).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn kill(signal: &str, child: &Child) {
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(status.unwrap().success());
}

/// A folder with a model and some texts.
fn folder(test: &str) -> Folder {
    let folder = Folder::new(test);
    let model = folder.model("micro", Weights::F32);
    fs::rename(model, folder.0.join("m")).unwrap();
    fs::write(folder.0.join("texts"), TEXTS).unwrap();
    folder
}

#[test]
fn an_input_is_never_an_output() {
    let folder = folder("files-inputs");
    let at = |name: &str| folder.0.join(name);
    fs::hard_link(at("texts"), at("hard")).unwrap();
    symlink("texts", at("soft")).unwrap();
    symlink("soft", at("softer")).unwrap();
    symlink(&folder.0, at("here")).unwrap();
    fs::write(at("ids"), "2 17 3\n").unwrap();
    let model = fs::read(at("m")).unwrap();
    let names = files(&folder);
    let absolute = at("texts");
    let spellings = ["texts", "./texts", "here/./texts", "hard", "soft", "softer", name(&absolute)];
    for format in ["jsonl", "npy"] {
        for out in spellings.into_iter().chain(["m", "./m", "here/m"]) {
            let arguments = ["embed", "m", "texts", "--format", format, "-o", out];
            let message = wrong(run(&folder, &arguments, ""));
            assert!(message.starts_with(&format!("bertlet: {out}: would replace ")), "{message}");
        }
    }
    for script in [
        "$0 embed m -o texts < texts",
        "$0 embed m texts >> hard",
        "$0 attention m hello --html ./m",
        "printf 'Q ids ids\\n' | $0 bench m --protocol",
        "printf 'Q ids m\\n' | $0 bench m --protocol",
    ] {
        let message = wrong(shell(&folder, script, &[]));
        assert!(message.contains("would replace"), "{script}: {message}");
    }
    assert_eq!(fs::read(at("m")).unwrap(), model);
    assert_eq!(fs::read_to_string(at("texts")).unwrap(), TEXTS);
    assert_eq!(fs::read_to_string(at("ids")).unwrap(), "2 17 3\n");
    assert_eq!(files(&folder), names);
}

#[test]
fn links_pipes_devices_and_stdout_are_written_through() {
    let folder = folder("files-through");
    let at = |name: &str| folder.0.join(name);
    for format in ["jsonl", "npy", "safetensors"] {
        for pooling in ["mean", "none"] {
            if (format, pooling) == ("npy", "none") {
                continue;
            }
            let embed = |out: &str| {
                let arguments = ["embed", "m", "texts", "--format", format, "--pooling", pooling];
                right(&folder, &[&arguments[..], &["-o", out]].concat(), "")
            };
            embed("plain");
            let expected = fs::read(at("plain")).unwrap();
            assert!(!expected.is_empty());

            // A link stays, and what it names is replaced or made.
            fs::create_dir_all(at("there")).unwrap();
            fs::write(at("there/old"), "old").unwrap();
            for (link, target) in [
                ("one", "there/old"),
                ("two", "one"),
                ("new", "there/new"),
                ("abs", name(&at("x"))),
            ] {
                let _ = fs::remove_file(at(link));
                symlink(target, at(link)).unwrap();
                embed(link);
                assert_eq!(fs::read_link(at(link)).unwrap(), Path::new(target));
                assert_eq!(fs::read(at(link)).unwrap(), expected);
            }
            assert_eq!(fs::read(at("there/old")).unwrap(), expected);

            if !at("pipe").exists() {
                assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
            }
            let pipe = at("pipe");
            let reader = std::thread::spawn(move || fs::read(pipe).unwrap());
            embed("pipe");
            assert_eq!(reader.join().unwrap(), expected);
            assert!(fs::metadata(at("pipe")).unwrap().file_type().is_fifo());

            embed("/dev/null");
            assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());

            for out in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
                assert_eq!(embed(out), expected, "{out}");
                fs::write(at("shell"), "before\n").unwrap();
                let script = "$0 embed m texts --format $1 --pooling $2 -o $3 >> shell";
                let output = shell(&folder, script, &[format, pooling, out]);
                assert!(output.status.success());
                assert_eq!(fs::read(at("shell")).unwrap(), [b"before\n", &expected[..]].concat());
            }
        }
    }
    assert_eq!(
        right(&folder, &["attention", "m", "hello", "--html", "-"], "").get(..2),
        Some(&b"<!"[..])
    );
    let rest = files(&folder);
    assert!(rest.iter().all(|name| !name.contains("tmp")), "{rest:?}");
}

#[test]
fn outputs_that_cannot_be_written_are_refused_before_the_work() {
    let folder = folder("files-nowhere");
    fs::create_dir(folder.0.join("folder")).unwrap();
    symlink("no/where", folder.0.join("dangling")).unwrap();
    symlink("loop", folder.0.join("loop")).unwrap();
    for out in ["no/where", "folder", "folder/", "new/", "dangling", "loop", "m/x"] {
        let mut child = command(&folder, &["embed", "m", "-o", out]).spawn().unwrap();
        // Its input is open: it must not wait for texts.
        let stdin = child.stdin.take();
        let message = wrong(child.wait_with_output().unwrap());
        assert!(message.starts_with(&format!("bertlet: {out}: cannot be written: ")), "{message}");
        drop(stdin);
    }
    let message = wrong(run(&folder, &["attention", "m", "hello", "--html", "no/page"], ""));
    assert!(
        message.contains("no/page: cannot be written: the folder no does not exist"),
        "{message}"
    );
    assert_eq!(files(&folder), ["dangling", "folder", "loop", "m", "texts"]);
}

#[test]
fn modes_are_those_of_a_new_or_of_the_replaced_file() {
    let folder = folder("files-modes");
    let mode = |name: &str| fs::metadata(folder.0.join(name)).unwrap().permissions().mode() & 0o777;
    let script = "umask 027; $0 embed m texts -o $1";
    assert!(shell(&folder, script, &["new"]).status.success());
    assert_eq!(mode("new"), 0o640);
    for kept in [0o600, 0o664, 0o444] {
        let old = folder.0.join("old");
        fs::write(&old, "").unwrap();
        fs::set_permissions(&old, PermissionsExt::from_mode(kept)).unwrap();
        assert!(shell(&folder, script, &["old"]).status.success());
        assert_eq!(mode("old"), kept);
        fs::remove_file(old).unwrap();
    }
}

#[test]
fn a_failed_write_names_the_file_and_keeps_the_old_one() {
    let folder = folder("files-full");
    fs::write(folder.0.join("big"), TEXTS.repeat(200)).unwrap();
    fs::write(folder.0.join("kept"), "as it was").unwrap();
    for format in ["jsonl", "npy", "safetensors"] {
        let message = wrong(run(
            &folder,
            &["embed", "m", "texts", "--format", format, "-o", "/dev/full"],
            "",
        ));
        assert!(message.starts_with("bertlet: /dev/full: cannot be written: "), "{message}");
        // 512 or 1024 bytes per block.
        let script = "ulimit -f 8; $0 embed m big --format $1 --pooling $2 -o kept";
        for pooling in ["mean", "none"] {
            if (format, pooling) == ("npy", "none") {
                continue;
            }
            let message = wrong(shell(&folder, script, &[format, pooling]));
            assert!(message.starts_with("bertlet: kept: cannot be written: "), "{message}");
            assert_eq!(fs::read_to_string(folder.0.join("kept")).unwrap(), "as it was");
        }
    }
    let message = wrong(shell(&folder, "$0 verify m > /dev/full", &[]));
    assert!(message.starts_with("bertlet: stdout: cannot be written: "), "{message}");
    assert_eq!(files(&folder), ["big", "kept", "m", "texts"]);
}

/// Starts a command that writes, and waits until its temporary file is there.
// The caller waits for it.
#[allow(clippy::zombie_processes)]
fn writing(folder: &Folder, arguments: &[&str]) -> (Child, String) {
    let child = command(folder, arguments).spawn().unwrap();
    for _ in 0..2000 {
        std::thread::sleep(Duration::from_millis(5));
        let found = files(folder).into_iter().find(|name| {
            // Past the check of the path, which leaves nothing.
            name.ends_with(".bertlet-tmp")
                && fs::read_to_string(format!("/proc/{}/stat", child.id())).is_ok()
        });
        if let Some(found) = found {
            std::thread::sleep(Duration::from_millis(50));
            if folder.0.join(&found).exists() {
                return (child, found);
            }
        }
    }
    panic!("nothing is written");
}

#[test]
fn signals_leave_nothing() {
    let folder = folder("files-signals");
    fs::write(folder.0.join("out"), "as it was").unwrap();
    for (signal, number) in [("-INT", 2), ("-TERM", 15), ("-HUP", 1)] {
        for format in ["jsonl", "safetensors"] {
            let arguments = ["embed", "m", "--format", format, "--threads", "2", "-o", "out"];
            let (mut child, _) = writing(&folder, &arguments);
            // Waiting would close it: the input would end, and the file be whole, before the signal acts.
            let input = child.stdin.take();
            kill(signal, &child);
            assert_eq!(child.wait().unwrap().signal(), Some(number), "{signal}");
            drop(input);
            assert_eq!(files(&folder), ["m", "out", "texts"], "{signal}");
        }
    }
    assert_eq!(fs::read_to_string(folder.0.join("out")).unwrap(), "as it was");

    // What the caller ignores stays ignored.
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec $0 embed m -o out", env!("CARGO_BIN_EXE_bertlet")]);
    let mut child = shell.current_dir(&folder.0).stdin(Stdio::piped()).spawn().unwrap();
    while !files(&folder).iter().any(|name| name.ends_with(".bertlet-tmp")) {
        std::thread::sleep(Duration::from_millis(5));
    }
    kill("-HUP", &child);
    std::thread::sleep(Duration::from_millis(20));
    child.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(files(&folder), ["m", "out", "texts"]);
}

#[test]
fn whenever_it_is_killed_the_file_is_the_old_or_the_whole_new_one() {
    let folder = folder("files-moments");
    fs::write(folder.0.join("big"), TEXTS.repeat(20)).unwrap();
    let arguments = ["embed", "m", "big", "-o", "out"];
    right(&folder, &arguments, "");
    let whole = fs::read(folder.0.join("out")).unwrap();
    let mut state = 1u64;
    for i in 0..60 {
        fs::write(folder.0.join("out"), "as it was").unwrap();
        let mut child = command(&folder, &arguments).spawn().unwrap();
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        std::thread::sleep(Duration::from_micros((state >> 33) % 30_000));
        let signal = ["-INT", "-TERM", "-KILL"][i % 3];
        let _ = Command::new("kill").args([signal, &child.id().to_string()]).output();
        let status = child.wait().unwrap();
        assert!(status.success() || matches!(status.signal(), Some(2 | 9 | 15)), "{status}");
        let found = fs::read(folder.0.join("out")).unwrap();
        assert!(found == whole || found == b"as it was", "{} bytes", found.len());
        if signal != "-KILL" {
            assert_eq!(files(&folder), ["big", "m", "out", "texts"], "{signal}");
        } else {
            // What a killed process left goes with the next run.
            right(&folder, &arguments, "");
            assert_eq!(files(&folder), ["big", "m", "out", "texts"]);
        }
    }
}

#[test]
fn only_what_killed_processes_left_is_swept() {
    let folder = folder("files-sweep");
    let (mut first, its) = writing(&folder, &["embed", "m", "-o", "out"]);
    // Not ours, of another path, not a file.
    let digits = "0123456789abcdef";
    let others = [
        format!(".other.{digits}.bertlet-tmp"),
        ".out.0123.bertlet-tmp".into(),
        format!("out.{digits}.bertlet-tmp"),
        format!(".out.{}.bertlet-tmp", digits.replace('0', "x")),
    ];
    for other in &others {
        fs::write(folder.0.join(other), "precious").unwrap();
    }
    let planted = folder.0.join(format!(".out.{digits}.bertlet-tmp"));
    symlink("texts", &planted).unwrap();
    let stale = folder.0.join(format!(".out.{}.bertlet-tmp", digits.replace('0', "f")));
    fs::write(&stale, "left").unwrap();
    right(&folder, &["embed", "m", "texts", "-o", "out"], "");
    assert!(!stale.exists());
    assert!(folder.0.join(its).exists(), "another process writes it");
    assert!(planted.is_symlink());
    assert_eq!(fs::read_to_string(&planted).unwrap(), TEXTS);
    for other in &others {
        assert_eq!(fs::read_to_string(folder.0.join(other)).unwrap(), "precious");
    }
    let answer = fs::read(folder.0.join("out")).unwrap();
    first.stdin.take().unwrap().write_all(TEXTS.as_bytes()).unwrap();
    assert!(first.wait().unwrap().success());
    assert_eq!(fs::read(folder.0.join("out")).unwrap(), answer);
}

#[test]
fn temporary_names_differ_and_long_names_have_room() {
    let folder = Folder::new("files-names");
    for target in ["x".repeat(255), "é".repeat(127), "x".into()] {
        let path = folder.0.join(&target);
        let mut both = [AtomicFile::create(&path).unwrap(), AtomicFile::create(&path).unwrap()];
        let names = files(&folder);
        assert_eq!(names.len(), 2, "{names:?}");
        let [first, second] = both.each_mut().map(|file| file.temporary_path().unwrap().to_owned());
        assert_ne!(first, second);
        both[0].write_all(b"first").unwrap();
        let mut spool = both[0].spool().unwrap();
        spool.write_all(b"waits").unwrap();
        assert_eq!(files(&folder).len(), 2, "a file without a name");
        let [first, second] = both;
        first.finish().unwrap();
        drop(second);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(files(&folder), [target]);
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_model_that_is_read_does_not_depend_on_its_file() {
    let folder = folder("files-read");
    let path = folder.0.join("m");
    let whole = fs::read(&path).unwrap();
    let file = ModelFile::read(&path).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
    assert_eq!(file.model().bytes(), whole);
    assert!(file.model().verify().is_ok());
    let error = ModelFile::read(&path).unwrap_err().to_string();
    assert!(error.contains("cut off"), "{error}");
    fs::write(&path, "").unwrap();
    assert!(ModelFile::read(&path).unwrap_err().to_string().contains("0 bytes"));
    assert!(ModelFile::read(&folder.0).unwrap_err().to_string().contains("not a regular file"));
    assert!(ModelFile::read(folder.0.join("none")).unwrap_err().to_string().contains("no such"));

    fs::write(&path, &whole).unwrap();
    for command in ["inspect", "verify", "embed", "tokenize"] {
        let arguments = [command, "m", "--read"];
        assert_eq!(
            right(&folder, &arguments, TEXTS),
            right(&folder, &arguments[..2], TEXTS),
            "{command}"
        );
    }
    // Cut while texts come in.
    let mut child = command(&folder, &["embed", "m", "--read"]).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    stdin.write_all(b"hello\n").unwrap();
    stdout.read_exact(&mut [0; 10]).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    stdin.write_all(b"hello world\n").unwrap();
    drop(stdin);
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(rest.iter().filter(|byte| **byte == b'\n').count(), 2);
}

#[test]
fn names_cannot_drive_a_terminal() {
    let folder = Folder::new("files-escapes");
    let label = "B-\u{1b}]0;owned\u{7}\u{9b}31m\r\nX\u{202e}\u{7f}é中";
    let escaped = "\\u{1b}]0;owned\\u{7}\\u{9b}31m\\r\\nX\\u{202e}\\u{7f}é中";
    let model = |extras: &mut bertlet_convert::pack::Extras| {
        extras.labels.iter_mut().enumerate().for_each(|(i, name)| *name = format!("{label}{i}"));
        extras.provenance = "{\"a\\u001b\":\"\\u001b[2J\u{9b}\"}".into();
    };
    let paths: Vec<PathBuf> = ["micro-token-classification", "micro-sequence-classification"]
        .map(|name| folder.model_with(name, Weights::F32, model))
        .into();
    let plain = |text: &str| {
        text.chars()
            .all(|c| c == '\n' || !c.is_control() && !('\u{202a}'..='\u{202e}').contains(&c))
    };
    let text = |arguments: &[&str]| {
        let output = run(&folder, arguments, "hello world\u{9b}\n");
        let all = [output.stdout, output.stderr].concat();
        String::from_utf8(all).unwrap()
    };
    for path in &paths {
        let json = text(&["inspect", name(path), "--json"]);
        assert!(plain(&json), "{json:?}");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["labels"][0], format!("{label}0"));
    }
    let json = text(&["ner", name(&paths[0]), "--words", "--json"]);
    assert!(plain(&json) && json.contains("\\u001b]0;owned\\u0007\\u009b31m"), "{json:?}");
    let json = text(&["classify", name(&paths[1]), "--json"]);
    assert!(plain(&json) && json.contains("X\\u202e\\u007fé中"), "{json:?}");

    // Plain text, which is for terminals.
    for (path, command) in [(&paths[0], "ner --words"), (&paths[1], "classify")] {
        for command in ["inspect", command] {
            let line = format!("{} {command} {}", env!("CARGO_BIN_EXE_bertlet"), name(path));
            let mut script = Command::new("script");
            script.args(["-q", "-e", "-c", &format!("printf 'hello\\n' | {line}"), "/dev/null"]);
            // Not everywhere.
            let Ok(output) = script.stdin(Stdio::null()).output() else { return };
            let shown = String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n");
            assert!(plain(&shown), "{shown:?}");
            assert!(shown.contains(escaped), "{shown:?}");
        }
    }

    for arguments in [
        &["embed", "no\u{1b}[2Jthing"][..],
        &["embed", name(&paths[0]), "no\u{9b}thing"],
        &["embed", name(&paths[0]), "-o", "no\u{1b}/thing"],
        &["embed\u{7}", "x"],
    ] {
        let message = text(arguments);
        assert!(plain(&message) && message.contains("\\u{"), "{message:?}");
    }
}
