//! JSON in; and out, straight into a buffer. Numbers are the shortest text that reads back as the same f32.

mod read;

use std::fmt::Display;
use std::io::Write;

pub use read::{Value, parse};

/// Writes a JSON object. Each method adds a field.
pub struct Object<'b> {
    out: &'b mut Vec<u8>,
    empty: bool,
}

impl<'b> Object<'b> {
    pub fn new(out: &'b mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    /// Starts a field, whose value the caller writes next.
    pub fn field(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        string(self.out, name);
        self.out.push(b':');
        self.out
    }

    pub fn string(&mut self, name: &str, value: &str) -> &mut Self {
        string(self.field(name), value);
        self
    }

    /// A whole number or a truth value.
    pub fn plain(&mut self, name: &str, value: impl Display) -> &mut Self {
        plain(self.field(name), value);
        self
    }

    pub fn float(&mut self, name: &str, value: f32) -> &mut Self {
        float(self.field(name), value);
        self
    }

    pub fn floats(&mut self, name: &str, values: &[f32]) -> &mut Self {
        floats(self.field(name), values);
        self
    }

    /// A list of anything.
    pub fn list<T>(
        &mut self,
        name: &str,
        values: impl IntoIterator<Item = T>,
        write: impl FnMut(&mut Vec<u8>, T),
    ) -> &mut Self {
        list(self.field(name), values, write);
        self
    }

    /// An object in this one.
    pub fn object(&mut self, name: &str, fill: impl FnOnce(&mut Object<'_>)) -> &mut Self {
        object(self.field(name), fill);
        self
    }

    pub fn end(self) {
        self.out.push(b'}');
    }
}

pub fn object(out: &mut Vec<u8>, fill: impl FnOnce(&mut Object<'_>)) {
    let mut object = Object::new(out);
    fill(&mut object);
    object.end();
}

pub fn list<T>(
    out: &mut Vec<u8>,
    values: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (i, value) in values.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(out, value);
    }
    out.push(b']');
}

pub fn string(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            b'\n' => out.extend(b"\\n"),
            b'\t' => out.extend(b"\\t"),
            0..b' ' => write!(out, "\\u{byte:04x}").expect("memory takes everything"),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

pub fn plain(out: &mut Vec<u8>, value: impl Display) {
    write!(out, "{value}").expect("memory takes everything");
}

/// NaN and infinities become `null`: JSON cannot write them.
pub fn float(out: &mut Vec<u8>, value: f32) {
    if value.is_finite() {
        write!(out, "{value:?}").expect("memory takes everything");
    } else {
        out.extend(b"null");
    }
}

pub fn floats(out: &mut Vec<u8>, values: &[f32]) {
    list(out, values, |out, value| float(out, *value));
}

/// A pair of whole numbers.
pub fn pair(out: &mut Vec<u8>, (a, b): (u32, u32)) {
    write!(out, "[{a},{b}]").expect("memory takes everything");
}
