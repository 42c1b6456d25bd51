//! From a webhook to the goods: the notice, the payment's job, the settlement.
//!
//! | Here | In the product |
//! |---|---|
//! | `Step::Notice`: the row of the notice and the pull of the job, one transaction | `kernel/src/inbox/intake.rs` (`accept_one`), `INTAKE` in `inbox/sql.rs`, `PULL` in `jobs/sql.rs` |
//! | `Task::Confirm`: claim, note the time, ask, one transaction | `shop/src/checkout/confirm.rs` |
//! | `Task::First`, `Task::Again`: a notice that pulled no live job is looked into | `checkout/resolve.rs`; the slot of a repeat is its minute |
//! | `Task::Sweep`: the provider's own list | `checkout/sweep.rs` |
//! | `settle`: money into the books, goods, waiting notices applied | `settle`, `book`, `place` in `checkout/settle.rs`; `APPLY` in `inbox/sql.rs` |
//! | end or put-off of the job under its fence, once more when it was pulled | `FINISH`, `AGAIN`, `FAIL`, `LOST` in `jobs/sql.rs` |
//! | `Step::Bury`: the last attempt failed | `BURY` in `jobs/sql.rs`, `buried` in `checkout/hints.rs` |
//!
//! The world: the provider gets the money or calls the payment off first and gets it later, at any time. A notice may come
//! at any time, so one that comes early is a lie and one that comes late is old; each may come again, not at all, or with
//! other bytes under the same event id. A worker may die between any two steps, be so slow that its claim runs out while
//! it goes on, or get no answer.
//!
//! What is left out: opening the payment at the provider, sums (the policy table has tests of its own), refunds, and
//! notices that do not name their payment. Fences are only ever compared with the latest one, so a run here remembers
//! whether its own is the latest instead of a number. That a commit is all or nothing is what a database promises.

use stateright::{Model, Property};

use super::{ModelReport, prove, refute};

const ONCE_GIVEN: &str = "the goods are given at most once";
const ONCE_BOOKED: &str = "the money is booked at most once";
const NOT_BEFORE: &str = "no goods before the provider has the money";
const NOTICES_END: &str = "at rest every notice has ended";
const HEEDED: &str = "at rest an acknowledged notice of money has brought the goods: no earlier one used it up";
const DELIVERED: &str = "at rest paid means delivered, whatever came of the notices";

/// Runs at the same time: two are enough for every race of two.
const WORKERS: usize = 2;
/// Notices with one event id and different bytes.
const BODIES: [u8; 2] = [0, 1];

/// Every instance of this model.
pub fn run() -> Vec<ModelReport> {
    vec![
        by_polling(),
        by_notices_alone(),
        called_off(),
        called_off_by_notices_alone(),
        register_first(),
        register_first_and_early(),
        without_fence(),
        without_pull(),
        without_key(),
        without_any_guard(),
    ]
}

/// The job asks by itself; notices only make it sooner.
fn by_polling() -> ModelReport {
    prove("payment: the job asks, notices help", Payment { deaths: 1, slips: 1, silences: 1, polls: 1, ..PRODUCT })
}

/// Asking by itself is turned off: what remains is what notices bring about, and so none may be overlooked.
fn by_notices_alone() -> ModelReport {
    prove("payment: notices alone", Payment { polling: false, deaths: 1, slips: 1, silences: 1, ..PRODUCT })
}

/// The payment may be called off, which ends its job, and be paid after all; its job may become a dead letter. What no
/// notice tells is found by the sweep, so this says nothing about a provider without a list.
fn called_off() -> ModelReport {
    let model = Payment { calls_off: true, sweeps: true, burials: 1, notices: 1, deaths: 1, slips: 1, ..PRODUCT };
    prove("payment: called off, buried, paid after all", model)
}

/// The same without a sweep: the notice of late money finds no live job and is looked into for itself. Without a burial,
/// too: the repeat of a notice that was applied before leaves nothing waiting when the job that it pulled is buried.
fn called_off_by_notices_alone() -> ModelReport {
    let model = Payment { calls_off: true, polling: false, deaths: 1, slips: 1, ..PRODUCT };
    prove("payment: called off, paid after all, notices alone", model)
}

/// The usual way, and how it loses a sale: dead between the two steps.
fn register_first() -> ModelReport {
    let model = Payment { register_first: true, polling: false, deaths: 1, only: Some(HEEDED), ..PRODUCT };
    refute("payment: register first, then work", model)
}

/// The usual way loses a sale without any crash, too: an early notice uses up the true one.
fn register_first_and_early() -> ModelReport {
    let model = Payment { register_first: true, polling: false, only: Some(HEEDED), ..PRODUCT };
    refute("payment: register first, with an early notice", model)
}

/// Without the fence the books stay right, because the key guards them; but a worker that asked long ago ends a run that
/// a true notice had begun, and takes its place.
fn without_fence() -> ModelReport {
    let model =
        Payment { fence: false, polling: false, calls_off: true, notices: 1, slips: 1, only: Some(HEEDED), ..PRODUCT };
    refute("payment: settled without looking at the fence", model)
}

/// A pull that finds the job running and leaves no mark is forgotten.
fn without_pull() -> ModelReport {
    let model = Payment { pull_noted: false, polling: false, notices: 1, only: Some(HEEDED), ..PRODUCT };
    refute("payment: a pull during a run leaves no mark", model)
}

/// The fence does not save the books: one job may run twice, and the sweep and resolving jobs settle, too.
fn without_key() -> ModelReport {
    refute("payment: no business key in the books", Payment { key: false, only: Some(ONCE_BOOKED), ..PRODUCT })
}

/// Goods twice takes all three guards away: the fence, the business key and the order's state.
fn without_any_guard() -> ModelReport {
    let model = Payment { fence: false, key: false, order_state: false, slips: 1, only: Some(ONCE_GIVEN), ..PRODUCT };
    refute("payment: neither fence, nor key, nor the order's state", model)
}

/// The protocol, what may happen to it, and which of its guards stand.
#[derive(Clone, Debug)]
struct Payment {
    /// Notices that may come.
    notices: u8,
    /// Workers that may die.
    deaths: u8,
    /// Claims that may run out under a living worker.
    slips: u8,
    /// Questions that may stay without an answer.
    silences: u8,
    /// Times that the job may ask by itself while nothing has changed; afterwards it asks only when something has.
    polls: u8,
    /// Times that the job may become a dead letter.
    burials: u8,
    /// Whether the payment may be called off before it is paid.
    calls_off: bool,
    /// Whether the provider's list is swept.
    sweeps: bool,
    /// Whether a job that was put off ever comes due by itself.
    polling: bool,
    /// Whether the end of a run is refused under an old fence.
    fence: bool,
    /// Whether the books refuse a payment they have.
    key: bool,
    /// Whether only an order that waits for money gets goods for it.
    order_state: bool,
    /// Whether a pull marks a running job.
    pull_noted: bool,
    /// The usual way instead: insert the event's id, skip repeats, then work.
    register_first: bool,
    /// Check this property alone.
    only: Option<&'static str>,
}

/// The product, in a world where only notices come.
const PRODUCT: Payment = Payment {
    notices: 2,
    deaths: 0,
    slips: 0,
    silences: 0,
    polls: 0,
    burials: 0,
    calls_off: false,
    sweeps: false,
    polling: true,
    fence: true,
    key: true,
    order_state: true,
    pull_noted: true,
    register_first: false,
    only: None,
};

/// How the payment stands at the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum There {
    Open,
    CalledOff,
    Paid,
}

/// The payment's job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ConfirmJob {
    Due,
    /// Asked, nothing final: due again in a while.
    PutOff,
    /// Failed: due again in a while.
    BackOff,
    Running,
    /// Done or a dead letter: a pull does not find it.
    Over,
}

/// A job that looks into one notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Resolving {
    Never,
    Due,
    Running,
    Over,
}

/// A row of the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Row {
    Absent,
    Received,
    Applied,
    Ignored,
}

/// What a run works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Task {
    /// The payment's job.
    Confirm,
    /// The job of a new notice that pulled no live job.
    First(u8),
    /// The job of its repeat.
    Again(u8),
    /// The sweep of the provider's list.
    Sweep,
    /// The request of the usual way.
    Request(u8),
}

/// How far a run has come. `before` are the notices, a bit each, that had come before it asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Stage {
    Claimed,
    Asking { before: u8 },
    Answered { before: u8, said: There },
    Ending,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Run {
    task: Task,
    stage: Stage,
    /// Whether its fence is still the latest.
    holds: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    there: There,
    job: ConfirmJob,
    pulled: bool,
    rows: [Row; 2],
    first: [Resolving; 2],
    again: [Resolving; 2],
    /// In order, so that two states with the same runs are one.
    runs: Vec<Run>,
    booked: u8,
    goods: u8,
    /// Whether a notice was acknowledged, and not dropped as a repeat within its minute, after the money was there.
    heard: bool,
    notices: u8,
    deaths: u8,
    slips: u8,
    silences: u8,
    polls: u8,
    burials: u8,
}

/// One step of somebody.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// The provider gets the money.
    Pay,
    /// The provider calls the payment off.
    CallOff,
    /// A notice with these bytes comes and is durable.
    Notice(u8),
    /// The minute of a repeat is over, and so its slot is free.
    Minute(u8),
    /// The wait of a job is over, and the world has changed meanwhile.
    Time,
    /// The wait of a job is over, and nothing has changed.
    Poll,
    /// A claim whose worker died is given back.
    Lost(Task),
    Claim(Task),
    /// Reads the provider's list.
    List,
    /// Notes the time, and with it which notices were there.
    Look(Run),
    Ask(Run),
    /// The transaction of what the answer means.
    Commit(Run),
    /// The transaction that ends a resolving job and its notice.
    End(Run),
    /// The worker dies.
    Die(Run),
    /// The claim runs out and is given back, and the worker does not know.
    Slip(Run),
    /// No answer came; the failure is written.
    Silence(Run),
    /// The last attempt failed.
    Bury(Run),
}

impl Payment {
    /// What we will do in any case, if the world leaves us alone. Nothing of it left means: at rest.
    fn forced(&self, s: &State, steps: &mut Vec<Step>) {
        let changed = s.there != There::Open && self.polling;
        if s.job == ConfirmJob::BackOff || (s.job == ConfirmJob::PutOff && changed) {
            steps.push(Step::Time);
        }
        let free = s.runs.len() < WORKERS;
        match s.job {
            ConfirmJob::Running if !s.is_held(Task::Confirm) => steps.push(Step::Lost(Task::Confirm)),
            ConfirmJob::Due if free => steps.push(Step::Claim(Task::Confirm)),
            _ => {}
        }
        for body in BODIES {
            for task in [Task::First(body), Task::Again(body)] {
                match s.resolving(task) {
                    Resolving::Running if !s.is_held(task) => steps.push(Step::Lost(task)),
                    Resolving::Due if free => steps.push(Step::Claim(task)),
                    _ => {}
                }
            }
        }
        let missing = s.there == There::Paid && s.booked == 0;
        if self.sweeps && free && missing && !s.is_held(Task::Sweep) {
            steps.push(Step::List);
        }
        for run in &s.runs {
            steps.push(match run.stage {
                Stage::Claimed => Step::Look(*run),
                Stage::Asking { .. } => Step::Ask(*run),
                Stage::Answered { .. } => Step::Commit(*run),
                Stage::Ending => Step::End(*run),
            });
        }
    }

    /// What may happen to us, and what need not.
    fn possible(&self, s: &State, steps: &mut Vec<Step>) {
        if s.there != There::Paid {
            steps.push(Step::Pay);
        }
        if s.there == There::Open && self.calls_off {
            steps.push(Step::CallOff);
        }
        if s.there == There::Open && self.polling && s.polls > 0 && s.job == ConfirmJob::PutOff {
            steps.push(Step::Poll);
        }
        for body in BODIES {
            if s.notices > 0 {
                steps.push(Step::Notice(body));
            }
            if s.resolving(Task::Again(body)) == Resolving::Over {
                steps.push(Step::Minute(body));
            }
        }
        for run in &s.runs {
            if s.deaths > 0 {
                steps.push(Step::Die(*run));
            }
            let claimed = matches!(run.task, Task::Confirm | Task::First(_) | Task::Again(_));
            if s.slips > 0 && run.holds && claimed {
                steps.push(Step::Slip(*run));
            }
            let asking = matches!(run.stage, Stage::Asking { .. });
            if s.silences > 0 && asking {
                steps.push(Step::Silence(*run));
            }
            if s.burials > 0 && asking && run.holds && run.task == Task::Confirm {
                steps.push(Step::Bury(*run));
            }
        }
    }

    fn at_rest(&self, s: &State) -> bool {
        let mut steps = Vec::new();
        self.forced(s, &mut steps);
        steps.is_empty()
    }

    /// `accept_one`: the row, and the pull or a job of its own, in one transaction; then the acknowledgement.
    fn accept(&self, s: &mut State, body: u8) {
        let (this, other) = (usize::from(body), usize::from(1 - body));
        let fresh = s.rows[this] == Row::Absent;
        let stands_in_the_way = matches!(s.rows[other], Row::Received | Row::Applied);
        if fresh {
            s.rows[this] = if stands_in_the_way { Row::Ignored } else { Row::Received };
        }
        let mut dropped = false;
        match s.job {
            ConfirmJob::Due | ConfirmJob::PutOff | ConfirmJob::BackOff => s.job = ConfirmJob::Due,
            ConfirmJob::Running => s.pulled = self.pull_noted,
            ConfirmJob::Over if fresh && !stands_in_the_way => s.first[this] = Resolving::Due,
            ConfirmJob::Over if s.again[this] == Resolving::Never => s.again[this] = Resolving::Due,
            ConfirmJob::Over => dropped = true,
        }
        s.heard |= s.there == There::Paid && !dropped;
    }

    /// The usual way: a known event is acknowledged and skipped, a new one is written down and then worked on.
    fn register(&self, s: &mut State, body: u8) {
        if s.rows.iter().any(|row| *row != Row::Absent) {
            s.heard |= s.there == There::Paid;
            return;
        }
        s.rows[usize::from(body)] = Row::Received;
        s.begin(Run { task: Task::Request(body), stage: Stage::Asking { before: 0 }, holds: true });
    }

    /// `settle`: the money once under its business key, goods for an order that waits, notices from before the asking.
    fn settle(&self, s: &mut State, said: There, before: u8) {
        if said == There::Paid && !(self.key && s.booked > 0) {
            s.booked = (s.booked + 1).min(2);
            // An order that has its goods is paid: more money goes to the customer's balance.
            if s.goods == 0 || !self.order_state {
                s.goods = (s.goods + 1).min(2);
            }
        }
        for (body, row) in s.rows.iter_mut().enumerate() {
            if *row == Row::Received && before & (1_u8 << body) != 0 {
                *row = Row::Applied;
            }
        }
    }

    fn look(&self, s: &mut State, run: Run) {
        let nothing_to_ask = match run.task {
            Task::First(body) => s.rows[usize::from(body)] != Row::Received,
            Task::Again(_) => s.booked > 0,
            _ => false,
        };
        let stage = if nothing_to_ask { Stage::Ending } else { Stage::Asking { before: s.received() } };
        s.replace(run, Run { stage, ..run });
    }

    fn commit(&self, s: &mut State, run: Run) {
        let Stage::Answered { before, said } = run.stage else { return };
        s.remove(run);
        match run.task {
            Task::Confirm => {
                let may = if self.fence { run.holds } else { s.job == ConfirmJob::Running };
                if !may {
                    return; // The whole transaction is refused.
                }
                self.settle(s, said, before);
                s.job = match said {
                    _ if s.pulled => ConfirmJob::Due,
                    There::Open => ConfirmJob::PutOff,
                    There::CalledOff | There::Paid => ConfirmJob::Over,
                };
                s.pulled = false;
            }
            // No fence guards these two: the business key does.
            Task::First(_) | Task::Again(_) => {
                self.settle(s, said, before);
                s.begin(Run { stage: Stage::Ending, ..run });
            }
            Task::Sweep => {
                if !(self.key && s.booked > 0) {
                    self.settle(s, said, before);
                }
            }
            Task::Request(body) => {
                self.settle(s, said, 1_u8 << body);
                s.heard |= said == There::Paid;
            }
        }
    }

    fn bury(&self, s: &mut State, run: Run) {
        s.remove(run);
        s.job = ConfirmJob::Over;
        s.pulled = false;
        for body in BODIES.map(usize::from) {
            if s.rows[body] == Row::Received {
                let slot = if s.first[body] == Resolving::Never { &mut s.first[body] } else { &mut s.again[body] };
                *slot = Resolving::Due;
            }
        }
    }
}

impl State {
    fn received(&self) -> u8 {
        let waits = |body: u8| u8::from(self.rows[usize::from(body)] == Row::Received) << body;
        BODIES.into_iter().fold(0_u8, |before, body| before | waits(body))
    }

    fn is_held(&self, task: Task) -> bool {
        self.runs.iter().any(|run| run.task == task && run.holds)
    }

    fn resolving(&self, task: Task) -> Resolving {
        match task {
            Task::First(body) => self.first[usize::from(body)],
            Task::Again(body) => self.again[usize::from(body)],
            _ => Resolving::Never,
        }
    }

    fn set_resolving(&mut self, task: Task, to: Resolving) {
        match task {
            Task::First(body) => self.first[usize::from(body)] = to,
            Task::Again(body) => self.again[usize::from(body)] = to,
            _ => {}
        }
    }

    /// `LOST`: the job is due again under the next fence.
    fn give_back(&mut self, task: Task) {
        if task == Task::Confirm {
            self.job = ConfirmJob::Due;
            self.pulled = false;
        }
        self.set_resolving(task, Resolving::Due);
    }

    fn begin(&mut self, run: Run) {
        self.runs.push(run);
        self.runs.sort_unstable();
    }

    fn remove(&mut self, run: Run) {
        if let Some(place) = self.runs.iter().position(|other| *other == run) {
            self.runs.remove(place);
        }
    }

    fn replace(&mut self, run: Run, by: Run) {
        self.remove(run);
        self.begin(by);
    }

    fn claim(&mut self, task: Task) {
        if task == Task::Confirm {
            self.job = ConfirmJob::Running;
            self.pulled = false;
        }
        self.set_resolving(task, Resolving::Running);
        self.begin(Run { task, stage: Stage::Claimed, holds: true });
    }

    fn end(&mut self, run: Run) {
        self.remove(run);
        if !run.holds {
            return;
        }
        if let Task::First(body) | Task::Again(body) = run.task {
            let row = &mut self.rows[usize::from(body)];
            if *row == Row::Received {
                *row = Row::Applied;
            }
            self.set_resolving(run.task, Resolving::Over);
        }
    }

    fn fail(&mut self, run: Run) {
        self.remove(run);
        if !run.holds {
            return;
        }
        if run.task == Task::Confirm {
            self.job = if self.pulled { ConfirmJob::Due } else { ConfirmJob::BackOff };
            self.pulled = false;
        }
        self.set_resolving(run.task, Resolving::Due);
    }
}

impl Model for Payment {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            there: There::Open,
            // The usual way has no job: whatever a request does not do is never done.
            job: if self.register_first { ConfirmJob::Over } else { ConfirmJob::Due },
            pulled: false,
            rows: [Row::Absent; 2],
            first: [Resolving::Never; 2],
            again: [Resolving::Never; 2],
            runs: Vec::new(),
            booked: 0,
            goods: 0,
            heard: false,
            notices: self.notices,
            deaths: self.deaths,
            slips: self.slips,
            silences: self.silences,
            polls: self.polls,
            burials: self.burials,
        }]
    }

    fn actions(&self, s: &State, steps: &mut Vec<Step>) {
        self.forced(s, steps);
        self.possible(s, steps);
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut s = last.clone();
        match step {
            Step::Pay => s.there = There::Paid,
            Step::CallOff => s.there = There::CalledOff,
            Step::Notice(body) => {
                s.notices -= 1;
                if self.register_first {
                    self.register(&mut s, body);
                } else {
                    self.accept(&mut s, body);
                }
            }
            Step::Minute(body) => s.set_resolving(Task::Again(body), Resolving::Never),
            Step::Time => s.job = ConfirmJob::Due,
            Step::Poll => {
                s.polls -= 1;
                s.job = ConfirmJob::Due;
            }
            Step::Lost(task) => s.give_back(task),
            Step::Claim(task) => s.claim(task),
            Step::List => {
                let stage = Stage::Answered { before: s.received(), said: There::Paid };
                s.begin(Run { task: Task::Sweep, stage, holds: true });
            }
            Step::Look(run) => self.look(&mut s, run),
            Step::Ask(run) => {
                let Stage::Asking { before } = run.stage else { return None };
                let stage = Stage::Answered { before, said: s.there };
                s.replace(run, Run { stage, ..run });
            }
            Step::Commit(run) => self.commit(&mut s, run),
            Step::End(run) => s.end(run),
            Step::Die(run) => {
                s.deaths -= 1;
                s.remove(run);
            }
            Step::Slip(run) => {
                s.slips -= 1;
                s.replace(run, Run { holds: false, ..run });
                s.give_back(run.task);
            }
            Step::Silence(run) => {
                s.silences -= 1;
                s.fail(run);
            }
            Step::Bury(run) => {
                s.burials -= 1;
                self.bury(&mut s, run);
            }
        }
        Some(s)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::<Self>::always(ONCE_GIVEN, |_, s| s.goods <= 1),
            Property::<Self>::always(ONCE_BOOKED, |_, s| s.booked <= 1),
            Property::<Self>::always(NOT_BEFORE, |_, s| s.goods == 0 || s.there == There::Paid),
            Property::<Self>::always(NOTICES_END, |model, s| !s.rows.contains(&Row::Received) || !model.at_rest(s)),
            Property::<Self>::always(HEEDED, |model, s| !s.heard || s.goods == 1 || !model.at_rest(s)),
        ];
        if self.polling {
            let delivered = |model: &Self, s: &State| s.there != There::Paid || s.goods == 1 || !model.at_rest(s);
            all.push(Property::<Self>::always(DELIVERED, delivered));
        }
        if let Some(only) = self.only {
            all.retain(|property| property.name == only);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_proved, assert_refuted, count};
    use super::*;

    #[test]
    fn a_payment_is_delivered_once_though_every_webhook_is_lost() {
        assert_proved(&by_polling(), 30_000);
    }

    #[test]
    fn no_notice_is_used_up_by_an_earlier_one() {
        assert_proved(&by_notices_alone(), 15_000);
    }

    #[test]
    fn late_money_is_delivered_though_the_job_was_over_or_buried() {
        assert_proved(&called_off(), 5_000);
    }

    #[test]
    fn a_notice_of_late_money_is_enough() {
        assert_proved(&called_off_by_notices_alone(), 20_000);
    }

    #[test]
    fn registering_first_loses_a_sale_by_a_crash() {
        let report = register_first();
        let path = assert_refuted(&report);
        // Paid; the notice registered; dead before the work; and the provider, which tried twice, was told that all is well.
        assert_eq!((path.len(), count(path, "Pay"), count(path, "Notice"), count(path, "Die")), (4, 1, 2, 1));
        assert!(!path[0].starts_with("Die") && path.iter().any(|step| step.starts_with("Die")));
    }

    #[test]
    fn registering_first_loses_a_sale_by_an_early_notice() {
        let report = register_first_and_early();
        let path = assert_refuted(&report);
        assert_eq!((count(path, "Pay"), count(path, "Notice"), count(path, "Die")), (1, 2, 0));
    }

    #[test]
    fn without_the_fence_a_slow_worker_uses_up_a_notice() {
        assert_eq!(count(assert_refuted(&without_fence()), "Slip"), 1);
    }

    #[test]
    fn without_the_mark_of_a_pull_a_notice_is_used_up() {
        assert_eq!(count(assert_refuted(&without_pull()), "Notice"), 1);
    }

    #[test]
    fn without_the_business_key_money_is_booked_twice() {
        assert_eq!(count(assert_refuted(&without_key()), "Commit"), 2);
    }

    #[test]
    fn without_any_guard_goods_are_given_twice() {
        assert_eq!(count(assert_refuted(&without_any_guard()), "Commit"), 2);
    }
}
