//! The statements about who may pay, and about the bot's list of transactions.

semel_kernel::statements! {
    /// Lets one question through at a time: no row when another one was since the moment $4. The same question passes again.
    RESERVE = "insert into star_checkouts (payment, question, approved_at) values ($1, $2, $3)
        on conflict (payment) do update set question = excluded.question, approved_at = excluded.approved_at
        where star_checkouts.question = excluded.question or star_checkouts.approved_at < $4";
    BOOKMARK = "select cast(value as bigint) from marks where name = $1";
    FIRST_LOOK = "insert into marks (name, value) values ($1, $2) on conflict (name) do nothing";
    /// It only moves on: places in the list never change. Other marks hold other things, so only this one's value is read.
    KEEP = "insert into marks (name, value) values ($1, $2) on conflict (name) do update set value = excluded.value
        where cast(marks.value as bigint) < cast(excluded.value as bigint)";
}
