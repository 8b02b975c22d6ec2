//! The header and the entries of the table as types: the only place that says where a field stands.

use std::mem::offset_of;

use super::{Config, FormatError, MAGIC, VERSION, checksum};

/// A field's type, little-endian in the file.
trait Field: Sized {
    fn read<const N: usize>(record: &[u8; N], at: usize) -> Self;
    #[cfg(feature = "writer")]
    fn write(self, record: &mut Vec<u8>);
}

macro_rules! field {
    ($type:ty: |$record:ident, $at:ident| $read:expr) => {
        impl Field for $type {
            // Where `at` is known this is one load; a slice would be a call in small code.
            #[inline(always)]
            fn read<const N: usize>($record: &[u8; N], $at: usize) -> Self {
                $read
            }
            #[cfg(feature = "writer")]
            fn write(self, record: &mut Vec<u8>) {
                record.extend(self.to_le_bytes());
            }
        }
    };
}
field!(u32: |b, at| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]));
field!(u64: |b, at| u64::from(u32::read(b, at)) | u64::from(u32::read(b, at + 4)) << 32);
field!(f32: |b, at| f32::from_bits(u32::read(b, at)));

impl<const LENGTH: usize> Field for [u8; LENGTH] {
    fn read<const N: usize>(record: &[u8; N], at: usize) -> Self {
        let mut field = [0; LENGTH];
        field.copy_from_slice(&record[at..at + LENGTH]);
        field
    }
    #[cfg(feature = "writer")]
    fn write(self, record: &mut Vec<u8>) {
        record.extend(self);
    }
}

/// A struct that is laid out as the file is. Length and offsets are the specification's numbers; the
/// build fails where the fields do not add up to them. Records are copied out of the file: what a
/// copy says cannot change, even if the file is a mapping that somebody overwrites.
macro_rules! record {
    ($(#[$doc:meta])* struct $name:ident: $length:literal {
        $($offset:literal $field:ident: $type:ty,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        #[repr(C)]
        pub(super) struct $name { $(pub $field: $type,)* }

        const _: () = {
            assert!(size_of::<$name>() == $length);
            $(assert!(offset_of!($name, $field) == $offset);)*
        };

        impl $name {
            pub const LENGTH: usize = $length;

            pub fn read(bytes: &[u8; $length]) -> Self {
                Self { $($field: Field::read(bytes, $offset),)* }
            }

            #[cfg(feature = "writer")]
            pub fn write(self, bytes: &mut Vec<u8>) {
                $(self.$field.write(bytes);)*
            }
        }
    };
}

record! {
    /// The first bytes of the file.
    struct Header: 128 {
        0 magic: [u8; 8],
        8 version: u32,
        12 sections: u32,
        16 file_length: u64,
        24 checksum: u64,
        32 hidden_size: u32,
        36 num_hidden_layers: u32,
        40 num_attention_heads: u32,
        44 intermediate_size: u32,
        48 vocab_size: u32,
        52 max_position_embeddings: u32,
        56 type_vocab_size: u32,
        60 layer_norm_eps: f32,
        64 hidden_act: u32,
        68 attention: u32,
        72 pooling: u32,
        76 normalize: u32,
        80 problem_type: u32,
        84 labels: u32,
        88 max_tokens: u32,
        92 score_activation: u32,
        96 reserved: [u8; 32],
    }
}

record! {
    /// An entry of the section table.
    struct Entry: 64 {
        0 kind: u32,
        4 layer: u32,
        8 encoding: u32,
        12 rows: u32,
        16 columns: u32,
        20 rotation_block: u32,
        24 rotation_stride: u32,
        28 reserved: u32,
        32 offset: u64,
        40 length: u64,
        48 checksum: u64,
        56 reserved_end: u64,
    }
}

/// XXH64 of what follows the checksum's own field, to the end of the table. `head` is header and table.
pub(super) fn head_checksum(head: &[u8]) -> u64 {
    checksum::xxh64(&head[offset_of!(Header, hidden_size)..])
}

/// `value` if it lies in `1..=max`.
fn size(name: &'static str, value: u32, max: u32) -> Result<usize, FormatError> {
    match value {
        1.. if value <= max => Ok(value as usize),
        _ => Err(FormatError::Field { name, value: value.into() }),
    }
}

/// The item of an enumeration that has the number `value`.
pub(super) fn choice<T>(
    name: &'static str,
    value: u32,
    from_number: impl Fn(u32) -> Option<T>,
) -> Result<T, FormatError> {
    from_number(value).ok_or(FormatError::Field { name, value: value.into() })
}

impl Header {
    /// Checks what does not need the table, and copies the header. `bytes` are the whole file.
    pub fn of(bytes: &[u8]) -> Result<Self, FormatError> {
        let have = bytes.len() as u64;
        let Some(head) = bytes.first_chunk() else {
            return Err(if bytes.starts_with(&MAGIC) || bytes.is_empty() {
                FormatError::Truncated { need: Self::LENGTH as u64, have }
            } else {
                FormatError::NotAModel
            });
        };
        let header = Self::read(head);
        if header.magic != MAGIC {
            return Err(FormatError::NotAModel);
        }
        if header.version != VERSION {
            return Err(FormatError::Version(header.version));
        }
        let need = header.file_length;
        if need > have {
            return Err(FormatError::Truncated { need, have });
        }
        if need < have {
            return Err(FormatError::TrailingBytes { need, have });
        }
        Ok(header)
    }

    /// Most tokens of a text in a model with this many positions.
    pub fn max_tokens(&self, positions: usize) -> Result<usize, FormatError> {
        match self.max_tokens as usize {
            0 => Ok(positions),
            tokens if tokens <= positions => Ok(tokens),
            _ => Err(FormatError::Field { name: "max_tokens", value: self.max_tokens.into() }),
        }
    }

    /// Number of sections.
    pub fn sections(&self) -> Result<usize, FormatError> {
        size("sections", self.sections, 1 << 16)
    }

    /// The shape of the model. The limits keep every product of sizes within 64 bits, and sums of int8
    /// products within 32.
    pub fn config(&self) -> Result<Config, FormatError> {
        let config = Config {
            hidden_size: size("hidden_size", self.hidden_size, 1 << 16)?,
            num_hidden_layers: size("num_hidden_layers", self.num_hidden_layers, 1 << 10)?,
            num_attention_heads: size("num_attention_heads", self.num_attention_heads, 1 << 10)?,
            intermediate_size: size("intermediate_size", self.intermediate_size, 1 << 16)?,
            vocab_size: size("vocab_size", self.vocab_size, 1 << 24)?,
            max_position_embeddings: size(
                "max_position_embeddings",
                self.max_position_embeddings,
                1 << 20,
            )?,
            type_vocab_size: size("type_vocab_size", self.type_vocab_size, 1 << 8)?,
            layer_norm_eps: self.layer_norm_eps,
            hidden_act: choice("hidden_act", self.hidden_act, super::Activation::from_number)?,
            attention: choice("attention", self.attention, super::Attention::from_number)?,
        };
        let field = |name, value: u32| Err(FormatError::Field { name, value: value.into() });
        if !config.hidden_size.is_multiple_of(config.num_attention_heads)
            || config.padded_heads() > 1 << 16
        {
            return field("num_attention_heads", self.num_attention_heads);
        }
        if !(config.layer_norm_eps > 0.0 && config.layer_norm_eps < 1.0) {
            return field("layer_norm_eps", config.layer_norm_eps.to_bits());
        }
        Ok(config)
    }
}
