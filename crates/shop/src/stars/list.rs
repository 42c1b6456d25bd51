//! The bot's list of transactions: the only thing that says whether Stars came.
//!
//! Telegram has no question about one payment. Its list is in the order of time and read by place, so new entries stand at its end and
//! old ones keep their place. A bookmark (the mark `stars:<bot id>`) says how far the last sweep has read: whoever asks reads from there
//! to the end, which is one short call, and only when that does not tell enough goes back from the bookmark, page by page.
//!
//! What the bot took before anybody here looked at its list (the mark `stars-from:<bot id>`) was another program's business: it is read
//! past, and booked nowhere.

use std::time::Duration;

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::outbound::Manner;
use semel_kernel::store::Expect;
use semel_payments::stars::{PAGE, StarMove, StarPage, seen, seen_all};
use semel_payments::{CallError, Rail, Seen, Stars};

use super::sql;
use crate::Shop;
use crate::checkout::Payment;
use crate::checkout::flows::TalkOrStore;
use crate::checkout::talk::{self, TalkError};

/// In each direction.
const PAGES_AT_MOST: usize = 200;
/// Telegram's clock and ours may differ by less than this.
const MARGIN: Duration = Duration::from_secs(3600);
/// How far back a charge is looked for that no payment of ours is known for.
const LOOK_BACK: Duration = Duration::from_secs(14 * 24 * 3600);

/// What was read.
struct Read {
    moves: Vec<StarMove>,
    /// How many transactions the list had.
    total: u64,
    /// Whether everything since the moment was read.
    is_whole: bool,
    /// Transactions that could not be understood, each with its reason.
    unreadable: Vec<String>,
}

/// What a sweep finds.
pub(crate) struct Listed {
    /// One for each charge.
    pub(crate) seen: Vec<Seen>,
    /// How many transactions the list had.
    pub(crate) total: u64,
    /// Whether everything since the moment was read.
    pub(crate) is_whole: bool,
    /// Transactions that could not be understood, each with its reason.
    pub(crate) unreadable: Vec<String>,
}

/// What the list tells about `payment`: every charge that carries its id, and every one that is known or named for it in `ids`.
pub(crate) async fn ask(
    shop: &Shop,
    rail: &Rail,
    bot: &Stars,
    payment: &Payment,
    ids: &[String],
) -> Result<Vec<Seen>, TalkOrStore> {
    let ours = payment.id.to_string();
    let (wanted, own) = (ids.to_vec(), ours.clone());
    let enough = move |moves: &[StarMove]| match wanted.is_empty() {
        true => moves.iter().any(|one| one.payload.as_deref() == Some(own.as_str())),
        false => wanted.iter().all(|id| moves.iter().any(|one| one.charge == *id)),
    };
    let read = read(shop, rail, bot, payment.created_at - MARGIN, enough).await?;
    let is_about = |one: &Seen| one.ours.as_deref() == Some(ours.as_str()) || ids.contains(&one.provider_id);
    let seen: Vec<Seen> = seen_all(&read.moves).into_iter().filter(is_about).collect();
    // Not to have read far enough is not to know: nobody shall take it for silence and close the payment.
    if seen.is_empty() && !read.is_whole {
        let text = "the bot's list of transactions was not read to its end".to_owned();
        return Err(TalkError::Said(CallError::Unclear { status: None, text }).into());
    }
    Ok(seen)
}

/// What the list tells about one charge; nothing when it is not there, or too old to be looked for.
pub(crate) async fn ask_charge(
    shop: &Shop,
    rail: &Rail,
    bot: &Stars,
    charge: &str,
) -> Result<Option<Seen>, TalkOrStore> {
    let of = charge.to_owned();
    let enough = move |moves: &[StarMove]| moves.iter().any(|one| one.charge == of);
    let read = read(shop, rail, bot, shop.now() - LOOK_BACK, enough).await?;
    Ok(seen(&read.moves, charge))
}

/// Everything in the list since a moment, and everything behind the bookmark that is not older than our first look.
pub(crate) async fn list(shop: &Shop, rail: &Rail, bot: &Stars, since: Time) -> Result<Listed, TalkOrStore> {
    let from = since.min(first_look(shop, bot, since).await?);
    let Read { mut moves, total, is_whole, unreadable } = read(shop, rail, bot, since, |_: &[StarMove]| false).await?;
    moves.retain(|one| one.at_ms >= from.millis());
    Ok(Listed { seen: seen_all(&moves), total, is_whole, unreadable })
}

/// Since when the bot's list is ours to look at: what the first sweep was asked for.
async fn first_look(shop: &Shop, bot: &Stars, since: Time) -> Result<Time, TalkOrStore> {
    let name = format!("stars-from:{}", bot.bot_id);
    let found = shop.write("stars.from", move |tx, _| {
        tx.later(sql::FIRST_LOOK, args![&name, since.millis().to_string()], Expect::Any)?;
        Ok(tx.one(sql::BOOKMARK, args![&name])?.get::<i64>(0)?)
    });
    Ok(Time::from_millis(found.await?))
}

/// Moves the bookmark on, when everything before it is in the books.
pub(crate) async fn keep(shop: &Shop, bot: &Stars, total: u64) -> Result<(), TalkOrStore> {
    let name = mark(bot);
    let kept =
        shop.write("stars.keep", move |tx, _| Ok(tx.later(sql::KEEP, args![&name, total.to_string()], Expect::Any)?));
    Ok(kept.await?)
}

fn mark(bot: &Stars) -> String {
    format!("stars:{}", bot.bot_id)
}

async fn bookmark(shop: &Shop, bot: &Stars) -> Result<u64, TalkOrStore> {
    let name = mark(bot);
    let found = shop.look("stars.bookmark", move |tx| {
        let row = tx.first(sql::BOOKMARK, args![&name])?;
        Ok(row.map(|row| row.get::<i64>(0)).transpose()?)
    });
    Ok(found.await?.and_then(|place| u64::try_from(place).ok()).unwrap_or(0))
}

/// Reads from the bookmark to the end of the list, then back from the bookmark until `enough` says so or everything since `since` was
/// read. What it finds before `since` on the way stays in.
async fn read<F>(shop: &Shop, rail: &Rail, bot: &Stars, since: Time, enough: F) -> Result<Read, TalkOrStore>
where
    F: Fn(&[StarMove]) -> bool + Send,
{
    let start = bookmark(shop, bot).await?;
    let (mut moves, mut unreadable, mut total, mut is_whole) = (Vec::new(), Vec::new(), start, false);
    let mut oldest: Option<i64> = None;
    for _ in 0..PAGES_AT_MOST {
        let page = page(shop, rail, bot, total, PAGE).await?;
        total += page.count;
        oldest = oldest.or(page.oldest_ms);
        moves.extend(page.moves);
        unreadable.extend(page.unreadable);
        if page.count < PAGE {
            is_whole = true;
            break;
        }
    }
    let mut below = start;
    for _ in 0..PAGES_AT_MOST {
        let is_far_enough = oldest.is_some_and(|at| at < since.millis());
        if below == 0 || is_far_enough || enough(&moves) {
            return Ok(Read { moves, total, is_whole, unreadable });
        }
        let from = below.saturating_sub(PAGE);
        let page = page(shop, rail, bot, from, below - from).await?;
        oldest = page.oldest_ms.or(oldest);
        moves.extend(page.moves);
        unreadable.extend(page.unreadable);
        below = from;
    }
    Ok(Read { moves, total, is_whole: false, unreadable })
}

async fn page(shop: &Shop, rail: &Rail, bot: &Stars, offset: u64, limit: u64) -> Result<StarPage, TalkOrStore> {
    let request = bot.transactions(offset, limit);
    let answer = talk::send(shop, rail, "stars.list", Manner::Read, request).await?;
    let page = bot.page(&answer).map_err(TalkError::from)?;
    for reason in &page.unreadable {
        tracing::warn!(reason = reason.as_str(), "a transaction in the bot's list of Stars cannot be read");
    }
    Ok(page)
}
