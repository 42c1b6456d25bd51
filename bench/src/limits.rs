//! The limits of intake: what the disk gives without HTTP, and what HTTP gives without a disk.
//!
//! Both run as processes of their own, as the measured program does.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use clap::Args;
use http::{HeaderMap, StatusCode};
use rusqlite::Connection;
use semel::server::{Base, ClientIp, Limits, TrustedProxies, base, serve};
use semel_kernel::clock::{Chance, Clock, Stopwatch};
use semel_kernel::ids::new_id;
use semel_kernel::store::Engine;
use semel_payments::{Rail, YooKassa};
use semel_shop::checkout::hints;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::database::Database;
use crate::notices::{SENDER, body, digits};
use crate::pg;
use crate::place::{Kept, Place, eventually, free_address};
use crate::{fill, http_client, load};

// ---- the same server, answering without storing

/// Where the answering server listens.
#[derive(Args)]
pub struct AnswerArgs {
    /// Its address
    #[arg(long)]
    listen: SocketAddr,
}

/// Runs the program's own HTTP server with a route that verifies a notice, logs as the real one does, and answers 200.
pub async fn answer_only(args: AnswerArgs) -> Result<ExitCode> {
    let filter = tracing_subscriber::EnvFilter::new("warn,semel=info,semel_bench=info");
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
    let rail =
        YooKassa::new(semel_sandbox::YOOKASSA_SHOP_ID, semel_sandbox::YOOKASSA_SECRET_KEY, "http://127.0.0.1:9/v3")?;
    let rail = Arc::new(Rail::YooKassa(rail));
    let router = Router::new().route("/webhook/yookassa", post(receive)).with_state(rail);
    let (clock, chance, started) = (Clock::system(), Chance::system(), Stopwatch::start());
    let limits = Limits::default();
    let router = base(
        router,
        Base {
            limits,
            proxies: TrustedProxies::loopback(),
            fresh_id: Arc::new(move || new_id("req", clock.now(), &chance)),
            uptime: Arc::new(move || started.elapsed()),
        },
    );
    let listener = TcpListener::bind(args.listen).await?;
    serve(listener, router, limits, CancellationToken::new(), Duration::from_secs(1)).await;
    Ok(ExitCode::SUCCESS)
}

async fn receive(
    State(rail): State<Arc<Rail>>,
    client: Option<Extension<ClientIp>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let watch = Stopwatch::start();
    let peer = client.and_then(|Extension(ClientIp(ip))| ip);
    let Ok(hint) = rail.verify(peer, &headers, &body) else { return StatusCode::FORBIDDEN.into_response() };
    let event = hint.event_id.clone();
    let notice = hints::notice(&rail, hint, body.to_vec(), "{}".to_owned(), peer.map(|ip| ip.to_string()));
    tracing::info!(event.id = %event, bytes = notice.body.len(), took_ms = watch.millis(), "webhook is answered and not stored");
    (StatusCode::OK, Json(json!({ "ok": true }))).into_response()
}

/// The answering server as a process.
pub struct AnswerServer {
    /// Its address.
    pub address: SocketAddr,
    kept: Kept,
}

impl AnswerServer {
    /// Starts it and waits until it answers.
    pub async fn start(place: &Place) -> Result<AnswerServer> {
        let address = free_address()?;
        let mut command = place.bare(&std::env::current_exe()?);
        command.args(["answer-only", "--listen", &address.to_string()]);
        let mut kept = Kept::spawn(place, "answer_only", command)?;
        eventually("the answering server listens", Duration::from_secs(20), async || {
            kept.still_runs()?;
            Ok(http_client::Wire::open(address).await.is_ok())
        })
        .await?;
        Ok(AnswerServer { address, kept })
    }

    /// Ends it.
    pub async fn stop(self) -> Result<()> {
        self.kept.stop("KILL").await
    }
}

// ---- the same rows, written by a plain batching writer

/// What the plain writer writes.
#[derive(Args)]
pub struct WriteArgs {
    /// SQLite file, or a postgres:// address
    #[arg(long)]
    database: String,
    /// Notices in one transaction
    #[arg(long)]
    batch: u64,
    /// For how long
    #[arg(long)]
    seconds: u64,
    /// How many payments are filled in
    #[arg(long)]
    payments: u64,
}

/// Notices that were written, and the time it took; a line of JSON between the two processes.
#[derive(Serialize, Deserialize)]
struct Written {
    rows: u64,
    took: Duration,
}

/// Writes notices as fast as one plain loop can, and prints how many a second.
pub async fn write_only(args: WriteArgs) -> Result<ExitCode> {
    let longest = Duration::from_secs(args.seconds);
    let written = if args.database.starts_with("postgres://") {
        write_postgres(&args.database, args.batch, args.payments, longest).await?
    } else {
        write_sqlite(Path::new(&args.database), args.batch, args.payments, longest)?
    };
    println!("{}", serde_json::to_string(&written)?);
    Ok(ExitCode::SUCCESS)
}

/// Runs the plain writer as a process and answers its notices a second.
pub async fn writer_rate(
    place: &Place,
    database: &Database,
    batch: u64,
    seconds: u64,
    payments: u64,
    slow: bool,
) -> Result<f64> {
    let slow = slow && database.engine() == Engine::Sqlite;
    let mut command = place.bare_with_disk(&std::env::current_exe()?, slow);
    let address = match database {
        Database::Sqlite(path) => path.display().to_string(),
        Database::Postgres(url) => url.clone(),
    };
    command.args(["write-only", "--database", &address, "--batch", &batch.to_string()]);
    command.args(["--seconds", &seconds.to_string(), "--payments", &payments.to_string()]);
    let output = command.output().await?;
    if !output.status.success() {
        bail!("the plain writer failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let told: Written = serde_json::from_slice(&output.stdout).context("the plain writer's answer")?;
    Ok(told.rows as f64 / told.took.as_secs_f64().max(0.001))
}

/// What a notice's row holds that differs from the next one's.
struct Row {
    id: String,
    event: String,
    hash: String,
    body: Vec<u8>,
    subject: String,
    says: String,
}

fn row(body: &str, number: u64) -> Row {
    let digits = digits(number);
    Row {
        id: format!("inb_{digits}"),
        event: format!("yookassa:payment.succeeded:{digits}"),
        hash: format!("{number:064x}"),
        body: body.replace(load::SPOT, &digits).into_bytes(),
        subject: format!("pay_{digits}"),
        says: format!(
            r#"{{"provider":"yookassa","provider_id":"{digits}","ours":"pay_{digits}","state":"succeeded","amount":"499.00 RUB"}}"#
        ),
    }
}

const HEADERS: &str = r#"{"content-type":"application/json","user-agent":"AHC/2.1","x-forwarded-for":"185.71.76.5"}"#;

/// One connection with the program's own pragmas, one transaction for each batch.
fn write_sqlite(path: &Path, batch: u64, payments: u64, longest: Duration) -> Result<Written> {
    let mut connection = Connection::open(path)?;
    connection.execute_batch(
        "pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = on; pragma busy_timeout = 2000;
         pragma journal_size_limit = 67108864; pragma cache_size = -8000; pragma temp_store = memory;",
    )?;
    let (body, shop, clock) = (body(), semel_sandbox::YOOKASSA_SHOP_ID, Clock::system());
    let watch = Stopwatch::start();
    let mut rows = 0;
    while watch.elapsed() < longest && rows + batch <= payments {
        let tx = connection.transaction()?;
        {
            let mut insert = tx.prepare_cached(
                "insert into inbox (id, source, account, event_id, event, body_hash, body, headers, peer, verified, subject, says, state,
                     received_at)
                 values (?1, 'yookassa', ?2, ?3, 'payment.succeeded', ?4, ?5, ?6, ?7, 1, ?8, ?9, 'received', ?10)",
            )?;
            let mut pull = tx.prepare_cached(
                "update jobs set run_at = ?2 where kind = 'payment.confirm' and slot = ?1 and state in ('ready', 'running')",
            )?;
            for n in rows..rows + batch {
                let row = row(&body, fill::FIRST_LIVE + n);
                let now = clock.now().millis();
                insert.execute((
                    &row.id,
                    shop,
                    &row.event,
                    &row.hash,
                    &row.body,
                    HEADERS,
                    SENDER,
                    &row.subject,
                    &row.says,
                    now,
                ))?;
                pull.execute((&row.subject, now))?;
            }
        }
        tx.commit()?;
        rows += batch;
    }
    Ok(Written { rows, took: watch.elapsed() })
}

const WRITE_POSTGRES: &str = "with pulled as (
        update semel.jobs set run_at = $8::bigint where kind = 'payment.confirm' and slot = any($5::text[]) and state in ('ready', 'running')
    )
    insert into semel.inbox (id, source, account, event_id, event, body_hash, body, headers, peer, verified, subject, says, state, received_at)
    select id, 'yookassa', $9::text, event_id, 'payment.succeeded', hash, body, $7::text, $10::text, true, subject, says, 'received', $8::bigint
        from unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::text[], $6::text[]) b(id, event_id, hash, body, subject, says)";

/// Two connections, as the program has at most two batches on their way; one statement for each batch.
async fn write_postgres(url: &str, batch: u64, payments: u64, longest: Duration) -> Result<Written> {
    let half = payments / 2;
    let watch = Stopwatch::start();
    let (first, second) = tokio::join!(
        write_postgres_part(url, batch, 0, half, longest),
        write_postgres_part(url, batch, half, payments, longest)
    );
    Ok(Written { rows: first? + second?, took: watch.elapsed() })
}

async fn write_postgres_part(url: &str, batch: u64, first: u64, end: u64, longest: Duration) -> Result<u64> {
    let client = pg::connect(url).await?;
    let statement = client.prepare(WRITE_POSTGRES).await?;
    let (body, shop, clock) = (body(), semel_sandbox::YOOKASSA_SHOP_ID, Clock::system());
    let watch = Stopwatch::start();
    let mut next = first;
    while watch.elapsed() < longest && next + batch <= end {
        let rows: Vec<Row> = (next..next + batch).map(|n| row(&body, fill::FIRST_LIVE + n)).collect();
        let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
        let events: Vec<&str> = rows.iter().map(|row| row.event.as_str()).collect();
        let hashes: Vec<&str> = rows.iter().map(|row| row.hash.as_str()).collect();
        let bodies: Vec<&[u8]> = rows.iter().map(|row| row.body.as_slice()).collect();
        let subjects: Vec<&str> = rows.iter().map(|row| row.subject.as_str()).collect();
        let says: Vec<&str> = rows.iter().map(|row| row.says.as_str()).collect();
        let now = clock.now().millis();
        client
            .execute(&statement, &[&ids, &events, &hashes, &bodies, &subjects, &says, &HEADERS, &now, &shop, &SENDER])
            .await?;
        next += batch;
    }
    Ok(next - first)
}
