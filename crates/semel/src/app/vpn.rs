//! The VPN at start: the right key, and the server as the settings have it.

use std::path::Path;

use semel_kernel::args;
use semel_kernel::store::{Engine, Store, StoreError};
use semel_shop::vpn::servers;
use semel_shop::{Error, Shop};

use crate::settings::Settings;

/// A sealed text begins with its version and the id of the key that sealed it.
const LATEST: &str = "select preshared_key from peers where state <> 'freed' order by id desc limit 1";

/// The id of the key that seals in this database, from the first start on: two copies with different keys would not find out
/// before a customer's file can no longer be made.
const KEY: &str = "select value from marks where name = 'vpn_key'";
const NOTE_KEY: &str = "insert into marks (name, value) values ('vpn_key', $1) on conflict (name) do nothing";
/// The same where nothing is sealed yet and no other copy can be.
const CHANGE_KEY: &str =
    "insert into marks (name, value) values ('vpn_key', $1) on conflict (name) do update set value = excluded.value";
const ANY_SERVER: &str = "select 1 from servers limit 1";

/// Which key sealed the customers' keys that this database has now; none when it has none, or is not made yet.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn sealed_with(store: &Store) -> Result<Option<String>, StoreError> {
    let rows = match store.rows("vpn.key", LATEST, &[]).await {
        Ok(rows) => rows,
        // Before the first start there are no tables.
        Err(StoreError::Statement(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(row) = rows.first() else { return Ok(None) };
    let sealed: String = row.get(0)?;
    Ok(Some(sealed.split('.').nth(1).unwrap_or_default().to_owned()))
}

/// Refuses to go on where the key is made when it is missing, and customers' keys are there that only the lost one opens.
pub(super) async fn refuse_lost_key(settings: &Settings, store: &Store) -> anyhow::Result<()> {
    let Some(path) = settings.vpn.as_ref().and_then(|vpn| vpn.key_file.as_ref()).filter(|path| !path.exists()) else {
        return Ok(());
    };
    match sealed_with(store).await? {
        None => Ok(()),
        Some(of) => Err(anyhow::anyhow!(lost(path, &of))),
    }
}

/// What is wrong when the key of the file at `path` is lost.
pub(crate) fn lost(path: &Path, of: &str) -> String {
    format!(
        "the VPN's key {} is not there, and the keys of VPN customers in this database were sealed with it (it is {of}): put \
         your copy back. No new one is made by itself, because it would open none of them; when the key is lost for good, stop \
         `semel serve` and see what `semel wg new-key --reason REASON` would do",
        path.display()
    )
}

/// Makes the VPN ready, where there is one.
///
/// # Errors
/// [`StoreError::Schema`] when the keys in the database were sealed with another key: nobody's file could be made again, and
/// what is sealed from now on would need both. Also when other copies sell VPN access and this one could not hand it over.
pub(super) async fn begin(shop: &Shop) -> Result<(), Error> {
    let Some(vpn) = &shop.vpn else { return without(shop).await };
    let ours = vpn.sealing.id();
    let sealed_with = sealed_with(&shop.store).await?;
    if let Some(of) = &sealed_with {
        check_key(of, &ours)?;
    }
    let is_first = sealed_with.is_none() && shop.store.engine() == Engine::Sqlite;
    let id = ours.clone();
    let noted: Result<String, StoreError> = shop
        .store
        .write("vpn.key.note", move |tx| {
            tx.execute(if is_first { CHANGE_KEY } else { NOTE_KEY }, args![&id])?;
            tx.one(KEY, &[])?.get(0)
        })
        .await;
    check_key(&noted?, &ours)?;
    if vpn.target.is_some() {
        servers::prepare(shop).await?;
    }
    Ok(())
}

fn check_key(of: &str, ours: &str) -> Result<(), Error> {
    if of == ours {
        return Ok(());
    }
    Err(Error::Store(StoreError::Schema(format!(
        "the keys of VPN customers in this database were sealed with the key {of}, and this one is {ours}: put the right one \
         back (vpn.key, or the file <database>.vpn-key beside the database); when it is lost for good, see what \
         `semel wg new-key --reason REASON` would do"
    ))))
}

/// A copy without the VPN would take payments for access and could not hand it over.
async fn without(shop: &Shop) -> Result<(), Error> {
    if shop.store.engine() == Engine::Sqlite || shop.store.rows("vpn.any", ANY_SERVER, &[]).await?.is_empty() {
        return Ok(());
    }
    Err(Error::Store(StoreError::Schema(
        "other copies on this database sell VPN access, and this one has no [vpn] section: give it the same one, with \
         vpn.apply = \"none\" where another copy applies the server"
            .into(),
    )))
}
