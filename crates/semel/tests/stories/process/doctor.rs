//! What `doctor` and the start of `serve` say about a PostgreSQL that could lose acknowledged money, or that copies cannot
//! hear each other at.

use semel_kernel::store::StoreUrl;
use semel_kernel::testing::PgServer;

use super::program::{Killed, Said, World};

fn bad(said: &Said) -> Vec<&str> {
    said.out.lines().filter(|line| line.starts_with("BAD ")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgets_what_it_acknowledged_is_complained_about() {
    // The tests' own clusters are made to be thrown away: nothing has to reach the disk.
    let server = PgServer::private();
    server.create("shop", "template0").await;
    let world = World::at(server.url("shop"), &[]).await;
    let ill = world.cli(&["doctor"]).await;
    assert_eq!(ill.code, Some(1), "{}\n{}", ill.out, ill.err);
    let told = bad(&ill);
    assert_eq!(told.len(), 3, "{told:?}");
    for (line, setting) in told.iter().zip(["fsync = off", "full_page_writes = off", "synchronous_commit = off"]) {
        assert!(line.contains(&format!("PostgreSQL runs with {setting}")), "{line}");
    }

    // It serves all the same, and nobody can overlook why it should not.
    let program = world.start().await;
    let log = program.process.log();
    for setting in ["fsync = off", "full_page_writes = off", "synchronous_commit = off for our sessions"] {
        let told = log.lines().any(|line| line.contains("ERROR") && line.contains(setting));
        assert!(told, "{setting} is an error in the log:\n{log}");
    }
    program.terminate().await;

    // The cure that the sentence names.
    let cure = "ALTER DATABASE \"shop\" SET synchronous_commit = on";
    assert!(told[2].contains(cure), "{}", told[2]);
    server.run("postgres", cure).await;
    let better = world.cli(&["doctor"]).await;
    assert!(bad(&better).len() == 2 && !better.out.contains("synchronous_commit"), "{}", better.out);
    let program = world.start().await;
    assert!(!program.process.log().contains("synchronous_commit"), "{}", program.process.log());
    world.finish(program, Killed::BesideTelegram).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_tries_the_address_that_copies_listen_at() {
    let server = PgServer::private();
    server.create("shop", "template0").await;
    let world = World::at(server.url("shop"), &[("SEMEL_POOL_MAX", "1000")]).await;
    let address = |database: &str| match server.url(database) {
        StoreUrl::Postgres(url) => url,
        StoreUrl::Sqlite(path) => panic!("{} is no server", path.display()),
    };
    let good = world.cli_with(&["doctor"], &[("SEMEL_DATABASE_LISTEN_URL", address("shop").as_str())]).await;
    assert!(good.out.contains("ok    copies hear each other at database_listen_url"), "{}", good.out);
    let room = good.out.lines().find(|line| line.contains("has room for")).unwrap_or_else(|| panic!("{}", good.out));
    assert!(room.starts_with("note  ") && room.contains("pool_max is 1000"), "{room}");

    let other = world.cli_with(&["doctor"], &[("SEMEL_DATABASE_LISTEN_URL", address("postgres").as_str())]).await;
    let told = bad(&other);
    assert!(told.iter().any(|line| line.ends_with("both must lead to one database")), "{told:?}");
    let gone = world.cli_with(&["doctor"], &[("SEMEL_DATABASE_LISTEN_URL", "postgres://semel:zebra@127.0.0.1:9/shop")]);
    let gone = gone.await;
    assert!(bad(&gone).iter().any(|line| line.starts_with("BAD   database_listen_url: ")), "{}", gone.out);
    assert!(!format!("{}{}", gone.out, gone.err).contains("zebra"), "a password is printed:\n{}", gone.out);
    world.sandbox.stop().await;
}
