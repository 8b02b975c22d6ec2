//! Texts of others, as a terminal can show them.

use std::fmt::{self, Display, Write};

/// Displays its value with control characters, line breaks and changes of the writing direction escaped,
/// so that a name from a model or a checkpoint stays on its line and cannot drive a terminal.
///
/// ```
/// assert_eq!(bertlet::Printable("red \u{1b}[31m\nLOC").to_string(), r"red \u{1b}[31m\nLOC");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Printable<T>(pub T);

impl Printable<char> {
    /// Whether the character is shown as it is.
    pub fn is_plain(self) -> bool {
        !self.0.is_control() && !matches!(self.0, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    }
}

impl Printable<&str> {
    /// The same for a text of JSON, whose strings escape all that is below a space: it stays JSON.
    pub fn json(self) -> String {
        let mut out = String::with_capacity(self.0.len());
        for c in self.0.chars() {
            match c < ' ' || Printable(c).is_plain() {
                true => out.push(c),
                false => write!(out, "\\u{:04x}", u32::from(c)).expect("memory takes everything"),
            }
        }
        out
    }
}

impl<T: Display> Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escape(f), "{}", self.0)
    }
}

struct Escape<'f, 'w>(&'f mut fmt::Formatter<'w>);

impl Write for Escape<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match Printable(c).is_plain() {
            true => self.0.write_char(c),
            false => write!(self.0, "{}", c.escape_default()),
        })
    }
}
