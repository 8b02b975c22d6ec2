//! The conversion of a checkpoint to a model file: read, quantise, measure, write.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bertlet::format::Encoding;
use bertlet::format::writer::Writer;
use bertlet::selftest::{self, SelfTest};
use bertlet::{Model, ModelFile, Pooling, SectionKind, Session};

use crate::bert::Bert;
use crate::error::{Error, Result};
use crate::load::{self, Fate, TensorReport};
use crate::measure::{Baseline, Image, Quality};
use crate::pack::{self, Extras};
use crate::quantize;
use crate::quantize::{keep_float, keep_for_cosine};
use crate::reference::{LinearKind, Sequence};
use crate::report::{
    ChosenOptions, ConversionReport, DroppedTensor, ErrorSummary, FileSummary, ModelShape,
    Parameters, SourceFile, Summary, TensorCounts, TensorRow,
};
use crate::source::{self, Checkpoint, check_distinct};
use crate::stored::StoredBert;
use crate::texts::{Texts, file_name};
use crate::tokenizer;

/// Type of the stored matrices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightType {
    /// int8, rotated and calibrated. The attention is computed in integers.
    #[default]
    Int8,
    /// IEEE half precision.
    F16,
    /// Single precision.
    F32,
}

impl WeightType {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::F16 => "f16",
            Self::F32 => "f32",
        }
    }
}

/// Options of a conversion.
#[derive(Clone, Debug, Default)]
pub struct ConvertOptions {
    /// Type of the stored matrices.
    pub weights: WeightType,
    /// A file of calibration texts, one per line. `None` for the built-in texts.
    pub calibration: Option<PathBuf>,
    /// Keep linear layers in f16 until the mean pooled cosine on held-out text reaches this value.
    pub min_cosine: Option<f64>,
    /// Labels of the classifier. `None` for the checkpoint's.
    pub labels: Option<Vec<String>>,
    /// Default pooling of the model. `None` for the checkpoint's.
    pub pooling: Option<Pooling>,
    /// L2-normalise pooled vectors by default, even where the checkpoint does not.
    pub normalize: bool,
    /// Drop tensors with unknown names instead of failing.
    pub allow_unknown: bool,
    /// Number of threads, 0 for one per core. The result does not depend on it.
    pub threads: usize,
}

/// The stages of a conversion that take long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading the checkpoint.
    Read,
    /// Quantising linear layers.
    Quantize,
    /// Choosing the layers to keep in f16.
    Search,
    /// Measuring the error of the written model.
    Measure,
}

/// A callback for progress: the stage, parts done, parts in total.
pub type Progress<'p> = &'p mut (dyn FnMut(Stage, usize, usize) + Send);

/// Converts the checkpoint at `source` to the model file `out`.
///
/// The model is written to a temporary folder next to `out`, mapped, checked against its checksums and
/// self-test vectors, and then renamed. So `out` is replaced by a complete, verified file or, after an error,
/// not at all.
///
/// # Errors
/// If the checkpoint or an option is not valid, or a file cannot be read or written.
pub fn convert(
    source: &Path,
    out: &Path,
    options: &ConvertOptions,
    progress: Progress<'_>,
) -> Result<ConversionReport> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build()
        .map_err(|e| Error::new("--threads", "", e))?;
    pool.install(|| run(source, out, options, progress))
}

fn run(
    path: &Path,
    out: &Path,
    options: &ConvertOptions,
    progress: Progress<'_>,
) -> Result<ConversionReport> {
    let folder = beside(out)?;
    progress(Stage::Read, 0, 2);
    let source = source::open(path, source::OpenOptions { allow_missing_vocabulary: true })?;
    let (bert, tensors) = load::bert(&source, options.allow_unknown)?;
    check_limits(&source, &bert)?;
    progress(Stage::Read, 1, 2);
    let section = tokenizer::section(&source)?;
    progress(Stage::Read, 2, 2);

    let mut notes = source.notes.clone();
    let extras = extras(&source, &bert, section.as_ref(), options)?;
    match &section {
        Some(section) => notes.extend(section.notes.iter().cloned()),
        None => notes.push("no vocabulary: the model takes token ids, not text".into()),
    }
    let texts = Texts::new(&source, &bert, &extras.tokenizer)?;
    let measuring =
        |e| Error::new(&source.weights, "", format!("the converted model does not run: {e}"));

    progress(Stage::Measure, 0, 2);
    let baseline = Baseline::new(&bert, texts.held_out()?);
    progress(Stage::Measure, 1, 2);
    let mut calibration = None;
    let mut kept = BTreeSet::new();
    let mut writer = match options.weights {
        WeightType::F32 => pack::float(&bert, Encoding::F32, &extras),
        WeightType::F16 => pack::float(&bert, Encoding::F16, &extras),
        WeightType::Int8 => {
            let (batch, about) = texts.calibration(options.calibration.as_deref())?;
            calibration = Some(about);
            let mut quantized = quantize::quantize(
                &bert,
                &batch,
                &quantize::QuantizeOptions::default(),
                &mut |i, n| {
                    progress(Stage::Quantize, i, n);
                },
            );
            if let Some(wanted) = options.min_cosine {
                kept = search(&bert, &quantized, &baseline, &extras, wanted, progress)
                    .map_err(measuring)?
                    .map_err(|best| unreachable_cosine(wanted, best))?;
                kept.iter().for_each(|&(layer, kind)| {
                    keep_float(&bert, &mut quantized, layer, kind);
                });
            }
            pack::int8(&quantized, &extras)
        }
    };

    let (quality, self_test) =
        measure(&writer, &baseline, &texts.self_test()?).map_err(measuring)?;
    progress(Stage::Measure, 2, 2);
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
        options: ChosenOptions {
            weights: options.weights.name(),
            calibration,
            min_cosine: options.min_cosine,
            kept_in_f16: kept.iter().map(|(layer, kind)| linear_name(*layer, *kind)).collect(),
            pooling: extras.pooling.name(),
            normalize: extras.normalize,
            labels: extras.labels.clone(),
        },
        parameters: Parameters::of(&bert),
        tensors: totals(&tensors),
        dropped: dropped(&tensors),
        notes,
        error: ErrorSummary::new(quality, baseline.batch().len()),
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
    Ok(ConversionReport {
        file: FileSummary {
            name: file_name(out),
            bytes: writer.file_length(),
            source_bytes,
            bytes_by_encoding,
            self_test_values,
        },
        summary,
        tensors: tensors.into_iter().map(TensorRow::from).collect(),
    })
}

/// The folder of `out`.
fn beside(out: &Path) -> Result<PathBuf> {
    if out.is_dir() {
        return Err(Error::new(out, "", "is a folder").hint("name the file to write"));
    }
    let folder = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    match folder.is_dir() {
        true => Ok(folder),
        false => Err(Error::new(&folder, "", "is not a folder").hint("create it first")),
    }
}

/// Checks the limits of the file format and the runtime.
fn check_limits(source: &Checkpoint, bert: &Bert) -> Result<()> {
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
            let problem = format!("{value} is greater than the limit of {most}");
            return Err(Error::new(&source.config.file, field, problem));
        }
    }
    // [CLS] and [SEP] need two positions.
    if c.max_position_embeddings < 2 {
        let problem = format!("{} is too short for any text", c.max_position_embeddings);
        return Err(Error::new(&source.config.file, "max_position_embeddings", problem));
    }
    Ok(())
}

fn extras(
    source: &Checkpoint,
    bert: &Bert,
    section: Option<&tokenizer::TokenizerSection>,
    options: &ConvertOptions,
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
                "{} labels for the {outputs} outputs of the checkpoint's classifier",
                labels.len()
            );
            return Err(
                Error::new(&source.weights, "--labels", problem).hint("give one label per output")
            );
        }
    };
    let (file, field) = match &options.labels {
        None => (&source.config.file, "id2label"),
        Some(_) => (&source.weights, "--labels"),
    };
    check_distinct(file, field, &labels)?;
    let pooling = options.pooling.or(source.pooling).unwrap_or(Pooling::None);
    if pooling == Pooling::Pooler && bert.pooler.is_none() {
        return Err(Error::new(&source.weights, "--pooling", "the checkpoint has no pooler")
            .hint("choose another pooling"));
    }
    Ok(Extras {
        pooling,
        normalize: options.normalize || source.normalize,
        labels,
        tokenizer: section.map(|section| section.bytes.clone()).unwrap_or_default(),
        ..Extras::default()
    })
}

/// Chooses the linear layers to keep in f16, by measurements with the runtime.
fn search(
    bert: &Bert,
    quantized: &StoredBert,
    baseline: &Baseline,
    extras: &Extras,
    wanted: f64,
    progress: Progress<'_>,
) -> std::result::Result<std::result::Result<BTreeSet<(usize, LinearKind)>, f64>, Broken> {
    let mut measure = |model: &StoredBert| {
        let image = Image::new(&pack::int8(model, extras));
        let quality = baseline.compare(Model::from_bytes(&image)?)?;
        Ok(quality.states.pooled_cosine)
    };
    keep_for_cosine(bert, quantized, wanted, &mut measure, &mut |i, n| {
        progress(Stage::Search, i, n);
    })
}

fn unreachable_cosine(wanted: f64, best: f64) -> Error {
    Error::new("--min-cosine", "", format!("{wanted} cannot be reached: the best is {best:.7}"))
        .hint("choose a lower value, or --weights f16 or f32")
}

/// The converter's own file does not work: an internal error, not the user's.
type Broken = Box<dyn std::error::Error + Send + Sync>;

/// Measures the error of the model that `writer` holds, and computes its self-test vectors.
fn measure(
    writer: &Writer,
    baseline: &Baseline,
    self_test: &[Sequence],
) -> std::result::Result<(Quality, Vec<u8>), Broken> {
    let image = Image::new(writer);
    let model = Model::from_bytes(&image)?;
    let quality = baseline.compare(model)?;
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

/// Writes, maps, verifies and renames the file. Returns the number of self-test values, and the bytes by
/// encoding.
fn save(
    writer: &Writer,
    folder: &Path,
    out: &Path,
) -> Result<(usize, std::collections::BTreeMap<&'static str, usize>)> {
    let failed = |e: &dyn std::fmt::Display| Error::new(out, "", format!("cannot be written: {e}"));
    // A temporary folder, which is removed whatever happens.
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
        Ok((report.values, FileSummary::bytes_by_encoding(&model)))
    };
    let checked = checked().map_err(|e| failed(&e))?;
    std::fs::rename(&file, out).map_err(|e| failed(&e))?;
    Ok(checked)
}

/// Names relative to the checkpoint's folder, so that the file does not depend on where it was made.
fn source_files(path: &Path, source: &Checkpoint) -> Vec<SourceFile> {
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

fn shape(source: &Checkpoint) -> ModelShape {
    let c = &source.config.bert;
    ModelShape {
        hidden_size: c.hidden_size,
        num_hidden_layers: c.num_hidden_layers,
        num_attention_heads: c.num_attention_heads,
        intermediate_size: c.intermediate_size,
        vocab_size: c.vocab_size,
        max_position_embeddings: c.max_position_embeddings,
        type_vocab_size: c.type_vocab_size,
        layer_norm_eps: c.layer_norm_eps,
        hidden_act: c.hidden_act.name(),
        tokenizer_tokens: source.vocabulary.len(),
        model_max_length: source.tokenizer.as_ref().and_then(|t| t.model_max_length),
    }
}

fn linear_name(layer: usize, kind: LinearKind) -> String {
    let name = match kind {
        LinearKind::Qkv => "query, key and value",
        LinearKind::AttentionOutput => "attention output",
        LinearKind::Intermediate => "intermediate",
        LinearKind::Output => "output",
    };
    format!("layer {} {name}", layer + 1)
}

fn totals(tensors: &[TensorReport]) -> TensorCounts {
    let mapped = tensors.iter().filter(|t| matches!(t.fate, Fate::Mapped(_))).count();
    TensorCounts { read: tensors.len(), mapped, dropped: tensors.len() - mapped }
}

fn dropped(tensors: &[TensorReport]) -> Vec<DroppedTensor> {
    let dropped = |t: &TensorReport| match &t.fate {
        Fate::Dropped(why) => Some(DroppedTensor { name: t.name.clone(), why: why.clone() }),
        Fate::Mapped(_) => None,
    };
    tensors.iter().filter_map(dropped).collect()
}
