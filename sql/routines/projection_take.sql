-- Takes up to so many partitions that nobody owns. Nothing when the process was removed meanwhile.
create or replace function :"schema".projection_take(in_projection text, in_build bigint, in_owner uuid, in_count integer)
returns setof :"schema".projection_partition
language sql
volatile
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  with member as (
    select from projection_member as m
    where m.projection = in_projection and m.build = in_build and m.owner = in_owner and m.expires_at > clock_timestamp()
    for share
  )
  update projection_partition as p set owner = in_owner, epoch = p.epoch + 1, updated_at = clock_timestamp()
  where p.projection = in_projection and p.build = in_build and exists (select from member) and p.partition in (
    select v.partition from projection_partition as v
    where v.projection = in_projection and v.build = in_build and v.owner is null
    order by v.partition limit in_count for update skip locked
  )
  returning p.*
$function$;

revoke execute on function :"schema".projection_take from public;
