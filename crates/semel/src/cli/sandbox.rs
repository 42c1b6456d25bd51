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
    out::say(&format!(
        "The outside world in a box is at {}\n\nSettings that make semel use it:\n{}",
        sandbox.url(),
        settings(&sandbox, shop)
    ))?;
    stop.cancelled().await;
    sandbox.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Environment variables that point the semel at the address `shop` at this box.
fn settings(sandbox: &Sandbox, shop: String) -> String {
    let mut all = variables(sandbox);
    all.push(("SEMEL_PUBLIC_URL", shop));
    all.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("\n")
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
