//! What is on sale, one product, and the ways to pay for it.

use semel_kernel::store::Tx;
use semel_money::Amount;

use super::intents::Sheet;
use super::model::{Action, Buy, Card, Door};
use super::scene::Scene;
use super::texts;
use crate::catalog::{self, Kind, Product, ProductId};
use crate::messages::Language;
use crate::subscriptions::SubscriptionId;
use crate::{Error, Shop, ledger, stars};

/// Products in one message: each is a row of buttons.
const PAGE: i64 = 20;

/// What is on sale, the newest first, below the product `below`.
pub(super) fn list(tx: &mut Tx, shop: &Shop, scene: &mut Scene, below: Option<&ProductId>) -> Result<(), Error> {
    let language = scene.language;
    let mut products = catalog::flows::list(tx, below, PAGE + 1)?;
    let wanted = usize::try_from(PAGE).unwrap_or(20);
    let more = products.len() > wanted;
    products.truncate(wanted);
    let last = products.last().map(|product| product.id.clone());
    let mut card = Card::text(texts::word(language, "В продаже:", "On sale:"));
    for product in products.iter().filter(|product| is_offered(shop, product)) {
        card = card.row(vec![Door::Product(product.id.clone()).button(texts::offer(language, product))]);
    }
    if let Some(last) = last.filter(|_| more) {
        card = card.row(vec![Door::Catalog(Some(last)).button(texts::word(language, "Дальше »", "More »"))]);
    }
    if card.buttons.is_empty() {
        card = Card::text(texts::nothing_on_sale(language));
    }
    scene.say(tx, shop, card.row(vec![back(language)]))
}

/// A product's card.
pub(super) fn product(tx: &mut Tx, shop: &Shop, scene: &mut Scene, id: &ProductId) -> Result<(), Error> {
    let language = scene.language;
    let Some(product) = offered(tx, shop, id)? else {
        return scene.menu(tx, shop, texts::not_on_sale(language));
    };
    let mut card = Card::text(texts::product(language, &product));
    if !texts::is_gone(&product) {
        let words = format!("{} {}", texts::word(language, "Купить за", "Buy for"), texts::sum(product.price));
        card = card.row(vec![Door::Ways(product.id.clone()).button(words)]);
    }
    scene.say(tx, shop, card.row(vec![Door::Catalog(None).button(texts::word(language, "« Каталог", "« Catalog"))]))
}

/// The ways to pay for a product, each for the price of this moment.
pub(super) fn ways(tx: &mut Tx, shop: &Shop, scene: &mut Scene, id: &ProductId) -> Result<(), Error> {
    let language = scene.language;
    let Some(product) = offered(tx, shop, id)? else {
        return scene.menu(tx, shop, texts::not_on_sale(language));
    };
    if texts::is_gone(&product) {
        return scene.menu(tx, shop, texts::sold_out(language));
    }
    let card = payable(tx, shop, scene, &[product], None)?;
    scene.say(tx, shop, card)
}

/// A card with a button for each product and way to pay. They are one decision: one press is one order.
pub(super) fn payable(
    tx: &mut Tx,
    shop: &Shop,
    scene: &Scene,
    products: &[Product],
    renews: Option<&SubscriptionId>,
) -> Result<Card, Error> {
    let language = scene.language;
    let sheet = Sheet::new(shop, scene.who.person);
    let about: Vec<String> = products.iter().map(|product| texts::product(language, product)).collect();
    let mut card = Card::text(format!("{}\n\n{}", about.join("\n\n"), texts::choose_way(language)));
    for product in products {
        for (way, price) in ways_for(tx, shop, scene, product)? {
            let mut words = texts::way(language, way, price);
            if products.len() > 1 {
                let title: String = product.title.chars().take(30).collect();
                words = format!("{title}: {words}");
            }
            let buy = Buy {
                product: product.id.clone(),
                version: product.version,
                price_minor: price.minor(),
                currency: price.currency().code().to_owned(),
                way: way.to_owned(),
                renews: renews.cloned(),
            };
            let button = sheet.button(tx, shop, words, &Action::Buy(buy))?;
            card = card.row(vec![button]);
        }
    }
    if card.buttons.is_empty() {
        card = Card::text(texts::no_way(language));
    }
    Ok(card.row(vec![back(language)]))
}

/// Every configured provider that takes the product's price, and the balances that cover it, each with the price there. Money on the
/// balance does not buy balance.
fn ways_for(tx: &mut Tx, shop: &Shop, scene: &Scene, product: &Product) -> Result<Vec<(&'static str, Amount)>, Error> {
    let mut prices = vec![product.price];
    // Without a price in Stars they do not buy it, and that is all.
    prices.extend(stars::price_of(shop, product).ok().filter(|price| *price != product.price));
    let mut ways = Vec::new();
    for price in &prices {
        let fit = shop.rails.keys().filter(|provider| stars::fits(**provider, price.currency()).is_ok());
        ways.extend(fit.map(|provider| (provider.as_str(), *price)));
    }
    if product.kind != Kind::Topup {
        for price in prices {
            let balance = ledger::balance(tx, &scene.customer.id, price.currency())?;
            if balance.minor() >= price.minor() {
                ways.push(("balance", price));
            }
        }
    }
    Ok(ways)
}

/// A product that this shop sells now, with its stock.
pub(super) fn offered(tx: &mut Tx, shop: &Shop, id: &ProductId) -> Result<Option<Product>, Error> {
    match catalog::flows::view(tx, id) {
        Ok(product) => Ok(Some(product).filter(|product| is_offered(shop, product))),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether customers see it. Access needs a VPN.
pub(super) fn is_offered(shop: &Shop, product: &Product) -> bool {
    product.active && (product.kind != Kind::Vpn || shop.vpn.is_some())
}

fn back(language: Language) -> semel_telegram::Button {
    Door::Start.button(texts::word(language, "« Меню", "« Menu"))
}
