//! `semel serve` and `semel migrate`.

use std::process::ExitCode;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use semel_kernel::clock::{Chance, Clock};
use semel_kernel::store::migrate;

use super::out;
use crate::app::App;
use crate::settings::{Loaded, LogFormat, Settings};
use crate::{ROOMS, parts};

/// Starts the log as the settings say.
pub fn start_log(settings: &Settings) {
    let level = settings.log.level;
    let filter = EnvFilter::new(format!(
        "warn,semel={level},semel_kernel={level},semel_shop={level},semel_payments={level},semel_sandbox={level}"
    ));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
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

/// Runs the program until it is asked to stop.
pub async fn serve(loaded: Loaded) -> anyhow::Result<ExitCode> {
    let Loaded { settings, notices, .. } = loaded;
    start_log(&settings);
    for notice in notices {
        tracing::warn!("{notice}");
    }
    let stop = stop_on_signal()?;
    let store = parts::open_store(&settings, Clock::system())?;
    let listen = settings.listen;
    let app = App::build(settings, store, Chance::system())?;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    tracing::info!(address = %listener.local_addr()?, version = env!("CARGO_PKG_VERSION"), "semel listens");
    app.run(listener, stop).await?;
    Ok(ExitCode::SUCCESS)
}

/// Brings the schema up to date, or says what is missing.
pub async fn migrate(loaded: Loaded, dry_run: bool) -> anyhow::Result<ExitCode> {
    let store = parts::open_store(&loaded.settings, Clock::system())?;
    let steps = if dry_run { migrate::pending(&store, ROOMS).await? } else { migrate::migrate(&store, ROOMS).await? };
    let word = if dry_run { "missing" } else { "applied" };
    if steps.is_empty() {
        return out::lines("the database is up to date");
    }
    out::lines(&steps.iter().map(|step| format!("{word}: {step}")).collect::<Vec<_>>().join("\n"))
}
