//! Commands that ask the program: the running one through its socket, else one inside this process.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use http::Method;
use serde_json::{Value, json};

use semel_kernel::clock::{Chance, Clock};
use semel_kernel::ids::new_id;
use semel_kernel::store::Store;
use semel_shop::audit;

use super::{
    InboxVerb, JobVerb, OrderVerb, PaymentVerb, ProductVerb, StockVerb, TokenVerb, Verb, broadcast, ip, out, refund,
    safe, stock, sub, wg,
};
use crate::app::App;
use crate::local::{self, Program};
use crate::parts;
use crate::settings::{Loaded, Settings};

pub(super) struct Asker {
    program: Program,
    /// The database that the command itself writes to, where copies of the program want to hear of it.
    shared: Option<Store>,
    /// The settings file that was read, if there was one.
    file: Option<PathBuf>,
}

impl Asker {
    /// A command that only looks at what is there has nothing to do with a new, empty database; `adds` tells one that
    /// may begin it.
    pub(super) async fn of(loaded: Loaded, adds: bool) -> anyhow::Result<Self> {
        let Loaded { settings, file, .. } = loaded;
        if let Some(socket) = local::socket_path(&settings)
            && local::is_running(&socket).await
        {
            return Ok(Self { program: Program::Running(socket), shared: None, file });
        }
        if let Some(path) = local::missing_database(&settings) {
            let path = path.display();
            anyhow::ensure!(
                adds,
                "there is no database at {path}; run this in the folder of semel.toml, or give --config"
            );
            out::complain(&format!("there was no database at {path}; this makes a new, empty one"));
        }
        let store = parts::open_store(&settings, Clock::system())?;
        Ok(Self { file, ..Self::here(settings, store).await? })
    }

    /// The program inside of this process, on an open database.
    pub(super) async fn here(settings: Settings, store: Store) -> anyhow::Result<Self> {
        let shared = settings.database_listen_url.is_some().then(|| store.clone());
        let app = App::build(settings, store, Chance::system()).await?;
        app.prepare_for_commands().await?;
        if let Some(store) = &shared {
            store.note_wakes();
        }
        Ok(Self { program: Program::Here(Box::new(app.router(true))), shared, file: None })
    }

    /// The settings file that was read, if there was one.
    pub(super) fn settings_file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Whether a running program is asked, which does what is due by itself.
    pub(super) fn is_running(&self) -> bool {
        matches!(self.program, Program::Running(_))
    }

    /// Copies that hear each other seldom look by themselves, so the command tells them what it wrote before it ends.
    pub(super) async fn tell_copies(&self) {
        if let Some(store) = &self.shared {
            store.tell_once(&new_id("cli", Clock::system().now(), &Chance::system())).await;
        }
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.program.ask(Method::GET, path, None, "").await?.json()
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        let key = new_id("cli", Clock::system().now(), &Chance::system());
        self.program.ask(Method::POST, path, Some(body), &key).await?.json()
    }
}

impl Asker {
    /// Changes what is there.
    pub(super) async fn patch(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        self.program.ask(Method::PATCH, path, Some(body), "").await?.json()
    }

    /// Sends a file as it is.
    pub(super) async fn upload(&self, path: &str, kind: &str, bytes: Vec<u8>) -> anyhow::Result<Value> {
        let key = new_id("cli", Clock::system().now(), &Chance::system());
        self.program.send(Method::POST, path, Some(kind), bytes, &key).await?.json()
    }
}

/// Runs `verb`.
pub async fn ask(loaded: Loaded, verb: Verb) -> anyhow::Result<ExitCode> {
    let adds = matches!(
        verb,
        Verb::Product(ProductVerb::Create { .. })
            | Verb::Stock(StockVerb::Import { .. })
            | Verb::Token(TokenVerb::Create { .. })
    );
    let asker = Asker::of(loaded, adds).await?;
    let outcome = answer(&asker, verb).await;
    asker.tell_copies().await;
    outcome
}

async fn answer(asker: &Asker, verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Verify { at_rest } => verify(asker, at_rest).await,
        Verb::Order(verb) => order(asker, verb).await,
        Verb::Payment(PaymentVerb::Replay { id }) => {
            let answer = asker.post(&format!("/api/v1/payments/{id}/replay"), json!({})).await?;
            out::lines(&format!("payment {id} is {}; {} came in", text(&answer["status"]), money(&answer["received"])))
        }
        Verb::Payment(PaymentVerb::Assign { provider_payment, order }) => {
            let answer =
                asker.post(&format!("/api/v1/payments/{provider_payment}/assign"), json!({ "order": order })).await?;
            out::lines(&format!("assigned; order {order} is {}", text(&answer["status"])))
        }
        Verb::Product(verb) => product(asker, verb).await,
        Verb::Stock(StockVerb::Import { product, file }) => stock::import(asker, &product, &file).await,
        Verb::Stock(StockVerb::Withdraw { product, keys, file }) => {
            stock::withdraw(asker, &product, &keys, file.as_deref()).await
        }
        Verb::Stock(StockVerb::Release { product, all: _, reason }) => safe::release(asker, product, reason).await,
        Verb::Safe(verb) => safe::safe(asker, verb).await,
        Verb::Job(verb) => job(asker, verb).await,
        Verb::Inbox(verb) => inbox(asker, verb).await,
        Verb::Token(verb) => token(asker, verb).await,
        Verb::Sub(verb) => sub::sub(asker, verb).await,
        Verb::Broadcast(verb) => broadcast::broadcast(asker, verb).await,
        Verb::Ip(verb) => ip::ip(asker, verb).await,
        Verb::Wg(verb) => wg::wg(asker, verb).await,
        _ => anyhow::bail!("this command needs no program"),
    }
}

async fn verify(asker: &Asker, at_rest: bool) -> anyhow::Result<ExitCode> {
    let answer = asker.get(&format!("/api/v1/verify?at_rest={at_rest}")).await?;
    let mut broken = 0;
    for line in answer["predicates"].as_array().into_iter().flatten() {
        let count = line["count"].as_i64().unwrap_or(0);
        let verdict = match count {
            0 if audit::waits_for_its_feature(&text(&line["id"])) => "n/a   ",
            0 => "ok    ",
            _ => "BROKEN",
        };
        broken += i64::from(count > 0);
        let which = match count {
            0 => String::new(),
            _ => format!(
                ": {count} rows, such as {}",
                line["violations"].as_array().map_or("?".into(), |rows| join(rows))
            ),
        };
        out::say(&format!("{verdict} {:<5} {}{which}", text(&line["id"]), text(&line["meaning"])))?;
    }
    if broken == 0 {
        return out::lines("every promise that can be checked here holds");
    }
    let what = if broken == 1 { "1 promise is broken".to_owned() } else { format!("{broken} promises are broken") };
    out::complain(&format!("{what}: do not delete anything, and look at the rows named above"));
    Ok(ExitCode::from(3))
}

async fn order(asker: &Asker, verb: OrderVerb) -> anyhow::Result<ExitCode> {
    let shown = match verb {
        OrderVerb::Show { id } => asker.get(&format!("/api/v1/orders/{id}")).await?,
        OrderVerb::List { status, customer, limit } => {
            let mut path = format!("/api/v1/orders?limit={limit}");
            if let Some(status) = status {
                path.push_str(&format!("&status={status}"));
            }
            if let Some(customer) = customer {
                path.push_str(&format!("&customer={customer}"));
            }
            let answer = asker.get(&path).await?;
            let rows = rows(&answer, |row| {
                vec![
                    text(&row["id"]),
                    text(&row["status"]),
                    money(&row["total"]),
                    text(&row["provider"]),
                    text(&row["created_at"]),
                ]
            });
            return out::lines(&out::table(&["ORDER", "STATUS", "TOTAL", "PROVIDER", "MADE"], &rows));
        }
        OrderVerb::Cancel { id, reason } => {
            asker.post(&format!("/api/v1/orders/{id}/cancel"), json!({ "reason": reason })).await?
        }
        OrderVerb::Refund { id, amount, to, address, reason, yes } => {
            let wish = refund::Wish { order: id, amount, to, address, reason };
            return refund::refund(asker, &wish, yes).await;
        }
    };
    out::lines(&order_text(&shown))
}

/// An order as a page of text.
pub fn order_text(order: &Value) -> String {
    let mut page = format!(
        "order     {}\nstatus    {}\ncustomer  {}\ntotal     {}\n",
        text(&order["id"]),
        text(&order["status"]),
        order["customer"]["telegram_id"],
        money(&order["total"])
    );
    for item in order["items"].as_array().into_iter().flatten() {
        page.push_str(&format!(
            "item      {} × {} at {}\n",
            item["quantity"],
            text(&item["title"]),
            money(&item["price"])
        ));
    }
    for payment in order["payments"].as_array().into_iter().flatten() {
        page.push_str(&format!(
            "payment   {} at {} is {}: {} came in for {}  {}\n",
            text(&payment["id"]),
            text(&payment["provider"]),
            text(&payment["status"]),
            money(&payment["received"]),
            money(&payment["amount"]),
            text(&payment["url"])
        ));
    }
    if let Some(sentence) = money_text(&order["money"]) {
        page.push_str(&format!("money     {sentence}\n"));
    }
    page.push_str("\ntimeline\n");
    for row in order["timeline"].as_array().into_iter().flatten() {
        let change = match (row["from"].as_str(), row["to"].as_str()) {
            (Some(from), Some(to)) => format!(" ({from} → {to})"),
            (None, Some(to)) => format!(" (→ {to})"),
            _ => String::new(),
        };
        let took = row["took_ms"].as_i64().map(|ms| format!(" in {ms} ms")).unwrap_or_default();
        let detail = row["detail"].as_str().map(|detail| format!(": {detail}")).unwrap_or_default();
        page.push_str(&format!(
            "  {}  {:<8} {}{change}{took}{detail}\n",
            text(&row["at"]),
            text(&row["entity"]),
            text(&row["event"])
        ));
    }
    page
}

/// Where an order's money went; nothing when it simply bought the goods.
fn money_text(went: &Value) -> Option<String> {
    let parts = [("to_payer", "went back to the payer"), ("to_balance", "went to the balance")];
    let is_some =
        |value: &Value| value["amount"].as_str().is_some_and(|sum| sum.bytes().any(|b| (b'1'..=b'9').contains(&b)));
    let told: Vec<String> = parts
        .iter()
        .filter(|(name, _)| is_some(&went[*name]))
        .map(|(name, words)| format!("{} {words}", money(&went[*name])))
        .collect();
    let received = money(&went["received"]);
    (!told.is_empty()).then(|| format!("{received} came in: {}", told.join(", ")))
}

async fn product(asker: &Asker, verb: ProductVerb) -> anyhow::Result<ExitCode> {
    match verb {
        ProductVerb::List => {
            let answer = asker.get("/api/v1/products?limit=200").await?;
            let rows = rows(&answer, |row| {
                vec![
                    text(&row["id"]),
                    text(&row["kind"]),
                    money(&row["price"]),
                    // What is made to measure has no shelf.
                    row["stock"]["available"].as_i64().map_or("-".to_owned(), |left| left.to_string()),
                    text(&row["title"]),
                ]
            });
            out::lines(&out::table(&["PRODUCT", "KIND", "PRICE", "STOCK", "TITLE"], &rows))
        }
        ProductVerb::Create { title, price, currency, kind, days, devices } => {
            if kind == "vpn" {
                anyhow::ensure!(days.is_some(), "duration_days: say for how many days the access is, as in --days 30");
            }
            let price = match currency {
                Some(currency) => json!({ "amount": price, "currency": currency }),
                None => json!({ "amount": price }),
            };
            let devices = devices.or((kind == "vpn").then_some(1));
            let body =
                json!({ "title": title, "kind": kind, "price": price, "duration_days": days, "devices": devices });
            let answer = asker.post("/api/v1/products", body).await?;
            out::lines(&text(&answer["id"]))
        }
        ProductVerb::Price { id, price } => {
            let path = format!("/api/v1/products/{id}");
            let before = asker.get(&path).await?;
            // With the version, so that the price that is told here as the old one is the one that was replaced.
            let price = json!({ "amount": price, "currency": before["price"]["currency"] });
            let now = asker.patch(&path, json!({ "price": price, "version": before["version"] })).await?;
            out::lines(&format!(
                "{} costs {} now, {} before",
                text(&now["title"]),
                money(&now["price"]),
                money(&before["price"])
            ))
        }
        ProductVerb::Hide { id } => offer(asker, &id, false).await,
        ProductVerb::Show { id } => offer(asker, &id, true).await,
    }
}

/// Takes a product off what is offered, or puts it back.
async fn offer(asker: &Asker, id: &str, active: bool) -> anyhow::Result<ExitCode> {
    let now = asker.patch(&format!("/api/v1/products/{id}"), json!({ "active": active })).await?;
    let how = if active { "is offered" } else { "is hidden: nobody can order it" };
    out::lines(&format!("{} {how}", text(&now["title"])))
}

async fn job(asker: &Asker, verb: JobVerb) -> anyhow::Result<ExitCode> {
    match verb {
        JobVerb::List { state, limit } => {
            let filter = state.map(|state| format!("&state={state}")).unwrap_or_default();
            let answer = asker.get(&format!("/api/v1/jobs?limit={limit}{filter}")).await?;
            let rows = rows(&answer, |row| {
                let attempts = format!("{}/{}", row["attempts"], row["max_attempts"]);
                vec![
                    text(&row["id"]),
                    text(&row["kind"]),
                    text(&row["state"]),
                    attempts,
                    text(&row["run_at"]),
                    // The process that runs it, as `/readyz` names it.
                    text(&row["owner"]),
                    text(&row["error"]),
                ]
            });
            out::lines(&out::table(&["JOB", "KIND", "STATE", "ATTEMPTS", "DUE", "RUNS AT", "LAST ERROR"], &rows))
        }
        JobVerb::Retry { id } => {
            asker.post(&format!("/api/v1/jobs/{id}/retry"), json!({})).await?;
            out::lines(&format!("job {id} is due now"))
        }
        JobVerb::Why { id } => {
            let answer = asker.get(&format!("/api/v1/jobs/{id}")).await?;
            out::lines(&format!("{} ({}): {}", id, text(&answer["job"]["kind"]), text(&answer["why"])))
        }
    }
}

async fn inbox(asker: &Asker, verb: InboxVerb) -> anyhow::Result<ExitCode> {
    match verb {
        InboxVerb::List { state, limit } => {
            let filter = state.map(|state| format!("&state={state}")).unwrap_or_default();
            let answer = asker.get(&format!("/api/v1/inbox?limit={limit}{filter}")).await?;
            let rows = rows(&answer, |row| {
                vec![
                    text(&row["id"]),
                    text(&row["event_id"]),
                    text(&row["state"]),
                    row["seen"].to_string(),
                    text(&row["received_at"]),
                    text(&row["reason"]),
                ]
            });
            out::lines(&out::table(&["NOTICE", "EVENT", "STATE", "SEEN", "CAME", "REASON"], &rows))
        }
        InboxVerb::Replay { id } => {
            asker.post(&format!("/api/v1/inbox/{id}/replay"), json!({})).await?;
            out::lines(&format!("notice {id} is looked into again"))
        }
    }
}

async fn token(asker: &Asker, verb: TokenVerb) -> anyhow::Result<ExitCode> {
    match verb {
        TokenVerb::Create { name, scope } => {
            let answer = asker.post("/api/v1/tokens", json!({ "name": name, "scopes": scope })).await?;
            out::lines(&format!(
                "{}\nKeep it: it is not shown again. `semel token revoke {}` makes it worthless.",
                text(&answer["token"]),
                text(&answer["id"])
            ))
        }
        TokenVerb::List => {
            let answer = asker.get("/api/v1/tokens").await?;
            let rows = rows(&answer, |row| {
                let scopes = row["scopes"].as_array().map_or(String::new(), |scopes| join(scopes));
                vec![text(&row["id"]), text(&row["name"]), scopes, text(&row["created_at"]), text(&row["revoked_at"])]
            });
            out::lines(&out::table(&["TOKEN", "NAME", "SCOPES", "MADE", "REVOKED"], &rows))
        }
        TokenVerb::Revoke { id } => {
            let known = asker.get("/api/v1/tokens").await?;
            let mut tokens = known["items"].as_array().into_iter().flatten();
            if tokens.any(|token| token["id"] == id && !token["revoked_at"].is_null()) {
                return out::lines(&format!("token {id} was revoked already"));
            }
            asker.post(&format!("/api/v1/tokens/{id}/revoke"), json!({})).await?;
            out::lines(&format!("token {id} is worthless now"))
        }
    }
}

pub(super) fn rows(answer: &Value, row: impl Fn(&Value) -> Vec<String>) -> Vec<Vec<String>> {
    answer["items"].as_array().into_iter().flatten().map(row).collect()
}

pub(super) fn join(values: &[Value]) -> String {
    values.iter().map(text).collect::<Vec<_>>().join(", ")
}

pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

pub(super) fn money(value: &Value) -> String {
    format!("{} {}", text(&value["amount"]), text(&value["currency"])).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_says_where_its_money_went() {
        let stars = |count: &str| json!({ "amount": count, "currency": "XTR" });
        let went = json!({ "received": stars("666"), "to_payer": stars("333"), "to_balance": stars("333") });
        let told = money_text(&went).expect("a sentence");
        assert_eq!(told, "666 XTR came in: 333 XTR went back to the payer, 333 XTR went to the balance");
        let went = json!({ "received": stars("333"), "to_payer": stars("0"), "to_balance": stars("333") });
        assert_eq!(money_text(&went).as_deref(), Some("333 XTR came in: 333 XTR went to the balance"));
        assert_eq!(money_text(&Value::Null), None);
    }
}
