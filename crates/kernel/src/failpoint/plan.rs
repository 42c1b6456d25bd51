//! What `SEMEL_FAILPOINT` asks for: rules, and how often each has been met.

use std::time::Duration;

/// What happens at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The process dies by signal 9.
    Kill,
    /// The step fails.
    Error,
    /// Time passes.
    Delay(Duration),
    /// Whoever is there panics.
    Panic,
    /// The job's run or the request is dropped.
    Cancel,
}

/// One rule: where, which time, what.
#[derive(Debug, PartialEq, Eq)]
struct Rule {
    /// `None` is any.
    place: Option<String>,
    /// `None` is any.
    label: Option<String>,
    /// `None` is every time.
    nth: Option<u64>,
    action: Action,
    seen: u64,
}

/// All rules, in their order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan(Vec<Rule>);

impl Plan {
    /// Reads `place:label#n=action;…`. The error is a sentence about the first rule that cannot be read.
    pub(super) fn parse(text: &str) -> Result<Plan, String> {
        let rules = text.split(';').map(str::trim).filter(|rule| !rule.is_empty());
        Ok(Plan(rules.map(Rule::parse).collect::<Result<Vec<_>, _>>()?))
    }

    /// Counts a hit of `place:label`; answers what the first rule that it completes asks for.
    pub(super) fn meets(&mut self, place: &str, label: &str) -> Option<Action> {
        let mut asked = None;
        for rule in &mut self.0 {
            let acts = rule.meets(place, label);
            asked = asked.or(acts);
        }
        asked
    }
}

impl Rule {
    fn parse(text: &str) -> Result<Rule, String> {
        let (rest, action) = match text.split_once('=') {
            Some((rest, action)) => (rest.trim(), Action::parse(action.trim())?),
            None => (text, Action::Kill),
        };
        let (name, nth) = match rest.split_once('#') {
            Some((name, "*")) => (name, None),
            Some((name, nth)) => {
                let number = nth.parse().ok().filter(|number: &u64| *number > 0);
                (name, Some(number.ok_or_else(|| format!("{text}: {nth} is no count; write 1 or more, or *"))?))
            }
            None => (rest, Some(1)),
        };
        let (place, label) = match name.split_once(':') {
            Some((place, label)) => (any(place), any(label)),
            None if name == "*" => (None, None),
            None => return Err(format!("{text}: {name} is no name; write place:label, place:* or *")),
        };
        if [&place, &label].into_iter().any(|part| part.as_deref() == Some("")) {
            return Err(format!("{text}: {name} is no name; write place:label, place:* or *"));
        }
        Ok(Rule { place, label, nth, action, seen: 0 })
    }

    fn meets(&mut self, place: &str, label: &str) -> Option<Action> {
        let of = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        if !(of(&self.place, place) && of(&self.label, label)) {
            return None;
        }
        self.seen += 1;
        (self.nth.is_none() || self.nth == Some(self.seen)).then_some(self.action)
    }
}

fn any(part: &str) -> Option<String> {
    (part != "*").then(|| part.to_owned())
}

impl Action {
    fn parse(text: &str) -> Result<Action, String> {
        let delay = text.strip_prefix("delay(").and_then(|rest| rest.strip_suffix(')'));
        match (text, delay) {
            ("kill", _) => Ok(Action::Kill),
            ("error", _) => Ok(Action::Error),
            ("panic", _) => Ok(Action::Panic),
            ("cancel", _) => Ok(Action::Cancel),
            (_, Some(ms)) => match ms.trim().parse() {
                Ok(ms) => Ok(Action::Delay(Duration::from_millis(ms))),
                Err(_) => Err(format!("{text}: {ms} is no number of milliseconds")),
            },
            _ => Err(format!("{text} is no action; write kill, error, delay(MS), panic or cancel")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Plan {
        Plan::parse(text).unwrap_or_else(|wrong| panic!("{wrong}"))
    }

    fn rule(place: &str, label: &str, nth: u64, action: Action) -> Rule {
        Rule { place: any(place), label: any(label), nth: Some(nth), action, seen: 0 }
    }

    #[test]
    fn a_name_alone_kills_the_first_time_and_a_count_says_which_time() {
        assert_eq!(plan("commit.before:a.b"), Plan(vec![rule("commit.before", "a.b", 1, Action::Kill)]));
        assert_eq!(plan("commit.before:a.b#7"), Plan(vec![rule("commit.before", "a.b", 7, Action::Kill)]));
        assert_eq!(plan(""), Plan::default());
    }

    #[test]
    fn every_action_has_its_word() {
        for (word, action) in [
            ("kill", Action::Kill),
            ("error", Action::Error),
            ("delay(250)", Action::Delay(Duration::from_millis(250))),
            ("panic", Action::Panic),
            ("cancel", Action::Cancel),
        ] {
            assert_eq!(plan(&format!("call.after:x#2={word}")), Plan(vec![rule("call.after", "x", 2, action)]));
        }
    }

    #[test]
    fn rules_stand_side_by_side_and_count_each_for_itself() {
        let mut plan = plan("call.before:x#2=error; call.before:*#3=panic ;*#5");
        assert_eq!(plan.0.len(), 3);
        let met: Vec<_> = ["x", "x", "y", "x", "z"].map(|label| plan.meets("call.before", label)).into();
        assert_eq!(met, [None, Some(Action::Error), Some(Action::Panic), None, Some(Action::Kill)]);
    }

    #[test]
    fn any_counts_what_it_stands_for_and_nothing_else() {
        let mut labels = plan("call.before:*#2=error");
        assert_eq!(labels.meets("call.before", "x"), None);
        assert_eq!(labels.meets("call.after", "x"), None);
        assert_eq!(labels.meets("call.before", "y"), Some(Action::Error));

        let mut places = plan("*:x#2=error");
        assert_eq!(places.meets("call.before", "x"), None);
        assert_eq!(places.meets("call.before", "y"), None);
        assert_eq!(places.meets("call.after", "x"), Some(Action::Error));

        let mut all = plan("*#2=error");
        assert_eq!(all.meets("call.before", "x"), None);
        assert_eq!(all.meets("commit.after", "y"), Some(Action::Error));
        assert_eq!(all.meets("commit.after", "y"), None, "a count is met once");
    }

    #[test]
    fn a_star_for_the_count_is_every_time() {
        let mut plan = plan("call.before:x#*=error");
        assert_eq!([0; 3].map(|_| plan.meets("call.before", "x")), [Some(Action::Error); 3]);
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_what_to_write() {
        for (text, says) in [
            ("commit.before", "place:label"),
            ("commit.before:", "place:label"),
            (":x", "place:label"),
            ("a:b#0", "1 or more"),
            ("a:b#two", "1 or more"),
            ("a:b=die", "kill, error"),
            ("a:b=delay", "kill, error"),
            ("a:b=delay(soon)", "milliseconds"),
            ("a:b;c", "place:label"),
        ] {
            let wrong = Plan::parse(text).expect_err(text);
            assert!(wrong.contains(says), "{text}: {wrong}");
        }
    }
}
