//! Addresses: claimed by one statement, given back through a quarantine, and who has or had which.
//!
//! An address that was freed rests, so that nothing that still looks for its old holder finds the new one. It comes free only
//! when its server is as wanted, or was so since it was freed: until then the old peer may be there.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::jobs::{self, Claim, Ended, Job, JobError, Retry};
use semel_kernel::store::{Expect, Row, StoreError, Tx};

use super::{PeerId, PeerState, ServerId, peers, sql};
use crate::shop::Lanes;
use crate::subscriptions::SubscriptionId;
use crate::{Error, Shop, alerts};

/// From this share of used addresses on the owner is warned, in percent.
const WARN_PERCENT: i64 = 80;
/// Peers that are freed in one transaction.
const AT_ONCE: i64 = 200;
const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 3600 * 1000;
/// Holders of one address that are told.
const HOLDERS: i64 = 200;

/// Claims `count` addresses of `family`. Fewer than that and none is claimed: then the answer is `None`.
pub(super) fn claim(tx: &mut Tx, server: &ServerId, family: i64, count: i64) -> Result<Option<Vec<String>>, Error> {
    let now = tx.now();
    let mut ips = taken(tx.rows(sql::CLAIM, args![server, family, now, count])?)?;
    let lacking = count - i64::try_from(ips.len()).unwrap_or(0);
    if lacking > 0 {
        // The last ones: others may be taking them, and may yet give them back.
        ips.extend(taken(tx.rows(sql::CLAIM_LAST, args![server, family, now, lacking])?)?);
    }
    if i64::try_from(ips.len()).unwrap_or(0) < count {
        give_back(tx, server, &ips)?;
        return Ok(None);
    }
    // The database may answer in any order; the same deeds shall give the same addresses to the same devices.
    ips.sort_by_key(|ip| ip.parse::<IpAddr>().ok());
    Ok(Some(ips))
}

/// Undoes a claim of this transaction.
pub(super) fn give_back(tx: &mut Tx, server: &ServerId, ips: &[String]) -> Result<(), Error> {
    let now = tx.now();
    let rows = ips.iter().map(|ip| args![server, ip, now].to_vec()).collect();
    Ok(tx.many_later(sql::GIVE_BACK, rows, Expect::Any)?)
}

/// Gives claimed addresses to `peer`, whose row is written, and keeps since when it has them.
pub(super) fn give_to(tx: &mut Tx, server: &ServerId, peer: &PeerId, ips: &[String]) -> Result<(), Error> {
    let now = tx.now();
    let rows = ips.iter().map(|ip| args![server, ip, peer].to_vec()).collect();
    tx.many_later(sql::GIVE_TO, rows, Expect::Any)?;
    for ip in ips {
        tx.later(sql::ADD_PEER_ADDRESS, args![peer, server, ip, family_of(ip), now], Expect::Rows(1))?;
    }
    Ok(())
}

/// Puts the addresses of a freed peer into quarantine.
pub(super) fn rest(tx: &mut Tx, shop: &Shop, server: &ServerId, peer: &PeerId) -> Result<(), Error> {
    let now = tx.now();
    let until = now + quarantine(shop);
    tx.later(sql::REST, args![server, peer, now, until], Expect::Any)?;
    tx.later(sql::LEAVE_ADDRESSES, args![peer, now], Expect::Any)?;
    release_at(tx, shop, until)
}

/// Keeps addresses from being given out, because a peer that is not ours has them. Answers those that were free.
pub(super) fn reserve(tx: &mut Tx, server: &ServerId, ips: &[IpAddr]) -> Result<Vec<String>, Error> {
    let now = tx.now();
    let rows = ips.iter().map(|ip| args![server, ip.to_string(), now].to_vec()).collect();
    let mut reserved = taken(tx.many(sql::RESERVE, rows)?)?;
    reserved.sort();
    Ok(reserved)
}

/// Gives back an address that is kept from being given out for a peer that is not ours, through a quarantine.
///
/// # Errors
/// [`Error::Conflict`] when a peer of ours has it, or nobody.
pub fn unreserve(tx: &mut Tx, shop: &Shop, server: &ServerId, ip: IpAddr) -> Result<(), Error> {
    let now = tx.now();
    let until = now + quarantine(shop);
    if tx.execute(sql::UNRESERVE, args![server, ip.to_string(), now, until])? != 1 {
        return Err(Error::Conflict(format!("{ip} is not kept for a foreign peer on this server")));
    }
    release_at(tx, shop, until)
}

/// Gives back addresses that were kept for foreign peers which have them no more.
pub(super) fn give_back_reserved(tx: &mut Tx, shop: &Shop, server: &ServerId, ips: &[String]) -> Result<(), Error> {
    if ips.is_empty() {
        return Ok(());
    }
    let now = tx.now();
    let until = now + quarantine(shop);
    let rows = ips.iter().map(|ip| args![server, ip, now, until].to_vec()).collect();
    tx.many_later(sql::GIVE_BACK_RESERVED, rows, Expect::Any)?;
    release_at(tx, shop, until)
}

pub(super) fn family_of(ip: &str) -> i64 {
    if ip.contains(':') { 6 } else { 4 }
}

fn quarantine(shop: &Shop) -> Duration {
    shop.vpn.as_ref().map_or(Duration::from_secs(24 * 3600), |vpn| vpn.rules.quarantine)
}

fn taken(rows: Vec<Row>) -> Result<Vec<String>, StoreError> {
    rows.iter().map(|row| row.get(0)).collect()
}

/// Addresses can be given out that could not before: whoever waits for one is served.
pub(super) fn came_free(tx: &mut Tx, shop: &Shop) -> Result<(), Error> {
    crate::subscriptions::flows::serve_waiting_soon(tx, shop)
}

/// Sees to it that what is due at `at` is released in the minute after it.
pub(super) fn release_at(tx: &mut Tx, shop: &Shop, at: Time) -> Result<(), Error> {
    let minute = (at.millis().max(tx.now().millis())).div_euclid(MINUTE_MS) + 1;
    jobs::enqueue(tx, &ReleaseAddresses { minute }, Time::from_millis(minute * MINUTE_MS), &shop.chance)?;
    Ok(())
}

/// Sees to it that what comes free next does so, also what came free while nobody ran.
pub(super) fn release_soon(tx: &mut Tx, shop: &Shop) -> Result<(), Error> {
    if let Some(next) = next_release(tx)? {
        release_at(tx, shop, next)?;
    }
    Ok(())
}

/// When the next quarantine or the next time of keeping ends.
pub(super) fn next_release(tx: &mut Tx) -> Result<Option<Time>, Error> {
    let rested: Option<Time> = tx.one(sql::NEXT_RESTED, &[])?.get(0)?;
    let sticky: Option<Time> = tx.one(sql::NEXT_STICKY, &[])?.get(0)?;
    Ok(match (rested, sticky) {
        (Some(rested), Some(sticky)) => Some(rested.min(sticky)),
        (one, other) => one.or(other),
    })
}

/// Frees peers that were kept long enough, and addresses that rested long enough. True when that has to go on at once.
fn release(tx: &mut Tx, shop: &Shop) -> Result<bool, Error> {
    let now = tx.now();
    let over = tx.rows(sql::STICKY_OVER, args![now, AT_ONCE])?;
    for row in &over {
        let id: PeerId = row.get(0)?;
        let mut peer = peers::held(tx, &id)?;
        // It may have been opened again before its row was held.
        if peer.state == PeerState::Sticky && peer.sticky_until.is_some_and(|until| until <= now) {
            peers::advance(tx, shop, &mut peer, PeerState::Freed, None)?;
        }
    }
    tx.execute(sql::DROP_RESTED, args![now])?;
    let freed = tx.execute(sql::FREE_RESTED, args![now])?;
    if freed > 0 {
        came_free(tx, shop)?;
    }
    Ok(i64::try_from(over.len()).unwrap_or(0) == AT_ONCE)
}

/// Frees what has been kept and has rested long enough, at the end of one minute in which something was due.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReleaseAddresses {
    /// The minute, counted from 1970.
    pub minute: i64,
}

impl Job for ReleaseAddresses {
    type Context = Shop;
    const KIND: &'static str = "vpn.release";
    const LANE: &'static str = Lanes::CARE;
    const RETRY: Retry = Retry::backoff(Duration::from_secs(2), Duration::from_secs(60), 500);

    fn slot(&self) -> Option<String> {
        Some(self.minute.to_string())
    }

    async fn run(self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        // What a restored database calls free may be somebody else's by now.
        if let Some(ended) = crate::safety::flows::wait(shop, &claim).await? {
            return Ok(ended);
        }
        let ended = shop.write(Self::KIND, move |tx, shop| {
            let more = release(tx, shop)?;
            if more {
                let now = tx.now();
                return Ok::<_, Error>(claim.again(tx, now)?);
            }
            release_soon(tx, shop)?;
            Ok(claim.finish(tx)?)
        });
        Ok(ended.await?)
    }
}

/// How much of one family of a server is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// The server's id.
    pub server: ServerId,
    /// Its name.
    pub name: String,
    /// 4 or 6.
    pub family: i64,
    /// Addresses that it gives out.
    pub size: i64,
    /// Those that nobody may get now: held, kept or resting.
    pub used: i64,
}

impl Usage {
    /// Whether the owner should hear of it.
    pub fn is_high(&self) -> bool {
        self.size > 0 && self.used.saturating_mul(100) >= self.size.saturating_mul(WARN_PERCENT)
    }
}

/// How much of each network is used.
///
/// # Errors
/// What the store says.
pub fn usage(tx: &mut Tx) -> Result<Vec<Usage>, Error> {
    let read = |row: &Row| -> Result<Usage, StoreError> {
        let (size, free): (i64, i64) = (row.get(3)?, row.get(4)?);
        Ok(Usage { server: row.get(0)?, name: row.get(1)?, family: row.get(2)?, size, used: (size - free).max(0) })
    };
    Ok(tx.rows(sql::USAGE, &[])?.iter().map(read).collect::<Result<_, _>>()?)
}

/// Warns the owner of networks that are nearly used up: once a day for each server and family.
pub(super) fn warn(tx: &mut Tx, shop: &Shop, usage: &[Usage]) -> Result<(), Error> {
    let day = tx.now().millis().div_euclid(DAY_MS);
    for high in usage.iter().filter(|usage| usage.is_high()) {
        let text = format!(
            "{} of {} IPv{} addresses of the VPN server {} are used. Add a network before orders have to wait",
            high.used, high.size, high.family, high.name
        );
        alerts::flows::raise(tx, shop, format!("vpn-pool:{}:{}:{day}", high.server, high.family), text)?;
    }
    Ok(())
}

/// An address as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AddressView {
    /// The address.
    pub ip: String,
    /// 4 or 6.
    pub family: i64,
    /// `free`, `held` or `quarantine`.
    pub state: String,
    /// The peer that holds it; none of a held one when a foreign peer has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<PeerId>,
    /// Whose peer that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription: Option<SubscriptionId>,
    /// Which device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<i64>,
    /// The customer's Telegram id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub telegram_id: Option<i64>,
    /// Since when, RFC 3339.
    pub since: String,
    /// The end of a quarantine, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// Addresses of a server in the order of their text, after `after`: in one state, or in all.
///
/// # Errors
/// [`Error::Invalid`] for a state that there is not.
pub fn list(
    tx: &mut Tx,
    server: &ServerId,
    state: Option<&str>,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<AddressView>, Error> {
    if state.is_some_and(|state| !["free", "held", "quarantine"].contains(&state)) {
        return Err(Error::invalid("state", "free, held or quarantine"));
    }
    let read = |row: &Row| -> Result<AddressView, StoreError> {
        Ok(AddressView {
            ip: row.get(0)?,
            family: row.get(1)?,
            state: row.get(2)?,
            peer: row.get(3)?,
            since: row.get::<Time>(4)?.to_string(),
            until: row.get::<Option<Time>>(5)?.map(|time| time.to_string()),
            subscription: row.get(6)?,
            device: row.get(7)?,
            telegram_id: row.get(8)?,
        })
    };
    let rows = tx.rows(sql::LIST_ADDRESSES, args![server, state, after, limit])?;
    Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
}

/// Whose an address is and was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Who {
    /// The address, as rows have it.
    pub ip: String,
    /// Where it stands on each server that knows it.
    pub now: Vec<WhoNow>,
    /// Every peer that had it, the latest first.
    pub holders: Vec<Holder>,
}

/// Where an address stands now on one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WhoNow {
    /// The server's name.
    pub server: String,
    /// `free`, `held` or `quarantine`.
    pub state: String,
    /// The peer that holds it; none of a held one when a foreign peer has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<PeerId>,
    /// Since when, RFC 3339.
    pub since: String,
    /// The end of a quarantine, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// A peer that has or had an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// The server's name.
    pub server: String,
    /// The peer.
    pub peer: PeerId,
    /// Whose it is.
    pub subscription: SubscriptionId,
    /// Which device.
    pub device: i64,
    /// The customer's Telegram id.
    pub telegram_id: i64,
    /// The peer's public key.
    pub public_key: String,
    /// Where the peer stands now.
    pub state: PeerState,
    /// From when, RFC 3339.
    pub since: String,
    /// Until when, RFC 3339; none while it has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// Who has `ip` now, and who had it when.
///
/// # Errors
/// [`Error::NotFound`] when no server ever gave it out or may do so.
pub fn who(tx: &mut Tx, ip: IpAddr) -> Result<Who, Error> {
    let ip = ip.to_canonical().to_string();
    let now = tx.rows(sql::WHO_NOW, args![&ip])?;
    let ever = tx.rows(sql::WHO_EVER, args![&ip, HOLDERS])?;
    if now.is_empty() && ever.is_empty() {
        return Err(Error::missing("address", ip));
    }
    let text = |time: Option<Time>| time.map(|time| time.to_string());
    let stands = |row: &Row| -> Result<WhoNow, StoreError> {
        Ok(WhoNow {
            server: row.get(0)?,
            state: row.get(1)?,
            peer: row.get(2)?,
            since: row.get::<Time>(3)?.to_string(),
            until: text(row.get(4)?),
        })
    };
    let holder = |row: &Row| -> Result<Holder, StoreError> {
        Ok(Holder {
            server: row.get(0)?,
            peer: row.get(1)?,
            since: row.get::<Time>(2)?.to_string(),
            until: text(row.get(3)?),
            subscription: row.get(4)?,
            device: row.get(5)?,
            public_key: row.get(6)?,
            state: row.get(7)?,
            telegram_id: row.get(8)?,
        })
    };
    let now = now.iter().map(stands).collect::<Result<_, _>>()?;
    let holders = ever.iter().map(holder).collect::<Result<_, _>>()?;
    Ok(Who { ip, now, holders })
}

#[cfg(test)]
mod tests {
    use semel_kernel::clock::Chance;

    use super::*;

    fn usage(size: i64, used: i64) -> Usage {
        let server = ServerId::new(Time::from_millis(0), &Chance::seeded(1));
        Usage { server, name: "local".into(), family: 4, size, used }
    }

    #[test]
    fn the_owner_hears_of_a_network_at_four_fifths() {
        assert!(!usage(253, 202).is_high());
        assert!(usage(253, 203).is_high());
        assert!(usage(253, 253).is_high());
        assert!(!usage(0, 0).is_high(), "a network that gives out nothing is not full");
    }

    #[test]
    fn an_address_tells_its_family() {
        assert_eq!(family_of("10.8.0.2"), 4);
        assert_eq!(family_of("fd00::2"), 6);
    }
}
