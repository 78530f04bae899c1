-- Ends a batch: moves the checkpoint of a partition from a position to another, if it is still its owner's and still there.
--   saved          what failed before has gone through
--   lost           it is somebody else's, or is not where it was: roll back
--   other_history  its events are not those that are here: roll back
--   ended          somebody ended the transaction that projection_begin() was called in
create or replace function :"schema".projection_save(
  in_projection text,
  in_build bigint,
  in_partition integer,
  in_owner uuid,
  in_epoch bigint,
  in_from bigint,
  in_to bigint
) returns text
language plpgsql
volatile
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  held projection_partition%rowtype;
begin
  if coalesce(current_setting('trunkline.batch', true), '') <> in_owner::text then
    return 'ended';
  end if;
  select * into held from projection_partition as p
  where p.projection = in_projection and p.build = in_build and p.partition = in_partition
  for no key update;
  if not found or held.owner is distinct from in_owner or held.epoch <> in_epoch or held.position <> in_from then
    return 'lost';
  end if;
  if not is_projection_anchored(held.position, held.anchor_position, held.anchor_id) then
    return 'other_history';
  end if;
  -- Where it does not move, an event that stops it has not gone through: parked ones were served meanwhile.
  if in_to = in_from and (held.error is null or held.failing_position > in_to) then
    return 'saved';
  end if;
  update projection_partition as p
  set position = in_to, anchor_position = a.position, anchor_id = a.id,
    failing_position = null, failing_stream = null, attempts = 0, error_code = null, error = null, failing_since = null,
    updated_at = clock_timestamp()
  from (select) as one left join lateral (
    select e.position, e.id from event as e where e.position <= in_to order by e.position desc limit 1
  ) as a on true
  where p.projection = in_projection and p.build = in_build and p.partition = in_partition;
  return 'saved';
end
$function$;

revoke execute on function :"schema".projection_save from public;
