//! Who to wake in this process when a transaction has committed, and what other copies shall hear of it.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

#[derive(Default)]
pub(super) struct Wakes {
    waiters: Mutex<HashMap<&'static str, Arc<Notify>>>,
    /// Names woken here that other copies were not told of yet. Nothing is gathered before somebody tells them.
    untold: Mutex<Option<BTreeSet<&'static str>>>,
    /// Whoever tells other copies waits here.
    telling: Notify,
    hears: AtomicBool,
}

impl Wakes {
    pub(super) fn of(&self, name: &'static str) -> Arc<Notify> {
        Arc::clone(lock(&self.waiters).entry(name).or_default())
    }

    /// A commit of this process: wakes here, and notes it for the other copies.
    pub(super) fn wake(&self, name: &'static str) {
        self.of(name).notify_one();
        if let Some(untold) = &mut *lock(&self.untold) {
            untold.insert(name);
            self.telling.notify_one();
        }
    }

    /// A commit of another copy: wakes here alone. A name that nobody waits for in this process is none of its business.
    pub(super) fn wake_heard(&self, name: &str) {
        if let Some(waiter) = lock(&self.waiters).get(name) {
            waiter.notify_one();
        }
    }

    /// Wakes everybody here: something may have been missed.
    pub(super) fn wake_all(&self) {
        lock(&self.waiters).values().for_each(|waiter| waiter.notify_one());
    }

    /// From now on what is woken here is gathered for other copies.
    pub(super) fn gather(&self) {
        let mut untold = lock(&self.untold);
        if untold.is_none() {
            *untold = Some(BTreeSet::new());
        }
    }

    /// The names gathered so far, each once; waits until there is one.
    pub(super) async fn untold(&self) -> BTreeSet<&'static str> {
        loop {
            let names = lock(&self.untold).as_mut().map(std::mem::take).unwrap_or_default();
            if !names.is_empty() {
                return names;
            }
            self.telling.notified().await;
        }
    }

    pub(super) fn hears(&self) -> bool {
        self.hears.load(Ordering::SeqCst)
    }

    /// Other copies are heard while the answer lives.
    pub(super) fn hearing(&self) -> Hearing<'_> {
        self.hears.store(true, Ordering::SeqCst);
        Hearing(self)
    }
}

/// See [`Wakes::hearing`].
#[must_use]
pub(super) struct Hearing<'a>(&'a Wakes);

impl Drop for Hearing<'_> {
    fn drop(&mut self) {
        self.0.hears.store(false, Ordering::SeqCst);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn what_is_woken_here_is_told_once_and_what_is_heard_is_not_told_on() {
        let wakes = Wakes::default();
        wakes.wake("early");
        assert!(wakes.untold().now_or_never().is_none(), "nobody tells other copies, so nothing is gathered");

        wakes.gather();
        let (money, care) = (wakes.of("money"), wakes.of("care"));
        wakes.wake("money");
        wakes.wake("money");
        wakes.wake_heard("care");
        wakes.wake_heard("a name of a newer copy");
        assert!(money.notified().now_or_never().is_some() && care.notified().now_or_never().is_some());
        assert_eq!(wakes.untold().now_or_never(), Some(BTreeSet::from(["money"])));
        assert!(wakes.untold().now_or_never().is_none());
    }

    #[test]
    fn other_copies_are_heard_while_the_ear_lives() {
        let wakes = Wakes::default();
        assert!(!wakes.hears());
        let hearing = wakes.hearing();
        assert!(wakes.hears());
        drop(hearing);
        assert!(!wakes.hears());
    }
}
