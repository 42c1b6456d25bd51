//! What VPN access needs of this machine.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use semel_wireguard::Conf;

use super::Report;
use crate::parts::vpn as parts;
use crate::settings::{Apply, Settings, Vpn};

/// Looks at the tool, the interface, the configuration file and the key, where VPN access is on.
pub(super) async fn vpn(report: &mut Report, settings: &Settings) -> anyhow::Result<()> {
    let Some(vpn) = &settings.vpn else { return Ok(()) };
    key(report, vpn)?;
    if vpn.apply == Apply::None {
        return report.note("vpn.apply is none: this copy only sells, and another one must apply the server");
    }
    file(report, vpn)?;
    match vpn.apply {
        Apply::None => {}
        Apply::Interface => interface(report, vpn).await?,
        Apply::File => report.note(
            "vpn.apply is file: peers stand in the configuration file only, and whoever loads it connects customers",
        )?,
    }
    forwarding(report, vpn)
}

fn file(report: &mut Report, vpn: &Vpn) -> anyhow::Result<()> {
    let path = &vpn.config_path;
    let shown = path.display();
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return report.bad(&format!("there is no {shown}: `semel wg init` makes a first one"));
        }
        Err(error) => {
            return report.bad(&format!(
                "{shown} cannot be read: {error}. The user that `semel serve` runs as must own it and its folder"
            ));
        }
    };
    match Conf::parse(&bytes) {
        Err(error) => report.bad(&format!("{shown}, {error}"))?,
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
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => private(report, folder, 0o022, "700"),
        None => Ok(()),
    }
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

fn key(report: &mut Report, vpn: &Vpn) -> anyhow::Result<()> {
    let Some(path) = &vpn.key_file else { return report.good("the key that seals customers' keys is given") };
    if path.exists() {
        return private(report, path, 0o077, "600");
    }
    report.note(&format!("{} is made at the first start; keep a copy of it apart from the backups", path.display()))
}

async fn interface(report: &mut Report, vpn: &Vpn) -> anyhow::Result<()> {
    let (tool, interface) = (vpn.tool.display(), &vpn.interface);
    match parts::tool(vpn).show(interface).await {
        Ok(seen) => report.good(&format!("{tool} shows the interface {interface} with {} peers", seen.peers.len())),
        Err(error) => report.bad(&format!(
            "{tool} does not show the interface {interface}: {error}. Is wireguard-tools installed, is the interface up \
             (wg-quick up {interface}), and may this user look at it (CAP_NET_ADMIN)?"
        )),
    }
}

/// Without it customers connect and reach nothing.
fn forwarding(report: &Report, vpn: &Vpn) -> anyhow::Result<()> {
    let off = |path: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == "0");
    if off("/proc/sys/net/ipv4/ip_forward") {
        report.note("this machine forwards no IPv4, so customers reach nothing: sysctl -w net.ipv4.ip_forward=1")?;
    }
    if !vpn.networks6.is_empty() && off("/proc/sys/net/ipv6/conf/all/forwarding") {
        report.note("this machine forwards no IPv6: sysctl -w net.ipv6.conf.all.forwarding=1")?;
    }
    Ok(())
}
