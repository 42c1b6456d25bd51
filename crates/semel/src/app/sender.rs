//! The sender of a bot: of all copies on one PostgreSQL, one at a time sends its messages.
//!
//! Telegram counts the messages of a bot, wherever they come from, so the pace has to live in one place. Every copy writes
//! messages, and a commit wakes whoever holds the lease as it wakes any other copy.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use semel_kernel::clock::Time;
use semel_kernel::jobs::Workers;
use semel_kernel::leases::{self, Sole};
use semel_kernel::store::{Engine, StoreError};
use semel_shop::{Lanes, Shop, messages};

/// What the lease is called, before the bot's id: the limits are the bot's, so a new token gets no second sender.
const LEASE: &str = "sender";
/// How long a dead sender is waited for, by another copy and by its own successor alike: nobody can tell from outside that a
/// holder is dead and not slow, and two senders would break the pace. Kept every two seconds, it bears a copy or a database
/// that stalls for some; and with two seconds to the next look of whoever waits and one of care, messages leave again
/// within ten seconds of a death. A stall that is longer only lets messages wait: the holder stops in time by itself.
const TERM: Duration = Duration::from_secs(6);
/// After a holder that did not give the lease back: its last calls may still be on their way.
const CARE: Duration = Duration::from_secs(1);

/// Who serves the lanes of messages and of campaigns: where several copies could, whoever holds the lease.
pub struct Sender {
    workers: Arc<Workers<Shop>>,
    shop: Shop,
    name: String,
    owner: String,
    term: Duration,
}

impl Sender {
    /// The sender for `lane`, if it is the lane of messages and something can leave: nothing does without a bot. Where the
    /// owner wants jobs of a dead copy taken up sooner than [`TERM`], the lease lasts no longer than they do.
    pub fn of(
        lane: &'static str,
        workers: &Arc<Workers<Shop>>,
        shop: &Shop,
        owner: &str,
        job_lease: Duration,
    ) -> Option<Sender> {
        if lane != Lanes::MESSAGES {
            return None;
        }
        let name = format!("{LEASE}:{}", shop.bot.as_ref()?.id());
        let (workers, shop, owner) = (Arc::clone(workers), shop.clone(), owner.to_owned());
        Some(Sender { workers, shop, name, owner, term: TERM.min(job_lease) })
    }

    /// Sends while this copy holds the lease, until `stop`. An error ends it: run it under a supervisor. An embedded database
    /// has one program, and nobody to share a lease with.
    pub async fn serve(self: Arc<Self>, stop: CancellationToken) -> Result<(), StoreError> {
        if self.shop.store.engine() == Engine::Sqlite {
            // After an error it is run again, by a process that had given the sending up.
            self.shop.pace().start_carefully();
            return self.send(stop).await;
        }
        leases::serve(&self.shop.store, &self.name, &self.owner, self.term, &*self, stop).await
    }

    /// Sends until `stop`, or until one of both lanes ends with an error. What lasts for long ends soon after it: meanwhile
    /// nobody takes what is new.
    async fn send(&self, stop: CancellationToken) -> Result<(), StoreError> {
        let ending = stop.child_token();
        let lane = |name: &'static str| {
            let (workers, shop, ending) = (Arc::clone(&self.workers), self.shop.clone(), ending.clone());
            async move {
                let ended = workers.serve(name, shop, ending.clone()).await;
                ending.cancel();
                ended
            }
        };
        let both = async {
            let (messages, campaigns) = tokio::join!(lane(Lanes::MESSAGES), lane(Lanes::CAMPAIGNS));
            messages.and(campaigns)
        };
        let mut serving = pin!(both);
        tokio::select! {
            ended = &mut serving => return ended,
            () = ending.cancelled() => self.shop.pace().leave(),
        }
        serving.await
    }
}

impl Sole for Sender {
    fn holds(&self, until: Time) {
        messages::allow_until(&self.shop, until);
    }

    async fn work(&self, clean: bool, stop: CancellationToken) -> Result<(), StoreError> {
        // Whoever held the lease before may have sent until now, and nobody here knows whom to.
        self.shop.pace().start_carefully();
        if !clean {
            messages::hold_back(&self.shop, CARE);
        }
        messages::recall_silence(&self.shop).await?;
        self.send(stop).await
    }
}
