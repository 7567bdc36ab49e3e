-- +goose Up
create table coordd_meta (
    name  varchar(200) not null primary key,
    value bigint       not null,
    text  varchar(500) not null
) without rowid;

-- The longest TTL that a member may have, in milliseconds; the newest revision, and the
-- newest one whose event has been deleted.
insert into coordd_meta (name, value, text)
values ('max_ttl', 15000, ''), ('revision', 0, ''), ('compacted', 0, '');

create table coordd_members (
    id         varchar(36)  not null primary key,
    name       varchar(200) not null,
    address    varchar(200) not null,
    version    varchar(200) not null,
    labels     text         not null,
    process    varchar(500) not null,
    started_us bigint       not null
) without rowid;

-- One narrow row a member, rewritten with each beat.
create table coordd_heartbeats (
    member_id varchar(36) not null primary key,
    seq       bigint      not null,
    state     varchar(20) not null,
    ttl_ms    bigint      not null,
    beat_us   bigint      not null,
    load_json text
) without rowid;

-- What has changed, in the order of commits. The newest revision stands in coordd_meta.
create table coordd_events (
    revision  bigint       not null primary key,
    at_us     bigint       not null,
    topic     varchar(200) not null,
    subject   varchar(200) not null,
    action    varchar(40)  not null,
    member_id varchar(36)  not null,
    data      text         not null
) without rowid;

-- Events of transactions that must not wait for a revision, until somebody gives them one.
create table coordd_outbox (
    id        varchar(36)  not null primary key,
    at_us     bigint       not null,
    topic     varchar(200) not null,
    subject   varchar(200) not null,
    action    varchar(40)  not null,
    member_id varchar(36)  not null,
    data      text         not null
) without rowid;

create view coordd_v_members as
select m.name, m.id, h.state, m.address, m.version, m.labels, h.load_json, h.ttl_ms, h.seq,
       strftime('%Y-%m-%d %H:%M:%f', h.beat_us / 1000000.0, 'unixepoch') as beat_at,
       strftime('%Y-%m-%d %H:%M:%f', m.started_us / 1000000.0, 'unixepoch') as joined_at
from coordd_members m
join coordd_heartbeats h on h.member_id = m.id;

-- +goose Down
drop view coordd_v_members;
drop table coordd_outbox;
drop table coordd_events;
drop table coordd_heartbeats;
drop table coordd_members;
drop table coordd_meta;
