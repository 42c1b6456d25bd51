//! The job that sends one message.
//!
//! Reads the message, calls Telegram, and writes what came of it together with the end of the job. A try that certainly
//! sent nothing gives its attempt back, so attempts count only what may have arrived: a second attempt means that nobody
//! knows what became of the first one, be it a lost answer or a dead worker. From there the message's class decides.

use std::pin::Pin;
use std::sync::OnceLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use semel_kernel::clock::Time;
use semel_kernel::jobs::{Claim, Ended, Job, JobError, Manner, Outcome, Retry};
use semel_kernel::outbound::{self, Call, Pace};
use semel_kernel::store::Tx;
use semel_telegram::pacer::Lane;
use semel_telegram::{
    Bot, Button, ENTITY_LIMIT, File, ParseMode, SendDocument, SendInvoice, SendMessage, SendPhoto, TEXT_LIMIT,
    html_tags, utf16_len,
};

use super::fit::{Rest, fit};
use super::flows::{self, End, Loaded};
use super::text::{self, Own, Piece};
use super::verdict::Verdict;
use super::vpn::{self, Rendered};
use super::{
    ALERT, Body, Class, Message, MessageId, NotNow, OfPeer, Quiet, REPLY, State, hands_over, lane_of, silence,
};
use crate::orders::OrderId;
use crate::shop::Lanes;
use crate::{Error, Shop, alerts, customers, orders, safety};

/// A net below the bot's own pace, which keeps lanes and chats apart: Telegram lets a bot send 30 messages a second.
const NET: Pace = Pace { per_second: 30, burst: 1 };
/// How long a message waits for its chat with a worker in its hands. With a longer wait it comes again, so that a chat that
/// gets many keeps no worker from the others.
const PATIENCE_FOR_TURN: Duration = Duration::from_secs(1);
/// How long a message that must not come twice may wait for its one try. Older news is no news.
const PATIENCE_ONCE: Duration = Duration::from_secs(6 * 3600);
/// How long goods and notices about money are tried before a person has to look.
const PATIENCE: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long goods wait for the end of a refund before the next look.
const WHILE_REFUNDING: Duration = Duration::from_secs(60);
/// How long to wait while Telegram does not know the token, or no bot is set up.
const WITHOUT_BOT: Duration = Duration::from_secs(300);
/// How long a message waits for those before it in its chat. Their end calls it; this is for when whoever was to end them died.
const IN_LINE: Duration = Duration::from_secs(30);
/// Waits between tries to write that a message was sent. Giving up means sending it again.
const WRITE_PAUSES_MS: [u64; 6] = [50, 200, 800, 2_000, 5_000, 10_000];

/// Sends one message and writes what became of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct DeliverMessage {
    /// The message.
    pub message: MessageId,
    /// The order whose story it belongs to.
    #[serde(default)]
    pub order: Option<OrderId>,
    /// For the file and the picture of a device: the file of the device after it, which leaves when both have ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<MessageId>,
    /// Whether the files of several devices are handed over together.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub several: bool,
}

/// The place of a message about a device among those that are handed over together.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn {
    /// The file of the next device.
    pub(super) next: Option<MessageId>,
    /// Whether there are files of several devices.
    pub(super) several: bool,
}

impl Job for DeliverMessage {
    type Context = Shop;
    const KIND: &'static str = "message.send";
    const LANE: &'static str = Lanes::MESSAGES;
    const RETRY: Retry = Retry::backoff(Duration::from_secs(2), Duration::from_secs(100), 24);
    const MANNER: Option<Manner> = Some(Manner::Blind);

    fn slot(&self) -> Option<String> {
        Some(self.message.to_string())
    }

    fn thread(&self) -> Option<String> {
        self.order.as_ref().map(|order| order.to_string())
    }

    async fn run(self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        let turn = Turn { next: self.next, several: self.several };
        let id = self.message;
        let bot = shop.bot.as_ref().map(|bot| bot.id().to_owned()).unwrap_or_default();
        let loaded = match shop.look("message.load", move |tx| Ok(flows::load(tx, &id, &bot)?)).await {
            Ok(loaded) => loaded,
            // Nothing was sent, so this try costs nothing.
            Err(Error::Store(error)) if error.is_passing() => {
                let at = shop.now() + shop.chance.jitter(Duration::from_secs(2));
                return Err(JobError::Later { at, text: error.to_string() });
            }
            Err(error) => return Err(error.into()),
        };
        let Some(loaded) = loaded else { return over(shop, claim, Outcome::Confirmed).await };
        let Loaded { message, goods, refunding, unpaid, goods_at, in_line, was_unreachable, own, silent_until } =
            loaded;
        let before = message.uncertain.max(claim.attempts() - 1);
        let order = self.order;
        let sending = Sending {
            shop,
            claim,
            before,
            message,
            order,
            turn,
            goods_at,
            refunding,
            unpaid,
            in_line,
            was_unreachable,
            silent_until,
            refused_words: OnceLock::new(),
        };
        match (sending.message.state, sending.message.class) {
            (State::Sent | State::Cancelled, _) => over(shop, sending.claim, Outcome::Confirmed).await,
            (State::Failed, Class::AtMostOnce) => over(shop, sending.claim, Outcome::Failed).await,
            (State::Unknown, Class::AtMostOnce) => over(shop, sending.claim, Outcome::Unknown).await,
            // Its worker died between the end and the burial. What somebody sends by hand has left the line.
            (State::Failed | State::Unknown, Class::Ordered) => {
                let outcome = outcome_of(sending.message.state);
                Err(JobError::DeadLetter { text: "it had ended, and its place in the chat is gone".into(), outcome })
            }
            (State::Queued, Class::AtMostOnce) if before > 0 => {
                sending.end(State::Unknown, Some("the try before was lost".into())).await
            }
            // A message that may go twice comes here after its end only when somebody asked for it by hand.
            _ => {
                // The owner hears of safe mode while it is on; customers wait.
                if sending.message.kind != ALERT
                    && let Some(ended) = safety::flows::wait(shop, &sending.claim).await?
                {
                    return Ok(ended);
                }
                sending.run(&goods, &own, false).await
            }
        }
    }
}

/// Ends a job that has nothing to do.
async fn over(shop: &Shop, claim: Claim, outcome: Outcome) -> Result<Ended, JobError> {
    let ended = shop.write("message.over", move |tx, _| Ok(claim.finish_as(tx, outcome)?));
    Ok(ended.await?)
}

/// A message in the hands of a worker.
struct Sending<'a> {
    shop: &'a Shop,
    claim: Claim,
    message: Message,
    /// The order whose story it belongs to.
    order: Option<OrderId>,
    turn: Turn,
    /// Earlier tries of which nobody told us what became of them.
    before: i64,
    /// When the latest of its goods joined the order: what joins later is not in it.
    goods_at: Time,
    /// Whether money of its order is on its way back right now.
    refunding: bool,
    /// Whether its order still waits for its money.
    unpaid: bool,
    /// Whether an earlier message to its chat has to end before it begins.
    in_line: bool,
    /// Whether nothing was said to reach its customer.
    was_unreachable: bool,
    /// Until when the bot has to be silent, as far as anybody wrote.
    silent_until: Option<Time>,
    /// What Telegram said to the owner's words around what was bought: then it goes in ours.
    refused_words: OnceLock<String>,
}

/// What follows from a refusal, beside the message's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follows {
    Nothing,
    /// Nothing reaches this person.
    Unreachable,
    /// The owner has to mend words.
    Mend,
}

impl Sending<'_> {
    /// `ours`: in our words, because Telegram has just refused the owner's.
    async fn run(&self, goods: &[Piece], own: &Own, ours: bool) -> Result<Ended, JobError> {
        let now = self.shop.now();
        if self.in_line && self.message.state == State::Queued {
            return self.not_its_turn(IN_LINE, "an earlier message to this chat goes first").await;
        }
        let Some(bot) = &self.shop.bot else {
            return self.not_yet(Some(now + WITHOUT_BOT), "no bot is set up".into()).await;
        };
        // Money and goods must not both be the customer's: the end of the refund decides.
        if hands_over(&self.message.kind) && self.refunding {
            return self.not_yet(Some(now + WHILE_REFUNDING), "a refund of the order is on its way".into()).await;
        }
        let mut is_own = false;
        let outgoing = match &self.message.body {
            Body::Text { html } => plain(&self.message, html.clone()),
            Body::Card { html, buttons } => with_buttons(plain(&self.message, html.clone()), buttons),
            Body::Invoice { .. } if !self.unpaid => {
                return self.nothing_left("the order does not wait for money any more").await;
            }
            Body::Invoice { payment, title, description, stars, .. } => Outgoing::Invoice(SendInvoice {
                chat_id: self.message.chat_id,
                title: title.clone(),
                description: description.clone(),
                payload: payment.to_string(),
                stars: *stars,
            }),
            Body::Goods { .. } if goods.is_empty() => {
                return self.nothing_left("the order has no goods to hand over any more").await;
            }
            Body::Goods { order, language } => {
                is_own = !own.is_empty();
                with_goods(&self.message, order, text::goods(*language, order, goods, own))
            }
            Body::VpnWords { html, .. } => plain(&self.message, html.clone()),
            Body::VpnFile(of) | Body::VpnQr(of) | Body::VpnHowto(of) => {
                match vpn::render(self.shop, &self.message, of, self.turn.several, ours).await {
                    Ok(Rendered::Whole { outgoing, own }) => {
                        is_own = own;
                        outgoing
                    }
                    Ok(Rendered::Closed) => return self.nothing_left("the device has no access any more").await,
                    Ok(Rendered::Needless(why)) => return self.passed_over(why).await,
                    // Nothing was sent. What is wrong with the VPN's keys or the database may be mended, so it waits.
                    Err(error) => return self.not_yet(None, error.to_string()).await,
                }
            }
        };
        let (outgoing, rest) = fit(outgoing);
        if let Some(until) = self.silent_until.filter(|until| *until > now) {
            self.shop.pace().silence(until.since(now));
        }
        let (lane, chat, id) = (lane_of(&self.message.kind), self.message.chat_id, self.message.id.to_string());
        let step = self.shop.rules.notify_speed.map_or(Duration::ZERO, |speed| speed.rest / speed.batch.max(1));
        if lane == Lane::Reminder
            && let Err(NotNow { left }) = self.shop.pace().reminder(chat, step)
        {
            return self.not_its_turn(left, "other reminders go before").await;
        }
        let turn = match self.shop.pace().turn_within(lane, chat, id, PATIENCE_FOR_TURN).await {
            Ok(turn) => turn,
            Err(NotNow { left }) => {
                return self.not_its_turn(left, "its turn at Telegram comes later").await;
            }
        };
        let verdict = self.call(bot, outgoing).await;
        let quiet = turn.done(verdict.heard());
        let unreachable = verdict.is_unreachable();
        match verdict {
            Verdict::Sent { telegram_id } => self.sent(telegram_id, rest).await,
            Verdict::NotYet { at, text } => self.not_yet(at.map(|at| silence::on_database(self.shop, at)), text).await,
            Verdict::Silence { seconds } => self.silence(bot, seconds, quiet).await,
            Verdict::BadToken { text } => self.bad_token(text).await,
            Verdict::Moved { to } if to == self.message.chat_id => {
                self.refused(format!("the chat moved to itself ({to})"), Follows::Nothing).await
            }
            Verdict::Moved { to } => self.moved(to).await,
            Verdict::Gone { text, .. } if unreachable => self.refused(text, Follows::Unreachable).await,
            Verdict::Poison { text } if is_own => {
                // Nobody who paid waits for a word to be mended. It was certainly not sent, so this is no second time.
                let _ = self.refused_words.set(text);
                self.run_in_ours(goods).await
            }
            Verdict::Poison { text } => self.refused(text, Follows::Mend).await,
            Verdict::Gone { text, .. } | Verdict::Refused { text } => self.refused(text, Follows::Nothing).await,
            Verdict::Unclear { text } => self.unclear(text).await,
        }
    }

    fn run_in_ours<'a>(
        &'a self,
        goods: &'a [Piece],
    ) -> Pin<Box<dyn Future<Output = Result<Ended, JobError>> + Send + 'a>> {
        Box::pin(async move { self.run(goods, &Own::default(), true).await })
    }

    async fn call(&self, bot: &Bot, outgoing: Outgoing) -> Verdict {
        let mut call = Call::new("telegram.send", host_key(bot), outbound::Manner::Blind);
        under_pace_of(bot, &mut call);
        if matches!(outgoing, Outgoing::File(_) | Outgoing::Photo(_)) {
            call.attempt_timeout = Duration::from_secs(30);
            call.deadline = Duration::from_secs(45);
        }
        let id = self.message.id.as_str();
        let request = match outgoing {
            Outgoing::Text(message) => bot.send_message(id, &message),
            Outgoing::Invoice(invoice) => bot.send_invoice(id, &invoice),
            Outgoing::File(document) => bot.send_document(id, &document),
            Outgoing::Photo(photo) => bot.send_photo(id, &photo),
        };
        let answer = self.shop.telegram.call(call, request).await;
        Verdict::of(answer.map(|response| bot.sent(&response)))
    }

    /// Writes that Telegram took the message, with what follows from it. What cannot be written now would be sent again,
    /// so this is tried for a while; and trouble with the order is told to the owner instead of sending the goods again
    /// and again.
    async fn sent(&self, telegram_id: i64, rest: Option<Rest>) -> Result<Ended, JobError> {
        let mut trouble: Option<String> = None;
        let mut pauses = WRITE_PAUSES_MS.into_iter();
        loop {
            let error = match self.write_sent(telegram_id, rest.clone(), trouble.clone()).await {
                Ok(ended) => return Ok(ended),
                Err(error) => error,
            };
            let passing = matches!(&error, Error::Store(error) if error.is_passing());
            match pauses.next() {
                Some(pause) if passing => tokio::time::sleep(Duration::from_millis(pause)).await,
                Some(_) if trouble.is_none() => trouble = Some(error.to_string()),
                _ => return Err(JobError::Retry(format!("sent, and could not be written: {error}"))),
            }
        }
    }

    async fn write_sent(&self, telegram_id: i64, rest: Option<Rest>, trouble: Option<String>) -> Result<Ended, Error> {
        let (message, claim, goods_at) = (self.message.clone(), self.claim.clone(), self.goods_at);
        let (turn, order, was_unreachable) = (self.turn.clone(), self.order.clone(), self.was_unreachable);
        let refused_words = self.refused_words.get().cloned();
        let end =
            End { state: State::Sent, telegram_id: Some(telegram_id), error: trouble.clone(), uncertain: self.before };
        let write = self.shop.write("message.sent", move |tx, shop| {
            flows::end(tx, &message, &end)?;
            if was_unreachable {
                customers::flows::reached(tx, message.chat_id)?;
            }
            if let Some(why) = &refused_words {
                tell_of_words(tx, shop, &message.kind, in_ours(&message.kind, why))?;
            }
            match &trouble {
                None => arrived(tx, shop, &message, goods_at)?,
                Some(trouble) => {
                    if let Some(text) = unmoved(&message, trouble) {
                        alerts::flows::raise(tx, shop, format!("goods-sent:{}", message.id), text)?;
                    }
                }
            }
            match &rest {
                Some(rest) => flows::rest(tx, shop, &message, rest, order.as_ref(), &turn)?,
                None if message.kind == REPLY => alerts::flows::replied(tx, shop, &message)?,
                None => flows::vpn_next(tx, shop, &message, &turn)?,
            }
            Ok(claim.finish(tx)?)
        });
        write.await
    }

    /// Whether the message has waited for longer than anybody wants it.
    fn is_too_old(&self) -> bool {
        let patience = if self.message.class == Class::AtMostOnce { PATIENCE_ONCE } else { PATIENCE };
        self.shop.now().since(self.message.queued_at) > patience
    }

    /// Certainly not sent: later, and it costs no attempt. The waits grow with the age of the message.
    async fn not_yet(&self, at: Option<Time>, text: String) -> Result<Ended, JobError> {
        if self.is_too_old() {
            return self.give_up(self.before, text).await;
        }
        let now = self.shop.now();
        let age = now.since(self.message.queued_at);
        let wait = (age / 2).clamp(Duration::from_secs(2), Duration::from_secs(600));
        let at = at.unwrap_or_else(|| now + self.shop.chance.jitter(wait));
        Err(JobError::Later { at, text })
    }

    /// Nothing is wrong: others go before it, and its turn is `left` away.
    async fn not_its_turn(&self, left: Duration, text: &str) -> Result<Ended, JobError> {
        match self.not_yet(Some(self.shop.now() + left), text.to_owned()).await {
            Err(JobError::Later { at, text }) => Err(JobError::NotItsTurn { at, text }),
            other => other,
        }
    }

    /// Its chat has to be left alone, or the whole bot has to be silent: the pace has told which, and for how long. The silence
    /// is written in the transaction that puts the message off: whoever sends next after a death knows both, that this try sent
    /// nothing and how long to be silent, or neither.
    async fn silence(&self, bot: &Bot, seconds: u64, quiet: Option<Quiet>) -> Result<Ended, JobError> {
        let quiet = quiet.unwrap_or(Quiet { left: Duration::from_secs(seconds), whole_bot: true });
        let of = silence::obey(self.shop, bot, self.message.chat_id, quiet);
        let kept = self.shop.now() + quiet.left;
        let whose = if quiet.whole_bot { "of the bot" } else { "in this chat" };
        let text = format!("Telegram asks for {seconds} s of silence {whose}");
        let again = (!self.is_too_old()).then(|| (self.claim.clone(), text.clone()));
        let write = self.shop.write("message.silence", move |tx, _| {
            flows::keep_silence(tx, &of, kept)?;
            Ok(match &again {
                Some((claim, why)) => Some(claim.put_off(tx, kept, why)?),
                None => None,
            })
        });
        match write.await {
            Ok(Some(ended)) => return Ok(ended),
            Ok(None) => {}
            Err(error) => silence::not_kept(&error),
        }
        self.not_yet(Some(kept), text).await
    }

    async fn bad_token(&self, text: String) -> Result<Ended, JobError> {
        let raised = self.shop.write("message.token", flows::token_refused);
        if let Err(error) = raised.await {
            tracing::warn!(%error, "could not write the alert about the bot's token");
        }
        self.not_yet(Some(self.shop.now() + WITHOUT_BOT), text).await
    }

    /// The group lives on under another id: keep it and go again at once.
    async fn moved(&self, to: i64) -> Result<Ended, JobError> {
        let (id, claim, uncertain) = (self.message.id.clone(), self.claim.clone(), self.before);
        let write = self.shop.write("message.moved", move |tx, _| {
            flows::moved(tx, &id, to, uncertain)?;
            let now = tx.now();
            Ok(claim.again(tx, now)?)
        });
        Ok(write.await?)
    }

    /// Refused for good. That does not prove that an earlier try did not arrive.
    async fn refused(&self, text: String, follows: Follows) -> Result<Ended, JobError> {
        let state = if self.before > 0 { State::Unknown } else { State::Failed };
        self.write_end(self.ended(state, Some(text)), follows).await
    }

    /// Perhaps sent.
    async fn unclear(&self, text: String) -> Result<Ended, JobError> {
        let uncertain = self.before + 1;
        if self.message.class == Class::AtMostOnce || self.claim.is_last() {
            return self.give_up(uncertain, text).await;
        }
        let (id, error) = (self.message.id.clone(), text.clone());
        let write = self.shop.write("message.unclear", move |tx, _| Ok(flows::unclear(tx, &id, uncertain, &error)?));
        write.await?;
        Err(JobError::Retry(text))
    }

    /// What it was to hand over is not there any more. That does not prove that an earlier try did not arrive.
    async fn nothing_left(&self, why: &str) -> Result<Ended, JobError> {
        let state = if self.before > 0 { State::Unknown } else { State::Cancelled };
        self.end(state, Some(why.into())).await
    }

    /// This one cannot be, and nobody misses it: the next of its chain goes.
    async fn passed_over(&self, why: &'static str) -> Result<Ended, JobError> {
        let (message, claim, turn) = (self.message.clone(), self.claim.clone(), self.turn.clone());
        let state = if self.before > 0 { State::Unknown } else { State::Cancelled };
        let end = End { state, telegram_id: None, error: Some(why.into()), uncertain: self.before };
        let write = self.shop.write("message.passed_over", move |tx, shop| {
            flows::end(tx, &message, &end)?;
            flows::vpn_next(tx, shop, &message, &turn)?;
            Ok(claim.finish_as(tx, outcome_of(end.state))?)
        });
        Ok(write.await?)
    }

    /// No further try by itself. A message that may go twice becomes a dead letter, so that a person can send it again.
    async fn give_up(&self, uncertain: i64, text: String) -> Result<Ended, JobError> {
        let state = if uncertain > 0 { State::Unknown } else { State::Failed };
        let end = End { state, telegram_id: None, error: Some(text.clone()), uncertain };
        if self.message.class == Class::AtMostOnce {
            return self.write_end(end, Follows::Nothing).await;
        }
        let message = self.message.clone();
        self.shop.write("message.given_up", move |tx, _| Ok(flows::end(tx, &message, &end)?)).await?;
        Err(JobError::DeadLetter { text, outcome: outcome_of(state) })
    }

    /// Ends the message together with its job.
    async fn end(&self, state: State, error: Option<String>) -> Result<Ended, JobError> {
        self.write_end(self.ended(state, error), Follows::Nothing).await
    }

    fn ended(&self, state: State, error: Option<String>) -> End {
        let uncertain = if state == State::Unknown { self.before.max(1) } else { self.before };
        End { state, telegram_id: None, error, uncertain }
    }

    async fn write_end(&self, end: End, follows: Follows) -> Result<Ended, JobError> {
        let (message, claim, turn) = (self.message.clone(), self.claim.clone(), self.turn.clone());
        let write = self.shop.write("message.end", move |tx, shop| {
            flows::end(tx, &message, &end)?;
            if let Some(text) = undelivered(&message, &end) {
                alerts::flows::raise(tx, shop, format!("goods-not-sent:{}", message.id), text)?;
            }
            match follows {
                Follows::Nothing => {}
                Follows::Unreachable => customers::flows::unreachable(tx, &[message.chat_id])?,
                Follows::Mend => {
                    if let Some(text) = refused_words(&message, &end) {
                        tell_of_words(tx, shop, &message.kind, text)?;
                    }
                }
            }
            if let (State::Cancelled, Body::VpnFile(of)) = (end.state, &message.body) {
                flows::vpn_file_called_off(tx, shop, of)?;
            }
            flows::vpn_turn(tx, &message, &turn)?;
            Ok(claim.finish_as(tx, outcome_of(end.state))?)
        });
        Ok(write.await?)
    }
}

/// What follows from it that a message reached the customer. `goods_at` is when the latest of its goods joined the order.
fn arrived(tx: &mut Tx, shop: &Shop, message: &Message, goods_at: Time) -> Result<(), Error> {
    match &message.body {
        Body::Goods { order, .. } => orders::flows::delivered(tx, shop, order, goods_at),
        Body::VpnFile(OfPeer { order: Some(order), .. }) => flows::vpn_files_ended(tx, shop, order).map(|_| ()),
        Body::Text { .. }
        | Body::Card { .. }
        | Body::Invoice { .. }
        | Body::VpnFile(_)
        | Body::VpnQr(_)
        | Body::VpnHowto(_)
        | Body::VpnWords { .. } => Ok(()),
    }
}

/// What a message hands over or asks money for, or that it is the owner's answer, in the owner's words, and what there is besides;
/// nothing for mere words.
fn handed_over(message: &Message) -> Option<(String, &'static str)> {
    if message.kind == REPLY {
        return Some((
            format!("Your answer to customer {}", message.chat_id),
            "Their number in the question leads to the chat with them.",
        ));
    }
    match &message.body {
        Body::Goods { order, .. } => Some((format!("The goods of order {order}"), "They stay readable over the API.")),
        Body::Invoice { order, .. } => Some((format!("The invoice of order {order}"), "Nothing was paid by it.")),
        Body::VpnFile(of) => {
            let order = of.order.as_ref().map(|order| format!(" of order {order}")).unwrap_or_default();
            let what = format!("The VPN file{order} (device {}, {})", of.device, of.peer);
            Some((what, "It stays readable over the API."))
        }
        Body::Text { .. } | Body::Card { .. } | Body::VpnQr(_) | Body::VpnHowto(_) | Body::VpnWords { .. } => None,
    }
}

/// What the owner is told about goods that did not arrive; nothing when there was nothing left to send.
fn undelivered(message: &Message, end: &End) -> Option<String> {
    if end.state == State::Cancelled {
        return None;
    }
    let (what, elsewhere) = handed_over(message)?;
    let fate = if end.state == State::Unknown { "may or may not have reached" } else { "did not reach" };
    let why = end.error.as_deref().unwrap_or("no reason was given");
    Some(format!("{what} {fate} the customer by Telegram: {why}. {elsewhere}"))
}

/// What the owner is told when Telegram refused the words of a message, which it would do in any chat. They are not sent again
/// without their markup: the message has failed, and the words are mended. Nothing for alerts, which nobody could be told about,
/// and for what [`undelivered`] tells of anyway.
fn refused_words(message: &Message, end: &End) -> Option<String> {
    if message.kind == ALERT || handed_over(message).is_some() {
        return None;
    }
    let why = end.error.as_deref().unwrap_or("no reason was given");
    Some(format!(
        "Telegram refuses what messages of the kind {} say: {why}. If the words are your own, mend them: GET /api/v1/notices \
         shows them",
        message.kind
    ))
}

/// Tells the owner of words that Telegram refused: once a day for each kind, for as long as nobody mends them.
fn tell_of_words(tx: &mut Tx, shop: &Shop, kind: &str, text: String) -> Result<(), Error> {
    let day = tx.now().millis().div_euclid(86_400_000);
    alerts::flows::raise(tx, shop, format!("refused-words:{kind}:{day}"), text)
}

/// What the owner is told when Telegram refused their words around what was bought, so that it went in ours.
fn in_ours(kind: &str, why: &str) -> String {
    format!(
        "Telegram refuses your words of the kind {kind}: {why}. What was bought goes in ours until you mend them: GET \
         /api/v1/notices shows them"
    )
}

/// What the owner is told when goods arrived and their order could not be told so.
fn unmoved(message: &Message, trouble: &str) -> Option<String> {
    let (what, _) = handed_over(message)?;
    Some(format!("{what}: sent, but the order stays as it is: {trouble}"))
}

fn outcome_of(state: State) -> Outcome {
    match state {
        State::Unknown => Outcome::Unknown,
        State::Failed => Outcome::Failed,
        State::Queued | State::Sent | State::Cancelled => Outcome::Confirmed,
    }
}

/// Puts a call under the pace, the pauses and the breaker of the bot's messages. A 429 to it is heard of at once, by who called.
pub fn under_pace_of(bot: &Bot, call: &mut Call) {
    call.host_key = host_key(bot);
    call.pace = Some(NET);
    call.own_pauses = true;
}

/// Pace, pauses and breaker are the bot's: one token is one sender.
pub(crate) fn host_key(bot: &Bot) -> String {
    format!("telegram:{}", bot.id())
}

/// What is sent.
pub(super) enum Outgoing {
    /// A text.
    Text(SendMessage),
    /// An invoice in Stars.
    Invoice(SendInvoice),
    /// A file that arrives byte for byte.
    File(SendDocument),
    /// A picture.
    Photo(SendPhoto),
}

/// A text in Telegram's HTML. The same bytes for the same message, however often it is sent.
pub(super) fn plain(message: &Message, html: String) -> Outgoing {
    let mut text = SendMessage::new(message.chat_id, html);
    text.parse_mode = Some(ParseMode::Html);
    text.disable_preview = true;
    Outgoing::Text(text)
}

/// A text with these rows of buttons below it; what is no text stays as it is.
fn with_buttons(outgoing: Outgoing, buttons: &[Vec<Button>]) -> Outgoing {
    match outgoing {
        Outgoing::Text(mut text) => {
            text.buttons = buttons.to_vec();
            Outgoing::Text(text)
        }
        other => other,
    }
}

/// An order's goods: as a text where they fit, else as a file.
fn with_goods(message: &Message, order: &OrderId, goods: text::Goods) -> Outgoing {
    // Counted with its tags: Telegram counts less, so what fits here fits there. Of more marks than it keeps the last ones would
    // be lost, and with them the tap that copies a key.
    if utf16_len(&goods.html) <= TEXT_LIMIT && html_tags(&goods.html) <= ENTITY_LIMIT {
        return plain(message, goods.html);
    }
    Outgoing::File(SendDocument {
        chat_id: message.chat_id,
        file: File::Bytes {
            name: format!("order-{order}.txt"),
            mime: "text/plain".into(),
            bytes: goods.plain.into_bytes(),
        },
        caption: Some(goods.caption),
        parse_mode: Some(ParseMode::Html),
        buttons: Vec::new(),
        protect: false,
    })
}

#[cfg(test)]
mod tests {
    use semel_kernel::clock::Chance;

    use super::super::{GOODS, Language, VPN_FILE};
    use super::*;
    use crate::orders::ItemId;
    use crate::vpn::PeerId;

    const AT: Time = Time::from_millis(1_700_000_000_000);

    fn message(kind: &str, body: Body) -> Message {
        Message {
            id: MessageId::new(AT, &Chance::seeded(1)),
            chat_id: 42,
            class: Class::AtLeastOnce,
            kind: kind.into(),
            body,
            state: State::Queued,
            uncertain: 0,
            queued_at: AT,
            place: 0,
        }
    }

    fn goods_message(content: &str) -> (OrderId, Outgoing) {
        let chance = Chance::seeded(2);
        let (order, language) = (OrderId::new(AT, &chance), Language::Russian);
        let message = message(GOODS, Body::Goods { order: order.clone(), language });
        let goods = [(ItemId::new(AT, &chance), 1, "Ключ".to_owned(), content.to_owned())];
        let outgoing = with_goods(&message, &order, text::goods(language, &order, &goods, &Own::default()));
        (order, outgoing)
    }

    #[test]
    fn goods_that_fit_are_a_text_that_can_be_copied() {
        let (order, sent) = goods_message("KEY-1");
        let Outgoing::Text(text) = sent else { panic!("a file") };
        assert!(text.text.contains("<code>KEY-1</code>") && text.text.contains(order.as_str()));
        assert_eq!((text.chat_id, text.parse_mode), (42, Some(ParseMode::Html)));
        assert!(!text.protect, "Telegram lets nobody copy from a protected message");
    }

    #[test]
    fn goods_too_long_for_a_text_are_a_file_with_every_byte() {
        let content = "к".repeat(TEXT_LIMIT);
        let (order, sent) = goods_message(&content);
        let Outgoing::File(document) = sent else { panic!("a text") };
        let File::Bytes { name, bytes, .. } = document.file else { panic!("no bytes") };
        assert_eq!(name, format!("order-{order}.txt"));
        assert!(String::from_utf8(bytes).expect("text").contains(&content));
        assert!(document.caption.expect("a caption").contains(order.as_str()));
    }

    #[test]
    fn more_pieces_than_telegram_marks_are_a_file() {
        let chance = Chance::seeded(5);
        let (order, item) = (OrderId::new(AT, &chance), ItemId::new(AT, &chance));
        let message = message(GOODS, Body::Goods { order: order.clone(), language: Language::English });
        let of = |count: i64| {
            let pieces: Vec<Piece> =
                (1..=count).map(|n| (item.clone(), n, "Key".to_owned(), format!("K-{n}"))).collect();
            with_goods(&message, &order, text::goods(Language::English, &order, &pieces, &Own::default()))
        };
        assert!(matches!(of(98), Outgoing::Text(_)), "the order, the title and each key");
        assert!(matches!(of(99), Outgoing::File(_)));
    }

    #[test]
    fn a_text_goes_as_it_was_written() {
        let message = message("balance", Body::Text { html: "<b>5</b>".into() });
        let Outgoing::Text(text) = plain(&message, "<b>5</b>".into()) else { panic!("a file") };
        assert_eq!((text.text.as_str(), text.chat_id, text.disable_preview), ("<b>5</b>", 42, true));
    }

    #[test]
    fn a_card_is_its_text_with_its_buttons() {
        let buttons = vec![vec![Button::callback("Back", "b:1")]];
        let card = Body::Card { html: "<b>5</b>".into(), buttons: buttons.clone() };
        let message = message("bot", card);
        let Outgoing::Text(text) = with_buttons(plain(&message, "<b>5</b>".into()), &buttons) else { panic!("a file") };
        assert_eq!((text.text.as_str(), text.buttons), ("<b>5</b>", buttons));
    }

    #[test]
    fn the_owner_hears_of_what_did_not_arrive_and_of_nothing_else() {
        let chance = Chance::seeded(3);
        let (peer, order) = (PeerId::new(AT, &chance), OrderId::new(AT, &chance));
        let of = |order| OfPeer { peer: peer.clone(), device: 2, language: Language::English, order };
        let end = |state| End { state, telegram_id: None, error: Some("blocked".into()), uncertain: 0 };
        let file = message(VPN_FILE, Body::VpnFile(of(Some(order.clone()))));
        let told = undelivered(&file, &end(State::Failed)).expect("an alert");
        assert!(told.contains(order.as_str()) && told.contains("did not reach") && told.contains("device 2"), "{told}");
        assert!(undelivered(&file, &end(State::Unknown)).expect("an alert").contains("may or may not have reached"));
        assert_eq!(undelivered(&file, &end(State::Cancelled)), None, "there was nothing left to send");
        let trial = message(VPN_FILE, Body::VpnFile(of(None)));
        assert!(undelivered(&trial, &end(State::Failed)).expect("an alert").contains(peer.as_str()));
        for words in [Body::VpnQr(of(None)), Body::VpnHowto(of(None)), Body::Text { html: "x".into() }] {
            assert_eq!(undelivered(&message("x", words), &end(State::Failed)), None);
        }
        let goods = message(GOODS, Body::Goods { order: order.clone(), language: Language::English });
        assert!(unmoved(&goods, "locked").expect("an alert").contains(order.as_str()));
    }

    #[test]
    fn words_that_telegram_refuses_are_the_owners_to_mend() {
        let end =
            |error: &str| End { state: State::Failed, telegram_id: None, error: Some(error.to_owned()), uncertain: 0 };
        let words = message("balance", Body::Text { html: "<b>5".into() });
        let told = refused_words(&words, &end("can't parse entities")).expect("an alert");
        assert!(told.contains("balance") && told.contains("can't parse entities"), "{told}");
        let alert = message(ALERT, Body::Text { html: "<b>5".into() });
        assert_eq!(refused_words(&alert, &end("no")), None, "an alert about an alert would have no end");
        let order = OrderId::new(AT, &Chance::seeded(3));
        let goods = message(GOODS, Body::Goods { order, language: Language::English });
        assert_eq!(refused_words(&goods, &end("no")), None, "of goods the owner hears anyway");
    }

    #[test]
    fn the_outcome_of_the_job_is_the_fate_of_the_message() {
        assert_eq!(outcome_of(State::Unknown), Outcome::Unknown);
        assert_eq!(outcome_of(State::Failed), Outcome::Failed);
        assert_eq!(outcome_of(State::Sent), Outcome::Confirmed);
    }
}
