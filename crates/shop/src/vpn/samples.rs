//! Levels for `/metrics`: what the known exporter of WireGuard tells, under its names, and how full the networks are.

use serde::Serialize;

use semel_kernel::clock::Time;
use semel_kernel::store::Tx;

use super::addresses::{self, Usage};
use super::scene::{friendly_name, network};
use super::{PeerId, sql};
use crate::Error;

/// What `/metrics` shows of the VPN.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Samples {
    /// Peers that are wanted.
    pub peers: Vec<PeerSample>,
    /// Networks, by server and family: `semel_vpn_addresses` and `semel_vpn_addresses_used`.
    pub pools: Vec<Usage>,
}

/// One peer, as `wireguard_received_bytes_total`, `wireguard_sent_bytes_total` and `wireguard_latest_handshake_seconds` show it,
/// with the labels `interface`, `public_key`, `allowed_ips` and `friendly_name`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeerSample {
    /// The interface.
    pub interface: String,
    /// The peer's public key.
    pub public_key: String,
    /// Its addresses, with commas: `10.8.0.2/32,fd00::2/128`.
    pub allowed_ips: String,
    /// The customer's Telegram id and the device: `42-1`.
    pub friendly_name: String,
    /// Bytes that came from it, also before the interface began to count anew.
    pub received: i64,
    /// Bytes that went to it.
    pub sent: i64,
    /// Its last handshake in seconds since 1970; zero for never.
    pub latest_handshake_s: i64,
}

/// Reads all of it.
///
/// # Errors
/// What the store says.
pub fn samples(tx: &mut Tx) -> Result<Samples, Error> {
    let (mut peers, mut last): (Vec<PeerSample>, Option<PeerId>) = (Vec::new(), None);
    for row in &tx.rows(sql::SAMPLES, &[])? {
        let id: PeerId = row.get(1)?;
        let address = row.get::<Option<String>>(8)?.map(|ip| network(&ip)).transpose()?;
        if last.as_ref() != Some(&id) {
            let handshake: Option<Time> = row.get(7)?;
            peers.push(PeerSample {
                interface: row.get(0)?,
                public_key: row.get(2)?,
                allowed_ips: String::new(),
                friendly_name: friendly_name(row.get(4)?, row.get(3)?),
                received: row.get(5)?,
                sent: row.get(6)?,
                latest_handshake_s: handshake.map_or(0, |time| time.millis() / 1000),
            });
            last = Some(id);
        }
        if let (Some(peer), Some(address)) = (peers.last_mut(), address) {
            if !peer.allowed_ips.is_empty() {
                peer.allowed_ips.push(',');
            }
            peer.allowed_ips.push_str(&address.to_string());
        }
    }
    Ok(Samples { peers, pools: addresses::usage(tx)? })
}
