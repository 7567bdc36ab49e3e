-- +goose Up
-- A group of jobs that is spread over those who serve it. A job belongs to a slot by the hash of
-- its key, and only slots have owners. plan_version is counted up by whoever changes slots,
-- which locks this row for as long; what has changed bears the number.
create table coordd_groups (
    name         varchar(200) collate "C" not null primary key,
    slots        bigint not null,
    strategy     varchar(40) collate "C" not null,
    options      text not null,
    plan_version bigint not null,
    created_us   bigint not null
);

-- Those who serve a group, up to which plan version each has applied the plan, and on whose behalf.
create table coordd_group_members (
    grp          varchar(200) collate "C" not null,
    member_id    varchar(36) collate "C" not null,
    seen         bigint not null,
    since_us     bigint not null,
    client       varchar(200) collate "C" not null default '',
    primary key (grp, member_id)
);
create index coordd_group_members_member on coordd_group_members (member_id);

-- The slots of a group. The epoch grows with each change of owner; the target is who is to be
-- the next, once the owner has stopped; guards is counted up where a share lock is worth nothing.
create table coordd_slots (
    grp          varchar(200) collate "C" not null,
    slot         bigint not null,
    owner        varchar(36) collate "C",
    target       varchar(36) collate "C",
    epoch        bigint not null,
    version      bigint not null,
    guards       bigint not null,
    primary key (grp, slot)
);
create index coordd_slots_version on coordd_slots (grp, version);
create index coordd_slots_owner on coordd_slots (owner);

-- What must be looked after.
create table coordd_jobs (
    grp          varchar(200) collate "C" not null,
    job_key      varchar(200) collate "C" not null,
    slot         bigint not null,
    payload      text not null,
    labels       text not null,
    weight       bigint not null,
    paused       bigint not null,
    changed_us   bigint not null,
    primary key (grp, job_key)
);
create index coordd_jobs_slot on coordd_jobs (grp, slot);

create view coordd_v_jobs as
select j.grp as job_group, j.job_key, j.slot, m.name as owner, m.address, s.epoch, h.member_id, j.weight,
       case when j.paused = 0 then 'no' else 'yes' end as paused
from coordd_jobs j
join coordd_slots s on s.grp = j.grp and s.slot = j.slot
left join coordd_heartbeats h on h.member_id = s.owner and h.state in ('alive', 'draining', 'condemned')
left join coordd_members m on m.id = h.member_id;

-- +goose Down
drop view coordd_v_jobs;
drop table coordd_jobs;
drop table coordd_slots;
drop table coordd_group_members;
drop table coordd_groups;
