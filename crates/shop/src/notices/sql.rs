//! Every statement about the texts of notices and their switches.

semel_kernel::statements! {
    /// The owner's words for a kind, and whether a customer wants none of it: one look for both.
    SAY = "select (select t.html from notice_texts t where t.kind = $1 and t.language = $2),
        (select w.is_off from notice_switches w where w.customer = $3 and w.kind = $1)";
    OWN = "select html from notice_texts where kind = $1 and language = $2";
    TEXTS = "select kind, language, html, version, updated_at from notice_texts order by kind, language";
    SET_TEXT = "insert into notice_texts (kind, language, html, version, updated_at) values ($1, $2, $3, 1, $4)
        on conflict (kind, language) do update set html = excluded.html, version = notice_texts.version + 1,
        updated_at = excluded.updated_at";
    FORGET_TEXT = "delete from notice_texts where kind = $1 and language = $2";
    SWITCH = "insert into notice_switches (customer, kind, is_off, updated_at) values ($1, $2, $3, $4)
        on conflict (customer, kind) do update set is_off = excluded.is_off, updated_at = excluded.updated_at";
    SWITCHES = "select kind from notice_switches where customer = $1 and is_off = 1 order by kind";
}
