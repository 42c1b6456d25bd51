-- Views over every promise, for `verify`, for outside checkers and for older tools. Their names and columns are a contract.
-- A running older program sees no change: views add nothing to its tables. What is not built yet is an empty view.

create view audit_inbox (id, provider, merchant, event_id, body_hash, verified, state, reason, received_at, terminal_at) as
    select id, source, account, event_id, body_hash, verified, state, reason, received_at, terminal_at from inbox;

create view audit_tx (tx_id, tx_key, kind, provider, merchant, provider_payment_id, order_id, posted_at) as
    select id, key, kind, provider, merchant, provider_payment_id, order_id, posted_at from postings;

create view audit_entry (seq, tx_id, account_id, currency, amount) as
    select seq, posting, account, currency, amount from entries;

-- Only customers' balances are cached; the rest are sums, so that every account can be read in one way.
create view audit_account (account_id, currency, kind, balance, floor) as
    select a.id, a.currency, a.kind,
        case when a.kind = 'customer' then coalesce(a.balance, 0)
            else (select cast(coalesce(sum(e.amount), 0) as bigint) from entries e where e.account = a.id) end,
        a.floor
    from accounts a;

create view audit_order (order_id, account_id, user_id, currency, total, state) as
    select id, 'order:' || id || ':' || currency, customer, currency, total,
        case state when 'pending' then 'open' when 'awaiting_stock' then 'paid' when 'partial' then 'paid'
            when 'delivered' then 'done' else state end
    from orders;

create view audit_item (item_id, order_id, qty, refunded_qty) as
    select id, order_id, quantity, refunded from items;

create view audit_delivery (delivery_id, item_id, unit_id, n, state, fence, content_hash, at) as
    select id, item, unit, n, state, fence, content_hash, at from deliveries;

-- A unit that was taken out of the trade after a buyer had it stays delivered: that buyer is its only one.
create view audit_unit (unit_id, state, item_id, content_hash) as
    select u.id,
        case when u.state = 'void' and exists (select 1 from deliveries d where d.unit = u.id and d.state = 'delivered')
            then 'delivered' else u.state end,
        u.item, u.content_hash
    from units u;

create view audit_payout (payout_id, user_id, currency, amount, state, hold_tx, end_tx, effect_id) as
    select cast(null as text), cast(null as text), cast(null as text), cast(null as bigint), cast(null as text),
        cast(null as text), cast(null as text), cast(null as text)
    where 1 = 0;

-- A job with a manner is a call to the outside, and its row the written intent. Its end tells what became of the call.
create view audit_effect (effect_id, kind, sink_class, lease, fence, request_hash, state, intent_at, ended_at) as
    select id, kind, manner, cast(null as text), fence, request_hash,
        case state when 'running' then 'sent' when 'done' then coalesce(outcome, 'unknown')
            when 'dead' then coalesce(outcome, 'unknown') when 'cancelled' then 'failed' else coalesce(outcome, 'intended') end,
        created_at, ended_at
    from jobs where manner is not null;

create view audit_msg (msg_id, dedup_key, chat_id, class, broadcast_id, state, queued_at, ended_at) as
    select id, dedup_key, chat_id, class, cast(null as text), state, queued_at, ended_at from messages;

create view audit_recipient (broadcast_id, chat_id) as
    select cast(null as text), cast(null as bigint) where 1 = 0;

create view audit_job (job_id, kind, slot, state, attempts, max_attempts, run_at, lease_until, ended_at) as
    select id, kind, slot, state, attempts, max_attempts, run_at, case when state = 'running' then lease_until end, ended_at
    from jobs;

-- What a hand did to a job stands in its history too and is no run.
create view audit_run (run_id, job_id, owner, fence, outcome, started_at, ended_at) as
    select cast(seq as text), entity_id, actor, fence, to_state, at - coalesce(took_ms, 0), at
    from history where entity = 'job' and to_state in ('ok', 'retry', 'failed', 'lost');

create view audit_lease (lease, owner, fence, acquired_at, expires_at, ended_at, end_kind, ended_by) as
    select lease, owner, fence, acquired_at, expires_at, ended_at, end_kind, ended_by from lease_terms;

-- audit_sub and audit_peer stand beside their tables, in 0004_vpn.

create view audit_transition (entity, entity_id, seq, from_state, to_state, at) as
    select entity, entity_id, n, from_state, to_state, at from history where n is not null;

-- Where everything stands now whose every change has a number, beside what audit_transition tells of it.
create view audit_state (entity, entity_id, order_id, state) as
    select cast('order' as text), id, id, state from orders
    union all select cast('payment' as text), id, order_id, state from payments;

-- A body as text. It comes from outside, so bytes that are no text must not break a reader: they are shown escaped.
create function text_of(body bytea) returns text language plpgsql stable as $$
begin
    return convert_from(body, 'UTF8');
exception when others then
    return encode(body, 'escape');
end
$$;

-- What owners of older bots knew as a table: one row for each notice of a provider.
create view payment_events (id, provider, event_id, event_type, payment_id, order_id, status, payload, received_at, processed_at) as
    select i.id, i.source, i.event_id, i.event, i.subject, p.order_id, i.state, text_of(i.body), i.received_at, i.terminal_at
    from inbox i left join payments p on p.id = i.subject;
