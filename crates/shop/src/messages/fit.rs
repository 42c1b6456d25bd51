//! What goes in one message, and what follows in others: Telegram takes 4096 UTF-16 units of text, and 1024 under a file.
//!
//! A file whose words are too long goes first, with the head of them; the rest follows as a text. Buttons stand below the last
//! part. Each part is a message of its own, queued in the transaction that ends the one before as sent, so the parts come in order
//! and a death loses and repeats none. They are cut anew each time from what is left, so a repeat says the same.

use semel_telegram::{Button, CAPTION_LIMIT, TEXT_LIMIT, cut_html};

use super::send::Outgoing;

/// What did not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rest {
    /// In Telegram's HTML.
    pub(super) html: String,
    /// Below the last part of it.
    pub(super) buttons: Vec<Vec<Button>>,
}

/// As much of `outgoing` as one message takes, and the rest of its words.
pub(super) fn fit(outgoing: Outgoing) -> (Outgoing, Option<Rest>) {
    match outgoing {
        Outgoing::Text(mut text) => {
            let (first, rest) = cut_html(&text.text, TEXT_LIMIT);
            text.text = first;
            let rest = rest.map(|html| Rest { html, buttons: std::mem::take(&mut text.buttons) });
            (Outgoing::Text(text), rest)
        }
        Outgoing::File(mut file) => {
            let rest = shorten(&mut file.caption);
            (Outgoing::File(file), rest)
        }
        Outgoing::Photo(mut photo) => {
            let rest = shorten(&mut photo.caption);
            (Outgoing::Photo(photo), rest)
        }
        // Its words are ours and short.
        Outgoing::Invoice(invoice) => (Outgoing::Invoice(invoice), None),
    }
}

/// Leaves the head of the words under a file; the buttons stay with the file.
fn shorten(caption: &mut Option<String>) -> Option<Rest> {
    let (first, rest) = cut_html(caption.as_deref()?, CAPTION_LIMIT);
    *caption = Some(first);
    rest.map(|html| Rest { html, buttons: Vec::new() })
}

#[cfg(test)]
mod tests {
    use semel_telegram::{File, ParseMode, SendDocument, SendMessage, utf16_len};

    use super::*;

    fn text(html: &str) -> Outgoing {
        let mut message = SendMessage::new(42, html);
        message.parse_mode = Some(ParseMode::Html);
        message.buttons = vec![vec![Button::callback("Back", "b:1")]];
        Outgoing::Text(message)
    }

    #[test]
    fn what_fits_goes_whole() {
        let (outgoing, rest) = fit(text("<b>5</b>"));
        let Outgoing::Text(message) = outgoing else { panic!("a file") };
        assert_eq!((message.text.as_str(), message.buttons.len(), rest), ("<b>5</b>", 1, None));
    }

    #[test]
    fn the_buttons_stand_below_the_last_part() {
        let html = format!("<b>{}</b>", "слово ".repeat(1_500));
        let (outgoing, rest) = fit(text(&html));
        let Outgoing::Text(first) = outgoing else { panic!("a file") };
        assert!(first.text.starts_with("<b>слово") && first.text.ends_with("</b>") && first.buttons.is_empty());
        let rest = rest.expect("9000 characters are more than one message");
        assert!(rest.html.starts_with("<b>слово"), "{}", rest.html);
        assert_eq!(rest.buttons, [[Button::callback("Back", "b:1")]]);
    }

    #[test]
    fn a_file_goes_with_the_head_of_its_words() {
        let file = File::Bytes { name: "a.txt".into(), mime: "text/plain".into(), bytes: b"KEY-1".to_vec() };
        let caption = Some("word ".repeat(300));
        let document =
            SendDocument { chat_id: 42, file, caption, parse_mode: None, buttons: Vec::new(), protect: false };
        let (outgoing, rest) = fit(Outgoing::File(document));
        let Outgoing::File(document) = outgoing else { panic!("no file") };
        let head = document.caption.expect("a caption");
        assert!(utf16_len(&head) <= CAPTION_LIMIT && head.starts_with("word "), "{head}");
        let rest = rest.expect("1500 characters are more than a caption");
        assert_eq!(head.len() + rest.html.len(), 1_500);
    }
}
