//! Every statement about safe mode.

semel_kernel::statements! {
    RESTORED = "select value from marks where name = 'restored'";
    NOTE_RESTORED = "insert into marks (name, value) values ('restored', $1) on conflict (name) do update set value = excluded.value";
    FORGET_RESTORED = "delete from marks where name = 'restored'";
    READ = "select value from marks where name = 'safe_mode'";
    /// The same with the row shared: who withholds goods because of it and who ends it do not pass each other unseen.
    /// SQLite has one writer and nothing to hold.
    READ_SHARED = {
        sqlite: "select value from marks where name = 'safe_mode'",
        postgres: "select value from marks where name = 'safe_mode' for share",
    };
    /// The same with the row held, for who changes it.
    READ_HELD = {
        sqlite: "select value from marks where name = 'safe_mode'",
        postgres: "select value from marks where name = 'safe_mode' for update",
    };
    KEEP = "insert into marks (name, value) values ('safe_mode', $1) on conflict (name) do update set value = excluded.value";
    LEAVE = "delete from marks where name = 'safe_mode'";
    /// The providers that took or were to take money.
    RAILS = "select distinct provider from payments";
    /// What safe mode put off, by the words that begin its last error. Jobs are the kernel's; nobody else brings many forward
    /// at once.
    HASTEN = "update jobs set run_at = semel_now() where state = 'ready' and run_at > semel_now() and error like $1";
    PUT_OFF = "select kind, count(*) from jobs where state = 'ready' and error like $1 group by kind order by kind";
    RESERVED = "select count(*) from deliveries where state = 'reserved'";
}
