//! The customer's bot on its bad days: a stream of updates that stutters, presses that somebody forged, a database that is slow;
//! and what the owner does from the chat.

use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use semel::app::updates::{Poller, Trouble, poll_once, take_in};
use semel_kernel::each_store;
use semel_kernel::jobs::{self, Dead, Job, JobId};
use semel_kernel::outbound::{Call, Manner};
use semel_kernel::store::{Engine, StoreError};
use semel_kernel::testing::eventually;
use semel_sandbox::{Fault, Provider, Target};
use semel_shop::bot::WorkUpdate;
use semel_telegram::{Bot, Request};

use crate::app::{ADMIN, CUSTOMER, ROOMS, TestShop, minutes};
use crate::bot::{
    FRIEND, NO_SUCH_BUTTON, STRANGER, button, come_to_pay, hear, last, orders, pay_newest, press, said, take, tell,
};
use crate::vpn::VpnShop;

const LOST: &str = "I understand commands";

fn bot_of(shop: &TestShop) -> Bot {
    shop.shop().bot.clone().expect("the story has a bot")
}

/// Somebody tells Telegram how the bot wants its updates.
async fn choose(shop: &TestShop, way: Request) {
    let call = Call::new("story.way", "story", Manner::Convergent);
    let answer = shop.shop().telegram.call(call, way).await.expect("Telegram answers");
    assert_eq!(answer.status().as_u16(), 200);
}

async fn updates(shop: &TestShop) -> i64 {
    shop.number("select cast(count(*) as bigint) from updates").await
}

/// A database that answers nobody until it is let go.
struct Held {
    let_go: mpsc::Sender<()>,
    holding: JoinHandle<()>,
}

impl Held {
    async fn by(shop: &TestShop) -> Held {
        let (let_go, held) = mpsc::channel::<()>();
        let (begun, mut has_begun) = tokio::sync::mpsc::unbounded_channel::<()>();
        let store = shop.store.store.clone();
        // An embedded database has one writer; PostgreSQL has a lock for every table.
        let locks = store.engine() == Engine::Postgres;
        let holding = tokio::spawn(async move {
            let held: Result<(), StoreError> = store
                .write("story.hold", move |tx| {
                    if locks {
                        tx.execute("lock table updates in access exclusive mode", &[])?;
                    }
                    let _ = begun.send(());
                    let _ = held.recv();
                    Ok(())
                })
                .await;
            held.expect("the database is held");
        });
        has_begun.recv().await.expect("the database is held");
        Held { let_go, holding }
    }

    async fn let_go(self) {
        self.let_go.send(()).expect("the database is still held");
        self.holding.await.expect("the database goes on");
    }
}

/// Every broadcast goes on until it is over.
async fn until_sent(shop: &TestShop) {
    let running = "select cast(count(*) as bigint) from campaigns where state = 'running'";
    for _ in 0..20 {
        shop.run_jobs().await;
        if shop.number(running).await == 0 {
            return;
        }
        shop.advance(Duration::from_secs(5)).await;
    }
    panic!("the broadcast never ends");
}

/// What somebody writes, with marks as Telegram keeps them.
fn written(person: i64, text: &str, entities: Value) -> Value {
    json!({
        "message_id": 1, "date": 0, "chat": { "id": person, "type": "private" },
        "from": { "id": person, "is_bot": false, "language_code": "en" }, "text": text, "entities": entities,
    })
}

each_store! { ROOMS;
    async fn two_who_ask_lose_nothing_and_double_nothing(t: TestStore) {
        let shop = TestShop::start(t).await;
        let bot = bot_of(&shop);
        let (mut one, mut other) = (Poller::new(shop.shop(), &bot), Poller::new(shop.shop(), &bot));
        for n in 0..10 {
            shop.sandbox.say(STRANGER + n, "/start");
            shop.sandbox.skip_updates(n % 3);
            tokio::join!(one.ask(0), other.ask(0));
        }
        while shop.sandbox.waiting_updates() > 0 {
            one.ask(0).await;
        }
        // All of it comes once more, to somebody who knows nothing of it.
        shop.sandbox.repeat_updates();
        Poller::new(shop.shop(), &bot).ask(0).await;
        shop.run_jobs().await;
        assert_eq!(updates(&shop).await, 10);
        for n in 0..10 {
            assert_eq!(said(&shop, STRANGER + n).len(), 1, "customer {n} is greeted once");
        }
        shop.finish().await;
    }

    async fn who_is_cut_off_asks_less_often_and_tells_the_owner_once(t: TestStore) {
        let shop = TestShop::start(t).await;
        let bot = bot_of(&shop);
        let mut poller = Poller::new(shop.shop(), &bot);
        let rivals = |shop: &TestShop| {
            shop.alerts().iter().filter(|alert| alert.contains("Another program takes what customers write")).count()
        };
        for round in 0..2 {
            shop.sandbox.fault(Target::Telegram("getUpdates".into()), Fault::Status(409), Some(3));
            let mut waits = Vec::new();
            for _ in 0..3 {
                assert_eq!(rivals(&shop), round, "once or twice it is a copy of ours that ends");
                waits.push(poller.ask(0).await);
                if round == 0 && waits.len() < 3 {
                    shop.run_jobs().await;
                }
            }
            assert!(waits[2] > waits[0], "{waits:?}");
            shop.run_jobs().await;
            assert_eq!(rivals(&shop), 1, "and once a day is enough");
            // The other one is gone: all goes on by itself.
            shop.sandbox.say(STRANGER, "/start");
            assert!(poller.ask(0).await.is_zero());
            shop.run_jobs().await;
            assert_eq!(said(&shop, STRANGER).len(), round + 1);
        }
        let names = |language: &str| -> Vec<String> {
            shop.sandbox.bot_commands(language).into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names("ru"), names(""));
        for name in ["start", "catalog", "orders", "access", "balance", "language", "settings", "help", "support",
            "terms", "privacy", "cancel"]
        {
            assert!(names("ru").iter().any(|known| known == name), "/{name} stands in the menu");
        }
        assert!(!names("ru").iter().any(|known| known == "ref"), "nobody is rewarded, so nobody is asked to bring friends");
        shop.finish().await;
    }

    async fn a_rival_that_stays_is_told_of_every_day(t: TestStore) {
        let shop = TestShop::start(t).await;
        let mut poller = Poller::new(shop.shop(), &bot_of(&shop));
        shop.sandbox.fault(Target::Telegram("getUpdates".into()), Fault::Status(409), None);
        for _ in 0..4 {
            poller.ask(0).await;
        }
        for days in 1..3 {
            shop.run_jobs().await;
            let told = shop.alerts().iter().filter(|alert| alert.contains("Another program takes")).count();
            assert_eq!(told, days, "{:?}", shop.alerts());
            shop.advance(minutes(24 * 60)).await;
            poller.ask(0).await;
        }
        shop.finish().await;
    }

    async fn what_somebody_wrote_is_forgotten_though_its_job_gave_up(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.sandbox.say(STRANGER, "my secret");
        take(&shop).await;
        let given_up = shop.shop().write("story.give_up", |tx, _| {
            let row = tx.one("select id, slot from jobs where kind = 'bot.update'", &[])?;
            let (job, slot): (JobId, String) = (row.get(0)?, row.get(1)?);
            assert!(jobs::cancel(tx, WorkUpdate::KIND, &slot)?, "there is such a job");
            let dead = Dead { job, kind: WorkUpdate::KIND.into(), thread: None, error: "it gave up".into() };
            semel_shop::bot::flows::buried(tx, &dead)?;
            Ok::<_, semel_shop::Error>(())
        });
        given_up.await.expect("its job gives up");
        let secrets = "select cast(count(*) as bigint) from updates where body like '%my secret%'";
        shop.advance(minutes(2 * 24 * 60)).await;
        tell(&shop, FRIEND, "/start").await;
        assert_eq!(shop.number(secrets).await, 1, "somebody may run it again by hand");
        shop.advance(minutes(2 * 24 * 60)).await;
        tell(&shop, FRIEND, "/start").await;
        assert_eq!(shop.number(secrets).await, 0);
        shop.finish().await;
    }

    async fn numbers_that_begin_anew_after_a_silent_week_are_new_updates(t: TestStore) {
        let shop = TestShop::start(t).await;
        tell(&shop, STRANGER, "/start").await;
        let mine = json!({ "id": STRANGER, "type": "private" });
        let from = json!({ "id": STRANGER, "is_bot": false, "first_name": "A", "language_code": "en" });
        let message = json!({ "message_id": 900, "date": 0, "chat": mine, "from": from, "text": "hello" });
        let update = json!({ "update_id": 500, "message": message });
        for answers in [2, 3] {
            let came = take_in(shop.shop(), bot_of(&shop).id(), vec![(500, update.clone())]).await;
            assert_eq!(came.expect("it is kept").new, 1);
            shop.run_jobs().await;
            assert_eq!(said(&shop, STRANGER).len(), answers, "{:?}", said(&shop, STRANGER));
            shop.advance(minutes(8 * 24 * 60)).await;
            let night = shop.shop().write("story.night", |tx, _| Ok(semel_shop::bot::flows::forget(tx)?));
            night.await.expect("the night forgets what is over");
        }
        // Nobody forgets anything at night while the program is off.
        for answers in [4, 5] {
            let came = take_in(shop.shop(), bot_of(&shop).id(), vec![(500, update.clone())]).await;
            assert_eq!(came.expect("it is kept").new, 1);
            shop.run_jobs().await;
            assert_eq!(said(&shop, STRANGER).len(), answers, "{:?}", said(&shop, STRANGER));
            shop.advance(minutes(8 * 24 * 60)).await;
        }
        shop.finish().await;
    }

    async fn an_owners_reply_leaves_though_another_one_had_its_number(t: TestStore) {
        let shop = TestShop::start(t).await;
        tell(&shop, STRANGER, "/support it fails").await;
        let question = shop.sandbox.chat(ADMIN).pop().expect("the owner is told").id;
        let mine = json!({ "id": ADMIN, "type": "private" });
        let from = json!({ "id": ADMIN, "is_bot": false, "first_name": "A", "language_code": "en" });
        for words in ["Restart it", "Now it is mended"] {
            let message = json!({
                "message_id": 900, "date": 0, "chat": mine, "from": from, "text": words,
                "reply_to_message": { "message_id": question },
            });
            let update = json!({ "update_id": 500, "message": message });
            let came = take_in(shop.shop(), bot_of(&shop).id(), vec![(500, update)]).await;
            assert_eq!(came.expect("it is kept").new, 1);
            shop.run_jobs().await;
            assert!(last(&shop, STRANGER).contains(words), "{}", last(&shop, STRANGER));
            shop.advance(minutes(8 * 24 * 60)).await;
        }
        shop.finish().await;
    }

    async fn words_to_the_owner_stand_in_no_job_and_come_to_an_end(t: TestStore) {
        let shop = TestShop::start(t).await;
        for person in [STRANGER, FRIEND] {
            shop.sandbox.set_language(person, "en");
        }
        let told = |shop: &TestShop| shop.alerts().iter().filter(|alert| alert.contains("asks for help")).count();
        for n in 0..12 {
            tell(&shop, STRANGER, &format!("/support word {n}")).await;
        }
        assert_eq!(told(&shop), 10);
        assert!(last(&shop, STRANGER).starts_with("You wrote many times today"), "{}", last(&shop, STRANGER));
        tell(&shop, FRIEND, "/support me too").await;
        assert_eq!(told(&shop), 11, "nobody is silent for another's words");
        let kept = "select cast(count(*) as bigint) from jobs where payload like '%asks for help%'";
        assert_eq!(shop.number(kept).await, 0, "an alert's job stays for ever, and its text stands in the log");
        shop.advance(minutes(24 * 60)).await;
        tell(&shop, STRANGER, "/support still there").await;
        assert_eq!(told(&shop), 12);
        shop.finish().await;
    }

    async fn an_order_that_no_provider_takes_is_told_to_its_customer_and_to_the_owner(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        come_to_pay(&shop, STRANGER, "/start").await;
        let creating = Target::Api(Provider::Yookassa, "POST /payments".into());
        shop.sandbox.fault(creating, Fault::Status(400), Some(1));
        press(&shop, STRANGER, "Card").await;
        assert!(last(&shop, STRANGER).contains("does not take the payment"), "{}", last(&shop, STRANGER));
        assert_eq!(shop.store.texts("select state from orders").await, ["cancelled"]);
        let told = shop.alerts().iter().filter(|alert| alert.contains("could not be paid by yookassa")).count();
        assert_eq!(told, 1, "{:?}", shop.alerts());
        let kept = "select cast(count(*) as bigint) from updates where body is not null";
        assert_eq!(shop.number(kept).await, 0);
        shop.finish().await;
    }

    async fn the_way_of_updates_changes_and_none_is_lost_or_doubled(t: TestStore) {
        let changes = [("SEMEL_TELEGRAM_UPDATES", "webhook"), ("SEMEL_PUBLIC_URL", "https://shop.example")];
        let shop = TestShop::with(t, &changes).await;
        let bot = bot_of(&shop);
        let door = shop.program.app.doors.telegram.clone().expect("the door is open");
        let url = format!("{}/telegram/webhook/{}", shop.program.api.url(), door.path);

        // Asked for and stored, but the confirmation never left.
        shop.sandbox.say(STRANGER, "/start");
        assert_eq!(poll_once(shop.shop(), &bot, None, 0).await.expect("updates come").came.new, 1);
        shop.sandbox.say(FRIEND, "/start");
        choose(&shop, bot.set_webhook(&url, &door.secret)).await;
        assert_eq!(shop.sandbox.post_updates().await, [Some(200), Some(200)]);
        let refused = poll_once(shop.shop(), &bot, None, 0).await;
        assert!(matches!(refused, Err(Trouble::Conflict(_))), "{refused:?}");

        // A wrong secret takes nothing, and nothing is lost by it.
        choose(&shop, bot.set_webhook(&url, "somebody-elses")).await;
        shop.sandbox.say(CUSTOMER, "/start");
        assert_eq!(shop.sandbox.post_updates().await, [Some(403)]);
        assert_eq!(updates(&shop).await, 2);
        choose(&shop, bot.delete_webhook()).await;
        hear(&shop).await;
        assert_eq!(updates(&shop).await, 3);
        for person in [STRANGER, FRIEND, CUSTOMER] {
            assert_eq!(said(&shop, person).len(), 1, "{person} is greeted once");
        }
        shop.finish().await;
    }

    async fn what_nobody_can_read_is_kept_aside_and_the_stream_goes_on(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.sandbox.send_update("message", json!({ "chat": "nobody" }));
        shop.sandbox.send_update("callback_query", json!(7));
        shop.sandbox.send_update("an_update_of_tomorrow", json!({ "whatever": [1, 2, 3] }));
        shop.sandbox.send_update("message", written(FRIEND, &"long ".repeat(20_000), json!("no list")));
        shop.sandbox.send_update("message", written(FRIEND, &"long ".repeat(20_000), json!([])));
        shop.sandbox.set_language(STRANGER, "en");
        shop.sandbox.say(STRANGER, "/start");
        hear(&shop).await;
        assert_eq!(said(&shop, STRANGER).len(), 1);
        assert!(last(&shop, FRIEND).starts_with(LOST), "{}", last(&shop, FRIEND));
        let dead = "select cast(count(*) as bigint) from updates where state = 'dead' and body is not null and error is not null";
        assert_eq!(shop.number(dead).await, 3);
        let long = "select cast(max(length(body)) as bigint) from updates where state = 'dead'";
        assert!(shop.number(long).await <= 32_768, "and no more of it is kept than somebody can look at");
        let told = shop.alerts().iter().filter(|alert| alert.contains("could not be read")).count();
        assert_eq!(told, 1, "{:?}", shop.alerts());
        shop.finish().await;
    }

    async fn a_press_from_another_chat_is_forged_and_the_true_one_still_buys(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        come_to_pay(&shop, STRANGER, "/start").await;
        let (message, data) = button(&shop, STRANGER, "Card");
        for (chat, kind) in [(FRIEND, "private"), (-1_000_000_000_042, "supergroup")] {
            let forged = json!({
                "id": format!("forged{chat}"), "from": { "id": STRANGER, "is_bot": false, "language_code": "en" }, "data": data,
                "chat_instance": "1", "message": { "message_id": message, "date": 0, "chat": { "id": chat, "type": kind } },
            });
            shop.sandbox.send_update("callback_query", forged);
            hear(&shop).await;
            assert!(last(&shop, STRANGER).starts_with(NO_SUCH_BUTTON), "{}", last(&shop, STRANGER));
        }
        shop.sandbox.press_data(STRANGER, message, "go:notices:money:off");
        hear(&shop).await;
        assert!(last(&shop, STRANGER).starts_with(NO_SUCH_BUTTON), "{}", last(&shop, STRANGER));
        assert_eq!(orders(&shop).await, 0);
        shop.sandbox.press_data(STRANGER, message, &data);
        hear(&shop).await;
        assert_eq!(orders(&shop).await, 1);
        pay_newest(&shop, Provider::Yookassa).await;
        assert_eq!(shop.delivered_to(STRANGER), ["KEY-1"]);
        shop.finish().await;
    }

    async fn ten_presses_are_answered_at_once_and_make_one_order(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        come_to_pay(&shop, STRANGER, "/start").await;
        let (message, data) = button(&shop, STRANGER, "Card");
        // On the way to the button.
        let before = 3;
        eventually("each press so far has a word", async || shop.sandbox.press_answers().len() == before).await;
        for _ in 0..10 {
            shop.sandbox.press_data(STRANGER, message, &data);
        }
        take(&shop).await;
        assert_eq!(orders(&shop).await, 0, "the work has not begun");
        eventually("each press has a word", async || shop.sandbox.press_answers().len() == before + 10).await;
        let answers = shop.sandbox.press_answers().split_off(before);
        let words: Vec<_> = answers.iter().map(|answer| answer.text.as_deref()).collect();
        assert_eq!(words, [Some("One moment…"); 10]);
        shop.run_jobs().await;
        assert_eq!(orders(&shop).await, 1);
        shop.finish().await;
    }

    async fn a_slow_database_shows_the_menu_all_the_same(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.sandbox.set_language(STRANGER, "en");
        shop.sandbox.say(STRANGER, "/start");
        shop.sandbox.press_data(FRIEND, 1, "AAAAAAAAAAAAAAAA");
        let held = Held::by(&shop).await;
        let (of, bot) = (shop.shop().clone(), bot_of(&shop));
        let taking = tokio::spawn(async move { poll_once(&of, &bot, None, 0).await });
        eventually("who pressed has a word", async || shop.sandbox.press_answers().len() == 1).await;
        assert_eq!(shop.sandbox.press_answers()[0].text.as_deref(), Some("Секунду…"));
        eventually("who came has a menu", async || last(&shop, STRANGER).starts_with("One moment")).await;
        held.let_go().await;
        let polled = taking.await.expect("the poll ends").expect("updates come");
        assert_eq!((polled.came.new, polled.came.presses.len()), (2, 0), "nobody is answered twice");
        shop.run_jobs().await;
        assert_eq!(said(&shop, STRANGER).len(), 2);
        assert!(last(&shop, STRANGER).starts_with("Hello!"), "and the usual answer comes, too");
        press(&shop, STRANGER, "Catalog").await;
        shop.finish().await;
    }

    async fn a_customer_chooses_what_to_be_told(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.sandbox.set_language(STRANGER, "en");
        let off = "select cast(count(*) as bigint) from notice_switches where is_off = 1";
        tell(&shop, STRANGER, "/settings").await;
        press(&shop, STRANGER, "✅ News and offers").await;
        assert_eq!(shop.number(off).await, 1);
        press(&shop, STRANGER, "✅ Reminders").await;
        assert_eq!(shop.number(off).await, 4, "a topic is all of its kinds");
        let segment = shop.post("/api/v1/segments", json!({ "name": "all", "rule": {} })).await;
        assert_eq!(segment.1["audience"]["to_send"], json!(0), "{}", segment.1);
        press(&shop, STRANGER, "🔕 News and offers").await;
        press(&shop, STRANGER, "🔕 Reminders").await;
        assert_eq!(shop.number(off).await, 0);
        shop.finish().await;
    }

    async fn the_owners_words_stand_in_the_terms(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.sandbox.set_language(STRANGER, "en");
        for page in ["terms", "privacy", "support"] {
            tell(&shop, STRANGER, &format!("/{page}")).await;
            let ours = last(&shop, STRANGER);
            let own = json!({ "language": "en", "html": format!("<b>Our</b> {page}") });
            assert_eq!(shop.post(&format!("/api/v1/notices/{page}"), own).await.0, 200);
            tell(&shop, STRANGER, &format!("/{page}")).await;
            assert_eq!(last(&shop, STRANGER), format!("Our {page}"), "and not: {ours}");
        }
        shop.finish().await;
    }

    async fn the_owner_writes_to_everybody_from_the_chat(t: TestStore) {
        let shop = TestShop::start(t).await;
        for person in [STRANGER, FRIEND, ADMIN] {
            shop.sandbox.set_language(person, "en");
            tell(&shop, person, "/start").await;
        }
        tell(&shop, STRANGER, "/broadcast").await;
        assert!(last(&shop, STRANGER).starts_with(LOST), "{}", last(&shop, STRANGER));
        tell(&shop, STRANGER, "and these are only words").await;
        assert!(last(&shop, STRANGER).starts_with(LOST));

        // A change of mind.
        let campaigns = "select cast(count(*) as bigint) from campaigns";
        tell(&shop, ADMIN, "/broadcast").await;
        tell(&shop, ADMIN, "/cancel").await;
        assert!(last(&shop, ADMIN).starts_with("There is no broadcast"), "{}", last(&shop, ADMIN));
        tell(&shop, ADMIN, "this goes nowhere").await;
        assert_eq!(shop.number(campaigns).await, 0);

        tell(&shop, ADMIN, "/admin").await;
        press(&shop, ADMIN, "Broadcast").await;
        let bold = json!([{ "type": "bold", "offset": 0, "length": 4 }]);
        shop.sandbox.send_update("message", written(ADMIN, "Sale & more", bold));
        hear(&shop).await;
        let told = said(&shop, ADMIN);
        assert!(told.iter().any(|text| text.contains("People who get it: 3")), "{told:?}");
        assert!(told.iter().any(|text| text == "Sale & more"), "the test has arrived: {told:?}");
        let texts = shop.store.texts("select texts from campaigns").await;
        assert!(texts[0].contains("<b>Sale</b> &amp; more"), "{texts:?}");

        let (message, data) = button(&shop, ADMIN, "Start: 3");
        // Nobody else begins it, and the owner begins it once.
        shop.sandbox.press_data(STRANGER, message, &data);
        hear(&shop).await;
        assert!(last(&shop, STRANGER).starts_with(NO_SUCH_BUTTON), "{}", last(&shop, STRANGER));
        for _ in 0..3 {
            shop.sandbox.press_data(ADMIN, message, &data);
        }
        hear(&shop).await;
        until_sent(&shop).await;
        for person in [STRANGER, FRIEND] {
            let got = said(&shop, person).into_iter().filter(|text| text == "Sale & more").count();
            assert_eq!(got, 1, "{:?}", said(&shop, person));
        }
        press(&shop, ADMIN, "How far is it?").await;
        assert!(last(&shop, ADMIN).contains("Done: 3 / 3"), "{}", last(&shop, ADMIN));
        let log = shop.store.texts("select action || ' ' || actor from audit_entries where action like 'campaign.%' order by seq").await;
        assert_eq!(log, ["campaign.create telegram:1", "campaign.start telegram:1"]);
        shop.finish().await;
    }

    async fn many_people_are_asked_about_twice(t: TestStore) {
        let shop = TestShop::with(t, &[("SEMEL_BROADCAST_CONFIRM_OVER", "1")]).await;
        for person in [STRANGER, ADMIN] {
            shop.sandbox.set_language(person, "en");
            tell(&shop, person, "/start").await;
        }
        tell(&shop, ADMIN, "/broadcast").await;
        tell(&shop, ADMIN, "Good morning").await;
        press(&shop, ADMIN, "Start: 2").await;
        assert_eq!(shop.store.texts("select state from campaigns").await, ["draft"]);
        press(&shop, ADMIN, "Throw away").await;
        assert_eq!(shop.store.texts("select state from campaigns").await, ["cancelled"]);
        tell(&shop, ADMIN, "/broadcast").await;
        tell(&shop, ADMIN, "Good evening").await;
        press(&shop, ADMIN, "Start: 2").await;
        press(&shop, ADMIN, "Yes, send to 2").await;
        until_sent(&shop).await;
        assert_eq!(last(&shop, STRANGER), "Good evening");
        shop.finish().await;
    }

    async fn the_owner_sees_what_is_stuck_and_why(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        come_to_pay(&shop, STRANGER, "/start").await;
        let away = shop.sandbox.fault(Target::Api(Provider::Yookassa, "POST /payments".into()), Fault::Status(503), None);
        press(&shop, STRANGER, "Card").await;
        shop.wait(minutes(11)).await;
        shop.sandbox.set_language(ADMIN, "en");
        tell(&shop, ADMIN, "/admin").await;
        let told = last(&shop, ADMIN);
        assert!(told.contains("YooKassa 990.00 RUB: the provider has not answered yet, ord_"), "{told}");
        shop.sandbox.lift_fault(away);
        shop.wait(minutes(3)).await;
        shop.wait(minutes(3)).await;
        pay_newest(&shop, Provider::Yookassa).await;
        assert_eq!(shop.delivered_to(STRANGER), ["KEY-1"]);
        tell(&shop, ADMIN, "/admin").await;
        assert!(last(&shop, ADMIN).contains("YooKassa: 990.00 RUB · payments: 1"), "{}", last(&shop, ADMIN));
        shop.finish().await;
    }

    async fn a_device_gets_another_key_and_its_old_file_ends(t: TestStore) {
        let shop = VpnShop::with(t, &[("SEMEL_VPN_TRIAL_DAYS", "3")]).await;
        shop.sandbox.set_language(STRANGER, "en");
        tell(&shop, STRANGER, "/start").await;
        press(&shop, STRANGER, "My access").await;
        press(&shop, STRANGER, "Try for free").await;
        let files = |shop: &TestShop| shop.sandbox.chat(STRANGER).iter().filter(|sent| sent.document.is_some()).count();
        let mut before = shop.wg.peers();
        for more in 1..=2 {
            tell(&shop, STRANGER, "/keys").await;
            assert!(last(&shop, STRANGER).contains("Device 1: not connected yet"), "{}", last(&shop, STRANGER));
            press(&shop, STRANGER, "New key for device 1").await;
            assert_eq!(shop.wg.peers(), before, "it is asked first");
            press(&shop, STRANGER, "Yes, replace it").await;
            let after = shop.wg.peers();
            assert_eq!((after.len(), files(&shop)), (1, 1 + more));
            assert_ne!(after.keys().next(), before.keys().next(), "another key");
            before = after;
        }
        tell(&shop, STRANGER, "/keys").await;
        press(&shop, STRANGER, "New key for device 1").await;
        press(&shop, STRANGER, "Yes, replace it").await;
        assert!(last(&shop, STRANGER).starts_with("This device got new keys"), "{}", last(&shop, STRANGER));
        assert_eq!(shop.wg.peers(), before);
        shop.finish().await;
    }
}
