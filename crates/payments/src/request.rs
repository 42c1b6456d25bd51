//! Addresses and the few things that every request needs.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Uri};

use crate::{ConfigError, Request};

/// Longer addresses are mistakes.
const LONGEST_URL: usize = 1000;
/// Cursors are given to us by the provider; a longer one is not followed.
const LONGEST_CURSOR: usize = 1000;

/// The checked address of an API, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(String);

impl BaseUrl {
    /// Takes `http` or `https` with a host and perhaps a path; no user, no query, no fragment.
    pub fn parse(text: &str) -> Result<BaseUrl, ConfigError> {
        let wrong = |why: &str| ConfigError::BaseUrl { url: text.chars().take(200).collect(), why: why.to_string() };
        if text.len() > LONGEST_URL {
            return Err(wrong("it is too long"));
        }
        let url = url::Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("it must start with https:// or http://"));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(wrong("it has no host"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("it must not hold a user or password"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("it must not hold ? or #"));
        }
        let plain = url.as_str().trim_end_matches('/').to_string();
        Uri::try_from(format!("{plain}/")).map_err(|error| wrong(&error.to_string()))?;
        Ok(BaseUrl(plain))
    }

    /// The address, without a slash at the end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `path` starts with a slash and is made of constants, checked ids and encoded queries only.
    fn join(&self, path: &str) -> Uri {
        Uri::try_from(format!("{}{path}", self.0)).expect("a checked base and a checked path are an address")
    }
}

/// A bare GET.
pub(crate) fn get(base: &BaseUrl, path: &str) -> Request {
    let mut request = Request::new(Vec::new());
    *request.uri_mut() = base.join(path);
    request
}

/// A POST of JSON bytes, or of nothing.
pub(crate) fn post(base: &BaseUrl, path: &str, body: Vec<u8>) -> Request {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = base.join(path);
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request
}

/// Adds a header whose value was checked when the account was configured. A value that cannot be a header is left out, and the provider
/// refuses the call. Sensitive ones do not show when a request is printed.
pub(crate) fn header(request: &mut Request, name: &'static str, value: &str, sensitive: bool) {
    if let Ok(mut value) = HeaderValue::from_str(value) {
        value.set_sensitive(sensitive);
        request.headers_mut().insert(name, value);
    }
}

/// The bytes of a JSON body. Our own bodies are plain structs of text and numbers, which always print.
pub(crate) fn body<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("a struct of text and numbers prints as JSON")
}

/// `name=value&…`, encoded.
pub(crate) fn query(pairs: &[(&str, &str)]) -> String {
    let mut encoded = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in pairs {
        encoded.append_pair(name, value);
    }
    encoded.finish()
}

/// Whether a cursor may be sent back to the provider who gave it.
pub(crate) fn is_cursor(cursor: &str) -> bool {
    !cursor.is_empty() && cursor.len() <= LONGEST_CURSOR
}

/// Visible ASCII, as keys and header values need it.
pub(crate) fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Ids that may stand in a path: `^[A-Za-z0-9-]{1,64}$`. An unsigned webhook could otherwise steer our authenticated client.
pub(crate) fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The first `most` characters.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

/// A moment as UTC text by a `strftime` format; `None` if it is beyond the calendar.
pub(crate) fn utc_text(at_ms: i64, format: &str) -> Option<String> {
    let moment = jiff::Timestamp::from_millisecond(at_ms).ok()?;
    Some(moment.strftime(format).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_address_is_checked_when_it_is_configured() {
        assert_eq!(BaseUrl::parse("https://api.crystalpay.io/v3/").unwrap().as_str(), "https://api.crystalpay.io/v3");
        assert_eq!(BaseUrl::parse("http://127.0.0.1:9000").unwrap().as_str(), "http://127.0.0.1:9000");
        for wrong in [
            "",
            "api.example.com",
            "ftp://api.example.com",
            "https://",
            "https://user:pw@api.example.com",
            "https://api.example.com/?a=1",
            "https://api.example.com/#top",
        ] {
            assert!(BaseUrl::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_id_is_one_harmless_path_segment() {
        assert!(is_id("2d8f1a6b-000f-5000-9000-1b2c3d4e5f60"));
        for wrong in ["", "../refunds", "a/b", "a?b", "a.b", "é", "a".repeat(65).as_str()] {
            assert!(!is_id(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn moments_print_in_utc() {
        assert_eq!(utc_text(1_772_355_600_123, "%Y-%m-%dT%H:%M:%SZ").unwrap(), "2026-03-01T09:00:00Z");
        assert_eq!(utc_text(i64::MAX, "%Y"), None);
    }
}
