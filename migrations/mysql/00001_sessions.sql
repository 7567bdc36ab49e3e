-- +goose NO TRANSACTION
-- MySQL and MariaDB commit each of these statements by itself, so each of them can be
-- run again after a migration that broke off.

-- +goose Up
create table if not exists coordd_meta (
    name  varchar(200) not null primary key,
    value bigint       not null,
    text  varchar(500) not null
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

-- The longest TTL that a member may have, in milliseconds; the newest revision, and the
-- newest one whose event has been deleted.
insert ignore into coordd_meta (name, value, text)
values ('max_ttl', 15000, ''), ('revision', 0, ''), ('compacted', 0, '');

create table if not exists coordd_members (
    id         varchar(36)  character set ascii collate ascii_bin not null primary key,
    name       varchar(200) not null,
    address    varchar(200) not null,
    version    varchar(200) not null,
    labels     mediumtext   not null,
    process    varchar(500) not null,
    started_us bigint       not null
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

-- One narrow row a member, rewritten with each beat.
create table if not exists coordd_heartbeats (
    member_id varchar(36) character set ascii collate ascii_bin not null primary key,
    seq       bigint      not null,
    state     varchar(20) character set ascii collate ascii_bin not null,
    ttl_ms    bigint      not null,
    beat_us   bigint      not null,
    load_json mediumtext
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

-- What has changed, in the order of commits. The newest revision stands in coordd_meta.
create table if not exists coordd_events (
    revision  bigint       not null primary key,
    at_us     bigint       not null,
    topic     varchar(200) not null,
    subject   varchar(200) not null,
    action    varchar(40)  character set ascii collate ascii_bin not null,
    member_id varchar(36)  character set ascii collate ascii_bin not null,
    data      mediumtext   not null
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

-- Events of transactions that must not wait for a revision, until somebody gives them one.
create table if not exists coordd_outbox (
    id        varchar(36)  character set ascii collate ascii_bin not null primary key,
    at_us     bigint       not null,
    topic     varchar(200) not null,
    subject   varchar(200) not null,
    action    varchar(40)  character set ascii collate ascii_bin not null,
    member_id varchar(36)  character set ascii collate ascii_bin not null,
    data      mediumtext   not null
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

create or replace sql security invoker view coordd_v_members as
select m.name, m.id, h.state, m.address, m.version, m.labels, h.load_json, h.ttl_ms, h.seq,
       timestampadd(microsecond, h.beat_us, '1970-01-01') as beat_at,
       timestampadd(microsecond, m.started_us, '1970-01-01') as joined_at
from coordd_members m
join coordd_heartbeats h on h.member_id = m.id;

-- +goose Down
drop view if exists coordd_v_members;
drop table if exists coordd_outbox;
drop table if exists coordd_events;
drop table if exists coordd_heartbeats;
drop table if exists coordd_members;
drop table if exists coordd_meta;
