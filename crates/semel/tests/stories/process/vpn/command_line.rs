//! The owner's commands about VPN access: what they say, how they end, and the one sentence for everything that is wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use semel_kernel::clock::Clock;
use semel_kernel::store::Engine;
use semel_wireguard::{Conf, PrivateKey};

use super::fake::Interface;
use super::{in_file, wanted};
use crate::process::command_line::{bare, said};
use crate::process::program::{Killed, OWN_CONF, Program, Said, World, moment, write_private};

/// Two customers of the time before Semel, as they stand in the owner's file.
const ANNA: &str = "DQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0=";
const BORIS: &str = "CwsLCwsLCwsLCwsLCwsLCwsLCwsLCwsLCwsLCwsLCws=";

/// A command that was not even understood.
#[track_caller]
fn misused(said: Said) -> String {
    assert_eq!(said.code, Some(2), "the command is not understood, but it said:\n{}\n{}", said.out, said.err);
    said.err
}

/// The word behind `name` at the beginning of a line.
#[track_caller]
fn word(page: &str, name: &str) -> String {
    let line = page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in\n{page}"));
    line[name.len()..].split_whitespace().next().unwrap_or_default().to_owned()
}

#[track_caller]
fn has(page: &str, parts: &[&str]) {
    for part in parts {
        assert!(page.contains(part), "{part} is missing in\n{page}");
    }
}

/// What is wrong with each of these commands, in its own words.
async fn refused(world: &World, cases: &[(&[&str], &str)]) {
    for (arguments, wanted) in cases {
        let complaint = world.cli(arguments).await.bad();
        let sentence = complaint.trim_end().lines().last().unwrap_or_default();
        let is_it = sentence.starts_with("semel: ") && sentence.contains(wanted);
        assert!(is_it, "semel {}: {wanted} is missing in {complaint}", arguments.join(" "));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_is_given_stopped_and_ended_by_hand_and_the_story_says_why() {
    let mut world = World::on(Engine::Sqlite).await;
    let file = world.sells_vpn();
    let interface = Interface::of(&mut world);
    let program = world.start().await;

    let reason = "helped us";
    let given = world.cli(&["sub", "grant", "42", "--days", "30", "--devices", "2", "--reason", reason]).await.good();
    has(
        &given,
        &["customer      42", "state         active", "devices       2", "period        30 d of hand  helped us"],
    );
    let sub = word(&given, "subscription");
    program.vpn_settles(30).await;
    let shown = world.cli(&["sub", "show", &sub]).await.good();
    has(&shown, &[" is active, 10.8.0.", ", never connected", "subscription made (→ active): helped us"]);
    assert_eq!(shown.lines().filter(|line| line.starts_with("device ")).count(), 2, "{shown}");
    let keys = wanted(&program).await;
    assert_eq!((keys.len(), &interface.peers(), &in_file(&file)), (2, &keys, &keys));
    let listed = world.cli(&["sub", "list", "--customer", "42", "--state", "active"]).await.good();
    assert!(listed.lines().count() == 2 && listed.contains(&sub), "{listed}");
    let nobody = world.cli(&["sub", "list", "--customer", "43"]).await.good();
    assert_eq!(nobody.lines().count(), 1, "{nobody}");

    let until = word(&given, "paid until");
    let more = world.cli(&["sub", "extend", &sub, "--days", "3", "--reason", "the server was down"]).await.good();
    has(&more, &["period        3 d of hand  the server was down", "time was added"]);
    assert!(word(&more, "paid until") > until, "{more}");

    let frozen = world.cli(&["sub", "freeze", &sub, "--reason", "on holiday"]).await.good();
    has(&frozen, &["state         frozen", "(active → frozen): on holiday"]);
    program.vpn_settles(30).await;
    assert!(in_file(&file).is_empty() && interface.peers().is_empty(), "nobody connects while it is frozen");
    let again = world.cli(&["sub", "freeze", &sub, "--reason", "twice"]).await.good();
    assert!(again.contains("state         frozen") && !again.contains("twice"), "a repeat changes nothing:\n{again}");
    let back = world.cli(&["sub", "unfreeze", &sub, "--reason", "back home"]).await.good();
    has(&back, &["state         active", "(frozen → active): back home"]);
    program.vpn_settles(30).await;
    assert_eq!((&interface.peers(), &in_file(&file)), (&keys, &keys), "with the same keys and addresses");

    link(&world, &sub).await;
    who(&world, &sub, &shown).await;

    let revoked = world.cli(&["sub", "revoke", &sub, "--reason", "resold"]).await.good();
    has(&revoked, &["state         revoked", "(active → revoked): resold"]);
    program.vpn_settles(30).await;
    assert!(in_file(&file).is_empty() && interface.peers().is_empty(), "nobody connects after it");
    let over: &[(&[&str], &str)] = &[
        (&["sub", "extend", &sub, "--days", "1", "--reason", "x"], "was revoked: it gets no more time"),
        (&["sub", "freeze", &sub, "--reason", "x"], "is revoked and cannot become frozen"),
        (&["sub", "unfreeze", &sub, "--reason", "x"], "is revoked, not frozen"),
    ];
    refused(&world, over).await;
    let resting = world.cli(&["ip", "list", "--state", "quarantine"]).await.good();
    assert_eq!(resting.lines().count(), 3, "both addresses rest:\n{resting}");
    let log = world.cli(&["audit", "list"]).await.good();
    has(&log, &["subscription.grant", "subscription.extend", "subscription.freeze", "subscription.revoke", "resold"]);

    // Commands see the same when nobody runs.
    program.terminate().await;
    has(&world.cli(&["sub", "show", &sub]).await.good(), &["state         revoked", "on holiday"]);
    let written = world.cli(&["wg", "apply"]).await.good();
    assert_eq!(written.trim_end(), "it is written down, and `semel serve` does it when it runs");
    let program = world.start().await;
    world.finish(program, Killed::BesideTelegram).await;
}

/// A link gives a device's file once.
async fn link(world: &World, sub: &str) {
    let made = world.cli(&["sub", "link", sub, "--device", "2"]).await.good();
    has(&made, &["It gives the file once, until ", "It is not shown again."]);
    let url = made.lines().next().unwrap_or_default();
    let (_, token) = url.split_once("/vpn/").unwrap_or_else(|| panic!("{made}"));
    let (path, door) = (format!("/vpn/{token}"), world.door().as_bearer("a stranger"));
    assert_eq!(door.get(&path).await.status, 200, "looking uses nothing up");
    let file = door.post(&path, &json!({})).await;
    assert!(file.status == 200 && file.text.starts_with("[Interface]\nPrivateKey = "), "{}", file.text);
    let again = door.post(&path, &json!({})).await;
    assert!(again.status == 410 && !again.text.contains("PrivateKey"), "{}", again.text);
    let wrong: &[(&[&str], &str)] = &[
        (&["sub", "link", sub, "--device", "3"], "there is no device 3 of subscription"),
        (&["sub", "link", sub, "--format", "openvpn"], "format: wireguard, amneziawg or qr"),
        (&["sub", "link", sub, "--format", "amneziawg"], "has no parameters of AmneziaWG"),
    ];
    refused(world, wrong).await;
}

/// An address and a moment name a customer.
async fn who(world: &World, sub: &str, shown: &str) {
    let device = shown.lines().find(|line| line.starts_with("device 1 ")).unwrap_or_else(|| panic!("{shown}"));
    let address =
        device.split_whitespace().find(|word| word.starts_with("10.8.0.")).unwrap_or_else(|| panic!("{shown}"));
    let address = address.trim_end_matches(',');
    let told = world.cli(&["ip", "who", address]).await.good();
    has(&told, &[&format!("address  {address}"), "on       local: held since ", "now  customer 42", sub, "device 1, "]);
    let now = Clock::system().now().to_string();
    has(&world.cli(&["ip", "who", address, "--at", &now]).await.good(), &["customer 42"]);
    let before = world.cli(&["ip", "who", address, "--at", "2020-03-01T12:00:00+03:00"]).await.good();
    assert!(before.contains("nobody had it") && !before.contains("customer"), "{before}");
    has(&world.cli(&["ip", "who", "10.8.0.200"]).await.good(), &["on       local: free since ", "nobody had it"]);

    let held = world.cli(&["ip", "list", "--state", "held"]).await.good();
    assert!(held.lines().count() == 3 && held.contains(address) && held.contains("peer_"), "{held}");
    assert_eq!(world.cli(&["ip", "list", "--limit", "5"]).await.good().lines().count(), 6);
    let wrong: &[(&[&str], &str)] = &[
        (&["ip", "who", "ten.eight"], "there is no address ten.eight"),
        (&["ip", "who", "10.8.0.2", "--at", "yesterday"], "at: write a moment with its offset, like "),
        (&["ip", "who", "10.8.0.2", "--at", "2026-03-01 12:00"], "at: write a moment with its offset, like "),
        (&["ip", "list", "--state", "taken"], "state: free, held or quarantine"),
        (&["ip", "list", "--server", "nowhere"], "there is no server nowhere"),
    ];
    refused(world, wrong).await;
    assert!(misused(world.cli(&["ip", "list", "--limit", "1000"]).await).contains("a whole number from 1 to 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_refused_with_one_sentence_and_changes_nothing() {
    let mut world = World::on(Engine::Sqlite).await;
    let file = world.sells_vpn();
    let program = world.start().await;
    let long = "x".repeat(501);
    let cases: &[(&[&str], &str)] = &[
        (&["sub", "grant", "42", "--days", "0", "--reason", "x"], "days: between 1 and 3650, not 0"),
        (&["sub", "grant", "42", "--days", "3651", "--reason", "x"], "days: between 1 and 3650, not 3651"),
        (&["sub", "grant", "42", "--days", "1", "--devices", "0", "--reason", "x"], "devices: between 1 and 10, not 0"),
        (
            &["sub", "grant", "42", "--days", "1", "--devices", "11", "--reason", "x"],
            "devices: between 1 and 10, not 11",
        ),
        (&["sub", "grant", "42", "--days", "1", "--reason", " "], "reason: one line of 1 to 500 characters"),
        (&["sub", "grant", "42", "--days", "1", "--reason", "a\nb"], "reason: one line of 1 to 500 characters"),
        (&["sub", "grant", "42", "--days", "1", "--reason", &long], "reason: one line of 1 to 500 characters"),
        (&["sub", "show", "sub_0"], "there is no subscription sub_0"),
        (&["sub", "extend", "sub_0", "--days", "1", "--reason", "x"], "there is no subscription sub_0"),
        (&["sub", "revoke", "me", "--reason", "x"], "there is no subscription me"),
        (&["sub", "link", "sub_0"], "there is no subscription sub_0"),
        (&["sub", "list", "--state", "open"], "open is not one of trial, active, grace, expired, frozen, revoked"),
        (
            &["product", "create", "VPN", "299.00", "--kind", "vpn"],
            "duration_days: say for how many days the access is",
        ),
        (
            &["product", "create", "VPN", "299.00", "--kind", "vpn", "--days", "0"],
            "duration_days: between 1 and 3650 days",
        ),
        (
            &["product", "create", "VPN", "299.00", "--kind", "vpn", "--days", "30", "--devices", "11"],
            "devices: between 1 and 10, not 11",
        ),
        (&["product", "create", "Key", "9.00", "--days", "30"], "only a product of the kind vpn has a duration"),
        (&["product", "create", "Key", "9.00", "--devices", "2"], "only a product of the kind vpn has devices"),
        (&["product", "create", "Net", "9.00", "--kind", "wifi"], "kind: write stock, topup or vpn"),
    ];
    refused(&world, cases).await;
    let me = world.cli(&["sub", "grant", "me", "--days", "1", "--reason", "x"]).await;
    assert!(misused(me).contains("write a Telegram id, which is a number such as 123456789"));
    assert!(misused(world.cli(&["sub", "grant", "42", "--days", "1"]).await).contains("--reason"));
    assert!(misused(world.cli(&["sub", "grant", "42", "--days", "-1", "--reason", "x"]).await).contains("-1"));
    assert_eq!(world.cli(&["sub", "list"]).await.good().lines().count(), 1, "nobody got anything");
    assert_eq!(world.cli(&["product", "list"]).await.good().lines().count(), 1, "nothing is on sale");

    let made =
        world.cli(&["product", "create", "VPN, 30 days", "299.00", "--kind", "vpn", "--days", "30"]).await.good();
    let listed = world.cli(&["product", "list"]).await.good();
    let line = listed.lines().find(|line| line.contains(made.trim())).unwrap_or_else(|| panic!("{listed}"));
    has(line, &["vpn", "299.00 RUB", "VPN, 30 days"]);
    assert!(in_file(&file).is_empty());
    world.finish(program, Killed::BesideTelegram).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_vpn_in_the_settings_each_command_says_so() {
    let world = World::on(Engine::Sqlite).await;
    let program = world.start().await;
    let told = "VPN access is not set up on this server: set the [vpn] section of the settings";
    let cases: &[(&[&str], &str)] = &[
        (&["wg", "plan"], told),
        (&["wg", "apply"], told),
        (&["sub", "grant", "42", "--days", "1", "--reason", "x"], told),
        (&["product", "create", "VPN", "299.00", "--kind", "vpn", "--days", "30"], told),
        (&["wg", "init"], "say where customers reach this machine: semel wg init --host vpn.example.com"),
    ];
    refused(&world, cases).await;
    world.finish(program, Killed::BesideTelegram).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_shows_what_differs_and_an_apply_mends_it() {
    let mut world = World::on(Engine::Sqlite).await;
    let file = world.sells_vpn();
    let interface = Interface::of(&mut world);
    let program = world.start().await;
    world.cli(&["sub", "grant", "42", "--days", "30", "--reason", "a gift"]).await.good();
    program.vpn_settles(30).await;
    let keys = wanted(&program).await;
    let key = keys.keys().next().expect("a peer").clone();

    let plan = world.cli(&["wg", "plan"]).await.good();
    has(&plan, &["file       ? CQkJ", "everything is as it is wanted"]);
    let printed = world.cli(&["wg", "export"]).await.good();
    let lines: Vec<&str> = printed.lines().collect();
    assert!(lines.len() == 2 && lines[0] == "public_key,telegram_id,until", "{printed}");
    assert!(lines[1].starts_with(&format!("{key},42,20")), "{printed}");

    // Somebody empties the interface, and writes between the fence lines.
    interface.empty();
    let text = fs::read_to_string(&file).expect("the file is text");
    let address = keys[&key].iter().next().expect("an address");
    let text = text.replace(&format!("PublicKey = {key}"), &format!("PublicKey = {ANNA}"));
    write_private(&file, &text.replace(&format!("AllowedIPs = {address}/32"), "AllowedIPs = 10.99.0.3/32"));
    let plan = world.cli(&["wg", "plan"]).await;
    assert_eq!(plan.code, Some(3), "something differs: {}", plan.out);
    let lines =
        ["file       somebody changed".to_owned(), format!("file       + {key}"), format!("interface  + {key}")];
    for line in &lines {
        assert!(plan.out.lines().any(|found| found.starts_with(line)), "{line} is missing in\n{}", plan.out);
    }
    assert!(plan.out.trim_end().ends_with("? is foreign and stays"), "{}", plan.out);
    assert!(interface.peers().is_empty(), "a plan changes nothing");

    let applied = world.cli(&["wg", "apply"]).await.good();
    assert_eq!(applied.trim_end(), "file and interface are as they are wanted");
    assert_eq!((interface.peers(), in_file(&file)), (keys.clone(), keys));
    let text = fs::read_to_string(&file).expect("the file is text");
    assert!(text.contains(ANNA), "what somebody else wrote is moved below the fence, not deleted:\n{text}");
    let plan = world.cli(&["wg", "plan"]).await.good();
    has(&plan, &[&format!("file       ? {ANNA}"), "everything is as it is wanted"]);
    world.finish(program, Killed::BesideTelegram).await;
}

/// The owner's file with two customers from before, and a map that says whose they are.
struct Moving {
    file: String,
    text: String,
    until: String,
}

impl Moving {
    fn into(world: &mut World) -> Moving {
        let path = world.sells_vpn();
        let text = format!(
            "{OWN_CONF}\n[Peer]\n# friendly_name = anna\nPublicKey = {ANNA}\n\
             PresharedKey = BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=\nAllowedIPs = 10.8.0.50/32\n\n\
             [Peer]\n# friendly_name = boris\nPublicKey = {BORIS}\nAllowedIPs = 10.8.0.60/32\n"
        );
        write_private(&path, &text);
        let until = (Clock::system().now() + Duration::from_secs(30 * 24 * 3600)).to_string();
        Moving { file: path.to_string_lossy().into_owned(), text, until }
    }

    /// Writes the map; answers its path.
    fn map(&self, world: &World, lines: &[String]) -> String {
        let path = world.path("map.csv");
        fs::write(&path, format!("public_key,telegram_id,until\n{}\n", lines.join("\n"))).expect("a map");
        path.to_string_lossy().into_owned()
    }

    fn unchanged(&self) {
        let text = fs::read_to_string(&self.file).expect("the file is text");
        assert_eq!(text, self.text, "an import leaves the file as it is");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn customers_of_an_older_file_are_taken_over_and_nobody_else_is_touched() {
    let mut world = World::on(Engine::Sqlite).await;
    let moving = Moving::into(&mut world);
    let program = world.start().await;
    program.vpn_settles(30).await;
    let until = moving.until.clone();

    let looked = world.cli(&["wg", "import", &moving.file]).await.good();
    has(
        &looked,
        &[&format!("reserved  {ANNA}  anna stays foreign"), &format!("reserved  {BORIS}  boris stays foreign")],
    );
    assert!(looked.trim_end().ends_with("nothing was changed; --yes does it"), "{looked}");
    let map = moving.map(&world, &[format!("{ANNA},42,{until}")]);
    let looked = world.cli(&["wg", "import", &moving.file, "--adopt", &map]).await.good();
    has(&looked, &[&format!("adopted   {ANNA}  anna of 42 until {until}"), &format!("reserved  {BORIS}")]);
    assert_eq!(world.cli(&["sub", "list"]).await.good().lines().count(), 1, "looking takes nobody over");

    let done = world.cli(&["wg", "import", &moving.file, "--adopt", &map, "--yes"]).await.good();
    has(&done, &[&format!("adopted   {ANNA}"), "done; the file is as it was"]);
    program.vpn_settles(30).await;
    moving.unchanged();
    let listed = world.cli(&["sub", "list", "--customer", "42"]).await.good();
    assert!(listed.lines().count() == 2 && listed.contains("active"), "{listed}");
    assert!(world.sandbox.chat(42).is_empty(), "a device that has access already is promised no file");
    has(&world.cli(&["ip", "who", "10.8.0.50"]).await.good(), &["now  customer 42", ANNA]);
    has(&world.cli(&["ip", "who", "10.8.0.60"]).await.good(), &["held", "nobody had it"]);
    let printed = world.cli(&["wg", "export"]).await.good();
    let start = format!("{ANNA},42,");
    let told =
        printed.lines().find_map(|line| line.strip_prefix(start.as_str())).unwrap_or_else(|| panic!("{printed}"));
    let off = moment(&json!(until)) - moment(&json!(told));
    assert!((-1000..=0).contains(&off), "until {told} is not what the map says, {until}, or a second more");
    let again = world.cli(&["wg", "import", &moving.file, "--adopt", &map, "--yes"]).await.good();
    has(&again, &[&format!("known     {ANNA}  anna is peer_")]);
    assert_eq!(world.cli(&["sub", "list"]).await.good().lines().count(), 2, "a repeat takes nobody over twice");
    moving.unchanged();
    world.finish(program, Killed::BesideTelegram).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_cannot_be_done_as_a_whole_is_not_done() {
    let mut world = World::on(Engine::Sqlite).await;
    let moving = Moving::into(&mut world);
    let program = world.start().await;
    program.vpn_settles(30).await;
    let (file, until) = (moving.file.as_str(), moving.until.clone());

    let late = moving.map(&world, &[format!("{ANNA},42,{until}"), format!("{BORIS},43,2020-01-01")]);
    let looked = world.cli(&["wg", "import", file, "--adopt", &late]).await.good();
    has(&looked, &[&format!("conflict  {BORIS}  boris its time was over at 2020-01-02T00:00:00")]);
    assert!(looked.contains("--yes would change nothing: 1 peer cannot be adopted"), "{looked}");
    let cases: &[(&[&str], &str)] =
        &[(&["wg", "import", file, "--adopt", &late, "--yes"], "1 peers cannot be adopted, so nothing was changed")];
    refused(&world, cases).await;
    for (line, wanted) in [
        (format!("{ANNA},anna,{until}"), "the Telegram id is not a number"),
        (format!("{ANNA},-1,{until}"), "the Telegram id of a person is positive"),
        (format!("{ANNA},42,next year"), "write the end like 2027-01-31 or 2027-01-31T12:00:00Z"),
        (format!("{ANNA},42"), "line 2 of the CSV: write public_key,telegram_id,until"),
        (format!("{ANNA};42;{until}"), "its separator is `;` or a tab"),
        (format!("{ANNA},42,{until}\n{ANNA},43,{until}"), "line 3 of the CSV: this key stands in the CSV already"),
    ] {
        let map = moving.map(&world, std::slice::from_ref(&line));
        let complaint = world.cli(&["wg", "import", file, "--adopt", &map, "--yes"]).await.bad();
        assert!(complaint.contains(wanted), "{line}: {complaint}");
    }
    let broken = world.path("broken.conf");
    fs::write(&broken, "[Interface]\nListenPort = 1\n\n[Peer]\nPublicKey = short\n").expect("a file");
    let own = world.path("own.conf");
    fs::write(&own, "[Interface]\nListenPort = 1\n").expect("a file");
    let (broken, own) = (broken.to_string_lossy().into_owned(), own.to_string_lossy().into_owned());
    let cases: &[(&[&str], &str)] = &[
        (&["wg", "import", "/nothing/wg0.conf"], "cannot read /nothing/wg0.conf"),
        (&["wg", "import", file, "--adopt", "/nothing/map.csv"], "cannot read /nothing/map.csv as text"),
        (&["wg", "import", &broken], "broken.conf, line 5: the public key is not 44 characters of base64"),
        (&["wg", "import", &own], "has no peers that are not ours already"),
    ];
    refused(&world, cases).await;
    assert_eq!(world.cli(&["sub", "list"]).await.good().lines().count(), 1, "nobody was taken over");
    moving.unchanged();
    world.finish(program, Killed::BesideTelegram).await;
}

/// A misspelt key must not cost a customer the access: whoever says `--yes` hears of a line that is about nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_of_the_map_that_no_peer_of_the_file_has_is_named_and_nobody_is_taken_over() {
    let mut world = World::on(Engine::Sqlite).await;
    let moving = Moving::into(&mut world);
    let program = world.start().await;
    program.vpn_settles(30).await;
    let until = &moving.until;
    for stray in ["DAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAw=", "no-key-at-all"] {
        let map = moving.map(&world, &[format!("{ANNA},42,{until}"), format!("{stray},43,{until}")]);
        let complaint = world.cli(&["wg", "import", &moving.file, "--adopt", &map, "--yes"]).await.bad();
        assert!(complaint.contains(stray) || complaint.contains("line 3"), "{stray} is not named: {complaint}");
        assert_eq!(world.cli(&["sub", "list"]).await.good().lines().count(), 1, "nobody was taken over");
    }
    moving.unchanged();
    world.finish(program, Killed::BesideTelegram).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_configuration_file_is_private_whole_and_written_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("wireguard/wg0.conf");
    let init = |arguments: &[&str]| {
        let mut command = bare(folder.path());
        command.args(["wg", "init"]).args(arguments).env("SEMEL_VPN_CONFIG_PATH", &file);
        command
    };
    let wrong: &[(&[&str], &str)] = &[
        (&["--out-interface", "eth0"], "say where customers reach this machine: semel wg init --host vpn.example.com"),
        (&["--host", "not a host", "--out-interface", "eth0"], "is not a host"),
        (&["--host", "vpn.example.com", "--out-interface", "eth0; reboot"], "is not the name of an interface"),
        (&["--host", "vpn.example.com", "--out-interface", ""], "is not the name of an interface"),
    ];
    for (arguments, wanted) in wrong {
        let complaint = said(init(arguments), folder.path()).await.bad();
        assert!(complaint.contains(*wanted) && !file.exists(), "{arguments:?}: {complaint}");
    }

    let host = ["--host", "vpn.example.com", "--out-interface", "eth0"];
    let told = said(init(&host), folder.path()).await.good();
    has(&told, &["put `host = \"vpn.example.com\"` under [vpn]", "open UDP port 51820", "semel doctor"]);
    // A file that lies elsewhere is not found by the name of its interface.
    let whole = file.canonicalize().expect("the file is there");
    has(&told, &[&format!("wg-quick up {}", whole.display()), "needs the file in /etc/wireguard"]);
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().expect("a folder"))), (0o600, 0o700), "it holds a key");
    let text = fs::read_to_string(&file).expect("the file is text");
    let conf = Conf::parse(text.as_bytes()).expect("a configuration file");
    let interface = conf.interface();
    assert!(interface.present && interface.has_private_key && !interface.save_config, "{interface:?}");
    assert_eq!((interface.listen_port, interface.addresses.len()), (Some(51820), 1), "{interface:?}");
    assert_eq!(interface.addresses[0].to_string(), "10.8.0.1/24");
    has(&text, &["PostUp = iptables -t nat -A POSTROUTING -s 10.8.0.0/24 -o eth0 -j MASQUERADE"]);
    let key = text.lines().find_map(|line| line.strip_prefix("PrivateKey = ")).expect("a key");
    let key: PrivateKey = key.parse().expect("a private key");
    assert!(told.contains(&key.public().to_string()), "the public key is told: {told}");
    assert!(!told.contains(key.to_base64().as_str()), "the private one is not");

    let complaint = said(init(&host), folder.path()).await.bad();
    assert!(complaint.contains("is there already: it is kept as it is"), "{complaint}");
    assert_eq!(fs::read_to_string(&file).expect("the file is text"), text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_says_what_is_missing_of_the_file_or_the_key() {
    let mut world = World::on(Engine::Sqlite).await;
    let file = world.sells_vpn();
    fs::remove_file(&file).expect("the file goes");
    let complaint = world.cli(&["serve"]).await.bad();
    has(&complaint, &["wg0.conf cannot be read", "`semel wg init` makes that file where there is none"]);
    write_private(&file, "[Interface]\nListenPort = 51820\n");
    let complaint = world.cli(&["serve"]).await.bad();
    has(&complaint, &["has no PrivateKey under [Interface]", "vpn.server_public_key"]);
    write_private(&file, OWN_CONF);

    // Once customers have keys, only the key that sealed them will do.
    let program = world.start().await;
    give(&world, &program).await;
    program.terminate().await;
    let other = [("SEMEL_VPN_KEY", "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=")];
    let complaint = world.cli_with(&["serve"], &other).await.bad();
    has(&complaint, &["were sealed with the key ", "put the right one back"]);
    assert!(!complaint.contains("CQkJ"), "a secret is printed: {complaint}");
    let key = world.path("semel.db.vpn-key");
    assert_eq!(fs::metadata(&key).expect("the key is there").permissions().mode() & 0o777, 0o600);
    // A lost key is no first start: a new one would open nothing.
    let copy = fs::read_to_string(&key).expect("the key is text");
    fs::remove_file(&key).expect("the key goes");
    let complaint = world.cli(&["serve"]).await.bad();
    has(&complaint, &["semel.db.vpn-key is not there", "put your copy back", "No new one is made"]);
    let ill = world.cli(&["doctor"]).await;
    assert!(ill.code == Some(1) && ill.out.contains("BAD   the VPN's key "), "{}", ill.out);
    assert!(!key.exists(), "none was made");
    write_private(&key, &copy);
    let program = world.start().await;
    world.finish(program, Killed::BesideTelegram).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_notes_a_network_that_is_used_up_before_orders_wait() {
    let mut world = World::on(Engine::Sqlite).await;
    world.sells_vpn();
    world.set("SEMEL_VPN_NETWORK", "10.8.0.0/29");
    let program = world.start().await;
    program.grant(42, 3).await;
    program.vpn_settles(30).await;
    let calm = world.cli(&["doctor"]).await.out;
    assert!(!calm.contains("add a network"), "{calm}");
    program.grant(43, 1).await;
    program.vpn_settles(30).await;
    let high = world.cli(&["doctor"]).await.out;
    has(&high, &["note  4 of the 5 addresses of 10.8.0.0/29 are used: add a network before orders wait"]);
    program.grant(44, 1).await;
    program.vpn_settles(30).await;
    program.at_rest().await;
    program.terminate().await;
    // The same when nobody runs.
    let full = world.cli(&["doctor"]).await.out;
    has(&full, &["note  no address of 10.8.0.0/29 is free: orders wait until one is"]);
    let program = world.start().await;
    world.finish(program, Killed::BesideTelegram).await;
}

async fn give(world: &World, program: &Program) {
    world.cli(&["sub", "grant", "42", "--days", "30", "--reason", "a gift"]).await.good();
    program.vpn_settles(30).await;
    program.at_rest().await;
}
