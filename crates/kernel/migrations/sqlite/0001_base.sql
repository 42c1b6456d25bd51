-- The kernel's tables. A running older program does not exist yet, so nothing is seen meanwhile.

create table marks (
    name text primary key,
    value text not null
) strict;

create table inbox (
    id text primary key,
    source text not null,
    account text not null,
    event_id text not null,
    event text not null,
    body_hash text not null,
    body blob not null,
    headers text not null,
    peer text,
    verified integer not null,
    subject text,
    says text not null,
    state text not null check (state in ('received', 'applied', 'ignored', 'quarantined')),
    reason text,
    seen integer not null default 1,
    received_at integer not null,
    terminal_at integer,
    unique (source, account, event_id, body_hash)
) strict;

-- One live row an event; a second body with the same id is kept beside it as ignored.
create unique index inbox_live on inbox (source, account, event_id) where state in ('received', 'applied');
create index inbox_subject on inbox (subject, received_at) where subject is not null;
create index inbox_open on inbox (source) where state = 'received';
-- Seldom ended so: for the lists of what a person has to look at. A notice that ends well never enters it.
create index inbox_aside on inbox (state, id) where state in ('ignored', 'quarantined');

create table jobs (
    id text primary key,
    kind text not null,
    slot text,
    lane text not null,
    payload text not null,
    manner text,
    request_hash text,
    outcome text,
    state text not null check (state in ('ready', 'running', 'done', 'dead', 'cancelled', 'parked')),
    attempts integer not null default 0,
    max_attempts integer not null,
    run_at integer not null,
    pulled integer not null default 0,
    owner text,
    fence integer not null default 0,
    lease_until integer,
    claimed_at integer,
    thread text,
    created_at integer not null,
    ended_at integer,
    error text
) strict;

create unique index jobs_slot on jobs (kind, slot) where slot is not null;
create index jobs_due on jobs (lane, run_at, id) where state = 'ready';
create index jobs_held on jobs (lease_until) where state = 'running';
-- Seldom ended so, among millions that are done: for lists. A job that ends well never enters them.
create index jobs_dead on jobs (id) where state = 'dead';
create index jobs_aside on jobs (state, id) where state in ('cancelled', 'parked');

create table history (
    seq integer primary key autoincrement,
    at integer not null,
    entity text not null,
    entity_id text not null,
    n integer,
    event text not null,
    actor text,
    from_state text,
    to_state text,
    fence integer,
    took_ms integer,
    thread text,
    detail text
) strict;

-- The n-th change of a thing happens once.
create unique index history_step on history (entity, entity_id, n);
create index history_thread on history (thread, seq) where thread is not null;

create table lease_terms (
    lease text not null,
    fence integer not null,
    owner text not null,
    acquired_at integer not null,
    expires_at integer not null,
    ended_at integer,
    end_kind text check (end_kind in ('released', 'expired', 'superseded')),
    ended_by text,
    primary key (lease, fence)
) strict;

-- At most one open term a lease.
create unique index lease_open on lease_terms (lease) where ended_at is null;

create table keys (
    scope text not null,
    key text not null,
    fingerprint text not null,
    state text not null check (state in ('in_flight', 'answered')),
    owner text not null,
    busy_until integer not null,
    resource text,
    status integer,
    body blob,
    created_at integer not null,
    expires_at integer,
    primary key (scope, key)
) strict;

create index keys_expiry on keys (expires_at) where expires_at is not null;

create table cron (
    name text primary key,
    expression text not null,
    catch_up text not null check (catch_up in ('skip', 'once', 'all')),
    next_at integer not null
) strict;
