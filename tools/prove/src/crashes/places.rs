//! Places where the program can be broken: which there are, which a process passed, and what happens at one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::Command;

use semel_prove::report::Options;

/// What the program does beside a flow, now and then. How often it passes such a place says nothing; flows that are about
/// them trace from the start, where they come in one order.
const BESIDE: &[&str] = &[
    "store.ping",
    "jobs.renew",
    "jobs.lost",
    "cron.",
    "scheduler",
    "lease.",
    "sender",
    "updates",
    "audit.fresh",
    "vpn.traffic",
];

/// Declared places that no process can come to, each with the reason. Every other one has to be come to by some flow on
/// some engine, and one that stands here must not be.
pub const UNREACHABLE: &[(&str, &str)] = &[];

/// What happens at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The process dies by signal 9.
    Kill,
    /// The step fails as it would fail by itself.
    Error,
}

impl Action {
    /// All that a campaign tries at every place.
    pub const ALL: [Action; 2] = [Action::Kill, Action::Error];

    /// The word in `SEMEL_FAILPOINT`.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Kill => "kill",
            Action::Error => "error",
        }
    }
}

/// A place with one of its passings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `place:label`.
    pub name: String,
    /// Passings before the flow begins.
    pub before: usize,
    /// The passing that is meant, counted from the start of the process.
    pub nth: usize,
}

/// A place, one of its passings, and what happens then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Where and when.
    pub place: Place,
    /// What.
    pub action: Action,
}

impl Point {
    /// The rule as `SEMEL_FAILPOINT` takes it.
    pub fn rule(&self) -> String {
        format!("{}#{}={}", self.place.name, self.place.nth, self.action.as_str())
    }

    /// Whether a process with these passings came to it.
    pub fn is_in(&self, passed: &[String]) -> bool {
        times(passed, &self.place.name) >= self.place.nth
    }
}

/// Every place that a process passed, in order.
pub fn passed(trace: &Path) -> Vec<String> {
    fs::read_to_string(trace).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// How often this place stands among those passed.
pub fn times(passed: &[String], name: &str) -> usize {
    passed.iter().filter(|one| *one == name).count()
}

/// Whether a flow is not answerable for how often this place is passed.
pub fn is_beside(name: &str) -> bool {
    let label = name.split_once(':').map_or(name, |(_, label)| label);
    BESIDE.iter().any(|beside| label.starts_with(*beside))
}

/// The first two passings of every place on the way of a flow: `whole` is what the process passed until the flow's end,
/// `start` what it had passed when the flow began. A flow `from_start` has its start on its way.
pub fn on_the_way(start: &[String], whole: &[String], from_start: bool) -> Vec<Place> {
    let from = if from_start { 0 } else { start.len().min(whole.len()) };
    let mut before: BTreeMap<&str, usize> = BTreeMap::new();
    for name in &whole[..from] {
        *before.entry(name).or_default() += 1;
    }
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    let mut places = Vec::new();
    for name in whole[from..].iter().filter(|name| from_start || !is_beside(name)) {
        let count = found.entry(name).or_default();
        *count += 1;
        if *count <= 2 {
            let before = before.get(name.as_str()).copied().unwrap_or(0);
            places.push(Place { name: name.clone(), before, nth: before + *count });
        }
    }
    places
}

/// Every place that the program declares, as `semel failpoints` prints them.
pub async fn declared(options: &Options) -> anyhow::Result<Vec<String>> {
    let asked = async { Command::new(&options.semel).arg("failpoints").kill_on_drop(true).output().await };
    let said = tokio::time::timeout(Duration::from_secs(30), asked).await.context("`semel failpoints` does not end")?;
    let said = said.with_context(|| format!("{} cannot be run", options.semel.display()))?;
    if !said.status.success() {
        bail!("`semel failpoints` fails: {}", String::from_utf8_lossy(&said.stderr).trim());
    }
    let text = String::from_utf8_lossy(&said.stdout);
    let words = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let names = words.filter_map(|line| line.split_whitespace().next());
    let mut names: Vec<String> = names.filter(|name| name.contains(':')).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(words: &str) -> Vec<String> {
        words.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_first_two_passings_behind_the_start_are_on_the_way() {
        let start = names("a:x b:x a:x");
        let whole = names("a:x b:x a:x b:x commit.after:store.ping b:x b:x c:y");
        let told: Vec<String> =
            on_the_way(&start, &whole, false).iter().map(|place| format!("{}#{}", place.name, place.nth)).collect();
        assert_eq!(told, ["b:x#2", "b:x#3", "c:y#1"]);
        let told = on_the_way(&start, &whole, true);
        assert_eq!(told.iter().map(|place| place.nth).collect::<Vec<_>>(), [1, 1, 2, 2, 1, 1]);
    }

    #[test]
    fn a_rule_is_what_the_program_reads() {
        let place = Place { name: "commit.after:message.sent".into(), before: 0, nth: 2 };
        let point = Point { place, action: Action::Error };
        assert_eq!(point.rule(), "commit.after:message.sent#2=error");
        assert!(!point.is_in(&names("commit.after:message.sent")));
        assert!(point.is_in(&names("commit.after:message.sent x:y commit.after:message.sent")));
    }
}
