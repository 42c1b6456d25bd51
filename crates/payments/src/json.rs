//! A small JSON reader that keeps what signatures and money need: the order of members, the original text, the literal of a number.
//!
//! It accepts exactly RFC 8259 in UTF-8, refuses lone surrogates (they have no character) and stops at [`DEEPEST`] nested levels, so
//! a body of brackets cannot exhaust the stack. An object that repeats a name keeps the first place and the last value, as PHP does;
//! [`members`] refuses repeated names on the top level.

use std::collections::{BTreeMap, BTreeSet};

/// How deep lists and objects may nest. Real bodies need four levels.
const DEEPEST: usize = 128;

/// A JSON value. Numbers stay text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Value>),
    Object(Vec<(String, Value)>),
}

/// Where and why reading stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub(crate) struct JsonError {
    at: usize,
    what: &'static str,
}

/// A member of the top-level object, with its original text.
pub(crate) struct Member<'a> {
    pub(crate) name: String,
    pub(crate) raw_name: &'a str,
    pub(crate) value: Value,
    pub(crate) raw_value: &'a str,
}

impl Value {
    /// The member of an object.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        match self {
            Value::Object(members) => members.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text of a member that is text and not empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Value::Text(text)) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// The characters of a member that is text or a number: how amounts and account ids come.
    pub(crate) fn literal(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Value::Number(literal)) => Some(literal),
            _ => self.text(name),
        }
    }

    /// A member that is true or false.
    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        match self.get(name) {
            Some(Value::Bool(flag)) => Some(*flag),
            _ => None,
        }
    }

    /// The entries of a member that is a list; none if it is not.
    pub(crate) fn list(&self, name: &str) -> &[Value] {
        match self.get(name) {
            Some(Value::List(entries)) => entries,
            _ => &[],
        }
    }

    pub(crate) fn is_object(&self) -> bool {
        matches!(self, Value::Object(_))
    }
}

/// Reads one document.
pub(crate) fn read(bytes: &[u8]) -> Result<Value, JsonError> {
    let mut reader = Reader::new(bytes)?;
    reader.space();
    let value = reader.value(DEEPEST)?;
    reader.end()?;
    Ok(value)
}

/// Reads a document that is an object without repeated names, keeping the original text of each member.
pub(crate) fn members(bytes: &[u8]) -> Result<Vec<Member<'_>>, JsonError> {
    let mut reader = Reader::new(bytes)?;
    reader.space();
    if reader.peek() != Some(b'{') {
        return Err(reader.error("an object was expected"));
    }
    let members = reader.object(DEEPEST)?;
    reader.end()?;
    if repeats(&members) {
        return Err(JsonError { at: 0, what: "a member name is repeated in the object that starts" });
    }
    Ok(members)
}

fn repeats(members: &[Member<'_>]) -> bool {
    let mut names = BTreeSet::new();
    members.iter().any(|member| !names.insert(member.name.as_str()))
}

/// An object's value: the last one of a repeated name, at the place of the first.
fn fold(members: Vec<Member<'_>>) -> Vec<(String, Value)> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut kept: Vec<(String, Value)> = Vec::with_capacity(members.len());
    for member in members {
        let place = places.get(&member.name).copied();
        match place {
            Some(place) => kept[place].1 = member.value,
            None => {
                places.insert(member.name.clone(), kept.len());
                kept.push((member.name, member.value));
            }
        }
    }
    kept
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Result<Reader<'a>, JsonError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Reader { text, at: 0 }),
            Err(error) => Err(JsonError { at: error.valid_up_to(), what: "invalid UTF-8" }),
        }
    }

    fn error(&self, what: &'static str) -> JsonError {
        JsonError { at: self.at, what }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Result<u8, JsonError> {
        let byte = self.peek().ok_or_else(|| self.error("the text ends early"))?;
        self.at += 1;
        Ok(byte)
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn end(&mut self) -> Result<(), JsonError> {
        self.space();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.error("text after the document")),
        }
    }

    fn value(&mut self, levels: usize) -> Result<Value, JsonError> {
        match self.peek() {
            Some(b'{') => Ok(Value::Object(fold(self.object(levels)?))),
            Some(b'[') => Ok(Value::List(self.list(levels)?)),
            Some(b'"') => Ok(Value::Text(self.string()?)),
            Some(b'-' | b'0'..=b'9') => Ok(Value::Number(self.number()?)),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            _ => Err(self.error("a value was expected")),
        }
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, JsonError> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.error("a value was expected"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn object(&mut self, levels: usize) -> Result<Vec<Member<'a>>, JsonError> {
        if levels == 0 {
            return Err(self.error("nested too deep"));
        }
        let text = self.text;
        let mut members = Vec::new();
        self.at += 1;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(members);
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.error("a member name was expected"));
            }
            let name_at = self.at;
            let name = self.string()?;
            let raw_name = &text[name_at..self.at];
            self.space();
            if self.next()? != b':' {
                return Err(self.error("a colon was expected"));
            }
            self.space();
            let value_at = self.at;
            let value = self.value(levels - 1)?;
            let raw_value = &text[value_at..self.at];
            members.push(Member { name, raw_name, value, raw_value });
            self.space();
            match self.next()? {
                b',' => {}
                b'}' => return Ok(members),
                _ => return Err(self.error("a comma or } was expected")),
            }
        }
    }

    fn list(&mut self, levels: usize) -> Result<Vec<Value>, JsonError> {
        if levels == 0 {
            return Err(self.error("nested too deep"));
        }
        let mut entries = Vec::new();
        self.at += 1;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(entries);
        }
        loop {
            self.space();
            entries.push(self.value(levels - 1)?);
            self.space();
            match self.next()? {
                b',' => {}
                b']' => return Ok(entries),
                _ => return Err(self.error("a comma or ] was expected")),
            }
        }
    }

    fn string(&mut self) -> Result<String, JsonError> {
        let text = self.text;
        let mut read = String::new();
        self.at += 1;
        loop {
            let from = self.at;
            while self.peek().is_some_and(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
                self.at += 1;
            }
            read.push_str(&text[from..self.at]);
            match self.next()? {
                b'"' => return Ok(read),
                b'\\' => read.push(self.escape()?),
                _ => return Err(self.error("a control character in a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        Ok(match self.next()? {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(),
            _ => return Err(self.error("an unknown escape")),
        })
    }

    /// After `\u`: one character, perhaps of two surrogates.
    fn unicode(&mut self) -> Result<char, JsonError> {
        let first = self.four_hex()?;
        if let Some(character) = char::from_u32(first) {
            return Ok(character);
        }
        if first >= 0xDC00 || self.next()? != b'\\' || self.next()? != b'u' {
            return Err(self.error("a lone surrogate"));
        }
        let second = self.four_hex()?;
        if !(0xDC00..0xE000).contains(&second) {
            return Err(self.error("a lone surrogate"));
        }
        let point = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
        char::from_u32(point).ok_or_else(|| self.error("a lone surrogate"))
    }

    fn four_hex(&mut self) -> Result<u32, JsonError> {
        let mut number = 0;
        for _ in 0..4 {
            let digit = char::from(self.next()?).to_digit(16);
            number = number * 16 + digit.ok_or_else(|| self.error("four hex digits were expected"))?;
        }
        Ok(number)
    }

    fn number(&mut self) -> Result<String, JsonError> {
        let from = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(self.text[from..self.at].to_string())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let from = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == from {
            return Err(self.error("a digit was expected"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_literal() {
        let value = read(br#"{"a":100.50,"b":"0.10","c":12345678901234567890.123456789,"d":-0,"e":1.0e-7}"#).unwrap();
        assert_eq!(value.literal("a"), Some("100.50"));
        assert_eq!(value.literal("b"), Some("0.10"));
        assert_eq!(value.literal("c"), Some("12345678901234567890.123456789"));
        assert_eq!(value.literal("d"), Some("-0"));
        assert_eq!(value.literal("e"), Some("1.0e-7"));
    }

    #[test]
    fn escapes_become_their_characters() {
        let value = read("{\"a\":\"\\u041e\\ud83d\\ude80\\/\\n\\u0001 №\u{7f}\"}".as_bytes()).unwrap();
        assert_eq!(value.text("a"), Some("О🚀/\n\u{1} №\u{7f}"));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        let wrong: [&[u8]; 24] = [
            b"",
            b" ",
            b"{",
            b"[1,]",
            b"{\"a\":1,}",
            b"{\"a\" 1}",
            b"{a:1}",
            b"01",
            b"1.",
            b".5",
            b"+1",
            b"1e",
            b"-",
            b"tru",
            b"TRUE",
            b"nul",
            b"\"a",
            b"\"a\nb\"",
            b"\"\\x\"",
            b"\"\\ud83d\"",
            b"\"\\ude80\\ud83d\"",
            b"\"\\ud83d\\u0041\"",
            b"\"\xff\"",
            b"1 2",
        ];
        for bytes in wrong {
            assert!(read(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_hundred_thousand_brackets_are_refused_without_harm() {
        let lists = "[".repeat(100_000);
        assert_eq!(read(lists.as_bytes()).unwrap_err().what, "nested too deep");
        let objects = "{\"a\":".repeat(100_000);
        assert_eq!(read(objects.as_bytes()).unwrap_err().what, "nested too deep");
        let fine = format!("{}{}", "[".repeat(DEEPEST), "]".repeat(DEEPEST));
        assert!(read(fine.as_bytes()).is_ok());
    }

    #[test]
    fn a_repeated_name_is_refused_on_the_top_and_folded_below() {
        assert!(members(br#"{"a":1,"b":2,"a":3}"#).is_err());
        assert!(members(br#"{"a":1,"\u0061":3}"#).is_err(), "the same name in other letters");
        let value = read(br#"{"o":{"a":1,"b":2,"a":3}}"#).unwrap();
        let inner = value.get("o").unwrap();
        let expected =
            vec![("a".to_string(), Value::Number("3".to_string())), ("b".to_string(), Value::Number("2".to_string()))];
        assert_eq!(inner, &Value::Object(expected));
    }

    #[test]
    fn members_keep_their_original_text() {
        let members = members(b" { \"a\" : [1, 2] , \"\\u0062\":\"\\/\" }\n").unwrap();
        let raw: Vec<(&str, &str)> = members.iter().map(|member| (member.raw_name, member.raw_value)).collect();
        assert_eq!(raw, [("\"a\"", "[1, 2]"), ("\"\\u0062\"", "\"\\/\"")]);
        assert_eq!(members[1].name, "b");
    }
}
