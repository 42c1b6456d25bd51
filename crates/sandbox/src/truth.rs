//! Ground truth: what the outside world accepted and what it was answered. A checker loads it beside the program's `audit_*` views.
//!
//! Columns are a contract with the checker. Times are milliseconds of the sandbox's clock, amounts are smallest units.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Provider;

/// One webhook attempt that got an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GtHook {
    /// Who sent it.
    pub provider: Provider,
    /// The shop id, merchant id or login.
    pub merchant: String,
    /// The event, in the form the intake derives: `yookassa:payment.succeeded:…`, `heleket:payment:…:paid`, `crystalpay:invoice:…:payed`.
    pub event_id: String,
    /// Lower-case SHA-256 of the body.
    pub body_hash: String,
    /// The HTTP status of the answer.
    pub status: u16,
    /// When the request left.
    pub sent_at: i64,
    /// When the answer's head arrived.
    pub answered_at: i64,
}

/// What a provider holds for a payment now: one row per payment on which money ever moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GtPay {
    /// Who holds the money: a provider's name, or `stars`.
    pub provider: String,
    /// The shop id, merchant id or login; the bot's id for Stars.
    pub merchant: String,
    /// The provider's id of the payment.
    pub provider_payment_id: String,
    /// The currency of the two sums.
    pub currency: String,
    /// Finally taken from the customer, smallest units.
    pub captured: i64,
    /// Given back, smallest units.
    pub refunded: i64,
}

/// One call to the Bot API that sends, edits or deletes a message, and every call that was refused with 429.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GtTg {
    /// Unique.
    pub call_id: String,
    /// The public part of the bot token, before the colon.
    pub token: String,
    /// The chat, if the call names one.
    pub chat_id: Option<i64>,
    /// The method as it was called.
    pub method: String,
    /// The header `X-Request-Id`; the call's own id when the caller sent none.
    pub msg_id: String,
    /// Telegram did it.
    pub accepted: bool,
    /// Telegram's answer was lost, made unreadable or turned into an error on purpose.
    pub answer_lost: bool,
    /// Seconds of silence asked for; 0 if none.
    pub retry_after: i64,
    /// What a 429 meant: `chat`, or `token` from the third refused chat within a second on.
    pub scope: Option<String>,
    /// Lower-case SHA-256 of the document or photo that the call brought or named; none for other calls. The file itself stays
    /// in the chat, because it may be a secret.
    #[serde(default)]
    pub file_hash: Option<String>,
    /// When the call was decided.
    pub at: i64,
}

/// All tables. The last two belong to fakes that are not built yet.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Truth {
    /// Webhook attempts with an answer.
    pub gt_hook: Vec<GtHook>,
    /// Payments with money.
    pub gt_pay: Vec<GtPay>,
    /// Bot API calls.
    pub gt_tg: Vec<GtTg>,
    /// Payout rails: none yet.
    pub gt_rail: Vec<Value>,
    /// Suppliers: none yet.
    pub gt_supplier: Vec<Value>,
}

/// The log behind [`Truth`].
#[derive(Default)]
pub(crate) struct Log {
    hooks: Vec<GtHook>,
    payments: BTreeMap<(String, String), GtPay>,
    calls: Vec<GtTg>,
    file: Option<File>,
}

impl Log {
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Log> {
        let file = match path {
            Some(path) => Some(File::options().create(true).append(true).open(path)?),
            None => None,
        };
        Ok(Log { file, ..Log::default() })
    }

    pub(crate) fn hook(&mut self, row: GtHook) {
        self.write("gt_hook", &json!(row));
        self.hooks.push(row);
    }

    /// Keeps the payment's totals if they changed; a payment that never saw money has no row.
    pub(crate) fn pay(&mut self, row: GtPay) {
        let key = (row.provider.clone(), row.provider_payment_id.clone());
        let known = self.payments.get(&key);
        if known == Some(&row) || (known.is_none() && row.captured == 0 && row.refunded == 0) {
            return;
        }
        self.write("gt_pay", &json!(row));
        self.payments.insert(key, row);
    }

    pub(crate) fn call(&mut self, row: GtTg) {
        self.write("gt_tg", &json!(row));
        self.calls.push(row);
    }

    pub(crate) fn truth(&self) -> Truth {
        Truth {
            gt_hook: self.hooks.clone(),
            gt_pay: self.payments.values().cloned().collect(),
            gt_tg: self.calls.clone(),
            ..Truth::default()
        }
    }

    /// One line in one write, so that a reader beside us never sees half a row.
    fn write(&mut self, table: &str, row: &Value) {
        let Some(file) = &mut self.file else { return };
        let line = format!("{}\n", json!({ "table": table, "row": row }));
        if let Err(error) = file.write_all(line.as_bytes()) {
            tracing::error!(%error, table, "the ground truth file cannot be written: rows are only in memory");
        }
    }
}
