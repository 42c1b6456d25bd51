//! The pacer against a strict Bot API server, in simulated time: the server counts what arrives in every sliding second, keeps
//! the limits of each chat, and answers 429 for everything above.

mod two_copies;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use super::*;

/// Dice that a seed decides.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, n: i64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        i64::try_from((self.0 >> 11) % u64::try_from(n.max(1)).expect("positive")).expect("below an i64")
    }
}

/// The Bot API as its documentation describes it, without mercy.
struct Server {
    per_second: usize,
    arrived: VecDeque<Moment>,
    /// When the next message to a person is due if nothing is saved up.
    due: BTreeMap<i64, Moment>,
    groups: BTreeMap<i64, VecDeque<Moment>>,
    /// Refuses this chat, or all with `None`, until the moment.
    closed: Vec<(Option<i64>, Moment)>,
    refused: Vec<(Moment, i64)>,
    /// Silences that it asked for: whom, when, until when.
    asked: Vec<(Option<i64>, Moment, Moment)>,
    accepted_at: Vec<Moment>,
    /// Calls that came in a silence whose beginning their sender could know.
    broken_silences: usize,
}

/// A call that was under way when the server asked for silence breaks none.
const UNDER_WAY: i64 = 2_600;

impl Server {
    fn new(per_second: usize) -> Self {
        Self {
            per_second,
            arrived: VecDeque::new(),
            due: BTreeMap::new(),
            groups: BTreeMap::new(),
            closed: Vec::new(),
            refused: Vec::new(),
            asked: Vec::new(),
            accepted_at: Vec::new(),
            broken_silences: 0,
        }
    }

    /// Takes a message, or says for how many seconds to be silent.
    fn receive(&mut self, chat: i64, now: Moment) -> Result<(), i64> {
        let broken = |(whose, at, until): &(Option<i64>, Moment, Moment)| {
            whose.is_none_or(|whose| whose == chat) && now > at + UNDER_WAY && now < *until
        };
        self.broken_silences += usize::from(self.asked.iter().any(broken));
        let answer = self.judge(chat, now);
        match answer {
            Ok(()) => {
                self.arrived.push_back(now);
                self.accepted_at.push(now);
            }
            Err(seconds) => {
                self.refused.push((now, chat));
                let lately: BTreeSet<i64> =
                    self.refused.iter().rev().take_while(|(at, _)| *at > now - 1_000).map(|(_, chat)| *chat).collect();
                let whose = (lately.len() < 3).then_some(chat);
                self.asked.push((whose, now, now + seconds * 1_000));
            }
        }
        answer
    }

    fn judge(&mut self, chat: i64, now: Moment) -> Result<(), i64> {
        let seconds = |ms: i64| ((ms + 999) / 1_000).max(1);
        self.closed.retain(|(_, until)| *until > now);
        if let Some((_, until)) = self.closed.iter().find(|(whose, _)| whose.is_none_or(|whose| whose == chat)) {
            return Err(seconds(until - now));
        }
        while self.arrived.front().is_some_and(|at| *at <= now - 1_000) {
            self.arrived.pop_front();
        }
        if self.arrived.len() >= self.per_second {
            return Err(seconds(self.arrived[self.arrived.len() - self.per_second] + 1_000 - now));
        }
        if chat < 0 {
            let times = self.groups.entry(chat).or_default();
            while times.front().is_some_and(|at| *at <= now - 60_000) {
                times.pop_front();
            }
            if times.len() >= 20 {
                return Err(seconds(times[0] + 60_000 - now));
            }
            times.push_back(now);
        } else {
            let due = self.due.get(&chat).copied().unwrap_or(now).max(now);
            if due - now > 2_000 {
                return Err(seconds(due - now - 2_000));
            }
            self.due.insert(chat, due + 1_000);
        }
        Ok(())
    }

    /// The most messages that it took in any sliding second.
    fn most_in_a_second(&self) -> usize {
        let mut times = self.accepted_at.clone();
        times.sort_unstable();
        let mut first = 0;
        let mut most = 0;
        for (last, at) in times.iter().enumerate() {
            while times[first] <= at - 1_000 {
                first += 1;
            }
            most = most.max(last - first + 1);
        }
        most
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives(u32),
    Answered(u32, i64),
    Offered(u32),
}

#[derive(Clone, Copy)]
struct Message {
    chat: i64,
    lane: Lane,
    offered: Moment,
    sent: Moment,
    accepted: Option<Moment>,
}

/// One sender of one token, its messages, the network and the server.
struct World {
    now: Moment,
    dice: Dice,
    pacer: Pacer<u32>,
    server: Server,
    messages: Vec<Message>,
    events: BinaryHeap<Reverse<(Moment, u64, Event)>>,
    serial: u64,
    /// The fastest way there and back, and how much slower most calls are.
    fastest: i64,
    spread: i64,
    /// How much longer one call of two hundred takes.
    slow: i64,
    refusals: usize,
    last_accepted: Moment,
    /// What no call answered yet.
    left: usize,
}

/// In the place of the seconds of a 429.
const TAKEN: i64 = 0;

impl World {
    fn new(cap: u32, seed: u64) -> Self {
        Self {
            now: 0,
            dice: Dice::new(seed),
            pacer: Pacer::new(Limits::per_second(cap), 0),
            server: Server::new(usize::try_from(cap).expect("small")),
            messages: Vec::new(),
            events: BinaryHeap::new(),
            serial: 0,
            fastest: 30,
            spread: 90,
            slow: 2_000,
            refusals: 0,
            last_accepted: 0,
            left: 0,
        }
    }

    fn at(&mut self, at: Moment, event: Event) {
        self.serial += 1;
        self.events.push(Reverse((at, self.serial, event)));
    }

    /// A message comes at `at`.
    fn message(&mut self, at: Moment, chat: i64, lane: Lane) -> u32 {
        let id = u32::try_from(self.messages.len()).expect("few enough");
        self.messages.push(Message { chat, lane, offered: at, sent: 0, accepted: None });
        self.left += 1;
        if at <= self.now {
            self.pacer.offer(id, chat, lane)
        } else {
            self.at(at, Event::Offered(id))
        }
        id
    }

    /// A campaign to so many people, all at once.
    fn campaign(&mut self, recipients: i64) {
        for chat in 0..recipients {
            self.message(self.now, 1_000_000 + chat, Lane::Campaign);
        }
    }

    /// Lets go what may go, and answers when to look again.
    fn pump(&mut self) -> Option<Moment> {
        loop {
            match self.pacer.next(self.now) {
                Next::Send { key, chat } => {
                    assert_eq!(self.messages[key as usize].chat, chat);
                    self.messages[key as usize].sent = self.now;
                    // Calls overtake each other on their way, and some take seconds until they are answered.
                    let there = self.now + 5 + self.dice.below(10);
                    self.at(there, Event::Arrives(key));
                }
                Next::Wait(at) => {
                    assert!(at > self.now, "a wait of no time at {}", self.now);
                    return Some(at);
                }
                Next::Idle | Next::Full(_) => return None,
            }
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Offered(id) => {
                let message = self.messages[id as usize];
                self.pacer.offer(id, message.chat, message.lane);
            }
            Event::Arrives(id) => {
                let verdict = self.server.receive(self.messages[id as usize].chat, self.now);
                if verdict.is_ok() {
                    let again = self.messages[id as usize].accepted.replace(self.now);
                    assert_eq!(again, None, "message {id} arrived twice");
                    self.last_accepted = self.now;
                }
                let slow = if self.dice.below(200) == 0 { self.slow } else { 0 };
                let back = self.now + self.fastest + self.dice.below(self.spread) + slow;
                self.at(back, Event::Answered(id, verdict.err().unwrap_or(TAKEN)));
            }
            Event::Answered(id, seconds) => self.answered(id, seconds),
        }
    }

    fn answered(&mut self, id: u32, seconds: i64) {
        let message = self.messages[id as usize];
        let took = Duration::from_millis(u64::try_from(self.now - message.sent).expect("forwards"));
        match seconds {
            TAKEN => {
                self.pacer.done(&id, self.now, Outcome::Sent { took });
                self.left -= 1;
            }
            seconds => {
                self.refusals += 1;
                let outcome = Outcome::Refused429 {
                    retry_after: Duration::from_secs(u64::try_from(seconds).expect("positive")),
                    jitter: Duration::from_millis(u64::try_from(self.dice.below(251)).expect("positive")),
                };
                assert!(self.pacer.done(&id, self.now, outcome).is_some(), "a 429 silences somebody");
                self.pacer.offer(id, message.chat, message.lane);
            }
        }
    }

    /// One step in time: what happens next, or what the pacer waits for, a late timer included. False when all is quiet.
    fn step(&mut self) -> bool {
        let wake = self.pump().map(|at| at + self.dice.below(4));
        let event = self.events.peek().map(|Reverse((at, _, _))| *at);
        let Some(next) = [wake, event].into_iter().flatten().min() else { return false };
        self.now = self.now.max(next);
        while let Some(Reverse((at, _, event))) = self.events.peek().copied() {
            if at > self.now {
                break;
            }
            self.events.pop();
            self.happens(event);
        }
        true
    }

    fn run_until(&mut self, end: Moment) {
        while self.now < end && self.step() {}
    }

    /// Until every message was answered.
    fn run(&mut self) {
        while self.left > 0 {
            assert!(self.step(), "{} messages are left and nothing happens", self.left);
        }
    }

    /// How long each accepted message of a lane took from its offer to its arrival, sorted.
    fn delays(&self, lane: Lane) -> Vec<i64> {
        let of_lane = self.messages.iter().filter(|message| message.lane == lane);
        let mut delays: Vec<i64> =
            of_lane.filter_map(|message| message.accepted.map(|at| at - message.offered)).collect();
        delays.sort_unstable();
        delays
    }
}

/// `ms` is at most `percent` of what so many messages take at thirty a second.
fn assert_within(percent: i64, ms: i64, recipients: i64) {
    let ideal = recipients * 1_000 / 30;
    assert!(ms * 100 <= ideal * percent, "{recipients} recipients in {ms} ms, {} % of the ideal", ms * 100 / ideal);
}

#[test]
fn five_thousand_recipients_use_the_whole_rate_and_are_never_refused() {
    for seed in 1..=5 {
        let mut world = World::new(30, seed);
        world.campaign(5_000);
        world.run();
        assert_eq!((world.refusals, world.server.most_in_a_second()), (0, 30), "seed {seed}");
        assert_within(103, world.last_accepted, 5_000);
    }
}

#[test]
fn a_hundred_thousand_recipients_likewise() {
    let mut world = World::new(30, 9);
    for thousand in 0..100 {
        for chat in 0..1_000 {
            world.message(world.now, thousand * 1_000 + chat, Lane::Campaign);
        }
        while world.left > 100 {
            assert!(world.step());
        }
    }
    world.run();
    assert_eq!(world.refusals, 0);
    assert_within(103, world.last_accepted, 100_000);
    assert!(world.messages.iter().all(|message| message.accepted.is_some()));
}

#[test]
fn forty_messages_to_one_chat_keep_nobody_else_waiting() {
    let mut world = World::new(30, 3);
    for _ in 0..40 {
        world.message(0, 7, Lane::Campaign);
    }
    for chat in 100..200 {
        world.message(0, chat, Lane::Campaign);
    }
    world.run();
    let last = world.messages.iter().filter(|m| m.chat != 7).filter_map(|m| m.accepted).max().expect("they arrived");
    // Four of the hot chat go among them; the rate begins at 28.
    assert!(last * 10 <= 11 * 100 * 1_000 / 28, "the others are done after {last} ms");
    assert_eq!(world.refusals, 0);
    let hot: Vec<u32> = (0..40).collect();
    let mut arrived = hot.clone();
    arrived.sort_by_key(|id| world.messages[*id as usize].sent);
    assert_eq!(arrived, hot, "in the order in which they came");
    assert!(world.last_accepted <= 39_000 + 1_000, "the hot chat at its own pace: {} ms", world.last_accepted);
}

#[test]
fn paid_goods_wait_less_than_a_second_during_a_campaign() {
    for (seed, slower) in [(1, 0), (2, 400), (3, 1_500)] {
        let mut world = World::new(30, seed);
        world.campaign(5_000);
        for n in 0..300 {
            let at = 1_000 + n * 450 + world.dice.below(400);
            world.message(at, 10 + n, Lane::Goods);
        }
        world.run_until(60_000);
        world.spread += slower;
        world.run();
        let delays = world.delays(Lane::Goods);
        assert_eq!(delays.len(), 300);
        assert!(delays[297] <= 1_000, "p99 is {} ms, the longest {} ms", delays[297], delays[299]);
        assert_eq!(world.delays(Lane::Campaign).len(), 5_000);
    }
}

#[test]
fn a_campaign_gets_one_of_twenty_beside_a_flood_of_what_is_more_important() {
    let mut world = World::new(30, 4);
    world.slow = 0;
    world.campaign(100);
    for chat in 0..2_000 {
        world.message(0, chat + 10, Lane::Money);
    }
    world.run();
    let mut by_time: Vec<&Message> = world.messages.iter().collect();
    by_time.sort_by_key(|message| message.sent);
    for twenty in by_time[..2_000].chunks(20) {
        let campaign = twenty.iter().filter(|message| message.lane == Lane::Campaign).count();
        assert_eq!(campaign, 1, "of twenty messages at {} ms", twenty[0].sent);
    }
}

#[test]
fn lanes_go_by_importance() {
    let mut pacer = Pacer::new(Limits::per_second(30), 0);
    for (key, lane) in Lane::ALL.into_iter().rev().enumerate() {
        pacer.offer(key, i64::try_from(key).expect("small") + 1, lane);
    }
    let (mut now, mut went) = (0, Vec::new());
    while went.len() < 6 {
        match pacer.next(now) {
            Next::Send { key, .. } => went.push(key),
            Next::Wait(at) => now = at,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(went, [5, 4, 3, 2, 1, 0]);
    assert_eq!(pacer.next(now), Next::Idle);
    assert!(Lane::ALL.into_iter().all(|lane| Lane::of(lane.as_str()) == Some(lane)));
    assert_eq!(Lane::of("news"), None);
}

#[test]
fn one_chats_429_stops_that_chat_only() {
    let mut world = World::new(30, 5);
    world.server.closed.push((Some(7), 35_000));
    for _ in 0..3 {
        world.message(0, 7, Lane::Goods);
    }
    world.campaign(600);
    world.run_until(21_500);
    assert_eq!(world.delays(Lane::Campaign).len(), 600, "everybody else was written to meanwhile");
    assert_eq!(world.pacer.rate(), Rate::per_second(30), "and as fast as ever");
    world.run();
    assert!(world.refusals <= 3, "only what was under way was refused: {}", world.refusals);
    assert_eq!(world.server.broken_silences, 0);
    assert!(world.delays(Lane::Goods)[0] >= 35_000);
}

#[test]
fn three_chats_within_a_second_stop_the_bot_until_the_longest_wait_is_over_and_slow_it_down() {
    let mut pacer = Pacer::new(Limits::per_second(30), 0);
    let mut now = 60_000;
    for chat in 1..=40_i64 {
        pacer.offer(chat, chat, Lane::Campaign);
    }
    let mut under_way = Vec::new();
    while under_way.len() < 4 {
        match pacer.next(now) {
            Next::Send { key, .. } => under_way.push(key),
            Next::Wait(at) => now = at,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(pacer.rate(), Rate::per_second(30));
    let refused =
        |seconds| Outcome::Refused429 { retry_after: Duration::from_secs(seconds), jitter: Duration::from_millis(100) };
    let first = pacer.done(&under_way[0], now, refused(20));
    assert_eq!(first, Some(Silence { until: now + 20_100, whole_bot: false }));
    assert_eq!(pacer.done(&under_way[1], now + 10, refused(5)).map(|silence| silence.whole_bot), Some(false));
    let third = pacer.done(&under_way[2], now + 20, refused(3));
    assert_eq!(third, Some(Silence { until: now + 20_100, whole_bot: true }), "the longest wait counts");
    assert_eq!(pacer.rate(), Rate::per_second(22));
    let sent = Outcome::Sent { took: Duration::from_millis(80) };
    assert_eq!(pacer.done(&under_way[3], now + 30, sent), None);
    assert_eq!(pacer.next(now + 30), Next::Wait(now + 20_100), "a call that was under way ends no silence");
    assert_eq!(pacer.silence_of(999, now + 30).map(|silence| silence.until), Some(now + 20_100));

    // One call tries the ground before the others follow.
    let after = now + 20_100;
    let Next::Send { key, .. } = pacer.next(after) else { panic!("the silence is over") };
    assert_eq!(pacer.next(after + 500), Next::Full(1));
    assert_eq!(pacer.done(&key, after + 500, sent), None);
    assert!(matches!(pacer.next(after + 500), Next::Send { .. }));
    assert!(matches!(pacer.next(after + 29_999), Next::Send { .. }));
    assert_eq!(pacer.rate(), Rate::per_second(22));
    assert!(matches!(pacer.next(after + 30_100), Next::Send { .. }));
    assert_eq!(pacer.rate(), Rate::per_second(23), "it grows back by one each thirty seconds");
    assert!(matches!(pacer.next(after + 600_000), Next::Send { .. }));
    assert_eq!(pacer.rate(), Rate::per_second(30));
}

#[test]
fn a_long_silence_and_a_second_one_right_after_it_lose_nothing() {
    let mut world = World::new(30, 6);
    world.campaign(3_000);
    world.run_until(40_000);
    let until = world.now + 35_000;
    world.server.closed.push((None, until));
    // The second one begins when the first is over.
    world.run_until(until - 1);
    assert!(world.server.accepted_at.iter().all(|at| *at < until - 34_900), "somebody was written to in the silence");
    world.server.closed.push((None, until + 10_000));
    world.run();
    assert_eq!(world.server.broken_silences, 0);
    assert!(world.refusals <= 16, "{} calls were refused", world.refusals);
    assert!(world.messages.iter().all(|message| message.accepted.is_some()));
    assert!(world.server.most_in_a_second() <= 30);
    // 45 seconds of silence, a rate that fell twice, to sixteen, and grows by one each half minute.
    assert!(world.last_accepted <= 240_000, "{} ms", world.last_accepted);
}

/// The day of 50,000: in the middle of it 35 seconds of silence, and as many again right after.
#[test]
fn a_long_silence_in_the_middle_of_fifty_thousand_loses_nobody() {
    let mut world = World::new(30, 10);
    world.campaign(50_000);
    world.run_until(800_000);
    let before = world.server.accepted_at.len();
    assert!((23_000..=24_000).contains(&before), "{before} in the first 800 s");
    let until = world.now + 35_000;
    world.server.closed.push((None, until));
    world.run_until(until - 1);
    assert!(world.server.accepted_at.iter().all(|at| *at < until - 34_900), "somebody was written to in the silence");
    world.server.closed.push((None, until + 35_000));
    world.run();
    assert_eq!(world.server.broken_silences, 0);
    assert!(world.refusals <= 24, "{} calls were refused", world.refusals);
    assert!(world.messages.iter().all(|message| message.accepted.is_some()), "nobody is forgotten");
    assert!(world.server.most_in_a_second() <= 30);
    // 70 seconds of silence, and then a rate that grows back from sixteen by one each half minute.
    assert!(world.last_accepted <= 50_000 * 1_000 / 30 + 70_000 + 190_000, "{} ms", world.last_accepted);
}

#[test]
fn limits_that_were_lowered_without_notice_are_found_and_kept() {
    let mut world = World::new(30, 7);
    world.campaign(2_000);
    world.run_until(20_000);
    let before = world.server.accepted_at.len();
    world.server.per_second = 5;
    world.run_until(140_000);
    let found = world.refusals;
    assert!(found <= 60, "{found} calls were refused until the limit was found");
    let since: Vec<&Moment> = world.server.accepted_at.iter().filter(|at| **at > 40_000).collect();
    assert!(since.len() >= 300, "hardly anything goes: {} in 100 s", since.len());
    assert!(world.server.accepted_at.len() > before);
    world.run();
    assert!(world.messages.iter().all(|message| message.accepted.is_some()), "nobody is forgotten");
    let tail = world.refusals - found;
    assert!(tail * 20 <= world.messages.len(), "{tail} calls were refused afterwards");
    assert_eq!(world.server.broken_silences, 0);
}

/// Whatever is sent, however slow the network is and however often another copy takes over: no sliding second holds more than
/// the cap, and no chat more than it bears. The server proves it: it refuses nobody.
#[test]
fn no_sliding_second_ever_holds_more_than_the_cap() {
    for seed in 1..=60 {
        let mut dice = Dice::new(seed);
        let cap = [1, 3, 5, 17, 28, 30][usize::try_from(dice.below(6)).expect("small")];
        let mut world = World::new(cap, seed + 1_000);
        world.pacer.start_carefully(0);
        world.fastest = dice.below(200);
        world.spread = 1 + dice.below(600);
        for _ in 0..dice.below(12) + 1 {
            for _ in 0..dice.below(i64::from(cap) * 8) {
                let lane = Lane::ALL[usize::try_from(dice.below(6)).expect("small")];
                let chat = match dice.below(10) {
                    0 => 7,
                    1 => -4_000_000 - dice.below(3),
                    2 => -1_002_000_000_000 - dice.below(3),
                    _ => 1_000 + dice.below(500),
                };
                let at = world.now + dice.below(6_000);
                world.message(at, chat, lane);
            }
            world.run_until(world.now + dice.below(8_000));
            take_over(&mut world, cap);
        }
        world.run_until(world.now + 30_000);
        let most = world.server.most_in_a_second();
        assert!(most <= usize::try_from(cap).expect("small"), "seed {seed}: {most} in a second at a cap of {cap}");
        assert_eq!(world.refusals, 0, "seed {seed} at a cap of {cap}");
    }
}

/// The sender dies, and another one begins with what certainly was not sent. Of calls under way nobody learns.
fn take_over(world: &mut World, cap: u32) {
    world.pacer = Pacer::new(Limits::per_second(cap), world.now);
    world.pacer.start_carefully(world.now);
    for id in 0..world.messages.len() {
        let message = world.messages[id];
        if message.sent == 0 && message.offered <= world.now {
            world.pacer.offer(u32::try_from(id).expect("few enough"), message.chat, message.lane);
        }
    }
}

#[test]
fn whoever_takes_over_is_silent_for_a_second() {
    let mut pacer = Pacer::new(Limits::per_second(30), 5_000);
    pacer.start_carefully(5_000);
    pacer.offer(1, 7, Lane::Goods);
    pacer.offer(2, 7, Lane::Goods);
    let Next::Wait(at) = pacer.next(5_000) else { panic!("it went at once") };
    assert!((6_000..=6_100).contains(&at), "{at}");
    assert_eq!(pacer.next(6_020), Next::Send { key: 1, chat: 7 });
    assert_eq!(pacer.next(6_100), Next::Wait(7_040), "nobody knows what its chat got before");
}

#[test]
fn who_goes_away_gives_the_place_back() {
    let mut pacer = Pacer::new(Limits::per_second(30), 0);
    for key in 0..40 {
        pacer.offer(key, i64::from(key) + 1, Lane::Campaign);
    }
    let (mut now, mut under_way) = (0, Vec::new());
    let window = loop {
        match pacer.next(now) {
            Next::Send { key, .. } => under_way.push(key),
            Next::Wait(at) => now = at,
            Next::Full(window) => break window,
            Next::Idle => panic!("forty are more than fit"),
        }
    };
    assert_eq!((window, under_way.len()), (pacer.state(now).window, window));
    pacer.offer(100, 500, Lane::Goods);
    now += 40;
    assert_eq!(pacer.next(now), Next::Send { key: 100, chat: 500 }, "a full window keeps no goods waiting");
    pacer.lost(&100);
    pacer.lost(&under_way[0]);
    now += 40;
    assert!(matches!(pacer.next(now), Next::Send { .. }));
    let waiting = pacer.state(now).waiting[Lane::Campaign.index()].1;
    pacer.lost(&39);
    pacer.lost(&39);
    assert_eq!(pacer.state(now).waiting[Lane::Campaign.index()].1, waiting - 1);
    assert_eq!(pacer.done(&39, now, Outcome::Other), None, "nobody knows it");
}

#[test]
fn a_refused_call_that_belongs_to_no_chat_silences_the_bot() {
    let mut pacer = Pacer::new(Limits::per_second(30), 0);
    pacer.offer(1, 7, Lane::Goods);
    let silence = pacer.refused(Duration::from_secs(9), Duration::from_millis(50), 1_000);
    assert_eq!(silence, Silence { until: 10_050, whole_bot: true });
    assert_eq!(pacer.next(1_000), Next::Wait(10_050));
    let shorter = pacer.refused(Duration::from_secs(1), Duration::ZERO, 2_000);
    assert_eq!(shorter.until, 10_050, "a shorter silence shortens nothing");
    assert_eq!(pacer.next(10_050), Next::Send { key: 1, chat: 7 });
}

#[test]
fn what_was_paid_for_gets_one_of_four_beside_a_flood_of_answers() {
    let mut world = World::new(30, 12);
    world.slow = 0;
    for chat in 0..300 {
        world.message(0, 1_000 + chat, Lane::Answer);
    }
    for chat in 0..20 {
        world.message(0, 10 + chat, Lane::Goods);
    }
    world.run();
    let mut by_time: Vec<&Message> = world.messages.iter().collect();
    by_time.sort_by_key(|message| message.sent);
    for four in by_time[..80].chunks(4) {
        let goods = four.iter().filter(|message| message.lane == Lane::Goods).count();
        assert_eq!(goods, 1, "of four messages at {} ms", four[0].sent);
    }
}

#[test]
fn who_does_not_want_to_wait_hears_when_it_would_go() {
    let mut pacer = Pacer::new(Limits::per_second(30), 0);
    assert_eq!(pacer.expected(7, 10), 10);
    for key in 0..5 {
        pacer.offer(key, 7, Lane::Money);
    }
    assert!(matches!(pacer.next(10), Next::Send { .. }));
    assert_eq!(pacer.expected(7, 10), 10 + 4 * 1_020);
    assert_eq!(pacer.step_of(7), Duration::from_millis(1_020));
    pacer.silence_chat(8, 9_000, 10);
    assert_eq!(pacer.expected(8, 10), 9_000);
    assert_eq!(pacer.silence_of(8, 10), Some(Silence { until: 9_000, whole_bot: false }));
    pacer.silence(20_000, 10);
    assert_eq!((pacer.expected(7, 10), pacer.expected(8, 10)), (20_000, 20_000));
    assert_eq!(pacer.state(10).silent_until, Some(20_000));
    assert_eq!(pacer.silence_of(8, 20_000), None);
    pacer.admit(50, 8, 20_000);
    assert_eq!(pacer.state(20_000).under_way, 2);
}
