//! The end of a round: the wait for rest, and what the sandbox, the database and the diary say about it together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::sleep;

use semel_kernel::clock::{Clock, Stopwatch};
use semel_kernel::store::{Store, StoreUrl, Value as Cell};
use semel_kernel::testing::{self, PgServer};
use semel_sandbox::{GtTg, Provider, Sandbox, Truth};
use semel_shop::audit::{self, HookRow, Parameters, PayRow, TgRow, TruthRows, Verdict};

use super::nemesis::LEASE;
use super::talk::{NEWS, TALKERS};
use super::watch::{About, Diary, look_in};
use crate::syscalls::conf;

/// How long after the end of trouble everything may take to be at rest.
const REST: Duration = Duration::from_secs(120);

const RUNNING: &str = "select count(*) from jobs where state = 'running' or (state = 'ready' and run_at <= semel_now() and kind <> 'audit.fresh')";
/// What has failed before and waits for its next try.
const WAITING: &str = "select kind || ' ' || coalesce(slot, id) || ', ' || attempts || ' tries, in ' || ((run_at - semel_now()) / 1000) || ' s'
    || coalesce(': ' || error, '') from jobs where state in ('ready', 'running') and (error is not null or attempts > 0)
    order by case kind when 'message.send' then 1 else 0 end, run_at limit 20";
const DEAD: &str =
    "select kind || ' ' || id || coalesce(' (' || error || ')', '') from jobs where state = 'dead' order by id";
const ORDERS: &str = "select state, count(*) from orders group by state order by state";
const DELIVERED: &str = "select c.telegram_id, count(*) from deliveries d join items i on i.id = d.item
    join orders o on o.id = i.order_id join customers c on c.id = o.customer
    where d.state = 'delivered' and d.unit is not null group by c.telegram_id";
const UNCERTAIN: &str = "select id from messages where uncertain > 0
    union all select campaign || ':' || chat_id from recipients where uncertain > 0 or state = 'unknown'";
/// Of each person who talked to the bot, how many orders came of that.
const BY_BUTTONS: &str = "select c.telegram_id, count(o.id) from customers c left join orders o on o.customer = c.id
    where c.telegram_id >= $1 group by c.telegram_id";
const UPDATES: &str = "select count(*) from updates where update_id between 1 and $1 and state = 'done'";
const CAMPAIGN: &str = "select id, state, snapshot_count from campaigns";
const RECIPIENTS: &str = "select state, count(*) from recipients group by state";
const WANTED_PEERS: &str = "select distinct pubkey from audit_peer where state in ('pending', 'active')";
/// How long the VPN server's file may take to follow the database once all is at rest.
const FILE_FOLLOWS: Duration = Duration::from_secs(30);
/// The owner gets the news as a test before all others.
const OWNER: i64 = 1;
const LOCKS: &str = "select count(*) from pg_locks where locktype = 'advisory'";

/// What a round came to.
#[derive(Debug, Default)]
pub struct Ending {
    /// Seconds from the end of trouble and load to rest.
    pub rest_s: u64,
    /// Promises that hold.
    pub promises_held: u64,
    /// Promises that were asked.
    pub promises: u64,
    /// Orders by state.
    pub orders: BTreeMap<String, u64>,
    /// Messages that Telegram took and whose answer was cut off.
    pub unknowns_injected: u64,
    /// Those of them that are recorded as of unknown fate, at least for a while.
    pub unknowns_recorded: u64,
    /// Messages that Telegram took more than once.
    pub messages_repeated: u64,
    /// Updates of the bot.
    pub updates: u64,
    /// People who caused them.
    pub talkers: u64,
    /// Recipients of the news by state.
    pub news: BTreeMap<String, u64>,
    /// Customers' peers in the VPN server's file.
    pub peers: u64,
}

/// Who knows what happened.
pub struct Witness<'a> {
    /// PostgreSQL.
    pub server: &'a Arc<PgServer>,
    /// The outside world.
    pub sandbox: &'a Sandbox,
    /// What was done to the copies.
    pub diary: &'a Diary,
    /// Ids of messages whose answers a proxy kept back, once for each time.
    pub lost_answers: &'a [String],
}

impl Witness<'_> {
    fn store(&self) -> Result<Store> {
        let StoreUrl::Postgres(url) = self.server.url("shop") else { bail!("the copies share PostgreSQL") };
        // A name of its own: it is none of the copies' sessions.
        let url = StoreUrl::Postgres(format!("{url}&application_name=semel-witness"));
        Store::open(&url, testing::options(), Clock::system()).context("the database does not open")
    }

    /// Waits until nothing is left to do and every promise holds, two minutes at most. What does not hold then is a
    /// trouble.
    pub async fn rest(&self) -> Result<Ending> {
        let store = self.store()?;
        let watch = Stopwatch::start();
        let verdicts = loop {
            let late = watch.elapsed() > REST;
            let unheard = self.sandbox.waiting_updates() > 0;
            let left = number(&store, RUNNING).await?;
            if (left == 0 && !unheard) || late {
                let verdicts = self.verdicts(&store).await?;
                if late || verdicts.iter().all(Verdict::holds) {
                    if left > 0 {
                        self.diary
                            .trouble(About::Rest, format!("{left} jobs run or are due after {} s", REST.as_secs()));
                    }
                    if unheard {
                        let text = format!("the bot has not taken all updates after {} s", REST.as_secs());
                        self.diary.trouble(About::Rest, text);
                    }
                    break verdicts;
                }
            }
            sleep(Duration::from_secs(1)).await;
        };
        let mut ending = Ending { rest_s: watch.elapsed().as_secs(), ..Ending::default() };
        for verdict in &verdicts {
            ending.promises += 1;
            if verdict.holds() {
                ending.promises_held += 1;
                continue;
            }
            let (id, meaning, count) = (verdict.id, verdict.meaning, verdict.count);
            let rows = verdict.violations.join(" ");
            self.diary.trouble(About::Promise, format!("{id} ({meaning}) is broken by {count} rows, such as {rows}"));
        }
        if ending.promises_held < ending.promises {
            for row in store.rows("prove.waiting", WAITING, &[]).await? {
                self.diary.trouble(About::Promise, format!("still to be done: {}", row.get::<String>(0)?));
            }
        }
        for row in store.rows("prove.dead", DEAD, &[]).await? {
            self.diary.trouble(About::Lost, format!("a job gave up: {}", row.get::<String>(0)?));
        }
        for row in store.rows("prove.orders", ORDERS, &[]).await? {
            ending.orders.insert(row.get(0)?, u64::try_from(row.get::<i64>(1)?).unwrap_or(0));
        }
        let locks = match look_in(self.server).await {
            Some(client) => client.query_one(LOCKS, &[]).await?.get::<_, i64>(0),
            None => 0,
        };
        if locks > 0 {
            self.diary.trouble(About::Sessions, format!("{locks} advisory locks are held at rest"));
        }
        Ok(ending)
    }

    async fn verdicts(&self, store: &Store) -> Result<Vec<Verdict>> {
        let truth = self.truth();
        let lease = i64::try_from(LEASE.as_millis())?;
        // What a proxy kept back arrives together with what follows: as many more as may be under way at a time. Two
        // senders at once would still be far above.
        let cap = Parameters::default().cap + 16;
        let parameters = Parameters { deadline: 60_000, lease, cap, ..Parameters::default() };
        Ok(audit::check_with_truth(store, &truth, parameters, true).await?)
    }

    /// Each customer has in the chat what the books call delivered, and nothing of anybody else.
    pub async fn goods(&self) -> Result<()> {
        let store = self.store()?;
        let mut owed: BTreeMap<i64, i64> = BTreeMap::new();
        for row in store.rows("prove.delivered", DELIVERED, &[]).await? {
            owed.insert(row.get(0)?, row.get(1)?);
        }
        let mut owners: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
        let mut got: BTreeMap<i64, i64> = BTreeMap::new();
        for chat in self.sandbox.chats() {
            let keys = keys(self.sandbox, chat);
            if !keys.is_empty() {
                got.insert(chat, i64::try_from(keys.len())?);
            }
            for key in keys {
                owners.entry(key).or_default().insert(chat);
            }
        }
        for (key, owners) in owners.iter().filter(|(_, owners)| owners.len() > 1) {
            self.diary.trouble(About::Doubled, format!("{key} went to several customers: {owners:?}"));
        }
        let customers: BTreeSet<i64> = owed.keys().chain(got.keys()).copied().collect();
        for customer in customers {
            let (owed, got) = (owed.get(&customer).copied().unwrap_or(0), got.get(&customer).copied().unwrap_or(0));
            let about = if got < owed { About::Lost } else { About::Doubled };
            if got != owed {
                self.diary.trouble(about, format!("customer {customer} has {got} keys, and the books say {owed}"));
            }
        }
        Ok(())
    }

    /// Every message that Telegram took and whose answer was cut off was once of unknown fate.
    pub async fn unknowns(&self, ending: &mut Ending) -> Result<()> {
        let store = self.store()?;
        let mut recorded: BTreeSet<String> = BTreeSet::new();
        for row in store.rows("prove.uncertain", UNCERTAIN, &[]).await? {
            recorded.insert(row.get(0)?);
        }
        let mut taken: BTreeMap<String, u64> = BTreeMap::new();
        for call in self.sandbox.truth().gt_tg.into_iter().filter(|call| call.accepted) {
            *taken.entry(call.msg_id).or_default() += 1;
        }
        let injected: BTreeSet<&String> = self.lost_answers.iter().filter(|id| taken.contains_key(*id)).collect();
        ending.unknowns_injected = injected.len() as u64;
        ending.unknowns_recorded = injected.iter().filter(|id| recorded.contains(id.as_str())).count() as u64;
        ending.messages_repeated = taken.values().filter(|times| **times > 1).count() as u64;
        Ok(())
    }

    /// Every update up to the one of this number was taken, and however often people tapped, each has one order at most.
    pub async fn talk(&self, last: u64, ending: &mut Ending) -> Result<()> {
        let store = self.store()?;
        let last = i64::try_from(last)?;
        let done = store.rows("prove.updates", UPDATES, &[Cell::from(last)]).await?;
        let done: i64 = done.first().context("a count has a row")?.get(0)?;
        if done != last {
            self.diary.trouble(About::Lost, format!("of {last} updates of the bot {done} were worked off"));
        }
        ending.updates = u64::try_from(done)?;
        for row in store.rows("prove.buttons", BY_BUTTONS, &[Cell::from(TALKERS)]).await? {
            let (who, orders): (i64, i64) = (row.get(0)?, row.get(1)?);
            ending.talkers += 1;
            if orders > 1 {
                self.diary.trouble(About::Doubled, format!("{who} bought once by buttons and has {orders} orders"));
            }
        }
        Ok(())
    }

    /// The news are over: the states sum to the recipients, nobody has them twice, and what counts as sent has arrived.
    pub async fn news(&self, ending: &mut Ending) -> Result<()> {
        let store = self.store()?;
        let found = store.rows("prove.campaign", CAMPAIGN, &[]).await?;
        let found = found.first().context("there are news")?;
        let (id, state, wanted): (String, String, i64) = (found.get(0)?, found.get(1)?, found.get(2)?);
        let mut sum = 0;
        for row in store.rows("prove.recipients", RECIPIENTS, &[]).await? {
            let count: i64 = row.get(1)?;
            sum += count;
            ending.news.insert(row.get(0)?, u64::try_from(count)?);
        }
        if state != "finished" {
            self.diary.trouble(About::Rest, format!("the campaign {id} is {state}: {:?}", ending.news));
        }
        if sum != wanted {
            let text = format!("the states of campaign {id} sum to {sum} and not to {wanted}: {:?}", ending.news);
            self.diary.trouble(About::Lost, text);
        }
        let of = |state: &str| ending.news.get(state).copied().unwrap_or(0);
        let (sent, open) = (of("sent"), of("unknown"));
        let mut arrived = 0;
        for chat in self.sandbox.chats().into_iter().filter(|chat| *chat != OWNER) {
            let copies = self.sandbox.chat(chat).iter().filter(|message| message.text == NEWS).count();
            arrived += copies as u64;
            if copies > 1 {
                self.diary.trouble(About::Doubled, format!("customer {chat} has the news {copies} times"));
            }
        }
        if arrived < sent {
            self.diary.trouble(About::Lost, format!("{sent} recipients count as sent and {arrived} have the news"));
        }
        if arrived > sent + open {
            let text = format!("{arrived} have the news; {sent} count as sent and {open} as unknown");
            self.diary.trouble(About::Promise, text);
        }
        Ok(())
    }

    /// The VPN server's file has the peers that the database wants, and no others.
    pub async fn file(&self, file: &Path, ending: &mut Ending) -> Result<()> {
        let store = self.store()?;
        let watch = Stopwatch::start();
        loop {
            let mut wanted = BTreeSet::new();
            for row in store.rows("prove.peers", WANTED_PEERS, &[]).await? {
                wanted.insert(row.get::<String>(0)?);
            }
            let found = conf::version(file);
            if found.as_ref().is_ok_and(|found| *found == wanted) {
                ending.peers = wanted.len() as u64;
                return Ok(());
            }
            if watch.elapsed() > FILE_FOLLOWS {
                let text = format!("N3: wg0.conf has {found:?} and the database wants {wanted:?}");
                self.diary.trouble(About::Promise, text);
                return Ok(());
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// The sandbox's ground truth as the audit reads it. Repeats that were answered alike are one row: they prove the same.
    fn truth(&self) -> TruthRows {
        let truth = self.sandbox.truth();
        let mut seen = BTreeSet::new();
        let hooks = truth
            .gt_hook
            .iter()
            .filter(|hook| seen.insert((hook.provider, hook.event_id.clone(), hook.body_hash.clone(), hook.status)));
        let hooks = hooks.map(|hook| HookRow {
            provider: hook.provider.as_str().to_owned(),
            merchant: hook.merchant.clone(),
            event_id: hook.event_id.clone(),
            body_hash: hook.body_hash.clone(),
            // CrystalPay takes 429 for an acknowledgement.
            status: match (hook.provider, hook.status) {
                (Provider::CrystalPay, 429) => 200,
                (_, status) => i64::from(status),
            },
            sent_at: hook.sent_at,
            answered_at: Some(hook.answered_at),
        });
        let pays = truth.gt_pay.iter().map(|pay| PayRow {
            provider: pay.provider.as_str().to_owned(),
            merchant: pay.merchant.clone(),
            provider_payment_id: pay.provider_payment_id.clone(),
            currency: pay.currency.clone(),
            captured: pay.captured,
            refunded: pay.refunded,
        });
        let unheard = self.unheard(&truth);
        let calls = truth.gt_tg.iter().map(|call| TgRow {
            call_id: call.call_id.clone(),
            token: call.token.clone(),
            chat_id: call.chat_id.unwrap_or_default(),
            method: call.method.clone(),
            msg_id: Some(call.msg_id.clone()),
            accepted: call.accepted,
            answer_lost: call.answer_lost || unheard.contains(&call.call_id),
            retry_after: call.retry_after,
            scope: call.scope.clone(),
            at: call.at,
        });
        TruthRows { hooks: hooks.collect(), pays: pays.collect(), tg: calls.collect(), ..TruthRows::default() }
    }

    /// Calls that Telegram did and that were done again, where there is a reason: a proxy kept the answer back, or
    /// something between the two kept the copy from writing the answer down.
    fn unheard(&self, truth: &Truth) -> BTreeSet<String> {
        let mut kept_back: BTreeMap<&str, usize> = BTreeMap::new();
        for id in self.lost_answers {
            *kept_back.entry(id.as_str()).or_default() += 1;
        }
        let mut calls: BTreeMap<&str, Vec<&GtTg>> = BTreeMap::new();
        for call in truth.gt_tg.iter().filter(|call| call.accepted) {
            calls.entry(call.msg_id.as_str()).or_default().push(call);
        }
        let mut unheard = BTreeSet::new();
        for (id, calls) in &calls {
            for (one, next) in calls.iter().zip(calls.iter().skip(1)) {
                let left = kept_back.get_mut(id).filter(|left| **left > 0);
                let excused = match left {
                    Some(left) => {
                        *left -= 1;
                        true
                    }
                    None => self.diary.was_disturbed(one.at, next.at),
                };
                if excused {
                    unheard.insert(one.call_id.clone());
                }
            }
        }
        unheard
    }
}

/// The different keys in a chat.
fn keys(sandbox: &Sandbox, chat: i64) -> BTreeSet<String> {
    let texts = sandbox.chat(chat).into_iter().map(|message| message.text);
    let lines = texts.flat_map(|words| words.lines().map(str::to_owned).collect::<Vec<_>>());
    lines.filter(|line| line.starts_with("KEY-")).collect()
}

async fn number(store: &Store, sql: &'static str) -> Result<i64> {
    let rows = store.rows("prove.number", sql, &[]).await?;
    Ok(rows.first().context("a count has a row")?.get(0)?)
}
