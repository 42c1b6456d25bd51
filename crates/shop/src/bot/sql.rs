//! Every statement about updates, buttons, and what the owner asks the bot for.

semel_kernel::statements! {
    RECEIVE = "insert into updates (bot, update_id, chat_id, state, body, received_at) values ($1, $2, $3, 'received', $4, $5)
        on conflict (bot, update_id) do nothing";
    WAITING = "select body, button from updates where bot = $1 and update_id = $2 and state = 'received'";
    PRESSES = "update updates set button = $3 where bot = $1 and update_id = $2 and state = 'received'";
    END = "update updates set state = $3, error = $4, ended_at = $5, body = null where bot = $1 and update_id = $2 and state = 'received'";
    /// What it was stays, if it is not too long to be looked at.
    UNREADABLE = "update updates set state = 'dead', error = $3, ended_at = $4, body = substr(body, 1, 32768)
        where bot = $1 and update_id = $2 and state = 'received'";
    /// A dead job can be run again by hand, so what it needs is kept as long as the row is: for three days like every other.
    DEAD = "update updates set error = $3, ended_at = $4 where bot = $1 and update_id = $2 and state = 'received'";
    SLOT = "select slot from jobs where id = $1";
    /// Whether the same chat told something since.
    NEWER = "select 1 from updates where bot = $1 and update_id > $2 and chat_id = $3 limit 1";
    /// Telegram keeps an update for a day, so nothing older comes again. What its job gave up goes, too.
    FORGET_UPDATES = "delete from updates where ended_at is not null and received_at < $1";
    ADD_INTENT = "insert into intents (id, card, chat_id, action, expires_at) values ($1, $2, $3, $4, $5)";
    /// Whoever comes second waits for the first one's end and finds nothing to take.
    TAKE_CARD = "update intents set used_at = $3 where card = (select i.card from intents i where i.id = $1)
        and chat_id = $2 and used_at is null and expires_at > $3";
    INTENT = "select action, result, used_at, expires_at from intents where id = $1 and chat_id = $2";
    SET_RESULT = "update intents set result = $2 where card = (select i.card from intents i where i.id = $1)";
    FORGET_INTENTS = "delete from intents where expires_at < $1";
    SET_LANGUAGE = "update customers set language = $2 where id = $1";
    SET_NAME = "insert into marks (name, value) values ($1, $2) on conflict (name) do update set value = excluded.value";
    NAME = "select value from marks where name = $1";
    FRIENDS = "select cast(count(*) as bigint) from customers where referrer = $1";
    SET_DIALOG = "insert into dialogs (bot, chat_id, step, button, expires_at) values ($1, $2, $3, $4, $5)
        on conflict (bot, chat_id) do update set step = excluded.step, button = excluded.button, expires_at = excluded.expires_at";
    DIALOG = "select step, button from dialogs where bot = $1 and chat_id = $2 and expires_at > $3";
    END_DIALOG = "delete from dialogs where bot = $1 and chat_id = $2";
    RUNNING_CAMPAIGNS = "select id from campaigns where state in ('starting', 'running', 'paused') order by id desc limit $1";
    /// What stands first in each of a customer's latest orders, in the state `$2` where one is named.
    TITLES = "select i.order_id, i.title from items i where i.order_id in (select o.id from orders o
        where o.customer = $1 and (cast($2 as text) is null or o.state = $2) order by o.id desc limit $3)
        order by i.order_id, i.position desc";
    /// Keys that a device got lately.
    KEYS_SINCE = "select cast(count(*) as bigint) from peers where subscription = $1 and device = $2 and created_at > $3";
    /// Money that came in, by currency and by who brought it: what providers owe us grows as their accounts fall. Postings of the day are
    /// found by their ids, which begin with their moment; the joins say so to SQLite, which would begin with the accounts.
    MONEY_SINCE = "select e.currency, a.owner, cast(sum(-e.amount) as bigint), cast(count(distinct p.id) as bigint)
        from postings p cross join entries e cross join accounts a
        where p.id >= $1 and p.kind = 'capture' and e.posting = p.id and a.id = e.account and a.kind = 'external'
        group by e.currency, a.owner order by e.currency, a.owner";
    /// Money that was given back, by currency and by where it went: to who brought it, or to the balances.
    GIVEN_BACK_SINCE = "select e.currency, case when a.kind = 'external' then a.owner else 'balance' end, cast(sum(e.amount) as bigint)
        from postings p cross join entries e cross join accounts a
        where p.id >= $1 and e.posting = p.id and a.id = e.account
        and ((p.kind = 'refund' and a.kind = 'external') or (p.kind = 'refund_to_balance' and a.kind = 'customer'))
        group by 1, 2 order by 1, 2";
    /// What customers wrote to the owner of this chat lately. Messages are found by their ids, which begin with their moment.
    QUESTIONS_SINCE = "select cast(count(*) as bigint) from messages
        where id >= $1 and chat_id = $2 and kind = $3 and dedup_key like $4";
    /// Payments that nothing has moved: each with what it waits for. One that was only just written is none of them.
    STUCK_PAYMENTS = "select p.provider, p.state, p.currency, p.amount, p.received, p.order_id from payments p
        where p.state in ('waiting', 'short', 'locked') or (p.state = 'created' and p.created_at < $1)
        order by p.created_at limit $2";
    STUCK_MONEY = "select provider, reason, currency, amount, provider_payment_id from suspense where state = 'open'
        order by created_at limit $1";
    STUCK_ORDERS = "select id, state, currency, total from orders
        where state in ('paid', 'awaiting_stock', 'partial', 'refund_pending') order by created_at limit $1";
    /// What waits for a person or for a provider: payments that are neither asked for nor over, money of nobody, goods that
    /// are owed, jobs that gave up.
    STUCK = "select
        (select cast(count(*) as bigint) from payments where state in ('waiting', 'short', 'locked')),
        (select cast(count(*) as bigint) from suspense where state = 'open'),
        (select cast(count(*) as bigint) from orders where state in ('paid', 'awaiting_stock', 'partial', 'refund_pending')),
        (select cast(count(*) as bigint) from jobs where state = 'dead'),
        (select cast(count(*) as bigint) from messages where state = 'unknown')";
}
