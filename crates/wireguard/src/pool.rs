//! Pools: which addresses of a network may be given to customers.
//!
//! Left out are IPv4's network and broadcast address, IPv6's subnet-router anycast address, the server's own addresses
//! and whatever the owner reserved. A pool is a list with an end, because each address becomes a row that is claimed by
//! one statement; of a larger network the first part is used.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

/// Addresses that one pool has at most: those of an IPv4 /16.
pub const MOST: usize = 65_536;

/// A network and what of it is not for customers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The network, IPv4 or IPv6.
    pub network: IpNet,
    /// Parts that the owner keeps. Parts of other networks are no error: a server has one list for all its pools.
    pub reserved: Vec<IpNet>,
    /// The server's own addresses. Those of other networks are no error.
    pub server: Vec<IpAddr>,
}

/// Why a setting describes no pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Not a network in CIDR form.
    #[error("`{0}` is not a network: write for example 10.8.0.0/24 or fd00:8::/112")]
    Network(String),
    /// An address with a prefix length, where a network was asked for. Guessing could give out the wrong addresses.
    #[error("`{given}` is an address inside a network: if all of it is meant, write {network}")]
    HostBits {
        /// What was written.
        given: String,
        /// The network around it.
        network: IpNet,
    },
    /// A reserved part is neither an address, nor a network, nor a range.
    #[error(
        "`{0}` is not an address, a network or a range: write for example 10.8.0.5, 10.8.0.0/28 or 10.8.0.10-10.8.0.20"
    )]
    Reserved(String),
    /// No address is left for customers.
    #[error("{0} has no address left for customers")]
    Empty(IpNet),
}

impl Pool {
    /// A pool as the settings write it: `network` in CIDR form; `reserved` a list of addresses, networks and inclusive
    /// ranges, separated by commas, may be empty; `server` the interface's own addresses.
    ///
    /// # Errors
    /// Says which part is wrong and what to write; also when nothing is left to give out.
    pub fn parse(network: &str, reserved: &str, server: &[IpAddr]) -> Result<Self, PoolError> {
        let given = network.trim();
        let network: IpNet = given.parse().map_err(|_| PoolError::Network(given.to_owned()))?;
        if network != network.trunc() {
            return Err(PoolError::HostBits { given: given.to_owned(), network: network.trunc() });
        }
        let mut parts = Vec::new();
        for part in reserved.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            parts.extend(networks(part).ok_or_else(|| PoolError::Reserved(part.to_owned()))?);
        }
        let pool = Self { network, reserved: parts, server: server.to_vec() };
        if pool.addresses(1).is_empty() {
            return Err(PoolError::Empty(network));
        }
        Ok(pool)
    }

    /// The addresses for customers in ascending order, at most `limit` of them and never more than [`MOST`].
    ///
    /// IPv4's first and last address are left out up to /30; a /31 has neither (RFC 3021). IPv6's first address is the
    /// subnet-router anycast address (RFC 4291, section 2.6.1) up to /126; a /127 has none (RFC 6164).
    pub fn addresses(&self, limit: usize) -> Vec<IpAddr> {
        let gaps = self.gaps();
        gaps.into_iter()
            .flat_map(|(from, to)| from..=to)
            .take(limit.min(MOST))
            .map(|number| self.address(number))
            .collect()
    }

    /// What lies between the blocked parts, in order, so that a large reserved part costs nothing to step over.
    fn gaps(&self) -> Vec<(u128, u128)> {
        let (first, last) = self.usable();
        let mut gaps = Vec::new();
        let mut next = Some(first);
        for (from, to) in self.blocked() {
            let Some(start) = next else { break };
            if from > start {
                gaps.push((start, last.min(from - 1)));
            }
            next = to.checked_add(1).map(|after| after.max(start));
        }
        if let Some(start) = next {
            gaps.push((start, last));
        }
        gaps
    }

    /// First and last address that the kind of network allows.
    fn usable(&self) -> (u128, u128) {
        let (first, last) = (number(self.network.network()), number(self.network.broadcast()));
        match self.network {
            IpNet::V4(net) if net.prefix_len() <= 30 => (first + 1, last - 1),
            IpNet::V6(net) if net.prefix_len() <= 126 => (first + 1, last),
            IpNet::V4(_) | IpNet::V6(_) => (first, last),
        }
    }

    /// Reserved parts and the server's addresses of this family, sorted by where they begin; they may overlap.
    fn blocked(&self) -> Vec<(u128, u128)> {
        let own = self.server.iter().copied().map(IpNet::from);
        let mut blocked: Vec<(u128, u128)> = self
            .reserved
            .iter()
            .copied()
            .chain(own)
            .filter(|net| net.addr().is_ipv4() == self.network.addr().is_ipv4())
            .map(|net| (number(net.network()), number(net.broadcast())))
            .collect();
        blocked.sort_unstable();
        blocked
    }

    fn address(&self, number: u128) -> IpAddr {
        match self.network {
            // Numbers of an IPv4 pool came from 32 bits.
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(number as u32)),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// The networks that make up an address, a network or an inclusive range.
fn networks(text: &str) -> Option<Vec<IpNet>> {
    if let Some((from, to)) = text.split_once('-') {
        return match (from.trim().parse::<IpAddr>().ok()?, to.trim().parse::<IpAddr>().ok()?) {
            (IpAddr::V4(from), IpAddr::V4(to)) if from <= to => {
                Some(Ipv4Subnets::new(from, to, 0).map(IpNet::V4).collect())
            }
            (IpAddr::V6(from), IpAddr::V6(to)) if from <= to => {
                Some(Ipv6Subnets::new(from, to, 0).map(IpNet::V6).collect())
            }
            _ => None,
        };
    }
    if text.contains('/') {
        return Some(vec![text.parse::<IpNet>().ok()?.trunc()]);
    }
    Some(vec![IpNet::from(text.parse::<IpAddr>().ok()?)])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn given_out(network: &str, reserved: &str, server: &[&str]) -> Vec<IpAddr> {
        Pool::parse(network, reserved, &ips(server)).unwrap().addresses(MOST)
    }

    #[test]
    fn a_24_behind_its_server_serves_253_customers() {
        let addresses = given_out("10.8.0.0/24", "", &["10.8.0.1", "fd00:8::1"]);
        assert_eq!(addresses.len(), 253);
        assert_eq!(addresses[0], "10.8.0.2".parse::<IpAddr>().unwrap());
        assert_eq!(addresses[252], "10.8.0.254".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn reserved_parts_are_addresses_networks_and_ranges() {
        assert_eq!(
            given_out("10.8.0.0/28", "10.8.0.4/31, 10.8.0.7-10.8.0.9,10.8.0.12, fd00::/8", &["10.8.0.1"]),
            ips(&["10.8.0.2", "10.8.0.3", "10.8.0.6", "10.8.0.10", "10.8.0.11", "10.8.0.13", "10.8.0.14"])
        );
        assert_eq!(
            given_out("fd00:8::/125", "fd00:8::3 - fd00:8::5", &["fd00:8::1"]),
            ips(&["fd00:8::2", "fd00:8::6", "fd00:8::7"])
        );
    }

    #[test]
    fn the_smallest_networks_have_no_addresses_to_leave_out() {
        assert_eq!(given_out("10.8.0.4/30", "", &[]), ips(&["10.8.0.5", "10.8.0.6"]));
        assert_eq!(given_out("10.8.0.4/31", "", &[]), ips(&["10.8.0.4", "10.8.0.5"]));
        assert_eq!(given_out("10.8.0.4/32", "", &[]), ips(&["10.8.0.4"]));
        assert_eq!(given_out("fd00::4/126", "", &[]), ips(&["fd00::5", "fd00::6", "fd00::7"]));
        assert_eq!(given_out("fd00::4/127", "", &[]), ips(&["fd00::4", "fd00::5"]));
        assert_eq!(given_out("fd00::4/128", "", &[]), ips(&["fd00::4"]));
    }

    #[test]
    fn a_huge_network_gives_its_first_part_and_steps_over_huge_reservations() {
        let addresses = given_out("fd00:8::/64", "fd00:8::/65", &[]);
        assert_eq!(addresses.len(), MOST);
        assert_eq!(addresses[0], "fd00:8::8000:0:0:0".parse::<IpAddr>().unwrap());
        let pool = Pool::parse("10.0.0.0/8", "", &[]).unwrap();
        assert_eq!(pool.addresses(usize::MAX).len(), MOST);
        assert_eq!(pool.addresses(0), ips(&[]));
    }

    #[test]
    fn the_last_addresses_of_all_do_not_overflow() {
        let top = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        assert_eq!(
            given_out("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126", top, &[]),
            ips(&["ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffd", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"])
        );
        assert_eq!(given_out("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", "", &[]), ips(&[top]));
        assert_eq!(given_out("255.255.255.252/30", "255.255.255.253", &[]), ips(&["255.255.255.254"]));
    }

    #[test]
    fn a_wrong_setting_says_what_to_write() {
        let refused = |network: &str, reserved: &str| Pool::parse(network, reserved, &[]).unwrap_err().to_string();
        assert!(refused("10.8.0.0", "").contains("10.8.0.0/24"));
        assert_eq!(
            refused("10.8.0.1/24", ""),
            "`10.8.0.1/24` is an address inside a network: if all of it is meant, write 10.8.0.0/24"
        );
        for wrong in ["10.8.0.300", "10.8.0.9-10.8.0.7", "10.8.0.1-fd00::1", "10.8.0.0/33", "router", "-"] {
            assert!(refused("10.8.0.0/24", wrong).starts_with(&format!("`{wrong}` is not")), "{wrong}");
        }
        assert_eq!(refused("10.8.0.0/24", "10.0.0.0/8"), "10.8.0.0/24 has no address left for customers");
    }

    /// Small networks of both families, with reserved parts and server addresses in and around them.
    fn any_pool() -> impl Strategy<Value = Pool> {
        let near = || (0_u32..2048, 0_u8..=8);
        (any::<bool>(), near(), prop::collection::vec(near(), 0..8), prop::collection::vec(0_u32..2048, 0..4)).prop_map(
            |(v4, network, reserved, server)| {
                let ip = |offset: u32| {
                    if v4 {
                        IpAddr::V4(Ipv4Addr::from(0x0a08_0000 + offset))
                    } else {
                        IpAddr::V6(Ipv6Addr::from((0xfd00_u128 << 112) + u128::from(offset)))
                    }
                };
                let bits = if v4 { 32 } else { 128 };
                let net = |(offset, host_bits): (u32, u8)| IpNet::new(ip(offset), bits - host_bits).unwrap().trunc();
                Pool {
                    network: net(network),
                    reserved: reserved.into_iter().map(net).collect(),
                    server: server.into_iter().map(ip).collect(),
                }
            },
        )
    }

    /// The same question asked of one address at a time.
    fn may_be_given_out(pool: &Pool, address: IpAddr) -> bool {
        let bits = pool.network.max_prefix_len() - pool.network.prefix_len();
        let first = bits >= 2 && address == pool.network.network();
        let last = bits >= 2 && address.is_ipv4() && address == pool.network.broadcast();
        !first && !last && !pool.server.contains(&address) && !pool.reserved.iter().any(|part| part.contains(&address))
    }

    proptest! {
        #[test]
        fn addresses_are_inside_free_and_each_there_once(pool in any_pool(), limit in 0_usize..300) {
            let all = pool.addresses(MOST);
            prop_assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "in order, none twice");
            for address in &all {
                prop_assert!(pool.network.contains(address));
                prop_assert!(may_be_given_out(&pool, *address), "{address} is reserved");
            }
            let (from, to) = (number(pool.network.network()), number(pool.network.broadcast()));
            let expected = (from..=to).filter(|n| may_be_given_out(&pool, pool.address(*n))).count();
            prop_assert_eq!(all.len(), expected, "none forgotten");

            let some = pool.addresses(limit);
            prop_assert_eq!(some.as_slice(), &all[..limit.min(all.len())]);
        }

        #[test]
        fn a_reserved_range_is_reserved_whole_and_nothing_else(from in 1_u32..254, length in 0_u32..254) {
            let to = (from + length).min(254);
            let ip = |n: u32| IpAddr::V4(Ipv4Addr::from(0x0a08_0000 + n));
            let reserved = format!("{}-{}", ip(from), ip(to));
            let expected: Vec<IpAddr> = (1..=254).filter(|n| !(from..=to).contains(n)).map(ip).collect();
            match Pool::parse("10.8.0.0/24", &reserved, &[]) {
                Ok(pool) => {
                    prop_assert_eq!(pool.addresses(MOST), expected);
                }
                Err(error) => {
                    prop_assert_eq!(error, PoolError::Empty("10.8.0.0/24".parse().unwrap()));
                    prop_assert!(expected.is_empty());
                }
            }
        }

        #[test]
        fn reading_a_pool_never_panics(network in "[0-9a-f:./]{0,24}", reserved in "[0-9a-f:./, -]{0,60}") {
            let _ = Pool::parse(&network, &reserved, &[]);
        }
    }
}
