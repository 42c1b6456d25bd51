//! What must be true of every disk after a power cut.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use semel::ROOMS;
use semel_kernel::clock::{Clock, Time};
use semel_kernel::store::migrate::migrate;
use semel_shop::audit::{self, Parameters};

use super::disk::Image;
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
    for one in acknowledged {
        let (there, name) = match one {
            Acknowledged::Order(id) => (orders.contains(id), format!("order {id}")),
            Acknowledged::Hook { provider, event } => {
                (hooks.contains(&format!("{provider} {event}")), format!("webhook {event} of {provider}"))
            }
        };
        if !there {
            found.lost.push(name);
        }
    }
    // Nobody runs here: a claim of the program that was cut off is no zombie's.
    let parameters = Parameters { lease: 24 * 3_600_000, ..Parameters::default() };
    match audit::verify(&store, parameters, false).await {
        Ok(verdicts) => found.broken.extend(broken(&verdicts)),
        Err(error) => found.corrupt.push(format!("the audit cannot ask: {error}")),
    }
}
