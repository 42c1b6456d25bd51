//! Who to wake in this process when a transaction has committed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

#[derive(Default)]
pub(super) struct Wakes(Mutex<HashMap<&'static str, Arc<Notify>>>);

impl Wakes {
    pub(super) fn of(&self, name: &'static str) -> Arc<Notify> {
        Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default())
    }

    pub(super) fn wake(&self, name: &'static str) {
        self.of(name).notify_one();
    }
}
