//! Calling `wg` (or AmneziaWG's `awg`): what an interface has, and what it shall have.
//!
//! Secrets go through standard input, never through arguments, which every user of the machine can read. A call that
//! hangs is killed and reaped at the deadline. That a call ended well is no proof that it did anything: whoever needs to
//! know looks again ([`crate::reconcile`]).

#[cfg(test)]
pub(crate) mod fake;

use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::dump::{self, DumpError};
use crate::file::{NoSteps, Steps};
use crate::key::PublicKey;
use crate::peer::Peer;
use crate::plan::{Plan, Seen};

/// How many peers go into one `addconf`.
const MOST_ADDED: usize = 5_000;
/// How many peers go into one `set … remove`: keys are arguments, and their length is bounded.
const MOST_REMOVED: usize = 500;
/// How often an `addconf` that the tool refuses is tried again in halves. Three bad peers are found in a full one with that.
const MOST_SPLITS: usize = 40;
/// A dump of more than this is none: it is room for some 300,000 peers.
const MOST_OUT: u64 = 64 << 20;
/// How long a killed call is waited for.
const TO_DIE: Duration = Duration::from_secs(5);
/// What a tool may say about its failure.
const MOST_SAID: u64 = 64 << 10;

/// The program that knows the interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// `wg` or `awg`: a path, or a name that is looked for in `PATH`.
    pub program: PathBuf,
    /// How long one call may take.
    pub deadline: Duration,
}

/// Why a call did not bring what it should. None of it holds a secret.
#[derive(Debug, Error)]
pub enum ToolError {
    /// Not the name of one interface.
    #[error(
        "{0:?} is not the name of an interface (1 to 15 of a-z, A-Z, 0-9 and _=+.-; neither `all` nor `interfaces`)"
    )]
    Interface(String),
    /// The program is not there or may not be run.
    #[error("cannot run {program}: {cause}")]
    Start {
        /// Which one.
        program: String,
        /// What the system said.
        cause: io::Error,
    },
    /// It did not end in time. Whether it did its work is not known.
    #[error("`{call}` did not end within {after:?} and was killed")]
    TimedOut {
        /// The call, without keys.
        call: String,
        /// The deadline.
        after: Duration,
    },
    /// It ended badly.
    #[error("`{call}` failed ({status}): {said}")]
    Failed {
        /// The call, without keys.
        call: String,
        /// How it ended.
        status: ExitStatus,
        /// The first line of what it said, with all that could be a key left out.
        said: String,
    },
    /// What it printed makes no sense.
    #[error("`{call}`: {problem}")]
    Garbage {
        /// The call.
        call: String,
        /// What is wrong with it.
        problem: DumpError,
    },
    /// Talking to it failed.
    #[error("`{call}`: {cause}")]
    Io {
        /// The call, without keys.
        call: String,
        /// What the system said.
        cause: io::Error,
    },
}

impl ToolError {
    /// Whether the next call would only meet the same wall. The others say no more than that the tool refused something.
    pub(crate) fn ends_all(&self) -> bool {
        !matches!(self, Self::Failed { .. })
    }
}

impl Tool {
    /// What the interface has now.
    ///
    /// # Errors
    /// When the tool cannot be run, does not end in time, ends badly, or prints what is not a whole dump.
    pub async fn show(&self, interface: &str) -> Result<Seen, ToolError> {
        self.show_with(interface, &NoSteps).await
    }

    /// As [`Tool::show`], told to `steps`.
    ///
    /// # Errors
    /// As [`Tool::show`].
    pub async fn show_with(&self, interface: &str, steps: &dyn Steps) -> Result<Seen, ToolError> {
        check(interface)?;
        let call = self.call("show", interface);
        told(&call, steps.at("show.before"))?;
        let printed = self.run(&call, &["show", interface, "dump"], None).await?;
        told(&call, steps.at("show.after"))?;
        dump::parse(&printed).map_err(|problem| ToolError::Garbage { call, problem })
    }

    /// Takes away and brings what the plan says, in a bounded number of calls; other sessions stay up.
    ///
    /// Peers that shall go go first: their owners have not paid. A piece that the tool refuses does not keep the other
    /// pieces from being tried, and is itself tried again in halves, so that one bad peer keeps nobody else out.
    ///
    /// # Errors
    /// The first one. What was done before it stays done.
    pub async fn apply(&self, interface: &str, plan: &Plan) -> Result<(), ToolError> {
        self.apply_with(interface, plan, &NoSteps).await
    }

    /// As [`Tool::apply`], told to `steps`.
    ///
    /// # Errors
    /// As [`Tool::apply`].
    pub async fn apply_with(&self, interface: &str, plan: &Plan, steps: &dyn Steps) -> Result<(), ToolError> {
        check(interface)?;
        let mut first = None;
        for keys in plan.remove.chunks(MOST_REMOVED) {
            keep_first(&mut first, self.remove(interface, keys, steps).await)?;
        }
        let wanted = plan.add.iter().map(|peer| (peer, false)).chain(plan.change.iter().map(|peer| (peer, true)));
        let wanted: Vec<(&Peer, bool)> = wanted.collect();
        let mut pieces: Vec<&[(&Peer, bool)]> = wanted.chunks(MOST_ADDED).rev().collect();
        let mut splits = 0;
        while let Some(piece) = pieces.pop() {
            let done = self.add(interface, piece, steps).await;
            let is_refused = done.as_ref().is_err_and(|error| !error.ends_all());
            keep_first(&mut first, done)?;
            if is_refused && piece.len() > 1 && splits < MOST_SPLITS {
                splits += 1;
                let (one, other) = piece.split_at(piece.len() / 2);
                pieces.extend([other, one]);
            }
        }
        first.map_or(Ok(()), Err)
    }

    async fn remove(&self, interface: &str, keys: &[PublicKey], steps: &dyn Steps) -> Result<(), ToolError> {
        let call = self.call("set", interface);
        let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
        let mut args = vec!["set", interface];
        for key in &keys {
            args.extend(["peer", key.as_str(), "remove"]);
        }
        told(&call, steps.at("remove.before"))?;
        self.run(&call, &args, None).await?;
        told(&call, steps.at("remove.after"))
    }

    /// Adds peers, or brings those that are there to what is wanted.
    async fn add(&self, interface: &str, piece: &[(&Peer, bool)], steps: &dyn Steps) -> Result<(), ToolError> {
        let call = self.call("addconf", interface);
        let mut text = Zeroizing::new(String::with_capacity(piece.len() * 512));
        for (peer, is_there) in piece {
            peer.write_to_tool(&mut text, *is_there);
        }
        told(&call, steps.at("addconf.before"))?;
        self.run(&call, &["addconf", interface, "/dev/stdin"], Some(text.as_bytes())).await?;
        told(&call, steps.at("addconf.after"))
    }

    /// Runs the program to its end or to the deadline; returns what it printed.
    async fn run(&self, call: &str, args: &[&str], input: Option<&[u8]>) -> Result<Zeroizing<Vec<u8>>, ToolError> {
        let mut command = Command::new(&self.program);
        // Our own environment holds secrets that are none of its business.
        command.args(args).env_clear().env("LC_ALL", "C");
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child =
            command.spawn().map_err(|cause| ToolError::Start { program: self.program.display().to_string(), cause })?;

        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let feed = async {
            if let (Some(mut pipe), Some(input)) = (stdin, input) {
                // One that ends without listening breaks the pipe; its end says more than that.
                let _ = pipe.write_all(input).await;
            }
        };
        let talk = async { tokio::join!(feed, collect(stdout, MOST_OUT), collect(stderr, MOST_SAID), child.wait()) };
        let ended = timeout(self.deadline, talk).await;
        let Ok(((), printed, said, status)) = ended else {
            // Waits for its end, too: a dead child that nobody asked for would stay in the table of processes.
            // One that the kernel itself holds up cannot be waited for; the runtime reaps it when it comes free.
            if !matches!(timeout(TO_DIE, child.kill()).await, Ok(Ok(()))) {
                tracing::warn!(call, "a call that hangs could not be killed");
            }
            return Err(ToolError::TimedOut { call: call.to_owned(), after: self.deadline });
        };
        let lost = |cause| ToolError::Io { call: call.to_owned(), cause };
        let status = status.map_err(lost)?;
        if !status.success() {
            let said = first_line(&said.map_err(lost)?);
            return Err(ToolError::Failed { call: call.to_owned(), status, said });
        }
        printed.map_err(lost)
    }

    /// How errors name a call: no keys in it.
    fn call(&self, verb: &str, interface: &str) -> String {
        let program = self.program.file_name().unwrap_or_default().to_string_lossy();
        format!("{program} {verb} {interface}")
    }
}

/// Remembers the first failure. One that would come again with each further call ends it all.
fn keep_first(first: &mut Option<ToolError>, done: Result<(), ToolError>) -> Result<(), ToolError> {
    let Err(error) = done else { return Ok(()) };
    let ends_all = error.ends_all();
    let error = first.take().unwrap_or(error);
    if ends_all {
        return Err(error);
    }
    *first = Some(error);
    Ok(())
}

fn told(call: &str, said: io::Result<()>) -> Result<(), ToolError> {
    said.map_err(|cause| ToolError::Io { call: call.to_owned(), cause })
}

/// A name that is an option, or stands for several interfaces, would make the tool do something else.
fn check(interface: &str) -> Result<(), ToolError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_=+.-".contains(&byte);
    let is_name = (1..=15).contains(&interface.len())
        && interface.bytes().all(allowed)
        && !interface.starts_with(['-', '.'])
        && !matches!(interface, "all" | "interfaces");
    if is_name { Ok(()) } else { Err(ToolError::Interface(interface.to_owned())) }
}

async fn collect(pipe: Option<impl AsyncRead + Unpin>, most: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes: Zeroizing<Vec<u8>> = Zeroizing::new(Vec::new());
    if let Some(pipe) = pipe {
        pipe.take(most).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// The first line of what a tool said. `wg` repeats the values that it does not like, so long words, which could be keys,
/// are left out.
fn first_line(said: &[u8]) -> String {
    let line = said.split(|byte| *byte == b'\n').find(|line| !line.trim_ascii().is_empty()).unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut shown = String::new();
    let mut word = String::new();
    for found in line.chars().take(400).chain([' ']) {
        if found.is_ascii_alphanumeric() || matches!(found, '+' | '/' | '=') {
            word.push(found);
            continue;
        }
        shown.push_str(if word.len() < 24 { &word } else { "…" });
        word.clear();
        shown.push(if found.is_control() { ' ' } else { found });
    }
    match shown.trim() {
        "" => "it did not say why".to_owned(),
        shown => shown.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::fake::Fake;
    use super::*;
    use crate::peer::testing::{key, peer, peers, preshared};

    fn to_add(wanted: Vec<Peer>) -> Plan {
        Plan { add: wanted, ..Plan::default() }
    }

    #[tokio::test]
    async fn peers_come_change_and_go() {
        let fake = Fake::new();
        let tool = fake.tool();
        assert!(tool.show("wg0").await.unwrap().peers.is_empty());
        tool.apply("wg0", &to_add(peers([1, 2]))).await.unwrap();
        let seen = tool.show("wg0").await.unwrap();
        assert!(peer(1).is_shown_by(&seen.peers[&key(1)]) && peer(2).is_shown_by(&seen.peers[&key(2)]));

        let mut changed = peer(2);
        changed.preshared = None;
        changed.allowed.pop();
        let plan = Plan { change: vec![changed.clone()], remove: vec![key(1)], ..Plan::default() };
        tool.apply("wg0", &plan).await.unwrap();
        let seen = tool.show("wg0").await.unwrap();
        assert_eq!(seen.peers.keys().copied().collect::<Vec<_>>(), [key(2)]);
        assert!(changed.is_shown_by(&seen.peers[&key(2)]));
    }

    #[tokio::test]
    async fn secrets_are_told_and_never_stand_in_the_arguments() {
        let fake = Fake::new();
        fake.tool().apply("wg0", &to_add(peers([1, 2]))).await.unwrap();
        let secret = preshared(1).to_base64();
        assert!(fake.heard().contains(secret.as_str()));
        let args = fake.args();
        assert_eq!(args, ["addconf wg0 /dev/stdin"]);
        let seen = fake.tool().show("wg0").await.unwrap();
        assert!(!format!("{seen:?}").contains(secret.as_str()));
    }

    #[tokio::test]
    async fn a_burst_is_a_few_calls() {
        let fake = Fake::new();
        fake.lies("addconf");
        fake.lies("set");
        let plan = Plan { add: peers(0..5_001), remove: (6_000..7_001).map(key).collect(), ..Plan::default() };
        fake.tool().apply("wg0", &plan).await.unwrap();
        let args = fake.args();
        let verbs: Vec<&str> = args.iter().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(verbs, ["set", "set", "set", "addconf", "addconf"]);
        assert_eq!(args[0].matches(" remove").count(), 500);
        // Nothing to do is no call.
        fake.tool().apply("wg0", &Plan::default()).await.unwrap();
        assert_eq!(fake.args().len(), 5);
    }

    #[tokio::test]
    async fn a_call_that_fails_says_why_without_a_key() {
        let fake = Fake::new();
        let secret = preshared(1).to_base64();
        fake.fails("addconf", &format!("\nKey is not the correct length or format: `{}'\nmore", secret.as_str()));
        let error = fake.tool().apply("wg0", &to_add(peers([1]))).await.unwrap_err();
        assert!(matches!(error, ToolError::Failed { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("wg addconf wg0") && text.ends_with("Key is not the correct length or format: `…'"),
            "{text}"
        );
        assert!(!format!("{error:?}").contains(secret.as_str()));
    }

    #[tokio::test]
    async fn a_removal_that_fails_does_not_keep_a_customer_waiting() {
        let fake = Fake::new();
        fake.fails("set", "No such device");
        let plan = Plan { add: peers([1]), remove: vec![key(2)], ..Plan::default() };
        let error = fake.tool().apply("wg0", &plan).await.unwrap_err();
        assert!(error.to_string().contains("wg set wg0"), "{error}");
        assert!(fake.tool().show("wg0").await.unwrap().peers.contains_key(&key(1)));
    }

    #[tokio::test]
    async fn one_peer_that_the_tool_refuses_keeps_nobody_else_out() {
        let fake = Fake::new();
        fake.refuses(&key(5));
        let error = fake.tool().apply("wg0", &to_add(peers(0..9))).await.unwrap_err();
        assert!(matches!(error, ToolError::Failed { .. }), "{error}");
        let seen = fake.tool().show("wg0").await.unwrap();
        let there: Vec<u32> = (0..9).filter(|n| seen.peers.contains_key(&key(*n))).collect();
        assert_eq!(there, [0, 1, 2, 3, 4, 6, 7, 8]);
        assert!(fake.args().len() <= 1 + 2 * 4 + 1, "halves, not one by one: {}", fake.args().len());
    }

    #[tokio::test]
    async fn a_call_that_hangs_is_killed_and_reaped() {
        let fake = Fake::new();
        fake.hangs("show");
        let mut tool = fake.tool();
        tool.deadline = Duration::from_secs(2);
        let error = tool.show("wg0").await.unwrap_err();
        assert!(matches!(error, ToolError::TimedOut { .. }), "{error}");
        let pid = fake.pid();
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{pid} is still there");

        fake.hangs("set");
        let plan = Plan { add: peers([1]), remove: vec![key(2)], ..Plan::default() };
        assert!(matches!(tool.apply("wg0", &plan).await, Err(ToolError::TimedOut { .. })));
        assert!(!fake.args().iter().any(|line| line.starts_with("addconf")), "it would hang once more");
    }

    #[tokio::test]
    async fn garbage_is_an_error_and_not_an_empty_interface() {
        let fake = Fake::new();
        fake.prints_garbage("show");
        let error = fake.tool().show("wg0").await.unwrap_err();
        assert!(matches!(error, ToolError::Garbage { .. }), "{error}");
        fake.lies("show");
        let error = fake.tool().show("wg0").await.unwrap_err();
        assert!(matches!(error, ToolError::Garbage { problem: DumpError::Empty, .. }), "{error}");
    }

    #[tokio::test]
    async fn a_tool_that_is_not_there_is_said_to_be_so() {
        let tool = Tool { program: "/nothing/wg".into(), deadline: Duration::from_secs(5) };
        assert!(matches!(tool.show("wg0").await, Err(ToolError::Start { .. })));
    }

    #[tokio::test]
    async fn only_the_name_of_one_interface_is_a_name() {
        let tool = Tool { program: "/nothing/wg".into(), deadline: Duration::from_secs(5) };
        for name in ["", "all", "interfaces", "-h", "wg0 dump", "wg0\n", "интерфейс", "sixteen-letters-", "../wg0"]
        {
            assert!(matches!(tool.show(name).await, Err(ToolError::Interface(_))), "{name}");
            assert!(matches!(tool.apply(name, &Plan::default()).await, Err(ToolError::Interface(_))), "{name}");
        }
    }

    #[test]
    fn what_a_tool_says_is_one_clean_line() {
        assert_eq!(first_line(b""), "it did not say why");
        assert_eq!(
            first_line(b"\n \nUnable to access interface: No such device\n"),
            "Unable to access interface: No such device"
        );
        assert_eq!(first_line(b"a\x1b[31m\xff"), "a [31m\u{fffd}");
        assert!(first_line(&[b'-'; 5_000]).len() <= 400);
    }
}
