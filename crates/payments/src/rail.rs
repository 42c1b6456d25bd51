//! One configured account, whichever provider it is at.

use std::net::IpAddr;

use http::HeaderMap;

use crate::answer::no_such_call;
use crate::crystalpay::api::no;
use crate::payment::{Created, NewPayment, NewRefund, Page, PaymentRef, RefundPage, Seen, SeenRefund, WhichRefunds};
use crate::stars::Stars;
use crate::{
    CallError, CrystalPay, Heleket, Hint, Provider, Rejected, Request, Response, Unsupported, YooKassa, stars,
};

/// One account at one provider. Each call comes in two halves: one builds the request, the other reads its answer.
#[derive(Debug, Clone)]
pub enum Rail {
    /// Cards and local methods.
    YooKassa(YooKassa),
    /// Crypto invoices.
    Heleket(Heleket),
    /// Crypto and cards.
    CrystalPay(CrystalPay),
    /// Telegram Stars.
    Stars(Stars),
}

impl Rail {
    /// Whose account it is.
    pub fn provider(&self) -> Provider {
        match self {
            Rail::YooKassa(_) => Provider::YooKassa,
            Rail::Heleket(_) => Provider::Heleket,
            Rail::CrystalPay(_) => Provider::CrystalPay,
            Rail::Stars(_) => Provider::Stars,
        }
    }

    /// Whether a payment needs the customer's e-mail or phone, because a fiscal receipt goes there.
    pub fn needs_contact(&self) -> bool {
        match self {
            Rail::YooKassa(shop) => shop.receipt.is_some(),
            Rail::Heleket(_) | Rail::CrystalPay(_) | Rail::Stars(_) => false,
        }
    }

    /// Which account it is there: the shop's number, the merchant's uuid, the desk's login or the bot's id.
    pub fn merchant(&self) -> &str {
        match self {
            Rail::YooKassa(shop) => &shop.shop_id,
            Rail::Heleket(merchant) => &merchant.merchant_id,
            Rail::CrystalPay(desk) => &desk.login,
            Rail::Stars(bot) => &bot.bot_id,
        }
    }

    /// Whether a webhook is authentic and well-formed, and what it hints at. Accepting means "store it and ask", never "believe it".
    ///
    /// `peer` is the sender as resolved by whoever knows our proxies; `X-Forwarded-For` in `headers` is not read here. None of these
    /// three providers signs in a header.
    pub fn verify(&self, peer: Option<IpAddr>, _headers: &HeaderMap, body: &[u8]) -> Result<Hint, Rejected> {
        match self {
            Rail::YooKassa(shop) => shop.verify(peer, body),
            Rail::Heleket(merchant) => merchant.verify(peer, body),
            Rail::CrystalPay(desk) => desk.verify(peer, body),
            Rail::Stars(_) => Err(Rejected::Malformed("Stars are told of in the bot's updates".to_string())),
        }
    }

    /// Whether the provider stops resending when we answer `status`. Never answer such a status before the notice is stored:
    /// at CrystalPay even 429 loses it, so shed load with 503 only.
    pub fn reads_as_delivered(&self, status: u16) -> bool {
        match self {
            Rail::YooKassa(_) => status == 200,
            Rail::Heleket(_) => (200..300).contains(&status),
            Rail::CrystalPay(_) => status == 200 || status == 429,
            Rail::Stars(_) => (200..300).contains(&status),
        }
    }

    /// Opens a payment. Keyed at YooKassa (24 hours, same key with same bytes) and Heleket (`order_id` is our payment id); at CrystalPay
    /// a repetition opens a second invoice with the same `extra`.
    pub fn create(&self, new: &NewPayment) -> Result<Request, Unsupported> {
        match self {
            Rail::YooKassa(shop) => shop.create(new),
            Rail::Heleket(merchant) => merchant.create(new),
            Rail::CrystalPay(desk) => desk.create(new),
            Rail::Stars(_) => Err(stars_no("an invoice is a message of the bot: no call opens it")),
        }
    }

    /// Reads the answer to [`Rail::create`]. A payment that is not the asked-for one is [`CallError::Foreign`].
    pub fn created(&self, new: &NewPayment, answer: &Response) -> Result<Created, CallError> {
        match self {
            Rail::YooKassa(shop) => shop.created(new, answer),
            Rail::Heleket(merchant) => merchant.created(new, answer),
            Rail::CrystalPay(desk) => desk.created(answer),
            Rail::Stars(_) => Err(no_such_call(answer)),
        }
    }

    /// Asks for the state of one payment.
    pub fn ask(&self, who: &PaymentRef) -> Result<Request, Unsupported> {
        match self {
            Rail::YooKassa(shop) => shop.ask(who),
            Rail::Heleket(merchant) => merchant.ask(who),
            Rail::CrystalPay(desk) => desk.ask(who),
            Rail::Stars(_) => Err(stars_no(BY_LIST)),
        }
    }

    /// Reads the answer to [`Rail::ask`], [`Rail::capture`] and [`Rail::cancel`]; `None` if the provider does not know the payment.
    ///
    /// The caller still compares `provider_id`, `ours` and `price` with what it asked for.
    pub fn asked(&self, answer: &Response) -> Result<Option<Seen>, CallError> {
        match self {
            Rail::YooKassa(shop) => shop.asked(answer),
            Rail::Heleket(merchant) => merchant.asked(answer),
            Rail::CrystalPay(desk) => desk.asked(answer),
            Rail::Stars(_) => Err(no_such_call(answer)),
        }
    }

    /// Asks for the payments opened since a moment (milliseconds since 1970), page by page.
    pub fn list(&self, since_ms: i64, cursor: Option<&str>) -> Result<Request, Unsupported> {
        match self {
            Rail::YooKassa(shop) => shop.list(since_ms, cursor),
            Rail::Heleket(merchant) => merchant.list(since_ms, cursor),
            Rail::CrystalPay(_) => Err(no("there is no list of invoices: ask for each one")),
            Rail::Stars(_) => Err(stars_no(BY_LIST)),
        }
    }

    /// Reads the answer to [`Rail::list`].
    pub fn listed(&self, answer: &Response) -> Result<Page, CallError> {
        match self {
            Rail::YooKassa(shop) => shop.listed(answer),
            Rail::Heleket(merchant) => merchant.listed(answer),
            Rail::CrystalPay(_) | Rail::Stars(_) => Err(no_such_call(answer)),
        }
    }

    /// Takes the whole held sum of a payment that waits for capture. Keyed; read the answer with [`Rail::asked`].
    pub fn capture(&self, provider_id: &str, key: &str) -> Result<Request, Unsupported> {
        match self {
            Rail::YooKassa(shop) => shop.capture(provider_id, key),
            _ => Err(Unsupported::new(self.provider(), "there is nothing to capture: payments arrive whole")),
        }
    }

    /// Gives the held sum of a payment that waits for capture back. Keyed; read the answer with [`Rail::asked`].
    pub fn cancel(&self, provider_id: &str, key: &str) -> Result<Request, Unsupported> {
        match self {
            Rail::YooKassa(shop) => shop.cancel(provider_id, key),
            _ => Err(Unsupported::new(self.provider(), "an invoice cannot be cancelled: it lapses by itself")),
        }
    }

    /// Gives money back. Keyed at YooKassa, and harmless to repeat for Stars; at Heleket never repeat after an unclear outcome, ask with the
    /// payment's id instead.
    pub fn refund(&self, refund: &NewRefund) -> Result<Request, Unsupported> {
        match self {
            Rail::YooKassa(shop) => shop.refund(refund),
            Rail::Heleket(merchant) => merchant.refund(refund),
            Rail::CrystalPay(_) => Err(no("there is no refund: offer the balance")),
            Rail::Stars(bot) => bot.refund(refund),
        }
    }

    /// Reads the answer to [`Rail::refund`]. A refund of another payment or sum is [`CallError::Foreign`].
    pub fn refunded(&self, refund: &NewRefund, answer: &Response) -> Result<SeenRefund, CallError> {
        match self {
            Rail::YooKassa(shop) => shop.refunded(refund, answer),
            Rail::Heleket(merchant) => merchant.refunded(refund, answer),
            Rail::CrystalPay(_) => Err(no_such_call(answer)),
            Rail::Stars(bot) => bot.refunded(refund, answer),
        }
    }

    /// Asks what became of a refund.
    pub fn ask_refund(&self, refund_id: &str) -> Result<Request, Unsupported> {
        match self {
            Rail::YooKassa(shop) => shop.ask_refund(refund_id),
            Rail::Heleket(merchant) => merchant.ask_refund(refund_id),
            Rail::CrystalPay(_) => Err(no("there is no refund: offer the balance")),
            Rail::Stars(_) => Err(stars_no("the list of transactions tells of refunds: make the same call again")),
        }
    }

    /// Reads the answer to [`Rail::ask_refund`]; `None` if there is no such refund.
    pub fn asked_refund(&self, answer: &Response) -> Result<Option<SeenRefund>, CallError> {
        match self {
            Rail::YooKassa(shop) => shop.asked_refund(answer),
            Rail::Heleket(merchant) => merchant.asked_refund(answer),
            Rail::CrystalPay(_) | Rail::Stars(_) => Err(no_such_call(answer)),
        }
    }

    /// Asks for refunds, whoever made them, page by page. Only YooKassa has such a list; at Heleket a refund shows in the state
    /// of its payment, see [`Seen::refund`].
    pub fn list_refunds(&self, which: WhichRefunds<'_>, cursor: Option<&str>) -> Result<Request, Unsupported> {
        match self {
            Rail::YooKassa(shop) => shop.list_refunds(which, cursor),
            Rail::Heleket(_) => {
                let text = "there is no list of refunds: the state of a payment tells of its refund";
                Err(Unsupported::new(Provider::Heleket, text))
            }
            Rail::CrystalPay(_) => Err(no("there is no refund: offer the balance")),
            Rail::Stars(_) => Err(stars_no("the list of payments tells of refunds, too")),
        }
    }

    /// Reads the answer to [`Rail::list_refunds`].
    pub fn listed_refunds(&self, answer: &Response) -> Result<RefundPage, CallError> {
        match self {
            Rail::YooKassa(shop) => shop.listed_refunds(answer),
            _ => Err(no_such_call(answer)),
        }
    }

    /// A harmless call that shows whether the address and the keys are right.
    pub fn probe(&self) -> Request {
        match self {
            Rail::YooKassa(shop) => shop.probe(),
            Rail::Heleket(merchant) => merchant.probe(),
            Rail::CrystalPay(desk) => desk.probe(),
            Rail::Stars(bot) => bot.probe(),
        }
    }

    /// Reads the answer to [`Rail::probe`]: a line for a person.
    pub fn probed(&self, answer: &Response) -> Result<String, CallError> {
        match self {
            Rail::YooKassa(shop) => shop.probed(answer),
            Rail::Heleket(merchant) => merchant.probed(answer),
            Rail::CrystalPay(desk) => desk.probed(answer),
            Rail::Stars(bot) => bot.probed(answer),
        }
    }
}

/// Why no call asks Telegram for one payment, nor for those since a moment.
const BY_LIST: &str = "payments are found in the bot's list of transactions, which is read by place";

fn stars_no(text: &str) -> Unsupported {
    stars::no(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CRYSTALPAY_API_URL, HELEKET_API_URL, YOOKASSA_API_URL};

    fn rails() -> [Rail; 4] {
        [
            Rail::YooKassa(YooKassa::new("100500", "key", YOOKASSA_API_URL).unwrap()),
            Rail::Heleket(Heleket::new("5d0f", "key", None, HELEKET_API_URL).unwrap()),
            Rail::CrystalPay(CrystalPay::new("desk", "key", "salt", CRYSTALPAY_API_URL).unwrap()),
            Rail::Stars(Stars::new("123456789:AAE-test_token", "https://api.telegram.org").unwrap()),
        ]
    }

    #[test]
    fn each_provider_has_its_own_idea_of_delivered() {
        let [yookassa, heleket, crystalpay, _] = rails();
        let delivered = |rail: &Rail| [200, 201, 204, 302, 429, 500, 503].map(|status| rail.reads_as_delivered(status));
        assert_eq!(delivered(&yookassa), [true, false, false, false, false, false, false]);
        assert_eq!(delivered(&heleket), [true, true, true, false, false, false, false]);
        assert_eq!(delivered(&crystalpay), [true, false, false, false, true, false, false]);
    }

    #[test]
    fn every_rail_knows_its_account() {
        for (rail, merchant) in rails().iter().zip(["100500", "5d0f", "desk", "123456789"]) {
            assert_eq!(rail.merchant(), merchant);
        }
        assert_eq!(rails().map(|rail| rail.provider()), Provider::ALL);
    }

    #[test]
    fn what_a_provider_cannot_do_says_so() {
        let [_, heleket, crystalpay, stars] = rails();
        assert!(crystalpay.list(0, None).is_err());
        assert!(heleket.list_refunds(WhichRefunds::Since(0), None).is_err());
        assert!(crystalpay.list_refunds(WhichRefunds::Of("7_a"), None).is_err());
        assert!(crystalpay.ask_refund("7_a").unwrap_err().text.contains("balance"));
        assert!(stars.list(0, None).is_err() && stars.capture("stx1", "k").is_err());
        assert!(heleket.capture("c3a1", "k").is_err() && crystalpay.cancel("7_a", "k").is_err());
        let answer = Response::new(b"{}".to_vec());
        assert!(matches!(crystalpay.listed(&answer), Err(CallError::Refused { .. })));
        assert!(matches!(heleket.listed_refunds(&answer), Err(CallError::Refused { .. })));
    }
}
