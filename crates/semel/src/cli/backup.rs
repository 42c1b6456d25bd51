//! `semel backup`: the whole database in one encrypted file, while the program runs.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use http::{Method, StatusCode};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use semel_kernel::clock::{Chance, Clock, Time};
use semel_kernel::failpoint::check;
use semel_kernel::ids::new_id;

use super::out;
use crate::backup::files::{Scrap, beside, sync_folder_of};
use crate::backup::key::BackupKey;
use crate::backup::sealed::{Header, Sealer};
use crate::backup::{self, postgres};
use crate::local::{self, Program};
use crate::parts;
use crate::settings::{DatabaseUrl, Loaded, Settings};

/// How often a running program is asked whether its copy is ready.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Where a backup goes, and the key that seals it.
#[derive(Args)]
pub struct BackupArgs {
    /// Where the backup goes
    #[arg(value_name = "FILE", required_unless_present = "new_key")]
    file: Option<PathBuf>,
    /// The key that seals it; else SEMEL_BACKUP_KEY_FILE
    #[arg(long, value_name = "PATH")]
    key_file: Option<PathBuf>,
    /// Write over a file that is there
    #[arg(long)]
    force: bool,
    /// Make a new key and nothing else: keep it apart from the backups, and a copy of it in a safe place
    #[arg(long, value_name = "PATH", conflicts_with_all = ["file", "key_file", "force"])]
    new_key: Option<PathBuf>,
}

impl BackupArgs {
    /// Where a new key goes, if one is to be made: that needs no settings.
    pub fn new_key(&self) -> Option<&Path> {
        self.new_key.as_deref()
    }
}

/// Makes a new key.
pub fn new_key(path: &Path) -> anyhow::Result<ExitCode> {
    let key = BackupKey::make(path, &Chance::system())?;
    out::lines(&format!(
        "the key {} is in {}\nKeep a copy of it apart from the backups: without it nobody reads them, with it everybody does.",
        key.id(),
        path.display()
    ))
}

/// The key of these settings, or of the flag.
pub fn key_of(flag: Option<PathBuf>, settings: &Settings) -> anyhow::Result<BackupKey> {
    let path = flag.or_else(|| settings.backup_key_file.clone()).context(
        "no key is given: name it with --key-file or SEMEL_BACKUP_KEY_FILE; `semel backup --new-key PATH` makes one",
    )?;
    if BackupKey::is_open_to_others(&path) {
        out::complain(&format!("others than you may read the key {}: chmod 600 it", path.display()));
    }
    BackupKey::read(&path)
}

/// Makes a backup.
pub async fn backup(loaded: Loaded, args: BackupArgs) -> anyhow::Result<ExitCode> {
    let settings = loaded.settings;
    let file = args.file.context("name the file that the backup goes to")?;
    let key = key_of(args.key_file, &settings)?;
    let is_there = file.try_exists().with_context(|| format!("cannot look at {}", file.display()))?;
    ensure!(args.force || !is_there, "{} is there already; --force writes over it", file.display());
    check("backup.create", "part")?;
    let (scrap, sink) =
        Scrap::create(beside(&file, "part")).with_context(|| format!("cannot write beside {}", file.display()))?;
    check("backup.created", "part")?;
    let sink = match &settings.database {
        DatabaseUrl::Sqlite(path) => embedded(&settings, path, &key, sink).await?,
        DatabaseUrl::Postgres(url) => server(&settings, url, &key, sink).await?,
    };
    check("backup.written", "part")?;
    let told = || format!("cannot put the backup into its place, {}", file.display());
    let bytes = sink.metadata().map(|found| found.len()).unwrap_or(0);
    sink.sync_all().with_context(told)?;
    check("backup.synced", "part")?;
    scrap.rename(&file).with_context(told)?;
    check("backup.renamed", "part")?;
    sync_folder_of(&file).with_context(told)?;
    check("backup.placed", "part")?;
    out::lines(&format!("{} holds the backup, {}; the key {} opens it", file.display(), size(bytes), key.id()))
}

/// A copy of an embedded database, by the running program or by this one.
struct Copied {
    file: File,
    taken_at: Time,
    schema: Vec<String>,
}

async fn embedded(settings: &Settings, path: &Path, key: &BackupKey, sink: File) -> anyhow::Result<File> {
    if let Some(path) = local::missing_database(settings) {
        bail!("there is no database at {}; run this in the folder of semel.toml, or give --config", path.display());
    }
    let path = std::path::absolute(path)?;
    let bar = ProgressBar::new_spinner().with_message("copying the database");
    bar.enable_steady_tick(Duration::from_millis(100));
    let running = local::socket_path(settings);
    let copied = match running {
        Some(socket) if local::is_running(&socket).await => by_the_program(socket, &path).await,
        _ => by_ourselves(settings, &path).await,
    };
    bar.finish_and_clear();
    let Copied { mut file, taken_at, schema } = copied?;
    let header = Header::new("sqlite", env!("CARGO_PKG_VERSION"), taken_at, schema, key, &Chance::system());
    let mut sealer = Sealer::new(BufWriter::new(sink), key, &header)?;
    check("backup.sealing", "part")?;
    let bar = bytes_bar(file.metadata()?.len())?;
    let mut part = vec![0; 256 * 1024];
    loop {
        let count = file.read(&mut part).context("the copy of the database cannot be read")?;
        if count == 0 {
            break;
        }
        sealer.write_all(&part[..count]).context("the backup cannot be written")?;
        bar.inc(u64::try_from(count).unwrap_or(0));
    }
    bar.finish_and_clear();
    whole(sealer)
}

/// The name of a copy is gone as soon as we hold it open: should this process die, nothing readable is left behind.
fn take(scrap: Scrap, taken_at: Time, schema: Vec<String>) -> anyhow::Result<Copied> {
    check("backup.open", "copy")?;
    let file = File::open(scrap.path()).with_context(|| format!("cannot read {}", scrap.path().display()))?;
    check("backup.opened", "copy")?;
    drop(scrap);
    check("backup.unnamed", "copy")?;
    Ok(Copied { file, taken_at, schema })
}

async fn by_the_program(socket: PathBuf, database: &Path) -> anyhow::Result<Copied> {
    let scrap = Scrap::adopt(beside(database, "copy"));
    let program = Program::Running(socket);
    let key = new_id("cli", Clock::system().now(), &Chance::system());
    loop {
        let wanted = json!({ "path": scrap.path() });
        let answer = program.ask(Method::POST, "/api/v1/backup", Some(wanted), &key).await?;
        // A large database takes longer than one answer may: the work goes on, and the same key finds it.
        let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let goes_on = told["detail"].as_str().is_some_and(|detail| detail.contains("the work goes on"));
        let is_late = answer.status == StatusCode::SERVICE_UNAVAILABLE && goes_on;
        if is_late || told["type"] == "/problems/idempotency-key-busy" {
            tokio::time::sleep(ASK_EVERY).await;
            continue;
        }
        let told = answer.json()?;
        let taken_at = told["taken_at"].as_i64().map(Time::from_millis).context("the program told no moment")?;
        let schema = serde_json::from_value(told["schema"].clone()).context("the program told no schema")?;
        return take(scrap, taken_at, schema);
    }
}

async fn by_ourselves(settings: &Settings, database: &Path) -> anyhow::Result<Copied> {
    let store = parts::open_store(settings, Clock::system())?;
    let path = beside(database, "copy");
    let taken_at = store.now();
    let schema = backup::schema_of(&store).await?;
    check("backup.copy", "database")?;
    let (scrap, _) = Scrap::create(path.clone()).with_context(|| format!("cannot write {}", path.display()))?;
    store.backup_to(path.clone()).await?;
    check("backup.copied", "database")?;
    take(scrap, taken_at, schema)
}

async fn server(settings: &Settings, url: &str, key: &BackupKey, sink: File) -> anyhow::Result<File> {
    let one = Settings { pool_max: 1, ..settings.clone() };
    let store = parts::open_store(&one, Clock::system())?;
    let schema = backup::schema_of(&store).await?;
    let header = Header::new("postgres", env!("CARGO_PKG_VERSION"), store.now(), schema, key, &Chance::system());
    let mut sealer = Sealer::new(BufWriter::new(sink), key, &header)?;
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{spinner} {bytes} dumped in {elapsed}")?);
    postgres::dump(url, &mut sealer, |bytes| bar.set_position(bytes))?;
    bar.finish_and_clear();
    whole(sealer)
}

fn whole(sealer: Sealer<BufWriter<File>>) -> anyhow::Result<File> {
    let sink = sealer.finish().context("the backup cannot be written")?;
    sink.into_inner().map_err(|error| error.into_error()).context("the backup cannot be written")
}

/// A bar for so many bytes.
pub fn bytes_bar(bytes: u64) -> anyhow::Result<ProgressBar> {
    let bar = ProgressBar::new(bytes);
    bar.set_style(ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes}, {eta} left")?);
    Ok(bar)
}

fn size(bytes: u64) -> String {
    match bytes {
        0..=9_999 => format!("{bytes} bytes"),
        10_000..=9_999_999 => format!("{} kB", bytes / 1000),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}

/// Makes the folder of a file that is to come, private like the database in it.
pub fn make_folder_of(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let folder = crate::backup::files::folder_of(path);
    if folder.is_dir() {
        return Ok(());
    }
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.and_then(|()| sync_folder_of(folder)).with_context(|| format!("cannot make the folder {}", folder.display()))
}
