//! PostgreSQL alone: what a session of ours keeps, what happens when the schema or the connection goes away under it,
//! and how far a server's certificate is believed.
#![allow(clippy::unwrap_used)]

use std::io;
use std::net::SocketAddr;

use semel_kernel::args;
use semel_kernel::clock::Clock;
use semel_kernel::store::{Expect, ManySql, Store, StoreError, StoreOptions, StoreUrl, Value};
use semel_kernel::testing::{PgServer, eventually, options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

const PUT: &str = "insert into things (name, n, label) values ($1, $2, $3)";
const FIND: &str = "select n from things where name = $1";
const BUMP: &str = "update things set n = n + 1 where name = $1";
const PUT_ALL: ManySql = ManySql {
    sqlite: "insert into things (name, n, label) values ($1, $2, $3)",
    postgres: "insert into things (name, n, label) select * from unnest($1::text[], $2::bigint[], $3::text[])",
};

const CERTIFICATE: &str = include_str!("tls/server.crt");
const KEY: &str = include_str!("tls/server.key");

async fn lay_out(server: &PgServer) {
    server.create("shop", "template1").await;
    let tables = "create schema semel; create table semel.things (name text primary key, n bigint, label text)";
    server.run("shop", tables).await;
}

/// A store with one connection, so that what is asked about a session is asked about the one that did the work.
fn open(url: StoreUrl) -> Store {
    Store::open(&url, StoreOptions { pool_max: 1, ..options() }, Clock::system()).unwrap()
}

async fn answer(store: &Store, question: &'static str) -> Value {
    let rows = store.rows("test.answer", question, &[]).await.unwrap();
    rows[0].values()[0].clone()
}

/// How many statements the session keeps prepared.
async fn kept(store: &Store) -> i64 {
    match answer(store, "select count(*) from pg_prepared_statements").await {
        Value::Int(count) => count,
        other => panic!("a count is {other:?}"),
    }
}

async fn put(store: &Store, name: &str, n: Option<i64>, label: Option<&str>) -> Result<u64, StoreError> {
    let values = args![name, n, label].to_vec();
    store.write("put", move |tx| tx.execute(PUT, &values)).await
}

async fn find(store: &Store, name: &str) -> Result<Value, StoreError> {
    let name = name.to_owned();
    store.write("find", move |tx| tx.one(FIND, args![&name])?.get(0)).await
}

/// The same statements ten times each, with nulls in changing places, in every kind of transaction.
async fn ten_rounds(store: &Store) {
    for round in 0..10_i64 {
        let name = format!("thing {round}");
        let n = (round % 3 != 0).then_some(round);
        let label = (round % 2 == 0).then_some("label");
        assert_eq!(put(store, &name, n, label).await, Ok(1));

        let found = find(store, &name).await;
        assert_eq!(found, Ok(Value::from(n)));
        let key = args![&name].to_vec();
        let looked = store.look("look", move |tx| tx.one(FIND, &key)?.get::<Option<i64>>(0)).await;
        assert_eq!(looked, Ok(n));
        let key = args![&name].to_vec();
        let read = store.read("read", move |tx| tx.one(FIND, &key)?.get::<Option<i64>>(0)).await;
        assert_eq!(read, Ok(n));

        let key = args![&name].to_vec();
        assert_eq!(store.single("bump", move |tx| tx.execute(BUMP, &key)).await, Ok(1));
        let key = args![&name].to_vec();
        let bumped = store.write("bump", move |tx| tx.later(BUMP, &key, Expect::Rows(1))).await;
        assert_eq!(bumped, Ok(()));
        assert_eq!(find(store, &name).await, Ok(Value::from(n.map(|n| n + 2))));

        let rows: Vec<Vec<Value>> = (0..3_i64)
            .map(|row| {
                let n = (round % 2 == 0 && row > 0).then_some(row);
                args![format!("{name}, part {row}"), n, None::<String>].to_vec()
            })
            .collect();
        let all = store.write("put.all", move |tx| tx.many_later(PUT_ALL, rows.clone(), Expect::Rows(3))).await;
        assert_eq!(all, Ok(()));
    }
    assert_eq!(answer(store, "select count(*) from things").await, Value::Int(40));
    assert_eq!(
        answer(store, "select count(n) from things where label is null and name like '%part%'").await,
        Value::Int(10)
    );

    let missed = store.write("bump", |tx| tx.later(BUMP, args!["nobody"], Expect::Rows(1))).await;
    assert!(matches!(missed, Err(StoreError::Unexpected { wanted: 1, .. })), "{missed:?}");
    let twice = put(store, "thing 1", None, None).await;
    assert!(matches!(twice, Err(StoreError::Constraint(_))), "{twice:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_ours_keeps_what_comes_often_whatever_is_null_in_it() {
    let server = PgServer::private();
    lay_out(&server).await;
    let store = open(server.url("shop"));
    ten_rounds(&store).await;
    assert!(kept(&store).await >= 4, "the session keeps {} statements", kept(&store).await);
    assert_eq!(answer(&store, "select current_setting('search_path')").await, Value::Text("semel".into()));
    let plans = "select current_setting('plan_cache_mode')";
    let writing = store.write("plans", move |tx| tx.one(plans, &[])?.get::<String>(0)).await;
    assert_eq!(writing, Ok("force_generic_plan".to_owned()), "one plan serves every transaction that writes");
    assert_eq!(answer(&store, plans).await, Value::Text("auto".into()), "a look's plan may know its parameters");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_behind_a_pooler_keeps_nothing_and_does_the_same() {
    let server = PgServer::private();
    lay_out(&server).await;
    let address = pooler(&server).await;
    let store = open(StoreUrl::Postgres(format!("postgres://postgres@{address}/shop")));
    ten_rounds(&store).await;
    assert_eq!(kept(&store).await, 0);

    let strict = open(StoreUrl::Postgres(format!("postgres://postgres@{address}/shop?sslmode=require")));
    let told = find(&strict, "thing 1").await;
    assert!(matches!(&told, Err(StoreError::Unavailable(text)) if text.contains("does not offer TLS")), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_session_kept_dies_with_it_and_nobody_notices() {
    let server = PgServer::private();
    lay_out(&server).await;
    let store = open(server.url("shop"));
    put(&store, "a", Some(7), None).await.unwrap();
    for _ in 0..3 {
        for _ in 0..5 {
            assert_eq!(find(&store, "a").await, Ok(Value::Int(7)));
        }
        assert!(kept(&store).await > 0);
        let kill = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'semel'";
        server.run("postgres", kill).await;
        eventually("the session is gone", async || server.sessions().await == 0).await;
    }
    assert_eq!(find(&store, "a").await, Ok(Value::Int(7)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_changes_under_prepared_statements_costs_a_second_run() {
    let server = PgServer::private();
    lay_out(&server).await;
    let store = open(server.url("shop"));
    put(&store, "a", Some(7), None).await.unwrap();
    for _ in 0..5 {
        assert_eq!(find(&store, "a").await, Ok(Value::Int(7)));
    }
    assert!(kept(&store).await > 0);

    server.run("shop", "alter table semel.things alter column n type text using n::text || '!'").await;
    assert_eq!(find(&store, "a").await, Ok(Value::Text("7!".into())));
    let looked = store.look("look", |tx| tx.one(FIND, args!["a"])?.get::<String>(0)).await;
    assert_eq!(looked, Ok("7!".into()));
    for _ in 0..5 {
        assert_eq!(find(&store, "a").await, Ok(Value::Text("7!".into())));
    }

    // What is truly wrong is told as such, and the connection goes on.
    server.run("shop", "alter table semel.things drop column n").await;
    let told = find(&store, "a").await;
    assert!(matches!(&told, Err(StoreError::Statement(text)) if text.contains("does not exist")), "{told:?}");
    assert_eq!(answer(&store, "select name from things").await, Value::Text("a".into()));
}

/// Where the server with TLS is, as one of its names and with more to say about it.
fn address(server: &PgServer, host: &str, more: &str) -> StoreUrl {
    StoreUrl::Postgres(format!("postgres://keeper:secret@{host}:{}/shop{more}", server.port()))
}

fn file(name: &str) -> String {
    format!("{}/tests/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

async fn is_encrypted(url: StoreUrl) -> Value {
    answer(&open(url), "select ssl from pg_stat_ssl where pid = pg_backend_pid()").await
}

/// Why the address leads nowhere.
async fn refused(url: StoreUrl) -> String {
    let told = match Store::open(&url, options(), Clock::system()) {
        Ok(store) => store.rows("test.refused", "select 1", &[]).await.map(|_| ()),
        Err(error) => Err(error),
    };
    told.expect_err("such a server must be refused").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_way_to_the_server_is_as_safe_as_the_address_says() {
    let server = PgServer::with_tls(CERTIFICATE, KEY).await;
    lay_out(&server).await;
    let (root, own) = (file("root.crt"), file("server.crt"));
    let yes = Value::Bool(true);

    assert_eq!(is_encrypted(address(&server, "localhost", "?sslmode=disable")).await, Value::Bool(false));
    assert_eq!(is_encrypted(address(&server, "localhost", "")).await, yes);
    assert_eq!(is_encrypted(address(&server, "127.0.0.1", "?sslmode=require")).await, yes);
    assert_eq!(is_encrypted(address(&server, "localhost", "?sslmode=require&channel_binding=require")).await, yes);

    let full = |host, root: &str| address(&server, host, &format!("?sslmode=verify-full&sslrootcert={root}"));
    let chain = |host, root: &str| address(&server, host, &format!("?sslmode=verify-ca&sslrootcert={root}"));
    assert_eq!(is_encrypted(full("localhost", &root)).await, yes);
    assert_eq!(is_encrypted(full("localhost", &own)).await, yes);
    assert_eq!(is_encrypted(chain("127.0.0.1", &root)).await, yes);
    assert_eq!(is_encrypted(chain("127.0.0.1", &own)).await, yes);
    let pairs = format!(
        "host=localhost port={} user=keeper password=secret dbname=shop sslmode=verify-full sslrootcert='{root}'",
        server.port()
    );
    assert_eq!(is_encrypted(StoreUrl::Postgres(pairs)).await, yes);

    for file in [&root, &own] {
        let told = refused(full("127.0.0.1", file)).await;
        assert!(told.contains("is made for another name"), "{told}");
    }
    for mode in ["verify-full", "verify-ca"] {
        let told = refused(address(&server, "localhost", &format!("?sslmode={mode}"))).await;
        assert!(told.contains("sslrootcert=FILE") && !told.contains("secret"), "{told}");
    }

    let store = open(full("localhost", &root));
    ten_rounds(&store).await;
    assert!(kept(&store).await >= 4, "encryption hides whose session it is");
}

/// Stands between the store and the server as a pooler does: it speaks no TLS, and for cancel requests it names a
/// process that it made up.
async fn pooler(server: &PgServer) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let socket = server.folder().join(format!(".s.PGSQL.{}", server.port()));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = UnixStream::connect(&socket).await.unwrap();
            tokio::spawn(between(client, server));
        }
    });
    address
}

async fn between(client: TcpStream, server: UnixStream) -> io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut start = [0; 8];
    from_client.read_exact(&mut start).await?;
    if start[4..] == [0x04, 0xd2, 0x16, 0x2f] {
        to_client.write_all(b"N").await?;
    } else {
        to_server.write_all(&start).await?;
    }
    tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    loop {
        let kind = from_server.read_u8().await?;
        let length = from_server.read_u32().await?;
        let mut body = vec![0; length as usize - 4];
        from_server.read_exact(&mut body).await?;
        if kind == b'K' {
            body[..4].copy_from_slice(&1_234_567_890_i32.to_be_bytes());
        }
        to_client.write_u8(kind).await?;
        to_client.write_u32(length).await?;
        to_client.write_all(&body).await?;
    }
}
