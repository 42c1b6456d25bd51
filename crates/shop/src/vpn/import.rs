//! Taking over a `wg0.conf` that somebody else has kept.
//!
//! A peer of the file becomes one of ours only when the owner says whose it is and until when (`--adopt MAP.csv`): a
//! subscription is given by hand, and its peer has the key and the addresses of the file, so the customer's device notices
//! nothing. Every other peer stays what it is, a foreign one that nobody takes away, and its addresses are kept from being given
//! out. Nothing is guessed from comments.
//!
//! The file itself is not changed by this. An adopted peer stays where it stands outside of our fence, and is not written a
//! second time; once the owner deletes it there, the next apply writes it between the fence lines.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::history::{self, Entry};
use semel_kernel::store::{Expect, Tx};
use semel_wireguard::{Conf, PublicKey, SeenPeer};

use super::{PeerId, ServerId, addresses, apply, peers, sql};
use crate::customers::NewCustomer;
use crate::subscriptions::by_hand::{self, Grant};
use crate::{Error, Shop};

/// Whose a peer of the file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopt {
    /// The peer.
    pub public_key: PublicKey,
    /// The customer's Telegram id.
    pub telegram_id: i64,
    /// Until when it is paid.
    pub until: Time,
}

/// What becomes of the peers of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Import {
    /// Each peer of the file that does not stand between our fence lines.
    pub peers: Vec<Line>,
    /// Peers that get a subscription.
    pub adopted: usize,
    /// Peers that stay foreign.
    pub reserved: usize,
    /// Peers that are ours already.
    pub known: usize,
    /// Peers that cannot be adopted.
    pub conflicts: usize,
    /// Keys of the map that the file does not have.
    pub not_in_file: Vec<String>,
}

/// What becomes of one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Its public key.
    pub public_key: String,
    /// What a comment of the file calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its networks.
    pub allowed_ips: Vec<String>,
    /// What becomes of it.
    #[serde(flatten)]
    pub becomes: Becomes,
}

/// What becomes of a peer of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "becomes", rename_all = "snake_case")]
pub enum Becomes {
    /// A peer of a subscription that is given by hand.
    Adopted {
        /// The customer.
        telegram_id: i64,
        /// Until when, RFC 3339.
        until: String,
    },
    /// It stays foreign, and these addresses of ours are kept for it.
    Reserved {
        /// Addresses that are free now.
        addresses: Vec<String>,
    },
    /// It is ours already.
    Known {
        /// As which peer.
        peer: PeerId,
    },
    /// The owner wants it adopted, and that cannot be.
    Conflict {
        /// Why, and what to do.
        why: String,
    },
}

/// What is wrong with a CSV that says whose peers are, and in which line. It repeats nothing of the line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the CSV: {problem}")]
pub struct CsvError {
    /// Which line, from 1, the heading counted.
    pub line: usize,
    /// What is wrong with it, and what to write.
    pub problem: &'static str,
}

impl From<CsvError> for Error {
    fn from(error: CsvError) -> Self {
        Self::invalid("adopt", error.to_string())
    }
}

/// Reads a map of peers to customers: lines of `public_key,telegram_id,until`, with or without that heading. `until` is a
/// moment in RFC 3339, or a day, of which the end in UTC counts.
///
/// # Errors
/// The line that is wrong.
pub fn adoptions(csv: &str) -> Result<Vec<Adopt>, CsvError> {
    let (mut found, mut keys) = (Vec::new(), BTreeSet::new());
    for (n, line) in (1_usize..).zip(csv.trim_start_matches('\u{feff}').lines()) {
        let line = line.trim();
        let is_heading = n == 1 && line.to_ascii_lowercase().starts_with("public_key");
        if line.is_empty() || line.starts_with('#') || is_heading {
            continue;
        }
        let wrong = |problem: &'static str| CsvError { line: n, problem };
        if !line.contains(',') && line.contains([';', '\t']) {
            return Err(wrong("its separator is `;` or a tab: write commas, as in public_key,telegram_id,until"));
        }
        let fields: Vec<&str> = line.split(',').map(|field| field.trim().trim_matches('"')).collect();
        let [key, telegram_id, until] = fields[..] else {
            return Err(wrong("write public_key,telegram_id,until"));
        };
        let public_key: PublicKey = key.parse().map_err(|_| wrong("the public key is not 44 characters of base64"))?;
        let telegram_id: i64 = telegram_id.parse().map_err(|_| wrong("the Telegram id is not a number"))?;
        if telegram_id < 1 {
            return Err(wrong("the Telegram id of a person is positive"));
        }
        let until = moment(until).ok_or_else(|| wrong("write the end like 2027-01-31 or 2027-01-31T12:00:00Z"))?;
        if !keys.insert(public_key) {
            return Err(wrong("this key stands in the CSV already"));
        }
        found.push(Adopt { public_key, telegram_id, until });
    }
    Ok(found)
}

fn moment(text: &str) -> Option<Time> {
    if let Ok(stamp) = text.parse::<jiff::Timestamp>() {
        return Some(Time::from_millis(stamp.as_millisecond()));
    }
    if text.len() != "2027-01-31".len() {
        return None; // A moment without its offset could be meant in any.
    }
    let day: jiff::civil::Date = text.parse().ok()?;
    let end = day.tomorrow().ok()?.at(0, 0, 0, 0).to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(Time::from_millis(end.timestamp().as_millisecond()))
}

/// What an import would do. Changes nothing.
///
/// # Errors
/// [`Error::NotFound`] when there is no such server; what the store says.
pub fn plan(tx: &mut Tx, server: &ServerId, conf: &Conf, adopt: &[Adopt]) -> Result<Import, Error> {
    super::servers::find(tx, server)?;
    let now = tx.now();
    let mut wanted: BTreeMap<PublicKey, &Adopt> = adopt.iter().map(|adopt| (adopt.public_key, adopt)).collect();
    let mut import = Import::default();
    let mut given: BTreeSet<IpAddr> = BTreeSet::new();
    for peer in conf.foreign() {
        let becomes = match (known(tx, server, &peer)?, wanted.remove(&peer.public_key)) {
            (Some(peer), _) => Becomes::Known { peer },
            (None, Some(adopt)) => match adoptable(tx, server, &peer, adopt, now, &mut given)? {
                Ok(()) => Becomes::Adopted { telegram_id: adopt.telegram_id, until: adopt.until.to_string() },
                Err(why) => Becomes::Conflict { why },
            },
            (None, None) => Becomes::Reserved { addresses: free(tx, server, &peer)? },
        };
        match &becomes {
            Becomes::Adopted { .. } => import.adopted += 1,
            Becomes::Reserved { .. } => import.reserved += 1,
            Becomes::Known { .. } => import.known += 1,
            Becomes::Conflict { .. } => import.conflicts += 1,
        }
        import.peers.push(Line {
            public_key: peer.public_key.to_string(),
            name: peer.name.as_ref().map(ToString::to_string),
            allowed_ips: peer.allowed.iter().map(ToString::to_string).collect(),
            becomes,
        });
    }
    import.not_in_file = wanted.keys().map(ToString::to_string).collect();
    Ok(import)
}

/// Does what [`plan`] says, all of it or nothing. A repeat finds the adopted peers known and changes nothing.
///
/// # Errors
/// [`Error::Conflict`] when a peer of the map cannot be adopted, or is not in the file.
pub fn import(
    tx: &mut Tx,
    shop: &Shop,
    server: &ServerId,
    conf: &Conf,
    adopt: &[Adopt],
    actor: &str,
) -> Result<Import, Error> {
    let import = plan(tx, server, conf, adopt)?;
    if let Some((line, why)) = import.peers.iter().find_map(conflict) {
        return Err(Error::Conflict(format!("{} cannot be adopted: {why}", line.public_key)));
    }
    if let Some(key) = import.not_in_file.first() {
        return Err(Error::Conflict(format!("the CSV names {key}, which the file does not have")));
    }
    let adopt: BTreeMap<PublicKey, &Adopt> = adopt.iter().map(|adopt| (adopt.public_key, adopt)).collect();
    // What foreign peers have is kept first, so that nobody who is adopted gets a moment of it.
    for (peer, line) in conf.foreign().iter().zip(&import.peers) {
        if let Becomes::Reserved { .. } = line.becomes {
            keep_for(tx, server, peer, actor)?;
        }
    }
    for (peer, line) in conf.foreign().iter().zip(&import.peers) {
        if let (Becomes::Adopted { .. }, Some(adopt)) = (&line.becomes, adopt.get(&peer.public_key)) {
            take_over(tx, shop, server, peer, adopt, actor)?;
        }
    }
    apply::soon(tx, shop, server)?;
    Ok(import)
}

fn conflict(line: &Line) -> Option<(&Line, &str)> {
    match &line.becomes {
        Becomes::Conflict { why } => Some((line, why.as_str())),
        _ => None,
    }
}

fn known(tx: &mut Tx, server: &ServerId, peer: &SeenPeer) -> Result<Option<PeerId>, Error> {
    let row = tx.first(sql::KEY_TAKEN, args![server, peer.public_key.to_string()])?;
    Ok(row.map(|row| row.get(0)).transpose()?)
}

/// The single addresses of a peer; none when it routes a network.
fn singles(peer: &SeenPeer) -> Option<Vec<IpAddr>> {
    let is_single = peer.allowed.iter().all(|network| network.prefix_len() == network.max_prefix_len());
    (is_single && !peer.allowed.is_empty()).then(|| peer.allowed.iter().map(|network| network.addr()).collect())
}

/// Whether a peer can become one of ours: why not, if not.
fn adoptable(
    tx: &mut Tx,
    server: &ServerId,
    peer: &SeenPeer,
    adopt: &Adopt,
    now: Time,
    given: &mut BTreeSet<IpAddr>,
) -> Result<Result<(), String>, Error> {
    if adopt.until <= now {
        return Ok(Err(format!("its time was over at {}: leave it out of the CSV, or give it more", adopt.until)));
    }
    let Some(ips) = singles(peer) else {
        return Ok(Err("it has no single addresses of its own; such a peer stays foreign".into()));
    };
    for ip in ips {
        if !given.insert(ip) {
            return Ok(Err(format!("{ip} stands at another peer of the CSV, too")));
        }
        let row = tx.first(sql::ADDRESS_STATE, args![server, ip.to_string()])?;
        let Some(row) = row else {
            return Ok(Err(format!(
                "{ip} belongs to no network of this server: add the network, or end its reservation"
            )));
        };
        let (state, holder): (String, Option<PeerId>) = (row.get(0)?, row.get(1)?);
        match (state.as_str(), holder) {
            ("free", _) | ("held", None) => {}
            ("held", Some(holder)) => return Ok(Err(format!("peer {holder} has {ip}"))),
            _ => return Ok(Err(format!("{ip} rests after its last holder; import again when it is free"))),
        }
    }
    Ok(Ok(()))
}

/// Which addresses of a foreign peer could be given out as it is.
fn free(tx: &mut Tx, server: &ServerId, peer: &SeenPeer) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for ip in peer.allowed.iter().flat_map(apply::single_addresses) {
        let row = tx.first(sql::ADDRESS_STATE, args![server, ip.to_string()])?;
        if row.map(|row| row.get::<String>(0)).transpose()?.is_some_and(|state| state == "free") {
            found.push(ip.to_string());
        }
    }
    Ok(found)
}

fn keep_for(tx: &mut Tx, server: &ServerId, peer: &SeenPeer, actor: &str) -> Result<(), Error> {
    let ips: Vec<IpAddr> = peer.allowed.iter().flat_map(apply::single_addresses).collect();
    let key = peer.public_key.to_string();
    for ip in addresses::reserve(tx, server, &ips)? {
        let kept = Entry {
            entity: "address",
            entity_id: &format!("{server}/{ip}"),
            event: "kept for a foreign peer",
            actor: Some(actor),
            detail: Some(&key),
            ..Entry::default()
        };
        history::append(tx, &kept)?;
    }
    Ok(())
}

/// Gives the customer a subscription, and its one peer the key and the addresses of the file. The keys and addresses that the
/// gift would have brought are seen by nobody: they go back in the same transaction. The gift takes the addresses of the file
/// where it can, so that a network that is full otherwise is enough.
fn take_over(
    tx: &mut Tx,
    shop: &Shop,
    server: &ServerId,
    peer: &SeenPeer,
    adopt: &Adopt,
    actor: &str,
) -> Result<(), Error> {
    // Time is kept in whole seconds: what is begun is the customer's.
    let left = adopt.until.since(tx.now());
    let time = Duration::from_secs(left.as_secs() + u64::from(left.subsec_nanos() > 0)).max(Duration::from_secs(1));
    let customer = NewCustomer {
        telegram_id: adopt.telegram_id,
        email: None,
        phone: None,
        language: None,
        referrer_telegram_id: None,
    };
    let ips: Vec<String> = singles(peer).unwrap_or_default().iter().map(IpAddr::to_string).collect();
    for ip in &ips {
        tx.later(sql::FIRST_IN_LINE, args![server, ip], Expect::Rows(1))?;
    }
    let reason = "taken over from a configuration file".to_owned();
    let sub = by_hand::take_over(tx, shop, &Grant { customer, time, devices: 1, reason }, actor)?;
    if sub.server != *server {
        return Err(Error::Conflict(
            "another server is first in line for new subscriptions: close it meanwhile".into(),
        ));
    }
    let issued = peers::of_subscription(tx, &sub.id)?.into_iter().next();
    let Some(issued) = issued else { return Err(Error::missing("peer", &sub.id)) };
    let given = peers::addresses_of(tx, &issued)?;
    tx.execute(sql::FORGET_PEER_ADDRESSES, args![&issued.id])?;
    addresses::give_back(tx, server, &given)?;
    let now = tx.now();
    for ip in &ips {
        tx.later(sql::CLAIM_THIS, args![server, ip, &issued.id, now], Expect::Rows(1))?;
        let family = addresses::family_of(ip);
        tx.later(sql::ADD_PEER_ADDRESS, args![&issued.id, server, ip, family, now], Expect::Rows(1))?;
    }
    let preshared = peers::seal_preshared(shop, &issued.id, peer.preshared.as_ref())?;
    // Before it was ours, so that no clock waits for its first connection.
    let given_at = now - Duration::from_millis(1);
    let args = args![&issued.id, peer.public_key.to_string(), preshared, given_at];
    tx.later(sql::TAKE_OVER, args, Expect::Rows(1))?;
    let taken = Entry {
        entity: "peer",
        entity_id: issued.id.as_str(),
        event: "key and addresses taken over from a file",
        actor: Some(actor),
        thread: Some(sub.id.as_str()),
        ..Entry::default()
    };
    Ok(history::append(tx, &taken)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> String {
        PublicKey([n; 32]).to_string()
    }

    #[test]
    fn a_map_names_whose_a_peer_is_and_until_when() {
        let csv = format!(
            "public_key,telegram_id,until\n{},42,2027-01-31\n\n# later\n{}, 43 ,2027-01-31T12:00:00Z\n",
            key(1),
            key(2)
        );
        let found = adoptions(&csv).unwrap();
        let read: Vec<(i64, String)> = found.iter().map(|one| (one.telegram_id, one.until.to_string())).collect();
        assert_eq!(
            read,
            [(42, "2027-02-01T00:00:00.000Z".to_owned()), (43, "2027-01-31T12:00:00.000Z".to_owned())],
            "a day counts to its end"
        );
        assert_eq!(found[0].public_key, PublicKey([1; 32]));
    }

    #[test]
    fn a_map_that_cannot_be_meant_is_refused_with_its_line() {
        for wrong in [
            "key,42,2027-01-31".to_owned(),
            format!("{},42", key(1)),
            format!("{},anna,2027-01-31", key(1)),
            format!("{},-42,2027-01-31", key(1)),
            format!("{},42,soon", key(1)),
            format!("{},42,2027-01-31T12:00:00", key(1)),
            format!("{0},42,2027-01-31\n{0},43,2027-01-31", key(1)),
            format!("{};42;2027-01-31", key(1)),
        ] {
            let error = adoptions(&wrong).unwrap_err().to_string();
            assert!(error.starts_with("line ") && error.contains(" of the CSV: "), "{error}");
        }
        let separator = adoptions(&format!("public_key;telegram_id;until\n{};42;2027-01-31", key(1))).unwrap_err();
        assert_eq!((separator.line, separator.to_string().contains("its separator is `;`")), (2, true), "{separator}");
        assert!(adoptions("").unwrap().is_empty());
        let of_excel = format!("\u{feff}public_key,telegram_id,until\r\n{},42,2027-01-31\r\n", key(1));
        assert_eq!(adoptions(&of_excel).unwrap().len(), 1);
    }

    #[test]
    fn only_a_peer_with_addresses_of_its_own_can_become_one_of_ours() {
        let peer = |networks: &[&str]| SeenPeer {
            public_key: PublicKey([1; 32]),
            preshared: None,
            allowed: networks.iter().map(|text| text.parse().unwrap()).collect(),
            endpoint: None,
            handshake: None,
            received: 0,
            sent: 0,
            name: None,
        };
        assert_eq!(singles(&peer(&["10.8.0.2/32", "fd00::2/128"])).map(|ips| ips.len()), Some(2));
        assert_eq!(singles(&peer(&["10.8.0.2/32", "192.168.7.0/24"])), None);
        assert_eq!(singles(&peer(&[])), None);
    }
}
