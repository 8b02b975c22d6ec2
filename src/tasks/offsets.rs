//! Places in a text, counted in bytes, characters and UTF-16 units at once.

/// A place in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offset {
    /// Bytes of UTF-8 (Rust, C, Go).
    pub byte: u32,
    /// Code points (Python).
    pub char: u32,
    /// UTF-16 units (Java, JavaScript, Swift's `NSString`).
    pub utf16: u32,
}

/// Counts on from place to place, forwards or backwards, so that places asked for in order cost one
/// pass over the text.
#[derive(Clone, Copy, Debug)]
pub struct OffsetCounter<'t> {
    text: &'t [u8],
    at: Offset,
}

impl<'t> OffsetCounter<'t> {
    /// At the start of a text.
    pub fn new(text: &'t str) -> Self {
        Self { text: text.as_bytes(), at: Offset::default() }
    }

    /// The place at this byte, or at the end of the text if that comes first.
    pub fn at(&mut self, byte: u32) -> Offset {
        let to = (byte as usize).min(self.text.len());
        let from = self.at.byte as usize;
        // Every character has one byte that is no continuation; beyond the basic plane (lead byte
        // F0 and up) it takes two units of UTF-16.
        let bytes = &self.text[from.min(to)..from.max(to)];
        let chars = bytes.iter().filter(|b| **b & 0xC0 != 0x80).count() as u32;
        let utf16 = chars + bytes.iter().filter(|b| **b >= 0xF0).count() as u32;
        let Offset { char, utf16: units, .. } = self.at;
        self.at = if to >= from {
            Offset { byte: to as u32, char: char + chars, utf16: units + utf16 }
        } else {
            Offset { byte: to as u32, char: char - chars, utf16: units - utf16 }
        };
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn all_units_tell_the_same_place(
            text in "\\PC{0,40}",
            places in proptest::collection::vec(0..60usize, 0..20),
        ) {
            let borders: Vec<usize> =
                text.char_indices().map(|(i, _)| i).chain([text.len()]).collect();
            let mut counter = OffsetCounter::new(&text);
            for place in places {
                let byte = borders[place % borders.len()];
                let before = &text[..byte];
                prop_assert_eq!(counter.at(byte as u32), Offset {
                    byte: byte as u32,
                    char: before.chars().count() as u32,
                    utf16: before.encode_utf16().count() as u32,
                });
            }
            prop_assert_eq!(counter.at(u32::MAX).byte as usize, text.len());
        }
    }
}
