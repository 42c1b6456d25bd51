//! `semel ip`: who has an address, and who had it when.

use std::net::IpAddr;
use std::process::ExitCode;

use serde_json::Value;

use super::ask::{Asker, text};
use super::{IpVerb, out};

/// Runs `verb`.
pub async fn ip(asker: &Asker, verb: IpVerb) -> anyhow::Result<ExitCode> {
    match verb {
        IpVerb::Who { address, at } => {
            let known = address.parse::<IpAddr>().is_ok();
            anyhow::ensure!(known, "there is no address {address:.60}: write one such as 10.8.0.2 or fd00:8::2");
            let at = at.map(|at| format!("?at={}", escaped(&at))).unwrap_or_default();
            out::lines(&page(&asker.get(&format!("/api/v1/addresses/{}{at}", escaped(&address))).await?))
        }
        IpVerb::List { server, state, limit } => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let mut found = Vec::new();
            for state in state.as_deref().map_or(STATES.to_vec(), |state| vec![state]) {
                if found.len() <= limit {
                    found.extend(in_state(asker, server.as_deref(), state).await?);
                }
            }
            let more = found.len() > limit;
            found.truncate(limit);
            let rows: Vec<Vec<String>> = found.iter().map(row).collect();
            if more {
                out::complain(&format!(
                    "there are more than these {limit}: --limit shows up to 200, --state those of one state"
                ));
            }
            out::lines(&out::table(&["ADDRESS", "STATE", "SINCE", "UNTIL", "CUSTOMER", "PEER"], &rows))
        }
    }
}

/// The states of addresses in the order in which an owner asks for them.
const STATES: [&str; 3] = ["held", "quarantine", "free"];

/// All addresses of a server in one state, in the order of their numbers. Pages come in the order of their text, in which
/// 10.8.0.10 stands before 10.8.0.2, so they have to be there before the first one is known.
async fn in_state(asker: &Asker, server: Option<&str>, state: &str) -> anyhow::Result<Vec<Value>> {
    let mut path = format!("/api/v1/addresses?limit=200&state={}", escaped(state));
    if let Some(server) = server {
        path.push_str(&format!("&server={}", escaped(server)));
    }
    let (mut found, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let after = cursor.map(|cursor| format!("&cursor={}", escaped(&cursor))).unwrap_or_default();
        let mut answer = asker.get(&format!("{path}{after}")).await?;
        if let Value::Array(items) = answer["items"].take() {
            found.extend(items);
        }
        cursor = answer["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            found.sort_by_key(number);
            return Ok(found);
        }
    }
}

/// What addresses are sorted by: IPv4 first, then the number; what is none comes last.
fn number(row: &Value) -> (bool, Option<IpAddr>) {
    let ip = row["ip"].as_str().and_then(|ip| ip.parse::<IpAddr>().ok());
    (ip.is_none(), ip)
}

fn row(address: &Value) -> Vec<String> {
    ["ip", "state", "since", "until", "telegram_id", "peer"].map(|name| text(&address[name])).into()
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
        let whose =
            if now["state"] == "held" && now["peer"].is_null() { ", kept for a peer that is none of ours" } else { "" };
        page.push_str(&format!(
            "on       {}: {} since {}{until}{whose}\n",
            text(&now["server"]),
            text(&now["state"]),
            text(&now["since"])
        ));
    }
    if list(&address["now"]).is_empty() {
        page.push_str("on       no server: outside of the networks that customers get addresses of, or kept for the server itself\n");
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
            "now": [{ "server": "local", "state": "held", "peer": "peer_2", "since": "T2", "until": null }],
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
        let nowhere = page(&json!({ "ip": "10.8.0.1", "now": [], "holders": [] }));
        assert!(nowhere.contains("on       no server: ") && nowhere.ends_with("nobody had it\n"), "{nowhere}");
        let foreign = page(&json!({ "now": [{ "server": "local", "state": "held", "since": "T", "peer": null }] }));
        assert!(foreign.contains("local: held since T, kept for a peer that is none of ours\n"), "{foreign}");
    }

    #[test]
    fn addresses_stand_in_the_order_of_their_numbers() {
        let mut rows = ["fd00::2", "10.8.0.10", "10.8.0.9", "10.8.0.100"].map(|ip| json!({ "ip": ip }));
        rows.sort_by_key(number);
        assert_eq!(rows.map(|row| text(&row["ip"])), ["10.8.0.9", "10.8.0.10", "10.8.0.100", "fd00::2"]);
    }

    #[test]
    fn what_is_typed_changes_no_path() {
        assert_eq!(escaped("10.8.0.2"), "10.8.0.2");
        assert_eq!(escaped("fd00::2"), "fd00::2");
        assert_eq!(escaped("../x?y"), "..%2Fx%3Fy");
        assert_eq!(escaped("2026-11-21T12:00:00+03:00"), "2026-11-21T12:00:00%2B03:00");
    }
}
