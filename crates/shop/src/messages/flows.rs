//! Writing messages, and writing what became of them.

use std::time::Duration;

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::jobs::{self, Job, JobId};
use semel_kernel::store::{Expect, Row, StoreError, Tx};
use semel_money::Amount;

use super::send::Turn;
use super::text::Piece;
use super::{
    Body, Class, DeliverMessage, GOODS, Language, Message, MessageId, MessageView, New, OfPeer, State, VPN_FILE,
    VPN_HOWTO, VPN_QR, sql, text,
};
use crate::customers::Customer;
use crate::orders::{self, Order, OrderId};
use crate::vpn::PeerId;
use crate::{Error, Shop, subscriptions};

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
    let now = tx.now();
    let id = MessageId::new(now, &shop.chance);
    let body = serde_json::to_string(&new.body).map_err(|error| StoreError::Statement(error.to_string()))?;
    let order = new.order.map(OrderId::as_str);
    tx.later(
        sql::INSERT,
        args![&id, new.dedup_key, new.chat_id, new.class.as_str(), new.kind, body, order, now],
        Expect::Any,
    )?;
    let Turn { next, several } = turn;
    let job = DeliverMessage { message: id.clone(), order: new.order.cloned(), next, several };
    jobs::enqueue(tx, &job, at, &shop.chance)?;
    Ok(Some(id))
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
    let (kind, of, body) = match &message.body {
        Body::VpnFile(of) => (VPN_QR, of, Body::VpnQr(of.clone())),
        Body::VpnQr(_) if turn.next.is_some() => return vpn_turn(tx, message, turn),
        Body::VpnQr(of) => (VPN_HOWTO, of, Body::VpnHowto(of.clone())),
        Body::Text { .. } | Body::Goods { .. } | Body::VpnHowto(_) => return Ok(()),
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

/// Calls the file of the next device, when this device's messages have ended.
pub(super) fn vpn_turn(tx: &mut Tx, message: &Message, turn: &Turn) -> Result<(), Error> {
    if let (Body::VpnFile(_) | Body::VpnQr(_), Some(next)) = (&message.body, &turn.next) {
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

/// Tells a customer something about a subscription, once for each `dedup_key`. `kind` is the word in rows, `html` a text of
/// `text::subscription`.
pub fn notice(
    tx: &mut Tx,
    shop: &Shop,
    customer: &Customer,
    kind: &'static str,
    dedup_key: String,
    html: String,
) -> Result<(), Error> {
    notify(tx, shop, customer, kind, dedup_key, html, None)
}

/// Tells a referrer about the reward for `order`. Names nothing of the buyer.
pub fn notify_reward(
    tx: &mut Tx,
    shop: &Shop,
    referrer: &Customer,
    amount: Amount,
    order: &OrderId,
) -> Result<(), Error> {
    let html = text::reward(Language::of(referrer.language.as_deref()), amount, order);
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
    let html = text::balance(Language::of(customer.language.as_deref()), amount, reason, key);
    notify(tx, shop, customer, "balance", format!("balance:{reason}:{key}"), html, None)
}

/// Tells a customer about a refund; `target` is `balance` or `provider`. Call once for each refund: two refunds of one
/// order may be equal, so only the caller can tell a repeat.
pub fn notify_refund(
    tx: &mut Tx,
    shop: &Shop,
    customer: &Customer,
    order: &OrderId,
    amount: Amount,
    target: &str,
) -> Result<(), Error> {
    let html = text::refund(Language::of(customer.language.as_deref()), amount, order, target);
    let once = MessageId::new(tx.now(), &shop.chance);
    notify(tx, shop, customer, "refund", format!("refund:{order}:{once}"), html, Some(order))
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
    tx.execute(sql::RETRIED, args![job]).map(|_| ())
}

/// Ends as unknown every message that goes at most once and that a backup still had to send. What may go twice stays, and is
/// sent with the same content. Answers how many there were.
pub fn forget_queued(tx: &mut Tx) -> Result<u64, StoreError> {
    let now = tx.now();
    tx.execute(sql::FORGET_QUEUED, args![now])
}

/// Writes that the bot `bot` has to be silent until `until`, and forgets silences that are over.
pub(super) fn keep_silence(tx: &mut Tx, bot: &str, until: Time) -> Result<(), StoreError> {
    let now = tx.now();
    tx.later(sql::FORGET_SILENCES, args![now], Expect::Any)?;
    tx.later(sql::KEEP_SILENCE, args![silence_of(bot), until.millis().to_string()], Expect::Any)
}

/// Until when the bot `bot` has to be silent, as far as anybody wrote.
pub(super) fn silence(tx: &mut Tx, bot: &str) -> Result<Option<Time>, StoreError> {
    tx.first(sql::SILENCE, args![silence_of(bot)])?.map(|row| row.get(0)).transpose()
}

fn silence_of(bot: &str) -> String {
    format!("silence:{bot}")
}

/// All that sending a message needs.
pub(super) struct Loaded {
    pub(super) message: Message,
    /// The goods it hands over.
    pub(super) goods: Vec<Piece>,
    /// Whether money of its order is on its way back right now.
    pub(super) refunding: bool,
    /// When the latest of its goods joined the order: what joins later is not in it.
    pub(super) goods_at: Time,
}

/// A message, the goods it hands over and how its order stands, as they are now.
pub(super) fn load(tx: &mut Tx, id: &MessageId) -> Result<Option<Loaded>, StoreError> {
    let Some(row) = tx.first(sql::LOAD, args![id])? else { return Ok(None) };
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
    };
    let order: Option<orders::State> = row.get(9)?;
    let goods_at = row.get::<Option<Time>>(10)?.unwrap_or(message.queued_at);
    Ok(Some(Loaded { message, goods, refunding: order == Some(orders::State::RefundPending), goods_at }))
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

/// Writes the end of a message.
pub(super) fn end(tx: &mut Tx, id: &MessageId, end: &End) -> Result<(), StoreError> {
    let now = tx.now();
    let args = args![id, end.state.as_str(), end.telegram_id, end.error.as_deref(), end.uncertain, now];
    tx.later(sql::END, args, Expect::Rows(1))
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
