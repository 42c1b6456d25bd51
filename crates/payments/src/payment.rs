//! The words that all providers share: what we ask for and what they answer.

use semel_money::Amount;

/// A payment to be opened at the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPayment {
    /// Our id of this payment. Goes out in `metadata.payment_id` (YooKassa), `order_id` (Heleket) or `extra` (CrystalPay) and comes back
    /// in every answer, so a payment is found even when the answer that named it was lost.
    pub payment_id: String,
    /// Our id of the order, for people who read the provider's pages.
    pub order_id: String,
    /// `Idempotence-Key`, at most 64 visible characters. The same key must always go with the same bytes.
    pub key: String,
    /// What to pay.
    pub amount: Amount,
    /// What the customer reads; cut to what the provider takes.
    pub description: String,
    /// Where the customer goes afterwards.
    pub return_url: Option<String>,
    /// Where the provider sends its notices, for those who are told per payment.
    pub callback_url: Option<String>,
    /// How long the link shall live, in seconds; rounded into what the provider takes, ignored where it takes nothing.
    pub lifetime_s: u32,
    /// For the fiscal receipt.
    pub customer_email: Option<String>,
    /// For the fiscal receipt; digits with the country code.
    pub customer_phone: Option<String>,
    /// What is bought, for the fiscal receipt; adds up to `amount`.
    pub lines: Vec<Line>,
}

/// One line of a receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What it is.
    pub title: String,
    /// How many.
    pub quantity: u32,
    /// Price of one.
    pub price: Amount,
}

/// A payment that the provider has opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// The provider's id.
    pub provider_id: String,
    /// Where the customer pays.
    pub url: Option<String>,
    /// When the link dies, in milliseconds since 1970, if the provider says so.
    pub expires_at_ms: Option<i64>,
    /// Its state already now: a repeated call may find it paid.
    pub seen_state: SeenState,
}

/// Which payment to ask about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PaymentRef {
    /// By the provider's id.
    ProviderId(String),
    /// By our payment id, where the provider can (Heleket).
    Ours(String),
}

/// A payment as the provider's own API describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The provider's id.
    pub provider_id: String,
    /// Our payment id as the provider gives it back.
    pub ours: Option<String>,
    /// What became of it.
    pub state: SeenState,
    /// Whether the provider means to leave it so. Late crypto payments revive even a final cancellation.
    pub is_final: bool,
    /// What was asked for.
    pub price: Amount,
    /// What came in, in the currency of `price`; `None` while nothing is certain or where the provider does not say.
    pub received: Option<Amount>,
    /// What went back, where the provider says so.
    pub refunded: Option<Amount>,
    /// A test payment on an account that may not take tests: it is no money, refuse it.
    pub test: bool,
    /// The transaction on its chain, for people; not part of the payment's identity.
    pub transaction: Option<String>,
    /// The status in the provider's words.
    pub raw_status: String,
    /// Why it was cancelled or looks odd, if the provider says so.
    pub reason: Option<String>,
}

impl Seen {
    /// The refund that the payment's own state tells of; `None` where it tells of none. A refund of Stars has the id of its charge, and
    /// its sum is told.
    ///
    /// Heleket's refunds have no id, no list and no sum in any answer: `refund_process`, `refund_paid` and `refund_fail` in
    /// the place of the payment's state are all it says. So the refund carries the payment's id, and `amount` is `None`: it
    /// may have been all of the payment or a part, and only the cabinet knows. A second refund of the same payment cannot be
    /// told from the first. YooKassa's state never tells of a refund: there `refunded` does, and [`crate::Rail::list_refunds`].
    pub fn refund(&self) -> Option<SeenRefund> {
        let state = match self.state {
            SeenState::RefundPending => RefundState::Pending,
            SeenState::Refunded => RefundState::Succeeded,
            SeenState::RefundFailed => RefundState::Cancelled,
            _ => return None,
        };
        Some(SeenRefund {
            refund_id: self.provider_id.clone(),
            provider_id: self.provider_id.clone(),
            state,
            amount: self.refunded.filter(|_| state == RefundState::Succeeded),
            reason: (state == RefundState::Cancelled).then(|| self.raw_status.clone()),
        })
    }
}

/// What became of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SeenState {
    /// Waits for the customer.
    Open,
    /// Seen, not certain yet.
    Processing,
    /// Money is held; we must capture or cancel.
    WaitingForCapture,
    /// Paid in full. A refund at YooKassa leaves this state and shows in `refunded`.
    Paid,
    /// Paid with a surplus.
    PaidOver,
    /// Too little so far, the rest may still come.
    ShortOpen,
    /// Too little, and that is all.
    Short,
    /// Closed unpaid.
    Cancelled,
    /// Went wrong, no money.
    Failed,
    /// Held by the provider's compliance check.
    Locked,
    /// A refund is under way.
    RefundPending,
    /// Given back.
    Refunded,
    /// A refund did not work.
    RefundFailed,
    /// A status that we do not know: record, alert, move no money.
    Unknown,
}

/// One page of the provider's list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The payments that we understood.
    pub items: Vec<Seen>,
    /// How to ask for the next page; `None` on the last.
    pub next: Option<String>,
    /// Entries that we did not understand, each with its reason: one odd payment must not hide the others.
    pub unreadable: Vec<String>,
}

/// Money to be given back through the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRefund {
    /// The provider's id of the payment.
    pub provider_id: String,
    /// How much.
    pub amount: Amount,
    /// `Idempotence-Key`, at most 64 visible characters, where the provider honours one.
    pub key: String,
    /// Why, for the provider's pages.
    pub reason: String,
    /// Where to send crypto; the payer must name it.
    pub address: Option<String>,
    /// Who paid, by Telegram's id: Stars go back to nobody else.
    pub payer: Option<i64>,
    /// For the fiscal receipt.
    pub customer_email: Option<String>,
    /// For the fiscal receipt.
    pub customer_phone: Option<String>,
    /// What is given back, for the fiscal receipt; adds up to `amount`.
    pub lines: Vec<Line>,
}

/// A refund as the provider describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRefund {
    /// The provider's id of the refund; Heleket and Stars have none, there it is the payment's.
    pub refund_id: String,
    /// The provider's id of the payment.
    pub provider_id: String,
    /// How far it got.
    pub state: RefundState,
    /// How much; `None` where the provider does not say (asking Heleket).
    pub amount: Option<Amount>,
    /// Why it was cancelled.
    pub reason: Option<String>,
}

/// How far a refund got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefundState {
    /// Accepted, on its way; ask again.
    Pending,
    /// The money went back.
    Succeeded,
    /// It will not happen.
    Cancelled,
}

/// Which refunds to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhichRefunds<'a> {
    /// Those begun since a moment, in milliseconds since 1970.
    Since(i64),
    /// Those of one payment, by the provider's id of it.
    Of(&'a str),
}

/// One page of the provider's list of refunds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RefundPage {
    /// The refunds that we understood.
    pub items: Vec<SeenRefund>,
    /// How to ask for the next page; `None` on the last.
    pub next: Option<String>,
    /// Entries that we did not understand, each with its reason: one odd refund must not hide the others.
    pub unreadable: Vec<String>,
}
