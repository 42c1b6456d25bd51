//! Every statement of the books.

semel_kernel::statements! {
    OPEN = "insert into accounts (id, kind, owner, currency, balance, floor, created_at) values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing";
    CHANGE_BALANCE = "update accounts set balance = balance + $2 where id = $1 and balance + $2 >= floor";
    POST = "insert into postings (id, key, kind, provider, merchant, provider_payment_id, order_id, payment, note, posted_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    ENTRY = "insert into entries (posting, account, currency, amount) values ($1, $2, $3, $4)";
    IS_POSTED = "select id from postings where key = $1";
    BALANCES = "select currency, balance from accounts where kind = 'customer' and owner = $1 order by currency";
    BALANCE = "select balance from accounts where id = $1";
    SUSPEND = "insert into suspense (posting, provider, merchant, provider_payment_id, currency, amount, reason, state, created_at)
        values ($1, $2, $3, $4, $5, $6, $7, 'open', $8)";
    SUSPENDED = "select posting, provider, merchant, provider_payment_id, currency, amount, reason, state from suspense
        where provider_payment_id = $1 and state = 'open'";
    END_SUSPENSE = "update suspense set state = 'assigned', order_id = $2, ended_at = $3 where posting = $1 and state = 'open'";
}
