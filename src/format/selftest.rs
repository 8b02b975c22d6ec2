//! The self-test section, which [the specification](crate::format#self-test) describes.

use super::SectionKind;
use crate::kernels::{Plain, view};

pub(crate) const VERSION: u32 = 1;
/// Source of the mean of the last hidden state.
const MEAN: u32 = 0;
/// Bytes before the first case.
const HEADER_LENGTH: usize = 16;

/// Why the section cannot be used.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// A version that this library does not read.
    Version(u32),
    /// The section contradicts itself at this byte.
    Contents(usize),
}

/// What the section's header says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub cases: usize,
    /// Tokens of the longest case.
    pub max_tokens: usize,
    /// Values of the largest output.
    pub max_values: usize,
}

/// An input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case<'a> {
    pub input_ids: &'a [u32],
    pub token_type_ids: &'a [u8],
    /// Number of outputs that follow.
    pub outputs: u32,
}

/// An output as the writer of the file got it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    /// The pooler, or the head whose logits these are; `None` for the mean of the last hidden state.
    pub source: Option<SectionKind>,
    pub values: &'a [f32],
    /// Where it starts in the section.
    pub at: usize,
}

/// Reads the section from its front. The section starts at a multiple of 64 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads the header; cases with their outputs follow.
    pub fn new(bytes: &'a [u8]) -> Result<(Self, Header), Fault> {
        let mut reader = Self { bytes, at: 0 };
        match reader.number()? {
            VERSION => {}
            other => return Err(Fault::Version(other)),
        }
        let mut size = || reader.number().map(|n| n as usize);
        let header = Header { cases: size()?, max_tokens: size()?, max_values: size()? };
        debug_assert_eq!(reader.at, HEADER_LENGTH);
        // Callers allocate buffers of these sizes, so the section must be long enough to justify them.
        if header.max_tokens > bytes.len() || header.max_values > bytes.len() {
            return Err(Fault::Contents(8));
        }
        Ok((reader, header))
    }

    /// Reads a case up to its outputs.
    pub fn case(&mut self) -> Result<Case<'a>, Fault> {
        let tokens = self.number()? as usize;
        let outputs = self.number()?;
        let input_ids = self.values(tokens)?;
        let token_type_ids = self.bytes(tokens)?;
        self.bytes(tokens.next_multiple_of(4) - tokens)?;
        Ok(Case { input_ids, token_type_ids, outputs })
    }

    /// Reads an output of the case.
    pub fn output(&mut self) -> Result<Expected<'a>, Fault> {
        let at = self.at;
        let source = match self.number()? {
            MEAN => None,
            kind => Some(SectionKind::from_number(kind).ok_or(Fault::Contents(at))?),
        };
        let count = self.number()? as usize;
        Ok(Expected { source, values: self.values(count)?, at })
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let taken = self
            .at
            .checked_add(count)
            .and_then(|end| self.bytes.get(self.at..end))
            .ok_or(Fault::Contents(self.at))?;
        self.at += count;
        Ok(taken)
    }

    fn values<T: Plain>(&mut self, count: usize) -> Result<&'a [T], Fault> {
        let at = self.at;
        let length = count.checked_mul(size_of::<T>()).ok_or(Fault::Contents(at))?;
        view(self.bytes(length)?).ok_or(Fault::Contents(at))
    }

    fn number(&mut self) -> Result<u32, Fault> {
        Ok(self.values::<u32>(1)?[0])
    }
}

/// Writes the section, in the order in which [`Reader`] reads it.
#[cfg(feature = "writer")]
#[derive(Default)]
pub(crate) struct Writer {
    cases: Vec<u8>,
    count: u32,
    max_tokens: usize,
    max_values: usize,
}

#[cfg(feature = "writer")]
impl Writer {
    pub fn case(&mut self, case: &Case<'_>) {
        let tokens = case.input_ids.len();
        self.numbers(&[tokens as u32, case.outputs]);
        self.numbers(case.input_ids);
        self.cases.extend(case.token_type_ids);
        self.cases.resize(self.cases.len().next_multiple_of(4), 0);
        self.count += 1;
        self.max_tokens = self.max_tokens.max(tokens);
    }

    pub fn output(&mut self, source: Option<SectionKind>, values: &[f32]) {
        let source = source.map_or(MEAN, |kind| kind as u32);
        self.numbers(&[source, values.len() as u32]);
        self.cases.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self.max_values = self.max_values.max(values.len());
    }

    /// The section.
    pub fn finish(self) -> Vec<u8> {
        let Self { cases, count, max_tokens, max_values } = self;
        let mut section =
            Self { cases: Vec::with_capacity(HEADER_LENGTH + cases.len()), ..Self::default() };
        section.numbers(&[VERSION, count, max_tokens as u32, max_values as u32]);
        section.cases.extend(cases);
        section.cases
    }

    fn numbers(&mut self, numbers: &[u32]) {
        self.cases.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
    }
}
