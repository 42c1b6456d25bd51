//! Wake-ups between copies that share one PostgreSQL.
//!
//! What a commit woke here is told to the other copies by `NOTIFY`: the first name at once, then at most one notice in
//! [`PAUSE`], with every name gathered meanwhile. A notice is a transaction of its own and never a part of a business's,
//! because PostgreSQL lets transactions that notify commit only one after another. A notice that is lost costs the
//! wait for the next poll and nothing else.
//!
//! Who hears has one connection of its own beside the pool, straight to PostgreSQL: `LISTEN` is state of a session,
//! which a pooler would give to somebody else.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::sync::Notify;
use tokio_postgres::{AsyncMessage, Error};
use tokio_util::sync::CancellationToken;

use super::postgres::address::Address;
use super::postgres::connect::{Connected, Messages, connect_to};
use super::wakes::Wakes;
use super::{Engine, Store, StoreError};
use crate::args;
use crate::failpoint::{check, fail, hit, reach};

/// At most one notice in this time.
const PAUSE: Duration = Duration::from_millis(100);
/// How long telling once may take: a command that has done its work does not wait for a database that is slow.
const ONCE: Duration = Duration::from_secs(1);
/// How often the silent connection is asked whether it is still there.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How long connecting, or one answer on the connection, may take.
const LIMIT: Duration = Duration::from_secs(5);

const LISTEN: &str = "listen semel_wake";
const NOTIFY: &str = "select pg_notify('semel_wake', $1)";

impl Store {
    /// Whether the wake-ups of other copies reach this process by themselves now: then polling may be rare.
    pub fn hears_copies(&self) -> bool {
        self.inner.wakes.hears()
    }

    /// Tells other copies what commits of this process wake, until `stop`. `tag` says who tells: it is unique among
    /// copies and holds no colon. Nobody hears anything of an embedded database, which has no other copy.
    pub async fn tell_copies(&self, tag: &str, stop: CancellationToken) -> Result<(), StoreError> {
        if self.engine() == Engine::Sqlite {
            stop.cancelled().await;
            return Ok(());
        }
        self.inner.wakes.gather();
        loop {
            let names = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                names = self.inner.wakes.untold() => names,
            };
            self.tell(tag, &names).await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// From now on what commits of this process wake is noted for [`Store::tell_once`]. Nothing on an embedded database.
    pub fn note_wakes(&self) {
        if self.engine() == Engine::Postgres {
            self.inner.wakes.gather();
        }
    }

    /// Tells other copies once what was woken since [`Store::note_wakes`], if anything was: for a command, which ends
    /// before [`Store::tell_copies`] could go on for it. Takes a second at most. A notice that is lost costs the wait for
    /// their next poll.
    pub async fn tell_once(&self, tag: &str) {
        if let Some(names) = self.inner.wakes.untold().now_or_never()
            && tokio::time::timeout(ONCE, self.tell(tag, &names)).await.is_err()
        {
            tracing::debug!("other copies were not told of new work in time; they find it when they look");
        }
    }

    async fn tell(&self, tag: &str, names: &BTreeSet<&'static str>) {
        if reach("copies.tell", "notify").await {
            return; // A notice that is lost.
        }
        if let Err(error) = self.notify(notice(tag, names)).await {
            tracing::debug!(%error, "other copies were not told of new work; they find it when they look");
        }
        hit("copies.told", "notify");
    }

    /// Hears what other copies tell ([`Store::tell_copies`]) over a connection of its own to `url`, and wakes whom it
    /// concerns here, until `stop`. Once it is connected it wakes everybody, because something may have been missed.
    ///
    /// An error ends it: run it under a supervisor, which connects again. Behind a pooler it says so once and does
    /// nothing more.
    pub async fn hear_copies(&self, url: &str, tag: &str, stop: CancellationToken) -> Result<(), StoreError> {
        let address = address_of(url)?;
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            ended = self.hear(&address, tag) => ended,
        }
    }

    /// Whether [`Store::hear_copies`] would hear something at `url`: `false` when a pooler stands in between.
    pub async fn can_hear_copies(&self, url: &str, tag: &str) -> Result<bool, StoreError> {
        let ear = Ear { wakes: &self.inner.wakes, tag, echo: Notify::new() };
        Ok(self.open_ear(&address_of(url)?, &ear).await?.is_some())
    }

    async fn hear(&self, address: &Address, tag: &str) -> Result<(), StoreError> {
        let wakes = &self.inner.wakes;
        let ear = Ear { wakes, tag, echo: Notify::new() };
        check("copies.listen", "listen")?;
        let Some(mut connected) = self.open_ear(address, &ear).await? else {
            tracing::warn!(
                "the address for LISTEN leads through a connection pooler, where nothing can be heard: give \
                 database_listen_url the address of PostgreSQL itself, or leave it out. Work of other copies is found by \
                 polling meanwhile"
            );
            return std::future::pending().await;
        };
        wakes.wake_all();
        let _hearing = wakes.hearing();
        check("copies.listening", "listen")?;
        tracing::info!("this copy hears when others have work");
        loop {
            ear.attend(&mut connected.messages, tokio::time::sleep(HEARTBEAT)).await?;
            ear.attend(&mut connected.messages, in_time(connected.client.check_connection())).await??;
        }
    }

    /// Connects, listens, and waits for the echo of a notice of our own, which went through the pool: without it the
    /// address belongs to another database, and silence there would mean nothing. `None` behind a pooler.
    async fn open_ear(&self, address: &Address, ear: &Ear<'_>) -> Result<Option<Connected>, StoreError> {
        let mut connected = connect_to(address).await?;
        if !connected.direct {
            return Ok(None);
        }
        ear.attend(&mut connected.messages, in_time(connected.client.batch_execute(LISTEN))).await??;
        let echo = async {
            self.notify(notice(ear.tag, &BTreeSet::new())).await?;
            tokio::time::timeout(LIMIT, ear.echo.notified()).await.map_err(|_| {
                StoreError::Unavailable(
                    "what is told through the pool is not heard at the address for LISTEN: both must lead to one database"
                        .into(),
                )
            })
        };
        ear.attend(&mut connected.messages, echo).await??;
        Ok(Some(connected))
    }

    async fn notify(&self, notice: String) -> Result<(), StoreError> {
        self.single("copies.tell", move |tx| tx.execute(NOTIFY, args![&notice]).map(|_| ())).await
    }
}

/// Sorts what comes over the connection.
struct Ear<'a> {
    wakes: &'a Wakes,
    tag: &'a str,
    /// A notice of our own came back.
    echo: Notify,
}

impl Ear<'_> {
    /// Waits for `end` and hears meanwhile: the connection moves only while somebody asks it for messages.
    async fn attend<T>(&self, messages: &mut Messages, end: impl Future<Output = T>) -> Result<T, StoreError> {
        let mut end = std::pin::pin!(end);
        loop {
            tokio::select! {
                done = &mut end => return Ok(done),
                message = messages.next() => match message {
                    Some(Ok(AsyncMessage::Notification(notice))) => self.hear(notice.payload()),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(broken(&error)),
                    None => return Err(StoreError::Unavailable("the connection for LISTEN was closed".into())),
                }
            }
        }
    }

    fn hear(&self, notice: &str) {
        if fail("copies.heard", "listen") {
            return; // A notice that is lost.
        }
        match notice.split_once(':') {
            // We woke ourselves when it happened.
            Some((tag, _)) if tag == self.tag => self.echo.notify_one(),
            Some((_, names)) => names.split(',').for_each(|name| self.wakes.wake_heard(name)),
            None => {}
        }
    }
}

/// What is told: `tag:name,name`. Far below the 8000 bytes that PostgreSQL takes, because names are few and ours.
fn notice(tag: &str, names: &BTreeSet<&'static str>) -> String {
    let names: Vec<&str> = names.iter().copied().collect();
    format!("{tag}:{}", names.join(","))
}

/// Sessions with a name of their own, so that whoever counts them can tell these from the pool's.
fn address_of(url: &str) -> Result<Address, StoreError> {
    Address::parse(url, "semel-listen", LIMIT)
}

async fn in_time(asking: impl Future<Output = Result<(), Error>>) -> Result<(), StoreError> {
    match tokio::time::timeout(LIMIT, asking).await {
        Ok(answer) => answer.map_err(|error| broken(&error)),
        Err(_) => {
            Err(StoreError::Unavailable(format!("no answer on the connection for LISTEN within {} s", LIMIT.as_secs())))
        }
    }
}

fn broken(error: &Error) -> StoreError {
    let text = match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(told), _) => told.message().to_owned(),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    };
    StoreError::Unavailable(format!("the connection for LISTEN broke off: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_of_another_copy_wakes_and_our_own_is_only_an_echo() {
        let wakes = Wakes::default();
        let (money, care) = (wakes.of("money"), wakes.of("care"));
        let ear = Ear { wakes: &wakes, tag: "run_1", echo: Notify::new() };

        ear.hear(&notice("run_1", &BTreeSet::from(["money", "care"])));
        assert!(money.notified().now_or_never().is_none() && care.notified().now_or_never().is_none());
        assert!(ear.echo.notified().now_or_never().is_some());

        ear.hear(&notice("run_2", &BTreeSet::from(["money", "care"])));
        assert!(money.notified().now_or_never().is_some() && care.notified().now_or_never().is_some());
        // An echo of somebody else, and what is no notice of ours at all.
        for told in [notice("run_2", &BTreeSet::new()), "money".to_owned(), String::new()] {
            ear.hear(&told);
            assert!(money.notified().now_or_never().is_none(), "{told}");
        }
        assert!(ear.echo.notified().now_or_never().is_none());
    }
}
