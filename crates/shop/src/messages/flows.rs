//! Writing messages, and writing what became of them.

use std::time::Duration;

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::ids::least_id;
use semel_kernel::jobs::{self, Job, JobId};
use semel_kernel::retention::{Piece, Span};
use semel_kernel::store::{Expect, Row, StoreError, Tx};
use semel_money::Amount;

use super::fit::Rest;
use super::send::Turn;
use super::text::{self, Own};
use super::{
    ALERT, Body, Class, DeliverMessage, GOODS, Language, Message, MessageId, MessageView, New, OfPeer, State, VPN_FILE,
    VPN_HOWTO, VPN_QR, WORDS, WORDS_OF_CUSTOMER, sql,
};
use crate::bot::ANSWER;
use crate::customers::Customer;
use crate::orders::{self, Order, OrderId};
use crate::vpn::PeerId;
use crate::{Error, Shop, alerts, subscriptions};

/// How much later than the one before it the file of a device leaves, where the end of the one before does not call it. That
/// one may be held up for long, and then nobody waits for it.
const TURN: Duration = Duration::from_secs(60);

/// Writes a message and the job that sends it, unless one of its key is there. Without a bot nothing is written.
///
/// The message leaves after the commit. Where a message of this key was there, the job finds no row and ends.
pub fn queue(tx: &mut Tx, shop: &Shop, new: New<'_>) -> Result<(), Error> {
    let now = tx.now();
    write(tx, shop, new, now, Turn::default()).map(|_| ())
}

/// The same for a message that leaves at `at` and has its turn among others. Its id; none without a bot.
fn write(tx: &mut Tx, shop: &Shop, new: New<'_>, at: Time, turn: Turn) -> Result<Option<MessageId>, Error> {
    if shop.bot.is_none() {
        return Ok(None);
    }
    let spot = match new.class {
        Class::Ordered => line_up(tx, new.chat_id)?,
        Class::AtLeastOnce | Class::AtMostOnce => Spot { place: 0, queued_at: tx.now() },
    };
    write_at(tx, shop, new, at, turn, spot).map(Some)
}

/// Whether a message of this key is there.
pub(crate) fn is_written(tx: &mut Tx, dedup_key: &str) -> Result<bool, StoreError> {
    Ok(tx.first(sql::WRITTEN, args![dedup_key])?.is_some())
}

/// The key of the alert that has this number in the chat `chat_id`.
pub(crate) fn key_of_alert(tx: &mut Tx, chat_id: i64, telegram_id: i64) -> Result<Option<String>, StoreError> {
    tx.first(sql::KEY_OF_ALERT, args![chat_id, telegram_id])?.map(|row| row.get(0)).transpose()
}

/// Forgets what the bot and its owner answered, and what customers wrote to the owner, before `before`: of the next `most` messages at
/// most. Such a message is written in the transaction that ends its update, so its key guards nothing that could come again. What was bought, what
/// is about money, and everything whose fate nobody told stays.
pub(crate) fn forget_answers(tx: &mut Tx, before: Time, most: i64) -> Result<Piece, StoreError> {
    let Some(span) = Span::next(tx, "retention.messages", sql::OLD, &least_id("msg", before), most)? else {
        return Ok(Piece { changed: 0, more: false });
    };
    let of_customers = format!("alert:{WORDS_OF_CUSTOMER}%");
    let changed = tx.execute(sql::FORGET_ANSWERS, args![&span.after, &span.last, ANSWER, ALERT, of_customers])?;
    span.reached(tx)?;
    Ok(Piece { changed, more: span.more })
}

/// Where a message stands in the line of its chat.
struct Spot {
    place: i64,
    queued_at: Time,
}

/// Takes the next place in the line of a chat. Whoever takes one after this waits until this transaction is over, so no message
/// can be looked at before those that stand in front of it can be seen.
fn line_up(tx: &mut Tx, chat_id: i64) -> Result<Spot, StoreError> {
    let now = tx.now();
    let row = tx.one(sql::LINE_UP, args![chat_id, now])?;
    Ok(Spot { place: row.get(0)?, queued_at: row.get(1)? })
}

fn write_at(tx: &mut Tx, shop: &Shop, new: New<'_>, at: Time, turn: Turn, spot: Spot) -> Result<MessageId, Error> {
    let id = MessageId::new(tx.now(), &shop.chance);
    let body = serde_json::to_string(&new.body).map_err(|error| StoreError::Statement(error.to_string()))?;
    let order = new.order.map(OrderId::as_str);
    tx.later(
        sql::INSERT,
        args![&id, new.dedup_key, new.chat_id, new.class.as_str(), new.kind, body, order, spot.queued_at, spot.place],
        Expect::Any,
    )?;
    let Turn { next, several } = turn;
    let job = DeliverMessage { message: id.clone(), order: new.order.cloned(), next, several };
    jobs::enqueue(tx, &job, at, &shop.chance)?;
    Ok(id)
}

/// Queues the message with all goods of `order`. `part` tells the messages of one order's deliveries apart.
pub fn goods(tx: &mut Tx, shop: &Shop, order: &Order, customer: &Customer, part: &str) -> Result<(), Error> {
    queue(
        tx,
        shop,
        New {
            dedup_key: format!("goods:{}:{part}", order.id),
            chat_id: customer.telegram_id,
            class: Class::AtLeastOnce,
            kind: GOODS,
            body: Body::Goods { order: order.id.clone(), language: Language::of(customer.language.as_deref()) },
            order: Some(&order.id),
        },
    )
}

/// The file of one device that is to be sent.
#[derive(Clone, Debug)]
pub struct DeviceFile {
    /// Its peer.
    pub peer: PeerId,
    /// Which of the subscription's devices, counted from one.
    pub device: i64,
    /// Tells the times apart at which one peer's file is sent: two with equal parts are one.
    pub part: String,
}

/// Queues the files of devices that are handed over together, in this order: each file, then its QR picture, then the next
/// device; and after the last picture one how-to for all. A device whose file is held up lets the next one go after a while.
///
/// When all files of `order` were sent, what is on its way of its VPN lines counts as delivered. For a peer that is not wanted
/// on its server any more when its turn comes nothing is sent.
pub fn vpn_files(
    tx: &mut Tx,
    shop: &Shop,
    customer: &Customer,
    order: Option<&OrderId>,
    files: &[DeviceFile],
) -> Result<(), Error> {
    let language = Language::of(customer.language.as_deref());
    let (now, several) = (tx.now(), files.len() > 1);
    let mut next = None;
    // From the last to the first: each has to know the one after it.
    for (place, file) in files.iter().enumerate().rev() {
        let at = now + TURN * u32::try_from(place).unwrap_or(u32::MAX);
        let DeviceFile { peer, device, part } = file;
        let of = OfPeer { peer: peer.clone(), device: *device, language, order: order.cloned() };
        let new = New {
            dedup_key: format!("{VPN_FILE}:{peer}:{part}"),
            chat_id: customer.telegram_id,
            class: Class::AtLeastOnce,
            kind: VPN_FILE,
            body: Body::VpnFile(of),
            order,
        };
        next = write(tx, shop, new, at, Turn { next, several })?;
    }
    Ok(())
}

/// Queues what comes after a message about a device: the picture after the file, and after the picture the next device's file,
/// or after the last one the how-to. Nothing after any other. Belongs into the transaction that ends the message, so that the
/// chain neither breaks nor doubles.
pub(super) fn vpn_next(tx: &mut Tx, shop: &Shop, message: &Message, turn: &Turn) -> Result<(), Error> {
    let (kind, of, body) = match with_words(&message.body) {
        Body::VpnFile(of) => (VPN_QR, of, Body::VpnQr(of.clone())),
        Body::VpnQr(_) if turn.next.is_some() => return vpn_turn(tx, message, turn),
        Body::VpnQr(of) => (VPN_HOWTO, of, Body::VpnHowto(of.clone())),
        Body::Text { .. }
        | Body::Card { .. }
        | Body::Invoice { .. }
        | Body::Goods { .. }
        | Body::VpnHowto(_)
        | Body::VpnWords { .. } => {
            return Ok(());
        }
    };
    let new = New {
        dedup_key: format!("{kind}:{}", message.id),
        chat_id: message.chat_id,
        class: Class::AtLeastOnce,
        kind,
        body,
        order: of.order.as_ref(),
    };
    let now = tx.now();
    write(tx, shop, new, now, turn.clone()).map(|_| ())
}

/// The message about a device that these words belong to; any other message is its own.
fn with_words(body: &Body) -> &Body {
    match body {
        Body::VpnWords { after, .. } => after,
        other => other,
    }
}

/// Queues what did not fit into a message: it keeps the message's class, and its place if it has to go in order. What comes
/// after a message about a device waits for it. Belongs into the transaction that ends the message as sent, so that no part is
/// lost and none comes twice; the rest of what may not have arrived is not sent.
pub(super) fn rest(
    tx: &mut Tx,
    shop: &Shop,
    message: &Message,
    rest: &Rest,
    order: Option<&OrderId>,
    turn: &Turn,
) -> Result<(), Error> {
    let Rest { html, buttons } = rest.clone();
    let (kind, body, turn) = match &message.body {
        Body::VpnFile(_) | Body::VpnQr(_) => {
            (WORDS, Body::VpnWords { html, after: Box::new(message.body.clone()) }, turn.clone())
        }
        Body::VpnWords { after, .. } => (WORDS, Body::VpnWords { html, after: after.clone() }, turn.clone()),
        Body::Goods { .. } => (WORDS, Body::Text { html }, Turn::default()),
        Body::Text { .. } | Body::Card { .. } | Body::Invoice { .. } | Body::VpnHowto(_) => {
            let body = if buttons.is_empty() { Body::Text { html } } else { Body::Card { html, buttons } };
            (message.kind.as_str(), body, Turn::default())
        }
    };
    let (dedup_key, chat_id, class) = (format!("rest:{}", message.id), message.chat_id, message.class);
    let new = New { dedup_key, chat_id, class, kind, body, order };
    let (now, spot) = (tx.now(), Spot { place: message.place, queued_at: message.queued_at });
    write_at(tx, shop, new, now, turn, spot).map(|_| ())
}

/// Calls the file of the next device, when this device's messages have ended.
pub(super) fn vpn_turn(tx: &mut Tx, message: &Message, turn: &Turn) -> Result<(), Error> {
    if let (Body::VpnFile(_) | Body::VpnQr(_), Some(next)) = (with_words(&message.body), &turn.next) {
        jobs::pull_later(tx, DeliverMessage::KIND, DeliverMessage::LANE, next.as_str())?;
    }
    Ok(())
}

/// Settles what is on its way of the VPN lines of `order`, once none of its files is still to come: it is delivered when there
/// was a file, and waits to be handed over again when all of them were called off. True in the latter case. Whoever writes the
/// end of such a message calls this in the same transaction.
pub(super) fn vpn_files_ended(tx: &mut Tx, shop: &Shop, order: &OrderId) -> Result<bool, Error> {
    // Two files may end at once: with the order's row held, the second one sees that the first has ended.
    orders::flows::lock(tx, order)?;
    let row = tx.one(sql::FILES_OF_ORDER, args![order])?;
    let (sent, to_come): (i64, i64) = (row.get(0)?, row.get(1)?);
    match (sent, to_come) {
        (0, 0) => orders::flows::recall_vpn(tx, shop, order),
        (_, 0) => orders::flows::delivered_vpn(tx, shop, order).map(|()| false),
        _ => Ok(false),
    }
}

/// Follows from it that a device's file was called off and certainly did not arrive: it comes again when the device has
/// access again.
pub(super) fn vpn_file_called_off(tx: &mut Tx, shop: &Shop, of: &OfPeer) -> Result<(), Error> {
    // The order's row comes before the peer's.
    let order_waits = match &of.order {
        Some(order) => vpn_files_ended(tx, shop, order)?,
        None => false,
    };
    subscriptions::flows::not_given(tx, shop, &of.peer, !order_waits)
}

/// Tells a customer something about a subscription, once for each `dedup_key`, which names the subscription, the kind and the
/// period. `kind` is the word in rows, `html` a text of `text::subscription`. Each chat gets these in order: "paused" after "goes
/// on" would be a lie.
pub fn notice(
    tx: &mut Tx,
    shop: &Shop,
    customer: &Customer,
    kind: &'static str,
    dedup_key: String,
    html: String,
) -> Result<(), Error> {
    let (chat_id, class, body) = (customer.telegram_id, Class::Ordered, Body::Text { html });
    queue(tx, shop, New { dedup_key, chat_id, class, kind, body, order: None })
}

/// Tells a referrer about the reward for `order`. Names nothing of the buyer.
pub fn notify_reward(
    tx: &mut Tx,
    shop: &Shop,
    referrer: &Customer,
    amount: Amount,
    order: &OrderId,
) -> Result<(), Error> {
    let Some(html) = text::reward_for(tx, referrer, amount, order)? else { return Ok(()) };
    notify(tx, shop, referrer, "reward", format!("reward:{order}"), html, Some(order))
}

/// Tells a customer that money went to the balance. `reason` is the ledger's word (`late`, `short`, `surplus`, …), `key`
/// its business key; the key's last part is shown, so that a message that came twice is seen to be one.
pub fn notify_balance(
    tx: &mut Tx,
    shop: &Shop,
    customer: &Customer,
    amount: Amount,
    reason: &str,
    key: &str,
) -> Result<(), Error> {
    let Some(html) = text::balance_for(tx, customer, amount, reason, key)? else { return Ok(()) };
    notify(tx, shop, customer, "balance", format!("balance:{reason}:{key}"), html, None)
}

/// Tells a customer about a refund, once for each `refund`, which is its id; `target` is `balance` or `provider`.
pub fn notify_refund(
    tx: &mut Tx,
    shop: &Shop,
    customer: &Customer,
    order: &OrderId,
    refund: &str,
    amount: Amount,
    target: &str,
) -> Result<(), Error> {
    let Some(html) = text::refund_for(tx, customer, amount, order, target)? else { return Ok(()) };
    notify(tx, shop, customer, "refund", format!("refund:{refund}"), html, Some(order))
}

fn notify(
    tx: &mut Tx,
    shop: &Shop,
    customer: &Customer,
    kind: &str,
    dedup_key: String,
    html: String,
    order: Option<&OrderId>,
) -> Result<(), Error> {
    let body = Body::Text { html };
    queue(tx, shop, New { dedup_key, chat_id: customer.telegram_id, class: Class::AtLeastOnce, kind, body, order })
}

/// Whether a customer may hold goods of `order`: false only when every message with them certainly did not arrive and
/// will not. A unit that may have been seen must not be sold again.
pub fn goods_may_be_seen(tx: &mut Tx, order: &OrderId) -> Result<bool, Error> {
    Ok(tx.first(sql::MAY_BE_SEEN, args![order])?.is_some())
}

/// Messages, the newest first: those before `before`, and only those of this state and kind. Recipients of campaigns are not
/// among them: they stand with their campaign.
///
/// # Errors
/// The database did not answer.
pub fn list(
    tx: &mut Tx,
    before: Option<&MessageId>,
    state: Option<State>,
    kind: Option<&str>,
    limit: i64,
) -> Result<Vec<MessageView>, Error> {
    let before = before.map_or("msg_z", MessageId::as_str);
    let rows = match state {
        None => tx.rows(sql::LIST, args![before, limit, kind])?,
        Some(State::Sent) => tx.rows(sql::LIST_SENT, args![before, limit, kind])?,
        Some(state) => tx.rows(sql::LIST_ASIDE, args![before, limit, kind, state.as_str()])?,
    };
    Ok(rows.iter().map(view_of).collect::<Result<_, _>>()?)
}

/// Messages with a try of which nobody told us what became of it, the newest first: those before `before` if given.
pub fn uncertain(tx: &mut Tx, before: Option<Time>, limit: i64) -> Result<Vec<MessageView>, Error> {
    let rows = tx.rows(sql::UNCERTAIN, args![before, limit])?;
    Ok(rows.iter().map(view_of).collect::<Result<_, _>>()?)
}

/// An order's messages, the oldest first.
pub fn of_order(tx: &mut Tx, order: &OrderId, limit: i64) -> Result<Vec<MessageView>, Error> {
    let rows = tx.rows(sql::OF_ORDER, args![order, limit])?;
    Ok(rows.iter().map(view_of).collect::<Result<_, _>>()?)
}

/// Ends the message of a job that became a dead letter without ending it: its worker died in the last try. Belongs into
/// the transaction that buries the job; changes nothing for jobs of other kinds.
pub fn buried(tx: &mut Tx, job: &JobId, error: &str) -> Result<(), StoreError> {
    let now = tx.now();
    tx.later(sql::BURY, args![job, error, now], Expect::Any)
}

/// Keeps counting the uncertain tries of a message whose job somebody makes due by hand: with fresh attempts the job would
/// know nothing of them. Belongs before that, into its transaction; changes nothing for jobs of other kinds.
pub fn retried(tx: &mut Tx, job: &JobId) -> Result<(), StoreError> {
    tx.execute(sql::RETRIED, args![job])?;
    tx.execute(sql::OUT_OF_LINE, args![job]).map(|_| ())
}

/// Ends as unknown every message that goes at most once and that a backup still had to send. What may go twice stays, and is
/// sent with the same content. Answers how many there were.
pub fn forget_queued(tx: &mut Tx) -> Result<u64, StoreError> {
    let now = tx.now();
    tx.execute(sql::FORGET_QUEUED, args![now])
}

/// Writes that the bot `bot` has to be silent until `until`, and forgets silences that are over.
pub(crate) fn keep_silence(tx: &mut Tx, bot: &str, until: Time) -> Result<(), StoreError> {
    let now = tx.now();
    tx.later(sql::FORGET_SILENCES, args![now], Expect::Any)?;
    tx.later(sql::KEEP_SILENCE, args![silence_of(bot), until.millis().to_string()], Expect::Any)
}

/// Tells the owner that Telegram does not know the bot's token: once a day, for as long as it lasts.
pub(crate) fn token_refused(tx: &mut Tx, shop: &Shop) -> Result<(), Error> {
    let key = format!("telegram-token:{}", tx.now().millis().div_euclid(86_400_000));
    let sentence = "Telegram does not know the bot's token any more: no message leaves. \
        Copy it again from BotFather into SEMEL_TELEGRAM_BOT_TOKEN and restart; waiting messages go out then.";
    alerts::flows::raise(tx, shop, key, sentence)
}

/// Until when the bot `bot` has to be silent, as far as anybody wrote.
pub(crate) fn silence(tx: &mut Tx, bot: &str) -> Result<Option<Time>, StoreError> {
    tx.first(sql::SILENCE, args![silence_of(bot)])?.map(|row| row.get(0)).transpose()
}

fn silence_of(bot: &str) -> String {
    format!("silence:{bot}")
}

/// All that sending a message needs.
pub(super) struct Loaded {
    pub(super) message: Message,
    /// The goods it hands over.
    pub(super) goods: Vec<text::Piece>,
    /// Whether money of its order is on its way back right now.
    pub(super) refunding: bool,
    /// Whether its order still waits for its money.
    pub(super) unpaid: bool,
    /// When the latest of its goods joined the order: what joins later is not in it.
    pub(super) goods_at: Time,
    /// Whether an earlier message in the line of its chat has not ended yet.
    pub(super) in_line: bool,
    /// Whether its chat is one of a customer whom nothing was said to reach.
    pub(super) was_unreachable: bool,
    /// The owner's words for goods.
    pub(super) own: Own,
    /// Until when the bot has to be silent, as far as anybody wrote: another copy may have been told so.
    pub(super) silent_until: Option<Time>,
}

/// A message of the bot `bot`, the goods it hands over and how its order stands, as they are now.
pub(super) fn load(tx: &mut Tx, id: &MessageId, bot: &str) -> Result<Option<Loaded>, StoreError> {
    let Some(row) = tx.first(sql::LOAD, args![id, silence_of(bot)])? else { return Ok(None) };
    let goods: String = row.get(8)?;
    let goods = serde_json::from_str(&goods)
        .map_err(|_| StoreError::Decode { wanted: "a list of goods", found: "something else".into() })?;
    let message = Message {
        id: row.get(0)?,
        chat_id: row.get(1)?,
        class: row.get(2)?,
        kind: row.get(3)?,
        body: row.get(4)?,
        state: row.get(5)?,
        uncertain: row.get(6)?,
        queued_at: row.get(7)?,
        place: row.get(11)?,
    };
    let order: Option<orders::State> = row.get(9)?;
    let goods_at = row.get::<Option<Time>>(10)?.unwrap_or(message.queued_at);
    Ok(Some(Loaded {
        message,
        goods,
        refunding: order == Some(orders::State::RefundPending),
        unpaid: order == Some(orders::State::Pending),
        goods_at,
        in_line: row.get::<Option<i64>>(12)?.is_some(),
        was_unreachable: row.get::<Option<Time>>(13)?.is_some(),
        own: Own::read(&row.get::<String>(14)?)?,
        silent_until: row.get(15)?,
    }))
}

/// How a message ended.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) state: State,
    /// Telegram's number of it.
    pub(super) telegram_id: Option<i64>,
    /// Why it did not arrive.
    pub(super) error: Option<String>,
    /// Tries of which nobody told us what became of them.
    pub(super) uncertain: i64,
}

/// Writes the end of a message, and calls the next one in the line of its chat.
pub(super) fn end(tx: &mut Tx, message: &Message, end: &End) -> Result<(), StoreError> {
    let now = tx.now();
    let args = args![&message.id, end.state.as_str(), end.telegram_id, end.error.as_deref(), end.uncertain, now];
    tx.later(sql::END, args, Expect::Rows(1))?;
    if message.class == Class::Ordered
        && let Some(next) = tx.first(sql::NEXT_IN_LINE, args![message.chat_id, &message.id])?
    {
        jobs::pull_later(tx, DeliverMessage::KIND, DeliverMessage::LANE, &next.get::<String>(0)?)?;
    }
    Ok(())
}

/// Writes that a try may have arrived.
pub(super) fn unclear(tx: &mut Tx, id: &MessageId, uncertain: i64, error: &str) -> Result<(), StoreError> {
    tx.later(sql::UNCLEAR, args![id, uncertain, error], Expect::Rows(1))
}

/// Writes the new id of a group that moved.
pub(super) fn moved(tx: &mut Tx, id: &MessageId, to: i64, uncertain: i64) -> Result<(), StoreError> {
    tx.later(sql::MOVE, args![id, to, uncertain], Expect::Rows(1))
}

fn view_of(row: &Row) -> Result<MessageView, StoreError> {
    Ok(MessageView {
        id: row.get(0)?,
        kind: row.get(1)?,
        state: row.get(2)?,
        order: row.get(3)?,
        uncertain: row.get(4)?,
        error: row.get(5)?,
        queued_at: row.get::<Time>(6)?.to_string(),
        ended_at: row.get::<Option<Time>>(7)?.map(|at| at.to_string()),
    })
}
