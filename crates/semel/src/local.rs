//! The owner's commands: through the running program's socket, or inside this process when none runs.
//!
//! The socket lies beside the embedded database and only its owner may open it; whoever may read the database file may
//! use it. Both ways end at the same routes as the HTTP API, so a command can do nothing that the API cannot.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use axum::Router;
use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use semel_kernel::failpoint::{fail, hit, reach, told};

use crate::settings::{DatabaseUrl, Settings};

/// Where the socket of these settings' database is; none for PostgreSQL, where every command can open the database.
pub fn socket_path(settings: &Settings) -> Option<PathBuf> {
    match &settings.database {
        DatabaseUrl::Sqlite(path) => {
            let mut name = path.as_os_str().to_owned();
            name.push(".sock");
            Some(PathBuf::from(name))
        }
        DatabaseUrl::Postgres(_) => None,
    }
}

/// The embedded database of these settings, when its file is not there: opening it would make a new, empty one. A file
/// that may not be looked at counts as there, so that opening it tells why.
pub fn missing_database(settings: &Settings) -> Option<PathBuf> {
    match &settings.database {
        DatabaseUrl::Sqlite(path) if matches!(path.try_exists(), Ok(false)) => {
            Some(std::path::absolute(path).unwrap_or_else(|_| path.clone()))
        }
        _ => None,
    }
}

/// An open socket; removed when dropped.
pub struct Door {
    path: PathBuf,
}

impl Door {
    /// Serves `app` on the socket at `path` until `stop`. The database's lock is held by this process, so a socket that
    /// lies there already belongs to nobody.
    pub fn open(path: PathBuf, app: Router, stop: CancellationToken) -> anyhow::Result<Door> {
        if fail("file.clear", "socket") {
            bail!(told("file.clear", "socket"));
        }
        let _ = std::fs::remove_file(&path);
        if fail("file.bind", "socket") {
            bail!(told("file.bind", "socket"));
        }
        let listener =
            UnixListener::bind(&path).with_context(|| format!("cannot open the owner's socket {}", path.display()))?;
        if fail("file.bound", "socket") {
            bail!(told("file.bound", "socket"));
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        hit("file.private", "socket");
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                let Ok((stream, _)) = accepted else { continue };
                if reach("door.accepted", "socket").await {
                    continue; // The command meets a connection that was closed at once.
                }
                let service = TowerToHyperService::new(app.clone());
                tokio::spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(Door { path })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        hit("file.remove", "socket");
        let _ = std::fs::remove_file(&self.path);
        hit("file.removed", "socket");
    }
}

/// Whom a command talks to.
pub enum Program {
    /// The running one.
    Running(PathBuf),
    /// This process itself.
    Here(Box<Router>),
}

/// An answer of the program.
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON, or the problem's sentence as an error.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        let value: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        if self.status.is_success() {
            return Ok(value);
        }
        let detail = value["detail"].as_str().unwrap_or("the program refused without a reason");
        bail!("{detail}")
    }
}

/// Whether a program answers at the socket.
pub async fn is_running(path: &Path) -> bool {
    UnixStream::connect(path).await.is_ok()
}

impl Program {
    /// Asks for `path`; a `body` makes it a POST with a key of its own.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<serde_json::Value>,
        key: &str,
    ) -> anyhow::Result<Answer> {
        let (kind, bytes) = match &body {
            Some(body) => (Some("application/json"), serde_json::to_vec(body)?),
            None => (None, Vec::new()),
        };
        self.send(method, path, kind, bytes, key).await
    }

    /// Asks with a body of any kind, as it is; a POST has a key of its own.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        kind: Option<&str>,
        bytes: Vec<u8>,
        key: &str,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::builder().method(method.clone()).uri(path).header("host", "semel");
        if method == Method::POST {
            request = request.header("idempotency-key", key);
        }
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        match self {
            Program::Here(router) => {
                let answer = router.as_ref().clone().oneshot(request.body(Body::from(bytes))?).await?;
                let (parts, body) = answer.into_parts();
                Ok(Answer { status: parts.status, body: body.collect().await?.to_bytes().to_vec() })
            }
            Program::Running(socket) => {
                let stream =
                    UnixStream::connect(socket).await.context("the running semel does not answer on its socket")?;
                let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                let answer = sender.send_request(request.body(Full::new(bytes::Bytes::from(bytes)))?).await?;
                let (parts, body) = answer.into_parts();
                Ok(Answer { status: parts.status, body: body.collect().await?.to_bytes().to_vec() })
            }
        }
    }
}
