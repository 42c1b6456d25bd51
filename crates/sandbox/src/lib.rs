//! The outside world in a box: YooKassa, Heleket, CrystalPay and the Telegram Bot API as one local server.
//!
//! They speak their real wire formats, with faults on request, and write down the ground truth: what they accepted and what they were
//! answered. Tests and benchmarks run the box inside their own process, `semel demo` brings it along, `semel sandbox` runs it alone.
//!
//! It knows nothing of the program that it stands around: all it shares with it is the wire. It is a fake, so it keeps its own clock,
//! throws its own dice and brings its own HTTP client. Nothing expires by itself, and no money is real. It listens on loopback unless told
//! otherwise, and its control pages ask nobody for a password: do not put it on a public address.
//!
//! | Address | What |
//! |---|---|
//! | `/yookassa/v3`, `/heleket`, `/crystalpay/v3`, `/telegram` | the services, see [`Sandbox::yookassa_url`] and its neighbours |
//! | `/pay/{provider}/{id}` | the page on which a customer pays |
//! | `/chat/{chat_id}` | the chat as the customer sees it, with buttons that can be pressed; below it `/write`, to type |
//! | `/` and `POST /control/{what}` | the board, and the same as JSON |
//! | `/truth` | the ground truth |

mod amount;
mod answer;
mod clock;
mod control;
mod crystalpay;
mod door;
mod faults;
mod heleket;
mod hooks;
mod options;
mod outbox;
mod pages;
mod params;
mod payments;
mod php;
mod telegram;
mod truth;
mod world;
mod yookassa;

use std::io;

use bytes::Bytes;
use tokio::net::TcpListener;

pub use crate::faults::{Fault, FaultId, Target};
pub use crate::options::{
    BOT_TOKEN, ByHand, CRYSTALPAY_LOGIN, CRYSTALPAY_SALT, CRYSTALPAY_SECRET, Delivery, HELEKET_MERCHANT_ID,
    HELEKET_PAYMENT_KEY, HELEKET_PAYOUT_KEY, Options, YOOKASSA_SECRET_KEY, YOOKASSA_SHOP_ID,
};
pub use crate::outbox::{HookId, HookKnobs, HookOutcome, HookState, HookView, Notice};
pub use crate::payments::{PayError, PaymentView, Provider};
pub use crate::telegram::{
    Button, ChatState, CheckoutAnswer, File, Invoice, Message, PressAnswer, StarKnobs, StarPayment, TelegramLimits,
};
pub use crate::truth::{GtHook, GtPay, GtTg, Truth};

use crate::payments::{Move, Payment};
use crate::world::{World, lock};

/// A running box. Clones are handles on the same world; it runs until [`Sandbox::stop`] or the end of the runtime.
#[derive(Clone)]
pub struct Sandbox {
    world: World,
}

/// Starting and addresses.
impl Sandbox {
    /// Starts the server; it accepts when this returns. Call inside a tokio runtime.
    ///
    /// Fails when the address is taken or the truth file cannot be opened.
    pub async fn start(options: Options) -> Result<Sandbox, io::Error> {
        let listener = TcpListener::bind(options.listen).await?;
        clock::hand_in(options.by_hand.clone());
        let base = format!("http://{}", listener.local_addr()?);
        let world = World::new(options, base)?;
        let router = door::router(world.clone());
        world.spawn(door::serve(world.clone(), listener, router));
        Ok(Sandbox { world })
    }

    /// Ends the server, its connections and all webhook retries, and waits until they ended.
    pub async fn stop(self) {
        self.world.stop.cancel();
        self.world.tasks.close();
        self.world.tasks.wait().await;
    }

    /// The server itself: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        self.world.base.clone()
    }

    /// The API base of YooKassa.
    pub fn yookassa_url(&self) -> String {
        self.api_url(Provider::Yookassa)
    }

    /// The API base of Heleket; paths below start with `/v1`.
    pub fn heleket_url(&self) -> String {
        self.api_url(Provider::Heleket)
    }

    /// The API base of CrystalPay.
    pub fn crystalpay_url(&self) -> String {
        self.api_url(Provider::CrystalPay)
    }

    /// The base of the Bot API: calls go to `{base}/bot{token}/{method}`.
    pub fn telegram_url(&self) -> String {
        format!("{}/telegram", self.world.base)
    }

    fn api_url(&self, provider: Provider) -> String {
        format!("{}{}", self.world.base, provider.base_path())
    }

    /// Sets where YooKassa sends its webhooks from now on, as an owner does in the cabinet.
    pub fn set_yookassa_hook_url(&self, url: impl Into<String>) {
        *lock(&self.world.yookassa_hook_url) = Some(url.into());
    }
}

/// The customer's side of payments. Each step changes the provider's object, writes `gt_pay` and puts a webhook into the outbox.
impl Sandbox {
    /// The customer pays what is asked (or what is still missing). A YooKassa payment made without `capture: true` waits for capture;
    /// paying it again captures it.
    pub fn pay(&self, provider: Provider, id: &str) -> Result<PaymentView, PayError> {
        self.world.go(provider, id, Move::Pay(None))
    }

    /// The customer pays this sum, decimal text in the payment's currency. At YooKassa, where no customer can, it stands for an object
    /// whose sum differs from the asked one, as after a partial capture.
    pub fn pay_amount(&self, provider: Provider, id: &str, amount: &str) -> Result<PaymentView, PayError> {
        self.world.pay_amount(provider, id, amount)
    }

    /// The payment is refused: YooKassa `canceled`, Heleket `fail`, CrystalPay `failed`.
    pub fn decline(&self, provider: Provider, id: &str) -> Result<PaymentView, PayError> {
        self.world.go(provider, id, Move::Decline)
    }

    /// The time to pay runs out: YooKassa `canceled`, Heleket `cancel` (or `wrong_amount` if something came), CrystalPay `unavailable`.
    /// At Heleket and CrystalPay the customer may still pay late.
    pub fn expire(&self, provider: Provider, id: &str) -> Result<PaymentView, PayError> {
        self.world.go(provider, id, Move::Expire)
    }

    /// The money is seen and not final: YooKassa `waiting_for_capture`, Heleket `confirm_check`, CrystalPay `processing`.
    pub fn hold(&self, provider: Provider, id: &str) -> Result<PaymentView, PayError> {
        self.world.go(provider, id, Move::Hold)
    }

    /// All payments of a provider, oldest first.
    pub fn payments(&self, provider: Provider) -> Vec<PaymentView> {
        lock(&self.world.payments).of(provider).map(Payment::view).collect()
    }

    /// One payment by the provider's id.
    pub fn payment(&self, provider: Provider, id: &str) -> Option<PaymentView> {
        lock(&self.world.payments).get(provider, id).map(Payment::view)
    }

    /// The newest payment that carries the shop's own id, of whatever provider.
    pub fn find_payment_by_ours(&self, ours: &str) -> Option<PaymentView> {
        self.world.by_ours(ours)
    }
}

/// Webhooks.
impl Sandbox {
    /// Every event so far, oldest first, with its bytes and its state.
    pub fn hooks(&self) -> Vec<HookView> {
        lock(&self.world.hooks).views()
    }

    /// One event, with its bytes and its state.
    pub fn hook(&self, id: HookId) -> Option<HookView> {
        lock(&self.world.hooks).get(id).cloned()
    }

    /// Notes an attempt that somebody else made with the event's bytes, and the status of its answer: part of the ground
    /// truth like an attempt of our own. For whoever has no socket between the box and the shop.
    pub fn told(&self, id: HookId, status: u16) {
        self.world.told(id, status);
    }

    /// Events that nobody acknowledged yet, oldest first.
    pub fn pending_hooks(&self) -> Vec<HookId> {
        lock(&self.world.hooks).pending()
    }

    /// Makes one attempt, whatever the event's state; acknowledged, it is delivered. An unknown id sends nothing.
    pub async fn send_hook(&self, id: HookId) -> HookOutcome {
        self.world.send_hook(id).await
    }

    /// Sends an event once more, as the button in a provider's cabinet does.
    pub async fn resend(&self, id: HookId) -> HookOutcome {
        self.world.send_hook(id).await
    }

    /// Loses an event: no further attempts by itself.
    pub fn drop_hook(&self, id: HookId) {
        self.world.drop_hook(id);
    }

    /// Makes one attempt for each pending event, one after the other, oldest first.
    pub async fn send_all(&self) -> Vec<HookOutcome> {
        let mut outcomes = Vec::new();
        for id in self.pending_hooks() {
            outcomes.push(self.world.send_hook(id).await);
        }
        outcomes
    }

    /// Posts any bytes to where this provider's webhooks go (YooKassa's address, else the newest payment's). Headers given here replace
    /// the genuine ones. Never part of the ground truth: the provider did not say it.
    pub async fn forge(&self, provider: Provider, body: impl Into<Bytes>, headers: &[(&str, &str)]) -> HookOutcome {
        self.world.forge(provider, headers, body.into()).await
    }

    /// Queues an authentic webhook that says the payment is in `state` (the provider's word; at YooKassa also `refund.succeeded`), while
    /// the API goes on saying what is true. The ids of the queued events: none if the provider has no address or the knobs lost it.
    pub fn lie(&self, provider: Provider, id: &str, state: &str) -> Result<Vec<HookId>, PayError> {
        self.world.lie(provider, id, state)
    }

    /// The authentic webhook of a payment in `state` as bytes, without queueing or changing anything. For the state that the payment is
    /// in, sums may differ from the real event's: take that from [`Sandbox::hooks`].
    pub fn notice(&self, provider: Provider, id: &str, state: &str) -> Result<Notice, PayError> {
        self.world.notice_of(provider, id, state)
    }

    /// Sets how webhooks go wrong from now on.
    pub fn set_hook_knobs(&self, knobs: HookKnobs) {
        lock(&self.world.hooks).knobs = knobs;
    }
}

/// Faults of the servers.
impl Sandbox {
    /// Makes calls go wrong: the next `times`, or until it is lifted. The oldest fault that matches a call hits it.
    pub fn fault(&self, target: Target, fault: Fault, times: Option<u32>) -> FaultId {
        lock(&self.world.faults).add(target, fault, times)
    }

    /// Ends one fault.
    pub fn lift_fault(&self, id: FaultId) {
        lock(&self.world.faults).lift(id);
    }

    /// When each silence is over that a [`Fault::TooMany`] has asked for so far: milliseconds of the box's clock.
    pub fn silences(&self) -> Vec<i64> {
        lock(&self.world.faults).silences()
    }

    /// Ends all faults of the servers. The webhook knobs stay.
    pub fn clear_faults(&self) {
        lock(&self.world.faults).clear();
    }
}

/// Telegram.
impl Sandbox {
    /// What stands in a chat, oldest first.
    pub fn chat(&self, chat_id: i64) -> Vec<Message> {
        lock(&self.world.town).messages(chat_id)
    }

    /// The chats that were written to or set, by id.
    pub fn chats(&self) -> Vec<i64> {
        lock(&self.world.town).chats().into_iter().map(|(chat, _, _)| chat).collect()
    }

    /// Sets whether the bot can reach a chat.
    pub fn set_chat_state(&self, chat_id: i64, state: ChatState) {
        lock(&self.world.town).set_state(chat_id, state);
    }

    /// Enforces limits from now on, or none.
    pub fn set_telegram_limits(&self, limits: Option<TelegramLimits>) {
        lock(&self.world.town).limits.rule = limits;
    }
}

/// People and the bot. Each deed becomes an update; its number is the answer.
///
/// A box that sends by itself posts it to the webhook, if there is one. Otherwise it waits to be asked for.
impl Sandbox {
    /// Somebody writes to the bot in the private chat with it.
    pub fn say(&self, chat_id: i64, text: &str) -> i64 {
        self.world.live(|town, now| town.say(chat_id, text, now))
    }

    /// Somebody presses the newest button whose words contain `words`. Nothing if there is none that sends something back.
    pub fn press(&self, chat_id: i64, words: &str) -> Option<i64> {
        let (message_id, data) = lock(&self.world.town).button(chat_id, words)?;
        Some(self.press_data(chat_id, message_id, &data))
    }

    /// Somebody sends what a button would send, whether there is such a button or not.
    pub fn press_data(&self, chat_id: i64, message_id: i64, data: &str) -> i64 {
        self.world.live(|town, now| town.press(chat_id, message_id, data, now))
    }

    /// Somebody presses Pay under the newest invoice in their chat: the bot is asked whether they may, and its yes charges them. Nothing
    /// if there is no invoice.
    pub fn pay_stars(&self, chat_id: i64) -> Option<i64> {
        self.pay_stars_as(chat_id, chat_id)
    }

    /// The same by another person, into whose hands the invoice came.
    pub fn pay_stars_as(&self, payer: i64, chat_id: i64) -> Option<i64> {
        let asked = lock(&self.world.town).pay_stars(payer, chat_id, clock::now_ms());
        self.world.carry();
        asked
    }

    /// What the bot said to people who were about to pay, oldest first.
    pub fn checkout_answers(&self) -> Vec<CheckoutAnswer> {
        lock(&self.world.town).till.answers()
    }

    /// Every charge in Stars, oldest first.
    pub fn star_payments(&self) -> Vec<StarPayment> {
        lock(&self.world.town).till.payments()
    }

    /// Somebody paid Stars to another program that used this bot, at a moment in milliseconds since 1970.
    pub fn sold_elsewhere(&self, payer: i64, stars: i64, at_ms: i64) {
        lock(&self.world.town).sold_elsewhere(payer, stars, at_ms);
    }

    /// Telegram itself gives a charge back, as after a dispute. False when there is none, or it went back before.
    pub fn take_stars_back(&self, charge: &str) -> bool {
        let bot = self.world.options.bot_token.split(':').next().unwrap_or_default();
        let (is_back, changed) = {
            let mut town = lock(&self.world.town);
            (town.take_stars_back(charge, bot, clock::now_ms()), town.till.take_changes())
        };
        for row in changed {
            lock(&self.world.truth).pay(row);
        }
        self.world.carry();
        is_back
    }

    /// Sets how payments in Stars go wrong from now on.
    pub fn set_star_knobs(&self, knobs: StarKnobs) {
        lock(&self.world.town).till.knobs = knobs;
    }

    /// Somebody blocks the bot.
    pub fn block(&self, chat_id: i64) -> i64 {
        self.world.live(|town, now| town.block(chat_id, true, now))
    }

    /// Somebody lets the bot in again.
    pub fn unblock(&self, chat_id: i64) -> i64 {
        self.world.live(|town, now| town.block(chat_id, false, now))
    }

    /// An update of any kind and form comes to the bot: what is forged, garbled, or of a Telegram that is yet to be.
    pub fn send_update(&self, kind: &str, body: serde_json::Value) -> i64 {
        self.world.live(|town, _| town.send_update(kind, body))
    }

    /// The menu of commands that the bot set for a language, or for everybody else (empty): each with what it says.
    pub fn bot_commands(&self, language: &str) -> Vec<(String, String)> {
        lock(&self.world.town).mail.commands(language)
    }

    /// Sets the language that a person's Telegram names: `ru`, `en`. Without one it names none.
    pub fn set_language(&self, person: i64, code: &str) {
        lock(&self.world.town).mail.set_language(person, code);
    }

    /// What the bot answered to presses so far, oldest first.
    pub fn press_answers(&self) -> Vec<PressAnswer> {
        lock(&self.world.town).mail.answers()
    }

    /// How many updates wait to be received.
    pub fn waiting_updates(&self) -> usize {
        lock(&self.world.town).mail.waits()
    }

    /// Every update so far comes once more, also what was confirmed.
    pub fn repeat_updates(&self) {
        lock(&self.world.town).mail.repeat();
    }

    /// The next update's number leaves a gap of so many.
    pub fn skip_updates(&self, numbers: i64) {
        lock(&self.world.town).mail.skip(numbers);
    }

    /// Posts what waits to the bot's webhook, until one is not taken; answers the statuses.
    pub async fn post_updates(&self) -> Vec<Option<u16>> {
        self.world.post_updates().await
    }
}

/// The ground truth.
impl Sandbox {
    /// All tables as they are now.
    pub fn truth(&self) -> Truth {
        lock(&self.world.truth).truth()
    }
}
