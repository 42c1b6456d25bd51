//! Every statement of the queue.

use crate::store::ManySql;

crate::statements! {
    PULL = "update jobs set pulled = (state = 'running'),
        run_at = case when state = 'ready' and run_at > semel_now() then semel_now() else run_at end
        where kind = $1 and slot = $2 and state in ('ready', 'running')";
    CANCEL = "update jobs set state = 'cancelled', ended_at = $3 where kind = $1 and slot = $2 and state = 'ready'";
    /// PostgreSQL skips rows that another worker holds; SQLite has one writer and nothing to skip. The rows are chosen in
    /// a step of its own, because a plan may run a subquery of `in (…)` more than once and so choose too many. PostgreSQL
    /// gets them as an array: a plan that does not know the limit takes a join with what is due for one with a tenth of all
    /// that waits, and is made anew for each claim or reads the whole table; an array is ten keys to it.
    CLAIM = {
        sqlite: "update jobs set state = 'running', fence = fence + 1, attempts = attempts + 1, owner = $2, pulled = 0,
            lease_until = semel_now() + $3, claimed_at = semel_now()
            where id in (select id from jobs where lane = $1 and state = 'ready' and run_at <= semel_now() order by run_at, id limit $4)
            returning id, kind, payload, fence, attempts, max_attempts, thread",
        postgres: "with due as materialized (select id from jobs where lane = $1 and state = 'ready' and run_at <= semel_now()
                order by run_at, id limit $4 for update skip locked),
            claimed as (update jobs j set state = 'running', fence = j.fence + 1, attempts = j.attempts + 1, owner = $2, pulled = false,
                lease_until = semel_now() + $3, claimed_at = semel_now() where j.id = any(array(select id from due))
                returning j.id, j.kind, j.payload, j.fence, j.attempts, j.max_attempts, j.thread)
            select id, kind, payload, fence, attempts, max_attempts, thread, cast(null as bigint) from claimed
            union all
            select null, null, null, null, null, null, null, (select n.run_at - semel_now() from jobs n
                where n.lane = $1 and n.state = 'ready' and n.id not in (select id from due) order by n.run_at limit 1)
            where (select count(*) from due) < $4",
    };
    /// In how many milliseconds the next job of a lane is due. On PostgreSQL `CLAIM` says it in a last row of its own, without
    /// an id, whenever it claimed less than it may: a worker that found nothing more asks nothing more.
    NEXT_DUE = "select run_at - semel_now() from jobs where lane = $1 and state = 'ready' order by run_at limit 1";
    /// Only what this process still works on, by name and fence: a claim that nobody works on has to run out, also while an
    /// older run of the same job hangs. The pairs come as one JSON list; each engine opens it with its own function.
    RENEW = {
        sqlite: "update jobs set lease_until = semel_now() + $2
            where owner = $1 and state = 'running' and (id, fence) in (select e.value ->> 0, e.value ->> 1 from json_each($3) e)",
        postgres: "update jobs set lease_until = semel_now() + $2
            where owner = $1 and state = 'running' and (id, fence) in (select e.pair ->> 0, cast(e.pair ->> 1 as bigint)
                from json_array_elements(cast($3 as json)) as e (pair))",
    };
    /// What was pulled during its run looks once more: the run may have asked before that happened which the pull is about.
    FINISH = "update jobs set state = case when pulled then 'ready' else 'done' end, outcome = case when pulled then outcome else $3 end,
        attempts = case when pulled then 0 else attempts end, run_at = case when pulled then semel_now() else run_at end,
        ended_at = case when pulled then null else semel_now() end, owner = null, lease_until = null, error = null, pulled = false
        where id = $1 and fence = $2 and state = 'running'";
    /// The history of the end that `FINISH` has just written.
    FINISHED = "insert into history (at, entity, entity_id, event, actor, to_state, fence, took_ms, thread)
        select $2, 'job', id, kind, $3, case when state = 'done' then 'ok' else 'retry' end, fence, $4, thread from jobs where id = $1";
    AGAIN = "update jobs set state = 'ready', attempts = 0, owner = null, lease_until = null, error = null,
        run_at = case when pulled then semel_now() else $3 end, pulled = false
        where id = $1 and fence = $2 and state = 'running'";
    SET_OUTCOME = "update jobs set outcome = $3 where id = $1 and fence = $2 and state = 'running'";
    FAIL = "update jobs set state = 'ready', owner = null, lease_until = null, error = $4, attempts = attempts - $5,
        run_at = case when pulled then semel_now() else $3 end, pulled = false
        where id = $1 and fence = $2 and state = 'running'";
    BURY = "update jobs set state = 'dead', owner = null, lease_until = null, error = $3, outcome = $4, ended_at = semel_now()
        where id = $1 and fence = $2 and state = 'running'";
    /// Jobs whose worker stopped renewing, or, with an owner given, all that other owners left behind.
    LOST = "update jobs set state = case when attempts >= max_attempts then 'dead' else 'ready' end, owner = null, lease_until = null,
        pulled = false, error = 'the worker was lost', ended_at = case when attempts >= max_attempts then semel_now() end,
        outcome = case when attempts >= max_attempts and manner is not null then 'unknown' end
        where state = 'running' and (lease_until < semel_now() or (cast($1 as text) is not null and owner <> $1))
        returning id, kind, fence, state, lane, thread, claimed_at, slot";
    /// Lists, the newest first. A plan looks at no parameter, so each state whose index is partial stands in a text of its own.
    /// Most jobs are done: walking back over the keys meets those at once.
    LIST = "select id, kind, slot, state, attempts, max_attempts, run_at, owner, fence, lease_until, error, thread, created_at, ended_at, outcome
        from jobs where id < $1 order by id desc limit $2";
    LIST_DONE = "select id, kind, slot, state, attempts, max_attempts, run_at, owner, fence, lease_until, error, thread, created_at, ended_at, outcome
        from jobs where state = 'done' and id < $1 order by id desc limit $2";
    LIST_DEAD = "select id, kind, slot, state, attempts, max_attempts, run_at, owner, fence, lease_until, error, thread, created_at, ended_at, outcome
        from jobs where state = 'dead' and id < $1 order by id desc limit $2";
    LIST_ASIDE = "select id, kind, slot, state, attempts, max_attempts, run_at, owner, fence, lease_until, error, thread, created_at, ended_at, outcome
        from jobs where state in ('cancelled', 'parked') and state = $3 and id < $1 order by id desc limit $2";
    /// What is alive is few and has an index by its time; an expression in place of the key keeps a planner from looking for
    /// it among all that ever was. These few are sorted.
    LIST_READY = "select id, kind, slot, state, attempts, max_attempts, run_at, owner, fence, lease_until, error, thread, created_at, ended_at, outcome
        from jobs where state = 'ready' and id || '' < $1 order by id || '' desc limit $2";
    LIST_RUNNING = "select id, kind, slot, state, attempts, max_attempts, run_at, owner, fence, lease_until, error, thread, created_at, ended_at, outcome
        from jobs where state = 'running' and id || '' < $1 order by id || '' desc limit $2";
    SHOW = "select id, kind, slot, state, attempts, max_attempts, run_at, owner, fence, lease_until, error, thread, created_at, ended_at, outcome
        from jobs where id = $1";
    RETRY = "update jobs set state = 'ready', attempts = 0, run_at = semel_now(), ended_at = null, outcome = null
        where id = $1 and (state in ('dead', 'parked', 'cancelled') or (state = 'ready' and run_at > semel_now())) returning lane";
}

/// New jobs; one whose kind and slot are there already is left alone.
pub(super) const INSERT: ManySql = ManySql {
    sqlite: "insert into jobs (id, kind, slot, lane, payload, manner, request_hash, state, max_attempts, run_at, thread, created_at)
        values ($1, $2, $3, $4, $5, $6, $7, 'ready', $8, $9, $10, $11) on conflict do nothing",
    postgres: "insert into jobs (id, kind, slot, lane, payload, manner, request_hash, state, max_attempts, run_at, thread, created_at)
        select j.id, j.kind, j.slot, j.lane, j.payload, j.manner, j.request_hash, 'ready', j.max_attempts, j.run_at, j.thread, j.created_at
        from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::bigint[],
            $10::text[], $11::bigint[]) as j (id, kind, slot, lane, payload, manner, request_hash, max_attempts, run_at, thread, created_at)
        on conflict do nothing",
};
