//! A small internet: a server's network namespace, one for each customer, a cable between them, and userspace WireGuard.
//!
//! Names carry this process's number and are used once, everything is taken away at the end, and each step is bounded in
//! time. What a killed test left behind is taken away by the next one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::process::program::{Patience, Process};

/// Where the server is reached, from each customer. The block is for tests between networks (RFC 2544).
pub const SERVER: &str = "198.18.0.1";

const SPACE: &str = "semel-story";
/// Where WireGuard's programs meet (wireguard-go's `ipc` and `wg` agree on it).
const SOCKETS: &str = "/var/run/wireguard";

/// Runs a program to its end, 20 s at most; answers what it printed.
pub fn tried(words: &[&str]) -> Result<String, String> {
    let mut command = Command::new("timeout");
    command.args(["-k", "1", "20"]).args(words);
    let said = command.output().map_err(|error| format!("timeout cannot be run: {error}"))?;
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    if said.status.success() { Ok(out.into_owned()) } else { Err(format!("`{}`: {out}{err}", words.join(" "))) }
}

/// The same, which must go well.
#[track_caller]
pub fn done(words: &[&str]) -> String {
    tried(words).unwrap_or_else(|error| panic!("{error}"))
}

/// Fails with a sentence where there cannot be such an internet.
pub fn needed() {
    let missing: Vec<&str> = ["ip", "wg", "wg-quick", "wireguard-go", "ping", "timeout", "setpriv"]
        .into_iter()
        .filter(|program| tried(&["sh", "-c", &format!("command -v {program}")]).is_err())
        .collect();
    assert!(
        missing.is_empty(),
        "this story connects with WireGuard and misses {}: run ./test as root, which installs them, or install the packages \
         wireguard-tools wireguard-go iproute2 iputils-ping util-linux",
        missing.join(", ")
    );
    assert!(
        tried(&["id", "-u"]).is_ok_and(|user| user.trim() == "0"),
        "this story makes network namespaces, which only root may: run ./test as root"
    );
    assert!(
        Path::new("/dev/net/tun").exists(),
        "this story needs /dev/net/tun: load the module tun, or give the container that device and CAP_NET_ADMIN"
    );
}

/// A device of userspace WireGuard.
struct Device {
    name: String,
    /// It dies with this, and with the thread that started it.
    process: Option<Process>,
}

/// The namespaces and devices of one story.
pub struct Net {
    tag: String,
    folder: PathBuf,
    spaces: Vec<String>,
    devices: Vec<Device>,
}

impl Net {
    /// A server and so many customers, each with a cable to it. Its files lie in `folder`.
    pub fn new(folder: &Path, customers: usize) -> Net {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        sweep();
        let (pid, number) = (std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let tag = format!("s{pid}x{number}");
        let mut net = Net { tag, folder: folder.to_owned(), spaces: Vec::new(), devices: Vec::new() };
        for member in 0..=customers {
            let space = format!("{SPACE}-{pid}-{number}-{member}");
            done(&["ip", "netns", "add", &space]);
            net.spaces.push(space.clone());
            done(&["ip", "-n", &space, "link", "set", "lo", "up"]);
            if member > 0 {
                net.cable(&space, member);
            }
        }
        net
    }

    /// The server has one address on all cables, so that all customers know it by the same one.
    fn cable(&self, space: &str, member: usize) {
        let (server, here, there) = (self.server(), format!("{}s{member}", self.tag), format!("{}c{member}", self.tag));
        let address = format!("198.18.0.{}", member + 1);
        done(&["ip", "-n", server, "link", "add", &here, "type", "veth", "peer", "name", &there, "netns", space]);
        let (to_them, to_us) = (format!("{address}/32"), format!("{SERVER}/32"));
        done(&["ip", "-n", server, "addr", "add", SERVER, "peer", &to_them, "dev", &here]);
        done(&["ip", "-n", space, "addr", "add", &address, "peer", &to_us, "dev", &there]);
        done(&["ip", "-n", server, "link", "set", &here, "up"]);
        done(&["ip", "-n", space, "link", "set", &there, "up"]);
    }

    /// The server's namespace.
    pub fn server(&self) -> &str {
        &self.spaces[0]
    }

    /// The namespace of a customer, from 1.
    pub fn customer(&self, member: usize) -> &str {
        &self.spaces[member]
    }

    /// Whether these namespaces speak IPv6.
    pub fn speaks_ipv6(&self) -> bool {
        let off = "/proc/sys/net/ipv6/conf/all/disable_ipv6";
        self.spaces
            .iter()
            .all(|space| tried(&["ip", "netns", "exec", space, "cat", off]).is_ok_and(|word| word.trim() == "0"))
    }

    /// The name that a device of this story has, at most 15 characters.
    pub fn device(&self, which: &str) -> String {
        format!("{}{which}", self.tag)
    }

    /// Brings the device `name` up in `space` as this file says, in the way of `wg-quick up`, without what that does to
    /// routes and name servers. The file's own name must be one that wg-quick takes.
    pub async fn up(&mut self, space: &str, name: &str, file: &Path, routes: &[&str]) {
        let path = file.to_string_lossy();
        let plain = self.folder.join(format!("{name}.plain"));
        crate::process::program::write_private(&plain, &done(&["wg-quick", "strip", &path]));

        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "ip", "netns", "exec", space, "wireguard-go", "-f", name]);
        command.env("LOG_LEVEL", "error");
        let process = Process::start(command, &self.folder);
        self.devices.push(Device { name: name.to_owned(), process: Some(process) });
        let patience = Patience::of(format!("the device {name} is there"), 30);
        while tried(&["wg", "show", name]).is_err() || tried(&["ip", "-n", space, "link", "show", name]).is_err() {
            patience.wait().await;
        }
        done(&["wg", "setconf", name, &plain.to_string_lossy()]);
        let text = fs::read_to_string(file).expect("the file is text");
        let addresses = text.lines().find_map(|line| line.strip_prefix("Address = ")).expect("the file has an address");
        for address in addresses.split(", ") {
            done(&["ip", "-n", space, "addr", "add", address, "dev", name]);
        }
        done(&["ip", "-n", space, "link", "set", name, "mtu", "1420", "up"]);
        for route in routes {
            done(&["ip", "-n", space, "route", "replace", route, "dev", name]);
        }
    }

    /// Whether one packet there is answered within a second.
    pub fn answers(&self, space: &str, address: &str) -> bool {
        tried(&["ip", "netns", "exec", space, "ping", "-n", "-c", "1", "-W", "1", address]).is_ok()
    }

    /// Waits until packets are answered.
    pub async fn reaches(&self, space: &str, address: &str) {
        let patience = Patience::of(format!("{address} answers through the tunnel in {space}"), 30);
        while !self.answers(space, address) {
            patience.wait().await;
        }
    }

    /// Asks an address ten times a second until [`Stream::end`]; five minutes at most, whatever becomes of this story.
    pub fn stream(&self, space: &str, address: &str) -> Stream {
        let mut command = Command::new("setpriv");
        command.args([
            "--pdeathsig",
            "KILL",
            "--",
            "ip",
            "netns",
            "exec",
            space,
            "ping",
            "-n",
            "-i",
            "0.1",
            "-w",
            "300",
            address,
        ]);
        command.env("LC_ALL", "C");
        Stream { process: Process::start(command, &self.folder) }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for device in &mut self.devices {
            // It removes its interface by dying, and not its socket.
            drop(device.process.take());
            let _ = fs::remove_file(format!("{SOCKETS}/{}.sock", device.name));
        }
        for space in &self.spaces {
            if let Err(error) = tried(&["ip", "netns", "del", space]) {
                eprintln!("{error}");
            }
        }
    }
}

/// Takes the namespaces of tests away that were killed. Their processes died with them.
fn sweep() {
    let listed = tried(&["ip", "netns", "list"]).unwrap_or_default();
    for space in listed.lines().filter_map(|line| line.split_whitespace().next()) {
        let owner = space.strip_prefix(SPACE).and_then(|rest| rest.trim_start_matches('-').split('-').next());
        if owner.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = tried(&["ip", "netns", "del", space]);
        }
    }
}

/// Packets that go through a tunnel all the time.
pub struct Stream {
    process: Process,
}

impl Stream {
    /// How many were answered so far.
    pub fn answered(&self) -> usize {
        sequence(&self.process.said()).len()
    }

    /// Stops, and insists that at least `least` went and each was answered; the last one may still be on its way.
    pub async fn end(mut self, least: u32) {
        let pid = self.process.pid().to_string();
        done(&["kill", "-INT", &pid]);
        self.process.wait_exit(60).await;
        let said = self.process.said();
        let sent = said.lines().find_map(|line| line.split_once(" packets transmitted"));
        let sent = sent.and_then(|(count, _)| count.trim().parse::<u32>().ok());
        let sent = sent.unwrap_or_else(|| panic!("ping does not say how many packets it sent:\n{said}"));
        let answered = sequence(&said);
        let lost: Vec<u32> = (1..sent).filter(|number| !answered.contains(number)).collect();
        assert!(lost.is_empty(), "of {sent} packets these were lost: {lost:?}\n{said}");
        assert!(sent >= least, "only {sent} packets went, which proves little");
    }
}

/// The numbers of the packets that were answered.
fn sequence(said: &str) -> Vec<u32> {
    let number = |line: &str| {
        let (_, rest) = line.split_once("icmp_seq=")?;
        let (number, rest) = rest.split_once(' ')?;
        if rest.contains("time=") { number.parse().ok() } else { None }
    };
    said.lines().filter_map(number).collect()
}
