-- +goose Up
-- What a member is for: member, or client, which is a command that holds something for a while.
alter table coordd_members add column kind varchar(20) collate "C" not null default 'member';

create or replace view coordd_v_members as
select m.name, m.id, h.state, m.address, m.version, m.labels, h.load_json, h.ttl_ms, h.seq,
       to_timestamp(h.beat_us / 1000000.0) as beat_at,
       to_timestamp(m.started_us / 1000000.0) as joined_at, m.kind
from coordd_members m
join coordd_heartbeats h on h.member_id = m.id;

-- +goose Down
drop view coordd_v_members;
create view coordd_v_members as
select m.name, m.id, h.state, m.address, m.version, m.labels, h.load_json, h.ttl_ms, h.seq,
       to_timestamp(h.beat_us / 1000000.0) as beat_at,
       to_timestamp(m.started_us / 1000000.0) as joined_at
from coordd_members m
join coordd_heartbeats h on h.member_id = m.id;
alter table coordd_members drop column kind;
