-- +goose NO TRANSACTION
-- +goose Up
-- A named right. It is free if it has no holder, or one that has ended or is not there. The
-- token grows with each grant and never falls; guards is counted up where a share lock is
-- worth nothing. A request is what somebody asks of the holder; client, on whose behalf it holds.
create table if not exists coordd_leases (
    name     varchar(220) not null primary key,
    holder   varchar(36) character set ascii collate ascii_bin ,
    grant_id varchar(36) character set ascii collate ascii_bin ,
    token    bigint       not null,
    value    mediumtext       not null,
    request  mediumtext       not null,
    since_us bigint       not null,
    client   varchar(200) not null default '',
    guards   bigint       not null,
    index coordd_leases_holder (holder)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

-- Those who hold a right together with others.
create table if not exists coordd_shared (
    grant_id  varchar(36) character set ascii collate ascii_bin  not null primary key,
    lease     varchar(220) not null,
    member_id varchar(36) character set ascii collate ascii_bin  not null,
    token     bigint       not null,
    since_us  bigint       not null,
    client    varchar(200) not null default '',
    guards    bigint       not null,
    index coordd_shared_lease (lease),
    index coordd_shared_member (member_id)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

-- Those who wait for a right, by priority and ticket; and the next ticket.
create table if not exists coordd_waiters (
    id        varchar(36) character set ascii collate ascii_bin  not null primary key,
    lease     varchar(220) not null,
    ticket    bigint       not null,
    priority  bigint       not null,
    member_id varchar(36) character set ascii collate ascii_bin  not null,
    since_us  bigint       not null,
    index coordd_waiters_lease (lease),
    index coordd_waiters_member (member_id)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

create table if not exists coordd_queues (
    lease       varchar(220) not null primary key,
    next_ticket bigint       not null
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

create or replace sql security invoker view coordd_v_leaders as
select substr(l.name, 10) as election, m.name as leader, m.address, l.token as term, l.value, l.holder as member_id,
       timestampadd(microsecond, l.since_us, '1970-01-01') as since
from coordd_leases l
join coordd_heartbeats h on h.member_id = l.holder and h.state in ('alive', 'draining', 'condemned')
join coordd_members m on m.id = l.holder
where l.name like 'election/%';

create or replace sql security invoker view coordd_v_locks as
select substr(l.name, 6) as lock_name, 'exclusive' as mode, m.name as holder, l.token, l.holder as member_id,
       timestampadd(microsecond, l.since_us, '1970-01-01') as since
from coordd_leases l
join coordd_heartbeats h on h.member_id = l.holder and h.state in ('alive', 'draining', 'condemned')
join coordd_members m on m.id = l.holder
where l.name like 'lock/%'
union all
select substr(s.lease, 6), 'shared', m.name, s.token, s.member_id, timestampadd(microsecond, s.since_us, '1970-01-01')
from coordd_shared s
join coordd_heartbeats h on h.member_id = s.member_id and h.state in ('alive', 'draining', 'condemned')
join coordd_members m on m.id = s.member_id
where s.lease like 'lock/%';

-- +goose Down
drop view if exists coordd_v_locks;
drop view if exists coordd_v_leaders;
drop table if exists coordd_queues;
drop table if exists coordd_waiters;
drop table if exists coordd_shared;
drop table if exists coordd_leases;
