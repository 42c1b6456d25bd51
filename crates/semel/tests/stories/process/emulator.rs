//! The bot beside somebody else's idea of the Bot API.
//!
//! The box is ours, so it may share our mistakes. Here the other side is `telegram-test-api`, an npm package that other bots are
//! tested with: it runs in Node.js as it comes from the registry, and knows a person, texts, commands, buttons and polling.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use semel_kernel::store::Engine;
use semel_sandbox::{self as outside, Provider};

use super::program::{Door, Order, Patience, Process, Program, World, text};

const PERSON: i64 = 7_000_000_001;
const NO_NODE: &str =
    "Node.js with npm is missing: as root run ./test, which installs it, or apt-get install nodejs npm";

/// The running emulator.
struct Emulator {
    _process: Process,
    _folder: TempDir,
    door: Door,
}

impl Emulator {
    async fn start() -> Emulator {
        let script = installed().join("emulator.js");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new("node");
        command.arg(script);
        let mut process = Process::start(command, folder.path());
        let patience = Patience::of("the emulator says where it listens", 30);
        let port: u16 = loop {
            let said = process.said();
            let word = said.lines().find_map(|line| line.strip_prefix("listening on "));
            if let Some(port) = word.and_then(|word| word.trim().parse().ok()) {
                break port;
            }
            if let Some(status) = process.ended() {
                panic!("the emulator ended with {status}:\n{}", process.log());
            }
            patience.wait().await;
        };
        let door = Door::at(SocketAddr::from(([127, 0, 0, 1], port)), "nobody-asks");
        Emulator { _process: process, _folder: folder, door }
    }

    fn url(&self) -> String {
        format!("http://{}", self.door.address())
    }

    async fn tell(&self, path: &str, mut update: Value) {
        update["botToken"] = json!(outside::BOT_TOKEN);
        update["from"] = json!({ "id": PERSON, "first_name": "Ann", "is_bot": false, "language_code": "en" });
        let told = self.door.post(path, &update).await;
        assert_eq!(told.status, 200, "the emulator takes it: {}", told.text);
    }

    /// The person writes a command.
    async fn command(&self, words: &str) {
        let chat = json!({ "id": PERSON, "type": "private", "first_name": "Ann" });
        let entities = json!([{ "offset": 0, "length": words.len(), "type": "bot_command" }]);
        self.tell("/sendCommand", json!({ "chat": chat, "date": 1, "text": words, "entities": entities })).await;
    }

    /// The person presses the newest button with these words.
    async fn press(&self, words: &str) {
        let data = self.until(&format!("there is a button {words:?}"), |said| button(said, words)).await;
        let message = json!({ "chat": { "id": PERSON, "type": "private", "first_name": "Ann" } });
        self.tell("/sendCallback", json!({ "message": message, "data": data })).await;
    }

    /// Waits until the bot has said these words to the person.
    async fn heard(&self, words: &str) -> String {
        let has = |said: &Value| Some(text(&said["text"])).filter(|text| text.contains(words));
        self.until(&format!("the bot said {words:?}"), has).await
    }

    /// Waits until a message of the bot in the person's chat answers something; the newest one is asked first.
    async fn until(&self, what: &str, holds: impl Fn(&Value) -> Option<String>) -> String {
        let patience = Patience::of(what.to_owned(), 60);
        loop {
            let said = self.said().await;
            if let Some(found) = said.iter().rev().find_map(&holds) {
                return found;
            }
            patience.wait().await;
        }
    }

    /// What the bot said in the person's chat.
    async fn said(&self) -> Vec<Value> {
        let answer = self.door.post("/getUpdatesHistory", &json!({ "token": outside::BOT_TOKEN })).await;
        assert_eq!(answer.status, 200, "the emulator tells what it has: {}", answer.text);
        let all = answer.body["result"].as_array().cloned().unwrap_or_default();
        // A message of the bot names its chat as the bot did, one of a person as Telegram does.
        all.into_iter().map(|one| one["message"].clone()).filter(|said| said["chat_id"] == PERSON).collect()
    }
}

/// What the button with these words of a message sends.
fn button(said: &Value, words: &str) -> Option<String> {
    let rows = said["reply_markup"]["inline_keyboard"].as_array()?;
    let mut buttons = rows.iter().filter_map(Value::as_array).flatten();
    let found = buttons.find(|button| text(&button["text"]).contains(words))?;
    found["callback_data"].as_str().map(str::to_owned)
}

/// The folder of the emulator with everything that its lock file names, fetched once for each lock file.
fn installed() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emulator");
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulator");
    fs::create_dir_all(&place).expect("a folder below target");
    for file in ["package.json", "package-lock.json", "emulator.js"] {
        fs::copy(source.join(file), place.join(file)).expect("the emulator's files are there");
    }
    let node = Command::new("node").arg("--version").output();
    assert!(node.is_ok_and(|node| node.status.success()), "{NO_NODE}");
    let (lock, done) = (place.join("package-lock.json"), place.join("installed"));
    let lock = fs::read(lock).expect("the lock file can be read");
    if fs::read(&done).is_ok_and(|known| known == lock) {
        return place;
    }
    let install = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    let npm = Command::new("npm").args(install).current_dir(&place).output();
    let npm = npm.unwrap_or_else(|error| panic!("{NO_NODE} ({error})"));
    let words = String::from_utf8_lossy(&npm.stderr);
    assert!(npm.status.success(), "npm could not fetch the emulator; is there a way to its registry?\n{words}");
    fs::write(done, lock).expect("a note that it is there");
    place
}

/// A campaign to everybody, looked at, tested and begun.
async fn campaign(program: &Program) {
    let door = &program.door;
    let texts = json!({ "ru": { "html": "<b>Весна</b>" }, "en": { "html": "<b>Spring</b>" } });
    let made = door.post("/api/v1/campaigns", &json!({ "title": "Spring", "rule": {}, "texts": texts })).await;
    assert_eq!(made.status, 201, "a campaign is made: {}", made.text);
    let path = format!("/api/v1/campaigns/{}", text(&made.body["id"]));
    for act in ["preview", "test"] {
        let done = door.post(&format!("{path}/{act}"), &json!({})).await;
        assert_eq!(done.status, 200, "{act}: {}", done.text);
    }
    let patience = Patience::of("the owner has the test", 30);
    while door.get(&path).await.body["tested"] != true {
        patience.wait().await;
    }
    let begun = door.post(&format!("{path}/start"), &json!({})).await;
    assert_eq!(begun.status, 200, "it begins: {}", begun.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_buys_and_gets_news_over_an_emulator_that_is_not_ours() {
    let emulator = Emulator::start().await;
    let url = emulator.url();
    let settings = [("SEMEL_TELEGRAM_API_URL", url.as_str()), ("SEMEL_TELEGRAM_UPDATES", "polling")];
    let world = World::with(Engine::Sqlite, &settings).await;
    let program = world.start().await;
    program.product(&["KEY-1".to_owned()]).await;

    emulator.command("/start").await;
    emulator.heard("Buy here and get it at once").await;
    emulator.press("Catalog").await;
    emulator.press("Licence key").await;
    emulator.press("Buy for").await;
    emulator.press("Card").await;
    emulator.heard("waits for payment").await;

    let patience = Patience::of("the payment is there", 30);
    let payment = loop {
        if let Some(payment) = world.sandbox.payments(Provider::Yookassa).pop() {
            break payment;
        }
        patience.wait().await;
    };
    let order = Order { id: String::new(), customer: PERSON, provider_id: payment.id };
    let hook = world.pay(&order);
    world.acknowledged(hook).await;
    emulator.heard("KEY-1").await;

    campaign(&program).await;
    emulator.heard("Spring").await;

    program.at_rest().await;
    let said: Vec<String> = emulator.said().await.iter().map(|said| text(&said["text"])).collect();
    for words in ["Buy here and get it at once", "KEY-1", "Spring"] {
        assert_eq!(said.iter().filter(|text| text.contains(words)).count(), 1, "{words:?} once: {said:#?}");
    }
    let verdict = world.cli(&["verify", "--at-rest"]).await.good();
    assert!(verdict.contains("every promise that can be checked here holds"), "{verdict}");
    program.terminate().await;
}
