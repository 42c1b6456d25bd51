//! Access to the VPN: where it stands, the file once more, another key, renewing, and the trial.

use std::time::Duration;

use semel_kernel::args;
use semel_kernel::store::Tx;

use super::intents::Sheet;
use super::model::{Action, Card, Door};
use super::scene::Scene;
use super::{catalog as shelf, sql, texts};
use crate::catalog::{self, Kind, Product};
use crate::messages::flows::DeviceFile;
use crate::subscriptions::{self, State, Subscription, SubscriptionId};
use crate::vpn::{Peer, PeerId, PeerState};
use crate::{Error, Shop, messages, vpn};

/// Subscriptions in one message.
const LATEST: i64 = 5;
/// Products that are looked through for one that renews.
const LOOK_AT: i64 = 100;
/// Products that are offered for a renewal.
const OFFERS: usize = 4;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Keys that a device may get in a day, the first one counted.
const KEYS_A_DAY: i64 = 3;

/// Every subscription that is not closed for good, with what can be done about it.
pub(super) fn show(tx: &mut Tx, shop: &Shop, scene: &mut Scene) -> Result<(), Error> {
    let language = scene.language;
    let Some(part) = &shop.vpn else {
        return scene.menu(tx, shop, texts::no_vpn(language));
    };
    let mut found = subscriptions::flows::of_customer(tx, &scene.customer.id, LATEST)?;
    let had_any = !found.is_empty();
    found.retain(|sub| sub.state != State::Revoked);
    if found.is_empty() {
        let mut card = Card::text(texts::no_access(language));
        if !had_any && !part.rules.trial.is_zero() {
            let sheet = Sheet::new(shop, scene.who.person);
            let begin = sheet.button(tx, shop, texts::try_free(language), &Action::Trial)?;
            card = card.row(vec![begin]);
        }
        return scene.say(
            tx,
            shop,
            card.row(vec![Door::Catalog(None).button(texts::word(language, "🛍 Каталог", "🛍 Catalog"))]),
        );
    }
    for sub in &found {
        let card = one(tx, shop, scene, sub)?;
        scene.say(tx, shop, card)?;
    }
    Ok(())
}

fn one(tx: &mut Tx, shop: &Shop, scene: &Scene, sub: &Subscription) -> Result<Card, Error> {
    let language = scene.language;
    let mut card = Card::text(texts::subscription(language, sub));
    for peer in vpn::flows::of_subscription(tx, &sub.id)? {
        if matches!(peer.state, PeerState::Freed | PeerState::Removing) {
            continue;
        }
        card.html.push_str(&format!("\n{}", texts::device(language, &peer)));
        if peer.own_key {
            continue;
        }
        // Each device is a decision of its own.
        let sheet = Sheet::new(shop, scene.who.person);
        let action = Action::FileAgain { subscription: sub.id.clone(), device: peer.device };
        let button = sheet.button(tx, shop, texts::file_again(language, peer.device), &action)?;
        let mut row = vec![button];
        if is_replaceable(peer.state) {
            row.push(Door::Rekey(sub.id.clone(), peer.device).button(texts::new_key(language, peer.device)));
        }
        card = card.row(row);
    }
    Ok(card.row(vec![Door::Renew(sub.id.clone()).button(texts::renew(language))]))
}

/// Sends a device's file once more. `press` tells the times apart.
pub(super) fn file_again(
    tx: &mut Tx,
    shop: &Shop,
    scene: &mut Scene,
    id: &SubscriptionId,
    device: i64,
    press: &str,
) -> Result<(), Error> {
    let language = scene.language;
    let Some(sub) = own(tx, scene, id)? else {
        return scene.menu(tx, shop, texts::no_such_button(language));
    };
    let peer = vpn::flows::of_subscription(tx, &sub.id)?
        .into_iter()
        .find(|peer| peer.device == device && !matches!(peer.state, PeerState::Freed | PeerState::Removing));
    let Some(peer) = peer else {
        return scene.menu(tx, shop, texts::no_such_button(language));
    };
    let file = DeviceFile { peer: peer.id, device, part: format!("again-{press}") };
    messages::flows::vpn_files(tx, shop, &scene.customer, None, &[file])?;
    scene.say(tx, shop, Card::text(texts::sending(language)))
}

/// Whether a device shall get another key: asked once more, because its old file stops working at once.
pub(super) fn rekey(
    tx: &mut Tx,
    shop: &Shop,
    scene: &mut Scene,
    id: &SubscriptionId,
    device: i64,
) -> Result<(), Error> {
    let language = scene.language;
    if replaceable(tx, scene, id, device)?.is_none() {
        return scene.menu(tx, shop, texts::no_such_button(language));
    }
    let sheet = Sheet::new(shop, scene.who.person);
    let action = Action::NewKey { subscription: id.clone(), device };
    let yes = sheet.button(tx, shop, texts::new_key_yes(language), &action)?;
    let back = Door::Access.button(texts::word(language, "« Мой доступ", "« My access"));
    scene.say(tx, shop, Card::text(texts::new_key_sure(language, device)).row(vec![yes]).row(vec![back]))
}

/// Gives a device another key, whose file comes by itself: the old one works no more. So often a day and no oftener, because each key takes
/// an address that rests for a while after it.
///
/// # Errors
/// [`Error::Conflict`] when no address is free; then the old key stays.
pub(super) fn new_key(
    tx: &mut Tx,
    shop: &Shop,
    scene: &mut Scene,
    id: &SubscriptionId,
    device: i64,
) -> Result<(), Error> {
    let language = scene.language;
    let Some(peer) = replaceable(tx, scene, id, device)? else {
        return scene.menu(tx, shop, texts::no_such_button(language));
    };
    let lately = tx.now() - DAY;
    let keys: i64 = tx.one(sql::KEYS_SINCE, args![id, device, lately])?.get(0)?;
    if keys >= KEYS_A_DAY {
        return scene.menu(tx, shop, texts::new_key_later(language));
    }
    // Its file comes once the server knows the key, like that of any new peer.
    vpn::flows::rotate(tx, shop, &peer)?;
    scene.say(tx, shop, Card::text(texts::new_key_comes(language)))
}

/// The peer of a device whose key can be replaced, if it is theirs.
fn replaceable(tx: &mut Tx, scene: &Scene, id: &SubscriptionId, device: i64) -> Result<Option<PeerId>, Error> {
    let Some(sub) = own(tx, scene, id)? else { return Ok(None) };
    let peers = vpn::flows::of_subscription(tx, &sub.id)?;
    let fits = |peer: &Peer| peer.device == device && !peer.own_key && is_replaceable(peer.state);
    Ok(peers.into_iter().find(fits).map(|peer| peer.id))
}

/// Only the key of a peer that is wanted on its server is replaced.
fn is_replaceable(state: PeerState) -> bool {
    matches!(state, PeerState::Pending | PeerState::Active)
}

/// What a subscription can be renewed with.
pub(super) fn renew(tx: &mut Tx, shop: &Shop, scene: &mut Scene, id: &SubscriptionId) -> Result<(), Error> {
    let language = scene.language;
    let Some(sub) = own(tx, scene, id)? else {
        return scene.menu(tx, shop, texts::no_such_button(language));
    };
    let renews = |product: &Product| {
        product.kind == Kind::Vpn
            && shelf::is_offered(shop, product)
            && product.devices.is_some_and(|devices| sub.takes(devices))
    };
    let mut fit: Vec<Product> = catalog::flows::list(tx, None, LOOK_AT)?;
    fit.retain(renews);
    // What they bought before comes first.
    fit.sort_by_key(|product| (sub.product.as_ref() != Some(&product.id), product.price.minor()));
    fit.truncate(OFFERS);
    if fit.is_empty() {
        return scene.menu(tx, shop, texts::nothing_renews(language));
    }
    let card = shelf::payable(tx, shop, scene, &fit, Some(&sub.id))?;
    scene.say(tx, shop, card)
}

/// Begins the trial.
///
/// # Errors
/// [`Error::Conflict`] when there is none for this person.
pub(super) fn trial(tx: &mut Tx, shop: &Shop, scene: &mut Scene) -> Result<(), Error> {
    subscriptions::trial::start(tx, shop, &scene.person())?;
    let card = Card::text(texts::trial_begun(scene.language));
    scene.say(tx, shop, card)
}

fn own(tx: &mut Tx, scene: &Scene, id: &SubscriptionId) -> Result<Option<Subscription>, Error> {
    match subscriptions::flows::find(tx, id) {
        Ok(sub) => Ok(Some(sub).filter(|sub| sub.customer == scene.customer.id)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
