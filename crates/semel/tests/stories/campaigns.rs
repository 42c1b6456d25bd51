//! Campaigns: to whom, when, and that the sums are right whatever happens on the way.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use semel_kernel::each_store;
use semel_kernel::store::{StoreError, Value as Cell};
use semel_sandbox::{ChatState, Fault};

use crate::app::{ADMIN, ROOMS, TestShop, refusal, send_message, sums, text};

/// The first of the customers of these stories.
const FIRST: i64 = 1_000;
/// Ten at a time and ten seconds between: a story sees what is in the middle.
const SLOWLY: &[(&str, &str)] = &[("BROADCAST_BATCH_SIZE", "10"), ("BROADCAST_BATCH_SLEEP", "10s")];

impl TestShop {
    /// So many customers, every third of whom speaks English.
    async fn people(&self, count: i64) {
        let filled = self.store.store.write("story.people", move |tx| {
            for n in 0..count {
                let language = if n % 3 == 2 { "en" } else { "ru" };
                let args =
                    [Cell::from(format!("cus_{n:032}")), Cell::from(FIRST + n), Cell::from(language), Cell::from(n)];
                tx.execute(
                    "insert into customers (id, telegram_id, language, created_at) values ($1, $2, $3, $4)",
                    &args,
                )?;
            }
            Ok::<_, StoreError>(())
        });
        filled.await.expect("customers are written");
    }

    /// A draft to everybody, in both languages. Answers its id.
    async fn campaign(&self) -> String {
        self.campaign_of(json!({
            "title": "Spring", "rule": {},
            "texts": { "ru": { "html": "<b>Весна</b>" }, "en": { "html": "<b>Spring</b>" } },
        }))
        .await
    }

    async fn campaign_of(&self, draft: Value) -> String {
        let (status, made) = self.post("/api/v1/campaigns", draft).await;
        assert_eq!((status, text(&made["state"])), (201, "draft".to_owned()), "{made}");
        text(&made["id"])
    }

    async fn act(&self, id: &str, what: &str) -> (u16, Value) {
        self.post(&format!("/api/v1/campaigns/{id}/{what}"), json!({})).await
    }

    /// Looks at it and sends the owner a test.
    async fn look_and_test(&self, id: &str) {
        assert_eq!(self.act(id, "preview").await.0, 200);
        assert_eq!(self.act(id, "test").await.0, 200);
        self.run_jobs().await;
        assert_eq!(self.campaign_view(id).await["tested"], true, "{:?}", self.alerts());
    }

    /// A campaign to everybody, looked at and tested.
    async fn tested(&self) -> String {
        let id = self.campaign().await;
        self.look_and_test(&id).await;
        id
    }

    /// The same, begun.
    async fn begun(&self) -> String {
        let id = self.tested().await;
        let begun = self.act(&id, "start").await;
        assert_eq!((begun.0, text(&begun.1["state"])), (200, "running".to_owned()), "{}", begun.1);
        id
    }

    async fn sums(&self, id: &str) -> String {
        sums(&self.campaign_view(id).await)
    }

    /// Lets time pass in steps until it runs no more. Answers how it stands then.
    async fn until_over(&self, id: &str) -> String {
        for _ in 0..200 {
            self.run_jobs().await;
            if self.campaign_view(id).await["state"] != "running" {
                return self.sums(id).await;
            }
            self.advance(Duration::from_secs(5)).await;
        }
        panic!("the campaign never ends: {}", self.sums(id).await);
    }

    /// Begins it, and Telegram refuses eight messages for what they say, until it stands still. Answers how it stands then.
    async fn stopped_for_its_words(&self, id: &str) -> String {
        let fault = self.sandbox.fault(send_message(), Fault::Status(400), Some(8));
        assert_eq!(self.act(id, "start").await.0, 200);
        // The owner's own messages are refused, too, while this lasts: the campaign's come first.
        for _ in 0..20 {
            if self.campaign_view(id).await["state"] == "paused" {
                break;
            }
            self.run_jobs().await;
            self.advance(Duration::from_secs(1)).await;
        }
        self.sandbox.lift_fault(fault);
        self.wait(Duration::from_secs(60)).await;
        self.sums(id).await
    }

    /// How many of the people have so many messages.
    fn with_messages(&self, people: i64, messages: usize) -> usize {
        (FIRST..FIRST + people).filter(|chat| self.sandbox.chat(*chat).len() == messages).count()
    }
}

each_store! { ROOMS;
    async fn a_campaign_adds_up_with_those_who_cannot_be_reached(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.people(12).await;
        shop.sandbox.set_chat_state(FIRST, ChatState::Blocked);
        shop.sandbox.set_chat_state(FIRST + 1, ChatState::Deactivated);
        shop.sandbox.set_chat_state(FIRST + 2, ChatState::NotFound);
        let id = shop.begun().await;
        assert_eq!(shop.until_over(&id).await, "finished: blocked 1, gone 2, sent 9");
        assert_eq!(shop.with_messages(12, 1), 9);
        assert_eq!(shop.number("select count(*) from customers where blocked_at is not null").await, 3);

        // Who cannot be reached is counted by the next one, and left out.
        let next = shop.campaign().await;
        let (_, seen) = shop.act(&next, "preview").await;
        assert_eq!(
            seen["audience"],
            json!({ "people": 12, "to_send": 9, "skipped": 3, "ru": 6, "en": 3 })
        );
        shop.finish().await;
    }

    async fn everybody_reads_their_own_language(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.people(3).await;
        let id = shop.begun().await;
        shop.until_over(&id).await;
        assert_eq!([shop.chat(FIRST), shop.chat(FIRST + 1), shop.chat(FIRST + 2)], [["Весна"], ["Весна"], ["Spring"]]);
        shop.finish().await;
    }

    async fn nothing_begins_unseen(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.people(2).await;
        let id = shop.campaign().await;
        let refused = shop.act(&id, "start").await;
        assert_eq!(refusal(&refused), "409 conflict");
        assert!(text(&refused.1["detail"]).contains("preview"), "{}", refused.1);
        assert_eq!(shop.act(&id, "preview").await.0, 200);
        let refused = shop.act(&id, "start").await;
        assert!(text(&refused.1["detail"]).contains("test"), "{}", refused.1);
        shop.look_and_test(&id).await;
        assert!(shop.chat(ADMIN).iter().any(|text| text == "Spring"), "the owner has it in both languages");

        // What is changed is unseen again.
        let changed = shop.patch(&format!("/api/v1/campaigns/{id}"), json!({ "title": "Summer" })).await;
        assert_eq!((changed.0, &changed.1["tested"]), (200, &json!(false)));
        assert_eq!(refusal(&shop.act(&id, "start").await), "409 conflict");
        assert_eq!(shop.with_messages(2, 0), 2);
        shop.finish().await;
    }

    async fn broken_words_are_refused_before_anybody_gets_them(t: TestStore) {
        let shop = TestShop::start(t).await;
        for (html, buttons) in [
            ("<b>Spring", json!([])),
            ("", json!([])),
            ("x", json!([[{ "text": "Open", "url": "example.org" }]])),
        ] {
            let draft = json!({ "title": "Spring", "rule": {}, "texts": { "ru": { "html": html, "buttons": buttons } } });
            assert_eq!(refusal(&shop.post("/api/v1/campaigns", draft).await), "422 invalid", "{html}");
        }
        let nobody = json!({ "title": "Spring", "texts": { "ru": { "html": "x" } } });
        assert_eq!(refusal(&shop.post("/api/v1/campaigns", nobody).await), "422 invalid", "no segment is not everybody");
        shop.finish().await;
    }

    async fn over_the_limit_the_number_is_told_and_nobody_gets_it(t: TestStore) {
        let shop = TestShop::with(t, &[("MAX_BROADCAST_USERS", "5")]).await;
        shop.people(6).await;
        let id = shop.tested().await;
        let refused = shop.act(&id, "start").await;
        assert_eq!(refusal(&refused), "409 conflict");
        let told = text(&refused.1["detail"]);
        assert!(told.contains("6 people") && told.contains("limit is 5"), "{told}");
        shop.run_jobs().await;
        assert_eq!(shop.with_messages(6, 0), 6, "never a part of them");
        shop.finish().await;
    }

    async fn many_people_are_named_twice_before_a_start(t: TestStore) {
        let shop = TestShop::with(t, &[("SEMEL_BROADCAST_CONFIRM_OVER", "3")]).await;
        shop.people(4).await;
        let id = shop.tested().await;
        let path = format!("/api/v1/campaigns/{id}/start");
        for body in [json!({}), json!({ "confirm": 5 })] {
            let refused = shop.post(&path, body).await;
            assert_eq!(refusal(&refused), "409 conflict");
            assert!(text(&refused.1["detail"]).contains("4 people"), "{}", refused.1);
        }
        assert_eq!(shop.post(&path, json!({ "confirm": 4 })).await.0, 200);
        assert_eq!(shop.until_over(&id).await, "finished: sent 4");
        shop.finish().await;
    }

    async fn a_paused_campaign_goes_on_where_it_stood(t: TestStore) {
        let shop = TestShop::with(t, SLOWLY).await;
        shop.people(25).await;
        let id = shop.begun().await;
        shop.run_jobs().await;
        assert_eq!(shop.sums(&id).await, "running: queued 15, sent 10");
        assert_eq!(shop.act(&id, "pause").await.0, 200);
        shop.wait(Duration::from_secs(3600)).await;
        assert_eq!(shop.sums(&id).await, "paused: queued 15, sent 10");
        assert_eq!(shop.act(&id, "resume").await.0, 200);
        assert_eq!(shop.until_over(&id).await, "finished: sent 25");
        assert_eq!(shop.with_messages(25, 1), 25);
        shop.finish().await;
    }

    async fn a_cancelled_campaign_reaches_nobody_more(t: TestStore) {
        let shop = TestShop::with(t, SLOWLY).await;
        shop.people(25).await;
        let id = shop.begun().await;
        shop.run_jobs().await;
        assert_eq!(shop.act(&id, "cancel").await.0, 200);
        shop.wait(Duration::from_secs(60)).await;
        assert_eq!(shop.sums(&id).await, "cancelled: cancelled 15, sent 10");
        assert_eq!(refusal(&shop.act(&id, "resume").await), "409 conflict");
        assert_eq!(shop.with_messages(25, 0), 15);
        shop.finish().await;
    }

    async fn a_program_that_dies_in_the_middle_loses_and_repeats_nobody(t: TestStore) {
        let mut shop = TestShop::with(t, SLOWLY).await;
        shop.people(25).await;
        let id = shop.begun().await;
        shop.run_jobs().await;
        die_while_sending(&shop, 3).await;
        shop.restart(0).await;
        assert_eq!(shop.until_over(&id).await, "finished: sent 22, unknown 3");
        assert_eq!((shop.with_messages(25, 1), shop.with_messages(25, 0)), (22, 3), "and nobody has it twice");
        shop.finish().await;
    }

    async fn what_may_go_twice_goes_again_after_a_death(t: TestStore) {
        let mut shop = TestShop::with(t, SLOWLY).await;
        shop.people(25).await;
        let id = shop
            .campaign_of(json!({ "title": "Spring", "class": "at_least_once", "rule": {}, "texts": { "ru": { "html": "x" } } }))
            .await;
        shop.look_and_test(&id).await;
        assert_eq!(shop.act(&id, "start").await.0, 200);
        shop.run_jobs().await;
        die_while_sending(&shop, 3).await;
        shop.restart(0).await;
        assert_eq!(shop.until_over(&id).await, "finished: sent 25");
        shop.finish().await;
    }

    async fn a_429_in_the_middle_loses_nobody(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.people(15).await;
        let id = shop.tested().await;
        shop.sandbox.fault(send_message(), Fault::TooMany { retry_after: 1 }, Some(4));
        assert_eq!(shop.act(&id, "start").await.0, 200);
        assert_eq!(shop.until_over(&id).await, "finished: sent 15");
        assert_eq!(shop.with_messages(15, 1), 15);
        shop.finish().await;
    }

    async fn a_token_that_is_revoked_for_an_hour_fails_nobody(t: TestStore) {
        let shop = TestShop::start(t).await;
        // So few that all their tries may come within a second: time moves by hand here, and no pace holds them back.
        shop.people(2).await;
        let id = shop.campaign().await;
        shop.look_and_test(&id).await;
        let revoked = shop.sandbox.fault(send_message(), Fault::Status(401), None);
        assert_eq!(shop.act(&id, "start").await.0, 200);
        shop.run_jobs().await;
        for _ in 0..6 {
            shop.wait(Duration::from_secs(600)).await;
        }
        assert_eq!(shop.sums(&id).await, "running: queued 2", "everybody waits");
        shop.sandbox.lift_fault(revoked);
        shop.wait(Duration::from_secs(660)).await;
        shop.until_over(&id).await;
        assert_eq!(shop.sums(&id).await, "finished: sent 2");
        assert_eq!(shop.with_messages(2, 1), 2);
        let told = shop.alerts().iter().filter(|alert| alert.contains("does not know the bot's token")).count();
        assert_eq!(told, 1, "{:?}", shop.alerts());
        shop.finish().await;
    }

    async fn refused_words_stop_the_campaign_and_fail_nobody(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.people(8).await;
        let id = shop.tested().await;
        assert_eq!(shop.stopped_for_its_words(&id).await, "paused: queued 8", "nobody counts as failed");
        assert!(text(&shop.campaign_view(&id).await["reason"]).starts_with("Telegram refuses what it says"));
        let mended = json!({ "texts": { "ru": { "html": "Весна" } } });
        assert_eq!(shop.patch(&format!("/api/v1/campaigns/{id}"), mended).await.0, 200);
        assert_eq!(refusal(&shop.act(&id, "resume").await), "409 conflict", "it has to be seen again");
        shop.look_and_test(&id).await;
        assert_eq!(shop.act(&id, "resume").await.0, 200);
        assert_eq!(shop.until_over(&id).await, "finished: sent 8");
        shop.finish().await;
    }

    async fn what_goes_on_as_it_is_stands_still_no_second_time(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.people(8).await;
        let id = shop.tested().await;
        assert_eq!(shop.stopped_for_its_words(&id).await, "paused: queued 8");
        // It was those three and not the words: the owner goes on, and they come first.
        shop.sandbox.fault(send_message(), Fault::Status(400), Some(3));
        assert_eq!(shop.act(&id, "resume").await.0, 200);
        assert_eq!(shop.until_over(&id).await, "finished: failed 3, sent 5");
        shop.finish().await;
    }

    async fn a_list_in_the_place_of_an_object_is_refused(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.people(2).await;
        let texts = json!({ "ru": { "html": "x" } });
        for (path, body) in [
            ("/api/v1/segments", json!({ "name": "all", "rule": [] })),
            ("/api/v1/segments", json!(["all", {}])),
            ("/api/v1/campaigns", json!({ "title": "Spring", "rule": [], "texts": texts })),
            ("/api/v1/campaigns", json!({ "title": "Spring", "rule": {}, "texts": { "ru": ["x"] } })),
            ("/api/v1/notices/balance", json!(["ru", null])),
        ] {
            let refused = shop.post(path, body.clone()).await;
            assert_eq!(refused.0, 422, "{path} {body}: {}", refused.1);
        }
        let (status, saved) = shop.post("/api/v1/segments", json!({ "name": "all", "rule": {} })).await;
        assert_eq!((status, &saved["audience"]["people"]), (201, &json!(2)), "an object without members is everybody");
        shop.finish().await;
    }

    async fn a_lost_answer_is_unknown_and_never_repeated(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.people(6).await;
        let id = shop.tested().await;
        shop.sandbox.fault(send_message(), Fault::CutAfter, Some(1));
        assert_eq!(shop.act(&id, "start").await.0, 200);
        assert_eq!(shop.until_over(&id).await, "finished: sent 5, unknown 1");
        assert_eq!(shop.with_messages(6, 1), 6, "it had arrived");
        let metrics = shop.program.api.call(Method::GET, "/metrics", None, None).await;
        let metrics = String::from_utf8(metrics.body.to_vec()).expect("text");
        let counted = "semel_messages_unknown{name=\"campaign\",state=\"unknown\"} 1";
        assert!(metrics.contains(counted), "{metrics}");
        shop.finish().await;
    }

    async fn it_goes_again_to_those_for_whom_it_failed_and_to_nobody_else(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.people(6).await;
        shop.sandbox.set_chat_state(FIRST, ChatState::Blocked);
        let id = shop.tested().await;
        let early = shop.act(&id, "resend-failed").await;
        assert_eq!(refusal(&early), "409 conflict", "it has not been sent yet");
        let way = format!("`semel broadcast start {id}`");
        assert!(early.1["detail"].as_str().is_some_and(|why| why.contains(&way)), "{}", early.1);
        // Refused for other reasons: two, so that it is not the words.
        shop.sandbox.fault(send_message(), Fault::Status(400), Some(2));
        assert_eq!(shop.act(&id, "start").await.0, 200);
        let before = shop.until_over(&id).await;
        assert!(before.starts_with("finished: ") && before.contains("failed 2"), "{before}");
        assert_eq!(shop.act(&id, "resend-failed").await.0, 200);
        let after = shop.until_over(&id).await;
        assert!(after.starts_with("finished: ") && !after.contains("failed"), "{after}");
        assert_eq!(shop.with_messages(6, 2), 0, "who had it has it once");
        assert_eq!(refusal(&shop.act(&id, "resend-failed").await), "409 conflict", "it failed for nobody any more");
        shop.finish().await;
    }

    async fn a_scheduled_campaign_begins_at_its_time_with_the_people_of_that_moment(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.people(3).await;
        let id = shop.tested().await;
        let at = shop.store.clock.now() + Duration::from_secs(3600);
        let path = format!("/api/v1/campaigns/{id}/schedule");
        let scheduled = shop.post(&path, json!({ "starts_at": at.to_string() })).await;
        assert_eq!((scheduled.0, text(&scheduled.1["state"])), (200, "scheduled".to_owned()), "{}", scheduled.1);
        shop.wait(Duration::from_secs(3500)).await;
        assert_eq!(shop.with_messages(3, 0), 3);
        shop.wait(Duration::from_secs(200)).await;
        assert_eq!(shop.until_over(&id).await, "finished: sent 3");
        shop.finish().await;
    }

    async fn a_segment_is_who_fits_and_who_wants_no_campaigns_is_left_out(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.people(6).await;
        let tagged = shop.post("/api/v1/tags/vip", json!({ "add": [FIRST, FIRST + 1, FIRST + 2, 999] })).await;
        assert_eq!((tagged.0, &tagged.1["customers"]), (200, &json!(3)));
        let off = json!({ "customer": FIRST, "off": true });
        assert_eq!(shop.post("/api/v1/notices/campaign/switch", off).await.0, 200);
        let segment = shop.post("/api/v1/segments", json!({ "name": "vips", "rule": { "tag": "vip", "language": "ru" } })).await;
        assert_eq!(segment.0, 201, "{}", segment.1);
        assert_eq!(segment.1["audience"], json!({ "people": 2, "to_send": 1, "skipped": 1, "ru": 1, "en": 0 }));
        let id = shop
            .campaign_of(json!({ "title": "Spring", "segment": "vips", "texts": { "ru": { "html": "x" } } }))
            .await;
        shop.look_and_test(&id).await;
        assert_eq!(shop.act(&id, "start").await.0, 200);
        assert_eq!(shop.until_over(&id).await, "finished: sent 1, skipped 1");
        shop.finish().await;
    }

    async fn a_picture_is_uploaded_once(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.people(5).await;
        let file = json!({ "kind": "document", "name": "price.txt", "mime": "text/plain", "base64": "aGk=" });
        let id = shop
            .campaign_of(json!({ "title": "Prices", "rule": {}, "texts": { "ru": { "html": "x" } }, "media": file }))
            .await;
        shop.look_and_test(&id).await;
        assert_eq!(shop.campaign_view(&id).await["media"]["uploaded"], true, "with the test");
        assert_eq!(shop.act(&id, "start").await.0, 200);
        shop.until_over(&id).await;
        let files: Vec<_> = (FIRST..FIRST + 5).map(|chat| shop.sandbox.chat(chat)[0].document.clone().unwrap()).collect();
        assert!(files.iter().all(|file| file.file_id == files[0].file_id && &file.bytes[..] == b"hi"));
        shop.finish().await;
    }

    async fn the_owners_words_are_checked_and_count_at_once(t: TestStore) {
        let shop = TestShop::start(t).await;
        let wrong = json!({ "language": "ru", "html": "<b>{amount}</b>" });
        assert_eq!(refusal(&shop.post("/api/v1/notices/balance", wrong).await), "422 invalid", "the number is missing");
        let own = json!({ "language": "ru", "html": "Плюс {amount}, номер {number}" });
        assert_eq!(shop.post("/api/v1/notices/balance", own).await.0, 200);
        let off = json!({ "customer": 42, "off": true });
        assert_eq!(refusal(&shop.post("/api/v1/notices/balance/switch", off).await), "409 conflict", "money is told");

        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.order(&key, "crystalpay").await;
        shop.pay_amount(&order, "500.00");
        shop.receive_all().await;
        shop.run_jobs().await;
        assert!(shop.chat(order.customer).iter().any(|text| text.starts_with("Плюс 500.00 RUB, номер ")));
        shop.finish().await;
    }
}

/// The program ends between the row that says "being sent" and the call: so many rows stay behind.
async fn die_while_sending(shop: &TestShop, rows: i64) {
    let left = shop.store.store.write("story.die", move |tx| {
        let sql = "update recipients set state = 'sending', fence = (select c.fence from campaigns c where c.id = campaign)
            where state = 'queued' and n in (select r.n from recipients r where r.state = 'queued' order by r.n limit $1)";
        tx.execute(sql, &[Cell::from(rows)])
    });
    let left: Result<u64, StoreError> = left.await;
    assert_eq!(left.expect("rows can be changed"), rows.unsigned_abs());
}
