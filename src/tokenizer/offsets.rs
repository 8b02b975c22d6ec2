//! Byte offsets in the units of other languages.

/// What an offset counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetUnit {
    /// Unicode code points (Python).
    Char,
    /// UTF-16 code units (Java, JavaScript, Swift's `NSString`).
    Utf16,
}

/// Converts byte positions of a text to other units. Reads on from the last position.
#[derive(Clone, Copy, Debug)]
struct Counter<'t> {
    text: &'t [u8],
    unit: OffsetUnit,
    byte: usize,
    units: u32,
}

impl Counter<'_> {
    fn at(&mut self, byte: u32) -> u32 {
        let byte = (byte as usize).min(self.text.len());
        if byte < self.byte {
            // Offsets that do not grow: start again.
            self.byte = 0;
            self.units = 0;
        }
        for &b in &self.text[self.byte..byte] {
            // Every character has one byte that is not a continuation byte. Characters beyond the basic
            // plane (first byte F0 and up) take two units of UTF-16.
            let utf16 = self.unit == OffsetUnit::Utf16 && b >= 0xF0;
            self.units += u32::from(b & 0xC0 != 0x80) + u32::from(utf16);
        }
        self.byte = byte;
        self.units
    }
}

/// Converts byte offsets into `text` to characters or UTF-16 units, in place.
///
/// Offsets of the tokenizer grow, so this is one pass over the text. Special tokens stay `(0, 0)`. Convert
/// the two texts of a pair separately.
pub fn convert_offsets(text: &[u8], offsets: &mut [(u32, u32)], unit: OffsetUnit) {
    let mut starts = Counter { text, unit, byte: 0, units: 0 };
    for (start, end) in offsets {
        if (*start, *end) == (0, 0) {
            continue;
        }
        *start = starts.at(*start);
        let mut ends = starts;
        *end = ends.at(*end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
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
    fn beyond_the_text() {
        let mut offsets = [(5, 9), (1, 2)];
        convert_offsets(b"abc", &mut offsets, OffsetUnit::Char);
        assert_eq!(offsets, [(3, 3), (1, 2)]);
    }
}
