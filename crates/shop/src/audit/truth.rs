//! Ground truth: what the outside world says that it accepted and answered.
//!
//! A checker that ran the outside world itself hands its log over as plain rows. They go into a query as common table
//! expressions, so nothing is written to the database, and no session has to stay the same.

/// What a sender of webhooks was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookRow {
    /// Who sent it.
    pub provider: String,
    /// Our account there.
    pub merchant: String,
    /// The sender's id of the event.
    pub event_id: String,
    /// SHA-256 of the body, lowercase.
    pub body_hash: String,
    /// The status that we answered; zero when there was no answer. What the provider's profile reads as a confirmation
    /// counts as 200.
    pub status: i64,
    /// When it was sent, in milliseconds.
    pub sent_at: i64,
    /// When the answer came, in milliseconds.
    pub answered_at: Option<i64>,
}

/// What a provider took and gave back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayRow {
    /// The provider.
    pub provider: String,
    /// Our account there.
    pub merchant: String,
    /// The payment's id there.
    pub provider_payment_id: String,
    /// The currency's code.
    pub currency: String,
    /// Taken, in the smallest unit.
    pub captured: i64,
    /// Given back, in the smallest unit.
    pub refunded: i64,
}

/// What a rail for payouts carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RailRow {
    /// Which rail.
    pub rail: String,
    /// The id under which we asked for it: `ref` in the queries.
    pub reference: String,
    /// The payout.
    pub payout_id: String,
    /// The currency's code.
    pub currency: String,
    /// In the smallest unit.
    pub amount: i64,
    /// SHA-256 of the request, lowercase.
    pub request_hash: String,
    /// When, in milliseconds.
    pub at: i64,
}

/// A call that reached Telegram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TgRow {
    /// The call.
    pub call_id: String,
    /// Whose bot token, or a name for it.
    pub token: String,
    /// To whom.
    pub chat_id: i64,
    /// The method of the Bot API.
    pub method: String,
    /// What stood in the header `X-Request-Id`: the message's id.
    pub msg_id: Option<String>,
    /// Whether Telegram did it.
    pub accepted: bool,
    /// Whether the answer never reached us.
    pub answer_lost: bool,
    /// Seconds of silence that the answer asked for; zero when it did not.
    pub retry_after: i64,
    /// What a "slow down" meant: `chat` or `token`.
    pub scope: Option<String>,
    /// When, in milliseconds.
    pub at: i64,
}

/// What a supplier was asked to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupplierRow {
    /// The id under which we asked for it: `ref` in the queries.
    pub reference: String,
    /// For which line of an order.
    pub item_id: String,
    /// SHA-256 of the request, lowercase.
    pub request_hash: String,
    /// When, in milliseconds.
    pub at: i64,
}

/// The log of the outside world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TruthRows {
    /// `gt_hook`: webhooks and our answers.
    pub hooks: Vec<HookRow>,
    /// `gt_pay`: payments at the providers.
    pub pays: Vec<PayRow>,
    /// `gt_rail`: payouts carried out.
    pub rails: Vec<RailRow>,
    /// `gt_tg`: calls to Telegram.
    pub tg: Vec<TgRow>,
    /// `gt_supplier`: orders at suppliers.
    pub suppliers: Vec<SupplierRow>,
}

/// Whether `query` reads ground truth.
pub(super) fn is_read_by(query: &str) -> bool {
    query.contains("gt_")
}

/// The `with …` that gives `query` its `gt_*` tables, to be put before it; empty when it reads none. One text for both
/// engines.
pub fn truth_cte(truth: &TruthRows, query: &str) -> String {
    if !is_read_by(query) {
        return String::new();
    }
    let tables = [
        ("gt_hook", HOOK, truth.hooks.iter().map(hook).collect::<Vec<_>>()),
        ("gt_pay", PAY, truth.pays.iter().map(pay).collect()),
        ("gt_rail", RAIL, truth.rails.iter().map(rail).collect()),
        ("gt_tg", TG, truth.tg.iter().map(tg).collect()),
        ("gt_supplier", SUPPLIER, truth.suppliers.iter().map(supplier).collect()),
    ];
    let used = tables.iter().filter(|(name, ..)| query.contains(*name));
    let parts: Vec<String> = used.map(|(name, columns, rows)| table(name, columns, rows)).collect();
    if parts.is_empty() { String::new() } else { format!("with {} ", parts.join(", ")) }
}

/// A column and its type.
type Column = (&'static str, &'static str);

const HOOK: &[Column] = &[
    ("provider", "text"),
    ("merchant", "text"),
    ("event_id", "text"),
    ("body_hash", "text"),
    ("status", "bigint"),
    ("sent_at", "bigint"),
    ("answered_at", "bigint"),
];
const PAY: &[Column] = &[
    ("provider", "text"),
    ("merchant", "text"),
    ("provider_payment_id", "text"),
    ("currency", "text"),
    ("captured", "bigint"),
    ("refunded", "bigint"),
];
const RAIL: &[Column] = &[
    ("rail", "text"),
    ("ref", "text"),
    ("payout_id", "text"),
    ("currency", "text"),
    ("amount", "bigint"),
    ("request_hash", "text"),
    ("at", "bigint"),
];
const TG: &[Column] = &[
    ("call_id", "text"),
    ("token", "text"),
    ("chat_id", "bigint"),
    ("method", "text"),
    ("msg_id", "text"),
    ("accepted", "boolean"),
    ("answer_lost", "boolean"),
    ("retry_after", "bigint"),
    ("scope", "text"),
    ("at", "bigint"),
];
const SUPPLIER: &[Column] = &[("ref", "text"), ("item_id", "text"), ("request_hash", "text"), ("at", "bigint")];

fn hook(row: &HookRow) -> Vec<String> {
    vec![
        quoted(&row.provider),
        quoted(&row.merchant),
        quoted(&row.event_id),
        quoted(&row.body_hash),
        row.status.to_string(),
        row.sent_at.to_string(),
        row.answered_at.map_or_else(null, |at| at.to_string()),
    ]
}

fn pay(row: &PayRow) -> Vec<String> {
    vec![
        quoted(&row.provider),
        quoted(&row.merchant),
        quoted(&row.provider_payment_id),
        quoted(&row.currency),
        row.captured.to_string(),
        row.refunded.to_string(),
    ]
}

fn rail(row: &RailRow) -> Vec<String> {
    vec![
        quoted(&row.rail),
        quoted(&row.reference),
        quoted(&row.payout_id),
        quoted(&row.currency),
        row.amount.to_string(),
        quoted(&row.request_hash),
        row.at.to_string(),
    ]
}

fn tg(row: &TgRow) -> Vec<String> {
    vec![
        quoted(&row.call_id),
        quoted(&row.token),
        row.chat_id.to_string(),
        quoted(&row.method),
        row.msg_id.as_deref().map_or_else(null, quoted),
        row.accepted.to_string(),
        row.answer_lost.to_string(),
        row.retry_after.to_string(),
        row.scope.as_deref().map_or_else(null, quoted),
        row.at.to_string(),
    ]
}

fn supplier(row: &SupplierRow) -> Vec<String> {
    vec![quoted(&row.reference), quoted(&row.item_id), quoted(&row.request_hash), row.at.to_string()]
}

fn null() -> String {
    "null".to_owned()
}

/// A text literal. A `$` is parted from what follows, or it could be read as a parameter.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''").replace('$', "$' || '"))
}

/// One table: PostgreSQL takes the types of `values` from their rows, so each column is cast to its own.
fn table(name: &str, columns: &[Column], rows: &[Vec<String>]) -> String {
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let names = names.join(", ");
    if rows.is_empty() {
        let nulls: Vec<String> = columns.iter().map(|(_, kind)| format!("cast(null as {kind})")).collect();
        return format!("{name} ({names}) as (select {} where 1 = 0)", nulls.join(", "));
    }
    let cast = |(index, (_, kind)): (usize, &Column)| format!("cast(column{} as {kind})", index + 1);
    let casts: Vec<String> = columns.iter().enumerate().map(cast).collect();
    let rows: Vec<String> = rows.iter().map(|row| format!("({})", row.join(", "))).collect();
    format!("{name} ({names}) as (select {} from (values {}) r)", casts.join(", "), rows.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_gets_the_tables_that_it_reads_and_no_others() {
        let truth = TruthRows {
            pays: vec![PayRow {
                provider: "heleket".into(),
                merchant: "it's $1".into(),
                provider_payment_id: "p-1".into(),
                currency: "RUB".into(),
                captured: 100,
                refunded: -1,
            }],
            ..TruthRows::default()
        };
        assert_eq!(truth_cte(&truth, "select 1 from audit_tx"), "");
        assert_eq!(
            truth_cte(&truth, "select 1 from gt_pay"),
            "with gt_pay (provider, merchant, provider_payment_id, currency, captured, refunded) as (select \
             cast(column1 as text), cast(column2 as text), cast(column3 as text), cast(column4 as text), \
             cast(column5 as bigint), cast(column6 as bigint) from (values ('heleket', 'it''s $' || '1', 'p-1', 'RUB', 100, -1)) r) "
        );
        assert_eq!(
            truth_cte(&truth, "select 1 from gt_supplier"),
            "with gt_supplier (ref, item_id, request_hash, at) as (select cast(null as text), cast(null as text), \
             cast(null as text), cast(null as bigint) where 1 = 0) "
        );
    }
}
