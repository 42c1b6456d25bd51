//! One connection to the server, and whether the session at its other end is ours alone.
//!
//! A transaction pooler (PgBouncer, Odyssey, PgCat and others) lends its clients another server session for every
//! transaction. What we leave behind in one (a prepared statement, a search path, `LISTEN`) would be missing in the
//! next, or disturb somebody else there. Nobody has to tell us whether a pooler stands in between: when a connection
//! begins, the other side names the process to which a cancel request must go, and a pooler has to make that name up,
//! because it knows no process yet that will stay ours. So we ask the server for the process that serves us, and only
//! when both are the same one does the session belong to this connection, for as long as it lasts: then it is
//! [`Connected::direct`].

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, stream};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;
use tokio_postgres::config::{Host, TargetSessionAttrs};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_postgres::{AsyncMessage, Client, Config, Error};

use super::address::Address;
use super::error::reason;
use super::tls::{Tls, end_point, refusal};
use crate::store::StoreError;

/// The database's clock, who serves us, and whether he may write: one round trip.
const ASK: &str = "select (extract(epoch from clock_timestamp()) * 1000)::bigint, pg_backend_pid(), \
                   current_setting('transaction_read_only') = 'on'";
/// Asks a server for TLS (PostgreSQL's protocol, `SSLRequest`): a length and a number that is no version.
const TLS_PLEASE: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// A connection that is open.
pub(in crate::store) struct Connected {
    /// Takes requests. They travel, and their answers come, only while `messages` is polled.
    pub(in crate::store) client: Client,
    /// What the server says unasked. It ends with the connection, or with an error that ends the connection.
    pub(in crate::store) messages: Messages,
    /// Whether the server's session is ours alone, so that it may be given a state.
    pub(in crate::store) direct: bool,
    /// The database's clock when it was asked, in milliseconds since 1970.
    pub(in crate::store) clock_ms: i64,
}

pub(in crate::store) type Messages = Pin<Box<dyn Stream<Item = Result<AsyncMessage, Error>> + Send>>;

/// Connects to the first host of `address` that takes us.
pub(in crate::store) async fn connect_to(address: &Address) -> Result<Connected, StoreError> {
    let places = places(&address.config)?;
    let each = address.limit / u32::try_from(places.len().max(1)).unwrap_or(u32::MAX);
    let mut outcome = Err(unavailable("the database address names no host"));
    for place in places {
        outcome = match place {
            Place::Unix(path) => in_time(each, over_unix(address, &path)).await,
            Place::Tcp { to, name, port } => over_tcp(address, each, (to.as_str(), port), &name).await,
        };
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

enum Place {
    Unix(std::path::PathBuf),
    /// `name` is what the server's certificate is made for.
    Tcp {
        to: String,
        name: String,
        port: u16,
    },
}

/// The hosts of an address, each with its port; `hostaddr` stands in for the name in finding a host.
fn places(config: &Config) -> Result<Vec<Place>, StoreError> {
    let (hosts, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let count = hosts.len().max(addresses.len());
    if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
        return Err(unavailable("the database address names another number of hosts than of their addresses"));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(unavailable("the database address names another number of ports than of hosts"));
    }
    let place = |index: usize| {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        match (hosts.get(index), addresses.get(index)) {
            (Some(Host::Unix(folder)), _) => Some(Place::Unix(folder.join(format!(".s.PGSQL.{port}")))),
            (Some(Host::Tcp(name)), Some(to)) => Some(Place::Tcp { to: to.to_string(), name: name.clone(), port }),
            (Some(Host::Tcp(name)), None) => Some(Place::Tcp { to: name.clone(), name: name.clone(), port }),
            (None, Some(to)) => Some(Place::Tcp { to: to.to_string(), name: to.to_string(), port }),
            (None, None) => None,
        }
    };
    Ok((0..count).filter_map(place).collect())
}

async fn over_unix(address: &Address, path: &std::path::Path) -> Result<Connected, StoreError> {
    let opened = UnixStream::connect(path).await;
    let socket = opened.map_err(|error| unavailable(format!("cannot connect to {}: {error}", path.display())))?;
    settle(address, Wire::new(socket)).await
}

async fn over_tcp(address: &Address, limit: Duration, to: (&str, u16), name: &str) -> Result<Connected, StoreError> {
    let found = in_time(limit, find(to)).await?;
    let each = limit / u32::try_from(found.len().max(1)).unwrap_or(u32::MAX);
    let mut outcome = Err(unavailable(format!("cannot find {}", to.0)));
    for socket in found {
        outcome = in_time(each, over_socket(address, socket, name)).await;
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

async fn find(host: (&str, u16)) -> Result<Vec<SocketAddr>, StoreError> {
    match lookup_host(host).await {
        Ok(found) => Ok(found.collect()),
        Err(error) => Err(unavailable(format!("cannot find {}: {error}", host.0))),
    }
}

async fn over_socket(address: &Address, to: SocketAddr, name: &str) -> Result<Connected, StoreError> {
    let wire = wire_to(address, to, name).await?;
    settle(address, wire).await
}

/// A way to the server that is as safe as the address wants it.
async fn wire_to(address: &Address, to: SocketAddr, name: &str) -> Result<Wire, StoreError> {
    let mut socket = open_tcp(address, to).await?;
    let told = |error: io::Error| unavailable(format!("the connection to {to} broke off: {error}"));
    match &address.tls {
        Tls::Off => Ok(Wire::new(socket)),
        Tls::Prefer(tls) => {
            if !offers_tls(&mut socket).await.map_err(told)? {
                return Ok(Wire::new(socket));
            }
            match shake_hands(tls, socket, name).await {
                Ok(wire) => Ok(wire),
                Err(error) => {
                    tracing::debug!(%error, "no TLS with the database server; going on without, as the address allows");
                    Ok(Wire::new(open_tcp(address, to).await?))
                }
            }
        }
        Tls::Require(tls) => {
            if !address.tls_at_once && !offers_tls(&mut socket).await.map_err(told)? {
                let why = "does not offer TLS, which the database address asks for (sslmode)";
                return Err(unavailable(format!("the database server {name} {why}")));
            }
            shake_hands(tls, socket, name).await
        }
    }
}

async fn open_tcp(address: &Address, to: SocketAddr) -> Result<TcpStream, StoreError> {
    let opened = tcp(to, address.config.get_keepalives()).await;
    opened.map_err(|error| unavailable(format!("cannot connect to {to}: {error}")))
}

async fn tcp(to: SocketAddr, keepalive: bool) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_keepalive(keepalive)?;
    let socket = socket.connect(to).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

async fn offers_tls(socket: &mut TcpStream) -> io::Result<bool> {
    socket.write_all(&TLS_PLEASE).await?;
    // One byte and no more: what somebody may have slipped in behind it must not pass for a part of what is encrypted.
    match socket.read_u8().await? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak PostgreSQL's protocol")),
    }
}

async fn shake_hands(tls: &Arc<ClientConfig>, socket: TcpStream, name: &str) -> Result<Wire, StoreError> {
    let named = ServerName::try_from(name.to_owned());
    let named = named.map_err(|_| unavailable(format!("{name} is no name that a certificate could be made for")))?;
    let shaken = tokio_rustls::TlsConnector::from(Arc::clone(tls)).connect(named, socket).await;
    let stream = shaken.map_err(|error| unavailable(refusal(&error, name)))?;
    let certificates = stream.get_ref().1.peer_certificates();
    let end_point = certificates.and_then(|all| all.first()).and_then(|certificate| end_point(certificate));
    Ok(Wire { end_point, ..Wire::new(stream) })
}

/// Logs in, and finds out who serves us.
async fn settle(address: &Address, wire: Wire) -> Result<Connected, StoreError> {
    let told = |error: Error| unavailable(reason(&error));
    let (client, mut connection) = address.config.connect_raw(wire, AsItIs).await.map_err(told)?;
    let mut ended = false;
    let mut messages: Messages = Box::pin(stream::poll_fn(move |context| {
        if ended {
            return Poll::Ready(None);
        }
        let message = connection.poll_message(context);
        ended = matches!(message, Poll::Ready(None | Some(Err(_))));
        message
    }));
    let row = answered(&mut messages, client.query_typed_one(ASK, &[])).await?;
    let clock_ms: i64 = row.try_get(0).map_err(told)?;
    let process: i32 = row.try_get(1).map_err(told)?;
    let reads_only: bool = row.try_get(2).map_err(told)?;
    match address.config.get_target_session_attrs() {
        TargetSessionAttrs::ReadWrite if reads_only => return Err(unavailable("the database server takes no writes")),
        TargetSessionAttrs::ReadOnly if !reads_only => return Err(unavailable("the database server takes writes")),
        _ => {}
    }
    let direct = named_process(&client).await == Some(process);
    Ok(Connected { client, messages, direct, clock_ms })
}

/// Waits for an answer while the connection moves.
async fn answered<T>(messages: &mut Messages, asking: impl Future<Output = Result<T, Error>>) -> Result<T, StoreError> {
    let mut asking = std::pin::pin!(asking);
    std::future::poll_fn(|context| {
        let ended = loop {
            match messages.as_mut().poll_next(context) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => break Some(reason(&error)),
                Poll::Ready(None) => break Some("it was closed".to_owned()),
                Poll::Pending => break None,
            }
        };
        // The last words before the end are an answer too.
        match (asking.as_mut().poll(context), ended) {
            (Poll::Ready(answer), _) => Poll::Ready(answer.map_err(|error| unavailable(reason(&error)))),
            (Poll::Pending, Some(why)) => Poll::Ready(Err(unavailable(format!("the new connection broke off: {why}")))),
            (Poll::Pending, None) => Poll::Pending,
        }
    })
    .await
}

/// The process that the other side named for cancel requests. The driver keeps it to itself, so we let it write such a
/// request, and read it instead of sending it: a length, a code, the process and its secret, four bytes each.
async fn named_process(client: &Client) -> Option<i32> {
    let (writes, mut reads) = tokio::io::duplex(64);
    client.cancel_token().cancel_query_raw(Wire::new(writes), AsItIs).await.ok()?;
    let mut request = [0; 16];
    reads.read_exact(&mut request).await.ok()?;
    let [.., a, b, c, d, _, _, _, _] = request;
    Some(i32::from_be_bytes([a, b, c, d]))
}

async fn in_time<T>(limit: Duration, doing: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = || unavailable(format!("no connection within {} ms", limit.as_millis()));
    timeout(limit, doing).await.unwrap_or_else(|_| Err(late()))
}

fn unavailable(why: impl Into<String>) -> StoreError {
    StoreError::Unavailable(why.into())
}

trait Bytes: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Bytes for T {}

/// The way to the server, encrypted or not: the driver need not know.
struct Wire {
    bytes: Pin<Box<dyn Bytes>>,
    end_point: Option<Vec<u8>>,
}

impl Wire {
    fn new(bytes: impl Bytes + 'static) -> Self {
        Self { bytes: Box::pin(bytes), end_point: None }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.bytes.as_mut().poll_read(context, into)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.bytes.as_mut().poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.bytes.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.bytes.as_mut().poll_shutdown(context)
    }
}

impl TlsStream for Wire {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.end_point {
            Some(end_point) => ChannelBinding::tls_server_end_point(end_point.clone()),
            None => ChannelBinding::none(),
        }
    }
}

/// Hands the driver a wire that is already what it shall be.
struct AsItIs;

impl TlsConnect<Wire> for AsItIs {
    type Stream = Wire;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Wire>>;

    fn connect(self, wire: Wire) -> Self::Future {
        std::future::ready(Ok(wire))
    }
}
