//! The promises, word for word. Each query returns **no rows**: at any moment, or at rest.
//!
//! The texts are part of the contract: an outside checker asks the same ones over the same views, on both engines.
//! They hold parameters such as `:now` and `:deadline`, which [`super::Parameters`] fills in.

/// One promise as queries that find who breaks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Predicate {
    /// Its name, once: `M1`. A promise that has a second form for rest carries `◷` there.
    pub id: &'static str,
    /// The part of the business that it is about.
    pub group: &'static str,
    /// What is promised.
    pub meaning: &'static str,
    /// Holds only once faults have stopped and the deadline has passed (`◷`); the others hold at any moment.
    pub at_rest: bool,
    /// At least one of its queries reads what the outside world logged (a `gt_*` table).
    pub needs_truth: bool,
    /// Each returns no rows, or one row for each violation.
    pub queries: &'static [&'static str],
}

/// Every promise, in the order of the contract.
pub const PREDICATES: &[Predicate] = &[
    Predicate {
        id: "M1",
        group: "Money",
        meaning: "balanced per transaction and currency",
        at_rest: false,
        needs_truth: false,
        queries: &["SELECT tx_id, currency FROM audit_entry GROUP BY tx_id, currency HAVING SUM(amount) <> 0"],
    },
    Predicate {
        id: "M2",
        group: "Money",
        meaning: "cached balance = sum",
        at_rest: false,
        needs_truth: false,
        queries: &["SELECT a.account_id FROM audit_account a LEFT JOIN (SELECT account_id, SUM(amount) s FROM \
             audit_entry GROUP BY account_id) e ON e.account_id = a.account_id WHERE a.balance <> \
             COALESCE(e.s, 0)"],
    },
    Predicate {
        id: "M3",
        group: "Money",
        meaning: "floor holds at every prefix",
        at_rest: false,
        needs_truth: false,
        queries: &["SELECT account_id FROM (SELECT t.account_id, a.floor, SUM(t.d) OVER (PARTITION BY t.account_id \
             ORDER BY t.s) run FROM (SELECT account_id, tx_id, SUM(amount) d, MAX(seq) s FROM audit_entry \
             GROUP BY account_id, tx_id) t JOIN audit_account a ON a.account_id = t.account_id) r WHERE run < \
             floor"],
    },
    Predicate {
        id: "M4",
        group: "Money",
        meaning: "one posting per business key",
        at_rest: false,
        needs_truth: false,
        queries: &[
            "SELECT tx_key FROM audit_tx GROUP BY tx_key HAVING COUNT(*) > 1",
            "SELECT provider, merchant, provider_payment_id FROM audit_tx WHERE kind = 'capture' GROUP BY \
             provider, merchant, provider_payment_id HAVING COUNT(*) > 1",
        ],
    },
    Predicate {
        id: "M5",
        group: "Money",
        meaning: "refunds ≤ captures (external accounts are negative when money came in)",
        at_rest: false,
        needs_truth: false,
        queries: &["SELECT x.provider, x.merchant, x.provider_payment_id FROM audit_tx x JOIN audit_entry e ON \
             e.tx_id = x.tx_id JOIN audit_account a ON a.account_id = e.account_id AND a.kind = 'external' \
             WHERE x.kind IN ('capture','refund') GROUP BY x.provider, x.merchant, x.provider_payment_id \
             HAVING SUM(e.amount) > 0"],
    },
    Predicate {
        id: "M7",
        group: "Money",
        meaning: "hold ends once; rail hit once",
        at_rest: false,
        needs_truth: true,
        queries: &[
            "SELECT payout_id FROM audit_payout WHERE hold_tx IS NULL OR (state IN ('posted','void') AND \
             end_tx IS NULL) OR (state IN ('held','unknown') AND end_tx IS NOT NULL)",
            "SELECT payout_id FROM gt_rail GROUP BY payout_id HAVING COUNT(*) > 1",
        ],
    },
    Predicate {
        id: "M7 ◷",
        group: "Money",
        meaning: "rail and ledger agree",
        at_rest: true,
        needs_truth: true,
        queries: &["SELECT g.payout_id FROM gt_rail g LEFT JOIN audit_payout p ON p.payout_id = g.payout_id AND \
             p.state = 'posted' AND p.amount = g.amount AND p.currency = g.currency WHERE p.payout_id IS NULL"],
    },
    Predicate {
        id: "M8",
        group: "Money",
        meaning: "statement match, both directions (also read as G7 when the harness drops all webhooks of 10 % of \
             payments)",
        at_rest: true,
        needs_truth: true,
        queries: &[
            "SELECT g.provider_payment_id FROM gt_pay g LEFT JOIN (SELECT x.provider, x.merchant, \
             x.provider_payment_id ppid, e.currency, -SUM(e.amount) net FROM audit_tx x JOIN audit_entry e ON \
             e.tx_id = x.tx_id JOIN audit_account a ON a.account_id = e.account_id AND a.kind = 'external' \
             WHERE x.kind IN ('capture','refund') GROUP BY x.provider, x.merchant, x.provider_payment_id, \
             e.currency) p ON p.provider = g.provider AND p.merchant = g.merchant AND p.ppid = \
             g.provider_payment_id AND p.currency = g.currency WHERE COALESCE(p.net, 0) <> g.captured - \
             g.refunded",
            "SELECT x.tx_id FROM audit_tx x LEFT JOIN gt_pay g ON g.provider = x.provider AND g.merchant = \
             x.merchant AND g.provider_payment_id = x.provider_payment_id WHERE x.kind IN ('capture','refund') \
             AND g.provider_payment_id IS NULL",
        ],
    },
    Predicate {
        id: "M9",
        group: "Money",
        meaning: "order state = money received",
        at_rest: true,
        needs_truth: false,
        queries: &["SELECT o.order_id FROM audit_order o LEFT JOIN (SELECT account_id, SUM(CASE WHEN amount > 0 THEN \
             amount ELSE 0 END) got FROM audit_entry GROUP BY account_id) p ON p.account_id = o.account_id \
             WHERE (o.state IN ('paid','done') AND COALESCE(p.got, 0) < o.total) OR (o.state IN \
             ('open','expired') AND COALESCE(p.got, 0) >= o.total)"],
    },
    Predicate {
        id: "G1",
        group: "Intake",
        meaning: "acknowledged ⇒ durable; run after every kill and on every power-cut image; statuses that a \
             provider's profile reads as confirmation count as 2xx",
        at_rest: false,
        needs_truth: true,
        queries: &["SELECT h.event_id FROM gt_hook h LEFT JOIN audit_inbox i ON i.provider = h.provider AND \
             i.merchant = h.merchant AND i.event_id = h.event_id AND i.body_hash = h.body_hash WHERE h.status \
             BETWEEN 200 AND 299 AND i.id IS NULL"],
    },
    Predicate {
        id: "G2",
        group: "Intake",
        meaning: "one live row per event",
        at_rest: false,
        needs_truth: false,
        queries: &[
            "SELECT provider, merchant, event_id FROM audit_inbox WHERE state NOT IN ('quarantined','ignored') \
             GROUP BY provider, merchant, event_id HAVING COUNT(*) > 1",
        ],
    },
    Predicate {
        id: "G3",
        group: "Intake",
        meaning: "every accepted webhook ends; ignored has a reason",
        at_rest: true,
        needs_truth: false,
        queries: &["SELECT id FROM audit_inbox WHERE (state NOT IN ('applied','ignored','quarantined') AND \
             received_at < :now - :deadline) OR (state = 'ignored' AND reason IS NULL)"],
    },
    Predicate {
        id: "G4",
        group: "Intake",
        meaning: "nothing unverified acts",
        at_rest: false,
        needs_truth: false,
        queries: &["SELECT id FROM audit_inbox WHERE NOT verified AND state = 'applied'"],
    },
    Predicate {
        id: "G5",
        group: "Intake",
        meaning: "transitions gapless and chained (legal pairs checked against the published table)",
        at_rest: false,
        needs_truth: false,
        queries: &[
            "SELECT entity, entity_id FROM audit_transition GROUP BY entity, entity_id HAVING COUNT(*) <> \
             MAX(seq) OR MIN(seq) <> 1",
            "SELECT entity_id FROM (SELECT entity_id, from_state, LAG(to_state) OVER (PARTITION BY entity, \
             entity_id ORDER BY seq) p FROM audit_transition) t WHERE p <> from_state",
        ],
    },
    Predicate {
        id: "G5s",
        group: "Intake",
        meaning: "the state that stands is the one that the last transition led to; a message's is what its job's runs tell",
        at_rest: false,
        needs_truth: false,
        queries: &[
            "SELECT s.entity, s.entity_id FROM audit_state s WHERE s.state <> COALESCE((SELECT t.to_state FROM \
             audit_transition t WHERE t.entity = s.entity AND t.entity_id = s.entity_id ORDER BY t.seq DESC LIMIT \
             1), '')",
            "SELECT m.msg_id FROM audit_msg m WHERE (m.state = 'sent' AND EXISTS (SELECT 1 FROM audit_job j WHERE \
             j.kind = 'message.send' AND j.slot = m.msg_id) AND NOT EXISTS (SELECT 1 FROM audit_job j JOIN \
             audit_run r ON r.job_id = j.job_id WHERE j.kind = 'message.send' AND j.slot = m.msg_id AND r.outcome \
             IN ('ok','retry'))) OR (m.state IN ('queued','sending') AND EXISTS (SELECT 1 FROM audit_job j WHERE \
             j.kind = 'message.send' AND j.slot = m.msg_id AND j.state = 'done'))",
        ],
    },
    Predicate {
        id: "G6",
        group: "Intake",
        meaning: "same id, other body ⇒ the second body is kept and acts on nothing by itself",
        at_rest: false,
        needs_truth: true,
        queries: &["SELECT h.event_id FROM gt_hook h JOIN gt_hook k ON k.provider = h.provider AND k.merchant = \
             h.merchant AND k.event_id = h.event_id AND k.body_hash > h.body_hash LEFT JOIN audit_inbox q ON \
             q.provider = h.provider AND q.merchant = h.merchant AND q.event_id = h.event_id AND q.body_hash = \
             k.body_hash WHERE h.status BETWEEN 200 AND 299 AND k.status BETWEEN 200 AND 299 AND q.id IS NULL"],
    },
    Predicate {
        id: "D1",
        group: "Goods and messages",
        meaning: "one delivery per item position",
        at_rest: false,
        needs_truth: false,
        queries: &["SELECT item_id, n FROM audit_delivery WHERE state <> 'void' AND item_id IS NOT NULL GROUP BY \
             item_id, n HAVING COUNT(*) > 1"],
    },
    Predicate {
        id: "D2",
        group: "Goods and messages",
        meaning: "a stock unit goes to one buyer",
        at_rest: false,
        needs_truth: false,
        queries: &[
            "SELECT unit_id FROM audit_delivery WHERE state <> 'void' AND unit_id IS NOT NULL GROUP BY unit_id \
             HAVING COUNT(*) > 1",
            "SELECT u.unit_id FROM audit_unit u LEFT JOIN audit_delivery d ON d.unit_id = u.unit_id AND \
             d.state = 'delivered' WHERE (u.state = 'delivered') <> (d.delivery_id IS NOT NULL)",
        ],
    },
    Predicate {
        id: "D3",
        group: "Goods and messages",
        meaning: "delivered + refunded = ordered",
        at_rest: true,
        needs_truth: false,
        queries: &["SELECT i.item_id FROM audit_item i JOIN audit_order o ON o.order_id = i.order_id LEFT JOIN \
             (SELECT item_id, COUNT(*) c FROM audit_delivery WHERE state = 'delivered' GROUP BY item_id) d ON \
             d.item_id = i.item_id WHERE o.state = 'done' AND COALESCE(d.c, 0) + i.refunded_qty <> i.qty"],
    },
    Predicate {
        id: "D4",
        group: "Goods and messages",
        meaning: "no goods before payment",
        at_rest: false,
        needs_truth: false,
        queries: &["SELECT d.delivery_id FROM audit_delivery d JOIN audit_item i ON i.item_id = d.item_id WHERE \
             d.state <> 'void' AND NOT EXISTS (SELECT 1 FROM audit_transition t WHERE t.entity = 'order' AND \
             t.entity_id = i.order_id AND t.to_state = 'paid' AND t.at <= d.at)"],
    },
    Predicate {
        id: "D5",
        group: "Goods and messages",
        meaning: "goods shown = goods reserved",
        at_rest: false,
        needs_truth: false,
        queries: &["SELECT d.delivery_id FROM audit_delivery d JOIN audit_unit u ON u.unit_id = d.unit_id WHERE \
             d.state <> 'void' AND d.content_hash <> u.content_hash"],
    },
    Predicate {
        id: "D6",
        group: "Goods and messages",
        meaning: "supplier ordered once",
        at_rest: true,
        needs_truth: true,
        queries: &["SELECT item_id FROM gt_supplier GROUP BY item_id HAVING COUNT(*) > 1"],
    },
    Predicate {
        id: "T1",
        group: "Goods and messages",
        meaning: "pace in every sliding second (same form per chat and per group-minute)",
        at_rest: false,
        needs_truth: true,
        queries: &["SELECT a.call_id FROM gt_tg a JOIN gt_tg b ON b.token = a.token AND b.at > a.at - 1000 AND b.at \
             <= a.at GROUP BY a.call_id HAVING COUNT(*) > :cap"],
    },
    Predicate {
        id: "T2",
        group: "Goods and messages",
        meaning: "silence during retry_after, in its scope (token-wide: from the third refused chat within a \
             second)",
        at_rest: false,
        needs_truth: true,
        queries: &["SELECT b.call_id FROM gt_tg a JOIN gt_tg b ON a.token = b.token AND (a.scope = 'token' OR \
             a.chat_id = b.chat_id) WHERE a.retry_after > 0 AND b.at > a.at + :inflight AND b.at < a.at + \
             a.retry_after * 1000"],
    },
    Predicate {
        id: "T3",
        group: "Goods and messages",
        meaning: "duplicates ≤ lost answers (a kill in flight counts as one); at-most-once class never doubles",
        at_rest: false,
        needs_truth: true,
        queries: &[
            "SELECT msg_id FROM gt_tg WHERE accepted GROUP BY msg_id HAVING COUNT(*) - 1 > SUM(CASE WHEN \
             answer_lost THEN 1 ELSE 0 END)",
            "SELECT m.msg_id FROM audit_msg m JOIN gt_tg g ON g.msg_id = m.msg_id AND g.accepted WHERE m.class \
             = 'at_most_once' GROUP BY m.msg_id HAVING COUNT(*) > 1",
        ],
    },
    Predicate {
        id: "T3 ◷",
        group: "Goods and messages",
        meaning: "at-least-once class: sent means accepted",
        at_rest: true,
        needs_truth: true,
        queries: &["SELECT m.msg_id FROM audit_msg m LEFT JOIN gt_tg g ON g.msg_id = m.msg_id AND g.accepted WHERE \
             m.class = 'at_least_once' AND m.state = 'sent' AND g.call_id IS NULL"],
    },
    Predicate {
        id: "T4",
        group: "Goods and messages",
        meaning: "every message ends",
        at_rest: true,
        needs_truth: false,
        queries: &["SELECT msg_id FROM audit_msg WHERE state NOT IN ('sent','failed','unknown','cancelled') AND \
             queued_at < :now - :deadline"],
    },
    Predicate {
        id: "T5",
        group: "Goods and messages",
        meaning: "order kept where promised",
        at_rest: false,
        needs_truth: true,
        queries: &[
            "SELECT chat_id FROM (SELECT m.chat_id, m.queued_at, LAG(m.queued_at) OVER (PARTITION BY m.chat_id \
             ORDER BY g.first_at) p FROM audit_msg m JOIN (SELECT msg_id, MIN(at) first_at FROM gt_tg WHERE \
             accepted GROUP BY msg_id) g ON g.msg_id = m.msg_id WHERE m.class = 'ordered') t WHERE queued_at < \
             p",
        ],
    },
    Predicate {
        id: "T6",
        group: "Goods and messages",
        meaning: "no recipient left out",
        at_rest: true,
        needs_truth: false,
        queries: &["SELECT broadcast_id, chat_id FROM audit_recipient EXCEPT SELECT broadcast_id, chat_id FROM \
             audit_msg WHERE state IN ('sent','failed','unknown','cancelled')"],
    },
    Predicate {
        id: "J1",
        group: "Jobs, leases, effects",
        meaning: "at most one holder",
        at_rest: false,
        needs_truth: false,
        queries: &["SELECT a.lease FROM audit_lease a JOIN audit_lease b ON b.lease = a.lease AND b.fence > a.fence \
             AND b.acquired_at < CASE WHEN a.ended_at IS NULL OR a.ended_at > a.expires_at THEN a.expires_at \
             ELSE a.ended_at END"],
    },
    Predicate {
        id: "J2",
        group: "Jobs, leases, effects",
        meaning: "fences strictly grow",
        at_rest: false,
        needs_truth: false,
        queries: &[
            "SELECT lease FROM (SELECT lease, fence, LAG(fence) OVER (PARTITION BY lease ORDER BY acquired_at, \
             fence) p FROM audit_lease) t WHERE fence <= p",
            "SELECT lease, fence FROM audit_lease GROUP BY lease, fence HAVING COUNT(*) > 1",
        ],
    },
    Predicate {
        id: "J3",
        group: "Jobs, leases, effects",
        meaning: "no effect under a stale fence",
        at_rest: false,
        needs_truth: false,
        queries: &["SELECT f.effect_id FROM audit_effect f JOIN audit_lease l ON l.lease = f.lease AND l.fence > \
             f.fence AND l.acquired_at < f.intent_at"],
    },
    Predicate {
        id: "J4",
        group: "Jobs, leases, effects",
        meaning: "each slot and each job succeeds once",
        at_rest: false,
        needs_truth: false,
        queries: &[
            "SELECT kind, slot FROM audit_job WHERE slot IS NOT NULL GROUP BY kind, slot HAVING COUNT(*) > 1",
            "SELECT job_id FROM audit_run WHERE outcome = 'ok' GROUP BY job_id HAVING COUNT(*) > 1",
        ],
    },
    Predicate {
        id: "J5",
        group: "Jobs, leases, effects",
        meaning: "no zombie runs",
        at_rest: false,
        needs_truth: false,
        queries: &["SELECT job_id FROM audit_job WHERE state = 'running' AND lease_until < :now - 2 * :lease"],
    },
    Predicate {
        id: "J6",
        group: "Jobs, leases, effects",
        meaning: "released by owner, expired or superseded, nothing else",
        at_rest: false,
        needs_truth: false,
        queries: &["SELECT lease, fence FROM audit_lease WHERE (end_kind = 'released' AND ended_by <> owner) OR \
             (ended_at IS NOT NULL AND end_kind NOT IN ('released','expired','superseded'))"],
    },
    Predicate {
        id: "J7",
        group: "Jobs, leases, effects",
        meaning: "no lost job",
        at_rest: true,
        needs_truth: false,
        queries: &[
            "SELECT job_id FROM audit_job WHERE state NOT IN ('done','dead','cancelled','parked') AND run_at < \
             :now - :deadline",
        ],
    },
    Predicate {
        id: "J8",
        group: "Jobs, leases, effects",
        meaning: "bounded attempts",
        at_rest: false,
        needs_truth: false,
        queries: &["SELECT job_id FROM audit_job WHERE attempts > max_attempts + :crash_allowance"],
    },
    Predicate {
        id: "E1",
        group: "Jobs, leases, effects",
        meaning: "intent before effect (same form for messages, supplier, chain)",
        at_rest: false,
        needs_truth: true,
        queries: &["SELECT g.ref FROM gt_rail g LEFT JOIN audit_effect f ON f.effect_id = g.ref AND f.request_hash = \
             g.request_hash AND f.intent_at <= g.at WHERE f.effect_id IS NULL"],
    },
    Predicate {
        id: "E2",
        group: "Jobs, leases, effects",
        meaning: "every effect ends, `unknown` included",
        at_rest: true,
        needs_truth: false,
        queries: &["SELECT effect_id FROM audit_effect WHERE state NOT IN ('confirmed','failed','unknown') AND \
             intent_at < :now - :deadline"],
    },
    Predicate {
        id: "N1",
        group: "Network and audit",
        meaning: "no two peers that are not freed share an address (also a unique index)",
        at_rest: false,
        needs_truth: false,
        queries: &["SELECT server, ip FROM audit_peer WHERE state <> 'freed' GROUP BY server, ip HAVING \
             COUNT(DISTINCT peer_id) > 1"],
    },
    Predicate {
        id: "N2",
        group: "Network and audit",
        meaning: "no two peers that are not freed share a key",
        at_rest: false,
        needs_truth: false,
        queries: &["SELECT server, pubkey FROM audit_peer WHERE state <> 'freed' GROUP BY server, pubkey HAVING \
             COUNT(DISTINCT peer_id) > 1"],
    },
    Predicate {
        id: "N5",
        group: "Network and audit",
        meaning: "peer ⇔ paid subscription",
        at_rest: true,
        needs_truth: false,
        queries: &[
            "SELECT p.peer_id FROM audit_peer p LEFT JOIN audit_sub s ON s.sub_id = p.sub_id AND s.paid_until \
             >= :now - :grace WHERE p.state = 'active' AND s.sub_id IS NULL",
            "SELECT s.sub_id FROM audit_sub s LEFT JOIN audit_peer p ON p.sub_id = s.sub_id AND p.state = \
             'active' WHERE s.state = 'active' AND s.paid_until > :now AND p.peer_id IS NULL",
        ],
    },
    Predicate {
        id: "N6",
        group: "Network and audit",
        meaning: "freed address quarantined",
        at_rest: false,
        needs_truth: false,
        queries: &["SELECT b.peer_id FROM audit_peer a JOIN audit_peer b ON b.server = a.server AND b.ip = a.ip AND \
             b.peer_id <> a.peer_id AND b.created_at >= a.freed_at AND b.created_at < a.freed_at + :quarantine"],
    },
    Predicate {
        id: "S1",
        group: "Network and audit",
        meaning: "audit chain linked (hashes recomputed by the tool, head compared with the exported anchor)",
        at_rest: false,
        needs_truth: false,
        queries: &["SELECT seq FROM (SELECT seq, prev_hash, LAG(hash) OVER (ORDER BY seq) p, LAG(seq) OVER (ORDER BY \
             seq) ps FROM audit_log) t WHERE ps IS NOT NULL AND (prev_hash <> p OR seq <> ps + 1)"],
    },
];
