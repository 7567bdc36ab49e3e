-- +goose NO TRANSACTION
-- +goose Up
-- A group of jobs that is spread over those who serve it. A job belongs to a slot by the hash of
-- its key, and only slots have owners. plan_version is counted up by whoever changes slots,
-- which locks this row for as long; what has changed bears the number.
create table if not exists coordd_groups (
    name         varchar(200) not null primary key,
    slots        bigint not null,
    strategy     varchar(40) not null,
    options      mediumtext not null,
    plan_version bigint not null,
    created_us   bigint not null
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

-- Those who serve a group, up to which plan version each has applied the plan, and on whose behalf.
create table if not exists coordd_group_members (
    grp          varchar(200) not null,
    member_id    varchar(36) character set ascii collate ascii_bin not null,
    seen         bigint not null,
    since_us     bigint not null,
    client       varchar(200) not null default '',
    primary key (grp, member_id),
    index coordd_group_members_member (member_id)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

-- The slots of a group. The epoch grows with each change of owner; the target is who is to be
-- the next, once the owner has stopped; guards is counted up where a share lock is worth nothing.
create table if not exists coordd_slots (
    grp          varchar(200) not null,
    slot         bigint not null,
    owner        varchar(36) character set ascii collate ascii_bin,
    target       varchar(36) character set ascii collate ascii_bin,
    epoch        bigint not null,
    version      bigint not null,
    guards       bigint not null,
    primary key (grp, slot),
    index coordd_slots_version (grp, version),
    index coordd_slots_owner (owner)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

-- What must be looked after.
create table if not exists coordd_jobs (
    grp          varchar(200) not null,
    job_key      varchar(200) not null,
    slot         bigint not null,
    payload      mediumtext not null,
    labels       mediumtext not null,
    weight       bigint not null,
    paused       bigint not null,
    changed_us   bigint not null,
    primary key (grp, job_key),
    index coordd_jobs_slot (grp, slot)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

create or replace sql security invoker view coordd_v_jobs as
select j.grp as job_group, j.job_key, j.slot, m.name as owner, m.address, s.epoch, h.member_id, j.weight,
       case when j.paused = 0 then 'no' else 'yes' end as paused
from coordd_jobs j
join coordd_slots s on s.grp = j.grp and s.slot = j.slot
left join coordd_heartbeats h on h.member_id = s.owner and h.state in ('alive', 'draining', 'condemned')
left join coordd_members m on m.id = h.member_id;

-- +goose Down
drop view if exists coordd_v_jobs;
drop table if exists coordd_jobs;
drop table if exists coordd_slots;
drop table if exists coordd_group_members;
drop table if exists coordd_groups;
