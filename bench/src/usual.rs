//! The usual way: the Python service beside this folder, on a PostgreSQL database of its own.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::database::Database;
use crate::http_client;
use crate::pg::{self, Postgres};
use crate::place::{Kept, Place, eventually, free_address};
use crate::server::World;

/// Customers who brought others, so that no single balance is in everybody's way.
const REFERRERS: u64 = 20;

/// The running service.
pub struct Usual {
    /// Its HTTP address.
    pub address: SocketAddr,
    kept: Kept,
}

impl Usual {
    /// Starts the service on `database` and waits until it answers.
    pub async fn start(place: &Place, database_url: &str, world: &World) -> Result<Usual> {
        let address = free_address()?;
        let mut command = place.bare(&place.python);
        command.arg("-u").arg(place.usual.join("service.py"));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("DATABASE_URL", database_url);
        command.env("YOOKASSA_API_URL", &world.yookassa);
        command.env("YOOKASSA_SHOP_ID", semel_sandbox::YOOKASSA_SHOP_ID);
        command.env("YOOKASSA_SECRET_KEY", semel_sandbox::YOOKASSA_SECRET_KEY);
        command.env("TELEGRAM_API_URL", &world.telegram);
        command.env("BOT_TOKEN", semel_sandbox::BOT_TOKEN);
        command.env("HOST", address.ip().to_string()).env("PORT", address.port().to_string());
        let mut kept = Kept::spawn(place, "usual_way", command)?;
        eventually("the usual way answers", Duration::from_secs(60), async || {
            kept.still_runs()?;
            Ok(http_client::ask(address, "GET", "/health", &[], None).await.is_ok())
        })
        .await?;
        Ok(Usual { address, kept })
    }

    /// Stops it in an orderly way.
    pub async fn stop(self) -> Result<()> {
        self.kept.stop("TERM").await
    }
}

/// A new database with the service's tables and the customers who bring others; its address.
pub async fn database(place: &Place, server: &Postgres, name: &str) -> Result<Database> {
    let database = Database::on(server, name).await?;
    let schema = std::fs::read_to_string(place.usual.join("schema.sql")).context("usual_way/schema.sql")?;
    let client = pg::connect(&database.setting()).await?;
    client.batch_execute(&schema).await?;
    let referrers = format!(
        "insert into products (title, price, currency) values ('Licence key', 499, 'RUB');
         insert into users (telegram_id) select 900000000 + k from generate_series(1, {REFERRERS}) g(k)"
    );
    client.batch_execute(&referrers).await?;
    Ok(database)
}

/// Adds one waiting order for each of these ids of the provider, with a customer, stock and a referrer.
pub async fn orders(database: &Database, provider_ids: &[String]) -> Result<()> {
    let client = pg::connect(&database.setting()).await?;
    let text = format!(
        "with given as (
            select provider_id, k from unnest($1::text[]) with ordinality g(provider_id, k)
        ), buyers as (
            insert into users (telegram_id, referrer_id) select 1000000000 + k, 1 + k % {REFERRERS} from given returning id, telegram_id
        ), bought as (
            insert into orders (user_id, status, total, currency) select id, 'pending', 499, 'RUB' from buyers returning id, user_id
        ), lines as (
            insert into order_items (order_id, product_id, price, quantity) select id, 1, 499, 1 from bought returning id
        ), keys as (
            insert into stock (product_id, content) select 1, 'KEY-' || provider_id from given returning id
        )
        insert into payments (order_id, provider, provider_id, status, amount)
        select bought.id, 'yookassa', given.provider_id, 'pending', 499 from given
            join buyers on buyers.telegram_id = 1000000000 + given.k join bought on bought.user_id = buyers.id"
    );
    client.execute(text.as_str(), &[&provider_ids]).await?;
    client.batch_execute("vacuum analyze").await?;
    Ok(())
}
