//! `semel audit verify`: the chain of the owner's actions, recomputed by the command.

use semel_kernel::store::{Engine, StoreError};

use super::program::{Killed, Patience, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_somebody_wrote_to_is_told_from_a_whole_one() {
    let world = World::on(Engine::Sqlite).await;
    let program = world.start().await;
    world.cli(&["product", "create", "Keys", "10.00"]).await.good();
    world.cli(&["token", "create", "reports", "--scope", "read"]).await.good();
    let whole = world.cli(&["audit", "verify"]).await.good();
    assert!(whole.starts_with("the log is whole: 2 entries\n"), "{whole}");
    let head = whole.lines().find_map(|line| line.strip_prefix("head ")).expect("the head").trim().to_owned();
    let listed = world.cli(&["audit", "list"]).await.good();
    assert!(listed.contains("token.create") && listed.contains("operator") && listed.contains("tok_"), "{listed}");
    world.cli(&["audit", "stops"]).await.good();

    world.cli(&["product", "create", "More keys", "20.00"]).await.good();
    world.cli(&["audit", "verify", "--anchor", &head]).await.good();
    let stranger = world.cli(&["audit", "verify", "--anchor", &head.replace(&head[..8], "00000000")]).await;
    assert_eq!(stranger.code, Some(3), "{}", stranger.err);
    assert!(stranger.err.contains("the anchor does not lie on this chain"), "{}", stranger.err);
    program.terminate().await;

    let store = world.store();
    let tampered: Result<(), StoreError> = store
        .write("story.tamper", |tx| {
            tx.execute("drop trigger audit_entries_no_update", &[])?;
            tx.execute("update audit_entries set actor = 'nobody' where seq = 2", &[]).map(|_| ())
        })
        .await;
    tampered.expect("who owns the file can write to it");
    drop(store);
    let patience = Patience::of("the file is free again", 60);
    let told = loop {
        let told = world.cli(&["audit", "verify"]).await;
        if told.code != Some(1) {
            break told;
        }
        patience.wait().await;
    };
    assert_eq!(told.code, Some(3), "{}", told.err);
    assert!(told.err.contains("entry 2: it was changed"), "{}", told.err);

    let program = world.start().await;
    world.finish(program, Killed::BesideTelegram).await;
}
