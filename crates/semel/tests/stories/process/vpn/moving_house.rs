//! A shop that moves to a new database with nothing but its `wg0.conf` and what `semel wg export` printed.

use std::collections::BTreeMap;
use std::fs;

use semel_kernel::store::Engine;

use super::fake::Interface;
use super::{in_file, wanted};
use crate::process::program::{Program, World, items, text, write_private};

/// Whose each peer is.
async fn owners(program: &Program) -> BTreeMap<String, String> {
    let peers = items(&program.door.get("/api/v1/peers?server=local&state=active&limit=200").await);
    peers.iter().map(|peer| (text(&peer["public_key"]), peer["telegram_id"].to_string())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_and_its_own_file_make_the_same_customers_on_a_new_database() {
    let mut world = World::on(Engine::Sqlite).await;
    let file = world.sells_vpn();
    let interface = Interface::of(&mut world);
    let program = world.start().await;
    program.grant(42, 2).await;
    program.grant(43, 1).await;
    program.vpn_settles(30).await;
    program.at_rest().await;
    let (keys, whose) = (wanted(&program).await, owners(&program).await);
    assert_eq!((keys.len(), whose.len(), &interface.peers()), (3, 3, &keys));
    // As a spreadsheet saves it.
    let exported = format!("\u{feff}{}", world.cli(&["wg", "export"]).await.good());
    program.terminate().await;
    let (map, copy) = (world.path("customers.csv"), world.path("copy.conf"));
    fs::write(&map, exported).expect("a map");
    write_private(&copy, &fs::read_to_string(&file).expect("the file is text"));
    let (map, copy) = (map.to_string_lossy().into_owned(), copy.to_string_lossy().into_owned());

    world.set("SEMEL_DATABASE_URL", format!("sqlite://{}", world.path("new.db").display()));
    let program = world.start().await;
    program.vpn_settles(30).await;
    assert_eq!(interface.peers(), keys, "nobody loses the connection meanwhile");
    // The copy has them between the fence lines of the old shop, whose database nobody has any more.
    let unnamed = world.cli(&["wg", "import", &copy]).await.good();
    for key in keys.keys() {
        assert!(
            !unnamed.contains(key.as_str()),
            "nothing becomes of a peer between our lines that no CSV names:\n{unnamed}"
        );
    }
    let looked = world.cli(&["wg", "import", &copy, "--adopt", &map]).await.good();
    assert_eq!(looked.matches("adopted   ").count(), 3, "{looked}");
    assert!(looked.trim_end().ends_with("nothing was changed; --yes does it"), "{looked}");
    world.cli(&["wg", "import", &copy, "--adopt", &map, "--yes"]).await.good();
    program.vpn_settles(30).await;
    assert_eq!((&wanted(&program).await, &interface.peers()), (&keys, &keys), "the same peers with the same addresses");
    assert_eq!(owners(&program).await, whose, "of the same customers");
    let again = world.cli(&["wg", "import", &copy, "--adopt", &map, "--yes"]).await.good();
    assert_eq!(again.matches("known     ").count(), 3, "{again}");
    // The file has moved them out of its fence lines, as what somebody else had written; nothing stands there twice.
    assert!(in_file(&file).is_empty());
    let text = fs::read_to_string(&file).expect("the file is text");
    for key in keys.keys() {
        assert_eq!(text.matches(key.as_str()).count(), 1, "{key} stands in the file once:\n{text}");
    }
    let verdict = world.cli(&["verify"]).await.good();
    assert!(verdict.contains("every promise that can be checked here holds"), "{verdict}");
    program.terminate().await;
    world.sandbox.stop().await;
}
