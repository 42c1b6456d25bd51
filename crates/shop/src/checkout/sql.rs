//! Every statement about payments.

semel_kernel::statements! {
    INSERT = "insert into payments (id, order_id, customer, provider, merchant, state, currency, amount, key, version, created_at)
        values ($1, $2, $3, $4, $5, 'created', $6, $7, $8, 1, $9)";
    FIND = "select id, order_id, customer, provider, merchant, provider_id, state, currency, amount, received, refunded, key, url, version, created_at
        from payments where id = $1";
    LOCK = {
        sqlite: "select id, order_id, customer, provider, merchant, provider_id, state, currency, amount, received, refunded, key, url, version, created_at
            from payments where id = $1",
        postgres: "select id, order_id, customer, provider, merchant, provider_id, state, currency, amount, received, refunded, key, url, version, created_at
            from payments where id = $1 for update",
    };
    OF_ORDER = "select id, order_id, customer, provider, merchant, provider_id, state, currency, amount, received, refunded, key, url, version, created_at
        from payments where order_id = $1 order by created_at desc, id desc";
    BY_REF = "select payment from payment_refs where provider = $1 and merchant = $2 and provider_id = $3";
    REFS = "select provider_id from payment_refs where payment = $1 order by created_at";
    HINTED = "select says from inbox where subject = $1 and state = 'received' and verified";
    ADD_REF = "insert into payment_refs (provider, merchant, provider_id, payment, created_at) values ($1, $2, $3, $4, $5) on conflict do nothing";
    LINKED = "update payments set provider_id = coalesce(provider_id, $2), url = coalesce($3, url), expires_at = coalesce($4, expires_at) where id = $1";
    ADVANCE = "update payments set state = $3, version = version + 1 where id = $1 and version = $2";
    RECEIVED = "update payments set received = received + $2 where id = $1";
    REFUNDED = "update payments set refunded = refunded + $2 where id = $1 and refunded + $2 <= received";
    ASKED = "update payments set asked_at = $2 where id = $1";
}
