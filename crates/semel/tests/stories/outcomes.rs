//! What becomes of a message when Telegram refuses it, says something that is no answer, or says nothing: each ends, none is lost,
//! and none comes twice but where nobody told us.
//!
//! Elsewhere: goods for who blocked the bot, and answers that were lost (`api/telegram.rs`), recipients of campaigns
//! (`campaigns.rs`), and a silence that outlives the program (`process/sender.rs`).

use std::time::Duration;

use semel_kernel::jobs::Job;
use semel_kernel::testing::TestStore;
use semel_kernel::{args, each_store};
use semel_sandbox::{ChatState, Fault, Target};
use semel_shop::Error;
use semel_shop::messages::{self, Body, Class, DeliverMessage, New};

use crate::app::{CUSTOMER, OrderHandle, ROOMS, TestShop, minutes};

/// No owner to be told anything: then the first message is the story's.
const NO_OWNER: [(&str, &str); 1] = [("SEMEL_TELEGRAM_ADMIN_IDS", "")];
const UNREACHABLE: &str = "select cast(count(*) as bigint) from customers where blocked_at is not null";
const UNCERTAIN: &str = "select cast(count(*) as bigint) from messages where uncertain > 0";

fn sending() -> Target {
    Target::Telegram("sendMessage".to_owned())
}

/// Queues words for a chat.
async fn say(shop: &TestShop, chat_id: i64, class: Class, words: &str) {
    let words = words.to_owned();
    let queued = shop.shop().write("story.say", move |tx, shop| {
        let body = Body::Text { html: words.clone() };
        let dedup_key = format!("{chat_id}:{words}");
        messages::flows::queue(tx, shop, New { dedup_key, chat_id, class, kind: "news", body, order: None })
    });
    queued.await.unwrap();
}

/// Each of these customers orders one and pays.
async fn all_buy(shop: &TestShop, product: &str, customers: &[i64]) -> Vec<OrderHandle> {
    let mut orders = Vec::new();
    for customer in customers {
        let order = shop.order_by(*customer, product, "yookassa").await;
        shop.pay(&order);
        orders.push(order);
    }
    shop.receive_all().await;
    shop.run_jobs().await;
    orders
}

/// Calls to a chat so far.
fn calls_to(shop: &TestShop, chat: i64) -> usize {
    shop.sandbox.truth().gt_tg.iter().filter(|call| call.chat_id == Some(chat)).count()
}

each_store! { ROOMS;
    async fn whom_nothing_reaches_is_remembered_until_something_does(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2", "KEY-3"]).await;
        let people = [(101, ChatState::Blocked), (102, ChatState::Deactivated), (103, ChatState::NotFound)];
        for (customer, state) in people {
            shop.sandbox.set_chat_state(customer, state);
        }
        let orders = all_buy(&shop, &key, &people.map(|(customer, _)| customer)).await;
        shop.wait(minutes(60)).await;
        assert_eq!(people.map(|(customer, _)| calls_to(&shop, customer)), [1, 1, 1], "nobody knocks twice");
        assert_eq!(shop.number(UNREACHABLE).await, 3);
        let failed = "select cast(count(*) as bigint) from messages where kind = 'goods' and state = 'failed'";
        assert_eq!(shop.number(failed).await, 3);
        let told = shop.alerts().iter().filter(|alert| alert.contains("did not reach")).count();
        assert_eq!(told, 3, "{:?}", shop.alerts());

        // Money is told all the same, and what arrives proves that they can be reached.
        for (order, (customer, _)) in orders.iter().zip(people) {
            shop.sandbox.set_chat_state(customer, ChatState::Open);
            assert_eq!(shop.refund(order, "balance", None).await.0, 200);
        }
        shop.run_jobs().await;
        for (customer, _) in people {
            assert_eq!(shop.chat(customer).len(), 1, "{:?}", shop.chat(customer));
        }
        assert_eq!(shop.number(UNREACHABLE).await, 0);
        shop.finish().await;
    }

    async fn a_group_that_moved_is_followed_and_told_once(t: TestStore) {
        const GROUP: i64 = -7;
        const MOVED: i64 = -1_001_234;
        let shop = TestShop::with(t, &[("SEMEL_TELEGRAM_ADMIN_IDS", "-7")]).await;
        shop.sandbox.set_chat_state(GROUP, ChatState::Migrated(MOVED));
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        shop.sell(&key, "yookassa").await;
        assert_eq!((shop.chat(GROUP).len(), shop.chat(MOVED).len()), (0, 1), "{:?}", shop.chat(MOVED));
        assert_eq!((calls_to(&shop, GROUP), calls_to(&shop, MOVED)), (1, 1));
        let kept = "select cast(count(*) as bigint) from messages where chat_id = -1001234 and state = 'sent'";
        assert_eq!(shop.number(kept).await, 1);
        shop.finish().await;
    }

    /// Nobody told us, so the goods go again; here nothing had arrived, so they come once.
    async fn what_a_gateway_answers_proves_nothing(t: TestStore) {
        let shop = TestShop::with(t, &NO_OWNER).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2", "KEY-3", "KEY-4"]).await;
        let faults = [Fault::Page(502), Fault::CutBefore, Fault::Status(504), Fault::StatusAfter(502)];
        for (customer, fault) in (101..).zip(faults) {
            let arrived = matches!(fault, Fault::StatusAfter(_));
            shop.sandbox.fault(sending(), fault, Some(1));
            let orders = all_buy(&shop, &key, &[customer]).await;
            assert_eq!(shop.delivered_to(customer).len(), usize::from(arrived));
            assert_eq!(shop.status(&orders[0]).await, "paid");
            shop.wait(Duration::from_secs(10)).await;
            assert_eq!(shop.status(&orders[0]).await, "delivered");
            assert_eq!(shop.delivered_to(customer).len(), 1 + usize::from(arrived), "customer {customer}");
            assert_eq!(calls_to(&shop, customer), 2);
        }
        assert_eq!(shop.number(UNCERTAIN).await, 4, "each is counted");
        shop.finish().await;
    }

    async fn a_refusal_under_the_status_of_a_success_is_a_refusal(t: TestStore) {
        let shop = TestShop::with(t, &NO_OWNER).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        shop.sandbox.fault(sending(), Fault::NotOk, Some(1));
        let order = shop.sell(&key, "yookassa").await;
        shop.wait(minutes(60)).await;
        assert_eq!((shop.status(&order).await.as_str(), calls_to(&shop, CUSTOMER)), ("paid", 1));
        let fate = "select state || ': ' || error from messages where kind = 'goods'";
        assert_eq!(shop.store.texts(fate).await, ["failed: Bad Request: chat not found"]);
        assert_eq!((shop.number(UNREACHABLE).await, shop.number(UNCERTAIN).await), (1, 0));
        assert_eq!(shop.refund(&order, "balance", None).await.0, 200);
        shop.finish().await;
    }

    async fn a_token_that_is_revoked_for_an_hour_loses_nothing(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2", "KEY-3"]).await;
        let revoked = shop.sandbox.fault(Target::Telegram(String::new()), Fault::Status(401), None);
        // For the box the hour passes within a second or two: few messages keep to the pace all the same.
        let people = [101];
        all_buy(&shop, &key, &people).await;
        for _ in 0..6 {
            shop.wait(minutes(10)).await;
        }
        let ended = "select cast(count(*) as bigint) from messages where state <> 'queued'";
        assert_eq!(shop.number(ended).await, 0, "everything waits");
        assert!(people.iter().all(|customer| shop.chat(*customer).is_empty()));

        shop.sandbox.lift_fault(revoked);
        shop.wait(minutes(11)).await;
        for customer in people {
            assert_eq!(shop.delivered_to(customer).len(), 1, "customer {customer}");
        }
        let alerts = shop.alerts();
        let about_token = alerts.iter().filter(|alert| alert.contains("does not know the bot's token")).count();
        let sold = alerts.iter().filter(|alert| alert.starts_with("Sold: ")).count();
        assert_eq!((about_token, sold), (1, 1), "each once: {alerts:?}");
        assert_eq!(shop.number(UNCERTAIN).await, 0, "what was refused certainly did not arrive");
        shop.finish().await;
    }

    async fn what_goes_in_order_waits_for_what_is_before_it(t: TestStore) {
        let shop = TestShop::with(t, &NO_OWNER).await;
        shop.sandbox.fault(sending(), Fault::CutBefore, Some(1));
        for words in ["one", "two", "three"] {
            say(&shop, CUSTOMER, Class::Ordered, words).await;
        }
        shop.run_jobs().await;
        say(&shop, 7, Class::Ordered, "one").await;
        shop.run_jobs().await;
        assert!(shop.chat(CUSTOMER).is_empty(), "what becomes of the first is not known yet: {:?}", shop.chat(CUSTOMER));
        assert_eq!(shop.chat(7), ["one"], "each chat has a line of its own");
        shop.wait(Duration::from_secs(10)).await;
        assert_eq!(shop.chat(CUSTOMER), ["one", "two", "three"]);

        // An end is an end: what fails holds nobody up.
        shop.sandbox.fault(sending(), Fault::NotOk, Some(1));
        for words in ["four", "five"] {
            say(&shop, CUSTOMER, Class::Ordered, words).await;
        }
        shop.run_jobs().await;
        assert_eq!(shop.chat(CUSTOMER), ["one", "two", "three", "five"]);
        shop.finish().await;
    }

    async fn a_death_swaps_nothing_that_goes_in_order(t: TestStore) {
        let shop = TestShop::with(t, &NO_OWNER).await;
        for words in ["one", "two", "three"] {
            say(&shop, CUSTOMER, Class::Ordered, words).await;
        }
        let lost = shop.shop().write("story.lost", move |tx, _| {
            let claimed = tx.execute(
                "update jobs set state = 'running', attempts = attempts + 1, fence = fence + 1, owner = 'gone',
                 claimed_at = semel_now(), lease_until = semel_now() - 1 where kind = $1 and state = 'ready'
                 and slot = (select id from messages where place = 1)",
                args![DeliverMessage::KIND],
            )?;
            Ok::<_, Error>(claimed)
        });
        assert_eq!(lost.await.unwrap(), 1, "the first is in the hands of somebody who died");
        shop.run_jobs().await;
        assert!(shop.chat(CUSTOMER).is_empty(), "{:?}", shop.chat(CUSTOMER));
        shop.wait(minutes(1)).await;
        assert!(shop.chat(CUSTOMER).is_empty(), "{:?}", shop.chat(CUSTOMER));
        assert_eq!(shop.program.app.workers().recover().await, Ok(1));
        shop.run_jobs().await;
        assert_eq!(shop.chat(CUSTOMER), ["one", "two", "three"]);
        shop.finish().await;
    }

    async fn what_had_ended_in_its_line_does_not_come_after_a_death(t: TestStore) {
        let shop = TestShop::with(t, &NO_OWNER).await;
        for words in ["one", "two"] {
            say(&shop, CUSTOMER, Class::Ordered, words).await;
        }
        // Nobody could send the first for a week. Whoever wrote its end died before the job was buried.
        let given_up = shop.shop().write("story.given_up", move |tx, _| {
            let ended = tx.execute(
                "update messages set state = 'failed', error = 'too old', ended_at = semel_now() where place = 1",
                &[],
            )?;
            let later = tx.execute(
                "update jobs set run_at = semel_now() + 1000 where kind = $1 and slot = (select id from messages where place = 1)",
                args![DeliverMessage::KIND],
            )?;
            Ok::<_, Error>((ended, later))
        });
        assert_eq!(given_up.await.unwrap(), (1, 1));
        shop.run_jobs().await;
        assert_eq!(shop.chat(CUSTOMER), ["two"]);
        shop.wait(minutes(1)).await;
        assert_eq!(shop.chat(CUSTOMER), ["two"], "it does not come after what stood behind it");
        assert_eq!(shop.number("select cast(count(*) as bigint) from jobs where state = 'dead'").await, 1);
        let by_hand = "select id from jobs where state = 'dead'";
        let job = shop.store.texts(by_hand).await.pop().expect("a dead letter");
        let (status, _) = shop.post(&format!("/api/v1/jobs/{job}/retry"), serde_json::json!({})).await;
        assert_eq!(status, 202);
        shop.run_jobs().await;
        assert_eq!(shop.chat(CUSTOMER), ["two", "one"], "somebody wanted it all the same");
        shop.finish().await;
    }
}

/// In simulated time, because the box has to agree on it: T2 is judged by its word.
async fn three_refused_chats_silence_the_bot_until_it_lapses(store: TestStore) {
    let shop = TestShop::by_hand(store, 11, &NO_OWNER).await;
    let chats = [101, 102, 103, 104, 105];
    shop.sandbox.fault(sending(), Fault::TooMany { retry_after: 30 }, Some(3));
    for chat in chats {
        say(&shop, chat, Class::AtLeastOnce, "news").await;
    }
    shop.run_jobs().await;
    shop.catch_up().await;
    let calls = shop.sandbox.truth().gt_tg;
    let scopes: Vec<&str> = calls.iter().filter_map(|call| call.scope.as_deref()).collect();
    assert_eq!(
        (calls.len(), scopes),
        (3, vec!["chat", "chat", "token"]),
        "from the third on nobody is called: {calls:?}"
    );

    say(&shop, 106, Class::AtLeastOnce, "news").await;
    shop.wait(Duration::from_secs(25)).await;
    assert_eq!(shop.sandbox.truth().gt_tg.len(), 3, "nobody is called before the silence is over");
    shop.wait(Duration::from_secs(10)).await;
    for chat in chats.into_iter().chain([106]) {
        assert_eq!(shop.chat(chat), ["news"], "chat {chat}");
    }
    assert_eq!(shop.number(UNCERTAIN).await, 0);
    shop.finish().await;
}

#[tokio::test]
async fn three_refused_chats_silence_the_bot_until_it_lapses_on_sqlite() {
    three_refused_chats_silence_the_bot_until_it_lapses(TestStore::sqlite(ROOMS).await).await;
}

#[tokio::test]
async fn three_refused_chats_silence_the_bot_until_it_lapses_on_postgres() {
    three_refused_chats_silence_the_bot_until_it_lapses(TestStore::postgres(ROOMS).await).await;
}
