//! What `wg show INTERFACE dump` prints: a line of the interface, then a line of each peer, with tabs between.
//!
//! AmneziaWG's tool puts more fields into the interface's line; a peer's line is the same in both.

use std::collections::BTreeSet;

use ipnet::IpNet;
use thiserror::Error;

use crate::key::{PresharedKey, PublicKey};
use crate::peer::{NO_PRESHARED, SeenPeer, network};
use crate::plan::Seen;

const NONE: &str = "(none)";

/// What was printed is not a dump, so nobody may conclude anything from it. No value of it is repeated here: a dump holds
/// the private key of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DumpError {
    /// Not even the interface's line.
    #[error("nothing was printed, not even the line of the interface")]
    Empty,
    /// The last line has no end: the rest is missing.
    #[error("the print breaks off in line {0}")]
    BreaksOff(usize),
    /// A line is not what it has to be.
    #[error("line {line} has no {what}")]
    Line {
        /// Which line, from 1.
        line: usize,
        /// What is not there.
        what: &'static str,
    },
}

/// Reads a dump.
///
/// # Errors
/// When any line is not one of a dump: a list with a hole in it would look as if peers were missing.
pub fn parse(bytes: &[u8]) -> Result<Seen, DumpError> {
    let mut seen = Seen::default();
    let mut lines = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        lines += 1;
        let Some(line) = line.strip_suffix(b"\n") else { return Err(DumpError::BreaksOff(lines)) };
        let lacks = |what| DumpError::Line { line: lines, what };
        let text = str::from_utf8(line).map_err(|_| lacks("readable text"))?;
        let fields: Vec<&str> = text.split('\t').collect();
        if lines == 1 {
            seen.own = interface(&fields).ok_or(lacks("keys of an interface"))?;
        } else {
            let peer = peer(&fields).map_err(lacks)?;
            seen.peers.insert(peer.public_key, peer);
        }
    }
    if lines == 0 { Err(DumpError::Empty) } else { Ok(seen) }
}

/// Private key, public key, port, (AmneziaWG's parameters,) mark. Answers the public key, which an interface may lack.
fn interface(fields: &[&str]) -> Option<Option<PublicKey>> {
    let public = fields.get(1).filter(|_| fields.len() >= 4)?;
    if *public == NONE { Some(None) } else { public.parse().ok().map(Some) }
}

/// Public key, preshared key, endpoint, allowed addresses, last handshake, received, sent, keepalive.
fn peer(fields: &[&str]) -> Result<SeenPeer, &'static str> {
    let [public_key, preshared, endpoint, allowed, handshake, received, sent, _keepalive, ..] = fields else {
        return Err("eight fields of a peer");
    };
    let handshake: i64 = handshake.parse().map_err(|_| "time of the last handshake")?;
    Ok(SeenPeer {
        public_key: public_key.parse().map_err(|_| "public key")?,
        preshared: secret(preshared)?,
        allowed: networks(allowed).ok_or("allowed addresses")?,
        endpoint: (*endpoint != NONE).then(|| (*endpoint).to_owned()),
        handshake: (handshake != 0).then_some(handshake),
        received: received.parse().map_err(|_| "count of received bytes")?,
        sent: sent.parse().map_err(|_| "count of sent bytes")?,
        name: None,
    })
}

fn secret(text: &str) -> Result<Option<PresharedKey>, &'static str> {
    match text {
        NONE | NO_PRESHARED => Ok(None),
        text => text.parse().map(Some).map_err(|_| "preshared key"),
    }
}

fn networks(text: &str) -> Option<Vec<IpNet>> {
    if text == NONE {
        return Some(Vec::new());
    }
    let each: Option<BTreeSet<IpNet>> = text.split(',').map(network).collect();
    Some(each?.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::peer::testing::{key, peer as wanted, preshared};

    fn line(n: u32, rest: &str) -> String {
        format!("{}\t{}\t{rest}\n", key(n), *preshared(n).to_base64())
    }

    #[test]
    fn a_dump_of_the_usual_tool_is_read() {
        let text = format!(
            "(none)\t{}\t51820\toff\n{}{}",
            key(0),
            line(1, "203.0.113.7:4500\t10.8.0.1/32,fd08::1/128\t1790000000\t1024\t2048\t25"),
            format_args!("{}\t(none)\t(none)\t(none)\t0\t0\t0\toff\n", key(2)),
        );
        let seen = parse(text.as_bytes()).unwrap();
        assert_eq!(seen.own, Some(key(0)));
        let first = &seen.peers[&key(1)];
        assert!(wanted(1).is_shown_by(first));
        assert_eq!(first.endpoint.as_deref(), Some("203.0.113.7:4500"));
        assert_eq!((first.handshake, first.received, first.sent), (Some(1_790_000_000), 1024, 2048));
        let second = &seen.peers[&key(2)];
        assert!(second.preshared.is_none() && second.allowed.is_empty() && second.endpoint.is_none());
        assert_eq!(second.handshake, None);
    }

    #[test]
    fn a_dump_of_amnezia_has_a_longer_first_line() {
        let text = format!("(none)\t{}\t51820\t4\t40\t70\t0\t0\t1\t2\t3\t4\toff\n", key(0));
        assert!(parse(text.as_bytes()).unwrap().peers.is_empty());
    }

    #[test]
    fn what_is_no_dump_is_never_taken_for_an_interface_without_peers() {
        assert_eq!(parse(b"").unwrap_err(), DumpError::Empty);
        assert!(parse(b"Usage: wg <cmd>\n").is_err());
        assert!(parse(b"\n").is_err());
        assert!(parse(b"\xff\xfe\n").is_err());
        let first = format!("(none)\t{}\t51820\toff\n", key(0));
        let cut = format!("{first}{}", line(1, "(none)\t(none)\t0\t0\t0\toff").trim_end());
        assert_eq!(parse(cut.as_bytes()).unwrap_err(), DumpError::BreaksOff(2));
        for rest in ["", "(none)\t(none)\t0\t0\t0", "(none)\tx\t0\t0\t0\toff", "(none)\t(none)\tx\t0\t0\toff"] {
            let text = format!("{first}{}", line(1, rest));
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(matches!(error, DumpError::Line { line: 2, .. }), "{rest}: {error}");
            assert!(!error.to_string().contains(&*preshared(1).to_base64()));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in any::<Vec<u8>>()) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_fields_make_it_panic(fields in prop::collection::vec("[-0-9a-zA-Z+/=:.,()\t\n]{0,50}", 0..40)) {
            let _ = parse(fields.join("\t").as_bytes());
        }
    }
}
