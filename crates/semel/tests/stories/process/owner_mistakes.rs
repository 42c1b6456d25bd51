//! Mistakes that owners make: the wrong folder, the wrong section, the wrong proxy. Each is answered by a sentence that says
//! what to do, and none makes anything that the owner did not ask for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use semel_kernel::store::Engine;

use super::command_line::{bare, said};
use super::program::{Killed, Patience, Process, Said, World};

const INIT: [&str; 7] = ["init", "--bot-token", "", "--owner-id", "", "--public-url", ""];

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Runs a command in `folder`, with no settings but those of a file; its words are kept elsewhere.
async fn run(folder: &Path, arguments: &[&str]) -> Said {
    let mut command = bare(folder);
    command.args(arguments);
    said(command, self::folder().path()).await
}

#[track_caller]
fn is_empty(folder: &TempDir) -> bool {
    fs::read_dir(folder.path()).expect("the folder can be read").count() == 0
}

fn lines<'a>(said: &'a Said, mark: &str) -> Vec<&'a str> {
    said.out.lines().filter(|line| line.starts_with(mark)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_wrong_folder_there_is_no_database_and_none_is_made() {
    let wrong = folder();
    let commands = [
        &["order", "list"][..],
        &["order", "show", "ord_0"],
        &["payment", "replay", "pay_0"],
        &["product", "list"],
        &["job", "list"],
        &["inbox", "list"],
        &["token", "list"],
        &["verify"],
    ];
    for arguments in commands {
        let complaint = run(wrong.path(), arguments).await.bad();
        let where_to = "data/semel.db; run this in the folder of semel.toml, or give --config";
        assert!(complaint.contains("there is no database at /") && complaint.contains(where_to), "{complaint}");
    }
    let ill = run(wrong.path(), &["doctor"]).await;
    assert_eq!(ill.code, Some(1), "{}", ill.out);
    let bad = lines(&ill, "BAD ");
    assert!(bad.len() == 1 && bad[0].contains("run this in the folder of semel.toml, or give --config"), "{bad:?}");
    assert!(ill.err.contains("1 thing is wrong; "), "{}", ill.err);
    assert!(is_empty(&wrong), "only to look makes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settings_file_that_is_named_brings_its_database_along() {
    let (shop, elsewhere) = (folder(), folder());
    run(shop.path(), &INIT).await.good();
    let file = shop.path().join("semel.toml").display().to_string();
    let made = run(elsewhere.path(), &["--config", &file, "product", "create", "Keys", "10.00"]).await;
    assert!(made.err.contains("this makes a new, empty one"), "a beginning is told: {}", made.err);
    let product = made.good();
    assert!(shop.path().join("data/semel.db").exists(), "the database lies beside the file");
    run(elsewhere.path(), &["--config", &file, "product", "create", "Balance", "10.00", "--kind", "topup"])
        .await
        .good();
    let from_afar = run(elsewhere.path(), &["--config", &file, "product", "list"]).await.good();
    assert!(from_afar.contains(product.trim()), "{from_afar}");
    assert_eq!(run(shop.path(), &["product", "list"]).await.good(), from_afar, "both are one shop");
    assert!(is_empty(&elsewhere), "and nothing is left elsewhere");
    let topup = from_afar.lines().find(|line| line.contains("topup")).unwrap_or_else(|| panic!("{from_afar}"));
    assert!(topup.split_whitespace().any(|word| word == "-") && !topup.contains("null"), "{topup}");
}

/// A demo that has said what to do.
async fn demo(folder: &Path) -> (Process, String) {
    let mut command = bare(folder);
    command.args(["demo", "--folder", "shop", "--port", "0", "--sandbox-port", "0"]);
    let mut process = Process::start(command, folder);
    let patience = Patience::of("the demo says what to do", 60);
    while !process.said().contains("Ctrl-C ends the demo") {
        assert!(process.ended().is_none(), "the demo goes on: {}", process.log());
        patience.wait().await;
    }
    let welcome = process.said();
    (process, welcome)
}

/// The idempotency key in the printed command.
#[track_caller]
fn key(welcome: &str) -> &str {
    let rest = welcome.split("Idempotency-Key: ").nth(1).unwrap_or_else(|| panic!("{welcome}"));
    rest.split('\'').next().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demo_that_starts_again_sells_anew() {
    let folder = folder();
    let (process, first) = demo(folder.path()).await;
    process.terminate().await;
    let (process, second) = demo(folder.path()).await;
    assert!(key(&first).starts_with("first-sale-") && key(&first).len() > "first-sale-".len(), "{first}");
    assert_ne!(key(&first), key(&second), "the old key would be answered with the old order");
    assert!(!first.contains("earlier runs"), "{first}");
    assert!(second.contains("the sandbox's payments of earlier runs are gone"), "{second}");

    let third = run(folder.path(), &["demo", "--folder", "shop", "--port", "0", "--sandbox-port", "0"]).await.bad();
    assert!(third.contains("is in use by a running semel; stop it first"), "{third}");
    process.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_writes_nothing_that_the_program_would_refuse() {
    let shop = folder();
    let mistakes = [
        ("--public-url", "http://pay.example.com", "is not https"),
        ("--public-url", "pay.example.com", "is not a web address"),
        ("--public-url", "https://me:hidden@pay.example.com", "a user name or a password"),
        ("--owner-id", "@me", "which is not a Telegram id"),
        ("--bot-token", "hidden/token", "is not a bot token"),
    ];
    for (flag, value, wrong) in mistakes {
        let mut arguments = vec!["init"];
        for asked in ["--bot-token", "--owner-id", "--public-url"] {
            arguments.extend([asked, if asked == flag { value } else { "" }]);
        }
        let complaint = run(shop.path(), &arguments).await.bad();
        assert!(complaint.contains(&format!("{flag} ")) && complaint.contains(wrong), "{complaint}");
        assert!(!complaint.contains("hidden"), "{complaint}");
        assert!(is_empty(&shop), "{flag} {value}: nothing is written");
    }

    let mut nowhere = vec!["--config", "no/such/folder/semel.toml"];
    nowhere.extend(INIT);
    let complaint = run(shop.path(), &nowhere).await.bad();
    assert!(complaint.contains("cannot write no/such/folder/semel.toml"), "{complaint}");

    run(shop.path(), &INIT).await.good();
    let written = fs::read_to_string(shop.path().join("semel.toml")).expect("the file is text");
    assert!(!written.contains("[telegram]") && !written.contains("\npublic_url"), "empty values stay out:\n{written}");
    let (place, section) = (written.find("\n# public_url = "), written.find("[yookassa]"));
    assert!(
        place.is_some() && place < section,
        "where it belongs, above the first section, stands a line for it:\n{written}"
    );
    run(shop.path(), &["config", "print"]).await.good();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_looks_at_the_file_that_it_was_given() {
    let (shop, elsewhere) = (folder(), folder());
    run(shop.path(), &INIT).await.good();
    let file = shop.path().join("semel.toml");
    let name = file.display().to_string();
    // A file that is not asked about may be as open as it likes.
    let other = elsewhere.path().join("semel.toml");
    fs::write(&other, "").expect("a file");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).expect("its mode");

    let healthy = run(elsewhere.path(), &["--config", &name, "doctor"]).await;
    let good = format!("ok    {name} is readable for its owner only");
    assert!(healthy.out.contains(&good), "{}", healthy.out);
    assert!(!healthy.good().contains("BAD"));

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("its mode");
    let ill = run(elsewhere.path(), &["--config", &name, "doctor"]).await;
    let bad = lines(&ill, "BAD ");
    assert!(bad.len() == 1 && bad[0].ends_with(&format!("run chmod 600 {name}")), "{bad:?}");
    assert_eq!(ill.code, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_nobody_named_is_found_out() {
    let world = World::on(Engine::Sqlite).await;
    let wrong = ("SEMEL_TRUSTED_PROXIES", "192.0.2.0/24");
    let public = ("SEMEL_PUBLIC_URL", "https://pay.example.com");
    let foreign = "SEMEL_TRUSTED_PROXIES holds no loopback address";
    let ill = world.cli_with(&["doctor"], &[public, wrong]).await;
    let bad = lines(&ill, "BAD ");
    assert!(bad.len() == 1 && bad[0].contains(foreign), "{bad:?}");
    let ill = world.cli_with(&["doctor"], &[public, ("SEMEL_LISTEN", "0.0.0.0:8080")]).await;
    let bad = lines(&ill, "BAD ");
    assert!(bad.iter().any(|line| line.contains("SEMEL_TRUSTED_PROXIES names no proxy")), "{bad:?}");

    let program = world.start_with(&[public, wrong]).await;
    assert!(program.process.log().contains(foreign), "a start says it, too:\n{}", program.process.log());
    let refused = program.door.post("/webhook/yookassa", &json!({})).await;
    assert_eq!(refused.status, 403, "{}", refused.text);
    let log = program.process.log();
    let told = "the sender seems to be a proxy at 127.0.0.1; add it to SEMEL_TRUSTED_PROXIES";
    assert!(log.contains(told), "{log}");
    assert!(!log.contains('\u{1b}'), "a log in a file has no colours:\n{log}");
    assert!(log.contains("made a new, empty one"), "a first start says that it is one:\n{log}");
    world.finish(program, Killed::BesideTelegram).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_at_the_end_of_the_file_is_told_where_it_belongs() {
    let shop = folder();
    run(shop.path(), &INIT).await.good();
    let file = shop.path().join("semel.toml");
    let written = fs::read_to_string(&file).expect("the file is text");
    fs::write(&file, format!("{written}\n[telegram]\nadmin_ids = [1]\ntrusted_proxies = \"127.0.0.1/32\"\n"))
        .expect("more");
    let complaint = run(shop.path(), &["serve"]).await.bad();
    assert!(complaint.contains("`trusted_proxies` stands above the first [section]"), "{complaint}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_the_database_for_itself_says_that_the_program_must_stop_first() {
    let world = World::on(Engine::Sqlite).await;
    let program = world.start().await;
    let complaint = world.cli(&["migrate"]).await.bad();
    assert!(complaint.trim_end().ends_with("is in use by a running semel; stop it first"), "{complaint}");
    world.finish(program, Killed::BesideTelegram).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_and_a_bad_number_are_told_with_what_to_give() {
    let shop = folder();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let complaint = run(shop.path(), &["serve", "--listen", &address]).await.bad();
    let sentence = format!("cannot listen on {address}: ");
    assert!(complaint.contains(&sentence) && complaint.contains("; choose another with --listen"), "{complaint}");

    let help = run(shop.path(), &["order", "list", "--help"]).await.good();
    assert!(help.contains("pending") && help.contains("awaiting_stock") && help.contains("refunded"), "{help}");
    for (flag, value, wanted) in [("--customer", "anna", "write a Telegram id"), ("--limit", "0", "from 1 to 200")] {
        let refused = run(shop.path(), &["order", "list", flag, value]).await;
        assert!(refused.code == Some(2) && refused.err.contains(wanted), "{}", refused.err);
    }
    let help = run(shop.path(), &["verify", "--help"]).await.good();
    assert!(help.contains("3 when one is broken"), "{help}");
}
