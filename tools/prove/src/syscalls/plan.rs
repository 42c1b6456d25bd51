//! What the owner and the customers of one run want. They ask again, with the same keys, until they have it, whatever dies
//! in between.

use std::collections::BTreeSet;

use futures_util::future::try_join_all;
use serde_json::{Value, json};

use semel_kernel::clock::Clock;
use semel_sandbox::{HookState, Provider};

use super::shim::{Acknowledged, Acks};
use crate::program::{Answer, Door, Patience, World, moment, text};

/// The program broke off: it is dead, or about to be.
#[derive(Debug)]
pub struct Died(pub String);

/// A run of sales and what goes on beside them.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its name in a trouble.
    pub name: &'static str,
    /// Sales at each of the three providers.
    pub sales: i64,
    /// Whether the customers come all at once, which makes group commits.
    pub together: bool,
    /// Keys that come into stock meanwhile.
    pub import: usize,
    /// Whether an order is called off, and another one given back to the balance.
    pub second_thoughts: bool,
    /// The first customer; every plan on one database has its own.
    pub from: i64,
}

impl Plan {
    /// Different histories: what is written when differs among them.
    pub fn all() -> Vec<Plan> {
        let quiet = Plan { name: "quiet", sales: 1, together: false, import: 0, second_thoughts: false, from: 5000 };
        vec![
            quiet.clone(),
            Plan { name: "import", import: 60, ..quiet.clone() },
            Plan { name: "crowd", sales: 3, together: true, import: 20, ..quiet.clone() },
            Plan { name: "second-thoughts", sales: 1, second_thoughts: true, ..quiet.clone() },
            Plan { name: "busy", sales: 2, together: true, import: 40, second_thoughts: true, ..quiet },
        ]
    }

    /// Everything that the plan wants, to its end. May be run again after a death: what was had stays as it is.
    ///
    /// # Errors
    /// The program broke off.
    pub async fn run(&self, world: &World, door: &Door, product: &str, acks: &Acks) -> Result<(), Died> {
        let at = At { plan: self, world, door, product, acks };
        let customers = self.customers();
        if self.together {
            let mut sales = Vec::new();
            for (customer, provider) in &customers {
                sales.push(at.sale(*customer, *provider));
            }
            let (sold, imported) = tokio::join!(try_join_all(sales), at.import());
            sold?;
            imported?;
        } else {
            at.import().await?;
            for (customer, provider) in &customers {
                at.sale(*customer, *provider).await?;
            }
        }
        if self.second_thoughts {
            at.call_off().await?;
            at.give_back().await?;
        }
        Ok(())
    }

    /// Who buys, and where each one pays.
    fn customers(&self) -> Vec<(i64, Provider)> {
        let each = (0..self.sales).flat_map(|_| Provider::ALL);
        (self.from..).zip(each).collect()
    }

    /// What is wrong with the goods in the customers' chats: each one has one key of his own. The same message may stand
    /// there twice; whether it may is checked elsewhere.
    pub fn check_goods(&self, world: &World) -> Vec<String> {
        let (mut wrong, mut given) = (Vec::new(), BTreeSet::new());
        for (customer, _) in self.customers() {
            let keys: BTreeSet<String> = world.keys(customer).into_iter().collect();
            if keys.len() != 1 {
                wrong.push(format!("customer {customer} has the keys {keys:?} and not one"));
            }
            for key in keys {
                if !given.insert(key.clone()) {
                    wrong.push(format!("{key} went to customer {customer} and to another one"));
                }
            }
        }
        wrong
    }
}

/// A plan at work.
struct At<'a> {
    plan: &'a Plan,
    world: &'a World,
    door: &'a Door,
    product: &'a str,
    acks: &'a Acks,
}

impl At<'_> {
    /// Asks until there is an answer that is no "later".
    async fn ask(&self, path: &str, body: &Value, key: &str) -> Result<Answer, Died> {
        let patience = Patience::of(format!("POST {path} is answered for good"), 90);
        loop {
            let failed = self.acks.disk_has_failed();
            let answer = self.door.try_post_with_key(path, body, key).await.map_err(Died)?;
            if answer.status < 300 && failed {
                self.acks.complain(format!("POST {path} was answered {} after a sync had failed", answer.status));
            }
            if !matches!(answer.status, 409 | 425 | 429 | 500..) {
                return Ok(answer);
            }
            patience.wait().await;
        }
    }

    fn key(&self, what: &str, who: i64) -> String {
        format!("{}-{what}-{who}", self.plan.name)
    }

    async fn order(&self, customer: i64, provider: Provider) -> Result<(String, String), Died> {
        let wish = json!({
            "customer": { "telegram_id": customer },
            "items": [{ "product": self.product, "quantity": 1 }],
            "provider": provider.as_str(),
        });
        let made = self.ask("/api/v1/orders", &wish, &self.key("order", customer)).await?;
        assert_eq!(made.status, 201, "an order is made: {}", made.text);
        let id = text(&made.body["id"]);
        self.acks.note(Acknowledged::Order(id.clone()));
        Ok((id, text(&made.body["payment"]["provider_id"])))
    }

    /// From the order to the goods.
    async fn sale(&self, customer: i64, provider: Provider) -> Result<(), Died> {
        let (order, payment) = self.order(customer, provider).await?;
        let seen = self.world.sandbox.payment(provider, &payment);
        let seen = seen.unwrap_or_else(|| panic!("{provider} knows no payment {payment:?} of order {order}"));
        if seen.captured == 0 {
            self.world.sandbox.pay(provider, &payment).unwrap_or_else(|error| panic!("{error}"));
        }
        self.send_hooks(provider, &payment).await?;
        self.reaches(&order, &["delivered", "refund_pending", "refunded"]).await
    }

    /// Sends what the provider has to say about a payment, again and again until it is acknowledged.
    async fn send_hooks(&self, provider: Provider, payment: &str) -> Result<(), Died> {
        let hooks = self.world.sandbox.hooks().into_iter();
        let waiting = hooks.filter(|hook| hook.payment_id == payment && hook.state == HookState::Pending);
        for hook in waiting {
            let patience = Patience::of(format!("the webhook {} is acknowledged", hook.event_id), 90);
            loop {
                let failed = self.acks.disk_has_failed();
                let outcome = self.world.sandbox.send_hook(hook.id).await;
                match outcome.status {
                    Some(200) => {
                        if failed {
                            self.acks.complain(format!("{} was acknowledged after a sync had failed", hook.event_id));
                        }
                        let (provider, event) = (provider.as_str().to_owned(), hook.event_id.clone());
                        self.acks.note(Acknowledged::Hook { provider, event });
                        break;
                    }
                    None => return Err(Died(format!("no answer to the webhook {}", hook.event_id))),
                    Some(_) => patience.wait().await,
                }
            }
        }
        Ok(())
    }

    async fn import(&self) -> Result<(), Died> {
        if self.plan.import == 0 {
            return Ok(());
        }
        let goods: Vec<String> = (0..self.plan.import).map(|n| format!("KEY-{}-new-{n}", self.plan.from)).collect();
        let path = format!("/api/v1/products/{}/stock", self.product);
        let stock = self.ask(&path, &json!({ "items": goods }), &self.key("import", self.plan.from)).await?;
        assert_eq!(stock.status, 200, "stock comes in: {}", stock.text);
        Ok(())
    }

    /// Somebody orders and does not want it any more.
    async fn call_off(&self) -> Result<(), Died> {
        let customer = self.plan.from + 900;
        let (order, _) = self.order(customer, Provider::Yookassa).await?;
        let path = format!("/api/v1/orders/{order}/cancel");
        let patience = Patience::of(format!("order {order} is called off"), 90);
        loop {
            let answer = self.door.try_post_with_key(&path, &json!({}), &self.key("cancel", customer)).await;
            let answer = answer.map_err(Died)?;
            // Called off by the request that died: its repeat finds nothing to do.
            if matches!(answer.status, 200 | 409) {
                break;
            }
            patience.wait().await;
        }
        self.reaches(&order, &["cancelled"]).await
    }

    /// The first customer gets his money back.
    async fn give_back(&self) -> Result<(), Died> {
        let (order, _) = self.order(self.plan.from, Provider::ALL[0]).await?;
        let wish = json!({ "to": "balance", "reason": "not wanted" });
        let path = format!("/api/v1/orders/{order}/refund");
        let answer = self.ask(&path, &wish, &self.key("refund", self.plan.from)).await?;
        assert!(answer.status < 300, "the money is given back: {}", answer.text);
        self.reaches(&order, &["refunded"]).await
    }

    async fn reaches(&self, order: &str, wanted: &[&str]) -> Result<(), Died> {
        let patience = Patience::of(format!("order {order} is {}", wanted.join(" or ")), 120);
        loop {
            let shown = self.door.try_get(&format!("/api/v1/orders/{order}")).await.map_err(Died)?;
            if shown.body["status"].as_str().is_some_and(|status| wanted.contains(&status)) {
                return Ok(());
            }
            patience.wait().await;
        }
    }
}

/// Waits until no job runs and none is due.
///
/// # Errors
/// The program broke off.
pub async fn rest(door: &Door) -> Result<(), Died> {
    let patience = Patience::of("no job runs and none is due", 90);
    loop {
        let running = door.try_get("/api/v1/jobs?state=running&limit=200").await.map_err(Died)?;
        let ready = door.try_get("/api/v1/jobs?state=ready&limit=200").await.map_err(Died)?;
        if none_due(&running, &ready) {
            return Ok(());
        }
        patience.wait().await;
    }
}

fn none_due(running: &Answer, ready: &Answer) -> bool {
    let (Some(running), Some(ready)) = (running.body["items"].as_array(), ready.body["items"].as_array()) else {
        return false;
    };
    let now = Clock::system().now().millis();
    let due = |job: &Value| moment(&job["run_at"]) <= now;
    running.is_empty() && !ready.iter().any(due)
}
