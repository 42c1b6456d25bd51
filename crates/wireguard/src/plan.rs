//! What has to change so that what is seen becomes what is wanted. Pure thought: it reads nothing and calls nobody.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::key::PublicKey;
use crate::peer::{Peer, SeenPeer};

/// The most addresses of a network that count one by one as a foreign peer's own. Whoever has a larger one routes something
/// to somewhere, and single addresses within it are still given out.
pub const LARGEST_FOREIGN: u32 = 16;

/// Whether `network` is so small that each of its addresses is a foreign peer's own.
pub fn is_small(network: &IpNet) -> bool {
    let free_bits = u32::from(network.max_prefix_len() - network.prefix_len());
    1_u32.checked_shl(free_bits).is_some_and(|addresses| addresses <= LARGEST_FOREIGN)
}

/// The peers that a file or an interface has.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Each by its key.
    pub peers: BTreeMap<PublicKey, SeenPeer>,
    /// The interface's own key, where one was seen.
    pub own: Option<PublicKey>,
}

/// The steps from what is seen to what is wanted.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Wanted and not there.
    pub add: Vec<Peer>,
    /// Wanted and there with other addresses or another preshared key.
    pub change: Vec<Peer>,
    /// There and ours, no longer wanted.
    pub remove: Vec<PublicKey>,
    /// Wanted and not to be had without taking from somebody else: a foreign peer has the key or one of the addresses.
    pub refused: Vec<PublicKey>,
    /// There, and nobody told us why. They stay.
    pub foreign: Vec<PublicKey>,
}

impl Plan {
    /// Whether all is as it shall be. Foreign peers may be there.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.change.is_empty() && self.remove.is_empty() && self.refused.is_empty()
    }
}

/// Compares `wanted` with `seen`.
///
/// Only a key in `ours` (it is or once was ours) may be removed or changed. A wanted peer with an address that a foreign one
/// has is refused, because an interface moves an address to whoever comes last. A key that stands twice in `wanted` counts
/// once, as it stands first.
pub fn plan(wanted: &[Peer], seen: &Seen, ours: &BTreeSet<PublicKey>) -> Plan {
    let mut plan = Plan::default();
    let mut asked = BTreeSet::new();
    let (mut add, mut change) = (Vec::new(), Vec::new());
    for peer in wanted {
        if !asked.insert(peer.public_key) {
            continue;
        }
        match seen.peers.get(&peer.public_key) {
            None => add.push(peer),
            Some(there) if !peer.is_shown_by(there) => change.push(peer),
            Some(_) => {}
        }
    }
    let mut theirs: BTreeSet<IpNet> = BTreeSet::new();
    for (key, there) in seen.peers.iter().filter(|(key, _)| !asked.contains(*key)) {
        if ours.contains(key) {
            plan.remove.push(*key);
        } else {
            plan.foreign.push(*key);
            theirs.extend(there.allowed.iter().filter(|network| is_small(network)).map(IpNet::trunc));
        }
    }
    for (peer, is_there) in add.into_iter().map(|peer| (peer, false)).chain(change.into_iter().map(|peer| (peer, true)))
    {
        let is_foreign = is_there && !ours.contains(&peer.public_key);
        if is_foreign || peer.allowed.iter().any(|network| is_among(network, &theirs)) {
            plan.refused.push(peer.public_key);
        } else if is_there {
            plan.change.push(peer.clone());
        } else {
            plan.add.push(peer.clone());
        }
    }
    plan
}

/// Whether one of these small networks has an address of `network`.
fn is_among(network: &IpNet, theirs: &BTreeSet<IpNet>) -> bool {
    if theirs.is_empty() {
        return false;
    }
    // Small networks differ from a single address in few bits: each that could hold it is looked up.
    let longest = network.max_prefix_len();
    let shortest = longest.saturating_sub(u8::try_from(LARGEST_FOREIGN.ilog2()).unwrap_or(0));
    (shortest..=longest.min(network.prefix_len()))
        .filter_map(|length| IpNet::new(network.addr(), length).ok())
        .any(|around| theirs.contains(&around.trunc()))
        || (network.prefix_len() < longest && theirs.iter().any(|small| network.contains(small)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::testing::{key, peer, peers, preshared};

    fn seen(peers: &[Peer]) -> Seen {
        let shown = |peer: &Peer| SeenPeer {
            public_key: peer.public_key,
            preshared: peer.preshared.clone(),
            allowed: peer.allowed.clone(),
            endpoint: None,
            handshake: None,
            received: 0,
            sent: 0,
            name: None,
        };
        Seen { peers: peers.iter().map(|peer| (peer.public_key, shown(peer))).collect(), own: None }
    }

    fn keys(peers: &[Peer]) -> Vec<PublicKey> {
        peers.iter().map(|peer| peer.public_key).collect()
    }

    #[test]
    fn what_is_right_stays_and_what_nobody_knows_stays_too() {
        let ours: BTreeSet<PublicKey> = (1..=4).map(key).collect();
        let there = seen(&peers([1, 2, 3, 9]));
        let mut wanted = peers([1, 2, 4]);
        wanted[1].preshared = Some(preshared(7));
        let plan = plan(&wanted, &there, &ours);
        assert_eq!(keys(&plan.add), [key(4)]);
        assert_eq!(keys(&plan.change), [key(2)]);
        assert_eq!(plan.remove, [key(3)]);
        assert_eq!(plan.foreign, [key(9)]);
        assert!(!plan.is_empty());
    }

    #[test]
    fn nothing_to_do_is_an_empty_plan() {
        let plan = plan(&peers([1, 2]), &seen(&peers([2, 1, 8])), &BTreeSet::new());
        assert!(plan.is_empty());
        assert_eq!(plan.foreign, [key(8)]);
    }

    #[test]
    fn a_key_that_is_wanted_twice_is_added_once() {
        let plan = plan(&[peer(1), peer(1)], &Seen::default(), &BTreeSet::new());
        assert_eq!(keys(&plan.add), [key(1)]);
    }

    #[test]
    fn an_address_of_a_foreign_peer_is_not_taken_from_it() {
        let mut foreign = peer(9);
        foreign.allowed = vec!["10.8.0.1/32".parse().unwrap()];
        let there = seen(&[foreign.clone(), peer(2)]);
        let mut wanted = peers([1, 2, 3]);
        wanted[1].preshared = None;
        let ours: BTreeSet<PublicKey> = (1..=3).map(key).collect();
        let found = plan(&wanted, &there, &ours);
        assert_eq!(found.refused, [key(1)]);
        assert_eq!((keys(&found.add), keys(&found.change)), (vec![key(3)], vec![key(2)]));
        assert!(!found.is_empty());

        // A small network around it counts, a large one does not.
        foreign.allowed = vec!["10.8.0.0/28".parse().unwrap()];
        assert_eq!(plan(&wanted, &seen(std::slice::from_ref(&foreign)), &ours).refused.len(), 3);
        foreign.allowed = vec!["10.8.0.0/24".parse().unwrap()];
        assert!(plan(&wanted, &seen(std::slice::from_ref(&foreign)), &ours).refused.is_empty());
    }

    #[test]
    fn a_key_that_was_never_ours_is_not_changed() {
        let mut wanted = peers([1]);
        wanted[0].preshared = None;
        let found = plan(&wanted, &seen(&peers([1])), &BTreeSet::new());
        assert!(found.change.is_empty());
        assert_eq!(found.refused, [key(1)]);
    }

    #[test]
    fn small_is_up_to_sixteen_addresses() {
        for (text, expected) in [("10.0.0.1/32", true), ("10.0.0.0/28", true), ("10.0.0.0/27", false), ("::/0", false)]
        {
            assert_eq!(is_small(&text.parse().unwrap()), expected, "{text}");
        }
        assert!(is_small(&"fd00::/124".parse().unwrap()));
    }
}
