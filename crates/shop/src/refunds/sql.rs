//! Every statement about refunds.

semel_kernel::statements! {
    INSERT = "insert into refunds (id, order_id, payment, target, currency, amount, state, reason, key, after_state, provider_refund_id, created_at, ended_at, address)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) on conflict do nothing";
    FIND = "select id, order_id, payment, provider_refund_id, currency, amount, state, reason, after_state, address, created_at from refunds where id = $1";
    BY_PROVIDER = "select id, order_id, payment, provider_refund_id, currency, amount, state, reason, after_state, address, created_at from refunds where provider_refund_id = $1";
    LIVE = "select id from refunds where payment = $1 and state = 'pending' order by created_at limit 1";
    /// What goes or went back of an order. Money that did not pay it is not part of it.
    GIVEN = "select cast(coalesce(sum(amount), 0) as bigint) from refunds
        where order_id = $1 and state in ('pending', 'succeeded') and target <> 'elsewhere'";
    /// What of it has gone back.
    GIVEN_BACK = "select cast(coalesce(sum(amount), 0) as bigint) from refunds
        where order_id = $1 and state = 'succeeded' and target <> 'elsewhere'";
    SET_PROVIDER_ID = "update refunds set provider_refund_id = $2 where id = $1 and provider_refund_id is null
        and not exists (select 1 from refunds other where other.provider_refund_id = $2)";
    /// Only for a call that certainly did nothing.
    UNLINK = "update refunds set provider_refund_id = null where id = $1 and state = 'pending'";
    /// What earlier refunds of an order gave back. Ids sort by their moment.
    BEFORE = "select cast(coalesce(sum(amount), 0) as bigint) from refunds
        where order_id = $1 and id < $2 and state in ('pending', 'succeeded') and target <> 'elsewhere'";
    FINISH = "update refunds set state = $2, ended_at = $3 where id = $1 and state = 'pending'";
    /// What the books say about one payment of a provider: what came and what went back, for each currency.
    TAKEN = "select e.currency, cast(sum(case when p.kind = 'capture' then -e.amount else 0 end) as bigint),
            cast(sum(case when p.kind = 'refund' then e.amount else 0 end) as bigint)
        from postings p join entries e on e.posting = p.id join accounts a on a.id = e.account
        where a.kind = 'external' and p.kind in ('capture', 'refund') and p.provider = $1 and p.merchant = $2
            and p.provider_payment_id = $3 group by e.currency";
    REFUND_PAYMENT = "update payments set refunded = refunded + $2 where id = $1 and refunded + $2 <= received";
}
