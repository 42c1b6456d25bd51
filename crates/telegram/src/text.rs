//! Texts within Telegram's limits, which count UTF-16 units.

/// Longest text of a message, in UTF-16 units after parsing.
pub const TEXT_LIMIT: usize = 4096;

/// Longest caption of a file, in UTF-16 units after parsing.
pub const CAPTION_LIMIT: usize = 1024;

/// Marks that one message keeps: bold words, links, code. Telegram drops the rest of them, and their words stay.
pub const ENTITY_LIMIT: usize = 100;

/// Longest data behind a button, in bytes.
pub const CALLBACK_DATA_LIMIT: usize = 64;

/// `text` shown as it is inside [`ParseMode::Html`](crate::ParseMode), between tags and in quoted attributes.
pub fn html_escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The length as Telegram counts it.
pub fn utf16_len(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// Cuts plain text into pieces of at most `limit` UTF-16 units: at a paragraph, else a line, else a sentence, else a
/// word; inside a word only when the word alone is too long.
///
/// White space at the cuts and at both ends is dropped, as Telegram itself would; a text of nothing else gives no
/// piece. No character is ever cut in two, so a `limit` below 2 counts as 2. Not for text with tags.
pub fn split_text(text: &str, limit: usize) -> Vec<String> {
    let limit = limit.max(2);
    let mut pieces = Vec::new();
    let mut rest = text.trim();
    while let Some(at) = cut(rest, limit) {
        let (piece, tail) = rest.split_at(at);
        pieces.push(piece.trim_end().to_owned());
        rest = tail.trim_start();
    }
    if !rest.is_empty() {
        pieces.push(rest.to_owned());
    }
    pieces
}

/// Where to cut `rest`, which starts with no white space; nothing when it fits.
fn cut(rest: &str, limit: usize) -> Option<usize> {
    // The last place of each kind so far, best kind first.
    let [mut paragraph, mut line, mut sentence, mut word] = [0; 4];
    let mut units = 0;
    let mut before = ' ';
    for (at, c) in rest.char_indices() {
        if c.is_whitespace() {
            word = at;
            if matches!(before, '.' | '!' | '?' | '…') {
                sentence = at;
            }
            if c == '\n' {
                line = at;
                let after = &rest[at + 1..];
                if after.starts_with('\n') || after.starts_with("\r\n") {
                    paragraph = at;
                }
            }
        }
        units += c.len_utf16();
        if units > limit {
            // A good place that leaves a small piece is worse than a lesser one that fills it.
            let good = [paragraph, line, sentence].into_iter().find(|place| *place > 0 && place * 2 >= at);
            return Some(good.unwrap_or(if word > 0 { word } else { at }));
        }
        before = c;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_characters_are_escaped() {
        assert_eq!(
            html_escape(r#"<a href="x">Tom & Jerry's</a>"#),
            "&lt;a href=&quot;x&quot;&gt;Tom &amp; Jerry's&lt;/a&gt;"
        );
        assert_eq!(html_escape("привет 👋"), "привет 👋");
    }

    #[test]
    fn length_is_counted_as_telegram_does() {
        for (text, units) in [("", 0), ("abc", 3), ("привет", 6), ("👋", 2), ("👨‍👩‍👧", 8), ("𝕊", 2)]
        {
            assert_eq!(utf16_len(text), units, "{text}");
        }
    }

    #[test]
    fn text_is_cut_at_the_best_place() {
        let table: &[(&str, &str, usize, &[&str])] = &[
            ("fits", "one two", 7, &["one two"]),
            ("nothing", "  \n ", 5, &[]),
            ("paragraph", "aaa bbb\n\nccc. ddd eee", 14, &["aaa bbb", "ccc. ddd eee"]),
            ("windows paragraph", "aaa bbb\r\n\r\nccc. ddd eee", 16, &["aaa bbb", "ccc. ddd eee"]),
            ("line", "aaa bbb\nccc. ddd", 14, &["aaa bbb", "ccc. ddd"]),
            ("sentence", "Aaa bbb. Ccc ddd eee", 14, &["Aaa bbb.", "Ccc ddd eee"]),
            ("word", "aaa bbb ccc ddd", 9, &["aaa bbb", "ccc ddd"]),
            ("word just at the limit", "aaa bbb ccc", 7, &["aaa bbb", "ccc"]),
            ("word longer than the limit", "abcdefgh", 3, &["abc", "def", "gh"]),
            ("a long word keeps whole when it can", "see abcdefgh", 8, &["see", "abcdefgh"]),
            ("small paragraph fills up", "a\n\nbbb ccc ddd eee", 12, &["a\n\nbbb ccc", "ddd eee"]),
            ("emoji stay whole", "👋👋👋", 3, &["👋", "👋", "👋"]),
            ("limit below one emoji", "👋a", 0, &["👋", "a"]),
            ("cyrillic", "раз два три", 7, &["раз два", "три"]),
        ];
        for (name, text, limit, pieces) in table {
            assert_eq!(split_text(text, *limit), *pieces, "{name}");
        }
    }

    #[test]
    fn no_piece_is_too_long_and_no_word_is_lost() {
        let text = "Первая строка. Second 👋 sentence!\n\nThird… and 👨‍👩‍👧 the fourth?\nlast ".repeat(40);
        for limit in 2..120 {
            let pieces = split_text(&text, limit);
            for piece in &pieces {
                assert!(!piece.is_empty() && utf16_len(piece) <= limit, "{limit}: {piece:?}");
            }
            let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            assert_eq!(letters(&pieces.concat()), letters(&text), "{limit}");
        }
    }
}
