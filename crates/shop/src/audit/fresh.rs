//! The promises asked of fresh rows only: what was written since the last look.
//!
//! Each text here is a promise of [`super::PREDICATES`] narrowed to rows that are new, and each finds its rows by a key or
//! an index, so a look costs the same in a shop of a week and of ten years. New money is found by its entries' numbers;
//! a delivery, a notice, an order or a message by its id, which begins with its moment. `CROSS JOIN` tells SQLite, which knows nothing of how many
//! rows there are, where to begin; to PostgreSQL it is a join like any other. What cannot be narrowed (a change of an old row is no
//! new row) is asked at night. A narrowed promise may miss what the night finds; it never finds what the whole one would
//! not.

use std::time::Duration;

use semel_kernel::clock::Time;
use semel_kernel::store::{Store, StoreError, Value};

use super::stops::Finding;
use super::{find, kept, sql};

/// The row of `audit_seen`.
pub(super) const NAME: &str = "fresh";
/// Looked at once more: a transaction that was on its way during the last look.
const OVERLAP: Duration = Duration::from_secs(120);
/// The same in numbers of entries, which PostgreSQL gives out before the commit.
const OVERLAP_ENTRIES: i64 = 1_000;
/// How far the very first look goes back; the night looks at everything.
const FIRST_LOOK: Duration = Duration::from_secs(3600);
const FIRST_ENTRIES: i64 = 10_000;

/// Up to where the rows were looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) at: Time,
    pub(super) entry: i64,
}

/// What narrows a promise. Parameters of a query stand in the order in which it names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    /// The number of the last entry that was seen.
    Entry,
    /// The least id of a delivery that is new.
    Delivery,
    /// The least id of a notice that is new.
    Notice,
    /// The least id of an order that is new.
    Order,
    /// The least id of a message that is new.
    Message,
}

struct Fresh {
    predicate: &'static str,
    since: &'static [Since],
    query: &'static str,
}

const FRESH: &[Fresh] = &[
    Fresh {
        predicate: "M1",
        since: &[Since::Entry],
        query: "SELECT tx_id, currency FROM audit_entry WHERE tx_id IN (SELECT tx_id FROM audit_entry WHERE seq > $1) \
            GROUP BY tx_id, currency HAVING SUM(amount) <> 0",
    },
    // Only customers' balances are cached: every other account's is the sum itself.
    Fresh {
        predicate: "M2",
        since: &[Since::Entry],
        query: "WITH touched AS MATERIALIZED (SELECT account_id FROM audit_entry WHERE seq > $1) \
            SELECT a.account_id FROM touched t CROSS JOIN audit_account a WHERE a.account_id = t.account_id \
            AND a.kind = 'customer' AND a.balance <> (SELECT COALESCE(SUM(e.amount), 0) FROM audit_entry e \
            WHERE e.account_id = a.account_id)",
    },
    // Accounts with a floor are customers and orders, whose entries are few.
    Fresh {
        predicate: "M3",
        since: &[Since::Entry],
        query: "WITH touched AS MATERIALIZED (SELECT a.account_id, a.floor FROM audit_account a WHERE a.floor IS NOT NULL \
            AND a.account_id IN (SELECT account_id FROM audit_entry WHERE seq > $1)) \
            SELECT account_id FROM (SELECT t.account_id, t.floor, SUM(t.d) OVER (PARTITION BY t.account_id ORDER BY t.s) run \
            FROM (SELECT e.account_id, e.tx_id, c.floor, SUM(e.amount) d, MAX(e.seq) s FROM touched c \
            JOIN audit_entry e ON e.account_id = c.account_id GROUP BY e.account_id, e.tx_id, c.floor) t) r WHERE run < floor",
    },
    Fresh {
        predicate: "M4",
        since: &[Since::Entry],
        query: "SELECT tx_key FROM audit_tx WHERE tx_key IN (SELECT x.tx_key FROM audit_tx x \
            WHERE x.tx_id IN (SELECT tx_id FROM audit_entry WHERE seq > $1)) GROUP BY tx_key HAVING COUNT(*) > 1",
    },
    Fresh {
        predicate: "M4",
        since: &[Since::Entry],
        query: "SELECT DISTINCT x.provider, x.merchant, x.provider_payment_id FROM audit_tx x JOIN audit_tx y \
            ON y.provider = x.provider AND y.merchant = x.merchant AND y.provider_payment_id = x.provider_payment_id \
            AND y.kind = 'capture' AND y.tx_id <> x.tx_id \
            WHERE x.kind = 'capture' AND x.tx_id IN (SELECT tx_id FROM audit_entry WHERE seq > $1)",
    },
    Fresh {
        predicate: "M5",
        since: &[Since::Entry],
        query: "WITH touched AS MATERIALIZED (SELECT DISTINCT x.provider, x.merchant, x.provider_payment_id FROM audit_tx x \
            WHERE x.kind = 'refund' AND x.tx_id IN (SELECT tx_id FROM audit_entry WHERE seq > $1)), \
            sides AS MATERIALIZED (SELECT c.tx_id, t.provider, t.merchant, t.provider_payment_id FROM touched t \
            JOIN audit_tx c ON c.provider = t.provider AND c.merchant = t.merchant \
            AND c.provider_payment_id = t.provider_payment_id AND c.kind = 'capture' \
            UNION ALL SELECT b.tx_id, t.provider, t.merchant, t.provider_payment_id FROM touched t \
            JOIN audit_tx b ON b.provider = t.provider AND b.merchant = t.merchant \
            AND b.provider_payment_id = t.provider_payment_id AND b.kind = 'refund') \
            SELECT s.provider, s.merchant, s.provider_payment_id FROM sides s CROSS JOIN audit_entry e \
            CROSS JOIN audit_account a WHERE e.tx_id = s.tx_id AND a.account_id = e.account_id AND a.kind = 'external' \
            GROUP BY s.provider, s.merchant, s.provider_payment_id HAVING SUM(e.amount) > 0",
    },
    // It holds at any moment here, because an order's state and its money change in one transaction.
    Fresh {
        predicate: "M9",
        since: &[Since::Entry, Since::Delivery],
        query: "WITH touched AS MATERIALIZED (SELECT x.order_id FROM audit_tx x WHERE x.order_id IS NOT NULL \
            AND x.tx_id IN (SELECT tx_id FROM audit_entry WHERE seq > $1) \
            UNION SELECT i.order_id FROM audit_delivery d JOIN audit_item i ON i.item_id = d.item_id WHERE d.delivery_id >= $2) \
            SELECT o.order_id FROM touched t JOIN audit_order o ON o.order_id = t.order_id \
            WHERE (o.state IN ('paid','done') AND (SELECT COALESCE(SUM(CASE WHEN e.amount > 0 THEN e.amount ELSE 0 END), 0) \
            FROM audit_entry e WHERE e.account_id = o.account_id) < o.total) \
            OR (o.state IN ('open','expired') AND (SELECT COALESCE(SUM(CASE WHEN e.amount > 0 THEN e.amount ELSE 0 END), 0) \
            FROM audit_entry e WHERE e.account_id = o.account_id) >= o.total)",
    },
    Fresh {
        predicate: "G2",
        since: &[Since::Notice],
        query: "SELECT i.provider, i.merchant, i.event_id FROM audit_inbox i WHERE i.id >= $1 \
            AND i.state NOT IN ('quarantined','ignored') AND EXISTS (SELECT 1 FROM audit_inbox j \
            WHERE j.provider = i.provider AND j.merchant = i.merchant AND j.event_id = i.event_id AND j.id <> i.id \
            AND j.state NOT IN ('quarantined','ignored'))",
    },
    Fresh {
        predicate: "G4",
        since: &[Since::Notice],
        query: "SELECT id FROM audit_inbox WHERE id >= $1 AND NOT verified AND state = 'applied'",
    },
    Fresh {
        predicate: "G5",
        since: &[Since::Entry],
        query: "SELECT entity, entity_id FROM audit_transition WHERE entity = 'order' AND entity_id IN \
            (SELECT x.order_id FROM audit_tx x WHERE x.order_id IS NOT NULL \
            AND x.tx_id IN (SELECT tx_id FROM audit_entry WHERE seq > $1)) \
            GROUP BY entity, entity_id HAVING COUNT(*) <> MAX(seq) OR MIN(seq) <> 1",
    },
    Fresh {
        predicate: "G5",
        since: &[Since::Entry],
        query: "SELECT entity_id FROM (SELECT entity_id, from_state, LAG(to_state) OVER (PARTITION BY entity, entity_id \
            ORDER BY seq) p FROM audit_transition WHERE entity = 'order' AND entity_id IN \
            (SELECT x.order_id FROM audit_tx x WHERE x.order_id IS NOT NULL \
            AND x.tx_id IN (SELECT tx_id FROM audit_entry WHERE seq > $1))) t WHERE p <> from_state",
    },
    Fresh {
        predicate: "G5s",
        since: &[Since::Entry],
        query: "SELECT s.entity, s.entity_id FROM audit_state s WHERE s.order_id IN \
            (SELECT x.order_id FROM audit_tx x WHERE x.order_id IS NOT NULL \
            AND x.tx_id IN (SELECT tx_id FROM audit_entry WHERE seq > $1)) \
            AND s.state <> COALESCE((SELECT t.to_state FROM audit_transition t WHERE t.entity = s.entity \
            AND t.entity_id = s.entity_id ORDER BY t.seq DESC LIMIT 1), '')",
    },
    Fresh {
        predicate: "G5s",
        since: &[Since::Order],
        query: "SELECT s.entity, s.entity_id FROM audit_state s WHERE s.order_id >= $1 \
            AND s.state <> COALESCE((SELECT t.to_state FROM audit_transition t WHERE t.entity = s.entity \
            AND t.entity_id = s.entity_id ORDER BY t.seq DESC LIMIT 1), '')",
    },
    Fresh {
        predicate: "G5s",
        since: &[Since::Message],
        query: "SELECT m.msg_id FROM audit_msg m WHERE m.msg_id >= $1 \
            AND ((m.state = 'sent' AND EXISTS (SELECT 1 FROM audit_job j WHERE j.kind = 'message.send' AND j.slot = m.msg_id) \
            AND NOT EXISTS (SELECT 1 FROM audit_job j JOIN audit_run r ON r.job_id = j.job_id \
            WHERE j.kind = 'message.send' AND j.slot = m.msg_id AND r.outcome IN ('ok','retry'))) \
            OR (m.state IN ('queued','sending') AND EXISTS (SELECT 1 FROM audit_job j \
            WHERE j.kind = 'message.send' AND j.slot = m.msg_id AND j.state = 'done')))",
    },
    Fresh {
        predicate: "D1",
        since: &[Since::Delivery],
        query: "SELECT item_id, n FROM audit_delivery WHERE state <> 'void' \
            AND item_id IN (SELECT item_id FROM audit_delivery WHERE delivery_id >= $1) GROUP BY item_id, n HAVING COUNT(*) > 1",
    },
    Fresh {
        predicate: "D2",
        since: &[Since::Delivery],
        query: "SELECT unit_id FROM audit_delivery WHERE state <> 'void' AND unit_id IS NOT NULL \
            AND unit_id IN (SELECT unit_id FROM audit_delivery WHERE delivery_id >= $1) GROUP BY unit_id HAVING COUNT(*) > 1",
    },
    Fresh {
        predicate: "D4",
        since: &[Since::Delivery],
        query: "SELECT d.delivery_id FROM audit_delivery d JOIN audit_item i ON i.item_id = d.item_id \
            WHERE d.delivery_id >= $1 AND d.state <> 'void' AND NOT EXISTS (SELECT 1 FROM audit_transition t \
            WHERE t.entity = 'order' AND t.entity_id = i.order_id AND t.to_state = 'paid' AND t.at <= d.at)",
    },
    Fresh {
        predicate: "D5",
        since: &[Since::Delivery],
        query: "SELECT d.delivery_id FROM audit_delivery d JOIN audit_unit u ON u.unit_id = d.unit_id \
            WHERE d.delivery_id >= $1 AND d.state <> 'void' AND d.content_hash <> u.content_hash",
    },
    Fresh {
        predicate: "S1",
        since: &[],
        query: "SELECT seq FROM (SELECT seq, prev_hash, LAG(hash) OVER (ORDER BY seq) p, LAG(seq) OVER (ORDER BY seq) ps \
            FROM audit_log WHERE seq > (SELECT COALESCE(MAX(seq), 0) - 200 FROM audit_log)) t \
            WHERE ps IS NOT NULL AND (prev_hash <> p OR seq <> ps + 1)",
    },
];

/// Asks the narrowed promises about all that is new. Answers what is broken, and up to where it has looked: note that in
/// the transaction that ends the look.
pub(super) async fn look(store: &Store) -> Result<(Vec<Finding>, Seen), StoreError> {
    let rows = store.rows("audit.seen", sql::SEEN, &[Value::from(NAME)]).await?;
    let latest = store.rows("audit.latest", sql::LATEST_ENTRY, &[]).await?;
    let entry: i64 = latest.first().ok_or(StoreError::Missing { statement: "the latest entry" })?.get(0)?;
    let until = Seen { at: store.now(), entry };
    let since = match rows.first() {
        Some(row) => Seen { at: row.get::<Time>(0)? - OVERLAP, entry: row.get::<i64>(1)? - OVERLAP_ENTRIES },
        None => Seen { at: until.at - FIRST_LOOK, entry: entry - FIRST_ENTRIES },
    };
    let mut findings: Vec<Finding> = Vec::new();
    for fresh in FRESH {
        let args: Vec<Value> = fresh.since.iter().map(|what| since.of(*what)).collect();
        let broken = find(store, kept(limited(store, fresh.query)), &args).await?;
        Finding::add(&mut findings, fresh.predicate, broken);
    }
    Ok((findings, until))
}

fn limited(store: &Store, query: &str) -> String {
    super::limited(store.engine(), query)
}

impl Seen {
    fn of(&self, what: Since) -> Value {
        match what {
            Since::Entry => Value::from(self.entry),
            Since::Delivery => Value::from(least_id("dlv", self.at)),
            Since::Notice => Value::from(least_id("inb", self.at)),
            Since::Order => Value::from(least_id("ord", self.at)),
            Since::Message => Value::from(least_id("msg", self.at)),
        }
    }
}

/// Below every id that was made at `at` or later: ids begin with their moment, see `semel_kernel::ids`.
fn least_id(prefix: &str, at: Time) -> String {
    format!("{prefix}_{:012x}", at.millis().max(0))
}

#[cfg(test)]
mod tests {
    use semel_kernel::clock::Chance;
    use semel_kernel::ids::new_id;

    use super::*;

    #[test]
    fn an_id_of_a_later_moment_is_above_the_least_and_an_earlier_one_below() {
        let chance = Chance::seeded(3);
        let at = Time::from_millis(1_772_355_600_000);
        let least = least_id("dlv", at);
        assert!(new_id("dlv", at, &chance) > least);
        assert!(new_id("dlv", at + Duration::from_millis(1), &chance) > least);
        assert!(new_id("dlv", at - Duration::from_millis(1), &chance) < least);
    }

    #[test]
    fn each_narrowed_promise_is_one_of_the_contract_and_names_its_parameters_in_order() {
        for fresh in FRESH {
            assert!(super::super::PREDICATES.iter().any(|predicate| predicate.id == fresh.predicate));
            for n in 1..=fresh.since.len() {
                assert!(fresh.query.contains(&format!("${n}")), "{}: ${n}", fresh.predicate);
            }
            assert!(!fresh.query.contains(&format!("${}", fresh.since.len() + 1)), "{}", fresh.predicate);
            assert!(!fresh.query.contains(':'), "{}", fresh.predicate);
        }
    }
}
