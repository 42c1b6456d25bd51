//! Every statement about orders, their lines and deliveries.

use semel_kernel::store::ManySql;

semel_kernel::statements! {
    INSERT = "insert into orders (id, customer, state, currency, total, provider, deadline, version, created_at)
        values ($1, $2, 'pending', $3, $4, $5, $6, 1, $7)";
    INSERT_ITEM = "insert into items (id, order_id, position, product, title, kind, delivery, price, quantity, duration_s, devices, subscription)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    COUNT_UNPAID = "select count(*) from orders where customer = $1 and state = 'pending'";
    FIND = "select id, customer, state, currency, total, provider, deadline, version, created_at, paid_at, reason from orders where id = $1";
    LOCK = {
        sqlite: "select id, customer, state, currency, total, provider, deadline, version, created_at, paid_at, reason from orders where id = $1",
        postgres: "select id, customer, state, currency, total, provider, deadline, version, created_at, paid_at, reason from orders where id = $1 for update",
    };
    OF_CUSTOMER = "select id, customer, state, currency, total, provider, deadline, version, created_at, paid_at, reason from orders
        where customer = $1 order by id desc limit $2";
    /// Lists, the newest first: one text for each index that bears one.
    LIST = "select id, customer, state, currency, total, provider, deadline, version, created_at, paid_at, reason from orders
        where id < $1 order by id desc limit $2";
    LIST_STATE = "select id, customer, state, currency, total, provider, deadline, version, created_at, paid_at, reason from orders
        where state = $3 and id < $1 order by id desc limit $2";
    LIST_CUSTOMER = "select id, customer, state, currency, total, provider, deadline, version, created_at, paid_at, reason from orders
        where customer = $3 and id < $1 order by id desc limit $2";
    /// One customer's orders are few, those of one state may be all: an expression keeps a planner from the latter.
    LIST_BOTH = "select id, customer, state, currency, total, provider, deadline, version, created_at, paid_at, reason from orders
        where customer = $3 and state || '' = $4 and id < $1 order by id desc limit $2";
    ITEMS = "select i.id, i.product, i.title, i.kind, i.delivery, i.price, i.quantity, i.refunded, i.promised_at, o.currency,
        i.duration_s, i.devices, i.subscription
        from items i join orders o on o.id = i.order_id where i.order_id = $1 order by i.position";
    ADVANCE = "update orders set state = $3, version = version + 1, reason = coalesce($4, reason),
        paid_at = case when $3 = 'paid' and paid_at is null then $5 else paid_at end,
        ended_at = case when $3 in ('delivered', 'expired', 'cancelled', 'refunded') then $5 else null end
        where id = $1 and version = $2";
    SET_PROVIDER = "update orders set provider = $2 where id = $1";
    SERVED = "select count(*) from deliveries where item = $1 and state <> 'void'";
    RENEWS = "update items set subscription = $2 where id = $1";
    PROMISE = "update items set promised_at = $2 where id = $1";
    DELIVERED = "update deliveries set state = 'delivered', at = $2
        where state = 'sending' and state <> 'void' and at <= $3 and item in (select id from items where order_id = $1 and kind <> 'vpn')";
    /// Access is delivered by messages of its own.
    DELIVERED_VPN = "update deliveries set state = 'delivered', at = $2
        where state = 'sending' and state <> 'void' and item in (select id from items where order_id = $1 and kind = 'vpn')";
    /// Access whose files were called off is handed over again later.
    RECALL_VPN = "update deliveries set state = 'reserved', at = $2
        where state = 'sending' and state <> 'void' and item in (select id from items where order_id = $1 and kind = 'vpn')";
    /// What was withheld after a restore goes on, but for units that are still held back. Access waits for its peers instead.
    HAND_OVER = "update deliveries set state = $2, at = $3 where state = 'reserved' and state <> 'void'
        and item in (select id from items where order_id = $1 and kind <> 'vpn')
        and not exists (select 1 from units u where u.id = deliveries.unit and u.held_back_at is not null)";
    HAND_OVER_ITEM = "update deliveries set state = $2, at = $3 where state = 'reserved' and state <> 'void' and item = $1";
    /// Lines of access that are sold and not handed over.
    UNCONNECTED = "select distinct i.id from items i join deliveries d on d.item = i.id and d.state = 'reserved'
        where i.order_id = $1 and i.kind = 'vpn' order by i.id";
    /// Paid lines of access that have nothing yet, in the order of payment, after the line `$3` of the order `$2`, which was
    /// paid at `$1`.
    WAITING_ACCESS = "select i.id, i.order_id, o.paid_at from items i join orders o on o.id = i.order_id
        where i.kind = 'vpn' and o.state in ('paid', 'awaiting_stock', 'partial')
        and (o.paid_at, o.id, i.id) > ($1, $2, $3)
        and not exists (select 1 from deliveries d where d.item = i.id and d.state <> 'void')
        order by o.paid_at, o.id, i.id limit $4";
    /// Somebody who has waited for access since before `$1`.
    OVERDUE_ACCESS = "select 1 from items i join orders o on o.id = i.order_id
        where i.kind = 'vpn' and o.state in ('paid', 'awaiting_stock', 'partial') and o.paid_at <= $1
        and not exists (select 1 from deliveries d where d.item = i.id and d.state <> 'void') limit 1";
    LACKS_ACCESS = "select 1 from items i where i.order_id = $1 and i.kind = 'vpn'
        and not exists (select 1 from deliveries d where d.item = i.id and d.state <> 'void') limit 1";
    WITHHELD = "select distinct i.order_id from deliveries d join items i on i.id = d.item where d.state = 'reserved' order by i.order_id";
    VOID = "update deliveries set state = 'void' where state in ('reserved', 'sending') and state <> 'void' and item in (select id from items where order_id = $1)";
    COUNTS = "select i.id, i.quantity, cast(coalesce(sum(case when d.state = 'delivered' then 1 else 0 end), 0) as bigint),
        cast(coalesce(sum(case when d.state in ('reserved', 'sending') then 1 else 0 end), 0) as bigint)
        from items i left join deliveries d on d.item = i.id and d.state <> 'void' where i.order_id = $1 group by i.id, i.quantity";
    /// Paid lines that have nothing yet, in the order of payment, after the order `$3` that was paid at `$2`. No order has two
    /// lines of one product.
    WAITING = "select i.id, i.order_id, i.quantity, i.promised_at, o.paid_at from items i join orders o on o.id = i.order_id
        where i.product = $1 and i.kind = 'stock' and o.state in ('paid', 'awaiting_stock', 'partial') and (o.paid_at, o.id) > ($2, $3)
        and not exists (select 1 from deliveries d where d.item = i.id and d.state <> 'void') order by o.paid_at, o.id limit $4";
    OVERDUE = "select 1 from items i join orders o on o.id = i.order_id
        where i.product = $1 and i.kind = 'stock' and i.promised_at <= $2 and o.state in ('paid', 'awaiting_stock', 'partial')
        and not exists (select 1 from deliveries d where d.item = i.id and d.state <> 'void') limit 1";
    UNSERVED = "select i.product from items i where i.order_id = $1 and i.kind = 'stock' and i.delivery = 'made_to_order'
        and not exists (select 1 from deliveries d where d.item = i.id and d.state <> 'void') order by i.product";
}

/// All deliveries of a settlement at once.
pub(super) const DELIVER_MANY: ManySql = ManySql {
    sqlite: "insert into deliveries (id, item, n, unit, state, content_hash, at) values ($1, $2, $3, $4, $5, $6, $7)",
    postgres: "insert into deliveries (id, item, n, unit, state, content_hash, at)
        select * from unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::bigint[])",
};
