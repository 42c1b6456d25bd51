-- The customer's bot: what came in, and the buttons that may be pressed once. A running older program sees new tables that
-- it does not use.

-- Updates of Telegram, each once: the key decides, however often one comes. What people wrote is kept until it is worked off.
create table updates (
    bot text not null,
    update_id bigint not null,
    -- 'dead': nobody could read it. What it was stays as long as the row does.
    state text not null check (state in ('received', 'done', 'dead')),
    body text,
    -- Why it could not be read, or why its job gave up.
    error text,
    received_at bigint not null,
    ended_at bigint,
    primary key (bot, update_id)
);

create index updates_waiting on updates (bot) where state = 'received';
create index updates_over on updates (received_at) where ended_at is not null;

-- What a button does. Buttons of one card are one decision: the first press takes them all.
create table intents (
    id text primary key,
    card text not null,
    chat_id bigint not null,
    -- JSON, with the price that it was made for.
    action text not null,
    used_at bigint,
    -- What the first press came to, for every later one.
    result text,
    expires_at bigint not null
);

create index intents_card on intents (card);
create index intents_expired on intents (expires_at);

-- What the bot waits for in a chat: the next words that are no command.
create table dialogs (
    bot text not null,
    chat_id bigint not null,
    step text not null check (step in ('broadcast', 'support', 'paysupport')),
    expires_at bigint not null,
    primary key (bot, chat_id)
);

-- Who was last let through to pay an invoice in Stars, and when: nobody else is for a while, so that a double tap is charged once.
create table star_checkouts (
    payment text primary key references payments (id),
    question text not null,
    approved_at bigint not null
);
