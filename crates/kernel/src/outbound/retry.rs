//! May the same bytes go again inside this call, and when?
//!
//! There is no blanket retry. What certainly never arrived may go again whatever it was; what may have arrived goes
//! again only where its manner says that twice is once. An answer is repeated only when it says "not now".

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use jiff::fmt::rfc2822::DateTimeParser;

use super::call::Manner;
use super::error::OutboundError;
use crate::clock::{Chance, Time};

/// How often one call sends at most. Longer patience belongs to a job, which survives a restart.
pub(super) const MOST_TRIES: u32 = 4;
/// The first back-off reaches up to this many milliseconds; each further one twice as far.
const FIRST_MS: u64 = 200;
/// No back-off reaches further, in milliseconds.
const LONGEST_MS: u64 = 5_000;
/// A `Retry-After` beyond this is taken as this: a typing error on the other side must not silence us for a year.
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// Whether a try that ended like this may be followed by another.
pub(super) fn after_error(manner: Manner, error: &OutboundError) -> bool {
    match error {
        OutboundError::NotSent { .. } => true,
        OutboundError::Unclear { .. } => manner.repeats(),
        _ => false,
    }
}

/// Whether an answer asks for another try. A 429 counts only when it says how long to wait.
pub(super) fn after_answer(manner: Manner, status: StatusCode, says_when: bool) -> bool {
    manner.repeats()
        && match status {
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => true,
            StatusCode::TOO_MANY_REQUESTS => says_when,
            _ => false,
        }
}

/// Full jitter: anything between nothing and a ceiling that doubles, so that callers who failed together part ways.
pub(super) fn backoff(tries: u32, chance: &Chance) -> Duration {
    let ceiling = (FIRST_MS << tries.saturating_sub(1).min(10)).min(LONGEST_MS);
    Duration::from_millis(chance.below(ceiling + 1))
}

/// Until when a 429 or 503 asks us to stay away; seconds or an HTTP date. Other answers ask nothing.
pub(super) fn pause(status: StatusCode, headers: &HeaderMap, now: Time) -> Option<Time> {
    if !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return None;
    }
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let until = match text.parse::<u64>() {
        Ok(seconds) => now + Duration::from_secs(seconds.min(LONGEST_PAUSE.as_secs())),
        Err(_) => Time::from_millis(DateTimeParser::new().parse_timestamp(text).ok()?.as_millisecond()),
    };
    Some(until.max(now).min(now + LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const ALL: [Manner; 5] = [Manner::Read, Manner::Keyed, Manner::Convergent, Manner::Asked, Manner::Blind];

    fn says(text: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))])
    }

    #[test]
    fn what_never_arrived_may_always_go_again() {
        let error = OutboundError::NotSent { text: String::new() };
        assert!(ALL.into_iter().all(|manner| after_error(manner, &error)));
    }

    #[test]
    fn what_may_have_arrived_goes_again_only_where_twice_is_once() {
        let error = OutboundError::Unclear { text: String::new() };
        assert_eq!(ALL.map(|manner| after_error(manner, &error)), [true, true, true, false, false]);
        assert_eq!(
            ALL.map(|manner| after_answer(manner, StatusCode::BAD_GATEWAY, false)),
            [true, true, true, false, false]
        );
    }

    #[test]
    fn a_refusal_is_final_and_a_429_counts_only_when_it_says_when() {
        for status in [400_u16, 401, 404, 409, 500] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert!(!after_answer(Manner::Keyed, status, true), "{status}");
        }
        assert!(after_answer(Manner::Keyed, StatusCode::TOO_MANY_REQUESTS, true));
        assert!(!after_answer(Manner::Keyed, StatusCode::TOO_MANY_REQUESTS, false));
    }

    #[test]
    fn a_pause_comes_in_seconds_or_as_a_date() {
        let now = Time::from_millis(784_111_777_000); // Sun, 06 Nov 1994 08:49:37 GMT
        let until = |text| pause(StatusCode::SERVICE_UNAVAILABLE, &says(text), now);
        assert_eq!(until("7"), Some(now + Duration::from_secs(7)));
        assert_eq!(until("Sun, 06 Nov 1994 08:50:37 GMT"), Some(now + Duration::from_secs(60)));
        assert_eq!(until("Sun, 06 Nov 1994 08:00:00 GMT"), Some(now));
        assert_eq!(until("999999999999"), Some(now + LONGEST_PAUSE));
        assert_eq!(until("soon"), None);
        assert_eq!(pause(StatusCode::OK, &says("7"), now), None);
    }

    #[test]
    fn back_off_stays_under_a_ceiling_that_doubles() {
        let chance = Chance::seeded(3);
        for (tries, ceiling) in [(1, 200), (2, 400), (3, 800), (30, 5_000)] {
            for _ in 0..200 {
                assert!(backoff(tries, &chance) <= Duration::from_millis(ceiling));
            }
        }
    }
}
