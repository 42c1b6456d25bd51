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

    /// A figure without an aim.
    pub fn told(name: impl Into<String>, reached: impl Into<String>) -> Self {
        Self::new(name, reached.into(), String::new(), true)
    }

    fn new(name: impl Into<String>, reached: String, wanted: String, good: bool) -> Self {
        Self { name: name.into(), reached, wanted, good, troubles: Vec::new() }
    }
}

/// The table, as Markdown.
pub fn table(figures: &[Figure]) -> String {
    let mut out = String::from("| What | Reached | Wanted | Verdict |\n|---|---|---|---|\n");
    for one in figures {
        let verdict = match (one.good, one.wanted.is_empty()) {
            (true, true) => "",
            (true, false) => "good",
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
