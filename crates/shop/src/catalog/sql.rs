//! Every statement about products and their units, and the rows they return.

use semel_kernel::store::{ManySql, Row, StoreError};
use semel_money::Amount;

use super::Product;
use crate::shop::currency;

semel_kernel::statements! {
    INSERT = "insert into products (id, title, description, kind, delivery, promise_s, price, currency, active, version, created_at, duration_s, devices)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1, $10, $11, $12)";
    FIND = "select id, title, description, kind, delivery, promise_s, price, currency, active, version, created_at, duration_s, devices from products where id = $1";
    /// The same with the product's row held: a stock import and a settlement that promises do not pass each other unseen.
    /// SQLite has one writer and nothing to hold.
    FIND_HELD = {
        sqlite: "select id, title, description, kind, delivery, promise_s, price, currency, active, version, created_at, duration_s, devices from products where id = $1",
        postgres: "select id, title, description, kind, delivery, promise_s, price, currency, active, version, created_at, duration_s, devices from products where id = $1
            for update",
    };
    /// Ids come as one JSON list; each engine opens it with its own function.
    PRODUCTS = {
        sqlite: "select id, title, description, kind, delivery, promise_s, price, currency, active, version, created_at, duration_s, devices from products
            where id in (select value from json_each($1)) order by id",
        postgres: "select id, title, description, kind, delivery, promise_s, price, currency, active, version, created_at, duration_s, devices from products
            where id in (select json_array_elements_text(cast($1 as json))) order by id",
    };
    CHANGE = "update products set title = coalesce($2, title), description = coalesce($3, description), price = coalesce($4, price),
        currency = coalesce($5, currency), active = coalesce($6, active), promise_s = coalesce($7, promise_s), version = version + 1
        where id = $1 and (cast($8 as bigint) is null or version = $8)
        returning id, title, description, kind, delivery, promise_s, price, currency, active, version, created_at, duration_s, devices";
    LIST = "select id, title, description, kind, delivery, promise_s, price, currency, active, version, created_at, duration_s, devices from products
        where (cast($1 as text) is null or id < $1) order by id desc limit $2";
    /// Ids come as one JSON list; each engine opens it with its own function.
    LEVELS = {
        sqlite: "select product, case when state = 'available' and held_back_at is not null then 'held back' else state end, count(*)
            from units where product in (select value from json_each($1)) and state <> 'void' group by 1, 2",
        postgres: "select product, case when state = 'available' and held_back_at is not null then 'held back' else state end, count(*)
            from units where product in (select json_array_elements_text(cast($1 as json))) and state <> 'void' group by 1, 2",
    };
    AVAILABLE = "select count(*) from units where product = $1 and state = 'available' and held_back_at is null";
    /// PostgreSQL skips units that another buyer is taking, and picks first because a subquery with a limit may run
    /// more than once there; SQLite has one writer and nothing to skip.
    HOLD = {
        sqlite: "update units set state = 'held', item = $1
            where id in (select id from units where product = $2 and state = 'available' and held_back_at is null order by id limit $3)",
        postgres: "with picked as materialized (
                select id from units where product = $2 and state = 'available' and held_back_at is null order by id limit $3 for update skip locked)
            update units set state = 'held', item = $1 from picked where units.id = picked.id",
    };
    /// The same for the last units: PostgreSQL waits for other buyers, who may yet give theirs back.
    HOLD_LAST = {
        sqlite: "update units set state = 'held', item = $1
            where id in (select id from units where product = $2 and state = 'available' and held_back_at is null order by id limit $3)",
        postgres: "with picked as materialized (
                select id from units where product = $2 and state = 'available' and held_back_at is null order by id limit $3 for update)
            update units set state = 'held', item = $1 from picked where units.id = picked.id",
    };
    /// A unit that a restore holds back stays held back on the shelf.
    RELEASE = "update units set state = 'available', item = null
        where state = 'held' and item in (select id from items where order_id = $1)
        and not exists (select 1 from deliveries d where d.unit = units.id and d.state <> 'void')";
    BURN = "update units set state = 'void'
        where state = 'held' and item in (select id from items where order_id = $1)
        and not exists (select 1 from deliveries d where d.unit = units.id and d.state <> 'void')";
    HELD = "select u.item, u.id, u.content_hash from units u join items i on i.id = u.item
        where i.order_id = $1 and u.state = 'held' order by u.id";
    MARK_DELIVERED = "update units set state = 'delivered'
        where state = 'held' and item in (select id from items where order_id = $1)
        and exists (select 1 from deliveries d where d.unit = units.id and d.state <> 'void' and d.state = 'delivered')";
    /// What the backup calls available, or held by an order that is not paid, may be somebody else's by now.
    HOLD_BACK = "update units set held_back_at = $1 where held_back_at is null and (state = 'available' or (state = 'held'
        and item in (select i.id from items i join orders o on o.id = i.order_id where o.state = 'pending')))";
    HELD_BACK = "select u.product, p.title, count(*) from units u join products p on p.id = u.product
        where u.held_back_at is not null and u.state <> 'void' group by u.product, p.title order by u.product";
    ANY_HELD_BACK = "select 1 from units where held_back_at is not null limit 1";
    /// Ids come as one JSON list; each engine opens it with its own function. PostgreSQL shares the row, so that who withholds
    /// goods because of it and who releases it do not pass each other unseen.
    SOME_HELD_BACK = {
        sqlite: "select 1 from units where held_back_at is not null and id in (select value from json_each($1)) limit 1",
        postgres: "select 1 from units where held_back_at is not null
            and id in (select json_array_elements_text(cast($1 as json))) limit 1 for share",
    };
    LET_GO = "update units set held_back_at = null where product = $1 and held_back_at is not null";
    VOID = "update units set state = 'void' where id = $1 and state in ('available', 'delivered', 'void')";
    /// Units with these fingerprints, and whose they are; ids of a JSON list, which each engine opens with its own function. PostgreSQL
    /// holds their rows, so that nobody takes one meanwhile; SQLite has one writer and nothing to hold.
    WITH_FINGERPRINTS = {
        sqlite: "select u.id, u.product, u.state, u.content_hash, u.held_back_at, i.order_id from units u
            left join items i on i.id = u.item where u.content_hash in (select value from json_each($1))",
        postgres: "select u.id, u.product, u.state, u.content_hash, u.held_back_at, i.order_id from units u
            left join items i on i.id = u.item where u.content_hash in (select json_array_elements_text(cast($1 as json)))
            order by u.id for update of u",
    };
    UNIT_STATE = "select state from units where id = $1";
    CONTENTS = "select i.id, d.n, i.title, u.content from items i
        join deliveries d on d.item = i.id and d.state <> 'void' join units u on u.id = d.unit
        where i.order_id = $1 and d.state in ('sending', 'delivered') order by i.position, d.n";
}

/// Puts units on the shelf; a fingerprint that is known already is left alone and returns no row. Two imports of the
/// same goods write in the same order, so that neither waits for the other in a circle.
pub(super) const ADD_UNITS: ManySql = ManySql {
    sqlite: "insert into units (id, product, content, content_hash, state, created_at) values ($1, $2, $3, $4, 'available', $5)
        on conflict (content_hash) do nothing returning id",
    postgres: "insert into units (id, product, content, content_hash, state, created_at)
        select id, product, content, content_hash, 'available', created_at
        from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[]) as u (id, product, content, content_hash, created_at)
        order by content_hash
        on conflict (content_hash) do nothing returning id",
};

/// Takes units off the shelf for ever, and what they held with them. The fingerprint becomes that of nothing that was ever sold, so
/// that the same key can come in again as another unit.
pub(super) const WITHDRAW_UNITS: ManySql = ManySql {
    sqlite: "update units set state = 'void', content = '', content_hash = $2
        where id = $1 and state = 'available' and held_back_at is null returning id",
    postgres: "update units set state = 'void', content = '', content_hash = w.hash
        from unnest($1::text[], $2::text[]) as w (id, hash)
        where units.id = w.id and units.state = 'available' and units.held_back_at is null returning units.id",
};

/// A row of `FIND`, `PRODUCTS`, `CHANGE` or `LIST`.
pub(super) fn product(row: &Row) -> Result<Product, StoreError> {
    let code: String = row.get(7)?;
    Ok(Product {
        id: row.get(0)?,
        title: row.get(1)?,
        description: row.get(2)?,
        kind: row.get(3)?,
        delivery: row.get(4)?,
        promise_s: row.get(5)?,
        price: Amount::new(row.get(6)?, currency(&code)?),
        active: row.get(8)?,
        version: row.get(9)?,
        created_at: row.get(10)?,
        duration_s: row.get(11)?,
        devices: row.get(12)?,
        stock: None,
    })
}
