//! A campaign as its owner sees it: where everybody stands, how fast it goes, and what is left.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::store::{Row, StoreError, Tx};

use super::segments::Rule;
use super::{Campaign, CampaignId, MediaKind, RecipientState, State, Texts, flows, preview, sql};
use crate::messages::Class;
use crate::{Error, Shop};

/// Speed is what ended in so long.
const LATELY: Duration = Duration::from_secs(15);

/// A campaign with its progress.
#[derive(Clone, Debug, Serialize)]
pub struct View {
    /// The campaign itself.
    #[serde(flatten)]
    pub line: Line,
    /// Who it goes to.
    pub rule: Rule,
    /// What it says, by language.
    pub texts: Texts,
    /// Its picture or file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media: Option<MediaView>,
    /// Whether what it says now was looked at.
    pub previewed: bool,
    /// Whether what it says now has arrived as a test.
    pub tested: bool,
    /// How far it is; null before it begins.
    pub progress: Option<Progress>,
}

/// A campaign in a list.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Its id.
    pub id: CampaignId,
    /// For the owner.
    pub title: String,
    /// Where it stands.
    pub state: State,
    /// What happens when nobody told us whether a message arrived.
    pub class: &'static str,
    /// Its recipients, all of them; zero before it begins.
    pub recipients: i64,
    /// Why it stands still.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it begins by itself, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts_at: Option<String>,
    /// Who made it.
    pub created_by: String,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// When it began, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it ended, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
}

impl From<&Campaign> for Line {
    fn from(campaign: &Campaign) -> Self {
        let time = |at: Option<Time>| at.map(|at| at.to_string());
        Self {
            id: campaign.id.clone(),
            title: campaign.title.clone(),
            state: campaign.state,
            class: Class::as_str(campaign.class),
            recipients: campaign.snapshot_count,
            reason: campaign.reason.clone(),
            starts_at: time(campaign.starts_at),
            created_by: campaign.created_by.clone(),
            created_at: campaign.created_at.to_string(),
            started_at: time(campaign.started_at),
            ended_at: time(campaign.ended_at),
        }
    }
}

/// How far a campaign is. The counts sum to its recipients, always.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Recipients, all of them.
    pub total: i64,
    /// Those whose row has its end.
    pub done: i64,
    /// Those who wait or are being sent to.
    pub left: i64,
    /// Recipients by where they stand; every state stands here.
    pub states: BTreeMap<&'static str, i64>,
    /// Rows that ended in the last quarter of a minute, four times as many: the speed now.
    pub per_minute: i64,
    /// How long the rest takes at this speed, or at the most there is before it shows one; null when it does not run.
    pub seconds_left: Option<i64>,
}

/// What it attaches, without its content.
#[derive(Clone, Debug, Serialize)]
pub struct MediaView {
    /// How it is shown.
    pub kind: MediaKind,
    /// The name that people see.
    pub name: String,
    /// Its media type.
    pub mime: String,
    /// Its length in bytes; zero when it was given by its file id.
    pub bytes: i64,
    /// Whether Telegram has it, so that it is not uploaded again.
    pub uploaded: bool,
}

/// One recipient.
#[derive(Clone, Debug, Serialize)]
pub struct RecipientView {
    /// The chat.
    pub chat_id: i64,
    /// `ru` or `en`.
    pub language: String,
    /// Their place in the order.
    pub n: i64,
    /// Where they stand.
    pub state: RecipientState,
    /// Telegram's number of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub telegram_id: Option<i64>,
    /// Why it did not arrive, or what happened last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When the row got its end, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
}

/// One campaign as its owner sees it.
///
/// # Errors
/// [`Error::NotFound`].
pub fn one(tx: &mut Tx, shop: &Shop, id: &CampaignId) -> Result<View, Error> {
    let campaign = flows::find(tx, id)?;
    Ok(View {
        line: Line::from(&campaign),
        media: media(tx, id)?,
        previewed: campaign.previewed == campaign.content,
        tested: campaign.tested == campaign.content,
        progress: if campaign.snapshot_count > 0 { Some(progress(tx, shop, &campaign)?) } else { None },
        rule: campaign.rule,
        texts: campaign.texts,
    })
}

fn progress(tx: &mut Tx, shop: &Shop, campaign: &Campaign) -> Result<Progress, Error> {
    let mut states: BTreeMap<&'static str, i64> = RecipientState::ALL.iter().map(|state| (state.as_str(), 0)).collect();
    let (mut total, mut left) = (0, 0);
    for row in tx.rows(sql::STATES, args![&campaign.id])? {
        let (state, count): (RecipientState, i64) = (row.get(0)?, row.get(1)?);
        states.insert(state.as_str(), count);
        total += count;
        if !state.is_end() {
            left += count;
        }
    }
    let now = tx.now();
    let lately: i64 = tx.one(sql::RECENT, args![&campaign.id, now - LATELY])?.get(0)?;
    let window = i64::try_from(LATELY.as_secs()).unwrap_or(1);
    // A campaign that is younger than the window has not had all of it.
    let age = campaign.started_at.map_or(window, |at| i64::try_from(now.since(at).as_secs()).unwrap_or(window));
    let per_minute = lately * 60 / age.clamp(1, window);
    let seconds_left = (campaign.state == State::Running).then(|| match per_minute {
        0 => preview::seconds(left, shop.rules.broadcast.speed, shop.rules.telegram_rate),
        speed => (left * 60 + speed - 1) / speed,
    });
    Ok(Progress { total, done: total - left, left, states, per_minute, seconds_left })
}

/// What a campaign attaches.
pub(super) fn media(tx: &mut Tx, id: &CampaignId) -> Result<Option<MediaView>, Error> {
    let Some(row) = tx.first(sql::MEDIA_HEAD, args![id])? else { return Ok(None) };
    let (kind, name, mime) = (row.get(0)?, row.get(1)?, row.get(2)?);
    Ok(Some(MediaView { kind, name, mime, bytes: row.get(3)?, uploaded: row.get(4)? }))
}

/// Recipients in their order, those after number `after`, and only those that stand so.
///
/// # Errors
/// [`Error::NotFound`].
pub fn recipients(
    tx: &mut Tx,
    id: &CampaignId,
    state: Option<RecipientState>,
    after: i64,
    limit: i64,
) -> Result<Vec<RecipientView>, Error> {
    flows::find(tx, id)?;
    let read = |row: &Row| {
        Ok::<_, StoreError>(RecipientView {
            chat_id: row.get(0)?,
            language: row.get(1)?,
            n: row.get(2)?,
            state: row.get(3)?,
            telegram_id: row.get(4)?,
            error: row.get(5)?,
            ended_at: row.get::<Option<Time>>(6)?.map(|at| at.to_string()),
        })
    };
    let rows = match state {
        None => tx.rows(sql::RECIPIENTS, args![id, after, limit])?,
        Some(state) => tx.rows(sql::RECIPIENTS_IN, args![id, after, limit, state.as_str()])?,
    };
    Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
}
