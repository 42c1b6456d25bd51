//! `wg0.conf`: what stands in it, and the same file with our peers as they shall be.
//!
//! Our peers stand between two fence lines; all other bytes are somebody else's and stay as they are, whatever they are.
//! The second fence line holds the SHA-256 of what stands between, so anybody can see whether it is whole. A file that
//! cannot be understood, or whose fence is damaged, is refused with the line and what to do: nothing is ever guessed.
//!
//! ```text
//! [Interface]
//! PrivateKey = …
//! # semel: begin (Semel writes the peers down to the line "semel: end"; write your own above or below)
//! [Peer]
//! # friendly_name = Ivan, phone
//! PublicKey = …
//! PresharedKey = …
//! AllowedIPs = 10.8.0.2/32, fd08::2/128
//!
//! # semel: end sha256=…
//! ```

mod reader;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use ipnet::IpNet;
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::key::PublicKey;
use crate::peer::{Peer, SeenPeer};
use crate::plan::Seen;

/// Opens our part of the file. A line is recognised by its beginning, so that the hint behind it may change.
const BEGIN: &str = "semel: begin";
/// Closes our part of the file.
const END: &str = "semel: end";
const HINT: &str = "(Semel writes the peers down to the line \"semel: end\"; write your own above or below)";
const HASH: &str = "sha256=";
/// Some Windows editors put this before the first line.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// A `wg0.conf` that was read. Its bytes hold secrets: they are wiped when it goes, and are not shown by `{:?}`.
pub struct Conf {
    bytes: Zeroizing<Vec<u8>>,
    fence: Option<Fence>,
    peers: Vec<Found>,
    interface: Interface,
}

/// Our part of the file, both fence lines with it.
struct Fence {
    text: Range<usize>,
    whole: bool,
}

/// A peer of the file.
struct Found {
    peer: SeenPeer,
    /// Whether it stands between the fence lines.
    inside: bool,
    /// Its section, with the comment lines right before it.
    text: Range<usize>,
}

/// Which peers between the fence lines stay there, although they are not wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Keep {
    /// None.
    #[default]
    Nobody,
    /// Those of which it is not known whether they are wanted.
    These(BTreeSet<PublicKey>),
    /// All: what is wanted is not known well enough to take anything away.
    Everybody,
}

impl Keep {
    /// Whether the peer with this key stays.
    pub fn holds(&self, key: &PublicKey) -> bool {
        match self {
            Self::Nobody => false,
            Self::These(keys) => keys.contains(key),
            Self::Everybody => true,
        }
    }
}

/// What the file says about the server itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// Whether there is an `[Interface]` at all.
    pub present: bool,
    /// The server's own addresses inside the tunnel, with the prefix of their networks.
    pub addresses: Vec<IpNet>,
    /// The UDP port, where it is written as a number.
    pub listen_port: Option<u16>,
    /// Whether there is a private key. The key itself is nobody's business here.
    pub has_private_key: bool,
    /// Whether wg-quick shall overwrite the file when the interface goes down. It would write our fence away: the owner
    /// should set it to false.
    pub save_config: bool,
}

impl Interface {
    /// Whether the server has an address inside of the whole `network`, so that its machine knows the way to every device
    /// there: an interface reaches only the networks of its own addresses.
    pub fn covers(&self, network: &IpNet) -> bool {
        self.addresses.iter().any(|own| own.contains(&network.trunc()))
    }
}

/// The lines that an `[Interface]` lacks when it does not cover `network`: its address there, and the way out.
pub fn lines_for(network: &IpNet) -> Vec<String> {
    let network = network.trunc();
    let tool = if network.addr().is_ipv4() { "iptables" } else { "ip6tables" };
    let first = network.hosts().find(|ip| *ip != network.network());
    let address = first.map(|first| format!("Address = {first}/{}", network.prefix_len()));
    let way = |moment: &str, verb: &str| {
        format!("{moment} = {tool} -t nat {verb} POSTROUTING -s {network} -o OUTSIDE -j MASQUERADE")
    };
    address.into_iter().chain([way("PostUp", "-A"), way("PostDown", "-D")]).collect()
}

/// Why a file cannot be read, in which line, and what to do about it. No value of the file is repeated: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("line {line}: {problem}")]
pub struct ConfError {
    /// Which line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Problem {
    /// Neither a setting nor a section nor a comment.
    #[error("this is neither `name = value` nor a section nor a comment; mend the line or put a # before it")]
    NoSetting,
    /// A setting before the first section.
    #[error("this setting stands in no section; write [Interface] or [Peer] above it")]
    NoSection,
    /// A public key is not one.
    #[error("the public key is not 44 characters of base64")]
    PublicKey,
    /// A preshared key is not one.
    #[error("the preshared key is not 44 characters of base64")]
    PresharedKey,
    /// A list of networks is not one.
    #[error("AllowedIPs is not a list of networks like 10.8.0.2/32, fd08::2/128")]
    AllowedIps,
    /// A peer without a key.
    #[error("this [Peer] has no PublicKey; give it one or delete the section")]
    NoPublicKey,
    /// A fence that is not closed.
    #[error(
        "`# semel: begin` has no `# semel: end`; write `# semel: end` below the last peer that Semel wrote, \
         or delete the line and these peers, and Semel writes them anew"
    )]
    NeverEnds,
    /// An end without its begin.
    #[error(
        "`# semel: end` has no `# semel: begin` above it; write `# semel: begin` above the first peer that Semel wrote, \
         or delete the line and these peers, and Semel writes them anew"
    )]
    NeverBegan,
    /// A second fence.
    #[error(
        "a second `# semel: begin`, the first is in line {first}; leave one pair of `# semel: begin` and `# semel: end` \
         and delete the other with what stands between"
    )]
    SecondFence {
        /// The line of the first one.
        first: usize,
    },
    /// Something between the fence lines that is not a peer.
    #[error("this section stands between `# semel: begin` and `# semel: end`; move it above `# semel: begin`")]
    SectionInside,
    /// A setting right below the fence: it would belong to whichever peer of ours happens to be the last.
    #[error(
        "this setting stands right below `# semel: end` and in no section; write [Peer] above it or move it to its section"
    )]
    SettingBelowFence,
}

impl Conf {
    /// Reads a file. Everything that wg-quick accepts is accepted; settings and sections that nobody knows are, too.
    ///
    /// # Errors
    /// When the file cannot be understood, or our fence is damaged.
    pub fn parse(bytes: &[u8]) -> Result<Conf, ConfError> {
        let parts = reader::read(bytes)?;
        Ok(Conf {
            bytes: Zeroizing::new(bytes.to_vec()),
            fence: parts.fence,
            peers: parts.peers,
            interface: parts.interface,
        })
    }

    /// The peers between the fence lines.
    pub fn ours(&self) -> Vec<SeenPeer> {
        self.peers.iter().filter(|found| found.inside).map(|found| found.peer.clone()).collect()
    }

    /// The peers outside of the fence.
    pub fn foreign(&self) -> Vec<SeenPeer> {
        self.peers.iter().filter(|found| !found.inside).map(|found| found.peer.clone()).collect()
    }

    /// All peers of the file. One that stands twice is taken as it stands outside of the fence: that one stays.
    pub fn seen(&self) -> Seen {
        let mut peers = BTreeMap::new();
        for found in
            self.peers.iter().filter(|found| found.inside).chain(self.peers.iter().filter(|found| !found.inside))
        {
            peers.insert(found.peer.public_key, found.peer.clone());
        }
        Seen { peers, own: None }
    }

    /// The keys outside of the fence. What is there, nobody but a person takes away.
    pub fn outside(&self) -> BTreeSet<PublicKey> {
        self.peers.iter().filter(|found| !found.inside).map(|found| found.peer.public_key).collect()
    }

    /// What the file says about the server itself.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Whether what stands between the fence lines is what was written there. True without a fence.
    pub fn whole(&self) -> bool {
        self.fence.as_ref().is_none_or(|fence| fence.whole)
    }

    /// Whether there is a fence of ours.
    pub fn has_fence(&self) -> bool {
        self.fence.is_some()
    }

    /// The file with exactly `peers` between the fence lines and every other byte as it was.
    ///
    /// A peer that stands outside of the fence (an owner moved it there, or it was taken over) is not written a second
    /// time. Without a fence one is appended, unless there is nothing to put into it. The same peers give the same bytes,
    /// in whichever order they come.
    pub fn with_ours(&self, peers: &[Peer]) -> Vec<u8> {
        self.write(peers, |_| false)
    }

    /// As [`Conf::with_ours`], but what somebody else put between the fence lines is moved below them instead of being
    /// deleted: a peer that is neither in `peers` nor in `ours` (all keys that are or once were ours).
    pub fn reconciled(&self, peers: &[Peer], ours: &BTreeSet<PublicKey>) -> Vec<u8> {
        self.reconciled_keeping(peers, ours, &Keep::Nobody)
    }

    /// As [`Conf::reconciled`], but a peer between the fence lines that `keep` names stays there as it stands, also when it
    /// is not in `peers`.
    pub fn reconciled_keeping(&self, peers: &[Peer], ours: &BTreeSet<PublicKey>, keep: &Keep) -> Vec<u8> {
        let wanted: BTreeSet<PublicKey> = peers.iter().map(|peer| peer.public_key).collect();
        let stays = |found: &&Found| {
            let key = &found.peer.public_key;
            found.inside && !wanted.contains(key) && keep.holds(key)
        };
        let kept: Vec<Peer> = self.peers.iter().filter(stays).map(|found| found.peer.as_wanted()).collect();
        if kept.is_empty() {
            return self.write(peers, |key| !wanted.contains(key) && !ours.contains(key));
        }
        let all: Vec<Peer> = peers.iter().cloned().chain(kept).collect();
        self.write(&all, |key| !wanted.contains(key) && !ours.contains(key) && !keep.holds(key))
    }

    fn write(&self, peers: &[Peer], is_stray: impl Fn(&PublicKey) -> bool) -> Vec<u8> {
        let mut written = self.outside();
        let mut inside: Vec<&Peer> = peers.iter().filter(|peer| written.insert(peer.public_key)).collect();
        if inside.is_empty() && self.fence.is_none() {
            return self.bytes.to_vec();
        }
        // By address: a person finds a peer, and a change touches few lines.
        inside.sort_by_cached_key(|peer| (peer.allowed.iter().min().copied(), peer.public_key));
        let ours = fence(&inside);

        let (before, after) = match &self.fence {
            Some(fence) => (&self.bytes[..fence.text.start], &self.bytes[fence.text.end..]),
            None => (&self.bytes[..], &[][..]),
        };
        let strays = self.peers.iter().filter(|found| found.inside && is_stray(&found.peer.public_key));
        // Reserved at once: growing would leave copies of the secrets behind.
        let mut bytes = Vec::with_capacity(self.bytes.len() + ours.len() + 1);
        bytes.extend_from_slice(before);
        if self.fence.is_none() && !before.is_empty() && !before.ends_with(b"\n") {
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(ours.as_bytes());
        for stray in strays {
            bytes.extend_from_slice(&self.bytes[stray.text.clone()]);
        }
        bytes.extend_from_slice(after);
        bytes
    }
}

impl fmt::Debug for Conf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inside = self.peers.iter().filter(|found| found.inside).count();
        f.debug_struct("Conf")
            .field("bytes", &self.bytes.len())
            .field("ours", &inside)
            .field("foreign", &(self.peers.len() - inside))
            .field("whole", &self.whole())
            .finish_non_exhaustive()
    }
}

/// The fence with these peers in it.
fn fence(peers: &[&Peer]) -> Zeroizing<String> {
    let mut between = Zeroizing::new(String::with_capacity(peers.len() * 512));
    for peer in peers {
        peer.write_to_file(&mut between);
    }
    let hash = hash(between.as_bytes());
    let mut text = Zeroizing::new(String::with_capacity(between.len() + 256));
    for part in ["# ", BEGIN, " ", HINT, "\n", between.as_str(), "# ", END, " ", HASH, hash.as_str(), "\n"] {
        text.push_str(part);
    }
    text
}

fn hash(between: &[u8]) -> String {
    hex::encode(Sha256::digest(between))
}
