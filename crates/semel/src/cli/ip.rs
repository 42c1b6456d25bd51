//! `semel ip`: who has an address, and who had it when.

use std::process::ExitCode;

use serde_json::Value;

use super::ask::{Asker, rows, text};
use super::{IpVerb, out};

/// Runs `verb`.
pub async fn ip(asker: &Asker, verb: IpVerb) -> anyhow::Result<ExitCode> {
    match verb {
        IpVerb::Who { address, at } => {
            let at = at.map(|at| format!("?at={}", escaped(&at))).unwrap_or_default();
            out::lines(&page(&asker.get(&format!("/api/v1/addresses/{}{at}", escaped(&address))).await?))
        }
        IpVerb::List { server, state, limit } => {
            let mut path = format!("/api/v1/addresses?limit={limit}");
            for (name, value) in [("server", server), ("state", state)] {
                if let Some(value) = value {
                    path.push_str(&format!("&{name}={}", escaped(&value)));
                }
            }
            let answer = asker.get(&path).await?;
            let rows = rows(&answer, |row| {
                vec![
                    text(&row["ip"]),
                    text(&row["state"]),
                    text(&row["since"]),
                    text(&row["until"]),
                    text(&row["telegram_id"]),
                    text(&row["peer"]),
                ]
            });
            out::lines(&out::table(&["ADDRESS", "STATE", "SINCE", "UNTIL", "CUSTOMER", "PEER"], &rows))
        }
    }
}

/// What was typed, as a part of an address: everything but letters, digits, dots, colons and dashes is written in numbers.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b':' | b'-' | b'_');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// An address and its holders as a page of text.
fn page(address: &Value) -> String {
    let mut page = format!("address  {}\n", text(&address["ip"]));
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    for now in list(&address["now"]) {
        let until = now["until"].as_str().map(|until| format!(" until {until}")).unwrap_or_default();
        page.push_str(&format!(
            "on       {}: {} since {}{until}\n",
            text(&now["server"]),
            text(&now["state"]),
            text(&now["since"])
        ));
    }
    let holders = list(&address["holders"]);
    if holders.is_empty() {
        page.push_str("nobody had it\n");
    }
    for holder in holders {
        let until = holder["until"].as_str().unwrap_or("now");
        page.push_str(&format!(
            "{} … {until}  customer {}  {}, device {}, {}\n",
            text(&holder["since"]),
            text(&holder["telegram_id"]),
            text(&holder["subscription"]),
            text(&holder["device"]),
            text(&holder["public_key"])
        ));
    }
    page
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_page_names_who_has_it_and_who_had_it() {
        let shown = page(&json!({
            "ip": "10.8.0.2",
            "now": [{ "server": "local", "state": "held", "since": "T2", "until": null }],
            "holders": [
                { "since": "T2", "until": null, "telegram_id": 42, "subscription": "sub_2", "device": 1, "public_key": "K2" },
                { "since": "T0", "until": "T1", "telegram_id": 7, "subscription": "sub_1", "device": 2, "public_key": "K1" },
            ],
        }));
        assert_eq!(
            shown,
            "address  10.8.0.2\non       local: held since T2\nT2 … now  customer 42  sub_2, device 1, K2\n\
             T0 … T1  customer 7  sub_1, device 2, K1\n"
        );
        assert!(page(&json!({ "ip": "10.8.0.3" })).ends_with("nobody had it\n"));
    }

    #[test]
    fn what_is_typed_changes_no_path() {
        assert_eq!(escaped("10.8.0.2"), "10.8.0.2");
        assert_eq!(escaped("fd00::2"), "fd00::2");
        assert_eq!(escaped("../x?y"), "..%2Fx%3Fy");
        assert_eq!(escaped("2026-11-21T12:00:00+03:00"), "2026-11-21T12:00:00%2B03:00");
    }
}
