//! For the owner: today's money, what is stuck and why, what is left on the shelf, and the way to a broadcast.

use std::time::Duration;

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::ids::least_id;
use semel_kernel::store::Tx;
use semel_money::Amount;
use semel_telegram::{TEXT_LIMIT, html_escape, utf16_len};

use super::model::{Card, Door};
use super::scene::Scene;
use super::{owner_texts as own, sql, texts};
use crate::checkout::PaymentState;
use crate::messages::Language;
use crate::orders::State;
use crate::shop::currency;
use crate::{Error, Shop, catalog, ledger, messages};

const DAY_MS: i64 = 86_400_000;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Products whose stock is told.
const PRODUCTS: i64 = 25;
/// Of each kind of what is stuck, so many are told: the oldest.
const EACH: i64 = 5;
/// A provider that has not answered for so long about a payment is stuck.
const SLOW_PROVIDER: Duration = Duration::from_secs(600);

/// Whether this person owns the shop or helps with it.
pub(super) fn is_owner(shop: &Shop, person: i64) -> bool {
    shop.rules.admins.contains(&person)
}

/// The day so far.
pub(super) fn show(tx: &mut Tx, shop: &Shop, scene: &mut Scene) -> Result<(), Error> {
    let language = scene.language;
    let word = |russian, english| texts::word(language, russian, english);
    let now = tx.now().millis();
    let midnight = Time::from_millis(now - now.rem_euclid(DAY_MS));
    let mut lines = vec![format!("<b>{}</b>", word("Сегодня (UTC)", "Today (UTC)"))];
    let money = tx.rows(sql::MONEY_SINCE, args![ledger::least_id(midnight)])?;
    if money.is_empty() {
        lines.push(word("Денег пока не приходило.", "No money yet.").to_owned());
    }
    for row in &money {
        let (code, owner): (String, String) = (row.get(0)?, row.get(1)?);
        let (minor, count): (i64, i64) = (row.get(2)?, row.get(3)?);
        let sum = Amount::new(minor, currency(&code)?);
        let provider = own::provider(owner.split(':').next().unwrap_or_default());
        let came = word("Пришло", "Came in");
        lines.push(format!("{came}, {provider}: {sum} · {}: {count}", word("платежей", "payments")));
    }
    for row in &tx.rows(sql::GIVEN_BACK_SINCE, args![ledger::least_id(midnight)])? {
        let (code, owner, minor): (String, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let sum = Amount::new(minor, currency(&code)?);
        let place = match owner.split(':').next().unwrap_or_default() {
            "balance" => word("на балансы", "to balances").to_owned(),
            provider => own::provider(provider),
        };
        lines.push(format!("{}, {place}: {sum}", word("Вернули", "Given back")));
    }
    let stuck = tx.one(sql::STUCK, &[])?;
    let kinds = [
        word("платежи, которые ждут", "payments that wait"),
        word("деньги без заказа", "money that belongs to no order"),
        word("оплачено и не выдано", "paid and not handed over"),
        word("задания, которые сдались", "jobs that gave up"),
        word("сообщения с неизвестной судьбой", "messages of unknown fate"),
    ];
    lines.push(format!("\n<b>{}</b>", word("Требует внимания", "Needs a look")));
    let mut is_quiet = true;
    for (index, kind) in kinds.into_iter().enumerate() {
        let count: i64 = stuck.get(index)?;
        if count > 0 {
            is_quiet = false;
            lines.push(format!("{kind}: {count}"));
        }
    }
    let products = catalog::flows::list(tx, None, PRODUCTS)?;
    for product in products.iter().filter(|product| product.active && texts::is_gone(product)) {
        is_quiet = false;
        lines.push(format!("{}: {}", word("закончился", "sold out"), html_escape(&short(&product.title))));
    }
    let (yesterday, of_customers) = (tx.now() - DAY, format!("alert:{}%", messages::WORDS_OF_CUSTOMER));
    let questions: i64 = tx
        .one(sql::QUESTIONS_SINCE, args![least_id("msg", yesterday), scene.who.person, messages::ALERT, of_customers])?
        .get(0)?;
    if questions > 0 {
        is_quiet = false;
        lines.push(format!(
            "{}: {questions} ({})",
            word("вопросы покупателей за сутки", "customers' questions in the last day"),
            word("ответьте на сообщение — покупатель получит", "reply to one, and the customer gets it")
        ));
    }
    if is_quiet {
        lines.push(word("ничего", "nothing").to_owned());
    }
    lines.extend(stuck_ones(tx, language)?);
    lines.push(format!("\n<b>{}</b>", word("Остатки", "Stock")));
    for product in products.iter().filter(|product| product.active) {
        if let Some(levels) = product.stock {
            lines.push(format!("{}: {}", html_escape(&short(&product.title)), levels.available));
        }
    }
    // One message, whatever there is to tell: what comes last has to give way.
    while lines.iter().map(|line| utf16_len(line) + 1).sum::<usize>() > TEXT_LIMIT {
        lines.pop();
    }
    let broadcast = Door::Broadcast.button(own::button(language));
    scene.say(tx, shop, Card::text(lines.join("\n")).row(vec![broadcast]))
}

fn short(title: &str) -> String {
    title.chars().take(40).collect()
}

/// The oldest of what is stuck, a line each, with what it waits for.
fn stuck_ones(tx: &mut Tx, language: Language) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    let asked_long_ago = tx.now() - SLOW_PROVIDER;
    for row in &tx.rows(sql::STUCK_PAYMENTS, args![asked_long_ago, EACH])? {
        let (provider, state, code): (String, PaymentState, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (amount, received, order): (i64, i64, String) = (row.get(3)?, row.get(4)?, row.get(5)?);
        let sum = Amount::new(amount, currency(&code)?);
        let came = match state {
            PaymentState::Short => format!(" ({})", Amount::new(received, currency(&code)?)),
            _ => String::new(),
        };
        let why = own::why(language, state);
        lines.push(format!("• {} {sum}: {why}{came}, <code>{}</code>", own::provider(&provider), html_escape(&order)));
    }
    for row in &tx.rows(sql::STUCK_MONEY, args![EACH])? {
        let (provider, reason, code): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (minor, payment): (i64, String) = (row.get(3)?, row.get(4)?);
        let sum = Amount::new(minor, currency(&code)?);
        let nobodys = texts::word(language, "без заказа", "belongs to no order");
        let provider = own::provider(&provider);
        let (reason, payment) = (html_escape(&reason), html_escape(&payment));
        lines.push(format!("• {provider} {sum}: {nobodys} ({reason}), <code>{payment}</code>"));
    }
    for row in &tx.rows(sql::STUCK_ORDERS, args![EACH])? {
        let (id, state, code, total): (String, State, String, i64) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        let sum = Amount::new(total, currency(&code)?);
        lines.push(format!("• <code>{}</code> {sum}: {}", html_escape(&id), texts::state(language, state)));
    }
    Ok(lines)
}
