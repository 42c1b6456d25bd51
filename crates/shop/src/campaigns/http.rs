//! Campaigns, segments and tags over HTTP.

use axum::body::to_bytes;
use axum::extract::{Path, Query, Request, State as Extract};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use axum::{Extension, Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::json;

use semel_kernel::clock::Time;
use semel_kernel::keys;
use semel_kernel::store::Tx;

use super::segments::{self, Rule, Segment, SegmentId};
use super::view::{self, Line, RecipientView, View};
use super::{CampaignId, Draft, MediaKind, NewMedia, RecipientState, State, Texts, flows, preview};
use crate::messages::Class;
use crate::web::{KeyInHand, Problem, Strict, cursor, filter, in_hand, page, page_size};
use crate::{Error, Shop, owner_log};

/// The routes of this feature.
pub fn routes() -> Router<Shop> {
    Router::new()
        .route("/api/v1/campaigns", post(create).get(list))
        .route("/api/v1/campaigns/{id}", get(show).patch(change))
        .route("/api/v1/campaigns/{id}/media", post(attach))
        .route("/api/v1/campaigns/{id}/recipients", get(recipients))
        .route("/api/v1/campaigns/{id}/preview", post(look))
        .route("/api/v1/campaigns/{id}/test", post(test))
        .route("/api/v1/campaigns/{id}/schedule", post(schedule))
        .route("/api/v1/campaigns/{id}/start", post(start))
        .route("/api/v1/campaigns/{id}/pause", post(pause))
        .route("/api/v1/campaigns/{id}/resume", post(resume))
        .route("/api/v1/campaigns/{id}/cancel", post(cancel))
        .route("/api/v1/campaigns/{id}/resend-failed", post(resend))
        .route("/api/v1/segments", post(save_segment).get(list_segments))
        .route("/api/v1/segments/{id}", patch(change_segment).get(show_segment))
        .route("/api/v1/tags/{id}", post(tag))
}

/// The longest picture or file that may be uploaded, in bytes. Whoever serves these routes lets `/api/v1/campaigns/{id}/media`
/// have a body of this length.
pub const UPLOAD_BYTES: usize = 20 * 1024 * 1024;

/// Who acts, in a campaign's history. The owner's log knows the token.
const BY: &str = "api";
const NAME_CHARS: usize = 120;
const MIME_CHARS: usize = 100;
const FILE_ID_CHARS: usize = 256;

fn named(text: &str) -> Result<CampaignId, Problem> {
    CampaignId::parse(text).ok_or_else(|| Error::missing("campaign", format!("{text:.80}")).into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    state: Option<String>,
    cursor: Option<String>,
    limit: Option<i64>,
}

async fn list(Extract(shop): Extract<Shop>, Query(filter): Query<Filter>) -> Result<Response, Problem> {
    let limit = page_size(filter.limit)?;
    let state = match filter.state.as_deref() {
        None => None,
        Some(word) => Some(State::parse(word).ok_or_else(|| Error::invalid("state", "no such state of a campaign"))?),
    };
    let before = cursor(filter.cursor.as_deref(), CampaignId::parse)?;
    let campaigns = shop.read("campaigns.list", move |tx| flows::list(tx, state, before.as_ref(), limit + 1)).await?;
    Ok(page(campaigns.iter().map(Line::from).collect(), limit, |line: &Line| line.id.clone()))
}

async fn show(Extract(shop): Extract<Shop>, Path(id): Path<String>) -> Result<Response, Problem> {
    Ok(Json(load(&shop, named(&id)?).await?).into_response())
}

async fn load(shop: &Shop, id: CampaignId) -> Result<View, Error> {
    let of = shop.clone();
    shop.read("campaign.view", move |tx| view::one(tx, &of, &id)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MediaBody {
    kind: MediaKind,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    mime: Option<String>,
    #[serde(default)]
    base64: Option<String>,
    #[serde(default)]
    file_id: Option<String>,
}

impl MediaBody {
    fn read(self) -> Result<NewMedia, Error> {
        let bytes = match &self.base64 {
            None => Vec::new(),
            Some(text) => STANDARD.decode(text).map_err(|_| Error::invalid("media.base64", "is not base64"))?,
        };
        if bytes.is_empty() == self.file_id.is_none() {
            return Err(Error::invalid("media", "give either its content in base64 or its file_id"));
        }
        new_media(self.kind, self.name, self.mime, bytes, self.file_id)
    }
}

/// A picture or a file, if it can be one.
fn new_media(
    kind: MediaKind,
    name: Option<String>,
    mime: Option<String>,
    bytes: Vec<u8>,
    file_id: Option<String>,
) -> Result<NewMedia, Error> {
    let usual = match kind {
        MediaKind::Photo => ("picture.png", "image/png"),
        MediaKind::Document => ("file", "application/octet-stream"),
    };
    let (name, mime) = (name.unwrap_or_else(|| usual.0.into()), mime.unwrap_or_else(|| usual.1.into()));
    let plain = |text: &str, most| (1..=most).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    // Both travel in the head of a part of the upload.
    if !plain(&name, NAME_CHARS) || name.contains(['"', '/', '\\']) {
        return Err(Error::invalid("media.name", format!("a file's name of 1 to {NAME_CHARS} characters")));
    }
    let sound_mime = mime.split_once('/').is_some_and(|(kind, sub)| !kind.is_empty() && !sub.is_empty());
    if !sound_mime || !plain(&mime, MIME_CHARS) || !mime.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::invalid("media.mime", "a media type such as image/png"));
    }
    if file_id.as_deref().is_some_and(|id| !plain(id, FILE_ID_CHARS)) {
        return Err(Error::invalid("media.file_id", "a file_id as Telegram gave it"));
    }
    Ok(NewMedia { kind, name, mime, bytes, file_id })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewBody {
    title: String,
    #[serde(default)]
    class: Option<String>,
    /// The id or the name of a saved one.
    #[serde(default)]
    segment: Option<String>,
    #[serde(default)]
    rule: Option<Rule>,
    texts: Texts,
    #[serde(default)]
    media: Option<MediaBody>,
}

fn class_of(word: Option<&str>) -> Result<Class, Error> {
    match word {
        None | Some("at_most_once") => Ok(Class::AtMostOnce),
        Some("at_least_once") => Ok(Class::AtLeastOnce),
        Some(_) => Err(Error::invalid("class", "at_most_once or at_least_once")),
    }
}

/// A rule of one's own, or that of a saved segment; never neither, because a slip would mean everybody.
fn rule_of(tx: &mut Tx, segment: Option<&str>, rule: Option<&Rule>) -> Result<Rule, Error> {
    match (segment, rule) {
        (Some(name), None) => Ok(segments::find(tx, name)?.rule),
        (None, Some(rule)) => Ok(rule.clone()),
        _ => Err(Error::invalid("rule", "give either a segment or a rule; {} is everybody")),
    }
}

async fn create(
    Extract(shop): Extract<Shop>,
    key: Option<Extension<KeyInHand>>,
    Strict(body): Strict<NewBody>,
) -> Result<Response, Problem> {
    let (key, resume) = in_hand(key);
    if let Some(done) = resume.as_deref().and_then(CampaignId::parse) {
        return Ok((StatusCode::CREATED, Json(load(&shop, done).await?)).into_response());
    }
    let (title, class, texts) = (body.title, class_of(body.class.as_deref())?, body.texts);
    let media = body.media.map(MediaBody::read).transpose()?;
    let id = shop
        .write("campaign.create", move |tx, shop| {
            let rule = rule_of(tx, body.segment.as_deref(), body.rule.as_ref())?;
            let draft = Draft { title: title.clone(), class, rule, texts: texts.clone(), media: media.clone() };
            let id = flows::create(tx, shop, &draft, BY)?;
            if let Some(key) = &key {
                keys::bind(tx, key, id.as_str())?;
            }
            owner_log::about(id.as_str());
            Ok(id)
        })
        .await?;
    Ok((StatusCode::CREATED, Json(load(&shop, id).await?)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeBody {
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    class: Option<String>,
    #[serde(default)]
    segment: Option<String>,
    #[serde(default)]
    rule: Option<Rule>,
    #[serde(default)]
    texts: Option<Texts>,
    #[serde(default)]
    media: Option<MediaBody>,
    /// Takes the attachment away.
    #[serde(default)]
    without_media: bool,
}

async fn change(
    Extract(shop): Extract<Shop>,
    Path(id): Path<String>,
    Strict(body): Strict<ChangeBody>,
) -> Result<Response, Problem> {
    let id = named(&id)?;
    let class = body.class.as_deref().map(|word| class_of(Some(word))).transpose()?;
    let media = body.media.map(MediaBody::read).transpose()?;
    if media.is_some() && body.without_media {
        return Err(Error::invalid("media", "either another one or none").into());
    }
    let (title, texts, segment, rule) = (body.title, body.texts, body.segment, body.rule);
    let keeps_media = media.is_none() && !body.without_media;
    let of = id.clone();
    shop.write("campaign.change", move |tx, shop| {
        let before = flows::find(tx, &of)?;
        let rule = match (&segment, &rule) {
            (None, None) => before.rule,
            (segment, rule) => rule_of(tx, segment.as_deref(), rule.as_ref())?,
        };
        let draft = Draft {
            title: title.clone().unwrap_or(before.title),
            class: class.unwrap_or(before.class),
            rule,
            texts: texts.clone().unwrap_or(before.texts),
            media: media.clone(),
        };
        flows::change(tx, shop, &of, &draft, keeps_media)
    })
    .await?;
    Ok(Json(load(&shop, id).await?).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MediaQuery {
    kind: MediaKind,
    #[serde(default)]
    name: Option<String>,
}

/// Takes the attachment as the body itself: too long for JSON, and nothing has to be told apart in it.
async fn attach(
    Extract(shop): Extract<Shop>,
    Path(id): Path<String>,
    Query(given): Query<MediaQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let id = named(&id)?;
    let mime = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    // What clients say who were not told what it is.
    let mime = mime.filter(|kind| *kind != "application/x-www-form-urlencoded").map(str::to_owned);
    let bytes = to_bytes(request.into_body(), UPLOAD_BYTES).await.map_err(|_| Problem::too_large(UPLOAD_BYTES))?;
    if bytes.is_empty() {
        return Err(Error::invalid("media", "the body is empty: send the file as it is").into());
    }
    let media = new_media(given.kind, given.name, mime, bytes.to_vec(), None)?;
    let of = id.clone();
    shop.write("campaign.attach", move |tx, shop| flows::attach(tx, shop, &of, &media)).await?;
    Ok(Json(load(&shop, id).await?).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecipientFilter {
    state: Option<String>,
    cursor: Option<String>,
    limit: Option<i64>,
}

async fn recipients(
    Extract(shop): Extract<Shop>,
    Path(id): Path<String>,
    Query(filter): Query<RecipientFilter>,
) -> Result<Response, Problem> {
    let (id, limit) = (named(&id)?, page_size(filter.limit)?);
    let state = match filter.state.as_deref() {
        None => None,
        Some(word) => {
            Some(RecipientState::parse(word).ok_or_else(|| Error::invalid("state", "no such state of a recipient"))?)
        }
    };
    let after = cursor(filter.cursor.as_deref(), |text| text.parse::<i64>().ok())?.unwrap_or(0);
    let items = shop.read("campaign.recipients", move |tx| view::recipients(tx, &id, state, after, limit + 1)).await?;
    Ok(page(items, limit, |recipient: &RecipientView| recipient.n.to_string()))
}

/// A body that says nothing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

async fn look(
    Extract(shop): Extract<Shop>,
    Path(id): Path<String>,
    Strict(Nothing {}): Strict<Nothing>,
) -> Result<Response, Problem> {
    let id = named(&id)?;
    let of = shop.clone();
    let shown = shop.read("campaign.count", move |tx| preview::look(tx, &of, &id)).await?;
    let noted = shown.clone();
    shop.write("campaign.preview", move |tx, _| preview::seen(tx, &noted)).await?;
    Ok(Json(shown).into_response())
}

async fn test(
    Extract(shop): Extract<Shop>,
    Path(id): Path<String>,
    Strict(Nothing {}): Strict<Nothing>,
) -> Result<Response, Problem> {
    act(&shop, &id, "campaign.test.ask", flows::test).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScheduleBody {
    starts_at: String,
    #[serde(default)]
    confirm: Option<i64>,
}

async fn schedule(
    Extract(shop): Extract<Shop>,
    Path(id): Path<String>,
    Strict(body): Strict<ScheduleBody>,
) -> Result<Response, Problem> {
    let at: jiff::Timestamp =
        body.starts_at.parse().map_err(|_| Error::invalid("starts_at", "a moment as in 2026-03-01T12:00:00+03:00"))?;
    let at = Time::from_millis(at.as_millisecond());
    act(&shop, &id, "campaign.schedule", move |tx, shop, id| flows::schedule(tx, shop, id, at, body.confirm, BY)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StartBody {
    #[serde(default)]
    confirm: Option<i64>,
}

async fn start(
    Extract(shop): Extract<Shop>,
    Path(id): Path<String>,
    Strict(body): Strict<StartBody>,
) -> Result<Response, Problem> {
    act(&shop, &id, "campaign.start", move |tx, shop, id| flows::start(tx, shop, id, body.confirm, BY)).await
}

async fn pause(
    Extract(shop): Extract<Shop>,
    Path(id): Path<String>,
    Strict(Nothing {}): Strict<Nothing>,
) -> Result<Response, Problem> {
    act(&shop, &id, "campaign.pause", |tx, _, id| flows::pause(tx, id, BY)).await
}

async fn resume(
    Extract(shop): Extract<Shop>,
    Path(id): Path<String>,
    Strict(Nothing {}): Strict<Nothing>,
) -> Result<Response, Problem> {
    act(&shop, &id, "campaign.resume", |tx, shop, id| flows::resume(tx, shop, id, BY)).await
}

async fn cancel(
    Extract(shop): Extract<Shop>,
    Path(id): Path<String>,
    Strict(Nothing {}): Strict<Nothing>,
) -> Result<Response, Problem> {
    act(&shop, &id, "campaign.cancel", |tx, shop, id| flows::cancel(tx, shop, id, BY)).await
}

async fn resend(
    Extract(shop): Extract<Shop>,
    Path(id): Path<String>,
    Strict(Nothing {}): Strict<Nothing>,
) -> Result<Response, Problem> {
    act(&shop, &id, "campaign.resend", |tx, shop, id| flows::resend_failed(tx, shop, id, BY)).await
}

/// Does what changes a campaign, and answers how it stands then.
async fn act<F>(shop: &Shop, id: &str, label: &'static str, f: F) -> Result<Response, Problem>
where
    F: Fn(&mut Tx, &Shop, &CampaignId) -> Result<(), Error> + Send + 'static,
{
    let id = named(id)?;
    let of = id.clone();
    shop.write(label, move |tx, shop| f(tx, shop, &of)).await?;
    Ok(Json(load(shop, id).await?).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SegmentBody {
    name: String,
    rule: Rule,
}

async fn save_segment(
    Extract(shop): Extract<Shop>,
    key: Option<Extension<KeyInHand>>,
    Strict(body): Strict<SegmentBody>,
) -> Result<Response, Problem> {
    let (key, resume) = in_hand(key);
    if let Some(done) = resume.as_deref().and_then(SegmentId::parse) {
        return Ok((StatusCode::CREATED, Json(counted(&shop, done.to_string()).await?)).into_response());
    }
    let (name, rule) = (body.name, body.rule.checked()?);
    let id = shop
        .write("segment.save", move |tx, shop| {
            let id = segments::create(tx, shop, &name, &rule)?;
            if let Some(key) = &key {
                keys::bind(tx, key, id.as_str())?;
            }
            owner_log::about(id.as_str());
            Ok(id)
        })
        .await?;
    Ok((StatusCode::CREATED, Json(counted(&shop, id.to_string()).await?)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleBody {
    rule: Rule,
}

async fn change_segment(
    Extract(shop): Extract<Shop>,
    Path(id): Path<String>,
    Strict(body): Strict<RuleBody>,
) -> Result<Response, Problem> {
    let rule = body.rule.checked()?;
    let found = shop
        .write("segment.change", move |tx, _| {
            let segment = segments::find(tx, &id)?;
            segments::change(tx, &segment.id, &rule)?;
            Ok(segment.id)
        })
        .await?;
    Ok(Json(counted(&shop, found.to_string()).await?).into_response())
}

async fn show_segment(Extract(shop): Extract<Shop>, Path(id): Path<String>) -> Result<Response, Problem> {
    Ok(Json(counted(&shop, id).await?).into_response())
}

/// A segment with who belongs to it now.
async fn counted(shop: &Shop, id_or_name: String) -> Result<serde_json::Value, Problem> {
    let (segment, audience) = shop
        .read("segment.count", move |tx| {
            let segment = segments::find(tx, &id_or_name)?;
            let audience = segments::count(tx, &segment.rule)?;
            Ok((segment, audience))
        })
        .await?;
    let mut shown = serde_json::to_value(&segment).map_err(Problem::internal)?;
    shown["audience"] = serde_json::to_value(audience).map_err(Problem::internal)?;
    Ok(shown)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    cursor: Option<String>,
    limit: Option<i64>,
}

async fn list_segments(Extract(shop): Extract<Shop>, Query(asked): Query<Page>) -> Result<Response, Problem> {
    let limit = page_size(asked.limit)?;
    let after = filter("cursor", asked.cursor)?;
    let items = shop.read("segments.list", move |tx| segments::list(tx, after.as_deref(), limit + 1)).await?;
    Ok(page(items, limit, |segment: &Segment| segment.name.clone()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TagBody {
    #[serde(default)]
    add: Vec<i64>,
    #[serde(default)]
    remove: Vec<i64>,
}

async fn tag(
    Extract(shop): Extract<Shop>,
    Path(tag): Path<String>,
    Strict(body): Strict<TagBody>,
) -> Result<Response, Problem> {
    let word = tag.clone();
    let count = shop.write("customers.tag", move |tx, _| segments::tag(tx, &word, &body.add, &body.remove)).await?;
    Ok(Json(json!({ "tag": tag, "customers": count })).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Result<NewMedia, Error> {
        serde_json::from_str::<MediaBody>(text).expect("a body").read()
    }

    #[test]
    fn an_attachment_is_given_once_and_in_one_way() {
        let photo = body(r#"{"kind":"photo","base64":"aGk="}"#).expect("a picture");
        assert_eq!((photo.bytes.as_slice(), photo.mime.as_str()), (&b"hi"[..], "image/png"));
        assert!(body(r#"{"kind":"photo","file_id":"AgACAgIAAx"}"#).is_ok());
        for wrong in [
            r#"{"kind":"photo"}"#,
            r#"{"kind":"photo","base64":"aGk=","file_id":"x"}"#,
            r#"{"kind":"photo","base64":"?"}"#,
            r#"{"kind":"document","base64":"aGk=","name":"a\"b"}"#,
            r#"{"kind":"document","base64":"aGk=","mime":"png"}"#,
            r#"{"kind":"document","base64":"aGk=","mime":"image/p ng"}"#,
        ] {
            assert!(body(wrong).is_err(), "{wrong}");
        }
    }
}
