-- The self-audit: what it has seen, what it stopped, and the owner's actions as a chain. A running older program sees new
-- tables that it does not use.

-- Up to where each round of the self-audit has looked: a moment, and the last entry of the books.
create table audit_seen (
    name text primary key,
    at bigint not null,
    entry bigint not null
);

-- A broken promise, and the flows of money that wait until the owner releases it. Rows are kept for ever: what was released
-- once is known and stops nothing again.
create table audit_stops (
    id text primary key,
    predicate text not null,
    -- `sales`, `deliveries`, `refunds`, `payouts`, several with commas; empty where a broken promise only alerts.
    flows text not null,
    -- The rows that break it, as a JSON list of texts.
    found text not null,
    state text not null check (state in ('open', 'released')),
    at bigint not null,
    released_at bigint,
    released_by text,
    reason text,
    check (state = 'open' or (released_at is not null and released_by is not null and reason is not null))
);

-- One open stop for each promise.
create unique index audit_stops_open on audit_stops (predicate) where state = 'open';
create index audit_stops_predicate on audit_stops (predicate);

-- The owner's actions. `hash` covers the row and the hash before it; see docs/audit.md.
create table audit_entries (
    seq bigint primary key,
    prev_hash text not null,
    hash text not null,
    actor text not null,
    action text not null,
    subject text not null,
    detail text not null,
    at bigint not null
);

-- The last link. Who appends holds this row, so the chain has no forks.
create table audit_head (
    id bigint primary key check (id = 1),
    seq bigint not null,
    hash text not null
);

insert into audit_head (id, seq, hash) values
    (1, 0, '0000000000000000000000000000000000000000000000000000000000000000');

-- Entries never change.
create trigger audit_entries_fixed before update or delete on audit_entries for each row execute function refuse_change();

create view audit_log (seq, prev_hash, hash, actor, action, at) as
    select seq, prev_hash, hash, actor, action, at from audit_entries;

-- Refunds are few; with this the self-audit finds those of one payment without reading the books.
create index postings_refund on postings (provider, merchant, provider_payment_id) where kind = 'refund';
