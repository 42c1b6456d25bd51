//! A campaign, its recipients, their states, and what may follow what.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use semel_kernel::clock::Time;
use semel_kernel::store::{FromValue, StoreError, Value};
use semel_telegram::{Button, CALLBACK_DATA_LIMIT, CAPTION_LIMIT, ENTITY_LIMIT, Press, TEXT_LIMIT, html_tags};

use super::segments::{Rule, Sweep};
use crate::Error;
use crate::messages::Class;
use crate::notices::html;

semel_kernel::id!(CampaignId, "cmp", "A campaign: one message to many people.");

crate::states! {
    /// Where a campaign stands.
    State {
        /// It is being written.
        Draft = "draft",
        /// It begins by itself when its time comes.
        Scheduled = "scheduled",
        /// Its audience is being written down; nobody gets it yet.
        Starting = "starting",
        /// It is being sent.
        Running = "running",
        /// It stands still, by hand or because Telegram refuses what it says.
        Paused = "paused",
        /// Everybody's row has its end.
        Finished = "finished",
        /// Called off: who had not got it gets it no more.
        Cancelled = "cancelled",
    }
    /// What may follow what. Code, tests and pages read this table.
    TRANSITIONS {
        Draft --"scheduled"--> Scheduled,
        Draft --"started"--> Starting,
        Draft --"started"--> Running,
        Draft --"called off"--> Cancelled,
        Scheduled --"its time came"--> Starting,
        Scheduled --"its time came"--> Running,
        Scheduled --"could not begin"--> Draft,
        Scheduled --"called off"--> Cancelled,
        Starting --"its audience is written down"--> Running,
        Starting --"paused"--> Paused,
        Starting --"called off"--> Cancelled,
        Running --"paused"--> Paused,
        Running --"everybody's row has its end"--> Finished,
        Running --"called off"--> Cancelled,
        Paused --"resumed"--> Starting,
        Paused --"resumed"--> Running,
        Paused --"called off"--> Cancelled,
        Finished --"sent again to who failed"--> Running,
    }
}

crate::states! {
    /// Where one recipient of a campaign stands. The row is the message.
    RecipientState {
        /// Waits for its turn.
        Queued = "queued",
        /// Written before the call, so that a death leaves a trace.
        Sending = "sending",
        /// Telegram took it.
        Sent = "sent",
        /// The person blocked the bot.
        Blocked = "blocked",
        /// Nothing reaches this chat: the account is gone, there is no such chat, or the bot was never started.
        Gone = "gone",
        /// Refused for another reason.
        Failed = "failed",
        /// It may have arrived; nobody told us, and it does not go again.
        Unknown = "unknown",
        /// Known to be out of reach before the start, or does not want to hear such things.
        Skipped = "skipped",
        /// The campaign was called off before.
        Cancelled = "cancelled",
    }
    /// What may follow what.
    RECIPIENT_TRANSITIONS {
        Queued --"its turn came"--> Sending,
        Queued --"the campaign was called off"--> Cancelled,
        Queued --"called off, and an earlier try may have arrived"--> Unknown,
        Queued --"told late"--> Sent,
        Queued --"told late"--> Blocked,
        Queued --"told late"--> Gone,
        Queued --"told late"--> Failed,
        Sending --"Telegram took it"--> Sent,
        Sending --"blocked"--> Blocked,
        Sending --"out of reach"--> Gone,
        Sending --"refused"--> Failed,
        Sending --"nobody told"--> Unknown,
        Sending --"certainly not sent"--> Queued,
        Sending --"the campaign was called off"--> Cancelled,
        Unknown --"told late"--> Sent,
        Unknown --"told late"--> Blocked,
        Unknown --"told late"--> Gone,
        Unknown --"told late"--> Failed,
        Failed --"sent again"--> Queued,
    }
}

impl RecipientState {
    /// Whether nothing more happens by itself.
    pub fn is_end(self) -> bool {
        !matches!(self, Self::Queued | Self::Sending)
    }
}

/// How many rows of buttons, and how many in a row, as clients show them.
const BUTTON_ROWS: usize = 20;
const BUTTONS_IN_ROW: usize = 8;
const BUTTON_CHARS: usize = 64;
const TITLE_CHARS: usize = 100;

/// What a campaign says in one language.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Words {
    /// Telegram's HTML. `{name}` is no placeholder here: everybody gets the same.
    pub html: String,
    /// Rows of buttons below it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buttons: Vec<Vec<Link>>,
}

/// A button that opens an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// What stands on it.
    pub text: String,
    /// An http, https or tg address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What the bot is told instead, 1 to 64 bytes: a command of the owner's own bot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_data: Option<String>,
}

/// What a campaign says, by language: `ru`, `en`, or both. Who has another language gets English, else what there is.
pub type Texts = BTreeMap<String, Words>;

/// The words for who speaks `language`: those, else the only others there are.
pub fn words_for<'a>(texts: &'a Texts, language: &str) -> Option<&'a Words> {
    texts.get(language).or_else(|| texts.values().next())
}

/// What a campaign is made of, as somebody asks for it.
#[derive(Clone, Debug)]
pub struct Draft {
    /// For the owner; customers never see it.
    pub title: String,
    /// What happens when nobody told us whether a message arrived.
    pub class: Class,
    /// Who gets it.
    pub rule: Rule,
    /// What it says.
    pub texts: Texts,
    /// Its picture or file.
    pub media: Option<NewMedia>,
}

/// A picture or a file, as somebody gives it.
#[derive(Clone, PartialEq, Eq)]
pub struct NewMedia {
    /// How it is shown.
    pub kind: MediaKind,
    /// The name that people see.
    pub name: String,
    /// Its media type.
    pub mime: String,
    /// What is in it; empty where it is given by its file id.
    pub bytes: Vec<u8>,
    /// Telegram's name of it, where the bot has sent it before.
    pub file_id: Option<String>,
}

impl std::fmt::Debug for NewMedia {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewMedia").field("kind", &self.kind).field("size", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// How the attachment of a campaign is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MediaKind {
    /// As a picture, which Telegram compresses.
    Photo,
    /// As a file, byte for byte.
    Document,
}

impl MediaKind {
    /// The word in rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Photo => "photo",
            Self::Document => "document",
        }
    }
}

impl FromValue for MediaKind {
    fn from_value(value: Value) -> Result<Self, StoreError> {
        let word = String::from_value(value)?;
        match word.as_str() {
            "photo" => Ok(Self::Photo),
            "document" => Ok(Self::Document),
            _ => Err(StoreError::Decode { wanted: "a kind of media", found: word }),
        }
    }
}

/// A campaign's row, without its attachment.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// Its id.
    pub id: CampaignId,
    /// For the owner.
    pub title: String,
    /// Where it stands.
    pub state: State,
    /// What happens when nobody told us whether a message arrived.
    pub class: Class,
    /// Who gets it.
    pub rule: Rule,
    /// What it says.
    pub texts: Texts,
    /// Grows with every change of what it says or to whom.
    pub content: i64,
    /// The content that was looked at.
    pub previewed: i64,
    /// The content that the owner got as a test.
    pub tested: i64,
    /// When it begins by itself.
    pub starts_at: Option<Time>,
    /// Its recipients, all of them; while they are being written down, those who stand there.
    pub snapshot_count: i64,
    /// How far the writing down of its audience is; none before and after it.
    pub sweep: Option<Sweep>,
    /// Counts the jobs that ever ran it.
    pub round: i64,
    /// The claim that may send.
    pub fence: i64,
    /// The content that Telegram refused so often in a row that it stood still for it.
    pub refused: Option<i64>,
    /// No piece is taken before.
    pub next_piece_at: Time,
    /// Why it stands still.
    pub reason: Option<String>,
    /// State changes so far.
    pub version: i64,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: Time,
    /// When it first began.
    pub started_at: Option<Time>,
    /// When it ended.
    pub ended_at: Option<Time>,
}

impl Campaign {
    /// What is missing before it may begin, as a sentence for its owner.
    pub fn missing(&self) -> Option<&'static str> {
        if self.previewed != self.content {
            return Some("look at the preview first: it shows what is sent and to how many");
        }
        if self.tested != self.content {
            return Some("send yourself a test first, and wait until it has arrived");
        }
        None
    }
}

/// Refuses a draft that Telegram would refuse for every recipient.
pub fn sound(title: &str, texts: &Texts, with_media: bool) -> Result<(), Error> {
    let length = title.trim().chars().count();
    if !(1..=TITLE_CHARS).contains(&length) || title.chars().any(char::is_control) {
        return Err(Error::invalid("title", format!("one line of 1 to {TITLE_CHARS} characters")));
    }
    if texts.is_empty() {
        return Err(Error::invalid("texts", "write it in Russian (ru), in English (en), or in both"));
    }
    let limit = if with_media { CAPTION_LIMIT } else { TEXT_LIMIT };
    for (language, words) in texts {
        if !matches!(language.as_str(), "ru" | "en") {
            return Err(Error::invalid("texts", format!("{language:.20} is not a language here: ru or en")));
        }
        let place = format!("texts.{language}.html");
        html::check(&words.html, limit).map_err(|wrong| Error::invalid(place.clone(), wrong))?;
        let marks = html_tags(&words.html);
        if marks > ENTITY_LIMIT {
            let why = format!(
                "it has {marks} marks, as bold words and links, and Telegram keeps {ENTITY_LIMIT} of a message"
            );
            return Err(Error::invalid(place, why));
        }
        sound_buttons(&format!("texts.{language}.buttons"), &words.buttons)?;
    }
    Ok(())
}

fn sound_buttons(place: &str, rows: &[Vec<Link>]) -> Result<(), Error> {
    if rows.len() > BUTTON_ROWS || rows.iter().any(|row| row.is_empty() || row.len() > BUTTONS_IN_ROW) {
        return Err(Error::invalid(place, format!("at most {BUTTON_ROWS} rows of 1 to {BUTTONS_IN_ROW} buttons")));
    }
    for link in rows.iter().flatten() {
        if !(1..=BUTTON_CHARS).contains(&link.text.trim().chars().count()) {
            return Err(Error::invalid(place, format!("a button says 1 to {BUTTON_CHARS} characters")));
        }
        match (&link.url, &link.callback_data) {
            (Some(url), None) if leads_somewhere(url) => {}
            (Some(_), None) => return Err(Error::invalid(place, "a button opens an https, http or tg address")),
            (None, Some(data)) if (1..=CALLBACK_DATA_LIMIT).contains(&data.len()) => {}
            (None, Some(_)) => {
                return Err(Error::invalid(place, format!("callback_data has 1 to {CALLBACK_DATA_LIMIT} bytes")));
            }
            _ => return Err(Error::invalid(place, "a button has either a url or callback_data")),
        }
    }
    Ok(())
}

fn leads_somewhere(address: &str) -> bool {
    let rest = ["https://", "http://", "tg://"].iter().find_map(|scheme| address.strip_prefix(scheme));
    address.len() <= 2048
        && rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
        && !address.chars().any(|sign| sign.is_whitespace() || sign.is_control())
}

impl Words {
    /// The buttons as Telegram's client takes them.
    pub fn keyboard(&self) -> Vec<Vec<Button>> {
        let button = |link: &Link| Button {
            text: link.text.clone(),
            press: match (&link.url, &link.callback_data) {
                (Some(url), _) => Press::Url(url.clone()),
                (None, data) => Press::CallbackData(data.clone().unwrap_or_default()),
            },
        };
        self.buttons.iter().map(|row| row.iter().map(button).collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(html: &str) -> Texts {
        Texts::from([("ru".to_owned(), Words { html: html.to_owned(), buttons: Vec::new() })])
    }

    fn link(url: &str) -> Link {
        Link { text: "Open".into(), url: Some(url.into()), callback_data: None }
    }

    #[test]
    fn what_is_over_goes_on_only_to_who_failed() {
        let from = |state| TRANSITIONS.iter().filter(move |(from, _, _)| *from == state).map(|(_, _, to)| *to);
        assert_eq!(from(State::Cancelled).count(), 0);
        assert_eq!(from(State::Finished).collect::<Vec<_>>(), [State::Running]);
        let ends = RecipientState::ALL.iter().filter(|state| state.is_end());
        assert_eq!(ends.count(), 7);
        assert_eq!(RecipientState::Sent.event_to(RecipientState::Queued), None, "who has it gets it once");
        assert_eq!(RecipientState::Unknown.event_to(RecipientState::Queued), None, "who may have it, too");
    }

    #[test]
    fn what_telegram_would_refuse_for_everybody_is_refused_at_once() {
        assert!(sound("Spring", &texts("<b>Hello</b>"), false).is_ok());
        assert!(sound("", &texts("Hello"), false).is_err());
        assert!(sound("Spring", &Texts::new(), false).is_err());
        assert!(sound("Spring", &texts("<b>Hello"), false).is_err());
        assert!(sound("Spring", &texts(&"<b>x</b>".repeat(ENTITY_LIMIT)), false).is_ok());
        assert!(sound("Spring", &texts(&"<b>x</b>".repeat(ENTITY_LIMIT + 1)), false).is_err());
        let long = "x".repeat(CAPTION_LIMIT + 1);
        assert!(sound("Spring", &texts(&long), false).is_ok());
        assert!(sound("Spring", &texts(&long), true).is_err(), "the words under a picture are shorter");
    }

    #[test]
    fn a_button_leads_somewhere() {
        for good in ["https://example.org", "http://example.org/a?b=c", "tg://resolve?domain=x"] {
            assert!(sound_buttons("b", &[vec![link(good)]]).is_ok(), "{good}");
        }
        for wrong in ["", "example.org", "https://", "https:///x", "javascript:alert(1)", "https://a b"] {
            assert!(sound_buttons("b", &[vec![link(wrong)]]).is_err(), "{wrong}");
        }
        assert!(sound_buttons("b", &[Vec::new()]).is_err());
        assert!(sound_buttons("b", &[vec![link("https://a.b"); 9]]).is_err());
        let both = Link { callback_data: Some("x".into()), ..link("https://a.b") };
        assert!(sound_buttons("b", &[vec![both]]).is_err());
    }

    #[test]
    fn who_has_no_words_of_their_own_gets_the_others() {
        let only = texts("x");
        assert_eq!(words_for(&only, "en"), only.get("ru"));
        assert_eq!(words_for(&Texts::new(), "en"), None);
    }
}
