//! `semel restore`: a backup becomes a database that begins in safe mode.
//!
//! The whole backup is opened and looked over in a file of its own before anything is put into its place, so a wrong key, a
//! file that was cut off, or a kill on the way leaves nothing behind that a program could take for a shop.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::Args;

use semel_kernel::clock::Clock;
use semel_kernel::failpoint::check;
use semel_kernel::store::{self, Store, StoreError, migrate};
use semel_shop::safety::{self, Restored};

use super::backup::{bytes_bar, key_of, make_folder_of};
use super::out;
use crate::backup::files::{Scrap, beside, sync_folder_of, with_ending};
use crate::backup::sealed::{Header, Opener, Unreadable};
use crate::backup::{postgres, unknown_step};
use crate::settings::{DatabaseUrl, Loaded, Settings};
use crate::{ROOMS, local, parts};

/// Which backup, and where to.
#[derive(Args)]
pub struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The key that sealed it; else SEMEL_BACKUP_KEY_FILE
    #[arg(long, value_name = "PATH")]
    key_file: Option<PathBuf>,
    /// Where to, instead of the database of the settings: an address of a database, or a folder with a semel.toml
    #[arg(long, value_name = "ADDRESS|FOLDER")]
    to: Option<String>,
}

impl RestoreArgs {
    /// The settings file in the folder that was named, if one was.
    pub fn config(&self) -> Option<PathBuf> {
        let to = self.to.as_ref()?;
        (!to.contains("://")).then(|| Path::new(to).join("semel.toml"))
    }

    /// The address that was named, as a flag.
    pub fn flags(&self) -> Vec<(String, String)> {
        let address = self.to.iter().filter(|to| to.contains("://"));
        address.map(|to| ("database_url".to_owned(), to.clone())).collect()
    }
}

/// Restores a backup.
pub async fn restore(loaded: Loaded, args: RestoreArgs) -> anyhow::Result<ExitCode> {
    let settings = loaded.settings;
    let key = key_of(args.key_file, &settings)?;
    let file = File::open(&args.file).with_context(|| format!("cannot open {}", args.file.display()))?;
    let bytes = file.metadata()?.len();
    let backup = Backup { opener: Opener::new(file, &key)?, bytes };
    if let Some(step) = unknown_step(&backup.header().schema) {
        let version = &backup.header().version;
        bail!("this backup is of a newer program, semel {version} (step {step} is unknown): install that one first");
    }
    let restored = Restored { backup_at: backup.header().created_at, restored_at: Clock::system().now() };
    let engine = backup.header().engine.clone();
    match (engine.as_str(), &settings.database) {
        ("sqlite", DatabaseUrl::Sqlite(path)) => embedded(&settings, path, backup, &restored).await?,
        ("postgres", DatabaseUrl::Postgres(url)) => server(&settings, url, &args.file, backup, &restored).await?,
        ("sqlite", _) => bail!("this backup is of SQLite: restore it with --to sqlite://PATH"),
        ("postgres", _) => {
            bail!("this backup is of PostgreSQL: restore it with --to postgres://user:password@host/name")
        }
        (other, _) => bail!("this backup is of {other}, which this program does not know"),
    }
    out::lines(&format!(
        "restored the backup of {}\n\
         SAFE MODE is on: `semel serve` takes webhooks and books payments, and sells, hands over and pays out nothing.\n\
         `semel safe status` says what is left to do until `semel safe leave`.",
        restored.backup_at
    ))
}

/// A backup whose header was read.
struct Backup {
    opener: Opener<File>,
    bytes: u64,
}

impl Backup {
    fn header(&self) -> &Header {
        self.opener.header()
    }

    /// Writes all of the content to `file` and syncs it.
    fn open_into(mut self, file: File) -> anyhow::Result<()> {
        let bar = bytes_bar(self.bytes)?;
        let mut out = BufWriter::new(file);
        let opened = self.opener.write_to(&mut out, |bytes| bar.set_position(bytes));
        bar.finish_and_clear();
        match opened {
            Ok(_) => {}
            // Reading and writing meet here; the system's words say which it was.
            Err(error @ Unreadable::Io(_)) => return Err(error).context("the backup cannot be brought out"),
            Err(error) => return Err(error.into()),
        }
        let file = out.into_inner().map_err(|error| error.into_error())?;
        file.sync_all().context("the restored file cannot be synced")
    }
}

async fn embedded(settings: &Settings, path: &Path, backup: Backup, restored: &Restored) -> anyhow::Result<()> {
    let path = std::path::absolute(path)?;
    if let Some(socket) = local::socket_path(settings)
        && local::is_running(&socket).await
    {
        bail!("a semel runs on {}: stop it first, and move that database away", path.display());
    }
    make_folder_of(&path)?;
    let lock = store::hold_file(&path)?;
    for ending in ["", "-wal", "-shm", "-journal"] {
        let there = with_ending(&path, ending);
        let is_there = there.try_exists().with_context(|| format!("cannot look at {}", there.display()))?;
        ensure!(!is_there, "{} is there: a backup is restored beside it or after it is moved away", there.display());
    }
    check("restore.create", "database")?;
    let (scrap, file) =
        Scrap::create(beside(&path, "restore")).with_context(|| format!("cannot write beside {}", path.display()))?;
    check("restore.created", "database")?;
    backup.open_into(file)?;
    check("restore.written", "database")?;
    let changed: Result<(), StoreError> = store::change_copy(scrap.path(), &Clock::system(), |tx| {
        migrate::bring_up(tx, ROOMS)?;
        safety::flows::note_restored(tx, restored)?;
        safety::flows::take_in_hand(tx)
    });
    changed.context("the backup was opened, and the database in it cannot be used")?;
    check("restore.changed", "database")?;
    let told = || format!("cannot put the database into its place, {}", path.display());
    scrap.rename(&path).with_context(told)?;
    check("restore.renamed", "database")?;
    sync_folder_of(&path).with_context(told)?;
    check("restore.placed", "database")?;
    drop(lock);
    Ok(())
}

/// What stands in the way of a restore: tables of ours, and sessions of ours beside this one.
const IN_THE_WAY: &str = "
    select (select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'semel'),
        (select count(*) from pg_stat_activity a where a.datname = current_database()
            and a.application_name like 'semel%' and a.pid <> pg_backend_pid())";

async fn server(
    settings: &Settings,
    url: &str,
    file: &Path,
    backup: Backup,
    restored: &Restored,
) -> anyhow::Result<()> {
    let one = Settings { pool_max: 1, ..settings.clone() };
    let store = parts::open_store(&one, Clock::system())?;
    let rows = store.rows("restore.target", IN_THE_WAY, &[]).await?;
    let found = rows.first().context("the server does not say what it holds")?;
    let (tables, sessions): (i64, i64) = (found.get(0)?, found.get(1)?);
    ensure!(tables == 0, "this database holds a shop already: restore into an empty database");
    ensure!(sessions == 0, "a semel is connected to this database: stop it first");
    let (scrap, dump) =
        Scrap::create(beside(file, "restore")).with_context(|| format!("cannot write beside {}", file.display()))?;
    backup.open_into(dump)?;
    postgres::restore(url, scrap.path(), &safety::flows::note_restored_script(restored)?)?;
    drop(scrap);
    bring_up(&store).await.context("the database was restored and is in safe mode, but it is not up to date")
}

/// What the first start would do: the schema up to date, stock held back.
async fn bring_up(store: &Store) -> Result<(), StoreError> {
    migrate::migrate(store, ROOMS).await?;
    safety::flows::settle(store).await
}
