//! What the targets share.
#![allow(dead_code)] // No target uses all of it.

use std::sync::OnceLock;

use bertlet::tokenizer::writer::{self, Class, Mark, Rule, Spec, SpecialTokens};
use bertlet::tokenizer::{Limits, Settings, TokenBuffer, Tokenizer, convert_offsets};

/// Changes `bytes` as `data` says: one byte at a place, a number at a place, a cut or a copy.
/// Places are often near the front, where headers are.
pub fn change(bytes: &mut Vec<u8>, data: &[u8]) {
    for op in data.chunks_exact(8) {
        if bytes.is_empty() {
            return;
        }
        let value = u32::from_le_bytes([op[4], op[5], op[6], op[7]]);
        let place = usize::from(u16::from_le_bytes([op[1], op[2]]));
        let place = match op[3] % 4 {
            0 => place,
            1 => place % 512,
            2 => place << 8 | usize::from(op[3] >> 2),
            _ => bytes.len().saturating_sub(1 + place),
        } % bytes.len();
        match op[0] % 8 {
            0..=2 => bytes[place] = op[4],
            3 => bytes[place] ^= 1 << (op[4] % 8),
            4 => {
                let end = bytes.len().min(place + 4);
                bytes[place..end].copy_from_slice(&value.to_le_bytes()[..end - place]);
            }
            5 => bytes.truncate(place),
            6 => bytes.extend_from_slice(&op[4..]),
            _ => {
                let length = (value as usize % 64).min(bytes.len() - place);
                let from = value as usize % bytes.len();
                let from = from.min(bytes.len() - length);
                bytes.copy_within(from..from + length, place);
            }
        }
    }
}

/// A valid tokenizer section with a rule of each sort. They are not the reference's, which would take
/// a minute to ask.
pub fn section() -> &'static [u8] {
    static SECTION: OnceLock<Vec<u8>> = OnceLock::new();
    SECTION.get_or_init(|| {
        let vocab = include_str!("../../../convert/tests/fixtures/micro/vocab.txt");
        let vocab: Vec<String> = vocab.lines().map(str::to_owned).collect();
        let rules: Vec<Rule> = (0..0x11_0000).map(rule).collect();
        writer::write(&Spec {
            settings: Settings::UNCASED,
            vocab: &vocab,
            continuation_prefix: "##",
            specials: &SpecialTokens::default(),
            added: &[],
            rules: &rules,
        })
        .expect("a section")
    })
}

fn rule(code: u32) -> Rule {
    let Some(c) = char::from_u32(code) else { return Rule::Drop };
    let expand = |starters: &str, marks: Vec<Mark>| Rule::Expand {
        starters: starters.chars().map(|c| (c, Class::Word)).collect(),
        anchor: !starters.is_empty(),
        marks,
    };
    let mark = |rank, remains| Mark { rank, remains };
    match c {
        c if c.is_whitespace() => Rule::Keep(Class::Space),
        c if c.is_control() => Rule::Drop,
        c if c.is_ascii_punctuation() => Rule::Keep(Class::Isolated),
        '\u{4e00}'..='\u{9fff}' => Rule::Keep(Class::Isolated),
        '\u{ac00}'..='\u{d7a3}' => Rule::Hangul,
        'A'..='Z' => expand(&c.to_ascii_lowercase().to_string(), vec![]),
        'é' => expand("e", vec![mark(1, None)]),
        'ế' => expand("e", vec![mark(2, Some(('\u{302}', Class::Word))), mark(1, None)]),
        'ﬃ' => expand("ffi", vec![]),
        '\u{300}'..='\u{36f}' => {
            let remains = (code % 2 == 0).then_some((c, Class::Word));
            expand("", vec![mark(1 + (code % 3) as u8, remains)])
        }
        _ => Rule::Keep(Class::Word),
    }
}

/// Everything that a tokenizer can be asked about a text.
pub fn tokenize(section: &[u8], text: &[u8]) {
    let Ok(tokenizer) = Tokenizer::from_bytes(section) else { return };
    for id in [0, 1, 100, tokenizer.vocab_size() as u32, u32::MAX] {
        let _ = tokenizer.token(id);
    }
    let _ = (tokenizer.settings(), tokenizer.pad_id(), tokenizer.mask_id());
    if let Ok(text) = std::str::from_utf8(text) {
        let _ = tokenizer.id(text);
    }
    let _ = tokenizer.count(text);
    let (mut ids, mut type_ids) = ([0; 40], [0; 40]);
    let (mut offsets, mut words) = ([(0, 0); 40], [0; 40]);
    let (first, second) = text.split_at(text.len() / 2);
    for (text, pair) in [(text, None), (first, Some(second))] {
        for length in [2, 3, 16, 40] {
            let mut out = TokenBuffer {
                input_ids: &mut ids,
                token_type_ids: &mut type_ids,
                offsets: &mut offsets,
                words: &mut words,
            };
            if let Ok(encoded) = tokenizer.encode(text, pair, &Limits::new(length), &mut out) {
                assert!(encoded.len <= length);
                if pair.is_none() {
                    for (start, end) in &offsets[..encoded.len] {
                        assert!(start <= end && *end as usize <= text.len(), "offsets");
                    }
                    let offsets = &mut offsets[..encoded.len];
                    convert_offsets(text, offsets, bertlet::tokenizer::OffsetUnit::Utf16);
                }
            }
            let mut out = TokenBuffer { input_ids: &mut ids, ..TokenBuffer::default() };
            if let Ok(mut windows) = tokenizer.windows(text, pair, &Limits::new(length), 1) {
                for _ in 0..20 {
                    match windows.next_into(&mut out) {
                        Ok(Some(_)) => {}
                        _ => break,
                    }
                }
            }
        }
    }
}
