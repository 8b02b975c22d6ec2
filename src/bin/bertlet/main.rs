//! The `bertlet` command: runs model files on the device. Each command is a file; what they share:
//! `options.rs` (arguments), `samples.rs` (texts and ids in), `output.rs` (answers out),
//! `failure.rs` (messages and exit status).

mod failure;
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
use std::process::ExitCode;

use failure::Failure;

/// A command: its name after `bertlet`, and what it does.
struct Command {
    name: &'static str,
    /// One line for `bertlet --help`.
    about: &'static str,
    /// What `--help` shows: usage, options, an example.
    help: &'static str,
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
                return finish((command.run)(parser), || {
                    format!("{}\n\n{}", command.about, command.help)
                });
            }
            None => Err(Failure::usage(format!("no command {name:?}; see bertlet --help"))),
        },
    };
    finish(answer, overview)
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
