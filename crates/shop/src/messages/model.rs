//! A message, its states, and what may follow what.

use serde::{Deserialize, Serialize};

use semel_kernel::clock::Time;
use semel_kernel::store::{FromValue, StoreError, Value};
use semel_telegram::Button;

use crate::checkout::PaymentId;
use crate::orders::OrderId;
use crate::vpn::PeerId;

semel_kernel::id!(MessageId, "msg", "A message to one chat. Travels to Telegram in `X-Request-Id`.");

crate::states! {
    /// Where a message stands. Whether it is being sent right now is its job's business.
    State {
        /// Its job will send it.
        Queued = "queued",
        /// Telegram took it.
        Sent = "sent",
        /// It certainly did not arrive and will not.
        Failed = "failed",
        /// It may have arrived; nobody told us, and it does not go again by itself.
        Unknown = "unknown",
        /// There was nothing left to send.
        Cancelled = "cancelled",
    }
    /// What may follow what. A message that may go twice can be sent by hand after its end.
    TRANSITIONS {
        Queued --"Telegram took it"--> Sent,
        Queued --"refused"--> Failed,
        Queued --"nobody told"--> Unknown,
        Queued --"nothing left to send"--> Cancelled,
        Failed --"sent by hand"--> Sent,
        Failed --"nobody told"--> Unknown,
        Failed --"nothing left to send"--> Cancelled,
        Unknown --"sent by hand"--> Sent,
    }
}

/// What happens when nobody told us whether a message arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It goes again, with the same content: goods and notices about money. It carries a number that shows a double.
    AtLeastOnce,
    /// It does not: alerts, and everything that is worse twice than never.
    AtMostOnce,
    /// It goes again like [`Class::AtLeastOnce`], and only after every earlier message of this class to its chat has ended,
    /// however it ended: for what would mislead in another order, as "paused" after "goes on" would. The order is that in which
    /// they were committed. A death swaps nothing, because the place is in the row. Who waits for an answer does not belong here.
    Ordered,
}

impl Class {
    /// The word in rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "at_least_once",
            Self::AtMostOnce => "at_most_once",
            Self::Ordered => "ordered",
        }
    }
}

impl FromValue for Class {
    fn from_value(value: Value) -> Result<Self, StoreError> {
        let word = String::from_value(value)?;
        match word.as_str() {
            "at_least_once" => Ok(Self::AtLeastOnce),
            "at_most_once" => Ok(Self::AtMostOnce),
            "ordered" => Ok(Self::Ordered),
            _ => Err(StoreError::Decode { wanted: "a class of messages", found: word }),
        }
    }
}

/// The languages that customers are written to in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Language {
    /// Russian, also for who never said.
    #[serde(rename = "ru")]
    Russian,
    /// English, for everybody else.
    #[serde(rename = "en")]
    English,
}

impl Language {
    /// The word in rows and addresses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Russian => "ru",
            Self::English => "en",
        }
    }

    /// The language for an IETF tag as Telegram gives it: `ru`, `ru-RU`, `en`, or none.
    pub fn of(tag: Option<&str>) -> Self {
        match tag.map(str::trim) {
            None | Some("") => Self::Russian,
            Some(tag) if tag.to_ascii_lowercase().starts_with("ru") => Self::Russian,
            Some(_) => Self::English,
        }
    }
}

/// What a message says. Stored in rows: a field may be added with a default, never renamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Body {
    /// A text in Telegram's HTML; everything foreign in it is escaped.
    Text {
        /// Of any length: what does not fit into one message follows in others.
        html: String,
    },
    /// A text with buttons below it.
    Card {
        /// Of any length; everything foreign in it is escaped.
        html: String,
        /// Below the last of its messages. Rows of buttons. What comes back from a button was in somebody's hands: see [`Press`](semel_telegram::Press).
        buttons: Vec<Vec<Button>>,
    },
    /// An invoice in Telegram Stars, with a button to pay.
    Invoice {
        /// What comes back with the money.
        payment: PaymentId,
        /// The order that is paid.
        order: OrderId,
        /// What is bought.
        title: String,
        /// More about it.
        description: String,
        /// How many Stars.
        stars: i64,
    },
    /// All goods of an order, read when the message is sent.
    Goods {
        /// The order.
        order: OrderId,
        /// The language of the words around them.
        language: Language,
    },
    /// The file of one device, put together when the message is sent. The picture follows it.
    VpnFile(OfPeer),
    /// The same as a QR picture. The how-to follows it.
    VpnQr(OfPeer),
    /// How to use both.
    VpnHowto(OfPeer),
    /// What did not fit under the file or the picture of a device. What comes after that comes after this.
    VpnWords {
        /// The rest of the words, in Telegram's HTML.
        html: String,
        /// The file or the picture.
        after: Box<Body>,
    },
}

/// The device that a message about VPN access is for. No key and no address stands here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfPeer {
    /// Its peer.
    pub peer: PeerId,
    /// Which of the subscription's devices, counted from one.
    pub device: i64,
    /// The language of the words.
    pub language: Language,
    /// The order that paid for it; none for a trial and for what the owner gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderId>,
}

impl FromValue for Body {
    fn from_value(value: Value) -> Result<Self, StoreError> {
        let text = String::from_value(value)?;
        serde_json::from_str(&text)
            .map_err(|error| StoreError::Decode { wanted: "what a message says", found: error.to_string() })
    }
}

/// What messages to the owner and helpers are about.
pub const ALERT: &str = "alert";
/// What an owner's answer to a customer's question is about.
pub const REPLY: &str = "reply";
/// How keys of alerts begin that hand on what a customer wrote.
pub(crate) const WORDS_OF_CUSTOMER: &str = "support:";
/// What messages with an order's goods are about.
pub const GOODS: &str = "goods";
/// What messages with the file of a device are about.
pub const VPN_FILE: &str = "vpn_file";
/// What messages with its QR picture are about.
pub const VPN_QR: &str = "vpn_qr";
/// What messages that say how to use both are about.
pub const VPN_HOWTO: &str = "vpn_howto";

/// What messages are about that hold the rest of the words under a file.
pub const WORDS: &str = "words";

/// Whether a message of this kind hands over what was bought: it waits where goods have to wait.
pub fn hands_over(kind: &str) -> bool {
    matches!(kind, GOODS | VPN_FILE | VPN_QR)
}

/// A message to be written.
#[derive(Clone, Debug)]
pub struct New<'a> {
    /// Two messages of one key are one message, for ever.
    pub dedup_key: String,
    /// The person, group or channel.
    pub chat_id: i64,
    /// What happens when nobody told us whether it arrived.
    pub class: Class,
    /// What it is about: `goods`, `balance`, `alert`.
    pub kind: &'a str,
    /// What it says.
    pub body: Body,
    /// The order whose story it belongs to.
    pub order: Option<&'a OrderId>,
}

/// A message's row.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// The person, group or channel.
    pub chat_id: i64,
    /// What happens when nobody told us whether it arrived.
    pub class: Class,
    /// What it is about.
    pub kind: String,
    /// What it says.
    pub body: Body,
    /// Where it stands.
    pub state: State,
    /// Tries of which nobody told us what became of them.
    pub uncertain: i64,
    /// When it was written.
    pub queued_at: Time,
    /// Its place in the line of its chat; zero where it stands in none.
    pub place: i64,
}

/// A message as people see it: never what it says, because that may be goods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MessageView {
    /// Its id.
    pub id: String,
    /// What it is about.
    pub kind: String,
    /// Where it stands.
    pub state: State,
    /// The order it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// Tries of which nobody told us what became of them.
    pub uncertain: i64,
    /// What went wrong last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When it was written, RFC 3339.
    pub queued_at: String,
    /// When it ended, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
}

#[cfg(test)]
mod tests {
    use semel_kernel::clock::Chance;

    use super::*;

    #[test]
    fn who_never_named_a_language_is_written_to_in_russian() {
        for tag in [None, Some(""), Some("ru"), Some("RU"), Some("ru-RU")] {
            assert_eq!(Language::of(tag), Language::Russian, "{tag:?}");
        }
        for tag in ["en", "en-GB", "de", "uk"] {
            assert_eq!(Language::of(Some(tag)), Language::English, "{tag}");
        }
    }

    #[test]
    fn a_goods_message_names_the_order_and_holds_no_goods() {
        let order = OrderId::new(Time::from_millis(0), &Chance::seeded(1));
        let body = Body::Goods { order: order.clone(), language: Language::English };
        let row = serde_json::to_string(&body).expect("a body");
        assert_eq!(row, format!(r#"{{"type":"goods","order":"{order}","language":"en"}}"#));
        assert_eq!(Body::from_value(Value::Text(row)).expect("a body"), body);
    }

    #[test]
    fn a_message_about_a_device_names_its_peer_and_holds_no_key() {
        let (at, chance) = (Time::from_millis(0), Chance::seeded(2));
        let (peer, order) = (PeerId::new(at, &chance), OrderId::new(at, &chance));
        let of = |order| OfPeer { peer: peer.clone(), device: 2, language: Language::Russian, order };
        let bodies = [
            (Body::VpnFile(of(Some(order.clone()))), VPN_FILE, format!(r#","order":"{order}""#)),
            (Body::VpnQr(of(None)), VPN_QR, String::new()),
            (Body::VpnHowto(of(None)), VPN_HOWTO, String::new()),
        ];
        for (body, kind, rest) in bodies {
            let row = serde_json::to_string(&body).expect("a body");
            assert_eq!(row, format!(r#"{{"type":"{kind}","peer":"{peer}","device":2,"language":"ru"{rest}}}"#));
            assert_eq!(Body::from_value(Value::Text(row)).expect("a body"), body);
        }
    }

    #[test]
    fn what_was_bought_waits_where_goods_wait_and_words_do_not() {
        assert!(hands_over(GOODS) && hands_over(VPN_FILE) && hands_over(VPN_QR));
        assert!(!hands_over(VPN_HOWTO) && !hands_over(ALERT) && !hands_over("balance"));
    }

    #[test]
    fn an_unreadable_body_is_an_error_and_not_an_empty_message() {
        assert!(Body::from_value(Value::Text(r#"{"type":"poem"}"#.into())).is_err());
        assert!(Class::from_value(Value::Text("perhaps".into())).is_err());
        for class in [Class::AtLeastOnce, Class::AtMostOnce, Class::Ordered] {
            assert_eq!(Class::from_value(Value::Text(class.as_str().into())).expect("a class"), class);
        }
    }

    #[test]
    fn what_telegram_took_stays_so() {
        assert!(TRANSITIONS.iter().all(|(from, _, _)| !matches!(from, State::Sent | State::Cancelled)));
        assert_eq!(State::Unknown.event_to(State::Failed), None, "an unknown fate never becomes a certain failure");
    }
}
