//! Another key for a device: a fresh one of ours, or one that the customer brings.
//!
//! The old peer is freed at once and a new one takes its place with an address of its own: the old address rests like any
//! other, because whoever holds the old key may go on sending. Of the old private key nothing is left.

use semel_kernel::args;
use semel_kernel::store::Tx;
use semel_wireguard::key::PublicKey;

use super::peers::{self, Keys};
use super::{Peer, PeerId, PeerState, apply, of, servers, sql};
use crate::subscriptions::Subscription;
use crate::{Error, Shop, subscriptions};

/// Gives the device of `peer` fresh keys and a new address; its old file works no more. Answers the new peer.
///
/// # Errors
/// [`Error::Conflict`] when the peer is not wanted now, or no address is free.
pub fn rotate(tx: &mut Tx, shop: &Shop, peer: &PeerId) -> Result<PeerId, Error> {
    replace(tx, shop, peer, &Keys::fresh(shop))
}

/// Gives the device of `peer` the customer's own public key and a new address. The private key never was here, and the file
/// says so in its place. Answers the new peer.
///
/// # Errors
/// [`Error::Invalid`] for the server's own key or a key of zeros; [`Error::Conflict`] when another peer has the key, the peer
/// is not wanted now, or no address is free.
pub fn own_key(tx: &mut Tx, shop: &Shop, peer: &PeerId, key: PublicKey) -> Result<PeerId, Error> {
    let old = peers::find(tx, peer)?;
    let server = servers::find(tx, &old.server)?;
    if key == server.public_key || key.0 == [0; 32] {
        return Err(Error::invalid("public_key", "this is not a key of a client"));
    }
    if tx.first(sql::KEY_TAKEN, args![&old.server, key.to_string()])?.is_some() {
        return Err(Error::Conflict("a peer of this server has this key already".into()));
    }
    replace(tx, shop, peer, &Keys::of_customer(shop, key))
}

fn replace(tx: &mut Tx, shop: &Shop, peer: &PeerId, keys: &Keys) -> Result<PeerId, Error> {
    of(shop)?;
    let old = peers::find(tx, peer)?;
    // The subscription's row comes before its peers, whoever changes them.
    let sub = subscriptions::flows::lock(tx, &old.subscription)?;
    let mut old = peers::held(tx, peer)?;
    if !matches!(old.state, PeerState::Pending | PeerState::Active) {
        return Err(Error::Conflict(format!(
            "peer {peer} is {}: only the key of one that is wanted is replaced",
            old.state.as_str()
        )));
    }
    let Some(new) = in_place(tx, shop, &sub, &mut old, keys)? else {
        return Err(Error::Conflict("no address is free for the new key: the old one rests first".into()));
    };
    apply::soon(tx, shop, &sub.server)?;
    Ok(new)
}

/// Frees `old`, and gives its device these keys and a new address. None, and nothing changed, when no address is free. Both rows
/// are held by the caller, who has the servers brought to it.
pub(super) fn in_place(
    tx: &mut Tx,
    shop: &Shop,
    sub: &Subscription,
    old: &mut Peer,
    keys: &Keys,
) -> Result<Option<PeerId>, Error> {
    let lots = peers::claim(tx, &sub.server, 1)?;
    let Some(ips) = lots.and_then(|lots| lots.into_iter().next()) else { return Ok(None) };
    peers::advance(tx, shop, old, PeerState::Freed, None)?;
    peers::add(tx, shop, sub, old.device, keys, &ips, "issued in place of another").map(Some)
}
