//! Webhooks in: verify, make durable, acknowledge. No outside call, no decision.

use std::net::IpAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};

use semel_kernel::clock::Stopwatch;
use semel_kernel::failpoint::{reach, told};
use semel_payments::{Provider, Rejected};
use semel_shop::checkout::hints;
use semel_shop::web::Problem;

use super::Doors;
use crate::server::ClientIp;

/// Providers wait about five seconds at least; we answer before, whatever the database does.
const ANSWER_WITHIN: Duration = Duration::from_millis(3_500);

/// The fixed addresses and those that older bots gave their providers.
const ADDRESSES: &[(&str, Provider)] = &[
    ("/webhook/yookassa", Provider::YooKassa),
    ("/yookassa/webhook", Provider::YooKassa),
    ("/yookassa-webhook", Provider::YooKassa),
    ("/webhook/heleket", Provider::Heleket),
    ("/heleket/webhook", Provider::Heleket),
    ("/heleket-webhook", Provider::Heleket),
    ("/webhook/crystalpay", Provider::CrystalPay),
    ("/api/webhook/crystalpay", Provider::CrystalPay),
];

pub(super) fn routes() -> Router<Doors> {
    ADDRESSES.iter().fold(Router::new(), |router, (path, provider)| {
        let provider = *provider;
        let door = move |state: State<Doors>, client: Option<Extension<ClientIp>>, headers: HeaderMap, body: Bytes| {
            receive(provider, state, client, headers, body)
        };
        router.route(path, post(door))
    })
}

async fn receive(
    provider: Provider,
    State(doors): State<Doors>,
    client: Option<Extension<ClientIp>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let watch = Stopwatch::start();
    let peer = client.and_then(|Extension(ClientIp(ip))| ip);
    let Some(rail) = doors.shop.rails.get(&provider) else {
        return Err(Problem::not_found(format!("{} is not configured on this server", provider.as_str())));
    };
    let hint = rail.verify(peer, &headers, &body).map_err(|rejected| refuse(&doors, provider, &rejected))?;
    if !doors.ready.is_open() {
        doors.counters.webhook(provider, "unavailable");
        return Err(
            Problem::unavailable(Duration::from_secs(5)).with_detail("the database is not ready; send it again")
        );
    }
    let event = hint.event_id.clone();
    let notice = hints::notice(rail, hint, body.to_vec(), kept(&headers), peer.map(|ip| ip.to_string()));
    if reach("webhook.verified", provider.as_str()).await {
        return Err(broken(&doors, provider, "webhook.verified"));
    }
    match tokio::time::timeout(ANSWER_WITHIN, doors.intake.accept(notice)).await {
        Ok(Ok(receipt)) => {
            if reach("webhook.durable", provider.as_str()).await {
                return Err(broken(&doors, provider, "webhook.durable"));
            }
            doors.counters.webhook(provider, "accepted");
            tracing::info!(event.id = %event, ?receipt, took_ms = watch.millis(), "webhook of {} is durable", provider.as_str());
            // Answer 200 only after the commit: the provider stops resending when we do.
            Ok((StatusCode::OK, Json(serde_json::json!({ "ok": true }))).into_response())
        }
        Ok(Err(error)) => {
            doors.counters.webhook(provider, "unavailable");
            tracing::warn!(event.id = %event, %error, "webhook of {} could not be stored", provider.as_str());
            Err(Problem::unavailable(Duration::from_secs(5)).with_detail(error.to_string()))
        }
        Err(_) => {
            doors.counters.webhook(provider, "unavailable");
            tracing::warn!(event.id = %event, "webhook of {} was not stored in time", provider.as_str());
            Err(Problem::unavailable(Duration::from_secs(5))
                .with_detail("the database did not answer in time; send it again"))
        }
    }
}

/// What a failpoint makes the door answer: the provider sends it again.
fn broken(doors: &Doors, provider: Provider, place: &str) -> Problem {
    doors.counters.webhook(provider, "unavailable");
    Problem::unavailable(Duration::from_secs(5)).with_detail(told(place, provider.as_str()))
}

fn refuse(doors: &Doors, provider: Provider, rejected: &Rejected) -> Problem {
    doors.counters.webhook(provider, "refused");
    let name = provider.as_str();
    match rejected {
        Rejected::Source { peer } => {
            let hint = match peer {
                // No provider sends from such an address, so the list of networks is not what is wrong.
                Some(ip) if is_near(*ip) => format!(
                    "the sender seems to be a proxy at {ip}; add it to SEMEL_TRUSTED_PROXIES, and let it set \
                     X-Forwarded-For: until then every genuine webhook is refused"
                ),
                _ if doors.proxy_declared => {
                    "if this was genuine, its network is missing in the provider's list of networks".to_owned()
                }
                _ => "if a proxy stands in front, declare it in SEMEL_TRUSTED_PROXIES: until then every genuine webhook is \
                      refused"
                    .to_owned(),
            };
            let peer = peer.map_or_else(|| "unknown".to_owned(), |ip| ip.to_string());
            tracing::warn!(peer, "webhook of {name} refused: the sender is not in its networks; {hint}");
            Problem::forbidden("the sender's address is not one of the provider's")
        }
        Rejected::Signature | Rejected::NoSecret { .. } => {
            tracing::warn!(%rejected, "webhook of {name} refused");
            Problem::forbidden("the signature does not match")
        }
        Rejected::Malformed(text) => {
            tracing::warn!(%rejected, "webhook of {name} refused");
            Problem::bad_request(text.clone())
        }
    }
}

/// Whether an address is of this machine or of a private network: a container's, a tunnel's, a data centre's own.
fn is_near(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        // 100.64.0.0/10 is shared by carriers, clouds and tunnels (RFC 6598).
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let shared = first == 100 && (64..128).contains(&second);
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || shared
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// Headers worth keeping beside the body; none that could hold a secret.
fn kept(headers: &HeaderMap) -> String {
    let names = ["content-type", "user-agent", "x-forwarded-for", "x-request-id"];
    let pairs = names.iter().filter_map(|name| Some((*name, headers.get(*name)?.to_str().ok()?)));
    serde_json::to_string(&pairs.collect::<std::collections::BTreeMap<_, _>>()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_told_from_a_stranger_by_its_address() {
        let near = |text: &str| is_near(text.parse().expect("an address"));
        for text in [
            "127.0.0.1",
            "10.1.2.3",
            "172.17.0.1",
            "192.168.0.9",
            "169.254.0.1",
            "100.64.0.1",
            "::1",
            "fd00::7",
            "fe80::1",
        ] {
            assert!(near(text) && !near("203.0.113.9"), "{text}");
        }
        assert!(near("::ffff:127.0.0.1"), "IPv4 in IPv6 clothes");
        for text in ["185.71.76.5", "100.128.0.1", "100.63.0.1", "2001:db8::1"] {
            assert!(!near(text), "{text}");
        }
    }
}
