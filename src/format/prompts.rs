//! The section of prompts.

use byteorder::{ByteOrder, LittleEndian};

/// Index of the default prompt where there is none.
const NONE: u32 = u32::MAX;

/// A text that may stand before others, as in `config_sentence_transformers.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prompt<'a> {
    /// Its name, such as `query`.
    pub name: &'a str,
    /// What stands before the text, such as `query: `.
    pub text: &'a str,
}

/// The prompts of a model.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prompts<'a> {
    bytes: &'a [u8],
}

impl<'a> Prompts<'a> {
    /// Views the section, which may be empty: no prompts.
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Whether the section has an offset for each part, and the default prompt exists.
    pub(super) fn agree(&self) -> bool {
        let (count, default) = (self.len() as u64, self.number(1));
        self.bytes.len() as u64 >= 8 + 4 * (2 * count + 1)
            && default.is_some_and(|i| i == NONE || u64::from(i) < count)
    }

    fn number(&self, i: usize) -> Option<u32> {
        self.bytes.get(4 * i..4 * i + 4).map(LittleEndian::read_u32)
    }

    /// Number of prompts.
    pub fn len(&self) -> usize {
        self.number(0).unwrap_or(0) as usize
    }

    /// Whether the model has no prompts.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Prompt `i`; `None` if `i` is not below [`Prompts::len`], or if the file's bytes are not text.
    pub fn get(&self, i: usize) -> Option<Prompt<'a>> {
        if i >= self.len() {
            return None;
        }
        let part = |part: usize| {
            let offset = |i: usize| self.number(2 + i).map(|offset| offset as usize);
            let text = self.bytes.get(4 * (2 * self.len() + 3)..)?;
            std::str::from_utf8(text.get(offset(part)?..offset(part + 1)?)?).ok()
        };
        Some(Prompt { name: part(2 * i)?, text: part(2 * i + 1)? })
    }

    /// All prompts in order.
    pub fn iter(&self) -> impl Iterator<Item = Prompt<'a>> + use<'a> {
        let prompts = *self;
        (0..prompts.len()).map_while(move |i| prompts.get(i))
    }

    /// The prompt with this name.
    pub fn named(&self, name: &str) -> Option<Prompt<'a>> {
        self.iter().find(|prompt| prompt.name == name)
    }

    /// The prompt that stands before every text unless another is asked for.
    pub fn default_prompt(&self) -> Option<Prompt<'a>> {
        self.get(self.number(1)? as usize)
    }
}

/// Writes the section.
#[cfg(feature = "writer")]
pub(super) fn write(prompts: &[(String, String)], default: Option<usize>) -> Vec<u8> {
    let parts = || prompts.iter().flat_map(|(name, text)| [name, text]);
    let mut bytes = (prompts.len() as u32).to_le_bytes().to_vec();
    bytes.extend(default.map_or(NONE, |i| i as u32).to_le_bytes());
    let mut offset = 0u32;
    bytes.extend(offset.to_le_bytes());
    for part in parts() {
        offset += part.len() as u32;
        bytes.extend(offset.to_le_bytes());
    }
    bytes.extend(parts().flat_map(|part| part.bytes()));
    bytes
}
