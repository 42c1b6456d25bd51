-- The numbers of the history without `autoincrement`, which writes a second table at every row. Nothing is ever deleted from
-- the history, so its highest number is the highest ever given, and the next one is new without it. A running older program
-- does not exist: a file has one program. The file needs room for the history twice while this step runs.

-- The table is made anew under its own name: SQLite renames none to a name of which views speak.
create table history_before as select * from history order by seq;

drop table history;

create table history (
    seq integer primary key,
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

insert into history select * from history_before order by rowid;

drop table history_before;

-- The n-th change of a thing happens once.
create unique index history_step on history (entity, entity_id, n);
create index history_thread on history (thread, seq) where thread is not null;
