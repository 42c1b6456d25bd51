//! What a PostgreSQL server says about itself: whether a commit that it acknowledged outlives a power cut, and whether it
//! has room for us. `doctor` tells all of it, `serve` complains about the dangers at start.

use semel_kernel::store::{Engine, Row, Store, StoreError};

/// The oldest major version that is tested.
const OLDEST: i64 = 13;

/// The settings are those of our own sessions, which a database or a role may have of its own. Sessions of copies are
/// known by their name; whatever else holds a connection is in our way. Every role may read all of this.
const ASK: &str = "
    select current_setting('server_version_num')::bigint,
        current_setting('fsync'),
        current_setting('full_page_writes'),
        current_setting('synchronous_commit'),
        current_setting('synchronous_standby_names'),
        current_database()::text,
        current_setting('max_connections')::bigint
            - current_setting('superuser_reserved_connections')::bigint
            - coalesce(nullif(current_setting('reserved_connections', true), ''), '0')::bigint,
        (select count(*) from pg_stat_activity a
            where a.datid is not null and a.application_name not like 'semel%' and a.pid <> pg_backend_pid())";

/// A PostgreSQL server as a session of ours sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `server_version_num`, for example 170006.
    pub version: i64,
    /// `fsync`.
    pub fsync: String,
    /// `full_page_writes`.
    pub full_page_writes: String,
    /// `synchronous_commit`.
    pub synchronous_commit: String,
    /// `synchronous_standby_names`: empty where no commit waits for a standby.
    pub standbys: String,
    /// The database's name.
    pub database: String,
    /// Connections that the server gives to ordinary roles.
    pub connections: i64,
    /// How many of them are held by others than Semel now.
    pub held_by_others: i64,
}

impl Server {
    /// Asks the server; `None` when the database is embedded.
    ///
    /// # Errors
    /// What the store says when the server cannot be asked.
    pub async fn ask(store: &Store) -> Result<Option<Server>, StoreError> {
        if store.engine() == Engine::Sqlite {
            return Ok(None);
        }
        let rows = store.rows("postgres.server", ASK, &[]).await?;
        rows.first().map(Self::read).transpose()
    }

    fn read(row: &Row) -> Result<Server, StoreError> {
        Ok(Server {
            version: row.get(0)?,
            fsync: row.get(1)?,
            full_page_writes: row.get(2)?,
            synchronous_commit: row.get(3)?,
            standbys: row.get(4)?,
            database: row.get(5)?,
            connections: row.get(6)?,
            held_by_others: row.get(7)?,
        })
    }

    /// Why acknowledged money could be lost, one sentence for each reason with what to do.
    pub fn dangers(&self) -> Vec<String> {
        let mut dangers = Vec::new();
        if self.fsync == "off" {
            dangers.push(
                "PostgreSQL runs with fsync = off: a power cut can destroy the whole database. Set fsync = on in \
                 postgresql.conf and reload the server"
                    .to_owned(),
            );
        }
        if self.full_page_writes == "off" {
            dangers.push(
                "PostgreSQL runs with full_page_writes = off: a power cut can leave half-written pages that nothing \
                 mends. Set full_page_writes = on in postgresql.conf and reload the server"
                    .to_owned(),
            );
        }
        let set = format!("ALTER DATABASE \"{}\" SET synchronous_commit = on", self.database);
        match self.synchronous_commit.as_str() {
            "off" => dangers.push(format!(
                "PostgreSQL runs with synchronous_commit = off for our sessions: it acknowledges payments before they are \
                 on disk, and a crash loses them. Run {set} (and look for ALTER ROLE … SET), then start semel again"
            )),
            "local" if !self.standbys.is_empty() => dangers.push(format!(
                "PostgreSQL runs with synchronous_commit = local for our sessions although it has synchronous standbys: \
                 when one of them takes over, acknowledged payments may be missing. Run {set} (and look for ALTER ROLE … \
                 SET), then start semel again"
            )),
            _ => {}
        }
        dangers
    }

    /// What is worth knowing and loses nothing, for a program with `pool_max` connections.
    pub fn remarks(&self, pool_max: u16) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.version / 10_000 < OLDEST {
            remarks.push(format!(
                "PostgreSQL {} is older than {OLDEST}, the oldest that Semel is tested with: upgrade it",
                self.version / 10_000
            ));
        }
        let room = (self.connections - self.held_by_others).max(0);
        if room < i64::from(pool_max) {
            remarks.push(format!(
                "PostgreSQL has room for {room} connections of Semel now ({} in all, {} held by others), and pool_max is \
                 {pool_max}: lower pool_max, or raise max_connections",
                self.connections, self.held_by_others
            ));
        }
        remarks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Server {
        Server {
            version: 170_006,
            fsync: "on".into(),
            full_page_writes: "on".into(),
            synchronous_commit: "on".into(),
            standbys: String::new(),
            database: "shop".into(),
            connections: 97,
            held_by_others: 12,
        }
    }

    #[test]
    fn a_sound_server_is_praised_by_silence() {
        assert!(sound().dangers().is_empty() && sound().remarks(85).is_empty());
        // Without standbys these keep a commit as well as `on` does; with them, `remote_apply` keeps it better.
        for weaker in ["local", "remote_write", "remote_apply"] {
            assert!(Server { synchronous_commit: weaker.into(), ..sound() }.dangers().is_empty(), "{weaker}");
        }
    }

    #[test]
    fn each_way_to_lose_what_was_acknowledged_is_told_with_what_to_do() {
        let ill = [
            (Server { fsync: "off".into(), ..sound() }, "Set fsync = on"),
            (Server { full_page_writes: "off".into(), ..sound() }, "Set full_page_writes = on"),
            (
                Server { synchronous_commit: "off".into(), ..sound() },
                "Run ALTER DATABASE \"shop\" SET synchronous_commit = on",
            ),
            (
                Server { synchronous_commit: "local".into(), standbys: "first 1 (other)".into(), ..sound() },
                "Run ALTER DATABASE \"shop\" SET synchronous_commit = on",
            ),
        ];
        for (server, cure) in ill {
            let dangers = server.dangers();
            assert!(dangers.len() == 1 && dangers[0].contains(cure), "{dangers:?}");
        }
    }

    #[test]
    fn an_old_server_and_a_full_one_are_remarked() {
        let old = Server { version: 120_022, ..sound() }.remarks(8);
        assert_eq!(old, ["PostgreSQL 12 is older than 13, the oldest that Semel is tested with: upgrade it"]);
        let full = Server { held_by_others: 90, ..sound() }.remarks(8);
        assert!(
            full.len() == 1 && full[0].starts_with("PostgreSQL has room for 7 connections of Semel now"),
            "{full:?}"
        );
    }
}
