//! Positions in a text, counted in bytes, code points and UTF-16 units.

/// What [`convert_offsets`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetUnit {
    /// Unicode code points (Python).
    Char,
    /// UTF-16 code units (Java, JavaScript, Swift's `NSString`).
    Utf16,
}

/// Converts byte offsets into `text` to characters or UTF-16 units, in place.
///
/// The offsets of the tokenizer ascend, so this costs one pass over the text. Special tokens keep
/// `(0, 0)`. Convert each text of a pair on its own.
pub fn convert_offsets(text: &[u8], offsets: &mut [(u32, u32)], unit: OffsetUnit) {
    let mut counter = OffsetCounter { text, at: Offset::default() };
    for offset in offsets.iter_mut().filter(|offset| **offset != (0, 0)) {
        let [start, end] = [offset.0, offset.1].map(|byte| {
            let at = counter.at(byte);
            match unit {
                OffsetUnit::Char => at.char,
                OffsetUnit::Utf16 => at.utf16,
            }
        });
        *offset = (start, end);
    }
}

/// A position in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offset {
    /// Bytes of UTF-8 (Rust, C, Go).
    pub byte: u32,
    /// Code points (Python).
    pub char: u32,
    /// UTF-16 units (Java, JavaScript, Swift's `NSString`).
    pub utf16: u32,
}

/// Counts from one position to the next, forwards or backwards. Positions in ascending order cost one
/// pass over the text.
#[derive(Clone, Copy, Debug)]
pub struct OffsetCounter<'t> {
    text: &'t [u8],
    at: Offset,
}

impl<'t> OffsetCounter<'t> {
    /// Starts at the beginning of a text.
    pub fn new(text: &'t str) -> Self {
        Self { text: text.as_bytes(), at: Offset::default() }
    }

    /// The position of this byte, or of the end of the text if that comes first.
    pub fn at(&mut self, byte: u32) -> Offset {
        let to = (byte as usize).min(self.text.len());
        let from = self.at.byte as usize;
        // Every character has one byte that is not a continuation; beyond the basic plane (lead byte
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
        fn all_units_give_the_same_position(
            text in "\\PC{0,40}",
            positions in proptest::collection::vec(0..60usize, 0..20),
        ) {
            let borders: Vec<usize> =
                text.char_indices().map(|(i, _)| i).chain([text.len()]).collect();
            let mut counter = OffsetCounter::new(&text);
            for position in positions {
                let byte = borders[position % borders.len()];
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

    #[test]
    fn converts_to_both_units() {
        let text = "aé😀中b";
        let bytes = [(0, 0), (0, 1), (1, 3), (3, 7), (3, 10), (7, 10), (10, 11), (0, 0)];
        let mut chars = bytes;
        convert_offsets(text.as_bytes(), &mut chars, OffsetUnit::Char);
        assert_eq!(chars, [(0, 0), (0, 1), (1, 2), (2, 3), (2, 4), (3, 4), (4, 5), (0, 0)]);
        let mut utf16 = bytes;
        convert_offsets(text.as_bytes(), &mut utf16, OffsetUnit::Utf16);
        assert_eq!(utf16, [(0, 0), (0, 1), (1, 2), (2, 4), (2, 5), (4, 5), (5, 6), (0, 0)]);
    }

    #[test]
    fn offsets_past_the_end_are_the_end() {
        let mut offsets = [(5, 9), (1, 2)];
        convert_offsets(b"abc", &mut offsets, OffsetUnit::Char);
        assert_eq!(offsets, [(3, 3), (1, 2)]);
    }
}
