//! The `bertlet-convert` command.

mod args;
mod demo;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use bertlet_convert::error::{Error, Result};
use bertlet_convert::evaluate::{self, Task};
use bertlet_convert::html;
use bertlet_convert::pipeline::Stage;
use bertlet_convert::probe;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use args::{Cli, Command, TaskArg};

fn main() -> ExitCode {
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
    if let Some(page) = &args.report {
        check_page(page)?;
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
        std::fs::write(page, html::page(&report))
            .map_err(|e| Error::new(page, "", format!("cannot be written: {e}")))?;
    }
    if args.json {
        let json = serde_json::to_string_pretty(&report).expect("a report is JSON");
        answer(&(json + "\n"))?;
    }
    Ok(())
}

/// Refuses a report that could not be written, before the long work.
fn check_page(page: &Path) -> Result<()> {
    let folder = page.parent().filter(|folder| !folder.as_os_str().is_empty());
    if page.is_dir() {
        return Err(Error::new(page, "--report", "is a folder").hint("name the file to write"));
    }
    match folder {
        Some(folder) if !folder.is_dir() => {
            Err(Error::new(folder, "--report", "is not a folder").hint("create it first"))
        }
        _ => Ok(()),
    }
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
        true => answer(&(serde_json::to_string(&scores).expect("scores are JSON") + "\n")),
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
        true => answer(&(serde_json::to_string(&table).expect("a table is JSON") + "\n")),
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
