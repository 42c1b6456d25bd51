//! A peer of the server: as we want it, and as a file or an interface shows it.

use std::fmt;
use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

use crate::key::{PresharedKey, PublicKey};

/// How many characters a [`PeerName`] has at most.
pub const LONGEST_NAME: usize = 64;

/// What tells `wg` that a peer has no preshared key: 32 zero bytes. Leaving the line out would keep the old key.
pub(crate) const NO_PRESHARED: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// A peer as the interface shall have it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Who it is.
    pub public_key: PublicKey,
    /// The secret that both sides know besides their keys.
    pub preshared: Option<PresharedKey>,
    /// The addresses that it may use inside the tunnel: `/32` and `/128`, sorted.
    pub allowed: Vec<IpNet>,
    /// What the file calls it, for whoever reads the file.
    pub comment: PeerName,
}

impl Peer {
    /// Whether `seen` is this peer with the same addresses and the same preshared key. The comment does not count.
    pub fn is_shown_by(&self, seen: &SeenPeer) -> bool {
        self.public_key == seen.public_key
            && sorted(&self.allowed) == sorted(&seen.allowed)
            && self.preshared == seen.preshared
    }

    /// Appends the section of this peer as the file holds it.
    pub(crate) fn write_to_file(&self, text: &mut String) {
        text.push_str("[Peer]\n");
        if !self.comment.is_empty() {
            // The known Prometheus exporter of WireGuard reads names that are written like this.
            let _ = writeln!(text, "# {FRIENDLY_NAME} = {}", self.comment);
        }
        self.write_settings(text, false);
        text.push('\n');
    }

    /// Appends the section of this peer as `wg addconf` shall hear it. A peer that is there loses a preshared key
    /// that it shall not have.
    pub(crate) fn write_to_tool(&self, text: &mut String, is_there: bool) {
        text.push_str("[Peer]\n");
        self.write_settings(text, is_there);
    }

    fn write_settings(&self, text: &mut String, say_none: bool) {
        let _ = writeln!(text, "PublicKey = {}", self.public_key);
        match &self.preshared {
            Some(preshared) => {
                text.push_str("PresharedKey = ");
                text.push_str(&preshared.to_base64());
                text.push('\n');
            }
            None if say_none => {
                let _ = writeln!(text, "PresharedKey = {NO_PRESHARED}");
            }
            None => {}
        }
        let allowed = sorted(&self.allowed);
        for (n, network) in allowed.iter().enumerate() {
            text.push_str(if n == 0 { "AllowedIPs = " } else { ", " });
            let _ = write!(text, "{network}");
        }
        if !allowed.is_empty() {
            text.push('\n');
        }
    }
}

/// A peer as a file or an interface shows it.
#[derive(Debug, Clone)]
pub struct SeenPeer {
    /// Who it is.
    pub public_key: PublicKey,
    /// Its preshared key.
    pub preshared: Option<PresharedKey>,
    /// The addresses that it may use inside the tunnel, sorted, without host parts.
    pub allowed: Vec<IpNet>,
    /// Where it was last heard from (an interface), or where it shall be found (a file).
    pub endpoint: Option<String>,
    /// When its last handshake was, in seconds since 1970; never, or a file: none.
    pub handshake: Option<i64>,
    /// Bytes that the server received from it since the interface knows it.
    pub received: u64,
    /// Bytes that the server sent to it since the interface knows it.
    pub sent: u64,
    /// What a comment in the file calls it.
    pub name: Option<PeerName>,
}

impl SeenPeer {
    /// The peer that would have to be wanted for this one to be right as it is. For taking over a file.
    pub fn as_wanted(&self) -> Peer {
        Peer {
            public_key: self.public_key,
            preshared: self.preshared.clone(),
            allowed: sorted(&self.allowed),
            comment: self.name.clone().unwrap_or_default(),
        }
    }
}

/// What a file calls a peer: one line, at most [`LONGEST_NAME`] characters, nothing that ends a line, opens a section or
/// hides what stands there. There is no other `PeerName`, so no customer's name can add a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerName(String);

/// Why a text is no [`PeerName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadName {
    /// It holds a character that a name must not hold.
    #[error("a peer's name holds {0:?}, which could end its line, open a section or hide what stands there")]
    Character(char),
    /// It is too long.
    #[error("a peer's name has {0} characters, at most 64 are possible")]
    TooLong(usize),
}

impl PeerName {
    /// Takes a name as it is, but for blanks around it.
    ///
    /// # Errors
    /// When the text is not a name: the caller asks for another one.
    pub fn new(text: &str) -> Result<Self, BadName> {
        let text = text.trim();
        if let Some(found) = text.chars().find(|found| is_forbidden(*found)) {
            return Err(BadName::Character(found));
        }
        match text.chars().count() {
            length if length > LONGEST_NAME => Err(BadName::TooLong(length)),
            _ => Ok(Self(text.to_owned())),
        }
    }

    /// Makes a name of any text: what a name must not hold becomes a blank, the rest is cut off.
    pub fn clean(text: &str) -> Self {
        let shown: String = text.chars().map(|found| if is_forbidden(found) { ' ' } else { found }).collect();
        let joined = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        let cut: String = joined.chars().take(LONGEST_NAME).collect();
        Self(cut.trim_end().to_owned())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether nothing is left of it. Such a peer gets no comment.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for PeerName {
    fn from(text: &str) -> Self {
        Self::clean(text)
    }
}

impl From<String> for PeerName {
    fn from(text: String) -> Self {
        Self::clean(&text)
    }
}

/// The word in a comment after which the known Prometheus exporter of WireGuard looks for a peer's name.
pub(crate) const FRIENDLY_NAME: &str = "friendly_name";

/// Control characters, brackets, the line and paragraph separators, and what turns or hides the text around it.
fn is_forbidden(found: char) -> bool {
    found.is_control()
        || matches!(found, '[' | ']' | '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200f}')
        || matches!(found, '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The networks as WireGuard keeps them: without host parts, each once, in order.
pub(crate) fn sorted(networks: &[IpNet]) -> Vec<IpNet> {
    let mut sorted: Vec<IpNet> = networks.iter().map(IpNet::trunc).collect();
    sorted.sort_unstable();
    sorted.dedup();
    sorted
}

/// Reads a network as `wg` reads it: without a prefix it is one address, a host part is dropped.
pub(crate) fn network(text: &str) -> Option<IpNet> {
    let Some((address, prefix)) = text.split_once('/') else {
        return text.parse::<IpAddr>().ok().map(IpNet::from);
    };
    if prefix.is_empty() || !prefix.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let digits = prefix.trim_start_matches('0');
    let length = if digits.is_empty() { 0 } else { digits.parse::<u8>().ok()? };
    Some(IpNet::new(address.parse().ok()?, length).ok()?.trunc())
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// The key of the `n`th peer of a test.
    pub(crate) fn key(n: u32) -> PublicKey {
        let mut bytes = [1; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        PublicKey(bytes)
    }

    /// The preshared key of the `n`th peer of a test.
    pub(crate) fn preshared(n: u32) -> PresharedKey {
        let mut bytes = [2; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        PresharedKey::from_random(bytes)
    }

    /// The `n`th peer of a test, with one address of each family.
    pub(crate) fn peer(n: u32) -> Peer {
        let address = std::net::Ipv4Addr::from(0x0a08_0000 + n);
        let address6 = std::net::Ipv6Addr::from((0xfd08_u128 << 112) + u128::from(n));
        Peer {
            public_key: key(n),
            preshared: Some(preshared(n)),
            allowed: vec![IpNet::from(IpAddr::from(address)), IpNet::from(IpAddr::from(address6))],
            comment: PeerName::clean(&format!("peer {n}")),
        }
    }

    /// The peers of a test with these numbers.
    pub(crate) fn peers(numbers: impl IntoIterator<Item = u32>) -> Vec<Peer> {
        numbers.into_iter().map(peer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{peer, preshared};
    use super::*;

    #[test]
    fn a_name_that_could_write_a_section_is_refused_or_loses_what_could() {
        let planted = "Eve\n[Peer]\nPublicKey = x";
        assert_eq!(PeerName::new(planted), Err(BadName::Character('\n')));
        assert_eq!(PeerName::new("a [Peer] b"), Err(BadName::Character('[')));
        assert_eq!(PeerName::new("a\u{2028}b"), Err(BadName::Character('\u{2028}')));
        assert_eq!(PeerName::new("a\u{202e}b"), Err(BadName::Character('\u{202e}')));
        assert_eq!(PeerName::new(&"x".repeat(65)), Err(BadName::TooLong(65)));
        assert_eq!(PeerName::clean(planted).as_str(), "Eve Peer PublicKey = x");
        assert_eq!(PeerName::clean(" \r\n\0 ").as_str(), "");
        assert_eq!(PeerName::clean(&"ы".repeat(1_000)).as_str(), "ы".repeat(64));
    }

    #[test]
    fn a_good_name_stays_as_it_is() {
        for name in ["Иван, телефон", "phone #2", "= a", "peer_01J", "👩‍🚀"] {
            let cleaned = PeerName::clean(name);
            assert_eq!(PeerName::clean(cleaned.as_str()), cleaned);
            if let Ok(taken) = PeerName::new(name) {
                assert_eq!(taken.as_str(), name);
                assert_eq!(cleaned, taken);
            }
        }
    }

    #[test]
    fn a_section_of_the_file_names_the_peer_and_one_for_the_tool_says_that_a_secret_goes() {
        let mut one = peer(1);
        one.preshared = None;
        let mut text = String::new();
        one.write_to_file(&mut text);
        assert_eq!(
            text,
            format!(
                "[Peer]\n# friendly_name = peer 1\nPublicKey = {}\nAllowedIPs = 10.8.0.1/32, fd08::1/128\n\n",
                one.public_key
            )
        );
        text.clear();
        one.write_to_tool(&mut text, true);
        assert!(text.contains(&format!("PresharedKey = {NO_PRESHARED}\n")), "{text}");
        text.clear();
        one.write_to_tool(&mut text, false);
        assert!(!text.contains("PresharedKey"), "{text}");
    }

    #[test]
    fn addresses_and_secrets_count_when_two_peers_are_compared_and_order_does_not() {
        let one = peer(1);
        let mut seen = SeenPeer {
            public_key: one.public_key,
            preshared: one.preshared.clone(),
            allowed: one.allowed.iter().rev().copied().collect(),
            endpoint: None,
            handshake: None,
            received: 0,
            sent: 0,
            name: None,
        };
        assert!(one.is_shown_by(&seen));
        assert!(seen.as_wanted().is_shown_by(&seen));
        seen.preshared = Some(preshared(2));
        assert!(!one.is_shown_by(&seen));
        seen.preshared = None;
        assert!(!one.is_shown_by(&seen));
        seen.preshared = one.preshared.clone();
        seen.allowed.pop();
        assert!(!one.is_shown_by(&seen));
    }

    #[test]
    fn networks_are_read_as_wg_reads_them() {
        let read = |text: &str| network(text).map(|network| network.to_string());
        assert_eq!(read("10.0.0.2"), Some("10.0.0.2/32".into()));
        assert_eq!(read("10.0.0.2/24"), Some("10.0.0.0/24".into()));
        assert_eq!(read("10.0.0.2/032"), Some("10.0.0.2/32".into()));
        assert_eq!(read("0.0.0.0/0"), Some("0.0.0.0/0".into()));
        assert_eq!(read("fd00::2"), Some("fd00::2/128".into()));
        for wrong in
            ["", "/", "10.0.0.2/", "10.0.0.2/33", "fd00::/129", "10.0.0/8", "a/8", "10.0.0.1/+8", "1.1.1.1/256"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
