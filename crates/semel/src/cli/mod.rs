//! The command line: one sentence and an exit code for everything that is wrong.

mod ask;
mod audit;
mod backup;
mod broadcast;
mod demo;
mod doctor;
mod failpoints;
mod init;
mod ip;
mod out;
mod refund;
mod restore;
mod safe;
mod sandbox;
mod serve;
mod stock;
mod sub;
mod wg;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use semel_shop::orders::State;

use crate::settings::{self, Loaded};

/// The back office of a Telegram business: takes payments, hands out what was bought, each thing once.
#[derive(Parser)]
#[command(name = "semel", version, arg_required_else_help = true, max_term_width = 110)]
struct Cli {
    /// Settings file; without it ./semel.toml is read if it is there. Every setting is also an environment variable.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the program: HTTP server, workers, schedules
    Serve(ServeArgs),
    /// Try everything at once: own database, the outside world in a box, a sample catalog
    Demo(demo::DemoArgs),
    /// Run the outside world in a box alone: YooKassa, Heleket, CrystalPay and Telegram as local servers
    Sandbox(sandbox::SandboxArgs),
    /// Write a first semel.toml: asks for the few values that are needed, or takes them as flags
    Init(init::InitArgs),
    /// Check settings, files, clock, database and each configured provider, and explain what is wrong
    Doctor,
    /// Bring the database up to date; `serve` does it by itself at start
    Migrate {
        /// Only say which steps are missing
        #[arg(long)]
        dry_run: bool,
    },
    /// Show and explain settings
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Check the books and all other promises on the live database, a line each; ends with 3 when one is broken
    ///
    /// Exit codes: 0 when every promise holds, 3 when one is broken, 1 when they could not be checked. `n/a` stands with the
    /// promises of features that this version does not have.
    Verify {
        /// Also check what must hold once everything has come to rest
        #[arg(long)]
        at_rest: bool,
    },
    /// The self-audit, and the log of your own actions
    #[command(subcommand)]
    Audit(AuditVerb),
    /// Write the whole database into one encrypted file; the program may run meanwhile
    Backup(backup::BackupArgs),
    /// Make a database of a backup; it begins in safe mode
    Restore(restore::RestoreArgs),
    /// Safe mode after a restore: what waits for what, and the way out of it
    #[command(subcommand)]
    Safe(SafeVerb),
    /// Look at orders and help them by hand
    #[command(subcommand)]
    Order(OrderVerb),
    /// Look at payments and help them by hand
    #[command(subcommand)]
    Payment(PaymentVerb),
    /// Products
    #[command(subcommand)]
    Product(ProductVerb),
    /// Stock
    #[command(subcommand)]
    Stock(StockVerb),
    /// Jobs: what is to be done
    #[command(subcommand)]
    Job(JobVerb),
    /// The inbox: what came in
    #[command(subcommand)]
    Inbox(InboxVerb),
    /// Customers' access to the VPN: look at it, give it, add to it, stop it, end it
    #[command(subcommand)]
    Sub(SubVerb),
    /// Addresses of the VPN: who has one, and who had it when
    #[command(subcommand)]
    Ip(IpVerb),
    /// WireGuard: what is wanted of file and interface, and what is there
    #[command(subcommand)]
    Wg(WgVerb),
    /// Campaigns: one message to many people, with a preview, a test and an end that adds up
    #[command(subcommand)]
    Broadcast(broadcast::BroadcastVerb),
    /// Bearer tokens of the API
    #[command(subcommand)]
    Token(TokenVerb),
    /// List the places at which a test build can be broken on purpose
    ///
    /// One name a line, `place:label`. A build with the feature `failpoints` does at them what SEMEL_FAILPOINT says, such as
    /// `commit.before:payment.confirm#2=kill`; the actions are kill, error, delay(MS), panic and cancel. A release does nothing.
    Failpoints,
}

#[derive(Args)]
struct ServeArgs {
    /// Address of the HTTP server
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
}

#[derive(Subcommand)]
enum ConfigVerb {
    /// Every setting, its value and where it came from; secrets are not shown
    Print,
    /// What a setting means, by its name in the file or in the environment
    Explain {
        /// The name
        name: String,
    },
    /// A settings file with every setting, commented
    Example,
}

#[derive(Subcommand)]
enum AuditVerb {
    /// Check the log of your actions from its first entry on; ends with 3 when it is broken
    ///
    /// Prints the head of the chain. Write it down elsewhere: given back as --anchor it proves that nobody wrote the log anew.
    Verify {
        /// A head that was printed before
        #[arg(long, value_name = "HASH")]
        anchor: Option<String>,
    },
    /// Your actions, the newest first
    List {
        /// How many
        #[arg(long, default_value = "20", value_parser = page_size, allow_negative_numbers = true)]
        limit: u32,
    },
    /// What the self-audit found broken, the newest first
    Stops {
        /// Only those in this state: open, released
        #[arg(long)]
        state: Option<String>,
        /// How many
        #[arg(long, default_value = "20", value_parser = page_size, allow_negative_numbers = true)]
        limit: u32,
    },
    /// Let what a broken promise stopped go on
    Release {
        /// The stop's id
        stop: String,
        /// Why it may go on; stands in the log
        #[arg(long)]
        reason: String,
    },
}

#[derive(Subcommand)]
enum OrderVerb {
    /// One order with its timeline
    Show {
        /// The order's id
        id: String,
    },
    /// Orders, the newest first
    List {
        #[arg(long, help = format!("Only those with this status: {}", statuses()))]
        status: Option<String>,
        /// Only those of this Telegram id
        #[arg(long, value_name = "TELEGRAM_ID", value_parser = telegram_id, allow_negative_numbers = true)]
        customer: Option<i64>,
        /// How many
        #[arg(long, default_value = "20", value_parser = page_size, allow_negative_numbers = true)]
        limit: u32,
    },
    /// Call an unpaid order off and give its stock back
    Cancel {
        /// The order's id
        id: String,
        /// Why
        #[arg(long)]
        reason: Option<String>,
    },
    /// Give money back; shows what would happen and asks first
    Refund {
        /// The order's id
        id: String,
        /// How much, as in 499.00; all that is left when missing
        #[arg(long)]
        amount: Option<String>,
        /// `balance`: to the customer's balance in this shop; `provider`: to where it came from; `made`: only book what was
        /// given back in the provider's cabinet
        #[arg(long, default_value = "balance", value_parser = ["balance", "provider", "made"])]
        to: String,
        /// Where crypto goes back to, as the payer names it
        #[arg(long)]
        address: Option<String>,
        /// Why
        #[arg(long)]
        reason: Option<String>,
        /// Do not ask; for scripts
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Subcommand)]
enum PaymentVerb {
    /// Ask the provider about a payment now and apply the answer
    Replay {
        /// The payment's id
        id: String,
    },
    /// Give unassigned money to an order, or to its customer's balance when the order does not wait for just that
    Assign {
        /// The provider's id of the payment
        provider_payment: String,
        /// The order's id
        order: String,
    },
}

#[derive(Subcommand)]
enum ProductVerb {
    /// Products, the newest first
    List,
    /// Make a product
    Create {
        /// What customers read
        title: String,
        /// Price of one, as in 499.00
        price: String,
        /// Currency of the price; the shop's own when left out
        #[arg(long)]
        currency: Option<String>,
        /// `stock`, `topup` or `vpn`
        #[arg(long, default_value = "stock")]
        kind: String,
        /// How many days of access one gives; only for vpn
        #[arg(long, value_parser = whole, allow_negative_numbers = true)]
        days: Option<u32>,
        /// For how many devices, 1 to 10; only for vpn, there 1 when left out
        #[arg(long)]
        devices: Option<u32>,
    },
    /// Change a price; orders that were made keep theirs
    Price {
        /// The product's id
        id: String,
        /// The new price of one, as in 499.00, in the currency that the product has
        price: String,
    },
    /// Offer it no more; what was ordered is still handed over
    Hide {
        /// The product's id
        id: String,
    },
    /// Offer a hidden one again
    Show {
        /// The product's id
        id: String,
    },
}

#[derive(Subcommand)]
enum StockVerb {
    /// Put one item a line of a file on a product's shelf; items that were ever there are refused
    Import {
        /// The product's id
        product: String,
        /// The file; `-` reads standard input
        file: PathBuf,
    },
    /// Take items off a product's shelf that came in by mistake: all of them or none; what was sold or is held stays
    Withdraw {
        /// The product's id
        product: String,
        /// The items, each as it was imported
        #[arg(value_name = "KEY", required_unless_present = "file")]
        keys: Vec<String>,
        /// A file with one item a line instead; `-` reads standard input
        #[arg(long, conflicts_with = "keys")]
        file: Option<PathBuf>,
    },
    /// Sell units again that a restore holds back: only if nobody bought them after the backup
    Release {
        /// The product's id
        #[arg(required_unless_present = "all")]
        product: Option<String>,
        /// Those of every product
        #[arg(long, conflicts_with = "product")]
        all: bool,
        /// Why
        #[arg(long)]
        reason: String,
    },
}

#[derive(Subcommand)]
enum SafeVerb {
    /// What is reconciled, what is held back, what waits
    Status,
    /// Read a provider's list again; or say that it was compared by hand
    Reconcile {
        /// `yookassa`, `heleket`, `crystalpay` or `stars`
        provider: String,
        /// It was compared by hand: how
        #[arg(long, value_name = "REASON")]
        by_hand: Option<String>,
    },
    /// End safe mode: what waited goes on
    Leave {
        /// Why
        #[arg(long)]
        reason: String,
        /// Although a rail is not reconciled
        #[arg(long)]
        force: bool,
    },
}

#[derive(Subcommand)]
enum JobVerb {
    /// Jobs, the newest first
    List {
        /// Only those in this state: ready, running, done, dead, cancelled, parked
        #[arg(long)]
        state: Option<String>,
        /// How many
        #[arg(long, default_value = "20", value_parser = page_size, allow_negative_numbers = true)]
        limit: u32,
    },
    /// Run a dead or waiting job now
    Retry {
        /// The job's id
        id: String,
    },
    /// Which rule holds a job back
    Why {
        /// The job's id
        id: String,
    },
}

#[derive(Subcommand)]
enum InboxVerb {
    /// Notices, the newest first
    List {
        /// Only those in this state: received, applied, ignored, quarantined
        #[arg(long)]
        state: Option<String>,
        /// How many
        #[arg(long, default_value = "20", value_parser = page_size, allow_negative_numbers = true)]
        limit: u32,
    },
    /// Look into a notice again
    Replay {
        /// The notice's id
        id: String,
    },
}

#[derive(Subcommand)]
enum TokenVerb {
    /// Make a token; it is shown once
    Create {
        /// What it is for
        name: String,
        /// `read`, `write` or `metrics`; several with commas
        #[arg(long, default_value = "write", value_delimiter = ',')]
        scope: Vec<String>,
    },
    /// Tokens, without their secrets
    List,
    /// Make a token worthless
    Revoke {
        /// The token's id
        id: String,
    },
}

#[derive(Subcommand)]
enum SubVerb {
    /// Subscriptions, the newest first
    List {
        /// Only those of this Telegram id
        #[arg(long, value_name = "TELEGRAM_ID", value_parser = telegram_id, allow_negative_numbers = true)]
        customer: Option<i64>,
        /// Only those in this state: trial, active, grace, expired, frozen, revoked
        #[arg(long)]
        state: Option<String>,
        /// How many
        #[arg(long, default_value = "20", value_parser = page_size, allow_negative_numbers = true)]
        limit: u32,
    },
    /// One subscription with its devices, its time and its story
    Show {
        /// The subscription's id
        id: String,
    },
    /// Give access that nobody paid for; the customer gets the file
    Grant {
        /// The customer's Telegram id
        #[arg(value_name = "TELEGRAM_ID", value_parser = telegram_id, allow_negative_numbers = true)]
        customer: i64,
        /// How long
        #[arg(long, value_parser = whole, allow_negative_numbers = true)]
        days: u32,
        /// For how many devices
        #[arg(long, default_value_t = 1)]
        devices: u32,
        /// Why; stands in its story and in your log
        #[arg(long)]
        reason: String,
    },
    /// Begin a trial of `vpn.trial_days`; a person has one, for ever
    Trial {
        /// The customer's Telegram id
        #[arg(value_name = "TELEGRAM_ID", value_parser = telegram_id, allow_negative_numbers = true)]
        customer: i64,
    },
    /// Add time that nobody paid for
    Extend {
        /// The subscription's id
        id: String,
        /// How much
        #[arg(long, value_parser = whole, allow_negative_numbers = true)]
        days: u32,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Close it and let its time stand still
    Freeze {
        /// The subscription's id
        id: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Let a frozen one go on with the time that was left
    Unfreeze {
        /// The subscription's id
        id: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// End it for good; its money is the business of `semel order refund`
    Revoke {
        /// The subscription's id
        id: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Make a link that gives a device's file once
    Link {
        /// The subscription's id
        id: String,
        /// Which device
        #[arg(long, default_value_t = 1)]
        device: u32,
        /// `wireguard` or `amneziawg`
        #[arg(long)]
        format: Option<String>,
    },
}

#[derive(Subcommand)]
enum IpVerb {
    /// Who has an address, and who had it when
    Who {
        /// The address
        address: String,
        /// Only who had it at this moment, as in 2026-03-01T12:00:00+03:00
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
    },
    /// Addresses with who has them
    List {
        /// The server; this machine's own when left out
        #[arg(long)]
        server: Option<String>,
        /// Only those in this state: free, held, quarantine
        #[arg(long)]
        state: Option<String>,
        /// How many
        #[arg(long, default_value = "20", value_parser = page_size, allow_negative_numbers = true)]
        limit: u32,
    },
}

#[derive(Subcommand)]
enum WgVerb {
    /// What differs between what is wanted and what is there; ends with 3 when something does
    Plan,
    /// Bring file and interface to what is wanted now, and wait for it
    Apply,
    /// Take over the peers of an existing wg0.conf; without --yes only say what would happen
    Import {
        /// The file
        file: PathBuf,
        /// CSV that says whose each peer is; peers that it does not name stay foreign and are kept as they are
        #[arg(long, value_name = "CSV")]
        adopt: Option<PathBuf>,
        /// Do it
        #[arg(long)]
        yes: bool,
    },
    /// Print the peers as CSV, without secrets
    Export,
    /// Write a first configuration file for the interface, with a fresh key
    Init(wg::InitArgs),
    /// Put another sealing key in the place of one that is lost for good; without --yes only say what would happen
    NewKey(wg::NewKeyArgs),
}

/// The words for `--status`, from the one table of states.
fn statuses() -> String {
    State::ALL.iter().map(|state| state.as_str()).collect::<Vec<_>>().join(", ")
}

fn telegram_id(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| "write a Telegram id, which is a number such as 123456789".to_owned())
}

fn whole(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "write a whole number such as 30".to_owned())
}

fn page_size(text: &str) -> Result<u32, String> {
    let number = text.parse::<u32>().ok().filter(|number| (1..=200).contains(number));
    number.ok_or_else(|| "write a whole number from 1 to 200".to_owned())
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            out::complain(&format!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(run(cli));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match outcome {
        Ok(code) => code,
        Err(error) => {
            out::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn load(cli_config: Option<&PathBuf>, flags: &[(String, String)]) -> anyhow::Result<Loaded> {
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    Ok(settings::load(cli_config.map(PathBuf::as_path), &environment, flags)?)
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let config = cli.config.as_ref();
    match cli.verb {
        Verb::Serve(args) => {
            let flags: Vec<_> = args.listen.map(|listen| ("listen".to_owned(), listen)).into_iter().collect();
            serve::serve(load(config, &flags)?).await
        }
        Verb::Demo(args) => demo::demo(args).await,
        Verb::Sandbox(args) => sandbox::sandbox(args).await,
        Verb::Init(args) => init::init(args, config).await,
        Verb::Doctor => doctor::doctor(load(config, &[])?).await,
        Verb::Migrate { dry_run } => serve::migrate(load(config, &[])?, dry_run).await,
        Verb::Config(ConfigVerb::Print) => out::lines(&settings::print(&load(config, &[])?)),
        Verb::Config(ConfigVerb::Explain { name }) => match settings::explain(&name) {
            Ok(text) => out::lines(&text),
            Err(text) => anyhow::bail!("{text}"),
        },
        Verb::Config(ConfigVerb::Example) => out::lines(&settings::render_example()),
        Verb::Failpoints => failpoints::failpoints(),
        Verb::Wg(WgVerb::Init(args)) => wg::init(&load(config, &args.flags())?.settings, &args),
        Verb::Wg(WgVerb::NewKey(args)) => wg::new_key(load(config, &[])?, args).await,
        Verb::Audit(verb) => audit::audit(load(config, &[])?, verb).await,
        Verb::Backup(args) => match args.new_key() {
            Some(path) => backup::new_key(path),
            None => backup::backup(load(config, &[])?, args).await,
        },
        Verb::Restore(args) => {
            let other = args.config();
            restore::restore(load(other.as_ref().or(config), &args.flags())?, args).await
        }
        verb => ask::ask(load(config, &[])?, verb).await,
    }
}
