//! Every statement about campaigns, their recipients, and the segments they go to.

/// The language that a customer is written to in: the same rule as `messages::Language::of`.
macro_rules! language {
    () => {
        "case when c.language is null or trim(c.language) = '' or lower(trim(c.language)) like 'ru%' then 'ru' else 'en' end"
    };
}

/// Whether a customer can be written to and wants campaigns.
macro_rules! reachable {
    () => {
        "(c.blocked_at is null and not exists (select 1 from notice_switches w where w.customer = c.id and w.kind = 'campaign'
            and w.is_off = 1))"
    };
}

/// Who belongs to a rule: its conditions are `$1` to `$6`, and what is null asks for nothing.
macro_rules! audience {
    () => {
        concat!(
            " from customers c where (cast($1 as text) is null
            or ($1 = 'active' and exists (select 1 from subscriptions s where s.customer = c.id and s.state in ('trial', 'active', 'grace')))
            or ($1 = 'expired' and exists (select 1 from subscriptions s where s.customer = c.id)
                and not exists (select 1 from subscriptions s where s.customer = c.id and s.state in ('trial', 'active', 'grace', 'frozen')))
            or ($1 = 'never' and not exists (select 1 from subscriptions s where s.customer = c.id)))
            and (cast($2 as text) is null or exists (select 1 from orders o join items i on i.order_id = o.id
                where o.customer = c.id and i.product = $2 and i.refunded < i.quantity
                and o.state in ('paid', 'awaiting_stock', 'partial', 'delivered', 'refund_pending')))
            and (cast($3 as text) is null or not exists (select 1 from orders o join items i on i.order_id = o.id
                where o.customer = c.id and i.product = $3 and i.refunded < i.quantity
                and o.state in ('paid', 'awaiting_stock', 'partial', 'delivered', 'refund_pending')))
            and (cast($4 as text) is null or ",
            language!(),
            " = $4)
            and (cast($5 as text) is null or exists (select 1 from customer_tags t where t.customer = c.id and t.tag = $5))
            and (cast($6 as text) is null or not exists (select 1 from customer_tags t where t.customer = c.id and t.tag = $6))"
        )
    };
}

/// A list of ids as rows `l (value)`, with the customers among them. Each engine opens a list with its own function.
macro_rules! list_sqlite {
    () => {
        " from json_each($1) l left join customers c on c.telegram_id = l.value"
    };
}

macro_rules! list_postgres {
    () => {
        " from (select cast(e.value as bigint) as value from json_array_elements_text(cast($1 as json)) as e (value)) l
            left join customers c on c.telegram_id = l.value"
    };
}

macro_rules! counts {
    () => {
        concat!(
            "select count(*), cast(coalesce(sum(case when ",
            reachable!(),
            " then 1 else 0 end), 0) as bigint), cast(coalesce(sum(case when ",
            reachable!(),
            " and ",
            language!(),
            " = 'ru' then 1 else 0 end), 0) as bigint)"
        )
    };
}

macro_rules! outcome_of_snapshot {
    ($moment:literal) => {
        concat!(
            "case when ",
            reachable!(),
            " then 'queued' else 'skipped' end, case when ",
            reachable!(),
            " then null else 'cannot be written to, or wants no campaigns' end, case when ",
            reachable!(),
            " then null else cast(",
            $moment,
            " as bigint) end"
        )
    };
}

macro_rules! snapshot_list {
    () => {
        concat!(
            "insert into recipients (campaign, chat_id, customer, language, n, state, error, ended_at)
            select cast($2 as text), l.value, c.id, ",
            language!(),
            ", cast($4 as bigint) + row_number() over (order by l.value), ",
            outcome_of_snapshot!("$3")
        )
    };
}

macro_rules! campaign {
    () => {
        "select id, title, state, class, segment, texts, content, previewed, tested, starts_at, snapshot_count, round, fence, refused,
            next_piece_at, reason, version, created_by, created_at, started_at, ended_at, sweep_after, sweep_until from campaigns"
    };
}

semel_kernel::statements! {
    COUNT = { sqlite: concat!(counts!(), audience!()), postgres: concat!(counts!(), audience!()) };
    COUNT_LIST = { sqlite: concat!(counts!(), list_sqlite!()), postgres: concat!(counts!(), list_postgres!()) };
    NEWEST = "select id from customers order by id desc limit 1";
    /// The last of the next customers to look at, and how many they are.
    NEXT_CUSTOMERS = "select max(p.id), count(*) from (select id from customers where id > $1 and id <= $2 order by id limit $3) p";
    /// Those of a rule among these customers, in the order of their ids, which is the one in which they came.
    SNAPSHOT = {
        sqlite: concat!(
            "insert into recipients (campaign, chat_id, customer, language, n, state, error, ended_at)
            select cast($7 as text), c.telegram_id, c.id, ", language!(),
            ", cast($11 as bigint) + row_number() over (order by c.id), ", outcome_of_snapshot!("$8"), audience!(),
            " and c.id > $9 and c.id <= $10"
        ),
        postgres: concat!(
            "insert into recipients (campaign, chat_id, customer, language, n, state, error, ended_at)
            select cast($7 as text), c.telegram_id, c.id, ", language!(),
            ", cast($11 as bigint) + row_number() over (order by c.id), ", outcome_of_snapshot!("$8"), audience!(),
            " and c.id > $9 and c.id <= $10"
        ),
    };
    SNAPSHOT_LIST = {
        sqlite: concat!(snapshot_list!(), list_sqlite!()),
        postgres: concat!(snapshot_list!(), list_postgres!()),
    };

    SEGMENT_INSERT = "insert into segments (id, name, rule, created_at) values ($1, $2, $3, $4) on conflict (name) do nothing";
    SEGMENT_CHANGE = "update segments set rule = $2 where id = $1";
    SEGMENT_FIND = "select id, name, rule, created_at from segments where id = $1 or name = $1
        order by case when id = $1 then 0 else 1 end limit 1";
    SEGMENT_LIST = "select id, name, rule, created_at from segments where name > $1 order by name limit $2";
    TAG = {
        sqlite: "insert into customer_tags (customer, tag, created_at) select c.id, $2, $3 from json_each($1) l
            join customers c on c.telegram_id = l.value where c.id is not null on conflict do nothing",
        postgres: "insert into customer_tags (customer, tag, created_at) select c.id, cast($2 as text), cast($3 as bigint)
            from json_array_elements_text(cast($1 as json)) as l (value)
            join customers c on c.telegram_id = cast(l.value as bigint) on conflict do nothing",
    };
    UNTAG = {
        sqlite: "delete from customer_tags where tag = $2 and customer in (select c.id from json_each($1) l
            join customers c on c.telegram_id = l.value)",
        postgres: "delete from customer_tags where tag = $2 and customer in (select c.id
            from json_array_elements_text(cast($1 as json)) as l (value) join customers c on c.telegram_id = cast(l.value as bigint))",
    };
    TAGGED = "select count(*) from customer_tags where tag = $1";

    INSERT = "insert into campaigns (id, title, state, class, segment, texts, moved_at, created_by, created_at)
        values ($1, $2, 'draft', $3, $4, $5, $6, $7, $6)";
    FIND = { sqlite: concat!(campaign!(), " where id = $1"), postgres: concat!(campaign!(), " where id = $1") };
    /// The row stays held until the transaction ends; SQLite has one writer and nothing to hold.
    LOCK = { sqlite: concat!(campaign!(), " where id = $1"), postgres: concat!(campaign!(), " where id = $1 for update") };
    LIST = {
        sqlite: concat!(campaign!(), " where id < $1 and (cast($2 as text) is null or state = $2) order by id desc limit $3"),
        postgres: concat!(campaign!(), " where id < $1 and (cast($2 as text) is null or state = $2) order by id desc limit $3"),
    };
    /// What it says or to whom: from now on it was neither looked at nor tested.
    CHANGE = "update campaigns set title = $2, class = $3, segment = $4, texts = $5, content = content + 1 where id = $1";
    CHANGED = "update campaigns set content = content + 1 where id = $1";
    /// Only the content that was looked at counts as seen.
    PREVIEWED = "update campaigns set previewed = $2 where id = $1 and content = $2";
    /// Only the content that was sent counts as tested.
    TESTED = "update campaigns set tested = $2 where id = $1 and content = $2";
    MOVE = "update campaigns set state = $3, version = version + 1, reason = $4, moved_at = $5,
        started_at = case when $3 = 'running' then coalesce(started_at, $5) else started_at end,
        ended_at = case when $3 in ('finished', 'cancelled') then $5 else null end where id = $1 and state = $2";
    STARTS_AT = "update campaigns set starts_at = $2 where id = $1";
    ROUND = "update campaigns set round = round + 1 where id = $1";
    /// How many stand there by now, and how far the writing down is.
    SWEPT = "update campaigns set snapshot_count = $2, sweep_after = $3, sweep_until = $4 where id = $1";
    /// Those who are written down and would be written to.
    QUEUED = "select count(*) from recipients where campaign = $1 and state = 'queued'";
    /// Among so many campaigns the pace is shared.
    RUNNING = "select count(*) from campaigns where state = 'running'";
    /// The claim that sends from now on. An older one, which was only slow, sends no more.
    OPEN = "update campaigns set fence = $2 where id = $1 and fence < $2";
    REFUSED = "update campaigns set refused = $2 where id = $1";
    PIECE_TAKEN = "update campaigns set next_piece_at = $2, moved_at = $3 where id = $1";

    MEDIA_DELETE = "delete from campaign_media where campaign = $1";
    MEDIA_INSERT = "insert into campaign_media (campaign, kind, name, mime, bytes, file_id, bot) values ($1, $2, $3, $4, $5, $6, $7)";
    /// Without its content where the bot's own name of it is enough.
    MEDIA = "select kind, name, mime, coalesce(substr(bytes, 1, case when file_id is not null and bot = $2 then 0 else length(bytes) end), bytes),
        file_id, bot from campaign_media where campaign = $1";
    MEDIA_HEAD = "select kind, name, mime, cast(length(bytes) as bigint), file_id is not null from campaign_media where campaign = $1";
    /// Only while it is what was uploaded: meanwhile the owner may have attached another one.
    MEDIA_UPLOADED = "update campaign_media set file_id = $2, bot = $3
        where campaign = $1 and exists (select 1 from campaigns c where c.id = $1 and c.content = $4)";

    /// The next ones in their order, written as being sent before the first call.
    TAKE = "update recipients set state = 'sending', fence = $2, poison = 0 where campaign = $1 and n in
        (select n from recipients where campaign = $1 and state = 'queued' and due <= $3 order by n limit $4)
        returning chat_id, language, n, uncertain";
    NEXT_DUE = "select min(due) from recipients where campaign = $1 and state = 'queued'";
    SENDING = "select count(*) from recipients where campaign = $1 and state = 'sending'";
    ENDED = "select count(*) from recipients where campaign = $1 and state not in ('queued', 'sending')";
    /// Whoever was sending these is no more. What may not go twice stays unknown.
    LOST = "update recipients set state = 'unknown', uncertain = uncertain + 1, ended_at = $2,
        error = 'the program ended while this was being sent: nobody told whether it arrived'
        where campaign = $1 and state = 'sending' and fence < $3";
    /// The same for what may go twice. After the last try it is unknown, too.
    LOST_AGAIN = "update recipients set state = case when uncertain + 1 >= $4 then 'unknown' else 'queued' end,
        ended_at = case when uncertain + 1 >= $4 then cast($2 as bigint) else null end, uncertain = uncertain + 1,
        error = 'the program ended while this was being sent: nobody told whether it arrived'
        where campaign = $1 and state = 'sending' and fence < $3";
    /// What a claim has written as being sent and never called, because it did not learn that it was written. The calls that it
    /// did begin come as one JSON list; each engine opens it with its own function.
    GIVE_BACK = {
        sqlite: "update recipients set state = 'queued' where campaign = $1 and state = 'sending' and fence = $2
            and chat_id not in (select e.value from json_each($3) e)",
        postgres: "update recipients set state = 'queued' where campaign = $1 and state = 'sending' and fence = $2
            and chat_id not in (select cast(e.value as bigint) from json_array_elements_text(cast($3 as json)) as e (value))",
    };
    /// Who may have it from an earlier try of which nobody told us is not known to be without it.
    CANCEL_QUEUED = "update recipients set state = case when uncertain > 0 then 'unknown' else 'cancelled' end, ended_at = $2
        where campaign = $1 and n in (select n from recipients where campaign = $1 and state = 'queued' order by n limit $3)";
    /// What a restored database still had to send at most once may have been sent after the backup.
    FORGET_QUEUED = "update recipients set state = 'unknown', uncertain = uncertain + 1, ended_at = $2,
        error = 'it was queued in the backup: whether it was sent after it is not known'
        where campaign = $1 and state in ('queued', 'sending')";
    /// Nobody got what Telegram refused, so they get what the owner mends. At most so many: who is over stays failed, and
    /// can be sent to again at the end.
    UNPOISON = "update recipients set state = 'queued', ended_at = null, poison = 0, due = 0, fence = 0 where campaign = $1 and n in
        (select n from recipients where campaign = $1 and state = 'failed' and poison = 1 order by n limit $2)";
    /// Until when somebody has to have failed to get it again.
    RESEND_UNTIL = "update campaigns set resend_until = $2 where id = $1";
    /// Who failed for a reason that may be over; who blocked the bot, is gone or may have it does not get it again. What a claim
    /// that was only slow has still to tell is not about this try, so the row is nobody's.
    RESEND = "update recipients set state = 'queued', ended_at = null, error = null, poison = 0, due = 0, fence = 0
        where campaign = $1 and n in (select r.n from recipients r join campaigns c on c.id = r.campaign
            where r.campaign = $1 and r.state = 'failed' and r.uncertain = 0 and r.ended_at <= c.resend_until order by r.n limit $2)";
    /// Whether anybody may be written to now.
    READY = "select n from recipients where campaign = $1 and state = 'queued' and due <= $2 order by n limit 1";
    STATES = "select state, count(*) from recipients where campaign = $1 group by state order by state";
    RECENT = "select count(*) from recipients where campaign = $1 and ended_at > $2 and state <> 'skipped'";
    RECIPIENTS = "select chat_id, language, n, state, telegram_id, error, ended_at from recipients
        where campaign = $1 and n > $2 order by n limit $3";
    /// A text of its own: a plan looks at no parameter, and a million others may stand between two who failed.
    RECIPIENTS_IN = "select chat_id, language, n, state, telegram_id, error, ended_at from recipients
        where campaign = $1 and state = $4 and n > $2 order by n limit $3";
}

/// What became of calls. A claim that was only slow may tell late of a row that counts as unknown, or waits for another try: then
/// the row is known after all. Any other row is not touched.
pub(super) const OUTCOME: semel_kernel::store::ManySql = semel_kernel::store::ManySql {
    sqlite: "update recipients set state = $4, telegram_id = $5, error = $6, due = $7, uncertain = $8, poison = $9, ended_at = $10
        where campaign = $1 and chat_id = $2 and fence = $3 and (state = 'sending' or (state in ('unknown', 'queued') and $4 <> 'queued'))",
    postgres: "update recipients r set state = o.state, telegram_id = o.telegram_id, error = o.error, due = o.due,
        uncertain = o.uncertain, poison = o.poison, ended_at = o.ended_at
        from unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::bigint[], $6::text[], $7::bigint[], $8::bigint[],
            $9::bigint[], $10::bigint[]) as o (campaign, chat_id, fence, state, telegram_id, error, due, uncertain, poison, ended_at)
        where r.campaign = o.campaign and r.chat_id = o.chat_id and r.fence = o.fence
            and (r.state = 'sending' or (r.state in ('unknown', 'queued') and o.state <> 'queued'))",
};

#[cfg(test)]
mod tests {
    use semel_kernel::args;
    use semel_kernel::store::{Expect, Store, StoreError, Value};

    use super::{GIVE_BACK, MEDIA_UPLOADED, OUTCOME};

    const CAMPAIGN: &str =
        "insert into campaigns (id, title, state, class, segment, texts, content, moved_at, created_by, created_at)
        values ('cmp_1', 'Spring', 'running', 'at_least_once', '{}', '{}', 2, 0, 'story', 0)";
    const RECIPIENT: &str = "insert into recipients (campaign, chat_id, language, n, state, fence, uncertain)
        values ('cmp_1', $1, 'ru', $1, $2, $3, 1)";

    /// A campaign with these rows: chat, state and whose claim.
    async fn campaign(store: &Store, rows: &'static [(i64, &'static str, i64)]) {
        let written = store.write("story.campaign", move |tx| {
            tx.execute(CAMPAIGN, &[])?;
            for (chat, state, fence) in rows {
                tx.execute(RECIPIENT, args![*chat, *state, *fence])?;
            }
            Ok::<_, StoreError>(())
        });
        written.await.expect("rows are written");
    }

    /// How the rows stand, in the order of their chats.
    async fn states(store: &Store) -> Vec<String> {
        let rows = store.rows("story.states", "select state from recipients order by n", &[]).await;
        rows.expect("rows").iter().map(|row| row.get(0).expect("a state")).collect()
    }

    /// What the claim `fence` tells of a chat.
    fn told(chat: i64, fence: i64, state: &str) -> Vec<Value> {
        vec![
            Value::from("cmp_1"),
            Value::from(chat),
            Value::from(fence),
            Value::from(state),
            Value::from(Some(70_i64)),
            Value::from(None::<String>),
            Value::from(0_i64),
            Value::from(0_i64),
            Value::from(0_i64),
            Value::from(Some(1_i64)),
        ]
    }

    semel_kernel::each_store! { crate::ROOMS;
        async fn who_was_only_slow_tells_late_and_nobody_gets_it_twice(t: TestStore) {
            let rows = &[(1, "queued", 5), (2, "queued", 5), (3, "queued", 0), (4, "unknown", 5), (5, "cancelled", 5)];
            campaign(&t.store, rows).await;
            let wrote = t.store.write("story.late", |tx| {
                let late = [told(1, 5, "sent"), told(2, 4, "sent"), told(3, 5, "sent"), told(4, 5, "sent"), told(5, 5, "sent")];
                tx.many_later(OUTCOME, late.to_vec(), Expect::Any)?;
                Ok::<_, StoreError>(())
            });
            wrote.await.expect("what was told is written");
            // The second tells of another try, the third waits for a try that somebody asked for.
            assert_eq!(states(&t.store).await, ["sent", "queued", "queued", "sent", "cancelled"]);
        }

        async fn what_was_written_as_being_sent_and_never_called_waits_again(t: TestStore) {
            campaign(&t.store, &[(1, "sending", 5), (2, "sending", 5), (3, "sending", 4), (4, "sent", 5)]).await;
            let given = t.store.write("story.give_back", |tx| tx.execute(GIVE_BACK, args!["cmp_1", 5_i64, "[2]"]));
            let given: Result<u64, StoreError> = given.await;
            assert_eq!(given.expect("rows can be changed"), 1);
            assert_eq!(states(&t.store).await, ["queued", "sending", "sending", "sent"]);
        }

        async fn the_name_of_an_upload_is_not_given_to_another_file(t: TestStore) {
            campaign(&t.store, &[]).await;
            let named = t.store.write("story.upload", |tx| {
                tx.execute(
                    "insert into campaign_media (campaign, kind, name, mime, bytes) values ('cmp_1', 'photo', 'b.png', 'image/png', $1)",
                    args![vec![1_u8]],
                )?;
                let old = tx.execute(MEDIA_UPLOADED, args!["cmp_1", "file_a", "1", 1_i64])?;
                let new = tx.execute(MEDIA_UPLOADED, args!["cmp_1", "file_b", "1", 2_i64])?;
                Ok::<_, StoreError>((old, new))
            });
            assert_eq!(named.await.expect("rows can be changed"), (0, 1), "the first was uploaded before the owner changed it");
        }
    }
}
