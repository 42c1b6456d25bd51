//! The outbound client against a server that speaks raw HTTP/1.1 and misbehaves on purpose.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use semel_kernel::clock::{Chance, Clock, Stopwatch, Time};
use semel_kernel::outbound::{BreakerState, Call, Manner, Outbound, OutboundError, OutboundOptions, Pace, Tries};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const START: Time = Time::from_millis(1_700_000_000_000);

/// What the server does with one request.
enum Reply {
    /// Sends these bytes and closes.
    Says(String),
    /// Closes without a word: the request was read, its outcome is anybody's guess.
    HangsUp,
    /// Keeps the connection and says nothing.
    Silent,
}

fn says(status: &str, headers: &str, body: &str) -> Reply {
    let length = body.len();
    Reply::Says(format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}"))
}

fn ok() -> Reply {
    says("200 OK", "", "done")
}

struct Server {
    address: SocketAddr,
    hits: Arc<AtomicUsize>,
}

impl Server {
    /// Answers the n-th request (from 1) with `script(n)`.
    async fn start(script: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let hits = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&hits);
        let script = Arc::new(script);
        tokio::spawn(async move {
            loop {
                let Ok((mut stream, _)) = listener.accept().await else { return };
                let counted = Arc::clone(&counted);
                let script = Arc::clone(&script);
                tokio::spawn(async move {
                    if !read_request(&mut stream).await {
                        return;
                    }
                    match script(counted.fetch_add(1, Ordering::SeqCst) + 1) {
                        Reply::Says(text) => {
                            // A client that has heard enough may have left.
                            let _ = stream.write_all(text.as_bytes()).await;
                            let _ = stream.shutdown().await;
                        }
                        Reply::HangsUp => {}
                        Reply::Silent => std::future::pending::<()>().await,
                    }
                });
            }
        });
        Self { address, hits }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}

/// Reads head and body; false when the client left before it had sent them.
async fn read_request(stream: &mut TcpStream) -> bool {
    let mut seen = Vec::new();
    let mut buffer = [0_u8; 4_096];
    loop {
        if let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&seen[..end]).to_lowercase();
            let length: usize = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"))
                .map_or(0, |length| length.trim().parse().unwrap());
            if seen.len() >= end + 4 + length {
                return true;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return false,
            Ok(read) => seen.extend_from_slice(&buffer[..read]),
        }
    }
}

/// An address where nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    format!("http://{address}")
}

fn outbound() -> Outbound {
    outbound_with(Clock::system(), OutboundOptions::default())
}

fn outbound_with(clock: Clock, options: OutboundOptions) -> Outbound {
    Outbound::new(clock, Chance::seeded(5), options).unwrap()
}

fn post(url: &str) -> Request<Vec<u8>> {
    Request::post(url).body(b"{\"amount\":1}".to_vec()).unwrap()
}

fn call(manner: Manner) -> Call {
    Call::new("test.call", "bank", manner)
}

async fn send(outbound: &Outbound, call: Call, url: &str) -> Result<Response<Vec<u8>>, OutboundError> {
    outbound.call(call, post(url)).await
}

#[tokio::test]
async fn an_answer_comes_back_whole() {
    let server = Server::start(|_| says("201 Created", "x-id: 7\r\n", "hello")).await;
    let answer = send(&outbound(), call(Manner::Blind), &server.url("/pay?x=1")).await.unwrap();

    assert_eq!(answer.status(), 201);
    assert_eq!(answer.headers()["x-id"], "7");
    assert_eq!(answer.body(), b"hello");
    assert_eq!(answer.extensions().get::<Tries>(), Some(&Tries { sent: 1, unclear_before: false }));
}

#[tokio::test]
async fn what_may_have_arrived_is_repeated_only_where_twice_is_once() {
    for manner in [Manner::Read, Manner::Keyed, Manner::Convergent] {
        let server = Server::start(|hit| if hit < 3 { Reply::HangsUp } else { ok() }).await;
        let answer = send(&outbound(), call(manner), &server.url("/")).await.unwrap();
        assert_eq!(answer.status(), 200, "{}", manner.as_str());
        assert_eq!(answer.extensions().get::<Tries>(), Some(&Tries { sent: 3, unclear_before: true }));
        assert_eq!(server.hits(), 3, "{}", manner.as_str());
    }
    for manner in [Manner::Asked, Manner::Blind] {
        let server = Server::start(|hit| if hit < 3 { Reply::HangsUp } else { ok() }).await;
        let error = send(&outbound(), call(manner), &server.url("/")).await.unwrap_err();
        assert!(matches!(error, OutboundError::Unclear { .. }), "{error:?}");
        assert!(!error.never_sent());
        assert_eq!(server.hits(), 1, "{}", manner.as_str());
    }
}

#[tokio::test]
async fn a_gateway_that_gives_up_is_asked_again_only_where_twice_is_once() {
    for (manner, hits, status) in [(Manner::Keyed, 2, 200_u16), (Manner::Asked, 1, 502), (Manner::Blind, 1, 502)] {
        let server = Server::start(|hit| if hit == 1 { says("502 Bad Gateway", "", "") } else { ok() }).await;
        let answer = send(&outbound(), call(manner), &server.url("/")).await.unwrap();
        assert_eq!((answer.status().as_u16(), server.hits()), (status, hits), "{}", manner.as_str());
    }
}

#[tokio::test]
async fn a_refusal_is_an_answer_and_is_not_repeated() {
    for status in ["400 Bad Request", "401 Unauthorized", "409 Conflict", "500 Internal Server Error"] {
        let server = Server::start(move |_| says(status, "", "no")).await;
        let answer = send(&outbound(), call(Manner::Keyed), &server.url("/")).await.unwrap();
        assert!(status.starts_with(answer.status().as_str()));
        assert_eq!(server.hits(), 1, "{status}");
    }
}

#[tokio::test]
async fn what_was_never_sent_is_called_so_whatever_the_manner() {
    for manner in [Manner::Read, Manner::Blind] {
        let outbound = outbound();
        let error = send(&outbound, call(manner), &nobody().await).await.unwrap_err();
        assert!(matches!(error, OutboundError::NotSent { .. }), "{error:?}");
        assert!(error.never_sent());
        assert_eq!(outbound.stats()[0].retries, 3, "what never arrived may go again");
    }
}

#[tokio::test]
async fn five_failures_open_the_breaker_and_a_probe_closes_it() {
    let clock = Clock::manual(START);
    let outbound = outbound_with(clock.clone(), OutboundOptions::default());
    let server = Server::start(|hit| if hit <= 5 { says("500 Internal Server Error", "", "") } else { ok() }).await;
    for _ in 0..5 {
        assert_eq!(send(&outbound, call(Manner::Blind), &server.url("/")).await.unwrap().status(), 500);
    }

    let refused = send(&outbound, call(Manner::Read), &server.url("/")).await.unwrap_err();
    assert!(matches!(refused, OutboundError::Refused(_)), "{refused:?}");
    assert!(refused.never_sent());
    assert!(refused.retry_at().unwrap() > START);
    assert_eq!(server.hits(), 5);
    let breaker = outbound.breakers().remove(0);
    assert_eq!((breaker.host.as_str(), breaker.state, breaker.failures), ("bank", BreakerState::Open, 5));
    assert_eq!(breaker.open_until, refused.retry_at());

    let elsewhere = Call { host_key: "shop".to_owned(), ..call(Manner::Blind) };
    assert_eq!(send(&outbound, elsewhere, &server.url("/")).await.unwrap().status(), 200, "keys are apart");

    clock.advance(Duration::from_secs(10));
    assert_eq!(send(&outbound, call(Manner::Blind), &server.url("/")).await.unwrap().status(), 200);
    assert_eq!(outbound.breakers().remove(0).state, BreakerState::Closed);
}

#[tokio::test]
async fn a_probe_whose_caller_gives_up_does_not_lock_the_door() {
    let clock = Clock::manual(START);
    let outbound = outbound_with(clock.clone(), OutboundOptions::default());
    let gone = nobody().await;
    let mut tries = 0;
    while outbound.breakers().first().is_none_or(|breaker| breaker.state == BreakerState::Closed) {
        assert!(send(&outbound, call(Manner::Blind), &gone).await.is_err());
        tries += 1;
        assert!(tries < 5, "every call sends at least once");
    }
    clock.advance(Duration::from_secs(10));

    let silent = Server::start(|_| Reply::Silent).await;
    let url = silent.url("/");
    let probe = send(&outbound, call(Manner::Blind), &url);
    assert!(tokio::time::timeout(Duration::from_millis(50), probe).await.is_err());
    let server = Server::start(|_| ok()).await;
    assert_eq!(send(&outbound, call(Manner::Blind), &server.url("/")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_pause_that_fits_the_deadline_is_waited_out() {
    let server =
        Server::start(|hit| if hit == 1 { says("429 Too Many Requests", "retry-after: 1\r\n", "") } else { ok() })
            .await;
    let watch = Stopwatch::start();
    let answer = send(&outbound(), call(Manner::Keyed), &server.url("/")).await.unwrap();

    assert_eq!((answer.status().as_u16(), server.hits()), (200, 2));
    assert!(watch.elapsed() >= Duration::from_millis(950), "{:?}", watch.elapsed());
}

#[tokio::test]
async fn a_pause_beyond_the_deadline_ends_the_call_and_keeps_the_next_one_back() {
    let clock = Clock::manual(START);
    let outbound = outbound_with(clock.clone(), OutboundOptions::default());
    let server =
        Server::start(|hit| if hit == 1 { says("503 Service Unavailable", "retry-after: 600\r\n", "") } else { ok() })
            .await;
    assert_eq!(send(&outbound, call(Manner::Keyed), &server.url("/")).await.unwrap().status(), 503);

    let paused = send(&outbound, call(Manner::Keyed), &server.url("/")).await.unwrap_err();
    let until = START + Duration::from_secs(600);
    assert_eq!(paused, OutboundError::Paused { until });
    assert!(paused.never_sent());
    assert_eq!(paused.retry_at(), Some(until));
    assert_eq!(server.hits(), 1);

    clock.advance(Duration::from_secs(600));
    assert_eq!(send(&outbound, call(Manner::Keyed), &server.url("/")).await.unwrap().status(), 200);
}

/// Who keeps the pauses has to hear of each, because it may be about more than this host.
#[tokio::test]
async fn a_429_whose_pause_the_caller_keeps_is_the_answer_whatever_may_be_repeated() {
    let server = Server::start(|_| says("429 Too Many Requests", "retry-after: 1\r\n", "")).await;
    let outbound = outbound();
    let mut own = call(Manner::Read);
    own.own_pauses = true;
    let answer = send(&outbound, own.clone(), &server.url("/")).await.unwrap();
    assert_eq!((answer.status().as_u16(), server.hits()), (429, 1));
    assert_eq!(send(&outbound, own, &server.url("/")).await.unwrap().status(), 429);
    assert_eq!(server.hits(), 2, "and nothing keeps the next one back but the caller");
}

#[tokio::test]
async fn a_429_without_a_time_is_the_callers_business() {
    let server = Server::start(|_| says("429 Too Many Requests", "", "{\"retry_after\":3}")).await;
    let clock = Clock::manual(START);
    let outbound = outbound_with(clock.clone(), OutboundOptions::default());
    let answer = send(&outbound, call(Manner::Keyed), &server.url("/")).await.unwrap();
    assert_eq!((answer.status().as_u16(), server.hits()), (429, 1));

    let until = START + Duration::from_secs(90);
    outbound.pause_host("bank", until);
    let paused = send(&outbound, call(Manner::Keyed), &server.url("/")).await.unwrap_err();
    assert_eq!(paused, OutboundError::Paused { until });
}

#[tokio::test]
async fn the_pace_spreads_sends_and_refuses_what_cannot_go_in_time() {
    let server = Server::start(|_| ok()).await;
    let outbound = outbound();
    let paced = Call { pace: Some(Pace { per_second: 10, burst: 2 }), ..call(Manner::Blind) };
    let watch = Stopwatch::start();
    for _ in 0..4 {
        assert_eq!(send(&outbound, paced.clone(), &server.url("/")).await.unwrap().status(), 200);
    }
    assert!(watch.elapsed() >= Duration::from_millis(190), "{:?}", watch.elapsed());

    let slow = Call {
        host_key: "slow".to_owned(),
        pace: Some(Pace { per_second: 1, burst: 1 }),
        deadline: Duration::from_millis(300),
        ..call(Manner::Blind)
    };
    assert_eq!(send(&outbound, slow.clone(), &server.url("/")).await.unwrap().status(), 200);
    let error = send(&outbound, slow, &server.url("/")).await.unwrap_err();
    assert!(matches!(error, OutboundError::Paused { .. }), "{error:?}");
    assert_eq!(server.hits(), 5);
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let server = Server::start(|_| says("302 Found", "location: /elsewhere\r\n", "")).await;
    let answer = send(&outbound(), call(Manner::Read), &server.url("/")).await.unwrap();
    assert_eq!((answer.status().as_u16(), server.hits()), (302, 1));
}

#[tokio::test]
async fn an_answer_beyond_the_limit_is_not_read() {
    let options = || OutboundOptions { max_answer_bytes: 1_000, ..OutboundOptions::default() };
    let fits = Server::start(|_| says("200 OK", "", &"x".repeat(1_000))).await;
    let outbound = outbound_with(Clock::system(), options());
    assert_eq!(send(&outbound, call(Manner::Read), &fits.url("/")).await.unwrap().body().len(), 1_000);

    let announced = Server::start(|_| says("200 OK", "", &"x".repeat(1_001))).await;
    let unannounced =
        Server::start(|_| Reply::Says(format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}", "x".repeat(5_000))))
            .await;
    for server in [announced, unannounced] {
        let error = send(&outbound, call(Manner::Read), &server.url("/")).await.unwrap_err();
        assert_eq!(error, OutboundError::TooLarge);
        assert!(!error.never_sent());
        assert_eq!(server.hits(), 1, "too large stays too large");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_unclear() {
    let server = Server::start(|_| Reply::Says("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhalf".to_owned())).await;
    let error = send(&outbound(), call(Manner::Blind), &server.url("/")).await.unwrap_err();
    assert!(matches!(error, OutboundError::Unclear { .. }), "{error:?}");
}

#[tokio::test]
async fn addresses_of_users_do_not_lead_home() {
    let server = Server::start(|_| ok()).await;
    let port = server.address.port();
    let outbound = outbound();
    for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:10.0.0.1]", "[::ffff:127.0.0.1]", "169.254.169.254"] {
        let guarded = Call { public_only: true, ..call(Manner::Read) };
        let error = send(&outbound, guarded, &format!("http://{host}:{port}/feed")).await.unwrap_err();
        assert!(matches!(error, OutboundError::PrivateAddress { .. }), "{host}: {error:?}");
        assert!(error.never_sent());
    }
    assert_eq!(server.hits(), 0);

    let sandbox = outbound_with(Clock::system(), OutboundOptions { allow_private: true, ..OutboundOptions::default() });
    let guarded = Call { public_only: true, ..call(Manner::Read) };
    assert_eq!(send(&sandbox, guarded, &server.url("/feed")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_deadline_holds_with_all_repeats() {
    let server = Server::start(|_| Reply::Silent).await;
    let hasty = Call {
        deadline: Duration::from_millis(600),
        attempt_timeout: Duration::from_millis(150),
        ..call(Manner::Read)
    };
    let watch = Stopwatch::start();
    let error = send(&outbound(), hasty, &server.url("/")).await.unwrap_err();
    assert!(matches!(error, OutboundError::Unclear { .. }), "{error:?}");
    assert!(watch.elapsed() < Duration::from_secs(2), "{:?}", watch.elapsed());
    assert!((1..=4).contains(&server.hits()), "{} hits", server.hits());

    let patient = Call { deadline: Duration::from_millis(200), ..call(Manner::Blind) };
    let watch = Stopwatch::start();
    assert!(send(&outbound(), patient, &server.url("/")).await.is_err());
    assert!(watch.elapsed() < Duration::from_secs(2), "one long try ends with the call: {:?}", watch.elapsed());
}

#[tokio::test]
async fn a_server_that_dies_after_an_unclear_try_leaves_the_call_unclear() {
    // The first try is read and dropped; then nobody listens any more.
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let once = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        drop(listener);
        assert!(read_request(&mut stream).await);
    });
    let error = send(&outbound(), call(Manner::Keyed), &url).await.unwrap_err();
    once.await.unwrap();
    assert!(matches!(error, OutboundError::Unclear { .. }), "it may have been heard: {error:?}");
}

#[tokio::test]
async fn no_error_names_a_path_a_query_a_token_or_a_body() {
    let hangs_up = Server::start(|_| Reply::HangsUp).await;
    let silent = Server::start(|_| Reply::Silent).await;
    let breaks_off = Server::start(|_| Reply::Says("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n".to_owned())).await;
    let nonsense = Server::start(|_| Reply::Says("this is not HTTP\r\n\r\n".to_owned())).await;
    let path = "/bot123456:SECRET-TOKEN/sendMessage?key=SECRET-QUERY";
    let addresses = [
        hangs_up.url(path),
        silent.url(path),
        breaks_off.url(path),
        nonsense.url(path),
        format!("{}{path}", nobody().await),
        format!("http://user:SECRET-PASSWORD@127.0.0.1{path}"),
    ];
    for address in addresses {
        let outbound = outbound();
        let quick = Call { attempt_timeout: Duration::from_millis(300), ..call(Manner::Blind) };
        let request = Request::post(&address)
            .header("authorization", "Bearer SECRET-HEADER")
            .body(b"SECRET-BODY".to_vec())
            .unwrap();
        let error = outbound.call(quick, request).await.unwrap_err();
        let said = format!("{error} {error:?} {:?} {:?}", outbound.stats(), outbound.breakers());
        for secret in ["SECRET", "123456", "sendMessage", "key="] {
            assert!(!said.contains(secret), "{said}");
        }
    }
}

#[test]
fn a_wrong_proxy_is_a_wrong_setting_and_its_password_stays_secret() {
    for proxy in ["socks5://user:SECRET@127.0.0.1:1080", "user:SECRET"] {
        let options = OutboundOptions { proxy: Some(proxy.to_owned()), ..OutboundOptions::default() };
        let error = Outbound::new(Clock::system(), Chance::seeded(1), options).unwrap_err();
        assert!(matches!(error, OutboundError::Setup { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("SECRET"));
    }
}

#[tokio::test]
async fn counts_tell_what_happened() {
    let server = Server::start(|hit| if hit == 1 { says("503 Service Unavailable", "", "") } else { ok() }).await;
    let outbound = outbound();
    send(&outbound, call(Manner::Keyed), &server.url("/")).await.unwrap();
    let stats = outbound.stats().remove(0);
    assert_eq!(stats.host_key, "bank");
    assert_eq!((stats.calls, stats.failures, stats.retries, stats.turned_away), (1, 1, 1, 0));
    assert_eq!(stats.last_status, Some(200));
}
