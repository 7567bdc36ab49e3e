-- MySQL cannot add a column only if it is missing, so that statement is made up. What is made up
-- belongs to a connection, so goose is not told NO TRANSACTION here: it would not keep to one.
-- Each statement is committed by itself all the same.

-- +goose Up
-- What a member is for: member, or client, which is a command that holds something for a while.
set @coordd_change = (select if(count(*) = 0,
    'alter table coordd_members add column kind varchar(20) character set ascii collate ascii_bin not null default ''member''',
    'do 0') from information_schema.columns
    where table_schema = database() and table_name = 'coordd_members' and column_name = 'kind');
prepare coordd_change from @coordd_change;
execute coordd_change;
deallocate prepare coordd_change;

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
set @coordd_change = (select if(count(*) = 1, 'alter table coordd_members drop column kind', 'do 0')
    from information_schema.columns
    where table_schema = database() and table_name = 'coordd_members' and column_name = 'kind');
prepare coordd_change from @coordd_change;
execute coordd_change;
deallocate prepare coordd_change;
