//! What must be true of every disk after a power cut.
//!
//! Beside the database lies the file of the VPN server, which is replaced by a renaming: it is one whole version, older or newer,
//! and names no customer whom the database does not know. Of a campaign the database knows at least of each message that Telegram
//! took that it had been begun: so nobody gets it once more.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use semel::ROOMS;
use semel_kernel::clock::{Clock, Time};
use semel_kernel::store::migrate::migrate;
use semel_shop::audit::{self, Parameters};

use super::disk::Image;
use super::record::CONF;
use crate::syscalls::conf;
use crate::syscalls::ground::{broken, integrity, open, texts};
use crate::syscalls::shim::Acknowledged;

/// What was found on one disk.
#[derive(Debug, Default)]
pub struct Found {
    /// Acknowledged things that were looked for.
    pub looked_for: usize,
    /// Those that are not there.
    pub lost: Vec<String>,
    /// Why the file is not what a database should be.
    pub corrupt: Vec<String>,
    /// Promises that are broken.
    pub broken: Vec<String>,
    /// What is wrong with the VPN server's file.
    pub torn: Vec<String>,
    /// Customers' peers in it.
    pub peers: usize,
}

/// Writes the image into `folder`, opens it as the program does, and looks. The folder is removed.
pub async fn check(image: Image, folder: &Path, acknowledged: &[Acknowledged], now: Time) -> Found {
    let mut found = Found { looked_for: acknowledged.len(), ..Found::default() };
    match image.write(folder) {
        Ok(()) => look(folder, acknowledged, now, &mut found).await,
        Err(error) => found.corrupt.push(format!("the image cannot be written: {error}")),
    }
    // A connection that closes at this very moment may make a file anew; the campaign's folder goes at its end.
    let _ = fs::remove_dir_all(folder);
    found
}

async fn look(folder: &Path, acknowledged: &[Acknowledged], now: Time, found: &mut Found) {
    let store = match open(&folder.join("semel.db"), Clock::manual(now)) {
        Ok(store) => store,
        Err(error) => return found.corrupt.push(error),
    };
    found.corrupt.extend(integrity(&store).await);
    // The cut may have come before the tables were made; the next start makes them.
    if let Err(error) = migrate(&store, ROOMS).await {
        return found.corrupt.push(format!("the schema cannot be brought up to date: {error}"));
    }
    let orders: BTreeSet<String> = texts(&store, "select order_id from audit_order").await.into_iter().collect();
    let hooks = "select provider || ' ' || event_id from audit_inbox";
    let hooks: BTreeSet<String> = texts(&store, hooks).await.into_iter().collect();
    let begun = "select campaign || ':' || chat_id from recipients where state <> 'queued'";
    let begun: BTreeSet<String> = texts(&store, begun).await.into_iter().collect();
    for one in acknowledged {
        let (there, name) = match one {
            Acknowledged::Order(id) => (orders.contains(id), format!("order {id}")),
            Acknowledged::Hook { provider, event } => {
                (hooks.contains(&format!("{provider} {event}")), format!("webhook {event} of {provider}"))
            }
            Acknowledged::News(id) => (begun.contains(id), format!("the beginning of message {id}")),
        };
        if !there {
            found.lost.push(name);
        }
    }
    let known = texts(&store, "select public_key from peers").await.into_iter().collect();
    look_at_file(folder, &known, found);
    // Nobody runs here: a claim of the program that was cut off is no zombie's.
    let parameters = Parameters { lease: 24 * 3_600_000, ..Parameters::default() };
    match audit::verify(&store, parameters, false).await {
        Ok(verdicts) => found.broken.extend(broken(&verdicts)),
        Err(error) => found.corrupt.push(format!("the audit cannot ask: {error}")),
    }
}

fn look_at_file(folder: &Path, known: &BTreeSet<String>, found: &mut Found) {
    let bytes = match fs::read(folder.join(CONF)) {
        Ok(bytes) => bytes,
        Err(error) => return found.torn.push(format!("{CONF} cannot be read: {error}")),
    };
    match conf::whole(bytes) {
        Ok(keys) => {
            found.peers = keys.len();
            let strangers = keys.difference(known);
            found.torn.extend(strangers.map(|key| format!("{CONF} names {key}, which the database does not know")));
        }
        Err(wrong) => found.torn.push(format!("{CONF}: {wrong}")),
    }
}
