//! The command line: the same through the running program and without one, one sentence and an exit code for everything
//! that is wrong, and no secret anywhere.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use semel_kernel::store::Engine;
use semel_sandbox::{self as outside, ChatState};

use super::program::{
    Door, Killed, Order, Patience, Process, Program, Said, TOKEN, World, an_order, text, write_private,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_file_has_one_program_and_a_second_is_told_so_within_a_second() {
    let world = World::on(Engine::Sqlite).await;
    let mut program = world.start().await;
    let order = program.sell_one(42).await;
    let mut fastest = Duration::MAX;
    // A crowded machine may stall one start.
    for _ in 0..3 {
        let second = world.cli(&["serve", "--listen", "127.0.0.1:0"]).await;
        fastest = fastest.min(second.took);
        let complaint = second.bad();
        assert!(complaint.trim_end().ends_with("is in use by a running semel; stop it first"), "{complaint}");
    }
    assert!(fastest < Duration::from_secs(1), "the refusal took {fastest:?}");
    // Commands go through the running program meanwhile.
    let shown = world.cli(&["order", "show", &order.id]).await.good();
    assert!(shown.contains(&order.id) && shown.contains("pending"), "{shown}");

    // A program that was killed leaves its socket behind, and nobody is confused by it.
    program.process.kill_9();
    assert!(world.path("semel.db.sock").exists(), "a killed program cleans nothing up");
    let listed = world.cli(&["order", "list"]).await.good();
    assert!(listed.contains(&order.id), "{listed}");
    let mut program = world.start().await;
    world.acknowledged(world.pay(&order)).await;
    program.delivered(&order).await;
    world.finish(program, Killed::BesideTelegram).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_works_through_the_running_program_and_without_one() {
    let world = World::on(Engine::Sqlite).await;
    let mut program = world.start().await;
    let order = program.sell_one(42).await;
    world.acknowledged(world.pay(&order)).await;
    program.delivered(&order).await;
    program.at_rest().await;

    let door = program.door.clone();
    every_command(&world, &order, "WARM").await;
    tokens(&world, Some(&door)).await;
    program.terminate().await;
    assert!(!world.path("semel.db.sock").exists(), "a program that ends well takes its socket away");
    every_command(&world, &order, "COLD").await;
    tokens(&world, None).await;

    let program = world.start().await;
    world.finish(program, Killed::BesideTelegram).await;
}

async fn every_command(world: &World, order: &Order, batch: &str) {
    let listed = world.cli(&["order", "list", "--status", "delivered", "--customer", "42"]).await.good();
    assert!(listed.lines().count() == 2 && listed.contains(&order.id) && listed.contains("990.00 RUB"), "{listed}");
    let shown = world.cli(&["order", "show", &order.id]).await.good();
    for part in [order.id.as_str(), "delivered", "yookassa", "timeline", "payment.confirm", "message.send"] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
    let complaint = world.cli(&["order", "show", "ord_0"]).await.bad();
    assert!(complaint.contains("there is no order ord_0"), "{complaint}");

    let refund = ["order", "refund", order.id.as_str(), "--to", "provider"];
    for arguments in [&refund[..3], &refund[..]] {
        let complaint = world.cli(arguments).await.bad();
        assert!(complaint.contains("no terminal to ask on: add --yes"), "{complaint}");
    }
    let untouched = world.cli(&["order", "show", &order.id]).await.good();
    assert!(untouched.contains("status    delivered"), "{untouched}");

    let product = world.cli(&["product", "create", &format!("Keys {batch}"), "10.00"]).await.good();
    let product = product.trim();
    let lines: Vec<String> = (0..2_500).map(|n| format!("{batch}-{n:04}")).collect();
    let file = world.path("stock.txt");
    fs::write(&file, lines.join("\n")).expect("a file with stock");
    let file = file.to_string_lossy().into_owned();
    let first = world.cli(&["stock", "import", product, &file]).await.good();
    assert!(first.starts_with("2500 added; 0 left out"), "{first}");
    let again = world.cli(&["stock", "import", product, &file]).await.good();
    assert!(again.starts_with("0 added; 2500 left out"), "{again}");
    assert!(
        first.contains("2500 lines: the first is ") && !first.contains(&lines[0]),
        "goods are not shown whole: {first}"
    );
    let other = world.path("other-shop");
    fs::create_dir_all(&other).expect("a folder");
    let settings = other.join("semel.toml");
    fs::write(&settings, "api_token = \"semel_secret\"\n").expect("a file that is no stock");
    let complaint = world.cli(&["stock", "import", product, &settings.to_string_lossy()]).await.bad();
    assert!(complaint.contains("holds settings") && complaint.contains("nothing was added"), "{complaint}");

    let (first, second, third) = (&lines[0], &lines[1], &lines[2]);
    let gone = world.cli(&["stock", "withdraw", product, first, second]).await.good();
    assert!(gone.starts_with("2 withdrawn"), "{gone}");
    let complaint = world.cli(&["stock", "withdraw", product, third, first]).await.bad();
    assert!(complaint.contains("line 2 is not in its stock") && !complaint.contains("line 1 "), "{complaint}");
    let complaint = world.cli(&["stock", "withdraw", product, "--file", &file]).await.bad();
    assert!(complaint.contains("nothing was withdrawn; split the file"), "{complaint}");
    let back = world.cli(&["stock", "import", product, &file]).await.good();
    assert!(back.starts_with("2 added; 2498 left out"), "{back}");

    let dearer = world.cli(&["product", "price", product, "12.50"]).await.good();
    assert!(dearer.contains("costs 12.50 RUB now, 10.00 RUB before"), "{dearer}");
    let complaint = world.cli(&["product", "price", product, "cheap"]).await.bad();
    assert!(!complaint.trim().is_empty(), "{complaint}");
    let hidden = world.cli(&["product", "hide", product]).await.good();
    assert!(hidden.contains("is hidden: nobody can order it"), "{hidden}");
    let offered = world.cli(&["product", "show", product]).await.good();
    assert!(offered.contains("is offered"), "{offered}");
    let products = world.cli(&["product", "list"]).await.good();
    let stocked = products.lines().any(|line| line.contains(product) && line.contains("2500"));
    assert!(stocked, "{products}");

    let jobs = world.cli(&["job", "list", "--state", "done"]).await.good();
    let confirm = jobs.lines().find(|line| line.contains("payment.confirm")).unwrap_or_else(|| panic!("{jobs}"));
    let job = confirm.split_whitespace().next().expect("an id");
    let why = world.cli(&["job", "why", job]).await.good();
    assert!(why.starts_with(&format!("{job} (payment.confirm): ")) && why.trim_end().ends_with('.'), "{why}");
    let complaint = world.cli(&["job", "list", "--state", "dnoe"]).await.bad();
    assert!(complaint.contains("dnoe is not one of ready, running, done"), "{complaint}");

    let inbox = world.cli(&["inbox", "list"]).await.good();
    assert!(inbox.contains("yookassa:payment.succeeded:") && inbox.contains("applied"), "{inbox}");

    let verdict = world.cli(&["verify", "--at-rest"]).await.good();
    assert!(verdict.lines().filter(|line| line.starts_with("ok ")).count() > 20, "a line for each promise:\n{verdict}");
    let unbuilt = verdict.lines().filter(|line| line.starts_with("n/a ")).count();
    assert!(unbuilt > 0, "what belongs to features that are not there is not praised:\n{verdict}");
    assert!(!verdict.contains("BROKEN"), "{verdict}");
    assert!(verdict.trim_end().ends_with("every promise that can be checked here holds"), "{verdict}");
}

/// A token is shown once, works at once, and is worthless after it was revoked.
async fn tokens(world: &World, door: Option<&Door>) {
    let made = world.cli(&["token", "create", "reports", "--scope", "read"]).await.good();
    let token = made.lines().next().expect("the token").trim().to_owned();
    assert!(token.starts_with("semel_") && token.len() > 40, "{made}");
    let id = made.split_whitespace().find(|word| word.starts_with("tok_")).expect("the token's id");
    let id = id.trim_end_matches('`').to_owned();
    let listed = world.cli(&["token", "list"]).await.good();
    assert!(listed.contains(&id) && listed.contains("reports") && !listed.contains(&token), "{listed}");
    if let Some(door) = door {
        let bearer = door.as_bearer(&token);
        assert_eq!(bearer.get("/api/v1/orders").await.status, 200);
        let more = bearer.post("/api/v1/products", &json!({ "title": "Mine now" })).await;
        assert_eq!(more.status, 403, "a token that may read changes nothing: {}", more.text);
    }
    let revoked = world.cli(&["token", "revoke", &id]).await.good();
    assert!(revoked.contains("worthless"), "{revoked}");
    if let Some(door) = door {
        assert_eq!(door.as_bearer(&token).get("/api/v1/orders").await.status, 401);
    }
    let again = world.cli(&["token", "revoke", &id]).await.good();
    assert_eq!(again.trim_end(), format!("token {id} was revoked already"));
    let complaint = world.cli(&["token", "revoke", "tok_0"]).await.bad();
    assert!(complaint.contains("tok_0"), "{complaint}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_shown_without_their_secrets_and_explained_by_name() {
    let world = World::on(Engine::Sqlite).await;
    let printed = world.cli(&["config", "print"]).await.good();
    let secrets = [
        TOKEN,
        outside::BOT_TOKEN,
        outside::YOOKASSA_SECRET_KEY,
        outside::HELEKET_PAYMENT_KEY,
        outside::CRYSTALPAY_SECRET,
        outside::CRYSTALPAY_SALT,
    ];
    for secret in secrets {
        assert!(!printed.contains(secret), "a secret is printed:\n{printed}");
    }
    let line = printed.lines().find(|line| line.starts_with("yookassa.secret_key ")).expect("a line for each setting");
    assert!(line.contains("(set)") && line.ends_with("# environment SEMEL_YOOKASSA_SECRET_KEY"), "{line}");
    // With a password in it, the database's address is a secret, too.
    let url = [("SEMEL_DATABASE_URL", "postgres://shop:hunter2@db.internal/shop")];
    let printed = world.cli_with(&["config", "print"], &url).await.good();
    assert!(!printed.contains("hunter2") && printed.contains("db.internal/shop"), "{printed}");

    let explained = world.cli(&["config", "explain", "SEMEL_JOB_LEASE"]).await.good();
    assert!(explained.contains("Default: 60s."), "{explained}");
    let complaint = world.cli(&["config", "explain", "SEMEL_LISEN"]).await.bad();
    assert!(complaint.contains("`SEMEL_LISEN` is not a setting: did you mean `SEMEL_LISTEN`?"), "{complaint}");
    // A program with a misspelt setting does not start either.
    let complaint = world.cli_with(&["serve"], &[("SEMEL_YOOKASA_SHOP_ID", "1")]).await.bad();
    assert!(complaint.contains("did you mean `SEMEL_YOOKASSA_SHOP_ID`?"), "{complaint}");
    world.sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_writes_a_file_for_its_owner_only_and_replaces_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("semel.toml");
    let token = outside::BOT_TOKEN;
    let flags = ["init", "--bot-token", token, "--owner-id", "77", "--public-url", "https://pay.example.com"];
    let init = || {
        let mut command = bare(folder.path());
        command.args(flags);
        command
    };
    said(init(), folder.path()).await.good();
    let mode = fs::metadata(&file).expect("the file is there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "it holds secrets");
    let written = fs::read_to_string(&file).expect("the file is text");
    assert!(written.contains(token) && written.contains("admin_ids = [77]"), "{written}");

    let complaint = said(init(), folder.path()).await.bad();
    assert!(complaint.contains("is there already; --force replaces it"), "{complaint}");
    assert_eq!(fs::read_to_string(&file).expect("the file is text"), written, "and nothing was replaced");

    // What it wrote can be read, and is read without being named.
    let mut print = bare(folder.path());
    print.args(["config", "print"]);
    let printed = said(print, folder.path()).await.good();
    assert!(printed.contains("https://pay.example.com") && !printed.contains(token), "{printed}");

    // Without flags and without a terminal it says which flag it needs, and does not wait for ever.
    let empty = tempfile::tempdir().expect("a temporary folder");
    let mut silent = bare(empty.path());
    silent.arg("init");
    let complaint = said(silent, folder.path()).await.bad();
    assert!(complaint.contains("there is no terminal to ask on: give --bot-token"), "{complaint}");
}

/// The program in a folder, with no settings at all.
pub fn bare(folder: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_semel"));
    command.current_dir(folder).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// What it said in the end; its words are kept in `folder`.
pub async fn said(command: Command, folder: &std::path::Path) -> Said {
    let mut process = Process::start(command, folder);
    let status = process.wait_exit(60).await;
    Said { code: status.code(), out: process.said(), err: process.log(), took: Duration::ZERO }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrate_tells_first_when_asked_to_and_then_does_it() {
    let world = World::on(Engine::Sqlite).await;
    let told = world.cli(&["migrate", "--dry-run"]).await.good();
    assert!(told.lines().count() >= 3 && told.lines().all(|line| line.starts_with("missing: ")), "{told}");
    let again = world.cli(&["migrate", "--dry-run"]).await.good();
    assert_eq!(again, told, "telling changes nothing");
    assert!(!world.path("semel.db").exists(), "and makes no database");
    let done = world.cli(&["migrate"]).await.good();
    assert_eq!(done, told.replace("missing: ", "applied: "));
    for arguments in [&["migrate"][..], &["migrate", "--dry-run"]] {
        assert_eq!(world.cli(arguments).await.good().trim(), "the database is up to date");
    }
    world.sandbox.stop().await;
}

/// To look is not to write: only what changes the schema needs the file for itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_newer_program_would_change_is_told_beside_the_running_one() {
    let world = World::on(Engine::Sqlite).await;
    let mut program = world.start().await;
    let order = program.sell_one(42).await;
    for _ in 0..3 {
        let told = world.cli(&["migrate", "--dry-run"]).await.good();
        assert_eq!(told.trim(), "the database is up to date");
    }
    // The program never noticed, and the file is still its own.
    world.acknowledged(world.pay(&order)).await;
    program.delivered(&order).await;
    program.at_rest().await;
    let complaint = world.cli(&["migrate"]).await.bad();
    assert!(complaint.trim_end().ends_with("is in use by a running semel; stop it first"), "{complaint}");

    // After a death the file has a log beside it that nobody has taken in yet.
    program.process.kill_9();
    let told = world.cli(&["migrate", "--dry-run"]).await.good();
    assert_eq!(told.trim(), "the database is up to date");
    let program = world.start().await;
    world.finish(program, Killed::BesideTelegram).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_names_each_provider_and_what_is_wrong_with_it() {
    let world = World::on(Engine::Sqlite).await;
    let healthy = world.cli(&["doctor"]).await.good();
    let wanted = [
        "yookassa answers",
        "heleket answers",
        "crystalpay answers",
        "Telegram answers: the bot is @",
        "the bot knows 1 of telegram.admin_ids",
    ];
    for part in wanted {
        assert!(healthy.lines().any(|line| line.starts_with("ok ") && line.contains(part)), "{part}:\n{healthy}");
    }
    assert!(!healthy.contains("BAD"), "{healthy}");

    // Whoever never pressed Start hears of nothing.
    world.sandbox.set_chat_state(1, ChatState::NotFound);
    let unheard = world.cli(&["doctor"]).await;
    assert_eq!(unheard.code, Some(1), "{}\n{}", unheard.out, unheard.err);
    let bad: Vec<&str> = unheard.out.lines().filter(|line| line.starts_with("BAD ")).collect();
    assert!(bad.len() == 1 && bad[0].contains("press Start"), "{bad:?}");
    world.sandbox.set_chat_state(1, ChatState::Open);

    let wrong = [
        ("SEMEL_YOOKASSA_SECRET_KEY", "live_zebra-key", "yookassa"),
        ("SEMEL_HELEKET_PAYMENT_KEY", "zebra-key", "heleket"),
        ("SEMEL_CRYSTALPAY_SECRET", "zebra-secret", "crystalpay"),
        ("SEMEL_TELEGRAM_BOT_TOKEN", "123456789:zebra-token", "Telegram"),
        ("SEMEL_YOOKASSA_API_URL", "http://127.0.0.1:9", "yookassa"),
    ];
    for (name, value, who) in wrong {
        let ill = world.cli_with(&["doctor"], &[(name, value)]).await;
        assert_eq!(ill.code, Some(1), "{}\n{}", ill.out, ill.err);
        let bad: Vec<&str> = ill.out.lines().filter(|line| line.starts_with("BAD ")).collect();
        assert!(bad.len() == 1 && bad[0].contains(who), "{name}: {bad:?}");
        assert!(!format!("{}{}", ill.out, ill.err).contains("zebra"), "a secret is printed:\n{}", ill.out);
    }

    let mut program = world.start().await;
    let healthy = world.cli(&["doctor"]).await.good();
    assert!(healthy.contains("semel runs on this database"), "{healthy}");
    program.ready().await;
    world.finish(program, Killed::BesideTelegram).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_is_written_tested_and_sent_from_the_terminal() {
    let world = World::on(Engine::Sqlite).await;
    let mut program = world.start().await;
    let order = program.sell_one(42).await;
    world.acknowledged(world.pay(&order)).await;
    program.delivered(&order).await;

    let id = a_tested_campaign(&world).await;
    let other = world.cli(&["broadcast", "start", &id, "--confirm", "7"]).await.bad();
    assert!(other.contains("it would go to 1 people and not to 7: nothing was sent"), "{other}");
    let past = ["broadcast", "start", id.as_str(), "--confirm", "1", "--at", "2020-01-01T12:00:00+03:00"];
    let past = world.cli(&past).await.bad();
    assert!(past.contains("a moment to come"), "{past}");
    let later = ["broadcast", "start", id.as_str(), "--confirm", "1", "--at", "2100-01-01T12:00:00+03:00"];
    let later = world.cli(&later).await.good();
    assert!(later.contains("state     scheduled") && later.contains("begins    2100-01-01T09:00:00"), "{later}");
    let off = world.cli(&["broadcast", "cancel", &id]).await.good();
    assert!(off.contains("state     cancelled"), "{off}");

    let id = a_tested_campaign(&world).await;
    world.cli(&["broadcast", "start", &id, "--confirm", "1", "--detach"]).await.good();
    let patience = Patience::of("the campaign is finished", 60);
    let finished = loop {
        let told = world.cli(&["broadcast", "status", &id, "--once"]).await.good();
        if told.contains("state     finished") {
            break told;
        }
        patience.wait().await;
    };
    assert!(finished.contains("done      1 of 1") && finished.contains("  sent      1"), "{finished}");
    let got = world.sandbox.chat(42);
    let spring: Vec<_> = got.iter().filter(|message| message.text == "Весна").collect();
    assert_eq!(spring.len(), 1, "once: {got:?}");
    let buttons: Vec<_> =
        spring[0].buttons.iter().map(|button| (button.text.as_str(), button.url.as_deref())).collect();
    assert_eq!(buttons, [("Открыть каталог", Some("https://t.me/sandbox_shop_bot"))]);
    let again = world.cli(&["broadcast", "resend-failed", &id]).await.bad();
    assert!(again.contains("it failed for nobody whom a repeat could reach"), "{again}");
    let paused = world.cli(&["broadcast", "pause", &id]).await.bad();
    assert!(!paused.trim().is_empty(), "what is over cannot be paused");
    let listed = world.cli(&["broadcast", "list", "--state", "finished"]).await.good();
    assert!(listed.contains(&id), "{listed}");
    world.finish(program, Killed::BesideTelegram).await;
}

/// A campaign with a button, looked at and arrived at the owner's. Answers its id.
async fn a_tested_campaign(world: &World) -> String {
    let words = world.path("spring.html");
    fs::write(&words, "<b>Весна</b>").expect("a file with words");
    let words = words.to_string_lossy().into_owned();
    let mut draft = vec!["broadcast", "create", "Spring", "--ru", words.as_str()];
    draft.extend(["--button", "Открыть каталог", "https://t.me/sandbox_shop_bot"]);
    let id = world.cli(&draft).await.good().trim().to_owned();
    let early = world.cli(&["broadcast", "start", &id, "--confirm", "1"]).await.bad();
    assert!(early.contains("send yourself a test first"), "{early}");
    let seen = world.cli(&["broadcast", "preview", &id]).await.good();
    for line in
        ["people    1 get it (1 in Russian, 0 in English)", "[ Открыть каталог ]  https://t.me/sandbox_shop_bot"]
    {
        assert!(seen.lines().any(|found| found == line), "{line} is missing in\n{seen}");
    }
    world.cli(&["broadcast", "test", &id]).await.good();
    let patience = Patience::of("the test has arrived", 60);
    while world.cli(&["broadcast", "preview", &id]).await.good().contains("not yet: ") {
        patience.wait().await;
    }
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demo_needs_nothing_sells_and_is_never_taken_for_the_real_thing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = bare(folder.path());
    command.args(["demo", "--folder", "shop", "--port", "0", "--sandbox-port", "0"]);
    // It obeys its flags and nothing else.
    command.env("SEMEL_LISTEN", "0.0.0.0:1").env("SEMEL_YOOKASSA_SHOP_ID", "1");
    let mut process = Process::start(command, folder.path());
    let patience = Patience::of("the demo says what to do", 60);
    while !process.said().contains("Ctrl-C ends the demo") {
        assert!(process.ended().is_none(), "the demo goes on: {}", process.log());
        patience.wait().await;
    }
    let welcome = process.said();
    let token = word_of(&welcome, "owner's token", "demo_");
    let mut demo = Program { process, door: Door::at(address_of(&welcome, "shop "), &token) };
    let outside = Door::at(address_of(&welcome, "outside world"), "");
    demo.ready().await;

    let product = welcome.split("\"product\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a product");
    let wish = an_order(product, 42);
    let order = Order::read(&demo.door.post("/api/v1/orders", &wish).await);
    let paid = outside.post("/control/pay", &json!({ "provider": "yookassa", "id": order.provider_id })).await;
    assert_eq!(paid.body["ok"], true, "{}", paid.text);
    demo.delivered(&order).await;
    demo.at_rest().await;
    // The button of the welcome: a webhook that comes again sells nothing again.
    let hooks = outside.post("/control/hooks", &json!({ "act": "list" })).await;
    let hook = hooks.body["result"].as_array().and_then(|hooks| hooks.first()).cloned().unwrap_or(Value::Null);
    let again = outside.post("/control/hooks", &json!({ "act": "resend", "id": hook["id"] })).await;
    assert_eq!(again.body["result"]["status"], 200, "{}", again.text);
    demo.at_rest().await;
    let chat = outside.get("/chat/42").await;
    assert_eq!(chat.text.matches("KEY-").count(), 1, "one key stands in the chat:\n{}", chat.text);
    let shown = demo.door.get(&format!("/api/v1/orders/{}", order.id)).await;
    assert_eq!(text(&shown.body["status"]), "delivered");
    demo.terminate().await;

    let mut serve = bare(folder.path());
    serve.arg("serve").env("SEMEL_DATABASE_URL", "sqlite://shop/demo.db").env("SEMEL_LISTEN", "127.0.0.1:0");
    let complaint = said(serve, folder.path()).await.bad();
    assert!(complaint.contains("made by `semel demo` and is not for real money"), "{complaint}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_world_in_a_box_runs_alone_and_says_how_to_use_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = bare(folder.path());
    command.args(["sandbox", "--listen", "127.0.0.1:0"]);
    let mut process = Process::start(command, folder.path());
    let patience = Patience::of("the box says how to use it", 60);
    while !process.said().contains("\nsalt = ") {
        assert!(process.ended().is_none(), "the box stays open: {}", process.log());
        patience.wait().await;
    }
    let welcome = process.said();
    let box_door = Door::at(address_of(&welcome, "The outside world in a box is at"), "");
    assert_eq!(box_door.get("/").await.status, 200, "it has a page");

    // What it prints is a settings file, and with that each of its servers answers.
    let file = welcome.split("The same as a semel.toml:\n").nth(1).unwrap_or_else(|| panic!("{welcome}"));
    write_private(&folder.path().join("semel.toml"), file);
    let mut doctor = bare(folder.path());
    doctor.arg("doctor");
    let told = said(doctor, folder.path()).await;
    for part in ["yookassa answers", "heleket answers", "crystalpay answers", "Telegram answers: the bot is @"] {
        let answers = told.out.lines().any(|line| line.starts_with("ok ") && line.contains(part));
        assert!(answers, "{part}:\n{}\n{}", told.out, told.err);
    }
    process.terminate().await;
}

/// The word that begins so, on the first line of the welcome that names `what`.
#[track_caller]
fn word_of(welcome: &str, what: &str, beginning: &str) -> String {
    let line = welcome.lines().find(|line| line.trim_start().starts_with(what)).unwrap_or_else(|| panic!("{welcome}"));
    let word = line.split_whitespace().find(|word| word.starts_with(beginning));
    word.unwrap_or_else(|| panic!("{line}")).to_owned()
}

#[track_caller]
fn address_of(welcome: &str, what: &str) -> std::net::SocketAddr {
    let url = word_of(welcome, what, "http://");
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    address.parse().unwrap_or_else(|error| panic!("{url}: {error}"))
}
