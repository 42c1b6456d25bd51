//! The running program: database, workers, doors, and an orderly end.

pub mod postgres;
mod sender;
pub mod updates;
pub(crate) mod vpn;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use semel_kernel::clock::{Chance, Stopwatch};
use semel_kernel::cron::{self, CatchUp, Schedule};
use semel_kernel::ids::new_id;
use semel_kernel::inbox::Intake;
use semel_kernel::jobs::{self, Workers, WorkersOptions};
use semel_kernel::keys;
use semel_kernel::store::migrate::migrate;
use semel_kernel::store::{Engine, Store, StoreError};
use semel_kernel::supervise::Supervisor;
use semel_shop::audit::{NightAudit, stops};
use semel_shop::checkout::{SweepProvider, hints};
use semel_shop::retention::Retention;
use semel_shop::{Error, Lanes, Shop, alerts, bot, campaigns, messages, safety};

use crate::api::{Counters, Doors, Ready, Shared, UPLOADS, hash_token, nobody, routes};
use crate::server::{Base, Limits, TrustedProxies, base, serve};
use crate::settings::Settings;
use crate::{ROOMS, parts};

use self::sender::Sender;
use self::updates::Receiver;

const SWEEP: &str = "provider.sweep";
const FORGET: &str = "keys.forget";
const AUDIT: &str = "audit.night";
const RETENTION: &str = "retention";

/// The schedules of the program: each tick is one job or one deed, whatever number of copies runs.
const SCHEDULES: &[Schedule] = &[
    Schedule { name: SWEEP, expression: "17 * * * *", catch_up: CatchUp::Once },
    Schedule { name: FORGET, expression: "41 3 * * *", catch_up: CatchUp::Skip },
    Schedule { name: AUDIT, expression: "20 4 * * *", catch_up: CatchUp::Once },
    // Before the night's audit, which then sees what is left.
    Schedule { name: RETENTION, expression: "50 3 * * *", catch_up: CatchUp::Once },
];

/// A program that is put together and not yet started.
pub struct App {
    /// The shop.
    pub shop: Shop,
    /// Every route, without the outer layers.
    pub doors: Doors,
    workers: Arc<Workers<Shop>>,
    supervisor: Supervisor,
    settings: Settings,
    owner: String,
}

impl App {
    /// Puts the parts together on an open database. Starts nothing but the intake, which waits for notices.
    ///
    /// # Errors
    /// When a part cannot be made of its setting; also when the VPN's key is lost: a new one would open nothing.
    pub async fn build(settings: Settings, store: Store, chance: Chance) -> anyhow::Result<App> {
        vpn::refuse_lost_key(&settings, &store).await?;
        let shop = parts::shop(&settings, store, chance)?;
        Ok(Self::of(settings, shop))
    }

    /// The same for a shop that was made by hand.
    pub fn of(settings: Settings, shop: Shop) -> App {
        let clock = shop.store.clock().clone();
        let owner = new_id("run", clock.now(), &shop.chance);
        let supervisor = Supervisor::new(clock, shop.chance.clone());
        let options = WorkersOptions { lease: settings.job_lease, ..WorkersOptions::new(owner.clone()) };
        let workers = Workers::new(shop.store.clone(), shop.chance.clone(), options);
        let dead_shop = shop.clone();
        let workers = shop.workers(workers).on_dead(move |tx, dead| {
            messages::flows::buried(tx, &dead.job, &dead.error)?;
            hints::buried(tx, &dead_shop, dead)?;
            bot::flows::buried(tx, dead)?;
            if campaigns::flows::buried(tx, &dead_shop, dead).map_err(store_error)? {
                return Ok(());
            }
            let text = format!(
                "Job {} ({}) gave up: {}. `semel job retry {}` runs it again",
                dead.job, dead.kind, dead.error, dead.job
            );
            alerts::flows::raise(tx, &dead_shop, format!("dead:{}", dead.job), text).map_err(|error| match error {
                Error::Store(error) => error,
                other => StoreError::Statement(other.to_string()),
            })
        });
        let intake = Intake::start(shop.store.clone(), shop.chance.clone(), hints::intake_options());
        let doors = Doors::new(Shared {
            shop: shop.clone(),
            intake,
            ready: Ready::default(),
            supervisor: supervisor.clone(),
            counters: Counters::default(),
            first_token: settings.api_token.as_ref().map(|token| hash_token(token.expose())),
            owner: owner.clone(),
            lanes: workers.lanes().to_vec(),
            telegram: updates::TelegramDoor::of(&settings),
            in_hand: nobody(),
            proxy_declared: !settings.trusted_proxies.is_empty(),
        });
        App { shop, doors, workers: Arc::new(workers), supervisor, settings, owner }
    }

    /// The workers, for tests and commands that run what is due by hand.
    pub fn workers(&self) -> &Arc<Workers<Shop>> {
        &self.workers
    }

    /// The doors with their outer layers: limits, request ids, the client's address, a log line each.
    pub fn router(&self, trusted: bool) -> Router {
        let limits = self.limits();
        let (clock, chance) = (self.shop.store.clock().clone(), self.shop.chance.clone());
        let started = Stopwatch::start();
        base(
            routes(&self.doors, trusted),
            Base {
                limits,
                proxies: TrustedProxies::new(self.settings.trusted_proxies.clone()),
                fresh_id: Arc::new(move || new_id("req", clock.now(), &chance)),
                uptime: Arc::new(move || started.elapsed()),
            },
        )
    }

    fn limits(&self) -> Limits {
        Limits {
            body_bytes: self.settings.limits.body,
            connections: self.settings.limits.connections,
            header_timeout: self.settings.limits.header_timeout,
            body_timeout: self.settings.limits.body_timeout,
            read_inside: UPLOADS,
            ..Limits::default()
        }
    }

    /// Brings the schema up to date, gives back what an earlier run left, and registers the schedules.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        let applied = migrate(&self.shop.store, ROOMS).await?;
        if !applied.is_empty() {
            tracing::info!(steps = applied.len(), "database schema is up to date: {}", applied.join(", "));
        }
        if let Some(mode) = safety::flows::open(&self.shop).await? {
            tracing::warn!(
                "SAFE MODE: the database was restored from a backup of {}. Nothing is sold, handed over or paid out before \
                 `semel safe leave`; `semel safe status` says what waits for what",
                mode.backup_at
            );
            safety::flows::begin(&self.shop, &mode).await.map_err(store_error)?;
        }
        // Before any work is taken: what was stopped stays so.
        stops::refresh(&self.shop).await?;
        messages::recall_silence(&self.shop).await?;
        vpn::begin(&self.shop).await.map_err(store_error)?;
        let lost = self.workers.recover().await?;
        if lost > 0 {
            tracing::info!(jobs = lost, "took up jobs that an earlier run left");
        }
        self.shop.store.write("cron.register", |tx| cron::register(tx, SCHEDULES)).await
    }

    /// Makes the doors usable for one command in this process: the schema is brought up to date and no work is started.
    pub async fn prepare_for_commands(&self) -> anyhow::Result<()> {
        migrate(&self.shop.store, ROOMS).await?;
        safety::flows::open(&self.shop).await?;
        stops::refresh(&self.shop).await?;
        if !crate::is_demo(&self.settings) {
            parts::refuse_demo(&self.shop.store).await?;
        }
        self.doors.ready.open();
        Ok(())
    }

    /// Serves until `stop`: the listener first, so that webhooks get a clear 503 while the database is away; the work
    /// as soon as the database is there.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
        let budget = self.settings.stop_budget;
        self.listen_to_trouble();
        self.warn_about_proxies();
        let doors_stop = CancellationToken::new();
        let door = tokio::spawn(serve(listener, self.router(false), self.limits(), doors_stop.clone(), budget));
        let local = self.local_door(&doors_stop)?;
        let prepared = self.prepare_patiently(&stop).await;
        if let Err(error) = prepared {
            doors_stop.cancel();
            let _ = door.await;
            return Err(error);
        }
        if !stop.is_cancelled() {
            self.warn_about_dangers().await;
            self.start_work();
            self.doors.ready.open();
            tracing::info!("ready");
        }
        stop.cancelled().await;
        tracing::info!("stopping: no new work is taken");
        self.doors.ready.close();
        doors_stop.cancel();
        let late = self.supervisor.stop(budget).await;
        if !late.is_empty() {
            tracing::warn!(tasks = late.join(", "), "did not stop in time; their jobs are taken up at the next start");
        }
        let _ = door.await;
        drop(local);
        Ok(())
    }

    /// A database that is down at start is waited for; a schema that cannot be used ends the program.
    async fn prepare_patiently(&self, stop: &CancellationToken) -> anyhow::Result<()> {
        let mut pause = Duration::from_millis(250);
        loop {
            let of_demo = match self.prepare().await {
                Ok(()) => parts::is_of_demo(&self.shop.store).await,
                Err(error) => Err(error),
            };
            match of_demo {
                Ok(true) if !crate::is_demo(&self.settings) => return parts::refuse_demo(&self.shop.store).await,
                Ok(_) => return Ok(()),
                Err(error) if error.is_passing() => {
                    tracing::error!(%error, "the database is not there yet; check SEMEL_DATABASE_URL and that it runs. Trying again");
                    tokio::select! {
                        () = stop.cancelled() => return Ok(()),
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                Err(error) => return Err(error).context("the database cannot be used"),
            }
        }
    }

    fn start_work(&self) {
        for lane in self.workers.lanes().to_vec() {
            if lane == Lanes::CAMPAIGNS && self.shop.bot.is_some() {
                continue; // The sender's, too: all that leaves is paced in one place.
            }
            let (workers, shop) = (Arc::clone(&self.workers), self.shop.clone());
            if let Some(sender) = Sender::of(lane, &workers, &shop, &self.owner, self.settings.job_lease) {
                let sender = Arc::new(sender);
                self.supervisor.spawn(lane, move |stop| Arc::clone(&sender).serve(stop));
                continue;
            }
            self.supervisor.spawn(lane, move |stop| Arc::clone(&workers).serve(lane, shop.clone(), stop));
        }
        if let Some(receiver) = Receiver::of(&self.settings, &self.shop, &self.owner) {
            let receiver = Arc::new(receiver);
            self.supervisor.spawn("updates", move |stop| Arc::clone(&receiver).serve(stop));
        }
        let workers = Arc::clone(&self.workers);
        self.supervisor.spawn("claims", move |stop| Arc::clone(&workers).keep(stop));
        let (shop, owner) = (self.shop.clone(), self.owner.clone());
        self.supervisor.spawn("schedule", move |stop| {
            let (shop, owner) = (shop.clone(), owner.clone());
            let tick_shop = shop.clone();
            async move {
                cron::serve(
                    shop.store.clone(),
                    owner,
                    SCHEDULES,
                    move |tx, name, tick| on_tick(tx, &tick_shop, name, tick),
                    stop,
                )
                .await
            }
        });
        self.follow_stops();
        self.meet_other_copies();
    }

    /// What another copy stops or releases counts here, too. An embedded database has no other copy.
    fn follow_stops(&self) {
        if self.shop.store.engine() == Engine::Sqlite {
            return;
        }
        let shop = self.shop.clone();
        self.supervisor.spawn("stops", move |stop| {
            let shop = shop.clone();
            async move { stops::follow(shop, stop.cancelled_owned()).await }
        });
    }

    /// Copies that share a PostgreSQL tell each other of new work, where the owner gave an address to listen at.
    fn meet_other_copies(&self) {
        let Some(url) = &self.settings.database_listen_url else { return };
        let (store, tag) = (self.shop.store.clone(), self.owner.clone());
        self.supervisor.spawn("notify", move |stop| {
            let (store, tag) = (store.clone(), tag.clone());
            async move { store.tell_copies(&tag, stop).await }
        });
        let (store, tag, url) = (self.shop.store.clone(), self.owner.clone(), url.clone());
        self.supervisor.spawn("listen", move |stop| {
            let (store, tag, url) = (store.clone(), tag.clone(), url.clone());
            async move { store.hear_copies(url.expose(), &tag, stop).await }
        });
    }

    fn listen_to_trouble(&self) {
        let shop = self.shop.clone();
        self.supervisor.on_trouble(move |trouble| {
            tracing::error!(task = trouble.name, failures = trouble.failures_in_a_row, error = %trouble.last_error, "a task keeps failing");
            let shop = shop.clone();
            let text = format!("The task {} failed {} times in a row: {}", trouble.name, trouble.failures_in_a_row, trouble.last_error);
            let key = format!("trouble:{}:{}", trouble.name, trouble.at.millis());
            tokio::spawn(async move {
                let raised = shop.write("alert.trouble", move |tx, shop| alerts::flows::raise(tx, shop, key.clone(), text.clone())).await;
                if let Err(error) = raised {
                    tracing::error!(%error, "could not write the alert about a failing task");
                }
            });
        });
    }

    /// A listener on all addresses without a declared proxy would see the proxy's address and refuse genuine webhooks.
    fn warn_about_proxies(&self) {
        if let Some(sentence) = proxy_warning(&self.settings) {
            tracing::warn!("{sentence}");
        }
    }

    /// A server that acknowledges what a power cut can take back is not stopped for it, but nobody shall miss it.
    async fn warn_about_dangers(&self) {
        match postgres::Server::ask(&self.shop.store).await {
            Ok(Some(server)) => server.dangers().iter().for_each(|danger| tracing::error!("{danger}")),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "could not ask the database how it keeps what it acknowledges"),
        }
    }

    /// The owner's socket beside an embedded database: commands talk to the running program through it.
    fn local_door(&self, stop: &CancellationToken) -> anyhow::Result<Option<crate::local::Door>> {
        if self.shop.store.engine() != Engine::Sqlite {
            return Ok(None);
        }
        let path = crate::local::socket_path(&self.settings);
        path.map(|path| crate::local::Door::open(path, self.router(true), stop.clone())).transpose()
    }
}

/// What `doctor` and `serve` say when every genuine webhook would be refused: an https address is served by a proxy, and
/// the proxy is not among those whose `X-Forwarded-For` is believed.
pub fn proxy_warning(settings: &Settings) -> Option<String> {
    use crate::settings::Networks;
    let listed = settings.yookassa.as_ref().is_some_and(|p| p.networks != Networks::Off)
        || settings.heleket.as_ref().is_some_and(|p| p.networks != Networks::Off)
        || settings.crystalpay.as_ref().is_some_and(|p| p.networks != Networks::Off);
    let https = settings.public_url.as_ref().is_some_and(|url| url.scheme() == "https");
    if !(listed && https) {
        return None;
    }
    if settings.trusted_proxies.is_empty() {
        return Some(
            "the public address is https, which a proxy in front must serve, but SEMEL_TRUSTED_PROXIES names no proxy: every \
             genuine webhook will be refused, because it seems to come from the proxy and not from the provider's network. \
             Set it to the proxy's address, for example SEMEL_TRUSTED_PROXIES=127.0.0.1/32"
                .to_owned(),
        );
    }
    // On loopback only this machine can reach us, so whatever proxy there is has a loopback address.
    let holds_loopback = |network: &ipnet::IpNet| {
        let four = std::net::IpAddr::from(std::net::Ipv4Addr::LOCALHOST);
        let six = std::net::IpAddr::from(std::net::Ipv6Addr::LOCALHOST);
        network.addr().to_canonical().is_loopback() || network.contains(&four) || network.contains(&six)
    };
    let here = settings.listen.ip().is_loopback();
    (here && !settings.trusted_proxies.iter().any(holds_loopback)).then(|| {
        format!(
            "semel listens on {}, where only a proxy on this machine can reach it, but SEMEL_TRUSTED_PROXIES holds no \
             loopback address: every genuine webhook will be refused, because it seems to come from the proxy and not from \
             the provider's network. Add 127.0.0.1/32 to it",
            settings.listen
        )
    })
}

fn store_error(error: Error) -> StoreError {
    match error {
        Error::Store(error) => error,
        other => StoreError::Statement(other.to_string()),
    }
}

fn on_tick(
    tx: &mut semel_kernel::store::Tx,
    shop: &Shop,
    name: &str,
    tick: semel_kernel::clock::Time,
) -> Result<(), StoreError> {
    match name {
        SWEEP => {
            for provider in shop.rails.keys() {
                let now = tx.now();
                jobs::enqueue(tx, &SweepProvider { provider: *provider, tick: tick.millis() }, now, &shop.chance)?;
            }
        }
        FORGET => {
            keys::forget(tx)?;
            bot::flows::forget(tx)?;
        }
        AUDIT => {
            let now = tx.now();
            jobs::enqueue(tx, &NightAudit { tick: tick.millis() }, now, &shop.chance)?;
        }
        RETENTION if shop.rules.bodies_kept.is_some() || shop.rules.jobs_kept.is_some() => {
            let now = tx.now();
            jobs::enqueue(tx, &Retention { tick: tick.millis() }, now, &shop.chance)?;
        }
        _ => {}
    }
    Ok(())
}
