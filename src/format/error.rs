//! Why a file is refused.

use std::fmt;

use super::SectionKind;

/// Why bytes are not a model. Displays what was found, what was expected and the mend.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum FormatError {
    /// The bytes do not start at a multiple of 64: how far past one they do.
    Misaligned(usize),
    /// Fewer bytes than the header, or than the file's own length.
    Truncated {
        /// Bytes needed.
        need: u64,
        /// Bytes there.
        have: u64,
    },
    /// More bytes than the file's own length.
    TrailingBytes {
        /// The file's own length.
        need: u64,
        /// Bytes there.
        have: u64,
    },
    /// The first eight bytes are something else's.
    NotAModel,
    /// A version that this library does not read.
    Version(u32),
    /// Header or table do not have the checksum that the header states.
    HeaderChecksum {
        /// As stated.
        stated: u64,
        /// As computed.
        computed: u64,
    },
    /// A header field has a value that it cannot have.
    Field {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: u64,
    },
    /// An entry of the table is not what must stand there.
    Entry {
        /// Which entry, from 0.
        index: usize,
        /// The field at fault.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What it should be.
        expected: u64,
    },
    /// A section that others need is not there.
    Missing(SectionKind),
    /// A section's bytes do not have its checksum.
    SectionChecksum(SectionKind, u32),
    /// This byte between two sections, or after the last, is not zero.
    Gap(usize),
    /// A section's contents contradict themselves: which, and at which byte.
    Contents(SectionKind, usize),
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Misaligned(past) => write!(
                f,
                "the bytes start {past} past a multiple of 64; map the file, or copy it to an \
                 aligned buffer"
            ),
            Self::Truncated { need, have } => write!(
                f,
                "the file has {have} bytes and needs {need}; it was cut off: copy or convert it \
                 again"
            ),
            Self::TrailingBytes { need, have } => write!(
                f,
                "the file has {have} bytes where its header says {need}; give exactly the file"
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
                write!(f, "header field `{name}` is {value}, which it cannot be; convert again")
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
                "section {kind:?} (layer {layer}) does not have its checksum; the file is \
                 damaged: copy or convert it again"
            ),
            Self::Gap(at) => write!(
                f,
                "byte {at} lies between sections and is not zero; the file is damaged: copy or \
                 convert it again"
            ),
            Self::Contents(kind, at) => {
                write!(f, "section {kind:?} contradicts itself at byte {at}; convert again")
            }
        }
    }
}

impl core::error::Error for FormatError {}
