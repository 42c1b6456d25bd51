//! The VPN part of a shop: the sealing key, what the configuration file says of the server, and where peers are brought to.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;

use semel_kernel::clock::Chance;
use semel_shop::vpn::{self, ServerSettings, Vpn, VpnRules};
use semel_wireguard::{Amnezia, ConfPath, Pool, PrivateKey, PublicKey, SealingKey, Target, Tool};

use crate::settings::{self, Apply, Settings};

/// The tool answers at once or is stuck.
const TOOL_DEADLINE: Duration = Duration::from_secs(10);

/// The VPN part that the settings describe; none where it is off.
///
/// # Errors
/// Where the key or the server's public key is not to be had, a sentence that says how to get it.
pub fn vpn(settings: &Settings, chance: &Chance) -> anyhow::Result<Option<Vpn>> {
    let Some(given) = &settings.vpn else { return Ok(None) };
    let interface = Interface::read(&given.config_path);
    let mut own: Vec<IpAddr> = interface.as_ref().map(|found| found.addresses.clone()).unwrap_or_default();
    let networks: Vec<IpNet> = given.networks.iter().chain(&given.networks6).copied().collect();
    // The first address is the server's wherever nobody says another one, and is kept where somebody does.
    own.extend(networks.iter().filter_map(|network| network.hosts().find(|ip| *ip != network.network())));
    own.sort_unstable();
    own.dedup();
    let pools = networks.iter().map(|network| Pool {
        network: *network,
        reserved: given.excluded.clone(),
        server: own.clone(),
    });
    let server = ServerSettings {
        name: vpn::LOCAL.to_owned(),
        interface: given.interface.clone(),
        endpoint: given.endpoint(),
        public_key: public_key(given, interface)?,
        dns: given.dns.clone(),
        mtu: given.mtu,
        keepalive: given.keepalive,
        allowed_ips: given.allowed_ips.clone(),
        ipv6: match given.ipv6 {
            settings::Ipv6::Off => vpn::Ipv6::Off,
            settings::Ipv6::Routed => vpn::Ipv6::Routed,
            settings::Ipv6::Blocked => vpn::Ipv6::Blocked,
        },
        amnezia: given.amnezia.map(|numbers| {
            let [h1, h2, h3, h4] = numbers.h;
            let settings::Amnezia { jc, jmin, jmax, s1, s2, .. } = numbers;
            Amnezia { jc, jmin, jmax, s1, s2, h1, h2, h3, h4 }
        }),
        pools: pools.collect(),
    };
    Ok(Some(Vpn {
        sealing: SealingKey::from_bytes(sealing_key(given, chance)?),
        server,
        target: target(given),
        rules: VpnRules {
            trial: given.trial,
            grace: given.grace,
            sticky: given.sticky,
            quarantine: given.quarantine,
            traffic_every: given.traffic_every,
            remind: given.remind.clone(),
            unconnected: given.unconnected.clone(),
            support: given.support.clone(),
            name_prefix: given.name_prefix.clone(),
        },
    }))
}

/// What these settings bring peers to; none where another copy does that.
pub fn target(given: &settings::Vpn) -> Option<Target> {
    let conf = ConfPath { file: given.config_path.clone(), lock: given.lock_path.clone() };
    match given.apply {
        Apply::File => Some(Target::File(conf)),
        Apply::Interface => Some(Target::Both { conf, interface: given.interface.clone(), tool: tool(given) }),
        Apply::None => None,
    }
}

/// The tool of these settings.
pub fn tool(given: &settings::Vpn) -> Tool {
    Tool { program: given.tool.clone(), deadline: TOOL_DEADLINE }
}

fn public_key(given: &settings::Vpn, interface: io::Result<Interface>) -> anyhow::Result<PublicKey> {
    if let Some(text) = &given.server_public_key {
        return text.parse::<PublicKey>().map_err(|error| anyhow!("vpn.server_public_key: {error}"));
    }
    let path = given.config_path.display();
    let help = "`semel wg init` makes that file where there is none; else give the key as vpn.server_public_key, as `wg show` \
                prints it";
    match interface {
        Ok(Interface { private_key: Some(key), .. }) => Ok(key.public()),
        Ok(_) => bail!("{path} has no PrivateKey under [Interface], so the server's public key is not known: {help}"),
        Err(error) => bail!("{path} cannot be read, so the server's public key is not known: {error}. {help}"),
    }
}

/// The key that these settings give, as it is now; none when its file is not there. Makes none.
///
/// # Errors
/// When there is one that cannot be read.
pub fn key_in_place(given: &settings::Vpn) -> anyhow::Result<Option<SealingKey>> {
    let text = match (&given.key, &given.key_file) {
        (Some(key), _) => key.expose().to_owned(),
        (None, None) => return Ok(None),
        (None, Some(path)) => match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read the VPN's key {}", path.display())),
        },
    };
    Ok(Some(SealingKey::from_bytes(decoded(text.trim()).context("the VPN's key")?)))
}

/// Makes the key of the file beside the database where it is not there, at the word of the owner, who has lost it.
///
/// # Errors
/// When it cannot be written, or what lies there is no key.
pub fn make_missing_key(given: &settings::Vpn, chance: &Chance) -> anyhow::Result<()> {
    sealing_key(given, chance).map(drop)
}

/// The key of the settings, or that of the file beside the database, which is made when it is not there.
fn sealing_key(given: &settings::Vpn, chance: &Chance) -> anyhow::Result<[u8; 32]> {
    if let Some(key) = &given.key {
        return decoded(key.expose()).context("vpn.key");
    }
    let Some(path) = &given.key_file else { bail!("vpn.key is missing") };
    match fs::read_to_string(path) {
        Ok(text) => decoded(text.trim()).with_context(|| format!("the VPN's key in {}", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = chance.bytes::<32>();
            let key = make_key(path, &made).with_context(|| format!("cannot make the VPN's key {}", path.display()))?;
            decoded(key.trim()).with_context(|| format!("the VPN's key in {}", path.display()))
        }
        Err(error) => Err(error).with_context(|| format!("cannot read the VPN's key {}", path.display())),
    }
}

fn decoded(text: &str) -> anyhow::Result<[u8; 32]> {
    let bytes = STANDARD.decode(text).unwrap_or_default();
    bytes.try_into().map_err(|_| anyhow!("it is not the base64 of 32 bytes: put the right one back from your copy"))
}

/// Puts a new key at `path`, whole or not at all, and answers what lies there afterwards: whoever else made one at the same
/// moment has made the one that counts.
fn make_key(path: &Path, key: &[u8; 32]) -> io::Result<String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let fresh = PathBuf::from(name);
    let _ = fs::remove_file(&fresh);
    let written = place(&fresh, path, &format!("{}\n", STANDARD.encode(key)));
    let _ = fs::remove_file(&fresh);
    written?;
    File::open(folder)?.sync_all()?;
    fs::read_to_string(path)
}

fn place(fresh: &Path, path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    match fs::hard_link(fresh, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// What a configuration file says of its own interface.
pub struct Interface {
    /// The server's private key.
    pub private_key: Option<PrivateKey>,
    /// The server's own addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether `wg-quick down` writes the file anew, which would lose what others wrote into it.
    pub saves_itself: bool,
}

impl Interface {
    /// Reads the section `[Interface]` of the file at `path`.
    pub fn read(path: &Path) -> io::Result<Self> {
        Ok(Self::parse(&String::from_utf8_lossy(&fs::read(path)?)))
    }

    fn parse(text: &str) -> Self {
        let mut found = Self { private_key: None, addresses: Vec::new(), saves_itself: false };
        let mut inside = false;
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.starts_with('[') {
                inside = line.eq_ignore_ascii_case("[Interface]");
                continue;
            }
            let Some((name, value)) = line.split_once('=').filter(|_| inside) else { continue };
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "privatekey" => found.private_key = value.parse().ok(),
                "address" => found.addresses.extend(value.split(',').filter_map(own_address)),
                "saveconfig" => found.saves_itself = value.eq_ignore_ascii_case("true"),
                _ => {}
            }
        }
        found
    }
}

fn own_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    text.parse::<IpNet>().map(|network| network.addr()).or_else(|_| text.parse::<IpAddr>()).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_interface_is_read_as_wg_quick_reads_it() {
        let key = PrivateKey::from_random([7; 32]);
        let text = format!(
            "# mine\n[Interface]\nAddress = 10.8.0.1/24, fd00::1/64\naddress=10.9.0.1\nPrivateKey = {} # secret\n\
             SaveConfig = true\n\n[Peer]\nPublicKey = x\nAllowedIPs = 10.8.0.2/32\nAddress = 10.8.0.9/32\n",
            key.to_base64().as_str()
        );
        let found = Interface::parse(&text);
        let addresses: Vec<String> = found.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.8.0.1", "fd00::1", "10.9.0.1"]);
        assert!(found.private_key.is_some_and(|read| read.public() == key.public()));
        assert!(found.saves_itself);
        let none = Interface::parse("[Peer]\nPrivateKey = x\n");
        assert!(none.private_key.is_none() && none.addresses.is_empty() && !none.saves_itself);
    }

    #[test]
    fn a_key_is_made_once_and_for_its_owner_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("data/semel.db.vpn-key");
        let first = make_key(&path, &[1; 32]).expect("a key");
        assert_eq!(decoded(first.trim()).expect("32 bytes"), [1; 32]);
        assert_eq!(make_key(&path, &[2; 32]).expect("the same key"), first);
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path().join("data")).expect("a folder").count(), 1, "nothing lies beside it");
        assert!(decoded("c2hvcnQ=").is_err());
    }
}
