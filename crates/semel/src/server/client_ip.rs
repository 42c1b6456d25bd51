//! Who is really asking, when a proxy stands in between.
//!
//! `X-Forwarded-For` is a list that anybody may begin and each proxy continues on the right. Only what our own proxies
//! wrote is worth anything, so it is read from the right, through the hops we trust, to the first one that we do not.
//! An allow-list of networks (a payment provider without signatures) stands on this, so a doubt is answered with
//! "nobody".

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::HeaderMap;
use ipnet::{IpNet, Ipv4Net};

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The address of a request's client, as an extension of the request. None when a trusted proxy handed on a chain that
/// names something other than addresses: such a client is outside of every network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientIp(pub Option<IpAddr>);

/// The networks whose `X-Forwarded-For` is believed. Empty by default: then the client is whoever holds the socket.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Trusts exactly these networks. IPv4 networks written as `::ffff:a.b.c.d/n` are taken for what they are.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks.into_iter().map(unmapped).collect())
    }

    /// Trusts this machine: right when we listen on loopback, because only a local proxy can then reach us.
    pub fn loopback() -> Self {
        Self(vec![
            IpNet::from(IpAddr::V6(Ipv6Addr::LOCALHOST)),
            IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
        ])
    }

    /// The address that this request came from; `peer` is the other end of the socket.
    ///
    /// A peer that we do not trust is the client, whatever its headers say. Otherwise the answer is the first untrusted
    /// address from the right over all `X-Forwarded-For` lines; if all are trusted, the leftmost one. None when the
    /// walk meets something that is not an address: callers treat it as outside of every network.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        let mut client = peer.to_canonical();
        if !self.trusts(client) {
            return Some(client);
        }
        for line in headers.get_all(FORWARDED_FOR).iter().rev() {
            // An empty element says nothing (RFC 9110, 5.6.1), so it neither is a hop nor spoils the chain.
            let hops = line.to_str().ok()?.rsplit(',').map(str::trim).filter(|hop| !hop.is_empty());
            for hop in hops {
                client = address(hop)?;
                if !self.trusts(client) {
                    return Some(client);
                }
            }
        }
        Some(client)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// One element of the list: an address, bare or in brackets, with or without a port.
fn address(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    let address = match bare.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => hop.parse::<SocketAddr>().ok()?.ip(),
    };
    Some(address.to_canonical())
}

fn unmapped(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let v4 = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    match v4.map(|(address, prefix)| Ipv4Net::new(address, prefix)) {
        Some(Ok(v4)) => IpNet::V4(v4),
        _ => network,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(peer: &str, lines: &[&str]) -> Option<String> {
        let networks = ["127.0.0.0/8", "10.0.0.0/8", "fd00::/8", "::ffff:192.168.0.0/112"];
        let proxies = TrustedProxies::new(networks.iter().map(|net| net.parse().expect("a network")).collect());
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(line.as_bytes()).expect("a header value"));
        }
        proxies.client(peer.parse().expect("an address"), &headers).map(|ip| ip.to_string())
    }

    #[test]
    fn the_client_is_the_first_untrusted_hop_from_the_right() {
        let cases: &[(&str, &[&str], Option<&str>, &str)] = &[
            ("203.0.113.9", &[], Some("203.0.113.9"), "no proxy"),
            ("203.0.113.9", &["185.71.76.1"], Some("203.0.113.9"), "a stranger's header is not read"),
            ("203.0.113.9", &["rubbish"], Some("203.0.113.9"), "a stranger's rubbish is not read either"),
            ("127.0.0.1", &[], Some("127.0.0.1"), "a proxy that says nothing"),
            ("127.0.0.1", &["198.51.100.7"], Some("198.51.100.7"), "one hop"),
            ("127.0.0.1", &["185.71.76.1, 198.51.100.7"], Some("198.51.100.7"), "a spoofed leftmost entry"),
            ("127.0.0.1", &["rubbish, 198.51.100.7"], Some("198.51.100.7"), "spoofed rubbish is never reached"),
            ("127.0.0.1", &["198.51.100.7, 10.1.1.1, 10.2.2.2"], Some("198.51.100.7"), "a chain of our proxies"),
            ("127.0.0.1", &["185.71.76.1", "198.51.100.7"], Some("198.51.100.7"), "a spoofed first line"),
            ("127.0.0.1", &["198.51.100.7, 10.1.1.1", "10.2.2.2"], Some("198.51.100.7"), "lines are joined in order"),
            ("127.0.0.1", &["10.1.1.1, 10.2.2.2"], Some("10.1.1.1"), "all are ours: the farthest"),
            ("::ffff:127.0.0.1", &["::ffff:198.51.100.7"], Some("198.51.100.7"), "IPv4 in IPv6 clothes"),
            ("::ffff:203.0.113.9", &["185.71.76.1"], Some("203.0.113.9"), "a mapped stranger"),
            ("192.168.0.5", &["198.51.100.7"], Some("198.51.100.7"), "a network configured as mapped"),
            ("127.0.0.1", &["198.51.100.7:51234"], Some("198.51.100.7"), "with a port"),
            ("127.0.0.1", &["[2001:db8::1]:443"], Some("2001:db8::1"), "IPv6 with a port"),
            ("127.0.0.1", &["[2001:db8::1]"], Some("2001:db8::1"), "IPv6 in brackets"),
            ("127.0.0.1", &["2001:db8::1, fd00::1"], Some("2001:db8::1"), "IPv6 through our proxy"),
            ("127.0.0.1", &["198.51.100.7, , ", ""], Some("198.51.100.7"), "empty elements"),
            ("127.0.0.1", &["198.51.100.7, unknown"], None, "rubbish where a hop should be"),
            ("127.0.0.1", &["198.51.100.7, rubbish, 10.1.1.1"], None, "rubbish behind a trusted hop"),
            ("127.0.0.1", &["198.51.100.7", "\u{00e9}"], None, "a line that is not ASCII"),
            ("127.0.0.1", &["198.51.100.300"], None, "almost an address"),
            ("127.0.0.1", &["fe80::1%eth0"], None, "an address with a zone"),
        ];
        for (peer, lines, expected, story) in cases {
            assert_eq!(client(peer, lines).as_deref(), *expected, "{story}: {peer} {lines:?}");
        }
    }

    #[test]
    fn nobody_is_trusted_by_default() {
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED_FOR, HeaderValue::from_static("185.71.76.1"));
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(TrustedProxies::default().client(peer, &headers), Some(peer));
        assert_ne!(TrustedProxies::loopback().client(peer, &headers), Some(peer));
    }
}
