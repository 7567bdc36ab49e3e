-- +goose Up
-- What a member is for: member, or client, which is a command that holds something for a while.
alter table coordd_members add column kind varchar(20) character set ascii collate ascii_bin not null default 'member';

create or replace sql security invoker view coordd_v_members as
select m.name, m.id, h.state, m.address, m.version, m.labels, h.load_json, h.ttl_ms, h.seq,
       timestampadd(microsecond, h.beat_us, '1970-01-01') as beat_at,
       timestampadd(microsecond, m.started_us, '1970-01-01') as joined_at, m.kind
from coordd_members m
join coordd_heartbeats h on h.member_id = m.id;

-- +goose Down
create or replace sql security invoker view coordd_v_members as
select m.name, m.id, h.state, m.address, m.version, m.labels, h.load_json, h.ttl_ms, h.seq,
       timestampadd(microsecond, h.beat_us, '1970-01-01') as beat_at,
       timestampadd(microsecond, m.started_us, '1970-01-01') as joined_at
from coordd_members m
join coordd_heartbeats h on h.member_id = m.id;
alter table coordd_members drop column kind;
