//! Named places where a test may kill the process: before and after every commit, every outside call, every claim.
//!
//! Without the build feature `failpoints` this is nothing. With it, `SEMEL_FAILPOINT=<place>:<label>[#n]` makes the
//! process kill itself (signal 9, no clean-up) when it reaches that place for the n-th time, and
//! `SEMEL_FAILPOINT_TRACE=<file>` appends the name of each place as it is reached, so that a test can find all of them.

/// Reaches the place `place` of the work `label`.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn hit(_place: &str, _label: &str) {}

/// Reaches the place `place` of the work `label`.
#[cfg(feature = "failpoints")]
pub fn hit(place: &str, label: &str) {
    use std::collections::HashMap;
    use std::io::Write;
    use std::sync::{LazyLock, Mutex, PoisonError};

    static TRACE: LazyLock<Option<Mutex<std::fs::File>>> = LazyLock::new(|| {
        let path = std::env::var_os("SEMEL_FAILPOINT_TRACE")?;
        std::fs::File::options().create(true).append(true).open(path).ok().map(Mutex::new)
    });
    static ARMED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let text = std::env::var("SEMEL_FAILPOINT").ok()?;
        Some(match text.split_once('#') {
            Some((name, nth)) => (name.to_owned(), nth.parse().unwrap_or(1)),
            None => (text, 1),
        })
    });
    static HITS: LazyLock<Mutex<HashMap<String, u64>>> = LazyLock::new(Mutex::default);

    let name = format!("{place}:{label}");
    if let Some(trace) = &*TRACE {
        let _ = writeln!(trace.lock().unwrap_or_else(PoisonError::into_inner), "{name}");
    }
    let Some((armed, nth)) = &*ARMED else { return };
    if *armed != name {
        return;
    }
    let count = {
        let mut hits = HITS.lock().unwrap_or_else(PoisonError::into_inner);
        let count = hits.entry(name).or_default();
        *count += 1;
        *count
    };
    if count == *nth {
        kill_self();
    }
}

/// Signal 9 to this very process; nothing after it runs.
#[cfg(feature = "failpoints")]
fn kill_self() -> ! {
    let _ = std::process::Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
    loop {
        std::thread::park();
    }
}
