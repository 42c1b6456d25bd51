//! `semel broadcast`: campaigns from the terminal, with a bar while they run and the number typed before they begin.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use semel_shop::campaigns::http::UPLOAD_BYTES;

use super::ask::{Asker, rows, text};
use super::out;

/// How often a running campaign is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Who is written down and gets nothing, known before the first message.
const LEFT_OUT: &str = "they blocked the bot, are gone, or switched campaigns off";
/// What an unknown end means, honestly.
const MAY_HAVE_IT: &str = ": may have it or not, and it does not go to them again";

/// What can be done with campaigns here. Changes of one that is written go over the API.
#[derive(Subcommand)]
pub enum BroadcastVerb {
    /// Campaigns, the newest first
    List {
        /// Only those in this state: draft, scheduled, starting, running, paused, finished, cancelled
        #[arg(long)]
        state: Option<String>,
    },
    /// Write a campaign; it goes to nobody before preview, test and start
    Create {
        /// What you call it; customers never see it
        title: String,
        /// A file with the words in Russian, in Telegram's HTML; who speaks a language that is not given gets the other's words
        #[arg(long, value_name = "FILE")]
        ru: Option<PathBuf>,
        /// The same in English
        #[arg(long, value_name = "FILE")]
        en: Option<PathBuf>,
        /// Who gets it: the name of a saved segment; everybody when left out
        #[arg(long)]
        segment: Option<String>,
        /// A file that goes with it, 20 MB at most, or a picture, 10 MB at most; the words below it are shorter then
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// How the file is shown: photo or document; by its name when left out
        #[arg(long = "as", value_name = "KIND", requires = "file", value_parser = ["photo", "document"])]
        kind: Option<String>,
        /// A button below the words: what stands on it, and the address that it opens. Each has a row of its own; the same for
        /// every language
        #[arg(long = "button", num_args = 2, value_names = ["TEXT", "URL"])]
        buttons: Vec<String>,
        /// When nobody tells whether a message arrived: at_most_once leaves it at that, at_least_once sends it again, so that
        /// somebody may have it twice
        #[arg(long, default_value = "at_most_once", value_parser = ["at_least_once", "at_most_once"])]
        class: String,
    },
    /// What would be sent, to how many people, and how long it takes
    Preview {
        /// The campaign's id
        id: String,
    },
    /// Send it to yourself
    Test {
        /// The campaign's id
        id: String,
    },
    /// Begin it; asks for the number of people first
    Start {
        /// The campaign's id
        id: String,
        /// The number of people, for a script that cannot be asked
        #[arg(long, value_name = "PEOPLE")]
        confirm: Option<i64>,
        /// Let it begin by itself at this moment, with the people of that moment, as in 2026-03-01T12:00:00+03:00
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
        /// Do not wait for its end
        #[arg(long)]
        detach: bool,
    },
    /// Let it stand still
    Pause {
        /// The campaign's id
        id: String,
    },
    /// Let it go on
    Resume {
        /// The campaign's id
        id: String,
    },
    /// Call it off for good
    Cancel {
        /// The campaign's id
        id: String,
    },
    /// Send it again to those for whom it failed, and to nobody else
    ResendFailed {
        /// The campaign's id
        id: String,
    },
    /// How far it is; follows it while it runs
    Status {
        /// The campaign's id
        id: String,
        /// Only look once
        #[arg(long)]
        once: bool,
    },
}

/// Runs `verb`.
pub(super) async fn broadcast(asker: &Asker, verb: BroadcastVerb) -> anyhow::Result<ExitCode> {
    match verb {
        BroadcastVerb::List { state } => list(asker, state).await,
        BroadcastVerb::Create { title, ru, en, segment, file, kind, buttons, class } => {
            let file = file.map(|path| Attached::read(&path, kind)).transpose()?;
            let mut texts = texts(ru, en)?;
            add_buttons(&mut texts, &buttons);
            create(asker, json!({ "title": title, "texts": texts, "class": class }), segment, file).await
        }
        BroadcastVerb::Preview { id } => {
            let seen = asker.post(&format!("/api/v1/campaigns/{id}/preview"), json!({})).await?;
            out::lines(&preview(&seen))
        }
        BroadcastVerb::Test { id } => {
            asker.post(&format!("/api/v1/campaigns/{id}/test"), json!({})).await?;
            let how = if asker.is_running() { "it comes in a moment" } else { "it comes when `semel serve` runs" };
            out::lines(&format!("the test goes to the owners; {how}"))
        }
        BroadcastVerb::Start { id, confirm, at, detach } => start(asker, &id, confirm, at, detach).await,
        BroadcastVerb::Pause { id } => act(asker, &id, "pause").await,
        BroadcastVerb::Resume { id } => act(asker, &id, "resume").await,
        BroadcastVerb::Cancel { id } => act(asker, &id, "cancel").await,
        BroadcastVerb::ResendFailed { id } => act(asker, &id, "resend-failed").await,
        BroadcastVerb::Status { id, once } => {
            let campaign = asker.get(&format!("/api/v1/campaigns/{id}")).await?;
            if once || !is_on_its_way(&campaign) {
                return out::lines(&status(&campaign));
            }
            follow(asker, &id, campaign).await
        }
    }
}

async fn list(asker: &Asker, state: Option<String>) -> anyhow::Result<ExitCode> {
    let filter = state.map(|state| format!("&state={state}")).unwrap_or_default();
    let answer = asker.get(&format!("/api/v1/campaigns?limit=50{filter}")).await?;
    let rows = rows(&answer, |row| {
        let people = row["recipients"].to_string();
        vec![text(&row["id"]), text(&row["state"]), people, text(&row["created_at"]), text(&row["title"])]
    });
    out::lines(&out::table(&["CAMPAIGN", "STATE", "PEOPLE", "MADE", "TITLE"], &rows))
}

async fn create(
    asker: &Asker,
    mut body: Value,
    segment: Option<String>,
    file: Option<Attached>,
) -> anyhow::Result<ExitCode> {
    match segment {
        Some(segment) => body["segment"] = Value::from(segment),
        None => body["rule"] = json!({}),
    }
    let made = asker.post("/api/v1/campaigns", body).await?;
    let id = text(&made["id"]);
    if let Some(file) = file {
        let path = format!("/api/v1/campaigns/{id}/media?kind={}&name={}", file.kind, query(&file.name));
        if let Err(error) = asker.upload(&path, file.mime, file.bytes).await {
            // Half of what was asked for is nothing that anybody wants.
            asker.post(&format!("/api/v1/campaigns/{id}/cancel"), json!({})).await?;
            return Err(error.context("the file was not taken, so there is no campaign"));
        }
    }
    out::lines(&id)
}

/// What it says, by language.
fn texts(ru: Option<PathBuf>, en: Option<PathBuf>) -> anyhow::Result<Map<String, Value>> {
    let mut texts = Map::new();
    for (language, file) in [("ru", ru), ("en", en)] {
        if let Some(file) = file {
            texts.insert(language.to_owned(), json!({ "html": words(&file)? }));
        }
    }
    anyhow::ensure!(!texts.is_empty(), "what does it say? Give --ru FILE, --en FILE or both");
    Ok(texts)
}

/// Puts buttons below the words of each language; each of them is a text and, behind it, an address.
fn add_buttons(texts: &mut Map<String, Value>, buttons: &[String]) {
    let rows: Vec<Value> =
        buttons.chunks(2).map(|button| json!([{ "text": button.first(), "url": button.get(1) }])).collect();
    for words in texts.values_mut() {
        words["buttons"] = Value::from(rows.clone());
    }
}

/// A picture or a file of this machine.
#[derive(Debug)]
struct Attached {
    kind: String,
    mime: &'static str,
    name: String,
    bytes: Vec<u8>,
}

/// Endings of pictures that Telegram shows as such, and what they are.
const PICTURES: &[(&str, &str)] =
    &[("jpg", "image/jpeg"), ("jpeg", "image/jpeg"), ("png", "image/png"), ("webp", "image/webp")];

impl Attached {
    fn read(path: &Path, kind: Option<String>) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        anyhow::ensure!(!bytes.is_empty(), "{} is empty", path.display());
        anyhow::ensure!(bytes.len() <= UPLOAD_BYTES, "{} is longer than {UPLOAD_BYTES} bytes", path.display());
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
        let picture = PICTURES.iter().find(|(known, _)| *known == ending);
        let usual = if picture.is_some() { "photo" } else { "document" };
        Ok(Self {
            kind: kind.unwrap_or_else(|| usual.to_owned()),
            mime: picture.map_or("application/octet-stream", |(_, mime)| *mime),
            name: path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            bytes,
        })
    }
}

/// A text as a value in an address.
fn query(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let sign = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(sign).collect()
}

fn words(file: &Path) -> anyhow::Result<String> {
    let words = std::fs::read_to_string(file).with_context(|| format!("cannot read {} as text", file.display()))?;
    Ok(words.trim().to_owned())
}

async fn act(asker: &Asker, id: &str, what: &str) -> anyhow::Result<ExitCode> {
    out::lines(&status(&asker.post(&format!("/api/v1/campaigns/{id}/{what}"), json!({})).await?))
}

/// Shows what would be sent, asks for the number of people, and begins, or lets it begin by itself `at` a moment.
async fn start(
    asker: &Asker,
    id: &str,
    confirm: Option<i64>,
    at: Option<String>,
    detach: bool,
) -> anyhow::Result<ExitCode> {
    let seen = asker.post(&format!("/api/v1/campaigns/{id}/preview"), json!({})).await?;
    let people = seen["audience"]["to_send"].as_i64().unwrap_or(0);
    if let Some(missing) = seen["missing"].as_str() {
        anyhow::bail!("{missing}");
    }
    let confirm = match confirm {
        Some(said) => said,
        None => {
            out::say(&preview(&seen))?;
            out::say(&format!("\nIt goes to {people} people. Type {people} to begin:"))?;
            typed(&mut std::io::stdin().lock())?
        }
    };
    anyhow::ensure!(confirm == people, "it would go to {people} people and not to {confirm}: nothing was sent");
    let begun = match at {
        Some(at) => {
            let wish = json!({ "starts_at": at, "confirm": confirm });
            asker.post(&format!("/api/v1/campaigns/{id}/schedule"), wish).await?
        }
        None => asker.post(&format!("/api/v1/campaigns/{id}/start"), json!({ "confirm": confirm })).await?,
    };
    if detach {
        return out::lines(&status(&begun));
    }
    follow(asker, id, begun).await
}

/// The number on the next line; an empty line or something else begins nothing.
fn typed(input: &mut impl BufRead) -> anyhow::Result<i64> {
    let mut line = String::new();
    input.read_line(&mut line).context("cannot read the answer")?;
    line.trim().parse().ok().context("that is no number: nothing was sent")
}

/// Whether it is being written down or sent.
fn is_on_its_way(campaign: &Value) -> bool {
    campaign["state"] == "starting" || campaign["state"] == "running"
}

/// Draws a bar until the campaign runs no more. An interruption stops the drawing and not the campaign.
async fn follow(asker: &Asker, id: &str, mut campaign: Value) -> anyhow::Result<ExitCode> {
    // Who was left out before it began is nobody to wait for.
    let progress = |campaign: &Value, name: &str| {
        let all = campaign["progress"][name].as_u64().unwrap_or(0);
        all.saturating_sub(campaign["progress"]["states"]["skipped"].as_u64().unwrap_or(0))
    };
    if !std::io::stderr().is_terminal() {
        return out::lines(&status(&campaign));
    }
    let bar = ProgressBar::new(progress(&campaign, "total"));
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len}  {msg}")?);
    while is_on_its_way(&campaign) {
        bar.set_length(progress(&campaign, "total"));
        bar.set_position(progress(&campaign, "done"));
        bar.set_message(pace(&campaign["progress"]));
        tokio::time::sleep(LOOK).await;
        campaign = asker.get(&format!("/api/v1/campaigns/{id}")).await?;
    }
    bar.finish_and_clear();
    out::lines(&status(&campaign))
}

/// The speed and what is left, on one line.
fn pace(progress: &Value) -> String {
    let per_minute = progress["per_minute"].as_i64().unwrap_or(0);
    let left = progress["seconds_left"].as_i64().map(|seconds| format!(", {} left", long(seconds))).unwrap_or_default();
    format!("{per_minute} a minute{left}")
}

/// Seconds as people say them.
fn long(seconds: i64) -> String {
    match (seconds / 3600, seconds % 3600 / 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// What would be sent, as a page of text.
fn preview(seen: &Value) -> String {
    let audience = &seen["audience"];
    let mut page = format!("campaign  {}\ntitle     {}\n", text(&seen["id"]), text(&seen["title"]));
    page.push_str(&format!(
        "people    {} get it ({} in Russian, {} in English)\n",
        audience["to_send"], audience["ru"], audience["en"]
    ));
    if let Some(skipped) = audience["skipped"].as_i64().filter(|skipped| *skipped > 0) {
        page.push_str(&format!("left out  {skipped} more: {LEFT_OUT}\n"));
    }
    for (language, name, other) in [("ru", "Russian", "English"), ("en", "English", "Russian")] {
        let speakers = audience[language].as_i64().unwrap_or(0);
        let has_words = seen["texts"].as_object().is_none_or(|texts| texts.is_empty() || texts.contains_key(language));
        if speakers > 0 && !has_words {
            page.push_str(&format!("note      it has no words in {name}: {speakers} of them get the {other} ones\n"));
        }
    }
    page.push_str(&format!("time      {}\n", long(seen["seconds"].as_i64().unwrap_or(0))));
    if seen["over_limit"] == true {
        page.push_str(&format!("limit     {} people: it would be refused\n", seen["limit"]));
    }
    if let Some(media) = seen["media"].as_object() {
        page.push_str(&format!("attached  {} {}\n", text(&media["kind"]), text(&media["name"])));
    }
    for (language, words) in seen["texts"].as_object().into_iter().flatten() {
        page.push_str(&format!("\n--- {language}\n{}\n", text(&words["html"])));
        for button in words["buttons"].as_array().into_iter().flatten().filter_map(Value::as_array).flatten() {
            let leads = button["url"].as_str().or(button["callback_data"].as_str()).unwrap_or_default();
            page.push_str(&format!("[ {} ]  {leads}\n", text(&button["text"])));
        }
    }
    if let Some(missing) = seen["missing"].as_str() {
        page.push_str(&format!("\nnot yet: {missing}\n"));
    }
    page
}

/// How far a campaign is, as a page of text.
fn status(campaign: &Value) -> String {
    let mut page = format!(
        "campaign  {}\ntitle     {}\nstate     {}\n",
        text(&campaign["id"]),
        text(&campaign["title"]),
        text(&campaign["state"])
    );
    if let Some(reason) = campaign["reason"].as_str() {
        page.push_str(&format!("because   {reason}\n"));
    }
    if let Some(at) = campaign["starts_at"].as_str().filter(|_| campaign["state"] == "scheduled") {
        page.push_str(&format!("begins    {at}\n"));
    }
    let progress = &campaign["progress"];
    if progress.is_object() {
        let count = |value: &Value| value.as_i64().unwrap_or(0);
        let skipped = count(&progress["states"]["skipped"]);
        let (done, total) = (count(&progress["done"]) - skipped, count(&progress["total"]) - skipped);
        page.push_str(&format!("done      {done} of {total}\n"));
        let states = progress["states"].as_object().into_iter().flatten();
        for (state, count) in states.filter(|(state, count)| *state != "skipped" && count.as_i64() != Some(0)) {
            let meaning = if state == "unknown" { MAY_HAVE_IT } else { "" };
            page.push_str(&format!("  {state:<9} {count}{meaning}\n"));
        }
        if skipped > 0 {
            page.push_str(&format!("left out  {skipped} more: {LEFT_OUT}\n"));
        }
        if campaign["state"] == "running" {
            page.push_str(&format!("speed     {}\n", pace(progress)));
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_begins() {
        assert_eq!(typed(&mut "1240\n".as_bytes()).expect("a number"), 1240);
        for other in ["", "\n", "yes\n", "1240 people\n"] {
            let said = typed(&mut other.as_bytes()).expect_err(other).to_string();
            assert!(said.contains("nothing was sent"), "{said}");
        }
    }

    #[test]
    fn a_preview_shows_words_people_and_what_is_missing() {
        let shown = preview(&json!({
            "id": "cmp_1", "title": "Spring", "audience": { "people": 4, "to_send": 3, "skipped": 1, "ru": 2, "en": 1 },
            "texts": { "ru": { "html": "<b>Привет</b>", "buttons": [[{ "text": "Открыть", "url": "https://t.me/x" }]] } },
            "limit": 2, "over_limit": true, "confirm": null, "seconds": 61, "missing": "send yourself a test first",
        }));
        for line in [
            "people    3 get it (2 in Russian, 1 in English)",
            "left out  1 more: they blocked the bot, are gone, or switched campaigns off",
            "note      it has no words in English: 1 of them get the Russian ones",
            "time      1 min 1 s",
            "limit     2 people: it would be refused",
            "<b>Привет</b>",
            "[ Открыть ]  https://t.me/x",
            "not yet: send yourself a test first",
        ] {
            assert!(shown.lines().any(|found| found == line), "{line} is missing in\n{shown}");
        }
    }

    #[test]
    fn who_was_left_out_is_counted_apart_and_the_unknown_are_named_so() {
        let shown = status(&json!({
            "id": "cmp_1", "title": "Spring", "state": "finished", "progress": {
                "total": 122, "done": 122, "left": 0, "states": { "sent": 114, "gone": 1, "unknown": 4, "skipped": 3 },
                "per_minute": 0, "seconds_left": null,
            },
        }));
        for line in [
            "done      119 of 119",
            "  sent      114",
            "  unknown   4: may have it or not, and it does not go to them again",
            "left out  3 more: they blocked the bot, are gone, or switched campaigns off",
        ] {
            assert!(shown.lines().any(|found| found == line), "{line} is missing in\n{shown}");
        }
        assert!(!shown.contains("skipped"), "{shown}");
    }

    #[test]
    fn a_campaign_says_something_in_one_language_or_in_both() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("words.html");
        std::fs::write(&file, "<b>Hello</b>\n").expect("a file");
        let said = texts(None, None).expect_err("no words").to_string();
        assert!(said.contains("Give --ru FILE, --en FILE or both"), "{said}");
        assert_eq!(texts(None, Some(file.clone())).expect("words")["en"]["html"], "<b>Hello</b>");
        assert_eq!(texts(Some(file.clone()), Some(file)).expect("words").len(), 2);
    }

    #[test]
    fn a_button_stands_below_the_words_of_each_language() {
        let mut texts =
            Map::from_iter([("ru".to_owned(), json!({ "html": "x" })), ("en".to_owned(), json!({ "html": "x" }))]);
        add_buttons(&mut texts, &["Open".into(), "https://a.b".into(), "Help".into(), "https://c.d".into()]);
        let rows = json!([[{ "text": "Open", "url": "https://a.b" }], [{ "text": "Help", "url": "https://c.d" }]]);
        assert_eq!((&texts["ru"]["buttons"], &texts["en"]["buttons"]), (&rows, &rows));
    }

    #[test]
    fn a_status_tells_how_far_it_is_and_how_fast() {
        let shown = status(&json!({
            "id": "cmp_1", "title": "Spring", "state": "running", "progress": {
                "total": 100, "done": 40, "left": 60, "states": { "sent": 38, "blocked": 2, "queued": 60, "failed": 0 },
                "per_minute": 1680, "seconds_left": 3,
            },
        }));
        for line in ["done      40 of 100", "  sent      38", "  blocked   2", "speed     1680 a minute, 3 s left"] {
            assert!(shown.lines().any(|found| found == line), "{line} is missing in\n{shown}");
        }
        assert!(!shown.contains("failed"), "{shown}");
        let paused = status(
            &json!({ "id": "cmp_1", "title": "x", "state": "paused", "reason": "paused by hand", "progress": null }),
        );
        assert!(paused.contains("because   paused by hand"));
    }

    #[test]
    fn a_file_is_a_picture_by_its_ending_unless_somebody_says_otherwise() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).expect("a file");
            path
        };
        let picture = file("Весна 1.PNG", b"x");
        let read = Attached::read(&picture, None).expect("a picture");
        assert_eq!((read.kind.as_str(), read.mime, read.name.as_str()), ("photo", "image/png", "Весна 1.PNG"));
        assert_eq!(query(&read.name), "%D0%92%D0%B5%D1%81%D0%BD%D0%B0%201.PNG");
        assert_eq!(Attached::read(&picture, Some("document".into())).expect("a file").kind, "document");
        assert_eq!(Attached::read(&file("price.pdf", b"x"), None).expect("a file").kind, "document");
        assert!(Attached::read(&file("empty.png", b""), None).is_err());
        assert!(Attached::read(&folder.path().join("nowhere.png"), None).is_err());
    }

    #[test]
    fn time_is_told_as_people_say_it() {
        assert_eq!([long(5), long(65), long(7_260)], ["5 s", "1 min 5 s", "2 h 1 min"]);
    }
}
