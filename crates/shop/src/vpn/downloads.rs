//! Links that give one file once, for who cannot take it in the chat.
//!
//! The link holds 32 random bytes, of which only the hash is kept. Who uses it first gets the file; the second one, and
//! everybody after a day, gets nothing.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::store::{Expect, Tx};

use super::{Form, PeerId, files, peers, sql};
use crate::{Error, Shop};

/// How long a link works.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How long a link that has ended is remembered.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3600);

/// A new link.
#[derive(Clone)]
pub struct Link {
    /// What goes into the address: 43 letters, digits, `-` and `_`. It is not kept, so it is told this once.
    pub token: Zeroizing<String>,
    /// Until when it works.
    pub expires_at: Time,
}

/// Makes a link that gives the file of `peer` once.
///
/// # Errors
/// As [`files::client_file`]: a link to a file that cannot be made is refused now, not when it is used.
pub fn create(tx: &mut Tx, shop: &Shop, peer: &PeerId, form: Form) -> Result<Link, Error> {
    peers::find(tx, peer)?;
    files::client_file(tx, shop, peer, form)?;
    let now = tx.now();
    let token = Zeroizing::new(URL_SAFE_NO_PAD.encode(shop.chance.bytes::<32>()));
    let expires_at = now + LIFETIME;
    tx.later(sql::OLD_DOWNLOADS, args![now - REMEMBERED], Expect::Any)?;
    tx.later(sql::ADD_DOWNLOAD, args![hash(&token), peer, form.as_str(), expires_at, now], Expect::Rows(1))?;
    Ok(Link { token, expires_at })
}

/// The file of a link, which works no more from here on. If the file cannot be made, the transaction fails, and the link
/// still works.
///
/// # Errors
/// [`Error::NotFound`] when there is no such link, or it was used, or its time is over: nobody is told which.
pub fn take(tx: &mut Tx, shop: &Shop, token: &str) -> Result<files::ClientText, Error> {
    let now = tx.now();
    let row = tx.first(sql::USE_DOWNLOAD, args![hash(token), now])?;
    let row = row.ok_or_else(|| Error::missing("link", "of this address, or it was used already"))?;
    let peer: PeerId = row.get(0)?;
    files::client_file(tx, shop, &peer, row.get(1)?)
}

/// Whether a link still gives its file. Looking uses nothing up.
///
/// # Errors
/// What the store says.
pub fn works(tx: &mut Tx, token: &str) -> Result<bool, Error> {
    let now = tx.now();
    Ok(tx.first(sql::WORKING_DOWNLOAD, args![hash(token), now])?.is_some())
}

fn hash(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_of_a_link_does_not_open_it() {
        let hashed = hash("token");
        assert_eq!(hashed.len(), 64);
        assert_ne!(hash(&hashed), hashed);
        assert_ne!(hash("token "), hashed);
    }
}
