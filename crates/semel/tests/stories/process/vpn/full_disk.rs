//! The disk of `wg0.conf` is full: who has access keeps it, who is new waits, and with space all is as it is wanted.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use semel_kernel::store::Engine;

use super::fake::Interface;
use super::{in_file, wanted};
use crate::process::database::{fill, namespace};
use crate::process::program::{Killed, OWN_CONF, Patience, Program, World, write_private};

/// Starts the program with the folder of its file as a disk of its own, on which the file lies.
async fn on_a_small_disk(world: &World, file: &Path) -> Program {
    let seed = world.path("seed.conf");
    write_private(&seed, OWN_CONF);
    let folder = file.parent().expect("a folder");
    let mut command = Command::new("unshare");
    command.args(namespace());
    command.args(["sh", "-c"]);
    command
        .arg("mount -t tmpfs -o size=128k,mode=700 tmpfs \"$1\" && cp -p \"$2\" \"$1/wg0.conf\" && exec \"$0\" serve");
    command.arg(env!("CARGO_BIN_EXE_semel")).arg(folder).arg(&seed);
    world.dress(&mut command, &[]);
    let mut program = world.adopt(command);
    program.ready().await;
    program
}

/// How often the owner was told of it.
fn told(world: &World) -> usize {
    let alerts = world.sandbox.chat(1);
    alerts.iter().filter(|message| message.text.contains("could not be brought to what is wanted")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_keeps_the_old_file_and_everybody_who_is_on_it() {
    let mut world = World::on(Engine::Sqlite).await;
    let file = world.sells_vpn();
    let interface = Interface::of(&mut world);
    let mut program = on_a_small_disk(&world, &file).await;
    program.grant(42, 1).await;
    program.vpn_settles(30).await;
    let before = wanted(&program).await;
    // The disk is the program's alone; it is reached through the program.
    let disk = PathBuf::from(format!("/proc/{}/root{}", program.process.pid(), file.display()));
    assert_eq!((before.len(), &in_file(&disk)), (1, &before));
    let ballast = disk.with_file_name("ballast");
    fill(&ballast);

    let gift = json!({ "customer": { "telegram_id": 43 }, "days": 30, "devices": 1, "reason": "a gift" });
    let given = program.door.post("/api/v1/subscriptions", &gift).await;
    assert_eq!(given.status, 201, "access is sold meanwhile: {}", given.text);
    let patience = Patience::of("the server is in trouble", 30);
    let mut trouble = String::new();
    while trouble.is_empty() {
        patience.wait().await;
        let server = program.door.get("/api/v1/servers/local").await;
        trouble = server.body["trouble"].as_str().unwrap_or_default().to_owned();
    }
    assert!(trouble.contains("No space left"), "{trouble}");
    assert_eq!(
        (&in_file(&disk), &interface.peers()),
        (&before, &before),
        "the old file is whole, and its customer is connected"
    );
    let patience = Patience::of("the owner is told", 30);
    while told(&world) == 0 {
        patience.wait().await;
    }

    std::fs::remove_file(&ballast).expect("the ballast is thrown off");
    let applied = world.cli(&["wg", "apply"]).await.good();
    assert!(applied.contains("file and interface are as they are wanted"), "{applied}");
    program.vpn_settles(30).await;
    let keys = wanted(&program).await;
    assert_eq!((keys.len(), &in_file(&disk), &interface.peers()), (2, &keys, &keys));
    assert_eq!(told(&world), 1, "however often it was tried");
    program.at_rest().await;
    assert!(program.process.ended().is_none(), "the program went on all the time");
    world.finish(program, Killed::BesideTelegram).await;
}
