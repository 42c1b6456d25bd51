//! Telegram's HTML, checked before it is kept: what Telegram would refuse is refused here, with the place named.
//!
//! The list of tags and entities is that of the Bot API ("HTML style"). Anything else is a 400 there, for every recipient.

/// Tags that stand without attributes.
const PLAIN: &[&str] =
    &["b", "strong", "i", "em", "u", "ins", "s", "strike", "del", "code", "pre", "tg-spoiler", "blockquote"];
const ENTITIES: &[(&str, usize)] = &[("lt", 1), ("gt", 1), ("amp", 1), ("quot", 1)];
const DEPTH: usize = 16;

/// Refuses a text that Telegram would refuse, or whose visible length is more than `limit` UTF-16 units.
///
/// # Errors
/// A sentence that says what is wrong and where, for whoever wrote the text.
pub fn check(html: &str, limit: usize) -> Result<(), String> {
    let shown = walk(html)?;
    if shown == 0 {
        return Err("write something: Telegram takes no empty message".into());
    }
    if shown > limit {
        return Err(format!("it is {shown} characters long, and at most {limit} can be sent"));
    }
    Ok(())
}

/// How many UTF-16 units a reader sees; white space at both ends is not counted as something to read.
fn walk(html: &str) -> Result<usize, String> {
    if html.chars().any(|sign| sign.is_control() && !matches!(sign, '\n' | '\t' | '\r')) {
        return Err("it holds a control character".into());
    }
    let (mut open, mut shown, mut seen): (Vec<&str>, usize, bool) = (Vec::new(), 0, false);
    let mut at = 0;
    while let Some(sign) = html[at..].chars().next() {
        let rest = &html[at..];
        match sign {
            '<' => {
                let Some(end) = rest.find('>') else {
                    return Err(format!(
                        "a `<` at character {} is never closed; write &lt; for the sign",
                        place(html, at)
                    ));
                };
                tag(&rest[1..end], &mut open).map_err(|wrong| format!("{wrong} (character {})", place(html, at)))?;
                at += end + 1;
            }
            '&' => match entity(rest) {
                Some((units, length)) => {
                    shown += units;
                    seen = true;
                    at += length;
                }
                None => {
                    let where_to = place(html, at);
                    return Err(format!("an `&` at character {where_to} begins no entity; write &amp; for the sign"));
                }
            },
            other => {
                shown += other.len_utf16();
                seen |= !other.is_whitespace();
                at += other.len_utf8();
            }
        }
    }
    match open.last() {
        Some(name) => Err(format!("<{name}> is never closed")),
        None if !seen => Ok(0),
        None => Ok(shown),
    }
}

/// Characters before a byte, counted from one, as an editor shows them.
fn place(html: &str, at: usize) -> usize {
    html[..at].chars().count() + 1
}

/// Takes what stands between `<` and `>`.
fn tag<'a>(inside: &'a str, open: &mut Vec<&'a str>) -> Result<(), String> {
    if let Some(name) = inside.strip_prefix('/') {
        let name = name.trim();
        return match open.pop() {
            Some(last) if last.eq_ignore_ascii_case(name) => Ok(()),
            Some(last) => Err(format!("</{name:.20}> stands where <{last}> has to be closed")),
            None => Err(format!("</{name:.20}> closes nothing")),
        };
    }
    let (name, attributes) = inside.split_once(char::is_whitespace).unwrap_or((inside, ""));
    let (lower, attributes) = (name.to_ascii_lowercase(), attributes.trim());
    let quoted = |key: &str| {
        let rest = attributes.strip_prefix(key)?.trim_start().strip_prefix('=')?.trim_start();
        let value = rest.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        value
            .or_else(|| rest.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')))
            .filter(|value| !value.is_empty())
    };
    let known = match lower.as_str() {
        "blockquote" => attributes.is_empty() || attributes.eq_ignore_ascii_case("expandable"),
        "code" => attributes.is_empty() || quoted("class").is_some_and(|class| class.starts_with("language-")),
        "a" => quoted("href").is_some(),
        "span" => quoted("class") == Some("tg-spoiler"),
        "tg-emoji" => quoted("emoji-id").is_some_and(|id| id.bytes().all(|byte| byte.is_ascii_digit())),
        other => PLAIN.contains(&other) && attributes.is_empty(),
    };
    if !known {
        return Err(format!("<{inside:.40}> is no tag that Telegram knows; write &lt; for the sign"));
    }
    if open.len() >= DEPTH {
        return Err("tags stand too deep in each other".into());
    }
    open.push(name);
    Ok(())
}

/// The UTF-16 units that an entity shows, and its length in bytes.
fn entity(text: &str) -> Option<(usize, usize)> {
    let end = text.bytes().take(12).position(|byte| byte == b';')?;
    let name = &text[1..end];
    if let Some((_, units)) = ENTITIES.iter().find(|(known, _)| *known == name) {
        return Some((*units, end + 1));
    }
    let number = name.strip_prefix('#')?;
    let code = match number.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16).ok()?,
        None => number.parse().ok()?,
    };
    let sign = char::from_u32(code).filter(|sign| *sign != '\0')?;
    Some((sign.len_utf16(), end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_telegram_takes_is_taken() {
        for good in [
            "Hello",
            "<b>bold <i>and more</i></b>",
            "<B>large letters</B>",
            r#"<a href="https://example.org/?a=1&amp;b=2">here</a>"#,
            r#"<span class="tg-spoiler">psst</span> <tg-spoiler>psst</tg-spoiler>"#,
            "<pre><code class=\"language-rust\">fn main() {}</code></pre>",
            "<blockquote expandable>long</blockquote>",
            r#"<tg-emoji emoji-id="5368324170671202286">👍</tg-emoji>"#,
            "1 &lt; 2 &amp; 3 &gt; 2 &#8212; &#x2014;",
            "a > b",
        ] {
            assert_eq!(check(good, 4096), Ok(()), "{good}");
        }
    }

    #[test]
    fn what_telegram_refuses_is_refused_with_its_place() {
        for (wrong, told) in [
            ("", "empty"),
            (" \n ", "empty"),
            ("<b></b>", "empty"),
            ("<b>bold", "<b> is never closed"),
            ("<b>bold</i>", "character 8"),
            ("x</b>", "closes nothing"),
            ("1 < 2", "character 3"),
            ("<p>x</p>", "<p> is no tag"),
            ("<b class=\"x\">x</b>", "is no tag"),
            ("<a>x</a>", "is no tag"),
            ("Tom & Jerry", "character 5"),
            ("&nbsp;x", "&amp;"),
            ("&#0;x", "&amp;"),
            ("a\u{0}b", "control character"),
        ] {
            let said = check(wrong, 4096).expect_err(wrong);
            assert!(said.contains(told), "{wrong}: {said}");
        }
    }

    #[test]
    fn tags_cost_no_length_and_emoji_cost_two() {
        assert_eq!(check("<b>12345</b>", 5), Ok(()));
        assert!(check("<b>123456</b>", 5).is_err());
        assert_eq!(check("&lt;&lt;👋", 4), Ok(()));
        assert!(check("&lt;&lt;👋", 3).is_err());
    }

    #[test]
    fn letters_of_any_alphabet_end_no_entity_in_their_middle() {
        assert!(check("&привет;", 100).is_err());
        assert!(check("&", 100).is_err());
        assert!(check("<b>привет</b", 100).is_err());
    }
}
