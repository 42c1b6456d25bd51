//! Which flows of money a broken promise stops, and why: one table.

/// A way in which money or goods move. Money that comes in is none: it is always taken and booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flow {
    /// New orders and new links to pay.
    Sales,
    /// Goods: the messages that hand them over, and their sight over the API.
    Deliveries,
    /// Money out: refunds to a provider and to a balance.
    Refunds,
    /// Payouts.
    Payouts,
}

impl Flow {
    /// All of them.
    pub const ALL: [Flow; 4] = [Flow::Sales, Flow::Deliveries, Flow::Refunds, Flow::Payouts];

    /// The word in rows and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sales => "sales",
            Self::Deliveries => "deliveries",
            Self::Refunds => "refunds",
            Self::Payouts => "payouts",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|flow| flow.as_str() == word)
    }

    pub(super) const fn bit(self) -> u8 {
        match self {
            Self::Sales => 1,
            Self::Deliveries => 2,
            Self::Refunds => 4,
            Self::Payouts => 8,
        }
    }
}

/// What stops when the books themselves are in doubt.
const MONEY: &[Flow] = &[Flow::Sales, Flow::Deliveries, Flow::Refunds, Flow::Payouts];
/// What leaves the shop.
const OUT: &[Flow] = &[Flow::Deliveries, Flow::Refunds, Flow::Payouts];
const GOODS: &[Flow] = &[Flow::Deliveries];
const NOTHING: &[Flow] = &[];

/// What a broken promise stops, and why just that.
pub struct Rule {
    /// The predicate.
    pub predicate: &'static str,
    /// The flows that wait until the owner releases them.
    pub stops: &'static [Flow],
    /// Why.
    pub why: &'static str,
}

const fn rule(predicate: &'static str, stops: &'static [Flow], why: &'static str) -> Rule {
    Rule { predicate, stops, why }
}

/// One rule for each predicate that needs no ground truth.
pub const RULES: &[Rule] = &[
    rule("M1", MONEY, "books that do not balance prove nothing about any other sum"),
    rule("M2", MONEY, "balances are spent by their cached number"),
    rule("M3", MONEY, "somebody spent what was not there"),
    rule("M4", MONEY, "the same money may be counted twice"),
    rule("M5", MONEY, "more went back than came in"),
    rule("M7", &[Flow::Payouts], "a payout may leave twice"),
    rule("M9", MONEY, "orders are served without their money, or money without its order"),
    rule("G2", NOTHING, "a notice moves nothing by itself, and the books take each payment once"),
    rule("G3", NOTHING, "waiting is no loss: the payment's own job asks"),
    rule("G4", OUT, "somebody's unproven word was acted on"),
    rule("G5", OUT, "a state was changed past the program, so what follows from states cannot be trusted"),
    rule("G5s", OUT, "a state was changed with nothing in the history, so somebody else than the program did it"),
    rule("D1", GOODS, "the same place of an order was served twice"),
    rule("D2", GOODS, "one unit has two buyers"),
    rule("D3", GOODS, "orders are called done that got something else"),
    rule("D4", GOODS, "goods left before their money"),
    rule("D5", GOODS, "a buyer may get another unit than the one put aside"),
    rule("T4", NOTHING, "messages are no money"),
    rule("T6", NOTHING, "messages are no money"),
    rule("J1", NOTHING, "each effect of money has a key of its own"),
    rule("J2", NOTHING, "each effect of money has a key of its own"),
    rule("J3", NOTHING, "each effect of money has a key of its own"),
    rule("J4", NOTHING, "each effect of money has a key of its own"),
    rule("J5", NOTHING, "work is late and not lost"),
    rule("J6", NOTHING, "each effect of money has a key of its own"),
    rule("J7", NOTHING, "work is late and not lost"),
    rule("J8", NOTHING, "work was tried too often, and each try has the same key"),
    rule("E2", NOTHING, "an outcome is missing, which is listed and never guessed"),
    rule("N1", NOTHING, "addresses are no money"),
    rule("N2", NOTHING, "keys of a network are no money"),
    rule("N5", NOTHING, "access is no money"),
    rule("N6", NOTHING, "addresses are no money"),
    rule("S1", NOTHING, "somebody touched the log of actions; the books have promises of their own"),
];

/// What stops when `predicate` is broken.
pub fn stopped_by(predicate: &str) -> &'static [Flow] {
    RULES.iter().find(|rule| rule.predicate == predicate).map_or(NOTHING, |rule| rule.stops)
}

/// Flows as they stand in a row.
pub(super) fn words(flows: &[Flow]) -> String {
    flows.iter().map(|flow| flow.as_str()).collect::<Vec<_>>().join(",")
}

/// Reads flows from a row. A word of a newer version is left out: this one cannot stop what it does not know.
pub(super) fn read(words: &str) -> Vec<Flow> {
    words.split(',').filter_map(Flow::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::super::PREDICATES;
    use super::super::truth;
    use super::*;

    #[test]
    fn every_promise_that_can_be_asked_has_one_rule() {
        let askable = PREDICATES.iter().filter(|p| p.queries.iter().any(|query| !truth::is_read_by(query)));
        let asked: Vec<&str> = askable.map(|predicate| predicate.id).collect();
        assert_eq!(RULES.iter().map(|rule| rule.predicate).collect::<Vec<_>>(), asked);
        assert!(RULES.iter().all(|rule| !rule.why.is_empty()));
    }

    #[test]
    fn broken_books_stop_all_that_moves_and_messages_stop_nothing() {
        assert_eq!(words(stopped_by("M1")), "sales,deliveries,refunds,payouts");
        assert_eq!(words(stopped_by("D2")), "deliveries");
        for id in ["T4", "J7", "S1", "E2", "no such promise"] {
            assert!(stopped_by(id).is_empty(), "{id}");
        }
        assert_eq!(read("sales,deliveries"), [Flow::Sales, Flow::Deliveries]);
        assert!(read("").is_empty());
        let bits: u8 = Flow::ALL.iter().map(|flow| flow.bit()).sum();
        assert_eq!(bits, 15);
    }
}
