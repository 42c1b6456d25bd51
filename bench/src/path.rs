//! Path: how many round trips in a row lie between a webhook and its answer, and between a webhook and the message.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use semel_sandbox::Sandbox;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::Lengths;
use crate::database::Database;
use crate::http_client::Wire;
use crate::pg::{self, Postgres};
use crate::place::Place;
use crate::proxy::{Exchange, Log, Proxy};
use crate::report::Section;
use crate::server::Server;
use crate::usual::{self, Usual};
use crate::world;

const ROUND_TRIP: Duration = Duration::from_millis(50);
/// Sales before the measured ones: connections are open and statements prepared then, as in a shop that runs.
const WARM_UP: usize = 5;

/// Measures everything of this part.
pub async fn measure(place: &Place, lengths: &Lengths) -> Result<Section> {
    let mut section = Section::new("Path");
    section.how(format!(
        "PostgreSQL, the provider's API and Telegram each lie behind a proxy that adds {} ms to a round trip. {} sales one after another, \
         after {WARM_UP} to warm up; the median is told. Round trips *in a row* are counted on the wire: the longest chain of exchanges, \
         of whatever connection, each of which began when the one before was over; beside it stands the time. The message counts when \
         Telegram has it. *On the wire* are all exchanges of all connections meanwhile, also those that ran side by side and polls that \
         had nothing to do with the sale.",
        ROUND_TRIP.as_millis(),
        lengths.paths
    ));
    let postgres = Postgres::start(place, false).await?;
    semel(place, lengths, &postgres, &mut section).await?;
    usual_way(place, lengths, &postgres, &mut section).await?;
    postgres.stop().await?;
    Ok(section)
}

/// What one sale took.
struct Run {
    begun: Instant,
    answer: Duration,
    message: Duration,
    exchanges: Vec<Exchange>,
    order: String,
}

impl Run {
    /// Round trips in a row until the webhook was answered: those that were over by then.
    fn until_answer(&self) -> usize {
        let end = self.begun + self.answer;
        self.in_a_row(|one| one.answered.filter(|over| *over <= end))
    }

    /// Round trips in a row until the message had arrived, which it has before the call that brings it is answered.
    fn until_message(&self) -> usize {
        let end = self.begun + self.message;
        self.in_a_row(|one| (one.asked < end).then(|| one.answered.map_or(end, |over| over.min(end))))
    }

    /// The longest chain of exchanges, each begun when the one before was over. `over` says when one was, if it counts.
    fn in_a_row(&self, over: impl Fn(&Exchange) -> Option<Instant>) -> usize {
        let mut spans: Vec<(Instant, Instant)> =
            self.exchanges.iter().filter_map(|one| Some((over(one)?, one.asked))).collect();
        spans.sort();
        let (mut count, mut free_at) = (0, self.begun);
        for (over, asked) in spans {
            if asked >= free_at {
                count += 1;
                free_at = over;
            }
        }
        count
    }
}

fn ms(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1000.0)
}

struct Far {
    sandbox: Sandbox,
    log: Log,
    database: Proxy,
    outside: Proxy,
    /// One round trip to the database as it really is: the proxy's timers add a little.
    trip: Duration,
}

impl Far {
    async fn start(postgres: &Postgres) -> Result<Far> {
        let sandbox = world::sandbox().await?;
        let log = Log::default();
        let near: SocketAddr = sandbox.url().trim_start_matches("http://").parse()?;
        let database = SocketAddr::from(([127, 0, 0, 1], postgres.port()));
        let database = Proxy::start("database", database, ROUND_TRIP, log.clone()).await?;
        let outside = Proxy::start("outside", near, ROUND_TRIP, log.clone()).await?;
        let trip = measure_trip(&format!("postgres://postgres@{}/postgres", database.address)).await?;
        Ok(Far { sandbox, log, database, outside, trip })
    }

    fn database_url(&self, name: &str) -> String {
        format!("postgres://postgres@{}/{name}", self.database.address)
    }
}

async fn measure_trip(url: &str) -> Result<Duration> {
    let client = pg::connect(url).await?;
    let mut times = Vec::new();
    for _ in 0..15 {
        let begun = Instant::now();
        client.batch_execute("select 1").await?;
        times.push(begun.elapsed());
    }
    times.sort();
    times.get(times.len() / 2).copied().context("the round trip was measured")
}

async fn semel(place: &Place, lengths: &Lengths, postgres: &Postgres, section: &mut Section) -> Result<()> {
    eprintln!("-- the path of a sale");
    postgres.remove("path").await?;
    postgres.create("path").await?;
    let far = Far::start(postgres).await?;
    let database = Database::Postgres(far.database_url("path"));
    let server = Server::start(place, &database, &world::through(&far.sandbox, far.outside.address), false).await?;
    let product = world::open_shop(&server, WARM_UP + lengths.paths).await?;
    let mut runs = Vec::new();
    for n in 0..WARM_UP + lengths.paths {
        let mut made = world::order(&server, &product, n, 1).await?;
        let made = made.pop().context("an order was just made")?;
        let webhook = world::pay(&far.sandbox, &[made.provider_id], "/webhook/yookassa")?;
        let run = one(&far, server.address, &webhook, made.chat, made.order).await?;
        if n >= WARM_UP {
            runs.push(run);
        }
    }
    let run = median(runs)?;
    let answered = run.begun + run.answer;
    let asked_database = run
        .exchanges
        .iter()
        .filter(|one| one.link == "database" && one.answered.is_some_and(|at| at <= answered))
        .count();
    section.aimed(
        "Semel: webhook to answer",
        format!("{}, {} round trip(s) in a row", ms(run.answer), run.until_answer()),
        format!(
            "{asked_database} with the database on the wire meanwhile; one round trip took {:.1} ms",
            far.trip.as_secs_f64() * 1000.0
        ),
        "1 database round trip",
        run.until_answer() <= 1,
    );
    section.aimed(
        "Semel: webhook to message",
        format!("{}, {} round trips in a row", ms(run.message), run.until_message()),
        on_the_wire(&run),
        "at most 9",
        run.until_message() <= 9,
    );
    // The delivery is written after Telegram's answer.
    sleep(ROUND_TRIP * 20).await;
    let order = server.get(&format!("/api/v1/orders/{}", run.order)).await?;
    section.block("The timeline of that sale, as the program tells it:", timeline(&order));
    section.block("The same on the wire, from the webhook to the message (milliseconds):", wire(&run));
    server.stop().await?;
    far.sandbox.stop().await;
    Ok(())
}

async fn usual_way(place: &Place, lengths: &Lengths, postgres: &Postgres, section: &mut Section) -> Result<()> {
    eprintln!("-- the path of the usual way");
    usual::database(place, postgres, "usual_path").await?;
    let far = Far::start(postgres).await?;
    let count = WARM_UP + lengths.paths;
    let ids = world::bare_payments(&far.sandbox, count).await?;
    // The orders are filled in without the delay.
    usual::orders(&Database::Postgres(postgres.url("usual_path")), &ids).await?;
    let outside = world::through(&far.sandbox, far.outside.address);
    let service = Usual::start(place, &far.database_url("usual_path"), &outside).await?;
    let mut runs = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        let webhook = world::pay(&far.sandbox, std::slice::from_ref(id), "/yookassa-webhook")?;
        // The filled-in customers count from one.
        let chat = 1_000_000_001 + i64::try_from(n)?;
        let run = one(&far, service.address, &webhook, chat, id.clone()).await?;
        if n >= WARM_UP {
            runs.push(run);
        }
    }
    let run = median(runs)?;
    let answer = format!("{}, {} round trips in a row", ms(run.answer), run.until_answer());
    section.figure(
        "The usual way (b): webhook to answer",
        answer,
        format!("one round trip took {:.1} ms", far.trip.as_secs_f64() * 1000.0),
    );
    let message = format!("{}, {} round trips in a row", ms(run.message), run.until_message());
    section.figure("The usual way (b): webhook to message", message, on_the_wire(&run));
    service.stop().await?;
    far.sandbox.stop().await;
    Ok(())
}

/// Sends one webhook and waits for its answer and for the message.
async fn one(far: &Far, address: SocketAddr, webhook: &[Vec<u8>], chat: i64, order: String) -> Result<Run> {
    let webhook = webhook.first().context("one webhook was asked for")?;
    // What the making of the order set in motion comes to rest first.
    sleep(ROUND_TRIP * 20).await;
    let mut wire = Wire::open(address).await?;
    let begun = Instant::now();
    let (status, _) = wire.exchange(webhook).await?;
    let answer = begun.elapsed();
    if status != 200 {
        bail!("the webhook was answered with {status}");
    }
    while far.sandbox.chat(chat).is_empty() {
        if begun.elapsed() > Duration::from_secs(30) {
            bail!("no message came within half a minute");
        }
        sleep(Duration::from_millis(1)).await;
    }
    let message = begun.elapsed();
    let end = begun + message;
    let exchanges = far.log.since(begun).into_iter().filter(|one| one.asked <= end).collect();
    Ok(Run { begun, answer, message, exchanges, order })
}

fn median(mut runs: Vec<Run>) -> Result<Run> {
    runs.sort_by_key(|run| run.message);
    let middle = runs.len() / 2;
    if runs.is_empty() {
        bail!("no sale was measured");
    }
    Ok(runs.swap_remove(middle))
}

fn on_the_wire(run: &Run) -> String {
    let of = |link: &str| run.exchanges.iter().filter(|one| one.link == link).count();
    format!("on the wire: {} with the database, {} with provider and Telegram", of("database"), of("outside"))
}

fn wire(run: &Run) -> String {
    let mut out = String::new();
    let since = |at: Instant| at.saturating_duration_since(run.begun).as_millis();
    for one in &run.exchanges {
        let answered = one.answered.map_or("-".to_owned(), |at| since(at).to_string());
        let says = if one.says.is_empty() { format!("{} bytes", one.bytes) } else { one.says.clone() };
        out.push_str(&format!(
            "{:>5} .. {:>5}  {:<8} #{:<2} {says}\n",
            since(one.asked),
            answered,
            one.link,
            one.connection
        ));
    }
    out.push_str(&format!("{:>5}           the webhook is answered\n", run.answer.as_millis()));
    out.push_str(&format!("{:>5}           Telegram has the message\n", run.message.as_millis()));
    out
}

fn timeline(order: &Value) -> String {
    let mut out = String::new();
    for step in order["timeline"].as_array().into_iter().flatten() {
        let word = |name: &str| step[name].as_str().unwrap_or("");
        let took = step["took_ms"].as_i64().map(|took| format!(" ({took} ms)")).unwrap_or_default();
        let states = match (word("from"), word("to")) {
            ("", "") => String::new(),
            ("", to) => format!(" → {to}"),
            (from, to) => format!(" {from} → {to}"),
        };
        out.push_str(&format!("{}  {:<8} {}{states}{took}\n", word("at"), word("entity"), word("event")));
    }
    out
}
