//! A bot on teloxide as its documentation says: `Throttle` with its default limits, which repeats what was refused.
//!
//!     semel-bench-teloxide HOT COUNT      HOT messages to one chat, then one to each of COUNT others
//!
//! TELOXIDE_API_URL and TELOXIDE_TOKEN come from the environment.

use teloxide_core::Bot;
use teloxide_core::adaptors::throttle::Limits;
use teloxide_core::prelude::{ChatId, Requester, RequesterExt};
use tokio::task::JoinSet;

#[tokio::main]
async fn main() {
    let mut numbers = std::env::args().skip(1).map(|word| word.parse::<i64>().unwrap_or(0));
    let (hot, count) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let bot = Bot::from_env().throttle(Limits::default());
    let mut running = JoinSet::new();
    for chat in (0..hot).map(|_| 500).chain((0..count).map(|n| 2_000_000_000 + n)) {
        let bot = bot.clone();
        running.spawn(async move { bot.send_message(ChatId(chat), "News for everybody.").await.err() });
    }
    let (mut sent, mut failed) = (0_u32, 0_u32);
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok(None) => sent += 1,
            Ok(Some(error)) => {
                failed += 1;
                println!("{error}");
            }
            Err(error) => {
                failed += 1;
                println!("{error}");
            }
        }
    }
    println!("{sent} sent, {failed} failed");
}
