//! A PostgreSQL of our own, with fsync on: what it acknowledges is on the disk.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::Command;
use tokio_postgres::{Client, NoTls};

use crate::place::{Kept, Place, eventually, free_address};

/// What differs from a fresh PostgreSQL: room for a benchmark's data. Durability is as strong as it gets.
pub const SETTINGS: [&str; 6] = [
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "shared_buffers=256MB",
    "max_wal_size=4GB",
    "max_connections=100",
];

/// A running server.
pub struct Postgres {
    folder: PathBuf,
    port: u16,
    kept: Kept,
}

impl Postgres {
    /// Starts the server on this run's cluster, which is made at the first call. `slow` makes each sync 2 ms slower.
    pub async fn start(place: &Place, slow: bool) -> Result<Postgres> {
        let folder = place.work.join("pg");
        let data = folder.join("data");
        if !data.join("PG_VERSION").exists() {
            fs::create_dir_all(&folder)?;
            if let Some((uid, gid)) = place.pg_user {
                chown(&folder, Some(uid), Some(gid))?;
                fs::set_permissions(&folder, fs::Permissions::from_mode(0o711))?;
            }
            let mut command = server_command(place, "initdb", false);
            command.arg("-D").arg(&data).args(["-A", "trust", "-U", "postgres", "--no-locale", "-E", "UTF8"]);
            let made = command.output().await.context("initdb does not start")?;
            if !made.status.success() {
                bail!("initdb failed: {}", String::from_utf8_lossy(&made.stderr));
            }
        }
        let port = free_address()?.port();
        let mut command = server_command(place, "postgres", slow);
        command.arg("-D").arg(&data);
        command.args(["-c", "listen_addresses=127.0.0.1", "-c"]).arg(format!("port={port}"));
        command.arg("-c").arg(format!("unix_socket_directories={}", folder.display()));
        for setting in SETTINGS {
            command.arg("-c").arg(setting);
        }
        let kept = Kept::spawn(place, "postgres", command)?;
        let mut server = Postgres { folder, port, kept };
        server.wait_until_ready().await?;
        Ok(server)
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let url = self.url("postgres");
        let kept = &mut self.kept;
        eventually("PostgreSQL takes connections", Duration::from_secs(60), async || {
            kept.still_runs()?;
            Ok(connect(&url).await.is_ok())
        })
        .await
    }

    /// The address of a database over the Unix socket, for every program that is measured.
    pub fn url(&self, database: &str) -> String {
        format!("postgres:///{database}?user=postgres&host={}&port={}", self.folder.display(), self.port)
    }

    /// The port on loopback, for the delaying proxy.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes an empty database.
    pub async fn create(&self, database: &str) -> Result<()> {
        let client = connect(&self.url("postgres")).await?;
        Ok(client.batch_execute(&format!("create database {database} template template0")).await?)
    }

    /// Removes a database with everything in it.
    pub async fn remove(&self, database: &str) -> Result<()> {
        let client = connect(&self.url("postgres")).await?;
        Ok(client.batch_execute(&format!("drop database if exists {database} with (force)")).await?)
    }

    /// The server's version.
    pub async fn version(&self) -> Result<String> {
        let client = connect(&self.url("postgres")).await?;
        Ok(client.query_one("show server_version", &[]).await?.get(0))
    }

    /// Stops the server in an orderly way.
    pub async fn stop(self) -> Result<()> {
        self.kept.stop("INT").await
    }
}

fn server_command(place: &Place, program: &str, slow: bool) -> Command {
    let path = place.pg_bin.join(program);
    let mut command = match place.pg_user {
        None => place.bare(&path),
        Some((uid, gid)) => {
            let mut command = place.bare(Path::new("setpriv"));
            command.args(["--reuid", &uid.to_string(), "--regid", &gid.to_string(), "--clear-groups"]).arg(path);
            command
        }
    };
    if slow {
        command.env("LD_PRELOAD", &place.shim);
    }
    command.env("LC_ALL", "C");
    command
}

/// A connection of the benchmark's own.
pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(async move {
        // Whoever waits for an answer gets the error.
        let _ = connection.await;
    });
    Ok(client)
}
