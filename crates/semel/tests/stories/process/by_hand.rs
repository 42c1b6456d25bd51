//! The owner's hand at the command line: each command that changes something, beside the running program. On SQLite it goes
//! through the program's socket, on PostgreSQL it works on the database itself.

use serde_json::json;

use semel_kernel::store::Engine;

use super::program::{Killed, Order, World, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_owner_does_by_hand_is_done_on_sqlite() {
    what_the_owner_does_by_hand_is_done(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_owner_does_by_hand_is_done_on_postgres() {
    what_the_owner_does_by_hand_is_done(Engine::Postgres).await;
}

async fn what_the_owner_does_by_hand_is_done(engine: Engine) {
    let world = World::on(engine).await;
    let mut program = world.start().await;

    let unwanted = program.sell_one(42).await;
    let page = world.cli(&["order", "cancel", &unwanted.id, "--reason", "changed my mind"]).await.good();
    assert!(page.contains("status    cancelled"), "{page}");

    // Paid, and the webhook is on its way for ever: the owner asks.
    let paid = program.sell_one(43).await;
    let hook = world.pay(&paid);
    let shown = program.door.get(&format!("/api/v1/orders/{}", paid.id)).await;
    let payment = text(&shown.body["payment"]["id"]);
    let told = world.cli(&["payment", "replay", &payment]).await.good();
    assert_eq!(told.trim_end(), format!("payment {payment} is paid; 990.00 RUB came in"));
    program.delivered(&paid).await;

    // Now it comes after all, and is looked into twice.
    world.acknowledged(hook).await;
    program.at_rest().await;
    let inbox = world.cli(&["inbox", "list"]).await.good();
    let notice = id_beside("payment.succeeded", &inbox);
    let told = world.cli(&["inbox", "replay", notice]).await.good();
    assert_eq!(told.trim_end(), format!("notice {notice} is looked into again"));
    program.at_rest().await;
    let waiting = world.cli(&["inbox", "list", "--state", "received"]).await.good();
    assert!(!waiting.contains(notice), "it came to an end again:\n{waiting}");

    let refund = ["order", "refund", paid.id.as_str(), "--to", "balance", "--reason", "it does not work", "--yes"];
    let page = world.cli(&refund).await.good();
    assert!(page.starts_with("went to the BALANCE of customer 43 in this shop: 990.00 RUB, all of it"), "{page}");
    assert!(page.contains("status    refunded"), "{page}");

    // Money that no order asked for is given to one that waits for just that.
    let body = json!({ "amount": { "value": "990.00", "currency": "RUB" }, "capture": true, "metadata": {} });
    let made = world.at_yookassa("/payments", &body).await;
    let foreign = Order { id: String::new(), customer: 0, provider_id: text(&made["id"]) };
    world.acknowledged(world.pay(&foreign)).await;
    program.at_rest().await;
    let unpaid = program.sell_one(44).await;
    let told = world.cli(&["payment", "assign", &foreign.provider_id, &unpaid.id]).await.good();
    assert!(told.starts_with(&format!("assigned; order {} is ", unpaid.id)), "{told}");
    program.delivered(&unpaid).await;

    // A job that waits for its next look is told not to.
    let impatient = program.sell_one(45).await;
    let jobs = world.cli(&["job", "list", "--state", "ready"]).await.good();
    let job = id_beside("payment.confirm", &jobs);
    world.pay(&impatient);
    let told = world.cli(&["job", "retry", job]).await.good();
    assert_eq!(told.trim_end(), format!("job {job} is due now"));
    program.delivered(&impatient).await;

    program.at_rest().await;
    assert_eq!([42, 43, 44, 45].map(|customer| world.keys(customer).len()), [0, 1, 1, 1]);
    world.finish(program, Killed::BesideTelegram).await;
}

/// The id at the beginning of the first line that names `what`.
#[track_caller]
fn id_beside<'a>(what: &str, listed: &'a str) -> &'a str {
    let line = listed.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}:\n{listed}"));
    line.split_whitespace().next().unwrap_or_default()
}
