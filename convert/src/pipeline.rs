//! The conversion of a checkpoint to a model file: read, quantise, measure, write.

use std::collections::BTreeSet;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use bertlet::format::writer::Writer;
use bertlet::format::{Encoding, MAGIC, ScoreActivation};
use bertlet::selftest::{self, SelfTest};
use bertlet::{AtomicFile, Model, ModelFile, Pooling, RunError, SectionKind, Session};

use crate::bert::Bert;
use crate::error::{Error, Result};
use crate::load::{self, Fate, HeadChoice, LoadOptions, Loaded, TensorReport};
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
use crate::vocabulary::Pruning;

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
    /// A file of texts or pieces, one per line: only the pieces of the vocabulary that they need and all single
    /// characters are kept. `None` for the whole vocabulary.
    pub keep_vocabulary: Option<PathBuf>,
    /// Keep linear layers in f16 until the mean pooled cosine on held-out text reaches this value.
    pub min_cosine: Option<f64>,
    /// Labels of the classifier. `None` for the checkpoint's.
    pub labels: Option<Vec<String>>,
    /// Default pooling of the model. `None` for the checkpoint's.
    pub pooling: Option<Pooling>,
    /// L2-normalise pooled vectors by default, even where the checkpoint does not.
    pub normalize: bool,
    /// The head that the checkpoint has. `None` for the one that its architecture names.
    pub head: Option<HeadChoice>,
    /// Drop what a model file cannot hold instead of failing.
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
/// The model is written as [`AtomicFile`] does, mapped, checked against its checksums and self-test vectors,
/// and then renamed. So `out` is replaced by a complete, verified file or, after an error, not at all. A
/// device, a pipe and `-`, which means stdout, get the file once it is verified in memory.
///
/// # Errors
/// If the checkpoint or an option is not valid, a file cannot be read or written, or `out` is a file that is
/// read (see [`check_output`]).
pub fn convert(
    source: &Path,
    out: &Path,
    options: &ConvertOptions,
    progress: Progress<'_>,
) -> Result<ConversionReport> {
    check_output(out, source, options)?;
    on_threads(options, || {
        let model = run(source, Some(out), options, progress)?;
        let summary = save(&model.writer, out)?;
        Ok(model.report(summary))
    })
}

/// Converts the checkpoint at `source` to a model file in memory.
///
/// # Errors
/// If the checkpoint or an option is not valid, or a file cannot be read.
pub fn convert_in_memory(
    source: &Path,
    options: &ConvertOptions,
    progress: Progress<'_>,
) -> Result<(Image, ConversionReport)> {
    on_threads(options, || {
        let model = run(source, None, options, progress)?;
        let image = Image::new(&model.writer);
        let summary = check(&image, "memory".into()).map_err(|e| {
            Error::new(source, "", format!("the converted model does not run: {e}"))
        })?;
        Ok((image, model.report(summary)))
    })
}

fn on_threads<T: Send>(
    options: &ConvertOptions,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build()
        .map_err(|e| Error::new("--threads", "", e))?;
    pool.install(work)
}

/// A converted model.
struct Converted {
    writer: Writer,
    summary: Summary,
    tensors: Vec<TensorReport>,
}

impl Converted {
    fn report(self, mut file: FileSummary) -> ConversionReport {
        let weights = |f: &&SourceFile| !f.name.ends_with(".json") && !f.name.ends_with(".txt");
        file.source_bytes = self.summary.source_files.iter().filter(weights).map(|f| f.bytes).sum();
        ConversionReport {
            file,
            summary: self.summary,
            tensors: self.tensors.into_iter().map(TensorRow::from).collect(),
        }
    }
}

/// Reads, quantises and measures. The file `out` must not be one that is read.
fn run(
    path: &Path,
    out: Option<&Path>,
    options: &ConvertOptions,
    progress: Progress<'_>,
) -> Result<Converted> {
    progress(Stage::Read, 0, 2);
    let allow_unknown = options.allow_unknown;
    let source =
        source::open(path, source::OpenOptions { allow_missing_vocabulary: true, allow_unknown })?;
    if let Some(out) = out {
        source.files.iter().try_for_each(|file| differ(out, &file.path))?;
    }
    check_limits(&source)?;
    let section = tokenizer::section(&source)?;
    progress(Stage::Read, 1, 2);
    let load = LoadOptions {
        allow_unknown: options.allow_unknown,
        head: options.head,
        weights: Some(options.weights),
    };
    let Loaded { mut bert, tensors, notes: remarks } = load::load(&source, &load)?;
    progress(Stage::Read, 2, 2);

    let mut notes = source.notes.clone();
    notes.extend(remarks);
    let max_tokens = max_tokens(&source, &mut notes)?;
    let mut extras = Extras { max_tokens, ..extras(&source, &bert, section.as_ref(), options)? };
    match &section {
        Some(section) => notes.extend(section.notes.iter().cloned()),
        None => notes.push("no vocabulary: the model takes token ids, not text".into()),
    }
    let whole = section.as_ref().map_or(&[][..], |section| &section.bytes);
    let texts = Texts::new(&source, &bert.config, whole)?;
    let pruning = options.keep_vocabulary.as_deref();
    let pruning = pruning.map(|path| Pruning::new(&source, texts.tokenizer(), path)).transpose()?;
    let measuring =
        |e| Error::new(&source.weights, "", format!("the converted model does not run: {e}"));

    let (batch, calibration) = match options.weights {
        WeightType::Int8 => {
            let (batch, about) = texts.calibration(options.calibration.as_deref())?;
            (batch, Some(about))
        }
        _ => (Vec::new(), None),
    };
    progress(Stage::Measure, 0, 2);
    let baseline = Baseline::new(&bert, texts.held_out()?).map_err(|place| {
        Error::new(&source.weights, "", format!("{place} is not finite in the f32 model")).hint(
            "its weights are so large that they overflow: the checkpoint is damaged, or its training diverged",
        )
    })?;
    progress(Stage::Measure, 1, 2);
    let mut kept = BTreeSet::new();
    let encoding = match options.weights {
        WeightType::F32 => Encoding::F32,
        WeightType::F16 | WeightType::Int8 => Encoding::F16,
    };
    let mut stored = match options.weights {
        WeightType::F32 | WeightType::F16 => StoredBert::float(&bert),
        WeightType::Int8 => {
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
            quantized
        }
    };
    // The reference has the whole vocabulary, so this is what is measured, whatever is written.
    let whole = pack::pack(&stored, encoding, &extras);
    let pruned = match &pruning {
        None => None,
        Some(pruning) => {
            pruning.apply(&mut stored);
            pruning.apply_to_checkpoint(&mut bert);
            extras.tokenizer = pruning.section(&source)?.bytes;
            Some(pack::pack(&stored, encoding, &extras))
        }
    };
    drop(stored);
    let image = Image::new(&whole);
    let quality = measure(&image, &baseline).map_err(measuring)?;
    let image = pruned.as_ref().map_or(image, Image::new);
    let inputs = Texts::new(&source, &bert.config, &extras.tokenizer)?.self_test()?;
    let self_test = self_test(&image, &inputs).map_err(measuring)?;
    let mut writer = pruned.unwrap_or(whole);
    progress(Stage::Measure, 2, 2);
    if let Some(wanted) = options.min_cosine
        // NaN is not enough.
        && quality.states.pooled_cosine.partial_cmp(&wanted).is_none_or(std::cmp::Ordering::is_lt)
    {
        return Err(unreachable_cosine(wanted, quality.states.pooled_cosine));
    }
    let summary = Summary {
        tool: concat!("bertlet-convert ", env!("CARGO_PKG_VERSION")).into(),
        source_format: format!("{:?}", source.format),
        source_files: source_files(path, &source),
        architecture: source.config.architecture.clone(),
        model: shape(&source, pruning.as_ref()),
        options: ChosenOptions {
            weights: options.weights.name(),
            calibration,
            vocabulary: pruning.map(|pruning| pruning.about),
            min_cosine: options.min_cosine,
            kept_in_f16: kept.iter().map(|(layer, kind)| linear_name(*layer, *kind)).collect(),
            pooling: extras.pooling.name(),
            normalize: extras.normalize,
            labels: extras.labels.clone(),
            max_tokens,
        },
        parameters: Parameters::of(&bert),
        tensors: totals(&tensors),
        dropped: dropped(&tensors),
        notes,
        error: ErrorSummary::new(quality, baseline.batch().len()),
    };
    let provenance = serde_json::to_vec(&summary).map_err(|e| {
        Error::new(&source.weights, "provenance", format!("cannot be written: {e}"))
    })?;
    writer.bytes(SectionKind::Provenance, provenance);
    writer.bytes(SectionKind::SelfTest, self_test);
    if !source.prompts.is_empty() {
        writer.prompts(&source.prompts, source.default_prompt);
    }
    Ok(Converted { writer, summary, tensors })
}

/// The path that means stdout.
pub const STDOUT: &str = "-";

/// Refuses an output that cannot be written, or that is a file of the checkpoint or the calibration texts,
/// under any of its names. Reads nothing of them.
///
/// # Errors
/// They name the output and what is wrong with it.
pub fn check_output(out: &Path, source: &Path, options: &ConvertOptions) -> Result<()> {
    let out = if out == Path::new(STDOUT) { Path::new("/dev/stdout") } else { out };
    differ(out, source)?;
    let texts = options.calibration.iter().chain(&options.keep_vocabulary);
    texts.into_iter().try_for_each(|texts| differ(out, texts))?;
    if holds_a_source(out) {
        let folder = if source.is_dir() { Some(source) } else { source.parent() };
        let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
        differ_from_all(out, folder.unwrap_or(Path::new(".")), 2)?;
    }
    if out.is_dir() {
        return Err(Error::new(out, "", "is a folder").hint("name the file to write"));
    }
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        return Err(Error::new(folder, "", "is not a folder").hint("create it first"));
    }
    AtomicFile::check(out).map_err(|e| unwritable(out, &e))
}

/// Whether a checkpoint may be in the file: it is there, not empty, and no model file.
fn holds_a_source(path: &Path) -> bool {
    if !path.is_file() {
        return false;
    }
    let mut start = Vec::new();
    let file = std::fs::File::open(path);
    let read = file.and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut start));
    read.is_err() || !start.is_empty() && start != MAGIC
}

/// Compares `out` with all files of a folder, and of the folders in it: `depth` levels.
fn differ_from_all(out: &Path, folder: &Path, depth: u32) -> Result<()> {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true if depth > 0 => differ_from_all(out, &path, depth - 1)?,
            true => {}
            false => differ(out, &path)?,
        }
    }
    Ok(())
}

fn differ(out: &Path, read: &Path) -> Result<()> {
    match AtomicFile::would_replace(out, read) {
        false => Ok(()),
        true => Err(Error::new(out, "", format!("would replace {} of the source", read.display()))
            .hint("name another file with -o")),
    }
}

fn unwritable(out: &Path, e: &dyn std::fmt::Display) -> Error {
    Error::new(out, "", format!("cannot be written: {e}"))
        .hint("make room, or choose another place")
}

/// Writes a file as [`convert`] does.
///
/// # Errors
/// If it cannot be written; then `out` is as it was.
pub fn write_output(out: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = create(out)?;
    let written = file.write_all(bytes).and_then(|()| file.finish());
    written.map_err(|e| unwritable(out, &e))
}

fn create(out: &Path) -> Result<AtomicFile> {
    let file =
        if out == Path::new(STDOUT) { AtomicFile::stdout() } else { AtomicFile::create(out) };
    file.map_err(|e| unwritable(out, &e))
}

/// Checks the limits of the file format and the runtime.
fn check_limits(source: &Checkpoint) -> Result<()> {
    let c = &source.config.bert;
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

/// The tokens that texts are cut to: what the files of sentence-transformers state, else the tokenizer's
/// limit, else the number of positions, and never more than these.
fn max_tokens(source: &Checkpoint, notes: &mut Vec<String>) -> Result<usize> {
    let positions = source.config.bert.max_position_embeddings;
    let tokenizer = source.tokenizer.as_ref().and_then(|t| t.model_max_length);
    let (file, field, stated) = match (source.max_seq_length, tokenizer) {
        (Some(stated), _) => ("sentence_bert_config.json", "max_seq_length", stated),
        (None, Some(stated)) => ("tokenizer_config.json", "model_max_length", stated),
        (None, None) => return Ok(positions),
    };
    // [CLS], one token and [SEP].
    if stated < 3 && stated < positions {
        let problem = format!("{stated} leaves no room for a text");
        return Err(Error::new(source.folder.join(file), field, problem)
            .hint("correct it, or remove it for no limit"));
    }
    if stated > positions {
        notes.push(format!(
            "{file}: {field}: {stated} is more than the model's {positions} positions"
        ));
    }
    Ok(stated.min(positions))
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
        score_activation: score_activation(source, bert),
        tokenizer: section.map(|section| section.bytes.clone()).unwrap_or_default(),
        ..Extras::default()
    })
}

/// What a cross-encoder's files state. Without a statement its one output has a sigmoid, as in
/// sentence-transformers.
fn score_activation(source: &Checkpoint, bert: &Bert) -> ScoreActivation {
    match (&bert.heads.sequence_classifier, source.score_activation) {
        (None, _) => ScoreActivation::OfProblem,
        (Some(_), Some(stated)) => stated,
        (Some((head, _)), None) if source.cross_encoder && head.bias.len() == 1 => {
            ScoreActivation::Sigmoid
        }
        (Some(_), None) => ScoreActivation::OfProblem,
    }
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
        match baseline.compare(Model::from_bytes(&image)?) {
            Ok(quality) => Ok(quality.states.pooled_cosine),
            // Too large for f16: the worst of all choices.
            Err(RunError::NotFinite(_)) => Ok(-1.0),
            Err(error) => Err(error.into()),
        }
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

/// Measures the error of a file.
fn measure(image: &Image, baseline: &Baseline) -> std::result::Result<Quality, Broken> {
    Ok(baseline.compare(Model::from_bytes(image)?)?)
}

/// Computes the self-test vectors of a file.
fn self_test(image: &Image, inputs: &[Sequence]) -> std::result::Result<Vec<u8>, Broken> {
    let types: Vec<Vec<u8>> =
        inputs.iter().map(|s| s.types.iter().map(|&kind| kind as u8).collect()).collect();
    let inputs: Vec<_> =
        inputs.iter().zip(&types).map(|(s, types)| (s.ids.as_slice(), types.as_slice())).collect();
    let tokens = inputs.iter().map(|(ids, _)| ids.len()).max().unwrap_or(1);
    let mut session = Session::new(Model::from_bytes(image)?);
    Ok(selftest::write(&mut session.encoder(tokens)?, &inputs)?)
}

/// Writes, maps, verifies and renames the file.
fn save(writer: &Writer, out: &Path) -> Result<FileSummary> {
    let failed = |e: &dyn std::fmt::Display| unwritable(out, e);
    let name = if out == Path::new(STDOUT) { "stdout".into() } else { file_name(out) };
    let file = create(out)?;
    let Some(path) = file.temporary_path().map(Path::to_owned) else {
        let image = Image::new(writer);
        let summary = check(&image, name).map_err(|e| failed(&e))?;
        let mut file = file;
        file.write_all(&image).and_then(|()| file.finish()).map_err(|e| failed(&e))?;
        return Ok(summary);
    };
    let mut buffer = BufWriter::with_capacity(1 << 20, file);
    writer.write(&mut buffer).map_err(|e| failed(&e))?;
    let file = buffer.into_inner().map_err(|e| failed(e.error()))?;
    let summary = ModelFile::open(&path).map_err(Into::into);
    let summary = summary.and_then(|file| check(file.model().bytes(), name));
    let summary = summary.map_err(|e| failed(&e))?;
    file.finish().map_err(|e| failed(&e))?;
    Ok(summary)
}

/// Compares a model file with its checksums and self-test vectors.
fn check(bytes: &[u8], name: String) -> std::result::Result<FileSummary, Broken> {
    let model = Model::from_bytes(bytes)?;
    model.verify()?;
    let test = SelfTest::of(&model)?;
    let mut values = vec![0.0; test.values()];
    let report = test.run(&mut Session::new(model).encoder(test.tokens())?, &mut values)?;
    Ok(FileSummary {
        name,
        bytes: bytes.len(),
        source_bytes: 0,
        bytes_by_encoding: FileSummary::bytes_by_encoding(&model),
        self_test_values: report.values,
    })
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

fn shape(source: &Checkpoint, pruning: Option<&Pruning>) -> ModelShape {
    let c = &source.config.bert;
    let pieces = pruning.map(|pruning| pruning.about.pieces);
    ModelShape {
        hidden_size: c.hidden_size,
        num_hidden_layers: c.num_hidden_layers,
        num_attention_heads: c.num_attention_heads,
        intermediate_size: c.intermediate_size,
        vocab_size: pieces.unwrap_or(c.vocab_size),
        max_position_embeddings: c.max_position_embeddings,
        type_vocab_size: c.type_vocab_size,
        layer_norm_eps: c.layer_norm_eps,
        hidden_act: c.hidden_act.name(),
        tokenizer_tokens: pieces.unwrap_or(source.vocabulary.len()),
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
