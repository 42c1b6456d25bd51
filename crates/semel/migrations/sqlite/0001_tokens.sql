-- Bearer tokens of the API, stored as hashes.
create table tokens (
    id text primary key,
    name text not null,
    hash text not null unique,
    scopes text not null,
    created_at integer not null,
    revoked_at integer
) strict;
