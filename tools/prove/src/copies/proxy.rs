//! A TCP proxy of our own: it stands between a copy and everything that the copy talks to, and its manner changes while it
//! runs.
//!
//! It knows a little of what it carries. Of PostgreSQL's protocol it knows where a `commit` ends, so that a connection can
//! break between a COMMIT and its answer. Of HTTP it knows the request's id, so that it can tell afterwards which answers
//! never arrived, and at the front door it lets every request take a connection, and thereby a copy, of its own.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::watch::Plight;

/// How a proxy treats what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As if it were not there.
    Pass,
    /// So many milliseconds later, each way.
    Delay(u64),
    /// A few bytes at a time.
    Trickle,
    /// The connection breaks when the copy asks; the other side hears nothing.
    CutBefore,
    /// The other side hears the question, and the connection breaks before its answer.
    CutAfter,
    /// PostgreSQL hears a COMMIT of changes, and the connection breaks before its answer. Everything else passes.
    CutAfterCommit,
    /// Connections are taken, and nothing moves.
    BlackHole,
    /// Connections are reset (RST), old and new.
    Reset,
}

impl Mode {
    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Pass => "pass",
            Mode::Delay(_) => "delay",
            Mode::Trickle => "trickle",
            Mode::CutBefore => "cut before",
            Mode::CutAfter => "cut after",
            Mode::CutAfterCommit => "cut after COMMIT",
            Mode::BlackHole => "black hole",
            Mode::Reset => "reset",
        }
    }
}

/// What is spoken through a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// PostgreSQL's protocol, without TLS.
    Postgres,
    /// HTTP/1.1 of a copy to the outside.
    Http,
    /// HTTP/1.1 to the copies. Each request has its own connection, so that each goes to a copy drawn anew.
    Door,
}

/// Where connections lead.
#[derive(Clone, Debug)]
pub enum Target {
    /// An address.
    Tcp(SocketAddr),
    /// A socket of this machine.
    Unix(PathBuf),
}

/// One side that a proxy may lead to.
#[derive(Clone)]
pub struct Backend {
    /// Where it is.
    pub target: Target,
    /// What is done to it, if it is a copy: an answer of a copy that was stopped meanwhile is not measured.
    pub plight: Option<Arc<Plight>>,
}

/// A running proxy. Dropping it ends all its connections.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

struct State {
    speech: Speech,
    backends: Vec<Backend>,
    mode: watch::Sender<Mode>,
    chance: Mutex<fastrand::Rng>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Connections whose both ends are open.
    live: usize,
    /// When connections ended, the latest last.
    ended: VecDeque<Instant>,
    /// Ids of requests that were passed on and whose answers were not.
    lost: Vec<String>,
    commits_cut: u64,
    slowest_webhook: Duration,
}

/// How long ends of connections are remembered.
const MEMORY: Duration = Duration::from_secs(15);
/// How long the other side may take to answer what is cut off from its answer.
const SERVED: Duration = Duration::from_secs(2);

impl Proxy {
    /// Begins to listen on a free port of loopback. A connection leads to one of `backends`, drawn from `seed`.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start(speech: Speech, backends: Vec<Backend>, seed: u64) -> Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            speech,
            backends,
            mode: watch::Sender::new(Mode::Pass),
            chance: Mutex::new(fastrand::Rng::with_seed(seed)),
            seen: Mutex::default(),
        });
        let carrying = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            let mut links = JoinSet::new();
            loop {
                while links.try_join_next().is_some() {}
                match listener.accept().await {
                    Ok((client, _)) => drop(links.spawn(carry(Arc::clone(&carrying), client))),
                    Err(_) => sleep(Duration::from_millis(20)).await,
                }
            }
        });
        Ok(Proxy { address, state, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes its manner, for connections that are open as well.
    pub fn set(&self, mode: Mode) {
        self.state.mode.send_replace(mode);
    }

    /// Connections that are open at both ends.
    pub fn live(&self) -> usize {
        self.state.seen().live
    }

    /// Connections that ended in the last `time`, at most 15 s: the other side may not have noticed yet.
    pub fn ended_within(&self, time: Duration) -> usize {
        self.state.seen().ended.iter().rev().take_while(|end| end.elapsed() <= time).count()
    }

    /// The ids (`X-Request-Id`) of requests that the other side heard and whose answers did not arrive.
    pub fn lost(&self) -> Vec<String> {
        self.state.seen().lost.clone()
    }

    /// COMMITs of changes that were passed on and whose answers were not.
    pub fn commits_cut(&self) -> u64 {
        self.state.seen().commits_cut
    }

    /// The longest time that a copy took for the answer to a webhook, seen from here. Times in which the copy was stopped
    /// from outside do not count.
    pub fn slowest_webhook(&self) -> Duration {
        self.state.seen().slowest_webhook
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl State {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    fn draw(&self) -> Option<Backend> {
        if self.backends.is_empty() {
            return None;
        }
        let at = lock(&self.chance).usize(0..self.backends.len());
        self.backends.get(at).cloned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts a connection while it lives.
struct Live<'a>(&'a State);

impl<'a> Live<'a> {
    fn on(state: &'a State) -> Live<'a> {
        state.seen().live += 1;
        Live(state)
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        let mut seen = self.0.seen();
        seen.live = seen.live.saturating_sub(1);
        seen.ended.push_back(Instant::now());
        while seen.ended.front().is_some_and(|end| end.elapsed() > MEMORY) {
            seen.ended.pop_front();
        }
    }
}

type Reads = Box<dyn AsyncRead + Send + Unpin>;
type Writes = Box<dyn AsyncWrite + Send + Unpin>;

async fn connect(target: &Target) -> Option<(Reads, Writes)> {
    let connecting = async {
        match target {
            Target::Tcp(address) => {
                let stream = TcpStream::connect(address).await.ok()?;
                let _ = stream.set_nodelay(true);
                let (reads, writes) = stream.into_split();
                Some((Box::new(reads) as Reads, Box::new(writes) as Writes))
            }
            Target::Unix(path) => {
                let (reads, writes) = UnixStream::connect(path).await.ok()?.into_split();
                Some((Box::new(reads) as Reads, Box::new(writes) as Writes))
            }
        }
    };
    timeout(Duration::from_secs(5), connecting).await.ok().flatten()
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Both sides are closed.
    Closed,
    /// The copy's side is reset.
    Reset,
}

/// What both directions of a connection know.
#[derive(Default)]
struct Link {
    /// Nothing goes back to the copy any more.
    muted: AtomicBool,
    /// The other side spoke after that.
    answered: Notify,
    asked: Mutex<Option<Asked>>,
}

/// A request that was passed on and is not answered.
struct Asked {
    id: Option<String>,
    is_webhook: bool,
    at: Instant,
    /// The copy's plight then: how often it changed.
    changes: u64,
}

async fn carry(state: Arc<State>, client: TcpStream) {
    let _ = client.set_nodelay(true);
    let mut mode = state.mode.subscribe();
    match current(&mut mode) {
        Mode::Reset => {
            let _ = client.set_zero_linger();
            return;
        }
        Mode::BlackHole => {
            // Its first bytes were lost, and so is it: whoever waits for it tries again.
            let _ = open(&mut mode).await;
            return;
        }
        _ => {}
    }
    let Some(backend) = state.draw() else { return };
    // A server that is not there closes the door in the same moment.
    let Some((mut server_reads, mut server_writes)) = connect(&backend.target).await else { return };
    let _live = Live::on(&state);
    let (mut client_reads, mut client_writes) = client.into_split();
    let link = Link::default();
    let way = Way { state: &state, link: &link, backend: &backend };
    let end = {
        let there = way.there(&mut client_reads, &mut server_writes, mode.clone());
        let back = way.back(&mut server_reads, &mut client_writes, mode);
        tokio::select! {
            end = there => end,
            end = back => end,
        }
    };
    if let Some(Asked { id: Some(id), .. }) = lock(&link.asked).take() {
        state.seen().lost.push(id);
    }
    if end == End::Reset {
        let _ = client_writes.as_ref().set_zero_linger();
        // Closing the half by itself would say goodbye before the reset.
        client_writes.forget();
    }
}

/// The two directions of one connection.
#[derive(Clone, Copy)]
struct Way<'a> {
    state: &'a State,
    link: &'a Link,
    backend: &'a Backend,
}

impl Way<'_> {
    /// From the copy to the other side (at the front door: from a caller to a copy).
    async fn there(
        self,
        reads: &mut (impl AsyncRead + Unpin),
        writes: &mut Writes,
        mut mode: watch::Receiver<Mode>,
    ) -> End {
        let mut words = Words::default();
        let mut buffer = vec![0; 16 * 1024];
        let mut is_first = true;
        let mut cutting: Option<Instant> = None;
        loop {
            let due = cutting.unwrap_or_else(|| Instant::now() + SERVED);
            let count = tokio::select! {
                read = reads.read(&mut buffer) => match read {
                    Ok(count) if count > 0 => count,
                    _ => return End::Closed,
                },
                () = until_reset(&mut mode) => return End::Reset,
                () = self.link.answered.notified(), if cutting.is_some() => {
                    // The rest of what it heard shall be done before it notices that nobody listens.
                    sleep(Duration::from_millis(50)).await;
                    return End::Closed;
                }
                () = sleep_until(due), if cutting.is_some() => return End::Closed,
            };
            let bytes = &buffer[..count];
            let commits = self.state.speech == Speech::Postgres && words.hear(bytes);
            let bytes = if is_first && self.state.speech == Speech::Door { alone(bytes) } else { Cow::Borrowed(bytes) };
            is_first = false;
            let now = open(&mut mode).await;
            match now {
                Mode::Reset => return End::Reset,
                Mode::CutBefore if cutting.is_none() => return End::Closed,
                Mode::CutAfter if cutting.is_none() => cutting = Some(self.mute()),
                Mode::CutAfterCommit if commits && cutting.is_none() => {
                    cutting = Some(self.mute());
                    self.state.seen().commits_cut += 1;
                }
                _ => {}
            }
            // It may have been heard even if the write fails half-way.
            self.asks(&bytes);
            if !pass_on(writes, &bytes, now, &mut mode).await {
                return End::Closed;
            }
            self.asked_at(Instant::now());
        }
    }

    /// From the other side to the copy.
    async fn back(
        self,
        reads: &mut Reads,
        writes: &mut (impl AsyncWrite + Unpin),
        mut mode: watch::Receiver<Mode>,
    ) -> End {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let count = tokio::select! {
                read = reads.read(&mut buffer) => match read {
                    Ok(count) if count > 0 => count,
                    _ => return End::Closed,
                },
                () = until_reset(&mut mode) => return End::Reset,
            };
            self.answers();
            let now = open(&mut mode).await;
            if now == Mode::Reset {
                return End::Reset;
            }
            if self.link.muted.load(Ordering::SeqCst) {
                self.link.answered.notify_one();
                continue;
            }
            if !pass_on(writes, &buffer[..count], now, &mut mode).await {
                return End::Closed;
            }
            *lock(&self.link.asked) = None;
        }
    }

    /// From now on nothing goes back; answers until when the other side may take its time.
    fn mute(self) -> Instant {
        self.link.muted.store(true, Ordering::SeqCst);
        Instant::now() + SERVED
    }

    /// Notes the head of a request.
    fn asks(self, bytes: &[u8]) {
        if self.state.speech == Speech::Postgres || !(bytes.starts_with(b"POST ") || bytes.starts_with(b"GET ")) {
            return;
        }
        let head = String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]);
        let is_webhook = head.lines().next().is_some_and(|line| line.contains("webhook"));
        let id = head.lines().take_while(|line| !line.is_empty()).find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("x-request-id").then(|| value.trim().to_owned())
        });
        let changes = self.backend.plight.as_ref().map_or(0, |plight| plight.changes());
        *lock(&self.link.asked) = Some(Asked { id, is_webhook, at: Instant::now(), changes });
    }

    fn asked_at(self, at: Instant) {
        if let Some(asked) = &mut *lock(&self.link.asked) {
            asked.at = at;
        }
    }

    /// Measures the first bytes of the answer to a webhook.
    fn answers(self) {
        let Some(plight) = &self.backend.plight else { return };
        let mut asked = lock(&self.link.asked);
        if let Some(asked) = &mut *asked
            && std::mem::take(&mut asked.is_webhook)
            && !plight.is_stalled()
            && plight.changes() == asked.changes
        {
            let took = asked.at.elapsed();
            let mut seen = self.state.seen();
            seen.slowest_webhook = seen.slowest_webhook.max(took);
        }
    }
}

fn current(mode: &mut watch::Receiver<Mode>) -> Mode {
    *mode.borrow_and_update()
}

/// Waits for the end of a black hole; the mode that stands then.
async fn open(mode: &mut watch::Receiver<Mode>) -> Mode {
    loop {
        let now = current(mode);
        if now != Mode::BlackHole || mode.changed().await.is_err() {
            return now;
        }
    }
}

async fn until_reset(mode: &mut watch::Receiver<Mode>) {
    loop {
        if current(mode) == Mode::Reset {
            return;
        }
        if mode.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Writes `bytes` in the manner of the mode; whether the other side took them.
async fn pass_on(
    writes: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    now: Mode,
    mode: &mut watch::Receiver<Mode>,
) -> bool {
    match now {
        Mode::Delay(ms) => sleep(Duration::from_millis(ms)).await,
        Mode::Trickle => {
            for piece in bytes.chunks(24) {
                if writes.write_all(piece).await.is_err() {
                    return false;
                }
                if current(mode) == Mode::Trickle {
                    sleep(Duration::from_millis(4)).await;
                }
            }
            return true;
        }
        _ => {}
    }
    writes.write_all(bytes).await.is_ok()
}

/// A request that asks for the end of its connection after the answer.
fn alone(bytes: &[u8]) -> Cow<'_, [u8]> {
    match bytes.windows(2).position(|two| two == b"\r\n") {
        Some(at) => {
            let (line, rest) = bytes.split_at(at + 2);
            Cow::Owned([line, b"connection: close\r\n", rest].concat())
        }
        None => Cow::Borrowed(bytes),
    }
}

/// The messages of a PostgreSQL client, as far as they begin and end transactions.
///
/// The first message has a length and a code; those with the codes of TLS and of cancelling are no beginning. Every other
/// one has a letter, a length and its contents, and may be cut anywhere into pieces.
#[derive(Default)]
struct Words {
    started: bool,
    /// The beginning of the message that is under way.
    head: Vec<u8>,
    /// How much of it came.
    came: usize,
    /// The transaction changes nothing, so nobody cares whether its commit happened.
    reads_only: bool,
}

/// Enough for a letter, a length and the word that begins or ends a transaction.
const HEAD: usize = 5 + 24;

impl Words {
    /// Listens to the next bytes; whether a commit of changes ends in them.
    fn hear(&mut self, bytes: &[u8]) -> bool {
        let mut commits = false;
        for byte in bytes {
            if self.head.len() < HEAD {
                self.head.push(*byte);
            }
            self.came += 1;
            if self.length().is_some_and(|length| self.came >= length) {
                commits |= self.ends();
                self.head.clear();
                self.came = 0;
            }
        }
        commits
    }

    /// The length of the message that is under way, letter included.
    fn length(&self) -> Option<usize> {
        let letter = usize::from(self.started);
        let told: [u8; 4] = self.head.get(letter..letter + 4)?.try_into().ok()?;
        usize::try_from(u32::from_be_bytes(told)).ok().map(|length| length.max(4) + letter)
    }

    fn ends(&mut self) -> bool {
        if !self.started {
            // Version 3 of the protocol; requests for TLS and for cancelling have versions that do not exist.
            self.started = self.head.get(4..6) == Some(&[0, 3]);
            return false;
        }
        let Some(text) = self.head.strip_prefix(b"Q").and_then(|rest| rest.get(4..)) else { return false };
        let text = String::from_utf8_lossy(text).trim_end_matches('\0').to_ascii_lowercase();
        if text.starts_with("begin") {
            self.reads_only = text.starts_with("begin read only");
        }
        text == "commit" && !self.reads_only
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len() + 5).expect("a short text");
        [b"Q".as_slice(), &length.to_be_bytes(), text.as_bytes(), b"\0"].concat()
    }

    fn greeting() -> Vec<u8> {
        [8_u32.to_be_bytes(), 196_608_u32.to_be_bytes()].concat()
    }

    #[test]
    fn a_commit_of_changes_is_heard_however_the_bytes_are_cut() {
        let spoken = [greeting(), query("begin"), query("insert into t values (1)"), query("commit")].concat();
        for size in [1, 3, 7, spoken.len()] {
            let mut words = Words::default();
            let heard: Vec<bool> = spoken.chunks(size).map(|piece| words.hear(piece)).collect();
            let (last, before) = heard.split_last().expect("something was said");
            assert!(*last && !before.contains(&true), "in pieces of {size}: {heard:?}");
        }
    }

    #[test]
    fn a_commit_after_reading_is_nothing() {
        let mut words = Words::default();
        assert!(!words.hear(&[greeting(), query("begin read only"), query("commit")].concat()));
        assert!(words.hear(&[query("begin"), query("commit")].concat()));
    }

    #[test]
    fn a_request_for_tls_is_no_beginning() {
        let mut words = Words::default();
        let please = [8_u32.to_be_bytes(), 80_877_103_u32.to_be_bytes()].concat();
        assert!(!words.hear(&please) && !words.started);
        assert!(words.hear(&[greeting(), query("commit")].concat()));
    }

    #[test]
    fn a_request_at_the_door_ends_its_connection() {
        let whole = alone(b"POST /webhook/heleket HTTP/1.1\r\nhost: x\r\n\r\n{}");
        assert_eq!(&*whole, b"POST /webhook/heleket HTTP/1.1\r\nconnection: close\r\nhost: x\r\n\r\n{}");
    }
}
