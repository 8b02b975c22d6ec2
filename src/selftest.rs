//! Self-test vectors: a few inputs in the model file, with the outputs that its writer got.
//!
//! A model gives the same bits on every machine, so what differs is damaged or broken: the file, the
//! memory, the compiler, a kernel. Nothing is allocated.
//!
//! # The section
//! Little-endian u32, f32 and bytes:
//!
//! | offset | type | field |
//! |---|---|---|
//! | 0 | u32 | version, 1 |
//! | 4 | u32 | number of cases |
//! | 8 | u32 | most tokens of a case |
//! | 12 | u32 | most values of an output |
//!
//! Then the cases, one after the other: u32 number of tokens T, u32 number of outputs, u32 ids `[T]`,
//! u8 token types `[T]`, zeros up to a multiple of four bytes, and the outputs, each: u32 what, u32 number of
//! values N, f32 `[N]`. What is 0 for the mean of the last hidden state over all tokens, or the number
//! of a [`SectionKind`]: [`SectionKind::Pooler`] for its output, a head's for its logits as [`Output::Logits`]
//! gives them. Masked-word logits are left out: there are as many as words.

use std::fmt;

use crate::encoder::{Encoder, Input};
use crate::error::RunError;
use crate::format::{Model, SectionKind};
use crate::kernels::{Plain, view};
use crate::outputs::{Head, Layers, Output, Pooling};

/// The version that this library writes and reads.
pub const VERSION: u32 = 1;
/// Number of the output that is the mean of the last hidden state.
pub const MEAN: u32 = 0;
/// Bytes before the first case.
const HEADER_LENGTH: usize = 16;

/// What was compared, without a difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Inputs.
    pub cases: usize,
    /// Outputs of all of them.
    pub outputs: usize,
    /// Values of all outputs.
    pub values: usize,
}

/// Why a self-test did not pass.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum SelfTestError {
    /// The file has no such section.
    Missing,
    /// A version that this library does not read.
    Version(u32),
    /// The section contradicts itself, at this byte.
    Contents(usize),
    /// The buffer for outputs is too short; see [`SelfTest::values`].
    Buffer {
        /// Values needed.
        need: usize,
        /// Values given.
        have: usize,
    },
    /// The encoder refused the input of a case.
    Run(usize, RunError),
    /// An output is not what the writer got.
    Differs {
        /// Which case, from 0.
        case: usize,
        /// Which output: [`MEAN`] or the number of a [`SectionKind`].
        what: u32,
        /// Which value of it.
        index: usize,
        /// What the writer got.
        expected: f32,
        /// What this machine gets.
        actual: f32,
    },
}

impl fmt::Display for SelfTestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Missing => {
                f.write_str("the file has no self-test vectors; convert the checkpoint again")
            }
            Self::Version(version) => write!(
                f,
                "self-test vectors of version {version}, known is {VERSION}; use a newer bertlet"
            ),
            Self::Contents(at) => write!(
                f,
                "the self-test vectors contradict themselves at byte {at}; copy the file again"
            ),
            Self::Buffer { need, have } => {
                write!(f, "the output buffer has room for {have} values and {need} are needed")
            }
            Self::Run(case, error) => write!(f, "self-test {case} cannot run: {error}"),
            Self::Differs { case, what, index, expected, actual } => {
                write!(f, "self-test {case}: value {index} of ")?;
                match SectionKind::from_number(what) {
                    Some(kind) => write!(f, "{kind:?}")?,
                    None => f.write_str("the mean of the last hidden state")?,
                }
                write!(
                    f,
                    " is {actual:e} instead of {expected:e}; the file or the machine is broken"
                )
            }
        }
    }
}

impl core::error::Error for SelfTestError {}

/// The self-test section of a model.
///
/// ```no_run
/// # fn check(model: bertlet::Model) -> Result<(), Box<dyn std::error::Error>> {
/// use bertlet::{Encoder, Isa, selftest::SelfTest};
///
/// let test = SelfTest::of(&model)?;
/// let mut scratch = vec![0; model.config().scratch_len(test.tokens())];
/// let mut out = vec![0.0; test.values()];
/// let mut encoder = Encoder::new(model, Isa::detect(), &mut scratch, test.tokens())?;
/// let report = test.run(&mut encoder, &mut out)?;
/// println!("{} values are right", report.values);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SelfTest<'a> {
    bytes: &'a [u8],
    cases: usize,
    tokens: usize,
    values: usize,
}

impl<'a> SelfTest<'a> {
    /// Finds the section and reads its header.
    ///
    /// # Errors
    /// [`SelfTestError::Missing`], [`SelfTestError::Version`], [`SelfTestError::Contents`].
    pub fn of(model: &Model<'a>) -> Result<Self, SelfTestError> {
        let section = model.section(SectionKind::SelfTest).ok_or(SelfTestError::Missing)?;
        let bytes = model.section_bytes(section);
        let mut reader = Reader { bytes, at: 0 };
        match reader.number()? {
            VERSION => {}
            other => return Err(SelfTestError::Version(other)),
        }
        let mut size = || reader.number().map(|n| n as usize);
        let (cases, tokens, values) = (size()?, size()?, size()?);
        // Buffers are made from these, so they may not be larger than the section could justify.
        if tokens > bytes.len()
            || values > bytes.len()
            || tokens > model.config().max_position_embeddings
        {
            return Err(SelfTestError::Contents(8));
        }
        Ok(Self { bytes, cases, tokens, values })
    }

    /// Most tokens of a case: what the encoder must be made for.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Most values of an output: what the output buffer must hold.
    pub fn values(&self) -> usize {
        self.values
    }

    /// Runs every case and compares every bit.
    ///
    /// # Errors
    /// Any [`SelfTestError`] but [`SelfTestError::Missing`] and [`SelfTestError::Version`].
    pub fn run(
        &self,
        encoder: &mut Encoder<'_, '_>,
        out: &mut [f32],
    ) -> Result<Report, SelfTestError> {
        if out.len() < self.values {
            return Err(SelfTestError::Buffer { need: self.values, have: out.len() });
        }
        let mut reader = Reader { bytes: self.bytes, at: HEADER_LENGTH };
        let mut report = Report::default();
        for case in 0..self.cases {
            let tokens = reader.number()? as usize;
            let outputs = reader.number()?;
            let ids = reader.values::<u32>(tokens)?;
            let type_ids = reader.bytes(tokens)?;
            reader.bytes(tokens.next_multiple_of(4) - tokens)?;
            let input =
                Input { input_ids: ids, token_type_ids: Some(type_ids), attention_mask: None };
            for _ in 0..outputs {
                let at = reader.at;
                let what = reader.number()?;
                let count = reader.number()? as usize;
                let expected = reader.values::<f32>(count)?;
                let out = out.get_mut(..count).ok_or(SelfTestError::Contents(at))?;
                let output = output(what, out).ok_or(SelfTestError::Contents(at))?;
                encoder
                    .encode(&input, &mut [output])
                    .map_err(|error| SelfTestError::Run(case, error))?;
                let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
                if let Some(index) = expected.iter().zip(&*out).position(|pair| !same(pair)) {
                    let (expected, actual) = (expected[index], out[index]);
                    return Err(SelfTestError::Differs { case, what, index, expected, actual });
                }
                report.outputs += 1;
                report.values += count;
            }
            report.cases += 1;
        }
        Ok(report)
    }
}

/// What a number asks of the encoder.
fn output(what: u32, out: &mut [f32]) -> Option<Output<'_>> {
    let features =
        |pooling, out| Output::Features { layers: Layers::LAST, pooling, normalize: false, out };
    Some(match SectionKind::from_number(what) {
        None if what == MEAN => features(Pooling::Mean, out),
        Some(SectionKind::Pooler) => features(Pooling::Pooler, out),
        Some(kind) => Output::Logits { head: Head::from_section(kind)?, out },
        None => return None,
    })
}

/// Takes values off the front of the section, which starts at a multiple of 64 bytes.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], SelfTestError> {
        let taken = self
            .at
            .checked_add(count)
            .and_then(|end| self.bytes.get(self.at..end))
            .ok_or(SelfTestError::Contents(self.at))?;
        self.at += count;
        Ok(taken)
    }

    fn values<T: Plain>(&mut self, count: usize) -> Result<&'a [T], SelfTestError> {
        let at = self.at;
        let length = count.checked_mul(size_of::<T>()).ok_or(SelfTestError::Contents(at))?;
        view(self.bytes(length)?).ok_or(SelfTestError::Contents(at))
    }

    fn number(&mut self) -> Result<u32, SelfTestError> {
        Ok(self.values::<u32>(1)?[0])
    }
}

#[cfg(feature = "writer")]
pub use writing::{MAX_VALUES, write};

#[cfg(feature = "writer")]
mod writing {
    use super::{
        Encoder, HEADER_LENGTH, Head, Input, MEAN, RunError, SectionKind, SelfTestError, VERSION,
        output,
    };

    /// An output with more values is not stored.
    pub const MAX_VALUES: usize = 1 << 14;

    /// Runs `inputs` (ids, token types) and writes the section.
    ///
    /// # Errors
    /// [`SelfTestError::Run`].
    pub fn write(
        encoder: &mut Encoder<'_, '_>,
        inputs: &[(&[u32], &[u8])],
    ) -> Result<Vec<u8>, SelfTestError> {
        let model = encoder.model();
        let hidden = model.config().hidden_size;
        let (mut cases, mut most_tokens, mut most_values) = (Vec::new(), 0, 0);
        for (case, &(ids, type_ids)) in inputs.iter().enumerate() {
            let tokens = ids.len();
            let mut wanted = vec![(MEAN, hidden)];
            if model.section(SectionKind::Pooler).is_some() {
                wanted.push((SectionKind::Pooler as u32, hidden));
            }
            for head in Head::ALL {
                let count = head.logits_len(&model, tokens).filter(|count| *count <= MAX_VALUES);
                wanted.extend(count.map(|count| (head.section() as u32, count)));
            }
            put(&mut cases, &[tokens as u32, wanted.len() as u32]);
            put(&mut cases, ids);
            cases.extend(type_ids);
            cases.resize(cases.len().next_multiple_of(4), 0);
            most_tokens = most_tokens.max(tokens);
            for (what, count) in wanted {
                let mut out = vec![0.0; count];
                let asked = output(what, &mut out).expect("every number is one of ours");
                let input =
                    Input { input_ids: ids, token_type_ids: Some(type_ids), attention_mask: None };
                let failed = |error: RunError| SelfTestError::Run(case, error);
                encoder.encode(&input, &mut [asked]).map_err(failed)?;
                put(&mut cases, &[what, count as u32]);
                cases.extend(out.iter().flat_map(|value| value.to_le_bytes()));
                most_values = most_values.max(count);
            }
        }
        let mut bytes = Vec::with_capacity(HEADER_LENGTH + cases.len());
        put(&mut bytes, &[VERSION, inputs.len() as u32, most_tokens as u32, most_values as u32]);
        bytes.extend(cases);
        Ok(bytes)
    }

    fn put(bytes: &mut Vec<u8>, numbers: &[u32]) {
        bytes.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
    }
}
