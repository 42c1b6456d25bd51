//! Servers, addresses and peers as rows, the states of a peer, and what the settings say.

use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use semel_kernel::clock::Time;
use semel_kernel::store::{FromValue, StoreError, Value};
use semel_wireguard::Amnezia;
use semel_wireguard::key::PublicKey;
use semel_wireguard::pool::Pool;
use semel_wireguard::reconcile::Target;
use semel_wireguard::seal::SealingKey;

use crate::subscriptions::SubscriptionId;

semel_kernel::id!(ServerId, "srv", "A server that peers connect to.");
semel_kernel::id!(PoolId, "pol", "A network of a server whose addresses are given out.");
semel_kernel::id!(PeerId, "peer", "A peer: one device of one subscription, with its keys and addresses.");

/// What the server of this machine is called unless the settings say otherwise.
pub const LOCAL: &str = "local";

crate::states! {
    /// Where a peer stands.
    PeerState {
        /// Wanted; the interface was not seen to have it yet.
        Pending = "pending",
        /// Wanted, and seen on the interface.
        Active = "active",
        /// Not wanted; the interface may still have it.
        Removing = "removing",
        /// Gone from the interface; address and keys are kept, so that the same file works again after a renewal.
        Sticky = "sticky",
        /// Gone for good: its addresses rest and then go to others.
        Freed = "freed",
    }
    /// What may follow what.
    PEER_TRANSITIONS {
        Pending --"seen on the interface"--> Active,
        Pending --"closed"--> Removing,
        Active --"closed"--> Removing,
        Pending --"key replaced"--> Freed,
        Active --"key replaced"--> Freed,
        Removing --"opened again"--> Pending,
        Removing --"gone, kept for a renewal"--> Sticky,
        Removing --"gone for good"--> Freed,
        Sticky --"opened again"--> Pending,
        Sticky --"no longer kept"--> Freed,
    }
}

/// What becomes of a peer once it is gone from the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Address and keys are kept for a while: a renewal brings the same file back.
    Sticky,
    /// Nothing is kept; the address goes into quarantine.
    Freed,
}

impl Fate {
    /// The word in rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sticky => "sticky",
            Self::Freed => "freed",
        }
    }
}

impl FromValue for Fate {
    fn from_value(value: Value) -> Result<Self, StoreError> {
        let word = String::from_value(value)?;
        match word.as_str() {
            "sticky" => Ok(Self::Sticky),
            "freed" => Ok(Self::Freed),
            _ => Err(StoreError::Decode { wanted: "a fate of a peer", found: word }),
        }
    }
}

/// What clients of a server do with IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ipv6 {
    /// The tunnel does not touch it: it goes past the VPN.
    Off,
    /// Each peer has an address of its own, and IPv6 goes through the tunnel.
    Routed,
    /// IPv6 is led into the tunnel and ends there, so that nothing goes past the VPN.
    Blocked,
}

impl Ipv6 {
    /// The word in rows and settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Routed => "routed",
            Self::Blocked => "blocked",
        }
    }

    /// The same as a client's file knows it.
    pub(super) const fn of_client(self) -> semel_wireguard::client::Ipv6 {
        match self {
            Self::Off => semel_wireguard::client::Ipv6::Off,
            Self::Routed => semel_wireguard::client::Ipv6::Routed,
            Self::Blocked => semel_wireguard::client::Ipv6::Blocked,
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Off, Self::Routed, Self::Blocked].into_iter().find(|known| known.as_str() == word)
    }
}

impl FromValue for Ipv6 {
    fn from_value(value: Value) -> Result<Self, StoreError> {
        let word = String::from_value(value)?;
        Self::parse(&word).ok_or(StoreError::Decode { wanted: "what clients do with IPv6", found: word })
    }
}

/// The VPN part of a shop.
pub struct Vpn {
    /// Seals private and preshared keys in rows. It comes from outside the database.
    pub sealing: SealingKey,
    /// The server of these settings, which the copy that has a target applies.
    pub server: ServerSettings,
    /// Its file, or its file and its interface. None: another copy applies it, and this one only sells.
    pub target: Option<Target>,
    /// The owner's rules.
    pub rules: VpnRules,
}

/// What the settings say about a server.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Its name; its row is found by it.
    pub name: String,
    /// The interface: `wg0`.
    pub interface: String,
    /// Where clients connect: `vpn.example.com:51820`.
    pub endpoint: String,
    /// The server's public key.
    pub public_key: PublicKey,
    /// Name servers, and domains to search, as they stand in a client's file.
    pub dns: Vec<String>,
    /// The MTU in a client's file, if the usual one does not fit.
    pub mtu: Option<u16>,
    /// Seconds between keepalives; zero for none.
    pub keepalive: u16,
    /// What clients send through the tunnel.
    pub allowed_ips: Vec<IpNet>,
    /// What they do with IPv6.
    pub ipv6: Ipv6,
    /// The parameters of AmneziaWG, if the server speaks it.
    pub amnezia: Option<Amnezia>,
    /// Its networks, without what is reserved.
    pub pools: Vec<Pool>,
}

/// The owner's rules for VPN access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VpnRules {
    /// How long a trial lasts; zero for no trials.
    pub trial: Duration,
    /// How long access goes on after the end of what was paid.
    pub grace: Duration,
    /// How long address and keys are kept after access ended.
    pub sticky: Duration,
    /// How long a freed address rests before somebody else gets it.
    pub quarantine: Duration,
    /// How often traffic and handshakes are read.
    pub traffic_every: Duration,
    /// How long before its end a subscription's customer is reminded, the longest first.
    pub remind: Vec<Duration>,
    /// How long after the issue somebody who never connected is asked, the shortest first.
    pub unconnected: Vec<Duration>,
    /// The beginning of tunnel names: Latin letters.
    pub name_prefix: String,
    /// Where customers ask for help: an address of the web, or `@name` in Telegram.
    pub support: Option<String>,
}

/// A server's row.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its id.
    pub id: ServerId,
    /// Its name.
    pub name: String,
    /// The interface.
    pub interface: String,
    /// Where clients connect.
    pub endpoint: String,
    /// Its public key.
    pub public_key: PublicKey,
    /// Name servers and search domains.
    pub dns: Vec<String>,
    /// The MTU of clients.
    pub mtu: Option<u16>,
    /// Seconds between keepalives.
    pub keepalive: u16,
    /// What clients send through the tunnel.
    pub allowed_ips: Vec<IpNet>,
    /// What they do with IPv6.
    pub ipv6: Ipv6,
    /// The parameters of AmneziaWG.
    pub amnezia: Option<Amnezia>,
    /// Whether new subscriptions may go here.
    pub open: bool,
    /// Changes of the wanted peers so far.
    pub wanted: i64,
    /// The change that the interface was last brought to.
    pub applied: i64,
    /// As of when the interface was last seen to be as wanted.
    pub applied_at: Option<Time>,
    /// Why the last apply failed.
    pub trouble: Option<String>,
    /// When it was made.
    pub created_at: Time,
}

/// A peer's row, without its secrets.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its id.
    pub id: PeerId,
    /// Whose it is.
    pub subscription: SubscriptionId,
    /// Where it connects.
    pub server: ServerId,
    /// Which device of the subscription, from 1.
    pub device: i64,
    /// Its public key, in base64.
    pub public_key: String,
    /// Whether the customer brought the key: we never had the private one.
    pub own_key: bool,
    /// Where it stands.
    pub state: PeerState,
    /// What follows once it is gone from the interface.
    pub fate: Fate,
    /// State changes so far.
    pub version: i64,
    /// When it was issued.
    pub created_at: Time,
    /// Until when a peer that is gone is kept.
    pub sticky_until: Option<Time>,
    /// When it was freed.
    pub freed_at: Option<Time>,
    /// When it first connected.
    pub first_handshake_at: Option<Time>,
    /// When it last did.
    pub last_handshake_at: Option<Time>,
    /// Bytes that came from it.
    pub received: i64,
    /// Bytes that went to it.
    pub sent: i64,
}

/// The form of a client's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Plain WireGuard.
    WireGuard,
    /// The same with the parameters of AmneziaWG.
    AmneziaWg,
}

impl Form {
    /// The word in rows and requests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WireGuard => "wireguard",
            Self::AmneziaWg => "amneziawg",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::WireGuard, Self::AmneziaWg].into_iter().find(|form| form.as_str() == word)
    }
}

impl FromValue for Form {
    fn from_value(value: Value) -> Result<Self, StoreError> {
        let word = String::from_value(value)?;
        Self::parse(&word).ok_or(StoreError::Decode { wanted: "a form of a client's file", found: word })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_peer_never_comes_back() {
        assert!(PEER_TRANSITIONS.iter().all(|(from, _, _)| *from != PeerState::Freed));
    }

    #[test]
    fn what_may_still_be_on_the_interface_is_not_kept_before_it_is_gone() {
        for from in [PeerState::Pending, PeerState::Active] {
            assert_eq!(from.event_to(PeerState::Sticky), None);
            assert!(from.event_to(PeerState::Removing).is_some());
        }
    }

    #[test]
    fn words_are_read_back() {
        for form in [Form::WireGuard, Form::AmneziaWg] {
            assert_eq!(Form::parse(form.as_str()), Some(form));
        }
        for ipv6 in [Ipv6::Off, Ipv6::Routed, Ipv6::Blocked] {
            assert_eq!(Ipv6::parse(ipv6.as_str()), Some(ipv6));
        }
        assert_eq!(Form::parse("WireGuard"), None);
    }
}
