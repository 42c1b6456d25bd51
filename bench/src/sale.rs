//! Sale: whole sales a second, from the webhook to the order settled and its message queued.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

use crate::Lengths;
use crate::database::Database;
use crate::load::{Pace, Requests, send};
use crate::pg::Postgres;
use crate::place::Place;
use crate::report::{Section, per_second};
use crate::server::Server;
use crate::usual::{self, Usual};
use crate::world;

const CONNECTIONS: usize = 64;
const LONGEST: Duration = Duration::from_secs(300);

/// Measures everything of this part.
pub async fn measure(place: &Place, lengths: &Lengths) -> Result<Section> {
    let mut section = Section::new("Sale");
    section.how(format!(
        "{} orders are made beforehand, each of another customer whom one of 20 others brought, one unit of stock each, and all are paid at the \
         sandbox. Then their webhooks come over {CONNECTIONS} connections as fast as they are answered. The time runs from the first \
         webhook until the last order is paid, its goods are taken from stock, the books and the referral are written, and the \
         message to the customer is queued; the provider is asked about each payment. Sandbox and load run beside the measured \
         program on the same machine. Both ways answer for what they acknowledged: same disk, every commit synced.",
        lengths.sales
    ));
    let postgres = Postgres::start(place, false).await?;
    let usual = usual_way(place, lengths, &postgres, &mut section).await?;
    let file = Database::file(place, "sale")?;
    semel(place, lengths, &file, usual, 15.0, &mut section).await?;
    let server = Database::on(&postgres, "sale").await?;
    semel(place, lengths, &server, usual, 5.0, &mut section).await?;
    postgres.stop().await?;
    Ok(section)
}

async fn semel(
    place: &Place,
    lengths: &Lengths,
    database: &Database,
    usual: f64,
    times: f64,
    section: &mut Section,
) -> Result<()> {
    let label = database.label();
    eprintln!("-- sales on {label}");
    let sandbox = world::sandbox().await?;
    let server = Server::start(place, database, &world::straight(&sandbox), false).await?;
    let product = world::open_shop(&server, lengths.sales).await?;
    let orders = world::order(&server, &product, 0, lengths.sales).await?;
    let ids: Vec<String> = orders.into_iter().map(|made| made.provider_id).collect();
    let webhooks = Arc::new(world::pay(&sandbox, &ids, "/webhook/yookassa")?);
    let look = database.look().await?;
    let paid_before = look.number(SETTLED).await?;
    let begun = Instant::now();
    let (address, requests) = (server.address, Requests::Given(webhooks));
    let sending = tokio::spawn(async move { send(address, CONNECTIONS, requests, Pace::Burst, LONGEST).await });
    let wanted = i64::try_from(lengths.sales)?;
    let took = loop {
        let settled = look.number(SETTLED).await?;
        if settled >= wanted {
            break begun.elapsed();
        }
        if begun.elapsed() > LONGEST {
            bail!("{settled} of {wanted} orders were settled within {LONGEST:?}");
        }
        sleep(Duration::from_millis(10)).await;
    };
    let sent = sending.await??;
    server.stop().await?;
    sandbox.stop().await;
    // An order's own job looks after 15 s by itself; some may be settled before their webhook when making orders is slow.
    let fresh = wanted - paid_before;
    let rate = fresh as f64 / took.as_secs_f64();
    let ratio = rate / usual;
    section.aimed(
        format!("Semel, {label}"),
        per_second(rate),
        format!(
            "{ratio:.1} times the usual way; {fresh} sales in {:.2} s; webhooks answered with {}{}",
            took.as_secs_f64(),
            sent.times(),
            sent.troubles()
        ),
        format!("at least {times:.0} times"),
        ratio >= times,
    );
    Ok(())
}

/// Paid orders whose message with the goods is queued or on its way. Both are written in one transaction.
const SETTLED: &str = "select count(*) from orders o where o.paid_at is not null
    and exists (select 1 from messages m where m.order_id = o.id and m.kind = 'goods')";

async fn usual_way(place: &Place, lengths: &Lengths, postgres: &Postgres, section: &mut Section) -> Result<f64> {
    eprintln!("-- sales of the usual way");
    let sandbox = world::sandbox().await?;
    let database = usual::database(place, postgres, "usual_sale").await?;
    let ids = world::bare_payments(&sandbox, lengths.sales).await?;
    usual::orders(&database, &ids).await?;
    let service = Usual::start(place, &database.setting(), &world::straight(&sandbox)).await?;
    let webhooks = Arc::new(world::pay(&sandbox, &ids, "/yookassa-webhook")?);
    // Here the answer comes after everything, so the last answer is the last sale.
    let sent = send(service.address, CONNECTIONS, Requests::Given(webhooks), Pace::Burst, LONGEST).await?;
    service.stop().await?;
    sandbox.stop().await;
    let delivered = database
        .number("select count(*) from orders o join notifications n on n.order_id = o.id where o.status = 'delivered'")
        .await?;
    if delivered != i64::try_from(lengths.sales)? {
        bail!("the usual way delivered {delivered} of {} orders{}", lengths.sales, sent.troubles());
    }
    let rate = delivered as f64 / sent.took.as_secs_f64();
    section.figure(
        "The usual way (b), PostgreSQL",
        per_second(rate),
        format!("webhooks answered with {}", sent.times()),
    );
    Ok(rate)
}
