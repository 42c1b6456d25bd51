//! A campaign from its first word to its end: every change of its state.

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::history::{self, Entry};
use semel_kernel::jobs::{self, Dead, Job};
use semel_kernel::store::{Expect, Row, StoreError, Tx};

use super::segments::{self, Audience, Sweep, rule_of, text_of};
use super::{AT_A_TIME, Campaign, CampaignId, Draft, NewMedia, RecipientState, RunCampaign, State, sound, sql};
use crate::messages::Class;
use crate::shop::Lanes;
use crate::{Error, Shop, alerts};

/// A picture and a document may be so long at most, in bytes: what Telegram takes.
const PHOTO_BYTES: usize = 10 * 1024 * 1024;
const DOCUMENT_BYTES: usize = 50 * 1024 * 1024;

/// Makes a draft.
///
/// # Errors
/// [`Error::Invalid`] when Telegram would refuse what it says for everybody.
pub fn create(tx: &mut Tx, shop: &Shop, draft: &Draft, by: &str) -> Result<CampaignId, Error> {
    let (rule, texts) = checked(draft)?;
    let now = tx.now();
    let id = CampaignId::new(now, &shop.chance);
    tx.execute(sql::INSERT, args![&id, draft.title.trim(), draft.class.as_str(), rule, texts, now, by])?;
    keep_media(tx, shop, &id, draft.media.as_ref())?;
    tell(tx, &id, 1, "created", by, None, State::Draft, None)?;
    Ok(id)
}

/// Changes what a draft, or a campaign that stands still, says and to whom. Who has it already keeps what they got; before it
/// goes on it has to be looked at and tested again.
///
/// # Errors
/// [`Error::Conflict`] when it is on its way or over, [`Error::Invalid`] as for [`create`].
pub fn change(tx: &mut Tx, shop: &Shop, id: &CampaignId, draft: &Draft, keeps_media: bool) -> Result<(), Error> {
    let campaign = lock(tx, id)?;
    changeable(&campaign)?;
    let with_media = draft.media.is_some() || (keeps_media && super::view::media(tx, id)?.is_some());
    sound(&draft.title, &draft.texts, with_media)?;
    let rule = draft.rule.clone().checked()?;
    if campaign.state == State::Paused && rule != campaign.rule {
        return Err(Error::Conflict("it has begun, so its recipients stand: only what it says can be changed".into()));
    }
    if campaign.state == State::Paused && draft.class != campaign.class {
        return Err(Error::Conflict("it has begun, so what happens to lost answers stands as it was".into()));
    }
    let (rule, texts) = (text_of(&rule)?, text_of(&draft.texts)?);
    tx.execute(sql::CHANGE, args![id, draft.title.trim(), draft.class.as_str(), rule, texts])?;
    if !keeps_media {
        keep_media(tx, shop, id, draft.media.as_ref())?;
    }
    Ok(())
}

/// Gives a draft, or a campaign that stands still, another picture or file.
///
/// # Errors
/// As for [`change`]; the words below a picture or a file are shorter than others.
pub fn attach(tx: &mut Tx, shop: &Shop, id: &CampaignId, media: &NewMedia) -> Result<(), Error> {
    let campaign = lock(tx, id)?;
    changeable(&campaign)?;
    sound(&campaign.title, &campaign.texts, true)?;
    tx.execute(sql::CHANGED, args![id])?;
    keep_media(tx, shop, id, Some(media))
}

fn changeable(campaign: &Campaign) -> Result<(), Error> {
    if matches!(campaign.state, State::Draft | State::Paused) {
        return Ok(());
    }
    let state = campaign.state.as_str();
    Err(Error::Conflict(format!("the campaign is {state}: only a draft or a paused one can be changed")))
}

fn checked(draft: &Draft) -> Result<(String, String), Error> {
    sound(&draft.title, &draft.texts, draft.media.is_some())?;
    Ok((text_of(&draft.rule.clone().checked()?)?, text_of(&draft.texts)?))
}

fn keep_media(tx: &mut Tx, shop: &Shop, id: &CampaignId, media: Option<&NewMedia>) -> Result<(), Error> {
    tx.execute(sql::MEDIA_DELETE, args![id])?;
    let Some(media) = media else { return Ok(()) };
    let limit = match media.kind {
        super::MediaKind::Photo => PHOTO_BYTES,
        super::MediaKind::Document => DOCUMENT_BYTES,
    };
    if media.bytes.is_empty() && media.file_id.is_none() {
        return Err(Error::invalid("media", "give its content or its file_id"));
    }
    if media.bytes.len() > limit {
        return Err(Error::invalid("media", format!("at most {limit} bytes")));
    }
    // A file id is good for the bot that it was given to.
    let bot = media.file_id.as_ref().and_then(|_| shop.bot.as_ref()).map(|bot| bot.id().to_owned());
    let args =
        args![id, media.kind.as_str(), &media.name, &media.mime, media.bytes.clone(), media.file_id.clone(), bot];
    tx.execute(sql::MEDIA_INSERT, args)?;
    Ok(())
}

/// Queues a test of what it says now, in every language of it, to the owner and helpers.
///
/// # Errors
/// [`Error::Conflict`] without a bot or without anybody to send it to, or when it is over.
pub fn test(tx: &mut Tx, shop: &Shop, id: &CampaignId) -> Result<(), Error> {
    let campaign = lock(tx, id)?;
    if matches!(campaign.state, State::Finished | State::Cancelled) {
        return Err(Error::Conflict("the campaign is over".into()));
    }
    if shop.bot.is_none() {
        return Err(Error::Conflict("no bot is set up: set telegram.bot_token".into()));
    }
    if shop.rules.admins.is_empty() {
        return Err(Error::Conflict("there is nobody to send a test to: set telegram.admin_ids".into()));
    }
    let now = tx.now();
    let job = super::TestCampaign { campaign: id.clone(), content: campaign.content, at: now.millis() };
    jobs::enqueue(tx, &job, now, &shop.chance)?;
    Ok(())
}

/// Begins it now: its audience is written down, a large one piece by piece, and then the first rows leave. `confirm` is the
/// number of people, said once more; over the owner's number it is needed.
///
/// # Errors
/// [`Error::Conflict`] with the sentence that says what is missing, or with the number.
pub fn start(tx: &mut Tx, shop: &Shop, id: &CampaignId, confirm: Option<i64>, by: &str) -> Result<(), Error> {
    let campaign = lock(tx, id)?;
    if campaign.state == State::Paused {
        return Err(Error::Conflict("the campaign has begun and is paused: resume it".into()));
    }
    if campaign.state == State::Starting {
        return Err(Error::Conflict("the campaign has begun: its audience is being written down".into()));
    }
    ready(&campaign, State::Running)?;
    confirmed(shop, &audience(tx, shop, &campaign)?, confirm)?;
    begin(tx, &campaign, by)?;
    run(tx, shop, &campaign)
}

/// Lets it begin by itself at `at`, with the audience of that moment.
///
/// # Errors
/// As for [`start`].
pub fn schedule(
    tx: &mut Tx,
    shop: &Shop,
    id: &CampaignId,
    at: Time,
    confirm: Option<i64>,
    by: &str,
) -> Result<(), Error> {
    let campaign = lock(tx, id)?;
    ready(&campaign, State::Scheduled)?;
    let now = tx.now();
    if at <= now {
        return Err(Error::invalid("starts_at", format!("a moment to come; now it is {now}")));
    }
    confirmed(shop, &audience(tx, shop, &campaign)?, confirm)?;
    tx.execute(sql::STARTS_AT, args![id, at])?;
    go(tx, &campaign, State::Scheduled, by, None)?;
    next_round(tx, shop, &campaign, at)
}

/// Writes the first of its audience down. Where these are all it runs, else its job goes on with the others. The job is the
/// caller's business.
pub(super) fn begin(tx: &mut Tx, campaign: &Campaign, by: &str) -> Result<(), Error> {
    let mut campaign = Campaign { sweep: Some(Sweep::of(tx, &campaign.rule)?), ..campaign.clone() };
    let is_all = write_down(tx, &mut campaign)?;
    go(tx, &campaign, if is_all { State::Running } else { State::Starting }, by, None)
}

/// Writes the next piece of its audience down. True when everybody stands there.
pub(super) fn write_down(tx: &mut Tx, campaign: &mut Campaign) -> Result<bool, Error> {
    let Some(sweep) = campaign.sweep.take() else { return Ok(true) };
    let (written, next) = sweep.write(tx, campaign.id.as_str(), &campaign.rule, campaign.snapshot_count)?;
    campaign.snapshot_count += i64::try_from(written).unwrap_or(i64::MAX);
    campaign.sweep = next;
    let (after, until) = match &campaign.sweep {
        Some(sweep) => (Some(sweep.after.clone()), Some(sweep.until.clone())),
        None => (None, None),
    };
    tx.execute(sql::SWEPT, args![&campaign.id, campaign.snapshot_count, after, until])?;
    Ok(campaign.sweep.is_none())
}

/// Everybody is written down, so it runs; unless more people came into the segment meanwhile than the owner's limit allows.
pub(super) fn set_off(tx: &mut Tx, shop: &Shop, campaign: &Campaign) -> Result<(), Error> {
    let count: i64 = tx.one(sql::QUEUED, args![&campaign.id])?.get(0)?;
    let Some(why) = over_limit(shop, count) else { return go(tx, campaign, State::Running, "campaign.run", None) };
    go(tx, campaign, State::Paused, "campaign.run", Some(&why))?;
    let key = format!("campaign:{}:{}:over-limit", campaign.id, campaign.version);
    alerts::flows::raise(tx, shop, key, format!("The campaign {} stands still: {why}", campaign.title))
}

/// Stands still. What is on its way right now still ends.
///
/// # Errors
/// [`Error::Conflict`] when it does not run.
pub fn pause(tx: &mut Tx, id: &CampaignId, by: &str) -> Result<(), Error> {
    let campaign = lock(tx, id)?;
    if campaign.state == State::Paused {
        return Ok(());
    }
    go(tx, &campaign, State::Paused, by, Some("paused by hand"))
}

/// Goes on where it stood still.
///
/// # Errors
/// [`Error::Conflict`] when it does not stand still, or was changed and not looked at and tested since.
pub fn resume(tx: &mut Tx, shop: &Shop, id: &CampaignId, by: &str) -> Result<(), Error> {
    let campaign = lock(tx, id)?;
    if matches!(campaign.state, State::Starting | State::Running) {
        // Its job may have given up: then this is the way to another one.
        return run(tx, shop, &campaign);
    }
    if campaign.state != State::Paused {
        return Err(unfit(&campaign));
    }
    ready(&campaign, State::Running)?;
    if campaign.sweep.is_none() && campaign.started_at.is_none() {
        // It was written down and never ran: the limit is still to be kept.
        let count: i64 = tx.one(sql::QUEUED, args![id])?.get(0)?;
        if let Some(why) = over_limit(shop, count) {
            return Err(Error::Conflict(why));
        }
    }
    go(tx, &campaign, if campaign.sweep.is_some() { State::Starting } else { State::Running }, by, None)?;
    run(tx, shop, &campaign)
}

/// Calls it off. What is on its way right now still ends; who has not got it gets it no more.
///
/// # Errors
/// [`Error::Conflict`] when it is over.
pub fn cancel(tx: &mut Tx, shop: &Shop, id: &CampaignId, by: &str) -> Result<(), Error> {
    let campaign = lock(tx, id)?;
    if campaign.state == State::Cancelled {
        return Ok(());
    }
    go(tx, &campaign, State::Cancelled, by, None)?;
    let now = tx.now();
    let is_all = cancel_queued(tx, id)?;
    // Its job writes how what is on its way ends, and calls off who is left. Where there is none, nobody will ever tell.
    if !pull(tx, &campaign)? {
        tx.execute(sql::LOST, args![id, now, i64::MAX])?;
        if !is_all {
            return run(tx, shop, &campaign);
        }
    }
    Ok(())
}

/// Calls off the next ones who have not got it. True when nobody is left.
pub(super) fn cancel_queued(tx: &mut Tx, id: &CampaignId) -> Result<bool, StoreError> {
    let now = tx.now();
    Ok(tx.execute(sql::CANCEL_QUEUED, args![id, now, AT_A_TIME])? < AT_A_TIME.unsigned_abs())
}

/// What follows from a job that gave up. Its campaign stands still with the reason, and going on gives it another job; one that
/// was to begin by itself waits for its owner. True when the owner was told here.
///
/// # Errors
/// The database did not answer.
pub fn buried(tx: &mut Tx, shop: &Shop, dead: &Dead) -> Result<bool, Error> {
    if dead.kind != RunCampaign::KIND {
        return Ok(false);
    }
    let Some(id) = dead.thread.as_deref().and_then(CampaignId::parse) else { return Ok(false) };
    let Some(row) = tx.first(sql::LOCK, args![&id])? else { return Ok(false) };
    let campaign = campaign(&row)?;
    let (to, way) = match campaign.state {
        State::Starting | State::Running => (State::Paused, "resume"),
        State::Scheduled => (State::Draft, "start"),
        State::Cancelled => {
            // Nobody resumes it, and whoever has not got it is still to be called off.
            run(tx, shop, &campaign)?;
            return Ok(false);
        }
        State::Draft | State::Paused | State::Finished => return Ok(false),
    };
    go(tx, &campaign, to, "campaign.run", Some(&format!("its job gave up: {}", dead.error)))?;
    let text = format!(
        "The campaign {} stands still: its job {} gave up ({}). Nobody was lost: `semel broadcast {way} {id}` makes it go on",
        campaign.title, dead.job, dead.error
    );
    alerts::flows::raise(tx, shop, format!("campaign:{id}:dead:{}", dead.job), text)?;
    Ok(true)
}

/// Sends it again to those for whom it failed until now, a piece of them after the other. Who blocked the bot, is gone,
/// or may have it is not among them.
///
/// # Errors
/// [`Error::Conflict`] when it is not finished, or failed for nobody.
pub fn resend_failed(tx: &mut Tx, shop: &Shop, id: &CampaignId, by: &str) -> Result<(), Error> {
    let campaign = lock(tx, id)?;
    if campaign.state != State::Finished {
        return Err(unfit(&campaign));
    }
    let now = tx.now();
    tx.execute(sql::RESEND_UNTIL, args![id, now])?;
    if resend_piece(tx, id)? == 0 {
        return Err(Error::Conflict(nobody_failed(tx, id)?));
    }
    go(tx, &campaign, State::Running, by, None)?;
    run(tx, shop, &campaign)
}

/// Why a repeat reaches nobody. Who may have it is named: they are what the owner is looking for here.
fn nobody_failed(tx: &mut Tx, id: &CampaignId) -> Result<String, Error> {
    let mut unknown = 0;
    for row in tx.rows(sql::STATES, args![id])? {
        let (state, count): (RecipientState, i64) = (row.get(0)?, row.get(1)?);
        if state == RecipientState::Unknown {
            unknown = count;
        }
    }
    let why = "it failed for nobody whom a repeat could reach";
    Ok(match unknown {
        0 => why.to_owned(),
        _ => format!(
            "{why}. {unknown} unknown: they may have it or not, so it does not go to them again; a campaign of the class \
             at_least_once sends such a message twice rather than not at all"
        ),
    })
}

/// Of those for whom it had failed when somebody asked to send it again, the next ones wait again. How many.
pub(super) fn resend_piece(tx: &mut Tx, id: &CampaignId) -> Result<u64, StoreError> {
    tx.execute(sql::RESEND, args![id, AT_A_TIME])
}

/// After a restore nobody knows what was sent since the backup: what may not go twice counts as unknown, and what was to begin
/// by itself waits for its owner. Answers how many recipients there were. In one go, however many they are: it commits together
/// with safe mode, before any work begins, so nobody waits for it.
///
/// # Errors
/// The database did not answer.
pub fn forget_queued(tx: &mut Tx) -> Result<u64, StoreError> {
    let now = tx.now();
    let mut forgotten = 0;
    for state in [State::Starting, State::Running, State::Paused, State::Scheduled] {
        let rows = tx.rows(sql::LIST, args!["cmp_z", state.as_str(), i64::MAX])?;
        for row in &rows {
            let campaign = campaign(row)?;
            if state == State::Scheduled {
                go(tx, &campaign, State::Draft, "restore", Some(RESTORED)).map_err(store_error)?;
            } else if campaign.class == Class::AtMostOnce {
                if state == State::Starting {
                    // Who is not written down yet may have it, too: there is no going on.
                    go(tx, &campaign, State::Cancelled, "restore", Some(RESTORED)).map_err(store_error)?;
                }
                forgotten += tx.execute(sql::FORGET_QUEUED, args![&campaign.id, now])?;
            }
        }
    }
    Ok(forgotten)
}

const RESTORED: &str = "the database was restored from a backup: it may have been sent since";

fn store_error(error: Error) -> StoreError {
    match error {
        Error::Store(error) => error,
        other => StoreError::Statement(other.to_string()),
    }
}

/// Refuses what may not go to `to`, or not yet.
fn ready(campaign: &Campaign, to: State) -> Result<(), Error> {
    if campaign.state.event_to(to).is_none() || campaign.state == State::Finished {
        return Err(unfit(campaign));
    }
    match campaign.missing() {
        Some(missing) => Err(Error::Conflict(missing.to_owned())),
        None => Ok(()),
    }
}

/// Why it does not go from where it stands to where somebody wants it, with what can be done there.
fn unfit(campaign: &Campaign) -> Error {
    let id = &campaign.id;
    Error::Conflict(match campaign.state {
        State::Draft => format!("it has not begun: `semel broadcast start {id}` begins it"),
        State::Scheduled => {
            let at = campaign.starts_at.map(|at| format!(" at {at}")).unwrap_or_default();
            format!("it has not begun and begins by itself{at}: `semel broadcast cancel {id}` calls it off")
        }
        State::Starting | State::Running => {
            format!("it has begun and is on its way: `semel broadcast status {id}` says how far it is")
        }
        State::Paused => format!("it stands still: `semel broadcast resume {id}` makes it go on"),
        State::Finished => format!(
            "it is finished, and who has it keeps it: `semel broadcast resend-failed {id}` sends it again to those for whom it failed"
        ),
        State::Cancelled => "it was called off for good: write another one with `semel broadcast create`".to_owned(),
    })
}

/// Who would get it now. Refuses an audience of nobody, and one over the owner's limit: never a part of it in place of the whole.
pub(super) fn audience(tx: &mut Tx, shop: &Shop, campaign: &Campaign) -> Result<Audience, Error> {
    let audience = segments::count(tx, &campaign.rule)?;
    if audience.to_send == 0 {
        return Err(Error::Conflict(format!(
            "nobody would get it: {} people belong to the segment, and none of them can be written to",
            audience.people
        )));
    }
    over_limit(shop, audience.to_send).map_or(Ok(audience), |why| Err(Error::Conflict(why)))
}

/// Why so many people are too many.
fn over_limit(shop: &Shop, count: i64) -> Option<String> {
    let most = shop.rules.broadcast.max_users;
    (most > 0 && count > most).then(|| {
        format!(
            "it would go to {count} people, and the limit is {most} (broadcast.max_users, 0 is none): nothing was sent. \
             Narrow the segment or raise the limit"
        )
    })
}

fn confirmed(shop: &Shop, audience: &Audience, confirm: Option<i64>) -> Result<(), Error> {
    let count = audience.to_send;
    match confirm {
        Some(said) if said == count => Ok(()),
        Some(said) => {
            Err(Error::Conflict(format!("it would go to {count} people now, not to {said}: confirm that number")))
        }
        None if count > shop.rules.broadcast.confirm_over => Err(Error::Conflict(format!(
            "it would go to {count} people: to begin, send the same again with \"confirm\": {count}"
        ))),
        None => Ok(()),
    }
}

/// Wakes the job of a campaign that goes on, or gives it a new one: it has one job at a time.
fn run(tx: &mut Tx, shop: &Shop, campaign: &Campaign) -> Result<(), Error> {
    if pull(tx, campaign)? {
        return Ok(());
    }
    let now = tx.now();
    next_round(tx, shop, campaign, now)
}

/// Gives a campaign another job, which begins at `at`.
fn next_round(tx: &mut Tx, shop: &Shop, campaign: &Campaign, at: Time) -> Result<(), Error> {
    tx.execute(sql::ROUND, args![&campaign.id])?;
    let job = RunCampaign { campaign: campaign.id.clone(), round: campaign.round + 1 };
    jobs::enqueue(tx, &job, at, &shop.chance)?;
    Ok(())
}

fn pull(tx: &mut Tx, campaign: &Campaign) -> Result<bool, StoreError> {
    let job = RunCampaign { campaign: campaign.id.clone(), round: campaign.round };
    match job.slot() {
        Some(slot) => jobs::pull(tx, RunCampaign::KIND, Lanes::CAMPAIGNS, &slot),
        None => Ok(false),
    }
}

/// Writes a change of state with its row of history. The campaign's row is held.
pub(super) fn go(tx: &mut Tx, campaign: &Campaign, to: State, by: &str, reason: Option<&str>) -> Result<(), Error> {
    let Some(event) = campaign.state.event_to(to) else { return Err(unfit(campaign)) };
    let now = tx.now();
    let args = args![&campaign.id, campaign.state.as_str(), to.as_str(), reason, now];
    tx.later(sql::MOVE, args, Expect::Rows(1))?;
    Ok(tell(tx, &campaign.id, campaign.version + 1, event, by, Some(campaign.state), to, reason)?)
}

#[expect(clippy::too_many_arguments, reason = "a row of history")]
fn tell(
    tx: &mut Tx,
    id: &CampaignId,
    n: i64,
    event: &str,
    by: &str,
    from: Option<State>,
    to: State,
    detail: Option<&str>,
) -> Result<(), StoreError> {
    history::append(
        tx,
        &Entry {
            entity: "campaign",
            entity_id: id.as_str(),
            n: Some(n),
            event,
            actor: Some(by),
            from: from.map(State::as_str),
            to: Some(to.as_str()),
            thread: Some(id.as_str()),
            detail,
            ..Entry::default()
        },
    )
}

/// A campaign by its id.
///
/// # Errors
/// [`Error::NotFound`].
pub fn find(tx: &mut Tx, id: &CampaignId) -> Result<Campaign, Error> {
    let row = tx.first(sql::FIND, args![id])?;
    Ok(campaign(&row.ok_or_else(|| Error::missing("campaign", id))?)?)
}

/// The same with its row held until the transaction ends.
pub(super) fn lock(tx: &mut Tx, id: &CampaignId) -> Result<Campaign, Error> {
    let row = tx.first(sql::LOCK, args![id])?;
    Ok(campaign(&row.ok_or_else(|| Error::missing("campaign", id))?)?)
}

/// Campaigns, the newest first: those before `before`, and only those that stand so.
///
/// # Errors
/// The database did not answer.
pub fn list(
    tx: &mut Tx,
    state: Option<State>,
    before: Option<&CampaignId>,
    limit: i64,
) -> Result<Vec<Campaign>, Error> {
    let before = before.map_or("cmp_z", CampaignId::as_str);
    let rows = tx.rows(sql::LIST, args![before, state.map(State::as_str), limit])?;
    Ok(rows.iter().map(campaign).collect::<Result<_, _>>()?)
}

fn campaign(row: &Row) -> Result<Campaign, StoreError> {
    let after: Option<String> = row.get(21)?;
    let until: Option<String> = row.get(22)?;
    let texts: String = row.get(5)?;
    let texts = serde_json::from_str(&texts)
        .map_err(|error| StoreError::Decode { wanted: "what a campaign says", found: error.to_string() })?;
    Ok(Campaign {
        id: row.get(0)?,
        title: row.get(1)?,
        state: row.get(2)?,
        class: row.get(3)?,
        rule: rule_of(&row.get::<String>(4)?)?,
        texts,
        content: row.get(6)?,
        previewed: row.get(7)?,
        tested: row.get(8)?,
        starts_at: row.get(9)?,
        snapshot_count: row.get(10)?,
        sweep: after.map(|after| Sweep { after, until: until.unwrap_or_default() }),
        round: row.get(11)?,
        fence: row.get(12)?,
        refused: row.get(13)?,
        next_piece_at: row.get(14)?,
        reason: row.get(15)?,
        version: row.get(16)?,
        created_by: row.get(17)?,
        created_at: row.get(18)?,
        started_at: row.get(19)?,
        ended_at: row.get(20)?,
    })
}
