//! Cutting a text in Telegram's HTML that is too long for one message.
//!
//! A cut closes what is open there and opens it again behind it, so that each piece stands for itself. It never goes through a
//! tag, an entity or a character. What a reader sees is the same as before, but for white space at the cuts, which Telegram
//! drops at both ends of a message anyway.

use crate::text::{ENTITY_LIMIT, utf16_len};

/// How many marks a text in Telegram's HTML makes at most: its opening tags.
pub fn html_tags(html: &str) -> usize {
    let (mut tags, mut at) = (0, 0);
    while let Some((token, length)) = token(&html[at..]) {
        at += length;
        tags += usize::from(matches!(token, Token::Open(_)));
    }
    tags
}

/// Cuts `html` where the first `limit` UTF-16 units end that a reader sees, or before that where it makes more marks than one
/// message keeps ([`ENTITY_LIMIT`]): the piece that fits, and what is left, if anything is that can be seen.
///
/// The cut is at a paragraph, else a line, else a sentence, else a word; inside a word only when the word alone is too long. A
/// text that fits is not changed. Broken markup stays broken: Telegram says so. A `limit` below 2 counts as 2.
///
/// Equal arguments give equal pieces, so a sender that begins again cuts at the same place.
pub fn cut_html(html: &str, limit: usize) -> (String, Option<String>) {
    let limit = limit.max(2);
    // Tags and entities are shown shorter than they are written.
    let is_short = utf16_len(html) <= limit && html_tags(html) <= ENTITY_LIMIT;
    if is_short || place(html, limit).is_none() {
        return (html.to_owned(), None);
    }
    let Some(begun) = without_blanks(Vec::new(), html) else { return (html.to_owned(), None) };
    let Some(at) = place(&begun, limit) else { return (begun, None) };
    let (head, tail) = begun.split_at(at);
    let open = left_open(head);
    let mut first = head.to_owned();
    for tag in open.iter().rev() {
        first.push_str("</");
        first.push_str(tag.name);
        first.push('>');
    }
    (first, without_blanks(open, tail))
}

/// A tag that is open.
#[derive(Clone, Copy)]
struct Open<'a> {
    name: &'a str,
    /// With its attributes and its brackets.
    whole: &'a str,
}

enum Token<'a> {
    Open(Open<'a>),
    Close(&'a str),
    /// What a reader sees of one character or entity.
    Sign(char),
}

/// What `rest` begins with, and how many bytes of it that is. What is no whole tag or entity is shown as it stands.
fn token(rest: &str) -> Option<(Token<'_>, usize)> {
    let sign = rest.chars().next()?;
    if sign == '<'
        && let Some(end) = rest.find('>')
    {
        let inside = &rest[1..end];
        let token = match inside.strip_prefix('/') {
            Some(name) => Token::Close(name.trim()),
            None => {
                let name = inside.split(char::is_whitespace).next().unwrap_or(inside);
                Token::Open(Open { name, whole: &rest[..=end] })
            }
        };
        return Some((token, end + 1));
    }
    if sign == '&'
        && let Some((shown, length)) = entity(rest)
    {
        return Some((Token::Sign(shown), length));
    }
    Some((Token::Sign(sign), sign.len_utf8()))
}

/// The character of an entity, and its length in bytes.
fn entity(rest: &str) -> Option<(char, usize)> {
    let end = rest.bytes().take(12).position(|byte| byte == b';')?;
    let shown = match &rest[1..end] {
        "lt" => '<',
        "gt" => '>',
        "amp" => '&',
        "quot" => '"',
        other => {
            let number = other.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)?
        }
    };
    Some((shown, end + 1))
}

/// The byte behind which to cut; nothing when all of it fits.
fn place(html: &str, limit: usize) -> Option<usize> {
    // The last place of each kind so far, with the units before it: paragraph, line, sentence.
    let mut good: [Option<(usize, usize)>; 3] = [None; 3];
    let (mut word, mut last) = (None, 0);
    let (mut units, mut lines, mut seen, mut ended) = (0, 0, false, false);
    let (mut at, mut tags, mut before) = (0, 0, 0);
    while let Some((token, length)) = token(&html[at..]) {
        at += length;
        let Token::Sign(sign) = token else {
            tags += usize::from(matches!(token, Token::Open(_)));
            continue;
        };
        if last == 0 {
            // What stands before the first sign stands before every piece of it: no cut makes that fewer.
            before = tags;
        }
        let is_marked = tags > ENTITY_LIMIT.max(before);
        if is_marked || units + sign.len_utf16() > limit {
            // A good place that leaves a small piece is worse than a lesser one that fills it.
            let full = if is_marked { units } else { limit };
            let fits = good.into_iter().flatten().find(|(_, filled)| filled * 2 >= full);
            return Some(fits.map(|(place, _)| place).or(word).unwrap_or(last));
        }
        units += sign.len_utf16();
        last = at;
        if !sign.is_whitespace() {
            (lines, seen) = (0, true);
            ended = matches!(sign, '.' | '!' | '?' | '…');
            continue;
        }
        lines += usize::from(sign == '\n');
        if seen {
            word = Some(at);
            for (kind, holds) in [lines >= 2, lines >= 1, ended].into_iter().enumerate() {
                if holds {
                    good[kind] = Some((at, units));
                }
            }
        }
    }
    None
}

/// What is open at the end of `head`.
fn left_open(head: &str) -> Vec<Open<'_>> {
    let (mut open, mut at): (Vec<Open<'_>>, usize) = (Vec::new(), 0);
    while let Some((token, length)) = token(&head[at..]) {
        at += length;
        match token {
            Token::Open(tag) => open.push(tag),
            Token::Close(name) => close(&mut open, name),
            Token::Sign(_) => {}
        }
    }
    open
}

fn close(open: &mut Vec<Open<'_>>, name: &str) {
    if open.last().is_some_and(|tag| tag.name.eq_ignore_ascii_case(name)) {
        open.pop();
    }
}

/// `tail` behind what is `open` there, from the first character on that is no white space; nothing when there is none.
fn without_blanks<'a>(mut open: Vec<Open<'a>>, tail: &'a str) -> Option<String> {
    let mut at = 0;
    loop {
        let (token, length) = token(&tail[at..])?;
        match token {
            Token::Open(tag) => open.push(tag),
            Token::Close(name) => close(&mut open, name),
            Token::Sign(sign) if sign.is_whitespace() => {}
            Token::Sign(_) => break,
        }
        at += length;
    }
    Some(open.iter().map(|tag| tag.whole).chain([&tail[at..]]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every piece of a text.
    fn pieces(html: &str, limit: usize) -> Vec<String> {
        let (mut pieces, mut rest) = (Vec::new(), Some(html.to_owned()));
        while let Some(html) = rest {
            let (piece, left) = cut_html(&html, limit);
            pieces.push(piece);
            rest = left;
        }
        pieces
    }

    /// What a reader sees; panics where tags do not nest.
    fn shown(html: &str) -> String {
        let (mut text, mut open, mut at) = (String::new(), Vec::new(), 0);
        while let Some((token, length)) = token(&html[at..]) {
            at += length;
            match token {
                Token::Open(tag) => open.push(tag.name),
                Token::Close(name) => assert_eq!(open.pop(), Some(name), "{html}"),
                Token::Sign(sign) => text.push(sign),
            }
        }
        assert!(open.is_empty(), "{open:?} stays open in {html}");
        text
    }

    fn letters(text: &str) -> String {
        text.chars().filter(|sign| !sign.is_whitespace()).collect()
    }

    #[test]
    fn it_is_cut_at_the_best_place_and_what_is_open_goes_on() {
        let table: &[(&str, &str, usize, &[&str])] = &[
            ("fits", "<b>one two</b>", 7, &["<b>one two</b>"]),
            ("word", "<b>aaa bbb</b> ccc", 5, &["<b>aaa </b>", "<b>bbb</b> ", "ccc"]),
            ("two tags", "<b><i>aaa bbb</i></b>", 4, &["<b><i>aaa </i></b>", "<b><i>bbb</i></b>"]),
            (
                "a link",
                r#"<a href="https://a.b/?c=1&amp;d=2">aaa bbb</a>"#,
                4,
                &[r#"<a href="https://a.b/?c=1&amp;d=2">aaa </a>"#, r#"<a href="https://a.b/?c=1&amp;d=2">bbb</a>"#],
            ),
            ("no empty tags behind a cut", "<b>aaa </b><i>bbb</i>", 4, &["<b>aaa </b>", "<i>bbb</i>"]),
            ("entities are one sign", "&lt;&lt;&amp;&amp;", 2, &["&lt;&lt;", "&amp;&amp;"]),
            ("an entity of two units", "a&#x1F44B;b", 2, &["a", "&#x1F44B;", "b"]),
            ("emoji stay whole", "<b>👋👋👋</b>", 3, &["<b>👋</b>", "<b>👋</b>", "<b>👋</b>"]),
            ("paragraph", "aaa bbb\n\nccc. ddd eee", 14, &["aaa bbb\n\n", "ccc. ddd eee"]),
            ("line", "aaa bbb\nccc. ddd", 14, &["aaa bbb\n", "ccc. ddd"]),
            ("sentence", "Aaa bbb. Ccc ddd eee", 14, &["Aaa bbb. ", "Ccc ddd eee"]),
            ("small paragraph fills up", "a\n\nbbb ccc ddd eee", 12, &["a\n\nbbb ccc ", "ddd eee"]),
            ("nothing to see behind it", "aaa bbb      \n ", 8, &["aaa bbb "]),
            ("nothing to see before it", "      <b>aaa bbb</b>", 4, &["<b>aaa </b>", "<b>bbb</b>"]),
            ("a limit below one emoji", "👋a", 0, &["👋", "a"]),
        ];
        for (name, html, limit, wanted) in table {
            assert_eq!(pieces(html, *limit), *wanted, "{name}");
        }
    }

    #[test]
    fn pieces_fit_nest_and_lose_no_letter() {
        let html = "<b>Первая строка.</b> Second 👋 &amp; <i>sentence <u>deep</u></i>!\n\n\
                    <blockquote>Third… &#128075; <a href=\"https://a.b\">the fourth &lt;one&gt;</a>?</blockquote>\n\
                    <pre>code  with\n  lines</pre> 👨‍👩‍👧 "
            .repeat(20);
        let whole = letters(&shown(&html));
        for limit in 2..200 {
            let pieces = pieces(&html, limit);
            let mut seen = String::new();
            for piece in &pieces {
                let text = shown(piece);
                assert!(utf16_len(&text) <= limit, "{limit}: {piece:?}");
                assert!(!text.trim().is_empty(), "{limit}: nothing to see in {piece:?}");
                seen.push_str(&letters(&text));
            }
            assert_eq!(seen, whole, "{limit}");
        }
    }

    /// A text from chance, with tags that nest and every kind of sign.
    fn random(mut seed: u64) -> String {
        let mut next = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let (mut html, mut open) = (String::new(), Vec::new());
        for _ in 0..400 {
            match next(12) {
                0 if open.len() < 4 => {
                    let name = ["b", "i", "u", "s"][usize::try_from(next(4)).unwrap_or(0)];
                    html.push_str(&format!("<{name}>"));
                    open.push(name);
                }
                1 => {
                    if let Some(name) = open.pop() {
                        html.push_str(&format!("</{name}>"));
                    }
                }
                2 => html.push_str("&amp;"),
                3 => html.push_str("&#x1F600;"),
                4 => html.push('👋'),
                5 => html.push('\n'),
                6 | 7 => html.push(' '),
                8 => html.push_str("слово"),
                _ => html.push('x'),
            }
        }
        while let Some(name) = open.pop() {
            html.push_str(&format!("</{name}>"));
        }
        html
    }

    #[test]
    fn a_piece_has_no_more_marks_than_telegram_keeps() {
        let html: String = (0..250).map(|n| format!("<b>word{n}</b> and\n")).collect();
        let pieces = pieces(&html, 4096);
        assert_eq!(pieces.iter().map(|piece| html_tags(piece)).collect::<Vec<_>>(), [100, 100, 50]);
        assert_eq!(letters(&pieces.iter().map(|piece| shown(piece)).collect::<String>()), letters(&shown(&html)));
        assert!(pieces.iter().all(|piece| piece.trim_end().ends_with("and")), "cut between lines");
        let nested = "<b>".repeat(150) + "word" + &"</b>".repeat(150);
        assert_eq!(cut_html(&nested, 4096), (nested.clone(), None), "what cannot be cut stays whole");
    }

    #[test]
    fn so_does_any_text() {
        for seed in 0..200 {
            let html = random(seed);
            let limit = 2 + usize::try_from(seed % 97).unwrap_or(0);
            let pieces = pieces(&html, limit);
            let texts: Vec<String> = pieces.iter().map(|piece| shown(piece)).collect();
            assert!(texts.iter().all(|text| utf16_len(text) <= limit), "{seed}: {pieces:?}");
            assert_eq!(letters(&texts.concat()), letters(&shown(&html)), "{seed}");
            let whole_entities = |piece: &String| piece.matches('&').count() == piece.matches(';').count();
            assert!(pieces.iter().all(whole_entities), "{seed}: {pieces:?}");
        }
    }

    #[test]
    fn broken_markup_ends_and_keeps_its_letters() {
        for html in ["<b>aaa bbb ccc", "aaa</b> bbb ccc", "1 < 2 & 3 and so on", "<b>aaa</i> bbb ccc"] {
            let pieces = pieces(html, 4);
            assert!(pieces.len() > 1 && pieces.len() < 20, "{pieces:?}");
        }
    }
}
