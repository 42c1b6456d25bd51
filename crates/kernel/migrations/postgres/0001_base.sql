-- The kernel's tables. A running older program does not exist yet, so nothing is seen meanwhile.

create table marks (
    name text primary key,
    value text not null
);

create table inbox (
    id text primary key,
    source text not null,
    account text not null,
    event_id text not null,
    event text not null,
    body_hash text not null,
    body bytea not null,
    headers text not null,
    peer text,
    verified boolean not null,
    subject text,
    says text not null,
    state text not null check (state in ('received', 'applied', 'ignored', 'quarantined')),
    reason text,
    seen bigint not null default 1,
    received_at bigint not null,
    terminal_at bigint,
    unique (source, account, event_id, body_hash)
);

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
    attempts bigint not null default 0,
    max_attempts bigint not null,
    run_at bigint not null,
    pulled boolean not null default false,
    owner text,
    fence bigint not null default 0,
    lease_until bigint,
    claimed_at bigint,
    thread text,
    created_at bigint not null,
    ended_at bigint,
    error text
);

create unique index jobs_slot on jobs (kind, slot) where slot is not null;
create index jobs_due on jobs (lane, run_at, id) where state = 'ready';
create index jobs_held on jobs (lease_until) where state = 'running';
-- Seldom ended so, among millions that are done: for lists. A job that ends well never enters them.
create index jobs_dead on jobs (id) where state = 'dead';
create index jobs_aside on jobs (state, id) where state in ('cancelled', 'parked');

create table history (
    seq bigint generated always as identity primary key,
    at bigint not null,
    entity text not null,
    entity_id text not null,
    n bigint,
    event text not null,
    actor text,
    from_state text,
    to_state text,
    fence bigint,
    took_ms bigint,
    thread text,
    detail text
);

-- The n-th change of a thing happens once.
create unique index history_step on history (entity, entity_id, n);
create index history_thread on history (thread, seq) where thread is not null;

create table lease_terms (
    lease text not null,
    fence bigint not null,
    owner text not null,
    acquired_at bigint not null,
    expires_at bigint not null,
    ended_at bigint,
    end_kind text check (end_kind in ('released', 'expired', 'superseded')),
    ended_by text,
    primary key (lease, fence)
);

-- At most one open term a lease.
create unique index lease_open on lease_terms (lease) where ended_at is null;

create table keys (
    scope text not null,
    key text not null,
    fingerprint text not null,
    state text not null check (state in ('in_flight', 'answered')),
    owner text not null,
    busy_until bigint not null,
    resource text,
    status bigint,
    body bytea,
    created_at bigint not null,
    expires_at bigint,
    primary key (scope, key)
);

create index keys_expiry on keys (expires_at) where expires_at is not null;

create table cron (
    name text primary key,
    expression text not null,
    catch_up text not null check (catch_up in ('skip', 'once', 'all')),
    next_at bigint not null
);

-- The database's clock in milliseconds. Tests replace this function to move time by hand.
create function semel_now() returns bigint language sql stable as $$
    select (extract(epoch from statement_timestamp()) * 1000)::bigint
$$;
