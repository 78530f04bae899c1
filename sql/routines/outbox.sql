-- The events of the log in the words of the outbox pattern, one row for each relay that delivers them: READY until it is
-- confirmed (or waits for another attempt), DONE after it. An event that no relay delivers has one row without a relay.
create or replace view :"schema".outbox as
select
  :"schema".message_id(l.id, l.xid, l.created_at) as event_id,
  t.name as aggregate_type,
  l.key as aggregate_id,
  l.type as event_type,
  l.payload,
  l.created_at,
  case
    when s.relay is null then 'READY'
    when :"schema".is_covered(s.position, l.id, l.xid) and not exists (
      select from :"schema".failed_delivery as d where d.relay = s.relay and d.log_id = l.id and d.xid = l.xid and d.state <> 'done'
    ) then 'DONE'
    else 'READY'
  end as status,
  s.relay,
  l.id as log_id
from :"schema".log as l
-- A topic may have several equal rows.
cross join lateral (select k.name from :"schema".topic as k where k.id = l.topic limit 1) as t
left join :"schema".relay as r on r.topics is null or l.topic = any (r.topics)
left join :"schema".relay_place as s on s.relay = r.name and s.slot = :"schema".key_slot(l.key, l.id, r.slots)
where l.operation = 'e';
