//! What the interface counts: who connected when, and how many bytes went both ways.
//!
//! One job for each server comes again and again while the VPN is on; it is the only thing of an idle program that ticks. It
//! also looks whether file and interface still are as wanted, and has them mended when they are not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::history::{self, Entry};
use semel_kernel::jobs::{self, Claim, Ended, Job, JobError, Retry};
use semel_kernel::store::{Expect, Row, StoreError, Tx};
use semel_wireguard::reconcile::{self, Target};
use semel_wireguard::{Plan, PublicKey, SeenPeer};

use super::scene::Secrets;
use super::steps::Failpoints;
use super::{PeerId, PeerState, ServerId, addresses, apply, servers, sql};
use crate::shop::Lanes;
use crate::{Error, Shop};

/// How long the job sleeps while there is nothing to read.
const OFF: Duration = Duration::from_secs(24 * 3600);
/// The shortest pause, whatever the settings say.
const SHORTEST: Duration = Duration::from_secs(5);

/// Begins to read the traffic of `server`, now.
pub(super) fn begin(tx: &mut Tx, shop: &Shop, server: &ServerId) -> Result<(), Error> {
    let now = tx.now();
    let job = ReadTraffic { server: server.clone() };
    jobs::enqueue(tx, &job, now, &shop.chance)?;
    // It is there since an earlier start, and may sleep.
    jobs::pull(tx, ReadTraffic::KIND, ReadTraffic::LANE, server.as_str())?;
    Ok(())
}

/// Reads what a server's interface counts, again and again.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReadTraffic {
    /// The server.
    pub server: ServerId,
}

impl Job for ReadTraffic {
    type Context = Shop;
    const KIND: &'static str = "vpn.traffic";
    const LANE: &'static str = Lanes::VPN;
    /// Never given up: it has no end.
    const RETRY: Retry = Retry::backoff(Duration::from_secs(5), Duration::from_secs(300), 1_000_000);

    fn slot(&self) -> Option<String> {
        Some(self.server.to_string())
    }

    async fn run(self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        let retry = |error: Error| JobError::Retry(error.to_string());
        let look = look(shop, &self.server).await.map_err(retry)?;
        let (of, server) = (shop.clone(), self.server);
        // Past the shop's own way to write: a tick is nothing that the self-audit should wake up for.
        let ended = shop.store.write(Self::KIND, move |tx| {
            let shop = &of;
            let pause = match &look {
                Look::Off => OFF,
                Look::Read { counted, as_wanted, theirs } => {
                    write(tx, counted)?;
                    if let Some(theirs) = theirs {
                        apply::keep_theirs(tx, shop, &server, &theirs.networks)?;
                        addresses::give_back_reserved(tx, shop, &server, &theirs.gone)?;
                    }
                    let in_step = servers::find(tx, &server)?;
                    // A change that is on its way heals it anyway.
                    if !as_wanted && in_step.wanted == in_step.applied {
                        apply::soon(tx, shop, &server)?;
                    }
                    addresses::release_soon(tx, shop)?;
                    shop.vpn.as_ref().map_or(OFF, |vpn| vpn.rules.traffic_every.max(SHORTEST))
                }
            };
            let at = tx.now() + pause;
            // Each minute for ever: a tick that changed nothing leaves no row behind.
            Ok::<_, Error>(claim.again_quietly(tx, at)?)
        });
        ended.await.map_err(retry)
    }
}

/// What a look at a server found.
enum Look {
    /// There is nothing to look at from here.
    Off,
    /// What has to be written, and whether all is as wanted.
    Read { counted: Vec<Counted>, as_wanted: bool, theirs: Option<Theirs> },
}

/// What peers have that are not ours.
struct Theirs {
    /// Their networks.
    networks: Vec<(PublicKey, IpNet)>,
    /// Addresses that are kept for such peers, and that none has any more.
    gone: Vec<String>,
}

async fn look(shop: &Shop, server: &ServerId) -> Result<Look, Error> {
    let Some(vpn) = &shop.vpn else { return Ok(Look::Off) };
    let Some(target) = &vpn.target else { return Ok(Look::Off) };
    let scene = apply::scene(shop, server, Secrets::Sealed).await?;
    if scene.server.name != vpn.server.name {
        return Ok(Look::Off);
    }
    let (as_wanted, theirs, seen) = match reconcile::glance(target, &scene.wanted, &scene.ours).await {
        Ok(drift) => {
            // One that a person put outside of our lines is gone from there by now: it can be let go.
            let waits = scene.removing.iter().any(|peer| !drift.outside.contains(&peer.key));
            let gone = nobodys(shop, server, &drift.theirs).await?;
            let theirs = Theirs { networks: drift.theirs.clone(), gone };
            (is_as_wanted(&drift) && !waits, Some(theirs), drift.interface.map(|seen| seen.peers))
        }
        // What cannot be read is not as wanted: the apply fails in the same way, and tells the owner.
        Err(_) => (false, None, read_interface(target).await),
    };
    let Some(seen) = seen else { return Ok(Look::Read { counted: Vec::new(), as_wanted, theirs }) };
    let (id, now) = (server.clone(), shop.now());
    let known = shop
        .look("vpn.counters", move |tx| {
            let rows = tx.rows(sql::COUNTERS, args![&id])?;
            Ok(rows.iter().map(Known::read).collect::<Result<Vec<_>, StoreError>>()?)
        })
        .await?;
    let counted = known.iter().filter_map(|known| {
        let key: PublicKey = known.public_key.parse().ok()?;
        known.after(seen.get(&key)?, now)
    });
    let counted = counted.collect();
    Ok(Look::Read { counted, as_wanted, theirs })
}

/// Addresses that are kept for foreign peers, and that none of `theirs` has any more.
async fn nobodys(shop: &Shop, server: &ServerId, theirs: &[(PublicKey, IpNet)]) -> Result<Vec<String>, Error> {
    let id = server.clone();
    let kept = shop.look("vpn.kept", move |tx| {
        let rows = tx.rows(sql::RESERVED, args![&id])?;
        Ok(rows.iter().map(|row| row.get(0)).collect::<Result<Vec<String>, StoreError>>()?)
    });
    let kept = kept.await?;
    Ok(if kept.is_empty() { kept } else { without(kept, theirs) })
}

fn without(mut kept: Vec<String>, theirs: &[(PublicKey, IpNet)]) -> Vec<String> {
    let had: BTreeSet<IpAddr> = theirs.iter().flat_map(|(_, network)| apply::single_addresses(network)).collect();
    kept.retain(|ip| ip.parse::<IpAddr>().is_ok_and(|ip| !had.contains(&ip)));
    kept
}

/// Whether an apply would change nothing. What a person put outside of our fence it leaves as it is.
fn is_as_wanted(drift: &reconcile::Drift) -> bool {
    let outside = |key: &PublicKey| drift.outside.contains(key);
    let file = &drift.plan_file;
    let of_file = file.add.is_empty()
        && file.refused.is_empty()
        && file.change.iter().all(|peer| outside(&peer.public_key))
        && file.remove.iter().all(outside);
    drift.whole && of_file && drift.plan_interface.as_ref().is_none_or(Plan::is_empty)
}

/// What the interface shows; none where there is only a file, or where it cannot be seen.
async fn read_interface(target: &Target) -> Option<BTreeMap<PublicKey, SeenPeer>> {
    let Target::Both { interface, tool, .. } = target else { return None };
    let seen = tool.show_with(interface, &Failpoints).await.ok()?;
    Some(seen.peers)
}

/// What is known of a peer before a look.
#[derive(Clone, Debug)]
struct Known {
    id: PeerId,
    public_key: String,
    state: PeerState,
    first: Option<Time>,
    last: Option<Time>,
    received: i64,
    sent: i64,
    seen_received: i64,
    seen_sent: i64,
}

/// What is to be written of a peer after a look.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counted {
    id: PeerId,
    is_first: bool,
    first: Option<Time>,
    last: Option<Time>,
    received: i64,
    sent: i64,
    seen_received: i64,
    seen_sent: i64,
}

impl Known {
    fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.get(0)?,
            public_key: row.get(1)?,
            state: row.get(2)?,
            first: row.get(3)?,
            last: row.get(4)?,
            received: row.get(5)?,
            sent: row.get(6)?,
            seen_received: row.get(7)?,
            seen_sent: row.get(8)?,
        })
    }

    /// What `seen` adds at `now`; none when nothing is new. A handshake is never later than now, whatever a clock said.
    fn after(&self, seen: &SeenPeer, now: Time) -> Option<Counted> {
        // One that is on its way out shows up again on the interface only if it is wanted again.
        let shown = seen.handshake.filter(|_| self.state != PeerState::Removing);
        let shown = shown.map(|seconds| Time::from_millis(seconds.saturating_mul(1000)).min(now));
        let (received, seen_received) = added(self.received, self.seen_received, seen.received);
        let (sent, seen_sent) = added(self.sent, self.seen_sent, seen.sent);
        let counted = Counted {
            id: self.id.clone(),
            is_first: self.first.is_none() && shown.is_some(),
            first: self.first.or(shown),
            last: self.last.max(shown),
            received,
            sent,
            seen_received,
            seen_sent,
        };
        let is_new = counted.first != self.first
            || counted.last != self.last
            || (seen_received, seen_sent) != (self.seen_received, self.seen_sent);
        is_new.then_some(counted)
    }
}

/// The sum and the count of the interface after it shows `shown`. A smaller count than the last one began again from zero,
/// with the interface: then all of it is new.
fn added(sum: i64, before: i64, shown: u64) -> (i64, i64) {
    let shown = i64::try_from(shown).unwrap_or(i64::MAX);
    let more = if shown < before { shown } else { shown - before };
    (sum.saturating_add(more), shown)
}

fn write(tx: &mut Tx, counted: &[Counted]) -> Result<(), Error> {
    let row = |peer: &Counted| {
        let id = &peer.id;
        args![id, peer.first, peer.last, peer.received, peer.sent, peer.seen_received, peer.seen_sent].to_vec()
    };
    tx.many_later(sql::COUNT, counted.iter().map(row).collect(), Expect::Any)?;
    for peer in counted.iter().filter(|peer| peer.is_first) {
        let first = Entry { entity: "peer", entity_id: peer.id.as_str(), event: "first handshake", ..Entry::default() };
        history::append(tx, &first)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use semel_kernel::clock::Chance;

    use super::*;

    fn known() -> Known {
        Known {
            id: PeerId::new(Time::from_millis(0), &Chance::seeded(1)),
            public_key: String::new(),
            state: PeerState::Active,
            first: None,
            last: None,
            received: 0,
            sent: 0,
            seen_received: 0,
            seen_sent: 0,
        }
    }

    fn seen(handshake: Option<i64>, received: u64, sent: u64) -> SeenPeer {
        SeenPeer {
            public_key: PublicKey([1; 32]),
            preshared: None,
            allowed: Vec::new(),
            endpoint: None,
            handshake,
            received,
            sent,
            name: None,
        }
    }

    const NOW: Time = Time::from_millis(10_000_000);

    #[test]
    fn an_address_is_kept_as_long_as_a_foreign_peer_has_it() {
        let kept = || vec!["10.8.0.2".to_owned(), "10.8.0.9".to_owned()];
        let theirs = |text: &str| vec![(PublicKey([1; 32]), text.parse().unwrap())];
        assert_eq!(without(kept(), &theirs("10.8.0.0/29")), ["10.8.0.9"]);
        assert_eq!(without(kept(), &theirs("10.8.0.0/28")), Vec::<String>::new());
        assert_eq!(without(kept(), &theirs("10.8.0.0/24")), kept(), "a large network keeps nothing");
    }

    #[test]
    fn only_what_is_new_is_added() {
        assert_eq!(added(0, 0, 100), (100, 100));
        assert_eq!(added(100, 100, 150), (150, 150));
        assert_eq!(added(150, 150, 150), (150, 150));
    }

    #[test]
    fn an_interface_that_counts_from_zero_again_loses_nothing_and_adds_nothing_twice() {
        assert_eq!(added(150, 150, 20), (170, 20));
        assert_eq!(added(170, 20, 25), (175, 25));
        assert_eq!(added(i64::MAX, 0, u64::MAX), (i64::MAX, i64::MAX));
    }

    #[test]
    fn a_peer_of_which_nothing_is_new_is_not_written() {
        assert_eq!(known().after(&seen(None, 0, 0), NOW), None);
        let first = known().after(&seen(Some(9_000), 92, 148), NOW).unwrap();
        assert!(first.is_first);
        assert_eq!((first.first, first.last), (Some(Time::from_millis(9_000_000)), Some(Time::from_millis(9_000_000))));
        assert_eq!((first.received, first.sent), (92, 148));
    }

    #[test]
    fn the_first_handshake_stays_and_the_last_one_only_grows() {
        let at = |seconds: i64| Some(Time::from_millis(seconds * 1000));
        let known = Known { first: at(10), last: at(50), ..known() };
        let later = known.after(&seen(Some(60), 0, 0), NOW).unwrap();
        assert_eq!((later.first, later.last, later.is_first), (at(10), at(60), false));
        assert_eq!(known.after(&seen(Some(40), 0, 0), NOW), None, "an interface that was begun anew forgot it");
        assert_eq!(known.after(&seen(None, 0, 0), NOW), None);
        let ahead = known.after(&seen(Some(99_999_999), 0, 0), NOW).unwrap();
        assert_eq!(ahead.last, Some(NOW), "a clock that was ahead puts nothing into the future");
    }

    #[test]
    fn whoever_was_closed_does_not_connect_for_the_first_time() {
        let closed = Known { state: PeerState::Removing, ..known() };
        assert_eq!(closed.after(&seen(Some(9_000), 0, 0), NOW), None);
    }
}
