//! Campaigns: one message to many people, each of whom has a row that ends.
//!
//! A campaign begins with an exact snapshot of its audience, never with a part of it. A recipient's row is the message: it is
//! written as being sent before the call and as ended after it, so a death in between leaves a row whose fate is not known, and
//! nobody is forgotten. One job runs a campaign ([`RunCampaign`]), by the same pace as all other messages and behind them. A
//! campaign is finished when the ends of its rows sum to its snapshot, and not before.
//!
//! Nothing is sent to many before its owner has looked at it and got it as a test; over a number of people, and over the
//! owner's limit, the number is told in place of a start.

pub mod flows;
pub mod http;
mod model;
mod outcome;
pub mod preview;
mod run;
pub mod segments;
mod send;
mod sql;
mod test_send;
pub mod view;

use std::time::Duration;

use semel_kernel::jobs::Workers;

pub use model::*;
pub use run::RunCampaign;
pub use sql::STATEMENTS;
pub use test_send::TestCampaign;

use crate::Shop;

/// Teaches `workers` this feature's jobs.
pub fn jobs(workers: Workers<Shop>) -> Workers<Shop> {
    workers.with::<RunCampaign>().with::<TestCampaign>()
}

/// The owner's rules about campaigns.
#[derive(Clone, Debug)]
pub struct Broadcast {
    /// A campaign to more people is refused with the number; zero is no limit.
    pub max_users: i64,
    /// A campaign to more people than this starts only with its number said once more.
    pub confirm_over: i64,
    /// A lower speed than Telegram allows, if the owner wants one.
    pub speed: Option<Speed>,
}

impl Default for Broadcast {
    fn default() -> Self {
        Self { max_users: 5_000, confirm_over: 1_000, speed: None }
    }
}

/// So many messages, then a rest: never faster than that, and never faster than Telegram allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speed {
    /// Messages of one batch; at least one.
    pub batch: u32,
    /// From the beginning of one batch to that of the next.
    pub rest: Duration,
}

/// Rows that are written as being sent at a time. Who dies leaves so many and what is in flight whose fate is not known.
const PIECE: u32 = 50;
/// A piece is what the pace lets go in so many seconds, or rows would count as being sent that only wait.
const PIECE_S: u32 = 2;
/// Rows whose fate one transaction changes at a stroke: a longer one would keep everybody else from writing for as long.
const AT_A_TIME: i64 = 5_000;
/// So many campaigns send at the same time: the places of their lane.
const AT_ONCE: i64 = 16;

impl Speed {
    /// The size of a piece at this speed, at most `most`, and the time from the beginning of one to that of the next.
    fn piece(self, most: u32) -> (u32, Duration) {
        let batch = self.batch.max(1);
        let size = batch.min(most.max(1));
        (size, self.rest.saturating_mul(size) / batch)
    }
}

/// The size of a piece, at most `most`, and the least time from one to the next, as the owner's rules want it.
fn piece(rules: &Broadcast, most: u32) -> (u32, Duration) {
    rules.speed.map_or((most, Duration::ZERO), |speed| speed.piece(most))
}

/// The longest piece of one of `running` campaigns at `rate` messages a second. They take turns by pieces, so equal pieces are
/// equal shares.
fn share(rate: u32, running: i64) -> u32 {
    let running = u32::try_from(running.clamp(1, AT_ONCE)).unwrap_or(1);
    (rate.saturating_mul(PIECE_S) / running).clamp(1, PIECE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owners_speed_is_kept_by_pieces_of_any_size() {
        let speed = |batch, seconds| Speed { batch, rest: Duration::from_secs(seconds) }.piece(PIECE);
        assert_eq!(speed(25, 1), (25, Duration::from_secs(1)));
        assert_eq!(speed(100, 10), (50, Duration::from_secs(5)));
        assert_eq!(speed(1, 3), (1, Duration::from_secs(3)));
        assert_eq!(speed(0, 3), (1, Duration::from_secs(3)));
        assert_eq!(piece(&Broadcast::default(), PIECE), (PIECE, Duration::ZERO));
        let slow = Broadcast { speed: Some(Speed { batch: 25, rest: Duration::from_secs(1) }), ..Broadcast::default() };
        assert_eq!(piece(&slow, 5), (5, Duration::from_millis(200)), "a smaller share is no faster");
    }

    #[test]
    fn campaigns_share_what_the_pace_lets_go() {
        assert_eq!(share(28, 1), PIECE);
        assert_eq!((share(30, 3), share(30, 16), share(30, 500)), (20, 3, 3));
        assert_eq!((share(5, 1), share(1, 16), share(0, 0)), (10, 1, 1), "a low rate makes small pieces, never none");
    }
}
