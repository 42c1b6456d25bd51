//! Several hands on one file at once: the program under load, commands at the keyboard, and a person with an editor.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::json;

use semel_kernel::store::Engine;

use super::fake::Interface;
use super::{in_file, wanted};
use crate::process::program::{Killed, OWN_CONF, Patience, Program, World, text, write_private};

/// Customers who come while the file is edited.
const CUSTOMERS: i64 = 24;
/// Between two saves of the person.
const PACE: Duration = Duration::from_millis(15);
/// Saves between two customers.
const SAVES: usize = 8;
/// The last words, which must stand there in the end.
const LAST: usize = 1_000_001;

/// What the person writes below the server's own part.
fn words(number: usize) -> String {
    format!("\n# the human's words, number {number}\n")
}

/// Opens the file and saves it with these words: in place as some editors do it, or as another file that is renamed. What stands
/// from our fence on is saved as it was when the file was opened, however old that is by now.
fn save(file: &Path, number: usize) {
    let text = fs::read_to_string(file).expect("the file is there");
    let rest = text.find("# semel: begin").map_or("", |at| &text[at..]);
    let edited = format!("{OWN_CONF}{}{rest}", words(number));
    if number.is_multiple_of(2) {
        write_private(file, &edited);
        return;
    }
    let beside = file.with_file_name("wg0.conf.edited");
    write_private(&beside, &edited);
    fs::rename(&beside, file).expect("the editor saves");
}

/// A person who edits without an end.
struct Person {
    over: Arc<AtomicBool>,
    saved: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Person {
    fn at(file: PathBuf) -> Person {
        let (over, saved) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (end, count) = (Arc::clone(&over), Arc::clone(&saved));
        let thread = thread::spawn(move || {
            while !end.load(Ordering::SeqCst) {
                save(&file, count.load(Ordering::SeqCst) + 1);
                count.fetch_add(1, Ordering::SeqCst);
                thread::sleep(PACE);
            }
        });
        Person { over, saved, thread }
    }

    /// How often the file was saved.
    fn saved(&self) -> usize {
        self.saved.load(Ordering::SeqCst)
    }

    /// Waits until the file was saved a few times more.
    async fn saves_on(&self) {
        let (before, patience) = (self.saved(), Patience::of("somebody saves the file", 60));
        while self.saved() < before + SAVES {
            patience.wait().await;
        }
    }

    /// Answers how often the file was saved.
    fn end(self) -> usize {
        self.over.store(true, Ordering::SeqCst);
        self.thread.join().expect("somebody edits");
        self.saved.load(Ordering::SeqCst)
    }
}

/// Customers come, and every third one goes again.
async fn load(program: &Program, person: &Person) {
    for customer in 100..100 + CUSTOMERS {
        let gift = json!({ "customer": { "telegram_id": customer }, "days": 30, "devices": 1, "reason": "a gift" });
        let given = program.door.post("/api/v1/subscriptions", &gift).await;
        assert_eq!(given.status, 201, "access is given: {}", given.text);
        if customer % 3 == 0 {
            program.revoke(&text(&given.body["id"])).await;
        }
        person.saves_on().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_edits_the_file_meanwhile_keeps_the_last_words_and_so_does_the_database() {
    let mut world = World::on(Engine::Sqlite).await;
    let file = world.sells_vpn();
    let interface = Interface::of(&mut world);
    let program = world.start().await;
    program.vpn_settles(30).await;

    let person = Person::at(file.clone());
    let over = AtomicBool::new(false);
    let at_the_keyboard = async || {
        // What they say depends on the moment: the file may be half saved just then.
        while !over.load(Ordering::SeqCst) {
            world.cli(&["wg", "apply"]).await;
        }
    };
    let busy = async {
        load(&program, &person).await;
        let saved = person.end();
        over.store(true, Ordering::SeqCst);
        saved
    };
    let (saved, (), ()) = tokio::join!(busy, at_the_keyboard(), at_the_keyboard());
    assert!(saved > 50, "the file was saved {saved} times");

    // Who saves looks whether it is saved: an apply that looked at the file just before puts the earlier words back. One that
    // was asked for since is over when this one is, and then nobody writes any more.
    let patience = Patience::of("what the person saved stands in the file", 120);
    loop {
        save(&file, LAST);
        world.cli(&["wg", "apply"]).await.good();
        program.vpn_settles(60).await;
        if fs::read_to_string(&file).is_ok_and(|text| text.contains(&words(LAST))) {
            break;
        }
        patience.wait().await;
    }
    let keys = wanted(&program).await;
    assert_eq!(keys.len(), usize::try_from(CUSTOMERS * 2 / 3).expect("a count"));
    assert_eq!((&in_file(&file), &interface.peers()), (&keys, &keys), "ours are as the database wants them");
    let text = fs::read_to_string(&file).expect("the file is text");
    let theirs = format!("{OWN_CONF}{}# semel: begin", words(LAST));
    assert!(text.starts_with(&theirs), "what the person wrote last stands there byte for byte:\n{text}");
    let below = text.rsplit_once("# semel: end").map(|(_, below)| below.lines().count());
    assert_eq!(below, Some(1), "and nothing of ours below our lines:\n{text}");
    world.finish(program, Killed::BesideTelegram).await;
}
