//! Every statement about servers, addresses, peers and downloads.

use semel_kernel::store::ManySql;

semel_kernel::statements! {
    /// What the settings say about the local server; whether it is open is the owner's word.
    UPSERT_SERVER = "insert into servers (id, name, interface, endpoint, public_key, dns, mtu, keepalive, allowed_ips, ipv6, amnezia, state, created_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'open', $12)
        on conflict (name) do update set interface = excluded.interface, endpoint = excluded.endpoint, public_key = excluded.public_key,
            dns = excluded.dns, mtu = excluded.mtu, keepalive = excluded.keepalive, allowed_ips = excluded.allowed_ips,
            ipv6 = excluded.ipv6, amnezia = excluded.amnezia
        returning id";
    ADD_SERVER = "insert into servers (id, name, interface, endpoint, public_key, dns, mtu, keepalive, allowed_ips, ipv6, amnezia, state, created_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'open', $12) on conflict (name) do nothing";
    SERVER = "select id, name, interface, endpoint, public_key, dns, mtu, keepalive, allowed_ips, ipv6, amnezia, state, wanted, applied,
        applied_at, trouble, created_at from servers where id = $1";
    SERVER_NAMED = "select id, name, interface, endpoint, public_key, dns, mtu, keepalive, allowed_ips, ipv6, amnezia, state, wanted, applied,
        applied_at, trouble, created_at from servers where name = $1";
    SERVERS = "select id, name, interface, endpoint, public_key, dns, mtu, keepalive, allowed_ips, ipv6, amnezia, state, wanted, applied,
        applied_at, trouble, created_at from servers order by created_at, id";
    SET_SERVER_STATE = "update servers set state = $2 where id = $1";
    BUMP = "update servers set wanted = wanted + 1 where id = $1 returning applied";
    /// `$3` is null where peers were not taken away: then nothing is known of those that should have gone.
    APPLIED = "update servers set applied = $2, applied_at = coalesce(cast($3 as bigint), applied_at), trouble = null where id = $1 returning wanted";
    FIRST_TROUBLE = "update servers set trouble = $2 where id = $1 and trouble is null";
    SET_TROUBLE = "update servers set trouble = $2 where id = $1";

    ADD_POOL = "insert into pools (id, server, network, family, size, created_at) values ($1, $2, $3, $4, $5, $6)
        on conflict (server, network) do nothing";
    POOLS = "select id, network, family, size, created_at from pools where server = $1 order by created_at, id";
    SIZE_POOL = "update pools set size = $2 where id = $1 and size <> $2";
    POOL_IPS = "select ip, n from addresses where pool = $1";
    EMPTY_POOL = "delete from addresses where pool = $1 and state = 'free'";
    /// Families of which a subscription gets an address: those of pools that give addresses out.
    FAMILIES = "select distinct family from pools where server = $1 and size > 0 order by family";
    /// How much of each family is used. What is left of a pool that gives out no more counts nowhere.
    USAGE = "select s.id, s.name, f.family, f.size,
            (select count(*) from addresses a where a.server = s.id and a.family = f.family and a.state = 'free')
        from servers s join (select p.server as server, p.family as family, cast(sum(p.size) as bigint) as size
            from pools p where p.size > 0 group by p.server, p.family) f on f.server = s.id
        order by s.name, f.family";

    /// Only addresses of a pool that is laid out, and none that was excluded since.
    ///
    /// PostgreSQL skips addresses that another order is taking, and picks first because a subquery with a limit may run
    /// more than once there; SQLite has one writer and nothing to skip.
    CLAIM = {
        sqlite: "update addresses set state = 'held', peer = null, since = $3, until = null where server = $1
            and ip in (select a.ip from addresses a where a.server = $1 and a.family = $2 and a.state = 'free' and a.n >= 0
                and (select p.size from pools p where p.id = a.pool) > 0 order by a.since, a.n limit $4) returning ip",
        postgres: "with picked as materialized (select a.server, a.ip from addresses a where a.server = $1 and a.family = $2 and a.state = 'free'
                and a.n >= 0 and (select p.size from pools p where p.id = a.pool) > 0 order by a.since, a.n limit $4 for update of a skip locked)
            update addresses a set state = 'held', peer = null, since = $3, until = null from picked
            where a.server = picked.server and a.ip = picked.ip returning a.ip",
    };
    /// The same for the last ones: PostgreSQL waits for other orders, which may yet give theirs back.
    CLAIM_LAST = {
        sqlite: "update addresses set state = 'held', peer = null, since = $3, until = null where server = $1
            and ip in (select a.ip from addresses a where a.server = $1 and a.family = $2 and a.state = 'free' and a.n >= 0
                and (select p.size from pools p where p.id = a.pool) > 0 order by a.since, a.n limit $4) returning ip",
        postgres: "with picked as materialized (select a.server, a.ip from addresses a where a.server = $1 and a.family = $2 and a.state = 'free'
                and a.n >= 0 and (select p.size from pools p where p.id = a.pool) > 0 order by a.since, a.n limit $4 for update of a)
            update addresses a set state = 'held', peer = null, since = $3, until = null from picked
            where a.server = picked.server and a.ip = picked.ip returning a.ip",
    };
    ADDRESS_STATE = "select state, peer from addresses where server = $1 and ip = $2";
    /// One certain address, for a peer that has it already outside of the database.
    CLAIM_THIS = "update addresses set state = 'held', peer = $3, since = $4, until = null where server = $1 and ip = $2
        and (state = 'free' or (state = 'held' and peer is null))";
    /// What a hand kept back, and what foreign peers have, is held by nobody of ours.
    UNRESERVE = "update addresses set state = 'quarantine', since = $3, until = $4 where server = $1 and ip = $2 and state = 'held' and peer is null";
    /// Addresses that are kept for peers that are not ours.
    RESERVED = "select ip from addresses where server = $1 and state = 'held' and peer is null";
    /// First in line for the claim that follows in the same transaction.
    FIRST_IN_LINE = "update addresses set state = 'free', since = 0, until = null where server = $1 and ip = $2
        and (state = 'free' or (state = 'held' and peer is null))";
    REST = "update addresses set state = 'quarantine', peer = null, since = $3, until = $4
        where server = $1 and ip in (select ip from peer_addresses where peer = $2 and freed_at is null)";
    LEAVE_ADDRESSES = "update peer_addresses set freed_at = $2 where peer = $1 and freed_at is null";
    /// An address comes free only when its server is as wanted, or was so since it was freed: until then the old peer may be there.
    FREE_RESTED = "update addresses set state = 'free', since = $1, until = null where state = 'quarantine' and until <= $1
        and exists (select 1 from servers s where s.id = addresses.server and (s.applied = s.wanted or s.applied_at > addresses.since))
        and n >= 0 and exists (select 1 from pools p where p.id = addresses.pool and p.size > 0)";
    DROP_RESTED = "delete from addresses where state = 'quarantine' and until <= $1
        and exists (select 1 from servers s where s.id = addresses.server and (s.applied = s.wanted or s.applied_at > addresses.since))
        and (n < 0 or exists (select 1 from pools p where p.id = addresses.pool and p.size = 0))";
    /// Those whose server is not as wanted come free after its next apply, which asks this again.
    NEXT_RESTED = "select min(a.until) from addresses a join servers s on s.id = a.server
        where a.state = 'quarantine' and (s.applied = s.wanted or s.applied_at > a.since)";
    NEXT_STICKY = "select min(sticky_until) from peers where state = 'sticky'";
    STICKY_OVER = "select id from peers where state = 'sticky' and sticky_until <= $1 order by sticky_until, id limit $2";
    /// Addresses by their text, after `$3`: of one state, or of all.
    LIST_ADDRESSES = "select a.ip, a.family, a.state, a.peer, a.since, a.until, p.subscription, p.device, c.telegram_id
        from addresses a left join peers p on p.id = a.peer left join subscriptions s on s.id = p.subscription
            left join customers c on c.id = s.customer
        where a.server = $1 and (cast($2 as text) is null or a.state = $2) and (cast($3 as text) is null or a.ip > $3)
        order by a.ip limit $4";
    WHO_NOW = "select v.name, a.state, a.peer, a.since, a.until from servers v join addresses a on a.server = v.id and a.ip = $1
        order by v.name";
    WHO_EVER = "select v.name, t.peer, t.since, t.freed_at, p.subscription, p.device, p.public_key, p.state, c.telegram_id
        from peer_addresses t join peers p on p.id = t.peer join servers v on v.id = t.server
            join subscriptions s on s.id = p.subscription join customers c on c.id = s.customer
        where t.ip = $1 order by t.since desc, t.peer desc limit $2";

    /// Its number is the next one of its customer, over all subscriptions and for ever: no two files have one name.
    ADD_PEER = "insert into peers (id, subscription, server, device, public_key, private_key, preshared_key, state, version, created_at, number)
        values ($1, $2, $3, $4, $5, $6, $7, 'pending', 1, $8, (select coalesce(max(p.number), 0) + 1
            from subscriptions s join subscriptions t on t.customer = s.customer join peers p on p.subscription = t.id where s.id = $2))";
    PEER = "select id, subscription, server, device, public_key, private_key is null, state, fate, version, created_at, sticky_until, freed_at,
        first_handshake_at, last_handshake_at, received, sent from peers where id = $1";
    PEER_HELD = {
        sqlite: "select id, subscription, server, device, public_key, private_key is null, state, fate, version, created_at, sticky_until, freed_at,
            first_handshake_at, last_handshake_at, received, sent from peers where id = $1",
        postgres: "select id, subscription, server, device, public_key, private_key is null, state, fate, version, created_at, sticky_until, freed_at,
            first_handshake_at, last_handshake_at, received, sent from peers where id = $1 for update",
    };
    PEERS_OF = "select id, subscription, server, device, public_key, private_key is null, state, fate, version, created_at, sticky_until, freed_at,
        first_handshake_at, last_handshake_at, received, sent from peers where subscription = $1 and state <> 'freed' order by device";
    PEERS_OF_HELD = {
        sqlite: "select id, subscription, server, device, public_key, private_key is null, state, fate, version, created_at, sticky_until, freed_at,
            first_handshake_at, last_handshake_at, received, sent from peers where subscription = $1 and state <> 'freed' order by device",
        postgres: "select id, subscription, server, device, public_key, private_key is null, state, fate, version, created_at, sticky_until, freed_at,
            first_handshake_at, last_handshake_at, received, sent from peers where subscription = $1 and state <> 'freed' order by device for update",
    };
    /// Peers, the newest first: of a server, in a state, below the id `$3`.
    LIST_PEERS = "select id, subscription, server, device, public_key, private_key is null, state, fate, version, created_at, sticky_until, freed_at,
        first_handshake_at, last_handshake_at, received, sent from peers
        where (cast($1 as text) is null or server = $1) and (cast($2 as text) is null or state = $2) and (cast($3 as text) is null or id < $3)
        order by id desc limit $4";
    ADVANCE_PEER = "update peers set state = $3, version = version + 1, fate = $4, sticky_until = $5, freed_at = $6,
        private_key = case when $3 = 'freed' then null else private_key end where id = $1 and version = $2";
    SET_FATE = "update peers set fate = $2 where id = $1 and state = 'removing'";
    KEY_TAKEN = "select id from peers where server = $1 and public_key = $2 and state <> 'freed'";
    ADD_PEER_ADDRESS = "insert into peer_addresses (peer, server, ip, family, since) values ($1, $2, $3, $4, $5)";
    PEER_ADDRESSES = "select ip from peer_addresses where peer = $1 and freed_at is null order by family, ip";
    PEER_ADDRESSES_EVER = "select ip from peer_addresses where peer = $1 order by family, ip";
    /// Addresses that a peer got in this transaction and shall not have.
    FORGET_PEER_ADDRESSES = "delete from peer_addresses where peer = $1";
    /// Keys that a customer's device has already, since before the peer was made here: nobody has to be sent a file.
    TAKE_OVER = "update peers set public_key = $2, private_key = null, preshared_key = $3, given_at = $4
        where id = $1 and version = 1 and state = 'pending'";
    /// What the sealing key opens, of every device that is not over.
    SECRETS = "select id, subscription, private_key, preshared_key, given_at is not null from peers where state <> 'freed'
        order by subscription, device";
    /// A device goes on with its own copy of a key that is lost here.
    FORGET_PRIVATE = "update peers set private_key = null, preshared_key = $2 where id = $1";
    /// Which key seals in this database, at the owner's word.
    SET_KEY = "insert into marks (name, value) values ('vpn_key', $1) on conflict (name) do update set value = excluded.value";
    CONNECTED_ONCE = "select 1 from peers where subscription = $1 and first_handshake_at is not null limit 1";

    WANTED = "select p.id, p.version, p.state, p.public_key, p.preshared_key, p.device, c.telegram_id, a.ip,
            p.state = 'pending' and p.version = 1 and p.private_key is null and p.given_at is null
        from peers p join subscriptions s on s.id = p.subscription join customers c on c.id = s.customer
            left join peer_addresses a on a.peer = p.id and a.freed_at is null
        where p.server = $1 and p.state in ('pending', 'active') order by p.id, a.family, a.ip";
    REMOVING = "select id, version, public_key from peers where server = $1 and state = 'removing' order by id";
    /// Keys that are ours or ever were: only these may be taken off the interface.
    OURS = "select public_key from peers where server = $1";
    WAS_OURS = "select 1 from peers where server = $1 and public_key = $2 limit 1";
    COUNTERS = "select id, public_key, state, first_handshake_at, last_handshake_at, received, sent, seen_received, seen_sent
        from peers where server = $1 and state in ('pending', 'active', 'removing') order by id";
    SAMPLES = "select v.interface, p.id, p.public_key, p.device, c.telegram_id, p.received, p.sent, p.last_handshake_at, a.ip
        from servers v join peers p on p.server = v.id join subscriptions s on s.id = p.subscription join customers c on c.id = s.customer
            left join peer_addresses a on a.peer = p.id and a.freed_at is null
        where p.state in ('pending', 'active') order by p.id, a.family, a.ip";
    FILE_OF = "select p.server, p.number, p.private_key, p.preshared_key, p.state, c.telegram_id
        from peers p join subscriptions s on s.id = p.subscription join customers c on c.id = s.customer where p.id = $1";

    ADD_DOWNLOAD = "insert into downloads (token_hash, peer, form, expires_at, created_at) values ($1, $2, $3, $4, $5)";
    /// Once: who comes second finds it used.
    USE_DOWNLOAD = "update downloads set used_at = $2 where token_hash = $1 and used_at is null and expires_at > $2 returning peer, form";
    WORKING_DOWNLOAD = "select 1 from downloads where token_hash = $1 and used_at is null and expires_at > $2";
    OLD_DOWNLOADS = "delete from downloads where expires_at < $1";
}

/// Addresses of a pool. One that is there already, in this pool or in another, is left alone.
pub(super) const ADD_ADDRESSES: ManySql = ManySql {
    sqlite: "insert into addresses (server, ip, n, pool, family, state, since) values ($1, $2, $3, $4, $5, 'free', $6)
        on conflict (server, ip) do nothing",
    postgres: "insert into addresses (server, ip, n, pool, family, state, since)
        select a.server, a.ip, a.n, a.pool, a.family, 'free', a.since
        from unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[]) as a (server, ip, n, pool, family, since)
        on conflict (server, ip) do nothing",
};

/// Addresses that are given out no more, as far as nobody has them.
pub(super) const DROP_FREE: ManySql = ManySql {
    sqlite: "delete from addresses where server = $1 and ip = $2 and state = 'free'",
    postgres: "delete from addresses a using unnest($1::text[], $2::text[]) as u (server, ip)
        where a.server = u.server and a.ip = u.ip and a.state = 'free'",
};

/// Gives addresses their place in the order; below zero for those that are given out no more once they are free.
pub(super) const PLACE: ManySql = ManySql {
    sqlite: "update addresses set n = $3 where server = $1 and ip = $2",
    postgres: "update addresses a set n = u.n from unnest($1::text[], $2::text[], $3::bigint[]) as u (server, ip, n)
        where a.server = u.server and a.ip = u.ip",
};

/// Gives back addresses that no foreign peer has any more, through a quarantine until `$4`.
pub(super) const GIVE_BACK_RESERVED: ManySql = ManySql {
    sqlite: "update addresses set state = 'quarantine', since = $3, until = $4 where server = $1 and ip = $2 and state = 'held' and peer is null",
    postgres: "update addresses a set state = 'quarantine', since = u.since, until = u.until
        from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) as u (server, ip, since, until)
        where a.server = u.server and a.ip = u.ip and a.state = 'held' and a.peer is null",
};

/// Addresses that were claimed for nothing.
pub(super) const GIVE_BACK: ManySql = ManySql {
    sqlite: "update addresses set state = 'free', peer = null, since = $3 where server = $1 and ip = $2",
    postgres: "update addresses a set state = 'free', peer = null, since = u.since
        from unnest($1::text[], $2::text[], $3::bigint[]) as u (server, ip, since) where a.server = u.server and a.ip = u.ip",
};

/// Names the peer of claimed addresses.
pub(super) const GIVE_TO: ManySql = ManySql {
    sqlite: "update addresses set peer = $3 where server = $1 and ip = $2 and state = 'held' and peer is null",
    postgres:
        "update addresses a set peer = u.peer from unnest($1::text[], $2::text[], $3::text[]) as u (server, ip, peer)
        where a.server = u.server and a.ip = u.ip and a.state = 'held' and a.peer is null",
};

/// Keeps free addresses from being given out: a peer that is not ours has them.
pub(super) const RESERVE: ManySql = ManySql {
    sqlite: "update addresses set state = 'held', peer = null, since = $3, until = null where server = $1 and ip = $2
        and state in ('free', 'quarantine') returning ip",
    postgres: "update addresses a set state = 'held', peer = null, since = u.since, until = null
        from unnest($1::text[], $2::text[], $3::bigint[]) as u (server, ip, since)
        where a.server = u.server and a.ip = u.ip and a.state in ('free', 'quarantine') returning a.ip",
};

/// Peers that the interface has. One that changed meanwhile is left to the next apply.
pub(super) const NOW_ACTIVE: ManySql = ManySql {
    sqlite:
        "update peers set state = 'active', version = version + 1 where id = $1 and version = $2 and state = 'pending'
        returning id, version, subscription",
    postgres: "update peers p set state = 'active', version = p.version + 1
        from unnest($1::text[], $2::bigint[]) as u (id, version)
        where p.id = u.id and p.version = u.version and p.state = 'pending' returning p.id, p.version, p.subscription",
};

/// Peers that the interface has no more: `$3` is now, `$4` until when those are kept that may come back. The interface counts
/// from zero when they do.
pub(super) const NOW_GONE: ManySql = ManySql {
    sqlite: "update peers set state = fate, version = version + 1, sticky_until = case when fate = 'sticky' then $4 end,
        freed_at = case when fate = 'freed' then $3 end, private_key = case when fate = 'freed' then null else private_key end,
        seen_received = 0, seen_sent = 0
        where id = $1 and version = $2 and state = 'removing' returning id, version, state, server, subscription",
    postgres: "update peers p set state = p.fate, version = p.version + 1, sticky_until = case when p.fate = 'sticky' then u.sticky_until end,
        freed_at = case when p.fate = 'freed' then u.now end, private_key = case when p.fate = 'freed' then null else p.private_key end,
        seen_received = 0, seen_sent = 0
        from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) as u (id, version, now, sticky_until)
        where p.id = u.id and p.version = u.version and p.state = 'removing' returning p.id, p.version, p.state, p.server, p.subscription",
};

/// What the interface has counted.
pub(super) const COUNT: ManySql = ManySql {
    sqlite: "update peers set first_handshake_at = coalesce(first_handshake_at, $2), last_handshake_at = $3, received = $4, sent = $5,
        seen_received = $6, seen_sent = $7 where id = $1",
    postgres: "update peers p set first_handshake_at = coalesce(p.first_handshake_at, u.first), last_handshake_at = u.last,
        received = u.received, sent = u.sent, seen_received = u.seen_received, seen_sent = u.seen_sent
        from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
            as u (id, first, last, received, sent, seen_received, seen_sent) where p.id = u.id",
};
