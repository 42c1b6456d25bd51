//! Vpn: whether giving out an address costs more when a network is nearly full, and what a thousand new customers cost a
//! server that has ten thousand.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use semel_kernel::args;
use semel_kernel::clock::{Clock, Stopwatch};
use semel_kernel::store::{Engine, Sql, Store, StoreError, StoreOptions};
use semel_wireguard::reconcile::reconcile;
use semel_wireguard::{ConfPath, Peer, PeerName, PresharedKey, PublicKey, Target, Tool};
use serde_json::Value;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::database::Database;
use crate::pg::Postgres;
use crate::place::Place;
use crate::report::{Section, per_second};
use crate::server;

/// Addresses of a /16 that are given out.
const ADDRESSES: u64 = 65_000;
/// Claims of one round, by so many customers at a time.
const CLAIMS: usize = 400;
const AT_ONCE: usize = 8;
/// Rounds of claims and of writing; the median counts.
const ROUNDS: usize = 5;
/// Peers that a server has, and how many come.
const THERE: u32 = 10_000;
const MORE: u32 = 1_000;
/// The aims.
const FLAT: f64 = 1.2;
const FILE: Duration = Duration::from_secs(1);
const CALLS: usize = 6;
const TIMES: f64 = 20.0;

const SERVER: &str = "srv_00000000000000000000000000000001";

/// Keeps its peers in a file and counts how often it is called.
const TOOL: &str = r#"#!/bin/sh
here=${0%/*}
echo "$1" >> "$here/calls"
case "$1" in
show)
	cat "$here/interface" "$here/peers" ;;
addconf)
	awk '
	function keep() { if (key != "") print key "\t" secret "\t(none)\t" allowed "\t0\t0\t0\toff" }
	/^\[Peer\]/ { keep(); key = secret = allowed = "" }
	/^PublicKey = / { key = substr($0, 13) }
	/^PresharedKey = / { secret = substr($0, 16) }
	/^AllowedIPs = / { allowed = substr($0, 14); gsub(" ", "", allowed) }
	END { keep() }' >> "$here/peers" ;;
*)
	echo "nobody taught this tool to $1" >&2
	exit 1 ;;
esac
"#;

/// Measures everything of this part.
pub async fn measure(place: &Place) -> Result<Section> {
    let mut section = Section::new("VPN");
    section.how(format!(
        "A network of {ADDRESSES} addresses, at first 1 % of them held, then 99 %, spread evenly. A claim is the shop's own statement in a \
         transaction of its own, {AT_ONCE} at a time, {CLAIMS} in a round; what a round took is given back, and the median of {ROUNDS} rounds \
         is told. Then a server with {THERE} peers gets {MORE} more: the file is locked, read, planned, written, synced, renamed and read \
         again; the tool is a script that counts its calls. The usual way (b) is the Python of `bench/usual_way/addresses.py`: for each \
         peer take the lock, read the file, scan for the first free address, append the lines and sync. Both ways choose {MORE} \
         addresses and bring as many peers into a file of {THERE}; Semel on SQLite."
    ));
    let postgres = Postgres::start(place, false).await?;
    for name in ["SQLite", "PostgreSQL"] {
        claims_on(place, &postgres, name, &mut section).await?;
    }
    postgres.stop().await?;
    let file = additions(place, &mut section).await?;
    against_the_usual_way(place, file, &mut section).await?;
    Ok(section)
}

async fn claims_on(place: &Place, postgres: &Postgres, name: &str, section: &mut Section) -> Result<()> {
    let mut rates = Vec::new();
    for percent in [1, 99] {
        eprintln!("-- claims on {name}, {percent} % full");
        let database = match name {
            "SQLite" => Database::file(place, "vpn")?,
            _ => Database::on(postgres, "vpn").await?,
        };
        let store = laid_out(place, &database, ADDRESSES * percent / 100).await?;
        rates.push(rate(claim_rounds(&store, CLAIMS).await?, CLAIMS));
    }
    let [empty, full] = rates.as_slice() else { bail!("both networks were to be measured") };
    let slower = empty / full;
    section.aimed(
        format!("Claims, {name}, {ADDRESSES} addresses, 99 % held"),
        per_second(*full),
        format!("{} with 1 % held: {slower:.2} times slower", per_second(*empty)),
        format!("within {FLAT:.1} times"),
        slower <= FLAT,
    );
    Ok(())
}

fn rate(took: Duration, count: usize) -> f64 {
    count as f64 / took.as_secs_f64().max(0.000_001)
}

/// A database with a server whose network has so many addresses held.
async fn laid_out(place: &Place, database: &Database, held: u64) -> Result<Store> {
    server::migrate(place, database).await?;
    let numbers = match database.engine() {
        Engine::Sqlite => {
            format!(
                "(with recursive c(k) as (select 0 union all select k + 1 from c where k < {ADDRESSES} - 1) select k from c)"
            )
        }
        Engine::Postgres => format!("(select k from generate_series(0::bigint, {ADDRESSES} - 1) g(k))"),
    };
    // 7919 and the number of addresses have no common factor: just so many are held, one here and one there.
    let is_held = format!("(k * 7919) % {ADDRESSES} < {held}");
    database
        .run(&format!(
            "begin;
             insert into servers (id, name, interface, endpoint, public_key, dns, keepalive, allowed_ips, ipv6, state, created_at)
             values ('{SERVER}', 'local', 'wg0', 'vpn.example.com:51820', 'none', '', 25, '0.0.0.0/0', 'off', 'open', 0);
             insert into pools (id, server, network, family, size, created_at)
             values ('pol_00000000000000000000000000000001', '{SERVER}', '10.10.0.0/16', 4, {ADDRESSES}, 0);
             insert into addresses (server, ip, n, pool, family, state, peer, since)
             select '{SERVER}', '10.10.' || cast((k + 2) / 256 as text) || '.' || cast((k + 2) % 256 as text), k,
                 'pol_00000000000000000000000000000001', 4, case when {is_held} then 'held' else 'free' end,
                 case when {is_held} then 'peer_of_somebody' end, 0 from {numbers} s;
             commit;"
        ))
        .await?;
    database.settle_down().await?;
    Ok(Store::open(&database.store_url(), StoreOptions::default(), Clock::system())?)
}

/// The median time of so many claims.
async fn claim_rounds(store: &Store, count: usize) -> Result<Duration> {
    let found = semel_shop::vpn::STATEMENTS.iter().find(|(name, _)| *name == "CLAIM");
    let claim = found.map(|(_, sql)| *sql).context("the shop has a statement CLAIM")?;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        times.push(round(store, claim, count).await?);
        let back = "update addresses set state = 'free', since = $1 where state = 'held' and peer is null";
        let given = store.write("bench.give_back", move |tx| {
            let now = tx.now();
            tx.execute(back, args![now])
        });
        let given: Result<u64, StoreError> = given.await;
        if given? != u64::try_from(count)? {
            bail!("an address was claimed twice, or not at all");
        }
    }
    median(times)
}

fn median(mut times: Vec<Duration>) -> Result<Duration> {
    times.sort();
    times.get(times.len() / 2).copied().context("rounds were measured")
}

async fn round(store: &Store, claim: Sql, count: usize) -> Result<Duration> {
    let watch = Stopwatch::start();
    let mut running = JoinSet::new();
    for _ in 0..AT_ONCE {
        let store = store.clone();
        running.spawn(async move {
            for _ in 0..count / AT_ONCE {
                let taken = store.write("bench.claim", move |tx| {
                    let (family, most, now) = (4_i64, 1_i64, tx.now());
                    Ok::<_, StoreError>(tx.rows(claim, args![SERVER, family, now, most])?.len())
                });
                if taken.await? != 1 {
                    bail!("a claim took nothing: the addresses were not there");
                }
            }
            Ok::<(), anyhow::Error>(())
        });
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(watch.elapsed())
}

/// The `n`-th peer.
fn peer(n: u32) -> Peer {
    let mut key = [1_u8; 32];
    key[..4].copy_from_slice(&n.to_be_bytes());
    let mut secret = [2_u8; 32];
    secret[..4].copy_from_slice(&n.to_be_bytes());
    let address = Ipv4Addr::from(0x0a0a_0002 + n);
    Peer {
        public_key: PublicKey(key),
        preshared: Some(PresharedKey::from_random(secret)),
        allowed: vec![IpNet::from(IpAddr::from(address))],
        comment: PeerName::clean(&format!("customer {n}, device 1")),
    }
}

/// Writes a configuration file with no peers into a fresh folder.
fn fresh(place: &Place, name: &str) -> Result<ConfPath> {
    let folder = place.work.join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let file = folder.join("wg0.conf");
    fs::write(&file, "[Interface]\nAddress = 10.10.0.1/16\nListenPort = 51820\n\n")?;
    Ok(ConfPath { lock: folder.join("wg0.lock"), file })
}

/// The time that the file takes for a thousand peers more; tells it, and the calls of the tool.
async fn additions(place: &Place, section: &mut Section) -> Result<Duration> {
    eprintln!("-- {MORE} peers more beside {THERE}");
    let before: Vec<Peer> = (0..THERE).map(peer).collect();
    let after: Vec<Peer> = (0..THERE + MORE).map(peer).collect();
    let ours: BTreeSet<PublicKey> = after.iter().map(|peer| peer.public_key).collect();
    let target = Target::File(fresh(place, "vpn-file")?);
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        reconcile(&target, &before, &ours).await?;
        let watch = Stopwatch::start();
        let report = reconcile(&target, &after, &ours).await?;
        times.push(watch.elapsed());
        if report.added.len() != after.len() - before.len() {
            bail!("{} peers were added to the file", report.added.len());
        }
    }
    let took = median(times)?;
    section.aimed(
        format!("File: {MORE} peers more beside {THERE}"),
        format!("{:.3} s", took.as_secs_f64()),
        "one file written, synced and read again",
        format!("at most {} s", FILE.as_secs()),
        took <= FILE,
    );

    let conf = fresh(place, "vpn-tool")?;
    let folder = conf.file.parent().context("the file has a folder")?.to_owned();
    let tool = Tool { program: counting_tool(&folder).await?, deadline: Duration::from_secs(60) };
    let target = Target::Both { conf, interface: "wg0".to_owned(), tool };
    reconcile(&target, &before, &ours).await?;
    fs::write(folder.join("calls"), "")?;
    let report = reconcile(&target, &after, &ours).await?;
    if report.seen.peers.len() != after.len() {
        bail!("the interface has {} peers", report.seen.peers.len());
    }
    let calls = fs::read_to_string(folder.join("calls"))?;
    let count = calls.lines().count();
    section.aimed(
        format!("Interface: calls of the tool for {MORE} peers"),
        count.to_string(),
        calls.lines().collect::<Vec<_>>().join(", "),
        format!("at most {CALLS}"),
        count <= CALLS,
    );
    Ok(took)
}

/// Puts the tool into `folder`. Another program writes the one that is run: nothing holds it open for writing then.
async fn counting_tool(folder: &Path) -> Result<PathBuf> {
    fs::write(folder.join("script"), TOOL)?;
    fs::write(folder.join("interface"), format!("(none)\t{}\t51820\toff\n", PublicKey([3; 32])))?;
    for name in ["peers", "calls"] {
        fs::write(folder.join(name), "")?;
    }
    let tool = folder.join("wg");
    let copied = Command::new("cp").arg(folder.join("script")).arg(&tool).status().await?;
    if !copied.success() {
        bail!("the tool could not be put into {}", folder.display());
    }
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o700))?;
    Ok(tool)
}

/// The same work in the usual way, and in ours.
async fn against_the_usual_way(place: &Place, file: Duration, section: &mut Section) -> Result<()> {
    eprintln!("-- the usual way: {MORE} peers, one by one");
    let conf = fresh(place, "vpn-usual")?;
    let mut text = fs::read_to_string(&conf.file)?;
    for n in 0..THERE {
        let peer = peer(n);
        let secret = peer.preshared.as_ref().map(PresharedKey::to_base64);
        let secret = secret.as_ref().map_or("", |secret| secret.as_str());
        text.push_str(&format!(
            "[Peer]\n# customer {n}\nPublicKey = {}\nPresharedKey = {secret}\nAllowedIPs = {}\n\n",
            peer.public_key, peer.allowed[0]
        ));
    }
    fs::write(&conf.file, text)?;
    let mut command = place.bare(&place.python);
    command.arg(place.usual.join("addresses.py")).arg(&conf.file).arg("10.10.0.0/16").arg(MORE.to_string());
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let ended = command.output().await.context("the usual way cannot be started")?;
    if !ended.status.success() {
        bail!("the usual way failed: {}", String::from_utf8_lossy(&ended.stderr));
    }
    let told: Value = serde_json::from_slice(&ended.stdout).context("the usual way tells what it did")?;
    let usual = Duration::from_secs_f64(told["seconds"].as_f64().context("its seconds")?);
    if told["peers"].as_u64() != Some(u64::from(THERE + MORE)) || told["doubled"].as_u64() != Some(0) {
        bail!("the usual way ended with {told}");
    }

    let database = Database::file(place, "vpn")?;
    let store = laid_out(place, &database, u64::from(THERE)).await?;
    let claims = claim_rounds(&store, usize::try_from(MORE)?).await?;
    let ours = claims + file;
    let times = usual.as_secs_f64() / ours.as_secs_f64().max(0.000_001);
    section.figure(
        format!("The usual way (b): {MORE} addresses and peers, one by one"),
        format!("{:.2} s", usual.as_secs_f64()),
        format!("{MORE} files read, and as many calls of the tool if it is called"),
    );
    section.aimed(
        format!("Semel, SQLite: {MORE} addresses and peers"),
        format!("{:.2} s", ours.as_secs_f64()),
        format!(
            "{times:.0} times the usual way; claims {:.2} s, file {:.2} s",
            claims.as_secs_f64(),
            file.as_secs_f64()
        ),
        format!("at least {TIMES:.0} times"),
        times >= TIMES,
    );
    Ok(())
}
