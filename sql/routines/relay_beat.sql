-- A process renews its lease, removes members whose lease has expired (their slots become free, and suspect), and tells the
-- log how far the relay is. `moves`: the relay is level or has moved, so it holds the log with right.
--   alive    false: this process itself was removed, and owns nothing any more
--   share    slots that it should own: all are shared evenly
--   owned    slots that it owns
--   vacant   slots that nobody owns
create or replace function :"schema".relay_beat(
  in_relay text,
  in_owner uuid,
  in_lease_ms integer,
  moves boolean,
  out alive boolean,
  out share integer,
  out owned smallint[],
  out vacant integer
)
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
begin
  update relay_member as m set expires_at = clock_timestamp() + in_lease_ms * interval '1 millisecond'
  where m.relay = in_relay and m.owner = in_owner;
  alive := found;

  -- Skipping what is locked: a member that renews itself now is alive, and two that remove each other would wait for each other.
  with dead as (
    delete from relay_member as m where m.relay = in_relay and m.owner in (
      select e.owner from relay_member as e
      where e.relay = in_relay and e.owner <> in_owner and e.expires_at < clock_timestamp()
      for update skip locked
    ) returning m.owner
  )
  update relay_slot as s set owner = null, epoch = s.epoch + 1, suspect = true
  from dead as d where s.relay = in_relay and s.owner = d.owner;

  select
    r.slots / greatest(count(m.owner), 1) + case when count(m.owner) filter (where m.owner < in_owner) < r.slots % greatest(count(m.owner), 1) then 1 else 0 end
  into share
  from relay as r left join relay_member as m on m.relay = r.name
  where r.name = in_relay
  group by r.slots;

  select
    coalesce(array_agg(s.slot order by s.slot) filter (where s.owner = in_owner), '{}'),
    count(*) filter (where s.owner is null)
  into owned, vacant
  from relay_slot as s where s.relay = in_relay;

  -- Snapshots of one server are ordered: the later one has the higher xmax, or fewer transactions in progress below it.
  update reader as r set position = l.position, snapshot = l.snapshot, updated_at = now()
  from (
    select s.position, s.snapshot from relay_place as s where s.relay = in_relay
    order by txid_snapshot_xmax(s.snapshot), (select count(*) from txid_snapshot_xip(s.snapshot)) desc, s.slot
    limit 1
  ) as l
  where r.name = 'relay:' || in_relay
    and (r.position <> l.position or (moves and r.updated_at < now() - interval '10 seconds'));

  -- At the end: it may lock what others would wait for.
  perform relay_turn();
end
$function$;

revoke execute on function :"schema".relay_beat from public;
