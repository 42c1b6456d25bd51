//! `semel sandbox`: the outside world in a box, alone.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use semel_sandbox::{Delivery, Options, Sandbox};

use super::{out, serve};

/// Where and how the box runs.
#[derive(Args)]
pub struct SandboxArgs {
    /// Address of the box
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// Where YooKassa's notices go; the others are told with each payment
    #[arg(long, default_value = "http://127.0.0.1:8080/webhook/yookassa")]
    yookassa_webhook: String,
    /// Webhooks wait until they are sent by hand on the box's page
    #[arg(long)]
    manual: bool,
    /// Retry schedules run this many times faster
    #[arg(long, default_value_t = 60)]
    faster: u32,
    /// Append the ground truth as JSON lines to this file
    #[arg(long, value_name = "FILE")]
    truth: Option<PathBuf>,
}

/// Runs the box until it is asked to stop.
pub async fn sandbox(args: SandboxArgs) -> anyhow::Result<ExitCode> {
    let stop = serve::stop_on_signal()?;
    let shop = args.yookassa_webhook.strip_suffix("/webhook/yookassa").unwrap_or("http://127.0.0.1:8080").to_owned();
    let options = Options {
        listen: args.listen,
        mode: if args.manual { Delivery::Manual } else { Delivery::Auto },
        time_scale: args.faster.max(1),
        yookassa_hook_url: Some(args.yookassa_webhook),
        truth_file: args.truth,
        ..Options::default()
    };
    let sandbox = Sandbox::start(options).await.with_context(|| format!("cannot open the box on {}", args.listen))?;
    let all = settings(&sandbox, shop);
    out::say(&format!(
        "The outside world in a box is at {}\n\nSettings that make semel use it:\n{}\n\nThe same as a semel.toml:\n{}",
        sandbox.url(),
        as_environment(&all),
        as_file(&all)
    ))?;
    stop.cancelled().await;
    sandbox.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// What points the semel at the address `shop` at this box, as names of the environment with their values.
fn settings(sandbox: &Sandbox, shop: String) -> Vec<(&'static str, String)> {
    let mut all = variables(sandbox);
    all.push(("SEMEL_TELEGRAM_UPDATES", "polling".into()));
    all.push(("SEMEL_PUBLIC_URL", shop));
    all
}

fn as_environment(all: &[(&str, String)]) -> String {
    all.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("\n")
}

/// The same as lines of a settings file: what has no section first, as TOML wants it.
fn as_file(all: &[(&str, String)]) -> String {
    let mut text = String::new();
    for section in ["", "telegram", "yookassa", "heleket", "crystalpay"] {
        if !section.is_empty() {
            text.push_str(&format!("\n[{section}]\n"));
        }
        for (name, value) in all {
            let name = name.trim_start_matches("SEMEL_").to_lowercase();
            let (of, key) = match name.split_once('_') {
                Some((of, key)) if name != "public_url" => (of, key),
                _ => ("", name.as_str()),
            };
            if of != section {
                continue;
            }
            match key {
                "admin_ids" => text.push_str(&format!("{key} = [{value}]\n")),
                _ => text.push_str(&format!("{key} = \"{value}\"\n")),
            }
        }
    }
    text
}

/// The same as pairs.
pub fn variables(sandbox: &Sandbox) -> Vec<(&'static str, String)> {
    use semel_sandbox as s;
    vec![
        ("SEMEL_YOOKASSA_SHOP_ID", s::YOOKASSA_SHOP_ID.into()),
        ("SEMEL_YOOKASSA_SECRET_KEY", s::YOOKASSA_SECRET_KEY.into()),
        ("SEMEL_YOOKASSA_API_URL", sandbox.yookassa_url()),
        ("SEMEL_HELEKET_MERCHANT_ID", s::HELEKET_MERCHANT_ID.into()),
        ("SEMEL_HELEKET_PAYMENT_KEY", s::HELEKET_PAYMENT_KEY.into()),
        ("SEMEL_HELEKET_API_URL", sandbox.heleket_url()),
        ("SEMEL_CRYSTALPAY_LOGIN", s::CRYSTALPAY_LOGIN.into()),
        ("SEMEL_CRYSTALPAY_SECRET", s::CRYSTALPAY_SECRET.into()),
        ("SEMEL_CRYSTALPAY_SALT", s::CRYSTALPAY_SALT.into()),
        ("SEMEL_CRYSTALPAY_API_URL", sandbox.crystalpay_url()),
        ("SEMEL_TELEGRAM_BOT_TOKEN", s::BOT_TOKEN.into()),
        ("SEMEL_TELEGRAM_API_URL", sandbox.telegram_url()),
        ("SEMEL_TELEGRAM_ADMIN_IDS", "1".into()),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::settings::{Settings, load};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_it_prints_as_a_file_is_read_as_what_it_prints_as_variables() {
        let options = Options { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..Options::default() };
        let sandbox = Sandbox::start(options).await.expect("a box");
        let all = settings(&sandbox, "http://127.0.0.1:8080".to_owned());
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("shop.toml");
        crate::cli::init::write_private(&file, &as_file(&all)).expect("a file");
        let env: BTreeMap<String, String> =
            all.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let by_file = load(Some(&file), &BTreeMap::new(), &[]).expect("right settings").settings;
        let by_env = load(Some(std::path::Path::new("/dev/null")), &env, &[]).expect("right settings").settings;
        let told = |all: &Settings| {
            format!("{:?} {:?} {:?} {:?} {:?}", all.public_url, all.telegram, all.yookassa, all.heleket, all.crystalpay)
        };
        assert_eq!(told(&by_file), told(&by_env));
        assert!(by_file.yookassa.is_some() && by_file.heleket.is_some() && by_file.crystalpay.is_some());
        sandbox.stop().await;
    }
}
