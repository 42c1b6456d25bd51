//! The HTML of messages, as strictly as Telegram reads it: known tags only, properly nested.

/// The tags that Telegram knows.
const TAGS: [&str; 16] = [
    "b",
    "strong",
    "i",
    "em",
    "u",
    "ins",
    "s",
    "strike",
    "del",
    "span",
    "tg-spoiler",
    "tg-emoji",
    "a",
    "code",
    "pre",
    "blockquote",
];

/// What the reader sees.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub(crate) text: String,
    /// Words and where they lead.
    pub(crate) links: Vec<(String, String)>,
}

struct Open {
    name: String,
    starts: usize,
    href: Option<String>,
}

/// Reads a message text; the error is what stands behind `can't parse entities: `.
pub(crate) fn parse(source: &str) -> Result<Parsed, String> {
    let mut parsed = Parsed { text: String::new(), links: Vec::new() };
    let mut open: Vec<Open> = Vec::new();
    let mut at = 0;
    while let Some(letter) = source[at..].chars().next() {
        match letter {
            '<' => {
                let length = source[at..].find('>').ok_or_else(|| format!("Unclosed start tag at byte offset {at}"))?;
                let inside = &source[at + 1..at + length];
                match inside.strip_prefix('/') {
                    Some(name) => close(&mut parsed, &mut open, name, at)?,
                    None => open.push(start(inside, parsed.text.len(), at)?),
                }
                at += length + 1;
            }
            '&' => {
                let (decoded, length) = entity(&source[at..]);
                parsed.text.push(decoded);
                at += length;
            }
            other => {
                parsed.text.push(other);
                at += other.len_utf8();
            }
        }
    }
    match open.last() {
        Some(tag) => Err(format!("Can't find end tag corresponding to start tag \"{}\"", tag.name)),
        None => Ok(parsed),
    }
}

fn start(inside: &str, starts: usize, at: usize) -> Result<Open, String> {
    let name = inside.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
    if !TAGS.contains(&name.as_str()) {
        return Err(format!("Unsupported start tag \"{name}\" at byte offset {at}"));
    }
    let href = inside.split_once("href=").map(|(_, rest)| {
        let quote = rest.chars().next().filter(|letter| matches!(letter, '"' | '\''));
        match quote {
            Some(quote) => rest[1..].split(quote).next().unwrap_or_default().to_owned(),
            None => rest.split_whitespace().next().unwrap_or_default().to_owned(),
        }
    });
    Ok(Open { name, starts, href: href.map(|href| href.replace("&amp;", "&")) })
}

fn close(parsed: &mut Parsed, open: &mut Vec<Open>, name: &str, at: usize) -> Result<(), String> {
    let name = name.trim().to_ascii_lowercase();
    let Some(tag) = open.pop() else { return Err(format!("Unexpected end tag at byte offset {at}")) };
    if tag.name != name {
        return Err(format!(
            "Unmatched end tag at byte offset {at}, expected \"</{}>\", found \"</{name}>\"",
            tag.name
        ));
    }
    if let Some(href) = tag.href {
        parsed.links.push((parsed.text[tag.starts..].to_owned(), href));
    }
    Ok(())
}

/// The character at the start of `rest`, which starts with `&`, and how long it is there. An unknown entity is just an ampersand.
fn entity(rest: &str) -> (char, usize) {
    for (name, letter) in [("&lt;", '<'), ("&gt;", '>'), ("&amp;", '&'), ("&quot;", '"')] {
        if rest.starts_with(name) {
            return (letter, name.len());
        }
    }
    numeric(rest).unwrap_or(('&', 1))
}

fn numeric(rest: &str) -> Option<(char, usize)> {
    let (digits, _) = rest.strip_prefix("&#")?.split_once(';')?;
    let code = match digits.strip_prefix(['x', 'X']) {
        Some(digits) => u32::from_str_radix(digits, 16).ok()?,
        None => digits.parse().ok()?,
    };
    Some((char::from_u32(code)?, digits.len() + 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_sees_text_and_links() {
        let parsed = parse("<b>Key</b>: 1 &lt; 2 &amp; <a href=\"https://a/?x=1&amp;y=2\">here</a> &#33; & ü").unwrap();
        assert_eq!(parsed.text, "Key: 1 < 2 & here ! & ü");
        assert_eq!(parsed.links, [("here".to_owned(), "https://a/?x=1&y=2".to_owned())]);
    }

    #[test]
    fn wrong_nesting_and_unknown_tags_are_refused() {
        assert!(parse("<b><i>x</b></i>").unwrap_err().starts_with("Unmatched end tag at byte offset 7"));
        assert!(parse("a <div>").unwrap_err().starts_with("Unsupported start tag \"div\" at byte offset 2"));
        assert!(parse("<b>x").unwrap_err().starts_with("Can't find end tag"));
        assert!(parse("1 < 2").unwrap_err().starts_with("Unclosed start tag"));
    }
}
