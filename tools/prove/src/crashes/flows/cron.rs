//! The tick of every schedule: one job for each, whoever dies over it.

use std::collections::BTreeSet;

use super::{Flow, Step};
use crate::crashes::stage::{Stage, pause};
use crate::program::{Patience, items, text};

/// One for each provider of the world.
const SWEEPS: usize = 3;

/// Every schedule is due when the program starts.
pub struct CronTick;

impl CronTick {
    /// The sweeps that were written, done or not.
    async fn sweeps(stage: &Stage, state: &str) -> Vec<String> {
        let jobs = items(&stage.get(&format!("/api/v1/jobs?state={state}&limit=200")).await);
        jobs.iter().filter(|job| job["kind"] == "provider.sweep").map(|job| text(&job["slot"])).collect()
    }
}

impl Flow for CronTick {
    fn name(&self) -> &'static str {
        "cron-tick"
    }

    fn is_from_start(&self) -> bool {
        true
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.start_plain().await;
            stage.stop_plain().await;
            stage.ticks_are_due().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let patience = Patience::of("every provider is swept", 180);
            while Self::sweeps(stage, "done").await.len() < SWEEPS {
                pause(&patience).await;
            }
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let slots = Self::sweeps(stage, "done").await;
            // The true hour may strike while the scenario runs: then each provider is swept for that tick, too.
            let ticks: BTreeSet<&str> =
                slots.iter().filter_map(|slot| slot.split_once(':')).map(|(_, at)| at).collect();
            assert_eq!(slots.len(), SWEEPS * ticks.len(), "one job for a provider and tick: {slots:?}");
            assert_eq!(slots.iter().collect::<BTreeSet<_>>().len(), slots.len(), "and none twice: {slots:?}");
        })
    }
}
