//! Cron expressions as rows hold them: another version of the program wrote them.

use std::time::Duration;

use semel_kernel::args;
use semel_kernel::cron::{self, CatchUp, Schedule};
use semel_kernel::store::StoreError;
use semel_kernel::store::migrate::{KERNEL, Room};
use semel_kernel::testing::TestStore;
use tokio::runtime::Runtime;

use super::{Subject, TAKEN, Verdict};

/// What expressions are made of.
pub const WORDS: &[&str] = &[
    "* * * * *",
    "0 0 30 2 *",
    "*/5",
    "1-5",
    "L",
    "W",
    "#3",
    "MON",
    "JAN",
    "@daily",
    "@reboot",
    "0 0 29 2 MON#5",
    "?",
];

const ROOMS: &[Room] = &[KERNEL];
const FUZZED: &[Schedule] = &[Schedule { name: "fuzzed", expression: "0 * * * *", catch_up: CatchUp::All }];
const PUT: &str = "insert into cron (name, expression, catch_up, next_at) values ($1, $2, $3, $4)
    on conflict (name) do update set expression = excluded.expression, catch_up = excluded.catch_up, next_at = excluded.next_at";

struct Rows {
    runtime: Runtime,
    store: TestStore,
}

/// Starts the target on a database of its own.
pub fn cron() -> Box<dyn Subject> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let store = runtime.block_on(TestStore::sqlite(ROOMS));
    Box::new(Rows { runtime, store })
}

impl Subject for Rows {
    /// The first line is the policy, the rest the expression. A tick that is due is written, and the next one lies ahead.
    fn feed(&mut self, input: &[u8]) -> Verdict {
        let text = String::from_utf8_lossy(input).into_owned();
        let (policy, expression) = text.split_once('\n').unwrap_or(("all", text.as_str()));
        let policy = if matches!(policy, "skip" | "once") { policy.to_owned() } else { "all".to_owned() };
        let (expression, of) = (expression.to_owned(), policy.clone());
        let looked = self.store.store.write("fuzz.cron", move |tx| {
            let now = tx.now();
            let planned = now - Duration::from_secs(90);
            tx.execute(PUT, args!["fuzzed", &expression, &of, planned])?;
            let written = cron::due(tx, FUZZED, |_, _, _| Ok(()))?;
            let next = cron::next_at(tx, FUZZED)?;
            Ok::<_, StoreError>((written, planned, now, next))
        });
        match self.runtime.block_on(looked) {
            Ok((written, planned, now, Some(next))) => {
                let ahead = if policy == "all" && written == 1_000 { next > planned } else { next > now };
                if !ahead || written > 1_000 {
                    return Err(format!("{written} ticks were written and the next one is at {next}, now is {now}"));
                }
                Ok(format!("{TAKEN}: {policy}, {}", written.min(2)))
            }
            Ok((_, _, _, None)) => Err("the schedule has no row any more".into()),
            Err(StoreError::Schema(text)) if text.starts_with("the schedule fuzzed (") => {
                let why = text.rsplit(": ").next().unwrap_or_default();
                Ok(format!("refused: {}", super::notices::kind_of(why)))
            }
            Err(error) => Err(format!("{error}")),
        }
    }
}
