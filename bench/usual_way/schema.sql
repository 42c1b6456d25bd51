-- The tables of the usual way: as many facts a sale as Semel keeps, under the names that such bots use.

create table users (
    id bigserial primary key,
    telegram_id bigint not null unique,
    language text,
    referrer_id bigint references users (id),
    balance numeric(14, 2) not null default 0,
    created_at timestamptz not null default now()
);

create table products (
    id bigserial primary key,
    title text not null,
    price numeric(14, 2) not null,
    currency text not null
);

create table orders (
    id bigserial primary key,
    user_id bigint not null references users (id),
    status text not null,
    total numeric(14, 2) not null,
    currency text not null,
    created_at timestamptz not null default now(),
    paid_at timestamptz,
    delivered_at timestamptz
);
create index orders_user on orders (user_id, created_at);
create index orders_status on orders (status, created_at);

create table order_items (
    id bigserial primary key,
    order_id bigint not null references orders (id),
    product_id bigint not null references products (id),
    price numeric(14, 2) not null,
    quantity integer not null
);
create index order_items_order on order_items (order_id);

create table stock (
    id bigserial primary key,
    product_id bigint not null references products (id),
    content text not null unique,
    sold_to bigint references orders (id),
    sold_at timestamptz
);
create index stock_free on stock (product_id, id) where sold_to is null;

create table payments (
    id bigserial primary key,
    order_id bigint not null references orders (id),
    provider text not null,
    provider_id text not null unique,
    status text not null,
    amount numeric(14, 2) not null,
    created_at timestamptz not null default now(),
    paid_at timestamptz
);
create index payments_order on payments (order_id);

create table payment_events (
    event_id text primary key,
    body text not null,
    received_at timestamptz not null default now()
);

create table deliveries (
    id bigserial primary key,
    order_id bigint not null references orders (id),
    stock_id bigint not null unique references stock (id),
    created_at timestamptz not null default now()
);
create index deliveries_order on deliveries (order_id);

create table transactions (
    id bigserial primary key,
    user_id bigint not null references users (id),
    order_id bigint references orders (id),
    kind text not null,
    amount numeric(14, 2) not null,
    created_at timestamptz not null default now()
);
create index transactions_user on transactions (user_id, id);

create table referrals (
    user_id bigint primary key references users (id),
    referrer_id bigint not null references users (id),
    order_id bigint not null references orders (id),
    amount numeric(14, 2) not null,
    created_at timestamptz not null default now()
);

create table notifications (
    id bigserial primary key,
    chat_id bigint not null,
    order_id bigint references orders (id),
    text text not null,
    status text not null default 'queued',
    created_at timestamptz not null default now(),
    sent_at timestamptz
);
create index notifications_queued on notifications (id) where status = 'queued';

create table event_log (
    id bigserial primary key,
    order_id bigint,
    event text not null,
    detail text,
    created_at timestamptz not null default now()
);
create index event_log_order on event_log (order_id, id);
