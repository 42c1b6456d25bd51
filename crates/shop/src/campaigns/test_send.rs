//! A test: what the owner gets before anybody else does, by the same way and with the same bytes.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use semel_kernel::args;
use semel_kernel::jobs::{Claim, Ended, Job, JobError, Manner, Retry};
use semel_telegram::pacer::Lane;

use super::outcome::Fate;
use super::send::{Mail, To, deliver};
use super::{CampaignId, flows, sql};
use crate::shop::Lanes;
use crate::{Shop, alerts};

/// How soon a test is tried again that certainly did not leave.
const SOON: Duration = Duration::from_secs(5);
/// The longest wait before that; while Telegram does not know the token it is always as long.
const LATEST: Duration = Duration::from_secs(300);

/// Sends a campaign to the owner and helpers, in every language of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct TestCampaign {
    /// The campaign.
    pub campaign: CampaignId,
    /// The content that is tested: a test of another one proves nothing.
    pub content: i64,
    /// When it was asked for, in milliseconds: each asking is a test of its own.
    pub at: i64,
}

impl Job for TestCampaign {
    type Context = Shop;
    const KIND: &'static str = "campaign.test";
    const LANE: &'static str = Lanes::MESSAGES;
    const RETRY: Retry = Retry::backoff(Duration::from_secs(5), Duration::from_secs(60), 5);
    const MANNER: Option<Manner> = Some(Manner::Blind);

    fn slot(&self) -> Option<String> {
        Some(format!("{}:{}:{}", self.campaign, self.content, self.at))
    }

    fn thread(&self) -> Option<String> {
        Some(self.campaign.to_string())
    }

    async fn run(self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        let Some(bot) = shop.bot.clone() else { return over(shop, claim).await };
        let (id, content, of) = (self.campaign.clone(), self.content, bot.id().to_owned());
        let loaded = shop.read("campaign.test", move |tx| {
            let campaign = flows::find(tx, &id)?;
            let mail = Mail::load(tx, &id, campaign.texts.clone(), &of)?;
            Ok((campaign.content == content, campaign, mail))
        });
        let (fresh, campaign, mail) = loaded.await?;
        if !fresh {
            return over(shop, claim).await;
        }
        // Every try has ids of its own: a repeat is another message.
        let (fence, halt) = (claim.fence(), AtomicBool::new(false));
        let (mut uploaded, mut wrong) = (None, None);
        for language in campaign.texts.keys() {
            let mut arrived = false;
            for chat_id in &shop.rules.admins {
                let id = format!("{}:test:{content}:{fence}:{language}:{chat_id}", self.campaign);
                let to = To { id, chat_id: *chat_id, language: language.clone() };
                let fate = deliver(shop, &bot, &mail, &to, Lane::Answer, &halt).await;
                match fate {
                    Fate::Sent { file_id, .. } => {
                        arrived = true;
                        if let Some(file_id) = file_id
                            && mail.needs_upload()
                        {
                            mail.uploaded(&file_id);
                            uploaded = Some(file_id);
                        }
                    }
                    Fate::NotCalled { .. } | Fate::Slow { .. } | Fate::Later { .. } | Fate::BadToken { .. }
                        if !arrived =>
                    {
                        let wait = match fate {
                            Fate::BadToken { .. } => LATEST,
                            Fate::Slow { seconds, .. } => Duration::from_secs(seconds).clamp(SOON, LATEST),
                            _ => SOON,
                        };
                        let text = "the test has not left yet".to_owned();
                        return Err(JobError::Later { at: shop.now() + wait, text });
                    }
                    fate => wrong = Some(why(&fate)),
                }
            }
            if !arrived {
                let why = wrong.unwrap_or_else(|| "nobody got it".to_owned());
                return failed(shop, claim, &campaign.title, format!("in {language}: {why}")).await;
            }
        }
        let (id, content, of) = (self.campaign, self.content, bot.id().to_owned());
        let write = shop.write("campaign.tested", move |tx, _| {
            tx.execute(sql::TESTED, args![&id, content])?;
            if let Some(file_id) = &uploaded {
                tx.execute(sql::MEDIA_UPLOADED, args![&id, file_id, &of, content])?;
            }
            Ok(claim.finish(tx)?)
        });
        Ok(write.await?)
    }
}

fn why(fate: &Fate) -> String {
    match fate {
        Fate::ChatGone { text, .. } | Fate::Poison { text } | Fate::Refused { text } | Fate::Unclear { text } => {
            text.clone()
        }
        Fate::Moved { to } => format!("the chat moved on to {to}"),
        _ => "it did not leave".to_owned(),
    }
}

async fn over(shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
    Ok(shop.write("campaign.test.over", move |tx, _| Ok(claim.finish(tx)?)).await?)
}

async fn failed(shop: &Shop, claim: Claim, title: &str, why: String) -> Result<Ended, JobError> {
    let text = format!("The test of the campaign {title} did not arrive {why}");
    let write = shop.write("campaign.test.over", move |tx, shop| {
        alerts::flows::raise(tx, shop, format!("campaign-test:{}:{}", claim.job(), claim.fence()), text.clone())?;
        Ok(claim.finish_as(tx, semel_kernel::jobs::Outcome::Failed)?)
    });
    Ok(write.await?)
}
