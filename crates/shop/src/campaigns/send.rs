//! One message of a campaign on its way to one chat.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use semel_kernel::args;
use semel_kernel::outbound::{Call, Manner};
use semel_kernel::store::Tx;
use semel_telegram::pacer::Lane;
use semel_telegram::{Bot, File, ParseMode, Request, SendDocument, SendMessage, SendPhoto};

use super::outcome::Fate;
use super::{CampaignId, MediaKind, NewMedia, Texts, sql, words_for};
use crate::messages::{self, Heard, silence};
use crate::{Error, Shop};

/// How long a message waits for its own chat's pace or for a silence while it counts as being sent; its turn among the others
/// takes longer where more important ones come first.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a campaign sends.
pub(super) struct Mail {
    texts: Texts,
    media: Option<NewMedia>,
    /// Telegram's name of the attachment, once this bot has sent it.
    file_id: Mutex<Option<String>>,
}

impl Mail {
    /// What `campaign` says with what it attaches, read for `bot`: a name of another bot's upload is good for nothing.
    pub(super) fn load(tx: &mut Tx, campaign: &CampaignId, texts: Texts, bot: &str) -> Result<Self, Error> {
        let mut known = None;
        let media = match tx.first(sql::MEDIA, args![campaign, bot])? {
            None => None,
            Some(row) => {
                let (bytes, given, of): (Vec<u8>, Option<String>, Option<String>) =
                    (row.get(3)?, row.get(4)?, row.get(5)?);
                if of.as_deref() == Some(bot) || bytes.is_empty() {
                    known.clone_from(&given);
                }
                Some(NewMedia { kind: row.get(0)?, name: row.get(1)?, mime: row.get(2)?, bytes, file_id: given })
            }
        };
        Ok(Self { texts, media, file_id: Mutex::new(known) })
    }

    /// Whether the next message carries the attachment itself: then one goes alone, and all others by its name. Telegram
    /// slows down who uploads the same again and again.
    pub(super) fn needs_upload(&self) -> bool {
        self.media.is_some() && self.file_id().is_none()
    }

    /// Keeps Telegram's name of the attachment.
    pub(super) fn uploaded(&self, file_id: &str) {
        *self.file_id.lock().unwrap_or_else(PoisonError::into_inner) = Some(file_id.to_owned());
    }

    fn file_id(&self) -> Option<String> {
        self.file_id.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The message for one chat; equal arguments give equal bytes but for an attachment that was uploaded meanwhile. Nothing
    /// when it says nothing at all, which no campaign does.
    fn request(&self, bot: &Bot, id: &str, chat_id: i64, language: &str) -> Option<Request> {
        let words = words_for(&self.texts, language)?;
        let (buttons, parse_mode) = (words.keyboard(), Some(ParseMode::Html));
        let Some(media) = &self.media else {
            let mut message = SendMessage::new(chat_id, words.html.clone());
            (message.buttons, message.parse_mode) = (buttons, parse_mode);
            return Some(bot.send_message(id, &message));
        };
        let file = match self.file_id() {
            Some(file_id) => File::FileId(file_id),
            None => File::Bytes { name: media.name.clone(), mime: media.mime.clone(), bytes: media.bytes.clone() },
        };
        let caption = Some(words.html.clone());
        Some(match media.kind {
            MediaKind::Photo => {
                bot.send_photo(id, &SendPhoto { chat_id, photo: file, caption, parse_mode, buttons, protect: false })
            }
            MediaKind::Document => {
                bot.send_document(id, &SendDocument { chat_id, file, caption, parse_mode, buttons, protect: false })
            }
        })
    }
}

/// One chat and how to write to it.
#[derive(Clone, Debug)]
pub(super) struct To {
    /// Ours, and the same in every repeat: it travels in `X-Request-Id`.
    pub(super) id: String,
    pub(super) chat_id: i64,
    pub(super) language: String,
}

/// Writes to one chat when its turn comes, once more where it lives now if it moved. `halt` is looked at last before the call.
pub(super) async fn deliver(shop: &Shop, bot: &Bot, mail: &Mail, to: &To, lane: Lane, halt: &AtomicBool) -> Fate {
    match once(shop, bot, mail, to, to.chat_id, lane, halt).await {
        Fate::Moved { to: chat } if chat != to.chat_id => match once(shop, bot, mail, to, chat, lane, halt).await {
            // Asked again from the beginning: nothing was sent to either.
            Fate::Moved { to } => Fate::Refused { text: format!("the chat moved on to {to}, and on from there") },
            fate => fate,
        },
        fate => fate,
    }
}

async fn once(shop: &Shop, bot: &Bot, mail: &Mail, to: &To, chat_id: i64, lane: Lane, halt: &AtomicBool) -> Fate {
    if halt.load(Ordering::SeqCst) {
        return Fate::NotCalled { left: None };
    }
    let Some(request) = mail.request(bot, &to.id, chat_id, &to.language) else {
        return Fate::Refused { text: "there are no words for this language".into() };
    };
    let turn = match shop.pace().turn_within(lane, chat_id, to.id.clone(), PATIENCE).await {
        Ok(turn) => turn,
        Err(not_now) => return Fate::NotCalled { left: Some(not_now.left) },
    };
    // Dropping the turn gives it back.
    if halt.load(Ordering::SeqCst) {
        return Fate::NotCalled { left: None };
    }
    let mut call = Call::new("telegram.campaign", messages::host_key(bot), Manner::Blind);
    messages::under_pace_of(bot, &mut call);
    if mail.media.is_some() {
        (call.attempt_timeout, call.deadline) = (Duration::from_secs(30), Duration::from_secs(45));
    }
    let answer = shop.telegram.call(call, request).await;
    let fate = Fate::of(answer.map(|response| bot.sent(&response)));
    let quiet = turn.done(match &fate {
        Fate::Sent { .. } => Heard::Sent,
        Fate::Slow { seconds, .. } => Heard::TooMany { retry_after: Duration::from_secs(*seconds) },
        _ => Heard::Other,
    });
    match (fate, quiet) {
        (Fate::Slow { .. }, Some(quiet)) => {
            // At once, because the rows of a piece are written when it is through.
            let of = silence::obey(shop, bot, chat_id, quiet);
            silence::keep(shop, "campaign.silence", of, quiet.left).await;
            // With its jitter, rounded up.
            let seconds = quiet.left.as_secs() + u64::from(quiet.left.subsec_millis() > 0);
            Fate::Slow { seconds, whole_bot: quiet.whole_bot }
        }
        (fate, _) => fate,
    }
}
