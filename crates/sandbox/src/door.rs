//! The door: one listener for the whole world, and the place where faults strike.
//!
//! Its own accept loop, because axum always answers: here a service may end in [`Cut`], and hyper then closes the connection without a byte.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request};
use axum::response::Response;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;

use crate::answer::{self, CutMark};
use crate::faults::{Fate, Fault, Place};
use crate::payments::Provider;
use crate::world::{World, lock};
use crate::{clock, control, crystalpay, heleket, pages, telegram, yookassa};

/// A document of 50 MB and its wrapping.
const BODY_CAP: usize = 60 * 1024 * 1024;

/// What a call takes in a world that is moved by hand, milliseconds: as long as it has to be so that calls one after the other
/// never meet the limits that these services publish.
fn takes_ms(place: &Place) -> u64 {
    match place {
        Place::Telegram(_) => 40,
        Place::Api(Provider::CrystalPay, _) => 250,
        Place::Api(..) => 120,
        Place::Elsewhere => 0,
    }
}

/// The end of a connection that was cut on purpose.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut on purpose")]
pub(crate) struct Cut;

/// Every room of the world.
pub(crate) fn router(world: World) -> Router {
    Router::new()
        .merge(yookassa::router())
        .merge(heleket::router())
        .merge(crystalpay::router())
        .merge(telegram::router())
        .merge(pages::router())
        .merge(control::router())
        .layer(DefaultBodyLimit::disable())
        .with_state(world)
}

/// Accepts until the world stops.
pub(crate) async fn serve(world: World, listener: TcpListener, router: Router) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => world.spawn(converse(world.clone(), router.clone(), stream)),
            Err(error) => {
                tracing::warn!(%error, "the sandbox cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn converse(world: World, router: Router, stream: TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection stays without TCP_NODELAY");
    }
    let service = service_fn(move |request: http::Request<Incoming>| enter(world.clone(), router.clone(), request));
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// One request: read whole, delayed, spoilt, or served.
async fn enter(world: World, router: Router, request: http::Request<Incoming>) -> Result<Response, Cut> {
    let (parts, body) = request.into_parts();
    let bytes = match Limited::new(body, BODY_CAP).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) => {
            tracing::debug!(%error, "a request body was not read");
            return Ok(answer::text(413, "Request Entity Too Large"));
        }
    };
    let place = Place::of(parts.method.as_str(), parts.uri.path());
    let (delay_ms, fault) = lock(&world.faults).take(&place);
    let passed = clock::pass(delay_ms + takes_ms(&place));
    if delay_ms > 0 && !passed {
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
    }
    if let Some(Fault::TooMany { retry_after }) = &fault {
        lock(&world.faults).asked_for_silence(clock::now_ms(), *retry_after);
    }
    let mut request = Request::from_parts(parts, Body::from(bytes));
    match place {
        Place::Api(provider, _) => spoil(provider, fault, router, request).await,
        Place::Telegram(_) | Place::Elsewhere => {
            request.extensions_mut().insert(Fate(fault));
            arrive(run(router, request).await)
        }
    }
}

/// A provider's call under a fault.
async fn spoil(provider: Provider, fault: Option<Fault>, router: Router, request: Request) -> Result<Response, Cut> {
    match fault {
        None | Some(Fault::Delay(_)) => arrive(run(router, request).await),
        Some(Fault::CutBefore) => Err(Cut),
        Some(Fault::Status(status)) => Ok(refusal(provider, status, None)),
        Some(Fault::Page(status)) => Ok(answer::page(status)),
        Some(Fault::NotOk) => Ok(answer::not_ok()),
        Some(Fault::TooMany { retry_after }) => {
            Ok(answer::with_retry_after(refusal(provider, 429, Some(retry_after)), retry_after))
        }
        Some(Fault::StatusAfter(status)) => {
            drop(run(router, request).await);
            Ok(refusal(provider, status, None))
        }
        Some(Fault::Garbage) => {
            drop(run(router, request).await);
            Ok(answer::garbage())
        }
        Some(Fault::CutAfter) => {
            drop(run(router, request).await);
            Err(Cut)
        }
    }
}

fn refusal(provider: Provider, status: u16, retry_after: Option<u64>) -> Response {
    match provider {
        Provider::Yookassa => yookassa::fault(status, retry_after),
        Provider::Heleket => heleket::fault(status),
        Provider::CrystalPay => crystalpay::fault(status),
    }
}

async fn run(router: Router, request: Request) -> Response {
    let answered: Result<Response, Infallible> = router.oneshot(request).await;
    match answered {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Lets an answer out, unless its room marked it as lost.
fn arrive(response: Response) -> Result<Response, Cut> {
    if response.extensions().get::<CutMark>().is_some() { Err(Cut) } else { Ok(response) }
}
