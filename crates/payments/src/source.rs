//! Who may send: the lists of networks that providers publish.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::Rejected;

/// Refuses a sender outside `networks`; `None` turns the check off. An unknown sender is outside every list.
///
/// `peer` is the resolved one: whether to believe `X-Forwarded-For` is decided by whoever knows the proxies. An IPv4 address inside IPv6
/// (`::ffff:a.b.c.d`) counts as the IPv4 address.
pub(crate) fn admit(peer: Option<IpAddr>, networks: Option<&[IpNet]>) -> Result<(), Rejected> {
    let Some(networks) = networks else {
        return Ok(());
    };
    let plain = peer.map(|address| address.to_canonical());
    match plain {
        Some(address) if networks.iter().any(|network| network.contains(&address)) => Ok(()),
        _ => Err(Rejected::Source { peer }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn only_listed_senders_pass_and_an_unknown_one_never_does() {
        let networks: Vec<IpNet> = vec!["185.71.76.0/27".parse().unwrap(), "2a02:5180::/32".parse().unwrap()];
        assert_eq!(admit(address("185.71.76.31"), Some(&networks)), Ok(()));
        assert_eq!(admit(address("::ffff:185.71.76.31"), Some(&networks)), Ok(()));
        assert_eq!(admit(address("2a02:5180:0:1509::1"), Some(&networks)), Ok(()));
        assert!(admit(address("185.71.76.32"), Some(&networks)).is_err());
        assert_eq!(admit(None, Some(&networks)), Err(Rejected::Source { peer: None }));
        assert!(admit(address("185.71.76.31"), Some(&[])).is_err(), "an empty list admits nobody");
        assert_eq!(admit(None, None), Ok(()), "the check is off");
    }
}
