//! The right to run one job: claim, fence, end, recovery of what was lost.
//!
//! | Here | In the product, `kernel/src/jobs` |
//! |---|---|
//! | `Step::Claim`: raises the fence, counts the attempt | `CLAIM` in `sql.rs` |
//! | `Step::Finish`, `Step::Again` with what the run achieved, refused under an old fence | `FINISH`, `AGAIN`; `Claim` in `claim.rs` |
//! | `Step::Fail`, `Step::Later` | `FAIL`, `BURY`; `write_failure` in `worker.rs` |
//! | `Step::Lost`: ready again, or dead after the last attempt | `LOST`; `take_lost` in `worker.rs` |
//! | `Step::Renew`: by process and by what it still works on | `RENEW`; `keep` in `worker.rs` |
//! | `Step::Pull` | `PULL` |
//!
//! The world: two processes. Either may be killed while it runs the job, and starts again under a new name; a claim may
//! run out while its worker goes on (stopped, slow, cut off from the database); a worker may fail, be told to come later,
//! or put the job off. The job may be pulled meanwhile.
//!
//! What a run achieved commits together with the end of the job, as everything that calls `Claim::finish` does. On SQLite
//! a start takes back what earlier runs held without waiting for the claim to run out: that is `Step::Lost`, only sooner,
//! because the earlier process is known to be dead. J3, J4, J7 and J8 are the names of these promises in the self-audit.

use stateright::{Model, Property};

use super::{ModelReport, prove, refute};

const ONE_WRITER: &str = "at most one run may write its end";
const NO_OLD_FENCE: &str = "J3: nothing is written under an old fence";
const SUCCEEDS_ONCE: &str = "J4: the job succeeds at most once";
const ACHIEVED_ONCE: &str = "what the job achieves is achieved once, and once more for each pull during a run";
const BOUNDED: &str = "J8: the job is started no oftener than it has attempts";
const DEAD_AFTER_ALL: &str = "a dead letter has had all its attempts";
const ENDS: &str = "J7: at rest the job is done or a dead letter";

const PROCESSES: [u8; 2] = [0, 1];
/// Runs of one job in one process: an old one that does not know it, and the one that took its place.
const RUNS_EACH: usize = 2;

/// Every instance of this model.
pub fn run() -> Vec<ModelReport> {
    vec![every_end(), without_fence(), without_fence_and_state(), counted_at_the_end(), end_apart_from_work()]
}

fn every_end() -> ModelReport {
    prove("claim: killed, slow, failing, pulled", Claims { kills: 3, slips: 2, frees: 1, pulls: 1, ..PRODUCT })
}

/// The end asks only whether the job runs: a slow worker ends the run of the one that took its place.
fn without_fence() -> ModelReport {
    let model = Claims { guard: Guard::Running, slips: 1, only: Some(NO_OLD_FENCE), ..PRODUCT };
    refute("claim: the end asks whether the job runs, not for the fence", model)
}

/// The end asks nothing: both succeed.
fn without_fence_and_state() -> ModelReport {
    let model = Claims { guard: Guard::Nothing, slips: 1, only: Some(SUCCEEDS_ONCE), ..PRODUCT };
    refute("claim: the end asks nothing", model)
}

/// A job that kills whoever runs it never gets as far as being counted.
fn counted_at_the_end() -> ModelReport {
    let model = Claims { counts_at_claim: false, kills: 3, only: Some(BOUNDED), ..PRODUCT };
    refute("claim: attempts counted when a run fails", model)
}

/// The work commits, then the end of the job: killed in between, the work is done again.
fn end_apart_from_work() -> ModelReport {
    let model = Claims { ends_with_work: false, kills: 1, only: Some(ACHIEVED_ONCE), ..PRODUCT };
    refute("claim: the job ends apart from its work", model)
}

/// What the end of a run asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guard {
    /// That the job runs under this run's fence.
    Fence,
    /// That the job runs.
    Running,
    /// Nothing.
    Nothing,
}

/// The protocol, what may happen to it, and which of its guards stand.
#[derive(Clone, Debug)]
struct Claims {
    max_attempts: u8,
    /// Processes that may be killed.
    kills: u8,
    /// Claims that may run out under a living worker.
    slips: u8,
    /// Runs that may put the job off or be told to come later: both cost no attempt.
    frees: u8,
    /// Pulls that may come.
    pulls: u8,
    guard: Guard,
    counts_at_claim: bool,
    ends_with_work: bool,
    /// Check this property alone.
    only: Option<&'static str>,
}

/// The product, in a world where nothing goes wrong but the work.
const PRODUCT: Claims = Claims {
    max_attempts: 3,
    kills: 0,
    slips: 0,
    frees: 0,
    pulls: 0,
    guard: Guard::Fence,
    counts_at_claim: true,
    ends_with_work: true,
    only: None,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Job {
    Ready,
    /// Ready in a while.
    BackOff,
    Running,
    Done,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Run {
    process: u8,
    fence: u8,
    /// The job's attempts when it was claimed.
    attempts: u8,
    /// Whether the work is committed already, where it commits apart from the end.
    worked: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    job: Job,
    fence: u8,
    attempts: u8,
    /// The process in the row; `None` also when it is the name of one that was killed.
    owner: Option<u8>,
    /// Whether the claim has not run out.
    fresh: bool,
    pulled: bool,
    /// In order, so that two states with the same runs are one.
    runs: Vec<Run>,
    /// Claims that counted, as an onlooker counts them: since the last end that costs nothing.
    starts: u8,
    succeeded: u8,
    achieved: u8,
    /// Ends that became one more run, because of a pull.
    once_more: u8,
    /// Whether something was written under an old fence.
    old_fence: bool,
    kills: u8,
    slips: u8,
    frees: u8,
    pulls: u8,
}

/// One step of somebody.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// The wait after a failure is over.
    Time,
    /// The claim of a process that does not work on it any more runs out.
    Expire,
    /// A claim that ran out is given back.
    Lost,
    /// This process claims the job.
    Claim(u8),
    /// The work commits by itself; not in the product.
    Work(Run),
    /// The work and the end of the job commit.
    Finish(Run),
    /// A failure is written: due again, or a dead letter after the last attempt.
    Fail(Run),
    /// The job is put off; attempts begin anew.
    Again(Run),
    /// The other side asked for a delay, which costs no attempt.
    Later(Run),
    /// The claim runs out under a living worker.
    Slip,
    /// The process is back before anybody noticed, and renews.
    Renew,
    /// This process is killed.
    Kill(u8),
    /// Something happened that the job should look at.
    Pull,
}

impl Claims {
    /// What we will do in any case, if the world leaves us alone. Nothing of it left means: at rest.
    fn forced(&self, s: &State, steps: &mut Vec<Step>) {
        match s.job {
            Job::BackOff => steps.push(Step::Time),
            Job::Running if !s.fresh => steps.push(Step::Lost),
            Job::Running if !s.is_renewed() => steps.push(Step::Expire),
            Job::Ready => {
                let free = |process: u8| s.runs.iter().filter(|run| run.process == process).count() < RUNS_EACH;
                steps.extend(PROCESSES.into_iter().filter(|process| free(*process)).map(Step::Claim));
            }
            Job::Running | Job::Done | Job::Dead => {}
        }
        for run in &s.runs {
            let worked = self.ends_with_work || run.worked;
            steps.push(if worked { Step::Finish(*run) } else { Step::Work(*run) });
            steps.push(Step::Fail(*run));
        }
    }

    /// What may happen to us, and what need not.
    fn possible(&self, s: &State, steps: &mut Vec<Step>) {
        let running = s.job == Job::Running;
        if running && s.fresh && s.slips > 0 {
            steps.push(Step::Slip);
        }
        if running && !s.fresh && s.is_renewed() {
            steps.push(Step::Renew);
        }
        if s.kills > 0 {
            let works = |process: u8| s.runs.iter().any(|run| run.process == process);
            steps.extend(PROCESSES.into_iter().filter(|process| works(*process)).map(Step::Kill));
        }
        if s.pulls > 0 && !matches!(s.job, Job::Done | Job::Dead) {
            steps.push(Step::Pull);
        }
        if s.frees > 0 {
            for run in s.runs.iter().filter(|run| !run.worked && self.may_end(s, run)) {
                steps.extend([Step::Again(*run), Step::Later(*run)]);
            }
        }
    }

    fn may_end(&self, s: &State, run: &Run) -> bool {
        match self.guard {
            Guard::Fence => s.job == Job::Running && s.fence == run.fence,
            Guard::Running => s.job == Job::Running,
            Guard::Nothing => true,
        }
    }

    fn claim(&self, s: &mut State, process: u8) {
        s.job = Job::Running;
        s.fence += 1;
        s.attempts += u8::from(self.counts_at_claim);
        s.starts += 1;
        s.owner = Some(process);
        s.fresh = true;
        s.pulled = false;
        s.begin(Run { process, fence: s.fence, attempts: s.attempts, worked: false });
    }

    fn finish(&self, s: &mut State, run: Run) {
        s.remove(run);
        if !self.may_end(s, &run) {
            return; // The whole transaction is refused.
        }
        s.note_fence(&run);
        s.achieved += u8::from(self.ends_with_work);
        s.owner = None;
        if s.pulled {
            s.job = Job::Ready;
            s.pulled = false;
            s.attempts = 0;
            s.starts = 0;
            s.once_more += 1;
        } else {
            s.job = Job::Done;
            s.succeeded += 1;
        }
    }

    fn fail(&self, s: &mut State, run: Run) {
        s.remove(run);
        if !self.may_end(s, &run) {
            return;
        }
        s.note_fence(&run);
        let counted_now = u8::from(!self.counts_at_claim);
        s.attempts += counted_now;
        if run.attempts + counted_now >= self.max_attempts {
            s.owner = None;
            s.job = Job::Dead;
        } else {
            s.wait();
        }
    }

    fn put_off(&self, s: &mut State, run: Run) {
        s.frees -= 1;
        s.remove(run);
        s.note_fence(&run);
        s.wait();
    }

    fn at_rest(&self, s: &State) -> bool {
        let mut steps = Vec::new();
        self.forced(s, &mut steps);
        steps.is_empty()
    }
}

impl State {
    /// Whether the process in the row still works on this job, under whichever fence.
    fn is_renewed(&self) -> bool {
        self.runs.iter().any(|run| Some(run.process) == self.owner)
    }

    fn note_fence(&mut self, run: &Run) {
        self.old_fence |= self.job != Job::Running || self.fence != run.fence;
    }

    /// `FAIL` and `AGAIN`: due in a while, or at once when it was pulled.
    fn wait(&mut self) {
        self.owner = None;
        self.job = if self.pulled { Job::Ready } else { Job::BackOff };
        self.pulled = false;
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
}

impl Model for Claims {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            job: Job::Ready,
            fence: 0,
            attempts: 0,
            owner: None,
            fresh: false,
            pulled: false,
            runs: Vec::new(),
            starts: 0,
            succeeded: 0,
            achieved: 0,
            once_more: 0,
            old_fence: false,
            kills: self.kills,
            slips: self.slips,
            frees: self.frees,
            pulls: self.pulls,
        }]
    }

    fn actions(&self, s: &State, steps: &mut Vec<Step>) {
        self.forced(s, steps);
        self.possible(s, steps);
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut s = last.clone();
        match step {
            Step::Time => s.job = Job::Ready,
            Step::Expire => s.fresh = false,
            Step::Lost => {
                s.job = if s.attempts >= self.max_attempts { Job::Dead } else { Job::Ready };
                s.owner = None;
                s.pulled = false;
            }
            Step::Claim(process) => self.claim(&mut s, process),
            Step::Work(run) => {
                s.achieved += 1;
                s.remove(run);
                s.begin(Run { worked: true, ..run });
            }
            Step::Finish(run) => self.finish(&mut s, run),
            Step::Fail(run) => self.fail(&mut s, run),
            Step::Again(run) => {
                self.put_off(&mut s, run);
                s.attempts = 0;
                s.starts = 0;
            }
            Step::Later(run) => {
                self.put_off(&mut s, run);
                s.attempts = s.attempts.saturating_sub(1);
                s.starts = s.starts.saturating_sub(1);
            }
            Step::Slip => {
                s.slips -= 1;
                s.fresh = false;
            }
            Step::Renew => s.fresh = true,
            Step::Kill(process) => {
                s.kills -= 1;
                s.runs.retain(|run| run.process != process);
                s.owner = s.owner.filter(|owner| *owner != process);
            }
            Step::Pull => {
                s.pulls -= 1;
                if s.job == Job::Running {
                    s.pulled = true;
                } else {
                    s.job = Job::Ready;
                }
            }
        }
        Some(s)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::<Self>::always(ONE_WRITER, |model, s| {
                s.runs.iter().filter(|run| model.may_end(s, run)).count() <= 1
            }),
            Property::<Self>::always(NO_OLD_FENCE, |_, s| !s.old_fence),
            Property::<Self>::always(SUCCEEDS_ONCE, |_, s| s.succeeded <= 1),
            Property::<Self>::always(ACHIEVED_ONCE, |_, s| s.achieved <= 1 + s.once_more),
            Property::<Self>::always(BOUNDED, |model, s| s.starts <= model.max_attempts),
            Property::<Self>::always(DEAD_AFTER_ALL, |model, s| s.job != Job::Dead || s.attempts == model.max_attempts),
            Property::<Self>::always(ENDS, |model, s| matches!(s.job, Job::Done | Job::Dead) || !model.at_rest(s)),
        ];
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
    fn a_job_ends_once_whoever_dies_or_dawdles() {
        assert_proved(&every_end(), 15_000);
    }

    #[test]
    fn without_the_fence_a_slow_worker_ends_the_run_of_another() {
        assert_eq!(count(assert_refuted(&without_fence()), "Slip"), 1);
    }

    #[test]
    fn without_any_question_both_succeed() {
        assert_eq!(count(assert_refuted(&without_fence_and_state()), "Finish"), 2);
    }

    #[test]
    fn attempts_counted_at_the_end_let_a_poison_job_loop() {
        assert!(count(assert_refuted(&counted_at_the_end()), "Kill") >= 1);
    }

    #[test]
    fn an_end_apart_from_its_work_does_the_work_twice() {
        assert_eq!(count(assert_refuted(&end_apart_from_work()), "Work"), 2);
    }
}
