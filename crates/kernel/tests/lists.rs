//! Lists stay quick however much lies behind: each has an index that bears its filter and its order.
#![allow(clippy::unwrap_used)]

use semel_kernel::store::migrate::{KERNEL, Room};
use semel_kernel::store::{Engine, Sql};
use semel_kernel::testing::TestStore;
use semel_kernel::{inbox, jobs};

const ROOMS: &[Room] = &[KERNEL];

/// Twenty thousand jobs that are done, and before them one of each other state.
const JOBS: Sql = Sql {
    sqlite: "with recursive n (i) as (select 1 union all select i + 1 from n where i < 20000)
        insert into jobs (id, kind, lane, payload, state, max_attempts, run_at, created_at)
        select 'job_' || printf('%032d', i), 'test.errand', 'test', '{}', case i when 1 then 'ready' when 2 then 'running'
            when 3 then 'dead' when 4 then 'cancelled' when 5 then 'parked' else 'done' end, 1, i, i from n",
    postgres: "insert into jobs (id, kind, lane, payload, state, max_attempts, run_at, created_at)
        select 'job_' || lpad(cast(i as text), 32, '0'), 'test.errand', 'test', '{}', case i when 1 then 'ready' when 2 then 'running'
            when 3 then 'dead' when 4 then 'cancelled' when 5 then 'parked' else 'done' end, 1, i, i from generate_series(1, 20000) n (i)",
};

/// Twenty thousand notices that are applied, and before them one of each other state.
const NOTICES: Sql = Sql {
    sqlite: "with recursive n (i) as (select 1 union all select i + 1 from n where i < 20000)
        insert into inbox (id, source, account, event_id, event, body_hash, body, headers, verified, says, state, received_at)
        select 'inb_' || printf('%032d', i), 'provider', 'shop', 'event ' || i, 'paid', 'hash', x'7b7d', '{}', 1, '',
            case i when 1 then 'received' when 2 then 'ignored' when 3 then 'quarantined' else 'applied' end, i from n",
    postgres: "insert into inbox (id, source, account, event_id, event, body_hash, body, headers, verified, says, state, received_at)
        select 'inb_' || lpad(cast(i as text), 32, '0'), 'provider', 'shop', 'event ' || i, 'paid', 'hash', cast('{}' as bytea), '{}', true, '',
            case i when 1 then 'received' when 2 then 'ignored' when 3 then 'quarantined' else 'applied' end, i
        from generate_series(1, 20000) n (i)",
};

/// A list by its name, its state where the text takes one, and the index that bears it; the second name is PostgreSQL's.
type Wanted = (&'static str, &'static str, [&'static str; 2]);

async fn check(t: &TestStore, statements: &[(&str, Sql)], top: &str, wanted: &[Wanted]) {
    for (name, state, [on_sqlite, on_postgres]) in wanted {
        let (_, sql) = statements.iter().find(|(known, _)| known == name).unwrap();
        let plan = t.plan(*sql, &[top, "51", *state]).await;
        let index = if t.engine() == Engine::Sqlite { on_sqlite } else { on_postgres };
        assert!(plan.contains(index), "{name} {state} does not go by {index}:\n{plan}");
        assert!(!plan.contains("Seq Scan"), "{name} {state} reads everything:\n{plan}");
    }
}

async fn fill(t: &TestStore, sql: Sql) {
    assert_eq!(t.store.write("fill", move |tx| tx.execute(sql, &[])).await, Ok(20_000));
}

semel_kernel::each_store! { ROOMS;
    async fn a_list_of_jobs_never_reads_what_it_does_not_show(t: TestStore) {
        fill(&t, JOBS).await;
        let keys = ["sqlite_autoindex_jobs_1", "jobs_pkey"];
        let wanted = [
            ("LIST", "", keys),
            ("LIST_DONE", "", keys),
            ("LIST_DEAD", "", ["jobs_dead"; 2]),
            ("LIST_ASIDE", "'cancelled'", ["jobs_aside"; 2]),
            ("LIST_ASIDE", "'parked'", ["jobs_aside"; 2]),
            ("LIST_READY", "", ["jobs_due"; 2]),
            ("LIST_RUNNING", "", ["jobs_held"; 2]),
        ];
        check(&t, jobs::STATEMENTS, "'job_z'", &wanted).await;

        for (n, state) in (1..).zip(["ready", "running", "dead", "cancelled", "parked"]) {
            let found = t.store.read("list", move |tx| jobs::list(tx, Some(state), None, 10)).await.unwrap();
            assert_eq!(found.iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), [format!("job_{n:032}")], "{state}");
        }
        let before = format!("job_{:032}", 8);
        let page = t.store.read("list", move |tx| jobs::list(tx, Some("done"), Some(&before), 2)).await.unwrap();
        assert_eq!(page.iter().map(|job| job.id.clone()).collect::<Vec<_>>(), [7, 6].map(|n| format!("job_{n:032}")));
    }

    async fn a_list_of_notices_never_reads_what_it_does_not_show(t: TestStore) {
        fill(&t, NOTICES).await;
        let keys = ["sqlite_autoindex_inbox_1", "inbox_pkey"];
        let wanted = [
            ("LIST", "", keys),
            ("LIST_APPLIED", "", keys),
            ("LIST_ASIDE", "'ignored'", ["inbox_aside"; 2]),
            ("LIST_ASIDE", "'quarantined'", ["inbox_aside"; 2]),
            ("LIST_RECEIVED", "", ["inbox_open"; 2]),
        ];
        check(&t, inbox::STATEMENTS, "'inb_z'", &wanted).await;

        for (n, state) in (1..).zip(["received", "ignored", "quarantined"]) {
            let found = t.store.read("list", move |tx| inbox::list(tx, Some(state), None, 10)).await.unwrap();
            assert_eq!(found.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), [format!("inb_{n:032}")], "{state}");
        }
        let newest = t.store.read("list", |tx| inbox::list(tx, Some("applied"), None, 1)).await.unwrap();
        assert_eq!(newest[0].id.as_str(), format!("inb_{:032}", 20_000));
    }
}
