//! The shop as its flows and jobs see it: the database, the outside, and the owner's rules.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use semel_kernel::clock::{Chance, Time};
use semel_kernel::jobs::Workers;
use semel_kernel::outbound::Outbound;
use semel_kernel::store::{Store, StoreError, Tx};
use semel_money::{BasisPoints, Currency};
use semel_payments::{Provider, Rail};
use semel_telegram::Bot;
use semel_telegram::pacer::Limits;

use crate::audit::stops::Stops;
use crate::audit::{Gate, News};
use crate::messages::{DeliverMessage, Pace};
use crate::refunds::RunRefund;
use crate::safety::Safety;
use crate::{Error, owner_log};

/// The lanes of the shop's jobs: a slow one delays no other.
pub struct Lanes;

impl Lanes {
    /// Asking providers and moving money.
    pub const MONEY: &'static str = "money";
    /// Messages to customers and owners.
    pub const MESSAGES: &'static str = "messages";
    /// Messages to many. The places of a lane are few: a campaign that takes one must not take it from a paid key.
    pub const CAMPAIGNS: &'static str = "campaigns";
    /// What people tell the bot.
    pub const BOT: &'static str = "bot";
    /// Webhooks to the owner's own programs.
    pub const EVENTS: &'static str = "events";
    /// Deadlines and sweeps.
    pub const CARE: &'static str = "care";
    /// Bringing servers of the VPN to what is wanted, and looking at them.
    pub const VPN: &'static str = "vpn";
}

/// Where events go: Standard Webhooks to one address.
#[derive(Clone)]
pub struct EventsOut {
    /// The address.
    pub url: String,
    /// The signing key's bytes.
    pub secret: Vec<u8>,
    /// Whether a private address is allowed (an own bot on the same machine).
    pub allow_private: bool,
}

/// What the owner decided.
#[derive(Clone)]
pub struct Rules {
    /// The currency in which prices are told when none is given.
    pub currency: Currency,
    /// How long an order waits for its money and holds its stock.
    pub order_lifetime: Duration,
    /// Unpaid orders that one customer may have.
    pub unpaid_orders: u32,
    /// The share of the first payment that the referrer gets on the balance.
    pub referral: BasisPoints,
    /// Whether a late payment still delivers when stock is left.
    pub late_deliver: bool,
    /// Telegram ids of the owner and helpers: alerts go there.
    pub admins: Vec<i64>,
    /// The most messages that leave in any second; Telegram allows a bot 30.
    pub telegram_rate: u32,
    /// Campaigns.
    pub broadcast: crate::campaigns::Broadcast,
    /// A lower speed of reminders than Telegram allows, if the owner wants one.
    pub notify_speed: Option<crate::campaigns::Speed>,
    /// What one Telegram Star is worth in `currency`; without it only what is priced in Stars is sold for them.
    pub stars_worth: Option<crate::stars::Worth>,
    /// Where providers reach us, without a slash at the end.
    pub public_url: Option<String>,
    /// Where a customer goes after paying.
    pub return_url: Option<String>,
    /// Where events go.
    pub events: Option<EventsOut>,
    /// How long after its coming a notice that has ended keeps its body; `None` for ever.
    pub bodies_kept: Option<Duration>,
    /// How long after its writing a job that is done keeps its row, if nothing depends on it; `None` for ever.
    pub jobs_kept: Option<Duration>,
}

/// A running shop. Cheap to clone; the context of its jobs.
#[derive(Clone)]
pub struct Shop(Arc<Running>, Safety);

struct Running {
    parts: ShopParts,
    stops: Stops,
    news: News,
    pace: Pace,
    still: crate::bot::Still,
}

/// What a shop is made of.
pub struct ShopParts {
    /// The database.
    pub store: Store,
    /// The one HTTP client.
    pub outbound: Outbound,
    /// The client for the Bot API: the same, unless a proxy stands between.
    pub telegram: Outbound,
    /// Randomness for ids and keys.
    pub chance: Chance,
    /// The configured providers.
    pub rails: BTreeMap<Provider, Rail>,
    /// The bot that talks to customers, if there is one.
    pub bot: Option<Bot>,
    /// The owner's rules.
    pub rules: Rules,
    /// The VPN server of this machine, if access to one is sold here.
    pub vpn: Option<crate::vpn::Vpn>,
}

impl std::ops::Deref for Shop {
    type Target = ShopParts;
    fn deref(&self) -> &ShopParts {
        &self.0.parts
    }
}

impl Shop {
    /// A shop of these parts.
    pub fn new(parts: ShopParts) -> Self {
        let limits = Limits::per_second(parts.rules.telegram_rate);
        let pace = if parts.store.clock().is_manual() {
            let client = parts.telegram.clone();
            Pace::by_hand(limits, parts.chance.clone(), move || client.now())
        } else {
            Pace::new(limits, parts.chance.clone())
        };
        let still = crate::bot::Still::default();
        let running = Running { parts, stops: Stops::default(), news: News::default(), pace, still };
        Self(Arc::new(running), Safety::default())
    }

    /// Now, on the database's clock.
    pub fn now(&self) -> Time {
        self.store.now()
    }

    /// What this process knows about safe mode.
    pub fn safety(&self) -> &Safety {
        &self.1
    }

    /// The pace of the bot: every call that writes to a chat takes its turn there.
    pub fn pace(&self) -> &Pace {
        &self.0.pace
    }

    /// When which chat got the menu that needs no database.
    pub fn still(&self) -> &crate::bot::Still {
        &self.0.still
    }

    /// The rail of `provider`, or an error that says how to get one.
    pub fn rail(&self, provider: Provider) -> Result<&Rail, Error> {
        self.rails.get(&provider).ok_or_else(|| {
            Error::invalid("provider", format!("{} is not configured on this server", provider.as_str()))
        })
    }

    /// Whether goods leave by Telegram; otherwise they are delivered by being readable over the API.
    pub fn delivers_by_message(&self) -> bool {
        self.bot.is_some()
    }

    /// What the self-audit stopped, as far as this process knows.
    pub fn stops(&self) -> &Stops {
        &self.0.stops
    }

    /// Runs `f` in a writing transaction. What it commits is looked at by the self-audit soon after; if it is the owner who
    /// acts ([`owner_log::acting`]), the action's row in the log commits with it.
    pub async fn write<T, F>(&self, label: &'static str, mut f: F) -> Result<T, Error>
    where
        F: FnMut(&mut Tx, &Shop) -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        let (shop, act) = (self.clone(), owner_log::current());
        let of = act.clone();
        let written: Result<(T, i64), Error> = self
            .store
            .write(label, move |tx| {
                let value = f(tx, &shop)?;
                let minute = shop.0.news.tell(tx, &shop, label)?;
                if let Some(act) = &of {
                    owner_log::flows::append(tx, act)?;
                }
                Ok::<_, Error>((value, minute))
            })
            .await;
        let (value, minute) = written?;
        self.0.news.told(minute);
        if let Some(act) = act {
            act.done();
        }
        Ok(value)
    }

    /// Runs `f` in a reading transaction.
    pub async fn read<T, F>(&self, label: &'static str, f: F) -> Result<T, Error>
    where
        F: FnMut(&mut Tx) -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        self.store.read(label, f).await
    }

    /// Runs `f`, which runs one statement, in a reading transaction: one round trip.
    pub async fn look<T, F>(&self, label: &'static str, f: F) -> Result<T, Error>
    where
        F: FnMut(&mut Tx) -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        self.store.look(label, f).await
    }

    /// Teaches `workers` every kind of this shop's jobs. The lane of the VPN is taken only by a copy that can apply its
    /// server: another one would hold up what it cannot do.
    pub fn workers(&self, workers: Workers<Shop>) -> Workers<Shop> {
        let workers = crate::checkout::jobs(workers);
        let workers = crate::refunds::jobs(workers);
        let workers = crate::messages::jobs(workers);
        let workers = crate::events::jobs(workers);
        let workers = crate::orders::jobs(workers);
        let workers = crate::safety::jobs(workers);
        let workers = crate::subscriptions::jobs(workers);
        let applies = self.vpn.as_ref().is_some_and(|vpn| vpn.target.is_some());
        let workers = crate::vpn::jobs(workers, applies);
        let workers = crate::bot::jobs(workers);
        let workers = crate::campaigns::jobs(workers);
        let workers = workers.with::<crate::alerts::Alert>().with::<crate::referrals::RewardReferrer>();
        let workers = workers.with::<crate::audit::FreshAudit>().with::<crate::audit::NightAudit>();
        let workers = workers.with::<crate::retention::Retention>();
        // In place of the same kinds without a gate: money and goods that the self-audit stopped wait here.
        workers.with::<Gate<DeliverMessage>>().with::<Gate<RunRefund>>()
    }
}

/// Reads a currency of a row.
pub(crate) fn currency(code: &str) -> Result<Currency, StoreError> {
    Currency::from_code(code)
        .map_err(|error| StoreError::Decode { wanted: "a known currency", found: error.to_string() })
}
