//! The pace of the bot: whoever calls Telegram for a chat takes a turn before, and tells afterwards how the call ended.
//!
//! One [`Pacer`] in the process decides; of several copies only the holder of the sender's lease calls. While anybody waits, one
//! task lets go whose turn it is and sleeps until the next one is due. A turn that is dropped gives its place back, waiting or
//! under way.
//!
//! Where time moves by hand nobody can wait for it: there a turn waits for silences only.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use semel_kernel::clock::{Chance, Time, millis};
use semel_telegram::pacer::{Lane, Limits, Moment, Next, Outcome, Pacer, View};

use super::{ALERT, VPN_HOWTO, WORDS, hands_over};

/// What a 429 adds to its wait at most, milliseconds, so that those who wait for one moment do not meet at it.
const JITTER_MS: u64 = 250;
/// How long a turn may wait for anything but its own chat before it is given up.
const LONGEST: Duration = Duration::from_secs(10);
/// When to come again after that.
const COME_AGAIN: Duration = Duration::from_secs(1);
/// So many messages that nobody paid for wait here. All others wait in the database, or they would hold every worker, and what
/// was paid for would not even be looked at.
const CROWD: usize = 20;
/// How often a clock that moves by hand is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// How much earlier than evenly spaced a reminder may go, milliseconds.
const EARLY_MS: i64 = 1_000;
/// Chats whose next moment is kept before those that have passed are forgotten.
const MANY: usize = 256;

/// The lane of a message, by what it is about.
pub fn lane_of(kind: &str) -> Lane {
    match kind {
        VPN_HOWTO | WORDS => Lane::Goods,
        _ if hands_over(kind) => Lane::Goods,
        "balance" | "refund" | "reward" | ALERT => Lane::Money,
        "vpn_ends" | "vpn_ended" | "vpn_unconnected" => Lane::Reminder,
        _ => Lane::Answer,
    }
}

/// The pace of the bot's token. Cheap to clone; clones are one pace.
#[derive(Clone)]
pub struct Pace(Arc<Inner>);

struct Inner {
    time: Source,
    chance: Chance,
    state: Mutex<State>,
    /// Something may have become possible.
    changed: Notify,
    /// Whether somebody else is to send from now on.
    leaving: AtomicBool,
}

enum Source {
    /// Milliseconds since this moment: steady, whatever somebody does to the machine's clock.
    Running(Instant),
    ByHand(Box<dyn Fn() -> Time + Send + Sync>),
}

struct State {
    pacer: Pacer<u64>,
    /// Who waits, by number.
    waiters: BTreeMap<u64, oneshot::Sender<()>>,
    serial: u64,
    /// Whether a task lets go whose turn it is.
    driven: bool,
    /// The latest moment that somebody was told to come again for a chat: two who come for one chat come one after the other.
    promised: BTreeMap<i64, Moment>,
    /// The latest moment that somebody was told to come again because too many waited here.
    crowded: Moment,
    reminders: Reminders,
}

/// Where reminders stand, all together.
#[derive(Default)]
struct Reminders {
    /// When the next one would be exactly on pace.
    on_pace: Moment,
    /// The latest moment that one was told to come again at.
    promised: Moment,
}

/// Not now: nothing was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotNow {
    /// Come again after this.
    pub left: Duration,
}

/// How a call ended, as far as the pace is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Telegram took the message.
    Sent,
    /// Telegram answered 429.
    TooMany {
        /// How long to be silent.
        retry_after: Duration,
    },
    /// Anything else, and no answer.
    Other,
}

/// The silence that a 429 came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// For how long from now.
    pub left: Duration,
    /// Whether it is the whole bot's and not only the chat's.
    pub whole_bot: bool,
}

impl Pace {
    /// A pace in running time, for a token that another program may have used until now: it begins carefully.
    pub fn new(limits: Limits, chance: Chance) -> Self {
        Self::of(limits, chance, Source::Running(Instant::now()))
    }

    /// A pace in the time that `now` tells, which moves by hand: for stories and simulations.
    pub fn by_hand(limits: Limits, chance: Chance, now: impl Fn() -> Time + Send + Sync + 'static) -> Self {
        Self::of(limits, chance, Source::ByHand(Box::new(now)))
    }

    fn of(limits: Limits, chance: Chance, time: Source) -> Self {
        let now = time.now();
        let mut pacer = Pacer::new(limits, now);
        pacer.start_carefully(now);
        let state = State {
            pacer,
            waiters: BTreeMap::new(),
            serial: 0,
            driven: false,
            promised: BTreeMap::new(),
            crowded: now,
            reminders: Reminders::default(),
        };
        let (state, leaving) = (Mutex::new(state), AtomicBool::new(false));
        Self(Arc::new(Inner { time, chance, state, changed: Notify::new(), leaving }))
    }

    /// Waits for the turn to write to `chat`, as long as it takes. `key` is the message's id, for the log.
    ///
    /// Dropping the future gives the place back.
    pub async fn turn(&self, lane: Lane, chat: i64, key: String) -> Turn {
        loop {
            if self.0.time.is_by_hand() {
                if let Ok(turn) = self.at_once(chat) {
                    return turn;
                }
                sleep(LOOK).await;
                continue;
            }
            let (turn, heard) = self.wait_in(lane, chat, &key);
            if heard.await.is_ok() {
                return turn.begun();
            }
        }
    }

    /// The same for who holds a worker meanwhile: answers [`NotNow`] at once when the chat's own pace or a silence takes longer
    /// than `patience`, or when too many wait already, and after ten seconds in any case. Who comes again when told finds the
    /// chat free.
    ///
    /// # Errors
    /// [`NotNow`]: nothing was taken.
    pub async fn turn_within(&self, lane: Lane, chat: i64, key: String, patience: Duration) -> Result<Turn, NotNow> {
        if self.0.time.is_by_hand() {
            return self.at_once(chat);
        }
        if let Some(left) = self.0.too_long(lane, chat, patience).or_else(|| self.0.too_many(lane)) {
            return Err(NotNow { left });
        }
        let (turn, heard) = self.wait_in(lane, chat, &key);
        match timeout(LONGEST, heard).await {
            Ok(Ok(())) => Ok(turn.begun()),
            Ok(Err(_)) | Err(_) => Err(NotNow { left: COME_AGAIN }),
        }
    }

    /// Asked by a reminder before its turn: many that are due at one moment wait in the database, evenly spaced, and not with all
    /// workers in their hands, where what is more important would not even be looked at. They go at two thirds of the rate at
    /// most, and no closer than `step`. A silence is the turn's business.
    ///
    /// # Errors
    /// [`NotNow`]: nothing was taken.
    pub fn reminder(&self, chat: i64, step: Duration) -> Result<(), NotNow> {
        if self.0.time.is_by_hand() {
            return Ok(());
        }
        let now = self.0.time.now();
        let mut state = self.0.lock();
        if state.pacer.silence_of(chat, now).is_some() {
            return Ok(());
        }
        let rate = state.pacer.rate();
        let step = millis(step.max(rate.per * 3 / (rate.messages.max(1) * 2)));
        let reminders = &mut state.reminders;
        if reminders.on_pace <= now.saturating_add(EARLY_MS) {
            reminders.on_pace = reminders.on_pace.max(now).saturating_add(step);
            return Ok(());
        }
        reminders.promised = reminders.on_pace.max(reminders.promised.saturating_add(step));
        Err(NotNow { left: between(now, reminders.promised) })
    }

    /// The whole bot is silent for so long from now on, as somebody was told before. A longer silence stays.
    pub fn silence(&self, left: Duration) {
        self.0.change(|pacer, now| pacer.silence(now.saturating_add(millis(left)), now));
    }

    /// Nothing goes to this chat for so long from now on, as somebody was told before. A longer pause stays.
    pub fn silence_chat(&self, chat: i64, left: Duration) {
        self.0.change(|pacer, now| pacer.silence_chat(chat, now.saturating_add(millis(left)), now));
    }

    /// Telegram answered 429 to a call that belongs to no chat: the whole bot is meant. Answers for how long from now on.
    pub fn refused(&self, retry_after: Duration) -> Duration {
        let (now, jitter) = (self.0.time.now(), self.0.jitter());
        let silence = self.0.lock().pacer.refused(retry_after, jitter, now);
        self.0.changed.notify_one();
        between(now, silence.until)
    }

    /// Another copy may have sent until now: as if all of the last second and every chat's burst had been used.
    pub fn start_carefully(&self) {
        self.0.leaving.store(false, Ordering::SeqCst);
        self.0.change(Pacer::start_carefully);
    }

    /// This copy gives the sending up: what lasts for long ends soon, because nobody sends until it has ended.
    pub fn leave(&self) {
        self.0.leaving.store(true, Ordering::SeqCst);
    }

    /// Whether this copy gives the sending up.
    pub fn is_leaving(&self) -> bool {
        self.0.leaving.load(Ordering::SeqCst)
    }

    /// How it stands.
    pub fn view(&self) -> View {
        let now = self.0.time.now();
        self.0.lock().pacer.state(now)
    }

    /// A place among those who wait. The receiver hears when it is its turn.
    fn wait_in(&self, lane: Lane, chat: i64, key: &str) -> (Turn, oneshot::Receiver<()>) {
        tracing::trace!(message.id = key, lane = lane.as_str(), "a message waits for its turn");
        let (tell, heard) = oneshot::channel();
        let now = self.0.time.now();
        let mut state = self.0.lock();
        let number = state.number();
        state.pacer.offer(number, chat, lane);
        state.waiters.insert(number, tell);
        let driven = std::mem::replace(&mut state.driven, true);
        drop(state);
        if driven {
            self.0.changed.notify_one();
        } else {
            tokio::spawn(drive(Driver { inner: Arc::clone(&self.0), ended: false }));
        }
        (Turn { inner: Arc::clone(&self.0), number: Some(number), began: now }, heard)
    }

    /// The turn at once, or what a silence leaves.
    fn at_once(&self, chat: i64) -> Result<Turn, NotNow> {
        let now = self.0.time.now();
        let mut state = self.0.lock();
        if let Some(silence) = state.pacer.silence_of(chat, now) {
            return Err(NotNow { left: between(now, silence.until) });
        }
        let number = state.number();
        state.pacer.admit(number, chat, now);
        Ok(Turn { inner: Arc::clone(&self.0), number: Some(number), began: now })
    }
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pace")
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }
}

impl Source {
    fn is_by_hand(&self) -> bool {
        matches!(self, Source::ByHand(_))
    }

    fn now(&self) -> Moment {
        match self {
            Source::Running(start) => millis(start.elapsed()),
            Source::ByHand(now) => now().millis(),
        }
    }

    /// The timer's moment for one of ours.
    fn instant(&self, at: Moment) -> Instant {
        match self {
            Source::Running(start) => *start + Duration::from_millis(u64::try_from(at).unwrap_or(0)),
            Source::ByHand(_) => Instant::now() + LOOK,
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn jitter(&self) -> Duration {
        Duration::from_millis(self.chance.below(JITTER_MS + 1))
    }

    fn change(&self, act: impl FnOnce(&mut Pacer<u64>, Moment)) {
        let now = self.time.now();
        act(&mut self.lock().pacer, now);
        self.changed.notify_one();
    }

    /// How long a message to this chat has to stay away, if its chat or a silence takes longer than `patience`. What was paid
    /// for comes again as soon as it may: who asked a hundred questions does not wait for the key behind all answers.
    fn too_long(&self, lane: Lane, chat: i64, patience: Duration) -> Option<Duration> {
        let now = self.time.now();
        let mut state = self.lock();
        let expected = state.pacer.expected(chat, now);
        if expected <= now.saturating_add(millis(patience)) {
            return None;
        }
        if lane == Lane::Goods {
            return Some(between(now, expected));
        }
        let step = millis(state.pacer.step_of(chat));
        let told = match state.promised.get(&chat) {
            Some(before) => expected.max(before.saturating_add(step)),
            None => expected,
        };
        if state.promised.len() >= MANY {
            state.promised.retain(|_, at| *at > now);
        }
        state.promised.insert(chat, told);
        Some(between(now, told))
    }

    /// How long a message has to stay away because too many wait here. They come again one after the other, as fast as they can
    /// go. What was paid for always stays, and a campaign has workers of its own.
    fn too_many(&self, lane: Lane) -> Option<Duration> {
        if matches!(lane, Lane::Goods | Lane::Campaign) {
            return None;
        }
        let now = self.time.now();
        let mut state = self.lock();
        let waiting = state.pacer.state(now).waiting;
        let crowd: usize =
            waiting.iter().filter(|(of, _)| !matches!(of, Lane::Goods | Lane::Campaign)).map(|(_, count)| count).sum();
        if crowd < CROWD {
            return None;
        }
        let rate = state.pacer.rate();
        let step = millis(rate.per / rate.messages.max(1));
        let ahead = i64::try_from(CROWD).unwrap_or(1).saturating_mul(step);
        state.crowded = state.crowded.max(now.saturating_add(ahead)).saturating_add(step);
        Some(between(now, state.crowded))
    }

    /// Lets go everybody whose turn it is.
    fn let_go(&self) -> Then {
        let now = self.time.now();
        let mut state = self.lock();
        loop {
            match state.pacer.next(now) {
                Next::Send { key, .. } => {
                    let told = state.waiters.remove(&key).is_some_and(|tell| tell.send(()).is_ok());
                    if !told {
                        state.pacer.lost(&key);
                    }
                }
                Next::Wait(at) => return Then::At(at),
                Next::Full(_) => return Then::Changed,
                Next::Idle => {
                    // Under the same lock: who comes next finds nobody and begins anew.
                    state.driven = false;
                    return Then::Rest;
                }
            }
        }
    }

    fn lost(&self, number: u64) {
        let mut state = self.lock();
        state.waiters.remove(&number);
        state.pacer.lost(&number);
        drop(state);
        self.changed.notify_one();
    }
}

/// What whoever lets others go does next.
enum Then {
    At(Moment),
    Changed,
    Rest,
}

/// The task that lets go whose turn it is. Should it die, the next who comes begins another.
struct Driver {
    inner: Arc<Inner>,
    ended: bool,
}

impl Drop for Driver {
    fn drop(&mut self) {
        if !self.ended {
            self.inner.lock().driven = false;
        }
    }
}

async fn drive(mut driver: Driver) {
    let inner = Arc::clone(&driver.inner);
    loop {
        match inner.let_go() {
            Then::Rest => {
                driver.ended = true;
                return;
            }
            Then::Changed => inner.changed.notified().await,
            Then::At(at) => {
                tokio::select! {
                    () = sleep_until(inner.time.instant(at)) => {}
                    () = inner.changed.notified() => {}
                }
            }
        }
    }
}

/// The right to make one call. Dropped without a word, it gives its place back.
#[must_use]
pub struct Turn {
    inner: Arc<Inner>,
    /// None once it has been told how the call ended.
    number: Option<u64>,
    began: Moment,
}

impl Turn {
    /// Tells how the call ended. After a 429 answers the silence that follows.
    pub fn done(mut self, heard: Heard) -> Option<Quiet> {
        let number = self.number.take()?;
        let now = self.inner.time.now();
        let outcome = match heard {
            Heard::Sent => Outcome::Sent { took: between(self.began, now) },
            Heard::TooMany { retry_after } => Outcome::Refused429 { retry_after, jitter: self.inner.jitter() },
            Heard::Other => Outcome::Other,
        };
        let silence = self.inner.lock().pacer.done(&number, now, outcome);
        self.inner.changed.notify_one();
        silence.map(|silence| Quiet { left: between(now, silence.until), whole_bot: silence.whole_bot })
    }

    /// Its time has come: the call begins now.
    fn begun(mut self) -> Self {
        self.began = self.inner.time.now();
        self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(number) = self.number.take() {
            self.inner.lost(number);
        }
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("number", &self.number).finish_non_exhaustive()
    }
}

fn between(from: Moment, to: Moment) -> Duration {
    Duration::from_millis(u64::try_from(to.saturating_sub(from)).unwrap_or(0))
}

#[cfg(test)]
mod tests;
