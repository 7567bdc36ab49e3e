-- +goose Up
-- What a member is for: member, or client, which is a command that holds something for a while.
drop view coordd_v_members;
alter table coordd_members add column kind varchar(20) not null default 'member';

create view coordd_v_members as
select m.name, m.id, h.state, m.address, m.version, m.labels, h.load_json, h.ttl_ms, h.seq,
       strftime('%Y-%m-%d %H:%M:%f', h.beat_us / 1000000.0, 'unixepoch') as beat_at,
       strftime('%Y-%m-%d %H:%M:%f', m.started_us / 1000000.0, 'unixepoch') as joined_at, m.kind
from coordd_members m
join coordd_heartbeats h on h.member_id = m.id;

-- +goose Down
drop view coordd_v_members;
alter table coordd_members drop column kind;
create view coordd_v_members as
select m.name, m.id, h.state, m.address, m.version, m.labels, h.load_json, h.ttl_ms, h.seq,
       strftime('%Y-%m-%d %H:%M:%f', h.beat_us / 1000000.0, 'unixepoch') as beat_at,
       strftime('%Y-%m-%d %H:%M:%f', m.started_us / 1000000.0, 'unixepoch') as joined_at
from coordd_members m
join coordd_heartbeats h on h.member_id = m.id;
