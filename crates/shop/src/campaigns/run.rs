//! The job that runs a campaign.
//!
//! It takes recipients in their order, a piece at a time: their rows are written as being sent, durably, before the first call
//! of the piece, and the ends of what came back before are written in the same transaction. Calls go on meanwhile, so writing
//! costs the campaign no time. A run lasts half a minute and is due again at once; it ends early when this copy gives the sending
//! up, so that another one may take over, and a stop of the program waits for little.
//!
//! Nobody else sends a campaign's recipients, so a row that is being sent when a run begins belongs to a run that died: nobody
//! knows what became of its call. The claim of the job is written on the campaign and on each row ([`Claim::fence`]), so a run
//! that was only slow takes nothing more and changes nothing but its own rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use semel_kernel::args;
use semel_kernel::clock::{Stopwatch, Time};
use semel_kernel::jobs::{Claim, Ended, Job, JobError, Retry};
use semel_kernel::store::{Expect, StoreError, Tx, Value};
use semel_telegram::Bot;
use semel_telegram::pacer::Lane;

use super::outcome::{After, Fate, UNCLEAR_AT_MOST};
use super::segments::text_of;
use super::send::{Mail, To, deliver};
use super::{AT_A_TIME, Campaign, CampaignId, RecipientState, State, flows, piece, share, sql};
use crate::messages::Class;
use crate::shop::Lanes;
use crate::{Error, Shop, alerts, customers, messages, safety};

/// How long one run lasts, unless the program stops or another copy takes the sending over: between two runs the pace has
/// nothing to let go.
const RUN_FOR: Duration = Duration::from_secs(30);
/// The next piece is written while so many calls are still on their way, so that the pace never waits for the database.
const LOW: usize = 12;
/// The same content refused so often in a row is refused for everybody.
const POISON_AT: i64 = 3;
/// So many who have to wait, one after another, end a run.
const HELD_BACK_AT: u32 = 3;
/// How soon a run looks again that had no turn, or was told to wait.
const SOON: Duration = Duration::from_secs(2);
/// The longest that it waits where it knows how long a silence lasts: a look costs a piece, and chats may differ.
const HELD_BACK_MOST: Duration = Duration::from_secs(60);
/// While Telegram does not know the token, or no bot is set up.
const WITHOUT_BOT: Duration = Duration::from_secs(300);
/// How soon a campaign that stands still looks whether it goes on; going on wakes it.
const PAUSED: Duration = Duration::from_secs(24 * 3600);
/// Waits between tries to write how calls ended. Giving up makes them unknown.
const WRITE_PAUSES_MS: [u64; 6] = [50, 200, 800, 2_000, 5_000, 10_000];
/// A claim's fence counts within its job; a later job of the same campaign counts higher.
const ROUND: i64 = 1 << 32;

/// Runs a campaign. There is one at a time: the next round begins only after the job of the one before has ended.
///
/// It has no manner, because it is no call itself: its recipients' rows are the written intents of its calls.
#[derive(Debug, Serialize, Deserialize)]
pub struct RunCampaign {
    /// The campaign.
    pub campaign: CampaignId,
    /// Which of its jobs this is.
    pub round: i64,
}

impl Job for RunCampaign {
    type Context = Shop;
    const KIND: &'static str = "campaign.run";
    const LANE: &'static str = Lanes::CAMPAIGNS;
    // Each death costs an attempt, and a campaign outlives any number of them: each run that ends well gives all back.
    const RETRY: Retry = Retry::backoff(Duration::from_secs(2), Duration::from_secs(60), 1_000);

    fn slot(&self) -> Option<String> {
        Some(format!("{}:{}", self.campaign, self.round))
    }

    fn thread(&self) -> Option<String> {
        Some(self.campaign.to_string())
    }

    async fn run(self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        if let Some(ended) = safety::flows::wait(shop, &claim).await? {
            return Ok(ended);
        }
        let Some(bot) = shop.bot.clone() else {
            let text = "no bot is set up".to_owned();
            return Err(JobError::Later { at: shop.now() + WITHOUT_BOT, text });
        };
        let stamp = self.round.saturating_mul(ROUND).saturating_add(claim.fence());
        let (id, round, of, held) = (self.campaign.clone(), self.round, bot.id().to_owned(), claim.clone());
        let opened = shop.write("campaign.open", move |tx, shop| open(tx, shop, &id, round, stamp, &of, &held));
        match opened.await? {
            Opened::Over(ended) => Ok(ended),
            Opened::Go(campaign, mail) => {
                let doubt = Arc::new(AtomicBool::new(false));
                let run = Run { shop: shop.clone(), bot, claim, campaign, mail: Arc::new(mail), stamp, doubt };
                run.go().await
            }
        }
    }
}

enum Opened {
    Over(Ended),
    Go(Box<Campaign>, Mail),
}

/// Takes the campaign over, as it stands.
fn open(
    tx: &mut Tx,
    shop: &Shop,
    id: &CampaignId,
    round: i64,
    stamp: i64,
    bot: &str,
    claim: &Claim,
) -> Result<Opened, Error> {
    let now = tx.now();
    let mut campaign = match flows::lock(tx, id) {
        Ok(campaign) => campaign,
        Err(Error::NotFound { .. }) => return Ok(Opened::Over(claim.finish(tx)?)),
        Err(error) => return Err(error),
    };
    if campaign.round != round || matches!(campaign.state, State::Draft | State::Finished) {
        return Ok(Opened::Over(claim.finish(tx)?));
    }
    if campaign.state == State::Scheduled {
        match campaign.starts_at.filter(|at| *at > now) {
            Some(at) => return Ok(Opened::Over(claim.again(tx, at)?)),
            None => return its_time_came(tx, shop, &campaign, claim),
        }
    }
    if campaign.state == State::Starting {
        // One piece in each run, so that everybody else writes in between.
        if flows::write_down(tx, &mut campaign)? {
            flows::set_off(tx, shop, &campaign)?;
        }
        return Ok(Opened::Over(claim.again(tx, now)?));
    }
    tx.execute(sql::OPEN, args![id, stamp])?;
    match campaign.class {
        Class::AtMostOnce => tx.execute(sql::LOST, args![id, now, stamp])?,
        Class::AtLeastOnce | Class::Ordered => tx.execute(sql::LOST_AGAIN, args![id, now, stamp, UNCLEAR_AT_MOST])?,
    };
    match campaign.state {
        State::Running => {
            let mail = Mail::load(tx, id, campaign.texts.clone(), bot)?;
            Ok(Opened::Go(Box::new(Campaign { fence: stamp, ..campaign }), mail))
        }
        _ => Ok(Opened::Over(rest(tx, shop, &campaign, claim, now)?)),
    }
}

/// A scheduled campaign begins, or goes back to its owner with the reason. Either way the job looks again, or ends.
fn its_time_came(tx: &mut Tx, shop: &Shop, campaign: &Campaign, claim: &Claim) -> Result<Opened, Error> {
    let now = tx.now();
    match flows::audience(tx, shop, campaign) {
        Ok(_) => {
            flows::begin(tx, campaign, "schedule")?;
            Ok(Opened::Over(claim.again(tx, now)?))
        }
        Err(Error::Conflict(why)) => {
            flows::go(tx, campaign, State::Draft, "schedule", Some(&why))?;
            let key = format!("campaign:{}:{}:not-begun", campaign.id, campaign.round);
            alerts::flows::raise(tx, shop, key, format!("The campaign {} did not begin: {why}", campaign.title))?;
            Ok(Opened::Over(claim.finish(tx)?))
        }
        Err(error) => Err(error),
    }
}

/// The end of a run whose rows have all been written: the campaign is over, waits, or goes on.
fn rest(tx: &mut Tx, shop: &Shop, campaign: &Campaign, claim: &Claim, not_before: Time) -> Result<Ended, Error> {
    let now = tx.now();
    match campaign.state {
        State::Running => {}
        State::Paused => return Ok(claim.put_off(tx, now + PAUSED, "the campaign is paused")?),
        State::Cancelled => {
            let is_all = flows::cancel_queued(tx, &campaign.id)?;
            // A row whose call has told nothing: the next look finds it dead.
            let sending: i64 = tx.one(sql::SENDING, args![&campaign.id])?.get(0)?;
            return Ok(if is_all && sending == 0 { claim.finish(tx)? } else { claim.again(tx, now)? });
        }
        State::Starting => return Ok(claim.again(tx, now)?),
        State::Draft | State::Scheduled | State::Finished => return Ok(claim.finish(tx)?),
    }
    // The first one who may be written to now tells all: the least of many moments is only looked for where nobody may.
    let next: Option<Time> = match tx.first(sql::READY, args![&campaign.id, now])? {
        Some(_) => Some(now),
        None => tx.one(sql::NEXT_DUE, args![&campaign.id])?.get(0)?,
    };
    if let Some(due) = next {
        let at = due.max(not_before).max(campaign.next_piece_at).max(now);
        return Ok(claim.again(tx, at)?);
    }
    // Of those for whom it failed, the next ones whom it is sent to again.
    if flows::resend_piece(tx, &campaign.id)? > 0 {
        return Ok(claim.again(tx, not_before.max(now))?);
    }
    let ended: i64 = tx.one(sql::ENDED, args![&campaign.id])?.get(0)?;
    if ended != campaign.snapshot_count {
        // A run that was only slow has rows on their way, and writes them, or the next look finds it dead.
        let sending: i64 = tx.one(sql::SENDING, args![&campaign.id])?.get(0)?;
        let of = campaign.snapshot_count;
        let why = format!("{ended} of {of} recipients have ended and {sending} are on their way: it is not finished");
        tracing::warn!(campaign.id = %campaign.id, "{why}");
        return Ok(claim.put_off(tx, now + SOON, &why)?);
    }
    flows::go(tx, campaign, State::Finished, "campaign.run", None)?;
    let (mut sums, mut skipped) = (Vec::new(), 0);
    for row in tx.rows(sql::STATES, args![&campaign.id])? {
        let (state, count): (RecipientState, i64) = (row.get(0)?, row.get(1)?);
        match state {
            // Nobody counted them among those who get it, before or after.
            RecipientState::Skipped => skipped = count,
            RecipientState::Unknown => sums.push(format!("{count} unknown (may have it or not)")),
            _ => sums.push(format!("{count} {}", state.as_str())),
        }
    }
    let people = ended - skipped;
    let others = match skipped {
        0 => String::new(),
        _ => format!(". Left out before it began: {skipped}, who blocked the bot, are gone, or want no campaigns"),
    };
    let text = format!("The campaign {} is finished: {people} people, {}{others}", campaign.title, sums.join(", "));
    alerts::flows::raise(tx, shop, format!("campaign:{}:{}:finished", campaign.id, campaign.round), text)?;
    Ok(claim.finish(tx)?)
}

/// A recipient whose call has ended.
struct Told {
    chat_id: i64,
    /// Tries before of which nobody told us what became of them.
    uncertain: i64,
    fate: Fate,
}

/// What a transaction in the middle of a run answered.
enum Step {
    /// These rows are written as being sent: call.
    Piece(Vec<Next>),
    /// Nothing to take before this moment, if there is one.
    Nothing(Option<Time>),
    /// Telegram asked for silence until then: some other call of this bot was told so, perhaps in another copy.
    Silent(Time),
    /// Take no more: it stands still, was called off, or another claim runs it.
    Halt,
}

struct Next {
    to: To,
    uncertain: i64,
}

/// One run of a campaign.
struct Run {
    shop: Shop,
    bot: Bot,
    claim: Claim,
    campaign: Box<Campaign>,
    mail: Arc<Mail>,
    /// This claim, as it stands on the campaign and its rows.
    stamp: i64,
    /// Whether the answer to a commit was lost: then a piece may stand written as being sent that nobody calls.
    doubt: Arc<AtomicBool>,
}

/// What a run has seen so far.
#[derive(Default)]
struct Seen {
    told: Vec<Told>,
    /// Whose calls have begun and not told how they ended.
    under_way: BTreeSet<i64>,
    /// Refusals of the content in a row.
    refused: i64,
    /// What Telegram said to them.
    refusal: Option<String>,
    /// Whether the campaign stands still for its content.
    poisoned: bool,
    /// Whether Telegram does not know the token.
    bad_token: bool,
    /// Those in a row who had no turn, or were told to wait.
    waited: u32,
    /// Whether so many of them that the run ends.
    held_back: bool,
    /// The shortest time that those in a row have to wait.
    left: Option<Duration>,
    /// Telegram's name of the attachment, new.
    file_id: Option<String>,
}

impl Run {
    async fn go(self) -> Result<Ended, JobError> {
        let started = Stopwatch::start();
        let halt = Arc::new(AtomicBool::new(false));
        let mut calls: JoinSet<Told> = JoinSet::new();
        let (mut seen, mut takes, mut not_before, mut low) = (Seen::default(), true, None, LOW);
        let mut broken = None;
        loop {
            if self.shop.pace().is_leaving() {
                halt.store(true, Ordering::SeqCst);
            }
            takes &= started.elapsed() < RUN_FOR && !halt.load(Ordering::SeqCst) && !seen.held_back;
            let upload = self.mail.needs_upload();
            let room = if upload { calls.is_empty() } else { calls.len() <= low };
            if takes && room {
                match self.step(&mut seen, upload).await {
                    Ok(Step::Piece(piece)) => {
                        low = LOW.min(piece.len());
                        seen.under_way.extend(piece.iter().map(|next| next.to.chat_id));
                        piece.into_iter().for_each(|next| self.call(&mut calls, next, &halt));
                    }
                    Ok(Step::Nothing(at)) => (takes, not_before) = (false, at),
                    Ok(Step::Silent(until)) => {
                        (takes, not_before) = (false, Some(until));
                        self.shop.pace().silence(until.since(self.shop.now()));
                    }
                    Ok(Step::Halt) => {
                        takes = false;
                        halt.store(true, Ordering::SeqCst);
                    }
                    // The database is away. Calls on their way still end, so that what they came to can be written then.
                    Err(error) => {
                        takes = false;
                        halt.store(true, Ordering::SeqCst);
                        broken = Some(error);
                    }
                }
            }
            match calls.join_next().await {
                Some(Ok(told)) => self.note(&mut seen, told, &halt),
                // A call that panicked has told nothing: its row stays as it is, and the next run finds it so.
                Some(Err(error)) => tracing::error!(%error, "a call of a campaign did not end"),
                None if takes => {}
                None => break,
            }
        }
        if let Some(error) = broken {
            let rows = Arc::new(Rows::of(&self, &seen));
            self.written(move |tx, _| Ok(rows.write(tx)?)).await?;
            return Err(error);
        }
        self.end(seen, not_before).await
    }

    fn call(&self, calls: &mut JoinSet<Told>, next: Next, halt: &Arc<AtomicBool>) {
        let (shop, bot, mail, halt) = (self.shop.clone(), self.bot.clone(), Arc::clone(&self.mail), Arc::clone(halt));
        calls.spawn(async move {
            let fate = deliver(&shop, &bot, &mail, &next.to, Lane::Campaign, &halt).await;
            Told { chat_id: next.to.chat_id, uncertain: next.uncertain, fate }
        });
    }

    /// Looks at how a call ended, before it is written.
    fn note(&self, seen: &mut Seen, told: Told, halt: &AtomicBool) {
        match &told.fate {
            Fate::Sent { file_id, .. } => {
                seen.refused = 0;
                if let Some(file_id) = file_id
                    && self.mail.needs_upload()
                {
                    self.mail.uploaded(file_id);
                    seen.file_id = Some(file_id.clone());
                }
            }
            Fate::Poison { text } => {
                seen.refused += 1;
                seen.refusal = Some(text.clone());
                // The owner let it go on as it is: then it is the chats that refuse it.
                let is_known = self.campaign.refused == Some(self.campaign.content);
                seen.poisoned |= seen.refused >= POISON_AT && !is_known;
                if seen.poisoned {
                    halt.store(true, Ordering::SeqCst);
                }
            }
            Fate::BadToken { .. } => {
                seen.bad_token = true;
                halt.store(true, Ordering::SeqCst);
            }
            Fate::NotCalled { .. }
            | Fate::Later { .. }
            | Fate::Slow { .. }
            | Fate::Moved { .. }
            | Fate::ChatGone { .. }
            | Fate::Refused { .. }
            | Fate::Unclear { .. } => {}
        }
        // One chat that has to wait holds nobody back. Several in a row mean the bot, or the way to Telegram: then the rest is
        // not even taken.
        match &told.fate {
            Fate::NotCalled { .. } | Fate::Later { .. } | Fate::Slow { .. } => {
                seen.waited += 1;
                seen.held_back |= seen.waited >= HELD_BACK_AT;
                let left = match &told.fate {
                    Fate::NotCalled { left } => left.unwrap_or_default(),
                    Fate::Slow { seconds, whole_bot: true } => Duration::from_secs(*seconds),
                    _ => Duration::ZERO,
                };
                seen.left = Some(seen.left.map_or(left, |least| least.min(left)));
            }
            _ => (seen.waited, seen.left) = (0, None),
        }
        seen.under_way.remove(&told.chat_id);
        seen.told.push(told);
    }

    /// Writes how the calls so far ended, and takes the next piece in the same transaction.
    async fn step(&self, seen: &mut Seen, upload: bool) -> Result<Step, JobError> {
        let rate = self.shop.pace().view().rate.messages;
        let (id, stamp, content) = (self.campaign.id.clone(), self.stamp, self.campaign.content);
        let (rows, bot) = (Arc::new(Rows::of(self, seen)), self.bot.id().to_owned());
        let step = self
            .written(move |tx, shop| {
                rows.write(tx)?;
                let now = tx.now();
                let campaign = flows::lock(tx, &id)?;
                // Paused, mended and resumed meanwhile: the next run says what it says now.
                if campaign.fence != stamp || campaign.state != State::Running || campaign.content != content {
                    return Ok(Step::Halt);
                }
                if campaign.next_piece_at > now {
                    return Ok(Step::Nothing(Some(campaign.next_piece_at)));
                }
                if let Some(until) = messages::flows::silence(tx, &bot)?.filter(|until| *until > now) {
                    return Ok(Step::Silent(until));
                }
                let running: i64 = tx.one(sql::RUNNING, &[])?.get(0)?;
                let (size, gap) = piece(&shop.rules.broadcast, share(rate, running));
                let size = if upload { 1 } else { size };
                let taken = tx.rows(sql::TAKE, args![&id, stamp, now, i64::from(size)])?;
                if taken.is_empty() {
                    return Ok(Step::Nothing(None));
                }
                tx.later(sql::PIECE_TAKEN, args![&id, now + gap, now], Expect::Rows(1))?;
                let mut piece: Vec<(i64, Next)> = Vec::with_capacity(taken.len());
                for row in &taken {
                    let chat_id: i64 = row.get(0)?;
                    let to = To { id: format!("{id}:{chat_id}"), chat_id, language: row.get(1)? };
                    piece.push((row.get(2)?, Next { to, uncertain: row.get(3)? }));
                }
                // `returning` promises no order.
                piece.sort_by_key(|(n, _)| *n);
                Ok(Step::Piece(piece.into_iter().map(|(_, next)| next).collect()))
            })
            .await?;
        self.doubt.store(false, Ordering::SeqCst);
        seen.told.clear();
        seen.file_id = None;
        Ok(step)
    }

    /// Writes the last ends, and what follows for the campaign.
    async fn end(self, seen: Seen, not_before: Option<Time>) -> Result<Ended, JobError> {
        let (id, stamp, claim) = (self.campaign.id.clone(), self.stamp, self.claim.clone());
        let rows = Arc::new(Rows::of(&self, &seen));
        let (poisoned, bad_token, held_back) = (seen.poisoned, seen.bad_token, seen.held_back);
        let left = Duration::from_secs(seen.left.unwrap_or_default().as_secs()).clamp(SOON, HELD_BACK_MOST);
        let (refusal, content) = (seen.refusal.clone().unwrap_or_default(), self.campaign.content);
        let told = Arc::clone(&rows);
        let ended = self.written(move |tx, shop| {
            rows.write(tx)?;
            let now = tx.now();
            let mut campaign = flows::lock(tx, &id)?;
            if campaign.fence != stamp {
                // Another claim runs it: the job is that one's by now, and only the rows are this one's to write.
                return Ok(None);
            }
            if poisoned && campaign.state == State::Running {
                let reason = format!("Telegram refuses what it says: {refusal}");
                flows::go(tx, &campaign, State::Paused, "campaign.run", Some(&reason))?;
                campaign.state = State::Paused;
                let key = format!("campaign:{id}:{}:poison:{}", campaign.round, campaign.version);
                let text = format!(
                    "The campaign {} stands still: Telegram refused what it says {POISON_AT} times in a row ({refusal}). Nobody \
                     was lost: mend it, look at it, test it, and resume it. Resumed as it is, it goes on, and whom it is refused \
                     for counts as failed",
                    campaign.title
                );
                alerts::flows::raise(tx, shop, key, text)?;
            }
            if poisoned {
                tx.execute(sql::UNPOISON, args![&id, AT_A_TIME])?;
                tx.execute(sql::REFUSED, args![&id, content])?;
            }
            let mut at = not_before.unwrap_or(now);
            if bad_token {
                messages::flows::token_refused(tx, shop)?;
                at = at.max(now + WITHOUT_BOT);
            } else if held_back {
                at = at.max(now + left);
            }
            Ok(Some(rest(tx, shop, &campaign, &claim, at)?))
        });
        match ended.await {
            Ok(Some(ended)) => Ok(ended),
            Ok(None) => Err(JobError::Later { at: self.shop.now() + SOON, text: "another run has taken over".into() }),
            // The claim has run out meanwhile. What is known of the calls is kept all the same.
            Err(error) => {
                self.written(move |tx, _| Ok(told.write(tx)?)).await?;
                Err(error)
            }
        }
    }

    /// A transaction that must not be lost, because it tells how calls ended: tried for a while.
    async fn written<T, F>(&self, f: F) -> Result<T, JobError>
    where
        F: Fn(&mut Tx, &Shop) -> Result<T, Error> + Clone + Send + 'static,
        T: Send + 'static,
    {
        let mut pauses = WRITE_PAUSES_MS.into_iter();
        loop {
            let error = match self.shop.write("campaign.piece", f.clone()).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if matches!(&error, Error::Store(StoreError::Unknown(_))) {
                self.doubt.store(true, Ordering::SeqCst);
            }
            let passing = matches!(&error, Error::Store(error) if error.is_passing());
            match pauses.next().filter(|_| passing) {
                Some(pause) => tokio::time::sleep(Duration::from_millis(pause)).await,
                None => return Err(JobError::from(error)),
            }
        }
    }
}

/// What calls came to, ready to be written, as often as it takes.
struct Rows {
    campaign: CampaignId,
    stamp: i64,
    /// What it said, and what it attached: a name of an upload is good for nothing else.
    content: i64,
    class: Class,
    /// Whether the owner is asked to mend what the campaign says.
    mends: bool,
    told: BTreeMap<i64, (i64, Fate)>,
    under_way: BTreeSet<i64>,
    doubt: Arc<AtomicBool>,
    /// Telegram's name of the attachment, and the bot for which it is good.
    uploaded: Option<(String, String)>,
}

impl Rows {
    fn of(run: &Run, seen: &Seen) -> Self {
        let told = seen.told.iter().map(|told| (told.chat_id, (told.uncertain, told.fate.clone())));
        Self {
            campaign: run.campaign.id.clone(),
            stamp: run.stamp,
            content: run.campaign.content,
            class: run.campaign.class,
            mends: seen.poisoned,
            told: told.collect(),
            under_way: seen.under_way.clone(),
            doubt: Arc::clone(&run.doubt),
            uploaded: seen.file_id.clone().map(|file_id| (file_id, run.bot.id().to_owned())),
        }
    }

    fn write(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let now = tx.now();
        let (mut rows, mut unreachable) = (Vec::new(), Vec::new());
        for (chat_id, (uncertain, fate)) in &self.told {
            let after = After::of(fate, self.class, *uncertain, self.mends, now);
            let ended_at = after.state.is_end().then_some(now);
            rows.push(vec![
                Value::from(&self.campaign),
                Value::from(*chat_id),
                Value::from(self.stamp),
                Value::from(after.state.as_str()),
                Value::from(after.telegram_id),
                Value::from(after.error),
                Value::from(after.due),
                Value::from(after.uncertain),
                Value::from(i64::from(after.poison)),
                Value::from(ended_at),
            ]);
            if fate.is_unreachable() {
                unreachable.push(*chat_id);
            }
        }
        tx.many_later(sql::OUTCOME, rows, Expect::Any)?;
        if self.doubt.load(Ordering::SeqCst) {
            // Such a commit may still be on its way: its end is waited for, or what it wrote would not be seen.
            tx.rows(sql::LOCK, args![&self.campaign])?;
            let called = text_of(&self.under_way)?;
            tx.later(sql::GIVE_BACK, args![&self.campaign, self.stamp, called], Expect::Any)?;
        }
        customers::flows::unreachable(tx, &unreachable)?;
        if let Some((file_id, bot)) = &self.uploaded {
            tx.later(sql::MEDIA_UPLOADED, args![&self.campaign, file_id, bot, self.content], Expect::Any)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use semel_kernel::clock::Chance;

    use super::*;

    const CAMPAIGN: &str =
        "insert into campaigns (id, title, state, class, segment, texts, moved_at, created_by, created_at, fence)
        values ($1, 'Spring', 'running', 'at_most_once', '{}', '{}', 0, 'story', 0, 5)";
    const RECIPIENT: &str =
        "insert into recipients (campaign, chat_id, language, n, state) values ($1, 7, 'ru', 1, 'queued')";

    semel_kernel::each_store! { crate::ROOMS;
        async fn a_commit_that_is_still_on_its_way_leaves_nobody_as_being_sent(t: TestStore) {
            let campaign = CampaignId::new(Time::from_millis(0), &Chance::seeded(1));
            let id = campaign.clone();
            let written = t.store.write("story.campaign", move |tx| {
                tx.execute(CAMPAIGN, args![&id])?;
                tx.execute(RECIPIENT, args![&id])?;
                Ok::<_, StoreError>(())
            });
            written.await.expect("rows are written");

            // A piece is taken; whoever took it hears nothing, though the commit is only slow.
            let (let_go, held) = mpsc::channel::<()>();
            let (begun, mut has_begun) = tokio::sync::mpsc::unbounded_channel::<()>();
            let (store, id) = (t.store.clone(), campaign.clone());
            let taking = tokio::spawn(async move {
                let taken = store.write("story.take", move |tx| {
                    let now = tx.now();
                    tx.rows(sql::LOCK, args![&id])?;
                    let taken = tx.rows(sql::TAKE, args![&id, 5_i64, now, 10_i64])?;
                    let _ = begun.send(());
                    let _ = held.recv();
                    Ok::<_, StoreError>(taken.len())
                });
                taken.await
            });
            has_begun.recv().await.expect("a piece is taken");
            let rows = Rows {
                campaign,
                stamp: 5,
                content: 1,
                class: Class::AtMostOnce,
                mends: false,
                told: BTreeMap::new(),
                under_way: BTreeSet::new(),
                doubt: Arc::new(AtomicBool::new(true)),
                uploaded: None,
            };
            let store = t.store.clone();
            let again = tokio::spawn(async move { store.write("story.again", move |tx| rows.write(tx)).await });
            tokio::time::sleep(Duration::from_millis(300)).await;
            let_go.send(()).expect("the commit goes on");
            assert_eq!(taking.await.expect("it ends"), Ok(1));
            assert_eq!(again.await.expect("it ends"), Ok(()));
            let state = t.store.rows("story.state", "select state from recipients", &[]).await.expect("rows");
            let state: String = state.first().expect("a row").get(0).expect("a state");
            assert_eq!(state, "queued", "nobody calls for what was taken so, and nobody called");
        }
    }
}
