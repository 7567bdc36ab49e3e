-- +goose Up
-- A named right. It is free if it has no holder, or one that has ended or is not there. The
-- token grows with each grant and never falls; guards is counted up where a share lock is
-- worth nothing. A request is what somebody asks of the holder; client, on whose behalf it holds.
create table coordd_leases (
    name     varchar(220) not null primary key,
    holder   varchar(36) ,
    grant_id varchar(36) ,
    token    bigint       not null,
    value    text         not null,
    request  text         not null,
    since_us bigint       not null,
    client   varchar(200) not null default '',
    guards   bigint       not null
);
create index coordd_leases_holder on coordd_leases (holder);

-- Those who hold a right together with others.
create table coordd_shared (
    grant_id  varchar(36)  not null primary key,
    lease     varchar(220) not null,
    member_id varchar(36)  not null,
    token     bigint       not null,
    since_us  bigint       not null,
    client    varchar(200) not null default '',
    guards    bigint       not null
);
create index coordd_shared_lease on coordd_shared (lease);
create index coordd_shared_member on coordd_shared (member_id);

-- Those who wait for a right, by priority and ticket; and the next ticket.
create table coordd_waiters (
    id        varchar(36)  not null primary key,
    lease     varchar(220) not null,
    ticket    bigint       not null,
    priority  bigint       not null,
    member_id varchar(36)  not null,
    since_us  bigint       not null
);
create index coordd_waiters_lease on coordd_waiters (lease);
create index coordd_waiters_member on coordd_waiters (member_id);

create table coordd_queues (
    lease       varchar(220) not null primary key,
    next_ticket bigint       not null
);

create view coordd_v_leaders as
select substr(l.name, 10) as election, m.name as leader, m.address, l.token as term, l.value, l.holder as member_id,
       strftime('%Y-%m-%d %H:%M:%f', l.since_us / 1000000.0, 'unixepoch') as since
from coordd_leases l
join coordd_heartbeats h on h.member_id = l.holder and h.state in ('alive', 'draining', 'condemned')
join coordd_members m on m.id = l.holder
where l.name like 'election/%';

create view coordd_v_locks as
select substr(l.name, 6) as lock_name, 'exclusive' as mode, m.name as holder, l.token, l.holder as member_id,
       strftime('%Y-%m-%d %H:%M:%f', l.since_us / 1000000.0, 'unixepoch') as since
from coordd_leases l
join coordd_heartbeats h on h.member_id = l.holder and h.state in ('alive', 'draining', 'condemned')
join coordd_members m on m.id = l.holder
where l.name like 'lock/%'
union all
select substr(s.lease, 6), 'shared', m.name, s.token, s.member_id, strftime('%Y-%m-%d %H:%M:%f', s.since_us / 1000000.0, 'unixepoch')
from coordd_shared s
join coordd_heartbeats h on h.member_id = s.member_id and h.state in ('alive', 'draining', 'condemned')
join coordd_members m on m.id = s.member_id
where s.lease like 'lock/%';

-- +goose Down
drop view coordd_v_locks;
drop view coordd_v_leaders;
drop table coordd_queues;
drop table coordd_waiters;
drop table coordd_shared;
drop table coordd_leases;
