//! What somebody ordered: where it stands, the goods once more, and calling it off.

use std::collections::BTreeMap;

use semel_kernel::args;
use semel_kernel::store::Tx;
use semel_telegram::Button;

use super::intents::Sheet;
use super::model::{Action, Card, Door};
use super::scene::Scene;
use super::{catalog as shelf, sql, texts};
use crate::catalog::ProductId;
use crate::orders::{self, Order, OrderId, OrderView, State};
use crate::subscriptions::SubscriptionId;
use crate::{Error, Shop, catalog, messages};

/// Orders in one message.
const LATEST: i64 = 10;
/// The longest title on a button, in characters.
const TITLE_CHARS: usize = 24;

/// The latest orders.
pub(super) fn list(tx: &mut Tx, shop: &Shop, scene: &mut Scene) -> Result<(), Error> {
    let language = scene.language;
    let found = orders::flows::of_customer(tx, &scene.customer.id, LATEST)?;
    if found.is_empty() {
        return scene.menu(tx, shop, texts::no_orders(language));
    }
    let titles = titles(tx, scene, None)?;
    let mut card = Card::text(texts::orders(language));
    for order in &found {
        let words = format!("{} · {}", line(order, &titles), texts::state(language, order.state));
        card = card.row(vec![Door::Order(order.id.clone()).button(words)]);
    }
    scene.say(tx, shop, card)
}

/// What stands first in each of their latest orders, of those in `state` where one is named.
fn titles(tx: &mut Tx, scene: &Scene, state: Option<State>) -> Result<BTreeMap<String, String>, Error> {
    let state = state.map(State::as_str);
    let rows = tx.rows(sql::TITLES, args![&scene.customer.id, state, LATEST])?;
    let mut titles = BTreeMap::new();
    for row in &rows {
        // The first line comes last and stays.
        let (order, title): (String, String) = (row.get(0)?, row.get(1)?);
        titles.insert(order, title);
    }
    Ok(titles)
}

/// An order on a button: what, when, and for how much.
fn line(order: &Order, titles: &BTreeMap<String, String>) -> String {
    let day = texts::day(order.created_at);
    match titles.get(order.id.as_str()) {
        Some(title) => {
            let title: String = title.chars().take(TITLE_CHARS).collect();
            format!("{title} · {day} · {}", texts::sum(order.total))
        }
        None => format!("{day} · {}", texts::sum(order.total)),
    }
}

/// What else can be done about an unpaid order: another way to pay, and calling it off. Both are one decision.
pub(super) fn instead(
    tx: &mut Tx,
    shop: &Shop,
    scene: &Scene,
    id: &OrderId,
    view: &OrderView,
    mut card: Card,
) -> Result<Card, Error> {
    let language = scene.language;
    let sheet = Sheet::new(shop, scene.who.person);
    // What the bot sells is one of one thing; only that can it offer once more.
    if let [item] = view.items.as_slice()
        && item.quantity == 1
    {
        let action = Action::OtherWay { order: id.clone() };
        card = card.row(vec![sheet.button(tx, shop, texts::another_way(language), &action)?]);
    }
    let words = texts::word(language, "Отменить заказ", "Cancel the order");
    let cancel = sheet.button(tx, shop, words, &Action::CancelOrder { order: id.clone() })?;
    Ok(card.row(vec![cancel]))
}

/// Calls an unpaid order off and shows the ways to pay for the same thing: so nothing is held twice, and of two links only one is
/// for an order. Money that still comes by the old one goes to the balance.
pub(super) fn other_way(tx: &mut Tx, shop: &Shop, scene: &mut Scene, id: &OrderId) -> Result<(), Error> {
    let language = scene.language;
    let Some(order) = own(tx, scene, id)? else {
        return scene.menu(tx, shop, texts::no_such_button(language));
    };
    if !matches!(order.state, State::Pending | State::Cancelled) {
        return scene.menu(tx, shop, texts::state(language, order.state));
    }
    let view = OrderView::read(tx, id)?;
    orders::flows::cancel(tx, shop, id, "customer", "another way to pay was wanted")?;
    let item = view.items.first();
    let renews = item.and_then(|item| item.subscription.as_deref()).and_then(SubscriptionId::parse);
    let product = match item.and_then(|item| ProductId::parse(&item.product)) {
        Some(product) => shelf::offered(tx, shop, &product)?,
        None => None,
    };
    let Some(product) = product else {
        let html = format!("{}\n\n{}", texts::cancelled(language, id.as_str()), texts::not_on_sale(language));
        return scene.menu(tx, shop, &html);
    };
    let mut card = shelf::payable(tx, shop, scene, &[product], renews.as_ref())?;
    card.html = format!("{}\n\n{}", texts::instead(language, id.as_str()), card.html);
    scene.say(tx, shop, card)
}

/// One order, if it is theirs. Whose it is not reads that the button is not valid: nobody learns of another's orders.
pub(super) fn one(tx: &mut Tx, shop: &Shop, scene: &mut Scene, id: &OrderId) -> Result<(), Error> {
    let language = scene.language;
    let Some(order) = own(tx, scene, id)? else {
        return scene.menu(tx, shop, texts::no_such_button(language));
    };
    let view = OrderView::read(tx, id)?;
    let mut card = Card::text(texts::order(language, &view));
    if order.state == State::Pending {
        if let Some(url) = view.payment.as_ref().and_then(|payment| payment.url.as_deref()) {
            card = card.row(vec![Button::url(texts::pay(language, view.total), url)]);
        }
        card = instead(tx, shop, scene, id, &view, card)?;
    } else if may_have_again(tx, &order)? {
        let sheet = Sheet::new(shop, scene.who.person);
        let words = texts::goods_again(language);
        let again = sheet.button(tx, shop, words, &Action::GoodsAgain { order: id.clone() })?;
        card = card.row(vec![again]);
    }
    scene.say(tx, shop, card.row(vec![Door::Orders.button(texts::word(language, "« Заказы", "« Orders"))]))
}

/// Sends the goods of an order once more. `press` tells the times apart.
pub(super) fn goods_again(tx: &mut Tx, shop: &Shop, scene: &mut Scene, id: &OrderId, press: &str) -> Result<(), Error> {
    let language = scene.language;
    match own(tx, scene, id)? {
        Some(order) if may_have_again(tx, &order)? => {
            messages::flows::goods(tx, shop, &order, &scene.customer, &format!("again-{press}"))?;
            scene.say(tx, shop, Card::text(texts::sending(language)))
        }
        _ => scene.menu(tx, shop, texts::no_such_button(language)),
    }
}

/// Unpaid orders, each with a button that calls it off. Where something else was offered already, none is nothing to tell.
pub(super) fn cancellable(tx: &mut Tx, shop: &Shop, scene: &mut Scene, has_offered: bool) -> Result<(), Error> {
    let language = scene.language;
    let found = orders::flows::list(tx, Some(&scene.customer.id), Some(State::Pending), None, LATEST)?;
    if found.is_empty() {
        return if has_offered { Ok(()) } else { scene.menu(tx, shop, texts::nothing_to_cancel(language)) };
    }
    let titles = titles(tx, scene, Some(State::Pending))?;
    let mut card = Card::text(texts::cancel_which(language));
    for order in &found {
        // Each is a decision of its own.
        let sheet = Sheet::new(shop, scene.who.person);
        let cancel = sheet.button(tx, shop, line(order, &titles), &Action::CancelOrder { order: order.id.clone() })?;
        card = card.row(vec![cancel]);
    }
    scene.say(tx, shop, card)
}

/// Calls an unpaid order off. Money that still comes goes to the balance.
pub(super) fn cancel(tx: &mut Tx, shop: &Shop, scene: &mut Scene, id: &OrderId) -> Result<(), Error> {
    let language = scene.language;
    match own(tx, scene, id)? {
        Some(order) if matches!(order.state, State::Pending | State::Cancelled) => {
            orders::flows::cancel(tx, shop, id, "customer", "called off by the customer")?;
            scene.say(tx, shop, Card::text(texts::cancelled(language, id.as_str())))
        }
        Some(order) => scene.menu(tx, shop, texts::state(language, order.state)),
        None => scene.menu(tx, shop, texts::no_such_button(language)),
    }
}

fn own(tx: &mut Tx, scene: &Scene, id: &OrderId) -> Result<Option<Order>, Error> {
    match orders::flows::find(tx, id) {
        Ok(order) => Ok(Some(order).filter(|order| order.customer == scene.customer.id)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether there are goods that went out before: only those go again, so that nothing is handed over this way first.
fn may_have_again(tx: &mut Tx, order: &Order) -> Result<bool, Error> {
    let has_them = matches!(order.state, State::Delivered | State::Partial);
    Ok(has_them && !catalog::flows::contents(tx, &order.id)?.is_empty())
}
