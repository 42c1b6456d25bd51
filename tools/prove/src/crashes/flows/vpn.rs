//! What the flows about VPN access share: a server in the stage's folder, whose tool keeps its interface in a file, and the look
//! at the three places that must agree at rest: database, `wg0.conf` and interface.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use semel_wireguard::{Conf, PrivateKey, PublicKey, SeenPeer, dump};

use crate::crashes::stage::{Stage, pause};
use crate::program::{Patience, items, moment, text};

/// A network with room for every flow but one.
pub const NETWORK: &str = "10.8.0.0/24";
/// The network of the owner's own peer, which nobody may touch.
const FOREIGN: &str = "10.99.0.9/32";
/// How long the flows' product gives access, in milliseconds.
pub const MONTH_MS: i64 = 30 * 86_400_000;

/// Keeps an interface in `peers`, one line of a dump each. Calls wait for each other, as in the kernel: one that a dead program
/// left behind ends before the next begins.
const TOOL: &str = r#"#!/bin/sh
here=${0%/*}
exec 9>> "$here/tool.lock"
flock 9
if [ -f "$here/broken" ] && [ "$1" != show ]; then
	echo "Unable to modify interface: No such device" >&2
	exit 1
fi
load='BEGIN { while ((getline line < state) > 0) { split(line, part, "\t"); key = part[1]; order[++n] = key; row[key] = line
	secrets[key] = part[2] } key = "" }'
print='for (i = 1; i <= n; i++) if (order[i] in row) print row[order[i]]'
case "$1" in
show)
	cat "$here/interface" "$here/peers" ;;
addconf)
	awk -v state="$here/peers" "$load"'
	function keep() {
		if (key == "") return
		if (secret == "") secret = (key in secrets) ? secrets[key] : "(none)"
		if (secret == "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=") secret = "(none)"
		if (allowed == "") allowed = "(none)"
		if (!(key in row)) order[++n] = key
		row[key] = key "\t" secret "\t(none)\t" allowed "\t0\t0\t0\toff"
	}
	/^\[Peer\]/ { keep(); key = secret = allowed = "" }
	/^PublicKey = / { key = substr($0, 13) }
	/^PresharedKey = / { secret = substr($0, 16) }
	/^AllowedIPs = / { allowed = substr($0, 14); gsub(" ", "", allowed) }
	END { keep(); '"$print"' }' > "$here/peers.new" && mv "$here/peers.new" "$here/peers" ;;
set)
	shift 2
	printf '%s\n' "$@" | awk -v state="$here/peers" "$load"'
	/=$/ { delete row[$0] }
	END { '"$print"' }' > "$here/peers.new" && mv "$here/peers.new" "$here/peers" ;;
*)
	echo "nobody taught this tool to $1" >&2
	exit 1 ;;
esac
"#;

/// Each public key with its networks.
pub type Peers = BTreeMap<String, BTreeSet<String>>;

fn key(n: u8) -> PrivateKey {
    PrivateKey::from_random([n; 32])
}

/// A key of a customer's own.
pub fn own_key() -> String {
    key(77).public().to_string()
}

/// The key of a peer that the owner's file names and that nobody has.
pub fn strays_key() -> String {
    key(88).public().to_string()
}

fn peers_of(seen: impl IntoIterator<Item = SeenPeer>) -> Peers {
    let networks = |peer: &SeenPeer| peer.allowed.iter().map(ToString::to_string).collect();
    seen.into_iter().map(|peer| (peer.public_key.to_string(), networks(&peer))).collect()
}

/// The server.
impl Stage {
    fn vpn_folder(&self) -> PathBuf {
        self.world.path("wireguard")
    }

    /// From now on every process has a VPN server that gives out this network, with the owner's own peer in file and interface.
    /// Traffic is read at the start and not again: how often it is read says nothing.
    pub fn with_vpn(&self, network: &str) {
        let folder = self.vpn_folder();
        fs::create_dir_all(&folder).expect("a folder for the VPN");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("a private folder");
        let foreign = key(99).public();
        let conf = format!(
            "# mine\n[Interface]\nAddress = 10.8.0.1/16\nListenPort = 51820\nPrivateKey = {}\nPostUp = true # kept\n\n\
             [Peer]\n# the owner's laptop\nPublicKey = {foreign}\nAllowedIPs = {FOREIGN}\n",
            key(1).to_base64().as_str()
        );
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("a file for the VPN");
        write("wg0.conf", &conf);
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(folder.join("wg0.conf"), private).expect("a private file");
        write("interface", &format!("(none)\t{}\t51820\toff\n", key(1).public()));
        write("peers", &format!("{foreign}\t(none)\t(none)\t{FOREIGN}\t0\t0\t0\toff\n"));
        write("script", TOOL);
        // Another program writes the one that is run: a file that a child of a neighbouring scenario still holds open for
        // writing cannot be run.
        let run = |command: &mut Command| assert!(command.status().is_ok_and(|status| status.success()), "{command:?}");
        run(Command::new("cp").arg(folder.join("script")).arg(folder.join("wg")));
        run(Command::new("chmod").arg("700").arg(folder.join("wg")));
        self.wear("SEMEL_VPN_HOST", "vpn.example.com");
        self.wear("SEMEL_VPN_CONFIG_PATH", folder.join("wg0.conf").display().to_string());
        self.wear("SEMEL_VPN_TOOL", folder.join("wg").display().to_string());
        self.wear("SEMEL_VPN_NETWORK", network);
        self.wear("SEMEL_VPN_KEY", STANDARD.encode([5_u8; 32]));
        self.wear("SEMEL_VPN_TRAFFIC_EVERY", "1d");
        self.wear("SEMEL_VPN_GRACE_HOURS", "0");
        self.wear("SEMEL_VPN_TRIAL_DAYS", "3");
    }

    /// From now on the tool shows and changes nothing, or does its work again.
    pub fn tool_is_broken(&self, broken: bool) {
        let mark = self.vpn_folder().join("broken");
        if broken {
            fs::write(mark, "").expect("a mark beside the tool");
        } else {
            let _ = fs::remove_file(mark);
        }
    }

    /// The file as it stands, for whoever takes it over.
    pub fn conf_text(&self) -> String {
        fs::read_to_string(self.vpn_folder().join("wg0.conf")).expect("wg0.conf is there at every moment")
    }
}

/// What is asked about access.
impl Stage {
    /// A month of access for 990 roubles. Answers its id.
    pub async fn month(&self) -> String {
        let price = json!({ "amount": "990.00", "currency": "RUB" });
        let month = json!({ "title": "VPN", "kind": "vpn", "price": price, "duration_days": 30, "devices": 1 });
        self.product_of(&month, "month").await
    }

    /// The newest subscription of a customer with its peers and periods; null when there is none.
    pub async fn subscription(&self, customer: i64) -> Value {
        let found = items(&self.get(&format!("/api/v1/subscriptions?customer={customer}&limit=10")).await);
        let Some(newest) = found.first() else { return Value::Null };
        let shown = self.get(&format!("/api/v1/subscriptions/{}", text(&newest["id"]))).await;
        assert_eq!(shown.status, 200, "a subscription is shown: {}", shown.text);
        shown.body
    }

    /// Starts the program, armed with nothing, and waits until its VPN server has been applied once: access is sold from then on.
    pub async fn start_with_vpn(&self) {
        self.start_plain().await;
        self.vpn_is_up().await;
        self.rest().await;
    }

    /// Waits until the VPN server has been applied once.
    pub async fn vpn_is_up(&self) {
        let patience = Patience::of("the VPN server is applied", 120);
        while self.get("/api/v1/servers/local").await.body["applied_at"].is_null() {
            pause(&patience).await;
        }
    }

    /// Waits until the newest subscription of a customer stands there, with each of its peers in one of these states.
    pub async fn until_access(&self, customer: i64, state: &str, peers: &[&str]) {
        let patience = Patience::of(format!("the access of {customer} is {state} with peers {peers:?}"), 120);
        loop {
            let shown = self.subscription(customer).await;
            let fits = live_peers(&shown).iter().all(|peer| peers.contains(&text(&peer["state"]).as_str()));
            if shown["state"] == state && fits {
                return;
            }
            pause(&patience).await;
        }
    }

    /// Lets jobs of a kind that wait for their time run now, as an owner may; once for each `round`.
    pub async fn run_now(&self, kind: &str, round: u32) {
        let jobs = items(&self.get("/api/v1/jobs?state=ready&limit=200").await);
        for job in jobs.iter().filter(|job| job["kind"] == kind) {
            let id = text(&job["id"]);
            self.post_once(&format!("/api/v1/jobs/{id}/retry"), &json!({}), &format!("now-{id}-{round}")).await;
        }
    }

    /// How many addresses of the server stand in a state.
    pub async fn addresses(&self, state: &str) -> usize {
        items(&self.get(&format!("/api/v1/addresses?state={state}&limit=200")).await).len()
    }

    /// The files in a customer's chat, in the order in which they came; what came twice stands here twice.
    pub fn files(&self, customer: i64) -> Vec<String> {
        let documents = self.world.sandbox.chat(customer).into_iter().filter_map(|message| message.document);
        let files = documents.filter(|file| file.name.ends_with(".conf"));
        files.map(|file| String::from_utf8_lossy(&file.bytes).into_owned()).collect()
    }

    /// Insists that a customer was handed so many different files, and none more often than a death in the middle of sending
    /// excuses. Answers the last one.
    pub fn given_files(&self, customer: i64, count: usize) -> String {
        let (files, lost) = (self.files(customer), self.lost());
        let different: BTreeSet<&String> = files.iter().collect();
        assert_eq!(different.len(), count, "customer {customer} is handed {count} files, not {}", different.len());
        let most = count * (1 + lost);
        assert!(files.len() <= most, "{} files came to {customer}, and only {lost} answers were lost", files.len());
        files.last().cloned().unwrap_or_default()
    }
}

/// The peers of a subscription that are not freed.
pub fn live_peers(subscription: &Value) -> Vec<Value> {
    let peers = subscription["peers"].as_array().cloned().unwrap_or_default();
    peers.into_iter().filter(|peer| peer["state"] != "freed").collect()
}

/// Keys and addresses of the peers that are not freed, by device.
pub fn holdings(subscription: &Value) -> BTreeMap<i64, (String, String)> {
    let of = |peer: &Value| (text(&peer["public_key"]), peer["addresses"].to_string());
    live_peers(subscription).iter().map(|peer| (peer["device"].as_i64().unwrap_or(0), of(peer))).collect()
}

/// Insists that a customer's file opens this peer: its private key belongs to the public one, its address is the peer's.
pub fn opens(file: &str, peer: &Value) {
    let value = |name: &str| {
        let line = file.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        line.unwrap_or_else(|| panic!("the file has a line {name}")).to_owned()
    };
    let private: PrivateKey = value("PrivateKey").parse().expect("a private key");
    assert_eq!(private.public().to_string(), text(&peer["public_key"]), "the file has the key of its peer");
    let addresses = value("Address");
    let first = addresses.split([',', '/']).next().unwrap_or_default();
    assert_eq!(peer["addresses"][0], first, "and its address");
}

/// The end of a subscription's time and when its latest period began, in milliseconds.
pub fn times(subscription: &Value) -> (i64, i64) {
    let latest = subscription["periods"].as_array().and_then(|all| all.last().cloned()).unwrap_or_default();
    (moment(&subscription["paid_until"]), moment(&latest["created_at"]))
}

/// The three places.
impl Stage {
    async fn in_the_database(&self, state: &str) -> Peers {
        let (mut found, mut cursor) = (Peers::new(), String::new());
        loop {
            let page = self.get(&format!("/api/v1/peers?state={state}&limit=200&cursor={cursor}")).await;
            for peer in items(&page) {
                let addresses = peer["addresses"].as_array().cloned().unwrap_or_default();
                let networks = addresses.iter().map(|ip| format!("{}/32", text(ip))).collect();
                found.insert(text(&peer["public_key"]), networks);
            }
            match page.body["next_cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => return found,
            }
        }
    }

    fn on_the_interface(&self) -> Peers {
        let mut printed = fs::read(self.vpn_folder().join("interface")).expect("the interface is there");
        printed.extend(fs::read(self.vpn_folder().join("peers")).expect("its peers are there"));
        let seen = dump::parse(&printed).unwrap_or_else(|error| panic!("the interface shows its peers: {error}"));
        peers_of(seen.peers.into_values())
    }

    /// Insists at rest that database, file and interface have the same peers with the same addresses (N3), that nothing is on its
    /// way, that the file is whole and private, and that the owner's own peer is where it was. Answers the peers.
    pub async fn agreed(&self) -> Peers {
        for state in ["pending", "removing"] {
            assert_eq!(self.in_the_database(state).await, Peers::new(), "no peer is {state} at rest");
        }
        let wanted = self.in_the_database("active").await;
        let path = self.vpn_folder().join("wg0.conf");
        let bytes = fs::read(&path).expect("wg0.conf is there at every moment");
        let conf = Conf::parse(&bytes).unwrap_or_else(|error| panic!("wg0.conf is a whole file: {error}"));
        assert!(conf.whole(), "what stands between our lines is what was written there");
        assert_eq!(peers_of(conf.ours()), wanted, "the file has the peers of the database");
        let owners = Peers::from([(key(99).public().to_string(), BTreeSet::from([FOREIGN.to_owned()]))]);
        assert_eq!(peers_of(conf.foreign()), owners, "the owner's own peer stays in the file");
        assert!(self.conf_text().starts_with("# mine\n") && self.conf_text().contains("PostUp = true # kept\n"));
        let mut there = self.on_the_interface();
        for (key, networks) in &owners {
            assert_eq!(there.remove(key).as_ref(), Some(networks), "the owner's own peer stays on the interface");
        }
        assert_eq!(there, wanted, "the interface has the peers of the database");
        let mode = fs::metadata(&path).expect("wg0.conf is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "only its owner reads wg0.conf");
        let names = fs::read_dir(self.vpn_folder()).expect("the folder of the VPN").flatten();
        let left: Vec<_> =
            names.map(|entry| entry.file_name()).filter(|name| is_left_over(&name.to_string_lossy())).collect();
        assert!(left.is_empty(), "nothing with secrets lies beside it: {left:?}");
        for key in wanted.keys() {
            assert!(key.parse::<PublicKey>().is_ok(), "{key} is a key");
        }
        wanted
    }
}

fn is_left_over(name: &str) -> bool {
    name.starts_with(".wg0.conf.semel-")
}
