//! The job that posts one event to the owner's address.

use std::time::Duration;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use jiff::fmt::rfc2822::DateTimeParser;
use serde::{Deserialize, Serialize};

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::jobs::{Claim, Ended, Job, JobError, Manner, Outcome, Retry};
use semel_kernel::outbound::{self, Call, OutboundError};

use super::{EventId, sign, sql};
use crate::orders::OrderId;
use crate::shop::{EventsOut, Lanes};
use crate::{Shop, alerts, safety};

/// Whose breaker and pauses apply: there is one address.
const HOST_KEY: &str = "events";
/// A longer `Retry-After` is taken as this.
const LONGEST_WAIT: Duration = Duration::from_secs(6 * 3600);
/// For how long waiting costs no attempt. An address that says "later" for ever must end as a dead letter.
const PATIENCE: Duration = Duration::from_secs(3 * 24 * 3600);

/// Posts one event and obeys the answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct DeliverEvent {
    /// The event.
    pub event: EventId,
    /// The order whose story it belongs to.
    pub order: OrderId,
}

impl Job for DeliverEvent {
    type Context = Shop;
    const KIND: &'static str = "event.deliver";
    const LANE: &'static str = Lanes::EVENTS;
    const RETRY: Retry = Retry::backoff(Duration::from_secs(5), Duration::from_secs(6 * 3600), 20);
    const MANNER: Option<Manner> = Some(Manner::Keyed);

    fn slot(&self) -> Option<String> {
        Some(self.event.to_string())
    }

    fn thread(&self) -> Option<String> {
        Some(self.order.to_string())
    }

    async fn run(self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        let rows = shop.store.rows("event.load", sql::FIND, args![&self.event]).await?;
        // No row: an event of the same key was there first. No address: the owner wants no events any more.
        let Some(row) = rows.first() else { return end(shop, claim, Outcome::Confirmed, false).await };
        let Some(out) = &shop.rules.events else { return end(shop, claim, Outcome::Failed, false).await };
        if let Some(ended) = safety::flows::wait(shop, &claim).await? {
            return Ok(ended);
        }
        let body: String = row.get(0)?;
        let published: Time = row.get(1)?;

        let request = request(out, &self.event, shop.now(), body)?;
        let mut call = Call::new("event.deliver", HOST_KEY, outbound::Manner::Keyed);
        call.public_only = !out.allow_private;
        let answer = shop.outbound.call(call, request).await;

        let now = shop.now();
        // The client tells a moment of its own clock; a job waits on the database's.
        let away = answer.as_ref().err().and_then(outbound::OutboundError::retry_at);
        let away = away.map(|at| now + at.since(shop.outbound.now()));
        match next(answer.map(|answer| (answer.status(), retry_after(answer.headers(), now)))) {
            Next::Done => end(shop, claim, Outcome::Confirmed, false).await,
            Next::Gone => end(shop, claim, Outcome::Failed, true).await,
            Next::Later { at, text } if now.since(published) < PATIENCE => {
                // Waits grow with the age of the event, so that an address that stays down is not asked for nothing.
                let grown = now + shop.chance.jitter((now.since(published) / 4).min(LONGEST_WAIT / 2));
                let at = away.unwrap_or(at).min(now + LONGEST_WAIT).max(grown);
                Err(JobError::Later { at, text })
            }
            Next::Later { text, .. } | Next::Retry { text } => Err(JobError::Retry(text)),
        }
    }
}

/// The same bytes in every try; only the moment and so the signature are new.
fn request(out: &EventsOut, event: &EventId, now: Time, body: String) -> Result<http::Request<Vec<u8>>, JobError> {
    let timestamp = now.millis().div_euclid(1000);
    let signature = sign::sign(&out.secret, event.as_str(), timestamp, body.as_bytes());
    http::Request::post(out.url.as_str())
        .header(CONTENT_TYPE, "application/json")
        .header("webhook-id", event.as_str())
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", signature)
        .body(body.into_bytes())
        .map_err(|error| JobError::DeadLetter {
            text: format!("the address for events cannot be used: {error}"),
            outcome: Outcome::Failed,
        })
}

/// What happens after a try.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// The receiver has it.
    Done,
    /// The receiver wants nothing more.
    Gone,
    /// Not before `at`.
    Later { at: Time, text: String },
    /// Again, after the usual wait.
    Retry { text: String },
}

/// Sorts the status of an answer with the moment that it asks for, or what kept it from coming.
fn next(answer: Result<(StatusCode, Option<Time>), OutboundError>) -> Next {
    let (status, asked) = match answer {
        Ok(answer) => answer,
        Err(error) => {
            let text = error.to_string();
            return match error.retry_at() {
                Some(at) => Next::Later { at, text },
                None => Next::Retry { text },
            };
        }
    };
    let text = format!("the receiver of events answered {}", status.as_u16());
    match (status, asked) {
        (status, _) if status.is_success() => Next::Done,
        (StatusCode::GONE, _) => Next::Gone,
        (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, Some(at)) => Next::Later { at, text },
        _ => Next::Retry { text },
    }
}

/// When an answer asks us to come back: seconds or an HTTP date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap, now: Time) -> Option<Time> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let at = match text.parse::<u64>() {
        Ok(seconds) => now + Duration::from_secs(seconds.min(LONGEST_WAIT.as_secs())),
        Err(_) => Time::from_millis(DateTimeParser::new().parse_timestamp(text).ok()?.as_millisecond()),
    };
    Some(at.max(now))
}

async fn end(shop: &Shop, claim: Claim, outcome: Outcome, gone: bool) -> Result<Ended, JobError> {
    let write = shop.write("event.end", move |tx, shop| {
        if gone {
            // Once a day, for as long as it lasts.
            let key = format!("events-gone:{}", tx.now().millis().div_euclid(86_400_000));
            let text = "The receiver of events answers 410 Gone and gets them no more. \
                Set SEMEL_WEBHOOKS_OUT_URL to the right address, or remove it.";
            alerts::flows::raise(tx, shop, key, text)?;
        }
        Ok(claim.finish_as(tx, outcome)?)
    });
    Ok(write.await?)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use semel_kernel::clock::Chance;

    use super::*;

    const NOW: Time = Time::from_millis(784_111_777_000); // Sun, 06 Nov 1994 08:49:37 GMT

    fn answered(status: u16, asked: Option<Time>) -> Next {
        next(Ok((StatusCode::from_u16(status).expect("a status"), asked)))
    }

    #[test]
    fn only_a_2xx_ends_the_tries_well_and_only_410_ends_them_for_good() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(answered(status, None), Next::Done, "{status}");
        }
        assert_eq!(answered(410, None), Next::Gone);
        for status in [301, 302, 400, 401, 404, 409, 429, 500, 502, 503] {
            assert!(matches!(answered(status, None), Next::Retry { .. }), "{status}");
        }
    }

    #[test]
    fn an_asked_for_wait_is_obeyed_where_it_means_something() {
        let at = NOW + Duration::from_secs(7);
        assert!(matches!(answered(429, Some(at)), Next::Later { at: until, .. } if until == at));
        assert!(matches!(answered(503, Some(at)), Next::Later { at: until, .. } if until == at));
        assert!(matches!(answered(500, Some(at)), Next::Retry { .. }));
        let paused = next(Err(OutboundError::Paused { until: at }));
        assert!(matches!(paused, Next::Later { at: until, .. } if until == at));
        assert!(matches!(next(Err(OutboundError::Unclear { text: "reset".into() })), Next::Retry { .. }));
    }

    #[test]
    fn a_wait_comes_in_seconds_or_as_a_date() {
        let asks = |text: &'static str| {
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]), NOW)
        };
        assert_eq!(asks("7"), Some(NOW + Duration::from_secs(7)));
        assert_eq!(asks("Sun, 06 Nov 1994 08:50:37 GMT"), Some(NOW + Duration::from_secs(60)));
        assert_eq!(asks("Sun, 06 Nov 1994 08:00:00 GMT"), Some(NOW));
        assert_eq!(asks("99999999999"), Some(NOW + LONGEST_WAIT));
        assert_eq!(asks("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), NOW), None);
    }

    #[test]
    fn a_request_carries_the_id_the_moment_and_a_signature_over_its_bytes() {
        let out = EventsOut {
            url: "https://bot.example.com/events?a=1".into(),
            secret: b"key".to_vec(),
            allow_private: false,
        };
        let event = EventId::new(NOW, &Chance::seeded(1));
        let request = request(&out, &event, NOW, r#"{"type":"order.paid"}"#.into()).expect("a request");
        let header = |name: &str| request.headers()[name].to_str().expect("text").to_owned();

        assert_eq!(request.method(), "POST");
        assert_eq!(request.uri(), "https://bot.example.com/events?a=1");
        assert_eq!(header("content-type"), "application/json");
        assert_eq!(header("webhook-id"), event.as_str());
        assert_eq!(header("webhook-timestamp"), "784111777");
        assert_eq!(header("webhook-signature"), sign::sign(&out.secret, event.as_str(), 784_111_777, request.body()));
    }
}
