//! What a 429 changes: whose silence it means, and how fast the bot goes afterwards.
//!
//! Telegram does not say whether it means the chat or the bot. One refused chat is that chat's own trouble. Three of them within
//! a second are the bot's: then everything is silent until the longest wait lapses, and the rate falls by a quarter. After a
//! silence one call at a time tries the ground; the second refusal in a row means that the silence was too short.
//!
//! The limit may also be only a little lower than thought: then one message of each second is refused, and never three at once.
//! Three refused chats within ten seconds lower the rate, too, and silence nobody.

use super::{Moment, Rate};

/// So many refused chats are the bot's own trouble.
const CHATS: usize = 3;
/// Within this time they silence the bot, milliseconds: a second at Telegram, whose answers are not equally long on their way.
const AT_ONCE: i64 = 1_250;
/// Within this time they slow it down, milliseconds.
const LATELY: i64 = 10_000;
/// So many refusals in a row after a silence mean another one.
const IN_A_ROW: u32 = 2;
/// How long it takes to grow by one message a second: as long as nobody ever refused, milliseconds.
const FIRST_CLIMB: i64 = 3_000;
/// How long it takes to grow by one message a second after a refusal, milliseconds.
const CLIMB: i64 = 30_000;

#[derive(Clone, Copy, Debug)]
struct Refusal {
    at: Moment,
    /// None when the method was the bot's own, as `getMe` is.
    chat: Option<i64>,
    until: Moment,
}

#[derive(Clone, Debug)]
pub(super) struct Brake {
    cap: Rate,
    /// Messages in each `cap.per`.
    messages: u32,
    /// Since when the rate stands as it is.
    since: Moment,
    /// Whether the bot itself was ever refused.
    refused_before: bool,
    silent_until: Moment,
    lately: Vec<Refusal>,
    /// After a silence, until the first message is through: how many were refused in a row.
    probing: Option<u32>,
}

impl Brake {
    pub(super) fn new(cap: Rate, start: u32, now: Moment) -> Self {
        let cap = Rate { messages: cap.messages.max(1), ..cap };
        Self {
            cap,
            messages: start.clamp(1, cap.messages),
            since: now,
            refused_before: false,
            silent_until: now,
            lately: Vec::new(),
            probing: None,
        }
    }

    /// The rate as it is allowed at `now`: it grows by itself.
    pub(super) fn rate(&mut self, now: Moment) -> Rate {
        let climb = if self.refused_before { CLIMB } else { FIRST_CLIMB };
        while self.messages < self.cap.messages && now - self.since >= climb {
            self.messages += 1;
            self.since += climb;
        }
        self.standing()
    }

    /// The rate as it was last asked for.
    pub(super) fn standing(&self) -> Rate {
        Rate { messages: self.messages, per: self.cap.per }
    }

    /// Until when everything is silent, if it is.
    pub(super) fn silence(&self, now: Moment) -> Option<Moment> {
        (self.silent_until > now).then_some(self.silent_until)
    }

    /// Since when one call at a time tries the ground, if that is so.
    pub(super) fn probing_since(&self) -> Option<Moment> {
        self.probing.map(|_| self.silent_until)
    }

    /// Everything is silent until `until`; a longer silence stays.
    pub(super) fn silent(&mut self, until: Moment, now: Moment) {
        if until > now {
            self.silent_until = self.silent_until.max(until);
            self.since = self.since.max(self.silent_until);
            self.probing = Some(0);
        }
    }

    /// A message got through whose call began at `began`. One that was under way when a silence began proves nothing about its
    /// end.
    pub(super) fn passed(&mut self, began: Moment) {
        if began >= self.silent_until {
            self.probing = None;
        }
    }

    /// A call was refused until `until`. Answers until when everything is silent, if it is the bot that is meant.
    pub(super) fn refused(&mut self, chat: Option<i64>, until: Moment, now: Moment) -> Option<Moment> {
        self.lately.retain(|refusal| refusal.at > now - LATELY);
        self.lately.push(Refusal { at: now, chat, until });
        let in_a_row = match &mut self.probing {
            Some(count) if self.silent_until <= now => {
                *count += 1;
                *count
            }
            _ => 0,
        };
        if chat.is_none() || in_a_row >= IN_A_ROW || self.chats_since(now - AT_ONCE) >= CHATS {
            let longest =
                self.lately.iter().filter(|refusal| refusal.at > now - AT_ONCE).map(|refusal| refusal.until).max();
            // Calls that were under way when the silence began are refused, too: they lengthen it and slow nothing down.
            if self.silence(now).is_none() {
                self.slow_down(now);
            }
            self.silent(longest.unwrap_or(until).max(until), now);
            return self.silence(now);
        }
        if self.silence(now).is_none() && self.chats_since(self.since.max(now - LATELY)) >= CHATS {
            self.slow_down(now);
        }
        None
    }

    fn chats_since(&self, moment: Moment) -> usize {
        let mut chats: Vec<i64> =
            self.lately.iter().filter(|refusal| refusal.at > moment).filter_map(|refusal| refusal.chat).collect();
        chats.sort_unstable();
        chats.dedup();
        chats.len()
    }

    fn slow_down(&mut self, now: Moment) {
        self.messages = (self.messages * 3 / 4).max(1);
        self.since = now;
        self.refused_before = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brake() -> Brake {
        Brake::new(Rate::per_second(30), 28, 0)
    }

    #[test]
    fn nobody_refused_so_it_goes_up_to_the_cap_soon() {
        let mut brake = brake();
        assert_eq!(brake.rate(0).messages, 28);
        assert_eq!(brake.rate(3_000).messages, 29);
        assert_eq!(brake.rate(60_000).messages, 30);
        assert_eq!(Brake::new(Rate::per_second(10), 28, 0).rate(0).messages, 10, "the cap is the owner's word");
    }

    #[test]
    fn one_refused_chat_is_its_own_trouble_however_often() {
        let mut brake = brake();
        for at in [0, 10, 20, 500] {
            assert_eq!(brake.refused(Some(7), at + 5_000, at), None);
        }
        assert_eq!((brake.silence(500), brake.rate(500).messages), (None, 28));
    }

    #[test]
    fn the_third_chat_within_a_second_silences_all_until_the_longest_wait_is_over() {
        let mut brake = brake();
        assert_eq!(brake.refused(Some(1), 40_000, 0), None);
        assert_eq!(brake.refused(Some(2), 9_000, 400), None);
        assert_eq!(brake.refused(Some(3), 8_000, 900), Some(40_000));
        assert_eq!(brake.rate(900).messages, 21);
        assert_eq!(brake.refused(Some(4), 45_000, 950), Some(45_000), "one that was under way lengthens it");
        assert_eq!(brake.rate(950).messages, 21, "and slows nothing down");
        assert_eq!((brake.silence(44_999), brake.silence(45_000)), (Some(45_000), None));
        assert_eq!(brake.rate(74_999).messages, 21, "it grows from the end of the silence");
        assert_eq!(brake.rate(75_000).messages, 22);
        assert_eq!(brake.rate(10_000_000).messages, 30);
    }

    #[test]
    fn three_chats_in_different_seconds_silence_nobody_and_slow_down() {
        let mut brake = brake();
        for (chat, at) in [(1, 1), (2, 1_000), (3, 2_000)] {
            assert_eq!(brake.refused(Some(chat), at + 1_000, at), None);
        }
        assert_eq!(brake.rate(2_000).messages, 21);
        assert_eq!(brake.refused(Some(4), 4_000, 3_000), None);
        assert_eq!(brake.rate(3_000).messages, 21, "the same three do not count twice");
    }

    #[test]
    fn after_a_silence_the_second_refusal_in_a_row_is_another_one() {
        let mut brake = brake();
        brake.silent(35_000, 0);
        assert_eq!(brake.probing_since(), Some(35_000));
        assert_eq!(brake.refused(Some(1), 45_000, 35_100), None);
        assert_eq!(brake.refused(Some(2), 45_500, 36_500), Some(45_500));
        assert_eq!(brake.refused(Some(1), 60_000, 45_600), None, "counted anew");
        brake.passed(45_400);
        assert_eq!(brake.probing_since(), Some(45_500), "it was under way before");
        brake.passed(45_500);
        assert_eq!((brake.probing_since(), brake.refused(Some(2), 60_000, 47_000)), (None, None));
    }

    #[test]
    fn a_method_of_the_bot_itself_means_the_bot() {
        let mut brake = brake();
        assert_eq!(brake.refused(None, 3_000, 0), Some(3_000));
        brake.silent(2_000, 0);
        assert_eq!(brake.silence(0), Some(3_000), "a shorter silence shortens nothing");
        brake.silent(i64::from(i32::MIN), 3_000);
        assert_eq!(brake.silence(3_000), None);
    }
}
