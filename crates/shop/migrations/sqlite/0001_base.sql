-- The shop's tables. A running older program does not exist yet, so nothing is seen meanwhile.

create table customers (
    id text primary key,
    telegram_id integer not null unique,
    email text,
    phone text,
    language text,
    referrer text references customers (id),
    created_at integer not null
) strict;

create table products (
    id text primary key,
    title text not null,
    description text not null,
    kind text not null check (kind in ('stock', 'topup', 'vpn')),
    delivery text not null check (delivery in ('instant', 'made_to_order')),
    promise_s integer not null default 0,
    price integer not null check (price > 0),
    currency text not null,
    active integer not null,
    version integer not null default 1,
    created_at integer not null,
    -- How long access lasts and on how many devices: for a product of the kind vpn, and for no other.
    duration_s integer check (duration_s > 0),
    devices integer check (devices between 1 and 10),
    check ((kind = 'vpn') = (duration_s is not null)),
    check ((kind = 'vpn') = (devices is not null))
) strict;

create table orders (
    id text primary key,
    customer text not null references customers (id),
    state text not null check (state in
        ('pending', 'paid', 'awaiting_stock', 'partial', 'delivered', 'expired', 'cancelled', 'refund_pending', 'refunded')),
    currency text not null,
    total integer not null check (total > 0),
    provider text not null,
    deadline integer not null,
    version integer not null default 0,
    paid_at integer,
    ended_at integer,
    reason text,
    created_at integer not null
) strict;

create index orders_customer on orders (customer, id);
create index orders_unpaid on orders (customer) where state = 'pending';
create index orders_due on orders (deadline) where state = 'pending';
create index orders_state on orders (state, id);

create table items (
    id text primary key,
    order_id text not null references orders (id),
    position integer not null,
    product text not null references products (id),
    title text not null,
    kind text not null check (kind in ('stock', 'topup', 'vpn')),
    delivery text not null,
    price integer not null,
    quantity integer not null check (quantity > 0),
    refunded integer not null default 0 check (refunded >= 0 and refunded <= quantity),
    promised_at integer,
    -- The quote of a line of the kind vpn, and the subscription that it renews: asked for, or decided when it was paid.
    duration_s integer check (duration_s > 0),
    devices integer check (devices between 1 and 10),
    subscription text,
    unique (order_id, position)
) strict;

create table units (
    id text primary key,
    product text not null references products (id),
    content text not null,
    content_hash text not null unique,
    state text not null check (state in ('available', 'held', 'delivered', 'void')),
    item text references items (id),
    created_at integer not null,
    -- Set by a restore: the unit may have been sold after the backup, so nobody gets it before the owner releases it.
    held_back_at integer
) strict;

create index units_available on units (product, id) where state = 'available' and held_back_at is null;
create index units_held_back on units (product) where held_back_at is not null;
create index units_shelf on units (product, state);
create index units_item on units (item) where item is not null;

create table deliveries (
    id text primary key,
    item text not null references items (id),
    n integer not null,
    unit text references units (id),
    state text not null check (state in ('reserved', 'sending', 'delivered', 'void')),
    fence integer not null default 0,
    content_hash text,
    at integer not null
) strict;

-- One delivery for each position of an item, one buyer for each unit.
create unique index deliveries_position on deliveries (item, n) where state <> 'void';
create unique index deliveries_unit on deliveries (unit) where state <> 'void' and unit is not null;
create index deliveries_reserved on deliveries (item) where state = 'reserved';

create table payments (
    id text primary key,
    order_id text not null references orders (id),
    customer text not null references customers (id),
    provider text not null,
    merchant text not null,
    provider_id text,
    state text not null check (state in
        ('created', 'pending', 'waiting', 'short', 'paid', 'refunded', 'cancelled', 'failed', 'locked')),
    currency text not null,
    amount integer not null check (amount > 0),
    received integer not null default 0,
    refunded integer not null default 0,
    key text not null unique,
    url text,
    expires_at integer,
    version integer not null default 0,
    created_at integer not null
) strict;

create index payments_order on payments (order_id);

-- Every id under which a provider knows a payment of ours: a repeated call may have made a second invoice.
create table payment_refs (
    provider text not null,
    merchant text not null,
    provider_id text not null,
    payment text not null references payments (id),
    created_at integer not null,
    primary key (provider, merchant, provider_id)
) strict;

create index payment_refs_payment on payment_refs (payment);

create table accounts (
    id text primary key,
    kind text not null check (kind in ('external', 'order', 'customer', 'sales', 'fees', 'bonus', 'suspense')),
    owner text not null,
    currency text not null,
    balance integer,
    floor integer,
    created_at integer not null,
    unique (kind, owner, currency),
    check (floor is null or balance is null or balance >= floor)
) strict;

create table postings (
    id text primary key,
    key text not null unique,
    kind text not null,
    provider text,
    merchant text,
    provider_payment_id text,
    order_id text,
    payment text,
    note text,
    posted_at integer not null
) strict;

-- A provider's payment is captured once, whatever the order's state.
create unique index postings_capture on postings (provider, merchant, provider_payment_id) where kind = 'capture';
create index postings_order on postings (order_id) where order_id is not null;

create table entries (
    seq integer primary key autoincrement,
    posting text not null references postings (id),
    account text not null references accounts (id),
    currency text not null,
    amount integer not null check (amount <> 0)
) strict;

create index entries_account on entries (account, seq);
create index entries_posting on entries (posting);

create table suspense (
    posting text primary key references postings (id),
    provider text not null,
    merchant text not null,
    provider_payment_id text not null,
    currency text not null,
    amount integer not null,
    reason text not null,
    state text not null check (state in ('open', 'assigned')),
    order_id text,
    created_at integer not null,
    ended_at integer
) strict;

-- What waits for the owner; all that was assigned lies behind it.
create index suspense_open on suspense (provider_payment_id) where state = 'open';

create table refunds (
    id text primary key,
    order_id text not null references orders (id),
    payment text references payments (id),
    provider_refund_id text,
    -- 'elsewhere': made at the provider with money that had not paid the order, so it takes nothing from it.
    target text not null check (target in ('balance', 'provider', 'elsewhere')),
    currency text not null,
    amount integer not null check (amount > 0),
    state text not null check (state in ('pending', 'succeeded', 'failed')),
    reason text not null,
    key text not null unique,
    after_state text not null,
    address text,
    version integer not null default 0,
    created_at integer not null,
    ended_at integer
) strict;

create index refunds_live on refunds (payment) where state = 'pending';
create index refunds_order on refunds (order_id);
create unique index refunds_provider on refunds (provider_refund_id) where provider_refund_id is not null;

create table rewards (
    customer text primary key references customers (id),
    referrer text not null references customers (id),
    order_id text not null references orders (id),
    currency text not null,
    amount integer not null,
    state text not null check (state in ('granted', 'reversed')),
    created_at integer not null
) strict;

create index rewards_order on rewards (order_id);

create table messages (
    id text primary key,
    dedup_key text not null unique,
    chat_id integer not null,
    class text not null check (class in ('at_least_once', 'at_most_once', 'ordered')),
    kind text not null,
    body text not null,
    state text not null check (state in ('queued', 'sending', 'sent', 'failed', 'unknown', 'cancelled')),
    order_id text,
    telegram_id integer,
    uncertain integer not null default 0,
    error text,
    queued_at integer not null,
    ended_at integer
) strict;

create index messages_lost on messages (kind) where state = 'unknown';
create index messages_order on messages (order_id) where order_id is not null;
create index messages_unknown on messages (queued_at) where uncertain > 0;

create table events (
    id text primary key,
    dedup_key text not null unique,
    type text not null,
    order_id text,
    body text not null,
    created_at integer not null
) strict;

-- Entries never change.
create trigger entries_no_update before update on entries begin select raise(abort, 'entries never change'); end;
create trigger entries_no_delete before delete on entries begin select raise(abort, 'entries never change'); end;
create trigger postings_no_update before update on postings begin select raise(abort, 'postings never change'); end;
create trigger postings_no_delete before delete on postings begin select raise(abort, 'postings never change'); end;
