//! The VPN at start: the right key, and the server as the settings have it.

use semel_kernel::args;
use semel_kernel::store::{Engine, StoreError};
use semel_shop::vpn::servers;
use semel_shop::{Error, Shop};

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

/// Makes the VPN ready, where there is one.
///
/// # Errors
/// [`StoreError::Schema`] when the keys in the database were sealed with another key: nobody's file could be made again, and
/// what is sealed from now on would need both. Also when other copies sell VPN access and this one could not hand it over.
pub(super) async fn begin(shop: &Shop) -> Result<(), Error> {
    let Some(vpn) = &shop.vpn else { return without(shop).await };
    let ours = vpn.sealing.id();
    let rows = shop.store.rows("vpn.key", LATEST, &[]).await?;
    if let Some(row) = rows.first() {
        let sealed: String = row.get(0)?;
        check_key(sealed.split('.').nth(1).unwrap_or_default(), &ours)?;
    }
    let is_first = rows.is_empty() && shop.store.engine() == Engine::Sqlite;
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
         back (vpn.key, or the file <database>.vpn-key beside the database)"
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
