//! The job that sends one message.
//!
//! Reads the message, calls Telegram, and writes what came of it together with the end of the job. A try that certainly
//! sent nothing gives its attempt back, so attempts count only what may have arrived: a second attempt means that nobody
//! knows what became of the first one, be it a lost answer or a dead worker. From there the message's class decides.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use semel_kernel::clock::Time;
use semel_kernel::jobs::{Claim, Ended, Job, JobError, Manner, Outcome, Retry};
use semel_kernel::outbound::{self, Call, Pace};
use semel_telegram::{Bot, File, ParseMode, SendDocument, SendMessage, TEXT_LIMIT, utf16_len};

use super::flows::{self, End, Loaded};
use super::silence;
use super::text::{self, Piece};
use super::verdict::Verdict;
use super::{ALERT, Body, Class, Message, MessageId, State};
use crate::orders::OrderId;
use crate::shop::Lanes;
use crate::{Error, Shop, alerts, orders, safety};

/// Telegram lets a bot send 30 messages a second; evenly spaced ones below that never meet the limit.
const PACE: Pace = Pace { per_second: 28, burst: 1 };
/// How long a message that must not come twice may wait for its one try. Older news is no news.
const PATIENCE_ONCE: Duration = Duration::from_secs(6 * 3600);
/// How long goods and notices about money are tried before a person has to look.
const PATIENCE: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long goods wait for the end of a refund before the next look.
const WHILE_REFUNDING: Duration = Duration::from_secs(60);
/// How long to wait while Telegram does not know the token, or no bot is set up.
const WITHOUT_BOT: Duration = Duration::from_secs(300);
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
        let id = self.message;
        let loaded = match shop.look("message.load", move |tx| Ok(flows::load(tx, &id)?)).await {
            Ok(loaded) => loaded,
            // Nothing was sent, so this try costs nothing.
            Err(Error::Store(error)) if error.is_passing() => {
                let at = shop.now() + shop.chance.jitter(Duration::from_secs(2));
                return Err(JobError::Later { at, text: error.to_string() });
            }
            Err(error) => return Err(error.into()),
        };
        let Some(Loaded { message, goods, refunding, goods_at }) = loaded else {
            return over(shop, claim, Outcome::Confirmed).await;
        };
        let before = message.uncertain.max(claim.attempts() - 1);
        let sending = Sending { shop, claim, before, message, goods_at, refunding };
        match (sending.message.state, sending.message.class) {
            (State::Sent | State::Cancelled, _) => over(shop, sending.claim, Outcome::Confirmed).await,
            (State::Failed, Class::AtMostOnce) => over(shop, sending.claim, Outcome::Failed).await,
            (State::Unknown, Class::AtMostOnce) => over(shop, sending.claim, Outcome::Unknown).await,
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
                sending.run(&goods).await
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
    /// Earlier tries of which nobody told us what became of them.
    before: i64,
    /// When the latest of its goods joined the order: what joins later is not in it.
    goods_at: Time,
    /// Whether money of its order is on its way back right now.
    refunding: bool,
}

impl Sending<'_> {
    async fn run(&self, goods: &[Piece]) -> Result<Ended, JobError> {
        let now = self.shop.now();
        let Some(bot) = &self.shop.bot else {
            return self.not_yet(Some(now + WITHOUT_BOT), "no bot is set up".into()).await;
        };
        // Money and goods must not both be the customer's: the end of the refund decides.
        if self.goods_of().is_some() && self.refunding {
            return self.not_yet(Some(now + WHILE_REFUNDING), "a refund of the order is on its way".into()).await;
        }
        if self.goods_of().is_some() && goods.is_empty() {
            let state = if self.before > 0 { State::Unknown } else { State::Cancelled };
            return self.end(state, Some("the order has no goods to hand over any more".into())).await;
        }
        match self.call(bot, goods).await {
            Verdict::Sent { telegram_id } => self.sent(telegram_id).await,
            Verdict::NotYet { at, text } => self.not_yet(at.map(|at| silence::on_database(self.shop, at)), text).await,
            Verdict::Silence { seconds } => self.silence(bot, seconds).await,
            Verdict::BadToken { text } => self.bad_token(text).await,
            Verdict::Moved { to } if to == self.message.chat_id => {
                self.refused(format!("the chat moved to itself ({to})")).await
            }
            Verdict::Moved { to } => self.moved(to).await,
            Verdict::Refused { text } => self.refused(text).await,
            Verdict::Unclear { text } => self.unclear(text).await,
        }
    }

    async fn call(&self, bot: &Bot, goods: &[Piece]) -> Verdict {
        let mut call = Call::new("telegram.send", host_key(bot), outbound::Manner::Blind);
        call.pace = Some(PACE);
        let request = match outgoing(&self.message, goods) {
            Outgoing::Text(message) => bot.send_message(self.message.id.as_str(), &message),
            Outgoing::File(document) => {
                call.attempt_timeout = Duration::from_secs(30);
                call.deadline = Duration::from_secs(45);
                bot.send_document(self.message.id.as_str(), &document)
            }
        };
        let answer = self.shop.telegram.call(call, request).await;
        Verdict::of(answer.map(|response| bot.sent(&response)))
    }

    /// Writes that Telegram took the message, with what follows from it. What cannot be written now would be sent again,
    /// so this is tried for a while; and trouble with the order is told to the owner instead of sending the goods again
    /// and again.
    async fn sent(&self, telegram_id: i64) -> Result<Ended, JobError> {
        let mut trouble: Option<String> = None;
        let mut pauses = WRITE_PAUSES_MS.into_iter();
        loop {
            let error = match self.write_sent(telegram_id, trouble.clone()).await {
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

    async fn write_sent(&self, telegram_id: i64, trouble: Option<String>) -> Result<Ended, Error> {
        let (id, claim, order) = (self.message.id.clone(), self.claim.clone(), self.goods_of().cloned());
        let goods_at = self.goods_at;
        let end =
            End { state: State::Sent, telegram_id: Some(telegram_id), error: trouble.clone(), uncertain: self.before };
        let write = self.shop.write("message.sent", move |tx, shop| {
            flows::end(tx, &id, &end)?;
            match (&order, &trouble) {
                (Some(order), None) => orders::flows::delivered(tx, shop, order, goods_at)?,
                (Some(order), Some(trouble)) => {
                    let text = format!("The goods of order {order} were sent, but the order stays as it is: {trouble}");
                    alerts::flows::raise(tx, shop, format!("goods-sent:{id}"), text)?;
                }
                (None, _) => {}
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

    /// The whole bot has to be silent. The silence is written in the transaction that puts the message off: whoever sends
    /// next after a death knows both, that this try sent nothing and how long to be silent, or neither.
    async fn silence(&self, bot: &Bot, seconds: u64) -> Result<Ended, JobError> {
        let until = self.shop.telegram.now() + Duration::from_secs(seconds);
        self.shop.telegram.pause_host(&host_key(bot), until);
        let (of, kept) = (bot.id().to_owned(), silence::on_database(self.shop, until));
        let text = format!("Telegram asks for {seconds} s of silence");
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
            Err(error) => {
                tracing::warn!(%error, "could not write that Telegram asks for silence; this process knows it all the same");
            }
        }
        self.not_yet(Some(kept), text).await
    }

    async fn bad_token(&self, text: String) -> Result<Ended, JobError> {
        let raised = self.shop.write("message.token", |tx, shop| {
            // Once a day, for as long as it lasts.
            let key = format!("telegram-token:{}", tx.now().millis().div_euclid(86_400_000));
            let sentence = "Telegram does not know the bot's token any more: no message leaves. \
                Copy it again from BotFather into SEMEL_TELEGRAM_BOT_TOKEN and restart; waiting messages go out then.";
            alerts::flows::raise(tx, shop, key, sentence)
        });
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
    async fn refused(&self, text: String) -> Result<Ended, JobError> {
        let state = if self.before > 0 { State::Unknown } else { State::Failed };
        self.end(state, Some(text)).await
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

    /// No further try by itself. A message that may go twice becomes a dead letter, so that a person can send it again.
    async fn give_up(&self, uncertain: i64, text: String) -> Result<Ended, JobError> {
        let state = if uncertain > 0 { State::Unknown } else { State::Failed };
        let end = End { state, telegram_id: None, error: Some(text.clone()), uncertain };
        if self.message.class == Class::AtMostOnce {
            return self.write_end(end).await;
        }
        let id = self.message.id.clone();
        self.shop.write("message.given_up", move |tx, _| Ok(flows::end(tx, &id, &end)?)).await?;
        Err(JobError::DeadLetter { text, outcome: outcome_of(state) })
    }

    /// Ends the message together with its job.
    async fn end(&self, state: State, error: Option<String>) -> Result<Ended, JobError> {
        let uncertain = if state == State::Unknown { self.before.max(1) } else { self.before };
        self.write_end(End { state, telegram_id: None, error, uncertain }).await
    }

    async fn write_end(&self, end: End) -> Result<Ended, JobError> {
        let (id, claim, order) = (self.message.id.clone(), self.claim.clone(), self.goods_of().cloned());
        let write = self.shop.write("message.end", move |tx, shop| {
            flows::end(tx, &id, &end)?;
            if let Some(order) = order.as_ref().filter(|_| end.state != State::Cancelled) {
                alerts::flows::raise(tx, shop, format!("goods-not-sent:{id}"), undelivered(order, &end))?;
            }
            Ok(claim.finish_as(tx, outcome_of(end.state))?)
        });
        Ok(write.await?)
    }

    /// The order whose goods this message hands over.
    fn goods_of(&self) -> Option<&OrderId> {
        match &self.message.body {
            Body::Goods { order, .. } => Some(order),
            Body::Text { .. } => None,
        }
    }
}

/// What the owner is told about goods that did not arrive.
fn undelivered(order: &OrderId, end: &End) -> String {
    let fate = if end.state == State::Unknown { "may or may not have reached" } else { "did not reach" };
    let why = end.error.as_deref().unwrap_or("no reason was given");
    format!("The goods of order {order} {fate} the customer by Telegram: {why}. They stay readable over the API.")
}

fn outcome_of(state: State) -> Outcome {
    match state {
        State::Unknown => Outcome::Unknown,
        State::Failed => Outcome::Failed,
        State::Queued | State::Sent | State::Cancelled => Outcome::Confirmed,
    }
}

/// Pace, pauses and breaker are the bot's: one token is one sender.
pub(super) fn host_key(bot: &Bot) -> String {
    format!("telegram:{}", bot.id())
}

/// What is sent.
enum Outgoing {
    Text(SendMessage),
    File(SendDocument),
}

/// The same bytes for the same message, however often it is sent.
fn outgoing(message: &Message, goods: &[Piece]) -> Outgoing {
    let html = match &message.body {
        Body::Text { html } => html.clone(),
        Body::Goods { order, language } => {
            let goods = text::goods(*language, order, goods);
            // Counted with its tags: Telegram counts less, so what fits here fits there.
            if utf16_len(&goods.html) > TEXT_LIMIT {
                return Outgoing::File(SendDocument {
                    chat_id: message.chat_id,
                    file: File::Bytes {
                        name: format!("order-{order}.txt"),
                        mime: "text/plain".into(),
                        bytes: goods.plain.into_bytes(),
                    },
                    caption: Some(goods.caption),
                    parse_mode: Some(ParseMode::Html),
                    protect: false,
                });
            }
            goods.html
        }
    };
    let mut text = SendMessage::new(message.chat_id, html);
    text.parse_mode = Some(ParseMode::Html);
    text.disable_preview = true;
    Outgoing::Text(text)
}

#[cfg(test)]
mod tests {
    use semel_kernel::clock::Chance;

    use super::super::Language;
    use super::*;
    use crate::orders::ItemId;

    fn message(body: Body) -> Message {
        let at = Time::from_millis(1_700_000_000_000);
        Message {
            id: MessageId::new(at, &Chance::seeded(1)),
            chat_id: 42,
            class: Class::AtLeastOnce,
            kind: "goods".into(),
            body,
            state: State::Queued,
            uncertain: 0,
            queued_at: at,
        }
    }

    fn goods_message(content: &str) -> (OrderId, Outgoing) {
        let (at, chance) = (Time::from_millis(1_700_000_000_000), Chance::seeded(2));
        let order = OrderId::new(at, &chance);
        let message = message(Body::Goods { order: order.clone(), language: Language::Russian });
        let goods = [(ItemId::new(at, &chance), 1, "Ключ".to_owned(), content.to_owned())];
        (order, outgoing(&message, &goods))
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
    fn a_text_goes_as_it_was_written() {
        let Outgoing::Text(text) = outgoing(&message(Body::Text { html: "<b>5</b>".into() }), &[]) else {
            panic!("a file")
        };
        assert_eq!(text.text, "<b>5</b>");
    }

    #[test]
    fn the_outcome_of_the_job_is_the_fate_of_the_message() {
        assert_eq!(outcome_of(State::Unknown), Outcome::Unknown);
        assert_eq!(outcome_of(State::Failed), Outcome::Failed);
        assert_eq!(outcome_of(State::Sent), Outcome::Confirmed);
    }
}
