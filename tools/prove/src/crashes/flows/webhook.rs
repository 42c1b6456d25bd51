//! From an order to the goods, by each provider: the way of most money.

use semel_sandbox::Provider;

use super::{CUSTOMER, Flow, Sale, Step, keys};
use crate::crashes::stage::Stage;

/// Order, payment, webhook, goods.
pub struct Webhook {
    provider: Provider,
    product: String,
    sale: Sale,
}

impl Webhook {
    /// The flow at this provider.
    pub fn at(provider: Provider) -> Self {
        Self { provider, product: String::new(), sale: Sale::default() }
    }
}

impl Flow for Webhook {
    fn name(&self) -> &'static str {
        match self.provider {
            Provider::Yookassa => "webhook-yookassa",
            Provider::Heleket => "webhook-heleket",
            Provider::CrystalPay => "webhook-crystalpay",
        }
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            self.product = stage.plain_product(&keys(3)).await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            self.sale = stage.order(&self.product, self.provider.as_str()).await;
            stage.pay(&self.sale);
            stage.tell().await;
            stage.until(&self.sale, "delivered").await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.status(&self.sale).await, "delivered");
            stage.handed(CUSTOMER, 1);
            assert_eq!(stage.levels(&self.product).await, (2, 0, 1), "one of three keys was sold");
        })
    }
}
