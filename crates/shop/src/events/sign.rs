//! Signatures after Standard Webhooks (<https://www.standardwebhooks.com>), symmetric, version 1.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The header `webhook-signature` for these bytes: `v1,` and the base64 of HMAC-SHA-256 over `id.timestamp.body`.
/// `timestamp` is the moment of the try in whole seconds.
pub fn sign(key: &[u8], id: &str, timestamp: i64, body: &[u8]) -> String {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

/// The key's bytes from a secret as people write it: base64, with `whsec_` before it. Nothing when it is not that.
pub fn key(secret: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(secret.strip_prefix("whsec_")?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const AT: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;

    #[test]
    fn the_example_of_the_specification_comes_out() {
        let key = key(SECRET).expect("a secret");
        assert_eq!(key.len(), 24);
        assert_eq!(sign(&key, ID, AT, BODY), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn everything_that_is_sent_is_signed() {
        let key = key(SECRET).expect("a secret");
        let genuine = sign(&key, ID, AT, BODY);
        assert_ne!(sign(&key, "msg_other", AT, BODY), genuine);
        assert_ne!(sign(&key, ID, AT + 1, BODY), genuine);
        assert_ne!(sign(&key, ID, AT, br#"{"test": 2432232315}"#), genuine);
        assert_ne!(sign(b"another key", ID, AT, BODY), genuine);
    }

    #[test]
    fn a_secret_is_read_only_in_its_written_form() {
        for wrong in ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_***", "WHSEC_MfKQ"] {
            assert_eq!(key(wrong), None, "{wrong}");
        }
    }
}
