//! VPN access as the owner set it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::Secret;

/// VPN access on this machine, with everything that depends on something else decided.
#[derive(Debug, Clone)]
pub struct Vpn {
    /// Where devices reach it: a name or an address.
    pub host: String,
    /// UDP port, as devices see it.
    pub port: u16,
    /// The WireGuard interface.
    pub interface: String,
    /// The interface's configuration file.
    pub config_path: PathBuf,
    /// What whoever writes that file holds.
    pub lock_path: PathBuf,
    /// Customers' IPv4 addresses.
    pub networks: Vec<IpNet>,
    /// Customers' IPv6 addresses; empty when they have none.
    pub networks6: Vec<IpNet>,
    /// Never given to a customer.
    pub excluded: Vec<IpNet>,
    /// Name servers and search domains for devices.
    pub dns: Vec<String>,
    /// Largest packet inside of the tunnel, in bytes.
    pub mtu: Option<u16>,
    /// Seconds between two signs of life; 0 is never.
    pub keepalive: u16,
    /// What devices send through the tunnel.
    pub allowed_ips: Vec<IpNet>,
    /// What becomes of customers' IPv6.
    pub ipv6: Ipv6,
    /// The server's public key, when it is not to be derived from the configuration file.
    pub server_public_key: Option<String>,
    /// `wg`, `awg`, or the path of one.
    pub tool: PathBuf,
    /// Whether the running interface is brought to the wanted state, too.
    pub apply: Apply,
    /// The numbers of AmneziaWG, when the server speaks it.
    pub amnezia: Option<Amnezia>,
    /// The sealing key: base64 of 32 bytes, checked.
    pub key: Option<Secret>,
    /// The file that holds 32 bytes in base64 and is made when it is missing. Present only with SQLite and without `key`.
    pub key_file: Option<PathBuf>,
    /// How long a trial lasts; zero gives none.
    pub trial: Duration,
    /// How long access goes on after its end.
    pub grace: Duration,
    /// How long address and keys stay reserved after that.
    pub sticky: Duration,
    /// How long an address rests before somebody else gets it.
    pub quarantine: Duration,
    /// How often handshakes and traffic are read.
    pub traffic_every: Duration,
    /// How long before the end customers are reminded, the longest first.
    pub remind: Vec<Duration>,
    /// How long after the file came customers are asked who never connected, the shortest first.
    pub unconnected: Vec<Duration>,
    /// Where the help button leads: an https address.
    pub support: Option<String>,
    /// How tunnels are called before their number.
    pub name_prefix: String,
}

impl Vpn {
    /// Host and port as they stand in a customer's file; an IPv6 address in brackets.
    pub fn endpoint(&self) -> String {
        match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]:{}", self.port),
            _ => format!("{}:{}", self.host, self.port),
        }
    }
}

/// What becomes of customers' IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ipv6 {
    /// It is not touched.
    Off,
    /// Each device has an address of ours.
    Routed,
    /// It goes into the tunnel and ends there.
    Blocked,
}

impl Ipv6 {
    /// The word in settings and rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Routed => "routed",
            Self::Blocked => "blocked",
        }
    }
}

/// What peers are brought to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Apply {
    /// The configuration file and the running interface.
    Interface,
    /// The configuration file only.
    File,
    /// Nothing: another copy on the same database does it, and this one only sells.
    None,
}

/// The numbers of AmneziaWG; what each means, `semel config explain` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amnezia {
    /// Junk packets before a handshake.
    pub jc: u16,
    /// Size of the smallest, in bytes.
    pub jmin: u16,
    /// Size of the largest, in bytes.
    pub jmax: u16,
    /// Junk before the first packet of a handshake, in bytes.
    pub s1: u16,
    /// Junk before its answer, in bytes.
    pub s2: u16,
    /// What the four kinds of packets begin with.
    pub h: [u32; 4],
}
