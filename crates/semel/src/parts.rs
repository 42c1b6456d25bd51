//! From settings to the parts of a shop.

pub mod vpn;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use semel_kernel::clock::{Chance, Clock};
use semel_kernel::outbound::{Outbound, OutboundOptions};
use semel_kernel::store::{Store, StoreError, StoreOptions, StoreUrl};
use semel_money::BasisPoints;
use semel_payments::{CrystalPay, Heleket, Provider, Rail, ReceiptSettings, Stars, YooKassa};
use semel_shop::campaigns::{Broadcast, Speed};
use semel_shop::stars::Worth;
use semel_shop::{EventsOut, Rules, Shop, ShopParts};
use semel_telegram::Bot;

use crate::settings::{self, DatabaseUrl, Networks, Settings};

/// Opens the database that the settings name.
pub fn open_store(settings: &Settings, clock: Clock) -> anyhow::Result<Store> {
    let url = match &settings.database {
        DatabaseUrl::Sqlite(path) => StoreUrl::Sqlite(path.clone()),
        DatabaseUrl::Postgres(text) => StoreUrl::Postgres(text.clone()),
    };
    let options = StoreOptions {
        pool_max: usize::from(settings.pool_max),
        wait: settings.database_wait,
        ..StoreOptions::default()
    };
    Ok(Store::open(&url, options, clock)?)
}

/// The shop that the settings describe, on `store`.
pub fn shop(settings: &Settings, store: Store, chance: Chance) -> anyhow::Result<Shop> {
    let outbound = Outbound::new(store.clock().clone(), chance.clone(), OutboundOptions::default())?;
    shop_with(settings, store, outbound, chance)
}

/// The same with an HTTP client made by hand: a test whose database's clock stands still gives one whose clock runs,
/// because pace and breaker wait for time to pass.
pub fn shop_with(settings: &Settings, store: Store, outbound: Outbound, chance: Chance) -> anyhow::Result<Shop> {
    let bot = settings
        .telegram
        .bot_token
        .as_ref()
        .map(|token| Bot::new(settings.telegram.api_url.as_str(), token.expose()))
        .transpose()
        .context("telegram.bot_token")?;
    // The proxy is for the Bot API alone: where that is blocked, the providers' own sites are not.
    let telegram = match &settings.telegram.proxy {
        None => outbound.clone(),
        Some(proxy) => {
            let options = OutboundOptions { proxy: Some(proxy.expose().to_owned()), ..OutboundOptions::default() };
            Outbound::new(store.clock().clone(), chance.clone(), options)?
        }
    };
    let vpn = vpn::vpn(settings, &chance)?;
    Ok(Shop::new(ShopParts {
        store,
        outbound,
        telegram,
        chance,
        rails: rails(settings)?,
        bot,
        rules: rules(settings)?,
        vpn,
    }))
}

fn rules(settings: &Settings) -> anyhow::Result<Rules> {
    let shop = &settings.shop;
    let trimmed = |url: &url::Url| url.as_str().trim_end_matches('/').to_owned();
    let events = match &settings.webhooks_out {
        None => None,
        Some(out) => {
            let secret = out.secret.expose().strip_prefix("whsec_").unwrap_or(out.secret.expose());
            let secret = STANDARD.decode(secret).context("webhooks_out.secret is not base64 after whsec_")?;
            Some(EventsOut { url: out.url.to_string(), secret, allow_private: out.allow_private })
        }
    };
    let public_url = settings.public_url.as_ref().map(trimmed);
    Ok(Rules {
        currency: shop.currency,
        order_lifetime: shop.order_lifetime,
        unpaid_orders: shop.unpaid_orders_per_customer,
        referral: BasisPoints(shop.referral_reward_bp),
        late_deliver: shop.late_deliver,
        admins: settings.telegram.admin_ids.clone(),
        telegram_rate: settings.telegram.rate,
        broadcast: Broadcast {
            max_users: settings.broadcast.max_users.into(),
            confirm_over: settings.broadcast.confirm_over.into(),
            speed: settings.broadcast.speed.map(speed),
        },
        notify_speed: settings.notify_speed.map(speed),
        stars_worth: settings.stars.and_then(|stars| stars.worth_millionths).and_then(Worth::millionths),
        return_url: shop.return_url.as_ref().map(url::Url::to_string).or_else(|| public_url.clone()),
        public_url,
        events,
        bodies_kept: days(settings.retention.inbox_days),
        jobs_kept: days(settings.retention.jobs_days),
    })
}

fn speed(given: settings::Speed) -> Speed {
    Speed { batch: given.batch, rest: given.rest }
}

/// A time in days, where none means for ever.
fn days(count: u32) -> Option<Duration> {
    (count > 0).then(|| Duration::from_secs(u64::from(count) * 24 * 3600))
}

fn networks(given: &Networks, published: Option<Vec<ipnet::IpNet>>) -> Option<Vec<ipnet::IpNet>> {
    match given {
        Networks::Published => published,
        Networks::Listed(list) => Some(list.clone()),
        Networks::Off => None,
    }
}

/// The configured providers.
pub fn rails(settings: &Settings) -> anyhow::Result<BTreeMap<Provider, Rail>> {
    let mut rails = BTreeMap::new();
    if let Some(given) = &settings.yookassa {
        let mut rail = YooKassa::new(&given.shop_id, given.secret_key.expose(), base(&given.api_url))?;
        rail.networks = networks(&given.networks, rail.networks);
        rail.allow_test = given.allow_test;
        rail.receipt = given.receipt.as_ref().map(|receipt| ReceiptSettings {
            tax_system_code: receipt.tax_system,
            vat_code: receipt.vat,
            payment_subject: receipt.subject.clone(),
            payment_mode: receipt.mode.clone(),
        });
        rails.insert(Provider::YooKassa, Rail::YooKassa(rail));
    }
    if let Some(given) = &settings.heleket {
        let payout = given.payout_key.as_ref().map(|key| key.expose());
        let mut rail = Heleket::new(&given.merchant_id, given.payment_key.expose(), payout, base(&given.api_url))?;
        rail.networks = networks(&given.networks, rail.networks);
        rails.insert(Provider::Heleket, Rail::Heleket(rail));
    }
    if let Some(given) = &settings.crystalpay {
        let (login, secret, salt) = (&given.login, given.secret.expose(), given.salt.expose());
        let mut rail = CrystalPay::new(login, secret, salt, base(&given.api_url))?;
        rail.networks = networks(&given.networks, rail.networks);
        rails.insert(Provider::CrystalPay, Rail::CrystalPay(rail));
    }
    if let (Some(_), Some(token)) = (&settings.stars, &settings.telegram.bot_token) {
        let rail = Stars::new(token.expose(), base(&settings.telegram.api_url))?;
        rails.insert(Provider::Stars, Rail::Stars(rail));
    }
    Ok(rails)
}

fn base(url: &url::Url) -> &str {
    url.as_str().trim_end_matches('/')
}

/// A demo's database must never become a real one.
pub async fn refuse_demo(store: &Store) -> anyhow::Result<()> {
    if !is_of_demo(store).await? {
        return Ok(());
    }
    bail!("this database was made by `semel demo` and is not for real money: point SEMEL_DATABASE_URL at another one")
}

/// Whether `semel demo` made this database.
pub async fn is_of_demo(store: &Store) -> Result<bool, StoreError> {
    Ok(!store.rows("marks.demo", "select value from marks where name = 'demo'", &[]).await?.is_empty())
}
