//! `semel init`: a first settings file.

use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use semel_kernel::clock::Chance;

use super::out;

/// The few values that a shop needs; each is asked for on a terminal when its flag is missing.
#[derive(Args)]
pub struct InitArgs {
    /// Token of the bot that talks to customers, from @BotFather
    #[arg(long)]
    bot_token: Option<String>,
    /// Telegram id of the owner, who gets the alerts
    #[arg(long)]
    owner_id: Option<i64>,
    /// Where providers reach this server: https://pay.example.com
    #[arg(long)]
    public_url: Option<String>,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
}

/// Writes the file.
pub async fn init(args: InitArgs, config: Option<&PathBuf>) -> anyhow::Result<ExitCode> {
    let path = config.cloned().unwrap_or_else(|| PathBuf::from("semel.toml"));
    anyhow::ensure!(args.force || !path.exists(), "{} is there already; --force replaces it", path.display());
    let bot_token = match args.bot_token {
        Some(token) => token,
        None => {
            prompt("Bot token from @BotFather (empty: customers get their goods over the API only)", "--bot-token")?
        }
    };
    let owner = match args.owner_id {
        Some(id) => id.to_string(),
        None => prompt("Your own Telegram id, for alerts (empty: alerts go to the log only)", "--owner-id")?,
    };
    let public_url = match args.public_url {
        Some(url) => url,
        None => prompt(
            "Public address, as in https://pay.example.com (empty: set it before connecting a provider)",
            "--public-url",
        )?,
    };
    anyhow::ensure!(
        owner.is_empty() || owner.parse::<i64>().is_ok(),
        "the owner's Telegram id is a number, not {owner:?}"
    );
    if !bot_token.is_empty() {
        semel_telegram::Bot::new("https://api.telegram.org", &bot_token)?;
    }
    let api_token = format!("semel_{}", hex::encode(Chance::system().bytes::<24>()));
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut text = String::from(
        "# Settings of Semel. `semel config example` shows every setting, `semel config explain NAME` one of them.\n\n",
    );
    text.push_str(&format!("api_token = {}\n", quoted(&api_token)));
    if !public_url.is_empty() {
        text.push_str(&format!("public_url = {}\n", quoted(public_url.trim_end_matches('/'))));
    }
    if !(bot_token.is_empty() && owner.is_empty()) {
        text.push_str("\n[telegram]\n");
    }
    if !bot_token.is_empty() {
        text.push_str(&format!("bot_token = {}\n", quoted(&bot_token)));
    }
    if !owner.is_empty() {
        text.push_str(&format!("admin_ids = [{owner}]\n"));
    }
    text.push_str("\n# A provider is enabled by its values, for example:\n# [yookassa]\n# shop_id = \"100500\"\n# secret_key = \"live_…\"\n");
    if args.force {
        let _ = std::fs::remove_file(&path);
    }
    // It holds secrets: for its owner only, from the first byte.
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    out::lines(&format!(
        "{} is written, readable for you only. Its api_token is your key to the API.\nNext: `semel doctor` checks it, `semel serve` starts the shop.",
        path.display()
    ))
}

fn prompt(question: &str, flag: &str) -> anyhow::Result<String> {
    anyhow::ensure!(
        std::io::stdin().is_terminal(),
        "there is no terminal to ask on: give {flag} (an empty value leaves it out)"
    );
    let mut err = std::io::stderr().lock();
    write!(err, "{question}: ")?;
    err.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(answer.trim().to_owned())
}
