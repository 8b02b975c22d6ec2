//! The section of label names.

use byteorder::{ByteOrder, LittleEndian};

/// The names of a classifier's outputs.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Labels<'a> {
    /// Views the section `bytes`, which may be empty: then no label has a name.
    pub(super) const fn new(count: usize, bytes: &'a [u8]) -> Self {
        Self { count, bytes }
    }
    /// Whether the section states this number of labels and has an offset for each.
    pub(super) fn agree(&self) -> bool {
        self.bytes.len() >= 8 + 4 * self.count
            && LittleEndian::read_u32(self.bytes) as usize == self.count
    }
    /// Number of labels, named or not.
    pub fn len(&self) -> usize {
        self.count
    }
    /// Whether the model has no labels.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
    /// Label `i`; `None` if `i` is not below [`Labels::len`], or if the file's bytes are not text.
    pub fn get(&self, i: usize) -> Option<&'a str> {
        if i >= self.count {
            return None;
        }
        let offset = |i: usize| {
            let at = self.bytes.get(4 + 4 * i..8 + 4 * i)?;
            usize::try_from(LittleEndian::read_u32(at)).ok()
        };
        let text = self.bytes.get(4 + 4 * (self.count + 1)..)?;
        std::str::from_utf8(text.get(offset(i)?..offset(i + 1)?)?).ok()
    }
    /// All labels in order; one whose bytes are not text is "?".
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let labels = *self;
        (0..labels.count).map(move |i| labels.get(i).unwrap_or("?"))
    }
}

/// Writes the section.
#[cfg(feature = "writer")]
pub(super) fn write<S: AsRef<str>>(labels: &[S]) -> Vec<u8> {
    let mut bytes = (labels.len() as u32).to_le_bytes().to_vec();
    let mut offset = 0u32;
    for label in labels {
        bytes.extend(offset.to_le_bytes());
        offset += label.as_ref().len() as u32;
    }
    bytes.extend(offset.to_le_bytes());
    bytes.extend(labels.iter().flat_map(|l| l.as_ref().bytes()));
    bytes
}
