//! The `bertlet` command: runs model files on the device. Each command is a file; what they share:
//! `options.rs` (arguments), `samples.rs` (texts and ids in), `output.rs` (answers out),
//! `heads.rs` (heads that are missing), `failure.rs` (messages and exit status).

mod failure;
mod heads;
mod json;
mod lines;
mod options;
mod output;
mod samples;

mod answer;
mod attention;
mod bench;
mod classify;
mod embed;
mod export;
mod fill_mask;
mod inspect;
mod ner;
mod next_sentence;
mod tokenize;
mod verify;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use failure::Failure;

/// A command: its name after `bertlet`, and what it does.
struct Command {
    name: &'static str,
    /// One line for `bertlet --help`.
    about: &'static str,
    /// What `--help` shows: usage, options, an example.
    help: &'static [&'static str],
    run: fn(lexopt::Parser) -> Result<(), Failure>,
}

const COMMANDS: &[Command] = &[
    inspect::COMMAND,
    verify::COMMAND,
    embed::COMMAND,
    classify::COMMAND,
    ner::COMMAND,
    fill_mask::COMMAND,
    next_sentence::COMMAND,
    answer::COMMAND,
    tokenize::COMMAND,
    attention::COMMAND,
    bench::COMMAND,
];

fn main() -> ExitCode {
    bertlet::AtomicFile::remove_on_signals();
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_else(|| OsString::from("bertlet"));
    let Some(first) = arguments.next() else {
        return finish(Err(Failure::usage("no command given; see bertlet --help")), overview);
    };
    let name = first.to_string_lossy().into_owned();
    let answer = match name.as_str() {
        "--help" | "-h" | "help" => Err(Failure::Help),
        "--version" | "-V" => failure::print(concat!("bertlet ", env!("CARGO_PKG_VERSION"), "\n")),
        _ => match COMMANDS.iter().find(|command| command.name == name) {
            Some(command) => {
                let parser = lexopt::Parser::from_iter(std::iter::once(program).chain(arguments));
                let answer = (command.run)(parser).map_err(|failure| suggest(command, failure));
                return finish(answer, || {
                    format!("{}\n\n{}", command.about, command.help.concat())
                });
            }
            None => Err(unknown_command(&name)),
        },
    };
    finish(answer, overview)
}

fn unknown_command(name: &str) -> Failure {
    let meant = match failure::nearest(name, COMMANDS.iter().map(|command| command.name)) {
        Some(meant) => format!(" did you mean {meant}?"),
        None if Path::new(name).is_file() => " the command comes before the model;".into(),
        None => String::new(),
    };
    Failure::usage(format!("no command {name:?};{meant} see bertlet --help"))
}

/// Says which option was probably meant by one that the command does not have.
fn suggest(command: &Command, failure: Failure) -> Failure {
    let Failure::UnknownOption(name) = &failure else { return failure };
    if let Some(meant) = failure::nearest(name, options(command)) {
        return Failure::usage(format!(
            "unknown option {name}; did you mean {meant}? --help lists the options"
        ));
    }
    match COMMANDS.iter().find(|other| options(other).any(|option| option == name)) {
        Some(other) => Failure::usage(format!(
            "unknown option {name}: bertlet {} has it, {} has not; --help lists the options",
            other.name, command.name
        )),
        None => failure,
    }
}

/// The options of a command, from its help.
fn options(command: &Command) -> impl Iterator<Item = &'static str> {
    let words = command
        .help
        .iter()
        .flat_map(|part| part.split(|c: char| c != '-' && !c.is_ascii_lowercase()));
    words.filter(|word| word.starts_with("--") && word.len() > 2)
}

/// What `bertlet --help` shows.
fn overview() -> String {
    let mut text = String::from(
        "Runs BERT model files made by bertlet-convert.\n\nUsage: bertlet COMMAND MODEL ...\n\n",
    );
    for command in COMMANDS {
        text.push_str(&format!("  {:<14}{}\n", command.name, command.about));
    }
    text.push_str(
        "\n`bertlet COMMAND --help` says more.\n\nExample:\n  bertlet embed model.bertlet --text \"A quiet house.\"\n",
    );
    text
}

/// Turns an answer into an exit status, and says what went wrong.
fn finish(answer: Result<(), Failure>, help: impl Fn() -> String) -> ExitCode {
    let failure = match answer {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Help) => match failure::print(&help()) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(failure) => failure,
        },
        Err(failure) => failure,
    };
    if let Some(message) = failure.message() {
        // If stderr is closed, the status still says it.
        let _ = writeln!(std::io::stderr(), "bertlet: {message}");
    }
    ExitCode::from(failure.status())
}
