//! The server against raw sockets: clients that are slow, greedy, rude or gone, and one honest client beside them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::routing::{get, post};
use axum::{Extension, Router};
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use semel_shop::web::{Strict, json};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(200);
/// What a test waits for something that must happen.
const SOON: Duration = Duration::from_secs(10);

fn patient() -> Limits {
    Limits {
        body_bytes: 256 * 1024,
        connections: 64,
        header_timeout: LONG,
        body_timeout: LONG,
        request_timeout: LONG,
        read_inside: &[],
    }
}

struct Server {
    address: std::net::SocketAddr,
    stop: CancellationToken,
    done: JoinHandle<()>,
}

impl Server {
    async fn start(app: Router, limits: Limits) -> Self {
        Self::start_with_budget(app, limits, LONG).await
    }

    async fn start_with_budget(app: Router, limits: Limits, budget: Duration) -> Self {
        let ids = AtomicU64::new(0);
        let surroundings = Base {
            limits,
            proxies: TrustedProxies::loopback(),
            fresh_id: Arc::new(move || format!("req-{}", ids.fetch_add(1, Ordering::Relaxed))),
            uptime: Arc::new(|| Duration::ZERO),
        };
        let app = base(app.route("/hello", get(|| async { "hello" })), surroundings);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("the address of the listener");
        let stop = CancellationToken::new();
        let done = tokio::spawn(serve(listener, app, limits, stop.clone(), budget));
        Self { address, stop, done }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }

    /// Sends `request` on a connection of its own and reads the answer.
    async fn ask(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        stream.write_all(request).await.expect("the server takes the request");
        answer(&mut stream).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n").as_bytes()).await
    }

    async fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Answer {
        let mut request =
            format!("POST {path} HTTP/1.1\r\nHost: shop\r\n{content_type}Content-Length: {}\r\n\r\n", body.len())
                .into_bytes();
        request.extend_from_slice(body);
        self.ask(&request).await
    }

    /// Stops the server, which must not take longer than [`SOON`].
    async fn stops_soon(self) {
        self.stop.cancel();
        timeout(SOON, self.done).await.expect("the server stops soon").expect("the server does not panic");
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    /// The answer as a problem; panics unless it is one, of this kind.
    fn problem(&self, status: StatusCode, slug: &str) -> serde_json::Value {
        assert_eq!(self.status, status.as_u16(), "{self:?}");
        assert!(self.head.contains("content-type: application/problem+json"), "{self:?}");
        let problem: serde_json::Value = serde_json::from_str(&self.body).expect("a JSON body");
        assert_eq!(problem["type"], format!("/problems/{slug}"));
        assert_eq!(problem["status"], status.as_u16());
        problem
    }
}

/// Reads exactly one answer, so that the connection can be used again.
async fn answer(stream: &mut TcpStream) -> Answer {
    timeout(SOON, read_answer(stream)).await.expect("an answer in time")
}

async fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await.unwrap_or_else(|error| {
            panic!("the connection ended ({error}) after {:?}", String::from_utf8_lossy(&head));
        });
        head.push(byte);
    }
    let head = String::from_utf8(head).expect("an ASCII head").to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.trim().parse().expect("a length"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.expect("a whole body");
    Answer { status, head, body: String::from_utf8(body).expect("a body in UTF-8") }
}

async fn is_closed_by_the_server(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset is as good as an end.
    let _ = timeout(SOON, stream.read_to_end(&mut rest)).await.expect("the server closes the connection");
    assert_eq!(String::from_utf8_lossy(&rest), "");
}

const HELLO: &[u8] = b"GET /hello HTTP/1.1\r\nHost: shop\r\n\r\n";

#[tokio::test]
async fn half_a_request_line_is_closed_and_an_honest_client_is_not_disturbed() {
    let server = Server::start(Router::new(), Limits { header_timeout: SHORT, ..patient() }).await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET / HT").await.expect("half a line");
    assert_eq!(server.get("/hello").await.body, "hello");
    is_closed_by_the_server(&mut slow).await;
    server.stops_soon().await;
}

#[tokio::test]
async fn a_silent_client_is_closed_too() {
    let server = Server::start(Router::new(), Limits { header_timeout: SHORT, ..patient() }).await;
    is_closed_by_the_server(&mut server.connect().await).await;
    server.stops_soon().await;
}

#[tokio::test]
async fn a_half_sent_head_and_an_idle_connection_do_not_delay_the_stop() {
    let server = Server::start(Router::new(), patient()).await;
    let mut half = server.connect().await;
    let mut idle = server.connect().await;
    for stream in [&mut half, &mut idle] {
        stream.write_all(HELLO).await.expect("a request");
        assert_eq!(answer(stream).await.status, 200);
    }
    half.write_all(b"GET /hello HTTP/1.1\r\nHost:").await.expect("half a head");
    // A round trip, so that the server has seen the half.
    assert_eq!(server.get("/hello").await.status, 200);
    server.stops_soon().await;
    is_closed_by_the_server(&mut half).await;
    is_closed_by_the_server(&mut idle).await;
}

#[tokio::test]
async fn an_endless_head_is_refused() {
    let server = Server::start(Router::new(), patient()).await;
    let request = format!("GET /hello HTTP/1.1\r\nX-Long: {}\r\n\r\n", "x".repeat(40 * 1024));
    assert_eq!(server.ask(request.as_bytes()).await.status, 431);
    server.stops_soon().await;
}

fn gated(started: &Arc<Notify>, gate: &Arc<Notify>, finished: mpsc::UnboundedSender<()>) -> Router {
    let (started, gate) = (Arc::clone(started), Arc::clone(gate));
    let handler = move || {
        let (started, gate, finished) = (Arc::clone(&started), Arc::clone(&gate), finished.clone());
        async move {
            started.notify_one();
            gate.notified().await;
            finished.send(()).expect("the test listens");
            "worked"
        }
    };
    Router::new().route("/work", get(handler))
}

const WORK: &[u8] = b"GET /work HTTP/1.1\r\nHost: shop\r\n\r\n";

#[tokio::test]
async fn the_stop_waits_for_a_request_at_work_and_its_answer_arrives() {
    let (started, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (finished, _finishes) = mpsc::unbounded_channel();
    let server = Server::start(gated(&started, &gate, finished), patient()).await;
    let mut client = server.connect().await;
    client.write_all(WORK).await.expect("a request");
    started.notified().await;
    server.stop.cancel();
    gate.notify_one();
    assert_eq!(answer(&mut client).await.body, "worked");
    server.stops_soon().await;
}

#[tokio::test]
async fn the_stop_waits_no_longer_than_its_budget() {
    let (started, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (finished, _finishes) = mpsc::unbounded_channel();
    let server = Server::start_with_budget(gated(&started, &gate, finished), patient(), SHORT).await;
    let mut client = server.connect().await;
    client.write_all(WORK).await.expect("a request");
    started.notified().await;
    server.stops_soon().await;
    is_closed_by_the_server(&mut client).await;
}

#[tokio::test]
async fn a_client_that_leaves_does_not_cancel_the_work_and_the_stop_waits_for_it() {
    let (started, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (finished, mut finishes) = mpsc::unbounded_channel();
    let mut server = Server::start(gated(&started, &gate, finished), patient()).await;
    let mut client = server.connect().await;
    client.write_all(WORK).await.expect("a request");
    started.notified().await;
    drop(client);
    // A round trip, so that the server has seen the client leave.
    assert_eq!(server.get("/hello").await.status, 200);
    server.stop.cancel();
    assert!(timeout(SHORT, &mut server.done).await.is_err(), "the stop left the work behind");
    gate.notify_one();
    timeout(SOON, finishes.recv()).await.expect("the work goes on").expect("the work finishes");
    server.stops_soon().await;
}

#[tokio::test]
async fn work_whose_client_left_keeps_its_seat() {
    let (started, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (finished, mut finishes) = mpsc::unbounded_channel();
    let server = Server::start(gated(&started, &gate, finished), Limits { connections: 1, ..patient() }).await;
    let mut client = server.connect().await;
    client.write_all(WORK).await.expect("a request");
    started.notified().await;
    drop(client);
    let mut next = server.connect().await;
    next.write_all(HELLO).await.expect("a request");
    assert!(timeout(SHORT, next.readable()).await.is_err(), "the seat was given away");
    gate.notify_one();
    timeout(SOON, finishes.recv()).await.expect("the work goes on").expect("the work finishes");
    assert_eq!(answer(&mut next).await.body, "hello");
    drop(next);
    server.stops_soon().await;
}

#[tokio::test]
async fn a_third_client_waits_for_one_of_two_seats() {
    let server = Server::start(Router::new(), Limits { connections: 2, ..patient() }).await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    for stream in [&mut first, &mut second] {
        stream.write_all(HELLO).await.expect("a request");
        assert_eq!(answer(stream).await.status, 200);
    }
    let mut third = server.connect().await;
    third.write_all(HELLO).await.expect("a request");
    assert!(timeout(SHORT, third.readable()).await.is_err(), "three clients sit on two seats");
    drop(first);
    assert_eq!(answer(&mut third).await.body, "hello");
    server.stops_soon().await;
}

#[tokio::test]
async fn a_client_that_does_not_take_its_answer_loses_its_seat() {
    let flood = Router::new().route("/flood", get(|| async { vec![0_u8; 64 * 1024 * 1024] }));
    let server = Server::start(flood, Limits { connections: 1, body_timeout: SHORT, ..patient() }).await;
    let mut lazy = server.connect().await;
    lazy.write_all(b"GET /flood HTTP/1.1\r\nHost: shop\r\n\r\n").await.expect("a request");
    lazy.readable().await.expect("the answer begins");
    assert_eq!(server.get("/hello").await.body, "hello");
    server.stops_soon().await;
}

/// A handler that counts its calls and answers with the length of the body.
fn counted(calls: &Arc<AtomicUsize>) -> Router {
    let calls = Arc::clone(calls);
    let handler = move |body: Bytes| {
        calls.fetch_add(1, Ordering::SeqCst);
        async move { body.len().to_string() }
    };
    Router::new().route("/take", post(handler))
}

#[tokio::test]
async fn a_slow_body_is_told_so() {
    let calls = Arc::new(AtomicUsize::new(0));
    let server = Server::start(counted(&calls), Limits { body_timeout: SHORT, ..patient() }).await;
    let answer = server.ask(b"POST /take HTTP/1.1\r\nHost: shop\r\nContent-Length: 10\r\n\r\nab").await;
    answer.problem(StatusCode::REQUEST_TIMEOUT, "too-slow");
    assert!(answer.head.contains("connection: close"));
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    server.stops_soon().await;
}

#[tokio::test]
async fn ten_megabytes_are_refused_at_their_announcement() {
    let calls = Arc::new(AtomicUsize::new(0));
    let server = Server::start(counted(&calls), patient()).await;
    let answer = server.ask(b"POST /take HTTP/1.1\r\nHost: shop\r\nContent-Length: 10485760\r\n\r\n").await;
    let problem = answer.problem(StatusCode::PAYLOAD_TOO_LARGE, "too-large");
    assert_eq!(problem["limit_bytes"], 256 * 1024);
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    server.stops_soon().await;
}

#[tokio::test]
async fn a_client_that_sends_all_ten_megabytes_first_still_reads_why_not() {
    let calls = Arc::new(AtomicUsize::new(0));
    let server = Server::start(counted(&calls), patient()).await;
    let answer = server.post("/take", "", &vec![b'x'; 10 * 1024 * 1024]).await;
    answer.problem(StatusCode::PAYLOAD_TOO_LARGE, "too-large");
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    server.stops_soon().await;
}

#[tokio::test]
async fn a_chunked_body_is_counted_as_it_comes() {
    let calls = Arc::new(AtomicUsize::new(0));
    let server = Server::start(counted(&calls), patient()).await;
    let chunked = |chunk: usize, times: usize| {
        let mut request = b"POST /take HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..times {
            request.extend_from_slice(format!("{chunk:x}\r\n{}\r\n", "x".repeat(chunk)).as_bytes());
        }
        request.extend_from_slice(b"0\r\n\r\n");
        request
    };
    let fits = server.ask(&chunked(64 * 1024, 4)).await;
    assert_eq!((fits.status, fits.body.as_str()), (200, "262144"));
    server.ask(&chunked(64 * 1024, 5)).await.problem(StatusCode::PAYLOAD_TOO_LARGE, "too-large");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    server.stops_soon().await;
}

#[tokio::test]
async fn a_late_answer_is_a_503_and_the_work_goes_on() {
    let (started, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (finished, mut finishes) = mpsc::unbounded_channel();
    let limits = Limits { request_timeout: SHORT, ..patient() };
    let server = Server::start(gated(&started, &gate, finished), limits).await;
    let answer = server.ask(WORK).await;
    answer.problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    assert!(answer.head.contains("retry-after: "));
    gate.notify_one();
    timeout(SOON, finishes.recv()).await.expect("the work goes on").expect("the work finishes");
    server.stops_soon().await;
}

async fn broken() -> &'static str {
    panic!("secret detail")
}

#[tokio::test]
async fn a_panic_is_a_500_with_an_id_and_without_its_message() {
    let server = Server::start(Router::new().route("/broken", get(broken)), patient()).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /broken HTTP/1.1\r\nHost: shop\r\nX-Request-Id: mine-1\r\n\r\n").await.expect("a request");
    let refusal = answer(&mut stream).await;
    let problem = refusal.problem(StatusCode::INTERNAL_SERVER_ERROR, "internal");
    assert_eq!(problem["request_id"], "mine-1");
    assert!(!refusal.body.contains("secret detail"));
    stream.write_all(HELLO).await.expect("the connection lives on");
    assert_eq!(answer(&mut stream).await.body, "hello");
    server.stops_soon().await;
}

#[tokio::test]
async fn detached_work_tells_of_its_panic() {
    assert_eq!(detached(async { 7 }).await.expect("no panic"), 7);
    let panicked = detached::<()>(async { panic!("number {}", 7) }).await.expect_err("a panic");
    assert_eq!(panicked.to_string(), "the work panicked: number 7");
}

#[tokio::test]
async fn unknown_routes_and_methods_are_problems() {
    let server = Server::start(Router::new(), patient()).await;
    server.get("/nowhere").await.problem(StatusCode::NOT_FOUND, "not-found");
    let answer = server.post("/hello", "", b"").await;
    answer.problem(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed");
    assert!(answer.head.contains("allow: get"), "{answer:?}");
    server.stops_soon().await;
}

#[tokio::test]
async fn a_request_id_is_kept_if_sane_and_made_if_not() {
    let server = Server::start(Router::new(), patient()).await;
    for (asked, sane) in [("abc-1.2_3", true), ("with space", false), ("", false), (&*"x".repeat(65), false)] {
        let request = format!("GET /hello HTTP/1.1\r\nHost: shop\r\nX-Request-Id: {asked}\r\n\r\n");
        let answer = server.ask(request.as_bytes()).await;
        let expected = if sane { format!("x-request-id: {asked}\r\n") } else { "x-request-id: req-".to_owned() };
        assert!(answer.head.contains(&expected), "{asked:?}: {answer:?}");
    }
    server.stops_soon().await;
}

async fn who(Extension(client): Extension<ClientIp>) -> String {
    client.0.map_or("nobody".to_owned(), |ip| ip.to_string())
}

#[tokio::test]
async fn the_client_is_known_through_a_trusted_proxy() {
    let server = Server::start(Router::new().route("/who", get(who)), patient()).await;
    assert_eq!(server.get("/who").await.body, "127.0.0.1");
    let forwarded = |value: &str| format!("GET /who HTTP/1.1\r\nHost: shop\r\nX-Forwarded-For: {value}\r\n\r\n");
    assert_eq!(server.ask(forwarded("10.9.9.9, 203.0.113.5").as_bytes()).await.body, "203.0.113.5");
    assert_eq!(server.ask(forwarded("203.0.113.5, rubbish").as_bytes()).await.body, "nobody");
    server.stops_soon().await;
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Basket {
    items: Vec<Item>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    quantity: u32,
}

async fn total(Strict(basket): Strict<Basket>) -> String {
    basket.items.iter().map(|item| item.quantity).sum::<u32>().to_string()
}

#[tokio::test]
async fn json_is_read_strictly() {
    let server = Server::start(Router::new().route("/basket", post(total)), patient()).await;
    let json = "Content-Type: application/json\r\n";
    let ok = server.post("/basket", json, br#"{"items":[{"quantity":2},{"quantity":3}]}"#).await;
    assert_eq!((ok.status, ok.body.as_str()), (200, "5"));
    let utf8 = "Content-Type: Application/JSON; charset=UTF-8\r\n";
    assert_eq!(server.post("/basket", utf8, br#"{"items":[]}"#).await.status, 200);

    for wrong in ["", "Content-Type: text/plain\r\n", "Content-Type: application/json; charset=koi8-r\r\n"] {
        let answer = server.post("/basket", wrong, br#"{"items":[]}"#).await;
        answer.problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type");
    }
    let answer = server.post("/basket", json, br#"{"items":[{"quantity":"two"}]}"#).await;
    let problem = answer.problem(StatusCode::UNPROCESSABLE_ENTITY, "unprocessable");
    assert_eq!(problem["detail"], "items[0].quantity: invalid type: string, expected u32");
    assert_eq!(problem["path"], "items[0].quantity");
    server.stops_soon().await;
}

fn refused(body: &[u8]) -> (u16, String) {
    let problem = json::parse::<Basket>(body).expect_err("a refusal");
    (problem.status.as_u16(), problem.detail)
}

#[test]
fn each_refusal_of_a_document_names_its_place() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth)).into_bytes();
    let cases: &[(&[u8], u16, &str)] = &[
        (b"", 400, "the body is empty"),
        (b"{\"items\":\"\xff\"}", 400, "not valid UTF-8 at byte 10"),
        (&nested(33), 400, "deeper than 32 levels at byte 32"),
        (&nested(100_000), 400, "deeper than 32 levels at byte 32"),
        (&nested(32), 422, "invalid type"),
        (b"{", 400, "malformed JSON: EOF while parsing"),
        (b"{\"items\":[]} x", 400, "malformed JSON: trailing characters at line 1 column 14"),
        (b"{'items':[]}", 400, "malformed JSON: key must be a string"),
        (b"{\"items\":[1e999]}", 400, "malformed JSON: number out of range"),
        (b"{\"items\":[],\"items\":[]}", 400, "items: duplicate key"),
        (b"{\"items\":[],\"\\u0069tems\":[]}", 400, "items: duplicate key"),
        (b"{\"items\":[{\"quantity\":1},{\"quantity\":1,\"quantity\":100}]}", 400, "items[1].quantity: duplicate key"),
        (b"{\"other\":{\"a\":{\"b\":1,\"b\":1}}}", 400, "other.a.b: duplicate key"),
        (b"{\"items\":[],\"colour\":1}", 422, "unknown field `colour`"),
        (b"{\"items\":[{}]}", 422, "items[0]: missing field `quantity`"),
        (b"{\"items\":[{\"quantity\":-1}]}", 422, "items[0].quantity: invalid value: integer `-1`, expected u32"),
        (b"{\"items\":[{\"quantity\":1.5}]}", 422, "items[0].quantity: invalid type: floating point `1.5`"),
        (b"{}", 422, "missing field `items`"),
    ];
    for (body, status, reason) in cases {
        let start = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let (refused_with, detail) = refused(body);
        assert_eq!(refused_with, *status, "{start}: {detail}");
        assert!(detail.contains(reason), "{start}: {detail}");
    }
}

#[test]
fn brackets_inside_strings_are_not_nesting() {
    let body = format!("{{\"items\":[],\"{}\\\"[\":1}}", "[".repeat(50));
    assert_eq!(refused(body.as_bytes()).0, 422);
}

#[test]
fn a_refusal_does_not_repeat_a_secret_or_a_novel() {
    let (_, detail) = refused(br#"{"items":[{"quantity":"KEY-1-SECRET"}]}"#);
    assert_eq!(detail, "items[0].quantity: invalid type: string, expected u32");
    let novel = format!("{{\"{}\":1}}", "n".repeat(10_000));
    assert!(refused(novel.as_bytes()).1.len() < 1_000);
}
