//! A run of sales whose every change is written down, over several lives of the program.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use semel_kernel::clock::{Clock, Time};

use super::trace::Trace;
use crate::program::{Patience, Program, World};
use crate::syscalls::ground::{Shared, data};
use crate::syscalls::plan::{Died, Plan, rest};
use crate::syscalls::shim::{Acknowledged, Acks, Action, Control, Kind};

/// What is recorded.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Which recording this is; its name in a trouble.
    pub number: usize,
    /// Sales at each provider, in each of three lives.
    pub sales: i64,
    /// Whether so much comes into stock that SQLite moves its log into the file.
    pub checkpoint: bool,
}

/// A recorded run.
pub struct Recording {
    /// Every change.
    pub trace: Trace,
    /// Everything that was acknowledged, in its order.
    pub acknowledged: Vec<Acknowledged>,
    /// When it was over.
    pub end: Time,
}

/// Records: the first life begins with no file at all and ends well, the second one dies
/// between a write and its sync, the third one comes back from what it finds.
///
/// # Errors
/// Something did not go well, though nothing was cut.
pub async fn record(ground: Shared, wish: Wish) -> Result<Recording, String> {
    let world = World::in_file("data/semel.db", &[]).await;
    let recording = live(&ground, &world, wish).await;
    world.sandbox.clone().stop().await;
    recording
}

async fn live(ground: &Shared, world: &World, wish: Wish) -> Result<Recording, String> {
    let folder = data(world);
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let control = Control::new(world.path("control")).map_err(|error| error.to_string())?;
    let acks = Acks::new(control.clone());
    let quiet =
        Plan { name: "quiet", sales: wish.sales, together: false, import: 0, second_thoughts: true, from: 5000 };
    let first = Plan { name: "first", import: 200, ..quiet.clone() };
    let second = Plan { name: "second", together: true, from: 6000, ..quiet.clone() };
    let third = Plan { name: "third", together: true, import: 200, from: 7000, ..quiet };
    let (mut logs, mut product) = (Vec::new(), String::new());
    for life in 1..=3 {
        let log = world.path(&format!("disk-{life}.log"));
        let environment = control.environment(&ground.shim, &folder, Some(&log));
        logs.push(log);
        let (mut program, _) = ground.start(world, &environment).await;
        let door = program.door.clone();
        if life == 1 {
            let goods: Vec<String> = (0..wish.sales * 12).map(|n| format!("KEY-{n:04}")).collect();
            product = program.product(&goods).await;
            gone(first.run(world, &door, &product, &acks).await)?;
        } else if life == 2 {
            if wish.checkpoint {
                fill_the_log(world, &program, &product).await;
            }
            // Written and not synced: the next life finds it in the log, and must not say yes to what a cut could undo.
            control.arm(Kind::Sync, 6 + 5 * wish.number as u64, Action::Death);
            let ran = second.run(world, &door, &product, &acks).await;
            if control.has_struck() {
                program.process.wait_exit(30).await;
            } else {
                gone(ran)?;
                program.process.kill_9();
            }
            continue;
        } else {
            gone(second.run(world, &door, &product, &acks).await)?;
            gone(third.run(world, &door, &product, &acks).await)?;
        }
        gone(rest(&door).await)?;
        program.terminate().await;
    }
    let trace = read(&logs)?;
    Ok(Recording { trace, acknowledged: acks.all(), end: Clock::system().now() })
}

/// A program that broke off although nothing was cut.
fn gone(ran: Result<(), Died>) -> Result<(), String> {
    ran.map_err(|died| format!("the program broke off: {}", died.0))
}

fn read(logs: &[PathBuf]) -> Result<Trace, String> {
    Trace::read(logs).map_err(|error| error.to_string())
}

/// Brings stock in until SQLite has moved its log into the file, which grows by that.
async fn fill_the_log(world: &World, program: &Program, product: &str) {
    let file = data(world).join("semel.db");
    let length = || fs::metadata(&file).map_or(0, |about| about.len());
    let (before, patience) = (length(), Patience::of("SQLite moves its log into the file", 240));
    let mut turn = 0;
    while length() <= before {
        turn += 1;
        let goods: Vec<String> = (0..500).map(|n| format!("KEY-more-{n}-{turn}")).collect();
        let path = format!("/api/v1/products/{product}/stock");
        let stock = program.door.post(&path, &json!({ "items": goods })).await;
        assert_eq!(stock.status, 200, "stock comes in: {}", stock.text);
        patience.wait().await;
    }
}
