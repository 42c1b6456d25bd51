//! Faults on request: which calls go wrong, how, and how often.

use serde::Serialize;

use crate::Provider;

/// Which calls a fault hits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Calls to a provider whose `METHOD /path` (below the API base) contains the text: `POST /payments`, `/invoice/create`. Empty: all.
    Api(Provider, String),
    /// Calls of this Bot API method, in any letter case. Empty: all.
    Telegram(String),
}

impl Target {
    fn matches(&self, place: &Place) -> bool {
        match (self, place) {
            (Target::Api(wanted, part), Place::Api(provider, call)) => {
                wanted == provider && call.contains(part.as_str())
            }
            (Target::Telegram(wanted), Place::Telegram(method)) => {
                wanted.is_empty() || wanted.eq_ignore_ascii_case(method)
            }
            _ => false,
        }
    }

    fn describe(&self) -> String {
        match self {
            Target::Api(provider, part) => format!("{provider} {part}"),
            Target::Telegram(method) => format!("telegram {method}"),
        }
    }
}

/// How a call goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answered with this status and the service's own error form; nothing happens.
    Status(u16),
    /// Happens, then answered with this status: the 5xx after a delivery.
    StatusAfter(u16),
    /// Refused with 429; nothing happens.
    TooMany {
        /// Seconds to stay silent.
        retry_after: u64,
    },
    /// Happens, then answered with 200 and bytes that no client can read.
    Garbage,
    /// Answered with this status and a page of HTML, as a gateway before the service does; nothing happens.
    Page(u16),
    /// Refused in the Bot API's form (`ok: false`, chat not found) under status 200; nothing happens.
    NotOk,
    /// The connection closes without an answer; nothing happens.
    CutBefore,
    /// Happens, then the connection closes without an answer.
    CutAfter,
    /// Waits that many milliseconds first. A caller who hangs up meanwhile is not served. Goes together with one other fault.
    Delay(u64),
}

/// A fault that stands, to lift it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct FaultId(pub(crate) u64);

/// Where a request goes, as far as faults care.
#[derive(Debug)]
pub(crate) enum Place {
    Api(Provider, String),
    Telegram(String),
    Elsewhere,
}

impl Place {
    pub(crate) fn of(method: &str, path: &str) -> Place {
        for provider in Provider::ALL {
            if let Some(rest) = path.strip_prefix(provider.base_path())
                && rest.starts_with('/')
            {
                return Place::Api(provider, format!("{method} {rest}"));
            }
        }
        match path.strip_prefix("/telegram/") {
            Some(rest) => Place::Telegram(rest.rsplit('/').next().unwrap_or_default().to_owned()),
            None => Place::Elsewhere,
        }
    }
}

/// The fault that a Bot API call has to suffer; the door leaves it to the Telegram room, which logs it.
#[derive(Clone, Debug)]
pub(crate) struct Fate(pub(crate) Option<Fault>);

struct Rule {
    id: FaultId,
    target: Target,
    fault: Fault,
    left: Option<u32>,
}

/// The standing faults, oldest first.
#[derive(Default)]
pub(crate) struct Rules {
    rules: Vec<Rule>,
    last: u64,
    /// When each silence that a 429 on purpose asked for is over, milliseconds.
    silences: Vec<i64>,
}

impl Rules {
    pub(crate) fn add(&mut self, target: Target, fault: Fault, times: Option<u32>) -> FaultId {
        self.last += 1;
        let id = FaultId(self.last);
        self.rules.push(Rule { id, target, fault, left: times });
        id
    }

    pub(crate) fn lift(&mut self, id: FaultId) {
        self.rules.retain(|rule| rule.id != id);
    }

    pub(crate) fn clear(&mut self) {
        self.rules.clear();
    }

    /// Notes that a 429 asked at `now` for so many seconds of silence.
    pub(crate) fn asked_for_silence(&mut self, now: i64, seconds: u64) {
        let ms = i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
        self.silences.push(now.saturating_add(ms));
    }

    pub(crate) fn silences(&self) -> Vec<i64> {
        self.silences.clone()
    }

    /// Takes what hits this call: all delays, and the oldest other fault.
    pub(crate) fn take(&mut self, place: &Place) -> (u64, Option<Fault>) {
        let mut delay_ms = 0;
        let mut fault = None;
        for rule in &mut self.rules {
            if rule.left == Some(0) || !rule.target.matches(place) {
                continue;
            }
            match &rule.fault {
                Fault::Delay(ms) => delay_ms += *ms,
                other if fault.is_none() => fault = Some(other.clone()),
                _ => continue,
            }
            if let Some(left) = &mut rule.left {
                *left -= 1;
            }
        }
        self.rules.retain(|rule| rule.left != Some(0));
        (delay_ms, fault)
    }

    /// What stands, for people.
    pub(crate) fn describe(&self) -> Vec<(FaultId, String)> {
        let line = |rule: &Rule| {
            let left = rule.left.map_or("until lifted".to_owned(), |left| format!("{left} more"));
            format!("{}: {:?} ({left})", rule.target.describe(), rule.fault)
        };
        self.rules.iter().map(|rule| (rule.id, line(rule))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_hits_as_often_as_it_was_asked_to() {
        let mut rules = Rules::default();
        rules.add(Target::Api(Provider::Yookassa, "POST /payments".into()), Fault::CutAfter, Some(1));
        rules.add(Target::Api(Provider::Yookassa, String::new()), Fault::Delay(5), None);
        let create = Place::of("POST", "/yookassa/v3/payments");
        assert_eq!(rules.take(&Place::of("GET", "/yookassa/v3/payments")), (5, None));
        assert_eq!(rules.take(&create), (5, Some(Fault::CutAfter)));
        assert_eq!(rules.take(&create), (5, None));
        assert_eq!(rules.take(&Place::of("POST", "/heleket/v1/payment")), (0, None));
    }

    #[test]
    fn telegram_methods_match_in_any_case() {
        let mut rules = Rules::default();
        rules.add(Target::Telegram("sendmessage".into()), Fault::TooMany { retry_after: 3 }, None);
        let (_, fault) = rules.take(&Place::of("POST", "/telegram/bot1:x/sendMessage"));
        assert_eq!(fault, Some(Fault::TooMany { retry_after: 3 }));
        assert_eq!(rules.take(&Place::of("POST", "/telegram/bot1:x/getMe")), (0, None));
    }
}
