//! `semel init`: a first settings file, with nothing in it that the program would refuse.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use semel_kernel::clock::Chance;
use semel_kernel::failpoint::{fail, hit, told};

use super::out;
use crate::settings::{parse_bot_token, parse_ids, parse_public_url};

/// The few values that a shop needs; each is asked for on a terminal when its flag is missing. An empty one is left out.
#[derive(Args)]
pub struct InitArgs {
    /// Token of the bot that talks to customers, from @BotFather
    #[arg(long)]
    bot_token: Option<String>,
    /// Telegram id of the owner, who gets the alerts
    #[arg(long, allow_negative_numbers = true)]
    owner_id: Option<String>,
    /// Where providers reach this server: https://pay.example.com
    #[arg(long)]
    public_url: Option<String>,
    /// Who talks to customers: polling (this program), webhook (this program, by the public address), off (another program)
    #[arg(long)]
    updates: Option<String>,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
}

/// Writes the file.
pub async fn init(args: InitArgs, config: Option<&PathBuf>) -> anyhow::Result<ExitCode> {
    let path = config.cloned().unwrap_or_else(|| PathBuf::from("semel.toml"));
    let force = args.force;
    let is_free = || -> anyhow::Result<()> {
        anyhow::ensure!(force || !path.exists(), "{} is there already; --force replaces it", path.display());
        Ok(())
    };
    is_free()?;
    let bot_token = answer(&BOT_TOKEN, args.bot_token)?;
    let owner = answer(&OWNER_ID, args.owner_id)?;
    let public_url = answer(&PUBLIC_URL, args.public_url)?;
    // Only a bot hears anything. Where nobody can be asked, it stays with whoever has it now.
    let can_ask = args.updates.is_some() || std::io::stdin().is_terminal();
    let updates = if bot_token.is_empty() || !can_ask { String::new() } else { answer(&UPDATES, args.updates)? };
    anyhow::ensure!(
        updates != "webhook" || public_url.starts_with("https://"),
        "--updates webhook needs an https --public-url, where Telegram posts to; polling works without one"
    );
    let api_token = format!("semel_{}", hex::encode(Chance::system().bytes::<24>()));
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut text = String::from(
        "# Settings of Semel. `semel config example` shows every setting, `semel config explain NAME` one of them.\n\n",
    );
    text.push_str(&format!("api_token = {}\n", quoted(&api_token)));
    if public_url.is_empty() {
        // Here is its place: below the first [section] it would belong to that.
        text.push_str("# public_url = \"https://pay.example.com\"\n");
    } else {
        let url = parse_public_url(&public_url).map_err(anyhow::Error::msg)?;
        text.push_str(&format!("public_url = {}\n", quoted(url.as_str().trim_end_matches('/'))));
    }
    if !(bot_token.is_empty() && owner.is_empty()) {
        text.push_str("\n[telegram]\n");
    }
    if !bot_token.is_empty() {
        text.push_str(&format!("bot_token = {}\n", quoted(&bot_token)));
    }
    if !owner.is_empty() {
        let ids = parse_ids(&owner).map_err(anyhow::Error::msg)?;
        text.push_str(&format!("admin_ids = {ids:?}\n"));
    }
    if !updates.is_empty() {
        text.push_str(&format!("updates = {}\n", quoted(&updates)));
    }
    text.push_str("\n# A provider is enabled by its values, for example:\n# [yookassa]\n# shop_id = \"100500\"\n# secret_key = \"live_…\"\n");
    // The questions may have taken their time.
    is_free()?;
    write_private(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    let named = config.map(|path| format!(" --config {}", path.display())).unwrap_or_default();
    out::lines(&format!(
        "{} is written, readable for you only. Its api_token is your key to the API.\nNext: `semel{named} doctor` checks it, `semel{named} serve` starts the shop.",
        path.display()
    ))
}

/// Puts a file with this text at `path`: the whole of it, or what was there before stays. It holds secrets, so it is for its
/// owner only from the first byte.
pub(super) fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let fresh = PathBuf::from(name);
    let written = write_fresh(&fresh, text).and_then(|()| put_in_place(&fresh, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&fresh);
    }
    written
}

/// Writes a file that did not exist before. What lies there was left by a run that died.
fn write_fresh(fresh: &Path, text: &str) -> std::io::Result<()> {
    if fail("file.create", "settings") {
        return Err(says_so("file.create"));
    }
    let _ = std::fs::remove_file(fresh);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(fresh)?;
    if fail("file.created", "settings") {
        return Err(says_so("file.created"));
    }
    file.write_all(text.as_bytes())?;
    if fail("file.written", "settings") {
        return Err(says_so("file.written"));
    }
    file.sync_all()?;
    if fail("file.synced", "settings") {
        return Err(says_so("file.synced"));
    }
    Ok(())
}

/// Renames the whole file to its place. Only the synced folder makes that outlive a power cut.
fn put_in_place(fresh: &Path, path: &Path) -> std::io::Result<()> {
    std::fs::rename(fresh, path)?;
    if fail("file.renamed", "settings") {
        return Err(says_so("file.renamed"));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    hit("file.placed", "settings");
    Ok(())
}

fn says_so(place: &str) -> std::io::Error {
    std::io::Error::other(told(place, "settings"))
}

/// One value that is asked for.
struct Question {
    flag: &'static str,
    text: &'static str,
    /// The parser of the setting: what is wrong with an answer, as the end of a sentence.
    check: fn(&str) -> Result<(), String>,
}

const BOT_TOKEN: Question = Question {
    flag: "--bot-token",
    text: "Bot token from @BotFather (empty: customers get their goods over the API only)",
    check: |text| parse_bot_token(text).map(drop),
};
const OWNER_ID: Question = Question {
    flag: "--owner-id",
    text: "Your own Telegram id, for alerts (empty: alerts go to the log only)",
    check: |text| parse_ids(text).map(drop),
};
const PUBLIC_URL: Question = Question {
    flag: "--public-url",
    text: "Public address, as in https://pay.example.com (empty: set it before connecting a provider)",
    check: |text| parse_public_url(text).map(drop),
};

const UPDATES: Question = Question {
    flag: "--updates",
    text: "Who talks to customers: polling (this program sells in the chat), webhook, or off (another program has this bot; empty: off)",
    check: |text| match text {
        "off" | "polling" | "webhook" => Ok(()),
        _ => Err("is none of off, polling, webhook".to_owned()),
    },
};

/// The flag's value, or what is typed on the terminal, until it is right. Empty leaves it out.
fn answer(question: &Question, given: Option<String>) -> anyhow::Result<String> {
    if let Some(text) = given {
        let text = text.trim();
        return match fault(question, text) {
            Some(wrong) => Err(anyhow::anyhow!("{} {wrong}", question.flag)),
            None => Ok(text.to_owned()),
        };
    }
    loop {
        let text = prompt(question)?;
        match fault(question, &text) {
            Some(wrong) => out::complain(&format!("this {wrong}")),
            None => return Ok(text),
        }
    }
}

fn fault(question: &Question, text: &str) -> Option<String> {
    if text.is_empty() { None } else { (question.check)(text).err() }
}

fn prompt(question: &Question) -> anyhow::Result<String> {
    anyhow::ensure!(
        std::io::stdin().is_terminal(),
        "there is no terminal to ask on: give {} (an empty value leaves it out)",
        question.flag
    );
    let mut err = std::io::stderr().lock();
    write!(err, "{}: ", question.text)?;
    err.flush()?;
    drop(err);
    let mut typed = String::new();
    let read = std::io::stdin().read_line(&mut typed)?;
    anyhow::ensure!(read > 0, "the terminal was closed before {} was answered", question.flag);
    Ok(typed.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn settings_are_replaced_whole_and_nothing_lies_beside_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("semel.toml");
        // Left by a run that died, and readable for everybody.
        std::fs::write(folder.path().join("semel.toml.new"), "half of").unwrap();
        for text in ["first = 1\n", "second = 2\n"] {
            write_private(&path, text).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(names(folder.path()), ["semel.toml"]);
        }
    }

    #[test]
    fn what_cannot_be_put_in_place_leaves_everything_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("semel.toml");
        // A folder with something in it is not replaced by a file.
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("kept"), "").unwrap();
        assert!(write_private(&path, "first = 1\n").is_err());
        assert_eq!(names(folder.path()), ["semel.toml"]);
        assert_eq!(names(&path), ["kept"]);
    }
}
