//! A `wg` without a kernel: a script that keeps the peers of one interface in a file, and misbehaves when it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// What a call does: its work, or something worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// What it shall.
    Work,
    /// Nothing, and says so.
    Fail,
    /// Its work, and then says that it failed.
    FailAfter,
    /// Nothing, for ever.
    Hang,
    /// Its work, and then never ends.
    HangAfter,
    /// Nothing, and ends well.
    Lie,
    /// Prints what makes no sense, and ends well.
    Garbage,
}

impl Does {
    const fn word(self) -> &'static str {
        match self {
            Self::Work => "work",
            Self::Fail => "fail",
            Self::FailAfter => "fail_after",
            Self::Hang => "hang",
            Self::HangAfter => "hang_after",
            Self::Lie => "lie",
            Self::Garbage => "garbage",
        }
    }
}

const SCRIPT: &str = r#"#!/bin/sh
here=${0%/*}
echo "$*" >> "$here/calls"
mode=work
[ -f "$here/mode-$1" ] && mode=$(cat "$here/mode-$1")
case "$mode" in
fail) echo "Unable to modify interface: No such device" >&2; exit 1 ;;
hang) exec sleep 600 ;;
lie) exit 0 ;;
garbage) echo "Segmentation fault"; exit 0 ;;
esac
case "$1" in
show)
	cat "$here/interface" "$here/peers" ;;
addconf)
	cat "$3" > "$here/piece.$$"
	awk -f "$here/addconf.awk" "$here/peers" "$here/piece.$$" > "$here/next.$$" && mv "$here/next.$$" "$here/peers"
	rm -f "$here/piece.$$" ;;
set)
	shift 2
	: > "$here/gone.$$"
	while [ $# -gt 2 ]; do
		echo "$2" >> "$here/gone.$$"
		shift 3
	done
	grep -v -F -f "$here/gone.$$" "$here/peers" > "$here/next.$$"
	mv "$here/next.$$" "$here/peers"
	rm -f "$here/gone.$$" ;;
esac
case "$mode" in
fail_after) echo "Connection timed out" >&2; exit 1 ;;
hang_after) exec sleep 600 ;;
esac
exit 0
"#;

/// Peers stay in the order in which they came. As in a kernel, an address has one peer: who gets it last takes it away.
const ADDCONF: &str = r#"
BEGIN { FS = "\t" }
function keep(    was, parts, count, i, holder, rest, left, others) {
	if (key == "") return
	split("", was)
	if (key in line) split(line[key], was, "\t"); else order[++n] = key
	if (psk == "") psk = (2 in was) ? was[2] : "(none)"
	if (psk == "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=") psk = "(none)"
	count = split(allowed, parts, ",")
	for (i = 1; i <= count; i++) {
		holder = owner[parts[i]]
		if (holder != "" && holder != key) take(holder, parts[i])
		owner[parts[i]] = key
	}
	if (allowed == "") allowed = "(none)"
	line[key] = key "\t" psk "\t(none)\t" allowed "\t" number(was, 5) "\t" number(was, 6) "\t" number(was, 7) "\toff"
	key = ""; psk = ""; allowed = ""
}
function number(was, at) { return (at in was) ? was[at] : "0" }
function take(holder, network,    fields, parts, count, i, left) {
	split(line[holder], fields, "\t")
	count = split(fields[4], parts, ",")
	left = ""
	for (i = 1; i <= count; i++) if (parts[i] != network) left = left (left == "" ? "" : ",") parts[i]
	if (left == "") left = "(none)"
	line[holder] = fields[1] "\t" fields[2] "\t" fields[3] "\t" left "\t" fields[5] "\t" fields[6] "\t" fields[7] "\t" fields[8]
}
FILENAME == ARGV[1] {
	line[$1] = $0
	order[++n] = $1
	count = split($4, networks, ",")
	for (i = 1; i <= count; i++) owner[networks[i]] = $1
	next
}
/^\[Peer\]/ { keep(); next }
/^PublicKey = / { key = substr($0, 13); next }
/^PresharedKey = / { psk = substr($0, 16); next }
/^AllowedIPs = / { allowed = substr($0, 14); gsub(/ /, "", allowed); next }
END { keep(); for (i = 1; i <= n; i++) print line[order[i]] }
"#;

/// The networks of each peer, by its public key.
pub type Peers = BTreeMap<String, BTreeSet<String>>;

/// The tool and its interface.
pub struct FakeWg {
    folder: PathBuf,
    /// Keys that a person put on the interface.
    by_hand: Mutex<BTreeSet<String>>,
}

impl FakeWg {
    /// A tool in `folder` for an interface with this public key and no peers.
    pub fn new(folder: &Path, public_key: &str) -> FakeWg {
        let wg = FakeWg { folder: folder.join("tool"), by_hand: Mutex::default() };
        fs::create_dir(&wg.folder).unwrap();
        wg.write("script", SCRIPT);
        wg.write("addconf.awk", ADDCONF);
        wg.write("interface", &format!("(none)\t{public_key}\t51820\toff\n"));
        wg.write("peers", "");
        wg.write("calls", "");
        // Another program writes the one that is run: a file that a child of a neighbouring test still holds open for
        // writing cannot be run.
        let copied = Command::new("cp").arg(wg.path("script")).arg(wg.program()).status().unwrap();
        let made = Command::new("chmod").arg("700").arg(wg.program()).status().unwrap();
        assert!(copied.success() && made.success());
        wg
    }

    /// The program.
    pub fn program(&self) -> PathBuf {
        self.path("wg")
    }

    /// From now on calls with this verb (`show`, `addconf` or `set`) do this.
    pub fn does(&self, verb: &str, what: Does) {
        self.write(&format!("mode-{verb}"), what.word());
    }

    /// The arguments of each call so far that began with `verb`.
    pub fn calls(&self, verb: &str) -> Vec<String> {
        self.read("calls").lines().filter(|line| line.starts_with(verb)).map(str::to_owned).collect()
    }

    /// What the interface has, without what a person put there.
    pub fn peers(&self) -> Peers {
        let by_hand = self.by_hand.lock().unwrap();
        let mut peers = self.everybody();
        peers.retain(|key, _| !by_hand.contains(key));
        peers
    }

    /// Whether the interface has this peer, whoever put it there.
    pub fn has(&self, key: &str) -> bool {
        self.everybody().contains_key(key)
    }

    fn everybody(&self) -> Peers {
        let text = self.read("peers");
        let peer = |line: &str| {
            let fields: Vec<&str> = line.split('\t').collect();
            let networks: BTreeSet<String> =
                fields[3].split(',').filter(|network| *network != "(none)").map(str::to_owned).collect();
            (fields[0].to_owned(), networks)
        };
        text.lines().map(peer).collect()
    }

    /// A peer's preshared key; empty when it has none.
    pub fn preshared(&self, key: &str) -> String {
        let text = self.read("peers");
        let found = text.lines().find(|line| line.starts_with(key)).and_then(|line| line.split('\t').nth(1));
        found.filter(|preshared| *preshared != "(none)").unwrap_or_default().to_owned()
    }

    /// Somebody at the keyboard adds a peer.
    pub fn add_by_hand(&self, key: &str, network: &str) {
        self.by_hand.lock().unwrap().insert(key.to_owned());
        let line = format!("{key}\t(none)\t(none)\t{network}\t0\t0\t0\toff\n");
        self.replace(&(self.read("peers") + &line));
    }

    /// Somebody at the keyboard takes a peer away.
    pub fn remove_by_hand(&self, key: &str) {
        let text = self.read("peers");
        let left: Vec<String> =
            text.lines().filter(|line| !line.starts_with(key)).map(|line| format!("{line}\n")).collect();
        self.replace(&left.concat());
    }

    /// A peer's last handshake in seconds since 1970, and the bytes that went both ways.
    pub fn count(&self, key: &str, handshake: i64, received: u64, sent: u64) {
        let text = self.read("peers");
        let counted = |line: &str| {
            let fields: Vec<&str> = line.split('\t').collect();
            if fields[0] != key {
                return format!("{line}\n");
            }
            format!("{}\t{handshake}\t{received}\t{sent}\toff\n", fields[..4].join("\t"))
        };
        assert!(self.has(key), "the interface has {key}");
        let lines: Vec<String> = text.lines().map(counted).collect();
        self.replace(&lines.concat());
    }

    /// In one step, as the script does it.
    fn replace(&self, peers: &str) {
        self.write("next", peers);
        fs::rename(self.path("next"), self.path("peers")).unwrap();
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}
