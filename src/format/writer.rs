//! Writes model files.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use byteorder::{ByteOrder, LittleEndian, WriteBytesExt};
use half::f16;

use super::{
    ALIGNMENT, Config, ENTRY_LENGTH, Encoding, HEADER_LENGTH, MAGIC, ProblemType, SectionKind,
    VERSION, checksum, field, round16,
};
use crate::features::Pooling;
use crate::kernels::{Rotation, TABLE_GROUP};
use crate::owned::AtomicFile;

/// What the header says besides the shape.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// Pooling that the checkpoint was made for.
    pub pooling: Pooling,
    /// Whether its pooled vectors are meant to be of length 1.
    pub normalize: bool,
    /// What the sequence classifier's logits mean.
    pub problem: ProblemType,
    /// Outputs of the classifier; 0 without one.
    pub labels: usize,
}

/// A file being put together. Sections are given in the order of [`SectionKind`], layer by layer.
pub struct Writer {
    config: Config,
    defaults: Defaults,
    sections: Vec<(SectionKind, u32, Encoding, Rotation, Vec<u8>)>,
}

/// Rows of an int8 matrix and what belongs to them.
#[derive(Clone, Copy, Debug)]
pub struct QuantizedMatrix<'a> {
    /// Row-major `[rows, cols]`, in [-127, 127].
    pub values: &'a [i8],
    /// `[rows]`.
    pub scale: &'a [f32],
    /// `[rows]`.
    pub bias: &'a [f32],
    /// Of the inputs.
    pub rotation: Rotation,
}

impl Writer {
    /// A file for a model of this shape.
    pub fn new(config: Config, defaults: Defaults) -> Self {
        Self { config, defaults, sections: Vec::new() }
    }

    fn shape(&self, kind: SectionKind) -> (usize, usize) {
        kind.shape(&self.config, self.defaults.labels)
    }

    fn push(&mut self, kind: SectionKind, layer: usize, encoding: Encoding, bytes: Vec<u8>) {
        self.sections.push((kind, layer as u32, encoding, Rotation::NONE, bytes));
    }

    /// A matrix in int8.
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
        self.push(kind, layer, Encoding::Int8, bytes);
        self.sections.last_mut().expect("just pushed").3 = matrix.rotation;
    }

    /// A matrix in f16 or f32, from row-major `[rows, cols]` weights.
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

    /// A table in f16 or f32, from row-major `[rows, hidden]` values.
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

    /// A table in int8: row-major `[rows, hidden]` values in [-127, 127] and their scales,
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

    /// A layer norm.
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

    /// A vector.
    ///
    /// # Panics
    /// If the slice does not have the kind's length.
    pub fn vector(&mut self, kind: SectionKind, values: &[f32]) {
        let (rows, _) = self.shape(kind);
        let mut bytes = Vec::new();
        extend_f32(&mut bytes, values, rows, round16(rows));
        self.push(kind, 0, Encoding::F32, bytes);
    }

    /// The labels' names.
    ///
    /// # Panics
    /// If there are not as many as [`Defaults::labels`] says.
    pub fn labels<S: AsRef<str>>(&mut self, labels: &[S]) {
        assert_eq!(labels.len(), self.defaults.labels);
        let mut bytes = (labels.len() as u32).to_le_bytes().to_vec();
        let mut offset = 0u32;
        for label in labels {
            bytes.extend(offset.to_le_bytes());
            offset += label.as_ref().len() as u32;
        }
        bytes.extend(offset.to_le_bytes());
        bytes.extend(labels.iter().flat_map(|l| l.as_ref().bytes()));
        self.bytes(SectionKind::Labels, bytes);
    }

    /// A section of bytes.
    pub fn bytes(&mut self, kind: SectionKind, bytes: Vec<u8>) {
        self.push(kind, 0, Encoding::Bytes, bytes);
    }

    /// Header and table, and where each section starts.
    fn head(&self) -> Vec<u8> {
        let table_end = HEADER_LENGTH + self.sections.len() * ENTRY_LENGTH;
        let mut table = Vec::with_capacity(table_end);
        let mut end = table_end;
        for (kind, layer, encoding, rotation, bytes) in &self.sections {
            let (rows, cols) = self.shape(*kind);
            let offset = end.next_multiple_of(ALIGNMENT);
            end = offset + bytes.len();
            for n in [
                *kind as u32,
                *layer,
                *encoding as u32,
                rows as u32,
                cols as u32,
                rotation.block as u32,
                rotation.stride as u32,
                0,
            ] {
                table.extend(n.to_le_bytes());
            }
            for n in [offset as u64, bytes.len() as u64, checksum::xxh64(bytes), 0] {
                table.extend(n.to_le_bytes());
            }
        }
        let mut head = vec![0; HEADER_LENGTH];
        head[..8].copy_from_slice(&MAGIC);
        let c = &self.config;
        for (at, n) in [
            (field::VERSION, VERSION),
            (field::SECTIONS, self.sections.len() as u32),
            (field::HIDDEN, c.hidden_size as u32),
            (field::LAYERS, c.num_hidden_layers as u32),
            (field::HEADS, c.num_attention_heads as u32),
            (field::INTERMEDIATE, c.intermediate_size as u32),
            (field::VOCAB, c.vocab_size as u32),
            (field::POSITIONS, c.max_position_embeddings as u32),
            (field::TOKEN_TYPES, c.type_vocab_size as u32),
            (field::EPS, c.layer_norm_eps.to_bits()),
            (field::ACTIVATION, c.hidden_act as u32),
            (field::ATTENTION, c.attention as u32),
            (field::POOLING, self.defaults.pooling as u32),
            (field::NORMALIZE, self.defaults.normalize.into()),
            (field::PROBLEM, self.defaults.problem as u32),
            (field::LABELS, self.defaults.labels as u32),
        ] {
            LittleEndian::write_u32(&mut head[at..], n);
        }
        let length = end.next_multiple_of(ALIGNMENT) as u64;
        LittleEndian::write_u64(&mut head[field::FILE_LENGTH..], length);
        head.extend(table);
        let checksum = super::model::header_checksum(&head);
        LittleEndian::write_u64(&mut head[field::CHECKSUM..], checksum);
        head
    }

    /// Writes the file to `out`.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let head = self.head();
        out.write_all(&head)?;
        let mut end = head.len();
        for (.., bytes) in &self.sections {
            pad(out, &mut end)?;
            out.write_all(bytes)?;
            end += bytes.len();
        }
        pad(out, &mut end)
    }

    /// Bytes of the file.
    pub fn file_length(&self) -> usize {
        let head = HEADER_LENGTH + self.sections.len() * ENTRY_LENGTH;
        let lengths = self.sections.iter().map(|(.., bytes)| bytes.len());
        // Each section starts, and the file ends, at the next boundary.
        lengths
            .fold(head, |end, length| end.next_multiple_of(ALIGNMENT) + length)
            .next_multiple_of(ALIGNMENT)
    }

    /// The file's bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes).expect("writing to memory cannot fail");
        bytes
    }

    /// Writes the file as [`AtomicFile`] does: `path` has a whole file at all times.
    ///
    /// # Errors
    /// Those of the file system; then nothing has changed.
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
