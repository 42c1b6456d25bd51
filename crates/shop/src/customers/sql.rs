//! Every statement about customers, and the row they return.

use semel_kernel::store::{ManySql, Row, StoreError};

use super::Customer;

semel_kernel::statements! {
    /// On PostgreSQL the row stays locked until the transaction ends, also when nothing changed: what is counted per
    /// customer after this is counted by one order at a time.
    UPSERT = "insert into customers (id, telegram_id, email, phone, language, referrer, created_at)
        values ($1, $2, $3, $4, $5, (select r.id from customers r where r.telegram_id = $6), $7)
        on conflict (telegram_id) do update set email = coalesce(excluded.email, customers.email),
            phone = coalesce(excluded.phone, customers.phone), language = coalesce(excluded.language, customers.language)
        returning id, telegram_id, email, phone, language, referrer, created_at";
    /// Both at once: what is not given any more is not known any more.
    SET_CONTACT = "update customers set email = $2, phone = $3 where telegram_id = $1
        returning id, telegram_id, email, phone, language, referrer, created_at";
    FIND = "select id, telegram_id, email, phone, language, referrer, created_at from customers where id = $1";
    REACHED = "update customers set blocked_at = null where telegram_id = $1 and blocked_at is not null";
    FIND_BY_TELEGRAM = "select id, telegram_id, email, phone, language, referrer, created_at from customers where telegram_id = $1";
}

/// Remembers whom nothing reaches, and since when.
pub(super) const UNREACHABLE: ManySql = ManySql {
    sqlite: "update customers set blocked_at = $2 where telegram_id = $1 and blocked_at is null",
    postgres: "update customers c set blocked_at = b.at from unnest($1::bigint[], $2::bigint[]) as b (telegram_id, at)
        where c.telegram_id = b.telegram_id and c.blocked_at is null",
};

/// A row of any of these statements.
pub(super) fn customer(row: &Row) -> Result<Customer, StoreError> {
    Ok(Customer {
        id: row.get(0)?,
        telegram_id: row.get(1)?,
        email: row.get(2)?,
        phone: row.get(3)?,
        language: row.get(4)?,
        referrer: row.get(5)?,
        created_at: row.get(6)?,
    })
}
