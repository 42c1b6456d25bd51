//! What a server shall be brought to, read at one moment.

use std::collections::BTreeSet;

use ipnet::IpNet;

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::store::{Row, StoreError, Tx};
use semel_wireguard::Keep;
use semel_wireguard::key::PublicKey;
use semel_wireguard::peer::{Peer, PeerName};

use super::{PeerId, PeerState, Server, ServerId, of, peers, servers, sql};
use crate::{Error, Shop};

/// A peer on its way, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OnItsWay {
    pub(super) id: PeerId,
    pub(super) version: i64,
    pub(super) key: PublicKey,
}

/// Whether a scene has the preshared keys, too.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrets {
    /// They are opened, for whoever writes them into file and interface.
    Opened,
    /// They stay sealed, for whoever compares keys and addresses only.
    Sealed,
}

/// A server and what is wanted of it.
pub(super) struct Scene {
    /// The server, read before its peers: what changes meanwhile raises `wanted` above what stands here.
    pub(super) server: Server,
    /// When it was read.
    pub(super) at: Time,
    /// Every peer that shall be there.
    pub(super) wanted: Vec<Peer>,
    /// Which of them nobody has seen there yet.
    pub(super) pending: Vec<OnItsWay>,
    /// Peers that shall go.
    pub(super) removing: Vec<OnItsWay>,
    /// Keys that may be taken away or changed.
    pub(super) ours: BTreeSet<PublicKey>,
    /// Peers whose secrets cannot be opened, and why. They are neither wanted nor taken away.
    pub(super) sealed_up: Vec<(OnItsWay, String)>,
    /// Between the fence lines these stay.
    pub(super) keep: Keep,
}

impl Scene {
    /// Reads it.
    pub(super) fn read(tx: &mut Tx, shop: &Shop, server: &ServerId, secrets: Secrets) -> Result<Self, Error> {
        let vpn = of(shop)?;
        let (server, at) = (servers::find(tx, server)?, tx.now());
        let mut ours: BTreeSet<PublicKey> = BTreeSet::new();
        for row in &tx.rows(sql::OURS, args![&server.id])? {
            ours.insert(key(row, 0)?);
        }
        let (mut wanted, mut pending): (Vec<Peer>, Vec<OnItsWay>) = (Vec::new(), Vec::new());
        let mut sealed_up: Vec<(OnItsWay, String)> = Vec::new();
        let (mut listed, mut last): (BTreeSet<PeerId>, Option<PeerId>) = (BTreeSet::new(), None);
        for row in &tx.rows(sql::WANTED, args![&server.id])? {
            let id: PeerId = row.get(0)?;
            let allowed = row.get::<Option<String>>(7)?.map(|ip| network(&ip)).transpose()?;
            if last.as_ref() == Some(&id) {
                // The next address of the same peer.
                if let Some(peer) = wanted.last_mut() {
                    peer.allowed.extend(allowed);
                }
                continue;
            }
            if !listed.insert(id.clone()) {
                continue; // A further address of one that was passed over.
            }
            let peer = OnItsWay { id: id.clone(), version: row.get(1)?, key: key(row, 3)? };
            let preshared = match secrets {
                Secrets::Sealed => None,
                Secrets::Opened => match peers::open_preshared(vpn, &id, &row.get::<String>(4)?) {
                    Ok(preshared) => preshared,
                    Err(error) => {
                        ours.remove(&peer.key);
                        sealed_up.push((peer, error.to_string()));
                        continue;
                    }
                },
            };
            // A customer's own key that nobody has brought about yet may be a foreign peer's: that one is not changed.
            if row.get::<bool>(8)? {
                ours.remove(&peer.key);
            }
            wanted.push(Peer {
                public_key: peer.key,
                preshared,
                allowed: allowed.into_iter().collect(),
                comment: PeerName::clean(&friendly_name(row.get(6)?, row.get(5)?)),
            });
            if row.get::<PeerState>(2)? == PeerState::Pending {
                pending.push(peer);
            }
            last = Some(id);
        }
        let mut removing = Vec::new();
        for row in &tx.rows(sql::REMOVING, args![&server.id])? {
            let id: PeerId = row.get(0)?;
            // Closed between the two looks: it is still among the wanted, and the next apply takes it away.
            if !listed.contains(&id) {
                removing.push(OnItsWay { id, version: row.get(1)?, key: key(row, 2)? });
            }
        }
        for peer in &mut wanted {
            peer.allowed.sort();
        }
        let keep = match sealed_up.is_empty() {
            true => Keep::Nobody,
            false => Keep::These(sealed_up.iter().map(|(peer, _)| peer.key).collect()),
        };
        Ok(Self { server, at, wanted, pending, removing, ours, sealed_up, keep })
    }

    /// The same where nobody may be cut off: a restored database does not know who paid after its backup.
    pub(super) fn without_removals(mut self) -> Self {
        let wanted: BTreeSet<PublicKey> = self.wanted.iter().map(|peer| peer.public_key).collect();
        self.ours.retain(|key| wanted.contains(key));
        self.removing.clear();
        self.keep = Keep::Everybody;
        self
    }
}

/// What file and metrics call a peer: the customer's Telegram id and the device.
pub(super) fn friendly_name(telegram_id: i64, device: i64) -> String {
    format!("{telegram_id}-{device}")
}

fn key(row: &Row, column: usize) -> Result<PublicKey, StoreError> {
    let text: String = row.get(column)?;
    text.parse().map_err(|_| StoreError::Decode { wanted: "a public key", found: text })
}

/// One address as a network: `/32` or `/128`.
pub(super) fn network(ip: &str) -> Result<IpNet, StoreError> {
    let address: Result<std::net::IpAddr, _> = ip.parse();
    address.map(IpNet::from).map_err(|_| StoreError::Decode { wanted: "an address", found: ip.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_network_of_one() {
        assert_eq!(network("10.8.0.2").unwrap().to_string(), "10.8.0.2/32");
        assert_eq!(network("fd00::2").unwrap().to_string(), "fd00::2/128");
        assert!(network("10.8.0.0/24").is_err());
    }

    #[test]
    fn a_peer_is_called_after_its_customer_and_device() {
        assert_eq!(friendly_name(42, 1), "42-1");
        assert!(PeerName::new(&friendly_name(i64::MAX, 10)).is_ok());
    }
}
