//! `bertlet-convert demo`: converts and runs the checkpoints that come with the project.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Instant;

use bertlet::tasks::{Aggregation, EntityOptions, Features, TaskError};
use bertlet::{Layers, Model, Pooling, Session};
use bertlet_convert::error::{Error, Result};
use bertlet_convert::report::{ConversionReport, size};
use bertlet_convert::{ConvertOptions, convert_in_memory};

use crate::{Bar, answer};

/// The checkpoints of the repository.
const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models");

const NEWS: [&str; 4] = [
    "Angela Merkel met Emmanuel Macron in Berlin on Tuesday.",
    "Shares of Siemens and Deutsche Bank fell in Frankfurt.",
    "Roger Federer won in Basel, and Juventus beat Real Madrid in Turin.",
    "The United Nations sent observers to Kenya and Sudan.",
];
const REVIEWS: [&str; 4] = [
    "A warm, funny and beautifully acted film.",
    "Two hours of my life that I will never get back.",
    "The plot is thin, but the music carries you away.",
    "Nothing in this mess makes any sense.",
];
const OTHERS: [&str; 3] = [
    "A charming comedy with wonderful actors.",
    "A dull and tedious waste of time.",
    "The train to Vienna leaves at noon.",
];

/// Converts the checkpoints in memory, and runs them.
pub fn run() -> Result<()> {
    let ink = Ink { on: std::io::stdout().is_terminal() };
    let mut images = Vec::new();
    for name in ["tiny-ner", "tiny-sst2"] {
        let mut bar = Bar::default();
        let source = Path::new(MODELS).join(name);
        let started = Instant::now();
        let done =
            convert_in_memory(&source, &ConvertOptions::default(), &mut |step, done, total| {
                bar.show(step, done, total);
            });
        bar.clear();
        let (image, report) = done?;
        answer(&converted(&ink, name, &report, started.elapsed().as_secs_f64()))?;
        images.push(image);
    }
    let model = |i: usize| Model::from_bytes(&images[i]).map_err(|e| Error::new("demo", "", e));
    let show = |shown: std::result::Result<String, TaskError>| match shown {
        Ok(text) => answer(&text),
        Err(e) => Err(Error::new("demo", "", e)),
    };
    show(entities(&ink, model(0)?))?;
    show(sentiment(&ink, model(1)?))?;
    show(similarity(&ink, model(1)?))?;
    answer("\nThe models ran on one core. Their outputs have the same bits on every machine.\n")
}

/// Colours on a terminal.
struct Ink {
    on: bool,
}

impl Ink {
    fn paint(&self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn heading(&self, text: &str) -> String {
        format!("\n{}\n", self.paint("1", text))
    }
}

fn converted(ink: &Ink, name: &str, report: &ConversionReport, seconds: f64) -> String {
    let error = &report.summary.error;
    let last = error.states.last().map_or(0.0, |state| state.relative_rms);
    format!(
        "{}  {} layers, {:.1} million parameters: {} of {} became {} in {:.1} s\n           \
         error of the last hidden state {:.2} %, pooled cosine {:.6}\n",
        ink.paint("1", &format!("{name:9}")),
        report.summary.model.num_hidden_layers,
        report.summary.parameters.total as f64 / 1e6,
        size(report.file.source_bytes),
        report.summary.source_format,
        size(report.file.bytes as u64),
        seconds,
        100.0 * last,
        error.pooled_cosine,
    )
}

fn entities(ink: &Ink, model: Model<'_>) -> std::result::Result<String, TaskError> {
    let mut session = Session::new(model);
    let options = EntityOptions { aggregation: Aggregation::First, ..Default::default() };
    let mut out = ink.heading("Entities");
    for text in NEWS {
        let _ = writeln!(out, "  {text}");
        for entity in session.entities_with(text, &options)?.iter() {
            let (start, end) = (entity.start.byte, entity.end.byte);
            let label = ink.paint(colour(&entity.label), &format!("{:4}", entity.label));
            let words = format!("{:16}", entity.text);
            let place = format!("{start}..{end}");
            let _ = writeln!(out, "    {label}  {words}  {place:>6}  {:.2}", entity.score);
        }
    }
    Ok(out)
}

fn colour(label: &str) -> &'static str {
    match label {
        "PER" => "1;35",
        "LOC" => "1;32",
        "ORG" => "1;34",
        _ => "1;33",
    }
}

fn sentiment(ink: &Ink, model: Model<'_>) -> std::result::Result<String, TaskError> {
    const BAR: usize = 20;
    let mut session = Session::new(model);
    let mut out = ink.heading("Sentiment");
    for text in REVIEWS {
        let found = session.classify(text)?;
        let full = (found.score * BAR as f32).round() as usize;
        let bar = "█".repeat(full) + &"·".repeat(BAR.saturating_sub(full));
        let code = if found.label.eq_ignore_ascii_case("positive") { "32" } else { "31" };
        let bar = ink.paint(code, &bar);
        let _ = writeln!(out, "  {bar}  {:.2} {:8}  {text}", found.score, found.label);
    }
    Ok(out)
}

fn similarity(ink: &Ink, model: Model<'_>) -> std::result::Result<String, TaskError> {
    let mut session = Session::new(model);
    let features = Features { layers: Layers::LAST, pooling: Pooling::Mean, normalize: true };
    let first = session.embed_with(REVIEWS[0], &features)?;
    let mut out = ink.heading("Similarity");
    let _ = writeln!(out, "  {}", REVIEWS[0]);
    for text in OTHERS {
        let other = session.embed_with(text, &features)?;
        let cosine: f32 = first.iter().zip(other.iter()).map(|(a, b)| a * b).sum();
        let _ = writeln!(out, "    {}  {text}", ink.paint("1;36", &format!("{cosine:5.2}")));
    }
    Ok(out)
}
