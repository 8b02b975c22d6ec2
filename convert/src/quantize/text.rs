//! The built-in calibration text, as token ids.

use tokenizers::Tokenizer;

use crate::reference::Sequence;

/// Lines that the quantiser calibrates on when the user gives none.
pub const CALIBRATION: &str = include_str!("calibration.txt");
/// Lines that it never sees: the error report is measured on them.
pub const HELD_OUT: &str = include_str!("heldout.txt");

/// Turns lines into sequences; a tab separates the two texts of a pair. Longer than `positions` is cut.
///
/// # Errors
/// What the tokenizer says.
pub fn sequences(
    tokenizer: &Tokenizer,
    lines: &str,
    positions: usize,
) -> tokenizers::Result<Vec<Sequence>> {
    let encode = |line: &str| {
        let encoding = match line.split_once('\t') {
            Some((first, second)) => tokenizer.encode((first, second), true),
            None => tokenizer.encode(line, true),
        }?;
        let mut sequence =
            Sequence { ids: encoding.get_ids().to_vec(), types: encoding.get_type_ids().to_vec() };
        cut(&mut sequence, positions);
        Ok(sequence)
    };
    lines.lines().map(encode).collect()
}

/// Shortens a sequence, keeping its last token (`[SEP]`).
fn cut(sequence: &mut Sequence, length: usize) {
    if let Some(&last) = sequence.ids.last().filter(|_| sequence.ids.len() > length) {
        sequence.ids.truncate(length - 1);
        sequence.types.truncate(length);
        sequence.ids.push(last);
    }
}

/// Lengths that lines are joined to for calibration.
pub const JOINED: [usize; 4] = [512, 256, 128, 64];

/// The calibration set made from `lines`: the lines one by one, an empty text, and lines joined to inputs of
/// the lengths `joined` (see [`JOINED`]), so that late positions are seen.
///
/// # Errors
/// What the tokenizer says.
pub fn calibration(
    tokenizer: &Tokenizer,
    lines: &str,
    positions: usize,
    joined: &[usize],
) -> tokenizers::Result<Vec<Sequence>> {
    let mut batch = sequences(tokenizer, lines, positions)?;
    let all: Vec<&str> = lines.lines().collect();
    for (i, &length) in joined.iter().enumerate() {
        // Each starts elsewhere and strides through the lines, so that scripts and lengths mix.
        let step = if i % 2 == 0 { 7 } else { 1 };
        let mut text = String::new();
        let mut at = i * all.len() / joined.len().max(1);
        while text.len() < 6 * length {
            text.push_str(all[at % all.len()].split('\t').next().unwrap_or_default());
            text.push(' ');
            at += step;
        }
        let mut long = sequences(tokenizer, &text, usize::MAX)?;
        if let Some(mut sequence) = long.pop() {
            cut(&mut sequence, length.min(positions));
            batch.push(sequence);
        }
    }
    batch.extend(sequences(tokenizer, "\n\n", positions)?);
    Ok(batch)
}
