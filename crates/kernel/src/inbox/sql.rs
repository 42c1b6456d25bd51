//! Every statement of the inbox.

use crate::store::ManySql;

crate::statements! {
    /// By the subject alone: an index of everything that waits looks small to a planner, and is long when it matters.
    APPLY = "update inbox set state = 'applied', terminal_at = $3
        where subject = $1 and state || '' = 'received' and verified and received_at <= $2";
    END = "update inbox set state = $2, reason = $3, terminal_at = $4 where id = $1 and state = 'received'";
    NAME = "update inbox set subject = $2 where id = $1";
    SAYS = "select says, state from inbox where id = $1";
    FIND = "select id, source, account, event_id, event, subject, body, state, reason, seen, received_at, terminal_at from inbox where id = $1";
    ABOUT = "select id, source, account, event_id, event, subject, body, state, reason, seen, received_at, terminal_at from inbox
        where subject = $1 order by received_at, id limit $2";
    /// Lists, the newest first. A plan looks at no parameter, so what has a partial index stands in a text of its own. Most
    /// notices are applied: walking back over the keys meets those at once.
    LIST = "select id, source, account, event_id, event, subject, body, state, reason, seen, received_at, terminal_at from inbox
        where id < $1 order by id desc limit $2";
    LIST_APPLIED = "select id, source, account, event_id, event, subject, body, state, reason, seen, received_at, terminal_at from inbox
        where state = 'applied' and id < $1 order by id desc limit $2";
    LIST_ASIDE = "select id, source, account, event_id, event, subject, body, state, reason, seen, received_at, terminal_at from inbox
        where state in ('ignored', 'quarantined') and state = $3 and id < $1 order by id desc limit $2";
    /// What waits is few; an expression in place of the key keeps a planner from looking for it among all that ever came.
    LIST_RECEIVED = "select id, source, account, event_id, event, subject, body, state, reason, seen, received_at, terminal_at from inbox
        where state = 'received' and id || '' < $1 order by id || '' desc limit $2";
    REOPEN = "update inbox set state = 'received', reason = null, terminal_at = null where id = $1 and state in ('applied', 'ignored', 'quarantined')
        and not exists (select 1 from inbox other where other.source = inbox.source and other.account = inbox.account
            and other.event_id = inbox.event_id and other.id <> inbox.id and other.state in ('received', 'applied'))";
    KNOWN = "select id from inbox where source = $1 and account = $2 and event_id = $3 and body_hash = $4";
    SEEN = "update inbox set seen = seen + 1 where id = $1";
    INSERT = "insert into inbox (id, source, account, event_id, event, body_hash, body, headers, peer, verified, subject, says, state, reason,
            received_at, terminal_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
        on conflict do nothing";
    /// The job that resolves a notice, for its repeats one a minute. A repeat that meets that one running makes it look once
    /// more; one that comes after its end puts a new job into its place, at most once a second: what was asked before the repeat
    /// came says nothing about it. A job that still waits looks anyway. `INTAKE` says the same for PostgreSQL.
    RESOLVE = "insert into jobs (id, kind, slot, lane, payload, state, max_attempts, run_at, thread, created_at)
        values ($1, $2, $3, $4, $5, 'ready', $6, $7, $8, $7)
        on conflict (kind, slot) where slot is not null do update set id = case when jobs.state = 'running' then jobs.id else excluded.id end,
            pulled = (jobs.state = 'running'),
            state = case when jobs.state = 'running' then 'running' else 'ready' end,
            attempts = case when jobs.state = 'running' then jobs.attempts else 0 end,
            run_at = case when jobs.state = 'running' then jobs.run_at
                when jobs.ended_at + 1000 > semel_now() then jobs.ended_at + 1000 else semel_now() end,
            ended_at = null, outcome = null
        where jobs.state in ('running', 'done', 'dead')";
}

/// The intake of new notices on PostgreSQL in one statement and one round trip, which is nearly every notice: rows written,
/// live jobs pulled, and a resolving job for each that pulled nothing. Answers the ids of those it wrote; what it did not
/// write came before, and is for `INTAKE`.
///
/// Arrays: 1 id, 2 source, 3 account, 4 event_id, 5 event, 6 body_hash, 7 body, 8 headers, 9 peer, 10 verified, 11 subject,
/// 12 says, 13 received_at, 14 job id, 15 kind to pull, 16 kind to resolve, 17 lane, 18 payload, 19 attempts.
pub(super) const FRESH: ManySql = ManySql {
    sqlite: "",
    postgres: "with batch as materialized (
            select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::text[], $9::text[],
                $10::boolean[], $11::text[], $12::text[], $13::bigint[], $14::text[], $15::text[], $16::text[], $17::text[], $18::text[], $19::bigint[])
                as b (id, source, account, event_id, event, body_hash, body, headers, peer, verified, subject, says, received_at,
                      job, pull_kind, resolve_kind, lane, payload, attempts)
        ), fresh as (
            insert into inbox (id, source, account, event_id, event, body_hash, body, headers, peer, verified, subject, says, state, received_at)
            select id, source, account, event_id, event, body_hash, body, headers, peer, verified, subject, says, 'received', received_at from batch
            order by source, account, event_id, body_hash
            on conflict do nothing returning id, subject
        ), due as (
            select j.id from (select distinct b.pull_kind, f.subject from fresh f join batch b on b.id = f.id) w
                join jobs j on j.kind = w.pull_kind and j.slot = w.subject
            where j.state in ('ready', 'running')
            order by j.id for update of j
        ), pulled as (
            update jobs j set pulled = (j.state = 'running'),
                run_at = case when j.state = 'ready' and j.run_at > semel_now() then semel_now() else j.run_at end
            from due where j.id = due.id returning j.slot
        ), resolving as (
            insert into jobs (id, kind, slot, lane, payload, state, max_attempts, run_at, thread, created_at)
            select b.job, b.resolve_kind, b.id, b.lane, b.payload, 'ready', b.attempts, semel_now(), null, semel_now()
            from fresh f join batch b on b.id = f.id
            where f.subject is null or not exists (select 1 from pulled p where p.slot = f.subject)
            returning id
        )
        select f.id from fresh f left join (select count(*) as n from pulled) p on p.n < 0
            left join (select count(*) as n from resolving) r on r.n < 0",
};

/// The whole intake on PostgreSQL in one statement and one round trip: new rows, rows whose event came before with
/// other bytes, repeats counted, live jobs pulled, and a resolving job for each notice that pulled nothing, see `RESOLVE`:
/// for a repeat, too, because a payment that seemed over may be paid after all.
/// SQLite does the same step by step in one transaction, where a step costs no round trip. Rows are written and locked
/// in one order, so that two copies that receive the same notices do not wait for each other in a circle; notices before
/// jobs, as the transactions that end both do.
///
/// Arrays: 1 id, 2 source, 3 account, 4 event_id, 5 event, 6 body_hash, 7 body, 8 headers, 9 peer, 10 verified, 11 subject,
/// 12 says, 13 received_at, 14 job id, 15 kind to pull, 16 kind to resolve, 17 lane, 18 payload, 19 attempts.
pub(super) const INTAKE: ManySql = ManySql {
    sqlite: "",
    postgres: "with batch as (
            select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::text[], $9::text[],
                $10::boolean[], $11::text[], $12::text[], $13::bigint[], $14::text[], $15::text[], $16::text[], $17::text[], $18::text[], $19::bigint[])
                as b (id, source, account, event_id, event, body_hash, body, headers, peer, verified, subject, says, received_at,
                      job, pull_kind, resolve_kind, lane, payload, attempts)
        ), fresh as (
            insert into inbox (id, source, account, event_id, event, body_hash, body, headers, peer, verified, subject, says, state, received_at)
            select id, source, account, event_id, event, body_hash, body, headers, peer, verified, subject, says, 'received', received_at from batch
            order by source, account, event_id, body_hash
            on conflict do nothing returning id
        ), other as (
            insert into inbox (id, source, account, event_id, event, body_hash, body, headers, peer, verified, subject, says, state, reason,
                received_at, terminal_at)
            select id, source, account, event_id, event, body_hash, body, headers, peer, verified, subject, says, 'ignored',
                'the same event came before with another body', received_at, received_at from batch b
            where not exists (select 1 from fresh f where f.id = b.id) and not exists (select 1 from inbox i where i.source = b.source
                and i.account = b.account and i.event_id = b.event_id and i.body_hash = b.body_hash)
            on conflict do nothing returning id
        ), again as (
            select i.id from inbox i join batch b on i.source = b.source and i.account = b.account and i.event_id = b.event_id
                and i.body_hash = b.body_hash
            order by i.id for update of i
        ), counted as (
            update inbox i set seen = i.seen + 1 from again where i.id = again.id returning i.id
        ), due as (
            select j.id from jobs j join batch b on j.kind = b.pull_kind and j.slot = b.subject
            where j.state in ('ready', 'running') and (select count(*) from counted) >= 0
            order by j.id for update of j
        ), pulled as (
            update jobs j set pulled = (j.state = 'running'),
                run_at = case when j.state = 'ready' and j.run_at > semel_now() then semel_now() else j.run_at end
            from due where j.id = due.id returning j.kind, j.slot
        ), resolving as (
            insert into jobs (id, kind, slot, lane, payload, state, max_attempts, run_at, thread, created_at)
            select b.job, b.resolve_kind,
                case when f.id is not null then b.id else coalesce(o.id, i.id) || ':' || (semel_now() / 60000) end, b.lane,
                case when f.id is not null then b.payload
                    else '{\"notice\":\"' || coalesce(o.id, i.id) || '\",\"again\":' || semel_now() || '}' end,
                'ready', b.attempts, semel_now(), null, semel_now()
            from batch b left join fresh f on f.id = b.id left join other o on o.id = b.id
                left join inbox i on i.source = b.source and i.account = b.account and i.event_id = b.event_id and i.body_hash = b.body_hash
            where coalesce(f.id, o.id, i.id) is not null
                and not exists (select 1 from pulled p where p.kind = b.pull_kind and p.slot = b.subject)
            order by 3
            on conflict (kind, slot) where slot is not null do update set id = case when jobs.state = 'running' then jobs.id else excluded.id end,
            pulled = (jobs.state = 'running'),
                state = case when jobs.state = 'running' then 'running' else 'ready' end,
                attempts = case when jobs.state = 'running' then jobs.attempts else 0 end,
                run_at = case when jobs.state = 'running' then jobs.run_at
                    when jobs.ended_at + 1000 > semel_now() then jobs.ended_at + 1000 else semel_now() end,
                ended_at = null, outcome = null
            where jobs.state in ('running', 'done', 'dead')
            returning id
        )
        select b.id, case when f.id is not null then 1 when o.id is not null then 2 else 0 end
        from batch b left join fresh f on f.id = b.id left join other o on o.id = b.id
            left join (select count(*) as n from pulled) p on p.n < 0 left join (select count(*) as n from resolving) r on r.n < 0",
};
