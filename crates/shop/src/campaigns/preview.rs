//! What somebody sees before many people get it: the words, the people, and how long it takes.

use serde::Serialize;

use semel_kernel::args;
use semel_kernel::store::Tx;

use super::segments::{self, Audience};
use super::view::{self, MediaView};
use super::{CampaignId, Speed, State, Texts, flows, sql};
use crate::{Error, Shop};

/// Messages in a second that Telegram bears.
const PER_SECOND: u32 = 28;

/// A look at a campaign as it would leave now.
#[derive(Clone, Debug, Serialize)]
pub struct Preview {
    /// The campaign.
    pub id: CampaignId,
    /// Which words of it were looked at: they may change meanwhile.
    #[serde(skip)]
    pub content: i64,
    /// For the owner.
    pub title: String,
    /// Whom it would reach. Once it has begun its recipients stand, and this says who would be in it now.
    pub audience: Audience,
    /// What it says, by language.
    pub texts: Texts,
    /// Its picture or file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media: Option<MediaView>,
    /// The owner's limit; null when there is none.
    pub limit: Option<i64>,
    /// Whether it is over the limit, so that it would be refused.
    pub over_limit: bool,
    /// The number that has to be said once more to begin; null when none is needed.
    pub confirm: Option<i64>,
    /// How long it takes at the most speed that there is, in seconds.
    pub seconds: i64,
    /// What is still missing before it may begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<&'static str>,
}

/// Looks at what would be sent and to whom, and notes that it was looked at.
///
/// # Errors
/// [`Error::Conflict`] when it is over.
pub fn preview(tx: &mut Tx, shop: &Shop, id: &CampaignId) -> Result<Preview, Error> {
    let shown = look(tx, shop, id)?;
    seen(tx, &shown)?;
    Ok(shown)
}

/// The look alone. To count a large audience takes a while, and where there is one writer nobody else writes meanwhile: so this
/// belongs into a reading transaction, and [`seen`] into a writing one after it.
pub(super) fn look(tx: &mut Tx, shop: &Shop, id: &CampaignId) -> Result<Preview, Error> {
    let mut campaign = flows::find(tx, id)?;
    if matches!(campaign.state, State::Finished | State::Cancelled) {
        return Err(Error::Conflict("the campaign is over".into()));
    }
    campaign.previewed = campaign.content;
    let audience = segments::count(tx, &campaign.rule)?;
    let rules = &shop.rules.broadcast;
    Ok(Preview {
        id: id.clone(),
        content: campaign.content,
        audience,
        media: view::media(tx, id)?,
        limit: (rules.max_users > 0).then_some(rules.max_users),
        over_limit: rules.max_users > 0 && audience.to_send > rules.max_users,
        confirm: (audience.to_send > rules.confirm_over).then_some(audience.to_send),
        seconds: seconds(audience.to_send, rules.speed, shop.rules.telegram_rate),
        missing: campaign.missing(),
        title: campaign.title,
        texts: campaign.texts,
    })
}

/// Notes that this was looked at, if it still says so.
pub(super) fn seen(tx: &mut Tx, shown: &Preview) -> Result<(), Error> {
    tx.execute(sql::PREVIEWED, args![&shown.id, shown.content])?;
    Ok(())
}

/// How long so many messages take, rounded up, at `rate` a second at most.
pub(super) fn seconds(count: i64, speed: Option<Speed>, rate: u32) -> i64 {
    let rate = i64::from(rate.clamp(1, PER_SECOND));
    let allowed = (count + rate - 1) / rate;
    let wanted = speed.map_or(0, |speed| {
        let rest = i64::try_from(speed.rest.as_millis()).unwrap_or(i64::MAX);
        count.saturating_mul(rest) / i64::from(speed.batch.max(1)) / 1000
    });
    allowed.max(wanted)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_time_is_that_of_the_slower_of_both_speeds() {
        assert_eq!(seconds(0, None, 30), 0);
        assert_eq!(seconds(1, None, 30), 1);
        assert_eq!(seconds(5_000, None, 30), 179);
        let slow = Speed { batch: 25, rest: Duration::from_secs(5) };
        assert_eq!(seconds(5_000, Some(slow), 30), 1_000);
        assert_eq!(seconds(5_000, Some(Speed { batch: 100, rest: Duration::from_secs(1) }), 30), 179);
        assert_eq!(seconds(5_000, None, 5), 1_000, "the owner's own rate is slower");
    }
}
