//! Secrets at rest: sealed under a key that stands outside the database.
//!
//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha): its nonce is long enough to be drawn at random for each secret. What a
//! secret is about (the peer's id) is authenticated with it, so a sealed text that was moved to another row does not
//! open there. The stored text is `v1.<key id, 8 hex>.<base64 of nonce and ciphertext>`; the key's id in front tells a
//! wrong key from a broken text.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead as _, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

const VERSION: &str = "v1";
const NONCE: usize = 24;

/// Why a sealed text does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Another key sealed it: the program was given the wrong one, or an older one is still in use.
    #[error("sealed by the key {sealed_by}, but the key at hand is {ours}")]
    WrongKey {
        /// Id of the key that sealed it, as the text says.
        sealed_by: String,
        /// Id of the key at hand.
        ours: String,
    },
    /// Not a sealed text, or changed, cut, or sealed for something else.
    #[error("the sealed text is damaged, or belongs to something else")]
    Broken,
}

/// The key that secrets are sealed under: 32 bytes, never in the database. Wiped when dropped.
#[derive(Clone)]
pub struct SealingKey {
    key: Zeroizing<[u8; 32]>,
}

impl SealingKey {
    /// The key itself, as the settings hold it. All 32 bytes must be random.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self { key: Zeroizing::new(bytes) }
    }

    /// Which key this is: 8 hex digits of a hash of it. Safe to store and to print.
    pub fn id(&self) -> String {
        let hash = Sha256::new_with_prefix(b"semel sealing key id").chain_update(self.key.as_slice()).finalize();
        hex::encode(&hash[..4])
    }

    /// Seals `secret` for the thing that `about` names. `nonce` is 24 random bytes that were never used with this key
    /// before: a second secret under the same nonce would open both.
    pub fn seal(&self, nonce: [u8; NONCE], about: &str, secret: &[u8]) -> String {
        let id = self.id();
        let aad = bound_to(&id, about);
        let payload = Payload { msg: secret, aad: &aad };
        let ciphertext = self
            .cipher()
            .encrypt(&XNonce::from(nonce), payload)
            .expect("a secret in memory is shorter than the 256 GiB that the cipher takes");
        let mut bytes = Vec::with_capacity(NONCE + ciphertext.len());
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&ciphertext);
        format!("{VERSION}.{id}.{}", STANDARD.encode(&bytes))
    }

    /// Opens what `seal` made for the same `about`. The secret is wiped when dropped.
    ///
    /// # Errors
    /// `WrongKey` when another key sealed it, `Broken` for everything else that is not exactly what was sealed.
    pub fn open(&self, about: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let ours = self.id();
        let (sealed_by, body) = parts(sealed).ok_or(SealError::Broken)?;
        if sealed_by != ours {
            return Err(SealError::WrongKey { sealed_by: sealed_by.to_owned(), ours });
        }
        let bytes = STANDARD.decode(body).map_err(|_| SealError::Broken)?;
        let (nonce, ciphertext) = bytes.split_first_chunk::<NONCE>().ok_or(SealError::Broken)?;
        let aad = bound_to(&ours, about);
        let payload = Payload { msg: ciphertext, aad: &aad };
        let secret = self.cipher().decrypt(&XNonce::from(*nonce), payload).map_err(|_| SealError::Broken)?;
        Ok(Zeroizing::new(secret))
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        let key: &[u8; 32] = &self.key;
        <XChaCha20Poly1305 as KeyInit>::new(key.into())
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({})", self.id())
    }
}

/// What is authenticated beside the secret: the text's own head, too, so no part of it can be exchanged.
fn bound_to(id: &str, about: &str) -> Vec<u8> {
    format!("{VERSION}.{id}.{about}").into_bytes()
}

/// The key's id and the body of a sealed text. None if it is not of that form.
fn parts(sealed: &str) -> Option<(&str, &str)> {
    let (version, rest) = sealed.split_once('.')?;
    let (id, body) = rest.split_once('.')?;
    let id_is_hex = id.len() == 8 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (version == VERSION && id_is_hex).then_some((id, body))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counting_key() -> SealingKey {
        SealingKey::from_bytes(std::array::from_fn(|n| n as u8))
    }

    /// Made by another implementation (HChaCha20 by hand, ChaCha20-Poly1305 of OpenSSL). Rows hold texts like this one:
    /// a version of the program that cannot read it cannot read its database.
    const STORED: &str = "v1.3f3b4e48.CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJdABHGt89Y8hiaNU+fRf6O7xZqjNwRT5n";

    #[test]
    fn the_stored_form_stays_readable() {
        let key = counting_key();
        assert_eq!(key.seal([9; 24], "peer_1", b"a secret"), STORED);
        assert_eq!(key.open("peer_1", STORED).unwrap().as_slice(), b"a secret");
    }

    #[test]
    fn a_secret_opens_for_its_own_peer_only() {
        assert_eq!(counting_key().open("peer_2", STORED), Err(SealError::Broken));
        assert_eq!(counting_key().open("", STORED), Err(SealError::Broken));
        let sealed = counting_key().seal([7; NONCE], "peer_1", b"secret");
        assert_eq!(*counting_key().open("peer_1", &sealed).unwrap(), b"secret");
        assert_eq!(counting_key().open("peer_2", &sealed), Err(SealError::Broken));
    }

    #[test]
    fn a_wrong_key_is_named_and_not_called_damage() {
        let other = SealingKey::from_bytes([1; 32]);
        assert_eq!(
            other.open("peer_1", STORED),
            Err(SealError::WrongKey { sealed_by: "3f3b4e48".to_owned(), ours: "6fdd84d6".to_owned() })
        );
        // Its name put in front of the text does not help it.
        let renamed = STORED.replace("3f3b4e48", &other.id());
        assert_eq!(other.open("peer_1", &renamed), Err(SealError::Broken));
    }

    #[test]
    fn what_is_no_sealed_text_is_broken() {
        for text in [
            "",
            "v1",
            "v1.3f3b4e48",
            "v1.3f3b4e48.",
            "v1.3f3b4e48.CQkJ",
            "v1.3f3b4e48.CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJ",
            "v1.3f3b4e48.!!!!",
            "v1.3F3B4E48.CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJdABHGt89Y8hiaNU+fRf6O7xZqjNwRT5n",
            "v2.3f3b4e48.CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJdABHGt89Y8hiaNU+fRf6O7xZqjNwRT5n",
            "v1.3f3b4e48.CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJdABHGt89Y8hiaNU+fRf6O7xZqjNwRT5n.",
            "v1.ключ.CQkJ",
        ] {
            assert_eq!(counting_key().open("peer_1", text), Err(SealError::Broken), "{text:?}");
        }
    }

    #[test]
    fn the_key_prints_its_id_only() {
        assert_eq!(format!("{:?}", counting_key()), "SealingKey(3f3b4e48)");
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_for_the_same_thing_and_for_no_other(
            key in any::<[u8; 32]>(),
            nonce in any::<[u8; 24]>(),
            secret in prop::collection::vec(any::<u8>(), 0..100),
            about in "\\PC{0,20}",
            other in "\\PC{0,20}",
        ) {
            let key = SealingKey::from_bytes(key);
            let sealed = key.seal(nonce, &about, &secret);
            let opened = key.open(&about, &sealed).unwrap();
            prop_assert_eq!(opened.as_slice(), secret.as_slice());
            if other != about {
                prop_assert_eq!(key.open(&other, &sealed), Err(SealError::Broken));
            }
        }

        #[test]
        fn a_changed_byte_never_opens(at in 0_usize..48, bit in 0_u32..8) {
            let key = counting_key();
            let mut bytes = STANDARD.decode(STORED.rsplit('.').next().unwrap()).unwrap();
            bytes[at] ^= 1 << bit;
            let changed = format!("v1.{}.{}", key.id(), STANDARD.encode(&bytes));
            prop_assert_eq!(key.open("peer_1", &changed), Err(SealError::Broken));
        }

        #[test]
        fn opening_never_panics(text in "\\PC{0,80}") {
            prop_assert!(counting_key().open("peer_1", &text).is_err());
        }
    }
}
