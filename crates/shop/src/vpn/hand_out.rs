//! Handing out a device's file: over the API, as a picture, and by a link that works once.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State as Extract};
use axum::response::{Html, IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::json;

use super::{Form, downloads, files, of};
use crate::audit::{Flow, stops};
use crate::subscriptions::{self, SubscriptionId};
use crate::web::Problem;
use crate::{Error, Shop};

/// The form of a file: the one that is asked for, else the one that the server speaks.
fn form(shop: &Shop, word: Option<&str>) -> Result<Form, Error> {
    match word {
        Some(word) => Form::parse(word).ok_or_else(|| Error::invalid("format", "wireguard, amneziawg or qr")),
        None if of(shop)?.server.amnezia.is_some() => Ok(Form::AmneziaWg),
        None => Ok(Form::WireGuard),
    }
}

/// The file of a device, or its picture. Whoever gets it has the access.
pub(crate) async fn config(
    shop: &Shop,
    sub: SubscriptionId,
    device: i64,
    format: Option<&str>,
) -> Result<Response, Problem> {
    let picture = format == Some("qr");
    let form = form(shop, format.filter(|_| !picture))?;
    let with = shop.clone();
    let file = shop
        .read("vpn.config", move |tx| {
            subscriptions::flows::find(tx, &sub)?;
            let peer = files::of_device(tx, &sub, device)?;
            files::client_file(tx, &with, &peer.id, form)
        })
        .await?;
    if !picture {
        return Ok(attachment(&file));
    }
    let headers = [(CONTENT_TYPE, HeaderValue::from_static("image/png")), (CACHE_CONTROL, no_store())];
    Ok((headers, files::qr(&file)?).into_response())
}

/// What holds a secret is kept by nobody on the way.
fn no_store() -> HeaderValue {
    HeaderValue::from_static("no-store")
}

fn attachment(file: &files::ClientText) -> Response {
    // A tunnel's name has Latin letters, digits and a few signs, so it may stand between quotes.
    let named = HeaderValue::from_str(&format!("attachment; filename=\"{}\"", file.file_name()));
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (CONTENT_DISPOSITION, named.unwrap_or_else(|_| HeaderValue::from_static("attachment"))),
        (CACHE_CONTROL, no_store()),
    ];
    (headers, file.text.to_string()).into_response()
}

/// A link that gives a device's file once.
pub(crate) async fn link(
    shop: &Shop,
    sub: SubscriptionId,
    device: i64,
    format: Option<&str>,
) -> Result<Response, Problem> {
    let form = form(shop, format)?;
    let Some(public) = shop.rules.public_url.clone() else {
        return Err(Error::Conflict("a link needs an address: set public_url in the settings".into()).into());
    };
    let link = shop
        .write("vpn.link", move |tx, shop| {
            subscriptions::flows::find(tx, &sub)?;
            let peer = files::of_device(tx, &sub, device)?;
            downloads::create(tx, shop, &peer.id, form)
        })
        .await?;
    let body =
        json!({ "url": format!("{public}/vpn/{}", link.token.as_str()), "expires_at": link.expires_at.to_string() });
    // The answer is not kept with its key either: the secret is stored as a hash only.
    Ok((StatusCode::CREATED, [(CACHE_CONTROL, no_store())], Json(body)).into_response())
}

/// A page with a button, or what to do when the link works no more. Messengers and mail programs open links to show a preview,
/// so opening must use nothing up.
pub(super) async fn show(Extract(shop): Extract<Shop>, Path(token): Path<String>) -> Result<Response, Problem> {
    let works = is_token(&token) && shop.look("vpn.link.look", move |tx| downloads::works(tx, &token)).await?;
    Ok(if works { html(StatusCode::OK, DOWNLOAD.to_owned()) } else { gone(&shop) })
}

/// Whether this can be what [`downloads::create`] made.
fn is_token(token: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=64).contains(&token.len()) && token.bytes().all(plain)
}

/// The same page for every link that gives nothing: nobody is told which there were.
fn gone(shop: &Shop) -> Response {
    let support = shop.vpn.as_ref().and_then(|vpn| vpn.rules.support.as_deref());
    html(StatusCode::GONE, GONE.replace(HELP, &support.map(help).unwrap_or_default()))
}

/// Where customers ask for another link.
fn help(address: &str) -> String {
    let mut escaped = String::with_capacity(address.len());
    for sign in address.chars() {
        match sign {
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            sign => escaped.push(sign),
        }
    }
    format!("<p><a href=\"{escaped}\" rel=\"noreferrer\">Помощь / Help</a></p>")
}

/// Gives the file, once.
pub(super) async fn take(Extract(shop): Extract<Shop>, Path(token): Path<String>) -> Result<Response, Problem> {
    if stops::holds(&shop, Flow::Deliveries).await.map_err(Error::from)? {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopped",
            "Stopped by the self-audit",
            "nothing is handed out just now; the link still works later",
        )
        .with_retry_after(Duration::from_secs(60)));
    }
    if !is_token(&token) {
        return Ok(gone(&shop));
    }
    match shop.write("vpn.download", move |tx, shop| downloads::take(tx, shop, &token)).await {
        Ok(file) => Ok(attachment(&file)),
        Err(Error::NotFound { .. } | Error::Conflict(_)) => Ok(gone(&shop)),
        Err(error) => Err(error.into()),
    }
}

fn html(status: StatusCode, page: String) -> Response {
    let headers: [(HeaderName, HeaderValue); 5] = [
        (CACHE_CONTROL, no_store()),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(
                "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
            ),
        ),
        (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")),
        (HeaderName::from_static("x-robots-tag"), HeaderValue::from_static("noindex")),
    ];
    (status, headers, Html(page)).into_response()
}

const DOWNLOAD: &str = "<!doctype html><html lang=\"ru\"><head><meta charset=\"utf-8\">\
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>VPN</title>\
<style>body{font:18px/1.5 sans-serif;max-width:30em;margin:3em auto;padding:0 1em}button{font:inherit;padding:.6em 1.2em}</style>\
</head><body><p>Файл для подключения к VPN. Ссылка отдаёт его один раз.</p>\
<p lang=\"en\">The file that connects you to the VPN. This link gives it once.</p>\
<form method=\"post\"><button>Скачать / Download</button></form></body></html>\n";

const GONE: &str = "<!doctype html><html lang=\"ru\"><head><meta charset=\"utf-8\">\
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>VPN</title>\
<style>body{font:18px/1.5 sans-serif;max-width:30em;margin:3em auto;padding:0 1em}</style>\
</head><body><p>Эта ссылка уже не работает: файл по ней забрали, или её срок прошёл.</p>\
<p>Если файл забрали вы, он лежит в загрузках телефона или компьютера: откройте его в приложении WireGuard. Если нет, попросите \
новую ссылку там же, где получили эту.</p>\
<p lang=\"en\">This link works no more: its file was taken, or its time is over. If you took it, it is in your downloads: open it \
in the WireGuard app. If not, ask for a new link where you got this one.</p><!--help--></body></html>\n";

/// Where the page says whom to ask.
const HELP: &str = "<!--help-->";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_for_strangers_says_nothing_of_the_link_and_loads_nothing() {
        for page in [DOWNLOAD, GONE] {
            assert!(!page.contains("http") && !page.contains("<script"), "{page}");
        }
        assert!(GONE.contains(HELP));
        assert_eq!(
            help("https://t.me/a?b&c=\"d"),
            "<p><a href=\"https://t.me/a?b&amp;c=&quot;d\" rel=\"noreferrer\">Помощь / Help</a></p>"
        );
        let answer = html(StatusCode::OK, DOWNLOAD.to_owned());
        assert_eq!(answer.headers()[CACHE_CONTROL], "no-store");
        assert_eq!(answer.headers()[REFERRER_POLICY], "no-referrer");
    }
}
