//! The `bertlet-convert` command.

mod args;
mod demo;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use bertlet::{AtomicFile, Printable};
use bertlet_convert::error::{Error, Result};
use bertlet_convert::evaluate::{self, Task};
use bertlet_convert::html;
use bertlet_convert::pipeline::{STDOUT, Stage, check_output, write_output};
use bertlet_convert::probe;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use indicatif::{ProgressBar, ProgressStyle};

use args::{Cli, Command, TaskArg};

fn main() -> ExitCode {
    AtomicFile::remove_on_signals();
    let cli = Cli::parse();
    let done = match &cli.command {
        None => convert_command(&cli.convert),
        Some(Command::Demo) => demo::run(),
        Some(Command::Evaluate(args)) => evaluate_command(args),
        Some(Command::Probe(args)) => probe_command(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bertlet-convert: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes to standard output. A closed pipe is not an error: the reader has seen enough.
pub fn answer(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::new("standard output", "", format!("cannot be written: {e}")))
        }
        _ => Ok(()),
    }
}

fn convert_command(args: &args::Convert) -> Result<()> {
    let started = Instant::now();
    let source = args.source.as_deref().expect("clap requires it");
    let output = args.output.clone().unwrap_or_else(|| default_output(source));
    let report = args.report.as_deref();
    check_targets(&output, report, args.json);
    if let Some(page) = report {
        check_output(page, source, &args.options())?;
    }
    let mut bar = Bar::default();
    let report =
        bertlet_convert::convert(source, &output, &args.options(), &mut |step, done, total| {
            bar.show(step, done, total);
        });
    bar.clear();
    let report = report?;
    eprint!("{}", report.text());
    eprintln!("  {:.1} s", started.elapsed().as_secs_f64());
    if let Some(page) = &args.report {
        write_output(page, html::page(&report).as_bytes())?;
    }
    if args.json {
        answer_json(serde_json::to_string_pretty(&report))?;
    }
    Ok(())
}

/// Ends with wrong usage where two outputs would go to one place.
fn check_targets(output: &Path, report: Option<&Path>, json: bool) {
    let stdout = |path: &Path| {
        path == Path::new(STDOUT)
            || ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"]
                .iter()
                .any(|name| path == Path::new(name))
            || AtomicFile::would_replace(path, "/dev/stdout".as_ref())
    };
    let place = |path: &Path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(".".as_ref()).canonicalize().ok()?;
        Some(folder.join(path.file_name()?))
    };
    let both = report.filter(|report| {
        stdout(output) && stdout(report)
            || AtomicFile::would_replace(output, report)
            || place(output).is_some_and(|output| place(report) == Some(output))
                && !is_shared(output)
    });
    let problem = match both {
        Some(report) => format!("-o and --report both write to {}", Printable(report.display())),
        None if json && stdout(output) => "-o and --json both write to stdout".into(),
        None if json && report.is_some_and(stdout) => {
            "--report and --json both write to stdout".into()
        }
        None => return,
    };
    Cli::command().error(ErrorKind::ArgumentConflict, problem).exit();
}

/// Whether a path is there and no regular file, so that several may write to it.
fn is_shared(path: &Path) -> bool {
    path.metadata().is_ok_and(|about| !about.is_file())
}

/// Writes JSON to standard output.
fn answer_json(json: serde_json::Result<String>) -> Result<()> {
    answer(&(Printable(json.expect("answers are JSON").as_str()).json() + "\n"))
}

/// `NAME.bertlet` in the current folder, for a source `NAME`, `NAME.safetensors` and so on.
fn default_output(source: &Path) -> PathBuf {
    // Resolves `.` and `..` to the names of the folders.
    let named = source.canonicalize().unwrap_or_else(|_| source.to_owned());
    let name = if named.is_dir() { named.file_name() } else { named.file_stem() };
    let mut name = name.unwrap_or("model".as_ref()).to_owned();
    name.push(".bertlet");
    name.into()
}

fn evaluate_command(args: &args::Evaluate) -> Result<()> {
    let task = match args.task {
        TaskArg::Ner => Task::Ner,
        TaskArg::Classify => Task::Classify,
    };
    let scores = evaluate::evaluate(&args.model, task, &args.data, args.reference.as_deref())?;
    match args.json {
        true => answer_json(serde_json::to_string(&scores)),
        false => answer(&scores.text()),
    }
}

fn probe_command(args: &args::Probe) -> Result<()> {
    let options = probe::ProbeOptions { epochs: args.epochs as usize, seeds: args.seeds as usize };
    let mut bar = Bar::default();
    let table =
        probe::probe(&args.model, &args.train, &args.dev, &options, &mut |name, done, total| {
            bar.show_named(name, done, total);
        });
    bar.clear();
    let table = table?;
    match args.json {
        true => answer_json(serde_json::to_string(&table)),
        false => answer(&table.text()),
    }
}

/// One progress bar per stage, on stderr, and only on a terminal.
#[derive(Default)]
pub struct Bar(Option<(&'static str, ProgressBar)>);

impl Bar {
    /// Shows the progress of a stage of a conversion.
    pub fn show(&mut self, stage: Stage, done: usize, total: usize) {
        let name = match stage {
            Stage::Read => "reading",
            Stage::Quantize => "quantising",
            Stage::Search => "choosing f16 layers",
            Stage::Measure => "measuring",
        };
        self.show_named(name, done, total);
    }

    /// Shows the progress of anything.
    pub fn show_named(&mut self, name: &'static str, done: usize, total: usize) {
        if self.0.as_ref().is_none_or(|(shown, _)| *shown != name) {
            self.clear();
            let bar = ProgressBar::new(total as u64);
            let style = ProgressStyle::with_template("{msg:22} {wide_bar} {pos}/{len} {eta:>4}");
            bar.set_style(style.expect("a valid template"));
            bar.set_message(name);
            self.0 = Some((name, bar));
        }
        if let Some((_, bar)) = &self.0 {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            bar.tick();
        }
    }

    /// Removes the bar.
    pub fn clear(&mut self) {
        if let Some((_, bar)) = self.0.take() {
            bar.finish_and_clear();
        }
    }
}
