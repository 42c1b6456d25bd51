//! Every statement about rewards.

semel_kernel::statements! {
    /// An order, its row held, and who sent its customer, if anybody did.
    SCENE = {
        sqlite: "select o.id, o.customer, o.state, o.currency, o.total, o.provider, o.deadline, o.version, o.created_at, o.paid_at, o.reason,
            r.id, r.telegram_id, r.email, r.phone, r.language, r.referrer, r.created_at
            from orders o join customers c on c.id = o.customer left join customers r on r.id = c.referrer where o.id = $1",
        postgres: "select o.id, o.customer, o.state, o.currency, o.total, o.provider, o.deadline, o.version, o.created_at, o.paid_at, o.reason,
            r.id, r.telegram_id, r.email, r.phone, r.language, r.referrer, r.created_at
            from orders o join customers c on c.id = o.customer left join customers r on r.id = c.referrer where o.id = $1
            for update of o",
    };
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
