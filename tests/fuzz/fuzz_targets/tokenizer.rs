//! Changes to a valid section, and a text. The first byte tells them apart.
#![no_main]

mod support;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((first, data)) = data.split_first() else { return };
    let (changes, text) = data.split_at((usize::from(*first) / 4 * 8).min(data.len()));
    if first % 4 == 3 {
        // As it is, however short.
        support::tokenize(changes, text);
        return;
    }
    let mut section = support::section().to_vec();
    support::change(&mut section, changes);
    support::tokenize(&section, text);
});
