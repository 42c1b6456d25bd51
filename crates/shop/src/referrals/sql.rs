//! Every statement about rewards.

semel_kernel::statements! {
    /// Only for the first payment: an order that was paid before leaves nothing to reward, and the customer's key lets
    /// one of two that are paid together win.
    GRANT = "insert into rewards (customer, referrer, order_id, currency, amount, state, created_at)
        select $1, $2, $3, $4, $5, 'granted', $6
        from orders o where o.id = $3 and o.state <> 'refunded' and not exists (select 1 from orders other where other.customer = $1
            and other.id <> o.id and (other.paid_at < o.paid_at or (other.paid_at = o.paid_at and other.id < o.id)))
        on conflict do nothing";
    REVERSE = "update rewards set state = 'reversed' where order_id = $1 and state = 'granted'
        returning customer, referrer, currency, amount";
}
