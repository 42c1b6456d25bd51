//! `semel doctor`: looks at everything that a sale needs and explains what is wrong.

mod vpn;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use http::Method;

use semel_kernel::clock::{Chance, Clock, Time};
use semel_kernel::ids::new_id;
use semel_kernel::outbound::{Call, Manner, Outbound, OutboundOptions};
use semel_kernel::store::migrate;
use semel_kernel::store::{Store, StoreError};
use semel_payments::Provider;
use semel_shop::safety;
use semel_telegram::{Bot, Outcome};

use super::out;
use crate::app::postgres::Server;
use crate::local::Program;
use crate::settings::{DatabaseUrl, Loaded, Settings, Source};
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
    let nothing_given = loaded.sources.iter().all(|effective| effective.source == Source::Default);
    let Loaded { settings, notices, file, .. } = loaded;
    let mut report = Report { bad: 0 };
    report.good("the settings can be read")?;
    for notice in notices {
        report.note(&notice)?;
    }
    files(&mut report, &settings, file)?;
    match local::missing_database(&settings) {
        Some(path) => no_database(&mut report, &settings, &path, nothing_given)?,
        None => database(&mut report, &settings).await?,
    }
    if let Some(sentence) = app::proxy_warning(&settings) {
        report.bad(&sentence)?;
    }
    vpn::vpn(&mut report, &settings).await?;
    providers(&mut report, &settings).await?;
    if let Some(sentence) = no_way_back(&settings) {
        report.note(sentence)?;
    }
    telegram(&mut report, &settings).await?;
    if report.bad == 0 {
        return out::lines("everything that was checked is in order");
    }
    let what = if report.bad == 1 { "1 thing is wrong".to_owned() } else { format!("{} things are wrong", report.bad) };
    out::complain(&format!("{what}; each line marked BAD says what to do"));
    Ok(ExitCode::FAILURE)
}

/// Customers who pay on a page of the provider are sent somewhere afterwards.
fn no_way_back(settings: &Settings) -> Option<&'static str> {
    let has_pages = settings.yookassa.is_some() || settings.heleket.is_some() || settings.crystalpay.is_some();
    (has_pages && settings.shop.return_url.is_none()).then_some(
        "shop.return_url is not set, so customers who have paid land at public_url and not in your bot: set it under [shop], \
         as in return_url = \"https://t.me/your_bot\"",
    )
}

fn files(report: &mut Report, settings: &Settings, file: Option<PathBuf>) -> anyhow::Result<()> {
    let mut looked: Vec<PathBuf> = file.into_iter().collect();
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

/// To look must not make one. Before the first start there is none; in a wrong folder there is none either.
fn no_database(report: &mut Report, settings: &Settings, path: &Path, nothing_given: bool) -> anyhow::Result<()> {
    let path = path.display();
    if nothing_given {
        return report.bad(&format!(
            "there is no database at {path}, and no setting is given: run this in the folder of semel.toml, or give --config"
        ));
    }
    report.note(&format!("there is no database at {path} yet: the first `semel serve` makes it"))?;
    tokens(report, settings, false)
}

async fn database(report: &mut Report, settings: &Settings) -> anyhow::Result<()> {
    if let Some(socket) = local::socket_path(settings)
        && local::is_running(&socket).await
    {
        report.good("semel runs on this database and answers on its socket")?;
        let backup_at = running_is_in_safe_mode(socket.clone()).await;
        safe_mode(report, backup_at)?;
        return tokens(report, settings, running_has_a_token(socket).await);
    }
    let store = match parts::open_store(settings, Clock::system()) {
        Ok(store) => store,
        Err(error) => {
            return report.bad(&format!(
                "the database cannot be opened: {error}. If it is a matter of rights, run this as the user that `semel serve` \
                 runs as"
            ));
        }
    };
    match migrate::pending(&store, ROOMS).await {
        Ok(steps) if steps.is_empty() => {
            report.good("the database answers and is up to date")?;
            let found = store.rows("doctor.tokens", A_TOKEN, &[]).await;
            tokens(report, settings, found.map_or(true, |rows| !rows.is_empty()))?;
            match safety::flows::of_database(&store).await {
                Ok(mode) => safe_mode(report, mode.map(|mode| mode.backup_at.to_string()))?,
                Err(error) => report.bad(&format!("it cannot be told whether safe mode is on: {error}"))?,
            }
        }
        Ok(steps) => {
            let missing = steps.len();
            report
                .note(&format!("the database answers; {missing} steps are missing and `semel serve` applies them"))?;
        }
        Err(error) => return report.bad(&format!("{error}{}", what_to_do(&error, settings))),
    }
    clock(report, &store).await?;
    server(report, &store, settings).await?;
    listening(report, &store, settings).await
}

/// What helps where the database could not be asked; its other errors say so themselves.
fn what_to_do(error: &StoreError, settings: &Settings) -> String {
    match &settings.database {
        DatabaseUrl::Postgres(address) if error.is_passing() => {
            format!(
                ": is PostgreSQL at {} running, and does it let us in? Look at database_url",
                host_and_port(address)
            )
        }
        _ => String::new(),
    }
}

/// Where PostgreSQL is, without the password in its address.
fn host_and_port(address: &str) -> String {
    match url::Url::parse(address) {
        Ok(url) if url.host_str().is_some_and(|host| !host.is_empty()) => {
            format!("{}:{}", url.host_str().unwrap_or_default(), url.port().unwrap_or(5432))
        }
        _ => "its address".to_owned(),
    }
}

const A_TOKEN: &str = "select id from tokens where revoked_at is null limit 1";

/// Whether the running program knows a token that is worth something. A doubt counts as yes: the remark is a help, and a
/// wrong one is none.
async fn running_has_a_token(socket: PathBuf) -> bool {
    let answer = Program::Running(socket).ask(Method::GET, "/api/v1/tokens", None, "").await;
    match answer.and_then(|answer| answer.json()) {
        Ok(known) => known["items"].as_array().is_none_or(|all| all.iter().any(|token| token["revoked_at"].is_null())),
        Err(_) => true,
    }
}

/// The backup that the running program's database came out of, as RFC 3339, while safe mode is on. A doubt counts as off: a
/// program that does not answer is told of elsewhere.
async fn running_is_in_safe_mode(socket: PathBuf) -> Option<String> {
    let answer = Program::Running(socket).ask(Method::GET, "/api/v1/safe", None, "").await;
    let view = answer.and_then(|answer| answer.json()).ok()?;
    (view["safe_mode"] == true).then(|| view["backup_at"].as_str().unwrap_or("an unknown moment").to_owned())
}

/// A shop in safe mode sells nothing, and whoever forgot it would look for the fault elsewhere.
fn safe_mode(report: &mut Report, backup_at: Option<String>) -> anyhow::Result<()> {
    match backup_at {
        None => Ok(()),
        Some(at) => report.bad(&format!(
            "safe mode is on: the database was restored from a backup of {at}, so nothing is sold, handed over or paid out. \
             `semel safe status` says what is left to do until `semel safe leave`"
        )),
    }
}

/// Without any token the API is closed to everybody, which looks like a fault to who calls it.
fn tokens(report: &Report, settings: &Settings, made: bool) -> anyhow::Result<()> {
    if made || settings.api_token.is_some() {
        return Ok(());
    }
    report.note(
        "there is no token for the API: it answers every call with 401. Set api_token, or make one with `semel token create NAME`",
    )
}

/// Whether PostgreSQL keeps what it acknowledges, and has room for us.
async fn server(report: &mut Report, store: &Store, settings: &Settings) -> anyhow::Result<()> {
    let server = match Server::ask(store).await {
        Ok(Some(server)) => server,
        Ok(None) => return Ok(()),
        Err(error) => return report.bad(&format!("PostgreSQL cannot be asked about its settings: {error}")),
    };
    let dangers = server.dangers();
    if dangers.is_empty() {
        report.good("PostgreSQL keeps what it acknowledges through a power cut")?;
    }
    dangers.iter().try_for_each(|danger| report.bad(danger))?;
    server.remarks(settings.pool_max).iter().try_for_each(|remark| report.note(remark))
}

/// Whether this copy would hear others where the owner said that it shall.
async fn listening(report: &mut Report, store: &Store, settings: &Settings) -> anyhow::Result<()> {
    let Some(url) = &settings.database_listen_url else { return Ok(()) };
    let tag = new_id("doctor", Clock::system().now(), &Chance::system());
    match store.can_hear_copies(url.expose(), &tag).await {
        Ok(true) => report.good("copies hear each other at database_listen_url"),
        Ok(false) => report.bad(
            "database_listen_url leads through a connection pooler, where nothing can be heard: give it the address of \
             PostgreSQL itself, or leave it out",
        ),
        Err(error) => report.bad(&format!("database_listen_url: {error}")),
    }
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
    let direct = outbound(None)?;
    let rails = parts::rails(settings)?;
    if rails.is_empty() {
        return report.note("no payment provider is configured: customers can pay from their balance only");
    }
    for (provider, rail) in rails {
        let name = provider.as_str();
        // Stars are paid at the Bot API, which may be reached by a proxy only.
        let proxy = settings.telegram.proxy.as_ref().filter(|_| provider == Provider::Stars);
        let through = proxy.map(|proxy| outbound(Some(proxy.expose().to_owned()))).transpose()?;
        let client = through.as_ref().unwrap_or(&direct);
        match client.call(Call::new("doctor", name, Manner::Read), rail.probe()).await {
            Err(error) => report.bad(&format!(
                "{name} cannot be reached: {error}. Check this machine's DNS and firewall, and {name}.api_url"
            ))?,
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
        Err(error) => {
            return report.bad(&format!("telegram.bot_token: {error}; take a fresh one from @BotFather"));
        }
    };
    let outbound = outbound(settings.telegram.proxy.as_ref().map(|proxy| proxy.expose().to_owned()))?;
    match outbound.call(Call::new("doctor", "telegram", Manner::Read), bot.get_me()).await {
        Err(error) => report.bad(&format!(
            "Telegram cannot be reached: {error}. Check this machine's DNS and firewall; where api.telegram.org is blocked, \
             set telegram.proxy, or telegram.api_url to a Bot API server of your own"
        ))?,
        Ok(answer) => match bot.read::<semel_telegram::Me>(&answer) {
            Outcome::Ok(me) => {
                let name = me.username.unwrap_or_default();
                report.good(&format!("Telegram answers: the bot is @{name}"))?;
                owners(report, settings, &outbound, &bot, &name).await?;
            }
            _ => report.bad("Telegram refuses the bot token: take a fresh one from @BotFather")?,
        },
    }
    if settings.telegram.admin_ids.is_empty() {
        report.note("telegram.admin_ids is empty: alerts go to the log only")?;
    }
    Ok(())
}

/// A bot writes to nobody who never wrote to it, so that an owner who did not press Start hears no alert.
async fn owners(
    report: &mut Report,
    settings: &Settings,
    outbound: &Outbound,
    bot: &Bot,
    name: &str,
) -> anyhow::Result<()> {
    for id in &settings.telegram.admin_ids {
        let answer = outbound.call(Call::new("doctor", "telegram", Manner::Read), bot.get_chat(*id)).await;
        match answer.map(|answer| bot.read::<serde_json::Value>(&answer)) {
            Ok(Outcome::Ok(_)) => report.good(&format!("the bot knows {id} of telegram.admin_ids"))?,
            Ok(Outcome::ChatGone { .. }) => report.bad(&format!(
                "the bot cannot write to {id} of telegram.admin_ids: open https://t.me/{name} with that account and press Start, \
                 or mend the id"
            ))?,
            _ => report.note(&format!("Telegram did not tell whether the bot can write to {id} of telegram.admin_ids"))?,
        }
    }
    Ok(())
}
