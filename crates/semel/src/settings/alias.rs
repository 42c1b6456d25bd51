//! Names that are known without being settings, and the likely name behind a misspelt one.
//!
//! Owners come with the environment of the bot they already run. A name from there is either an alias of a setting (in the
//! table), or it is explained here, or it is none of our business.

use super::table::{SECTIONS, SETTINGS};

/// A name that does nothing, and the sentence that says why. A `*` at the end stands for anything.
struct Known {
    name: &'static str,
    says: &'static str,
}

const BUS: &str = "belongs to the Redis relay of events, which this version does not have yet; ignored";
const LOCKS: &str = "is not needed: leases are rows now, without lock ids; ignored";
const POOL_MIN: &str = "is not needed: connections open when they are needed, there is no minimum; ignored";
const ELSEWHERE: &str =
    "is not a setting: it is read elsewhere, or was set by the machinery around the program; ignored";

static KNOWN: &[Known] = &[
    Known { name: "REDIS_URL", says: BUS },
    Known { name: "SEMEL_REDIS_URL", says: BUS },
    Known { name: "DB_POOL_MIN", says: POOL_MIN },
    Known { name: "DB_JOB_LOCK_*", says: LOCKS },
    Known { name: "DB_IP_ALLOC_LOCK_ID", says: LOCKS },
    // The test suite, and a build with failpoints.
    Known { name: "SEMEL_TEST_*", says: ELSEWHERE },
    Known { name: "SEMEL_FAILPOINT", says: ELSEWHERE },
    Known { name: "SEMEL_FAILPOINT_TRACE", says: ELSEWHERE },
    // A cluster gives these to every container when a service is called "semel".
    Known { name: "SEMEL_SERVICE_*", says: ELSEWHERE },
    Known { name: "SEMEL_PORT_*", says: ELSEWHERE },
];

/// What is to be said about a name that is known but does nothing.
pub fn known(name: &str) -> Option<&'static str> {
    let found = KNOWN.iter().find(|known| match known.name.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == known.name,
    })?;
    Some(found.says)
}

/// The same for a key of the file.
pub fn known_key(key: &str) -> Option<&'static str> {
    (key == "redis_url").then_some(BUS)
}

/// Whether a cluster has set this for a service called "semel". Only the value tells it from a misspelt port.
pub fn is_service_link(name: &str, value: &str) -> bool {
    name == "SEMEL_PORT" && value.contains("://")
}

/// The variable that was probably meant.
pub fn likely_env(name: &str) -> Option<&'static str> {
    likely(name, SETTINGS.iter().map(|setting| setting.env))
}

/// The key of the file that was probably meant; a section counts.
pub fn likely_key(name: &str) -> Option<&'static str> {
    likely(name, SETTINGS.iter().map(|setting| setting.key).chain(SECTIONS.iter().map(|(section, _)| *section)))
}

/// The candidate nearest to `name`, if any is near. What all variables have in common does not count as likeness, and a
/// name that lacks only its section is near.
fn likely(name: &str, candidates: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let wanted = bare(name);
    // No setting has such a name, and likeness costs the product of both lengths.
    if wanted.len() > 100 {
        return None;
    }
    let mut best: Option<(usize, &'static str)> = None;
    for candidate in candidates {
        let have = bare(candidate);
        let mut distance = strsim::damerau_levenshtein(&wanted, &have);
        if wanted.len() >= 4 && (have.ends_with(&wanted) || have.starts_with(&wanted)) {
            distance = distance.min(wanted.len() / 4);
        }
        let near = distance * 3 <= wanted.len().max(3);
        if near && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

fn bare(name: &str) -> String {
    let name = name.to_ascii_lowercase().replace(['.', '-'], "_");
    match name.strip_prefix("semel_") {
        Some(rest) => rest.to_owned(),
        None => name,
    }
}
