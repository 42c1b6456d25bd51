//! A message as its writer saw it, in Telegram's HTML: its text with the marks that Telegram keeps beside it.

use serde::Deserialize;
use serde_json::Value;

use crate::html_escape;

#[derive(Deserialize)]
struct Mark {
    #[serde(rename = "type")]
    kind: String,
    offset: usize,
    length: usize,
    #[serde(default)]
    url: Option<String>,
}

/// The text of a message (the member `message` of an update) with its bold, italic and other marks as tags, ready to be sent
/// again as HTML. None for a message without a text.
///
/// Marks that only point at what stands there anyway, such as links and names, need no tag. One that crosses another is left out,
/// so that what comes of it always nests.
pub fn html_of(message: &Value) -> Option<String> {
    let text = message.get("text")?.as_str()?;
    let marks = message.get("entities").cloned().unwrap_or(Value::Null);
    let marks: Vec<Mark> = serde_json::from_value(marks).unwrap_or_default();
    Some(render(text, &marks))
}

/// The opening and the closing tag of a mark; none for one that needs no tag.
fn tags(mark: &Mark) -> Option<(String, &'static str)> {
    let plain = |open: &str, close| Some((open.to_owned(), close));
    match mark.kind.as_str() {
        "bold" => plain("<b>", "</b>"),
        "italic" => plain("<i>", "</i>"),
        "underline" => plain("<u>", "</u>"),
        "strikethrough" => plain("<s>", "</s>"),
        "spoiler" => plain("<tg-spoiler>", "</tg-spoiler>"),
        "code" => plain("<code>", "</code>"),
        "pre" => plain("<pre>", "</pre>"),
        "blockquote" => plain("<blockquote>", "</blockquote>"),
        "expandable_blockquote" => plain("<blockquote expandable>", "</blockquote>"),
        "text_link" => mark.url.as_ref().map(|url| (format!("<a href=\"{}\">", html_escape(url)), "</a>")),
        _ => None,
    }
}

fn render(text: &str, marks: &[Mark]) -> String {
    // Longer ones first, so that an inner one opens after the one around it.
    let mut known: Vec<(usize, usize, String, &'static str)> = marks
        .iter()
        .filter(|mark| mark.length > 0)
        .filter_map(|mark| {
            let (open, close) = tags(mark)?;
            Some((mark.offset, mark.offset.checked_add(mark.length)?, open, close))
        })
        .collect();
    known.sort_by_key(|(begin, end, _, _)| (*begin, std::cmp::Reverse(*end)));
    let mut html = String::with_capacity(text.len());
    let mut open: Vec<(usize, &'static str)> = Vec::new();
    let mut next = known.into_iter().peekable();
    let mut at = 0;
    for sign in text.chars() {
        while let Some((_, close)) = open.pop_if(|(end, _)| *end <= at) {
            html.push_str(close);
        }
        while let Some((begin, end, tag, close)) = next.next_if(|(begin, ..)| *begin <= at) {
            // One that began inside a character, or ends after the one around it, has no place.
            if begin == at && open.last().is_none_or(|(outer, _)| end <= *outer) {
                html.push_str(&tag);
                open.push((end, close));
            }
        }
        html.push_str(&html_escape(sign.encode_utf8(&mut [0; 4])));
        at += sign.len_utf16();
    }
    while let Some((_, close)) = open.pop() {
        html.push_str(close);
    }
    html
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn html(text: &str, entities: Value) -> String {
        html_of(&json!({ "text": text, "entities": entities })).expect("a text")
    }

    #[test]
    fn marks_become_tags_that_nest() {
        let marks = json!([
            { "type": "bold", "offset": 0, "length": 11 },
            { "type": "italic", "offset": 6, "length": 5 },
            { "type": "text_link", "offset": 12, "length": 4, "url": "https://a.b/?x=1&y=\"2" },
        ]);
        let wanted = "<b>Hello <i>world</i></b> <a href=\"https://a.b/?x=1&amp;y=&quot;2\">here</a>";
        assert_eq!(html("Hello world here", marks), wanted);
    }

    #[test]
    fn places_count_as_telegram_counts_them() {
        let bold = json!([{ "type": "bold", "offset": 3, "length": 2 }]);
        assert_eq!(html("👋 да <5>", bold), "👋 <b>да</b> &lt;5&gt;");
    }

    #[test]
    fn what_needs_no_tag_or_has_no_place_is_left_out() {
        let odd = json!([
            { "type": "url", "offset": 0, "length": 3 },
            { "type": "bold", "offset": 0, "length": 4 },
            { "type": "italic", "offset": 2, "length": 9 },
            { "type": "code", "offset": 900, "length": 2 },
            { "type": "bold", "offset": 1, "length": 0 },
        ]);
        assert_eq!(html("abcdef", odd), "<b>abcd</b>ef");
        assert_eq!(html_of(&json!({ "photo": [] })), None);
        assert_eq!(html("plain & simple", json!("no list")), "plain &amp; simple");
    }
}
