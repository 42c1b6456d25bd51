//! The contract as a document: OpenAPI 3.1, written by hand.
//!
//! It is written and not derived, so that it can say why and when; the tests below compare it with the sources of the
//! routes, in both directions, and with the words that the code uses.

use axum::Router;
use axum::routing::get;
use http::HeaderName;
use http::header::CONTENT_TYPE;

const DOCUMENT: &str = include_str!("openapi.json");

/// `GET /api/openapi.json`. Public: who may read the contract may still do nothing.
pub(super) fn routes() -> Router {
    Router::new().route("/api/openapi.json", get(document))
}

async fn document() -> ([(HeaderName, &'static str); 1], &'static str) {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use axum::body::{Body, to_bytes};
    use http::{Request, StatusCode};
    use semel_money::Currency;
    use semel_payments::Provider;
    use semel_shop::Error;
    use semel_shop::checkout::PaymentState;
    use semel_shop::orders::State;
    use semel_shop::web::Problem;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;

    /// The sources that register routes, under the names by which `mod.rs` merges them.
    const SOURCES: &[(&str, &str)] = &[
        ("semel_shop::campaigns::http", include_str!("../../../shop/src/campaigns/http.rs")),
        ("semel_shop::messages::http", include_str!("../../../shop/src/messages/http.rs")),
        ("semel_shop::notices::http", include_str!("../../../shop/src/notices/http.rs")),
        ("semel_shop::catalog::http", include_str!("../../../shop/src/catalog/http.rs")),
        ("semel_shop::customers::http", include_str!("../../../shop/src/customers/http.rs")),
        ("semel_shop::orders::http", include_str!("../../../shop/src/orders/http.rs")),
        ("semel_shop::subscriptions::http", include_str!("../../../shop/src/subscriptions/http.rs")),
        ("semel_shop::vpn::http", include_str!("../../../shop/src/vpn/http.rs")),
        ("care", CARE),
        ("safe", include_str!("safe.rs")),
        ("audit", include_str!("audit.rs")),
        ("metrics", include_str!("metrics.rs")),
        ("telegram", include_str!("telegram.rs")),
        ("webhooks", include_str!("webhooks.rs")),
        ("health", include_str!("health.rs")),
        ("openapi", include_str!("openapi.rs")),
    ];
    const CARE: &str = include_str!("care.rs");
    const METHODS: &[&str] = &["get", "put", "post", "delete", "options", "head", "patch", "trace"];

    fn parsed() -> Value {
        serde_json::from_str(DOCUMENT).expect("the document is JSON")
    }

    /// Every operation of the document, as `POST /api/v1/orders` with what stands there.
    fn operations(document: &Value) -> Vec<(String, &Value)> {
        let mut found = Vec::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for (word, operation) in item.as_object().expect("a path item") {
                if METHODS.contains(&word.as_str()) {
                    found.push((format!("{} {path}", word.to_uppercase()), operation));
                }
            }
        }
        found
    }

    /// The operations of the document that `is_so` holds for.
    fn those(document: &Value, is_so: impl Fn(&Value) -> bool) -> BTreeSet<String> {
        operations(document).into_iter().filter(|(_, operation)| is_so(operation)).map(|(name, _)| name).collect()
    }

    /// What the calls `.route("/path", get(a).post(b))` of a source register, as `GET /path`. A path that is no literal
    /// is one of the source's table `ADDRESSES`. Reads as much Rust as our routers are written in, and no more.
    fn registered(source: &str) -> BTreeSet<String> {
        let (code, _) = source.split_once("#[cfg(test)]").unwrap_or((source, ""));
        let mut found = BTreeSet::new();
        for call in code.split(".route(").skip(1) {
            let (paths, handlers) = match call.trim_start().strip_prefix('"') {
                Some(rest) => {
                    let (path, handlers) = rest.split_once('"').expect("the end of a path");
                    (vec![path], handlers)
                }
                None => {
                    let (_, handlers) = call.split_once(',').expect("handlers behind a path");
                    (addresses(code), handlers)
                }
            };
            for method in methods(handlers) {
                found.extend(paths.iter().map(|path| format!("{} {path}", method.to_uppercase())));
            }
        }
        found
    }

    /// The paths in a source's table `ADDRESSES`.
    fn addresses(code: &str) -> Vec<&str> {
        let (_, table) = code.split_once("const ADDRESSES").expect("a table ADDRESSES, for a path that is no literal");
        let (table, _) = table.split_once("];").expect("the end of the table");
        table.split("(\"").skip(1).filter_map(|row| row.split('"').next()).collect()
    }

    /// The functions called before the parenthesis of `.route(` closes; what stands inside their own is a handler.
    fn methods(handlers: &str) -> Vec<&str> {
        let (mut depth, mut word) = (0_usize, 0_usize);
        let mut found = Vec::new();
        for (at, sign) in handlers.char_indices() {
            match sign {
                '(' => {
                    if depth == 0 {
                        found.push(&handlers[word..at]);
                    }
                    depth += 1;
                }
                ')' if depth == 0 => break,
                ')' => depth -= 1,
                _ => {}
            }
            if !sign.is_alphanumeric() && sign != '_' {
                word = at + sign.len_utf8();
            }
        }
        found
    }

    fn references<'d>(value: &'d Value, found: &mut BTreeSet<&'d str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    /// The words of an enumeration in the document.
    fn words<'d>(document: &'d Value, schema: &str) -> Vec<&'d str> {
        let words = document["components"]["schemas"][schema]["enum"].as_array();
        words.unwrap_or_else(|| panic!("{schema} lists no words")).iter().filter_map(Value::as_str).collect()
    }

    #[test]
    fn the_scanner_reads_routes_as_they_are_written() {
        let source = r#"
            const ADDRESSES: &[(&str, Provider)] = &[
                ("/a/webhook", Provider::YooKassa),
                ("/b/webhook", Provider::Heleket),
            ];
            Router::new().route("/one", get(list)).route("/two/{id}", post(make(limit)).get(axum::handler::show))
                .route(
                    "/three",
                    axum::routing::patch(change)
                        .delete(drop),
                );
            router.route(path, post(door))
            #[cfg(test)]
            router.route("/only-in-a-test", get(list))
        "#;
        let wanted = [
            "DELETE /three",
            "GET /one",
            "GET /two/{id}",
            "PATCH /three",
            "POST /a/webhook",
            "POST /b/webhook",
            "POST /two/{id}",
        ];
        assert_eq!(registered(source), BTreeSet::from(wanted.map(str::to_owned)));
    }

    #[test]
    fn every_room_that_is_merged_is_read_here() {
        let words = include_str!("mod.rs").split(|sign: char| !sign.is_alphanumeric() && !matches!(sign, '_' | ':'));
        let merged: BTreeSet<&str> = words.filter_map(|word| word.strip_suffix("::routes")).collect();
        let read: BTreeSet<&str> = SOURCES.iter().map(|(room, _)| *room).collect();
        assert_eq!(merged, read);
    }

    #[test]
    fn what_is_registered_is_documented_and_what_is_documented_is_registered() {
        let mut of_code = BTreeSet::new();
        for (room, source) in SOURCES {
            let routes = registered(source);
            assert!(
                !routes.is_empty(),
                "{room} registers nothing: the scanner does not see how its routes are written"
            );
            of_code.extend(routes);
        }
        let of_document = those(&parsed(), |_| true);
        let missing: Vec<&String> = of_code.difference(&of_document).collect();
        let invented: Vec<&String> = of_document.difference(&of_code).collect();
        assert!(missing.is_empty(), "not in openapi.json: {missing:?}");
        assert!(invented.is_empty(), "only in openapi.json: {invented:?}");
    }

    #[test]
    fn every_reference_resolves_and_every_component_is_used() {
        let document = parsed();
        let mut used = BTreeSet::new();
        references(&document, &mut used);
        for reference in &used {
            let place = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} leads out of the document"));
            assert!(document.pointer(place).is_some(), "{reference} leads nowhere");
        }
        for (kind, components) in document["components"].as_object().expect("components") {
            for name in components.as_object().expect("components of a kind").keys() {
                let reference = format!("#/components/{kind}/{name}");
                // A security scheme is named, not referred to.
                assert!(kind == "securitySchemes" || used.contains(reference.as_str()), "{reference} is not used");
            }
        }
    }

    #[test]
    fn every_operation_has_a_name_of_its_own_and_the_version_is_ours() {
        let document = parsed();
        assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1.")));
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let mut names = BTreeSet::new();
        for (operation, said) in operations(&document) {
            let name = said["operationId"].as_str().unwrap_or_else(|| panic!("{operation} has no operationId"));
            assert!(names.insert(name), "{name} names two operations");
        }
    }

    #[test]
    fn every_post_of_the_api_asks_for_a_key_and_nothing_else_does() {
        let document = parsed();
        let key = serde_json::json!({ "$ref": "#/components/parameters/IdempotencyKey" });
        let asks = |operation: &Value| operation["parameters"].as_array().is_some_and(|all| all.contains(&key));
        let mut posts = those(&document, |_| true);
        posts.retain(|name| name.starts_with("POST /api/v1/"));
        assert_eq!(those(&document, asks), posts);
    }

    #[test]
    fn what_is_made_at_the_machine_only_is_marked_and_only_the_api_and_metrics_ask_for_a_token() {
        let document = parsed();
        let (_, trusted) = CARE.split_once("if trusted {").expect("the routes of the local socket");
        let (trusted, _) = trusted.split_once("\n    }").expect("their end");
        let local = registered(trusted);
        assert!(!local.is_empty());
        assert_eq!(those(&document, |operation| operation["x-local-only"] == true), local);

        let guarded = |name: &str| name.contains(" /api/v1/") || name.ends_with(" /metrics");
        let mut wanted = those(&document, |_| true);
        wanted.retain(|name| guarded(name) && !local.contains(name));
        // The token is asked for by default; `security: []` takes that back.
        assert_eq!(document["security"], serde_json::json!([{ "bearer": [] }]));
        assert_eq!(those(&document, |operation| operation.get("security").is_none()), wanted);
    }

    #[test]
    fn the_words_in_the_document_are_the_words_in_the_code() {
        let document = parsed();
        let providers = Provider::ALL.map(Provider::as_str);
        assert_eq!(words(&document, "Provider"), providers);
        assert_eq!(words(&document, "PayBy"), [&providers[..], &["balance"][..]].concat());
        let orders: Vec<&str> = State::ALL.iter().map(|state| state.as_str()).collect();
        assert_eq!(words(&document, "OrderStatus"), orders);
        let payments: Vec<&str> = PaymentState::ALL.iter().map(|state| state.as_str()).collect();
        assert_eq!(words(&document, "PaymentStatus"), payments);
        let subscriptions: Vec<&str> =
            semel_shop::subscriptions::State::ALL.iter().map(|state| state.as_str()).collect();
        assert_eq!(words(&document, "SubscriptionState"), subscriptions);
        let peers: Vec<&str> = semel_shop::vpn::PeerState::ALL.iter().map(|state| state.as_str()).collect();
        assert_eq!(words(&document, "PeerState"), peers);
        let currencies: Vec<&str> = Currency::ALL.iter().map(|currency| currency.code()).collect();
        assert_eq!(words(&document, "Currency"), currencies);
    }

    #[test]
    fn every_kind_of_problem_is_listed() {
        let text = String::new;
        let errors = [
            Error::NotFound { what: "order", id: text() },
            Error::Invalid { field: text(), reason: text() },
            Error::Conflict(text()),
            Error::SoldOut { product: text(), wanted: 1, left: 0 },
            Error::Insufficient { wanted: text() },
            Error::TooManyUnpaid { open: 5 },
            Error::ProviderRefused { provider: text(), text: text() },
            Error::ProviderAway { provider: text(), text: text() },
            Error::SafeMode,
        ];
        let problems = [
            Problem::bad_request(""),
            Problem::unauthorized(""),
            Problem::forbidden(""),
            Problem::not_found(""),
            Problem::too_slow(""),
            Problem::conflict(""),
            Problem::too_large(1),
            Problem::unsupported_media_type(""),
            Problem::unprocessable(""),
            Problem::unavailable(Duration::ZERO),
            Problem::internal("told by a test"),
        ];
        let said = errors.into_iter().map(Problem::from).chain(problems);
        let mut wanted: BTreeSet<String> = said.map(|problem| format!("/problems/{}", problem.type_slug)).collect();
        // These are made where they arise: by the reader of bodies, the server, the self-audit's door, and the keeper of keys.
        let elsewhere = ["malformed-json", "method-not-allowed", "stopped"];
        let of_keys = ["idempotency-key-needed", "idempotency-key-busy", "idempotency-key-reused"];
        wanted.extend(elsewhere.iter().chain(&of_keys).map(|slug| format!("/problems/{slug}")));
        let document = parsed();
        let listed: BTreeSet<String> = words(&document, "ProblemType").into_iter().map(str::to_owned).collect();
        assert_eq!(listed, wanted);
    }

    #[tokio::test]
    async fn the_document_is_served_as_json() {
        let request = Request::get("/api/openapi.json").body(Body::empty()).unwrap();
        let answer = routes().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/json");
        let bytes = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        assert_eq!(bytes, DOCUMENT.as_bytes());
    }
}
