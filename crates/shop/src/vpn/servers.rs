//! Servers and the networks whose addresses they give out.
//!
//! The local server is what the settings say, brought into its row at each start. A network that has left the settings gives
//! out no more: its free addresses go, and those that somebody has stay until they come free. So does a network in which the
//! interface has no address: devices there would connect and reach nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::store::{Expect, Row, StoreError, Tx, Value};
use semel_wireguard::conf::lines_for;
use semel_wireguard::file;
use semel_wireguard::pool::{MOST, Pool};
use semel_wireguard::{Amnezia, Target};

use super::traffic;
use super::{PoolId, Server, ServerId, ServerSettings, Vpn, addresses, apply, of, sql};
use crate::{Error, Shop, alerts};

/// Addresses that are written in one transaction.
const PIECE: usize = 4096;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// A pool's row.
#[derive(Clone, Debug)]
pub struct PoolRow {
    /// Its id.
    pub id: PoolId,
    /// The network.
    pub network: String,
    /// 4 or 6.
    pub family: i64,
    /// How many addresses it gives out; zero when it gives out no more.
    pub size: i64,
}

/// Brings the local server to what the settings say: its row, its networks address by address, and the jobs that apply it and
/// read its traffic. Call at each start; what was interrupted goes on. Only for a copy that applies the server: another one
/// knows neither its interface nor whose addresses are in use there.
///
/// # Errors
/// [`Error::Conflict`] without the VPN part, or where another copy applies the server; what the store says.
pub async fn prepare(shop: &Shop) -> Result<ServerId, Error> {
    let vpn = of(shop)?;
    if vpn.target.is_none() {
        return Err(Error::Conflict("vpn.apply is none here: the copy that applies the server prepares it".into()));
    }
    no_overlap(&vpn.server.pools.iter().map(|pool| pool.network).collect::<Vec<_>>())?;
    let (pools, dead) = reachable(vpn).await;
    let given = pools.clone();
    let server = shop.write("vpn.server", move |tx, shop| upsert_local(tx, shop, &given, &dead)).await?;
    fill(shop, &server, &pools).await?;
    let id = server.clone();
    shop.write("vpn.begin", move |tx, shop| {
        // Whatever happened to file and interface while nobody ran: the first apply looks, and nothing is sold before it.
        apply::now(tx, shop, &id)?;
        traffic::begin(tx, shop, &id)?;
        // Also for who was paid for while the VPN was off.
        addresses::came_free(tx, shop)?;
        addresses::release_soon(tx, shop)
    })
    .await?;
    Ok(server)
}

/// The networks of the settings, and those of them in which the interface has no address, as its file says. Where this
/// program knows of no interface, or its file cannot be read, none is among the latter: the apply says what is wrong.
async fn reachable(vpn: &Vpn) -> (Vec<Pool>, Vec<Pool>) {
    let pools = vpn.server.pools.clone();
    let Some(Target::Both { conf, .. }) = &vpn.target else { return (pools, Vec::new()) };
    let path = conf.file.clone();
    match tokio::task::spawn_blocking(move || file::read_of_interface(&path)).await {
        Ok(Ok(conf)) => pools.into_iter().partition(|pool| conf.interface().covers(&pool.network)),
        _ => (pools, Vec::new()),
    }
}

/// Makes the row of the local server what the settings say, and the rows of the networks that give addresses out.
/// [`prepare`] lays out their addresses. The owner is told of the `dead` ones, once a day at most.
fn upsert_local(tx: &mut Tx, shop: &Shop, given: &[Pool], dead: &[Pool]) -> Result<ServerId, Error> {
    let settings = &of(shop)?.server;
    let now = tx.now();
    let args = server_args(&ServerId::new(now, &shop.chance), settings, now)?;
    let row = tx.one(sql::UPSERT_SERVER, &args)?;
    let id: ServerId = row.get(0)?;
    let wanted: BTreeSet<String> = given.iter().map(|pool| pool.network.trunc().to_string()).collect();
    for pool in given {
        add_pool_row(tx, shop, &id, pool)?;
    }
    for pool in pools(tx, &id)? {
        if !wanted.contains(&pool.network) {
            retire(tx, &pool.id)?;
        }
    }
    let day = now.millis().div_euclid(DAY_MS);
    for pool in dead {
        let text = not_reached(&settings.interface, &pool.network);
        alerts::flows::raise(tx, shop, format!("vpn-not-reached:{id}:{}:{day}", pool.network), text)?;
    }
    Ok(id)
}

/// Adds a server of another machine, with every address of its networks: all of it or nothing, because nobody would lay out the
/// rest. It is sold from once an agent has applied it.
///
/// # Errors
/// [`Error::Conflict`] when the name is taken, [`Error::Invalid`] when its networks overlap.
pub async fn add(shop: &Shop, settings: ServerSettings) -> Result<ServerId, Error> {
    if settings.name == of(shop)?.server.name {
        return Err(Error::invalid("name", "the server of this machine is what the settings say"));
    }
    no_overlap(&settings.pools.iter().map(|pool| pool.network).collect::<Vec<_>>())?;
    shop.write("vpn.server.add", move |tx, shop| {
        let now = tx.now();
        let id = ServerId::new(now, &shop.chance);
        let args = server_args(&id, &settings, now)?;
        if tx.execute(sql::ADD_SERVER, &args)? != 1 {
            return Err(Error::Conflict(format!("there is a server {} already", settings.name)));
        }
        for pool in &settings.pools {
            add_pool_row(tx, shop, &id, pool)?;
            lay_out(tx, &id, pool)?;
        }
        Ok(id)
    })
    .await
}

/// Adds a network to a server of another machine, with all of its addresses. One that is there already gets those that it
/// lacks.
///
/// # Errors
/// [`Error::Invalid`] for the local server, whose networks are what the settings say, or when it overlaps another network.
pub async fn add_pool(shop: &Shop, server: &ServerId, pool: Pool) -> Result<(), Error> {
    let (id, added) = (server.clone(), pool);
    shop.write("vpn.pool.add", move |tx, shop| {
        let server = find(tx, &id)?;
        if shop.vpn.as_ref().is_some_and(|vpn| vpn.server.name == server.name) {
            return Err(Error::invalid("network", "add it to the networks of the [vpn] section of the settings"));
        }
        let mut networks = vec![added.network];
        for known in pools(tx, &id)? {
            networks.extend(known.network.parse::<IpNet>().ok().filter(|network| *network != added.network.trunc()));
        }
        no_overlap(&networks)?;
        add_pool_row(tx, shop, &id, &added)?;
        lay_out(tx, &id, &added)?;
        addresses::came_free(tx, shop)
    })
    .await
}

/// Closes a server to new subscriptions, or opens it again. Who is on it stays.
///
/// # Errors
/// [`Error::NotFound`].
pub fn set_open(tx: &mut Tx, shop: &Shop, server: &ServerId, open: bool) -> Result<(), Error> {
    if tx.execute(sql::SET_SERVER_STATE, args![server, if open { "open" } else { "closed" }])? == 0 {
        return Err(Error::missing("server", server));
    }
    if open {
        addresses::came_free(tx, shop)?;
    }
    Ok(())
}

/// A server by id.
///
/// # Errors
/// [`Error::NotFound`].
pub fn find(tx: &mut Tx, id: &ServerId) -> Result<Server, Error> {
    let row = tx.first(sql::SERVER, args![id])?;
    Ok(server_of(&row.ok_or_else(|| Error::missing("server", id))?)?)
}

/// A server by name.
///
/// # Errors
/// [`Error::NotFound`].
pub fn named(tx: &mut Tx, name: &str) -> Result<Server, Error> {
    let row = tx.first(sql::SERVER_NAMED, args![name])?;
    Ok(server_of(&row.ok_or_else(|| Error::missing("server", name))?)?)
}

/// All servers, the oldest first.
///
/// # Errors
/// What the store says.
pub fn list(tx: &mut Tx) -> Result<Vec<Server>, Error> {
    let rows = tx.rows(sql::SERVERS, &[])?;
    Ok(rows.iter().map(server_of).collect::<Result<_, _>>()?)
}

/// The networks of a server.
///
/// # Errors
/// What the store says.
pub fn pools(tx: &mut Tx, server: &ServerId) -> Result<Vec<PoolRow>, Error> {
    let rows = tx.rows(sql::POOLS, args![server])?;
    let read = |row: &Row| -> Result<PoolRow, StoreError> {
        Ok(PoolRow { id: row.get(0)?, network: row.get(1)?, family: row.get(2)?, size: row.get(3)? })
    };
    Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
}

fn server_args(id: &ServerId, settings: &ServerSettings, now: Time) -> Result<Vec<Value>, Error> {
    let amnezia = settings.amnezia.as_ref().map(serde_json::to_string).transpose();
    let amnezia = amnezia.map_err(|error| Error::invalid("amnezia", error.to_string()))?;
    let networks: Vec<String> = settings.allowed_ips.iter().map(ToString::to_string).collect();
    let args = args![
        id,
        &settings.name,
        &settings.interface,
        &settings.endpoint,
        settings.public_key.to_string(),
        settings.dns.join(","),
        settings.mtu.map(i64::from),
        i64::from(settings.keepalive),
        networks.join(","),
        settings.ipv6.as_str(),
        amnezia,
        now
    ];
    Ok(args.to_vec())
}

fn server_of(row: &Row) -> Result<Server, StoreError> {
    let decode = |wanted: &'static str, found: String| StoreError::Decode { wanted, found };
    let small = |wide: i64| u16::try_from(wide).map_err(|_| decode("a number of 16 bits", wide.to_string()));
    let key: String = row.get(4)?;
    let networks: Vec<String> = split(&row.get::<String>(8)?);
    let amnezia: Option<String> = row.get(10)?;
    let amnezia: Option<Amnezia> = amnezia
        .map(|text| serde_json::from_str(&text))
        .transpose()
        .map_err(|error| decode("the parameters of AmneziaWG", error.to_string()))?;
    let network = |text: &String| text.parse::<IpNet>().map_err(|_| decode("a network", text.clone()));
    Ok(Server {
        id: row.get(0)?,
        name: row.get(1)?,
        interface: row.get(2)?,
        endpoint: row.get(3)?,
        public_key: key.parse().map_err(|_| decode("a public key", key.clone()))?,
        dns: split(&row.get::<String>(5)?),
        mtu: row.get::<Option<i64>>(6)?.map(small).transpose()?,
        keepalive: small(row.get(7)?)?,
        allowed_ips: networks.iter().map(network).collect::<Result<_, _>>()?,
        ipv6: row.get(9)?,
        amnezia,
        open: row.get::<String>(11)? == "open",
        wanted: row.get(12)?,
        applied: row.get(13)?,
        applied_at: row.get(14)?,
        trouble: row.get(15)?,
        created_at: row.get(16)?,
    })
}

fn split(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Two pools with one address between them could give it out twice.
fn no_overlap(networks: &[IpNet]) -> Result<(), Error> {
    for (i, one) in networks.iter().enumerate() {
        for other in networks.iter().skip(i + 1) {
            if one.contains(&other.network()) || other.contains(&one.network()) {
                return Err(Error::invalid("network", format!("{one} and {other} overlap: name each address once")));
            }
        }
    }
    Ok(())
}

fn add_pool_row(tx: &mut Tx, shop: &Shop, server: &ServerId, pool: &Pool) -> Result<(), Error> {
    let now = tx.now();
    let id = PoolId::new(now, &shop.chance);
    let family: i64 = if pool.network.addr().is_ipv4() { 4 } else { 6 };
    // The size comes with the addresses; until then the pool counts as giving out none.
    let network = pool.network.trunc().to_string();
    tx.later(sql::ADD_POOL, args![id, server, network, family, 0_i64, now], Expect::Any)?;
    Ok(())
}

/// Writes every address of a network whose row is there. The largest one is 65,536 rows in one transaction, which an owner's
/// deed may take.
fn lay_out(tx: &mut Tx, server: &ServerId, pool: &Pool) -> Result<(), Error> {
    let network = pool.network.trunc().to_string();
    let row = pools(tx, server)?.into_iter().find(|row| row.network == network);
    let row = row.ok_or_else(|| Error::missing("pool", &network))?;
    let all: Vec<(i64, String)> = (0_i64..).zip(pool.addresses(MOST).iter().map(IpAddr::to_string)).collect();
    for piece in all.chunks(PIECE) {
        add_addresses(tx, server, &row, piece)?;
    }
    tx.later(sql::SIZE_POOL, args![&row.id, i64::try_from(all.len()).unwrap_or(i64::MAX)], Expect::Any)?;
    Ok(())
}

/// Writes addresses with their places in the order; those that are there stay as they are.
fn add_addresses(tx: &mut Tx, server: &ServerId, row: &PoolRow, piece: &[(i64, String)]) -> Result<(), Error> {
    let now = tx.now();
    let line = |(n, ip): &(i64, String)| args![server, ip, *n, &row.id, row.family, now].to_vec();
    Ok(tx.many_later(sql::ADD_ADDRESSES, piece.iter().map(line).collect(), Expect::Any)?)
}

/// What is wrong with a network in which `interface` has no address, and what to write where.
pub fn not_reached(interface: &str, network: &IpNet) -> String {
    format!(
        "Nobody gets an address of {network}: no Address of the interface {interface} covers it, so devices would connect and \
         reach nothing. Write under [Interface] of its file, with the interface that leads outside in place of OUTSIDE: {}. \
         Then run wg-quick down {interface}, wg-quick up {interface}, and start semel anew",
        lines_for(network).join(" | ")
    )
}

fn retire(tx: &mut Tx, pool: &PoolId) -> Result<(), Error> {
    tx.later(sql::SIZE_POOL, args![pool, 0_i64], Expect::Any)?;
    tx.later(sql::EMPTY_POOL, args![pool], Expect::Any)?;
    Ok(())
}

/// Writes the addresses of `wanted` that are missing, in pieces, and takes away those that are no longer given out: free ones at
/// once, others when they come free. What is there already costs one look. An address that a foreign peer has is kept for it
/// before anybody can claim it.
async fn fill(shop: &Shop, server: &ServerId, wanted: &[Pool]) -> Result<(), Error> {
    for pool in wanted {
        let network = pool.network.trunc().to_string();
        let all: Vec<String> = pool.addresses(MOST).iter().map(IpAddr::to_string).collect();
        let id = server.clone();
        let (row, known) = shop
            .read("vpn.pool.look", move |tx| {
                let row = pools(tx, &id)?.into_iter().find(|row| row.network == network);
                let row = row.ok_or_else(|| Error::missing("pool", &network))?;
                let rows = tx.rows(sql::POOL_IPS, args![&row.id])?;
                let read = |row: &Row| -> Result<(String, i64), StoreError> { Ok((row.get(0)?, row.get(1)?)) };
                let ips = rows.iter().map(read).collect::<Result<BTreeMap<_, _>, _>>()?;
                Ok((row, ips))
            })
            .await?;
        let found = differences(&all, &known);
        let foreign = match found.missing.is_empty() {
            true => Vec::new(),
            false => foreign_in(shop, server, pool).await?,
        };
        for piece in found.missing.chunks(PIECE) {
            let (server, row, piece, foreign) = (server.clone(), row.clone(), piece.to_vec(), foreign.clone());
            shop.write("vpn.pool.fill", move |tx, _| {
                add_addresses(tx, &server, &row, &piece)?;
                addresses::reserve(tx, &server, &foreign)?;
                Ok(())
            })
            .await?;
        }
        let (server, size) = (server.clone(), i64::try_from(all.len()).unwrap_or(i64::MAX));
        let (left, back) = (found.left, found.back);
        let changed = row.size != size || !left.is_empty() || !back.is_empty() || !found.missing.is_empty();
        if changed {
            shop.write("vpn.pool.size", move |tx, shop| {
                tx.later(sql::SIZE_POOL, args![&row.id, size], Expect::Any)?;
                let gone = left.iter().map(|ip| args![&server, ip].to_vec()).collect();
                tx.many_later(sql::DROP_FREE, gone, Expect::Any)?;
                // Somebody has it, or it rests: it goes when that is over.
                let places = left.iter().map(|ip| (-1, ip)).chain(back.iter().map(|(n, ip)| (*n, ip)));
                let places = places.map(|(n, ip): (i64, &String)| args![&server, ip, n].to_vec()).collect();
                tx.many_later(sql::PLACE, places, Expect::Any)?;
                addresses::came_free(tx, shop)
            })
            .await?;
        }
    }
    Ok(())
}

/// Addresses of `pool` that peers have which are not ours.
async fn foreign_in(shop: &Shop, server: &ServerId, pool: &Pool) -> Result<Vec<IpAddr>, Error> {
    let theirs = apply::theirs(shop, server).await?;
    let ips: BTreeSet<IpAddr> = theirs.iter().flat_map(|(_, network)| apply::single_addresses(network)).collect();
    Ok(ips.into_iter().filter(|ip| pool.network.contains(ip)).collect())
}

/// How the addresses of a pool differ from those that it shall give out.
#[derive(Debug, Default, PartialEq, Eq)]
struct Differences {
    /// Not there, each with its place in the order.
    missing: Vec<(i64, String)>,
    /// There, and not to be given out.
    left: Vec<String>,
    /// Once not to be given out, still there, and wanted again.
    back: Vec<(i64, String)>,
}

fn differences(all: &[String], known: &BTreeMap<String, i64>) -> Differences {
    let mut found = Differences::default();
    for (n, ip) in (0_i64..).zip(all) {
        match known.get(ip) {
            None => found.missing.push((n, ip.clone())),
            Some(place) if *place < 0 => found.back.push((n, ip.clone())),
            Some(_) => {}
        }
    }
    let wanted: BTreeSet<&String> = all.iter().collect();
    let is_left = |(ip, place): &(&String, &i64)| **place >= 0 && !wanted.contains(*ip);
    found.left = known.iter().filter(is_left).map(|(ip, _)| ip.clone()).collect();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(ips: &[&str]) -> Vec<String> {
        ips.iter().map(|ip| (*ip).to_owned()).collect()
    }

    fn known(ips: &[(&str, i64)]) -> BTreeMap<String, i64> {
        ips.iter().map(|(ip, n)| ((*ip).to_owned(), *n)).collect()
    }

    #[test]
    fn laying_out_goes_on_where_it_stopped() {
        let all = texts(&["10.0.0.2", "10.0.0.3", "10.0.0.4"]);
        let found = differences(&all, &known(&[("10.0.0.2", 0), ("10.0.0.3", 1)]));
        assert_eq!(found, Differences { missing: vec![(2, "10.0.0.4".to_owned())], ..Differences::default() });
        let whole = known(&[("10.0.0.2", 0), ("10.0.0.3", 1), ("10.0.0.4", 2)]);
        assert_eq!(differences(&all, &whole), Differences::default());
    }

    #[test]
    fn an_address_that_became_reserved_is_given_out_no_more() {
        let before = known(&[("10.0.0.2", 0), ("10.0.0.3", 1)]);
        let found = differences(&texts(&["10.0.0.3"]), &before);
        assert_eq!(found, Differences { left: texts(&["10.0.0.2"]), ..Differences::default() });
        // Somebody has it still: once it was told so, there is nothing to do.
        let told = known(&[("10.0.0.2", -1), ("10.0.0.3", 1)]);
        assert_eq!(differences(&texts(&["10.0.0.3"]), &told), Differences::default());
        let again = differences(&texts(&["10.0.0.2", "10.0.0.3"]), &told);
        assert_eq!(again, Differences { back: vec![(0, "10.0.0.2".to_owned())], ..Differences::default() });
    }

    #[test]
    fn networks_that_overlap_are_refused() {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>();
        assert!(no_overlap(&nets(&["10.8.0.0/24", "10.9.0.0/24", "fd00::/64"])).is_ok());
        assert!(no_overlap(&nets(&["10.8.0.0/16", "10.8.3.0/24"])).is_err());
        assert!(no_overlap(&nets(&["10.8.3.0/24", "10.8.0.0/16"])).is_err());
    }

    #[test]
    fn a_list_is_read_without_its_blanks() {
        assert_eq!(split("1.1.1.1, 8.8.8.8,"), ["1.1.1.1", "8.8.8.8"]);
        assert!(split("").is_empty());
    }
}
