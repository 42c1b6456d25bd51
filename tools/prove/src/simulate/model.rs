//! What must come of a program: a few sums and sets in plain Rust.
//!
//! It knows what the customers and the owner did and which requests were taken, and nothing of how the product works. Its
//! rules are the policy of DESIGN, section 5: late and deliverable is delivered; late and sold out, cancelled and second
//! money go to the balance; short money goes to the balance and the order waits on; a surplus goes to the balance; a payment
//! over another sum than was asked for waits in suspense.
//!
//! Where two endings are allowed (money that may have been found before or after the deadline, goods for somebody who
//! blocked the bot), the sums are those of the ending that the order has: so they are exact in any case.

use std::collections::{BTreeMap, BTreeSet};

use super::access::{Access, Bought, DAY_MS, Found};
use super::program::By;

/// How a product is sold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// From stock, at once.
    Instant,
    /// From stock, when there is some.
    Made,
    /// Money on the balance.
    Topup,
    /// Access to the VPN for so many days.
    Access(i64),
}

impl Sort {
    /// Whether it comes from stock, in a message of goods.
    fn is_goods(self) -> bool {
        matches!(self, Self::Instant | Self::Made)
    }
}

/// A product.
#[derive(Clone, Debug)]
pub struct Product {
    /// Its id.
    pub id: String,
    /// How it is sold.
    pub sort: Sort,
    /// Its price in kopecks.
    pub price: i64,
    /// Units that ever came in, without those that went out unsold.
    pub imported: i64,
}

/// What a Star is worth, in kopecks.
const STAR: i64 = 180;

impl Product {
    /// Its price in Stars: whole ones, and no less than its price.
    pub fn in_stars(&self) -> i64 {
        (self.price + STAR - 1) / STAR
    }
}

/// What a customer's payment is to its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Money {
    /// It covers the order.
    Full,
    /// It does not.
    Short,
    /// It is over another sum than was asked for.
    Odd,
}

/// One payment of an order at a provider.
#[derive(Clone, Debug)]
pub struct Try {
    /// Where.
    pub by: By,
    /// The provider's id; of one in Stars, which has none before it is paid, our own. Empty when nobody knows it.
    pub there: String,
    /// What came, in the order's smallest unit.
    pub paid: Option<(i64, Money)>,
    /// A webhook came after the money did, and was acknowledged.
    pub heard: bool,
}

/// An order.
#[derive(Clone, Debug)]
pub struct Order {
    /// Its id.
    pub id: String,
    /// The customer's Telegram id.
    pub who: i64,
    /// Which product.
    pub product: usize,
    /// How many of it.
    pub many: i64,
    /// What it costs: kopecks, or Stars.
    pub total: i64,
    /// It is an order in Stars, with everything that is paid for it and given back.
    pub stars: bool,
    /// When its time is over, in milliseconds.
    pub deadline: i64,
    /// The balance paid it.
    pub by_balance: bool,
    /// It was called off, and the shop said yes.
    pub cancelled: bool,
    /// The money was certainly found while the order was waiting for it.
    pub sure: bool,
    /// Its payments.
    pub tries: Vec<Try>,
    /// What went to the balance.
    pub to_balance: Vec<i64>,
    /// What was sent back to the provider.
    pub to_provider: Vec<i64>,
    /// What went back in the provider's cabinet. After it nothing else does.
    pub cabinet: Option<i64>,
}

impl Order {
    /// What the owner has given back of it.
    pub fn given(&self) -> i64 {
        self.to_balance.iter().chain(&self.to_provider).sum::<i64>() + self.cabinet.unwrap_or(0)
    }

    fn came(&self, kind: Money) -> Vec<i64> {
        self.tries.iter().filter_map(|one| one.paid).filter(|(_, money)| *money == kind).map(|(sum, _)| sum).collect()
    }
}

/// What is known of a shop.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Its products.
    pub products: Vec<Product>,
    /// Its orders, the oldest first.
    pub orders: Vec<Order>,
    /// Who blocked the bot for a while.
    pub blocked: BTreeSet<i64>,
    /// Whether something went wrong outside.
    pub faults: bool,
    /// So many orders are from before the last days in which nobody came: their links are dead.
    pub old: usize,
    /// What is known of access to the VPN.
    pub access: Access,
}

/// How a shop stands, as its database, the chats and the providers tell.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Each order's state.
    pub states: BTreeMap<String, String>,
    /// Each customer's balance in kopecks and, apart from it, in Stars.
    pub balances: BTreeMap<(i64, bool), i64>,
    /// Money that is nobody's.
    pub suspense: i64,
    /// Deliveries that the customer has, for each order; money on the balance is one, too.
    pub delivered: BTreeMap<String, i64>,
    /// Contents that are delivered, with the customer.
    pub owners: Vec<(String, i64)>,
    /// Contents in each customer's chat.
    pub chats: BTreeMap<i64, BTreeSet<String>>,
    /// Messages of each kind.
    pub messages: BTreeMap<String, i64>,
    /// What each provider holds: captured and refunded, by its id.
    pub there: BTreeMap<String, (i64, i64)>,
    /// How access to the VPN stands.
    pub access: Found,
}

/// Between so many and so many.
#[derive(Clone, Copy, Default)]
struct Range {
    least: i64,
    most: i64,
}

impl Range {
    fn add(&mut self, least: i64, most: i64) {
        self.least += least;
        self.most += most;
    }

    fn holds(self, n: i64) -> bool {
        (self.least..=self.most).contains(&n)
    }
}

/// What one order's ending adds up to.
#[derive(Default)]
struct Sums {
    balance: i64,
    goods: Range,
    notices: Range,
    refunds: i64,
    units: Range,
}

impl Model {
    /// Notes that a payment came, and says what it is to its order.
    pub fn paid(&mut self, order: usize, which: usize, sum: i64) {
        let total = self.orders[order].total;
        let one = &mut self.orders[order].tries[which];
        let money = match one.by {
            By::Yookassa if sum != total => Money::Odd,
            _ if sum < total => Money::Short,
            _ => Money::Full,
        };
        one.paid = Some((sum, money));
    }

    /// A webhook about the provider's payment `there` was acknowledged.
    pub fn heard(&mut self, there: &str) {
        let tries = self.orders.iter_mut().rev().flat_map(|order| order.tries.iter_mut());
        for one in tries.filter(|one| one.there == there && one.paid.is_some()) {
            one.heard = true;
        }
    }

    /// All due work was done at `now`, and nothing outside went wrong for long: who was heard in time has paid in time.
    pub fn ran(&mut self, now: i64) {
        for order in self.orders.iter_mut().filter(|order| now < order.deadline) {
            order.sure |= order.tries.iter().any(|one| one.heard && matches!(one.paid, Some((_, Money::Full))));
        }
    }

    /// Units of a product that nobody can have taken, whatever became of the orders.
    pub fn surely_left(&self, product: usize) -> i64 {
        let taken: i64 = self.orders.iter().filter(|order| order.product == product).map(|order| order.many).sum();
        self.products[product].imported - taken
    }

    /// The states in which an order may rest.
    pub fn endings(&self, order: &Order) -> Vec<&'static str> {
        let sort = self.products[order.product].sort;
        if order.cancelled {
            return vec!["cancelled"];
        }
        let full = !order.came(Money::Full).is_empty();
        let found = order.by_balance || (full && (order.sure || sort != Sort::Instant));
        let in_cabinet = order.cabinet.is_some() && !order.by_balance;
        // Whoever got a refund had bought something; only in a cabinet money goes back that had bought nothing.
        let bought = found || (order.given() > 0 && !in_cabinet);
        let mut endings = Vec::new();
        if order.given() >= order.total {
            endings.push("refunded");
        } else if bought || full {
            endings.push("delivered");
            if self.blocked.contains(&order.who) && sort != Sort::Topup {
                endings.extend(["paid", "awaiting_stock"]);
            } else if matches!(sort, Sort::Access(_)) && self.access.closed.contains(&order.who) {
                // Its file was on the way when its peer was closed or replaced.
                endings.push("paid");
            }
        }
        if !bought {
            endings.push("expired");
        }
        if !bought && !full {
            endings.retain(|ending| *ending == "expired");
        }
        endings
    }

    fn sums(&self, order: &Order, state: &str) -> Sums {
        let sort = self.products[order.product].sort;
        let (full, short) = (order.came(Money::Full), order.came(Money::Short));
        let bought = !matches!(state, "expired" | "cancelled" | "pending");
        let mut sums = Sums { balance: short.iter().sum(), ..Sums::default() };
        let mut notices = i64::try_from(short.len()).unwrap_or(0);
        sums.balance += full.iter().sum::<i64>();
        notices += i64::try_from(full.len()).unwrap_or(0);
        if bought {
            sums.balance -= order.total;
        }
        if bought && !order.by_balance {
            // One of them bought the goods, and is told of as a surplus only.
            notices -= 1;
            let surplus = full.iter().filter(|sum| **sum > order.total).count();
            sums.notices.add(i64::from(surplus == full.len()), i64::from(surplus > 0));
        }
        if bought && sort == Sort::Topup {
            sums.balance += order.total - order.to_provider.iter().sum::<i64>();
            notices += 1;
        }
        sums.notices.add(notices, notices);
        sums.balance += order.to_balance.iter().sum::<i64>();
        if !bought {
            sums.balance -= order.cabinet.unwrap_or(0);
        }
        let refunds = order.to_balance.len() + order.to_provider.len() + usize::from(order.cabinet.is_some());
        sums.refunds = i64::try_from(refunds).unwrap_or(0);
        let gone = state == "refunded";
        if bought && sort.is_goods() {
            // What was made to order and given back may never have been there.
            sums.goods.add(i64::from(!(gone && sort == Sort::Made)), 1);
        }
        match state {
            "delivered" => sums.units.add(order.many, order.many),
            "refunded" => sums.units.add(0, order.many),
            _ => {}
        }
        sums
    }

    /// Everything that is not as it must be, a sentence each.
    pub fn compare(&self, seen: &Seen) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut balances: BTreeMap<(i64, bool), i64> = BTreeMap::new();
        let (mut goods, mut notices, mut refunds) = (Range::default(), Range::default(), 0);
        let mut suspense = 0;
        for order in &self.orders {
            let state = seen.states.get(&order.id).map_or("missing", String::as_str);
            let endings = self.endings(order);
            if !endings.contains(&state) {
                wrong.push(format!("{} is {state} and must be {}: {order:?}", order.id, endings.join(" or ")));
            }
            let sums = self.sums(order, state);
            *balances.entry((order.who, order.stars)).or_default() += sums.balance;
            goods.add(sums.goods.least, sums.goods.most);
            notices.add(sums.notices.least, sums.notices.most);
            refunds += sums.refunds;
            suspense += order.came(Money::Odd).iter().sum::<i64>();
            let units = seen.delivered.get(&order.id).copied().unwrap_or(0);
            if !sums.units.holds(units) {
                wrong.push(format!("{} is {state}, and {units} of {} were delivered", order.id, order.many));
            }
            wrong.extend(self.at_providers(order, seen));
        }
        for ((who, stars), expected) in &balances {
            let found = seen.balances.get(&(*who, *stars)).copied().unwrap_or(0);
            if found != *expected {
                let story: Vec<&Order> = self.orders.iter().filter(|order| order.who == *who).collect();
                let unit = if *stars { "Stars" } else { "kopecks" };
                wrong.push(format!("customer {who} has {found} {unit} and must have {expected}: {story:?}"));
            }
        }
        if seen.suspense != suspense {
            wrong.push(format!("{} waits in suspense and {suspense} must", seen.suspense));
        }
        if seen.states.len() != self.orders.len() {
            wrong.push(format!("there are {} orders and {} were made", seen.states.len(), self.orders.len()));
        }
        for (kind, range) in
            [("goods", goods), ("balance", notices), ("refund", Range { least: refunds, most: refunds })]
        {
            let found = seen.messages.get(kind).copied().unwrap_or(0);
            if !range.holds(found) {
                wrong.push(format!(
                    "there are {found} messages of the kind {kind} and must be {} to {}",
                    range.least, range.most
                ));
            }
        }
        wrong.extend(self.owners(seen));
        wrong.extend(self.access.compare(&self.bought(seen), &seen.access));
        wrong
    }

    /// The orders of access to the VPN.
    fn bought(&self, seen: &Seen) -> Vec<Bought> {
        let of = |order: &Order| match self.products[order.product].sort {
            Sort::Access(days) => Some(Bought {
                order: order.id.clone(),
                who: order.who,
                total: order.total,
                seconds: days * (DAY_MS / 1000) * order.many,
                state: seen.states.get(&order.id).cloned().unwrap_or_default(),
            }),
            _ => None,
        };
        self.orders.iter().filter_map(of).collect()
    }

    /// The provider took what the customers paid, and gave back what the owner gave back.
    fn at_providers(&self, order: &Order, seen: &Seen) -> Option<String> {
        let there = |one: &Try| seen.there.get(&one.there).copied().unwrap_or_default();
        let captured: i64 = order.tries.iter().map(|one| there(one).0).sum();
        let refunded: i64 = order.tries.iter().map(|one| there(one).1).sum();
        let paid: i64 = order.tries.iter().filter_map(|one| one.paid).map(|(sum, _)| sum).sum();
        let back = order.to_provider.iter().sum::<i64>() + order.cabinet.unwrap_or(0);
        ((captured, refunded) != (paid, back)).then(|| {
            format!(
                "the providers took {captured} for {} and gave {refunded} back, where {paid} was paid and {back} given back",
                order.id
            )
        })
    }

    /// Each unit stands in one chat at most, and what is delivered stands in its owner's.
    fn owners(&self, seen: &Seen) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut holders: BTreeMap<&str, i64> = BTreeMap::new();
        for (who, contents) in &seen.chats {
            for content in contents {
                if let Some(other) = holders.insert(content.as_str(), *who) {
                    wrong.push(format!("customers {other} and {who} both have {content}"));
                }
            }
        }
        let owned: BTreeSet<&str> = seen.owners.iter().map(|(content, _)| content.as_str()).collect();
        if owned.len() != seen.owners.len() {
            wrong.push("a unit was delivered twice".to_owned());
        }
        for (content, who) in &seen.owners {
            if holders.get(content.as_str()) != Some(who) {
                wrong.push(format!("{content} counts as delivered to {who}, who does not have it"));
            }
        }
        if !self.faults {
            let astray = holders.keys().filter(|content| !owned.contains(*content));
            wrong.extend(astray.map(|content| format!("{content} stands in a chat and does not count as delivered")));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shop(sort: Sort) -> Model {
        let product = Product { id: "prd_1".into(), sort, price: 99_000, imported: 1 };
        let order = Order {
            id: "ord_1".into(),
            who: 42,
            product: 0,
            many: 1,
            total: 99_000,
            stars: false,
            deadline: 1000,
            by_balance: false,
            cancelled: false,
            sure: false,
            tries: vec![Try { by: By::Heleket, there: "h-1".into(), paid: None, heard: false }],
            to_balance: Vec::new(),
            to_provider: Vec::new(),
            cabinet: None,
        };
        Model { products: vec![product], orders: vec![order], ..Model::default() }
    }

    #[test]
    fn money_that_was_surely_in_time_buys_the_goods() {
        let mut model = shop(Sort::Instant);
        assert_eq!(model.endings(&model.orders[0]), ["expired"]);
        model.paid(0, 0, 100_000);
        assert_eq!(model.endings(&model.orders[0]), ["delivered", "expired"], "it may have come late");
        model.heard("h-1");
        model.ran(999);
        assert_eq!(model.endings(&model.orders[0]), ["delivered"]);
        assert_eq!(model.sums(&model.orders[0], "delivered").balance, 1_000);
        assert_eq!(model.sums(&model.orders[0], "expired").balance, 100_000);
    }

    #[test]
    fn a_cancelled_order_keeps_nothing() {
        let mut model = shop(Sort::Instant);
        model.orders[0].cancelled = true;
        model.paid(0, 0, 99_000);
        assert_eq!(model.endings(&model.orders[0]), ["cancelled"]);
        assert_eq!(model.sums(&model.orders[0], "cancelled").balance, 99_000);
    }

    #[test]
    fn a_topup_is_on_the_balance_until_it_goes_back() {
        let mut model = shop(Sort::Topup);
        model.paid(0, 0, 99_000);
        assert_eq!(model.endings(&model.orders[0]), ["delivered"]);
        assert_eq!(model.sums(&model.orders[0], "delivered").balance, 99_000);
        model.orders[0].to_provider.push(99_000);
        assert_eq!(model.endings(&model.orders[0]), ["refunded"]);
        assert_eq!(model.sums(&model.orders[0], "refunded").balance, 0);
    }

    #[test]
    fn another_sum_at_yookassa_is_nobodys() {
        let mut model = shop(Sort::Instant);
        model.orders[0].tries[0].by = By::Yookassa;
        model.paid(0, 0, 50_000);
        assert_eq!(model.endings(&model.orders[0]), ["expired"]);
        assert_eq!(model.sums(&model.orders[0], "expired").balance, 0);
    }
}
