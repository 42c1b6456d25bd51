//! Telegram Stars: invoices, the question before a payment, charges, and the bot's list of transactions.
//!
//! A person presses Pay under an invoice; the bot is asked, and only its yes within ten seconds charges them. What was charged and what
//! went back stands in the list for ever; the messages that tell of it may be lost or come twice ([`StarKnobs`]).

use serde_json::{Value, json};

use super::Refusal;
use super::town::{Invoice, Town, chat_object};
use super::updates::person;
use crate::clock;
use crate::params::Params;
use crate::truth::GtPay;

/// How long Telegram waits for the bot's word, milliseconds.
const PATIENCE_MS: i64 = 10_000;

/// How payments in Stars go wrong from now on. Charges are never lost; only what tells of them is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StarKnobs {
    /// So many of the next `successful_payment` and `refunded_payment` messages never come.
    pub lose_next: u32,
    /// Each of them comes so many times more, as updates of their own.
    pub repeat: u32,
    /// The next question before a payment names this sum in place of the invoice's, as an invoice of an old price would.
    pub other_sum: Option<i64>,
}

/// What the bot said to somebody who was about to pay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckoutAnswer {
    /// Who.
    pub payer: i64,
    /// Whether they may.
    pub ok: bool,
    /// What they read when they may not.
    pub text: Option<String>,
    /// How long they waited, milliseconds.
    pub took_ms: i64,
}

/// A charge as Telegram has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StarPayment {
    /// Telegram's id of it.
    pub charge: String,
    /// Who paid.
    pub payer: i64,
    /// What the bot wrote into the invoice.
    pub payload: String,
    /// How many Stars.
    pub stars: i64,
    /// Whether they went back.
    pub refunded: bool,
}

/// Somebody who waits for the bot's word.
struct Query {
    id: String,
    payer: i64,
    payload: String,
    stars: i64,
    asked_at: i64,
    is_answered: bool,
}

/// One line of the list.
struct Entry {
    charge: String,
    payer: i64,
    payload: String,
    stars: i64,
    at: i64,
    is_back: bool,
}

/// All that has to do with Stars.
#[derive(Default)]
pub(crate) struct Till {
    queries: Vec<Query>,
    answers: Vec<CheckoutAnswer>,
    list: Vec<Entry>,
    /// Totals that changed, for the ground truth.
    changed: Vec<GtPay>,
    pub(crate) knobs: StarKnobs,
}

impl Till {
    pub(crate) fn answers(&self) -> Vec<CheckoutAnswer> {
        self.answers.clone()
    }

    pub(crate) fn payments(&self) -> Vec<StarPayment> {
        let came = self.list.iter().filter(|entry| !entry.is_back);
        let payment = |entry: &Entry| StarPayment {
            charge: entry.charge.clone(),
            payer: entry.payer,
            payload: entry.payload.clone(),
            stars: entry.stars,
            refunded: self.went_back(&entry.charge),
        };
        came.map(payment).collect()
    }

    /// The totals that changed since they were asked for.
    pub(crate) fn take_changes(&mut self) -> Vec<GtPay> {
        std::mem::take(&mut self.changed)
    }

    fn went_back(&self, charge: &str) -> bool {
        self.list.iter().any(|entry| entry.is_back && entry.charge == charge)
    }

    fn note(&mut self, bot: &str, charge: &str, stars: i64, refunded: i64) {
        self.changed.push(GtPay {
            provider: "stars".to_owned(),
            merchant: bot.to_owned(),
            provider_payment_id: charge.to_owned(),
            currency: "XTR".to_owned(),
            captured: stars,
            refunded,
        });
    }
}

/// The invoice that a call describes.
pub(super) fn invoice_of(params: &Params) -> Result<Invoice, Refusal> {
    let text = |name: &str, most: usize| {
        let text = params.filled(name).filter(|text| text.chars().count() <= most);
        text.ok_or_else(|| Refusal::bad(&format!("{} invalid", name.to_ascii_uppercase())))
    };
    let (title, description, payload) = (text("title", 32)?, text("description", 255)?, text("payload", 128)?);
    if params.text("currency").as_deref() != Some("XTR") || params.filled("provider_token").is_some() {
        return Err(Refusal::bad("PAYMENT_PROVIDER_INVALID"));
    }
    let prices = params.json("prices").unwrap_or_default();
    let stars = match prices.as_array().map(Vec::as_slice) {
        Some([price]) => price.get("amount").and_then(Value::as_i64).filter(|stars| *stars > 0),
        _ => None,
    };
    let stars = stars.ok_or_else(|| Refusal::bad("CURRENCY_TOTAL_AMOUNT_INVALID"))?;
    Ok(Invoice { title, description, payload, stars })
}

impl Town {
    /// Somebody presses Pay under the newest invoice of `chat`: the bot is asked. Nothing if there is none.
    pub(crate) fn pay_stars(&mut self, payer: i64, chat: i64, now: i64) -> Option<i64> {
        let invoice = self.messages(chat).into_iter().rev().find_map(|message| message.invoice)?;
        let id = format!("{}", 5_000_000_000_i64 + i64::try_from(self.till.queries.len()).unwrap_or(0));
        let stars = self.till.knobs.other_sum.take().unwrap_or(invoice.stars);
        let body = json!({
            "id": id, "from": person(&self.mail, payer), "currency": "XTR", "total_amount": stars,
            "invoice_payload": invoice.payload,
        });
        let payload = invoice.payload;
        self.till.queries.push(Query { id, payer, payload, stars, asked_at: now, is_answered: false });
        Some(self.mail.push("pre_checkout_query", body))
    }

    /// The bot's word. A yes charges at once.
    pub(super) fn answer_checkout(&mut self, params: &Params, bot: &str, now: i64) -> Result<Value, Refusal> {
        let too_old = || Refusal::bad("query is too old and response timeout expired or query ID is invalid");
        let id = params.filled("pre_checkout_query_id").ok_or_else(too_old)?;
        let query = self.till.queries.iter_mut().find(|query| query.id == id && !query.is_answered);
        let query = query.filter(|query| now - query.asked_at <= PATIENCE_MS).ok_or_else(too_old)?;
        let (ok, text) = (params.flag("ok"), params.filled("error_message"));
        if !ok && text.is_none() {
            return Err(Refusal::bad("error_message is empty"));
        }
        query.is_answered = true;
        let (payer, payload, stars) = (query.payer, query.payload.clone(), query.stars);
        let took_ms = now - query.asked_at;
        self.till.answers.push(CheckoutAnswer { payer, ok, text: text.filter(|_| !ok), took_ms });
        if ok {
            let charge = format!("stx{}", clock::letters(40));
            self.till.note(bot, &charge, stars, 0);
            let entry = Entry { charge, payer, payload, stars, at: now, is_back: false };
            self.tell("successful_payment", &entry, now);
            self.till.list.push(entry);
        }
        Ok(json!(true))
    }

    /// Gives a charge back, once.
    pub(super) fn refund_stars(&mut self, params: &Params, bot: &str, now: i64) -> Result<Value, Refusal> {
        let wanted = params.filled("telegram_payment_charge_id").unwrap_or_default();
        let payer = params.int("user_id").ok_or_else(|| Refusal::bad("user_id is empty"))?;
        let found =
            self.till.list.iter().find(|entry| !entry.is_back && entry.charge == wanted && entry.payer == payer);
        let found = found.map(|entry| (entry.payload.clone(), entry.stars));
        let (payload, stars) = found.ok_or_else(|| Refusal::bad("CHARGE_ID_INVALID"))?;
        if self.till.went_back(&wanted) {
            return Err(Refusal::bad("CHARGE_ALREADY_REFUNDED"));
        }
        self.till.note(bot, &wanted, stars, stars);
        let entry = Entry { charge: wanted, payer, payload, stars, at: now, is_back: true };
        self.tell("refunded_payment", &entry, now);
        self.till.list.push(entry);
        Ok(json!(true))
    }

    /// Telegram itself gives a charge back, without being asked by the bot. False when there is no such charge, or it went back.
    pub(crate) fn take_stars_back(&mut self, charge: &str, bot: &str, now: i64) -> bool {
        let payer = self.till.list.iter().find(|entry| entry.charge == charge).map(|entry| entry.payer);
        let Some(payer) = payer else { return false };
        let mut params = Params::default();
        params.values.insert("user_id".into(), json!(payer));
        params.values.insert("telegram_payment_charge_id".into(), json!(charge));
        self.refund_stars(&params, bot, now).is_ok()
    }

    /// Somebody paid another program with the same bot, at `at`: it stands in the list, and nobody tells of it.
    pub(crate) fn sold_elsewhere(&mut self, payer: i64, stars: i64, at: i64) {
        let charge = format!("stx{}", clock::letters(40));
        self.till.list.push(Entry {
            charge,
            payer,
            payload: "of another program".to_owned(),
            stars,
            at,
            is_back: false,
        });
    }

    /// The bot's list, the oldest first.
    pub(super) fn star_transactions(&self, params: &Params) -> Value {
        let offset = usize::try_from(params.int("offset").unwrap_or(0)).unwrap_or(0);
        let limit = usize::try_from(params.int("limit").unwrap_or(100).clamp(1, 100)).unwrap_or(100);
        let entry = |entry: &Entry| {
            let partner = json!({
                "type": "user", "transaction_type": "invoice_payment", "user": person(&self.mail, entry.payer),
                "invoice_payload": entry.payload,
            });
            let mut line = json!({ "id": entry.charge, "amount": entry.stars, "date": entry.at / 1000 });
            line[if entry.is_back { "receiver" } else { "source" }] = partner;
            line
        };
        let transactions: Vec<Value> = self.till.list.iter().skip(offset).take(limit).map(entry).collect();
        json!({ "transactions": transactions })
    }

    /// The message that tells the bot of it; lost or repeated as the knobs say.
    fn tell(&mut self, kind: &str, entry: &Entry, now: i64) {
        let Entry { charge, payer, payload, stars, .. } = entry;
        if self.till.knobs.lose_next > 0 {
            self.till.knobs.lose_next -= 1;
            return;
        }
        let from = person(&self.mail, *payer);
        let mut body = json!({ "message_id": 1_000_000 + self.till.list.len(), "from": from, "chat": chat_object(*payer), "date": now / 1000 });
        body[kind] = json!({
            "currency": "XTR", "total_amount": stars, "invoice_payload": payload, "telegram_payment_charge_id": charge,
            "provider_payment_charge_id": "",
        });
        for _ in 0..=self.till.knobs.repeat {
            self.mail.push("message", body.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(values: Value) -> Params {
        let values = values.as_object().cloned().unwrap_or_default();
        Params { values, ..Params::default() }
    }

    #[test]
    fn only_a_yes_in_time_charges_and_a_charge_goes_back_once() {
        let mut town = Town::new(false);
        let bill = params(json!({
            "chat_id": 42, "title": "Key", "description": "Order 1", "payload": "pay_1", "currency": "XTR", "provider_token": "",
            "prices": [{ "label": "Key", "amount": 278 }],
        }));
        assert!(town.perform("sendinvoice", Some(42), &bill, "7", 0).is_ok());
        let word = |town: &mut Town, n: u64, ok: bool, now: i64| {
            let id = format!("{}", 5_000_000_000 + n);
            let said = json!({ "pre_checkout_query_id": id, "ok": ok, "error_message": "no" });
            town.perform("answerprecheckoutquery", None, &params(said), "7", now).is_ok()
        };
        town.pay_stars(42, 42, 0);
        assert!(word(&mut town, 0, false, 5) && town.till.payments().is_empty());
        town.pay_stars(42, 42, 10);
        assert!(!word(&mut town, 1, true, 20_000), "too late");
        town.pay_stars(42, 42, 20_000);
        assert!(word(&mut town, 2, true, 21_000) && !word(&mut town, 2, true, 21_001), "once");
        let paid = town.till.payments();
        assert_eq!((paid.len(), paid[0].stars, paid[0].payload.as_str()), (1, 278, "pay_1"));
        let back = params(json!({ "user_id": 42, "telegram_payment_charge_id": paid[0].charge }));
        assert!(town.perform("refundstarpayment", None, &back, "7", 22_000).is_ok());
        assert!(town.perform("refundstarpayment", None, &back, "7", 23_000).is_err());
        let list = town.star_transactions(&params(json!({})));
        assert_eq!(list["transactions"].as_array().map(Vec::len), Some(2));
        assert!(list["transactions"][0]["source"].is_object() && list["transactions"][1]["receiver"].is_object());
        assert_eq!(town.till.take_changes().len(), 2);
    }
}
