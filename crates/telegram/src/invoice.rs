//! Invoices in Telegram Stars, and the word that lets somebody pay one.

use serde_json::json;

use crate::methods::cut;
use crate::{Bot, Request};

/// The longest title and description of an invoice, in characters, as Telegram takes them.
const TITLE_CHARS: usize = 32;
const DESCRIPTION_CHARS: usize = 255;
/// The longest words about a payment that is refused, in UTF-16 units: more fits no screen.
const REFUSAL_UNITS: usize = 200;

/// An invoice in Telegram Stars for one chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendInvoice {
    /// The person who shall pay.
    pub chat_id: i64,
    /// What is bought; cut to what Telegram takes, never empty.
    pub title: String,
    /// More about it; cut likewise, never empty.
    pub description: String,
    /// What comes back with the payment, 1 to 128 bytes: the id of ours. The customer never sees it.
    pub payload: String,
    /// How many Stars; positive.
    pub stars: i64,
}

impl Bot {
    /// Sends an invoice with a button to pay. `message_id` is ours, and the same in every repeat of this message.
    ///
    /// Equal arguments give equal bytes. A copy that somebody forwards leads to the bot and not to a payment: with a start parameter
    /// Telegram shows no button to pay under it.
    pub fn send_invoice(&self, message_id: &str, invoice: &SendInvoice) -> Request {
        let title = shortened(&invoice.title, TITLE_CHARS);
        let body = json!({
            "chat_id": invoice.chat_id,
            "title": title,
            "description": shortened(&invoice.description, DESCRIPTION_CHARS),
            "payload": invoice.payload,
            // Stars have no provider and no sums below one.
            "provider_token": "",
            "currency": "XTR",
            "prices": [{ "label": title, "amount": invoice.stars }],
            "start_parameter": "invoice",
        });
        self.message_call("sendInvoice", message_id, &body)
    }

    /// Lets somebody pay, or refuses with a sentence that they read. Telegram waits for ten seconds, and one query is answered once.
    pub fn answer_pre_checkout(&self, query: &str, refusal: Option<&str>) -> Request {
        let mut body = json!({ "pre_checkout_query_id": query, "ok": refusal.is_none() });
        if let Some(text) = refusal {
            body["error_message"] = cut(text, REFUSAL_UNITS).into();
        }
        self.json_call("answerPreCheckoutQuery", &body)
    }
}

/// The first `most` characters.
fn shortened(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::bot::MESSAGE_ID;

    fn bot() -> Bot {
        Bot::new("https://api.telegram.org", "123456789:AAE-test_token_for_offline_use_0001").expect("a bot")
    }

    fn body(request: &Request) -> Value {
        serde_json::from_slice(request.body()).expect("JSON")
    }

    #[test]
    fn an_invoice_is_in_stars_and_without_a_provider() {
        let title = "Ключ ".repeat(20);
        let invoice =
            SendInvoice { chat_id: 42, title, description: "Order 1".into(), payload: "pay_1".into(), stars: 278 };
        let request = bot().send_invoice("msg_1", &invoice);
        assert!(request.uri().path().ends_with("/sendInvoice"));
        assert_eq!(request.headers()[MESSAGE_ID], "msg_1");
        let body = body(&request);
        assert_eq!((body["currency"].as_str(), body["provider_token"].as_str()), (Some("XTR"), Some("")));
        assert_eq!(body["title"].as_str().map(|title| title.chars().count()), Some(32));
        assert_eq!((&body["prices"][0]["amount"], &body["payload"]), (&json!(278), &json!("pay_1")));
        assert!(body["start_parameter"].as_str().is_some_and(|text| !text.is_empty()), "a forwarded copy pays nothing");
    }

    #[test]
    fn only_a_refusal_has_words() {
        assert_eq!(body(&bot().answer_pre_checkout("q1", None)), json!({ "pre_checkout_query_id": "q1", "ok": true }));
        let no = body(&bot().answer_pre_checkout("q1", Some("Too late.")));
        assert_eq!(no, json!({ "pre_checkout_query_id": "q1", "ok": false, "error_message": "Too late." }));
    }
}
