//! Every statement of the self-audit that is no promise: what it has seen, and what it stopped.

semel_kernel::statements! {
    SEEN = "select at, entry from audit_seen where name = $1";
    NOTE = "insert into audit_seen (name, at, entry) values ($1, $2, $3)
        on conflict (name) do update set at = excluded.at, entry = excluded.entry where audit_seen.at <= excluded.at";
    LATEST_ENTRY = "select cast(coalesce(max(seq), 0) as bigint) from audit_entry";
    OF_PREDICATE = "select id, state, found from audit_stops where predicate = $1";
    /// Two rounds that find the same at the same moment make one stop.
    STOP = "insert into audit_stops (id, predicate, flows, found, state, at) values ($1, $2, $3, $4, 'open', $5) on conflict do nothing";
    ADD_FOUND = "update audit_stops set found = $2 where id = $1 and state = 'open'";
    OPEN = "select id, predicate, flows from audit_stops where state = 'open' order by id";
    /// The same with the rows shared: who waits because of a stop and who releases it do not pass each other unseen.
    /// SQLite has one writer and nothing to hold.
    OPEN_SHARED = {
        sqlite: "select id, predicate, flows from audit_stops where state = 'open' order by id",
        postgres: "select id, predicate, flows from audit_stops where state = 'open' order by id for share",
    };
    RELEASE = "update audit_stops set state = 'released', released_at = $2, released_by = $3, reason = $4 where id = $1 and state = 'open'";
    FIND = "select id, predicate, flows, found, state, at, released_at, released_by, reason from audit_stops where id = $1";
    LIST = "select id, predicate, flows, found, state, at, released_at, released_by, reason from audit_stops
        where (cast($1 as text) is null or state = $1) and (cast($2 as text) is null or id < $2) order by id desc limit $3";
}
