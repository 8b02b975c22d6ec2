//! Element types of checkpoints, and their conversion to `f32`.

use std::fmt;

use half::{bf16, f16};

/// Type of a tensor's elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DType {
    /// Double precision.
    F64,
    /// Single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an `f32`.
    BF16,
    /// Signed, 64 bits.
    I64,
    /// Signed, 32 bits.
    I32,
    /// Signed, 16 bits.
    I16,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 8 bits.
    U8,
    /// One byte, zero or one.
    Bool,
    /// A type that no weight of a BERT has. It is listed by name and never read.
    Other(String),
}

impl DType {
    /// Bytes per element. `None` for types that cannot be read.
    pub fn size(&self) -> Option<usize> {
        Some(match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::Other(_) => return None,
        })
    }

    /// The function that converts one little-endian element of `size` bytes to `f32`, rounding to nearest.
    pub(super) fn decoder(&self) -> Option<fn(&[u8]) -> f32> {
        fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
            let mut a = [0; N];
            a.copy_from_slice(bytes);
            a
        }
        Some(match self {
            Self::F64 => |b| f64::from_le_bytes(array(b)) as f32,
            Self::F32 => |b| f32::from_le_bytes(array(b)),
            Self::F16 => |b| f16::from_le_bytes(array(b)).to_f32(),
            Self::BF16 => |b| bf16::from_le_bytes(array(b)).to_f32(),
            Self::I64 => |b| i64::from_le_bytes(array(b)) as f32,
            Self::I32 => |b| i32::from_le_bytes(array(b)) as f32,
            Self::I16 => |b| f32::from(i16::from_le_bytes(array(b))),
            Self::I8 => |b| f32::from(i8::from_le_bytes(array(b))),
            Self::U8 | Self::Bool => |b| f32::from(b[0]),
            Self::Other(_) => return None,
        })
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::I64 => "i64",
            Self::I32 => "i32",
            Self::I16 => "i16",
            Self::I8 => "i8",
            Self::U8 => "u8",
            Self::Bool => "bool",
            Self::Other(name) => name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_decodes_to_f32() {
        let decode = |t: DType, b: &[u8]| t.decoder().unwrap()(b);
        assert_eq!(decode(DType::F64, &1.5f64.to_le_bytes()), 1.5);
        assert_eq!(decode(DType::F64, &1e300f64.to_le_bytes()), f32::INFINITY);
        assert_eq!(decode(DType::F32, &0.1f32.to_le_bytes()), 0.1);
        assert_eq!(decode(DType::F16, &[0x00, 0x3e]), 1.5);
        assert_eq!(decode(DType::BF16, &[0xc0, 0x3f]), 1.5);
        assert_eq!(decode(DType::I64, &(-3i64).to_le_bytes()), -3.0);
        assert_eq!(decode(DType::I32, &(-3i32).to_le_bytes()), -3.0);
        assert_eq!(decode(DType::I16, &(-3i16).to_le_bytes()), -3.0);
        assert_eq!(decode(DType::I8, &[0xfd]), -3.0);
        assert_eq!(decode(DType::U8, &[0xfd]), 253.0);
        assert_eq!(decode(DType::Bool, &[1]), 1.0);
        let other = DType::Other("complex64".into());
        assert!(other.decoder().is_none() && other.size().is_none());
        assert_eq!(other.to_string(), "complex64");
    }
}
