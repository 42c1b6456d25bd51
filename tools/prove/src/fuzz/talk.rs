//! Talking to customers: updates of the Bot API, the data behind buttons, the webhook, and what an owner writes: texts, markup,
//! whom a campaign goes to.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use semel_shop::campaigns::segments::Rule;
use semel_shop::notices::{self, html};
use semel_telegram::{TEXT_LIMIT, Update, What, html_escape, utf16_len};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::notices::kind_of;
use super::{Subject, TAKEN, Verdict};
use crate::app::{ROOMS, TestShop, TestStore};

/// What updates, texts and rules are made of.
pub const WORDS: &[&str] = &[
    "\"update_id\":7",
    "\"message\":{\"chat\":{\"id\":42,\"type\":\"private\"}}",
    "\"from\":{\"id\":42,\"is_bot\":false,\"language_code\":\"en\"}",
    "\"entities\":[{\"type\":\"bot_command\",\"offset\":0,\"length\":6}]",
    "\"text\":\"/start ref_42\"",
    "\"callback_query\":{\"id\":\"q\",\"from\":{\"id\":42},\"data\":\"go:catalog\"}",
    "\"my_chat_member\":",
    "\"new_chat_member\":{\"status\":\"kicked\"}",
    "go:product:prd_",
    "go:order:ord_",
    "go:renew:sub_",
    "go:language:en",
    "AAAAAAAAAAAAAAAA",
    "balance\n",
    "vpn_ends\n",
    "{amount}",
    "{number}",
    "{until}",
    "<b>",
    "</b>",
    "<a href=\"https://example.org/\">",
    "<span class=\"tg-spoiler\">",
    "<blockquote expandable>",
    "&lt;",
    "&#8212;",
    "👍",
    "\"access\":\"active\"",
    "\"language\":\"ru\"",
    "\"tag\":\"vip\"",
    "\"list\":[3,1,3]",
];

/// Where an update holds objects.
const LISTED: &[&str] = &[
    "/message",
    "/message/chat",
    "/message/from",
    "/callback_query",
    "/callback_query/from",
    "/callback_query/message",
    "/callback_query/message/chat",
    "/my_chat_member",
    "/my_chat_member/chat",
];

/// One update: whoever it names stands in it, a command is plain, and an error repeats nothing that a person wrote.
pub fn update(input: &[u8]) -> Verdict {
    let Ok(update) = serde_json::from_slice::<Value>(input) else { return Ok("no JSON".into()) };
    // Members in a list are read by their places, which Telegram never does.
    if LISTED.iter().any(|place| update.pointer(place).is_some_and(Value::is_array)) {
        return Ok("a list".into());
    }
    let read = Update::read(&update);
    if read != Update::read(&update) {
        return Err("the same update was read in two ways".into());
    }
    let read = match read {
        Ok(read) => read,
        Err(error) => {
            let told = error.to_string();
            return if told.len() > 200 {
                Err(format!("an error of {} bytes", told.len()))
            } else {
                Ok(kind_of(&told))
            };
        }
    };
    if update["update_id"].as_i64() != Some(read.id) {
        return Err(format!("the update {} got the number {}", update["update_id"], read.id));
    }
    let told = match &read.what {
        What::Said(said) => {
            let message = &update["message"];
            if message["chat"]["id"].as_i64() != Some(said.chat)
                || said.private != (message["chat"]["type"] == "private")
            {
                return Err(format!("{} was read as the chat {}", message["chat"], said.chat));
            }
            if said.from.as_ref().is_some_and(|person| message["from"]["id"].as_i64() != Some(person.id)) {
                return Err(format!("{} was read as {:?}", message["from"], said.from));
            }
            if let Some(command) = &said.command {
                let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
                if command.name.is_empty() || !command.name.bytes().all(plain) || !said.text.starts_with('/') {
                    return Err(format!("{:?} holds the command {command:?}", said.text));
                }
                if !said.text.ends_with(&command.payload) && !said.text.trim_end().ends_with(&command.payload) {
                    return Err(format!("{:?} has the payload {:?}", said.text, command.payload));
                }
                "a command"
            } else {
                "words"
            }
        }
        What::Pressed(press) => {
            let query = &update["callback_query"];
            let chat = query["message"]["chat"]["id"].as_i64();
            if query["from"]["id"].as_i64() != Some(press.from.id) || press.chat != chat {
                return Err(format!("{query} was read as {press:?}"));
            }
            "a press"
        }
        What::Checkout(checkout) => {
            let query = &update["pre_checkout_query"];
            if query["total_amount"].as_i64() != Some(checkout.amount)
                || query["from"]["id"].as_i64() != Some(checkout.from.id)
            {
                return Err(format!("{query} was read as {checkout:?}"));
            }
            "a checkout"
        }
        What::Paid(paid) => {
            let told = &update["message"]["successful_payment"];
            if told["total_amount"].as_i64() != Some(paid.amount)
                || told["telegram_payment_charge_id"].as_str() != Some(paid.charge.as_str())
            {
                return Err(format!("{told} was read as {paid:?}"));
            }
            "money"
        }
        What::Refunded(back) => {
            let told = &update["message"]["refunded_payment"];
            if told["total_amount"].as_i64() != Some(back.amount) {
                return Err(format!("{told} was read as {back:?}"));
            }
            "money back"
        }
        What::Membership(member) => {
            if update["my_chat_member"]["chat"]["id"].as_i64() != Some(member.chat) {
                return Err(format!("{} was read as {member:?}", update["my_chat_member"]));
            }
            if member.reachable { "let in" } else { "shut out" }
        }
        What::Other => "something else",
    };
    Ok(format!("{TAKEN}: {told}"))
}

/// A kind of notice in the first line, then its text: what is taken can be sent whatever its values are, and names what it must.
pub fn notice(input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input);
    let (word, text) = text.split_once('\n').unwrap_or((text.as_ref(), ""));
    let Some(kind) = notices::kind_of(word) else { return Ok("no such kind".into()) };
    if let Err(wrong) = notices::check(kind, text) {
        // It quotes the place, and that at most.
        return if wrong.chars().count() > 400 {
            Err(format!("an error of {} bytes", wrong.len()))
        } else {
            Ok(kind_of(&wrong))
        };
    }
    let hostile = "<b>&{order}\"</i> 5 > 3";
    let values: Vec<(&str, String)> = kind.may.iter().map(|name| (*name, hostile.to_owned())).collect();
    let shown = notices::render(text, &values);
    if let Err(wrong) = html::check(&shown, notices::LONGEST_TEXT) {
        return Err(format!("with its values it cannot be sent: {wrong}: {shown}"));
    }
    let named = kind.must.iter().filter(|name| text.contains(&format!("{{{name}}}"))).count();
    if named != kind.must.len() || (named > 0 && !shown.contains(&html_escape(hostile))) {
        return Err(format!("{text:?} names {named} of {:?}", kind.must));
    }
    Ok(format!("{TAKEN}: {named} needed"))
}

/// Telegram's markup: what is escaped is always sound, what is taken has a length that fits.
pub fn markup(input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input);
    let limit = 1 + input.len() % 61;
    let sounds = |c: char| !c.is_control() || matches!(c, '\n' | '\t' | '\r');
    let fits = text.chars().any(|c| !c.is_whitespace()) && text.chars().all(sounds) && utf16_len(&text) <= limit;
    if html::check(&html_escape(&text), limit).is_ok() != fits {
        return Err(format!("escaped words that {} are judged otherwise", if fits { "fit" } else { "do not fit" }));
    }
    match html::check(&text, limit) {
        Err(wrong) if wrong.chars().count() > 400 => Err(format!("an error of {} bytes", wrong.len())),
        Err(wrong) => Ok(kind_of(&wrong)),
        Ok(()) => {
            if html::check(&text, TEXT_LIMIT * 8).is_err() {
                return Err("what fits does not fit where there is more room".into());
            }
            Ok(format!("{TAKEN}: {} tags", text.matches('<').count().min(4)))
        }
    }
}

/// Whom a campaign goes to: what is taken travels into its row and back, and a slip never means everybody.
pub fn rule(input: &[u8]) -> Verdict {
    let rule = match serde_json::from_slice::<Rule>(input) {
        Ok(rule) => rule,
        Err(error) => return Ok(format!("no rule: {:?}", error.classify())),
    };
    // Conditions in a list are read by their places; a list is no rule that anybody writes.
    if input.trim_ascii_start().starts_with(b"[") {
        return Ok("a list".into());
    }
    let members = serde_json::from_slice::<Value>(input).ok().and_then(|value| value.as_object().cloned());
    let said = members.iter().flatten().filter(|(_, value)| !value.is_null()).count();
    if rule == Rule::default() && said > 0 {
        return Err("a condition was read as everybody".into());
    }
    let checked = match rule.checked() {
        Ok(checked) => checked,
        Err(error) => return Ok(kind_of(&error.to_string())),
    };
    let row = serde_json::to_string(&checked).map_err(|error| error.to_string())?;
    let back: Rule = serde_json::from_str(&row).map_err(|error| format!("{row} is not read back: {error}"))?;
    if back != checked || back.clone().checked().ok() != Some(back) {
        return Err(format!("{row} is read back as another rule"));
    }
    if let Some(list) = &checked.list
        && (list.is_empty() || list.contains(&0) || !list.windows(2).all(|pair| pair[0] < pair[1]))
    {
        return Err(format!("{list:?} is no list of people"));
    }
    Ok(format!("{TAKEN}: {} conditions", said.min(4)))
}

/// A shop whose bot gets its updates by webhook.
struct Post {
    data_only: bool,
    runtime: Runtime,
    shop: Option<TestShop>,
    path: String,
    secret: String,
    /// Counts up: the number of the next update.
    turn: i64,
}

fn post(data_only: bool) -> Box<dyn Subject> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (shop, path, secret) = runtime.block_on(async {
        let changes = [("SEMEL_TELEGRAM_UPDATES", "webhook"), ("SEMEL_PUBLIC_URL", "https://shop.example")];
        let shop = TestShop::with(TestStore::sqlite(ROOMS).await, &changes).await;
        shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        let door = shop.program.app.doors.telegram.clone().expect("the door is open");
        (shop, format!("/telegram/webhook/{}", door.path), door.secret)
    });
    Box::new(Post { data_only, runtime, shop: Some(shop), path, secret, turn: 1_000_000 })
}

/// Any body at the webhook.
pub fn webhook() -> Box<dyn Subject> {
    post(false)
}

/// Any data behind a button.
pub fn data() -> Box<dyn Subject> {
    post(true)
}

impl Subject for Post {
    fn feed(&mut self, input: &[u8]) -> Verdict {
        self.turn += 1;
        let Self { data_only, runtime, shop, path, secret, turn } = self;
        let Some(shop) = shop else { return Err("the shop is closed".into()) };
        runtime.block_on(async {
            if *data_only {
                pressed(shop, path, secret, *turn, input).await
            } else {
                posted(shop, path, secret, input).await
            }
        })
    }

    /// Everything that was pressed has its answer, and every promise holds.
    fn end(&mut self) -> Result<(), String> {
        let Some(shop) = self.shop.take() else { return Ok(()) };
        let data_only = self.data_only;
        self.runtime.block_on(async {
            if data_only {
                shop.wait(Duration::from_secs(60)).await;
                shop.finish().await;
            } else {
                // Nobody worked off what anybody could post.
                shop.leave().await;
            }
        });
        Ok(())
    }
}

async fn send(shop: &TestShop, path: &str, secret: &str, body: Bytes) -> u16 {
    let headers = [("content-type", "application/json"), ("x-telegram-bot-api-secret-token", secret)];
    shop.program.api.send(Method::POST, path, &headers, body).await.status
}

/// Nothing is acknowledged that is not kept, nothing is kept without the secret, and nothing twice.
async fn posted(shop: &TestShop, path: &str, secret: &str, input: &[u8]) -> Verdict {
    let rows = "select count(*) from updates";
    let before = shop.number(rows).await;
    let body = Bytes::copy_from_slice(input);
    let stranger = send(shop, path, "guess", body.clone()).await;
    if stranger != 403 || shop.number(rows).await != before {
        return Err(format!("a stranger's update is answered {stranger}"));
    }
    let number = serde_json::from_slice::<Value>(input).ok().and_then(|update| update["update_id"].as_i64());
    let status = send(shop, path, secret, body.clone()).await;
    let wanted = if number.is_some() { 200 } else { 400 };
    if status != wanted {
        return Err(format!("the update {number:?} is answered {status}"));
    }
    let kept = shop.number(rows).await - before;
    if kept > i64::from(status == 200) {
        return Err(format!("{kept} rows of one update that was answered {status}"));
    }
    if status == 200 && (send(shop, path, secret, body).await != 200 || shop.number(rows).await != before + kept) {
        return Err("an update that came again is another one".into());
    }
    Ok(format!("{}: {status}, {kept} new", if status == 200 { TAKEN } else { "refused" }))
}

/// A press with any data has one answer at least, and orders nothing: no button that orders was ever made for this person.
async fn pressed(shop: &TestShop, path: &str, secret: &str, turn: i64, input: &[u8]) -> Verdict {
    let data = String::from_utf8_lossy(input);
    let person = json!({ "id": 42, "is_bot": false, "language_code": "en" });
    let update = json!({ "update_id": turn, "callback_query": {
        "id": format!("q{turn}"), "from": person, "data": data,
        "message": { "message_id": 1, "date": 0, "chat": { "id": 42, "type": "private" } },
    } });
    let said = shop.chat(42).len();
    if send(shop, path, secret, Bytes::from(update.to_string())).await != 200 {
        return Err("a press is not taken".into());
    }
    shop.run_jobs().await;
    let answers = shop.chat(42).split_off(said);
    if answers.is_empty() {
        return Err(format!("nobody answers {data:?}"));
    }
    if shop.number("select count(*) from orders").await > 0 {
        return Err(format!("{data:?} ordered something"));
    }
    let gone = ["This button does not work any more.", "Эта кнопка больше не действует."];
    let forged = answers.iter().any(|answer| gone.iter().any(|words| answer.starts_with(words)));
    Ok(if forged { "forged".into() } else { format!("{TAKEN}: {}", kind_of(&answers[0])) })
}
