//! What each chat bears: its pace, its gap, its pause.
//!
//! A chat that nobody wrote to for a while stands as one that was never written to, and is forgotten.

use std::collections::BTreeMap;

use super::gcra::{Gcra, Spacing};
use super::{ChatLimit, Limits, Moment};

/// Chats that are remembered before the first look for those that can be forgotten.
const MANY: usize = 1_024;
/// Long before any moment, and far enough from the end of numbers.
const NEVER: Moment = i64::MIN / 4;
/// Ids of supergroups and channels begin below this one; groups of the old kind lie between it and zero.
const SUPERGROUPS: i64 = -1_000_000_000_000;

/// What holds for one sort of chats.
#[derive(Clone, Copy, Debug)]
struct Rule {
    spacing: Spacing,
    gap: i64,
}

impl Rule {
    fn of(limit: ChatLimit) -> Self {
        let gap = i64::try_from(limit.gap.as_millis()).unwrap_or(i64::MAX / 8);
        Self { spacing: Spacing::of(limit.rate.messages, limit.rate.per, limit.burst), gap }
    }
}

#[derive(Clone, Copy, Debug)]
struct Rules {
    private: Rule,
    group: Rule,
    channel: Rule,
}

impl Rules {
    fn of(&self, chat: i64) -> Rule {
        match chat {
            0.. => self.private,
            _ if chat <= SUPERGROUPS => self.channel,
            _ => self.group,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Chat {
    pace: Gcra,
    last: Moment,
    paused_until: Moment,
}

impl Chat {
    fn new() -> Self {
        Self { pace: Gcra::new(), last: NEVER, paused_until: NEVER }
    }

    fn earliest(&self, rule: Rule) -> Moment {
        self.pace.earliest(rule.spacing).max(self.last.saturating_add(rule.gap)).max(self.paused_until)
    }

    fn is_rested(&self, rule: Rule, now: Moment) -> bool {
        self.pace.is_rested(now) && self.last.saturating_add(rule.gap) <= now && self.paused_until <= now
    }
}

/// All chats of a bot.
#[derive(Clone, Debug)]
pub(super) struct Chats {
    rules: Rules,
    known: BTreeMap<i64, Chat>,
    /// At this moment every chat had used up its burst, as far as anybody knows.
    used_up: Option<Moment>,
    forget_at: usize,
}

impl Chats {
    pub(super) fn new(limits: &Limits) -> Self {
        let rules = Rules {
            private: Rule::of(limits.private),
            group: Rule::of(limits.group),
            channel: Rule::of(limits.channel),
        };
        Self { rules, known: BTreeMap::new(), used_up: None, forget_at: MANY }
    }

    /// The first moment at which this chat may be written to.
    pub(super) fn earliest(&self, chat: i64) -> Moment {
        self.state(chat).earliest(self.rules.of(chat))
    }

    /// The same for whoever comes behind `ahead` others.
    pub(super) fn earliest_behind(&self, chat: i64, ahead: usize, now: Moment) -> Moment {
        let ahead = i64::try_from(ahead).unwrap_or(i64::MAX / 8);
        let earliest = self.earliest(chat);
        if ahead == 0 {
            return earliest;
        }
        earliest.max(now).saturating_add(ahead.saturating_mul(self.step_ms(chat)))
    }

    /// Milliseconds between two messages of this chat in the long run.
    pub(super) fn step_ms(&self, chat: i64) -> i64 {
        self.rules.of(chat).spacing.step_ms()
    }

    /// Until when this chat was asked to be left alone, if that is so.
    pub(super) fn pause(&self, chat: i64, now: Moment) -> Option<Moment> {
        self.known.get(&chat).map(|known| known.paused_until).filter(|until| *until > now)
    }

    /// A message goes to this chat at `now`.
    pub(super) fn take(&mut self, chat: i64, now: Moment) {
        let mut state = self.state(chat);
        state.pace.take(now, self.rules.of(chat).spacing);
        state.last = now;
        self.keep(chat, state, now);
    }

    /// Nothing goes to this chat before `until`; a longer pause stays.
    pub(super) fn leave_alone(&mut self, chat: i64, until: Moment, now: Moment) {
        let mut state = self.state(chat);
        state.paused_until = state.paused_until.max(until);
        self.keep(chat, state, now);
    }

    /// Somebody else wrote until `now`, and nobody knows whom to.
    pub(super) fn begin_used_up(&mut self, now: Moment) {
        self.used_up = Some(self.used_up.map_or(now, |before| before.max(now)));
    }

    fn state(&self, chat: i64) -> Chat {
        let mut state = self.known.get(&chat).copied().unwrap_or_else(Chat::new);
        if let Some(at) = self.used_up {
            let spacing = self.rules.of(chat).spacing;
            state.pace.not_before(at.saturating_add(spacing.step_ms()), spacing);
        }
        state
    }

    fn keep(&mut self, chat: i64, state: Chat, now: Moment) {
        self.known.insert(chat, state);
        if self.known.len() >= self.forget_at {
            let rules = self.rules;
            self.known.retain(|chat, state| !state.is_rested(rules.of(*chat), now));
            // Looked through once for as many as are left: cheap, however many are alive.
            self.forget_at = MANY.max(self.known.len() * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: i64 = -4_000_000;
    const CHANNEL: i64 = -1_002_000_000_000;

    fn chats() -> Chats {
        Chats::new(&Limits::per_second(30))
    }

    /// When messages go to one chat that all want to go at `from`.
    fn went(chats: &mut Chats, chat: i64, from: Moment, count: usize) -> Vec<Moment> {
        let mut now = from;
        let mut went = Vec::new();
        for _ in 0..count {
            now = now.max(chats.earliest(chat));
            chats.take(chat, now);
            went.push(now - from);
        }
        went
    }

    #[test]
    fn each_sort_of_chat_has_its_own_pace_and_each_chat_its_own_bucket() {
        let mut chats = chats();
        assert_eq!(went(&mut chats, 7, 0, 5), [0, 0, 0, 1_020, 2_040]);
        assert_eq!(went(&mut chats, 8, 0, 1), [0], "another person");
        for group in [GROUP, CHANNEL] {
            let times = went(&mut chats, group, 0, 41);
            assert_eq!(&times[..3], [0, 1_000, 2_000], "a second between two messages");
            assert!(times.iter().zip(times.iter().skip(20)).all(|(first, last)| last - first > 60_000), "{times:?}");
        }
    }

    #[test]
    fn a_pause_is_its_chats_own_and_no_shorter_one_ends_it() {
        let mut chats = chats();
        chats.leave_alone(7, 35_000, 0);
        chats.leave_alone(7, 5_000, 0);
        assert_eq!((chats.earliest(7), chats.pause(7, 34_999), chats.pause(7, 35_000)), (35_000, Some(35_000), None));
        assert!(chats.earliest(8) <= 0 && chats.pause(8, 0).is_none());
        assert_eq!(chats.earliest_behind(7, 0, 0), 35_000);
        assert_eq!(chats.earliest_behind(7, 2, 0), 37_040);
    }

    #[test]
    fn after_a_takeover_no_chat_has_a_burst_until_it_has_rested() {
        let mut chats = chats();
        chats.begin_used_up(10_000);
        assert_eq!(went(&mut chats, 7, 10_000, 3), [1_020, 2_040, 3_060]);
        assert_eq!(went(&mut chats, 8, 20_000, 4), [0, 0, 0, 1_020]);
    }

    #[test]
    fn rested_chats_are_forgotten_and_paused_ones_are_not() {
        let mut chats = chats();
        chats.leave_alone(-5, 10_000_000, 0);
        for chat in 0..50_000 {
            chats.take(chat, chat * 34);
        }
        assert!(chats.known.len() < 3_000, "{} are remembered", chats.known.len());
        assert_eq!(chats.earliest(-5), 10_000_000);
    }
}
