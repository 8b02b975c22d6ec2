//! The rules for numbers in sections, which [the specification](crate::format#numbers) lists. What keeps them
//! gives the same bits on every machine.

use std::fmt;

use super::sections::{Layout, Parts, Section, SectionKind, parts, round16};
use super::{Config, Encoding, FormatError, Model};

/// A number of a section that breaks a rule. Numbers count from 0 in the order of the file, padding included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadNumber {
    /// This int8 value is -128.
    OutOfRange(usize),
    /// This stored sum is not that of its output's weights.
    Sum(usize),
    /// This scale is NaN, infinite or negative.
    Scale(usize),
    /// This f32 or f16 value is NaN or infinite: a weight, a gamma, a beta, or an entry of a vector.
    Value(usize),
    /// This bias is NaN or infinite.
    Bias(usize),
    /// This byte of the section is padding, and not zero.
    Padding(usize),
}

impl fmt::Display for BadNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::OutOfRange(i) => write!(f, "value {i} is -128"),
            Self::Sum(i) => write!(f, "sum {i} is not that of the weights"),
            Self::Scale(i) => write!(f, "scale {i} is not finite, or negative"),
            Self::Value(i) => write!(f, "value {i} is not finite"),
            Self::Bias(i) => write!(f, "bias {i} is not finite"),
            Self::Padding(i) => write!(f, "byte {i} is padding and not zero"),
        }
    }
}

impl Model<'_> {
    /// Checks the numbers of a section.
    pub(super) fn check_numbers(&self, section: &Section) -> Result<(), FormatError> {
        let bytes = self.section_bytes(*section);
        let checked = Numbers { section, config: self.config(), bytes }.check();
        checked.map_err(|number| FormatError::Number(section.kind, section.layer, number))
    }
}

type Checked = Result<(), BadNumber>;

struct Numbers<'n> {
    section: &'n Section,
    config: &'n Config,
    bytes: &'n [u8],
}

impl Numbers<'_> {
    fn check(&self) -> Checked {
        let Section { kind, encoding, rows, cols, .. } = *self.section;
        let layout = kind.layout();
        // Bytes have no numbers.
        let Some(Parts { values, rest, .. }) = parts(layout, encoding, (rows, cols)) else {
            return Ok(());
        };
        let (values, rest) = (values as usize, rest as usize);
        self.zeros(values, rest)?;
        match layout {
            Layout::Matrix => {
                self.matrix(values)?;
                self.outputs(rest)
            }
            Layout::Table => {
                self.rows(values / rows, cols)?;
                let scales = self.bytes[rest..].as_chunks().0.iter();
                let scales = if encoding == Encoding::Int8 { scales } else { [].iter() };
                first(scales.map(|b| u16::from_le_bytes(*b) < 0x7c00), BadNumber::Scale)
            }
            Layout::Norm => self.rows(values / 2, cols),
            Layout::Vector => self.rows(values, rows),
            Layout::Bytes => Ok(()),
        }
    }

    /// The bytes from `start` to `end` are zero.
    fn zeros(&self, start: usize, end: usize) -> Checked {
        first(self.bytes[start..end].iter().map(|b| *b == 0), |i| BadNumber::Padding(start + i))
    }

    /// Rows of `length` bytes, each with `count` values and padding.
    fn rows(&self, length: usize, count: usize) -> Checked {
        let size = self.size();
        for (start, row) in (0..).step_by(length).zip(self.values(length)) {
            first(row.chunks_exact(size).map(sound), |i| self.unsound(start / size + i))?;
            self.zeros(start + count * size, start + length)?;
        }
        Ok(())
    }

    fn values(&self, length: usize) -> impl Iterator<Item = &[u8]> {
        let Section { kind, encoding, rows, cols, .. } = *self.section;
        let values = parts(kind.layout(), encoding, (rows, cols)).map_or(0, |parts| parts.values);
        self.bytes[..values as usize].chunks_exact(length)
    }

    /// Bytes of a value.
    fn size(&self) -> usize {
        match self.section.encoding {
            Encoding::F32 => 4,
            Encoding::F16 => 2,
            _ => 1,
        }
    }

    fn unsound(&self, i: usize) -> BadNumber {
        match self.section.encoding {
            Encoding::Int8 => BadNumber::OutOfRange(i),
            _ => BadNumber::Value(i),
        }
    }

    /// The weights of a matrix, in panels of sixteen outputs.
    fn matrix(&self, length: usize) -> Checked {
        let Section { kind, encoding, rows, cols, .. } = *self.section;
        let size = self.size();
        // Inputs that stand together for each output of a panel.
        let group = if encoding == Encoding::Int8 { 4 } else { 1 };
        let panel = length / (round16(rows) / 16);
        let heads = matches!(kind, SectionKind::QueryKeyValue | SectionKind::AttentionOutput);
        let padded = !rows.is_multiple_of(16)
            || !cols.is_multiple_of(16)
            || heads && !self.config.head_size().is_multiple_of(16);
        for (p, weights) in self.values(panel).enumerate() {
            let start = p * panel;
            first(weights.chunks_exact(size).map(sound), |i| self.unsound(start / size + i))?;
            let groups = weights.chunks_exact(group * size).enumerate();
            for (i, group_bytes) in groups.filter(|_| padded) {
                let (n, k) = (p * 16 + i % 16, i / 16 * group);
                let pads = |j: usize| n >= rows || k + j >= cols || self.pads_head(kind, n, k + j);
                for (j, weight) in group_bytes.chunks_exact(size).enumerate() {
                    if weight.iter().any(|b| *b != 0) && pads(j) {
                        return Err(BadNumber::Padding(start + (i * group + j) * size));
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a weight belongs to the padding of a head.
    fn pads_head(&self, kind: SectionKind, n: usize, k: usize) -> bool {
        let size = self.config.head_size();
        let place = match kind {
            SectionKind::QueryKeyValue => n,
            SectionKind::AttentionOutput => k,
            _ => return false,
        };
        place % round16(size) >= size
    }

    /// What follows a matrix, per output: scales, biases and sums, or biases only.
    fn outputs(&self, rest: usize) -> Checked {
        let Section { kind, encoding, rows, .. } = *self.section;
        let int8 = encoding == Encoding::Int8;
        let length = 4 * round16(rows);
        let floats = |start: usize| self.bytes[start..][..4 * rows].chunks_exact(4);
        let mut start = rest;
        if int8 {
            let not_negative = |b: &[u8]| sound(b) && b[3] & 0x80 == 0;
            first(floats(start).map(not_negative), BadNumber::Scale)?;
            self.zeros(start + 4 * rows, start + length)?;
            start += length;
        }
        first(floats(start).map(sound), BadNumber::Bias)?;
        for n in
            (0..rows).filter(|n| kind == SectionKind::QueryKeyValue && self.pads_head(kind, *n, 0))
        {
            self.zeros(start + 4 * n, start + 4 * n + 4)?;
        }
        self.zeros(start + 4 * rows, start + length)?;
        start += length;
        if !int8 {
            return Ok(());
        }
        let panel = round16(self.section.cols) * 16;
        for (p, weights) in self.values(panel).enumerate() {
            let mut sums = [0i32; 16];
            for four in weights.as_chunks::<64>().0 {
                for (sum, four) in sums.iter_mut().zip(four.as_chunks::<4>().0) {
                    *sum += four.iter().map(|w| i32::from(*w as i8)).sum::<i32>();
                }
            }
            let stored = self.bytes[start + p * 64..][..64].as_chunks().0.iter();
            let same = stored.zip(sums).map(|(b, sum)| i32::from_le_bytes(*b) == sum);
            first(same, |i| BadNumber::Sum(p * 16 + i))?;
        }
        Ok(())
    }
}

/// An error for the first of `rules` that is not kept.
fn first(rules: impl Iterator<Item = bool>, fault: impl FnOnce(usize) -> BadNumber) -> Checked {
    let mut rules = rules;
    match rules.position(|kept| !kept) {
        Some(i) => Err(fault(i)),
        None => Ok(()),
    }
}

/// Whether an f32 or f16 is finite, and an int8 is not -128: by its last byte and, in f32, the one before.
fn sound(value: &[u8]) -> bool {
    match *value {
        [a] => a != 0x80,
        [_, b] => b & 0x7c != 0x7c,
        [.., a, b] => b & 0x7f != 0x7f || a & 0x80 == 0,
        [] => true,
    }
}
