//! Printing JSON as PHP's `json_encode` with `JSON_UNESCAPED_UNICODE` does after `json_decode` into arrays (measured on PHP 8.2).

use std::fmt::Write as _;

use crate::json::Value;

/// The text that PHP would sign; `None` where PHP cannot print, as with a number beyond all floats.
pub(super) fn print(value: &Value) -> Option<String> {
    let mut out = String::new();
    print_into(value, &mut out).then_some(out)
}

fn print_into(value: &Value, out: &mut String) -> bool {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(literal) => match number(literal) {
            Some(text) => out.push_str(&text),
            None => return false,
        },
        Value::Text(text) => string(text, out),
        Value::List(entries) => return list(entries.iter(), out),
        // PHP has one kind of array: an empty object, or one whose names count from zero, comes back as a list.
        Value::Object(members) if counts_from_zero(members) => {
            return list(members.iter().map(|(_, value)| value), out);
        }
        Value::Object(members) => {
            for (at, (name, value)) in members.iter().enumerate() {
                out.push(if at == 0 { '{' } else { ',' });
                string(name, out);
                out.push(':');
                if !print_into(value, out) {
                    return false;
                }
            }
            out.push('}');
        }
    }
    true
}

fn list<'a>(entries: impl Iterator<Item = &'a Value>, out: &mut String) -> bool {
    out.push('[');
    for (at, entry) in entries.enumerate() {
        if at > 0 {
            out.push(',');
        }
        if !print_into(entry, out) {
            return false;
        }
    }
    out.push(']');
    true
}

fn counts_from_zero(members: &[(String, Value)]) -> bool {
    members.iter().enumerate().all(|(at, (name, _))| *name == at.to_string())
}

fn string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '/' => out.push_str("\\/"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\u{1f}' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(character)); // A String always takes it.
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

/// Whole numbers of 64 bits stay as they are, everything else goes through a float, as in PHP.
fn number(literal: &str) -> Option<String> {
    let is_whole = literal.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    if is_whole && literal != "-0" && literal.parse::<i64>().is_ok() {
        return Some(literal.to_string());
    }
    let float: f64 = literal.parse().ok()?;
    float.is_finite().then(|| float_text(float))
}

/// A float by PHP's rules (`serialize_precision = -1`): the shortest digits that read back as the same float, without a fraction if it is
/// whole, with an exponent below -4 or above 16. Only text is handled here; amounts of money never pass through.
fn float_text(float: f64) -> String {
    let scientific = format!("{float:e}"); // Shortest round trip, such as -1.5e-5.
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific.as_str(), "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let digits: String = mantissa.chars().filter(|character| *character != '.').collect();
    let (first, rest) = digits.split_at(1);

    if !(-4..=16).contains(&exponent) {
        let rest = if rest.is_empty() { "0" } else { rest };
        return format!("{sign}{first}.{rest}e{exponent:+}");
    }
    match usize::try_from(exponent) {
        Ok(exponent) if rest.len() <= exponent => format!("{sign}{digits}{}", "0".repeat(exponent - rest.len())),
        Ok(exponent) => format!("{sign}{first}{}.{}", &rest[..exponent], &rest[exponent..]),
        Err(_) => {
            let zeros = usize::try_from(-exponent - 1).unwrap_or(0);
            format!("{sign}0.{}{digits}", "0".repeat(zeros))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::read;

    fn printed(json: &str) -> String {
        print(&read(json.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn numbers_print_as_php_prints_them() {
        let table = [
            ("0", "0"),
            ("-5", "-5"),
            ("9223372036854775807", "9223372036854775807"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("9223372036854775808", "9.223372036854776e+18"),
            ("10.0", "10"),
            ("100.50", "100.5"),
            ("1.5e2", "150"),
            ("0.1", "0.1"),
            ("0.05", "0.05"),
            ("-0.25", "-0.25"),
            ("0.0001", "0.0001"),
            ("0.00001", "1.0e-5"),
            ("0.000015", "1.5e-5"),
            ("1e-7", "1.0e-7"),
            ("1.0e-7", "1.0e-7"),
            ("123.456", "123.456"),
            ("1e16", "10000000000000000"),
            ("1e17", "1.0e+17"),
            ("1.5e300", "1.5e+300"),
            ("0.0", "0"),
            ("-0", "-0"),
            ("-0.0", "-0"),
            ("1e-400", "0"),
        ];
        for (literal, expected) in table {
            assert_eq!(printed(literal), expected, "{literal}");
        }
    }

    #[test]
    fn a_number_beyond_all_floats_cannot_be_printed() {
        assert_eq!(print(&read(b"{\"a\":[1e400]}").unwrap()), None);
    }

    #[test]
    fn strings_print_as_php_prints_them() {
        let json = r#""a\u2028b\u2029c\td\"e\\f\u0001g\u007fh/\u001f\b\f\n\r\u0000\u00e9\ud83d\ude80""#;
        let expected = "\"a\\u2028b\\u2029c\\td\\\"e\\\\f\\u0001g\u{7f}h\\/\\u001f\\b\\f\\n\\r\\u0000é🚀\"";
        assert_eq!(printed(json), expected);
    }

    #[test]
    fn objects_and_lists_are_one_kind_in_php() {
        assert_eq!(printed(r#"{"a":{}, "b":[ ], "c":[1, {"d":null}]}"#), r#"{"a":[],"b":[],"c":[1,{"d":null}]}"#);
        assert_eq!(printed(r#"{"0":true,"1":false}"#), "[true,false]");
        assert_eq!(printed(r#"{"1":true,"0":false}"#), r#"{"1":true,"0":false}"#);
        assert_eq!(printed(r#"{"o":{"a":1,"b":2,"a":3}}"#), r#"{"o":{"a":3,"b":2}}"#);
    }
}
