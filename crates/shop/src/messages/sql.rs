//! Every statement about messages.

semel_kernel::statements! {
    INSERT = "insert into messages (id, dedup_key, chat_id, class, kind, body, state, order_id, queued_at, place)
        values ($1, $2, $3, $4, $5, $6, 'queued', $7, $8, $9) on conflict (dedup_key) do nothing";
    WRITTEN = "select 1 from messages where dedup_key = $1";
    OLD = "select max(id), count(*) from (select id from messages where id > $1 and id < $2 order by id limit $3) piece";
    FORGET_ANSWERS = "delete from messages where id > $1 and id <= $2 and state in ('sent', 'failed', 'cancelled') and uncertain = 0
        and (kind in ($3, 'reply') or (kind = $4 and dedup_key like $5))";
    /// The number is a chat's own, and a new bot counts from the beginning: the newest one is meant.
    KEY_OF_ALERT = "select dedup_key from messages where kind = 'alert' and chat_id = $1 and telegram_id = $2 order by id desc limit 1";
    /// The next place in the line of a chat. Its moment is never before that of the place before it, whichever transaction
    /// looked at the clock first.
    LINE_UP = "insert into chat_lines (chat_id, place, queued_at) values ($1, 1, $2) on conflict (chat_id) do update set
        place = chat_lines.place + 1, queued_at = case when excluded.queued_at > chat_lines.queued_at then excluded.queued_at
        else chat_lines.queued_at end returning place, queued_at";
    /// Whose turn it is when a message has ended.
    NEXT_IN_LINE = "select id from messages where chat_id = $1 and class = 'ordered' and state = 'queued' and id <> $2
        order by queued_at, place limit 1";
    /// A message, the goods it hands over and how its order stands, as they are now: one statement, because it stands between a paid order and
    /// its customer, and each part of it by a key, whatever the planner knows of the tables (`offset 0` keeps it from choosing).
    LOAD = {
        sqlite: "select m.id, m.chat_id, m.class, m.kind, m.body, m.state, m.uncertain, m.queued_at,
            (select json_group_array(json_array(item, n, title, content)) from (select i.id as item, d.n, i.title, u.content from items i
                join deliveries d on d.item = i.id and d.state <> 'void' join units u on u.id = d.unit
                where m.kind = 'goods' and i.order_id = m.order_id and d.state in ('sending', 'delivered') order by i.position, d.n)),
            (select o.state from orders o where o.id = m.order_id),
            (select max(d.at) from items i join deliveries d on d.item = i.id and d.state <> 'void'
                where m.kind = 'goods' and i.order_id = m.order_id and d.state in ('sending', 'delivered')),
            m.place, (select cast(1 as bigint) from messages p where m.class = 'ordered' and p.class = 'ordered'
                and p.state = 'queued' and p.chat_id = m.chat_id and (p.queued_at, p.place) < (m.queued_at, m.place) limit 1),
            (select c.blocked_at from customers c where c.telegram_id = m.chat_id),
            (select json_group_array(json_array(t.kind, t.language, t.html)) from notice_texts t
                where m.kind = 'goods' and t.kind in ('goods', 'goods_file')),
            (select cast(s.value as bigint) from marks s where s.name = $2)
            from messages m where m.id = $1",
        postgres: "select m.id, m.chat_id, m.class, m.kind, m.body, m.state, m.uncertain, m.queued_at,
            (select coalesce(json_agg(json_build_array(i.id, d.n, i.title, u.content) order by i.position, d.n), '[]')::text from items i
                cross join lateral (select * from deliveries where item = i.id and state <> 'void' offset 0) d
                cross join lateral (select content from units where id = d.unit offset 0) u
                where m.kind = 'goods' and i.order_id = m.order_id and d.state in ('sending', 'delivered')),
            (select o.state from orders o where o.id = m.order_id),
            (select max(d.at) from items i cross join lateral (select * from deliveries where item = i.id and state <> 'void' offset 0) d
                where m.kind = 'goods' and i.order_id = m.order_id and d.state in ('sending', 'delivered')),
            m.place, (select cast(1 as bigint) from messages p where m.class = 'ordered' and p.class = 'ordered'
                and p.state = 'queued' and p.chat_id = m.chat_id and (p.queued_at, p.place) < (m.queued_at, m.place) limit 1),
            (select c.blocked_at from customers c where c.telegram_id = m.chat_id),
            (select coalesce(json_agg(json_build_array(t.kind, t.language, t.html)), '[]')::text from notice_texts t
                where m.kind = 'goods' and t.kind in ('goods', 'goods_file')),
            (select cast(s.value as bigint) from marks s where s.name = $2)
            from messages m where m.id = $1",
    };
    /// What Telegram took, and what was cancelled, stays so: then no row is touched.
    END = "update messages set state = $2, telegram_id = $3, error = $4, uncertain = $5, ended_at = $6
        where id = $1 and state not in ('sent', 'cancelled')";
    UNCLEAR = "update messages set uncertain = $2, error = $3 where id = $1 and state not in ('sent', 'cancelled')";
    MOVE = "update messages set chat_id = $2, uncertain = $3 where id = $1 and state not in ('sent', 'cancelled')";
    /// The slot of a sending job is its message. The worker died in the last try, so nobody knows what became of it.
    BURY = "update messages set state = 'unknown', error = $2, uncertain = uncertain + 1, ended_at = $3
        where state = 'queued' and id in (select slot from jobs where id = $1 and kind = 'message.send')";
    /// Attempts of a job that waits are tries that may have arrived: those that certainly sent nothing were given back.
    RETRIED = "update messages set uncertain = (select attempts from jobs where id = $1) where state = 'queued'
        and id in (select slot from jobs where id = $1 and kind = 'message.send' and state = 'ready')
        and uncertain < (select attempts from jobs where id = $1)";
    /// What somebody sends by hand after its end goes at once: its place in the line of its chat is gone.
    OUT_OF_LINE = "update messages set class = 'at_least_once', place = 0 where class = 'ordered' and state in ('failed', 'unknown')
        and id in (select slot from jobs where id = $1 and kind = 'message.send')";
    /// What a restored database still had to send at most once may have been sent after the backup.
    FORGET_QUEUED = "update messages set state = 'unknown', uncertain = uncertain + 1, ended_at = $1,
        error = 'it was queued in the backup: whether it was sent after it is not known'
        where state = 'queued' and class = 'at_most_once'";
    /// The longer silence stays.
    KEEP_SILENCE = "insert into marks (name, value) values ($1, $2) on conflict (name) do update set value = excluded.value
        where cast(marks.value as bigint) < cast(excluded.value as bigint)";
    /// Silences that are over. Other marks hold other things, so no value is read before its name.
    FORGET_SILENCES = "delete from marks where case when name like 'silence:%' then cast(value as bigint) <= $1 else 1 = 0 end";
    SILENCE = "select cast(value as bigint) from marks where name = $1";
    /// The silences of single chats of one bot.
    SILENT_CHATS = "select name, cast(value as bigint) from marks where name like $1";
    MAY_BE_SEEN = "select 1 from messages where order_id = $1 and kind = 'goods'
        and (state not in ('failed', 'cancelled') or uncertain > 0) limit 1";
    /// Files of an order's devices: those with the customer, and those that may still come.
    FILES_OF_ORDER = "select cast(coalesce(sum(case when state = 'sent' then 1 else 0 end), 0) as bigint),
        cast(coalesce(sum(case when state in ('sent', 'cancelled') then 0 else 1 end), 0) as bigint)
        from messages where order_id = $1 and kind = 'vpn_file'";
    LIST = "select id, kind, state, order_id, uncertain, error, queued_at, ended_at from messages
        where id < $1 and (cast($3 as text) is null or kind = $3) order by id desc limit $2";
    /// Most messages were sent, so the newest of these are found on the way down.
    LIST_SENT = "select id, kind, state, order_id, uncertain, error, queued_at, ended_at from messages
        where state = 'sent' and id < $1 and (cast($3 as text) is null or kind = $3) order by id desc limit $2";
    /// The others are few and have an index of their own.
    LIST_ASIDE = "select id, kind, state, order_id, uncertain, error, queued_at, ended_at from messages
        where state <> 'sent' and state = $4 and id < $1 and (cast($3 as text) is null or kind = $3) order by id desc limit $2";
    UNCERTAIN = "select id, kind, state, order_id, uncertain, error, queued_at, ended_at from messages
        where uncertain > 0 and (cast($1 as bigint) is null or queued_at < $1) order by queued_at desc, id desc limit $2";
    OF_ORDER = "select id, kind, state, order_id, uncertain, error, queued_at, ended_at from messages
        where order_id = $1 order by queued_at, id limit $2";
}
