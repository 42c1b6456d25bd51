//! Every statement of the books.

use semel_kernel::store::ManySql;

semel_kernel::statements! {
    CHANGE_BALANCE = "update accounts set balance = balance + $2 where id = $1 and balance + $2 >= floor";
    IS_POSTED = "select id from postings where key = $1";
    BALANCES = "select currency, balance from accounts where kind = 'customer' and owner = $1 order by currency";
    BALANCE = "select balance from accounts where id = $1";
    SUSPENDED = "select posting, provider, merchant, provider_payment_id, currency, amount, reason, state from suspense
        where provider_payment_id = $1 and state = 'open'";
    SUSPENDED_BY = "select posting, provider, merchant, provider_payment_id, currency, amount, reason, state from suspense
        where posting = $1 and state = 'open'";
    /// The sum is named: a part of it may have gone back since it was read.
    END_SUSPENSE = "update suspense set state = 'assigned', order_id = $2, ended_at = $3
        where posting = $1 and state = 'open' and amount = $4";
    /// All of it ends the row, with its sum kept; a part leaves the rest open.
    LEAVE_SUSPENSE = "update suspense set state = case when amount = $2 then 'assigned' else state end,
        ended_at = case when amount = $2 then $3 else ended_at end, amount = case when amount = $2 then amount else amount - $2 end
        where posting = $1 and state = 'open' and amount >= $2";
    /// Of a capture with a surplus the order's part counts.
    CAPTURED = "select p.id, a.kind, p.order_id from postings p join entries e on e.posting = p.id join accounts a on a.id = e.account
        where p.kind = 'capture' and p.provider = $1 and p.merchant = $2 and p.provider_payment_id = $3 and e.amount > 0
        order by case a.kind when 'order' then 0 else 1 end limit 1";
    ASSIGNED = "select p.id, a.kind, p.order_id from postings p join entries e on e.posting = p.id join accounts a on a.id = e.account
        where p.key = $1 and e.amount > 0 order by case a.kind when 'order' then 0 else 1 end limit 1";
    /// Each part begins at the order's payments or at the order itself and goes by keys from there; `cross join` keeps SQLite,
    /// which knows nothing of how many rows there are, to that order. To PostgreSQL it is a join like any other.
    MOVED = "with ours (id) as (
            select p.id from payments y cross join payment_refs r cross join postings p where y.order_id = $1 and r.payment = y.id
                and p.kind = 'capture' and p.provider = r.provider and p.merchant = r.merchant and p.provider_payment_id = r.provider_id
        ), moved (id) as (
            select id from ours
            union select p.id from ours o cross join postings p where p.key = 'assign:' || o.id
            union select p.id from payments y cross join payment_refs r cross join postings p where y.order_id = $1 and r.payment = y.id
                and p.kind = 'refund' and p.provider = r.provider and p.merchant = r.merchant and p.provider_payment_id = r.provider_id
            union select p.id from postings p where p.order_id = $1 and p.kind = 'assign'
        )
        select p.id, p.posted_at, p.kind, p.provider, p.order_id, p.note, a.kind, e.currency, e.amount
        from moved m cross join postings p cross join entries e cross join accounts a
        where p.id = m.id and e.posting = p.id and a.id = e.account and a.kind in ('order', 'customer', 'suspense')
        order by e.seq limit $2";
    /// What came for an order, what of it went back to whoever paid, and what went to the balance: money that the balance itself paid
    /// with is none of it.
    WENT = "select cast(coalesce(sum(case when a.kind in ('external', 'suspense') and e.amount < 0 then -e.amount else 0 end), 0) as bigint),
            cast(coalesce(sum(case when a.kind = 'external' and e.amount > 0 then e.amount else 0 end), 0) as bigint),
            cast(coalesce(sum(case when a.kind = 'customer' then e.amount else 0 end), 0) as bigint)
        from postings p cross join entries e cross join accounts a
        where p.order_id = $1 and p.kind in ('capture', 'assign', 'refund', 'refund_to_balance') and e.posting = p.id
            and a.id = e.account and e.currency = $2";
    PAID_BY = "select p.payment, p.provider_payment_id from postings p join entries e on e.posting = p.id
        where e.account = $1 and e.amount > 0 and p.kind = 'capture' and p.payment is not null order by e.seq limit 1";
}

/// Accounts, made where they are missing.
pub(super) const OPEN: ManySql = ManySql {
    sqlite: "insert into accounts (id, kind, owner, currency, balance, floor, created_at) values ($1, $2, $3, $4, $5, $6, $7)
        on conflict do nothing",
    postgres: "insert into accounts (id, kind, owner, currency, balance, floor, created_at)
        select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[])
            as a (id, kind, owner, currency, balance, floor, created_at) order by a.id on conflict do nothing",
};

/// Postings. One whose key stands already ends its transaction.
pub(super) const POST: ManySql = ManySql {
    sqlite: "insert into postings (id, key, kind, provider, merchant, provider_payment_id, order_id, payment, note, posted_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    postgres: "insert into postings (id, key, kind, provider, merchant, provider_payment_id, order_id, payment, note, posted_at)
        select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::text[], $10::bigint[])",
};

/// Money that fits nowhere. It names its posting, so it goes where postings go: after them.
pub(super) const SUSPEND: ManySql = ManySql {
    sqlite: "insert into suspense (posting, provider, merchant, provider_payment_id, currency, amount, reason, state, created_at)
        values ($1, $2, $3, $4, $5, $6, $7, 'open', $8)",
    postgres: "insert into suspense (posting, provider, merchant, provider_payment_id, currency, amount, reason, state, created_at)
        select s.posting, s.provider, s.merchant, s.provider_payment_id, s.currency, s.amount, s.reason, 'open', s.created_at
        from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::bigint[])
            as s (posting, provider, merchant, provider_payment_id, currency, amount, reason, created_at)",
};

/// The entries of postings.
pub(super) const ENTRY: ManySql = ManySql {
    sqlite: "insert into entries (posting, account, currency, amount) values ($1, $2, $3, $4)",
    postgres: "insert into entries (posting, account, currency, amount)
        select * from unnest($1::text[], $2::text[], $3::text[], $4::bigint[])",
};
