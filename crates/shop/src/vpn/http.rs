//! Servers, addresses and peers over HTTP.

use std::net::IpAddr;

use axum::extract::{Path, Query, State as Extract};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http::StatusCode;
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};

use semel_kernel::keys;
use semel_wireguard::{Amnezia, Conf, Drift, Plan, Pool, PublicKey};

use super::view::{self, PeerFilter, PeerView, ServerView};
use super::{
    Ipv6, LOCAL, PeerId, PeerState, ServerId, ServerSettings, addresses, apply, flows, hand_out, import, new_keys, of,
    peers, servers,
};
use crate::web::{KeyInHand, Problem, Strict, cursor, filter, in_hand, page, page_size};
use crate::{Error, Shop, safety};

/// The routes of this feature.
pub fn routes() -> Router<Shop> {
    Router::new()
        .route("/api/v1/peers", get(list_peers))
        .route("/api/v1/peers/new-keys", post(renew_lost))
        .route("/api/v1/peers/{id}", get(show_peer))
        .route("/api/v1/peers/{id}/key", post(own_key))
        .route("/api/v1/peers/{id}/rotate", post(rotate))
        .route("/api/v1/servers", post(add_server).get(list_servers))
        .route("/api/v1/servers/{id}", get(show_server))
        .route("/api/v1/servers/{id}/pools", post(add_pool))
        .route("/api/v1/servers/{id}/plan", get(plan))
        .route("/api/v1/servers/{id}/apply", post(apply_now))
        .route("/api/v1/servers/{id}/import", post(take_over))
        .route("/api/v1/servers/{id}/open", post(open_server))
        .route("/api/v1/servers/{id}/close", post(close_server))
        .route("/api/v1/addresses", get(list_addresses))
        .route("/api/v1/addresses/{ip}", get(who))
        .route("/api/v1/addresses/{ip}/release", post(release))
}

/// What needs no token: the secret stands in the address.
pub fn public() -> Router<Shop> {
    Router::new().route("/vpn/{token}", get(hand_out::show).post(hand_out::take))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PeersAsked {
    subscription: Option<String>,
    server: Option<String>,
    state: Option<String>,
    cursor: Option<String>,
    limit: Option<i64>,
}

async fn list_peers(Extract(shop): Extract<Shop>, Query(asked): Query<PeersAsked>) -> Result<Response, Problem> {
    let limit = page_size(asked.limit)?;
    if let Some(word) = asked.state.as_deref()
        && PeerState::parse(word).is_none()
    {
        let known: Vec<&str> = PeerState::ALL.iter().map(|state| state.as_str()).collect();
        return Err(Error::invalid("state", format!("{word:.40} is not one of {}", known.join(", "))).into());
    }
    let before = cursor(asked.cursor.as_deref(), PeerId::parse)?;
    let (subscription, server, state) = (filter("subscription", asked.subscription)?, asked.server, asked.state);
    let items = shop
        .read("peers.list", move |tx| {
            // Nobody's peers are no error: a list of none.
            let server = match server.as_deref() {
                None => None,
                Some(which) => match view::servers(tx, Some(which))?.into_iter().next() {
                    Some(server) => Some(server.id),
                    None => return Ok(Vec::new()),
                },
            };
            let wanted = PeerFilter {
                subscription: subscription.as_deref(),
                server: server.as_deref(),
                state: state.as_deref(),
                before: before.as_ref().map(PeerId::as_str),
            };
            view::peers(tx, &wanted, limit + 1)
        })
        .await?;
    Ok(page(items, limit, |peer: &PeerView| peer.id.clone()))
}

fn peer_named(id: &str) -> Result<PeerId, Problem> {
    PeerId::parse(id).ok_or_else(|| Error::missing("peer", format!("{id:.80}")).into())
}

async fn show_peer(Extract(shop): Extract<Shop>, Path(id): Path<String>) -> Result<Response, Problem> {
    Ok(Json(load_peer(&shop, peer_named(&id)?).await?).into_response())
}

async fn load_peer(shop: &Shop, id: PeerId) -> Result<PeerView, Error> {
    shop.read("peer.view", move |tx| view::peer(tx, id.as_str())).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnKey {
    public_key: String,
}

async fn own_key(
    Extract(shop): Extract<Shop>,
    Path(id): Path<String>,
    key: Option<Extension<KeyInHand>>,
    Strict(body): Strict<OwnKey>,
) -> Result<Response, Problem> {
    let wanted: PublicKey = body
        .public_key
        .parse()
        .map_err(|error: semel_wireguard::KeyError| Error::invalid("public_key", error.to_string()))?;
    replace(&shop, peer_named(&id)?, key, Some(wanted)).await
}

async fn rotate(
    Extract(shop): Extract<Shop>,
    Path(id): Path<String>,
    key: Option<Extension<KeyInHand>>,
) -> Result<Response, Problem> {
    replace(&shop, peer_named(&id)?, key, None).await
}

/// Puts another peer in the place of `old`, once for each key, and shows it.
async fn replace(
    shop: &Shop,
    old: PeerId,
    key: Option<Extension<KeyInHand>>,
    own: Option<PublicKey>,
) -> Result<Response, Problem> {
    let (key, resume) = in_hand(key);
    let new = match resume.as_deref().and_then(PeerId::parse) {
        Some(done) => done,
        None => {
            // Which addresses were given out after a backup is not known.
            safety::flows::permit(shop).await?;
            if let Some(public) = own {
                let of = old.clone();
                let server = shop.read("peer.server", move |tx| Ok(peers::find(tx, &of)?.server)).await?;
                apply::refuse_taken(shop, &server, public).await?;
            }
            shop.write("peer.replace", move |tx, shop| {
                let new = match own {
                    Some(public) => flows::own_key(tx, shop, &old, public)?,
                    None => flows::rotate(tx, shop, &old)?,
                };
                if let Some(key) = &key {
                    keys::bind(tx, key, new.as_str())?;
                }
                Ok(new)
            })
            .await?
        }
    };
    Ok(Json(load_peer(shop, new).await?).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKeys {
    reason: String,
    #[serde(default)]
    keep_files: bool,
    #[serde(default = "yes")]
    dry_run: bool,
}

/// For devices whose keys the sealing key at hand does not open: the one that did is lost.
async fn renew_lost(Extract(shop): Extract<Shop>, Strict(body): Strict<NewKeys>) -> Result<Response, Problem> {
    of(&shop)?;
    if body.reason.trim().is_empty() || body.reason.chars().any(char::is_control) {
        return Err(Error::invalid("reason", "write one line").into());
    }
    let (there, keep_files) = (new_keys::in_file(&shop).await, body.keep_files);
    // Which addresses were given out after a backup is not known.
    let may_claim = safety::flows::mode(&shop).await.map_err(Error::from)?.is_none();
    let outcome = if body.dry_run {
        let with = shop.clone();
        shop.read("vpn.keys.look", move |tx| new_keys::look(tx, &with, &there, keep_files, may_claim)).await?
    } else {
        shop.write("vpn.keys.new", move |tx, shop| new_keys::renew(tx, shop, &there, keep_files, may_claim)).await?
    };
    Ok(Json(outcome).into_response())
}

async fn list_servers(Extract(shop): Extract<Shop>) -> Result<Response, Problem> {
    let items = shop.read("servers.list", |tx| view::servers(tx, None)).await?;
    Ok(Json(json!({ "items": items })).into_response())
}

async fn load_server(shop: &Shop, which: String) -> Result<ServerView, Error> {
    shop.read("server.view", move |tx| view::server(tx, &which)).await
}

async fn show_server(Extract(shop): Extract<Shop>, Path(which): Path<String>) -> Result<Response, Problem> {
    Ok(Json(load_server(&shop, which).await?).into_response())
}

/// The id of the server with this id or name.
async fn server_named(shop: &Shop, which: String) -> Result<ServerId, Error> {
    let found = load_server(shop, which).await?;
    ServerId::parse(&found.id).ok_or_else(|| Error::missing("server", found.id))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewServer {
    name: String,
    interface: Option<String>,
    endpoint: String,
    public_key: String,
    dns: Option<Vec<String>>,
    mtu: Option<u16>,
    keepalive: Option<u16>,
    allowed_ips: Option<Vec<IpNet>>,
    ipv6: Option<String>,
    amnezia: Option<Amnezia>,
    networks: Vec<String>,
    reserved: Option<String>,
}

impl NewServer {
    fn settings(self) -> Result<ServerSettings, Error> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if !(1..=40).contains(&self.name.len()) || !self.name.bytes().all(plain) {
            return Err(Error::invalid("name", "1 to 40 letters, digits, dots, dashes or underscores"));
        }
        if self.endpoint.parse::<semel_wireguard::Endpoint>().is_err() {
            return Err(Error::invalid("endpoint", "write host and port, like vpn.example.com:51820"));
        }
        let public_key = self
            .public_key
            .parse()
            .map_err(|error: semel_wireguard::KeyError| Error::invalid("public_key", error.to_string()))?;
        let dns = self.dns.unwrap_or_else(|| vec!["1.1.1.1".to_owned()]);
        semel_wireguard::Dns::parse_list(&dns.join(",")).map_err(|error| Error::invalid("dns", error.to_string()))?;
        let interface = self.interface.unwrap_or_else(|| "wg0".to_owned());
        let for_name = |byte: u8| plain(byte) || matches!(byte, b'=' | b'+');
        if !(1..=15).contains(&interface.len()) || !interface.bytes().all(for_name) {
            return Err(Error::invalid("interface", "at most 15 Latin characters, like wg0"));
        }
        let ipv6 = match self.ipv6.as_deref() {
            None => Ipv6::Blocked,
            Some(word) => Ipv6::parse(word).ok_or_else(|| Error::invalid("ipv6", "off, routed or blocked"))?,
        };
        if let Some(numbers) = &self.amnezia {
            numbers.check().map_err(|error| Error::invalid("amnezia", error.to_string()))?;
        }
        if self.networks.is_empty() {
            return Err(Error::invalid("networks", "name at least one"));
        }
        let reserved = self.reserved.unwrap_or_default();
        let pools: Vec<Pool> =
            self.networks.iter().map(|network| pool(network, &reserved)).collect::<Result<_, Error>>()?;
        let everything = ["0.0.0.0/0", "::/0"].iter().filter_map(|all| all.parse::<IpNet>().ok()).collect();
        Ok(ServerSettings {
            name: self.name,
            interface,
            endpoint: self.endpoint,
            public_key,
            dns,
            mtu: self.mtu,
            keepalive: self.keepalive.unwrap_or(25),
            allowed_ips: self.allowed_ips.unwrap_or(everything),
            ipv6,
            amnezia: self.amnezia,
            pools,
        })
    }
}

/// A network whose first address is the server's own.
fn pool(network: &str, reserved: &str) -> Result<Pool, Error> {
    let wrong = |error: semel_wireguard::PoolError| Error::invalid("network", error.to_string());
    let whole = Pool::parse(network, "", &[]).map_err(wrong)?;
    Pool::parse(network, reserved, &whole.addresses(1)).map_err(wrong)
}

async fn add_server(Extract(shop): Extract<Shop>, Strict(body): Strict<NewServer>) -> Result<Response, Problem> {
    let id = servers::add(&shop, body.settings()?).await?;
    let made = load_server(&shop, id.to_string()).await?;
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPool {
    network: String,
    reserved: Option<String>,
}

async fn add_pool(
    Extract(shop): Extract<Shop>,
    Path(which): Path<String>,
    Strict(body): Strict<NewPool>,
) -> Result<Response, Problem> {
    let id = server_named(&shop, which).await?;
    servers::add_pool(&shop, &id, pool(&body.network, &body.reserved.unwrap_or_default())?).await?;
    Ok((StatusCode::CREATED, Json(load_server(&shop, id.to_string()).await?)).into_response())
}

/// The server of this machine under any of its names: nobody here sees another one's interface.
async fn local(shop: &Shop, which: String) -> Result<ServerId, Error> {
    of(shop)?;
    let found = load_server(shop, which).await?;
    if found.name != LOCAL {
        return Err(Error::Conflict(format!("the server {} is on another machine", found.name)));
    }
    ServerId::parse(&found.id).ok_or_else(|| Error::missing("server", found.id))
}

async fn plan(Extract(shop): Extract<Shop>, Path(which): Path<String>) -> Result<Response, Problem> {
    local(&shop, which).await?;
    Ok(Json(told(&flows::drift(&shop).await?)).into_response())
}

fn told(drift: &Drift) -> Value {
    // What a person wrote outside of our lines no apply takes away: the file has it until that person deletes it.
    let mut of_file = drift.plan_file.clone();
    let (yours, remove): (Vec<PublicKey>, Vec<PublicKey>) =
        of_file.remove.into_iter().partition(|key| drift.outside.contains(key));
    of_file.remove = remove;
    let difference = |plan: &Plan| {
        let keys = |peers: &[semel_wireguard::Peer]| peers.iter().map(|peer| peer.public_key.to_string()).collect();
        let (add, change): (Vec<String>, Vec<String>) = (keys(&plan.add), keys(&plan.change));
        let texts = |keys: &[PublicKey]| keys.iter().map(ToString::to_string).collect::<Vec<String>>();
        let (remove, refused, foreign) = (texts(&plan.remove), texts(&plan.refused), texts(&plan.foreign));
        json!({ "add": add, "change": change, "remove": remove, "refused": refused, "foreign": foreign })
    };
    let in_step = drift.whole && of_file.is_empty() && drift.plan_interface.as_ref().is_none_or(Plan::is_empty);
    let mut file = difference(&of_file);
    if !yours.is_empty() {
        file["yours"] = yours.iter().map(ToString::to_string).collect();
    }
    json!({
        "in_step": in_step,
        "whole": drift.whole,
        "interface": drift.plan_interface.as_ref().map(difference),
        "file": file,
    })
}

async fn apply_now(Extract(shop): Extract<Shop>, Path(which): Path<String>) -> Result<Response, Problem> {
    let id = local(&shop, which).await?;
    let of = id.clone();
    shop.write("vpn.apply.now", move |tx, shop| apply::now(tx, shop, &of)).await?;
    Ok((StatusCode::ACCEPTED, Json(load_server(&shop, id.to_string()).await?)).into_response())
}

async fn open_server(Extract(shop): Extract<Shop>, Path(which): Path<String>) -> Result<Response, Problem> {
    set_open(&shop, which, true).await
}

async fn close_server(Extract(shop): Extract<Shop>, Path(which): Path<String>) -> Result<Response, Problem> {
    set_open(&shop, which, false).await
}

/// Whether new subscriptions go to a server. Who is on it stays.
async fn set_open(shop: &Shop, which: String, open: bool) -> Result<Response, Problem> {
    let id = server_named(shop, which).await?;
    let of = id.clone();
    shop.write("vpn.server.open", move |tx, shop| servers::set_open(tx, shop, &of, open)).await?;
    Ok(Json(load_server(shop, id.to_string()).await?).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    server: Option<String>,
    state: Option<String>,
    cursor: Option<String>,
    limit: Option<i64>,
}

async fn list_addresses(Extract(shop): Extract<Shop>, Query(asked): Query<Asked>) -> Result<Response, Problem> {
    let limit = page_size(asked.limit)?;
    let after = cursor(asked.cursor.as_deref(), |text| text.parse::<IpAddr>().ok())?.map(|ip| ip.to_string());
    let state = filter("state", asked.state)?;
    let server = server_named(&shop, asked.server.unwrap_or_else(|| LOCAL.to_owned())).await?;
    let items = shop
        .read("addresses.list", move |tx| addresses::list(tx, &server, state.as_deref(), after.as_deref(), limit + 1))
        .await?;
    Ok(page(items, limit, |address: &addresses::AddressView| address.ip.clone()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct When {
    at: Option<String>,
}

/// Who has and had an address: what an owner is asked for after abuse, who names an address and a moment.
async fn who(
    Extract(shop): Extract<Shop>,
    Path(ip): Path<String>,
    Query(when): Query<When>,
) -> Result<Response, Problem> {
    let ip: IpAddr = ip.parse().map_err(|_| Error::missing("address", format!("{ip:.60}")))?;
    let at = match when.at.as_deref() {
        None => None,
        Some(text) => Some(moment(text)?),
    };
    let mut found = shop.read("addresses.who", move |tx| addresses::who(tx, ip)).await?;
    if let Some(at) = at {
        // All are RFC 3339 in UTC with the same digits, so their texts sort as they do.
        found.holders.retain(|holder| holder.since <= at && holder.until.as_ref().is_none_or(|until| *until > at));
    }
    Ok(Json(found).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Release {
    server: Option<String>,
}

/// Gives back an address that is kept for a peer that is not ours. One that such a peer still has is kept again soon.
async fn release(
    Extract(shop): Extract<Shop>,
    Path(ip): Path<String>,
    Strict(body): Strict<Release>,
) -> Result<Response, Problem> {
    let ip: IpAddr = ip.parse().map_err(|_| Error::missing("address", format!("{ip:.60}")))?;
    let server = server_named(&shop, body.server.unwrap_or_else(|| LOCAL.to_owned())).await?;
    shop.write("vpn.unreserve", move |tx, shop| addresses::unreserve(tx, shop, &server, ip.to_canonical())).await?;
    Ok(Json(shop.read("addresses.who", move |tx| addresses::who(tx, ip)).await?).into_response())
}

/// A moment as rows and answers write it.
fn moment(text: &str) -> Result<String, Error> {
    let told = "write a moment with its offset, like 2026-03-01T09:00:00Z or 2026-03-01T12:00:00+03:00";
    let stamp: jiff::Timestamp = text.parse().map_err(|_| Error::invalid("at", told))?;
    Ok(semel_kernel::clock::Time::from_millis(stamp.as_millisecond()).to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ImportBody {
    file: String,
    adopt: Option<String>,
    #[serde(default = "yes")]
    dry_run: bool,
}

fn yes() -> bool {
    true
}

/// Looks at an existing configuration file; takes its peers over only when that is said.
async fn take_over(
    Extract(shop): Extract<Shop>,
    Path(which): Path<String>,
    Strict(body): Strict<ImportBody>,
) -> Result<Response, Problem> {
    let id = local(&shop, which).await?;
    let conf = Conf::parse(body.file.as_bytes()).map_err(|error| Error::invalid("file", error.to_string()))?;
    let adopt = import::adoptions(body.adopt.as_deref().unwrap_or_default()).map_err(Error::from)?;
    let found = if body.dry_run {
        shop.read("vpn.import.plan", move |tx| import::plan(tx, &id, &conf, &adopt)).await?
    } else {
        shop.write("vpn.import", move |tx, shop| import::import(tx, shop, &id, &conf, &adopt, "api")).await?
    };
    Ok(Json(found).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_with_its_offset_and_told_in_utc() {
        assert_eq!(moment("2026-03-01T12:00:00+03:00").unwrap(), "2026-03-01T09:00:00.000Z");
        assert!(moment("2026-03-01 12:00").is_err(), "whose clock is that?");
        assert!(moment("yesterday").is_err());
    }

    #[test]
    fn the_first_address_of_a_network_is_the_servers() {
        let pool = pool("10.9.0.0/29", "10.9.0.3").unwrap();
        let given: Vec<String> = pool.addresses(10).iter().map(ToString::to_string).collect();
        assert_eq!(given, ["10.9.0.2", "10.9.0.4", "10.9.0.5", "10.9.0.6"]);
        assert!(super::pool("10.9.0.1/29", "").is_err());
    }
}
