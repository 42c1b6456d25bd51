//! `semel wg new-key`: another sealing key in place of one that is lost for good.
//!
//! The key comes first, then one transaction that leaves nothing in the database that it does not open. Between the two `semel
//! serve` refuses to start, and the command run once more goes on from there.

use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use semel_kernel::clock::{Chance, Clock};

use crate::app::vpn::sealed_with;
use crate::cli::ask::{Asker, text};
use crate::cli::out;
use crate::local;
use crate::parts;
use crate::settings::{Loaded, Vpn};

/// Devices that have access now.
const CONNECTED: &str = "select count(*) from peers where state in ('pending', 'active')";

/// What becomes of the devices.
#[derive(Args)]
pub struct NewKeyArgs {
    /// Why; stands in your log
    #[arg(long)]
    reason: String,
    /// Devices whose file still works keep it; it cannot be sent again
    #[arg(long)]
    keep_files: bool,
    /// Do it
    #[arg(long)]
    yes: bool,
}

/// Makes the key, and has the devices brought to it.
pub async fn new_key(loaded: Loaded, args: NewKeyArgs) -> anyhow::Result<ExitCode> {
    let settings = loaded.settings;
    let vpn = settings.vpn.clone();
    let vpn = vpn.context("VPN access is not set up on this server: set the [vpn] section of the settings")?;
    if let Some(socket) = local::socket_path(&settings)
        && local::is_running(&socket).await
    {
        bail!("`semel serve` runs, so it has the key that sealed: stop it first if the key's file is lost");
    }
    if let Some(path) = local::missing_database(&settings) {
        bail!("there is no database at {}; run this in the folder of semel.toml, or give --config", path.display());
    }
    let store = parts::open_store(&settings, Clock::system())?;
    let Some(of) = sealed_with(&store).await? else {
        bail!(
            "no customer's key is sealed in this database, so none is lost: `semel serve` begins with the key that it finds"
        )
    };
    let ours = parts::vpn::key_in_place(&vpn)?.map(|key| key.id());
    ensure!(ours.as_deref() != Some(of.as_str()), "the key {of} is in its place and opens everything: nothing is lost");
    if !args.yes {
        let counted = store.rows("vpn.key.count", CONNECTED, &[]).await?;
        let devices: i64 = counted.first().map(|row| row.get::<i64>(0)).transpose()?.unwrap_or(0);
        return out::lines(&before(&vpn, &of, ours.as_deref(), devices, args.keep_files));
    }
    if ours.is_none() {
        parts::vpn::make_missing_key(&vpn, &Chance::system())?;
    }
    let asker = Asker::here(settings, store).await?;
    let wish = json!({ "reason": args.reason, "keep_files": args.keep_files, "dry_run": false });
    let done = asker.post("/api/v1/peers/new-keys", wish).await;
    asker.tell_copies().await;
    out::lines(&after(&vpn, &done?))
}

/// What would be done, for who has not said yes.
fn before(vpn: &Vpn, of: &str, ours: Option<&str>, devices: i64, keep_files: bool) -> String {
    let key = match (ours, &vpn.key_file) {
        (Some(ours), _) => format!("the key {ours}, which is given now, takes its place"),
        (None, Some(path)) => format!("a new one is made in {}", path.display()),
        (None, None) => "the key that is given takes its place".to_owned(),
    };
    let files = match keep_files {
        true => "those whose file works keep it, and it can never be sent again; the others get a new file",
        false => {
            "each gets new keys and a new file, and the file of before stops working; --keep-files lets files work on"
        }
    };
    format!(
        "The customers' keys were sealed with the key {of}. With --yes {key}.\n{devices} devices have access now: {files}.\n\
         Look for a copy of the old key first: with it nothing of this is needed. Nothing was changed"
    )
}

/// What was done.
fn after(vpn: &Vpn, done: &Value) -> String {
    let mut lines = vec![format!("{} devices had keys that nobody can open", text(&done["lost"]))];
    for (name, told) in [
        ("renewed", "get new keys, and a new file once `semel serve` runs"),
        ("kept", "go on with the file that they have; it cannot be sent again"),
        ("freed", "have no access now, and get a new file with their renewal"),
        ("without", "have lost their access, because no address is free: add a network, then freeze and unfreeze them"),
    ] {
        if done[name].as_u64().unwrap_or(0) > 0 {
            lines.push(format!("  {} {told}", text(&done[name])));
        }
    }
    if let Some(path) = &vpn.key_file {
        lines.push(format!("Keep a copy of the new key {} apart from the backups", path.display()));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::settings::load;

    #[test]
    fn what_was_done_is_told_without_what_was_not() {
        let done = json!({ "lost": 3, "renewed": 2, "kept": 0, "freed": 1, "without": 0 });
        let env: BTreeMap<String, String> = [("SEMEL_VPN_HOST".to_owned(), "vpn.example.com".to_owned())].into();
        let loaded = load(Some(Path::new("/dev/null")), &env, &[]).expect("right settings");
        let vpn = loaded.settings.vpn.expect("a VPN");
        let told = after(&vpn, &done);
        assert!(
            told.starts_with("3 devices") && told.contains("  2 get new keys") && told.contains("  1 have no access")
        );
        assert!(!told.contains("lost their access") && !told.contains("go on with"), "{told}");
        assert!(told.contains(".vpn-key apart from the backups"), "{told}");
        let asked = before(&vpn, "0123abcd", None, 3, false);
        assert!(asked.contains("sealed with the key 0123abcd") && asked.ends_with("Nothing was changed"), "{asked}");
    }
}
