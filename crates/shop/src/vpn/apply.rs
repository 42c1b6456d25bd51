//! Bringing the local server to what the database wants.
//!
//! Whoever changes the wanted peers raises the server's `wanted` and writes the job that follows its `applied` ([`soon`]): a
//! burst of changes finds that job there already, and one run brings all of them about. A run reads `wanted` before the peers,
//! so a change that comes meanwhile stands above what it read, and the end of the run writes the next job. A job therefore
//! never ends without `applied` having grown, and no change is left behind. Only the job that follows the present `applied`
//! does anything: of two runs at once, the one that read the database first could write last, and would take the newest peers
//! for somebody else's.
//!
//! File first, then interface; then the interface is read again and must be as wanted. A failure leaves the rows as they were:
//! peers stay `pending` or `removing`, the owner is told once, and the job tries again until it succeeds. Where single peers
//! fail, those alone stay so, and all others go on.
//!
//! After a restore peers are added and none is taken away, until the owner ends safe mode: the database does not know who
//! paid after its backup.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use semel_kernel::args;
use semel_kernel::jobs::{self, Claim, Ended, Job, JobError, Manner, Retry};
use semel_kernel::store::{Expect, Tx};
use semel_wireguard::file::{self, Steps};
use semel_wireguard::plan::is_small;
use semel_wireguard::reconcile::{self, Report, Target};
use semel_wireguard::{Keep, PublicKey, ReconcileError};

pub use semel_wireguard::reconcile::Drift;

use super::scene::{OnItsWay, Scene, Secrets};
use super::steps::Failpoints;
use super::{PeerId, PeerState, ServerId, addresses, of, peers, servers, sql};
use crate::shop::Lanes;
use crate::subscriptions::{self, SubscriptionId};
use crate::{Error, Shop, alerts, safety};

/// Peers whose new state is written in one transaction.
const AT_ONCE: usize = 500;
/// How long a server that this program does not apply waits for who does.
const NOT_OURS: Duration = Duration::from_secs(3600);

/// Has a server brought to what is wanted, soon after this transaction is committed. Call it after every change of the wanted
/// peers, as late in the transaction as possible: from here on others who change the same server wait.
///
/// # Errors
/// [`Error::NotFound`] when there is no such server.
pub fn soon(tx: &mut Tx, shop: &Shop, server: &ServerId) -> Result<(), Error> {
    let row = tx.first(sql::BUMP, args![server])?.ok_or_else(|| Error::missing("server", server))?;
    write_job(tx, shop, server, row.get(0)?)
}

/// The same at the owner's wish: a run that waits after a failure does not wait any longer.
///
/// # Errors
/// [`Error::NotFound`] when there is no such server.
pub fn now(tx: &mut Tx, shop: &Shop, server: &ServerId) -> Result<(), Error> {
    let row = tx.first(sql::BUMP, args![server])?.ok_or_else(|| Error::missing("server", server))?;
    let after: i64 = row.get(0)?;
    write_job(tx, shop, server, after)?;
    jobs::pull(tx, Apply::KIND, Apply::LANE, &slot(server, after))?;
    Ok(())
}

fn write_job(tx: &mut Tx, shop: &Shop, server: &ServerId, after: i64) -> Result<(), Error> {
    let now = tx.now();
    jobs::enqueue(tx, &Apply { server: server.clone(), after }, now, &shop.chance)?;
    Ok(())
}

fn slot(server: &ServerId, after: i64) -> String {
    format!("vpn:{server}:{after}")
}

/// Brings a server from its change `after` to the latest one.
#[derive(Debug, Serialize, Deserialize)]
pub struct Apply {
    /// The server.
    pub server: ServerId,
    /// The change that the last successful run brought about.
    pub after: i64,
}

impl Job for Apply {
    type Context = Shop;
    const KIND: &'static str = "vpn.apply";
    const LANE: &'static str = Lanes::VPN;
    /// Never given up: a jitter of half makes 30 s of the longest wait.
    const RETRY: Retry = Retry::backoff(Duration::from_secs(1), Duration::from_secs(20), 1_000_000);
    const MANNER: Option<Manner> = Some(Manner::Convergent);

    fn slot(&self) -> Option<String> {
        Some(slot(&self.server, self.after))
    }

    async fn run(self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        let Some(vpn) = &shop.vpn else { return Err(not_ours(shop, "the settings name no VPN")) };
        let Some(target) = &vpn.target else { return Err(not_ours(shop, "another copy applies it")) };
        let scene = match scene(shop, &self.server, Secrets::Opened).await {
            Err(Error::Store(error)) => return Err(again(Error::Store(error))),
            Err(error) => return Err(in_trouble(shop, &self.server, self.after, error.to_string(), None).await),
            Ok(scene) => scene,
        };
        let interface = match target {
            Target::File(_) => None,
            Target::Both { interface, .. } => Some(interface.as_str()),
        };
        if scene.server.name != vpn.server.name {
            return Err(not_ours(shop, "an agent on that server applies it"));
        }
        if scene.server.applied > self.after {
            // Pulled during its last run, which brought this about.
            let ended = shop.write(Self::KIND, move |tx, _| Ok::<_, Error>(claim.finish(tx)?));
            return ended.await.map_err(again);
        }
        match bring_about(target, &scene).await {
            Ok(found) => settle(shop, scene, found, claim).await,
            Err(Failed { text, is_blind }) => {
                let unseen = interface.filter(|_| is_blind);
                Err(in_trouble(shop, &self.server, self.after, text, unseen).await)
            }
        }
    }
}

fn not_ours(shop: &Shop, why: &str) -> JobError {
    JobError::Later { at: shop.now() + shop.chance.jitter(NOT_OURS), text: why.into() }
}

/// What is wanted of `server`, and what may be taken away there now.
pub(super) async fn scene(shop: &Shop, server: &ServerId, secrets: Secrets) -> Result<Scene, Error> {
    let is_safe_mode = safety::flows::mode(shop).await?.is_some();
    let (of, server) = (shop.clone(), server.clone());
    let scene = shop.read("vpn.scene", move |tx| Scene::read(tx, &of, &server, secrets)).await?;
    Ok(if is_safe_mode { scene.without_removals() } else { scene })
}

/// What an apply found besides what it did.
struct Found {
    /// Networks of peers that stay although they are not wanted.
    theirs: Vec<(PublicKey, IpNet)>,
    /// Peers of ours that stand in the file outside of our fence although nobody wants them any more.
    left_outside: BTreeSet<PublicKey>,
    /// Peers that are not as wanted, and why.
    bad: BTreeSet<PublicKey>,
    trouble: Option<String>,
}

/// Why nothing could be brought about.
struct Failed {
    text: String,
    /// The interface does not answer: perhaps it is down, and then nobody is connected.
    is_blind: bool,
}

/// File and interface as wanted, or why they are not.
async fn bring_about(target: &Target, scene: &Scene) -> Result<Found, Failed> {
    let steps: Arc<dyn Steps> = Arc::new(Failpoints);
    let done = reconcile::reconcile_keeping(target, &scene.wanted, &scene.ours, &scene.keep, &steps).await;
    let (report, bad, trouble) = match done {
        Ok(report) => (report, BTreeSet::new(), None),
        Err(error) => {
            let told = error.to_string();
            let is_blind = matches!(error, ReconcileError::Tool(_));
            let ReconcileError::NotDone { missing, left, report, .. } = error else {
                return Err(Failed { text: told, is_blind });
            };
            (*report, missing.into_iter().chain(left).collect(), Some(told))
        }
    };
    tracing::info!(
        server = %scene.server.name,
        added = report.added.len(),
        changed = report.changed.len(),
        removed = report.removed.len(),
        bad = bad.len(),
        "the VPN server was brought to the peers that are wanted"
    );
    let Report { outside, theirs, .. } = report;
    let wanted: BTreeSet<PublicKey> = scene.wanted.iter().map(|peer| peer.public_key).collect();
    let left_outside = outside.into_iter().filter(|key| !wanted.contains(key)).collect();
    Ok(Found { theirs, left_outside, bad, trouble })
}

/// The addresses of a network, unless it is a large one.
pub(super) fn single_addresses(network: &IpNet) -> Vec<IpAddr> {
    if !is_small(network) {
        return Vec::new();
    }
    let singles = network.subnets(network.max_prefix_len());
    singles.map(|singles| singles.map(|one| one.addr()).collect()).unwrap_or_default()
}

/// Writes what was brought about: states, the customers' messages, what foreign peers have, and the end of the job.
async fn settle(shop: &Shop, scene: Scene, found: Found, claim: Claim) -> Result<Ended, JobError> {
    let (mut pending, mut removing, sealed_up) = (scene.pending, scene.removing, scene.sealed_up);
    pending.retain(|peer| !found.bad.contains(&peer.key));
    // One that a person put into the file outside of our lines comes back with the next start: its address is not free yet.
    removing.retain(|peer| !found.bad.contains(&peer.key) && !found.left_outside.contains(&peer.key));
    let (server, wanted) = (scene.server.id, scene.server.wanted);
    let is_first = scene.server.applied_at.is_none();
    let at = (scene.keep != Keep::Everybody).then_some(scene.at);
    while pending.len() > AT_ONCE {
        let piece = pending.split_off(pending.len() - AT_ONCE);
        let written = shop.write("vpn.connected", move |tx, shop| now_active(tx, shop, &piece));
        written.await.map_err(again)?;
    }
    while removing.len() > AT_ONCE {
        let piece = removing.split_off(removing.len() - AT_ONCE);
        let written = shop.write("vpn.gone", move |tx, shop| now_gone(tx, shop, &piece));
        written.await.map_err(again)?;
    }
    let usage = match pending.is_empty() {
        true => Vec::new(),
        false => shop.look("vpn.usage", addresses::usage).await.map_err(again)?,
    };
    if let Some(trouble) = found.trouble.clone() {
        let of = server.clone();
        let partly = shop.write("vpn.partly", move |tx, shop| {
            now_active(tx, shop, &pending)?;
            now_gone(tx, shop, &removing)?;
            tell_found(tx, shop, &of, &found, &sealed_up)?;
            addresses::warn(tx, shop, &usage)
        });
        partly.await.map_err(again)?;
        return Err(in_trouble(shop, &server, scene.server.applied, trouble, None).await);
    }
    let ended = shop.write(Apply::KIND, move |tx, shop| {
        now_active(tx, shop, &pending)?;
        now_gone(tx, shop, &removing)?;
        tell_found(tx, shop, &server, &found, &sealed_up)?;
        addresses::warn(tx, shop, &usage)?;
        if is_first && at.is_some() {
            // Nothing was sold before somebody had looked whose addresses are in use.
            addresses::came_free(tx, shop)?;
        }
        // The server's row last: whoever changes its peers meanwhile waits for nothing but this.
        let row = tx.one(sql::APPLIED, args![&server, wanted, at])?;
        if row.get::<i64>(0)? > wanted {
            write_job(tx, shop, &server, wanted)?;
        }
        addresses::release_soon(tx, shop)?;
        Ok::<_, Error>(claim.finish(tx)?)
    });
    ended.await.map_err(again)
}

/// Keeps what foreign peers have, and tells the owner of what only a person can mend.
fn tell_found(
    tx: &mut Tx,
    shop: &Shop,
    server: &ServerId,
    found: &Found,
    sealed_up: &[(OnItsWay, String)],
) -> Result<(), Error> {
    keep_theirs(tx, shop, server, &found.theirs)?;
    for key in &found.left_outside {
        tell_left_outside(tx, shop, server, key)?;
    }
    for (peer, why) in sealed_up {
        let text = format!(
            "{why}. This peer is left as it is, neither connected nor taken away, until the right key is back; all others go on"
        );
        alerts::flows::raise(tx, shop, format!("vpn-sealed:{}", peer.id), text)?;
    }
    Ok(())
}

/// Nothing that goes wrong ends the job: without it no later change would be brought about.
fn again(error: Error) -> JobError {
    JobError::Retry(error.to_string())
}

/// Peers that the interface has now: their customers get what they wait for.
fn now_active(tx: &mut Tx, shop: &Shop, peers: &[OnItsWay]) -> Result<(), Error> {
    if peers.is_empty() {
        return Ok(());
    }
    let rows = peers.iter().map(|peer| args![&peer.id, peer.version].to_vec()).collect();
    let mut active: Vec<(PeerId, i64, SubscriptionId)> = Vec::new();
    for row in &tx.many(sql::NOW_ACTIVE, rows)? {
        active.push((row.get(0)?, row.get(1)?, row.get(2)?));
    }
    active.sort();
    let steps = (PeerState::Pending, PeerState::Active);
    let event = steps.0.event_to(steps.1).unwrap_or("seen");
    for (id, version, sub) in &active {
        peers::tell(tx, id, sub, *version, event, steps, None)?;
    }
    let ids: Vec<PeerId> = active.into_iter().map(|(id, ..)| id).collect();
    subscriptions::flows::connected(tx, shop, &ids)
}

/// Peers that the interface has no more: kept for a renewal, or freed with their addresses.
fn now_gone(tx: &mut Tx, shop: &Shop, peers: &[OnItsWay]) -> Result<(), Error> {
    if peers.is_empty() {
        return Ok(());
    }
    let now = tx.now();
    let sticky_until = now + of(shop)?.rules.sticky;
    let rows = peers.iter().map(|peer| args![&peer.id, peer.version, now, sticky_until].to_vec()).collect();
    let mut gone: Vec<(PeerId, i64, PeerState, ServerId, SubscriptionId)> = Vec::new();
    for row in &tx.many(sql::NOW_GONE, rows)? {
        gone.push((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?));
    }
    gone.sort_by(|one, other| one.0.cmp(&other.0));
    for (id, version, state, server, sub) in &gone {
        let event = PeerState::Removing.event_to(*state).unwrap_or("gone");
        peers::tell(tx, id, sub, *version, event, (PeerState::Removing, *state), None)?;
        match state {
            PeerState::Freed => addresses::rest(tx, shop, server, id)?,
            _ => addresses::release_at(tx, shop, sticky_until)?,
        }
    }
    Ok(())
}

/// What foreign peers have is given to nobody. A large network of theirs is only told: somebody routes something through it,
/// and keeping all of its addresses could take the whole pool away.
pub(super) fn keep_theirs(
    tx: &mut Tx,
    shop: &Shop,
    server: &ServerId,
    theirs: &[(PublicKey, IpNet)],
) -> Result<(), Error> {
    if theirs.is_empty() {
        return Ok(());
    }
    let pools = shop.vpn.as_ref().map(|vpn| vpn.server.pools.as_slice()).unwrap_or_default();
    let in_pools = |network: &&(PublicKey, IpNet)| {
        let overlaps = |pool: &IpNet| pool.contains(&network.1) || network.1.contains(pool);
        network.1.prefix_len() > 0 && !is_small(&network.1) && pools.iter().any(|pool| overlaps(&pool.network))
    };
    for (key, network) in theirs.iter().filter(in_pools) {
        let text = format!(
            "The peer {key}, which is not Semel's, has the network {network}, in which customers get addresses. Exclude it \
             (vpn.excluded), or take it away from that peer"
        );
        alerts::flows::raise(tx, shop, format!("vpn-foreign-network:{server}:{key}:{network}"), text)?;
    }
    let ips: BTreeSet<IpAddr> = theirs.iter().flat_map(|(_, network)| single_addresses(network)).collect();
    let reserved = addresses::reserve(tx, server, &ips.into_iter().collect::<Vec<_>>())?;
    let Some(first) = reserved.first() else { return Ok(()) };
    let text = format!(
        "Peers that are not Semel's have {} of its free addresses ({first} first). They are given to nobody; \
         `semel wg import` shows whose they are",
        reserved.len()
    );
    alerts::flows::raise(tx, shop, format!("vpn-foreign:{server}:{first}"), text)
}

/// The addresses that nobody may be given, because peers have them that no apply takes away. Of a file or an interface that
/// cannot be read nothing is known: the apply will say so.
pub(super) async fn theirs(shop: &Shop, server: &ServerId) -> Result<Vec<(PublicKey, IpNet)>, Error> {
    let Some(target) = of(shop)?.target.as_ref() else { return Ok(Vec::new()) };
    let scene = scene(shop, server, Secrets::Sealed).await?;
    match reconcile::glance(target, &scene.wanted, &scene.ours).await {
        Ok(drift) => Ok(drift.theirs),
        Err(error) => {
            tracing::warn!(%error, "cannot see whose addresses are in use");
            Ok(Vec::new())
        }
    }
}

/// Refuses a key that a peer of file or interface has that is not ours, or the interface itself: whoever brings it would take
/// that peer's place. Where nobody here can look, the apply refuses it.
///
/// # Errors
/// [`Error::Conflict`] when somebody else has it, or when it cannot be seen whether somebody has.
pub(super) async fn refuse_taken(shop: &Shop, server: &ServerId, key: PublicKey) -> Result<(), Error> {
    let vpn = of(shop)?;
    let Some(target) = &vpn.target else { return Ok(()) };
    let (of, name) = (server.clone(), vpn.server.name.clone());
    let is_known = shop.read("vpn.key.known", move |tx| {
        let is_elsewhere = servers::find(tx, &of)?.name != name;
        Ok(is_elsewhere || tx.first(sql::WAS_OURS, args![&of, key.to_string()])?.is_some())
    });
    if is_known.await? {
        return Ok(());
    }
    let unseen = |why: String| Error::Conflict(format!("it cannot be seen whether another peer has this key: {why}"));
    let path = target.conf().file.clone();
    let conf = tokio::task::spawn_blocking(move || file::read(&path)).await;
    let conf = conf.map_err(|error| unseen(error.to_string()))?.map_err(|error| unseen(error.to_string()))?;
    let mut is_taken = conf.seen().peers.contains_key(&key);
    if let Target::Both { interface, tool, .. } = target {
        let seen = tool.show(interface).await.map_err(|error| unseen(error.to_string()))?;
        is_taken |= seen.own == Some(key) || seen.peers.contains_key(&key);
    }
    match is_taken {
        true => Err(Error::Conflict("a peer that is not Semel's has this key already".into())),
        false => Ok(()),
    }
}

/// What a person wrote, only a person takes away.
fn tell_left_outside(tx: &mut Tx, shop: &Shop, server: &ServerId, key: &PublicKey) -> Result<(), Error> {
    let text = format!(
        "The peer {key} has no access any more and is off the interface, but it stands in the configuration file outside of \
         Semel's lines. Delete it there, or it comes back for a moment with each start of the machine"
    );
    alerts::flows::raise(tx, shop, format!("vpn-outside:{server}:{key}"), text)
}

/// Notes why it failed, tells the owner at the first time, and has the job tried again. `unseen` is the interface that does
/// not answer.
async fn in_trouble(shop: &Shop, server: &ServerId, after: i64, text: String, unseen: Option<&str>) -> JobError {
    let (id, reason) = (server.clone(), text.clone());
    let meaning = match unseen {
        None => "It is tried again; nobody loses access by it, and new customers wait".to_owned(),
        Some(interface) => format!(
            "It is tried again, and new customers wait. If the interface is down, no customer is connected now: run \
             wg-quick up {interface}"
        ),
    };
    let noted = shop.write("vpn.trouble", move |tx, shop| {
        if tx.execute(sql::FIRST_TROUBLE, args![&id, &reason])? == 1 {
            let told = format!("The VPN server could not be brought to what is wanted: {reason}. {meaning}");
            alerts::flows::raise(tx, shop, format!("vpn-trouble:{id}:{after}"), told)?;
        } else {
            tx.later(sql::SET_TROUBLE, args![&id, &reason], Expect::Any)?;
        }
        Ok(())
    });
    match noted.await {
        Ok(()) => JobError::Retry(text),
        Err(error) => JobError::Retry(format!("{text}; and it could not be noted: {error}")),
    }
}

/// How far file and interface of this machine are from what is wanted now. Changes nothing.
///
/// # Errors
/// [`Error::Conflict`] without the VPN part, or when file or interface cannot be read; what the store says.
pub async fn drift(shop: &Shop) -> Result<Drift, Error> {
    let vpn = of(shop)?;
    let name = vpn.server.name.clone();
    let server = shop.read("vpn.local", move |tx| Ok(servers::named(tx, &name)?.id)).await?;
    let Some(target) = &vpn.target else {
        return Err(Error::Conflict("vpn.apply is none here: ask the copy that applies the server".into()));
    };
    let scene = scene(shop, &server, Secrets::Opened).await?;
    let drift = reconcile::drift(target, &scene.wanted, &scene.ours).await;
    drift.map_err(|error| Error::Conflict(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_network_is_read_out_unless_it_is_large() {
        let count = |text: &str| single_addresses(&text.parse().unwrap()).len();
        assert_eq!(count("10.8.0.2/32"), 1);
        assert_eq!(count("10.8.0.0/30"), 4);
        assert_eq!(count("fd00::/124"), 16);
        assert_eq!(count("10.8.0.0/27"), 0);
        assert_eq!(count("10.8.0.0/16"), 0);
        assert_eq!(count("0.0.0.0/0"), 0);
        assert_eq!(count("::/0"), 0);
    }

    #[test]
    fn one_job_follows_each_change_that_was_brought_about() {
        let server = ServerId::parse("srv_1").unwrap();
        assert_eq!(Apply { server: server.clone(), after: 7 }.slot(), Some("vpn:srv_1:7".into()));
        assert_ne!(slot(&server, 7), slot(&server, 8));
    }
}
