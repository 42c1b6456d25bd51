//! From a sound input to one that nobody would send: bytes, words, numbers, and JSON that two readers could read differently.

use serde_json::{Map, Value};

/// Words that trouble parsers whatever they parse.
const WORDS: &[&str] = &[
    "null",
    "true",
    "\"\"",
    "{}",
    "[]",
    "0",
    "-0",
    "-1",
    "1e400",
    "1e-7",
    "0.10",
    "0x10",
    "NaN",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551616",
    "\\u0000",
    "\\ud83d",
    "\\ud83d\\ude80",
    "\u{feff}",
    "\u{202e}",
    "\u{2028}",
    "\u{300}",
    "١",
    "ё",
    "🚀",
    "\r\n",
    "\n\n",
    "\t",
    "\0",
    "\u{7f}",
    "%00",
    "%2e%2e%2f",
    "../",
    "' or 1=1; --",
    "<b>",
    "</",
    "&amp;",
    "amount",
    "currency",
    "status",
    "RUB",
    "1.00",
];

/// Numbers at the ends of what types hold, as a document may write them.
const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "1",
    "-1",
    "00",
    "255",
    "256",
    "65536",
    "2147483648",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999999999999999999999999999999",
    "0.1",
    "0.29",
    "1.005",
    "0.000000000000000001",
    "1e5",
    "1E400",
    "1e-400",
    "92233720368547758.07",
    "92233720368547758.08",
];

/// Bytes that are no UTF-8: alone, overlong, a surrogate, beyond the last character, cut off.
const BROKEN: &[&[u8]] =
    &[b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80", b"\xf0\x9f"];

/// Stands where a member is written twice; no input holds it by chance.
const PLACE: &str = "\u{1}twice\u{1}";

/// Makes inputs from inputs. The same seed makes the same inputs.
pub struct Mutator {
    rng: fastrand::Rng,
    words: &'static [&'static str],
}

impl Mutator {
    /// `words` are those of one target, beside the common ones.
    pub fn new(seed: u64, words: &'static [&'static str]) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed), words }
    }

    /// One of `pool`, changed in one to eight places, at most `longest` bytes.
    pub fn next(&mut self, pool: &[Vec<u8>], longest: usize) -> Vec<u8> {
        let mut input = if pool.is_empty() { Vec::new() } else { pool[self.rng.usize(0..pool.len())].clone() };
        let changes = 1 + self.rng.u32(0..8).min(self.rng.u32(0..8));
        for _ in 0..changes {
            self.change(&mut input, pool);
            input.truncate(longest);
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, pool: &[Vec<u8>]) {
        match self.rng.u32(0..18) {
            0 => self.flip_bit(input),
            1 => self.set_byte(input),
            2 => self.insert_bytes(input),
            3 => self.delete_chunk(input),
            4 => self.copy_chunk(input),
            5 => self.splice(input, pool),
            6 | 7 => self.insert_word(input),
            8 => self.replace_number(input),
            9 => self.break_utf8(input),
            10 => self.cut(input),
            11 => self.nest(input),
            12 => self.escape(input),
            _ => self.change_json(input),
        }
    }

    /// A place between two bytes, the ends included.
    fn place(&mut self, input: &[u8]) -> usize {
        self.rng.usize(0..=input.len())
    }

    fn chunk(&mut self, input: &[u8]) -> std::ops::Range<usize> {
        let from = self.place(input);
        let most = (input.len() - from).min(64);
        let len = self.rng.usize(0..=most);
        from..from + len
    }

    fn insert(&mut self, input: &mut Vec<u8>, bytes: &[u8]) {
        let at = self.place(input);
        input.splice(at..at, bytes.iter().copied());
    }

    fn flip_bit(&mut self, input: &mut [u8]) {
        if !input.is_empty() {
            let at = self.rng.usize(0..input.len());
            input[at] ^= 1 << self.rng.u32(0..8);
        }
    }

    fn set_byte(&mut self, input: &mut [u8]) {
        if !input.is_empty() {
            let at = self.rng.usize(0..input.len());
            input[at] = self.rng.u8(..);
        }
    }

    fn insert_bytes(&mut self, input: &mut Vec<u8>) {
        let count = self.rng.usize(1..=8);
        let bytes: Vec<u8> = (0..count).map(|_| self.rng.u8(..)).collect();
        self.insert(input, &bytes);
    }

    fn delete_chunk(&mut self, input: &mut Vec<u8>) {
        let chunk = self.chunk(input);
        input.drain(chunk);
    }

    fn copy_chunk(&mut self, input: &mut Vec<u8>) {
        let range = self.chunk(input);
        let chunk = input[range].to_vec();
        let times = if self.rng.u32(0..8) == 0 { self.rng.usize(2..200) } else { 1 };
        self.insert(input, &chunk.repeat(times));
    }

    fn splice(&mut self, input: &mut Vec<u8>, pool: &[Vec<u8>]) {
        if pool.is_empty() {
            return;
        }
        let other = &pool[self.rng.usize(0..pool.len())];
        let range = self.chunk(other);
        let chunk = other[range].to_vec();
        self.insert(input, &chunk);
    }

    fn word(&mut self) -> &'static str {
        let all = WORDS.len() + self.words.len();
        let at = self.rng.usize(0..all);
        if at < WORDS.len() { WORDS[at] } else { self.words[at - WORDS.len()] }
    }

    fn insert_word(&mut self, input: &mut Vec<u8>) {
        let word = self.word();
        if self.rng.bool() {
            return self.insert(input, word.as_bytes());
        }
        let chunk = self.chunk(input);
        input.splice(chunk, word.bytes());
    }

    fn replace_number(&mut self, input: &mut Vec<u8>) {
        let starts: Vec<usize> = (0..input.len())
            .filter(|at| input[*at].is_ascii_digit() && (*at == 0 || !input[*at - 1].is_ascii_digit()))
            .collect();
        if starts.is_empty() {
            return;
        }
        let from = starts[self.rng.usize(0..starts.len())];
        let len = input[from..].iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
        let number = NUMBERS[self.rng.usize(0..NUMBERS.len())];
        input.splice(from..from + len, number.bytes());
    }

    fn break_utf8(&mut self, input: &mut Vec<u8>) {
        let bytes = BROKEN[self.rng.usize(0..BROKEN.len())];
        self.insert(input, bytes);
    }

    fn cut(&mut self, input: &mut Vec<u8>) {
        let at = self.place(input);
        input.truncate(at);
    }

    fn nest(&mut self, input: &mut Vec<u8>) {
        let (open, most) = [("[", 12_000), ("{\"a\":", 2_500), ("[{\"a\":", 2_000)][self.rng.usize(0..3)];
        let levels = if self.rng.bool() { self.rng.usize(1..200) } else { self.rng.usize(1..most) };
        self.insert(input, open.repeat(levels).as_bytes());
    }

    /// The same character in other letters.
    fn escape(&mut self, input: &mut Vec<u8>) {
        let plain: Vec<usize> = (0..input.len()).filter(|at| input[*at].is_ascii_alphanumeric()).collect();
        if plain.is_empty() {
            return;
        }
        let at = plain[self.rng.usize(0..plain.len())];
        let escaped = format!("\\u{:04x}", input[at]);
        input.splice(at..=at, escaped.bytes());
    }

    /// Changes a value of a JSON document, or writes a member twice. The document is the whole input, or what follows its
    /// first line.
    fn change_json(&mut self, input: &mut Vec<u8>) {
        let head = match serde_json::from_slice::<Value>(input) {
            Ok(_) => 0,
            Err(_) => input.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1),
        };
        let Ok(mut value) = serde_json::from_slice::<Value>(&input[head..]) else {
            return self.insert_word(input);
        };
        let text = if self.rng.u32(0..4) == 0 {
            self.twice(&mut value)
        } else {
            self.spoil_somewhere(&mut value, 8);
            value.to_string()
        };
        input.truncate(head);
        input.extend_from_slice(text.as_bytes());
    }

    /// The document with one member of one object written twice.
    fn twice(&mut self, value: &mut Value) -> String {
        let Value::Object(members) = value else { return value.to_string() };
        let inner: Vec<String> =
            members.iter().filter(|(_, value)| value.is_object()).map(|(name, _)| name.clone()).collect();
        if inner.is_empty() || self.rng.bool() {
            return self.with_a_member_twice(members);
        }
        let name = &inner[self.rng.usize(0..inner.len())];
        let Some(place) = members.get_mut(name) else { return value.to_string() };
        let mut object = std::mem::replace(place, Value::from(PLACE));
        let inside = match &mut object {
            Value::Object(members) => self.with_a_member_twice(members),
            other => other.to_string(),
        };
        value.to_string().replace(&Value::from(PLACE).to_string(), &inside)
    }

    fn with_a_member_twice(&mut self, members: &Map<String, Value>) -> String {
        let text = Value::Object(members.clone()).to_string();
        if members.is_empty() {
            return text;
        }
        let Some((name, value)) = members.iter().nth(self.rng.usize(0..members.len())) else { return text };
        let mut second = value.clone();
        if self.rng.bool() {
            self.spoil(&mut second);
        }
        format!("{},{}:{second}}}", &text[..text.len() - 1], Value::from(name.as_str()))
    }

    fn spoil_somewhere(&mut self, value: &mut Value, levels: u32) {
        let deeper = levels > 0 && self.rng.u32(0..4) > 0;
        match value {
            Value::Object(members) if deeper && !members.is_empty() => {
                let at = self.rng.usize(0..members.len());
                if let Some(inner) = members.values_mut().nth(at) {
                    self.spoil_somewhere(inner, levels - 1);
                }
            }
            Value::Array(entries) if deeper && !entries.is_empty() => {
                let at = self.rng.usize(0..entries.len());
                self.spoil_somewhere(&mut entries[at], levels - 1);
            }
            other => self.spoil(other),
        }
    }

    fn spoil(&mut self, value: &mut Value) {
        *value = match self.rng.u32(0..12) {
            0 => Value::Null,
            1 => Value::Bool(self.rng.bool()),
            2 | 3 => {
                let number = NUMBERS[self.rng.usize(0..NUMBERS.len())];
                serde_json::from_str(number).unwrap_or(Value::Null)
            }
            4 => Value::from(NUMBERS[self.rng.usize(0..NUMBERS.len())]),
            5 => Value::from(self.word()),
            6 => Value::from("x".repeat(self.rng.usize(0..5_000))),
            7 => Value::Array(vec![value.take()]),
            8 => Value::Array(vec![value.clone(); self.rng.usize(0..40)]),
            9 => {
                let mut members = Map::new();
                members.insert(self.word().to_owned(), value.take());
                Value::Object(members)
            }
            10 => {
                let mut left = value.take();
                if let Value::Object(members) = &mut left {
                    let name = members.keys().nth(self.rng.usize(0..members.len().max(1))).cloned();
                    if let Some(name) = name {
                        members.remove(&name);
                    }
                }
                left
            }
            _ => {
                let mut more = value.take();
                if let Value::Object(members) = &mut more {
                    members.insert(self.word().to_owned(), Value::from(self.word()));
                }
                more
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs() {
        let pool = vec![br#"{"a":{"b":1},"c":[true,"x"]}"#.to_vec(), b"200 7\n{\"a\":1}".to_vec()];
        let made = |seed| {
            let mut mutator = Mutator::new(seed, &["word"]);
            (0..500).map(|_| mutator.next(&pool, 1_000)).collect::<Vec<_>>()
        };
        assert_eq!(made(7), made(7));
        assert_ne!(made(7), made(8));
        assert!(made(7).iter().all(|input| input.len() <= 1_000));
    }

    #[test]
    fn a_member_can_be_written_twice() {
        let pool = vec![br#"{"amount":"1","inner":{"deep":"2"}}"#.to_vec()];
        let mut mutator = Mutator::new(3, &[]);
        let texts = (0..5_000).map(|_| String::from_utf8_lossy(&mutator.next(&pool, 4_000)).into_owned());
        let twice = |text: &String, name: &str| text.matches(&format!("\"{name}\":")).count() == 2;
        let texts: Vec<String> = texts.collect();
        assert!(texts.iter().any(|text| twice(text, "amount")));
        assert!(texts.iter().any(|text| twice(text, "deep")));
    }
}
