//! A TCP proxy that makes the other side far away, and counts the round trips on the wire.
//!
//! A round trip is counted when the asking side speaks after the other side has spoken: what is sent together is one.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// One question on the wire and its answer.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Which proxy it went through.
    pub link: &'static str,
    /// Which of its connections.
    pub connection: usize,
    /// When the asking side sent its first byte.
    pub asked: Instant,
    /// When the first byte of the answer was back.
    pub answered: Option<Instant>,
    /// Bytes of the question.
    pub bytes: usize,
    /// The first line of the question when it is HTTP, without its query.
    pub says: String,
}

/// What all proxies of one measurement saw.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Exchange>>>);

impl Log {
    fn lock(&self) -> MutexGuard<'_, Vec<Exchange>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that was asked from `since` on, the earliest first.
    pub fn since(&self, since: Instant) -> Vec<Exchange> {
        let mut seen: Vec<Exchange> = self.lock().iter().filter(|one| one.asked >= since).cloned().collect();
        seen.sort_by_key(|one| one.asked);
        seen
    }
}

/// A running proxy; it takes no new connections once dropped.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    stop: CancellationToken,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Proxy {
    /// Stands before `target` with half of `round_trip` on each way.
    pub async fn start(link: &'static str, target: SocketAddr, round_trip: Duration, log: Log) -> Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            let mut connection = 0;
            loop {
                let accepted = tokio::select! {
                    () = stopped.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                let Ok((stream, _)) = accepted else { continue };
                connection += 1;
                let link = Link { name: link, connection, half: round_trip / 2, log: log.clone() };
                tokio::spawn(async move {
                    if let Err(error) = link.carry(stream, target).await {
                        eprintln!("a proxied connection broke: {error}");
                    }
                });
            }
        });
        Ok(Proxy { address, stop })
    }
}

struct Link {
    name: &'static str,
    connection: usize,
    half: Duration,
    log: Log,
}

/// The exchange that is open on a connection.
#[derive(Clone, Default)]
struct Open(Arc<Mutex<Option<usize>>>);

impl Link {
    async fn carry(self, asking: TcpStream, target: SocketAddr) -> Result<()> {
        asking.set_nodelay(true)?;
        // A far server takes a round trip to connect to. The local connection was made at once, so its first bytes wait.
        let begun = Instant::now();
        let answering = TcpStream::connect(target).await?;
        answering.set_nodelay(true)?;
        sleep(self.half * 2).await;
        let handshake = self.exchange(begun, 0, "connect".to_owned());
        self.log.lock().push(Exchange { answered: Some(Instant::now()), ..handshake });
        let (asking_read, asking_write) = asking.into_split();
        let (answering_read, answering_write) = answering.into_split();
        let open = Open::default();
        let half = self.half;
        let link = Arc::new(self);
        let (to, of) = (Arc::clone(&link), open.clone());
        let there = pump(asking_read, answering_write, half, move |bytes: &[u8]| to.asks(&of, bytes));
        let back = pump(answering_read, asking_write, half, move |_: &[u8]| link.answers(&open));
        tokio::join!(there, back);
        Ok(())
    }

    fn exchange(&self, asked: Instant, bytes: usize, says: String) -> Exchange {
        Exchange { link: self.name, connection: self.connection, asked, answered: None, bytes, says }
    }

    /// Bytes of the asking side: a new exchange when the last one was answered, else more of the same.
    fn asks(&self, open: &Open, bytes: &[u8]) {
        let mut current = open.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut log = self.log.lock();
        if let Some(at) = *current
            && let Some(exchange) = log.get_mut(at)
            && exchange.answered.is_none()
        {
            exchange.bytes += bytes.len();
            return;
        }
        *current = Some(log.len());
        log.push(self.exchange(Instant::now(), bytes.len(), first_line(bytes)));
    }

    fn answers(&self, open: &Open) {
        let current = open.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut log = self.log.lock();
        if let Some(at) = *current
            && let Some(exchange) = log.get_mut(at)
            && exchange.answered.is_none()
        {
            exchange.answered = Some(Instant::now() + self.half);
        }
    }
}

/// Method and last part of the path of an HTTP request; paths of the Bot API hold a token.
fn first_line(bytes: &[u8]) -> String {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let Ok(text) = std::str::from_utf8(line) else { return String::new() };
    let mut words = text.split(' ');
    match (words.next(), words.next(), words.next()) {
        (Some(method), Some(path), Some(version)) if version.starts_with("HTTP/") => {
            let plain = path.split('?').next().unwrap_or_default();
            let parts: Vec<&str> = plain.rsplit('/').take(2).collect();
            match parts.as_slice() {
                [last, before] if before.starts_with("bot") => format!("{method} {last}"),
                [last, before] => format!("{method} {before}/{last}"),
                _ => method.to_owned(),
            }
        }
        _ => String::new(),
    }
}

/// Carries bytes with a delay and keeps their order, until one side closes.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration, saw: impl Fn(&[u8])) {
    let (sender, mut waiting) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let reading = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read) = from.read(&mut buffer).await {
            if read == 0 {
                return;
            }
            saw(&buffer[..read]);
            if sender.send((Instant::now() + delay, buffer[..read].to_vec())).is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, bytes)) = waiting.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}
