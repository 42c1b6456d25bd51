//! From a listening socket to requests: seats, time-outs, and a stop that waits for work but not for idlers.
//!
//! `axum::serve` 0.8 gives hyper no timer, so a half-sent head would hold a connection, and the stop, for ever. Here
//! each connection has a seat (never a task without one), a clock on its head, a clock on its reading of answers, and,
//! at the stop, no more time than the request it is working on needs.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tower::ServiceExt;

use super::limits::Limits;
use semel_kernel::failpoint::reach;

/// The longest head of a request, in bytes: hyper answers 431 beyond it (and beyond its own 100 headers).
const HEAD_BYTES: usize = 32 * 1024;
/// What hyper may buffer for one connection in one direction.
const BUFFER_BYTES: usize = 64 * 1024;
/// How long we read on after the last answer. Closing at once would reset a client that is still sending, and the reset
/// would take our refusal away from it unread.
const LINGER: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The other end of the socket that a request came through, as an extension of the request. Behind a proxy this is the
/// proxy: ask [`super::ClientIp`] for the client.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Serves `app` on `listener` until `stop` is cancelled, then waits for the requests at work, `budget` at most.
///
/// After the stop nobody is accepted, connections without a request at work are closed at once, and work whose client
/// has left is waited for as well. What is unfinished after the budget is logged; its connections are cut.
pub async fn serve(listener: TcpListener, app: Router, limits: Limits, stop: CancellationToken, budget: Duration) {
    let seats = Arc::new(Semaphore::new(limits.connections.clamp(1, Semaphore::MAX_PERMITS)));
    let at_work = TaskTracker::new();
    let cut = CancellationToken::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(HEAD_BYTES)
        .max_buf_size(BUFFER_BYTES);
    let host = Host { app, http, patience: limits.body_timeout, stop: stop.clone(), cut: cut.clone() };

    loop {
        let guest = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            guest = next_guest(&listener, &seats) => guest,
        };
        let Some((stream, peer, seat)) = guest else { break };
        if reach("door.accepted", "http").await {
            continue; // The client meets a connection that was closed at once.
        }
        let slot = Slot { _held: Arc::new(Held { _seat: seat, _presence: at_work.token() }) };
        tokio::spawn(host.clone().attend(stream, peer, slot));
    }

    drop(listener);
    at_work.close();
    if timeout(budget, at_work.wait()).await.is_err() {
        tracing::warn!(
            unfinished = at_work.len(),
            ?budget,
            "requests were still at work when the time to stop ran out"
        );
        cut.cancel();
    }
}

/// The next client, together with its seat. The seat is taken first: over the cap, clients wait in the system's queue.
/// None only if there will never be another seat.
async fn next_guest(
    listener: &TcpListener,
    seats: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let seat = Arc::clone(seats).acquire_owned().await.ok()?;
    let mut pause = FIRST_PAUSE;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return Some((stream, peer, seat)),
            Err(error) if is_about_one_client(&error) => {
                tracing::debug!(%error, "a client left before it was accepted")
            }
            // Out of file descriptors, most likely. The client stays in the queue, so asking at once would only spin.
            Err(error) => {
                tracing::warn!(%error, ?pause, "cannot accept connections, trying again after a pause");
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

fn is_about_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// A seat and the knowledge that somebody sits on it. The connection holds it, and so does each request at work: the
/// seat is free, and a stop complete, when the last of them is gone.
#[derive(Clone)]
pub(super) struct Slot {
    _held: Arc<Held>,
}

struct Held {
    _seat: OwnedSemaphorePermit,
    _presence: TaskTrackerToken,
}

/// What every connection is served with.
#[derive(Clone)]
struct Host {
    app: Router,
    http: http1::Builder,
    patience: Duration,
    stop: CancellationToken,
    cut: CancellationToken,
}

impl Host {
    /// Serves one connection to its end.
    async fn attend(self, stream: TcpStream, peer: SocketAddr, slot: Slot) {
        let Self { app, http, patience, stop, cut } = self;
        // Answers are small and whole; waiting to fill a packet only delays them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot turn off Nagle's algorithm");
        }
        let gauge = Arc::new(Gauge::default());
        let wire = Wire::new(stream, Arc::clone(&gauge), patience);
        let opened = Arc::clone(&gauge);
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let open = Open::new(Arc::clone(&opened));
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer));
            request.extensions_mut().insert(slot.clone());
            let answer = app.clone().oneshot(request);
            async move {
                match answer.await {
                    Ok(answer) => Ok::<_, Infallible>(answer.map(|body| Counted { body, _open: open })),
                    Err(never) => match never {},
                }
            }
        });
        let mut connection = Box::pin(http.serve_connection(wire, service));

        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = stop.cancelled() => tokio::select! {
                () = cut.cancelled() => None,
                ended = finish(connection.as_mut(), &gauge) => ended,
            },
        };
        if let Some(Err(error)) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }
}

/// Lets the request at work be answered, then ends the connection. None when there is nothing to answer: hyper itself
/// would wait for the rest of a half-sent head.
async fn finish<C: GracefulConnection>(mut connection: Pin<&mut C>, gauge: &Gauge) -> Option<Result<(), C::Error>> {
    let mut told = false;
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(Some(ended));
            }
            if told {
                return if gauge.is_quiet() { Poll::Ready(None) } else { Poll::Pending };
            }
            // Only after a first poll: a request that has already arrived whole is still served.
            connection.as_mut().graceful_shutdown();
            told = true;
        }
    })
    .await
}

/// Whether a connection owes its client anything.
#[derive(Default)]
struct Gauge {
    /// Requests whose answer has not been handed over whole.
    open: AtomicUsize,
    /// Bytes of an answer wait for the client to take them.
    blocked: AtomicBool,
}

impl Gauge {
    fn is_quiet(&self) -> bool {
        self.open.load(Ordering::Acquire) == 0 && !self.blocked.load(Ordering::Acquire)
    }
}

/// One request that is not fully answered.
struct Open(Arc<Gauge>);

impl Open {
    fn new(gauge: Arc<Gauge>) -> Self {
        gauge.open.fetch_add(1, Ordering::AcqRel);
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The body of an answer; its request counts as open until hyper has taken the whole of it.
struct Counted {
    body: Body,
    _open: Open,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The socket, with patience: a client that stops taking an answer is cut off after a while (hyper has no such clock),
/// and one that is still sending when we are done is listened to for a moment, so that it can read why.
struct Wire {
    io: TokioIo<TcpStream>,
    gauge: Arc<Gauge>,
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    goodbye: Option<Pin<Box<Sleep>>>,
}

impl Wire {
    fn new(stream: TcpStream, gauge: Arc<Gauge>, patience: Duration) -> Self {
        Self { io: TokioIo::new(stream), gauge, patience, stalled: None, goodbye: None }
    }

    /// Passes on how a write went, unless the client has taken nothing for too long.
    fn patiently<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let waits = written.is_pending();
        self.gauge.blocked.store(waits, Ordering::Release);
        if !waits {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not take its answer")))
    }
}

impl Read for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Read::poll_read(Pin::new(&mut self.get_mut().io), cx, buf)
    }
}

impl Write for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        let written = Write::poll_write(Pin::new(&mut wire.io), cx, buf);
        wire.patiently(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        let written = Write::poll_write_vectored(Pin::new(&mut wire.io), cx, bufs);
        wire.patiently(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        Write::is_write_vectored(&self.io)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Write::poll_flush(Pin::new(&mut self.get_mut().io), cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        if wire.goodbye.is_none() {
            ready!(Write::poll_shutdown(Pin::new(&mut wire.io), cx))?;
            wire.goodbye = Some(Box::pin(sleep(LINGER)));
        }
        // The clock before the reading: a client that floods us must not outrun it.
        if let Some(goodbye) = &mut wire.goodbye
            && goodbye.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Ok(()));
        }
        let mut scrap = [0_u8; 4096];
        loop {
            let mut unread = ReadBuf::new(&mut scrap);
            match ready!(AsyncRead::poll_read(Pin::new(wire.io.inner_mut()), cx, &mut unread)) {
                Ok(()) if !unread.filled().is_empty() => {}
                // The client has closed its side, or is gone.
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}
