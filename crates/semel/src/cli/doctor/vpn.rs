//! What VPN access needs of this machine.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use http::Method;
use serde_json::Value;

use semel_kernel::clock::Clock;
use semel_shop::vpn::servers;
use semel_wireguard::{Conf, PublicKey};

use super::Report;
use crate::app::vpn::{lost, sealed_with};
use crate::local::{self, Program};
use crate::parts::{open_store, vpn as parts};
use crate::settings::{Apply, Settings, Vpn};

/// Looks at the tool, the interface, the configuration file and the key, where VPN access is on.
pub(super) async fn vpn(report: &mut Report, settings: &Settings) -> anyhow::Result<()> {
    let Some(vpn) = &settings.vpn else { return Ok(()) };
    key(report, settings, vpn).await?;
    fullness(report, settings).await?;
    if vpn.apply == Apply::None {
        return report.note("vpn.apply is none: this copy only sells, and another one must apply the server");
    }
    let conf = file(report, vpn)?;
    match vpn.apply {
        Apply::None => {}
        Apply::Interface => {
            let own = interface(report, vpn).await?;
            if let Some(conf) = &conf {
                compare(report, vpn, conf, own)?;
            }
        }
        Apply::File => report.note(
            "vpn.apply is file: peers stand in the configuration file only, and whoever loads it connects customers",
        )?,
    }
    forwarding(report, vpn)
}

/// From this share of used addresses on the owner should think of another network, in percent.
const HIGH: i64 = 80;
const POOLS: &str =
    "select p.network, p.size, (select count(*) from addresses a where a.pool = p.id and a.state = 'free')
    from pools p join servers s on s.id = p.server where s.name = 'local' and p.size > 0 order by p.created_at, p.id";

/// How full the networks are: who finds no address waits.
async fn fullness(report: &mut Report, settings: &Settings) -> anyhow::Result<()> {
    for (network, size, free) in networks(settings).await {
        let used = size - free;
        if free <= 0 {
            report.note(&format!(
                "no address of {network} is free: orders wait until one is. Add a network (docs/vpn.md, \"Add a network\")"
            ))?;
        } else if used.saturating_mul(100) >= size.saturating_mul(HIGH) {
            report.note(&format!(
                "{used} of the {size} addresses of {network} are used: add a network before orders wait"
            ))?;
        }
    }
    Ok(())
}

/// The networks with how many addresses they give out and how many of these are free; none where the database cannot be asked,
/// which is told elsewhere.
async fn networks(settings: &Settings) -> Vec<(String, i64, i64)> {
    if let Some(socket) = local::socket_path(settings)
        && local::is_running(&socket).await
    {
        let answer = Program::Running(socket).ask(Method::GET, "/api/v1/servers/local", None, "").await;
        let shown = answer.and_then(|answer| answer.json()).unwrap_or_default();
        let pools = shown["pools"].as_array().cloned().unwrap_or_default();
        let pool =
            |pool: &Value| Some((pool["network"].as_str()?.to_owned(), pool["size"].as_i64()?, pool["free"].as_i64()?));
        return pools.iter().filter_map(pool).filter(|(_, size, _)| *size > 0).collect();
    }
    if local::missing_database(settings).is_some() {
        return Vec::new();
    }
    let Ok(store) = open_store(settings, Clock::system()) else { return Vec::new() };
    let rows = store.rows("doctor.pools", POOLS, &[]).await.unwrap_or_default();
    rows.iter().filter_map(|row| Some((row.get(0).ok()?, row.get(1).ok()?, row.get(2).ok()?))).collect()
}

fn file(report: &mut Report, vpn: &Vpn) -> anyhow::Result<Option<Conf>> {
    let path = &vpn.config_path;
    let shown = path.display();
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            report.bad(&format!(
                "there is no {shown}: put your copy of it back, so that customers' files go on working; where there never was \
                 one, `semel wg init` makes a first one"
            ))?;
            return Ok(None);
        }
        Err(error) => {
            report.bad(&format!(
                "{shown} cannot be read: {error}. The user that `semel serve` runs as must own it and its folder"
            ))?;
            return Ok(None);
        }
    };
    let conf = Conf::parse(&bytes);
    match &conf {
        Err(error) => report.bad(&format!("{shown}, {error}"))?,
        Ok(conf) if vpn.apply == Apply::Interface && !conf.interface().present => report
            .bad(&format!("{shown} has no [Interface], so nothing is written into it: put your copy of it back"))?,
        Ok(conf) if conf.interface().save_config => report.bad(&format!(
            "{shown} has SaveConfig = true: wg-quick would write it anew when the interface goes down; set it to false"
        ))?,
        Ok(conf) if !conf.whole() => {
            report.note(&format!(
                "somebody changed what stands between the fence lines of {shown}; it is written anew"
            ))?;
        }
        Ok(conf) => report.good(&format!(
            "{shown} can be read: {} peers of ours, {} foreign ones",
            conf.ours().len(),
            conf.foreign().len()
        ))?,
    }
    private(report, path, 0o077, "600")?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        private(report, folder, 0o022, "700")?;
    }
    Ok(conf.ok())
}

/// Whether the settings, the file and the interface, whose own key is `own`, tell of one server.
fn compare(report: &mut Report, vpn: &Vpn, conf: &Conf, own: Option<PublicKey>) -> anyhow::Result<()> {
    let stands = conf.interface();
    if !stands.present {
        return Ok(());
    }
    let (shown, interface, port) = (vpn.config_path.display(), &vpn.interface, vpn.port);
    match stands.listen_port {
        Some(listens) if listens == port => {}
        Some(listens) => report.note(&format!(
            "{shown} has ListenPort = {listens}, and customers' files name port {port} (vpn.port): right only where something \
             leads the one to the other"
        ))?,
        None => report.note(&format!("{shown} has no ListenPort; customers' files name port {port} (vpn.port)"))?,
    }
    let of_file = parts::Interface::read(&vpn.config_path).ok().and_then(|found| found.private_key);
    let of_file = of_file.map(|key| key.public());
    if let (Some(of_file), Some(own)) = (of_file, own)
        && of_file != own
    {
        report.bad(&format!(
            "the PrivateKey of {shown} belongs to the public key {of_file}, and the interface {interface} has {own}: put the \
             right key into the file, then run wg-quick down {interface} and wg-quick up {interface}"
        ))?;
    }
    let named = vpn.server_public_key.as_ref().and_then(|text| text.parse::<PublicKey>().ok());
    if let (Some(named), Some(real)) = (named, of_file.or(own))
        && named != real
    {
        report.bad(&format!(
            "vpn.server_public_key is {named}, and the server's key is {real}: no device would connect. Leave the setting out, \
             and the key is read from {shown}"
        ))?;
    }
    for network in vpn.networks.iter().chain(&vpn.networks6).filter(|network| !stands.covers(network)) {
        report.bad(&servers::not_reached(interface, network))?;
    }
    Ok(())
}

/// Whether others have none of these rights on what lies at `path`.
fn private(report: &mut Report, path: &Path, others: u32, wanted: &str) -> anyhow::Result<()> {
    let Ok(found) = fs::metadata(path) else { return Ok(()) };
    let mode = found.permissions().mode() & 0o7777;
    let shown = path.display();
    if mode & others == 0 {
        return report.good(&format!("{shown} is private (mode {mode:o}, owner {})", found.uid()));
    }
    report.bad(&format!("{shown} is open to others (mode {mode:o}): run chmod {wanted} {shown}"))
}

/// Whether the key is there, and is the one that sealed what the database has.
async fn key(report: &mut Report, settings: &Settings, vpn: &Vpn) -> anyhow::Result<()> {
    let sealed = sealed(settings).await;
    let ours = match parts::key_in_place(vpn) {
        Ok(ours) => ours.map(|key| key.id()),
        Err(error) => return report.bad(&format!("{error:#}")),
    };
    match (&vpn.key_file, ours, sealed) {
        (_, Some(ours), Sealed::With(of)) if ours != of => {
            return report.bad(&format!(
                "the keys of VPN customers in this database were sealed with the key {of}, and this one is {ours}: put the \
                 right one back; when it is lost for good, see what `semel wg new-key --reason REASON` would do"
            ));
        }
        (Some(path), None, Sealed::With(of)) => return report.bad(&lost(path, &of)),
        (Some(path), None, Sealed::Somehow) => return report.bad(&lost(path, "the one that the running semel has")),
        (Some(path), None, Sealed::Nothing) => report.note(&format!(
            "{} is made at the first start; keep a copy of it apart from the backups",
            path.display()
        ))?,
        (Some(path), Some(_), _) => private(report, path, 0o077, "600")?,
        (None, ..) => report.good("the key that seals customers' keys is given")?,
    }
    Ok(())
}

/// What the database has that only the right key opens.
enum Sealed {
    /// Nothing, or it cannot be asked, which is told elsewhere.
    Nothing,
    /// Keys that were sealed with the key of this id.
    With(String),
    /// Keys of customers; which key sealed them, the running program knows.
    Somehow,
}

async fn sealed(settings: &Settings) -> Sealed {
    if let Some(socket) = local::socket_path(settings)
        && local::is_running(&socket).await
    {
        let answer = Program::Running(socket).ask(Method::GET, "/api/v1/peers?state=active&limit=1", None, "").await;
        let peers = answer.and_then(|answer| answer.json()).ok();
        let has_some = peers.is_some_and(|peers| peers["items"].as_array().is_some_and(|items| !items.is_empty()));
        return if has_some { Sealed::Somehow } else { Sealed::Nothing };
    }
    if local::missing_database(settings).is_some() {
        return Sealed::Nothing;
    }
    let Ok(store) = open_store(settings, Clock::system()) else { return Sealed::Nothing };
    match sealed_with(&store).await {
        Ok(Some(of)) => Sealed::With(of),
        _ => Sealed::Nothing,
    }
}

/// The interface's own public key, where it can be seen.
async fn interface(report: &mut Report, vpn: &Vpn) -> anyhow::Result<Option<PublicKey>> {
    let (tool, interface) = (vpn.tool.display(), &vpn.interface);
    match parts::tool(vpn).show(interface).await {
        Ok(seen) => {
            report.good(&format!("{tool} shows the interface {interface} with {} peers", seen.peers.len()))?;
            Ok(seen.own)
        }
        Err(error) => {
            report.bad(&format!(
                "{tool} does not show the interface {interface}: {error}. Is wireguard-tools installed, is the interface up \
                 (wg-quick up {interface}), and may this user look at it (CAP_NET_ADMIN)?"
            ))?;
            Ok(None)
        }
    }
}

/// Without it customers connect and reach nothing.
fn forwarding(report: &mut Report, vpn: &Vpn) -> anyhow::Result<()> {
    let off = |path: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == "0");
    if off("/proc/sys/net/ipv4/ip_forward") {
        let text = "this machine forwards no IPv4, so customers reach nothing: sysctl -w net.ipv4.ip_forward=1";
        match vpn.apply {
            Apply::Interface => report.bad(text)?,
            // The interface may be on another machine.
            Apply::File | Apply::None => report.note(text)?,
        }
    }
    if !vpn.networks6.is_empty() && off("/proc/sys/net/ipv6/conf/all/forwarding") {
        report.note("this machine forwards no IPv6: sysctl -w net.ipv6.conf.all.forwarding=1")?;
    }
    Ok(())
}
