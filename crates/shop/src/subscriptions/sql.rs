//! Every statement about subscriptions and their periods, and the row of one.

use semel_kernel::store::{Row, StoreError};

use super::Subscription;

semel_kernel::statements! {
    INSERT = "insert into subscriptions (id, customer, product, server, state, paid_until, since, devices, version, clock, created_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
    /// Takes back one that was written in this transaction and found no address.
    FORGET = "delete from subscriptions where id = $1";
    FIND = "select id, customer, product, server, state, paid_until, since, frozen_at, devices, version, clock, created_at, ended_at
        from subscriptions where id = $1";
    LOCK = {
        sqlite: "select id, customer, product, server, state, paid_until, since, frozen_at, devices, version, clock, created_at, ended_at
            from subscriptions where id = $1",
        postgres: "select id, customer, product, server, state, paid_until, since, frozen_at, devices, version, clock, created_at, ended_at
            from subscriptions where id = $1 for update",
    };
    OF_CUSTOMER = "select id, customer, product, server, state, paid_until, since, frozen_at, devices, version, clock, created_at, ended_at
        from subscriptions where customer = $1 order by id desc limit $2";
    /// Those that may be renewed, the oldest first, with their rows held: whoever holds several takes them in this order.
    RENEWABLE = {
        sqlite: "select id, customer, product, server, state, paid_until, since, frozen_at, devices, version, clock, created_at, ended_at
            from subscriptions where customer = $1 and state <> 'revoked' order by id",
        postgres: "select id, customer, product, server, state, paid_until, since, frozen_at, devices, version, clock, created_at, ended_at
            from subscriptions where customer = $1 and state <> 'revoked' order by id for update",
    };
    LIST = "select id, customer, product, server, state, paid_until, since, frozen_at, devices, version, clock, created_at, ended_at
        from subscriptions where (cast($1 as text) is null or customer = $1) and (cast($2 as text) is null or state = $2)
        and (cast($3 as text) is null or id < $3) order by id desc limit $4";
    WRITE = "update subscriptions set state = $3, version = $4, paid_until = $5, since = $6, frozen_at = $7, devices = $8, clock = $9,
        ended_at = $10, server = $11 where id = $1 and version = $2";
    /// Two first sales to one customer wait for each other, so that the second one renews what the first one began. Whoever
    /// refers to the customer does not wait. SQLite has one writer.
    HOLD_CUSTOMER = {
        sqlite: "select id from customers where id = $1",
        postgres: "select id from customers where id = $1 for no key update",
    };
    /// Once per person, for ever: the key decides.
    TRIAL = "insert into trials (customer, subscription, created_at) values ($1, $2, $3) on conflict (customer) do nothing";
    HAD_TRIAL = "select 1 from trials where customer = $1";
    INSERT_PERIOD = "insert into periods (id, subscription, item, kind, seconds, reason, created_at) values ($1, $2, $3, $4, $5, $6, $7)";
    PERIODS = "select p.id, p.item, i.order_id, p.kind, p.seconds, p.taken, p.reason, p.created_at
        from periods p left join items i on i.id = p.item where p.subscription = $1 order by p.created_at, p.id";
    OF_ITEM = "select s.id, s.customer, s.product, s.server, s.state, s.paid_until, s.since, s.frozen_at, s.devices, s.version, s.clock,
        s.created_at, s.ended_at from periods p join subscriptions s on s.id = p.subscription where p.item = $1";
    OF_ORDER = "select p.id, p.subscription, p.seconds, p.taken, p.created_at from periods p join items i on i.id = p.item
        where i.order_id = $1 order by p.subscription, p.created_at, p.id";
    /// What later periods of a subscription gave and no refund took: it is the last of its time.
    GIVEN_LATER = "select cast(coalesce(sum(seconds - taken), 0) as bigint) from periods
        where subscription = $1 and (created_at, id) > ($2, $3)";
    TAKE = "update periods set taken = $3 where id = $1 and taken = $2";
    /// Whether anything but a trial made it.
    IS_PAID = "select 1 from periods where subscription = $1 and kind <> 'trial' and taken < seconds limit 1";
    /// Servers that a new subscription may go to, the local one first: those that were applied once. On the rest nobody would
    /// ever be connected, and nobody has looked yet which addresses foreign peers have there. They are the VPN's rows; which
    /// of them a subscription goes to is decided here.
    OPEN_SERVERS = "select id from servers where state = 'open' and applied_at is not null
        order by case when name = $1 then 0 else 1 end, created_at, id";
    /// The peers that shall be on the server. They are the VPN's rows: here they are only looked at. PostgreSQL holds them, so
    /// that who waits for a peer and who brings it to the server do not pass each other unseen; SQLite has one writer.
    PEERS = {
        sqlite: "select id, device, state, version from peers where subscription = $1 and state in ('pending', 'active') order by device",
        postgres: "select id, device, state, version from peers where subscription = $1 and state in ('pending', 'active') order by device
            for no key update",
    };
    /// Who does this first hands the file over.
    GIVE = "update peers set given_at = $2 where id = $1 and given_at is null";
    /// The file was not sent and will not be.
    NOT_GIVEN = "update peers set given_at = null where id = $1 returning subscription, state";
    /// Whether the customer lacks the file of a device.
    LACKS_FILE = "select 1 from peers where subscription = $1 and state <> 'freed' and given_at is null limit 1";
    /// Whether a file was ever handed over. Present peers are looked at first: those are found by an index.
    EVER_GIVEN = "select 1 from peers where subscription = $1 and state <> 'freed' and given_at is not null
        union all select 1 from peers where subscription = $1 and given_at is not null limit 1";
    /// Orders whose access waits to be handed over.
    UNSERVED = "select distinct i.order_id from periods p join items i on i.id = p.item
        join deliveries d on d.item = i.id and d.state = 'reserved' where p.subscription = $1 order by i.order_id";
    /// Since when its peers are on the server, and when one of them connected first.
    CONNECTION = "select (select min(given_at) from peers where subscription = $1 and state = 'active'
            and given_at >= created_at),
        (select min(first_handshake_at) from peers where subscription = $1)";
    /// The subscriptions of some peers, with the orders whose access waits to be handed over. Ids come as one JSON list; each
    /// engine opens it with its own function.
    CONNECTED = {
        sqlite: "select distinct e.subscription, i.order_id from peers e left join periods p on p.subscription = e.subscription
            left join (items i join deliveries d on d.item = i.id and d.state = 'reserved') on i.id = p.item
            where e.id in (select value from json_each($1))",
        postgres: "select distinct e.subscription, i.order_id from peers e left join periods p on p.subscription = e.subscription
            left join (items i join deliveries d on d.item = i.id and d.state = 'reserved') on i.id = p.item
            where e.id in (select json_array_elements_text(cast($1 as json)))",
    };
}

/// A row of a subscription.
pub(super) fn subscription(row: &Row) -> Result<Subscription, StoreError> {
    Ok(Subscription {
        id: row.get(0)?,
        customer: row.get(1)?,
        product: row.get(2)?,
        server: row.get(3)?,
        state: row.get(4)?,
        paid_until: row.get(5)?,
        since: row.get(6)?,
        frozen_at: row.get(7)?,
        devices: row.get(8)?,
        version: row.get(9)?,
        clock: row.get(10)?,
        created_at: row.get(11)?,
        ended_at: row.get(12)?,
    })
}
