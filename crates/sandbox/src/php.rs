//! JSON as PHP prints it (`JSON_UNESCAPED_UNICODE`): slashes escaped, letters raw, no spaces, members in the order given.
//!
//! Heleket signs exactly this text, and both crypto providers send it.

use std::fmt::Write as _;

use serde_json::Value;

/// An object with its members in this order.
pub(crate) fn object(members: &[(&str, Value)]) -> String {
    let mut out = String::from("{");
    for (position, (name, value)) in members.iter().enumerate() {
        if position > 0 {
            out.push(',');
        }
        print_string(&mut out, name);
        out.push(':');
        print(&mut out, value);
    }
    out.push('}');
    out
}

fn print(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => print_string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                print(out, item);
            }
            out.push(']');
        }
        // PHP has one kind of array: an empty object comes out as a list.
        Value::Object(members) if members.is_empty() => out.push_str("[]"),
        Value::Object(members) => {
            let members: Vec<(&str, Value)> =
                members.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
            out.push_str(&object(&members));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => out.push_str(&value.to_string()),
    }
}

fn print_string(out: &mut String, text: &str) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '/' => out.push_str("\\/"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(letter));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn slashes_are_escaped_and_letters_stay_raw() {
        let printed =
            object(&[("z", json!("https://a/б")), ("a", json!(null)), ("n", json!({})), ("t", json!("\u{1}\n"))]);
        assert_eq!(printed, "{\"z\":\"https:\\/\\/a\\/б\",\"a\":null,\"n\":[],\"t\":\"\\u0001\\n\"}");
    }
}
