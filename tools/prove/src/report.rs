//! What a campaign was asked to reach, and what it reached.

use std::path::PathBuf;

/// How a campaign runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything random comes from it; the same seed gives the same campaign.
    pub seed: u64,
    /// The small campaign of each change, or the large one.
    pub small: bool,
    /// About how long the parts that can go on for ever may take, in minutes.
    pub minutes: u64,
    /// Scenarios that run at the same time.
    pub at_once: usize,
    /// The program, built with failpoints.
    pub semel: PathBuf,
    /// A folder on a real disk for everything that a campaign writes; removed at its end.
    pub work: PathBuf,
    /// Only what has this in its name.
    pub only: Option<String>,
}

impl Options {
    /// Whether a scenario of this name is asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }
}

/// The words of whoever waited for longer than anybody should have to.
const OUT_OF_TIME: [&str; 3] = ["did not come true in time", "not at rest within", "not over within"];

/// Whether a trouble says that time ran out. A busy machine makes anything late once, so such a scenario is played once more by
/// itself; what is late then, too, is a trouble like any other.
pub fn is_out_of_time(trouble: &str) -> bool {
    OUT_OF_TIME.iter().any(|words| trouble.contains(words))
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What was counted.
    pub name: String,
    /// What came out.
    pub reached: String,
    /// What was asked for; empty where nothing is.
    pub wanted: String,
    /// Whether that is good enough.
    pub good: bool,
    /// Whether it is a matter of time: how much was done in it, how fast. A machine that is slow or busy misses such an aim
    /// with every promise kept, so it is shown and turns no change away.
    pub timed: bool,
    /// What went wrong, a line each: enough to run it again.
    pub troubles: Vec<String>,
}

impl Figure {
    /// A count that must not be smaller than `wanted`.
    pub fn at_least(name: impl Into<String>, reached: u64, wanted: u64) -> Self {
        Self::new(name, reached.to_string(), format!("at least {wanted}"), reached >= wanted)
    }

    /// A count of `what` went well out of `of`; every other one is a trouble.
    pub fn all_of(name: impl Into<String>, well: u64, of: u64, troubles: Vec<String>) -> Self {
        let good = well == of && troubles.is_empty();
        Self { troubles, ..Self::new(name, format!("{well} of {of}"), "all".into(), good) }
    }

    /// A duration or rate with its own words.
    pub fn judged(name: impl Into<String>, reached: impl Into<String>, wanted: impl Into<String>, good: bool) -> Self {
        Self::new(name, reached.into(), wanted.into(), good)
    }

    /// The same figure as one of time.
    #[must_use]
    pub fn timed(self) -> Self {
        Self { timed: true, ..self }
    }

    /// Whether it turns a change away: what was asked for is not reached, and more time would not help.
    pub fn fails(&self) -> bool {
        !self.good && !self.timed
    }

    /// A figure without an aim.
    pub fn told(name: impl Into<String>, reached: impl Into<String>) -> Self {
        Self::new(name, reached.into(), String::new(), true)
    }

    fn new(name: impl Into<String>, reached: String, wanted: String, good: bool) -> Self {
        Self { name: name.into(), reached, wanted, good, timed: false, troubles: Vec::new() }
    }
}

/// The table, as Markdown.
pub fn table(figures: &[Figure]) -> String {
    let mut out = String::from("| What | Reached | Wanted | Verdict |\n|---|---|---|---|\n");
    for one in figures {
        let verdict = match (one.good, one.wanted.is_empty()) {
            (true, true) => "",
            (true, false) => "good",
            (false, _) if one.timed => "not in this time",
            (false, _) => "**NOT REACHED**",
        };
        out.push_str(&format!("| {} | {} | {} | {verdict} |\n", one.name, one.reached, one.wanted));
    }
    for one in figures.iter().filter(|one| !one.troubles.is_empty()) {
        out.push_str(&format!("\n{}:\n", one.name));
        one.troubles.iter().take(400).for_each(|trouble| out.push_str(&format!("- {trouble}\n")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_turns_a_change_away_but_those_of_time() {
        let lost = Figure::all_of("lost", 1, 2, vec!["one was lost".into()]);
        let slow = Figure::judged("speed", "9 times", "at least 10 times", false).timed();
        assert!(lost.fails() && !slow.fails());
        assert!(!Figure::all_of("kept", 2, 2, Vec::new()).fails() && !Figure::told("a figure", "9").fails());
        let table = table(&[lost, slow]);
        assert!(table.contains("| lost | 1 of 2 | all | **NOT REACHED** |"), "{table}");
        assert!(table.contains("| speed | 9 times | at least 10 times | not in this time |"), "{table}");
    }

    #[test]
    fn what_was_late_is_told_from_what_was_wrong() {
        assert!(is_out_of_time("it did not come true in time that order ord_1 is delivered"));
        assert!(is_out_of_time("not at rest within 420 s"));
        assert!(!is_out_of_time("customer 42 is handed 1 keys, not []"));
    }
}
