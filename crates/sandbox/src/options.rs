//! What a sandbox is started with, and the credentials that it accepts unless told otherwise.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

/// The shop id of the sandbox at YooKassa.
pub const YOOKASSA_SHOP_ID: &str = "900001";
/// The secret key of the sandbox at YooKassa: shaped like a live one, because payments say `test: false` unless told otherwise.
pub const YOOKASSA_SECRET_KEY: &str = "live_SANDBOX-no-real-key";
/// The merchant id of the sandbox at Heleket.
pub const HELEKET_MERCHANT_ID: &str = "00000000-0000-4000-8000-000000900001";
/// The payment key of the sandbox at Heleket: invoices, lists, webhooks about payments.
pub const HELEKET_PAYMENT_KEY: &str = "sandbox-heleket-payment-key";
/// The payout key of the sandbox at Heleket: refunds and payouts.
pub const HELEKET_PAYOUT_KEY: &str = "sandbox-heleket-payout-key";
/// The login of the sandbox's cash desk at CrystalPay.
pub const CRYSTALPAY_LOGIN: &str = "sandbox-desk";
/// The first secret of the sandbox's cash desk at CrystalPay: it opens the API.
pub const CRYSTALPAY_SECRET: &str = "sandbox-crystalpay-secret";
/// The second secret of the sandbox's cash desk at CrystalPay: it signs callbacks.
pub const CRYSTALPAY_SALT: &str = "sandbox-crystalpay-salt";
/// The bot token that the sandbox's Telegram accepts. It has the shape of a real one and is none.
pub const BOT_TOKEN: &str = "700000001:SANDBOX_bot_token_for_local_tests_0";

/// Who sends the webhooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// By themselves, with each provider's retry schedule.
    Auto,
    /// They wait in the outbox until the test sends them, in the order that the test likes.
    Manual,
}

/// The time and the dice of a simulated world, in the place of the machine's.
///
/// Only for a box on a runtime of one thread: both belong to the thread that starts it, and to every box on that thread.
#[derive(Clone)]
pub struct ByHand {
    /// Now, in milliseconds since 1970, UTC.
    pub now_ms: Arc<dyn Fn() -> i64 + Send + Sync>,
    /// Lets so many milliseconds pass. Each call of an API takes some, as in life, and a delay takes no other time.
    pub pass_ms: Arc<dyn Fn(u64) + Send + Sync>,
    /// Ids and everything else that is random come from it.
    pub seed: u64,
}

/// How a sandbox is set up. It has no `Debug`: credentials do not print.
#[derive(Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Who sends the webhooks.
    pub mode: Delivery,
    /// The waits between webhook attempts and the time a long poll is held are divided by this; 0 counts as 1.
    pub time_scale: u32,
    /// Where YooKassa sends its webhooks (in life it is set in the cabinet). Without it, YooKassa sends none.
    pub yookassa_hook_url: Option<String>,
    /// YooKassa's shop id.
    pub yookassa_shop_id: String,
    /// YooKassa's secret key.
    pub yookassa_secret_key: String,
    /// Refuse payments and refunds without a receipt, as for a shop with fiscalisation on.
    pub yookassa_receipt_required: bool,
    /// Mark payments as made in a test shop.
    pub yookassa_test: bool,
    /// Heleket's merchant id.
    pub heleket_merchant_id: String,
    /// Heleket's key for payments.
    pub heleket_payment_key: String,
    /// Heleket's key for refunds and payouts.
    pub heleket_payout_key: String,
    /// CrystalPay's login.
    pub crystalpay_login: String,
    /// CrystalPay's API secret.
    pub crystalpay_secret: String,
    /// CrystalPay's callback salt.
    pub crystalpay_salt: String,
    /// The only bot token that Telegram accepts.
    pub bot_token: String,
    /// Enforce Telegram's limits from the start, see [`crate::TelegramLimits`].
    pub telegram_limits: bool,
    /// Append the ground truth here as JSON lines `{"table":"gt_hook","row":{…}}`, each written before the answer goes out.
    /// A `gt_pay` line carries the payment's totals: the last line of a payment counts.
    pub truth_file: Option<PathBuf>,
    /// Where customers reach the pay pages, if not at the listening address.
    pub public_url: Option<String>,
    /// The time and the dice of a simulation; none is the machine's.
    pub by_hand: Option<ByHand>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            mode: Delivery::Auto,
            time_scale: 1,
            yookassa_hook_url: None,
            yookassa_shop_id: YOOKASSA_SHOP_ID.into(),
            yookassa_secret_key: YOOKASSA_SECRET_KEY.into(),
            yookassa_receipt_required: false,
            yookassa_test: false,
            heleket_merchant_id: HELEKET_MERCHANT_ID.into(),
            heleket_payment_key: HELEKET_PAYMENT_KEY.into(),
            heleket_payout_key: HELEKET_PAYOUT_KEY.into(),
            crystalpay_login: CRYSTALPAY_LOGIN.into(),
            crystalpay_secret: CRYSTALPAY_SECRET.into(),
            crystalpay_salt: CRYSTALPAY_SALT.into(),
            bot_token: BOT_TOKEN.into(),
            telegram_limits: false,
            truth_file: None,
            public_url: None,
            by_hand: None,
        }
    }
}
