//! The socket side: the one place that holds an HTTP client, and the one place where its errors become words.
//!
//! The library's errors carry the address, and the address of a bot carries its token. [`tell`] is the choke point:
//! an error leaves this file as a host name and the causes below it, or not at all.
//!
//! Nothing is repeated here: the library's own retries are off, redirects are answers like others, the environment's
//! proxy variables are not read.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use url::Url;

use super::OutboundOptions;
use super::error::OutboundError;
use super::guard::{NotPublic, PublicResolver};

/// Idle connections are dropped before the other side is likely to drop them: a request that meets a closing
/// connection ends unclear, which is the most expensive outcome there is.
const IDLE: Duration = Duration::from_secs(15);
/// How often a silent connection is tested by the kernel of the machine.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Chooses the TLS provider for the whole process: aws-lc-rs, and nowhere else. Whoever came first stays.
pub(super) fn install_tls() {
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::trace!("a TLS provider was installed before");
    }
}

/// A request taken apart, ready to be sent any number of times.
pub(super) struct Target {
    pub(super) url: Url,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
}

impl Target {
    /// Accepts absolute http and https addresses without a name and password in them.
    pub(super) fn read(request: Request<Vec<u8>>) -> Result<Self, OutboundError> {
        let (parts, body) = request.into_parts();
        let refused = |text: &str| OutboundError::NotSent { text: text.to_owned() };
        let url = Url::parse(&parts.uri.to_string()).map_err(|_| refused("the address cannot be read"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(refused("the address is neither http nor https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("an address must not hold a name or a password"));
        }
        Ok(Self { url, method: parts.method, headers: parts.headers, body: Bytes::from(body) })
    }

    fn host(&self) -> &str {
        self.url.host_str().unwrap_or("?")
    }

    fn request(&self) -> reqwest::Request {
        let mut request = reqwest::Request::new(self.method.clone(), self.url.clone());
        *request.headers_mut() = self.headers.clone();
        if !self.body.is_empty() {
            *request.body_mut() = Some(reqwest::Body::from(self.body.clone()));
        }
        request
    }

    /// The error of a try that ran out of time. It may have arrived: who knows when the clock stopped it.
    pub(super) fn out_of_time(&self) -> OutboundError {
        OutboundError::Unclear { text: format!("{}: no answer in time", self.host()) }
    }
}

/// One pool of connections under one rule about where it may go.
pub(super) struct Wire {
    client: reqwest::Client,
    max_answer_bytes: usize,
}

impl Wire {
    /// A pool for our own addresses, or (`public`) one for addresses that users gave us.
    pub(super) fn new(options: &OutboundOptions, public: bool) -> Result<Self, OutboundError> {
        let client = match builder(options, public)?.build() {
            Ok(client) => client,
            Err(error) => {
                // A slim image has no root certificates. Plain http to a sandbox still works; https says why it fails.
                let bare = builder(options, public)?.tls_certs_only(std::iter::empty()).build();
                let client = bare.map_err(|_| OutboundError::Setup { text: causes(&error.without_url()) })?;
                tracing::warn!("no root certificates on this machine: every https call will fail");
                client
            }
        };
        Ok(Self { client, max_answer_bytes: options.max_answer_bytes })
    }

    /// Sends once and reads the whole answer.
    pub(super) async fn send(&self, target: &Target) -> Result<Response<Vec<u8>>, OutboundError> {
        let mut answer = self.client.execute(target.request()).await.map_err(|error| tell(error, target))?;
        let cap = u64::try_from(self.max_answer_bytes).unwrap_or(u64::MAX);
        if answer.content_length().is_some_and(|length| length > cap) {
            return Err(OutboundError::TooLarge);
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| broke_off(error, target))? {
            if body.len() + chunk.len() > self.max_answer_bytes {
                return Err(OutboundError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let mut response = Response::new(body);
        *response.status_mut() = answer.status();
        *response.version_mut() = answer.version();
        *response.headers_mut() = std::mem::take(answer.headers_mut());
        Ok(response)
    }
}

#[expect(clippy::disallowed_methods, reason = "the one home of the HTTP client")]
fn builder(options: &OutboundOptions, public: bool) -> Result<reqwest::ClientBuilder, OutboundError> {
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(options.connect_timeout)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(options.idle_per_host)
        .tcp_keepalive(KEEPALIVE)
        .user_agent(options.user_agent.clone());
    if public {
        return Ok(builder.dns_resolver(PublicResolver));
    }
    if let Some(address) = &options.proxy {
        builder = builder.proxy(proxy(address)?);
    }
    Ok(builder)
}

/// The proxy's address may hold a password, so no error repeats it.
fn proxy(address: &str) -> Result<reqwest::Proxy, OutboundError> {
    let refused = || OutboundError::Setup { text: "the proxy has to be an http:// or https:// address".to_owned() };
    let url = Url::parse(address).map_err(|_| refused())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refused());
    }
    let proxy = reqwest::Proxy::all(url).map_err(|_| refused())?;
    Ok(proxy.no_proxy(reqwest::NoProxy::from_string("localhost, 127.0.0.0/8, ::1")))
}

/// Sorts the library's error: into what certainly never arrived, and the rest.
fn tell(error: reqwest::Error, target: &Target) -> OutboundError {
    if let Some(refused) = find::<NotPublic>(&error) {
        return OutboundError::PrivateAddress { host: refused.host.clone() };
    }
    // A connection that never stood carried nothing, and the library refuses to build nonsense before it connects.
    let never_sent = error.is_connect() || error.is_builder();
    let text = words(error, target);
    if never_sent { OutboundError::NotSent { text } } else { OutboundError::Unclear { text } }
}

/// The answer began and did not end.
fn broke_off(error: reqwest::Error, target: &Target) -> OutboundError {
    OutboundError::Unclear { text: format!("the answer broke off: {}", words(error, target)) }
}

/// Host and causes. Should a cause ever quote the path or the query, it is cut out.
fn words(error: reqwest::Error, target: &Target) -> String {
    let mut text = format!("{}: {}", target.host(), causes(&error.without_url()));
    for secret in [target.url.query().unwrap_or(""), target.url.path()] {
        if secret.len() > 1 {
            text = text.replace(secret, "…");
        }
    }
    text
}

/// The causes below an error, without those of the library itself: they are the ones that quote addresses.
fn causes(error: &reqwest::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        if !cause.is::<reqwest::Error>() {
            texts.push(cause.to_string());
        }
        next = cause.source();
    }
    if texts.is_empty() { "the request failed".to_owned() } else { texts.join(": ") }
}

fn find<T: Error + 'static>(error: &reqwest::Error) -> Option<&T> {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<T>() {
            return Some(found);
        }
        next = cause.source();
    }
    None
}
