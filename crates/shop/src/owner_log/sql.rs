//! Every statement of the log.

semel_kernel::statements! {
    /// Who appends holds the last link until the commit; SQLite has one writer and nothing to hold.
    HEAD_HELD = { sqlite: "select seq, hash from audit_head where id = 1", postgres: "select seq, hash from audit_head where id = 1 for update" };
    HEAD = "select seq, hash from audit_head where id = 1";
    MOVE_HEAD = "update audit_head set seq = $1, hash = $2 where id = 1 and seq = $3";
    APPEND = "insert into audit_entries (seq, prev_hash, hash, actor, action, subject, detail, at) values ($1, $2, $3, $4, $5, $6, $7, $8)";
    AFTER = "select seq, prev_hash, hash, actor, action, subject, detail, at from audit_entries where seq > $1 order by seq limit $2";
    BELOW = "select seq, prev_hash, hash, actor, action, subject, detail, at from audit_entries where seq < $1 order by seq desc limit $2";
}
