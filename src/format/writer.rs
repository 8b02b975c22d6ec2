//! Writes model files.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use byteorder::WriteBytesExt;
use half::f16;

pub use super::checksum::xxh64;
use super::model::head_length;
use super::records::{Entry, Header, head_checksum};
use super::sections::{OptionalSections, layout};
use super::{
    ALIGNMENT, Config, Encoding, MAGIC, ProblemType, ScoreActivation, SectionKind, VERSION, labels,
    prompts, round16,
};
use crate::kernels::{Rotation, TABLE_GROUP};
use crate::outputs::Pooling;
use crate::owned::AtomicFile;

/// What the header says besides the shape of the model.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// Pooling that the checkpoint was made for.
    pub pooling: Pooling,
    /// Whether the checkpoint's pooled vectors are meant to be of length 1.
    pub normalize: bool,
    /// What the sequence classifier's logits mean.
    pub problem_type: ProblemType,
    /// Outputs of the classifier; 0 where there is none.
    pub labels: usize,
    /// Tokens that texts are cut to; 0 for `max_position_embeddings`.
    pub max_tokens: usize,
    /// How the sequence classifier's logits become scores.
    pub score_activation: ScoreActivation,
}

/// Collects the sections of a file, which must come in the order of the table: see
/// [the specification](crate::format).
pub struct Writer {
    config: Config,
    defaults: Defaults,
    sections: Vec<SectionBytes>,
}

struct SectionBytes {
    kind: SectionKind,
    layer: usize,
    encoding: Encoding,
    rotation: Rotation,
    bytes: Vec<u8>,
}

/// An int8 matrix with bias.
#[derive(Clone, Copy, Debug)]
pub struct QuantizedMatrix<'a> {
    /// Row-major `[rows, cols]`, in [-127, 127].
    pub values: &'a [i8],
    /// Scale per row, `[rows]`.
    pub scale: &'a [f32],
    /// Bias per row, `[rows]`.
    pub bias: &'a [f32],
    /// Rotation of the inputs.
    pub rotation: Rotation,
}

impl Writer {
    /// An empty file for a model of this shape.
    pub fn new(config: Config, defaults: Defaults) -> Self {
        Self { config, defaults, sections: Vec::new() }
    }

    fn shape(&self, kind: SectionKind) -> (usize, usize) {
        kind.shape(&self.config, self.defaults.labels)
    }

    fn push(&mut self, kind: SectionKind, layer: usize, encoding: Encoding, bytes: Vec<u8>) {
        let rotation = Rotation::NONE;
        self.sections.push(SectionBytes { kind, layer, encoding, rotation, bytes });
    }

    /// Adds a matrix in int8.
    ///
    /// # Panics
    /// If a slice does not have the shape that the kind has.
    pub fn int8_matrix(&mut self, kind: SectionKind, layer: usize, matrix: QuantizedMatrix<'_>) {
        let (rows, cols) = self.shape(kind);
        assert_eq!(matrix.values.len(), rows * cols, "{kind:?}");
        let (rows16, cols16) = (round16(rows), round16(cols));
        let mut bytes = vec![0u8; rows16 * cols16];
        let mut sums = vec![0i32; rows];
        for (n, row) in matrix.values.chunks_exact(cols).enumerate() {
            let panel = n / 16 * cols16 * 16;
            for (k, value) in row.iter().enumerate() {
                assert!(*value != i8::MIN, "{kind:?}: -128 in row {n}");
                bytes[panel + k / 4 * 64 + n % 16 * 4 + k % 4] = *value as u8;
                sums[n] += i32::from(*value);
            }
        }
        extend_f32(&mut bytes, matrix.scale, rows, rows16);
        extend_f32(&mut bytes, matrix.bias, rows, rows16);
        for n in 0..rows16 {
            bytes.extend(sums.get(n).copied().unwrap_or(0).to_le_bytes());
        }
        let (encoding, rotation) = (Encoding::Int8, matrix.rotation);
        self.sections.push(SectionBytes { kind, layer, encoding, rotation, bytes });
    }

    /// Adds a matrix in f16 or f32, from row-major `[rows, cols]` weights.
    ///
    /// # Panics
    /// If a slice does not have the shape that the kind has.
    pub fn float_matrix(
        &mut self,
        kind: SectionKind,
        layer: usize,
        encoding: Encoding,
        weights: &[f32],
        bias: &[f32],
    ) {
        let (rows, cols) = self.shape(kind);
        assert_eq!(weights.len(), rows * cols, "{kind:?}");
        let rows16 = round16(rows);
        let mut panels = vec![0.0; rows16 * cols];
        for (n, row) in weights.chunks_exact(cols).enumerate() {
            for (k, value) in row.iter().enumerate() {
                panels[(n / 16 * cols + k) * 16 + n % 16] = *value;
            }
        }
        let mut bytes = floats(encoding, &panels);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        extend_f32(&mut bytes, bias, rows, rows16);
        self.push(kind, layer, encoding, bytes);
    }

    /// Adds a table in f16 or f32, from row-major `[rows, hidden]` values.
    ///
    /// # Panics
    /// If the slice does not have the shape that the kind has.
    pub fn float_table(&mut self, kind: SectionKind, encoding: Encoding, values: &[f32]) {
        let (rows, cols) = self.shape(kind);
        assert_eq!(values.len(), rows * cols, "{kind:?}");
        let mut bytes = Vec::new();
        for row in values.chunks_exact(cols) {
            let mut row = row.to_vec();
            row.resize(round16(cols), 0.0);
            bytes.extend(floats(encoding, &row));
        }
        self.push(kind, 0, encoding, bytes);
    }

    /// Adds a table in int8: row-major `[rows, hidden]` values in [-127, 127] and their scales,
    /// `[rows, ceil(hidden / 64)]`.
    ///
    /// # Panics
    /// If a slice does not have the shape that the kind has.
    pub fn int8_table(&mut self, kind: SectionKind, values: &[i8], scales: &[f16]) {
        let (rows, cols) = self.shape(kind);
        assert_eq!(values.len(), rows * cols, "{kind:?}");
        assert_eq!(scales.len(), rows * cols.div_ceil(TABLE_GROUP), "{kind:?}");
        let mut bytes = Vec::new();
        for row in values.chunks_exact(cols) {
            bytes.extend(row.iter().map(|v| *v as u8));
            bytes.resize(bytes.len() + round16(cols) - cols, 0);
        }
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes.extend(scales.iter().flat_map(|s| s.to_le_bytes()));
        self.push(kind, 0, Encoding::Int8, bytes);
    }

    /// Adds a layer norm.
    ///
    /// # Panics
    /// If a slice is not `[hidden]`.
    pub fn norm(&mut self, kind: SectionKind, layer: usize, weight: &[f32], bias: &[f32]) {
        let (_, hidden) = self.shape(kind);
        let mut bytes = Vec::new();
        extend_f32(&mut bytes, weight, hidden, round16(hidden));
        extend_f32(&mut bytes, bias, hidden, round16(hidden));
        self.push(kind, layer, Encoding::F32, bytes);
    }

    /// Adds a vector.
    ///
    /// # Panics
    /// If the slice does not have the kind's length.
    pub fn vector(&mut self, kind: SectionKind, values: &[f32]) {
        let (rows, _) = self.shape(kind);
        let mut bytes = Vec::new();
        extend_f32(&mut bytes, values, rows, round16(rows));
        self.push(kind, 0, Encoding::F32, bytes);
    }

    /// Adds the labels' names.
    ///
    /// # Panics
    /// If their number is not [`Defaults::labels`].
    pub fn labels<S: AsRef<str>>(&mut self, names: &[S]) {
        assert_eq!(names.len(), self.defaults.labels);
        self.bytes(SectionKind::Labels, labels::write(names));
    }

    /// Adds the prompts, names with texts, and which of them is the default.
    pub fn prompts(&mut self, prompts: &[(String, String)], default: Option<usize>) {
        self.bytes(SectionKind::Prompts, prompts::write(prompts, default));
    }

    /// Adds a section of bytes.
    pub fn bytes(&mut self, kind: SectionKind, bytes: Vec<u8>) {
        self.push(kind, 0, Encoding::Bytes, bytes);
    }

    /// Header and table.
    fn head(&self) -> Vec<u8> {
        let kinds = self.sections.iter().map(|section| (section.kind, section.layer));
        let optional = OptionalSections::new(kinds.clone().map(|(kind, _)| kind as u32));
        let order = layout(self.config.num_hidden_layers, optional);
        assert!(kinds.eq(order), "a section is missing or not in its place");

        let length = head_length(self.sections.len());
        let mut table = Vec::with_capacity(length);
        let mut end = length;
        for SectionBytes { kind, layer, encoding, rotation, bytes } in &self.sections {
            let (rows, columns) = self.shape(*kind);
            let offset = end.next_multiple_of(ALIGNMENT);
            end = offset + bytes.len();
            let entry = Entry {
                kind: *kind as u32,
                layer: *layer as u32,
                encoding: *encoding as u32,
                rows: rows as u32,
                columns: columns as u32,
                rotation_block: rotation.block as u32,
                rotation_stride: rotation.stride as u32,
                reserved: 0,
                offset: offset as u64,
                length: bytes.len() as u64,
                checksum: xxh64(bytes),
                reserved_end: 0,
            };
            entry.write(&mut table);
        }
        let Self { config, defaults, .. } = self;
        let mut header = Header {
            magic: MAGIC,
            version: VERSION,
            sections: self.sections.len() as u32,
            file_length: end.next_multiple_of(ALIGNMENT) as u64,
            checksum: 0,
            hidden_size: config.hidden_size as u32,
            num_hidden_layers: config.num_hidden_layers as u32,
            num_attention_heads: config.num_attention_heads as u32,
            intermediate_size: config.intermediate_size as u32,
            vocab_size: config.vocab_size as u32,
            max_position_embeddings: config.max_position_embeddings as u32,
            type_vocab_size: config.type_vocab_size as u32,
            layer_norm_eps: config.layer_norm_eps,
            hidden_act: config.hidden_act as u32,
            attention: config.attention as u32,
            pooling: defaults.pooling as u32,
            normalize: defaults.normalize.into(),
            problem_type: defaults.problem_type as u32,
            labels: defaults.labels as u32,
            max_tokens: defaults.max_tokens as u32,
            score_activation: defaults.score_activation as u32,
            reserved: [0; _],
        };
        let head = |header: Header| {
            let mut head = Vec::with_capacity(length);
            header.write(&mut head);
            head.extend(&table);
            head
        };
        header.checksum = head_checksum(&head(header));
        head(header)
    }

    /// Writes the file to `out`.
    ///
    /// # Errors
    /// Errors of `out`.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let head = self.head();
        out.write_all(&head)?;
        let mut end = head.len();
        for SectionBytes { bytes, .. } in &self.sections {
            pad(out, &mut end)?;
            out.write_all(bytes)?;
            end += bytes.len();
        }
        pad(out, &mut end)
    }

    /// Length of the file in bytes.
    pub fn file_length(&self) -> usize {
        let lengths = self.sections.iter().map(|section| section.bytes.len());
        // Each section starts, and the file ends, at the next boundary.
        lengths
            .fold(head_length(self.sections.len()), |end, length| {
                end.next_multiple_of(ALIGNMENT) + length
            })
            .next_multiple_of(ALIGNMENT)
    }

    /// The file.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes).expect("writing to memory cannot fail");
        bytes
    }

    /// Writes the file as [`AtomicFile`] does: `path` has a whole file at all times.
    ///
    /// # Errors
    /// Errors of the file system; then `path` is as it was.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(1 << 20, AtomicFile::create(path)?);
        self.write(&mut out)?;
        out.into_inner().map_err(io::IntoInnerError::into_error)?.finish()
    }
}

fn pad(out: &mut impl Write, end: &mut usize) -> io::Result<()> {
    let next = end.next_multiple_of(ALIGNMENT);
    for _ in *end..next {
        out.write_u8(0)?;
    }
    *end = next;
    Ok(())
}

fn floats(encoding: Encoding, values: &[f32]) -> Vec<u8> {
    match encoding {
        Encoding::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

fn extend_f32(bytes: &mut Vec<u8>, values: &[f32], expected: usize, padded: usize) {
    assert_eq!(values.len(), expected);
    bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    bytes.resize(bytes.len() + (padded - expected) * 4, 0);
}
