//! Stock comes in: no key twice, and none missing, however often the import is repeated.

use super::{Flow, Step, keys};
use crate::crashes::stage::Stage;

const COUNT: usize = 200;

/// Two hundred keys over the API.
#[derive(Default)]
pub struct Import {
    product: String,
}

impl Flow for Import {
    fn name(&self) -> &'static str {
        "stock-import"
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            self.product = stage.plain_product(&[]).await;
        })
    }

    /// A second file names the same keys: an owner who does not know what became of the first sends it anew.
    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            for key in ["import", "import-anew"] {
                stage.stock(&self.product, &keys(COUNT), key).await;
            }
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let (available, held, delivered) = stage.levels(&self.product).await;
            assert_eq!((usize::try_from(available), held, delivered), (Ok(COUNT), 0, 0), "each key stands there once");
        })
    }
}
