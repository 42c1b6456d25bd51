//! `semel doctor`: looks at everything that a sale needs and explains what is wrong.

use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;
use std::time::Duration;

use semel_kernel::clock::{Chance, Clock, Time};
use semel_kernel::outbound::{Call, Manner, Outbound, OutboundOptions};
use semel_kernel::store::Store;
use semel_kernel::store::migrate;
use semel_telegram::{Bot, Outcome};

use super::out;
use crate::settings::{DatabaseUrl, Loaded, Settings};
use crate::{ROOMS, app, local, parts};

struct Report {
    bad: usize,
}

impl Report {
    fn good(&self, text: &str) -> anyhow::Result<()> {
        out::say(&format!("ok    {text}"))
    }

    fn bad(&mut self, text: &str) -> anyhow::Result<()> {
        self.bad += 1;
        out::say(&format!("BAD   {text}"))
    }

    fn note(&self, text: &str) -> anyhow::Result<()> {
        out::say(&format!("note  {text}"))
    }
}

/// Checks and explains; ends with 1 when something is bad.
pub async fn doctor(loaded: Loaded) -> anyhow::Result<ExitCode> {
    let Loaded { settings, notices, .. } = loaded;
    let mut report = Report { bad: 0 };
    report.good("the settings can be read")?;
    for notice in notices {
        report.note(&notice)?;
    }
    files(&mut report, &settings)?;
    database(&mut report, &settings).await?;
    if let Some(sentence) = app::proxy_warning(&settings) {
        report.bad(&sentence)?;
    }
    providers(&mut report, &settings).await?;
    telegram(&mut report, &settings).await?;
    if report.bad == 0 {
        return out::lines("everything that was checked is in order");
    }
    out::complain(&format!("{} things are wrong; each line marked BAD says what to do", report.bad));
    Ok(ExitCode::FAILURE)
}

fn files(report: &mut Report, settings: &Settings) -> anyhow::Result<()> {
    let mut looked = vec![std::path::PathBuf::from("semel.toml")];
    if let DatabaseUrl::Sqlite(path) = &settings.database {
        looked.push(path.clone());
    }
    for path in looked {
        let Ok(found) = std::fs::metadata(&path) else { continue };
        let mode = found.permissions().mode() & 0o777;
        if mode & 0o077 == 0 {
            report.good(&format!("{} is readable for its owner only", path.display()))?;
        } else {
            report.bad(&format!(
                "{} can be read by others (mode {mode:o}): run chmod 600 {}",
                path.display(),
                path.display()
            ))?;
        }
    }
    Ok(())
}

async fn database(report: &mut Report, settings: &Settings) -> anyhow::Result<()> {
    if let Some(socket) = local::socket_path(settings)
        && local::is_running(&socket).await
    {
        return report.good("semel runs on this database and answers on its socket");
    }
    let store = match parts::open_store(settings, Clock::system()) {
        Ok(store) => store,
        Err(error) => return report.bad(&format!("the database cannot be opened: {error}")),
    };
    match migrate::pending(&store, ROOMS).await {
        Ok(steps) if steps.is_empty() => report.good("the database answers and is up to date")?,
        Ok(steps) => report
            .note(&format!("the database answers; {} steps are missing and `semel serve` applies them", steps.len()))?,
        Err(error) => return report.bad(&error.to_string()),
    }
    clock(report, &store).await
}

/// Deadlines and claims go by the database's clock; a far-off machine clock confuses logs and signatures.
async fn clock(report: &mut Report, store: &Store) -> anyhow::Result<()> {
    let (here, there) = (Clock::system().now(), store.now());
    let apart = if here > there { here.since(there) } else { there.since(here) };
    if here < Time::from_millis(1_767_225_600_000) {
        return report.bad("the machine's clock is before 2026: set it (timedatectl set-ntp true)");
    }
    if apart > Duration::from_secs(5) {
        return report.bad(&format!(
            "the clocks of machine and database are {} s apart: keep both in step with NTP",
            apart.as_secs()
        ));
    }
    report.good("the clock is in step with the database")
}

fn outbound(proxy: Option<String>) -> anyhow::Result<Outbound> {
    Ok(Outbound::new(Clock::system(), Chance::system(), OutboundOptions { proxy, ..OutboundOptions::default() })?)
}

async fn providers(report: &mut Report, settings: &Settings) -> anyhow::Result<()> {
    let outbound = outbound(None)?;
    let rails = parts::rails(settings)?;
    if rails.is_empty() {
        return report.note("no payment provider is configured: customers can pay from their balance only");
    }
    for (provider, rail) in rails {
        let name = provider.as_str();
        match outbound.call(Call::new("doctor", name, Manner::Read), rail.probe()).await {
            Err(error) => report.bad(&format!("{name} cannot be reached: {error}"))?,
            Ok(answer) => match rail.probed(&answer) {
                Ok(text) => report.good(&format!("{name} answers: {text}"))?,
                Err(error) => report.bad(&format!("{name} refuses: {error}; check its keys"))?,
            },
        }
    }
    Ok(())
}

async fn telegram(report: &mut Report, settings: &Settings) -> anyhow::Result<()> {
    let Some(token) = &settings.telegram.bot_token else {
        return report
            .note("no bot token is set: goods are delivered over the API only, and alerts go to the log only");
    };
    let bot = match Bot::new(settings.telegram.api_url.as_str(), token.expose()) {
        Ok(bot) => bot,
        Err(error) => return report.bad(&format!("telegram.bot_token: {error}")),
    };
    let outbound = outbound(settings.telegram.proxy.as_ref().map(|proxy| proxy.expose().to_owned()))?;
    match outbound.call(Call::new("doctor", "telegram", Manner::Read), bot.get_me()).await {
        Err(error) => report.bad(&format!("Telegram cannot be reached: {error}"))?,
        Ok(answer) => match bot.read::<semel_telegram::Me>(&answer) {
            Outcome::Ok(me) => {
                report.good(&format!("Telegram answers: the bot is @{}", me.username.unwrap_or_default()))?
            }
            _ => report.bad("Telegram refuses the bot token: take a fresh one from @BotFather")?,
        },
    }
    if settings.telegram.admin_ids.is_empty() {
        report.note("telegram.admin_ids is empty: alerts go to the log only")?;
    }
    Ok(())
}
