//! The first start on an empty database, an orderly stop, and the start after it.

use super::{Flow, Step, keys};
use crate::crashes::stage::{Stage, pause};
use crate::program::Patience;

/// A program that has to make its tables first.
#[derive(Default)]
pub struct Start {
    product: String,
}

impl Flow for Start {
    fn name(&self) -> &'static str {
        "migration"
    }

    fn is_from_nothing(&self) -> bool {
        true
    }

    fn is_from_start(&self) -> bool {
        true
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.ready().await;
            let before = stage.runs();
            stage.ask_to_stop();
            let patience = Patience::of("the program stops and is started again", 60);
            while stage.runs() == before {
                pause(&patience).await;
            }
            stage.ready().await;
            self.product = stage.product(&keys(3)).await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move { assert_eq!(stage.levels(&self.product).await, (3, 0, 0)) })
    }
}
