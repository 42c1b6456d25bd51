//! `semel safe` and `semel stock release`: the owner's way out of safe mode.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::ask::{Asker, text};
use super::{SafeVerb, out};

/// Runs a verb of `semel safe`.
pub async fn safe(asker: &Asker, verb: SafeVerb) -> anyhow::Result<ExitCode> {
    match verb {
        SafeVerb::Status => out::lines(&page(&asker.get("/api/v1/safe").await?)),
        SafeVerb::Reconcile { provider, by_hand } => {
            let by_the_list = by_hand.is_none();
            let body = json!({ "provider": provider, "by_hand": by_hand });
            let shown = asker.post("/api/v1/safe/reconcile", body).await?;
            let what = match by_the_list {
                true => format!("the list of {provider} is read again by `semel serve`"),
                false => format!("{provider} is reconciled"),
            };
            out::lines(&format!("{what}\n\n{}", page(&shown)))
        }
        SafeVerb::Leave { reason, force } => {
            let shown = asker.post("/api/v1/safe/leave", json!({ "reason": reason, "force": force })).await?;
            out::lines(&format!("safe mode has ended; what waited goes on\n\n{}", page(&shown)))
        }
    }
}

/// Runs `semel stock release`.
pub async fn release(asker: &Asker, product: Option<String>, reason: String) -> anyhow::Result<ExitCode> {
    let body = match product {
        Some(product) => json!({ "product": product, "reason": reason }),
        None => json!({ "reason": reason }),
    };
    let released = asker.post("/api/v1/stock/release", body).await?["released"].as_i64().unwrap_or(0);
    let units = if released == 1 { "unit" } else { "units" };
    out::lines(&format!("{released} {units} released"))
}

/// Safe mode as a page of text: what is on, what waits, what to do.
fn page(view: &Value) -> String {
    let mut page = match view["safe_mode"].as_bool() {
        Some(true) => format!(
            "safe mode is ON: restored at {} from a backup of {}",
            text(&view["restored_at"]),
            text(&view["backup_at"])
        ),
        _ => "safe mode is off".to_owned(),
    };
    for rail in list(&view["rails"]) {
        let name = text(&rail["provider"]);
        let stands = match (rail["reconciled"].as_bool(), rail["has_list"].as_bool()) {
            (Some(true), _) => format!("reconciled at {}: {}", text(&rail["at"]), text(&rail["how"])),
            (_, Some(true)) => "its list is being read by `semel serve`".to_owned(),
            _ => format!("has no list: compare its cabinet, then `semel safe reconcile {name} --by-hand REASON`"),
        };
        page.push_str(&format!("\nrail   {name:<11} {stands}"));
    }
    for stock in list(&view["held_back"]) {
        page.push_str(&format!(
            "\nstock  {} of {} held back; `semel stock release {} --reason …` sells them",
            stock["units"],
            text(&stock["title"]),
            text(&stock["product"])
        ));
    }
    match view["withheld_deliveries"].as_i64() {
        None | Some(0) => {}
        Some(count) => page.push_str(&format!("\ngoods  {count} bought and not handed over yet")),
    }
    for waiting in list(&view["put_off"]) {
        page.push_str(&format!("\njobs   {} of {} wait", waiting["jobs"], text(&waiting["kind"])));
    }
    page
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_what_is_left_to_do() {
        let view = json!({
            "safe_mode": true, "backup_at": "2026-03-01T09:00:00.000Z", "restored_at": "2026-03-02T09:00:00.000Z",
            "rails": [
                { "provider": "yookassa", "reconciled": true, "has_list": true, "how": "list (semel)", "at": "T" },
                { "provider": "heleket", "reconciled": false, "has_list": true },
                { "provider": "crystalpay", "reconciled": false, "has_list": false },
            ],
            "held_back": [{ "product": "prd_1", "title": "Key", "units": 3 }],
            "withheld_deliveries": 1,
            "put_off": [{ "kind": "message.send", "jobs": 2 }],
        });
        let page = page(&view);
        for line in [
            "safe mode is ON: restored at 2026-03-02T09:00:00.000Z from a backup of 2026-03-01T09:00:00.000Z",
            "rail   yookassa    reconciled at T: list (semel)",
            "rail   heleket     its list is being read by `semel serve`",
            "rail   crystalpay  has no list: compare its cabinet, then `semel safe reconcile crystalpay --by-hand REASON`",
            "stock  3 of Key held back; `semel stock release prd_1 --reason …` sells them",
            "goods  1 bought and not handed over yet",
            "jobs   2 of message.send wait",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
        }
        assert_eq!(super::page(&json!({ "safe_mode": false, "rails": [] })), "safe mode is off");
    }
}
