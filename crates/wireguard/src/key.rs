//! WireGuard's keys: 32 bytes each, written as 44 characters of base64 (wg(8), "KEY").
//!
//! Randomness is handed in. The text form is read strictly: one spelling per key, so that a key is equal exactly when
//! its text is, and no line break, space or section header gets into a file through a key. Private and preshared keys
//! print nothing of themselves and are wiped when dropped.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

/// The text is no key. It says nothing of the text, which may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a WireGuard key is 44 characters of base64 that end in one `=`, without spaces or line breaks")]
pub struct KeyError;

/// Who a peer is. Not secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

/// What a peer proves itself with. Whoever has it is the peer.
#[derive(Clone)]
pub struct PrivateKey(Zeroizing<[u8; 32]>);

/// A secret that two peers share beside their keys; it keeps today's traffic closed should X25519 fall one day
/// (wg(8), "PresharedKey").
#[derive(Clone)]
pub struct PresharedKey(Zeroizing<[u8; 32]>);

impl PrivateKey {
    /// A key from 32 random bytes, with the five bits set that X25519 fixes anyway (RFC 7748, section 5). `wg genkey`
    /// does the same, so the key reads equal wherever it is shown.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        let mut key = Zeroizing::new(bytes);
        key[0] &= 248;
        key[31] &= 127;
        key[31] |= 64;
        Self(key)
    }

    /// The public key that belongs to it (RFC 7748, section 6.1).
    pub fn public(&self) -> PublicKey {
        let secret = StaticSecret::from(*self.0);
        PublicKey(x25519_dalek::PublicKey::from(&secret).to_bytes())
    }

    /// The text for the customer's file, wiped when dropped.
    pub fn to_base64(&self) -> Zeroizing<String> {
        encode(&self.0)
    }
}

impl PresharedKey {
    /// A key from 32 random bytes: all bits count, as with `wg genpsk`.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The text for both sides' files, wiped when dropped.
    pub fn to_base64(&self) -> Zeroizing<String> {
        encode(&self.0)
    }
}

fn encode(key: &[u8; 32]) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(key))
}

/// Strict: the length first, then the standard alphabet, the padding and no stray bits in the last character.
fn decode(text: &str) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    if text.len() != 44 {
        return Err(KeyError);
    }
    let bytes = Zeroizing::new(STANDARD.decode(text).map_err(|_| KeyError)?);
    if bytes.len() != 32 {
        return Err(KeyError);
    }
    let mut key = Zeroizing::new([0_u8; 32]);
    key.copy_from_slice(&bytes);
    Ok(key)
}

/// Looks at every byte, however early they differ, so that the time taken tells nothing.
fn same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one.iter().zip(other).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Ok(Self(*decode(text)?))
    }
}

impl FromStr for PrivateKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Ok(Self(decode(text)?))
    }
}

impl FromStr for PresharedKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Ok(Self(decode(text)?))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey")
    }
}

impl PartialEq for PrivateKey {
    fn eq(&self, other: &Self) -> bool {
        same(&self.0, &other.0)
    }
}

impl Eq for PrivateKey {}

impl PartialEq for PresharedKey {
    fn eq(&self, other: &Self) -> bool {
        same(&self.0, &other.0)
    }
}

impl Eq for PresharedKey {}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse::<PublicKey>().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use hex::FromHex as _;
    use proptest::prelude::*;
    use serde::de::IntoDeserializer as _;
    use serde::de::value::{Error as ValueError, StrDeserializer};

    use super::*;

    fn bytes(text: &str) -> [u8; 32] {
        <[u8; 32]>::from_hex(text).unwrap()
    }

    #[test]
    fn the_public_key_is_the_one_that_rfc_7748_gives() {
        for (private, public) in [
            (
                "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
                "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
            ),
            (
                "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
                "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
            ),
        ] {
            assert_eq!(PrivateKey::from_random(bytes(private)).public(), PublicKey(bytes(public)));
        }
    }

    #[test]
    fn a_new_private_key_is_written_with_its_fixed_bits_set() {
        let key = PrivateKey::from_random(bytes("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"));
        assert_eq!(key.to_base64().as_str(), "cAdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LGo=");
        assert_eq!(key.public().to_string(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
        let read: PrivateKey = key.to_base64().parse().unwrap();
        assert_eq!(read, key);
        assert_eq!(read.public(), key.public());
    }

    #[test]
    fn secrets_print_nothing_of_themselves() {
        assert_eq!(format!("{:?}", PrivateKey::from_random([7; 32])), "PrivateKey");
        assert_eq!(format!("{:#?}", Some(PresharedKey::from_random([7; 32]))), "Some(\n    PresharedKey,\n)");
        assert!(!KeyError.to_string().contains("Bwc"));
    }

    #[test]
    fn only_the_one_spelling_is_a_key() {
        let right = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
        assert_eq!(right.parse::<PublicKey>(), Ok(PublicKey([7; 32])));
        for wrong in [
            "",
            "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc",
            "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n",
            " BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=",
            "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc==",
            "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBw==", // 31 bytes
            "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH", // 33 bytes
            "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwd=", // stray bits
            "BwcHBwcHBwcHBwcHBwcHBwcH-_cHBwcHBwcHBwcHBwc=", // the alphabet of addresses
            "BwcHBwcHBwcH\n[Peer]\nBwcHBwcHBwcHBwcHBwcHBwc=",
            "0707070707070707070707070707070707070707070707070707070707070707",
            "ключключключключключкл",
        ] {
            assert_eq!(wrong.parse::<PublicKey>(), Err(KeyError), "{wrong:?}");
            assert_eq!(wrong.parse::<PrivateKey>(), Err(KeyError), "{wrong:?}");
            assert_eq!(wrong.parse::<PresharedKey>(), Err(KeyError), "{wrong:?}");
        }
    }

    #[test]
    fn serde_reads_a_public_key_as_strictly() {
        let read = |text: &'static str| {
            let text: StrDeserializer<'static, ValueError> = text.into_deserializer();
            PublicKey::deserialize(text)
        };
        assert_eq!(read("BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=").unwrap(), PublicKey([7; 32]));
        assert!(read("BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes in any::<[u8; 32]>(), other in any::<[u8; 32]>()) {
            let public = PublicKey(bytes);
            prop_assert_eq!(public.to_string().parse::<PublicKey>(), Ok(public));
            let preshared = PresharedKey::from_random(bytes);
            let read: PresharedKey = preshared.to_base64().parse().unwrap();
            prop_assert!(read == preshared);
            prop_assert_eq!(preshared == PresharedKey::from_random(other), bytes == other);
        }

        #[test]
        fn reading_a_key_never_panics(text in "\\PC{0,50}") {
            let _ = text.parse::<PublicKey>();
        }
    }
}
