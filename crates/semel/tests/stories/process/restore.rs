//! Backups and what becomes of them: made while the program sells, told apart when they are damaged, and restored into a
//! shop that does nothing twice.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use semel_kernel::store::{Engine, StoreUrl};
use semel_kernel::testing::PgServer;

use super::program::{Patience, Program, World, an_order, text};

/// An empty place for a restored database, as an address.
async fn empty_place(world: &World, engine: Engine) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    match engine {
        Engine::Sqlite => format!("sqlite://{}", world.path("restored.db").display()),
        Engine::Postgres => {
            let server = PgServer::shared();
            let name = format!("restored_{}", COUNT.fetch_add(1, Ordering::SeqCst));
            server.create(&name, "template0").await;
            match server.url(&name) {
                StoreUrl::Postgres(url) => url,
                StoreUrl::Sqlite(path) => panic!("a server has an address, not {}", path.display()),
            }
        }
    }
}

/// The names in a folder that hold `word`.
fn named(folder: &Path, word: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder can be read");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains(word)).collect()
}

/// A path of the world, as an argument.
fn arg(world: &World, name: &str) -> String {
    world.path(name).display().to_string()
}

async fn safe_mode(program: &Program) -> Value {
    program.door.get("/api/v1/safe").await.body
}

/// Waits until the lists of the providers that have one were read.
async fn lists_are_read(program: &Program) {
    let patience = Patience::of("YooKassa and Heleket are reconciled", 60);
    loop {
        let view = safe_mode(program).await;
        let rails = view["rails"].as_array().cloned().unwrap_or_default();
        let done = |name: &str| rails.iter().any(|rail| rail["provider"] == name && rail["reconciled"] == true);
        if done("yookassa") && done("heleket") {
            return;
        }
        patience.wait().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_backup_does_nothing_twice_on_sqlite() {
    an_older_backup_does_nothing_twice(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_backup_does_nothing_twice_on_postgres() {
    an_older_backup_does_nothing_twice(Engine::Postgres).await;
}

async fn an_older_backup_does_nothing_twice(engine: Engine) {
    let world = World::on(engine).await;
    let mut program = world.start().await;
    let goods: Vec<String> = (1..=4).map(|n| format!("KEY-{n}")).collect();
    let product = program.product(&goods).await;
    let first = program.order(&product, 42).await;
    let hook = world.pay(&first);
    world.acknowledged(hook).await;
    program.delivered(&first).await;
    let waiting = program.order(&product, 43).await;

    let (key, file) = (arg(&world, "backup.key"), arg(&world, "shop.backup"));
    world.cli(&["backup", "--new-key", &key]).await.good();
    let made = world.cli(&["backup", &file, "--key-file", &key]).await.good();
    assert!(made.contains("holds the backup"), "{made}");
    let again = world.cli(&["backup", &file, "--key-file", &key]).await.bad();
    assert!(again.contains("is there already; --force writes over it"), "{again}");
    world.cli_with(&["backup", &file, "--force"], &[("SEMEL_BACKUP_KEY_FILE", key.as_str())]).await.good();
    let sealed = fs::read(world.path("shop.backup")).expect("the backup can be read");
    assert!(sealed.starts_with(b"SEMELBK1"), "it says what it is");
    assert!(!sealed.windows(5).any(|window| window == b"KEY-1"), "goods stand in it in the clear");
    assert_eq!(
        named(&world.path(""), ".copy-").len() + named(&world.path(""), ".part-").len(),
        0,
        "nothing is left beside"
    );

    // After the backup: one who was waiting pays, and one of whom the backup knows nothing buys.
    let lost = program.order(&product, 44).await;
    for order in [&waiting, &lost] {
        let hook = world.pay(order);
        world.acknowledged(hook).await;
        program.delivered(order).await;
    }
    assert_eq!((world.keys(43), world.keys(44)), (vec!["KEY-2".to_owned()], vec!["KEY-3".to_owned()]));
    program.process.kill_9();
    drop(program);

    let place = empty_place(&world, engine).await;
    let to = [("SEMEL_DATABASE_URL", place.as_str())];
    let restored = world.cli(&["restore", &file, "--key-file", &key, "--to", &place]).await.good();
    assert!(restored.contains("SAFE MODE is on"), "{restored}");
    let again = world.cli(&["restore", &file, "--key-file", &key, "--to", &place]).await.bad();
    assert!(again.contains("is there: a backup is restored") || again.contains("holds a shop already"), "{again}");

    let mut program = world.start_with(&to).await;
    let ready = program.door.get("/readyz").await;
    assert_eq!((ready.status, &ready.body["status"]), (200, &json!("safe mode")), "{}", ready.text);
    let refused = program.door.post("/api/v1/orders", &an_order(&product, 45)).await;
    assert_eq!((refused.status, &refused.body["type"]), (503, &json!("/problems/safe-mode")), "{}", refused.text);
    lists_are_read(&program).await;

    // The one who was waiting has paid, and gets nothing yet; the other's money belongs to nobody.
    let patience = Patience::of("the payment after the backup is booked", 60);
    while program.door.get(&format!("/api/v1/orders/{}", waiting.id)).await.body["status"] != "paid" {
        patience.wait().await;
    }
    assert_eq!(program.door.get(&format!("/api/v1/orders/{}", lost.id)).await.status, 404);
    let alarms = || {
        let texts = world.sandbox.chat(1).into_iter().map(|message| message.text);
        texts.filter(|words| words.contains("no order of ours asked for it")).count()
    };
    let patience = Patience::of("the owner hears of money that belongs to nobody", 60);
    while alarms() == 0 {
        patience.wait().await;
    }
    assert_eq!((world.keys(43).len(), world.keys(44).len()), (1, 1), "nothing is handed over in safe mode");

    let hasty = world.cli_with(&["safe", "leave", "--reason", "in a hurry"], &to).await.bad();
    assert!(hasty.contains("crystalpay is not reconciled yet"), "{hasty}");
    let status = world.cli_with(&["safe", "status"], &to).await.good();
    assert!(status.contains("safe mode is ON") && status.contains("Licence key held back"), "{status}");
    let told = world.cli_with(&["doctor"], &to).await.out;
    assert!(told.contains("BAD   safe mode is on: the database was restored from a backup of 20"), "{told}");
    let metrics = program.door.get("/metrics").await.text;
    assert!(metrics.lines().any(|line| line == "semel_safe_mode 1"), "{metrics}");
    world.cli_with(&["safe", "reconcile", "crystalpay", "--by-hand", "nothing there"], &to).await.good();
    world.cli_with(&["safe", "leave", "--reason", "all is booked"], &to).await.good();
    assert!(!world.cli_with(&["doctor"], &to).await.out.contains("safe mode"), "it is over");
    let metrics = program.door.get("/metrics").await.text;
    assert!(metrics.lines().any(|line| line == "semel_safe_mode 0"), "{metrics}");
    let sold_out = program.door.post("/api/v1/orders", &an_order(&product, 45)).await;
    assert_eq!(sold_out.status, 409, "KEY-3 stands on the shelf and is another's: {}", sold_out.text);

    // Sales of what is new go on at once.
    let order = program.sell_one(46).await;
    let hook = world.pay(&order);
    world.acknowledged(hook).await;
    program.delivered(&order).await;
    assert_eq!((world.keys(46), world.keys(43).len()), (vec!["KEY-46-1".to_owned()], 1));

    world.cli_with(&["stock", "release", &product, "--reason", "KEY-3 was sold, the rest is ours"], &to).await.good();
    program.delivered(&waiting).await;
    assert_eq!(world.keys(43), ["KEY-2", "KEY-2"], "who has it gets it again, and nobody else does");
    assert_eq!((world.keys(44).len(), alarms()), (1, 1));

    program.at_rest().await;
    let verdict = world.cli_with(&["verify", "--at-rest"], &to).await.good();
    assert!(verdict.contains("every promise that can be checked here holds"), "{verdict}");
    let suspended = world.cli_with(&["payment", "assign", &lost.provider_id, &waiting.id], &to).await.good();
    assert!(suspended.contains("assigned"), "the lost payment is in the books: {suspended}");
    program.at_rest().await;
    program.terminate().await;
    world.sandbox.clone().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_not_whole_or_not_ours_restores_nothing_on_sqlite() {
    a_backup_that_is_not_whole_or_not_ours_restores_nothing(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_not_whole_or_not_ours_restores_nothing_on_postgres() {
    a_backup_that_is_not_whole_or_not_ours_restores_nothing(Engine::Postgres).await;
}

async fn a_backup_that_is_not_whole_or_not_ours_restores_nothing(engine: Engine) {
    let world = World::on(engine).await;
    let program = world.start().await;
    program.sell_one(42).await;
    program.terminate().await;

    // Nobody runs: the command makes the copy itself.
    let (key, other, file) = (arg(&world, "backup.key"), arg(&world, "other.key"), arg(&world, "shop.backup"));
    let keyless = world.cli(&["backup", &file]).await.bad();
    assert!(keyless.contains("no key is given") && keyless.contains("--new-key"), "{keyless}");
    world.cli(&["backup", "--new-key", &key]).await.good();
    world.cli(&["backup", "--new-key", &other]).await.good();
    world.cli(&["backup", &file, "--key-file", &key]).await.good();

    let whole = fs::read(world.path("shop.backup")).expect("the backup can be read");
    let mut changed = whole.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    fs::write(world.path("cut.backup"), &whole[..whole.len() - 100]).expect("a file can be written");
    fs::write(world.path("changed.backup"), &changed).expect("a file can be written");
    fs::write(world.path("foreign.backup"), b"something else").expect("a file can be written");
    let place = empty_place(&world, engine).await;
    for (name, key, words) in [
        ("shop.backup", &other, "was made with the key"),
        ("cut.backup", &key, "cut off"),
        ("changed.backup", &key, "damaged"),
        ("foreign.backup", &key, "not a backup of semel"),
    ] {
        let told = world.cli(&["restore", &arg(&world, name), "--key-file", key, "--to", &place]).await.bad();
        assert!(told.contains(words), "{name}: {told}");
        assert!(!world.path("restored.db").exists(), "{name} restored something");
        assert_eq!(named(&world.path(""), ".restore-").len(), 0, "{name} left something behind");
    }

    // Into the shop itself nothing is restored, and what was refused above has left the place empty.
    let occupied = world.cli(&["restore", &file, "--key-file", &key]).await.bad();
    assert!(occupied.contains("is there: a backup is restored") || occupied.contains("holds a shop"), "{occupied}");
    world.cli(&["restore", &file, "--key-file", &key, "--to", &place]).await.good();
    let status = world.cli_with(&["safe", "status"], &[("SEMEL_DATABASE_URL", place.as_str())]).await.good();
    assert!(status.contains("safe mode is ON") && status.contains("stock  3 of Licence key held back"), "{status}");
    world.sandbox.clone().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_restored_onto_a_running_program() {
    let world = World::on(Engine::Sqlite).await;
    let program = world.start().await;
    let (key, file) = (arg(&world, "backup.key"), arg(&world, "shop.backup"));
    world.cli(&["backup", "--new-key", &key]).await.good();
    world.cli(&["backup", &file, "--key-file", &key]).await.good();
    let told = world.cli(&["restore", &file, "--key-file", &key]).await.bad();
    assert!(told.contains("a semel runs on") && told.contains("stop it first"), "{told}");
    assert_eq!(text(&program.door.get("/readyz").await.body["status"]), "ready");
    program.terminate().await;
    world.sandbox.clone().stop().await;
}

/// Every step of `semel backup` from the first byte to the file in its place. The copy of the database is made by the program,
/// or by the command where none runs.
const STEPS_OF_A_BACKUP: &[&str] = &[
    "backup.create:part",
    "backup.created:part",
    "backup.copy:database",
    "backup.copied:database",
    "backup.open:copy",
    "backup.opened:copy",
    "backup.unnamed:copy",
    "backup.sealing:part",
    "backup.written:part",
    "backup.synced:part",
    "backup.renamed:part",
    "backup.placed:part",
];
const STEPS_OF_A_KEY: &[&str] = &[
    "backup.create:key",
    "backup.created:key",
    "backup.written:key",
    "backup.synced:key",
    "backup.renamed:key",
    "backup.placed:key",
];
const STEPS_OF_A_RESTORE: &[&str] = &[
    "restore.create:database",
    "restore.created:database",
    "restore.written:database",
    "restore.changed:database",
    "restore.renamed:database",
    "restore.placed:database",
];

/// Whether a command that broke off at this step had put its file into place: whole then, and not there before.
fn is_in_place(step: &str) -> bool {
    step.contains(".renamed:") || step.contains(".placed:")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_breaks_off_at_any_step_leaves_no_half_file_under_its_name() {
    if !cfg!(feature = "failpoints") {
        panic!("this build has no places to be killed at: run ./test, or cargo test with --features semel/failpoints");
    }
    let world = World::on(Engine::Sqlite).await;
    let program = world.start().await;
    program.sell_one(42).await;
    let broken = async |arguments: &[&str], step: &str, action: &str| {
        let rule = format!("{step}={action}");
        let said = world.cli_with(arguments, &[("SEMEL_FAILPOINT", rule.as_str())]).await;
        assert_ne!(said.code, Some(0), "{arguments:?} goes well at {rule}: {}", said.out);
        if action == "kill" {
            assert_eq!(said.code, None, "{arguments:?} dies at {rule}: {}", said.err);
        }
    };

    for step in STEPS_OF_A_KEY {
        let key = arg(&world, &format!("{}.key", step.replace(':', "-")));
        broken(&["backup", "--new-key", &key], step, "kill").await;
        let bytes = fs::read(&key).map(|bytes| bytes.len()).ok();
        assert_eq!(bytes, is_in_place(step).then_some(32), "a key that was killed at {step}");
    }

    let (key, file) = (arg(&world, "backup.key"), arg(&world, "shop.backup"));
    world.cli(&["backup", "--new-key", &key]).await.good();
    let mut running = Some(program);
    let mut restored = 0;
    // By the program first, then without one.
    for action in ["kill", "error"] {
        for step in STEPS_OF_A_BACKUP {
            if running.is_some() && step.ends_with(":database") {
                continue; // These are the program's steps then.
            }
            let new = arg(&world, &format!("{}-{action}.backup", step.replace(':', "-")));
            broken(&["backup", &new, "--key-file", &key], step, action).await;
            assert_eq!(Path::new(&new).exists(), is_in_place(step), "a backup that broke off at {step} ({action})");
            if is_in_place(step) {
                restored += 1;
                let place = format!("sqlite://{}", world.path(&format!("whole-{restored}.db")).display());
                world.cli(&["restore", &new, "--key-file", &key, "--to", &place]).await.good();
            }
        }
        if let Some(program) = running.take() {
            assert_eq!(
                text(&program.door.get("/readyz").await.body["status"]),
                "ready",
                "the program goes on beside it"
            );
            program.terminate().await;
        }
    }
    assert_eq!(restored, 4, "each that was in its place was whole");

    // Over an older one: the old one or the new one, and never something between.
    world.cli(&["backup", &file, "--key-file", &key]).await.good();
    let old = fs::read(&file).expect("the backup can be read");
    broken(&["backup", &file, "--force", "--key-file", &key], "backup.synced:part", "kill").await;
    assert_eq!(fs::read(&file).expect("the backup can be read"), old);

    for step in STEPS_OF_A_RESTORE {
        let place = world.path(&format!("{}.db", step.replace(':', "-")));
        let to = format!("sqlite://{}", place.display());
        broken(&["restore", &file, "--key-file", &key, "--to", &to], step, "kill").await;
        assert_eq!(place.exists(), is_in_place(step), "a restore that was killed at {step}");
        if is_in_place(step) {
            let status = world.cli_with(&["safe", "status"], &[("SEMEL_DATABASE_URL", to.as_str())]).await.good();
            assert!(status.contains("safe mode is ON"), "{step}: {status}");
        }
    }
    world.sandbox.clone().stop().await;
}
