//! The pages: what a customer would see at a provider and in Telegram, and a board for the person at the keyboard.
//!
//! Plain HTML without scripts; pages that change by themselves are reloaded by the browser.

use std::fmt::Write as _;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::HeaderValue;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use serde_json::json;

use crate::params::Params;
use crate::payments::{Move, Payment, Provider};
use crate::telegram::{Button, File, Message, Picture};
use crate::world::{World, lock};
use crate::{amount, answer, clock};

pub(crate) fn router() -> Router<World> {
    Router::new()
        .route("/", get(board))
        .route("/pay/{provider}/{id}", get(pay_page).post(pay_act))
        .route("/chat/{chat}", get(chat_page))
        .route("/chat/{chat}/write", get(write_page))
        .route("/chat/{chat}/say", post(say_act))
        .route("/chat/{chat}/press", post(press_act))
        .route("/chat/{chat}/pay", post(pay_stars_act))
        .route("/chat/{chat}/{message}/file", get(chat_file))
        .route("/truth", get(truth))
}

const STYLE: &str = "
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; background: #f3f4f6; color: #1f2430; }
main { max-width: 44rem; margin: 0 auto; padding: 1rem; }
main.narrow { max-width: 26rem; }
section { background: #fff; border: 1px solid #dfe2e8; border-radius: 10px; padding: 1rem; margin: 0 0 1rem; overflow-x: auto; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin-top: 0; }
.sum { font-size: 2rem; font-weight: 600; margin: .3rem 0; }
.quiet { color: #666e7c; font-size: .9rem; } .note { background: #fff4d6; border-color: #e8cf8a; }
button, .button { font: inherit; display: inline-block; padding: .5rem .9rem; margin: .2rem .2rem .2rem 0; border: 1px solid #c4c9d2;
  border-radius: 8px; background: #fff; color: inherit; text-decoration: none; cursor: pointer; }
button.main { display: block; width: 100%; background: #1a6dd6; border-color: #1a6dd6; color: #fff; font-weight: 600; padding: .8rem; }
input, select { font: inherit; padding: .4rem; border: 1px solid #c4c9d2; border-radius: 8px; max-width: 100%; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid #eceef2; vertical-align: top; }
.message { background: #fff; border-radius: 12px; padding: .6rem .9rem; margin: 0 0 .7rem; border: 1px solid #dfe2e8; }
.message.own { background: #e3f1dd; margin-left: 4rem; } form.inline { display: inline; }
.message p { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; } .message img { max-width: 100%; }
code { overflow-wrap: anywhere; }
";

/// Text as HTML text or inside a quoted attribute.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// An address that a page may lead to; everything else (`javascript:`) leads nowhere.
fn link(address: &str) -> String {
    let known = ["http://", "https://", "tg://", "/"].iter().any(|start| address.starts_with(start));
    if known { escape(address) } else { "#".to_owned() }
}

fn page(title: &str, class: &str, reload_seconds: Option<u32>, body: &str) -> Response {
    let reload = match reload_seconds {
        Some(seconds) => format!("<meta http-equiv=\"refresh\" content=\"{seconds}\">"),
        None => String::new(),
    };
    let title = escape(title);
    answer::html(format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">{reload}\
         <title>{title}</title><style>{STYLE}</style></head><body><main class=\"{class}\">{body}</main></body></html>"
    ))
}

/// Adds to a page; writing to a String cannot fail.
macro_rules! add {
    ($out:expr, $($part:tt)*) => {{ let _ = write!($out, $($part)*); }};
}

// ---- paying

async fn pay_page(State(world): State<World>, Path((provider, id)): Path<(String, String)>) -> Response {
    show_payment(&world, &provider, &id, None)
}

fn show_payment(world: &World, provider: &str, id: &str, note: Option<&str>) -> Response {
    let found = provider.parse::<Provider>().and_then(|provider| world.payment(provider, id));
    match found {
        Ok(payment) => page("Payment", "narrow", None, &payment_body(&payment, note)),
        Err(error) => answer::text(404, error.to_string()),
    }
}

fn payment_body(payment: &Payment, note: Option<&str>) -> String {
    let mut out = format!("<h1>{} <span class=\"quiet\">sandbox: no real money</span></h1>", name_of(payment.provider));
    if let Some(note) = note {
        add!(out, "<section class=\"note\">{}</section>", escape(note));
    }
    let print = |minor: i64| format!("{} {}", amount::fixed(minor, payment.scale, 0), escape(&payment.currency));
    add!(out, "<section><div class=\"quiet\">To pay</div><div class=\"sum\">{}</div>", print(payment.asked));
    if let Some(text) = payment.asked_for("description").or(payment.ours.as_deref()) {
        add!(out, "<div>{}</div>", escape(text));
    }
    add!(out, "<div class=\"quiet\">State: <b>{}</b></div>", escape(&payment.status));
    if payment.captured > 0 {
        add!(out, "<div class=\"quiet\">Paid: {}</div>", print(payment.captured));
    }
    if payment.refunded > 0 {
        add!(out, "<div class=\"quiet\">Given back: {}</div>", print(payment.refunded));
    }
    let short = print((payment.asked / 2).max(1));
    let over = print(payment.asked + payment.asked / 2);
    add!(
        out,
        "</section><form method=\"post\"><button class=\"main\" name=\"act\" value=\"pay\">Pay {}</button>\
         <section style=\"margin-top:1rem\"><h2>Or make it interesting</h2>\
         <button name=\"act\" value=\"short\">Pay short: {short}</button>\
         <button name=\"act\" value=\"over\">Pay over: {over}</button>\
         <button name=\"act\" value=\"hold\">Money seen, not final</button>\
         <button name=\"act\" value=\"decline\">Decline</button>\
         <button name=\"act\" value=\"expire\">Let the time run out</button>\
         <button name=\"act\" value=\"resend\">Send the last webhook again</button></section></form><p>",
        print(payment.asked)
    );
    if let Some(chat) = payment.chat() {
        add!(out, "<a class=\"button\" href=\"/chat/{chat}\">The customer's chat</a>");
    }
    if let Some(back) = back_address(payment) {
        add!(out, "<a class=\"button\" href=\"{}\">Back to the shop</a>", link(back));
    }
    out.push_str("<a class=\"button\" href=\"/\">The board</a></p>");
    out
}

fn name_of(provider: Provider) -> &'static str {
    match provider {
        Provider::Yookassa => "YooKassa",
        Provider::Heleket => "Heleket",
        Provider::CrystalPay => "CrystalPay",
    }
}

/// Where the shop wanted the customer to go afterwards.
fn back_address(payment: &Payment) -> Option<&str> {
    let confirmation = payment.request.get("confirmation").and_then(|part| part.get("return_url"));
    let flat = ["url_success", "url_return", "redirect_url"].iter().find_map(|name| payment.request.get(*name));
    confirmation.or(flat).and_then(serde_json::Value::as_str)
}

async fn pay_act(
    State(world): State<World>,
    Path((provider, id)): Path<(String, String)>,
    request: Request,
) -> Response {
    let act = match Params::read(request).await {
        Ok(params) => params.text("act").unwrap_or_default(),
        Err(why) => return answer::text(400, why),
    };
    match act_on(&world, &provider, &id, &act).await {
        Ok(()) => answer::see_other(&format!("/pay/{provider}/{id}")),
        Err(why) => show_payment(&world, &provider, &id, Some(&why)),
    }
}

/// What a button on the pay page does.
pub(crate) async fn act_on(world: &World, provider: &str, id: &str, act: &str) -> Result<(), String> {
    let provider: Provider = provider.parse().map_err(|error: crate::PayError| error.to_string())?;
    let how = match act {
        "pay" => Move::Pay(None),
        "hold" => Move::Hold,
        "decline" | "cancel" => Move::Decline,
        "expire" => Move::Expire,
        "short" | "over" => {
            let asked = world.payment(provider, id).map_err(|error| error.to_string())?.asked;
            Move::Pay(Some(if act == "short" { (asked / 2).max(1) } else { asked + asked / 2 }))
        }
        "resend" => {
            let last = lock(&world.hooks).last_of(provider, id);
            let Some(hook) = last else { return Err("There is no webhook of this payment yet".to_owned()) };
            world.send_hook(hook).await;
            return Ok(());
        }
        other => return Err(format!("There is no act {other:?}")),
    };
    world.go(provider, id, how).map(drop).map_err(|error| error.to_string())
}

// ---- the customer's chat

async fn chat_page(State(world): State<World>, Path(chat): Path<i64>) -> Response {
    let mut out = chat_body(&world, chat);
    if chat > 0 {
        for command in COMMANDS {
            add!(
                out,
                "<form method=\"post\" action=\"/chat/{chat}/say\" class=\"inline\"><button name=\"text\" value=\"{command}\">{command}</button></form>"
            );
        }
        add!(out, "<a class=\"button\" href=\"/chat/{chat}/write\">Write something else</a>");
    }
    page("Chat", "narrow", Some(3), &out)
}

/// What people tell a shop's bot most often.
const COMMANDS: [&str; 5] = ["/start", "/catalog", "/orders", "/balance", "/help"];

/// The same without looking again by itself: that would take away what is being typed.
async fn write_page(State(world): State<World>, Path(chat): Path<i64>) -> Response {
    let mut out = chat_body(&world, chat);
    add!(
        out,
        "<form method=\"post\" action=\"/chat/{chat}/say\"><input name=\"text\" autofocus size=\"30\" \
         placeholder=\"/start, or a text\"> <button>Send</button></form>\
         <a class=\"button\" href=\"/chat/{chat}\">Back to the chat</a>"
    );
    page("Chat", "narrow", None, &out)
}

fn chat_body(world: &World, chat: i64) -> String {
    let (messages, answers, till) = {
        let town = lock(&world.town);
        (town.messages(chat), town.mail.answers(), town.till.answers())
    };
    let mut out = format!("<h1>Chat {chat} <span class=\"quiet\">as the customer sees it</span></h1>");
    if messages.is_empty() {
        out.push_str("<p class=\"quiet\">No message yet. This page looks again by itself.</p>");
    }
    for message in &messages {
        add_message(&mut out, chat, message);
    }
    let refused = till.iter().rev().find(|answer| answer.payer == chat).and_then(|answer| answer.text.as_deref());
    if let Some(text) = refused {
        add!(out, "<section class=\"note\">{}</section>", escape(text));
    }
    let last = answers.iter().rev().find(|answer| answer.chat_id == chat);
    if let Some(text) = last.and_then(|answer| answer.text.as_deref()) {
        add!(out, "<section class=\"note\">{}</section>", escape(text));
    }
    out
}

async fn say_act(State(world): State<World>, Path(chat): Path<i64>, request: Request) -> Response {
    match Params::read(request).await {
        Ok(params) => {
            if let Some(text) = params.filled("text") {
                world.live(|town, now| town.say(chat, &text, now));
            }
            answer::see_other(&format!("/chat/{chat}"))
        }
        Err(why) => answer::text(400, why),
    }
}

async fn press_act(State(world): State<World>, Path(chat): Path<i64>, request: Request) -> Response {
    match Params::read(request).await {
        Ok(params) => {
            let message = params.int("message").unwrap_or_default();
            if let Some(data) = params.filled("data") {
                world.live(|town, now| town.press(chat, message, &data, now));
            }
            answer::see_other(&format!("/chat/{chat}"))
        }
        Err(why) => answer::text(400, why),
    }
}

/// Presses Pay under the newest invoice of the chat.
async fn pay_stars_act(State(world): State<World>, Path(chat): Path<i64>) -> Response {
    let asked = lock(&world.town).pay_stars(chat, chat, clock::now_ms());
    world.carry();
    match asked {
        Some(_) => answer::see_other(&format!("/chat/{chat}")),
        None => answer::text(404, "There is no invoice in this chat"),
    }
}

fn add_message(out: &mut String, chat: i64, message: &Message) {
    let class = if message.own { "message own" } else { "message" };
    add!(out, "<div class=\"{class}\" id=\"m{}\">", message.id);
    if message.photo.is_some() {
        add!(out, "<img alt=\"photo\" src=\"/chat/{chat}/{}/file\">", message.id);
    }
    add!(out, "<p>{}</p>", escape(&message.text));
    for file in [&message.document, &message.photo].into_iter().flatten() {
        let name = escape(&file.name);
        add!(
            out,
            "<a class=\"button\" download href=\"/chat/{chat}/{}/file\">{name} ({} bytes)</a>",
            message.id,
            file.bytes.len()
        );
    }
    if let Some(invoice) = &message.invoice {
        add!(
            out,
            "<form method=\"post\" action=\"/chat/{chat}/pay\"><button class=\"main\">Pay {} ⭐</button></form>",
            invoice.stars
        );
    }
    for button in &message.buttons {
        add_button(out, chat, message.id, button);
    }
    let edited = if message.edited_at.is_some() { ", edited" } else { "" };
    add!(out, "<div class=\"quiet\">{}{edited}</div></div>", clock::utc(message.at));
}

fn add_button(out: &mut String, chat: i64, message: i64, button: &Button) {
    let text = escape(&button.text);
    match (&button.url, &button.callback_data) {
        (Some(url), _) => add!(out, "<a class=\"button\" href=\"{}\">{text}</a>", link(url)),
        (None, Some(data)) => add!(
            out,
            "<form method=\"post\" action=\"/chat/{chat}/press\" class=\"inline\">\
             <input type=\"hidden\" name=\"message\" value=\"{message}\">\
             <button name=\"data\" value=\"{}\">{text}</button></form>",
            escape(data)
        ),
        (None, None) => add!(out, "<span class=\"button quiet\">{text}</span>"),
    }
}

/// The document of a message as a download, or its photo as the page shows it.
async fn chat_file(State(world): State<World>, Path((chat, message)): Path<(i64, i64)>) -> Response {
    let found = lock(&world.town).messages(chat).into_iter().find(|known| known.id == message);
    match found.map(|message| (message.document, message.photo)) {
        Some((Some(file), _)) => file_answer(file, "application/octet-stream", "attachment"),
        Some((None, Some(file))) => match Picture::read(&file.bytes) {
            Some(picture) => file_answer(file, picture.mime, "inline"),
            None => file_answer(file, "application/octet-stream", "attachment"),
        },
        _ => answer::text(404, "No such file"),
    }
}

fn file_answer(file: File, mime: &'static str, disposition: &str) -> Response {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() || ".-_".contains(letter) { letter } else { '_' };
    let name: String = file.name.chars().map(plain).collect();
    let mut response = answer::json_bytes(200, file.bytes);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(mime));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(value) = HeaderValue::from_str(&format!("{disposition}; filename=\"{name}\"")) {
        headers.insert(CONTENT_DISPOSITION, value);
    }
    response
}

// ---- the board

async fn truth(State(world): State<World>) -> Response {
    let truth = lock(&world.truth).truth();
    answer::json(200, &json!(truth))
}

async fn board(State(world): State<World>) -> Response {
    let mut out = String::from(
        "<h1>The outside world in a box</h1><p class=\"quiet\">Payment providers and Telegram as local servers. \
         No real money moves here. <a href=\"/\">Look again</a> · <a href=\"/truth\">ground truth</a></p>",
    );
    add_payments(&mut out, &world);
    add_chats(&mut out, &world);
    add_hooks(&mut out, &world);
    add_faults(&mut out, &world);
    page("Sandbox", "", None, &out)
}

fn add_payments(out: &mut String, world: &World) {
    out.push_str(
        "<section><h2>Payments</h2><table><tr><th>Provider</th><th>Ours</th><th>Sum</th><th>State</th><th></th></tr>",
    );
    let register = lock(&world.payments);
    for payment in register.newest().take(50) {
        let view = payment.view();
        add!(
            out,
            "<tr><td>{}</td><td><code>{}</code></td><td>{} {}</td><td>{}</td><td><a href=\"/pay/{}/{}\">pay page</a></td></tr>",
            name_of(view.provider),
            escape(view.ours.as_deref().unwrap_or(&view.id)),
            view.amount,
            escape(&view.currency),
            escape(&view.status),
            view.provider,
            escape(&view.id)
        );
    }
    out.push_str("</table></section>");
}

fn add_chats(out: &mut String, world: &World) {
    out.push_str("<section><h2>Chats</h2>");
    let chats = lock(&world.town).chats();
    if chats.is_empty() {
        out.push_str("<p class=\"quiet\">Nobody was written to yet.</p>");
    }
    for (chat, messages, state) in chats {
        add!(out, "<a class=\"button\" href=\"/chat/{chat}\">{chat}: {messages} messages, {state:?}</a>");
    }
    out.push_str(
        "<form method=\"post\" action=\"/control/chat\"><input name=\"chat_id\" placeholder=\"chat id\" size=\"12\"> \
         <select name=\"state\"><option>blocked</option><option>deactivated</option><option>kicked</option>\
         <option>not_found</option><option>open</option></select> <button>Set</button></form></section>",
    );
}

fn add_hooks(out: &mut String, world: &World) {
    out.push_str("<section><h2>Webhooks</h2><table><tr><th>Event</th><th>State</th><th>Attempts</th><th></th></tr>");
    for hook in lock(&world.hooks).views().iter().rev().take(30) {
        let status = hook.last_status.map_or("no answer".to_owned(), |status| status.to_string());
        add!(
            out,
            "<tr><td><code>{}</code></td><td>{:?}</td><td>{} ({status})</td><td>\
             <form method=\"post\" action=\"/control/hooks\"><input type=\"hidden\" name=\"id\" value=\"{}\">\
             <button name=\"act\" value=\"resend\">send</button></form></td></tr>",
            escape(&hook.event_id),
            hook.state,
            hook.attempts,
            hook.id.0
        );
    }
    out.push_str(
        "</table><form method=\"post\" action=\"/control/hooks\"><button name=\"act\" value=\"send_all\">Send all pending</button>\
         </form></section>",
    );
}

fn add_faults(out: &mut String, world: &World) {
    out.push_str("<section><h2>Faults</h2>");
    for (_, line) in lock(&world.faults).describe() {
        add!(out, "<p><code>{}</code></p>", escape(&line));
    }
    out.push_str(
        "<form method=\"post\" action=\"/control/fault\"><select name=\"target\"><option>yookassa</option><option>heleket</option>\
         <option>crystalpay</option><option>telegram</option></select> \
         <input name=\"what\" placeholder=\"POST /payments or sendMessage\"> \
         <select name=\"fault\"><option>status</option><option>status_after</option><option>too_many</option><option>garbage</option>\
         <option>page</option><option>not_ok</option>\
         <option>cut_before</option><option>cut_after</option><option>delay</option></select> \
         <input name=\"value\" placeholder=\"status, seconds or ms\" size=\"18\"> \
         <input name=\"times\" placeholder=\"times (empty: always)\" size=\"18\"> <button>Add</button></form>\
         <form method=\"post\" action=\"/control/clear\"><button>Lift all</button></form>\
         <form method=\"post\" action=\"/control/limits\"><button name=\"on\" value=\"true\">Telegram limits on</button>\
         <button name=\"on\" value=\"false\">off</button></form></section>",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_become_markup() {
        assert_eq!(escape("<a href='x'>&\"</a>"), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;&lt;/a&gt;");
        assert_eq!(link("javascript:alert(1)"), "#");
        assert_eq!(link("https://a/?x=1&y=2"), "https://a/?x=1&amp;y=2");
    }
}
