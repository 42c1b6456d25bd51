-- The customer's bot: what came in, and the buttons that may be pressed once; whom messages do not reach, in which order those
-- of a chat go, and names for the files of VPN access. A running older program sees new tables and columns that it does not
-- use: what it writes has their defaults. What it does with customers, messages and peers waits until this step is committed.

-- Updates of Telegram, each once: the key decides, however often one comes. What people wrote is kept until it is worked off.
create table updates (
    bot text not null,
    update_id bigint not null,
    -- Whose chat with the bot it came from, where it shows whether messages reach that chat.
    chat_id bigint,
    -- 'dead': nobody could read it. What it was stays as long as the row does.
    state text not null check (state in ('received', 'done', 'dead')),
    body text,
    -- The button that the words in it came to press: it goes on after a death.
    button text,
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
    step text not null check (step in ('broadcast', 'support', 'paysupport', 'contact')),
    -- The button that waits for the words, if one does.
    button text,
    expires_at bigint not null,
    primary key (bot, chat_id)
);

-- Who was last let through to pay an invoice in Stars, and when: nobody else is for a while, so that a double tap is charged once.
create table star_checkouts (
    payment text primary key references payments (id),
    question text not null,
    approved_at bigint not null
);

-- An owner answers a customer by replying to the message with their words, which Telegram names by its number.
create index messages_to_owners on messages (chat_id, telegram_id) where kind = 'alert' and telegram_id is not null;

-- Since when messages cannot reach them: they blocked the bot.
alter table customers add column blocked_at bigint;

-- Who came by somebody's link: they may ask how many did as often as they like.
create index customers_referrer on customers (referrer) where referrer is not null;

-- Where it stands in the line of its chat, if it has to go in order; zero for every other, and so for all that older programs
-- wrote: they let none go in order.
alter table messages add column place bigint not null default 0;

create index messages_line on messages (chat_id, queued_at, place) where class = 'ordered' and state = 'queued';

-- The line of each chat whose messages go in order: the last place that was given, and the moment of it. Whoever takes a place
-- holds the row until the commit, so that places become visible in their order.
create table chat_lines (
    chat_id bigint primary key,
    place bigint not null,
    queued_at bigint not null
);

-- Which of all peers that its customer was ever given, from 1: it names the customer's files apart. The default is for an older
-- program that still adds some.
alter table peers add column number bigint not null default 1 check (number > 0);

update peers set number = given.number
    from (select p.id, row_number() over (partition by s.customer order by p.created_at, p.id) as number
        from peers p join subscriptions s on s.id = p.subscription) given
    where given.id = peers.id;
