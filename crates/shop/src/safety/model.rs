//! What the database remembers of a restore, and what a process remembers of that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use semel_kernel::clock::Time;
use semel_payments::Provider;

/// Why nothing is sold, handed over or paid out. Begins the error of every job that waits for it.
pub const SAFE_MODE: &str = "safe mode";

/// A restore that no program has looked at yet: the mark `restored`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// When the backup was begun: what happened later is not in it.
    pub backup_at: Time,
    /// When it was restored.
    pub restored_at: Time,
}

/// Safe mode as the database keeps it: the mark `safe_mode`, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SafeMode {
    /// From when on the database may lack what happened.
    pub backup_at: Time,
    /// Since when safe mode is on.
    pub restored_at: Time,
    /// Every provider that the database knows payments of; those that are reconciled, with how.
    pub rails: BTreeMap<Provider, Option<Reconciled>>,
}

/// How a rail was brought up to date.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciled {
    /// When.
    pub at: Time,
    /// `list`, or `by hand: ` and the reason.
    pub how: String,
    /// Who: a token's id, `operator` for the owner at the machine, `semel` for the program itself.
    pub by: String,
}

impl SafeMode {
    /// The rails that wait: those that are set up now and those that the database knows, less those that are reconciled.
    pub fn waits_for(&self, configured: impl IntoIterator<Item = Provider>) -> Vec<Provider> {
        let known = self.rails.keys().copied();
        let all: std::collections::BTreeSet<Provider> = configured.into_iter().chain(known).collect();
        all.into_iter().filter(|provider| !self.is_reconciled(*provider)).collect()
    }

    /// Whether this rail is up to date.
    pub fn is_reconciled(&self, provider: Provider) -> bool {
        self.rails.get(&provider).is_some_and(Option::is_some)
    }
}

/// What this process last read about safe mode. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Safety(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    /// Whether the database was read at all.
    is_known: AtomicBool,
    is_on: AtomicBool,
    holds_back: AtomicBool,
}

impl Safety {
    /// Whether safe mode may be on: true until the database said that it is not. It never begins while a program runs, so
    /// "no" stays true; "yes" is to be asked again.
    pub fn may_be_on(&self) -> bool {
        !self.0.is_known.load(Ordering::SeqCst) || self.0.is_on.load(Ordering::SeqCst)
    }

    /// Whether a restore may hold stock back, in the same manner.
    pub fn may_hold_back(&self) -> bool {
        !self.0.is_known.load(Ordering::SeqCst) || self.0.holds_back.load(Ordering::SeqCst)
    }

    /// Remembers what the database says.
    pub(super) fn remember(&self, is_on: bool, holds_back: bool) {
        self.0.is_on.store(is_on, Ordering::SeqCst);
        self.0.holds_back.store(holds_back, Ordering::SeqCst);
        self.0.is_known.store(true, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode() -> SafeMode {
        let by_list = Reconciled { at: Time::from_millis(30), how: "list".to_owned(), by: "semel".to_owned() };
        SafeMode {
            backup_at: Time::from_millis(10),
            restored_at: Time::from_millis(20),
            rails: BTreeMap::from([(Provider::YooKassa, Some(by_list)), (Provider::Heleket, None)]),
        }
    }

    #[test]
    fn the_mark_is_read_as_it_was_written() {
        let written = serde_json::to_string(&mode()).unwrap();
        assert!(written.starts_with(r#"{"backup_at":10,"restored_at":20,"rails":{"yookassa":{"#), "{written}");
        assert_eq!(serde_json::from_str::<SafeMode>(&written).unwrap(), mode());
    }

    #[test]
    fn a_rail_waits_when_it_is_known_or_set_up_and_not_reconciled() {
        assert_eq!(mode().waits_for([]), [Provider::Heleket]);
        let set_up = [Provider::YooKassa, Provider::CrystalPay];
        assert_eq!(mode().waits_for(set_up), [Provider::Heleket, Provider::CrystalPay]);
    }

    #[test]
    fn what_was_never_read_counts_as_safe_mode() {
        let safety = Safety::default();
        assert!(safety.may_be_on() && safety.may_hold_back());
        safety.clone().remember(false, true);
        assert!(!safety.may_be_on() && safety.may_hold_back());
    }
}
