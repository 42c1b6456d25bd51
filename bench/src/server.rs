//! The measured program: the release build, as its owner would run it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail};
use semel_kernel::clock::Stopwatch;
use serde_json::Value;

use crate::database::Database;
use crate::http_client;
use crate::place::{Kept, Place, eventually, free_address};

const TOKEN: &str = "bench_0123456789abcdef0123456789abcdef";

/// Where the outside world is.
#[derive(Clone, Debug)]
pub struct World {
    /// YooKassa's API.
    pub yookassa: String,
    /// The Bot API.
    pub telegram: String,
}

/// A running `semel serve`.
pub struct Server {
    /// Its HTTP address.
    pub address: SocketAddr,
    /// From the start of the process to the first 200 of `/readyz`.
    pub ready_after: Duration,
    kept: Kept,
}

impl Server {
    /// Starts the program on `database` and waits until it is ready. `slow` makes each of its own syncs 2 ms slower: the
    /// disk of SQLite; PostgreSQL's is slowed at its server.
    pub async fn start(place: &Place, database: &Database, world: &World, slow: bool) -> Result<Server> {
        Self::start_with(place, database, world, slow, &[]).await
    }

    /// The same with further settings, by their names in the environment.
    pub async fn start_with(
        place: &Place,
        database: &Database,
        world: &World,
        slow: bool,
        settings: &[(&str, &str)],
    ) -> Result<Server> {
        let address = free_address()?;
        let slow = slow && matches!(database, Database::Sqlite(_));
        let mut command = place.bare_with_disk(&place.semel, slow);
        command.arg("serve");
        for (name, value) in environment(database, world, address) {
            command.env(name, value);
        }
        command.envs(settings.iter().copied());
        let since = Stopwatch::start();
        let mut kept = Kept::spawn(place, "semel", command)?;
        eventually("semel is ready", Duration::from_secs(60), async || {
            kept.still_runs()?;
            Ok(http_client::ask(address, "GET", "/readyz", &[], None).await.is_ok())
        })
        .await?;
        Ok(Server { address, ready_after: since.elapsed(), kept })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.kept.pid()
    }

    /// A GET of the API.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let bearer = format!("Bearer {TOKEN}");
        http_client::ask(self.address, "GET", path, &[("Authorization", bearer.as_str())], None).await
    }

    /// A POST of the API under an idempotency key.
    pub async fn post(&self, path: &str, key: &str, body: &Value) -> Result<Value> {
        post(self.address, path, key, body).await
    }

    /// Stops it in an orderly way.
    pub async fn stop(self) -> Result<()> {
        self.kept.stop("TERM").await
    }
}

/// A POST of the API at `address` under an idempotency key.
pub async fn post(address: SocketAddr, path: &str, key: &str, body: &Value) -> Result<Value> {
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("Authorization", bearer.as_str()), ("Idempotency-Key", key)];
    http_client::ask(address, "POST", path, &headers, Some(body)).await
}

/// Makes the schema.
pub async fn migrate(place: &Place, database: &Database) -> Result<()> {
    let nowhere = World { yookassa: "http://127.0.0.1:9/v3".into(), telegram: "http://127.0.0.1:9".into() };
    let mut command = place.bare(&place.semel);
    command.arg("migrate");
    for (name, value) in environment(database, &nowhere, free_address()?) {
        command.env(name, value);
    }
    let made = command.output().await?;
    if !made.status.success() {
        bail!("semel migrate failed: {}", String::from_utf8_lossy(&made.stderr));
    }
    Ok(())
}

/// Everything else is at its default.
fn environment(database: &Database, world: &World, address: SocketAddr) -> Vec<(&'static str, String)> {
    vec![
        ("SEMEL_LISTEN", address.to_string()),
        ("SEMEL_DATABASE_URL", database.setting()),
        ("SEMEL_PUBLIC_URL", format!("http://{address}")),
        ("SEMEL_API_TOKEN", TOKEN.to_owned()),
        ("SEMEL_TRUSTED_PROXIES", "127.0.0.0/8".to_owned()),
        ("SEMEL_YOOKASSA_SHOP_ID", semel_sandbox::YOOKASSA_SHOP_ID.to_owned()),
        ("SEMEL_YOOKASSA_SECRET_KEY", semel_sandbox::YOOKASSA_SECRET_KEY.to_owned()),
        ("SEMEL_YOOKASSA_API_URL", world.yookassa.clone()),
        ("SEMEL_TELEGRAM_BOT_TOKEN", semel_sandbox::BOT_TOKEN.to_owned()),
        ("SEMEL_TELEGRAM_API_URL", world.telegram.clone()),
        ("SEMEL_TELEGRAM_ADMIN_IDS", "1".to_owned()),
        ("SEMEL_SHOP_REFERRAL_REWARD_PERCENT", "10".to_owned()),
    ]
}
