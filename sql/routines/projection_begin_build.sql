-- Begins a build of a projection, and returns its number. Its tables are for the caller to make, in the same transaction.
-- A second one that is being built, or live, is refused by the unique index.
create or replace function :"schema".projection_begin_build(
  in_projection text,
  in_version integer,
  in_mode text,
  in_state text,
  in_partitions integer,
  in_categories text[]
) returns bigint
language plpgsql
volatile
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  number bigint;
begin
  insert into projection as p (name) values (in_projection) on conflict (name) do nothing;
  update projection as p set builds = p.builds + 1 where p.name = in_projection returning p.builds into number;
  insert into projection_build (projection, build, version, mode, state, partitions, categories, replay_until, live_at)
  values (
    in_projection, number, in_version, in_mode, in_state, in_partitions, in_categories,
    (select case when s.is_called then s.last_value else 0 end from event_position_seq as s),
    case in_state when 'live' then now() end
  );
  insert into projection_partition (projection, build, partition)
  select in_projection, number, p from generate_series(0, in_partitions - 1) as p;
  return number;
end
$function$;

revoke execute on function :"schema".projection_begin_build from public;
