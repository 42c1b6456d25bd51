//! Two copies on one PostgreSQL: the one that dies stays dead, and the other takes over its jobs.
//!
//! The lease of the scheduler lasts half a minute; nobody waits for it here, but its terms are judged as ever.

use semel_kernel::store::Engine;

use super::{CUSTOMER, Flow, Sale, Step, keys};
use crate::crashes::stage::{Stage, pause};
use crate::program::{Patience, Program};

/// A payment whose webhook comes to the copy that will die.
#[derive(Default)]
pub struct Takeover {
    /// Whether the copies tell each other of new work, and look by themselves the more seldom.
    hear: bool,
    sale: Sale,
    other: Option<Program>,
}

impl Takeover {
    /// The flow with copies that hear each other.
    pub fn hearing() -> Self {
        Self { hear: true, ..Self::default() }
    }
}

impl Flow for Takeover {
    fn name(&self) -> &'static str {
        if self.hear { "copies-that-hear" } else { "lease-takeover" }
    }

    fn engines(&self) -> &'static [Engine] {
        &[Engine::Postgres]
    }

    fn is_restarted(&self) -> bool {
        false
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.start_plain().await;
            let product = stage.product(&keys(3)).await;
            self.sale = stage.order(&product, "yookassa").await;
            stage.stop_plain().await;
            if self.hear {
                stage.hear_copies();
            }
        })
    }

    /// The other copy comes second, so the first one holds what there is to hold.
    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let (trace, worn) = (stage.fresh_trace().to_string_lossy().into_owned(), stage.worn());
            let mut changes = vec![("SEMEL_FAILPOINT_TRACE", trace.as_str())];
            changes.extend(worn.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            let other = stage.world.launch_copy(&changes);
            let other = self.other.insert(other);
            other.ready().await;
            stage.talk_to(Some(other.door.clone()));
            stage.pay(&self.sale);
            // The provider repeats itself as long as there is somebody. What it told in vain is found by asking.
            let patience = Patience::of("the first copy takes the webhook, or is dead", 60);
            while !stage.is_gone() && !stage.world.sandbox.pending_hooks().is_empty() {
                for hook in stage.world.sandbox.pending_hooks() {
                    stage.world.sandbox.send_hook(hook).await;
                }
                pause(&patience).await;
            }
            stage.lose();
            stage.until(&self.sale, "delivered").await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.status(&self.sale).await, "delivered");
            stage.handed(CUSTOMER, 1);
        })
    }

    fn close<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.talk_to(None);
            if let Some(other) = self.other.take() {
                other.terminate().await;
            }
        })
    }
}
