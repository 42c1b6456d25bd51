//! What is known about each host key: breaker, pace, pause, counts. A bounded map behind one lock.
//!
//! The lock is held for a few comparisons and never across a wait. When the map is full, the host key that nobody has
//! used for longest and that nothing holds back is forgotten, so keys made of data cannot eat the memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::breaker::{Breaker, BreakerState};
use super::pace::{Pace, Pacer};
use crate::clock::{Chance, Time};

/// Host keys that are remembered at most.
const MOST_HOSTS: usize = 1_024;
/// When a call may ask again that met a host whose right to be called is another process's.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A breaker as pages and metrics see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerView {
    /// The host key.
    pub host: String,
    /// Where the breaker stands.
    pub state: BreakerState,
    /// Failures since the last success.
    pub failures: u32,
    /// When a probe may go, while it is open.
    pub open_until: Option<Time>,
}

/// Counts of one host key since the program started (or since the key was forgotten and met again).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostStats {
    /// The host key.
    pub host_key: String,
    /// Calls made, those that were kept from being sent included.
    pub calls: u64,
    /// Calls turned away by the breaker, by a pause or by the pace.
    pub turned_away: u64,
    /// Tries that ended without an answer or with a 5xx.
    pub failures: u64,
    /// Tries beyond the first one of a call.
    pub retries: u64,
    /// The status of the last answer.
    pub last_status: Option<u16>,
    /// Milliseconds spent in tries, summed up; waits for breaker, pause and pace do not count.
    pub p_total_ms: u64,
}

/// What the door says to a call that wants to be sent now.
#[derive(Debug)]
pub(super) enum Door {
    /// Go. The holder of a probe has to report how it went.
    Go { probe: bool },
    /// Wait until then, and knock again with the pause that was waited out.
    Wait { until: Time, pause: Time },
    /// The breaker is open.
    Open { until: Time },
    /// A pause or the pace leaves no room before the deadline, or the right to call is another process's.
    TooLong { until: Time },
}

/// What a try tells about the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// It answered, and not with a 5xx.
    Well,
    /// It did not answer, or with a 5xx.
    Ill,
    /// Nothing: the try ended before it could.
    Unknown,
}

/// One try as it is booked.
#[derive(Debug)]
pub(super) struct Tried {
    pub(super) probe: bool,
    pub(super) health: Health,
    pub(super) status: Option<u16>,
    pub(super) took_ms: u64,
    pub(super) again: bool,
    pub(super) pause: Option<Time>,
}

struct Host {
    breaker: Breaker,
    pacer: Pacer,
    paused: Time,
    /// Calls may leave before this moment only; without one they always may.
    allowed: Option<Time>,
    used: Time,
    calls: u64,
    turned_away: u64,
    failures: u64,
    retries: u64,
    last_status: Option<u16>,
    total_ms: u64,
}

impl Host {
    fn new(now: Time) -> Self {
        Self {
            breaker: Breaker::new(),
            pacer: Pacer::new(),
            paused: Time::from_millis(0),
            allowed: None,
            used: now,
            calls: 0,
            turned_away: 0,
            failures: 0,
            retries: 0,
            last_status: None,
            total_ms: 0,
        }
    }

    /// Whether forgetting this host would let calls through that must wait.
    fn held_back(&self, now: Time) -> bool {
        self.paused > now || self.allowed.is_some() || self.breaker.state() != BreakerState::Closed
    }
}

/// All host keys of one [`Outbound`](super::Outbound).
pub(super) struct Hosts {
    chance: Chance,
    map: Mutex<BTreeMap<String, Host>>,
}

impl Hosts {
    pub(super) fn new(chance: Chance) -> Self {
        Self { chance, map: Mutex::new(BTreeMap::new()) }
    }

    /// Counts a call that has begun.
    pub(super) fn begun(&self, key: &str, now: Time) {
        self.with(key, now, |host| host.calls += 1);
    }

    /// Asks whether a try may go now. `latest` is when it has to go at the latest, `waited` the pause that this call
    /// has already waited out: a pause is waited out once, even by a clock that stands still.
    pub(super) fn knock(&self, key: &str, now: Time, latest: Time, pace: Option<Pace>, waited: Option<Time>) -> Door {
        self.with(key, now, |host| {
            if host.allowed.is_some_and(|until| now >= until) {
                host.turned_away += 1;
                return Door::TooLong { until: now + ASK_AGAIN };
            }
            if let Some(until) = host.breaker.refuses(now) {
                host.turned_away += 1;
                return Door::Open { until };
            }
            if waited.is_none_or(|pause| host.paused > pause) {
                // The slot lies behind the pause, so those who waited for its end do not rush in together.
                let from = host.paused.max(now);
                let slot = pace.map_or(from, |pace| host.pacer.slot(from, pace));
                if slot > now && slot > latest {
                    host.turned_away += 1;
                    return Door::TooLong { until: slot };
                }
                if let Some(pace) = pace {
                    host.pacer.take(slot, pace);
                }
                if slot > now {
                    return Door::Wait { until: slot, pause: host.paused };
                }
            }
            Door::Go { probe: host.breaker.enter() }
        })
    }

    /// Books a try that has ended.
    pub(super) fn tried(&self, key: &str, now: Time, tried: &Tried) {
        self.with(key, now, |host| {
            match tried.health {
                Health::Well => host.breaker.succeeded(tried.probe),
                Health::Ill => {
                    host.breaker.failed(tried.probe, now, &self.chance);
                    host.failures += 1;
                }
                Health::Unknown if tried.probe => host.breaker.abandoned(now),
                Health::Unknown => {}
            }
            if let Some(until) = tried.pause {
                host.paused = host.paused.max(until);
            }
            host.retries += u64::from(tried.again);
            host.last_status = tried.status.or(host.last_status);
            host.total_ms = host.total_ms.saturating_add(tried.took_ms);
        });
    }

    /// A probe's caller went away.
    pub(super) fn abandoned(&self, key: &str, now: Time) {
        self.with(key, now, |host| host.breaker.abandoned(now));
    }

    /// Nothing is sent to this host key before `until`. A longer pause stays.
    pub(super) fn pause(&self, key: &str, now: Time, until: Time) {
        self.with(key, now, |host| host.paused = host.paused.max(until));
    }

    /// Calls to this host key leave before `until` only, until this is said again.
    pub(super) fn allow(&self, key: &str, now: Time, until: Time) {
        self.with(key, now, |host| host.allowed = Some(until));
    }

    pub(super) fn breakers(&self) -> Vec<BreakerView> {
        self.lock()
            .iter()
            .map(|(key, host)| BreakerView {
                host: key.clone(),
                state: host.breaker.state(),
                failures: host.breaker.failures(),
                open_until: host.breaker.open_until(),
            })
            .collect()
    }

    pub(super) fn stats(&self) -> Vec<HostStats> {
        self.lock()
            .iter()
            .map(|(key, host)| HostStats {
                host_key: key.clone(),
                calls: host.calls,
                turned_away: host.turned_away,
                failures: host.failures,
                retries: host.retries,
                last_status: host.last_status,
                p_total_ms: host.total_ms,
            })
            .collect()
    }

    fn with<T>(&self, key: &str, now: Time, act: impl FnOnce(&mut Host) -> T) -> T {
        let mut map = self.lock();
        if !map.contains_key(key) && map.len() >= MOST_HOSTS {
            let victim =
                map.iter().min_by_key(|(_, host)| (host.held_back(now), host.used)).map(|(key, _)| key.clone());
            if let Some(victim) = victim {
                map.remove(&victim);
            }
        }
        let host = map.entry(key.to_owned()).or_insert_with(|| Host::new(now));
        host.used = now;
        act(host)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Host>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_millis(50_000);

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_pause_is_waited_out_when_it_fits_and_named_when_it_does_not() {
        let hosts = Hosts::new(Chance::seeded(1));
        let until = NOW + secs(5);
        hosts.pause("bank", NOW, until);
        hosts.pause("bank", NOW, NOW + secs(1));

        assert!(
            matches!(hosts.knock("bank", NOW, NOW + secs(3), None, None), Door::TooLong { until: at } if at == until)
        );
        let door = hosts.knock("bank", NOW, NOW + secs(9), None, None);
        assert!(matches!(door, Door::Wait { until: at, pause } if at == until && pause == until));
        assert!(matches!(hosts.knock("bank", until, NOW + secs(9), None, Some(until)), Door::Go { probe: false }));
        assert!(matches!(hosts.knock("shop", NOW, NOW, None, None), Door::Go { probe: false }), "keys are apart");
    }

    #[test]
    fn those_who_wait_for_the_end_of_a_pause_leave_one_by_one() {
        let hosts = Hosts::new(Chance::seeded(1));
        let pace = Some(Pace { per_second: 10, burst: 1 });
        hosts.pause("bank", NOW, NOW + secs(1));
        let mut leaves = Vec::new();
        for _ in 0..3 {
            match hosts.knock("bank", NOW, NOW + secs(9), pace, None) {
                Door::Wait { until, .. } => leaves.push(until.since(NOW).as_millis()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(leaves, [1_000, 1_100, 1_200]);
    }

    #[test]
    fn a_right_to_call_that_ran_out_turns_away_whoever_waited_for_a_slot() {
        let hosts = Hosts::new(Chance::seeded(1));
        let pace = Some(Pace { per_second: 10, burst: 1 });
        hosts.allow("bot", NOW, NOW + secs(1));
        assert!(matches!(hosts.knock("bot", NOW, NOW + secs(9), pace, None), Door::Go { .. }));
        let Door::Wait { until, pause } = hosts.knock("bot", NOW, NOW + secs(9), pace, None) else { panic!("no wait") };
        assert_eq!(until, NOW + Duration::from_millis(100));

        let late = NOW + secs(1);
        assert!(
            matches!(hosts.knock("bot", late, late + secs(9), pace, Some(pause)), Door::TooLong { until } if until > late)
        );
        assert!(matches!(hosts.knock("bank", late, late, None, None), Door::Go { .. }), "keys are apart");
        hosts.allow("bot", late, late + secs(1));
        assert!(matches!(hosts.knock("bot", late, late + secs(9), pace, Some(pause)), Door::Go { .. }));
    }

    #[test]
    fn a_full_map_forgets_the_idle_key_and_keeps_the_paused_one() {
        let hosts = Hosts::new(Chance::seeded(1));
        hosts.pause("paused", NOW, NOW + secs(3_600));
        hosts.begun("idle", NOW);
        for key in 0..MOST_HOSTS {
            hosts.begun(&format!("key-{key}"), NOW + secs(1));
        }
        let known: Vec<String> = hosts.stats().into_iter().map(|stats| stats.host_key).collect();
        assert_eq!(known.len(), MOST_HOSTS);
        assert!(known.iter().any(|key| key == "paused"));
        assert!(!known.iter().any(|key| key == "idle"));
    }
}
