//! The machine that the figures belong to.

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use semel_kernel::clock::Stopwatch;

/// Sentences about processor, memory and disk.
pub fn describe(work: &Path) -> Result<Vec<String>> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, name: &str| -> Option<String> {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let (cpu, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let model = value(&cpu, "model name").unwrap_or_else(|| "processor of unknown name".to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let total = value(&memory, "MemTotal").unwrap_or_default();
    let kib: u64 = total.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0);
    let kernel = read("/proc/sys/kernel/osrelease");
    let filesystem = std::env::var("BENCH_FILESYSTEM").unwrap_or_else(|_| "unknown".to_owned());
    let (syncs, slowest) = sync_rate(work)?;
    Ok(vec![
        format!(
            "Machine: {model}, {cores} cores used, {:.1} GiB of memory, Linux {}",
            kib as f64 / 1_048_576.0,
            kernel.trim()
        ),
        format!(
            "Disk: {filesystem}, {syncs:.0} syncs a second one after another (4 KiB overwritten, fdatasync; mean {:.2} ms, slowest {:.2} ms)",
            1000.0 / syncs.max(0.001),
            slowest.as_secs_f64() * 1000.0
        ),
        "Load, outside world and measured programs share this machine.".to_owned(),
    ])
}

/// Synced overwrites of one block a second, and the slowest of them.
fn sync_rate(work: &Path) -> Result<(f64, Duration)> {
    let path = work.join("sync_rate");
    let mut file = File::options().create(true).truncate(true).write(true).open(&path)?;
    let block = [7_u8; 4096];
    file.write_all(&block)?;
    file.sync_all()?;
    let (whole, mut count, mut slowest) = (Stopwatch::start(), 0_u32, Duration::ZERO);
    while whole.elapsed() < Duration::from_secs(2) {
        let one = Stopwatch::start();
        file.rewind()?;
        file.write_all(&block)?;
        file.sync_data()?;
        slowest = slowest.max(one.elapsed());
        count += 1;
    }
    let rate = f64::from(count) / whole.elapsed().as_secs_f64();
    fs::remove_file(path)?;
    Ok((rate, slowest))
}
