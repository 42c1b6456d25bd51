//! Every statement about events.

semel_kernel::statements! {
    INSERT = "insert into events (id, dedup_key, type, order_id, body, created_at) values ($1, $2, $3, $4, $5, $6)
        on conflict (dedup_key) do nothing";
    FIND = "select body, created_at from events where id = $1";
}
