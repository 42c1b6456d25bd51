//! Intake: durable acknowledged webhooks a second, and how long an answer takes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use semel_kernel::clock::Clock;

use crate::database::Database;
use crate::limits::{self, AnswerServer};
use crate::load::{Outcome, Pace, Requests, send};
use crate::notices::{digits, template};
use crate::pg::Postgres;
use crate::place::Place;
use crate::report::{Section, per_second};
use crate::server::{self, Server};
use crate::stub::{Manner, Stub};
use crate::usual::{self, Usual};
use crate::{Lengths, fill};

/// Connections of the load; a plain writer's batch is as large, because no more can wait at a time.
pub const CONNECTIONS: usize = 256;
/// The open loop's share of the burst's rate.
const CALM: f64 = 0.6;
const AIM: f64 = 0.60;

/// Measures everything of this part.
pub async fn measure(place: &Place, lengths: &Lengths) -> Result<Section> {
    let mut section = Section::new("Intake");
    explain(&mut section, lengths);
    let answering = answer_only(place, lengths, &mut section).await?;
    for slow in [false, true] {
        let postgres = Postgres::start(place, slow).await?;
        let disk = if slow { "each sync 2 ms slower" } else { "the machine's disk" };
        let on_file = Database::file(place, "intake")?;
        let on_server = Database::on(&postgres, "intake").await?;
        for database in [on_file, on_server] {
            engine(place, lengths, &database, slow, disk, answering, &mut section).await?;
        }
        usual_way(place, lengths, &postgres, disk, &mut section).await?;
        postgres.stop().await?;
    }
    Ok(section)
}

fn explain(section: &mut Section, lengths: &Lengths) {
    section.how(format!(
        "Authentic notices of YooKassa over {CONNECTIONS} kept-alive connections from a client on the same machine: {} s as fast as \
         they go (burst), then {} s at {:.0} % of that rate, each time taken from the moment at which the notice was due (open loop; \
         the client's timer adds up to 1 ms). Each notice is about another payment that has a waiting order and a live job. After \
         each phase the rows are counted: every 200 has one, or the run fails.",
        lengths.phase.as_secs(),
        lengths.phase.as_secs(),
        CALM * 100.0
    ));
    section.how(
        "Semel's provider answers in this part only after 5 s, so that its workers wait and the figure is the intake's; what happens \
         to a notice afterwards is measured under Sale. Limit (a1), the plain writer: the same rows (the notice, its job pulled) in \
         batches of as many as there are connections, same sync, no HTTP, no look for repeats. Limit (a2): the same HTTP server, \
         verifying and logging, answering without storing. The usual way (b): the Python service of `bench/usual_way`, one process, \
         with a provider that answers at once, on the same PostgreSQL.",
    );
}

async fn answer_only(place: &Place, lengths: &Lengths, section: &mut Section) -> Result<f64> {
    let server = AnswerServer::start(place).await?;
    let template = Arc::new(template("/webhook/yookassa"));
    let requests = Requests::Notices { template, first: fill::FIRST_LIVE, end: u64::MAX };
    send(server.address, CONNECTIONS, requests.clone(), Pace::Burst, lengths.warm_up).await?;
    let burst = send(server.address, CONNECTIONS, requests, Pace::Burst, lengths.phase).await?;
    server.stop().await?;
    refuse_errors(&burst)?;
    section.figure("Limit (a2): answering without storing, burst", per_second(burst.rate()), burst.times());
    Ok(burst.rate())
}

fn refuse_errors(outcome: &Outcome) -> Result<()> {
    if outcome.acknowledged == 0 || outcome.failed > 0 || outcome.refused > 0 {
        bail!("{} acknowledged{}: this figure would mean nothing", outcome.acknowledged, outcome.troubles());
    }
    Ok(())
}

async fn engine(
    place: &Place,
    lengths: &Lengths,
    database: &Database,
    slow: bool,
    disk: &str,
    answering: f64,
    section: &mut Section,
) -> Result<()> {
    let label = database.label();
    eprintln!("-- intake on {label}, {disk}");
    server::migrate(place, database).await?;
    let payments = lengths.live_payments();
    fill::live(database, payments, Clock::system().now().millis()).await?;
    database.settle_down().await?;
    let measured = bursts(place, lengths, database, slow).await?;
    // The same payments again, on the same database without what came in: the rows are the same.
    database.run("delete from inbox").await?;
    database.settle_down().await?;
    let batch = if database.label() == "SQLite" { CONNECTIONS } else { CONNECTIONS / 2 };
    let writing = limits::writer_rate(place, database, batch as u64, lengths.phase.as_secs(), payments, slow).await?;
    section.figure(
        format!("Limit (a1): plain writer, {label}, {disk}"),
        per_second(writing),
        format!("batches of {batch}"),
    );
    let limit = writing.min(answering);
    let share = measured.burst.rate() / limit;
    section.aimed(
        format!("Semel, {label}, {disk}, burst"),
        per_second(measured.burst.rate()),
        format!("{:.0} % of the lower limit ({}); {}", share * 100.0, per_second(limit), measured.burst.times()),
        format!("at least {:.0} %", AIM * 100.0),
        share >= AIM,
    );
    section.figure(
        format!("Semel, {label}, {disk}, open loop"),
        format!("{}{}", per_second(measured.calm.rate()), measured.calm.troubles()),
        measured.calm.times(),
    );
    Ok(())
}

/// What [`bursts`] measured.
pub struct Measured {
    /// As fast as it goes.
    pub burst: Outcome,
    /// At a part of that rate.
    pub calm: Outcome,
}

/// Starts the program on a filled database, sends it both loads, stops it, and checks that each 200 has its row.
pub async fn bursts(place: &Place, lengths: &Lengths, database: &Database, slow: bool) -> Result<Measured> {
    let stub = Stub::start(Manner { thinks: Duration::from_secs(5), paid: false }).await?;
    let before = database.number("select count(*) from inbox").await?;
    let server = Server::start(place, database, &stub.world(), slow).await?;
    let template = Arc::new(template("/webhook/yookassa"));
    let end = fill::FIRST_LIVE + lengths.live_payments();
    let mut first = fill::FIRST_LIVE;
    let mut outcomes = Vec::new();
    let mut pace = Pace::Burst;
    for longest in [lengths.warm_up, lengths.phase, lengths.phase] {
        let requests = Requests::Notices { template: Arc::clone(&template), first, end };
        let outcome = send(server.address, CONNECTIONS, requests, pace, longest).await?;
        first += outcome.taken;
        if outcomes.len() == 1 {
            pace = Pace::Open(outcome.rate() * CALM);
        }
        outcomes.push(outcome);
    }
    server.stop().await?;
    let rows = database.number("select count(*) from inbox").await? - before;
    let acknowledged: u64 = outcomes.iter().map(|outcome| outcome.acknowledged).sum();
    if i64::try_from(acknowledged)? > rows {
        bail!("{acknowledged} webhooks were acknowledged and {rows} are in the inbox");
    }
    let (calm, burst) = (outcomes.pop(), outcomes.pop());
    match (burst, calm) {
        (Some(burst), Some(calm)) => {
            refuse_errors(&burst)?;
            if calm.acknowledged == 0 {
                bail!("no payments were left for the open loop: fill in more of them");
            }
            Ok(Measured { burst, calm })
        }
        _ => bail!("the phases were not run"),
    }
}

async fn usual_way(
    place: &Place,
    lengths: &Lengths,
    postgres: &Postgres,
    disk: &str,
    section: &mut Section,
) -> Result<()> {
    eprintln!("-- intake of the usual way, {disk}");
    let database = usual::database(place, postgres, "usual").await?;
    let payments = lengths.usual_payments();
    let ids: Vec<String> = (0..payments).map(|n| digits(fill::FIRST_LIVE + n)).collect();
    usual::orders(&database, &ids).await?;
    let stub = Stub::start(Manner { thinks: Duration::ZERO, paid: true }).await?;
    let service = Usual::start(place, &database.setting(), &stub.world()).await?;
    let template = Arc::new(template("/yookassa-webhook"));
    let end = fill::FIRST_LIVE + payments;
    let mut first = fill::FIRST_LIVE;
    let mut outcomes = Vec::new();
    let mut pace = Pace::Burst;
    for longest in [lengths.warm_up, lengths.phase, lengths.phase] {
        let requests = Requests::Notices { template: Arc::clone(&template), first, end };
        let outcome = send(service.address, CONNECTIONS, requests, pace, longest).await?;
        first += outcome.taken;
        if outcomes.len() == 1 {
            pace = Pace::Open(outcome.rate() * CALM);
        }
        outcomes.push(outcome);
    }
    service.stop().await?;
    for (outcome, name) in outcomes.iter().skip(1).zip(["burst", "open loop"]) {
        section.figure(
            format!("The usual way (b), PostgreSQL, {disk}, {name}"),
            format!("{}{}", per_second(outcome.rate()), outcome.troubles()),
            outcome.times(),
        );
    }
    Ok(())
}
