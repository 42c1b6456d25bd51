//! The pacer: which message goes next, and when.
//!
//! It uses the whole rate that Telegram allows a bot and never more: in no sliding second are there more messages than the
//! [`Limits`] say, whatever burst was asked for. Chats have limits of their own, and a chat that has to wait makes nobody else
//! wait. What is more important goes first ([`Lane`]); a campaign gets one message of twenty even then, and what was paid for one
//! of four, however many answers wait.
//!
//! A 429 pauses its chat. From the third refused chat within a second on it means the bot: then all is silent until the longest
//! wait lapses, one call at a time tries the ground, and the rate, lower by a quarter, grows back. Calls under way are bounded by
//! what the pace needs at the latency that there is.
//!
//! Pure: time and jitter are handed in, nothing here waits or calls. Its owner loops: [`Pacer::offer`] what waits, ask
//! [`Pacer::next`], and tell how each call ended ([`Pacer::done`]) or that it never began ([`Pacer::lost`]). One token has one
//! pacer in the world; whoever takes the token over says [`Pacer::start_carefully`].

mod brake;
mod chats;
mod gcra;
mod queue;
#[cfg(test)]
mod tests;
mod window;

use std::collections::BTreeMap;
use std::time::Duration;

use self::brake::Brake;
use self::chats::Chats;
use self::gcra::{Gcra, Spacing};
use self::queue::Queue;
use self::window::Window;

/// Milliseconds of a clock that never goes back. Where it begins does not matter.
pub type Moment = i64;

/// A campaign gets at least one message of so many.
const CAMPAIGN_SHARE: u32 = 20;
/// What was paid for gets at least one message of so many beside answers.
const GOODS_SHARE: u32 = 4;
/// So many more calls may be under way for what is important: a campaign that fills the window keeps no key waiting.
const RESERVE: usize = 8;
/// What a bot may be thought to have used up just before it was taken over, milliseconds: all of the last second, and a little
/// for what is still on its way.
const LAST_SECOND: i64 = 1_010;

/// So many messages in each so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many; zero counts as one.
    pub messages: u32,
    /// In any window of this length.
    pub per: Duration,
}

impl Rate {
    /// So many in any sliding second.
    pub const fn per_second(messages: u32) -> Self {
        Self { messages, per: Duration::from_secs(1) }
    }
}

/// What one chat bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChatLimit {
    /// Messages to it in the long run.
    pub rate: Rate,
    /// Messages that may go at once after a rest; zero counts as one.
    pub burst: u32,
    /// Shortest time between two messages, in a burst, too.
    pub gap: Duration,
}

/// What Telegram allows. The real limits are unpublished; these are the figures that its documentation names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All messages of the bot. Never passed, in any sliding window.
    pub bot: Rate,
    /// The messages in each [`Rate::per`] to begin with; nobody having refused, it is one more every three seconds.
    pub start: u32,
    /// A person.
    pub private: ChatLimit,
    /// A group of the old kind.
    pub group: ChatLimit,
    /// A supergroup or a channel: their ids look alike.
    pub channel: ChatLimit,
}

impl Limits {
    /// At most so many messages of the bot in any sliding second: 30 is what Telegram allows. To a person one a second and
    /// three at once, to a group or channel twenty a minute and one a second.
    pub const fn per_second(messages: u32) -> Self {
        let second = Duration::from_secs(1);
        let group = ChatLimit { rate: Rate { messages: 20, per: Duration::from_secs(60) }, burst: 3, gap: second };
        Self {
            bot: Rate::per_second(messages),
            start: 28,
            private: ChatLimit { rate: Rate::per_second(1), burst: 3, gap: Duration::ZERO },
            group,
            channel: group,
        }
    }
}

/// What a message is, by importance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// An answer to a person who is waiting for it.
    Answer,
    /// What was paid for.
    Goods,
    /// Money and security.
    Money,
    /// What somebody should not forget.
    Reminder,
    /// News that was subscribed to.
    Digest,
    /// A message to many.
    Campaign,
}

impl Lane {
    /// All of them, the most important first.
    pub const ALL: [Lane; 6] = [Lane::Answer, Lane::Goods, Lane::Money, Lane::Reminder, Lane::Digest, Lane::Campaign];

    /// The word in rows and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Lane::Answer => "answer",
            Lane::Goods => "goods",
            Lane::Money => "money",
            Lane::Reminder => "reminder",
            Lane::Digest => "digest",
            Lane::Campaign => "campaign",
        }
    }

    /// The lane with this word, if there is one.
    pub fn of(word: &str) -> Option<Lane> {
        Lane::ALL.into_iter().find(|lane| lane.as_str() == word)
    }

    /// Whether it may use calls that a campaign may not.
    const fn is_urgent(self) -> bool {
        matches!(self, Lane::Answer | Lane::Goods | Lane::Money)
    }

    const fn index(self) -> usize {
        self as usize
    }
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Next<K> {
    /// Send this message at once: its slot is taken, and it is under way until [`Pacer::done`] or [`Pacer::lost`].
    Send {
        /// The message.
        key: K,
        /// Its chat.
        chat: i64,
    },
    /// Nothing before this moment. Ask again then, and after each `offer` and `done` before.
    Wait(Moment),
    /// Nothing waits.
    Idle,
    /// So many calls are under way, as many as may be. Ask again after the next `done` or `offer`.
    Full(usize),
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Telegram took the message.
    Sent {
        /// How long the call took.
        took: Duration,
    },
    /// Telegram answered 429: certainly not sent.
    Refused429 {
        /// How long to be silent.
        retry_after: Duration,
        /// A little more, so that those who wait for one moment do not meet at it: 0 to 250 ms at random.
        jitter: Duration,
    },
    /// Anything else, and no answer.
    Other,
}

/// The silence that a 429 came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// Until when.
    pub until: Moment,
    /// Whether it is the whole bot's and not only the chat's.
    pub whole_bot: bool,
}

/// How a pacer stands, for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The rate that is allowed now; it says nothing about silence.
    pub rate: Rate,
    /// Messages that wait, by lane, the most important first.
    pub waiting: [(Lane, usize); 6],
    /// Calls under way.
    pub under_way: usize,
    /// How many of them may be.
    pub window: usize,
    /// Until when the whole bot is silent, if it is.
    pub silent_until: Option<Moment>,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    chat: i64,
    began: Moment,
}

/// The pacer of one bot token. `K` is a message's id: unique among those that wait or are under way.
#[derive(Clone, Debug)]
pub struct Pacer<K> {
    bot: Gcra,
    brake: Brake,
    chats: Chats,
    window: Window,
    queues: [Queue<K>; 6],
    waiting: BTreeMap<K, (Lane, i64)>,
    under_way: BTreeMap<K, Call>,
    offered: u64,
    /// Messages that went before a campaign that was ready, since its last one.
    passed_over: u32,
    /// Answers that went before goods that were ready, since the last of these.
    answers_before: u32,
    /// The latest moment that was handed in.
    now: Moment,
}

impl<K: Ord + Clone> Pacer<K> {
    /// A pacer that begins at `now`, for a token that nobody used in the last second.
    pub fn new(limits: Limits, now: Moment) -> Self {
        Self {
            bot: Gcra::new(),
            brake: Brake::new(limits.bot, limits.start, now),
            chats: Chats::new(&limits),
            window: Window::new(),
            queues: std::array::from_fn(|_| Queue::new()),
            waiting: BTreeMap::new(),
            under_way: BTreeMap::new(),
            offered: 0,
            passed_over: 0,
            answers_before: 0,
            now,
        }
    }

    /// A message waits, behind those of its chat in its lane. One that waits or is under way already stays as it is.
    pub fn offer(&mut self, key: K, chat: i64, lane: Lane) {
        if self.waiting.contains_key(&key) || self.under_way.contains_key(&key) {
            return;
        }
        self.queues[lane.index()].push(self.offered, key.clone(), chat, &self.chats);
        self.waiting.insert(key, (lane, chat));
        self.offered += 1;
    }

    /// What to do at `now`.
    pub fn next(&mut self, now: Moment) -> Next<K> {
        let now = self.at(now);
        if self.waiting.is_empty() {
            return Next::Idle;
        }
        if let Some(until) = self.brake.silence(now) {
            return Next::Wait(until);
        }
        let rate = self.brake.rate(now);
        let spacing = spacing(rate);
        let slot = self.bot.earliest(spacing);
        let probe = self.is_probe_under_way();
        let (mut soonest, mut full): (Option<Moment>, Option<usize>) = (None, None);
        for lane in self.order_with_goods(now) {
            let room = if probe { 1 } else { self.room(lane, rate) };
            let queue = &mut self.queues[lane.index()];
            let chat = queue.first(now, &self.chats);
            if probe || self.under_way.len() >= room {
                full = (queue.len() > 0).then_some(room).or(full);
                continue;
            }
            let Some(chat) = chat else {
                soonest = [soonest, queue.next_at()].into_iter().flatten().min();
                continue;
            };
            if slot > now {
                return Next::Wait(slot);
            }
            self.chats.take(chat, now);
            let Some(key) = queue.pop(chat, now, &self.chats) else { continue };
            self.bot.take(now, spacing);
            self.waiting.remove(&key);
            self.under_way.insert(key.clone(), Call { chat, began: now });
            self.count(lane, now);
            return Next::Send { key, chat };
        }
        match (soonest, full) {
            (Some(at), _) => Next::Wait(at.max(slot)),
            (None, Some(room)) => Next::Full(room),
            (None, None) => Next::Idle,
        }
    }

    /// A message's call ended at `now`. Answers the silence that follows from a 429. A message that is not under way changes
    /// nothing.
    pub fn done(&mut self, key: &K, now: Moment, outcome: Outcome) -> Option<Silence> {
        let call = self.under_way.remove(key)?;
        let now = self.at(now);
        match outcome {
            Outcome::Sent { took } => {
                self.window.answered(took);
                self.brake.passed(call.began);
                None
            }
            Outcome::Refused429 { retry_after, jitter } => {
                let until = after(now, retry_after, jitter);
                self.chats.leave_alone(call.chat, until, now);
                Some(match self.brake.refused(Some(call.chat), until, now) {
                    Some(until) => Silence { until, whole_bot: true },
                    None => Silence { until, whole_bot: false },
                })
            }
            Outcome::Other => None,
        }
    }

    /// A call that belongs to no chat (`getMe`, `getUpdates`, the answer to a press) was answered with 429: the bot is meant.
    /// Answers the silence that follows.
    pub fn refused(&mut self, retry_after: Duration, jitter: Duration, now: Moment) -> Silence {
        let now = self.at(now);
        let until = after(now, retry_after, jitter);
        Silence { until: self.brake.refused(None, until, now).unwrap_or(until), whole_bot: true }
    }

    /// Nobody will send this message: it gives its place back, waiting or under way. Its slot is not given to another.
    pub fn lost(&mut self, key: &K) {
        self.under_way.remove(key);
        if let Some((lane, chat)) = self.waiting.remove(key) {
            self.queues[lane.index()].remove(chat, key, self.now, &self.chats);
        }
    }

    /// Takes a slot for a message that waits for nothing but a silence (see [`Pacer::silence_of`]): it counts as under way and
    /// uses up what it uses.
    pub fn admit(&mut self, key: K, chat: i64, now: Moment) {
        let now = self.at(now);
        let spacing = spacing(self.brake.rate(now));
        self.bot.take(now, spacing);
        self.chats.take(chat, now);
        self.under_way.insert(key, Call { chat, began: now });
    }

    /// The whole bot is silent until `until`, as somebody was told before; a longer silence stays.
    pub fn silence(&mut self, until: Moment, now: Moment) {
        let now = self.at(now);
        self.brake.silent(until, now);
    }

    /// Nothing goes to this chat before `until`, as somebody was told before; a longer pause stays.
    pub fn silence_chat(&mut self, chat: i64, until: Moment, now: Moment) {
        let now = self.at(now);
        self.chats.leave_alone(chat, until, now);
    }

    /// The silence that holds for this chat at `now`, its own or the bot's.
    pub fn silence_of(&self, chat: i64, now: Moment) -> Option<Silence> {
        let own = self.chats.pause(chat, now).map(|until| Silence { until, whole_bot: false });
        let all = self.brake.silence(now).map(|until| Silence { until, whole_bot: true });
        [own, all].into_iter().flatten().max_by_key(|silence| silence.until)
    }

    /// Somebody else sent with this token until `now`, and nobody knows what: as if all of the last second and every chat's
    /// burst had been used.
    pub fn start_carefully(&mut self, now: Moment) {
        let now = self.at(now);
        let spacing = spacing(self.brake.rate(now));
        self.bot.not_before(now.saturating_add(LAST_SECOND), spacing);
        self.chats.begin_used_up(now);
    }

    /// When a message to this chat that came now could go at the earliest, as far as its chat and a silence decide.
    pub fn expected(&self, chat: i64, now: Moment) -> Moment {
        let ahead: usize = self.queues.iter().map(|queue| queue.len_of(chat)).sum();
        let at = self.chats.earliest_behind(chat, ahead, now).max(now);
        self.brake.silence(now).map_or(at, |until| until.max(at))
    }

    /// How far apart messages to this chat are in the long run.
    pub fn step_of(&self, chat: i64) -> Duration {
        Duration::from_millis(u64::try_from(self.chats.step_ms(chat)).unwrap_or(0))
    }

    /// The rate that is allowed, as it was when it was last needed.
    pub fn rate(&self) -> Rate {
        self.brake.standing()
    }

    /// How it stands at `now`.
    pub fn state(&self, now: Moment) -> View {
        let rate = self.brake.standing();
        View {
            rate,
            waiting: Lane::ALL.map(|lane| (lane, self.queues[lane.index()].len())),
            under_way: self.under_way.len(),
            window: self.window.size(rate),
            silent_until: self.brake.silence(now),
        }
    }

    /// The lanes in the order in which they are looked at.
    fn order(&mut self, now: Moment) -> [Lane; 6] {
        let mut order = Lane::ALL;
        let campaign = self.queues[Lane::Campaign.index()].first(now, &self.chats);
        if campaign.is_some() && self.passed_over + 1 >= CAMPAIGN_SHARE {
            order.rotate_right(1);
        }
        order
    }

    /// The same where it is the turn of what was paid for to go before answers.
    fn order_with_goods(&mut self, now: Moment) -> [Lane; 6] {
        let mut order = self.order(now);
        if self.answers_before + 1 >= GOODS_SHARE {
            let answers = usize::from(order[0] == Lane::Campaign);
            order.swap(answers, answers + 1);
        }
        order
    }

    fn count(&mut self, lane: Lane, now: Moment) {
        if lane == Lane::Goods {
            self.answers_before = 0;
        } else if lane == Lane::Answer && self.queues[Lane::Goods.index()].first(now, &self.chats).is_some() {
            self.answers_before = self.answers_before.saturating_add(1);
        }
        if lane == Lane::Campaign {
            self.passed_over = 0;
        } else if self.queues[Lane::Campaign.index()].first(now, &self.chats).is_some() {
            self.passed_over = self.passed_over.saturating_add(1);
        }
    }

    fn room(&self, lane: Lane, rate: Rate) -> usize {
        self.window.size(rate) + if lane.is_urgent() { RESERVE } else { 0 }
    }

    /// After a silence one call at a time goes until one is through. Those that began before it do not count.
    fn is_probe_under_way(&self) -> bool {
        self.brake.probing_since().is_some_and(|since| self.under_way.values().any(|call| call.began >= since))
    }

    /// `now`, or the latest moment that was handed in: time does not go back here.
    fn at(&mut self, now: Moment) -> Moment {
        self.now = self.now.max(now);
        self.now
    }
}

fn spacing(rate: Rate) -> Spacing {
    Spacing::of(rate.messages, rate.per, 1).by_timer()
}

fn after(now: Moment, wait: Duration, jitter: Duration) -> Moment {
    now.saturating_add(millis(wait)).saturating_add(millis(jitter))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 8)
}
