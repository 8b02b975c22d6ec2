//! The built-in texts, and texts as token ids.

use bertlet::tokenizer::{Limits, TokenBuffer, TokenizeError, Tokenizer};

use crate::reference::Sequence;

/// The default calibration texts, one per line.
pub const CALIBRATION: &str = include_str!("calibration.txt");
/// The texts that errors are measured on, one per line. They are never calibrated on.
pub const HELD_OUT: &str = include_str!("heldout.txt");

/// Turns lines into sequences of at most `length` tokens. A tab separates the two texts of a pair.
///
/// # Errors
/// If `length` is too short for the special tokens.
pub fn sequences(
    tokenizer: &Tokenizer<'_>,
    lines: &str,
    length: usize,
) -> Result<Vec<Sequence>, TokenizeError> {
    lines.lines().map(|line| sequence(tokenizer, line, length)).collect()
}

/// Turns one line into a sequence.
fn sequence(
    tokenizer: &Tokenizer<'_>,
    line: &str,
    length: usize,
) -> Result<Sequence, TokenizeError> {
    let (first, second) = match line.split_once('\t') {
        Some((first, second)) => (first, Some(second)),
        None => (line, None),
    };
    // No text has more tokens than bytes.
    let room = length.min(line.len() + 3);
    let (mut ids, mut types) = (vec![0; room], vec![0; room]);
    let mut buffer =
        TokenBuffer { input_ids: &mut ids, token_type_ids: &mut types, ..TokenBuffer::default() };
    let encoded = tokenizer.encode(first, second, &Limits::new(length), &mut buffer)?;
    ids.truncate(encoded.len);
    let types = types[..encoded.len].iter().map(|&kind| kind.into()).collect();
    Ok(Sequence { ids, types })
}

/// Lengths in tokens of the joined inputs of the calibration.
pub const JOINED: [usize; 4] = [512, 256, 128, 64];

/// The calibration inputs made from `lines`: each line, lines joined to inputs of the lengths `joined` (so that
/// late positions occur, see [`JOINED`]), and two empty texts.
///
/// # Errors
/// If `positions` is too short for the special tokens.
pub fn calibration(
    tokenizer: &Tokenizer<'_>,
    lines: &str,
    positions: usize,
    joined: &[usize],
) -> Result<Vec<Sequence>, TokenizeError> {
    let mut batch = sequences(tokenizer, lines, positions)?;
    let all: Vec<&str> = lines.lines().filter(|line| !line.is_empty()).collect();
    for (i, &length) in joined.iter().enumerate().filter(|_| !all.is_empty()) {
        // Each starts at another line and takes other lines, so that scripts and lengths mix.
        let step = if i % 2 == 0 { 7 } else { 1 };
        let mut text = String::new();
        let mut at = i * all.len() / joined.len();
        while text.len() < 6 * length {
            text.push_str(all[at % all.len()].split('\t').next().unwrap_or_default());
            text.push(' ');
            at += step;
        }
        batch.push(sequence(tokenizer, &text, length.min(positions))?);
    }
    batch.extend(sequences(tokenizer, "\n\n", positions)?);
    Ok(batch)
}
