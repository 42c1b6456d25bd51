//! New keys for devices whose keys nobody can open any more, because the key that sealed them is lost.
//!
//! The owner asks for it, and it is done in one transaction: afterwards everything in the database opens with the key at hand.
//! A device gets fresh keys, a new address and with them a new file, or it goes on with the file that it has: what the server
//! needs of it stands in `wg0.conf`, and the private key that is lost here lies on the device. Such a file cannot be sent again,
//! as if the customer had brought the key. With the right key at hand there is nothing to do.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use semel_kernel::args;
use semel_kernel::history::{self, Entry};
use semel_kernel::store::{Expect, Tx};
use semel_wireguard::file;
use semel_wireguard::key::{PresharedKey, PublicKey};

use super::peers::{self, Keys};
use super::{Peer, PeerId, PeerState, ServerId, Vpn, apply, of, replace, sql};
use crate::subscriptions::{self, SubscriptionId};
use crate::{Error, Shop};

/// The preshared keys of the peers of a configuration file: there they stand in plain words.
pub type InFile = BTreeMap<PublicKey, Option<PresharedKey>>;

/// What becomes of the devices whose keys cannot be opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// All of them.
    pub lost: usize,
    /// Those that get fresh keys, a new address and a new file.
    pub renewed: usize,
    /// Those that go on with the file that they have. It cannot be sent again.
    pub kept: usize,
    /// Those that have no access now, and will get a new file with it.
    pub freed: usize,
    /// Those that lose their access, because no address is free or may be given out.
    pub without: usize,
}

/// A device whose keys cannot be opened.
struct Lost {
    peer: PeerId,
    subscription: SubscriptionId,
    /// Whether its customer has the file.
    was_given: bool,
}

/// What becomes of one.
enum Way<'a> {
    /// It has no access, and nothing of it is kept.
    Free,
    /// It keeps its key, its address and this preshared key.
    Keep(&'a Option<PresharedKey>),
    /// Fresh keys and a new address.
    Renew,
    /// There is nothing to keep and nothing to give.
    Without,
}

/// The preshared keys in the configuration file of this server; none where it cannot be read, or is not here.
pub async fn in_file(shop: &Shop) -> InFile {
    let Some(target) = shop.vpn.as_ref().and_then(|vpn| vpn.target.as_ref()) else { return InFile::new() };
    let path = target.conf().file.clone();
    match tokio::task::spawn_blocking(move || file::read(&path)).await {
        Ok(Ok(conf)) => conf.seen().peers.into_values().map(|peer| (peer.public_key, peer.preshared)).collect(),
        _ => InFile::new(),
    }
}

/// What [`renew`] would do, if addresses are free. Changes nothing.
///
/// # Errors
/// [`Error::Conflict`] without the VPN part; what the store says.
pub fn look(tx: &mut Tx, shop: &Shop, there: &InFile, keep_files: bool, may_claim: bool) -> Result<Outcome, Error> {
    let lost = lost(tx, of(shop)?)?;
    let mut outcome = Outcome { lost: lost.len(), ..Outcome::default() };
    for one in &lost {
        let peer = peers::find(tx, &one.peer)?;
        match way(one, &peer, there, keep_files, may_claim) {
            Way::Free => outcome.freed += 1,
            Way::Keep(_) => outcome.kept += 1,
            Way::Renew => outcome.renewed += 1,
            Way::Without => outcome.without += 1,
        }
    }
    Ok(outcome)
}

/// Gives each device whose keys cannot be opened fresh ones; with `keep_files` only those that have no other way. Where no
/// address is free for that, or none may be given out (`may_claim`), a device goes on with its file if it can. From here on the
/// key at hand is the right one. A repeat changes nothing.
///
/// # Errors
/// [`Error::Conflict`] without the VPN part; what the store says.
pub fn renew(tx: &mut Tx, shop: &Shop, there: &InFile, keep_files: bool, may_claim: bool) -> Result<Outcome, Error> {
    let vpn = of(shop)?;
    let lost = lost(tx, vpn)?;
    let mut outcome = Outcome { lost: lost.len(), ..Outcome::default() };
    let mut servers: BTreeSet<ServerId> = BTreeSet::new();
    for one in &lost {
        // The subscription's row comes before its peers, whoever changes them.
        let sub = subscriptions::flows::lock(tx, &one.subscription)?;
        let mut peer = peers::held(tx, &one.peer)?;
        servers.extend([peer.server.clone(), sub.server.clone()]);
        let mut way = way(one, &peer, there, keep_files, may_claim);
        if matches!(way, Way::Renew) {
            if replace::in_place(tx, shop, &sub, &mut peer, &Keys::fresh(shop))?.is_some() {
                outcome.renewed += 1;
                continue;
            }
            way = self::way(one, &peer, there, keep_files, false);
        }
        match way {
            Way::Keep(preshared) => {
                keep(tx, shop, &peer, preshared.as_ref())?;
                outcome.kept += 1;
                continue;
            }
            Way::Free => outcome.freed += 1,
            Way::Renew | Way::Without => outcome.without += 1,
        }
        peers::advance(tx, shop, &mut peer, PeerState::Freed, Some("nobody can open its keys"))?;
    }
    tx.later(sql::SET_KEY, args![vpn.sealing.id()], Expect::Rows(1))?;
    for server in &servers {
        apply::soon(tx, shop, server)?;
    }
    Ok(outcome)
}

fn way<'a>(one: &Lost, peer: &Peer, there: &'a InFile, keep_files: bool, may_claim: bool) -> Way<'a> {
    if !matches!(peer.state, PeerState::Pending | PeerState::Active) {
        return Way::Free;
    }
    // Without the file, which was never handed over, nobody has the private key.
    let key = peer.public_key.parse::<PublicKey>().ok().filter(|_| one.was_given);
    match key.and_then(|key| there.get(&key)) {
        Some(preshared) if keep_files || peer.own_key || !may_claim => Way::Keep(preshared),
        _ if may_claim => Way::Renew,
        _ => Way::Without,
    }
}

/// The devices whose keys cannot be opened with the key at hand, those of one subscription together.
fn lost(tx: &mut Tx, vpn: &Vpn) -> Result<Vec<Lost>, Error> {
    let mut found = Vec::new();
    for row in &tx.rows(sql::SECRETS, &[])? {
        let (peer, subscription): (PeerId, SubscriptionId) = (row.get(0)?, row.get(1)?);
        let (private, preshared): (Option<String>, String) = (row.get(2)?, row.get(3)?);
        let opens = peers::open_preshared(vpn, &peer, &preshared).is_ok()
            && private.is_none_or(|sealed| peers::open_private(vpn, &peer, &sealed).is_ok());
        if !opens {
            found.push(Lost { peer, subscription, was_given: row.get(4)? });
        }
    }
    Ok(found)
}

/// Seals the preshared key of the file anew, and forgets the private key that nobody can open.
fn keep(tx: &mut Tx, shop: &Shop, peer: &Peer, preshared: Option<&PresharedKey>) -> Result<(), Error> {
    let sealed = peers::seal_preshared(shop, &peer.id, preshared)?;
    tx.later(sql::FORGET_PRIVATE, args![&peer.id, sealed], Expect::Rows(1))?;
    let kept = Entry {
        entity: "peer",
        entity_id: peer.id.as_str(),
        event: "its private key is lost here; its file goes on working",
        thread: Some(peer.subscription.as_str()),
        ..Entry::default()
    };
    Ok(history::append(tx, &kept)?)
}
