//! Filling Semel's tables by SQL: payments that wait for their money, and a long past.
//!
//! Only the rows that intake and claims can meet are made: a filled-in order has an item, a payment with its provider's
//! id and its confirming job; an ended one also its applied notice. It has no history, entries or messages.

use anyhow::Result;
use semel_kernel::store::Engine;

use crate::database::Database;
use crate::notices::{PRICE_MINOR, digits};

/// The first payment that waits for its money; ended ones count from 1.
pub const FIRST_LIVE: u64 = 10_000_000;
/// Rows of one statement, so that no single transaction grows without bound.
const CHUNK: u64 = 100_000;
const DAY_MS: i64 = 86_400_000;

/// The words in which the engines differ.
struct Words {
    engine: Engine,
}

impl Words {
    /// `prefix` and the digits of `number`, an expression.
    fn id(&self, prefix: &str, number: &str) -> String {
        match self.engine {
            Engine::Sqlite => format!("printf('{prefix}%032x', {number})"),
            Engine::Postgres => format!("'{prefix}' || lpad(to_hex({number}), 32, '0')"),
        }
    }

    fn series(&self, first: u64, last: u64) -> String {
        match self.engine {
            Engine::Sqlite => format!(
                "(with recursive counted(k) as (select {first} union all select k + 1 from counted where k < {last}) select k from counted)"
            ),
            Engine::Postgres => format!("(select k from generate_series({first}::bigint, {last}::bigint) g(k))"),
        }
    }

    fn yes(&self) -> &'static str {
        if self.engine == Engine::Sqlite { "1" } else { "true" }
    }

    /// A body as long as a real one.
    fn body(&self) -> &'static str {
        if self.engine == Engine::Sqlite { "zeroblob(900)" } else { "decode(repeat('20', 900), 'hex')" }
    }
}

/// The product of all filled-in orders: a top-up, so that no stock stands behind it.
fn product(words: &Words, now: i64) -> String {
    format!(
        "insert into products (id, title, description, kind, delivery, price, currency, active, created_at)
         values ('prd_{}', 'Balance', '', 'topup', 'instant', {PRICE_MINOR}, 'RUB', {}, {now}) on conflict do nothing",
        digits(1),
        words.yes()
    )
}

/// Adds `count` orders that wait for their money, from payment [`FIRST_LIVE`] on. Their jobs are due tomorrow, unless a
/// notice pulls them.
pub async fn live(database: &Database, count: u64, now: i64) -> Result<()> {
    let words = Words { engine: database.engine() };
    database.run(&product(&words, now)).await?;
    chunks(FIRST_LIVE, count, async |first, last| {
        let series = words.series(first, last);
        let mut sql = orders(&words, &series, now, "pending", "pending");
        sql.push_str(&format!(
            "insert into jobs (id, kind, slot, lane, payload, state, max_attempts, run_at, thread, created_at)
             select {job}, 'payment.confirm', {payment}, 'money',
                 '{{\"payment\":\"' || {payment} || '\",\"order\":\"' || {order} || '\",\"provider\":\"yookassa\"}}',
                 'ready', 100, {due}, {order}, {now} from {series} s;",
            job = words.id("job_", "k"),
            payment = words.id("pay_", "k"),
            order = words.id("ord_", "k"),
            due = now + DAY_MS,
        ));
        database.run(&sql).await
    })
    .await
}

/// Adds `count` orders that ended a year ago, each with its ended job and its applied notice.
pub async fn ended(database: &Database, count: u64, now: i64) -> Result<()> {
    let words = Words { engine: database.engine() };
    let then = now - 365 * DAY_MS;
    database.run(&product(&words, then)).await?;
    chunks(1, count, async |first, last| {
        let series = words.series(first, last);
        let mut sql = orders(&words, &series, then, "delivered", "paid");
        sql.push_str(&format!(
            "insert into jobs (id, kind, slot, lane, payload, state, attempts, max_attempts, run_at, fence, thread, created_at, ended_at)
             select {job}, 'payment.confirm', {payment}, 'money',
                 '{{\"payment\":\"' || {payment} || '\",\"order\":\"' || {order} || '\",\"provider\":\"yookassa\"}}',
                 'done', 1, 100, {then} + k, 1, {order}, {then} + k, {then} + k from {series} s;
             insert into inbox (id, source, account, event_id, event, body_hash, body, headers, peer, verified, subject, says, state,
                 received_at, terminal_at)
             select {notice}, 'yookassa', '{shop}', {event}, 'payment.succeeded', {hash}, {body}, '{{}}', '185.71.76.5', {yes}, {payment},
                 '{{}}', 'applied', {then} + k, {then} + k from {series} s;",
            job = words.id("job_", "k"),
            payment = words.id("pay_", "k"),
            order = words.id("ord_", "k"),
            notice = words.id("inb_", "k"),
            event = words.id("yookassa:payment.succeeded:", "k"),
            hash = words.id("00000000000000000000000000000000", "k"),
            shop = semel_sandbox::YOOKASSA_SHOP_ID,
            body = words.body(),
            yes = words.yes(),
        ));
        database.run(&sql).await
    })
    .await
}

/// The lane of [`due`].
pub const LANE: &str = "bench";

/// Adds `count` jobs that are due now, in a lane that nobody serves.
pub async fn due(database: &Database, count: u64, now: i64) -> Result<()> {
    let words = Words { engine: database.engine() };
    chunks(2 * FIRST_LIVE, count, async |first, last| {
        let sql = format!(
            "insert into jobs (id, kind, slot, lane, payload, state, max_attempts, run_at, created_at)
             select {job}, 'bench.tick', {slot}, '{LANE}', '{{}}', 'ready', 3, {now}, {now} from {series} s;",
            job = words.id("job_", "k"),
            slot = words.id("", "k"),
            series = words.series(first, last),
        );
        database.run(&sql).await
    })
    .await
}

/// Orders, items and payments; one customer for each order, because the notices may come for all of them at once.
fn orders(words: &Words, series: &str, at: i64, order_state: &str, payment_state: &str) -> String {
    let ended = order_state == "delivered";
    let moment = |yes: bool| if yes { format!("{at} + k") } else { "null".to_owned() };
    format!(
        "begin;
         insert into customers (id, telegram_id, created_at) select {customer}, 1000000000 + k, {at} from {series} s;
         insert into orders (id, customer, state, currency, total, provider, deadline, version, paid_at, ended_at, created_at)
         select {order}, {customer}, '{order_state}', 'RUB', {PRICE_MINOR}, 'yookassa', {at} + k + {deadline}, 1, {paid_at}, {ended_at}, {at} + k
             from {series} s;
         insert into items (id, order_id, position, product, title, kind, delivery, price, quantity)
         select {item}, {order}, 0, 'prd_{product}', 'Balance', 'topup', 'instant', {PRICE_MINOR}, 1 from {series} s;
         insert into payments (id, order_id, customer, provider, merchant, provider_id, state, currency, amount, received, key, version, created_at)
         select {payment}, {order}, {customer}, 'yookassa', '{shop}', {provider_id}, '{payment_state}', 'RUB', {PRICE_MINOR}, {received},
             {payment}, 1, {at} + k from {series} s;
         insert into payment_refs (provider, merchant, provider_id, payment, created_at)
         select 'yookassa', '{shop}', {provider_id}, {payment}, {at} + k from {series} s;
         commit;
         ",
        customer = words.id("cus_", "k"),
        order = words.id("ord_", "k"),
        item = words.id("itm_", "k"),
        payment = words.id("pay_", "k"),
        provider_id = words.id("", "k"),
        product = digits(1),
        shop = semel_sandbox::YOOKASSA_SHOP_ID,
        deadline = 30 * DAY_MS,
        paid_at = moment(ended),
        ended_at = moment(ended),
        received = if ended { PRICE_MINOR } else { 0 },
    )
}

async fn chunks(first: u64, count: u64, mut fill: impl AsyncFnMut(u64, u64) -> Result<()>) -> Result<()> {
    let end = first + count;
    let mut from = first;
    while from < end {
        let to = (from + CHUNK).min(end);
        fill(from, to - 1).await?;
        from = to;
    }
    Ok(())
}
