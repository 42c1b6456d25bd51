//! The key that sealed the customers' keys is lost for good: what its owner does, and what customers notice of it.

use std::fs;
use std::path::PathBuf;

use semel_kernel::store::{Engine, StoreUrl};

use super::fake::Interface;
use super::{in_file, key_of, wanted};
use crate::process::program::{Killed, Patience, Program, Said, World};

/// The key of settings that had another one before.
const OTHER: &str = "BgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgY=";
const REASON: [&str; 2] = ["--reason", "the disk is gone"];

/// A shop whose customers have files, and whose program stands still without the key.
struct Loss {
    world: World,
    file: PathBuf,
    interface: Interface,
    /// The subscription that stands still.
    frozen: String,
}

impl Loss {
    /// Two customers with access, and one who is on holiday; the key is gone.
    async fn at(engine: Engine) -> Loss {
        let mut world = World::on(engine).await;
        let file = world.sells_vpn();
        let interface = Interface::of(&mut world);
        let program = world.start().await;
        for customer in [42, 43] {
            program.grant(customer, 1).await;
        }
        let frozen = program.grant(44, 1).await;
        program.vpn_settles(30).await;
        for customer in [42, 43, 44] {
            files(&world, customer, 1).await;
        }
        world.cli(&["sub", "freeze", &frozen, "--reason", "on holiday"]).await.good();
        program.vpn_settles(30).await;
        program.at_rest().await;
        program.terminate().await;
        if let Some(path) = key_file(&world) {
            fs::remove_file(path).expect("the key goes");
        } else {
            world.set("SEMEL_VPN_KEY", OTHER);
        }
        Loss { world, file, interface, frozen }
    }

    async fn command(&self, more: &[&str]) -> Said {
        let arguments: Vec<&str> = ["wg", "new-key"].iter().chain(&REASON).chain(more).copied().collect();
        self.world.cli(&arguments).await
    }

    /// The program says what is wrong and which command is the way out, and changes nothing by itself.
    async fn is_told(&self) {
        let complaint = self.world.cli(&["serve"]).await.bad();
        assert!(complaint.contains("`semel wg new-key --reason REASON`"), "{complaint}");
        let ill = self.world.cli(&["doctor"]).await;
        assert!(ill.code == Some(1) && ill.out.contains("`semel wg new-key --reason REASON`"), "{}", ill.out);
        let would = self.command(&[]).await.good();
        assert!(
            would.contains("2 devices have access now") && would.trim_end().ends_with("Nothing was changed"),
            "{would}"
        );
        let made = key_file(&self.world).is_some_and(|path| path.exists());
        assert!(!made, "no key is made before the owner says so");
        self.world.cli(&["serve"]).await.bad();
    }

    async fn end(self, program: Program) {
        let log = self.world.cli(&["audit", "list"]).await.good();
        assert!(log.contains("vpn.new_keys") && log.contains("the disk is gone"), "{log}");
        program.at_rest().await;
        program.terminate().await;
        let again = self.command(&["--yes"]).await.bad();
        assert!(again.contains("is in its place and opens everything: nothing is lost"), "{again}");
        let program = self.world.start().await;
        program.vpn_settles(30).await;
        self.world.finish(program, Killed::BesideTelegram).await;
    }
}

/// Where the key lies that the program makes by itself.
fn key_file(world: &World) -> Option<PathBuf> {
    let StoreUrl::Sqlite(path) = world.database_url() else { return None };
    let mut name = path.into_os_string();
    name.push(".vpn-key");
    Some(PathBuf::from(name))
}

/// Waits until so many files are in a chat; answers them.
async fn files(world: &World, customer: i64, count: usize) -> Vec<String> {
    let patience = Patience::of(format!("{count} files came to {customer}"), 60);
    loop {
        let documents = world.sandbox.chat(customer).into_iter().filter_map(|message| message.document);
        let found: Vec<String> = documents.map(|file| String::from_utf8_lossy(&file.bytes).into_owned()).collect();
        if found.len() >= count {
            return found;
        }
        patience.wait().await;
    }
}

async fn each_gets_new_keys_and_a_new_file(engine: Engine) {
    let loss = Loss::at(engine).await;
    let before = in_file(&loss.file);
    assert_eq!(before.len(), 2);
    loss.is_told().await;
    let told = loss.command(&["--yes"]).await.good();
    for line in ["3 devices had keys that nobody can open", "  2 get new keys", "  1 have no access now"] {
        assert!(told.contains(line), "{line} is missing in\n{told}");
    }
    let program = loss.world.start().await;
    program.vpn_settles(30).await;
    let keys = wanted(&program).await;
    assert_eq!((&in_file(&loss.file), &loss.interface.peers()), (&keys, &keys));
    assert!(keys.keys().all(|key| !before.contains_key(key)), "no old key is on the server");
    let old: Vec<&String> = before.values().flatten().collect();
    assert!(keys.values().flatten().all(|address| !old.contains(&address)), "and no old address with somebody else");
    for customer in [42, 43] {
        let files = files(&loss.world, customer, 2).await;
        assert!(keys.contains_key(&key_of(&files[1]).to_string()), "the new file of {customer} opens its new peer");
    }
    loss.world.cli(&["sub", "unfreeze", &loss.frozen, "--reason", "back home"]).await.good();
    program.vpn_settles(30).await;
    let files = files(&loss.world, 44, 2).await;
    assert!(wanted(&program).await.contains_key(&key_of(&files[1]).to_string()), "who comes back gets a new file, too");
    loss.end(program).await;
}

async fn files_go_on_working_where_the_owner_wants_it(engine: Engine) {
    let loss = Loss::at(engine).await;
    let (before, bytes) = (in_file(&loss.file), fs::read(&loss.file).expect("the file is there"));
    loss.is_told().await;
    let told = loss.command(&["--keep-files", "--yes"]).await.good();
    assert!(told.contains("  2 go on with the file that they have") && !told.contains("get new keys"), "{told}");
    let program = loss.world.start().await;
    program.vpn_settles(30).await;
    assert_eq!((wanted(&program).await, loss.interface.peers()), (before.clone(), before));
    assert!(fs::read(&loss.file).expect("the file is there") == bytes, "not a byte of the file changed");
    let listed = program.door.get("/api/v1/subscriptions?customer=42").await;
    let id = listed.body["items"][0]["id"].as_str().unwrap_or_default().to_owned();
    let file = program.door.get(&format!("/api/v1/subscriptions/{id}/config")).await;
    assert!(file.text.contains("# PrivateKey = <yours>") && file.text.contains("\nPresharedKey = "), "{}", file.text);
    assert_eq!(files(&loss.world, 42, 1).await.len(), 1, "nobody is sent anything");
    loss.end(program).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_key_costs_each_customer_a_new_file_on_sqlite() {
    each_gets_new_keys_and_a_new_file(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_key_costs_each_customer_a_new_file_on_postgres() {
    each_gets_new_keys_and_a_new_file(Engine::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_key_costs_no_customer_the_access_on_sqlite() {
    files_go_on_working_where_the_owner_wants_it(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_key_costs_no_customer_the_access_on_postgres() {
    files_go_on_working_where_the_owner_wants_it(Engine::Postgres).await;
}

/// A key that is there, or a program that still has it, is nothing that was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_makes_a_new_key_by_mistake() {
    let mut world = World::on(Engine::Sqlite).await;
    world.sells_vpn();
    let program = world.start().await;
    let wish = ["wg", "new-key", "--reason", "curious", "--yes"];
    let complaint = world.cli(&wish).await.bad();
    assert!(complaint.contains("`semel serve` runs, so it has the key that sealed"), "{complaint}");
    program.vpn_settles(30).await;
    program.terminate().await;
    let complaint = world.cli(&wish).await.bad();
    assert!(complaint.contains("no customer's key is sealed in this database"), "{complaint}");
    let program = world.start().await;
    program.grant(42, 1).await;
    program.vpn_settles(30).await;
    let key = key_file(&world).expect("a file");
    let before = fs::read(&key).expect("a key");
    program.at_rest().await;
    program.terminate().await;
    let complaint = world.cli(&wish).await.bad();
    assert!(complaint.contains("nothing is lost"), "{complaint}");
    assert!(fs::read(&key).expect("a key") == before);
    let program = world.start().await;
    world.finish(program, Killed::BesideTelegram).await;
}
