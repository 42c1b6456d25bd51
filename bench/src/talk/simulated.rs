//! A large campaign in simulated time: the pacer itself against the strict window, with ways that take longer and shorter,
//! timers that wake late, and a slow answer now and then.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use anyhow::{Result, bail};
use semel_kernel::clock::{Chance, Stopwatch};
use semel_telegram::pacer::{Lane, Limits, Moment, Next, Outcome, Pacer};

use super::strict::PER_SECOND;

/// Recipients of one piece, and how few are left when the next is taken, as in the program.
const PIECE: u64 = 50;
const LOW: u64 = 12;
/// The way there takes so long, and up to so much longer, milliseconds.
const WAY: i64 = 20;
const WAY_MORE: u64 = 8;
/// The way back likewise.
const BACK: i64 = 20;
const BACK_MORE: u64 = 40;
/// One answer of so many takes so much longer, milliseconds.
const SLOW_ONE_OF: u64 = 100;
const SLOW: i64 = 1_000;
/// A timer wakes up to so late, milliseconds.
const LATE: u64 = 1;

/// What came of it.
pub struct Simulated {
    /// From the beginning to the last message's arrival.
    pub took: Duration,
    /// How many were refused.
    pub refused: usize,
    /// How long the simulation took.
    pub computed_in: Duration,
}

enum Event {
    Arrives { key: u64, began: Moment },
    Answered { key: u64, began: Moment, accepted: bool },
}

struct Simulation {
    pacer: Pacer<u64>,
    chance: Chance,
    events: BTreeMap<(Moment, u64), Event>,
    serial: u64,
    /// Arrivals in the last second.
    window: VecDeque<Moment>,
    offered: u64,
    ended: u64,
    refused: usize,
    last: Moment,
}

/// Sends one message to each of so many people.
pub fn campaign(people: u64) -> Result<Simulated> {
    let watch = Stopwatch::start();
    let limit = u32::try_from(PER_SECOND)?;
    let mut pacer = Pacer::new(Limits::per_second(limit), 0);
    pacer.start_carefully(0);
    let mut simulation = Simulation {
        pacer,
        chance: Chance::seeded(30),
        events: BTreeMap::new(),
        serial: 0,
        window: VecDeque::new(),
        offered: 0,
        ended: 0,
        refused: 0,
        last: 0,
    };
    let mut now = 0;
    while simulation.ended < people {
        simulation.happen(now)?;
        simulation.offer(people);
        now = match simulation.pacer.next(now) {
            Next::Send { key, .. } => {
                let arrives = now + WAY + simulation.up_to(WAY_MORE)?;
                simulation.later(arrives, Event::Arrives { key, began: now });
                now
            }
            Next::Wait(at) => {
                let woken = at + simulation.up_to(LATE)?;
                simulation.next_event().map_or(woken, |event| event.min(woken))
            }
            Next::Idle | Next::Full(_) => match simulation.next_event() {
                Some(at) => at,
                None if simulation.ended >= people => now,
                None => bail!("the pacer has nothing to do, and {} of {people} have ended", simulation.ended),
            },
        };
    }
    Ok(Simulated {
        took: Duration::from_millis(u64::try_from(simulation.last)?),
        refused: simulation.refused,
        computed_in: watch.elapsed(),
    })
}

impl Simulation {
    /// Everything that is due.
    fn happen(&mut self, now: Moment) -> Result<()> {
        while self.next_event().is_some_and(|at| at <= now) {
            let Some(((at, _), event)) = self.events.pop_first() else { break };
            match event {
                Event::Arrives { key, began } => {
                    let accepted = self.judge(at);
                    let slow = if self.chance.below(SLOW_ONE_OF) == 0 { SLOW } else { 0 };
                    let answered = at + BACK + self.up_to(BACK_MORE)? + slow;
                    self.later(answered, Event::Answered { key, began, accepted });
                }
                Event::Answered { key, began, accepted: true } => {
                    let took = Duration::from_millis(u64::try_from(at - began)?);
                    let _ = self.pacer.done(&key, at, Outcome::Sent { took });
                    self.ended += 1;
                }
                Event::Answered { key, accepted: false, .. } => {
                    let refused = Outcome::Refused429 {
                        retry_after: Duration::from_secs(1),
                        jitter: Duration::from_millis(self.chance.below(251)),
                    };
                    let _ = self.pacer.done(&key, at, refused);
                    self.pacer.offer(key, chat(key)?, Lane::Campaign);
                }
            }
        }
        Ok(())
    }

    /// Whether a message that arrives now is within the limit.
    fn judge(&mut self, at: Moment) -> bool {
        while self.window.front().is_some_and(|first| first + 1_000 <= at) {
            self.window.pop_front();
        }
        if self.window.len() >= PER_SECOND {
            self.refused += 1;
            return false;
        }
        self.window.push_back(at);
        self.last = at;
        true
    }

    /// The next piece, when the one before is nearly through.
    fn offer(&mut self, people: u64) {
        if self.offered - self.ended > LOW {
            return;
        }
        for key in self.offered..people.min(self.offered + PIECE) {
            if let Ok(chat) = chat(key) {
                self.pacer.offer(key, chat, Lane::Campaign);
            }
            self.offered = key + 1;
        }
    }

    fn later(&mut self, at: Moment, event: Event) {
        self.events.insert((at, self.serial), event);
        self.serial += 1;
    }

    fn next_event(&self) -> Option<Moment> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    fn up_to(&self, most: u64) -> Result<i64> {
        Ok(i64::try_from(self.chance.below(most + 1))?)
    }
}

fn chat(key: u64) -> Result<i64> {
    Ok(1_000_000 + i64::try_from(key)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_campaign_uses_the_rate_and_is_never_refused() {
        let run = campaign(3_000).expect("it ends");
        assert_eq!(run.refused, 0);
        assert!(run.took < Duration::from_secs(104), "{:?}", run.took);
    }
}
