//! Talk: how close to Telegram's limit campaigns come, what a paid key waits meanwhile, and whether one chat holds up others.

mod peers;
mod simulated;
mod strict;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use semel_kernel::args;
use semel_kernel::clock::{Chance, Clock, Time};
use semel_kernel::jobs;
use semel_kernel::store::{Store, StoreError, StoreOptions};
use semel_sandbox::{BOT_TOKEN, Sandbox};
use semel_shop::messages::{DeliverMessage, MessageId};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use self::peers::{Peer, Ran};
use self::strict::{Accepted, Book, LATENCY, PER_SECOND, Strict};
use crate::Lengths;
use crate::database::Database;
use crate::http_client::Wire;
use crate::place::{Place, eventually};
use crate::report::Section;
use crate::server::{self, Server, World};
use crate::world;

/// The first recipient's chat; the peers write to the same ones.
const FIRST: i64 = 2_000_000_000;
/// Recipients in simulated time.
const SIMULATED: u64 = 100_000;
/// The chat that gets so many messages before so many others get one each.
const HOT: i64 = 500;
const HOT_MESSAGES: usize = 40;
const OTHERS: usize = 100;
/// How long after they are written these messages are due: the program runs by then as it always does.
const BEFORE: Duration = Duration::from_secs(20);
/// Between two sales while a campaign runs.
const SALE_EVERY: Duration = Duration::from_millis(700);
/// No peer takes longer.
const LONGEST: Duration = Duration::from_secs(240);
/// The aims.
const OF_LIMIT: f64 = 1.03;
const OF_IDEAL: f64 = 1.1;
const KEY_WITHIN: Duration = Duration::from_secs(1);

/// Measures everything of this part.
pub async fn measure(place: &Place, lengths: &Lengths) -> Result<Section> {
    let mut section = Section::new("Talk");
    section.how(format!(
        "A Bot API server on loopback refuses with 429 what is above {PER_SECOND} messages of a bot in any sliding second, above three at once \
         and one a second to a person, or above twenty a minute to a group; it judges a message at its arrival and answers {} ms \
         later. The limit of a campaign is its recipients ÷ {PER_SECOND} seconds. Semel is the release program on SQLite with \
         `telegram.rate` at {PER_SECOND} (its default, 28, leaves room for other programs of the same token). The campaign is made, \
         looked at, tested and started over the API; its time runs from the call that starts it to the arrival of the last message, a \
         peer's from its first message to its last one that was taken.",
        LATENCY.as_millis()
    ));
    section.how(format!(
        "The peers send to {} people each, all at the same time, each with a bot of its own: the usual way (b) is the Python of \
         `bench/usual_way/broadcast.py`, the others are in `bench/peers`. Keys: {} orders are paid at the sandbox, one every {} ms, \
         while a campaign runs; the wait is from the order's `paid_at` to the arrival of the message with the key. Hot chat: \
         {HOT_MESSAGES} messages to one person stand before one to each of {OTHERS} others; Semel's are written as rows of messages that \
         become due at one moment, the peers' are asked for in this order.",
        lengths.peer_recipients,
        lengths.keys,
        SALE_EVERY.as_millis()
    ));
    let semel = campaign(place, lengths, &mut section).await?;
    peers_campaign(place, lengths, semel, &mut section).await?;
    keys(place, lengths, &mut section).await?;
    hot_chat(place, &mut section).await?;
    peers_hot_chat(place, &mut section).await?;
    in_simulated_time(&mut section)?;
    Ok(section)
}

/// The time that Telegram's limit leaves for so many messages.
fn limit(messages: usize) -> f64 {
    messages as f64 / PER_SECOND as f64
}

/// The program with a database of its own, the strict server and the sandbox's provider.
struct Shop {
    strict: Strict,
    sandbox: Sandbox,
    server: Server,
    database: Database,
}

impl Shop {
    async fn open(place: &Place, database: Database) -> Result<Shop> {
        let (strict, sandbox) = (Strict::start().await?, world::sandbox().await?);
        let world = World { yookassa: sandbox.yookassa_url(), telegram: strict.url() };
        let rate = PER_SECOND.to_string();
        let settings = [("SEMEL_TELEGRAM_RATE", rate.as_str())];
        let server = Server::start_with(place, &database, &world, false, &settings).await?;
        Ok(Shop { strict, sandbox, server, database })
    }

    /// A shop with so many customers.
    async fn with_people(place: &Place, name: &str, people: usize) -> Result<Shop> {
        let database = Database::file(place, name)?;
        server::migrate(place, &database).await?;
        let sql = format!(
            "insert into customers (id, telegram_id, language, created_at)
             select printf('cus_%032d', k), {FIRST} + k, 'en', 0
             from (with recursive c(k) as (select 0 union all select k + 1 from c where k < {people} - 1) select k from c) s"
        );
        database.run(&sql).await?;
        database.settle_down().await?;
        Shop::open(place, database).await
    }

    /// A campaign to everybody that is looked at and tested; its id.
    async fn ready_campaign(&self) -> Result<String> {
        let draft = json!({
            "title": "News", "rule": {},
            "texts": { "ru": { "html": "Новости для всех." }, "en": { "html": "News for everybody." } },
        });
        let made = self.server.post("/api/v1/campaigns", "bench-campaign", &draft).await?;
        let id = made["id"].as_str().context("a campaign has an id")?.to_owned();
        for act in ["preview", "test"] {
            let path = format!("/api/v1/campaigns/{id}/{act}");
            self.server.post(&path, &format!("bench-{act}"), &json!({})).await?;
        }
        let path = format!("/api/v1/campaigns/{id}");
        eventually("the owner has the test", Duration::from_secs(30), async || {
            Ok(self.server.get(&path).await?["tested"] == true)
        })
        .await?;
        Ok(id)
    }

    async fn start_campaign(&self, id: &str, people: usize) -> Result<()> {
        let path = format!("/api/v1/campaigns/{id}/start");
        self.server.post(&path, "bench-start", &json!({ "confirm": people })).await?;
        Ok(())
    }

    /// Waits until so many messages were taken for which this holds.
    async fn arrived(&self, wanted: usize, longest: Duration, holds: impl Fn(&Accepted) -> bool) -> Result<()> {
        let end = Instant::now() + longest;
        loop {
            let there = self.strict.count(BOT_TOKEN, &holds);
            if there >= wanted {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("{there} of {wanted} messages arrived within {longest:?}");
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn stop(self) -> Result<()> {
        self.server.stop().await?;
        self.sandbox.stop().await;
        Ok(())
    }
}

/// Whether a message went to one of so many recipients.
fn is_to(one: &Accepted, people: usize) -> bool {
    usize::try_from(one.chat - FIRST).is_ok_and(|n| n < people)
}

/// How many of so many recipients have a message.
fn reached(book: &Book, people: usize) -> usize {
    book.accepted.iter().filter(|one| is_to(one, people)).map(|one| one.chat).collect::<BTreeSet<_>>().len()
}

/// When the last message arrived for which this holds.
fn last(book: &Book, holds: impl Fn(&Accepted) -> bool) -> Duration {
    book.accepted.iter().filter(|one| holds(one)).map(|one| one.at).max().unwrap_or_default()
}

/// Semel's campaign; how many times the limit it took.
async fn campaign(place: &Place, lengths: &Lengths, section: &mut Section) -> Result<f64> {
    let people = lengths.recipients;
    eprintln!("-- a campaign to {people} people");
    let shop = Shop::with_people(place, "talk", people).await?;
    let id = shop.ready_campaign().await?;
    let begun = shop.strict.now();
    shop.start_campaign(&id, people).await?;
    let longest = Duration::from_secs_f64(limit(people) * 3.0 + 60.0);
    shop.arrived(people, longest, |one| is_to(one, people)).await?;
    let book = shop.strict.book(BOT_TOKEN);
    if reached(&book, people) != people {
        bail!("{} of {people} people have a message: somebody has two", reached(&book, people));
    }
    let took = last(&book, |one| is_to(one, people)).saturating_sub(begun);
    let ratio = took.as_secs_f64() / limit(people);
    section.aimed(
        format!("Semel, SQLite: a campaign to {people} people"),
        format!("{:.1} s", took.as_secs_f64()),
        format!("{ratio:.3} times the limit, {:.1} s; loudest second {}", limit(people), book.loudest),
        format!("at most {OF_LIMIT:.2} times"),
        ratio <= OF_LIMIT,
    );
    let refused = book.refused();
    section.aimed("Semel, SQLite: refused with 429 in it", refused.to_string(), "", "none", refused == 0);
    shop.stop().await?;
    Ok(ratio)
}

/// All peers at the same time.
async fn all_peers(place: &Place, strict: &Strict, round: &str, hot: usize, count: usize) -> Result<Vec<(Peer, Ran)>> {
    let run = |peer| peers::send(place, strict, peer, round, hot, count, LONGEST);
    let [first, second, third, fourth] = Peer::ALL;
    let (one, two, three, four) = tokio::join!(run(first), run(second), run(third), run(fourth));
    Ok(vec![(first, one?), (second, two?), (third, three?), (fourth, four?)])
}

async fn peers_campaign(place: &Place, lengths: &Lengths, semel: f64, section: &mut Section) -> Result<()> {
    let people = lengths.peer_recipients;
    eprintln!("-- the peers write to {people} people");
    let strict = Strict::start().await?;
    for (peer, ran) in all_peers(place, &strict, "campaign", 0, people).await? {
        let what = format!("{}: {people} people", peer.label());
        match ran {
            Ran::Not(why) => section.figure(what, "not run", why),
            Ran::Ended(book) => {
                let took = last(&book, |one| is_to(one, people)).saturating_sub(book.first.unwrap_or_default());
                let ratio = took.as_secs_f64() / limit(people);
                section.figure(
                    what,
                    format!("{:.1} s", took.as_secs_f64()),
                    format!(
                        "{ratio:.3} times the limit, {:.2} times Semel's share; {} refused with 429, loudest second {}, {} of {people} \
                         people reached",
                        ratio / semel,
                        book.refused(),
                        book.loudest,
                        reached(&book, people)
                    ),
                );
            }
        }
    }
    Ok(())
}

/// Paid keys while a campaign runs.
async fn keys(place: &Place, lengths: &Lengths, section: &mut Section) -> Result<()> {
    let count = lengths.keys;
    eprintln!("-- {count} keys are sold while a campaign runs");
    // As many as the sales take, and fifteen seconds more.
    let people = (SALE_EVERY.as_secs_f64() * count as f64 + 15.0) as usize * PER_SECOND;
    let shop = Shop::with_people(place, "talk-keys", people).await?;
    let id = shop.ready_campaign().await?;
    shop.start_campaign(&id, people).await?;
    // Only now, so that who buys is no recipient.
    let product = world::open_shop(&shop.server, count).await?;
    let orders = world::order(&shop.server, &product, 0, count).await?;
    let (begun, clock) = (Instant::now(), Clock::system());
    let mut hooked = Vec::with_capacity(count);
    for (n, order) in orders.iter().enumerate() {
        sleep_until(begun + SALE_EVERY * u32::try_from(n)?).await;
        let hooks = world::pay(&shop.sandbox, std::slice::from_ref(&order.provider_id), "/webhook/yookassa")?;
        let hook = hooks.first().context("one webhook was asked for")?;
        let mut wire = Wire::open(shop.server.address).await?;
        hooked.push(clock.now());
        let (status, _) = wire.exchange(hook).await?;
        if status != 200 {
            bail!("a webhook was answered with {status}");
        }
    }
    let shown = shop.server.get(&format!("/api/v1/campaigns/{id}")).await?;
    if shown["state"] != "running" {
        bail!("the campaign was over before the last sale: {}", shown["state"]);
    }
    shop.arrived(count, Duration::from_secs(60), |one| one.goods).await?;
    let book = shop.strict.book(BOT_TOKEN);
    let (mut after_paid, mut after_hook) = (Vec::new(), Vec::new());
    for (order, hooked) in orders.iter().zip(&hooked) {
        let goods = book.accepted.iter().find(|one| one.goods && one.chat == order.chat);
        let at = goods.with_context(|| format!("no key came to chat {}", order.chat))?.wall;
        let paid = shop.database.number(&format!("select paid_at from orders where id = '{}'", order.order)).await?;
        after_paid.push(at - paid);
        after_hook.push(at - hooked.millis());
    }
    let (middle, slowest) = (quantile(&mut after_paid, 50), quantile(&mut after_paid, 99));
    section.aimed(
        format!("Semel, SQLite: {count} keys during a campaign, settled to arrived"),
        format!("p50 {middle} ms, p99 {slowest} ms"),
        format!(
            "from the webhook on p50 {} ms, p99 {} ms; {} refused with 429",
            quantile(&mut after_hook, 50),
            quantile(&mut after_hook, 99),
            book.refused()
        ),
        format!("p99 at most {} ms", KEY_WITHIN.as_millis()),
        u128::try_from(slowest).is_ok_and(|slowest| slowest <= KEY_WITHIN.as_millis()),
    );
    shop.stop().await
}

/// The value within which so many percent lie; of few values p99 is the largest.
fn quantile(values: &mut [i64], percent: usize) -> i64 {
    values.sort_unstable();
    let at = (values.len() * percent).div_ceil(100).max(1) - 1;
    values.get(at).copied().unwrap_or_default()
}

/// Writes the messages of the hot chat and of the others, due at one moment; which.
async fn write_messages(database: &Database) -> Result<Time> {
    let store = Store::open(&database.store_url(), StoreOptions::default(), Clock::system())?;
    let (chance, due) = (Chance::system(), Clock::system().now() + BEFORE);
    let others = i64::try_from(OTHERS)?;
    let written = store.write("bench.talk", move |tx| {
        let now = tx.now();
        let chats = std::iter::repeat_n(HOT, HOT_MESSAGES).chain((0..others).map(|n| FIRST + n));
        for (n, chat) in chats.enumerate() {
            let message = MessageId::new(now, &chance);
            let body = json!({ "type": "text", "html": format!("news {n}") }).to_string();
            tx.execute(
                "insert into messages (id, dedup_key, chat_id, class, kind, body, state, queued_at)
                 values ($1, $2, $3, 'at_least_once', 'news', $4, 'queued', $5)",
                args![&message, format!("bench:{n}"), chat, body, now],
            )?;
            jobs::enqueue(tx, &DeliverMessage { message, order: None, next: None, several: false }, due, &chance)?;
        }
        Ok::<(), StoreError>(())
    });
    written.await?;
    Ok(due)
}

async fn hot_chat(place: &Place, section: &mut Section) -> Result<()> {
    eprintln!("-- a hot chat");
    let database = Database::file(place, "talk-hot")?;
    server::migrate(place, &database).await?;
    let due = write_messages(&database).await?;
    let shop = Shop::open(place, database).await?;
    if Clock::system().now() >= due {
        bail!("the program took longer to start than {BEFORE:?}");
    }
    shop.arrived(OTHERS, Duration::from_secs(120), |one| is_to(one, OTHERS)).await?;
    shop.arrived(HOT_MESSAGES, Duration::from_secs(120), |one| one.chat == HOT).await?;
    let book = shop.strict.book(BOT_TOKEN);
    let after = |holds: &dyn Fn(&Accepted) -> bool| {
        let last = book.accepted.iter().filter(|one| holds(one)).map(|one| one.wall).max().unwrap_or_default();
        (last - due.millis()) as f64 / 1000.0
    };
    let (others, hot) = (after(&|one| is_to(one, OTHERS)), after(&|one| one.chat == HOT));
    let ratio = others / limit(OTHERS);
    section.aimed(
        format!("Semel, SQLite: {OTHERS} others behind a hot chat"),
        format!("{others:.2} s"),
        format!(
            "{ratio:.2} times the ideal, {:.2} s; the hot chat had its {HOT_MESSAGES} after {hot:.1} s; {} refused with 429",
            limit(OTHERS),
            book.refused()
        ),
        format!("at most {OF_IDEAL:.1} times"),
        ratio <= OF_IDEAL,
    );
    shop.stop().await
}

async fn peers_hot_chat(place: &Place, section: &mut Section) -> Result<()> {
    eprintln!("-- the peers and a hot chat");
    let strict = Strict::start().await?;
    for (peer, ran) in all_peers(place, &strict, "hot", HOT_MESSAGES, OTHERS).await? {
        let what = format!("{}: {OTHERS} others behind a hot chat", peer.label());
        match ran {
            Ran::Not(why) => section.figure(what, "not run", why),
            Ran::Ended(book) => {
                let begun = book.first.unwrap_or_default();
                let others = last(&book, |one| is_to(one, OTHERS)).saturating_sub(begun).as_secs_f64();
                let hot = last(&book, |one| one.chat == HOT).saturating_sub(begun).as_secs_f64();
                let had = book.accepted.iter().filter(|one| one.chat == HOT).count();
                section.figure(
                    what,
                    format!("{others:.2} s"),
                    format!(
                        "{:.2} times the ideal; {} of {OTHERS} reached; the hot chat had {had} of {HOT_MESSAGES} after {hot:.1} s; {} refused \
                         with 429",
                        others / limit(OTHERS),
                        reached(&book, OTHERS),
                        book.refused()
                    ),
                );
            }
        }
    }
    Ok(())
}

fn in_simulated_time(section: &mut Section) -> Result<()> {
    eprintln!("-- {SIMULATED} people in simulated time");
    let run = simulated::campaign(SIMULATED)?;
    let limit = limit(usize::try_from(SIMULATED)?);
    let ratio = run.took.as_secs_f64() / limit;
    section.aimed(
        format!("The pacer in simulated time: {SIMULATED} people"),
        format!("{:.0} s", run.took.as_secs_f64()),
        format!(
            "{ratio:.3} times the limit, {limit:.0} s; {} refused; ways of 20 to 28 ms, answers of 40 to 88 ms and every hundredth a second \
             later; computed in {:.1} s",
            run.refused,
            run.computed_in.as_secs_f64()
        ),
        format!("at most {OF_LIMIT:.2} times, none refused"),
        ratio <= OF_LIMIT && run.refused == 0,
    );
    Ok(())
}
