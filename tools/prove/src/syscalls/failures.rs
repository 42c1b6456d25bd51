//! The n-th sync fails: from then on nobody knows what the disk holds, so the program says yes to nothing more and ends.
//!
//! What the failed sync should have made durable is taken from the disk before the next start, as a kernel may do that
//! calls its dirty pages clean after the error.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use semel_sandbox::{HookState, Sandbox};

use super::deaths::{Point, Tally};
use super::ground::{Shared, data, last_words, parts, spread};
use super::plan::rest;
use super::shim::{Acks, Action, Control};
use crate::power::disk::Disk;
use crate::power::trace::Trace;

/// The exit code of a program whose disk failed: EX_IOERR of `sysexits.h`.
const DISK_FAILED: i32 = 74;

/// Lets each of these syncs fail.
pub async fn failures(ground: &Shared, at_once: usize, points: Vec<Point>) -> Tally {
    let mut tally = Tally::default();
    for (point, outcome) in spread(at_once, points, |point| failure(ground.clone(), point)).await {
        tally.add(&format!("{} that fails", point.name()), outcome);
    }
    tally
}

/// One failure, and the life after it. None when the sync was never made.
async fn failure(ground: Shared, point: Point) -> Result<Option<Duration>, String> {
    let world = ground.world().await;
    let control = Control::new(world.path("control")).map_err(|error| error.to_string())?;
    let (folder, log) = (data(&world), world.path("disk.log"));
    let mut disk = Disk::of(&folder).map_err(|error| format!("the files cannot be read: {error}"))?;
    let environment = control.environment(&ground.shim, &folder, Some(&log));
    let (mut program, _) = ground.start(&world, &environment).await;
    let acks = Arc::new(Acks::new(control.clone()));
    let over = Arc::new(AtomicBool::new(false));
    let _end = End(Arc::clone(&over));
    let knocker = tokio::spawn(knock(world.sandbox.clone(), Arc::clone(&acks), Arc::clone(&over)));
    control.arm(point.kind, point.nth, Action::Failure);
    let mut ran = point.plan.run(&world, &program.door, &ground.product, &acks).await;
    if ran.is_ok() {
        ran = rest(&program.door).await;
    }
    if !control.has_struck() {
        over.store(true, Ordering::SeqCst);
        let _ = knocker.await;
        let log = last_words(&program.process);
        program.process.kill_9();
        world.sandbox.clone().stop().await;
        return ran.map(|()| None).map_err(|died| format!("broke off, and no sync had failed: {}\n{log}", died.0));
    }
    let status = program.process.wait_exit(30).await;
    over.store(true, Ordering::SeqCst);
    let _ = knocker.await;
    let mut wrong = acks.complaints();
    if status.code() != Some(DISK_FAILED) {
        wrong.push(format!(
            "ended with {status} instead of the exit code {DISK_FAILED}: {}",
            last_words(&program.process)
        ));
    }
    drop(program);

    let trace = Trace::read(&[log]).map_err(|error| error.to_string())?;
    disk.advance(&trace, trace.records.len());
    let _ = fs::remove_file(folder.join("semel.db-shm"));
    for name in parts() {
        let _ = fs::remove_file(folder.join(name));
    }
    disk.synced().write(&folder).map_err(|error| format!("the files cannot be written: {error}"))?;
    let outcome = ground.second_life(world, &point.plan).await;
    match outcome {
        Ok(ready) if wrong.is_empty() => Ok(Some(ready)),
        Ok(_) => Err(wrong.join("; ")),
        Err(error) => {
            wrong.push(error);
            Err(wrong.join("; "))
        }
    }
}

/// Ends what watches this flag, however the scenario ends.
struct End(Arc<AtomicBool>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A provider that repeats itself all the time, so that somebody asks right after the failure.
async fn knock(sandbox: Sandbox, acks: Arc<Acks>, over: Arc<AtomicBool>) {
    while !over.load(Ordering::SeqCst) {
        let known = sandbox.hooks().into_iter().find(|hook| hook.state == HookState::Delivered);
        if let Some(hook) = known {
            let failed = acks.disk_has_failed();
            let outcome = sandbox.resend(hook.id).await;
            if failed && outcome.status == Some(200) {
                acks.complain(format!("the repeat of {} was acknowledged after a sync had failed", hook.event_id));
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
