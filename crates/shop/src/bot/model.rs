//! What people can ask of the bot, and what a button does.

use semel_telegram::{Button, Command};
use serde::{Deserialize, Serialize};

use crate::alerts::flows::Asks;
use crate::campaigns::CampaignId;
use crate::catalog::ProductId;
use crate::messages::Language;
use crate::notices;
use crate::orders::OrderId;
use crate::subscriptions::SubscriptionId;

/// Whose update is worked off, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Who {
    /// The bot's id.
    pub(super) bot: String,
    /// Telegram's number of the update.
    pub(super) update: i64,
    /// When it came in, in milliseconds.
    pub(super) received: i64,
    /// The person, who is also the chat: the bot talks in private chats only.
    pub(super) person: i64,
    /// The language of their Telegram, when it is a sound code.
    pub(super) language: Option<String>,
    /// Whose link they came by.
    pub(super) referrer: Option<i64>,
}

/// A text with buttons below it, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Card {
    /// Telegram's HTML; everything foreign in it is escaped.
    pub(super) html: String,
    /// Rows of buttons.
    pub(super) buttons: Vec<Vec<Button>>,
}

impl Card {
    /// A text alone.
    pub(super) fn text(html: impl Into<String>) -> Self {
        Self { html: html.into(), buttons: Vec::new() }
    }

    /// The same with a row of buttons more.
    pub(super) fn row(mut self, buttons: Vec<Button>) -> Self {
        if !buttons.is_empty() {
            self.buttons.push(buttons);
        }
        self
    }
}

/// Something to be shown. Nothing here takes or gives anything, so its buttons may be pressed as often as anybody likes, and
/// by anybody: each shows the own things of whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// The greeting with the menu.
    Start,
    /// What is on sale, below this product.
    Catalog(Option<ProductId>),
    /// One product.
    Product(ProductId),
    /// The ways to pay for it.
    Ways(ProductId),
    /// The latest orders.
    Orders,
    /// One order.
    Order(OrderId),
    /// Access to the VPN.
    Access,
    /// What was bought and can be had again: access where it is sold, else the orders.
    Keys,
    /// What a subscription can be renewed with.
    Renew(SubscriptionId),
    /// Whether a device shall get another key.
    Rekey(SubscriptionId, i64),
    /// The trial.
    Trial,
    /// Money on the balance.
    Balance,
    /// The link for friends.
    Invite,
    /// The choice of a language.
    Languages,
    /// Another language from now on.
    Language(Language),
    /// What somebody wants to be told, and the language.
    Settings,
    /// Where receipts go from now on.
    Contact,
    /// A topic is told from now on, or is not.
    Notices(Topic, bool),
    /// What the bot can do.
    Help,
    /// A question to the owner; without words, how to ask it.
    Support(Asks, String),
    /// The terms.
    Terms,
    /// What is kept about people.
    Privacy,
    /// Unpaid orders that can be called off.
    Cancel,
    /// For the owner.
    Admin,
    /// The owner writes to all customers.
    Broadcast,
    /// How far a broadcast is, for the owner.
    Campaign(CampaignId),
    /// Words that are no command.
    Words {
        /// As Telegram's HTML; an owner's only.
        html: String,
        /// As they are read.
        plain: String,
        /// The message in this chat that they reply to.
        reply_to: Option<i64>,
    },
    /// Something else.
    Lost,
}

impl Door {
    /// What a command asks for.
    pub(super) fn of_command(command: &Command) -> Door {
        match command.name.as_str() {
            "start" => match command.payload.strip_prefix("buy_").and_then(ProductId::parse) {
                Some(product) => Door::Product(product),
                None => Door::Start,
            },
            "menu" => Door::Start,
            "catalog" | "shop" | "buy" => Door::Catalog(None),
            "orders" | "my" => Door::Orders,
            "keys" | "key" => Door::Keys,
            "subscription" | "access" | "vpn" | "profile" => Door::Access,
            "trial" => Door::Trial,
            "balance" => Door::Balance,
            "ref" | "referral" | "invite" => Door::Invite,
            "language" | "lang" => Door::Languages,
            "settings" | "notifications" => Door::Settings,
            "help" => Door::Help,
            "support" => Door::Support(Asks::Help, command.payload.clone()),
            "paysupport" => Door::Support(Asks::Payment, command.payload.clone()),
            "terms" | "rules" => Door::Terms,
            "privacy" => Door::Privacy,
            "cancel" => Door::Cancel,
            "admin" => Door::Admin,
            "broadcast" => Door::Broadcast,
            _ => Door::Lost,
        }
    }

    /// What a button asks for whose data is [`Door::data`]'s; none for data of any other form.
    pub(super) fn of_data(data: &str) -> Option<Door> {
        let rest = data.strip_prefix("go:")?;
        Some(match rest.split_once(':') {
            None => match rest {
                "start" => Door::Start,
                "catalog" => Door::Catalog(None),
                "orders" => Door::Orders,
                "access" => Door::Access,
                "balance" => Door::Balance,
                "invite" => Door::Invite,
                "languages" => Door::Languages,
                "settings" => Door::Settings,
                "contact" => Door::Contact,
                "broadcast" => Door::Broadcast,
                "help" => Door::Help,
                _ => return None,
            },
            Some(("catalog", below)) => Door::Catalog(Some(ProductId::parse(below)?)),
            Some(("product", id)) => Door::Product(ProductId::parse(id)?),
            Some(("ways", id)) => Door::Ways(ProductId::parse(id)?),
            Some(("order", id)) => Door::Order(OrderId::parse(id)?),
            Some(("renew", id)) => Door::Renew(SubscriptionId::parse(id)?),
            Some(("rekey", of)) => {
                let (id, device) = of.rsplit_once(':')?;
                Door::Rekey(
                    SubscriptionId::parse(id)?,
                    device.parse::<i64>().ok().filter(|device| (1..100).contains(device))?,
                )
            }
            Some(("notices", of)) => match of.split_once(':')? {
                (topic, "on") => Door::Notices(Topic::parse(topic)?, true),
                (topic, "off") => Door::Notices(Topic::parse(topic)?, false),
                _ => return None,
            },
            Some(("campaign", id)) => Door::Campaign(CampaignId::parse(id)?),
            Some(("language", "ru")) => Door::Language(Language::Russian),
            Some(("language", "en")) => Door::Language(Language::English),
            Some(_) => return None,
        })
    }

    /// What stands behind a button that leads here; empty for what has no button.
    pub(super) fn data(&self) -> String {
        match self {
            Door::Start => "go:start".into(),
            Door::Catalog(None) => "go:catalog".into(),
            Door::Catalog(Some(below)) => format!("go:catalog:{below}"),
            Door::Product(id) => format!("go:product:{id}"),
            Door::Ways(id) => format!("go:ways:{id}"),
            Door::Orders => "go:orders".into(),
            Door::Order(id) => format!("go:order:{id}"),
            Door::Access => "go:access".into(),
            Door::Renew(id) => format!("go:renew:{id}"),
            Door::Rekey(id, device) => format!("go:rekey:{id}:{device}"),
            Door::Balance => "go:balance".into(),
            Door::Invite => "go:invite".into(),
            Door::Languages => "go:languages".into(),
            Door::Language(Language::Russian) => "go:language:ru".into(),
            Door::Language(Language::English) => "go:language:en".into(),
            Door::Settings => "go:settings".into(),
            Door::Contact => "go:contact".into(),
            Door::Notices(topic, is_on) => {
                format!("go:notices:{}:{}", topic.as_str(), if *is_on { "on" } else { "off" })
            }
            Door::Help => "go:help".into(),
            Door::Broadcast => "go:broadcast".into(),
            Door::Campaign(id) => format!("go:campaign:{id}"),
            Door::Keys
            | Door::Trial
            | Door::Support(..)
            | Door::Terms
            | Door::Privacy
            | Door::Cancel
            | Door::Admin
            | Door::Words { .. }
            | Door::Lost => String::new(),
        }
    }

    /// A button that leads here.
    pub(super) fn button(&self, words: impl Into<String>) -> Button {
        Button::callback(words, self.data())
    }
}

/// What a customer can do without hearing of, as kinds of notices. Money and goods are none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    /// Access ends soon, has ended, or was never used.
    Reminders,
    /// News and offers to many people.
    Campaigns,
    /// Digests.
    Digests,
    /// A friend's first payment was rewarded.
    Rewards,
}

impl Topic {
    pub(super) const ALL: [Topic; 4] = [Topic::Reminders, Topic::Campaigns, Topic::Digests, Topic::Rewards];

    /// The word behind its buttons.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Topic::Reminders => "reminders",
            Topic::Campaigns => "campaigns",
            Topic::Digests => "digests",
            Topic::Rewards => "rewards",
        }
    }

    fn parse(word: &str) -> Option<Topic> {
        Topic::ALL.into_iter().find(|topic| topic.as_str() == word)
    }

    /// The kinds of notices in it.
    pub(super) const fn kinds(self) -> &'static [&'static str] {
        match self {
            Topic::Reminders => &["vpn_ends", "vpn_ended", "vpn_unconnected"],
            Topic::Campaigns => &[notices::CAMPAIGN],
            Topic::Digests => &[notices::DIGEST],
            Topic::Rewards => &["reward"],
        }
    }
}

/// Something that a press does, once. Stored in rows: a field may be added with a default, never renamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(super) enum Action {
    /// Orders one of a product.
    Buy(Buy),
    /// Sends an order's goods once more.
    GoodsAgain {
        /// Which order.
        order: OrderId,
    },
    /// Sends a device's file once more.
    FileAgain {
        /// Whose device.
        subscription: SubscriptionId,
        /// Which, from 1.
        device: i64,
    },
    /// Gives a device another key: its old file works no more.
    NewKey {
        /// Whose device.
        subscription: SubscriptionId,
        /// Which, from 1.
        device: i64,
    },
    /// Begins the trial.
    Trial,
    /// Calls an unpaid order off.
    CancelOrder {
        /// Which.
        order: OrderId,
    },
    /// Sends a broadcast to everybody.
    StartCampaign {
        /// Which.
        campaign: CampaignId,
        /// What it said when the button was made.
        content: i64,
        /// How many people the button named.
        people: i64,
        /// Whether the number was asked once more.
        sure: bool,
    },
    /// Calls an unpaid order off and shows the ways to pay for the same thing.
    OtherWay {
        /// Which.
        order: OrderId,
    },
    /// Throws a broadcast away, or stops one that runs.
    StopCampaign {
        /// Which.
        campaign: CampaignId,
    },
}

/// What a button for buying was made for. Whatever of it has changed since, the press buys nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Buy {
    /// What.
    pub(super) product: ProductId,
    /// The product's version that the customer saw.
    pub(super) version: i64,
    /// Its price then, in smallest units.
    pub(super) price_minor: i64,
    /// The price's currency.
    pub(super) currency: String,
    /// A provider, or `balance`.
    pub(super) way: String,
    /// The subscription that it renews.
    #[serde(default)]
    pub(super) renews: Option<SubscriptionId>,
}

#[cfg(test)]
mod tests {
    use semel_kernel::clock::{Chance, Time};
    use semel_telegram::CALLBACK_DATA_LIMIT;

    use super::*;

    fn command(name: &str, payload: &str) -> Door {
        Door::of_command(&Command { name: name.into(), payload: payload.into() })
    }

    #[test]
    fn a_button_leads_where_its_data_says() {
        let (at, chance) = (Time::from_millis(1_700_000_000_000), Chance::seeded(1));
        let (product, order) = (ProductId::new(at, &chance), OrderId::new(at, &chance));
        let doors = [
            Door::Start,
            Door::Catalog(None),
            Door::Catalog(Some(product.clone())),
            Door::Product(product.clone()),
            Door::Ways(product),
            Door::Orders,
            Door::Order(order),
            Door::Access,
            Door::Renew(SubscriptionId::new(at, &chance)),
            Door::Balance,
            Door::Invite,
            Door::Languages,
            Door::Language(Language::English),
            Door::Rekey(SubscriptionId::new(at, &chance), 10),
            Door::Settings,
            Door::Contact,
            Door::Notices(Topic::Reminders, false),
            Door::Notices(Topic::Digests, true),
            Door::Broadcast,
            Door::Campaign(CampaignId::new(at, &chance)),
            Door::Help,
        ];
        for door in doors {
            let data = door.data();
            assert!((1..=CALLBACK_DATA_LIMIT).contains(&data.len()), "{data}");
            assert_eq!(Door::of_data(&data), Some(door), "{data}");
        }
        for forged in [
            "",
            "go:",
            "go:admin",
            "go:product:1",
            "go:order:prd_1",
            "go:language:tlh",
            "catalog",
            "go:catalog:",
            "go:rekey:sub_1",
            "go:rekey:sub_1:0",
            "go:rekey:sub_1:x",
            "go:notices:money:off",
            "go:notices:campaigns:maybe",
        ] {
            assert_eq!(Door::of_data(forged), None, "{forged}");
        }
    }

    #[test]
    fn a_link_leads_to_its_product_and_any_other_to_the_greeting() {
        assert_eq!(command("start", "buy_prd_1"), Door::Product(ProductId::parse("prd_1").unwrap()));
        for payload in ["", "ref_42", "buy_", "buy_1", "x"] {
            assert_eq!(command("start", payload), Door::Start, "{payload}");
        }
        assert_eq!(command("paysupport", "where is it"), Door::Support(Asks::Payment, "where is it".into()));
        assert_eq!(command("support", ""), Door::Support(Asks::Help, String::new()));
        assert_eq!(command("fly", ""), Door::Lost);
    }

    #[test]
    fn a_topic_holds_only_what_may_be_switched_off_and_all_of_it() {
        let of_topics: Vec<&str> = Topic::ALL.into_iter().flat_map(|topic| topic.kinds().iter().copied()).collect();
        let switchable: Vec<&str> = notices::KINDS.iter().filter(|kind| kind.switch).map(|kind| kind.word).collect();
        assert!(of_topics.iter().all(|word| switchable.contains(word)), "{of_topics:?}");
        assert!(switchable.iter().all(|word| of_topics.contains(word)), "{switchable:?}");
    }

    #[test]
    fn an_action_is_read_back_as_it_was_written() {
        let buy = Action::Buy(Buy {
            product: ProductId::parse("prd_1").unwrap(),
            version: 3,
            price_minor: 49_900,
            currency: "RUB".into(),
            way: "yookassa".into(),
            renews: None,
        });
        for action in [buy, Action::Trial, Action::CancelOrder { order: OrderId::parse("ord_1").unwrap() }] {
            let row = serde_json::to_string(&action).unwrap();
            assert_eq!(serde_json::from_str::<Action>(&row).unwrap(), action, "{row}");
        }
    }
}
