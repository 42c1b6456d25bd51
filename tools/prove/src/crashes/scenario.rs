//! One scenario: a flow in a world of its own, broken at one point, perhaps once more while it recovers.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use semel_kernel::store::Engine;
use semel_prove::report::is_out_of_time;

use super::flows::{Flow, Make};
use super::places::{self, Place, Point, on_the_way};
use super::stage::{Ended, Stage};

/// Longer than every patience on the way together, or nearly: what hangs is a trouble like any other.
const LONGEST: Duration = Duration::from_secs(420);

/// What is to be played.
#[derive(Clone)]
pub struct Scenario {
    /// The flow.
    pub flow: Make,
    /// Its name.
    pub name: &'static str,
    /// The database.
    pub engine: Engine,
    /// What breaks; nothing in the run that is traced.
    pub first: Option<Point>,
    /// What breaks in the process that recovers.
    pub second: Option<Point>,
}

impl Scenario {
    /// A flow that nothing is done to.
    pub fn whole(flow: Make, engine: Engine) -> Scenario {
        Scenario { flow, name: flow().name(), engine, first: None, second: None }
    }

    /// Everything that is needed to play it again.
    pub fn told(&self) -> String {
        let mut told = format!("{} on {}", self.name, word(self.engine));
        match (&self.first, &self.second) {
            (None, _) => told.push_str(", nothing broken"),
            (Some(first), None) => told.push_str(&format!(" at {}", first.rule())),
            (Some(first), Some(second)) => told.push_str(&format!(" at {}, then {}", first.rule(), second.rule())),
        }
        told
    }
}

/// The engine's name in figures.
pub fn word(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => "SQLite",
        Engine::Postgres => "PostgreSQL",
    }
}

/// How it went.
pub struct Outcome {
    /// What was played.
    pub scenario: Scenario,
    /// What is known when it went well, or the first line of what was wrong.
    pub ended: Result<Played, String>,
    /// Every place that any of its processes passed.
    pub passed: BTreeSet<String>,
}

impl Outcome {
    /// Whether it only took too long.
    pub fn was_late(&self) -> bool {
        self.ended.as_ref().is_err_and(|trouble| is_out_of_time(trouble))
    }
}

/// A scenario that went well.
pub struct Played {
    /// What the stage knows.
    pub ended: Ended,
    /// The places on the way of the flow, of the first process.
    pub places: Vec<Place>,
}

/// Plays a scenario in a task of its own, so that its panic, or its hanging, is only its own.
pub async fn play(scenario: Scenario, folder: PathBuf) -> Outcome {
    let mut playing = tokio::spawn(on_stage(scenario.clone(), folder.clone()));
    let ended = match tokio::time::timeout(LONGEST, &mut playing).await {
        Ok(Ok(played)) => Ok(played),
        Ok(Err(error)) => Err(first_line(error)),
        Err(_) => {
            playing.abort();
            let _ = playing.await;
            Err(format!("not at rest within {} s", LONGEST.as_secs()))
        }
    };
    let passed = passed_in(&folder);
    let _ = fs::remove_dir_all(&folder);
    Outcome { scenario, ended, passed }
}

fn first_line(error: tokio::task::JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "cancelled".into() };
    let words = match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(words), _) => words.clone(),
        (None, Some(words)) => (*words).to_owned(),
        (None, None) => "a panic without words".into(),
    };
    let mut lines = words.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    // The last story line of the stage ends with a colon and says what on the next one.
    let more = if first.ends_with(':') { lines.next().unwrap_or_default() } else { "" };
    format!("{first} {more}").trim().chars().take(400).collect()
}

fn passed_in(folder: &Path) -> BTreeSet<String> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.flat_map(|file| places::passed(&file.path())).collect()
}

async fn on_stage(scenario: Scenario, folder: PathBuf) -> Played {
    let mut flow = (scenario.flow)();
    let settings = flow.settings();
    let stage = Stage::open(scenario.engine, &settings, flow.is_from_nothing(), &folder).await;
    flow.prepare(&stage).await;

    let run = stage.runs();
    let from_start = flow.is_from_start();
    stage.plan(scenario.second.clone());
    stage.launch(scenario.first.clone());
    let start = match &scenario.first {
        _ if from_start => Vec::new(),
        Some(point) => {
            stage.as_far_as(&point.place).await;
            Vec::new()
        }
        None => {
            assert!(stage.ready_or_gone().await, "a program that nothing is done to becomes ready");
            stage.quiet(run).await;
            stage.passed(run)
        }
    };
    drive(flow.as_mut(), &stage).await;
    let whole = stage.passed(run);
    flow.close(&stage).await;

    // Armed no longer, the program cannot die of a point that nobody came to, and the state stands after one more start.
    stage.plain_again().await;
    stage.rest().await;
    flow.settled(&stage).await;
    let ended = stage.finish().await;
    Played { ended, places: on_the_way(&start, &whole, from_start) }
}

/// Plays the flow to its rest, while a dead program is started again beside it.
async fn drive(flow: &mut dyn Flow, stage: &Stage) {
    let kept = flow.is_restarted();
    let play = async {
        flow.drive(stage).await;
        stage.rest().await;
        flow.settled(stage).await;
    };
    tokio::select! {
        () = play => {}
        () = stage.keep(kept) => {}
    }
}
