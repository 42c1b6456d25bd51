//! The file that connects a customer: one `[Interface]`, one `[Peer]`, in the form that wg-quick(8) and the WireGuard
//! and AmneziaWG apps on phones and desktops import.
//!
//! Addresses are single ones (`/32`, `/128`), so that no device believes it has neighbours. What comes from settings is
//! parsed into types here, which cannot hold a line break: nothing that an owner or a customer wrote becomes a line of
//! its own.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::str::FromStr;

use ipnet::{IpNet, Ipv6Net};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::amnezia::Amnezia;
use crate::key::{PresharedKey, PrivateKey, PublicKey};

/// What a client's file says. The secrets in it are borrowed and the text is wiped when dropped.
#[derive(Clone, Copy, Debug)]
pub struct ClientFile<'a> {
    /// None when the customer keeps the own key: a comment says where it belongs.
    pub private_key: Option<&'a PrivateKey>,
    /// The client's own addresses; see [`Ipv6::addresses`].
    pub addresses: &'a [IpAddr],
    /// Name servers and search domains while the tunnel is up. Empty: the device keeps its own, and its questions may
    /// pass beside the tunnel.
    pub dns: &'a [Dns],
    /// Bytes of the largest packet inside the tunnel. None: the app decides.
    pub mtu: Option<u16>,
    /// The server's key.
    pub server_key: &'a PublicKey,
    /// Shared with the server.
    pub preshared: &'a PresharedKey,
    /// Where the server is: an [`Endpoint`], which derefs to this.
    pub endpoint: &'a str,
    /// What goes into the tunnel; see [`Ipv6::allowed_ips`].
    pub allowed_ips: &'a [IpNet],
    /// Seconds between empty packets that keep a router's table awake; wg(8) names 25 as sensible. 0: none.
    pub keepalive: u16,
    /// The server's parameters when it speaks AmneziaWG. WireGuard's own apps refuse such a file.
    pub amnezia: Option<&'a Amnezia>,
}

impl ClientFile<'_> {
    /// The file's text, which holds the keys: for the customer only, never for a log or a row. Wiped when dropped.
    pub fn render(&self) -> Zeroizing<String> {
        // Large enough never to grow: a text that moves leaves its keys behind in freed memory.
        let listed = self.addresses.len() + self.allowed_ips.len() + self.dns.len();
        let mut text = Zeroizing::new(String::with_capacity(1024 + 64 * listed + 256 * self.dns.len()));
        self.interface(&mut text);
        text.push('\n');
        self.peer(&mut text);
        text
    }

    fn interface(&self, text: &mut String) {
        text.push_str("[Interface]\n");
        match self.private_key {
            Some(key) => line(text, "PrivateKey", key.to_base64().as_str()),
            None => text.push_str("# PrivateKey = <yours>\n"),
        }
        line_of(text, "Address", self.addresses.iter().copied().map(IpNet::from));
        line_of(text, "DNS", self.dns);
        if let Some(mtu) = self.mtu {
            line(text, "MTU", mtu);
        }
        for (name, value) in self.amnezia.iter().flat_map(|amnezia| amnezia.lines()) {
            line(text, name, value);
        }
    }

    fn peer(&self, text: &mut String) {
        text.push_str("[Peer]\n");
        line(text, "PublicKey", self.server_key);
        line(text, "PresharedKey", self.preshared.to_base64().as_str());
        line_of(text, "AllowedIPs", self.allowed_ips);
        // An `Endpoint` has no such characters; a text that never was one must not begin a line of its own either.
        line(text, "Endpoint", self.endpoint.split(char::is_control).next().unwrap_or_default());
        if self.keepalive > 0 {
            line(text, "PersistentKeepalive", self.keepalive);
        }
    }
}

fn line(text: &mut String, name: &str, value: impl fmt::Display) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{name} = {value}");
}

/// A line with a list; none when the list is empty, which the apps would refuse.
fn line_of(text: &mut String, name: &str, values: impl IntoIterator<Item = impl fmt::Display>) {
    let before = text.len();
    for value in values {
        let first = text.len() == before;
        let _ = if first { write!(text, "{name} = {value}") } else { write!(text, ", {value}") };
    }
    if text.len() > before {
        text.push('\n');
    }
}

/// What becomes of a client's IPv6. Whoever tunnels IPv4 only and says nothing about IPv6 lets half of the customer's
/// traffic pass beside the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ipv6 {
    /// The tunnel says nothing of IPv6; it takes whatever way the device has.
    Off,
    /// Through the tunnel, from an address of the pool.
    Routed,
    /// Into the tunnel and no further: the client has an address that the server does not let through, so that IPv6
    /// goes nowhere, and programs fall back to IPv4.
    Blocked,
}

/// The address of clients whose IPv6 is blocked: a unique-local one (RFC 4193) that no pool should hold. All clients
/// have the same, because it never leaves the device: the server drops what comes from an address that is not the
/// peer's.
pub const BLOCKED_ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfd73, 0x656d, 0x656c, 0, 0, 0, 0, 1);

impl Ipv6 {
    /// The addresses for the client's file, given those that the peer has of the pools.
    pub fn addresses(self, of_peer: &[IpAddr]) -> Vec<IpAddr> {
        let mut addresses: Vec<IpAddr> =
            of_peer.iter().copied().filter(|ip| ip.is_ipv4() || self == Self::Routed).collect();
        if self == Self::Blocked {
            addresses.push(BLOCKED_ADDRESS.into());
        }
        addresses
    }

    /// What the client sends into the tunnel, given the server's setting: blocked is all of IPv6; routed is the
    /// networks that the setting names, or all where it names none.
    pub fn allowed_ips(self, of_server: &[IpNet]) -> Vec<IpNet> {
        let mut networks: Vec<IpNet> =
            of_server.iter().copied().filter(|net| net.addr().is_ipv4() || self == Self::Routed).collect();
        if self != Self::Off && networks.iter().all(|net| net.addr().is_ipv4()) {
            networks.push(IpNet::V6(Ipv6Net::default())); // ::/0
        }
        networks
    }

    /// The word that settings and rows use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Routed => "routed",
            Self::Blocked => "blocked",
        }
    }
}

/// Why a text is not what a client's file needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Not `host:port`.
    #[error(
        "{0:?} is not an endpoint: write for example vpn.example.com:51820, 203.0.113.7:51820 or [2001:db8::7]:51820"
    )]
    Endpoint(String),
    /// Neither an address nor a domain.
    #[error("{0:?} is neither a name server's address nor a search domain in Latin letters")]
    Dns(String),
    /// Not one of the three words.
    #[error("{0:?} is not one of off, routed and blocked")]
    Ipv6(String),
}

impl FromStr for Ipv6 {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        let all = [Self::Off, Self::Routed, Self::Blocked];
        all.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| ClientError::Ipv6(text.to_owned()))
    }
}

/// Where a server is reached: host and port (wg(8), "Endpoint"). The host is an IPv4 address, an IPv6 address in
/// brackets, or a name in ASCII; a name in other letters is written in its `xn--` form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(String);

impl FromStr for Endpoint {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        let wrong = || ClientError::Endpoint(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host_is_right = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
            None => host.parse::<Ipv4Addr>().is_ok() || is_domain(host),
        };
        let port_is_right =
            port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|number| number > 0);
        if host_is_right && port_is_right { Ok(Self(text.to_owned())) } else { Err(wrong()) }
    }
}

impl Deref for Endpoint {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One entry of the line `DNS`: wg-quick(8) takes addresses for name servers and everything else for search domains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dns {
    /// A name server.
    Server(IpAddr),
    /// A domain that is tried after short names.
    Search(SearchDomain),
}

/// A domain in ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchDomain(String);

impl Dns {
    /// The entries of a list that is separated by commas, as settings and rows hold it. An empty list is one.
    ///
    /// # Errors
    /// The first entry that is neither an address nor a domain.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, ClientError> {
        text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::parse::<Self>).collect()
    }
}

impl FromStr for Dns {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        match text.parse::<IpAddr>() {
            Ok(server) => Ok(Self::Server(server)),
            Err(_) if is_domain(text) => Ok(Self::Search(SearchDomain(text.to_owned()))),
            Err(_) => Err(ClientError::Dns(text.to_owned())),
        }
    }
}

impl fmt::Display for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(address) => write!(f, "{address}"),
            Self::Search(domain) => f.write_str(&domain.0),
        }
    }
}

/// A host name or domain as RFC 1123 has it. The last label is not a number: that would be a mistyped address.
fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= 253 && text.split('.').all(is_label) && !last.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests;
