//! `/metrics` for Prometheus. Label sets are small and fixed.

use std::sync::atomic::AtomicU64;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use semel_payments::Provider;
use semel_shop::{safety, vpn};

use super::{Doors, leases};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WebhookLabels {
    provider: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LaneLabels {
    lane: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct NameLabels {
    name: String,
    state: String,
}

/// The labels of the known exporter of WireGuard, so that its dashboards go on working.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PeerLabels {
    interface: String,
    public_key: String,
    allowed_ips: String,
    friendly_name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PoolLabels {
    server: String,
    family: String,
}

/// What is counted as it happens.
#[derive(Clone, Default)]
pub struct Counters {
    webhooks: Family<WebhookLabels, Counter<u64, AtomicU64>>,
    updates: Family<OutcomeLabels, Counter<u64, AtomicU64>>,
}

impl Counters {
    /// A webhook came: `accepted`, `refused` or `unavailable`.
    pub fn webhook(&self, provider: Provider, outcome: &'static str) {
        self.webhooks.get_or_create(&WebhookLabels { provider: provider.as_str(), outcome }).inc();
    }

    /// Telegram posted an update: `accepted`, `repeated`, `refused` or `unavailable`.
    pub fn update(&self, outcome: &'static str) {
        self.updates.get_or_create(&OutcomeLabels { outcome }).inc();
    }
}

pub(super) fn routes() -> Router<Doors> {
    Router::new().route("/metrics", get(scrape))
}

/// Read at each scrape, so each is served by an index over what is alive: none grows with the shop's age.
const LEVELS: &[(&str, &str, &str)] = &[
    (
        "semel_jobs",
        "Jobs that are not done, by kind and state",
        "select kind, state, count(*) from jobs where state = 'ready' group by kind, state
         union all select kind, state, count(*) from jobs where state = 'running' group by kind, state
         union all select kind, state, count(*) from jobs where state = 'dead' group by kind, state",
    ),
    (
        "semel_inbox",
        "Notices that wait",
        "select source, state, count(*) from inbox where state = 'received' group by source, state",
    ),
    (
        "semel_updates",
        "Updates of the bot that are not worked off, by bot",
        "select bot, state, count(*) from updates where state = 'received' group by bot, state",
    ),
    (
        "semel_campaigns",
        "Campaigns that are not over, by state",
        "select 'campaign', state, count(*) from campaigns where state in ('draft', 'scheduled', 'starting', 'running', 'paused')
         group by state",
    ),
    (
        "semel_orders",
        "Orders that are not over, by how they are paid and status",
        "select provider, state, count(*) from orders where state in ('pending', 'paid', 'awaiting_stock', 'partial', 'refund_pending')
         group by provider, state",
    ),
    (
        "semel_stock",
        "Units on the shelf, by product",
        "select product, state, count(*) from units where state = 'available' and held_back_at is null group by product, state",
    ),
    (
        "semel_suspense",
        "Payments that belong to nobody yet",
        "select provider, state, count(*) from suspense where state = 'open' group by provider, state",
    ),
    (
        "semel_stops",
        "Broken promises that the owner has not released, by what they stop",
        "select flows, state, count(*) from audit_stops where state = 'open' group by flows, state",
    ),
    (
        "semel_subscriptions",
        "Subscriptions that are not over, by server and state",
        "select server, state, count(*) from subscriptions where state in ('trial', 'active', 'grace', 'frozen') group by server, state",
    ),
    (
        "semel_peers",
        "Peers that are not given up, by server and state",
        "select server, state, count(*) from peers where state in ('pending', 'active', 'removing', 'sticky') group by server, state",
    ),
    (
        "semel_messages_unknown",
        "Messages, those of campaigns among them, whose fate Telegram did not tell",
        "select kind, state, count(*) from messages where state = 'unknown' group by kind, state
         union all select 'campaign', state, count(*) from recipients where state = 'unknown' group by state",
    ),
];

/// Traffic and handshakes of each peer under the names of the known exporter, and how full the networks are. The one set of
/// labels that grows with the shop; there only where VPN access is on.
async fn vpn(doors: &Doors, registry: &mut Registry) {
    if doors.shop.vpn.is_none() {
        return;
    }
    let Ok(found) = doors.shop.read("metrics.vpn", vpn::samples).await else { return };
    let received = Family::<PeerLabels, Counter<u64, AtomicU64>>::default();
    let sent = Family::<PeerLabels, Counter<u64, AtomicU64>>::default();
    let seen = Family::<PeerLabels, Gauge>::default();
    for peer in found.peers {
        let labels = PeerLabels {
            interface: peer.interface,
            public_key: peer.public_key,
            allowed_ips: peer.allowed_ips,
            friendly_name: peer.friendly_name,
        };
        received.get_or_create(&labels).inc_by(u64::try_from(peer.received).unwrap_or(0));
        sent.get_or_create(&labels).inc_by(u64::try_from(peer.sent).unwrap_or(0));
        seen.get_or_create(&labels).set(peer.latest_handshake_s);
    }
    registry.register("wireguard_received_bytes", "Bytes that came from a peer", received);
    registry.register("wireguard_sent_bytes", "Bytes that went to a peer", sent);
    registry.register("wireguard_latest_handshake_seconds", "When a peer last connected, in seconds since 1970", seen);
    let (size, used) = (Family::<PoolLabels, Gauge>::default(), Family::<PoolLabels, Gauge>::default());
    for pool in found.pools {
        let labels = PoolLabels { server: pool.name, family: pool.family.to_string() };
        size.get_or_create(&labels).set(pool.size);
        used.get_or_create(&labels).set(pool.used);
    }
    registry.register("semel_vpn_addresses", "Addresses that are given out, by server and family", size);
    registry.register("semel_vpn_addresses_used", "Those that nobody may get now: held, kept or resting", used);
}

/// The pace of the bot in this process; there only where there is a bot.
fn pace(doors: &Doors, registry: &mut Registry) {
    if doors.shop.bot.is_none() {
        return;
    }
    let view = doors.shop.pace().view();
    let rate: Gauge = Gauge::default();
    rate.set(if view.silent_until.is_some() { 0 } else { i64::from(view.rate.messages) });
    let help = "Messages that the bot may send in a second now; 0 while Telegram asks for silence";
    registry.register("semel_telegram_rate", help, rate);
    let waiting = Family::<LaneLabels, Gauge>::default();
    for (lane, count) in view.waiting {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        waiting.get_or_create(&LaneLabels { lane: lane.as_str() }).set(count);
    }
    registry.register("semel_telegram_waiting", "Messages that wait for their turn in this process, by lane", waiting);
}

async fn scrape(State(doors): State<Doors>) -> Response {
    let mut registry = Registry::default();
    registry.register("semel_webhooks", "Webhooks by provider and outcome", doors.counters.webhooks.clone());
    registry.register(
        "semel_updates_posted",
        "Updates that Telegram posted, by outcome",
        doors.counters.updates.clone(),
    );
    for (name, help, query) in LEVELS {
        let family = Family::<NameLabels, Gauge>::default();
        if let Ok(rows) = doors.shop.store.rows("metrics", *query, &[]).await {
            for row in rows {
                if let (Ok(name), Ok(state), Ok(count)) = (row.get(0), row.get(1), row.get::<i64>(2)) {
                    family.get_or_create(&NameLabels { name, state }).set(count);
                }
            }
        }
        registry.register(*name, *help, family);
    }
    vpn(&doors, &mut registry).await;
    pace(&doors, &mut registry);
    let leases = Family::<NameLabels, Gauge>::default();
    for lease in leases::standing(&doors).await {
        let labels = NameLabels { name: lease.name.to_owned(), state: lease.word().to_owned() };
        leases.get_or_create(&labels).set(1);
    }
    registry.register("semel_lease", "Who sends messages and who receives updates: here, elsewhere or nobody", leases);
    // Where nobody can tell, nothing is said: a zero would mean that all is well.
    if let Ok(mode) = safety::flows::mode(&doors.shop).await {
        let safe_mode: Gauge = Gauge::default();
        safe_mode.set(i64::from(mode.is_some()));
        let help = "1 after a restore, until the owner ends safe mode: nothing is sold, handed over or paid out";
        registry.register("semel_safe_mode", help, safe_mode);
    }
    let tasks = Family::<NameLabels, Gauge>::default();
    for task in doors.supervisor.view() {
        let labels = NameLabels { name: task.name.to_owned(), state: task.state.as_str().to_owned() };
        tasks.get_or_create(&labels).set(1);
    }
    registry.register("semel_task", "Long-lived tasks and their state", tasks);
    let calls = Family::<NameLabels, Gauge>::default();
    for host in doors.shop.outbound.stats() {
        for (state, count) in [("calls", host.calls), ("failures", host.failures), ("retries", host.retries)] {
            let labels = NameLabels { name: host.host_key.clone(), state: state.to_owned() };
            calls.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
    registry.register("semel_outbound", "Calls to the outside, by host", calls);
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, [(CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
