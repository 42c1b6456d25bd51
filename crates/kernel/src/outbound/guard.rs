//! Addresses that users give us lead to the public internet or nowhere.
//!
//! A feed or webhook address must not make this program talk to the machine it runs on, to its neighbours or to the
//! cloud's metadata service. A literal address is checked before the call; a name is checked *after* it is looked up,
//! by the very resolver that hands the addresses to the connection, so that a name cannot change its mind between the
//! check and the use. Redirects are not followed, so there is no second address to check.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{Ipv4Net, Ipv6Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::error::OutboundError;

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), prefix)
}

/// IPv4 networks that are not the public internet (IANA special-purpose registry, RFC 6890 and its updates).
const CLOSED_V4: [Ipv4Net; 16] = [
    v4(0, 0, 0, 0, 8),       // this network
    v4(10, 0, 0, 0, 8),      // private
    v4(100, 64, 0, 0, 10),   // carrier NAT
    v4(127, 0, 0, 0, 8),     // loopback
    v4(169, 254, 0, 0, 16),  // link-local, cloud metadata
    v4(172, 16, 0, 0, 12),   // private
    v4(192, 0, 0, 0, 24),    // protocol assignments
    v4(192, 0, 2, 0, 24),    // documentation
    v4(192, 31, 196, 0, 24), // AS112
    v4(192, 88, 99, 0, 24),  // 6to4 relays
    v4(192, 168, 0, 0, 16),  // private
    v4(198, 18, 0, 0, 15),   // benchmarks
    v4(198, 51, 100, 0, 24), // documentation
    v4(203, 0, 113, 0, 24),  // documentation
    v4(224, 0, 0, 0, 4),     // multicast
    v4(240, 0, 0, 0, 4),     // reserved, broadcast
];

/// The only part of IPv6 that is given out to the public. Loopback, unique local, link-local, multicast and
/// IPv4-mapped addresses all lie outside.
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 3);

/// What lies inside [`GLOBAL_V6`] and is still not the public internet.
const CLOSED_V6: [Ipv6Net; 4] = [
    v6(0x2001, 0, 23),      // protocol assignments, Teredo, benchmarks
    v6(0x2001, 0x0db8, 32), // documentation
    v6(0x2002, 0, 16),      // 6to4: carries any IPv4 address
    v6(0x3fff, 0, 20),      // documentation
];

/// The well-known prefix of NAT64: the public address is in the last four bytes.
const NAT64: Ipv6Net = v6(0x0064, 0xff9b, 96);

/// Whether an address lies on the public internet.
pub(super) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) if NAT64.contains(&ip) => {
            let [.., a, b, c, d] = ip.octets();
            is_public_v4(Ipv4Addr::new(a, b, c, d))
        }
        IpAddr::V6(ip) => GLOBAL_V6.contains(&ip) && !CLOSED_V6.iter().any(|net| net.contains(&ip)),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    !CLOSED_V4.iter().any(|net| net.contains(&ip))
}

/// Refuses a literal address that is not public. Names pass: the resolver looks at what they lead to.
pub(super) fn check(url: &Url) -> Result<(), OutboundError> {
    let ip = match url.host() {
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip),
        Some(Host::Domain(_)) | None => return Ok(()),
    };
    if is_public(ip) { Ok(()) } else { Err(OutboundError::PrivateAddress { host: ip.to_string() }) }
}

/// The name leads nowhere public.
#[derive(Debug, thiserror::Error)]
#[error("{host} has no public address")]
pub(super) struct NotPublic {
    pub(super) host: String,
}

/// Looks names up and hands on the public addresses only.
pub(super) struct PublicResolver;

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(look_up(name.as_str().to_owned()))
    }
}

async fn look_up(host: String) -> Result<Addrs, Box<dyn Error + Send + Sync>> {
    // The port is filled in by the connection.
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
    let public: Vec<SocketAddr> = found.into_iter().filter(|address| is_public(address.ip())).collect();
    if public.is_empty() {
        return Err(Box::new(NotPublic { host }));
    }
    Ok(Box::new(public.into_iter()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(text: &str) -> bool {
        is_public(text.parse().expect("an address"))
    }

    #[test]
    fn the_public_internet_is_open() {
        for ip in ["8.8.8.8", "1.1.1.1", "100.63.255.255", "172.32.0.1", "192.169.0.1", "223.255.255.255"] {
            assert!(public(ip), "{ip}");
        }
        for ip in ["2606:4700::1111", "2a00:1450:4001::8a", "2001:4860:4860::8888", "64:ff9b::8.8.8.8"] {
            assert!(public(ip), "{ip}");
        }
    }

    #[test]
    fn everything_else_is_closed() {
        for ip in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!public(ip), "{ip}");
        }
    }

    #[test]
    fn a_literal_is_refused_however_it_is_written() {
        for text in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://017700000001/",
            "http://[::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://[::ffff:a00:1]/",
        ] {
            let url = Url::parse(text).expect("an address");
            assert!(matches!(check(&url), Err(OutboundError::PrivateAddress { .. })), "{text}");
        }
        assert_eq!(check(&Url::parse("https://1.1.1.1/").expect("an address")), Ok(()));
    }

    #[tokio::test]
    async fn a_name_that_leads_home_is_refused_by_the_resolver() {
        let refused = look_up("localhost".to_owned()).await.err().expect("refused");
        assert_eq!(refused.downcast_ref::<NotPublic>().map(|it| it.host.as_str()), Some("localhost"));
    }
}
