-- A process gives partitions back; with in_leaves it ends its work on the build.
create or replace function :"schema".projection_give_back(
  in_projection text,
  in_build bigint,
  in_owner uuid,
  in_partitions integer[],
  in_leaves boolean
) returns void
language sql
volatile
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  update projection_partition as p set owner = null, epoch = p.epoch + 1, updated_at = clock_timestamp()
  where p.projection = in_projection and p.build = in_build and p.owner = in_owner and (in_leaves or p.partition = any (in_partitions));
  delete from projection_member as m
  where in_leaves and m.projection = in_projection and m.build = in_build and m.owner = in_owner;
$function$;

revoke execute on function :"schema".projection_give_back from public;
