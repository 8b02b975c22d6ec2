//! What the converter writes to, and what it leaves where it fails or is ended.
#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// A folder with a checkpoint in `src`.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/micro");
    fs::create_dir(folder.path().join("src")).unwrap();
    for entry in fs::read_dir(fixture).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join("src").join(entry.file_name())).unwrap();
    }
    folder
}

fn command(folder: &TempDir, arguments: &[&str]) -> Command {
    // A job in the background of a script ignores SIGINT, and its children inherit that.
    let mut command = Command::new("env");
    command.args(["--default-signal=INT,TERM,HUP", env!("CARGO_BIN_EXE_bertlet-convert")]);
    command.args(arguments).current_dir(folder.path());
    command
}

fn run(folder: &TempDir, arguments: &[&str]) -> Output {
    command(folder, arguments).output().unwrap()
}

fn right(folder: &TempDir, arguments: &[&str]) -> Vec<u8> {
    let output = run(folder, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn wrong(output: Output) -> String {
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    message
}

fn shell(folder: &TempDir, script: &str) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_bertlet-convert")]);
    shell.current_dir(folder.path()).output().unwrap()
}

/// Names and contents of all files of a folder and of its folders, in order.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(contents(&path)),
            false => all.push((path.display().to_string(), fs::read(path).unwrap())),
        }
    }
    all.sort();
    all
}

fn names(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_source_is_never_a_target() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("texts"), "hello\nworld\n").unwrap();
    fs::hard_link(at("src/model.safetensors"), at("hard.bertlet")).unwrap();
    symlink("src/model.safetensors", at("soft.bertlet")).unwrap();
    symlink("src", at("there")).unwrap();
    // As the Hub's cache has it: the checkpoint's files are links.
    fs::create_dir(at("snapshot")).unwrap();
    for entry in fs::read_dir(at("src")).unwrap() {
        let name = entry.unwrap().file_name();
        symlink(Path::new("../src").join(&name), at("snapshot").join(name)).unwrap();
    }
    let before = contents(folder.path());
    let absolute = at("src/model.safetensors");
    for source in ["src", "there", "./src/model.safetensors", "snapshot"] {
        for out in [
            "src/model.safetensors",
            "./src/../src/model.safetensors",
            "there/model.safetensors",
            absolute.to_str().unwrap(),
            "hard.bertlet",
            "soft.bertlet",
            "src/config.json",
            "src/vocab.txt",
            "src/tokenizer.json",
        ] {
            for option in ["-o", "--report"] {
                let message = wrong(run(&folder, &[source, "--weights", "f32", option, out]));
                assert!(message.contains(&format!("{out}: would replace ")), "{message}");
            }
        }
    }
    for option in ["-o", "--report"] {
        let arguments = ["src", "--calibration", "texts", option, "./texts"];
        assert!(wrong(run(&folder, &arguments)).contains("texts: would replace texts"));
    }
    assert_eq!(contents(folder.path()), before);

    // A model in the checkpoint's folder is not a source.
    fs::write(at("src/model.bertlet"), "bertlet\0 of another version").unwrap();
    right(&folder, &["src", "--weights", "f32", "-o", "src/model.bertlet"]);
}

#[test]
fn links_pipes_devices_and_stdout_are_written_through() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let convert = |more: &[&str]| right(&folder, &[&["src", "--weights", "f32"], more].concat());
    symlink("one", at("two")).unwrap();
    symlink("new", at("one")).unwrap();
    fs::write(at("old"), "old").unwrap();
    symlink("old", at("page")).unwrap();
    assert!(convert(&["-o", "two", "--report", "page"]).is_empty());
    for (link, target) in [("two", "one"), ("one", "new"), ("page", "old")] {
        assert_eq!(fs::read_link(at(link)).unwrap(), Path::new(target));
    }
    let expected = fs::read(at("new")).unwrap();
    assert!(expected.starts_with(b"bertlet\0"));
    assert!(fs::read(at("old")).unwrap().starts_with(b"<!doctype html>"));

    assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    let pipe = at("pipe");
    let reader = std::thread::spawn(move || fs::read(pipe).unwrap());
    let page = convert(&["-o", "pipe", "--report", "-"]);
    assert!(page.starts_with(b"<!doctype html>"));
    assert_eq!(reader.join().unwrap(), expected);
    assert!(fs::metadata(at("pipe")).unwrap().file_type().is_fifo());

    assert_eq!(convert(&["-o", "-", "--report", "/dev/null"]), expected);
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    fs::write(at("shell"), "before").unwrap();
    assert!(shell(&folder, "$0 src --weights f32 -o /dev/stdout >> shell").status.success());
    assert_eq!(fs::read(at("shell")).unwrap(), [b"before", &expected[..]].concat());

    // One place for two outputs.
    for more in [
        &["-o", "-", "--json"][..],
        &["-o", "/dev/stdout", "--report", "-"],
        &["-o", "y", "--report", "-", "--json"],
        &["-o", "y", "--report", "./y"],
        &["-o", "y", "--report", "src/../y"],
        &["-o", "two", "--report", "new"],
    ] {
        let output = run(&folder, &[&["src", "--weights", "f32"], more].concat());
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{more:?}: {message}");
        assert!(message.contains("both write to") && output.stdout.is_empty(), "{message}");
    }
    assert!(!at("y").exists());
    assert!(names(&folder).iter().all(|name| !name.contains("tmp")));
}

#[test]
fn outputs_that_cannot_be_written_are_refused_before_the_work() {
    let folder = folder();
    for option in ["-o", "--report"] {
        for out in ["no/where", "src", "src/", "new/"] {
            // The work would fail as well, and later.
            let message = wrong(run(&folder, &["no-source", option, out]));
            let shown = if out == "no/where" { "no" } else { out };
            assert!(message.starts_with(&format!("bertlet-convert: {shown}: ")), "{message}");
        }
    }
    assert_eq!(names(&folder), ["src"]);
}

#[test]
fn a_failed_write_names_the_file_and_keeps_the_old_one() {
    let folder = folder();
    fs::write(folder.path().join("kept"), "as it was").unwrap();
    let message = wrong(shell(&folder, "ulimit -f 8; exec $0 src --weights f32 -o kept"));
    assert!(message.starts_with("bertlet-convert: kept: cannot be written: "), "{message}");
    let output = run(&folder, &["src", "--weights", "f32", "-o", "m", "--report", "/dev/full"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/dev/full: cannot be written: "));
    assert_eq!(fs::read_to_string(folder.path().join("kept")).unwrap(), "as it was");
    assert_eq!(names(&folder), ["kept", "m", "src"]);
}

#[test]
fn a_replaced_file_keeps_its_mode() {
    let folder = folder();
    let out = folder.path().join("out");
    fs::write(&out, "old").unwrap();
    fs::set_permissions(&out, PermissionsExt::from_mode(0o606)).unwrap();
    assert!(shell(&folder, "umask 077; $0 src --weights f32 -o out").status.success());
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o606);
}

#[test]
fn signals_leave_nothing_and_what_a_killed_process_left_is_swept() {
    let folder = folder();
    let out = folder.path().join("out");
    let arguments = ["src", "--weights", "f32", "-o", "out"];
    for (signal, number) in [("-INT", 2), ("-TERM", 15), ("-KILL", 9)] {
        fs::write(&out, "as it was").unwrap();
        let mut command = command(&folder, &arguments);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Long enough to be past the check of the path, which creates a file for a moment.
        std::thread::sleep(Duration::from_millis(200));
        while child.try_wait().unwrap().is_none()
            && !names(&folder).iter().any(|name| name.ends_with(".bertlet-tmp"))
        {
            std::thread::sleep(Duration::from_micros(100));
        }
        let _ = Command::new("kill").args([signal, &child.id().to_string()]).output();
        let status = child.wait().unwrap();
        assert!(status.success() || status.signal() == Some(number), "{status}");
        let found = fs::read(&out).unwrap();
        assert!(found == b"as it was" || found.starts_with(b"bertlet\0"));
        if signal != "-KILL" {
            assert_eq!(names(&folder), ["out", "src"], "{signal}");
        }
    }
    // The check of the next run sweeps, whatever comes of the run.
    wrong(run(&folder, &["src/none", "-o", "out"]));
    assert_eq!(names(&folder), ["out", "src"]);
}

#[test]
fn names_of_a_checkpoint_cannot_drive_a_terminal() {
    let folder = folder();
    let index = folder.path().join("src/model.safetensors.index.json");
    fs::remove_file(folder.path().join("src/model.safetensors")).unwrap();
    fs::write(&index, "{\"weight_map\":{\"a\":\"no\\u001b]0;x\\u0007\\u009b\\n\\u202eshard\"}}")
        .unwrap();
    let message = wrong(run(&folder, &["src"]));
    assert!(message.contains("no\\u{1b}]0;x\\u{7}\\u{9b}\\n\\u{202e}shard: "), "{message:?}");
    assert!(message.trim_end().chars().all(|c| !c.is_control()), "{message:?}");
}
