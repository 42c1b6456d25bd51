//! `semel sub`: the owner's hand on customers' access.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::ask::{Asker, rows, text};
use super::{SubVerb, out};

/// Runs `verb`.
pub async fn sub(asker: &Asker, verb: SubVerb) -> anyhow::Result<ExitCode> {
    match verb {
        SubVerb::List { customer, state, limit } => list(asker, customer, state, limit).await,
        SubVerb::Show { id } => out::lines(&page(&asker.get(&format!("/api/v1/subscriptions/{id}")).await?)),
        SubVerb::Grant { customer, days, devices, reason } => {
            let body =
                json!({ "customer": { "telegram_id": customer }, "days": days, "devices": devices, "reason": reason });
            let made = asker.post("/api/v1/subscriptions", body).await?;
            let others = asker.get(&format!("/api/v1/subscriptions?limit=200&customer={customer}")).await;
            // It is given, whether or not the others can be told.
            let beside = others.map(|others| beside(&made, &others)).unwrap_or_default();
            out::lines(&format!("{}{beside}", page(&made)))
        }
        SubVerb::Trial { customer } => {
            let body = json!({ "customer": { "telegram_id": customer } });
            out::lines(&page(&asker.post("/api/v1/subscriptions/trial", body).await?))
        }
        SubVerb::Extend { id, days, reason } => {
            act(asker, &id, "extend", json!({ "days": days, "reason": reason })).await
        }
        SubVerb::Freeze { id, reason } => act(asker, &id, "freeze", json!({ "reason": reason })).await,
        SubVerb::Unfreeze { id, reason } => act(asker, &id, "unfreeze", json!({ "reason": reason })).await,
        SubVerb::Revoke { id, reason } => act(asker, &id, "revoke", json!({ "reason": reason })).await,
        SubVerb::Link { id, device, format } => {
            let body = json!({ "device": device, "format": format });
            let made = asker.post(&format!("/api/v1/subscriptions/{id}/link"), body).await?;
            out::lines(&format!(
                "{}\nIt gives the file once, until {}. It is not shown again.",
                text(&made["url"]),
                text(&made["expires_at"])
            ))
        }
    }
}

async fn act(asker: &Asker, id: &str, what: &str, body: Value) -> anyhow::Result<ExitCode> {
    out::lines(&page(&asker.post(&format!("/api/v1/subscriptions/{id}/{what}"), body).await?))
}

async fn list(asker: &Asker, customer: Option<i64>, state: Option<String>, limit: u32) -> anyhow::Result<ExitCode> {
    let mut path = format!("/api/v1/subscriptions?limit={limit}");
    if let Some(customer) = customer {
        path.push_str(&format!("&customer={customer}"));
    }
    if let Some(state) = state {
        path.push_str(&format!("&state={state}"));
    }
    let answer = asker.get(&path).await?;
    if answer["next_cursor"].is_string() {
        out::complain(&format!(
            "there are more than these {limit}: --limit shows up to 200, --customer and --state fewer"
        ));
    }
    let rows = rows(&answer, |row| {
        vec![
            text(&row["id"]),
            text(&row["customer"]["telegram_id"]),
            text(&row["state"]),
            text(&row["paid_until"]),
            text(&row["devices"]),
        ]
    });
    out::lines(&out::table(&["SUBSCRIPTION", "CUSTOMER", "STATE", "PAID UNTIL", "DEVICES"], &rows))
}

/// What an owner may not have meant: that the customer has others, which a gift does not make longer.
fn beside(made: &Value, others: &Value) -> String {
    let lives = |one: &&Value| one["id"] != made["id"] && one["state"] != "revoked";
    let ids: Vec<String> = list_of(&others["items"]).filter(lives).map(|one| text(&one["id"])).collect();
    let them = if ids.len() == 1 { "it" } else { "one of them" };
    match ids.as_slice() {
        [] => String::new(),
        _ => format!("\nIt stands beside {}; `semel sub extend` adds to {them}.\n", ids.join(", ")),
    }
}

/// A subscription as a page of text.
fn page(sub: &Value) -> String {
    let mut page = format!(
        "subscription  {}\ncustomer      {}\nstate         {}\npaid until    {}\ndevices       {}\n",
        text(&sub["id"]),
        text(&sub["customer"]["telegram_id"]),
        text(&sub["state"]),
        text(&sub["paid_until"]),
        text(&sub["devices"])
    );
    for period in list_of(&sub["periods"]) {
        let seconds = period["seconds"].as_i64().unwrap_or(0);
        let taken = match period["taken"].as_i64().unwrap_or(0) {
            0 => String::new(),
            taken => format!(", {} taken back", long(taken)),
        };
        let why = [&period["order"], &period["reason"]].map(text).join(" ");
        page.push_str(&format!(
            "period        {} of {}{taken}  {}\n",
            long(seconds),
            text(&period["kind"]),
            why.trim()
        ));
    }
    for peer in list_of(&sub["peers"]) {
        let addresses: Vec<String> = list_of(&peer["addresses"]).map(text).collect();
        let seen = match peer["last_handshake_at"].as_str() {
            Some(at) => format!("last seen {at}"),
            None => "never connected".to_owned(),
        };
        page.push_str(&format!(
            "device {}      {} is {}, {}, {seen}\n",
            text(&peer["device"]),
            text(&peer["id"]),
            text(&peer["state"]),
            addresses.join(" ")
        ));
    }
    page.push_str("\ntimeline\n");
    for row in list_of(&sub["timeline"]) {
        let change = match (row["from"].as_str(), row["to"].as_str()) {
            (Some(from), Some(to)) => format!(" ({from} → {to})"),
            (None, Some(to)) => format!(" (→ {to})"),
            _ => String::new(),
        };
        let detail = row["detail"].as_str().map(|detail| format!(": {detail}")).unwrap_or_default();
        page.push_str(&format!(
            "  {}  {:<12} {}{change}{detail}\n",
            text(&row["at"]),
            text(&row["entity"]),
            text(&row["event"])
        ));
    }
    page
}

fn list_of(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Seconds in the words of a person; what is no whole number of hours is told to the minute.
fn long(seconds: i64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds % 86_400 / 3_600, seconds % 3_600 / 60);
    let parts = [(days, "d"), (hours, "h"), (minutes, "min")];
    let told: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count} {unit}")).collect();
    if told.is_empty() { format!("{seconds} s") } else { told.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_who_has_what_and_until_when() {
        let shown = page(&json!({
            "id": "sub_1", "customer": { "telegram_id": 42 }, "state": "active", "paid_until": "T", "devices": 2,
            "periods": [{ "kind": "sale", "order": "ord_1", "seconds": 2_592_000, "taken": 3_600 }],
            "peers": [{ "id": "peer_1", "device": 1, "state": "active", "addresses": ["10.8.0.2", "fd00::2"], "last_handshake_at": null }],
            "timeline": [{ "at": "T", "entity": "subscription", "event": "bought", "from": "trial", "to": "active" }],
        }));
        for line in [
            "subscription  sub_1",
            "customer      42",
            "period        30 d of sale, 1 h taken back  ord_1",
            "device 1      peer_1 is active, 10.8.0.2 fd00::2, never connected",
            "  T  subscription bought (trial → active)",
        ] {
            assert!(shown.lines().any(|found| found == line), "{line} is missing in\n{shown}");
        }
    }

    #[test]
    fn a_gift_beside_another_subscription_says_so() {
        let made = json!({ "id": "sub_3" });
        let others = |items: Value| json!({ "items": items });
        let old = json!({ "id": "sub_1", "state": "expired" });
        let over = json!({ "id": "sub_2", "state": "revoked" });
        assert_eq!(beside(&made, &others(json!([{ "id": "sub_3", "state": "active" }, over]))), "");
        let told = beside(&made, &others(json!([{ "id": "sub_3", "state": "active" }, old])));
        assert_eq!(told, "\nIt stands beside sub_1; `semel sub extend` adds to it.\n");
    }

    #[test]
    fn time_is_told_as_people_say_it() {
        assert_eq!(long(86_400), "1 d");
        assert_eq!(long(90_060), "1 d 1 h 1 min");
        assert_eq!(long(5), "5 s");
    }
}
