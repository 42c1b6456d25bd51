use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use semel_money::Currency;

use super::load::load_from;
use super::table::{self, SECTIONS, SETTINGS};
use super::{
    Apply, DatabaseUrl, Ipv6, Loaded, LogFormat, Networks, SettingsError, explain, load, parse, print, render_example,
};

const SIGNING_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn from_env(pairs: &[(&str, &str)]) -> Result<Loaded, SettingsError> {
    load_from(None, &map(pairs), &[])
}

fn from_file(text: &str) -> Result<Loaded, SettingsError> {
    load_from(Some(("semel.toml", text)), &BTreeMap::new(), &[])
}

#[track_caller]
fn good(result: Result<Loaded, SettingsError>) -> Loaded {
    match result {
        Ok(loaded) => loaded,
        Err(error) => panic!("these settings are right, but: {error}"),
    }
}

#[track_caller]
fn problems(result: Result<Loaded, SettingsError>) -> Vec<String> {
    match result {
        Ok(_) => panic!("these settings are wrong, but they were accepted"),
        Err(error) => error.problems,
    }
}

/// The only sentence about settings with one fault.
#[track_caller]
fn problem(result: Result<Loaded, SettingsError>) -> String {
    let mut problems = problems(result);
    assert_eq!(problems.len(), 1, "one fault, one sentence: {problems:#?}");
    problems.remove(0)
}

/// A file of its own for one test, gone at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("semel-settings-{}-{name}", std::process::id()));
        fs::write(&path, content).expect("the temporary folder can be written");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a plain path")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn nothing_given_means_the_defaults() {
    let loaded = good(from_env(&[]));
    let settings = &loaded.settings;
    assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.database, DatabaseUrl::Sqlite(PathBuf::from("data/semel.db")));
    assert_eq!(settings.pool_max, 8);
    assert_eq!(settings.database_wait, Duration::from_secs(3));
    assert!(settings.database_listen_url.is_none());
    assert_eq!(settings.stop_budget, Duration::from_secs(20));
    assert!(settings.public_url.is_none() && settings.api_token.is_none());
    assert_eq!(settings.telegram.api_url.as_str(), "https://api.telegram.org/");
    assert!(settings.telegram.bot_token.is_none() && settings.telegram.admin_ids.is_empty());
    assert_eq!(settings.telegram.rate, 28);
    assert!(settings.yookassa.is_none() && settings.heleket.is_none() && settings.crystalpay.is_none());
    assert_eq!(settings.shop.currency, Currency::RUB);
    assert_eq!(settings.shop.order_lifetime, Duration::from_secs(30 * 60));
    assert_eq!(settings.shop.unpaid_orders_per_customer, 5);
    assert_eq!(settings.shop.referral_reward_bp, 0);
    assert!(settings.shop.late_deliver);
    assert!(settings.webhooks_out.is_none() && settings.vpn.is_none());
    assert_eq!((settings.log.format, settings.log.level), (LogFormat::Text, tracing::Level::INFO));
    assert_eq!((settings.limits.body, settings.limits.connections), (256 * 1024, 1024));
    assert_eq!(settings.limits.header_timeout, Duration::from_secs(10));
    assert_eq!(settings.limits.body_timeout, Duration::from_secs(15));
    assert!(loaded.notices.is_empty(), "{:?}", loaded.notices);
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
    let file = Some(("semel.toml", "listen = \"127.0.0.1:1001\"\npool_max = 11\nstop_budget = \"11s\"\n"));
    let env = map(&[("SEMEL_LISTEN", "127.0.0.1:1002"), ("SEMEL_POOL_MAX", "12")]);
    let flags = [("--listen".to_owned(), "127.0.0.1:1003".to_owned())];
    let loaded = good(load_from(file, &env, &flags));

    assert_eq!(loaded.settings.listen.port(), 1003);
    assert_eq!(loaded.settings.pool_max, 12);
    assert_eq!(loaded.settings.stop_budget, Duration::from_secs(11));
    let printed = print(&loaded);
    let source_of = |key: &str| {
        let line = printed.lines().find(|line| line.starts_with(&format!("{key} "))).expect("every key is printed");
        line.split_once("  # ").expect("every line names its source").1.to_owned()
    };
    assert_eq!(source_of("listen"), "flag --listen");
    assert_eq!(source_of("pool_max"), "environment SEMEL_POOL_MAX");
    assert_eq!(source_of("stop_budget"), "semel.toml");
    assert_eq!(source_of("database_wait"), "default");
}

#[test]
fn an_empty_text_is_not_a_value_in_any_source() {
    let file = Some(("semel.toml", "listen = \"127.0.0.1:1001\"\npublic_url = \"\"\n[yookassa]\nshop_id = \"\"\n"));
    let env = map(&[("SEMEL_LISTEN", "  "), ("SEMEL_YOOKASSA_SECRET_KEY", ""), ("BOT_TOKEN", "")]);
    let flags = [("listen".to_owned(), String::new())];
    let settings = good(load_from(file, &env, &flags)).settings;
    assert_eq!(settings.listen.port(), 1001);
    assert!(settings.yookassa.is_none() && settings.public_url.is_none() && settings.telegram.bot_token.is_none());
}

#[test]
fn a_flag_may_be_written_as_on_the_command_line_or_as_a_key() {
    for name in ["--telegram-api-url", "telegram.api_url", "SEMEL_TELEGRAM_API_URL"] {
        let flags = [(name.to_owned(), "http://127.0.0.1:9000".to_owned())];
        let loaded = good(load_from(None, &BTreeMap::new(), &flags));
        assert_eq!(loaded.settings.telegram.api_url.port(), Some(9000), "{name}");
    }
    let flags = [("--telegram-api-ur".to_owned(), "http://127.0.0.1:9000".to_owned())];
    assert_eq!(
        problem(load_from(None, &BTreeMap::new(), &flags)),
        "flag `--telegram-api-ur` is not a setting: did you mean `telegram.api_url`?"
    );
}

#[test]
fn the_environment_of_an_existing_bot_is_understood() {
    let loaded = good(from_env(&[
        ("BOT_TOKEN", "123456789:AAbb-CC_dd"),
        ("DATABASE_URL", "postgresql+asyncpg://bot:pass@db.internal/bot"),
        ("DB_POOL_MAX", "20"),
        ("YOOKASSA_SHOP_ID", "100500"),
        ("YOOKASSA_SECRET_KEY", "live_key"),
        ("HELEKET_MERCHANT_ID", "8b03432e-385b-4670-8d06-064591096795"),
        ("HELEKET_API_KEY", "heleket_key"),
        ("CRYSTALPAY_LOGIN", "desk"),
        ("CRYSTALPAY_SECRET", "desk_secret"),
        ("CRYSTALPAY_SALT", "desk_salt"),
        ("SEMEL_PUBLIC_URL", "https://pay.example.com"),
        ("PATH", "/usr/bin"),
    ]));
    let settings = loaded.settings;
    assert_eq!(settings.database, DatabaseUrl::Postgres("postgresql://bot:pass@db.internal/bot".to_owned()));
    assert_eq!(settings.pool_max, 20);
    assert_eq!(settings.telegram.bot_token.expect("a token").expose(), "123456789:AAbb-CC_dd");
    let yookassa = settings.yookassa.expect("yookassa");
    assert_eq!((yookassa.shop_id.as_str(), yookassa.secret_key.expose()), ("100500", "live_key"));
    assert_eq!((yookassa.networks, yookassa.allow_test, yookassa.receipt), (Networks::Published, false, None));
    let heleket = settings.heleket.expect("heleket");
    assert_eq!(heleket.payment_key.expose(), "heleket_key");
    assert!(heleket.payout_key.is_none());
    let crystalpay = settings.crystalpay.expect("crystalpay");
    assert_eq!((crystalpay.secret.expose(), crystalpay.salt.expose()), ("desk_secret", "desk_salt"));
    assert!(loaded.notices.is_empty(), "{:?}", loaded.notices);
}

#[test]
fn campaigns_are_as_fast_as_allowed_unless_the_owner_wants_them_slower() {
    let settings = good(from_env(&[])).settings;
    assert_eq!(settings.broadcast, super::Broadcast { max_users: 5_000, confirm_over: 1_000, speed: None });
    assert_eq!(settings.notify_speed, None);
    let loaded = good(from_env(&[
        ("MAX_BROADCAST_USERS", "0"),
        ("BROADCAST_BATCH_SIZE", "10"),
        ("BROADCAST_BATCH_SLEEP", "2"),
        ("NOTIFY_BATCH_SIZE", "5"),
        ("NOTIFY_BATCH_SLEEP", "500ms"),
    ]));
    let speed = |batch, ms| Some(super::Speed { batch, rest: Duration::from_millis(ms) });
    assert_eq!((loaded.settings.broadcast.max_users, loaded.settings.broadcast.speed), (0, speed(10, 2_000)));
    assert_eq!(loaded.settings.notify_speed, speed(5, 500));
    assert!(loaded.notices.is_empty(), "{:?}", loaded.notices);
}

#[test]
fn two_names_for_one_setting_must_agree() {
    let sentence = problem(from_env(&[("SEMEL_POOL_MAX", "8"), ("DB_POOL_MAX", "20")]));
    assert_eq!(sentence, "`SEMEL_POOL_MAX` and `DB_POOL_MAX` both set `pool_max`, to different values: keep one.");

    let secrets = problem(from_env(&[("SEMEL_TELEGRAM_BOT_TOKEN", "1:first"), ("BOT_TOKEN", "1:second")]));
    assert!(!secrets.contains("first") && !secrets.contains("second"), "{secrets}");

    assert_eq!(good(from_env(&[("SEMEL_POOL_MAX", "20"), ("DB_POOL_MAX", "20")])).settings.pool_max, 20);
}

#[test]
fn names_of_features_to_come_are_explained_and_ignored() {
    let names = ["REDIS_URL", "DB_POOL_MIN", "DB_JOB_LOCK_BROADCAST", "DB_IP_ALLOC_LOCK_ID"];
    for name in names {
        let notices = good(from_env(&[(name, "1")])).notices;
        assert_eq!(notices.len(), 1, "{name}");
        assert!(notices[0].starts_with(&format!("`{name}` ")) && notices[0].ends_with("ignored."), "{}", notices[0]);
        assert!(explain(name).expect("a known name").starts_with(name), "{name}");
    }
    let locks = explain("DB_JOB_LOCK_DIGEST").expect("a known name");
    assert_eq!(locks, "DB_JOB_LOCK_DIGEST is not needed: leases are rows now, without lock ids; ignored.\n");
    assert_eq!(good(from_file("redis_url = \"redis://127.0.0.1\"\n")).notices.len(), 1);
}

#[test]
fn a_misspelt_variable_is_reported_with_the_likely_one() {
    let cases = [
        ("SEMEL_YOOKASA_SHOP_ID", "SEMEL_YOOKASSA_SHOP_ID"),
        ("SEMEL_LISEN", "SEMEL_LISTEN"),
        ("SEMEL_BOT_TOKEN", "SEMEL_TELEGRAM_BOT_TOKEN"),
        ("SEMEL_DB_POOL_MAX", "SEMEL_POOL_MAX"),
        ("SEMEL_HELEKET_API_URI", "SEMEL_HELEKET_API_URL"),
        ("SEMEL_CRYSTALPAY_SALT_FLE", "SEMEL_CRYSTALPAY_SALT"),
    ];
    for (written, meant) in cases {
        let sentence = problem(from_env(&[(written, "1")]));
        assert_eq!(sentence, format!("`{written}` is not a setting: did you mean `{meant}`?"));
    }
    let far = problem(from_env(&[("SEMEL_QWZX", "1")]));
    assert_eq!(far, "`SEMEL_QWZX` is not a setting: `semel config print` lists them all.");
    good(from_env(&[("SEMELE_LISTEN", "1"), ("YOOKASSA_SHOPID", "1")]));
}

#[test]
fn what_a_cluster_gives_to_a_service_called_semel_is_no_mistake() {
    good(from_env(&[("SEMEL_PORT", "tcp://10.0.0.7:8080"), ("SEMEL_SERVICE_HOST", "10.0.0.7")]));
    assert!(problem(from_env(&[("SEMEL_PORT", "8080")])).starts_with("`SEMEL_PORT` is not a setting"));
}

#[test]
fn a_misspelt_key_or_section_of_the_file_is_reported_with_the_likely_one() {
    let mut found = problems(from_file("lisen = \"127.0.0.1:1\"\n[yookasa]\nshop_id = 1\n[shop]\ncurency = \"RUB\"\n"));
    found.sort();
    assert_eq!(
        found,
        [
            "`lisen` in semel.toml is not a setting: did you mean `listen`?",
            "`shop.curency` in semel.toml is not a setting: did you mean `shop.currency`?",
            "section `[yookasa]` in semel.toml is not a setting: did you mean `yookassa`?",
        ]
    );
}

#[test]
fn a_line_appended_to_the_last_section_is_told_where_it_belongs() {
    for (line, name) in
        [("trusted_proxies = \"10.0.0.0/8\"", "trusted_proxies"), ("database_url_file = \"db\"", "database_url_file")]
    {
        assert_eq!(
            problem(from_file(&format!("[telegram]\nadmin_ids = [1]\n{line}\n"))),
            format!("`telegram.{name}` in semel.toml is not a setting: `{name}` stands above the first [section].")
        );
    }
    // What has a section of its own is not sent to the top.
    let far = problem(from_file("[telegram]\nshop_id = \"100500\"\n"));
    assert!(!far.contains("above the first"), "{far}");
}

#[test]
fn a_relative_path_means_a_place_beside_the_file_that_it_stands_in() {
    let database = |file: &str, text: &str, env: &[(&str, &str)]| {
        let loaded = good(load_from(Some((file, text)), &map(env), &[]));
        assert_eq!(loaded.file.as_deref(), Some(Path::new(file)));
        match loaded.settings.database {
            DatabaseUrl::Sqlite(path) => path.display().to_string(),
            DatabaseUrl::Postgres(_) => panic!("a file"),
        }
    };
    assert_eq!(database("/srv/shop/semel.toml", "", &[]), "/srv/shop/data/semel.db", "the default, too");
    let url = |path: &str| format!("database_url = \"sqlite://{path}\"\n");
    assert_eq!(database("/srv/shop/semel.toml", &url("shop.db"), &[]), "/srv/shop/shop.db");
    assert_eq!(database("conf/semel.toml", &url("shop.db"), &[]), "conf/shop.db");
    assert_eq!(database("/srv/shop/semel.toml", &url("/var/shop.db"), &[]), "/var/shop.db", "absolute is absolute");
    assert_eq!(database("./semel.toml", &url("shop.db"), &[]), "shop.db");
    assert_eq!(database("semel.toml", "", &[]), "data/semel.db");
    let elsewhere = [("SEMEL_DATABASE_URL", "sqlite://mine.db")];
    assert_eq!(database("/srv/shop/semel.toml", &url("shop.db"), &elsewhere), "mine.db", "the environment means here");

    let key = Scratch::new("beside", "live_key\n");
    let (folder, name) = key.path().rsplit_once('/').expect("a path");
    let file = format!("{folder}/semel.toml");
    let text = format!("api_token_file = '{name}'\n");
    let settings = good(load_from(Some((file.as_str(), text.as_str())), &BTreeMap::new(), &[])).settings;
    assert_eq!(settings.api_token.expect("a token").expose(), "live_key");
}

#[test]
fn the_file_is_written_in_its_own_types() {
    let settings = good(from_file(
        "pool_max = 4\ntrusted_proxies = [\"10.0.0.0/8\", \"192.0.2.7\"]\n\
         [telegram]\nadmin_ids = [11, 22]\n\
         [shop]\nlate_deliver = false\nreferral_reward_percent = 2.5\norder_lifetime = 90\n",
    ))
    .settings;
    assert_eq!(settings.pool_max, 4);
    let proxies: Vec<String> = settings.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(proxies, ["10.0.0.0/8", "192.0.2.7/32"]);
    assert_eq!(settings.telegram.admin_ids, [11, 22]);
    assert!(!settings.shop.late_deliver);
    assert_eq!(settings.shop.referral_reward_bp, 250);
    assert_eq!(settings.shop.order_lifetime, Duration::from_secs(90));

    assert_eq!(
        problem(from_file("pool_max = [1, 2]\n")),
        "`pool_max` in semel.toml must be connections, not a TOML array."
    );
}

#[test]
fn a_broken_file_is_reported_by_line_without_repeating_it() {
    let sentence = problem(from_file("listen = \"127.0.0.1:1\"\n[yookassa]\nsecret_key = live_unquoted\n"));
    assert!(sentence.starts_with("semel.toml line 3 is not TOML: "), "{sentence}");
    assert!(!sentence.contains("live_unquoted"), "{sentence}");
}

#[test]
fn a_file_that_was_named_must_exist() {
    let missing = Path::new("no/such/semel.toml");
    let sentence = problem(load(Some(missing), &BTreeMap::new(), &[]));
    assert!(sentence.starts_with("`no/such/semel.toml` cannot be read: "), "{sentence}");

    let there = Scratch::new("named.toml", "pool_max = 3\n");
    assert_eq!(good(load(Some(Path::new(there.path())), &BTreeMap::new(), &[])).settings.pool_max, 3);
}

#[test]
fn a_secret_may_stand_in_a_file_of_its_own() {
    let key = Scratch::new("key", "  live_key\n");
    let database = Scratch::new("database", "postgres://semel:pass@db/semel\n");
    let settings = good(from_env(&[
        ("SEMEL_PUBLIC_URL", "https://pay.example.com"),
        ("SEMEL_YOOKASSA_SHOP_ID", "100500"),
        ("SEMEL_YOOKASSA_SECRET_KEY_FILE", key.path()),
        ("DATABASE_URL_FILE", database.path()),
    ]))
    .settings;
    assert_eq!(settings.yookassa.expect("yookassa").secret_key.expose(), "live_key");
    assert_eq!(settings.database, DatabaseUrl::Postgres("postgres://semel:pass@db/semel".to_owned()));

    let settings = good(from_file(&format!("api_token_file = '{}'\n", key.path()))).settings;
    assert_eq!(settings.api_token.expect("a token").expose(), "live_key");

    let gone = problem(from_env(&[("SEMEL_API_TOKEN_FILE", "no/such/file")]));
    assert!(gone.starts_with("`SEMEL_API_TOKEN_FILE` names `no/such/file`, which cannot be read: "), "{gone}");
    let empty = Scratch::new("empty", "\n");
    let sentence = problem(from_env(&[("SEMEL_API_TOKEN_FILE", empty.path())]));
    assert!(sentence.ends_with("which is empty."), "{sentence}");
    let not_secret = problem(from_env(&[("SEMEL_LISTEN_FILE", key.path())]));
    assert!(not_secret.starts_with("`SEMEL_LISTEN_FILE` is not a setting"), "{not_secret}");
}

#[test]
fn a_provider_enabled_by_half_refuses_to_start_and_names_what_is_missing() {
    let found = problems(from_env(&[("CRYSTALPAY_LOGIN", "desk")]));
    assert_eq!(
        found,
        [
            "`public_url` above the first [section], or `SEMEL_PUBLIC_URL`, is missing: crystalpay is enabled \
             (`CRYSTALPAY_LOGIN` is set), and its webhooks need the https address at which they reach us.",
            "`secret` under [crystalpay], or `SEMEL_CRYSTALPAY_SECRET`, is missing: crystalpay is enabled \
             (`CRYSTALPAY_LOGIN` is set), and Semel refuses to start: webhooks could not be verified.",
            "`salt` under [crystalpay], or `SEMEL_CRYSTALPAY_SALT`, is missing: crystalpay is enabled \
             (`CRYSTALPAY_LOGIN` is set), and Semel refuses to start: webhooks could not be verified.",
        ]
    );
    let env = map(&[("SEMEL_PUBLIC_URL", "https://pay.example.com")]);
    let file = "[heleket]\nnetworks = \"off\"\n";
    let found = problems(load_from(Some(("semel.toml", file)), &env, &[]));
    assert_eq!(found.len(), 2, "{found:#?}");
    for (sentence, key, variable) in [
        (&found[0], "merchant_id", "SEMEL_HELEKET_MERCHANT_ID"),
        (&found[1], "payment_key", "SEMEL_HELEKET_PAYMENT_KEY"),
    ] {
        let wanted = format!("`{key}` under [heleket], or `{variable}`, is missing: heleket is enabled");
        assert!(sentence.starts_with(&wanted), "{sentence}");
    }
}

#[test]
fn every_problem_is_told_at_once() {
    let error = from_env(&[
        ("SEMEL_LISTEN", "8080"),
        ("SEMEL_LISEN", "8080"),
        ("SEMEL_STOP_BUDGET", "soon"),
        ("SEMEL_SHOP_CURRENCY", "GALLEONS"),
        ("YOOKASSA_SHOP_ID", "100500"),
    ])
    .expect_err("five faults");
    assert_eq!(error.problems.len(), 6, "{:#?}", error.problems);
    assert_eq!(error.to_string().lines().count(), 6);
}

#[test]
fn a_bad_value_is_told_with_what_to_write() {
    let cases = [
        (
            "SEMEL_LISTEN",
            "localhost",
            "is not an address with a port: write 127.0.0.1:8080, or 0.0.0.0:8080 for every network",
        ),
        ("SEMEL_POOL_MAX", "0", "is out of bounds: write a number from 1 to 1000"),
        ("SEMEL_POOL_MAX", "many", "is not a whole number: write one from 1 to 1000"),
        ("SEMEL_STOP_BUDGET", "2h", "is out of bounds: write a duration from 1s to 10m"),
        ("SEMEL_LIMITS_BODY", "256KB", "is not a size: write a number of bytes, or one with KiB or MiB, like 256KiB"),
        ("SEMEL_LOG_LEVEL", "loud", "is none of error, warn, info, debug, trace"),
        ("SEMEL_SHOP_LATE_DELIVER", "maybe", "is neither true nor false"),
        (
            "SEMEL_SHOP_REFERRAL_REWARD_PERCENT",
            "2.555",
            "is not a percentage: write a number from 0 to 100 with at most two decimals, like 2.5",
        ),
        (
            "SEMEL_SHOP_CURRENCY",
            "DUCATS",
            "is not a currency that this version knows: write a code such as RUB, USD or USDT",
        ),
        ("SEMEL_TELEGRAM_UPDATES", "push", "is none of off, polling, webhook"),
        (
            "SEMEL_TRUSTED_PROXIES",
            "10.0.0.0/8, nginx",
            "holds `nginx`, which is not a network: write 10.0.0.0/8 or 192.0.2.7",
        ),
        (
            "SEMEL_TRUSTED_PROXIES",
            "0.0.0.0/0",
            "trusts the whole internet, so anybody could forge the sender: name your proxy's network",
        ),
        (
            "SEMEL_PUBLIC_URL",
            "http://pay.example.com",
            "is not https: providers send webhooks to https only, so put a TLS proxy in front and write its https \
             address (http is for loopback hosts)",
        ),
        ("SEMEL_PUBLIC_URL", "ftp://pay.example.com", "is not a web address: write https://…"),
    ];
    for (name, value, wrong) in cases {
        assert_eq!(problem(from_env(&[(name, value)])), format!("`{name}` = `{value}` {wrong}."));
    }
    assert_eq!(
        problem(from_file("[shop]\norder_lifetime = \"long\"\n")),
        "`shop.order_lifetime` in semel.toml = `long` is not a duration: write a number with ms, s, m, h or d, like 15s, \
         30m or 24h."
    );
}

#[test]
fn a_database_address_is_a_file_or_postgresql() {
    let right = |text: &str| parse::database(text).expect("a database");
    assert_eq!(right("sqlite://data/semel.db"), DatabaseUrl::Sqlite(PathBuf::from("data/semel.db")));
    assert_eq!(right("sqlite:///var/lib/semel.db"), DatabaseUrl::Sqlite(PathBuf::from("/var/lib/semel.db")));
    assert_eq!(right("postgres://u:p@h/d"), DatabaseUrl::Postgres("postgres://u:p@h/d".to_owned()));
    for text in ["sqlite://", "sqlite://:memory:", "sqlite://a.db?mode=ro", "mysql://h/d", "sqlite+aiosqlite:///bot.db"]
    {
        assert!(parse::database(text).is_err(), "{text}");
    }
    let sentence = problem(from_env(&[("DATABASE_URL", "mysql://bot:hunter2@h/d")]));
    assert!(sentence.starts_with("`DATABASE_URL` is not a database address") && !sentence.contains("hunter2"));
}

#[test]
fn copies_listen_on_postgresql_and_nowhere_else() {
    let url = ("SEMEL_DATABASE_LISTEN_URL", "postgresql+asyncpg://semel:hunter2@db.internal:5432/semel");
    let loaded = good(from_env(&[("SEMEL_DATABASE_URL", "postgres://semel:hunter2@pooler:6432/semel"), url]));
    assert!(loaded.notices.is_empty(), "{:?}", loaded.notices);
    let printed = print(&loaded);
    let line = printed.lines().find(|line| line.starts_with("database_listen_url ")).expect("every key is printed");
    assert!(line.contains("://…@db.internal:5432/semel") && !line.contains("hunter2"), "{line}");
    assert!(!format!("{loaded:?}").contains("hunter2"));
    let listens = loaded.settings.database_listen_url.expect("an address");
    assert_eq!(listens.expose(), "postgresql://semel:hunter2@db.internal:5432/semel");

    let alone = good(from_env(&[url]));
    assert!(alone.settings.database_listen_url.is_none());
    let sentence = "`SEMEL_DATABASE_LISTEN_URL` does nothing: the database is SQLite, which serves one copy alone.";
    assert_eq!(alone.notices, [sentence]);

    for wrong in ["sqlite://data/semel.db", "hunter2@db/semel"] {
        let told = problem(from_env(&[("SEMEL_DATABASE_LISTEN_URL", wrong)]));
        let sentence = "is not an address of PostgreSQL: write postgres://user:password@host/name.";
        assert_eq!(told, format!("`SEMEL_DATABASE_LISTEN_URL` {sentence}"));
    }
}

#[test]
fn durations_are_written_with_a_unit_or_mean_seconds() {
    let day = 24 * 60 * 60;
    let millis = |text: &str| parse::duration(text, 0, 30 * day).map(|value| value.as_millis());
    for (text, expected) in [
        ("15s", 15_000),
        ("30m", 1_800_000),
        ("24h", 86_400_000),
        ("7d", 604_800_000),
        ("500ms", 500),
        ("90", 90_000),
        ("10 min", 600_000),
        ("0", 0),
    ] {
        assert_eq!(millis(text), Ok(expected), "{text}");
    }
    for text in ["", "s", "soon", "1.5h", "-5s", "5 weeks", "99999999999999999999s", "31d"] {
        assert!(millis(text).is_err(), "{text}");
    }
}

#[test]
fn percentages_become_basis_points_without_a_binary_fraction() {
    for (text, expected) in [("0", 0), ("2.5", 250), ("10%", 1000), ("0.07", 7), ("100", 10_000)] {
        assert_eq!(parse::basis_points(text), Ok(expected), "{text}");
    }
    for text in ["", "-1", "100.01", "2.", ".5", "2,5", "1e1"] {
        assert!(parse::basis_points(text).is_err(), "{text}");
    }
}

#[test]
fn forwarded_addresses_are_believed_from_loopback_only_when_listening_there() {
    let on = |listen: &str| good(from_env(&[("SEMEL_LISTEN", listen)])).settings.trusted_proxies;
    let local: Vec<String> = on("127.0.0.1:8080").iter().map(ToString::to_string).collect();
    assert_eq!(local, ["127.0.0.0/8", "::1/128"]);
    assert!(on("0.0.0.0:8080").is_empty());
    assert!(good(from_env(&[("SEMEL_TRUSTED_PROXIES", "none")])).settings.trusted_proxies.is_empty());
    assert!(print(&good(from_env(&[]))).contains("127.0.0.0/8, ::1/128  # default"));
}

#[test]
fn a_public_address_is_https_unless_it_stays_on_this_machine() {
    for text in
        ["https://pay.example.com", "https://pay.example.com/shop", "http://127.0.0.1:8080", "http://localhost:1"]
    {
        assert!(parse::public_url(text).is_ok(), "{text}");
    }
    for text in ["http://10.0.0.1", "pay.example.com", "https://a:b@pay.example.com", "https://pay.example.com/?a=1"] {
        assert!(parse::public_url(text).is_err(), "{text}");
    }
}

#[test]
fn keys_that_would_travel_in_the_clear_are_remarked() {
    let notices = good(from_env(&[("SEMEL_TELEGRAM_API_URL", "http://bot-api:8081")])).notices;
    assert_eq!(notices, ["`SEMEL_TELEGRAM_API_URL` is plain http: whoever listens on the way reads the keys."]);
    assert!(good(from_env(&[("SEMEL_TELEGRAM_API_URL", "http://127.0.0.1:8081")])).notices.is_empty());
}

#[test]
fn a_provider_takes_webhooks_from_the_networks_that_the_owner_names() {
    let networks = |text: &str| {
        let settings = good(from_env(&[
            ("SEMEL_PUBLIC_URL", "https://pay.example.com"),
            ("YOOKASSA_SHOP_ID", "100500"),
            ("YOOKASSA_SECRET_KEY", "live_key"),
            ("SEMEL_YOOKASSA_NETWORKS", text),
        ]))
        .settings;
        settings.yookassa.expect("yookassa").networks
    };
    assert_eq!(networks("published"), Networks::Published);
    assert_eq!(networks("off"), Networks::Off);
    let Networks::Listed(listed) = networks("185.71.76.0/27 77.75.156.11") else { panic!("a list") };
    assert_eq!(listed.len(), 2);
}

#[test]
fn stars_need_a_bot_that_hears_its_customers() {
    let found = problems(from_env(&[("SEMEL_STARS_ENABLED", "true")]));
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].contains("SEMEL_TELEGRAM_BOT_TOKEN") && found[1].contains("SEMEL_TELEGRAM_UPDATES"), "{found:#?}");

    let bot = [
        ("SEMEL_STARS_ENABLED", "true"),
        ("SEMEL_TELEGRAM_BOT_TOKEN", "123456789:AAbb-CC_dd"),
        ("SEMEL_TELEGRAM_UPDATES", "polling"),
    ];
    let with = |worth: &str| from_env(&[&bot[..], &[("SEMEL_STARS_WORTH", worth)][..]].concat());
    let worth = |millionths| Some(super::Stars { worth_millionths: millionths });
    assert_eq!(good(from_env(&bot)).settings.stars, worth(None));
    assert_eq!(good(with("1.80")).settings.stars, worth(Some(1_800_000)));
    assert_eq!(good(with("2")).settings.stars, worth(Some(2_000_000)));
    assert_eq!(good(with("0.000001")).settings.stars, worth(Some(1)));
    for wrong in ["0", "0.000000", "-1", "1,80", "1.2345678", ".5", "1.", "much"] {
        assert_eq!(problems(with(wrong)).len(), 1, "{wrong}");
    }
    let off = good(from_env(&[("SEMEL_STARS_WORTH", "1.80")]));
    assert_eq!((off.settings.stars, off.notices.len()), (None, 1));
}

#[test]
fn receipts_need_their_tax_values_which_are_never_guessed() {
    let shop = [
        ("SEMEL_PUBLIC_URL", "https://pay.example.com"),
        ("YOOKASSA_SHOP_ID", "100500"),
        ("YOOKASSA_SECRET_KEY", "live_key"),
    ];
    let with = |more: &[(&str, &str)]| from_env(&[&shop[..], more].concat());

    let found = problems(with(&[("SEMEL_YOOKASSA_RECEIPT_VAT", "1")]));
    assert_eq!(
        found,
        [
            "`receipt_subject` under [yookassa], or `SEMEL_YOOKASSA_RECEIPT_SUBJECT`, is missing: receipts are on \
             (`SEMEL_YOOKASSA_RECEIPT_VAT` is set), and tax values are never guessed.",
            "`receipt_mode` under [yookassa], or `SEMEL_YOOKASSA_RECEIPT_MODE`, is missing: receipts are on \
             (`SEMEL_YOOKASSA_RECEIPT_VAT` is set), and tax values are never guessed.",
        ]
    );
    let whole = [
        ("SEMEL_YOOKASSA_RECEIPT_VAT", "1"),
        ("SEMEL_YOOKASSA_RECEIPT_SUBJECT", "service"),
        ("SEMEL_YOOKASSA_RECEIPT_MODE", "full_payment"),
    ];
    let receipt = good(with(&whole)).settings.yookassa.and_then(|yookassa| yookassa.receipt).expect("a receipt");
    assert_eq!((receipt.vat, receipt.tax_system), (1, None));
    assert_eq!((receipt.subject.as_str(), receipt.mode.as_str()), ("service", "full_payment"));

    let off = [("SEMEL_YOOKASSA_RECEIPT_ENABLED", "false"), ("SEMEL_YOOKASSA_RECEIPT_VAT", "1")];
    assert!(good(with(&off)).settings.yookassa.expect("yookassa").receipt.is_none());
}

#[test]
fn events_go_out_signed_or_not_at_all() {
    let url = ("SEMEL_WEBHOOKS_OUT_URL", "https://bot.example.com/events");
    let unsigned = problem(from_env(&[url]));
    assert!(
        unsigned.starts_with("`secret` under [webhooks_out], or `SEMEL_WEBHOOKS_OUT_SECRET`, is missing: "),
        "{unsigned}"
    );

    let out = good(from_env(&[url, ("SEMEL_WEBHOOKS_OUT_SECRET", SIGNING_SECRET)])).settings.webhooks_out;
    assert_eq!(out.expect("webhooks out").secret.expose(), SIGNING_SECRET);

    let weak = problem(from_env(&[url, ("SEMEL_WEBHOOKS_OUT_SECRET", "whsec_aHVudGVyMg==")]));
    assert!(weak.starts_with("`SEMEL_WEBHOOKS_OUT_SECRET` is not a signing secret"), "{weak}");
    assert!(!weak.contains("aHVudGVyMg"), "{weak}");

    let near = ("SEMEL_WEBHOOKS_OUT_URL", "http://10.0.0.5/events");
    let secret = ("SEMEL_WEBHOOKS_OUT_SECRET", SIGNING_SECRET);
    assert!(problem(from_env(&[near, secret])).contains("is not https"));
    good(from_env(&[near, secret, ("SEMEL_WEBHOOKS_OUT_ALLOW_PRIVATE", "true")]));
}

#[test]
fn a_host_turns_the_vpn_on_and_the_rest_has_its_usual_values() {
    let vpn = good(from_env(&[("WG_HOST", "VPN.example.com")])).settings.vpn.expect("a VPN");
    assert_eq!((vpn.endpoint().as_str(), vpn.interface.as_str()), ("vpn.example.com:51820", "wg0"));
    assert_eq!(vpn.config_path, Path::new("/etc/wireguard/wg0.conf"));
    assert_eq!(vpn.lock_path, Path::new("/etc/wireguard/.wg0.conf.lock"));
    let networks = |networks: &[ipnet::IpNet]| networks.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!((networks(&vpn.networks), vpn.networks6.len()), (vec!["10.8.0.0/24".to_owned()], 0));
    assert_eq!((vpn.ipv6, vpn.keepalive, vpn.mtu, vpn.apply), (Ipv6::Blocked, 25, None, Apply::Interface));
    let tunnelled: Vec<String> = vpn.allowed_ips.iter().map(ToString::to_string).collect();
    assert_eq!(tunnelled, ["0.0.0.0/0", "::/0"]);
    assert_eq!(vpn.key_file.as_deref(), Some(Path::new("data/semel.db.vpn-key")));
    let day = Duration::from_secs(24 * 60 * 60);
    assert_eq!((vpn.trial, vpn.grace, vpn.sticky, vpn.quarantine), (Duration::ZERO, day, 30 * day, 7 * day));
    assert_eq!(vpn.remind, [3 * day, day, day / 8]);
    assert_eq!(vpn.unconnected, [day / 12, day, 5 * day]);
    assert!(vpn.key.is_none() && vpn.amnezia.is_none() && vpn.support.is_none());
    let sells_only = good(from_env(&[("WG_HOST", "vpn.example.com"), ("SEMEL_VPN_APPLY", "none")]));
    assert_eq!(sells_only.settings.vpn.expect("a VPN").apply, Apply::None);
    let six = good(from_env(&[("SEMEL_VPN_HOST", "[2001:db8::7]")])).settings.vpn.expect("a VPN");
    assert_eq!(six.endpoint(), "[2001:db8::7]:51820");
}

#[test]
fn the_names_of_an_existing_vpn_are_understood_and_do_nothing_without_a_host() {
    let names = [
        ("WG_PORT", "51821"),
        ("WG_DEFAULT_DNS", "9.9.9.9, vpn.lan"),
        ("WG_CLIENT_NETWORK_CIDR", "10.9.0.1/16"),
        ("WG_SERVER_PUBLIC_KEY", "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw="),
        ("WG_CONFIG_LOCK_PATH", "/run/vpn/wg0.lock"),
        ("WG_INTERFACE", "wg1"),
        ("WG_PERSISTENT_KEEPALIVE", "0"),
        ("WG_ALLOWED_IPS", "10.9.0.0/16"),
        ("WG_MTU", "1380"),
    ];
    let off = good(from_env(&names));
    assert!(off.settings.vpn.is_none());
    assert_eq!(off.notices.len(), 1);
    assert!(off.notices[0].ends_with("does nothing: `SEMEL_VPN_HOST` is not set; ignored."), "{:?}", off.notices);

    let on = from_env(&[&names[..], &[("WG_HOST", "192.0.2.7")][..]].concat());
    let on = good(on);
    let is_told = |words: &str| on.notices.iter().any(|notice| notice.contains(words));
    assert!(
        is_told("holds 10.9.0.1/16, which lies in 10.9.0.0/16") && !is_told("no private network"),
        "{:?}",
        on.notices
    );
    let vpn = on.settings.vpn.clone().expect("a VPN");
    assert_eq!((vpn.endpoint().as_str(), vpn.networks[0].to_string().as_str()), ("192.0.2.7:51821", "10.9.0.0/16"));
    assert_eq!(vpn.dns, ["9.9.9.9", "vpn.lan"]);
    assert_eq!(vpn.config_path, Path::new("/etc/wireguard/wg1.conf"));
    assert_eq!(vpn.lock_path, Path::new("/run/vpn/wg0.lock"));
    assert_eq!((vpn.ipv6, vpn.keepalive, vpn.mtu), (Ipv6::Off, 0, Some(1380)));
    assert_eq!(vpn.server_public_key.as_deref(), Some(names[3].1));
}

#[test]
fn a_network_of_the_internet_is_told_and_a_private_one_is_not() {
    for (network, is_told) in [
        ("10.8.0.0/24", false),
        ("172.16.0.0/16", false),
        ("192.168.3.0/24", false),
        ("100.64.0.0/16", false),
        ("11.8.0.0/24", true),
        ("172.32.0.0/24", true),
    ] {
        let loaded = good(from_env(&[("WG_HOST", "vpn.example.com"), ("SEMEL_VPN_NETWORK", network)]));
        let told = loaded.notices.iter().any(|notice| notice.contains("which is no private network"));
        assert_eq!(told, is_told, "{network}: {:?}", loaded.notices);
    }
}

#[test]
fn what_does_not_fit_together_in_a_vpn_is_told() {
    let with = |more: &[(&str, &str)]| from_env(&[&[("WG_HOST", "vpn.example.com")][..], more].concat());
    let found = problem(with(&[("SEMEL_DATABASE_URL", "postgres://semel@db/semel")]));
    assert!(
        found.starts_with("`key` under [vpn], or `SEMEL_VPN_KEY`, is missing: it seals customers' keys"),
        "{found}"
    );
    let found = problem(with(&[("SEMEL_VPN_IPV6", "routed")]));
    assert!(found.starts_with("`network6` under [vpn], or `SEMEL_VPN_NETWORK6`, is missing"), "{found}");
    assert_eq!(problems(with(&[("SEMEL_VPN_AMNEZIA_JC", "4")])).len(), 8);
    let found = problem(with(&[("SEMEL_VPN_KEY", "c2hvcnQ=")]));
    assert!(found.contains("is not the base64 of 32 bytes") && !found.contains("c2hvcnQ"), "{found}");
    for (name, value) in [
        ("SEMEL_VPN_INTERFACE", "wg0; reboot"),
        ("SEMEL_VPN_NETWORK", "10.8.0.0/8"),
        ("SEMEL_VPN_NETWORK6", "10.9.0.0/24"),
        ("SEMEL_VPN_DNS", "1.1.1.1, not/a/name"),
        ("SEMEL_VPN_SERVER_PUBLIC_KEY", "short"),
        ("SEMEL_VPN_TOOL", "./wg"),
        ("SEMEL_VPN_SUPPORT", "http://example.com"),
        ("SEMEL_VPN_REMIND", "3d, soon"),
        ("SEMEL_VPN_PORT", "0"),
    ] {
        assert!(problem(with(&[(name, value)])).starts_with(&format!("`{name}`")), "{name}");
    }
    assert!(problem(from_env(&[("WG_HOST", "vpn.example.com:51820")])).contains("is not a host"));
}

#[test]
fn secrets_are_never_shown() {
    let env = [
        ("SEMEL_PUBLIC_URL", "https://pay.example.com"),
        ("SEMEL_API_TOKEN", "hidden-api-token-0123456789"),
        ("SEMEL_DATABASE_URL", "postgres://semel:hidden@db/semel?password=hidden"),
        ("SEMEL_TELEGRAM_BOT_TOKEN", "123:hidden"),
        ("SEMEL_TELEGRAM_PROXY", "http://user:hidden@proxy:1080"),
        ("SEMEL_YOOKASSA_SHOP_ID", "100500"),
        ("SEMEL_YOOKASSA_SECRET_KEY", "hidden"),
        ("SEMEL_HELEKET_MERCHANT_ID", "merchant"),
        ("SEMEL_HELEKET_PAYMENT_KEY", "hidden"),
        ("SEMEL_CRYSTALPAY_LOGIN", "desk"),
        ("SEMEL_CRYSTALPAY_SECRET", "hidden"),
        ("SEMEL_CRYSTALPAY_SALT", "hidden"),
    ];
    let loaded = good(from_env(&env));
    let printed = print(&loaded);
    assert!(!printed.contains("hidden"), "{printed}");
    assert!(!format!("{loaded:?}").contains("hidden"));
    let shown = |key: &str| {
        let found = loaded.sources.iter().find(|effective| effective.setting.key == key);
        found.map(|effective| effective.shown.as_str()).expect("every key has an entry")
    };
    assert_eq!(shown("yookassa.secret_key"), "(set)");
    assert_eq!(shown("heleket.payout_key"), "(not set)");
    assert_eq!(shown("database_url"), "postgres://…@db/semel?…");
    for address in
        ["postgres://u:hid?den@db/semel", "postgres://db/semel?password=hid@den", "postgres://u:hid@den@db/s"]
    {
        let printed = print(&good(from_env(&[("DATABASE_URL", address)])));
        assert!(!printed.contains("hid") && !printed.contains("den"), "{printed}");
    }
    assert_eq!(format!("{:?}", loaded.settings.api_token), "Some(Secret(set))");

    let mut wrong = env.to_vec();
    wrong.push(("SEMEL_LISTEN", "nowhere"));
    wrong.push(("BOT_TOKEN", "hidden/../getMe"));
    wrong.push(("SEMEL_HELEKET_PAYOUT_KEY", "hidden key"));
    let error = from_env(&wrong).expect_err("three faults");
    assert!(!format!("{error} {error:?}").contains("hidden"), "{error}");
}

#[test]
fn a_setting_is_explained_by_any_of_its_names() {
    let by_key = explain("yookassa.secret_key").expect("a setting");
    for name in
        ["SEMEL_YOOKASSA_SECRET_KEY", "YOOKASSA_SECRET_KEY", "SEMEL_YOOKASSA_SECRET_KEY_FILE", " Yookassa.Secret_Key "]
    {
        assert_eq!(explain(name).as_ref(), Ok(&by_key), "{name}");
    }
    assert_eq!(
        by_key,
        "yookassa.secret_key\n  \
         Secret key of the shop: every webhook is verified by asking the API with it.\n  \
         Value: text.\n  \
         Default: not set.\n  \
         In semel.toml: secret_key under [yookassa].\n  \
         In the environment: SEMEL_YOOKASSA_SECRET_KEY, or SEMEL_YOOKASSA_SECRET_KEY_FILE with the path of a file that \
         holds it.\n  \
         Also accepted there: YOOKASSA_SECRET_KEY.\n  \
         Secret: never printed.\n"
    );
    assert_eq!(
        explain("yookassa.secret_kee"),
        Err("`yookassa.secret_kee` is not a setting: did you mean `yookassa.secret_key`?".to_owned())
    );
    assert!(explain("limits").expect("a section").contains("connections: Most HTTP connections"));
    for setting in SETTINGS {
        assert!(explain(setting.key).expect("a setting").contains(setting.env), "{}", setting.key);
    }
}

#[test]
fn every_row_of_the_table_is_whole() {
    let mut names = Vec::new();
    let mut previous = "";
    for setting in SETTINGS {
        assert_eq!(setting.env, format!("SEMEL_{}", setting.key.replace('.', "_").to_ascii_uppercase()));
        assert!(setting.one_line.ends_with('.'), "{}: one sentence", setting.key);
        assert!(!setting.unit.is_empty() && !setting.unit.ends_with('.'), "{}: a unit", setting.key);
        assert!(!(setting.secret && setting.default.is_some()), "{}: no secret by default", setting.key);
        let section = setting.section();
        assert!(section.is_empty() || SECTIONS.iter().any(|(known, _)| *known == section), "{}", setting.key);
        assert!(section == previous || !names.iter().any(|(_, seen)| *seen == section), "{}: apart", setting.key);
        previous = section;
        for name in setting.env_names() {
            assert!(!names.iter().any(|(seen, _)| *seen == name), "{name}: twice");
            assert_eq!(table::by_env(name).map(|found| found.key), Some(setting.key));
            names.push((name, section));
        }
    }
}

#[test]
fn the_example_file_is_the_table() {
    let file = include_str!("../../../../semel.example.toml");
    assert_eq!(file, render_example(), "semel.example.toml is out of date");
}

/// The tables of the settings page: a heading, a sentence and a row for each setting, in the order of the example file.
fn render_page() -> String {
    let row = |setting: &table::Setting| {
        let file = if setting.may_come_from_file() { format!("<br>`{}_FILE`", setting.env) } else { String::new() };
        let also: String = setting.aliases.iter().map(|alias| format!("<br>also `{alias}`")).collect();
        let default = setting.default.map_or_else(|| "not set".to_owned(), |value| format!("`{value}`"));
        let words = [setting.one_line, setting.more].join(" ").trim_end().replace('|', "\\|");
        // In code a backslash would show.
        let parts = words.split('`').enumerate();
        let words: Vec<String> = parts
            .map(|(n, part)| if n.is_multiple_of(2) { part.replace('<', "\\<") } else { part.to_owned() })
            .collect();
        let words = words.join("`");
        let secret = if setting.secret { " **Secret.**" } else { "" };
        let (name, env, unit) = (setting.name(), setting.env, setting.unit.replace('|', "\\|"));
        format!("| `{name}` | `{env}`{file}{also} | {default} | {words} *Value: {unit}.*{secret} |\n")
    };
    let table = |section: &str| {
        let rows: String = SETTINGS.iter().filter(|setting| setting.section() == section).map(row).collect();
        format!("| Name | Environment | Default | Meaning |\n|---|---|---|---|\n{rows}\n")
    };
    let first = format!("## Above the first section\n\n{}", table(""));
    let rest = SECTIONS.iter().map(|(name, sentence)| format!("## `[{name}]`\n\n{sentence}\n\n{}", table(name)));
    std::iter::once(first).chain(rest).collect()
}

#[test]
fn the_settings_page_is_the_table() {
    let page = include_str!("../../../../docs/settings.md");
    let begin = page.find("## Above the first section").expect("the page has its first table");
    let end = page.find("## Names that are known and do nothing").expect("the page has its end");
    assert_eq!(&page[begin..end], render_page(), "docs/settings.md is out of date");
}

#[test]
fn the_example_changes_nothing_even_with_every_line_uncommented() {
    let as_it_is = good(from_file(&render_example()));
    assert_eq!(format!("{:?}", as_it_is.settings), format!("{:?}", good(from_env(&[])).settings));

    // A comment has a space after its #, a value has none. The defaults of a provider would enable it, so these stay out.
    let mut section = String::new();
    let mut uncommented = String::new();
    for line in render_example().lines() {
        if line.starts_with('[') {
            section = line.to_owned();
        }
        let is_value = line.starts_with('#') && !line.starts_with("# ") && line != "#";
        if is_value && !is_of_a_provider(section.trim_matches(['[', ']'])) {
            uncommented.push_str(&line[1..]);
        } else {
            uncommented.push_str(line);
        }
        uncommented.push('\n');
    }
    let loaded = good(from_file(&uncommented));
    assert_eq!(format!("{:?}", loaded.settings), format!("{:?}", good(from_env(&[])).settings));
    let taken = loaded.sources.iter().filter(|effective| effective.source.to_string() == "semel.toml").count();
    assert_eq!(taken, SETTINGS.iter().filter(|row| row.default.is_some() && !is_of_a_provider(row.section())).count());
}

fn is_of_a_provider(section: &str) -> bool {
    ["yookassa", "heleket", "crystalpay"].contains(&section)
}
