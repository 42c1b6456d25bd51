//! VPN access with the real program: killed on the way, asked by its owner at the command line, and connected to.

mod command_line;
mod fake;
mod full_disk;
mod kill;
mod lost_key;
mod moving_house;
mod net;
mod tunnel;
mod two_hands;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use semel_wireguard::{Conf, PublicKey};

use super::program::{OWN_CONF, Program, items, text};

/// The keys that a place has, each with its addresses.
type Keys = BTreeMap<String, BTreeSet<String>>;

/// The configuration file as it is now: one whole version, private, with the owner's own lines as they were.
fn whole(file: &Path) -> Result<Conf, String> {
    let bytes = fs::read(file).map_err(|error| format!("the file cannot be read: {error}"))?;
    let mode = fs::metadata(file).map_err(|error| format!("the file is not there: {error}"))?.permissions().mode();
    if mode & 0o777 != 0o600 {
        return Err(format!("the file has the mode {mode:o}"));
    }
    if !bytes.starts_with(OWN_CONF.as_bytes()) {
        return Err("the owner's own lines are not as they were".to_owned());
    }
    let conf = Conf::parse(&bytes).map_err(|error| format!("the file cannot be understood: {error}"))?;
    if conf.whole() { Ok(conf) } else { Err("what stands between the fence lines is not what was written".to_owned()) }
}

/// The peers of a configuration file that are ours.
fn in_file(file: &Path) -> Keys {
    let conf = whole(file).unwrap_or_else(|wrong| panic!("{}: {wrong}", file.display()));
    let mut keys = Keys::new();
    for peer in conf.ours() {
        let addresses = peer.allowed.iter().map(|network| network.addr().to_string()).collect();
        keys.insert(peer.public_key.to_string(), addresses);
    }
    keys
}

/// The peers that the database wants on the server.
async fn wanted(program: &Program) -> Keys {
    let mut keys = Keys::new();
    for state in ["pending", "active"] {
        let listed = program.door.get(&format!("/api/v1/peers?server=local&state={state}&limit=200")).await;
        for peer in items(&listed) {
            let addresses = peer["addresses"].as_array().into_iter().flatten().map(text).collect();
            keys.insert(text(&peer["public_key"]), addresses);
        }
    }
    keys
}

/// The public key of the device that a customer's file is for.
fn key_of(client: &str) -> PublicKey {
    let line = client.lines().find_map(|line| line.strip_prefix("PrivateKey = "));
    let key = line.unwrap_or_else(|| panic!("a file without a key:\n{client}"));
    let key: semel_wireguard::PrivateKey = key.parse().expect("a private key");
    key.public()
}

/// Reads a configuration file all the time, as somebody else may at any moment, and keeps what was wrong with it.
struct Watch {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<BTreeSet<String>>>,
}

impl Watch {
    /// Watches `file` from now on.
    fn over(file: PathBuf) -> Watch {
        let over = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let mut wrong = BTreeSet::new();
            while !end.load(Ordering::SeqCst) {
                wrong.extend(whole(&file).err());
                thread::sleep(Duration::from_millis(1));
            }
            wrong
        });
        Watch { over, thread: Some(thread) }
    }

    /// Insists that the file was whole whenever it was read.
    #[track_caller]
    fn end(mut self, when: &str) {
        self.over.store(true, Ordering::SeqCst);
        let wrong = self.thread.take().map(|thread| thread.join().expect("somebody reads")).unwrap_or_default();
        assert!(wrong.is_empty(), "{when} the file was once not whole: {wrong:?}");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}
