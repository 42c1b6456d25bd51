-- Campaigns with a row for each recipient, saved segments, the owner's own texts of notices, and what customers do not want to
-- hear. A running older program sees new tables that it does not use, and views with more rows.

-- What the owner calls a customer.
create table customer_tags (
    customer text not null references customers (id),
    tag text not null,
    created_at bigint not null,
    primary key (customer, tag)
);

create index customer_tags_tag on customer_tags (tag, customer);

create table segments (
    id text primary key,
    name text not null unique,
    -- Who belongs to it, as JSON.
    rule text not null,
    created_at bigint not null
);

create table campaigns (
    id text primary key,
    title text not null,
    state text not null check (state in
        ('draft', 'scheduled', 'starting', 'running', 'paused', 'finished', 'cancelled')),
    class text not null default 'at_most_once' check (class in ('at_least_once', 'at_most_once')),
    -- The rule of its audience, as JSON: a copy, so that a segment that changes later changes nothing here.
    segment text not null,
    -- What it says, by language, as JSON.
    texts text not null,
    -- Grows with every change of what it says or to whom.
    content bigint not null default 1,
    -- The content that was looked at, and the one that the owner got as a test.
    previewed bigint not null default 0,
    tested bigint not null default 0,
    starts_at bigint,
    -- Recipients, all of them: the states of their rows sum to it.
    snapshot_count bigint not null default 0,
    -- While they are being written down, piece by piece: who stands there last, and the newest customer of the beginning.
    sweep_after text,
    sweep_until text,
    -- Counts the jobs that ever ran it: one at a time.
    round bigint not null default 0,
    -- Of whose claim of that job is sending; a lower one sends no more.
    fence bigint not null default 0,
    -- The content that Telegram refused so often in a row that it stood still for it.
    refused bigint,
    -- Who failed until this moment gets it again, piece by piece.
    resend_until bigint,
    -- No piece is taken before: the owner's speed.
    next_piece_at bigint not null default 0,
    -- When something last went on.
    moved_at bigint not null,
    -- Why it stands still.
    reason text,
    -- State changes so far.
    version bigint not null default 1,
    created_by text not null,
    created_at bigint not null,
    started_at bigint,
    ended_at bigint
);

create index campaigns_state on campaigns (state, id);

-- The one picture or file of a campaign.
create table campaign_media (
    campaign text primary key references campaigns (id),
    kind text not null check (kind in ('photo', 'document')),
    name text not null,
    mime text not null,
    -- Empty where it was given by its file_id.
    bytes bytea not null,
    -- Telegram's name of it, once it was uploaded, and the bot for which it is good.
    file_id text,
    bot text
);

-- The row is the message: no other is written for a recipient.
create table recipients (
    campaign text not null references campaigns (id),
    chat_id bigint not null,
    customer text references customers (id),
    language text not null check (language in ('ru', 'en')),
    n bigint not null,
    state text not null check (state in
        ('queued', 'sending', 'sent', 'blocked', 'gone', 'failed', 'unknown', 'skipped', 'cancelled')),
    -- Whose claim sent it last.
    fence bigint not null default 0,
    -- Not before.
    due bigint not null default 0,
    -- Tries of which nobody told us what became of them.
    uncertain bigint not null default 0,
    -- Whether the content was refused and not the chat.
    poison bigint not null default 0,
    telegram_id bigint,
    error text,
    ended_at bigint,
    primary key (campaign, chat_id)
);

create unique index recipients_order on recipients (campaign, n);
create index recipients_queued on recipients (campaign, n, due) where state = 'queued';
create index recipients_sending on recipients (campaign) where state = 'sending';
create index recipients_state on recipients (campaign, state, n);
create index recipients_ended on recipients (campaign, ended_at) where ended_at is not null;
create index recipients_unknown on recipients (campaign) where state = 'unknown';

-- Most messages were sent; the list of any others goes by this.
create index messages_aside on messages (state, id) where state <> 'sent';

create table notice_texts (
    kind text not null,
    language text not null check (language in ('ru', 'en')),
    html text not null,
    version bigint not null default 1,
    updated_at bigint not null,
    primary key (kind, language)
);

create table notice_switches (
    customer text not null references customers (id),
    kind text not null,
    is_off bigint not null,
    updated_at bigint not null,
    primary key (customer, kind)
);

drop view audit_msg;
drop view audit_recipient;

-- Messages, and recipients of campaigns, which are messages, too. What a campaign that stands still has yet to send is none
-- yet; what a running one has yet to send waits since the campaign last went on.
create view audit_msg (msg_id, dedup_key, chat_id, class, broadcast_id, state, queued_at, ended_at) as
    select id, dedup_key, chat_id, class, cast(null as text), state, queued_at, ended_at from messages
    union all
    select r.campaign || ':' || r.chat_id, r.campaign || ':' || r.chat_id, r.chat_id, c.class, r.campaign,
        case r.state when 'blocked' then 'failed' when 'gone' then 'failed' when 'skipped' then 'cancelled' else r.state end,
        case when r.ended_at is null then c.moved_at else coalesce(c.started_at, c.created_at) end, r.ended_at
    from recipients r join campaigns c on c.id = r.campaign
    where r.state <> 'queued' or c.state in ('running', 'finished', 'cancelled');

-- Everybody whom a campaign that is over had to reach.
create view audit_recipient (broadcast_id, chat_id) as
    select r.campaign, r.chat_id from recipients r join campaigns c on c.id = r.campaign
    where c.state in ('finished', 'cancelled');
