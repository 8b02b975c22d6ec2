//! The view of a file: validated once, used in place.

use std::cmp::Ordering;

use super::records::{Entry, Header, choice, head_checksum};
use super::sections::{Layout, OptionalSections, Section, SectionKind, layer_start, layout};
use super::{
    ALIGNMENT, Config, FormatError, Labels, ProblemType, Prompts, ScoreActivation, checksum,
};
use crate::outputs::{Pooling, sections_on_pooler};

/// A model: a validated view of a file's bytes, which it borrows and never copies.
///
/// If the bytes are a mapped file that somebody overwrites, answers are wrong from then on, but no
/// call panics or reads outside of the file. [`Model::verify`] notices the change.
#[derive(Clone, Copy)]
pub struct Model<'a> {
    bytes: &'a [u8],
    head: Head,
}

/// What the header and the kinds in the table said when they were checked.
#[derive(Clone, Copy)]
struct Head {
    config: Config,
    pooling: Pooling,
    normalize: bool,
    problem_type: ProblemType,
    labels: usize,
    max_tokens: usize,
    score_activation: ScoreActivation,
    optional: OptionalSections,
    /// Bytes of header and table.
    length: usize,
    checksum: u64,
}

/// Bytes of a header and a table with `sections` entries.
pub(super) const fn head_length(sections: usize) -> usize {
    Header::LENGTH + sections * Entry::LENGTH
}

/// The entries of a table of `bytes`, which starts after the header.
fn entries(bytes: &[u8]) -> impl Iterator<Item = Entry> + '_ {
    bytes.as_chunks().0.iter().map(Entry::read)
}

impl<'a> Model<'a> {
    /// Checks `bytes` and views them as a model. Reads the header and the table, nothing else.
    ///
    /// # Errors
    /// Any [`FormatError`] except those of section checksums, for which see [`Model::verify`].
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let past = bytes.as_ptr().addr() % ALIGNMENT;
        if past != 0 {
            return Err(FormatError::Misaligned(past));
        }
        let header = Header::of(bytes)?;
        let length = head_length(header.sections()?);
        let Some(head) = bytes.get(..length) else {
            return Err(FormatError::Truncated { need: length as u64, have: bytes.len() as u64 });
        };
        let (stated, computed) = (header.checksum, head_checksum(head));
        if stated != computed {
            return Err(FormatError::HeaderChecksum { stated, computed });
        }
        let config = header.config()?;
        let table = &head[Header::LENGTH..];
        let first_optional = layer_start(config.num_hidden_layers);
        let head = Head {
            config,
            pooling: choice("pooling", header.pooling, Pooling::from_number)?,
            normalize: choice("normalize", header.normalize, |n| (n <= 1).then_some(n == 1))?,
            problem_type: choice("problem_type", header.problem_type, ProblemType::from_number)?,
            labels: choice("labels", header.labels, |n| (n <= 1 << 20).then_some(n as usize))?,
            max_tokens: header.max_tokens(config.max_position_embeddings)?,
            score_activation: choice(
                "score_activation",
                header.score_activation,
                ScoreActivation::from_number,
            )?,
            optional: OptionalSections::new(entries(table).skip(first_optional).map(|e| e.kind)),
            length,
            checksum: computed,
        };
        if header.reserved != [0; _] {
            return Err(FormatError::Field { name: "reserved", value: 1 });
        }
        let model = Self { bytes, head };
        model.check_table(table)?;
        model.check_heads()?;
        Ok(model)
    }

    /// This view, once validated, over the same bytes borrowed anew.
    #[cfg(feature = "std")]
    pub(crate) fn over<'b>(&self, bytes: &'b [u8]) -> Model<'b> {
        Model { bytes, head: self.head }
    }

    /// Kind and layer of each section, in the order of the table.
    fn layout(&self) -> impl Iterator<Item = (SectionKind, usize)> + Clone + use<> {
        layout(self.head.config.num_hidden_layers, self.head.optional)
    }

    /// Every entry is the one that must stand there, and its section lies where it must.
    fn check_table(&self, table: &[u8]) -> Result<(), FormatError> {
        let have = self.bytes.len() as u64;
        let mut end = self.head.length as u64;
        let mut layout = self.layout();
        for (index, entry) in entries(table).enumerate() {
            let Some((kind, layer)) = layout.next() else {
                let value = entry.kind.into();
                return Err(FormatError::Entry { index, field: "kind", value, expected: 0 });
            };
            let shape = kind.shape(&self.head.config, self.head.labels);
            if entry.kind == kind as u32 && kind.layout() == Layout::Matrix && shape.0 == 0 {
                return Err(FormatError::Field { name: "labels", value: 0 });
            }
            let start = end.next_multiple_of(ALIGNMENT as u64);
            let section = Section::new(index, &entry, (kind, layer), shape, Some(start), have)?;
            end = (section.offset + section.length) as u64;
        }
        if let Some((kind, _)) = layout.next() {
            return Err(FormatError::Missing(kind));
        }
        let need = end.next_multiple_of(ALIGNMENT as u64);
        match need.cmp(&have) {
            Ordering::Greater => Err(FormatError::Truncated { need, have }),
            Ordering::Less => Err(FormatError::TrailingBytes { need, have }),
            Ordering::Equal => Ok(()),
        }
    }

    /// Heads have the sections that they need, and the labels their number.
    fn check_heads(&self) -> Result<(), FormatError> {
        let has = |kind| self.head.optional.position(kind).is_some();
        let on_pooler = sections_on_pooler().map(|head| (head, SectionKind::Pooler));
        let masked_lm = [
            (SectionKind::MaskedLmTransform, SectionKind::MaskedLmNorm),
            (SectionKind::MaskedLmNorm, SectionKind::MaskedLmBias),
            (SectionKind::MaskedLmBias, SectionKind::MaskedLmTransform),
            (SectionKind::MaskedLmDecoder, SectionKind::MaskedLmTransform),
        ];
        for (head, needs) in on_pooler.chain(masked_lm) {
            if has(head) && !has(needs) {
                return Err(FormatError::Missing(needs));
            }
        }
        if has(SectionKind::Labels) && !self.labels().agree() {
            return Err(FormatError::Contents(SectionKind::Labels, 0));
        }
        if has(SectionKind::Prompts) && !self.prompts().agree() {
            return Err(FormatError::Contents(SectionKind::Prompts, 0));
        }
        Ok(())
    }

    /// The shape of the model.
    pub fn config(&self) -> &Config {
        &self.head.config
    }
    /// The pooling that the checkpoint was made for.
    pub fn default_pooling(&self) -> Pooling {
        self.head.pooling
    }
    /// Whether the checkpoint's pooled vectors are meant to be of length 1.
    pub fn default_normalize(&self) -> bool {
        self.head.normalize
    }
    /// What the sequence classifier's logits mean.
    pub fn problem_type(&self) -> ProblemType {
        self.head.problem_type
    }
    /// How the sequence classifier's logits become scores.
    pub fn score_activation(&self) -> ScoreActivation {
        self.head.score_activation
    }
    /// The tokens that texts are cut to, special ones included, unless the caller says otherwise: the
    /// limit that the checkpoint states (`max_seq_length`, else `model_max_length`), at most
    /// `max_position_embeddings`.
    pub fn max_tokens(&self) -> usize {
        self.head.max_tokens
    }
    /// The texts that may stand before others.
    pub fn prompts(&self) -> Prompts<'a> {
        Prompts::new(self.bytes_of(SectionKind::Prompts).unwrap_or(&[]))
    }
    /// The bytes of the file.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
    /// The names of the classifier's outputs.
    pub fn labels(&self) -> Labels<'a> {
        Labels::new(self.head.labels, self.bytes_of(SectionKind::Labels).unwrap_or(&[]))
    }
    /// The sections in the order of the table.
    pub fn sections(&self) -> impl Iterator<Item = Section> + Clone + use<'a> {
        let model = *self;
        self.layout().enumerate().map(move |(index, kind)| model.section_at(index, kind))
    }
    /// The section of a kind that stands at most once, after the layers; `None` where the model has none.
    pub fn section(&self, kind: SectionKind) -> Option<Section> {
        let first = layer_start(self.head.config.num_hidden_layers);
        let position = self.head.optional.position(kind)?;
        Some(self.section_at(first + position, (kind, 0)))
    }
    /// The bytes of a section of this model; none for a section of another model that lies outside.
    pub fn section_bytes(&self, section: Section) -> &'a [u8] {
        let end = section.offset.checked_add(section.length);
        end.and_then(|end| self.bytes.get(section.offset..end)).unwrap_or(&[])
    }
    /// The tokenizer's section; `None` where the model has none.
    pub fn tokenizer_bytes(&self) -> Option<&'a [u8]> {
        self.bytes_of(SectionKind::Tokenizer)
    }
    /// Where the model came from: JSON; `None` where it is missing or not text.
    pub fn provenance(&self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes_of(SectionKind::Provenance)?).ok()
    }

    fn bytes_of(&self, kind: SectionKind) -> Option<&'a [u8]> {
        self.section(kind).map(|section| self.section_bytes(section))
    }

    /// Reads every byte, compares the checksums, and checks [the rules for numbers](crate::format#numbers).
    /// A file that passes is, but for the odds of a 64-bit checksum, the file that was written, and gives
    /// the same bits on every machine.
    ///
    /// # Errors
    /// [`FormatError::SectionChecksum`] names the first section that is damaged,
    /// [`FormatError::Number`] the first number that breaks a rule,
    /// [`FormatError::Gap`] the first byte between sections. [`FormatError::HeaderChecksum`] says that
    /// header or table have changed since the model was opened.
    pub fn verify(&self) -> Result<(), FormatError> {
        let (stated, computed) =
            (self.head.checksum, head_checksum(&self.bytes[..self.head.length]));
        if stated != computed {
            return Err(FormatError::HeaderChecksum { stated, computed });
        }
        let mut end = self.head.length;
        for section in self.sections() {
            self.check_gap(end, section.offset)?;
            if checksum::xxh64(self.section_bytes(section)) != section.checksum {
                return Err(FormatError::SectionChecksum(section.kind, section.layer));
            }
            self.check_numbers(&section)?;
            end = section.offset + section.length;
        }
        self.check_gap(end, self.bytes.len())
    }

    /// The bytes from `start` up to the multiple of [`ALIGNMENT`] at `end` are zero.
    fn check_gap(&self, start: usize, end: usize) -> Result<(), FormatError> {
        match self.bytes.get(start..end).unwrap_or(&[]).iter().position(|b| *b != 0) {
            Some(i) => Err(FormatError::Gap(start + i)),
            None => Ok(()),
        }
    }

    /// The section at `index` of the table, as far as the table still says what was checked. Kind, layer
    /// and shape are this view's own, so they are always right.
    pub(super) fn section_at(&self, index: usize, kind: (SectionKind, usize)) -> Section {
        let shape = kind.0.shape(&self.head.config, self.head.labels);
        let table = &self.bytes[Header::LENGTH..self.head.length];
        let entry = Entry::read(&table.as_chunks().0[index]);
        Section::new(index, &entry, kind, shape, None, self.bytes.len() as u64)
            .unwrap_or_else(|_| Section::stand_in(kind, shape, self.bytes.len()))
    }
}

impl std::fmt::Debug for Model<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("config", self.config()).finish_non_exhaustive()
    }
}
