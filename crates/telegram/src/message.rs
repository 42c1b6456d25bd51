//! What a bot can send. Goods travel in these values, so their `Debug` shows sizes and no content.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How Telegram reads a text. Without one it is shown as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ParseMode {
    /// Tags like `<b>`; put everything foreign through [`html_escape`](crate::html_escape).
    #[serde(rename = "HTML")]
    Html,
    /// Telegram's own Markdown, second version.
    MarkdownV2,
}

impl ParseMode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Html => "HTML",
            Self::MarkdownV2 => "MarkdownV2",
        }
    }
}

/// A text for one chat.
///
/// Stored messages are read back as this type: a field may be added with a default, never renamed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendMessage {
    /// A person (positive), a group or a channel (negative).
    pub chat_id: i64,
    /// At most [`TEXT_LIMIT`](crate::TEXT_LIMIT) UTF-16 units after parsing.
    pub text: String,
    /// How `text` is read.
    #[serde(default)]
    pub parse_mode: Option<ParseMode>,
    /// Rows of buttons under the message: at most 8 in a row, 100 in all.
    #[serde(default)]
    pub buttons: Vec<Vec<Button>>,
    /// Shows no preview of links.
    #[serde(default)]
    pub disable_preview: bool,
    /// Forbids forwarding and saving; for keys and other goods.
    #[serde(default)]
    pub protect: bool,
    /// Makes no sound on the phone.
    #[serde(default)]
    pub silent: bool,
}

impl SendMessage {
    /// A plain text with nothing else.
    pub fn new(chat_id: i64, text: impl Into<String>) -> Self {
        Self {
            chat_id,
            text: text.into(),
            parse_mode: None,
            buttons: Vec::new(),
            disable_preview: false,
            protect: false,
            silent: false,
        }
    }
}

impl fmt::Debug for SendMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendMessage")
            .field("chat_id", &self.chat_id)
            .field("text_bytes", &self.text.len())
            .field("parse_mode", &self.parse_mode)
            .finish_non_exhaustive()
    }
}

/// A button under a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Button {
    /// What stands on it.
    pub text: String,
    /// What pressing it does.
    #[serde(flatten)]
    pub press: Press,
}

/// What pressing a [`Button`] does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Press {
    /// Opens this address.
    Url(String),
    /// Tells the bot: 1 to [`CALLBACK_DATA_LIMIT`](crate::CALLBACK_DATA_LIMIT) bytes. Comes back from the customer's
    /// hands, so it names a thing and never carries a price.
    CallbackData(String),
}

impl Button {
    /// A button that opens `address`.
    pub fn url(text: impl Into<String>, address: impl Into<String>) -> Self {
        Self { text: text.into(), press: Press::Url(address.into()) }
    }

    /// A button that tells the bot `data`.
    pub fn callback(text: impl Into<String>, data: impl Into<String>) -> Self {
        Self { text: text.into(), press: Press::CallbackData(data.into()) }
    }
}

/// A file for one chat.
#[derive(Clone, PartialEq, Eq)]
pub struct SendDocument {
    /// A person (positive), a group or a channel (negative).
    pub chat_id: i64,
    /// What is sent.
    pub file: File,
    /// At most [`CAPTION_LIMIT`](crate::CAPTION_LIMIT) UTF-16 units after parsing; longer text goes into a message of
    /// its own.
    pub caption: Option<String>,
    /// How `caption` is read.
    pub parse_mode: Option<ParseMode>,
    /// Rows of buttons under the file: at most 8 in a row, 100 in all.
    pub buttons: Vec<Vec<Button>>,
    /// Forbids forwarding and saving; for keys and other goods.
    pub protect: bool,
}

impl fmt::Debug for SendDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendDocument").field("chat_id", &self.chat_id).field("file", &self.file).finish_non_exhaustive()
    }
}

/// A picture for one chat, shown there. Telegram compresses it: what must arrive byte for byte goes as a [`SendDocument`].
#[derive(Clone, PartialEq, Eq)]
pub struct SendPhoto {
    /// A person (positive), a group or a channel (negative).
    pub chat_id: i64,
    /// What is sent: a PNG or JPEG of at most 10 MB, width and height at most 10,000 together, neither more than 20 times
    /// the other.
    pub photo: File,
    /// At most [`CAPTION_LIMIT`](crate::CAPTION_LIMIT) UTF-16 units after parsing; longer text goes into a message of
    /// its own.
    pub caption: Option<String>,
    /// How `caption` is read.
    pub parse_mode: Option<ParseMode>,
    /// Rows of buttons under the picture: at most 8 in a row, 100 in all.
    pub buttons: Vec<Vec<Button>>,
    /// Forbids forwarding and saving; for keys and other goods.
    pub protect: bool,
}

impl fmt::Debug for SendPhoto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendPhoto").field("chat_id", &self.chat_id).field("photo", &self.photo).finish_non_exhaustive()
    }
}

/// Where a file comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum File {
    /// From us, at most 50 MB on Telegram's own servers.
    Bytes {
        /// The name the customer sees.
        name: String,
        /// Its media type, for example `text/plain`.
        mime: String,
        /// What is in it.
        bytes: Vec<u8>,
    },
    /// From Telegram: the [`file_id`](crate::Sent) of an earlier message of the same bot.
    FileId(String),
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes { mime, bytes, .. } => {
                f.debug_struct("Bytes").field("mime", mime).field("size", &bytes.len()).finish_non_exhaustive()
            }
            Self::FileId(_) => f.write_str("FileId(..)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_message_of_an_earlier_program_is_still_read() {
        let message: SendMessage = serde_json::from_str(r#"{"chat_id":42,"text":"hi"}"#).expect("old row");
        assert_eq!(message, SendMessage::new(42, "hi"));

        let mut rich = SendMessage::new(-100, "hi");
        rich.parse_mode = Some(ParseMode::Html);
        rich.buttons = vec![vec![Button::url("pay", "https://example.org"), Button::callback("back", "b:1")]];
        let row = serde_json::to_string(&rich).expect("row");
        assert_eq!(serde_json::from_str::<SendMessage>(&row).expect("row"), rich);
    }

    #[test]
    fn goods_do_not_print() {
        let message = SendMessage::new(42, "KEY-1");
        let file = File::Bytes { name: "KEY-1.txt".into(), mime: "text/plain".into(), bytes: b"KEY-1".to_vec() };
        let caption = Some("KEY-1".to_owned());
        let photo = SendPhoto {
            chat_id: 42,
            photo: file.clone(),
            caption: caption.clone(),
            parse_mode: None,
            buttons: Vec::new(),
            protect: true,
        };
        let document =
            SendDocument { chat_id: 42, file, caption, parse_mode: None, buttons: Vec::new(), protect: true };
        assert!(!format!("{message:?} {document:?} {photo:?}").contains("KEY-1"));
    }
}
