//! What must come of VPN access: the same sums over time that an owner does with pen and paper.
//!
//! A customer's life is told again from the outside: what the owner did and when, which lines were sold when, which money went
//! back when. Time that runs or stands still is added to; time that ran out begins again now. A part of the money takes the same
//! part of the time, the broken second stays the customer's, and so does what has run already and what was added later. At the
//! end each subscription has its state and its end to the
//! millisecond, one address for each device while it is open or kept, and no other, and the file has the peers that are open.
//!
//! When money is found is decided by the world, so the moment of a sale is read from the books; everything else is not. Who got
//! a file late, or never, because the bot was blocked or the device was closed meanwhile, may get the time back that ran so
//! long: of those only keys and addresses are compared.

use std::collections::{BTreeMap, BTreeSet};

/// How long access goes on after its end, in milliseconds; the settings of a simulated shop say the same.
pub const GRACE_MS: i64 = 3_600_000;
/// How long keys and addresses are kept: the default.
const KEPT_MS: i64 = 30 * DAY_MS;
/// Whoever comes back about when the keeping ends may find either.
const ABOUT_MS: i64 = DAY_MS;
/// A day.
pub const DAY_MS: i64 = 86_400_000;
/// Days of a trial; the settings say the same.
pub const TRIAL_DAYS: i64 = 3;

/// What somebody did about a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A person tries it.
    Trial,
    /// The owner gives it away.
    Grant {
        /// For so many devices.
        devices: i64,
        /// For so long, in milliseconds.
        ms: i64,
    },
    /// The owner adds time, in milliseconds.
    Extend {
        /// So much.
        ms: i64,
    },
    /// The owner stops it.
    Freeze,
    /// The owner lets it go on.
    Unfreeze,
    /// The owner ends it.
    Revoke,
}

/// A deed with its moment.
#[derive(Clone, Debug)]
pub struct Done {
    /// When, in milliseconds.
    pub at: i64,
    /// The customer's Telegram id.
    pub who: i64,
    /// The subscription.
    pub id: String,
    /// What.
    pub deed: Deed,
    /// Whether the shop did it; else it refused.
    pub taken: bool,
}

/// What is known of access from what was done.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Every deed, the oldest first.
    pub done: Vec<Done>,
    /// Trials that were refused: who asked, and when.
    pub refused_trials: Vec<(i64, i64)>,
    /// Keys that customers brought, by subscription, the oldest first.
    pub keys: BTreeMap<String, Vec<String>>,
    /// Customers of whom something was closed or replaced: a file on its way may have lost its meaning.
    pub closed: BTreeSet<i64>,
}

/// An order of access, as it was made.
#[derive(Clone, Debug)]
pub struct Bought {
    /// The order.
    pub order: String,
    /// Who bought.
    pub who: i64,
    /// What it cost.
    pub total: i64,
    /// The time that it buys, in seconds.
    pub seconds: i64,
    /// Where it stands at the end.
    pub state: String,
}

/// A subscription's row at the end.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its id.
    pub id: String,
    /// The customer.
    pub who: i64,
    /// Its state.
    pub state: String,
    /// Its end, in milliseconds.
    pub until: i64,
    /// Its devices.
    pub devices: i64,
    /// When it began.
    pub created_at: i64,
}

/// A line that was sold.
#[derive(Clone, Debug)]
pub struct Sale {
    /// When, in milliseconds.
    pub at: i64,
    /// Of which order.
    pub order: String,
    /// To whom.
    pub who: i64,
    /// Which subscription it is on.
    pub id: String,
    /// Its time, in seconds.
    pub seconds: i64,
    /// What refunds took of it, in seconds.
    pub taken: i64,
}

/// Money that went back.
#[derive(Clone, Debug)]
pub struct Back {
    /// When, in milliseconds.
    pub at: i64,
    /// Of which order.
    pub order: String,
    /// How much.
    pub sum: i64,
}

/// A peer at the end, freed or not.
#[derive(Clone, Debug)]
pub struct Holding {
    /// Of which subscription.
    pub id: String,
    /// Its state.
    pub state: String,
    /// Its public key.
    pub key: String,
    /// Addresses that it holds.
    pub addresses: i64,
}

/// How access stands at the end.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Now, in milliseconds.
    pub now: i64,
    /// Every subscription.
    pub rows: Vec<Row>,
    /// Every line that was sold, the oldest first.
    pub sales: Vec<Sale>,
    /// Every refund, the oldest first.
    pub backs: Vec<Back>,
    /// Every peer.
    pub holdings: Vec<Holding>,
    /// Keys in the file.
    pub in_file: BTreeSet<String>,
    /// Addresses that are held.
    pub held: i64,
    /// Customers of whom a file came late, or did not come.
    pub late: BTreeSet<i64>,
}

/// Something in the life of a customer.
#[derive(Clone, Copy)]
enum Event<'a> {
    Did(&'a Done),
    Sold(&'a Sale),
    GaveBack(&'a Back, &'a Bought),
}

/// Time that was added once. A trial and what the owner gave have no order.
struct Line {
    order: String,
    seconds: i64,
    taken: i64,
}

/// One subscription on paper.
struct Life {
    id: String,
    devices: i64,
    end: i64,
    frozen: Option<i64>,
    revoked: bool,
    /// Its state says that somebody paid or gave.
    paid: bool,
    /// The owner gave something.
    given: bool,
    lines: Vec<Line>,
    /// It was closed for so long that the keys may have gone.
    lapsed: bool,
}

impl Life {
    fn new(id: &str, devices: i64, end: i64, paid: bool) -> Life {
        let id = id.to_owned();
        Life { id, devices, end, frozen: None, revoked: false, paid, given: false, lines: Vec::new(), lapsed: false }
    }

    fn with(mut self, order: &str, seconds: i64) -> Life {
        self.lines.push(Line { order: order.to_owned(), seconds, taken: 0 });
        self
    }

    fn closed_since(&self) -> i64 {
        self.frozen.unwrap_or(self.end + GRACE_MS)
    }

    fn reopens(&mut self, at: i64) {
        self.lapsed |= at - self.closed_since() > KEPT_MS - ABOUT_MS;
    }

    fn add(&mut self, at: i64, ms: i64) {
        match self.frozen {
            Some(_) => self.end += ms,
            None => {
                self.reopens(at);
                self.end = self.end.max(at) + ms;
                self.paid = true;
            }
        }
    }

    /// Whether the shop must do it, must refuse it, or may do either.
    fn allows(&self, deed: Deed, at: i64) -> Option<bool> {
        match deed {
            Deed::Extend { .. } => Some(!self.revoked),
            Deed::Freeze => Some(!self.revoked && (self.frozen.is_some() || self.end > at)),
            Deed::Unfreeze if self.frozen.is_some() => Some(true),
            Deed::Unfreeze if self.revoked => Some(false),
            // Open: it goes on already. Over: it depends on whether its clock has run.
            Deed::Unfreeze => None,
            Deed::Trial | Deed::Grant { .. } | Deed::Revoke => Some(true),
        }
    }

    fn does(&mut self, deed: Deed, at: i64) {
        match deed {
            Deed::Extend { ms } => {
                self.given = true;
                self.add(at, ms);
                self.lines.push(Line { order: String::new(), seconds: ms / 1000, taken: 0 });
            }
            Deed::Freeze => self.frozen = self.frozen.or(Some(at)),
            Deed::Unfreeze => {
                if let Some(since) = self.frozen {
                    self.reopens(at);
                    self.frozen = None;
                    self.end += at - since;
                    let sold = |line: &Line| !line.order.is_empty() && line.taken < line.seconds;
                    self.paid = self.given || self.lines.iter().any(sold);
                }
            }
            Deed::Revoke => {
                self.revoked = true;
                self.frozen = None;
            }
            Deed::Trial | Deed::Grant { .. } => {}
        }
    }

    /// `gone` of `total` went back by now.
    fn gives_back(&mut self, at: i64, order: &str, gone: i64, total: i64) {
        let full = gone >= total;
        for index in 0..self.lines.len() {
            let later: i64 = self.lines[index + 1..].iter().map(|line| line.seconds - line.taken).sum();
            let line = &mut self.lines[index];
            let share = i128::from(line.seconds) * i128::from(gone) / i128::from(total.max(1));
            let due = if full { line.seconds } else { i64::try_from(share).unwrap_or(line.seconds) };
            if line.order != order || due <= line.taken {
                continue;
            }
            let back = (due - line.taken) * 1000;
            line.taken = due;
            if self.revoked {
                continue;
            }
            let stands = self.frozen.unwrap_or(at);
            let unused = ((self.end - stands).max(0) - later * 1000).max(0);
            self.end -= back.min(unused);
            if full && later == 0 && self.end <= stands {
                // Its row keeps the end that it had.
                self.end += back.min(unused);
                self.revoked = true;
                self.frozen = None;
            }
        }
    }

    fn state(&self, now: i64) -> &'static str {
        match self {
            Life { revoked: true, .. } => "revoked",
            Life { frozen: Some(_), .. } => "frozen",
            Life { end, .. } if now >= end + GRACE_MS => "expired",
            Life { end, .. } if now >= *end => "grace",
            Life { paid: true, .. } => "active",
            Life { .. } => "trial",
        }
    }
}

/// One customer on paper.
#[derive(Default)]
struct Person {
    lives: Vec<Life>,
    gone: BTreeMap<String, i64>,
    wrong: Vec<String>,
}

impl Person {
    fn lives_on(&mut self, at: i64, event: Event<'_>) {
        match event {
            Event::Did(done) => self.does(at, done),
            Event::Sold(sale) => self.buys(at, sale),
            Event::GaveBack(back, of) => {
                let gone = self.gone.entry(back.order.clone()).or_default();
                *gone += back.sum;
                let gone = *gone;
                self.lives.iter_mut().for_each(|life| life.gives_back(at, &back.order, gone, of.total));
            }
        }
    }

    fn does(&mut self, at: i64, done: &Done) {
        match done.deed {
            Deed::Trial => {
                if !self.lives.is_empty() {
                    self.wrong.push(format!("customer {} had access already and got the trial {}", done.who, done.id));
                }
                let seconds = TRIAL_DAYS * DAY_MS / 1000;
                self.lives.push(Life::new(&done.id, 1, at + seconds * 1000, false).with("", seconds));
            }
            Deed::Grant { devices, ms } => {
                let mut life = Life::new(&done.id, devices, at + ms, true).with("", ms / 1000);
                life.given = true;
                self.lives.push(life);
            }
            deed => {
                let Some(life) = self.lives.iter_mut().find(|life| life.id == done.id) else {
                    return self.wrong.push(format!("{deed:?} at {at} of {}, which nobody had got", done.id));
                };
                if life.allows(deed, at).is_some_and(|must| must != done.taken) {
                    let word = if done.taken { "done" } else { "refused" };
                    self.wrong.push(format!("{deed:?} at {at} of {} was {word}", done.id));
                }
                if done.taken {
                    life.does(deed, at);
                }
            }
        }
    }

    /// It renews the newest one for as many devices that was not revoked; else it begins another.
    fn buys(&mut self, at: i64, sale: &Sale) {
        let newest = self.lives.iter().rposition(|life| !life.revoked && life.devices == 1);
        let known = self.lives.iter().position(|life| life.id == sale.id);
        if newest != known {
            let wanted = newest.map_or("a new one", |index| self.lives[index].id.as_str());
            self.wrong.push(format!("order {} went to {} and must go to {wanted}", sale.order, sale.id));
        }
        let ms = sale.seconds * 1000;
        match known {
            Some(index) => {
                self.lives[index].add(at, ms);
                let line = Line { order: sale.order.clone(), seconds: sale.seconds, taken: 0 };
                self.lives[index].lines.push(line);
            }
            None => self.lives.push(Life::new(&sale.id, 1, at + ms, true).with(&sale.order, sale.seconds)),
        }
    }
}

impl Access {
    /// Notes what the shop answered to a deed.
    pub fn did(&mut self, at: i64, who: i64, id: String, deed: Deed, taken: bool) {
        if taken && matches!(deed, Deed::Freeze | Deed::Revoke) {
            self.closed.insert(who);
        }
        self.done.push(Done { at, who, id, deed, taken });
    }

    /// Everything about access that is not as it must be, a sentence each.
    pub fn compare(&self, bought: &[Bought], found: &Found) -> Vec<String> {
        let of: BTreeMap<&str, &Bought> = bought.iter().map(|one| (one.order.as_str(), one)).collect();
        let mut wrong = sold_once(bought, found);
        let mut people: BTreeMap<i64, Vec<(i64, u8, Event<'_>)>> = BTreeMap::new();
        for done in &self.done {
            people.entry(done.who).or_default().push((done.at, 0, Event::Did(done)));
        }
        for sale in &found.sales {
            people.entry(sale.who).or_default().push((sale.at, 1, Event::Sold(sale)));
        }
        for back in &found.backs {
            if let Some(one) = of.get(back.order.as_str()) {
                people.entry(one.who).or_default().push((back.at, 2, Event::GaveBack(back, one)));
            }
        }
        let mut told = BTreeSet::new();
        for (who, mut events) in people {
            events.sort_by_key(|(at, rank, _)| (*at, *rank));
            let mut person = Person::default();
            for (at, _, event) in events {
                person.lives_on(at, event);
            }
            let is_late = found.late.contains(&who);
            if !is_late {
                wrong.append(&mut person.wrong);
            }
            for life in &person.lives {
                wrong.extend(self.judge(life, found, is_late));
                told.insert(life.id.clone());
            }
        }
        let strange = found.rows.iter().filter(|row| !told.contains(&row.id));
        wrong.extend(strange.map(|row| format!("nobody asked for the subscription {row:?}")));
        for (who, at) in &self.refused_trials {
            if !found.rows.iter().any(|row| row.who == *who && row.created_at <= *at) {
                wrong.push(format!("customer {who} had nothing at {at} and was refused a trial"));
            }
        }
        wrong.extend(in_step(found));
        wrong
    }

    fn judge(&self, life: &Life, found: &Found, is_late: bool) -> Vec<String> {
        let id = life.id.as_str();
        let Some(row) = found.rows.iter().find(|row| row.id == id) else {
            return vec![format!("the subscription {id} is gone")];
        };
        let mut wrong = Vec::new();
        let state = if is_late { row.state.as_str() } else { life.state(found.now) };
        if !is_late && (row.state.as_str(), row.until, row.devices) != (state, life.end, life.devices) {
            wrong.push(format!("{row:?} must be {state} until {} for {} devices", life.end, life.devices));
        }
        for line in life.lines.iter().filter(|line| !line.order.is_empty() && !is_late) {
            let taken = found.sales.iter().find(|sale| sale.order == line.order).map(|sale| sale.taken);
            if taken != Some(line.taken) {
                wrong.push(format!("refunds took {taken:?} s of order {} and must take {}", line.order, line.taken));
            }
        }
        let ever: Vec<&Holding> = found.holdings.iter().filter(|one| one.id == id).collect();
        let live: Vec<&&Holding> = ever.iter().filter(|one| one.state != "freed").collect();
        let is_closed = matches!(state, "expired" | "frozen");
        let long = is_late || life.lapsed || (is_closed && found.now - life.closed_since() > KEPT_MS - ABOUT_MS);
        let (wanted, of_devices) = match state {
            "revoked" => ("", 0),
            "expired" | "frozen" => ("sticky", life.devices),
            _ => ("active", life.devices),
        };
        let count = i64::try_from(live.len()).unwrap_or(i64::MAX);
        let fits = count == of_devices || (long && is_closed && count < of_devices);
        if !fits || live.iter().any(|one| one.state != wanted || one.addresses != 1) {
            wrong.push(format!("{id} is {state} and must hold {of_devices} addresses, each {wanted}: {live:?}"));
        }
        let own = self.keys.get(id).map_or(&[][..], Vec::as_slice);
        let issued = life.devices + i64::try_from(own.len()).unwrap_or(0);
        let made = i64::try_from(ever.len()).unwrap_or(i64::MAX);
        if made < issued || (made > issued && !long) {
            wrong.push(format!("{id} had {made} peers and must have had {issued}: a renewal revives the same file"));
        }
        if let Some(key) = own.last()
            && state != "revoked"
            && !long
            && !live.iter().any(|one| one.key == *key)
        {
            wrong.push(format!("{id} lost the key {key} that its customer brought"));
        }
        wrong
    }
}

/// Each order that was paid sold its time once, and no other did.
fn sold_once(bought: &[Bought], found: &Found) -> Vec<String> {
    let mut sold: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for sale in &found.sales {
        sold.entry(sale.order.as_str()).or_default().push(sale.seconds);
    }
    let mut wrong = Vec::new();
    for one in bought {
        let lines = sold.remove(one.order.as_str()).unwrap_or_default();
        let fits = match one.state.as_str() {
            "delivered" | "paid" => lines == [one.seconds],
            "refunded" => lines.is_empty() || lines == [one.seconds],
            _ => lines.is_empty(),
        };
        if !fits {
            wrong.push(format!("order {} is {} and sold {lines:?} s of {}", one.order, one.state, one.seconds));
        }
    }
    wrong.extend(sold.into_keys().map(|order| format!("order {order} sold time and is none of access")));
    wrong
}

/// Database and file have the same peers, and the addresses know the same holders.
fn in_step(found: &Found) -> Vec<String> {
    let mut wrong = Vec::new();
    let active: BTreeSet<&String> =
        found.holdings.iter().filter(|one| one.state == "active").map(|one| &one.key).collect();
    let in_file: BTreeSet<&String> = found.in_file.iter().collect();
    if active != in_file {
        wrong.push(format!("the file has {} peers and the database {}", found.in_file.len(), active.len()));
    }
    let held: i64 = found.holdings.iter().map(|one| one.addresses).sum();
    if held != found.held {
        wrong.push(format!("peers hold {held} addresses, and {} are held", found.held));
    }
    let freed = found.holdings.iter().filter(|one| one.state == "freed" && one.addresses > 0);
    wrong.extend(freed.map(|one| format!("{one:?} holds an address")));
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: i64 = 1_800_000_000_000;

    fn month(order: &str, state: &str) -> Bought {
        Bought { order: order.into(), who: 42, total: 30_000, seconds: 30 * 86_400, state: state.into() }
    }

    fn sale(order: &str, id: &str, at: i64, taken: i64) -> Sale {
        Sale { at, order: order.into(), who: 42, id: id.into(), seconds: 30 * 86_400, taken }
    }

    fn row(id: &str, state: &str, until: i64) -> Row {
        Row { id: id.into(), who: 42, state: state.into(), until, devices: 1, created_at: AT }
    }

    fn holding(id: &str, state: &str, key: &str) -> Holding {
        Holding { id: id.into(), state: state.into(), key: key.into(), addresses: i64::from(state != "freed") }
    }

    fn found(rows: Vec<Row>, sales: Vec<Sale>, holdings: Vec<Holding>, now: i64) -> Found {
        let in_file = holdings.iter().filter(|one| one.state == "active").map(|one| one.key.clone()).collect();
        let held = holdings.iter().map(|one| one.addresses).sum();
        Found { now, rows, sales, holdings, in_file, held, ..Found::default() }
    }

    #[test]
    fn a_renewal_adds_to_what_runs_and_begins_anew_after_the_end() {
        let orders = [month("a", "delivered"), month("b", "delivered")];
        let in_time = AT + 10 * DAY_MS;
        let sales = vec![sale("a", "sub", AT, 0), sale("b", "sub", in_time, 0)];
        let rows = vec![row("sub", "active", AT + 60 * DAY_MS)];
        let seen = found(rows, sales, vec![holding("sub", "active", "k")], in_time);
        assert_eq!(Access::default().compare(&orders, &seen), Vec::<String>::new());

        let late = AT + 40 * DAY_MS;
        let sales = vec![sale("a", "sub", AT, 0), sale("b", "sub", late, 0)];
        let rows = vec![row("sub", "active", late + 30 * DAY_MS)];
        let mut seen = found(rows, sales, vec![holding("sub", "active", "k")], late);
        assert_eq!(Access::default().compare(&orders, &seen), Vec::<String>::new());
        seen.rows[0].until = AT + 60 * DAY_MS;
        assert_eq!(Access::default().compare(&orders, &seen).len(), 1, "the old end is no beginning");
        seen.rows[0].until = late + 30 * DAY_MS;
        seen.holdings.push(holding("sub", "freed", "older"));
        assert_eq!(Access::default().compare(&orders, &seen).len(), 1, "a renewal brings no new key");
    }

    #[test]
    fn frozen_time_stands_still_and_money_takes_its_part() {
        let mut access = Access::default();
        access.did(AT + 10 * DAY_MS, 42, "sub".into(), Deed::Freeze, true);
        access.did(AT + 50 * DAY_MS, 42, "sub".into(), Deed::Unfreeze, true);
        let rows = vec![row("sub", "active", AT + 60 * DAY_MS)];
        let sales = vec![sale("a", "sub", AT, 10 * 86_400)];
        let holdings = vec![holding("sub", "active", "k"), holding("sub", "freed", "older")];
        let mut seen = found(rows, sales, holdings, AT + 51 * DAY_MS);
        seen.backs = vec![Back { at: AT + 5 * DAY_MS, order: "a".into(), sum: 10_000 }];
        assert_eq!(access.compare(&[month("a", "delivered")], &seen), Vec::<String>::new());
    }

    #[test]
    fn what_was_added_later_is_not_taken_by_an_older_refund() {
        let orders = [month("a", "refunded"), month("b", "delivered")];
        let sales = vec![sale("a", "sub", AT, 30 * 86_400), sale("b", "sub", AT + DAY_MS, 0)];
        // A day of the first month has run.
        let rows = vec![row("sub", "active", AT + 31 * DAY_MS)];
        let mut seen = found(rows, sales, vec![holding("sub", "active", "k")], AT + 2 * DAY_MS);
        seen.backs = vec![Back { at: AT + DAY_MS, order: "a".into(), sum: 30_000 }];
        seen.sales[1].at = AT + DAY_MS - 1;
        assert_eq!(Access::default().compare(&orders, &seen), Vec::<String>::new());
    }

    #[test]
    fn all_the_money_takes_the_access_and_its_address() {
        let orders = [month("a", "refunded")];
        let sales = vec![sale("a", "sub", AT, 30 * 86_400)];
        let rows = vec![row("sub", "revoked", AT + 30 * DAY_MS)];
        let mut seen = found(rows, sales, vec![holding("sub", "freed", "k")], AT + 2 * DAY_MS);
        seen.backs = vec![Back { at: AT + DAY_MS, order: "a".into(), sum: 30_000 }];
        assert_eq!(Access::default().compare(&orders, &seen), Vec::<String>::new());
        seen.holdings[0] = holding("sub", "active", "k");
        assert!(!Access::default().compare(&orders, &seen).is_empty());
    }

    #[test]
    fn a_trial_is_for_who_had_nothing() {
        let mut access = Access::default();
        access.refused_trials.push((42, AT - 1));
        let sales = vec![sale("a", "sub", AT, 0)];
        let rows = vec![row("sub", "active", AT + 30 * DAY_MS)];
        let seen = found(rows, sales, vec![holding("sub", "active", "k")], AT);
        assert_eq!(access.compare(&[month("a", "delivered")], &seen).len(), 1);
    }
}
