//! The file that connects a customer's device, and the same as a picture.
//!
//! A file is made when somebody asks for it and kept nowhere: keys are opened for its text alone, which is wiped afterwards.

use std::net::IpAddr;

use zeroize::Zeroizing;

use semel_kernel::args;
use semel_kernel::store::Tx;
use semel_wireguard::{ClientFile, Dns, QrError, qr_png, tunnel_name};

use super::{Form, Peer, PeerId, PeerState, ServerId, of, peers, servers, sql};
use crate::subscriptions::SubscriptionId;
use crate::{Error, Shop};

/// Pixels of one module of a picture: a usual file makes about 650 in all.
const SCALE: u32 = 8;

/// A client's file. Its text holds keys: it goes to the customer and into no log.
#[derive(Clone)]
pub struct ClientText {
    /// The tunnel's name: at most 15 Latin characters.
    pub name: String,
    /// What the file says.
    pub text: Zeroizing<String>,
    /// Whether the customer has to put the own private key into it.
    pub own_key: bool,
}

impl ClientText {
    /// The name of the file.
    pub fn file_name(&self) -> String {
        format!("{}.conf", self.name)
    }
}

/// The file of `peer`. The same peer gives the same file, also after a renewal, until its keys are replaced. Its name has the
/// peer's number among all that the customer was ever given, so that a phone keeps two files of one customer apart.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Conflict`] when the peer was freed, has keys that cannot be opened or never had any of ours,
/// or when the server does not speak AmneziaWG.
pub fn client_file(tx: &mut Tx, shop: &Shop, peer: &PeerId, form: Form) -> Result<ClientText, Error> {
    let vpn = of(shop)?;
    let row = tx.first(sql::FILE_OF, args![peer])?.ok_or_else(|| Error::missing("peer", peer))?;
    if row.get::<PeerState>(4)? == PeerState::Freed {
        return Err(Error::Conflict(format!("peer {peer} is over: its file works no more")));
    }
    let (server, number): (ServerId, i64) = (row.get(0)?, row.get(1)?);
    let server = servers::find(tx, &server)?;
    let amnezia =
        match form {
            Form::WireGuard => None,
            Form::AmneziaWg => Some(server.amnezia.as_ref().ok_or_else(|| {
                Error::Conflict(format!("the server {} has no parameters of AmneziaWG", server.name))
            })?),
        };
    let sealed: Option<String> = row.get(2)?;
    let private = sealed.map(|sealed| peers::open_private(vpn, peer, &sealed)).transpose()?;
    let preshared = peers::open_preshared(vpn, peer, &row.get::<String>(3)?)?;
    let Some(preshared) = preshared else {
        let text =
            format!("peer {peer} came from elsewhere with its own file: give its device new keys for one of ours");
        return Err(Error::Conflict(text));
    };
    let found = peers::find(tx, peer)?;
    let ips: Vec<IpAddr> = peers::addresses_of(tx, &found)?.iter().filter_map(|ip| ip.parse().ok()).collect();
    let dns = Dns::parse_list(&server.dns.join(","));
    let dns = dns.map_err(|error| Error::Conflict(format!("the server {}: {error}", server.name)))?;
    let ipv6 = server.ipv6.of_client();
    let file = ClientFile {
        private_key: private.as_ref(),
        addresses: &ipv6.addresses(&ips),
        dns: &dns,
        mtu: server.mtu,
        server_key: &server.public_key,
        preshared: &preshared,
        endpoint: &server.endpoint,
        allowed_ips: &ipv6.allowed_ips(&server.allowed_ips),
        keepalive: server.keepalive,
        amnezia,
    };
    let name = tunnel_name(&vpn.rules.name_prefix, row.get(5)?, u32::try_from(number).unwrap_or(0));
    Ok(ClientText { name, text: file.render(), own_key: private.is_none() })
}

/// The picture of a file, as a PNG that phones take by their camera.
///
/// # Errors
/// [`Error::Conflict`] when the file is too long for a picture: then the file alone has to do.
pub fn qr(file: &ClientText) -> Result<Vec<u8>, Error> {
    qr_png(&file.text, SCALE).map_err(|error: QrError| Error::Conflict(error.to_string()))
}

/// The peer of a subscription's device.
///
/// # Errors
/// [`Error::NotFound`] when the device has none that is not freed.
pub fn of_device(tx: &mut Tx, sub: &SubscriptionId, device: i64) -> Result<Peer, Error> {
    let found = peers::of_subscription(tx, sub)?.into_iter().find(|peer| peer.device == device);
    found.ok_or_else(|| Error::missing("device", format!("{device} of subscription {sub}")))
}
