//! From an order to a file that connects.

use http::Method;
use serde_json::json;

use semel_kernel::each_store;
use semel_wireguard::PrivateKey;

use super::{NO_BOT, VpnShop, access_order, document, scan, server_key, setting};
use crate::app::{CUSTOMER, OrderHandle, ROOMS, TestShop, minutes, refusal, text};

/// The numbers of a server that speaks AmneziaWG.
const AMNEZIA: [(&str, &str); 9] = [
    ("SEMEL_VPN_AMNEZIA_JC", "4"),
    ("SEMEL_VPN_AMNEZIA_JMIN", "50"),
    ("SEMEL_VPN_AMNEZIA_JMAX", "1000"),
    ("SEMEL_VPN_AMNEZIA_S1", "15"),
    ("SEMEL_VPN_AMNEZIA_S2", "100"),
    ("SEMEL_VPN_AMNEZIA_H1", "1234567891"),
    ("SEMEL_VPN_AMNEZIA_H2", "1987654321"),
    ("SEMEL_VPN_AMNEZIA_H3", "2071234567"),
    ("SEMEL_VPN_AMNEZIA_H4", "1765432198"),
];

each_store! { ROOMS;
    async fn a_paid_order_is_a_peer_on_the_server_and_a_file_that_fits_it(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        let order = shop.buy(CUSTOMER, &month).await;
        assert_eq!(shop.status(&order).await, "delivered");
        assert_eq!(shop.at(CUSTOMER).await, ("active".into(), "2026-03-31T09:00:00.000Z".into()));
        let peer = shop.device(CUSTOMER, 1).await;
        assert_eq!((&peer["state"], &peer["addresses"]), (&json!("active"), &json!(["10.8.0.2"])));

        let messages = shop.sandbox.chat(CUSTOMER);
        let [first, second, third] = messages.as_slice() else { panic!("file, picture, how-to: {messages:?}") };
        let (name, file) = document(first).expect("the file comes first");
        assert_eq!(name, "vpn-16-1.conf");
        let private: PrivateKey = setting(&file, "PrivateKey").parse().expect("a private key");
        assert_eq!(private.public().to_string(), text(&peer["public_key"]));
        let preshared = setting(&file, "PresharedKey");
        assert_eq!(shop.wg.preshared(&text(&peer["public_key"])), preshared);
        let wanted = format!(
            "[Interface]\nPrivateKey = {}\nAddress = 10.8.0.2/32, fd73:656d:656c::1/128\nDNS = 1.1.1.1\n\n\
             [Peer]\nPublicKey = {}\nPresharedKey = {preshared}\nAllowedIPs = 0.0.0.0/0, ::/0\n\
             Endpoint = vpn.shop.test:51820\nPersistentKeepalive = 25\n",
            setting(&file, "PrivateKey"),
            server_key().public(),
        );
        assert_eq!(file, wanted);

        let picture = second.photo.as_ref().expect("then the picture");
        assert_eq!((picture.name.as_str(), scan(&picture.bytes)), ("vpn-16-1.png", file.clone()));
        assert!(third.text.starts_with("How to connect"), "then how to use both: {}", third.text);
        let help = third.buttons.iter().find(|button| button.text == "I need help").expect("a help button");
        assert_eq!(help.url.as_deref(), Some("https://t.me/shop_help"));

        // The same over the API.
        assert_eq!(shop.file(CUSTOMER).await, file);
        let drawn = shop.config(CUSTOMER, "?format=qr").await;
        assert_eq!((drawn.status, drawn.header("content-type"), scan(&drawn.body)), (200, "image/png", file.clone()));
        assert_eq!(shop.config(CUSTOMER, "?format=amneziawg").await.status, 409, "this server speaks WireGuard");
        assert_eq!(shop.config(CUSTOMER, "?device=2").await.status, 404);
        shop.finish().await;
    }

    async fn no_secret_stands_in_a_row_or_in_an_argument(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        let file = shop.file(CUSTOMER).await;
        let secrets = [setting(&file, "PrivateKey"), setting(&file, "PresharedKey")];
        let rows = [
            "select private_key from peers",
            "select preshared_key from peers",
            "select body from messages",
            "select payload from jobs",
            "select coalesce(detail, '') from history",
        ];
        for sql in rows {
            let texts = shop.store.texts(sql).await;
            assert!(!texts.is_empty(), "{sql}");
            assert!(texts.iter().all(|text| secrets.iter().all(|secret| !text.contains(secret.as_str()))), "{sql}");
        }
        for verb in ["show", "addconf", "set"] {
            let calls = shop.wg.calls(verb);
            assert!(calls.iter().all(|call| secrets.iter().all(|secret| !call.contains(secret.as_str()))), "{verb}");
        }
        shop.finish().await;
    }

    async fn devices_get_their_files_and_pictures_in_order_and_one_how_to(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let family = shop.access(30, 3).await;
        let order = shop.buy(CUSTOMER, &family).await;
        assert_eq!(shop.status(&order).await, "delivered");
        let messages = shop.sandbox.chat(CUSTOMER);
        assert_eq!(messages.len(), 7, "{messages:?}");
        let howto = messages.last().map(|message| message.text.as_str()).unwrap_or_default();
        assert!(howto.starts_with("How to connect") && !howto.contains("vpn-16-"), "one for all: {howto}");
        let mut keys = Vec::new();
        for (device, pair) in (1..=3).zip(messages.chunks(2)) {
            let name = format!("vpn-16-{device}");
            let named = |suffix: &str| format!("{name}.{suffix}");
            let [file, picture] = pair else { panic!("file and picture: {pair:?}") };
            assert!(file.document.as_ref().is_some_and(|f| f.name == named("conf")), "device {device}: {messages:?}");
            assert!(picture.photo.as_ref().is_some_and(|p| p.name == named("png")), "device {device}: {messages:?}");
            keys.push(text(&shop.device(CUSTOMER, device).await["public_key"]));
        }
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 3);
        assert_eq!(shop.wg.peers().len(), 3);
        shop.finish().await;
    }

    async fn three_of_a_month_are_three_months_of_one_subscription(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        let mut wanted = access_order(CUSTOMER, &month);
        wanted["items"][0]["quantity"] = json!(3);
        let (status, made) = shop.post("/api/v1/orders", wanted).await;
        assert_eq!(status, 201, "{made}");
        let order = OrderHandle::read(&made);
        shop.pay(&order);
        shop.receive_all().await;
        shop.run_jobs().await;
        assert_eq!(shop.status(&order).await, "delivered");
        assert_eq!(shop.until(CUSTOMER).await, "2026-05-30T09:00:00.000Z");
        assert_eq!((shop.subscriptions(CUSTOMER).await.len(), shop.files_to(CUSTOMER).len()), (1, 1));
        shop.finish().await;
    }

    async fn a_server_with_ipv6_gives_an_address_of_each_family(t: TestStore) {
        let shop = VpnShop::with(t, &[("SEMEL_VPN_NETWORK6", "fd00:8::/120")]).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        assert_eq!(setting(&shop.file(CUSTOMER).await, "Address"), "10.8.0.2/32, fd00:8::2/128");
        let key = shop.key(CUSTOMER).await;
        let networks: Vec<String> = shop.wg.peers()[&key].iter().cloned().collect();
        assert_eq!(networks, ["10.8.0.2/32", "fd00:8::2/128"]);
        shop.finish().await;
    }

    async fn a_server_of_amneziawg_gives_its_numbers_and_either_form(t: TestStore) {
        let shop = VpnShop::with(t, &AMNEZIA).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        let file = shop.files_to(CUSTOMER).concat();
        for (name, value) in [("Jc", "4"), ("Jmin", "50"), ("S2", "100"), ("H1", "1234567891"), ("H4", "1765432198")] {
            assert_eq!(setting(&file, name), value);
        }
        let picture = shop.sandbox.chat(CUSTOMER)[1].photo.clone().expect("a picture");
        assert_eq!(scan(&picture.bytes), file);
        assert_eq!(shop.file(CUSTOMER).await, file, "without a word for it the form is the server's");
        let plain = shop.config(CUSTOMER, "?format=wireguard").await;
        assert!(!String::from_utf8_lossy(&plain.body).contains("Jc = "), "{}", plain.line());
        shop.finish().await;
    }

    async fn where_there_is_only_a_file_a_peer_counts_as_there_when_the_file_has_it(t: TestStore) {
        let shop = VpnShop::with(t, &[("SEMEL_VPN_APPLY", "file")]).await;
        let month = shop.access(30, 1).await;
        let order = shop.buy(CUSTOMER, &month).await;
        assert_eq!(shop.status(&order).await, "delivered");
        assert_eq!(shop.in_file().len(), 1);
        assert!(shop.wg.calls("").is_empty(), "nobody asks for an interface");
        shop.finish().await;
    }

    async fn without_a_bot_access_is_handed_over_by_the_api(t: TestStore) {
        let shop = VpnShop::with(t, &[NO_BOT]).await;
        let month = shop.access(30, 1).await;
        let order = shop.buy(CUSTOMER, &month).await;
        assert_eq!(shop.status(&order).await, "delivered");
        assert!(shop.file(CUSTOMER).await.starts_with("[Interface]\nPrivateKey = "));
        shop.finish().await;
    }

    /// Names that owners' dashboards and queries know.
    async fn the_names_of_older_programs_go_on_working(t: TestStore) {
        let shop = VpnShop::with(t, &[NO_BOT]).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        let (key, ip) = (shop.key(CUSTOMER).await, shop.address(CUSTOMER).await);
        shop.wg.count(&key, 1_772_355_610, 1_000, 5_000);
        shop.wait(minutes(1)).await;
        let metrics = shop.program.api.call(Method::GET, "/metrics", None, None).await;
        let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
        let peer =
            format!("interface=\"wg0\",public_key=\"{key}\",allowed_ips=\"{ip}/32\",friendly_name=\"{CUSTOMER}-1\"");
        for (name, value) in [
            ("wireguard_received_bytes_total", "1000"),
            ("wireguard_sent_bytes_total", "5000"),
            ("wireguard_latest_handshake_seconds", "1772355610"),
        ] {
            let line = format!("{name}{{{peer}}} {value}");
            assert!(metrics.lines().any(|found| found == line), "{line} is missing in\n{metrics}");
        }
        let held = "select ip || ' ' || cast(user_id as text) || ' ' || public_key || ' ' || status from vpn_ip_pool
            where user_id is not null";
        assert_eq!(shop.store.texts(held).await, [format!("{ip} {CUSTOMER} {key} held")]);
        assert_eq!(shop.number("select count(*) from vpn_ip_pool where status = 'free'").await, 252);
        shop.finish().await;
    }

    async fn a_burst_of_sales_is_a_few_calls(t: TestStore) {
        let shop = VpnShop::with(t, &[NO_BOT]).await;
        let month = shop.access(30, 1).await;
        for customer in 101..=120 {
            let order = shop.order_access(customer, &month).await;
            shop.pay(&order);
        }
        shop.receive_all().await;
        shop.run_jobs().await;
        assert_eq!(shop.wg.peers().len(), 20);
        let calls = shop.wg.calls("addconf").len();
        assert!(calls <= 6, "{calls} calls");
        assert!(shop.wg.calls("set").is_empty(), "nobody else's session was touched");
        shop.finish().await;
    }

    async fn a_shop_without_a_vpn_sells_none(t: TestStore) {
        let shop = TestShop::start(t).await;
        let month = json!({
            "title": "VPN", "kind": "vpn", "price": { "amount": "300.00", "currency": "RUB" }, "duration_days": 30, "devices": 1,
        });
        assert_eq!(refusal(&shop.post("/api/v1/products", month).await), "409 conflict");
        let trial = json!({ "customer": { "telegram_id": CUSTOMER } });
        assert_eq!(refusal(&shop.post("/api/v1/subscriptions/trial", trial).await), "409 conflict");
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.sell(&key, "yookassa").await;
        assert_eq!(shop.status(&order).await, "delivered", "everything else goes on");
        shop.finish().await;
    }
}
