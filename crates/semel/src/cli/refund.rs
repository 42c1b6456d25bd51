//! `semel order refund`: shows how much goes back where and what it closes, and asks before it does it. There is no way back.

use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Value, json};

use super::ask::{Asker, money, order_text, text};
use super::out;

/// What the owner asks for.
pub struct Wish {
    /// The order's id.
    pub order: String,
    /// How much; all that is left when missing.
    pub amount: Option<String>,
    /// `balance`, `provider` or `made`.
    pub to: String,
    /// Where crypto goes back to.
    pub address: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// Asks, unless `yes` says that this was done, and gives the money back.
pub async fn refund(asker: &Asker, wish: &Wish, yes: bool) -> anyhow::Result<ExitCode> {
    let id = &wish.order;
    let order = asker.get(&format!("/api/v1/orders/{id}")).await?;
    if !yes {
        anyhow::ensure!(
            std::io::stdin().is_terminal(),
            "a refund has no way back, and there is no terminal to ask on: add --yes, and --to balance, --to provider or --to made"
        );
        let access = gives_access(asker, &order).await?;
        out::say(&plan(&order, wish, access))?;
        out::say(&format!("\nType y, or the order's id, to do it ({id}):"))?;
        anyhow::ensure!(is_agreed(&mut std::io::stdin().lock(), id)?, "nothing was given back");
    }
    let body = json!({ "amount": wish.amount, "to": wish.to, "address": wish.address, "reason": wish.reason });
    let shown = asker.post(&format!("/api/v1/orders/{id}/refund"), body).await?;
    out::lines(&format!("{}\n\n{}", done(&order, &shown, wish), order_text(&shown)))
}

/// Whether the order bought access, which a refund takes back.
async fn gives_access(asker: &Asker, order: &Value) -> anyhow::Result<bool> {
    for item in order["items"].as_array().into_iter().flatten() {
        let product = asker.get(&format!("/api/v1/products/{}", text(&item["product"]))).await?;
        if product["kind"] == "vpn" {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The sum, honest about a refund that went before: how much that was, only the books know.
fn sum(order: &Value, wish: &Wish) -> String {
    let total = &order["total"];
    if let Some(amount) = &wish.amount {
        return format!("{amount} {}", text(&total["currency"]));
    }
    let mut rows = order["timeline"].as_array().into_iter().flatten();
    match rows.any(|row| row["entity"] == "order" && row["to"] == "refund_pending") {
        true => format!("what is left of {} after what went back before", money(total)),
        false => format!("{}, all of it", money(total)),
    }
}

/// Where it goes, as the end of a sentence.
fn destination(order: &Value, wish: &Wish) -> String {
    let customer = &order["customer"]["telegram_id"];
    match wish.to.as_str() {
        "provider" => {
            let payments = order["payments"].as_array();
            let paid = payments.into_iter().flatten().find(|payment| payment["status"] == "paid");
            match paid {
                Some(payment) => format!("back through {} to whoever paid", text(&payment["provider"])),
                None => "back through the provider to whoever paid".to_owned(),
            }
        }
        "made" => "into the books only, as given back in the provider's cabinet: nothing is sent".to_owned(),
        _ => format!("to the BALANCE of customer {customer} in this shop"),
    }
}

/// What would happen, as a page of text.
fn plan(order: &Value, wish: &Wish, access: bool) -> String {
    let mut page = format!(
        "order   {}, {}\nsum     {}\ngoes    {}\n",
        text(&order["id"]),
        text(&order["status"]),
        sum(order, wish),
        destination(order, wish)
    );
    if wish.to == "balance" {
        page.push_str("        (--to provider sends it back to where it came from instead)\n");
    }
    let closes = match (access, wish.amount.is_some()) {
        (true, false) => "the VPN access that this order bought",
        (true, true) => {
            "of the VPN access that this order bought, the share that the sum pays for; with all of the sum, all of it"
        }
        (false, false) => "the order: what was not handed over yet is handed over no more",
        (false, true) => "nothing, unless all of the order's money has gone back then",
    };
    page.push_str(&format!("closes  {closes}\n"));
    page
}

/// What happened, in a sentence. `before` is the order before it, `after` the order as it was answered.
fn done(before: &Value, after: &Value, wish: &Wish) -> String {
    let sum = sum(before, wish);
    let id = text(&before["id"]);
    match wish.to.as_str() {
        "provider" if after["status"] == "refund_pending" => {
            format!("on its way {}: {sum}. `semel order show {id}` says when it is there", destination(before, wish))
        }
        "provider" => format!("asked for {}: {sum}", destination(before, wish)),
        "made" => format!("booked as given back in the provider's cabinet: {sum}. Nothing was sent"),
        _ => format!("went {}: {sum}", destination(before, wish)),
    }
}

/// Whether the next line agrees.
fn is_agreed(input: &mut impl BufRead, id: &str) -> anyhow::Result<bool> {
    let mut line = String::new();
    input.read_line(&mut line).context("cannot read the answer")?;
    let said = line.trim();
    Ok(said == id || said.eq_ignore_ascii_case("y") || said.eq_ignore_ascii_case("yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(to: &str, amount: Option<&str>) -> Wish {
        Wish { order: "ord_1".into(), amount: amount.map(str::to_owned), to: to.into(), address: None, reason: None }
    }

    fn order(timeline: Value) -> Value {
        json!({
            "id": "ord_1", "status": "delivered", "customer": { "telegram_id": 555 },
            "total": { "amount": "167", "currency": "XTR" },
            "payments": [{ "status": "expired", "provider": "yookassa" }, { "status": "paid", "provider": "stars" }],
            "timeline": timeline,
        })
    }

    #[test]
    fn what_would_happen_is_shown_with_sum_destination_and_what_closes() {
        let shown = plan(&order(json!([])), &wish("balance", None), true);
        for line in [
            "sum     167 XTR, all of it",
            "goes    to the BALANCE of customer 555 in this shop",
            "        (--to provider sends it back to where it came from instead)",
            "closes  the VPN access that this order bought",
        ] {
            assert!(shown.lines().any(|found| found == line), "{line} is missing in\n{shown}");
        }
        let shown = plan(&order(json!([])), &wish("provider", Some("100")), false);
        assert!(shown.contains("sum     100 XTR\n") && shown.contains("back through stars"), "{shown}");
        assert!(!shown.contains("BALANCE") && !shown.contains("--to provider"), "{shown}");
    }

    #[test]
    fn after_a_part_went_back_nobody_is_told_a_sum_that_is_not_known() {
        let before = order(json!([{ "entity": "order", "from": "delivered", "to": "refund_pending" }]));
        assert_eq!(sum(&before, &wish("balance", None)), "what is left of 167 XTR after what went back before");
        assert_eq!(sum(&before, &wish("balance", Some("7"))), "7 XTR");
    }

    #[test]
    fn the_end_says_where_the_money_is() {
        let before = order(json!([]));
        let told = |to: &str, status: &str| done(&before, &json!({ "status": status }), &wish(to, None));
        assert_eq!(told("balance", "refunded"), "went to the BALANCE of customer 555 in this shop: 167 XTR, all of it");
        assert!(told("provider", "refund_pending").starts_with("on its way back through stars"));
        assert!(told("made", "refunded").ends_with("Nothing was sent"));
    }

    #[test]
    fn only_a_clear_word_agrees() {
        for clear in ["y\n", "YES\n", "ord_1\n", " ord_1 \n"] {
            assert!(is_agreed(&mut clear.as_bytes(), "ord_1").expect("a line"), "{clear}");
        }
        for other in ["", "\n", "n\n", "ord_2\n", "yep\n"] {
            assert!(!is_agreed(&mut other.as_bytes(), "ord_1").expect("a line"), "{other}");
        }
    }
}
