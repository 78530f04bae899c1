-- Grants a role what a process needs that runs projections: all of grant_reader, and their bookkeeping. On the tables of its read models it needs
-- SELECT, INSERT, UPDATE and DELETE besides; who rebuilds owns them. Appending is granted by grant_events. Run as the owner of the schema.
create or replace function :"schema".grant_projections(role name) returns void
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
begin
  perform grant_reader(role);
  execute format('grant insert, update, delete on projection, projection_build, projection_member, projection_partition, parked_event to %I', role);
  execute format(
    'grant execute on function is_projection_anchored, projection_begin, projection_begin_build, projection_beat, projection_enter, projection_fail, '
    || 'projection_failed, projection_gate, projection_give_back, projection_hung_on, projection_join, '
    || 'projection_keep_counting, projection_kept_names, projection_events, projection_park, '
    || 'projection_save, projection_swap_tables, projection_take, projection_writers to %I',
    role
  );
end
$function$;

revoke execute on function :"schema".grant_projections from public;
