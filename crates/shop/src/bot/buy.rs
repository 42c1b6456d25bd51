//! Buying by a button: once, for the price on it.
//!
//! The order commits together with the press, before any provider is called; opening the payment is safe to repeat, and so
//! is the answer, which has the order's key. So a death anywhere in between ends in one order with one answer.

use semel_kernel::store::Tx;
use semel_money::Currency;
use semel_payments::{Provider, Rail};
use semel_telegram::Button;

use super::model::{Buy, Card, Door, Who};
use super::scene::Scene;
use super::{catalog as shelf, dialogs, intents, orders as shown, texts};
use crate::checkout::PaymentState;
use crate::customers::{self, NewCustomer};
use crate::orders::flows::{NewItem, NewOrder};
use crate::orders::{OrderId, OrderView, PayBy, State};
use crate::{Error, Shop, checkout, orders, stars};

impl Buy {
    /// The order that the press asks for.
    pub(super) fn order(&self, person: NewCustomer) -> NewOrder {
        let subscription = self.renews.as_ref().map(ToString::to_string);
        let item = NewItem { product: self.product.to_string(), quantity: 1, subscription };
        let in_stars = self.currency == Currency::XTR.code();
        NewOrder { customer: person, items: vec![item], provider: self.way.clone(), in_stars }
    }

    /// Whether whoever takes the money has to know where the receipt goes.
    pub(super) fn needs_contact(&self, shop: &Shop) -> bool {
        needs_contact(shop, &self.way)
    }
}

fn needs_contact(shop: &Shop, way: &str) -> bool {
    let provider = way.parse::<Provider>().ok();
    provider.and_then(|provider| shop.rails.get(&provider)).is_some_and(Rail::needs_contact)
}

/// Asks where the receipt goes, unless that is known: then the press of `intent` waits for the answer, and the button stays as it is.
/// A press that comes while it is waited for already asks no second time.
pub(super) fn waits_for_contact(tx: &mut Tx, shop: &Shop, scene: &mut Scene, intent: &str) -> Result<bool, Error> {
    // Their row is held until the end: of two taps at once one asks.
    scene.customer = customers::flows::upsert(tx, shop, &scene.person())?;
    if scene.customer.email.is_some() || scene.customer.phone.is_some() {
        return Ok(false);
    }
    let dialog = dialogs::waits_for(tx, &scene.who)?;
    let is_asked = dialog.is_some_and(|dialog| dialog.button.as_deref() == Some(intent));
    if !is_asked {
        dialogs::begin_contact(tx, &scene.who, intent)?;
        let words = texts::contact(scene.language);
        scene.say(tx, shop, Card::text(words))?;
    }
    Ok(true)
}

/// Asks where receipts go from now on: a slip in what is known would let a provider refuse each payment, or a stranger read each
/// receipt.
pub(super) fn other_contact(tx: &mut Tx, shop: &Shop, scene: &mut Scene) -> Result<(), Error> {
    dialogs::begin(tx, &scene.who, dialogs::CONTACT)?;
    let known = scene.customer.email.as_deref().or(scene.customer.phone.as_deref());
    let html = texts::other_contact(scene.language, known);
    scene.say(tx, shop, Card::text(html))
}

/// Keeps where receipts go, for this order and later ones, in place of what was known. False when the words are neither an e-mail nor
/// a phone: then the customer has been told, and may write again. Where no order goes on by it, they are told that it is kept.
pub(super) fn contact(tx: &mut Tx, shop: &Shop, scene: &mut Scene, words: &str, goes_on: bool) -> Result<bool, Error> {
    let (is_email, given) = (words.contains('@'), Some(words.to_owned()));
    let person = if is_email {
        NewCustomer { email: given, ..scene.person() }
    } else {
        NewCustomer { phone: given, ..scene.person() }
    };
    match customers::flows::set_contact(tx, &person) {
        Ok(customer) => scene.customer = customer,
        Err(Error::Invalid { .. }) => {
            let words = texts::no_contact(scene.language);
            scene.say(tx, shop, Card::text(words))?;
            return Ok(false);
        }
        Err(error) => return Err(error),
    }
    dialogs::end(tx, &scene.who)?;
    if !goes_on {
        let words = texts::contact_kept(scene.language);
        scene.menu(tx, shop, words)?;
    }
    Ok(true)
}

/// Makes the order of a first press, in the transaction that took the button. None when the product is not what the button
/// was made for: then the customer has been told, and nothing was bought.
///
/// # Errors
/// Those of [`orders::flows::place`]; then nothing is written, and the button stays as it was.
pub(super) fn place(
    tx: &mut Tx,
    shop: &Shop,
    scene: &mut Scene,
    intent: &str,
    buy: &Buy,
) -> Result<Option<OrderId>, Error> {
    let language = scene.language;
    let Some(product) = shelf::offered(tx, shop, &buy.product)? else {
        scene.menu(tx, shop, texts::not_on_sale(language))?;
        return Ok(None);
    };
    let price =
        if buy.currency == Currency::XTR.code() { stars::price_of(shop, &product).ok() } else { Some(product.price) };
    let is_same = product.version == buy.version
        && price.is_some_and(|price| price.minor() == buy.price_minor && price.currency().code() == buy.currency);
    if !is_same {
        let mut card = shelf::payable(tx, shop, scene, &[product], buy.renews.as_ref())?;
        card.html = format!("{}\n\n{}", texts::new_price(language), card.html);
        scene.say(tx, shop, card)?;
        return Ok(None);
    }
    let placed = orders::flows::place(tx, shop, &buy.order(scene.person()))?;
    // Somebody may have changed the price since it was looked at, a moment ago: then nothing is written.
    let total = placed.order.total;
    if total.minor() != buy.price_minor || total.currency().code() != buy.currency {
        return Err(Error::Conflict("the price changed while the button was pressed".into()));
    }
    let id = placed.order.id.clone();
    match placed.pay_by {
        PayBy::Provider(provider) => {
            checkout::flows::open(tx, shop, &placed.order, shop.rail(provider)?)?;
        }
        PayBy::Balance => {
            checkout::flows::pay_from_balance(tx, shop, placed)?;
        }
    }
    intents::came_to(tx, intent, &format!("{id} {}", scene.who.update))?;
    Ok(Some(id))
}

/// The order in what came of a press, if it was this update's press.
pub(super) fn made_by(result: &str, who: &Who) -> Option<OrderId> {
    let (order, update) = result.split_once(' ')?;
    if update.parse::<i64>() == Ok(who.update) { OrderId::parse(order) } else { None }
}

/// What the customer reads about a fresh order, with the link to pay while it waits for money.
pub(super) fn answer(tx: &mut Tx, shop: &Shop, scene: &Scene, id: &OrderId, view: &OrderView) -> Result<Card, Error> {
    let language = scene.language;
    let mut html = texts::order(language, view);
    let payment = view.payment.as_ref();
    if view.status == State::Cancelled && payment.is_some_and(|payment| payment.status == PaymentState::Failed) {
        html = format!("{html}\n\n{}", texts::other_way(language));
        let product = view.items.first().and_then(|item| crate::catalog::ProductId::parse(&item.product));
        let again = product.map(|id| Door::Ways(id).button(texts::choose_way(language)));
        let mut card = Card::text(html).row(again.into_iter().collect());
        if payment.is_some_and(|payment| needs_contact(shop, &payment.provider)) {
            card = card.row(vec![Door::Contact.button(texts::receipts(language))]);
        }
        return Ok(card);
    }
    if view.status == State::Pending && payment.is_some_and(|payment| payment.provider == Provider::Stars.as_str()) {
        html = format!("{html}\n\n{}", texts::invoice_comes(language));
    }
    let mut card = Card::text(html);
    if view.status == State::Pending
        && let Some(url) = payment.and_then(|payment| payment.url.as_deref())
    {
        card = card.row(vec![Button::url(texts::pay(language, view.total), url)]);
    }
    if view.status == State::Pending {
        card = shown::instead(tx, shop, scene, id, view, card)?;
    }
    Ok(card.row(vec![Door::Orders.button(texts::word(language, "📦 Мои заказы", "📦 My orders"))]))
}
