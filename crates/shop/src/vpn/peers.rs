//! Peers: issued for each device of a subscription, closed when its time is over, opened again by a renewal.
//!
//! Everything here changes rows only, and raises what the server's apply has to bring about. A peer keeps its keys and its
//! addresses from its issue until it is freed, so the file that a customer has works again after a renewal.

use std::collections::BTreeSet;

use zeroize::Zeroizing;

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::history::{self, Entry};
use semel_kernel::store::{Expect, Row, StoreError, Tx};
use semel_wireguard::key::{PresharedKey, PrivateKey, PublicKey};

use super::{Fate, Peer, PeerId, PeerState, ServerId, Vpn, addresses, apply, of, sql};
use crate::subscriptions::{Subscription, SubscriptionId};
use crate::{Error, Shop};

/// The keys of a new peer.
pub(super) struct Keys {
    pub(super) public: PublicKey,
    /// None when the customer keeps it.
    pub(super) private: Option<PrivateKey>,
    /// None where both sides do without.
    pub(super) preshared: Option<PresharedKey>,
}

impl Keys {
    /// Keys that nobody has had before.
    pub(super) fn fresh(shop: &Shop) -> Self {
        let private = PrivateKey::from_random(shop.chance.bytes());
        let preshared = PresharedKey::from_random(shop.chance.bytes());
        Self { public: private.public(), private: Some(private), preshared: Some(preshared) }
    }

    /// A key that the customer brought, and a preshared key of ours.
    pub(super) fn of_customer(shop: &Shop, public: PublicKey) -> Self {
        Self { public, private: None, preshared: Some(PresharedKey::from_random(shop.chance.bytes())) }
    }
}

/// Issues a peer with keys and addresses for every device of `sub` that has none. False, and nothing written, when there is no
/// address left for one of them. The subscription's row is held by the caller.
///
/// # Errors
/// [`Error::Conflict`] without the VPN part; what the store says.
pub fn issue(tx: &mut Tx, shop: &Shop, sub: &Subscription) -> Result<bool, Error> {
    of(shop)?;
    let there: BTreeSet<i64> = of_subscription(tx, &sub.id)?.iter().map(|peer| peer.device).collect();
    let missing: Vec<i64> = (1..=sub.devices).filter(|device| !there.contains(device)).collect();
    if missing.is_empty() {
        return Ok(true);
    }
    let Some(lots) = claim(tx, &sub.server, missing.len())? else { return Ok(false) };
    for (device, ips) in missing.iter().zip(&lots) {
        add(tx, shop, sub, *device, &Keys::fresh(shop), ips, "issued")?;
    }
    apply::soon(tx, shop, &sub.server)?;
    Ok(true)
}

/// Wants every peer of `sub` again, with the keys and addresses that it had, and issues those that are missing. False, and
/// nothing written, when there is no address left for a missing one. The subscription's row is held by the caller.
///
/// # Errors
/// [`Error::Conflict`] without the VPN part; what the store says.
pub fn open(tx: &mut Tx, shop: &Shop, sub: &Subscription) -> Result<bool, Error> {
    let mut there = held_of(tx, &sub.id)?;
    if !issue(tx, shop, sub)? {
        return Ok(false);
    }
    let mut changed = false;
    for peer in there.iter_mut().filter(|peer| matches!(peer.state, PeerState::Removing | PeerState::Sticky)) {
        peer.fate = Fate::Sticky;
        advance(tx, shop, peer, PeerState::Pending, None)?;
        changed = true;
    }
    if changed {
        apply::soon(tx, shop, &sub.server)?;
    }
    Ok(true)
}

/// Wants no peer of the subscription any more. `fate` says what becomes of keys and addresses once the interface has let them
/// go; what is kept already goes at once when it shall be freed.
///
/// # Errors
/// What the store says.
pub fn close(tx: &mut Tx, shop: &Shop, sub: &SubscriptionId, fate: Fate) -> Result<(), Error> {
    let mut servers = BTreeSet::new();
    for mut peer in held_of(tx, sub)? {
        match peer.state {
            PeerState::Pending | PeerState::Active => {
                peer.fate = fate;
                advance(tx, shop, &mut peer, PeerState::Removing, None)?;
                servers.insert(peer.server);
            }
            PeerState::Removing if fate == Fate::Freed => {
                tx.later(sql::SET_FATE, args![&peer.id, fate.as_str()], Expect::Rows(1))?;
            }
            PeerState::Sticky if fate == Fate::Freed => advance(tx, shop, &mut peer, PeerState::Freed, None)?,
            PeerState::Removing | PeerState::Sticky | PeerState::Freed => {}
        }
    }
    for server in &servers {
        apply::soon(tx, shop, server)?;
    }
    Ok(())
}

/// A peer by id.
///
/// # Errors
/// [`Error::NotFound`].
pub fn find(tx: &mut Tx, id: &PeerId) -> Result<Peer, Error> {
    let row = tx.first(sql::PEER, args![id])?;
    Ok(peer_of(&row.ok_or_else(|| Error::missing("peer", id))?)?)
}

/// The peers of a subscription that are not freed, by device.
///
/// # Errors
/// What the store says.
pub fn of_subscription(tx: &mut Tx, sub: &SubscriptionId) -> Result<Vec<Peer>, Error> {
    let rows = tx.rows(sql::PEERS_OF, args![sub])?;
    Ok(rows.iter().map(peer_of).collect::<Result<_, _>>()?)
}

/// Peers, the newest first: of a server, in a state, below the id `before`.
///
/// # Errors
/// What the store says.
pub fn list(
    tx: &mut Tx,
    server: Option<&ServerId>,
    state: Option<PeerState>,
    before: Option<&PeerId>,
    limit: i64,
) -> Result<Vec<Peer>, Error> {
    let rows = tx.rows(sql::LIST_PEERS, args![server, state.map(PeerState::as_str), before, limit])?;
    Ok(rows.iter().map(peer_of).collect::<Result<_, _>>()?)
}

/// The addresses that a peer has, IPv4 first; of a freed one those that it had.
///
/// # Errors
/// What the store says.
pub fn addresses_of(tx: &mut Tx, peer: &Peer) -> Result<Vec<String>, Error> {
    let statement = if peer.state == PeerState::Freed { sql::PEER_ADDRESSES_EVER } else { sql::PEER_ADDRESSES };
    let rows = tx.rows(statement, args![&peer.id])?;
    Ok(rows.iter().map(|row| row.get(0)).collect::<Result<_, _>>()?)
}

/// Whether any device of the subscription has ever connected.
///
/// # Errors
/// What the store says.
pub fn connected_once(tx: &mut Tx, sub: &SubscriptionId) -> Result<bool, Error> {
    Ok(tx.first(sql::CONNECTED_ONCE, args![sub])?.is_some())
}

/// A peer by id, its row held until the transaction ends.
pub(super) fn held(tx: &mut Tx, id: &PeerId) -> Result<Peer, Error> {
    let row = tx.first(sql::PEER_HELD, args![id])?;
    Ok(peer_of(&row.ok_or_else(|| Error::missing("peer", id))?)?)
}

fn held_of(tx: &mut Tx, sub: &SubscriptionId) -> Result<Vec<Peer>, Error> {
    let rows = tx.rows(sql::PEERS_OF_HELD, args![sub])?;
    Ok(rows.iter().map(peer_of).collect::<Result<_, _>>()?)
}

/// Claims addresses for `count` peers: of each family that the server has, one each. `None`, and nothing claimed, when there
/// are not enough.
pub(super) fn claim(tx: &mut Tx, server: &ServerId, count: usize) -> Result<Option<Vec<Vec<String>>>, Error> {
    let families = tx.rows(sql::FAMILIES, args![server])?;
    let mut lots: Vec<Vec<String>> = vec![Vec::new(); count];
    for row in &families {
        let wanted = i64::try_from(count).unwrap_or(i64::MAX);
        match addresses::claim(tx, server, row.get(0)?, wanted)? {
            Some(ips) => lots.iter_mut().zip(ips).for_each(|(lot, ip)| lot.push(ip)),
            None => {
                addresses::give_back(tx, server, &lots.concat())?;
                return Ok(None);
            }
        }
    }
    // A server without a network gives nobody an address.
    Ok(if families.is_empty() { None } else { Some(lots) })
}

/// Writes a new peer that has claimed `ips`.
pub(super) fn add(
    tx: &mut Tx,
    shop: &Shop,
    sub: &Subscription,
    device: i64,
    keys: &Keys,
    ips: &[String],
    event: &str,
) -> Result<PeerId, Error> {
    let (vpn, now) = (of(shop)?, tx.now());
    let id = PeerId::new(now, &shop.chance);
    let private = keys.private.as_ref().map(|key| seal(shop, vpn, id.as_str(), &key.to_base64()));
    let preshared = seal_preshared(shop, &id, keys.preshared.as_ref())?;
    let public = keys.public.to_string();
    let args = args![&id, &sub.id, &sub.server, device, public, private, preshared, now];
    tx.later(sql::ADD_PEER, args, Expect::Rows(1))?;
    addresses::give_to(tx, &sub.server, &id, ips)?;
    let step = Entry {
        entity: "peer",
        entity_id: id.as_str(),
        n: Some(1),
        event,
        to: Some(PeerState::Pending.as_str()),
        thread: Some(sub.id.as_str()),
        ..Entry::default()
    };
    history::append(tx, &step)?;
    Ok(id)
}

/// Moves `peer` to `to`, if the table has such a step. The peer must have been read in this transaction.
pub(super) fn advance(
    tx: &mut Tx,
    shop: &Shop,
    peer: &mut Peer,
    to: PeerState,
    detail: Option<&str>,
) -> Result<(), Error> {
    let Some(event) = peer.state.event_to(to) else {
        return Err(Error::Conflict(format!(
            "peer {} is {} and cannot become {}",
            peer.id,
            peer.state.as_str(),
            to.as_str()
        )));
    };
    let now = tx.now();
    let sticky = shop.vpn.as_ref().map(|vpn| vpn.rules.sticky).unwrap_or_default();
    let sticky_until = (to == PeerState::Sticky).then(|| now + sticky);
    let freed_at = (to == PeerState::Freed).then_some(now);
    let args = args![&peer.id, peer.version, to.as_str(), peer.fate.as_str(), sticky_until, freed_at];
    tx.later(sql::ADVANCE_PEER, args, Expect::Rows(1))?;
    tell(tx, &peer.id, &peer.subscription, peer.version + 1, event, (peer.state, to), detail)?;
    peer.version += 1;
    peer.state = to;
    peer.sticky_until = sticky_until;
    peer.freed_at = freed_at;
    if to == PeerState::Freed {
        addresses::rest(tx, shop, &peer.server, &peer.id)?;
    }
    if let Some(until) = sticky_until {
        addresses::release_at(tx, shop, until)?;
    }
    Ok(())
}

/// The history of the state change `n` of a peer.
pub(super) fn tell(
    tx: &mut Tx,
    peer: &PeerId,
    sub: &SubscriptionId,
    n: i64,
    event: &str,
    (from, to): (PeerState, PeerState),
    detail: Option<&str>,
) -> Result<(), StoreError> {
    let step = Entry {
        entity: "peer",
        entity_id: peer.as_str(),
        n: Some(n),
        event,
        from: Some(from.as_str()),
        to: Some(to.as_str()),
        thread: Some(sub.as_str()),
        detail,
        ..Entry::default()
    };
    history::append(tx, &step)
}

fn seal(shop: &Shop, vpn: &Vpn, about: &str, secret: &str) -> String {
    vpn.sealing.seal(shop.chance.bytes(), about, secret.as_bytes())
}

/// The preshared key of `peer` as its row holds it; one that it does not have is an empty text.
pub(super) fn seal_preshared(shop: &Shop, peer: &PeerId, key: Option<&PresharedKey>) -> Result<String, Error> {
    let text = key.map(PresharedKey::to_base64).unwrap_or_default();
    Ok(seal(shop, of(shop)?, &about_preshared(peer), &text))
}

/// Both secrets of a peer are bound to it, and neither opens as the other.
fn about_preshared(peer: &PeerId) -> String {
    format!("{peer}/preshared")
}

/// Opens the private key of `peer`.
pub(super) fn open_private(vpn: &Vpn, peer: &PeerId, sealed: &str) -> Result<PrivateKey, Error> {
    let text = unseal(vpn, peer, peer.as_str(), sealed)?;
    let key = text.parse::<PrivateKey>();
    key.map_err(|_| Error::Conflict(format!("the private key of peer {peer} is none")))
}

/// Opens the preshared key of `peer`, if it has one.
pub(super) fn open_preshared(vpn: &Vpn, peer: &PeerId, sealed: &str) -> Result<Option<PresharedKey>, Error> {
    let text = unseal(vpn, peer, &about_preshared(peer), sealed)?;
    if text.is_empty() {
        return Ok(None);
    }
    let key = text.parse::<PresharedKey>();
    key.map(Some).map_err(|_| Error::Conflict(format!("the preshared key of peer {peer} is none")))
}

fn unseal(vpn: &Vpn, peer: &PeerId, about: &str, sealed: &str) -> Result<Zeroizing<String>, Error> {
    let secret = vpn.sealing.open(about, sealed);
    let secret = secret.map_err(|error| Error::Conflict(format!("a key of peer {peer} cannot be opened: {error}")))?;
    match str::from_utf8(&secret) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(Error::Conflict(format!("a key of peer {peer} is no text"))),
    }
}

fn peer_of(row: &Row) -> Result<Peer, StoreError> {
    Ok(Peer {
        id: row.get(0)?,
        subscription: row.get(1)?,
        server: row.get(2)?,
        device: row.get(3)?,
        public_key: row.get(4)?,
        own_key: row.get(5)?,
        state: row.get(6)?,
        fate: row.get(7)?,
        version: row.get(8)?,
        created_at: row.get(9)?,
        sticky_until: row.get::<Option<Time>>(10)?,
        freed_at: row.get::<Option<Time>>(11)?,
        first_handshake_at: row.get::<Option<Time>>(12)?,
        last_handshake_at: row.get::<Option<Time>>(13)?,
        received: row.get(14)?,
        sent: row.get(15)?,
    })
}
