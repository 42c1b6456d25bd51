//! Others who send the same messages: the usual way in Python, grammY, teloxide. Each is a program of its own, as its
//! documentation shows it, with a bot of its own on the same strict server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use tokio::process::Command;

use super::strict::{Book, Strict};
use crate::place::{Kept, Place};

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Twenty-five one after another, and a second of sleep.
    OneByOne,
    /// Twenty-five at once, and a second of sleep.
    Together,
    /// grammY with its throttler and auto-retry.
    Grammy,
    /// teloxide with its `Throttle`.
    Teloxide,
}

impl Peer {
    /// All of them.
    pub const ALL: [Peer; 4] = [Peer::OneByOne, Peer::Together, Peer::Grammy, Peer::Teloxide];

    /// Its name in tables of results.
    pub fn label(self) -> &'static str {
        match self {
            Peer::OneByOne => "The usual way (b): 25 one by one, sleep 1 s",
            Peer::Together => "The usual way (b): 25 at once, sleep 1 s",
            Peer::Grammy => "grammY with throttler and auto-retry",
            Peer::Teloxide => "teloxide with Throttle",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Peer::OneByOne => "peer_one_by_one",
            Peer::Together => "peer_together",
            Peer::Grammy => "peer_grammy",
            Peer::Teloxide => "peer_teloxide",
        }
    }

    /// The token of its bot in this round.
    fn token(self, round: &str) -> String {
        format!("70{}:AAE-{}_{round}_0123456789", self as u8, self.name())
    }

    /// How it is started, or the sentence that says why it cannot be.
    fn command(self, place: &Place) -> Result<Command, String> {
        Ok(match self {
            Peer::OneByOne | Peer::Together => {
                let mut command = place.bare(&place.python);
                command.arg("-u").arg(place.usual.join("broadcast.py"));
                command.arg(if self == Peer::Together { "together" } else { "one-by-one" });
                command.env("PYTHONDONTWRITEBYTECODE", "1");
                command
            }
            Peer::Grammy => {
                let mut command = place.bare(Path::new("node"));
                command.arg(prepared("BENCH_GRAMMY")?.join("send.js"));
                command
            }
            Peer::Teloxide => place.bare(&prepared("BENCH_TELOXIDE")?),
        })
    }
}

/// What `bench/run` made ready under this name.
fn prepared(name: &str) -> Result<PathBuf, String> {
    match std::env::var(name) {
        Ok(path) if !path.is_empty() => Ok(PathBuf::from(path)),
        _ => Err(match std::env::var(format!("{name}_WHY")) {
            Ok(why) if !why.is_empty() => why,
            _ => "bench/run did not make it ready".to_owned(),
        }),
    }
}

/// What came of a peer.
pub enum Ran {
    /// It ended; this is what the server saw.
    Ended(Box<Book>),
    /// It could not be run, and why.
    Not(String),
}

/// Has a peer send `hot` messages to one chat and then one to each of `count` others, and waits until it ends.
pub async fn send(
    place: &Place,
    strict: &Strict,
    peer: Peer,
    round: &str,
    hot: usize,
    count: usize,
    longest: Duration,
) -> Result<Ran> {
    let mut command = match peer.command(place) {
        Ok(command) => command,
        Err(why) => return Ok(Ran::Not(why)),
    };
    let token = peer.token(round);
    command.arg(hot.to_string()).arg(count.to_string());
    command.env("TELEGRAM_API_URL", strict.url()).env("BOT_TOKEN", &token);
    command.env("TELOXIDE_API_URL", strict.url()).env("TELOXIDE_TOKEN", &token);
    let ended = match Kept::spawn(place, peer.name(), command) {
        Ok(kept) => kept.ended(longest).await,
        Err(error) => Err(error),
    };
    Ok(match ended {
        Ok(true) => Ran::Ended(Box::new(strict.book(&token))),
        Ok(false) => Ran::Not("it ended with an error".to_owned()),
        Err(error) => Ran::Not(format!("{error:#}")),
    })
}
