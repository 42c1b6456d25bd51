//! The owner's words: around goods, longer than a message, and such that Telegram refuses them.

use std::time::Duration;

use serde_json::json;

use semel_kernel::{args, each_store};
use semel_sandbox::{Fault, Target};
use semel_shop::Error;

use crate::app::{CUSTOMER, ROOMS, TestShop, refusal, text};

/// No owner to be told anything: then the first message is the customer's.
const NO_OWNER: [(&str, &str); 1] = [("SEMEL_TELEGRAM_ADMIN_IDS", "")];

/// A customer pays too little, and is told that it went to the balance.
async fn short(shop: &TestShop, product: &str) {
    let order = shop.order(product, "crystalpay").await;
    shop.pay_amount(&order, "500.00");
    shop.receive_all().await;
    shop.run_jobs().await;
}

each_store! { ROOMS;
    async fn goods_come_in_the_owners_words(t: TestStore) {
        let shop = TestShop::start(t).await;
        let bare = json!({ "language": "ru", "html": "Держите: {order}" });
        let refused = shop.post("/api/v1/notices/goods", bare).await;
        assert_eq!(refusal(&refused), "422 invalid", "goods without the goods");
        let own = json!({ "language": "ru", "html": "<b>Держите!</b>\n{goods}\nЗаказ {order}" });
        assert_eq!(shop.post("/api/v1/notices/goods", own).await.0, 200);
        let file = json!({ "language": "ru", "html": "В файле, заказ {order}" });
        assert_eq!(shop.post("/api/v1/notices/goods_file", file).await.0, 200);

        let long = "A".repeat(4_096);
        let key = shop.product_with("Licence key", "990.00", &["KEY-<1>"]).await;
        let first = shop.sell(&key, "yookassa").await;
        shop.stock(&key, &[long.as_str()]).await;
        let second = shop.sell(&key, "yookassa").await;
        let messages = shop.sandbox.chat(CUSTOMER);
        let [short, file] = messages.as_slice() else { panic!("two messages: {messages:?}") };
        assert_eq!(short.text, format!("Держите!\nLicence key\nKEY-<1>\nЗаказ {}", first.id));
        assert_eq!(file.text, format!("В файле, заказ {}", second.id));
        let bytes = &file.document.as_ref().expect("a file").bytes;
        assert!(String::from_utf8_lossy(bytes).contains(&long), "every byte of it");
        shop.finish().await;
    }

    /// The answer to the first part is lost, so it comes twice, and the second one once, behind it.
    async fn what_is_too_long_for_a_message_comes_in_parts_and_in_order(t: TestStore) {
        let shop = TestShop::with(t, &NO_OWNER).await;
        let html = format!("<b>{{amount}} {{number}} {}</b>", "слово ".repeat(1_200).trim_end());
        let own = json!({ "language": "ru", "html": html });
        let (status, saved) = shop.post("/api/v1/notices/balance", own).await;
        assert_eq!(status, 200, "{saved}");
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        shop.sandbox.fault(Target::Telegram("sendMessage".into()), Fault::CutAfter, Some(1));
        short(&shop, &key).await;
        assert_eq!(shop.chat(CUSTOMER).len(), 1, "the second waits until the first has certainly arrived");
        shop.wait(Duration::from_secs(10)).await;

        let texts = shop.chat(CUSTOMER);
        let [first, again, second] = texts.as_slice() else { panic!("three messages: {texts:?}") };
        assert!(first == again && first.starts_with("500.00 RUB"), "{first}");
        assert!(texts.iter().all(|text| text.encode_utf16().count() <= 4096));
        let words = format!("{first} {second}").split_whitespace().filter(|word| *word == "слово").count();
        assert_eq!(words, 1_200, "no word is lost and none is cut");
        assert_eq!(shop.number("select cast(count(*) as bigint) from messages where state = 'sent'").await, 2);
        shop.finish().await;
    }

    /// Nobody who paid waits until the owner has mended a word.
    async fn goods_come_in_our_words_where_telegram_refuses_the_owners(t: TestStore) {
        let shop = TestShop::start(t).await;
        let broken = shop.shop().write("story.break", |tx, _| {
            let now = tx.now();
            let insert = "insert into notice_texts (kind, language, html, version, updated_at)
                values ('goods', 'ru', '<b>{goods} {order}', 1, $1)";
            Ok::<_, Error>(tx.execute(insert, args![now])?)
        });
        assert_eq!(broken.await.unwrap(), 1);
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        let order = shop.sell(&key, "yookassa").await;
        assert_eq!(shop.delivered_to(order.customer), ["KEY-1"]);
        assert_eq!(shop.status(&order).await, "delivered");
        let second = shop.sell(&key, "yookassa").await;
        assert_eq!(shop.status(&second).await, "delivered");
        let told = shop.alerts().iter().filter(|alert| alert.contains("refuses your words of the kind goods")).count();
        assert_eq!(told, 1, "once a day is enough: {:?}", shop.alerts());
        shop.finish().await;
    }

    /// Such words cannot be saved; here they are there all the same.
    async fn words_that_telegram_refuses_fail_and_the_owner_hears_of_it_once(t: TestStore) {
        let shop = TestShop::start(t).await;
        let broken = shop.shop().write("story.break", |tx, _| {
            let now = tx.now();
            let insert = "insert into notice_texts (kind, language, html, version, updated_at)
                values ('balance', 'ru', '<b>{amount} {number}', 1, $1)";
            Ok::<_, Error>(tx.execute(insert, args![now])?)
        });
        assert_eq!(broken.await.unwrap(), 1);
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        short(&shop, &key).await;
        short(&shop, &key).await;
        let fates = shop.store.texts("select state || ': ' || error from messages where kind = 'balance'").await;
        assert_eq!(fates.len(), 2);
        assert!(fates.iter().all(|fate| fate.starts_with("failed: Bad Request: can't parse entities")), "{fates:?}");
        assert!(shop.chat(CUSTOMER).is_empty(), "not without its markup either");
        let told = shop.alerts().iter().filter(|alert| alert.contains("messages of the kind balance")).count();
        assert_eq!(told, 1, "once a day is enough: {:?}", shop.alerts());

        let ours = json!({ "language": "ru", "html": null });
        assert_eq!(shop.post("/api/v1/notices/balance", ours).await.0, 200);
        let (_, listed) = shop.get("/api/v1/notices").await;
        let kinds: Vec<String> = listed["items"].as_array().unwrap().iter().map(|kind| text(&kind["kind"])).collect();
        assert!(kinds.iter().any(|kind| kind == "vpn_file"), "every kind is listed: {kinds:?}");
        shop.finish().await;
    }
}
