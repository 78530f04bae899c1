-- A process renews its lease on a build, and removes members whose lease has expired: their partitions become free.
--   alive      false: this process itself was removed, and owns nothing any more
--   state      of the build; null: it is gone
--   share      partitions that it should own: all are shared evenly
--   owned      partitions that it owns
--   vacant     partitions that nobody owns
--   requested  partitions of its own of which somebody wants parked events retried or discarded
create or replace function :"schema".projection_beat(
  in_projection text,
  in_build bigint,
  in_owner uuid,
  in_lease_ms integer,
  out alive boolean,
  out state text,
  out share integer,
  out owned integer[],
  out vacant integer,
  out requested integer[]
)
language plpgsql
volatile
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  others integer;
  before integer;
begin
  update projection_member as m set expires_at = clock_timestamp() + in_lease_ms * interval '1 millisecond'
  where m.projection = in_projection and m.build = in_build and m.owner = in_owner;
  alive := found;

  -- Skipping what is locked: a member that renews itself now is alive, and two that remove each other would wait for each other.
  with dead as (
    delete from projection_member as m where m.projection = in_projection and m.build = in_build and m.owner in (
      select e.owner from projection_member as e
      where e.projection = in_projection and e.build = in_build and e.owner <> in_owner and e.expires_at < clock_timestamp()
      for update skip locked
    ) returning m.owner
  )
  update projection_partition as p set owner = null, epoch = p.epoch + 1, updated_at = clock_timestamp()
  from dead as d where p.projection = in_projection and p.build = in_build and p.owner = d.owner;

  select b.state into state from projection_build as b where b.projection = in_projection and b.build = in_build;
  select count(*), count(*) filter (where m.owner < in_owner) into others, before
  from projection_member as m where m.projection = in_projection and m.build = in_build and m.owner <> in_owner;
  select
    count(*) / (others + 1) + case when before < count(*) % (others + 1) then 1 else 0 end,
    coalesce(array_agg(p.partition order by p.partition) filter (where p.owner = in_owner), '{}'),
    count(*) filter (where p.owner is null)
  into share, owned, vacant
  from projection_partition as p where p.projection = in_projection and p.build = in_build;
  -- One that waits behind another is retried when it is its turn.
  requested := array(
    select distinct e.partition from parked_event as e
    where e.projection = in_projection and e.build = in_build and e.request is not null and e.partition = any (owned)
      and (e.request = 'discard' or not exists (
        select from parked_event as b
        where b.projection = e.projection and b.build = e.build and b.partition = e.partition
          and b.aggregate_type = e.aggregate_type and b.aggregate_id = e.aggregate_id and b.position < e.position
      ))
  );
end
$function$;

revoke execute on function :"schema".projection_beat from public;
