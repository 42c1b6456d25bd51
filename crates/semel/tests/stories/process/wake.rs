//! Two copies of the program on one PostgreSQL, each of which hears at once when the other has work.

use semel_kernel::store::StoreUrl;
use semel_kernel::testing::PgServer;

use super::program::{Killed, Patience, Program, World};

/// The sessions that copies have for hearing, once there are two and none of them is among `gone`.
async fn two_listeners(server: &PgServer, gone: &[i32]) -> Vec<i32> {
    let ask = "select pid from pg_stat_activity where application_name = 'semel-listen' order by pid";
    let client = server.client("postgres").await;
    let patience = Patience::of("two copies hear each other", 60);
    loop {
        let rows = client.query(ask, &[]).await.expect("the server answers");
        let now: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
        if now.len() == 2 && !now.iter().any(|pid| gone.contains(pid)) {
            return now;
        }
        patience.wait().await;
    }
}

/// Waits until a copy has said so many times that it hears others.
async fn heard(copy: &Program, times: usize) {
    let patience = Patience::of(format!("a copy began {times} times to hear others"), 60);
    while copy.process.log().matches("this copy hears when others have work").count() < times {
        patience.wait().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_copies_hear_each_other_through_the_death_of_their_connections() {
    let server = PgServer::private();
    server.create("shop", "template0").await;
    let StoreUrl::Postgres(url) = server.url("shop") else { panic!("a PostgreSQL has an address") };
    let world = World::at(server.url("shop"), &[("SEMEL_DATABASE_LISTEN_URL", url.as_str())]).await;
    let mut one = world.start().await;
    let mut two = world.launch(&[("SEMEL_LISTEN", "127.0.0.1:0")]);
    let first = two_listeners(&server, &[]).await;
    heard(&one, 1).await;
    heard(&two, 1).await;

    let before = one.sell_one(42).await;
    world.acknowledged(world.pay(&before)).await;
    one.delivered(&before).await;

    let kill = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'semel-listen'";
    server.run("postgres", kill).await;
    two_listeners(&server, &first).await;
    let after = one.sell_one(43).await;
    world.acknowledged(world.pay(&after)).await;
    one.delivered(&after).await;

    one.at_rest().await;
    assert_eq!((world.keys(42).len(), world.keys(43).len()), (1, 1), "delivered once each, whichever copy did it");
    assert!(two.process.ended().is_none(), "both copies live");
    for copy in [&one, &two] {
        heard(copy, 2).await;
        let log = copy.process.log();
        assert!(!log.contains(&url), "an address may hold a password:\n{log}");
    }
    two.terminate().await;
    world.finish(one, Killed::BesideTelegram).await;
}
