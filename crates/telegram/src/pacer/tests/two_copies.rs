//! Two copies of the program with one token for a day: one of them sends, by a lease, and whatever happens to either, never are
//! there more messages in a sliding second than the rate allows, and never is it silent for longer than a take-over lasts.
//!
//! The rules of the lease are those of the program (`kernel::leases` and the sender): it is kept each third of its term, it is
//! believed from before the question until the term's end, whoever waits looks every two seconds, and who takes it over from
//! somebody that did not give it back takes care for a second.

use super::*;

const TERM: Moment = 6_000;
const LOOK: Moment = 2_000;
const CARE: Moment = 1_000;
/// No gap is longer: the end of the term, the next look, and the care.
const LONGEST: Moment = 10_000;
/// The simulation's step, milliseconds.
const TICK: Moment = 10;
const DAY: Moment = 24 * 3_600_000;
const HOUR: Moment = 3_600_000;

/// The row in the database.
#[derive(Default)]
struct Lease {
    holder: Option<u64>,
    until: Moment,
    /// Whether the last holder gave it back.
    clean: bool,
}

/// What a copy does with the lease in its hands.
struct Holding {
    pacer: Pacer<u64>,
    /// On its own clock, from before it asked.
    until: Moment,
    keep_at: Moment,
    /// Nothing may go before.
    next_at: Moment,
    under_way: VecDeque<(Moment, u64)>,
}

struct Instance {
    /// New at each start.
    name: u64,
    holding: Option<Box<Holding>>,
    look_at: Moment,
    /// Nothing of it moves before: it is dead, or its machine stands still.
    away_until: Moment,
}

struct Day {
    now: Moment,
    dice: Dice,
    lease: Lease,
    copies: [Instance; 2],
    cap: u32,
    names: u64,
    keys: u64,
    arrived: Vec<Moment>,
    kills: usize,
    pauses: usize,
    handed_over: usize,
    terms: usize,
}

impl Day {
    fn new(cap: u32, seed: u64) -> Self {
        let copy = |name| Instance { name, holding: None, look_at: 0, away_until: 0 };
        Self {
            now: 0,
            dice: Dice::new(seed),
            lease: Lease { clean: true, ..Lease::default() },
            copies: [copy(1), copy(2)],
            cap,
            names: 2,
            keys: 0,
            arrived: Vec::new(),
            kills: 0,
            pauses: 0,
            handed_over: 0,
            terms: 0,
        }
    }

    fn run(&mut self, length: Moment) {
        let mut trouble_at = 60_000;
        while self.now < length {
            for index in 0..self.copies.len() {
                if self.copies[index].away_until <= self.now {
                    self.live(index);
                }
            }
            // One at a time: a bot of which no copy lives is silent for as long as that lasts.
            if self.now >= trouble_at && self.copies.iter().all(|copy| copy.away_until <= self.now) {
                self.trouble();
                trouble_at = self.now + 45_000 + self.dice.below(200_000);
            }
            self.now += TICK;
        }
    }

    /// A copy's life in one step.
    fn live(&mut self, index: usize) {
        match self.copies[index].holding.take() {
            None => self.stand_by(index),
            Some(holding) => {
                let kept = self.keep(index, holding);
                self.copies[index].holding = kept.map(|holding| self.send(holding));
            }
        }
    }

    fn stand_by(&mut self, index: usize) {
        if self.now < self.copies[index].look_at {
            return;
        }
        self.copies[index].look_at = self.now + LOOK;
        if self.lease.holder.is_some() && self.lease.until > self.now {
            return;
        }
        let clean = self.lease.holder.is_none() && self.lease.clean;
        // The database reads the question a little later than it was asked.
        let late = self.dice.below(20);
        self.lease = Lease { holder: Some(self.copies[index].name), until: self.now + late + TERM, clean: false };
        let mut pacer = Pacer::new(Limits { start: self.cap, ..Limits::per_second(self.cap) }, self.now);
        pacer.start_carefully(self.now);
        self.terms += 1;
        self.copies[index].holding = Some(Box::new(Holding {
            pacer,
            until: self.now + TERM,
            keep_at: self.now + TERM / 3,
            next_at: if clean { self.now } else { self.now + CARE },
            under_way: VecDeque::new(),
        }));
    }

    /// Keeps the lease; none when it is lost.
    fn keep(&mut self, index: usize, mut holding: Box<Holding>) -> Option<Box<Holding>> {
        if self.now >= holding.keep_at {
            if self.lease.holder != Some(self.copies[index].name) || self.lease.until <= self.now {
                return None;
            }
            self.lease.until = self.now + self.dice.below(20) + TERM;
            holding.until = self.now + TERM;
            holding.keep_at = self.now + TERM / 3;
        }
        (holding.until > self.now).then_some(holding)
    }

    /// Lets go what may go. There is always more to say.
    fn send(&mut self, mut holding: Box<Holding>) -> Box<Holding> {
        while let Some((at, key)) = holding.under_way.front().copied()
            && at <= self.now
        {
            holding.under_way.pop_front();
            holding.pacer.done(&key, self.now, Outcome::Sent { took: Duration::from_millis(60) });
        }
        if self.now < holding.next_at {
            return holding;
        }
        while holding.pacer.state(self.now).waiting[Lane::Campaign.index()].1 < 4 {
            self.keys += 1;
            let chat = 1_000_000 + i64::try_from(self.keys % 500_000).expect("small");
            holding.pacer.offer(self.keys, chat, Lane::Campaign);
        }
        loop {
            match holding.pacer.next(self.now) {
                Next::Send { key, .. } => {
                    let mut others = self.copies.iter().filter_map(|copy| copy.holding.as_ref());
                    assert!(others.all(|other| other.until <= self.now), "both may send at {}", self.now);
                    self.arrived.push(self.now + 5 + self.dice.below(8));
                    holding.under_way.push_back((self.now + 60, key));
                }
                Next::Wait(at) => {
                    holding.next_at = at;
                    return holding;
                }
                Next::Idle | Next::Full(_) => return holding,
            }
        }
    }

    /// Something happens to one of both: mostly to the one that sends.
    fn trouble(&mut self) {
        let sender = self.copies.iter().position(|copy| copy.holding.is_some()).unwrap_or(0);
        let index = if self.dice.below(4) == 0 { 1 - sender } else { sender };
        match self.dice.below(3) {
            0 => {
                self.kills += 1;
                self.last_calls_are_slow(index);
                let away = 500 + self.dice.below(30_000);
                self.begin_anew(index, away);
            }
            1 => {
                // Its machine stands still; should it wake in time it goes on, and later it has to notice by itself.
                self.pauses += 1;
                self.copies[index].away_until = self.now + 100 + self.dice.below(20_000);
            }
            _ => {
                self.handed_over += 1;
                // It waits for its calls to end before it gives the lease back: here they have arrived long before.
                if self.copies[index].holding.take().is_some() {
                    self.now += 100;
                    self.lease = Lease { holder: None, until: self.now, clean: true };
                }
                let away = 1_000 + self.dice.below(5_000);
                self.begin_anew(index, away);
            }
        }
    }

    /// What had just left arrives late, as long as a call may last that nobody waits for any more.
    fn last_calls_are_slow(&mut self, index: usize) {
        if self.copies[index].holding.is_none() {
            return;
        }
        let (now, late) = (self.now, self.dice.below(900));
        if let Some(last) = self.arrived.last_mut().filter(|at| **at >= now) {
            *last = now + late;
        }
    }

    fn begin_anew(&mut self, index: usize, after: Moment) {
        self.names += 1;
        let back = self.now + after;
        self.copies[index] = Instance { name: self.names, holding: None, look_at: back, away_until: back };
    }

    /// The most messages in any sliding second, and the longest time between two.
    fn most_and_longest_gap(&self) -> (usize, Moment) {
        let mut times = self.arrived.clone();
        times.sort_unstable();
        let (mut first, mut most, mut longest) = (0, 0, 0);
        for (last, at) in times.iter().enumerate() {
            while times[first] <= at - 1_000 {
                first += 1;
            }
            most = most.max(last - first + 1);
            if last > 0 {
                longest = longest.max(at - times[last - 1]);
            }
        }
        (most, longest)
    }
}

fn assert_well(day: &Day) {
    let (most, longest) = day.most_and_longest_gap();
    assert!(most <= usize::try_from(day.cap).expect("small"), "{most} messages in a second at a cap of {}", day.cap);
    assert!(longest <= LONGEST, "silent for {longest} ms");
}

#[test]
fn two_copies_with_one_token_keep_the_rate_and_leave_no_gap_for_a_day() {
    let mut day = Day::new(5, 24);
    day.run(DAY);
    assert!(
        day.kills > 100 && day.pauses > 100 && day.handed_over > 100,
        "{} {} {}",
        day.kills,
        day.pauses,
        day.handed_over
    );
    assert!(day.terms > 200, "the sending changed hands {} times only", day.terms);
    assert_well(&day);
    let rate = i64::try_from(day.arrived.len()).expect("an i64") * 1_000 / (DAY / 1_000);
    assert!(rate >= 4_500, "{rate} messages in a thousand seconds, of 5,000");
}

#[test]
fn the_same_for_an_hour_at_the_whole_rate() {
    for seed in 1..=4 {
        let mut day = Day::new(30, seed);
        day.run(HOUR);
        assert!(day.terms > 5, "seed {seed}: the sending changed hands {} times only", day.terms);
        assert_well(&day);
    }
}
