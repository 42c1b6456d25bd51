//! The database of a measured program, as the benchmark fills it and looks into it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use rusqlite::{Connection, OpenFlags};
use semel_kernel::store::{Engine, StoreUrl};
use tokio_postgres::Client;

use crate::pg::{self, Postgres};
use crate::place::Place;

/// Where a database is.
#[derive(Clone, Debug)]
pub enum Database {
    /// A file.
    Sqlite(PathBuf),
    /// A connection string.
    Postgres(String),
}

impl Database {
    /// A new SQLite file in the scratch folder; one of that name from before is removed.
    pub fn file(place: &Place, name: &str) -> Result<Database> {
        let folder = place.work.join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        Ok(Database::Sqlite(folder.join("semel.db")))
    }

    /// A new PostgreSQL database; one of that name from before is removed.
    pub async fn on(server: &Postgres, name: &str) -> Result<Database> {
        server.remove(name).await?;
        server.create(name).await?;
        Ok(Database::Postgres(server.url(name)))
    }

    /// Which engine it is.
    pub fn engine(&self) -> Engine {
        match self {
            Database::Sqlite(_) => Engine::Sqlite,
            Database::Postgres(_) => Engine::Postgres,
        }
    }

    /// Its name in tables of results.
    pub fn label(&self) -> &'static str {
        match self {
            Database::Sqlite(_) => "SQLite",
            Database::Postgres(_) => "PostgreSQL",
        }
    }

    /// As `SEMEL_DATABASE_URL` names it.
    pub fn setting(&self) -> String {
        match self {
            Database::Sqlite(path) => format!("sqlite://{}", path.display()),
            Database::Postgres(url) => url.clone(),
        }
    }

    /// As the kernel's store is opened.
    pub fn store_url(&self) -> StoreUrl {
        match self {
            Database::Sqlite(path) => StoreUrl::Sqlite(path.clone()),
            Database::Postgres(url) => StoreUrl::Postgres(url.clone()),
        }
    }

    /// Runs statements. On SQLite only while no program has the file open for writing.
    pub async fn run(&self, sql: &str) -> Result<()> {
        match self {
            Database::Sqlite(path) => {
                let connection = Connection::open(path)?;
                connection.busy_timeout(Duration::from_secs(10))?;
                connection.execute_batch(
                    "pragma synchronous = off; pragma cache_size = -200000; pragma temp_store = memory;",
                )?;
                Ok(connection.execute_batch(sql)?)
            }
            Database::Postgres(url) => {
                let client = pg::connect(url).await?;
                client.batch_execute("set search_path to semel, public; set synchronous_commit to off").await?;
                Ok(client.batch_execute(sql).await?)
            }
        }
    }

    /// Brings a bulk load to rest: everything in its place on the disk, statistics fresh.
    pub async fn settle_down(&self) -> Result<()> {
        match self {
            Database::Sqlite(path) => {
                let connection = Connection::open(path)?;
                // A pragma that answers a row is read as a query.
                connection.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()))?;
                std::fs::File::open(path)?.sync_all()?;
                Ok(())
            }
            Database::Postgres(url) => {
                let client = pg::connect(url).await?;
                client.batch_execute("vacuum analyze").await?;
                client.batch_execute("checkpoint").await?;
                Ok(())
            }
        }
    }

    /// Opens it for looking, beside the program that runs on it.
    pub async fn look(&self) -> Result<Look> {
        match self {
            Database::Sqlite(path) => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let connection = Connection::open_with_flags(path, flags)?;
                connection.busy_timeout(Duration::from_secs(10))?;
                Ok(Look::Sqlite(connection))
            }
            Database::Postgres(url) => {
                let client = pg::connect(url).await?;
                client.batch_execute("set search_path to semel, public").await?;
                Ok(Look::Postgres(client))
            }
        }
    }

    /// The number that a query answers.
    pub async fn number(&self, sql: &str) -> Result<i64> {
        self.look().await?.number(sql).await
    }
}

/// A reader beside the program.
pub enum Look {
    /// Of a file.
    Sqlite(Connection),
    /// Of a server.
    Postgres(Client),
}

impl Look {
    /// The number that a query answers.
    pub async fn number(&self, sql: &str) -> Result<i64> {
        match self {
            Look::Sqlite(connection) => Ok(connection.query_row(sql, [], |row| row.get(0))?),
            Look::Postgres(client) => Ok(client.query_one(sql, &[]).await?.try_get(0)?),
        }
    }
}
