//! Every text a customer gets, in Russian and in English; those about VPN access stand in `vpn_text`.
//!
//! Everything foreign in them is escaped. A text about an order or money shows its number, so that a message that came
//! twice is seen to be one.

use semel_kernel::store::{StoreError, Tx};
use semel_money::{Amount, Currency};
use semel_telegram::html_escape;

use super::Language::{self, English, Russian};
pub(crate) use super::vpn_text::subscription;
use super::vpn_text::{left_of, moment};
use crate::Error;
use crate::customers::Customer;
use crate::notices;
use crate::notices::flows::say;
use crate::orders::{ItemId, OrderId};
use crate::subscriptions::SubscriptionNotice;

/// One piece of goods: its line, its number in the line, the line's title, and what is handed over.
pub(super) type Piece = (ItemId, i64, String, String);

/// An order's goods, ready to be sent as a text or, when that is too long, as a file. Prints nowhere: no `Debug`.
pub(super) struct Goods {
    /// The text in HTML.
    pub(super) html: String,
    /// The words under a file, in HTML.
    pub(super) caption: String,
    /// What stands in the file.
    pub(super) plain: String,
}

/// The owner's words for goods, as kind, language and text; where there are none, ours count.
#[derive(Clone, Debug, Default)]
pub(super) struct Own(Vec<(String, String, String)>);

impl Own {
    /// Reads a JSON list of such triples.
    pub(super) fn read(json: &str) -> Result<Self, StoreError> {
        let own = serde_json::from_str(json);
        own.map(Self).map_err(|_| StoreError::Decode { wanted: "the owner's words", found: "something else".into() })
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn of(&self, kind: &str, language: Language) -> Option<&str> {
        let found = self.0.iter().find(|(of, in_language, _)| of == kind && in_language == language.as_str());
        found.map(|(_, _, html)| html.as_str())
    }
}

/// The goods of `order`, in the owner's words if there are any. Equal goods and words give equal texts.
pub(super) fn goods(language: Language, order: &OrderId, pieces: &[Piece], own: &Own) -> Goods {
    let (thanks, number, in_file) = match language {
        Russian => ("Спасибо за покупку!", "Заказ", "Ваши товары — в файле."),
        English => ("Thank you for your purchase!", "Order", "Your goods are in the file."),
    };
    let head = format!("{thanks}\n{number} <code>{order}</code>");
    let mut listed = String::new();
    let mut plain = format!("{thanks}\n{number} {order}\n");
    let mut line: Option<&ItemId> = None;
    for (item, _, title, content) in pieces {
        if line != Some(item) {
            listed.push_str(&format!("\n\n<b>{}</b>", html_escape(title)));
            plain.push_str(&format!("\n{title}\n"));
            line = Some(item);
        }
        // A tap on either copies it whole; `pre` keeps the lines of a longer one.
        let tag = if content.contains('\n') { "pre" } else { "code" };
        listed.push_str(&format!("\n<{tag}>{}</{tag}>", html_escape(content)));
        plain.push_str(content);
        plain.push('\n');
    }
    let value = |name: &str| match name {
        "goods" => Some(listed.trim_start().to_owned()),
        "order" => Some(html_escape(order.as_str())),
        _ => None,
    };
    let html = match own.of("goods", language) {
        Some(words) => notices::fill(words, value),
        None => format!("{head}{listed}"),
    };
    let caption = match own.of("goods_file", language) {
        Some(words) => notices::fill(words, value),
        None => format!("{head}\n\n{in_file}"),
    };
    Goods { html, caption, plain }
}

/// What a referrer is told about a reward: in the owner's words if there are any. Nothing for who switched it off; so are all
/// `…_for` here.
pub(super) fn reward_for(
    tx: &mut Tx,
    customer: &Customer,
    amount: Amount,
    order: &OrderId,
) -> Result<Option<String>, Error> {
    let values = [("amount", sum(amount)), ("order", order.to_string())];
    say(tx, customer, "reward", &values, |language| reward(language, amount, order))
}

/// What a customer is told about money on the balance.
pub(super) fn balance_for(
    tx: &mut Tx,
    customer: &Customer,
    amount: Amount,
    reason: &str,
    key: &str,
) -> Result<Option<String>, Error> {
    let language = Language::of(customer.language.as_deref());
    let values =
        [("amount", sum(amount)), ("number", number_of(key).to_owned()), ("why", why(language, reason).to_owned())];
    say(tx, customer, "balance", &values, |language| balance(language, amount, reason, key))
}

/// What a customer is told about a refund.
pub(super) fn refund_for(
    tx: &mut Tx,
    customer: &Customer,
    amount: Amount,
    order: &OrderId,
    target: &str,
) -> Result<Option<String>, Error> {
    let values = [("amount", sum(amount)), ("order", order.to_string())];
    let kind = if target == "balance" { "refund_balance" } else { "refund_provider" };
    say(tx, customer, kind, &values, |language| refund(language, amount, order, target))
}

/// What a customer is told about a subscription. `kind` is the word in rows.
pub(crate) fn subscription_for(
    tx: &mut Tx,
    customer: &Customer,
    kind: &str,
    notice: &SubscriptionNotice,
) -> Result<Option<String>, Error> {
    let language = Language::of(customer.language.as_deref());
    let until = match notice {
        SubscriptionNotice::EndsIn { until, .. }
        | SubscriptionNotice::Ended { until }
        | SubscriptionNotice::Renewed { until }
        | SubscriptionNotice::Granted { until }
        | SubscriptionNotice::Extended { until }
        | SubscriptionNotice::Unfrozen { until } => moment(language, *until),
        SubscriptionNotice::Frozen
        | SubscriptionNotice::Revoked
        | SubscriptionNotice::NotConnected
        | SubscriptionNotice::Waiting => String::new(),
    };
    let left = match notice {
        SubscriptionNotice::EndsIn { left, .. } => left_of(language, *left).to_owned(),
        _ => String::new(),
    };
    say(tx, customer, kind, &[("until", until), ("left", left)], |language| subscription(language, notice))
}

/// A sum as customers read it: Stars by their sign, everything else by its code.
pub(crate) fn sum(amount: Amount) -> String {
    if amount.currency() == Currency::XTR { format!("{} ⭐", amount.decimal()) } else { amount.to_string() }
}

/// A reward for a referrer.
pub(super) fn reward(language: Language, amount: Amount, order: &OrderId) -> String {
    let amount = sum(amount);
    match language {
        Russian => format!(
            "Ваш друг сделал первую покупку — спасибо, что рассказали о нас! \
             На ваш баланс зачислено <b>{amount}</b>.\nНомер: <code>{order}</code>"
        ),
        English => format!(
            "Your friend has made a first purchase. Thank you for telling about us! \
             <b>{amount}</b> has been added to your balance.\nNumber: <code>{order}</code>"
        ),
    }
}

/// Money on the balance, with the reason for it. The number shown is the last part of `key`.
pub(super) fn balance(language: Language, amount: Amount, reason: &str, key: &str) -> String {
    let why = why(language, reason);
    let (amount, number) = (sum(amount), html_escape(number_of(key)));
    match language {
        Russian => format!("{why}На ваш баланс зачислено <b>{amount}</b>.\nНомер: <code>{number}</code>"),
        English => format!("{why}<b>{amount}</b> has been added to your balance.\nNumber: <code>{number}</code>"),
    }
}

/// The part of a business key that a customer is shown.
fn number_of(key: &str) -> &str {
    key.rsplit(':').next().unwrap_or(key)
}

/// The sentence for the ledger's word, with a space behind it; nothing for a word that needs none.
fn why(language: Language, reason: &str) -> &'static str {
    match (language, reason) {
        (Russian, "late") => "Оплата пришла, когда срок заказа уже истёк. ",
        (English, "late") => "Your payment arrived after the order had expired. ",
        (Russian, "sold out") => "Оплата пришла, когда срок заказа уже истёк и товар закончился. ",
        (English, "sold out") => "Your payment arrived after the order had expired and the goods were sold out. ",
        (Russian, "cancelled") => "Оплата пришла по отменённому заказу. ",
        (English, "cancelled") => "Your payment arrived for a cancelled order. ",
        (Russian, "short") => "Пришло меньше, чем стоит заказ. ",
        (English, "short") => "The payment was less than the order costs. ",
        (Russian, "surplus") => "Пришло больше, чем стоит заказ; разница — ваша. ",
        (English, "surplus") => "The payment was more than the order costs; the difference is yours. ",
        (Russian, "second") => "Заказ был оплачен ещё раз. ",
        (English, "second") => "The order was paid once more. ",
        (Russian, "assigned") => "Мы нашли ваш платёж. ",
        (English, "assigned") => "We have found your payment. ",
        (Russian, "refund") => "Мы вернули деньги. ",
        (English, "refund") => "We have refunded you. ",
        (Russian, "topup") => "Спасибо за пополнение! ",
        (English, "topup") => "Thank you for topping up! ",
        _ => "",
    }
}

/// A refund of an order, to the balance or to where the payment came from.
pub(super) fn refund(language: Language, amount: Amount, order: &OrderId, target: &str) -> String {
    // Telegram gives Stars back at once; no bank is in between.
    let wait = match (language, amount.currency() == Currency::XTR) {
        (_, true) => "",
        (Russian, false) => " Банку может понадобиться несколько дней.",
        (English, false) => " A bank may take a few days.",
    };
    let amount = sum(amount);
    match (language, target) {
        (Russian, "balance") => {
            format!("Возврат по заказу <code>{order}</code>: <b>{amount}</b> зачислено на ваш баланс.")
        }
        (Russian, _) => format!(
            "Возврат по заказу <code>{order}</code>: <b>{amount}</b> отправлено туда, откуда пришла оплата.{wait}"
        ),
        (English, "balance") => {
            format!("Refund of order <code>{order}</code>: <b>{amount}</b> has been added to your balance.")
        }
        (English, _) => format!(
            "Refund of order <code>{order}</code>: <b>{amount}</b> is on its way back to where you paid from.{wait}"
        ),
    }
}

/// A sentence for the owner as HTML, cut so that it fits one message even if every character has to be escaped.
pub(crate) fn alert(sentence: &str) -> String {
    html_escape(&sentence.chars().take(600).collect::<String>())
}

#[cfg(test)]
mod tests {
    use semel_kernel::clock::{Chance, Time};
    use semel_telegram::{CAPTION_LIMIT, TEXT_LIMIT, utf16_len};

    use super::*;

    fn order() -> OrderId {
        OrderId::new(Time::from_millis(1_700_000_000_000), &Chance::seeded(1))
    }

    fn item(seed: u64) -> ItemId {
        ItemId::new(Time::from_millis(1_700_000_000_000), &Chance::seeded(seed))
    }

    fn piece(item: &ItemId, n: i64, title: &str, content: &str) -> Piece {
        (item.clone(), n, title.into(), content.into())
    }

    #[test]
    fn goods_stand_under_their_titles_with_the_order_as_the_mark_of_a_double() {
        let (order, keys, files) = (order(), item(1), item(2));
        let pieces = [
            piece(&keys, 1, "Key <1 month>", "KEY-1&2"),
            piece(&keys, 2, "Key <1 month>", "KEY-3"),
            piece(&files, 1, "Config", "[a]\nb = <c>"),
        ];
        let goods = goods(Language::English, &order, &pieces, &Own::default());
        assert_eq!(
            goods.html,
            format!(
                "Thank you for your purchase!\nOrder <code>{order}</code>\n\n<b>Key &lt;1 month&gt;</b>\
                 \n<code>KEY-1&amp;2</code>\n<code>KEY-3</code>\n\n<b>Config</b>\n<pre>[a]\nb = &lt;c&gt;</pre>"
            )
        );
        assert_eq!(
            goods.plain,
            format!(
                "Thank you for your purchase!\nOrder {order}\n\nKey <1 month>\nKEY-1&2\nKEY-3\n\nConfig\n[a]\nb = <c>\n"
            )
        );
        assert!(goods.caption.contains(order.as_str()) && utf16_len(&goods.caption) <= CAPTION_LIMIT);
        assert!(!goods.caption.contains("KEY-1"), "what is in the file is not said twice");
    }

    #[test]
    fn equal_goods_give_equal_texts() {
        let pieces = [piece(&item(1), 1, "Ключ", "KEY-1")];
        let texts = [(); 2].map(|()| goods(Language::Russian, &order(), &pieces, &Own::default()).html);
        assert_eq!(texts[0], texts[1]);
        assert!(texts[0].starts_with("Спасибо за покупку!"));
    }

    #[test]
    fn the_owners_words_stand_around_the_goods_in_their_language() {
        let order = order();
        let pieces = [piece(&item(1), 1, "Key {order}", "KEY-<1>")];
        let own = r#"[["goods","en","Here:\n{goods}\n<i>{order}</i>"],["goods_file","en","In the file: {order}"]]"#;
        let own = Own::read(own).expect("words");
        let english = goods(Language::English, &order, &pieces, &own);
        let shown = format!("Here:\n<b>Key {{order}}</b>\n<code>KEY-&lt;1&gt;</code>\n<i>{order}</i>");
        assert_eq!(english.html, shown, "goods are no placeholders");
        assert_eq!(english.caption, format!("In the file: {order}"));
        assert!(english.plain.contains("KEY-<1>"));
        let russian = goods(Language::Russian, &order, &pieces, &own);
        assert!(russian.html.starts_with("Спасибо за покупку!"), "without words of their own, ours: {}", russian.html);
        assert!(Own::read("5").is_err());
    }

    #[test]
    fn every_reason_of_the_policy_has_its_sentence_in_both_languages() {
        let amount = Amount::new(49_900, Currency::RUB);
        for reason in ["late", "sold out", "cancelled", "short", "surplus", "second", "assigned", "refund", "topup"] {
            for language in [Language::Russian, Language::English] {
                assert!(!why(language, reason).is_empty(), "{reason} {language:?}");
                let text = balance(language, amount, reason, "capture:yookassa:1001:2d<");
                assert!(text.contains("499.00 RUB") && text.ends_with("<code>2d&lt;</code>"), "{text}");
            }
        }
        let plain = balance(Language::English, amount, "something new", "x");
        assert!(plain.starts_with("<b>499.00 RUB</b> has been added"), "{plain}");
    }

    #[test]
    fn a_refund_says_where_the_money_went() {
        let (amount, order) = (Amount::new(100, Currency::RUB), order());
        assert!(refund(Language::English, amount, &order, "balance").contains("added to your balance"));
        assert!(refund(Language::English, amount, &order, "provider").contains("where you paid from"));
        assert!(refund(Language::Russian, amount, &order, "provider").contains(order.as_str()));
        assert!(refund(Language::English, amount, &order, "provider").ends_with("A bank may take a few days."));
        assert!(reward(Language::Russian, amount, &order).contains("1.00 RUB"));
        let stars = Amount::new(333, Currency::XTR);
        for language in [Language::Russian, Language::English] {
            let told = refund(language, stars, &order, "provider");
            assert!(told.contains("<b>333 ⭐</b>") && !told.contains("ank") && !told.contains("анк"), "{told}");
            assert!(balance(language, stars, "second", "capture:stars:7:stx1").contains("<b>333 ⭐</b>"));
        }
    }

    #[test]
    fn an_alert_of_any_length_fits_one_message() {
        assert_eq!(alert("5 < 6"), "5 &lt; 6");
        assert!(utf16_len(&alert(&"\"".repeat(10_000))) <= TEXT_LIMIT);
        assert!(utf16_len(&alert(&"👋".repeat(10_000))) <= TEXT_LIMIT);
    }
}
