-- +goose Up
create table coordd_meta (
    name  varchar(200) collate "C" not null primary key,
    value bigint not null
);

-- The longest TTL that a member may have, in milliseconds.
insert into coordd_meta (name, value) values ('max_ttl', 15000);

create table coordd_members (
    id         varchar(36)  collate "C" not null primary key,
    name       varchar(200) collate "C" not null,
    address    varchar(200) collate "C" not null,
    version    varchar(200) collate "C" not null,
    labels     text   not null,
    started_us bigint not null
);

-- One narrow row a member, rewritten with each beat. Room in the page and no index beside
-- the key keep each rewrite within the page.
create table coordd_heartbeats (
    member_id varchar(36) collate "C" not null primary key,
    seq       bigint      not null,
    state     varchar(20) collate "C" not null,
    ttl_ms    bigint      not null,
    beat_us   bigint      not null
) with (fillfactor = 50);

create view coordd_v_members as
select m.name, m.id, h.state, m.address, m.version, m.labels, h.ttl_ms, h.seq,
       to_timestamp(h.beat_us / 1000000.0) as beat_at,
       to_timestamp(m.started_us / 1000000.0) as joined_at
from coordd_members m
join coordd_heartbeats h on h.member_id = m.id;

-- +goose Down
drop view coordd_v_members;
drop table coordd_heartbeats;
drop table coordd_members;
drop table coordd_meta;
