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
    /// A payment, the ids under which its provider knows it, and what waiting notices say: all that asking needs.
    KNOWN = {
        sqlite: "select p.id, p.order_id, p.customer, p.provider, p.merchant, p.provider_id, p.state, p.currency, p.amount, p.received, p.refunded,
            p.key, p.url, p.version, p.created_at,
            (select json_group_array(provider_id) from (select provider_id from payment_refs where payment = p.id order by created_at)),
            (select json_group_array(says) from inbox where subject = p.id and state = 'received' and verified)
            from payments p where p.id = $1",
        postgres: "select p.id, p.order_id, p.customer, p.provider, p.merchant, p.provider_id, p.state, p.currency, p.amount, p.received, p.refunded,
            p.key, p.url, p.version, p.created_at,
            (select coalesce(json_agg(r.provider_id order by r.created_at), '[]')::text from payment_refs r where r.payment = p.id),
            (select coalesce(json_agg(i.says), '[]')::text from inbox i where i.subject = p.id and i.state = 'received' and i.verified)
            from payments p where p.id = $1",
    };
    /// All that a settlement reads, in one statement, with the order's and the payment's rows held: the payment, the order,
    /// the customer, the order's lines, the units held for them, and which of up to four captures are in the books (their key
    /// is `ledger::capture_key`). Each part
    /// goes by a unique key or a foreign key, whatever the planner knows of the tables: what is sold must not slow down
    /// with what was sold before.
    SCENE = {
        sqlite: "select p.id, p.order_id, p.customer, p.provider, p.merchant, p.provider_id, p.state, p.currency, p.amount, p.received, p.refunded,
            p.key, p.url, p.version, p.created_at,
            o.id, o.customer, o.state, o.currency, o.total, o.provider, o.deadline, o.version, o.created_at, o.paid_at, o.reason,
            c.id, c.telegram_id, c.email, c.phone, c.language, c.referrer, c.created_at,
            (select json_group_array(json_array(id, product, title, kind, delivery, price, quantity, refunded, duration_s, devices, subscription))
                from (select * from items where order_id = o.id order by position)),
            (select json_group_array(json_array(item, id, content_hash)) from (select u.item, u.id, u.content_hash from units u
                join items i on i.id = u.item where i.order_id = o.id and u.state = 'held' order by u.id)),
            (select json_group_array(provider_payment_id) from postings where key in
                ('capture:' || p.provider || ':' || p.merchant || ':' || $2, 'capture:' || p.provider || ':' || p.merchant || ':' || $3,
                 'capture:' || p.provider || ':' || p.merchant || ':' || $4, 'capture:' || p.provider || ':' || p.merchant || ':' || $5))
            from payments p join orders o on o.id = p.order_id join customers c on c.id = p.customer where p.id = $1",
        postgres: "select p.id, p.order_id, p.customer, p.provider, p.merchant, p.provider_id, p.state, p.currency, p.amount, p.received, p.refunded,
            p.key, p.url, p.version, p.created_at,
            o.id, o.customer, o.state, o.currency, o.total, o.provider, o.deadline, o.version, o.created_at, o.paid_at, o.reason,
            c.id, c.telegram_id, c.email, c.phone, c.language, c.referrer, c.created_at,
            (select coalesce(json_agg(json_build_array(i.id, i.product, i.title, i.kind, i.delivery, i.price, i.quantity, i.refunded, i.duration_s,
                i.devices, i.subscription)
                order by i.position), '[]')::text from items i where i.order_id = o.id),
            (select coalesce(json_agg(json_build_array(u.item, u.id, u.content_hash) order by u.id), '[]')::text from items i
                cross join lateral (select * from units where item = i.id offset 0) u where i.order_id = o.id and u.state = 'held'),
            (select coalesce(json_agg(t.provider_payment_id), '[]')::text from postings t where t.key in
                ('capture:' || p.provider || ':' || p.merchant || ':' || cast($2 as text), 'capture:' || p.provider || ':' || p.merchant || ':' || cast($3 as text),
                 'capture:' || p.provider || ':' || p.merchant || ':' || cast($4 as text), 'capture:' || p.provider || ':' || p.merchant || ':' || cast($5 as text)))
            from payments p join orders o on o.id = p.order_id join customers c on c.id = p.customer where p.id = $1
            for update of o, p",
    };
    ADD_REF = "insert into payment_refs (provider, merchant, provider_id, payment, created_at) values ($1, $2, $3, $4, $5) on conflict do nothing";
    LINKED = "update payments set provider_id = coalesce(provider_id, $2), url = coalesce($3, url), expires_at = coalesce($4, expires_at) where id = $1";
    ADVANCE = "update payments set state = $3, version = version + 1, received = received + $4 where id = $1 and version = $2";
    RECEIVED = "update payments set received = received + $2 where id = $1";
    REFUNDED = "update payments set refunded = refunded + $2 where id = $1 and refunded + $2 <= received";
}
