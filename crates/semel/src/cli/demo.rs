//! `semel demo`: everything at once, with nothing to set up. It obeys its flags only and listens on loopback only.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use semel_kernel::args;
use semel_kernel::clock::{Chance, Clock};
use semel_kernel::ids::new_id;
use semel_sandbox::{Delivery, Options, Sandbox};
use semel_wireguard::PrivateKey;

use super::init::write_private;
use super::{out, sandbox, serve};
use crate::app::App;
use crate::local::{self, Program};
use crate::settings;

/// Where the demo lives.
#[derive(Args)]
pub struct DemoArgs {
    /// Folder of the demo's database
    #[arg(long, default_value = "semel-demo", value_name = "FOLDER")]
    folder: PathBuf,
    /// Port of the shop on loopback; 0 takes a free one
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Port of the outside world on loopback; 0 takes a free one
    #[arg(long, default_value_t = 8090)]
    sandbox_port: u16,
}

/// Runs the demo until it is asked to stop.
pub async fn demo(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let stop = serve::stop_on_signal()?;
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, args.port)))
        .await
        .with_context(|| format!("port {} is taken; choose another with --port", args.port))?;
    let address = listener.local_addr()?;
    let options = Options {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, args.sandbox_port)),
        mode: Delivery::Auto,
        time_scale: 60,
        yookassa_hook_url: Some(format!("http://{address}/webhook/yookassa")),
        ..Options::default()
    };
    let sandbox = Sandbox::start(options)
        .await
        .with_context(|| format!("port {} is taken; choose another with --sandbox-port", args.sandbox_port))?;
    let chance = Chance::system();
    let conf = vpn_file(&args.folder, &chance)?;
    let token = format!("demo_{}", hex::encode(chance.bytes::<12>()));
    let mut environment: BTreeMap<String, String> =
        sandbox::variables(&sandbox).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    environment.extend([
        ("SEMEL_LISTEN".into(), address.to_string()),
        ("SEMEL_PUBLIC_URL".into(), format!("http://{address}")),
        ("SEMEL_DATABASE_URL".into(), format!("sqlite://{}", args.folder.join("demo.db").display())),
        ("SEMEL_API_TOKEN".into(), token.clone()),
        ("SEMEL_TRUSTED_PROXIES".into(), "127.0.0.0/8".into()),
        ("SEMEL_SHOP_RETURN_URL".into(), format!("{}/", sandbox.url())),
        ("SEMEL_TELEGRAM_UPDATES".into(), "polling".into()),
        ("SEMEL_STARS_ENABLED".into(), "true".into()),
        ("SEMEL_STARS_WORTH".into(), "1.80".into()),
        ("SEMEL_VPN_HOST".into(), "vpn.example.com".into()),
        ("SEMEL_VPN_APPLY".into(), "file".into()),
        ("SEMEL_VPN_CONFIG_PATH".into(), conf.display().to_string()),
        ("SEMEL_VPN_TRIAL_DAYS".into(), "3".into()),
    ]);
    // An empty file in place of ./semel.toml: the demo obeys its flags only.
    let mut loaded = settings::load(Some(Path::new("/dev/null")), &environment, &[])?;
    loaded.settings.demo = true;
    serve::start_log(&loaded.settings);
    let again = local::missing_database(&loaded.settings).is_none();
    let store = serve::open_alone(&loaded.settings)?;
    let app = App::build(loaded.settings, store, chance.clone()).await?;
    app.prepare().await?;
    mark(&app).await?;
    let (product, access) = catalog(&app, &chance).await?;
    // New for each start: with the key of an earlier run the same curl would be answered with that run's order.
    let key = format!("first-sale-{}", hex::encode(chance.bytes::<3>()));
    let sale = FirstSale { token, product, access, key, conf };
    out::say(&welcome(&address, &sandbox, &sale, again))?;
    app.run(listener, stop).await?;
    sandbox.stop().await;
    Ok(ExitCode::SUCCESS)
}

async fn mark(app: &App) -> anyhow::Result<()> {
    let marked = app.shop.write("demo.mark", |tx, _| {
        tx.execute("insert into marks (name, value) values ('demo', 'yes') on conflict do nothing", args![])?;
        Ok::<_, semel_shop::Error>(())
    });
    Ok(marked.await?)
}

/// A configuration file with a key of its own, made once a folder. No interface belongs to it: peers come into the file and
/// go from it, which is all that can be seen of a VPN without one.
fn vpn_file(folder: &Path, chance: &Chance) -> anyhow::Result<PathBuf> {
    let (folder, file) = (folder.join("wireguard"), folder.join("wireguard/wg0.conf"));
    if !file.exists() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let key = PrivateKey::from_random(chance.bytes());
        let text = format!(
            "# The demo's server. No interface has this file: `semel demo` only writes peers into it.\n[Interface]\n\
             Address = 10.8.0.1/24\nListenPort = 51820\nPrivateKey = {}\n",
            key.to_base64().as_str()
        );
        write_private(&file, &text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(file)
}

/// A sample catalog, made once a folder; answers the products that the printed commands buy.
async fn catalog(app: &App, chance: &Chance) -> anyhow::Result<(String, String)> {
    app.prepare_for_commands().await?;
    let program = Program::Here(Box::new(app.router(true)));
    let known = program.ask(Method::GET, "/api/v1/products?limit=50", None, "").await?.json()?;
    let found = known["items"].as_array().into_iter().flatten().find(|product| product["title"] == SAMPLE);
    let key = |what: &str| new_id(what, Clock::system().now(), chance);
    let id = match found {
        Some(product) => product["id"].as_str().unwrap_or_default().to_owned(),
        None => {
            let sample =
                json!({ "title": SAMPLE, "kind": "stock", "price": { "amount": "499.00", "currency": "RUB" } });
            let made = program.ask(Method::POST, "/api/v1/products", Some(sample), &key("demo")).await?.json()?;
            let topup = json!({ "title": "Balance, 1000 ₽", "kind": "topup", "price": { "amount": "1000.00", "currency": "RUB" } });
            program.ask(Method::POST, "/api/v1/products", Some(topup), &key("demo")).await?.json()?;
            text(&made["id"])
        }
    };
    let access = known["items"].as_array().into_iter().flatten().find(|product| product["title"] == ACCESS);
    let access = match access {
        Some(product) => text(&product["id"]),
        None => {
            let sample = json!({
                "title": ACCESS, "kind": "vpn", "price": { "amount": "299.00", "currency": "RUB" }, "duration_days": 30,
                "devices": 1,
            });
            text(&program.ask(Method::POST, "/api/v1/products", Some(sample), &key("demo")).await?.json()?["id"])
        }
    };
    let items: Vec<String> =
        (0..20).map(|_| format!("KEY-{}", hex::encode(chance.bytes::<6>()).to_uppercase())).collect();
    program
        .ask(Method::POST, &format!("/api/v1/products/{id}/stock"), Some(json!({ "items": items })), &key("demo"))
        .await?
        .json()?;
    Ok((id, access))
}

const SAMPLE: &str = "Licence key";
const ACCESS: &str = "VPN, 30 days";

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What the printed commands need.
struct FirstSale {
    token: String,
    product: String,
    access: String,
    key: String,
    conf: PathBuf,
}

/// What the sandbox knows is gone with its process; the shop's database is not.
const AGAIN: &str = "
This shop was here before and has its orders still, but the sandbox's payments of earlier runs are gone: what was not
paid then cannot be paid now. Make a new order.
";

fn welcome(address: &SocketAddr, sandbox: &Sandbox, sale: &FirstSale, again: bool) -> String {
    let FirstSale { token, product, access, key, conf } = sale;
    format!(
        r#"
Semel's demo runs. Everything outside is a sandbox: no money, no real messages.
{past}
  shop           http://{address}       (API: /api/openapi.json, health: /readyz)
  outside world  {box_}/     payments, webhooks, faults, and the chat that the customer sees
  owner's token  {token}

Buy as a customer: open the chat, press /start, and go on with the buttons. On the page to pay, press "Pay"; the key comes
into the chat.

  {box_}/chat/42

The owner's chat, with the alerts and /admin, is {box_}/chat/1.

Sell by the API, as a bot of your own would. In another terminal:

  curl -s http://{address}/api/v1/orders -H 'Authorization: Bearer {token}' -H 'Idempotency-Key: {key}' \
    -H 'Content-Type: application/json' \
    -d '{{"customer":{{"telegram_id":42}},"items":[{{"product":"{product}","quantity":1}}],"provider":"yookassa"}}'

Open the "url" of its payment, press "Pay", press "Send the last webhook again" as often as you like, and look at the chat:

  {box_}/chat/42

Then ask where the order is (its "id" stands in the first answer):

  curl -s http://{address}/api/v1/orders/ORDER -H 'Authorization: Bearer {token}'

VPN access is sold the same way: put {access} in the place of the product, and take another Idempotency-Key. The file and
the QR picture come into the chat. There is no WireGuard interface in a demo, so peers go to a file only, and nothing connects:

  {conf}

Ctrl-C ends the demo; its database stays in the folder for the next time.
"#,
        past = if again { AGAIN } else { "" },
        box_ = sandbox.url(),
        conf = conf.display()
    )
}
