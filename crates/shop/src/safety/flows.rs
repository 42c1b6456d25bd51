//! Safe mode: how it begins, what it refuses and puts off, and how it ends.

use std::time::Duration;

use serde::Serialize;

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::history::{self, Entry};
use semel_kernel::jobs::{self, Claim, Ended, JobError};
use semel_kernel::store::{Expect, Row, Store, StoreError, Tx};
use semel_payments::{Provider, Rail, Unsupported};

use super::{Reconcile, Reconciled, Restored, SAFE_MODE, SafeMode, sql};
use crate::catalog::flows as catalog;
use crate::catalog::{Held, ProductId};
use crate::shop::Lanes;
use crate::{Error, Shop, alerts, campaigns, messages, orders, vpn};

/// How long a job waits before it looks again whether safe mode is over. Its end brings the job forward.
const LOOK_AGAIN: Duration = Duration::from_secs(600);
/// How soon a job looks again that could not find out whether it has to wait.
const SOON: Duration = Duration::from_secs(5);

/// Writes into a restored database that it came out of a backup. In the transaction of the restore, before any program can
/// see the database; [`take_in_hand`] does the rest.
///
/// # Errors
/// What the store says.
pub fn note_restored(tx: &mut Tx, restored: &Restored) -> Result<(), StoreError> {
    tx.execute(sql::NOTE_RESTORED, args![written(restored)?]).map(|_| ())
}

/// The same as one statement of PostgreSQL for a script, in the schema `semel`. There is no foreign text in it.
///
/// # Errors
/// [`StoreError::Statement`] when the moments cannot be written.
pub fn note_restored_script(restored: &Restored) -> Result<String, StoreError> {
    Ok(format!(
        "insert into semel.marks (name, value) values ('restored', '{}') on conflict (name) do update set value = excluded.value;\n",
        written(restored)?
    ))
}

/// Puts a database that was restored into safe mode: holds its stock back, and ends as unknown what must not be said twice.
/// Once for each restore; a repeat changes nothing. Belongs before the first work on a database.
///
/// # Errors
/// What the store says.
pub fn take_in_hand(tx: &mut Tx) -> Result<(), StoreError> {
    let Some(row) = tx.first(sql::RESTORED, &[])? else { return Ok(()) };
    let Restored { backup_at, restored_at } = read(&row)?;
    // A backup that was taken in safe mode lacks what happened since an older one.
    let before: Option<SafeMode> = current(tx, true)?;
    let mut mode = SafeMode { backup_at, restored_at, rails: Default::default() };
    if let Some(before) = before {
        mode.backup_at = backup_at.min(before.backup_at);
    }
    for row in tx.rows(sql::RAILS, &[])? {
        let word: String = row.get(0)?;
        let provider = word.parse().map_err(|_| StoreError::Decode { wanted: "a provider", found: word })?;
        mode.rails.insert(provider, None);
    }
    let held_back = catalog::hold_back(tx, restored_at)?;
    let untold = messages::flows::forget_queued(tx)? + campaigns::flows::forget_queued(tx)?;
    keep(tx, &mode)?;
    tx.later(sql::FORGET_RESTORED, &[], Expect::Rows(1))?;
    let detail = format!("backup of {backup_at}; {held_back} units held back; {untold} messages left unknown");
    history::append(tx, &Entry { event: "restored", detail: Some(&detail), ..entry() })
}

/// Brings a database that may have been restored into a state that may be worked on, and reads whether safe mode is on.
/// Belongs between the migration and everything else.
///
/// # Errors
/// What the store says.
pub async fn open(shop: &Shop) -> Result<Option<SafeMode>, StoreError> {
    settle(&shop.store).await?;
    load(shop).await
}

/// [`take_in_hand`] in a transaction of its own.
///
/// # Errors
/// What the store says.
pub async fn settle(store: &Store) -> Result<(), StoreError> {
    let restored: Vec<Row> = store.rows("safety.restored", sql::RESTORED, &[]).await?;
    if restored.is_empty() {
        return Ok(());
    }
    store.write("safety.take_in_hand", take_in_hand).await
}

/// Reads whether safe mode is on, and remembers it for this process.
///
/// # Errors
/// What the store says.
pub async fn load(shop: &Shop) -> Result<Option<SafeMode>, StoreError> {
    let (mode, holds_back) = shop
        .store
        .read("safety.load", |tx| Ok::<_, StoreError>((current(tx, false)?, catalog::is_any_held_back(tx)?)))
        .await?;
    shop.safety().remember(mode.is_some(), holds_back);
    Ok(mode)
}

/// Safe mode as it stands now; `None` when it is off. Asks the database only while this process does not know that it is.
///
/// # Errors
/// What the store says.
pub async fn mode(shop: &Shop) -> Result<Option<SafeMode>, StoreError> {
    if shop.safety().may_be_on() { load(shop).await } else { Ok(None) }
}

/// Safe mode as this database has it, for who looks at one without working on it. The schema must be up to date.
///
/// # Errors
/// What the store says.
pub async fn of_database(store: &Store) -> Result<Option<SafeMode>, StoreError> {
    store.look("safety.look", |tx| current(tx, false)).await
}

/// Lets what would sell or pay out pass, unless safe mode is on.
///
/// # Errors
/// [`Error::SafeMode`] when it is.
pub async fn permit(shop: &Shop) -> Result<(), Error> {
    match mode(shop).await? {
        None => Ok(()),
        Some(_) => Err(Error::SafeMode),
    }
}

/// Puts a job that would sell, hand over or pay out off, at no cost of an attempt, while safe mode is on; its end brings the
/// job forward. `None` when safe mode is off: go on.
///
/// # Errors
/// [`JobError::Later`] when the database does not say whether it is on: nothing was done, so the try costs nothing.
pub async fn wait(shop: &Shop, claim: &Claim) -> Result<Option<Ended>, JobError> {
    match mode(shop).await {
        Ok(None) => Ok(None),
        Ok(Some(_)) => put_off(shop, claim).await,
        Err(error) => Err(soon(shop, &error)),
    }
}

/// The second half of [`wait`]: looks once more in the transaction that puts the job off. The end of safe mode and this
/// look do not pass each other unseen: either the job waits already and is brought forward, or it sees the end and goes on.
///
/// # Errors
/// As for [`wait`].
pub async fn put_off(shop: &Shop, claim: &Claim) -> Result<Option<Ended>, JobError> {
    let at = shop.now() + shop.chance.jitter(LOOK_AGAIN);
    let (claim, text) = (claim.clone(), format!("{SAFE_MODE}: the owner has not ended it yet"));
    let waiting = shop.store.write("safety.wait", move |tx| {
        if tx.first(sql::READ_SHARED, &[])?.is_none() {
            return Ok(None);
        }
        claim.put_off(tx, at, &text).map(Some)
    });
    waiting.await.map_err(|error| soon(shop, &error))
}

fn soon(shop: &Shop, error: &StoreError) -> JobError {
    JobError::Later { at: shop.now() + SOON, text: error.to_string() }
}

/// Whether safe mode is on, inside a transaction that writes because of the answer: it cannot end before that commits.
///
/// # Errors
/// What the store says.
pub fn is_on(tx: &mut Tx, shop: &Shop) -> Result<bool, StoreError> {
    if !shop.safety().may_be_on() {
        return Ok(false);
    }
    Ok(tx.first(sql::READ_SHARED, &[])?.is_some())
}

/// Whether goods that were just bought stay here for now: safe mode is on, or a restore holds one of the units back.
/// [`orders::flows::hand_over_soon`] moves them on later.
///
/// # Errors
/// What the store says.
pub fn withholds(tx: &mut Tx, shop: &Shop, units: &[Held]) -> Result<bool, StoreError> {
    if is_on(tx, shop)? {
        return Ok(true);
    }
    if !shop.safety().may_hold_back() {
        return Ok(false);
    }
    catalog::is_one_held_back(tx, units)
}

/// Has every rail that is set up and not reconciled looked through, and tells the owner once. For the start of a program
/// that works.
///
/// # Errors
/// What the store says.
pub async fn begin(shop: &Shop, mode: &SafeMode) -> Result<(), Error> {
    let mode = mode.clone();
    shop.write("safety.begin", move |tx, shop| {
        let now = tx.now();
        for provider in mode.waits_for(shop.rails.keys().copied()) {
            if shop.rails.contains_key(&provider) {
                jobs::enqueue(tx, &Reconcile::first(provider, &mode), now, &shop.chance)?;
            }
        }
        let text = format!(
            "Safe mode: the database was restored from a backup of {}. Nothing is sold, handed over or paid out until each \
             rail is reconciled and you end it. `semel safe status` says what is left to do",
            mode.backup_at
        );
        alerts::flows::raise(tx, shop, format!("safe-mode:{}", mode.restored_at.millis()), text)
    })
    .await
}

/// Has one rail looked through again.
///
/// # Errors
/// [`Error::Conflict`] when safe mode is off, the rail is reconciled, or nothing can be looked through.
pub async fn reconcile(shop: &Shop, provider: Provider) -> Result<(), Error> {
    let rail = shop.rail(provider)?;
    if let Some(unsupported) = without_list(rail) {
        return Err(Error::Conflict(format!(
            "{unsupported}: compare with its cabinet, then `semel safe reconcile {} --by-hand REASON`",
            provider.as_str()
        )));
    }
    shop.write("safety.again", move |tx, shop| {
        let mode = on(tx)?;
        if mode.is_reconciled(provider) {
            return Err(Error::Conflict(format!("{} is reconciled already", provider.as_str())));
        }
        let now = tx.now();
        jobs::enqueue(tx, &Reconcile::again(provider, &mode, now), now, &shop.chance)?;
        Ok(())
    })
    .await
}

/// Notes that the owner compared a rail by hand.
///
/// # Errors
/// [`Error::Conflict`] when safe mode is off.
pub async fn reconcile_by_hand(shop: &Shop, provider: Provider, reason: String, actor: String) -> Result<(), Error> {
    shop.write("safety.by_hand", move |tx, shop| {
        on(tx)?;
        reconciled(tx, shop, provider, format!("by hand: {reason}"), &actor)
    })
    .await
}

/// Notes that a rail is up to date; a rail that was, stays as it was. Does nothing when safe mode is over.
pub(super) fn reconciled(tx: &mut Tx, shop: &Shop, provider: Provider, how: String, actor: &str) -> Result<(), Error> {
    let Some(mut mode) = current(tx, true)? else { return Ok(()) };
    if mode.is_reconciled(provider) {
        return Ok(());
    }
    let at = tx.now();
    let detail = format!("{}: {how}", provider.as_str());
    mode.rails.insert(provider, Some(Reconciled { at, how, by: actor.to_owned() }));
    keep(tx, &mode)?;
    history::append(tx, &Entry { event: "rail reconciled", actor: Some(actor), detail: Some(&detail), ..entry() })?;
    if mode.waits_for(shop.rails.keys().copied()).is_empty() {
        let text = "Safe mode: every rail is reconciled. Look at what waits in suspense, release the stock that nobody has \
                    (`semel stock release`), and end it with `semel safe leave --reason …`";
        alerts::flows::raise(tx, shop, format!("safe-mode-ready:{}", mode.restored_at.millis()), text)?;
    }
    Ok(())
}

/// Ends safe mode: what waited goes on. Stock that is held back stays so.
///
/// # Errors
/// [`Error::Conflict`] when safe mode is off, or when a rail is not reconciled and `force` is not given.
pub async fn leave(shop: &Shop, reason: String, force: bool, actor: String) -> Result<(), Error> {
    shop.write("safety.leave", move |tx, shop| {
        let mode = on(tx)?;
        let waits: Vec<&str> =
            mode.waits_for(shop.rails.keys().copied()).into_iter().map(Provider::as_str).collect();
        if !waits.is_empty() && !force {
            return Err(Error::Conflict(format!(
                "{} not reconciled yet: money that came or went after the backup may be missing. `semel safe status` says \
                 what to do; --force ends safe mode all the same",
                names(&waits)
            )));
        }
        tx.later(sql::LEAVE, &[], Expect::Rows(1))?;
        let forced = if waits.is_empty() { String::new() } else { format!(" (forced; {} not reconciled)", names(&waits)) };
        let detail = format!("{reason}{forced}");
        history::append(tx, &Entry { event: "left", actor: Some(&actor), detail: Some(&detail), ..entry() })?;
        orders::flows::hand_over_soon(tx, shop)?;
        // Until now nobody was cut off from the VPN; whose time was over all the same goes now.
        for server in vpn::servers::list(tx)? {
            vpn::flows::soon(tx, shop, &server.id)?;
        }
        tx.execute(sql::HASTEN, args![format!("{SAFE_MODE}%")])?;
        for lane in [Lanes::MONEY, Lanes::MESSAGES, Lanes::CAMPAIGNS, Lanes::EVENTS, Lanes::CARE, Lanes::VPN] {
            tx.wake(lane);
        }
        let text = format!("Safe mode was ended by {actor}: {detail}");
        alerts::flows::raise(tx, shop, format!("safe-mode-left:{}", mode.restored_at.millis()), text)
    })
    .await?;
    load(shop).await?;
    Ok(())
}

fn names(words: &[&str]) -> String {
    let is = if words.len() == 1 { "is" } else { "are" };
    format!("{} {is}", words.join(", "))
}

/// Releases stock that a restore held back: of one product, or of all. Whoever bought it meanwhile gets it. Answers how many
/// units there were.
///
/// # Errors
/// [`Error::NotFound`] when there is no such product.
pub async fn release(shop: &Shop, product: Option<ProductId>, reason: String, actor: String) -> Result<i64, Error> {
    let units = shop
        .write("safety.release", move |tx, shop| {
            let products = match &product {
                Some(product) => vec![product.clone()],
                None => catalog::held_back(tx)?.into_iter().map(|(id, _, _)| id).collect(),
            };
            let mut units = 0;
            for product in &products {
                units += catalog::let_go(tx, shop, product, &reason, &actor)?;
            }
            if units > 0 && !is_on(tx, shop)? {
                orders::flows::hand_over_soon(tx, shop)?;
            }
            Ok(units)
        })
        .await?;
    load(shop).await?;
    Ok(units)
}

/// Safe mode as the owner sees it.
#[derive(Clone, Debug, Serialize)]
pub struct View {
    /// Whether it is on.
    pub safe_mode: bool,
    /// When the backup was begun, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_at: Option<String>,
    /// When it was restored, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored_at: Option<String>,
    /// Every rail, reconciled or not.
    pub rails: Vec<RailView>,
    /// Products with units that are held back.
    pub held_back: Vec<HeldBackView>,
    /// Deliveries that wait for the end of safe mode or for the release of their units.
    pub withheld_deliveries: i64,
    /// Jobs that safe mode put off.
    pub put_off: Vec<PutOffView>,
}

/// A rail of [`View`].
#[derive(Clone, Debug, Serialize)]
pub struct RailView {
    /// Which.
    pub provider: Provider,
    /// Whether it is up to date.
    pub reconciled: bool,
    /// Whether its provider has a list that the program reads by itself.
    pub has_list: bool,
    /// How and by whom it was brought up to date.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
    /// When, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// A product of [`View`].
#[derive(Clone, Debug, Serialize)]
pub struct HeldBackView {
    /// Its id.
    pub product: ProductId,
    /// Its title.
    pub title: String,
    /// How many of its units are held back.
    pub units: i64,
}

/// Jobs of [`View`].
#[derive(Clone, Debug, Serialize)]
pub struct PutOffView {
    /// Their kind.
    pub kind: String,
    /// How many.
    pub jobs: i64,
}

/// Safe mode as it stands, and what waits for what.
///
/// # Errors
/// What the store says.
pub async fn view(shop: &Shop) -> Result<View, Error> {
    let of = shop.clone();
    let view = shop.read("safety.view", move |tx| {
        let mode = current(tx, false)?;
        let held_back = catalog::held_back(tx)?
            .into_iter()
            .map(|(product, title, units)| HeldBackView { product, title, units })
            .collect();
        let put_off = tx
            .rows(sql::PUT_OFF, args![format!("{SAFE_MODE}%")])?
            .iter()
            .map(|row| Ok(PutOffView { kind: row.get(0)?, jobs: row.get(1)? }))
            .collect::<Result<Vec<_>, StoreError>>()?;
        Ok(View {
            safe_mode: mode.is_some(),
            backup_at: mode.as_ref().map(|mode| mode.backup_at.to_string()),
            restored_at: mode.as_ref().map(|mode| mode.restored_at.to_string()),
            rails: mode.as_ref().map(|mode| rails(&of, mode)).unwrap_or_default(),
            held_back,
            withheld_deliveries: tx.one(sql::RESERVED, &[])?.get(0)?,
            put_off,
        })
    });
    view.await
}

fn rails(shop: &Shop, mode: &SafeMode) -> Vec<RailView> {
    let known = mode.rails.keys().chain(shop.rails.keys()).copied();
    let all: std::collections::BTreeSet<Provider> = known.collect();
    let view = |provider: Provider| {
        let how = mode.rails.get(&provider).and_then(Option::as_ref);
        RailView {
            provider,
            reconciled: how.is_some(),
            has_list: shop.rails.get(&provider).is_some_and(|rail| without_list(rail).is_none()),
            how: how.map(|how| format!("{} ({})", how.how, how.by)),
            at: how.map(|how| how.at.to_string()),
        }
    };
    all.into_iter().map(view).collect()
}

/// Why a rail's payments cannot be read by itself; none where they can. The list of Stars is read by place and not by pages.
fn without_list(rail: &Rail) -> Option<Unsupported> {
    match rail {
        Rail::Stars(_) => None,
        Rail::YooKassa(_) | Rail::Heleket(_) | Rail::CrystalPay(_) => rail.list(0, None).err(),
    }
}

/// Safe mode in this transaction; with `hold` its row is held until the end.
pub(super) fn current(tx: &mut Tx, hold: bool) -> Result<Option<SafeMode>, StoreError> {
    let row = tx.first(if hold { sql::READ_HELD } else { sql::READ }, &[])?;
    row.as_ref().map(read).transpose()
}

/// Safe mode, its row held, where it must be on.
fn on(tx: &mut Tx) -> Result<SafeMode, Error> {
    current(tx, true)?.ok_or_else(|| Error::Conflict("safe mode is off".into()))
}

fn keep(tx: &mut Tx, mode: &SafeMode) -> Result<(), StoreError> {
    tx.later(sql::KEEP, args![written(mode)?], Expect::Rows(1))
}

fn read<T: serde::de::DeserializeOwned>(row: &Row) -> Result<T, StoreError> {
    let text: String = row.get(0)?;
    serde_json::from_str(&text)
        .map_err(|error| StoreError::Decode { wanted: "a mark of safe mode", found: error.to_string() })
}

fn written(mark: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(mark).map_err(|error| StoreError::Statement(error.to_string()))
}

fn entry() -> Entry<'static> {
    Entry { entity: "safe_mode", entity_id: "safe_mode", ..Entry::default() }
}

/// The moment from which on a provider's list of payments is read: two days before the backup, as the hourly sweep does.
pub(super) const MARGIN: Duration = Duration::from_secs(48 * 3600);

/// `backup_at` less `by`.
pub(super) fn before(backup_at: Time, by: Duration) -> Time {
    backup_at - by
}
