//! What a VPN server and its owner hand in: `wg0.conf`, which anybody edits, what `wg show` prints, and the CSV that says whose
//! the peers of an older file are.

use std::collections::BTreeSet;

use ipnet::IpNet;

use semel_shop::vpn::import::adoptions;
use semel_wireguard::conf::Problem;
use semel_wireguard::dump::{self, DumpError};
use semel_wireguard::{Conf, Peer, PeerName, PublicKey};

use super::{TAKEN, Verdict};

/// What these are made of.
pub const WORDS: &[&str] = &[
    "[Interface]\n",
    "[Peer]\n",
    "[peer]",
    "PublicKey = ",
    "PresharedKey = ",
    "AllowedIPs = ",
    "Address = 10.8.0.1/24\n",
    "PostUp = echo [Peer] # not a section\n",
    "SaveConfig = true\n",
    "# semel: begin\n",
    "# semel: end\n",
    "# semel: end sha256=",
    "# friendly_name = ",
    "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
    "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "10.8.0.2/32",
    "fd08::2/128",
    "0.0.0.0/0, ::/0",
    "(none)",
    "off",
    "\t",
    ",",
    ";",
    "\"",
    "\r\n",
    "\r",
    "\u{feff}",
    "42",
    "2027-01-31",
    "2027-01-31T12:00:00Z",
];

/// What is understood can be written with a peer of ours in it, is understood again, is whole, and has all that was foreign. To
/// write it once more changes nothing.
pub fn conf(input: &[u8]) -> Verdict {
    let conf = match Conf::parse(input) {
        Ok(conf) => conf,
        Err(error) => {
            is_a_line(error.line, input)?;
            // Which line the first fence is in is a value of the input.
            let problem = match error.problem {
                Problem::SecondFence { .. } => "SecondFence".to_owned(),
                other => format!("{other:?}"),
            };
            return Ok(format!("refused: {problem}"));
        }
    };
    let ours = Peer {
        public_key: PublicKey([0x55; 32]),
        preshared: None,
        allowed: "10.8.0.99/32".parse::<IpNet>().into_iter().collect(),
        comment: PeerName::clean("a customer"),
    };
    let written = conf.with_ours(std::slice::from_ref(&ours));
    let again = Conf::parse(&written).map_err(|error| format!("what was written of it is not understood: {error}"))?;
    if !again.whole() {
        return Err("what was written of it is not whole".into());
    }
    if !conf.has_fence() && !written.starts_with(input) {
        return Err("bytes that are none of ours were changed".into());
    }
    let foreign = |conf: &Conf| conf.foreign().iter().map(|peer| peer.public_key).collect::<Vec<PublicKey>>();
    if foreign(&conf) != foreign(&again) {
        return Err("a foreign peer came or went".into());
    }
    if again.with_ours(std::slice::from_ref(&ours)) != written {
        return Err("written once more it is another file".into());
    }
    let (fence, peers) = (conf.has_fence(), conf.foreign().len().min(2));
    Ok(format!("{TAKEN}: fence {fence}, {} of ours, {peers} foreign", conf.ours().len().min(2)))
}

/// A print is understood as a whole or not at all, and one that breaks off is not.
pub fn shown(input: &[u8]) -> Verdict {
    match dump::parse(input) {
        Ok(seen) => {
            let lines = input.split(|byte| *byte == b'\n').count();
            if !input.ends_with(b"\n") || seen.peers.len() + 2 > lines {
                return Err(format!("{} peers in {lines} lines", seen.peers.len()));
            }
            Ok(format!("{TAKEN}: own key {}, {} peers", seen.own.is_some(), seen.peers.len().min(3)))
        }
        Err(DumpError::Empty) if input.is_empty() => Ok("refused: empty".into()),
        Err(DumpError::Empty) => Err("something was printed".into()),
        Err(DumpError::BreaksOff(line)) => is_a_line(line, input).map(|()| "refused: breaks off".into()),
        Err(DumpError::Line { line, what }) => is_a_line(line, input).map(|()| format!("refused: no {what}")),
    }
}

/// Each key is adopted once, by a person; what is wrong is told with its line and without its words.
pub fn adopted(input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input);
    match adoptions(&text) {
        Ok(found) => {
            let keys: BTreeSet<PublicKey> = found.iter().map(|adopt| adopt.public_key).collect();
            if keys.len() != found.len() || found.iter().any(|adopt| adopt.telegram_id < 1) {
                return Err("a key stands twice, or nobody has it".into());
            }
            Ok(format!("{TAKEN}: {}", found.len().min(3)))
        }
        Err(error) => is_a_line(error.line, text.as_bytes()).map(|()| format!("refused: {}", error.problem)),
    }
}

/// Whether the input has a line of this number.
fn is_a_line(line: usize, input: &[u8]) -> Result<(), String> {
    let lines = input.split(|byte| *byte == b'\n').count();
    if (1..=lines).contains(&line) { Ok(()) } else { Err(format!("line {line} is told, and there are {lines}")) }
}
