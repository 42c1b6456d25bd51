//! Telegram Stars: bought once however often it is told, refused before anybody pays in vain, given back once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use expect_test::expect;
use serde_json::{Value, json};

use semel::app::updates::{answer, poll_once};
use semel_kernel::each_store;
use semel_kernel::jobs::{self, Job};
use semel_kernel::store::{Engine, StoreError};
use semel_kernel::testing::eventually;
use semel_payments::Provider as Rail;
use semel_sandbox::{CheckoutAnswer, Fault, Invoice, StarKnobs, Target};
use semel_shop::checkout::{ConfirmPayment, SweepProvider};
use semel_shop::stars::may_pay;
use semel_telegram::{Checkout, Person};

use crate::app::{CUSTOMER, OrderHandle, ROOMS, TestShop, an_order, minutes, refusal, text};

const STRANGER: i64 = 7_000_000_001;
const ORDERS: &str = "/api/v1/orders";
/// A Star for 1.80: what costs 990.00 costs 550 of them.
const STARS: [(&str, &str); 3] =
    [("SEMEL_STARS_ENABLED", "true"), ("SEMEL_STARS_WORTH", "1.80"), ("SEMEL_TELEGRAM_UPDATES", "polling")];

async fn a_shop(t: crate::app::TestStore) -> (TestShop, String) {
    let shop = TestShop::with(t, &STARS).await;
    let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2", "KEY-3"]).await;
    for person in [CUSTOMER, STRANGER] {
        shop.sandbox.set_language(person, "en");
    }
    (shop, key)
}

/// Takes every update that waits, and does nothing about them yet.
async fn take(shop: &TestShop) {
    let bot = shop.shop().bot.clone().expect("the story has a bot");
    let mut offset = None;
    loop {
        let polled = poll_once(shop.shop(), &bot, offset, 0).await.expect("updates come");
        answer(shop.shop(), &bot, &polled.came.presses).await;
        if polled.next.is_none() {
            return;
        }
        offset = polled.next;
    }
}

/// Takes every update that waits, and lets everything happen.
async fn hear(shop: &TestShop) {
    take(shop).await;
    shop.run_jobs().await;
}

async fn tell(shop: &TestShop, person: i64, words: &str) {
    shop.sandbox.say(person, words);
    hear(shop).await;
}

async fn press(shop: &TestShop, person: i64, words: &str) {
    assert!(shop.sandbox.press(person, words).is_some(), "there is a button {words:?} in {:#?}", shop.chat(person));
    hear(shop).await;
}

/// An order that the API made for Stars; its invoice is in the customer's chat.
async fn order(shop: &TestShop, product: &str) -> OrderHandle {
    let (status, made) = shop.post(ORDERS, an_order(CUSTOMER, product, "stars")).await;
    assert_eq!(status, 201, "{made}");
    shop.run_jobs().await;
    OrderHandle::read(&made)
}

/// The newest invoice in a chat.
fn invoice(shop: &TestShop, chat: i64) -> Invoice {
    shop.sandbox.chat(chat).into_iter().rev().find_map(|message| message.invoice).expect("there is an invoice")
}

/// The bot's words to people who were about to pay, as soon as there are more than `before`.
async fn words_after(shop: &TestShop, before: usize) -> Vec<CheckoutAnswer> {
    let is_more = async || shop.sandbox.checkout_answers().len() > before;
    eventually("people are told whether they may pay", is_more).await;
    shop.sandbox.checkout_answers()
}

/// Somebody presses Pay under the newest invoice of a chat; answers the bot's word. After a yes they are charged.
async fn press_pay(shop: &TestShop, payer: i64, chat: i64) -> CheckoutAnswer {
    let before = shop.sandbox.checkout_answers().len();
    assert!(shop.sandbox.pay_stars_as(payer, chat).is_some(), "there is an invoice");
    take(shop).await;
    words_after(shop, before).await.pop().expect("a word")
}

/// Pays, and lets everything happen.
async fn pay(shop: &TestShop, customer: i64) {
    let said = press_pay(shop, customer, customer).await;
    assert!(said.ok, "{said:?}");
    hear(shop).await;
}

/// Nobody tells of the next payment.
fn lose_next_update(shop: &TestShop) {
    shop.sandbox.set_star_knobs(StarKnobs { lose_next: 1, ..StarKnobs::default() });
}

/// An order with two charges: nobody tells of the first one, and before anybody looks its customer presses once more.
async fn paid_twice(shop: &TestShop, product: &str) -> OrderHandle {
    let order = order(shop, product).await;
    lose_next_update(shop);
    assert!(press_pay(shop, CUSTOMER, CUSTOMER).await.ok);
    shop.advance(minutes(2)).await;
    pay(shop, CUSTOMER).await;
    order
}

/// Reads the bot's list of transactions, as every hour.
async fn sweep(shop: &TestShop) {
    let swept = shop.shop().write("story.sweep", |tx, shop| {
        let now = tx.now();
        jobs::enqueue(tx, &SweepProvider { provider: Rail::Stars, tick: now.millis() }, now, &shop.chance)?;
        Ok::<_, semel_shop::Error>(())
    });
    swept.await.unwrap();
    shop.run_jobs().await;
}

/// The payment's own job will not look any more.
async fn forget_own_job(shop: &TestShop, order: &OrderHandle) {
    let slot = order.payment.clone();
    let forgotten = shop.shop().write("story.forget", move |tx, _| {
        assert!(jobs::cancel(tx, ConfirmPayment::KIND, &slot)?, "there is such a job");
        Ok::<_, semel_shop::Error>(())
    });
    forgotten.await.unwrap();
}

each_store! { ROOMS;
    async fn a_key_is_bought_with_stars_once_though_it_is_told_three_times(t: TestStore) {
        let (shop, _) = a_shop(t).await;
        shop.sandbox.set_star_knobs(StarKnobs { repeat: 2, ..StarKnobs::default() });
        tell(&shop, STRANGER, "/start").await;
        press(&shop, STRANGER, "Catalog").await;
        press(&shop, STRANGER, "Licence key").await;
        press(&shop, STRANGER, "Buy for").await;
        press(&shop, STRANGER, "Telegram Stars — 550").await;
        assert_eq!(invoice(&shop, STRANGER).stars, 550);
        assert!(shop.sandbox.star_payments().is_empty(), "an invoice is no payment");
        pay(&shop, STRANGER).await;
        // The same updates once more, also the question before the payment.
        shop.sandbox.repeat_updates();
        hear(&shop).await;

        assert_eq!(shop.delivered_to(STRANGER), ["KEY-1"]);
        sold_once(&shop).await;
        assert_eq!(shop.inbox().await, ["successful_payment applied"]);
        assert_eq!(shop.sandbox.checkout_answers().len(), 1);
        shop.finish().await;
    }

    async fn an_update_that_is_lost_is_found_by_the_payments_own_job(t: TestStore) {
        let (shop, key) = a_shop(t).await;
        let order = order(&shop, &key).await;
        lose_next_update(&shop);
        pay(&shop, CUSTOMER).await;
        assert_eq!(shop.status(&order).await, "pending", "nobody told us");
        shop.wait(minutes(2)).await;
        assert_eq!(shop.status(&order).await, "delivered");
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        shop.finish().await;
    }

    async fn an_update_that_is_lost_is_found_by_the_sweep(t: TestStore) {
        let (shop, key) = a_shop(t).await;
        for wanted in ["KEY-1", "KEY-2"] {
            let order = order(&shop, &key).await;
            lose_next_update(&shop);
            pay(&shop, CUSTOMER).await;
            forget_own_job(&shop, &order).await;
            // The second one stands behind the bookmark that the first sweep left.
            shop.advance(minutes(10)).await;
            sweep(&shop).await;
            assert_eq!(shop.status(&order).await, "delivered", "{wanted}");
        }
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1", "KEY-2"]);
        expect![[r#"
            sales  +1100 XTR
            stars  -1100 XTR
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    async fn what_an_earlier_program_sold_is_no_business_of_ours(t: TestStore) {
        let (shop, key) = a_shop(t).await;
        let long_ago = a_month_ago(&shop);
        for n in 0..120 {
            shop.sandbox.sold_elsewhere(STRANGER, 7, long_ago + n);
        }
        for _ in 0..2 {
            sweep(&shop).await;
            shop.advance(minutes(60)).await;
        }
        assert_eq!(shop.ledger().await, "");
        assert!(shop.alerts().iter().all(|alert| !alert.contains("suspense")), "{:?}", shop.alerts());

        let order = order(&shop, &key).await;
        lose_next_update(&shop);
        pay(&shop, CUSTOMER).await;
        sweep(&shop).await;
        assert_eq!(shop.status(&order).await, "delivered");
        shop.finish().await;
    }

    async fn a_list_that_was_not_read_to_its_end_closes_no_payment(t: TestStore) {
        let (shop, key) = a_shop(t).await;
        let long_ago = a_month_ago(&shop);
        for _ in 0..20_000 {
            shop.sandbox.sold_elsewhere(STRANGER, 7, long_ago);
        }
        let order = order(&shop, &key).await;
        lose_next_update(&shop);
        pay(&shop, CUSTOMER).await;
        shop.wait(minutes(200)).await;
        assert_eq!(shop.store.texts("select state from payments").await, ["pending"], "nobody knows that nothing came");
        for _ in 0..2 {
            sweep(&shop).await;
            shop.advance(minutes(60)).await;
        }
        assert_eq!(shop.status(&order).await, "delivered");
        shop.finish().await;
    }

    async fn whoever_presses_so_much_that_telegram_wants_silence_keeps_nobody_from_paying(t: TestStore) {
        let (shop, key) = a_shop(t).await;
        let order = order(&shop, &key).await;
        shop.sandbox.fault(Target::Telegram("answerCallbackQuery".into()), Fault::TooMany { retry_after: 600 }, Some(1));
        shop.sandbox.press_data(STRANGER, 1, "go:catalog");
        hear(&shop).await;
        pay(&shop, CUSTOMER).await;
        assert_eq!(shop.sandbox.star_payments().len(), 1, "the word before a payment does not wait for the silence");
        assert_eq!(shop.status(&order).await, "pending", "the look at the list and messages do");
        shop.wait(minutes(11)).await;
        assert_eq!(shop.status(&order).await, "delivered");
        shop.finish().await;
    }

    async fn a_sweep_that_breaks_off_leaves_no_money_behind_its_bookmark(t: TestStore) {
        let (shop, key) = a_shop(t).await;
        let order = order(&shop, &key).await;
        lose_next_update(&shop);
        pay(&shop, CUSTOMER).await;
        forget_own_job(&shop, &order).await;
        shop.advance(minutes(10)).await;
        // The list can be read, and nothing of it be booked.
        shop.change("alter table payment_refs rename to payment_refs_elsewhere").await;
        sweep(&shop).await;
        shop.change("alter table payment_refs_elsewhere rename to payment_refs").await;
        assert_eq!(shop.ledger().await, "");

        shop.wait(minutes(5)).await;
        assert_eq!(shop.status(&order).await, "delivered");
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        shop.finish().await;
    }

    async fn nobody_pays_in_vain(t: TestStore) {
        let (shop, key) = a_shop(t).await;
        order(&shop, &key).await;
        let refused = async |payer: i64, words: &str| {
            let said = press_pay(&shop, payer, CUSTOMER).await;
            let told = said.text.clone().unwrap_or_default();
            assert!(!said.ok && told.contains(words), "{said:?}");
        };
        refused(STRANGER, "not yours").await;
        shop.sandbox.set_star_knobs(StarKnobs { other_sum: Some(1), ..StarKnobs::default() });
        refused(CUSTOMER, "price in this invoice").await;
        shop.wait(minutes(31)).await;
        refused(CUSTOMER, "too old").await;
        hear(&shop).await;
        assert!(shop.sandbox.star_payments().is_empty());

        // Nobody is let through any more, so after a while nobody asks any more.
        shop.wait(minutes(120)).await;
        assert_eq!(shop.store.texts("select state from payments").await, ["cancelled"]);
        assert_eq!(shop.ledger().await, "");
        shop.finish().await;
    }

    async fn while_the_database_stands_still_the_word_is_no_and_comes_in_time(t: TestStore) {
        let (shop, key) = a_shop(t).await;
        let order = order(&shop, &key).await;
        let stall = Stall::begin(&shop).await;
        shop.sandbox.pay_stars(CUSTOMER).expect("there is an invoice");
        let (inner, bot) = (shop.shop().clone(), shop.shop().bot.clone().expect("a bot"));
        let polling = tokio::spawn(async move { poll_once(&inner, &bot, None, 0).await });
        let said = words_after(&shop, 0).await.pop().expect("a word");
        assert!(!said.ok && said.took_ms < 10_000, "{said:?}");
        assert!(said.text.as_deref().is_some_and(|text| text.contains("No Stars were taken")), "{said:?}");
        stall.end().await;
        polling.await.expect("it goes on").expect("what waited is taken");
        assert!(shop.sandbox.star_payments().is_empty(), "no money is lost by a no");

        hear(&shop).await;
        // The yes that came too late to be said holds the invoice for a minute.
        shop.advance(minutes(2)).await;
        pay(&shop, CUSTOMER).await;
        assert_eq!(shop.status(&order).await, "delivered");
        shop.finish().await;
    }

    async fn stars_go_back_once_and_whole(t: TestStore) {
        let (shop, key) = a_shop(t).await;
        let order = order(&shop, &key).await;
        pay(&shop, CUSTOMER).await;
        let part = shop.refund(&order, "provider", Some("100")).await;
        assert_eq!(refusal(&part), "409 conflict");
        assert!(text(&part.1["detail"]).contains("whole or not at all"), "{}", part.1);

        // It is done, and nobody tells us: the same call finds that.
        shop.sandbox.fault(Target::Telegram("refundStarPayment".into()), Fault::CutAfter, Some(1));
        let (status, begun) = shop.refund(&order, "provider", None).await;
        assert_eq!(status, 200, "{begun}");
        shop.run_jobs().await;
        hear(&shop).await;
        shop.wait(minutes(3)).await;
        assert_eq!(shop.status(&order).await, "refunded");
        let paid = shop.sandbox.star_payments();
        assert!(paid.len() == 1 && paid[0].refunded, "{paid:?}");
        expect![[r#"
            sales  0 XTR
            stars  0 XTR
        "#]]
        .assert_eq(&shop.ledger().await);
        assert_eq!(refusal(&shop.refund(&order, "provider", None).await), "409 conflict");
        shop.finish().await;
    }

    async fn what_telegram_takes_back_by_itself_is_booked_told_or_not(t: TestStore) {
        let (shop, key) = a_shop(t).await;
        for lost in [0, 1] {
            let order = order(&shop, &key).await;
            pay(&shop, CUSTOMER).await;
            let charge = shop.sandbox.star_payments().pop().expect("a charge").charge;
            shop.sandbox.set_star_knobs(StarKnobs { lose_next: lost, ..StarKnobs::default() });
            assert!(shop.sandbox.take_stars_back(&charge));
            hear(&shop).await;
            if lost > 0 {
                assert_eq!(shop.status(&order).await, "delivered", "nobody told us");
                shop.advance(minutes(10)).await;
                sweep(&shop).await;
            }
            assert_eq!(shop.status(&order).await, "refunded");
        }
        shop.finish().await;
    }

    async fn a_charge_pays_one_order_whatever_an_update_says(t: TestStore) {
        let (shop, key) = a_shop(t).await;
        let first = order(&shop, &key).await;
        pay(&shop, CUSTOMER).await;
        let second = order(&shop, &key).await;
        let charge = shop.sandbox.star_payments().pop().expect("a charge").charge;
        let told = |id: i64, charge: &str, payload: &str| (id, money(id, charge, payload));
        let updates = vec![
            told(9_001, &charge, &second.payment),
            told(9_002, "stx_of_nobody", &second.payment),
            told(9_003, "stx_of_nobody", "pay_of_nobody"),
            told(9_004, &charge, &first.payment),
        ];
        let bot = shop.shop().bot.clone().expect("a bot");
        semel_shop::bot::flows::receive(shop.shop(), bot.id(), updates).await.expect("they are taken");
        shop.run_jobs().await;
        shop.wait(minutes(2)).await;
        assert_eq!((shop.status(&first).await, shop.status(&second).await), ("delivered".into(), "pending".into()));
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        sold_once(&shop).await;
        shop.finish().await;
    }

    async fn two_presses_at_the_same_moment_take_stars_once(t: TestStore) {
        let (shop, key) = a_shop(t).await;
        let order = order(&shop, &key).await;
        shop.sandbox.pay_stars(CUSTOMER).expect("there is an invoice");
        shop.sandbox.pay_stars(CUSTOMER).expect("there is an invoice");
        take(&shop).await;
        let said = words_after(&shop, 1).await;
        let (let_through, refused): (Vec<_>, Vec<_>) = said.iter().partition(|word| word.ok);
        assert_eq!((let_through.len(), refused.len()), (1, 1), "{said:?}");
        let told = refused[0].text.as_deref().unwrap_or_default();
        assert!(told.contains("being paid already"), "{told}");
        hear(&shop).await;
        assert_eq!(shop.sandbox.star_payments().len(), 1);
        assert_eq!(shop.status(&order).await, "delivered");
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        sold_once(&shop).await;
        shop.finish().await;
    }

    async fn who_was_let_through_and_did_not_pay_may_do_so_later(t: TestStore) {
        let (shop, key) = a_shop(t).await;
        let order = order(&shop, &key).await;
        let bot = shop.shop().bot.clone().expect("the story has a bot");
        let ask = async |query: &str| {
            let from = Person { id: CUSTOMER, language: Some("en".into()) };
            let asked = Checkout {
                query: query.into(),
                from,
                currency: "XTR".into(),
                amount: 550,
                payload: order.payment.clone(),
            };
            may_pay(shop.shop(), bot.id(), &asked, Duration::from_secs(10)).await
        };
        assert_eq!(ask("first").await, Ok(()));
        assert_eq!(ask("first").await, Ok(()), "the same question gets the same yes");
        let refused = ask("second").await.expect_err("somebody is about to pay");
        assert!(refused.contains("being paid already"), "{refused}");
        assert_eq!(shop.ledger().await, "", "a yes credits nothing");

        // The yes came to nothing.
        shop.advance(minutes(2)).await;
        pay(&shop, CUSTOMER).await;
        assert_eq!(shop.status(&order).await, "delivered");
        assert_eq!(shop.sandbox.star_payments().len(), 1);
        shop.finish().await;
    }

    async fn a_second_charge_that_happens_all_the_same_is_on_the_balance_and_buys_the_next(t: TestStore) {
        let (shop, key) = a_shop(t).await;
        let order = paid_twice(&shop, &key).await;
        assert_eq!(shop.sandbox.star_payments().len(), 2);
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        assert_eq!(shop.balance(CUSTOMER).await, "550 XTR");
        let told = shop.chat(CUSTOMER);
        assert!(told.iter().any(|words| words.contains("550 ⭐") && words.contains("На ваш баланс")), "{told:?}");
        assert!(told.iter().all(|words| !words.contains("XTR")), "{told:?}");
        let (status, shown) = shop.get(&format!("{ORDERS}/{}", order.id)).await;
        assert_eq!(status, 200, "{shown}");
        let money = |name: &str| text(&shown["money"][name]["amount"]);
        assert_eq!((money("received"), money("to_payer"), money("to_balance")), ("1100".into(), "0".into(), "550".into()));

        tell(&shop, CUSTOMER, "/catalog").await;
        press(&shop, CUSTOMER, "Licence key").await;
        press(&shop, CUSTOMER, "Buy for").await;
        press(&shop, CUSTOMER, "From the balance — 550 ⭐").await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1", "KEY-2"]);
        assert_eq!(shop.balance(CUSTOMER).await, "0 XTR");
        shop.finish().await;
    }

    async fn a_second_charge_that_is_given_back_at_telegram_leaves_the_balance_and_the_order_stays(t: TestStore) {
        let (shop, key) = a_shop(t).await;
        let order = paid_twice(&shop, &key).await;
        assert_eq!(shop.balance(CUSTOMER).await, "550 XTR");

        // Which of the two paid the order is in the books.
        let on_balance = "select p.provider_payment_id from postings p join entries e on e.posting = p.id join accounts a on a.id = e.account
            where p.kind = 'capture' and a.kind = 'customer'";
        let charges = shop.store.texts(on_balance).await;
        assert_eq!(charges.len(), 1, "{charges:?}");
        assert!(shop.sandbox.take_stars_back(&charges[0]));
        hear(&shop).await;
        shop.wait(minutes(2)).await;
        assert_eq!(shop.balance(CUSTOMER).await, "0 XTR");
        assert_eq!(shop.status(&order).await, "delivered");
        shop.finish().await;
    }

    async fn stars_and_other_money_do_not_mix(t: TestStore) {
        let (shop, key) = a_shop(t).await;
        let rouble = shop.order(&key, "yookassa").await;
        let stars = json!({ "provider": "stars" });
        let other = shop.post(&format!("{ORDERS}/{}/pay", rouble.id), stars).await;
        assert_eq!(refusal(&other), "422 invalid");
        let gem = json!({ "title": "A gem", "kind": "stock", "price": { "amount": "7", "currency": "XTR" } });
        let gem = shop.product_of(gem).await;
        shop.stock(&gem, &["GEM-1"]).await;
        assert_eq!(refusal(&shop.post(ORDERS, an_order(CUSTOMER, &gem, "yookassa")).await), "422 invalid");
        let topup = json!({ "title": "1000 ₽", "kind": "topup", "price": { "amount": "1000.00", "currency": "RUB" } });
        let topup = shop.product_of(topup).await;
        assert_eq!(refusal(&shop.post(ORDERS, an_order(CUSTOMER, &topup, "stars")).await), "409 conflict");

        order(&shop, &gem).await;
        assert_eq!(invoice(&shop, CUSTOMER).stars, 7, "what is priced in Stars costs just that");
        pay(&shop, CUSTOMER).await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["GEM-1"]);
        tell(&shop, CUSTOMER, "/paysupport").await;
        let told = shop.chat(CUSTOMER).pop().unwrap_or_default();
        assert!(told.starts_with("The shop's owner answers for payments"), "{told}");
        shop.finish().await;
    }
}

/// The books hold one key for 550 Stars.
async fn sold_once(shop: &TestShop) {
    expect![[r#"
        sales  +550 XTR
        stars  -550 XTR
    "#]]
    .assert_eq(&shop.ledger().await);
}

/// A moment before anybody here looked at the bot's list, in milliseconds.
fn a_month_ago(shop: &TestShop) -> i64 {
    shop.shop().now().millis() - 30 * 24 * 3_600_000
}

/// The message that tells of money, as Telegram gives it.
fn money(update: i64, charge: &str, payload: &str) -> Value {
    json!({ "update_id": update, "message": {
        "message_id": update, "date": 0, "chat": { "id": CUSTOMER, "type": "private" }, "from": { "id": CUSTOMER },
        "successful_payment": {
            "currency": "XTR", "total_amount": 550, "invoice_payload": payload, "telegram_payment_charge_id": charge,
            "provider_payment_charge_id": "",
        },
    } })
}

/// A database none of whose connections for reading is free.
struct Stall {
    gate: Arc<(Mutex<bool>, Condvar)>,
    held: Vec<tokio::task::JoinHandle<Result<(), StoreError>>>,
}

impl Stall {
    async fn begin(shop: &TestShop) -> Stall {
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let entered = Arc::new(AtomicUsize::new(0));
        // A file has three readers; the tests' pool has six connections.
        let all = if shop.store.engine() == Engine::Sqlite { 3 } else { 6 };
        let mut held = Vec::new();
        for _ in 0..all {
            let (store, gate, entered) = (shop.store.store.clone(), Arc::clone(&gate), Arc::clone(&entered));
            held.push(tokio::spawn(async move {
                let stood = store.read("story.stall", move |_| {
                    entered.fetch_add(1, Ordering::SeqCst);
                    let (open, changed) = &*gate;
                    let mut is_open = open.lock().unwrap();
                    while !*is_open {
                        is_open = changed.wait(is_open).unwrap();
                    }
                    Ok::<_, StoreError>(())
                });
                stood.await
            }));
        }
        eventually("every reader stands still", async || entered.load(Ordering::SeqCst) == all).await;
        Stall { gate, held }
    }

    async fn end(self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
        for one in self.held {
            one.await.expect("it goes on").expect("the read ends");
        }
    }
}
