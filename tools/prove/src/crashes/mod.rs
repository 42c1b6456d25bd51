//! Real crashes: every golden flow, broken at every place that it passes.
//!
//! A flow that goes well is traced first, which names every place on its way. Then it is played again for each place and
//! action, in a world of its own with the real program in a process of its own: the process dies there, or the step fails;
//! it is started again as a service manager would, whoever talked to it goes on, and everything must come to rest with all
//! promises kept before the witness of the outside world. Random pairs break the recovery, too.
//!
//! `flows/` has one file a flow, [`flows::ALL`] lists them.

pub mod flows;
pub mod places;
pub mod scenario;
pub mod stage;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use semel_kernel::clock::Stopwatch;
use semel_kernel::store::Engine;
use semel_prove::report::{Figure, Options};

use self::flows::{ALL, Make};
use self::places::{Action, Place, Point, UNREACHABLE};
use self::scenario::{Outcome, Played, Scenario, play, word};

const ENGINES: [Engine; 2] = [Engine::Sqlite, Engine::Postgres];
/// Random pairs of the large campaign.
const PAIRS: usize = 500;
/// Failpoints that the program shall declare.
const DECLARED: u64 = 120;
/// From a start after a death until the program is ready.
const READY_WITHIN: Duration = Duration::from_secs(5);
/// Parts this campaign's chance from that of the others.
const SALT: u64 = 0xC4A5_0001;
/// In the small campaign, one scenario of so many is a pair.
const PAIR_EVERY: usize = 5;
/// Scenarios that are played once more because they were late. More of them are no bad luck.
const MOST_AGAIN: usize = 8;
/// A pair is drawn again when it fell together with another or its first point is an error, but not for ever.
const DRAWS: usize = 50;

/// Runs the campaign.
///
/// # Errors
/// When the program cannot be asked for its failpoints, or the folder for traces cannot be made. Whatever goes wrong in a
/// scenario is a trouble of its figure.
pub async fn run(options: &Options) -> anyhow::Result<Vec<Figure>> {
    crate::program::use_binary(options.semel.clone());
    let declared = places::declared(options).await?;
    let flows: Vec<Make> = ALL.iter().copied().filter(|make| options.wants(&wanted_as(*make))).collect();
    let mut campaign = Campaign::new(options, flows.len() == ALL.len())?;

    let whole = flows.iter().flat_map(|make| {
        let engines = ENGINES.into_iter().filter(move |engine| make().engines().contains(engine));
        engines.map(move |engine| Scenario::whole(*make, engine))
    });
    campaign.play_all("traces", whole.collect(), None).await;
    // In the order of their names, not of their ends: the seed decides what is drawn.
    campaign.traced.sort_by_key(|one| (one.scenario.name, word(one.scenario.engine)));

    let mut rng = fastrand::Rng::with_seed(options.seed ^ SALT);
    let (certain, others) = campaign.singles(options.small);
    if options.small {
        campaign.play_all("points", certain, None).await;
        let sample = campaign.sample(others, &mut rng);
        // From here on: what every campaign plays must not use up the time for what is new in this one.
        let limit = campaign.watch.elapsed() + Duration::from_secs(options.minutes.saturating_mul(60));
        campaign.play_all("sample", sample, Some(limit)).await;
    } else {
        let all = certain.into_iter().chain(others).collect();
        campaign.play_all("points", all, None).await;
        let pairs = campaign.pairs(PAIRS, &mut rng);
        campaign.play_all("pairs", pairs, None).await;
    }
    let figures = campaign.figures(&declared);
    let _ = std::fs::remove_dir_all(&campaign.folder);
    Ok(figures)
}

/// The name by which one flow of this campaign can be asked for.
fn wanted_as(make: Make) -> String {
    format!("crashes/{}", make().name())
}

/// What a flow on an engine passes.
struct Traced {
    scenario: Scenario,
    places: Vec<Place>,
    /// All names that its processes passed, from their starts.
    names: Vec<String>,
}

/// How often something went well, and what did not.
#[derive(Default)]
struct Tally {
    played: u64,
    well: u64,
    /// Went well because the point was never come to.
    not_reached: u64,
    troubles: Vec<String>,
}

struct Campaign {
    options: Options,
    /// Whether every flow is played. A few by name are a look at something, which cannot come everywhere.
    all_flows: bool,
    folder: PathBuf,
    watch: Stopwatch,
    number: usize,
    traced: Vec<Traced>,
    hit: BTreeSet<String>,
    whole: Tally,
    singles: BTreeMap<&'static str, Tally>,
    pairs: Tally,
    second_reached: u64,
    slowest: Duration,
    /// Answers of Telegram that were made to go unheard, and tries that the program says it does not know the end of.
    unheard: (u64, u64),
    unheard_wrong: Vec<String>,
    /// Scenarios that were late and were played once more.
    again: usize,
    /// Messages whose fate a death left open, those that came again, and tries that the program says it does not know the
    /// end of.
    open: (usize, usize, i64),
}

impl Campaign {
    fn new(options: &Options, all_flows: bool) -> anyhow::Result<Self> {
        let folder = options.work.join("crashes");
        std::fs::create_dir_all(&folder)?;
        Ok(Self {
            options: options.clone(),
            all_flows,
            folder,
            watch: Stopwatch::start(),
            number: 0,
            traced: Vec::new(),
            hit: BTreeSet::new(),
            whole: Tally::default(),
            singles: BTreeMap::new(),
            pairs: Tally::default(),
            second_reached: 0,
            slowest: Duration::ZERO,
            unheard: (0, 0),
            unheard_wrong: Vec::new(),
            again: 0,
            open: (0, 0, 0),
        })
    }

    /// Plays them, several at a time, and with a limit only as long as that has not passed since the campaign began.
    async fn play_all(&mut self, what: &'static str, scenarios: Vec<Scenario>, limit: Option<Duration>) {
        let bar = ProgressBar::new(scenarios.len() as u64);
        let style = ProgressStyle::with_template("crashes, {prefix}: {pos} of {len} {wide_bar} {elapsed} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(what);
        let mut waiting: VecDeque<Scenario> = scenarios.into();
        let mut running: JoinSet<Outcome> = JoinSet::new();
        let at_once = self.options.at_once.max(1);
        let (mut troubles, mut late) = (0_u64, Vec::new());
        loop {
            let in_time = limit.is_none_or(|limit| self.watch.elapsed() < limit);
            while in_time
                && running.len() < at_once
                && let Some(scenario) = waiting.pop_front()
            {
                self.number += 1;
                running.spawn(play(scenario, self.folder.join(self.number.to_string())));
            }
            match running.join_next().await {
                None => break,
                Some(Ok(outcome)) if late.len() < MOST_AGAIN && outcome.was_late() => {
                    self.hit.extend(outcome.passed);
                    late.push(outcome.scenario);
                    continue;
                }
                Some(Ok(outcome)) => {
                    troubles += u64::from(outcome.ended.is_err());
                    self.count(outcome);
                }
                Some(Err(error)) => self.whole.troubles.push(format!("a scenario could not be played: {error}")),
            }
            bar.inc(1);
            if troubles > 0 {
                bar.set_message(format!("{troubles} in trouble"));
            }
        }
        // Once more by itself: what is late then, too, was not late because of its neighbours.
        self.again += late.len();
        for scenario in late {
            self.number += 1;
            let outcome = play(scenario, self.folder.join(self.number.to_string())).await;
            self.count(outcome);
            bar.inc(1);
        }
        bar.finish_and_clear();
    }

    fn count(&mut self, outcome: Outcome) {
        let Outcome { scenario, ended, passed } = outcome;
        self.hit.extend(passed.iter().cloned());
        let tally = match (&scenario.first, &scenario.second) {
            (None, _) => &mut self.whole,
            (Some(_), None) => self.singles.entry(word(scenario.engine)).or_default(),
            (Some(_), Some(_)) => &mut self.pairs,
        };
        tally.played += 1;
        let Played { ended, places } = match ended {
            Ok(played) => played,
            Err(why) => {
                tally.troubles.push(format!("{}, seed {}: {why}", scenario.told(), self.options.seed));
                return;
            }
        };
        tally.well += 1;
        if ended.reached.first() == Some(&false) {
            tally.not_reached += 1;
        }
        self.second_reached += u64::from(ended.reached.get(1) == Some(&true));
        self.slowest = ended.restarts.iter().copied().fold(self.slowest, Duration::max);
        self.count_unknown(&scenario, &ended);
        if scenario.first.is_none() {
            self.traced.push(Traced { scenario, places, names: passed.into_iter().collect() });
        }
    }

    /// Of a message that was sent and whose answer was lost, and nothing else, the program must know exactly one.
    fn count_unknown(&mut self, scenario: &Scenario, ended: &stage::Ended) {
        let unheard = scenario.first.as_ref().is_some_and(Point::is_unheard)
            && scenario.second.is_none()
            && !(scenario.flow)().leaves_unknown();
        if !unheard || ended.reached.first() != Some(&true) {
            self.open.0 += ended.lost;
            self.open.1 += ended.doubled;
            self.open.2 += ended.unknown;
            return;
        }
        let known = u64::try_from(ended.unknown).unwrap_or(0);
        self.unheard.0 += 1;
        self.unheard.1 += known;
        if known != 1 {
            self.unheard_wrong.push(format!(
                "{}, seed {}: one answer was lost, and the program knows of {known}",
                scenario.told(),
                self.options.seed
            ));
        }
    }

    /// Every traced place with every action. Of a small campaign, the certain ones are the first flow's deaths; of a large
    /// one, all are alike.
    fn singles(&self, small: bool) -> (Vec<Scenario>, Vec<Scenario>) {
        let always = ALL.first().map_or("", |make| make().name());
        let mut all = Vec::new();
        for traced in &self.traced {
            for place in &traced.places {
                for action in Action::ALL {
                    let first = Some(Point { place: place.clone(), action });
                    all.push(Scenario { first, ..traced.scenario.clone() });
                }
            }
        }
        let is_certain = |one: &Scenario| {
            small && one.name == always && one.first.as_ref().is_some_and(|point| point.action == Action::Kill)
        };
        all.into_iter().partition(is_certain)
    }

    /// The others in the order of chance, with a pair among them now and then.
    fn sample(&self, mut others: Vec<Scenario>, rng: &mut fastrand::Rng) -> Vec<Scenario> {
        rng.shuffle(&mut others);
        let mut pairs = self.pairs(others.len() / PAIR_EVERY + 1, rng).into_iter();
        let mut sample = Vec::new();
        for (n, one) in others.into_iter().enumerate() {
            sample.push(one);
            if n % PAIR_EVERY == PAIR_EVERY - 1 {
                sample.extend(pairs.next());
            }
        }
        sample
    }

    /// So many different pairs: a death on the way of a flow, and something in the process that recovers from it.
    fn pairs(&self, count: usize, rng: &mut fastrand::Rng) -> Vec<Scenario> {
        let fit: Vec<&Traced> = self.traced.iter().filter(|one| one.may_be_broken_twice()).collect();
        let (mut pairs, mut known) = (Vec::new(), BTreeSet::new());
        for _ in 0..count.saturating_mul(DRAWS) {
            if pairs.len() == count {
                break;
            }
            let Some(traced) = rng.choice(fit.iter()) else { break };
            let (Some(place), Some(name)) = (rng.choice(traced.places.iter()), rng.choice(traced.names.iter())) else {
                continue;
            };
            let action = if rng.bool() { Action::Kill } else { Action::Error };
            let again = Place { name: name.clone(), before: 0, nth: rng.usize(1..=2) };
            let first = Some(Point { place: place.clone(), action: Action::Kill });
            let pair = Scenario { first, second: Some(Point { place: again, action }), ..traced.scenario.clone() };
            if known.insert(pair.told()) {
                pairs.push(pair);
            }
        }
        pairs
    }
}

impl Traced {
    /// Where the dead copy stays dead, no process recovers that could be broken.
    fn may_be_broken_twice(&self) -> bool {
        (self.scenario.flow)().is_restarted() && !self.places.is_empty() && !self.names.is_empty()
    }
}

/// The figures.
impl Campaign {
    fn figures(&mut self, declared: &[String]) -> Vec<Figure> {
        let mut figures = Vec::new();
        let everywhere = !self.options.small && self.all_flows;
        figures.push(declared_figure(declared));
        figures.push(self.hit_figure(declared));

        let whole = std::mem::take(&mut self.whole);
        figures.push(Figure::all_of(
            "flows that go well when nothing breaks",
            whole.well,
            whole.played,
            whole.troubles,
        ));
        for (engine, tally) in std::mem::take(&mut self.singles) {
            let name = format!("crashes and errors survived on {engine}");
            figures.push(Figure::told(format!("of these, not come to on {engine}"), tally.not_reached.to_string()));
            figures.push(Figure::all_of(name, tally.well, tally.played, tally.troubles));
        }
        let pairs = std::mem::take(&mut self.pairs);
        if everywhere {
            figures.push(Figure::at_least("random pairs played", pairs.played, PAIRS as u64));
        }
        if everywhere || pairs.played > 0 {
            figures.push(Figure::all_of("random pairs survived", pairs.well, pairs.played, pairs.troubles));
            let second = format!("{} of {}", self.second_reached, pairs.played);
            figures.push(Figure::told("of these, broken while recovering", second));
        }
        figures.push(Figure::told("scenarios that were late and were played once more", self.again.to_string()));

        let slowest = format!("{} ms", self.slowest.as_millis());
        figures.push(
            Figure::judged("slowest start after a death", slowest, "at most 5 s", self.slowest <= READY_WITHIN).timed(),
        );
        figures.push(self.unheard_figure());
        let (lost, doubled, unknown) = self.open;
        figures.push(Figure::told(
            "messages that a death left open",
            format!("{lost}; {doubled} came again; {unknown} known as uncertain"),
        ));
        figures
    }

    fn unheard_figure(&mut self) -> Figure {
        let (injected, recorded) = self.unheard;
        let troubles = std::mem::take(&mut self.unheard_wrong);
        let good = injected == recorded && troubles.is_empty();
        let reached = format!("{recorded} recorded of {injected} injected");
        Figure { troubles, ..Figure::judged("lost answers of Telegram", reached, "as many as injected", good) }
    }

    /// A declared place that nobody came to, on either engine, is one that nothing was proved about. The flows that go well
    /// come to all of them, so the small campaign is judged by it, too.
    fn hit_figure(&self, declared: &[String]) -> Figure {
        let why = |name: &str| UNREACHABLE.iter().find(|(known, _)| *known == name).map(|(_, reason)| *reason);
        let wanted = declared.iter().filter(|name| why(name).is_none());
        let (hit, never): (Vec<&String>, Vec<&String>) = wanted.partition(|name| self.hit.contains(name.as_str()));
        let mut troubles: Vec<String> = never.iter().map(|name| format!("{name} was never come to")).collect();
        for name in &self.hit {
            if let Some(reason) = why(name) {
                troubles.push(format!("{name} was come to although {reason}"));
            } else if !declared.contains(name) {
                troubles.push(format!("{name} was come to and is not declared"));
            }
        }
        let (well, of) = (hit.len() as u64, (hit.len() + never.len()) as u64);
        let figure = Figure::all_of("declared failpoints hit", well, of, troubles);
        if self.all_flows {
            figure
        } else {
            Figure { good: true, wanted: String::new(), troubles: Vec::new(), ..figure }
        }
    }
}

fn declared_figure(declared: &[String]) -> Figure {
    Figure::at_least("failpoints declared", declared.len() as u64, DECLARED)
}
