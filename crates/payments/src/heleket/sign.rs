//! Heleket's signature: `hex(md5(base64(json) + key))`.
//!
//! Outgoing it covers the very bytes that we send. Incoming it is a member of the body, computed by PHP over the other members, and it is
//! not documented whether the bytes on the wire are the bytes that were signed. The vendor's own libraries differ: one cuts the member
//! out of the text, the other decodes and prints again. Both candidates need the key, so accepting either is no weaker than one alone.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

use super::php_json;
use crate::json::{Member, Value};

/// The signature of a body. An empty body signs as nothing but the key.
pub(super) fn sign(body: &[u8], key: &str) -> String {
    let mut text = BASE64_STANDARD.encode(body);
    text.push_str(key);
    hex::encode(Md5::digest(text.as_bytes()))
}

/// Whether `signature` is right for these members without `sign`, either as they stand or as PHP would print them. Lower-case hex only,
/// compared in constant time. An empty key never matches.
pub(super) fn matches(members: &[Member<'_>], signature: &str, key: &str) -> bool {
    if key.is_empty() {
        return false;
    }
    let given = signature.as_bytes();
    let stripped = sign(raw_strip(members).as_bytes(), key);
    let mut equal = given.ct_eq(stripped.as_bytes());
    if let Some(canonical) = php_canonical(members) {
        equal |= given.ct_eq(sign(canonical.as_bytes(), key).as_bytes());
    }
    equal.into()
}

/// The members as they stand, without `sign` and without the space between them.
fn raw_strip(members: &[Member<'_>]) -> String {
    let kept = members.iter().filter(|member| member.name != "sign");
    let printed: Vec<String> = kept.map(|member| format!("{}:{}", member.raw_name, member.raw_value)).collect();
    format!("{{{}}}", printed.join(","))
}

/// The members as PHP prints them after decoding; `None` if PHP could not.
fn php_canonical(members: &[Member<'_>]) -> Option<String> {
    let kept = members.iter().filter(|member| member.name != "sign");
    let object = kept.map(|member| (member.name.clone(), member.value.clone())).collect();
    php_json::print(&Value::Object(object))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::members;

    #[test]
    fn an_empty_body_signs_as_the_key_alone() {
        assert_eq!(sign(b"", "key"), hex::encode(Md5::digest(b"key")));
    }

    #[test]
    fn stripping_keeps_values_as_they_stand() {
        let body = b"{ \"a\" : 100.50 , \"sign\":\"x\", \"b\" : { \"c\": [] } }\n";
        assert_eq!(raw_strip(&members(body).unwrap()), r#"{"a":100.50,"b":{ "c": [] }}"#);
    }

    #[test]
    fn printing_again_follows_php() {
        let body = r#"{"a":100.50,"sign":"x","b":{ "c": {} },"u":"https://x/ \u041e"}"#;
        let printed = php_canonical(&members(body.as_bytes()).unwrap()).unwrap();
        assert_eq!(printed, r#"{"a":100.5,"b":{"c":[]},"u":"https:\/\/x\/ О"}"#);
    }

    #[test]
    fn only_the_right_key_and_lower_case_match() {
        let body = br#"{"a":1,"sign":"x"}"#;
        let members = members(body).unwrap();
        let right = sign(br#"{"a":1}"#, "key");
        assert!(matches(&members, &right, "key"));
        assert!(!matches(&members, &right, "other"));
        assert!(!matches(&members, &right.to_uppercase(), "key"));
        assert!(!matches(&members, "", "key"));
        assert!(!matches(&members, &sign(br#"{"a":1}"#, ""), ""), "an empty key proves nothing");
    }
}
