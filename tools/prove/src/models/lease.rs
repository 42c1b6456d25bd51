//! The right to be the only one: take, keep, release, takeover.
//!
//! | Here | In the product, `kernel/src/leases.rs` |
//! |---|---|
//! | `Step::Take` | `take`: `END_EXPIRED`, then `TAKE`, in one transaction |
//! | `Step::Supersede`, only where the holder is known to be dead | `supersede` |
//! | `Step::Keep`, `Step::Release`: by name, fence and owner, and only before the term's end | `KEEP`, `RELEASE` |
//! | `Step::Act`: a transaction that keeps the lease and writes under it | `round` in `kernel/src/cron.rs` |
//! | `State::now`: one clock, the database's | `semel_now()` |
//!
//! The world: a holder may stop for as long as it likes (stopped by a signal, swapped out, cut off) and go on with whatever
//! it was about to do: no step but the clock's is ever due, so every such pause is among the orders explored. A holder
//! may die and start again; it has forgotten its term then, and the product gives it a new name, too.
//!
//! The product never lets a lease alone guard an effect. What a scheduler writes is guarded by a compare-and-set of the
//! tick as well, so the second guard is not modelled here.

use stateright::{Model, Property};

use super::{ModelReport, prove, refute};

const ONE_VALID: &str = "at most one term is valid";
const NO_OVERLAP: &str = "J1: no term begins before the one before it has ended";
const FENCES_GROW: &str = "J2: fences grow";
const NO_OLD_FENCE: &str = "J3: no effect under an old fence";
const OWN_RELEASE: &str = "J6: only the owner releases";
const TAKEOVER: &str = "what nobody holds can be taken";

/// How long a term lasts.
const TERM: u8 = 2;
/// Terms in one history.
const TERMS: usize = 3;
const HOLDERS: [u8; 2] = [0, 1];

/// Every instance of this model.
pub fn run() -> Vec<ModelReport> {
    vec![copies(), alone(), released_by_anybody(), effect_by_belief()]
}

/// Two copies of the program on one PostgreSQL.
fn copies() -> ModelReport {
    prove("lease: two copies", PRODUCT)
}

/// On SQLite: one program at a time, which takes over from a dead one without waiting.
fn alone() -> ModelReport {
    prove("lease: one program after another", Leases { alone: true, until: 3, deaths: 2, ..PRODUCT })
}

/// `finally: delete(key)`: who was away for too long frees the lease of another.
fn released_by_anybody() -> ModelReport {
    let model = Leases { release_asks: false, only: Some(OWN_RELEASE), ..PRODUCT };
    refute("lease: released without asking whose it is", model)
}

/// A holder acts because it believes that it holds the lease, as a lock in the memory of a process would have it.
fn effect_by_belief() -> ModelReport {
    let model = Leases { effect_asks: false, only: Some(NO_OLD_FENCE), ..PRODUCT };
    refute("lease: an effect without the fence", model)
}

/// The protocol, and which of its guards stand.
#[derive(Clone, Debug)]
struct Leases {
    /// The clock's last moment.
    until: u8,
    /// Holders that may die.
    deaths: u8,
    /// One program at a time, as the lock beside an SQLite file makes sure.
    alone: bool,
    /// Whether a release asks for fence, owner and time.
    release_asks: bool,
    /// Whether an effect asks for them.
    effect_asks: bool,
    /// Check this property alone.
    only: Option<&'static str>,
}

const PRODUCT: Leases = Leases { until: 4, deaths: 1, alone: false, release_asks: true, effect_asks: true, only: None };

/// How a term ended, and through whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum End {
    Released { by: u8 },
    Expired,
    Superseded,
}

/// A row of `lease_terms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Term {
    fence: u8,
    owner: u8,
    acquired_at: u8,
    expires_at: u8,
    ended: Option<(u8, End)>,
}

/// What a holder believes. It may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Holder {
    Dead,
    Out,
    Holds { fence: u8 },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    now: u8,
    holders: [Holder; 2],
    terms: Vec<Term>,
    /// Whether an effect was written under an old fence.
    old_fence: bool,
    deaths: u8,
}

/// One step of the clock or of a holder.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// Time passes.
    Tick,
    Start(u8),
    Die(u8),
    Take(u8),
    Supersede(u8),
    /// Keeps the lease, or learns that it was lost.
    Keep(u8),
    /// Writes something under the lease.
    Act(u8),
    Release(u8),
}

impl State {
    fn holder(&self, who: u8) -> Holder {
        self.holders[usize::from(who)]
    }

    fn set_holder(&mut self, who: u8, to: Holder) {
        self.holders[usize::from(who)] = to;
    }

    fn is_valid(&self, term: &Term) -> bool {
        term.ended.is_none() && term.expires_at > self.now
    }

    fn latest_fence(&self) -> u8 {
        self.terms.iter().map(|term| term.fence).max().unwrap_or(0)
    }

    /// The row that `KEEP` and `RELEASE` find for `who`.
    fn term_of(&self, who: u8) -> Option<usize> {
        let Holder::Holds { fence } = self.holder(who) else { return None };
        self.terms.iter().position(|term| term.fence == fence && term.owner == who && self.is_valid(term))
    }

    /// Ends every open term that `which` is true of.
    fn end(&mut self, how: End, which: impl Fn(&Term) -> bool) {
        let now = self.now;
        for term in self.terms.iter_mut().filter(|term| term.ended.is_none() && which(term)) {
            term.ended = Some((now, how));
        }
    }

    /// `take`: false when somebody holds it.
    fn take(&mut self, who: u8) -> bool {
        let now = self.now;
        self.end(End::Expired, |term| term.expires_at <= now);
        if self.terms.iter().any(|term| term.ended.is_none()) {
            return false;
        }
        let fence = self.latest_fence() + 1;
        self.terms.push(Term { fence, owner: who, acquired_at: now, expires_at: now + TERM, ended: None });
        self.set_holder(who, Holder::Holds { fence });
        true
    }

    /// `keep`: false when the lease was lost.
    fn keep(&mut self, who: u8) -> bool {
        let Some(place) = self.term_of(who) else { return false };
        self.terms[place].expires_at = self.now + TERM;
        true
    }

    fn release(&mut self, who: u8, asks: bool) {
        let how = End::Released { by: who };
        match self.term_of(who) {
            Some(place) if asks => self.terms[place].ended = Some((self.now, how)),
            None if asks => {}
            _ => self.end(how, |_| true),
        }
        self.set_holder(who, Holder::Out);
    }

    fn overlaps(&self) -> bool {
        let until = |term: &Term| term.ended.map_or(term.expires_at, |(at, _)| at.min(term.expires_at));
        let begins_within = |a: &Term, b: &Term| b.fence > a.fence && b.acquired_at < until(a);
        self.terms.iter().any(|a| self.terms.iter().any(|b| begins_within(a, b)))
    }
}

impl Model for Leases {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let second = if self.alone { Holder::Dead } else { Holder::Out };
        let holders = [Holder::Out, second];
        vec![State { now: 0, holders, terms: Vec::new(), old_fence: false, deaths: self.deaths }]
    }

    fn actions(&self, s: &State, steps: &mut Vec<Step>) {
        if s.now < self.until {
            steps.push(Step::Tick);
        }
        for who in HOLDERS {
            match s.holder(who) {
                Holder::Dead => {
                    if !self.alone || s.holders == [Holder::Dead; 2] {
                        steps.push(Step::Start(who));
                    }
                    continue;
                }
                Holder::Out if s.terms.len() < TERMS => {
                    steps.push(Step::Take(who));
                    if self.alone {
                        steps.push(Step::Supersede(who));
                    }
                }
                Holder::Out => {}
                Holder::Holds { .. } => steps.extend([Step::Keep(who), Step::Act(who), Step::Release(who)]),
            }
            if s.deaths > 0 {
                steps.push(Step::Die(who));
            }
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut s = last.clone();
        match step {
            Step::Tick => s.now += 1,
            Step::Start(who) => s.set_holder(who, Holder::Out),
            Step::Die(who) => {
                s.deaths -= 1;
                s.set_holder(who, Holder::Dead);
            }
            Step::Take(who) => {
                s.take(who);
            }
            Step::Supersede(who) => {
                s.end(End::Superseded, |_| true);
                s.take(who);
            }
            Step::Keep(who) => {
                if !s.keep(who) {
                    s.set_holder(who, Holder::Out);
                }
            }
            Step::Act(who) => {
                let Holder::Holds { fence } = s.holder(who) else { return None };
                if self.effect_asks && !s.keep(who) {
                    return None; // The whole transaction is refused; the next `Keep` tells.
                }
                s.old_fence |= fence < s.latest_fence();
            }
            Step::Release(who) => s.release(who, self.release_asks),
        }
        // What changes nothing is no step: otherwise a holder could keep a fresh lease for ever within one moment.
        (s != *last).then_some(s)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::<Self>::always(ONE_VALID, |_, s| s.terms.iter().filter(|term| s.is_valid(term)).count() <= 1),
            Property::<Self>::always(NO_OVERLAP, |_, s| !s.overlaps()),
            Property::<Self>::always(FENCES_GROW, |_, s| s.terms.is_sorted_by(|a, b| a.fence < b.fence)),
            Property::<Self>::always(NO_OLD_FENCE, |_, s| !s.old_fence),
            Property::<Self>::always(OWN_RELEASE, |_, s| {
                let fair = |term: &Term| !matches!(term.ended, Some((_, End::Released { by })) if by != term.owner);
                s.terms.iter().all(fair)
            }),
            Property::<Self>::always(TAKEOVER, |_, s| {
                s.terms.iter().any(|term| s.is_valid(term)) || s.clone().take(HOLDERS[0])
            }),
        ];
        if let Some(only) = self.only {
            all.retain(|property| property.name == only);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_proved, assert_refuted};
    use super::*;

    #[test]
    fn two_copies_never_hold_one_lease() {
        assert_proved(&copies(), 30_000);
    }

    #[test]
    fn one_program_takes_over_from_a_dead_one() {
        assert_proved(&alone(), 10_000);
    }

    #[test]
    fn a_release_that_asks_nothing_frees_the_lease_of_another() {
        let report = released_by_anybody();
        let path = assert_refuted(&report);
        assert_eq!(path.len(), 5, "taken, two moments pass, taken by the other, released by the first");
        assert!(path[4].starts_with("Release"));
    }

    #[test]
    fn an_effect_by_belief_comes_under_an_old_fence() {
        let report = effect_by_belief();
        let path = assert_refuted(&report);
        assert_eq!(path.len(), 5, "taken, two moments pass, taken by the other, done by the first");
        assert!(path[4].starts_with("Act"));
    }
}
