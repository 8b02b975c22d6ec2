//! Self-test vectors: a few inputs in the model file, with the outputs that its writer got.
//!
//! A model gives the same bits on every machine. A difference shows that something is damaged or
//! broken: the file, the memory, the compiler, a kernel. [The specification](crate::format#self-test)
//! describes the section. Nothing is allocated.

use std::fmt;

use crate::encoder::{Encoder, Input};
use crate::error::{RunError, TooSmall};
use crate::format::selftest::{self as section, Case, Expected, Fault, Reader};
use crate::format::{Model, SectionKind};
use crate::outputs::{Head, Layers, Output, Pooling};

/// What a self-test that passed has compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Number of inputs.
    pub cases: usize,
    /// Outputs of all cases together.
    pub outputs: usize,
    /// Values of all outputs together.
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
    /// The section contradicts itself at this byte.
    Contents(usize),
    /// The buffer for outputs is too small; see [`SelfTest::values`].
    TooSmall(TooSmall),
    /// The encoder refused the input of this case, counted from 0.
    Run(usize, RunError),
    /// An output is not what the writer of the file got.
    Differs {
        /// Index of the case, from 0.
        case: usize,
        /// The pooler or the head; `None` for the mean of the last hidden state.
        output: Option<SectionKind>,
        /// Index of the value in the output.
        index: usize,
        /// The value that the writer got.
        expected: f32,
        /// The value that this machine gets.
        actual: f32,
    },
}

impl From<Fault> for SelfTestError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Version(version) => Self::Version(version),
            Fault::Contents(at) => Self::Contents(at),
        }
    }
}

impl fmt::Display for SelfTestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Missing => {
                f.write_str("the file has no self-test vectors; convert the checkpoint again")
            }
            Self::Version(version) => write!(
                f,
                "self-test vectors of version {version}, known is {}; use a newer bertlet",
                section::VERSION
            ),
            Self::Contents(at) => write!(
                f,
                "the self-test vectors contradict themselves at byte {at}; copy the file again"
            ),
            Self::TooSmall(error) => error.fmt(f),
            Self::Run(case, error) => write!(f, "self-test {case} cannot run: {error}"),
            Self::Differs { case, output, index, expected, actual } => {
                write!(f, "self-test {case}: value {index} of ")?;
                match output {
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
    header: section::Header,
    cases: Reader<'a>,
}

impl<'a> SelfTest<'a> {
    /// Finds the section and reads its header.
    ///
    /// # Errors
    /// [`SelfTestError::Missing`], [`SelfTestError::Version`], [`SelfTestError::Contents`].
    pub fn of(model: &Model<'a>) -> Result<Self, SelfTestError> {
        let section = model.section(SectionKind::SelfTest).ok_or(SelfTestError::Missing)?;
        let (cases, header) = Reader::new(model.section_bytes(section))?;
        if header.max_tokens > model.config().max_position_embeddings {
            return Err(SelfTestError::Contents(8));
        }
        Ok(Self { header, cases })
    }

    /// Tokens of the longest case: the length that the encoder must be made for.
    pub fn tokens(&self) -> usize {
        self.header.max_tokens
    }

    /// Values of the largest output: the length that the output buffer must have.
    pub fn values(&self) -> usize {
        self.header.max_values
    }

    /// Runs every case and compares every bit.
    ///
    /// # Errors
    /// Any [`SelfTestError`] except [`SelfTestError::Missing`] and [`SelfTestError::Version`].
    pub fn run(
        &self,
        encoder: &mut Encoder<'_, '_>,
        out: &mut [f32],
    ) -> Result<Report, SelfTestError> {
        let (need, have) = (self.values(), out.len());
        if have < need {
            return Err(SelfTestError::TooSmall(TooSmall { what: "an output", need, have }));
        }
        let mut reader = self.cases;
        let mut report = Report::default();
        for case in 0..self.header.cases {
            let Case { input_ids, token_type_ids, outputs } = reader.case()?;
            let input =
                Input { input_ids, token_type_ids: Some(token_type_ids), attention_mask: None };
            for _ in 0..outputs {
                let Expected { source, values: expected, at } = reader.output()?;
                let out = out.get_mut(..expected.len()).ok_or(SelfTestError::Contents(at))?;
                let request = request(source, out).ok_or(SelfTestError::Contents(at))?;
                encoder
                    .encode(&input, &mut [request])
                    .map_err(|error| SelfTestError::Run(case, error))?;
                let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
                if let Some(index) = expected.iter().zip(&*out).position(|pair| !same(pair)) {
                    let (expected, actual) = (expected[index], out[index]);
                    let output = source;
                    return Err(SelfTestError::Differs { case, output, index, expected, actual });
                }
                report.outputs += 1;
                report.values += expected.len();
            }
            report.cases += 1;
        }
        Ok(report)
    }
}

/// The request to the encoder for an output; `None` for a section that has no outputs.
fn request(source: Option<SectionKind>, out: &mut [f32]) -> Option<Output<'_>> {
    let features =
        |pooling, out| Output::Features { layers: Layers::LAST, pooling, normalize: false, out };
    Some(match source {
        None => features(Pooling::Mean, out),
        Some(SectionKind::Pooler) => features(Pooling::Pooler, out),
        Some(kind) => Output::Logits { head: Head::from_section(kind)?, out },
    })
}

/// Values of the largest output that [`write`] stores.
#[cfg(feature = "writer")]
const MAX_VALUES: usize = 1 << 14;

/// Runs `inputs` (ids, token types) and writes the section.
///
/// # Errors
/// [`SelfTestError::Run`].
#[cfg(feature = "writer")]
#[doc(hidden)]
pub fn write(
    encoder: &mut Encoder<'_, '_>,
    inputs: &[(&[u32], &[u8])],
) -> Result<Vec<u8>, SelfTestError> {
    let model = encoder.model();
    let hidden = model.config().hidden_size;
    let mut writer = section::Writer::default();
    for (case, &(input_ids, token_type_ids)) in inputs.iter().enumerate() {
        let tokens = input_ids.len();
        let mut wanted = vec![(None, hidden)];
        if model.section(SectionKind::Pooler).is_some() {
            wanted.push((Some(SectionKind::Pooler), hidden));
        }
        for head in Head::ALL {
            let count = head.logits_len(&model, tokens).filter(|count| *count <= MAX_VALUES);
            wanted.extend(count.map(|count| (Some(head.section()), count)));
        }
        writer.case(&Case { input_ids, token_type_ids, outputs: wanted.len() as u32 });
        for (source, count) in wanted {
            let mut out = vec![0.0; count];
            let request = request(source, &mut out).expect("the pooler and heads have outputs");
            let input =
                Input { input_ids, token_type_ids: Some(token_type_ids), attention_mask: None };
            let failed = |error: RunError| SelfTestError::Run(case, error);
            encoder.encode(&input, &mut [request]).map_err(failed)?;
            writer.output(source, &out);
        }
    }
    Ok(writer.finish())
}
