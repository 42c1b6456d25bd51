//! Messages when Telegram says "slower", when it says nothing, and when the customer is gone.

use std::time::Duration;

use semel_kernel::each_store;
use semel_sandbox::{ChatState, Fault, Target};
use serde_json::json;

use super::ORDERS;
use crate::app::{ADMIN, CUSTOMER, OrderHandle, ROOMS, TestShop, text};

fn sending() -> Target {
    Target::Telegram("sendMessage".to_owned())
}

/// No owner to be told anything: then the first message is the one with the goods.
const NO_OWNER: [(&str, &str); 1] = [("SEMEL_TELEGRAM_ADMIN_IDS", "")];

each_store! { ROOMS;
    /// The other rule, that three refused chats mean the whole bot, is told in `outcomes.rs`.
    async fn a_slow_down_silences_its_chat_only_and_loses_nothing(t: TestStore) {
        let shop = TestShop::with(t, &NO_OWNER).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2", "KEY-3"]).await;
        for customer in [101, 102, 103] {
            let order = shop.order_by(customer, &key, "yookassa").await;
            shop.pay(&order);
        }
        shop.receive_all().await;
        shop.sandbox.fault(sending(), Fault::TooMany { retry_after: 1 }, Some(1));
        shop.run_jobs().await;

        let calls = shop.sandbox.truth().gt_tg;
        assert!(!calls[0].accepted && calls[0].retry_after == 1, "the first one is refused: {:?}", calls[0]);
        let refused = calls[0].chat_id.unwrap();
        assert_eq!(calls[0].scope.as_deref(), Some("chat"));
        assert_eq!(calls.len(), 3, "one chat waits, and nobody else: {calls:?}");
        for customer in [101, 102, 103] {
            let wanted = usize::from(customer != refused);
            assert_eq!(shop.delivered_to(customer).len(), wanted, "customer {customer}");
        }

        shop.wait(Duration::from_secs(3)).await;
        for customer in [101, 102, 103] {
            assert_eq!(shop.delivered_to(customer).len(), 1, "customer {customer}");
        }
        let spent = "select count(*) from jobs where kind = 'message.send' and (state <> 'done' or attempts > 1)";
        assert_eq!(shop.number(spent).await, 0, "a wait that was asked for costs no attempt");
        assert_eq!(shop.number("select count(*) from messages where uncertain > 0").await, 0);
        shop.finish().await;
    }

    async fn goods_for_a_customer_who_blocked_the_bot_stay_readable_and_can_be_refunded(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        shop.sandbox.set_chat_state(CUSTOMER, ChatState::Blocked);
        let order = shop.sell(&key, "yookassa").await;

        let shown = shop.show(&order).await;
        assert_eq!(text(&shown["status"]), "paid", "nobody has the goods yet: {shown}");
        assert_eq!(shown["items"][0]["goods"], json!(["KEY-1"]), "the developer's own bot can hand them over");
        assert!(shop.chat(CUSTOMER).is_empty());
        let told = |alert: &&String| alert.contains(&order.id) && alert.contains("did not reach");
        assert_eq!(shop.alerts().iter().filter(told).count(), 1, "{:?}", shop.alerts());
        shop.wait(Duration::from_secs(3600)).await;
        let tries = shop.sandbox.truth().gt_tg.iter().filter(|call| call.chat_id == Some(CUSTOMER)).count();
        assert_eq!(tries, 1, "nobody knocks twice at a closed door");

        let (status, refunded) = shop.refund(&order, "balance", None).await;
        assert_eq!((status, text(&refunded["status"])), (200, "refunded".to_owned()), "{refunded}");
        assert_eq!(refunded["items"][0]["goods"], json!([]), "what was paid back is not handed over any more");
        assert_eq!(shop.balance(CUSTOMER).await, "990.00 RUB");
        let (_, product) = shop.get(&format!("/api/v1/products/{key}")).await;
        let shelf = json!({ "available": 1, "held": 0, "delivered": 0 });
        assert_eq!(product["stock"], shelf, "nobody saw it, so it can be sold");
        shop.finish().await;
    }

    async fn goods_whose_answer_was_lost_go_again_and_are_counted(t: TestStore) {
        let shop = TestShop::with(t, &NO_OWNER).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        shop.sandbox.fault(sending(), Fault::CutAfter, Some(1));
        let order = shop.sell(&key, "yookassa").await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"], "it arrived, and nobody told us");
        assert_eq!(shop.status(&order).await, "paid");

        shop.wait(Duration::from_secs(10)).await;
        assert_eq!(shop.status(&order).await, "delivered");
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1", "KEY-1"], "the same goods, at least once");
        let texts = shop.chat(CUSTOMER);
        assert!(texts[0] == texts[1] && texts[0].contains(&order.id), "a double shows that it is one: {texts:?}");
        let calls = shop.sandbox.truth().gt_tg;
        assert_eq!((calls.len(), &calls[0].msg_id), (2, &calls[1].msg_id));
        assert_eq!(shop.number("select uncertain from messages where kind = 'goods'").await, 1);
        shop.finish().await;
    }

    async fn an_alert_whose_answer_was_lost_is_unknown_and_never_doubled(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        // Every message of this sale arrives, and of none we are told.
        let lost = shop.sandbox.fault(sending(), Fault::CutAfter, None);
        let order = shop.sell(&key, "yookassa").await;
        shop.sandbox.lift_fault(lost);
        shop.wait(Duration::from_secs(60)).await;
        assert_eq!(shop.status(&order).await, "delivered");
        assert_eq!(shop.alerts().len(), 1, "worse twice than never: {:?}", shop.alerts());
        let unknown = "select count(*) from messages where kind = 'alert' and state = 'unknown'";
        assert_eq!((shop.sandbox.chats().contains(&ADMIN), shop.number(unknown).await), (true, 1));
        shop.finish().await;
    }

    async fn goods_longer_than_a_message_come_as_a_file(t: TestStore) {
        let shop = TestShop::start(t).await;
        let keys = ["A", "B", "C"].map(|letter| letter.repeat(2_000));
        let items: Vec<&str> = keys.iter().map(String::as_str).collect();
        let product = shop.product_with("Long licence", "990.00", &items).await;
        let wanted = json!({
            "customer": { "telegram_id": CUSTOMER },
            "items": [{ "product": product, "quantity": 3 }],
            "provider": "yookassa",
        });
        let (status, made) = shop.post(ORDERS, wanted).await;
        assert_eq!(status, 201, "{made}");
        let order = OrderHandle::read(&made);
        shop.pay(&order);
        shop.receive_all().await;
        shop.run_jobs().await;

        assert_eq!(shop.status(&order).await, "delivered");
        let messages = shop.sandbox.chat(CUSTOMER);
        assert_eq!(messages.len(), 1);
        let file = messages[0].document.as_ref().expect("a document");
        assert_eq!(file.name, format!("order-{}.txt", order.id));
        assert!(messages[0].text.contains(&order.id), "the caption names the order: {}", messages[0].text);
        let mut pieces = shop.delivered_to(CUSTOMER);
        pieces.sort();
        assert_eq!(pieces, items, "every byte of each");
        shop.finish().await;
    }
}
