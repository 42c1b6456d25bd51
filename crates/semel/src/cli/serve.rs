//! `semel serve` and `semel migrate`.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::anyhow;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use semel_kernel::clock::{Chance, Clock};
use semel_kernel::store::{Store, StoreError, migrate};

use super::out;
use crate::app::App;
use crate::settings::{DatabaseUrl, Loaded, LogFormat, Settings};
use crate::{ROOMS, local, parts};

/// Starts the log as the settings say.
pub fn start_log(settings: &Settings) {
    let level = settings.log.level;
    let filter = EnvFilter::new(format!(
        "warn,semel={level},semel_kernel={level},semel_shop={level},semel_payments={level},semel_wireguard={level},semel_sandbox={level}"
    ));
    // A collector or a file has no use for colours, and neither has an eye that asked for none (no-color.org).
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|word| word.is_empty());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    let started = match settings.log.format {
        LogFormat::Text => log.with_target(false).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    if let Err(error) = started {
        out::complain(&format!("the log was started before: {error}"));
    }
}

/// A token that is cancelled when the program is asked to stop.
pub fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let asked = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        asked.cancel();
    });
    Ok(stop)
}

/// Opens the database for a command that nothing else can do in its place: a running program must be stopped first.
pub fn open_alone(settings: &Settings) -> anyhow::Result<Store> {
    parts::open_store(settings, Clock::system()).map_err(|error| {
        let in_use = matches!(error.downcast_ref::<StoreError>(), Some(StoreError::InUse(_)));
        match &settings.database {
            DatabaseUrl::Sqlite(path) if in_use => {
                anyhow!("the database {} is in use by a running semel; stop it first", path.display())
            }
            _ => error,
        }
    })
}

/// Runs the program until it is asked to stop.
pub async fn serve(loaded: Loaded) -> anyhow::Result<ExitCode> {
    let Loaded { settings, notices, .. } = loaded;
    start_log(&settings);
    for notice in notices {
        tracing::warn!("{notice}");
    }
    let stop = stop_on_signal()?;
    let missing = local::missing_database(&settings);
    let store = open_alone(&settings)?;
    if let Some(path) = missing {
        let file = path.display();
        tracing::warn!(
            "there was no database at {file}: made a new, empty one. Right at a first start, wrong at any other"
        );
    }
    let listen = settings.listen;
    let app = App::build(settings, store, Chance::system()).await?;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| anyhow!("cannot listen on {listen}: {error}; choose another with --listen or `listen`"))?;
    tracing::info!(address = %listener.local_addr()?, version = env!("CARGO_PKG_VERSION"), "semel listens");
    app.run(listener, stop).await?;
    Ok(ExitCode::SUCCESS)
}

/// Brings the schema up to date, or says what is missing.
pub async fn migrate(loaded: Loaded, dry_run: bool) -> anyhow::Result<ExitCode> {
    // Without a database all steps are missing. Only to look must not make one.
    if dry_run && local::missing_database(&loaded.settings).is_some() {
        let steps = ROOMS.iter().flat_map(|room| room.steps.iter().map(move |step| (room.name, step)));
        let lines = steps.map(|(room, step)| format!("missing: {room}/{:04} {}", step.number, step.name));
        return out::lines(&lines.collect::<Vec<_>>().join("\n"));
    }
    let steps = match (&loaded.settings.database, dry_run) {
        // The program may run on the file meanwhile: a look disturbs nobody.
        (DatabaseUrl::Sqlite(path), true) => migrate::pending_in_file(path, &Clock::system(), ROOMS)?,
        (DatabaseUrl::Postgres(_), true) => {
            let store = open_alone(&loaded.settings)?;
            migrate::pending(&store, ROOMS).await?
        }
        (_, false) => {
            let store = open_alone(&loaded.settings)?;
            migrate::migrate(&store, ROOMS).await?
        }
    };
    let word = if dry_run { "missing" } else { "applied" };
    if steps.is_empty() {
        return out::lines("the database is up to date");
    }
    out::lines(&steps.iter().map(|step| format!("{word}: {step}")).collect::<Vec<_>>().join("\n"))
}
