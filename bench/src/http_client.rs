//! A plain HTTP/1.1 client: one connection, one request at a time, nothing between the clock and the socket.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a server may take for one answer before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A kept-alive connection.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Result<Wire> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Wire { stream, buffer: Vec::with_capacity(4096) })
    }

    /// Sends the bytes of one request and reads its answer: the status and the body.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>)> {
        match timeout(PATIENCE, self.exchange_now(request)).await {
            Ok(answer) => answer,
            Err(_) => bail!("no answer within {PATIENCE:?}"),
        }
    }

    async fn exchange_now(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>)> {
        self.stream.write_all(request).await?;
        loop {
            if let Some(head) = head_length(&self.buffer) {
                let (status, length) = read_head(&self.buffer[..head])?;
                while self.buffer.len() < head + length {
                    self.more().await?;
                }
                let body = self.buffer[head..head + length].to_vec();
                self.buffer.drain(..head + length);
                return Ok((status, body));
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<()> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            bail!("the server closed the connection");
        }
        Ok(())
    }
}

fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

fn read_head(head: &[u8]) -> Result<(u16, usize)> {
    let text = std::str::from_utf8(head).context("the answer's head is no text")?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("the answer has no status")?.parse()?;
    let mut length = None;
    for line in lines {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = Some(value.trim().parse()?);
        }
    }
    Ok((status, length.context("the answer does not say how long it is")?))
}

/// The bytes of a request with these headers.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(name);
        text.push_str(": ");
        text.push_str(value);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// One call with JSON on a connection of its own; any status that is not a success is an error.
pub async fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> Result<Value> {
    let mut all = vec![("Content-Type", "application/json")];
    all.extend_from_slice(headers);
    let bytes = match body {
        Some(body) => serde_json::to_vec(body)?,
        None => Vec::new(),
    };
    let mut wire = Wire::open(address).await?;
    let (status, answer) = wire.exchange(&request(method, path, &all, &bytes)).await?;
    if !(200..300).contains(&status) {
        bail!("{method} {path} was answered with {status}: {}", String::from_utf8_lossy(&answer));
    }
    Ok(serde_json::from_slice(&answer).unwrap_or_default())
}
