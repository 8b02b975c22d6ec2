//! JSON in (RFC 8259).

use std::fmt;

/// Lists and objects in one another at most.
const DEEPEST: usize = 128;

/// A value as it was written.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'t> {
    Object(Vec<(String, Value<'t>)>),
    Array(Vec<Value<'t>>),
    String(String),
    /// A number, `true`, `false` or `null`.
    Plain(&'t str),
}

impl Value<'_> {
    /// The field of that name, the last where there are several; `None` where there is none or it is `null`.
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Self::Object(fields) = self else { return None };
        let (_, value) = fields.iter().rfind(|(other, _)| other == name)?;
        (*value != Self::Plain("null")).then_some(value)
    }

    pub fn as_u64(&self) -> Option<u64> {
        if let Self::Plain(text) = self { text.parse().ok() } else { None }
    }
}

/// JSON on one line.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let comma = |i| if i > 0 { "," } else { "" };
        match self {
            Self::Object(fields) => {
                f.write_str("{")?;
                for (i, (name, value)) in fields.iter().enumerate() {
                    write!(f, "{}{}:{value}", comma(i), Self::String(name.clone()))?;
                }
                f.write_str("}")
            }
            Self::Array(values) => {
                f.write_str("[")?;
                for (i, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", comma(i))?;
                }
                f.write_str("]")
            }
            Self::String(text) => {
                let mut out = Vec::new();
                super::string(&mut out, text);
                f.write_str(&String::from_utf8_lossy(&out))
            }
            Self::Plain(text) => f.write_str(text),
        }
    }
}

/// Why and where a text is not JSON.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Error {
    expected: &'static str,
    /// Bytes before it.
    at: usize,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: expected {}", self.at, self.expected)
    }
}

/// Reads one value. Anything after it is an error.
pub fn parse(text: &str) -> Result<Value<'_>, Error> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    reader.space();
    if reader.at < text.len() { Err(reader.expected("the end")) } else { Ok(value) }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn expected(&self, expected: &'static str) -> Error {
        Error { expected, at: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Goes past the byte if it comes next.
    fn eat(&mut self, byte: u8) -> bool {
        let comes = self.peek() == Some(byte);
        self.at += usize::from(comes);
        comes
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value<'t>, Error> {
        if depth > DEEPEST {
            return Err(self.expected("less nesting"));
        }
        self.space();
        match self.peek() {
            Some(b'{') => {
                let mut fields = Vec::new();
                self.list(b'}', |reader| {
                    reader.space();
                    let name = reader.string()?;
                    reader.space();
                    if !reader.eat(b':') {
                        return Err(reader.expected("`:`"));
                    }
                    fields.push((name, reader.value(depth + 1)?));
                    Ok(())
                })?;
                Ok(Value::Object(fields))
            }
            Some(b'[') => {
                let mut values = Vec::new();
                self.list(b']', |reader| {
                    values.push(reader.value(depth + 1)?);
                    Ok(())
                })?;
                Ok(Value::Array(values))
            }
            Some(b'"') => Ok(Value::String(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => {
                let rest = &self.text[self.at..];
                let word = ["true", "false", "null"].into_iter().find(|w| rest.starts_with(w));
                let word = word.ok_or(self.expected("a value"))?;
                self.at += word.len();
                Ok(Value::Plain(word))
            }
        }
    }

    /// What stands between brackets, with commas between items.
    fn list(
        &mut self,
        end: u8,
        mut item: impl FnMut(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.at += 1;
        self.space();
        if self.eat(end) {
            return Ok(());
        }
        loop {
            item(self)?;
            self.space();
            if self.eat(end) {
                return Ok(());
            }
            if !self.eat(b',') {
                return Err(self.expected("`,` or the end of the list"));
            }
        }
    }

    fn digits(&mut self) -> Result<(), Error> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.expected("a digit")) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<Value<'t>, Error> {
        let start = self.at;
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _ = self.eat(b'+') || self.eat(b'-');
            self.digits()?;
        }
        Ok(Value::Plain(&self.text[start..self.at]))
    }

    fn string(&mut self) -> Result<String, Error> {
        if !self.eat(b'"') {
            return Err(self.expected("`\"`"));
        }
        let mut string = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.find(|c| c == '"' || c == '\\' || c < ' ').unwrap_or(rest.len());
            string.push_str(&rest[..plain]);
            self.at += plain;
            if self.eat(b'"') {
                return Ok(string);
            }
            if !self.eat(b'\\') {
                return Err(self.expected("`\"`"));
            }
            string.push(self.escape()?);
        }
    }

    fn escape(&mut self) -> Result<char, Error> {
        let wrong = self.expected("an escape");
        let byte = self.peek().ok_or(wrong)?;
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => byte.into(),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.unit(wrong)?;
                // Beyond the basic plane: two units of UTF-16, each with its own escape.
                let second = match first {
                    0xd800..0xdc00 if self.eat(b'\\') && self.eat(b'u') => Some(self.unit(wrong)?),
                    _ => None,
                };
                let mut chars = char::decode_utf16([first].into_iter().chain(second));
                match (chars.next(), chars.next()) {
                    (Some(Ok(c)), None) => c,
                    _ => return Err(wrong),
                }
            }
            _ => return Err(wrong),
        })
    }

    /// Four hexadecimal digits.
    fn unit(&mut self, wrong: Error) -> Result<u16, Error> {
        let digits = self.text.get(self.at..self.at + 4).ok_or(wrong)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong);
        }
        self.at += 4;
        u16::from_str_radix(digits, 16).map_err(|_| wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(ours: &Value<'_>, theirs: &serde_json::Value) -> bool {
        match (ours, theirs) {
            (Value::Object(a), serde_json::Value::Object(b)) => {
                b.iter().all(|(name, b)| {
                    a.iter().rfind(|(n, _)| n == name).is_some_and(|(_, a)| same(a, b))
                }) && a.iter().all(|(name, _)| b.contains_key(name))
            }
            (Value::Array(a), serde_json::Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
            }
            (Value::String(a), serde_json::Value::String(b)) => a == b,
            (Value::Plain(a), b) => serde_json::from_str::<serde_json::Value>(a).unwrap() == *b,
            _ => false,
        }
    }

    #[test]
    fn what_serde_json_reads_is_read_alike_and_the_rest_refused() {
        let seeds = [
            r#" {"a" : [1, -2.5e+3, 0, true, false, null], "b":{"":"\u00e9\ud83d\ude00\n\"\/"}, "a":[]} "#,
            r#"["é😀", {}, [[]], 1E5, 0.1, "\b\f\r\t\\", ""]"#,
            r#""\ud800""#,
            r#""\ude00\ud83d""#,
            "7",
            "",
        ];
        let bytes = b"{}[]\",:\\u0d8eE.+-1 9tnx\n\x01";
        let mut state = 1_u32;
        let mut random = |n: usize| {
            state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
            (state >> 16) as usize % n
        };
        let (mut read, mut refused) = (0, 0);
        for seed in seeds {
            for round in 0..4000 {
                let mut text = seed.as_bytes().to_vec();
                for _ in 0..(round % 4).min(text.len()) {
                    let (at, byte) = (random(text.len()), bytes[random(bytes.len())]);
                    match random(3) {
                        0 => text[at] = byte,
                        1 => text.insert(at, byte),
                        _ => drop(text.remove(at)),
                    }
                    if text.is_empty() {
                        break;
                    }
                }
                let Ok(text) = String::from_utf8(text) else { continue };
                match (parse(&text), serde_json::from_str::<serde_json::Value>(&text)) {
                    (Ok(ours), Ok(theirs)) => {
                        assert!(same(&ours, &theirs), "{text}");
                        let again = ours.to_string();
                        assert_eq!(parse(&again).as_ref(), Ok(&ours), "{text}");
                        read += 1;
                    }
                    (Err(_), Err(_)) => refused += 1,
                    // Here a number is what is written, however large.
                    (Ok(_), Err(error)) if error.to_string().contains("out of range") => {}
                    (ours, theirs) => panic!("{text}\n{ours:?}\n{theirs:?}"),
                }
            }
        }
        assert!(read > 4000 && refused > 4000, "{read} {refused}");
    }

    #[test]
    fn nesting_ends() {
        assert!(parse(&"[".repeat(1 << 20)).is_err());
        assert!(parse(&("[".repeat(128) + &"]".repeat(128))).is_ok());
    }

    #[test]
    fn fields() {
        let value = parse(r#"{"a":1,"b":null,"a":2}"#).unwrap();
        assert_eq!(value.get("a").and_then(Value::as_u64), Some(2));
        assert_eq!(value.get("b"), None);
        assert_eq!(parse("-1").unwrap().as_u64(), None);
        assert_eq!(
            parse("[1,2").unwrap_err().to_string(),
            "byte 4: expected `,` or the end of the list"
        );
    }
}
