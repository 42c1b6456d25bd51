//! Dead at the n-th call: the shim counts, and the process dies before the call is made.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use super::ground::{Shared, data, last_words, spread};
use super::plan::{Plan, rest};
use super::shim::{Acks, Action, Control, Kind};

/// A call of a plan.
#[derive(Clone, Debug)]
pub struct Point {
    /// What runs.
    pub plan: Plan,
    /// What kind of call.
    pub kind: Kind,
    /// Which one of its kind, counted from the moment at which the plan begins.
    pub nth: u64,
}

impl Point {
    /// Its name in a trouble.
    pub fn name(&self) -> String {
        format!("{} at {:?} {} on SQLite", self.plan.name, self.kind, self.nth).to_lowercase()
    }
}

/// What came of some deaths.
#[derive(Debug, Default)]
pub struct Tally {
    /// Scenarios in which the process died, or the disk failed, where it was meant to.
    pub tried: u64,
    /// Those after which everything was as promised.
    pub well: u64,
    /// Scenarios that ended before the call was made: histories differ a little from run to run.
    pub missed: u64,
    /// The longest time from a start after a death to ready.
    pub slowest: Duration,
    /// What went wrong.
    pub troubles: Vec<String>,
}

impl Tally {
    /// Adds what came of one scenario; none says that the call was never made.
    pub fn add(&mut self, name: &str, outcome: Result<Option<Duration>, String>) {
        match outcome {
            Ok(None) => self.missed += 1,
            Ok(Some(ready)) => {
                self.tried += 1;
                self.well += 1;
                self.slowest = self.slowest.max(ready);
            }
            Err(error) => {
                self.tried += 1;
                self.troubles.push(format!("{name}: {error}"));
            }
        }
    }
}

/// Runs a plan without a death; answers how many calls of each kind it makes.
pub async fn counts(ground: Shared, plan: Plan) -> Result<Vec<(Kind, u64)>, String> {
    let world = ground.world().await;
    let control = Control::new(world.path("control")).map_err(|error| error.to_string())?;
    let (program, _) = ground.start(&world, &control.environment(&ground.shim, &data(&world), None)).await;
    control.count();
    let acks = Acks::new(control.clone());
    plan.run(&world, &program.door, &ground.product, &acks).await.map_err(|died| died.0)?;
    rest(&program.door).await.map_err(|died| died.0)?;
    let counts = Kind::ALL.map(|kind| (kind, control.counted(kind)));
    program.terminate().await;
    let wrong = plan.check_goods(&world);
    world.sandbox.clone().stop().await;
    if wrong.is_empty() { Ok(counts.to_vec()) } else { Err(wrong.join("; ")) }
}

/// Every call of every plan, in an order of `rng`: three writes to one call of the other kinds, as long as there are both.
///
/// # Errors
/// A plan does not go well even when nobody dies.
pub async fn points(ground: &Shared, at_once: usize, rng: &mut fastrand::Rng) -> Result<Vec<Point>, Vec<String>> {
    let (mut rare, mut writes, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    let counted = spread(at_once, Plan::all(), |plan| counts(ground.clone(), plan)).await;
    for (plan, found) in counted {
        match found {
            Ok(found) => {
                for (kind, count) in found {
                    let list = if kind == Kind::Write { &mut writes } else { &mut rare };
                    list.extend((1..=count).map(|nth| Point { plan: plan.clone(), kind, nth }));
                }
            }
            Err(error) => wrong.push(format!("{} without a death: {error}", plan.name)),
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    rng.shuffle(&mut rare);
    rng.shuffle(&mut writes);
    let (mut rare, mut writes) = (rare.into_iter(), writes.into_iter());
    let mut all = Vec::new();
    loop {
        let before = all.len();
        all.extend(writes.by_ref().take(3));
        all.extend(rare.by_ref().take(1));
        if all.len() == before {
            return Ok(all);
        }
    }
}

/// Tries points until `wanted` processes have died, beginning again when there are fewer points: no two histories are
/// quite the same.
pub async fn deaths(ground: &Shared, at_once: usize, points: &[Point], wanted: usize) -> Tally {
    let mut tally = Tally::default();
    let (mut from, mut left) = (points.iter().cycle(), wanted * 2);
    while (tally.tried as usize) < wanted && left > 0 && !points.is_empty() {
        let some = (wanted - tally.tried as usize).min(left).min(200);
        left -= some;
        let batch: Vec<Point> = from.by_ref().take(some).cloned().collect();
        for (point, outcome) in spread(at_once, batch, |point| death(ground.clone(), point)).await {
            tally.add(&point.name(), outcome);
        }
    }
    tally
}

/// One death, and the life after it. None when the call was never made.
async fn death(ground: Shared, point: Point) -> Result<Option<Duration>, String> {
    let world = ground.world().await;
    let control = Control::new(world.path("control")).map_err(|error| error.to_string())?;
    let (mut program, _) = ground.start(&world, &control.environment(&ground.shim, &data(&world), None)).await;
    let acks = Acks::new(control.clone());
    control.arm(point.kind, point.nth, Action::Death);
    let mut ran = point.plan.run(&world, &program.door, &ground.product, &acks).await;
    if ran.is_ok() {
        ran = rest(&program.door).await;
    }
    if !control.has_struck() {
        let log = last_words(&program.process);
        program.process.kill_9();
        world.sandbox.clone().stop().await;
        return ran
            .map(|()| None)
            .map_err(|died| format!("broke off, and not where it was meant to: {}\n{log}", died.0));
    }
    let status = program.process.wait_exit(30).await;
    if status.signal() != Some(9) {
        return Err(format!("ended with {status} and did not die"));
    }
    drop(program);
    ground.second_life(world, &point.plan).await.map(Some)
}
