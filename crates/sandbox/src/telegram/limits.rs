//! Telegram's limits, enforced when a test wants them: 30 messages a second in all, 1 a second to a person, 20 a minute to a group.
//!
//! The real limits are unpublished and softer; these are the figures that the documentation names.

use std::collections::{HashMap, VecDeque};

/// The limits that the sandbox enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TelegramLimits {
    /// Calls of one bot in any sliding second.
    pub per_second: usize,
    /// How many messages one person may get at once; after these, one a second.
    pub chat_burst: u32,
    /// Messages of one group or channel in any sliding minute.
    pub group_per_minute: usize,
}

impl Default for TelegramLimits {
    fn default() -> Self {
        TelegramLimits { per_second: 30, chat_burst: 3, group_per_minute: 20 }
    }
}

/// What was let through lately, and what was refused.
#[derive(Default)]
pub(crate) struct Limits {
    pub(crate) rule: Option<TelegramLimits>,
    recent: VecDeque<i64>,
    /// When the next message to a person is due if nothing is saved up, by chat.
    due: HashMap<i64, i64>,
    groups: HashMap<i64, VecDeque<i64>>,
    refused: VecDeque<(i64, i64)>,
}

/// Whole seconds, rounded up, at least one.
fn seconds(ms: i64) -> i64 {
    (ms + 999).div_euclid(1000).max(1)
}

fn forget(times: &mut VecDeque<i64>, until: i64) {
    while times.front().is_some_and(|at| *at <= until) {
        times.pop_front();
    }
}

impl Limits {
    pub(crate) fn new(rule: Option<TelegramLimits>) -> Limits {
        Limits { rule, ..Limits::default() }
    }

    /// Lets a message through, or says for how many seconds to be silent.
    pub(crate) fn admit(&mut self, chat: i64, now: i64) -> Result<(), i64> {
        let Some(rule) = self.rule else { return Ok(()) };
        forget(&mut self.recent, now - 1000);
        if self.recent.len() >= rule.per_second {
            let first = self.recent.front().copied().unwrap_or(now);
            return Err(seconds(first + 1000 - now));
        }
        if chat < 0 {
            let times = self.groups.entry(chat).or_default();
            forget(times, now - 60_000);
            if times.len() >= rule.group_per_minute {
                let first = times.front().copied().unwrap_or(now);
                return Err(seconds(first + 60_000 - now));
            }
            times.push_back(now);
        } else {
            let saved_up = i64::from(rule.chat_burst.saturating_sub(1)) * 1000;
            let due = self.due.get(&chat).copied().unwrap_or(now).max(now);
            if due - now > saved_up {
                return Err(seconds(due - now - saved_up));
            }
            self.due.insert(chat, due + 1000);
        }
        self.recent.push_back(now);
        Ok(())
    }

    /// What a 429 means: the chat, until three chats are refused within a second; then, and without a chat, the whole bot.
    pub(crate) fn scope(&mut self, chat: Option<i64>, now: i64) -> &'static str {
        let Some(chat) = chat else { return "token" };
        while self.refused.front().is_some_and(|(at, _)| *at <= now - 1000) {
            self.refused.pop_front();
        }
        self.refused.push_back((now, chat));
        let mut chats: Vec<i64> = self.refused.iter().map(|(_, chat)| *chat).collect();
        chats.sort_unstable();
        chats.dedup();
        if chats.len() >= 3 { "token" } else { "chat" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strict() -> Limits {
        Limits::new(Some(TelegramLimits::default()))
    }

    #[test]
    fn the_bot_sends_thirty_in_any_second() {
        let mut limits = strict();
        for chat in 1..=30 {
            assert_eq!(limits.admit(chat, 0), Ok(()));
        }
        assert_eq!(limits.admit(31, 999), Err(1));
        assert_eq!(limits.admit(31, 1000), Ok(()));
    }

    #[test]
    fn a_person_gets_three_at_once_then_one_a_second() {
        let mut limits = strict();
        for _ in 0..3 {
            assert_eq!(limits.admit(7, 0), Ok(()));
        }
        assert_eq!(limits.admit(7, 0), Err(1));
        assert_eq!(limits.admit(7, 1000), Ok(()));
        assert_eq!(limits.admit(7, 1500), Err(1));
    }

    #[test]
    fn a_group_gets_twenty_a_minute() {
        let mut limits = strict();
        for tick in 0..20 {
            assert_eq!(limits.admit(-5, tick * 100), Ok(()));
        }
        assert_eq!(limits.admit(-5, 30_000), Err(30));
        assert_eq!(limits.admit(-5, 60_000), Ok(()));
    }

    #[test]
    fn three_refused_chats_within_a_second_mean_the_whole_bot() {
        let mut limits = Limits::default();
        assert_eq!(limits.scope(Some(1), 0), "chat");
        assert_eq!(limits.scope(Some(1), 10), "chat");
        assert_eq!(limits.scope(Some(2), 500), "chat");
        assert_eq!(limits.scope(Some(3), 900), "token");
        assert_eq!(limits.scope(Some(4), 2000), "chat");
        assert_eq!(limits.scope(None, 2000), "token");
    }
}
