-- Whether a checkpoint speaks of the events that are here (docs/projections.md, P7).
create or replace function :"schema".is_projection_anchored(in_position bigint, in_anchor_position bigint, in_anchor_id uuid) returns boolean
language sql
stable
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  select in_position <= (select case when s.is_called then s.last_value else 0 end from event_position_seq as s)
    and (in_anchor_id is null or exists (select from event as e where e.position = in_anchor_position and e.id = in_anchor_id))
$function$;

revoke execute on function :"schema".is_projection_anchored from public;
