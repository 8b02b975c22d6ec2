//! Why a file is refused.

use std::fmt;

use super::{BadNumber, SectionKind};

/// Why bytes are not a model. `Display` gives what was found, what was expected and a
/// hint.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum FormatError {
    /// The bytes do not start at a multiple of 64; the number is the distance in bytes from the one before.
    Misaligned(usize),
    /// Fewer bytes than the header, or than the file's own length.
    Truncated {
        /// Bytes needed.
        need: u64,
        /// Bytes given.
        have: u64,
    },
    /// More bytes than the file's own length.
    TrailingBytes {
        /// The file's own length.
        need: u64,
        /// Bytes given.
        have: u64,
    },
    /// The first eight bytes are not those of a model file.
    NotAModel,
    /// A version that this library does not read.
    Version(u32),
    /// The checksum of header and table is not the one that the header states.
    HeaderChecksum {
        /// The checksum in the header, or when the model was opened.
        stated: u64,
        /// The checksum of the bytes.
        computed: u64,
    },
    /// A header field has a value outside of its range.
    Field {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: u64,
    },
    /// An entry of the table does not describe the section that belongs there.
    Entry {
        /// Index of the entry, from 0.
        index: usize,
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// The value that it should have.
        expected: u64,
    },
    /// A section that the model or another section needs is missing.
    Missing(SectionKind),
    /// The checksum of a section's bytes is not the one in the table; kind and layer of the section.
    SectionChecksum(SectionKind, u32),
    /// The byte at this offset, between two sections or after the last one, is not zero.
    Gap(usize),
    /// A number of a section breaks [the rules](crate::format#numbers): kind and layer of the section, and
    /// the number.
    Number(SectionKind, u32, BadNumber),
    /// The contents of a section contradict themselves at this byte of it.
    Contents(SectionKind, usize),
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Misaligned(past) => write!(
                f,
                "the bytes start {past} bytes after a multiple of 64; map the file, or copy it to \
                 an aligned buffer"
            ),
            Self::Truncated { need, have } => write!(
                f,
                "the file has {have} bytes and needs {need}; it was cut off: copy or convert it \
                 again"
            ),
            Self::TrailingBytes { need, have } => write!(
                f,
                "the file has {have} bytes, but its header says {need}; pass exactly the file"
            ),
            Self::NotAModel => f.write_str("not a bertlet file; make one with bertlet-convert"),
            Self::Version(version) => write!(
                f,
                "format version {version}, this library reads {}; use a matching library or \
                 convert again",
                super::VERSION
            ),
            Self::HeaderChecksum { stated, computed } => write!(
                f,
                "header checksum {computed:016x} instead of {stated:016x}; the file is damaged: \
                 copy or convert it again"
            ),
            Self::Field { name, value } => {
                write!(f, "header field `{name}` is {value}, which is out of range; convert again")
            }
            Self::Entry { index, field, value, expected } => write!(
                f,
                "section {index}: `{field}` is {value} instead of {expected}; convert again"
            ),
            Self::Missing(kind) => {
                write!(f, "section {kind:?} is missing; convert again")
            }
            Self::SectionChecksum(kind, layer) => write!(
                f,
                "section {kind:?} (layer {layer}) does not match its checksum; the file is \
                 damaged: copy or convert it again"
            ),
            Self::Gap(at) => write!(
                f,
                "byte {at} lies between sections and is not zero; the file is damaged: copy or \
                 convert it again"
            ),
            Self::Number(kind, layer, number) => {
                write!(f, "section {kind:?} (layer {layer}): {number}; convert again")
            }
            Self::Contents(kind, at) => {
                write!(f, "section {kind:?} contradicts itself at byte {at}; convert again")
            }
        }
    }
}

impl core::error::Error for FormatError {}
