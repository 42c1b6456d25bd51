//! Servers and peers as the API shows them: read only, with the statements that nobody else needs. No secret is
//! read here.

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::store::{Row, StoreError, Tx};
use serde::Serialize;
use serde_json::Value;

use crate::Error;

semel_kernel::statements! {
    /// Each engine joins texts with its own function.
    PEERS = {
        sqlite: "select p.id, p.subscription, c.telegram_id, p.server, p.device, p.state, p.public_key, p.private_key is null,
                (select group_concat(a.ip, ',') from peer_addresses a where a.peer = p.id), p.created_at, p.sticky_until, p.freed_at,
                p.first_handshake_at, p.last_handshake_at, p.received, p.sent
            from peers p join subscriptions s on s.id = p.subscription join customers c on c.id = s.customer
            where (cast($1 as text) is null or p.subscription = $1) and (cast($2 as text) is null or p.server = $2)
                and (cast($3 as text) is null or p.state = $3) and (cast($4 as text) is null or p.id < $4)
            order by p.id desc limit $5",
        postgres: "select p.id, p.subscription, c.telegram_id, p.server, p.device, p.state, p.public_key, p.private_key is null,
                (select string_agg(a.ip, ',' order by a.family, a.ip) from peer_addresses a where a.peer = p.id), p.created_at,
                p.sticky_until, p.freed_at, p.first_handshake_at, p.last_handshake_at, p.received, p.sent
            from peers p join subscriptions s on s.id = p.subscription join customers c on c.id = s.customer
            where (cast($1 as text) is null or p.subscription = $1) and (cast($2 as text) is null or p.server = $2)
                and (cast($3 as text) is null or p.state = $3) and (cast($4 as text) is null or p.id < $4)
            order by p.id desc limit $5",
    };
    /// Each engine joins texts with its own function.
    PEER = {
        sqlite: "select p.id, p.subscription, c.telegram_id, p.server, p.device, p.state, p.public_key, p.private_key is null,
                (select group_concat(a.ip, ',') from peer_addresses a where a.peer = p.id), p.created_at, p.sticky_until, p.freed_at,
                p.first_handshake_at, p.last_handshake_at, p.received, p.sent
            from peers p join subscriptions s on s.id = p.subscription join customers c on c.id = s.customer where p.id = $1",
        postgres: "select p.id, p.subscription, c.telegram_id, p.server, p.device, p.state, p.public_key, p.private_key is null,
                (select string_agg(a.ip, ',' order by a.family, a.ip) from peer_addresses a where a.peer = p.id), p.created_at,
                p.sticky_until, p.freed_at, p.first_handshake_at, p.last_handshake_at, p.received, p.sent
            from peers p join subscriptions s on s.id = p.subscription join customers c on c.id = s.customer where p.id = $1",
    };
    SERVERS = "select id, name, interface, endpoint, public_key, dns, mtu, keepalive, allowed_ips, ipv6, amnezia, state, wanted, applied,
        applied_at, trouble, created_at from servers where (cast($1 as text) is null or id = $1 or name = $1) order by id";
    POOLS = "select p.id, p.network, p.family, p.size,
            (select count(*) from addresses a where a.pool = p.id and a.server = p.server and a.state = 'free'),
            (select count(*) from addresses a where a.pool = p.id and a.server = p.server and a.state = 'held'),
            (select count(*) from addresses a where a.pool = p.id and a.server = p.server and a.state = 'quarantine')
        from pools p where p.server = $1 order by p.id";
}

/// A device's peer. Its private key and its preshared key are never shown.
#[derive(Clone, Debug, Serialize)]
pub struct PeerView {
    /// Its id.
    pub id: String,
    /// The subscription that it belongs to.
    pub subscription: String,
    /// Whose it is: a Telegram id.
    pub telegram_id: i64,
    /// The server.
    pub server: String,
    /// Which device of the subscription, from 1.
    pub device: i64,
    /// Where it stands.
    pub state: String,
    /// Its public key.
    pub public_key: String,
    /// Whether the customer brought the key, so that no private key is kept here.
    pub own_key: bool,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// When it was made.
    pub created_at: String,
    /// Until when address and keys stay reserved after access ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky_until: Option<String>,
    /// When its addresses were given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freed_at: Option<String>,
    /// When the device first connected.
    pub first_handshake_at: Option<String>,
    /// When it last did.
    pub last_handshake_at: Option<String>,
    /// Bytes from the device.
    pub received: i64,
    /// Bytes to the device.
    pub sent: i64,
}

/// Which peers.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerFilter<'a> {
    /// Of this subscription.
    pub subscription: Option<&'a str>,
    /// Of this server.
    pub server: Option<&'a str>,
    /// In this state.
    pub state: Option<&'a str>,
    /// Below this id.
    pub before: Option<&'a str>,
}

/// Peers, the newest first.
pub fn peers(tx: &mut Tx, filter: &PeerFilter<'_>, limit: i64) -> Result<Vec<PeerView>, Error> {
    let rows = tx.rows(PEERS, args![filter.subscription, filter.server, filter.state, filter.before, limit])?;
    Ok(rows.iter().map(peer_of).collect::<Result<_, _>>()?)
}

/// One peer.
///
/// # Errors
/// [`Error::NotFound`] when there is none.
pub fn peer(tx: &mut Tx, id: &str) -> Result<PeerView, Error> {
    let row = tx.first(PEER, args![id])?.ok_or_else(|| Error::missing("peer", format!("{id:.80}")))?;
    Ok(peer_of(&row)?)
}

fn peer_of(row: &Row) -> Result<PeerView, StoreError> {
    let addresses: Option<String> = row.get(8)?;
    Ok(PeerView {
        id: row.get(0)?,
        subscription: row.get(1)?,
        telegram_id: row.get(2)?,
        server: row.get(3)?,
        device: row.get(4)?,
        state: row.get(5)?,
        public_key: row.get(6)?,
        own_key: row.get(7)?,
        addresses: listed(&addresses.unwrap_or_default()),
        created_at: row.get::<Time>(9)?.to_string(),
        sticky_until: moment(row, 10)?,
        freed_at: moment(row, 11)?,
        first_handshake_at: moment(row, 12)?,
        last_handshake_at: moment(row, 13)?,
        received: row.get(14)?,
        sent: row.get(15)?,
    })
}

fn moment(row: &Row, at: usize) -> Result<Option<String>, StoreError> {
    Ok(row.get::<Option<Time>>(at)?.map(|at| at.to_string()))
}

fn listed(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// A server.
#[derive(Clone, Debug, Serialize)]
pub struct ServerView {
    /// Its id.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// Its interface.
    pub interface: String,
    /// Where devices reach it.
    pub endpoint: String,
    /// Its public key.
    pub public_key: String,
    /// Name servers and search domains for devices.
    pub dns: Vec<String>,
    /// Largest packet inside of the tunnel.
    pub mtu: Option<i64>,
    /// Seconds between two signs of life.
    pub keepalive: i64,
    /// What devices send through the tunnel.
    pub allowed_ips: Vec<String>,
    /// What becomes of IPv6: `off`, `routed` or `blocked`.
    pub ipv6: String,
    /// The numbers of AmneziaWG.
    pub amnezia: Option<Value>,
    /// `open` takes new customers, `closed` does not.
    pub state: String,
    /// Whether file and interface have what the database wants.
    pub in_step: bool,
    /// When they last got it.
    pub applied_at: Option<String>,
    /// Why they have it not.
    pub trouble: Option<String>,
    /// When it came to be known.
    pub created_at: String,
    /// Its networks and how full they are.
    pub pools: Vec<PoolView>,
}

/// A network of a server, with its addresses counted.
#[derive(Clone, Debug, Serialize)]
pub struct PoolView {
    /// Its id.
    pub id: String,
    /// The network.
    pub network: String,
    /// 4 or 6.
    pub family: i64,
    /// How many addresses may be given out.
    pub size: i64,
    /// How many of them are free.
    pub free: i64,
    /// With somebody, or reserved for who may come back.
    pub held: i64,
    /// Resting.
    pub quarantine: i64,
}

/// All servers, or the one with this id or name.
pub fn servers(tx: &mut Tx, which: Option<&str>) -> Result<Vec<ServerView>, Error> {
    let mut found = Vec::new();
    // PostgreSQL takes no zero byte in a text, and no server has one.
    if which.is_some_and(|which| which.contains('\0')) {
        return Ok(found);
    }
    for row in tx.rows(SERVERS, args![which])? {
        let mut server = server_of(&row)?;
        server.pools =
            tx.rows(POOLS, args![&server.id])?.iter().map(pool_of).collect::<Result<Vec<_>, StoreError>>()?;
        found.push(server);
    }
    Ok(found)
}

/// One server, by id or name.
///
/// # Errors
/// [`Error::NotFound`] when there is none.
pub fn server(tx: &mut Tx, which: &str) -> Result<ServerView, Error> {
    let found = servers(tx, Some(which))?.into_iter().next();
    found.ok_or_else(|| Error::missing("server", format!("{which:.80}")))
}

fn server_of(row: &Row) -> Result<ServerView, StoreError> {
    let (dns, allowed): (String, String) = (row.get(5)?, row.get(8)?);
    let amnezia: Option<String> = row.get(10)?;
    let (wanted, applied): (i64, i64) = (row.get(12)?, row.get(13)?);
    Ok(ServerView {
        id: row.get(0)?,
        name: row.get(1)?,
        interface: row.get(2)?,
        endpoint: row.get(3)?,
        public_key: row.get(4)?,
        dns: listed(&dns),
        mtu: row.get(6)?,
        keepalive: row.get(7)?,
        allowed_ips: listed(&allowed),
        ipv6: row.get(9)?,
        amnezia: amnezia.and_then(|text| serde_json::from_str(&text).ok()),
        state: row.get(11)?,
        in_step: wanted == applied,
        applied_at: moment(row, 14)?,
        trouble: row.get(15)?,
        created_at: row.get::<Time>(16)?.to_string(),
        pools: Vec::new(),
    })
}

fn pool_of(row: &Row) -> Result<PoolView, StoreError> {
    Ok(PoolView {
        id: row.get(0)?,
        network: row.get(1)?,
        family: row.get(2)?,
        size: row.get(3)?,
        free: row.get(4)?,
        held: row.get(5)?,
        quarantine: row.get(6)?,
    })
}
