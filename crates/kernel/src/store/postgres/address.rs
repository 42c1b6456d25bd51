//! The database's address as a person wrote it, taken apart.
//!
//! The driver knows `sslmode=disable`, `prefer` and `require`. We take `verify-ca`, `verify-full` and `sslrootcert`
//! as well, all with the meaning that they have in every other PostgreSQL program:
//!
//! | `sslmode` | encrypted | the certificate |
//! |---|---|---|
//! | `disable` | no | |
//! | `prefer`, `allow`, nothing | when the server can | is not looked at |
//! | `require` | yes | is not looked at; with `sslrootcert` as under `verify-ca` |
//! | `verify-ca` | yes | must be signed by a root that we trust |
//! | `verify-full` | yes | must be signed by a root that we trust, for the host of the address |
//!
//! The trusted roots are those in the file `sslrootcert`, or the system's own. A Unix socket never leaves the machine
//! and is never encrypted.

use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{SslMode, SslNegotiation};

use super::tls::{self, Roots, Tls};
use crate::store::StoreError;

/// Where the server is, who we are there, and how far its certificate is checked.
pub(in crate::store) struct Address {
    /// Without any word about TLS: that is ours.
    pub(super) config: Config,
    pub(super) tls: Tls,
    /// TLS from the first byte, without asking for it first.
    pub(super) tls_at_once: bool,
    /// How long each of the hosts may take.
    pub(super) limit: Duration,
}

impl Address {
    /// Reads `postgres://…` or `key=value …`. Sessions will call themselves `application`; connecting takes `limit` at
    /// most, shared by the hosts that the address names.
    pub(in crate::store) fn parse(text: &str, application: &str, limit: Duration) -> Result<Self, StoreError> {
        let (rest, wish) = split(text)?;
        let parsed: Result<Config, _> = rest.parse();
        let mut config =
            parsed.map_err(|error| StoreError::Schema(format!("the database address is not valid: {error}")))?;
        // Whoever looks at the server's sessions may have named us in the address.
        if config.get_application_name().is_none() {
            config.application_name(application);
        }
        let tls_at_once = config.get_ssl_negotiation() == SslNegotiation::Direct;
        Ok(Self { tls: wish.tls(tls_at_once)?, tls_at_once, limit, ..Self::of(config) })
    }

    fn of(mut config: Config) -> Self {
        // The driver gets a stream that is encrypted already, or shall not be: it must not ask for anything.
        config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
        Self { config, tls: Tls::Off, tls_at_once: false, limit: Duration::MAX }
    }
}

/// What the address says about TLS.
#[derive(Debug, Default, PartialEq)]
struct Wish {
    mode: Option<String>,
    root: Option<String>,
}

impl Wish {
    fn takes(&mut self, key: &str, value: String) -> bool {
        match key {
            "sslmode" => self.mode = Some(value),
            "sslrootcert" => self.root = Some(value),
            _ => return false,
        }
        true
    }

    fn tls(self, at_once: bool) -> Result<Tls, StoreError> {
        let refuse = |why: String| Err(StoreError::Schema(format!("the database address is not valid: {why}")));
        let system = self.root.as_deref() == Some("system");
        let mode = self.mode.as_deref().unwrap_or(if system { "verify-full" } else { "prefer" });
        if system && mode != "verify-full" {
            return refuse(format!(
                "sslmode={mode} checks too little for sslrootcert=system; write sslmode=verify-full"
            ));
        }
        if at_once && matches!(mode, "allow" | "prefer") {
            return refuse(format!("sslmode={mode} cannot go with sslnegotiation=direct; write sslmode=require"));
        }
        let roots = match &self.root {
            Some(file) if !system => Roots::File(file.clone()),
            _ => Roots::System,
        };
        Ok(match mode {
            "disable" => Tls::Off,
            "allow" | "prefer" => Tls::Prefer(tls::unchecked(at_once)?),
            "require" if self.root.is_none() => Tls::Require(tls::unchecked(at_once)?),
            "require" | "verify-ca" => Tls::Require(tls::checked(&roots, false, at_once)?),
            "verify-full" => Tls::Require(tls::checked(&roots, true, at_once)?),
            other => {
                let known = "disable, prefer, require, verify-ca or verify-full";
                return refuse(format!("sslmode={other} is unknown; write {known}"));
            }
        })
    }
}

/// Takes out what the driver does not know or must not decide.
fn split(text: &str) -> Result<(String, Wish), StoreError> {
    let mut wish = Wish::default();
    let is_url = text.starts_with("postgres://") || text.starts_with("postgresql://");
    let rest = if is_url { split_url(text, &mut wish)? } else { split_pairs(text, &mut wish) };
    Ok((rest, wish))
}

fn split_url(text: &str, wish: &mut Wish) -> Result<String, StoreError> {
    // The first `@` ends the credentials, for the driver as well: a question mark before it belongs to the password.
    let from = text.find('@').map_or(0, |at| at + 1);
    let Some(at) = text[from..].find('?').map(|at| from + at) else { return Ok(text.to_owned()) };
    let (place, query) = (&text[..at], &text[at + 1..]);
    let mut rest = Vec::new();
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !wish.takes(key, decoded(value)?) {
            rest.push(pair);
        }
    }
    Ok(if rest.is_empty() { place.to_owned() } else { format!("{place}?{}", rest.join("&")) })
}

/// `%2F` and the like; a plus is a plus.
fn decoded(text: &str) -> Result<String, StoreError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|_| first == b'%').and_then(|two| hex::decode(two).ok());
        match escaped {
            Some(byte) => {
                bytes.extend(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    let invalid = |_| StoreError::Schema("the database address is not valid: it is not UTF-8".into());
    String::from_utf8(bytes).map_err(invalid)
}

fn split_pairs(text: &str, wish: &mut Wish) -> String {
    let mut rest = String::with_capacity(text.len());
    let mut left = text;
    while let Some((key, value, end)) = pair(left) {
        if !wish.takes(key, value) {
            rest.push_str(&left[..end]);
        }
        left = &left[end..];
    }
    rest.push_str(left);
    rest
}

/// The first `key = value` of `text`: the key, the value without quotes and escapes, and where both end.
fn pair(text: &str) -> Option<(&str, String, usize)> {
    let (key, after) = text.split_once('=')?;
    let from = text.len() - after.trim_start().len();
    let quoted = text[from..].starts_with('\'');
    let from = from + usize::from(quoted);
    let mut value = String::new();
    let mut letters = text[from..].char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\'' if quoted => return Some((key.trim(), value, from + at + 1)),
            letter if !quoted && letter.is_whitespace() => return Some((key.trim(), value, from + at)),
            '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
            _ => value.push(letter),
        }
    }
    Some((key.trim(), value, text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split_of(text: &str) -> (String, Option<String>, Option<String>) {
        let (rest, wish) = split(text).expect("the address can be split");
        (rest, wish.mode, wish.root)
    }

    fn told(text: &str) -> String {
        match Address::parse(text, "semel", Duration::from_secs(1)) {
            Ok(_) => panic!("{text} was taken"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_an_address_says_about_tls_is_taken_out_of_it() {
        let (full, root) = (Some("verify-full".to_owned()), Some("/etc/my root.crt".to_owned()));
        assert_eq!(
            split_of("postgres://a:b@h:1/d?sslmode=verify-full&connect_timeout=3&sslrootcert=/etc/my%20root.crt"),
            ("postgres://a:b@h:1/d?connect_timeout=3".into(), full.clone(), root.clone())
        );
        assert_eq!(split_of("postgres://h/d?sslmode=verify-full"), ("postgres://h/d".into(), full.clone(), None));
        assert_eq!(
            split_of("host=h sslmode = verify-full password='it\\'s = x' sslrootcert='/etc/my root.crt' dbname=d"),
            ("host=h password='it\\'s = x' dbname=d".into(), full, root)
        );
    }

    #[test]
    fn a_password_is_not_read_as_a_setting() {
        let text = "postgres://a:x?sslmode=disable@h/d";
        assert_eq!(split_of(text), (text.into(), None, None));
        let text = "host=h password='x sslmode=disable'";
        assert_eq!(split_of(text), (text.into(), None, None));
    }

    #[test]
    fn both_ways_to_write_an_address_reach_the_driver() {
        for text in ["postgres://a:b@h:1/d?sslmode=require", "user=a password=b host=h port=1 dbname=d sslmode=require"]
        {
            let address = Address::parse(text, "semel", Duration::from_secs(1)).expect("a good address");
            assert_eq!(address.config.get_user(), Some("a"));
            assert_eq!(address.config.get_dbname(), Some("d"));
            assert_eq!(address.config.get_ports(), [1]);
            assert_eq!(address.config.get_application_name(), Some("semel"));
            assert!(matches!(address.tls, Tls::Require(_)), "{text}");
        }
        let plain = Address::parse("postgres://h/d?sslmode=disable", "semel", Duration::from_secs(1));
        assert!(matches!(plain, Ok(Address { tls: Tls::Off, .. })));
        let usual = Address::parse("postgres://h/d", "semel", Duration::from_secs(1));
        assert!(matches!(usual, Ok(Address { tls: Tls::Prefer(_), .. })));
    }

    #[test]
    fn a_wish_that_makes_no_sense_is_refused_with_what_to_write() {
        assert!(told("postgres://h/d?sslmode=always").contains("verify-full"));
        assert!(told("postgres://h/d?sslmode=require&sslrootcert=system").contains("sslmode=verify-full"));
        assert!(told("postgres://h/d?sslmode=verify-ca&sslrootcert=/no/such/file").contains("/no/such/file"));
        assert!(told("postgres://h/d?sslnegotiation=direct").contains("sslmode=require"));
        let secret = told("postgres://a:hunter2@h:port/d");
        assert!(secret.contains("address is not valid") && !secret.contains("hunter2"), "{secret}");
    }
}
