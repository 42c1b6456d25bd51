//! `semel wg init`: a first configuration file for the interface, with a key of its own and the way to the internet.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use ipnet::IpNet;

use semel_kernel::clock::Chance;
use semel_wireguard::PrivateKey;

use crate::cli::init::write_private;
use crate::cli::out;
use crate::settings::{Apply, Settings, Vpn};

/// Where `wg-quick` looks for an interface by its name.
const WG_QUICK: &str = "/etc/wireguard";

/// What the settings do not say.
#[derive(Args)]
pub struct InitArgs {
    /// Where customers reach this machine: a name or an address; what the settings say when left out
    #[arg(long)]
    host: Option<String>,
    /// The interface to the internet; the one of the default route when left out
    #[arg(long, value_name = "INTERFACE")]
    out_interface: Option<String>,
}

impl InitArgs {
    /// The flag as a setting.
    pub fn flags(&self) -> Vec<(String, String)> {
        self.host.iter().map(|host| ("vpn.host".to_owned(), host.clone())).collect()
    }
}

/// Writes the file where there is none.
pub fn init(settings: &Settings, args: &InitArgs) -> anyhow::Result<ExitCode> {
    let Some(vpn) = &settings.vpn else {
        anyhow::bail!("say where customers reach this machine: semel wg init --host vpn.example.com")
    };
    let path = &vpn.config_path;
    anyhow::ensure!(!path.exists(), "{} is there already: it is kept as it is", path.display());
    let outside = match &args.out_interface {
        Some(name) => name.clone(),
        None => default_route().context("which interface leads to the internet? Give it with --out-interface")?,
    };
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'=' | b'+' | b'.' | b'-');
    anyhow::ensure!(
        (1..=15).contains(&outside.len()) && outside.bytes().all(sound),
        "{outside:?} is not the name of an interface"
    );
    let key = PrivateKey::from_random(Chance::system().bytes());
    if let Some(folder) = path.parent() {
        private_folder(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let text = file(vpn, &key, &outside);
    write_private(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    let (interface, port) = (&vpn.interface, vpn.port);
    let given = match args.host {
        Some(_) => format!("\n  put `host = \"{}\"` under [vpn] in semel.toml", vpn.host),
        None => String::new(),
    };
    out::lines(&format!(
        "{} is written, with a key of its own (public: {}).\nNext:{given}\n{}\n  open UDP port {port} in the firewall\n  \
         semel doctor",
        path.display(),
        key.public(),
        next(vpn, path, interface)
    ))
}

/// How the interface comes up. `wg-quick` looks for names in its own folder only, and where the file is all that we keep, its
/// owner brings the interface to it.
fn next(vpn: &Vpn, path: &Path, interface: &str) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let file = whole.display();
    match vpn.apply {
        Apply::Interface if whole.parent() == Some(Path::new(WG_QUICK)) => {
            format!("  systemctl enable --now wg-quick@{interface}   # or: wg-quick up {interface}")
        }
        Apply::Interface => {
            format!("  wg-quick up {file}   # systemctl enable --now wg-quick@{interface} needs the file in {WG_QUICK}")
        }
        Apply::File | Apply::None => format!(
            "  wg-quick up {file}   # here, or on the machine that you copy it to: vpn.apply says that this program touches no \
             interface,\n                       # so bring each change of the file to it yourself"
        ),
    }
}

fn private_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if folder.as_os_str().is_empty() || folder.exists() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// The interface of the default route, as Linux tells it: a table of hexadecimal words.
fn default_route() -> Option<String> {
    default_of(&fs::read_to_string("/proc/net/route").ok()?)
}

fn default_of(table: &str) -> Option<String> {
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace();
        let (name, destination, mask) = (words.next()?, words.next()?, words.nth(5)?);
        (destination == "00000000" && mask == "00000000").then(|| name.to_owned())
    })
}

/// The first address of a network with the network's length, as the server has it.
fn own(network: &IpNet) -> Option<String> {
    let first = network.hosts().find(|ip| *ip != network.network())?;
    Some(format!("{first}/{}", network.prefix_len()))
}

fn file(vpn: &Vpn, key: &PrivateKey, outside: &str) -> String {
    let networks: Vec<&IpNet> = vpn.networks.iter().chain(&vpn.networks6).collect();
    let addresses: Vec<String> = networks.iter().filter_map(|network| own(network)).collect();
    let mut text = format!(
        "# Made by `semel wg init`. Customers' peers are kept between two fence lines at the end; everything else is yours.\n\
         [Interface]\nAddress = {}\nListenPort = {}\nPrivateKey = {}\nSaveConfig = false\n",
        addresses.join(", "),
        vpn.port,
        key.to_base64().as_str()
    );
    if let Some(mtu) = vpn.mtu {
        text.push_str(&format!("MTU = {mtu}\n"));
    }
    if let Some(numbers) = vpn.amnezia {
        let [h1, h2, h3, h4] = numbers.h;
        text.push_str(&format!(
            "Jc = {}\nJmin = {}\nJmax = {}\nS1 = {}\nS2 = {}\nH1 = {h1}\nH2 = {h2}\nH3 = {h3}\nH4 = {h4}\n",
            numbers.jc, numbers.jmin, numbers.jmax, numbers.s1, numbers.s2
        ));
    }
    text.push_str("# The way to the internet. Customers do not reach each other.\n");
    text.push_str("PostUp = sysctl -q -w net.ipv4.ip_forward=1\n");
    if !vpn.networks6.is_empty() {
        text.push_str("PostUp = sysctl -q -w net.ipv6.conf.all.forwarding=1\n");
    }
    let mut rules = Vec::new();
    rules.extend(way("iptables", &vpn.networks, outside));
    rules.extend(way("ip6tables", &vpn.networks6, outside));
    for (moment, verb) in [("PostUp", "-A"), ("PostDown", "-D")] {
        for rule in &rules {
            text.push_str(&format!("{moment} = {}\n", rule.replace("VERB", verb)));
        }
    }
    text
}

/// What lets the packets of these networks pass, with VERB where the rule is added or taken away.
fn way(tool: &str, networks: &[IpNet], outside: &str) -> Vec<String> {
    if networks.is_empty() {
        return Vec::new();
    }
    let mut rules = vec![
        format!("{tool} VERB FORWARD -i %i -o %i -j DROP"),
        format!("{tool} VERB FORWARD -i %i -j ACCEPT"),
        format!("{tool} VERB FORWARD -o %i -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
    ];
    rules.extend(
        networks
            .iter()
            .map(|network| format!("{tool} -t nat VERB POSTROUTING -s {network} -o {outside} -j MASQUERADE")),
    );
    rules
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::settings::load;

    #[test]
    fn the_default_route_is_found_in_the_table_of_the_kernel() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                     docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
                     eth0\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n";
        assert_eq!(default_of(table).as_deref(), Some("eth0"));
        assert_eq!(default_of("Iface\tDestination\n"), None);
    }

    #[test]
    fn the_file_has_the_key_the_address_and_the_way_to_the_internet() {
        let env: BTreeMap<String, String> = [
            ("SEMEL_VPN_HOST", "vpn.example.com"),
            ("SEMEL_VPN_NETWORK", "10.9.0.0/24"),
            ("SEMEL_VPN_NETWORK6", "fd00:9::/112"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let loaded = load(Some(Path::new("/dev/null")), &env, &[]).expect("right settings");
        let vpn = loaded.settings.vpn.expect("a VPN");
        let key = PrivateKey::from_random([7; 32]);
        let text = file(&vpn, &key, "eth0");
        for line in [
            "[Interface]",
            "Address = 10.9.0.1/24, fd00:9::1/112",
            "ListenPort = 51820",
            "PostUp = iptables -t nat -A POSTROUTING -s 10.9.0.0/24 -o eth0 -j MASQUERADE",
            "PostDown = ip6tables -t nat -D POSTROUTING -s fd00:9::/112 -o eth0 -j MASQUERADE",
            "PostUp = iptables -A FORWARD -i %i -o %i -j DROP",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        assert!(text.contains(key.to_base64().as_str()));
        assert_eq!(text.matches("PostUp = iptables").count(), text.matches("PostDown = iptables").count());

        // The next step fits to where the file lies and to who touches the interface.
        let there = next(&vpn, Path::new("/etc/wireguard/not-there.conf"), "not-there");
        assert!(there.contains("systemctl enable --now wg-quick@not-there"), "{there}");
        let elsewhere = next(&vpn, Path::new("wg/not-there.conf"), "not-there");
        assert!(
            elsewhere.contains("wg-quick up wg/not-there.conf") && elsewhere.contains("needs the file"),
            "{elsewhere}"
        );
        let by_file = Vpn { apply: Apply::File, ..vpn };
        let alone = next(&by_file, Path::new("wg/not-there.conf"), "not-there");
        assert!(!alone.contains("systemctl") && alone.contains("touches no interface"), "{alone}");
    }
}
