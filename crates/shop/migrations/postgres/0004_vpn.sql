-- VPN access: servers and their addresses, subscriptions and what was paid for them, peers with their keys. A running older
-- program sees new tables that it does not use.

create table servers (
    id text primary key,
    name text not null unique,
    interface text not null,
    endpoint text not null,
    public_key text not null,
    -- A list with commas.
    dns text not null,
    mtu bigint,
    keepalive bigint not null,
    allowed_ips text not null,
    ipv6 text not null check (ipv6 in ('off', 'routed', 'blocked')),
    -- The parameters of AmneziaWG, as JSON.
    amnezia text,
    state text not null check (state in ('open', 'closed')),
    -- Grows with every change of the wanted peers; `applied` is the one that the applier brought about.
    wanted bigint not null default 0,
    applied bigint not null default 0,
    applied_at bigint,
    -- Why the last apply failed.
    trouble text,
    created_at bigint not null
);

create table pools (
    id text primary key,
    server text not null references servers (id),
    network text not null,
    family bigint not null check (family in (4, 6)),
    size bigint not null,
    created_at bigint not null,
    unique (server, network)
);

-- Every address that may be given out; a reserved one has no row.
create table addresses (
    server text not null references servers (id),
    ip text not null,
    -- The order within the server.
    n bigint not null,
    pool text not null references pools (id),
    family bigint not null check (family in (4, 6)),
    state text not null check (state in ('free', 'held', 'quarantine')),
    peer text,
    since bigint not null,
    -- The end of a quarantine.
    until bigint,
    primary key (server, ip)
);

create index addresses_free on addresses (server, family, since, n) where state = 'free';
create index addresses_rest on addresses (until) where state = 'quarantine';

create table subscriptions (
    id text primary key,
    customer text not null references customers (id),
    product text references products (id),
    server text not null references servers (id),
    state text not null check (state in ('trial', 'active', 'grace', 'expired', 'frozen', 'revoked')),
    paid_until bigint not null,
    -- When `paid_until` got its value: a reminder of a moment before it is none.
    since bigint not null,
    frozen_at bigint,
    devices bigint not null check (devices between 1 and 10),
    version bigint not null default 0,
    -- Which of its clocks runs, by number: a job that ended is never begun again.
    clock bigint not null default 0,
    created_at bigint not null,
    -- When it expired or was revoked.
    ended_at bigint
);

create index subscriptions_customer on subscriptions (customer, id);
create index subscriptions_state on subscriptions (state, paid_until);

-- Once per person, for ever.
create table trials (
    customer text primary key references customers (id),
    subscription text not null references subscriptions (id),
    created_at bigint not null
);

create table periods (
    id text primary key,
    subscription text not null references subscriptions (id),
    -- Null for a trial and for what the owner gave.
    item text unique references items (id),
    kind text not null check (kind in ('trial', 'sale', 'hand')),
    seconds bigint not null check (seconds > 0),
    -- Seconds that refunds took back.
    taken bigint not null default 0 check (taken >= 0 and taken <= seconds),
    reason text,
    created_at bigint not null
);

create index periods_subscription on periods (subscription);

create table peers (
    id text primary key,
    subscription text not null references subscriptions (id),
    server text not null references servers (id),
    device bigint not null,
    public_key text not null,
    -- Sealed; null when the key is the customer's own.
    private_key text,
    -- Sealed.
    preshared_key text not null,
    state text not null check (state in ('pending', 'active', 'removing', 'sticky', 'freed')),
    -- What follows `removing`.
    fate text not null default 'sticky' check (fate in ('sticky', 'freed')),
    version bigint not null default 0,
    created_at bigint not null,
    -- When its file was first handed over.
    given_at bigint,
    sticky_until bigint,
    freed_at bigint,
    first_handshake_at bigint,
    last_handshake_at bigint,
    received bigint not null default 0,
    sent bigint not null default 0,
    seen_received bigint not null default 0,
    seen_sent bigint not null default 0
);

-- One holder of a key, one peer for each device.
create unique index peers_key on peers (server, public_key) where state <> 'freed';
create unique index peers_device on peers (subscription, device) where state <> 'freed';
create index peers_subscription on peers (subscription);
create index peers_server on peers (server, state);
create index peers_sticky on peers (sticky_until) where state = 'sticky';

-- Who had which address when.
create table peer_addresses (
    peer text not null references peers (id),
    server text not null references servers (id),
    ip text not null,
    family bigint not null check (family in (4, 6)),
    since bigint not null,
    freed_at bigint,
    primary key (peer, ip)
);

create unique index peer_addresses_live on peer_addresses (server, ip) where freed_at is null;
create index peer_addresses_ip on peer_addresses (ip, since);

-- Links that give one file once.
create table downloads (
    token_hash text primary key,
    peer text not null references peers (id),
    form text not null,
    expires_at bigint not null,
    used_at bigint,
    created_at bigint not null
);

create index downloads_peer on downloads (peer);

create view audit_sub (sub_id, user_id, state, paid_until) as
    select id, customer, case when state = 'trial' then 'active' else state end, paid_until from subscriptions;

-- One row for each address that a peer has or had. An address that went is freed, whatever its peer is now.
create view audit_peer (peer_id, sub_id, server, ip, pubkey, state, created_at, freed_at) as
    select p.id, p.subscription, p.server, a.ip, p.public_key, case when a.freed_at is null then p.state else 'freed' end,
        a.since, a.freed_at
    from peer_addresses a join peers p on p.id = a.peer;

-- What owners of older bots knew as a table: one row for each address, with who has it.
create view vpn_ip_pool (ip, server, user_id, peer_id, public_key, status, allocated_at) as
    select a.ip, a.server, c.telegram_id, p.id, p.public_key, a.state, case when p.id is null then null else a.since end
    from addresses a
        left join peers p on p.id = a.peer and a.state = 'held'
        left join subscriptions s on s.id = p.subscription
        left join customers c on c.id = s.customer;
