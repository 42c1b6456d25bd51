//! The database's bad days: down at start, stalled, killed under load, its disk full. Nothing is acknowledged that is not
//! durable, every answer comes in time and says what to do, and everything goes on by itself afterwards.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use semel_kernel::clock::Stopwatch;
use semel_kernel::store::Engine;
use semel_kernel::testing::PgServer;
use semel_sandbox::{HookId, HookOutcome, Sandbox};

use super::program::{Door, Killed, Order, Patience, Program, World, an_order, items};

/// Providers wait about this long.
const IN_TIME: Duration = Duration::from_secs(5);

/// A server of the story's own with an empty database, and a world on it.
async fn server_and_world(changes: &[(&str, &str)]) -> (Arc<PgServer>, World) {
    let server = Arc::new(PgServer::private());
    server.create("shop", "template0").await;
    // A killed server shall lose nothing that it called committed: the cluster's own settings do not promise that.
    server.run("postgres", "alter database shop set synchronous_commit = on").await;
    let world = World::at(server.url("shop"), changes).await;
    (server, world)
}

#[track_caller]
fn refused_in_time(outcome: HookOutcome) {
    assert_eq!(outcome.status, Some(503), "a webhook that cannot be stored is refused: {outcome:?}");
    let limit = u64::try_from(IN_TIME.as_millis()).unwrap_or(u64::MAX);
    assert!(outcome.took_ms < limit, "the provider still listens when the answer comes: {outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_down_at_start_is_waited_for() {
    let (server, world) = server_and_world(&[]).await;
    let program = world.start().await;
    let order = program.sell_one(42).await;
    program.terminate().await;
    server.stop_fast();

    let mut program = world.launch(&[]);
    let patience = Patience::of("the program answers without its database", 30);
    let answer = loop {
        assert!(program.process.ended().is_none(), "the program waits for its database");
        if let Ok(answer) = program.door.try_get("/readyz").await {
            break answer;
        }
        patience.wait().await;
    };
    assert_eq!(answer.status, 503, "{}", answer.text);
    let reason = answer.body["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("database unavailable: "), "the reason is told: {}", answer.text);
    let hook = world.pay(&order);
    refused_in_time(world.sandbox.send_hook(hook).await);
    let patience = Patience::of("the log says what to do", 60);
    while !program.process.log().contains("check SEMEL_DATABASE_URL and that it runs") {
        patience.wait().await;
    }

    server.start();
    program.ready().await;
    world.acknowledged(hook).await;
    program.delivered(&order).await;
    program.at_rest().await;
    assert_eq!(world.keys(order.customer).len(), 1, "delivered once");
    world.finish(program, Killed::BesideTelegram).await;
}

/// How long the database says nothing.
const STALL: Duration = Duration::from_secs(60);

/// Statements that were on their way are done by the server when it wakes, and nobody hears of it: a job that is claimed so
/// waits for the end of its lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_stalls_costs_a_503_in_time_and_nothing_else() {
    let (server, world) = server_and_world(&[("SEMEL_JOB_LEASE", "10s")]).await;
    let mut program = world.start().await;
    let mut sales = Vec::new();
    for customer in 1001..=1003 {
        let order = program.sell_one(customer).await;
        let hook = world.pay(&order);
        sales.push((order, hook));
    }

    let stalled = Stopwatch::start();
    server.pause();
    let mut rounds = 0;
    while stalled.elapsed() < STALL {
        let sandbox = &world.sandbox;
        let (first, second, third, ready) = tokio::join!(
            sandbox.send_hook(sales[0].1),
            sandbox.send_hook(sales[1].1),
            sandbox.send_hook(sales[2].1),
            program.door.get("/readyz"),
        );
        [first, second, third].into_iter().for_each(refused_in_time);
        assert_eq!(ready.status, 503, "{}", ready.text);
        assert!(ready.body["reason"].as_str().is_some_and(|reason| reason.starts_with("database")), "{}", ready.text);
        assert!(ready.took < IN_TIME, "whoever watches is answered in time, not after {:?}", ready.took);
        assert!(program.process.ended().is_none(), "the program waits for its database");
        rounds += 1;
    }
    server.resume();
    assert!(rounds >= 5, "each round was answered in time, so there were more than {rounds}");

    for (_, hook) in &sales {
        world.acknowledged(*hook).await;
    }
    for (order, _) in &sales {
        program.delivered(order).await;
    }
    program.ready().await;
    program.at_rest().await;
    for (order, _) in &sales {
        assert_eq!(world.keys(order.customer).len(), 1, "delivered once");
    }
    world.finish(program, Killed::BesideTelegram).await;
}

const SALES: usize = 100;
const POOL: i64 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_database_that_dies_under_load_loses_nothing_that_was_acknowledged() {
    // The answer to a claim may be lost with the server; such a job waits for the end of its lease.
    let (server, world) = server_and_world(&[("SEMEL_POOL_MAX", "4"), ("SEMEL_JOB_LEASE", "10s")]).await;
    let program = world.start().await;
    let goods: Vec<String> = (0..SALES).map(|n| format!("KEY-{n:03}")).collect();
    let product = program.product(&goods).await;
    let mut orders = Vec::new();
    for n in 0..SALES {
        orders.push(program.order(&product, 5000 + i64::try_from(n).expect("a small number")).await);
    }
    let hooks: Vec<HookId> = orders.iter().map(|order| world.pay(order)).collect();

    let up = Arc::new(tokio::sync::Mutex::new(()));
    let watched = CancellationToken::new();
    let sessions = tokio::spawn(most_sessions(Arc::clone(&server), Arc::clone(&up), watched.clone()));
    // Each twice: a provider may repeat itself at any time.
    let queue: VecDeque<HookId> = hooks.iter().chain(&hooks).copied().collect();
    let total = queue.len();
    let (queue, acknowledged) = (Arc::new(Mutex::new(queue)), Arc::new(AtomicUsize::new(0)));
    let mut senders = JoinSet::new();
    for _ in 0..8 {
        senders.spawn(send_all(world.sandbox.clone(), Arc::clone(&queue), Arc::clone(&acknowledged)));
    }

    reached(&acknowledged, total / 4).await;
    {
        let _down = up.lock().await;
        server.kill_9();
        server.start();
    }
    reached(&acknowledged, total / 2).await;
    {
        let _down = up.lock().await;
        server.stop_fast();
        server.start();
    }
    reached(&acknowledged, total).await;
    while let Some(ended) = senders.join_next().await {
        ended.expect("a sender of webhooks ends well");
    }
    let patience = Patience::of("everything that was paid is delivered", 120);
    while items(&program.door.get("/api/v1/orders?status=delivered&limit=200").await).len() < SALES {
        patience.wait().await;
    }
    program.at_rest().await;
    watched.cancel();
    let most = sessions.await.expect("the watcher ends well");
    assert!((1..=POOL).contains(&most), "never more sessions than pool_max, but there were {most}");

    let delivered: Vec<String> = orders.iter().flat_map(|order| world.keys(order.customer)).collect();
    assert_eq!(delivered.len(), SALES, "each customer got one key");
    assert_eq!(delivered.iter().collect::<BTreeSet<_>>().len(), SALES, "and nobody the key of another");
    world.finish(program, Killed::BesideTelegram).await;
}

/// Looks every 50 ms how many sessions the program holds, whenever the server is up.
async fn most_sessions(server: Arc<PgServer>, up: Arc<tokio::sync::Mutex<()>>, stop: CancellationToken) -> i64 {
    let mut most: i64 = 0;
    while !stop.is_cancelled() {
        {
            let _up = up.lock().await;
            most = most.max(server.sessions().await);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    most
}

/// Sends what is in the queue as a provider does: each until it is acknowledged, and nothing else than a refusal in time
/// may stand in the way.
async fn send_all(sandbox: Sandbox, queue: Arc<Mutex<VecDeque<HookId>>>, acknowledged: Arc<AtomicUsize>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(hook) = next else { return };
        let patience = Patience::of("a webhook is acknowledged although the database died", 90);
        loop {
            let outcome = sandbox.send_hook(hook).await;
            if outcome.status == Some(200) {
                acknowledged.fetch_add(1, Ordering::SeqCst);
                break;
            }
            refused_in_time(outcome);
            patience.wait().await;
        }
    }
}

async fn reached(count: &AtomicUsize, wanted: usize) {
    let patience = Patience::of(format!("{wanted} webhooks are acknowledged"), 120);
    while count.load(Ordering::SeqCst) < wanted {
        patience.wait().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_cost_their_own_time_only() {
    let limits = [
        ("SEMEL_LIMITS_CONNECTIONS", "12"),
        ("SEMEL_LIMITS_HEADER_TIMEOUT", "2s"),
        ("SEMEL_LIMITS_BODY_TIMEOUT", "2s"),
    ];
    let world = World::with(Engine::Sqlite, &limits).await;
    let mut program = world.start().await;
    let (one, other) = (program.sell_one(42).await, program.sell_one(43).await);

    let mut slow = slow_clients(&program.door, 6).await;
    let watch = Stopwatch::start();
    world.acknowledged(world.pay(&one)).await;
    assert!(watch.elapsed() < Duration::from_millis(1500), "nobody waits for a slow client: {:?}", watch.elapsed());
    // Now they take every seat, and the others wait until these have had their time.
    slow.extend(slow_clients(&program.door, 12).await);
    let watch = Stopwatch::start();
    world.acknowledged(world.pay(&other)).await;
    assert!(watch.elapsed() < Duration::from_secs(15), "no seat is held for ever: {:?}", watch.elapsed());

    for (mut stream, said_more) in slow {
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "a slow client is sent away");
        let answer = String::from_utf8_lossy(&answer);
        let told =
            if said_more { answer.starts_with("HTTP/1.1 408 ") } else { answer.is_empty() || answer.contains("408") };
        assert!(told, "and told why: {answer:?}");
    }
    for order in [&one, &other] {
        program.delivered(order).await;
    }
    program.at_rest().await;
    assert_eq!((world.keys(42).len(), world.keys(43).len()), (1, 1));
    world.finish(program, Killed::BesideTelegram).await;
}

/// Each of the slow may fill the room of a whole body, and each of the greedy would like forty of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn greedy_and_slow_clients_cost_little_memory() {
    const SLOW: usize = 48;
    const GREEDY: usize = 32;
    let limits = [("SEMEL_LIMITS_CONNECTIONS", "100"), ("SEMEL_LIMITS_BODY_TIMEOUT", "3s")];
    let world = World::with(Engine::Sqlite, &limits).await;
    let mut program = world.start().await;
    let order = program.sell_one(42).await;
    let before = peak_memory(&program);

    let mut clients = JoinSet::new();
    for n in 0..SLOW + GREEDY {
        clients.spawn(pours(program.door.address(), n < SLOW));
    }
    world.acknowledged(world.pay(&order)).await;
    program.delivered(&order).await;
    let (mut too_slow, mut too_large) = (0, 0);
    while let Some(answer) = clients.join_next().await {
        let answer = answer.expect("a client ends well");
        // Who is thrown out in the middle of its flood may never read why.
        let known = answer.is_empty() || answer.starts_with("HTTP/1.1 408 ") || answer.starts_with("HTTP/1.1 413 ");
        assert!(known, "it is sent away and told why: {answer:?}");
        too_slow += usize::from(answer.starts_with("HTTP/1.1 408 "));
        too_large += usize::from(answer.starts_with("HTTP/1.1 413 "));
    }
    assert!(too_slow > 0 && too_large > 0, "{too_slow} were too slow and {too_large} too large");
    let grown = peak_memory(&program).saturating_sub(before);
    assert!(grown < 96 * 1024, "{GREEDY} times 10 MB came in, and the program grew by {grown} KiB");

    program.at_rest().await;
    assert_eq!(world.keys(42).len(), 1);
    world.finish(program, Killed::BesideTelegram).await;
}

/// Sends nearly a whole body and then nothing more, or ten megabytes as fast as they are taken. Answers what it was told.
async fn pours(address: SocketAddr, slowly: bool) -> String {
    let head = "POST /webhook/yookassa HTTP/1.1\r\nhost: semel\r\n";
    let (head, piece, times) = if slowly {
        (format!("{head}content-length: 260000\r\n\r\n"), "[".repeat(250_000), 1)
    } else {
        let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, "[".repeat(1 << 20));
        (format!("{head}transfer-encoding: chunked\r\n\r\n"), chunk, 10)
    };
    let mut stream = TcpStream::connect(address).await.expect("the program listens");
    let (mut hears, mut says) = stream.split();
    let mut answer = Vec::new();
    let pouring = async {
        for piece in std::iter::once(&head).chain(std::iter::repeat_n(&piece, times)) {
            // A door that was shut meanwhile takes no more.
            if says.write_all(piece.as_bytes()).await.is_err() {
                return;
            }
        }
    };
    // What came before a connection broke off is there all the same.
    let talk = async { tokio::join!(pouring, hears.read_to_end(&mut answer)) };
    let ended = tokio::time::timeout(Duration::from_secs(30), talk).await;
    assert!(ended.is_ok(), "nobody is kept for ever");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The most memory that the program has had so far, in KiB.
fn peak_memory(program: &Program) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.process.pid())).expect("the program lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

/// Clients that begin a request and never end it: every second one with a whole head and half a body.
async fn slow_clients(door: &Door, count: usize) -> Vec<(TcpStream, bool)> {
    let mut clients = Vec::new();
    for n in 0..count {
        let mut stream = TcpStream::connect(door.address()).await.expect("the program listens");
        let with_body = n % 2 == 1;
        let half = if with_body {
            "POST /webhook/yookassa HTTP/1.1\r\nhost: semel\r\ncontent-length: 500\r\n\r\n{\"type\""
        } else {
            "POST /webhook/yookassa HTTP/1.1\r\nhost: sem"
        };
        stream.write_all(half.as_bytes()).await.expect("the beginning is taken");
        clients.push((stream, with_body));
    }
    clients
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_sales_and_nothing_else_until_there_is_space() {
    let world = World::in_file("disk/semel.db", &[]).await;
    let mut program = on_a_small_disk(&world).await;
    let keys: Vec<String> = (1..=4).map(|n| format!("KEY-{n}")).collect();
    let product = program.product(&keys).await;
    let (paid, waiting) = (program.order(&product, 42).await, program.order(&product, 43).await);

    // The disk is the program's alone; it is reached through the program.
    let disk = PathBuf::from(format!("/proc/{}/root{}", program.process.pid(), world.path("disk").display()));
    assert!(disk.join("semel.db").is_file(), "the database lies on the small disk");
    let ballast = disk.join("ballast");
    fill(&ballast);

    let wish = an_order(&product, 44);
    let refusal = program.door.post_with_key("/api/v1/orders", &wish, "wish-of-44").await;
    assert_eq!(refusal.status, 503, "{}", refusal.text);
    let detail = refusal.body["detail"].as_str().unwrap_or_default();
    assert_eq!(detail, "the database's disk is full: free some space; nothing was changed");
    for order in [&paid, &waiting] {
        let shown = program.door.get(&format!("/api/v1/orders/{}", order.id)).await;
        assert_eq!((shown.status, shown.body["status"].as_str()), (200, Some("pending")), "{}", shown.text);
    }
    let hook = world.pay(&paid);
    refused_in_time(world.sandbox.send_hook(hook).await);

    std::fs::remove_file(&ballast).expect("the ballast is thrown off");
    world.acknowledged(hook).await;
    program.delivered(&paid).await;
    let granted = Order::read(&program.door.post_with_key("/api/v1/orders", &wish, "wish-of-44").await);
    for order in [&waiting, &granted] {
        world.acknowledged(world.pay(order)).await;
        program.delivered(order).await;
    }
    program.at_rest().await;
    let found = [42, 43, 44].map(|customer| world.keys(customer).len());
    assert_eq!(found, [1, 1, 1], "delivered once each");
    // The disk goes with the program, so it has to answer for itself.
    let verdict = program.door.get("/api/v1/verify?at_rest=true").await;
    assert_eq!(verdict.body["clean"], true, "{}", verdict.text);
    program.terminate().await;
    world.sandbox.stop().await;
}

/// Starts the program with `disk` in the world's folder as a disk of 16 MB that only it can see.
async fn on_a_small_disk(world: &World) -> Program {
    let disk = world.path("disk");
    std::fs::create_dir(&disk).expect("a folder");
    let mut command = Command::new("unshare");
    command.args(namespace());
    command.args(["sh", "-c", "mount -t tmpfs -o size=16m,mode=700 tmpfs \"$1\" && exec \"$0\" serve"]);
    command.arg(env!("CARGO_BIN_EXE_semel")).arg(&disk);
    world.dress(&mut command, &[]);
    let mut program = world.adopt(command);
    program.ready().await;
    program
}

/// What gives a process mounts of its own here: being root, or being allowed to seem so.
pub(super) fn namespace() -> &'static [&'static str] {
    const AS_ROOT: &[&str] = &["--mount"];
    const AS_IF_ROOT: &[&str] = &["--mount", "--map-root-user"];
    for way in [AS_ROOT, AS_IF_ROOT] {
        let mut command = Command::new("unshare");
        command.args(way).args(["sh", "-c", "mount -t tmpfs -o size=1m tmpfs /mnt"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if command.status().is_ok_and(|status| status.success()) {
            return way;
        }
    }
    panic!(
        "a full disk is made in a mount namespace, which is forbidden here: run ./test as root, in a container with the \
         capability SYS_ADMIN, or where `unshare --mount --map-root-user` works"
    )
}

/// Writes a file until not one page more fits on its disk.
pub(super) fn fill(path: &Path) {
    let mut file = File::create(path).expect("the ballast is made");
    for size in [64 * 1024, 4096] {
        let piece = vec![0_u8; size];
        let mut written = 0;
        while file.write_all(&piece).is_ok() {
            written += size;
            assert!(written < 64 * 1024 * 1024, "the small disk has an end");
        }
    }
}
