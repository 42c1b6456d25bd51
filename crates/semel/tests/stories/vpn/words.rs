//! The owner's words for a device, and the order in which everything comes.

use serde_json::json;

use semel_kernel::each_store;

use super::{VpnShop, document};
use crate::app::{CUSTOMER, ROOMS};

each_store! { ROOMS;
    async fn words_too_long_for_a_caption_follow_their_file(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let long = format!("Device {{device}}, {{tunnel}}, until {{until}}\n{}", "word ".repeat(300).trim_end());
        for (kind, html) in [("vpn_file", long.as_str()), ("vpn_qr", "Scan me"), ("vpn_howto", "Take {app}. {own_key}")] {
            let own = json!({ "language": "en", "html": html });
            let (status, saved) = shop.post(&format!("/api/v1/notices/{kind}"), own).await;
            assert_eq!(status, 200, "{kind}: {saved}");
        }
        let month = shop.access(30, 1).await;
        let order = shop.buy(CUSTOMER, &month).await;
        assert_eq!(shop.status(&order).await, "delivered");
        let messages = shop.sandbox.chat(CUSTOMER);
        let [file, words, picture, howto] = messages.as_slice() else { panic!("four messages: {messages:?}") };
        assert!(document(file).is_some() && file.text.starts_with("Device 1, "), "{}", file.text);
        assert!(file.text.encode_utf16().count() <= 1024);
        let count = |text: &str| text.split_whitespace().filter(|word| *word == "word").count();
        assert_eq!(count(&file.text) + count(&words.text), 300, "no word is lost");
        assert!(picture.photo.is_some() && picture.text == "Scan me", "the picture comes after the words");
        assert!(howto.text.starts_with("Take WireGuard."), "{}", howto.text);
        assert!(howto.buttons.iter().any(|button| button.text == "I need help"));
        shop.finish().await;
    }

    async fn notices_of_one_access_come_in_the_order_of_what_happened(t: TestStore) {
        let shop = VpnShop::start(t).await;
        shop.grant(CUSTOMER, 30, 1).await;
        for (deed, body) in [("freeze", json!({})), ("unfreeze", json!({})), ("extend", json!({ "days": 1 }))] {
            let (status, answer) = shop.by_owner(CUSTOMER, deed, body).await;
            assert_eq!(status, 200, "{deed}: {answer}");
        }
        let ordered = "select cast(count(*) as bigint) from messages where class = 'ordered' and state = 'sent' and place > 0";
        assert_eq!(shop.number(ordered).await, 4, "{:?}", shop.chat(CUSTOMER));
        let told = shop.chat(CUSTOMER);
        let place = |words: &str| told.iter().position(|text| text.contains(words)).unwrap_or_else(|| panic!("{words}: {told:?}"));
        assert!(place("You have VPN access until") < place("is paused"));
        assert!(place("is paused") < place("is open again"));
        assert!(place("is open again") < place("was extended until"));
        shop.finish().await;
    }
}
