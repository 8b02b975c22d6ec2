//! From a checkpoint to a model file that has been measured.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bertlet::format::Encoding;
use bertlet::format::writer::Writer;
use bertlet::selftest::{self, SelfTest};
use bertlet::tokenizer::Tokenizer;
use bertlet::{Model, ModelFile, Pooling, SectionKind, Session};
use sha2::{Digest, Sha256};

use crate::bert::Bert;
use crate::error::{Error, Result};
use crate::measure::{Image, Quality, Yardstick};
use crate::names::{self, Fate, TensorReport};
use crate::pack::{self, Extras};
use crate::quantize::report::{keep_for_cosine, keep_full};
use crate::quantize::{self, QuantizedBert, text};
use crate::reference::{Sequence, Site};
use crate::report::{
    Calibration, Choices, Dropped, Errors, Parameters, Report, Shape, SourceFile, Summary, Tensor,
    Totals, Written,
};
use crate::source::{self, Source};
use crate::tokenizer;

/// How matrices are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// Eight bits, rotated and calibrated; the attention is computed in integers.
    #[default]
    Int8,
    /// Half precision.
    F16,
    /// Single precision.
    F32,
}

impl Weights {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::F16 => "f16",
            Self::F32 => "f32",
        }
    }
}

/// What can be chosen.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How matrices are stored.
    pub weights: Weights,
    /// A text to calibrate on, one a line, in place of the built-in one.
    pub calibration: Option<PathBuf>,
    /// Keep linear layers in f16 until the mean pooled cosine on held-out text is at least this.
    pub min_cosine: Option<f64>,
    /// Names of the classifier's outputs, in place of the checkpoint's.
    pub labels: Option<Vec<String>>,
    /// Default pooling, in place of the checkpoint's.
    pub pooling: Option<Pooling>,
    /// Divide pooled vectors by their length by default, whatever the checkpoint says.
    pub normalize: bool,
    /// Drop tensors of unknown names.
    pub allow_unknown: bool,
    /// Threads; 0 for as many as the machine has. The result does not depend on it.
    pub threads: usize,
}

/// The long parts of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Reading the checkpoint.
    Read,
    /// Quantising linear layers.
    Quantize,
    /// Looking for the layers to keep in f16.
    Search,
    /// Measuring what was written.
    Measure,
}

/// Hears which step is at which of how many parts.
pub type Progress<'p> = &'p mut (dyn FnMut(Step, usize, usize) + Send);

/// Converts the checkpoint at `source` into the file `out`.
///
/// The file appears at once, whole and verified: it is written beside `out`, mapped, checked against
/// its checksums and self-test vectors, then renamed. After an error there is none.
///
/// # Errors
/// What is wrong with the checkpoint, the options, or the file system.
pub fn convert(
    source: &Path,
    out: &Path,
    options: &Options,
    progress: Progress<'_>,
) -> Result<Report> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build()
        .map_err(|e| Error::new("--threads", "", e))?;
    pool.install(|| run(source, out, options, progress))
}

fn run(path: &Path, out: &Path, options: &Options, progress: Progress<'_>) -> Result<Report> {
    let folder = beside(out)?;
    progress(Step::Read, 0, 2);
    let source = source::open(path, source::Options { allow_missing_vocabulary: true })?;
    let (bert, tensors) = names::load(&source, options.allow_unknown)?;
    check_limits(&source, &bert)?;
    progress(Step::Read, 1, 2);
    let section = tokenizer::section(&source)?;
    progress(Step::Read, 2, 2);

    let mut notes = source.notes.clone();
    let extras = extras(&source, &bert, section.as_ref(), options)?;
    match &section {
        Some(section) => notes.extend(section.notes.iter().cloned()),
        None => notes.push("no vocabulary: the model takes token ids, but no text".into()),
    }
    let texts = Texts::new(&source, &bert, &extras.tokenizer)?;
    let measuring = |e| Error::new(&source.weights, "", format!("the written model fails: {e}"));

    progress(Step::Measure, 0, 2);
    let yardstick = Yardstick::new(&bert, texts.held_out()?);
    progress(Step::Measure, 1, 2);
    let mut calibration = None;
    let mut kept = BTreeSet::new();
    let mut writer = match options.weights {
        Weights::F32 => pack::float(&bert, Encoding::F32, &extras),
        Weights::F16 => pack::float(&bert, Encoding::F16, &extras),
        Weights::Int8 => {
            let (batch, about) = texts.calibration(options.calibration.as_deref())?;
            calibration = Some(about);
            let mut quantized =
                quantize::quantize(&bert, &batch, &quantize::Options::default(), &mut |i, n| {
                    progress(Step::Quantize, i, n);
                });
            if let Some(wanted) = options.min_cosine {
                kept = search(&bert, &quantized, &yardstick, &extras, wanted, progress)
                    .map_err(measuring)?
                    .map_err(|best| unreachable_cosine(wanted, best))?;
                kept.iter().for_each(|&(layer, site)| {
                    keep_full(&bert, &mut quantized, layer, site);
                });
            }
            pack::int8(&quantized, &extras)
        }
    };

    let (quality, self_test) =
        measure(&writer, &yardstick, &texts.self_test()?).map_err(measuring)?;
    progress(Step::Measure, 2, 2);
    if let Some(wanted) = options.min_cosine
        && quality.states.pooled_cosine < wanted
    {
        return Err(unreachable_cosine(wanted, quality.states.pooled_cosine));
    }
    let summary = Summary {
        tool: concat!("bertlet-convert ", env!("CARGO_PKG_VERSION")).into(),
        source_format: format!("{:?}", source.format),
        source_files: source_files(path, &source),
        architecture: source.config.architecture.clone(),
        model: shape(&source),
        options: Choices {
            weights: options.weights.name(),
            calibration,
            min_cosine: options.min_cosine,
            kept_in_f16: kept.iter().map(|(layer, site)| site_name(*layer, *site)).collect(),
            pooling: extras.pooling.name(),
            normalize: extras.normalize,
            labels: extras.labels.clone(),
        },
        parameters: Parameters::of(&bert),
        tensors: totals(&tensors),
        dropped: dropped(&tensors),
        notes,
        error: Errors::new(quality, yardstick.batch().len()),
    };
    let provenance = serde_json::to_vec(&summary)
        .map_err(|e| Error::new(out, "provenance", format!("cannot be written: {e}")))?;
    writer.bytes(SectionKind::Provenance, provenance);
    writer.bytes(SectionKind::SelfTest, self_test);
    let (self_test_values, bytes_by_encoding) = save(&writer, &folder, out)?;
    let source_bytes = summary
        .source_files
        .iter()
        .filter(|f| !f.name.ends_with(".json") && !f.name.ends_with(".txt"))
        .map(|f| f.bytes)
        .sum();
    Ok(Report {
        file: Written {
            name: file_name(out),
            bytes: writer.file_length(),
            source_bytes,
            bytes_by_encoding,
            self_test_values,
        },
        summary,
        tensors: tensors.into_iter().map(Tensor::from).collect(),
    })
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// The folder that `out` shall stand in.
fn beside(out: &Path) -> Result<PathBuf> {
    if out.is_dir() {
        return Err(Error::new(out, "", "is a folder").mend("name the file to write"));
    }
    let folder = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    match folder.is_dir() {
        true => Ok(folder),
        false => Err(Error::new(&folder, "", "is no folder").mend("make it first")),
    }
}

/// What the file format and the runtime take at most.
fn check_limits(source: &Source, bert: &Bert) -> Result<()> {
    let c = &bert.config;
    let padded_heads =
        c.num_attention_heads * bertlet::format::round16(c.hidden_size / c.num_attention_heads);
    for (field, value, most) in [
        ("hidden_size", c.hidden_size, 1 << 16),
        ("intermediate_size", c.intermediate_size, 1 << 16),
        ("num_attention_heads", padded_heads, 1 << 16),
        ("type_vocab_size", c.type_vocab_size, 1 << 8),
    ] {
        if value > most {
            let problem = format!("{value} is more than the {most} that a model file holds");
            return Err(Error::new(&source.config.file, field, problem));
        }
    }
    // [CLS] and [SEP] must fit.
    if c.max_position_embeddings < 2 {
        let problem = format!("{} is too short for any text", c.max_position_embeddings);
        return Err(Error::new(&source.config.file, "max_position_embeddings", problem));
    }
    Ok(())
}

fn extras(
    source: &Source,
    bert: &Bert,
    section: Option<&tokenizer::Section>,
    options: &Options,
) -> Result<Extras> {
    let heads = &bert.heads;
    let classifier = heads
        .token_classifier
        .as_ref()
        .or(heads.sequence_classifier.as_ref().map(|(head, _)| head));
    let outputs = classifier.map_or(0, |head| head.bias.len());
    let labels = match &options.labels {
        None => source.config.labels(outputs),
        Some(labels) if labels.len() == outputs => labels.clone(),
        Some(labels) => {
            let problem = format!(
                "{} names for the {outputs} outputs of the checkpoint's classifier",
                labels.len()
            );
            return Err(Error::new(&source.weights, "--labels", problem).mend("give one name each"));
        }
    };
    let stated = source.pooling.map_or(Pooling::None, |pooling| match pooling {
        source::Pooling::Cls => Pooling::Cls,
        source::Pooling::Mean => Pooling::Mean,
        source::Pooling::Max => Pooling::Max,
        source::Pooling::MeanSqrtLen => Pooling::MeanSqrt,
    });
    let pooling = options.pooling.unwrap_or(stated);
    if pooling == Pooling::Pooler && bert.pooler.is_none() {
        return Err(Error::new(&source.weights, "--pooling", "the checkpoint has no pooler")
            .mend("choose another pooling"));
    }
    Ok(Extras {
        pooling,
        normalize: options.normalize || source.normalize,
        labels,
        tokenizer: section.map(|section| section.bytes.clone()).unwrap_or_default(),
        ..Extras::default()
    })
}

/// Inputs for the model at hand: texts, or random ids where it has no vocabulary.
struct Texts<'a> {
    source: &'a Source,
    tokenizer: Option<Tokenizer<'a>>,
    vocab: usize,
    positions: usize,
    token_types: usize,
}

impl<'a> Texts<'a> {
    fn new(source: &'a Source, bert: &Bert, section: &'a [u8]) -> Result<Self> {
        let tokenizer = match section {
            [] => None,
            section => Some(Tokenizer::from_bytes(section).map_err(|e| {
                Error::new(&source.folder, "tokenizer", format!("cannot be read back: {e}"))
            })?),
        };
        let c = &bert.config;
        let (vocab, positions, token_types) =
            (c.vocab_size, c.max_position_embeddings, c.type_vocab_size);
        Ok(Self { source, tokenizer, vocab, positions, token_types })
    }

    /// Models with a single token type have no second text.
    fn clamp(&self, mut batch: Vec<Sequence>) -> Vec<Sequence> {
        let last = self.token_types as u32 - 1;
        batch.iter_mut().flat_map(|s| &mut s.types).for_each(|kind| *kind = (*kind).min(last));
        batch
    }

    fn failed(&self, e: impl std::fmt::Display) -> Error {
        Error::new(&self.source.config.file, "max_position_embeddings", e)
    }

    fn lines(&self, lines: &str, length: usize) -> Result<Vec<Sequence>> {
        let length = length.min(self.positions);
        let batch = match &self.tokenizer {
            Some(tokenizer) => {
                text::sequences(tokenizer, lines, length).map_err(|e| self.failed(e))?
            }
            None => random(lines.lines().map(|line| 2 + line.len() / 5), length, self.vocab),
        };
        Ok(self.clamp(batch))
    }

    /// What errors are measured on.
    fn held_out(&self) -> Result<Vec<Sequence>> {
        self.lines(text::HELD_OUT, self.positions)
    }

    /// A single text, a pair, and one of several blocks of tokens.
    fn self_test(&self) -> Result<Vec<Sequence>> {
        let lines: Vec<&str> = text::HELD_OUT.lines().collect();
        let pair = format!("{}\t{}", lines[0], lines[1]);
        self.lines(&format!("{}\n{pair}\n{}", lines[3], lines.join(" ")), 40)
    }

    fn calibration(&self, file: Option<&Path>) -> Result<(Vec<Sequence>, Calibration)> {
        let user = file.map(read_calibration).transpose()?;
        let (name, lines, sha256) = match &user {
            Some((name, lines, sha256)) => (name.as_str(), lines.as_str(), Some(sha256.clone())),
            None => ("built-in", text::CALIBRATION, None),
        };
        let (name, batch) = match &self.tokenizer {
            Some(tokenizer) => {
                let batch = text::calibration(tokenizer, lines, self.positions, &text::JOINED)
                    .map_err(|e| self.failed(e))?;
                (name, batch)
            }
            None => {
                let lengths = lines.lines().map(|line| 2 + line.len() / 5).chain(text::JOINED);
                ("random ids", random(lengths, self.positions, self.vocab))
            }
        };
        let about = Calibration {
            text: name.to_owned(),
            sha256,
            sequences: batch.len(),
            tokens: batch.iter().map(|sequence| sequence.ids.len()).sum(),
        };
        Ok((self.clamp(batch), about))
    }
}

/// Name, text and hash of a calibration file.
fn read_calibration(path: &Path) -> Result<(String, String, String)> {
    let failed = |e: &dyn std::fmt::Display| {
        Error::new(path, "", format!("cannot be read: {e}")).mend("give a UTF-8 text, one a line")
    };
    let bytes = std::fs::read(path).map_err(|e| failed(&e))?;
    let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let lines = String::from_utf8(bytes).map_err(|e| failed(&e))?;
    if lines.lines().all(|line| line.trim().is_empty()) {
        return Err(Error::new(path, "", "has no text").mend("give one text a line"));
    }
    Ok((file_name(path), lines, sha256))
}

/// Inputs of these lengths (`most` at most) for a model whose vocabulary nobody knows; always the same ones.
fn random(lengths: impl Iterator<Item = usize>, most: usize, vocab: usize) -> Vec<Sequence> {
    let mut state = 1u64;
    let mut id = || {
        // Knuth's MMIX generator; the high bits are the random ones.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % vocab as u64) as u32
    };
    lengths.map(|n| Sequence::single((0..n.min(most)).map(|_| id()).collect())).collect()
}

/// Which linear layers to keep in f16, judged by the runtime.
fn search(
    bert: &Bert,
    quantized: &QuantizedBert,
    yardstick: &Yardstick,
    extras: &Extras,
    wanted: f64,
    progress: Progress<'_>,
) -> std::result::Result<std::result::Result<BTreeSet<(usize, Site)>, f64>, Broken> {
    let mut measure = |model: &QuantizedBert| {
        let image = Image::new(&pack::int8(model, extras));
        let quality = yardstick.compare(Model::from_bytes(&image)?)?;
        Ok(quality.states.pooled_cosine)
    };
    keep_for_cosine(bert, quantized, wanted, &mut measure, &mut |i, n| {
        progress(Step::Search, i, n);
    })
}

fn unreachable_cosine(wanted: f64, best: f64) -> Error {
    Error::new("--min-cosine", "", format!("{wanted} is not reached: the best is {best:.7}"))
        .mend("ask for less, or write f16 or f32")
}

/// A file that we wrote and cannot use: no fault of the user's.
type Broken = Box<dyn std::error::Error + Send + Sync>;

/// Errors of what `writer` holds, and its self-test vectors.
fn measure(
    writer: &Writer,
    yardstick: &Yardstick,
    self_test: &[Sequence],
) -> std::result::Result<(Quality, Vec<u8>), Broken> {
    let image = Image::new(writer);
    let model = Model::from_bytes(&image)?;
    let quality = yardstick.compare(model)?;
    let types: Vec<Vec<u8>> =
        self_test.iter().map(|s| s.types.iter().map(|&kind| kind as u8).collect()).collect();
    let inputs: Vec<_> = self_test
        .iter()
        .zip(&types)
        .map(|(s, types)| (s.ids.as_slice(), types.as_slice()))
        .collect();
    let tokens = inputs.iter().map(|(ids, _)| ids.len()).max().unwrap_or(1);
    let mut session = Session::new(model);
    Ok((quality, selftest::write(&mut session.encoder(tokens)?, &inputs)?))
}

/// Writes, maps, verifies, renames. Gives the number of values of the self-test, and bytes by encoding.
fn save(
    writer: &Writer,
    folder: &Path,
    out: &Path,
) -> Result<(usize, std::collections::BTreeMap<&'static str, usize>)> {
    let failed = |e: &dyn std::fmt::Display| Error::new(out, "", format!("cannot be written: {e}"));
    // Its own folder, so that whatever happens, whatever is in it goes.
    let room =
        tempfile::Builder::new().prefix(".bertlet-").tempdir_in(folder).map_err(|e| failed(&e))?;
    let file = room.path().join("model");
    writer.save(&file).map_err(|e| failed(&e))?;
    let checked = || -> std::result::Result<_, Broken> {
        let file = ModelFile::open(&file)?;
        let model = file.model();
        model.verify()?;
        let test = SelfTest::of(&model)?;
        let mut values = vec![0.0; test.values()];
        let report = test.run(&mut Session::new(model).encoder(test.tokens())?, &mut values)?;
        Ok((report.values, Written::bytes_by_encoding(&model)))
    };
    let checked = checked().map_err(|e| failed(&e))?;
    std::fs::rename(&file, out).map_err(|e| failed(&e))?;
    Ok(checked)
}

/// Names relative to the checkpoint's folder: the file shall not tell where it was made.
fn source_files(path: &Path, source: &Source) -> Vec<SourceFile> {
    let base = if path.is_dir() { path } else { source.folder.as_path() };
    let name = |path: &Path| match path.strip_prefix(base) {
        Ok(inside) => {
            inside.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
        }
        Err(_) => file_name(path),
    };
    let record = |f: &source::FileRecord| SourceFile {
        name: name(&f.path),
        bytes: f.size,
        sha256: f.sha256_hex(),
    };
    source.files.iter().map(record).collect()
}

fn shape(source: &Source) -> Shape {
    let c = &source.config.bert;
    Shape {
        hidden: c.hidden_size,
        layers: c.num_hidden_layers,
        heads: c.num_attention_heads,
        intermediate: c.intermediate_size,
        vocab: c.vocab_size,
        positions: c.max_position_embeddings,
        token_types: c.type_vocab_size,
        eps: c.layer_norm_eps,
        activation: c.hidden_act.name(),
        vocabulary: source.vocabulary.len(),
        model_max_length: source.tokenizer.as_ref().and_then(|t| t.model_max_length),
    }
}

fn site_name(layer: usize, site: Site) -> String {
    let name = match site {
        Site::Qkv => "query, key and value",
        Site::AttentionOutput => "attention output",
        Site::Intermediate => "intermediate",
        Site::Output => "output",
    };
    format!("layer {} {name}", layer + 1)
}

fn totals(tensors: &[TensorReport]) -> Totals {
    let mapped = tensors.iter().filter(|t| matches!(t.fate, Fate::Mapped(_))).count();
    Totals { read: tensors.len(), mapped, dropped: tensors.len() - mapped }
}

fn dropped(tensors: &[TensorReport]) -> Vec<Dropped> {
    let dropped = |t: &TensorReport| match &t.fate {
        Fate::Dropped(why) => Some(Dropped { name: t.name.clone(), why: why.clone() }),
        Fate::Mapped(_) => None,
    };
    tensors.iter().filter_map(dropped).collect()
}
