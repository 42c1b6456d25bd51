//! Models of Semel's protocols, each explored to the last state.
//!
//! | Model | What it mirrors |
//! |---|---|
//! | [`payment`] | notice, payment's job, settlement: the way from a webhook to the goods |
//! | [`claim`] | the right to run a job: claim, fence, end, recovery of what was lost |
//! | [`lease`] | the right to be the only one: take, keep, release, takeover |
//!
//! A model comes in two kinds. The *proved* ones are the product, and every property holds. The *refuted* ones are the
//! product without one of its guards, or the usual way of doing it: there the checker has to find how it goes wrong, and
//! says so step by step. A guard without such a model would be a guard that nobody knows the use of.
//!
//! **"In the end" is said as "at rest".** The checker's own `eventually` overlooks counterexamples where two paths meet, so
//! no property here uses it. Instead a state is *at rest* when no step of ours is left to do, whatever the world may still
//! do, and what shall come about in the end has to be true in every such state. That is as much as "eventually" only if
//! every run comes to rest, which is checked as a property of its own: no run ever comes back to a state it has left.

pub mod claim;
pub mod lease;
pub mod payment;

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use semel_kernel::clock::Stopwatch;
use stateright::{Checker, Model};

/// The name of the property that makes "at rest" mean "in the end".
pub const COMES_TO_REST: &str = "every run comes to rest";

/// What exploring one model came to.
#[derive(Clone, Debug)]
pub struct ModelReport {
    /// Which model, and what of it.
    pub name: &'static str,
    /// Different states that were met. A refuted model is left at the first state that breaks its property.
    pub states: usize,
    /// States on the longest of the shortest paths.
    pub depth: usize,
    /// Each property, and whether it holds.
    pub properties: Vec<(&'static str, bool)>,
    /// Whether this is a way of doing it that has to fail: then its one property must not hold.
    pub refuted: bool,
    /// The steps that lead to the first property that does not hold; empty when all hold.
    pub path: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl ModelReport {
    /// Whether the product's model holds all its properties, or the refuted one breaks its own.
    pub fn is_as_expected(&self) -> bool {
        !self.properties.is_empty() && self.properties.iter().all(|(_, holds)| *holds != self.refuted)
    }
}

/// Explores every model: the product's own, and those that have to fail. One thread, one after another.
pub fn run_all() -> Vec<ModelReport> {
    let mut reports = payment::run();
    reports.extend(claim::run());
    reports.extend(lease::run());
    reports
}

/// Explores `model` to the last state; all of its properties shall hold.
fn prove<M>(name: &'static str, model: M) -> ModelReport
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Eq + Hash + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let watch = Stopwatch::start();
    let rests = comes_to_rest(&model);
    let mut report = explore(name, model);
    report.properties.push((COMES_TO_REST, rests));
    report.took = watch.elapsed();
    report
}

/// Explores `model`, which has one property, until that is broken. With more than one the path would not be the shortest.
fn refute<M>(name: &'static str, model: M) -> ModelReport
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Eq + Hash + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    ModelReport { refuted: true, ..explore(name, model) }
}

fn explore<M>(name: &'static str, model: M) -> ModelReport
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Eq + Hash + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let watch = Stopwatch::start();
    let names: Vec<&'static str> = model.properties().iter().map(|property| property.name).collect();
    let checker = model.checker().spawn_bfs().join();
    let mut found = checker.discoveries();
    let properties: Vec<(&'static str, bool)> = names.iter().map(|name| (*name, !found.contains_key(name))).collect();
    let broken = names.iter().find_map(|name| found.remove(name));
    let path = broken.map(|path| path.into_actions()).unwrap_or_default();
    ModelReport {
        name,
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        properties,
        refuted: false,
        path: path.iter().map(|step| format!("{step:?}")).collect(),
        took: watch.elapsed(),
    }
}

/// Whether no run of `model` ever comes back to a state that it has left; then every run ends.
fn comes_to_rest<M>(model: &M) -> bool
where
    M: Model,
    M::State: Clone + Eq + Hash,
{
    // False while a state lies on the path that is being walked, true once all that can follow it was walked.
    let mut walked: HashMap<M::State, bool> = HashMap::new();
    for first in model.init_states() {
        if walked.insert(first.clone(), false).is_some() {
            continue;
        }
        let ahead = model.next_states(&first);
        let mut path = vec![(first, ahead)];
        while let Some((state, ahead)) = path.last_mut() {
            let Some(next) = ahead.pop() else {
                walked.insert(state.clone(), true);
                path.pop();
                continue;
            };
            match walked.get(&next).copied() {
                Some(true) => {}
                Some(false) => return false,
                None => {
                    walked.insert(next.clone(), false);
                    let ahead = model.next_states(&next);
                    path.push((next, ahead));
                }
            }
        }
    }
    true
}

#[cfg(test)]
pub(crate) mod tests {
    use stateright::Property;

    use super::*;

    /// Everything holds, to the last state, and there was something to explore.
    pub(crate) fn assert_proved(report: &ModelReport, states_at_least: usize) {
        println!("{}: {} states, depth {}, {:?}", report.name, report.states, report.depth, report.took);
        assert!(!report.refuted && report.is_as_expected(), "{report:#?}");
        assert!(report.states >= states_at_least, "only {} states: the model has lost its steps", report.states);
        assert!(report.states <= 300_000, "{} states are too many for every build", report.states);
    }

    /// The checker found how it goes wrong. Prints and answers the path.
    pub(crate) fn assert_refuted(report: &ModelReport) -> &[String] {
        println!("{}: {:?}", report.name, report.properties);
        report.path.iter().for_each(|step| println!("  {step}"));
        assert!(report.refuted && report.is_as_expected() && !report.path.is_empty(), "{report:#?}");
        &report.path
    }

    /// How many steps of `path` begin with `name`.
    pub(crate) fn count(path: &[String], name: &str) -> usize {
        path.iter().filter(|step| step.starts_with(name)).count()
    }

    /// Counts to four, and from there on or back to two.
    struct Counter {
        back: bool,
    }

    impl Model for Counter {
        type State = u8;
        type Action = u8;

        fn init_states(&self) -> Vec<u8> {
            vec![0]
        }

        fn actions(&self, state: &u8, actions: &mut Vec<u8>) {
            match *state {
                0..4 => actions.push(*state + 1),
                4 if self.back => actions.extend([5, 2]),
                4 => actions.push(5),
                _ => {}
            }
        }

        fn next_state(&self, _: &u8, to: u8) -> Option<u8> {
            Some(to)
        }

        fn properties(&self) -> Vec<Property<Self>> {
            vec![Property::<Self>::always("stays below five", |_, state| *state < 5)]
        }
    }

    #[test]
    fn a_run_that_comes_back_does_not_come_to_rest() {
        assert!(comes_to_rest(&Counter { back: false }));
        assert!(!comes_to_rest(&Counter { back: true }));
    }

    #[test]
    fn a_broken_promise_comes_with_the_way_to_it() {
        let report = refute("counter", Counter { back: true });
        assert_eq!(assert_refuted(&report), ["1", "2", "3", "4", "5"]);
        let report = prove("counter", Counter { back: true });
        assert_eq!(report.properties, [("stays below five", false), (COMES_TO_REST, false)]);
        assert!(!report.is_as_expected(), "a model of the product that breaks a promise is no proof");
    }
}
