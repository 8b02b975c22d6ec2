//! The view of a file: validated once, used in place.

use std::cmp::Ordering;

use byteorder::{ByteOrder, LittleEndian};

use super::{
    ALIGNMENT, Activation, Attention, ENTRY_LENGTH, Encoding, FormatError, HEADER_LENGTH, Layout,
    MAGIC, Parts, ProblemType, SectionKind, VERSION, checksum, field, parts, rotation_fits,
    round16,
};
use crate::kernels::{
    F16x16, F32x16, FloatMatrix, HeadShape, I8x16, I8x64, I32x16, Int8Matrix, Norm, Plain,
    Rotation, TABLE_GROUP, TableRow, view,
};
use crate::outputs::Pooling;

/// The shape of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Hidden size.
    pub hidden_size: usize,
    /// Encoder layers.
    pub num_hidden_layers: usize,
    /// Attention heads a layer; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Inner size of the feed-forward network.
    pub intermediate_size: usize,
    /// Words.
    pub vocab_size: usize,
    /// Longest input in tokens.
    pub max_position_embeddings: usize,
    /// Token types (segments).
    pub type_vocab_size: usize,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f32,
    /// Activation of the feed-forward network.
    pub hidden_act: Activation,
    /// Arithmetic of the attention.
    pub attention: Attention,
}

impl Config {
    /// Inputs of a head.
    pub const fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }
    /// HeadShape times the inputs that a head is padded to.
    pub const fn padded_heads(&self) -> usize {
        self.num_attention_heads * round16(self.head_size())
    }
    pub(crate) const fn head_shape(&self) -> HeadShape {
        HeadShape { count: self.num_attention_heads, size: self.head_size() }
    }
    /// Multiply-adds of the encoder layers for one input: linear layers and attention.
    pub const fn multiply_adds(&self, tokens: usize) -> u64 {
        let (t, h, i) = (tokens as u64, self.hidden_size as u64, self.intermediate_size as u64);
        self.num_hidden_layers as u64 * (t * h * (4 * h + 2 * i) + 2 * t * t * h)
    }
}

/// An entry of the section table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it is.
    pub kind: SectionKind,
    /// Which layer's; 0 where it is no layer's.
    pub layer: u32,
    /// How its values are stored.
    pub encoding: Encoding,
    /// Outputs, or entries.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Rotation of the inputs.
    pub rotation: Rotation,
    /// First byte in the file.
    pub offset: usize,
    /// Bytes.
    pub length: usize,
    /// XXH64 of the bytes.
    pub checksum: u64,
}

/// A matrix with bias, in whichever encoding the file has it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Linear<'a> {
    /// int8: the input is rotated and quantised.
    Int8(Int8Matrix<'a>, Rotation),
    /// Half-precision weights.
    F16(FloatMatrix<'a, F16x16>),
    /// Single-precision weights.
    F32(FloatMatrix<'a, F32x16>),
}

/// A table of rows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Table<'a> {
    /// int8 rows of `width` vectors; f16 scales, so many a row.
    Int8(&'a [I8x16], &'a [u16], usize),
    /// f16 rows of `width` vectors.
    F16(&'a [F16x16]),
    /// f32 rows of `width` vectors.
    F32(&'a [F32x16]),
}

impl<'a> Table<'a> {
    /// Row `i` of rows of `width` vectors.
    pub(crate) fn row(&self, i: usize, width: usize) -> TableRow<'a> {
        match *self {
            Self::Int8(values, scales, a_row) => {
                TableRow::Int8(&values[i * width..][..width], &scales[i * a_row..][..a_row])
            }
            Self::F16(values) => TableRow::F16(&values[i * width..][..width]),
            Self::F32(values) => TableRow::F32(&values[i * width..][..width]),
        }
    }
}

/// The embedding tables and their norm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Embeddings<'a> {
    /// `[vocab, hidden]`.
    pub(crate) word: Table<'a>,
    /// `[positions, hidden]`.
    pub(crate) position: Table<'a>,
    /// `[token types, hidden]`.
    pub(crate) token_type: Table<'a>,
    /// Of the sum.
    pub(crate) norm: Norm<'a>,
}

/// The weights of one layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layer<'a> {
    /// `[3 heads * padded head, hidden]`.
    pub(crate) query_key_value: Linear<'a>,
    /// `[hidden, heads * padded head]`.
    pub(crate) attention_output: Linear<'a>,
    /// After the attention.
    pub(crate) attention_norm: Norm<'a>,
    /// `[intermediate, hidden]`.
    pub(crate) intermediate: Linear<'a>,
    /// `[hidden, intermediate]`.
    pub(crate) output: Linear<'a>,
    /// After the feed-forward network.
    pub(crate) output_norm: Norm<'a>,
}

/// The weights of the masked-word head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MaskedLmWeights<'a> {
    /// `[hidden, hidden]`.
    pub(crate) transform: Linear<'a>,
    /// Of the transformed state.
    pub(crate) norm: Norm<'a>,
    /// `[vocab, hidden]`: the word embeddings where they are tied.
    pub(crate) decoder: Table<'a>,
    /// `[vocab]`.
    pub(crate) bias: &'a [f32],
}

/// The names of a classifier's outputs.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Labels<'a> {
    /// How many.
    pub fn len(&self) -> usize {
        self.count
    }
    /// Whether the model has none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
    /// Label `i`; `None` past the end and where the file's bytes are no text.
    pub fn get(&self, i: usize) -> Option<&'a str> {
        if i >= self.count {
            return None;
        }
        let offset = |i: usize| {
            let at = self.bytes.get(4 + 4 * i..8 + 4 * i)?;
            usize::try_from(LittleEndian::read_u32(at)).ok()
        };
        let text = self.bytes.get(4 + 4 * (self.count + 1)..)?;
        std::str::from_utf8(text.get(offset(i)?..offset(i + 1)?)?).ok()
    }
    /// All of them; what is no text is "?".
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let labels = *self;
        (0..labels.count).map(move |i| labels.get(i).unwrap_or("?"))
    }
}

/// A model: a validated view of a file's bytes, which it borrows and never copies.
#[derive(Clone, Copy)]
pub struct Model<'a> {
    bytes: &'a [u8],
    config: Config,
    pooling: Pooling,
    normalize: bool,
    problem: ProblemType,
    labels: usize,
    sections: usize,
}

fn number(bytes: &[u8], at: usize) -> u32 {
    LittleEndian::read_u32(&bytes[at..])
}

/// The header field at `at`, between 1 and `most`.
fn size(bytes: &[u8], at: usize, name: &'static str, most: u32) -> Result<usize, FormatError> {
    match number(bytes, at) {
        n if (1..=most).contains(&n) => Ok(n as usize),
        n => Err(FormatError::Field { name, value: n.into() }),
    }
}

/// The header field at `at`, as an enumeration.
fn choice<T>(
    bytes: &[u8],
    at: usize,
    name: &'static str,
    from_number: impl Fn(u32) -> Option<T>,
) -> Result<T, FormatError> {
    let n = number(bytes, at);
    from_number(n).ok_or(FormatError::Field { name, value: n.into() })
}

impl<'a> Model<'a> {
    /// Checks `bytes` and views them as a model. Reads the header and the table, nothing else.
    ///
    /// # Errors
    /// Any [`FormatError`] but the section checksums, for which see [`Model::verify`].
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let have = bytes.len() as u64;
        let past = bytes.as_ptr().addr() % ALIGNMENT;
        if past != 0 {
            return Err(FormatError::Misaligned(past));
        }
        if bytes.len() < HEADER_LENGTH {
            return Err(if bytes.starts_with(&MAGIC) || bytes.is_empty() {
                FormatError::Truncated { need: HEADER_LENGTH as u64, have }
            } else {
                FormatError::NotAModel
            });
        }
        if !bytes.starts_with(&MAGIC) {
            return Err(FormatError::NotAModel);
        }
        match number(bytes, field::VERSION) {
            VERSION => {}
            other => return Err(FormatError::Version(other)),
        }
        let need = LittleEndian::read_u64(&bytes[field::FILE_LENGTH..]);
        if need > have {
            return Err(FormatError::Truncated { need, have });
        }
        if need < have {
            return Err(FormatError::TrailingBytes { need, have });
        }
        let sections = size(bytes, field::SECTIONS, "sections", 1 << 16)?;
        let table_end = HEADER_LENGTH + sections * ENTRY_LENGTH;
        if table_end > bytes.len() {
            return Err(FormatError::Truncated { need: table_end as u64, have });
        }
        let stated = LittleEndian::read_u64(&bytes[field::CHECKSUM..]);
        let computed = header_checksum(&bytes[..table_end]);
        if stated != computed {
            return Err(FormatError::HeaderChecksum { stated, computed });
        }
        let model = Self::from_header(bytes, sections)?;
        model.check_table(table_end)?;
        Ok(model)
    }

    /// This view, once validated, over the same bytes borrowed anew.
    #[cfg(feature = "std")]
    pub(crate) fn over<'b>(&self, bytes: &'b [u8]) -> Model<'b> {
        let Self { config, pooling, normalize, problem, labels, sections, .. } = *self;
        Model { bytes, config, pooling, normalize, problem, labels, sections }
    }

    fn from_header(bytes: &'a [u8], sections: usize) -> Result<Self, FormatError> {
        // The limits keep every product of sizes within 64 bits, int8 sums within 32.
        let config = Config {
            hidden_size: size(bytes, field::HIDDEN, "hidden size", 1 << 16)?,
            num_hidden_layers: size(bytes, field::LAYERS, "layers", 1 << 10)?,
            num_attention_heads: size(bytes, field::HEADS, "heads", 1 << 10)?,
            intermediate_size: size(bytes, field::INTERMEDIATE, "intermediate size", 1 << 16)?,
            vocab_size: size(bytes, field::VOCAB, "vocabulary", 1 << 24)?,
            max_position_embeddings: size(bytes, field::POSITIONS, "positions", 1 << 20)?,
            type_vocab_size: size(bytes, field::TOKEN_TYPES, "token types", 1 << 8)?,
            layer_norm_eps: f32::from_bits(number(bytes, field::EPS)),
            hidden_act: choice(bytes, field::ACTIVATION, "activation", Activation::from_number)?,
            attention: choice(bytes, field::ATTENTION, "attention", Attention::from_number)?,
        };
        if !config.hidden_size.is_multiple_of(config.num_attention_heads)
            || config.padded_heads() > 1 << 16
        {
            return Err(FormatError::Field {
                name: "heads",
                value: config.num_attention_heads as u64,
            });
        }
        if !(config.layer_norm_eps > 0.0 && config.layer_norm_eps < 1.0) {
            return Err(FormatError::Field {
                name: "eps",
                value: config.layer_norm_eps.to_bits().into(),
            });
        }
        let normalize = match number(bytes, field::NORMALIZE) {
            n @ 0..=1 => n == 1,
            n => return Err(FormatError::Field { name: "normalize", value: n.into() }),
        };
        let labels = number(bytes, field::LABELS);
        if labels > 1 << 20 {
            return Err(FormatError::Field { name: "labels", value: labels.into() });
        }
        if bytes[field::RESERVED..HEADER_LENGTH].iter().any(|b| *b != 0) {
            return Err(FormatError::Field { name: "reserved", value: 1 });
        }
        Ok(Self {
            bytes,
            config,
            pooling: choice(bytes, field::POOLING, "pooling", Pooling::from_number)?,
            normalize,
            problem: choice(bytes, field::PROBLEM, "problem", ProblemType::from_number)?,
            labels: labels as usize,
            sections,
        })
    }

    /// Every entry is the one that must stand there, and lies where it must.
    fn check_table(&self, table_end: usize) -> Result<(), FormatError> {
        let mut end = table_end as u64;
        let mut last = 0;
        let layers_end = 4 + 6 * self.config.num_hidden_layers;
        for index in 0..self.sections {
            let at = HEADER_LENGTH + index * ENTRY_LENGTH;
            let entry = &self.bytes[at..][..ENTRY_LENGTH];
            let expect = |field, value: u64, expected: u64| {
                if value == expected {
                    Ok(())
                } else {
                    Err(FormatError::Entry { index, field, value, expected })
                }
            };
            let kind = number(entry, 0);
            let (expected, layer) = match index {
                0..4 => (SectionKind::OF_EMBEDDINGS[index] as u32, 0),
                _ if index < layers_end => {
                    (SectionKind::OF_LAYER[(index - 4) % 6] as u32, (index - 4) / 6)
                }
                _ => (kind.max(last + 1).max(SectionKind::Pooler as u32), 0),
            };
            expect("kind", kind.into(), expected.into())?;
            let Some(kind) = SectionKind::from_number(kind) else {
                return Err(FormatError::Entry {
                    index,
                    field: "kind",
                    value: kind.into(),
                    expected: 0,
                });
            };
            last = if index < layers_end { 0 } else { kind as u32 };
            expect("layer", number(entry, 4).into(), layer as u64)?;
            let encoding = Encoding::from_number(number(entry, 8)).ok_or(FormatError::Entry {
                index,
                field: "encoding",
                value: number(entry, 8).into(),
                expected: 1,
            })?;
            let (rows, cols) = kind.shape(&self.config, self.labels);
            if kind.layout() == Layout::Matrix && rows == 0 {
                return Err(FormatError::Field { name: "labels", value: 0 });
            }
            expect("rows", number(entry, 12).into(), rows as u64)?;
            expect("columns", number(entry, 16).into(), cols as u64)?;
            let rotation = rotation(entry);
            if encoding == Encoding::Int8 && kind.layout() == Layout::Matrix {
                if !rotation_fits(rotation, cols) {
                    return Err(FormatError::Entry {
                        index,
                        field: "rotation",
                        value: rotation.block as u64,
                        expected: 1,
                    });
                }
            } else {
                expect("rotation block", rotation.block as u64, 1)?;
                expect("rotation stride", rotation.stride as u64, 1)?;
            }
            expect(
                "reserved",
                u64::from(number(entry, 28)) | LittleEndian::read_u64(&entry[56..]),
                0,
            )?;
            let start = end.next_multiple_of(ALIGNMENT as u64);
            expect("offset", LittleEndian::read_u64(&entry[32..]), start)?;
            let length = LittleEndian::read_u64(&entry[40..]);
            match (kind.layout(), encoding) {
                (Layout::Bytes, _) => expect("encoding", encoding as u64, Encoding::Bytes as u64)?,
                (layout, _) => match parts(layout, encoding, rows, cols) {
                    Some(parts) => expect("length", length, parts.length)?,
                    None => expect("encoding", encoding as u64, Encoding::F32 as u64)?,
                },
            }
            end = match start.checked_add(length) {
                Some(end) if end <= self.bytes.len() as u64 => end,
                _ => {
                    return Err(FormatError::Truncated {
                        need: start.saturating_add(length),
                        have: self.bytes.len() as u64,
                    });
                }
            };
        }
        if self.sections < layers_end {
            return Err(FormatError::Missing(SectionKind::OutputNorm));
        }
        let (need, have) = (end.next_multiple_of(ALIGNMENT as u64), self.bytes.len() as u64);
        match need.cmp(&have) {
            Ordering::Greater => Err(FormatError::Truncated { need, have }),
            Ordering::Less => Err(FormatError::TrailingBytes { need, have }),
            Ordering::Equal => self.check_heads(),
        }
    }

    /// HeadShape that need something have it.
    fn check_heads(&self) -> Result<(), FormatError> {
        let has = |kind| self.section(kind).is_some();
        for (head, needs) in [
            (SectionKind::SequenceClassifier, SectionKind::Pooler),
            (SectionKind::NextSentence, SectionKind::Pooler),
            (SectionKind::MaskedLmTransform, SectionKind::MaskedLmNorm),
            (SectionKind::MaskedLmNorm, SectionKind::MaskedLmBias),
            (SectionKind::MaskedLmBias, SectionKind::MaskedLmTransform),
            (SectionKind::MaskedLmDecoder, SectionKind::MaskedLmTransform),
        ] {
            if has(head) && !has(needs) {
                return Err(FormatError::Missing(needs));
            }
        }
        if let Some(section) = self.section(SectionKind::Labels) {
            let bytes = self.section_bytes(section);
            if bytes.len() < 8 + 4 * self.labels || number(bytes, 0) as usize != self.labels {
                return Err(FormatError::Contents(SectionKind::Labels, 0));
            }
        }
        Ok(())
    }

    /// Its shape.
    pub fn config(&self) -> &Config {
        &self.config
    }
    /// The pooling that the checkpoint was made for.
    pub fn default_pooling(&self) -> Pooling {
        self.pooling
    }
    /// Whether the checkpoint's pooled vectors are meant to be of length 1.
    pub fn default_normalize(&self) -> bool {
        self.normalize
    }
    /// What the sequence classifier's logits mean.
    pub fn problem(&self) -> ProblemType {
        self.problem
    }
    /// The bytes of the file.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
    /// The names of the classifier's outputs.
    pub fn labels(&self) -> Labels<'a> {
        Labels {
            count: self.labels,
            bytes: self.section(SectionKind::Labels).map_or(&[], |s| self.section_bytes(s)),
        }
    }
    /// Entries of the section table, in order.
    pub fn sections(&self) -> Sections<'a> {
        Sections { model: *self, next: 0 }
    }
    /// The section of a kind that stands at most once; `None` where the model has none.
    pub fn section(&self, kind: SectionKind) -> Option<Section> {
        (4 + 6 * self.config.num_hidden_layers..self.sections)
            .map(|i| self.entry(i))
            .find(|s| s.kind == kind)
    }
    /// The bytes of a section of this model.
    pub fn section_bytes(&self, section: Section) -> &'a [u8] {
        &self.bytes[section.offset..][..section.length]
    }
    /// The tokenizer's section; `None` where the model has none.
    pub fn tokenizer_bytes(&self) -> Option<&'a [u8]> {
        self.section(SectionKind::Tokenizer).map(|s| self.section_bytes(s))
    }
    /// Where the model came from: JSON; `None` where it is missing or no text.
    pub fn provenance(&self) -> Option<&'a str> {
        std::str::from_utf8(self.section_bytes(self.section(SectionKind::Provenance)?)).ok()
    }

    /// Reads every byte and compares the checksums. What passes is, but for the odds of a 64-bit
    /// checksum, the file that was written.
    ///
    /// # Errors
    /// [`FormatError::SectionChecksum`] names the first section that is damaged,
    /// [`FormatError::Gap`] the first byte between sections.
    pub fn verify(&self) -> Result<(), FormatError> {
        let mut end = HEADER_LENGTH + self.sections * ENTRY_LENGTH;
        for section in self.sections() {
            self.check_gap(end, section.offset)?;
            if checksum::xxh64(self.section_bytes(section)) != section.checksum {
                return Err(FormatError::SectionChecksum(section.kind, section.layer));
            }
            end = section.offset + section.length;
        }
        self.check_gap(end, self.bytes.len())
    }

    fn check_gap(&self, start: usize, end: usize) -> Result<(), FormatError> {
        match self.bytes[start..end].iter().position(|b| *b != 0) {
            Some(i) => Err(FormatError::Gap(start + i)),
            None => Ok(()),
        }
    }

    /// Entry `index` of the table, which [`Model::from_bytes`] has checked.
    fn entry(&self, index: usize) -> Section {
        let entry = &self.bytes[HEADER_LENGTH + index * ENTRY_LENGTH..][..ENTRY_LENGTH];
        Section {
            kind: SectionKind::from_number(number(entry, 0)).expect("checked"),
            layer: number(entry, 4),
            encoding: Encoding::from_number(number(entry, 8)).expect("checked"),
            rows: number(entry, 12) as usize,
            cols: number(entry, 16) as usize,
            rotation: rotation(entry),
            offset: LittleEndian::read_u64(&entry[32..]) as usize,
            length: LittleEndian::read_u64(&entry[40..]) as usize,
            checksum: LittleEndian::read_u64(&entry[48..]),
        }
    }

    /// The values of a section and what follows them.
    fn halves(&self, section: Section) -> (&'a [u8], &'a [u8]) {
        let Section { kind, encoding, rows, cols, .. } = section;
        let Parts { values, rest, .. } =
            parts(kind.layout(), encoding, rows, cols).expect("checked");
        let bytes = self.section_bytes(section);
        (&bytes[..values as usize], &bytes[rest as usize..])
    }

    fn linear(&self, section: Section) -> Linear<'a> {
        let (values, rest) = self.halves(section);
        let steps = section.cols;
        match section.encoding {
            Encoding::Int8 => {
                let third = rest.len() / 3;
                Linear::Int8(
                    Int8Matrix {
                        panels: of::<I8x64>(values),
                        scale: of(&rest[..third]),
                        bias: of(&rest[third..2 * third]),
                        sums: of::<I32x16>(&rest[2 * third..]),
                        steps: round16(steps) / 4,
                    },
                    section.rotation,
                )
            }
            Encoding::F16 => Linear::F16(FloatMatrix { panels: of(values), bias: of(rest), steps }),
            _ => Linear::F32(FloatMatrix { panels: of(values), bias: of(rest), steps }),
        }
    }

    fn table(&self, section: Section) -> Table<'a> {
        let (values, rest) = self.halves(section);
        match section.encoding {
            Encoding::Int8 => Table::Int8(of(values), of(rest), section.cols.div_ceil(TABLE_GROUP)),
            Encoding::F16 => Table::F16(of(values)),
            _ => Table::F32(of(values)),
        }
    }

    fn norm(&self, section: Section) -> Norm<'a> {
        let values = of::<F32x16>(self.section_bytes(section));
        let (weight, bias) = values.split_at(values.len() / 2);
        Norm { weight, bias }
    }

    /// The embedding tables.
    pub(crate) fn embeddings(&self) -> Embeddings<'a> {
        Embeddings {
            word: self.table(self.entry(0)),
            position: self.table(self.entry(1)),
            token_type: self.table(self.entry(2)),
            norm: self.norm(self.entry(3)),
        }
    }

    /// Layer `i`, from 0.
    ///
    /// # Panics
    /// If there is no such layer.
    pub(crate) fn layer(&self, i: usize) -> Layer<'a> {
        assert!(
            i < self.config.num_hidden_layers,
            "layer {i} of {}",
            self.config.num_hidden_layers
        );
        let entry = |k| self.entry(4 + 6 * i + k);
        Layer {
            query_key_value: self.linear(entry(0)),
            attention_output: self.linear(entry(1)),
            attention_norm: self.norm(entry(2)),
            intermediate: self.linear(entry(3)),
            output: self.linear(entry(4)),
            output_norm: self.norm(entry(5)),
        }
    }

    /// A head's matrix: pooler, classifiers, next sentence, question answering; `None` where the
    /// model does not have it.
    pub(crate) fn head(&self, kind: SectionKind) -> Option<Linear<'a>> {
        self.section(kind).filter(|s| s.kind.layout() == Layout::Matrix).map(|s| self.linear(s))
    }

    /// The masked-word head; `None` where the model does not have it.
    pub(crate) fn masked_lm(&self) -> Option<MaskedLmWeights<'a>> {
        Some(MaskedLmWeights {
            transform: self.head(SectionKind::MaskedLmTransform)?,
            norm: self.norm(self.section(SectionKind::MaskedLmNorm)?),
            decoder: self
                .table(self.section(SectionKind::MaskedLmDecoder).unwrap_or(self.entry(0))),
            bias: of(self.section_bytes(self.section(SectionKind::MaskedLmBias)?)),
        })
    }
}

impl std::fmt::Debug for Model<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Iterates over a model's sections; see [`Model::sections`].
#[derive(Clone, Debug)]
pub struct Sections<'a> {
    model: Model<'a>,
    next: usize,
}

impl Iterator for Sections<'_> {
    type Item = Section;
    fn next(&mut self) -> Option<Section> {
        (self.next < self.model.sections).then(|| {
            self.next += 1;
            self.model.entry(self.next - 1)
        })
    }
}

fn rotation(entry: &[u8]) -> Rotation {
    Rotation { block: number(entry, 20) as usize, stride: number(entry, 24) as usize }
}

/// Views bytes whose alignment and length [`Model::from_bytes`] has checked.
fn of<T: Plain>(bytes: &[u8]) -> &[T] {
    view(bytes).expect("sections and their parts are aligned")
}

/// XXH64 of what follows the checksum's own field, to the end of the table.
pub(super) fn header_checksum(head: &[u8]) -> u64 {
    checksum::xxh64(&head[field::CHECKSUM + 8..])
}
